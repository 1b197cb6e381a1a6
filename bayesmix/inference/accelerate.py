"""Anderson acceleration of EM: the next point from the last few steps, in coordinates without constraints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bayesmix.bound import Bound
from bayesmix.params import Params, Slot
from bayesmix.spec import Site

#: Steps that are looked back on.
_MEMORY = 10
#: Singular values of the steps' differences below this share of the largest say nothing.
_RANK = 1e-8
#: Longest step in a coordinate (logarithms, scales of a column, angles).
_LONGEST = 3.0
#: Logarithms of scales are kept above this.
_LOG_FLOOR = -690.0

Pair = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def _log(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(x), _LOG_FLOOR)


def _from_sphere(u: np.ndarray) -> np.ndarray:
    squares = u * u
    return squares / np.add.reduce(squares, -1, keepdims=True)


def _packed(cov: np.ndarray) -> np.ndarray:
    factor = np.linalg.cholesky(cov)
    at = np.arange(cov.shape[-1])
    factor[..., at, at] = np.log(factor[..., at, at])
    return factor[(..., *np.tril_indices(cov.shape[-1]))]


def _unpacked(packed: np.ndarray, dimension: int) -> np.ndarray:
    factor = np.zeros((*packed.shape[:-1], dimension, dimension))
    factor[(..., *np.tril_indices(dimension))] = packed
    at = np.arange(dimension)
    factor[..., at, at] = np.exp(factor[..., at, at])
    return factor @ np.swapaxes(factor, -1, -2)


def _maps(slot: Slot, scale: np.ndarray) -> Pair:
    """To coordinates and back, for one slot; `scale` is that of its column."""
    kind = (slot.support.ndim, slot.support.name)
    if kind[0] == 2:
        dimension = slot.shape[-1]
        unit = np.outer(scale, scale) if scale.ndim else scale**2
        return lambda v: _packed(v / unit), lambda u: _unpacked(u, dimension) * unit
    if kind[0] == 1:
        floor = getattr(slot.hyper, "floor", 0.0)
        room = 1 - floor * slot.shape[-1]
        # roots lie on a sphere: a probability that goes to 0 gets there, where its logarithm never would
        return lambda v: np.sqrt(np.maximum(v - floor, 0) / room), lambda u: floor + room * _from_sphere(u)
    if kind[1] == "a probability":
        return lambda v: np.arcsin(np.sqrt(v)), lambda u: np.sin(u) ** 2
    if kind[1] == "a positive number":
        return _log, np.exp
    return lambda v: v / scale, lambda u: u * scale


class Coordinates:
    """Values of a spec's free parameters as one vector without constraints, and back.

    Locations are in units of their column's scale, so that one step's length means the same everywhere.
    """

    def __init__(self, bound: Bound):
        self._slots: list[tuple[Slot, Any, Any]] = []
        self._of_site: dict[str, list[tuple[Slot, Any, Any]]] = {}
        units = []
        for site in bound.site.distinct():
            scale = np.asarray(getattr(site.learned, "scale", 1.0), float)
            own = self._of_site[site.key] = []
            for slot in site.slots.values():
                if slot.free and not slot.discrete:
                    own.append((slot, *_maps(slot, scale)))
                    real = slot.support.ndim == 0 and slot.support.name == "a real number"
                    units.append(np.broadcast_to(scale if real else 1.0, _packed_shape(slot)).ravel())
            self._slots += own
        #: What one unit of each coordinate is in the parameter's own, or its logarithm's, (d,).
        self.units = np.concatenate(units or [np.empty(0)])

    def forward(self, params: Params) -> np.ndarray:
        """Values to a vector."""
        return np.concatenate([np.ravel(to(params[slot.name])) for slot, to, _ in self._slots] or [np.empty(0)])

    def backward(self, u: np.ndarray, like: Params) -> dict[str, np.ndarray]:
        """A vector to values; what is not free comes from `like`."""
        return self._values(self._slots, u, like)

    def size_of(self, site: Site) -> int:
        """Number of coordinates of a site."""
        return sum(int(np.prod(_packed_shape(slot), dtype=int)) for slot, *_ in self._of_site[site.key])

    def of_site(self, site: Site, u: np.ndarray, like: Params) -> dict[str, np.ndarray]:
        """`backward` for the coordinates of one site alone."""
        return self._values(self._of_site[site.key], u, like)

    def radial(self, u: np.ndarray) -> np.ndarray:
        """Unit vectors (M, d) at `u` along which no value changes: the lengths of roots on their spheres."""
        found, at = [], 0
        for slot, *_ in self._slots:
            shape = _packed_shape(slot)
            if slot.support.ndim == 1:
                for begin in range(at, at + int(np.prod(shape, dtype=int)), shape[-1]):
                    vector = np.zeros(len(u))
                    vector[begin : begin + shape[-1]] = u[begin : begin + shape[-1]]
                    found.append(vector / max(float(np.linalg.norm(vector)), 1e-300))
            at += int(np.prod(shape, dtype=int))
        return np.array(found).reshape(-1, len(u))

    def _values(self, slots: list, u: np.ndarray, like: Params) -> dict[str, np.ndarray]:
        out, at = dict(like), 0
        for slot, _, back in slots:
            shape = _packed_shape(slot)
            size = math.prod(shape)
            out[slot.name] = back(u[at : at + size].reshape(shape))
            at += size
        return out


def _packed_shape(slot: Slot) -> tuple[int, ...]:
    if slot.support.ndim < 2:
        return slot.shape
    return (*slot.shape[:-2], slot.shape[-1] * (slot.shape[-1] + 1) // 2)


class Anderson:
    """Points and their images under EM's map F, and the point where F would stand still if it were linear.

    References
    ----------
    Walker and Ni 2011, *SIAM Journal on Numerical Analysis* 49; Henderson and Varadhan 2019, *JCGS* 28, for EM.
    """

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.images: list[np.ndarray] = []
        self.radius = _LONGEST
        self.length = 0.0

    def forget(self) -> None:
        """Begin anew."""
        self.points.clear()
        self.images.clear()

    def judge(self, accepted: bool) -> None:
        """Trust longer leaps after one that gained, shorter ones after one that lost."""
        self.radius = min(2 * self.radius, _LONGEST) if accepted else self.length / 4

    def propose(self, point: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The next point, given F(point) = image."""
        self.points.append(point)
        self.images.append(image)
        if len(self.points) > _MEMORY + 1:
            del self.points[0], self.images[0]
        if len(self.points) < 2:
            return image
        residuals = np.array(self.images) - np.array(self.points)
        steps = np.diff(np.array(self.images), axis=0).T
        falls = np.diff(residuals, axis=0).T
        u, s, vt = np.linalg.svd(falls, full_matrices=False)
        keep = s > _RANK * max(s[0], 1e-300)
        gamma = vt[keep].T @ ((u[:, keep].T @ residuals[-1]) / s[keep])
        step = image - steps @ gamma - point
        longest = np.abs(step).max(initial=0.0)
        allowed = max(self.radius, np.abs(image - point).max(initial=0.0))
        self.length = min(longest, allowed)
        return point + step * (self.length / longest) if longest > 0 else image
