"""What families learn from a column: robust locations and scales, levels and their frequencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.data import Column, is_missing
from bayesmix.summaries import Counts, Quartiles

#: Columns up to which symbols are points of a space with an axis for each; axes that stand for more of them.
MOST_COLUMNS, N_AXES = 256, 32


def robust_center_and_scale(values: Quartiles, constant: float | None = None) -> tuple[float, float]:
    """Median and interquartile range / 1.349.

    Where the range is zero (more than half of the values tie) the standard deviation serves, and where that is
    zero too (a constant column) `constant`, which by default is the size of the value, or 1. Of no values the median is
    taken as 0.
    """
    if not values.n:  # elements of sequences that are all empty
        return 0.0, constant or 1.0
    low, center, high = values.quartiles()
    scale = (high - low) / 1.349
    if not scale > 0:
        scale = values.deviation()
    if not scale > 0:
        scale = constant or abs(center) or 1.0
    return center, scale


@dataclass(frozen=True)
class Location:
    """Reference point and scale of a numeric column, in the column's units."""

    center: float
    scale: float

    @classmethod
    def of(cls, values: Quartiles, constant: float | None = None) -> Location:
        """See `robust_center_and_scale`."""
        return cls(*robust_center_and_scale(values, constant))


@dataclass(frozen=True)
class Size:
    """Typical size of a column of positive numbers, in the column's units; > 0."""

    scale: float


@dataclass(frozen=True)
class Rate:
    """Mean of a column of counts or of truth values, kept off the ends of its support."""

    mean: float


@dataclass(frozen=True)
class Levels:
    """The symbols of a column in order, and their smoothed frequencies (they sum to 1)."""

    levels: tuple[Hashable, ...]
    frequencies: tuple[float, ...]

    @classmethod
    def of(cls, summary: Counts, given: Sequence | None = None) -> Levels:
        """The levels that are given, or that the frame declares, or those seen, sorted where they can be."""
        levels = summary.declared if given is None else tuple(given)
        # where there is no cell (all sequences are empty), the missing one is the only symbol: no cell can have it
        levels = levels if levels is not None else tuple(in_order(summary.counts)) or (None,)
        counts = np.array([summary.counts[level] for level in levels]) + 0.5
        return cls(levels, tuple((counts / counts.sum()).tolist()))


def name_levels(node: Any, parameter: str) -> None:
    """Take probabilities that are given as a dict by symbol apart into an array and the node's `levels`."""
    given = getattr(node, parameter)
    if isinstance(given, Mapping):
        object.__setattr__(node, "levels", tuple(given))
        # one number a symbol, or one for each component
        object.__setattr__(node, parameter, np.moveaxis(np.array(list(given.values()), float), 0, -1))
    else:
        object.__setattr__(node, "levels", as_levels(node.levels))


def as_levels(given: Any) -> Any:
    """Symbols that a user lists as a tuple; what is no list of them as it is, for `level_faults`."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else given


def level_faults(levels: Any, path: str) -> list[str]:
    """What is wrong with the symbols that a user lists."""
    if levels is None or levels == (None,):  # the one symbol of sets that are all empty
        return []
    name = f"{path}levels"
    if not isinstance(levels, tuple):
        return [f"{name}: a list of symbols is needed, not {levels!r}. Put each symbol into it, as in ['a', 'b']."]
    if not levels:
        return [f"{name}: it has no symbols. Name them, or leave levels out to take those of the column."]
    faults = []
    known: dict[Hashable, Hashable] = {}
    for level in levels:
        if not isinstance(level, Hashable):
            faults.append(f"{name}: {level!r} is not hashable. Use strings, numbers or tuples.")
        elif is_missing(level):
            faults.append(f"{name}: {level!r} marks a missing cell and is no symbol. Leave it out.")
        elif level in known:  # as 1 and True are
            faults.append(f"{name}: {known[level]!r} and {level!r} are one symbol. List each symbol once.")
        else:
            known[level] = level
    return list(dict.fromkeys(faults))


def counts_of(column: Column) -> Counts:
    """How often each symbol of a column came, and the levels that its frame declares."""
    codes, symbols = column.coded()
    counts = np.bincount(codes[codes >= 0], minlength=len(symbols)).tolist()
    found: Counter = Counter()
    for symbol, n in zip(symbols, counts):
        if n:
            found[symbol] += n
    return Counts(found, column.levels)


def codes_of(column: Column, levels: tuple) -> np.ndarray:
    """Position of each cell's symbol in `levels`, shape (N,); -1 where it is missing or not among them."""
    codes, symbols = column.coded()
    position = {level: i for i, level in enumerate(levels)}
    at = np.array([position.get(symbol, -1) for symbol in symbols] + [-1], np.int64)  # the last for missing cells
    return at[codes]


def points_of(shares: np.ndarray) -> np.ndarray:
    """Symbols as points (S, F), farther apart where they are rare; of many symbols random ones, always the same."""
    size = len(shares)
    if size <= MOST_COLUMNS:
        points = np.eye(size)
    else:  # squared lengths are 1 in the mean, and squared distances 2
        points = np.random.default_rng(0).standard_normal((size, N_AXES)) / np.sqrt(N_AXES)
    return points / np.sqrt(shares * size)[:, None]


def safe_log(probability: Any, xp: Any) -> Any:
    """Logarithm with zero taken as the smallest normal double, so that zero counts times it are zero and not NaN."""
    return xp.log(xp.maximum(probability, np.finfo(float).tiny))


def safe_log_rest(probability: Any, xp: Any) -> Any:
    """Logarithm of 1 - p to all digits, which 1 - p loses where p is small; p = 1 as in `safe_log`."""
    inside = xp.minimum(probability, 1 - np.finfo(float).epsneg)
    return xp.where(probability < 1, xp.log1p(-inside), np.log(np.finfo(float).tiny))


def log_ratio(value: Any, reference: float, xp: Any) -> Any:
    """Logarithm of ``value / reference``, both > 0, to all digits of it where they are nearly equal."""
    change = (value - reference) / reference
    near = xp.log1p(xp.maximum(xp.minimum(change, 0.5), -0.5))
    return xp.where(abs(change) < 0.5, near, xp.log(value / reference))


def in_order(symbols: Any) -> list:
    """Symbols sorted where they can be compared, else in order of appearance."""
    try:
        return sorted(symbols)
    except TypeError:
        return list(symbols)
