"""What nodes learn from a column, part by part: summaries that add up, as sufficient statistics do.

A node says of a part of its column what it must know (`Node.summarise`); the sum over all parts says what the whole
column would (`Node.learn_summary`). So a table that is read in chunks, or that lies on several machines, binds a spec
as the same table in memory does. Sums, counts and extremes need one look at the cells. Quartiles need more where there
are very many: the first look counts values by their leading bits, and the next ones look at the few values that then
are in question. Nothing is approximated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesmix.data import Column
from bayesmix.errors import DataError

#: Values that are kept themselves; of more, numbers of values by leading bits.
_KEPT = 2**16
#: Bits by which values are told apart in one look.
_BITS = 16
_SIGN = np.uint64(2**63)


@dataclass(frozen=True)
class Summary:
    """What is known of some cells. Of two disjoint sets of cells it is the sum, field by field.

    Fields are numbers, `Counter`s, summaries and tuples of summaries. Where order matters (that in which symbols
    appear), the cells on the left come first.
    """

    @property
    def open(self) -> bool:
        """Whether another look at the cells is needed, which `Node.summarise` is then told of."""
        return any(part.open for part in self._parts())

    def compact(self) -> Summary:
        """The same in bounded memory, where there is such a form."""
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Summary):
                changed[each.name] = value.compact()
            elif isinstance(value, tuple) and all(map(_is, value)):
                changed[each.name] = tuple(part.compact() for part in value)
        return replace(self, **changed) if changed else self

    def __add__(self, other: Any) -> Any:
        return type(self)(*[_sum(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)])

    def _parts(self) -> list[Summary]:
        values = [getattr(self, each.name) for each in fields(self)]
        return [part for value in values for part in (value if isinstance(value, tuple) else (value,)) if _is(part)]


def _is(value: Any) -> bool:
    return isinstance(value, Summary)


def _sum(a: Any, b: Any) -> Any:
    if not isinstance(a, tuple):
        return a + b
    return tuple(x + y for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class Cells(Summary):
    """The cells themselves: for nodes that say no less than what they learn from all of them."""

    columns: list[Column]

    def column(self) -> Column:
        """All of them as one column."""
        return self.columns[0] if len(self.columns) == 1 else Column.joined(self.columns)


@dataclass(frozen=True)
class Sums(Summary):
    """How many cells there are, and their sum."""

    n: int
    total: float


@dataclass(frozen=True)
class Labels(Summary):
    """The names of coordinates: those of the first part, and as many in all."""

    value: tuple
    what: str

    def __add__(self, other: Labels) -> Labels:
        if len(other.value) != len(self.value):
            raise DataError(f"{self.what}: vectors of different lengths, {len(self.value)} and {len(other.value)}.")
        return self


@dataclass(frozen=True)
class Counts(Summary):
    """How often each symbol came, in order of appearance, and the symbols that all frames declare."""

    counts: Counter
    declared: tuple | None = None

    def __add__(self, other: Counts) -> Counts:
        declared = self.declared
        if declared != other.declared:
            both = declared is not None and other.declared is not None
            declared = tuple(dict.fromkeys([*(declared or ()), *(other.declared or ())])) if both else None
        return Counts(self.counts + other.counts, declared)


@dataclass(frozen=True)
class Quartiles(Summary):
    """Median, quartiles and standard deviation of finite values: exact, whatever their number.

    Up to 65,536 values are kept. Of more, the first look counts the values by their leading 16 bits (sign, exponent,
    four of the mantissa); each further look, by the 16 bits that follow, those that share their bits with a quartile;
    as soon as these are few enough they are kept.

    Attributes
    ----------
    look : _Look
        Which values this look is at.
    kept : ndarray or None
        Values themselves.
    counts : ndarray or None, shape (P, 65536)
        Numbers of values by the next bits, for each of the look's P beginnings.
    moments : tuple
        Number, mean, and sum of squares about it, of all values.
    """

    look: _Look
    kept: np.ndarray | None
    counts: np.ndarray | None
    moments: tuple[int, float, float]

    @classmethod
    def of(cls, values: np.ndarray, earlier: Quartiles | None = None) -> Quartiles:
        """Of numbers (N,), those that are not finite left out; `earlier` is the sum that wanted another look."""
        values = values[np.isfinite(values)]
        if earlier is None:
            return cls(_EVERYTHING, values, None, (0, 0.0, 0.0))
        look = earlier.following
        if not look.keeps:
            return cls(look, None, look.count(values), earlier.moments)
        return cls(look, values[look.places(_keys(values)) >= 0], None, earlier.moments)

    def __add__(self, other: Quartiles) -> Quartiles:
        if self.kept is not None and other.kept is not None:
            return replace(self, kept=np.concatenate([self.kept, other.kept]))
        a, b = self._counted(), other._counted()
        moments = a.moments if self.look.bits else _both(a.moments, b.moments)
        return replace(a, counts=np.asarray(a.counts) + np.asarray(b.counts), moments=moments)

    def compact(self) -> Quartiles:
        """See `Summary.compact`."""
        return self if self._kept is None or len(self._kept) <= _KEPT else self._counted()

    def _counted(self) -> Quartiles:
        if self.kept is None:
            return self
        values, own = self.kept, (0, 0.0, 0.0)
        if len(values):
            about = values - values[0]  # of a constant the squares are zero, to the last digit
            mean = float(about.mean())
            own = (len(values), float(values[0]) + mean, float(((about - mean) ** 2).sum()))
        return replace(self, kept=None, counts=self.look.count(values), moments=own)

    @property
    def open(self) -> bool:
        """See `Summary.open`."""
        return self.kept is None and self.look.bits + _BITS < 64

    @cached_property
    def following(self) -> _Look:
        """The look that comes next."""
        assert self.counts is not None
        prefixes, below, sizes = [], [], []
        for i, row in enumerate(self.counts):
            ends = np.cumsum(row)
            own = [r - self.look.below[i] for r in self._ranks if 0 <= r - self.look.below[i] < ends[-1]]
            for bin_ in np.unique(np.searchsorted(ends, own, side="right")):
                prefixes.append((int(self.look.prefixes[i]) << _BITS) | int(bin_))
                sizes.append(int(row[bin_]))
                below.append(int(self.look.below[i] + ends[bin_] - row[bin_]))
        return _Look(self.look.bits + _BITS, tuple(prefixes), tuple(below), sum(sizes) <= _KEPT)

    @property
    def n(self) -> int:
        """Number of values."""
        return self.moments[0] if self._kept is None else len(self._kept)

    @property
    def _kept(self) -> np.ndarray | None:
        """All values, where they are few."""
        return None if self.look.bits else self.kept

    @property
    def _ranks(self) -> list[int]:
        """Places of the values that quartiles lie between, in order."""
        at = [(self.n - 1) * q for q in (0.25, 0.5, 0.75)]
        return sorted({place for p in at for place in (int(p), min(int(p) + 1, self.n - 1))})

    def quartiles(self) -> list[float]:
        """The quartiles and between them the median: as `numpy.quantile` finds them."""
        if self._kept is not None:
            return np.quantile(self._kept, [0.25, 0.5, 0.75]).tolist()
        known = self._values()
        found = []
        for q in (0.25, 0.5, 0.75):
            place = (self.n - 1) * q
            pair = [known[int(place)], known[min(int(place) + 1, self.n - 1)]]
            found.append(float(np.quantile(pair, place - int(place))))
        return found

    def _values(self) -> dict[int, float]:
        """Values by place."""
        if self.kept is None:
            last = self.following  # all bits are known
            values = _floats(np.array(last.prefixes, np.uint64))
            at = np.searchsorted(last.below, self._ranks, side="right") - 1
            return dict(zip(self._ranks, values[at].tolist()))
        ordered = np.sort(self.kept)
        starts = np.searchsorted(self.look.places(_keys(ordered)), np.arange(len(self.look.prefixes)))
        at = np.searchsorted(self.look.below, self._ranks, side="right") - 1
        return {r: float(ordered[starts[i] + r - self.look.below[i]]) for r, i in zip(self._ranks, at)}

    def deviation(self) -> float:
        """Standard deviation."""
        if self._kept is not None:
            return float(np.std(self._kept - self.quartiles()[1]))
        n, _, squares = self.moments
        return float(np.sqrt(squares / n))


@dataclass(frozen=True)
class _Look:
    """The values that begin with certain bits.

    Attributes
    ----------
    bits : int
        Leading bits that are known.
    prefixes : tuple of int
        These bits, ascending.
    below : tuple of int
        Number of values below all that begin so.
    keeps : bool
        Whether the values are few enough to be kept.
    """

    bits: int
    prefixes: tuple[int, ...]
    below: tuple[int, ...]
    keeps: bool

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Which prefix each key has, (N,); -1 for none. Some bits have to be known."""
        known = np.array(self.prefixes, np.uint64)
        own = keys >> np.uint64(64 - self.bits)
        at = np.minimum(np.searchsorted(known, own), len(known) - 1)
        return np.where(known[at] == own, at, -1)

    def count(self, values: np.ndarray) -> np.ndarray:
        """Numbers of values by the next bits, (P, 65536)."""
        keys = _keys(values)
        size = len(self.prefixes) << _BITS
        following = ((keys >> np.uint64(64 - self.bits - _BITS)) & np.uint64(2**_BITS - 1)).astype(np.int64)
        if self.bits:
            at = self.places(keys)
            following = (following + (at << _BITS))[at >= 0]
        return np.bincount(following, minlength=size).reshape(len(self.prefixes), 2**_BITS)


