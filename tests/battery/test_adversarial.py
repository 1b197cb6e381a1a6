"""Adversarial input, one case a test: what a trustworthy system does with each, in EM, NUTS and prediction.

A `Case` holds the input and what must come of it: an error, or a finite answer with the warnings that are due and no
others. What else a case asks for stands in a test of its own below.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import bayesmix as bm
from tests.battery.tools import SHORT, assert_sane, fitted

_rng = np.random.default_rng(7)
NAN = float("nan")
M, C, N, P = bm.Mixture, bm.Composite, bm.Normal, bm.Poisson
CLUSTERS = np.r_[_rng.normal(0, 1, 150), _rng.normal(5, 1, 150)]
APART = np.r_[_rng.normal(-10, 1, 40), _rng.normal(10, 1, 60)]
THREE_SDS = np.r_[_rng.normal(0, 1, 150), _rng.normal(3, 1, 150)]
VECTORS = _rng.normal(size=(20, 50))
Z = np.r_[_rng.normal(0, 1, 100), _rng.normal(6, 1, 100)]


def _gone(table):
    table = table.copy()
    table[_rng.random(table.shape) < 0.1] = NAN
    return table


def _with(values, row, value):
    values = values.copy()
    values[row] = value
    return values


@dataclass(frozen=True)
class Case:
    """`must` is what the battery says of it; `warns` are patterns, one for each warning that is due."""

    must: str
    spec: Any
    data: Any
    warns: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # warnings that may come with them
    raises: tuple[str, ...] = ()
    error: type[Exception] = bm.DataError
    check: Callable[[Any], bool] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


def near(name, values, atol):
    return lambda fit: np.allclose(np.sort(fit.params[name]), values, atol=atol)


FEW, COPIES = "describes single rows", "components are then copies"
CASES = {
    "identical components": Case(
        "finite; a warning that the components cannot be told apart (K too large)",
        M(N(), 2),
        _rng.normal(size=400),
        ("cannot be told apart.*K = 2 is too large",),
    ),
    "constant column": Case(
        "finite; warning naming the column",
        M(C(a=N(), b=N(), c=N()), 2),
        {"a": CLUSTERS, "b": np.full(300, 3.7), "c": CLUSTERS + 1},
        (r"^b: a constant column, all 300 values are 3\.7",),
    ),
    "constant coordinate": Case(
        "finite; warning naming the column",
        M(bm.MvNormal(), 2),
        pd.DataFrame({"a": CLUSTERS, "b": np.full(300, 3.7), "c": CLUSTERS[::-1]}),
        ("^b: a constant column",),
    ),
    "one outlier": Case(
        "finite; the two clusters are still found; warning about a component that holds one row",
        M(N(), 3),
        np.append(CLUSTERS[:-1], 1e6),
        (r"component \d holds 1 rows \(row 299\)",),
        check=lambda fit: (
            np.allclose(np.sort(fit.params["mu"])[[0, 2]], [0, 5], atol=0.3) and np.bincount(fit.predict()).min() == 1
        ),
    ),
    "one outlier, no component to spare": Case(
        "finite; warning about a component that holds one row",
        M(N(), 2),
        np.append(CLUSTERS[:-1], 1e6),
        (r"component \d holds 1 rows \(row 299\).*one component more",),
    ),
    "imbalance": Case(
        "weight within .004",
        M(N(), 2),
        np.r_[_rng.normal(0, 1, 1980), _rng.normal(8, 1, 20)],
        check=lambda fit: abs(fit.params["weights"].min() - 0.01) < 0.004,
    ),
    "NaN": Case(
        "missing at random: fitted, imputable",
        M(C(a=N(), b=N()), 2),
        _gone(np.column_stack([APART, APART + 1])),
        check=lambda fit: all(np.isfinite(m).all() for m in fit.impute(n_draws=5, random_seed=1).means.values()),
    ),
    "NaN in vectors": Case(
        "missing at random: fitted, imputable",
        M(bm.MvNormal(), 2),
        _gone(np.column_stack([APART, APART[::-1] + APART])),
        check=lambda fit: all(np.isfinite(m).all() for m in fit.impute(n_draws=5, random_seed=1).means.values()),
    ),
    "one row": Case("finite under proper priors", M(N(), 1), [2.5]),
    "K=1": Case("closed form, one iteration", M(C(N(), N(), N()), 1), _rng.normal(size=(200, 3))),
    "duplicated rows": Case(
        "as row_weights=2; no collapse",
        M(N(), 2),
        np.tile(APART, 2),
        check=lambda fit: fit.params["sigma"].min() > 0.5,
    ),
    "all rows equal": Case(
        "warning; finite",
        M(N(), 2),
        np.full(50, 3.7),
        ("only 1 distinct row", "constant column, all 50"),
        (FEW,),
    ),
    "all vectors equal": Case(
        "warning; finite",
        M(bm.MvNormal(), 2),
        np.full((50, 2), 3.7),
        ("only 1 distinct row", "constant column"),
        (FEW,),
    ),
    "separable points": Case(
        "weights .5/.5; warning about zero variance; finite",
        M(N(), 2),
        np.repeat([0.0, 1.0], 50),
        ("zero variance",),
        check=lambda fit: np.allclose(fit.params["weights"], 0.5, atol=0.05),
    ),
    "d > N": Case("finite under the proper prior", M(bm.MvNormal(), 1), VECTORS[:4, :6]),
    "collinear": Case("finite under the proper prior", M(bm.MvNormal(), 2), np.column_stack([Z, 2 * Z])),
    "large counts": Case(
        "right to 1e-6",
        M(P(), 2),
        np.r_[_rng.poisson(1e9, 200), _rng.poisson(1.5e9, 200)],
        check=lambda fit: np.allclose(np.sort(fit.params["mu"]) / [1e9, 1.5e9], 1, atol=1e-5),
    ),
    "int32 near its limit": Case(
        "no overflow",
        M(N(), 2),
        np.r_[2**31 - 1 - _rng.integers(0, 99, 50), _rng.integers(0, 99, 50)].astype(np.int32),
        ("a prior costs the rows",),  # groups a hundred wide in a column of two thousand million
        check=lambda fit: np.allclose(np.sort(fit.params["mu"]) / 2**31, [0, 1], atol=0.02),
    ),
    "int32 counts near their limit": Case(
        "no overflow",
        M(P(), 2),
        np.r_[2**31 - 1 - _rng.integers(0, 99, 50), 2**30 - _rng.integers(0, 99, 50)].astype(np.int32),
        check=lambda fit: np.allclose(np.sort(fit.params["mu"]) / [2**30, 2**31], 1, atol=1e-5),
    ),
    "zero-inflated as Normal": Case(
        "warning about a spike",
        M(N(), 2),
        np.r_[np.zeros(150), _rng.normal(3, 1, 150)],
        ("150 of 300.*a spike",),
    ),
    "zero-inflated as Normal, one component": Case(
        "warning about a spike",
        M(C(y=N()), 1),
        {"y": np.r_[np.zeros(150), _rng.lognormal(size=150)]},
        ("^y: 150 .*spike",),
    ),
    "K = N": Case("warning; finite", M(N(), 6), _rng.normal(size=6), (FEW,)),
    "heavy tails": Case("finite", M(N(), 2), np.random.default_rng(3).standard_cauchy(500), (), (FEW,)),
    "ties": Case(
        "warning: the posterior is improper (a component can collapse on the ties), way out named",
        M(N(sigma=pm.HalfNormal.dist(10)), 2),
        np.r_[np.round(_rng.normal(50, 3, 75), 3), np.round(_rng.normal(80, 3, 75), 3), np.full(15, 81.0)],
        ("15 rows are tied at 81.*improper.*prior that vanishes at 0",),
    ),
    "Boolean dtype": Case(
        "as declared by the spec", M(bm.Bernoulli(), 1), pd.Series([True, False, True, pd.NA] * 5, dtype="boolean")
    ),
    "dates as symbols": Case(
        "as declared by the spec", M(bm.Categorical(), 1), pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"] * 5))
    ),
    "categories as symbols": Case(
        "as declared by the spec",
        M(bm.Categorical(), 1),
        pd.Series(pd.Categorical(list("abab"), categories=list("bac"))),
        check=lambda fit: fit.posterior["symbol"].values.tolist() == list("bac"),
    ),
    "all sets empty": Case("fitted", M(C(s=bm.BernoulliSet(), x=N()), 2), {"s": [set()] * 100, "x": APART}),
    "some sets empty": Case("fitted", M(bm.BernoulliSet(), 1), [set(), {"a"}, {"a", "b"}, set()] * 5),
    "all sequences empty": Case(
        "fitted", M(C(s=bm.Sequence(N(), length=P()), x=N()), 2), {"s": [[]] * 100, "x": APART}
    ),
    "some sequences empty": Case(
        "fitted", M(bm.Sequence(N(), length=P()), 2), [[], [1.0, 2.5], [20.0], [], [21.0, 23.0, 22.0]] * 5
    ),
    "all chains empty": Case("fitted", M(C(s=bm.MarkovChain(length=P()), x=N()), 2), {"s": [[]] * 100, "x": APART}),
    "some chains empty": Case("fitted", M(bm.MarkovChain(length=P()), 1), [[], list("ab"), list("b"), []] * 5),
    "hierarchical, all sequences empty": Case("fitted", bm.HierarchicalMixture(N(), 2, 1), [[]] * 9),
    "mixed types in a category": Case(
        "fitted: symbols are any hashables; None is missing",
        M(C(c=bm.Categorical()), 1),
        {"c": ["a", 1, None, (2, 3)] * 5},
        check=lambda fit: fit.params["c_p"].shape == (1, 3) and fit.log_density({"c": [None]})[0] == 0,
    ),
}

ERRORS = {
    "fewer rows than components": Case(
        "DataError naming both numbers", M(N(), 5), [1.0, 2.0, 4.0], raises=("5", "3 rows")
    ),
    "inf": Case(
        "DataError: field, row, value", M(C(y=N()), 2), {"y": _with(CLUSTERS, 7, np.inf)}, raises=("y:", "row 7", "inf")
    ),
    "column all missing": Case(
        "DataError naming the column",
        M(C(a=N(), b=N()), 2),
        {"a": CLUSTERS, "b": np.full(300, NAN)},
        raises=("b:", "missing"),
    ),
    "no rows": Case("DataError", M(N(), 2), [], raises=("no rows",)),
    "no rows in a frame": Case("DataError", M(C(a=N()), 1), pd.DataFrame({"a": []}), raises=("no rows",)),
    "one row, flat": Case(
        "error under flat ones", M(N(), 1).with_flat_priors(), [2.5], raises=("default priors",), error=bm.SpecError
    ),
    "d > N, flat": Case(
        "clear error under the flat one",
        M(bm.MvNormal(), 1).with_flat_priors(),
        VECTORS,
        raises=("covariance", "fewer rows than coordinates", "default priors"),
        error=bm.SpecError,
    ),
    "collinear, flat": Case(
        "likewise",
        M(bm.MvNormal(), 2).with_flat_priors(),
        np.column_stack([Z, 2 * Z]),
        raises=("covariance", "follow from others", "default priors"),
        error=bm.SpecError,
    ),
    "strings in a numeric column": Case(
        "DataError, never converted silently",
        M(C(y=N()), 1),
        {"y": ["3.5", "1", "2"]},
        raises=("y:", "row 0", "'3.5'", "Convert"),
    ),
    "a string among counts": Case(
        "DataError, never converted silently", M(P(), 1), [1, 2, "3"], raises=("row 2", "'3'")
    ),
    "Booleans as numbers": Case("DataError", M(N(), 1), pd.Series([True, False, True]), raises=("row 0", "True")),
    "dates as numbers": Case(
        "DataError", M(N(), 1), pd.Series(pd.date_range("2020", periods=5)), raises=("row 0", "2020-01-01")
    ),
    "durations as numbers": Case(
        "DataError", M(N(), 1), pd.Series(pd.to_timedelta([1, 2, 3], "D")), raises=("row 0", "1 days")
    ),
    "categories as numbers": Case(
        "DataError", M(N(), 1), pd.Series(pd.Categorical(list("ab"))), raises=("row 0", "'a'")
    ),
    "duplicate in a set": Case(
        "DataError (a list)", M(bm.BernoulliSet(), 1), [["b"], ["a", "a"]], raises=("row 1", "'a' twice")
    ),
    "record too long": Case(
        "DataError naming the row",
        M(C(N(), P()), 1),
        [(1.0, 2), (2.0, 3, 4), (3.0, 1)],
        raises=("row 1 has 3 fields", "2"),
    ),
    "record too short": Case(
        "DataError naming the row", M(C(N(), P()), 1), [(1.0, 2), (2.0, 3), (3.0,)], raises=("row 2 has 1 fields", "2")
    ),
    "negative row weight": Case(
        "DataError", M(N(), 2), APART, raises=("row 3 is -1",), kwargs={"row_weights": _with(np.ones(100), 3, -1)}
    ),
    "NaN row weight": Case(
        "DataError", M(N(), 2), APART, raises=("row 3 is nan",), kwargs={"row_weights": _with(np.ones(100), 3, NAN)}
    ),
    "row weights all zero": Case(
        "DataError", M(N(), 2), APART, raises=("all weights are 0",), kwargs={"row_weights": np.zeros(100)}
    ),
    "row weights of another length": Case(
        "DataError", M(N(), 2), APART, raises=("99", "100"), kwargs={"row_weights": np.ones(99)}
    ),
}


def assert_warned(case, caught):
    texts = [str(each.message) for each in caught]
    for pattern in case.warns:
        assert any(re.search(pattern, text) for text in texts), f"no warning {pattern!r} among {texts}"
    others = [text for text in texts if not any(re.search(pattern, text) for pattern in (*case.warns, *case.also))]
    assert not others, others


@pytest.mark.parametrize("name", CASES)
def test_em_and_prediction(name):
    case = CASES[name]
    fit, caught = fitted(case.spec, case.data)
    assert_warned(case, caught)
    assert_sane(fit, case.data)
    assert case.check is None or case.check(fit)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nuts_and_prediction(name):
    case = CASES[name]
    if name == "ties":  # chains say it in their status
        with pytest.warns(bm.ConvergenceWarning, match="Improper posterior: 15 rows are tied at 81"):
            fit = bm.fit(case.spec, case.data, method="nuts", random_seed=1, **SHORT["nuts"])
        assert not fit.status.converged
        return
    fit, caught = fitted(case.spec, case.data, "nuts")
    assert_warned(case, caught)
    assert_sane(fit, case.data)


@pytest.mark.parametrize("name", ERRORS)
def test_one_error(name):
    """The same from every engine and from `build_model`, before anything is computed where the data are at fault."""
    case = ERRORS[name]
    engines = ["em", "nuts"] if case.error is bm.SpecError else ["em", "map", "nuts", "advi", "laplace", "moments"]
    for method in engines:
        with pytest.raises(case.error) as caught:
            bm.fit(case.spec, case.data, method=method, **case.kwargs)
        assert all(part in str(caught.value) for part in case.raises), caught.value
        assert len(caught.value.faults) == 1
    if case.error is bm.DataError:
        with pytest.raises(bm.DataError):
            bm.build_model(case.spec, case.data, **case.kwargs)


# ------------------------------------------------------------------- what cases ask for besides


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_identical_components_with_any_seed(seed):
    """A warning that the components cannot be told apart, and the same in the report."""
    x = np.random.default_rng(seed).normal(size=400)
    with pytest.warns(bm.IndistinctWarning, match="cannot be told apart"):
        fit = bm.fit(M(N(), 2), x)
    assert "duplicate_components" in fit.check()


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_scales(factor):
    """The scale-1 answer times the factor (relative 1e-6), and the same memberships."""
    plain, _ = fitted(M(N(), 2), CLUSTERS, random_seed=1)
    moved, caught = fitted(M(N(), 2), CLUSTERS * factor, random_seed=2)
    assert not caught
    for name in ("mu", "sigma"):
        np.testing.assert_allclose(moved.params[name], plain.params[name] * factor, rtol=1e-6)
    np.testing.assert_allclose(moved.params["weights"], plain.params["weights"], rtol=1e-6)
    np.testing.assert_allclose(moved.responsibilities(), plain.responsibilities(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e9)])
def test_scales_and_offsets_nuts(factor, offset):
    """The same posterior in other units."""
    plain, _ = fitted(M(N(), 2), APART, "nuts")
    moved, _ = fitted(M(N(), 2), APART * factor + offset, "nuts")
    for name in ("mu", "sigma"):
        own = plain.posterior[name]
        sd = own.std(("chain", "draw")).values
        shift = offset if name == "mu" else 0.0
        found = (moved.posterior[name].mean(("chain", "draw")).values - shift) / factor
        assert (np.abs(found - own.mean(("chain", "draw")).values) < sd).all()
    assert_sane(moved, APART * factor + offset)


@pytest.mark.parametrize("family", ["Normals", "MvNormal"])
def test_mixed_scales(family):
    """Columns with scales 1e-8 and 1e8: each column as if alone."""
    both = np.column_stack([APART * 1e-8, (APART + 3) * 1e8])
    if family == "Normals":
        fit, caught = fitted(M(C(a=N(), b=N()), 2), {"a": both[:, 0], "b": both[:, 1]})
        for name, column in (("a", both[:, 0]), ("b", both[:, 1])):
            alone, _ = fitted(M(N(), 2), column)
            for each in ("mu", "sigma"):
                np.testing.assert_allclose(
                    np.sort(fit.params[f"{name}_{each}"]), np.sort(alone.params[each]), rtol=1e-6
                )
    else:
        fit, caught = fitted(M(bm.MvNormal(), 2), both)
        plain, _ = fitted(M(bm.MvNormal(), 2), both / [1e-8, 1e8])
        np.testing.assert_allclose(fit.params["mu"] / [1e-8, 1e8], plain.params["mu"], rtol=1e-6)
    assert not caught
    assert_sane(fit, both)


def test_offset():
    """1e9 + clusters three sds apart: the answer of the centred data."""
    plain, _ = fitted(M(N(), 2), THREE_SDS)
    moved, caught = fitted(M(N(), 2), THREE_SDS + 1e9)
    assert not caught
    np.testing.assert_allclose(moved.params["mu"] - 1e9, plain.params["mu"], atol=1e-5)
    np.testing.assert_allclose(moved.params["sigma"], plain.params["sigma"], atol=1e-5)


def test_one_component_is_a_closed_form():
    """K=1: one iteration, and under flat priors the sample's mean and covariance."""
    x = np.random.default_rng(1).normal(size=(200, 3))
    fit, caught = fitted(M(bm.MvNormal(), 1).with_flat_priors(), x)
    assert not caught
    assert len(fit.history) == 1
    np.testing.assert_allclose(fit.params["mu"][0], x.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.params["cov"][0], np.cov(x.T, bias=True), rtol=1e-9, atol=1e-12)


