"""Statistics of rows in forms that need not be written out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

#: Columns up to which a matrix is always written out, and beyond which it never is.
_NARROW, _WIDE = 8, 1000
#: Share of numbers that are not zero from which on it is.
_FILLED = 0.2


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


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A matrix (N, size) of which every row has few numbers that are not zero: compressed rows.

    It is indexed by rows as an array is, and is written out where numpy asks for an array.

    Attributes
    ----------
    indptr : ndarray of int, shape (N + 1,)
        Row n has the entries ``indptr[n]`` to ``indptr[n + 1]``.
    indices : ndarray of int
        Their columns, ascending in each row.
    size : int
        Number of columns.
    values : ndarray or None
        The entries; None where all are 1.
    gone : ndarray of int or None
        Rows that are written out as `mark`: what is missing in an array for others to read.
    mark : float
    """

    indptr: np.ndarray
    indices: np.ndarray
    size: int
    values: np.ndarray | None = None
    gone: np.ndarray | None = None
    mark: float = 0.0

    ndim = 2
    dtype = np.dtype(float)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(N, size)."""
        return len(self), self.size

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self.indptr.nbytes + self.indices.nbytes + (0 if self.values is None else self.values.nbytes)

    @property
    def entries(self) -> np.ndarray:
        """What is not zero, row after row."""
        return np.ones(len(self.indices)) if self.values is None else self.values

    @property
    def owners(self) -> np.ndarray:
        """The row of every entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def __getitem__(self, rows: Any) -> SparseRows:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                begin, end = self.indptr[first], self.indptr[max(first, last)]
                values = None if self.values is None else self.values[begin:end]
                indptr = self.indptr[first : max(first, last) + 1] - begin
                return SparseRows(indptr, self.indices[begin:end], self.size, values)
            rows = np.arange(first, last, step)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return SparseRows(indptr, self.indices[at], self.size, None if self.values is None else self.values[at])

    def spread(self, present: np.ndarray, n_rows: int) -> SparseRows:
        """The same rows at the places `present` among `n_rows`; the others are empty."""
        lengths = np.zeros(n_rows, np.int64)
        lengths[present] = np.diff(self.indptr)
        return replace(self, indptr=np.concatenate([[0], np.cumsum(lengths)]))

    def joined(self, indptr: np.ndarray) -> SparseRows:
        """Sums of rows ``indptr[m]`` to ``indptr[m + 1]``, (M, size): an entry may then come in parts."""
        return replace(self, indptr=self.indptr[indptr])

    def marked(self, rows: np.ndarray, mark: float) -> SparseRows:
        """The same, with some rows that are written out as `mark`."""
        return replace(self, gone=rows, mark=mark)

    @property
    def mostly_zero(self) -> bool:
        """Whether it should stay as it is: few numbers are not zero, or it is very wide."""
        few = len(self.indices) < _FILLED * len(self) * self.size
        return self.size > _NARROW and (few or self.size > _WIDE)

    def matrix(self) -> Any:
        """As scipy has it."""
        return sparse.csr_array((self.entries, self.indices, self.indptr), shape=self.shape)

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        return self.matrix() @ other

    def sum(self, axis: int) -> np.ndarray:
        """Sums over rows (axis 0) or columns (axis 1)."""
        if axis == 0:
            return np.bincount(self.indices, self.values, self.size).astype(float)
        return np.bincount(self.owners, self.values, len(self)).astype(float)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        out = np.zeros(self.shape, dtype or float)
        np.add.at(out, (self.owners, self.indices), self.entries.astype(out.dtype))
        if self.gone is not None:
            out[self.gone] = self.mark
        return out


def is_sparse(size: int, per_row: float) -> bool:
    """Whether rows of so many columns, with so many entries in the mean, are kept as `SparseRows`."""
    return size > _NARROW and (per_row < _FILLED * size or size > _WIDE)


def sums(value: Any, resp: np.ndarray) -> np.ndarray:
    """Sums (K, ...) of a statistic over rows under responsibilities (N, K); what is sparse is not written out."""
    if isinstance(value, OneHot):
        known = value.codes >= 0
        codes, resp = (value.codes, resp) if known.all() else (value.codes[known], resp[known])
        counts = [np.bincount(codes, weights=column, minlength=value.size) for column in resp.T]
        return np.array(counts).reshape(resp.shape[1], value.size)
    if isinstance(value, SparseRows):
        return np.ascontiguousarray((value.matrix().T @ resp).T)
    return resp.T @ np.asarray(value)


def principal_scores(
    rows: SparseRows, across: np.ndarray, down: np.ndarray, offset: np.ndarray, n_axes: int
) -> np.ndarray:
    """Principal components (N, n_axes) of ``down[:, None] * rows * across - offset[:, None] * shares``.

    What is subtracted makes the columns' sums zero: ``shares`` is what `offset` explains of each column. The matrix is
    never there: its range is found from its products with random vectors, the same ones at every call.

    References
    ----------
    Halko, Martinsson and Tropp 2011, *SIAM Review* 53, algorithm 4.4.
    """
    if len(rows) == 0:
        return np.zeros((0, n_axes))
    matrix = rows.matrix()
    unit = max(float(offset @ offset), 1e-300)
    shares = across * (matrix.T @ (down * offset)) / unit

    def times(vectors: np.ndarray) -> np.ndarray:
        return down[:, None] * (matrix @ (across[:, None] * vectors)) - offset[:, None] * (shares @ vectors)

    def transposed_times(vectors: np.ndarray) -> np.ndarray:
        return across[:, None] * (matrix.T @ (down[:, None] * vectors)) - shares[:, None] * (offset @ vectors)

    width = min(n_axes + 8, len(rows), rows.size)
    basis = _orthonormal(times(np.random.default_rng(0).standard_normal((rows.size, width))))
    for _ in range(2):
        basis = _orthonormal(times(_orthonormal(transposed_times(basis))))
    image = transposed_times(basis)
    squares, axes = np.linalg.eigh(image.T @ image)
    scores = (basis @ axes * np.sqrt(np.maximum(squares, 0)))[:, ::-1][:, :n_axes]
    return np.column_stack([scores, np.zeros((len(rows), n_axes - scores.shape[1]))])


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what columns (M, d) span: in a tenth of a QR decomposition's time, to half its digits."""
    squares, axes = np.linalg.eigh(columns.T @ columns)
    kept = squares > 1e-12 * max(squares.max(initial=0.0), 1e-300)
    return columns @ (axes[:, kept] / np.sqrt(squares[kept]))


def weighted_sum(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of log densities (..., N) with weights (N,); a row of weight zero is none, whatever its density."""
    weighs = weights > 0
    return (rows if weighs.all() else np.where(weighs, rows, 0.0)) @ weights
