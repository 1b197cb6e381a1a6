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
SPARSE     first, indptr, indices, values,       the same as DENSE for rows that are mostly zeros; values of
           size, at                              -1: all others are 1
SUM        first, sources                        add the columns that stand at ``ints[sources:]``;
                                                 responsibilities to them
SEGMENTS   first, sources, below, indptr         add their sums over each row's elements, of level
                                                 ``below``; each element has its row's responsibilities
MIXTURE    size, sources, joint, at, inverses,   log-sum-exp of sources plus log weights, probabilities
           leaf, first, carry, mode, carried,    to ``joint``; responsibilities times probabilities.
           limit                                 ``leaf``: the instruction that it does itself, from 1
LOG        0, carry                              add the logarithm of a factor; nothing
MASK       0, gone                               nothing; no responsibilities for rows with a 1
=========  ====================================  =========================================================

``first`` is 1 where the instruction is the first to write to its buffer. Down, the list is run backwards.

A mixture's log-sum-exp is a peak and a logarithm of a sum of at least 1. By `mode` the logarithm is added to the peak,
or the sum is kept as a factor of its own (``carry``), set or multiplied: a mixture around multiplies its exponentials
by the factor (``carried``), and so needs no logarithm, the slowest part. ``limit`` bounds the sum.

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

from bayesmix.kernels.log_sum_exp import bits, exp, log, log_and_inverse

#: Kinds of instructions. All start with (kind, level, buffer, K).
DENSE, ONE_HOT, SPARSE, SUM, SEGMENTS, MIXTURE, MASK, FUSED, LOG = range(9)
#: What a mixture does with the logarithms of its sums.
LOGS, SETS, MULTIPLIES = range(3)
#: Entries of an instruction.
WIDTH = 15
#: Buffers end on a multiple of so many rows: loops run over that many, so that none ends in single steps.
ROUND = 32
#: Symbols up to which one-hot statistics are sums under a mask, which vectorise.
_FEW = 4

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


# columns by where they stand in one array, not as arrays: passing nine arrays costs more than a block's arithmetic


@_jit_sum
def _dots_2(own, source, where, first):
    p, q = where[first], where[first + 1]
    x, y = 0.0, 0.0
    for i in range(own.size):
        j = np.uintp(i)
        x += own[j] * source[p + j]
        y += own[j] * source[q + j]
    return x, y


@_jit_sum
def _dots_4(own, source, where, first):
    p, q, r, s = where[first], where[first + 1], where[first + 2], where[first + 3]
    w, x, y, z = 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        j = np.uintp(i)
        w += own[j] * source[p + j]
        x += own[j] * source[q + j]
        y += own[j] * source[r + j]
        z += own[j] * source[s + j]
    return w, x, y, z


@_jit_sum
def _dots_8(own, source, where, first):
    p, q, r, s = where[first], where[first + 1], where[first + 2], where[first + 3]
    pp, qq, rr, ss = where[first + 4], where[first + 5], where[first + 6], where[first + 7]
    a, b, c, d, w, x, y, z = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        j = np.uintp(i)
        a += own[j] * source[p + j]
        b += own[j] * source[q + j]
        c += own[j] * source[r + j]
        d += own[j] * source[s + j]
        w += own[j] * source[pp + j]
        x += own[j] * source[qq + j]
        y += own[j] * source[rr + j]
        z += own[j] * source[ss + j]
    return a, b, c, d, w, x, y, z


@_jit_sum
def _sums_of_2(own, symbols, first):
    w, x = 0.0, 0.0
    for i in range(own.size):
        symbol = symbols[i] - first
        w += own[i] if symbol == 0 else 0.0
        x += own[i] if symbol == 1 else 0.0
    return w, x


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
def _set_1(target, start, u, source, where):
    p = where[0]
    for i in range(target.size):
        target[i] = start + u * source[p + np.uintp(i)]


@_jit
def _add_1(target, factors, source, where, first):
    p, u = where[first], factors[0]
    for i in range(target.size):
        target[i] += u * source[p + np.uintp(i)]


@_jit
def _add_2(target, factors, source, where, first):
    p, q = where[first], where[first + 1]
    u, v = factors[0], factors[1]
    for i in range(target.size):
        j = np.uintp(i)
        target[i] += u * source[p + j] + v * source[q + j]


@_jit
def _add_4(target, factors, source, where, first):
    p, q, r, s = where[first], where[first + 1], where[first + 2], where[first + 3]
    w, x, y, z = factors[0], factors[1], factors[2], factors[3]
    for i in range(target.size):
        j = np.uintp(i)
        target[i] += (w * source[p + j] + x * source[q + j]) + (y * source[r + j] + z * source[s + j])


