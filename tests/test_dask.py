"""EM on a Dask cluster: the result is the local one, whatever happens to workers."""

from __future__ import annotations

import os
import threading
import time

import dask
import distributed
import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
import bayesmix.dask
from bayesmix import sources
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.inference.passes import PassTarget
from bayesmix.inference.start import initial_params
from bayesmix.inference.target import Target

N = 900
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), s=bm.Categorical(), v=bm.MvNormal()), 2)
#: A few steps tell as much as all: they are the same ones.
EM = dict(n_starts=1, max_iter=14, accelerate=False, random_seed=1)
#: Runs that end where nothing is left to gain.
WHOLE = dict(n_starts=1, tol=0, random_seed=1)

pytestmark = pytest.mark.filterwarnings("ignore::bayesmix.errors.ConvergenceWarning")


@pytest.fixture(scope="module", autouse=True)
def settings_of_dask():
    """As they were before: of two clients that are not closed in the order of their making one leaves its own."""
    before = dask.config.get("scheduler", None)
    yield
    if dask.config.get("scheduler", None) != before:
        dask.config.config.pop("scheduler", None)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, N)
    vectors = np.where(rng.random((N, 2)) < 0.1, np.nan, rng.normal(3.0 * z[:, None], 1, (N, 2)))
    table = pd.DataFrame({"x": rng.normal(5 * z, 1), "y": rng.poisson(1 + 6 * z), "s": np.array(["a", "b"])[z]})
    return table.assign(v=list(vectors), w=rng.integers(1, 3, N).astype(float))


@pytest.fixture(scope="module")
def folder(frame, tmp_path_factory):
    where = tmp_path_factory.mktemp("rows")
    for i, rows in enumerate(np.array_split(np.arange(N), 7)):
        frame.iloc[rows].to_parquet(where / f"part{i}.parquet", index=False)
    return where


@pytest.fixture(scope="module")
def client():
    """Workers that are threads: quick to begin."""
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found


@pytest.fixture(scope="module")
def cluster():
    """Workers that are processes, and can die."""
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with distributed.LocalCluster(**options) as found, distributed.Client(found) as client:
        yield client


def same(fit, local):
    assert fit.bound.learned == local.bound.learned
    np.testing.assert_allclose(fit.loglik, local.loglik, rtol=1e-9)
    for name, value in local.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_fit_is_the_local_one(client, folder, frame, monkeypatch):
    monkeypatch.setattr(sources, "ROWS", 64)
    local = bm.fit_em(SPEC, frame, **EM)
    same(bm.dask.fit_em(SPEC, folder, client=client, **EM), local)
    same(bm.dask.fit_em(SPEC, frame, client=client, **EM), local)
    same(bm.dask.fit_em(SPEC, [frame.iloc[:100], frame.iloc[100:]], **EM), local)  # the current client


def test_sums_of_many_groups_are_added_by_the_cluster(client, folder, frame, monkeypatch):
    """By tasks of three at most, until there are three: of four groups one is left over."""
    monkeypatch.setattr("bayesmix.dask._FAN_IN", 3)
    same(bm.dask.fit_em(SPEC, folder, client=client, **EM), bm.fit_em(SPEC, frame, **EM))


def test_row_weights_and_the_sample_of_starts(client, folder, frame, monkeypatch):
    monkeypatch.setattr("bayesmix.inference.start._SAMPLE", 100)
    local = bm.fit_em(SPEC, frame, row_weights=frame["w"], **EM)
    same(bm.dask.fit_em(SPEC, folder, client=client, row_weights="w", **EM), local)
    same(bm.dask.fit_em(SPEC, folder, client=client, row_weights=frame["w"].to_numpy(), **EM), local)


def test_a_checkpoint_of_a_cluster_goes_on_anywhere(client, folder, tmp_path):
    fit = bm.dask.fit_em(SPEC, folder, client=client, checkpoint=tmp_path / "em.zip", **EM)
    same(bm.load(tmp_path / "em.zip"), fit)
    same(bm.fit_em(SPEC, folder, resume=tmp_path / "em.zip"), fit)


def test_bad_partitions_are_named(client, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "part3.parquet").write_bytes(b"PAR1 this is no Parquet PAR1")
    with pytest.raises(bm.DataError, match=r"part3.parquet: it cannot be read as Parquet"):
        bm.dask.fit_em(SPEC, tmp_path, client=client)
    pd.read_parquet(folder / "part3.parquet").assign(y=-1).to_parquet(tmp_path / "part3.parquet")
    with pytest.raises(bm.DataError, match=r"part3.parquet: y: Poisson needs whole numbers >= 0; row 0 is -1"):
        bm.dask.fit_em(SPEC, tmp_path, client=client)


class _Dying(sources.Part):
    """Rows that kill who reads them, as a worker does that has no memory left."""

    name = "chunk 1"

    def tables(self, columns=None):
        os._exit(1)
        yield


