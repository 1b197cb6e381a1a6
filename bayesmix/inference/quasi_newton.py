r"""The Newton step of the log posterior, from the M-step's own objective and the points already seen.

EM's objective at statistics T, :math:`Q(u; T)`, has by Fisher's identity the gradient of the log posterior at the point
of T, and by Louis' the Hessian but for what the missing labels take away:

.. math:: \nabla^2 \log p = -A + C, \qquad A = -\nabla^2 Q.

Q is a sum over sites of few numbers each, whatever the number of rows: its differences cost no pass over the data.
They give the gradient, and the metric A, in which EM's own step is that of steepest ascent. What the Hessian is in
that metric is learned from the change of the gradient along the steps made (symmetric rank one, which can also show
an ascent direction), those of plain EM included. Steps are held to a trust region, and the metric is found again on
the way.

References
----------
Jamshidian and Jennrich 1997, *JRSS B* 59; Louis 1982, *JRSS B* 44; Conn, Gould and Toint 1991, *Mathematical
Programming* 50, for the symmetric rank-one update in a trust region.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from bayesmix.bound import Bound
from bayesmix.inference.accelerate import Coordinates
from bayesmix.params import Params
from bayesmix.spec import Site, Stats

#: Differences that the metric may take: more would take longer than the passes that they save.
_MOST = 2500
#: Half the distance of a central difference.
_STEP = 1e-3
#: Share of the metric's largest eigenvalue below which a direction does not count (the length of roots on a sphere).
_RANK = 1e-9
#: Longest step in a coordinate.
_LONGEST = 2.0
#: Pairs of an update whose share is smaller say nothing of the curvature.
_SECANT = 1e-8


class Complete:
    """EM's objective given statistics, by site, in the coordinates of `Coordinates`.

    Parameters
    ----------
    bound : Bound
    """

    def __init__(self, bound: Bound):
        self.coordinates = Coordinates(bound)
        self.sites: list[tuple[Site, slice]] = []
        at = 0
        for site in bound.site.distinct():
            size = self.coordinates.size_of(site)
            if size:
                self.sites.append((site, slice(at, at + size)))
            at += size
        self.size = at
        self.cheap = not bound.discrete_slots and sum((s.stop - s.start) ** 2 for _, s in self.sites) <= _MOST

    def gradient(self, u: np.ndarray, image: np.ndarray, stats: Stats, like: Params) -> np.ndarray:
        """Gradient of the log posterior at `u` (d,), whose statistics are `stats` and whose image under EM is `image`.

        Q's own gradient at the image is zero: what its differences make of it there is their error, and is taken off.
        So the gradient is exact where EM stands still, though the differences are wide enough for rounding.
        """
        out = np.zeros(self.size)
        for site, where in self.sites:
            value = self._value(site, stats, like)
            here, there = u[where], image[where]
            for i in range(len(here)):
                h = np.zeros(len(here))
                h[i] = _STEP
                rise = value(here + h) - value(here - h) - (value(there + h) - value(there - h))
                out[where.start + i] = rise / (2 * _STEP)
        return out

    def information(self, u: np.ndarray, stats: Stats, like: Params) -> np.ndarray:
        """A (d, d): minus Q's Hessian at `u`, block by block; zero along what the coordinates do not count (radii)."""
        out = np.zeros((self.size, self.size))
        for site, where in self.sites:
            value, here, d = self._value(site, stats, like), u[where], where.stop - where.start
            steps = _STEP * np.eye(d)
            middle = value(here)
            up, down = (np.array([value(here + sign * step) for step in steps]) for sign in (1, -1))
            block = np.diag(up + down - 2 * middle)
            for i in range(d):
                for j in range(i):
                    both = value(here + steps[i] + steps[j]) + value(here - steps[i] - steps[j])
                    block[i, j] = block[j, i] = 0.5 * (both + 2 * middle - up[i] - down[i] - up[j] - down[j])
            out[where, where] = -block / _STEP**2
        radial = self.coordinates.radial(u)
        out -= radial.T @ (radial @ out)
        return out - (out @ radial.T) @ radial

    def _value(self, site: Site, stats: Stats, like: Params) -> Callable[[np.ndarray], float]:
        own, given = stats[site.key], {slot.name: like[slot.name] for slot in site.slots.values()}
        priors = [(slot.name, slot.log_prior) for slot in site.slots.values() if slot.free]

        def value(u: np.ndarray) -> float:
            params = self.coordinates.of_site(site, u, given)
            expected = site.node.expected_logp(site.values(params), own, site.learned, np)
            return float(np.add.reduce(expected)) + sum(prior(params[name]) for name, prior in priors)

        return value