@_jit
def _add_8(target, factors, source, where, first):
    p, q, r, s = where[first], where[first + 1], where[first + 2], where[first + 3]
    pp, qq, rr, ss = where[first + 4], where[first + 5], where[first + 6], where[first + 7]
    a, b, c, d = factors[0], factors[1], factors[2], factors[3]
    w, x, y, z = factors[4], factors[5], factors[6], factors[7]
    for i in range(target.size):
        j = np.uintp(i)
        one = (a * source[p + j] + b * source[q + j]) + (c * source[r + j] + d * source[s + j])
        two = (w * source[pp + j] + x * source[qq + j]) + (y * source[rr + j] + z * source[ss + j])
        target[i] += one + two


@_jit
def _set_two(target, peak, a, b, squared, start, u, v, first):
    """Densities of a component with two columns, the second perhaps the first one's square; the peak so far."""
    for i in range(target.size):
        other = a[i] * a[i] if squared else b[i]
        value = start + u * a[i] + v * other
        target[i] = value
        peak[i] = value if first or value > peak[i] else peak[i]


@_jit
def _set_two_of_square(target, other, peak, a, start, u, v, start_2, u_2, v_2):
    """The same for two components whose second column is the square of the first."""
    for i in range(target.size):
        x = start + a[i] * (u + v * a[i])
        y = start_2 + a[i] * (u_2 + v_2 * a[i])
        target[i] = x
        other[i] = y
        top = x if x > y else y
        peak[i] = top if top > peak[i] else peak[i]


@_jit
def _gather(target, table, symbols):
    for i in range(target.size):
        target[i] += table[np.uintp(symbols[i])]


@_jit
def _gather_known(target, table, symbols):
    for i in range(target.size):
        if symbols[i] > 0:
            target[i] += table[np.uintp(symbols[i] - 1)]


@_jit
def _scatter_known(table, symbols, values):
    for i in range(values.size):
        if symbols[i] > 0:
            table[np.uintp(symbols[i] - 1)] += values[i]


@_jit
def _scatter(tables, size, symbols, values):
    """Sums by symbol in four tables, in turn, so that a symbol need not wait for the sum of the row before."""
    for i in range(0, values.size, 4):  # of which there are a multiple of `ROUND`
        tables[np.uintp(symbols[i])] += values[i]
        tables[np.uintp(size + symbols[i + 1])] += values[i + 1]
        tables[np.uintp(2 * size + symbols[i + 2])] += values[i + 2]
        tables[np.uintp(3 * size + symbols[i + 3])] += values[i + 3]


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
def _exp_times(values, shift, peak, factor, total):
    for i in range(values.size):
        found = exp(values[i] + shift - peak[i]) * factor[i]
        values[i] = found
        total[i] += found


@_jit
def _exp_into(out, values, shift, peak, total):
    for i in range(out.size):
        found = exp(values[i] + shift - peak[i])
        out[i] = found
        total[i] += found


@_jit
def _exp_two_in_place(values, others, peak, total, first):
    for i in range(values.size):
        x, y = exp(values[i] - peak[i]), exp(others[i] - peak[i])
        values[i] = x
        others[i] = y
        total[i] = x + y if first else total[i] + (x + y)


@_jit
def _clear(peak, total):
    """Before exponentials are summed; a peak that excludes the row must not be subtracted from itself."""
    for i in range(peak.size):
        peak[i] = 0.0 if peak[i] == -np.inf else peak[i]
        total[i] = 0.0


@_jit
def _log_sum(result, inverse, peak, total, fresh):
    """The sum is at least 1, the peak's own term, or 0 where every component excludes the row, or NaN."""
    for i in range(result.size):
        empty = total[i] == 0.0
        found, quotient = log_and_inverse(1.0 if empty else total[i])
        value = -np.inf if empty else peak[i] + found
        result[i] = value if fresh else result[i] + value
        inverse[i] = 0.0 if empty else quotient


@_jit
def _carry_sum(result, inverse, carry, peak, total, fresh, sets):
    """The same with the sum kept as a factor."""
    for i in range(result.size):
        empty = total[i] == 0.0
        value = -np.inf if empty else peak[i]
        factor = 1.0 if empty else total[i]
        result[i] = value if fresh else result[i] + value
        carry[i] = factor if sets else carry[i] * factor
        inverse[i] = 0.0 if empty else 1.0 / total[i]


