"""A spec bound to a source of chunks, its rows encoded chunk by chunk, and E-steps over them in constant memory.

`learn` is the first pass: what nodes must know of their columns, as sums of summaries (`bayesmix.summaries`), so that
the bound spec is the one that the same table in memory gives. `Chunks` then gives encoded rows, as often as they are
asked for; `ChunkedEStep` adds up what an E-step finds in each. Engines see a `bayesmix.plan.Pass` and do not know where
the rows are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from bayesmix.bound import Bound, bind_learned, check_enough, check_row_weights
from bayesmix.checkpoint import digest_of
from bayesmix.data import Table
from bayesmix.errors import DataError, gather_faults
from bayesmix.inference.start import sample_size
from bayesmix.params import Params, Place
from bayesmix.plan import EStep, weights_of_sample
from bayesmix.sources import Part, Source, named
from bayesmix.spec import Encoded, Node, Readers, Stats, add_stats, validate
from bayesmix.summaries import Seen, learn_from, together

#: Rows of a chunk that are compared with those of the pass before.
_COMPARED = 256
#: Units that amounts of memory are given in.
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


# ---------------------------------------------------------------- the first pass


@dataclass(frozen=True)
class Weighting:
    """The row weights of a source: the name of a column, an array (N,), or None for ones."""

    given: Any = None

    def split(self, table: Table, first: int) -> tuple[Table, np.ndarray]:
        """A piece that begins with row `first` without the column of weights, and its rows' weights."""
        if isinstance(self.given, str):
            columns = {column.name: column for column in table.columns}
            if self.given not in columns:
                raise DataError(f"row_weights: the table has no column {self.given!r}; it has {', '.join(columns)}.")
            column = columns[self.given]
            if column.kind != "number" or column.missing.any():
                raise DataError(f"row_weights: {self.given} must hold a number in each row.")
            values = np.asarray(column.values, float)
            if (bad := ~np.isfinite(values) | (values < 0)).any():
                row = int(np.flatnonzero(bad)[0])
                raise DataError(f"row_weights: row {row} is {values[row]}; weights are finite and >= 0.")
            return table.without(self.given), values
        if self.given is None:
            return table, np.broadcast_to(1.0, table.n_rows)
        return table, self.given[first : first + table.n_rows]


@dataclass(frozen=True)
class Look:
    """What one look at some parts of a source found; of parts that follow each other it adds up.

    Attributes
    ----------
    sizes : tuple of tuple of int
        Rows of each piece of each part.
    weight, largest_weight : float
        Sum of the row weights (where a column has them), and the largest.
    seen : dict
        Site key -> what was seen of each of the columns that the node there reads.
    nodes : dict
        Site key -> the node.
    kinds : dict
        Column -> its cells' kind, and where that was seen, where columns have one type.
    order : tuple or None
        The columns in order, and where that was seen, where the spec takes them by their places.
    where : str
        What errors call the first of the rows.
    """

    sizes: tuple[tuple[int, ...], ...] = ()
    weight: float = 0.0
    largest_weight: float = 0.0
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    order: tuple[tuple[str, ...], str] | None = None
    where: str = ""

    def __add__(self, other: Look) -> Look:
        seen = {key: list(own) for key, own in (self.seen or other.seen).items()}
        if self.seen and other.seen:
            try:
                seen = {key: [(a + b).compact() for a, b in zip(self.seen[key], other.seen[key])] for key in seen}
            except DataError as error:  # each for itself would do
                raise named(error, other.where) from None
        if self.order and other.order and self.order[0] != other.order[0]:
            raise DataError(
                f"{other.order[1]}: the columns are {', '.join(other.order[0])}, but {', '.join(self.order[0])} in "
                f"{self.order[1]}. Give all parts the same columns in one order."
            )
        for name, (kind, where) in other.kinds.items():
            if name in self.kinds and self.kinds[name][0] != kind:
                raise DataError(
                    f"{where}: {name} holds {_CELLS[kind]}, but {_CELLS[self.kinds[name][0]]} in "
                    f"{self.kinds[name][1]}. Give the column one type in all parts."
                )
        return Look(
            self.sizes + other.sizes,
            self.weight + other.weight,
            max(self.largest_weight, other.largest_weight),
            seen,
            self.nodes or other.nodes,
            {**other.kinds, **self.kinds},
            self.order or other.order,
            self.where or other.where,
        )

    def totals(self) -> dict[str, Seen]:
        """What was seen at each site, of all its columns."""
        return {key: together(seen).compact() for key, seen in self.seen.items()}


