"""The machine that runs tapes: one compiled function that carries out instructions on one array of numbers.

It is compiled once on a machine, not once for each model. An instruction is a run of integers, its opcode first:

============== =================================================================================
SWITCH         n, out, c, sc, a, sa, b, sb        ``c ? a : b``, entry by entry
binary         n, out, a, sa, b, sb
unary          n, out, a, sa
GATHER         n, out, where                      the entries that ``index[where:]`` lists
REDUCE_*       n, m, out, a, so, si               n results over m entries each
CUMULATE_*     n, m, out, a                       along rows of m entries
SEGMENT_SUM    n, out, bounds, where              result i over ``index[where + bounds i : bounds i+1]``
MATMUL         batch, rows, inner, columns, out, a, sb, sr, si, b, sb, si, sc
LOG_SUM_EXP    rows, columns, terms, out, shares, a
CHOLESKY       batch, d, out, a, lower
SOLVE          batch, d, columns, out, a, b, lower, unit        triangular
============== =================================================================================

``a`` with a stride ``sa`` means the entries ``memory[a + sa i]``; a stride of 0 is a scalar. Results are contiguous.
"""

from __future__ import annotations

import ctypes
import math

import llvmlite.binding as llvm
import numba as nb
import numpy as np
from numba.core import types
from scipy.special import cython_special

from bayesmix.kernels.log_sum_exp import log_sum_exp

GATHER, SWITCH, SEGMENT_SUM, MATMUL, LOG_SUM_EXP, CHOLESKY, SOLVE, CUMULATE_SUM, CUMULATE_PROD = range(9)
REDUCE_SUM, REDUCE_PROD, REDUCE_MAX, REDUCE_MIN = range(10, 14)
ADD, SUB, MUL, DIV, POW, MAXIMUM, MINIMUM, LT, GT, LE, GE, EQ, NEQ, AND, OR, XOR, ARCTAN2 = range(20, 37)
NEG, SQR, EXP, LOG, LOG1P, EXPM1, SQRT, ABS, SIGN, RECIPROCAL, SIGMOID, SOFTPLUS, LOG1MEXP = range(50, 63)
GAMMALN, PSI, TRIGAMMA, ERF, ERFC, ERFCX, NOT, ISNAN, ISINF, FLOOR, CEIL = range(63, 74)
LOG2, LOG10, EXP2, SIN, COS, TAN, ARCSIN, ARCCOS, ARCTAN, SINH, COSH, TANH, ARCSINH, ARCCOSH, ARCTANH = range(74, 89)
_FIRST_BINARY, _FIRST_UNARY = ADD, NEG

#: Opcodes that need a function of scipy's that this scipy does not offer to C; tapes leave them to Python.
MISSING: set[int] = set()

_jit = nb.njit(error_model="numpy", nogil=True, cache=True)


def _from_scipy(name: str, opcode: int):
    """Scipy's own function of one double, by its name for the linker, so that the compiled machine can be cached."""
    symbol = f"bayesmix_{name}"
    capi = cython_special.__pyx_capi__
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    for key in (name, f"__pyx_fuse_0{name}", f"__pyx_fuse_1{name}"):
        if key in capi and get_name(capi[key]) == b"double (double, int __pyx_skip_dispatch)":
            llvm.add_symbol(symbol, get_pointer(capi[key], get_name(capi[key])))
            break
    else:
        MISSING.add(opcode)
        llvm.add_symbol(symbol, llvm.address_of_symbol("cos") or 1)  # something to link with, which nothing runs
    return types.ExternalFunction(symbol, types.float64(types.float64, types.intc))


_gammaln = _from_scipy("gammaln", GAMMALN)
_psi = _from_scipy("psi", PSI)
_erf = _from_scipy("erf", ERF)
_erfc = _from_scipy("erfc", ERFC)
_erfcx = _from_scipy("erfcx", ERFCX)


@_jit
def trigamma(x):
    """Second derivative of log gamma: reflection below 0, recurrence to 12, then its asymptotic series."""
    if x <= 0.0:
        if x == np.floor(x):
            return math.inf
        return (math.pi / math.sin(math.pi * x)) ** 2 - trigamma(1.0 - x)
    total = 0.0
    while x < 12.0:
        total += 1.0 / (x * x)
        x += 1.0
    if math.isinf(x):
        return 0.0
    r = 1.0 / (x * x)
    # Bernoulli numbers 1/6, -1/30, 1/42, -1/30, 5/66, -691/2730, 7/6
    series = r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30 - r * (5 / 66 - r * (691 / 2730 - r * 7 / 6))))))
    return total + 1.0 / x + 0.5 * r + series / x


