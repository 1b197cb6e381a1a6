"""Tables that are read in parts: the fit is that of the same table in memory, and every fault names its part."""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import bayesmix as bm
from bayesmix import sources, summaries
from bayesmix.bound import bind
from bayesmix.chunked import ChunkedEStep, Weighting, in_order, learn, n_bytes
from bayesmix.data import read
from bayesmix.inference.online import batches
from bayesmix.inference.rows import rows_in_parts
from bayesmix.inference.start import initial_params
from bayesmix.plan import EStep
from bayesmix.sources import source_of
from bayesmix.summaries import Counts, Quartiles
from tests.cases import CASES

N = 600
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), s=bm.Categorical()), 2)


#: Runs end where nothing is left to gain: sums in another order must not be told from others.
EM = dict(n_starts=2, tol=0, random_seed=1)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(sources, "ROWS", 128)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, N)
    symbols = np.array(list("abc"), object)[np.minimum(z + rng.integers(0, 2, N), 2)]
    table = pd.DataFrame({"x": rng.normal(5 * z, 1), "y": rng.poisson(1 + 6 * z), "s": symbols})
    table.loc[rng.random(N) < 0.1, "x"] = np.nan
    table.loc[rng.random(N) < 0.1, "s"] = None
    return table


@pytest.fixture(scope="module")
def local(frame):
    return bm.fit_em(SPEC, frame, **EM)


@pytest.fixture
def path(frame, tmp_path):
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=100)
    return tmp_path / "rows.parquet"


def same(fit, local):
    assert fit.bound.learned == local.bound.learned
    np.testing.assert_allclose(fit.loglik, local.loglik, rtol=1e-9)
    for name, value in local.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9, err_msg=name)
    assert fit.status.converged


# ------------------------------------------------------------------- every kind of source


def files_of(frame, folder, pieces):
    folder.mkdir()
    for i, piece in enumerate(np.array_split(np.arange(len(frame)), pieces)):
        frame.iloc[piece].to_parquet(folder / f"part{i}.parquet", index=False)
    return sorted(folder.iterdir())


KINDS = {
    "path": lambda frame, folder: str(files_of(frame, folder, 1)[0]),
    "Path of a folder": lambda frame, folder: files_of(frame, folder, 3)[0].parent,
    "paths": lambda frame, folder: files_of(frame, folder, 3),
    "pattern": lambda frame, folder: str(files_of(frame, folder, 3)[0].parent / "part*.parquet"),
    "dataset": lambda frame, folder: pyarrow.dataset.dataset(files_of(frame, folder, 3)[0].parent),
    "dataset of Arrow files": lambda frame, folder: arrow_dataset(frame, folder),
    "record batches": lambda frame, folder: pa.Table.from_pandas(frame).to_reader(max_chunksize=170),
    "small record batches": lambda frame, folder: pa.Table.from_pandas(frame).to_reader(max_chunksize=20),
    "pandas frames": lambda frame, folder: [frame.iloc[:50], frame.iloc[50:]],
    "polars frames": lambda frame, folder: [pl.from_pandas(frame.iloc[:50]), pl.from_pandas(frame.iloc[50:])],
    "function of dicts": lambda frame, folder: lambda: (dict(frame.iloc[i : i + 77]) for i in range(0, N, 77)),
    "function of record batches": lambda frame, folder: pa.Table.from_pandas(frame).to_batches,
    "Dask": lambda frame, folder: dask_frame(frame),
}


def arrow_dataset(frame, folder):
    folder.mkdir()
    pyarrow.dataset.write_dataset(pa.Table.from_pandas(frame), folder, format="arrow")
    return pyarrow.dataset.dataset(folder, format="arrow")


