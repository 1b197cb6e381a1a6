"""What the normal family and the families of transformed normals share.

`deviation` is the value (or its transform) minus the learned reference point, and `mu` is taken about it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bayesmix import conjugate
from bayesmix.families._summaries import Location
from bayesmix.statistics import Products


def row_statistics(deviation: np.ndarray) -> dict[str, Any]:
    """Powers of the deviation from the reference point, (N,) each: raw moments would cancel."""
    return {"n": np.broadcast_to(1.0, deviation.shape), "first": deviation, "second": Products(deviation)}


def natural(mu: Any, sigma: Any, xp: Any) -> dict[str, Any]:
    """Natural parameters of the normal density, (K,) each; `mu` about the reference point."""
    precision = 1 / sigma**2
    return {
        "n": -xp.log(sigma) - 0.5 * np.log(2 * np.pi) - 0.5 * precision * mu**2,
        "first": precision * mu,
        "second": -0.5 * precision,
    }


def map_step(
    stats: Mapping[str, np.ndarray],
    priors: Mapping[str, Any],
    params: Mapping[str, np.ndarray],
    learned: Location,
) -> dict[str, np.ndarray]:
    """The conditional maxima of mu and sigma in turn until neither moves. See `Leaf.map_step`.

    Their joint mode has no closed form, because mu and sigma are independent a priori.
    """
    n, first, second = stats["n"], stats["first"], stats["second"]
    mu, sigma = params["mu"] - learned.center, params["sigma"]
    if "mu" in priors:
        prior = replace(priors["mu"], mean=priors["mu"].mean - learned.center)
    for _ in range(25):
        before = mu, sigma
        if "mu" in priors:
            mu = conjugate.location(prior, first, n, sigma**-2.0)
        if "sigma" in priors:
            # the sum of squares about mu, from sums about the mean so that nothing cancels
            mean = first / np.where(n > 0, n, 1)
            squares = np.maximum(second - mean * first, 0) + n * (mean - mu) ** 2
            sigma = conjugate.scale(priors["sigma"], n, squares)
        moved = np.abs(mu - before[0]) / learned.scale + np.abs(sigma / before[1] - 1)
        if not np.fmax.reduce(np.ravel(moved), initial=0.0) > 1e-13 or len(priors) < 2:
            break
    return {"mu": mu + learned.center, "sigma": sigma}