@_jit
def _add_log(target, factor):
    for i in range(target.size):
        target[i] += log(factor[i])


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
def _share_two(around, own, a, b, squared):
    """Sums of a component's responsibilities, and of their products with two columns."""
    total, x, y = 0.0, 0.0, 0.0
    for i in range(own.size):
        value = around[i] * own[i]
        total += value
        x += value * a[i]
        y += value * (a[i] * a[i] if squared else b[i])
    return total, x, y


@_jit_sum
def _share_two_of_square(around, own, other, a):
    """The same for two components whose second column is the square of the first."""
    total, x, y, total_2, x_2, y_2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(own.size):
        value = around[i] * own[i]
        total += value
        value *= a[i]
        x += value
        y += value * a[i]
        value = around[i] * other[i]
        total_2 += value
        value *= a[i]
        x_2 += value
        y_2 += value * a[i]
    return total, x, y, total_2, x_2, y_2


@_jit
def _pair_up(result, signed, a, b, squared, start, u, v, start_2, u_2, v_2, fresh):
    """A mixture of two components with two columns: the smaller over the larger term, negative where that is the first.

    NaN where both exclude the row.
    """
    for i in range(result.size):
        other = a[i] * a[i] if squared else b[i]
        x, y = start + u * a[i] + v * other, start_2 + u_2 * a[i] + v_2 * other
        gap = x - y
        lower = gap < 0.0
        top = y if lower else x
        ratio = exp(gap if lower else -gap)
        value = top + log(1.0 + (0.0 if top == -np.inf else ratio))
        result[i] = value if fresh else result[i] + value
        signed[i] = -ratio if lower else ratio


@_jit
def _pair_up_carried(result, carry, signed, a, b, squared, start, u, v, start_2, u_2, v_2, fresh, sets):
    """The same with the sum kept as a factor."""
    for i in range(result.size):
        other = a[i] * a[i] if squared else b[i]
        x, y = start + u * a[i] + v * other, start_2 + u_2 * a[i] + v_2 * other
        gap = x - y
        lower = gap < 0.0
        top = y if lower else x
        ratio = exp(gap if lower else -gap)
        above = 1.0 + (0.0 if top == -np.inf else ratio)
        result[i] = top if fresh else result[i] + top
        carry[i] = above if sets else carry[i] * above
        signed[i] = -ratio if lower else ratio


@_jit_sum
def _pair_down(around, signed, a, b, squared):
    """Sums of both components' responsibilities, and of their products with the columns."""
    total, x, y, total_2, x_2, y_2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(signed.size):
        other = a[i] * a[i] if squared else b[i]
        ratio = abs(signed[i])
        larger = around[i] / (1.0 + ratio)
        smaller = larger * ratio
        lower = bits(signed[i]) < 0
        known = signed[i] == signed[i]
        value = (smaller if lower else larger) if known else 0.0
        total += value
        x += value * a[i]
        y += value * other
        value = (larger if lower else smaller) if known else 0.0
        total_2 += value
        x_2 += value * a[i]
        y_2 += value * other
    return total, x, y, total_2, x_2, y_2


@_jit_sum
def _pair_at_root(a, b, squared, start, u, v, start_2, u_2, v_2):
    """Up and down in one go: peaks, product of the sums above them (each at most 2), and the six statistics."""
    peaks, product = 0.0, 1.0
    total, x, y, total_2, x_2, y_2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(a.size):
        other = a[i] * a[i] if squared else b[i]
        first, second = start + u * a[i] + v * other, start_2 + u_2 * a[i] + v_2 * other
        gap = first - second
        lower = gap < 0.0
        ratio = exp(gap if lower else -gap)
        above = 1.0 + ratio
        peaks += second if lower else first
        product *= above
        larger = 1.0 / above
        smaller = larger * ratio
        value = smaller if lower else larger
        total += value
        x += value * a[i]
        y += value * other
        value = larger if lower else smaller
        total_2 += value
        x_2 += value * a[i]
        y_2 += value * other
    return peaks, product, total, x, y, total_2, x_2, y_2


@_jit_sum
def _sum_and_product(peak, total, inverse):
    peaks, product = 0.0, 1.0
    for i in range(peak.size):
        peaks += peak[i]
        product *= total[i]
        inverse[i] = 1.0 / total[i]
    return peaks, product


# ------------------------------------------------------------ instructions


@_jit
def _form_products(op, ints, floats, products, begin, cap, n):
    """The products of columns that a DENSE instruction asks for, once for all components."""
    for j in range(op[8]):
        entry = op[5] + 4 * (op[6] + op[7] + j)
        a, b = ints[entry] + begin, ints[entry + 1] + begin
        _multiply(_part(products, j * cap, n), _part(floats, a, n), _part(floats, b, n))


