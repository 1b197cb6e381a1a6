r"""The log posterior of rows that no process holds: a pass over them for each value and gradient.

By Fisher's identity the gradient of the log-likelihood at a point is that of the expected log density at the statistics
found there, and these are a sum over chunks, partitions and workers:

.. math:: \nabla \log p(x \mid u) = \nabla_u \sum_{\text{sites}} \eta(u) \cdot T, \qquad T = \sum_{\text{chunks}} T(u).

So what travels is parameters one way and statistics the other, some kB, whatever the rows. The prior, the transforms
and what is left of the gradient are a small PyMC model of one row, whose likelihood is put aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.rewriting.utils import rewrite_graph

from bayesmix.build import mode_in_order, model_of, variables_at
from bayesmix.errors import SpecError
from bayesmix.inference.target import Target
from bayesmix.params import Params
from bayesmix.plan import EStep, Pass
from bayesmix.tape import Tape


class PassTarget(Target):
    """Log posterior and gradient in unconstrained coordinates, by a `bayesmix.plan.Pass` over the rows.

    The same function as `Target` of the model of all rows, to rounding. It may be called from several threads.

    Parameters
    ----------
    e_step : Pass
    params : mapping
        Where searches start.
    jacobian, order
        See `Target` and `bayesmix.fit_nuts`.

    Attributes
    ----------
    n_passes : int
        How often the rows were passed over.

    Raises
    ------
    SpecError
        Discrete parameters, which must be judged by all rows together.
    """

    def __init__(
        self, e_step: Pass, params: Params, *, jacobian: bool = True, order: str | Sequence[str] | None = None
    ):
        bound = e_step.bound
        if bound.discrete_slots:
            names = ", ".join(bound.discrete_slots)
            raise SpecError(f"{names}: discrete parameters need all rows in memory. Pass a table, or fix them.")
        self.e_step, self.n_passes = e_step, 0
        self.logliks: list[float] = []
        params = mode_in_order(bound, params, order)
        one = e_step.data.take(np.zeros(1, int))
        _, stats = EStep(bound, one, np.ones(1))(bound.with_fixed(params))
        self._stats = {(key, name): value for key, own in stats.items() for name, value in own.items()}
        model = model_of(bound, one, order=order, initval=params)
        super().__init__(model, variables_at(bound, params, order), jacobian=jacobian)

    def _made(self, jacobian: bool) -> Tape:
        """The log prior, and the gradient of the log posterior, from a point and its statistics."""
        model, bound = self.model, self.e_step.bound
        prior: Any = model.logp(vars=model.free_RVs, jacobian=jacobian)
        values = dict(zip([rv.name for rv in model.free_RVs], model.replace_rvs_by_values(list(model.free_RVs))))
        for name, slot in bound.slots.items():
            if name not in values:
                values[name] = pt.as_tensor(slot.value)
        inputs = {at: pt.tensor("/".join(at), dtype="float64", shape=np.shape(v)) for at, v in self._stats.items()}
        expected: Any = pt.zeros(())
        for site in bound.site.distinct():
            own = {name: variable for (key, name), variable in inputs.items() if key == site.key}
            if own:
                params = {name: slot.components(values[slot.name]) for name, slot in site.slots.items()}
                expected = expected + site.node.expected_logp(params, own, site.learned, pt).sum()
        total, prior = rewrite_graph([prior + expected, prior], include=["canonicalize", "stabilize"])  # type: ignore
        gradients: Any = pt.grad(total, model.value_vars, disconnected_inputs="ignore")
        flat, replaced = self._joined([prior, pt.concatenate([gradient.ravel() for gradient in gradients])])
        return Tape([flat, *inputs.values()], replaced, [self.start, *self._stats.values()])

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density and gradient (d,) at `u` (d,): one pass."""
        params = self.e_step.bound.with_fixed(self.constrained(u))
        self.n_passes += 1
        with np.errstate(all="ignore"):
            try:
                loglik, stats = self.e_step(params)
            except np.linalg.LinAlgError:
                return -np.inf, np.zeros(len(u))
            prior, gradient = self._function(u, *[stats[key][name] for key, name in self._stats])
        self.logliks.append(loglik)
        value = float(prior) + loglik
        return (value, gradient) if np.isfinite(value) else (-np.inf, np.zeros(len(u)))

    def native(self, origin: np.ndarray | None = None, scale: np.ndarray | None = None) -> None:
        """None: a pass is Python's."""
