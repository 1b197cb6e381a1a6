"""Laplace's approximation: the normal distribution with the posterior's mode and curvature.

In unconstrained coordinates u the posterior near a mode is about p(û) exp(½ (u - û)ᵀ H (u - û)), with H the Hessian of
its log density there. That gives draws, and the mode's mass: log p(û) + d/2 log 2π - ½ log det(-H). The mode is that of
the density of u, with the Jacobians of the transforms: everything here speaks of one density of one vector, and is
exact where that is normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.bound import Bound, count_distinct, prepare, require_free
from bayesmix.build import check_order, mode_in_order, model_of, variables_at
from bayesmix.data import Table
from bayesmix.discrete import completed
from bayesmix.errors import ApproximationWarning, ConvergenceWarning, DataError, SpecError, warn
from bayesmix.fit import Fit, Status, as_frame, draw_rows, make_fit
from bayesmix.inference.accelerate import Coordinates
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.em import maximise, maximise_by
from bayesmix.inference.map import climb
from bayesmix.inference.modes import THOROUGH, Modes, dominant, modes_of, with_caution
from bayesmix.inference.passes import PassTarget
from bayesmix.inference.rows import Rows, rows_in_parts
from bayesmix.inference.start import with_mode_inside
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.params import Params, Slot
from bayesmix.plan import EStep
from bayesmix.psis import FEWEST, INEXACT_K, LARGEST_K, MOST, Importance, importance, normal_log_density
from bayesmix.seeds import generator
from bayesmix.sources import source_of
from bayesmix.spec import Encoded, Node

#: A direction whose curvature is below this share of the largest, in units of the coordinates' own, counts as flat.
_FLAT = 1e-7
#: EM's mode is on an edge where, by the gradient and curvature there, the mode of the coordinates' density is so many
#: standard deviations away. Elsewhere the Jacobians move it by about one; a rate or probability at a distance s from
#: its edge has the Jacobian's gradient, 1, and a curvature of the order of s, so that they are s^-1/2.
_EDGE = 5.0
#: Singular values of the rows' scores below this share of the largest count as zero; their own error is about 1e-9.
_RANK = 1e-6
#: Rows that the rank is judged by, at most.
_RANK_ROWS = 20_000
#: Densities of rows that Pareto k may cost, about.
_MOST_WORK = 16_000_000
#: Draws that Pareto k is found from at first where each takes a pass over a source; then `FEWEST`, where it is large.
_CHECKED = 200
#: Rows that are drawn where the table has few distinct ones.
_DRAWN_ROWS = 2_000
#: For the rank, probabilities are mixed with this share of even ones.
_OFF_EDGE = 1e-3


@dataclass(frozen=True)
class Laplace:
    """A mode of a density in unconstrained coordinates, and the normal approximation there.

    Attributes
    ----------
    point : ndarray, shape (d,)
    log_density : float
        At `point`, with the Jacobians of the transforms, in nats.
    hessian : ndarray, shape (d, d)
    converged : bool
        Whether the gradient vanished at `point`.
    history : list of float
        Log density after each step of the search.
    """

    point: np.ndarray
    log_density: float
    hessian: np.ndarray
    converged: bool
    history: list[float] = field(default_factory=list, repr=False)

    @property
    def definite(self) -> bool:
        """Whether the Hessian is negative definite; otherwise there is no approximation, and `log_mass` is NaN."""
        return _is_negative_definite(self.hessian)

    @property
    def log_mass(self) -> float:
        """See `log_mass`."""
        return log_mass(self.log_density, self.hessian)

    @property
    def factor(self) -> np.ndarray:
        """F (d, d) with F Fᵀ the covariance; flat directions are held (see `laplace_factor`)."""
        return laplace_factor(self.hessian)


def log_mass(log_density: float, hessian: np.ndarray) -> float:
    r"""Log of the integral of the normal approximation at a mode, in nats.

    log p(û) + d/2 log 2π - ½ log det(-H): of one mode, in one order of its components. A posterior of K exchangeable
    components has K! such modes.

    Parameters
    ----------
    log_density : float
        Unnormalised, at the mode.
    hessian : ndarray, shape (d, d)
        Of the log density there.

    Returns
    -------
    float
        NaN where the Hessian is not negative definite, beyond rounding: there is no such approximation.

    References
    ----------
    Tierney and Kadane 1986, *JASA* 81.

    Examples
    --------
    Exact for a normal density, here of standard deviations 1 and 2 and without its constant:

    >>> import numpy as np
    >>> from bayesmix.inference.laplace import log_mass
    >>> bool(np.isclose(log_mass(0.0, np.diag([-1, -0.25])), np.log(2 * np.pi * 2)))
    True
    """
    if not _is_negative_definite(hessian):
        return np.nan
    return float(log_density + 0.5 * len(hessian) * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(-hessian)[1])


def _is_negative_definite(hessian: np.ndarray) -> bool:
    diagonal = -np.diagonal(hessian)
    if len(hessian) == 0:
        return True
    if not np.isfinite(hessian).all() or not (diagonal > 0).all():
        return False
    unit = np.sqrt(diagonal)
    values = np.linalg.eigvalsh(-hessian / unit[:, None] / unit)
    return bool(values.min() > _FLAT * values.max())


def laplace_at(target: Target, start: np.ndarray | None = None, max_iter: int = 1000) -> Laplace:
    """The mode uphill of `start` (by default where the target starts), by L-BFGS and Newton's method."""
    point, history, converged = climb(target, target.start if start is None else start, max_iter)
    return Laplace(point, target(point)[0], target.hessian(point), converged, history)


