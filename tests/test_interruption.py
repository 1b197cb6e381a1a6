"""What is left of an engine that was interrupted: every draw that was written, none that was not made."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import bayesmix as bm
from bayesmix import checkpoint
from bayesmix.bound import prepare
from bayesmix.inference import chains, large, online, snapshots
from bayesmix.inference.minibatch import Climb
from bayesmix.inference.target import Target

X = np.concatenate([np.random.default_rng(0).normal(m, 1, 60) for m in (-4, 4)])
SPEC = bm.Mixture(bm.Normal(), 2)
SHORT = {"draws": 60, "tune": 80, "chains": 3, "random_seed": 1, "n_starts": 2, "log_likelihood": False}
pytestmark = pytest.mark.filterwarnings("ignore::bayesmix.errors.ConvergenceWarning")


def nuts(data=X, **kwargs):
    return bm.fit_nuts(SPEC, data, **({} if "resume" in kwargs else SHORT), **kwargs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished checkpoint, and its fit."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return path, nuts(checkpoint=path)


@pytest.fixture
def cut(finished, tmp_path):
    """A copy of it whose chains' files are cut to so many bytes each, as if it had been killed then."""

    def make(*sizes):
        path = tmp_path / "run"
        shutil.copytree(finished[0], path)
        (path / "fit.zip").unlink()
        for c, size in enumerate(sizes):
            file = path / "run-0" / f"{c}.draws"
            file.write_bytes(file.read_bytes()[:size])
        return path

    return make


def arrays(path):
    return [{str(name): v.values for name, v in each.data_vars.items()} for each in bm.read_checkpoint(path).chains()]


def begins_with(whole, part):
    return all(np.array_equal(whole[name][: len(part[name])], part[name]) for name in part)


# ------------------------------------------------------------------- the store


def test_chains_files_are_whole_up_to_where_they_are_cut(tmp_path):
    """Every length that a file can be cut to, and every byte that can be wrong, against what was written before it."""
    path = tmp_path / "0.draws"
    rng = np.random.default_rng(0)
    writer = checkpoint.ChainWriter(path)
    written, ends = [], []
    for n in (2, 0, 3, 1):
        rows = {"u": rng.normal(size=(n, 2)), "mu": rng.normal(size=(n, 2)), "diverging": rng.random(n) < 0.5}
        writer.append(rng.normal(size=(1, 2)), rows, rng.random(2))
        written.append(rows)
        ends.append(path.stat().st_size)
    writer.close()
    whole = path.read_bytes()
    expected = {name: np.concatenate([rows[name] for rows in written]) for name in written[0]}
    rows_by = [0, *np.cumsum([len(rows["u"]) for rows in written])]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        found = checkpoint.read_chain(path)
        done = sum(end <= size for end in ends)
        assert rows_by[done] <= found.n_draws <= rows_by[min(done + 1, 4)]
        assert found.size <= size
        for name, values in found.draws.items():
            assert np.array_equal(values, expected[name][: len(values)])
            assert values.dtype == expected[name].dtype
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = checkpoint.read_chain(path)
        assert found.size <= at
        assert all(np.array_equal(values, expected[name][: len(values)]) for name, values in found.draws.items())


def test_a_writer_goes_on_after_what_is_whole(tmp_path):
    path = tmp_path / "0.draws"
    rows = {"u": np.arange(6.0).reshape(3, 2), "mu": np.arange(3.0)}
    writer = checkpoint.ChainWriter(path)
    writer.append(np.empty((0, 2)), rows, None)
    writer.close()
    path.write_bytes(path.read_bytes() + b"\x02torn")
    writer = checkpoint.ChainWriter(path)
    writer.append(np.empty((0, 2)), {**rows, "energy": np.ones(3)}, np.ones(2))
    writer.close()
    found = checkpoint.read_chain(path)
    assert found.draws.keys() == {"u", "mu"}
    assert found.draws["mu"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found.metric.tolist() == [1, 1]


def test_two_writers_of_one_chain(tmp_path):
    path = tmp_path / "0.draws"
    first = checkpoint.ChainWriter(path)
    with pytest.raises(BlockingIOError, match="another process is writing"):
        checkpoint.ChainWriter(path)
    first.close()
    checkpoint.ChainWriter(path).close()


def test_a_full_disk_while_draws_are_written(finished, cut, monkeypatch):
    """The error is the user's; what was written before it is there."""
    path = cut(900, 900, 900)
    before = arrays(path)

    def full(self, *args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ChainWriter, "_record", full)
        with pytest.raises(OSError, match="No space left"):
            nuts(resume=path)
    after = arrays(path)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(after, before) for name in a)
    assert nuts(resume=path).status.complete


