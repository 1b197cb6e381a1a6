"""Expectation-maximisation to the posterior mode.

`maximise` is the whole of it: short runs from every start (of very many rows, on a sample), the best of them to the
end, accelerated (`quasi_newton`, `accelerate`), and on from where each stops if that is a saddle (`saddles`).
`advance` is EM itself. Other engines begin with `maximise` too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesmix import arguments
from bayesmix.bound import Bound, prepare
from bayesmix.errors import ConvergenceWarning, DataError, SpecError, close_to, quiet, warn
from bayesmix.fit import Fit, Status, posterior_dataset
from bayesmix.inference import snapshots
from bayesmix.inference.accelerate import Anderson, Coordinates
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.modes import Scout, modes_of
from bayesmix.inference.moments import moments_starts
from bayesmix.inference.quasi_newton import Complete, QuasiNewton
from bayesmix.inference.rows import Rows, rows_in_memory, rows_in_parts
from bayesmix.inference.saddles import ascents, renewals
from bayesmix.inference.start import initial_params, middle, sample_size
from bayesmix.params import COVARIANCE, POSITIVE, Params
from bayesmix.plan import EStep, Pass
from bayesmix.progress import Progress
from bayesmix.relabel import in_canonical_order
from bayesmix.seeds import generator
from bayesmix.sources import source_of
from bayesmix.spec import Encoded, Node, Stats

#: Iterations that every start gets, and as many more those that are then ahead, before the best are finished.
_SHORT_RUN, _AHEAD = 10, 6
#: Iterations on all rows by which starts that ran on a sample are judged.
_RANKED = 2
#: Iterations before leaps begin: the first ones go far and say little of the slope near the mode.
_WARM_UP = 5
#: How many of the starts are run to convergence.
_FINISHED = 3
#: Iterations in search of further modes, as a share of those before.
_EXPLORE = 0.3
#: Iterations in which components that are started anew must come to lie above where they were.
_RENEWED = 60
#: Points that are kept of the way.
_PATH = 10
#: Iterations that the best run gets to where its gradient vanishes, if its objective stood still before leaps began.
_SHARPENED = 10
#: Parameters of which differences are always cheap, and rows beside which they are.
_FEW, _MANY_ROWS = 24, 50_000
#: Accepted points after which the metric is found again.
_RENEW = 5
#: Leaps lost in a row, after which a run takes EM's own step; iterations without gain, after which it ends.
_LOSSES, _IDLE = 3, 8
#: Iterations that lead no higher than rounding, after which a run ends too.
_ROUNDING = 300
#: A run has converged where no entry of the log posterior's gradient is above.
_GRADIENT = 5e-7
#: The same where it goes on until nothing is gained (a tolerance of 0).
_NO_GRADIENT = 1e-9
#: Iterations that a run may take for that once its objective stands still.
_EXTRA = 60
#: Status of a run that the user stopped.
_INTERRUPTED = "interrupted"
#: Status of one whose covariance matrix has no inverse.
_SINGULAR = "failed: a singular covariance matrix: fewer rows than coordinates, or coordinates that follow from others"
#: Two starts whose objectives differ by less reached the same mode.
_SAME_MODE = 1e-4


@dataclass
class Run:
    """One start on its way.

    Attributes
    ----------
    params : dict
        The current point.
    history : list of float
        Log posterior (log-likelihood + log prior) before each iteration.
    loglik : float
        Log-likelihood at the last of them.
    status : str
        ``"running"``, ``"converged"``, ``"max_iter"``, ``"not finished: …"``, or ``"failed: …"`` with the reason.
    rejected, saddles : int
        Leaps that were taken back, and saddles that were left.
    trajectory : list of dict
        The points of `history`, where they are kept.
    validation : float or None
        Log-likelihood of the validation rows, where there are any.
    finished : bool
        Whether it was run to the end, and whatever leads on from there was tried.
    near : bool
        Whether it was given up because it came near where another ended.
    left : list of Run
        Maxima from which components that were started anew led to a higher one.
    """

    params: dict[str, np.ndarray]
    history: list[float] = field(default_factory=list)
    loglik: float = -np.inf
    status: str = "running"
    rejected: int = 0
    saddles: int = 0
    trajectory: list[dict[str, np.ndarray]] = field(default_factory=list)
    anderson: Anderson = field(default_factory=Anderson, repr=False)
    #: EM's own image of the last point, where `params` was leapt to.
    plain: dict[str, np.ndarray] | None = None
    #: Length of the last leap: an estimate of how far the mode is.
    reach: float = np.inf
    validation: float | None = None
    #: The last points of the way, for what they say of the slope.
    path: list[dict[str, np.ndarray]] = field(default_factory=list, repr=False)
    #: Where it goes, if it is accelerated.
    search: _Search | None = field(default=None, repr=False)
    #: Iterations since the objective stood still.
    stood: int = 0
    finished: bool = False
    near: bool = False
    left: list[Run] = field(default_factory=list, repr=False)
    #: Of the point: see `Fingerprints`.
    fingerprint: Any = field(default=None, repr=False)

    def go_on(self, params: dict[str, np.ndarray]) -> None:
        """Run again, from another point."""
        self.params, self.status, self.plain = params, "running", None
        self.anderson, self.reach, self.path, self.stood, self.search = Anderson(), np.inf, [], 0, None

    def begin_again(self) -> None:
        """Forget the way to the point."""
        self.history, self.rejected = [], 0
        if not self.failed:
            self.go_on(self.params)

    def extra(self, tol: float) -> bool:
        """Whether enough iterations were spent on the gradient where the objective stands still."""
        self.stood += 1
        return tol > 1e-6 or self.stood > _EXTRA

    @property
    def n_iterations(self) -> int:
        """Passes over the data, those of leaps that were taken back included."""
        return len(self.history) + self.rejected

    @property
    def objective(self) -> float:
        return self.history[-1] if self.history and np.isfinite(self.history[-1]) else -np.inf

    def report(self) -> dict[str, Any]:
        """What `Fit.starts` keeps of it."""
        found = {"objective": self.objective, "status": self.status, "iterations": self.n_iterations}
        if self.saddles:
            found["saddles"] = self.saddles
        return found if self.validation is None else {**found, "validation": self.validation}

    @property
    def failed(self) -> bool:
        return self.status.startswith("failed")


def fit_em(
    spec: Node,
    data: Any,
    *,
    start: dict[str, Any] | str | None = None,
    n_starts: int = 16,
    max_iter: int = 2000,
    tol: float = 1e-8,
    accelerate: bool = True,
    n_jobs: int = 1,
    row_weights: Any = None,
    memory: int | str = "256 MiB",
    validation: Any = None,
    keep_trajectory: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    r"""Fit by EM to the mode of the posterior (MAP), best of several starts.

    Each start clusters the rows (see `bayesmix.inference.start`) and gets ten iterations, the six that are then best
    ten more, and the three that are then best (with `validation` all of them) are run to convergence. Of 40,000 rows
    or more a random sample of 20,000 (more where there are over 100 components) serves for the first ten, and two
    iterations on all rows for the order. With a third more iterations those are followed that seem to end at a mode of
    their own within ten nats of the best; ``fit.modes`` lists what was found. A run that stops at a saddle goes on
    where that leads to somewhere higher. The objective, log-likelihood plus log prior of the declared variables, never
    falls: a run whose objective falls by more than rounding is dropped as failed, another start takes its place, and
    ``fit.starts`` says so.

    Parameters
    ----------
    spec : Node
        With ``spec.with_flat_priors()`` the mode is the maximum of the likelihood.
    data : table or source
        N rows, in memory or read in parts; see `bayesmix.fit`.
    start : dict or "moments", optional
        Parameter name -> array: one start from this point, instead of `n_starts` from the data. The names
        and shapes are those of ``fit.params``. ``"moments"``: from the answers of `fit_moments`,
        each that is admissible, or of the ten best projections.
    n_starts : int
    max_iter : int
        Iterations a start may take.
    tol : float
        Nats. A run has converged when what it can still gain is below ``tol``: extrapolated from its last two gains
        (Aitken), or, accelerated, when a step gains no more and no entry of the log posterior's gradient is above 5e-7
        (in proportion to the root of ``tol``; or above its rounding). With 0 it goes on until no parameter moves,
        nothing is gained, or the gradient is below 1e-9.
    accelerate : bool
        Leap to where the steps made so far point, in coordinates without constraints: by quasi-Newton steps, or
        with more than 24 parameters and few rows by Anderson's method. Where the objective would fall, a shorter leap
        or EM's own step is made instead. On slow data it takes tens of iterations where plain EM takes thousands.
    n_jobs : int
        Threads of the E-step; -1 is all processors.
    memory : int or str
        Of a source: bytes that rows may take between passes, as a number or as ``"2 GiB"``. What does not fit is read
        again in each pass.
    row_weights : array_like, shape (N,), or str, optional
        Weights; of a source also the name of a column. Weight 2 is the same as the row twice. (Default priors take the
        column's scale from the rows as they are, without weights; give priors of your own where that matters.) Weights
        are taken by place; a pandas series with labels of its own must have those of the table, in the table's order.
    validation : table, optional
        Rows that judge the starts: all of them are run to the end, and the one with the highest log-likelihood of these
        rows is kept; ``fit.starts`` says what each has.
    keep_trajectory : bool
        Keep the parameters of every iteration of the start that is kept, in ``fit.trajectory``.
    checkpoint : path, optional
        A file to keep the parameters of every start in, after each iteration that ends a second or more after the last
        writing. `load` gives the best of them as a fit that is not complete; in the end it is the finished fit.
    resume : path, optional
        Such a file: every start goes on from where it was, and starts that had not begun begin. A fit that has
        converged comes back as it is; one that stopped at `max_iter` goes on for as many iterations again.
    overwrite : bool
        Whether `checkpoint` may take the place of another file.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool

    Returns
    -------
    Fit
        A posterior of one chain and one draw. ``fit.history`` is the objective before each
        iteration, shape (iterations,). After Ctrl-C it is the best point so far, ``fit.status.complete`` is
        False, and a `ConvergenceWarning` says so.

    Raises
    ------
    DataError, SpecError
        Everything that is wrong with the data or the spec, listed together; `resume` is of another spec or table. Of a
        source a `DataError` names the part; what EM had found by then is in `checkpoint`, where there is one.
    FileExistsError
        Something is at `checkpoint` already.
    KeyboardInterrupt
        Ctrl-C before there was a point.

    References
    ----------
    Dempster, Laird and Rubin 1977; Biernacki, Celeux and Govaert 2003, for short runs of many starts; Walker and Ni
    2011, and Jamshidian and Jennrich 1997, for the acceleration.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 200) for m in (-4, 4)])
    >>> fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    >>> fit.params["mu"].round(1)
    array([-4.,  4.])
    """
    snapshots.check_begin(checkpoint, resume, overwrite)
    arguments.check(n_jobs=n_jobs)
    source = source_of(data)
    if source is None:
        rows = rows_in_memory(prepare(spec, data, row_weights), n_jobs)
    else:
        rows = rows_in_parts(spec, source, row_weights, n_jobs, memory)
    return fit_rows(
        spec,
        rows,
        start=start,
        n_starts=n_starts,
        max_iter=max_iter,
        tol=tol,
        accelerate=accelerate,
        validation=validation,
        keep_trajectory=keep_trajectory,
        checkpoint=checkpoint,
        resume=resume,
        random_seed=random_seed,
        progressbar=progressbar,
    )


def fit_rows(
    spec: Node,
    rows: Rows,
    *,
    start: dict[str, Any] | str | None = None,
    n_starts: int = 16,
    max_iter: int = 2000,
    tol: float = 1e-8,
    accelerate: bool = True,
    validation: Any = None,
    keep_trajectory: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    """`fit_em` of rows wherever they are."""
    arguments.check(max_iter=max_iter, tol=tol)
    path = resume if checkpoint is None else checkpoint
    bound, e_step = rows.e_step.bound, rows.e_step
    begun: list[dict[str, np.ndarray]] = []
    if resume is not None:
        earlier, begun = snapshots.read(Path(resume), spec, rows)
        if earlier.status.converged:
            return replace(earlier, table=rows.table, encoded=rows.encoded)
    kept = None if path is None else snapshots.Snapshots(Path(path), rows)
    search = partial(
        maximise_by,
        e_step,
        start=start,
        begun=begun,
        keep=kept,
        interruptible=True,
        n_starts=n_starts,
        max_iter=max_iter,
        tol=tol,
        accelerate=accelerate,
        validation=None if validation is None else bound.encode(validation),
        keep_trajectory=keep_trajectory,
        random_seed=random_seed,
        progressbar=progressbar,
    )
    try:
        best, runs = search()
    except DataError as error:  # a part of the data that could be read before
        if kept is None or not kept.write():
            raise
        way_out = f"What EM had found is in {path}: pass it as resume= once the data are right."
        raise DataError([*error.faults[:-1], f"{error.faults[-1]} {way_out}"]) from error
    reached = np.array([run.objective for run in runs])
    warn_of_components(e_step, best.params)
    ended = {"converged": "converged", _INTERRUPTED: _INTERRUPTED}.get(best.status, "stopped at max_iter")
    status = Status(
        "em",
        best.status == "converged",
        f"EM {ended} after {len(best.history)} "
        f"iterations; {int((reached > best.objective - _SAME_MODE).sum())} of {len(runs)} starts reached this mode.",
        complete=best.status != _INTERRUPTED,
    )
    if not status.complete:
        warn(
            "EM was interrupted: this is the best point so far, not a mode. Pass its params as start= to go on.",
            ConvergenceWarning,
        )
    elif not status.converged:
        warn(
            f"EM stopped at max_iter={max_iter} before it converged. Raise max_iter, or finish with bm.fit_map.",
            ConvergenceWarning,
        )
    fit = rows.make_fit(
        {name: np.asarray(best.params[name])[None, None] for name in bound.free_slots},
        status=status,
        history=np.array(best.history),
        starts=[run.report() for run in runs],
        modes=modes_of(bound, e_step.data, e_step.row_weights, runs),
        trajectory=_trajectory(bound, best, validation) if keep_trajectory else None,
    )
    if kept is not None:
        kept.end(fit, runs)
    return fit


def _trajectory(bound: Bound, run: Run, validation: Any) -> xr.Dataset:
    """Parameters and objective of a run by iteration; log-likelihood of the validation rows too where there are any."""
    dataset = posterior_dataset(bound, {n: np.array([[p[n] for p in run.trajectory]]) for n in bound.free_slots})
    dataset = dataset.isel(chain=0, drop=True).rename(draw="iteration")
    dataset["objective"] = ("iteration", np.array(run.history))
    if validation is not None:
        data = bound.encode(validation)
        dataset["validation"] = ("iteration", [bound.log_density(p, data).sum() for p in run.trajectory])
    return dataset


def maximise(bound: Bound, data: Encoded, row_weights: np.ndarray, **options: Any) -> tuple[Run, list[Run]]:
    """`maximise_by` for rows in memory."""
    return maximise_by(EStep(bound, data, row_weights), **options)


def maximise_by(
    e_step: Pass,
    *,
    start: dict[str, Any] | str | None = None,
    begun: Sequence[dict[str, np.ndarray]] = (),
    keep: Callable[[list[Run]], None] | None = None,
    interruptible: bool = False,
    n_starts: int = 16,
    max_iter: int = 2000,
    tol: float = 1e-8,
    accelerate: bool = True,
    validation: Encoded | None = None,
    keep_trajectory: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
    explore: float = _EXPLORE,
) -> tuple[Run, list[Run]]:
    """The best run, in canonical order of components, and every run. See `fit_em`; for `explore` see `Scout`.

    `begun` are points that starts had come to. `keep` is called with all runs after every iteration on all rows. What
    an `interruptible` search has found by a `KeyboardInterrupt` it returns, the best run's status being "interrupted".
    """
    bound = e_step.bound
    _check_tractable(bound)
    rng = generator(random_seed)
    given = [Run(dict(point)) for point in begun] or _given_starts(e_step, start, rng)
    if not given:
        arguments.check(n_starts=n_starts)
    if start is None and (begun or not given):
        n_starts = max(len(given), n_starts if _has_mixture(bound) else 1)
    else:
        n_starts = len(given)
    n_finished = _FINISHED if validation is None else n_starts

    def watch(run: Run) -> None:
        if keep_trajectory:
            run.trajectory.append(dict(run.params))
        if keep is not None:
            keep(runs)

    few, judged = e_step, 0
    if not given and max_iter > _SHORT_RUN and (sample := _sample(e_step, rng)) is not None:
        few, judged = EStep(bound, *sample, e_step.n_jobs), _RANKED
    runs: list[Run] = []
    finished: list[Run] = []
    maxima: list[float] = []

    def finish(run: Run, renew: bool = True) -> None:
        advance(e_step, run, max_iter, tol, accelerate, watch)
        run.status = "max_iter" if run.status == "running" else run.status
        while (
            run.status == "converged"
            and not any(abs(run.objective - known) < _SAME_MODE for known in maxima)
            and _leave_saddle(e_step, run, rng, renew)
        ):
            run.saddles += 1
            advance(e_step, run, max_iter, tol, accelerate, watch)
            run.status = "max_iter" if run.status == "running" else run.status
        if run.status == "converged":
            maxima.append(run.objective)
        run.finished = True
        if not run.failed:
            finished.append(run)

    def onward(run: Run, iterations: int) -> float:
        if iterations:  # plain ones: an accelerated run begins by finding its metric
            advance(e_step, run, min(run.n_iterations + iterations, max_iter), tol, watch=watch)
        return _remaining_gain(run.history) if run.n_iterations < max_iter else -np.inf

    def search() -> None:
        with Progress("EM starts", n_starts, progressbar) as progress:
            for number in range(n_starts):
                run = given[number] if number < len(given) else _from_clusters(few, rng, number)
                runs.append(run)
                advance(few, run, min(_SHORT_RUN, max_iter), tol, watch=None if judged else watch)
                if judged:
                    run.begin_again()
                    advance(e_step, run, judged, tol, watch=watch)
                progress.step(f"log posterior {max(r.objective for r in runs):.4f}")
        ranked = sorted(runs, key=lambda run: -run.objective)
        if n_starts > _AHEAD > n_finished:
            for run in ranked[:_AHEAD]:
                advance(e_step, run, min(len(run.history) + _SHORT_RUN, max_iter), tol, accelerate, watch)
            ranked.sort(key=lambda run: -run.objective)
        with Progress("EM", min(n_finished, len(runs)), progressbar) as progress:
            for run in ranked:
                if len(finished) < n_finished:
                    finish(run)
                    progress.step(f"log posterior {max((r.objective for r in finished), default=-np.inf):.4f}")
        if finished and len(finished) < len(runs) and explore:
            scout = Scout(e_step, explore, onward)
            while (another := scout.next(runs)) is not None:
                finish(another, renew=False)  # a mode is looked for, and not what lies above it

    try:
        search()
    except KeyboardInterrupt:
        if not interruptible or not any(run.history for run in runs):
            raise
        finished = [_best_so_far(e_step, runs)]
    for run in runs:
        if not run.finished and run.status == "running":
            run.status = "not finished: other starts were ahead"
    if not finished:
        reasons = "; ".join(sorted({run.status for run in runs}))
        raise SpecError(
            f"every start of EM failed ({reasons}). Use the default priors, which keep components from collapsing "
            "as long as fewer than a million rows are equal, or fewer components; for a value that many rows have, "
            "a component that is a point (bm.Categorical, bm.SpikeAndSlab, or a fixed small spread)."
        )
    if validation is None:
        best = max(finished, key=lambda run: run.objective)
    else:
        for run in finished:
            run.validation = float(bound.log_density(run.params, validation).sum())
        best = max(finished, key=lambda run: -np.inf if run.validation is None else run.validation)
    if accelerate and best.status == "converged" and best.search is None and len(best.history) > 2:
        _sharpen(e_step, best, max_iter, tol, watch)
    best.params, *best.trajectory = in_canonical_order(bound, best.params, best.params, *best.trajectory)
    best.trajectory = best.trajectory[1:]
    return best, runs


def _best_so_far(e_step: Pass, runs: list[Run]) -> Run:
    """The best of runs that were interrupted, each taken back to EM's own step; its status says so."""
    for run in runs:
        if run.plain is not None:
            run.params, run.plain = run.plain, None
        run.status = f"not finished: {_INTERRUPTED}" if run.status == "running" else run.status
    best = max((run for run in runs if run.history), key=lambda run: _objective(e_step, run.params))
    best.status = _INTERRUPTED
    return best


