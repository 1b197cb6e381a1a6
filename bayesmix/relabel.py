"""Order of a mixture's components."""

from __future__ import annotations

import numpy as np

from bayesmix.bound import Bound
from bayesmix.params import Params
from bayesmix.spec import Site


def location_slot(mixture: Site) -> str | None:
    """Name of the slot by which a mixture's components can be ordered: the scalar ``mu`` of its own family."""
    child = mixture.children[0]
    slot = child.slots.get("mu")
    return slot.name if slot is not None and not child.children and not slot.event and slot.free else None


def in_canonical_order(bound: Bound, params: Params) -> dict[str, np.ndarray]:
    """The same mixture with its components in a fixed order: by location where they have one, else by weight.

    Locations ascend and weights descend, within each component of the mixtures around. The density does not
    change, unless a prior or a fixed value tells the components apart: then their order is left alone.
    """
    out = dict(params)
    for site in bound.site.walk():
        if "weights" in site.slots and exchangeable(site):
            by = location_slot(site)
            key = out[by] if by is not None else -out[site.slots["weights"].name]
            moved = {**out, **_permuted(site, out, np.argsort(key, axis=-1, kind="stable"))}
            # a prior without known hyperparameters may still tell the components apart
            if np.isclose(bound.log_prior(moved), bound.log_prior(out), rtol=1e-9, atol=1e-9):
                out = moved
    return out


def exchangeable(mixture: Site) -> bool:
    """Whether every parameter below has one prior for all of the mixture's components."""
    axis = len(mixture.place.axes)
    for site in mixture.walk():
        for slot in site.slots.values():
            event_axis = site is mixture and slot.name == mixture.slots["weights"].name
            if slot.kind == "tensor":
                return False
            if slot.kind == "fixed" and not _constant_along(slot.value, slot.value.ndim - 1 if event_axis else axis):
                return False
            if slot.hyper is not None and not _hyper_constant(slot, axis, event_axis):
                return False
    return True


def _hyper_constant(slot, axis: int, event_axis: bool) -> bool:
    for value in vars(slot.hyper).values():
        value = np.asarray(value)
        if value.ndim == 0:
            continue
        batch = tuple(len(dim) for dim in slot.axes)
        full = value.reshape(batch + value.shape[1:])
        if not _constant_along(full, full.ndim - 1 if event_axis else axis):
            return False
    return True


def _constant_along(array: np.ndarray, axis: int) -> bool:
    return bool((array == np.take(array, [0], axis)).all())


def _permuted(mixture: Site, params: Params, order: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays below `mixture` with its axis permuted by `order` (*axes around, G)."""
    weights = mixture.slots["weights"].name
    axis = len(mixture.place.axes)
    moved = {weights: np.take_along_axis(params[weights], order, -1)}
    for site in mixture.children[0].walk():
        for slot in site.slots.values():
            value = params[slot.name]
            index = order.reshape(order.shape + (1,) * (value.ndim - order.ndim))
            moved[slot.name] = np.take_along_axis(value, index, axis)
    return moved
