"""Starting values from the data: clusters of the rows, outer mixtures first, inner ones within each cluster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayesmix.bound import Bound
from bayesmix.conjugate import Beta, Dirichlet
from bayesmix.params import Slot
from bayesmix.spec import Encoded, Site, Stats

#: Rows on which cluster centres are found; all rows are then assigned to them.
_MAX_ROWS = 4_000
#: Rows on which the starts of a table of twice as many run; more where there are over 100 components.
_SAMPLE = 20_000
#: Share of each responsibility that is spread evenly, so that no component starts on a point; of every other start. A
#: large one makes components start wide, so that neighbours may merge; a small one makes them start where they are.
_SOFTNESS = (0.1, 0.003)


class Splitter:
    """Soft clusters of weighted points: k-means++ centres, a few Lloyd steps.

    Starts differ so that together they cover what k-means alone misses: the first uses every feature alike, the
    others stretch the features by random factors, every second is nearly hard, and every third skips Lloyd's steps.

    Parameters
    ----------
    rng : numpy.random.Generator
    number : int
        Which start this is, from 0.

    References
    ----------
    Arthur and Vassilvitskii 2007, *k-means++*.
    """

    def __init__(self, rng: np.random.Generator, number: int):
        self.rng = rng
        self.stretch = number > 0
        self.softness = _SOFTNESS[number % 2]
        self.steps = 0 if number % 3 == 2 else 10

    def __call__(self, points: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
        """Responsibilities (N, n) that sum to 1, for points (N, F) with NaN where missing."""
        if n == 1 or not len(points):  # all sequences are empty
            return np.ones((len(points), n))
        points = np.where(np.isnan(points), 0.0, points)
        points -= points.mean(0)
        if self.stretch:
            points *= self.rng.exponential(size=points.shape[1]) ** 0.5
        centers = self._centers(points, weights, n)
        nearest = _squared_distances(points, centers).argmin(1)
        resp = np.full((len(points), n), self.softness / n)
        resp[np.arange(len(points)), nearest] += 1 - self.softness
        return resp

    def _centers(self, points: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
        chance = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
        if len(points) > _MAX_ROWS:
            rows = self.rng.choice(len(points), _MAX_ROWS, p=chance)
            points, weights = points[rows], np.ones(_MAX_ROWS)
            chance = np.full(_MAX_ROWS, 1 / _MAX_ROWS)
        centers = points[self.rng.choice(len(points), 1, p=chance)]
        for _ in range(1, n):
            distance = _squared_distances(points, centers).min(1) * chance
            total = distance.sum()
            following = distance / total if total > 0 else chance
            centers = np.vstack([centers, points[self.rng.choice(len(points), p=following)]])
        for _ in range(self.steps):
            nearest = _squared_distances(points, centers).argmin(1)
            member = (nearest[:, None] == np.arange(n)) * weights[:, None]
            mass = member.sum(0)
            moved = (member.T @ points) / np.where(mass > 0, mass, 1)[:, None]
            moved[mass == 0] = centers[mass == 0]
            if np.allclose(moved, centers):
                break
            centers = moved
        return centers


def _squared_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    distance = points @ (-2 * centers.T)
    distance += np.einsum("nf,nf->n", points, points)[:, None]  # without an array of the squares
    distance += (centers**2).sum(1)
    return distance.clip(0, out=distance)


def initial_params(
    bound: Bound, data: Encoded, row_weights: np.ndarray, rng: np.random.Generator, number: int
) -> dict[str, np.ndarray]:
    """Parameters of start `number`: the M-step at the splitter's responsibilities."""
    stats: Stats = {}
    bound.site.node.seed(bound.site, data, row_weights[:, None], stats, Splitter(rng, number))
    return bound.m_step(stats, middle(bound))


def sample_size(bound: Bound) -> int:
    """Rows that serve starts where there are twice as many or more."""
    return max(_SAMPLE, 200 * max((site.n_components for site in bound.site.walk()), default=1))


def middle(bound: Bound) -> dict[str, np.ndarray]:
    """A point inside every support, from which M-steps that iterate can begin."""
    params = {}
    for name, slot in bound.slots.items():
        if slot.kind == "fixed":
            params[name] = slot.value
        elif slot.support.ndim == 2:
            params[name] = np.broadcast_to(np.diag(_scales(bound, name) ** 2), slot.shape).copy()
        elif slot.support.ndim == 1:
            params[name] = np.full(slot.shape, 1 / slot.shape[-1])
        elif slot.support.name == "a probability":
            params[name] = np.full(slot.shape, 0.5)
        else:
            params[name] = np.broadcast_to(_scales(bound, name), slot.shape).astype(float).copy()
        if slot.free and slot.hyper is None and not np.isfinite(slot.log_prior(params[name])):
            params[name] = slot.central_value()  # the prior's support is narrower than the parameter's
    return params


def _scales(bound: Bound, name: str) -> np.ndarray:
    """Scale of the column that a slot speaks of, 1 where its family learned none."""
    site = next(site for site in bound.site.walk() if name in [slot.name for slot in site.slots.values()])
    return np.asarray(getattr(site.learned, "scale", 1.0), float)


def with_mode_inside(bound: Bound) -> Bound:
    """The bound spec for finding where samplers start, where priors have no mode inside their support.

    A Dirichlet or beta prior with a concentration below 1 rises without bound towards 0: EM would follow it there.
    In the coordinates in which samplers move, its density is that of the concentrations plus 1, which has a mode.
    """

    def moved(slot: Slot) -> Slot:
        hyper = slot.hyper
        if slot.free and isinstance(hyper, Dirichlet) and np.any(hyper.concentration < 1):
            return replace(slot, hyper=replace(hyper, concentration=hyper.concentration + 1))
        if slot.free and isinstance(hyper, Beta) and (np.any(hyper.alpha < 1) or np.any(hyper.beta < 1)):
            return replace(slot, hyper=replace(hyper, alpha=hyper.alpha + 1, beta=hyper.beta + 1))
        return slot

    def walk(site: Site) -> Site:
        slots = {name: moved(slot) for name, slot in site.slots.items()}
        return replace(site, slots=slots, children=tuple(map(walk, site.children)))

    return replace(bound, site=walk(bound.site))
