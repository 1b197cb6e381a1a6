"""The method of moments: exact on exact moments, honest on samples.

Exact moments enter through the front door: the nodes of a Gauss quadrature are the rows and its weights the row
weights, so that every polynomial averages to its expectation.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.laguerre import laggauss
from scipy import stats
from scipy.optimize import nnls

import bayesmix as bm
from bayesmix.errors import DegenerateWarning, MomentsError, SpecError
from bayesmix.moments import equal_sigma_normals, latent_class, mixing, mixing_distribution, normals, two_normals
from bayesmix.moments.estimator import derivative, polish
from bayesmix.moments.views import conditional_means, nearest_possible, random_splits

C, M = bm.Composite, bm.Mixture
REFERENCE = Path(__file__).parents[1] / "reference"
NODES, NODE_WEIGHTS = hermegauss(16)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()


def normal_rows(weights, mu, sigma):
    """Rows and row weights whose moments up to order 31 are those of a mixture of normals."""
    values = np.asarray(mu)[:, None] + np.asarray(sigma)[:, None] * NODES
    return values.ravel(), (np.asarray(weights)[:, None] * NODE_WEIGHTS).ravel()


def raw_moments(values, weights, n_moments):
    return np.array([weights @ values**r for r in range(1, n_moments + 1)])


def normal_sample(rng, size, weights, mu, sigma):
    z = rng.choice(len(weights), size, p=weights)
    return rng.normal(np.asarray(mu)[z], np.asarray(sigma)[z])


def assert_mixture(found, weights, mu, sigma, tolerance):
    unit = np.max(sigma)
    np.testing.assert_allclose(found["weights"], weights, atol=tolerance)
    np.testing.assert_allclose(found["mu"], mu, atol=tolerance * unit)
    np.testing.assert_allclose(found["sigma"], sigma, atol=tolerance * unit)


# ------------------------------------------------------------ two normals


def test_the_notebooks_parameters_from_exact_moments_Normal():
    truth = ([0.7, 0.3], [0.0, 10.0], [2.0, 3.0])
    assert_mixture(two_normals(raw_moments(*normal_rows(*truth), 6))[0], *truth, 1e-12)
    values, weights = normal_rows(*truth)
    fit = bm.fit(M(bm.Normal(), 2), values, method="moments", row_weights=weights)
    assert fit.status.converged
    assert_mixture(fit.params, *truth, 1e-10)


def test_the_notebooks_sample_moments_Normal():
    """Its five moments and the parameters that its solver found from a start beside the truth."""
    moments = [3.033243007556774, 35.429816643767715, 378.3815897586502, 4697.59347129467, 60793.208071695706]
    found = two_normals(np.array(moments))
    assert len(found) == 1
    assert_mixture(
        found[0],
        [0.672375746577542, 1 - 0.672375746577542],
        [-0.0964001259983833, 9.45613788320574],
        [1.93947261516827, 3.31424965505908],
        1e-12,
    )


@pytest.mark.slow
def test_a_thousand_mixtures_from_exact_moments_Normal():
    """Means at least one (larger) sd apart. Moments are sums about the mean, as of a centred sample."""
    rng = np.random.default_rng(7)
    for _ in range(1000):
        w = rng.uniform(0.05, 0.95)
        sigma = np.array([1.0, 5.0 ** rng.uniform(-1, 1)]) * 10.0 ** rng.uniform(-3, 3)
        gap = sigma.max() * rng.uniform(1, 6)
        mu = np.array([-(1 - w) * gap, w * gap])
        values, weights = normal_rows([w, 1 - w], mu, sigma)
        assert_mixture(two_normals(raw_moments(values, weights, 6))[0], [w, 1 - w], mu, sigma, 1e-6)


@pytest.mark.parametrize("gap", [0.5, 1.0, 4.0])
def test_symmetric_mixtures_Normal(gap):
    """Third and fifth moments are zero, and Pearson's quotient is 0/0 for other roots."""
    truth = ([0.5, 0.5], [-gap, gap], [1.0, 1.0])
    assert_mixture(two_normals(raw_moments(*normal_rows(*truth), 6))[0], *truth, 1e-9)


def test_no_third_moment_but_a_fifth_Normal():
    """Skewness zero without symmetry: with means -1 and 2 the variances (2/3 + d, d) make it so."""
    w, mu = np.array([2 / 3, 1 / 3]), np.array([-1.0, 2.0])
    # E gamma^3 + 3 E gamma sigma^2 = 2 + 2 (var_2 - var_1)
    sigma = np.sqrt([1.7, 0.7])
    moments = raw_moments(*normal_rows(w, mu, sigma), 6)
    assert abs(moments[2]) < 1e-12
    assert abs(moments[4]) > 1
    assert_mixture(two_normals(moments)[0], w, mu, sigma, 1e-9)


