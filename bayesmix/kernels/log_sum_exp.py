"""Log-sum-exp over groups of columns as one PyTensor Op: one pass at run time, and quick to compile."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch import basic as numba_basic

#: Part of the key of PyTensor's cache on disk: raise it whenever the numba code below changes.
VERSION = 3
#: Rows that stay in the first cache while they are worked on.
BLOCK = 256

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
#: 1/12!, …, 1/1!, 1: the series of exp, enough for |r| <= ln(2)/2 to half a unit in the last place.
_SERIES = tuple(1.0 / math.factorial(n) for n in range(12, -1, -1))
_C12, _C11, _C10, _C9, _C8, _C7, _C6, _C5, _C4, _C3, _C2, _C1, _C0 = _SERIES


# no fast-math: -inf and NaN must come through, and reassociation would break the exponential's range reduction
_jit = nb.njit(error_model="numpy", nogil=True, cache=True)


@_jit
def exp_in_place(values, scratch):
    """Replace non-positive `values` (M,) by their exponentials, in loops that vectorise; relative error < 1e-15.

    numba's own scalar ``exp`` is a call a number (8 to 11 ns). Below -708 the result is 0. NaN stays NaN.
    `scratch` is int64 of at least M entries.
    """
    size = values.size
    powers = scratch[:size].view(np.float64)
    for i in range(size):
        x = max(values[i], -745.0)
        k = np.floor(x * _LOG2_E + 0.5)
        r = (x - k * _LN2_HIGH) - k * _LN2_LOW
        p = _C12 * r + _C11
        p = p * r + _C10
        p = p * r + _C9
        p = p * r + _C8
        p = p * r + _C7
        p = p * r + _C6
        p = p * r + _C5
        p = p * r + _C4
        p = p * r + _C3
        p = p * r + _C2
        p = p * r + _C1
        p = p * r + _C0
        scratch[i] = (np.int64(max(k, -1022.0)) + 1023) << 52
        values[i] = p if values[i] >= -708.0 else (0.0 if values[i] < -708.0 else values[i])
    for i in range(size):
        values[i] *= powers[i]


@_jit
def log_in_place(values):
    """Replace `values` (M,), each at least 1, by their logarithms, in a loop that vectorises; infinity and NaN stay.

    The reduction and the polynomial of fdlibm's ``log``: relative error < 1e-15.
    """
    bits = values.view(np.int64)
    for i in range(values.size):
        x = values[i]
        # powers of two out, so that the rest lies between sqrt(1/2) and sqrt(2)
        shifted = bits[i] + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
        k = (shifted >> 52) - 1023
        bits[i] = (shifted & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD
        f = values[i] - 1.0
        s = f / (2.0 + f)
        z = s * s
        r = 0.1479819860511658591 * z + 0.1531383769920937332
        r = r * z + 0.1818357216161805012
        r = r * z + 0.2222219843214978396
        r = r * z + 0.2857142874366239149
        r = r * z + 0.3999999999940941908
        r = r * z + 0.6666666666666735130
        half = 0.5 * f * f
        found = k * _LN2_HIGH - ((half - (s * (half + r * z) + k * _LN2_LOW)) - f)
        values[i] = found if x < np.inf else x


@_jit
def log_sum_exp(x, n_terms, out, shares):
    """Fill `out` (N, K) and `shares` (N, K G) from `x` (N, K G); see `LogSumExp`.

    A block of rows at a time, and in it term by term, so that the inner loops run over rows and vectorise.
    """
    n_rows, n_columns = x.shape
    block = min(BLOCK, n_rows)
    terms, scratch = np.empty(n_terms * block), np.empty(n_terms * block, np.int64)
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
                    terms[g * size + n] = x[first + n, k * n_terms + g] - shift
            exp_in_place(terms[: n_terms * size], scratch)
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