@_jit
def _places(op, ints, begin, cap, where):
    """Where the columns of a DENSE instruction stand in a block, and after them its products."""
    entries = op[5] + 4 * op[6]
    for c in range(op[7]):
        where[c] = np.uintp(ints[entries + 4 * c] + begin)
    for c in range(op[8]):
        where[op[7] + c] = np.uintp(c * cap)


@_jit
def _add_columns(target, start, fresh, nat, ints, entries, k, source, where, first, n_columns, factors):
    """Add some columns times their natural parameters; `fresh`: to `start`, not to what is there."""
    c = 0
    if fresh and n_columns > 0:
        _set_1(target, start, nat[ints[entries + 2] + k * ints[entries + 3]], source, where[first:])
        c = 1
    while c < n_columns:
        left = n_columns - c
        size = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        for i in range(size):
            factors[i] = nat[ints[entries + 4 * (c + i) + 2] + k * ints[entries + 4 * (c + i) + 3]]
        if size == 8:
            _add_8(target, factors, source, where, first + c)
        elif size == 4:
            _add_4(target, factors, source, where, first + c)
        elif size == 2:
            _add_2(target, factors, source, where, first + c)
        else:
            _add_1(target, factors, source, where, first + c)
        c += size


@_jit
def _dot_columns(own, stats, ints, entries, k, source, where, first, n_columns):
    """The statistics of some columns."""
    c = 0
    while c < n_columns:
        left = n_columns - c
        at = entries + 4 * c
        if left >= 8:
            found = _dots_8(own, source, where, first + c)
            for i in range(8):
                stats[ints[at + 4 * i + 2] + k * ints[at + 4 * i + 3]] += found[i]
            c += 8
        elif left >= 4:
            four = _dots_4(own, source, where, first + c)
            for i in range(4):
                stats[ints[at + 4 * i + 2] + k * ints[at + 4 * i + 3]] += four[i]
            c += 4
        elif left >= 2:
            two = _dots_2(own, source, where, first + c)
            for i in range(2):
                stats[ints[at + 4 * i + 2] + k * ints[at + 4 * i + 3]] += two[i]
            c += 2
        else:
            stats[ints[at + 2] + k * ints[at + 3]] += _dot(own, _part(source, where[first + c], own.size))
            c += 1


@_jit
def _dense_up(op, ints, floats, products, nat, work, begin, cap, n, factors, where):
    out, n_components, fresh, table, n_constants = op[2], op[3], op[4] == 1, op[5], op[6]
    entries = table + 4 * n_constants
    _places(op, ints, begin, cap, where)
    for k in range(n_components):
        start = 0.0
        for c in range(n_constants):
            start += nat[ints[table + 4 * c + 2] + k * ints[table + 4 * c + 3]]
        target = _part(work, out + k * cap, n)
        if fresh and op[7] + op[8] == 0:
            _fill(target, start)
        elif not fresh and n_constants > 0:
            _shift(target, start)
        _add_columns(target, start, fresh, nat, ints, entries, k, floats, where, 0, op[7], factors)
        anew = fresh and op[7] == 0
        _add_columns(target, start, anew, nat, ints, entries + 4 * op[7], k, products, where, op[7], op[8], factors)


@_jit
def _dense_down(op, ints, floats, products, resp, stats, begin, cap, n, where):
    out, n_components, table, n_constants = op[2], op[3], op[5], op[6]
    entries = table + 4 * n_constants
    _places(op, ints, begin, cap, where)
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        if n_constants > 0:
            total = _total(own)
            for c in range(n_constants):
                stats[ints[table + 4 * c + 2] + k * ints[table + 4 * c + 3]] += total
        _dot_columns(own, stats, ints, entries, k, floats, where, 0, op[7])
        _dot_columns(own, stats, ints, entries + 4 * op[7], k, products, where, op[7], op[8])


@_jit
def _one_hot_up(op, ints, nat, work, begin, cap, n):
    out, n_components, symbols_at, size, at = op[2], op[3], op[5], op[6], op[7]
    symbols = _part(ints, symbols_at + begin, n)
    if size > n:  # a table would take longer than the rows
        for k in range(n_components):
            _gather_known(_part(work, out + k * cap, n), _part(nat, at + k * size, size), symbols)
        return
    table = np.zeros(size + 1)  # no symbol comes first
    for k in range(n_components):
        _copy(table[1:], _part(nat, at + k * size, size))
        _gather(_part(work, out + k * cap, n), table, symbols)