# ------------------------------------------------------------------- checkpoints of NUTS


def test_a_checkpoint_changes_no_draw_and_holds_the_fit(finished):
    path, fit = finished
    plain = nuts()
    again = bm.load(path)
    for name in plain.posterior:
        assert np.array_equal(fit.posterior[name], plain.posterior[name])
        assert np.array_equal(again.posterior[name], plain.posterior[name])
    assert again.status == fit.status == plain.status
    assert fit.status.complete
    assert bm.read_checkpoint(path).finished


def test_what_is_left_of_a_killed_run(finished, cut):
    """Chains of different lengths: each a prefix of what would have been drawn, cut to one length in the fit."""
    whole = arrays(finished[0])
    size = (finished[0] / "run-0" / "0.draws").stat().st_size
    path = cut(size, size - 40, 0)
    left = arrays(path)
    lengths = [len(each["mu"]) for each in left]
    assert (lengths[0], lengths[2]) == (60, 0)
    assert all(begins_with(a, b) for a, b in zip(whole, left))
    fit = bm.load(path)
    assert not fit.status.complete
    assert not fit.status.converged
    assert "resume=" in str(fit.status)
    kept, n_draws = checkpoint.kept_chains(lengths)
    assert fit.posterior.sizes["chain"] == len(kept)
    for c, chain in enumerate(kept):
        for name in fit.posterior:
            assert np.array_equal(fit.posterior[name][c], left[chain][name][:n_draws])
        for name in fit.idata["sample_stats"]:
            assert np.array_equal(fit.idata["sample_stats"][name][c], left[chain][name][:n_draws])
    assert fit.predict(X).shape == X.shape
    fit.save(path.parent / "part.zip")
    assert bm.load(path.parent / "part.zip").status == fit.status


@pytest.mark.parametrize(("lengths", "kept"), [((9, 8, 5), 3), ((9, 4, 0), 1), ((0, 0), 0), ((1,), 1), ((8, 8, 4), 3)])
def test_chains_of_half_the_longest_are_kept(lengths, kept):
    chosen, n_draws = checkpoint.kept_chains(lengths)
    assert len(chosen) == kept
    assert n_draws == min((lengths[c] for c in chosen), default=0)


def test_resuming_keeps_every_draw_and_finishes(finished, cut):
    size = (finished[0] / "run-0" / "0.draws").stat().st_size
    path = cut(size, 0, 200)
    left = arrays(path)
    fit = nuts(resume=path)
    assert fit.status.complete
    assert fit.posterior.sizes["draw"] == 60
    assert [len(each["mu"]) for each in arrays(path)] == [60, 60, 60]
    assert all(begins_with(a, b) for a, b in zip(arrays(path), left))
    assert bm.load(path).status.complete
    assert nuts(resume=path).posterior.equals(fit.posterior)  # nothing is left to do


def test_more_draws_of_a_finished_run(finished, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished[0], path)
    fit = bm.fit_nuts(SPEC, X, resume=path, draws=90)
    assert fit.posterior.sizes["draw"] == 90
    assert np.array_equal(fit.posterior["mu"][:, :60], finished[1].posterior["mu"])


