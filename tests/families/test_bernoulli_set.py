"""What is special to sets; the laws are in `tests/contract`."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pymc as pm
import pytest

import bayesmix as bm
import bayesmix.plots
from bayesmix.bound import bind
from bayesmix.data import read

matplotlib.use("Agg")

RNG = np.random.default_rng(5)
N = 400
GROUP = RNG.integers(0, 2, N)
SHARES = np.array([[0.8, 0.7, 0.1, 0.05], [0.1, 0.2, 0.9, 0.05]])
SYMBOLS = ("bread", "butter", "tea", "yeast")
SETS = [frozenset(s for s, hit in zip(SYMBOLS, RNG.random(4) < SHARES[g]) if hit) for g in GROUP]
HEIGHT = RNG.normal(np.array([0.0, 5.0])[GROUP])
SPEC = bm.Mixture(bm.Composite(height=bm.Normal(), tags=bm.BernoulliSet()), 2)


@pytest.fixture(scope="module")
def fit():
    tags = [None if row % 10 == 3 else cell for row, cell in enumerate(SETS)]
    return bm.fit_em(SPEC, {"height": HEIGHT, "tags": tags}, random_seed=1, n_starts=4)


def test_names_dims_and_labels(fit):
    p = fit.posterior["tags_p"]
    assert p.dims == ("chain", "draw", "component", "tags_symbol")
    assert p["tags_symbol"].values.tolist() == list(SYMBOLS)
    observed = fit.idata["observed_data"]["tags"]
    assert observed.dims == ("row", "tags_symbol")
    assert observed.sel(row=0).values.tolist() == [int(s in SETS[0]) for s in SYMBOLS]
    assert observed.sel(row=3).values.tolist() == [-1, -1, -1, -1]


def test_the_groups_are_found(fit):
    np.testing.assert_allclose(np.sort(fit.params["tags_p"], 0), np.sort(SHARES, 0), atol=0.08)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(SETS, id="frozensets"),
        pytest.param([set(cell) for cell in SETS], id="sets"),
        pytest.param([list(cell) for cell in SETS], id="lists"),
        pytest.param([tuple(cell) for cell in SETS], id="tuples"),
        pytest.param([np.array(sorted(cell)) for cell in SETS], id="arrays"),
        pytest.param(pd.Series(SETS), id="pandas"),
        pytest.param(pl.Series([list(cell) for cell in SETS]), id="polars"),
        pytest.param(pa.chunked_array([[list(cell) for cell in SETS]]), id="pyarrow"),
    ],
)
def test_every_kind_of_collection_is_a_set(cells):
    table = read({"height": HEIGHT, "tags": cells})
    bound = bind(SPEC, table)
    *_, (_, block) = bound.site.walk_with(bound.encode(table))
    value = block.arrays["value"]
    np.testing.assert_array_equal(value, [[s in cell for s in SYMBOLS] for cell in SETS])


def test_symbols_of_any_hashable_type():
    cells = [{1, "a", (2, "b")}, {"a"}, {(2, "b")}, set()]
    bound = bind(bm.BernoulliSet(), read(cells))
    assert set(bound.site.learned.levels) == {1, "a", (2, "b")}
    data = bound.encode(cells)
    assert bound.site.node.decode(data.arrays["value"], bound.site.learned).tolist() == cells


def test_an_empty_set_is_no_missing_cell(fit):
    """The empty set speaks for the component that leaves most out; a missing one says nothing."""
    table = {"height": np.array([2.4, 2.4]), "tags": [set(), None]}
    empty, gone = fit.responsibilities(table)
    p, joint = fit.params["tags_p"], np.log(gone)
    expected = joint + np.log1p(-p).sum(1)
    np.testing.assert_allclose(np.diff(np.log(empty)), np.diff(expected), rtol=1e-9)


def test_an_unseen_symbol_is_an_error_or_its_set_is_missing(fit):
    table = {"height": np.array([2.4, 2.4]), "tags": [{"bread", "zebra"}, None]}
    with pytest.raises(bm.DataError, match="tags: row 0 holds 'zebra', which the fitted data did not have"):
        fit.predict(table)
    first, second = fit.responsibilities(table, unseen="ignore")
    np.testing.assert_array_equal(first, second)


def test_a_table_without_a_set_can_be_predicted(fit):
    assert fit.predict({"height": np.array([0.0, 5.0]), "tags": [None, None]}).tolist() != [0, 0]


def test_certain_symbols_take_part_without_nan():
    """p = 0 and p = 1: a zero count times an infinite logarithm is zero."""
    bound = bind(bm.BernoulliSet(p=np.array([0.0, 1.0])), read([{"b"}, {"a", "b"}, set()]))
    data = bound.encode([{"b"}, {"a", "b"}, set()])
    params = bound.with_fixed({})
    np.testing.assert_array_equal(bound.log_density(params, data), [0.0, -np.inf, -np.inf])
    node, learned = bound.site.node, bound.site.learned
    one = {name: value[:1] for name, value in data.arrays.items()}
    statistics = node.suff_stats(one, np.ones((1, 1)), learned)
    values = bound.site.values(params)
    np.testing.assert_allclose(node.expected_logp(values, statistics, learned, np), [0.0], atol=1e-12)


def test_a_symbol_of_all_rows_or_of_one_has_a_mode_inside_the_support():
    fit = bm.fit_em(bm.BernoulliSet(), [{"all"}] * 30 + [{"all", "one"}])
    assert ((fit.params["p"] > 0) & (fit.params["p"] < 1)).all()
    assert fit.params["p"][0] > 0.9 > 0.1 > fit.params["p"][1]


def test_the_same_as_one_bernoulli_for_each_symbol():
    table = {s: np.array([s in cell for cell in SETS]) for s in SYMBOLS}
    apart = bm.fit_em(
        bm.Mixture(bm.Composite({s: bm.Bernoulli() for s in SYMBOLS}), 2), table, random_seed=1, n_starts=3
    )
    whole = bm.fit_em(bm.Mixture(bm.BernoulliSet(), 2), SETS, random_seed=1, n_starts=3)
    np.testing.assert_allclose(whole.loglik, apart.loglik, rtol=1e-9)
    np.testing.assert_allclose(whole.history[-1], apart.history[-1], rtol=1e-9)
    p = np.column_stack([apart.params[f"{s}_p"] for s in SYMBOLS])
    np.testing.assert_allclose(whole.params["p"], p, rtol=1e-4)


def test_sets_are_imputed(fit):
    imputation = fit.impute(n_draws=200, random_seed=1)
    draws = imputation.draws["tags"]
    assert draws.shape == (200, 40)
    assert all(isinstance(cell, frozenset) for cell in draws.ravel())
    row = list(imputation.rows["tags"]).index(13)
    resp = fit.responsibilities()[13]
    for s, symbol in enumerate(SYMBOLS):
        share = np.mean([symbol in cell for cell in draws[:, row]])
        assert abs(share - resp @ fit.params["tags_p"][:, s]) < 4 * np.sqrt(0.25 / 200)
    line = imputation.summary().loc[("tags", 13)]
    assert line["mode"] in set(draws[:, row].tolist())
    assert np.isnan(line["mean"])
    table = imputation.table()
    likely = {s for s in SYMBOLS if np.mean([s in cell for cell in draws[:, row]]) > 0.5}
    assert table["tags"][13] == likely
    assert table["tags"][0] == SETS[0]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_imputed_and_new_tables_keep_the_frame_type(kind):
    cells = [None if row == 2 else sorted(cell) for row, cell in enumerate(SETS)]
    frame = {
        "pandas": lambda: pd.DataFrame({"height": HEIGHT, "tags": cells}),
        "polars": lambda: pl.DataFrame({"height": HEIGHT, "tags": cells}),
        "pyarrow": lambda: pa.table({"height": HEIGHT, "tags": cells}),
    }[kind]()
    fit = bm.fit_em(SPEC, frame, random_seed=1, n_starts=2)
    table = fit.impute(n_draws=20, random_seed=1).table()
    assert type(table) is type(frame)
    filled = table["tags"].to_pylist() if kind == "pyarrow" else table["tags"].to_list()
    assert isinstance(filled[2], list)
    assert set(filled[2]) <= set(SYMBOLS)
    assert filled[:2] == cells[:2]
    rows = fit.sample(300, random_seed=1)
    assert type(rows) is type(frame)
    drawn = rows["tags"].to_pylist() if kind == "pyarrow" else rows["tags"].to_list()
    weights, p = fit.params["weights"], fit.params["tags_p"]
    shares = [np.mean([s in cell for cell in drawn]) for s in SYMBOLS]
    np.testing.assert_allclose(shares, weights @ p, atol=4 * np.sqrt(0.25 / 300))


def test_saved_fits_come_back(fit, tmp_path):
    fit.save(tmp_path / "fit.zip")
    table = {"height": HEIGHT, "tags": SETS}
    np.testing.assert_array_equal(bm.load(tmp_path / "fit.zip").log_density(table), fit.log_density(table))


def test_the_pymc_model_draws_sets():
    model = bm.build_model(SPEC, {"height": HEIGHT[:40], "tags": SETS[:40]}, initval=None)
    with model:
        prior = pm.sample_prior_predictive(5, random_seed=1)
    drawn = prior["prior_predictive"]["tags"]
    assert drawn.dims == ("chain", "draw", "row", "tags_symbol")
    assert set(np.unique(drawn.values)) == {0, 1}


def test_plots_show_the_share_of_each_symbol(fit):
    _, axes = bayesmix.plots.plot_fields(fit)
    assert [axis.get_title(loc="left") for axis in axes] == ["height", "tags"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == list(SYMBOLS)
    bayesmix.plots.plot_imputation(fit.impute(n_draws=20, random_seed=1))


@pytest.mark.parametrize("family", [bm.LogNormal, bm.Exponential, bm.Geometric])
def test_curves_stay_inside_the_support(family):
    x = np.random.default_rng(1).geometric(0.2, 50)
    fit = bm.fit_em(bm.Mixture(family(), 2), x, random_seed=1, n_starts=2)
    bayesmix.plots.plot_fields(fit)


def test_many_symbols():
    """Some 10,000 symbols, most of them in one row or two: dense, and still a matter of seconds."""
    rng = np.random.default_rng(3)
    group = np.repeat([0, 1], 200)
    rare = rng.integers(100, 20_000, (400, 35))
    common = [20 * g + np.flatnonzero(rng.random(20) < 0.6) for g in group]
    cells = [set(a.tolist()) | set(b.tolist()) for a, b in zip(rare, common)]
    fit = bm.fit_em(bm.Mixture(bm.BernoulliSet(), 2), cells, random_seed=1, n_starts=2, max_iter=20)
    assert fit.params["p"].shape[1] > 9_000
    labels = fit.predict()
    assert max(np.mean(labels == group), np.mean(labels != group)) == 1