def _given_starts(e_step: Pass, start: dict[str, Any] | str | None, rng: np.random.Generator) -> list[Run]:
    """The starts that the caller asked for; none where they are to be found from clusters."""
    bound = e_step.bound
    if start is None:
        return []
    if not isinstance(start, str):
        return [Run(_given_start(bound, start))]
    if start != "moments":
        raise ValueError(f'start: "moments" or a dict of parameters is needed, not {start!r}.')
    return [Run(_given_start(bound, one)) for one in moments_starts(bound, e_step.data, e_step.row_weights, rng)]


def _sharpen(e_step: Pass, run: Run, max_iter: int, tol: float, watch: Callable[[Run], None] | None) -> None:
    """Lead a run whose objective stood still before leaps began to where its gradient vanishes too, in a few steps."""
    before = run.params
    run.status = "running"
    advance(e_step, run, min(run.n_iterations + _SHARPENED, max_iter), tol, True, watch)
    run.params = before if run.failed else run.params
    run.status = "converged"


def _from_clusters(e_step: Pass, rng: np.random.Generator, number: int) -> Run:
    """Start `number`; a failed one where no parameters fit the clusters."""
    bound = e_step.bound
    try:
        with np.errstate(all="ignore"):
            return Run(initial_params(bound, e_step.data, e_step.row_weights, rng, number))
    except np.linalg.LinAlgError:
        return Run(middle(bound), status=_SINGULAR)


