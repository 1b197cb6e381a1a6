"""PyTensor functions that run op by op, at once; those that are called often are `bayesmix.tape`'s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.mode import Mode, optdb
from pytensor.graph.basic import Constant
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.traversal import graph_inputs

from bayesmix.threads import ALONE

#: Compiles nothing: for functions that are small, or called a few times. Sums stay sums of two: flattened into one of
#: many terms they would not run, since NumPy's functions take 32 operands.
QUICK = Mode(linker="py", optimizer=RewriteDatabaseQuery(include=["fast_compile"], exclude=["local_add_canonizer"]))


class QuickFunction:
    """A function of PyTensor expressions that runs op by op, at once.

    Inner graphs (an ``OpFromGraph``) are linked when they first run; without a C compiler in PyTensor's
    configuration they run op by op too, instead of being compiled for seconds. It may be called from several threads.

    Parameters
    ----------
    inputs : sequence of Variable
    outputs : Variable or list of Variable
    """

    def __init__(self, inputs: Sequence[Any], outputs: Any):
        with no_compiler():
            self._function = pytensor.function(list(inputs), outputs, mode=QUICK, on_unused_input="ignore")
        self._called = False

    def __call__(self, *values: Any) -> Any:
        with ALONE:  # a function of PyTensor's has its arguments in itself
            if self._called:
                return self._function(*values)
            with no_compiler():
                self._called = True
                return self._function(*values)


@contextmanager
def no_compiler() -> Iterator[None]:
    """Within it, PyTensor compiles nothing for rewrites and inner graphs.

    One thread at a time: the flags are the whole process's, and two threads would put back each other's.
    """
    with ALONE, pytensor.config.change_flags(cxx="", linker="py", traceback__limit=0):
        yield


def simplified(inputs: Sequence[Any], outputs: Sequence[Any]) -> FunctionGraph:
    """A canonical, stable and merged copy of the graph in plain operations: nothing fused, in place or BLAS's own."""
    others = [v for v in graph_inputs(outputs) if not isinstance(v, Constant) and v not in set(inputs)]
    graph = FunctionGraph([*inputs, *others], outputs, clone=True)
    _SIMPLIFY.rewrite(graph)
    return graph


_SIMPLIFY = optdb.query(
    RewriteDatabaseQuery(include=["fast_compile"], exclude=["BlasOpt", "blas", "fusion", "inplace", "py_only"])
)


def constant(expression: Any) -> np.ndarray:
    """Value of an expression without inputs, for instance a hyperparameter, as float64."""
    if isinstance(expression, Constant):
        return np.asarray(expression.data, float)
    return np.asarray(QuickFunction([], expression)(), float)