def dask_frame(frame):
    import dask.dataframe

    return dask.dataframe.from_pandas(frame, npartitions=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_of_a_source_is_that_of_the_table(kind, frame, local, tmp_path):
    same(bm.fit(SPEC, KINDS[kind](frame, tmp_path / "data"), **EM), local)


def test_folders_can_stand_for_columns(frame, local, tmp_path):
    named = frame.assign(s=frame["s"].fillna("a"))
    pyarrow.dataset.write_dataset(
        pa.Table.from_pandas(named, preserve_index=False), tmp_path / "by_s", format="parquet", partitioning=["s"],
        partitioning_flavor="hive",
    )  # fmt: skip
    order = named.sort_values("s", kind="stable")
    fit = bm.fit(SPEC, tmp_path / "by_s", **EM)
    same(fit, bm.fit(SPEC, order, **EM))


@pytest.mark.parametrize("memory", [0, 20_000, "1 GiB"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_neither_memory_nor_threads_change_anything(memory, n_jobs, path, local):
    same(bm.fit_em(SPEC, path, **EM, memory=memory, n_jobs=n_jobs), local)


def test_the_map_is_the_same_mode(path, frame):
    fit, whole = (bm.fit_map(SPEC, data, n_starts=2, random_seed=1) for data in (path, frame))
    assert fit.status.converged
    assert fit.status.engine == "map"
    for name, value in whole.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-6, err_msg=name)


def test_starts_of_many_rows_are_those_of_the_table_in_memory(monkeypatch, frame):
    """Above some number of rows starts run on a sample of them, which is drawn alike."""
    monkeypatch.setattr("bayesmix.inference.start._SAMPLE", 100)
    twice = pd.concat([frame, frame], ignore_index=True)  # more than two samples of 200 rows a component
    parts = [twice.iloc[i : i + 170] for i in range(0, 2 * N, 170)]
    whole, fit = (bm.fit_em(SPEC, data, n_starts=3, tol=0, random_seed=1) for data in (twice, parts))
    assert [run["status"] for run in fit.starts] == [run["status"] for run in whole.starts]
    same(fit, whole)


def test_memory_in_words():
    assert [n_bytes(m) for m in (7, "7", "2 GiB", "1.5k", "3 MB")] == [7, 7, 2**31, 1500, 3_000_000]
    with pytest.raises(ValueError, match="memory: a number of bytes"):
        n_bytes("much")


# ------------------------------------------------------------------- what nodes learn


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_in_parts(case):
    """Binding and E-step, whatever the parts: rows one by one, one part, parts of no rows."""
    column = list(case.column)
    size = len(column)
    spec = bm.Mixture(case.family(), 2)
    whole = read({"x": column})
    bound = bind(spec, whole)
    data = bound.encode(whole)
    params = initial_params(bound, data, np.ones(size), np.random.default_rng(0), 0)
    expected, stats = EStep(bound, data, np.ones(size))(params)
    for cuts in (range(1, size), [], [0, 0, 2, 2, size - 1], [size // 2]):
        pieces = [{"x": piece} for piece in split(column, cuts)]
        e_step = ChunkedEStep(learn(spec, source_of(lambda pieces=pieces: pieces)))
        loglik, own = e_step(params)
        np.testing.assert_allclose(loglik, expected, rtol=1e-9)
        for key in stats:
            for name, value in stats[key].items():
                np.testing.assert_allclose(own[key][name], value, rtol=1e-9, atol=1e-9, err_msg=f"{key}: {name}")


def split(cells, cuts):
    places = [0, *cuts, len(cells)]
    return [cells[a:b] for a, b in pairwise(places)]


VALUES = {
    "normal": lambda rng: rng.normal(size=3001),
    "far from zero": lambda rng: 1.7e9 + rng.normal(size=3000),
    "both signs and zeros": lambda rng: np.concatenate([[0.0, -0.0] * 200, rng.normal(size=300)]),
    "ties": lambda rng: rng.integers(-2, 3, 3000).astype(float),
    "one value": lambda rng: np.full(500, 3.3),
    "two values": lambda rng: np.repeat([1.0, 2.0], [500, 501]),
    "tiny": lambda rng: 1e-300 * rng.normal(size=501),
    "parts without values": lambda rng: np.r_[np.full(1000, np.nan), rng.normal(size=1000), np.full(900, np.nan)],
    "with gaps": lambda rng: np.where(rng.random(900) < 0.5, np.nan, rng.exponential(size=900)),
}


@pytest.mark.parametrize("kept", [4, 100, 10_000])
@pytest.mark.parametrize("name", VALUES)
def test_quartiles_are_exact_in_bounded_memory(name, kept, monkeypatch):
    monkeypatch.setattr(summaries, "_KEPT", kept)
    values, earlier, looks = VALUES[name](np.random.default_rng(0)), None, 0
    while earlier is None or earlier.open:
        before, earlier = earlier, None
        for part in np.array_split(values, 7):
            own = Quartiles.of(part, before).compact()
            earlier = own if earlier is None else (earlier + own).compact()
            assert earlier.kept is None or len(earlier.kept) <= max(kept, 2)
        looks += 1
    there = values[~np.isnan(values)]
    assert earlier.n == len(there)
    assert looks <= 4
    assert earlier.quartiles() == np.quantile(there, [0.25, 0.5, 0.75]).tolist()
    scale = np.std(there - np.median(there))
    np.testing.assert_allclose(earlier.deviation(), scale, rtol=1e-9)
    assert (earlier.deviation() == 0) == (scale == 0)


def test_symbols_keep_the_order_in_which_they_came():
    """Levels that cannot be sorted stand in order of appearance, over parts as in one."""
    symbols = [("b", 1), 3, "a", ("b", 1), None, "a"]
    whole = bind(bm.Mixture(bm.Categorical(), 2), read({"x": symbols})).learned
    parts = learn(bm.Mixture(bm.Categorical(), 2), source_of(lambda: [{"x": symbols[:1]}, {"x": symbols[1:]}]))
    assert parts.bound.learned == whole
    assert list((Counts(Counter("ba")) + Counts(Counter("cb"))).counts) == ["b", "a", "c"]


def test_levels_that_frames_declare():
    first = pd.DataFrame({"s": pd.Categorical(["b", "a"], categories=["b", "a", "never"])})
    second = pd.DataFrame({"s": pd.Categorical(["b", "b"], categories=["b", "a", "never"])})
    learned = learn(bm.Mixture(bm.Categorical(), 2), source_of([first, second])).bound.learned
    (levels,) = [value.levels for value in learned.values() if hasattr(value, "levels")]
    assert levels == ("b", "a", "never")


def test_levels_that_parts_declare_differently():
    """What any part declares is a level; where a part declares none, symbols are levels as they are met."""
    first = pd.DataFrame({"s": pd.Categorical(["b", "a"], categories=["b", "a", "never"])})
    second = pd.DataFrame({"s": pd.Categorical(["a", "c"], categories=["c", "a"])})
    plain = pd.DataFrame({"s": ["a", "c"]}, dtype=object)
    for parts, levels in (([first, second], ("b", "a", "never", "c")), ([first, plain], ("a", "b", "c"))):
        learned = learn(bm.Mixture(bm.Categorical(), 2), source_of(parts)).bound.learned
        (found,) = [value.levels for value in learned.values() if hasattr(value, "levels")]
        assert found == levels


def test_vectors_of_another_length_in_a_later_part_MvNormal():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(bm.DataError, match="vectors of different lengths, 3 and 2"):
        bm.fit(bm.Mixture(bm.MvNormal(), 2), lambda: iter([{"v": list(rows)}, {"v": list(rows[:, :2])}]))


def test_fields_that_are_tied_read_one_type():
    spec = bm.Mixture(bm.Composite(a=bm.Categorical(tie="s"), b=bm.Categorical(tie="s")), 2)
    parts = [{"a": ["u", "v", "u"], "b": [1.5, 2.5, 1.5]}] * 2
    with pytest.raises(bm.DataError, match=r"a and b: tied nodes read columns of .*number.* and .*Give them one type"):
        bm.fit(spec, lambda: parts)


def test_what_only_the_last_part_has(frame, local):
    """A symbol, and the only cells of a column."""
    order = np.argsort(frame["s"].fillna("").to_numpy(), kind="stable")  # all of one symbol last
    late = frame.iloc[order].assign(x=frame["x"].iloc[order].where(np.arange(N) >= N - 100))
    parts = [late.iloc[:200], late.iloc[200:200], late.iloc[200:400], late.iloc[400:]]
    same(bm.fit(SPEC, parts, **EM), bm.fit(SPEC, late, **EM))


def test_a_family_that_only_learns_from_its_column():
    """Its summary is the column's cells."""
    from bayesmix.families.normal import Normal

    class Plain(Normal):
        summarise = bm.families._contract.Leaf.summarise
        learn_summary = bm.families._contract.Leaf.learn_summary

        def learn_column(self, column):
            return Normal.learn_summary(self, Normal.summarise(self, column), column.name)

    x = np.random.default_rng(0).normal(size=50)
    parts = source_of(lambda: [{"x": x[:20]}, {"x": np.full(5, np.nan)}, {"x": x[20:]}])
    learned = learn(bm.Mixture(Plain(), 2), parts).bound.learned
    assert list(learned.values()) == list(bind(bm.Mixture(bm.Normal(), 2), read(x)).learned.values())


# ------------------------------------------------------------------- row weights


def test_row_weights_as_a_column_and_as_an_array(path, frame, tmp_path):
    weights = np.random.default_rng(1).integers(0, 3, N).astype(float)
    whole = bm.fit_em(SPEC, frame, row_weights=weights, **EM)
    frame.assign(w=weights).to_parquet(tmp_path / "weighted.parquet", row_group_size=90)
    same(bm.fit_em(SPEC, tmp_path / "weighted.parquet", row_weights="w", **EM), whole)
    same(bm.fit_em(SPEC, path, row_weights=weights, **EM), whole)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("no", "the table has no column 'no'"),
        ("x", "rows.parquet.*x must hold a number in each row"),
        (np.ones(3), r"shape \(3,\) for 600 rows"),
        (np.zeros(N), "all weights are 0"),
    ],
)
def test_bad_row_weights(weights, message, path):
    with pytest.raises(bm.DataError, match=message):
        bm.fit_em(SPEC, path, row_weights=weights)
    nothing = path.with_name("nothing.parquet")
    pd.read_parquet(path).assign(w=0.0).to_parquet(nothing)
    with pytest.raises(bm.DataError, match=r"row_weights: all weights are 0. Give at least one row a weight"):
        bm.fit_em(SPEC, nothing, row_weights="w")
    with pytest.raises(bm.DataError, match="row 1 is -2"):
        Weighting("w").split(read({"w": [1, -2]}), 0)


# ------------------------------------------------------------------- what stays in memory


def test_rows_that_fit_only_in_part_are_read_again(frame):
    """One part of many chunks, room for a few of them: each pass is that of the whole table."""
    whole = read(frame)
    bound = bind(SPEC, whole)
    data = bound.encode(whole)
    params = initial_params(bound, data, np.ones(N), np.random.default_rng(0), 0)
    expected, stats = EStep(bound, data, np.ones(N))(params)
    reads = []

    def chunks():
        reads.append(1)
        return [frame.iloc[i : i + 100] for i in range(0, N, 100)]

    rows = learn(SPEC, source_of(chunks))
    for memory, passes in (("1 GiB", 1), (1, 3)):
        e_step = ChunkedEStep(rows, memory=memory)
        before = len(reads)
        for _ in range(3):
            loglik, own = e_step(params)
            np.testing.assert_allclose(loglik, expected, rtol=1e-9)
            for key in stats:
                for name, value in stats[key].items():
                    np.testing.assert_allclose(own[key][name], value, rtol=1e-9, atol=1e-9, err_msg=f"{key}: {name}")
        assert len(reads) - before == passes


def test_rows_are_taken_by_their_numbers_among_all(frame):
    rows = learn(SPEC, source_of(lambda: [frame.iloc[i : i + 100] for i in range(0, N, 100)]))
    wanted = np.array([0, 7, 99, 420, N - 1])
    data, weights = rows.take(wanted)
    expected = rows.bound.encode(frame.iloc[wanted])
    for own, each in zip(data.children[0].children, expected.children[0].children):
        for name, array in each.arrays.items():
            np.testing.assert_array_equal(own.arrays[name], array)
    np.testing.assert_array_equal(weights, np.ones(len(wanted)))


def test_a_sample_stands_for_rows_of_which_a_few_have_most_of_the_weight(frame, monkeypatch):
    """A sample that misses them has not their weight, and is not made up to have it."""
    monkeypatch.setattr("bayesmix.inference.start._SAMPLE", 100)
    twice = pd.concat([frame, frame], ignore_index=True)
    weights = np.ones(2 * N)
    weights[np.setdiff1d(np.arange(2 * N), np.random.default_rng(0).choice(2 * N, 400, replace=False))[0]] = 1e6
    e_step = ChunkedEStep(learn(SPEC, source_of([twice]), row_weights=weights))
    own = e_step.row_weights
    assert len(own) == e_step.data.n_rows == 400
    assert e_step.sample(400, np.random.default_rng(0)) is None
    np.testing.assert_allclose(own, 2 * N / 400)  # the heavy row is not among them


def test_no_more_is_begun_than_is_asked_for():
    begun = []

    def slow(item):
        begun.append(item)
        if item == 5:
            raise bm.DataError("five")
        return item * item

    assert list(in_order(lambda item: item * item, range(20), 4)) == [i * i for i in range(20)]
    results = in_order(slow, range(100), 2)
    assert next(results) == 0
    results.close()
    assert max(begun) < 5
    with pytest.raises(bm.DataError, match="five"):
        list(in_order(slow, range(100), 2))
    assert max(begun) < 10


# ------------------------------------------------------------------- predictions


def test_predictions_are_streamed(path, frame, local, tmp_path):
    fit = bm.fit(SPEC, path, **EM)
    np.testing.assert_array_equal(fit.predict(path), local.predict())
    np.testing.assert_allclose(fit.log_density(path), local.log_density(), rtol=1e-9)
    assert fit.predict(path, to=tmp_path / "a.parquet") == tmp_path / "a.parquet"
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "a.parquet")["component"], local.predict())
    fit.log_density(frame, to=tmp_path / "b.parquet")
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "b.parquet")["log_density"], local.log_density(), rtol=1e-9)
    local.responsibilities(to=tmp_path / "c.parquet")
    found = pd.read_parquet(tmp_path / "c.parquet")
    assert list(found) == ["component_0", "component_1"]
    np.testing.assert_allclose(found, local.responsibilities(), rtol=1e-9, atol=1e-12)
    with pytest.raises(bm.DataError, match="does not keep its training table"):
        fit.predict()
    with pytest.raises(ValueError, match="per_draw"):
        fit.log_density(path, per_draw=True)


