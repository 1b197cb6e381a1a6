r"""NUTS of rows that no process holds: by passes, or on a sample that is corrected by what all rows say.

By passes the gradient of every leapfrog is a pass over all rows (`PassTarget`): exact, and worth it where a pass takes
much longer than the way to the workers and back.

On a sample S of the rows, with weights that add up to those of all, the log posterior is taken as

.. math:: \tilde\ell(u) = \ell(\hat u) + g^\top \delta + \tfrac12 \delta^\top H \delta + R_S(u), \qquad
          R_S(u) = \ell_S(u) - \ell_S(\hat u) - g_S^\top \delta - \tfrac12 \delta^\top H_S \delta,

with :math:`\delta = u - \hat u`: value, gradient and Hessian at the mode are those of all rows, and only what a
quadratic leaves over comes from the sample. That is of the order of :math:`N \delta^3 \sim N^{-1/2}`. Some of the draws
are then weighed by the log posterior of all rows: their Pareto k says whether the approximation can be trusted, and
where it can and the weights are not all alike, they are drawn again by these weights.

References
----------
Bardenet, Doucet and Holmes 2017, *JMLR* 18, and Quiroz, Kohn, Villani and Tran 2019, *JASA* 114, for the expansion
about a mode as a control variate of subsamples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bayesmix.build import model_of, variables_at
from bayesmix.checkpoint import incomplete, kept_chains
from bayesmix.diagnostics import verdict
from bayesmix.errors import ApproximationWarning, ConvergenceWarning, DataError, warn
from bayesmix.fit import Fit, Status
from bayesmix.inference.chains import STATS, sample, stacked
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.em import maximise_by
from bayesmix.inference.laplace import laplace_at
from bayesmix.inference.modes import modes_of
from bayesmix.inference.passes import PassTarget
from bayesmix.inference.rows import Rows
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.psis import importance
from bayesmix.relabel import relabelled

#: Draws that are held against all rows.
_CHECKED = 400
#: Standard deviation of their log weights, which bounds what these would move a mean by, in posterior sds; below it all
#: draws are kept as they are.
_ALIKE = 0.03
#: Laplace standard deviations, beyond the root of the dimension, where a sample is no longer asked.
_FAR = 10.0
#: Chains start within this many of them.
_JITTER = 2.0


class Surrogate:
    """The log posterior of all rows near their mode, from one expansion of it and a sample.

    Parameters
    ----------
    full : PassTarget
    few : Target
        Of the sample, in the same coordinates.
    at : ndarray, shape (d,)
        The mode.
    hessian : ndarray, shape (d, d)
        Of `full` there.
    """

    def __init__(self, full: PassTarget, few: Target, at: np.ndarray, hessian: np.ndarray):
        self.few, self.at = few, at
        self.value, self.gradient = full(at)
        few_value, few_gradient = few(at)
        # what the sample lacks: of value, gradient and curvature
        self.value -= few_value
        self.gradient = self.gradient - few_gradient
        self.curvature = hessian - few.hessian(at)
        factor = laplace_factor(hessian)
        self.inverse = np.linalg.inv(factor)
        self.far = np.sqrt(len(at)) + _FAR
        self.constrained = full.constrained

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density and gradient (d,) at `u` (d,)."""
        step = u - self.at
        if not np.linalg.norm(self.inverse @ step) < self.far:
            return -np.inf, np.zeros(len(u))
        value, gradient = self.few(u)
        bent = self.curvature @ step
        return value + self.value + float((self.gradient + 0.5 * bent) @ step), gradient + self.gradient + bent

    def native(self, origin: np.ndarray | None = None, scale: np.ndarray | None = None) -> None:
        """None: the expansion is Python's."""