def test_naples_crabs_both_solutions_Normal():
    """Pearson 1894. PUBLISHED figures; the first is nearer on the sixth moment."""
    data = json.loads((REFERENCE / "pearson_crab.json").read_text())
    values, counts = np.array(data["index"], float), np.array(data["freq"])
    fit = bm.fit_moments(M(bm.Normal(), 2), values, row_weights=counts)
    found = fit.idata["moments"].to_dataset()
    assert found.sizes["solution"] == 2
    np.testing.assert_allclose(found["weights"][:, 0], [0.42406, 0.53298], atol=1e-5)
    np.testing.assert_allclose(found["mu"], [[13.3980, 19.3031], [14.3720, 19.5688]], atol=1e-4)
    np.testing.assert_allclose(found["sigma"], [[4.5116, 3.1094], [4.7703, 2.8773]], atol=1e-4)
    np.testing.assert_allclose(found["fitted_moments"][:, 5], [189_500, 192_422], atol=1)
    np.testing.assert_allclose(found["sample_moments"][5], 181_943, atol=1)
    np.testing.assert_allclose(found["criterion"], [189_500 - 181_943, 192_422 - 181_943], atol=1)
    np.testing.assert_array_equal(fit.params["mu"], found["mu"][0])
    repeated = bm.fit_moments(M(bm.Normal(), 2), np.repeat(values, counts))
    np.testing.assert_allclose(repeated.params["mu"], fit.params["mu"], rtol=1e-9)
    np.testing.assert_allclose(repeated.idata["moments"]["mu_se"], found["mu_se"], rtol=1e-7)


def test_moments_do_not_depend_on_where_and_in_what_unit_Normal():
    x = normal_sample(np.random.default_rng(1), 3000, [0.6, 0.4], [0, 4], [1, 2])
    here, there = (bm.fit_moments(M(bm.Normal(), 2), data) for data in (x, 1e6 + 1e-3 * x))
    np.testing.assert_allclose(there.params["mu"], 1e6 + 1e-3 * here.params["mu"], rtol=1e-12)
    np.testing.assert_allclose(there.params["sigma"], 1e-3 * here.params["sigma"], rtol=1e-5)


def test_no_two_normals_have_the_moments_of_a_uniform_and_a_far_row_Normal():
    with pytest.raises(MomentsError, match=r"no mixture of two.*em.*more rows"):
        two_normals(np.array([0.0, 1.0, 0.4, 9.0, -30.0, 100.0]))
    with pytest.raises(MomentsError, match="variance"):
        two_normals(np.array([1.0, 1.0, 1.0, 1.0, 1.0]))
    assert issubclass(MomentsError, ValueError)


# ------------------------------------------------------------ one sigma


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_one_sigma_from_exact_moments_Normal(size):
    rng = np.random.default_rng(size)
    for _ in range(20):
        mu, weights = np.cumsum(rng.uniform(1, 4, size)), rng.dirichlet(np.full(size, 3.0))
        mu -= weights @ mu
        values, row_weights = normal_rows(weights, mu, np.ones(size))
        found = equal_sigma_normals(raw_moments(values, row_weights, 2 * size), size)
        assert_mixture(found, weights, mu, np.ones(size), 1e-7)
        fixed = bm.fit_moments(M(bm.Normal(sigma=1.0), size), values, row_weights=row_weights)
        assert_mixture({**fixed.params, "sigma": np.ones(size)}, weights, mu, np.ones(size), 1e-7)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_sigma_always_has_an_answer_Normal(size):
    """Small samples, heavy tails, ties, the wrong number of components."""
    rng = np.random.default_rng(3)
    draws = [rng.normal(size=40), rng.standard_t(2, size=60), rng.uniform(size=30), rng.poisson(3, 50).astype(float)]
    for x in [*draws, *(rng.normal(size=25) for _ in range(40))]:
        z = (x - x.mean()) / x.std()
        found = equal_sigma_normals(np.array([(z**r).mean() for r in range(1, 2 * size + 1)]), size)
        assert (found["weights"] > 0).all()
        np.testing.assert_allclose(found["weights"].sum(), 1)
        assert 0 < found["sigma"][0] < 1
        assert len(np.unique(found["mu"])) == size


def test_shared_sigma_Normal():
    truth = ([0.2, 0.5, 0.3], [-4.0, 0.0, 5.0], [1.5, 1.5, 1.5])
    values, weights = normal_rows(*truth)
    fit = bm.fit_moments(M(bm.Normal(sigma=bm.Shared()), 3), values, row_weights=weights)
    np.testing.assert_allclose(fit.params["mu"], truth[1], atol=1e-7)
    np.testing.assert_allclose(fit.params["weights"], truth[0], atol=1e-7)
    np.testing.assert_allclose(fit.params["sigma"], 1.5, atol=1e-7)
    assert fit.params["sigma"].shape == fit.idata["moments"]["sigma_se"].shape == ()