def _sample(e_step: Pass, rng: np.random.Generator) -> tuple[Encoded, np.ndarray] | None:
    """Rows for the short runs, and their weights, which have the sum of all; None where all rows serve."""
    n_rows = sample_size(e_step.bound)
    return None if e_step.n_rows < 2 * n_rows else e_step.sample(n_rows, rng)


def _leave_saddle(e_step: Pass, run: Run, rng: np.random.Generator, renew: bool = True) -> bool:
    """Whether a run that stopped can go on from somewhere higher; it then does. See `bayesmix.inference.saddles`.

    Without `renew` only from near where it stopped, which tells a saddle from a maximum.
    """
    bound = e_step.bound
    if not _has_mixture(bound) or not bound.free_slots:
        return False
    enough = run.objective + max(_SAME_MODE, 1e-9 * abs(run.objective))
    with quiet(), np.errstate(all="ignore"):
        for point in renewals(bound, run.params, e_step.data, e_step.row_weights, rng) if renew else ():
            other = Run(point)
            advance(e_step, other, _RENEWED, _SAME_MODE, accelerate=True)
            if not other.failed and other.objective > enough:
                here = Run(run.params, [run.objective], run.loglik, "converged")
                # a maximum of its own, unless something near it is higher
                if not any(_objective(e_step, near) > enough for near in ascents(e_step, run.params, rng)):
                    run.left.append(here)
                run.go_on(other.params)
                return True
        for point in ascents(e_step, run.params, rng):
            if _objective(e_step, point) > enough:
                run.go_on(point)
                return True
    return False


