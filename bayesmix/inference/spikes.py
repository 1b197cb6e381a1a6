"""Spikes: components that shrink onto rows with one value, and whether the posterior has finite mass there.

m rows that share a value let a component sit on it with a scale that goes to 0; its density then grows as the scale to
the power -m. A prior that falls off faster outweighs that. With one that does not, such as a half-normal for scales,
the posterior is improper, however sensible its other modes look and however well chains mix around them.

What is computed is the mass, not the density. Along the path onto the rows, at scales of ever smaller tenths, log
density of the unconstrained coordinates plus the logarithms of the widths over which it falls by a half. If the sum
does not fall from one step to the next, the integral along the path has no end. No family is named: the M-step under
flat priors, given the tied rows and a vanishing share of all others, leads along the path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.bound import Bound, bind_learned
from bayesmix.build import model_of, variables_at
from bayesmix.errors import quiet
from bayesmix.inference.target import Target
from bayesmix.params import Params, Slot
from bayesmix.spec import Encoded, Site

#: Shares of the rows that are not tied; scales go with the square root (normal) or in proportion (exponential).
_SHARES = (1e-8, 1e-10, 1e-12)
#: Nats that the mass must fall by, a step, to count as falling. One row less or more is 2.3.
_FALLS = 1.0
#: Widths of coordinates are at most this.
_WIDEST = 1.0


@dataclass(frozen=True)
class Spike:
    """A point that a component can shrink onto without end.

    Attributes
    ----------
    field : str
        Path of the field, empty for a lone family.
    value : str
    ties : int
        Rows that share it.
    gain : float
        Nats that the mass gains where the scale is a tenth.
    slots : tuple of str
    """

    field: str
    value: str
    ties: int
    gain: float
    slots: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.field} = {self.value}" if self.field else self.value
        return (
            f"{self.ties} rows are tied at {where}, and the prior lets a component shrink onto them: towards a scale "
            f"of 0 the posterior's mass does not fall ({self.gain:+.1f} nats a step), so that it is improper."
        )


def spikes(
    bound: Bound,
    data: Encoded,
    params: Params,
    row_weights: np.ndarray | None = None,
    target: Target | None = None,
    others: Params | None = None,
    only: Collection[str] | None = None,
) -> list[Spike]:
    """Points that a component can shrink onto, with a posterior mass that does not end there.

    Parameters
    ----------
    bound : Bound
    data : Encoded
        N rows.
    params : dict
        A sensible point: the components that do not shrink stay there.
    row_weights : ndarray, shape (N,), optional
    target : Target, optional
        The log posterior with Jacobians, where it is made already, without an order.
    others : dict, optional
        Values of variables of its model that are not the spec's.
    only : collection of str, optional
        Slots, one of which a family must have to be looked at.

    References
    ----------
    Day 1969, *Biometrika* 56, for the likelihood's spikes.
    """
    found = []
    flat = None
    for site, block in bound.site.walk_with(data):
        if not site.is_leaf or site.n_components < 2 or not any(s.free and not s.discrete for s in site.slots.values()):
            continue
        if only is not None and not any(slot.name in only for slot in site.slots.values()):
            continue
        if (tie := largest_tie(block)) is None:
            continue
        rows, value = tie
        if flat is None:
            flat = {
                each.key: each for each in bind_learned(bound.spec.with_flat_priors(), bound.learned).site.distinct()
            }
        gains = []
        for k in range(site.n_components):
            path = list(_path(site, flat[site.key], block, rows, params, k))
            if len(path) < len(_SHARES):
                break  # its density has a bound: nothing shrinks
            if target is None:
                held = {name: params[name] for name in bound.discrete_slots}
                model = model_of(bound.held(held), data, row_weights=row_weights, initval=params)
                target = Target(model, variables_at(bound, params), jacobian=True)
            at = [target.unconstrained({**(others or {}), **variables_at(bound, point)}) for point in path[-2:]]
            # on all others the component's scale has no say any more: their widths are the same at both points
            concerned = np.flatnonzero((at[0] != at[1]) | ~target.of_variables(bound.slots))
            mass = [_log_mass(target, here, concerned) for here in at]
            if np.isfinite(mass).all():
                gains.append(mass[1] - mass[0])
        if gains and max(gains) > -_FALLS:
            names = tuple(slot.name for slot in site.slots.values() if slot.free)
            found.append(Spike(site.place.path, value, len(rows), float(max(gains)), names))
    return found


def largest_tie(block: Encoded) -> tuple[np.ndarray, str] | None:
    """Positions, among the present rows, of the value that comes most often, if it comes twice."""
    values = block.arrays.get("value")
    if not isinstance(values, np.ndarray) or len(values) < 2 or values.dtype.kind not in "fiu":
        return None
    distinct, inverse, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    if counts.max() < 2 or len(distinct) < 2:
        return None
    chosen = distinct[counts.argmax()]
    return np.flatnonzero(np.ravel(inverse) == counts.argmax()), f"{np.round(chosen, 6).tolist()}"


def _path(
    site: Site, flat: Site, block: Encoded, rows: np.ndarray, params: Params, k: int
) -> Iterator[dict[str, np.ndarray]]:
    """Parameters with one of the site's components ever closer to the rows; ends where it does not shrink.

    The site's other components take all rows, so that none of them loses by what the one no longer covers.
    """
    present = np.arange(block.n_rows) if block.present is None else block.present
    height = -np.inf
    for share in _SHARES:
        resp = np.ones((block.n_rows, site.n_components))
        resp[:, k] = share
        resp[present[rows], k] = 1.0
        stats: dict[str, Any] = {}
        with quiet(), np.errstate(all="ignore"):
            try:
                flat.node.accumulate(flat, None, block, resp, stats)
                moved = flat.node.update(flat, stats, params)
            except (np.linalg.LinAlgError, FloatingPointError, ValueError):
                return
        point = dict(params)
        for name, slot in site.slots.items():
            if slot.free and not slot.discrete and slot.name in moved:
                point[slot.name] = _placed(slot, flat.slots[name].components(moved[slot.name]), k)
                if not slot.support.contains(point[slot.name]):
                    return
        with np.errstate(all="ignore"):
            before, height = height, float(site.evaluate(point, block.take(present[rows[:1]])).log_density[0, k])
        if not height > before + _FALLS:
            return
        yield point


def _placed(slot: Slot, values: np.ndarray, k: int) -> np.ndarray:
    """Components' values (K, *event) in the slot's shape; what components share is component k's."""
    own = slot.of_components(values)
    if slot.axes == slot.around:
        return own
    flat = np.array(slot.own_components(own))
    flat[slot._places[k]] = values[k]
    return flat.reshape(slot.shape)


def _log_mass(target: Target, here: np.ndarray, coordinates: np.ndarray) -> float:
    """Log density at a point plus the log widths of some of its coordinates."""
    height = target(here)[0]
    return height + sum(_log_width(target, here, i, height) for i in coordinates)


def _log_width(target: Target, here: np.ndarray, i: int, height: float) -> float:
    """Log of the distance, both ways together, within which the log density falls by a half."""
    total = 0.0
    for way in (-1.0, 1.0):
        low, high = -60.0, np.log(_WIDEST)
        for _ in range(18):  # to 2e-4
            middle = (low + high) / 2
            moved = here.copy()
            moved[i] += way * np.exp(middle)
            inside = target(moved)[0] > height - 0.5
            low, high = (middle, high) if inside else (low, middle)
        total += np.exp(low)
    return float(np.log(total))
