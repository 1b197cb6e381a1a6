"""The E-step's kernel against the walks in numpy, on small tables of every width and number of symbols."""

import ctypes

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.data import read
from bayesmix.inference.start import initial_params, middle
from bayesmix.inference.target import Target
from bayesmix.kernels import whole_table
from bayesmix.plan import EStep

M, C = bm.Mixture, bm.Composite
_rng = np.random.default_rng(11)
_N = 75
X = _rng.normal(size=(_N, 9)) + 4 * _rng.integers(2, size=(_N, 1))


def _symbols(number):
    return [f"s{i}" for i in _rng.integers(number, size=_N)]


_MANY = [f"s{i}" for i in range(300)]
#: Columns are taken one, two, four and eight at a time; few symbols otherwise than many.
CASES = {
    **{f"{d} coordinates": (M(bm.MvNormal(), 2), list(X[:, :d])) for d in (1, 2, 3, 4, 6, 9)},
    **{
        f"{s} symbols": (M(C(x=bm.Normal(), s=bm.Categorical()), 3), {"x": X[:, 0], "s": _symbols(s)})
        for s in (1, 2, 3, 4, 5, 12)
    },
    "two of two columns, not the first one's square": (M(bm.LogNormal(), 2), np.exp(X[:, 0])),
    "two mixtures of two in fields": (
        M(C(a=M(bm.Normal(), 2), b=M(bm.LogNormal(), 2)), 2),
        {"a": X[:, 0], "b": np.exp(X[:, 1])},
    ),
    "a component, and mixtures of two in fields": (
        C(a=M(bm.Normal(), 2), b=M(bm.LogNormal(), 2), c=M(bm.Exponential(), 2)),
        {"a": X[:, 0], "b": np.exp(X[:, 1]), "c": X[:, 2] ** 2},
    ),
    "a set in a field": (
        M(C(x=bm.Normal(), s=bm.BernoulliSet()), 2),
        {"x": X[:, 0], "s": [{"ab"[i % 2], *"cde"[: i % 4]} for i in range(_N)]},
    ),
    "chains": (
        M(C(x=bm.Normal(), s=bm.MarkovChain()), 2),
        {"x": X[:, 0], "s": [[f"s{v}" for v in _rng.integers(6, size=i % 5)] for i in range(_N)]},
    ),
    "four components": (M(bm.Normal(), 4), X[:, 0]),
    "five components in a field": (M(C(a=M(bm.Normal(), 5), b=bm.Exponential()), 2), {"a": X[:, 0], "b": X[:, 1] ** 2}),
    "four components in a field": (M(C(a=M(bm.Normal(), 4), b=bm.Exponential()), 2), {"a": X[:, 0], "b": X[:, 1] ** 2}),
    "more symbols than rows": (
        M(C(x=bm.Normal(), s=bm.Categorical(levels=_MANY)), 2),
        {"x": X[:, 0], "s": _symbols(40)},
    ),
    "more symbols than rows, some missing": (
        M(C(x=bm.Normal(), s=bm.Categorical(levels=_MANY)), 2),
        {"x": X[:, 0], "s": [None, *_symbols(40)[1:]]},
    ),
    "what may be missing whole": (
        M(C(x=bm.Normal(), s=bm.Optional(bm.Sequence(bm.Poisson()))), 2),
        {"x": X[:, 0], "s": [None if i % 4 == 0 else _rng.poisson(2, i % 3).tolist() for i in range(_N)]},
    ),
    "one number alone": (M(bm.Exponential(), 2), np.ones(_N)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_finds_what_the_walks_find(name):
    spec, data = CASES[name]
    _, bound, encoded, _, _ = prepare(spec, data, None)
    for weights in (_rng.random(_N), np.ones(_N)):
        agree(bound, encoded, weights)


@pytest.mark.parametrize("fields", [{"a": bm.Normal(), "b": bm.Exponential()}, {"a": bm.Normal(), "b": bm.Normal()}])
def test_a_new_table_whose_rows_are_one_number(fields):
    """All of them one above the reference point: a column of ones is no column, and its square stands alone."""
    spec = M(C(**fields), 3)
    _, bound, _, _, _ = prepare(spec, {"a": X[:, 0], "b": X[:, 1] ** 2}, None)
    leaves = {leaf.place.path: leaf for leaf in bound.site.leaves()}
    shifted = {name: leaves[name].learned.center + 1.0 for name, family in fields.items() if family == bm.Normal()}
    new = {name: np.full(_N, shifted[name]) if name in shifted else X[:, 2] ** 2 for name in fields}
    for weights in (_rng.random(_N), np.ones(_N)):
        agree(bound, bound.encode(read(new)), weights)


def agree(bound, encoded, weights):
    """One E-step by the kernel and by the walks, from one start."""
    params = initial_params(bound, encoded, np.ones(_N), np.random.default_rng(0), 0)
    e_step = EStep(bound, encoded, weights)
    loglik, stats = e_step(params)
    expected, walked = bound.e_step(params, encoded, weights)
    assert loglik == pytest.approx(expected, rel=1e-12)
    for key, own in walked.items():
        for each, value in own.items():
            scale = max(1.0, np.abs(value).max())
            np.testing.assert_allclose(stats[key][each], value, atol=1e-11 * scale, err_msg=f"{key} {each}")
    np.testing.assert_allclose(e_step.rows(params), bound.log_density(params, encoded), rtol=1e-11, atol=1e-13)


#: Rows that are stored once each, and equal rows that are stored together.
TABLES = {"rows": X[:, 0], "equal rows": np.tile(X[:70, 0], 4)}


@pytest.mark.parametrize("name", TABLES)
def test_a_whole_table_by_its_name_is_what_the_walks_find(name):
    whole_table.link()
    _, bound, encoded, _, _ = prepare(M(bm.Normal(), 2), TABLES[name], None)
    ones = np.ones(encoded.n_rows)
    params = initial_params(bound, encoded, ones, np.random.default_rng(0), 0)
    plan = EStep(bound, encoded, ones)._plan
    *arrays, groups = plan.arrays().values()
    assert (groups.size > 0) == (name == "equal rows")
    for weights in (_rng.random(len(ones)), ones):
        own = whole_table.gathered(weights, groups)
        loglik, rows, stats = whole_table.run(plan.natural(params), own, *arrays, True, True)
        expected, walked = bound.e_step(params, encoded, weights)
        assert loglik == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(whole_table.spread(rows, groups), bound.log_density(params, encoded), rtol=1e-11)
        for key, found in plan.statistics(stats).items():
            for each, value in found.items():
                np.testing.assert_allclose(value, walked[key][each], rtol=1e-9, atol=1e-9)
        loglik, rows, stats = whole_table.run(plan.natural(params), own, *arrays, False, False)
        assert loglik == pytest.approx(expected, rel=1e-12)
        assert rows.size == 0
        assert not stats.any()


@pytest.mark.parametrize("name", TABLES)
def test_a_log_density_by_its_address_is_pythons_in_either_coordinates(name):
    table, bound, encoded, _, _ = prepare(M(bm.Normal(), 2), TABLES[name], None)
    model = model_of(bound, encoded, index=table.index, initval=middle(bound))
    target = Target(model, variables_at(bound, middle(bound)), jacobian=True)
    size = len(target.start)
    origin, scale = target.start + 0.5, np.linspace(0.5, 2, size)
    for u in (target.start, target.start + 0.3 * _rng.normal(size=size)):
        expected, slope = target(u)
        status, value, gradient, point = _called(target.native(), u)
        assert (status, value) == (0, pytest.approx(expected, rel=1e-13))
        np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(point, u)
        v = (u - origin) / scale
        status, value, gradient, point = _called(target.native(origin, scale), v)
        assert (status, value) == (0, pytest.approx(expected, rel=1e-11))
        np.testing.assert_allclose(gradient, slope * scale, rtol=1e-9, atol=1e-9)  # the chain rule
        np.testing.assert_allclose(point, u, rtol=1e-14)
    status, *_ = _called(target.native(), np.full(size, np.nan))
    assert status > 0  # a divergence; a negative one ends the chain


def _called(native, v):
    """Status, value, gradient and point of a density that is called by its address."""
    gradient, value, point = np.empty(len(v)), np.empty(1), np.empty(len(v))
    places = [array.ctypes.data for array in (v, gradient, value, native.user_data)]
    address, whole = ctypes.c_void_p, ctypes.c_uint64
    status = ctypes.CFUNCTYPE(ctypes.c_int64, whole, *[address] * 4)(native.density.address)(len(v), *places)
    move = ctypes.CFUNCTYPE(ctypes.c_int64, whole, whole, *[address] * 3)(native.point.address)
    assert move(len(v), len(v), places[0], point.ctypes.data, places[3]) == 0
    return status, float(value[0]), gradient, point