class QuasiNewton:
    """Points, gradients and what they say of the Hessian; the next point.

    Parameters
    ----------
    complete : Complete
    """

    def __init__(self, complete: Complete):
        self.complete = complete
        self.radius = np.inf
        self.length = 0.0
        self.predicted = 0.0
        self._whitened = np.empty((0, 0))  # u = whitened @ v, in which A is the identity
        self._back = np.empty((0, 0))
        self._hessian = np.empty((0, 0))
        # where the last step began
        self.point: np.ndarray
        self.gradient: np.ndarray

    def begin(self, path: list[np.ndarray], stats: Stats, like: Params) -> None:
        """Find the metric at the end of `path` (EM's steps one after another, the last an image), and learn from it."""
        self._measure(path[-1], stats, like)
        self._hessian = -np.eye(len(self._back))
        moves = [self._back @ (after - before) for before, after in pairwise(path)]
        for move, following in pairwise(moves):
            self._learn(move, following - move)  # in this metric EM's step is the gradient

    def _measure(self, u: np.ndarray, stats: Stats, like: Params) -> None:
        values, vectors = np.linalg.eigh(self.complete.information(u, stats, like))
        keep = values > _RANK * values.max(initial=0.0)
        roots = np.sqrt(values[keep])
        self._whitened, self._back = vectors[:, keep] / roots, (vectors[:, keep] * roots).T

    def renew(self, image: np.ndarray, stats: Stats, like: Params) -> None:
        """Find the metric at another point, and keep what is known of the curvature."""
        known = self._back.T @ self._hessian @ self._back
        self._measure(image, stats, like)
        self._hessian = self._whitened.T @ known @ self._whitened

    def observe(self, u: np.ndarray, gradient: np.ndarray) -> None:
        """Learn from the gradient at a point to which a step led, whether the objective rose or not."""
        self._learn(self._back @ (u - self.point), self._whitened.T @ (gradient - self.gradient))

    def judge(self, gained: float, rounding: float) -> None:
        """Set the trust region by what the last step gained of what was predicted; all is well below `rounding`."""
        share = gained / self.predicted if self.predicted > rounding else 1.0
        if not share > 0:
            self.radius = self.length / 4
        elif share < 0.1:
            self.radius = self.length / 2
        elif share > 0.7:
            self.radius = max(self.radius, 3 * self.length)

    def propose(self, u: np.ndarray, image: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The next point after `u`; where the metric says nothing, EM's own step to `image`."""
        self.point, self.gradient = u, gradient
        slope = self._whitened.T @ gradient
        if not np.isfinite(self.radius):
            self.radius = max(2 * float(np.linalg.norm(slope)), 1.0)
        step = _within(self._hessian, slope, self.radius)
        longest = np.abs(self._whitened @ step).max(initial=0.0)
        step = step * min(1.0, _LONGEST / max(longest, 1e-300))
        self.length = float(np.linalg.norm(step))
        self.predicted = float(slope @ step + 0.5 * step @ self._hessian @ step)
        own = image - u
        return u + self._whitened @ step + (own - self._whitened @ (self._back @ own))

    def _learn(self, move: np.ndarray, change: np.ndarray) -> None:
        rest = change - self._hessian @ move
        weight = float(rest @ move)
        if np.isfinite(weight) and abs(weight) > _SECANT * np.linalg.norm(rest) * np.linalg.norm(move):
            self._hessian = self._hessian + np.outer(rest, rest) / weight


def _within(hessian: np.ndarray, slope: np.ndarray, radius: float) -> np.ndarray:
    """Maximiser of ``slope·s + s·H·s/2`` over steps no longer than `radius`."""
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ slope

    def step(shift: float) -> np.ndarray:
        return vectors @ (along / (shift - values))

    if values.max(initial=-1.0) < -1e-10 and np.linalg.norm(step(0.0)) <= radius:
        return step(0.0)
    low = max(0.0, values.max()) + 1e-13 * max(1.0, np.abs(values).max())
    high = low + 1.0
    while np.linalg.norm(step(high)) > radius:
        high = low + 4 * (high - low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.linalg.norm(step(middle)) > radius else (low, middle)
    return step(high)
