"""The share of seeds from which the default call reaches each reference figure.

    python benchmarks/seeds.py [seeds] [case ...]

Flat priors, but for composite4: default priors, then maximum likelihood from there (flat priors alone let an inner
component collapse). One line a case: share of seeds, worst and best log-likelihood, seconds a fit.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bayesmix as bm

FOLDER = Path(__file__).parents[1] / "tests" / "reference"


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def mvn3() -> np.ndarray:
    data = load("mvn3")
    return np.array(data["x"])[data["train_index"]]


def composite4() -> list[tuple]:
    data = load("composite4")
    return list(zip(data["x1"], data["x2"], data["x3"], data["x4"]))


def joint() -> list[tuple]:
    data = load("joint")
    rows = [((c, x), y) for c, x, y in zip(data["x_cat"], data["x_real"], data["y"])]
    return [rows[i] for i in data["train_index"]]


COMPOSITE4 = bm.Mixture(
    bm.Composite(
        bm.Mixture(bm.Normal(), 2),
        bm.Optional(bm.Geometric()),
        bm.MarkovChain(length=bm.Poisson()),
        bm.BernoulliSet(),
    ),
    3,
)
TIED = bm.Mixture([bm.Sequence(bm.Mixture([bm.Normal(tie=name) for name in "abc"]))] * 4)
JOINT = bm.JointMixture(
    x=(bm.Composite(bm.Categorical(), bm.Normal()), 3), y=(bm.Sequence(bm.Normal(), length=bm.Poisson()), 3)
)
#: Spec, data, the figure to reach.
CASES: dict[str, tuple[Any, Callable[[], Any], float]] = {
    "gauss2": (bm.Mixture(bm.Normal(), 2), lambda: np.array(load("gauss2")["x"]), -10213.193524879513),
    "mvn3": (bm.Mixture(bm.MvNormal(), 3), mvn3, -7035.968176),
    "composite4": (COMPOSITE4, composite4, -14062.5657584373),
    "hierarchical": (bm.HierarchicalMixture(bm.Normal(), 3, 4), lambda: load("hierarchical")["x"], -11909.416979382),
    "hierarchical, tied": (TIED, lambda: load("hierarchical")["x"], -11909.416979382),
    "joint": (JOINT, joint, -80982.6254),
    "hetero_continuous": (
        bm.Mixture([bm.Exponential(), bm.Exponential(), bm.LogNormal()]),
        lambda: load("hetero_continuous")["x"],
        -25479.08044,
    ),
    "hetero_discrete": (
        bm.Mixture([bm.SpikeAndSlab(), bm.Poisson()]),
        lambda: load("hetero_discrete")["x"],
        -14536.547792365836,
    ),
}


def one(name: str, spec: Any, data: Any, seed: int) -> float:
    if name != "composite4":
        return bm.fit(spec.with_flat_priors(), data, random_seed=seed).loglik
    fit = bm.fit(spec, data, random_seed=seed)
    start = {key: fit.params[key] for key in fit.bound.free_slots}
    return bm.fit_em(spec.with_flat_priors(), data, start=start).loglik


def main(seeds: int, chosen: list[str]) -> None:
    for name in chosen or CASES:
        spec, make, figure = CASES[name]
        data, found, begin = make(), [], time.perf_counter()
        for seed in range(seeds):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bm.BayesmixWarning)
                found.append(one(name, spec, data, seed))
        seconds = (time.perf_counter() - begin) / seeds
        share = np.mean(np.array(found) > figure - 1e-4)
        print(
            f"{name:20s} {share:5.0%} of {seeds} reach {figure:.6f}; worst {min(found):.6f}, best {max(found):.6f}; "
            f"{seconds:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, sys.argv[2:])
