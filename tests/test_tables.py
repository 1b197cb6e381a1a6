"""Tables in and out: specs that are proposed for a table, and imputed tables in the caller's own type."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.datasets import load_wine

import bayesmix as bm
from bayesmix.datasets import penguins

N = 60
_rng = np.random.default_rng(3)


def _gone(cells, row):
    cells = list(cells)
    cells[row] = None
    return cells


# ------------------------------------------------------------------ infer_spec

#: Column -> cells, the code that is proposed (empty: left out), and a word of the note.
COLUMNS = {
    "height": (_rng.normal(170, 8, N).tolist(), "Normal()", "real numbers"),
    "change": (_rng.integers(-40, 40, N).tolist(), "Normal()", "whole numbers"),
    "spend": (np.exp(_rng.normal(2, 1.2, N)).tolist(), "LogNormal()", "skewed"),
    "claims": (np.where(_rng.random(N) < 0.5, 0, _rng.exponential(300, N)).tolist(), "Exponential()", "zeros"),
    "visits": (_rng.poisson(3, N).tolist(), "Poisson()", "counts"),
    "falls": (np.where(_rng.random(N) < 0.6, 0, _rng.poisson(6, N)).tolist(), "Poisson()", "zeros, more than"),
    "member": ((_rng.random(N) < 0.4).tolist(), "Bernoulli()", "truth values"),
    "smokes": (_rng.integers(0, 2, N).tolist(), "Bernoulli()", "0 and 1"),
    "town": (_rng.choice(["Ayr", "Ely", "Rye"], N).tolist(), "Categorical()", "3 symbols: Ayr, Ely, Rye"),
    "rating": (_rng.integers(1, 6, N).tolist(), "Categorical()", "Poisson() if they count"),
    "year": (_rng.integers(2007, 2010, N).tolist(), "Categorical()", "few values"),
    "half": (_rng.choice([0.5, 1.5], N).tolist(), "Categorical()", "few values"),
    "age": (_rng.integers(18, 90, N).tolist(), "Normal()", "taken as measurements"),
    "tags": ([frozenset("ab"[: i % 3]) for i in range(N)], "BernoulliSet()", "sets of 2 symbols"),
    "walk": (
        [list("uv" * (1 + i % 4)) for i in range(N)],
        "MarkovChain(length=Poisson())",
        "depends on the one before",
    ),
    "words": (
        [_rng.choice(list("pqr"), 1 + i % 4).tolist() for i in range(N)],
        "Sequence(Categorical(), length=Poisson())",
        "no sign that their order matters",
    ),
    "pulse": (
        [_rng.normal(size=1 + i % 3).tolist() for i in range(N)],
        "Sequence(Normal(), length=Poisson())",
        "lists",
    ),
    "point": ([_rng.normal(size=2).tolist() for _ in range(N)], "Sequence(Normal())", "MvNormal()"),
    "maybe": (_gone(_rng.normal(size=N), 4), "Normal()", "1 missing (1.7 %), at random unless in Optional()"),
    "row": (list(range(N)), "", "identifier"),
    "customer_id": (_rng.permutation(N).tolist(), "", "identifier"),
    "name": ([f"n{i}" for i in range(N)], "", "free text"),
    "day": ([datetime.date(2024, 1, 1) + datetime.timedelta(i) for i in range(N)], "", "dates"),
    "unit": (["kg"] * N, "", "one value (kg)"),
    "price": ([f"{x:.2f}" for x in _rng.normal(size=N)], "", "numbers written as text"),
    "huge": ([float("inf"), *_rng.normal(size=N - 1)], "", "infinite"),
    "record": ([{"a": 1.0}] * N, "", "records"),
    "nothing": ([None] * N, "", "every cell is missing"),
    "trials": ([1, *(1 + _rng.binomial(20, 0.3, N - 1))], "Poisson()", "Geometric() if they count trials"),
    "seen_at": (_rng.permutation(9 * N)[:N].tolist(), "Normal()", "taken as measurements"),
    "idle": ([0.0, *_rng.exponential(300, N - 1)], "Exponential()", "skewed"),
    "switches": ([[True, i % 2 == 0] for i in range(N)], "Sequence(Bernoulli())", "lists of 2 truth values"),
    "gaps": ([["u", None, "v"] for _ in range(N)], "Sequence(Categorical())", "no sign that their order"),
    "only": ([["uv"[i % 2]] for i in range(N)], "Sequence(Categorical())", "no sign that their order"),
    "vocabulary": (
        [[f"w{j}" for j in _rng.integers(0, 220, 10)] for _ in range(N)],
        "Sequence(Categorical())",
        "no sign that their order",
    ),
    "": (_rng.normal(size=N).tolist(), "", "the column has no name"),
    "street": ([f"s{i % 40}" for i in range(N)], "", f"40 different values in {N} rows"),
    "paid": ([Decimal(25 * int(i)).scaleb(-2) for i in _rng.integers(0, 9, N)], "", "convert the column to float"),
}
#: The same of columns that are no frame's.
MIXED = {
    "no_tags": ([frozenset()] * N, "every set is empty"),
    "sets_and_text": ([frozenset("a"), "b"] * (N // 2), "sets or records among other things"),
    "lists_and_text": ([["a"], "b"] * (N // 2), "lists among single values"),
    "no_elements": ([[]] * N, "every list is empty"),
    "lists_of_lists": ([[[1.0], [2.0]]] * N, "lists of lists or of records"),
    "lists_of_records": ([[{"a": 1.0}]] * N, "lists of lists or of records"),
    "lists_of_sets": ([[{"a"}, {"b"}]] * N, "lists of things that cannot be told apart"),
    "one_symbol": ([["a"] * (1 + i % 3) for i in range(N)], "lists of one symbol over and over"),
    "lists_of_names": ([[f"a{i}", f"b{i}"] for i in range(N)], f"lists of {2 * N} different symbols"),
    "not_hashable": ([bytearray(b"a"), bytearray(b"b")] * (N // 2), "cannot be told apart (not hashable)"),
}
TABLE = {name: cells for name, (cells, _, _) in COLUMNS.items()}


@pytest.fixture(scope="module")
def inferred():
    return bm.infer_spec(TABLE, 2)


@pytest.mark.parametrize("name", COLUMNS)
def test_the_proposal_for_a_column(inferred, name):
    _, code, word = COLUMNS[name]
    line = inferred.notes.loc[name]
    assert line["spec"] == code
    assert word in line["note"]


@pytest.mark.parametrize("name", MIXED)
def test_what_no_family_takes_is_left_out_with_the_reason(name):
    cells, word = MIXED[name]
    line = bm.infer_spec({name: cells, "x": _rng.normal(size=N)}, 2).notes.loc[name]
    assert line["spec"] == ""
    assert word in line["note"]


def test_it_prints_as_the_code_that_makes_it(inferred):
    assert eval(repr(inferred), vars(bm)) == inferred == inferred.spec
    for name, (_, code, _) in COLUMNS.items():
        assert (f"    {name}={code}," if code else f"# left out: {name}: ") in repr(inferred)


def test_it_goes_wherever_a_spec_goes(inferred, tmp_path):
    spec = inferred.edit(claims=None)  # its zeros are a spike, of which fits warn
    fit = bm.fit(spec, TABLE, n_starts=2, random_seed=1)
    assert fit.loglik == bm.fit(spec.spec, TABLE, n_starts=2, random_seed=1).loglik
    fit.save(tmp_path / "fit")
    assert bm.load(tmp_path / "fit").spec == spec
    assert type(fit.spec) is bm.Mixture  # the notes were for the reader


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_all_libraries_frames_give_one_spec(make, inferred):
    plain = {name: cells for name, cells in TABLE.items() if name not in ("tags", "record", "nothing")}
    assert bm.infer_spec(make(plain), 2) == bm.infer_spec(plain, 2)


def test_declared_categories_are_categories():
    codes = pd.Categorical.from_codes(_rng.integers(0, 2, N), categories=[10, 20, 30])
    frame = pd.DataFrame({"code": codes, "when": pd.date_range("2024", periods=N, tz="UTC")})
    spec = bm.infer_spec(frame, 2)
    assert spec.notes["spec"].to_dict() == {"code": "Categorical()", "when": ""}


def test_few_values_that_many_rows_share_are_categories():
    """Fitted as measurements, a component shrank onto the value 0 of `children`; of `party` no Poisson has two ends."""
    n = 300
    table = {
        "children": _rng.choice([0, 1, 2, 3, 4, 5.5], n),
        "party": _rng.choice(7, n, p=[0.3, 0.1, 0.1, 0.05, 0.05, 0.1, 0.3]),
        "falls": _rng.poisson(1.0, n),
        "grid": np.round(_rng.normal(size=n), 1),
    }
    spec = bm.infer_spec(table, 2)
    assert spec.notes["spec"].tolist() == ["Categorical()", "Categorical()", "Poisson()", "Normal()"]
    assert "Normal() if they measure something" in spec.notes.loc["children", "note"]
    assert "Poisson() if they have no upper end" in spec.notes.loc["party", "note"]
    few = {name: cells[:40] for name, cells in table.items()}  # of 40 rows nothing of the kind can be said
    assert bm.infer_spec(few, 2).notes.loc["children", "spec"] == "Normal()"


def test_codes_for_missing_cells_are_spoken_of():
    numbers = np.r_[_rng.normal(20, 3, 60), [-999.0] * 8]
    counts = np.r_[_rng.poisson(3, 60), [99] * 8]
    notes = bm.infer_spec({"x": numbers, "n": counts, "fine": np.r_[_rng.normal(20, 3, 67), 60.0]}, 2).notes["note"]
    assert notes["x"].endswith("8 of them are -999, far from all others: mark them missing if -999 means that")
    assert "8 of them are 99, far" in notes["n"]
    assert "far from" not in notes["fine"]  # one row alone is an outlier
    texts = [*map(str, range(20)), "?"]
    with pytest.raises(bm.DataError, match=r"numbers written as text, but for '\?'.*errors=\"coerce\""):
        bm.infer_spec({"power": texts}, 2)


@pytest.mark.parametrize("n_components", [0, -1, 2.0, "3", True])
def test_the_number_of_components_is_looked_at_before_the_fit(n_components):
    with pytest.raises(ValueError, match=r"n_components: a whole number of at least 1"):
        bm.infer_spec({"x": [1.5, 2.5, 4.0]}, n_components)


def test_a_table_without_rows():
    with pytest.raises(bm.DataError, match=r"^data: the table has no rows\."):
        bm.infer_spec({"x": [], "y": []})


def test_edit_changes_fields(inferred):
    spec = inferred.edit(4, visits=bm.Geometric(), town=None, extra=bm.Normal())
    fields = dict(spec.component.parts)
    assert spec.n_components == 4
    assert fields["visits"] == bm.Geometric()
    assert "town" not in fields
    assert list(fields)[-1] == "extra"
    assert "town" in dict(inferred.component.parts)  # specs do not change
    assert spec.notes.loc["town", "note"] == "by your choice"
    assert eval(repr(spec), vars(bm)) == spec
    with pytest.raises(KeyError, match="no such field"):
        inferred.edit(nobody=None)
    with pytest.raises(TypeError, match="a node such as"):
        inferred.edit(town="Categorical")


def test_names_that_are_no_keywords():
    table = {"body mass": [1.0, 2.5, 3.5], "class": ["a", "b", "a"], "self": [0, 1, 1], "it's\n# a": [1.5, 2.5, 2.0]}
    spec = bm.infer_spec(table, 1)
    assert eval(repr(spec), vars(bm)) == spec
    assert [name for name, _ in spec.component.parts] == list(table)


def test_a_table_that_leaves_nothing_is_an_error():
    with pytest.raises(bm.DataError, match=r"no column is left.*unit: one value"):
        bm.infer_spec({"unit": ["kg"] * 5, "row": [None] * 5})
    with pytest.raises(bm.DataError, match=r"x2: one value.*go by position"):
        bm.infer_spec(np.column_stack([_rng.normal(size=20), np.ones(20)]))


def test_arrays_go_by_position():
    x = np.column_stack([_rng.normal(size=30), _rng.poisson(2, 30)])
    spec = bm.infer_spec(x, 2)
    assert repr(spec.spec) == "Mixture(Composite(x1=Normal(), x2=Poisson()), 2)"
    assert bm.fit(spec, x, n_starts=1, random_seed=1).predict().shape == (30,)


def test_a_new_user_on_two_tables_of_others():
    """Five commands: infer, fit, and what is asked of the fit; the groups were not shown."""
    for table, truth, least in (
        (penguins().drop(columns=["species", "year"]), penguins()["species"], 0.6),
        (load_wine(as_frame=True).frame.drop(columns="target"), load_wine().target, 0.75),
    ):
        fit = bm.fit(bm.infer_spec(table, 3), table, random_seed=1)
        found = pd.crosstab(fit.predict(), np.asarray(truth))
        assert found.max(axis=1).sum() / len(table) > least
        text = "\n".join(each.text for each in fit.describe(n_fields=50).components)
        assert all(f"  {name}: " in text for name in dict(fit.spec.component.parts))


# ------------------------------------------------------------------ imputed tables

CELLS = {
    "x": _gone(_rng.normal(size=N), 1),
    "n": _gone(_rng.poisson(3, N).tolist(), 2),
    "c": _gone(_rng.choice(["a", "b"], N).tolist(), 3),
    "t": _gone((_rng.random(N) < 0.5).tolist(), 4),
    "s": _gone([["a", "b"][: 1 + i % 2] for i in range(N)], 5),
    "w": _gone([["p", "q"][: i % 3] for i in range(N)], 6),
    "kept": [f"k{i}" if i else None for i in range(N)],
}
SPEC = bm.Mixture(
    bm.Composite(
        x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical(), t=bm.Bernoulli(), s=bm.BernoulliSet(), w=bm.MarkovChain()
    ),
    2,
)


def _imputed(data, spec=SPEC):
    fit = bm.fit(spec, data, n_starts=1, max_iter=3, random_seed=1)
    return fit.impute(n_draws=20, random_seed=1).table()


def _pandas(**types):
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in CELLS.items()})
    return frame.astype(types)


_TYPES = {"x": "float32", "n": "Int16", "c": "category", "t": "boolean", "kept": "string"}
_INDICES = {
    "labels": pd.Index([f"r{i}" for i in range(N)], name="who"),
    "several": pd.MultiIndex.from_arrays([range(N), ["i"] * N], names=["a", "b"]),
    "dates": pd.date_range("2024", periods=N, name="day"),
    "twice": pd.Index(["same"] * N),
}


@pytest.mark.filterwarnings("ignore::bayesmix.ConvergenceWarning")
@pytest.mark.parametrize("index", _INDICES)
def test_pandas_comes_back_with_its_index_and_types(index):
    frame = _pandas(**_TYPES).set_index(_INDICES[index])
    before = frame.copy(deep=True)
    full = _imputed(frame)
    pd.testing.assert_index_equal(full.index, frame.index)
    assert full.dtypes.to_dict() == frame.dtypes.to_dict()
    assert list(full.columns) == list(frame.columns)
    assert full.drop(columns="kept").notna().all(axis=None)
    assert full["kept"].isna().sum() == 1  # the spec does not name it
    there = frame.drop(columns=["s", "w"]).notna()
    assert (full[there.columns].where(there) == frame[there.columns].where(there)).where(there, True).all(axis=None)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.filterwarnings("ignore::bayesmix.ConvergenceWarning")
def test_polars_comes_back_with_its_types():
    frame = pl.DataFrame(CELLS, schema_overrides={"x": pl.Float32, "n": pl.Int16, "c": pl.Enum(["a", "b"])})
    for given in (frame, frame.lazy(), frame.with_columns(pl.col("c").cast(pl.String).cast(pl.Categorical))):
        full = _imputed(given)
        assert full.schema == given.lazy().collect_schema()
        assert full.drop("kept").null_count().sum_horizontal().item() == 0


@pytest.mark.filterwarnings("ignore::bayesmix.ConvergenceWarning")
def test_arrow_comes_back_with_its_types():
    table = pa.table(CELLS)
    small = {"n": pa.int8(), "c": pa.dictionary(pa.int32(), pa.string()), "s": pa.large_list(pa.string())}
    for name, kind in small.items():
        place = table.schema.get_field_index(name)
        column = table[name].dictionary_encode() if name == "c" else table[name].cast(kind)
        table = table.set_column(place, pa.field(name, kind, metadata={"unit": "none"}), column)
    table = table.replace_schema_metadata({"made": "by hand"})
    full = _imputed(table)
    assert full.schema.equals(table.schema, check_metadata=True)
    assert sum(column.null_count for column in full.drop_columns("kept").columns) == 0


_SYMBOLS = {"s": ["v", None, None, "new"], "w": [None, 0.0, 0.0, 0.0]}
_LACKING = {
    "pandas": lambda: pd.DataFrame(_SYMBOLS).astype({"s": pd.CategoricalDtype(["v", "new"])}),
    "ordered": lambda: pd.DataFrame(_SYMBOLS).astype({"s": pd.CategoricalDtype(["new", "v"], ordered=True)}),
    "polars": lambda: pl.DataFrame(_SYMBOLS, schema_overrides={"s": pl.Enum(["v", "new"])}),
    "pyarrow": lambda: pa.table(_SYMBOLS).set_column(0, "s", pa.array(_SYMBOLS["s"]).dictionary_encode()),
}


@pytest.mark.parametrize("kind", _LACKING)
def test_categories_that_a_column_lacks_are_added(kind):
    """Cells whose symbol was no category of the column stayed missing in pandas, and were an error in polars."""
    train = {"s": ["u"] * 30 + ["v"], "w": _rng.normal(size=31)}
    fit = bm.fit(bm.Composite(s=bm.Categorical(), w=bm.Normal()), train, random_seed=1)
    given = _LACKING[kind]()
    imputed = fit.impute(given, unseen="ignore", n_draws=20, random_seed=1)
    full = imputed.table()
    assert list(full["s"].to_pylist() if kind == "pyarrow" else full["s"]) == ["v", "u", "u", "new"]
    assert imputed.rows["s"].tolist() == [1, 2, 3]  # a symbol that the fit does not know is as good as none
    if kind in ("pandas", "ordered"):
        assert full["s"].dtype == pd.CategoricalDtype([*given["s"].cat.categories, "u"], kind == "ordered")
    elif kind == "polars":
        assert full.schema["s"] == pl.Enum(["v", "new", "u"])
    else:
        assert full.schema.field("s").type == given.schema.field("s").type


@pytest.mark.parametrize(
    "blank",
    [
        pa.table({"x": pa.nulls(3), "n": pa.nulls(3), "c": pa.nulls(3)}),
        pl.DataFrame({"x": [None] * 3, "n": [None] * 3, "c": [None] * 3}),
        pd.DataFrame({"x": [None] * 3, "n": [None] * 3, "c": [None] * 3}, dtype=pd.ArrowDtype(pa.null())),
        pd.DataFrame({"x": [None] * 3, "n": [None] * 3, "c": [None] * 3}),
    ],
    ids=["pyarrow", "polars", "pandas of arrow", "pandas"],
)
def test_columns_without_a_cell_take_the_type_of_what_they_get(blank):
    train = {"x": _rng.normal(size=30), "n": _rng.poisson(3, 30), "c": ["u"] * 30}
    fit = bm.fit(bm.Composite(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical()), train, random_seed=1)
    full = fit.impute(blank, n_draws=20, random_seed=1).table()
    assert type(full) is type(blank)
    cells = {name: full[name].to_pylist() if isinstance(full, pa.Table) else list(full[name]) for name in "xnc"}
    assert all(isinstance(cell, float) for cell in cells["x"])
    assert all(cell == int(cell) for cell in cells["n"])
    assert cells["c"] == ["u"] * 3


def test_a_symbol_inside_a_record_or_a_sequence_that_the_fit_does_not_know_stays():
    train = {"r": [{"a": "u", "b": 1.0}] * 9, "q": [["u", "u"]] * 9}
    spec = bm.Composite(r=bm.Composite(a=bm.Categorical(), b=bm.Normal()), q=bm.Sequence(bm.Categorical()))
    fit = bm.fit(spec, train, random_seed=1)
    table = {"r": [{"a": "new", "b": None}, {"a": None, "b": 1.0}], "q": [["new", None], ["u"]]}
    full = fit.impute(table, unseen="ignore", n_draws=3, random_seed=1).table()
    assert full["r"][0]["a"] == "new"
    assert full["r"][0]["b"] == pytest.approx(1.0, abs=1.0)
    assert full["r"][1]["a"] == "u"
    assert full["q"].tolist() == [["new", "u"], ["u"]]


@pytest.mark.parametrize(
    "series",
    [
        pd.Series([1.0, None, 3.0, 4.0], index=list("abcd"), name="v"),
        pd.Series([1.0, None, 3.0, 4.0]),
        pl.Series("v", [1.0, None, 3.0, 4.0]),
        pa.chunked_array([[1.0, None], [3.0, 4.0]]),
    ],
    ids=["pandas", "without a name", "polars", "pyarrow"],
)
def test_a_series_comes_back_as_a_series(series):
    full = _imputed(series, bm.Normal())
    assert type(full) is type(series)
    assert len(full) == 4
    assert abs(full.to_numpy()[1] - 8 / 3) < 3
    if isinstance(series, pd.Series):
        pd.testing.assert_index_equal(full.index, series.index)
        assert full.name == series.name


@pytest.mark.parametrize("name", ["sepal.length", "od280/od315", "x[0]", "a[]", "body mass", "é", "draw", "mu"])
def test_columns_of_any_name(name, tmp_path):
    """Names with dots and slashes come from R and from scikit-learn's own tables; both used to fail."""
    frame = pd.DataFrame({"other": _rng.normal(size=N), name: _gone(_rng.normal(size=N), 7)})
    spec = bm.infer_spec(frame, 2)
    fit = bm.fit(spec, frame, n_starts=1, random_seed=1)
    full = fit.impute(n_draws=3, random_seed=1).table()
    assert list(full.columns) == list(frame.columns)
    assert full.notna().all(axis=None)
    assert name in fit.describe().components[0].fields
    fit.save(tmp_path / "fit")
    assert bm.load(tmp_path / "fit").spec == spec
    bm.build_model(spec, frame)


