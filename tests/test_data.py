"""What `fit` takes, and the one clear error for each thing that it does not."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pymc as pm
import pytest

import bayesmix as bm
from bayesmix.data import column_of, read

NAN = float("nan")
_rng = np.random.default_rng(3)
_GROUP = np.repeat([0, 1], 20)
X = (np.array([-3.0, 4.0])[_GROUP] + _rng.normal(size=40)).round(3)
N = _rng.poisson(np.array([2.0, 15.0])[_GROUP])
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson()), 2)
POSITIONAL = bm.Mixture(bm.Composite(bm.Normal(), bm.Poisson()), 2)


def em(spec, data, **kwargs):
    return bm.fit_em(spec, data, n_starts=3, random_seed=1, **kwargs)


def values(fit):
    return [fit.params[name] for name in fit.bound.free_slots]


# ------------------------------------------------------------------- every kind of table gives the same fit


TABLES = {
    "dict of arrays": {"x": X, "n": N},
    "dict of lists": {"x": X.tolist(), "n": N.tolist()},
    "dict of series": {"x": pd.Series(X), "n": pl.Series(N)},
    "pandas": pd.DataFrame({"x": X, "n": N}),
    "pandas nullable": pd.DataFrame({"x": pd.array(X, "Float64"), "n": pd.array(N, "Int64")}),
    "pandas pyarrow": pd.DataFrame({"x": X, "n": N}).convert_dtypes(dtype_backend="pyarrow"),
    "pandas with other columns": pd.DataFrame({"name": list("ab" * 20), "n": N, "x": X}),
    "polars": pl.DataFrame({"x": X, "n": N}),
    "polars lazy": pl.LazyFrame({"x": X, "n": N}),
    "pyarrow": pa.table({"x": X, "n": N}),
    "dicts": [{"x": x, "n": n} for x, n in zip(X, N)],
    "dicts in another order": [{"n": int(n), "x": float(x)} for x, n in zip(X, N)],
    "structured array": np.array(list(zip(X, N)), dtype=[("x", float), ("n", int)]),
}
POSITIONAL_TABLES = {
    "tuples": list(zip(X.tolist(), N.tolist())),
    "numpy 2-D": np.column_stack([X, N]),
    "object array 2-D": np.column_stack([X, N]).astype(object),
    "numpy rows as tuples": [tuple(row) for row in np.column_stack([X, N])],
    "pandas by position": pd.DataFrame({"first": X, "second": N}),
}
LONE = {
    "numpy 1-D": N,
    "numpy int32": N.astype(np.int32),
    "numpy float": N.astype(float),
    "list of ints": N.tolist(),
    "list of numpy scalars": list(N),
    "numpy column": N[:, None],
    "pandas series": pd.Series(N),
    "polars series": pl.Series("visits", N),
    "pyarrow chunked": pa.chunked_array([N[:7], N[7:]]),
    "one-column frame": pd.DataFrame({"visits": N}),
    "tuple of scalars": tuple(N.tolist()),
}


@pytest.mark.parametrize("kind", TABLES)
def test_named_tables_give_the_same_fit(kind):
    expected = em(SPEC, TABLES["dict of arrays"])
    found = em(SPEC, TABLES[kind])
    for a, b in zip(values(found), values(expected)):
        np.testing.assert_array_equal(a, b)
    assert found.loglik == expected.loglik


@pytest.mark.parametrize("kind", POSITIONAL_TABLES)
def test_positional_tables_give_the_same_fit(kind):
    expected = em(SPEC, TABLES["dict of arrays"])
    found = em(POSITIONAL, POSITIONAL_TABLES[kind])
    for a, b in zip(values(found), values(expected)):
        np.testing.assert_array_equal(a, b)
    assert list(found.bound.free_slots) == ["weights", "x1_mu", "x1_sigma", "x2_mu"]


@pytest.mark.parametrize("kind", LONE)
def test_single_columns_give_the_same_fit_Poisson(kind):
    spec = bm.Mixture(bm.Poisson(), 2)
    expected, found = em(spec, N), em(spec, LONE[kind])
    for a, b in zip(values(found), values(expected)):
        np.testing.assert_array_equal(a, b)


VECTORS = np.column_stack([X, X * 0.5 + _rng.normal(size=40)])


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(VECTORS, id="numpy"),
        pytest.param(pd.DataFrame(VECTORS, columns=["a", "b"]), id="pandas"),
        pytest.param(pl.DataFrame(VECTORS, schema=["a", "b"]), id="polars"),
        pytest.param({"a": VECTORS[:, 0], "b": VECTORS[:, 1]}, id="dict"),
        pytest.param(VECTORS.tolist(), id="list of lists"),
        pytest.param([tuple(row) for row in VECTORS.tolist()], id="tuples"),
    ],
)
def test_vectors_give_the_same_fit_MvNormal(table):
    spec = bm.Mixture(bm.MvNormal(), 2)
    for a, b in zip(values(em(spec, table)), values(em(spec, VECTORS))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(VECTORS, id="2-D array"),
        pytest.param(VECTORS.tolist(), id="lists"),
        pytest.param([tuple(row) for row in VECTORS], id="tuples"),
        pytest.param(list(VECTORS), id="arrays"),
        pytest.param(pl.Series(VECTORS.tolist()), id="polars list"),
        pytest.param(pl.Series(VECTORS.tolist(), dtype=pl.Array(pl.Float64, 2)), id="polars array"),
        pytest.param(pa.chunked_array([pa.array(VECTORS.tolist())]), id="pyarrow list"),
    ],
)
def test_a_column_of_vectors_gives_the_same_fit_MvNormal(column):
    spec = bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 2)
    expected = em(spec, {"v": VECTORS, "n": N})
    for a, b in zip(values(em(spec, {"v": column, "n": N})), values(expected)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(N > 5, id="numpy bool"),
        pytest.param((N > 5).tolist(), id="list of bools"),
        pytest.param((N > 5).astype(int), id="ints"),
        pytest.param((N > 5).astype(float), id="floats"),
        pytest.param(pd.Series(N > 5, dtype="boolean"), id="pandas boolean"),
        pytest.param(pl.Series(N > 5), id="polars"),
        pytest.param(pa.chunked_array([pa.array((N > 5).tolist())]), id="pyarrow"),
    ],
)
def test_truth_values_give_the_same_fit_Bernoulli(column):
    for a, b in zip(values(em(bm.Bernoulli(), column)), values(em(bm.Bernoulli(), N > 5))):
        np.testing.assert_array_equal(a, b)


def test_nested_records_Composite():
    spec = bm.Mixture(bm.Composite(a=bm.Composite(x=bm.Normal(), n=bm.Poisson()), b=bm.Bernoulli()), 2)
    records = [{"a": {"x": x, "n": int(n)}, "b": bool(n > 5)} for x, n in zip(X, N)]
    fit = em(spec, records)
    assert list(fit.bound.free_slots) == ["weights", "a_x_mu", "a_x_sigma", "a_n_mu", "b_p"]
    flat = em(
        bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson(), b=bm.Bernoulli()), 2), {"x": X, "n": N, "b": N > 5}
    )
    for a, b in zip(values(fit), values(flat)):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------- missing cells


GONE_X, GONE_N = [0, 3, 25], [3, 30]


@pytest.mark.parametrize("kind", ["tuples", "dicts"])
def test_records_that_are_all_missing_Composite(kind):
    """A column of which no cell is a record does not show its fields; each row counts as it does beside others."""
    letters = ["a" if x < 0 else "b" for x in X]
    if kind == "tuples":
        pair, records = bm.Composite(bm.Categorical(), bm.Normal()), list(zip(letters, X.tolist()))
    else:
        pair = bm.Composite(c=bm.Categorical(), x=bm.Normal())
        records = [{"c": c, "x": x} for c, x in zip(letters, X.tolist())]
    fit = em(bm.Mixture(bm.Composite(pair=pair, n=bm.Poisson()), 2), {"pair": records, "n": N})
    alone = fit.responsibilities({"pair": [None, None], "n": N[:2]})
    beside = fit.responsibilities({"pair": [None, None, records[0]], "n": N[:3]})
    np.testing.assert_array_equal(alone, beside[:2])


def _without(cells, gone, mark):
    return [mark if i in gone else cell for i, cell in enumerate(cells)]


MARKED = {
    "None": {"x": _without(X.tolist(), GONE_X, None), "n": _without(N.tolist(), GONE_N, None)},
    "NaN": {"x": _without(X.tolist(), GONE_X, NAN), "n": _without(N.tolist(), GONE_N, NAN)},
    "pd.NA": {"x": _without(X.tolist(), GONE_X, pd.NA), "n": _without(N.tolist(), GONE_N, pd.NA)},
    "numpy NaN": {"x": np.array(_without(X, GONE_X, NAN)), "n": np.array(_without(N, GONE_N, NAN))},
    "masked array": {
        "x": np.ma.MaskedArray(X, np.isin(np.arange(40), GONE_X)),
        "n": np.ma.MaskedArray(N, np.isin(np.arange(40), GONE_N)),
    },
    "pandas NaN": pd.DataFrame({"x": _without(X, GONE_X, NAN), "n": _without(N, GONE_N, NAN)}),
    "pandas Int64": pd.DataFrame(
        {"x": _without(X, GONE_X, NAN), "n": pd.array(_without(N.tolist(), GONE_N, pd.NA), "Int64")}
    ),
    "pandas object": pd.DataFrame(
        {"x": _without(X.tolist(), GONE_X, None), "n": _without(N.tolist(), GONE_N, pd.NA)}, dtype=object
    ),
    "polars null": pl.DataFrame({"x": _without(X.tolist(), GONE_X, None), "n": _without(N.tolist(), GONE_N, None)}),
    "polars NaN": pl.DataFrame({"x": _without(X.tolist(), GONE_X, NAN), "n": _without(N.tolist(), GONE_N, None)}),
    "pyarrow null": pa.table({"x": _without(X.tolist(), GONE_X, None), "n": _without(N.tolist(), GONE_N, None)}),
    "dicts": [{"x": None if i in GONE_X else X[i], "n": None if i in GONE_N else int(N[i])} for i in range(40)],
}


@pytest.mark.parametrize("kind", MARKED)
def test_every_mark_of_a_missing_cell_means_the_same(kind):
    expected, found = em(SPEC, MARKED["None"]), em(SPEC, MARKED[kind])
    for a, b in zip(values(found), values(expected)):
        np.testing.assert_array_equal(a, b)
    missing = {
        site.place.path: block.missing_rows().tolist()
        for site, block in found.bound.site.walk_with(found.encoded)
        if not site.children
    }
    assert missing == {"x": GONE_X, "n": GONE_N}


@pytest.mark.parametrize("mark", [None, NAN, pd.NA, np.nan, pd.NaT], ids=["None", "NaN", "NA", "nan", "NaT"])
def test_a_missing_symbol_is_no_symbol_Categorical(mark):
    fit = em(bm.Mixture(bm.Categorical(), 1), ["a", "b", mark, "a"])
    assert fit.posterior["symbol"].values.tolist() == ["a", "b"]
    assert fit.encoded.missing_rows().tolist() == [2]


def test_a_missing_truth_value_Bernoulli():
    for column in ([True, None, False, True], pd.Series([True, pd.NA, False, True], dtype="boolean"), [1, NAN, 0, 1]):
        fit = em(bm.Bernoulli(), column)
        assert fit.encoded.missing_rows().tolist() == [1]


def test_a_missing_vector_MvNormal():
    rows = VECTORS.tolist()
    rows[4] = None
    fit = em(bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 2), {"v": rows, "n": N})
    assert fit.encoded.children[0].missing_rows().tolist() == [4]
    everywhere = VECTORS.copy()
    everywhere[4] = NAN
    assert em(bm.Mixture(bm.MvNormal(), 2), everywhere).encoded.missing_rows().tolist() == [4]


def test_missing_cells_are_integrated_out():
    """Under flat priors a fit to rows of which some have nothing is the fit to the others."""
    flat = SPEC.with_flat_priors()
    full = em(flat, {"x": X, "n": N})
    padded = em(
        flat,
        {"x": [*X, None, None], "n": [*N.tolist(), None, None]},
        start={n: full.params[n] for n in full.bound.free_slots},
    )
    np.testing.assert_allclose(padded.loglik, full.loglik, rtol=1e-9)
    np.testing.assert_allclose(padded.log_density()[-2:], 0, atol=1e-12)


def test_missing_cells_of_the_pymc_model_are_marked():
    fit = em(SPEC, MARKED["None"])
    found = {each.name: each.values for each in fit.bound.site.observed(fit.encoded)}
    assert np.flatnonzero(np.isnan(found["x"])).tolist() == GONE_X
    assert np.flatnonzero(found["n"] == -1).tolist() == GONE_N


# ------------------------------------------------------------------- index and symbols


def test_the_row_index_is_kept():
    index = [f"r{i}" for i in range(40)]
    fit = em(SPEC, pd.DataFrame({"x": X, "n": N}, index=index))
    assert fit.idata["observed_data"]["row"].values.tolist() == index
    assert fit.idata["log_likelihood"]["row"].values.tolist() == index
    imputed = em(SPEC, pd.DataFrame(MARKED["None"], index=index)).impute(n_draws=5, random_seed=1)
    assert imputed.summary().loc["x"].index.tolist() == [index[i] for i in GONE_X]
    assert imputed.table().index.tolist() == index


def test_a_multi_index_is_kept():
    index = pd.MultiIndex.from_product([["a", "b"], range(20)])
    fit = em(SPEC, pd.DataFrame(MARKED["None"], index=index))
    assert fit.impute(n_draws=3, random_seed=1).table().index.equals(index)


SYMBOLS = {
    "strings": ("a", "b", "c"),
    "ints": (10, 2, 33),
    "bools": (True, False),
    "tuples": (("a", 1), ("b", 2), ("a", 2)),
    "frozensets": (frozenset("ab"), frozenset("b"), frozenset()),
    "dates": (datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    "mixed": ("a", 1, ("x", "y"), 2.5),
    "bytes": (b"u", b"v"),
}


@pytest.mark.parametrize("kind", SYMBOLS)
def test_symbols_of_any_hashable_type_Categorical(kind):
    symbols = SYMBOLS[kind]
    column = [symbols[i % len(symbols)] for i in range(12)] + [symbols[0]] * 6
    for data in ({"c": column}, {"c": [*column[:-1], None]}):
        fit = em(bm.Mixture(bm.Composite(c=bm.Categorical()), 1), data)
        levels = fit.bound.site.children[0].children[0].learned.levels
        assert set(levels) == set(symbols)
        drawn = fit.sample(200, random_seed=1)["c"].tolist()
        assert set(drawn) == set(symbols)
        assert {type(symbol) for symbol in drawn} == {type(symbol) for symbol in symbols}
        # the first symbol is the most frequent: its probability belongs to it
        assert levels[int(fit.params["c_p"][0].argmax())] == symbols[0]


def test_the_order_of_declared_categories_is_kept_Categorical():
    declared = pd.Categorical(["low", "high", "low", "low"], categories=["low", "middle", "high"])
    for column in (
        pd.Series(declared),
        pl.Series(["low", "high", "low", "low"], dtype=pl.Enum(["low", "middle", "high"])),
    ):
        fit = em(bm.Mixture(bm.Composite(c=bm.Categorical()), 1), {"c": column})
        assert fit.posterior["c_symbol"].values.tolist() == ["low", "middle", "high"]
        assert (fit.params["c_p"] > 0).all()


TWINS = {
    "Categorical": (bm.Categorical(), [1, "1", "1", "1"] * 6, "p"),
    "BernoulliSet": (bm.BernoulliSet(), [{1, "1"}, {"1"}, {"1"}, set()] * 6, "p"),
    "MarkovChain": (bm.MarkovChain(), [[1, "1", "1"], ["1", "1", "1"]] * 6, "initial"),
}


@pytest.mark.parametrize("kind", TWINS)
def test_symbols_that_print_alike_are_told_apart(kind):
    """Results were by `str`: 1 and "1" were one line of a summary, and one share of the checks."""
    family, cells, parameter = TWINS[kind]
    column = pd.Series(cells, dtype=object)
    fit = em(family, {"c": column})
    shown = fit.summary()["value"]
    assert len(shown) == sum(value.size for value in fit.params.values())
    levels = fit.bound.site.learned.levels
    assert {1, "1"} == set(levels)
    for level, value in zip(levels, fit.params[parameter]):
        assert shown[f"{parameter}[{level!r}]"] == value
    checks = fit.predictive_checks(n_draws=3, random_seed=1)
    assert {f"share of {level!r}" for level in levels} <= set(checks.index.get_level_values("statistic"))
    described = str(fit.describe())
    assert re.search(r"(?<!')1 in \d+ %", described)
    assert re.search(r"'1' in \d+ %", described)
    assert set(bm.build_model(family, {"c": column}).coords["symbol"]) == {"1", "'1'"}


def test_draws_of_symbols_that_print_alike_are_summed_up_Categorical():
    fit = bm.fit_laplace(bm.Categorical(), pd.Series([1, "1"] * 20, dtype=object), draws=20, random_seed=1)
    assert len(fit.summary()) == 2


def test_whole_floats_and_ints_are_one_symbol_Categorical():
    """A column of ints turns to floats where pandas puts NaN into it; 1.0 must still be 1."""
    fit = em(bm.Categorical(), pd.Series([1, 2, 1, 1]))
    with_nan = pd.Series([1.0, 2.0, NAN])
    assert np.isfinite(fit.log_density(with_nan)).all()


# ------------------------------------------------------------------- one clear error for each fault


def _n(row, value):
    cells = N.tolist()
    cells[row] = value
    return {"x": X, "n": cells}


def _x(row, value):
    cells = X.tolist()
    cells[row] = value
    return {"x": cells, "n": N}


# data, and what the one message must say: field, row, value, way out
FAULTS = {
    "inf": (SPEC, _x(7, float("inf")), ["x", "row 7", "inf", "missing"]),
    "minus inf": (SPEC, _x(7, -float("inf")), ["x", "row 7", "-inf", "missing"]),
    "absent column": (SPEC, {"x": X}, ["n", "no such column", "x", "Rename"]),
    "string in a numeric column": (SPEC, _x(4, "tall"), ["x", "row 4", "'tall'", "Categorical"]),
    "column of strings": (SPEC, {"x": ["1.5"] * 40, "n": N}, ["x", "row 0", "'1.5'", "Convert"]),
    "truth values in a numeric column": (SPEC, {"x": N > 5, "n": N}, ["x", "row 0", "False", "Convert"]),
    "negative count": (SPEC, _n(17, -2), ["n", "Poisson", "row 17", "-2", ">= 0", "missing"]),
    "fractional count": (SPEC, _n(9, 2.5), ["n", "Poisson", "row 9", "2.5", "whole", "missing"]),
    "infinite count": (SPEC, _n(9, float("inf")), ["n", "row 9", "inf"]),
    "zero for a log-normal": (bm.LogNormal(), [1.5, 0.0, 2.0], ["LogNormal", "row 1", "is 0", "> 0", "missing"]),
    "negative log-normal": (bm.LogNormal(), [1.5, 1.0, -2.0], ["LogNormal", "row 2", "-2", "> 0", "missing"]),
    "negative waiting time": (bm.Exponential(), [0.0, -0.5], ["Exponential", "row 1", "-0.5", ">= 0", "missing"]),
    "no trial at all": (bm.Geometric(), [1, 4, 0], ["Geometric", "row 2", "is 0", "whole", ">= 1", "missing"]),
    "half a trial": (bm.Geometric(), [1, 1.5], ["Geometric", "row 1", "1.5", "whole", "missing"]),
    "neither 0 nor 1": (bm.Bernoulli(), [0, 1, 2, 1], ["Bernoulli", "row 2", "2", "Categorical"]),
    "strings for truth values": (bm.Bernoulli(), ["yes", "no"], ["Bernoulli", "row 0", "'yes'", "Categorical"]),
    "unhashable symbol": (
        bm.Mixture(bm.Composite(c=bm.Categorical()), 1),
        {"c": ["a", ["b"], "a"]},
        ["c", "row 1", "['b']", "hashable"],
    ),
    "string for a set": (bm.BernoulliSet(), [{"a"}, "ab"], ["BernoulliSet", "row 1", "'ab'", "sets", "None"]),
    "number for a set": (bm.BernoulliSet(), [3, 4], ["BernoulliSet", "row 0", "3", "sets", "Categorical"]),
    "symbol twice in a set": (bm.BernoulliSet(), [["a"], ["b", "a", "b"]], ["row 1", "'b' twice", "duplicates"]),
    "unhashable symbol in a set": (bm.BernoulliSet(), [["a"], [{}]], ["row 1", "{}", "dict", "hashable"]),
    "missing symbol in a set": (bm.BernoulliSet(), [["a"], ["a", None]], ["row 1", "None", "Leave it out"]),
    "column of missing cells": (SPEC, {"x": [None] * 40, "n": N}, ["x", "missing", "Normal", "Leave the field out"]),
    "column of missing symbols": (bm.Categorical(), [None, None], ["every cell is missing", "Categorical"]),
    "unequal columns": (SPEC, {"x": X, "n": N[:-1]}, ["unequal", "40", "39"]),
    "scalar column": (SPEC, {"x": X, "n": 3}, ["n", "3", "column"]),
    "a column too many in a record": (
        POSITIONAL,
        [*zip(X.tolist(), N.tolist()), (1.0, 2, 3)],
        ["row 40", "3 fields", "2"],
    ),
    "a column too many in all records": (POSITIONAL, [(1.0, 2, 3)] * 5, ["3 columns", "2 fields"]),
    "a record of other fields": (SPEC, [{"x": 1.0, "n": 2}, {"x": 1.0, "m": 2}], ["row 1", "m", "row 0", "None"]),
    "several columns for one family": (bm.Normal(), {"x": X, "n": N}, ["2", "x", "n", "Composite"]),
    "vectors of unequal length": (bm.MvNormal(), {"v": [[1.0, 2.0], [3.0]]}, ["row 1", "1", "2"]),
    "string for a vector": (bm.MvNormal(), {"v": [[1.0, 2.0], "ab"]}, ["row 1", "'ab'", "vectors"]),
    "inf in a vector": (bm.MvNormal(), np.array([[1.0, np.inf], [2.0, 3.0], [0.0, 1.0]]), ["row 0", "inf"]),
    "empty list": (bm.Normal(), [], ["no rows"]),
    "empty frame": (SPEC, pd.DataFrame({"x": [], "n": []}), ["no rows"]),
    "empty array": (bm.Normal(), np.empty(0), ["no rows"]),
    "no columns": (SPEC, {}, ["no rows"]),
    "more components than rows": (bm.Mixture(bm.Normal(), 5), [1.0, 2.0, 4.0], ["5 components", "3 rows", "at most 3"]),
    "three axes": (bm.Normal(), np.zeros((2, 2, 2)), ["(2, 2, 2)"]),
    "a string": (bm.Normal(), "1, 2", ["str"]),
    "a number": (bm.Normal(), 3.0, ["float"]),
    "numbers for sequences": (bm.Sequence(bm.Normal()), [1.0, 2.0], ["Sequence", "row 0", "1.0", "list"]),
    "a set for a column": (bm.Normal(), {1.0, 2.0, 3.0}, ["data", "a set has no order", "list"]),
    "a frozen set for a column": (bm.Poisson(), frozenset({1, 2, 3}), ["data", "a set has no order", "list"]),
    "a set for a field": (SPEC, {"x": X[:3], "n": {1, 2, 3}}, ["n", "a set has no order", "list"]),
    "tied columns of two types": (
        bm.Composite(a=bm.Categorical(tie="t"), b=bm.Categorical(tie="t")),
        {"a": ["u", "v"], "b": [1.0, 2.0]},
        ["a and b", "tied", "number and object", "Give them one type"],
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_one_clear_error(kind):
    spec, data, needles = FAULTS[kind]
    with pytest.raises(bm.DataError) as caught:
        em(spec, data)
    assert len(caught.value.faults) == 1, caught.value.faults
    for needle in needles:
        assert needle in str(caught.value), f"{needle!r} is not in: {caught.value}"


def test_more_components_than_distinct_rows_are_a_warning():
    with pytest.warns(bm.DegenerateWarning, match="3 components but only 2 distinct rows.*at most 2"):
        fit = em(bm.Mixture(bm.Poisson(), 3), [1, 2] * 9)
    assert np.isfinite(fit.params["mu"]).all()


@pytest.mark.parametrize("kind", ["inf", "negative count", "absent column", "empty frame", "more components than rows"])
def test_the_same_error_from_build_model(kind):
    spec, data, needles = FAULTS[kind]
    with pytest.raises(bm.DataError) as caught:
        bm.build_model(spec, data)
    assert all(needle in str(caught.value) for needle in needles)


def test_several_faults_are_listed_together():
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical(), m=bm.Poisson()), 2)
    data = {"x": [1.0, float("inf"), 2.0], "n": [1, 2, -3], "c": [None] * 3, "m": [1, 2, 3]}
    with pytest.raises(bm.DataError, match="3 faults in the data") as caught:
        em(spec, data)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["x", "n", "c"]


def test_several_absent_columns_are_listed_together():
    with pytest.raises(bm.DataError) as caught:
        em(SPEC, {"other": X})
    assert len(caught.value.faults) == 2


BAD_WEIGHTS = {
    "shape": (np.ones(39), ["(39,)", "40"]),
    "negative": (np.where(np.arange(40) == 6, -1.0, 1.0), ["row 6", "-1"]),
    "nan": (np.where(np.arange(40) == 6, NAN, 1.0), ["row 6", "nan"]),
    "all zero": (np.zeros(40), ["all weights are 0"]),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_bad_row_weights(kind):
    weights, needles = BAD_WEIGHTS[kind]
    with pytest.raises(bm.DataError) as caught:
        em(SPEC, {"x": X, "n": N}, row_weights=weights)
    assert all(needle in str(caught.value) for needle in ["row_weights", *needles])


def test_weights_with_the_tables_labels_are_in_its_order():
    """A series was taken by place, whatever its index said."""
    table, weights = pd.DataFrame({"x": X, "n": N}), np.arange(1.0, 41.0)
    named = table.set_axis([f"r{i}" for i in range(40)])
    times = table.set_axis(pd.date_range("2024-03-30", periods=40, freq="h", tz="Europe/Berlin"))
    pairs = table.set_axis(pd.MultiIndex.from_product([["a", "b"], range(20)]))
    expected = em(SPEC, table, row_weights=weights).loglik
    for own in (table, named, times, pairs):
        series = pd.Series(weights, own.index)
        fine = [series, series.reset_index(drop=True), series.to_numpy(), series.tolist(), pl.Series(weights)]
        for each in fine:
            assert em(SPEC, own, row_weights=each).loglik == pytest.approx(expected, rel=1e-9)
    for own in (named, times, pairs):
        shuffled = pd.Series(weights, own.index).iloc[::-1]
        for call in (bm.fit, bm.build_model):
            with pytest.raises(
                bm.DataError, match=r"^row_weights: its index has the table's labels in another order; row"
            ):
                call(SPEC, own, row_weights=shuffled)
    with pytest.raises(
        bm.DataError, match=r"other labels than the table's; row 0 is 5, where the table has 'r0'.*to_numpy"
    ):
        em(SPEC, named, row_weights=pd.Series(weights, range(5, 45)))
    with pytest.raises(bm.DataError, match=r"other labels than the table's; row 3 is 'x', where the table has 'r3'"):
        em(SPEC, named, row_weights=pd.Series(weights, named.rename({"r3": "x"}).index))
    # where the table has no labels of its own the weights' say nothing
    assert em(SPEC, {"x": X, "n": N}, row_weights=pd.Series(weights, named.index)).loglik == pytest.approx(expected)


SPEC_FAULTS = {
    "K of 0": (bm.Mixture(bm.Normal(), 0), ["n_components", "0", "at least 1"]),
    "negative K": (bm.Mixture(bm.Normal(), -1), ["n_components", "-1"]),
    "fractional K": (bm.Mixture(bm.Normal(), 2.5), ["n_components", "2.5"]),
    "true K": (bm.Mixture(bm.Normal(), True), ["n_components", "True"]),
    "weights that do not sum to 1": (bm.Mixture(bm.Normal(), 2, weights=[0.5, 0.6]), ["weights", "sum", "1.1"]),
    "negative weights": (bm.Mixture(bm.Normal(), 2, weights=[-0.5, 1.5]), ["weights", "-0.5"]),
    "weights of another shape": (bm.Mixture(bm.Normal(), 2, weights=[0.2, 0.3, 0.5]), ["weights", "(3,)", "(2,)"]),
    "negative sigma": (bm.Mixture(bm.Normal(sigma=-1.0), 2), ["sigma", "positive", "-1"]),
    "probability above 1": (bm.Bernoulli(p=1.5), ["p", "probability", "1.5"]),
    "not a node": (bm.Mixture(3, 2), ["3", "not a bayesmix node"]),
    "a class": (bm.Mixture(bm.Normal, 2), ["Mixture: Normal is a class", "Write Normal()"]),
    "no fields": (bm.Composite(), ["at least one field"]),
    "not a spec": ("Normal", ["a spec is needed", "str"]),
    "prior of another kind": (bm.Mixture(bm.Normal(sigma="wide"), 2), ["sigma", "wide"]),
    "weights' floor too high": (bm.Mixture(bm.Normal(), 2, min_weight=0.6), ["min_weight", "below 1/2", "0.6"]),
    "weights' floor negative": (bm.Mixture(bm.Normal(), 2, min_weight=-0.1), ["min_weight", "at least 0", "-0.1"]),
    "a tie without a name": (bm.Mixture(bm.Composite(a=bm.Normal(tie=3)), 2), ["a.tie", "a name", "not 3"]),
    "a tie of no letters": (bm.Mixture(bm.Normal(tie=""), 2), ["tie", "a name", "''"]),
    "a truth value for a probability": (bm.Optional(bm.Normal(), p=True), ["p:", "a prior", "False", "True"]),
    "a class for a prior": (bm.Normal(sigma=pm.HalfNormal), ["sigma", "HalfNormal", "not a prior", ".dist()"]),
    "a tuple for a prior": (
        bm.MvNormal(cov=pm.LKJCholeskyCov.dist(eta=1.0, n=2, sd_dist=pm.HalfNormal.dist(), compute_corr=True)),
        ["cov", "tuple", "compute_corr=False"],
    ),
    "a prior over numbers for a vector": (
        bm.Bernoulli(p=pm.Dirichlet.dist([1.0, 1.0])),
        ["p:", "Dirichlet", "over vectors", "a prior over a probability"],
    ),
    "a symbol twice": (bm.Categorical(levels=("a", "a", "b")), ["levels", "'a' and 'a' are one symbol"]),
    "a symbol of sets twice": (bm.BernoulliSet(levels=["a", "b", "a"]), ["levels", "'a' and 'a' are one symbol"]),
    "a symbol of chains twice": (bm.MarkovChain(levels=("a", "a", "b")), ["levels", "'a' and 'a' are one symbol"]),
    "equal symbols": (
        bm.Mixture(bm.Composite(c=bm.Categorical(levels=(1, True, 2))), 2),
        ["c.levels", "1 and True are one symbol", "once"],
    ),
    "None for a symbol": (bm.Categorical(levels=("a", None)), ["levels", "None marks a missing cell"]),
    "NaN for a symbol": (bm.MarkovChain(levels=(1.0, NAN)), ["levels", "nan marks a missing cell"]),
    "text for symbols": (bm.Categorical(levels="ab"), ["levels", "a list of symbols is needed, not 'ab'"]),
    "text for symbols of sets": (bm.BernoulliSet(levels="ab"), ["levels", "a list of symbols is needed, not 'ab'"]),
    "text for symbols of chains": (bm.MarkovChain(levels="ab"), ["levels", "a list of symbols is needed, not 'ab'"]),
    "no symbols": (bm.Categorical(levels=()), ["levels", "no symbols", "leave levels out"]),
    "a list for a symbol": (bm.BernoulliSet(levels=[["a"], "b"]), ["levels", "['a'] is not hashable"]),
    "a prior too long": (
        bm.Mixture(bm.Normal(mu=pm.Normal.dist([0.0, 1.0, 2.0], 1)), 2),
        ["mu", "shape (3,)", "the parameter (2,)"],
    ),
    "a prior whose shape is too long": (
        bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 1, shape=3)), 2),
        ["mu", "shape (3,)", "the parameter (2,)"],
    ),
    "a prior without closed form too long": (
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist([1.0, 1.0, 2.0])), 2),
        ["sigma", "shape (3,)", "the parameter (2,)"],
    ),
    "a prior with an axis too many": (
        bm.Mixture(bm.Normal(mu=pm.Laplace.dist(np.zeros((2, 2)), 1)), 2),
        ["mu", "shape (2, 2)", "the parameter (2,)"],
    ),
    "a prior of a list for one number": (
        bm.Bernoulli(p=pm.Beta.dist([1.0, 2.0], 1)),
        ["p:", "shape (2,)", "the parameter ()"],
    ),
}


def test_priors_whose_shape_broadcasts_are_fine():
    for mu in (pm.Normal.dist([-3.0, 4.0], 1), pm.Normal.dist([0.0], [1.0]), pm.Laplace.dist(0, 1, shape=2)):
        assert em(bm.Mixture(bm.Normal(mu=mu), 2), X).params["mu"].shape == (2,)
    each = pm.Beta.dist([[2.0], [1.0]], [1.0, 2.0, 3.0])  # by component and symbol
    sets = [{"a"}, {"b", "c"}, {"a", "b"}, set()] * 5
    assert em(bm.Mixture(bm.BernoulliSet(p=each), 2), sets).params["p"].shape == (2, 3)


def test_rows_of_which_no_vector_is_there_are_integrated_out():
    """Also where no row of the table has a vector, so that nothing says how long one is."""
    spec = bm.Composite(v=bm.MvNormal(), n=bm.Poisson())
    fit = em(spec, {"v": np.column_stack([X, -X + _rng.normal(size=40)]).tolist(), "n": N})
    lone = fit.log_density({"v": [None, None], "n": [3, None]})
    assert lone == pytest.approx(fit.log_density({"v": [None, [1.0, 2.0], None], "n": [3, 0, None]})[[0, 2]])


#: A call, and what the TypeError of a spec that cannot be made must say.
NO_SPECS = {
    "list and number": (lambda: bm.Mixture([bm.Normal(), bm.Normal()], 2), ["Mixture", "list", "leave n_components"]),
    "no number": (lambda: bm.Mixture(bm.Normal()), ["Mixture", "n_components is missing", "or a list"]),
    "two kinds of fields": (lambda: bm.Composite(bm.Normal(), x=bm.Poisson()), ["positional", "named", "not both"]),
    "one joint field": (lambda: bm.JointMixture(x=(bm.Normal(), 2)), ["two fields", "x=(bm.Normal(), 3)", "got 1"]),
    "three joint fields": (lambda: bm.JointMixture(**dict.fromkeys("abc", (bm.Normal(), 2))), ["got 3"]),
    "a joint field without number": (
        lambda: bm.JointMixture(x=(bm.Normal(), 2), y=bm.Poisson()),
        ["y:", "a spec and a number of components"],
    ),
    "a joint field's first list differs": (
        lambda: bm.JointMixture(x=[bm.Normal(), bm.Poisson()], y=(bm.Poisson(), 2)),
        ["x:", "different kinds", "second field", "change the order"],
    ),
}


def test_a_joint_mixture_takes_a_list_of_equal_components():
    listed = bm.JointMixture(x=[bm.Normal(), bm.Normal()], y=(bm.Poisson(), 2))
    assert listed == bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2))


@pytest.mark.parametrize("kind", NO_SPECS)
def test_a_spec_that_cannot_be_made_says_how_it_is_meant(kind):
    make, needles = NO_SPECS[kind]
    with pytest.raises(TypeError) as caught:
        make()
    for needle in needles:
        assert needle in str(caught.value), f"{needle!r} is not in: {caught.value}"


@pytest.mark.parametrize("kind", SPEC_FAULTS)
def test_one_clear_error_of_the_spec(kind):
    spec, needles = SPEC_FAULTS[kind]
    column = (N > 5) if isinstance(spec, bm.Bernoulli) else X
    with pytest.raises(bm.SpecError) as caught:
        em(spec, column)
    assert len(caught.value.faults) == 1, caught.value.faults
    for needle in needles:
        assert needle in str(caught.value), f"{needle!r} is not in: {caught.value}"


def test_several_faults_of_the_spec_are_listed_by_path():
    spec = bm.Mixture(bm.Composite(a=bm.Mixture(bm.Normal(), 0), b=7), 0)
    with pytest.raises(bm.SpecError, match="3 faults in the spec") as caught:
        em(spec, {"a": X, "b": N})
    paths = " ".join(caught.value.faults)
    assert re.search(r"\ba\.n_components", paths)
    assert re.search(r"(?<![.\w])n_components", paths)


def test_a_prior_of_the_wrong_shape_is_a_spec_error():
    with pytest.raises(bm.SpecError, match="weights"):
        em(bm.Mixture(bm.Normal(), 2, weights=pm.Dirichlet.dist([1.0, 1.0, 1.0])), X)
    with pytest.raises(bm.SpecError, match="probabilities"):
        em(bm.Mixture(bm.Normal(), 2, weights=pm.Normal.dist()), X)


def test_a_position_takes_no_prior_of_ones_own():
    with pytest.raises(bm.SpecError, match=r"k: fix it at a whole number, or leave it out"):
        em(bm.SpikeAndSlab(k=pm.Poisson.dist(3.0)), [1, 2, 3, 2, 2])


def test_a_missing_symbol_within_a_chain_is_named_by_its_place_MarkovChain():
    spec = bm.Mixture(bm.Composite(w=bm.MarkovChain()), 2)
    with pytest.raises(
        bm.DataError, match=r"w: row 3 has a missing symbol at place 1; .* own symbol, or mark the whole"
    ):
        em(spec, {"w": [["a", "b"], [], None, ["a", None, "b"], ["b"]]})


def test_tables_without_rows_are_refused_of_a_fit_too():
    fit = em(bm.Mixture(bm.Poisson(), 2), [1, 2, 9, 8])
    for method in (fit.log_density, fit.predict, fit.responsibilities):
        with pytest.raises(bm.DataError, match=r"the table has no rows. Pass at least one"):
            method([])


def test_a_generator_as_a_seed_goes_on():
    spec = bm.Mixture(bm.Normal(mu=[0.0, 3.0], sigma=1.0), 2, weights=[0.5, 0.5])
    rng = np.random.default_rng(3)
    first, second = (bm.sample(spec, 5, random_seed=rng)["x"].to_numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    again = bm.sample(spec, 5, random_seed=np.random.default_rng(3))["x"].to_numpy()
    np.testing.assert_array_equal(first, again)


# ------------------------------------------------------------------- symbols first met at prediction


def test_an_unseen_symbol_is_an_error_or_missing_Categorical():
    spec = bm.Mixture(bm.Composite(c=bm.Categorical(), x=bm.Normal()), 2)
    fit = em(spec, {"c": np.array(["u", "v"], object)[_GROUP], "x": X})
    new = {"c": ["u", "w"], "x": [-3.0, 4.0]}
    with pytest.raises(bm.DataError) as caught:
        fit.log_density(new)
    for needle in ("c", "row 1", "'w'", 'unseen="ignore"'):
        assert needle in str(caught.value)
    ignored = fit.log_density(new, unseen="ignore")
    np.testing.assert_array_equal(ignored, fit.log_density({"c": ["u", None], "x": [-3.0, 4.0]}))
    with pytest.raises(ValueError, match="unseen"):
        fit.predict(new, unseen="drop")


def test_objects_are_not_copied_and_strings_of_arrow_are_one_where_they_are_equal():
    """A table of symbols would otherwise take several times what its columns do."""
    cells = np.array(["x", None, "y", "x"], object)
    column = column_of(cells, "a")
    assert column.values is cells
    assert column.missing.tolist() == [False, True, False, False]
    text = pd.Series(["long enough"] * 3, dtype="string[pyarrow]")
    assert len(set(map(id, column_of(text, "a").values))) == 1
    numbers = np.array([np.int64(1), "x"], object)
    assert type(column_of(numbers, "a").values[0]) is int
    assert type(numbers[0]) is np.int64


# ------------------------------------------------------------------ slips of a first hour


def test_a_name_close_to_a_right_one_is_suggested():
    table = {"Horsepower": X, "Origin": ["a"] * len(X)}
    spec = bm.Mixture(bm.Composite(Horsepowr=bm.Normal(), origin=bm.Categorical(), other=bm.Normal()), 2)
    with pytest.raises(bm.DataError) as caught:
        bm.fit(spec, table)
    first, second, third = caught.value.faults
    assert first.endswith("Did you mean Horsepower?")
    assert second.endswith("Did you mean Origin?")
    assert third.endswith("Rename the column or the field.")
    with pytest.raises(TypeError, match=r"Did you mean random_seed\?"):
        bm.fit(bm.Mixture(bm.Normal(), 2), X, random_state=1)


def test_spec_and_table_the_wrong_way_round_and_a_path():
    with pytest.raises(TypeError, match=r"not DataFrame; the spec comes first"):
        bm.fit(pd.DataFrame({"x": X}), bm.Mixture(bm.Normal(), 2))
    with pytest.raises(TypeError, match=r"the class Normal"):
        bm.fit(bm.Normal, X)
    with pytest.raises(bm.DataError, match=r"not str. Read the file first"):
        bm.infer_spec("cars.csv")
    with pytest.raises(bm.DataError, match=r"x: Normal needs numbers.*Make numbers of dates"):
        bm.fit(bm.Mixture(bm.Composite(x=bm.Normal()), 2), {"x": pd.date_range("2024", periods=5)})
    twice = pd.DataFrame(np.ones((3, 3)), columns=["a", "b", "a"])
    with pytest.raises(bm.DataError, match=r"columns with one name: 'a' 2 times\. Rename"):
        bm.infer_spec(twice)


def test_warnings_point_at_the_line_that_led_to_them():
    with pytest.warns(bm.DegenerateWarning) as caught:
        bm.fit(bm.Mixture(bm.Normal(), 2), np.full(20, 5.0), random_seed=1)
    assert {Path(each.filename).name for each in caught} == {"test_data.py"}


def test_plots_need_no_import_of_their_own():
    code = "import sys, bayesmix as bm; assert 'matplotlib' not in sys.modules; bm.plots.plot_fields"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match=r"no attribute 'plot'"):
        bm.plot  # noqa: B018


@pytest.mark.parametrize(
    "values",
    [np.array([-100, 20, 100, 20], np.int8), np.arange(-20_000, 20_000, dtype=np.int16)],
    ids=["int8", "int16"],
)
def test_symbols_of_small_integers_that_are_far_apart(values):
    """Their differences do not fit into their type: 100 was read as -35."""
    codes, symbols = column_of(values, "x").coded()
    np.testing.assert_array_equal(np.array(symbols)[codes], values.astype(int))
    levels = bm.fit(bm.Categorical(), values[:3]).bound.learned["root"].levels
    assert levels == tuple(sorted(values[:3].tolist()))


def test_arrow_integers_that_doubles_round():
    """An identifier beside the fields was an error of Arrow's where one was missing."""
    table = pa.table({"id": pa.array([2**60 + 1, None, 3], pa.int64()), "x": [1.0, 2.0, 3.0]})
    column = read(table).columns[0]
    assert column.missing.tolist() == [False, True, False]
    assert column.values[0] == 2.0**60