@_jit
def _one_hot_down(op, ints, resp, stats, begin, cap, n):
    out, n_components, symbols_at, size, at = op[2], op[3], op[5], op[6], op[7]
    symbols = _part(ints, symbols_at + begin, n)
    if size > n and size > _FEW:
        for k in range(n_components):
            _scatter_known(_part(stats, at + k * size, size), symbols, _part(resp, out + k * cap, n))
        return
    tables = np.zeros(4 * (size + 1))
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        if size <= 2:
            two = _sums_of_2(own, symbols, 1)
            for i in range(size):
                stats[at + k * size + i] += two[i]
        elif size <= _FEW:
            four = _sums_of_4(own, symbols, 1)
            for i in range(size):
                stats[at + k * size + i] += four[i]
        else:
            _fill(tables, 0.0)
            _scatter(tables, size + 1, symbols, own)
            for s in range(1, size + 1):
                found = (tables[s] + tables[size + 1 + s]) + (tables[2 * size + 2 + s] + tables[3 * size + 3 + s])
                stats[at + k * size + s - 1] += found


@_jit
def _sparse_up(op, ints, floats, nat, work, begin, cap, n):
    out, n_components, indptr, indices, values_at, size, at = op[2], op[3], op[5], op[6], op[7], op[8], op[9]
    for k in range(n_components):
        target = _part(work, out + k * cap, n)
        table = _part(nat, at + k * size, size)
        for r in range(n):
            total = 0.0
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                value = 1.0 if values_at < 0 else floats[values_at + e]
                total += value * table[ints[indices + e]]
            target[r] += total


@_jit
def _sparse_down(op, ints, floats, resp, stats, begin, cap, n):
    out, n_components, indptr, indices, values_at, size, at = op[2], op[3], op[5], op[6], op[7], op[8], op[9]
    for k in range(n_components):
        own = _part(resp, out + k * cap, n)
        table = _part(stats, at + k * size, size)
        for r in range(n):
            for e in range(ints[indptr + begin + r], ints[indptr + begin + r + 1]):
                value = 1.0 if values_at < 0 else floats[values_at + e]
                table[ints[indices + e]] += own[r] * value


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
def _finish_mixture(op, k, density, inverse, cap, n, peak, total):
    """What becomes of the peaks and sums of a mixture in component k around it."""
    result = _part(density, op[2] + k * cap, n)
    if op[12] == LOGS:
        _log_sum(result, inverse, peak, total, op[10] == 1)
    else:
        carry = _part(density, op[11] + k * cap, n)
        _carry_sum(result, inverse, carry, peak, total, op[10] == 1, op[12] == SETS)


@_jit
def _sum_of_logs(peak, total, inverse, limit):
    """Sum of peaks and of logarithms of sums, by the logarithm of their product where that cannot overflow."""
    n = peak.size
    at_once = max(1, min(n, int(600.0 / np.log(limit)))) if limit > 1 else n
    found = 0.0
    for first in range(0, n, at_once):
        some = min(at_once, n - first)
        peaks, product = _sum_and_product(
            _part(peak, first, some), _part(total, first, some), _part(inverse, first, some)
        )
        found += peaks + np.log(product)
    return found


@_jit
def _terms(op, k, ints, nat, density, cap, n, peak, total):
    """Peaks and sums of a mixture in component k around it; its joint buffer is left with their terms."""
    size, sources, joint, weights, carried = op[4], op[5], op[6], op[7], op[13]
    if size == 2 and carried < 0:
        at, below = joint + 2 * k * cap, sources + 2 * k
        a, b = _part(density, at, n), _part(density, at + cap, n)
        if at != ints[below]:
            _copy(a, _part(density, ints[below], n))
            _copy(b, _part(density, ints[below + 1], n))
        _pair(a, b, nat[weights + 2 * k], nat[weights + 2 * k + 1], peak, total)
        return
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
        own, shift = _part(density, at, n), nat[weights + k * size + g]
        if carried >= 0:
            _exp_times(own, shift, peak, _part(density, carried + (k * size + g) * cap, n), total)
        elif at == source:
            _exp_in_place(own, shift, peak, total)
        else:
            _exp_into(own, _part(density, source, n), shift, peak, total)


@_jit
def _mixture_up(op, ints, nat, density, cap, n, peaks, totals):
    """Log-sum-exp over the components of a mixture."""
    peak, total = _part(peaks, 0, n), _part(totals, 0, n)
    for k in range(op[3]):
        _terms(op, k, ints, nat, density, cap, n, peak, total)
        _finish_mixture(op, k, density, _part(density, op[8] + k * cap, n), cap, n, peak, total)


