"""A pytest plugin: kernels as Python, so that coverage sees their lines.

    NUMBA_DISABLE_JIT=1 pytest -p tests.interpreted tests/test_plan.py

What numba compiles is not traced. Here it compiles nothing, and numpy and scipy stand in for what only a compiler has:
the bits of a number, a part of an array, arithmetic that is infinite where Python's raises. For tests of the kernels on
small tables: it is a thousand times slower.
"""

import math
import os

import numpy as np
from scipy import special

from bayesmix.kernels import e_step, interpreter, log_sum_exp


class _Numpy:
    """numpy, with indices that are Python's numbers: there a signed and an unsigned one make a real one."""

    uintp = staticmethod(int)

    def __getattr__(self, name):
        return getattr(np, name)


class _Math:
    """The bare machine's functions of one number."""

    isinf, isnan, floor = staticmethod(np.isinf), staticmethod(np.isnan), staticmethod(np.floor)
    atan2 = staticmethod(np.arctan2)

    def __getattr__(self, name):
        return getattr(np if hasattr(np, name) else math, name)


def _bits(x):
    return np.float64(x).view(np.int64)


def _double(whole):
    return np.int64(whole).view(np.float64)


if os.environ.get("NUMBA_DISABLE_JIT") != "1":
    raise RuntimeError("tests.interpreted: NUMBA_DISABLE_JIT=1 is needed in the environment.")
e_step.np = _Numpy()
interpreter.math = _Math()
e_step._part = lambda array, first, size: array[first : first + size]
for module in (e_step, log_sum_exp):
    module.bits = _bits
log_sum_exp._double = _double
for function in (special.gammaln, special.psi, special.erf, special.erfc, special.erfcx):
    setattr(interpreter, f"_{function.__name__}", lambda x, _, function=function: function(x))
for compiled in (e_step.e_step, interpreter.run, interpreter.elementwise):
    compiled.signatures = ["none is needed"]
