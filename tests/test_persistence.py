"""Files of fits: everything that users would miss comes back, older files load, and a bad file does no harm."""

import dataclasses
import datetime
import io
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path
from zoneinfo import ZoneInfo

import h5py
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr

import bayesmix as bm
from bayesmix.io import (
    NOT_SAVED,
    SAVED,
    SCHEMA,
    _value_of,
    prior_from_json,
    prior_to_json,
    value_from_json,
    value_to_json,
)
from bayesmix.relabel import Relabelling

FIXTURES = Path(__file__).parent / "fixtures"
TABLE = {
    "income": [1.2, 0.8, 1.1, 5.3, None, 4.9],
    "visits": [0, 1, 0, 7, 9, None],
    "kind": ["a", "b", "a", "b", None, "b"],
}
SPEC = bm.Mixture(bm.Composite(income=bm.Normal(), visits=bm.Poisson(), kind=bm.Categorical()), 2)


@pytest.fixture(scope="module")
def plain():
    return bm.fit_em(SPEC, TABLE, random_seed=1)


@pytest.fixture(scope="module")
def full():
    """A fit in which every field that is kept has something in it."""
    fit = bm.fit_em(SPEC, TABLE, keep_trajectory=True, random_seed=1)
    relabelling = Relabelling("kl", {"component": np.array([0.5, np.nan])}, {"component": 0.25}, fit.params, 6)
    return dataclasses.replace(
        fit,
        status=bm.Status("em", False, "stopped", complete=False),
        starts=[*fit.starts, {"objective": -np.inf, "status": "failed", "iterations": 3}],
        relabelling=relabelling,
        pareto_k=np.inf,
        modes_found=fit.modes,
        mode_fits=(fit, dataclasses.replace(fit, loglik=-7.5)),
    )


def same(a, b):
    """Whether two values are equal, arrays and fits within them included."""
    if isinstance(a, bm.Fit):
        return isinstance(b, bm.Fit) and all(same(_value_of(a, name), _value_of(b, name)) for name in SAVED)
    if isinstance(a, (xr.DataTree, xr.Dataset)):
        return type(a) is type(b) and a.identical(b)
    if isinstance(a, bm.bound.Bound):
        return repr(a.spec) == repr(b.spec) and a.learned == b.learned
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)) or hasattr(a, "table"):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and same(vars(a), vars(b))
    return a == b or (a != a and b != b)


def test_every_field_of_a_fit_is_declared_saved_or_not():
    declared = [*SAVED, *NOT_SAVED]
    assert sorted(declared) == sorted(field.name for field in dataclasses.fields(bm.Fit))


def test_every_field_that_is_saved_comes_back(tmp_path, full):
    defaults = {field.name: field.default for field in dataclasses.fields(bm.Fit)}
    full.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    for name in SAVED:
        value = getattr(full, name)
        assert value is not None, name
        assert defaults[name] is dataclasses.MISSING or not same(value, defaults[name]), name
        assert same(value, getattr(again, name)), name
    assert [each.name for each in tmp_path.iterdir()] == ["fit.zip"]


def test_the_text_is_strict_json(tmp_path, full):
    full.save(tmp_path / "fit.zip")
    text = zipfile.ZipFile(tmp_path / "fit.zip").read("fit.json")

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse)["schema"] == SCHEMA


def test_options_of_nodes_come_back(tmp_path):
    spec = bm.Mixture(bm.Categorical(levels=[("a", 1), ("b", 2)]), 2)
    fit = bm.fit_em(spec, pd.Series([("a", 1), ("b", 2), ("a", 1), None, ("b", 2)]), random_seed=1)
    fit.save(tmp_path / "fit.zip")
    assert bm.load(tmp_path / "fit.zip").spec._components[0].levels == fit.spec._components[0].levels


# ------------------------------------------------------------------- versions

#: Made by each version of the library from TABLE and SPEC; the figures were noted when the file was made.
KEPT = {
    "schema_2_em.zip": (1, -16.48975239186298, [0.608696, 7.437499]),
    "schema_2_draws.zip": (6, -20.75504254274828, [0.868485, 7.702960]),
    "schema_3_em.zip": (1, -16.48975239186298, [0.608696, 7.437499]),
    "schema_3_draws.zip": (6, -22.075641070786684, [0.687313, 7.005752]),
}


