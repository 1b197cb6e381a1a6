"""The posterior mode by L-BFGS on the PyMC model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bayesmix import arguments
from bayesmix.bound import prepare, require_free
from bayesmix.build import model_of, variables_at
from bayesmix.errors import ConvergenceWarning, warn
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.em import fit_em, maximise
from bayesmix.inference.modes import modes_of
from bayesmix.inference.target import Target
from bayesmix.mstep import ascent_direction
from bayesmix.plan import EStep
from bayesmix.sources import source_of
from bayesmix.spec import Node

#: A mode is reached where no gradient entry exceeds this share of the log posterior's size (at least 1 nat).
_GRADIENT = 1e-8


def fit_map(
    spec: Node,
    data: Any,
    *,
    row_weights: Any = None,
    max_iter: int = 1000,
    n_starts: int = 16,
    start: dict[str, Any] | str | None = None,
    memory: int | str = "256 MiB",
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    """Fit the posterior mode by L-BFGS on the PyMC model, from EM's mode, polished by Newton's method.

    The same point as `fit_em`'s, to the gradient's rounding: where EM stops because it is slow, this goes on.

    Parameters
    ----------
    spec : Node
    data : table or source
        N rows; see `bayesmix.fit`. Of a table that is read in parts EM goes on until its gradient vanishes or nothing
        is gained.
    row_weights : array_like, shape (N,), optional
    max_iter : int
        L-BFGS iterations.
    n_starts, start, memory, random_seed, progressbar
        Of the EM before it; see `fit_em`.

    Returns
    -------
    Fit
        One chain, one draw. ``fit.status.converged`` says that the gradient of the log posterior vanished.

    References
    ----------
    Liu and Nocedal 1989, *Mathematical Programming* 45.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit_map(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> fit.params["mu"].round(1)
    array([0.7, 9.3])
    """
    arguments.check(max_iter=max_iter)
    if (source := source_of(data)) is not None:  # EM's own steps end where the gradient vanishes
        fit = fit_em(
            spec,
            source,
            row_weights=row_weights,
            memory=memory,
            tol=0,
            n_starts=n_starts,
            start=start,
            random_seed=random_seed,
            progressbar=progressbar,
        )
        return replace(fit, status=replace(fit.status, engine="map"))
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    require_free(bound, "map")
    best, runs = maximise(
        bound,
        encoded,
        weights,
        start=start,
        n_starts=n_starts,
        random_seed=random_seed,
        progressbar=progressbar,
    )
    warn_of_components(EStep(bound, encoded, weights), best.params)
    positions = {name: best.params[name] for name in bound.discrete_slots}
    model = model_of(bound.held(positions), encoded, row_weights=given, initval=best.params)
    target = Target(model, variables_at(bound, best.params), jacobian=False)
    mode, history, converged = climb(target, target.start, max_iter)
    found = {**target.constrained(mode), **positions}
    if not converged:
        warn(
            f"fit_map stopped after {len(history)} steps with a gradient that is not zero: the mode may lie on the "
            "edge of the support (flat priors), or raise max_iter.",
            ConvergenceWarning,
        )
    status = Status(
        "map",
        converged,
        f"L-BFGS {'converged' if converged else 'stopped'} after {len(history)} iterations from EM's mode, "
        f"{history[-1] - best.objective:.2g} nats above it.",
    )
    return make_fit(
        bound,
        {name: found[name][None, None] for name in bound.free_slots},
        table=table,
        encoded=encoded,
        row_weights=given,
        status=status,
        history=np.array(history),
        starts=[run.report() for run in runs],
        modes=modes_of(bound, encoded, weights, runs),
    )


def climb(target: Target, start: np.ndarray, max_iter: int) -> tuple[np.ndarray, list[float], bool]:
    """Mode near `start`, log density after each iteration, and whether the gradient vanished there."""
    history = [target(start)[0]]
    result = minimize(
        lambda u: tuple(-part for part in target(u)),
        start,
        jac=True,
        method="L-BFGS-B",
        callback=lambda u: history.append(target(u)[0]),
        options={"maxiter": max_iter, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20},
    )
    u = result.x
    value, gradient = target(u)
    for _ in range(5):
        if np.abs(gradient).max() < _GRADIENT:
            break
        candidate = u + ascent_direction(target.hessian(u), gradient)
        new_value, new_gradient = target(candidate)
        if not np.isfinite(new_value) or np.abs(new_gradient).max() >= np.abs(gradient).max():
            break
        u, value, gradient = candidate, new_value, new_gradient
        history.append(value)
    return u, history, bool(np.abs(gradient).max() < _GRADIENT * max(1.0, abs(value)))