def test_a_sample_of_single_points_has_no_sigma_Normal():
    with pytest.raises(MomentsError, match="single points"):
        equal_sigma_normals(raw_moments(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 4), 2)


# ------------------------------------------------------------ mixing distributions


def one_axis(n_components, name):
    """What an estimator reads of a family's site."""
    slot = SimpleNamespace(free=True, axes=("component",), name=name)
    return SimpleNamespace(n_components=n_components, slots={name: slot}, place=SimpleNamespace(axes=("component",)))


def solve(estimator, row_weights):
    total = row_weights.sum()
    sample = row_weights @ estimator.statistics / total
    gap = estimator.statistics - sample
    covariance = (gap * row_weights[:, None]).T @ gap / total
    return estimator.solve(sample, covariance)[0], covariance


@pytest.mark.parametrize(("weights", "mu"), [([1.0], [3.0]), ([0.4, 0.6], [1.5, 7.0]), ([0.3, 0.5, 0.2], [1, 6, 15])])
def test_exact_moments_Poisson(weights, mu):
    """Rows 0, 1, 2, … weighted by scipy's probabilities."""
    values = np.arange(120)
    probability = np.array(weights) @ stats.poisson.pmf(values, np.array(mu)[:, None])
    fit = bm.fit_moments(M(bm.Poisson(), len(mu)), values, row_weights=probability)
    assert fit.status.converged
    np.testing.assert_allclose(fit.params["mu"], mu, rtol=1e-6)
    np.testing.assert_allclose(fit.params["weights"], weights, atol=1e-6)


@pytest.mark.parametrize(("weights", "scale"), [([0.4, 0.6], [1.5, 7.0]), ([0.3, 0.5, 0.2], [1.0, 6.0, 15.0])])
def test_exact_moments_Exponential(weights, scale):
    nodes, node_weights = laggauss(16)
    values = (np.array(scale)[:, None] * nodes).ravel()
    row_weights = (np.array(weights)[:, None] * node_weights).ravel()
    found = bm.fit_moments(M(bm.Exponential(), len(scale)), values, row_weights=row_weights).params
    order = np.argsort(found["scale"])  # the engine's is by weight
    np.testing.assert_allclose(found["scale"][order], scale, rtol=1e-6)
    np.testing.assert_allclose(found["weights"][order], weights, atol=1e-6)


@pytest.mark.parametrize(("weights", "p"), [([0.4, 0.6], [0.8, 0.2]), ([0.3, 0.5, 0.2], [0.9, 0.4, 0.15])])
def test_exact_moments_Geometric(weights, p):
    """Trials from 1 weighted by scipy's probabilities."""
    values = np.arange(1, 600)
    row_weights = np.array(weights) @ stats.geom.pmf(values, np.array(p)[:, None])
    found = bm.fit_moments(M(bm.Geometric(), len(p)), values, row_weights=row_weights).params
    order = np.argsort(-found["p"])
    np.testing.assert_allclose(found["p"][order], p, rtol=1e-6)
    np.testing.assert_allclose(found["weights"][order], weights, atol=1e-6)


@pytest.mark.parametrize("sigma", [None, bm.Shared(), 0.5])
def test_exact_moments_of_the_logarithm_LogNormal(sigma):
    values, weights = normal_rows([0.3, 0.7], [0.0, 2.0], [0.5, 0.5])
    fit = bm.fit_moments(M(bm.LogNormal(sigma=sigma), 2), np.exp(values), row_weights=weights)
    np.testing.assert_allclose(fit.params["mu"], [0, 2], atol=1e-8)
    np.testing.assert_allclose(fit.params["sigma"], 0.5, atol=1e-8)
    np.testing.assert_allclose(fit.params["weights"], [0.3, 0.7], atol=1e-8)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_impossible_moments_go_to_the_nearest_possible(size):
    """Against non-negative least squares over a fine grid of points, by scipy."""
    rng = np.random.default_rng(size)
    orders = np.arange(1, 2 * size)
    grid = np.linspace(-1, 1, 2001)
    heavy = 1e4
    for _ in range(25):
        target = 1.5 * rng.standard_normal(2 * size - 1)
        points, weights = mixing.nearest_points(target, size, (-1.0, 1.0))
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(), 1)
        assert (np.abs(points) <= 1 + 1e-12).all()
        rival, _ = nnls(np.vstack([grid ** orders[:, None], np.full(len(grid), heavy)]), np.append(target, heavy))
        ours = np.linalg.norm(weights @ points[:, None] ** orders - target)
        assert ours < np.linalg.norm(grid ** orders[:, None] @ rival - target) + 1e-6


