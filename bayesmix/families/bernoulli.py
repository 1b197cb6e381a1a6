"""The Bernoulli family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm

from bayesmix import conjugate
from bayesmix.data import numbers
from bayesmix.errors import DataError
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import Rate, safe_log, safe_log_rest
from bayesmix.params import UNIT, Parameter
from bayesmix.portraits import shares
from bayesmix.summaries import Sums


@dataclass(frozen=True)
class Truths(Rate):
    """Share of the truths of a column, and whether its cells are False and True rather than 0 and 1."""

    logical: bool = False


@dataclass(frozen=True)
class Ones(Sums):
    """How many cells there are, their sum, and how many are numbers."""

    numbers: int


@final
@dataclass(frozen=True, repr=False, eq=False)
class Bernoulli(Leaf):
    r"""Truth values: False/True or 0/1.

    .. math:: f(x \mid p) = p^x (1-p)^{1-x}

    ========  ===================
    Support   0, 1
    Mean      :math:`p`
    Variance  :math:`p(1-p)`
    ========  ===================

    Parameters
    ----------
    p : prior, optional
        Probability of 1. Default ``Beta(1 + 2 f, 1 + 2 (1 - f))``, with f the share of ones in the column
        (smoothed by half a row of each kind): worth two observations, and zero at p = 0 and p = 1.

    Notes
    -----
    M-step: ``p = (Σ r x + alpha - 1) / (Σ r + alpha + beta - 2)`` under a ``Beta(alpha, beta)`` prior. For two
    symbols such as "female" and "male" use `Categorical`.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., section 2.4.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Bernoulli(), 2)
    Mixture(Bernoulli(), 2)
    """

    p: Any = None

    value_dtype = "int64"
    value_kind = "truth"
    learned_type = Truths

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        value = _zeros_and_ones(column)[~column.missing]
        return Ones(len(value), value.sum(), 0 if column.kind == "bool" else len(value))

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Truths((summary.total + 0.5) / (summary.n + 1.0), summary.n > 0 and not summary.numbers)

    def assume(self, place):
        """See `Node.assume`."""
        return Truths(0.5)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        share = learned.mean
        return {"p": Parameter(UNIT, pm.Beta.dist(1 + 2 * share, 3 - 2 * share), "beta")}

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        return {"value": _zeros_and_ones(column)}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        logical = getattr(learned, "logical", False)  # files of earlier versions have the share alone
        return values.astype(bool if logical else np.int64)

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        with np.errstate(divide="ignore"):
            log_p, log_q = np.log(params["p"]), np.log1p(-params["p"])
        return np.where(data["value"][:, None] > 0.5, log_p, log_q)

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Bernoulli.dist(params["p"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return {"ones": data["value"], "zeros": 1 - data["value"]}

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        return {"ones": safe_log(params["p"], xp), "zeros": safe_log_rest(params["p"], xp)}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return {"p": conjugate.probability(priors["p"], stats["ones"], stats["ones"] + stats["zeros"])}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return (rng.random(len(z)) < params["p"][z]).astype(np.int64)

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        return [shares(["true"], params["p"][:, None])]

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["p"]

    def embed(self, data, learned):
        """See `Leaf.embed`."""
        spread = np.sqrt(learned.mean * (1 - learned.mean))
        return ((data["value"] - learned.mean) / spread)[:, None]


def _zeros_and_ones(column):
    if column.kind == "bool":
        return column.values.astype(float)
    values = numbers(column, "Bernoulli")
    bad = (values != 0) & (values != 1) & ~column.missing
    if bad.any():
        raise DataError(
            f"{column.name}: Bernoulli needs 0/1 or False/True; {column.at(bad)}. "
            "Use Categorical for other symbols or mark it missing (NaN)."
        )
    return values