_CELLS = {"number": "numbers", "bool": "truth values", "object": "symbols or other objects"}


def look_at(
    spec: Node,
    part: Part,
    columns: Sequence[str] | None,
    weighting: Weighting,
    typed: bool,
    earlier: dict[str, Seen] | None = None,
) -> Look:
    """Look at one part of a source; `earlier` holds the sums over all parts that want another look.

    Raises `DataError` that names the part.
    """
    total, sizes = Look(), []
    for where, table in part.tables(columns):
        sizes.append(table.n_rows)
        try:
            table, weights = weighting.split(table, 0) if isinstance(weighting.given, str) else (table, np.zeros(1))
            readers: Readers = {}
            spec.read_from(table, Place(), readers)
            seen: dict[str, list[Seen]] = {}
            gather_faults(
                partial(_see, seen, key, node, cells, None if earlier is None else earlier[key])
                for key, (node, cells) in readers.items()
                if earlier is None or key in earlier
            )
        except DataError as error:
            raise named(error, where) from None
        kinds: dict[str, tuple[str, str]] = {}
        if typed:
            kinds = {column.name: (column.kind, where) for column in table.columns if not column.missing.all()}
        nodes = {key: node for key, (node, _) in readers.items()}
        order = (table.names, where) if columns is None and table.named else None
        total = total + Look((), float(weights.sum()), float(weights.max()), seen, nodes, kinds, order, where)
    return Look((tuple(sizes),)) + total


def _see(into: dict[str, list[Seen]], key: str, node: Any, columns: list, earlier: Seen | None) -> None:
    into[key] = [Seen.of(node, column, earlier).compact() for column in columns]


#: Looks at all parts of a source: takes what is told of every part, and gives the sum.
Looker = Callable[[Callable[[Part], Look], Sequence[Part]], Look]


def look_here(look: Callable[[Part], Look], parts: Sequence[Part], n_jobs: int = 1) -> Look:
    """Look at all parts in this process."""
    total = Look()
    for found in in_order(look, parts, n_jobs):
        total = total + found
    return total


def learn(spec: Node, source: Source, row_weights: Any = None, n_jobs: int = 1, looker: Looker | None = None) -> Chunks:
    """Bind a spec to a source: what its nodes learn is what they would of all rows in memory.

    One pass over the rows; two or three more where quartiles of more than 65,536 values are needed.

    Parameters
    ----------
    spec : Node
    source : Source
    row_weights : str or array_like, shape (N,), optional
        The name of a column, or the weights themselves.
    n_jobs : int
        Threads that read.
    looker : callable, optional
        Looks at all parts; by default `look_here`.

    Raises
    ------
    SpecError, DataError
        A `DataError` names the part.
    """
    validate(spec)
    spec = spec.plain()
    weighting = Weighting(row_weights)
    columns = _needed(spec, weighting)
    looker = partial(look_here, n_jobs=n_jobs) if looker is None else looker
    first = looker(partial(look_at, spec, columns=columns, weighting=weighting, typed=source.typed), source.parts)
    n_rows = sum(map(sum, first.sizes))
    if not n_rows:
        raise DataError("data: the table has no rows. Pass at least one.")
    totals = first.totals()
    while wanting := {key: seen for key, seen in totals.items() if seen.open}:
        again = partial(look_at, spec, columns=columns, weighting=weighting, typed=False, earlier=wanting)
        found = looker(again, source.parts)
        for part, before, now in zip(source.parts, first.sizes, found.sizes):
            if sum(before) != sum(now):
                raise _changed(part.name, f"it no longer has the {sum(before)} rows of the first pass")
        totals.update(found.totals())
    learned: dict[str, Any] = {}
    gather_faults(partial(_conclude, learned, key, node, totals[key]) for key, node in first.nodes.items())
    bound = bind_learned(spec, learned, first.order[0] if first.order else ())
    check_enough(bound, n_rows)
    if isinstance(row_weights, str):
        if not first.weight > 0:
            raise DataError("row_weights: all weights are 0. Give at least one row a weight.")
        return Chunks(bound, source, first.sizes, weighting, columns, first.weight, first.largest_weight)
    given = None if row_weights is None else check_row_weights(row_weights, n_rows)
    total = float(n_rows) if given is None else float(given.sum())
    largest = 1.0 if given is None else float(given.max())
    return Chunks(bound, source, first.sizes, Weighting(given), columns, total, largest)