def _objective(e_step: Pass, params: Params) -> float:
    return e_step(params)[0] + e_step.bound.log_prior(params) if not _collapsed(e_step.bound, params) else -np.inf


def advance(
    e_step: Pass,
    run: Run,
    until: int,
    tol: float,
    accelerate: bool = False,
    watch: Callable[[Run], None] | None = None,
) -> None:
    """Iterate a run up to `until` iterations in all, or until it converges or fails; it stays "running" otherwise."""
    if run.status != "running":
        return
    bound = e_step.bound
    if accelerate and run.search is None:
        run.search = _Search(e_step)
    search = run.search if accelerate else None
    while run.n_iterations < until:
        try:
            loglik, stats = e_step(run.params)
            objective = loglik + bound.log_prior(run.params)
        except np.linalg.LinAlgError:
            if run.plain is None:
                run.status = _SINGULAR
                return
            loglik, stats, objective = -np.inf, {}, -np.inf
        fell = _fell(run, objective)
        if fell and run.plain is None:
            fell = not run.history[-1] - objective <= _rounding(bound, run.params, stats)
        new = None
        if np.isfinite(objective):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                new = _guarded(bound, stats, run)
        if run.plain is not None and (fell or new is None or _collapsed(bound, new)):
            # a leap too far: a shorter one, or EM's own step instead, which cannot fall
            assert search is not None
            run.status = "running"
            run.rejected += 1
            search.shorten(run, stats, new, objective)
            continue
        if fell:
            run.status = f"failed: the log posterior fell by {run.history[-1] - objective:.3g}"
            return
        if not np.isfinite(objective):
            run.status = "failed: a component collapsed onto a point"
            return
        run.history.append(objective)
        run.loglik = loglik
        if watch is not None:
            watch(run)
        if new is None:
            return
        if search is None:
            settled = _largest_move(run.params, new) < 1e-13 or _settled(run.history, tol)
        else:
            settled = search.look(run, stats, new, tol)
        if settled:
            run.status, run.plain = "converged", None
            return
        if _collapsed(bound, new):
            run.status = "failed: a component collapsed onto a point"
            return
        run.path = [*run.path[1 - _PATH :], run.params]
        run.params, run.plain = new, None
        if search is not None and len(run.history) > _WARM_UP:
            search.leap(run, new)
            run.path = [] if run.plain is not None else run.path
    if run.plain is not None:  # no pass is left to see whether the last leap holds
        run.params, run.plain = run.plain, None