def test_mixing_distribution_says_what_is_impossible():
    with pytest.raises(MomentsError, match="no distribution on 2 points"):
        mixing_distribution([1.0, 0.5, 1.0], 2)
    with pytest.raises(MomentsError, match="between 0 and inf"):
        mixing_distribution([0.0, 1.0, 0.0], 2, support=(0.0, np.inf))
    points, weights, exact = mixing_distribution([0.0, 1.0, 0.0], 2, support=(0.0, np.inf), within=(0.0, 3.0))
    assert not exact
    assert points.min() >= 0
    np.testing.assert_allclose(weights.sum(), 1)
    with pytest.raises(ValueError, match="3 are needed"):
        mixing_distribution([0.0, 1.0], 2)


def test_samples_always_give_a_valid_mixture_Poisson():
    """Components too near to tell apart: the sampled moments are often those of no mixture."""
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(60):
        counts = rng.poisson(np.array([2.0, 2.5, 3.0])[rng.integers(0, 3, 200)])
        estimator = mixing.of_poisson(counts, one_axis(3, "mu"), np.ones(200))
        answer, _ = solve(estimator, np.ones(200))
        found = estimator.named(answer.theta)
        assert (found["mu"] > 0).all()
        assert (found["weights"] >= 0).all()
        np.testing.assert_allclose(found["weights"].sum(), 1)
        moved += not answer.exact
    assert moved > 10


def test_too_many_components_are_said_Poisson():
    x = np.random.default_rng(1).poisson(3.0, 300)
    spec = M(bm.Poisson(), 4)
    with pytest.warns(DegenerateWarning, match="fewer components"):
        fit = bm.fit_moments(spec, x)
    assert not fit.status.converged
    assert np.isnan(fit.idata["moments"]["mu_se"]).all()
    with pytest.raises(MomentsError, match="Leave start out"):
        bm.fit_em(spec, x, start="moments")


# ------------------------------------------------------------ standard errors


def replicate(make, draw, count=400):
    """Root mean square of the claimed standard errors over the spread of the estimates."""
    estimates, errors = [], []
    for _ in range(count):
        rows = draw()
        estimator, ones = make(rows), np.ones(len(rows))
        answer, covariance = solve(estimator, ones)
        if answer.exact:
            estimates.append(np.concatenate(list(estimator.named(answer.theta).values())))
            claimed = estimator.standard_errors(answer.theta, covariance, len(rows))
            errors.append(np.concatenate(list(claimed.values())))
    assert len(estimates) > 0.97 * count
    return np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(estimates, axis=0)


REPLICATED = {
    "two-Normal": (
        lambda x: normals.TwoNormals(x, np.ones(len(x))),
        lambda rng: normal_sample(rng, 4000, [0.7, 0.3], [0, 10], [2, 3]),
    ),
    "one-sigma-Normal": (
        lambda x: normals.EqualSigmaNormals(x, 3, np.ones(len(x))),
        lambda rng: normal_sample(rng, 4000, [0.4, 0.3, 0.3], [0, 6, 12], [1, 1, 1]),
    ),
    "known-sigma-Normal": (
        lambda x: mixing.of_normal(x, 1.0, 3, np.ones(len(x))),
        lambda rng: normal_sample(rng, 4000, [0.4, 0.3, 0.3], [0, 4, 8], [1, 1, 1]),
    ),
    "Poisson": (
        lambda x: mixing.of_poisson(x, one_axis(2, "mu"), np.ones(len(x))),
        lambda rng: rng.poisson(np.where(rng.random(4000) < 0.6, 2.0, 10.0)),
    ),
    "Exponential": (
        lambda x: mixing.of_exponential(x, one_axis(2, "scale"), np.ones(len(x))),
        lambda rng: rng.exponential(np.where(rng.random(20_000) < 0.6, 1.0, 10.0)),
    ),
    "Geometric": (
        lambda x: mixing.of_geometric(x, one_axis(2, "p"), np.ones(len(x))),
        lambda rng: rng.geometric(np.where(rng.random(20_000) < 0.6, 0.7, 0.1)),
    ),
}


@pytest.mark.parametrize("name", REPLICATED)
@pytest.mark.slow
def test_standard_errors_are_the_spread_over_replications(name):
    make, draw = REPLICATED[name]
    rng = np.random.default_rng(11)
    # the spread of 400 estimates is itself known to 3.5 %
    np.testing.assert_allclose(replicate(make, lambda: draw(rng)), 1, atol=0.15)