def _conclude(learned: dict[str, Any], key: str, node: Any, total: Seen) -> None:
    learned[key] = learn_from(node, [total])


def _needed(spec: Node, weighting: Weighting) -> tuple[str, ...] | None:
    """Columns of the source that are read; None for all."""
    names = spec.column_names()
    if names is None:
        return None
    return (*names, weighting.given) if isinstance(weighting.given, str) else names


# ---------------------------------------------------------------- encoded rows


@dataclass(frozen=True)
class Chunk:
    """Encoded rows that follow each other.

    Attributes
    ----------
    where : str
        As errors call them.
    first : int
        Number of the first row among all.
    data : Encoded
        N rows.
    row_weights : ndarray, shape (N,)
    table : Table
        The rows as they were read.
    """

    where: str
    first: int
    data: Encoded
    row_weights: np.ndarray
    table: Table


@dataclass(frozen=True)
class Chunks:
    """The rows of a source under a bound spec, encoded chunk by chunk each time that they are asked for.

    Attributes
    ----------
    bound : Bound
    source : Source
    sizes : tuple of tuple of int
        Rows of each piece of each part.
    weighting : Weighting
    columns : tuple of str or None
        Those that are read.
    total_weight, largest_weight : float
        Of all rows.

    Examples
    --------
    >>> import bayesmix as bm
    >>> from bayesmix.chunked import learn
    >>> from bayesmix.sources import source_of
    >>> rows = learn(bm.Mixture(bm.Poisson(), 2), source_of(lambda: [{"x": [0, 2, 1]}, {"x": [7, 9]}]))
    >>> [(chunk.first, chunk.data.n_rows) for chunk in rows]
    [(0, 3), (3, 2)]
    """

    bound: Bound
    source: Source
    sizes: tuple[tuple[int, ...], ...]
    weighting: Weighting
    columns: tuple[str, ...] | None
    total_weight: float
    largest_weight: float

    @property
    def n_rows(self) -> int:
        """Number of all rows."""
        return sum(map(sum, self.sizes))

    @cached_property
    def starts(self) -> list[int]:
        """Number of the first row of each part."""
        return [0, *np.cumsum([sum(own) for own in self.sizes]).tolist()][:-1]

    def __iter__(self) -> Iterator[Chunk]:
        for number in range(len(self.sizes)):
            yield from self.part(number)

    def part(self, number: int) -> Iterator[Chunk]:
        """The chunks of one part. Raises `DataError` that names it."""
        one = self.alone(number)
        return encoded_chunks(self.bound, one)

    def alone(self, number: int) -> PartOfRows:
        """What is needed to encode one part, wherever that is done."""
        first, size = self.starts[number], sum(self.sizes[number])
        weighting = self.weighting
        if isinstance(weighting.given, np.ndarray):
            weighting = Weighting(weighting.given[first : first + size])
        return PartOfRows(self.source.parts[number], first, size, weighting, self.columns)

    def take(self, rows: np.ndarray) -> tuple[Encoded, np.ndarray]:
        """Rows by their numbers, ascending, and their weights. It takes a pass over those parts that have some."""
        kept: list[Table] = []
        weights: list[np.ndarray] = []
        for number, (first, own) in enumerate(zip(self.starts, self.sizes)):
            begin, end = np.searchsorted(rows, [first, first + sum(own)])
            if begin < end:
                table, own_weights = taken(self.alone(number), rows[begin:end])
                kept.append(table)
                weights.append(own_weights)
        return self.bound.site.encode(Table.joined(kept), "error"), np.concatenate(weights)

    def digest(self) -> str:
        """What tells this table from others: rows, weights, and what nodes learned, to six digits."""
        text = [self.n_rows, f"{self.total_weight:.6g}", {k: _rounded(v) for k, v in self.bound.learned.items()}]
        return hashlib.sha256(repr(text).encode()).hexdigest()


