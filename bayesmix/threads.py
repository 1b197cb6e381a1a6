"""What a library that is called from several threads must do one at a time.

Fits share no state, so that threads need no locks. But two things on their way belong to the whole process and to
other libraries: PyTensor's configuration, and Python's warnings filters, which ``warnings.catch_warnings`` puts aside
and back. Two threads that do so at once put back each other's: what one of them silenced stays silent for good.
PyTensor does the second with almost every graph that it makes, numba when it compiles, ArviZ when it measures draws,
pandas and xarray here and there. So that part of a fit, seconds of Python, is one thread's at a time; what takes long,
the kernels' work, is not. The library's own warnings need no filters (see `bayesmix.errors.heard`).

A process forks with the lock free and with the settings as the user has them, whatever other threads do.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

#: Held while something is changed that belongs to the whole process. The same thread may take it again.
ALONE = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=ALONE.acquire, after_in_parent=ALONE.release, after_in_child=ALONE.release)


def alone[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function with `ALONE` held."""

    @wraps(function)
    def held(*args: P.args, **kwargs: P.kwargs) -> R:
        with ALONE:
            return function(*args, **kwargs)

    return held


@contextmanager
def without_warnings(message: str) -> Iterator[None]:
    """Keep back another library's warnings that begin with `message` (a regular expression), and no others."""
    with ALONE, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message)
        yield
