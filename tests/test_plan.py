"""The E-step by the kernel against the walks in numpy, where the plan takes rows or elements together."""

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.inference.start import initial_params
from bayesmix.kernels.log_sum_exp import exp, log, log_and_inverse
from bayesmix.likelihood import Rows
from bayesmix.plan import _AT_ONCE, EStep
from bayesmix.repeats import repeats

_rng = np.random.default_rng(3)
_N = 900


def _pieces(values: np.ndarray, longest: int) -> list:
    """Sequences of 0 to `longest` elements; one in ten rows is missing."""
    lengths = _rng.integers(longest + 1, size=_N)
    rows = [values[_rng.integers(len(values), size=n)].tolist() for n in lengths]
    return [None if _rng.random() < 0.1 else row for row in rows]


def _with_gaps(values: list) -> list:
    return [None if _rng.random() < 0.1 else value for value in values]


SYMBOLS = np.array(["a", "b", "c"])
MANY = np.array([f"s{i}" for i in range(40)])
COUNTS = _with_gaps(_rng.poisson(2, _N).tolist())
COLOURS = _with_gaps(_rng.choice(SYMBOLS, _N).tolist())
TRUTHS = _with_gaps((_rng.random(_N) < 0.4).tolist())
NUMBERS = _rng.normal(size=50)

