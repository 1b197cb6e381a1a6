"""Variational inference: the normal distribution nearest to the posterior in unconstrained coordinates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import minimize

from bayesmix import arguments
from bayesmix.bound import prepare, require_free
from bayesmix.checkpoint import digest_of
from bayesmix.discrete import completed
from bayesmix.errors import ConvergenceWarning, DataError, warn
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.inference import snapshots
from bayesmix.inference.laplace import corrected, describe, heaviest, standard_points, start_of, warn_of_k
from bayesmix.inference.minibatch import Batches, Climb, climb_by_batches, gradient_noise
from bayesmix.inference.modes import with_caution
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.progress import Progress
from bayesmix.seeds import entropy_of, generator
from bayesmix.spec import Node

#: Largest gradient of the bound, in nats per Laplace standard deviation, at which a small gain means the end.
_FLAT = 0.05


def fit_advi(
    spec: Node,
    data: Any,
    *,
    approximation: str = "fullrank",
    draws: int = 1000,
    correct: bool = True,
    minibatch: int | None = None,
    n_points: int | None = None,
    max_iter: int = 500,
    tol: float = 1e-6,
    order: str | Sequence[str] | None = None,
    row_weights: Any = None,
    n_starts: int = 16,
    log_likelihood: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    r"""Fit a normal distribution to the posterior by automatic differentiation variational inference.

    Maximises the evidence lower bound over one fixed set of standard normal points, antithetic and with exact
    unit covariance, by L-BFGS from EM's mode (where that is on an edge of the support, from `fit_laplace`'s) with the
    Laplace scale. With fixed points the bound is an ordinary smooth function, so the rule of convergence is its
    gradient, and the result does not depend on a step size or an iteration count. It covers one labelling of the
    components. The draws are then corrected by importance
    sampling, whose Pareto k says how far the posterior is from the approximation.

    Parameters
    ----------
    spec : Node
    data : table
        N rows; see `bayesmix.fit`.
    approximation : {"fullrank", "meanfield"}
        Any covariance, or independent coordinates (whose standard deviations are then too small where the
        posterior is correlated).
    draws : int
        Draws of the approximation to store, in one chain: pairs mirrored about its centre, so that means carry
        little Monte-Carlo error.
    correct : bool
        Resample the draws by their smoothed importance weights where Pareto k is below 0.7.
    minibatch : int, optional
        Rows to look at in one step: for tables of hundreds of thousands. The bound is then climbed by Adam, with points
        drawn anew at each step, until the means of two windows of 50 steps differ by less than a hundredth of a Laplace
        standard deviation (see `bayesmix.inference.minibatch`); Pareto k is found on all rows. The gradients' noise,
        and what it would be without the control variate, are in ``fit.idata["variational"]``, in nats per Laplace
        standard deviation.
    n_points : int, optional
        Fixed points; by default 64, or four for each of the d coordinates if that is more.
    max_iter : int
        L-BFGS iterations; with `minibatch` windows of steps.
    tol : float
        Nats: an iteration that gains less, where the bound is flat, ends the search.
    order : str, sequence of str, or None
        Variables whose components are kept ascending (PyMC's ``ordered`` transform). Where the components overlap, it
        cuts the posterior at their tie, and the approximation to what remains is another one.
    checkpoint : path, optional
        With `minibatch`: a file to keep the climb in, at the end of every window.
    resume : path, optional
        Such a file, with the same spec, data and settings: the climb goes on, to the same digits as without a break,
        and with the seed that it began with.
    overwrite : bool
        Whether `checkpoint` may take the place of another file.
    row_weights, n_starts, log_likelihood, random_seed, progressbar
        See `fit_nuts`.

    Returns
    -------
    Fit
        ``fit.history`` is the evidence lower bound after each iteration (with `minibatch`, its mean over each window),
        in nats. ``fit.pareto_k`` is the k of the importance weights. ``fit.status.converged`` says that the bound
        settled, that k is below 0.7, and that no other mode carries weight.

    Warns
    -----
    ApproximationWarning
        Pareto k is 0.7 or more: the draws are left as they are, and are not to be trusted.
    MultimodalWarning
        Other modes carry more than 1 % of the posterior's mass; the heaviest is approximated (see `Fit.modes`).

    References
    ----------
    Kucukelbir et al. 2017, *JMLR* 18; Giordano, Ingram and Broderick 2024, *JMLR* 25, for fixed points; Yao, Vehtari,
    Simpson and Gelman 2018, *ICML*, for Pareto k.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> fit = bm.fit_advi(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    >>> fit.posterior["mu"].mean(("chain", "draw")).values.round(0)
    array([-4.,  4.])
    """
    if approximation not in ("fullrank", "meanfield"):
        raise ValueError(f'approximation: "fullrank" or "meanfield" is needed, not {approximation!r}.')
    arguments.check(draws=draws, minibatch=minibatch, n_points=n_points, max_iter=max_iter, tol=tol)
    if minibatch is None and (checkpoint is not None or resume is not None):
        raise ValueError("checkpoint: only a climb by minibatches is kept. Pass minibatch=.")
    path = resume if checkpoint is None else checkpoint
    snapshots.check_begin(checkpoint, resume, overwrite)
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    require_free(bound, "advi")
    about: dict[str, Any] = {  # what the batches and the coordinates of the climb depend on
        "minibatch": minibatch,
        "approximation": approximation,
        "spec": repr(bound.spec),
        "order": order if order is None or isinstance(order, str) else list(order),
        "n_points": n_points,
        "n_starts": n_starts,
    }
    begun: Climb | None = None
    if path is not None:
        random_seed = np.random.SeedSequence(entropy_of(random_seed)).entropy
        about |= {"seed": random_seed, "digest": digest_of(encoded, given)}
    if resume is not None:
        begun, earlier = Climb.read(Path(resume))
        random_seed = earlier["seed"]
        for name, value in {**about, "seed": random_seed}.items():
            if earlier.get(name) != value:
                what = "another table or other row weights" if name == "digest" else f"{name}={earlier.get(name)!r}"
                raise DataError(f"resume: {resume} is of {what}. Pass what it was begun with.")
        about = earlier
    rng = generator(random_seed)
    em = {"n_starts": n_starts, "random_seed": rng, "progressbar": progressbar}
    target, at, modes, starts = heaviest(table, bound, encoded, weights, given, order, **em)
    start, _ = start_of(target)
    family = (_FullRank if approximation == "fullrank" else _MeanField)(target, start)

    def draw_points() -> np.ndarray:
        return fixed_points(len(target.start), n_points, rng)

    groups: dict[str, xr.Dataset] = {}
    with Progress("ADVI", None, progressbar) as progress:
        if minibatch is None:
            found, history, converged = ascend(target, family, draw_points(), max_iter, tol, progress)
        else:
            batches = Batches(bound, encoded, weights, minibatch, at, target, order, rng, start)
            keep = None if path is None else (lambda climb: climb.write(Path(path), about))
            found, history, converged = climb_by_batches(
                batches, family, draw_points, max_iter, rng, progress, begun, keep
            )
            groups["variational"] = _noise_dataset(*gradient_noise(batches, family, found))
    if not converged:
        warn(
            f"ADVI stopped after {len(history)} iterations before the bound settled. Raise max_iter.",
            ConvergenceWarning,
        )
    z = standard_points(draws, encoded.n_rows, len(target.start), rng)
    log_q = 0.5 * (z.shape[1] - (z**2).sum(1)) - family.entropy(found)
    points, weighed = corrected(target, family.transform(found, z), log_q, draws, correct, rng)
    warn_of_k(weighed, f"The {approximation} approximation")
    arrays = {name: value[None] for name, value in target.constrained(points).items()}
    status = Status(
        "advi",
        converged and weighed.trusted,
        f"ADVI ({approximation}) {'converged' if converged else 'stopped'} after {len(history)} "
        f"{'iterations' if minibatch is None else 'windows of steps'}; evidence lower bound {history[-1]:.3f} nats; "
        f"{describe(weighed, correct)}.",
    )
    fit = make_fit(
        bound,
        completed(bound, encoded, weights, arrays, rng),
        table=table,
        encoded=encoded,
        row_weights=given,
        status=status,
        history=np.array(history),
        starts=starts,
        log_likelihood=log_likelihood,
        pareto_k=weighed.pareto_k,
        modes=modes,
        groups=groups,
    )
    return fit if len(modes.heavy) < 2 else with_caution(fit, modes, "Approximated the heaviest alone")


def _noise_dataset(corrected: np.ndarray, plain: np.ndarray) -> xr.Dataset:
    """The noise of minibatches' gradients as a group of the results."""
    return xr.Dataset(
        {"gradient_sd": ("coordinate", corrected), "gradient_sd_without_control": ("coordinate", plain)},
        coords={"coordinate": np.arange(len(corrected))},
    )


def fixed_points(dimension: int, n_points: int | None, rng: np.random.Generator) -> np.ndarray:
    """Standard normal points (M, d) with mean exactly 0 and covariance exactly the identity, M even."""
    half = max(32, 2 * dimension) if n_points is None else max(n_points // 2, dimension)
    points = rng.standard_normal((half, dimension))
    points = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / half)).T
    return np.vstack([points, -points])


class _FullRank:
    """q(u) = N(mode + F (m + L z)): F is the Laplace factor, so that the search starts at m = 0, L = I."""

    def __init__(self, target: Target, start: np.ndarray):
        self.start_at = start
        self.factor = laplace_factor(target.hessian(start))
        self.size = len(start)
        self.rows, self.columns = np.tril_indices(self.size)
        self.diagonal = self.rows == self.columns

    @property
    def start(self) -> np.ndarray:
        return np.zeros(self.size + len(self.rows))

    def _lower(self, lam: np.ndarray) -> np.ndarray:
        packed = np.where(self.diagonal, np.exp(lam[self.size :]), lam[self.size :])
        lower = np.zeros((self.size, self.size))
        lower[self.rows, self.columns] = packed
        return lower

    def unit(self) -> np.ndarray:
        """Directions (d, d), columns, one Laplace standard deviation long."""
        return self.factor

    def transform(self, lam: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Points u (M, d) of standard normal points z (M, d)."""
        return self.start_at + (lam[: self.size] + z @ self._lower(lam).T) @ self.factor.T

    def entropy(self, lam: np.ndarray) -> float:
        log_scale = lam[self.size :][self.diagonal].sum() + np.linalg.slogdet(self.factor)[1]
        return float(log_scale + 0.5 * self.size * (1 + np.log(2 * np.pi)))

    def gradient(self, lam: np.ndarray, z: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Of the mean log density plus the entropy; `scores` (M, d) are gradients at the points."""
        pulled = scores @ self.factor
        lower = (pulled.T @ z / len(z))[self.rows, self.columns]
        lower = np.where(self.diagonal, lower * np.exp(lam[self.size :]) + 1.0, lower)
        return np.concatenate([pulled.mean(0), lower])


class _MeanField:
    """q(u) = N(mode + s0 (m + exp(a) z)) with s0 the Laplace standard deviations given the other coordinates."""

    def __init__(self, target: Target, start: np.ndarray):
        self.start_at = start
        curvature = -np.diagonal(target.hessian(start))
        marginal = np.sqrt((laplace_factor(target.hessian(start)) ** 2).sum(1))
        self.scale = np.where(curvature > 0, 1 / np.sqrt(np.where(curvature > 0, curvature, 1.0)), marginal)
        self.size = len(start)

    @property
    def start(self) -> np.ndarray:
        return np.zeros(2 * self.size)

    def unit(self) -> np.ndarray:
        """See `_FullRank.unit`."""
        return np.diag(self.scale)

    def transform(self, lam: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Points u (M, d) of standard normal points z (M, d)."""
        return self.start_at + self.scale * (lam[: self.size] + np.exp(lam[self.size :]) * z)

    def entropy(self, lam: np.ndarray) -> float:
        log_scale = lam[self.size :].sum() + np.log(self.scale).sum()
        return float(log_scale + 0.5 * self.size * (1 + np.log(2 * np.pi)))

    def gradient(self, lam: np.ndarray, z: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """See `_FullRank.gradient`."""
        pulled = scores * self.scale
        return np.concatenate([pulled.mean(0), (pulled * z).mean(0) * np.exp(lam[self.size :]) + 1.0])


def ascend(
    target: Target, family: Any, points: np.ndarray, max_iter: int, tol: float, progress: Progress
) -> tuple[np.ndarray, list[float], bool]:
    """Maximise the evidence lower bound; its value after each iteration; whether the rule of convergence held."""
    state: dict[str, Any] = {"value": np.inf, "gradient": np.inf, "settled": False}

    def negative_bound(lam: np.ndarray) -> tuple[float, np.ndarray]:
        pairs = [target(u) for u in family.transform(lam, points)]
        value = np.mean([pair[0] for pair in pairs]) + family.entropy(lam)
        if not np.isfinite(value):
            return 1e300, np.zeros_like(lam)
        gradient = family.gradient(lam, points, np.array([pair[1] for pair in pairs]))
        state["gradient"] = np.abs(gradient).max()
        return -value, -gradient

    history: list[float] = []

    def remember(intermediate_result: Any) -> None:
        history.append(-float(intermediate_result.fun))
        progress.step(f"bound {history[-1]:.3f}")
        gained, state["value"] = state["value"] - intermediate_result.fun, intermediate_result.fun
        # in units of the Laplace scale, a gradient of g promises a gain of g²/2
        if len(history) > 2 and gained < tol and state["gradient"] < _FLAT:
            state["settled"] = True
            raise StopIteration

    result = minimize(
        negative_bound,
        family.start,
        jac=True,
        method="L-BFGS-B",
        callback=remember,
        options={"maxiter": max_iter, "ftol": 0.0, "gtol": np.sqrt(tol), "maxcor": 20},
    )
    if not history:
        history.append(-float(result.fun))
    settled = state["settled"] or (result.success and result.fun < 1e299)
    return result.x, history, bool(settled)
