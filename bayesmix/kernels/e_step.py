"""One pass over the rows: log densities up the tree, responsibilities and statistics down it, block by block.

A spec is compiled to a short list of instructions over buffers (`bayesmix.plan` writes it); this one function, compiled
once on a machine, runs any of them. A buffer holds the log densities of one site for the rows of a block, components
first, so that every inner loop runs along the rows of a block and stays in the cache. Natural parameters and statistics
are flat vectors of one layout: the log density of a family is their product, and so its gradient is the statistics.

An instruction is a row of integers: its kind, the level whose rows it runs over, the place of its buffer in ``work``
and ``resp``, the buffer's number of columns K, and

=========  ====================================  =========================================================
kind       entries 4, 5, …                       up; down
=========  ====================================  =========================================================
DENSE      first, table, columns, rows, starts   add columns of statistics times natural parameters;
                                                 statistics. A column is five ``ints``: its kind, where it
                                                 (and the other factor of a product) stands in ``floats``,
                                                 where its natural parameter stands, and the stride from
                                                 one component's to the next's. ``rows`` (or -1) lists the
                                                 rows that take part, ``starts`` where each block's begin
ONE_HOT    first, symbols, size, at              add the symbol's natural parameter; counts. -1 is none
SPARSE     first, indptr, indices, values,       the same as DENSE for rows that are mostly zeros
           size, at
SUM        first, sources                        add the columns that stand at ``ints[sources:]``;
                                                 responsibilities to them
SEGMENTS   first, sources, below, indptr         add their sums over each row's elements, of level
                                                 ``below``; each element has its row's responsibilities
MIXTURE    size, sources, joint, at              log-sum-exp of sources plus log weights, probabilities
                                                 to ``joint``; responsibilities times probabilities
MASK       0, gone                               nothing; no responsibilities for rows with a 1
=========  ====================================  =========================================================

``first`` is 1 where the instruction is the first to write to its buffer. Down, the list is run backwards.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from bayesmix.kernels.log_sum_exp import exp_in_place

#: Kinds of instructions.
DENSE, ONE_HOT, SPARSE, SUM, SEGMENTS, MIXTURE, MASK = range(7)
#: Kinds of columns of a DENSE instruction.
CONSTANT, COLUMN, PRODUCT = range(3)
#: Entries that an instruction has room for.
WIDTH = 14

_jit = nb.njit(error_model="numpy", nogil=True, cache=True)
# sums may be reordered here, so that they vectorise; nothing in them is infinite
_jit_sum = nb.njit(error_model="numpy", nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


@_jit_sum
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_jit_sum
def _total(a):
    total = 0.0
    for i in range(a.size):
        total += a[i]
    return total


@_jit
def _add(target, factor, values):
    for i in range(target.size):
        target[i] += factor * values[i]


@_jit
def _column(kind, first, second, floats, begin, end, scratch):
    """A statistic of the rows `begin` to `end`."""
    if kind == COLUMN:
        return floats[first + begin : first + end]
    a, b, out = floats[first + begin : first + end], floats[second + begin : second + end], scratch[: end - begin]
    for i in range(end - begin):
        out[i] = a[i] * b[i]
    return out


@_jit
def _mixture_up(op, ints, nat, density, cap, n, peaks, totals, powers):
    """Log-sum-exp over the components of a mixture; its joint buffer is left with their probabilities."""
    out, n_around, size, sources, joint, weights = op[2], op[3], op[4], op[5], op[6], op[7]
    for k in range(n_around):
        peak = peaks[:n]
        for g in range(size):
            at = k * size + g
            source = ints[sources + at]
            values, own = density[source : source + n], density[joint + at * cap : joint + at * cap + n]
            log_weight = nat[weights + at]
            if g == 0:
                for r in range(n):
                    own[r] = values[r] + log_weight
                    peak[r] = own[r]
            else:
                for r in range(n):
                    own[r] = values[r] + log_weight
                    peak[r] = own[r] if own[r] > peak[r] or np.isnan(own[r]) else peak[r]
        for r in range(n):
            peak[r] = 0.0 if peak[r] == -np.inf else peak[r]
        total = totals[:n]
        for r in range(n):
            total[r] = 0.0
        for g in range(size):
            own = density[joint + (k * size + g) * cap : joint + (k * size + g) * cap + n]
            for r in range(n):
                own[r] -= peak[r]
            exp_in_place(own, powers)
            for r in range(n):
                total[r] += own[r]
        result = density[out + k * cap : out + k * cap + n]
        for r in range(n):
            result[r] = peak[r] + np.log(total[r])
            total[r] = 1.0 / total[r] if total[r] != 0.0 else 0.0
        for g in range(size):
            own = density[joint + (k * size + g) * cap : joint + (k * size + g) * cap + n]
            for r in range(n):
                own[r] *= total[r]


@_jit
def e_step(code, ints, floats, nat, weights, bounds, caps, root, first, last, work, resp, rows, stats, down):
    """Blocks `first` to `last`: fills `rows` (N,) with log densities and adds to `stats`, laid out as `nat`.

    Parameters
    ----------
    code : ndarray of int, shape (n_instructions, WIDTH)
    ints, floats : ndarray
        Symbols, row numbers and tables; statistics, column by column.
    nat : ndarray
        Natural parameters.
    weights : ndarray, shape (N,)
        Of the rows, in the statistics.
    bounds : ndarray of int, shape (n_levels, n_blocks + 1)
        Where blocks begin: among the rows (level 0), and among the elements of each sequence.
    caps : ndarray of int, shape (n_levels,)
        Rows of the largest block.
    root : int
        Buffer of the root.
    work, resp : ndarray
        Densities and responsibilities of a block.
    down : bool
        Whether to find statistics too.
    """
    most = caps.max()
    scratch, peaks, totals = np.empty(most), np.empty(most), np.empty(most)
    powers = np.empty(most, np.int64)
    for block in range(first, last):
        for i in range(code.shape[0]):
            op = code[i]
            kind, level, out, n_components = op[0], op[1], op[2], op[3]
            cap, begin, end = caps[level], bounds[level, block], bounds[level, block + 1]
            n = end - begin
            if kind == MIXTURE:
                _mixture_up(op, ints, nat, work, cap, n, peaks, totals, powers)
                continue
            if kind == MASK:
                continue
            if op[4] == 1:
                for k in range(n_components):
                    work[out + k * cap : out + k * cap + n] = 0.0
            if kind == DENSE:
                table, n_columns, subset, starts = op[5], op[6], op[7], op[8]
                if subset >= 0:
                    low, high = ints[starts + block], ints[starts + block + 1]
                else:
                    low, high = begin, end
                for c in range(n_columns):
                    what = ints[table + 5 * c]
                    at, stride = ints[table + 5 * c + 3], ints[table + 5 * c + 4]
                    if what != CONSTANT:
                        values = _column(
                            what, ints[table + 5 * c + 1], ints[table + 5 * c + 2], floats, low, high, scratch
                        )
                    for k in range(n_components):
                        factor = nat[at + k * stride]
                        target = work[out + k * cap : out + k * cap + n]
                        if subset >= 0:
                            for p in range(high - low):
                                x = 1.0 if what == CONSTANT else values[p]
                                target[ints[subset + low + p] - begin] += factor * x
                        elif what == CONSTANT:
                            for r in range(n):
                                target[r] += factor
                        else:
                            _add(target, factor, values)
            elif kind == ONE_HOT:
                symbols, size, at = op[5], op[6], op[7]
                for k in range(n_components):
                    target = work[out + k * cap : out + k * cap + n]
                    table_ = nat[at + k * size : at + (k + 1) * size]
                    for r in range(n):
                        symbol = ints[symbols + begin + r]
                        if symbol >= 0:
                            target[r] += table_[symbol]
            elif kind == SPARSE:
                indptr, indices, values_at, size, at = op[5], op[6], op[7], op[8], op[9]
                for k in range(n_components):
                    target = work[out + k * cap : out + k * cap + n]
                    table_ = nat[at + k * size : at + (k + 1) * size]
                    for r in range(n):
                        total = 0.0
                        for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                            total += floats[values_at + e] * table_[ints[indices + e]]
                        target[r] += total
            elif kind == SUM:
                sources = op[5]
                for k in range(n_components):
                    source = ints[sources + k]
                    _add(work[out + k * cap : out + k * cap + n], 1.0, work[source : source + n])
            elif kind == SEGMENTS:
                sources, below, indptr = op[5], op[6], op[7]
                offset = bounds[below, block]
                for k in range(n_components):
                    source = ints[sources + k]
                    target = work[out + k * cap : out + k * cap + n]
                    for r in range(n):
                        total = 0.0
                        for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                            total += work[source + e - offset]
                        target[r] += total
        begin, end = bounds[0, block], bounds[0, block + 1]
        for r in range(end - begin):
            value = work[root + r]
            rows[begin + r] = -np.inf if np.isnan(value) else value
        if not down:
            continue
        resp[:] = 0.0
        resp[root : root + end - begin] = weights[begin:end]
        for i in range(code.shape[0] - 1, -1, -1):
            op = code[i]
            kind, level, out, n_components = op[0], op[1], op[2], op[3]
            cap, begin, end = caps[level], bounds[level, block], bounds[level, block + 1]
            n = end - begin
            if kind == MIXTURE:
                size, sources, joint, at = op[4], op[5], op[6], op[7]
                for k in range(n_components):
                    around = resp[out + k * cap : out + k * cap + n]
                    for g in range(size):
                        own = work[joint + (k * size + g) * cap : joint + (k * size + g) * cap + n]
                        source = ints[sources + k * size + g]
                        target, product = resp[source : source + n], scratch[:n]
                        for r in range(n):
                            product[r] = around[r] * own[r]
                            target[r] += product[r]
                        stats[at + k * size + g] += _total(product)
            elif kind == DENSE:
                table, n_columns, subset, starts = op[5], op[6], op[7], op[8]
                if subset >= 0:
                    low, high = ints[starts + block], ints[starts + block + 1]
                else:
                    low, high = begin, end
                for c in range(n_columns):
                    what = ints[table + 5 * c]
                    at, stride = ints[table + 5 * c + 3], ints[table + 5 * c + 4]
                    if what != CONSTANT:
                        values = _column(
                            what, ints[table + 5 * c + 1], ints[table + 5 * c + 2], floats, low, high, scratch
                        )
                    for k in range(n_components):
                        own = resp[out + k * cap : out + k * cap + n]
                        if subset >= 0:
                            total = 0.0
                            for p in range(high - low):
                                x = 1.0 if what == CONSTANT else values[p]
                                total += own[ints[subset + low + p] - begin] * x
                            stats[at + k * stride] += total
                        elif what == CONSTANT:
                            stats[at + k * stride] += _total(own)
                        else:
                            stats[at + k * stride] += _dot(own, values)
            elif kind == ONE_HOT:
                symbols, size, at = op[5], op[6], op[7]
                for k in range(n_components):
                    own = resp[out + k * cap : out + k * cap + n]
                    for r in range(n):
                        symbol = ints[symbols + begin + r]
                        if symbol >= 0:
                            stats[at + k * size + symbol] += own[r]
            elif kind == SPARSE:
                indptr, indices, values_at, size, at = op[5], op[6], op[7], op[8], op[9]
                for k in range(n_components):
                    own = resp[out + k * cap : out + k * cap + n]
                    for r in range(n):
                        for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                            stats[at + k * size + ints[indices + e]] += own[r] * floats[values_at + e]
            elif kind == SUM:
                sources = op[5]
                for k in range(n_components):
                    source = ints[sources + k]
                    _add(resp[source : source + n], 1.0, resp[out + k * cap : out + k * cap + n])
            elif kind == SEGMENTS:
                sources, below, indptr = op[5], op[6], op[7]
                offset = bounds[below, block]
                for k in range(n_components):
                    source = ints[sources + k]
                    own = resp[out + k * cap : out + k * cap + n]
                    for r in range(n):
                        for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                            resp[source + e - offset] += own[r]
            elif kind == MASK:
                gone = op[5]
                for k in range(n_components):
                    own = resp[out + k * cap : out + k * cap + n]
                    for r in range(n):
                        if ints[gone + begin + r] == 1:
                            own[r] = 0.0