_EVERYTHING = _Look(0, (0,), (0,), True)


def _keys(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the values; 0.0 and -0.0 are one."""
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _floats(keys: np.ndarray) -> np.ndarray:
    """The values of such numbers."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


def _both(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[int, float, float]:
    """Number, mean and sum of squares about it of two sets of values together (Chan, Golub and LeVeque 1983)."""
    if not a[0] or not b[0]:
        return a if a[0] else b
    n, step = a[0] + b[0], b[1] - a[1]
    return n, a[1] + step * b[0] / n, a[2] + b[2] + step**2 * a[0] * b[0] / n


# ---------------------------------------------------------------- columns that nodes read


@dataclass(frozen=True)
class Seen:
    """What a node has seen of one column.

    Attributes
    ----------
    name : str
    n_rows : int
    kind : str or None
        Of the cells; None while every cell is missing.
    summary : Summary or None
        None while every cell is missing.
    blank : Column or None
        The column without its rows, while every cell is missing.
    """

    name: str
    n_rows: int
    kind: str | None = None
    summary: Summary | None = None
    blank: Column | None = None

    @classmethod
    def of(cls, node: Any, column: Column, earlier: Seen | None = None) -> Seen:
        """Of a column, or of a part of one; `earlier` is the sum that wanted another look."""
        if column.missing.all():
            return cls(column.name, len(column), blank=column.take(slice(0, 0)))
        before = None if earlier is None else earlier.summary
        return cls(column.name, len(column), column.kind, node.summarise(column, before))

    def __add__(self, other: Seen) -> Seen:
        n_rows = self.n_rows + other.n_rows
        if self.summary is None or other.summary is None:
            return replace(other if self.summary is None else self, name=self.name, n_rows=n_rows)
        kind = self.kind if self.kind == other.kind else "object"
        return Seen(self.name, n_rows, kind, self.summary + other.summary)

    def compact(self) -> Seen:
        """See `Summary.compact`."""
        return self if self.summary is None else replace(self, summary=self.summary.compact())

    @property
    def open(self) -> bool:
        """See `Summary.open`."""
        return self.summary is not None and self.summary.open


def together(seen: Sequence[Seen]) -> Seen:
    """The columns of one node as one; several where it is tied."""
    if len(seen) == 1:
        return seen[0]
    names = " and ".join(dict.fromkeys(each.name for each in seen))
    kinds = sorted({each.kind for each in seen if each.kind is not None})
    if len(kinds) > 1:
        raise DataError(f"{names}: tied nodes read columns of {' and '.join(kinds)}. Give them one type.")
    total = seen[0]
    for each in seen[1:]:
        total = total + each
    return replace(total, name=names)


def learn_from(node: Any, seen: Sequence[Seen]) -> Any:
    """What a node learns from its columns. Raises `DataError` where there is nothing to learn from."""
    total = together(seen)
    if total.summary is not None:
        return node.learn_summary(total.summary, total.name)
    if total.n_rows and node.is_family:
        raise DataError(
            f"{total.name}: every cell is missing, so {type(node).__name__} has nothing to learn from. "
            "Leave the field out of the spec."
        )
    return node.learn_summary(node.summarise(total.blank, None), total.name)
