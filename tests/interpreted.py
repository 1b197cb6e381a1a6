"""A pytest plugin: kernels as Python, so that coverage sees their lines.

    NUMBA_DISABLE_JIT=1 pytest -p tests.interpreted tests/test_plan.py

What numba compiles is not traced. Here it compiles nothing, and numpy and scipy stand in for what only a compiler has:
the bits of a number, a part of an array, arithmetic that is infinite where Python's raises. For tests of the kernels on
small tables: it is a thousand times slower.
"""

import ctypes
import math
import os
from types import SimpleNamespace

import numpy as np
from scipy import special

from bayesmix.kernels import e_step, interpreter, log_density, log_sum_exp, whole_table

_doubles, _integers = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_int64)


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


def _by_name(*arguments):
    """The function that a linker would find, with the arrays' addresses as pointers."""
    return whole_table._whole_table(*[_pointer(each) if hasattr(each, "data_as") else each for each in arguments])


def _pointer(array):
    return array.data_as(_doubles if array._arr.dtype == float else _integers)


def _functions():
    """What a compiler would give: functions that C can call, by their addresses."""
    whole, size = ctypes.c_int64, ctypes.c_uint64
    density = ctypes.CFUNCTYPE(whole, size, _doubles, _doubles, _doubles, _integers)(log_density._log_density)
    point = ctypes.CFUNCTYPE(whole, size, size, _doubles, _doubles, _integers)(log_density._point)
    return tuple(
        SimpleNamespace(kept=each, address=ctypes.cast(each, ctypes.c_void_p).value) for each in (density, point)
    )


if os.environ.get("NUMBA_DISABLE_JIT") != "1":
    raise RuntimeError("tests.interpreted: NUMBA_DISABLE_JIT=1 is needed in the environment.")
e_step.np = _Numpy()
interpreter.math = _Math()
e_step._part = lambda array, first, size: array[first : first + size]
for module in (e_step, log_sum_exp):
    module.bits = _bits
log_sum_exp._double = _double
whole_table.by_name, whole_table.link, log_density.by_name, log_density.functions = _by_name, int, _by_name, _functions
log_density._doubles_at = lambda address: ctypes.cast(int(address), _doubles)
log_density._integers_at = lambda address: ctypes.cast(int(address), _integers)
for function in (special.gammaln, special.psi, special.erf, special.erfc, special.erfcx):
    setattr(interpreter, f"_{function.__name__}", lambda x, _, function=function: function(x))
for compiled in (e_step.e_step, interpreter.run, interpreter.elementwise):
    compiled.signatures = ["none is needed"]
