"""How PyTensor functions run here: op by op at once, or compiled by numba without the GIL."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.numba import NumbaLinker
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit

#: Compiles nothing: for functions that are small, or called a few times.
QUICK = Mode(linker="py", optimizer="fast_compile")


class QuickFunction:
    """A function of PyTensor expressions that runs op by op, at once.

    Inner graphs (an ``OpFromGraph``) are linked when they first run; without a C compiler in PyTensor's
    configuration they run op by op too, instead of being compiled for seconds.

    Parameters
    ----------
    inputs : sequence of Variable
    outputs : Variable or list of Variable
    """

    def __init__(self, inputs: Sequence[Any], outputs: Any):
        with _no_compiler():
            self._function = pytensor.function(list(inputs), outputs, mode=QUICK, on_unused_input="ignore")
        self._called = False

    def __call__(self, *values: Any) -> Any:
        if self._called:
            return self._function(*values)
        with _no_compiler():
            self._called = True
            return self._function(*values)


class _ReleasingLinker(NumbaLinker):
    """PyTensor's numba linker, with the GIL released while the function runs, so that chains run in threads."""

    def jit_compile(self, fn_and_cache: Any) -> Any:
        """Compile the whole graph as one function that other threads need not wait for."""
        fn, cache_key = fn_and_cache
        plain = fn.py_func
        # a function of its own, so that the cache on disk keeps it apart from the one that holds the GIL
        own = FunctionType(plain.__code__, plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__)
        if cache_key is not None:
            CACHED_SRC_FUNCTIONS[own] = f"{cache_key}_nogil"
        return numba_njit(own, final_function=True, cache=cache_key is not None, nogil=True)


THREADED = Mode(_ReleasingLinker(), RewriteDatabaseQuery(include=["fast_run", "numba"]))


class CompiledFunction:
    """A function of one vector compiled by numba, called without PyTensor's wrapping and without the GIL.

    Shared variables keep the values that they have when it is made.

    Parameters
    ----------
    vector : TensorVariable
    outputs : list of Variable
    """

    def __init__(self, vector: Any, outputs: list):
        self._function = pytensor.function([vector], outputs, mode=THREADED, trust_input=True)
        self._others = [container.storage[0] for container in self._function.input_storage][1:]
        self._run = self._function.vm.jit_fn

    def __call__(self, value: np.ndarray) -> Any:
        return self._run(value, *self._others)


def _no_compiler() -> Any:
    return pytensor.config.change_flags(cxx="", linker="py")


def constant(expression: Any) -> np.ndarray:
    """Value of an expression without inputs, for instance a hyperparameter, as float64."""
    if isinstance(expression, Constant):
        return np.asarray(expression.data, float)
    return np.asarray(QuickFunction([], expression)(), float)