@dataclass(frozen=True)
class PartOfRows:
    """One part of a source, which row it begins with, how many it has, and their weights."""

    part: Part
    first: int
    size: int
    weighting: Weighting
    columns: tuple[str, ...] | None

    def tables(self) -> Iterator[tuple[str, int, Table, np.ndarray]]:
        """Where rows are, the number of the first, the rows and their weights, piece by piece."""
        at = 0
        for where, table in self.part.tables(self.columns):
            try:
                table, weights = self.weighting.split(table, at)
            except DataError as error:
                raise named(error, where) from None
            if at + table.n_rows > self.size:
                break
            yield where, self.first + at, table, weights
            at += table.n_rows
        else:
            if at == self.size:
                return
        raise _changed(self.part.name, f"it no longer has the {self.size} rows of the first pass")


def _changed(where: str, how: str) -> DataError:
    return DataError(
        f"{where}: {how}. Leave data as they are in a fit, and let a function that makes chunks make the same ones "
        "each time."
    )


def encoded_chunks(bound: Bound, rows: PartOfRows) -> Iterator[Chunk]:
    """The chunks of one part. Raises `DataError` that names the part."""
    for where, first, table, weights in rows.tables():
        try:
            data = bound.site.encode(table, "error")
        except DataError as error:
            raise named(error, where) from None
        yield Chunk(where, first, data, weights, table)


def taken(rows: PartOfRows, wanted: np.ndarray) -> tuple[Table, np.ndarray]:
    """Rows of one part by their numbers among all, ascending, as they were read, and their weights."""
    kept, weights = [], []
    for _, first, table, own in rows.tables():
        begin, end = np.searchsorted(wanted, [first, first + table.n_rows])
        if begin < end:
            kept.append(table.take(wanted[begin:end] - first))
            weights.append(own[wanted[begin:end] - first])
    return Table.joined(kept), np.concatenate(weights)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return [_rounded(each) for each in value]
    if is_dataclass(value):
        return [_rounded(getattr(value, each.name)) for each in fields(value)]
    return repr(value)


# ---------------------------------------------------------------- passes


