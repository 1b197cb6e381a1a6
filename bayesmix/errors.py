"""Errors and warnings: each says what, where, the value and the way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class _Faults(ValueError):
    """An error that lists every fault found, not only the first one."""

    noun = "faults"

    def __init__(self, faults: str | Iterable[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        if len(self.faults) == 1:
            message = self.faults[0]
        else:
            numbered = "; ".join(f"({i}) {fault}" for i, fault in enumerate(self.faults, 1))
            message = f"{len(self.faults)} {self.noun}: {numbered}"
        super().__init__(message)


class SpecError(_Faults):
    """A specification that cannot be a model. ``faults`` lists every fault by path."""

    noun = "faults in the spec"


class DataError(_Faults):
    """Data that the specification cannot take. ``faults`` names field, row, value and way out."""

    noun = "faults in the data"


def gather_faults(steps: Iterable[Callable[[], Any]], most: int | None = None) -> list:
    """Take every step, and raise the data faults of all together; where there are more than `most`, how many more."""
    found, faults = [], []
    for step in steps:
        try:
            found.append(step())
        except DataError as error:
            faults += error.faults
    if faults:
        rest = 0 if most is None else len(faults) - most
        raise DataError([*faults[:most], f"{rest} more like these."] if rest > 0 else faults)
    return found


class MomentsError(ValueError):
    """Moments that no mixture of the asked kind has. The message says what to try instead."""


class BayesmixWarning(UserWarning):
    """Base class of the library's warnings, so that one filter catches them all."""


class ConvergenceWarning(BayesmixWarning):
    """An engine stopped before its convergence rule held."""


class DegenerateWarning(BayesmixWarning):
    """A component describes no group, or the data let one do so: it is empty, holds a single row, or rows that tie."""


class IndistinctWarning(DegenerateWarning):
    """Two components describe the same rows: there are too many of them."""


class ImproperWarning(BayesmixWarning):
    """A prior leaves the posterior without finite mass."""


class ApproximationWarning(BayesmixWarning):
    """A normal approximation is too far from the posterior for its draws to be used."""


class MultimodalWarning(BayesmixWarning):
    """The posterior has other modes of some weight than the one that an engine describes."""


#: The list that this context's warnings go to, or None: to Python's filters, which all threads have in common.
_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def warn(message: str, category: type[BayesmixWarning], *, stacklevel: int = 1) -> None:
    """Warn as `warnings.warn` does, unless the context keeps the library's warnings back."""
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    else:
        heard.append(message)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect the messages of the library's warnings, in this thread only, instead of raising them."""
    messages: list[str] = []
    token = _HEARD.set(messages)
    try:
        yield messages
    finally:
        _HEARD.reset(token)


#: The same, for fits within a fit, whose warnings are nobody's business.
quiet = heard
