"""What the numbers that public functions take must be: one rule for a name, the same wherever the name stands.

A wrong number is found before any work is done, and is never handed on to a sampler that would hang or stop with a
message of its own.
"""

from __future__ import annotations

from math import inf
from numbers import Integral, Real
from typing import Any

#: Whole numbers of at least 1.
_COUNTS = set(
    "batch_size chains cores draws max_fields max_panels max_rows max_states minibatch n_components n_draws n_fields "
    "n_init n_passes n_points n_rows n_splits n_starts replications size subsample thin tune".split()
)
#: Lower and upper bounds of numbers, whether these count, and how that is said.
_NUMBERS = {
    "kappa": (0.5, 1.0, False, True, "a number above 0.5 and up to 1 (with others online EM does not converge)"),
    "min_prob": (0.0, 1.0, True, True, "a number from 0 to 1"),
    "prob": (0.0, 1.0, False, False, "a number between 0 and 1"),
    "t0": (0.0, inf, False, False, "a number above 0"),
    "target_accept": (0.0, 1.0, False, False, "a number between 0 and 1"),
    "tol": (0.0, inf, True, False, "a number of at least 0"),
}
#: What may be None: the function chooses.
_OPTIONAL = {"cores", "minibatch", "n_points", "n_rows", "subsample"}


def check(**given: Any) -> None:
    """Raise `ValueError` unless each argument is what its name asks for.

    Parameters
    ----------
    **given
        Arguments by name.

    Examples
    --------
    >>> check(draws=1000, target_accept=0.8, subsample=None)
    >>> check(draws=2.5)
    Traceback (most recent call last):
    ...
    ValueError: draws: a whole number of at least 1 is needed, not 2.5.
    """
    for name, value in given.items():
        if value is None and name in _OPTIONAL:
            continue
        wanted = _unmet(name, value)
        if wanted:
            raise ValueError(f"{name}: {wanted}{' or None' if name in _OPTIONAL else ''} is needed, not {value!r}.")


def _unmet(name: str, value: Any) -> str:
    """What is wanted instead of a value; empty where it will do."""
    if name == "n_jobs":
        fine = _is(Integral, value) and (value >= 1 or value == -1)
        return "" if fine else "a whole number of threads, or -1 for all processors,"
    if name in _COUNTS or name == "max_iter":
        least = int(name in _COUNTS)
        return "" if _is(Integral, value) and value >= least else f"a whole number of at least {least}"
    low, high, from_low, to_high, wanted = _NUMBERS[name]
    fine = _is(Real, value) and (low < value < high or (from_low and value == low) or (to_high and value == high))
    return "" if fine else wanted


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