def test_names_that_differ_by_a_slash_are_two_fields():
    frame = pd.DataFrame({"a/b": _rng.normal(size=N), "a_b": _rng.normal(size=N)})
    with pytest.raises(bm.SpecError, match="a_b_mu: two variables would have this name"):
        bm.fit(bm.infer_spec(frame, 2), frame)


@pytest.mark.parametrize("name", ["component", "row"])
def test_a_name_that_is_taken_is_one_clear_error(name):
    frame = pd.DataFrame({name: _rng.normal(size=N)})
    with pytest.raises(bm.SpecError, match=f"{name}: a dimension of the results has this name. Rename the field"):
        bm.fit(bm.infer_spec(frame, 2), frame)


@pytest.mark.parametrize("name", ["chain", "draw"])
def test_a_name_of_a_dimension_of_draws(name):
    """It was xarray's error, of variables and coordinates."""
    frame = pd.DataFrame({name: _rng.normal(size=N)})
    fit = bm.fit(bm.infer_spec(frame, 2), frame, random_seed=1)
    with pytest.raises(bm.DataError, match=f"{name}: the draws have a dimension of this name. Rename the field"):
        fit.posterior_predictive()
    assert list(fit.sample(3).columns) == [name]
    assert len(fit.predictive_checks())


def test_records_in_one_series_come_back_as_records():
    records = pd.Series([(float(i % 7), None if i == 4 else "ab"[i % 2]) for i in range(N)], name="pair")
    full = _imputed(records, bm.Composite(bm.Normal(), bm.Categorical()))
    assert full[4][0] == 4.0
    assert full[4][1] in ("a", "b")
    assert full.drop(4).equals(records.drop(4))