@pytest.mark.parametrize("name", KEPT)
def test_files_of_every_version_load(name):
    fit = bm.load(FIXTURES / name)
    n_draws, loglik, visits = KEPT[name]
    assert fit.posterior.sizes["draw"] == n_draws
    assert fit.loglik == pytest.approx(loglik, rel=1e-12)
    assert fit.params["visits_mu"] == pytest.approx(visits, abs=1e-6)
    assert fit.status.converged
    assert fit.status.complete
    assert fit.history is not None
    assert len(fit.starts) == 16
    assert fit.predict(TABLE).tolist() == [0, 0, 0, 1, 1, 1]


def test_each_version_that_is_read_has_files():
    assert {int(name.split("_")[1]) for name in KEPT} == set(bm.io._READERS)
    assert max(bm.io._READERS) == SCHEMA


def test_a_file_from_before_the_first_release_says_so():
    with pytest.raises(bm.DataError, match=r"schema 1, from before the first release.*Fit again"):
        bm.load(FIXTURES / "schema_1_em.zip")


# ------------------------------------------------------------------- hostile files


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edited_text(change):
    def edit(members):
        document = json.loads(members["fit.json"])
        change(document)
        members["fit.json"] = json.dumps(document).encode()

    return edit


def edited_arrays(change):
    def edit(members):
        buffer = io.BytesIO(members["idata.nc"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        members["idata.nc"] = buffer.getvalue()

    return edit


def rewritten(change):
    """The posterior with a variable replaced by `change` of it, by the library that wrote it."""

    def edit(members):
        with xr.open_datatree(io.BytesIO(members["idata.nc"]), engine="h5netcdf") as opened:
            tree = opened.load()
        tree["posterior"] = xr.DataTree(change(tree["posterior"].to_dataset()))
        buffer = io.BytesIO()
        tree.to_netcdf(buffer, engine="h5netcdf")
        members["idata.nc"] = buffer.getvalue()

    return edit


def _huge(file):
    del file["posterior"]["income_mu"]
    file["posterior"].create_dataset("income_mu", (10**6, 10**6, 2), "f8", chunks=(1000, 1000, 2))


def _packed(file):
    values = file["posterior"]["income_mu"][...]
    del file["posterior"]["income_mu"]
    big = file["posterior"].create_dataset("income_mu", (4000, 4000, 2), "f8", compression="gzip")
    big[:1, :1] = values


def _elsewhere(file):
    del file["posterior"]["income_mu"]
    file["posterior"]["income_mu"] = h5py.ExternalLink("other.nc", "/posterior/income_mu")


def _outside(file):
    del file["posterior"]["income_mu"]
    file["posterior"].create_dataset("income_mu", (1, 1, 2), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def _objects(file):
    del file["posterior"]["income_mu"]
    file["posterior"].create_dataset("income_mu", (1, 1, 2), h5py.ref_dtype)


def _many(file):
    """Each of them could be in the file."""
    for i in range(100):
        file["posterior"].create_dataset(f"more{i}", (40_000,), "f8", chunks=(40_000,))


def _packed_within(members):
    members["mode_fits-0.zip"] = bytes(2**20)


def _type(file):
    file["posterior"]["t"] = np.dtype("f8")


def _deep(file):
    group = file
    for _ in range(50):
        group = group.create_group("g")


def _nested(members):
    members["fit.json"] = b'{"schema": 3, "bound": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


HOSTILE = {
    "a name that climbs": (lambda m: m.update({"../../evil.nc": b"x"}), "tampered"),
    "an absolute name": (lambda m: m.update({"/tmp/evil.nc": b"x"}), "tampered"),
    "a fit within that climbs": (lambda m: m.update({"mode_fits-/../../x.zip": b"x"}), "tampered"),
    "a bomb": (lambda m: m.update({"trajectory.nc": bytes(2**27)}), "unpacked"),
    "fits within fits that are missing": (edited_text(lambda d: d.update(mode_fits=3)), "mode_fits-0.zip|within"),
    "a billion fits within": (edited_text(lambda d: d.update(mode_fits=10**9)), "within"),
    "nested text": (_nested, "damaged|recursion"),
    "a schema in words": (edited_text(lambda d: d.update(schema="9")), "schema"),
    "components without end": (
        edited_text(lambda d: d["bound"]["spec"]["options"].update(_n=10**13)),
        "more than any fit",
    ),
    "columns that are no names": (edited_text(lambda d: d["bound"].update(columns=[["a"], 3])), "names are needed"),
    "other components": (edited_text(lambda d: d["bound"]["spec"]["options"].update(_n=3)), "shape"),
    "a method as an option": (
        edited_text(lambda d: d["bound"]["spec"]["options"].update(restore="os.system")),
        "it has no restore",
    ),
    "an unknown node": (edited_text(lambda d: d["bound"]["spec"].update(node="Popen")), "no such node"),
    "an unknown prior": (
        edited_text(lambda d: d["bound"]["spec"]["priors"].update(weights={"dist": "system", "inputs": ["ls"]})),
        "no such prior",
    ),
    "a status that is not one": (edited_text(lambda d: d["status"].update(converged="yes")), "converged is 'yes'"),
    "a log-likelihood in words": (edited_text(lambda d: d.update(loglik="high")), "not a number"),
    "an array of objects in the text": (
        edited_text(lambda d: d.update(history={"array": [1], "shape": [1], "dtype": "object"})),
        "an array of 'object'",
    ),
    "an array that does not fit its shape": (
        edited_text(lambda d: d.update(history={"array": [1.0], "shape": [10**9], "dtype": "float64"})),
        "damaged",
    ),
    "a shape that is wrong": (rewritten(lambda d: d.isel(component=[0])), "shape"),
    "no draws of a parameter": (rewritten(lambda d: d.drop_vars("visits_mu")), "no draws of visits_mu"),
    "NaN among the draws": (rewritten(lambda d: d.assign(income_mu=d["income_mu"] * np.nan)), "income_mu.*finite"),
    "strings for draws": (rewritten(lambda d: d.assign(income_mu=d["income_mu"].astype(str))), "income_mu"),
    "terabytes that were never written": (edited_arrays(_huge), "cannot be in a file"),
    "packed arrays": (edited_arrays(_packed), "cannot be in a file"),
    "a link to another file": (edited_arrays(_elsewhere), "links to somewhere else"),
    "numbers of another file": (edited_arrays(_outside), "another file"),
    "many arrays that were never written": (edited_arrays(_many), "cannot be in a file"),
    "a fit within that is packed": (_packed_within, "packed in a way"),
    "a type": (edited_arrays(_type), "is not an array"),
    "no posterior": (edited_arrays(lambda f: f.pop("posterior")), "no posterior"),
    "a history of two dimensions": (
        edited_text(lambda d: d.update(history={"array": [1.0, 2.0], "shape": [1, 2], "dtype": "float64"})),
        "history: an array of one dimension",
    ),
    "references": (edited_arrays(_objects), "neither numbers nor strings"),
    "nested groups": (edited_arrays(_deep), "nested deeper"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_clear_error(tmp_path, plain, what):
    change, message = HOSTILE[what]
    path = tmp_path / "fit.zip"
    plain.save(path)
    members = members_of(path)
    change(members)
    written(path, members)
    with pytest.raises(bm.DataError, match=message) as caught:
        bm.load(path)
    assert str(path) in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["fit.zip"]


def test_a_file_that_is_packed_in_another_way(tmp_path, plain):
    path = tmp_path / "fit.zip"
    plain.save(path)
    written(path, members_of(path), zipfile.ZIP_BZIP2)
    with pytest.raises(bm.DataError, match="is packed in a way that bayesmix does not use"):
        bm.load(path)


def test_statistics_of_other_draws(tmp_path, plain):
    path = tmp_path / "fit.zip"
    plain.save(path)
    members = members_of(path)
    with xr.open_datatree(io.BytesIO(members["idata.nc"]), engine="h5netcdf") as opened:
        tree = opened.load()
    tree["sample_stats"] = xr.DataTree(xr.Dataset({"lp": (("chain", "draw"), np.zeros((3, 1)))}))
    buffer = io.BytesIO()
    tree.to_netcdf(buffer, engine="h5netcdf")
    written(path, {**members, "idata.nc": buffer.getvalue()})
    with pytest.raises(bm.DataError, match="sample_stats: 3 of chain, but the posterior has 1"):
        bm.load(path)


@pytest.mark.parametrize(
    ("prior", "at"),
    [
        (lambda: pm.HalfStudentT.dist(3.0, 2.0), 1.7),
        (lambda: pm.Kumaraswamy.dist(3.0, 2.0), 0.3),
        (lambda: pm.AsymmetricLaplace.dist(kappa=1.5, mu=2.0, b=3.0), 1.7),
        (lambda: pm.LogitNormal.dist(0.5, 2.0), 0.3),
        (lambda: pm.Weibull.dist(1.5, 2.0), 0.7),
        (lambda: pm.StickBreakingWeights.dist(1.5, 2), [0.2, 0.3, 0.5]),
        (lambda: pm.Truncated.dist(pm.Gamma.dist(2.0, 1.0), 0.5, 5.0), 1.7),
        (lambda: pm.Truncated.dist(pm.StudentT.dist(3.0, sigma=2.0), upper=1.0), -1.7),
        (lambda: pm.Mixture.dist([0.3, 0.7], [pm.Normal.dist(0.0, 1.0), pm.StudentT.dist(3.0, sigma=2.0)]), 1.7),
        (lambda: pm.Mixture.dist([0.3, 0.7], pm.StudentT.dist(3.0, sigma=2.0, size=2)), 1.7),
        (lambda: pm.NormalMixture.dist(np.array([0.3, 0.7]), np.array([0.0, 2.0]), 1.0), 1.7),
        (
            lambda: pm.Mixture.dist(
                [0.3, 0.7], [pm.Truncated.dist(pm.Gamma.dist(2.0, 1.0), 0.5, 5.0), pm.HalfNormal.dist(1.0)]
            ),
            1.7,
        ),
    ],
)
def test_a_prior_that_comes_back_has_its_density(prior, at):
    given = prior()
    document = json.loads(json.dumps(prior_to_json("mu", given)))
    found, expected = (pm.logp(each, at).eval() for each in (prior_from_json(document), given))
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_prior_of_endlessly_many_numbers_is_not_made():
    document = prior_to_json("mu", pm.Mixture.dist([0.3, 0.7], pm.Normal.dist(0.0, 1.0, size=2)))
    with pytest.raises(bm.DataError, match="made of more numbers than any fit has"):
        prior_from_json({**document, "sizes": [[10**12]]})


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2024, 1, 2),
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        datetime.time(1, 2, 3),
        datetime.timedelta(days=-3, microseconds=7),
        pd.Timestamp("2024-01-01 01:02:03.123456789", tz="Europe/Berlin"),
        pd.Timedelta(12345678901, unit="ns"),
        pd.Timestamp("2024-10-27 00:30", tz="UTC").tz_convert("Europe/Berlin"),  # 02:30 is there twice
        pd.Timestamp("2024-10-27 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        datetime.datetime(2024, 7, 2, 3, 4, 5, 6, tzinfo=ZoneInfo("America/New_York")),
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime.time(1, 2, 3, tzinfo=ZoneInfo("Asia/Kolkata")),
        datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
    ],
)
def test_dates_and_times_are_symbols_that_can_be_saved(value):
    found = value_from_json(json.loads(json.dumps(value_to_json(value))))
    assert found == value
    assert type(found) is type(value)
    assert str(getattr(found, "tzinfo", None)) == str(getattr(value, "tzinfo", None))
    assert getattr(found, "fold", None) == getattr(value, "fold", None)


def test_times_of_a_zone_are_drawn_as_they_were_after_loading(tmp_path):
    """They came back with the offset of each moment, and a column of summer and winter had two types."""
    days = pd.Series(pd.to_datetime(["2024-01-01", "2024-07-01"] * 20), name="day").dt.tz_localize("Europe/Berlin")
    fit = bm.fit(bm.Mixture(bm.Categorical(), 2), days, random_seed=1)
    fit.save(tmp_path / "fit")
    drawn = bm.load(tmp_path / "fit").sample(20, random_seed=1)
    pd.testing.assert_frame_equal(drawn, fit.sample(20, random_seed=1))
    assert str(drawn["day"].dt.tz if "day" in drawn else drawn["x"].dt.tz) == "Europe/Berlin"


def test_a_time_that_was_saved_without_its_zone_is_loaded():
    old = {"time": "2024-01-01T01:02:03+01:00", "type": "Timestamp"}
    assert value_from_json(old) == pd.Timestamp("2024-01-01 01:02:03", tz="Europe/Berlin")


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 5000, "No/Where", "", 5, ["a"]]
)
def test_a_zone_that_there_is_not(zone):
    with pytest.raises(bm.DataError, match="is no time zone that this machine knows"):
        value_from_json({"time": "2024-01-01T01:02:03+01:00", "type": "Timestamp", "zone": zone})


def test_a_fit_of_dates_is_saved(tmp_path):
    days = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"] * 20), name="day")
    fit = bm.fit(bm.Mixture(bm.Categorical(), 2), days, random_seed=1)
    fit.save(tmp_path / "fit")
    loaded = bm.load(tmp_path / "fit")
    assert loaded.bound.learned == fit.bound.learned
    np.testing.assert_array_equal(loaded.log_density(days), fit.log_density())


def test_what_cannot_be_saved_says_so():
    with pm.Model():
        centre = pm.Normal("centre", 0, 1)
    with pytest.raises(bm.SpecError, match="mu: a prior that is part of your own PyMC model cannot be saved"):
        prior_to_json("mu", centre)
    with pytest.raises(bm.DataError, match="keys that are not strings cannot be saved"):
        value_to_json({1: 2.0})


def test_a_name_that_is_there_twice(tmp_path, plain):
    plain.save(tmp_path / "fit.zip")
    with zipfile.ZipFile(tmp_path / "fit.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("fit.json", "{}")
    with pytest.raises(bm.DataError, match="twice"):
        bm.load(tmp_path / "fit.zip")


def test_a_file_cut_short_anywhere_is_an_error(tmp_path, plain):
    path = tmp_path / "fit.zip"
    plain.save(path)
    whole = path.read_bytes()
    for n in np.linspace(0, len(whole) - 1, 30).astype(int):
        path.write_bytes(whole[:n])
        with pytest.raises(bm.DataError):
            bm.load(path)


@pytest.mark.parametrize("member", ["fit.json", "idata.nc"])
def test_edited_bytes_are_an_error_or_a_fit(tmp_path, plain, member):
    """With checksums made right again: what is not refused is a fit whose draws are finite."""
    path = tmp_path / "fit.zip"
    plain.save(path)
    members = members_of(path)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(12):
        content = bytearray(members[member])
        for at in rng.integers(len(content), size=3):
            content[at] = rng.integers(256)
        written(path, {**members, member: bytes(content)}, zipfile.ZIP_STORED)
        try:
            fit = bm.load(path)
        except bm.DataError:
            refused += 1
        else:
            assert all(np.isfinite(value).all() for value in fit.params.values())
    assert refused > 0


# ------------------------------------------------------------------- writing


def _no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_an_error_leaves_the_earlier_file_whole(tmp_path, plain, full, monkeypatch, call):
    path = tmp_path / "fit.zip"
    plain.save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _no_space)
        with pytest.raises(OSError, match="No space left"):
            full.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["fit.zip"]


def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path, plain, full):
    path = tmp_path / "fit.zip"
    plain.save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (100, 20_000, len(before)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(OSError):
                full.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["fit.zip"]


def test_no_folder_to_write_to(tmp_path, plain):
    with pytest.raises(FileNotFoundError):
        plain.save(tmp_path / "none" / "fit.zip")


def test_fits_are_pickled_whole(plain):
    """For other processes; slots remember functions of their priors, which had no name to be pickled by."""
    again = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(again.log_density(TABLE), plain.log_density(TABLE))
    assert again.bound.log_prior(again.params) == plain.bound.log_prior(plain.params)
    assert again.impute(n_draws=3, random_seed=1).table().equals(plain.impute(n_draws=3, random_seed=1).table())
    for name, slot in plain.bound.slots.items():
        assert again.bound.slots[name].support is slot.support
