"""What a user may give as `random_seed`, as seeds of numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np


def entropy_of(random_seed: Any) -> Any:
    """Entropy for a `numpy.random.SeedSequence`: of an int, None, SeedSequence or Generator (which is advanced)."""
    if isinstance(random_seed, np.random.SeedSequence):
        return [int(word) for word in random_seed.generate_state(4)]
    if isinstance(random_seed, np.random.Generator):
        return int(random_seed.integers(2**63))
    if isinstance(random_seed, (list, tuple, np.ndarray)):
        return [int(word) for word in random_seed]
    return int(random_seed) if isinstance(random_seed, np.integer) else random_seed


def spawned(random_seed: Any, size: int) -> list[np.random.SeedSequence]:
    """Independent seeds."""
    return np.random.SeedSequence(entropy_of(random_seed)).spawn(size)
