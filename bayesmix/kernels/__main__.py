"""Compile the kernels and keep them on disk, so that the first fit need not: ``python -m bayesmix.kernels``."""

import numpy as np

import bayesmix as bm

if __name__ == "__main__":
    bm.fit_nuts(bm.Mixture(bm.Normal(), 2), np.array([0.0, 0.1, 5.0, 5.3]), draws=4, tune=4, chains=2, random_seed=1)
