"""The exponential family (of waiting times)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm
from scipy.special import gamma

from bayesmix.data import numbers
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import Size
from bayesmix.moments import mixing
from bayesmix.params import POSITIVE, Parameter
from bayesmix.portraits import scale
from bayesmix.summaries import Sums


@final
@dataclass(frozen=True, repr=False, eq=False)
class Exponential(Leaf):
    r"""Waiting times without memory.

    .. math:: f(x \mid \beta) = \frac{1}{\beta} e^{-x/\beta}

    ========  ======================
    Support   real numbers >= 0
    Mean      :math:`\beta`
    Variance  :math:`\beta^2`
    ========  ======================

    Parametrised by the scale :math:`\beta`, which is the mean, as ``pymc.Exponential(scale=...)``; the rate is
    1/scale.

    Parameters
    ----------
    scale : prior, optional
        Mean, > 0. Default ``InverseGamma(2, 3 m)``, with m the mean of the column (1 in a column of zeros): its
        mode is m, its weight three observations, and it is zero at scale = 0.

    Notes
    -----
    M-step: ``scale = (Σ r x + b) / (Σ r + a + 1)`` under an ``InverseGamma(a, b)`` prior.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., section 2.6.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Exponential(), 2)
    Mixture(Exponential(), 2)
    """

    scale: Any = None

    learned_type = Size

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        values = numbers(column, "Exponential", minimum=0)[~column.missing]
        return Sums(len(values), values.sum())

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Size(float(summary.total / max(summary.n, 1)) or 1.0)

    def assume(self, place):
        """See `Node.assume`."""
        return Size(1.0)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        return {"scale": Parameter(POSITIVE, pm.InverseGamma.dist(2.0, 3 * learned.scale), "inverse_gamma")}

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        return {"value": numbers(column, "Exponential", minimum=0)}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values

    def collapsed(self, params, learned):
        """See `Leaf.collapsed`."""
        return params["scale"] < 1e-12 * learned.scale

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        scale = params["scale"]
        return -data["value"][:, None] / scale - np.log(scale)

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Exponential.dist(scale=params["scale"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return {"n": np.broadcast_to(1.0, len(data["value"])), "total": data["value"]}

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        return {"n": -xp.log(params["scale"]), "total": -1 / params["scale"]}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        prior = priors["scale"]
        return {"scale": (prior.pool(stats["total"]) + prior.beta) / (prior.pool(stats["n"]) + prior.alpha + 1)}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return rng.exponential(params["scale"][z])

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        return [scale("mean", params["scale"])]

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["scale"]

    def moment_estimator(self, site, data, row_weights):
        """See `Leaf.moment_estimator`."""
        return mixing.of_exponential(data["value"], site, row_weights)

    def embed(self, data, learned):
        """Cube roots, standardised: they are nearly normal (Wilson and Hilferty 1931), and zero has one."""
        center, spread = gamma(4 / 3), np.sqrt(gamma(5 / 3) - gamma(4 / 3) ** 2)
        return ((np.cbrt(data["value"] / learned.scale) - center) / spread)[:, None]
