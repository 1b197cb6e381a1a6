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
DENSE      first, table, constants, columns,     add columns of statistics times natural parameters;
           products                              statistics. The table has four numbers a column: where it
                                                 and the other factor of a product stand in ``floats``,
                                                 where its natural parameter stands, and the stride from
                                                 one component's to the next's
ONE_HOT    first, symbols, size, at              add the symbol's natural parameter; counts. 0 is none
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

Inner loops are functions of their own, over slices that are given to them: that is what lets them vectorise. None has
more than eight pairs of arrays of which one is written, the number up to which LLVM checks at run time that they
differ. They go on a few rows beyond the block, over what stands next in the data, and what they find there has no
weight.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from bayesmix.kernels.log_sum_exp import exp, log_and_inverse

#: Kinds of instructions. All start with (kind, level, buffer, K).
DENSE, ONE_HOT, SPARSE, SUM, SEGMENTS, MIXTURE, MASK, FUSED = range(8)
#: Entries of an instruction.
WIDTH = 14
#: Buffers end on a multiple of so many rows: loops run over that many, so that none ends in single steps.
ROUND = 32
#: Symbols up to which one-hot statistics are sums under a mask, which vectorise.
_FEW = 16

_jit = nb.njit(error_model="numpy", nogil=True, cache=True, fastmath={"contract"})
# sums may be reordered here, so that they vectorise; -inf and NaN come through
_jit_sum = nb.njit(error_model="numpy", nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


@intrinsic
def _part(typing, array, first, size):
    """``array[first : first + size]``, without a reference to count: a slice of numba's costs 20 ns, a loop as much."""

    def generate(context, builder, signature, arguments):
        kind = signature.return_type
        whole = make_array(kind)(context, builder, arguments[0])
        part = make_array(kind)(context, builder)
        width = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        data = builder.gep(whole.data, [arguments[1]])
        populate_array(part, data=data, shape=[arguments[2]], strides=[width], itemsize=width, meminfo=None)
        return part._getvalue()

    return array(array, types.intp, types.intp), generate


# ------------------------------------------------------------ loops along the rows of a block


@_jit_sum
def _total(a):
    total = 0.0
    for i in range(a.size):
        total += a[i]
    return total


@_jit_sum
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_jit_sum
def _dots_2(own, a, b):
    x, y = 0.0, 0.0
    for i in range(own.size):
        x += own[i] * a[i]
        y += own[i] * b[i]
    return x, y


@_jit_sum
def _dots_4(own, a, b, c, d):
    w, x, y, z = 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        w += own[i] * a[i]
        x += own[i] * b[i]
        y += own[i] * c[i]
        z += own[i] * d[i]
    return w, x, y, z


@_jit_sum
def _dots_8(own, a, b, c, d, e, f, g, h):
    s, t, u, v, w, x, y, z = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        s += own[i] * a[i]
        t += own[i] * b[i]
        u += own[i] * c[i]
        v += own[i] * d[i]
        w += own[i] * e[i]
        x += own[i] * f[i]
        y += own[i] * g[i]
        z += own[i] * h[i]
    return s, t, u, v, w, x, y, z


@_jit_sum
def _sums_of_4(own, symbols, first):
    w, x, y, z = 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        symbol = symbols[i] - first
        w += own[i] if symbol == 0 else 0.0
        x += own[i] if symbol == 1 else 0.0
        y += own[i] if symbol == 2 else 0.0
        z += own[i] if symbol == 3 else 0.0
    return w, x, y, z


@_jit
def _fill(target, value):
    for i in range(target.size):
        target[i] = value


@_jit
def _copy(target, values):
    for i in range(target.size):
        target[i] = values[i]


@_jit
def _without_nan(values):
    for i in range(values.size):
        values[i] = values[i] if values[i] == values[i] else -np.inf


@_jit
def _shift(target, value):
    for i in range(target.size):
        target[i] += value


@_jit
def _add(target, values):
    for i in range(target.size):
        target[i] += values[i]


@_jit
def _multiply(out, a, b):
    for i in range(out.size):
        out[i] = a[i] * b[i]


@_jit
def _add_1(target, u, a):
    for i in range(target.size):
        target[i] += u * a[i]


@_jit
def _add_2(target, u, a, v, b):
    for i in range(target.size):
        target[i] += u * a[i] + v * b[i]


@_jit
def _set_2(target, start, u, a, v, b):
    for i in range(target.size):
        target[i] = start + u * a[i] + v * b[i]


@_jit
def _set_2_first(target, peak, start, u, a, v, b):
    for i in range(target.size):
        value = start + u * a[i] + v * b[i]
        target[i] = value
        peak[i] = value


@_jit
def _set_2_next(target, peak, start, u, a, v, b):
    for i in range(target.size):
        value = start + u * a[i] + v * b[i]
        target[i] = value
        peak[i] = value if value > peak[i] else peak[i]


@_jit
def _add_4(target, factors, a, b, c, d):
    w, x, y, z = factors[0], factors[1], factors[2], factors[3]
    for i in range(target.size):
        target[i] += w * a[i] + x * b[i] + y * c[i] + z * d[i]


@_jit
def _add_8(target, factors, a, b, c, d, e, f, g, h):
    s, t, u, v = factors[0], factors[1], factors[2], factors[3]
    w, x, y, z = factors[4], factors[5], factors[6], factors[7]
    for i in range(target.size):
        first = s * a[i] + t * b[i] + u * c[i] + v * d[i]
        target[i] += first + (w * e[i] + x * f[i] + y * g[i] + z * h[i])


@_jit
def _gather(target, table, symbols):
    for i in range(target.size):
        target[i] += table[np.uintp(symbols[i])]


@_jit
def _scatter(table, symbols, values):
    for i in range(values.size):
        table[np.uintp(symbols[i])] += values[i]


@_jit
def _peak_first(peak, values, shift):
    for i in range(peak.size):
        peak[i] = values[i] + shift


@_jit
def _peak_next(peak, values, shift):
    for i in range(peak.size):
        value = values[i] + shift
        peak[i] = value if value > peak[i] else peak[i]


@_jit
def _exp_in_place(values, shift, peak, total):
    for i in range(values.size):
        found = exp(values[i] + shift - peak[i])
        values[i] = found
        total[i] += found


@_jit
def _exp_into(out, values, shift, peak, total):
    for i in range(out.size):
        found = exp(values[i] + shift - peak[i])
        out[i] = found
        total[i] += found


@_jit
def _clear(peak, total):
    """Before exponentials are summed; a peak that excludes the row must not be subtracted from itself."""
    for i in range(peak.size):
        peak[i] = 0.0 if peak[i] == -np.inf else peak[i]
        total[i] = 0.0


@_jit
def _log_sum(result, inverse, peak, total):
    """The sum is at least 1, the peak's own term, or 0 where every component excludes the row, or NaN."""
    for i in range(result.size):
        empty = total[i] == 0.0
        found, quotient = log_and_inverse(1.0 if empty else total[i])
        result[i] = -np.inf if empty else peak[i] + found
        inverse[i] = 0.0 if empty else quotient


@_jit
def _pair(a, b, shift_a, shift_b, peak, total):
    """Peak, terms and their sum for two components, in place: one exponential, because the peak's own term is 1."""
    for i in range(a.size):
        x, y = a[i] + shift_a, b[i] + shift_b
        gap = x - y
        lower = gap < 0.0
        top = y if lower else x
        other = exp(gap if lower else -gap)
        empty = top == -np.inf
        other = 0.0 if empty else other
        peak[i] = top
        total[i] = 0.0 if empty else 1.0 + other
        a[i] = other if lower else 1.0
        b[i] = 1.0 if lower else other


@_jit_sum
def _share(target, around, own):
    """Give a component its part of the responsibilities around it; the sum of that."""
    total = 0.0
    for i in range(target.size):
        value = around[i] * own[i]
        target[i] += value
        total += value
    return total


@_jit_sum
def _share_2(around, own, a, b):
    """Sums of a component's responsibilities, and of their products with two columns."""
    total, x, y = 0.0, 0.0, 0.0
    for i in range(own.size):
        value = around[i] * own[i]
        total += value
        x += value * a[i]
        y += value * b[i]
    return total, x, y


# ------------------------------------------------------------ instructions


@_jit
def _column(c, op, ints, floats, products, begin, cap, n):
    """Column c of a DENSE instruction in the rows of a block: from the data, or from the block's products."""
    n_columns = op[7]
    if c < n_columns:
        first = ints[op[5] + 4 * (op[6] + c)] + begin
        return _part(floats, first, n)
    return _part(products, (c - n_columns) * cap, n)


@_jit
def _form_products(op, ints, floats, products, begin, cap, n):
    """The products of columns that a DENSE instruction asks for, once for all components."""
    for j in range(op[8]):
        entry = op[5] + 4 * (op[6] + op[7] + j)
        a, b = ints[entry] + begin, ints[entry + 1] + begin
        _multiply(_part(products, j * cap, n), _part(floats, a, n), _part(floats, b, n))


@_jit
def _dense_up(op, ints, floats, products, nat, work, begin, cap, n, factors):
    out, n_components, fresh, table, n_constants = op[2], op[3], op[4], op[5], op[6]
    n_columns = op[7] + op[8]
    entries = table + 4 * n_constants
    for k in range(n_components):
        start = 0.0
        for c in range(n_constants):
            start += nat[ints[table + 4 * c + 2] + k * ints[table + 4 * c + 3]]
        target = _part(work, out + k * cap, n)
        c = 0
        if fresh == 1 and n_columns >= 2:
            u = nat[ints[entries + 2] + k * ints[entries + 3]]
            v = nat[ints[entries + 6] + k * ints[entries + 7]]
            first = _column(0, op, ints, floats, products, begin, cap, n)
            _set_2(target, start, u, first, v, _column(1, op, ints, floats, products, begin, cap, n))
            c = 2
        elif fresh == 1:
            _fill(target, start)
        elif n_constants > 0:
            _shift(target, start)
        while c < n_columns:
            left = n_columns - c
            size = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
            for i in range(size):
                factors[i] = nat[ints[entries + 4 * (c + i) + 2] + k * ints[entries + 4 * (c + i) + 3]]
            first = _column(c, op, ints, floats, products, begin, cap, n)
            if size == 8:
                _add_8(
                    target,
                    factors,
                    first,
                    _column(c + 1, op, ints, floats, products, begin, cap, n),
                    _column(c + 2, op, ints, floats, products, begin, cap, n),
                    _column(c + 3, op, ints, floats, products, begin, cap, n),
                    _column(c + 4, op, ints, floats, products, begin, cap, n),
                    _column(c + 5, op, ints, floats, products, begin, cap, n),
                    _column(c + 6, op, ints, floats, products, begin, cap, n),
                    _column(c + 7, op, ints, floats, products, begin, cap, n),
                )
            elif size == 4:
                _add_4(
                    target,
                    factors,
                    first,
                    _column(c + 1, op, ints, floats, products, begin, cap, n),
                    _column(c + 2, op, ints, floats, products, begin, cap, n),
                    _column(c + 3, op, ints, floats, products, begin, cap, n),
                )
            elif size == 2:
                second = _column(c + 1, op, ints, floats, products, begin, cap, n)
                _add_2(target, factors[0], first, factors[1], second)
            else:
                _add_1(target, factors[0], first)
            c += size


@_jit
def _dense_down(op, ints, floats, products, resp, stats, begin, cap, n, factors):
    out, n_components, table, n_constants, n_columns = op[2], op[3], op[5], op[6], op[7] + op[8]
    entries = table + 4 * n_constants
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        if n_constants > 0:
            total = _total(own)
            for c in range(n_constants):
                stats[ints[table + 4 * c + 2] + k * ints[table + 4 * c + 3]] += total
        c = 0
        while c < n_columns:
            left = n_columns - c
            size = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
            first = _column(c, op, ints, floats, products, begin, cap, n)
            if size == 8:
                found = _dots_8(
                    own,
                    first,
                    _column(c + 1, op, ints, floats, products, begin, cap, n),
                    _column(c + 2, op, ints, floats, products, begin, cap, n),
                    _column(c + 3, op, ints, floats, products, begin, cap, n),
                    _column(c + 4, op, ints, floats, products, begin, cap, n),
                    _column(c + 5, op, ints, floats, products, begin, cap, n),
                    _column(c + 6, op, ints, floats, products, begin, cap, n),
                    _column(c + 7, op, ints, floats, products, begin, cap, n),
                )
                for i in range(8):
                    factors[i] = found[i]
            elif size == 4:
                four = _dots_4(
                    own,
                    first,
                    _column(c + 1, op, ints, floats, products, begin, cap, n),
                    _column(c + 2, op, ints, floats, products, begin, cap, n),
                    _column(c + 3, op, ints, floats, products, begin, cap, n),
                )
                for i in range(4):
                    factors[i] = four[i]
            elif size == 2:
                second = _column(c + 1, op, ints, floats, products, begin, cap, n)
                factors[0], factors[1] = _dots_2(own, first, second)
            else:
                factors[0] = _dot(own, first)
            for i in range(size):
                stats[ints[entries + 4 * (c + i) + 2] + k * ints[entries + 4 * (c + i) + 3]] += factors[i]
            c += size


@_jit
def _one_hot_up(op, ints, nat, work, begin, cap, n):
    out, n_components, symbols_at, size, at = op[2], op[3], op[5], op[6], op[7]
    symbols = _part(ints, symbols_at + begin, n)
    table = np.zeros(size + 1)  # no symbol comes first
    for k in range(n_components):
        _copy(table[1:], _part(nat, at + k * size, size))
        _gather(_part(work, out + k * cap, n), table, symbols)


@_jit
def _one_hot_down(op, ints, resp, stats, begin, cap, n):
    out, n_components, symbols_at, size, at = op[2], op[3], op[5], op[6], op[7]
    symbols = _part(ints, symbols_at + begin, n)
    table = np.zeros(size + 1)
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        if size <= _FEW:
            for first in range(0, size, 4):
                found = _sums_of_4(own, symbols, first + 1)
                for i in range(min(4, size - first)):
                    stats[at + k * size + first + i] += found[i]
        else:
            _fill(table, 0.0)
            _scatter(table, symbols, own)
            for s in range(size):
                stats[at + k * size + s] += table[s + 1]


@_jit
def _sparse_up(op, ints, floats, nat, work, begin, cap, n):
    out, n_components, indptr, indices, values_at, size, at = op[2], op[3], op[5], op[6], op[7], op[8], op[9]
    for k in range(n_components):
        target = _part(work, out + k * cap, n)
        table = _part(nat, at + k * size, size)
        for r in range(n):
            total = 0.0
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                total += floats[values_at + e] * table[ints[indices + e]]
            target[r] += total


@_jit
def _sparse_down(op, ints, floats, resp, stats, begin, cap, n):
    out, n_components, indptr, indices, values_at, size, at = op[2], op[3], op[5], op[6], op[7], op[8], op[9]
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        table = _part(stats, at + k * size, size)
        for r in range(n):
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                table[ints[indices + e]] += own[r] * floats[values_at + e]


@_jit
def _segments_up(op, ints, work, begin, cap, n, offset):
    out, n_components, sources, indptr = op[2], op[3], op[5], op[7]
    for k in range(n_components):
        source = ints[sources + k] - offset
        target = _part(work, out + k * cap, n)
        for r in range(n):
            total = 0.0
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                total += work[source + e]
            target[r] += total


@_jit
def _segments_down(op, ints, resp, begin, cap, n, offset):
    out, n_components, sources, indptr = op[2], op[3], op[5], op[7]
    for k in range(n_components):
        source = ints[sources + k] - offset
        own = _part(resp, out + k * cap, n)
        for r in range(n):
            value = own[r]
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                resp[source + e] += value


@_jit
def _mixture_up(op, ints, nat, density, cap, n, peaks, totals):
    """Log-sum-exp over the components of a mixture; its joint buffer is left with their terms."""
    out, n_around, size, sources, joint, weights, inverses = op[2], op[3], op[4], op[5], op[6], op[7], op[8]
    peak, total = _part(peaks, 0, n), _part(totals, 0, n)
    for k in range(n_around):
        result, inverse = _part(density, out + k * cap, n), _part(density, inverses + k * cap, n)
        if size == 2:
            at, below = joint + 2 * k * cap, sources + 2 * k
            a, b = _part(density, at, n), _part(density, at + cap, n)
            if at != ints[below]:
                _copy(a, _part(density, ints[below], n))
                _copy(b, _part(density, ints[below + 1], n))
            _pair(a, b, nat[weights + 2 * k], nat[weights + 2 * k + 1], peak, total)
            _log_sum(result, inverse, peak, total)
            continue
        for g in range(size):
            source = ints[sources + k * size + g]
            values = _part(density, source, n)
            if g == 0:
                _peak_first(peak, values, nat[weights + k * size])
            else:
                _peak_next(peak, values, nat[weights + k * size + g])
        _clear(peak, total)
        for g in range(size):
            at, source = joint + (k * size + g) * cap, ints[sources + k * size + g]
            own = _part(density, at, n)
            if at == source:
                _exp_in_place(own, nat[weights + k * size + g], peak, total)
            else:
                _exp_into(own, _part(density, source, n), nat[weights + k * size + g], peak, total)
        _log_sum(result, inverse, peak, total)


@_jit
def _mixture_down(op, ints, work, resp, stats, cap, n, scaled):
    out, n_around, size, sources, joint, at, inverses = op[2], op[3], op[4], op[5], op[6], op[7], op[8]
    around = _part(scaled, 0, n)
    for k in range(n_around):
        inverse = _part(work, inverses + k * cap, n)
        _multiply(around, _part(resp, out + k * cap, n), inverse)
        for g in range(size):
            own = _part(work, joint + (k * size + g) * cap, n)
            source = ints[sources + k * size + g]
            stats[at + k * size + g] += _share(_part(resp, source, n), around, own)


@_jit
def _fused_up(op, leaf, ints, floats, products, nat, work, begin, cap, n, peaks, totals):
    """A mixture of a family with two columns: its densities are found and compared in one go."""
    out, n_around, size, joint, weights, inverses = op[2], op[3], op[4], op[6], op[7], op[8]
    table, n_constants = leaf[5], leaf[6]
    entries = table + 4 * n_constants
    peak, total = _part(peaks, 0, n), _part(totals, 0, n)
    _form_products(leaf, ints, floats, products, begin, cap, n)
    a, b = (
        _column(0, leaf, ints, floats, products, begin, cap, n),
        _column(1, leaf, ints, floats, products, begin, cap, n),
    )
    for k in range(n_around):
        for g in range(size):
            at = k * size + g
            start = nat[weights + at]
            for c in range(n_constants):
                start += nat[ints[table + 4 * c + 2] + at * ints[table + 4 * c + 3]]
            u, v = nat[ints[entries + 2] + at * ints[entries + 3]], nat[ints[entries + 6] + at * ints[entries + 7]]
            target = _part(work, joint + at * cap, n)
            if size == 2:
                _set_2(target, start, u, a, v, b)
            elif g == 0:
                _set_2_first(target, peak, start, u, a, v, b)
            else:
                _set_2_next(target, peak, start, u, a, v, b)
        first = joint + k * size * cap
        if size == 2:
            _pair(_part(work, first, n), _part(work, first + cap, n), 0.0, 0.0, peak, total)
        else:
            _clear(peak, total)
            for g in range(size):
                _exp_in_place(_part(work, first + g * cap, n), 0.0, peak, total)
        _log_sum(_part(work, out + k * cap, n), _part(work, inverses + k * cap, n), peak, total)


@_jit
def _fused_down(op, leaf, ints, floats, products, work, resp, stats, begin, cap, n, scaled):
    out, n_around, size, joint, at_weights, inverses = op[2], op[3], op[4], op[6], op[7], op[8]
    table, n_constants = leaf[5], leaf[6]
    entries = table + 4 * n_constants
    around = _part(scaled, 0, n)
    _form_products(leaf, ints, floats, products, begin, cap, n)
    a, b = (
        _column(0, leaf, ints, floats, products, begin, cap, n),
        _column(1, leaf, ints, floats, products, begin, cap, n),
    )
    for k in range(n_around):
        _multiply(around, _part(resp, out + k * cap, n), _part(work, inverses + k * cap, n))
        for g in range(size):
            at = k * size + g
            total, x, y = _share_2(around, _part(work, joint + at * cap, n), a, b)
            stats[at_weights + at] += total
            for c in range(n_constants):
                stats[ints[table + 4 * c + 2] + at * ints[table + 4 * c + 3]] += total
            stats[ints[entries + 2] + at * ints[entries + 3]] += x
            stats[ints[entries + 6] + at * ints[entries + 7]] += y


@_jit
def e_step(
    code, ints, floats, nat, weights, bounds, caps, room, used, root, first, last, work, resp, rows, stats, down
):
    """Blocks `first` to `last`: adds to `stats`, laid out as `nat`; returns the weighted sum of log densities.

    Parameters
    ----------
    code : ndarray of int, shape (n_instructions, WIDTH)
    ints, floats : ndarray
        Symbols, row numbers and tables; statistics, column by column.
    nat : ndarray
        Natural parameters.
    weights : ndarray, shape (N,) or (0,)
        Of the rows, in the sum and the statistics; empty where all are 1.
    bounds : ndarray of int, shape (n_levels, n_blocks + 1)
        Where blocks begin: among the rows (level 0), and among the elements of each sequence.
    caps : ndarray of int, shape (n_levels,)
        Rows of the largest block.
    room : int
        Numbers that a block's products of columns take.
    used : int
        Numbers of a block in which responsibilities are kept; what follows them is for densities alone.
    root : int
        Buffer of the root.
    work, resp : ndarray
        Densities and responsibilities of a block.
    rows : ndarray, shape (N,) or (0,)
        Is filled with log densities, unless it is empty.
    down : bool
        Whether to find statistics too.
    """
    most = caps.max()
    peaks, totals, factors, products = np.empty(most), np.empty(most), np.empty(8), np.empty(room)
    loglik = 0.0
    for block in range(first, last):
        for i in range(code.shape[0]):
            op = code[i]
            kind, level, out, n_components = op[0], op[1], op[2], op[3]
            cap, begin = caps[level], bounds[level, block]
            size = bounds[level, block + 1] - begin
            n = min((size + ROUND - 1) // ROUND * ROUND, cap)  # those beyond the block have responsibility zero
            if kind == MIXTURE and op[9] > 0:
                leaf = code[op[9] - 1]
                _fused_up(op, leaf, ints, floats, products, nat, work, begin, cap, n, peaks, totals)
                continue
            if kind == MIXTURE:
                _mixture_up(op, ints, nat, work, cap, n, peaks, totals)
                continue
            if kind in (MASK, FUSED):
                continue
            if kind == DENSE:
                _form_products(op, ints, floats, products, begin, cap, n)
                _dense_up(op, ints, floats, products, nat, work, begin, cap, n, factors)
                continue
            if op[4] == 1:
                _fill(_part(work, out, n_components * cap), 0.0)
            if kind == ONE_HOT:
                _one_hot_up(op, ints, nat, work, begin, cap, n)
            elif kind == SPARSE:
                _sparse_up(op, ints, floats, nat, work, begin, cap, size)
            elif kind == SUM:
                for k in range(n_components):
                    source = ints[op[5] + k]
                    _add(_part(work, out + k * cap, n), _part(work, source, n))
            elif kind == SEGMENTS:
                _segments_up(op, ints, work, begin, cap, size, bounds[op[6], block])
        begin, end = bounds[0, block], bounds[0, block + 1]
        found = _part(work, root, end - begin)
        _without_nan(found)
        loglik += _total(found) if weights.size == 0 else _dot(_part(weights, begin, end - begin), found)
        if rows.size > 0:
            _copy(_part(rows, begin, end - begin), found)
        if not down:
            continue
        _fill(_part(resp, 0, used), 0.0)
        if weights.size == 0:
            _fill(_part(resp, root, end - begin), 1.0)
        else:
            _copy(_part(resp, root, end - begin), _part(weights, begin, end - begin))
        for i in range(code.shape[0] - 1, -1, -1):
            op = code[i]
            kind, level, out, n_components = op[0], op[1], op[2], op[3]
            cap, begin = caps[level], bounds[level, block]
            size = bounds[level, block + 1] - begin
            n = min((size + ROUND - 1) // ROUND * ROUND, cap)  # those beyond the block have responsibility zero
            if kind == MIXTURE and op[9] > 0:
                _fused_down(op, code[op[9] - 1], ints, floats, products, work, resp, stats, begin, cap, n, peaks)
            elif kind == MIXTURE:
                _mixture_down(op, ints, work, resp, stats, cap, n, peaks)
            elif kind == DENSE:
                _form_products(op, ints, floats, products, begin, cap, n)
                _dense_down(op, ints, floats, products, resp, stats, begin, cap, n, factors)
            elif kind == ONE_HOT:
                _one_hot_down(op, ints, resp, stats, begin, cap, n)
            elif kind == SPARSE:
                _sparse_down(op, ints, floats, resp, stats, begin, cap, size)
            elif kind == SUM:
                for k in range(n_components):
                    source = ints[op[5] + k]
                    _add(_part(resp, source, n), _part(resp, out + k * cap, n))
            elif kind == SEGMENTS:
                _segments_down(op, ints, resp, begin, cap, size, bounds[op[6], block])
            elif kind == MASK:
                for k in range(n_components):
                    own = _part(resp, out + k * cap, n)
                    for r in range(size):
                        if ints[op[5] + begin + r] == 1:
                            own[r] = 0.0
    return loglik