@_jit
def _unary(op, x):
    if op == NEG:
        return -x
    elif op == SQR:
        return x * x
    elif op == EXP:
        return math.exp(x)
    elif op == LOG:
        return np.log(x)
    elif op == LOG1P:
        return np.log1p(x)
    elif op == EXPM1:
        return np.expm1(x)
    elif op == SQRT:
        return np.sqrt(x)
    elif op == ABS:
        return abs(x)
    elif op == SIGN:
        return 1.0 if x > 0 else (-1.0 if x < 0 else x * 0.0)
    elif op == RECIPROCAL:
        return 1.0 / x
    elif op == SIGMOID:
        if x >= 0:
            return 1.0 / (1.0 + math.exp(-x))
        e = math.exp(x)
        return e / (1.0 + e)
    elif op == SOFTPLUS:
        if x < -37.0:
            return math.exp(x)
        if x < 18.0:
            return np.log1p(math.exp(x))
        return x + math.exp(-x) if x < 33.3 else x
    elif op == LOG1MEXP:
        return np.log1p(-math.exp(x)) if x < -0.6931471805599453 else np.log(-np.expm1(x))
    elif op == GAMMALN:
        return _gammaln(x, 0)
    elif op == PSI:
        return _psi(x, 0)
    elif op == TRIGAMMA:
        return trigamma(x)
    elif op == ERF:
        return _erf(x, 0)
    elif op == ERFC:
        return _erfc(x, 0)
    elif op == ERFCX:
        return _erfcx(x, 0)
    elif op == NOT:
        return 1.0 if x == 0.0 else 0.0
    elif op == ISNAN:
        return 1.0 if math.isnan(x) else 0.0
    elif op == ISINF:
        return 1.0 if math.isinf(x) else 0.0
    elif op == FLOOR:
        return np.floor(x)
    elif op == CEIL:
        return np.ceil(x)
    elif op == LOG2:
        return np.log2(x)
    elif op == LOG10:
        return np.log10(x)
    elif op == EXP2:
        return 2.0**x
    elif op == SIN:
        return np.sin(x)
    elif op == COS:
        return np.cos(x)
    elif op == TAN:
        return np.tan(x)
    elif op == ARCSIN:
        return np.arcsin(x)
    elif op == ARCCOS:
        return np.arccos(x)
    elif op == ARCTAN:
        return np.arctan(x)
    elif op == SINH:
        return np.sinh(x)
    elif op == COSH:
        return np.cosh(x)
    elif op == TANH:
        return np.tanh(x)
    elif op == ARCSINH:
        return np.arcsinh(x)
    elif op == ARCCOSH:
        return np.arccosh(x)
    else:
        return np.arctanh(x)


@_jit
def _binary(op, x, y):
    # sums and products have loops of their own
    if op == SUB:
        return x - y
    elif op == DIV:
        return x / y
    elif op == POW:
        return x**y
    elif op == MAXIMUM:
        return x if x >= y or math.isnan(x) else y
    elif op == MINIMUM:
        return x if x <= y or math.isnan(x) else y
    elif op == LT:
        return 1.0 if x < y else 0.0
    elif op == GT:
        return 1.0 if x > y else 0.0
    elif op == LE:
        return 1.0 if x <= y else 0.0
    elif op == GE:
        return 1.0 if x >= y else 0.0
    elif op == EQ:
        return 1.0 if x == y else 0.0
    elif op == NEQ:
        return 1.0 if x != y else 0.0
    elif op == AND:
        return 1.0 if x != 0.0 and y != 0.0 else 0.0
    elif op == OR:
        return 1.0 if x != 0.0 or y != 0.0 else 0.0
    elif op == XOR:
        return 1.0 if (x != 0.0) != (y != 0.0) else 0.0
    else:
        return math.atan2(x, y)


