"""Draws, new tables, files and missing cells of every structure node."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest

import bayesmix as bm
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QUICK
from bayesmix.inference.target import Target
from tests.structure.trees import COLUMNS, N_ROWS, TREES, C, M, O, S, over

UNKNOWN_POSITION = [
    # the position of the spike is not given here
    bm.Mixture([bm.SpikeAndSlab(), bm.Poisson()]),
]


def quick(spec, table, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        warnings.simplefilter("ignore", bm.DegenerateWarning)
        return bm.fit_em(spec, table, n_starts=2, random_seed=1, **kwargs)


def rows_of(table, rows):
    if isinstance(table, dict):
        return {name: [values[i] for i in rows] for name, values in table.items()}
    return [table[i] for i in rows]


def drawn(model, seed=1):
    """One draw of every observed variable, op by op."""
    return dict(zip([rv.name for rv in model.observed_RVs], pytensor.function([], model.observed_RVs, mode=QUICK)()))


def observed_of(model):
    values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    return dict(zip([rv.name for rv in model.observed_RVs], pytensor.function([], values, mode=QUICK)()))


@over(TREES)
def test_draws_of_the_model_have_the_shape_of_the_table(tree):
    model = bm.build_model(tree.spec, tree.table, initval=None)
    table = observed_of(model)
    for name, values in drawn(model).items():
        assert values.shape == table[name].shape, name
        assert values.dtype.kind == table[name].dtype.kind, name
    fewer = rows_of(tree.table, [2, 0, 26, 30, 5])
    bm.set_data(model, fewer)
    table = observed_of(model)
    sizes = {dim: len(labels) for dim, labels in model.coords.items()}
    for name, values in drawn(model).items():
        assert values.shape == table[name].shape, name
        assert values.shape == tuple(sizes[dim] for dim in model.named_vars_to_dims[name]), name


@over(TREES)
@pytest.mark.slow
def test_swapped_data_have_the_density_of_a_new_encoding(tree):
    fit = quick(tree.spec, tree.table)
    fewer = rows_of(tree.table, [2, 0, 26, 30, 5, 5])
    expected = fit.bound.log_density(fit.params, fit.bound.encode(fewer)).sum() + fit.bound.log_prior(fit.params)
    for kind in ("fused", "graph"):
        model = model_of(fit.bound, fit.encoded, initval=None, likelihood=kind)
        bm.set_data(model, fewer)
        target = Target(model, variables_at(fit.bound, fit.params), jacobian=False)
        np.testing.assert_allclose(target(target.start)[0], expected, rtol=1e-7, err_msg=kind)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")  # of PyMC's own draws of vectors
@over(TREES)
def test_pymc_samples_prior_and_posterior_predictive(tree):
    fit = quick(tree.spec, tree.table)
    model = model_of(fit.bound, fit.encoded, initval=None)
    prior = pm.sample_prior_predictive(2, model=model, random_seed=1)
    assert set(prior["prior_predictive"].data_vars) == {rv.name for rv in model.observed_RVs}
    if fit.bound.free_slots:
        after = pm.sample_posterior_predictive(fit.idata, model=model, random_seed=1, progressbar=False)
        for name, values in after["posterior_predictive"].data_vars.items():
            assert values.dims == ("chain", "draw", *model.named_vars_to_dims[name])


def test_draws_of_different_sequences_keep_to_their_component():
    """Components of sequences that differ: the elements of a row all come from that row's component."""
    spec = M([S(bm.Normal(mu=-50.0, sigma=1.0)), S(bm.Normal(mu=50.0, sigma=1.0))], weights=[0.3, 0.7])
    rows = [[0.0] * n for n in (3, 0, 1, 5)] * 200
    rows[0][1] = 1.0
    values = drawn(bm.build_model(spec, rows, initval=None))
    owner = np.repeat(np.arange(800), values["length"])
    high = np.bincount(owner, values["x"] > 0, 800)
    assert set(np.unique(high / np.maximum(values["length"], 1))) == {0.0, 1.0}
    filled = values["length"] > 0
    assert abs((high[filled] > 0).mean() - 0.7) < 4 * np.sqrt(0.21 / filled.sum())