@pytest.mark.slow
def test_workers_that_die_of_a_partition(cluster, frame):
    source = sources.source_of([frame.iloc[:400], frame.iloc[400:]])
    parts = sources.Source("data frames", (source.parts[0], _Dying()))
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        cluster.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 1))
        with pytest.raises(bm.DataError, match="chunk 1: the workers that took it died one after the other"):
            bm.dask.fit_em(SPEC, parts, client=cluster)
    cluster.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    cluster.wait_for_workers(2)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_made_up_for(cluster, folder, frame):
    """Killed in the middle of EM's passes, with the rows that it held."""
    local = bm.fit_em(SPEC, frame, **WHOLE)
    cluster.wait_for_workers(2)
    before, passes = cluster.run(os.getpid), []
    whole = bm.dask.DaskEStep.__call__

    def watched(self, params):
        passes.append(time.monotonic())
        if len(passes) == 5:
            threading.Thread(target=os.kill, args=(next(iter(before.values())), 9)).start()
        return whole(self, params)

    bm.dask.DaskEStep.__call__ = watched
    try:
        same(bm.dask.fit_em(SPEC, folder, client=cluster, **WHOLE), local)
    finally:
        bm.dask.DaskEStep.__call__ = whole
    assert len(passes) > 10
    cluster.wait_for_workers(2)
    assert set(cluster.run(os.getpid).values()) != set(before.values())


# ------------------------------------------------------------------ other engines


SMALL = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson()), 2)


def test_selection_is_the_one_of_the_table_in_memory(client, folder, frame):
    table = frame[["x", "y"]]
    parts = [part for part in np.array_split(np.arange(N), 5)]
    given = dict(n_starts=2, random_seed=3)
    there = bm.select(SMALL, table, [1, 2, 3], evidence=None, **given)
    in_parts = bm.select(SMALL, [table.iloc[rows] for rows in parts], [1, 2, 3], **given)
    on_workers = bayesmix.dask.select(SMALL, table, [1, 2, 3], client=client, **given)
    for found in (in_parts, on_workers):
        assert found.best == there.best == 2
        columns = ["n_parameters", "loglik", "bic", "icl", "entropy", "entropy_relative", "smallest_weight"]
        for name in columns:
            np.testing.assert_allclose(found.table[name].astype(float), there.table[name].astype(float), rtol=1e-6)


def test_selection_of_an_inner_mixture_with_row_weights(client, frame):
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2)
    table = frame[["x", "y"]]
    given = dict(of="x", n_starts=2, random_seed=3)
    there = bm.select(spec, table, [1, 2], evidence=None, row_weights=frame["w"], **given)
    found = bayesmix.dask.select(spec, frame[["x", "y", "w"]], [1, 2], client=client, row_weights="w", **given)
    np.testing.assert_allclose(found.table["icl"], there.table["icl"], rtol=1e-6)


def test_what_selection_of_parts_cannot_do_is_said(client, frame):
    parts = [frame[["x", "y"]]]
    with pytest.raises(ValueError, match="of which select finds BIC and ICL"):
        bm.select(SMALL, parts, [1, 2], method="nuts")
    with pytest.raises(ValueError, match='criterion: of rows that are read in parts "bic" or "icl" is needed'):
        bayesmix.dask.select(SMALL, frame[["x", "y"]], [1, 2], client=client, criterion="loo")


def test_the_target_on_the_cluster_is_that_of_one_pymc_model(client, frame):
    table = frame[["x", "y"]]
    e_step = bayesmix.dask._rows(SMALL, table, None, client).e_step
    _, bound, encoded, weights, _ = prepare(SMALL, table, None)
    params = initial_params(bound, encoded, weights, np.random.default_rng(0), 0)
    there = PassTarget(e_step, params)
    here = Target(
        model_of(bound, encoded, row_weights=None, initval=params), variables_at(bound, params), jacobian=True
    )
    rng = np.random.default_rng(1)
    for _ in range(5):
        u = here.start + 0.3 * rng.normal(size=here.start.shape)
        (value, gradient), (own, own_gradient) = there(u), here(u)
        np.testing.assert_allclose(value, own, rtol=1e-9)
        np.testing.assert_allclose(gradient, own_gradient, rtol=1e-9, atol=1e-9 * np.abs(own_gradient).max())


def test_laplace_and_nuts_by_sums_over_workers(client, frame):
    table = frame[["x", "y"]]
    parts = [table.iloc[rows] for rows in np.array_split(np.arange(N), 5)]
    for engine, given in (
        ("fit_laplace", dict(draws=100, n_starts=2)),
        ("fit_nuts", dict(draws=30, tune=30, chains=2, n_starts=2)),
        ("fit_nuts", dict(draws=100, tune=100, chains=2, n_starts=2, subsample=300)),
    ):
        local = getattr(bm, engine)(SMALL, parts, random_seed=5, **given)
        found = getattr(bayesmix.dask, engine)(SMALL, table, client=client, random_seed=5, **given)
        assert found.status.engine == local.status.engine
        for name in ("mu", "sigma"):
            ours, theirs = (np.asarray(fit.posterior[f"x_{name}"]) for fit in (found, local))
            # to rounding, which a chain of leapfrog steps makes larger
            sd = theirs.std((0, 1))
            assert (np.abs(ours.mean((0, 1)) - theirs.mean((0, 1))) < 0.4 * sd).all()
            if engine == "fit_laplace":
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * sd.max())


