"""What one E-step takes, and how many iterations EM takes with and without acceleration.

    python benchmarks/em.py [steps|iterations]

Steps: one line a spec, milliseconds of an E-step (log-likelihood and expected statistics) by the walks in numpy and by
the kernel on one thread and on two, and the largest relative difference of a statistic. Iterations: of EM from one
start to ``tol=1e-8``, plain and accelerated, E-steps of rejected leaps counted.
"""

from __future__ import annotations

import sys
import time
import warnings
from functools import partial

import numpy as np

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.inference.start import initial_params
from bayesmix.plan import EStep


def normals(n_rows: int, n_components: int) -> tuple:
    rng = np.random.default_rng(0)
    z = rng.integers(n_components, size=n_rows)
    return bm.Mixture(bm.Normal(), n_components), rng.normal(3.0 * z, 1)


def mixed(n_rows: int, n_components: int) -> tuple:
    rng = np.random.default_rng(0)
    z = rng.integers(n_components, size=n_rows)
    table = {
        "a": np.where(rng.random(n_rows) < 0.1, np.nan, rng.normal(z, 1)),
        "b": rng.poisson(1 + z),
        "c": [f"s{i}" for i in (z + rng.integers(3, size=n_rows)) % 5],
        "d": list(np.stack([z + rng.normal(size=n_rows), rng.normal(size=n_rows)], 1)),
    }
    fields = {"a": bm.Normal(), "b": bm.Poisson(), "c": bm.Categorical(), "d": bm.MvNormal()}
    return bm.Mixture(bm.Composite(fields), n_components), table


def sequences(n_rows: int) -> tuple:
    rng = np.random.default_rng(0)
    lengths = rng.poisson(10, n_rows)
    rows = [rng.normal(rng.choice([-4.0, 0.0, 4.0], n), 1) for n in lengths]
    return bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=4), rows


STEPS = {
    "Normal, N = 100,000, K = 3": lambda: normals(100_000, 3),
    "Normal, N = 100,000, K = 10": lambda: normals(100_000, 10),
    "four fields, N = 20,000, K = 5": lambda: mixed(20_000, 5),
    "four fields, N = 20,000, K = 20": lambda: mixed(20_000, 20),
    "hierarchical, 5,000 sequences of 10": lambda: sequences(5_000),
}


def best_of(function, n: int = 25) -> float:
    times = []
    for _ in range(n):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def steps() -> None:
    print(f"{'ms an E-step':38} {'walks':>8} {'kernel':>8} {'2 threads':>10}  largest difference")
    for name, make in STEPS.items():
        _, bound, encoded, weights, _ = prepare(*make(), None)
        params = initial_params(bound, encoded, weights, np.random.default_rng(1), 0)
        one, two = EStep(bound, encoded, weights, 1), EStep(bound, encoded, weights, 2)
        _, walked = bound.e_step(params, encoded, weights)
        _, found = one(params)
        off = max(
            float(np.abs(found[key][n] - value).max() / max(np.abs(value).max(), 1e-300))
            for key, own in walked.items()
            for n, value in own.items()
        )
        times = [
            best_of(partial(bound.e_step, params, encoded, weights)),
            best_of(partial(one, params)),
            best_of(partial(two, params)),
        ]
        print(f"{name:38} {times[0]:8.1f} {times[1]:8.2f} {times[2]:10.2f}  {off:.0e}")


def overlapping() -> tuple:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 1, 2000), rng.normal(1.8, 1, 1000)])
    return bm.Mixture(bm.Normal(), 2), x


ITERATIONS = {
    "two normals 1.8 sd apart, N = 3,000": overlapping,
    "three normals 3 sd apart, N = 20,000": lambda: normals(20_000, 3),
    "four fields, N = 2,000, K = 5": lambda: mixed(2_000, 5),
    "hierarchical, 500 sequences of 10": lambda: sequences(500),
}


def iterations() -> None:
    print(f"{'iterations from one start':38} {'plain':>8} {'fast':>6}  log posterior gained")
    for name, make in ITERATIONS.items():
        spec, data = make()
        found = []
        for accelerate in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = bm.fit_em(spec, data, n_starts=1, accelerate=accelerate, max_iter=20_000, random_seed=1)
            found.append((fit.starts[0]["iterations"], fit.history[-1]))
        (plain, low), (fast, high) = found
        print(f"{name:38} {plain:8} {fast:6}  {high - low:+.1e}")


if __name__ == "__main__":
    for each in sys.argv[1:] or ["steps", "iterations"]:
        {"steps": steps, "iterations": iterations}[each]()