def test_draws_of_a_chain_follow_its_transitions():
    spec = bm.MarkovChain(initial=[0.2, 0.8], transition=[[0.9, 0.1], [0.4, 0.6]])
    chains = [list("ab") * 5] * 400 + [list("a"), []]
    codes = drawn(bm.build_model(spec, chains, initval=None))["x"]
    assert (codes[-1] == -1).all()
    assert (codes[-2, 1:] == -1).all()
    codes = codes[:400]
    before, after = codes[:, :-1].ravel(), codes[:, 1:].ravel()
    for source, chance in ((0, 0.1), (1, 0.6)):
        seen = after[before == source]
        assert abs(seen.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / len(seen))
    assert abs(codes[:, 0].mean() - 0.8) < 4 * np.sqrt(0.16 / 400)


@pytest.mark.parametrize(
    "child",
    [bm.Normal(mu=2.0, sigma=1.0), M(bm.Normal(mu=2.0, sigma=1.0), 2, weights=[0.5, 0.5])],
    ids=["Normal", "Mixture-Normal"],
)
def test_draws_of_Optional_are_marked_as_missing(child):
    x = np.where(np.arange(1000) % 3 == 0, np.nan, np.arange(1000.0))
    values = drawn(bm.build_model(O(child, p=0.25), x, initval=None))
    np.testing.assert_array_equal(np.isnan(values["x"]), values["x_missing"] == 1)
    assert abs(values["x_missing"].mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)


@over([*TREES])
def test_a_sample_can_be_fitted_again(tree):
    fit = quick(tree.spec, tree.table)
    sample = fit.sample(60, random_seed=2)
    assert isinstance(sample, pd.DataFrame)
    assert len(sample) == 60
    again = quick(tree.spec, sample, max_iter=5)
    assert np.isfinite(again.loglik)
    assert again.bound.slots.keys() == fit.bound.slots.keys()
    # the fit knows its own draws, where it keeps to the symbols it has seen
    assert np.isfinite(fit.log_density(sample)).all()


def test_samples_have_the_moments_of_the_model_HierarchicalMixture():
    spec = bm.HierarchicalMixture(bm.Normal(), 2, 2, length=bm.Poisson())
    fit = quick(spec, COLUMNS["st"])
    p = fit.params
    sample = fit.sample(4000, random_seed=3)["x"]
    lengths = np.array([len(row) for row in sample])
    mean = p["weights"] @ p["length_mu"]
    sd = np.sqrt(mean + p["weights"] @ (p["length_mu"] - mean) ** 2)
    assert abs(lengths.mean() - mean) < 4 * sd / np.sqrt(4000)
    # a row's kind decides its topics and its length: the mean of the sums
    expected = (p["weights"] * p["length_mu"]) @ (p["topic_weights"] @ p["topic_mu"])
    sums = np.array([sum(row) for row in sample])
    assert abs(sums.mean() - expected) < 4 * sums.std() / np.sqrt(4000)


@over(TREES)
def test_a_saved_fit_is_the_fit(tree, tmp_path):
    fit = quick(tree.spec, tree.table)
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert repr(again.spec) == repr(fit.spec)
    np.testing.assert_array_equal(again.log_density(tree.table), fit.log_density())
    for name, value in fit.params.items():
        np.testing.assert_array_equal(again.params[name], value, err_msg=name)
    assert again.bound.slots.keys() == fit.bound.slots.keys()


def test_a_saved_fit_with_an_unknown_position(tmp_path):
    fit = quick(UNKNOWN_POSITION[0], COLUMNS["k"])
    fit.save(tmp_path / "fit.zip")
    assert bm.load(tmp_path / "fit.zip").params["spike_and_slab_k"].item() == fit.params["spike_and_slab_k"].item() == 7


