"""Order of a mixture's components."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesmix.bound import Bound
from bayesmix.params import Params
from bayesmix.spec import Site
from bayesmix.symmetry import Symmetry, permuted


def location_slot(mixture: Site) -> str | None:
    """Name of the slot by which a mixture's components can be ordered: the scalar ``mu`` of its own family."""
    child = mixture.children[0]
    slot = child.slots.get("mu")
    if len(mixture.children) > 1 or slot is None or not child.is_leaf or slot.event or not slot.free:
        return None
    return slot.name if slot.axes == slot.around else None


def in_canonical_order(bound: Bound, params: Params, *others: Params) -> Any:
    """The same mixture with its components in a fixed order: by location where they have one, else by weight.

    Locations ascend and weights descend, within each component of the mixtures around, among the components that may
    change places (`bayesmix.symmetry`); so the posterior density does not change. With `others`, points on the way to
    `params`, a list of all of them, each in the order of `params`.
    """
    out, rest = dict(params), [dict(other) for other in others]
    for symmetry in bound.symmetries:
        key = np.broadcast_to(_keys(symmetry, out), symmetry.shape)
        tie_breaker = np.broadcast_to(_tie_breaker(symmetry, out), symmetry.shape)
        order = symmetry.identity.copy()
        for at, block in symmetry.blocks():
            order[(*at, block)] = block[np.lexsort((tie_breaker[at][block], key[at][block]))]
        out.update(permuted(bound, symmetry, out, order))
        for other in rest:
            other.update(permuted(bound, symmetry, other, order))
    return [out, *rest] if others else out


def _keys(symmetry: Symmetry, params: Params) -> np.ndarray:
    """What the components of a group are sorted by, (*around, G)."""
    by = location_slot(symmetry.site)
    if by is not None and len(symmetry.members) > 1:
        return params[by]
    weights = symmetry.weights
    value = params[weights.name][..., list(symmetry.members)]
    gone = tuple(i for i, axis in enumerate(weights.axes) if axis not in symmetry.around)
    return -np.round(value.mean(gone), 6)


def _tie_breaker(symmetry: Symmetry, params: Params) -> np.ndarray:
    """What tells components of equal weight apart, (G,): the first parameter below, in tree order."""
    for child in symmetry.site.children:
        for site in child.walk() if symmetry.axis is not None else ():
            for slot in site.slots.values():
                if symmetry.axis in slot.axes and slot.free:
                    value = params[slot.name]
                    # entries of a vector differently, so that probabilities do not all sum to 1
                    own = value.reshape(*value.shape[: len(slot.axes)], -1)
                    own = own @ np.arange(1.0, own.shape[-1] + 1)
                    at = slot.axes.index(symmetry.axis)
                    return np.sort(np.moveaxis(own, at, 0).reshape(len(symmetry.axis), -1), axis=1)[:, 0]
    return np.arange(len(symmetry.members))
