"""How long a log posterior and its gradient take to be there, and to be evaluated.

    python benchmarks/tapes.py [names]

One line a model: seconds from the PyMC model to the first value, microseconds a call after that, the number of
coordinates, of the interpreter's instructions' words and of calls to NumPy in between. The first line is the time that
the interpreter takes to be there: several seconds on a machine that has never run it, a tenth afterwards.
For a machine without any cache: ``PYTENSOR_FLAGS=base_compiledir=$(mktemp -d) NUMBA_CACHE_DIR=$(mktemp -d)``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.datasets import penguins
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target
from bayesmix.kernels.log_sum_exp import LogSumExp
from bayesmix.tape import Tape


def normals(n_rows: int) -> tuple:
    rng = np.random.default_rng(0)
    return bm.Mixture(bm.Normal(), 3), rng.normal(rng.choice([-5, 0, 5], n_rows), 1)


def faithful() -> tuple:
    rows = json.loads((Path(__file__).parents[1] / "tests" / "reference" / "faithful.json").read_text())["rows"]
    return bm.Mixture(bm.MvNormal(), 2), np.array([[row["eruptions"], row["waiting"]] for row in rows])


def birds() -> tuple:
    sizes = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    fields = {name: bm.Normal() for name in sizes} | {"sex": bm.Categorical(), "island": bm.Categorical()}
    return bm.Mixture(bm.Composite(fields), 6), penguins()


def six_fields(n_rows: int = 2000, n_components: int = 20) -> tuple:
    rng = np.random.default_rng(0)
    z = rng.integers(n_components, size=n_rows)
    table = {
        "a": rng.normal(z, 1),
        "b": rng.normal(-2.0 * z, 1),
        "c": rng.poisson(1 + z),
        "d": [f"s{i}" for i in (z + rng.integers(3, size=n_rows)) % 5],
        "e": rng.random(n_rows) < (z + 1) / (n_components + 1),
        "f": list(np.stack([z + rng.normal(size=n_rows), rng.normal(size=n_rows)], 1)),
    }
    fields = {"a": bm.Normal(), "b": bm.Normal(), "c": bm.Poisson(), "d": bm.Categorical(), "e": bm.Bernoulli()}
    return bm.Mixture(bm.Composite(**fields, f=bm.MvNormal()), n_components), table


def own_priors(n_rows: int = 200) -> tuple:
    rng = np.random.default_rng(0)
    z = rng.integers(2, size=n_rows)
    table = {
        "a": rng.normal(3 * z, 1),
        "b": rng.normal(2 * z, 1),
        "c": rng.poisson(1 + 8 * z),
        "e": rng.random(n_rows) < (z + 1) / 3,
        "f": list(np.stack([4 * z + rng.normal(size=n_rows), rng.normal(size=n_rows)], 1)),
    }
    lkj = pm.LKJCholeskyCov.dist(n=2, eta=2.0, sd_dist=pm.HalfNormal.dist(3, shape=2), compute_corr=False)
    fields = {
        "a": bm.Normal(mu=pm.StudentT.dist(nu=4, mu=0, sigma=10), sigma=pm.HalfNormal.dist(5)),
        "b": bm.Normal(sigma=pm.LogNormal.dist(0, 1)),
        "c": bm.Poisson(mu=pm.Gamma.dist(2, 0.5)),
        "e": bm.Bernoulli(p=pm.Beta.dist(2, 3)),
        "f": bm.MvNormal(cov=lkj),
    }
    return bm.Mixture(bm.Composite(fields), 2), table


MODELS = {
    "3 normals, 100 rows": lambda: normals(100),
    "3 normals, 20,000 rows": lambda: normals(20_000),
    "Old Faithful": faithful,
    "penguins": birds,
    "6 fields, K = 20, 2,000 rows": six_fields,
    "user's priors": own_priors,
}


def main(names: list[str]) -> None:
    u = pt.vector("u", shape=(2,))
    began = time.perf_counter()
    Tape([u], [LogSumExp(2)(pt.exp(u)[None])[0]], [np.zeros(2)])(np.zeros(2))
    print(f"{'the interpreter':30} {time.perf_counter() - began:6.2f} s")
    for name in names or MODELS:
        spec, data = MODELS[name]()
        table, bound, encoded, weights, _ = prepare(spec, data, None)
        start = maximise(bound, encoded, weights, n_starts=2, random_seed=1)[0].params
        began = time.perf_counter()
        model = model_of(bound, encoded, index=table.index, initval=start)
        target = Target(model, variables_at(bound, start), jacobian=True)
        target(target.start)
        first = time.perf_counter() - began
        best = np.inf
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(50):
                target(target.start)
            best = min(best, (time.perf_counter() - began) / 50)
        tape = target._function
        calls = sum(not isinstance(step, tuple) for step in tape._steps)
        print(f"{name:30} {first:6.2f} s {best * 1e6:8.1f} µs {len(target.start):5} {len(tape._code):6} {calls:3}")


if __name__ == "__main__":
    main(sys.argv[1:])
