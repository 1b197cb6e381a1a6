"""A log posterior as nutpie calls it: by its address, in threads of its own, without Python's lock.

Most log posteriors are a tape of arithmetic around passes over tables of rows, all of which is compiled
(`bayesmix.kernels.log_density`). One with an operation that only Python can run, as a user's own, is called as Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesmix.kernels import log_density, whole_table
from bayesmix.tape import Tape


class NativeDensity:
    """A tape of one vector, which gives a log density and its gradient, by its address. One thread's at a time.

    Parameters
    ----------
    tape : Tape
    origin, scale : ndarray, shape (d,), or None
        The tape's point is ``origin + scale * v``; without them it is v.

    Raises
    ------
    NotCompiled
        A step of the tape is Python's.

    Attributes
    ----------
    density, point : numba.core.ccallback.CFunc
        What to call for each step of NUTS, and for each draw.
    user_data : ndarray
        What to call them with.
    """

    def __init__(self, tape: Tape, origin: np.ndarray | None = None, scale: np.ndarray | None = None):
        [(first, last)] = tape._inputs
        self._alive: list[np.ndarray] = []  # what the list has addresses of
        (value_at, gradient_at) = (_place(kind, where, dtype) for kind, where, dtype in tape._outputs)
        memory, steps = tape._memory.copy(), [_words(step, self) for step in tape._steps]
        head = [last - first, *self.address(tape._code), *self.address(tape._index), *self.address(memory), first]
        head += [value_at, gradient_at]
        head += [0, 0] if scale is None or origin is None else [self.address(origin)[0], self.address(scale)[0]]
        words = [*head, len(steps), *[word for step in steps for word in step]]
        self.user_data = np.array(words, np.int64)
        self.density, self.point = log_density.functions()

    def address(self, array: np.ndarray) -> tuple[int, ...]:
        """Address and lengths of an array, which is kept from now on."""
        kind = np.int64 if array.dtype.kind in "iub" else np.float64
        self._alive.append(np.ascontiguousarray(array, kind))
        return self._alive[-1].ctypes.data, *array.shape


class NotCompiled(Exception):
    """A step that only Python can carry out."""


def _place(kind: str, where: Any, dtype: Any) -> int:
    if kind != "memory" or np.dtype(dtype) != np.float64:
        raise NotCompiled
    return int(where[0])


def _words(step: Any, to: NativeDensity) -> list[int]:
    """One step as integers."""
    if isinstance(step, tuple):
        return [log_density.RUN, *step, *[0] * (log_density.WIDTH - 3)]
    if not hasattr(step.node.op, "table"):
        raise NotCompiled
    kind, at, dtype = step.inputs[0]
    places = [_place(kind, at, dtype), *[_place(kind, at, np.float64) for kind, at in step.outputs]]
    table = step.node.op.table()
    words = [log_density.ROWS, *places, int(np.prod(step.outputs[1][1][1]))]
    for name in ("weights", "code", "ints", "floats", "bounds"):
        words += to.address(table[name])
    words += [to.address(table["caps"])[0], *to.address(table["cuts"]), to.address(table["sizes"])[0]]
    words += to.address(np.zeros(whole_table.memory_size(table["sizes"])))
    return [*words, *[0] * (log_density.WIDTH - len(words))]


def nutpie_model(density: NativeDensity, start: np.ndarray) -> Any:
    """What `nutpie.sample` takes: its draws are one vector ``unconstrained``, and its chain begins at `start`."""
    import pandas as pd
    from nutpie.compile_pymc import CompiledPyMCModel

    size = len(start)
    return CompiledPyMCModel(
        dims={"unconstrained": ("coordinate",)},
        compiled_logp_func=density.density,
        compiled_expand_func=density.point,
        initial_point_func=lambda seed: start.copy(),
        shared_data={},
        shared_var_keys={},
        user_data=density.user_data,
        n_expanded=size,
        shape_info=(["unconstrained"], [slice(0, size)], [(size,)]),
        logp_func=density,  # kept as long as the model
        expand_func=None,
        _n_dim=size,
        _shapes={"unconstrained": (size,)},
        _coords={"coordinate": pd.RangeIndex(size)},
    )
