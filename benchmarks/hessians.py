"""Error of the Hessian by differences of the fused gradient, against exact second derivatives of PyMC's densities.

    python benchmarks/hessians.py [names]

The largest error of an entry, in units of the square roots of its row's and its column's diagonal entries, at the mode
and about one standard deviation away from it, and how many gradients a coordinate took. Each takes up to some minutes:
the graph of the exact derivatives is large.
"""

from __future__ import annotations

import sys

import numpy as np
import pytensor
import pytensor.tensor as pt

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QUICK
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target
from bayesmix.mstep import hessian_by_differences

rng = np.random.default_rng(0)
N = 300
z = rng.integers(2, size=N)
C, M = bm.Composite, bm.Mixture
CASES = {
    "normal": (M(bm.Normal(), 2), {"x": rng.normal(4 * z, 1)}),
    "units": (
        M(C(a=bm.Normal(), b=bm.Normal(), c=bm.Normal()), 2),
        {"a": 1e8 + rng.normal(4 * z, 1), "b": 1e-8 * rng.normal(3 * z, 1), "c": 1e8 * rng.normal(2 * z, 1)},
    ),
    "families": (
        M(C(n=bm.Poisson(), e=bm.Exponential(), g=bm.Geometric(), b=bm.Bernoulli(), l=bm.LogNormal()), 2),
        {
            "n": rng.poisson(1e6 * (1 + z)),
            "e": rng.exponential(1e-6 * (1 + 50 * z)),
            "g": rng.geometric(1e-4 * (1 + 20 * z)),
            "b": rng.random(N) < 0.02 + 0.9 * z,
            "l": np.exp(rng.normal(30 * z, 5)),
        },
    ),
    "overlapping": (M(bm.Normal(), 3), {"x": rng.normal(1.0 * z, 1)}),
}


def errors(spec, data):
    """The error and the number of gradients a coordinate, at the mode and away from it."""
    _, bound, encoded, weights, _ = prepare(spec, data, None)
    start = maximise(bound, encoded, weights, n_starts=2, random_seed=1)[0].params
    fused, graph = [
        Target(model_of(bound, encoded, initval=None, likelihood=kind), variables_at(bound, start), jacobian=False)
        for kind in ("fused", "graph")
    ]
    flat, [logp] = graph._joined([graph.model.logp(jacobian=False)])
    gradient = pt.grad(logp, flat)
    rows = [pt.grad(gradient[i], flat) for i in range(len(graph.start))]
    exact = pytensor.function([flat], pt.stack(rows), mode=QUICK)
    noise = np.random.default_rng(1).normal(size=graph.start.shape)
    for distance in (0.0, 1.0):
        u = fused.start + distance * noise / np.sqrt(np.abs(np.diagonal(exact(fused.start))))
        calls = []
        found = hessian_by_differences(lambda x: (calls.append(1), fused(x)[1])[1], u)  # noqa: B023
        wanted = exact(u)
        unit = np.sqrt(np.abs(np.diagonal(wanted)))
        yield distance, np.abs((found - wanted) / unit[:, None] / unit).max(), len(calls) / len(u)


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        for distance, error, calls in errors(*CASES[name]):
            print(f"{name:12} {distance:3.0f} {error:8.1e} {calls:5.1f}", flush=True)