def test_a_checkpoint_is_not_overwritten(finished, tmp_path):
    path = finished[0]
    before = (path / "fit.zip").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        nuts(checkpoint=path)
    assert (path / "fit.zip").read_bytes() == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="no checkpoint"):
        nuts(checkpoint=mine, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "precious"
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    assert nuts(X[1:], checkpoint=copy, overwrite=True).status.complete
    assert bm.load(copy).idata["observed_data"].sizes["row"] == len(X) - 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine", "run"]


def test_resuming_something_else_is_an_error(finished, tmp_path):
    path = finished[0]
    with pytest.raises(bm.DataError, match="another table"):
        nuts(X + 1, resume=path)
    with pytest.raises(bm.DataError, match="another table or other row weights"):
        nuts(resume=path, row_weights=np.full(len(X), 2.0))
    with pytest.raises(bm.DataError, match="another spec"):
        bm.fit_nuts(bm.Mixture(bm.Normal(), 3), X, resume=path)
    with pytest.raises(ValueError, match="chains: the checkpoint was begun with 3, not 2"):
        bm.fit_nuts(SPEC, X, resume=path, chains=2)
    with pytest.raises(ValueError, match="chains: the checkpoint was begun with 3, not 4"):
        bm.fit_nuts(SPEC, X, resume=path, chains=4)  # as many as by default
    with pytest.raises(ValueError, match="as many, or more"):
        bm.fit_nuts(SPEC, X, resume=path, draws=10)
    with pytest.raises(FileNotFoundError):
        nuts(resume=tmp_path / "none")
    with pytest.raises(ValueError, match="only nutpie"):
        nuts(checkpoint=tmp_path / "run", nuts_sampler="pymc")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_shows_how_far_it_is(finished, cut):
    assert repr(checkpoint.read_checkpoint(finished[0])) == "<Checkpoint run: finished>"
    path = cut(10**9, 0, 0)
    assert repr(checkpoint.read_checkpoint(path)) == "<Checkpoint run: [60, 0, 0] draws>"


def test_a_checkpoint_without_draws_says_so_and_can_be_resumed(cut):
    path = cut(0, 0, 0)
    with pytest.raises(bm.DataError, match=r"no draw was made.*resume"):
        bm.load(path)
    assert nuts(resume=path).status.complete


def _edit(name, change):
    def edit(path):
        document = json.loads((path / name).read_bytes())
        change(document)
        (path / name).write_text(json.dumps(document))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "checkpoint.json").unlink(), "not a checkpoint"),
        (lambda path: (path / "checkpoint.json").write_text("{"), "checkpoint|damaged"),
        (_edit("checkpoint.json", lambda d: d.update(schema=99)), "newer"),
        (_edit("checkpoint.json", lambda d: d["settings"]["dict"].update(chains=10**12)), "chains"),
        (lambda path: (path / "begun.zip").write_bytes(b"PK"), "begun.zip"),
        (lambda path: (path / "begun.zip").unlink(), "begun.zip"),
        (lambda path: (path / "run-0" / "run.json").write_text("[1, 2]"), "run-0"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(cut, damage, message):
    path = cut(2000, 2000, 2000)
    damage(path)
    with pytest.raises((bm.DataError, FileNotFoundError), match=message):
        bm.load(path)


def test_a_hostile_column_is_refused(tmp_path):
    path = tmp_path / "0.draws"
    for columns in ([["u", "O", [2]]], [["u", "<f8", [10**12]]], [["u", "<f8", [-1]]]):
        path.unlink(missing_ok=True)
        writer = checkpoint.ChainWriter(path)
        writer._record(0, json.dumps(columns).encode())
        writer.close()
        with pytest.raises(bm.DataError, match="a column of"):
            checkpoint.read_chain(path)


def test_positions_that_are_summed_out_are_kept_too(tmp_path):
    spec = bm.SpikeAndSlab()
    counts = np.repeat(np.arange(7), [3, 2, 12, 3, 2, 4, 3])
    options = {"draws": 30, "tune": 40, "chains": 2, "random_seed": 1}
    fit = bm.fit_nuts(spec, counts, checkpoint=tmp_path / "run", **options)
    (tmp_path / "run" / "fit.zip").unlink()
    left = bm.load(tmp_path / "run")
    for name in fit.posterior:
        assert np.array_equal(left.posterior[name], fit.posterior[name])


# ------------------------------------------------------------------- Ctrl-C


@pytest.fixture(autouse=True)
def heard():
    """A shell starts what runs in its background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def slow(monkeypatch):
    """A log posterior that takes so many seconds, so that there is something to interrupt."""
    quick, pace = Target.__call__, SimpleNamespace(seconds=0.002)

    def call(self, u):
        time.sleep(pace.seconds)
        return quick(self, u)

    monkeypatch.setattr(Target, "__call__", call)
    monkeypatch.setattr(Target, "native", lambda *_: None)  # which no sleep could hold up
    return pace


def interrupting(after):
    """Press Ctrl-C once `after()` holds."""

    def press():
        while not after():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_ctrl_c_returns_the_draws_that_there_are(tmp_path, slow, monkeypatch, with_checkpoint):
    slow.seconds = 0
    whole = nuts(order="mu")
    slow.seconds = 0.004
    seen = []
    look = chains._Sampler.look

    def watch(self):
        look(self)
        seen.append(len(self))
        if min(seen[-3:]) > 5:
            slow.seconds = 0.05  # on a busy machine, too, the chains are not done before Ctrl-C is heard

    monkeypatch.setattr(chains, "_LOOK", 0.05)
    monkeypatch.setattr(chains._Sampler, "look", watch)
    options = {"checkpoint": tmp_path / "run"} if with_checkpoint else {"progressbar": True}
    thread = interrupting(lambda: seen and min(seen[-3:]) > 5)
    with pytest.warns(bm.ConvergenceWarning, match="Not complete"):
        fit = nuts(order="mu", cores=3, **options)
    thread.join()
    slow.seconds = 0
    assert not fit.status.complete
    assert not fit.status.converged
    n_draws = fit.posterior.sizes["draw"]
    assert 0 < n_draws < 60
    mu = whole.posterior["mu"].values[:, :n_draws]
    kept = [c for c in range(3) if any(np.array_equal(mu[c], each) for each in fit.posterior["mu"].values)]
    assert len(kept) == fit.posterior.sizes["chain"] > 0  # a chain that is far behind the others is left out
    for name in fit.posterior:
        assert np.array_equal(fit.posterior[name], whole.posterior[name][kept, :n_draws])
    for name in fit.idata["sample_stats"]:
        assert np.array_equal(fit.idata["sample_stats"][name], whole.idata["sample_stats"][name][kept, :n_draws])
    if with_checkpoint:
        assert np.array_equal(bm.load(tmp_path / "run").posterior["mu"], fit.posterior["mu"])
        assert nuts(resume=tmp_path / "run").posterior.sizes["draw"] == 60


def test_ctrl_c_is_heard_between_calls_by_address(tmp_path):
    """Without the pace of Python: the draws before it are those of a whole run, in memory and on the disk."""
    x = np.random.default_rng(0).normal(np.repeat([-4.0, 4.0], 40_000), 1)
    settings = {**SHORT, "draws": 4000, "tune": 50, "order": "mu"}

    def drawn():
        try:
            return sum(map(len, (chain["mu"] for chain in arrays(tmp_path / "run")))) > 20
        except (OSError, ValueError, KeyError):
            return False

    thread = interrupting(drawn)
    fit = bm.fit_nuts(SPEC, x, checkpoint=tmp_path / "run", cores=3, **settings)
    thread.join()
    assert not fit.status.complete
    n = fit.posterior.sizes["draw"]
    assert 0 < n < 4000
    lengths = np.array([len(chain["mu"]) for chain in arrays(tmp_path / "run")])
    kept = 2 * lengths >= lengths.max()  # fewer cores than chains: one of them can lag behind
    whole = bm.fit_nuts(SPEC, x, **{**settings, "draws": n + 20})
    np.testing.assert_array_equal(fit.posterior["mu"].values, whole.posterior["mu"].values[kept, :n])


def test_ctrl_c_before_the_first_draw_is_an_interrupt(slow, monkeypatch):
    began = []
    begin = chains._Sampler.begin
    monkeypatch.setattr(chains._Sampler, "begin", lambda self, options: (begin(self, options), began.append(self)))
    thread = interrupting(lambda: began)
    with pytest.raises(KeyboardInterrupt):
        nuts()
    thread.join()


class Stop:
    """Presses Ctrl-C in EM's so-manieth pass over the data."""

    def __init__(self, monkeypatch, at):
        from bayesmix.plan import EStep

        self.left, quick = at, EStep.__call__

        def call(step, params):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return quick(step, params)

        monkeypatch.setattr(EStep, "__call__", call)


@pytest.mark.parametrize("at", [2, 5, 30, 60])
def test_ctrl_c_during_em_returns_the_best_point(monkeypatch, at):
    spec = bm.Mixture(bm.Normal(), 3)
    mode = bm.fit_em(spec, X, random_seed=1)
    Stop(monkeypatch, at)
    with pytest.warns(bm.ConvergenceWarning, match="EM was interrupted"):
        fit = bm.fit_em(spec, X, random_seed=1)
    assert not fit.status.complete
    assert not fit.status.converged
    assert all(np.isfinite(value).all() for value in fit.params.values())
    assert fit.loglik + fit.bound.log_prior(fit.params) <= mode.history[-1] + 1e-6
    assert fit.loglik + fit.bound.log_prior(fit.params) >= fit.history[-1] - 1e-9 * abs(fit.history[-1])


@pytest.mark.parametrize("at", range(7, 15))
def test_ctrl_c_after_a_leap_returns_a_point_that_was_looked_at(monkeypatch, at):
    """A leap may lead down: what is returned is EM's own step from the last point, which cannot."""
    spec, x = bm.Mixture(bm.Normal(), 2), np.random.default_rng(5).normal(size=400) * np.repeat([1.0, 2.0], 200)
    start = {"weights": np.array([0.5, 0.5]), "mu": np.array([-0.5, 1.0]), "sigma": np.array([1.0, 1.5])}
    Stop(monkeypatch, at)
    with pytest.warns(bm.ConvergenceWarning, match="EM was interrupted"):
        fit = bm.fit_em(spec, x, start=start, random_seed=1)
    assert fit.loglik + fit.bound.log_prior(fit.params) >= fit.history[-1] - 1e-9 * abs(fit.history[-1])


def test_em_that_stopped_at_max_iter_goes_on(tmp_path):
    """It came back as it was, without a word."""
    x = np.random.default_rng(2).normal(np.repeat([0.0, 1.5], 200), 1)
    settings = {"n_starts": 4, "accelerate": False, "random_seed": 1}
    with pytest.warns(bm.ConvergenceWarning, match="max_iter=5"):
        bm.fit_em(SPEC, x, max_iter=5, checkpoint=tmp_path / "em", **settings)
    with pytest.warns(bm.ConvergenceWarning, match="max_iter=5"):
        further = bm.fit_em(SPEC, x, max_iter=5, resume=tmp_path / "em", **settings)
    assert further.history[0] > bm.fit_em(SPEC, x, max_iter=5, **settings).history[0]
    fit = bm.fit_em(SPEC, x, resume=tmp_path / "em", **settings)
    assert fit.status.converged
    whole = bm.fit_em(SPEC, x, **settings)
    assert fit.history[-1] == pytest.approx(whole.history[-1], abs=1e-5)
    again = bm.fit_em(SPEC, x, max_iter=1, resume=tmp_path / "em", **settings)  # has converged: as it is
    np.testing.assert_array_equal(again.params["mu"], fit.params["mu"])


def test_ctrl_c_before_the_first_point_of_em(monkeypatch):
    Stop(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        bm.fit_em(SPEC, X, random_seed=1)


# ------------------------------------------------------------------- checkpoints of EM


def test_em_keeps_its_points_and_goes_on(tmp_path, monkeypatch):
    spec = bm.Mixture(bm.Normal(), 3)
    mode = bm.fit_em(spec, X, random_seed=1)
    path = tmp_path / "em.zip"
    monkeypatch.setattr(snapshots, "_EVERY", 0.0)
    monkeypatch.setattr(snapshots, "_TIMES_LONGER", 0)
    monkeypatch.setattr(snapshots.Snapshots, "end", lambda *args: None)  # as if it were killed
    with monkeypatch.context() as patch:
        Stop(patch, 40)
        bm.fit_em(spec, X, checkpoint=path, random_seed=1)
    left = bm.load(path)
    assert not left.status.complete
    assert left.loglik + left.bound.log_prior(left.params) <= mode.history[-1] + 1e-6
    spoilt = left.idata["em_starts"].to_dataset()
    spoilt["mu"].values[0, 1] = np.nan
    groups = {name: group.to_dataset() for name, group in left.idata.children.items()}
    replace(left, idata=xr.DataTree.from_dict({**groups, "em_starts": spoilt})).save(tmp_path / "spoilt.zip")
    with pytest.raises(bm.DataError, match=r"spoilt.zip: a start is not as the spec says. Begin again"):
        bm.fit_em(spec, X, resume=tmp_path / "spoilt.zip")
    n_begun = left.idata["em_starts"].sizes["start"]
    assert 1 < n_begun < 16
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        bm.fit_em(spec, X, checkpoint=path)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_em(spec, X[1:], resume=path)
    with pytest.raises(bm.DataError, match="another spec"):
        bm.fit_em(SPEC, X, resume=path)
    fit = bm.fit_em(spec, X, resume=path, random_seed=2)
    assert fit.status.complete
    assert len(fit.starts) == 16
    assert fit.history[-1] == pytest.approx(mode.history[-1], abs=1e-6)
    assert bm.load(path).status == fit.status
    again = bm.fit_em(spec, X, resume=path)
    assert np.array_equal(again.params["mu"], fit.params["mu"])
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_em(spec, X[1:], resume=path)


# ------------------------------------------------------------------- what checkpoints are of


@pytest.mark.parametrize("engine", ["em", "online", "advi"])
def test_going_on_elsewhere_overwrites_nothing(tmp_path, engine):
    """With resume= the file at checkpoint= was not looked at: whatever stood there was lost."""
    own = {
        "em": {},
        "online": {"n_passes": 2, "batch_size": 20},
        "advi": {"minibatch": 40, "max_iter": 20},
    }[engine]
    begun, mine = tmp_path / "begun", tmp_path / "thesis.txt"
    fit = partial(bm.fit, SPEC, X, engine, random_seed=1, **own)
    fit(checkpoint=begun)
    mine.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fit(resume=begun, checkpoint=mine)
    assert mine.read_text() == "precious"
    fit(resume=begun, checkpoint=begun)


def test_draws_go_on_in_their_own_folder(finished, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint: .*Leave checkpoint out"):
        nuts(resume=finished[0], checkpoint=tmp_path / "other")


@pytest.mark.parametrize("seed", [np.int64(3), np.array([1, 2]), [1, 2]])
def test_seeds_of_numpy_are_kept(tmp_path, seed):
    """They failed in the text of the checkpoint, after EM was done."""
    short = {**SHORT, "draws": 20, "tune": 20, "random_seed": seed}
    fit = bm.fit_nuts(SPEC, X, checkpoint=tmp_path / "run", **short)
    assert np.array_equal(bm.fit_nuts(SPEC, X, **short).posterior["mu"], fit.posterior["mu"])
    bm.fit_advi(SPEC, X, minibatch=40, max_iter=2, checkpoint=tmp_path / "advi", random_seed=seed)


def test_an_order_that_is_given_again_is_the_same_order(tmp_path):
    bm.fit_nuts(SPEC, X, order=["mu"], checkpoint=tmp_path / "run", **{**SHORT, "draws": 20, "tune": 20})
    assert bm.fit_nuts(SPEC, X, order=["mu"], resume=tmp_path / "run").status.complete


CHAINS = bm.Mixture(bm.MarkovChain(length=bm.Poisson()), 2)
SYMBOLS = [list("ababab"), list("aab"), list("b"), []] * 8


def test_chains_of_symbols_are_the_same_table_when_read_again():
    """Their digest was of addresses in memory: no other process, and hardly the same one, could go on."""
    digests = set()
    for _ in range(3):
        encoded = prepare(CHAINS, [list(row) for row in SYMBOLS], None)[2]
        digests.add(checkpoint.digest_of(encoded, None))
    assert len(digests) == 1
    other = [list(row) for row in SYMBOLS]
    other[0] = list("abaabb")
    assert checkpoint.digest_of(prepare(CHAINS, other, None)[2], None) not in digests


def test_other_symbols_are_another_table(tmp_path):
    """The codes of renamed symbols are the same: the fit that came back had the old names."""
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), k=bm.Categorical()), 2)
    k = np.where(X < 0, "a", "b")
    renamed = {"x": X, "k": np.where(X < 0, "c", "d")}
    bm.fit_em(spec, {"x": X, "k": k}, checkpoint=tmp_path / "em", random_seed=1)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_em(spec, renamed, resume=tmp_path / "em")
    short = {**SHORT, "draws": 20, "tune": 20, "random_seed": 1}
    bm.fit_nuts(spec, {"x": X, "k": k}, checkpoint=tmp_path / "run", **short)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_nuts(spec, renamed, resume=tmp_path / "run")


