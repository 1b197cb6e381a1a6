"""The log posterior of a PyMC model as one function of a flat unconstrained vector."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace
from pytensor.graph.rewriting.utils import rewrite_graph

from bayesmix.compilation import QuickFunction
from bayesmix.inference.native import NativeDensity, NotCompiled
from bayesmix.likelihood import with_log_likelihood
from bayesmix.mstep import hessian_by_differences
from bayesmix.tape import Tape
from bayesmix.threads import alone


class Target:
    """Log posterior and gradient of a PyMC model in its unconstrained coordinates.

    The coordinates are those of ``model.value_vars``, ravelled and joined in order, d in all; nutpie uses the
    same. It runs as a `Tape`, from any number of threads.

    Parameters
    ----------
    model : pymc.Model
    at : mapping
        Value of each free variable, by name: where searches start.
    jacobian : bool
        Whether to add the log Jacobians of PyMC's transforms: with them, the density of the coordinates
        (what NUTS samples); without them, the density of the declared variables (whose mode is the MAP).
    """

    @alone
    def __init__(self, model: pm.Model, at: Mapping[str, Any], *, jacobian: bool):
        self.model = model
        self._forwards = {}
        for rv in model.free_RVs:
            transform, raw = model.rvs_to_transforms[rv], rv.type()
            moved = raw if transform is None else transform.forward(raw, *rv.owner.inputs)
            self._forwards[model.rvs_to_values[rv].name] = (rv, QuickFunction([raw], moved))
        self.point = self._moved(at)
        self._function = self._made(jacobian)

    def _made(self, jacobian: bool) -> Tape:
        """The log posterior and its gradient as a function."""
        # simplified before it is differentiated: a Cholesky factor of L L^T is L, and needs no gradient of its own
        logp: Any = rewrite_graph(self.model.logp(jacobian=jacobian), include=["canonicalize", "stabilize"])
        logp = with_log_likelihood(logp)
        gradients: Any = pt.grad(logp, self.model.value_vars, disconnected_inputs="ignore")
        flat, replaced = self._joined([logp, pt.concatenate([gradient.ravel() for gradient in gradients])])
        return Tape([flat], replaced, [self.start])

    def _joined(self, outputs: list) -> tuple[Any, list]:
        """One vector in place of the model's value variables, and the outputs as expressions of it."""
        size = sum(point.size for point in self.point.values())
        flat, offset, replacements = pt.vector("u", shape=(size,)), 0, {}
        for variable in self.model.value_vars:
            point = self.point[variable.name]
            piece = flat[offset : offset + point.size].reshape(point.shape)
            replacements[variable] = piece.astype(variable.dtype)
            offset += point.size
        return flat, clone_replace(outputs, replacements)

    def _moved(self, at: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Free variables as value variables."""
        return {
            name: np.asarray(forward(np.asarray(at[rv.name], rv.dtype)), float)
            for name, (rv, forward) in self._forwards.items()
        }

    def unconstrained(self, at: Mapping[str, Any]) -> np.ndarray:
        """Free variables by name as a point u (d,): the inverse of `constrained`."""
        return np.concatenate([np.ravel(value) for value in self._moved(at).values()] or [np.empty(0)])

    def of_variables(self, names: Container[str]) -> np.ndarray:
        """Which coordinates (d,) are those of some free variables."""
        sizes = [self.point[name].size for name in self._forwards]
        return np.repeat(np.array([rv.name in names for rv, _ in self._forwards.values()], bool), sizes)

    @property
    def start(self) -> np.ndarray:
        """The point `at` in unconstrained coordinates, shape (d,)."""
        return np.concatenate([np.ravel(value) for value in self.point.values()] or [np.empty(0)])

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density and gradient (d,) at `u` (d,)."""
        value, gradient = self._function(u)
        return float(value), gradient

    def native(self, origin: np.ndarray | None = None, scale: np.ndarray | None = None) -> NativeDensity | None:
        """The same function of v, u = origin + scale v, for one thread of nutpie's; None where a step needs Python."""
        try:
            return NativeDensity(self._function, origin, scale)
        except NotCompiled:
            return None

    def hessian(self, u: np.ndarray) -> np.ndarray:
        """Hessian (d, d) at `u`, central differences of the gradient."""
        return hessian_by_differences(lambda x: self(x)[1], u)

    @cached_property
    @alone
    def _constrain(self) -> Tape:
        flat, values = self._joined(self.model.replace_rvs_by_values(list(self.model.free_RVs)))
        return Tape([flat], values, [self.start])

    def constrained(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Free variables by name at a point `u` (d,), or at many (M, d): their arrays then have M first."""
        names = [rv.name for rv in self.model.free_RVs]
        if np.ndim(u) == 1:
            return dict(zip(names, self._constrain(u)))
        if len(u) == 0:
            return {name: value[:0] for name, value in self.constrained(self.start[None]).items()}
        return dict(zip(names, map(np.stack, zip(*[self._constrain(point) for point in u]))))


def laplace_factor(hessian: np.ndarray, floor: float = 1e-8) -> np.ndarray:
    """A factor F (d, d) with F F^T the inverse of the negative Hessian.

    Directions in which the Hessian is not negative are held at `floor`, relative to the largest eigenvalue once every
    coordinate is measured in units of its own curvature: a mode on the edge of being identified gives a wide but finite
    scale, and the units of the columns do not matter.
    """
    unit = np.sqrt(np.abs(np.diagonal(hessian)))
    unit = np.where(unit > 0, unit, 1.0)
    values, vectors = np.linalg.eigh(-hessian / unit[:, None] / unit)
    return vectors / np.sqrt(np.maximum(values, floor * max(values.max(), 1e-300))) / unit[:, None]