@pytest.mark.parametrize("kind", ["in memory", "in parts", "loaded"])
def test_fields_without_names_find_their_columns_by_the_fitted_names(kind, tmp_path):
    """As MvNormal's coordinates do: a frame in another order is the same table, and one of other columns another."""
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1], 50)
    frame = pd.DataFrame({"a": rng.normal(5 * z, 1), "b": rng.normal(-3 * z, 2)})
    spec = bm.Mixture(bm.Composite(bm.Normal(), bm.Normal()), 2)
    fit = bm.fit(spec, [frame[:60], frame[60:]] if kind == "in parts" else frame, random_seed=1)
    if kind == "loaded":
        fit.save(tmp_path / "a.bm")
        fit = bm.load(tmp_path / "a.bm")
    own = fit.log_density(frame)
    np.testing.assert_array_equal(own, fit.log_density(frame.to_numpy()))
    np.testing.assert_array_equal(own, fit.log_density(frame[["b", "a"]]))
    np.testing.assert_array_equal(own, fit.log_density(frame.assign(more=1.0)))
    with pytest.raises(bm.DataError, match="no column 'b'"):
        fit.log_density(frame.rename(columns={"b": "c"}))
    drawn = fit.sample(5, random_seed=1)
    by_place = np.column_stack([np.asarray(drawn[name]) for name in drawn])
    np.testing.assert_array_equal(fit.log_density(drawn), fit.log_density(by_place))


def test_drawn_tables_go_by_place_where_columns_have_their_names_in_another_order():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x2": rng.normal(0, 1, 50), "x1": rng.normal(100, 1, 50)})
    fit = bm.fit(bm.Mixture(bm.Composite(bm.Normal(), bm.Normal()), 1), frame, random_seed=1)
    assert fit.predictive_checks(random_seed=1)["p_value"].between(0.001, 0.999).all()