class _Search:
    """What decides where an accelerated run goes next, and when it is there.

    Quasi-Newton steps where the metric is cheap to find, Anderson's method where there are too many parameters for
    that, or where the metric is not finite (a parameter at the edge of its support).
    """

    def __init__(self, e_step: Pass):
        self.coordinates = Coordinates(e_step.bound)
        self.complete = Complete(e_step.bound)
        # the gradient's differences must not take longer than the passes that they save
        self.newton = self.complete.cheap and (self.complete.size <= _FEW or e_step.n_rows > _MANY_ROWS)
        self.quasi: QuasiNewton | None = None
        self.here = self.image = self.gradient = np.empty(0)
        self.lost = self.idle = self.weak = self.age = 0
        self.best = -np.inf

    def look(self, run: Run, stats: Stats, new: dict[str, np.ndarray], tol: float) -> bool:
        """Take in an accepted point, of which `new` is EM's image; whether it is the mode."""
        leapt, before = run.plain is not None, run.history[-2] if len(run.history) > 1 else -np.inf
        gained = run.history[-1] - before
        self.lost = 0
        with np.errstate(all="ignore"):
            self.here, self.image = self.coordinates.forward(run.params), self.coordinates.forward(new)
        self.idle = 0 if gained > 0 else self.idle + 1
        higher = run.objective > self.best + 1e-14 * abs(run.objective)
        self.weak, self.best = (0, run.objective) if higher else (self.weak + 1, self.best)
        move = float(np.abs(self.image - self.here).max(initial=0.0))
        still = (len(run.history) > 20 and self.idle >= _IDLE) or self.weak >= _ROUNDING
        if _largest_move(run.params, new) < 1e-13 or still:
            return True
        if self.newton and len(run.history) > _WARM_UP:
            self._differentiate(run, stats, new)
        if not self.newton:
            if leapt:
                run.anderson.judge(True)
            if tol == 0:
                return False
            # a step goes to where the mode is, as far as the last steps tell: it must be short, and gain nothing
            close = run.reach < 1e-4 and len(run.history) > 2 and run.history[-1] - run.history[-3] < tol
            # what the gradient is at most, by the rows' number: one row's information is about 1 in a coordinate
            return close and (run.extra(tol) or move * self._rows(stats) < _gradient_limit(tol, run.objective))
        if self.quasi is None or len(run.history) <= _WARM_UP:
            return False
        if leapt:
            self.quasi.judge(gained, 1e-12 * abs(run.objective))
        slope = float(np.abs(self.gradient / self.coordinates.units).max(initial=0.0))
        if tol == 0:  # nothing to gain: further steps would only follow rounding, and away from the mode
            return slope < max(_NO_GRADIENT, 1e-13 * abs(run.objective)) and gained <= 1e-12 * abs(run.objective)
        return slope < _gradient_limit(tol, run.objective) and gained < tol

    def leap(self, run: Run, new: dict[str, np.ndarray]) -> None:
        """Set the run's next point beyond EM's own step, to `new`."""
        if not self.newton:
            leap, run.reach = _leap(self.coordinates, run.anderson, self.here, self.image, new)
            if leap is not None:
                run.params, run.plain = leap, new
            return
        if self.quasi is None:
            return
        point = self._proposal(new)
        if point is not None:
            run.params, run.plain = point, new

    def shorten(self, run: Run, stats: Stats, new: dict[str, np.ndarray] | None, objective: float) -> None:
        """After a leap that lost: a shorter one from the same point, or EM's own step."""
        assert run.plain is not None
        self.lost += 1
        plain = run.plain
        if self.newton and self.quasi is not None and self.lost < _LOSSES:
            with np.errstate(all="ignore"):
                here = self.coordinates.forward(run.params)
                if new is not None and np.isfinite(objective):
                    image = self.coordinates.forward(new)
                    gradient = self.complete.gradient(here, image, stats, run.params)
                    if np.isfinite(gradient).all():
                        self.quasi.observe(here, gradient)
            gained = objective - run.history[-1] if np.isfinite(objective) else -np.inf
            self.quasi.judge(gained, 1e-12 * abs(run.objective))
            point = self._proposal(plain)
            if point is not None:
                run.params, run.plain = point, plain
                return
        run.params, run.plain, run.reach = plain, None, np.inf
        if self.newton:
            self.quasi = None
        else:
            run.anderson.judge(False)

    def _differentiate(self, run: Run, stats: Stats, new: dict[str, np.ndarray]) -> None:
        """The gradient at an accepted point, and what it says of the curvature; the metric where there is none yet."""
        try:
            with np.errstate(all="ignore"):
                gradient = self.complete.gradient(self.here, self.image, stats, new)
                if not np.isfinite(gradient).all():
                    raise np.linalg.LinAlgError("the gradient is not finite")
                if self.quasi is None:
                    self.quasi = QuasiNewton(self.complete)
                    path = [self.coordinates.forward(point) for point in run.path]
                    self.quasi.begin([*path, self.here, self.image], stats, new)
                else:
                    self.quasi.observe(self.here, gradient)
                    self.age += 1
                    if self.age % _RENEW == 0:
                        self.quasi.renew(self.image, stats, new)
                self.gradient = gradient
        except np.linalg.LinAlgError:
            self.newton, self.quasi = False, None

    def _proposal(self, new: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        assert self.quasi is not None
        try:
            with np.errstate(all="ignore"):
                proposed = self.quasi.propose(self.here, self.image, self.gradient)
                leap = self.coordinates.backward(proposed, new)
        except np.linalg.LinAlgError:
            return None
        return leap if all(np.isfinite(value).all() for value in leap.values()) else None

    def _rows(self, stats: Stats) -> float:
        return max((float(np.max(np.abs(own["n"]))) for own in stats.values() if "n" in own), default=1.0)


def _gradient_limit(tol: float, objective: float) -> float:
    """What no entry of the gradient may exceed where a run has converged; never below its rounding."""
    return max(_GRADIENT * max(1.0, np.sqrt(tol / 1e-8)), 1e-13 * abs(objective))


def _fell(run: Run, objective: float) -> bool:
    """Whether the objective fell by more than rounding; a leap may not fall at all."""
    if not run.history or not np.isfinite(objective):
        return run.plain is not None and not np.isfinite(objective)
    allowed = 1e-12 * abs(objective) if run.plain is not None else 1e-9 * max(1.0, abs(run.history[-1]))
    return objective < run.history[-1] - allowed


def _rounding(bound: Bound, params: Params, stats: Stats) -> float:
    """What rounding may move a log-likelihood by: terms can be far larger than their sum, as those of large counts."""
    total = 0.0
    with np.errstate(all="ignore"):
        for site in bound.site.distinct():
            if site.slots and site.key in stats:
                for name, value in site.node.natural(site.values(params), site.learned, np).items():
                    terms = np.abs(np.asarray(value) * stats[site.key][name])
                    total += float(terms[np.isfinite(terms)].sum())
    return 8 * np.finfo(float).eps * total


def _leap(
    coordinates: Coordinates, anderson: Anderson, here: np.ndarray, image: np.ndarray, new: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray] | None, float]:
    """The accelerated point after EM's step from `here` to `image`, and how far it is; None where there is none."""
    try:
        with np.errstate(all="ignore"):
            if not (np.isfinite(here).all() and np.isfinite(image).all()):
                anderson.forget()
                return None, np.inf
            proposed = anderson.propose(here, image)
            leap = coordinates.backward(proposed, new)
    except np.linalg.LinAlgError:
        anderson.forget()
        return None, np.inf
    if not all(np.isfinite(value).all() for value in leap.values()):
        anderson.forget()
        return None, np.inf
    # with one point behind there is no slope to go by, and the step says nothing of the distance
    reach = float(np.abs(proposed - here).max(initial=0.0)) if len(anderson.points) > 2 else np.inf
    return leap, reach


