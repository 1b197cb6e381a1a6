"""Errors and warnings: each says what, where, the value and the way out."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
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
    """A specification that cannot be a model. ``faults`` lists every fault by path.

    Examples
    --------
    >>> import bayesmix as bm
    >>> try:
    ...     bm.fit(bm.Mixture(bm.Normal(sigma=-1.0), 2), [1.0, 2.0, 5.0])
    ... except bm.SpecError as error:
    ...     print(error)
    sigma: must be a positive number, not -1.0.
    """

    noun = "faults in the spec"


class DataError(_Faults):
    """Data that the specification cannot take. ``faults`` names field, row, value and way out.

    Examples
    --------
    >>> import bayesmix as bm
    >>> try:
    ...     bm.fit(bm.Mixture(bm.Poisson(), 2), {"visits": [1, 0, -2, 3]})
    ... except bm.DataError as error:
    ...     print(error)
    visits: Poisson needs whole numbers >= 0; row 2 is -2. Use a different family or mark it missing (NaN).
    """

    noun = "faults in the data"


def close_to(name: str, known: Iterable[str]) -> str:
    """``" Did you mean Horsepower?"`` where a known name is close to a wrong one, else nothing."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, 1, 0.7)
    return f" Did you mean {by_lower[found[0]]}?" if found else ""


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
    """Moments that no mixture of the asked kind has. The message says what to try instead.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.random.default_rng(1).exponential(1, 2000)
    >>> try:
    ...     bm.fit_moments(bm.Mixture(bm.Normal(), 2), x)
    ... except bm.MomentsError as error:
    ...     print(error)
    two normals: no mixture of two has these moments (skewness 2.09, kurtosis 9.53). ...
    """


class BayesmixWarning(UserWarning):
    """Base class of the library's warnings, so that one filter catches them all.

    Examples
    --------
    >>> import warnings, numpy as np, bayesmix as bm
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", bm.BayesmixWarning)
    ...     fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), np.arange(9.0), max_iter=1, random_seed=1)
    """


class ConvergenceWarning(BayesmixWarning):
    """An engine stopped before its convergence rule held.

    Examples
    --------
    >>> import warnings, numpy as np, bayesmix as bm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), np.arange(9.0), max_iter=1, random_seed=1)
    >>> any(issubclass(warning.category, bm.ConvergenceWarning) for warning in caught)
    True
    >>> fit.status.converged
    False
    """


class DegenerateWarning(BayesmixWarning):
    """A component describes no group, or the data let one do so: it is empty, holds a single row, or rows that tie.

    Examples
    --------
    >>> import warnings, numpy as np, bayesmix as bm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit(bm.Mixture(bm.Normal(), 2), np.full(20, 5.0), random_seed=1)
    >>> any(issubclass(warning.category, bm.DegenerateWarning) for warning in caught)
    True
    """


class IndistinctWarning(DegenerateWarning):
    """Two components describe the same rows: there are too many of them.

    Examples
    --------
    >>> import warnings, numpy as np, bayesmix as bm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([3, 4, 2, 3, 5, 3, 4]), random_seed=1)
    >>> any(issubclass(warning.category, bm.IndistinctWarning) for warning in caught)
    True
    """


class PriorWarning(BayesmixWarning):
    """A prior holds a component far from what its own rows say.

    Default priors are worth two or three rows of the column's own size: much, where a component is far smaller.

    Examples
    --------
    >>> import warnings, numpy as np, pymc as pm, bayesmix as bm
    >>> rng = np.random.default_rng(0)
    >>> x = np.r_[rng.normal(0, 1, 100), rng.normal(1000, 1, 100)]
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    >>> any(issubclass(warning.category, bm.PriorWarning) for warning in caught)
    True
    >>> narrow = bm.Mixture(bm.Normal(sigma=pm.InverseGamma.dist(2, 3)), 2)
    >>> bm.fit(narrow, x, random_seed=1).params["sigma"].round()
    array([1., 1.])
    """


class ImproperWarning(BayesmixWarning):
    """A prior leaves the posterior without finite mass.

    Examples
    --------
    >>> import warnings, numpy as np, pymc as pm, bayesmix as bm
    >>> x = np.append(np.random.default_rng(1).normal(size=20), [5.0] * 3)  # three that tie
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit(bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(5)), 2), x, random_seed=1)
    >>> any(issubclass(warning.category, bm.ImproperWarning) for warning in caught)
    True
    """


class ApproximationWarning(BayesmixWarning):
    """A normal approximation is too far from the posterior for its draws to be used.

    Examples
    --------
    >>> import warnings, numpy as np, bayesmix as bm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bm.fit_laplace(bm.Mixture(bm.Normal(), 2), np.array([0.0, 1.0, 5.0, 6.2]), random_seed=1)
    >>> any(issubclass(warning.category, bm.ApproximationWarning) for warning in caught)
    True
    """


class MultimodalWarning(BayesmixWarning):
    """The posterior has other modes of some weight than the one that an engine describes.

    Examples
    --------
    >>> import warnings, bayesmix as bm
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", bm.MultimodalWarning)  # stop rather than go on with one mode of several
    """


#: The list that this context's warnings go to, or None: to Python's filters, which all threads have in common.
_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


#: Lines in here are not what a warning points at: the user's line that led to it is.
_LIBRARY = (f"{Path(__file__).parent}{os.sep}",)


def warn(message: str, category: type[BayesmixWarning]) -> None:
    """Warn at the line outside the library that led here, unless the context keeps the library's warnings back."""
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(message, category, stacklevel=2, skip_file_prefixes=_LIBRARY)
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
