"""`Fit`: every method, for a point estimate and for a posterior of several draws made by hand."""

from __future__ import annotations

import itertools
import json
import re
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix import predictive
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.fit import Status, make_fit

_rng = np.random.default_rng(6)
_N = 40
_GROUP = np.repeat([0, 1], _N // 2)
FRAME = pd.DataFrame(
    {
        "x": (np.array([-1.5, 2.0])[_GROUP] + _rng.normal(size=_N)).round(2),
        "n": pd.array(_rng.poisson(np.array([2.0, 9.0])[_GROUP]), "Int64"),
        "c": np.array(["red", "green"], object)[(_rng.random(_N) < np.array([0.2, 0.7])[_GROUP]).astype(int)],
        "b": pd.array(_rng.random(_N) < np.array([0.2, 0.9])[_GROUP], "boolean"),
    },
    index=[f"r{i}" for i in range(_N)],
)
for _column, _rows in {"x": [0, 22, 5], "n": [1, 5], "c": [2, 30, 5], "b": [3]}.items():
    FRAME.iloc[_rows, FRAME.columns.get_loc(_column)] = None if _column == "c" else pd.NA if _column != "x" else np.nan
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical(), b=bm.Bernoulli()), 2)


def point(spec=SPEC, data=FRAME, **kwargs):
    return bm.fit_em(spec, data, n_starts=3, random_seed=1, **kwargs)


def several(n_chains=2, n_draws=3, spec=SPEC, data=FRAME, **kwargs):
    """A posterior of draws that lie apart, so that an average over draws is not the value at an average."""
    table = read(data)
    bound = bind(spec, table)
    rng = np.random.default_rng(7)
    shape = (n_chains, n_draws)
    draws = {
        "weights": rng.dirichlet([4.0, 4.0], shape),
        "x_mu": np.array([-1.5, 2.0]) + 0.8 * rng.normal(size=(*shape, 2)),
        "x_sigma": np.exp(0.4 * rng.normal(size=(*shape, 2))),
        "n_mu": np.array([2.0, 9.0]) * np.exp(0.3 * rng.normal(size=(*shape, 2))),
        "c_p": rng.dirichlet([3.0, 3.0], (*shape, 2)),
        "b_p": rng.beta(3.0, 3.0, (*shape, 2)),
    }
    fit = make_fit(
        bound,
        draws,
        table=table,
        encoded=bound.encode(table),
        row_weights=None,
        status=Status("hand", True, "made"),
        **kwargs,
    )
    return fit, draws


def oracle_joint(params, frame=FRAME):
    """Log joint densities of rows and components (N, K) by scipy, missing cells left out."""
    out = np.log(params["weights"]) + np.zeros((len(frame), 2))
    levels = ["green", "red"]
    for i, (x, n, c, b) in enumerate(frame.itertuples(index=False)):
        if not pd.isna(x):
            out[i] += stats.norm.logpdf(float(x), params["x_mu"], params["x_sigma"])
        if not pd.isna(n):
            out[i] += stats.poisson.logpmf(int(n), params["n_mu"])
        if not pd.isna(c):
            out[i] += np.log(params["c_p"][:, levels.index(c)])
        if not pd.isna(b):
            out[i] += stats.bernoulli.logpmf(int(b), params["b_p"])
    return out


def draw_list(draws):
    return [{name: value[c, d] for name, value in draws.items()} for c in range(2) for d in range(3)]


# ------------------------------------------------------------------- shapes and values


def test_a_point_estimate_is_a_posterior_of_one_draw():
    fit = point()
    assert fit.posterior.sizes["chain"] == fit.posterior.sizes["draw"] == 1
    assert fit.posterior["x_mu"].dims == ("chain", "draw", "component")
    assert fit.posterior["c_p"].dims == ("chain", "draw", "component", "c_symbol")
    assert fit.posterior["c_symbol"].values.tolist() == ["green", "red"]
    assert set(fit.idata.children) >= {"posterior", "observed_data", "log_likelihood"}
    assert fit.spec is SPEC
    assert "em" in repr(fit)


def test_params_are_posterior_means():
    fit, draws = several()
    for name, value in draws.items():
        np.testing.assert_allclose(fit.params[name], value.mean((0, 1)), rtol=1e-13)


def test_params_include_fixed_ones():
    fit = point(bm.Mixture(bm.Normal(sigma=1.25), 2), FRAME["x"])
    np.testing.assert_array_equal(fit.params["sigma"], [1.25, 1.25])
    assert "sigma" not in fit.posterior