@_jit
def _mixture_at_root(op, ints, nat, density, cap, n, size, peaks, totals):
    """The sum of that over `size` rows of weight 1, at the root; NaN gives up."""
    _terms(op, 0, ints, nat, density, cap, n, _part(peaks, 0, n), _part(totals, 0, n))
    return _sum_of_logs(_part(peaks, 0, size), _part(totals, 0, size), _part(density, op[8], size), op[14])


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
def _two_columns(leaf, ints, floats, products, begin, cap, n):
    """The columns of a family that has two, and whether the second is the square of the first."""
    entries = leaf[5] + 4 * leaf[6]
    first = ints[entries] + begin
    if leaf[7] == 2:
        return _part(floats, first, n), _part(floats, ints[entries + 4] + begin, n), False
    if leaf[7] == 1 and ints[entries + 4] == ints[entries] and ints[entries + 5] == ints[entries]:
        return _part(floats, first, n), _part(floats, first, n), True
    _form_products(leaf, ints, floats, products, begin, cap, n)
    if leaf[7] == 1:
        return _part(floats, first, n), _part(products, 0, n), False
    return _part(products, 0, n), _part(products, cap, n), False


@_jit
def _factors(leaf, ints, nat, weight, at):
    """Log weight plus constants, and the factors of both columns, of component `at`."""
    entries = leaf[5] + 4 * leaf[6]
    start = weight
    for c in range(leaf[6]):
        start += nat[ints[leaf[5] + 4 * c + 2] + at * ints[leaf[5] + 4 * c + 3]]
    u, v = nat[ints[entries + 2] + at * ints[entries + 3]], nat[ints[entries + 6] + at * ints[entries + 7]]
    return start, u, v


@_jit
def _add_two(leaf, ints, stats, weight, at, total, x, y):
    """Add a component's statistics."""
    entries = leaf[5] + 4 * leaf[6]
    stats[weight + at] += total
    for c in range(leaf[6]):
        stats[ints[leaf[5] + 4 * c + 2] + at * ints[leaf[5] + 4 * c + 3]] += total
    stats[ints[entries + 2] + at * ints[entries + 3]] += x
    stats[ints[entries + 6] + at * ints[entries + 7]] += y


@_jit
def _all_of_two(leaf, a, b, squared, ints, nat, work, joint, weights, first, size, cap, n, peak):
    """Joint log densities of the components from `first` on, and their peak."""
    g = 0
    while g < size:
        at = first + g
        start, u, v = _factors(leaf, ints, nat, nat[weights + at], at)
        target = _part(work, joint + at * cap, n)
        if squared and g > 0 and g + 1 < size:
            start_2, u_2, v_2 = _factors(leaf, ints, nat, nat[weights + at + 1], at + 1)
            other = _part(work, joint + (at + 1) * cap, n)
            _set_two_of_square(target, other, peak, a, start, u, v, start_2, u_2, v_2)
            g += 2
        else:
            _set_two(target, peak, a, b, squared, start, u, v, g == 0)
            g += 1


@_jit
def _shares_of_two(leaf, a, b, squared, ints, work, stats, joint, weights, first, size, cap, n, around):
    """Statistics of the components from `first` on."""
    g = 0
    while g < size:
        at = first + g
        own = _part(work, joint + at * cap, n)
        if squared and g + 1 < size:
            other = _part(work, joint + (at + 1) * cap, n)
            total, x, y, total_2, x_2, y_2 = _share_two_of_square(around, own, other, a)
            _add_two(leaf, ints, stats, weights, at + 1, total_2, x_2, y_2)
            g += 1
        else:
            total, x, y = _share_two(around, own, a, b, squared)
        _add_two(leaf, ints, stats, weights, at, total, x, y)
        g += 1


@_jit
def _fused_up(op, leaf, ints, floats, products, nat, work, begin, cap, n, peaks, totals):
    """A mixture of a family with two columns: its densities are found and compared in one go."""
    out, n_around, size, joint, weights, inverses = op[2], op[3], op[4], op[6], op[7], op[8]
    peak, total = _part(peaks, 0, n), _part(totals, 0, n)
    a, b, squared = _two_columns(leaf, ints, floats, products, begin, cap, n)
    for k in range(n_around):
        first = joint + k * size * cap
        if size == 2:
            result, signed = _part(work, out + k * cap, n), _part(work, first, n)
            start, u, v = _factors(leaf, ints, nat, nat[weights + 2 * k], 2 * k)
            start_2, u_2, v_2 = _factors(leaf, ints, nat, nat[weights + 2 * k + 1], 2 * k + 1)
            fresh, sets = op[10] == 1, op[12] == SETS
            if op[12] == LOGS:
                _pair_up(result, signed, a, b, squared, start, u, v, start_2, u_2, v_2, fresh)
            else:
                carry = _part(work, op[11] + k * cap, n)
                _pair_up_carried(result, carry, signed, a, b, squared, start, u, v, start_2, u_2, v_2, fresh, sets)
            continue
        _all_of_two(leaf, a, b, squared, ints, nat, work, joint, weights, k * size, size, cap, n, peak)
        _clear(peak, total)
        for g in range(0, size - 1, 2):
            own, other = _part(work, first + g * cap, n), _part(work, first + (g + 1) * cap, n)
            _exp_two_in_place(own, other, peak, total, False)
        if size % 2 == 1:
            _exp_in_place(_part(work, first + (size - 1) * cap, n), 0.0, peak, total)
        _finish_mixture(op, k, work, _part(work, inverses + k * cap, n), cap, n, peak, total)


