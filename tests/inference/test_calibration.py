"""Simulation-based calibration: exact p-values, right samplers pass and deliberately wrong ones fail."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.calibration import _ALPHA, _Nuts, band, prior_draws, quantities, ranks_of, uniformity
from bayesmix.data import read

_rng = np.random.default_rng(0)
X = np.repeat([-3.0, 3.0], 15) + _rng.normal(size=30)


def test_p_values_are_those_of_all_outcomes_counted():
    """Four ranks of 0 to 4: each of the 625 outcomes is equally likely."""
    n, n_bins = 4, 5
    found = np.array([uniformity(np.array(ranks), n_bins) for ranks in itertools.product(range(n_bins), repeat=n)])
    for p in np.unique(found.round(12)):
        assert (found <= p + 1e-9).mean() == pytest.approx(p, abs=1e-9)


def test_bands_hold_uniform_ranks_as_often_as_they_say():
    rng = np.random.default_rng(1)
    lower, upper = band(60, 20, 0.1)
    ranks = rng.integers(0, 20, (4000, 60, 1))
    shares = (ranks < np.arange(1, 20)).mean(1)
    inside = ((shares >= lower - 1e-12) & (shares <= upper + 1e-12)).all(1).mean()
    assert inside >= 0.9 - 0.015  # standard error .005; counts are whole, so a little more may be inside
    assert inside < 0.95


def test_coverage_of_uniform_ranks_is_what_was_asked_for():
    ranks = pd.DataFrame({"mu": np.arange(20), "log_likelihood": np.arange(20)})
    found = bm.Calibration("nuts", 5, 19, ranks, np.zeros((20, 5, 0), int))
    for prob in (0.5, 0.89, 0.97):
        assert found.coverage(prob) == pytest.approx(prob)
    table = found.table()
    assert table.loc["mu", "shift"] == pytest.approx(0)
    assert table.loc["mu", "spread"] == pytest.approx(1)
    assert found.passed
    assert "all 2 quantities are inside" in str(found)


def test_a_shift_and_a_narrow_posterior_are_called_what_they_are():
    rng = np.random.default_rng(2)
    edge = np.where(rng.random(200) < 0.5, rng.integers(0, 8, 200), rng.integers(92, 100, 200))
    ranks = pd.DataFrame({"high": rng.integers(50, 100, 200), "edge": edge, "fine": rng.integers(0, 100, 200)})
    found = bm.Calibration("nuts", 5, 99, ranks, np.zeros((200, 5, 0), int))
    assert not found.passed
    assert list(found.table()["inside"]) == [False, False, True]
    text = str(found)
    assert "high: p = " in text
    assert "true values lie above" in text
    assert "too narrow" in text


def test_prior_draws_follow_the_prior_and_what_is_fixed_stays():
    spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(np.array([-3.0, 3.0]), 0.5), sigma=2.0), 2, min_weight=0.3)
    draws = prior_draws(bind(spec, read(X)), 2000, np.random.default_rng(3))
    mu = np.array([each["mu"] for each in draws])
    np.testing.assert_allclose(mu.mean(0), [-3, 3], atol=4 * 0.5 / np.sqrt(2000))
    np.testing.assert_allclose(mu.std(0), 0.5, rtol=0.1)
    weights = np.array([each["weights"] for each in draws])
    assert weights.min() >= 0.3
    assert weights.min() < 0.31
    assert all((each["sigma"] == 2).all() for each in draws)


def test_improper_and_dependent_priors_are_named():
    with pytest.raises(bm.SpecError, match="sigma: an improper prior has no draws"):
        bm.calibrate(bm.Mixture(bm.Normal(sigma=bm.Flat()), 2), X, replications=2)
    with pm.Model():
        scale = pm.HalfCauchy("scale", 1.0)
        with pytest.raises(bm.SpecError, match="mu: it depends on variables"):
            bm.calibrate(bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, scale)), 2), X, replications=2)


def test_what_cannot_be_fitted_is_counted_and_not_passed_over():
    bound = bind(bm.Mixture(bm.Poisson(), 2), read(np.array([0, 1, 2, 9, 12])))
    calls = itertools.count()

    def sampler(data, rng):
        if next(calls) == 2:
            raise FloatingPointError("it broke")
        return {n: np.repeat(v[None], 9, axis=0) for n, v in prior_draws(bound, 1, rng)[0].items()}, 0

    found = ranks_of(bound, sampler, method="nuts", replications=6, n_rows=5, n_draws=9, random_seed=1)
    assert len(found.ranks) == 5
    assert found.failed == ("FloatingPointError: it broke",)
    assert not found.passed


def test_what_went_wrong_is_in_the_report():
    ranks = pd.DataFrame({"mu": np.arange(20), "log_likelihood": np.arange(20)})
    failed = ("DataError: every cell is missing", "ValueError: other")
    found = bm.Calibration("nuts", 5, 19, ranks, np.zeros((20, 5, 0), int), failed, 7)
    text = str(found)
    assert "2 tables could not be fitted; the first: DataError: every cell is missing" in text
    assert "7 divergences in 380 draws" in text
    with pytest.raises(ValueError, match="method: one of nuts, advi, laplace is needed, not 'gibbs'"):
        bm.calibrate(bm.Mixture(bm.Poisson(), 2), [1, 2, 9, 8], method="gibbs")

    def broken(data, rng):
        raise FloatingPointError("it broke")

    bound = bind(bm.Mixture(bm.Poisson(), 2), read(np.array([0, 1, 2, 9, 12])))
    with pytest.raises(bm.SpecError, match="no simulated table could be fitted: FloatingPointError: it broke"):
        ranks_of(bound, broken, method="nuts", replications=2, n_rows=5, n_draws=9, random_seed=1)


def test_the_plot_shows_how_far_ranks_are_from_uniform():
    ranks = pd.DataFrame({"mu": np.arange(20), "low": np.zeros(20, int), "log_likelihood": np.arange(20)})
    figure, axes = bm.Calibration("nuts", 5, 19, ranks, np.zeros((20, 5, 0), int)).plot()
    even, low, _ = axes.lines
    np.testing.assert_allclose(even.get_ydata(), 0, atol=1e-12)  # one rank at each place
    np.testing.assert_allclose(low.get_ydata(), 1 - low.get_xdata())  # all of them at the first
    assert axes.get_xlabel() == "rank, as a share"
    import matplotlib.pyplot as plt

    plt.close(figure)


def test_of_a_covariance_each_number_is_ranked_once():
    bound = bind(bm.MvNormal(), read(np.random.default_rng(0).normal(size=(9, 2))))
    params = {"mu": np.array([1.0, 2.0]), "cov": np.array([[4.0, 0.5], [0.5, 3.0]])}
    data = bound.encode(np.zeros((1, 2)))
    names, values, _ = quantities(bound, params, data)
    assert dict(zip(names[:-1], values)) == {
        "mu[0]": 1.0,
        "mu[1]": 2.0,
        "cov[0, 0]": 4.0,
        "cov[1, 0]": 0.5,
        "cov[1, 1]": 3.0,
    }
    assert values[-1] == pytest.approx(stats.multivariate_normal([1, 2], params["cov"]).logpdf([0, 0]))


def _spec(concentration: list[float]) -> bm.Mixture:
    component = bm.Normal(mu=pm.Normal.dist(np.array([-3.0, 3.0]), 1.0), sigma=pm.InverseGamma.dist(4.0, 3.0))
    return bm.Mixture(component, 2, weights=pm.Dirichlet.dist(np.array(concentration)))


@pytest.fixture(scope="module")
def found():
    """Five rows, so that the prior has its say; 250 tables."""
    right, off_by_one = bind(_spec([2.0, 2.0]), read(X)), bind(_spec([1.0, 2.0]), read(X))
    samplers = {
        "right": _Nuts(right, 19, thin=5, tune=150, n_starts=2),
        "weights": _Nuts(off_by_one, 19, thin=5, tune=150, n_starts=2),
        "jacobian": _Nuts(right, 19, thin=5, tune=150, n_starts=2, jacobian=False),
    }
    keywords = {"method": "nuts", "replications": 250, "n_rows": 5, "n_draws": 19, "random_seed": 8}
    return {name: ranks_of(right, sampler, **keywords) for name, sampler in samplers.items()}


@pytest.mark.slow
def test_nuts_passes_and_its_intervals_cover(found):
    right = found["right"]
    assert right.passed, right
    assert 0.86 <= right.coverage() <= 0.92
    assert 0.86 <= right.table().loc["responsibilities", "coverage"] <= 0.92


@pytest.mark.slow
def test_a_weight_prior_off_by_one_fails_in_the_weights(found):
    limit = _ALPHA / found["weights"].ranks.shape[1]
    assert not found["weights"].passed
    assert found["weights"].p_values["weights[0]"] < limit


@pytest.mark.slow
def test_a_dropped_jacobian_fails_in_the_scales(found):
    limit = _ALPHA / found["jacobian"].ranks.shape[1]
    assert not found["jacobian"].passed
    assert found["jacobian"].p_values[["sigma[0]", "sigma[1]"]].min() < limit


C, M = bm.Composite, bm.Mixture
SHORT = {
    "Composite-Poisson-Categorical": (
        M(C(x=bm.Poisson(), y=bm.Categorical()), 2),
        {"x": [1, 2, 0, 9, 12, 14, 2, 8], "y": list("aababbab")},
    ),
    "Optional-Geometric": (M(bm.Optional(bm.Geometric()), 2), [1, 2, None, 9, 14, 1, None, 6]),
    "Sequence-Bernoulli": (
        M(bm.Sequence(bm.Bernoulli(), length=bm.Poisson()), 2),
        [[True, True], [False], [], [True, True, True], [False, False], [False]],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_default_priors_are_calibrated_in_short(name):
    """`make calibrate` has every family and structure, and more tables."""
    spec, data = SHORT[name]
    found = bm.calibrate(spec, data, replications=50, draws=49, tune=150, n_starts=2, random_seed=3)
    assert found.passed, found