CASES = {
    "counts": (bm.Mixture(bm.Poisson(), 3), {"x": COUNTS}, True),
    "record": (
        bm.Mixture(bm.Composite(a=bm.Poisson(), b=bm.Categorical(), c=bm.Optional(bm.Bernoulli())), 2),
        {"a": COUNTS, "b": COLOURS, "c": TRUTHS},
        True,
    ),
    "sets": (bm.Mixture(bm.BernoulliSet(), 2), {"x": [set(row or "a") for row in _pieces(SYMBOLS, 3)]}, True),
    "short sequences": (bm.Mixture(bm.Sequence(bm.Categorical(), bm.Poisson()), 2), {"x": _pieces(SYMBOLS, 2)}, True),
    "long sequences": (bm.Mixture(bm.Sequence(bm.Categorical()), 2), {"x": _pieces(SYMBOLS, 9)}, False),
    "many symbols": (bm.Mixture(bm.Sequence(bm.Categorical()), 2), {"x": _pieces(MANY, 4)}, False),
    "numbers": (bm.Mixture(bm.Sequence(bm.Normal(), bm.Poisson()), 3), {"x": _pieces(NUMBERS, 5)}, False),
    "chains": (bm.Mixture(bm.MarkovChain(length=bm.Poisson()), 2), {"x": _pieces(SYMBOLS, 2)}, True),
    "vectors": (
        bm.Mixture(bm.Sequence(bm.MvNormal()), 2),
        {"x": [[tuple(v) for v in _rng.normal(size=(n, 2))] for n in _rng.integers(4, size=_N)]},
        False,
    ),
    "sequences of sequences": (
        bm.Mixture(bm.Sequence(bm.Sequence(bm.Normal()), bm.Poisson()), 2),
        {"x": [[_rng.normal(size=m).tolist() for m in _rng.integers(4, size=n)] for n in _rng.integers(4, size=_N)]},
        False,
    ),
    "sequences of what may be missing": (
        bm.Mixture(bm.Sequence(bm.Optional(bm.Sequence(bm.Poisson()))), 2),
        {"x": [[None if m == 0 else [m, 1] for m in _rng.integers(3, size=n)] for n in _rng.integers(4, size=_N)]},
        True,
    ),
    "topics": (bm.HierarchicalMixture(bm.Categorical(), 2, 2), {"x": _pieces(SYMBOLS, 2)}, True),
    "rounded": (
        bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3)),
        {"x": np.round(_rng.normal(size=_N), 1), "y": _rng.poisson(1, _N)},
        True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_and_elements_taken_together_change_nothing(name):
    spec, data, grouped = CASES[name]
    weights = _rng.random(_N) * (_rng.random(_N) < 0.8)
    _, bound, encoded, _, _ = prepare(spec, data, None)
    params = initial_params(bound, encoded, np.ones(_N), np.random.default_rng(0), 0)
    assert (repeats(encoded) is not None) == grouped
    for own in (weights, np.ones(_N)):
        loglik, stats = EStep(bound, encoded, own)(params)
        expected, walked = bound.e_step(params, encoded, own)
        np.testing.assert_allclose(loglik, expected, rtol=1e-12)
        for key, found in stats.items():
            for each, value in found.items():
                scale = max(1.0, np.abs(walked[key][each]).max())
                np.testing.assert_allclose(value, walked[key][each], atol=1e-11 * scale, err_msg=f"{key} {each}")
    plan = Rows(bound, encoded).plan
    rows, _ = plan.run(plan.natural(params), weights)
    # some rows are certain: their log density is 0 but for rounding
    np.testing.assert_allclose(rows, bound.log_density(params, encoded), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("n_rows", [1, 31, 32, 33, 1023, 1024, 1025, 3000])
def test_blocks_of_any_size_count_every_row_once(n_rows):
    x = np.random.default_rng(0).normal(size=n_rows)
    spec = bm.Mixture(bm.Normal(), 1)
    _, bound, encoded, weights, _ = prepare(spec, x, None)
    params = {"weights": np.ones(1), "mu": np.zeros(1), "sigma": np.ones(1)}
    for n_jobs in (1, 2):
        loglik, stats = EStep(bound, encoded, weights, n_jobs)(params)
        np.testing.assert_allclose(loglik, -0.5 * (x @ x + n_rows * np.log(2 * np.pi)), rtol=1e-12)
        assert stats[bound.site.key]["n"].sum() == n_rows


def test_statistics_found_some_rows_at_a_time_are_those_of_all_rows():
    rng = np.random.default_rng(4)
    n_rows = 2 * _AT_ONCE + 17
    numbers = rng.normal(size=(n_rows, 11))
    data = {
        "normal": numbers[:, 0],
        "log": np.exp(numbers[:, 1]),
        "wait": rng.exponential(size=n_rows),
        "count": rng.poisson(3, n_rows),
        "tries": rng.geometric(0.3, n_rows),
        "truth": np.append(np.ones(n_rows - 5, bool), np.zeros(5, bool)),  # the first rows' statistics are constant
        "vector": list(map(tuple, numbers)),
        "symbol": rng.choice(SYMBOLS, n_rows),
        "gaps": np.where(rng.random(n_rows) < 0.1, np.nan, numbers[:, 2]),
    }
    spec = bm.Mixture(
        bm.Composite(
            normal=bm.Normal(),
            log=bm.LogNormal(),
            wait=bm.Exponential(),
            count=bm.Mixture(bm.Poisson(), 2),
            tries=bm.Geometric(),
            truth=bm.Bernoulli(),
            vector=bm.MvNormal(),
            symbol=bm.Categorical(),
            gaps=bm.Normal(),
        ),
        2,
    )
    _, bound, encoded, weights, _ = prepare(spec, data, None)
    params = initial_params(bound, encoded, weights, rng, 0)
    loglik, stats = EStep(bound, encoded, weights)(params)
    expected, walked = bound.e_step(params, encoded, weights)
    np.testing.assert_allclose(loglik, expected, rtol=1e-12)
    for key, found in stats.items():
        for each, value in found.items():
            scale = max(1.0, np.abs(walked[key][each]).max())
            np.testing.assert_allclose(value, walked[key][each], atol=1e-10 * scale, err_msg=f"{key} {each}")
    elements = {"x": np.split(numbers.ravel()[: 9 * n_rows], n_rows)}
    _, bound, encoded, weights, _ = prepare(bm.Mixture(bm.Sequence(bm.Mixture(bm.Normal(), 2)), 2), elements, None)
    params = initial_params(bound, encoded, weights, rng, 0)
    np.testing.assert_allclose(EStep(bound, encoded, weights).rows(params), bound.log_density(params, encoded), 1e-11)


def test_exponential_and_logarithm_over_the_whole_range():
    x = np.concatenate([-np.linspace(0, 708, 20_001), -(10.0 ** np.arange(-300, 2.8, 0.7)), [-0.0]])
    exact = np.exp(x.astype(np.longdouble))
    assert np.abs(np.array([exp(v) for v in x]) / exact - 1).max() < 3e-16
    assert exp(-708.5) == exp(-np.inf) == 0
    assert np.isnan(exp(np.nan))
    y = np.concatenate([1 + 10.0 ** np.arange(-15, 0, 0.1), np.linspace(1, 100, 5001), [1e300]])
    found, inverse = np.array([log_and_inverse(v) for v in y]).T
    np.testing.assert_allclose(found, np.log(y), rtol=2e-15)
    np.testing.assert_allclose(inverse, 1 / y, rtol=5e-16)
    np.testing.assert_allclose([log(v) for v in y], np.log(y), rtol=1e-15)


_FIELDS = {f"x{j}": _rng.normal(size=300) + 3 * _rng.integers(2, size=300) for j in range(130)}
#: Mixtures whose sums the kernel keeps as factors, or takes the logarithms of together.
FACTORS = {
    **{f"{k} Normals": (bm.Mixture(bm.Normal(), k), _rng.normal(size=2500)) for k in (1, 2, 3, 5)},
    **{f"{k} Poissons": (bm.Mixture(bm.Poisson(), k), _rng.poisson(3, 70)) for k in (2, 3)},
    "a mixture in a field": (
        bm.Mixture(bm.Composite(a=bm.Mixture(bm.Normal(), 3), b=bm.Poisson()), 2),
        {"a": _rng.normal(size=400), "b": _rng.poisson(2, 400)},
    ),
    "two in fields": (
        bm.Mixture(bm.Composite(a=bm.Mixture(bm.Normal(), 2), b=bm.Mixture(bm.Poisson(), 3)), 3),
        {"a": _rng.normal(size=400), "b": _rng.poisson(2, 400)},
    ),
    "more fields than a factor holds": (
        bm.Mixture(bm.Composite({name: bm.Mixture(bm.Normal(), 3) for name in _FIELDS}), 2),
        _FIELDS,
    ),
    "without a mixture around": (
        bm.Composite(a=bm.Mixture(bm.Normal(), 2), b=bm.Poisson()),
        {"a": [1.0, 2.0, 9.0], "b": [0, 1, 5]},
    ),
    "in elements": (
        bm.Mixture(bm.Sequence(bm.Composite(a=bm.Mixture(bm.Normal(), 2), b=bm.Mixture(bm.Normal(), 2))), 2),
        {"x": [[(float(v), float(v) - 1) for v in _rng.normal(size=n)] for n in _rng.integers(5, size=200)]},
    ),
}


@pytest.mark.parametrize("name", FACTORS)
def test_sums_kept_as_factors_are_the_walks(name):
    spec, data = FACTORS[name]
    _, bound, encoded, weights, _ = prepare(spec, data, None)
    params = initial_params(bound, encoded, weights, np.random.default_rng(0), 0)
    loglik, stats = EStep(bound, encoded, weights)(params)
    expected, walked = bound.e_step(params, encoded, weights)
    assert loglik == pytest.approx(expected, rel=1e-12)
    for key, own in walked.items():
        for each, value in own.items():
            np.testing.assert_allclose(stats[key][each], value, rtol=1e-9, atol=1e-9)


def test_equal_components_and_a_weight_of_zero():
    x = _rng.normal(size=4000)
    _, bound, encoded, weights, _ = prepare(bm.Mixture(bm.Normal(), 2), x, None)
    e_step = EStep(bound, encoded, weights)
    same = {"weights": np.array([0.5, 0.5]), "mu": np.zeros(2), "sigma": np.ones(2)}
    loglik, stats = e_step(same)  # the product of 992 sums is 2^992
    assert loglik == pytest.approx(bound.e_step(same, encoded, weights)[0], rel=1e-13)
    alone = {**same, "weights": np.array([0.0, 1.0])}
    loglik, stats = e_step(alone)
    assert loglik == pytest.approx(bound.e_step(alone, encoded, weights)[0], rel=1e-13)
    np.testing.assert_allclose(stats[bound.site.key]["n"].ravel(), [0, 4000], atol=1e-9)


@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize(
    "family", [bm.Normal(), bm.Composite(a=bm.Normal(), b=bm.Poisson())], ids=["two columns", "more"]
)
def test_rows_that_no_component_allows(family, n_components):
    data = {"a": _rng.normal(size=1500), "b": _rng.poisson(2, 1500)}
    data = data if isinstance(family, bm.Composite) else data["a"]
    _, bound, encoded, _, _ = prepare(bm.Mixture(family, n_components), data, None)
    plan = Rows(bound, encoded).plan
    natural = plan.natural(initial_params(bound, encoded, np.ones(1500), np.random.default_rng(0), 0))
    at, _ = plan._layout[bound.site.key]["n"]
    natural[at : at + n_components] = -np.inf
    loglik, statistics = plan.total(natural, np.empty(0))
    assert loglik == -np.inf
    assert not statistics.any()


def test_missing_cells_alone_are_no_repeats():
    rng = np.random.default_rng(1)
    x = rng.normal(size=40_000)
    for share in (0.05, 0.1, 0.2, 0.4):
        column = np.where(rng.random(len(x)) < share, np.nan, x)
        _, _, encoded, _, _ = prepare(bm.Mixture(bm.Normal(), 2), column, None)
        assert repeats(encoded) is None  # at most two fifths of the rows could be spared
    column = np.where(rng.random(len(x)) < 0.7, np.nan, x)
    _, _, encoded, _, _ = prepare(bm.Mixture(bm.Normal(), 2), column, None)
    members, groups = repeats(encoded)
    assert len(members) == np.isfinite(column).sum() + 1
    np.testing.assert_array_equal(column[members][groups], column)


def test_rows_of_a_column_with_missing_cells_are_taken_in_any_order():
    column = np.array([1.0, np.nan, 3.0, np.nan, 5.0])
    _, _, encoded, _, _ = prepare(bm.Mixture(bm.Normal(), 1), column, None)
    rows = np.array([4, 1, 0, 0, 3, 4])
    leaf = encoded
    while leaf.children:
        leaf = leaf.children[0]
    taken = leaf.take(rows)
    np.testing.assert_array_equal(taken.full(taken.arrays["value"], np.nan), column[rows])
    assert leaf.take(np.array([1, 3])).present.size == 0
