"""The numeric M-step: for priors without a closed form.

Maximises ``Σ_k expected_logp_k + log prior`` of one site by Newton's method with a line search, in PyMC's
unconstrained coordinates of the declared variables, with the density of those variables (no Jacobian), so that
its fixed points are those of the PyMC model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix.compilation import QuickFunction
from bayesmix.params import Params
from bayesmix.tape import Tape
from bayesmix.threads import alone

_LOG = logging.getLogger("bayesmix")

_MAX_NEWTON = 60
_GRADIENT = 1e-11  # of the objective, relative to the size of the statistics


class _Objective:
    """Value, gradient and Hessian of one site's M-step objective in unconstrained coordinates."""

    @alone
    def __init__(self, site: Any, stats: dict[str, np.ndarray]):
        self.slots = {name: slot for name, slot in site.slots.items() if slot.free and not slot.discrete}
        self.statistics = tuple(stats)
        self.given = [slot for slot in site.slots.values() if slot.discrete]
        fixed = {name: slot for name, slot in site.slots.items() if not slot.free}
        values: list[Any] = []
        flat = pt.vector("u")
        offset = 0
        self.forwards: list[Callable] = []
        examples: list[np.ndarray] = []
        params: dict[str, Any] = {name: slot.components(pt.as_tensor(slot.value)) for name, slot in fixed.items()}
        held = {slot.name: pt.tensor(slot.name, dtype="float64", shape=slot.shape) for slot in self.given}
        params.update({n: s.components(held[s.name]) for n, s in site.slots.items() if s.discrete})
        log_prior = pt.zeros(())
        for name, slot in self.slots.items():
            raw = slot.rv.type()
            moved = raw if slot.transform is None else slot.transform.forward(raw, *slot.rv.owner.inputs)
            forward = QuickFunction([raw], moved)
            self.forwards.append(forward)
            example = forward(_example(slot))
            examples.append(np.ravel(example))
            size = int(example.size)
            piece = flat[offset : offset + size].reshape(example.shape)
            offset += size
            value = piece if slot.transform is None else slot.transform.backward(piece, *slot.rv.owner.inputs)
            values.append(value)
            params[name] = slot.components(value)
            log_prior = log_prior + pm.logp(slot.rv, value).sum()
        inputs = {key: pt.tensor(key, dtype="float64", shape=np.shape(array)) for key, array in stats.items()}
        value = site.node.expected_logp(params, inputs, site.learned, pt).sum() + log_prior
        gradient = pt.grad(value, flat, disconnected_inputs="ignore")
        # a component without rows can leave a parameter that nothing but a flat prior speaks of
        start = np.concatenate(examples)
        example = [start, *stats.values(), *[np.zeros(slot.shape) for slot in self.given]]
        self.function = Tape([flat, *inputs.values(), *held.values()], [value, gradient], example)
        self.back = Tape([flat], values, [start])

    def start(self, params: Params) -> np.ndarray:
        """The current point in unconstrained coordinates."""
        parts = [
            np.ravel(forward(np.asarray(params[slot.name])))
            for slot, forward in zip(self.slots.values(), self.forwards)
        ]
        return np.concatenate(parts)


def _example(slot: Any) -> np.ndarray:
    shape = slot.shape
    if slot.support.ndim == 2:
        return np.broadcast_to(np.eye(shape[-1]), shape).copy()
    if slot.support.ndim == 1:
        return np.full(shape, 1 / shape[-1])
    return np.full(shape, 0.5)


_CACHE: dict[int, tuple[Any, _Objective]] = {}