def nuts_of_rows(
    rows: Rows,
    *,
    subsample: int | None,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    target_accept: float,
    n_starts: int,
    seeds: list[np.random.SeedSequence],
    progressbar: bool,
) -> Fit:
    """`bayesmix.fit_nuts` of rows wherever they are."""
    e_step, bound = rows.e_step, rows.e_step.bound
    rng = np.random.default_rng(seeds[1])
    best, runs = maximise_by(e_step, n_starts=n_starts, random_seed=seeds[0], explore=0.0, progressbar=progressbar)
    warn_of_components(e_step, best.params, improper=False)
    full = PassTarget(e_step, best.params)
    laplace = laplace_at(full)
    target: Any = full
    if subsample is not None:
        found = e_step.sample(min(subsample, e_step.n_rows), rng)
        if found is None:
            raise DataError("subsample: a few rows have most of the weight. Leave it out.")
        model = model_of(bound, found[0], row_weights=found[1], initval=best.params)
        few = Target(model, variables_at(bound, best.params), jacobian=True)
        target = Surrogate(full, few, laplace.point, laplace.hessian)
    noise = rng.standard_normal((chains, len(laplace.point))).clip(-_JITTER, _JITTER)
    drawn = sample(
        target,
        laplace.point + noise @ laplace.factor.T,
        draws=draws,
        tune=tune,
        cores=cores,
        target_accept=target_accept,
        seed=int(rng.integers(2**31)),
        progressbar=progressbar,
    )
    kept, n_draws = kept_chains(drawn.lengths)
    arrays = stacked([drawn.chains[c] for c in kept], n_draws)
    points = arrays["u"]
    groups = {"sample_stats": _stats(arrays)}
    declared, labels = relabelled(
        bound, {name: arrays[name] for name in bound.free_slots}, e_step.data, best.params, method="kl"
    )

    def made(draws_of: dict[str, np.ndarray], status: Status, **more: Any) -> Fit:
        return rows.make_fit(
            draws_of,
            status=status,
            history=np.array(best.history),
            starts=[run.report() for run in runs],
            modes=modes_of(bound, e_step.data, e_step.row_weights, runs),
            log_likelihood=False,
            **more,
        )

    loglik = float(np.mean(full.logliks[-10:]))
    fit = replace(made(declared, Status("nuts", False, ""), groups=groups, loglik=loglik), relabelling=labels)
    converged, message = verdict(replace(fit, encoded=e_step.data))
    complete = drawn.complete
    if not complete:
        message = f"{incomplete(drawn.lengths, draws, len(kept), n_draws)} {message}"
    if subsample is None:
        status = Status("nuts", converged and complete, f"{message} {full.n_passes} passes over the rows.", complete)
    else:
        fit, status = _corrected(fit, made, full, target, points, declared, rng)
        status = Status(
            "nuts",
            converged and complete and status.converged,
            f"{message} {status.message} {full.n_passes} passes over the rows.",
            complete,
        )
    if not status.converged:
        warn(status.message, ConvergenceWarning)
    return replace(fit, status=status)


def _corrected(
    fit: Fit,
    made: Any,
    full: PassTarget,
    target: Surrogate,
    points: np.ndarray,
    declared: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> tuple[Fit, Status]:
    """Some of the draws, drawn again by what all rows say of them; and what that says of the sample's posterior."""
    flat = points.reshape(-1, points.shape[-1])
    picked = np.linspace(0, len(flat) - 1, min(_CHECKED, len(flat))).astype(int)
    full.logliks.clear()
    exact = np.array([full(u)[0] for u in flat[picked]])
    weighed = importance(exact, np.array([target(u)[0] for u in flat[picked]]))
    spread = float(np.std(weighed.log_weights[np.isfinite(weighed.log_weights)]))
    if spread < _ALIKE:
        message = f"Against all rows log weights have sd {spread:.3f}: draws are as they are."
        return replace(fit, pareto_k=weighed.pareto_k), Status("nuts", True, message)
    if not weighed.trusted:
        warn(
            f"The sample's posterior is too far from that of all rows: Pareto k {weighed.pareto_k:.2f}. Draws are left "
            "as they are. Raise subsample.",
            ApproximationWarning,
        )
        message = f"Against all rows Pareto k is {weighed.pareto_k:.2f}: draws are not to be trusted."
        return replace(fit, pareto_k=weighed.pareto_k), Status("nuts", False, message)
    again = picked[weighed.resample(len(picked), rng)]
    kept = {name: values.reshape(-1, *values.shape[2:])[again][None] for name, values in declared.items()}
    message = (
        f"Against all rows Pareto k is {weighed.pareto_k:.2f}, log weights have sd {spread:.2f}; {len(again)} draws, "
        "drawn again by them."
    )
    status = Status("nuts", True, message)
    new = made(kept, status, loglik=float(np.mean(full.logliks)), pareto_k=weighed.pareto_k)
    return replace(new, relabelling=None), status


def _stats(arrays: dict[str, np.ndarray]) -> Any:
    import xarray as xr

    found = {name: (("chain", "draw"), v) for name, v in arrays.items() if v.ndim == 2 and name in STATS}
    shape = arrays["u"].shape
    return xr.Dataset(found, coords={"chain": np.arange(shape[0]), "draw": np.arange(shape[1])})