@_jit
def _binary_loop(op, n, memory, out, a, sa, b, sb):
    # the four operations of arithmetic have loops of their own, without a choice in each entry
    if op == ADD:
        for i in range(n):
            memory[out + i] = memory[a + sa * i] + memory[b + sb * i]
    elif op == SUB:
        for i in range(n):
            memory[out + i] = memory[a + sa * i] - memory[b + sb * i]
    elif op == MUL:
        for i in range(n):
            memory[out + i] = memory[a + sa * i] * memory[b + sb * i]
    elif op == DIV:
        for i in range(n):
            memory[out + i] = memory[a + sa * i] / memory[b + sb * i]
    else:
        for i in range(n):
            memory[out + i] = _binary(op, memory[a + sa * i], memory[b + sb * i])


@_jit
def _reduce(op, n, m, memory, out, a, so, si):
    for i in range(n):
        at = a + so * i
        total = memory[at]
        if op == REDUCE_SUM:
            second, third, fourth, j = 0.0, 0.0, 0.0, 1
            while j + 4 <= m:  # four chains of additions: the processor need not wait for each
                total += memory[at + si * j]
                second += memory[at + si * (j + 1)]
                third += memory[at + si * (j + 2)]
                fourth += memory[at + si * (j + 3)]
                j += 4
            for rest in range(j, m):
                total += memory[at + si * rest]
            total += second + (third + fourth)
        elif op == REDUCE_PROD:
            for j in range(1, m):
                total *= memory[at + si * j]
        elif op == REDUCE_MAX:
            for j in range(1, m):
                total = _binary(MAXIMUM, total, memory[at + si * j])
        else:
            for j in range(1, m):
                total = _binary(MINIMUM, total, memory[at + si * j])
        memory[out + i] = total


@_jit
def _cumulate(op, n, m, memory, out, a):
    for i in range(n):
        total = 0.0 if op == CUMULATE_SUM else 1.0
        for j in range(i * m, (i + 1) * m):
            total = total + memory[a + j] if op == CUMULATE_SUM else total * memory[a + j]
            memory[out + j] = total


@_jit
def _segment_sum(n, memory, out, index, bounds, where):
    for i in range(n):
        total = 0.0
        for j in range(index[bounds + i], index[bounds + i + 1]):
            total += memory[index[where + j]]
        memory[out + i] = total


@_jit
def _matmul(batch, rows, inner, columns, memory, out, a, sab, sar, sai, b, sbb, sbi, sbc):
    for n in range(batch):
        for i in range(rows):
            for j in range(columns):
                at_a, at_b = a + n * sab + i * sar, b + n * sbb + j * sbc
                total = 0.0
                for k in range(inner):
                    total += memory[at_a + k * sai] * memory[at_b + k * sbi]
                memory[out + (n * rows + i) * columns + j] = total


@_jit
def _cholesky(batch, d, memory, out, a, lower):
    # NaN where a matrix is not positive definite, as LAPACK's caller in PyTensor does
    for n in range(batch):
        x, c = memory[a + n * d * d : a + (n + 1) * d * d], memory[out + n * d * d : out + (n + 1) * d * d]
        good = True
        c[:] = 0.0
        for j in range(d):
            for i in range(j, d):
                total = x[i * d + j] if lower else x[j * d + i]
                for k in range(j):
                    total -= c[i * d + k] * c[j * d + k]
                if i == j:
                    good = good and total > 0
                    c[j * d + j] = math.sqrt(total) if total > 0 else math.nan
                else:
                    c[i * d + j] = total / c[j * d + j]
        if not good:
            c[:] = math.nan
        elif not lower:
            for i in range(d):
                for j in range(i):
                    c[j * d + i] = c[i * d + j]
                    c[i * d + j] = 0.0


@_jit
def _solve(batch, d, columns, memory, out, a, b, lower, unit):
    for n in range(batch):
        t = memory[a + n * d * d : a + (n + 1) * d * d]
        right = memory[b + n * d * columns : b + (n + 1) * d * columns]
        x = memory[out + n * d * columns : out + (n + 1) * d * columns]
        singular = False
        for step in range(d):
            i = step if lower else d - 1 - step
            first, last = (0, i) if lower else (i + 1, d)
            singular = singular or (t[i * d + i] == 0.0 and not unit)
            for j in range(columns):
                total = right[i * columns + j]
                for k in range(first, last):
                    total -= t[i * d + k] * x[k * columns + j]
                x[i * columns + j] = total if unit else total / t[i * d + i]
        if singular:
            x[:] = math.nan