def test_loglik_is_the_mean_over_draws():
    fit, draws = several()
    logliks = [np.logaddexp.reduce(oracle_joint(params), axis=1).sum() for params in draw_list(draws)]
    np.testing.assert_allclose(fit.loglik, np.mean(logliks), rtol=1e-12)
    pointwise = fit.idata["log_likelihood"]["row_loglik"]
    assert pointwise.dims == ("chain", "draw", "row")
    np.testing.assert_allclose(pointwise.sum("row").values.ravel(), logliks, rtol=1e-12)
    lean, _ = several(log_likelihood=False)
    assert "log_likelihood" not in lean.idata.children
    np.testing.assert_allclose(lean.loglik, fit.loglik, rtol=1e-12)


def test_loglik_counts_row_weights():
    weights = np.arange(_N) % 3 + 1.0
    fit = point(row_weights=weights)
    np.testing.assert_allclose(fit.loglik, weights @ fit.log_density(), rtol=1e-12)
    np.testing.assert_array_equal(fit.idata["constant_data"]["row_weights"].values, weights)


def test_log_density_is_the_log_of_the_mean_density():
    fit, draws = several()
    each = np.array([np.logaddexp.reduce(oracle_joint(params), axis=1) for params in draw_list(draws)])
    np.testing.assert_allclose(fit.log_density(per_draw=True), each, rtol=1e-11)
    np.testing.assert_allclose(fit.log_density(), np.log(np.exp(each).mean(0)), rtol=1e-11)


def test_responsibilities_average_the_draws():
    fit, draws = several()
    joints = [oracle_joint(params) for params in draw_list(draws)]
    each = np.array([np.exp(j - np.logaddexp.reduce(j, axis=1, keepdims=True)) for j in joints])
    per_draw = fit.responsibilities(per_draw=True)
    np.testing.assert_allclose(per_draw, each, rtol=1e-10, atol=1e-14)
    found = fit.responsibilities()
    np.testing.assert_allclose(found, each.mean(0), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-13)
    np.testing.assert_array_equal(fit.predict(), each.mean(0).argmax(1))


def test_predictions_of_other_tables():
    fit, _ = several()
    part = FRAME.iloc[[3, 20, 7]]
    np.testing.assert_allclose(fit.log_density(part), fit.log_density()[[3, 20, 7]], rtol=1e-13)
    np.testing.assert_allclose(fit.responsibilities(part), fit.responsibilities()[[3, 20, 7]], rtol=1e-13)
    assert fit.predict(part).tolist() == fit.predict()[[3, 20, 7]].tolist()
    # a row of which nothing is known has the weights themselves
    blank = pd.DataFrame({"x": [np.nan], "n": [None], "c": [None], "b": [None]})
    np.testing.assert_allclose(fit.responsibilities(blank)[0], fit.params["weights"], rtol=1e-12)
    np.testing.assert_allclose(fit.log_density(blank), 0, atol=1e-12)


def test_fewer_draws_on_request():
    fit, _ = several()
    assert fit.log_density(per_draw=True, n_draws=2).shape == (2, _N)
    assert fit.responsibilities(per_draw=True, n_draws=4).shape == (4, _N, 2)


def test_no_components_to_tell_apart():
    fit = point(bm.Composite(x=bm.Normal(), n=bm.Poisson()), FRAME[["x", "n"]])
    for method in (fit.responsibilities, fit.predict):
        with pytest.raises(bm.SpecError, match=r"Composite.*Mixture"):
            method()
    assert fit.log_density().shape == (_N,)


def test_unseen_symbols():
    fit, _ = several()
    new = pd.DataFrame({"x": [0.0, 1.0], "n": [2, 3], "c": ["red", "violet"], "b": [True, False]})
    for method in (fit.log_density, fit.responsibilities, fit.predict, fit.impute):
        with pytest.raises(bm.DataError, match="row 1 is 'violet'"):
            method(new)
    hidden = new.assign(c=["red", None])
    np.testing.assert_array_equal(fit.log_density(new, unseen="ignore"), fit.log_density(hidden))
    np.testing.assert_array_equal(fit.responsibilities(new, unseen="ignore"), fit.responsibilities(hidden))
    imputed = fit.impute(new, unseen="ignore", n_draws=20, random_seed=1)
    assert imputed.rows["c"].tolist() == [1]
    assert set(imputed.draws["c"].ravel()) <= {"red", "green"}


# ------------------------------------------------------------------- impute


def test_imputed_draws_are_the_analytic_mixture_of_component_means():
    fit, draws = several()
    imputed = fit.impute(n_draws=3_000, random_seed=2)
    assert imputed.rows["x"].tolist() == [0, 5, 22]
    assert imputed.draws["x"].shape == (3_000, 3)
    expected = {field: [] for field in "xncb"}
    for params in draw_list(draws):
        joint = oracle_joint(params)
        resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
        expected["x"].append(resp @ params["x_mu"])
        expected["n"].append(resp @ params["n_mu"])
        expected["c"].append(resp @ params["c_p"][:, 0])
        expected["b"].append(resp @ params["b_p"])
    seen = {field: values.astype(float) for field, values in imputed.draws.items() if field != "c"}
    seen["c"] = (imputed.draws["c"] == "green").astype(float)
    for field, values in seen.items():
        mean = np.mean(expected[field], axis=0)[imputed.rows[field]]
        error = values.std(0, ddof=1) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - mean) < 4 * error).all(), field


