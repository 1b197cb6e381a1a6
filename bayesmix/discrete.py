"""Parameters of finitely many values (the position of a spike): summed out of the PyMC model, drawn afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from bayesmix.bound import Bound
from bayesmix.conjugate import Position
from bayesmix.errors import SpecError
from bayesmix.spec import Encoded
from bayesmix.statistics import weighted_sum

#: Combinations of values that are summed over, at most; where the likelihood is written out for each, fewer.
_MOST, _MOST_WRITTEN = 2_000, 100


def combinations(bound: Bound, *, written: bool = False) -> list[dict[str, np.ndarray]]:
    """Every value of the discrete slots together; one empty combination where there are none.

    Parameters
    ----------
    bound : Bound
    written : bool
        Whether each is to be a likelihood in PyTensor's own operations: thousands of them take hours to simplify.

    Raises
    ------
    SpecError
        There are too many.
    """
    slots = bound.discrete_slots
    ranges, sizes = [], []
    for slot in slots.values():
        prior = cast(Position, slot.hyper)
        lower, upper = int(np.min(prior.lower)), int(np.max(prior.upper))
        sizes.append(int(np.prod(slot.shape, dtype=int)))
        ranges += [range(lower, upper + 1)] * sizes[-1]
    count = np.prod([float(len(values)) for values in ranges])
    if count > (_MOST_WRITTEN if written else _MOST):
        way_out = 'take likelihood="fused"' if count <= _MOST else 'use method="em", which profiles them'
        raise SpecError(
            f"{', '.join(slots)}: {count:.0f} combinations of positions are too many to sum over. Fix some of them "
            f"(k=…), take fewer components, or {way_out}."
        )
    found = []
    for values in itertools.product(*ranges):
        parts, at = {}, 0
        for (name, slot), size in zip(slots.items(), sizes):
            parts[name] = np.array(values[at : at + size], float).reshape(slot.shape)
            at += size
        found.append(parts)
    return found


def completed(
    bound: Bound, data: Encoded, row_weights: np.ndarray, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws (chain, draw, *shape) of all free slots: the discrete ones from their distribution given the others."""
    slots = bound.discrete_slots
    if not slots:
        return {name: draws[name] for name in bound.free_slots}
    every = combinations(bound)
    shape = next(iter(draws.values())).shape[:2]
    found: dict[str, Any] = {name: np.empty((*shape, *slot.shape)) for name, slot in slots.items()}
    for at in np.ndindex(*shape):
        continuous = bound.with_fixed({name: values[at] for name, values in draws.items()})
        scores = np.array(
            [weighted_sum(bound.log_density({**continuous, **each}, data), row_weights) for each in every]
        )
        chance = np.exp(scores - scores.max())
        chosen = every[rng.choice(len(every), p=chance / chance.sum())]
        for name, value in chosen.items():
            found[name][at] = value
    return {name: found[name] if name in found else draws[name] for name in bound.free_slots}
