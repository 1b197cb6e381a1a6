"""What families learn from a column: robust locations and scales, levels and their frequencies."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.data import Column


def robust_center_and_scale(values: np.ndarray, constant: float | None = None) -> tuple[float, float]:
    """Median and interquartile range / 1.349 of the finite values.

    Where the range is zero (more than half of the values tie) the standard deviation serves, and where that is
    zero too (a constant column) `constant`, which by default is the size of the value, or 1. Of no values the median is
    taken as 0.
    """
    values = values[np.isfinite(values)]
    if not len(values):  # elements of sequences that are all empty
        return 0.0, constant or 1.0
    low, center, high = map(float, np.quantile(values, [0.25, 0.5, 0.75], overwrite_input=True))
    scale = (high - low) / 1.349
    if not scale > 0:
        scale = float(np.std(values - center))
    if not scale > 0:
        scale = constant or abs(center) or 1.0
    return center, scale


@dataclass(frozen=True)
class Location:
    """Reference point and scale of a numeric column, in the column's units."""

    center: float
    scale: float

    @classmethod
    def of(cls, values: np.ndarray, constant: float | None = None) -> Location:
        """Of a column with NaN in missing cells. See `robust_center_and_scale`."""
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
    def of(cls, column: Column) -> Levels:
        """Levels of a column: those that the frame declares, or those seen, sorted where they can be."""
        symbols = symbols_of(column)
        seen = dict.fromkeys(symbol for symbol, gone in zip(symbols, column.missing) if not gone)
        # where there is no cell (all sequences are empty), the missing one is the only symbol: no cell can have it
        levels = column.levels if column.levels is not None else tuple(in_order(seen)) or (None,)
        codes = codes_of(symbols, column.missing, levels)
        counts = np.bincount(codes[codes >= 0], minlength=len(levels)) + 0.5
        return cls(levels, tuple((counts / counts.sum()).tolist()))


def name_levels(node: Any, parameter: str) -> None:
    """Take probabilities that are given as a dict by symbol apart into an array and the node's `levels`."""
    given = getattr(node, parameter)
    if isinstance(given, Mapping):
        object.__setattr__(node, "levels", tuple(given))
        # one number a symbol, or one for each component
        object.__setattr__(node, parameter, np.moveaxis(np.array(list(given.values()), float), 0, -1))
    elif node.levels is not None:
        object.__setattr__(node, "levels", tuple(node.levels))


def symbols_of(column: Column) -> list[Any]:
    """The column's cells as Python objects; whole numbers as int, so that 1 and 1.0 are one symbol."""
    cells = column.values.tolist()
    if column.kind == "number" and column.values.dtype.kind == "f":
        return [int(cell) if cell == cell and cell.is_integer() else cell for cell in cells]
    return cells


def codes_of(symbols: list[Any], missing: np.ndarray, levels: tuple) -> np.ndarray:
    """Position of each symbol in `levels`, shape (N,); -1 where it is missing or not among them."""
    position = {level: i for i, level in enumerate(levels)}
    codes = (-1 if gone else position.get(symbol, -1) for symbol, gone in zip(symbols, missing))
    return np.fromiter(codes, np.int64, len(symbols))


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
