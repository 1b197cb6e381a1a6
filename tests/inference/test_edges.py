"""Modes on the edge of a support, and priors without a transform of their own: every engine goes on from there.

The oracle is the integral over the one parameter that is free.
"""

import re

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.build import model_of

GRID = np.linspace(0.0, 1.0, 20_001)[1:-1]


def moments(log_density):
    density = np.exp(log_density - log_density.max())
    mean = np.average(GRID, weights=density)
    return mean, np.sqrt(np.average((GRID - mean) ** 2, weights=density))


def few_and_many():
    """Ten rows of one group and ninety of another, and the log-likelihood of the first group's weight."""
    x = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], [10, 90]), 1)
    first, second = stats.norm(-3, 1).pdf(x)[:, None], stats.norm(3, 1).pdf(x)[:, None]
    return x, np.log(GRID * first + (1 - GRID) * second).sum(0)


SPEC = bm.Mixture(bm.Normal(mu=[-3.0, 3.0], sigma=1.0), 2, weights=pm.Dirichlet.dist(np.ones(2)), min_weight=0.25)


def test_all_engines_go_on_from_a_weight_at_its_minimum():
    x, loglik = few_and_many()
    mean, sd = moments(np.where((GRID > 0.25) & (GRID < 0.75), loglik, -np.inf))
    assert bm.fit_em(SPEC, x, random_seed=1).params["weights"][0] == 0.25
    mode = bm.fit_map(SPEC, x, random_seed=1)
    np.testing.assert_allclose(mode.params["weights"], [0.25, 0.75], atol=1e-6)
    assert abs(float(re.search(r"mode, (\S+) nats above", mode.status.message)[1])) < 1e-4
    nuts = bm.fit_nuts(SPEC, x, random_seed=1)
    assert nuts.status.converged
    drawn = nuts.posterior["weights"].values[..., 0]
    assert (drawn > 0.25).all()
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [mean, sd], atol=0.1 * sd)
    laplace = bm.fit_laplace(SPEC, x, draws=4000, random_seed=1)
    assert abs(laplace.posterior["weights"].values[..., 0].mean() - mean) < 0.2 * sd  # corrected by importance
    with pytest.warns(bm.ApproximationWarning, match="Pareto k"):  # half of an exponential is no normal distribution
        advi = bm.fit_advi(SPEC, x, random_seed=1)
    drawn = advi.posterior["weights"].values[..., 0]
    assert (drawn > 0.25).all()
    assert np.isfinite(drawn).all()


def test_symbols_of_probability_zero_at_the_mode_do_not_stop_nuts_Categorical():
    """A flat prior leaves a component no probability for a symbol that it has not."""
    table = {"x": [*np.random.default_rng(0).normal(np.repeat([-9.0, 9.0], 20), 1)], "s": ["a"] * 20 + ["b"] * 20}
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), s=bm.Categorical(p=bm.Flat())), 2)
    assert (bm.fit_em(spec, table, random_seed=1).params["s_p"] < 1e-12).any()
    fit = bm.fit_nuts(spec, table, random_seed=1)
    assert fit.status.converged
    # a symbol that none of 20 rows has, under a flat prior: Beta(1, 21)
    rare = fit.posterior["s_p"].values.reshape(-1, 2, 2).min(-1)
    np.testing.assert_allclose(rare.mean(0), 1 / 22, atol=0.004)


@pytest.mark.parametrize("likelihood", ["fused", "graph"])
def test_a_prior_without_a_transform_gets_its_support_s(likelihood):
    """PyMC moves logit-normal probabilities as they are, and a step may leave (0, 1)."""
    spec = bm.Mixture(bm.Bernoulli(p=pm.LogitNormal.dist(0.0, 1.5)), 1)
    fit = bm.fit_nuts(spec, [1, 1, 1, 0], random_seed=1)
    logit = np.log(GRID / (1 - GRID))
    mean, sd = moments(
        stats.norm(0, 1.5).logpdf(logit) - np.log(GRID * (1 - GRID)) + 3 * np.log(GRID) + np.log1p(-GRID)
    )
    drawn = fit.posterior["p"].values
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [mean, sd], atol=0.1 * sd)
    assert fit.status.converged
    model = model_of(fit.bound, fit.encoded, row_weights=None, initval=None, likelihood=likelihood)
    assert model.rvs_to_transforms[model["p"]] is not None


