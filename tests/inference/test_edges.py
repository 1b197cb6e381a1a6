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