def test_complex_steps_against_finite_differences():
    values = normal_sample(np.random.default_rng(0), 500, [0.5, 0.5], [0, 3], [1, 2])
    estimator = normals.TwoNormals(values, np.ones(500))
    theta = np.array([0.3, -1.0, 0.7, 0.4, 0.9])
    numeric = [(estimator.moments(theta + h) - estimator.moments(theta - h)) / 2e-6 for h in 1e-6 * np.eye(5)]
    np.testing.assert_allclose(derivative(estimator.moments, theta), np.transpose(numeric), atol=1e-6)


# ------------------------------------------------------------ composites


def patterns(weights, p):
    """Every pattern of binary fields and its probability."""
    rows = np.array(list(product([0, 1], repeat=p.shape[1])))
    return rows, np.asarray(weights) @ np.prod(np.where(rows[None] == 1, p[:, None], 1 - p[:, None]), axis=-1)


@pytest.mark.parametrize(("n_fields", "size"), [(3, 2), (5, 3), (6, 4)])
def test_exact_cross_moments_Bernoulli(n_fields, size):
    """By every random split: pairs of fields are multiplied out where the fields alone are too few."""
    rng = np.random.default_rng(n_fields)
    p, weights = rng.uniform(0.05, 0.95, (size, n_fields)), rng.dirichlet(np.full(size, 4.0))
    rows, probability = patterns(weights, p)
    views = [np.eye(2)[column] for column in rows.T]
    tried = list(random_splits(views, size, rng, 10))
    assert len(tried) == 10
    for split in tried:
        found, means = conditional_means(views, size, probability, split)
        ours, theirs = np.argsort(found), np.argsort(weights)
        np.testing.assert_allclose(found[ours], weights[theirs], atol=1e-8)
        for field, mean in enumerate(means):
            np.testing.assert_allclose(mean[ours, 1], p[theirs, field], atol=1e-8)


@pytest.mark.parametrize("family", ["Bernoulli", "Categorical"])
def test_exact_cross_moments_give_the_parameters(family):
    p = np.array([[0.2, 0.7, 0.4, 0.9], [0.8, 0.3, 0.6, 0.2]])
    rows, probability = patterns([0.65, 0.35], p)
    table = {f"f{j}": column for j, column in enumerate(rows.T)}
    leaf = getattr(bm, family)
    fit = bm.fit_moments(M(C({name: leaf() for name in table}), 2), table, row_weights=probability, random_seed=1)
    assert fit.status.converged
    np.testing.assert_allclose(fit.params["weights"], [0.65, 0.35], atol=1e-8)
    for j in range(4):
        value = fit.params[f"f{j}_p"]
        np.testing.assert_allclose(value if value.ndim == 1 else value[:, 1], p[:, j], atol=1e-8)


def test_sets_are_latent_classes_of_their_symbols_BernoulliSet():
    """One field, of which every symbol is a view of its own."""
    p = np.array([[0.2, 0.7, 0.4, 0.9], [0.8, 0.3, 0.6, 0.2]])
    rows, probability = patterns([0.65, 0.35], p)
    sets = [{"abcd"[j] for j in np.flatnonzero(row)} for row in rows]
    fit = bm.fit_moments(M(bm.BernoulliSet(), 2), sets, row_weights=probability, random_seed=1)
    assert fit.status.converged
    np.testing.assert_allclose(fit.params["weights"], [0.65, 0.35], atol=1e-8)
    np.testing.assert_allclose(fit.params["p"], p, atol=1e-8)
    # beside another field it is four of five views
    x = np.tile([-1.0, 3.0], len(sets)) + 0.0
    both = M(C(tags=bm.BernoulliSet(), x=bm.Normal()), 2)
    table = {"tags": [cell for cell in sets for _ in range(2)], "x": x}
    beside = bm.fit_moments(both, table, row_weights=np.repeat(probability, 2), random_seed=1)
    np.testing.assert_allclose(beside.params["tags_p"], p, atol=1e-8)


def mixed_table(rng, size=6000):
    z = rng.choice(3, size, p=[0.5, 0.3, 0.2])
    return {
        "x": rng.normal(np.array([-3.0, 0.0, 4.0])[z], np.array([1.0, 2.0, 0.5])[z]),
        "n": rng.poisson(np.array([2.0, 8.0, 20.0])[z]).astype(float),
        "b": rng.random(size) < np.array([0.2, 0.7, 0.9])[z],
        "v": np.array([[0.0, 1.0], [4.0, -2.0], [1.0, 6.0]])[z] + rng.normal(size=(size, 2)),
    }