def at_one_end():
    """25 rows of the first of two groups, under flat weights; and the log-likelihood of the first one's weight."""
    x = np.random.default_rng(0).normal(-1, 1, 25)
    first, second = stats.norm(-1, 1).pdf(x)[:, None], stats.norm(5, 1).pdf(x)[:, None]
    spec = bm.Mixture(bm.Normal(mu=[-1.0, 5.0], sigma=1.0), 2, weights=pm.Dirichlet.dist([1.0, 1.0]))
    return spec, x, np.log(GRID * first + (1 - GRID) * second).sum(0)


def test_chains_leave_a_weight_of_zero():
    """There the density is flat for hundreds of units, and chains stayed: at (1, 0) some, at (0, 1) others."""
    spec, x, loglik = at_one_end()
    assert bm.fit_em(spec, x, random_seed=1).params["weights"][1] < 1e-9
    mean, sd = moments(loglik)
    fit = bm.fit_nuts(spec, x, random_seed=1)
    assert fit.status.converged
    drawn = fit.posterior["weights"].values[..., 0]
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [mean, sd], atol=0.1 * sd)
    assert (abs(drawn.mean(1) - mean) < 0.3 * sd).all()


ZEROS, X = np.zeros(20, int), np.random.default_rng(0).normal(-1, 1, 25)
#: Of the mean -1 that the rows have: what a normal density of variance 1/25 leaves of a half line.
MEAN, WIDTH = X.mean(), 0.2
MODES_ON_EDGES = [
    (bm.Normal(mu=pm.HalfNormal.dist(1e3), sigma=1.0), X, "mu", stats.truncnorm(-MEAN / WIDTH, np.inf, MEAN, WIDTH)),
    (
        bm.Normal(mu=pm.Exponential.dist(2.0), sigma=1.0),
        X,
        "mu",
        stats.truncnorm(-(MEAN - 0.08) / WIDTH, np.inf, MEAN - 0.08, WIDTH),
    ),
    (
        bm.Normal(mu=pm.TruncatedNormal.dist(0.0, 1e3, upper=-2.0), sigma=1.0),
        X,
        "mu",
        stats.truncnorm(-np.inf, (-2.0 - MEAN) / WIDTH, MEAN, WIDTH),
    ),
    (bm.Normal(mu=pm.Uniform.dist(0.0, 1.0), sigma=1.0), X, "mu", stats.truncnorm(-MEAN / WIDTH, np.inf, MEAN, WIDTH)),
    (bm.Poisson(mu=pm.Exponential.dist(1.0)), ZEROS, "mu", stats.expon(scale=1 / 21)),
    (bm.Bernoulli(p=pm.Uniform.dist(0.0, 1.0)), ZEROS, "p", stats.beta(1, 21)),
    (bm.Geometric(p=pm.Uniform.dist(0.0, 1.0)), ZEROS + 1, "p", stats.beta(21, 1)),
]


# an exponential's logarithm is no normal: k is about 0.7, on one side or the other
@pytest.mark.filterwarnings("ignore:The .* approximation is too far:bayesmix.errors.ApproximationWarning")
@pytest.mark.parametrize("approximation", ["fullrank", "meanfield"])
@pytest.mark.parametrize(("spec", "rows", "name", "posterior"), MODES_ON_EDGES)
def test_advi_leaves_the_edge_of_a_prior(spec, rows, name, posterior, approximation):
    """At the edge the curvature is nothing, and the first scale was thousands of times too wide: draws were inf."""
    fit = bm.fit_advi(spec, rows, approximation=approximation, random_seed=1)
    drawn = fit.posterior[name].values
    assert abs(drawn.mean() - posterior.mean()) < 0.2 * posterior.std()
    assert abs(drawn.std() / posterior.std() - 1) < 0.2


@pytest.mark.filterwarnings("ignore:The .* approximation is too far:bayesmix.errors.ApproximationWarning")
def test_advi_leaves_a_weight_of_zero():
    spec, x, loglik = at_one_end()
    mean, sd = moments(loglik)
    for options in ({}, {"minibatch": 10, "max_iter": 40}):
        fit = bm.fit_advi(spec, x, random_seed=1, **options)
        drawn = fit.posterior["weights"].values[..., 0]
        assert abs(drawn.mean() - mean) < 0.2 * sd, options
        assert np.isfinite(fit.log_density()).all(), options