def test_duplicated_rows():
    """100 rows twice: as row_weights=2."""
    twice, caught = fitted(M(N(), 2), np.tile(APART, 2))
    weighted, also = fitted(M(N(), 2), APART, row_weights=np.full(100, 2.0))
    assert not caught
    assert not also
    for name in ("weights", "mu", "sigma"):
        np.testing.assert_allclose(twice.params[name], weighted.params[name], rtol=1e-6)


def test_large_counts_to_six_digits():
    counts = np.random.default_rng(2).poisson(1e9, 300)
    fit, _ = fitted(M(P(), 1), counts)
    assert fit.params["mu"][0] == pytest.approx(counts.mean(), rel=1e-6)


def test_more_dimensions_than_rows():
    """20 rows, 50 columns: finite under the proper prior, in EM, MAP and prediction."""
    for k in (1, 2):
        fit, _ = fitted(M(bm.MvNormal(), k), VECTORS)
        assert_sane(fit, VECTORS, np.random.default_rng(9).normal(size=(5, 50)))


def test_a_sequence_of_length_one():
    """No transition counted: under flat priors the first symbols alone speak, and a transition's row stays uniform."""
    fit, _ = fitted(M(bm.MarkovChain(), 1).with_flat_priors(), [["a"], ["b"], ["a"]])
    np.testing.assert_allclose(fit.params["initial"], [[2 / 3, 1 / 3]], rtol=1e-12)
    np.testing.assert_allclose(fit.params["transition"], 0.5)
    np.testing.assert_allclose(fit.log_density([["a"], ["b"]]), np.log([2 / 3, 1 / 3]), rtol=1e-12)


