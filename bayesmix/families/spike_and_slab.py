"""The spike-and-slab family: one value of a range stands out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.data import numbers
from bayesmix.errors import DataError, SpecError
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import points_of, safe_log, safe_log_rest
from bayesmix.params import POSITION, UNIT, Parameter
from bayesmix.portraits import shares, value
from bayesmix.statistics import OneHot
from bayesmix.summaries import Counts

#: Values of a range, at most.
_MOST = 10**6


@dataclass(frozen=True)
class Range:
    """The values of a column of whole numbers, the smoothed share of each."""

    lower: int
    upper: int
    shares: tuple[float, ...]


@final
@dataclass(frozen=True, repr=False, eq=False)
class SpikeAndSlab(Leaf):
    r"""Whole numbers of a range, of which one value has a probability of its own and the others are alike.

    .. math:: f(x \mid k, p) = \begin{cases} p & x = k \\ (1 - p) / (L - 1) & x \ne k \end{cases}
              \qquad x = \text{lower}, \ldots, \text{upper}; \quad L = \text{upper} - \text{lower} + 1

    ========  ==================================================================
    Support   lower, lower + 1, …, upper
    Mean      :math:`p k + (1 - p) (L (\text{lower} + \text{upper}) / 2 - k) / (L - 1)`
    Variance  finite; from the probabilities above
    ========  ==================================================================

    Parameters
    ----------
    p : prior, optional
        Probability of the spike. Default ``Beta(2, 2)``: worth two rows.
    k : int, optional
        Position of the spike. Unknown by default, uniform over the range: EM profiles it, and the PyMC model sums it
        out (its draws are made afterwards, from its exact conditional distribution).
    lower, upper : int, optional
        The range, by default that of the training column.

    Notes
    -----
    M-step: for every position j the best p, ``(n_j + alpha - 1) / (W + alpha + beta - 2)``, and the position whose
    expected log density plus log prior is highest.

    References
    ----------
    George and McCulloch 1993, *JASA* 88, for the name; here the slab is uniform on a range of whole numbers.

    Examples
    --------
    >>> import bayesmix as bm
    >>> fit = bm.fit(bm.SpikeAndSlab(), [7, 7, 7, 2, 7, 9, 0, 7])
    >>> fit.params["k"], fit.params["p"].round(2)
    (array(7.), np.float64(0.6))
    """

    p: Any = None
    k: Any = None
    lower: Any = None
    upper: Any = None

    constants = ("lower", "upper")
    value_dtype = "int64"
    value_kind = "count"
    learned_type = Range

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        values = numbers(column, "SpikeAndSlab", whole=True)[~column.missing]
        found, counts = np.unique(values, return_counts=True)
        return Counts(Counter(dict(zip(found.tolist(), counts.tolist()))))

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        values = np.array(list(summary.counts), float)
        if not len(values):  # elements of sequences that are all empty
            lower = int(self.lower if self.lower is not None else 0 if self.upper is None else self.upper - 1)
            upper = int(lower + 1 if self.upper is None else self.upper)
        else:
            lower = int(values.min() if self.lower is None else self.lower)
            upper = int(values.max() if self.upper is None else self.upper)
        if upper - lower < 1:
            raise SpecError(f"{name}: SpikeAndSlab needs a range of two values at least, not {lower} to {upper}.")
        if upper - lower >= _MOST:
            raise DataError(
                f"{name}: SpikeAndSlab has a probability for each value of its range, and {lower} to {upper} are "
                f"{upper - lower + 1:,} values; {_MOST:,} are the most. Mark values far away missing (NaN), or use a "
                "family of counts, such as bm.Poisson."
            )
        at, times = np.clip(values - lower, 0, upper - lower).astype(int), list(summary.counts.values())
        counts = np.bincount(at, times, minlength=upper - lower + 1) + 0.5
        return Range(lower, upper, tuple((counts / counts.sum()).tolist()))

    def fixed_at(self, site, params):
        """See `Node.fixed_at`: the range is one for all components."""
        return super().fixed_at(site, params)._changed(lower=site.learned.lower, upper=site.learned.upper)

    def assume(self, place):
        """See `Node.assume`."""
        if self.lower is None or self.upper is None:
            raise SpecError(f"{place.path or 'SpikeAndSlab'}: lower and upper are missing. Give the range.")
        size = int(self.upper) - int(self.lower) + 1
        return Range(int(self.lower), int(self.upper), (1 / size,) * size)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        position = pm.DiscreteUniform.dist(np.int64(learned.lower), np.int64(learned.upper))
        return {
            "p": Parameter(UNIT, pm.Beta.dist(np.float64(2), np.float64(2)), "beta"),
            "k": Parameter(POSITION, position, "position"),
            "lower": Parameter(POSITION, learned.lower, "position"),
            "upper": Parameter(POSITION, learned.upper, "position"),
        }

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        values = numbers(column, "SpikeAndSlab", whole=True)
        outside = ((values < learned.lower) | (values > learned.upper)) & ~column.missing
        if outside.any():
            raise DataError(
                f"{column.name}: {column.at(outside, '{:g}'.format)}, outside of {learned.lower} to {learned.upper}. "
                "Give SpikeAndSlab lower= and upper= that hold all values, or mark it missing (NaN)."
            )
        return {"value": values}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values.astype(np.int64)

    def mark(self, learned):
        """See `Leaf.mark`."""
        return min(learned.lower, 0) - 1

    def filler(self, learned):
        """See `Leaf.filler`."""
        return learned.lower

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        others = params["upper"] - params["lower"]
        value = data["value"][:, None]
        with np.errstate(divide="ignore"):
            density = np.where(value == params["k"], np.log(params["p"]), np.log1p(-params["p"]) - np.log(others))
        return np.where((value < params["lower"]) | (value > params["upper"]), -np.inf, density)

    def pymc_dist(self, params):
        """A categorical variable of the places in the range, put there."""
        return pm.Categorical.dist(_table(params)) + params["lower"].astype("int64")

    def pymc_logp(self, params, value):
        """See `Leaf.pymc_logp`."""
        return pm.logp(pm.Categorical.dist(_table(params)), value[:, None] - params["lower"].astype("int64"))

    def row_statistics(self, data, learned):
        """Indicators of the values, (N, L)."""
        places = (data["value"] - learned.lower).astype(int)
        return {"counts": OneHot(places, len(learned.shares))}

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        values = np.arange(learned.lower, learned.upper + 1)
        at = abs(params["k"][:, None] - values) < 0.5
        p = params["p"][:, None]
        return {"counts": xp.where(at, safe_log(p, xp), safe_log_rest(p, xp) - np.log(len(values) - 1.0))}

    def suff_stats(self, data, resp, learned):
        """Weighted count of each value, (K, L), without the indicators."""
        places, size = (data["value"] - learned.lower).astype(int), len(learned.shares)
        counts = [np.bincount(places, weights=column, minlength=size) for column in resp.T]
        return {"counts": np.array(counts).reshape(resp.shape[1], size)}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        counts, total = stats["counts"], stats["counts"].sum(1)
        size = counts.shape[1]
        if "p" in priors:
            best = [conjugate.probability(priors["p"], column, total) for column in counts.T]
            p = np.stack(best, axis=1)  # (K, L): of each component for each position
            log_prior = priors["p"].terms(p.T).T
        else:
            p, log_prior = np.broadcast_to(params["p"][:, None], counts.shape), 0.0
        score = counts * safe_log(p, np) + (total[:, None] - counts) * (safe_log(1 - p, np) - np.log(size - 1.0))
        score = score + log_prior
        if "k" in priors:
            place = priors["k"].pool(score).argmax(1)
        else:
            place = (params["k"] - learned.lower).astype(int)
        return {"k": learned.lower + place.astype(float), "p": p[np.arange(len(p)), place]}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        lower, upper, k = (params[name][z].astype(int) for name in ("lower", "upper", "k"))
        other = rng.integers(lower, upper)  # one value fewer: the spike's place is jumped over
        other = other + (other >= k)
        return np.where(rng.random(len(z)) < params["p"][z], k, other)

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        others = f"its share (the others of {learned.lower} to {learned.upper} are alike)"
        return [value("frequent value", params["k"]), shares([others], params["p"][:, None])]

    def mean(self, params):
        """See `Leaf.mean`."""
        p, k, lower, upper = params["p"], params["k"], params["lower"], params["upper"]
        size = upper - lower + 1
        return p * k + (1 - p) * (size * (lower + upper) / 2 - k) / (size - 1)

    def embed(self, data, learned):
        """Indicators, each divided by the root of its value's share; of many values random points."""
        return points_of(np.array(learned.shares))[(data["value"] - learned.lower).astype(int)]


def _table(params):
    """Probabilities of the values in the range, (..., L), in PyTensor."""
    lower, upper, k, p = (pt.as_tensor(params[name]) for name in ("lower", "upper", "k", "p"))
    values = lower.min() + pt.arange(upper.max() - lower.min() + 1)
    others = (upper - lower)[..., None]
    return pt.switch(pt.abs(values - k[..., None]) < 0.5, p[..., None], (1 - p[..., None]) / others)