def test_imputed_cells_of_one_row_are_of_one_component():
    """Row 5 lacks x, n and c. Given the label they are independent; without it, x and n go together."""
    fit = point(bm.Mixture(bm.Composite(x=bm.Normal(sigma=0.1), n=bm.Poisson()), 2), FRAME[["x", "n"]])
    imputed = fit.impute(n_draws=2_500, random_seed=3)
    x = imputed.draws["x"][:, imputed.rows["x"].tolist().index(5)]
    n = imputed.draws["n"][:, imputed.rows["n"].tolist().index(5)]
    w, mu_x, mu_n, sigma = (fit.params[name] for name in ("weights", "x_mu", "n_mu", "x_sigma"))
    between = w[0] * w[1] * (mu_x[1] - mu_x[0]) * (mu_n[1] - mu_n[0])
    of_x = w @ sigma**2 + w[0] * w[1] * (mu_x[1] - mu_x[0]) ** 2
    of_n = w @ mu_n + w[0] * w[1] * (mu_n[1] - mu_n[0]) ** 2
    # standard error of a correlation of 2,500 draws is below 1/sqrt(2500) = 0.02
    np.testing.assert_allclose(np.corrcoef(x, n)[0, 1], between / np.sqrt(of_x * of_n), atol=4 * 0.02)


def test_imputed_tables_keep_the_users_values_and_types():
    fit, _ = several()
    imputed = fit.impute(n_draws=50, random_seed=2)
    for draw in (None, 0, 49):
        table = imputed.table(draw)
        assert isinstance(table, pd.DataFrame)
        assert table.index.equals(FRAME.index)
        assert list(table.columns) == list(FRAME.columns)
        assert not table.isna().any().any()
        for column in FRAME:
            present = FRAME[column].notna()
            assert (table[column][present] == FRAME[column][present]).all()
        assert set(table["c"]) <= {"red", "green"}
        assert table["n"].dtype.kind == "i"
        assert table["b"].dtype == FRAME["b"].dtype
    np.testing.assert_allclose(imputed.table()["x"].iloc[0], imputed.draws["x"][:, 0].mean())
    assert imputed.table(7)["x"].iloc[22] == imputed.draws["x"][7, 2]


def test_impute_does_not_touch_the_fit_or_the_users_table():
    frame = FRAME.copy()
    fit, _ = several(data=frame)
    imputed = fit.impute(n_draws=5, random_seed=1)
    imputed.table()
    imputed.table(1)
    pd.testing.assert_frame_equal(frame, FRAME)
    again = fit.impute(n_draws=5, random_seed=1)
    for field, values in imputed.draws.items():
        assert (again.draws[field] == values).all()
    assert again.rows["c"].tolist() == [2, 5, 30]


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "dict", "pandas"])
def test_imputed_tables_keep_the_frame_type(kind):
    plain = {name: [None if pd.isna(cell) else cell for cell in FRAME[name]] for name in FRAME}
    tables = {"polars": pl.DataFrame(plain), "pyarrow": pa.table(plain), "dict": plain, "pandas": FRAME}
    types = {"polars": pl.DataFrame, "pyarrow": pa.Table, "dict": pd.DataFrame, "pandas": pd.DataFrame}
    fit, _ = several(data=tables[kind])
    table = fit.impute(n_draws=5, random_seed=1).table()
    assert type(table) is types[kind]
    rows = (
        table.to_dict("list")
        if isinstance(table, pd.DataFrame)
        else table.to_pydict()
        if kind == "pyarrow"
        else table.to_dict(as_series=False)
    )
    assert all(cell is not None and cell == cell for cells in rows.values() for cell in cells)
    assert rows["c"][0] == plain["c"][0]


def test_imputation_summaries():
    fit, _ = several()
    imputed = fit.impute(n_draws=800, random_seed=4)
    summary = imputed.summary(prob=0.8)
    assert summary.index.names == ["field", "row"]
    assert summary.loc["x"].index.tolist() == ["r0", "r5", "r22"]
    first = imputed.draws["x"][:, 0]
    line = summary.loc[("x", "r0")]
    np.testing.assert_allclose([line["mean"], line["sd"]], [first.mean(), first.std(ddof=1)])
    np.testing.assert_allclose([line["low"], line["high"]], np.quantile(first, [0.1, 0.9]))
    symbol = summary.loc[("c", "r2")]
    share = np.mean(imputed.draws["c"][:, 0] == symbol["mode"])
    assert symbol["mode"] in ("red", "green")
    np.testing.assert_allclose(symbol["p_mode"], share)
    assert share >= 0.5
    assert np.isnan(symbol["mean"])


