"""Label switching that is forced: do relabelled draws have the means of draws that never switched?

    python benchmarks/label_switching.py [seeds]

For each case and seed NUTS runs twice on the same data. Once by the default call, which starts every chain at EM's
mode, and orders or relabels; once without order, every chain started in another copy of the mode, and from a random
time on every chain's labels permuted once more. The second run is relabelled. A seed passes where every R-hat of the
relabelled parameters is at most 1.01, every mean lies within four Monte-Carlo errors of the first run's, the run
without relabelling is reported as switching, and the default is not. A second argument picks cases by a part of their
name. What is found is kept in ``build/label_switching.jsonl``: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import arviz_stats as azs
import numpy as np
import pymc as pm

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.diagnostics import verdict
from bayesmix.discrete import completed
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.inference.em import maximise
from bayesmix.inference.nuts import _nutpie
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.symmetry import permuted

FOUND = Path(__file__).parents[1] / "build" / "label_switching.jsonl"
Case = tuple[Any, Callable[[np.random.Generator], Any]]


def normals(n_components: int) -> Case:
    """Locations six standard deviations apart: the default orders them."""

    def draw(rng):
        return rng.normal(6.0 * rng.integers(0, n_components, 60 * n_components), 1.0)

    return bm.Mixture(bm.Normal(), n_components), draw


def categories(n_components: int) -> Case:
    """Eight fields of three symbols: no location to order by."""
    table = np.random.default_rng(5).dirichlet(np.full(3, 0.25), (n_components, 8))

    def draw(rng):
        z = rng.integers(0, n_components, 80 * n_components)
        return {f"f{j}": np.array([rng.choice(list("abc"), p=table[k, j]) for k in z], object) for j in range(8)}

    return bm.Mixture(bm.Composite(**{f"f{j}": bm.Categorical() for j in range(8)}), n_components), draw


def sets(n_components: int) -> Case:
    """Sets of twelve symbols."""
    p = np.random.default_rng(6).choice([0.1, 0.9], (n_components, 12))

    def draw(rng):
        z = rng.integers(0, n_components, 60 * n_components)
        return {"t": [frozenset(np.flatnonzero(rng.random(12) < p[k]).tolist()) for k in z]}

    return bm.Mixture(bm.Composite(t=bm.BernoulliSet()), n_components), draw


def nested() -> Case:
    """Two normals in each of two components, which a count tells apart."""
    mu = np.array([[-8.0, 0.0], [3.0, 12.0]])

    def draw(rng):
        z, inner = rng.integers(0, 2, 240), rng.integers(0, 2, 240)
        return {"x": rng.normal(mu[z, inner], 1), "y": rng.poisson(np.array([2.0, 20.0])[z])}

    return bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2), draw


def hierarchical() -> Case:
    """Two kinds of sequences of three topics."""
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])

    def draw(rng):
        return {"x": [list(rng.normal(8.0 * rng.choice(3, 12, p=shares[k]), 1)) for k in rng.integers(0, 2, 60)]}

    return bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=2), draw


def joint() -> Case:
    """Two components of one field, three of the other."""
    transition = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])

    def draw(rng):
        z = rng.integers(0, 2, 250)
        y = np.array([rng.choice(3, p=transition[k]) for k in z])
        return {"x": rng.normal(7.0 * z, 1), "y": rng.poisson(np.array([1.0, 12.0, 45.0])[y])}

    return bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3)), draw


def close_pair() -> Case:
    """Two normals of sd 1 that lie 2 apart, only their locations unknown, 100 rows."""

    def draw(rng):
        return rng.normal(np.array([-1.0, 1.0])[rng.integers(0, 2, 100)], 1.0)

    return bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 10), sigma=1.0), 2, weights=[0.5, 0.5]), draw


CASES: dict[str, Case] = {
    "close pair": close_pair(),
    **{f"Normal, K={k}": normals(k) for k in (2, 3, 4, 5)},
    **{f"Categorical, K={k}": categories(k) for k in (2, 3, 4, 5)},
    **{f"BernoulliSet, K={k}": sets(k) for k in (2, 3, 4, 5)},
    "nested, 2 of 2": nested(),
    "hierarchical, 2 of 3": hierarchical(),
    "joint, 2 and 3": joint(),
}


def switching_fit(spec: Any, data: Any, seed: int, *, draws: int = 1000, tune: int = 500, chains: int = 4) -> Fit:
    """A posterior without order or relabelling whose chains start in different copies of EM's mode and switch once."""
    table, bound, encoded, weights, given = prepare(spec, data, None)
    rng = np.random.default_rng(seed)
    mode, runs = maximise(bound, encoded, weights, n_starts=16, random_seed=rng)
    model = model_of(bound, encoded, index=table.index, row_weights=given, initval=mode.params)
    target = Target(model, variables_at(bound, mode.params), jacobian=True)
    starts = []
    for c in range(chains):
        params = dict(mode.params)
        for symmetry in bound.symmetries if c else ():  # the first chain stays, the others must not
            params.update(permuted(bound, symmetry, params, random_order(symmetry, rng, stay=False)))
        start = target.unconstrained(variables_at(bound, params))
        factor = laplace_factor(target.hessian(start))
        starts.append(start + factor @ rng.standard_normal(len(start)).clip(-2, 2))
    arrays, stats, _ = _nutpie(
        model,
        target,
        np.array(starts),
        draws=draws,
        tune=tune,
        cores=None,
        target_accept=0.8,
        seed=int(rng.integers(2**31)),
        progressbar=False,
    )
    arrays = completed(bound, encoded, weights, {name: arrays[name] for name in bound.sampled_slots}, rng)
    for symmetry in bound.symmetries:
        order = np.broadcast_to(symmetry.identity, (chains, draws, *symmetry.shape)).copy()
        for c in range(chains):
            order[c, int(rng.integers(draws)) :] = random_order(symmetry, rng)
        arrays.update(permuted(bound, symmetry, arrays, order))
    fit = make_fit(
        bound,
        arrays,
        table=table,
        encoded=encoded,
        row_weights=given,
        status=Status("nuts", False, ""),
        starts=[run.report() for run in runs],
        groups={"sample_stats": stats},
    )
    fit = fit.relabel(None, like=mode.params)
    return replace(fit, status=Status("nuts", *verdict(fit)))


