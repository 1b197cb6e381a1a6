"""EM: acceleration, saddles, validation, trajectories, threads."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bayesmix as bm

_rng = np.random.default_rng(5)
X = np.concatenate([_rng.normal(-3, 1, 300), _rng.normal(3, 1, 300)])
OVERLAP = np.concatenate([_rng.normal(0, 1, 2000), _rng.normal(1.8, 1, 1000)])


def test_a_start_at_a_saddle_is_left_Normal():
    """Two equal components are a stationary point of EM; the mode has two groups."""
    start = {"weights": np.array([0.5, 0.5]), "mu": np.zeros(2), "sigma": np.full(2, X.std())}
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, start=start, random_seed=1)
    np.testing.assert_allclose(fit.params["mu"], [-3, 3], atol=0.2)
    assert fit.starts[0]["saddles"] >= 1
    best = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, random_seed=1)
    np.testing.assert_allclose(fit.history[-1], best.history[-1], rtol=1e-9)


@pytest.mark.parametrize("flat", [False, True])
def test_acceleration_reaches_the_same_mode_sooner_Normal(flat):
    spec = bm.Mixture(bm.Normal(), 2)
    spec = spec.with_flat_priors() if flat else spec
    start = {"weights": np.array([0.5, 0.5]), "mu": np.array([-0.5, 1.5]), "sigma": np.ones(2)}
    plain = bm.fit_em(spec, OVERLAP, start=start, accelerate=False, tol=1e-10, max_iter=20_000)
    fast = bm.fit_em(spec, OVERLAP, start=start, tol=1e-10)
    np.testing.assert_allclose(fast.history[-1], plain.history[-1], rtol=1e-10)
    for name, value in plain.params.items():
        np.testing.assert_allclose(fast.params[name], value, atol=2e-3, err_msg=name)
    assert len(fast.history) < 0.3 * len(plain.history)
    assert (np.diff(fast.history) >= -1e-9 * np.abs(fast.history[:-1])).all()


def test_validation_rows_choose_the_start_MvNormal():
    points = _rng.normal(size=(120, 3)) @ _rng.normal(size=(3, 3))
    train, held_out = bm.split(points, [0.7, 0.3], random_seed=1)
    fit = bm.fit_em(bm.Mixture(bm.MvNormal(), 3), train, validation=held_out, n_starts=6, random_seed=2)
    scores = [start["validation"] for start in fit.starts]
    np.testing.assert_allclose(fit.log_density(held_out).sum(), max(scores), rtol=1e-9)
    with pytest.raises(bm.DataError):
        bm.fit_em(bm.Mixture(bm.Normal(), 2), X, validation=["a"])


def test_the_trajectory_ends_at_the_fit_and_explains_the_history_Normal():
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, keep_trajectory=True, validation=X[::7], random_seed=1)
    path = fit.trajectory
    assert path.sizes["iteration"] == len(fit.history)
    np.testing.assert_array_equal(path["objective"], fit.history)
    last = path.isel(iteration=-1)
    for name, value in fit.params.items():
        np.testing.assert_allclose(last[name], value, rtol=1e-6)
    # the objective of a point on the way, by the fit's own bound
    step = path.isel(iteration=2)
    params = {name: step[name].values for name in fit.params}
    value = fit.bound.log_density(params, fit.encoded).sum() + fit.bound.log_prior(params)
    np.testing.assert_allclose(value, path["objective"][2], rtol=1e-12)
    np.testing.assert_allclose(last["validation"], fit.log_density(X[::7]).sum(), rtol=1e-9)
    assert bm.fit_em(bm.Mixture(bm.Normal(), 2), X, random_seed=1).trajectory is None


def test_threads_give_the_same_fit_Normal():
    x = np.tile(X, 20)
    one = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, n_starts=2, random_seed=1)
    two = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, n_starts=2, random_seed=1, n_jobs=2)
    np.testing.assert_array_equal(one.history, two.history)
    for name, value in one.params.items():
        np.testing.assert_array_equal(two.params[name], value)


def test_divergence_between_fits_is_that_of_the_distributions_Normal():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = bm.fit_em(bm.Normal(mu=0.0, sigma=1.0), X)
        b = bm.fit_em(bm.Normal(mu=1.0, sigma=2.0), X)
    exact = np.log(2) + (1 + 1) / 8 - 0.5
    np.testing.assert_allclose(a.kl_divergence(b, size=200_000, random_seed=1), exact, atol=0.01)
    assert abs(a.kl_divergence(a, size=10)) < 1e-12
