"""From bound sites and encoded rows to a program of the E-step kernel.

Every node writes its own instructions (`Node.plan`), in terms of what its log density is linear in; families give
statistics of rows and natural parameters, and know nothing of buffers, blocks or threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytensor.tensor as pt

from bayesmix.bound import Bound
from bayesmix.kernels import e_step as kernel
from bayesmix.params import Dim, Params
from bayesmix.repeats import repeats
from bayesmix.spec import Encoded, NotLinear, Site, Stats, places
from bayesmix.statistics import OneHot, Products, SparseRows
from bayesmix.threads import ALONE

#: Arrays of rows, by name.
Arrays = Mapping[str, np.ndarray]
#: Numbers of a block, over all buffers: what stays in the second cache.
_BLOCK = 24000
#: Parts of a table that threads take.
_PARTS = 16
#: Statistics that are many.
_MANY = 2**14
#: Rows of which statistics are found at once.
_AT_ONCE = 2**15
#: Numbers of a line of the cache; loads that cross lines take twice as long.
_LINE = 8
#: A factor that a buffer carries is at most this.
_MOST_CARRIED = 1e60
#: Rows of a block, at least and at most.
_FEWEST, _MOST = 32, 992


@dataclass(frozen=True)
class Buffer:
    """Log densities of one site: K columns over the rows of a level."""

    number: int
    level: int
    axes: tuple[Dim, ...]


@dataclass
class _Blocks:
    """Columns of statistics that are found some rows at a time, when the plan is put together.

    Attributes
    ----------
    statistics : callable
        Of the arrays of rows.
    data : Encoded
    found : list of tuple
        Of each statistic that is kept: its name, whether the columns that it multiplies are meant (of a `Products`),
        where the first of its columns is to stand, and how far they are apart.
    """

    statistics: Callable[[Arrays], Mapping[str, Any]]
    data: Encoded
    found: list[tuple[str, bool, int, int]]

    def write(self, room: np.ndarray) -> None:
        """Write all columns to where they stand."""
        data = self.data
        for begin in range(0, data.n_rows, _AT_ONCE):
            first, last = begin, min(begin + _AT_ONCE, data.n_rows)
            rows: slice | np.ndarray = slice(first, last)
            if data.present is not None:
                first, last = np.searchsorted(data.present, [first, last])
                rows = data.present[first:last]
            own = self.statistics({name: array[first:last] for name, array in data.arrays.items()})
            for name, base, at, stride in self.found:
                value = own[name].base if base else own[name]
                width = int(np.prod(value.shape[1:]))
                _columns(room, at, stride, width)[:, rows] = value.reshape(len(value), width).T


class Plan:
    """The program of a spec over its rows, and what it needs: built once for a fit.

    Parameters
    ----------
    bound : Bound
    data : Encoded
        N rows.

    Raises
    ------
    NotLinear
        A node has no linear form; the walks in numpy serve instead.
    """

    def __init__(self, bound: Bound, data: Encoded):
        from bayesmix.inference.start import middle

        self.bound, self.n_rows = bound, data.n_rows
        self._group: np.ndarray | None = None
        if (found := repeats(data)) is not None:
            members, self._group = found
            data = data.take(members)
        self._code: list[list[int]] = []
        self._ints: list[np.ndarray] = []
        self._floats: list[tuple[int, int, np.ndarray]] = []  # where columns (rows, width) begin, and their stride
        self._blocks: list[_Blocks] = []
        self._n_ints = self._n_floats = 0
        self._columns: dict[tuple[int, int], tuple[np.ndarray, tuple[int, int]]] = {}
        self._widths: list[tuple[int, int]] = []  # level and K of every buffer
        self._levels: list[tuple[int, np.ndarray]] = [(-1, np.broadcast_to(0, data.n_rows + 1))]
        self._sums: list[tuple[int, np.ndarray]] = []  # level above and elements' places, of levels that are summed
        self._set: set[int] = set()
        self._in_place: list[tuple[int, int]] = []  # row of a mixture, and the buffer of its only source
        self._carried: dict[int, tuple[int, float]] = {}  # by buffer: the buffer of its factor, and the factor's bound
        self._densities: set[int] = set()  # buffers without responsibilities
        self._later: list[tuple[int, int, list[tuple[int, int]]]] = []
        # of every buffer's dense instruction: its row, and its constants, columns and products
        self._dense: dict[int, tuple[int, list[tuple], list[tuple], list[tuple]]] = {}
        self._layout: dict[str, dict[str, tuple[int, tuple[int, ...]]]] = {}
        self.size = 0
        point = middle(bound)
        for site in bound.site.distinct():
            if site.slots:
                found = site.node.natural(site.values(point), site.learned, np)
                self._layout[site.key] = {}
                for name, value in found.items():
                    self._layout[site.key][name] = (self.size, np.shape(value))
                    self.size += int(np.size(value))
        self._root = bound.site.node.plan(bound.site, data, self, None, 0)
        self._settle(self._root)
        self._finish()

    # ------------------------------------------------------------ what nodes write

    def buffer(self, level: int, axes: tuple[Dim, ...]) -> Buffer:
        """A new buffer for a site with these axes."""
        n_components = int(np.prod([len(axis) for axis in axes], dtype=int))
        level, _ = self._real(level)
        self._widths.append((level, n_components))
        return Buffer(len(self._widths) - 1, level, axes)

    def linear(
        self,
        site: Site,
        data: Encoded,
        statistics: Mapping[str, Any] | Callable[[Arrays], Mapping[str, Any]],
        into: Buffer | None,
        level: int,
    ) -> Buffer:
        """Statistics times natural parameters, added to `into` (or to a buffer of its own).

        Statistics may be a function of the arrays of rows. Of many rows it is called for some at a time, when the
        plan is put together: what it returns is never there as a whole beside the plan's own columns.
        """
        out = into if into is not None and into.axes == site.axes else self.buffer(level, site.axes)
        _, indptr = self._real(level)
        blocks: _Blocks | None = None
        if callable(statistics):
            if indptr is None and data.n_rows > _AT_ONCE:
                some = data.take(np.arange(_AT_ONCE))
                if all(map(_is_dense, statistics(some.arrays).values())):
                    blocks, data = _Blocks(statistics, data, []), some
                    self._blocks.append(blocks)
            statistics = statistics(data.arrays)
        constants: list[tuple[int, int, int, int]] = []
        columns: list[tuple[int, int, int, int]] = []
        products: list[tuple[int, int, int, int]] = []
        for name, value in statistics.items():
            at, shape = self._layout[site.key][name]
            stride = int(np.prod(shape[1:], dtype=int))
            # a missing cell has statistics of zero, its constant too
            if isinstance(value, OneHot):
                codes = np.asarray(data.full(value.codes, -1), np.int64)
                if indptr is not None:
                    self._counts(out, indptr, codes, stride, at, columns)
                    continue
                symbols = np.append(codes + 1, np.zeros(kernel.ROUND, int))
                self._emit(kernel.ONE_HOT, out, self._first(out), self.ints(symbols), stride, at)
            elif isinstance(value, SparseRows) and value.mostly_zero:
                rows = data.full(value, 0)
                rows = rows if indptr is None else rows.joined(indptr)
                self._sparse(out, rows, stride, at)
            elif isinstance(value, Products) and indptr is None:
                where, apart = self._place(value.base, data.full(value.base, 0.0), blocks, (name, True))
                for j, (a, b) in enumerate(value.pairs()):
                    products.append((where + a * apart, where + b * apart, at + j, stride))
            else:
                array = _matrix(value, data, indptr, stride)
                if not _is_dense(array):
                    where, symbols = np.nonzero(array)
                    starts = np.searchsorted(where, np.arange(len(array) + 1))
                    self._sparse(out, SparseRows(starts, symbols, stride, array[where, symbols]), stride, at)
                    continue
                everywhere = blocks is None or (blocks.data.present is None and not np.asarray(value).strides[0])
                for j in range(stride):
                    if everywhere and (array[:, j] == 1).all():
                        constants.append((0, 0, at + j, stride))
                    else:
                        where, apart = self._place(np.asarray(value), array, blocks, (name, False))
                        columns.append((where + j * apart, 0, at + j, stride))
        if constants or columns or products:
            if out.number not in self._dense:
                self._dense[out.number] = (self._emit(kernel.DENSE, out, self._first(out)), [], [], [])
            for own, found in zip(self._dense[out.number][1:], (constants, columns, products)):
                own += found
        elif not statistics:
            self._first(out)
        self._columns = {}
        if into is not None and out is not into:
            return self.add(out, into)
        return out

    def add(self, source: Buffer, into: Buffer) -> Buffer:
        """Add one buffer to another, spread over its axes."""
        self._settle(source)
        row = self._emit(kernel.SUM, into, self._first(into), 0)
        self._later.append((row, 5, [(source.number, int(k)) for k in places(source.axes, into.axes)]))
        return into

    def segments(self, source: Buffer, into: Buffer, indptr: np.ndarray) -> Buffer:
        """Add the sums over each row's elements."""
        self._settle(source)
        row = self._emit(kernel.SEGMENTS, into, self._first(into), 0, source.level, self.ints(indptr))
        self._later.append((row, 5, [(source.number, int(k)) for k in places(source.axes, into.axes)]))
        return into

    def mask(self, buffer: Buffer, gone: np.ndarray, level: int) -> None:
        """Rows (N,) of bool whose responsibilities end here."""
        if level >= 0:  # sums are without what is missing
            self._emit(kernel.MASK, buffer, 0, self.ints(gone.astype(np.int64)))

    def mixture(
        self, site: Site, sources: list[tuple[Buffer, int]], size: int, level: int, into: Buffer | None
    ) -> Buffer:
        """Log-sum-exp over `size` components: `sources` are their buffers and columns, (K, size) flattened.

        Added to `into`, a mixture leaves the logarithms of its sums to whoever reads that: a mixture around it needs
        their exponentials. Until then they are a factor that the buffer carries.
        """
        adds = into is not None and into.axes == site.axes and into.level == self._real(level)[0]
        out = into if into is not None and adds else self.buffer(level, site.axes)
        own = [buffer.number for buffer, _ in sources]
        in_place = len(set(own)) == 1 and [k for _, k in sources] == list(range(self._widths[own[0]][1]))
        carried, bound = self._carried.pop(own[0], (-1, 1.0)) if in_place else (-1, 1.0)
        for buffer, _ in sources:
            self._settle(buffer)
        joint = own[0] if in_place else self._extra(level, len(sources))
        at, _ = self._layout[site.key]["n"]
        bound *= size
        if self._carried.get(out.number, (-1, 1.0))[1] * bound > _MOST_CARRIED:
            self._settle(out)
        limit = int(min(bound, 1e18))
        row = self._emit(kernel.MIXTURE, out, size, 0, 0, at, 0, 0, self._first(out), -1, kernel.LOGS, -1, limit)
        if adds:
            number, before = self._carried.get(out.number, (-1, 1.0))
            self._code[row][12] = kernel.SETS if number < 0 else kernel.MULTIPLIES
            number = self._extra(level, site.n_components) if number < 0 else number
            self._carried[out.number] = number, before * bound
            self._later.append((row, -11, [(number, 0)]))
            self._densities.add(number)
        if carried >= 0:
            self._later.append((row, -13, [(carried, 0)]))
        if in_place:
            self._in_place.append((row, joint))
        self._later.append((row, 5, [(buffer.number, k) for buffer, k in sources]))
        self._later.append((row, -6, [(joint, 0)]))
        inverses = self._extra(level, site.n_components)
        self._later.append((row, -8, [(inverses, 0)]))
        self._densities |= {inverses} if in_place else {inverses, joint}
        return out if into is None or adds else self.add(out, into)

    def level(self, above: int, indptr: np.ndarray) -> int:
        """A level of elements below the rows of another: row r has the elements ``indptr[r]`` to ``indptr[r + 1]``."""
        self._levels.append((above, indptr))
        return len(self._levels) - 1

    def summed(self, above: int, indptr: np.ndarray) -> int:
        """Such a level for nodes without mixtures: only the sums of the elements' statistics count, found here once."""
        self._sums.append((above, indptr))
        return -len(self._sums)

    def ints(self, values: np.ndarray) -> int:
        """Where whole numbers stand that an instruction reads."""
        values = np.ascontiguousarray(values, np.int64).ravel()
        self._ints.append(values)
        self._n_ints += len(values)
        return self._n_ints - len(values)

    # ------------------------------------------------------------ how it is put together

    def _real(self, level: int) -> tuple[int, np.ndarray | None]:
        """The level of the rows into which elements are summed, and the rows' places among them; None without sums."""
        indptr = None
        while level < 0:
            level, above = self._sums[-level - 1]
            indptr = above if indptr is None else indptr[above]
        return level, indptr

    def _counts(
        self, out: Buffer, indptr: np.ndarray, codes: np.ndarray, size: int, at: int, columns: list[tuple]
    ) -> None:
        """How often each symbol comes in each row: as columns, or as what is not zero of them."""
        n_rows, known = len(indptr) - 1, codes >= 0
        keys = (np.repeat(np.arange(n_rows), np.diff(indptr)) * size + codes)[known]
        if size <= 8 or n_rows * size <= 2 * len(keys):
            counts = np.bincount(keys, minlength=n_rows * size).reshape(n_rows, size).astype(float)
            where, apart = self._floats_at(counts)
            columns += [(where + j * apart, 0, at + j, size) for j in range(size)]
            return
        found, times = np.unique(keys, return_counts=True)
        starts = np.searchsorted(found // size, np.arange(n_rows + 1))
        self._sparse(out, SparseRows(starts, found % size, size, times.astype(float)), size, at)

    def _settle(self, buffer: Buffer) -> None:
        """Take the logarithm of the factor that a buffer carries, if it carries one."""
        number, _ = self._carried.pop(buffer.number, (-1, 1.0))
        if number >= 0:
            row = self._emit(kernel.LOG, buffer, 0, 0)
            self._later.append((row, -5, [(number, 0)]))

    def _extra(self, level: int, n_components: int) -> int:
        self._widths.append((level, n_components))
        return len(self._widths) - 1

    def _place(
        self, source: np.ndarray, columns: np.ndarray, blocks: _Blocks | None, name: tuple[str, bool]
    ) -> tuple[int, int]:
        """Where the columns of a statistic stand, and how far they are apart.

        `source` is the array as the family gave it: what is asked for twice stands once. Of `blocks`, the columns are
        found later, by name, and those given are of their first rows.
        """
        key = (source.__array_interface__["data"][0], source.size)
        if key not in self._columns:
            columns = _flat(columns)
            if blocks is None:
                where = self._floats_at(columns)
            else:
                where = self._room_for(blocks.data.n_rows, columns.shape[1])
                blocks.found.append((*name, *where))
            self._columns[key] = (source, where)
        return self._columns[key][1]

    def _room_for(self, n_rows: int, width: int) -> tuple[int, int]:
        """Where the first of some columns is to stand, and how far they are apart; each begins a line of the cache."""
        at, stride = self._n_floats, -(-n_rows // _LINE) * _LINE
        self._n_floats += stride * width
        return at, stride

    def _floats_at(self, columns: np.ndarray) -> tuple[int, int]:
        """The same for columns (rows, width) that are known already."""
        at, stride = self._room_for(*columns.shape)
        self._floats.append((at, stride, columns))
        return at, stride

    def _sparse(self, out: Buffer, rows: SparseRows, size: int, at: int) -> None:
        where = -1 if rows.values is None else self._floats_at(rows.values[:, None])[0]
        places = self.ints(rows.indptr), self.ints(rows.indices)
        self._emit(kernel.SPARSE, out, self._first(out), *places, where, size, at)

    def _first(self, buffer: Buffer) -> int:
        """1 for the first instruction that writes to a buffer: it must clear it."""
        if buffer.number in self._set:
            return 0
        self._set.add(buffer.number)
        return 1

    def _emit(self, kind: int, buffer: Buffer, *rest: int) -> int:
        row = [kind, buffer.level, buffer.number, self._widths[buffer.number][1], *rest]
        self._code.append(row + [0] * (kernel.WIDTH - len(row)))
        return len(self._code) - 1

    def _finish(self) -> None:
        counts = [1.0]
        for above, indptr in self._levels[1:]:
            counts.append(counts[above] * (len(indptr) and indptr[-1] / max(len(indptr) - 1, 1)))
        numbers = sum(counts[level] * width for level, width in self._widths)
        for number, (row, constants, columns, products) in self._dense.items():
            table = self.ints(np.ravel(constants + columns + products))
            self._code[row][5:9] = table, len(constants), len(columns), len(products)
            numbers += counts[self._widths[number][0]] * (len(columns) + len(products))
        n_rows = int(np.clip(_BLOCK / max(numbers, 1e-9), _FEWEST, _MOST)) // kernel.ROUND * kernel.ROUND
        bounds = [_blocks(self._levels, n_rows)]
        for above, indptr in self._levels[1:]:
            bounds.append(indptr[bounds[above]])
        self._bounds = np.array(bounds, np.int64)
        largest = np.maximum(np.diff(self._bounds, axis=1).max(axis=1, initial=0), 1)
        self._caps = -(-largest // kernel.ROUND) * kernel.ROUND
        n_blocks = self._bounds.shape[1] - 1
        n_parts = max(min(_PARTS, n_blocks), 1)
        if self.size > _MANY:  # each part has statistics of its own, which are not to outweigh the rows
            n_parts = int(np.clip((self._n_ints + self._n_floats) // self.size, 1, n_parts))
        self._cuts = np.arange(n_parts + 1) * n_blocks // n_parts
        alone = self._fuse() | self._densities
        starts, total = [0] * len(self._widths), 0
        for number in sorted(range(len(starts)), key=lambda number: number in alone):
            level, width = self._widths[number]
            starts[number] = total
            total += width * int(self._caps[level])
            if number not in alone:
                self._used = total
        self._work = total
        for row, place, sources in self._later:
            where = [starts[number] + k * int(self._caps[self._widths[number][0]]) for number, k in sources]
            self._code[row][abs(place)] = where[0] if place < 0 else self.ints(np.array(where))
        self._room = max(
            (
                len(products) * int(self._caps[self._widths[number][0]])
                for number, (*_, products) in self._dense.items()
            ),
            default=0,
        )
        for instruction in self._code:
            instruction[2] = starts[instruction[2]]
        self._root_at = starts[self._root.number]
        self._program = np.array(self._code, np.int64).reshape(-1, kernel.WIDTH)
        self._int_data = np.concatenate([*self._ints, np.zeros(1, np.int64)])
        self._float_data = _aligned(self._n_floats + kernel.ROUND)
        while self._floats:  # a column that is copied is let go, or every one would be there twice
            at, stride, copied = self._floats.pop()
            _columns(self._float_data, at, stride, copied.shape[1])[:, : len(copied)] = copied.T
        for blocks in self._blocks:
            blocks.write(self._float_data)
        self._ints, self._blocks = [], []
        self._idle: list[tuple[np.ndarray, np.ndarray]] = []  # append and pop are atomic
        self._keeps_room = True

    def _fuse(self) -> set[int]:
        """Mixtures of a family with two columns become one instruction; the buffers that then hold densities alone."""
        own: set[int] = set()
        for mixture, joint in self._in_place:
            writers = [row for row, code in enumerate(self._code) if code[2] == joint and row != mixture]
            if len(writers) == 1:
                leaf = self._code[writers[0]]
                if leaf[0] == kernel.DENSE and leaf[7] + leaf[8] == 2:
                    leaf[0], self._code[mixture][9] = kernel.FUSED, writers[0] + 1
                    own.add(joint)
        return own

    # ------------------------------------------------------------ what engines call

    def natural(self, params: Params) -> np.ndarray:
        """Natural parameters of the whole tree as one vector, (size,)."""
        out = np.empty(self.size)
        for site in self.bound.site.distinct():
            if site.slots:
                for name, value in site.node.natural(site.values(params), site.learned, np).items():
                    at, shape = self._layout[site.key][name]
                    out[at : at + int(np.prod(shape, dtype=int))] = np.ravel(value)
        return out

    def natural_graph(self, variables: Mapping[str, Any]) -> Any:
        """The same in PyTensor."""
        parts = []
        for site in self.bound.site.distinct():
            if site.slots:
                values = {name: slot.components(variables[slot.name]) for name, slot in site.slots.items()}
                found = site.node.natural(values, site.learned, pt)
                parts += [
                    pt.broadcast_to(value, shape).ravel()
                    for value, (_, shape) in zip(found.values(), self._layout[site.key].values())
                ]
        return pt.concatenate(parts)

    def statistics(self, flat: np.ndarray) -> Stats:
        """Statistics by site and name."""
        return {
            key: {n: flat[at : at + int(np.prod(shape, dtype=int))].reshape(shape) for n, (at, shape) in own.items()}
            for key, own in self._layout.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What `bayesmix.kernels.whole_table.run` takes besides parameters and row weights, and last the groups."""
        return {
            "code": self._program,
            "ints": self._int_data,
            "floats": self._float_data,
            "bounds": self._bounds,
            "caps": self._caps,
            "cuts": self._cuts,
            "sizes": np.array([self._room, self._used, self._root_at, self._work, self.n_rows]),
            "groups": np.empty(0, np.int64) if self._group is None else np.asarray(self._group, np.int64),
        }

    def gathered(self, weights: np.ndarray) -> np.ndarray:
        """Row weights (N,) as `total` takes them: those of equal rows together; empty where all are 1."""
        if self._group is not None:
            return np.bincount(self._group, weights)
        return np.empty(0) if not weights.strides[0] or (weights == 1).all() else np.ascontiguousarray(weights)

    def run(
        self, nat: np.ndarray, weights: np.ndarray, *, down: bool = True, n_jobs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log densities (N,), and statistics under row weights (N,) as one vector (zeros where not `down`).

        It may be called from several threads at once, and releases the GIL. NaN is -inf: no parameters, no likelihood.
        """
        rows = np.empty(len(self._levels[0][1]) - 1)
        _, stats = self._parts(nat, self.gathered(weights) if down else np.empty(0), rows, down, n_jobs)
        return rows if self._group is None else rows[self._group], stats

    def total(self, nat: np.ndarray, gathered: np.ndarray, *, n_jobs: int = 1) -> tuple[float, np.ndarray]:
        """The weighted sum of the rows' log densities, and statistics: `run` without an array of the rows."""
        return self._parts(nat, gathered, np.empty(0), True, n_jobs)

    def _parts(
        self, nat: np.ndarray, weights: np.ndarray, rows: np.ndarray, down: bool, n_jobs: int
    ) -> tuple[float, np.ndarray]:
        # the same parts, added in the same order, however many threads there are: the same digits
        n_parts = len(self._cuts) - 1
        logliks, stats = np.zeros(n_parts), np.zeros((n_parts, self.size))
        n_jobs = min(n_jobs if n_jobs > 0 else os.cpu_count() or 1, n_parts)
        if not kernel.e_step.signatures:  # compiled, or read from the disk, before several threads want it
            with ALONE:
                self._run(nat, weights, rows, logliks, stats, down, 0, 0)
        if n_jobs <= 1:
            self._run(nat, weights, rows, logliks, stats, down, 0, n_parts)
        else:
            with ThreadPoolExecutor(n_jobs) as pool:
                each = [
                    pool.submit(self._run, nat, weights, rows, logliks, stats, down, i, i + 1) for i in range(n_parts)
                ]
            for one in each:
                one.result()
        return float(logliks.sum()), stats.sum(0) if n_parts > 1 else stats[0]

    def _run(
        self,
        nat: np.ndarray,
        weights: np.ndarray,
        rows: np.ndarray,
        logliks: np.ndarray,
        stats: np.ndarray,
        down: bool,
        first: int,
        last: int,
    ) -> None:
        """Parts `first` to `last`: fills what is theirs of `rows`, `logliks` and `stats`."""
        try:
            work, resp = self._idle.pop()
        except IndexError:
            work, resp = _aligned(self._work), _aligned(self._used)
        kernel.e_step(
            self._program,
            self._int_data,
            self._float_data,
            nat,
            weights,
            self._bounds,
            self._caps,
            self._room,
            self._used,
            self._root_at,
            self._cuts,
            first,
            last,
            work,
            resp,
            rows,
            logliks,
            stats,
            down,
        )
        if self._keeps_room:
            self._idle.append((work, resp))

    def drop_room(self) -> None:
        """Keep no memory to work in between passes: of few rows it is many times what these take."""
        self._keeps_room, self._idle = False, []


class Pass(Protocol):
    """One E-step over all rows, wherever they are: what EM knows of a table.

    Attributes
    ----------
    bound : Bound
    n_rows : int
    n_jobs : int
        Threads.
    largest_weight : float
        Of a row.
    data, row_weights : Encoded and ndarray
        Rows that are in memory, with weights that add up to those of all rows: all of them, or a sample.
    """

    bound: Bound
    n_jobs: int

    @property
    def n_rows(self) -> int: ...

    @property
    def largest_weight(self) -> float: ...

    @property
    def data(self) -> Encoded: ...

    @property
    def row_weights(self) -> np.ndarray: ...

    def __call__(self, params: Params) -> tuple[float, Stats]:
        """Log-likelihood and expected statistics."""
        ...

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Encoded, np.ndarray] | None:
        """Some of the rows, drawn without replacement, with weights that add up to those of all.

        None where that says little, because a few rows have most of the weight.
        """
        ...


class EStep:
    """One E-step of a spec over rows in memory: by the kernel, or by the walks where a node has no linear form.

    Parameters
    ----------
    bound : Bound
    data : Encoded
    row_weights : ndarray, shape (N,)
    n_jobs : int
        Threads; -1 is all processors.
    """

    def __init__(self, bound: Bound, data: Encoded, row_weights: np.ndarray, n_jobs: int = 1):
        self.bound, self.data, self.row_weights, self.n_jobs = bound, data, row_weights, n_jobs
        try:
            self._plan: Plan | None = Plan(bound, data)
            self._gathered = self._plan.gathered(row_weights)
        except NotLinear:
            self._plan = None

    @property
    def n_rows(self) -> int:
        """See `Pass`."""
        return self.data.n_rows

    @property
    def largest_weight(self) -> float:
        """See `Pass`."""
        return float(self.row_weights.max(initial=0.0))

    @property
    def nbytes(self) -> int:
        """Memory that the rows take."""
        if self._plan is None:
            return _nbytes(self.data)
        return sum(array.nbytes for array in self._plan.arrays().values()) + self._gathered.nbytes

    def drop_rows(self) -> None:
        """Let go of the encoded rows, where passes do not need them, and of the memory that these work in."""
        if self._plan is not None:
            self._plan.drop_room()
            self.data, self.row_weights = self.data.take(np.empty(0, int)), np.empty(0)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Encoded, np.ndarray] | None:
        """See `Pass.sample`."""
        rows = np.sort(rng.choice(self.n_rows, size, replace=False))
        weights = weights_of_sample(self.row_weights[rows], self.row_weights.sum(), size / self.n_rows)
        return None if weights is None else (self.data.take(rows), weights)

    def rows(self, params: Params) -> np.ndarray:
        """Log density of every row, (N,), labels summed out."""
        with np.errstate(all="ignore"):
            if self._plan is None:
                return self.bound.log_density(params, self.data)
            return self._plan.run(self._plan.natural(params), np.empty(0), down=False, n_jobs=self.n_jobs)[0]

    def __call__(self, params: Params) -> tuple[float, Stats]:
        """Log-likelihood and expected statistics."""
        if self._plan is None:
            return self.bound.e_step(params, self.data, self.row_weights)
        with np.errstate(all="ignore"):
            natural = self._plan.natural(params)
        loglik, flat = self._plan.total(natural, self._gathered, n_jobs=self.n_jobs)
        return loglik, self._plan.statistics(flat)


def weights_of_sample(weights: np.ndarray, total: float, share: float) -> np.ndarray | None:
    """Weights of a sample's rows, made to add up to `total`; None where a few of all rows have most of the weight."""
    own = weights.sum()
    return weights * (total / own) if own > 0.5 * share * total else None


def _nbytes(data: Encoded) -> int:
    arrays = sum(array.nbytes for array in data.arrays.values())
    return arrays + sum(map(_nbytes, data.children)) + (0 if data.present is None else data.present.nbytes)


def _aligned(size: int) -> np.ndarray:
    """Zeros that begin with a line of the cache."""
    room = np.zeros(size + _LINE)
    first = -(room.ctypes.data // room.itemsize) % _LINE
    return room[first : first + size]


def _columns(room: np.ndarray, at: int, stride: int, width: int) -> np.ndarray:
    """Where columns stand, as (width, stride)."""
    return room[at : at + stride * width].reshape(width, stride)


def _is_dense(value: Any) -> bool:
    """Whether a statistic becomes columns."""
    if isinstance(value, OneHot):
        return False
    if isinstance(value, SparseRows):
        return not value.mostly_zero
    if isinstance(value, Products):
        return True
    array = np.asarray(value)
    return bool(array.ndim == 1 or array.shape[1] <= 8 or np.count_nonzero(array) >= 0.2 * array.size)


def _flat(array: np.ndarray) -> np.ndarray:
    """An array (N, ...) as a matrix, N of 0 included."""
    return array.reshape(len(array), int(np.prod(array.shape[1:], dtype=int)))


def _matrix(value: Any, data: Encoded, indptr: np.ndarray | None, width: int) -> np.ndarray:
    """Statistics as columns (N, width), zero where a cell is missing; with `indptr` the sums of each row's elements."""
    if indptr is not None and isinstance(value, Products):  # one product at a time
        bases = _flat(data.full(value.base, 0.0))
        return np.column_stack([_sums(bases[:, a] * bases[:, b], indptr) for a, b in value.pairs()])
    array = np.asarray(data.full(np.asarray(value), 0), float)
    array = array.reshape(len(array), -1) if len(array) else np.zeros((0, width))
    return array if indptr is None else _sums(array, indptr)


def _sums(values: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Sums over the elements of each row: (N, ...) of (T, ...)."""
    out = np.zeros((len(indptr) - 1, *values.shape[1:]))
    filled = np.diff(indptr) > 0
    if filled.any():
        out[filled] = np.add.reduceat(values, indptr[:-1][filled], axis=0)
    return out


def _blocks(levels: list[tuple[int, np.ndarray]], n_rows: int) -> np.ndarray:
    """Rows at which blocks begin, the end included: none has many more elements than the mean block."""
    total = len(levels[0][1]) - 1
    even = np.append(np.arange(0, total, n_rows), total) if total else np.zeros(1, int)
    direct = [indptr for above, indptr in levels[1:] if above == 0 and len(indptr) == total + 1]
    if not direct or total == 0:
        return even
    cost = np.arange(total + 1) + sum(direct)
    most = 2 * cost[-1] * n_rows / total
    found = [0]
    while found[-1] < total:
        begin = found[-1]
        far = int(np.searchsorted(cost, cost[begin] + most, side="right")) - 1
        found.append(min(begin + n_rows, max(far, begin + 1), total))
    return np.array(found)
