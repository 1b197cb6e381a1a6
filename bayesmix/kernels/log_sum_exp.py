"""Log-sum-exp over groups of columns as one PyTensor Op: one pass at run time, and quick to compile."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytensor.tensor as pt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch import basic as numba_basic

#: Part of the key of PyTensor's cache on disk: raise it whenever the numba code below changes.
VERSION = 4
#: Rows that stay in the first cache while they are worked on.
BLOCK = 256

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
#: Added to a number below 2^51 it leaves the nearest whole number in the last bits.
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52
#: exp on [-ln(2)/2, ln(2)/2], highest power first: Chebyshev's nodes, degree 11, relative error 3e-18 before rounding.
_E11, _E10, _E9 = 2.511015364692893e-08, 2.763279054211718e-07, 2.7557240604663896e-06
_E8, _E7, _E6 = 2.4801485074105115e-05, 0.00019841269890340666, 0.0013888888952696516
_E5, _E4, _E3, _E2 = 0.00833333333331949, 0.04166666666648666, 0.1666666666666668, 0.5000000000000019

# no reassociation, which would break the exponential's range reduction; -inf and NaN must come through
_jit = nb.njit(error_model="numpy", nogil=True, cache=True, fastmath={"contract"})


@intrinsic
def bits(typing, x):
    """The 64 bits of a double as a whole number."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _double(typing, bits):
    """The double of 64 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@_jit
def exp(value):
    """Exponential of a number <= 0, relative error < 3e-16; loops over it vectorise.

    numba's own scalar ``exp`` is a call a number (8 to 11 ns). Below -708 the result is 0. NaN stays NaN.
    """
    x = -708.0 if value < -708.0 else value
    shifted = x * _LOG2_E + _ROUNDER
    k = shifted - _ROUNDER
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = _E11 * r + _E10
    p = p * r + _E9
    p = p * r + _E8
    p = p * r + _E7
    p = p * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    p = p * r + 1.0
    p = p * r + 1.0
    found = p * _double((bits(shifted) + 1023) << 52)
    return 0.0 if value < -708.0 else found


@_jit
def _reduced(x):
    """The power of two k and f with ``x = 2^k (1 + f)``, 1 + f between sqrt(1/2) and sqrt(2)."""
    whole = bits(x)
    k = ((whole + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)) >> 52) - 1023
    return k, _double(whole - (k << 52)) - 1.0


@_jit
def _log(k, f, s):
    """Polynomial of fdlibm, with s = f / (2 + f)."""
    z = s * s
    r = 0.1479819860511658591 * z + 0.1531383769920937332
    r = r * z + 0.1818357216161805012
    r = r * z + 0.2222219843214978396
    r = r * z + 0.2857142874366239149
    r = r * z + 0.3999999999940941908
    r = r * z + 0.6666666666666735130
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + r * z) + k * _LN2_LOW)) - f)


@_jit
def log(x):
    """Logarithm of a number >= 1, relative error < 1e-15; loops over it vectorise. Infinity and NaN stay."""
    k, f = _reduced(x)
    found = _log(k, f, f / (2.0 + f))
    return found if x < np.inf else x


@_jit
def log_and_inverse(x):
    """Logarithm and inverse of a number from 1 to 1e300, relative error < 2e-15, for one division. NaN stays."""
    k, f = _reduced(x)
    quotient = 1.0 / ((2.0 + f) * x)
    found = _log(k, f, f * (x * quotient))
    return found, (2.0 + f) * quotient


@_jit
def log_in_place(values):
    """Replace `values` (M,), each at least 1, by their logarithms."""
    for i in range(values.size):
        values[i] = log(values[i])


@_jit
def log_sum_exp(x, n_terms, out, shares):
    """Fill `out` (N, K) and `shares` (N, K G) from `x` (N, K G); see `LogSumExp`.

    A block of rows at a time, and in it term by term, so that the inner loops run over rows and vectorise.
    """
    n_rows, n_columns = x.shape
    block = min(BLOCK, n_rows)
    terms = np.empty(n_terms * block)
    tops, totals, inverses = np.empty(block), np.empty(block), np.empty(block)
    for first in range(0, n_rows, BLOCK):
        size = min(BLOCK, n_rows - first)
        for k in range(n_columns // n_terms):
            for n in range(size):
                tops[n] = x[first + n, k * n_terms]
            for g in range(k * n_terms + 1, (k + 1) * n_terms):
                for n in range(size):
                    value = x[first + n, g]
                    tops[n] = value if value > tops[n] or value != value else tops[n]
            for g in range(n_terms):
                for n in range(size):
                    shift = 0.0 if tops[n] == -np.inf else tops[n]
                    terms[g * size + n] = exp(x[first + n, k * n_terms + g] - shift)
            totals[:size] = 0.0
            for g in range(n_terms):
                for n in range(size):
                    totals[n] += terms[g * size + n]
            for n in range(size):
                excluded = tops[n] == -np.inf  # by every term
                inverses[n] = 0.0 if excluded else 1.0 / totals[n]
                totals[n] = 1.0 if excluded else totals[n]
            log_in_place(totals[:size])
            for n in range(size):
                out[first + n, k] = tops[n] + totals[n]
            for g in range(n_terms):
                for n in range(size):
                    shares[first + n, k * n_terms + g] = terms[g * size + n] * inverses[n]


class LogSumExp(Op):
    """``log Σ_g exp(x[n, k G + g])`` of an (N, K G) matrix, and the shares of its terms.

    Outputs are (N, K), -inf where every term is, and the shares (N, K G), which sum to 1 over each group of G
    columns (0 where every term is -inf). The shares are the gradient, so that the pullback costs no exponential.

    PyTensor's own goes through a maximum whose numba code takes seconds to compile (measured: 6 s of the 20 s
    that the first logp and gradient of a Normal mixture took on a cold cache).

    Parameters
    ----------
    n_terms : int
        G, the number of columns that are summed.
    """

    __props__ = ("n_terms",)

    def __init__(self, n_terms: int):
        self.n_terms = n_terms

    def make_node(self, x):
        """One matrix in, two out."""
        x = pt.as_tensor(x)
        columns = x.type.shape[1]
        groups = None if columns is None else columns // self.n_terms
        outputs = [pt.matrix(dtype=x.dtype, shape=(x.type.shape[0], width)) for width in (groups, columns)]
        return Apply(self, [x], outputs)

    def perform(self, node, inputs, output_storage):
        """See the class."""
        x = np.ascontiguousarray(inputs[0])
        out, shares = np.empty((x.shape[0], x.shape[1] // self.n_terms), x.dtype), np.empty_like(x)
        log_sum_exp(x, self.n_terms, out, shares)
        output_storage[0][0], output_storage[1][0] = out, shares

    def infer_shape(self, node, input_shapes):
        """Shapes from the input's."""
        [(rows, columns)] = input_shapes
        return [(rows, columns // self.n_terms), (rows, columns)]

    def pullback(self, inputs, outputs, cotangents):
        """Gradient by the shares; exact to any order."""
        shares = outputs[1]
        g, g_shares = cotangents
        terms = []
        if not isinstance(g.type, DisconnectedType):
            terms.append(self._spread(g) * shares)
        if not isinstance(g_shares.type, DisconnectedType):
            inner = (g_shares * shares).reshape((shares.shape[0], -1, self.n_terms)).sum(-1)
            terms.append(shares * (g_shares - self._spread(inner)))
        return [sum(terms[1:], start=terms[0])] if terms else [disconnected_type()]

    def _spread(self, g):
        """(N, K) to (N, K G), each entry repeated over its group; (N, 1) broadcasts by itself."""
        return g if g.type.shape[1] == 1 else pt.repeat(g, self.n_terms, axis=1)


@numba_basic.register_funcify_default_op_cache_key(LogSumExp)
def _numba_log_sum_exp(op, node, **kwargs):
    n_terms = op.n_terms

    @numba_basic.numba_njit(fastmath=False, error_model="numpy")
    def log_sum_exp_of(x):
        out, shares = np.empty((x.shape[0], x.shape[1] // n_terms), x.dtype), np.empty(x.shape, x.dtype)
        log_sum_exp(x, n_terms, out, shares)
        return out, shares

    return log_sum_exp_of, VERSION
