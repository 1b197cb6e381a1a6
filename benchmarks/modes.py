"""Modes and approximations, measured: planted modes, sds against NUTS, a reference posterior.

python benchmarks/modes.py [trap] [pairs] [sds] [reference]
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pymc as pm

import bayesmix as bm

REFERENCE = Path(__file__).parent.parent / "tests" / "reference"


def planted(seed):
    """A spec, data, the right start and a wrong one: near groups merged, a far group split in two."""
    rng = np.random.default_rng(seed)
    n, kind = 120, seed % 4
    group = np.repeat([0, 1, 2], n)
    gap = rng.uniform(4, 6)
    at, wrong = np.array([0.0, gap, 25.0]), np.array([gap / 2, 24.5, 25.5])
    x = at[group] + rng.normal(size=3 * n)
    even = np.full(3, 1 / 3)
    if kind == 0:
        start = {"weights": even, "mu": at, "sigma": np.ones(3)}
        trap = {"weights": even, "mu": wrong, "sigma": np.array([gap / 2, 1, 1])}
        return bm.Mixture(bm.Normal(), 3), x, start, trap
    if kind == 1:
        counts = np.array([2.0, 14.0, 80.0])
        start = {"weights": even, "mu": counts}
        trap = {"weights": even, "mu": np.array([8.0, 74.0, 86.0])}
        return bm.Mixture(bm.Poisson(), 3), rng.poisson(counts[group]), start, trap
    if kind == 2:
        centres = np.array([[0, 0], [gap, 0], [20, 20]], float)
        table = centres[group] + rng.normal(size=(3 * n, 2))
        start = {"weights": even, "mu": centres, "cov": np.broadcast_to(np.eye(2), (3, 2, 2))}
        merged = np.array([[gap / 2, 0], [19.5, 20], [20.5, 20]])
        trap = {**start, "mu": merged, "cov": np.array([np.diag([gap**2 / 4 + 1, 1]), np.eye(2), np.eye(2)])}
        return bm.Mixture(bm.MvNormal(), 3), table, start, trap
    table = {"x": x, "b": rng.random(3 * n) < np.array([0.2, 0.5, 0.8])[group]}
    start = {"weights": even, "x_mu": at, "x_sigma": np.ones(3), "b_p": np.array([0.2, 0.5, 0.8])}
    trap = {**start, "x_mu": wrong, "x_sigma": np.array([gap / 2, 1, 1])}
    return bm.Mixture(bm.Composite(x=bm.Normal(), b=bm.Bernoulli()), 3), table, start, trap


def trap():
    """20 sets with a mode more than 50 nats down: in which mode are the default fits?"""
    right = {"em": 0, "laplace": 0, "nuts": 0}
    found = 0
    seed = 0
    while found < 20:
        spec, data, start, wrong = planted(seed)
        best = bm.fit_em(spec, data, start=start).history[-1]
        low = bm.fit_em(spec, data, start=wrong)
        gap = best - low.history[-1]
        seed += 1
        if gap < 50:
            continue
        found += 1
        at = bm.fit_em(spec, data, start=start)
        for method in right:
            settings = {"draws": 400, "tune": 400} if method == "nuts" else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = bm.fit(spec, data, method=method, random_seed=seed, **settings)
            height = fit.modes[0].log_posterior if method != "em" else fit.history[-1]
            near = abs(fit.loglik - at.loglik) < 15 and height > best - 1e-3
            right[method] += near
            if not near:
                print("  missed", seed, method, fit.loglik, at.loglik, height, best)
        print(f"set {found}: inferior mode {gap:.0f} nats down; right so far {right}", flush=True)


def pairs():
    """20 sets with two modes within 2 nats: how many list both, and how many say so?"""
    listed = {"em": 0, "laplace": 0}
    said = 0
    found = seed = 0
    while found < 20:
        rng = np.random.default_rng(seed)
        seed += 1
        gap = rng.uniform(4.5, 6)
        half = np.concatenate([rng.normal(8, 1, 60), rng.normal(8 + gap, 1, 60)])
        x = np.concatenate([half, -half + rng.normal(0, 0.02, 120)])
        spec = bm.Mixture(bm.Normal(), 3)
        even, wide = np.array([0.25, 0.25, 0.5]), 0.5 * np.hypot(gap, 2)
        a = {"weights": even, "mu": np.array([8, 8 + gap, -8 - gap / 2]), "sigma": np.array([1, 1, wide])}
        heights = [bm.fit_em(spec, x, start={**a, "mu": sign * a["mu"]}).history[-1] for sign in (1, -1)]
        if abs(heights[0] - heights[1]) > 2:
            continue
        found += 1
        for method in listed:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                fit = bm.fit(spec, x, method=method, random_seed=seed)
            have = [any(abs(mode.log_posterior - height) < 1e-3 for mode in fit.modes) for height in heights]
            listed[method] += all(have)
            if method == "laplace":
                said += any(issubclass(each.category, bm.MultimodalWarning) for each in caught)
        print(
            f"set {found}: {heights[0] - heights[1]:+.2f} nats; both listed {listed}, said by Laplace {said}",
            flush=True,
        )


def sds():
    """Standard deviations of Laplace and ADVI against NUTS's, with Pareto k."""
    rng = np.random.default_rng(3)
    group = rng.integers(0, 2, 400)
    x = np.array([-4.0, 4.0])[group] + rng.normal(size=400)
    both = {"x": x, "n": rng.poisson(np.array([2.0, 9.0])[group]), "c": np.array(list("uvw"))[rng.integers(0, 3, 400)]}
    cases = {
        "normals, 400": (bm.Mixture(bm.Normal(), 2), x),
        "composite, 400": (bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical()), 2), both),
    }
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        close = rng.normal(np.where(rng.integers(0, 2, 100), 1.0, -1.0), 1)
        spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 10), sigma=1.0), 2, weights=[0.5, 0.5])
        cases[f"close pair, centres alone, {seed}"] = (spec, close)
        cases[f"close pair, {seed}"] = (bm.Mixture(bm.Normal(), 2), close)
    for name, (spec, data) in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nuts = bm.fit_nuts(spec, data, random_seed=1, draws=2000)
            settings = [("laplace", {}), ("advi", {}), ("advi", {"approximation": "meanfield"})]
            for method, options in settings:
                for correct in (True, False):
                    fit = bm.fit(spec, data, method=method, random_seed=1, correct=correct, draws=2000, **options)
                    ratios = [
                        np.ravel(fit.posterior[n].std(("chain", "draw")) / nuts.posterior[n].std(("chain", "draw")))
                        for n in nuts.bound.free_slots
                    ]
                    ratios = np.concatenate(ratios)
                    which = f"{method} {options.get('approximation', '')}"
                    print(
                        f"{name:32} {which:15} corrected {correct!s:5} k {fit.pareto_k:5.2f}  "
                        f"sd ratios {ratios.min():.2f} to {ratios.max():.2f}  nuts converged {nuts.status.converged}",
                        flush=True,
                    )


