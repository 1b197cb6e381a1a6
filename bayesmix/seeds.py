"""What a user may give as `random_seed`, as seeds and generators of numpy's."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

_NUMPYS = (np.random.SeedSequence, np.random.Generator, np.random.BitGenerator, np.random.RandomState)


def generator(random_seed: Any) -> np.random.Generator:
    """A generator; the one that is given, if one is.

    Raises
    ------
    ValueError
        It is no seed.
    """
    _check(random_seed)
    return np.random.default_rng(random_seed)


def entropy_of(random_seed: Any) -> Any:
    """Entropy for a `numpy.random.SeedSequence`: of an int, None, SeedSequence or Generator (which is advanced).

    Raises
    ------
    ValueError
        It is no seed.
    """
    _check(random_seed)
    if isinstance(random_seed, np.random.SeedSequence):
        return [int(word) for word in random_seed.generate_state(4)]
    if isinstance(random_seed, _NUMPYS):
        return int(np.random.default_rng(random_seed).integers(2**63))
    if isinstance(random_seed, (list, tuple, np.ndarray)):
        return [int(word) for word in random_seed]
    return int(random_seed) if isinstance(random_seed, np.integer) else random_seed


def spawned(random_seed: Any, size: int) -> list[np.random.SeedSequence]:
    """Independent seeds."""
    return np.random.SeedSequence(entropy_of(random_seed)).spawn(size)


def _check(random_seed: Any) -> None:
    words = random_seed if isinstance(random_seed, (list, tuple, np.ndarray)) else [random_seed]
    if random_seed is None or isinstance(random_seed, _NUMPYS) or all(map(_is_word, words)):
        return
    raise ValueError(
        "random_seed: a whole number of at least 0, numpy's SeedSequence or Generator, or None is needed, not "
        f"{random_seed!r}."
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