def numeric_step(site: Any, stats: dict[str, np.ndarray], params: Params) -> dict[str, np.ndarray]:
    """New values of a site's free slots, shape of the slots. Never lowers the objective."""
    if all(slot.discrete or not slot.free for slot in site.slots.values()):
        return {}
    objective = _objective_of(site, stats)
    # by name: the walks and the kernel list the statistics each in an order of its own
    arrays = [stats[name] for name in objective.statistics]
    arrays += [np.asarray(params[slot.name], float) for slot in objective.given]

    def evaluate(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.function(u, *arrays)
        return float(value), gradient

    best = _newton(evaluate, objective.start(params))
    found = objective.back(best)
    return {slot.name: np.asarray(value).reshape(slot.shape) for slot, value in zip(objective.slots.values(), found)}


def _objective_of(site: Any, stats: dict[str, np.ndarray]) -> _Objective:
    # compiled once for a bound site, which is held so that its id stays its own
    held = _CACHE.get(id(site))
    if held is None or held[0] is not site:
        if len(_CACHE) > 64:
            _CACHE.clear()
        _LOG.info(
            "%s: no closed-form M-step for %s with these priors; using the numeric one (slower).",
            site.place.path or "data",
            type(site.node).__name__,
        )
        held = _CACHE[id(site)] = (site, _Objective(site, stats))
    return held[1]  # what other threads do to the cache in the meantime does not matter


def _newton(evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]], u: np.ndarray) -> np.ndarray:
    """Maximise by damped Newton steps; the Hessian is by central differences of the gradient."""
    value, gradient = evaluate(u)
    for _ in range(_MAX_NEWTON):
        scale = max(1.0, abs(value))
        if not np.isfinite(gradient).all() or np.abs(gradient).max() <= _GRADIENT * scale:
            break
        hessian = hessian_by_differences(lambda x: evaluate(x)[1], u)
        step = ascent_direction(hessian, gradient)
        last = gradient @ step <= 1e-15 * scale  # the step is below rounding of the objective: take it and stop
        length = 1.0
        for _ in range(40):
            candidate = u + length * step
            new_value, new_gradient = evaluate(candidate)
            if np.isfinite(new_value) and new_value >= value - 1e-14 * scale:
                break
            length *= 0.5
        else:
            break
        stalled = np.abs(new_gradient).max() >= np.abs(gradient).max() and new_value <= value
        u, value, gradient = candidate, new_value, new_gradient
        if stalled or last:
            break
    return u


def hessian_by_differences(gradient: Callable[[np.ndarray], np.ndarray], u: np.ndarray) -> np.ndarray:
    """Symmetric Hessian (d, d) from central differences of a gradient, with two to four gradients a coordinate.

    The largest error of an entry, in units of the square root of its row's and its column's diagonal entries, was 1e-8
    against exact second derivatives: mixtures of columns offset by 1e8, in units of 1e-8 and of 1e8, and of five
    families at once, at their modes and away from them (``benchmarks/hessians.py``; decision 0016).

    Each coordinate's step is found from its own curvature (a ten-thousandth of its scale), so that neither the unit nor
    the offset of a column matters.
    """
    columns = []
    for i in range(len(u)):
        h = 1e-5 * max(1.0, abs(u[i]))
        column = np.zeros(len(u))
        for _ in range(8):
            up, down = u.copy(), u.copy()
            up[i] += h
            down[i] -= h
            if not up[i] > down[i]:  # a coordinate that nothing depends on
                break
            column = (gradient(up) - gradient(down)) / (up[i] - down[i])
            if not np.isfinite(column[i]) or column[i] == 0:
                h *= 1e-3
                continue
            fitting = max(1e-4 / np.sqrt(abs(column[i])), 1e-12 * abs(u[i]))
            if 0.1 < fitting / h < 10:
                break
            h = fitting
        columns.append(np.where(np.isfinite(column), column, 0.0))
    matrix = np.array(columns)
    return 0.5 * (matrix + matrix.T)


def ascent_direction(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton's direction with the Hessian's eigenvalues made negative, so that it always leads up."""
    unit = np.sqrt(np.abs(np.diagonal(hessian)))
    unit = np.where(unit > 0, unit, 1.0)
    values, vectors = np.linalg.eigh(hessian / unit[:, None] / unit)
    curvature = np.maximum(np.abs(values), 1e-10 * max(1e-300, np.abs(values).max()))
    return (vectors @ ((vectors.T @ (gradient / unit)) / curvature)) / unit
