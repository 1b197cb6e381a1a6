"""Online EM: near the batch mode after two passes, the recursion itself, and resumption to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.inference import online
from bayesmix.inference.rows import rows_in_memory

N = 60_000
RNG = np.random.default_rng(8)
GROUP = RNG.integers(3, size=N)
TABLES = {
    "normal": (bm.Normal(), RNG.normal(np.array([-3.0, 0.0, 4.0])[GROUP], 1.0)),
    "poisson": (bm.Poisson(), RNG.poisson(np.array([1.0, 6.0, 15.0])[GROUP])),
    "categorical": (
        bm.Composite(a=bm.Categorical(), b=bm.Categorical(), c=bm.Categorical()),
        {name: np.where(RNG.random(N) < 0.7, GROUP, RNG.integers(4, size=N)) for name in "abc"},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_two_passes_come_within_a_thousandth_of_the_batch_log_likelihood(name):
    family, table = TABLES[name]
    spec = bm.Mixture(family, 3)
    batch = bm.fit_em(spec, table, n_starts=4, random_seed=1)
    # from a point that is wrong by far, not from the sample's mode
    away = {n: 0.3 * value + 0.7 * value.mean(0, keepdims=True) for n, value in batch.params.items()}
    assert batch.bound.log_density(away, batch.encoded).sum() < 1.01 * batch.loglik
    found = bm.fit_online(spec, table, batch_size=250, start=away, random_seed=1)
    assert found.status.converged
    assert batch.loglik - found.loglik < 1e-3 * abs(batch.loglik)
    from_sample = bm.fit_online(spec, table, n_starts=2, random_seed=1)
    assert 0 <= batch.loglik - from_sample.loglik < 1e-4 * abs(batch.loglik) + 1e-6


def test_the_recursion_by_hand():
    """Three updates of a mixture of two Poissons, written out with flat priors."""
    counts = np.array([0, 1, 7, 9, 2, 8, 0, 11, 1, 6, 3, 10])
    spec = bm.Mixture(bm.Poisson(), 2).with_flat_priors()
    start = {"weights": np.array([0.5, 0.5]), "mu": np.array([2.0, 7.0])}
    with pytest.warns(bm.ConvergenceWarning):
        fit = bm.fit_online(
            spec, counts, start=start, batch_size=4, n_passes=1, kappa=0.7, t0=1.5, average=False, random_seed=5
        )
    seed = int(np.random.default_rng(5).integers(2**63))
    rows = rows_in_memory(prepare(spec, counts, None))
    parts = [data.arrays["value"] for data, _ in online.batches(rows, 4, seed, 0)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(counts))

    def statistics(x, weights, mu):
        joint = weights * np.exp(x[:, None] * np.log(mu) - mu)
        resp = joint / joint.sum(1, keepdims=True)
        return np.array([resp.mean(0), (resp * x[:, None]).mean(0)])

    weights, mu = start["weights"], start["mu"]
    s = statistics(counts, weights, mu)
    for t, part in enumerate(parts, 1):
        gamma = (t + 1.5) ** -0.7
        s = (1 - gamma) * s + gamma * statistics(part, weights, mu)
        weights, mu = s[0], s[1] / s[0]
    np.testing.assert_allclose(fit.params["weights"], weights, rtol=1e-9)
    np.testing.assert_allclose(fit.params["mu"], mu, rtol=1e-9)


def test_averages_are_nearer_to_the_mode_than_last_points():
    spec, table = bm.Mixture(bm.Normal(), 3), TABLES["normal"][1]
    mode = bm.fit_em(spec, table, n_starts=2, random_seed=1).params

    def error(average, seed):
        fit = bm.fit_online(spec, table, start=mode, batch_size=500, average=average, random_seed=seed)
        return sum(((fit.params[n] - mode[n]) ** 2).sum() for n in mode)

    assert sum(error(True, s) for s in range(4)) < 0.5 * sum(error(False, s) for s in range(4))


class Stop(Exception):
    """In the middle of a pass."""


@pytest.mark.parametrize("source", [False, True])
def test_it_resumes_to_the_last_bit(tmp_path, monkeypatch, source):
    x = TABLES["normal"][1]
    weights = np.random.default_rng(3).uniform(0.5, 2.0, N)
    frames = [pd.DataFrame({"x": part}) for part in np.array_split(x, 5)]
    data = frames if source else pd.DataFrame({"x": x})
    spec = bm.Mixture(bm.Composite(x=bm.Normal()), 3)
    settings = {"row_weights": weights, "batch_size": 3000, "n_starts": 1, "random_seed": 4}
    whole = bm.fit_online(spec, data, **settings)
    calls = []

    def stops(self, state):
        calls.append(state.step)
        if len(calls) == 17:
            self.write(state)
            raise Stop

    monkeypatch.setattr(online._Keeper, "__call__", stops)
    with pytest.raises(Stop):
        bm.fit_online(spec, data, checkpoint=tmp_path / "run", **settings)
    resumed = bm.fit_online(spec, data, resume=tmp_path / "run", **settings)
    assert calls[17] == 18
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)
    np.testing.assert_array_equal(resumed.history, whole.history)
    again = bm.fit_online(spec, data, resume=tmp_path / "run", **settings)  # it holds the finished fit now
    np.testing.assert_array_equal(again.params["x_mu"], whole.params["x_mu"])
    np.testing.assert_array_equal(bm.load(tmp_path / "run").params["x_mu"], whole.params["x_mu"])


def test_a_checkpoint_of_something_else_is_refused(tmp_path, monkeypatch):
    spec, x = bm.Mixture(bm.Normal(), 2), RNG.normal(size=3000)
    settings = {"batch_size": 300, "n_starts": 1, "random_seed": 4}

    def stops(self, state):
        self.write(state)
        raise Stop

    monkeypatch.setattr(online._Keeper, "__call__", stops)
    with pytest.raises(Stop):
        bm.fit_online(spec, x, checkpoint=tmp_path / "run", **settings)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        bm.fit_online(spec, x, checkpoint=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_online(spec, x + 1.0, resume=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match="was begun with batch_size=300"):
        bm.fit_online(spec, x, resume=tmp_path / "run", **{**settings, "batch_size": 400})
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(bm.DataError, match="no checkpoint of fit_online"):
        bm.fit_online(spec, x, resume=tmp_path / "text", **settings)
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        bm.fit_online(spec, x, resume=tmp_path / "nothing", **settings)


def test_a_finished_run_is_read_again_and_is_of_its_own_spec(tmp_path):
    spec, x = bm.Mixture(bm.Normal(), 2), TABLES["normal"][1][:3000]
    settings = {"batch_size": 300, "n_starts": 1, "n_passes": 1, "random_seed": 4}
    fit = bm.fit_online(spec, x, checkpoint=tmp_path / "run", **settings)
    again = bm.fit_online(spec, x, resume=tmp_path / "run", **settings)
    for name, value in fit.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    with pytest.raises(bm.DataError, match=r"is of another spec: Mixture\(Normal\(\), 2\). Pass that one"):
        bm.fit_online(bm.Mixture(bm.Normal(), 3), x, resume=tmp_path / "run", **settings)


@pytest.mark.parametrize("end", [Stop, KeyboardInterrupt])
def test_a_run_that_ends_early_goes_on_to_the_same_digits(tmp_path, monkeypatch, end):
    """One that is killed goes on from what it wrote as it went; Ctrl-C writes where it is."""
    spec, x = bm.Mixture(bm.Normal(), 2), TABLES["normal"][1]
    settings = {"n_starts": 1, "batch_size": 2000, "random_seed": 1}
    whole = bm.fit_online(spec, x, **settings)
    if end is Stop:
        monkeypatch.setattr(online, "_EVERY", 0.0)
        monkeypatch.setattr(online, "_TIMES_LONGER", 0)
    calls = []

    def ends(bound, stats, total, params, moved=online._moved):
        calls.append(1)
        if len(calls) == 9:
            raise end
        return moved(bound, stats, total, params)

    with monkeypatch.context() as patch:
        patch.setattr(online, "_moved", ends)
        said = pytest.raises(Stop) if end is Stop else pytest.warns(bm.ConvergenceWarning, match="interrupted")
        with said:
            bm.fit_online(spec, x, checkpoint=tmp_path / "run", **settings)
    resumed = bm.fit_online(spec, x, resume=tmp_path / "run", **settings)
    np.testing.assert_array_equal(resumed.history, whole.history)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ConvergenceWarning")  # a few updates
def test_batches_without_weight_move_nothing():
    """One row at a time: those of weight 0 take a step of the clock, and leave the point where it is."""
    x = np.arange(40) % 7
    weights = np.where(np.arange(40) % 2 == 0, 1.0, 0.0)
    spec = bm.Mixture(bm.Poisson(), 2).with_flat_priors()
    start = {"weights": np.array([0.5, 0.5]), "mu": np.array([1.0, 5.0])}
    settings = {"batch_size": 1, "n_passes": 1, "start": start, "random_seed": 2, "row_weights": weights}
    for average in (True, False):
        fit = bm.fit_online(spec, x, average=average, **settings)
        assert "after 40 updates" in fit.status.message
        other = bm.fit_online(spec, np.where(weights == 1, x, x + 50), average=average, **settings)
        for name, value in fit.params.items():
            np.testing.assert_allclose(other.params[name], value, rtol=1e-9)
            assert np.abs(value - start[name]).max() > 1e-3


def test_ctrl_c_returns_the_point_so_far(monkeypatch):
    spec, x = bm.Mixture(bm.Normal(), 2), TABLES["normal"][1]
    calls = []

    def stops(bound, stats, total, params, moved=online._moved):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return moved(bound, stats, total, params)

    monkeypatch.setattr(online, "_moved", stops)
    with pytest.warns(bm.ConvergenceWarning, match="interrupted"):
        fit = bm.fit_online(spec, x, n_starts=1, batch_size=1000, random_seed=1)
    assert not fit.status.complete
    assert "after 8 updates" in fit.status.message


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kappa": 0.5}, "kappa: a number above 0.5"),
        ({"kappa": 1.1}, "kappa"),
        ({"t0": 0.0}, "t0: a number above 0"),
        ({"batch_size": 0}, "batch_size: a whole number of at least 1"),
        ({"n_passes": 0}, "n_passes"),
    ],
)
def test_settings_that_do_not_converge_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        bm.fit_online(bm.Mixture(bm.Normal(), 2), np.arange(10.0), **settings)


def test_steps_follow_the_rule_of_robbins_and_monro():
    steps = np.array([online.step_size(t, 0.6, 2.0) for t in range(1, 200_000)])
    assert steps[0] == pytest.approx(3**-0.6)
    assert (np.diff(steps) < 0).all()
    assert steps.sum() > 300  # without bound
    assert (steps[100_000:] ** 2).sum() < 0.25 * (steps**2).sum()  # with one


def test_a_finished_checkpoint_of_something_else_is_refused(tmp_path):
    """It came back as it was, beside whatever table was given."""
    spec, x = bm.Mixture(bm.Normal(), 2), TABLES["normal"][1][:3000]
    settings = {"batch_size": 300, "n_starts": 1, "random_seed": 4}
    parts, record = [pd.DataFrame({"x": x[:2000]}), pd.DataFrame({"x": x[2000:]})], bm.Composite(x=bm.Normal())
    bm.fit_online(spec, x, checkpoint=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_online(spec, x + 1.0, resume=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match="was begun with n_passes=2"):
        bm.fit_online(spec, x, resume=tmp_path / "run", n_passes=4, **settings)
    bm.fit_online(bm.Mixture(record, 2), parts, checkpoint=tmp_path / "parts", **settings)
    assert bm.fit_online(bm.Mixture(record, 2), parts, resume=tmp_path / "parts", **settings).status.complete
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_online(bm.Mixture(record, 2), parts[1:], resume=tmp_path / "parts", **settings)
    bm.fit_em(spec, x, checkpoint=tmp_path / "em", n_starts=1, random_seed=1)
    with pytest.raises(bm.DataError, match="no checkpoint of fit_online"):
        bm.fit_online(spec, x, resume=tmp_path / "em", **settings)


def test_few_updates_say_that_they_are_few():
    """The last quarter of two updates had gained inf nats a row."""
    spec, x = bm.Mixture(bm.Normal(), 2), TABLES["normal"][1][:3000]
    with pytest.warns(bm.ConvergenceWarning, match="after 2 updates, too few to say whether it has converged"):
        fit = bm.fit_online(spec, x, n_starts=1, random_seed=1)
    assert "inf" not in str(fit.status)


def test_the_unit_in_which_a_rows_density_is_near_one_is_as_good_as_another():
    """What a step of EM may gain was a share of the log-likelihood, which is near zero in some unit."""
    x = np.random.default_rng(0).normal(0, 1, 20_000)
    unit = np.exp(stats.norm(x.mean(), x.std()).logpdf(x).mean())
    fit = bm.fit_online(bm.Normal(), x * unit, n_starts=1, batch_size=1000, random_seed=1)
    assert abs(fit.loglik) < 20
    assert fit.status.converged


@pytest.mark.parametrize("batch_size", [500, 10_000])
def test_parts_that_differ_are_no_success(batch_size):
    """Sorted rows in parts: the last minibatches pull the fit to themselves, far from the mode of all rows."""
    rng = np.random.default_rng(0)
    z = rng.random(20_000) < 0.4
    table = pd.DataFrame({"x": np.sort(rng.normal(5 * z, 1))})
    spec = bm.Mixture(bm.Composite(x=bm.Normal()), 2)
    best = bm.fit_em(spec, table, random_seed=1).loglik
    parts = [table[i : i + 2000] for i in range(0, 20_000, 2000)]
    with pytest.warns(bm.ConvergenceWarning, match="not like the others"):
        fit = bm.fit_online(spec, parts, random_seed=1, n_starts=2, batch_size=batch_size)
    assert fit.loglik < best - 1000
    assert not fit.status.converged
    assert fit.check(table).verdict == "do not use"
    more = bm.fit_online(spec, parts, random_seed=1, n_starts=2, batch_size=500, n_passes=50)
    assert more.status.converged
    assert more.loglik == pytest.approx(best, abs=1)