NEW = {
    "c": (bm.Categorical(), ["a", "b"], "z"),
    "s": (bm.BernoulliSet(), [{"a"}, {"b"}], {"z"}),
    "m": (bm.MarkovChain(), [list("ab"), list("ba")], list("az")),
}


@pytest.mark.parametrize("method", ["em", pytest.param("nuts", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", NEW)
def test_an_unseen_symbol_at_prediction(kind, method):
    """DataError by default; unseen='ignore' treats the cell as missing."""
    family, cells, strange = NEW[kind]
    fit, _ = fitted(M(C(f=family, x=N()), 2), {"f": cells * 10, "x": APART[30:50]}, method)
    new = {"f": [cells[0], strange], "x": [-10.0, 10.0]}
    for ask in (fit.predict, fit.log_density, fit.responsibilities):
        with pytest.raises(bm.DataError, match=r"f: row 1 .*'z'.*unseen"):
            ask(new)
    ignored = fit.log_density(new, unseen="ignore")
    np.testing.assert_array_equal(ignored, fit.log_density({**new, "f": [cells[0], None]}))
    assert fit.predict(new, unseen="ignore").shape == (2,)


def test_an_impossible_transition():
    """Seen states, transition never seen, flat priors: log density -inf, also vectorised."""
    fit, _ = fitted(M(bm.MarkovChain(), 1).with_flat_priors(), [list("abab"), list("ba"), list("bba")] * 5)
    assert fit.log_density([["a", "a"]])[0] == -np.inf
    several = fit.log_density([["a", "a"], ["a", "b"]] * 600)
    assert (several[::2] == -np.inf).all()
    assert np.isfinite(several[1::2]).all()


def test_a_set_cannot_have_duplicates():
    fit, _ = fitted(M(bm.BernoulliSet(), 1), [{*"aa"}, ["a"], {"b"}])
    assert fit.log_density([{"a"}]) == fit.log_density([["a"]])


# ------------------------------------------------------------------- all faults together


def test_all_faults_of_a_table_are_listed_with_their_rows():
    """The first five of each kind and the count."""
    bad = _with(CLUSTERS, np.arange(20, 32), np.inf)
    counts = np.tile([1.0, 2.0, 3.0], 100)
    counts[[4, 9]], counts[12] = [-1, 2.5], np.inf
    spec = M(C(x=N(), n=P(), s=bm.BernoulliSet()), 2)
    with pytest.raises(bm.DataError) as caught:
        bm.fit(spec, {"x": bad, "n": counts, "s": [["a"]] * 292 + [["a", "a"]] * 8})
    x, infinite, wrong, *sets = caught.value.faults
    assert "row 20 is inf, row 21 is inf, row 22 is inf, row 23 is inf, row 24 is inf and 7 more (12 rows in all)" in x
    assert "n:" in infinite
    assert "row 12 is inf" in infinite
    assert "row 4 is -1, row 9 is 2.5 (2 rows in all)" in wrong
    assert len(sets) == 6
    assert "3 more" in sets[-1]


def test_all_records_of_another_length_are_listed():
    with pytest.raises(bm.DataError, match=r"row 1 has 3 fields, row 2 has 1 fields \(2 rows in all\)"):
        bm.fit(M(C(N(), P()), 1), [(1.0, 2), (2.0, 3, 4), (1.0,)])


def test_ordinary_data_draw_no_warning():
    """Clusters of every family, whole numbers and rounded values: nothing is said where nothing is wrong."""
    rng = np.random.default_rng(5)
    z = rng.integers(0, 2, 400)
    table = {
        "x": rng.normal(4 * z, 1).round(1), "age": rng.normal(40 + 20 * z, 8).round(), "n": rng.poisson(2 + 8 * z),
        "t": rng.exponential(1 + 9 * z), "c": np.array(["u", "v"])[rng.random(400).__lt__(0.2 + 0.6 * z).astype(int)],
    }  # fmt: skip
    spec = M(C(x=N(), age=N(), n=P(), t=bm.Exponential(), c=bm.Categorical()), 2)
    assert not fitted(spec, table)[1]
    assert not fitted(M(N(), 2), table["x"])[1]
    assert not fitted(M(P(), 2), table["n"])[1]