def is_gap(cell):
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return True
    if isinstance(cell, tuple):
        return any(map(is_gap, cell))
    return isinstance(cell, list) and any(map(is_gap, cell))


@over(TREES)
def test_imputed_tables_have_no_gaps(tree):
    fit = quick(tree.spec, tree.table)
    imputed = fit.impute(n_draws=30, random_seed=1)
    columns = tree.table if isinstance(tree.table, dict) else {"x": tree.table}
    if not any(is_gap(cell) for column in columns.values() for cell in column):
        assert imputed.draws == {}
        return
    imputed.summary()
    for draw in (None, 3):
        filled = imputed.table(draw)
        assert len(filled) == N_ROWS
        for (name, before), after in zip(columns.items(), [filled[c] for c in filled]):
            cells = after.tolist()
            assert not any(map(is_gap, cells)), name
            for old, new in zip(before, cells):
                if not is_gap(old) and not isinstance(old, np.ndarray):
                    assert new == old, name
        filled.columns = list(columns)
        # whole tables are tables: they can be scored
        data = {name: filled[name].tolist() for name in columns}
        whole = data if isinstance(tree.table, dict) else data["x"]
        assert np.isfinite(fit.log_density(whole)).all()


def test_imputed_elements_have_the_mean_of_their_rows_posterior_HierarchicalMixture():
    """E[x | row] = Σ_m r_m Σ_k τ_mk μ_k for an element that is missing, r from the elements that are not."""
    fit = quick(bm.HierarchicalMixture(bm.Normal(), 2, 2), COLUMNS["st"])
    p = fit.params
    rows = [[-6.0, None, -5.0], [6.0, 5.5, 7.0, None], [], [None]]
    imputed = fit.impute(rows, n_draws=4000, random_seed=1)
    resp = fit.responsibilities(rows)
    expected = (resp @ (p["topic_weights"] @ p["topic_mu"]))[[0, 1, 3]]
    np.testing.assert_allclose(imputed.means["x[]"], expected, rtol=1e-10)
    np.testing.assert_array_equal(imputed.rows["x[]"], [0, 1, 3])
    np.testing.assert_array_equal(imputed.positions["x[]"], [1, 3, 0])
    found = imputed.draws["x[]"]
    assert (np.abs(found.mean(0) - expected) < 4 * found.std(0) / np.sqrt(4000)).all()


def test_imputed_fields_of_a_joint_mixture_are_predicted_from_the_other():
    """E[y | x] = Σ_k P(k | x) Σ_m τ_km μ_m."""
    spec = bm.JointMixture(y=(bm.Normal(), 2), m=(bm.Poisson(), 2))
    fit = quick(spec, {"y": COLUMNS["y"], "m": COLUMNS["m"]})
    p = fit.params
    table = {"y": [-4.0, 6.0, 1.0], "m": [None, None, 3]}
    imputed = fit.impute(table, n_draws=2000, random_seed=1)
    expected = (fit.responsibilities(table) @ p["transition"] @ p["m_mu"])[:2]
    np.testing.assert_allclose(imputed.means["m"], expected, rtol=1e-10)
    assert (np.abs(imputed.draws["m"].mean(0) - expected) < 4 * imputed.draws["m"].std(0) / np.sqrt(2000)).all()


def test_labels_of_a_tied_mixture_are_each_fields_own():
    """They were added up: the rows summed to 2."""
    mixture = M(bm.Normal(), 2, tie="both")
    table = {"x": COLUMNS["y"], "y": COLUMNS["y"][::-1]}
    fit = quick(C(x=mixture, y=mixture), table)
    a, b = fit.responsibilities(of="x"), fit.responsibilities(of="y")
    np.testing.assert_allclose(a.sum(1), np.ones(N_ROWS))
    np.testing.assert_allclose(b, a[::-1])
