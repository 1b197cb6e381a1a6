"""Labels kept in the model: the complete-data density, and the same posterior as with the labels summed out."""

from __future__ import annotations

import warnings

import arviz_stats as azs
import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.compilation import QuickFunction
from bayesmix.data import read
from tests.structure.trees import COLUMNS, TREES, over


def logp_at(model, values):
    """Log density of a model at values of its variables by name, labels included; Jacobians left out."""
    inputs, given = [], []
    for rv in model.free_RVs:
        inputs.append(model.rvs_to_values[rv])
        transform = model.rvs_to_transforms[rv]
        value = np.asarray(values[rv.name])
        if transform is not None:
            value = QuickFunction([], transform.forward(value, *rv.owner.inputs))()
        given.append(value)
    return float(QuickFunction(inputs, model.logp(jacobian=False))(*given))


MU, SIGMA, W = np.array([-1.0, 1.5]), np.array([0.7, 1.2]), np.array([0.3, 0.7])


def prior_of(spec, table, params):
    bound = bind(spec, read(table))
    assert set(params) == set(bound.sampled_slots)
    return bound.log_prior(params)


def test_logp_is_the_complete_data_density_Mixture_Normal():
    x, z = np.array([0.3, -1.2, 2.5]), np.array([0, 0, 1])
    spec = bm.Mixture(bm.Normal(), 2)
    model = bm.build_model(spec, x, labels="explicit", initval=None)
    params = {"weights": W, "mu": MU, "sigma": SIGMA}
    expected = np.log(W[z]).sum() + stats.norm.logpdf(x, MU[z], SIGMA[z]).sum() + prior_of(spec, x, params)
    np.testing.assert_allclose(logp_at(model, {**params, "label": z}), expected, rtol=1e-8)
    assert model.named_vars_to_dims["label"] == ("row",)


def test_logp_is_the_complete_data_density_HierarchicalMixture_Normal():
    rows, z = [[0.3, -1.2], [2.5], [], [0.9, None]], np.array([0, 1, 1, 0])
    topics, tau = np.array([0, 1, 1, 0, 1]), np.array([[0.2, 0.8], [0.6, 0.4]])
    spec = bm.HierarchicalMixture(bm.Normal(), 2, 2, length=bm.Poisson())
    model = bm.build_model(spec, rows, labels="explicit", initval=None)
    rate, owner = np.array([1.0, 2.0]), np.array([0, 0, 1, 3, 3])
    params = {"weights": W, "topic_weights": tau, "topic_mu": MU, "topic_sigma": SIGMA, "length_mu": rate}
    x = np.array([0.3, -1.2, 2.5, 0.9])
    expected = prior_of(spec, rows, params)
    expected += np.log(W[z]).sum() + stats.poisson.logpmf([2, 1, 0, 2], rate[z]).sum()
    expected += np.log(tau[z[owner], topics]).sum()
    expected += stats.norm.logpdf(x, MU[topics[:4]], SIGMA[topics[:4]]).sum()
    np.testing.assert_allclose(logp_at(model, {**params, "label": z, "sublabel": topics}), expected, rtol=1e-8)
    assert model.named_vars_to_dims["label"] == ("row",)
    assert model.named_vars_to_dims["sublabel"] == ("x_element",)


def test_logp_is_the_complete_data_density_JointMixture():
    x, y = [0.3, -1.2, None], [2, 0, 7]
    z, v, tau = np.array([0, 1, 1]), np.array([2, 0, 1]), np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    rate = np.array([0.5, 3.0, 8.0])
    spec, table = bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3)), {"x": x, "y": y}
    model = bm.build_model(spec, table, labels="explicit", initval=None)
    params = {"weights": W, "transition": tau, "x_mu": MU, "x_sigma": SIGMA, "y_mu": rate}
    expected = prior_of(spec, table, params) + np.log(W[z]).sum() + np.log(tau[z, v]).sum()
    expected += stats.norm.logpdf([0.3, -1.2], MU[z[:2]], SIGMA[z[:2]]).sum() + stats.poisson.logpmf(y, rate[v]).sum()
    np.testing.assert_allclose(logp_at(model, {**params, "label": z, "y_label": v}), expected, rtol=1e-8)


def test_logp_is_the_complete_data_density_of_different_components():
    x, z = np.array([0.3, 1.2, 2.5]), np.array([1, 0, 2])
    spec = bm.Mixture([bm.Exponential(), bm.LogNormal(), bm.Exponential()])
    model = bm.build_model(spec, x, labels="explicit", initval=None)
    w = np.array([0.2, 0.5, 0.3])
    params = {
        "weights": w, "exponential_scale": np.array([0.5, 4.0]), "log_normal_mu": np.array([0.3]),
        "log_normal_sigma": np.array([0.8]),
    }  # fmt: skip
    expected = prior_of(spec, x, params) + np.log(w[z]).sum()
    expected += stats.lognorm.logpdf(0.3, 0.8, scale=np.exp(0.3)) + stats.expon.logpdf([1.2, 2.5], scale=[0.5, 4]).sum()
    np.testing.assert_allclose(logp_at(model, {**params, "label": z}), expected, rtol=1e-8)


