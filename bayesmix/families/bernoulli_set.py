"""The family of sets of symbols."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import pymc as pm

from bayesmix import conjugate
from bayesmix.data import SHOWN, Column, is_missing, sequence_like, with_type
from bayesmix.errors import DataError, gather_faults
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import (
    MOST_COLUMNS,
    N_AXES,
    in_order,
    level_faults,
    name_levels,
    safe_log,
    safe_log_rest,
)
from bayesmix.params import UNIT, Dim, Parameter
from bayesmix.statistics import SparseRows, is_sparse, principal_scores
from bayesmix.summaries import Counts, Summary

#: Numbers that are drawn at once.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Members:
    """The symbols of a column of sets in order, and the smoothed share of the rows that hold each."""

    levels: tuple[Hashable, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Sets(Summary):
    """How many sets there are, and how many hold each symbol."""

    n: int
    members: Counts


@final
@dataclass(frozen=True, repr=False, eq=False)
class BernoulliSet(Leaf):
    r"""Sets of symbols: tags, purchases, symptoms. Each symbol is in the set or not, independently.

    .. math:: f(x \mid p) = \prod_{a \in x} p_a \prod_{a \notin x} (1 - p_a)

    ========  ===============================================
    Support   subsets of the symbols, the empty set included
    Mean      :math:`p` (of the indicators, one a symbol)
    Variance  :math:`p_a (1 - p_a)`
    ========  ===============================================

    A cell is a set, frozenset, list, tuple or array of hashable symbols without duplicates; ``None`` is a missing
    cell, an empty set is not. The symbols are those seen in the fitted data, sorted where they can be compared;
    they label the dim ``{field}_symbol``. A set with a symbol first met at prediction is an error, or missing with
    ``unseen="ignore"``. Where every set is empty, the only symbol is None, which no set can hold.

    Parameters
    ----------
    p : prior, optional
        Probability of each symbol, shape (S,). Default independent ``Beta(1 + 2 f, 1 + 2 (1 - f))``, with f the
        share of the rows that hold the symbol (smoothed by half a row of each kind): worth two observations, and
        zero at p = 0 and p = 1.
    levels : sequence, optional
        The symbols, in order; by default those of the training column. A dict of probabilities by symbol names them.

    Notes
    -----
    M-step: ``p = (Σ r [a in x] + alpha - 1) / (Σ r + alpha + beta - 2)`` under ``Beta(alpha, beta)`` priors.

    Sets of few out of many symbols are kept as the symbols that they hold, and EM's time and memory are in proportion
    to these (beside parameters and statistics, K × S numbers each). A PyMC model needs them as a matrix of N × S
    numbers: `build_model` refuses more than 10⁹.

    References
    ----------
    Bishop 2006, *Pattern Recognition and Machine Learning*, section 9.3.3.

    Examples
    --------
    >>> import bayesmix as bm
    >>> fit = bm.fit(bm.BernoulliSet(), [{"a", "b"}, {"a"}, set(), {"a"}])
    >>> fit.params["p"].round(2)
    array([0.73, 0.27])
    """

    p: Any = None
    levels: Any = None

    value_ndim = 1
    value_dtype = "int64"
    value_kind = "set"
    learned_type = Members

    def __post_init__(self):
        name_levels(self, "p")

    def faults(self, path=""):
        """See `Node.faults`."""
        return [*level_faults(self.levels, path), *super().faults(path)]

    @property
    def options(self):
        """See `Node.options`."""
        return {"tie": self.tie, "levels": self.levels}

    def assume(self, place):
        """See `Node.assume`: the symbols are 0, 1, … where nothing names them."""
        levels = tuple(range(np.shape(self.p)[-1])) if self.levels is None else tuple(self.levels)
        return Members(levels, (0.5,) * len(levels))

    def fixed_at(self, site, params):
        """See `Node.fixed_at`."""
        return super().fixed_at(site, params)._changed(levels=site.learned.levels)

    def _column(self, table, path):
        # sets stand in one column, where `Leaf._column` would look for one column a coordinate
        return table.one(path)

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        counts: Counter[Hashable] = Counter()
        _each_set(column, lambda row, cell: counts.update(cell))
        return Sets(int((~column.missing).sum()), Counts(counts))

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        counts = summary.members.counts
        # where every set is empty, None is the only symbol: no set can hold it
        levels = (tuple(in_order(counts)) or (None,)) if self.levels is None else tuple(self.levels)
        return Members(levels, tuple((counts[level] + 0.5) / (summary.n + 1.0) for level in levels))

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        shares = np.array(learned.shares)
        prior = pm.Beta.dist(1 + 2 * shares, 3 - 2 * shares)
        return {"p": Parameter(UNIT, prior, "beta", self.value_dims(learned, prefix))}

    def encode_column(self, column, learned):
        """Indicators, (N, S): a matrix of floats, or `SparseRows` where most would be 0."""
        position = {level: s for s, level in enumerate(learned.levels)}
        lengths, indices, unknown = np.zeros(len(column), np.int64), array("i"), np.zeros(len(column), bool)

        def add(row: int, cell: frozenset) -> None:
            found = sorted(position.get(symbol, -1) for symbol in cell)
            unknown[row] = bool(found) and found[0] < 0
            if not unknown[row]:
                lengths[row] = len(found)
                indices.extend(found)

        _each_set(column, add)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        value: Any = SparseRows(indptr, np.frombuffer(indices, np.int32), len(position))
        # by what was learned, so that every table of one fit has one form
        value = value if is_sparse(len(position), sum(learned.shares)) else np.asarray(value)
        return {"value": value, "unknown": unknown}

    def unseen_part(self, value, learned):
        """See `Leaf.unseen_part`."""
        known = set(learned.levels)
        return next(symbol for symbol in value if symbol not in known)

    def decode(self, values, learned):
        """Indicators (..., S) as frozensets, shape (...)."""
        symbols = learned.levels
        sets = np.empty(values.shape[:-1], object)
        for index in np.ndindex(sets.shape):
            sets[index] = frozenset(symbols[s] for s in np.flatnonzero(values[index]) if symbols[s] is not None)
        return sets

    def value_dims(self, learned, prefix):
        """See `Leaf.value_dims`."""
        return (Dim(f"{prefix}symbol", learned.levels),)

    def log_density(self, params, data):
        """One matrix product; probabilities of 0 and 1 are kept out of it, where 0 times infinity would arise."""
        value, p = data["value"], params["p"]
        inside = (p > 0) & (p < 1)
        within = np.where(inside, p, 0.5)
        log_rest = np.where(inside, np.log1p(-within), 0.0)
        log_odds = np.where(inside, np.log(within), 0.0) - log_rest
        log_density = value @ log_odds.T + log_rest.sum(-1)
        if not inside.all():
            never, always = (p == 0).astype(float), (p == 1).astype(float)
            impossible = value @ (never - always).T + always.sum(-1)
            log_density[impossible > 0] = -np.inf
        return log_density

    def pymc_dist(self, params):
        """Independent along the last axis, over which `Leaf.pymc_logp` sums."""
        return pm.Bernoulli.dist(params["p"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return {"n": np.broadcast_to(1.0, len(data["value"])), "counts": data["value"]}

    def natural(self, params, learned, xp):
        """Log odds, and the log density of the empty set."""
        log_rest = safe_log_rest(params["p"], xp)
        return {"n": log_rest.sum(-1), "counts": safe_log(params["p"], xp) - log_rest}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return {"p": conjugate.probability(priors["p"], stats["counts"], stats["n"][:, None])}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        p = params["p"][z]
        return (rng.random(p.shape) < p).astype(np.int64)

    def draw(self, site, params, z, rng, labels):
        """See `Node.draw`: some rows at a time, for a row has as many numbers as there are symbols."""
        values, size = site.values(params), len(site.learned.levels)
        step = max(_AT_ONCE // size, 1)
        sets = np.empty(len(z), object)
        for at in range(0, len(z), step):
            sets[at : at + step] = self.decode(self.sample(values, z[at : at + step], rng), site.learned)
        return sets

    def impute(self, site, params, evaluation, data, z, rng, out):
        """See `Leaf.impute`."""
        rows = data.missing_rows()
        if len(rows):
            out[site.place.path] = self.draw(site, params, z[rows], rng, {})

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["p"]

    def independent_columns(self, learned):
        """One symbol each; the first statistic is the constant."""
        return [np.array([s + 1]) for s in range(len(learned.levels))]

    def embed(self, data, learned):
        """Standardised indicators, as `Bernoulli`'s; one of a rare symbol is not stretched to be far from all rows.

        Of many symbols their principal components.
        """
        shares, value = np.array(learned.shares), data["value"]
        across = 1 / np.maximum(np.sqrt(shares * (1 - shares)), 0.25)
        if isinstance(value, SparseRows) and len(shares) > MOST_COLUMNS:
            ones = np.ones(len(value))
            return principal_scores(value, across, ones, ones, N_AXES)
        return (np.asarray(value) - shares) * across


def _each_set(column: Column, take: Callable[[int, frozenset], Any]) -> None:
    """Give `take` the row and the symbols of every set that is there. Raises `DataError` for what is no set."""
    if column.missing.all():
        return
    strange = [not isinstance(cell, (set, frozenset)) and not sequence_like(cell) for cell in column.values]
    strange = np.array(strange, bool) & ~column.missing
    if strange.any():
        raise DataError(
            f"{column.name}: BernoulliSet needs sets of symbols; {column.at(strange, with_type)}. "
            "Make every cell a set or a list, with None for a missing one, or use Categorical for single symbols."
        )
    cells = enumerate(zip(column.values.tolist(), column.missing))

    def one(row: int, cell: Any) -> None:
        take(row, _as_set(column.name, row, cell))

    gather_faults((partial(one, row, cell) for row, (cell, gone) in cells if not gone), most=SHOWN)


def _as_set(name, row, cell):
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    for symbol in cell:
        if is_missing(symbol):
            raise DataError(
                f"{name}: row {row} holds the symbol {symbol!r} in {cell!r}. "
                "Leave it out, or mark the whole set missing (None)."
            )
        if not isinstance(symbol, Hashable):
            raise DataError(
                f"{name}: BernoulliSet needs hashable symbols; row {row} holds {symbol!r} ({type(symbol).__name__}). "
                "Use strings, numbers or tuples."
            )
    found = frozenset(cell)
    if len(found) < len(cell):
        twice = next(symbol for symbol in cell if cell.count(symbol) > 1)
        raise DataError(
            f"{name}: row {row} holds {twice!r} twice in {cell!r}. Drop the duplicates: a symbol is in a set or not."
        )
    return found