def test_a_checkpoint_is_found_from_another_folder(finished, monkeypatch, tmp_path):
    """A relative path was looked up anew each time: after chdir there were no chains, and no error."""
    monkeypatch.chdir(finished[0].parent)
    there = bm.read_checkpoint(finished[0].name)
    monkeypatch.chdir(tmp_path)
    assert [each.sizes["draw"] for each in there.chains()] == [60, 60, 60]
    assert there.fit().status.complete


ONLINE = {"n_passes": 4, "batch_size": 10, "random_seed": 1}


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """A checkpoint of online EM that was killed after its last update."""
    monkeypatch.setattr(online, "_EVERY", 0.0)
    monkeypatch.setattr(online, "_TIMES_LONGER", 0)
    with monkeypatch.context() as patch:
        patch.setattr(online._Keeper, "end", lambda *args: None)
        bm.fit_online(SPEC, X, checkpoint=tmp_path / "state", **ONLINE)
    return tmp_path / "state"


def test_a_finished_online_fit_is_of_its_table_and_settings(tmp_path):
    """It came back whatever the table: the old parameters with the new rows."""
    path = tmp_path / "online"
    fit = bm.fit_online(SPEC, X, checkpoint=path, **ONLINE)
    assert np.array_equal(bm.fit_online(SPEC, X, resume=path, **ONLINE).params["mu"], fit.params["mu"])
    with pytest.raises(bm.DataError, match="another table or other row weights"):
        bm.fit_online(SPEC, X + 100, resume=path, **ONLINE)
    with pytest.raises(bm.DataError, match="another table or other row weights"):
        bm.fit_online(SPEC, X, resume=path, row_weights=np.full(len(X), 2.0), **ONLINE)
    with pytest.raises(bm.DataError, match="begun with n_passes=4"):
        bm.fit_online(SPEC, X, resume=path, **{**ONLINE, "n_passes": 9})
    bm.fit_em(SPEC, X, checkpoint=tmp_path / "em", random_seed=1)
    with pytest.raises(bm.DataError, match="a fit by em, no checkpoint of fit_online"):
        bm.fit_online(SPEC, X, resume=tmp_path / "em", **ONLINE)