@over([tree for tree in TREES if "Mixture" in tree.name])
def test_labels_have_the_dims_of_their_rows_and_start_inside_the_support(tree):
    model = bm.build_model(tree.spec, tree.table, labels="explicit")
    sizes = {dim: len(labels) for dim, labels in model.coords.items()}
    labels = [rv for rv in model.free_RVs if rv.name.endswith("label")]
    assert labels
    for rv in labels:
        start = model.rvs_to_initial_values[rv]
        assert np.shape(start) == tuple(sizes[dim] for dim in model.named_vars_to_dims[rv.name]), rv.name
    values = {rv.name: model.rvs_to_initial_values[rv] for rv in model.free_RVs}
    assert np.isfinite(logp_at(model, values))


def test_the_sum_over_labels_is_the_marginal_density_Mixture_Poisson():
    x = np.array([2, 0, 7])
    spec = bm.Mixture(bm.Poisson(), 2)
    params = {"weights": W, "mu": np.array([1.0, 5.0])}
    explicit = bm.build_model(spec, x, labels="explicit", initval=None)
    marginal = bm.build_model(spec, x, initval=None, likelihood="graph")
    every = [np.array(z) for z in np.ndindex(2, 2, 2)]
    total = np.logaddexp.reduce([logp_at(explicit, {**params, "label": z}) for z in every])
    np.testing.assert_allclose(total, logp_at(marginal, params), rtol=1e-10)


def test_a_spec_without_mixtures_has_no_labels():
    with pytest.raises(bm.SpecError, match="no mixture"):
        bm.build_model(bm.Normal(), [1.0, 2.0], labels="explicit")
    model = bm.build_model(bm.Mixture(bm.Normal(), 2), [1.0, 2.0, 4.0], labels="explicit", initval=None)
    with pytest.raises(bm.DataError, match="keeps its rows"):
        bm.set_data(model, [1.0])


@pytest.mark.slow
def test_gibbs_over_labels_agrees_with_the_labels_summed_out_Normal():
    """60 rows in three groups that overlap a little: means within three Monte-Carlo errors, label frequencies too."""
    rng = np.random.default_rng(6)
    z = np.repeat([0, 1, 2], 20)
    x = rng.normal(np.array([-6.0, 0.0, 6.0])[z], 1.5)
    spec = bm.Mixture(bm.Normal(), 3)
    posteriors = {}
    for labels, draws in (("marginal", 1000), ("explicit", 3000)):
        model = bm.build_model(spec, x, labels=labels, order="mu")
        with model, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posteriors[labels] = pm.sample(
                draws, tune=1000, chains=2, cores=1, nuts_sampler="pymc", progressbar=False, random_seed=3
            )["posterior"].to_dataset()
    a, b = posteriors["marginal"], posteriors["explicit"]
    for name in ("weights", "mu", "sigma"):
        error = np.hypot(azs.mcse(a[name]).values, azs.mcse(b[name]).values)
        gap = np.abs(a[name].mean(("chain", "draw")).values - b[name].mean(("chain", "draw")).values)
        assert (gap <= 3 * error).all(), name
    # frequencies of the labels against the responsibilities at the marginal draws
    p = {name: a[name].values.reshape(-1, 3)[:, None] for name in ("weights", "mu", "sigma")}
    joint = np.log(p["weights"]) + stats.norm.logpdf(x[:, None], p["mu"], p["sigma"])
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=2, keepdims=True)).mean(0)
    for k in range(3):
        share = (b["label"] == k).astype(float)
        error = np.nan_to_num(azs.mcse(share).values, nan=0.0)
        gap = np.abs(share.mean(("chain", "draw")).values - resp[:, k])
        # 180 comparisons: four errors, and a draw's worth where a label never changed
        assert (gap <= 4 * error + 0.01).all()


@pytest.mark.slow
def test_gibbs_over_the_labels_of_rows_and_elements_HierarchicalMixture():
    """A short run of PyMC's own: every label's share is a probability near its responsibility at the mode."""
    rows = COLUMNS["st"][4:12] + COLUMNS["st"][31:39]
    spec = bm.HierarchicalMixture(bm.Normal(), 2, 2)
    model = bm.build_model(spec, rows, labels="explicit")
    with model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = pm.sample(
            300, tune=300, chains=1, nuts_sampler="pymc", progressbar=False, random_seed=3,
            compute_convergence_checks=False,
        )  # fmt: skip
    fit = bm.fit_em(spec, rows, random_seed=0)
    topics = fit.responsibilities(of="topic_weights")
    share = idata["posterior"]["sublabel"].mean(("chain", "draw")).values
    certain = topics.max(1) > 0.999
    assert certain.sum() > 20
    near = np.abs(share - topics[:, 1])[certain].max()
    other = np.abs(share - topics[:, 0])[certain].max()
    assert min(near, other) < 0.2  # the topics have no order