@_jit
def _fused_down(op, leaf, ints, floats, products, work, resp, stats, begin, cap, n, scaled):
    out, n_around, size, joint, weights, inverses = op[2], op[3], op[4], op[6], op[7], op[8]
    around = _part(scaled, 0, n)
    a, b, squared = _two_columns(leaf, ints, floats, products, begin, cap, n)
    for k in range(n_around):
        if size == 2:
            signed = _part(work, joint + 2 * k * cap, n)
            total, x, y, total_2, x_2, y_2 = _pair_down(_part(resp, out + k * cap, n), signed, a, b, squared)
            _add_two(leaf, ints, stats, weights, 2 * k, total, x, y)
            _add_two(leaf, ints, stats, weights, 2 * k + 1, total_2, x_2, y_2)
            continue
        _multiply(around, _part(resp, out + k * cap, n), _part(work, inverses + k * cap, n))
        _shares_of_two(leaf, a, b, squared, ints, work, stats, joint, weights, k * size, size, cap, n, around)


@_jit
def _fused_root(op, leaf, ints, floats, products, nat, work, stats, begin, cap, n, peaks, totals, inverse):
    """Up and down at the root, for rows of weight 1 whose log densities are not asked for; NaN gives up.

    The logarithms of a block's sums are the logarithm of their product. The sums are at least 1 and at most as many as
    the components, so that so many rows at a time cannot overflow.
    """
    size, joint, weights = op[4], op[6], op[7]
    a, b, squared = _two_columns(leaf, ints, floats, products, begin, cap, n)
    if size == 2:
        start, u, v = _factors(leaf, ints, nat, nat[weights], 0)
        start_2, u_2, v_2 = _factors(leaf, ints, nat, nat[weights + 1], 1)
        peak, product, total, x, y, total_2, x_2, y_2 = _pair_at_root(a, b, squared, start, u, v, start_2, u_2, v_2)
        loglik = peak + np.log(product)
        if np.isfinite(loglik):
            _add_two(leaf, ints, stats, weights, 0, total, x, y)
            _add_two(leaf, ints, stats, weights, 1, total_2, x_2, y_2)
        return loglik
    peak, total, around = _part(peaks, 0, n), _part(totals, 0, n), _part(inverse, 0, n)
    _all_of_two(leaf, a, b, squared, ints, nat, work, joint, weights, 0, size, cap, n, peak)
    for g in range(0, size - 1, 2):
        own, other = _part(work, joint + g * cap, n), _part(work, joint + (g + 1) * cap, n)
        _exp_two_in_place(own, other, peak, total, g == 0)
    if size % 2 == 1:
        if size == 1:
            _fill(total, 0.0)
        _exp_in_place(_part(work, joint + (size - 1) * cap, n), 0.0, peak, total)
    loglik = _sum_of_logs(peak, total, around, size)
    if np.isfinite(loglik):
        _shares_of_two(leaf, a, b, squared, ints, work, stats, joint, weights, 0, size, cap, n, around)
    return loglik