def test_imputation_is_streamed(path, frame, local, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesmix.streaming._CELLS", 25_600)
    local.impute(path, to=tmp_path / "filled.parquet", n_draws=100, random_seed=1)
    filled = pd.read_parquet(tmp_path / "filled.parquet")
    assert list(filled) == list(frame)
    assert not filled[["x", "y", "s"]].isna().any().any()
    for name in frame:
        there = frame[name].notna()
        assert (filled.loc[there, name] == frame.loc[there, name]).all()
    means = local.impute(n_draws=100, random_seed=1).means["x"]
    gone = frame["x"].isna().to_numpy()
    assert np.abs(filled["x"][gone] - means).max() < 2.0  # means of 100 draws of standard deviation 1 to 3
    with pytest.raises(ValueError, match="to: a table that is read in parts needs"):
        local.impute(path)


@pytest.mark.parametrize("kind", ["pandas", "polars", "dict"])
def test_a_table_in_memory_is_filled_some_rows_at_a_time(kind, frame, local, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesmix.streaming._CELLS", 25_600)  # 256 rows of 100 draws
    columns = {name: [None if pd.isna(cell) else cell for cell in frame[name].tolist()] for name in frame}
    table = {"pandas": frame, "polars": pl.DataFrame(columns), "dict": columns}[kind]
    local.impute(table, to=tmp_path / "filled.parquet", n_draws=100, random_seed=1)
    filled = pd.read_parquet(tmp_path / "filled.parquet")
    assert len(filled) == N
    for name in frame:
        there = frame[name].notna()
        assert (filled.loc[there, name] == frame.loc[there, name]).all()
    gone = frame["x"].isna().to_numpy()
    assert np.abs(filled["x"][gone] - local.impute(n_draws=100, random_seed=1).means["x"]).max() < 2.0
    worse = {**columns, "y": [*columns["y"][:-1], -3]}
    with pytest.raises(bm.DataError, match=r"rows, from row 512 of these: y: Poisson needs .*; row 87 is -3"):
        local.impute(worse, to=tmp_path / "filled.parquet", n_draws=100, random_seed=1)


def test_whole_numbers_of_a_real_field_are_filled_with_real_numbers(tmp_path):
    table = pa.table({"x": pa.array([1, 2, 9, 10, 11, 2], pa.int64()), "other": list("abcdef")})
    later = pa.table({"x": pa.array([None, 2], pa.int64()), "other": ["g", "h"]})
    fit = bm.fit(bm.Mixture(bm.Composite(x=bm.Normal()), 2), table, **EM)
    fit.impute([table, later], to=tmp_path / "filled.parquet", n_draws=20, random_seed=1)
    filled = pq.read_table(tmp_path / "filled.parquet")
    assert filled["x"].type == pa.float64()
    assert filled["other"].to_pylist() == list("abcdefgh")
    assert filled["x"].to_pylist()[:6] == [1, 2, 9, 10, 11, 2]


def test_nothing_is_written_by_halves(path, local, tmp_path):
    bad = pd.DataFrame({"x": [1.0], "y": [-3], "s": ["a"]})
    target = tmp_path / "out.parquet"
    target.write_text("before")
    with pytest.raises(bm.DataError, match="chunk 1: y: Poisson needs whole numbers"):
        local.predict([pd.read_parquet(path), bad], to=target)
    assert target.read_text() == "before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.parquet", "rows.parquet"]
    with pytest.raises(IsADirectoryError):
        local.predict(path, to=tmp_path)


def test_what_is_read_is_not_written_over(path, frame, local, tmp_path, monkeypatch):
    """The predictions took the place of the user's rows."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("one.parquet", "two.parquet"):
        frame.to_parquet(folder / name)
    (tmp_path / "link.parquet").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    dataset = pa.dataset.dataset(folder, format="parquet")
    before = {each: each.read_bytes() for each in (path, *folder.iterdir())}
    targets = [(path, path), (str(path), path.name), (path, tmp_path / "link.parquet"), (tmp_path / "r*.parquet", path)]
    targets += [(data, folder / "two.parquet") for data in (folder, [path, folder], dataset)]
    for data, to in targets:
        for method in (local.predict, local.log_density, local.responsibilities, local.impute):
            with pytest.raises(ValueError, match=r"^to: .* is read here, and would be replaced\. Name another file\.$"):
                method(data, to=to)
    assert {each: each.read_bytes() for each in before} == before
    local.predict(path, to=folder / "one.parquet")  # another's
    local.predict(folder / "two.parquet", to=folder / "three.parquet")
    assert len(pd.read_parquet(folder / "three.parquet")) == len(frame)


@pytest.mark.parametrize("name", ["x.csv", "x.feather", "x.parquet.gz"])
def test_a_parquet_file_is_not_called_otherwise(name, local, tmp_path):
    for method in (local.predict, local.impute):
        with pytest.raises(ValueError, match=rf"^to: a Parquet file is written\. Name it x.*\.parquet, not {name}\.$"):
            method(to=tmp_path / name)
    assert not any(tmp_path.glob("x*"))
    for fine in ("x.PARQUET", "x.pq", "x"):
        assert len(pd.read_parquet(local.predict(to=tmp_path / fine))) == len(local.predict())


# ------------------------------------------------------------------- bad parts


def bad_files(frame, folder, spoil):
    paths = files_of(frame, folder, 3)
    spoil(paths[1])
    return folder


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def _garbled(path):
    pq.write_table(pq.read_table(path), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[50:400] = os.urandom(350)
    path.write_bytes(bytes(content))


def _retyped(path):
    pd.read_parquet(path).assign(y="many").to_parquet(path, index=False)


def _renamed(path):
    pd.read_parquet(path).rename(columns={"y": "why"}).to_parquet(path, index=False)


def _wrong(path):
    table = pd.read_parquet(path)
    table.loc[7, "y"] = -1
    table.to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut_short, "part1.parquet: it cannot be read as Parquet"),
        (_garbled, "part1.parquet: it cannot be read"),
        (_retyped, "part1.parquet: y"),
        (_renamed, "part1.parquet: y: the table has no such column; it has"),
        (_wrong, "part1.parquet: y: Poisson needs whole numbers >= 0; row 7 is -1"),
    ],
)
def test_bad_files_are_named(spoil, message, frame, tmp_path):
    with pytest.raises(bm.DataError, match=message) as caught:
        bm.fit(SPEC, bad_files(frame, tmp_path / "data", spoil))
    assert len(caught.value.faults) == 1


def test_symbols_that_become_numbers(tmp_path):
    """Each file for itself would do for a Categorical."""
    for i, values in enumerate((["a", "b"], [1.5, 2.5])):
        pd.DataFrame({"s": values}).to_parquet(tmp_path / f"{i}.parquet")
    with pytest.raises(bm.DataError, match=r"1.parquet: s holds numbers, but symbols .* in .*0.parquet"):
        bm.fit(bm.Mixture(bm.Composite(s=bm.Categorical()), 2), tmp_path)


def test_columns_in_another_order_of_a_spec_that_takes_them_by_place():
    x = np.random.default_rng(0).normal(size=(20, 2))
    parts = [pd.DataFrame(x, columns=["a", "b"]), pd.DataFrame(x, columns=["b", "a"])]
    with pytest.raises(bm.DataError, match="chunk 1: the columns are b, a, but a, b in chunk 0"):
        bm.fit(bm.Mixture(bm.MvNormal(), 2), parts)


def test_empty_parts_are_skipped(frame, local, tmp_path):
    paths = files_of(frame, tmp_path / "data", 2)
    frame.iloc[:0].to_parquet(tmp_path / "data" / "part00.parquet", index=False)
    pq.write_table(pa.table({name: pa.nulls(0) for name in frame}), paths[0].parent / "z.parquet")
    same(bm.fit(SPEC, tmp_path / "data", **EM), local)
    with pytest.raises(bm.DataError, match="the table has no rows"):
        bm.fit(SPEC, [frame.iloc[:0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(bm.DataError, match="the dataset has no files"):
        bm.fit(SPEC, tmp_path / "empty")
    target = tmp_path / "out.parquet"
    for to in (None, target):
        with pytest.raises(bm.DataError, match=r"the table has no rows. Pass at least one"):
            local.predict([frame.iloc[:0]], to=to)
    assert not target.exists()


def test_row_groups_without_rows_are_skipped(frame, local, tmp_path):
    table = pa.Table.from_pandas(frame)
    with pq.ParquetWriter(tmp_path / "rows.parquet", table.schema) as writer:
        for piece in (table.slice(0, 0), table.slice(0, 250), table.slice(0, 0), table.slice(250)):
            writer.write_table(piece)
    same(bm.fit(SPEC, tmp_path / "rows.parquet", **EM), local)
    np.testing.assert_array_equal(local.predict(tmp_path / "rows.parquet"), local.predict())


def test_what_was_found_is_kept_when_a_file_breaks(path, tmp_path, monkeypatch):
    """The file goes bad in the middle of EM; the checkpoint has the best point, and EM goes on from there."""
    calls = []
    whole = ChunkedEStep.__call__

    def failing(self, params):
        calls.append(1)
        if len(calls) == 12:
            raise bm.DataError("rows.parquet: it cannot be read (broken).")
        return whole(self, params)

    monkeypatch.setattr(ChunkedEStep, "__call__", failing)
    with pytest.raises(bm.DataError, match=r"rows.parquet: it cannot be read \(broken\). What EM had found is in"):
        bm.fit(SPEC, path, **EM, checkpoint=tmp_path / "em.zip")
    calls[:] = [0] * 11
    with pytest.raises(bm.DataError, match=r"it cannot be read \(broken\)") as error:
        bm.fit(SPEC, path, **EM)  # nothing is kept, and so nothing is said of it
    assert "What EM had found" not in str(error.value)
    calls[:] = [0] * 11
    with pytest.raises(bm.DataError, match=r"it cannot be read \(broken\)") as error:
        bm.fit(SPEC, path, **EM, checkpoint=tmp_path / "none.zip")  # there is no point yet
    assert "What EM had found" not in str(error.value)
    assert not (tmp_path / "none.zip").exists()
    kept = bm.load(tmp_path / "em.zip")
    assert not kept.status.complete
    assert np.isfinite(kept.loglik)
    fit = bm.fit(SPEC, path, **EM, resume=tmp_path / "em.zip")
    np.testing.assert_allclose(fit.loglik, bm.fit(SPEC, path, **EM).loglik, rtol=1e-9)
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit(SPEC, [pd.read_parquet(path).iloc[1:]], resume=tmp_path / "em.zip")


def test_minibatches_go_on_where_they_stopped_also_within_a_part(path):
    rows = rows_in_parts(SPEC, source_of([pd.read_parquet(path).iloc[:400], pd.read_parquet(path).iloc[400:]]), None)

    def cells(skip):
        found = []
        for data, weights in batches(rows, 50, seed=3, number=1, skip=skip):
            leaf = data
            while leaf.children:
                leaf = leaf.children[0]
            found.append((leaf.full(leaf.arrays["value"], 99.0).tolist(), weights.tolist()))
        return found

    whole = cells(0)
    assert sum(len(values) for values, _ in whole) == N
    for skip in range(len(whole) + 1):
        assert cells(skip) == whole[skip:]


@pytest.mark.parametrize("later", [4, 6])
def test_parts_that_change_during_a_fit(later):
    sizes = iter([5, 5, later])
    rows = learn(bm.Mixture(bm.Poisson(), 2), source_of(lambda: [{"x": np.arange(next(sizes))}]))
    assert [chunk.data.n_rows for chunk in rows] == [5]
    with pytest.raises(bm.DataError, match="no longer has the 5 rows of the first pass"):
        list(rows)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((row for row in [1, 2]), "an iterator can be read once"),
        ("nowhere.parquet", "taken for the path of a Parquet file"),
        (lambda: 3, "a function that returns an iterable of tables"),
        (lambda: [3], "chunk 0: data: a table"),
    ],
)
def test_what_is_no_source(data, message):
    with pytest.raises(bm.DataError, match=message):
        bm.fit(bm.Mixture(bm.Poisson(), 2), data)


def test_a_filter_of_a_dataset_is_not_left_out_silently(path):
    filtered = pyarrow.dataset.dataset(path).filter(pyarrow.dataset.field("y") > 3)
    with pytest.raises(bm.DataError, match="this dataset has a filter"):
        bm.fit(SPEC, filtered)
    fit = bm.fit(SPEC, lambda: filtered.to_batches(), **EM)
    same(fit, bm.fit(SPEC, filtered.to_table(), **EM))


@pytest.mark.parametrize("method", ["advi", "moments"])
def test_other_engines_say_that_they_need_rows_in_memory(method, path):
    with pytest.raises(bm.DataError, match="in parts, which this engine cannot do: fit_em, fit_map, fit_online"):
        bm.fit(SPEC, path, method=method)


def test_temporary_files_go_with_their_source(frame):
    source = source_of(pa.Table.from_pandas(frame).to_reader())
    folder = os.path.dirname(source.parts[0].path)
    assert os.path.isdir(folder)
    assert pickle.loads(pickle.dumps(source.parts[0])).path == source.parts[0].path
    del source
    assert not os.path.isdir(folder)


def test_parts_are_of_bounded_size(tmp_path):
    """Small row groups are read together, and large ones in pieces."""
    table = pa.table({"x": np.arange(5000)})
    pq.write_table(table, tmp_path / "small.parquet", row_group_size=100)
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=5000)
    for name in ("small", "large"):
        sizes = [t.n_rows for part in source_of(tmp_path / f"{name}.parquet").parts for _, t in part.tables()]
        assert sum(sizes) == 5000
        assert max(sizes) <= 128
        assert len(sizes) <= 50


def test_without_pyarrow(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"need pyarrow. Install it: pip install 'bayesmix\[parquet\]'"):
        bm.fit(SPEC, path)


def test_a_fit_without_rows_is_saved_and_shown(path, local, tmp_path):
    fit = bm.fit(SPEC, path, **EM)
    fit.save(tmp_path / "fit.zip")
    loaded = bm.load(tmp_path / "fit.zip")
    same(loaded, local)
    assert "converged" in repr(loaded)
    assert "converged" in loaded._repr_html_()
    assert list(fit.summary().index) == list(local.summary().index)
    with pytest.raises(bm.DataError, match="Pass the table"):
        fit.predict()


# ------------------------------------------------------------------ parts that differ, and what is read once


@pytest.mark.parametrize("rows", [40, 200])
def test_chunks_that_are_there_once_end_in_an_error(rows, monkeypatch):
    """Above some number of values quartiles take further looks, which found nothing and went on for ever."""
    monkeypatch.setattr(summaries, "_KEPT", 100)
    once, calls = iter([{"x": np.arange(float(rows))}]), []

    def chunks():
        calls.append(1)
        assert len(calls) < 20
        return once

    with pytest.raises(bm.DataError, match=f"chunks: it no longer has the {rows} rows of the first pass"):
        bm.fit(bm.Mixture(bm.Composite(x=bm.Normal()), 2), chunks)


@pytest.mark.parametrize("spec", [bm.Normal(), bm.BernoulliSet(), bm.MarkovChain()])
def test_a_function_that_draws_new_rows_each_time(spec):
    """It gives as many rows, and so every pass was over another table, without a word."""
    rng = np.random.default_rng(1)

    def chunks():
        symbols = rng.permuted(np.tile(np.arange(5), (200, 1)), axis=1)[:, :3].tolist()
        yield {"x": rng.normal(size=200) if isinstance(spec, bm.Normal) else symbols}

    with pytest.raises(bm.DataError, match="chunk 0: it has other values than in the pass before"):
        bm.fit_em(bm.Mixture(bm.Composite(x=spec), 2), chunks, memory=0, n_starts=1)


def test_a_record_batch_reader_is_asked_once(frame, local):
    """It was spooled twice, and the second time it had no rows."""

    def reader():
        return pa.Table.from_pandas(frame).to_reader(max_chunksize=170)

    same(bm.fit_map(SPEC, reader(), n_starts=2, random_seed=1), local)
    np.testing.assert_array_equal(local.predict(reader()), local.predict())
    np.testing.assert_array_equal(local.log_density(reader()), local.log_density())
    np.testing.assert_array_equal(local.responsibilities(reader()), local.responsibilities())


def test_record_batches_with_dictionaries_of_their_own(frame):
    """An Arrow file has one dictionary for all of its batches."""
    pieces = [frame[:300].sort_values("s"), frame[300:].sort_values("s", ascending=False)]
    tables = [pa.Table.from_pandas(piece, preserve_index=False) for piece in pieces]
    tables = [table.set_column(2, "s", table["s"].dictionary_encode()) for table in tables]
    batches = [batch for table in tables for batch in table.to_batches()]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    same(bm.fit(SPEC, reader, **EM), bm.fit(SPEC, pd.concat(pieces), **EM))


def test_a_list_of_record_batches_is_one_of_frames(frame, local):
    same(bm.fit(SPEC, pa.Table.from_pandas(frame).to_batches(max_chunksize=170), **EM), local)


def test_a_list_of_folders_and_files(frame, local, tmp_path):
    files_of(frame.iloc[:300], tmp_path / "first", 2)
    files_of(frame.iloc[300:400], tmp_path / "second", 1)
    frame.iloc[400:].to_parquet(tmp_path / "rest.parquet")
    same(bm.fit(SPEC, [tmp_path / "first", tmp_path / "second", tmp_path / "rest.parquet"], **EM), local)


@pytest.mark.parametrize(
    "table", [pa.table({"a": [1.0, 2.0], "b": [5.0, 7.0]}), np.ones((3, 2)), {"a": [1.0]}, pd.DataFrame({"a": [1.0]})]
)
def test_a_function_that_returns_one_table(table):
    """Its columns, or its rows, were taken for tables one below the other."""
    with pytest.raises(bm.DataError, match=r"the function returns one .*, and an iterable of tables is needed"):
        bm.fit(bm.Mixture(bm.Normal(), 1), lambda: table)


def test_vectors_of_another_length_name_their_part():
    parts = [{"v": np.arange(20.0).reshape(10, 2)}, {"v": np.arange(30.0).reshape(10, 3)}]
    with pytest.raises(bm.DataError, match=r"^chunk 1: v: vectors of different lengths, 2 and 3"):
        bm.fit(bm.Mixture(bm.Composite(v=bm.MvNormal()), 1), lambda: parts)


def test_truth_values_in_one_part_and_numbers_in_another():
    parts, spec = [pd.DataFrame({"x": [True, False] * 9}), pd.DataFrame({"x": [0, 1, 1]})], bm.Bernoulli()
    fit = bm.fit(bm.Composite(x=spec), parts)
    whole = bm.fit(bm.Composite(x=spec), pd.DataFrame({"x": [1, 0] * 9 + [0, 1, 1]}))
    np.testing.assert_allclose(fit.params["x_p"], whole.params["x_p"], rtol=1e-9)


def test_small_chunks_stay_within_memory():
    """Each had room of its own to work in, many times its rows."""
    import tracemalloc

    rng = np.random.default_rng(0)
    tables = [{"x": rng.normal(size=200), "y": rng.poisson(3, 200), "s": rng.integers(0, 3, 200)} for _ in range(100)]
    rows = learn(
        bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), s=bm.Categorical()), 5), source_of(lambda: tables)
    )
    e_step = ChunkedEStep(rows, memory="1 GiB")
    params = initial_params(rows.bound, e_step.data, e_step.row_weights, np.random.default_rng(0), 0)
    e_step(params)  # what is compiled is compiled
    e_step = ChunkedEStep(rows, memory="1 GiB")
    tracemalloc.start()
    before, left = tracemalloc.get_traced_memory()[0], e_step.left
    e_step(params)
    e_step(params)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert left - e_step.left > 0.3 * taken


@pytest.mark.parametrize(
    ("spec", "whole", "columns"),
    [
        (bm.Mixture(bm.Normal(), 1), {"a": [1, 2, 9] * 5}, ["a"]),
        (bm.Mixture(bm.Composite(bm.Normal(), bm.Poisson()), 1), {"a": [1, 2, 9] * 5, "b": [1, 2, 9] * 5}, ["a"]),
        (bm.Mixture(bm.MvNormal(), 1), {"a": [1, 2, 9] * 5, "b": [1, 7, 9] * 5}, ["a", "b"]),
    ],
)
def test_whole_numbers_of_fields_without_names_are_filled_with_real_numbers(spec, whole, columns, tmp_path):
    fit = bm.fit(spec, pa.table(whole), n_starts=1, random_seed=1)
    later = pa.table({name: pa.array([2, None], pa.int64()) for name in whole})
    fit.impute([pa.table(whole), later], to=tmp_path / "filled.parquet", n_draws=3, random_seed=1)
    filled = pq.read_table(tmp_path / "filled.parquet")
    assert [name for name in whole if filled[name].type == pa.float64()] == columns
    assert filled["a"].to_pylist()[:16] == [*whole["a"], 2]
    assert filled["a"].null_count == 0


def test_columns_that_grow_from_part_to_part_are_written(frame, local, tmp_path):
    """Nothing, then text; few categories, then many; numbers of which later ones are broken."""
    first = frame.iloc[:200].assign(note=None, k=pd.Categorical(["a"] * 200), q=1)
    then = frame.iloc[200:].assign(note="yes", k=pd.Categorical([f"k{i}" for i in range(400)]), q=0.5)
    local.impute([first, then], to=tmp_path / "filled.parquet", n_draws=3, random_seed=1)
    found = pd.read_parquet(tmp_path / "filled.parquet")
    assert found["note"].isna().tolist() == [True] * 200 + [False] * 400
    assert found["k"].tolist() == ["a"] * 200 + [f"k{i}" for i in range(400)]
    assert found["q"].tolist() == [1] * 200 + [0.5] * 400
    np.testing.assert_array_equal(found["y"], frame["y"])
    assert [each.name for each in tmp_path.iterdir()] == ["filled.parquet"]


def test_an_index_is_no_column_of_what_is_written(frame, local, tmp_path):
    """Of parts of which only one has an index of its own it was an error, or lost without a word."""
    odd = frame.iloc[:200].set_index(pd.Index(list("ab") * 100))
    for parts in ([odd, frame.iloc[200:]], [frame.iloc[200:], odd], [odd]):
        local.impute(parts, to=tmp_path / "filled.parquet", n_draws=3, random_seed=1)
        found = pd.read_parquet(tmp_path / "filled.parquet")
        assert list(found.columns) == list(frame.columns)
        np.testing.assert_array_equal(found["y"], pd.concat(parts)["y"])


def test_a_column_that_parquet_has_no_type_for(frame, local, tmp_path):
    odd = frame.assign(note=[1, "two"] * (N // 2))
    with pytest.raises(bm.DataError, match=r"chunk 0: a column cannot be in a Parquet file .*note"):
        local.impute([odd], to=tmp_path / "filled.parquet", n_draws=3, random_seed=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["reader", "frames", "path"])
def test_large_numbers_beside_the_fields_keep_their_digits(kind, frame, local, tmp_path):
    """Identifiers above 2^53, some of them missing: they were an error of Arrow's, or rounded."""
    ids = [None if i == 7 else 2**60 + i for i in range(N)]
    table = frame.assign(id=pd.array(ids, "Int64"))
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(arrow, tmp_path / "ids.parquet")
    data = {"reader": arrow.to_reader(max_chunksize=170), "frames": [table], "path": tmp_path / "ids.parquet"}[kind]
    local.impute(data, to=tmp_path / "filled.parquet", n_draws=3, random_seed=1)
    assert pq.read_table(tmp_path / "filled.parquet")["id"].to_pylist() == ids


def test_partitions_travel_alone():
    """Each took the graph of all with it, with all rows of a frame in memory."""
    import dask.array
    import dask.dataframe

    x = np.random.default_rng(0).normal(size=(20_000, 2))
    frame = dask.dataframe.from_pandas(pd.DataFrame(x, columns=["a", "b"]), npartitions=20)
    parts = source_of(frame).parts
    assert len(pickle.dumps(parts[3])) < 0.2 * x.nbytes
    array = dask.array.from_array(x, chunks=(6000, 2))
    for source in (source_of(frame), source_of(array)):
        tables = [table for part in source.parts for _, table in part.tables()]
        np.testing.assert_array_equal(np.concatenate([table.columns[1].values for table in tables]), x[:, 1])
    with pytest.raises(bm.DataError, match=r"rechunk\(\{1: -1\}\)"):
        source_of(dask.array.from_array(x, chunks=(6000, 1)))
