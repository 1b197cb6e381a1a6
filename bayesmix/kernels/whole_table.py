"""The E-step kernel over a whole table, as a function that code compiled by numba calls by its name.

`bayesmix.plan.Plan` does the same from Python, with threads and with memory that it keeps. Here nothing is kept, so
that any number of threads may call at once, and nothing of a table is known when it is compiled: its columns, its
instructions and its sizes are arguments. The callers' code has a call in it and not the kernel, which LLVM would
optimise again for every model (4 to 8 s each). `bayesmix.kernels.log_density` calls it with memory of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from functools import cache

import llvmlite.binding as llvm
import numba as nb
import numpy as np
from numba.core import types

from bayesmix.kernels.e_step import e_step

_SYMBOL = "bayesmix_whole_table"
integers, doubles = types.CPointer(types.int64), types.CPointer(types.float64)
_signature = types.float64(
    *(doubles, types.intp, doubles, types.intp),  # natural parameters, row weights
    *(integers, types.intp, types.intp, integers, types.intp, doubles, types.intp),  # code, ints, floats
    *(integers, types.intp, types.intp, integers, integers, types.intp, integers),  # bounds, caps, cuts, sizes
    *(doubles, types.intp, doubles, types.boolean),  # rows, statistics, down
    *(doubles, types.intp),  # memory to work in, or none
)
by_name = types.ExternalFunction(_SYMBOL, _signature)
_jit = nb.njit(error_model="numpy", nogil=True)


def _whole_table(
    natural_at, size, weights_at, n_weights, code_at, n_code, width, ints_at, n_ints, floats_at, n_floats,
    bounds_at, n_levels, n_bounds, caps_at, cuts_at, n_cuts, sizes_at, rows_at, n_rows, stats_at, down,
    memory_at, n_memory,
):  # fmt: skip
    """See `run`, of whose arrays these are addresses and lengths."""
    natural, weights = nb.carray(natural_at, (size,)), nb.carray(weights_at, (n_weights,))
    code, bounds = nb.carray(code_at, (n_code, width)), nb.carray(bounds_at, (n_levels, n_bounds))
    ints, floats = nb.carray(ints_at, (n_ints,)), nb.carray(floats_at, (n_floats,))
    caps, cuts = nb.carray(caps_at, (n_levels,)), nb.carray(cuts_at, (n_cuts,))
    rows, stats = nb.carray(rows_at, (n_rows,)), nb.carray(stats_at, (size,))
    room, used, root = sizes_at[0], sizes_at[1], sizes_at[2]
    # what stands beyond a block has no weight, but must be a number
    memory = nb.carray(memory_at, (n_memory,)) if n_memory else np.zeros(memory_size(sizes_at))
    work, resp = _aligned(memory, 0, sizes_at[3]), _aligned(memory, sizes_at[3] + 8, used)
    n_parts = n_cuts - 1
    logliks, parts = np.zeros(n_parts), np.zeros((n_parts, size))
    e_step(
        code, ints, floats, natural, weights, bounds, caps, room, used, root,
        cuts, 0, n_parts, work, resp, rows, logliks, parts, down,
    )  # fmt: skip
    for i in range(n_parts):
        for j in range(size):
            stats[j] += parts[i, j]
    return logliks.sum()


@_jit
def memory_size(sizes):
    """How many numbers, all zeros at first, a caller must give who has the function work in its memory."""
    return sizes[3] + sizes[1] + 16


@_jit
def _aligned(room, first, size):
    """Part of the memory that begins with a line of the cache."""
    first += (8 - (room.ctypes.data // 8 + first) % 8) % 8
    return room[first : first + size]


@cache
def link() -> None:
    """Make the function known to the linker under its name: before any code that calls it is compiled or loaded."""
    compiled = nb.cfunc(_signature, error_model="numpy", cache=True)(_whole_table)
    llvm.add_symbol(_SYMBOL, compiled.address)
    _linked.append(compiled)


_linked: list = []


@_jit
def run(natural, weights, code, ints, floats, bounds, caps, cuts, sizes, with_rows, down):
    """Log-likelihood, log densities of the rows that are stored, and expected statistics, at natural parameters.

    For compiled callers only, and after `link`.

    Parameters
    ----------
    natural : ndarray, shape (size,)
    weights : ndarray, shape (n_stored,) or (0,)
        Of the rows that are stored; empty where all are 1.
    code, ints, floats, bounds, caps, cuts : ndarray
        See `bayesmix.kernels.e_step.e_step`; `code` may leave out the values of rows that are mostly zeros.
    sizes : ndarray of int, shape (5,)
        ``room``, ``used`` and ``root``, how many numbers ``work`` takes, and N.
    with_rows, down : bool
        Whether to find log densities (else none, shape (0,)) and statistics (else zeros).
    """
    natural, weights = np.ascontiguousarray(natural), np.ascontiguousarray(weights)
    code, bounds, caps = np.ascontiguousarray(code), np.ascontiguousarray(bounds), np.ascontiguousarray(caps)
    ints, floats, sizes = np.ascontiguousarray(ints), np.ascontiguousarray(floats), np.ascontiguousarray(sizes)
    cuts = np.ascontiguousarray(cuts)
    rows, stats = np.empty(bounds[0, -1] if with_rows else 0), np.zeros(natural.size)
    loglik = by_name(
        natural.ctypes, natural.size, weights.ctypes, weights.size,
        code.ctypes, code.shape[0], code.shape[1], ints.ctypes, ints.size, floats.ctypes, floats.size,
        bounds.ctypes, bounds.shape[0], bounds.shape[1], caps.ctypes, cuts.ctypes, cuts.size, sizes.ctypes,
        rows.ctypes, rows.size, stats.ctypes, down, stats.ctypes, 0,
    )  # fmt: skip
    return loglik, rows, stats


@_jit
def gathered(weights, groups):
    """Row weights (N,) as `run` takes them. See `bayesmix.plan.Plan.gathered`."""
    if groups.size == 0:
        return np.empty(0) if (weights == 1.0).all() else np.ascontiguousarray(weights)
    own = np.zeros(groups.max() + 1)
    for n in range(groups.size):
        own[groups[n]] += weights[n]
    return own


@_jit
def spread(rows, groups):
    """Numbers of the rows that are stored as numbers of all rows (N,)."""
    return rows if groups.size == 0 else rows[groups]


@cache
def version() -> str:
    """What a cache of compiled callers must have in its key: all that becomes part of their code."""
    return hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()
