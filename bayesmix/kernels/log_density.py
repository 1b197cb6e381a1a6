"""A tape that finds a log density and its gradient, as a function of C: nutpie calls it without the interpreter's lock.

Such a tape (`bayesmix.tape`) is arithmetic, one or more passes over tables of rows, and arithmetic again. All of it is
compiled already; here are the calls in between, so that chains run side by side on several cores, and a gradient of a
small table does not cost more to ask for than to find. What a function has to know stands in a list of integers,
addresses most of them, which nutpie hands to it. A list is one thread's: the memory that it works in is there too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba as nb
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from bayesmix.kernels import interpreter, whole_table
from bayesmix.kernels.whole_table import by_name, doubles, integers

#: Before the steps: coordinates, code, index and memory with their lengths, the first input's place, those of the value
#: and the gradient, origin and scale of the coordinates (0: none), and the number of steps.
HEAD = 13
#: Numbers of a step: its kind, and for RUN the first instruction and the last; for ROWS the places of natural
#: parameters, log-likelihood and statistics, and what `bayesmix.kernels.whole_table` takes.
WIDTH = 23
RUN, ROWS = range(2)
#: What nutpie takes for a point outside the support: the leapfrog step is a divergence, and the chain goes on.
_NOT_FINITE = 1

_jit = nb.njit(error_model="numpy", nogil=True)
_density_signature = types.int64(types.uint64, doubles, doubles, doubles, integers)
_point_signature = types.int64(types.uint64, types.uint64, doubles, doubles, integers)


def _to_pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.int64), generate

    return pointer


_doubles_at, _integers_at = _to_pointer(doubles), _to_pointer(integers)


@_jit
def _moved(n, u_at, where_at, point):
    """The point that coordinates stand for."""
    u = nb.carray(u_at, (n,))
    if where_at[11]:
        origin, scale = nb.carray(_doubles_at(where_at[10]), (n,)), nb.carray(_doubles_at(where_at[11]), (n,))
        for i in range(n):
            point[i] = origin[i] + scale[i] * u[i]
    else:
        for i in range(n):
            point[i] = u[i]


def _log_density(size, u_at, gradient_at, value_at, where_at):
    n = where_at[0]
    code = nb.carray(_integers_at(where_at[1]), (where_at[2],))
    index = nb.carray(_integers_at(where_at[3]), (where_at[4],))
    memory = nb.carray(_doubles_at(where_at[5]), (where_at[6],))
    _moved(n, u_at, where_at, memory[where_at[7] : where_at[7] + n])
    at = HEAD
    for _ in range(where_at[12]):
        if where_at[at] == RUN:
            interpreter.run(code, index, memory, where_at[at + 1], where_at[at + 2])
        else:
            width, first = where_at[at + 4], where_at[at + 3]
            memory[first : first + width] = 0.0
            memory[where_at[at + 2]] = by_name(
                _doubles_at(where_at[5] + 8 * where_at[at + 1]), width,
                _doubles_at(where_at[at + 5]), where_at[at + 6],
                _integers_at(where_at[at + 7]), where_at[at + 8], where_at[at + 9],
                _integers_at(where_at[at + 10]), where_at[at + 11],
                _doubles_at(where_at[at + 12]), where_at[at + 13],
                _integers_at(where_at[at + 14]), where_at[at + 15], where_at[at + 16],
                _integers_at(where_at[at + 17]), _integers_at(where_at[at + 18]), where_at[at + 19],
                _integers_at(where_at[at + 20]),
                _doubles_at(where_at[5]), 0, _doubles_at(where_at[5] + 8 * first), True,
                _doubles_at(where_at[at + 21]), where_at[at + 22],
            )  # fmt: skip
        at += WIDTH
    value, found = memory[where_at[8]], memory[where_at[9] : where_at[9] + n]
    value_at[0] = value
    finite = np.isfinite(value)
    scale_at = _doubles_at(where_at[11])
    for i in range(n):
        gradient_at[i] = found[i] * scale_at[i] if where_at[11] else found[i]
        finite = finite and np.isfinite(gradient_at[i])
    return 0 if finite else _NOT_FINITE


def _point(size, n_out, u_at, out_at, where_at):
    _moved(where_at[0], u_at, where_at, nb.carray(out_at, (where_at[0],)))
    return 0


@cache
def functions() -> tuple[Any, Any]:
    """The log density, and the point that coordinates stand for: what nutpie calls for each step and for each draw."""
    whole_table.link()
    made = nb.cfunc(_density_signature, error_model="numpy", cache=True)(_log_density)
    return made, nb.cfunc(_point_signature, error_model="numpy", cache=True)(_point)