@_jit
def run(code, index, memory, pc, stop):
    """Carry out the instructions from ``code[pc]`` to ``code[stop]``."""
    while pc < stop:
        op = code[pc]
        if op >= _FIRST_UNARY:
            n, out, a, sa = code[pc + 1], code[pc + 2], code[pc + 3], code[pc + 4]
            for i in range(n):
                memory[out + i] = _unary(op, memory[a + sa * i])
            pc += 5
        elif op >= _FIRST_BINARY:
            _binary_loop(op, code[pc + 1], memory, code[pc + 2], code[pc + 3], code[pc + 4], code[pc + 5], code[pc + 6])
            pc += 7
        elif op == GATHER:
            n, out, where = code[pc + 1], code[pc + 2], code[pc + 3]
            for i in range(n):
                memory[out + i] = memory[index[where + i]]
            pc += 4
        elif op >= REDUCE_SUM:
            _reduce(op, code[pc + 1], code[pc + 2], memory, code[pc + 3], code[pc + 4], code[pc + 5], code[pc + 6])
            pc += 7
        elif op == SWITCH:
            n, out, c, sc = code[pc + 1], code[pc + 2], code[pc + 3], code[pc + 4]
            a, sa, b, sb = code[pc + 5], code[pc + 6], code[pc + 7], code[pc + 8]
            for i in range(n):
                memory[out + i] = memory[a + sa * i] if memory[c + sc * i] != 0.0 else memory[b + sb * i]
            pc += 9
        elif op == SEGMENT_SUM:
            _segment_sum(code[pc + 1], memory, code[pc + 2], index, code[pc + 3], code[pc + 4])
            pc += 5
        elif op == MATMUL:
            _matmul(
                code[pc + 1],
                code[pc + 2],
                code[pc + 3],
                code[pc + 4],
                memory,
                code[pc + 5],
                code[pc + 6],
                code[pc + 7],
                code[pc + 8],
                code[pc + 9],
                code[pc + 10],
                code[pc + 11],
                code[pc + 12],
                code[pc + 13],
            )
            pc += 14
        elif op == LOG_SUM_EXP:
            rows, columns, terms = code[pc + 1], code[pc + 2], code[pc + 3]
            out, shares, a = code[pc + 4], code[pc + 5], code[pc + 6]
            log_sum_exp(
                memory[a : a + rows * columns].reshape(rows, columns),
                terms,
                memory[out : out + rows * (columns // terms)].reshape(rows, columns // terms),
                memory[shares : shares + rows * columns].reshape(rows, columns),
            )
            pc += 7
        elif op == CHOLESKY:
            _cholesky(code[pc + 1], code[pc + 2], memory, code[pc + 3], code[pc + 4], code[pc + 5])
            pc += 6
        elif op == SOLVE:
            _solve(
                code[pc + 1],
                code[pc + 2],
                code[pc + 3],
                memory,
                code[pc + 4],
                code[pc + 5],
                code[pc + 6],
                code[pc + 7],
                code[pc + 8],
            )
            pc += 9
        else:
            _cumulate(op, code[pc + 1], code[pc + 2], memory, code[pc + 3], code[pc + 4])
            pc += 5


@_jit
def elementwise(op, rows, columns, a, ao, ai, b, bo, bi, out):
    """A binary operation on large arrays: ``out[i, j]`` from ``a[ao i + ai j]`` and ``b[bo i + bi j]``."""
    n, m, so, si = rows, columns, columns, 1
    if rows > columns:  # the longer loop inside
        n, m, so, si, ao, ai, bo, bi = columns, rows, 1, columns, ai, ao, bi, bo
    for i in range(n):
        at_a, at_b, at = ao * i, bo * i, so * i
        if op == ADD:
            for j in range(m):
                out[at + si * j] = a[at_a + ai * j] + b[at_b + bi * j]
        elif op == MUL:
            for j in range(m):
                out[at + si * j] = a[at_a + ai * j] * b[at_b + bi * j]
        else:
            for j in range(m):
                out[at + si * j] = _binary(op, a[at_a + ai * j], b[at_b + bi * j])