def test_calibration_has_the_ranks_of_one_process(client):
    x = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], 10), 1)
    given = dict(replications=7, draws=9, thin=1, tune=50, random_seed=2)
    local = bm.calibrate(bm.Mixture(bm.Normal(), 2), x, **given)
    found = bayesmix.dask.calibrate(bm.Mixture(bm.Normal(), 2), x, client=client, **given)
    pd.testing.assert_frame_equal(found.ranks, local.ranks)
    np.testing.assert_array_equal(found.responsibility_ranks, local.responsibility_ranks)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ApproximationWarning")  # few rows of two of the symbols
def test_a_worker_that_is_killed_during_laplace_is_made_up_for(cluster, folder, frame):
    given = dict(draws=50, n_starts=1, random_seed=1)
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), s=bm.Categorical()), 2)
    table = frame[["x", "y", "s"]]
    local = bayesmix.dask.fit_laplace(spec, table, client=cluster, **given)
    pid = next(iter(cluster.run(os.getpid).values()))
    killer = threading.Timer(0.5, lambda: os.kill(pid, 9))
    killer.start()
    found = bayesmix.dask.fit_laplace(spec, table, client=cluster, **given)
    killer.join()
    np.testing.assert_allclose(found.posterior["x_mu"], local.posterior["x_mu"], rtol=1e-9)


# ------------------------------------------------------------------ tables that are held, gone, or read once


def test_a_frame_that_the_cluster_holds(client, cluster, frame, monkeypatch):
    """Partitions that were persisted could not be computed, here or there; with two clusters a worker made a client
    that nobody closed, and that left its scheduler in Dask's settings."""

    def made(*args, **kwargs):
        raise RuntimeError("a worker's own client")

    monkeypatch.setattr(distributed.Worker, "_get_client", made)
    import dask.dataframe

    table = frame[["x", "y"]]
    held = dask.dataframe.from_pandas(table, npartitions=4).persist(scheduler=client)
    distributed.wait(held)
    local = bm.fit_em(SMALL, table, **EM)
    same(bm.fit_em(SMALL, held, **EM), local)
    same(bm.dask.fit_em(SMALL, held, client=client, **EM), local)
    np.testing.assert_array_equal(local.predict(held), local.predict())


def test_selection_of_what_can_be_read_once(client, frame):
    import pyarrow as pa

    table, given = frame[["x", "y"]], dict(n_starts=1, random_seed=3)
    reader = pa.Table.from_pandas(table).to_reader(max_chunksize=300)
    found = bayesmix.dask.select(SMALL, reader, [1, 2], client=client, **given)
    there = bayesmix.dask.select(SMALL, table, [1, 2], client=client, **given)
    np.testing.assert_allclose(found.table["bic"], there.table["bic"], rtol=1e-9)


def test_nothing_stays_on_the_workers_after_an_error(client, frame):
    """The error's traceback held the futures, and a future the error."""
    import gc

    def tasks():
        gc.collect()
        return client.run_on_scheduler(lambda dask_scheduler: {str(key) for key in dask_scheduler.tasks})

    before = tasks()
    with pytest.raises(bm.DataError, match="chunk 1: y: Poisson needs whole numbers"):
        bm.dask.fit_em(SMALL, [frame[["x", "y"]], frame[["x", "y"]].assign(y=-1)], client=client)
    until = time.monotonic() + 5
    while tasks() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not tasks() - before


def test_a_function_that_cannot_be_sent(client):
    """It was Dask's error, of an expression that could not be serialized."""
    lock = threading.Lock()

    def chunks():
        with lock:
            yield {"x": np.arange(9.0)}

    with pytest.raises(bm.DataError, match=r"data: the function cannot be sent to the workers .*lock"):
        bayesmix.dask.fit_em(bm.Mixture(bm.Composite(x=bm.Normal()), 2), chunks, client=client)


def test_a_client_that_is_closed(client, frame):
    with distributed.Client(client.scheduler.address) as other:
        future = other.submit(time.sleep, 0.1, pure=False)
        future.cancel()
        with pytest.raises(bm.DataError, match="the cluster let go of the rows"):  # so that EM keeps what it has
            bm.dask._gathered(other, [future], {})
    with pytest.raises(ValueError, match="client: it is closed"):
        bm.dask.fit_em(SMALL, frame, client=other)


def test_a_cluster_without_workers_is_spoken_of():
    options = dict(n_workers=0, processes=False, dashboard_address=":0")
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as own,
        pytest.warns(bm.BayesmixWarning, match="no workers"),
        bm.dask._client(own) as found,
    ):
        assert found is own


def test_a_fit_is_saved_whatever_client_has_gone(tmp_path):
    """Clients that are closed in the order of their making leave Dask a scheduler that is no more."""
    x = np.array([0.0, 1.0, 8.0, 9.0])
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    with dask.config.set(scheduler="dask.distributed"):
        fit.save(tmp_path / "fit")
        assert dask.config.get("scheduler") == "dask.distributed"
    np.testing.assert_array_equal(bm.load(tmp_path / "fit").params["mu"], fit.params["mu"])
