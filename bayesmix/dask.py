"""Engines on a Dask cluster: rows stay on the workers as encoded arrays, and statistics travel.

The parts of a source are shared out into groups. Each group becomes a task that reads, encodes and lays out its rows;
its result stays on the worker that made it. An E-step is a task for each group beside its rows, and a tree of tasks
that add up what these found, so that a pass moves the parameters one way and one sum of statistics the other. When a
worker is lost, the scheduler makes its groups again on another, from the files: it knows how they were made. EM itself
runs where `fit_em` is called, and is the EM of `bayesmix.fit_em`. Selection is EM for each number of components;
Laplace's approximation and NUTS take a pass for each gradient. Calibration has small tables instead, each of which is
one worker's.

Needs ``pip install 'bayesmix[dask]'``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np

from bayesmix import arguments
from bayesmix.bound import Bound, require_free
from bayesmix.calibration import Calibration, calibrate_part, check_arguments, joined
from bayesmix.chunked import (
    ChunkedEStep,
    Chunks,
    Look,
    PartOfRows,
    added,
    encoded_chunks,
    learn,
    sum_over,
    taken,
    total_of,
)
from bayesmix.data import Table, read
from bayesmix.errors import BayesmixWarning, DataError, warn
from bayesmix.fit import Fit
from bayesmix.inference import snapshots
from bayesmix.inference.em import fit_rows
from bayesmix.inference.laplace import laplace_of_rows
from bayesmix.inference.large import nuts_of_rows
from bayesmix.inference.rows import Rows, checked
from bayesmix.params import Params
from bayesmix.plan import EStep
from bayesmix.seeds import entropy_of, generator, spawned
from bayesmix.select import Selection, select_rows
from bayesmix.sources import ROWS, Part, Source, source_of
from bayesmix.spec import Encoded, Node, Stats

try:
    import cloudpickle
    import distributed
except ImportError:
    raise ImportError("bayesmix.dask needs Dask. Install it: pip install 'bayesmix[dask]'.") from None

__all__ = ["calibrate", "fit_em", "fit_laplace", "fit_nuts", "select"]

#: Groups of parts for each thread of the cluster: several, so that none waits long for the last; each is a message.
_GROUPS = 2
#: Sums that one task adds up.
_FAN_IN = 8


def fit_em(
    spec: Node,
    data: Any,
    *,
    client: Any = None,
    start: dict[str, Any] | str | None = None,
    n_starts: int = 16,
    max_iter: int = 2000,
    tol: float = 1e-8,
    accelerate: bool = True,
    row_weights: Any = None,
    validation: Any = None,
    keep_trajectory: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    """`bayesmix.fit_em` with the rows on the workers of a Dask cluster: the same result, to rounding.

    Parameters
    ----------
    spec : Node
    data : source or table
        Best a path of Parquet that every worker can read, or a Dask data frame; see `bayesmix.fit`. A table in memory
        is sent to the workers.
    client : distributed.Client, optional
        By default the current one, or, where there is none, a ``LocalCluster`` with a worker for each processor, which
        is closed in the end. (In a script, the call then belongs under ``if __name__ == "__main__":``, as with every
        ``LocalCluster``.)
    start, n_starts, max_iter, tol, accelerate, validation, keep_trajectory, checkpoint, resume, overwrite, random_seed
        See `bayesmix.fit_em`.
    row_weights : str or array_like, shape (N,), optional
        The name of a column, or the weights.
    progressbar : bool

    Returns
    -------
    Fit
        It keeps no rows.

    Raises
    ------
    DataError, SpecError
        A `DataError` names the part: also one whose workers died, most likely for want of memory.

    References
    ----------
    Rocklin 2015, *Proceedings of the 14th Python in Science Conference*, for Dask; Chu et al. 2006, *NIPS* 19, for sums
    of statistics over machines.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.dask, distributed
    >>> x = np.random.default_rng(0).poisson(np.repeat([1, 9], 300))
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:  # threads: for a small example
    ...     fit = bayesmix.dask.fit_em(bm.Mixture(bm.Poisson(), 2), {"x": x}, client=client, n_starts=2, random_seed=1)
    >>> fit.params["mu"].round()
    array([1., 9.])
    """
    snapshots.check_begin(checkpoint, resume, overwrite)
    with _client(client) as cluster:
        return fit_rows(
            spec,
            _rows(spec, data, row_weights, cluster),
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


def select(
    spec: Node,
    data: Any,
    n_components: Any = range(1, 9),
    *,
    client: Any = None,
    criterion: str = "bic",
    of: str | None = None,
    row_weights: Any = None,
    n_starts: int = 16,
    random_seed: Any = None,
    progressbar: bool = False,
    **kwargs: Any,
) -> Selection:
    """`bayesmix.select` with the rows on the workers of a Dask cluster: BIC and ICL of EM's modes.

    Parameters
    ----------
    spec : Node
    data : source or table
        See `fit_em`.
    n_components, of, n_starts, random_seed, progressbar
        See `bayesmix.select`.
    client : distributed.Client, optional
        See `fit_em`.
    criterion : {"bic", "icl"}
    row_weights : str or array_like, shape (N,), optional
    **kwargs
        What `fit_em` takes.

    Returns
    -------
    Selection

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.dask, distributed
    >>> x = np.random.default_rng(0).poisson(np.repeat([1, 20], 300))
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     found = bayesmix.dask.select(
    ...         bm.Mixture(bm.Poisson(), 2), {"x": x}, [1, 2, 3], client=client, n_starts=2, random_seed=1
    ...     )
    >>> found.best
    2
    """
    source = _source(data)
    with _client(client) as cluster:
        return select_rows(
            spec,
            lambda resized: _rows(resized, source, row_weights, cluster),
            n_components,
            criterion=criterion,
            of=of,
            n_starts=n_starts,
            random_seed=random_seed,
            progressbar=progressbar,
            **kwargs,
        )


def fit_laplace(
    spec: Node,
    data: Any,
    *,
    client: Any = None,
    draws: int = 1000,
    order: str | Sequence[str] | None = None,
    max_iter: int = 1000,
    row_weights: Any = None,
    n_starts: int = 16,
    start: dict[str, Any] | str | None = None,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    """`bayesmix.fit_laplace` with gradients and the Hessian summed over the workers of a Dask cluster.

    Parameters
    ----------
    spec : Node
    data : source or table
        See `fit_em`.
    client : distributed.Client, optional
        See `fit_em`.
    draws, order, max_iter, n_starts, start, random_seed, progressbar
        See `bayesmix.fit_laplace`.
    row_weights : str or array_like, shape (N,), optional

    Returns
    -------
    Fit
        It keeps no rows.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.dask, distributed
    >>> x = np.random.default_rng(0).poisson(np.repeat([1, 20], 300))
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     fit = bayesmix.dask.fit_laplace(
    ...         bm.Mixture(bm.Poisson(), 2), {"x": x}, client=client, n_starts=2, random_seed=1
    ...     )
    >>> fit.pareto_k < 0.7
    True
    """
    arguments.check(draws=draws, max_iter=max_iter)
    rng = generator(random_seed)
    em = {"start": start, "n_starts": n_starts, "random_seed": rng, "progressbar": progressbar}
    with _client(client) as cluster:
        rows = _rows(spec, data, row_weights, cluster)
        return laplace_of_rows(rows, draws=draws, order=order, max_iter=max_iter, rng=rng, **em)


def fit_nuts(
    spec: Node,
    data: Any,
    *,
    client: Any = None,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    target_accept: float = 0.8,
    subsample: int | None = None,
    row_weights: Any = None,
    n_starts: int = 16,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Fit:
    """`bayesmix.fit_nuts` with the rows on the workers of a Dask cluster: each gradient is a sum over them.

    Worth it where a pass over the rows takes much longer than the way to the workers and back, some hundredths of a
    second. With `subsample` the workers give the mode, its curvature and the check, and NUTS draws from a sample here.

    Parameters
    ----------
    spec : Node
    data : source or table
        See `fit_em`.
    client : distributed.Client, optional
        See `fit_em`.
    draws, tune, chains, target_accept, subsample, n_starts, random_seed, progressbar
        See `bayesmix.fit_nuts`.
    row_weights : str or array_like, shape (N,), optional

    Returns
    -------
    Fit
        It keeps no rows.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.dask, distributed
    >>> x = np.random.default_rng(0).poisson(np.repeat([1, 20], 300))
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     fit = bayesmix.dask.fit_nuts(
    ...         bm.Mixture(bm.Poisson(), 2), {"x": x}, client=client, subsample=200, n_starts=2, random_seed=1
    ...     )
    >>> fit.posterior["mu"].mean(("chain", "draw")).values.round()
    array([ 1., 20.])
    """
    arguments.check(draws=draws, tune=tune, chains=chains, target_accept=target_accept, subsample=subsample)
    with _client(client) as cluster:
        rows = _rows(spec, data, row_weights, cluster)
        require_free(rows.e_step.bound, "nuts")
        return nuts_of_rows(
            rows,
            subsample=subsample,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=None,
            target_accept=target_accept,
            n_starts=n_starts,
            seeds=spawned(random_seed, 2),
            progressbar=progressbar,
        )


def calibrate(
    spec: Node,
    data: Any,
    *,
    client: Any = None,
    method: str = "nuts",
    replications: int = 100,
    n_rows: int | None = None,
    draws: int = 99,
    thin: int = 5,
    tune: int = 300,
    order: str | Sequence[str] | None = None,
    n_starts: int = 4,
    random_seed: Any = None,
) -> Calibration:
    """`bayesmix.calibrate` with the simulated tables shared out over the workers of a Dask cluster.

    Every table has a seed of its own: the ranks are those of `bayesmix.calibrate`.

    Parameters
    ----------
    spec : Node
    data : table
        In memory.
    client : distributed.Client, optional
        See `fit_em`.
    method, replications, n_rows, draws, thin, tune, order, n_starts, random_seed
        See `bayesmix.calibrate`.

    Returns
    -------
    Calibration

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.dask, distributed
    >>> x = np.random.default_rng(0).poisson(np.repeat([1, 20], 15))
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     found = bayesmix.dask.calibrate(
    ...         bm.Mixture(bm.Poisson(), 2), {"x": x}, client=client, replications=20, draws=49, random_seed=1
    ...     )
    >>> found.ranks.shape
    (20, 4)
    """
    check_arguments(
        method, replications=replications, n_rows=n_rows, draws=draws, thin=thin, tune=tune, n_starts=n_starts
    )
    options = {
        "method": method,
        "replications": replications,
        "n_rows": n_rows,
        "draws": draws,
        "thin": thin,
        "tune": tune,
        "order": order,
        "n_starts": n_starts,
        "random_seed": np.random.SeedSequence(entropy_of(random_seed)).entropy,  # one for all tasks
        "progressbar": False,
    }
    with _client(client) as cluster:
        n_tasks = min(replications, _GROUPS * (sum(cluster.nthreads().values()) or 1))
        cuts = np.linspace(0, replications, n_tasks + 1).astype(int)
        futures = [  # the table goes with each task: what was scattered is lost with its worker
            cluster.submit(calibrate_part, spec, data, part=slice(int(begin), int(end)), pure=False, **options)
            for begin, end in pairwise(cuts)
        ]
        return joined(_gathered(cluster, futures, {}))


@contextmanager
def _client(client: Any) -> Iterator[Any]:
    """The client given, the current one, or one with a cluster of its own."""
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            with (
                distributed.LocalCluster(threads_per_worker=1, dashboard_address=":0") as cluster,
                distributed.Client(cluster) as own,
            ):
                yield own
            return
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise TypeError(
            f"client: a distributed.Client is needed, and no asynchronous one, not {client!r}. Make one: "
            "distributed.Client(address)."
        )
    if client.status == "closed":
        raise ValueError("client: it is closed. Make a new one: distributed.Client(address).")
    if not client.nthreads():
        warn("client: the cluster has no workers. The work waits until there are some.", BayesmixWarning)
    yield client


def _source(data: Any) -> Source:
    if callable(data):
        try:
            cloudpickle.dumps(data)
        except Exception as error:  # whatever an object in it raises
            raise DataError(
                f"data: the function cannot be sent to the workers ({error}). Let it make for itself what it uses, "
                "such as locks and open files."
            ) from None
    source = source_of(data)
    return _of_table(read(data)) if source is None else source


def _rows(spec: Node, data: Any, row_weights: Any, client: Any) -> Rows:
    source = _source(data)
    groups = _shared_out(source.parts, client)
    chunks = learn(spec, source, row_weights, looker=partial(_look, client, groups))
    return checked(DaskEStep(chunks, client, groups))


@dataclass(frozen=True)
class _Rows(Part):
    """Rows of a table in memory."""

    name: str
    table: Table

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        yield self.name, self.table


def _of_table(table: Table) -> Source:
    size = max(min(ROWS, -(-table.n_rows // 16)), 1)
    pieces = [(first, table.slice(first, first + size)) for first in range(0, table.n_rows, size)]
    parts = [
        _Rows(f"rows from {first}", Table(piece.columns, piece.named, piece.n_rows, None, piece.backend))
        for first, piece in pieces
    ]
    return Source("table", tuple(parts))


def _shared_out(parts: Sequence[Part], client: Any) -> list[range]:
    """Groups of parts that follow each other, as their numbers: a few for each thread of the cluster."""
    n_threads = sum(client.nthreads().values()) or 1
    cuts = np.linspace(0, len(parts), min(_GROUPS * n_threads, len(parts)) + 1).astype(int)
    return [range(begin, end) for begin, end in pairwise(cuts)]


# ---------------------------------------------------------------- tasks


def _look_at_all(look: Callable[[Part], Look], parts: Sequence[Part]) -> Look:
    return total_of(look(part) for part in parts)


def _laid_out(bound: Bound, parts: Sequence[PartOfRows]) -> list[EStep]:
    """The rows of some parts, ready for E-steps."""
    found = []
    for part in parts:
        for chunk in encoded_chunks(bound, part):
            piece = EStep(bound, chunk.data, chunk.row_weights)
            piece.drop_rows()
            found.append(piece)
    return found


def _e_step(pieces: Sequence[EStep], params: Params) -> tuple[float, Stats | None]:
    return added(piece(params) for piece in pieces)


def _sum_over(bound: Bound, parts: Sequence[PartOfRows], function: Callable[[Encoded, np.ndarray], Any]) -> Any:
    """The sum over the rows of some parts; None where they have none."""
    return total_of(sum_over(function, encoded_chunks(bound, part)) for part in parts)


def _added(results: Sequence[tuple[float, Stats | None]]) -> tuple[float, Stats | None]:
    total = sum(loglik for loglik, _ in results)
    return total, added((0.0, stats) for _, stats in results if stats is not None)[1]


def _total(client: Any, add: Callable[[Sequence[Any]], Any], futures: list[Any], names: dict[int, list[str]]) -> Any:
    """The sum of what futures hold, in their order: by tasks, until there are so few that they are as well added here.

    Raises `DataError` where workers died at one of the groups of parts in `names`.
    """
    while len(futures) > _FAN_IN:
        futures = [
            client.submit(add, futures[i : i + _FAN_IN], pure=False)
            if len(futures[i : i + _FAN_IN]) > 1
            else futures[i]
            for i in range(0, len(futures), _FAN_IN)
        ]
    return add(_gathered(client, futures, names))


def _look(client: Any, groups: Sequence[range], look: Callable[[Part], Look], parts: Sequence[Part]) -> Look:
    """See `bayesmix.chunked.Looker`."""
    if not groups:
        return Look()
    names = {i: [parts[n].name for n in group] for i, group in enumerate(groups)}
    token = uuid4().hex
    futures = [
        client.submit(_look_at_all, look, [parts[n] for n in group], key=f"look-{i}-{token}", pure=False)
        for i, group in enumerate(groups)
    ]
    return _total(client, total_of, futures, names)


def _gathered(client: Any, futures: list[Any], names: dict[int, list[str]]) -> list[Any]:
    """What futures hold. Raises `DataError`, see `_total`."""
    try:
        return client.gather(futures)
    except distributed.KilledWorker as error:
        key = str(error.task)
        number = key.split("-")[1] if key.startswith(("look-", "rows-", "pass-", "take-")) else ""
        own = names.get(int(number), []) if number.isdigit() else []
        which = own[0] if len(own) == 1 else f"{own[0]} to {own[-1]}" if own else "data"
        raise DataError(
            f"{which}: the workers that took it died one after the other, most likely for want of memory. Give workers "
            "more memory, or write the data in smaller parts."
        ) from error.with_traceback(None)
    except DataError as error:
        # the future has the error, whose traceback has the future: together they would stay on the cluster
        faults = error.with_traceback(None).faults
    except distributed.CancelledError as error:
        raise DataError(
            f"data: the cluster let go of the rows, as when the client is closed or restarted ({error})."
        ) from error
    raise DataError(faults)


class DaskEStep(ChunkedEStep):
    """E-steps over rows on the workers of a cluster: a `bayesmix.plan.Pass`.

    Parameters
    ----------
    chunks : Chunks
    client : distributed.Client
    groups : sequence of range
        Numbers of the parts that are one task.
    """

    def __init__(self, chunks: Chunks, client: Any, groups: Sequence[range]):
        super().__init__(chunks)
        self.client, self.groups = client, groups
        self.names = {i: [chunks.source.parts[n].name for n in group] for i, group in enumerate(groups)}
        token = uuid4().hex
        # not scattered: what was scattered is lost with its worker, and a task's result is made again
        self.rows = [
            client.submit(_laid_out, self.bound, [chunks.alone(n) for n in group], key=f"rows-{i}-{token}", pure=False)
            for i, group in enumerate(groups)
        ]

    def take(self, rows: np.ndarray) -> tuple[Encoded, np.ndarray]:
        """See `Chunks.take`; workers read the rows."""
        chunks, token, futures = self.chunks, uuid4().hex, {}
        for i, group in enumerate(self.groups):
            for n in group:
                begin, end = np.searchsorted(rows, [chunks.starts[n], chunks.starts[n] + sum(chunks.sizes[n])])
                if begin < end:
                    futures[n] = self.client.submit(
                        taken, chunks.alone(n), rows[begin:end], key=f"take-{i}-{token}-{n}", pure=False
                    )
        found = _gathered(self.client, list(futures.values()), self.names)
        table = Table.joined([table for table, _ in found])
        return self.bound.site.encode(table, "error"), np.concatenate([weights for _, weights in found])

    def sum_of(self, function: Callable[[Encoded, np.ndarray], Any]) -> Any:
        """See `ChunkedEStep.sum_of`; workers read the rows."""
        token = uuid4().hex
        futures = [
            self.client.submit(
                _sum_over,
                self.bound,
                [self.chunks.alone(n) for n in group],
                function,
                key=f"take-{i}-{token}",
                pure=False,
            )
            for i, group in enumerate(self.groups)
        ]
        return _total(self.client, total_of, futures, self.names)

    def __call__(self, params: Params) -> tuple[float, Stats]:
        """Log-likelihood and expected statistics."""
        token = uuid4().hex
        values = {name: np.asarray(value) for name, value in params.items()}
        # all at once: a message to the scheduler for each would be most of what a pass over few rows takes
        keys = [f"pass-{i}-{token}" for i in range(len(self.rows))]
        futures = self.client.map(_e_step, self.rows, params=values, key=keys, pure=False)
        loglik, stats = _total(self.client, _added, futures, self.names)
        return loglik, stats
