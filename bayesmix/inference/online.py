r"""Online EM: the statistics' running mean, moved a little by every minibatch.

EM's E-step needs all rows before the parameters move once. Here each minibatch moves the mean statistics s of a row,

.. math:: s_t = (1 - \gamma_t)\, s_{t-1} + \gamma_t\, \bar s(x_t; \theta_{t-1}), \qquad
          \theta_t = \arg\max_\theta\; N\, Q(\theta; s_t) + \log p(\theta), \qquad \gamma_t = (t + t_0)^{-\kappa},

so that a pass over the rows takes hundreds of M-steps instead of one. With :math:`\kappa > 1/2` the steps' noise dies
out; the mean of the second half of the :math:`s_t` (Polyak and Ruppert) has the smallest variance that any such rule
can have, and does not depend on :math:`\kappa`. Means of statistics are statistics, so that the M-step of the mean is
inside every support, whatever the family.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.bound import Bound, prepare
from bayesmix.errors import ConvergenceWarning, DataError, quiet, warn
from bayesmix.fit import Fit, Status
from bayesmix.inference import snapshots
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.em import _collapsed, _given_start, maximise_by
from bayesmix.inference.rows import Rows, rows_in_memory, rows_in_parts
from bayesmix.inference.start import sample_size
from bayesmix.params import Params
from bayesmix.plan import EStep
from bayesmix.progress import Progress
from bayesmix.relabel import in_canonical_order
from bayesmix.seeds import generator
from bayesmix.sources import source_of
from bayesmix.spec import Encoded, Node, Stats

#: Iterations of EM on the sample that passes begin with.
_SAMPLE_ITERATIONS = 50
#: Share of the updates whose statistics are averaged.
_AVERAGED = 0.5
#: Log-likelihoods per row that are noted; and seconds between checkpoints, and times longer than a writing at least.
_NOTES, _EVERY, _TIMES_LONGER = 200, 1.0, 20
#: What a finished fit in a checkpoint says of how it was made.
_DIGEST, _SETTINGS = "digest", "settings"
#: Share of `tol` that a step of EM may gain, which goes a tenth of the way or so. It is of the size of a row's log
#: density, which is a nat where the unit of the data happens to make it small.
_STEP = 0.1
#: Updates below which nothing is said of whether the log-likelihood rises.
_FEWEST = 8


@dataclass
class State:
    """Where online EM is: all that its next update depends on.

    Attributes
    ----------
    params : dict
    stats : dict
        Mean statistics of a row.
    average : dict
        Mean of `stats` over the last `n_averaged` updates.
    step, n_averaged : int
        Updates, and those that are averaged.
    history : list of float
        Log-likelihood of a row in the mean, by minibatch, before its update.
    """

    params: dict[str, np.ndarray]
    stats: Stats
    average: Stats
    step: int = 0
    n_averaged: int = 0
    history: list[float] | None = None


def fit_online(
    spec: Node,
    data: Any,
    *,
    n_passes: int = 2,
    batch_size: int = 10_000,
    kappa: float = 0.6,
    t0: float = 2.0,
    average: bool = True,
    start: dict[str, Any] | None = None,
    n_starts: int = 8,
    tol: float = 1e-3,
    n_jobs: int = 1,
    row_weights: Any = None,
    memory: int | str = "256 MiB",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    r"""Fit by online EM to the mode of the posterior, nearly, in a few passes over the rows.

    It starts at EM's mode of a sample of 20,000 rows (of smaller tables all of them), takes minibatches in random
    order, and ends with one pass that finds the log-likelihood. For tables of millions of rows of which a pass is dear;
    where some tens of passes are cheap `fit_em` gives the mode itself.

    Parameters
    ----------
    spec : Node
    data : table or source
        N rows, in memory or read in parts; see `bayesmix.fit`. Of a source, parts are taken in random order, and rows
        in random order within each piece of a part: parts that differ much (sorted files) need several passes.
    n_passes : int
    batch_size : int
        Rows of a minibatch.
    kappa, t0 : float
        Step t has the length (t + t0)^-kappa; kappa above 0.5 and up to 1. Small ones forget the start sooner, and are
        noisier, which averaging takes away.
    average : bool
        Return the M-step of the mean statistics of the second half of the updates; otherwise the last point.
    start : dict, optional
        Parameter name -> array: begin there, without EM on a sample.
    n_starts : int
        Starts of the EM on the sample.
    tol : float
        It has converged where the mean log-likelihood of a row rose by less than this share of its size from the third
        to the fourth quarter of the updates, or by no more than three standard errors; and where a step of EM over all
        rows, which the last pass tells, would gain less than a tenth of it.
    n_jobs, row_weights, memory
        See `fit_em`.
    checkpoint : path, optional
        A file to keep the state in, every second or so; in the end it is the finished fit.
    resume : path, optional
        Such a file, and the same spec, data and settings: it goes on, to the same digits as without a break.
    overwrite : bool
        Whether `checkpoint` may take the place of another file.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool

    Returns
    -------
    Fit
        A posterior of one chain and one draw. ``fit.history`` is the mean log-likelihood of a row, in nats, over up to
        200 stretches of the updates, at the points before them. After Ctrl-C it is the point so far, and
        ``fit.status.complete`` is False.

    Raises
    ------
    DataError, SpecError
        Everything that is wrong with the data or the spec, listed together; `resume` is of another spec, table or
        setting.
    FileExistsError
        Something is at `checkpoint` already.

    Warns
    -----
    ConvergenceWarning
        The log-likelihood was still rising, or the last minibatches were not like the others.

    References
    ----------
    Cappé and Moulines 2009, *JRSS B* 71; Polyak and Juditsky 1992, *SIAM Journal on Control and Optimization* 30.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(np.where(rng.random(60_000) < 0.3, -4.0, 4.0), 1)
    >>> fit = bm.fit_online(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    >>> fit.params["mu"].round(1)
    array([-4.,  4.])
    """
    arguments.check(
        n_passes=n_passes, batch_size=batch_size, kappa=kappa, t0=t0, n_starts=n_starts, tol=tol, n_jobs=n_jobs
    )
    path = resume if checkpoint is None else checkpoint
    snapshots.check_begin(checkpoint, resume, overwrite)
    source = source_of(data)
    if source is None:
        rows = rows_in_memory(prepare(spec, data, row_weights), n_jobs)
    else:
        rows = rows_in_parts(spec, source, row_weights, n_jobs, memory)
    bound = rows.e_step.bound
    rng = generator(random_seed)
    seed = int(rng.integers(2**63))
    settings = {
        "batch_size": batch_size,
        "n_passes": n_passes,
        "kappa": kappa,
        "t0": t0,
        "average": average,
        "spec": repr(bound.spec),
    }
    state = None
    if resume is not None:
        finished, state, seed = _read(Path(resume), spec, rows, settings)
        if finished is not None:
            return replace(finished, table=rows.table, encoded=rows.encoded)
    if state is None:
        state = _begin(rows, start, n_starts, rng)
    keep = None if path is None else _Keeper(Path(path), rows, settings, seed)
    complete = True
    try:
        _run(rows, state, settings, seed, keep, n_jobs, progressbar)
    except KeyboardInterrupt:
        complete = False
        if keep is not None:
            keep.write(state)
        if not state.history:
            raise
    total = _total_weight(rows)
    params = state.params
    if average and state.n_averaged:
        params = _moved(bound, state.average, total, params)
    params = in_canonical_order(bound, params)
    if complete:
        warn_of_components(EStep(bound, rows.e_step.data, rows.e_step.row_weights), params)
    assert state.history is not None
    settled, gain = _settled(state.history, tol)
    few = len(state.history) < _FEWEST
    said = "too few to say what they gain." if few else f"the last quarter gained {gain:.2g} nats a row."
    loglik, left = None, 0.0
    if complete:
        loglik, stats = rows.e_step(bound.with_fixed(params))
        left = _expected_gain(bound, stats, params, _moved(bound, stats, 1.0, params)) / total
        said += f" A step of EM over all rows would gain {left:.2g}."
    far = left > _STEP * tol * max(abs(loglik or 0.0) / total, 1.0)
    status = Status(
        "online",
        complete and settled and not far,
        f"Online EM {'ended' if complete else 'was interrupted'} after {state.step} updates of up to {batch_size:,} "
        f"rows; {said}",
        complete=complete,
    )
    if not complete:
        warn(
            "Online EM was interrupted: this is the point so far. Pass resume= or start= to go on.", ConvergenceWarning
        )
    elif far:
        warn(
            f"Online EM ended where a step of EM over all rows gains {left:.2g} nats a row: the last minibatches were "
            "not like the others, as where parts differ. Raise n_passes, put the rows in random order, or finish with "
            "fit_em(…, start=fit.params).",
            ConvergenceWarning,
        )
    elif few:
        warn(
            f"Online EM ended after {state.step} updates, too few to say whether it has converged. Lower batch_size, "
            "raise n_passes, or finish with fit_em(…, start=fit.params).",
            ConvergenceWarning,
        )
    elif not settled:
        warn(
            f"Online EM ended while the log-likelihood was rising, by {gain:.2g} nats a row in the last quarter. Raise "
            "n_passes, or finish with fit_em(…, start=fit.params).",
            ConvergenceWarning,
        )
    fit = rows.make_fit(
        {name: np.asarray(params[name])[None, None] for name in bound.free_slots},
        status=status,
        history=np.array([np.mean(part) for part in np.array_split(state.history, _NOTES) if len(part)]),
        loglik=loglik,
    )
    if keep is not None and complete:
        keep.end(fit)
    return fit


def step_size(step: int, kappa: float, t0: float) -> float:
    """Length of a step, counted from 1."""
    return float((step + t0) ** -kappa)


def _begin(rows: Rows, start: dict[str, Any] | None, n_starts: int, rng: np.random.Generator) -> State:
    """The state before the first update: EM's mode of a sample, and its statistics."""
    bound, size = rows.e_step.bound, sample_size(rows.e_step.bound)
    few = None
    if rows.e_step.n_rows >= 2 * size and (sample := rows.e_step.sample(size, rng)) is not None:
        few = EStep(bound, *sample)
    few = EStep(bound, rows.e_step.data, rows.e_step.row_weights) if few is None else few
    if start is not None:
        params = _given_start(bound, start)
    else:
        with quiet():
            best, _ = maximise_by(few, n_starts=n_starts, max_iter=_SAMPLE_ITERATIONS, explore=0.0, random_seed=rng)
        params = best.params
    stats = _scaled(few(params)[1], 1 / float(few.row_weights.sum()))
    return State(dict(params), stats, _scaled(stats, 0.0), history=[])


def _run(
    rows: Rows, state: State, settings: dict[str, Any], seed: int, keep: _Keeper | None, n_jobs: int, progressbar: bool
) -> None:
    """All updates that are left; an interruption leaves the state as it is after one."""
    bound, total = rows.e_step.bound, _total_weight(rows)
    size, n_passes = settings["batch_size"], settings["n_passes"]
    per_pass = n_batches(rows, size)
    n_steps = n_passes * per_pass
    first_averaged = n_steps - int(n_steps * _AVERAGED)
    assert state.history is not None
    with Progress("Online EM", n_steps - state.step, progressbar) as progress:
        for number in range(state.step // per_pass, n_passes):
            for data, weights in batches(rows, size, seed, number, state.step - number * per_pass):
                own = float(weights.sum())
                step, loglik, stats = state.step + 1, 0.0, state.stats
                params, averaged, average = state.params, state.n_averaged, state.average
                if own > 0:
                    loglik, found = EStep(bound, data, weights, n_jobs)(state.params)
                    gamma = step_size(step, settings["kappa"], settings["t0"])
                    stats = _mixed(state.stats, found, 1 - gamma, gamma / own)
                    params = _moved(bound, stats, total, state.params)
                    if step > first_averaged:
                        averaged += 1
                        average = _mixed(state.average, stats, 1 - 1 / averaged, 1 / averaged)
                    state.history.append(loglik / own)
                # in one go, so that Ctrl-C finds a state as it is between two updates
                state.params, state.stats, state.average, state.n_averaged, state.step = (
                    params, stats, average, averaged, step,
                )  # fmt: skip
                progress.step(f"log-likelihood of a row {state.history[-1] if state.history else 0:.4f}")
                if keep is not None:
                    keep(state)


def n_batches(rows: Rows, size: int) -> int:
    """Minibatches in a pass."""
    return sum(-(-n // size) for part in _pieces(rows) for n in part)


def _pieces(rows: Rows) -> list[list[int]]:
    """Rows of each piece of each part: those in memory are one."""
    if rows.encoded is not None:
        return [[rows.encoded.n_rows]]
    return [[n for n in part if n] for part in rows.e_step.chunks.sizes]  # type: ignore[attr-defined]


def batches(rows: Rows, size: int, seed: int, number: int, skip: int = 0) -> Iterator[tuple[Encoded, np.ndarray]]:
    """Minibatches of pass `number` and their weights, but for the first `skip`: every row once, in random order.

    The order depends on `seed` and `number` alone. Of a source, parts come in random order, and rows within a piece.
    """
    pieces = _pieces(rows)
    for part in np.random.default_rng([seed, number]).permutation(len(pieces)).tolist():
        counts = [-(-n // size) for n in pieces[part]]
        if skip >= sum(counts):  # without reading it
            skip -= sum(counts)
            continue
        for j, (data, weights) in enumerate(_read_pieces(rows, part)):
            if skip >= counts[j]:
                skip -= counts[j]
                continue
            order = np.random.default_rng([seed, number, part, j]).permutation(data.n_rows)
            for own in np.array_split(order, counts[j])[skip:]:
                yield data.take(np.sort(own)), weights[np.sort(own)]
            skip = 0


def _read_pieces(rows: Rows, part: int) -> Iterator[tuple[Encoded, np.ndarray]]:
    if rows.encoded is not None:
        weights = rows.row_weights
        yield rows.encoded, np.broadcast_to(1.0, rows.encoded.n_rows) if weights is None else weights
        return
    for chunk in rows.e_step.chunks.part(part):  # type: ignore[attr-defined]
        yield chunk.data, chunk.row_weights


def _total_weight(rows: Rows) -> float:
    if rows.encoded is not None:
        return float(rows.encoded.n_rows if rows.row_weights is None else rows.row_weights.sum())
    return float(rows.e_step.chunks.total_weight)  # type: ignore[attr-defined]


def _scaled(stats: Stats, factor: float) -> Stats:
    return {key: {name: factor * value for name, value in own.items()} for key, own in stats.items()}


def _mixed(first: Stats, second: Stats, a: float, b: float) -> Stats:
    """``a`` times the first plus ``b`` times the second."""
    return {key: {name: a * value + b * second[key][name] for name, value in own.items()} for key, own in first.items()}


def _moved(bound: Bound, stats: Stats, total: float, params: Params) -> dict[str, np.ndarray]:
    """The M-step at mean statistics of a row, as of all rows; where it leads nowhere, the point that there was."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        try:
            new = bound.m_step(_scaled(stats, total), params)
        except np.linalg.LinAlgError:
            return dict(params)
    good = all(np.isfinite(value).all() for value in new.values()) and not _collapsed(bound, new)
    return new if good else dict(params)


def _expected_gain(bound: Bound, stats: Stats, params: Params, new: Params) -> float:
    """What an M-step gains of the expected log posterior, in nats: the log posterior itself gains as much or more."""
    gain = bound.log_prior(new) - bound.log_prior(params)
    before, after = bound.with_fixed(params), bound.with_fixed(new)
    for site in bound.site.distinct():
        if site.slots and site.key in stats:
            with np.errstate(all="ignore"):
                now, was = (
                    site.node.expected_logp(site.values(point), stats[site.key], site.learned, np)
                    for point in (after, before)
                )
                gains = now - was
            gain += float(gains[np.isfinite(gains)].sum())  # on an edge, as of a rate of 0, nothing moves
    return gain


def _settled(history: list[float], tol: float) -> tuple[bool, float]:
    """Whether the last quarter gained no more than `tol` of the size, or noise, and what it gained, in nats a row."""
    if len(history) < _FEWEST:
        return False, np.inf
    before, last = np.array_split(np.array(history), 4)[2:]
    gain = float(last.mean() - before.mean())
    error = float(np.sqrt(last.var(ddof=1) / len(last) + before.var(ddof=1) / len(before)))
    return gain < max(tol * abs(float(last.mean())), 3 * error), gain


# ---------------------------------------------------------------- checkpoints


class _Keeper:
    """Called with the state after each update, it writes it to `path` where it is time to."""

    def __init__(self, path: Path, rows: Rows, settings: dict[str, Any], seed: int):
        self.path, self.settings, self.seed, self.digest = path, settings, seed, _digest(rows)
        self.next = time.monotonic() + _EVERY

    def __call__(self, state: State) -> None:
        if time.monotonic() >= self.next:
            began = time.monotonic()
            self.write(state)
            ended = time.monotonic()
            self.next = ended + max(_EVERY, _TIMES_LONGER * (ended - began))

    def write(self, state: State) -> None:
        """Write the state."""
        from bayesmix.io import writing

        document = {
            "settings": self.settings,
            "seed": str(self.seed),
            "digest": self.digest,
            "step": state.step,
            "n_averaged": state.n_averaged,
        }
        arrays = {f"params/{name}": np.asarray(value) for name, value in state.params.items()}
        for kind, stats in (("stats", state.stats), ("average", state.average)):
            for i, own in enumerate(stats.values()):
                arrays |= {f"{kind}/{i}/{name}": value for name, value in own.items()}
        document["keys"] = list(state.stats)
        with writing(self.path) as file:
            np.savez(
                file,
                online=np.array(json.dumps(document)),
                history=np.array(state.history),
                allow_pickle=False,
                **arrays,
            )

    def end(self, fit: Fit) -> None:
        """Put the finished fit in its place."""
        snapshots.marked(fit, {_DIGEST: self.digest, _SETTINGS: json.dumps(self.settings)}).save(self.path)


def _digest(rows: Rows) -> str:
    from bayesmix.checkpoint import digest_of

    if rows.encoded is not None:
        return digest_of(rows.encoded, rows.row_weights)
    return rows.e_step.chunks.digest()  # type: ignore[attr-defined]


def _read(path: Path, spec: Node, rows: Rows, settings: dict[str, Any]) -> tuple[Fit | None, State | None, int]:
    """A finished fit, or the state and the seed. Raises `DataError` where they are of something else."""
    from bayesmix.io import load, node_to_json, reading

    if not path.exists():
        raise FileNotFoundError(2, "No such checkpoint", str(path))
    if not zipfile.is_zipfile(path):
        raise DataError(f"resume: {path} is no checkpoint of fit_online.")
    with reading(path):
        with zipfile.ZipFile(path) as archive:
            unfinished = "online.npy" in archive.namelist()
        if unfinished:
            return None, *_read_state(path, rows, settings)
    fit = load(path)
    if fit.status.engine != "online":
        raise DataError(f"resume: {path} is a fit by {fit.status.engine}, no checkpoint of fit_online.")
    if node_to_json(fit.spec) != node_to_json(spec.plain()):
        raise DataError(f"resume: {path} is of another spec: {fit.spec!r}. Pass that one.")
    about = snapshots.marks_of(fit)
    _check_same(path, rows, settings, json.loads(about.get(_SETTINGS, "{}")), about.get(_DIGEST))
    return fit, None, 0


def _check_same(path: Path, rows: Rows, settings: dict[str, Any], earlier: dict[str, Any], digest: Any) -> None:
    """Raise `DataError` where a checkpoint was begun with other settings, or with other rows."""
    other = [name for name in settings if earlier.get(name) != settings[name]]
    if other:
        was = ", ".join(f"{name}={earlier.get(name)!r}" for name in other)
        raise DataError(f"resume: {path} was begun with {was}. Pass the same.")
    if digest != _digest(rows):
        raise DataError(f"resume: {path} is of another table or other row weights. Pass those it was begun with.")


def _read_state(path: Path, rows: Rows, settings: dict[str, Any]) -> tuple[State, int]:
    """The state in an unfinished checkpoint, and the seed."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        document = json.loads(str(file["online"]))
        _check_same(path, rows, settings, document["settings"], document["digest"])
        state = State({}, {}, {}, document["step"], document["n_averaged"], file["history"].tolist())
        for name in file.files:
            kind, *rest = name.split("/", 2)
            if kind == "params":
                state.params[rest[0]] = file[name]
            elif kind in ("stats", "average"):
                stats = state.stats if kind == "stats" else state.average
                stats.setdefault(document["keys"][int(rest[0])], {})[rest[1]] = file[name]
        return state, int(document["seed"])