def test_a_composite_of_any_families():
    """No family has a word to say: the M-step makes parameters of conditional means. Errors within five se."""
    table = mixed_table(np.random.default_rng(0))
    table["n"][:300] = np.nan
    spec = M(C(x=bm.Normal(), n=bm.Poisson(), b=bm.Bernoulli(), v=bm.MvNormal()), 3)
    fit = bm.fit_moments(spec, table, random_seed=1)
    error = fit.idata["moments"].to_dataset()
    truth = {
        "weights": [0.5, 0.3, 0.2],
        "x_mu": [-3, 0, 4],
        "n_mu": [2, 8, 20],
        "b_p": [0.2, 0.7, 0.9],
        "v_mu": [[0, 1], [4, -2], [1, 6]],
    }
    for name, value in truth.items():
        gap = np.abs(fit.params[name] - value)
        se = error[f"{name}_se"].values
        assert (gap[np.isfinite(se)] < 5 * se[np.isfinite(se)]).all(), name
        assert (gap < 0.1 * np.ptp(value)).all(), name
    em = bm.fit_em(spec, table, start="moments", random_seed=1)
    np.testing.assert_allclose(em.loglik, bm.fit_em(spec, table, n_starts=4, random_seed=1).loglik, rtol=1e-7)


@pytest.mark.slow
def test_standard_errors_of_cross_moments_Bernoulli():
    """The projection is chosen anew in each replication, as a user's would be."""
    rng = np.random.default_rng(5)
    p, weights = np.array([[0.2, 0.7, 0.4, 0.8], [0.8, 0.25, 0.7, 0.3]]), [0.6, 0.4]
    spec = M(C(*[bm.Bernoulli()] * 4), 2)
    estimates, errors = [], []
    for _ in range(400):
        z = rng.choice(2, 3000, p=weights)
        rows = (rng.random((3000, 4)) < p[z]).astype(int)
        fit = bm.fit_moments(spec, rows, n_splits=12, random_seed=1)
        group = fit.idata["moments"]
        names = list(fit.params)
        estimates.append(np.concatenate([fit.params[name] for name in names]))
        errors.append(np.concatenate([group[f"{name}_se"].values for name in names]))
    assert np.isfinite(errors).all()
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), 0)) / np.std(estimates, axis=0), 1, atol=0.15)


def test_latent_classes_of_many_rows():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(3), (3, 6))  # (K, fields, symbols)
    z = rng.choice(3, 100_000, p=[0.5, 0.3, 0.2])
    rows = (p[z].cumsum(-1)[..., :-1] < rng.random((100_000, 6, 1))).sum(-1)
    weights, tables = latent_class(rows, 3, random_seed=1)
    np.testing.assert_allclose(weights, [0.5, 0.3, 0.2], atol=0.02)
    for field, table in enumerate(tables):
        np.testing.assert_allclose(table, p[:, field], atol=0.05)


@pytest.mark.parametrize(("n_classes", "loglik"), [(2, -317.2568373), (3, -293.7049788), (4, -289.2858493)])
def test_a_start_for_latent_classes_of_carcinoma_Bernoulli(n_classes, loglik):
    """At most ten starts reach the mode that 19 (K=4) to 60 (K=2) of 60 random ones reach: `carcinoma.ref.json`."""
    table = pd.DataFrame(json.loads((REFERENCE / "carcinoma.json").read_text())["columns"]) == 2
    spec = M(C({name: bm.Bernoulli() for name in table}), n_classes).with_flat_priors()
    fit = bm.fit_em(spec, table, start="moments", random_seed=0)
    assert len(fit.starts) <= 10
    np.testing.assert_allclose(fit.loglik, loglik, atol=1e-5)
    before = bm.fit_moments(spec, table, random_seed=0)
    assert loglik - 10 < before.loglik < loglik
    assert np.isfinite([run["objective"] for run in before.starts]).any()


def test_means_outside_their_range_are_moved_to_the_edge_and_a_little_in():
    values = np.array([[0.0, 1.0], [1.0, 0.0]])
    means = np.array([[1.2, -0.2], [0.3, 0.7], [0.0, 1.0]])
    found, moved = nearest_possible(means, values, np.array([0.4, 0.6]), 0.01)
    np.testing.assert_array_equal(moved, [True, False, True])
    np.testing.assert_allclose(found, [[0.994, 0.006], [0.3, 0.7], [0.004, 0.996]], atol=1e-6)


# ------------------------------------------------------------ the engine


def test_components_come_in_the_order_of_every_engine():
    rng = np.random.default_rng(4)
    x = normal_sample(rng, 3000, [0.2, 0.8], [3, -3], [0.5, 1])
    fit = bm.fit_moments(M(bm.Normal(), 2), x)
    em = bm.fit_em(M(bm.Normal(), 2), x, start="moments")
    assert fit.params["mu"][0] < fit.params["mu"][1]
    for name in fit.params:
        np.testing.assert_allclose(em.params[name], fit.params[name], atol=0.1)
        np.testing.assert_array_equal(fit.idata["moments"][name][0], fit.params[name])
    assert fit.posterior.sizes["chain"] == fit.posterior.sizes["draw"] == 1
    assert fit.responsibilities().shape == (3000, 2)
    # the rarer component's mean is known less well
    se = fit.idata["moments"]["mu_se"].values
    assert se[1] > se[0]