def test_nothing_missing_nothing_imputed():
    fit = point(bm.Mixture(bm.Normal(), 2), FRAME["x"].dropna())
    imputed = fit.impute(n_draws=5)
    assert imputed.draws == {}
    assert len(imputed.summary()) == 0
    assert "none missing" in repr(imputed)


def test_impute_a_field_inside_a_nested_mixture():
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), n=bm.Poisson()), 2)
    fit = point(spec, FRAME[["x", "n"]])
    p = fit.params
    imputed = fit.impute(n_draws=2_500, random_seed=5)
    # row 0 has n only: the inner weights of x stay what they are, the outer ones follow n
    outer = p["weights"] * stats.poisson.pmf(int(FRAME["n"].iloc[0]), p["n_mu"])
    mean = outer / outer.sum() @ (p["x_weights"] * p["x_mu"]).sum(1)
    values = imputed.draws["x"][:, 0]
    assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values))


def test_impute_vectors_MvNormal():
    points = _rng.normal(size=(_N, 2)) + 5.0 * _GROUP[:, None]
    rows = points.tolist()
    rows[3] = None
    fit = point(bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 2), {"v": rows, "n": FRAME["n"].fillna(3)})
    imputed = fit.impute(n_draws=300, random_seed=1)
    assert imputed.draws["v"].shape == (300, 1, 2)
    resp = fit.responsibilities()[3]
    error = imputed.draws["v"][:, 0].std(0) / np.sqrt(300)
    assert (np.abs(imputed.draws["v"][:, 0].mean(0) - resp @ fit.params["v_mu"]) < 4 * error).all()
    assert len(imputed.summary()) == 2
    table = imputed.table()
    np.testing.assert_allclose(np.asarray(table["v"].iloc[3], float), imputed.draws["v"].mean(0)[0])


def test_a_missing_sequence_gets_the_most_typical_draw():
    """The most frequent of draws that all differ is the one that comes twice: every missing sequence became empty."""
    rng = np.random.default_rng(1)
    cells = [None if i % 20 == 0 else rng.normal(5, 1, 1 + rng.poisson(2)).tolist() for i in range(80)] + [[]] * 8
    spec = bm.Sequence(bm.Normal(), length=bm.Poisson())
    imputed = bm.fit_em(spec, cells, random_seed=1).impute(n_draws=400, random_seed=1)
    filled = imputed.table()["x"]
    for row, draws in zip(imputed.rows["x"], imputed.draws["x"].T):
        median = np.quantile([len(draw) for draw in draws], 0.5, method="lower")
        same = np.array([draw for draw in draws if len(draw) == median])
        apart = (((same[:, None] - same[None]) / same.std(0)) ** 2).sum((1, 2))
        np.testing.assert_array_equal(filled[row], same[apart.argmin()])
    assert all(len(filled[row]) in (2, 3) for row in imputed.rows["x"])
    assert np.concatenate([filled[row] for row in imputed.rows["x"]]) == pytest.approx(5, abs=0.8)


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        (bm.MarkovChain(), [list("abab")] * 30 + [list("ba")] * 2),
        (bm.Sequence(bm.Categorical()), [list("aa")] * 30 + [["b"]]),
        (bm.Sequence(bm.Composite(n=bm.Poisson(), s=bm.BernoulliSet())), [[{"n": 0, "s": {"u"}}]] * 30 + [[]]),
        (bm.Sequence(bm.Sequence(bm.Categorical())), [[["a"], ["a", "a"]]] * 30 + [[["b"]]]),
        (bm.Sequence(bm.Optional(bm.Categorical())), [["a", "a"]] * 3 + [[None, None]] * 5),
    ],
    ids=["chain", "symbols", "records", "sequences", "optional"],
)
def test_sequences_of_symbols_and_records_have_a_most_typical_one(spec, cells):
    fit = bm.fit_em(spec, [*cells, None], random_seed=1)
    imputed = fit.impute(n_draws=200, random_seed=1)
    draws = imputed.draws["x"][:, 0].tolist()
    filled = imputed.table()["x"].iloc[-1]
    assert len(filled) == np.quantile([len(draw) for draw in draws], 0.5, method="lower")
    assert filled == cells[0]
    assert filled in draws


def test_where_every_sequence_is_empty_a_missing_one_is_filled_with_the_commoner_kind_of_draw():
    """Draws of some length are None there, since nobody knows of which symbols."""
    mean = 0.5
    spec = bm.MarkovChain(length=bm.Poisson(mean))
    imputed = bm.fit_em(spec, [[], [], [], None], random_seed=1).impute(n_draws=200, random_seed=1)
    drawn = imputed.draws["x"][:, 0].tolist()
    empty = np.mean([each == [] for each in drawn])
    assert abs(empty - np.exp(-mean)) < 4 * np.sqrt(0.25 / 200)
    assert set(map(str, drawn)) == {"[]", "None"}
    assert imputed.table()["x"].tolist() == [[]] * 4


