"""Rows of a table that are equal: one of them with their weight does for all."""

from __future__ import annotations

import numpy as np

from bayesmix.spec import Encoded
from bayesmix.statistics import SparseRows

#: Tables with fewer rows are small enough as they are.
_FEWEST = 256
#: Rows by which it is judged whether there are repeats at all, and the share of distinct ones that says no.
_SAMPLE, _MOST_DISTINCT = 16_384, 0.9
#: Share of the rows from which on a group is counted apart.
_LARGE = 0.01
#: Rows that are compared at once.
_AT_ONCE = 2**16


def repeats(data: Encoded) -> tuple[np.ndarray, np.ndarray] | None:
    """One row of each group of equal rows (G,), and the group of every row (N,).

    None where at most half of the rows could be spared. It takes sorting of columns that are not small whole numbers;
    a sample tells where that is in vain.
    """
    n_rows = data.n_rows
    if n_rows < _FEWEST:
        return None
    if n_rows > _SAMPLE:
        sample = np.random.default_rng(0).choice(n_rows, _SAMPLE, replace=False)
        groups = _Groups.of(data.take(np.sort(sample)))
        sizes = np.bincount(groups.codes, minlength=groups.count)
        small = sizes < _LARGE * _SAMPLE  # large ones, such as the rows that are missing, say nothing of the others
        others = sizes[small].sum()
        if others > _SAMPLE / 2 and small.sum() > _MOST_DISTINCT * others:
            return None
    groups = _Groups.of(data)
    if groups.count > n_rows / 2:
        return None
    return groups.members(), groups.codes


class _Groups:
    """Rows partitioned by the columns added so far: `codes` (N,) below `count`, of 32 bits where these do."""

    def __init__(self, n_rows: int):
        self.codes: np.ndarray = np.zeros(n_rows, np.int32)
        self.count = 1

    @classmethod
    def of(cls, data: Encoded) -> _Groups:
        """Equal rows of encoded data."""
        groups = cls(data.n_rows)
        if data.present is not None:
            gone = np.ones(data.n_rows, np.int64)
            gone[data.present] = 0
            groups.add(gone, 2)
        for array in data.arrays.values():
            if array.dtype == object:  # the user's own values, kept for PyMC; statistics are numbers
                continue
            if isinstance(array, SparseRows):
                rows = data.full(array, 0)
                groups._add_elements(cls._of_entries(rows), np.diff(rows.indptr))
                continue
            full = data.full(np.asarray(array), 0)
            for column in full.reshape(len(full), -1).T:
                groups.add_values(column)
        for child in data.children:
            below = cls.of(child)
            if child.n_rows == data.n_rows:
                groups.add(below.codes, below.count)
            else:
                groups._add_elements(below, data.lengths)  # type: ignore[attr-defined]
        groups.compress()
        return groups

    @classmethod
    def _of_entries(cls, rows: SparseRows) -> _Groups:
        """Equal entries of a sparse matrix, each a row."""
        groups = cls(len(rows.indices))
        groups.add(rows.indices, rows.size)
        if rows.values is not None:
            groups.add_values(rows.values)
        return groups

    def members(self) -> np.ndarray:
        """A row of each group, (G,); 0 where it has none."""
        found = np.zeros(self.count, np.int64)
        found[self.codes] = np.arange(len(self.codes), dtype=np.int32)
        return found

    def add_values(self, column: np.ndarray) -> None:
        """Tell apart rows whose numbers differ."""
        known = column[self.members()] if len(column) else column
        for at in range(0, len(column), _AT_ONCE):
            if not np.array_equal(known[self.codes[at : at + _AT_ONCE]], column[at : at + _AT_ONCE]):
                self.add(*_numbered(column))
                return

    def add(self, codes: np.ndarray, count: int) -> None:
        """Tell apart rows whose codes differ."""
        self.count *= count
        if self.count > np.iinfo(self.codes.dtype).max:
            self.codes = self.codes.astype(np.int64)
        self.codes *= count
        self.codes += codes
        if self.count > 4 * len(codes) + 1024:
            self.compress()

    def compress(self) -> None:
        """Number the groups that have rows."""
        self.codes, self.count = _numbered(self.codes)

    def _add_elements(self, below: _Groups, lengths: np.ndarray) -> None:
        """Sequences, element by element; long ones are told apart by their number alone."""
        self.add_values(lengths)
        starts = np.cumsum(lengths) - lengths
        for j in range(lengths.max(initial=0)):
            if self.count > 0.5 * len(lengths):
                self.compress()
                if self.count > 0.5 * len(lengths):
                    self.codes, self.count = np.arange(len(lengths)), len(lengths)
                    return
            codes = np.zeros(len(lengths), np.int64)
            there = lengths > j
            codes[there] = 1 + below.codes[starts[there] + j]
            self.add(codes, below.count + 1)


def _numbered(column: np.ndarray) -> tuple[np.ndarray, int]:
    """Codes (N,) of a column's distinct values, and how many there are."""
    if not len(column):
        return np.zeros(0, np.int64), 1
    column = column.astype(np.int64) if column.dtype.kind == "b" else column
    low, high = column.min(), column.max()
    if high - low <= 4 * len(column) + 1024:
        integer = column.dtype.kind in "iu"
        whole = column if integer and low == 0 else (column - low).astype(np.int64)
        if integer or np.array_equal(whole + low, column):
            seen = np.zeros(int(whole.max()) + 1, bool)
            seen[whole] = True
            return (np.cumsum(seen, dtype=np.int32) - 1)[whole], int(seen.sum())
    values, codes = np.unique(column, return_inverse=True)
    return codes.ravel().astype(np.int32), len(values)