def _settled(history: list[float], tol: float) -> bool:
    """Whether what plain EM can still gain is below ``tol``."""
    if tol == 0:  # nothing gained for many iterations: what moves still is rounding
        return len(history) > 20 and history[-1] - history[-20] <= 0
    return _remaining_gain(history) < tol


def _guarded(bound: Bound, stats: Any, run: Run) -> dict[str, np.ndarray] | None:
    try:
        new = bound.m_step(stats, run.params)
    except np.linalg.LinAlgError:
        run.status = _SINGULAR
        return None
    if not all(np.isfinite(value).all() for value in new.values()):
        run.status = "failed: a parameter left its support"
        return None
    return new


def _collapsed(bound: Bound, params: Params) -> bool:
    """Whether a family whose spread is estimated has a component on a point; what the user fixed is theirs to judge."""
    return any(
        leaf.node.collapsed(leaf.values(params), leaf.learned).any()
        for leaf in bound.site.leaves()
        if any(slot.free and slot.support in (POSITIVE, COVARIANCE) for slot in leaf.slots.values())
    )


def _remaining_gain(history: list[float]) -> float:
    """What the objective can still gain if its gains go on falling by the same factor (Aitken)."""
    if len(history) < 3:
        return np.inf
    before, last = history[-2] - history[-3], history[-1] - history[-2]
    if last <= 1e-14 * abs(history[-1]):
        return 0.0
    if before <= last:
        return np.inf
    return last * last / (before - last)