# ------------------------------------------------------------------- sample


def test_samples_have_the_posterior_predictive_means():
    fit, draws = several()
    drawn = fit.sample(20_000, random_seed=8)
    assert list(drawn.columns) == list(FRAME.columns)
    expected = {
        "x": np.mean([p["weights"] @ p["x_mu"] for p in draw_list(draws)]),
        "n": np.mean([p["weights"] @ p["n_mu"] for p in draw_list(draws)]),
        "b": np.mean([p["weights"] @ p["b_p"] for p in draw_list(draws)]),
        "c": np.mean([p["weights"] @ p["c_p"][:, 0] for p in draw_list(draws)]),
    }
    drawn["c"] = drawn["c"] == "green"
    for name, mean in expected.items():
        values = drawn[name].astype(float)
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values)), name
    # the fields of a row share its component: their covariance is that of the components' means
    between = (
        np.mean([p["weights"] @ (p["x_mu"] * p["n_mu"]) for p in draw_list(draws)]) - expected["x"] * expected["n"]
    )
    products = (drawn["x"] - drawn["x"].mean()) * (drawn["n"] - drawn["n"].mean())
    assert abs(products.mean() - between) < 4 * products.std() / np.sqrt(len(products))


def test_samples_come_in_the_users_frame_and_again_with_the_seed():
    plain = {name: [None if pd.isna(cell) else cell for cell in FRAME[name]] for name in FRAME}
    for table, kind in ((FRAME, pd.DataFrame), (pl.DataFrame(plain), pl.DataFrame)):
        fit, _ = several(data=table)
        drawn = fit.sample(30, random_seed=1)
        assert type(drawn) is kind
        assert len(drawn) == 30
        assert drawn.equals(fit.sample(30, random_seed=1))
        assert not drawn.equals(fit.sample(30, random_seed=2))
        # what was drawn can be read again
        assert fit.log_density(drawn).shape == (30,)


def test_samples_of_vectors_have_named_coordinates_MvNormal():
    frame = pd.DataFrame({"a": FRAME["x"].fillna(0.0), "b": FRAME["x"].fillna(0.0) ** 2})
    fit = point(bm.Mixture(bm.MvNormal(), 2), frame)
    drawn = fit.sample(50, random_seed=1)
    assert list(drawn.columns) == ["a", "b"]
    assert fit.log_density(drawn).shape == (50,)


# ------------------------------------------------------------------- summary


def test_summary_of_a_point_estimate():
    fit = point()
    summary = fit.summary()
    assert summary.loc["x_mu[1]", "value"] == fit.params["x_mu"][1]
    assert summary.loc["c_p[0, red]", "value"] == fit.params["c_p"][0, 1]
    assert len(summary) == 2 + 2 + 2 + 2 + 4 + 2


def test_summary_of_a_posterior():
    fit, draws = several(2, 8)
    summary = fit.summary(round_to="none")
    means = summary["mean"].astype(float)
    np.testing.assert_allclose(means["x_mu[1]"], draws["x_mu"][..., 1].mean(), rtol=1e-6)
    np.testing.assert_allclose(means["c_p[0, red]"], draws["c_p"][..., 0, 1].mean(), rtol=1e-6)


# ------------------------------------------------------------------- save and load


@pytest.mark.parametrize("kind", ["point", "several"])
def test_a_saved_fit_comes_back(tmp_path, kind):
    fit = point() if kind == "point" else several()[0]
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert repr(again.spec) == repr(fit.spec)
    assert again.status == fit.status
    assert again.loglik == fit.loglik
    for name, value in fit.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    np.testing.assert_array_equal(again.responsibilities(FRAME), fit.responsibilities())
    np.testing.assert_array_equal(again.log_density(FRAME), fit.log_density())
    assert again.idata["observed_data"]["row"].values.tolist() == list(FRAME.index)
    if fit.history is not None:
        np.testing.assert_array_equal(again.history, fit.history)
    drawn = again.sample(10, random_seed=1)
    assert drawn.equals(fit.sample(10, random_seed=1))
    imputed, expected = (f.impute(FRAME, n_draws=4, random_seed=1) for f in (again, fit))
    for field, values in expected.draws.items():
        assert (imputed.draws[field] == values).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.zip"]


def test_a_loaded_fit_asks_for_the_table(tmp_path):
    point().save(tmp_path / "fit.zip")
    with pytest.raises(bm.DataError, match="Pass the table"):
        bm.load(tmp_path / "fit.zip").predict()