def reference():
    """posteriordb's low_dim_gauss_mix by a default call of NUTS, with the priors of its program."""
    data = json.loads((REFERENCE / "low_dim_gauss_mix.json").read_text())
    known = json.loads((REFERENCE / "low_dim_gauss_mix.ref.json").read_text())["params"]
    spec = bm.Mixture(
        bm.Normal(mu=pm.Normal.dist(0, 2), sigma=pm.HalfNormal.dist(2)), 2, weights=pm.Dirichlet.dist([5.0, 5.0])
    )
    import arviz_stats as azs

    for seed in (1, 2, 3):
        begin = time.perf_counter()
        fit = bm.fit_nuts(spec, np.array(data["y"]), random_seed=seed)
        seconds = time.perf_counter() - begin
        mcse = azs.mcse(fit.posterior)
        places = {
            **{f"mu[{k + 1}]": ("mu", k) for k in (0, 1)},
            **{f"sigma[{k + 1}]": ("sigma", k) for k in (0, 1)},
            "theta": ("weights", 0),
        }
        worst_mean, worst_sd = 0.0, 0.0
        for name, (variable, k) in places.items():
            draws = fit.posterior[variable].values[..., k]
            error = np.hypot(float(mcse[variable].values[k]), known[name]["mcse_mean"])
            worst_mean = max(worst_mean, abs(draws.mean() - known[name]["mean"]) / error)
            worst_sd = max(worst_sd, abs(draws.std() / known[name]["sd"] - 1))
        print(f"seed {seed}: {worst_mean:.2f} errors at most, sd within {worst_sd:.1%}, {seconds:.1f} s. {fit.status}")


if __name__ == "__main__":
    for each in sys.argv[1:] or ["trap", "pairs", "sds", "reference"]:
        print(f"== {each}")
        {"trap": trap, "pairs": pairs, "sds": sds, "reference": reference}[each]()
