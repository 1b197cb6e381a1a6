"""Statistics of rows in forms that need not be written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OneHot:
    """Indicators (N, size) of symbols, as their codes (N,); -1 is none."""

    codes: np.ndarray
    size: int

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        table = np.vstack([np.eye(self.size), np.zeros(self.size)])
        return table[self.codes].astype(dtype or float)


@dataclass(frozen=True)
class Products:
    """Products (N, J) of pairs of columns of `base` (N, D): column j is ``base[:, first[j]] * base[:, second[j]]``.

    Of a single column (N,) its squares, (N,).
    """

    base: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    def pairs(self) -> list[tuple[int, int]]:
        """The columns that are multiplied."""
        if self.first is None or self.second is None:
            return [(0, 0)]
        return list(zip(self.first.tolist(), self.second.tolist()))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self.base.ndim == 1:
            return np.asarray(self.base * self.base, dtype)
        return np.asarray(self.base[:, self.first] * self.base[:, self.second], dtype)


def weighted_sum(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of log densities (..., N) with weights (N,); a row of weight zero is none, whatever its density."""
    weighs = weights > 0
    return (rows if weighs.all() else np.where(weighs, rows, 0.0)) @ weights