SPECS = {
    "Normal-fixed": bm.Mixture(bm.Normal(sigma=1.5), 2, weights=[0.25, 0.75]),
    "Normal-flat": bm.Mixture(bm.Normal(), 2).with_flat_priors(),
    "Normal-priors": bm.Mixture(bm.Normal(mu=pm.Normal.dist(0.0, 3.0), sigma=pm.HalfNormal.dist(2.0)), 2),
    "Normal-InverseGamma": bm.Mixture(bm.Normal(sigma=pm.InverseGamma.dist(3.0, 2.0)), 2),
    "Normal-StudentT": bm.Mixture(bm.Normal(mu=pm.StudentT.dist(nu=4.0, mu=0.0, sigma=3.0)), 2),
    "Normal-Dirichlet": bm.Mixture(bm.Normal(), 2, weights=pm.Dirichlet.dist([2.0, 5.0])),
    "Normal-Normal-Gamma": bm.Mixture(bm.Normal(sigma=pm.Gamma.dist(2.0, 0.7)), 2),
    "nested": bm.Mixture(bm.Mixture(bm.Normal(), 2), 2),
}


@pytest.mark.parametrize("kind", SPECS)
def test_specs_and_priors_come_back(tmp_path, kind):
    x = FRAME["x"].dropna()
    start = {"weights": [0.4, 0.6], "mu": [-1.5, 2.0], "sigma": [1.0, 1.2]}
    if kind == "nested":
        fit = point(SPECS[kind], x)
    else:
        fit = bm.fit_em(SPECS[kind], x, start=start, tol=1e-3)  # any point will do; the numeric M-step is slow
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert repr(again.spec) == repr(fit.spec)
    np.testing.assert_array_equal(again.log_density(x), fit.log_density())
    # Python floats are single precision in PyMC, and come back as doubles: logarithms differ by 1e-8
    np.testing.assert_allclose(again.bound.log_prior(again.params), fit.bound.log_prior(fit.params), rtol=1e-8)
    assert [slot.dims for slot in again.bound.slots.values()] == [slot.dims for slot in fit.bound.slots.values()]


@pytest.mark.parametrize(
    "symbols", [("a", "b"), (1, 2), (True, False), (("a", 1), ("b", 2)), (2.5, "x", ("y", 0))], ids=str
)
def test_symbols_come_back(tmp_path, symbols):
    column = [symbols[i % len(symbols)] for i in range(20)]
    other = [float(i % 7) for i in range(20)]
    fit = point(bm.Mixture(bm.Composite(c=bm.Categorical(), y=bm.Normal()), 2), {"c": column, "y": other})
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    drawn = again.sample(100, random_seed=1)["c"].tolist()
    assert set(drawn) == set(symbols)
    assert {type(symbol) for symbol in drawn} == {type(symbol) for symbol in symbols}


def test_symbols_that_cannot_be_saved(tmp_path):
    fit = point(bm.Mixture(bm.Categorical(), 1), [frozenset("a"), frozenset("b"), frozenset("a")])
    with pytest.raises(bm.DataError, match=r"frozenset.*cannot be saved"):
        fit.save(tmp_path / "fit.zip")
    assert list(tmp_path.iterdir()) == []


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_a_zip(path):
    path.write_text("hello")


def _rewrite(path, change):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _bad_json(path):
    _rewrite(path, lambda parts: parts.update({"fit.json": b'{"schema": 1'}))


def _no_arrays(path):
    _rewrite(path, lambda parts: parts.pop("idata.nc"))


def _bad_arrays(path):
    _rewrite(path, lambda parts: parts.update({"idata.nc": b"not netCDF at all"}))


def _newer(path):
    def change(parts):
        document = json.loads(parts["fit.json"])
        parts["fit.json"] = json.dumps({**document, "schema": 999}).encode()

    _rewrite(path, change)


def _unknown_family(path):
    _rewrite(path, lambda parts: parts.update({"fit.json": parts["fit.json"].replace(b'"Normal"', b'"Abnormal"')}))


def _no_spec(path):
    def change(parts):
        document = json.loads(parts["fit.json"])
        del document["bound"]["spec"]
        parts["fit.json"] = json.dumps(document).encode()

    _rewrite(path, change)


def _a_list(path):
    _rewrite(path, lambda parts: parts.update({"fit.json": b"[1, 2]"}))


@pytest.mark.parametrize(
    "damage", [_truncate, _not_a_zip, _bad_json, _no_arrays, _bad_arrays, _newer, _unknown_family, _no_spec, _a_list]
)
def test_a_damaged_file(tmp_path, damage):
    path = tmp_path / "fit.zip"
    point(bm.Mixture(bm.Normal(), 2), FRAME["x"].dropna()).save(path)
    damage(path)
    with pytest.raises(bm.DataError) as caught:
        bm.load(path)
    assert "fit.zip" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        bm.load(tmp_path / "fit.zip")


# ------------------------------------------------------------------ components of several kinds