def random_order(symmetry, rng: np.random.Generator, stay: bool = True) -> np.ndarray:
    """A permutation within every block of components that may change places, `stay`: perhaps that of no change."""
    order = symmetry.identity.copy()
    while True:
        for at, block in symmetry.blocks():
            order[(*at, block)] = rng.permutation(block)
        if stay or (order != symmetry.identity).any():
            return order


def compare(reference: Fit, back: Fit) -> dict[str, float]:
    """Largest R-hat of `back`, and the largest difference of means in Monte-Carlo errors."""
    rhat, away = 1.0, 0.0
    errors = [azs.mcse(fit.posterior) for fit in (reference, back)]
    ranks = azs.rhat(back.posterior)
    for name in back.bound.sampled_slots:
        rhat = max(rhat, float(np.nanmax(ranks[name].values)))
        means = [fit.posterior[name].mean(("chain", "draw")).values for fit in (reference, back)]
        error = np.hypot(*[each[name].values for each in errors])
        away = max(away, float(np.nanmax(np.abs(means[0] - means[1]) / error)))
    return {"R-hat": rhat, "away": away}


def one(spec: Any, data: Any, seed: int, method: str = "kl", **kwargs: Any) -> dict[str, float]:
    """Both runs on one table."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        reference = bm.fit_nuts(spec, data, random_seed=seed, **{"draws": 1000, "tune": 500, **kwargs})
        left = switching_fit(spec, data, seed + 1000, **kwargs)
    middle = time.perf_counter()
    back = left.relabel(method)
    took = time.perf_counter() - middle
    reported = not left.status.converged and "switched" in left.status.message
    found = compare(reference, back)
    by_default = "switched" in reference.status.message
    passed = found["R-hat"] <= 1.01 and found["away"] <= 4 and reported and not by_default
    return {
        **found,
        "moved": left.relabelling.share_moved,
        "rate": max(back.relabelling.non_permutation.values()),
        "reported": reported,
        "default reported": by_default,
        "seconds": middle - begin,
        "relabelling": took,
        "passed": passed,
    }


def main(seeds: int, only: str = "") -> None:
    FOUND.parent.mkdir(exist_ok=True)
    known = [json.loads(line) for line in FOUND.read_text().splitlines()] if FOUND.exists() else []
    for name, (spec, draw) in CASES.items():
        if only not in name:
            continue
        done = {line["seed"]: line for line in known if line["case"] == name}
        for seed in range(seeds):
            if seed not in done:
                done[seed] = {"case": name, "seed": seed, **one(spec, draw(np.random.default_rng(seed)), seed)}
                with FOUND.open("a") as file:
                    file.write(json.dumps(done[seed], default=float) + "\n")
                if not done[seed]["passed"]:
                    print(f"    {done[seed]}", flush=True)
        lines = [done[seed] for seed in range(seeds)]
        worst = {key: round(float(max(line[key] for line in lines)), 4) for key in ("R-hat", "away", "rate")}
        seconds = {key: round(float(np.median([line[key] for line in lines])), 2) for key in ("seconds", "relabelling")}
        passed = sum(bool(line["passed"]) for line in lines)
        print(f"{name:22} passed {passed} of {seeds}; worst {worst}; median {seconds}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, *sys.argv[2:3])