def test_missing_rows_are_left_out_Normal():
    x = normal_sample(np.random.default_rng(4), 2000, [0.4, 0.6], [-3, 3], [0.5, 1])
    holes = np.concatenate([[np.nan], x[:900], [np.nan, np.nan], x[900:]])
    whole, part = (bm.fit_moments(M(bm.Normal(), 2), data) for data in (x, holes))
    for name in whole.params:
        np.testing.assert_allclose(part.params[name], whole.params[name], rtol=1e-12)


def test_saving_keeps_the_moments(tmp_path):
    fit = bm.fit_moments(M(bm.Poisson(), 2), np.random.default_rng(0).poisson([[2], [12]], (2, 300)).ravel())
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    np.testing.assert_array_equal(again.idata["moments"]["mu_se"], fit.idata["moments"]["mu_se"])


REFUSED = {
    "no mixture": (bm.Normal(), "Wrap it in bm.Mixture"),
    "three sigmas": (M(bm.Normal(), 3), "two normals.*Share sigma"),
    "one field of symbols": (M(bm.Bernoulli(), 2), "three or more independent fields"),
    "two fields": (M(C(a=bm.Normal(), b=bm.Poisson()), 2), "three or more independent fields"),
    "a mixture within": (M(M(bm.Poisson(), 2), 2), "three or more independent fields"),
    "different families": (M([bm.Exponential(), bm.LogNormal()]), "three or more independent fields"),
    "tied fields": (M(C(*[bm.Bernoulli(tie="same")] * 3), 2), "same_p.*components"),
    "sequences": (M(bm.Sequence(bm.Poisson()), 2), "three or more independent fields"),
    "fixed weights": (M(bm.Normal(), 2, weights=[0.5, 0.5]), "weights: fixed"),
    "fixed parameter": (M(bm.Poisson(mu=3.0), 2), "mu.*fixed or shared"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_moments_cannot_do_is_said(why):
    spec, message = REFUSED[why]
    table = {"a": [0, 1, 1, 0, 1], "b": [0, 2, 4, 1, 7]}
    column = {"one field of symbols": table["a"], "two fields": table, "different families": [0.5, 1, 2, 3, 9]}
    column["tied fields"] = [(0, 1, 0), (1, 1, 0), (1, 1, 1)]
    column["sequences"] = [[1], [2, 3], [], [4, 0, 2], [7]]
    with pytest.raises(SpecError, match=message):
        bm.fit_moments(spec, column.get(why, table["b"]))


def test_fields_that_are_too_few_for_the_components():
    rows = np.random.default_rng(0).integers(0, 2, (200, 3))
    with pytest.raises(MomentsError, match="3 fields do not tell 5 components apart"):
        bm.fit_moments(M(C(*[bm.Bernoulli()] * 3), 5), rows)


def test_another_word_for_a_start():
    with pytest.raises(ValueError, match='"moments" or a dict'):
        bm.fit_em(M(bm.Poisson(), 2), np.array([0, 1, 5, 9]), start="kmeans")


def test_moments_of_another_number_or_without_a_spread_are_refused():
    with pytest.raises(ValueError, match=r"orders 1 to 5, and the sixth to rank by, are needed, not shape \(4,\)"):
        two_normals([0.0, 1.0, 0.0, 3.0])
    with pytest.raises(ValueError, match=r"6 are needed, not shape \(4,\)"):
        equal_sigma_normals([0.0, 5.0, 0.0, 43.0], 3)
    point = 3.0 ** np.arange(1, 7)
    with pytest.raises(MomentsError, match="the variance is 0"):
        two_normals(point)
    with pytest.raises(MomentsError, match="the variance is 0"):
        equal_sigma_normals(point, 3)


@pytest.mark.parametrize("sigma", [None, bm.Shared()])
def test_rows_of_one_value_have_no_variance_to_explain_Normal(sigma):
    spec = M(bm.Normal(sigma=sigma) if sigma is not None else bm.Normal(), 2)
    with pytest.raises(MomentsError, match="every value is 3, so there is no variance to explain"):
        bm.fit_moments(spec, np.full(20, 3.0))


@pytest.mark.parametrize("mu", [0.0, bm.Shared()])
def test_means_that_are_given_or_shared_are_not_of_this_method_Normal(mu):
    with pytest.raises(SpecError, match=r"and all of their means; not these 2. Share sigma"):
        bm.fit_moments(M(bm.Normal(mu=mu), 2), np.array([0.0, 1, 2, 5, 9]))


def test_latent_classes_need_three_fields_that_depend_on_one_another():
    every = np.array(list(product([0, 1], repeat=3)))
    with pytest.raises(MomentsError, match="three fields or more, not 2"):
        latent_class(every[:, :2], 2)
    with pytest.raises(MomentsError, match="those of no 2 components"):
        latent_class(every, 2, random_seed=1)  # each pattern once: the fields are independent
    with pytest.raises(MomentsError, match="those of no 2 components"):
        bm.fit_moments(M(C(*[bm.Bernoulli()] * 3), 2), every, random_seed=1)


def test_rows_without_a_missing_cell_must_outnumber_the_components():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc"))
    table.loc[2:, "b"] = np.nan
    with pytest.raises(MomentsError, match="only 2 rows have no missing cell, too few for moments of 2 components"):
        bm.fit_moments(M(C(a=bm.Normal(), b=bm.Normal(), c=bm.Normal()), 2), table)


def test_there_may_be_fewer_splits_than_asked_for():
    """Of 16 components one view of 16 values stands alone, and one of 9 beside one of 2: one order in six is that."""
    rng = np.random.default_rng(0)
    views = [np.eye(size)[rng.integers(size, size=3000)] for size in (16, 9, 2, 2)]
    found = list(random_splits(views, 16, rng, 60))
    assert 20 < len(found) < 60  # 240 orders are tried
    for split in found:
        one, other, last = sorted(split.groups, key=lambda group: 0 in group, reverse=True)
        assert one == (0,)
        assert 1 in (*other, *last)
        assert split.products


def test_a_fixed_parameter_of_a_field_has_no_standard_error():
    rng = np.random.default_rng(3)
    z = rng.random(4000) < 0.4
    table = {
        "a": rng.normal(np.where(z, 3.0, 0.0), 1.0),
        "b": rng.poisson(np.where(z, 6.0, 2.0)),
        "c": rng.random(4000) < np.where(z, 0.8, 0.3),
    }
    spec = M(C(a=bm.Normal(sigma=1.0), b=bm.Poisson(), c=bm.Bernoulli()), 2)
    fit = bm.fit_moments(spec, table, random_seed=1)
    np.testing.assert_allclose(fit.params["a_mu"], [0, 3], atol=0.2)
    np.testing.assert_array_equal(fit.params["a_sigma"], 1.0)
    assert "a_sigma" not in fit.posterior


def test_newtons_method_stays_where_derivatives_overflow():
    start = np.array([177.25])  # exp(709) is a number, and four times it is none
    theta, residual = polish(lambda t: np.exp(4 * t), start, np.ones(1))
    np.testing.assert_array_equal(theta, start)
    assert not residual < 1


def test_the_nearest_point_of_a_hull_by_few_steps_is_a_point_of_it():
    corners = np.random.default_rng(2).normal(size=(40, 6)) + 1.0

    def oracle(direction):
        lowest = int((corners @ direction).argmin())
        return lowest, corners[lowest]

    exact = np.linalg.norm(nnls(np.vstack([corners.T, np.full(40, 1e4)]), np.append(np.zeros(6), 1e4))[0] @ corners)
    distances = []
    for steps in (1, 3, 500):
        labels, weights = mixing.nearest_in_hull(oracle, 6, steps)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        distances.append(np.linalg.norm(weights @ corners[labels]))
    assert distances[0] > distances[1] > distances[2] == pytest.approx(exact, rel=1e-6)


def test_two_normals_come_in_ascending_order_wherever_newton_ends_Normal():
    """Of five rows two answers exist, and to one of them Newton's steps lead past where the means are equal."""
    x = np.random.default_rng(1677198862).standard_t(3, size=5)
    moments = raw_moments(x, np.full(5, 0.2), 6)
    for found in two_normals(moments):
        assert found["mu"][0] <= found["mu"][1]
        own = normals.normal_moments(found["mu"], found["sigma"] ** 2, 5) @ found["weights"]
        np.testing.assert_allclose(own, moments[:5], rtol=1e-6)


def test_moments_of_four_points_are_not_taken_for_five_normals_Normal():
    """Rounding decides which of the errors it is, or for some rows that there is an answer: then it has the moments."""
    answers, refused = 0, []
    for seed in range(60):
        x = np.random.default_rng(seed).integers(0, 4, 36) + 0.0
        moments = raw_moments(x, np.full(36, 1 / 36), 10)
        try:
            found = equal_sigma_normals(moments, 5)
        except MomentsError as error:
            refused.append(str(error))
            continue
        answers += 1
        own = normals.normal_moments(found["mu"], found["sigma"] ** 2, 10) @ found["weights"]
        np.testing.assert_allclose(own, moments, rtol=1e-5)
    assert answers < 12
    assert all("Use fewer components" in message for message in refused)
