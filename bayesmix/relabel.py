"""Order of a mixture's components."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesmix.bound import Bound
from bayesmix.params import Dim, Params, Slot
from bayesmix.spec import Site


def location_slot(mixture: Site) -> str | None:
    """Name of the slot by which a mixture's components can be ordered: the scalar ``mu`` of its own family."""
    child = mixture.children[0]
    slot = child.slots.get("mu")
    if len(mixture.children) > 1 or slot is None or not child.is_leaf or slot.event or not slot.free:
        return None
    return slot.name if slot.axes == slot.around else None


def in_canonical_order(bound: Bound, params: Params, *others: Params) -> Any:
    """The same mixture with its components in a fixed order: by location where they have one, else by weight.

    Locations ascend and weights descend, within each component of the mixtures around, and among the components of one
    spec. The density does not change, unless a prior or a fixed value tells the components apart: then their order is
    left alone. With `others`, points on the way to `params`, a list of all of them, each in the order of `params`.
    """
    out, rest = dict(params), [dict(other) for other in others]
    for site in bound.site.distinct():
        if "weights" not in site.slots:
            continue
        for group, child in zip(site.node.groups, site.children):
            if not child.axes or len(group.members) < 2 or child.axes[-1].labels != group.members:
                continue
            axis, around = child.axes[-1], child.axes[:-1]
            if not exchangeable(site, axis):
                continue
            key = _keys(site, group, around, out)
            order = np.lexsort((np.broadcast_to(_tie_breaker(child, axis, out), key.shape), key), axis=-1)
            moved = {**out, **_permuted(bound.site, site, axis, around, order, out, group.members)}
            # a prior without known hyperparameters may still tell the components apart
            if np.isclose(bound.log_prior(moved), bound.log_prior(out), rtol=1e-9, atol=1e-9):
                out = moved
                rest = [{**p, **_permuted(bound.site, site, axis, around, order, p, group.members)} for p in rest]
    return [out, *rest] if others else out


def _keys(site: Site, group, around: tuple[Dim, ...], params: Params) -> np.ndarray:
    """What the components of a group are sorted by, (*around, G)."""
    by = location_slot(site)
    if by is not None:
        return params[by]
    weights = site.slots["weights"]
    value = params[weights.name][..., list(group.members)]
    gone = tuple(i for i, axis in enumerate(weights.axes) if axis not in around)
    return -np.round(value.mean(gone), 6)


def _tie_breaker(child: Site, axis: Dim, params: Params) -> np.ndarray:
    """What tells components of equal weight apart, (G,): the first parameter below, in tree order."""
    for site in child.walk():
        for slot in site.slots.values():
            if axis in slot.axes and slot.free:
                value = params[slot.name]
                # entries of a vector differently, so that probabilities do not all sum to 1
                own = value.reshape(*value.shape[: len(slot.axes)], -1)
                own = own @ np.arange(1.0, own.shape[-1] + 1)
                at = slot.axes.index(axis)
                return np.sort(np.moveaxis(own, at, 0).reshape(len(axis), -1), axis=1)[:, 0]
    return np.arange(len(axis))


def exchangeable(mixture: Site, axis: Dim) -> bool:
    """Whether every parameter below has one prior for all of the mixture's components along `axis`."""
    for site in mixture.walk():
        for slot in site.slots.values():
            if slot.kind == "tensor":
                return False
            dims = (*slot.axes, *slot.event)
            at = [i for i, dim in enumerate(dims) if dim == axis]
            if site is mixture and slot is mixture.slots["weights"] and not at:
                at = [len(dims) - 1]  # a group's components among all of the mixture's
            for i in at:
                if slot.kind == "fixed" and not _constant_along(slot.value, i):
                    return False
                if slot.hyper is not None and not _hyper_constant(slot, i):
                    return False
    return True


def _hyper_constant(slot: Slot, axis: int) -> bool:
    for name, value in vars(slot.hyper).items():
        value = np.asarray(value)
        if value.ndim == 0 or name == "places":
            continue
        full = value.reshape(tuple(len(dim) for dim in slot.axes) + value.shape[1:])
        if full.ndim > axis and not _constant_along(full, axis):
            return False
    return True


def _constant_along(array: np.ndarray, axis: int) -> bool:
    return bool((array == np.take(array, [0], axis)).all())


def _permuted(root: Site, mixture: Site, axis: Dim, around: tuple, order: np.ndarray, params: Params, members) -> dict:
    """Arrays with a group's components permuted along `axis` by `order` (*around, G)."""
    moved = {}
    weights = mixture.slots["weights"]
    for site in root.distinct():
        for slot in site.slots.values():
            value = params[slot.name]
            if slot is weights:
                index = _aligned(order, around, slot.axes, value.ndim - 1)
                full = value.copy()
                part = value[..., list(members)]
                index = np.broadcast_to(index, part.shape)
                full[..., list(members)] = np.take_along_axis(part, index, -1)
                moved[slot.name] = full
            elif axis in slot.axes:
                place = slot.axes.index(axis)
                index = _aligned(order, around, slot.axes[:place], place)
                index = index.reshape(index.shape + (1,) * (value.ndim - index.ndim))
                moved[slot.name] = np.take_along_axis(value, index, place)
    return moved


def _aligned(order: np.ndarray, around: tuple, axes: tuple, ndim: int) -> np.ndarray:
    """`order` (*around, G) with an axis of length one for every one of `axes` that is not in `around`."""
    lengths = [len(axis) if axis in around else 1 for axis in axes] + [1] * (ndim - len(axes))
    return order.reshape([*lengths, order.shape[-1]])