def _largest_move(old: Params, new: Params) -> float:
    """Largest change of a parameter, relative to the largest entry of its array."""
    return max(
        (float(np.abs(new[n] - old[n]).max() / max(np.abs(new[n]).max(), 1e-300)) for n in new if np.size(new[n])),
        default=0.0,
    )


def _has_mixture(bound: Bound) -> bool:
    return any("weights" in site.slots for site in bound.site.walk())


def _check_tractable(bound: Bound) -> None:
    faults = [
        f"{name}: its prior depends on variables of your PyMC model, which EM does not estimate. "
        "Use bm.build_model and pm.sample."
        for name, slot in bound.slots.items()
        if slot.depends_on_model
    ]
    if faults:
        raise SpecError(faults)


def _given_start(bound: Bound, start: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(start, Mapping):
        way = " Pass start=fit.params." if hasattr(start, "params") else ""
        raise TypeError(f"start: a dict of parameters is needed, not {type(start).__name__}.{way}")
    faults, params = [], {}
    for name in start:
        if name not in bound.slots:
            hint = close_to(str(name), bound.slots) or f" There are {', '.join(bound.slots)}."
            faults.append(f"start: no parameter is called {name!r}.{hint}")
    for name, slot in bound.free_slots.items():
        if name not in start:
            faults.append(f"{name}: missing from start, which needs {', '.join(bound.free_slots)}.")
        elif np.shape(start[name]) != slot.shape:
            faults.append(f"{name}: start has shape {np.shape(start[name])}, the parameter {slot.shape}.")
        elif not slot.support.contains(np.asarray(start[name], float)):
            faults.append(f"{name}: start must be {slot.support.name}.")
        else:
            params[name] = np.array(start[name], float)
    if faults:
        raise SpecError(faults)
    return bound.with_fixed(params)