def start_of(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Where chains and searches start (d,), and a factor (d, d) of Laplace's covariance there: where the target starts.

    A mode on an edge of the support has no curvature to speak of in coordinates that are unbounded: steps of its scale
    lead nowhere. From there the start is the mode of the density of the coordinates, if there is one.
    """
    factor = laplace_factor(target.hessian(target.start))
    with np.errstate(all="ignore"):
        inside = (np.abs(target(target.start)[1] @ factor) <= _EDGE).all()
    if not inside:
        laplace = laplace_at(target)
        if laplace.converged and laplace.definite:
            return laplace.point, laplace.factor
    return target.start, factor


def laplace_of(
    bound: Bound,
    data: Encoded,
    params: Params,
    row_weights: np.ndarray | None = None,
    order: str | Sequence[str] | None = None,
) -> tuple[Laplace, Target]:
    """The approximation at the mode near parameters, for instance EM's, and the log posterior in its coordinates."""
    params = mode_in_order(bound, params, order)
    model = model_of(bound, data, row_weights=row_weights, order=order, initval=params)
    target = Target(model, variables_at(bound, params, order), jacobian=True)
    return laplace_at(target), target


def fit_laplace(
    spec: Node,
    data: Any,
    *,
    draws: int = 1000,
    correct: bool = True,
    order: str | Sequence[str] | None = None,
    max_iter: int = 1000,
    row_weights: Any = None,
    n_starts: int = 16,
    start: dict[str, Any] | str | None = None,
    n_jobs: int = 1,
    memory: int | str = "256 MiB",
    log_likelihood: bool | None = None,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    r"""Fit Laplace's normal approximation to the posterior, at the mode that EM finds.

    It stands in unconstrained coordinates (logarithms of scales, log-ratios of probabilities), at the mode of their
    density, in canonical order of the components; it covers one labelling. The draws are then corrected by importance
    sampling, whose Pareto k says how far the posterior is from normal.

    Parameters
    ----------
    spec : Node
    data : table or source
        N rows; see `bayesmix.fit`. Of a table that is read in parts every gradient is a pass over it, some six of them
        for each parameter, and Pareto k takes 200 more, or 1,000 where these do not settle it; draws are those of the
        normal distribution.
    draws : int
        Draws to store, in one chain.
    correct : bool
        Resample the draws by their smoothed importance weights where Pareto k is below 0.7. Otherwise, and with False,
        they are draws of the normal distribution itself, pairs mirrored about its centre.
    order : str, sequence of str, or None
        Variables whose components are kept ascending (PyMC's ``ordered`` transform).
    max_iter : int
        L-BFGS iterations on the way to the mode.
    row_weights, log_likelihood, random_seed, progressbar
        See `fit_nuts`.
    n_starts, start
        Of the EM before it; see `fit_em`.
    n_jobs, memory
        Of a source; see `fit_em`.

    Returns
    -------
    Fit
        ``fit.pareto_k`` is the k of the importance weights. ``fit.status.converged`` says that the gradient vanished at
        the mode, that the Hessian is negative definite there, that k is below 0.7, and that no other mode carries
        weight; its message has the log mass.
        ``fit.history`` is the log density of the unconstrained coordinates on the way to the mode, in nats.

    Warns
    -----
    ApproximationWarning
        Pareto k is 0.7 or more, or the Hessian is not negative definite: the posterior is not nearly normal.
    MultimodalWarning
        Other modes carry more than 1 % of the posterior's mass; the heaviest is approximated (see `Fit.modes`).

    References
    ----------
    Tierney and Kadane 1986, *JASA* 81; Vehtari et al. 2024, *JMLR* 25, for the correction.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> fit = bm.fit_laplace(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    >>> fit.posterior["mu"].mean(("chain", "draw")).values.round(0)
    array([-4.,  4.])
    >>> fit.pareto_k < 0.7
    True
    """
    arguments.check(draws=draws, max_iter=max_iter, n_jobs=n_jobs)
    rng = generator(random_seed)
    if (source := source_of(data)) is not None:
        rows = rows_in_parts(spec, source, row_weights, n_jobs, memory)
        em = {"start": start, "n_starts": n_starts, "random_seed": rng, "progressbar": progressbar}
        return laplace_of_rows(rows, draws=draws, order=order, max_iter=max_iter, rng=rng, **em)
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    require_free(bound, "laplace")
    em = {"start": start, "n_starts": n_starts, "random_seed": rng, "progressbar": progressbar}
    target, _, modes, starts = heaviest(table, bound, encoded, weights, given, order, **em)
    laplace = laplace_at(target, max_iter=max_iter)
    factor = laplace.factor
    z = standard_points(draws, encoded.n_rows, len(laplace.point), rng)
    points, found = corrected(target, laplace.point + z @ factor.T, normal_log_density(z, factor), draws, correct, rng)
    status = _status(laplace, found, correct)
    arrays = {name: value[None] for name, value in target.constrained(points).items()}
    fit = make_fit(
        bound,
        completed(bound, encoded, weights, arrays, rng),
        table=table,
        encoded=encoded,
        row_weights=given,
        status=status,
        history=np.array(laplace.history),
        starts=starts,
        log_likelihood=log_likelihood,
        pareto_k=found.pareto_k,
        modes=modes,
    )
    return fit if len(modes.heavy) < 2 else with_caution(fit, modes, "Approximated the heaviest alone")


def laplace_of_rows(rows: Rows, *, draws: int, order: Any, max_iter: int, rng: np.random.Generator, **em: Any) -> Fit:
    """`fit_laplace` of rows wherever they are: gradients and the Hessian are sums over chunks or workers."""
    e_step = rows.e_step
    bound = e_step.bound
    require_free(bound, "laplace")
    check_order(bound, order)
    best, runs = maximise_by(e_step, explore=0.0, **em)
    modes = modes_of(bound, e_step.data, e_step.row_weights, runs)
    warn_of_components(e_step, best.params)
    target = PassTarget(e_step, best.params, order=order)
    laplace = laplace_at(target, max_iter=max_iter)
    z = standard_points(draws, e_step.n_rows, len(laplace.point), rng)
    z, checked = z[:draws], z[: -FEWEST - 1 : -1]
    target.logliks.clear()
    log_target: list[float] = []
    for size in (_CHECKED, FEWEST):  # of few draws k may be large by chance: a pass for each of more where it is
        log_target += [target(laplace.point + laplace.factor @ each)[0] for each in checked[len(log_target) : size]]
        found = importance(np.array(log_target), normal_log_density(checked[:size], laplace.factor))
        if found.trusted:
            break
    status = _status(laplace, found, False)
    arrays = {name: value[None] for name, value in target.constrained(laplace.point + z @ laplace.factor.T).items()}
    fit = rows.make_fit(
        {name: arrays[name] for name in bound.free_slots},
        status=replace(status, message=f"{status.message} {target.n_passes} passes over the rows after EM."),
        history=np.array(laplace.history),
        starts=[run.report() for run in runs],
        pareto_k=found.pareto_k,
        modes=modes,
        loglik=float(np.mean(target.logliks)),
        log_likelihood=False,
    )
    return fit if len(modes.heavy) < 2 else with_caution(fit, modes, "Approximated the heaviest alone")


def _status(laplace: Laplace, found: Importance, correct: bool) -> Status:
    """What to say of an approximation and of its importance weights, with the warnings that belong to it."""
    if not laplace.converged:
        warn(
            f"fit_laplace stopped after {len(laplace.history)} steps before it reached the mode. Raise max_iter.",
            ConvergenceWarning,
        )
    if not laplace.definite:
        warn(
            "The log posterior is flat, or rises, in some direction at the mode: it has no normal approximation there, "
            "and the parameters may not be identified. Use fewer components, informative priors, or fit_nuts.",
            ApproximationWarning,
        )
    else:
        warn_of_k(found, "The normal approximation")
    flat = "" if laplace.definite else "; the Hessian is not negative definite"
    return Status(
        "laplace",
        laplace.converged and laplace.definite and found.trusted,
        f"Laplace: log density {laplace.log_density:.3f} at the mode, log mass {laplace.log_mass:.3f}{flat}; "
        f"{describe(found, correct)}.",
    )


def heaviest(
    table: Table,
    bound: Bound,
    data: Encoded,
    weights: np.ndarray,
    given: np.ndarray | None,
    order: str | Sequence[str] | None,
    **em: Any,
) -> tuple[Target, Params, Modes, list[dict[str, Any]]]:
    """EM's heaviest mode: the log posterior that starts there, its parameters, all modes, and what the starts reached.

    With `order` the components of the first two are labelled so.
    `weights` are the rows', and `given` the same, or None where the user gave none. `em` goes to `maximise`.
    """
    check_order(bound, order)
    best, runs = maximise(with_mode_inside(bound), data, weights, explore=THOROUGH, **em)
    heavy, modes = dominant(bound, data, weights, given, best, runs, order)
    at = mode_in_order(bound, heavy, order)
    warn_of_components(EStep(bound, data, weights), at)
    model = model_of(bound, data, index=table.index, row_weights=given, order=order, initval=at)
    target = Target(model, variables_at(bound, at, order), jacobian=True)
    return target, at, modes, [run.report() for run in runs]


def standard_points(draws: int, n_rows: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal points (M, dimension), as many as Pareto k needs.

    The first `draws` are pairs mirrored about 0, in random order: their means carry no Monte-Carlo error.
    """
    half = rng.standard_normal(((draws + 1) // 2, dimension))
    more = int(np.clip(_MOST_WORK // max(n_rows, 1), FEWEST, MOST)) - draws
    return np.vstack(
        [rng.permutation(np.vstack([half, -half])[:draws]), rng.standard_normal((max(more, 0), dimension))]
    )


def corrected(
    target: Target, points: np.ndarray, log_q: np.ndarray, draws: int, correct: bool, rng: np.random.Generator
) -> tuple[np.ndarray, Importance]:
    """`draws` of the points (M, d), resampled by importance where the weights can be trusted, and the weights."""
    found = importance(np.array([target(point)[0] for point in points]), log_q)
    if correct and found.trusted and found.pareto_k > -np.inf:  # with equal weights there is nothing to correct
        return points[found.resample(draws, rng)], found
    return points[:draws], found


def describe(found: Importance, correct: bool) -> str:
    """Pareto k, and what was done about it, for a status."""
    if found.pareto_k == -np.inf:
        return "importance weights all alike, draws as they are"
    if not found.trusted:
        return f"Pareto k {found.pareto_k:.2f}, so draws are not to be trusted: use fit_nuts"
    done = ", draws corrected by importance sampling" if correct else ""
    far = ", of use but not exact: fit_nuts is" if found.pareto_k > INEXACT_K else ""
    return f"Pareto k {found.pareto_k:.2f}{done}{far}"


def warn_of_k(found: Importance, what: str) -> None:
    """Warn where the weights cannot be trusted."""
    if not found.trusted:
        warn(
            f"{what} is too far from the posterior: Pareto k {found.pareto_k:.2f} is not below {LARGEST_K}, so its "
            "draws are left as they are, without correction. Use fit_nuts.",
            ApproximationWarning,
        )


def information_rank(
    bound: Bound, params: Params, data: Encoded, row_weights: np.ndarray | None = None
) -> tuple[int, int]:
    """Rank of the Fisher information of the likelihood at parameters, and the number of free parameters.

    A rank below the number says that some parameters can be moved together, to first order, without a change to any
    row's density: the likelihood does not identify them, and only the prior does. The information is that of the rows'
    scores, Σ s_n s_nᵀ, whose rank does not depend on being at the maximum of the likelihood, as that of the Hessian
    does. Where a table has few distinct rows (answers to some questions), rows that the fitted model draws are added:
    the rank is then the model's, and not bounded by the patterns that happen to be in the table.
    Every coordinate is in units of its own score, so the units of the columns do not matter.

    Parameters
    ----------
    bound : Bound
    params : mapping
    data : Encoded
        N rows; of more than 20,000 as many, evenly spaced.
    row_weights : ndarray, shape (N,), optional

    Returns
    -------
    rank, n_free : int
        Discrete parameters are not counted.

    References
    ----------
    Rothenberg 1971, *Econometrica* 39; Goodman 1974, *Biometrika* 61, for latent classes.

    Examples
    --------
    Two yes-no questions have three free probabilities, which cannot identify the five parameters of two classes:

    >>> import numpy as np, bayesmix as bm
    >>> from bayesmix.inference.laplace import information_rank
    >>> rng = np.random.default_rng(0)
    >>> high = rng.random(500) < 0.4
    >>> answers = {name: rng.random(500) < np.where(high, 0.8, 0.3) for name in "ab"}
    >>> spec = bm.Mixture(bm.Composite(a=bm.Bernoulli(), b=bm.Bernoulli()), 2)
    >>> fit = bm.fit_em(spec, answers, random_seed=1)
    >>> information_rank(fit.bound, fit.params, fit.encoded)
    (3, 5)
    """
    weights = np.ones(data.n_rows) if row_weights is None else np.asarray(row_weights, float)
    rows = np.flatnonzero(weights)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _RANK_ROWS)).astype(int))]
    if len(rows) < data.n_rows:
        data, weights = data.take(rows), weights[rows]
    slots = [slot for slot in bound.free_slots.values() if not slot.discrete]
    inner = {**params, **{slot.name: _inside(slot, np.asarray(params[slot.name], float)) for slot in slots}}
    scores = _scores(bound, inner, data) * np.sqrt(weights)[:, None]
    enough = 10 * scores.shape[1]
    if count_distinct(data, enough) < enough and (drawn := _drawn(bound, inner)) is not None:
        scores = np.vstack([scores, _scores(bound, inner, drawn)])
    length = np.sqrt((scores**2).sum(0))
    known = length > 0
    values = np.linalg.svd(scores[:, known] / length[known], compute_uv=False) if known.any() else np.empty(0)
    rank = int((values > _RANK * values.max(initial=0.0)).sum())
    return rank, sum(_n_free(slot) for slot in slots)


def _drawn(bound: Bound, params: Params) -> Encoded | None:
    """Rows of the fitted model; None where it cannot draw whole rows (sequences without a length)."""
    try:
        return bound.encode(as_frame(draw_rows(bound, params, _DRAWN_ROWS, np.random.default_rng(0)), None))
    except (SpecError, DataError):
        return None


def _n_free(slot: Slot) -> int:
    """Free numbers of a slot: a simplex has one less than entries, a covariance matrix its lower triangle."""
    if slot.support.ndim == 2:
        return slot.shape[-1] * (slot.shape[-1] + 1) // 2 * int(np.prod(slot.shape[:-2], dtype=int))
    size = int(np.prod(slot.shape, dtype=int))
    return size - size // slot.shape[-1] if slot.support.ndim == 1 else size


def _inside(slot: Slot, value: np.ndarray) -> np.ndarray:
    """Probabilities moved a little off 0 and 1, where a coordinate may have no derivative."""
    if slot.support.ndim == 1:
        return (1 - _OFF_EDGE) * value + _OFF_EDGE / value.shape[-1]
    return (1 - _OFF_EDGE) * value + _OFF_EDGE / 2 if slot.support.name == "a probability" else value


def _scores(bound: Bound, params: Params, data: Encoded) -> np.ndarray:
    """Derivatives (N, d) of the rows' log densities, by central differences of fourth order.

    The coordinates may have more entries than there are free numbers, which leaves the rank as it is.
    """
    coordinates = Coordinates(bound)
    here = coordinates.forward(params)

    def derivative(i: int, step: float) -> np.ndarray:
        def at(times: int) -> np.ndarray:
            moved = here.copy()
            moved[i] += times * step
            return bound.log_density(coordinates.backward(moved, params), data)

        return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)

    columns = []
    for i in range(len(here)):
        column = derivative(i, 1e-4)
        # a step that moves the rows' log densities by about a thousandth: rounding and truncation are then alike
        columns.append(derivative(i, 1e-3 / max(1.0, float(np.sqrt(np.mean(column**2))))))
    return np.array(columns).T.reshape(data.n_rows, len(here))
