"""Online EM, minibatches and posteriors of many rows, beside the engines that take all rows at every step.

Usage: ``python benchmarks/stochastic.py online|advi|laplace|subsample|all [rows]``. With the numbers of rows by default
(10⁷ for ``online`` and ``laplace``, 10⁶ for ``advi`` and ``subsample``) about an hour in all on two quiet cores; with
10⁵, six minutes. Each part prints what it must show, and whether it does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import bayesmix as bm


def rows(n: int, seed: int = 1) -> tuple[np.ndarray, pd.DataFrame]:
    """Three groups that overlap: a number, a count and a category of six levels."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    x = rng.normal(np.array([-2.0, 0.5, 3.0])[group], np.array([1.0, 0.7, 1.5])[group])
    count = rng.poisson(np.array([1.0, 4.0, 9.0])[group])
    code = np.where(rng.random(n) < 0.6, group, rng.integers(6, size=n))
    return group, pd.DataFrame({"x": x, "n": count, "c": code})


FAMILIES = {"x": bm.Normal(), "n": bm.Poisson(), "c": bm.Categorical()}
SPEC = bm.Mixture(bm.Composite(FAMILIES), 3)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    begun = time.perf_counter()
    found = call()
    return found, time.perf_counter() - begun


def parts(frame: pd.DataFrame, size: int = 250_000) -> list[pd.DataFrame]:
    """A table in parts."""
    return [frame.iloc[first : first + size] for first in range(0, len(frame), size)]


def verdict(what: str, value: float, limit: float) -> None:
    """Print a figure beside what it must be below."""
    print(
        f"    {what}: {value:.3g} (must be below {limit:g}): {'holds' if value < limit else 'DOES NOT HOLD'}",
        flush=True,
    )


def online(n: int) -> None:
    """Within 0.1 % of the batch log-likelihood per row after two passes: each family alone, and all together."""
    _, frame = rows(n)
    for name, spec in [
        *((k, bm.Mixture(bm.Composite({k: v}), 3)) for k, v in FAMILIES.items() if k != "c"),
        ("all", SPEC),
    ]:
        table = frame if name == "all" else frame[[name]]
        batch, batch_seconds = timed(partial(bm.fit_em, spec, table, n_starts=4, random_seed=1, n_jobs=2))
        found, seconds = timed(partial(bm.fit_online, spec, table, n_starts=4, random_seed=1))
        print(f"online EM, {name}: {n:,} rows, {seconds:.1f} s beside {batch_seconds:.1f} s of fit_em. {found.status}")
        verdict("loss, share of the log-likelihood", (batch.loglik - found.loglik) / abs(batch.loglik), 1e-3)


def summary(fit: bm.Fit) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Posterior means and standard deviations."""
    draws = fit.posterior.stack(s=("chain", "draw"))
    return {name: (draws[name].mean("s").values, draws[name].std("s").values) for name in fit.bound.free_slots}


def distance(fit: bm.Fit, other: bm.Fit) -> tuple[float, float]:
    """Largest difference of a mean in sds of the other, and largest relative difference of an sd."""
    own, there = summary(fit), summary(other)
    means = max(float(np.max(np.abs(own[k][0] - there[k][0]) / there[k][1])) for k in there)
    return means, max(float(np.max(np.abs(own[k][1] / there[k][1] - 1))) for k in there)


def advi(n: int) -> None:
    """Means within 0.1 posterior sd of full NUTS."""
    _, frame = rows(n)
    full, full_seconds = timed(lambda: bm.fit_nuts(SPEC, frame, draws=1000, tune=500, n_starts=4, random_seed=1))
    found, seconds = timed(lambda: bm.fit_advi(SPEC, frame, minibatch=10_000, n_starts=4, random_seed=1))
    print(f"minibatch ADVI: {n:,} rows, {seconds:.1f} s beside {full_seconds:.1f} s of NUTS. {found.status}")
    noise = found.idata["variational"]
    print(
        f"    gradients' sd, nats per Laplace sd: {float(noise['gradient_sd'].max()):.3g}, without control variate "
        f"{float(noise['gradient_sd_without_control'].max()):.3g}; NUTS: {full.status}"
    )
    verdict("largest difference of a mean, in sds", distance(found, full)[0], 0.1)


def laplace(n: int) -> None:
    """Standard deviations within 5 % of NUTS's on a hundredth of the rows, scaled by the root of 100."""
    _, frame = rows(n)
    few = frame.iloc[: max(n // 100, 20_000)]
    full, full_seconds = timed(lambda: bm.fit_nuts(SPEC, few, draws=2500, tune=500, n_starts=4, random_seed=1))
    found, seconds = timed(
        lambda: bm.fit_laplace(SPEC, parts(frame), draws=10_000, n_starts=4, n_jobs=2, random_seed=1)
    )
    print(f"Laplace: {n:,} rows in parts, {seconds:.1f} s; NUTS of {len(few):,} {full_seconds:.1f} s. {found.status}")
    scale = np.sqrt(len(few) / n)
    own, there = summary(found), summary(full)
    verdict(
        "largest difference of an sd",
        max(float(np.max(np.abs(own[k][1] / (scale * there[k][1]) - 1))) for k in own),
        0.05,
    )


def subsample(n: int) -> None:
    """NUTS on a sample with all rows' mode and curvature, beside NUTS of all rows."""
    _, frame = rows(n)
    full, full_seconds = timed(lambda: bm.fit_nuts(SPEC, frame, draws=1000, tune=500, n_starts=4, random_seed=1))
    for size in (5_000, 20_000):
        settings = {"subsample": size, "draws": 500, "tune": 500, "n_starts": 4, "n_jobs": 2, "random_seed": 1}
        found, seconds = timed(partial(bm.fit_nuts, SPEC, parts(frame), **settings))
        means, sds = distance(found, full)
        print(f"NUTS on {size:,} of {n:,} rows: {seconds:.1f} s beside {full_seconds:.1f} s. {found.status}")
        print(f"    largest difference of a mean {means:.2f} sds, of an sd {sds:.0%}")


if __name__ == "__main__":
    every = {
        "online": (online, 10**7),
        "advi": (advi, 10**6),
        "laplace": (laplace, 10**7),
        "subsample": (subsample, 10**6),
    }
    asked = sys.argv[1] if len(sys.argv) > 1 else "all"
    for name, (study, default) in every.items():
        if asked in (name, "all"):
            study(int(float(sys.argv[2])) if len(sys.argv) > 2 else default)