def test_fields_in_another_order_in_another_component():
    """Counts of one column were compared with codes of another: checks praised what was not there."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"u": rng.choice(["no", "yes"], 60, p=[0.9, 0.1]), "v": rng.poisson(9, 60) + 1})
    one, other = bm.Composite(u=bm.Categorical(), v=bm.Poisson()), bm.Composite(v=bm.Geometric(), u=bm.Categorical())
    spec = bm.Mixture([one, other])
    fit = bm.fit(spec, table, random_seed=1)
    np.testing.assert_array_equal(fit.idata["observed_data"]["v"], table["v"])
    checks = fit.predictive_checks(n_draws=20, random_seed=1)
    assert checks.loc[("v", "mean"), "observed"] == pytest.approx(table["v"].mean())
    fused, graph = (bm.build_model(spec, table, likelihood=way) for way in ("fused", "graph"))
    at = fused.initial_point()
    assert graph.compile_logp()(at) == pytest.approx(float(fused.compile_logp()(at)))


def test_components_of_different_fields_are_refused():
    one, other = bm.Composite(a=bm.Normal(), b=bm.Normal()), bm.Composite(a=bm.Normal(), c=bm.Normal())
    with pytest.raises(bm.SpecError, match=r"components have different fields \(a, b; a, c\)"):
        bm.fit(bm.Mixture([one, other]), {"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0]})


@pytest.mark.parametrize(
    "components",
    [
        [bm.Categorical(p={"a": 0.2, "b": 0.8}), bm.Categorical(p={"b": 0.7, "a": 0.3})],
        [bm.Categorical(levels=("a", "b")), bm.Categorical(levels=("b", "a"))],
    ],
)
def test_levels_in_another_order_in_another_component_are_refused(components):
    """A code stood for two symbols: imputations and the graph likelihood were of neither."""
    with pytest.raises(bm.SpecError, match=r"list their levels in different orders, a, b and b, a. List them in one"):
        bm.fit(bm.Mixture(components), ["a", "b", "a"])


def test_draws_outside_the_support_of_another_component():
    y = np.random.default_rng(0).lognormal(0.5, 1, 60)
    fit = bm.fit(bm.Mixture([bm.Normal(), bm.LogNormal()], weights=[0.5, 0.5]), y, random_seed=1)
    for ask in (lambda: fit.predictive_checks(random_seed=1), lambda: fit.kl_divergence(fit, random_seed=1)):
        with pytest.raises(bm.DataError, match="a table that the fit draws, not yours") as caught:
            ask()
        for name in re.findall(r"bm\.(\w+)", str(caught.value)):
            assert bm.fit(getattr(bm, name)(), [1.0, 2.0]).sample(50, random_seed=1).gt(0).all(axis=None)
    with pytest.raises(TypeError, match="other: a Fit is needed, not 3"):
        fit.kl_divergence(3)


# ------------------------------------------------------------------ checks of weighted rows


def test_rows_without_weight_are_not_checked():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(0, 1, 60), rng.normal(6, 1, 60)]
    prior = dict(mu=pm.Normal.dist(0, 10), sigma=pm.HalfNormal.dist(5))
    spec = bm.Mixture(bm.Normal(**prior), 2)
    weights = np.r_[np.ones(120), np.zeros(3)]
    fit = bm.fit(spec, np.r_[x, [500.0] * 3], row_weights=weights, random_seed=1)
    alone = bm.fit(spec, x, random_seed=1)
    found, expected = (each.predictive_checks(n_draws=30, random_seed=1) for each in (fit, alone))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)
    assert fit.posterior_predictive(n_draws=3, random_seed=1)["posterior_predictive"].sizes["row"] == 120


def test_the_divergence_of_fits_of_different_fields_or_supports():
    """Both were said to be a matter of the components' support."""
    rng = np.random.default_rng(0)
    table = {"x": rng.normal(size=30), "y": rng.normal(size=30)}
    fits = {
        name: bm.fit_em(bm.Composite(**{field: bm.Normal() for field in name}), table, random_seed=1)
        for name in ("x", "y", "xy")
    }
    with pytest.raises(
        bm.DataError, match=r"^other: its fields are y, and those of this fit x. Densities of different"
    ):
        fits["x"].kl_divergence(fits["y"])
    for own, other in (("x", "xy"), ("xy", "x")):
        with pytest.raises(bm.DataError, match=r"^other: its fields are .* fit both to the same"):
            fits[own].kl_divergence(fits[other], table)
    joint = bm.fit_em(bm.MvNormal(), pd.DataFrame(table), random_seed=1)
    assert joint.kl_divergence(fits["xy"], random_seed=1) == pytest.approx(0, abs=0.1)
    positive = bm.fit_em(bm.Composite(x=bm.LogNormal()), {"x": np.exp(table["x"])}, random_seed=1)
    with pytest.raises(
        bm.DataError, match=r"^other: it does not take what this fit draws, so that the divergence is inf"
    ):
        fits["x"].kl_divergence(positive, random_seed=1)
    assert positive.kl_divergence(fits["x"], random_seed=1) > 0


