"""The Poisson family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import pymc as pm
from scipy.special import gammaln, xlogy

from bayesmix import conjugate
from bayesmix.data import numbers
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import Rate, log_ratio
from bayesmix.moments import mixing
from bayesmix.params import POSITIVE, Parameter
from bayesmix.portraits import Traits
from bayesmix.summaries import Sums

#: Rows of which the largest densities are found at once.
_AT_ONCE = 2**15


@final
@dataclass(frozen=True, repr=False, eq=False)
class Poisson(Leaf):
    r"""Counts of events at a constant rate.

    .. math:: f(x \mid \mu) = \frac{\mu^x e^{-\mu}}{x!}

    ========  ===================
    Support   0, 1, 2, …
    Mean      :math:`\mu`
    Variance  :math:`\mu`
    ========  ===================

    Parametrised by the mean, as `pymc.Poisson`.

    Parameters
    ----------
    mu : prior, optional
        Mean, > 0. Default ``Gamma(2, 1/m)``, with m the mean of the column (half an event is added, so that a
        column of zeros has one too): its mode is m, its weight one event.

    Notes
    -----
    M-step: ``mu = (Σ r x + alpha - 1) / (Σ r + beta)`` under a ``Gamma(alpha, beta)`` prior.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., section 2.6; Loader 2000, *Fast and Accurate Computation of
    Binomial Probabilities*, for densities of large counts.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Poisson(), 3)
    Mixture(Poisson(), 3)
    """

    mu: Any = None

    value_dtype = "int64"
    value_kind = "count"
    learned_type = Rate

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        counts = numbers(column, "Poisson", whole=True, minimum=0)
        counts = counts[~column.missing]
        return Sums(len(counts), counts.sum())

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Rate((summary.total + 0.5) / max(summary.n, 1))

    def assume(self, place):
        """See `Node.assume`."""
        return Rate(1.0)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        return {"mu": Parameter(POSITIVE, pm.Gamma.dist(2.0, 1 / learned.mean), "gamma")}

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        counts = numbers(column, "Poisson", whole=True, minimum=0)
        return {"value": counts, "peak": _each(_peak, counts)}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values.astype(np.int64)

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        return data["peak"][:, None] - _deviance(data["value"][:, None], params["mu"])

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Poisson.dist(params["mu"])

    def row_statistics(self, data, learned):
        """One, the count, and its log density at the reference rate, the column's mean."""
        value = data["value"]
        reference = data["peak"] - _each(partial(_deviance, mu=learned.mean), value)
        return {"n": np.broadcast_to(1.0, len(value)), "events": value, "reference": reference}

    def natural(self, params, learned, xp):
        """About the reference rate: at counts of 1e9 their logarithms' sums would leave six digits."""
        mu = params["mu"]
        return {"n": learned.mean - mu, "events": log_ratio(mu, learned.mean, xp), "reference": xp.ones_like(mu)}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return {"mu": conjugate.rate(priors["mu"], stats["events"], stats["n"])}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return rng.poisson(params["mu"][z])

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        return [Traits("count", ("mean",), params["mu"][:, None])]

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["mu"]

    def moment_estimator(self, site, data, row_weights):
        """See `Leaf.moment_estimator`."""
        return mixing.of_poisson(data["value"], site, row_weights)

    def embed(self, data, learned):
        """Square roots: they have the same spread at every rate."""
        return 2 * np.sqrt(data["value"] + 0.375)[:, None]


def _each(function: Callable[[np.ndarray], np.ndarray], counts: np.ndarray) -> np.ndarray:
    """A function of counts, NaN where missing: found once for each number where these are small."""
    most = np.fmax.reduce(counts, initial=0.0)
    if not most < 0.1 * len(counts):
        return function(counts)
    missing = np.isnan(counts)
    at = np.where(missing, most + 1, counts) if missing.any() else counts
    return np.append(function(np.arange(most + 1)), np.nan)[at.astype(np.int64)]


def _peak(counts: np.ndarray) -> np.ndarray:
    """Log density of each count at a rate of its own size: the largest that it has."""
    # some at a time: the series takes a dozen arrays on its way
    return np.concatenate([_peak_of(counts[at : at + _AT_ONCE]) for at in range(0, max(len(counts), 1), _AT_ONCE)])


def _peak_of(counts: np.ndarray) -> np.ndarray:
    """By Stirling's series from 16 on."""
    x = np.maximum(counts, 16.0)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / x**2) / x**2) / x**2) / x**2) / x
    few = np.minimum(counts, 16.0)
    return np.where(counts < 16, xlogy(few, few) - few - gammaln(few + 1), -0.5 * np.log(2 * np.pi * x) - series)


def _deviance(counts: np.ndarray, mu: Any) -> np.ndarray:
    """What the log density at `mu` lacks of the count's largest, ``x log(x / mu) + mu - x >= 0``, to all its digits."""
    mu = np.maximum(mu, np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        change = (counts - mu) / mu
    near = np.clip(change, -0.5, 0.5)
    with np.errstate(over="ignore"):
        far = xlogy(counts, counts / mu) + mu - counts
    return np.where(np.abs(change) < 0.5, mu * ((1 + near) * np.log1p(near) - near), far)
