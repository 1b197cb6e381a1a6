"""Where EM stands still but no maximum is: directions that lead up, and labels that say nothing.

Two tests at a point where a run stopped, neither of which needs more than E-steps and M-steps.

1. EM's map M stretches a small step along a direction by more than 1 exactly where the log posterior curves up along
   it. The largest stretch is found by Arnoldi's method on ``(M(u + εv) − M(u))/ε``: one pass a direction.
2. Two equal components, each as wide as their data, are separated by no first or second derivative. Then the labels of
   that mixture tell nothing of the rows, and its components are started anew, given all else.

References
----------
Arnoldi 1951, *Quarterly of Applied Mathematics* 9; Dempster, Laird and Rubin 1977, *JRSS B* 39, for the Jacobian
of EM's map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bayesmix.bound import Bound
from bayesmix.inference.accelerate import Coordinates
from bayesmix.inference.start import Splitter
from bayesmix.params import Params
from bayesmix.plan import Pass
from bayesmix.spec import Encoded, Site, Stats
from bayesmix.structure.mixture import posterior

#: Passes of Arnoldi's method.
_DIRECTIONS = 8
#: Length of a difference, relative to the coordinates' units.
_STEP = 1e-4
#: A stretch of more than this leads up; less is rounding, or a direction in which the posterior is flat.
_UP = 1e-3
#: Nats that the labels of a mixture tell of a row, below which they tell nothing.
_NOTHING = 0.05
#: Rows on which components are started anew.
_ROWS = 5_000


def ascents(e_step: Pass, params: Params, rng: np.random.Generator) -> Iterator[dict[str, np.ndarray]]:
    """Points along the direction in which the log posterior curves up most, nearer and nearer, on both sides.

    Empty where there is no such direction among those that are looked at.
    """
    coordinates = Coordinates(e_step.bound)
    here = coordinates.forward(params)
    try:
        stretch, direction = _largest_stretch(e_step, coordinates, here, params, rng)
    except np.linalg.LinAlgError:
        return
    if not stretch > 1 + _UP:
        return
    direction = direction / np.abs(direction).max()
    for length in (1.0, 0.3, 0.1, 0.03):
        for sign in (1, -1):
            yield coordinates.backward(here + sign * length * direction, params)


def _largest_stretch(
    e_step: Pass, coordinates: Coordinates, here: np.ndarray, params: Params, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of the Jacobian of EM's map that Arnoldi's method finds, and its direction (d,)."""
    bound = e_step.bound

    def image(u: np.ndarray) -> np.ndarray:
        point = coordinates.backward(u, params)
        with np.errstate(all="ignore"):
            found = coordinates.forward(bound.m_step(e_step(point)[1], point))
        if not np.isfinite(found).all():
            raise np.linalg.LinAlgError("EM's map is not finite beside the point")
        return found

    size = min(_DIRECTIONS, len(here))
    if size == 0:
        return 0.0, here
    middle = image(here)
    basis, projected = np.zeros((size + 1, len(here))), np.zeros((size + 1, size))
    first = rng.standard_normal(len(here))
    basis[0] = first / np.linalg.norm(first)
    for j in range(size):
        moved = (image(here + _STEP * basis[j]) - middle) / _STEP
        for _ in range(2):  # twice, so that the basis stays orthogonal
            parts = basis[: j + 1] @ moved
            projected[: j + 1, j] += parts
            moved = moved - parts @ basis[: j + 1]
        left = float(np.linalg.norm(moved))
        if left < 1e-6:
            size = j + 1
            break
        projected[j + 1, j] = left
        basis[j + 1] = moved / left
    values, vectors = np.linalg.eig(projected[:size, :size])
    best = int(values.real.argmax())
    return float(values[best].real), np.real(vectors[:, best]) @ basis[:size]


def renewals(
    bound: Bound, params: Params, data: Encoded, row_weights: np.ndarray, rng: np.random.Generator
) -> Iterator[dict[str, np.ndarray]]:
    """`params` with the components of a mixture started anew whose labels say nothing, given everything else.

    Twice for each such mixture, outer ones first. It takes no pass: a sample of the rows serves.
    """
    if data.n_rows > _ROWS:
        rows = np.sort(rng.choice(data.n_rows, _ROWS, replace=False))
        share = row_weights[rows].sum() / row_weights.sum()
        data, row_weights = data.take(rows), row_weights[rows] / max(share, 1e-300)
    with np.errstate(all="ignore"):
        evaluation = bound.site.evaluate(params, data)
        told: dict[str, list[np.ndarray]] = {}
        _with(bound.site, lambda node: _Listening(node, told)).accumulate(evaluation, data, row_weights[:, None], {})
    for site in bound.site.distinct():
        if "weights" not in site.slots or len(told.get(site.key, [])) != 1:
            continue
        silent = told[site.key][0] < _NOTHING
        if site.node.shared and not silent.all():
            continue
        if not silent.any():
            continue
        for number in (0, 2):
            splitter = Splitter(rng, number)
            stats: Stats = {}
            with np.errstate(all="ignore"):
                tree = _with(bound.site, lambda node, s=splitter: _Renewed(node, s), only=site.key)
                tree.accumulate(evaluation, data, row_weights[:, None], stats)
                yield _renewed(site, stats, params, silent)


def _renewed(site: Site, stats: Stats, params: Params, silent: np.ndarray) -> dict[str, np.ndarray]:
    """The M-step of a mixture and of what is below it, for the components around it that are `silent` (K,)."""
    out = dict(params)
    for each in site.walk():
        for name, value in each.node.update(each, stats, params).items():
            slot = next(slot for slot in each.slots.values() if slot.name == name)
            own = slot.axes[: len(site.axes)] == site.axes
            chosen = silent.reshape([len(axis) for axis in site.axes]) if own else np.ones((), bool)
            chosen = chosen.reshape(chosen.shape + (1,) * (value.ndim - chosen.ndim))
            out[name] = np.where(chosen, value, params[name])
    return out


class _Beside:
    """A node of which one walk is another."""

    def __init__(self, node: Any):
        self.node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)


class _Listening(_Beside):
    """A mixture that notes what its labels tell of the rows, in nats, (K,)."""

    def __init__(self, node: Any, told: dict[str, list[np.ndarray]]):
        super().__init__(node)
        self.told = told

    def accumulate(self, site: Site, evaluation: Any, data: Encoded, resp: np.ndarray, stats: Stats) -> None:
        labels = posterior(evaluation)  # (N, K, G)
        total = np.maximum(resp.sum(0), 1e-300)
        shares = np.einsum("nk,nkg->kg", resp, labels) / total[:, None]
        own = np.einsum("nk,nk->k", resp, _entropy(labels)) / total
        self.told.setdefault(site.key, []).append(_entropy(shares) - own)
        self.node.accumulate(site, evaluation, data, resp, stats)


class _Renewed(_Beside):
    """A mixture whose components are started from clusters of their rows, not from where they are."""

    def __init__(self, node: Any, splitter: Splitter):
        super().__init__(node)
        self.splitter = splitter

    def accumulate(self, site: Site, evaluation: Any, data: Encoded, resp: np.ndarray, stats: Stats) -> None:
        self.node.seed(site, data, resp, stats, self.splitter)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def _with(site: Site, wrap: Any, only: str | None = None) -> Site:
    """The tree with its mixtures' nodes wrapped, or that of one of them."""
    children = tuple(_with(child, wrap, only) for child in site.children)
    mixture = "weights" in site.slots and (only is None or site.key == only)
    return replace(site, node=wrap(site.node) if mixture else site.node, children=children)
