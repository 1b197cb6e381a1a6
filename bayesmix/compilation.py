"""Small PyTensor functions without a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor
from pytensor.graph.basic import Constant

#: Compiles nothing: for functions that are small, or called a few times.
QUICK = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")


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


def _no_compiler() -> Any:
    return pytensor.config.change_flags(cxx="", linker="py")


def constant(expression: Any) -> np.ndarray:
    """Value of an expression without inputs, for instance a hyperparameter, as float64."""
    if isinstance(expression, Constant):
        return np.asarray(expression.data, float)
    return np.asarray(QuickFunction([], expression)(), float)


