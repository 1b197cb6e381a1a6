"""What is special to LogNormal, Exponential and Geometric; the laws are in `tests/contract`."""

from __future__ import annotations

import warnings

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read

RNG = np.random.default_rng(31)
GROUP = np.repeat([0, 1], 300)
COLUMNS = {
    "LogNormal": np.exp(RNG.normal(np.array([-1.0, 4.0])[GROUP], np.array([0.5, 1.0])[GROUP])),
    "Exponential": RNG.exponential(np.array([0.3, 60.0])[GROUP]),
    "Geometric": RNG.geometric(np.array([0.6, 0.01])[GROUP]),
}


def finite(fit):
    return all(np.isfinite(value).all() for value in fit.params.values()) and np.isfinite(fit.loglik)


@pytest.mark.parametrize("name", COLUMNS)
def test_two_groups_are_found(name):
    fit = bm.fit_em(bm.Mixture(getattr(bm, name)(), 2), COLUMNS[name], random_seed=1)
    assert fit.status.converged
    labels = fit.predict()
    agreement = np.mean(labels == GROUP)
    assert max(agreement, 1 - agreement) > 0.9


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("LogNormal", np.full(9, 1.0)),
        ("LogNormal", np.full(9, 2e-7)),
        ("Exponential", np.full(9, 3.0)),
        ("Exponential", np.zeros(9)),
        ("Geometric", np.ones(9, int)),
        ("Geometric", np.full(9, 12)),
    ],
)
@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.filterwarnings("ignore::bayesmix.errors.DegenerateWarning")
def test_a_column_of_one_value_has_a_mode_inside_the_support(name, column, n_components):
    """A second field tells the rows apart; this one does not vary."""
    spec = bm.Mixture(bm.Composite(a=getattr(bm, name)(), b=bm.Normal()), n_components)
    fit = bm.fit_em(spec, {"a": column, "b": np.arange(9.0)}, random_seed=0, n_starts=4)
    assert finite(fit)
    for slot in fit.bound.free_slots.values():
        if slot.name.startswith("a_") and slot.support.name == "a probability":
            assert ((fit.params[slot.name] > 0) & (fit.params[slot.name] < 1)).all()
        elif slot.name in ("a_sigma", "a_scale"):
            assert (fit.params[slot.name] > 0).all()


@pytest.mark.parametrize("name", COLUMNS)
def test_flat_priors_give_the_textbook_maximum(name):
    x = COLUMNS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = bm.fit_em(getattr(bm, name)().with_flat_priors(), x)
    best = {
        "LogNormal": lambda: stats.lognorm.logpdf(x, np.log(x).std(), scale=np.exp(np.log(x).mean())),
        "Exponential": lambda: stats.expon.logpdf(x, scale=x.mean()),
        "Geometric": lambda: stats.geom.logpmf(x, 1 / x.mean()),
    }[name]()
    np.testing.assert_allclose(fit.loglik, best.sum(), rtol=1e-12)


def test_the_default_prior_has_its_mode_at_the_column_and_its_weight_Exponential():
    """Three observations of the mean: with them, the mode is the mean of the column."""
    x = COLUMNS["Exponential"]
    fit = bm.fit_em(bm.Exponential(), x)
    np.testing.assert_allclose(fit.params["scale"], (x.sum() + 3 * x.mean()) / (len(x) + 3), rtol=1e-12)


def test_the_default_prior_has_its_mode_at_the_column_and_its_weight_Geometric():
    """Two observations of the (smoothed) mean."""
    x = COLUMNS["Geometric"]
    mean = (x.sum() + 1) / (len(x) + 0.5)
    fit = bm.fit_em(bm.Geometric(), x)
    np.testing.assert_allclose(fit.params["p"], (len(x) + 2) / (x.sum() + 2 * mean), rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("name", ["LogNormal", "Exponential"])
def test_default_priors_follow_the_unit_of_the_column(name, unit):
    spec = bm.Mixture(getattr(bm, name)(), 2)
    x = COLUMNS[name]
    plain, moved = (bm.fit_em(spec, column, random_seed=2, n_starts=3) for column in (x, unit * x))
    np.testing.assert_allclose(moved.responsibilities(), plain.responsibilities(), atol=1e-4)


def test_a_lognormal_is_the_normal_of_its_logarithms():
    """The same mode as `Normal` on the logarithms; densities differ by the Jacobian."""
    x = COLUMNS["LogNormal"]
    ours = bm.fit_em(bm.Mixture(bm.LogNormal(), 2), x, random_seed=3)
    normal = bm.fit_em(bm.Mixture(bm.Normal(), 2), np.log(x), random_seed=3)
    for name, value in normal.params.items():
        np.testing.assert_allclose(ours.params[name], value, rtol=1e-9)
    np.testing.assert_allclose(ours.log_density(), normal.log_density() - np.log(x), rtol=1e-9)


def test_small_probabilities_keep_their_digits_Geometric():
    """Waiting for 1e12 trials: log(1 - p) by way of 1 - p would be off by 1e-4 of itself."""
    x = np.array([1.0, 1e12, 3e12, 2e12])
    bound = bind(bm.Geometric(), read(x))
    data = bound.encode(x)
    p = np.array([1e-12])
    node, learned = bound.site.node, bound.site.learned
    own = node.log_density({"p": p}, data.arrays)
    np.testing.assert_allclose(own[:, 0], (x - 1) * -1e-12 + np.log(1e-12), rtol=1e-10)
    statistics = node.suff_stats(data.arrays, np.ones((4, 1)), learned)
    np.testing.assert_allclose(node.expected_logp({"p": p}, statistics, learned, np), own.sum(0), rtol=1e-12)


@pytest.mark.parametrize("name", COLUMNS)
def test_missing_cells_are_imputed_with_their_kind(name):
    column = COLUMNS[name].astype(float)
    column[[3, 500]] = np.nan
    fit = bm.fit_em(bm.Mixture(getattr(bm, name)(), 2), column, random_seed=1, n_starts=3)
    summary = fit.impute(n_draws=50, random_seed=1).summary()
    assert (summary["low"] > 0).all()
    assert (summary["mean"] > 0).all()
    assert summary["mode"].notna().all() == (name == "Geometric")


@pytest.mark.parametrize("name", COLUMNS)
def test_saved_fits_come_back(name, tmp_path):
    fit = bm.fit_em(bm.Mixture(getattr(bm, name)(), 2), COLUMNS[name], random_seed=1, n_starts=2)
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    np.testing.assert_array_equal(again.log_density(COLUMNS[name]), fit.log_density())


def test_users_priors_Exponential():
    """A prior on the scale that has no closed form, against a grid."""
    x = COLUMNS["Exponential"][:5]
    fit = bm.fit_em(bm.Exponential(scale=pm.HalfNormal.dist(0.2)), x)
    grid = np.exp(np.linspace(-5, 2, 200_001))
    posterior = stats.halfnorm.logpdf(grid, scale=0.2) - len(x) * np.log(grid) - x.sum() / grid
    np.testing.assert_allclose(fit.params["scale"], grid[posterior.argmax()], rtol=1e-4)