def test_the_divergence_of_fits_that_name_the_same_columns_in_other_ways():
    """A spec without names draws x1 and x2, which a spec with names was said not to have."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "b": rng.poisson(3, 60)})
    unnamed = bm.Mixture(bm.Composite(bm.Normal(), bm.Poisson()), 2)
    fits = {
        "names": bm.fit(bm.Mixture(bm.Composite(a=bm.Normal(), b=bm.Poisson()), 2), table, random_seed=1),
        "frame": bm.fit(unnamed, table, random_seed=1),
        "array": bm.fit(unnamed, table.to_numpy(), random_seed=1),
    }
    for own, other in itertools.permutations(fits, 2):
        assert fits[own].kl_divergence(fits[other], table) == 0
        if (own, other) == ("array", "names"):  # what an array's fit draws has no names
            with pytest.raises(bm.DataError, match="its fields are a, b, and those of this fit x1, x2"):
                fits[own].kl_divergence(fits[other])
        else:
            assert fits[own].kl_divergence(fits[other], size=50, random_seed=1) == 0


def test_rows_are_taken_as_often_as_they_weigh(tmp_path):
    x, weights = np.array([0.0, 1.0, 8.0, 9.0]), np.array([1.0, 3.0, 0.0, 2.0])
    fit = bm.fit(bm.Mixture(bm.Normal(), 1), x, row_weights=weights, random_seed=1)
    fit.save(tmp_path / "fit")
    repeated = np.repeat(x, weights.astype(int))
    again = bm.load(tmp_path / "fit")
    for each, data in ((fit, None), (fit, x), (again, x), (again, pd.Series(x.astype("float32")))):
        observed = each.predictive_checks(data, n_draws=20, random_seed=1)["observed"]["x"]
        assert observed["mean"] == pytest.approx(repeated.mean(), rel=1e-5)
        assert observed["sd"] == pytest.approx(repeated.std(), rel=1e-5)
        rows = each.posterior_predictive(data, n_draws=2, random_seed=1)["observed_data"].sizes["row"]
        assert rows == len(repeated)
    for each in (fit, again):  # another table has no weights, though it is as long
        observed = each.predictive_checks(x[::-1] + 1, n_draws=20, random_seed=1)["observed"]["x"]
        assert observed["mean"] == pytest.approx(x.mean() + 1)
    rows = predictive.rows_by_weight(np.array([0.5, 1.5, 0.0, 2.0]))
    np.testing.assert_array_equal(np.bincount(rows, minlength=4), [0, 2, 0, 2])


def test_names_and_numbers_that_are_not_there():
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), [0.0, 1.0, 8.0, np.nan], random_seed=1)
    with pytest.raises(ValueError, match=r"var_names: no parameter is called 'mo'. There are weights, mu, sigma"):
        fit.summary(var_names=["mo"])
    assert len(fit.summary(var_names="mu")) == 2
    imputed = fit.impute(n_draws=5, random_seed=1)
    with pytest.raises(ValueError, match=r"draw: there are 5 draws, 0 to 4, and no 7"):
        imputed.table(draw=7)
    assert imputed.table(draw=-1).shape == (4, 1)


@pytest.mark.parametrize(
    ("spec", "data", "rows"),
    [
        (bm.Mixture(bm.Categorical(p={"u": 0.7, "v": 0.3, "w": 0.0}), 1), list("uuvuw"), "row 4"),
        (bm.Mixture(bm.Bernoulli(p=[0.0, 0.0]), 2), [0, 0, 1], "row 2"),
        (bm.Geometric(p=1.0), [1, 2, 3], r"row 1, row 2 \(2 rows in all\)"),
        (bm.Mixture(bm.Composite(a=bm.Bernoulli(p=[0.0, 1.0]), b=bm.Bernoulli(p=[1.0, 0.0])), 2),
         {"a": [0, 1, 1], "b": [1, 0, 1]}, "row 2"),
    ],
    ids=["a symbol", "truth values", "counts", "fields that exclude each other"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["em", "nuts"])
def test_rows_that_fixed_probabilities_exclude_are_named(spec, data, rows, method):
    """Their likelihood is zero whatever the rest is: the fit had a finite one, and said that it had converged."""
    with pytest.raises(bm.DataError, match=rows + ": impossible"):
        bm.fit(spec, data, method=method, random_seed=1)


def test_rows_that_one_component_excludes_or_that_have_no_weight_are_possible():
    either = bm.Mixture(bm.Bernoulli(p=[0.0, 0.5]), 2, weights=[0.5, 0.5])
    assert bm.fit(either, [0, 0, 1, 1], random_seed=1).loglik == pytest.approx(2 * np.log(0.75) + 2 * np.log(0.25))
    without = bm.fit(bm.Geometric(p=1.0), [1, 1, 2], row_weights=[1, 1, 0])
    assert without.loglik == 0