class ChunkedEStep:
    """E-steps over chunks: a `bayesmix.plan.Pass` in constant memory.

    Chunks whose arrays fit into `memory` are kept; the others are read again in each pass.

    Parameters
    ----------
    chunks : Chunks
    n_jobs : int
        Threads, each with a part of the source; -1 is all processors.
    memory : int or str
        Bytes for rows that stay in memory, as a number or as ``"2 GiB"``.
    """

    def __init__(self, chunks: Chunks, n_jobs: int = 1, memory: int | str = "256 MiB"):
        self.chunks, self.bound, self.n_jobs = chunks, chunks.bound, n_jobs
        self.left = n_bytes(memory)
        self._kept: dict[int, list[EStep]] = {}
        self._first_rows: dict[tuple[int, int], str] = {}
        self._sample: tuple[Encoded, np.ndarray] | None = None

    @property
    def n_rows(self) -> int:
        """See `Pass`."""
        return self.chunks.n_rows

    @property
    def largest_weight(self) -> float:
        """See `Pass`."""
        return self.chunks.largest_weight

    @property
    def data(self) -> Encoded:
        """All rows where they are few, or a sample of them."""
        return self._in_memory()[0]

    @property
    def row_weights(self) -> np.ndarray:
        """Weights of the rows in `data`, with the sum of all rows' weights."""
        return self._in_memory()[1]

    def _in_memory(self) -> tuple[Encoded, np.ndarray]:
        if self._sample is None:
            size = sample_size(self.bound)
            if self.n_rows < 2 * size:
                self._sample = self.take(np.arange(self.n_rows))
            elif self.sample(size, np.random.default_rng(0)) is None:  # a few rows have most of the weight
                rows = np.sort(np.random.default_rng(0).choice(self.n_rows, size, replace=False))
                data, weights = self.take(rows)
                self._sample = data, weights * (self.n_rows / size)
        assert self._sample is not None
        return self._sample

    def take(self, rows: np.ndarray) -> tuple[Encoded, np.ndarray]:
        """See `Chunks.take`."""
        return self.chunks.take(rows)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Encoded, np.ndarray] | None:
        """See `Pass.sample`: the rows that the same table in memory would give."""
        rows = np.sort(rng.choice(self.n_rows, size, replace=False))
        data, own = self.take(rows)
        weights = weights_of_sample(own, self.chunks.total_weight, size / self.n_rows)
        if weights is None:
            return None
        self._sample = data, weights
        return self._sample

    def __call__(self, params: Params) -> tuple[float, Stats]:
        """Log-likelihood and expected statistics."""
        loglik, stats = 0.0, None
        for own, found in in_order(partial(self._part, params), range(len(self.chunks.sizes)), self.n_jobs):
            loglik += own
            if found is not None:
                stats = found if stats is None else add_stats(stats, found)
        assert stats is not None
        return loglik, stats

    def sum_of(self, function: Callable[[Encoded, np.ndarray], Any]) -> Any:
        """The sum over all chunks of a function of encoded rows and their weights; the rows are read for it."""
        found = in_order(lambda n: sum_over(function, self._read(n)), range(len(self.chunks.sizes)), self.n_jobs)
        return total_of(found)

    def _read(self, number: int) -> Iterator[Chunk]:
        """The chunks of one part, whose first rows are compared with what they were the last time."""
        for i, chunk in enumerate(self.chunks.part(number)):
            some = chunk.data.take(np.arange(min(chunk.data.n_rows, _COMPARED)))
            found = digest_of(some, chunk.row_weights[:_COMPARED])
            if self._first_rows.setdefault((number, i), found) != found:
                raise _changed(chunk.where, "it has other values than in the pass before")
            yield chunk

    def _part(self, params: Params, number: int) -> tuple[float, Stats | None]:
        """The same for one part."""
        if number in self._kept:
            return added(piece(params) for piece in self._kept[number])
        kept: list[EStep] | None = []

        def each() -> Iterator[tuple[float, Stats]]:
            nonlocal kept
            for chunk in self._read(number):
                piece = EStep(self.bound, chunk.data, chunk.row_weights)
                del chunk
                yield piece(params)
                if kept is not None:
                    self.left -= piece.nbytes
                    piece.drop_rows()
                    kept.append(piece)
                    if self.left < 0:  # it does not fit, and so no part of it is kept
                        self.left += sum(one.nbytes for one in kept)
                        kept = None

        found = added(each())
        if kept is not None:
            self._kept[number] = kept
        return found


def sum_over(function: Callable[[Encoded, np.ndarray], Any], chunks: Iterable[Chunk]) -> Any:
    """The sum over chunks of a function of encoded rows and their weights; None where there are none."""
    return total_of(function(chunk.data, chunk.row_weights) for chunk in chunks)


def total_of(values: Iterable[Any]) -> Any:
    """The sum of values, whatever they are, in their order; None stands for nothing."""
    total = None
    for value in values:
        total = value if total is None else total if value is None else total + value
    return total


def added(results: Iterable[tuple[float, Stats]]) -> tuple[float, Stats | None]:
    """Log-likelihoods and statistics of disjoint sets of rows together; None where there are none."""
    total, stats = 0.0, None
    for loglik, own in results:
        total += loglik
        stats = own if stats is None else add_stats(stats, own)
    return total, stats


def in_order[T, R](function: Callable[[T], R], items: Sequence[T], n_jobs: int) -> Iterator[R]:
    """Results of a function in the order of its arguments, by several threads; few of them wait in memory."""
    n_jobs = min(n_jobs if n_jobs > 0 else os.cpu_count() or 1, len(items))
    if n_jobs <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > n_jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def n_bytes(memory: int | str) -> int:
    """An amount of memory in bytes: a number, or text such as ``"2 GiB"`` or ``"500 MB"``."""
    if isinstance(memory, (int, float, np.integer)) and not isinstance(memory, bool) and memory >= 0:
        return int(memory)
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?)?b?\s*", str(memory).lower())
    if found is None:
        raise ValueError(f'memory: a number of bytes is needed, or text such as "2 GiB", not {memory!r}.')
    return int(float(found[1]) * _UNITS[found[2] or ""])