@_jit
def _up(code, until, ints, floats, products, nat, work, bounds, caps, block, peaks, totals, factors, where):
    """Log densities of a block's rows, by the instructions before `until`."""
    for i in range(until):
        op = code[i]
        kind, level, out, n_components = op[0], op[1], op[2], op[3]
        cap, begin = caps[level], bounds[level, block]
        size = bounds[level, block + 1] - begin
        n = min((size + ROUND - 1) // ROUND * ROUND, cap)  # those beyond the block have responsibility zero
        if kind == MIXTURE and op[9] > 0:
            _fused_up(op, code[op[9] - 1], ints, floats, products, nat, work, begin, cap, n, peaks, totals)
            continue
        if kind == MIXTURE:
            _mixture_up(op, ints, nat, work, cap, n, peaks, totals)
            continue
        if kind in (MASK, FUSED):
            continue
        if kind == DENSE:
            _form_products(op, ints, floats, products, begin, cap, n)
            _dense_up(op, ints, floats, products, nat, work, begin, cap, n, factors, where)
            continue
        if kind == LOG:
            _add_log(_part(work, out, n_components * cap), _part(work, op[5], n_components * cap))
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
        else:
            _segments_up(op, ints, work, begin, cap, size, bounds[op[6], block])


@_jit
def _down(code, ints, floats, products, work, resp, stats, bounds, caps, block, scaled, where):
    """Responsibilities and statistics of a block's rows; those of the root are there."""
    for i in range(code.shape[0] - 1, -1, -1):
        op = code[i]
        kind, level, out, n_components = op[0], op[1], op[2], op[3]
        cap, begin = caps[level], bounds[level, block]
        size = bounds[level, block + 1] - begin
        n = min((size + ROUND - 1) // ROUND * ROUND, cap)
        if kind == MIXTURE and op[9] > 0:
            _fused_down(op, code[op[9] - 1], ints, floats, products, work, resp, stats, begin, cap, n, scaled)
        elif kind == MIXTURE:
            _mixture_down(op, ints, work, resp, stats, cap, n, scaled)
        elif kind == DENSE:
            _form_products(op, ints, floats, products, begin, cap, n)
            _dense_down(op, ints, floats, products, resp, stats, begin, cap, n, where)
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


@_jit
def e_step(
    code,
    ints,
    floats,
    nat,
    weights,
    bounds,
    caps,
    room,
    used,
    root,
    cuts,
    first,
    last,
    work,
    resp,
    rows,
    logliks,
    stats,
    down,
):
    """Parts `first` to `last` of the rows: fills their `logliks` and `stats`.

    Parameters
    ----------
    code : ndarray of int, shape (n_instructions, WIDTH)
    ints, floats : ndarray
        Symbols, row numbers and tables; statistics, column by column.
    nat : ndarray, shape (size,)
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
    cuts : ndarray of int, shape (n_parts + 1,)
        Blocks at which parts begin.
    work, resp : ndarray
        Densities and responsibilities of a block.
    rows : ndarray, shape (N,) or (0,)
        Is filled with log densities, unless it is empty.
    logliks : ndarray, shape (n_parts,)
        The parts' weighted sums of log densities.
    stats : ndarray, shape (n_parts, size)
        The parts' statistics, laid out as `nat`; zeros before.
    down : bool
        Whether to find statistics too.
    """
    most, n_columns, n_code = caps.max(), 0, code.shape[0]
    for i in range(n_code):
        if code[i, 0] in (DENSE, FUSED):
            n_columns = max(n_columns, code[i, 7] + code[i, 8])
    peaks, totals, inverses, products = np.empty(most), np.empty(most), np.empty(most), np.empty(room)
    factors, where = np.empty(8), np.empty(n_columns, np.uintp)
    # where nothing but the sum is wanted of a mixture at the root, no row needs a logarithm
    op = code[n_code - 1]
    at_once = down and rows.size == 0 and weights.size == 0 and op[0] == MIXTURE
    for part in range(first, last):
        own = _part(stats.ravel(), part * nat.size, nat.size)
        loglik = 0.0
        for block in range(cuts[part], cuts[part + 1]):
            begin, cap = bounds[0, block], caps[0]
            size = bounds[0, block + 1] - begin
            total = np.nan
            if at_once and op[9] > 0:
                leaf = code[op[9] - 1]
                total = _fused_root(
                    op, leaf, ints, floats, products, nat, work, own, begin, cap, size, peaks, totals, inverses
                )
                if np.isfinite(total):
                    loglik += total
                    continue
            elif at_once:
                until = n_code - 1
                _up(code, until, ints, floats, products, nat, work, bounds, caps, block, peaks, totals, factors, where)
                n = min((size + ROUND - 1) // ROUND * ROUND, cap)
                total = _mixture_at_root(op, ints, nat, work, cap, n, size, peaks, totals)
            if np.isfinite(total):
                loglik += total
                _fill(_part(resp, 0, used), 0.0)
                _fill(_part(resp, root, size), 1.0)
                _down(code, ints, floats, products, work, resp, own, bounds, caps, block, peaks, where)
                continue
            _up(code, n_code, ints, floats, products, nat, work, bounds, caps, block, peaks, totals, factors, where)
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
            _down(code, ints, floats, products, work, resp, own, bounds, caps, block, peaks, where)
        logliks[part] = loglik
