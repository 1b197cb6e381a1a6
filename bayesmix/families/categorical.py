"""The categorical family."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm

from bayesmix import conjugate
from bayesmix.data import with_type
from bayesmix.errors import DataError
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import (
    Levels,
    codes_of,
    counts_of,
    level_faults,
    name_levels,
    points_of,
    safe_log,
)
from bayesmix.params import SIMPLEX, Dim, Parameter
from bayesmix.statistics import OneHot

#: Log probability of a symbol that is impossible: of a size that leaves no digit of a density, and is no infinity.
_NEVER = -1e12


@final
@dataclass(frozen=True, repr=False, eq=False)
class Categorical(Leaf):
    r"""One symbol out of several.

    .. math:: f(x \mid p) = p_x

    ========  ============================================
    Support   the symbols of the column, any hashables
    Mean      none; the probabilities stand for it
    Variance  none
    ========  ============================================

    The symbols are those that the frame declares (pandas Categorical, polars Enum), else those seen in the
    fitted data, sorted where they can be compared. They label the dim ``{field}_symbol``. A symbol first met
    at prediction is an error, or missing with ``unseen="ignore"``.

    Parameters
    ----------
    p : prior, optional
        Probabilities, shape (S,). Default ``Dirichlet(1 + 2 f)``, with f the frequencies of the S symbols in
        the column (smoothed by half a row each): worth two observations, and zero where a probability is.
    levels : sequence, optional
        The symbols, in order; by default those of the training column. A dict of probabilities by symbol names them.

    Notes
    -----
    M-step: ``p ∝ Σ r [x = s] + concentration - 1`` under a Dirichlet prior.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., section 3.4.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Categorical(), 2)
    Mixture(Categorical(), 2)
    """

    p: Any = None
    levels: Any = None

    value_dtype = "int64"
    value_kind = "symbol"
    learned_type = Levels

    def __post_init__(self):
        name_levels(self, "p")

    def faults(self, path=""):
        """See `Node.faults`."""
        return [*level_faults(self.levels, path), *super().faults(path)]

    @property
    def options(self):
        """See `Node.options`."""
        return {"tie": self.tie, "levels": self.levels}

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        _check_hashable(column)
        return counts_of(column)

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Levels.of(summary, self.levels)

    def assume(self, place):
        """See `Node.assume`: the symbols are 0, 1, … where nothing names them."""
        levels = tuple(range(np.shape(self.p)[-1])) if self.levels is None else tuple(self.levels)
        return Levels(levels, (1 / len(levels),) * len(levels))

    def fixed_at(self, site, params):
        """See `Node.fixed_at`."""
        return super().fixed_at(site, params)._changed(levels=site.learned.levels)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        prior = pm.Dirichlet.dist(1 + 2 * np.array(learned.frequencies))
        return {"p": Parameter(SIMPLEX, prior, "dirichlet", (Dim(f"{prefix}symbol", learned.levels),))}

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        _check_hashable(column)
        codes = codes_of(column, learned.levels)
        return {"value": codes, "unknown": codes < 0}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        levels = np.empty(len(learned.levels), object)
        levels[:] = learned.levels
        return levels[values]

    def filler(self, learned):
        """See `Leaf.filler`."""
        return 0

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        with np.errstate(divide="ignore"):
            return np.log(params["p"]).T[data["value"]]

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Categorical.dist(params["p"])

    def row_statistics(self, data, learned):
        """Indicators of the symbols, (N, S)."""
        return {"counts": OneHot(data["value"], len(learned.levels))}

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        p = params["p"]
        # no density makes up for a symbol that a component does not have, as a far outlier's would for `safe_log`
        return {"counts": xp.where(p < np.finfo(float).tiny, _NEVER, safe_log(p, xp))}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return {"p": conjugate.probabilities(priors["p"], stats["counts"])}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        cumulative = np.cumsum(params["p"], axis=1)
        u = rng.random(len(z)) * cumulative[z, -1]
        out = np.empty(len(z), np.int64)
        for k in range(len(cumulative)):
            own = z == k
            out[own] = np.searchsorted(cumulative[k], u[own])
        return out

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["p"]

    def embed(self, data, learned):
        """Indicators, each divided by the root of its symbol's frequency as correspondence analysis does.

        Of many symbols random points that are as far apart in the mean (Johnson and Lindenstrauss 1984).
        """
        return points_of(np.array(learned.frequencies))[data["value"]]


def _check_hashable(column):
    if column.kind != "object":
        return
    if column.dictionary is not None:
        return
    strange = np.array([not isinstance(cell, Hashable) for cell in column.values], bool) & ~column.missing
    if strange.any():
        raise DataError(
            f"{column.name}: Categorical needs hashable symbols; {column.at(strange, with_type)}. "
            "Use Sequence or BernoulliSet for collections."
        )