def errors_of_damage(path, load):
    """What is said where one byte of a file is wrong, at 25 places; nothing but `DataError` is raised."""
    whole, found = path.read_bytes(), []
    for at in range(0, len(whole), len(whole) // 25):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load()
        except bm.DataError as error:
            found.append(str(error))
    path.write_bytes(whole)
    return found


def test_a_damaged_checkpoint_of_online_em_is_one_clear_error(unfinished):
    fit = partial(bm.fit_online, SPEC, X, resume=unfinished, **ONLINE)
    assert fit().status.complete
    found = errors_of_damage(unfinished, fit)
    assert len(found) > 10
    assert all(str(unfinished) in error for error in found)


def test_ctrl_c_before_the_first_update_of_online_em(monkeypatch, tmp_path):
    """There is no history then, whose mean was an error of numpy's."""

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(online, "_mixed", stop)
    with pytest.raises(KeyboardInterrupt):
        bm.fit_online(SPEC, X, checkpoint=tmp_path / "state", **ONLINE)
    monkeypatch.undo()
    assert bm.fit_online(SPEC, X, resume=tmp_path / "state", **ONLINE).status.complete


def test_a_climb_is_gone_on_with_by_its_own_spec_and_settings(tmp_path):
    """Another prior went on from the first one's point and settled there; a damaged file was zlib's error."""
    path = tmp_path / "climb"
    options = {"minibatch": 40, "max_iter": 2}
    bm.fit_advi(SPEC, X, checkpoint=path, random_seed=1, **options)
    with pytest.raises(bm.DataError, match="spec="):
        bm.fit_advi(bm.Mixture(bm.Normal(mu=pm.Normal.dist(50, 1)), 2), X, resume=path, **options)
    with pytest.raises(bm.DataError, match="n_points="):
        bm.fit_advi(SPEC, X, resume=path, n_points=32, **options)
    found = errors_of_damage(path, partial(Climb.read, path))
    assert len(found) > 10
    assert all("no checkpoint of fit_advi" in error for error in found)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ApproximationWarning")  # of a third of the rows, or not
def test_ctrl_c_before_every_chain_of_a_sample_has_begun(monkeypatch):
    """One chain has draws and the next has none: the draws that there were got lost in a KeyError."""
    drawn = large.sample

    def one(*args, **kwargs):
        return chains.Drawn([drawn(*args, **kwargs).chains[0], {}, {}], False)

    monkeypatch.setattr(large, "sample", one)
    fit = nuts(subsample=40)
    assert not fit.status.complete
    assert "Not complete: chains have 60, 0, 0 of 60 draws" in str(fit.status)
    assert dict(fit.posterior.sizes)["chain"] == 1
    assert fit.posterior.sizes["draw"] == 60


def test_a_proposed_spec_is_gone_on_with(tmp_path):
    """A checkpoint has the plain spec, which was not the proposed one's equal."""
    spec = bm.infer_spec({"x": X}, 2)
    bm.fit_em(spec, {"x": X}, checkpoint=tmp_path / "em", random_seed=1)
    assert bm.fit_em(spec, {"x": X}, resume=tmp_path / "em").status.complete
    bm.fit_online(spec, {"x": X}, checkpoint=tmp_path / "online", **ONLINE)
    assert bm.fit_online(spec, {"x": X}, resume=tmp_path / "online", **ONLINE).status.complete
    bm.fit_nuts(spec, {"x": X}, checkpoint=tmp_path / "run", **{**SHORT, "draws": 20, "tune": 20})
    assert bm.fit_nuts(spec, {"x": X}, resume=tmp_path / "run").status.complete


@pytest.mark.parametrize("at", [1, 2, 3])
def test_ctrl_c_while_the_draws_of_a_chain_that_has_ended_are_taken(monkeypatch, tmp_path, finished, at):
    """The sampler gives them once: they were lost, and its own error took the place of the fit."""
    take, calls = chains._Sampler._take, []

    def interrupted(self, trace):
        calls.append(self.number)
        if len(calls) == at:
            raise KeyboardInterrupt
        take(self, trace)

    with monkeypatch.context() as patch:
        patch.setattr(chains._Sampler, "_take", interrupted)
        patch.setattr(chains, "_LOOK", 1e9)
        fit = nuts(checkpoint=tmp_path / "run", cores=1)
    assert not fit.status.complete
    whole = finished[1].posterior["mu"].values
    np.testing.assert_array_equal(fit.posterior["mu"].values, whole[:at])
    assert np.array_equal(nuts(resume=tmp_path / "run").posterior["mu"], whole)


# ------------------------------------------------------------------- kill


@pytest.mark.slow
def test_killed_at_random_moments():
    """The short form of ``python benchmarks/kill_nuts.py 50``."""
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", root / "benchmarks" / "kill_nuts.py", "3"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
