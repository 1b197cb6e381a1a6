"""Sets of many symbols, chains of many pairs and categories of many levels: nothing dense, and the same figures."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind, count_distinct
from bayesmix.checkpoint import digest
from bayesmix.data import read
from bayesmix.families import bernoulli_set, markov_chain
from bayesmix.plan import EStep
from bayesmix.repeats import repeats
from bayesmix.statistics import OneHot, SparseRows, principal_scores, sums

RNG = np.random.default_rng(11)


def random_matrix(n_rows: int, size: int, share: float = 0.1, ones: bool = False) -> tuple[np.ndarray, SparseRows]:
    dense = RNG.normal(size=(n_rows, size)) * (RNG.random((n_rows, size)) < share)
    dense = (dense != 0).astype(float) if ones else dense
    rows, columns = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(n_rows + 1))
    return dense, SparseRows(indptr, columns.astype(np.int32), size, None if ones else dense[rows, columns])


@pytest.mark.parametrize("ones", [True, False])
def test_compressed_rows_are_the_matrix(ones):
    dense, rows = random_matrix(40, 70, ones=ones)
    assert len(rows) == 40
    assert rows.shape == (40, 70)
    np.testing.assert_array_equal(np.asarray(rows), dense)
    picked = RNG.integers(40, size=55)
    for key in (slice(3, 20), slice(0, 0), slice(30, 99), slice(1, 30, 4), picked, dense[:, 0] == 0, np.zeros(0, int)):
        np.testing.assert_array_equal(np.asarray(rows[key]), dense[key])
    np.testing.assert_allclose(rows.sum(0), dense.sum(0), atol=1e-12)
    np.testing.assert_allclose(rows.sum(1), dense.sum(1), atol=1e-12)
    factor = RNG.normal(size=(70, 3))
    np.testing.assert_allclose(rows @ factor, dense @ factor, atol=1e-12)
    present = np.sort(RNG.choice(60, 40, replace=False))
    wider = np.zeros((60, 70))
    wider[present] = dense
    spread = rows.spread(present, 60)
    np.testing.assert_array_equal(np.asarray(spread), wider)
    gone = np.setdiff1d(np.arange(60), present)
    wider[gone] = -1
    np.testing.assert_array_equal(np.asarray(spread.marked(gone, -1)), wider)
    indptr = np.array([0, 5, 5, 31, 40])
    summed = [dense[i:j].sum(0) for i, j in pairwise(indptr)]
    np.testing.assert_allclose(np.asarray(rows.joined(indptr)), summed, atol=1e-12)


def test_sums_of_statistics_that_are_not_written_out():
    dense, rows = random_matrix(50, 30)
    resp = RNG.random((50, 4))
    np.testing.assert_allclose(sums(rows, resp), resp.T @ dense, atol=1e-12)
    codes = RNG.integers(-1, 6, size=50)
    indicators = (codes[:, None] == np.arange(6)).astype(float)
    np.testing.assert_allclose(sums(OneHot(codes, 6), resp), resp.T @ indicators, atol=1e-12)


def test_principal_scores_are_those_of_the_singular_value_decomposition():
    dense, rows = random_matrix(300, 400, 0.05, ones=True)
    dense[:100, :60] = 1.0
    at, columns = np.nonzero(dense)
    rows = SparseRows(np.searchsorted(at, np.arange(301)), columns, 400)
    across, ones = RNG.uniform(0.5, 2.0, 400), np.ones(300)
    scores = principal_scores(rows, across, ones, ones, 5)
    scaled = dense * across
    u, s, _ = np.linalg.svd(scaled - scaled.mean(0))
    # the first one stands apart, and is found to many digits; of the others (noise) the lengths, roughly
    np.testing.assert_allclose(np.abs(scores[:, 0]), np.abs(u[:, 0] * s[0]), atol=1e-4 * s[0])
    lengths = np.linalg.norm(scores, axis=0)
    assert (lengths < s[:5] * (1 + 1e-9)).all()  # of a part of the range
    assert (lengths > 0.9 * s[:5]).all()
    np.testing.assert_array_equal(scores, principal_scores(rows, across, ones, ones, 5))
    assert principal_scores(rows[:0], across, ones[:0], ones[:0], 5).shape == (0, 5)


# ------------------------------------------------------------ sets


def tags(n_rows: int, n_symbols: int, per_set: int, seed: int = 0) -> tuple[list[set[int]], np.ndarray]:
    """Sets of two groups, half of whose symbols are from the group's own tenth of the vocabulary."""
    rng = np.random.default_rng(seed)
    group, tenth = rng.integers(2, size=n_rows), n_symbols // 10
    own = group[:, None] * tenth + rng.integers(tenth, size=(n_rows, per_set // 2))
    cells = np.hstack([own, rng.integers(n_symbols, size=(n_rows, per_set - per_set // 2))])
    return [set(row) for row in cells.tolist()], group


SETS, GROUP = tags(600, 600, 12)
CELLS: list = [None if row % 9 == 4 else set() if row % 50 == 7 else cell for row, cell in enumerate(SETS)]
SPEC = bm.Mixture(bm.BernoulliSet(), 2)


@pytest.fixture(scope="module")
def fit():
    return bm.fit_em(SPEC, CELLS, random_seed=1, n_starts=3)


def test_the_log_density_of_a_set_is_that_of_its_indicators(fit):
    p, weights = fit.params["p"], fit.params["weights"]
    symbols = list(fit.bound.site.children[0].learned.levels)
    expected = []
    for cell in CELLS:
        held = np.array([[cell is not None and s in cell for s in symbols]])
        own = stats.bernoulli(p).logpmf(held).sum(1) if cell is not None else np.zeros(2)
        expected.append(np.logaddexp(*(np.log(weights) + own)))
    np.testing.assert_allclose(fit.log_density(CELLS), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        fit.bound.log_density(fit.params, fit.bound.encode(CELLS)), expected, rtol=1e-10, atol=1e-12
    )


def test_weights_and_statistics_are_those_of_repeated_rows(fit):
    """By the kernel and by the walks, and against sums over the sets themselves."""
    bound, times = fit.bound, np.random.default_rng(2).integers(0, 4, len(CELLS))
    data = bound.encode(CELLS)
    repeated = [cell for cell, n in zip(CELLS, times) for _ in range(n)]
    loglik, found = EStep(bound, data, times.astype(float))(fit.params)
    again = EStep(bound, bound.encode(repeated), np.ones(len(repeated)))(fit.params)
    walked = bound.e_step(fit.params, data, times.astype(float))
    np.testing.assert_allclose([again[0], walked[0]], loglik, rtol=1e-12)
    resp = bound.responsibilities(fit.params, data) * times[:, None]
    counts = np.zeros_like(fit.params["p"])
    for cell, own in zip(CELLS, resp):
        for symbol in cell or ():
            counts[:, bound.site.children[0].learned.levels.index(symbol)] += own
    key = bound.site.children[0].key
    for other in (found, again[1], walked[1]):
        np.testing.assert_allclose(other[key]["counts"], counts, rtol=1e-9, atol=1e-9)


def test_em_is_the_same_with_a_matrix(fit, monkeypatch):
    """The one form against the other, from one start."""
    assert isinstance(fit.encoded.arrays["value"], SparseRows)
    start = {**fit.params, "p": 0.5 * fit.params["p"] + 0.05}
    sparse = bm.fit_em(SPEC, CELLS, start=start)
    monkeypatch.setattr(bernoulli_set, "is_sparse", lambda size, per_row: False)
    dense = bm.fit_em(SPEC, CELLS, start=start)
    assert isinstance(dense.encoded.arrays["value"], np.ndarray)
    np.testing.assert_allclose(sparse.history, dense.history, rtol=1e-10)
    np.testing.assert_allclose(sparse.params["p"], dense.params["p"], rtol=1e-6)
    np.testing.assert_array_equal(sparse.idata["observed_data"]["x"], dense.idata["observed_data"]["x"])


def test_everything_that_follows_a_fit(fit, tmp_path):
    there = np.array([cell is not None and len(cell) > 0 for cell in CELLS])
    labels = fit.predict()
    assert max(np.mean((labels == g)[there] == GROUP[there]) for g in (0, 1)) > 0.97
    assert fit.summary().loc["p[0, 0]", "value"] == pytest.approx(fit.params["p"][0, 0])
    described = fit.describe()
    assert "Component 1" in str(described)
    assert any("not_identified" in reason for reason in described.check.unchecked)
    fit.save(tmp_path / "fit.zip")
    loaded = bm.load(tmp_path / "fit.zip")
    np.testing.assert_array_equal(loaded.log_density(CELLS), fit.log_density(CELLS))
    drawn = fit.sample(2000, random_seed=1)["x"]
    lengths = np.array([len(cell) for cell in drawn])
    assert lengths.mean() == pytest.approx(fit.params["weights"] @ fit.params["p"].sum(1), abs=0.5)
    imputed = fit.impute(n_draws=3, random_seed=1)
    assert all(isinstance(cell, frozenset) for cell in imputed.draws["x"].ravel())
    drawn = fit.posterior_predictive(n_draws=2, random_seed=1)["posterior_predictive"]["x"]
    assert drawn.shape == (1, 2, 600, fit.params["p"].shape[1])
    assert (drawn.values[:, :, [4, 13]] == -1).all()
    with pytest.raises(bm.DataError, match="row 1 holds 'new'"):
        fit.predict([set(), {"new"}])
    first, second = fit.responsibilities([None, {"new"}], unseen="ignore")
    np.testing.assert_array_equal(first, second)


def test_certain_symbols_of_many():
    """p = 0 and p = 1 among a thousand symbols: a set that holds or lacks one is impossible, exactly then."""
    p = np.full(1100, 0.01)
    p[5], p[7] = 0.0, 1.0
    bound = bind(bm.BernoulliSet(p=p, levels=range(1100)), read([{7}, {7, 5}, {3}, {7, 900}]))
    data = bound.encode([{7}, {7, 5}, {3}, {7, 900}])
    rest = 1098 * np.log1p(-0.01)
    expected = [rest, -np.inf, -np.inf, rest + np.log(0.01) - np.log1p(-0.01)]
    np.testing.assert_allclose(bound.log_density(bound.with_fixed({}), data), expected, rtol=1e-12)


def test_equal_sets_are_one_row():
    some, _ = tags(40, 1200, 12, seed=3)
    cells: list = [some[i] for i in np.random.default_rng(4).integers(40, size=600)]
    cells[10] = None
    bound = bind(SPEC, read(cells))
    data = bound.encode(cells)
    members, groups = repeats(data)  # type: ignore[misc]
    assert len(members) == len({frozenset(cell) for cell in cells if cell is not None}) + 1
    for row, group in enumerate(groups):
        assert cells[row] == cells[members[group]]
    assert count_distinct(data, 1000) == len(members)


def test_a_digest_tells_sets_apart(fit):
    other = [*CELLS[:-1], {1, 2, 3}]
    same, changed = fit.bound.encode(list(CELLS)), fit.bound.encode(other, unseen="ignore")
    assert digest(same, fit) == digest(fit.encoded, fit) != digest(changed, fit)


@pytest.mark.filterwarnings("ignore::bayesmix.IndistinctWarning", "ignore::bayesmix.ConvergenceWarning")
def test_memory_of_a_large_vocabulary_is_that_of_its_entries():
    cells, group = tags(4_000, 40_000, 60)
    bm.fit_em(SPEC, SETS, random_seed=1, n_starts=1)  # what is compiled once
    entries = sum(map(len, cells))
    tracemalloc.start()
    fit = bm.fit_em(SPEC, cells, random_seed=1, n_starts=1, max_iter=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels = fit.predict()
    assert max(np.mean(labels == group), np.mean(labels != group)) > 0.97
    size = fit.params["p"].size
    # entries as numbers and places, and tens of copies of the parameters; the matrix would be 1,280 MB
    assert peak < 100 * entries + 8 * 120 * size < 0.1 * 8 * len(cells) * 40_000


def test_a_model_of_too_many_numbers_is_refused_with_the_way_out(fit, monkeypatch):
    monkeypatch.setattr(sys.modules["bayesmix.spec"], "MOST_WRITTEN", 1000)
    with pytest.raises(bm.DataError, match=r"x: a PyMC model holds sets as a matrix of 600 rows and .* Use fit_em"):
        bm.build_model(SPEC, CELLS, initval=None)
    monkeypatch.setattr(sys.modules["bayesmix.fit"], "_MOST_KEPT", 1000)
    again = bm.fit_em(SPEC, CELLS, start=fit.params, max_iter=3, tol=1.0)
    assert "x" not in again.idata["observed_data"]
    assert again.idata["observed_data"].attrs["left_out"] == "too large to write out: x"


def test_the_pymc_model_of_sparse_sets_has_the_same_likelihood(fit):
    model = bm.build_model(SPEC, CELLS, initval=fit.params)
    logp = model.compile_logp()(model.initial_point())
    jacobian = model.compile_logp(jacobian=False)(model.initial_point())
    expected = fit.log_density(CELLS).sum() + fit.bound.log_prior(fit.params)
    assert np.isfinite(logp)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-9)


# ------------------------------------------------------------ categories


@pytest.mark.filterwarnings("ignore::bayesmix.IndistinctWarning", "ignore::bayesmix.ConvergenceWarning")
def test_categories_of_many_levels_EM():
    rng = np.random.default_rng(5)
    group = rng.integers(2, size=30_000)
    codes = rng.integers(10_000, size=30_000) + 10_000 * group
    table = {"x": rng.normal(4.0 * group), "code": codes}
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), code=bm.Categorical()), 2)
    bm.fit_em(spec, {name: values[:500] for name, values in table.items()}, n_starts=1, random_seed=1)
    tracemalloc.start()
    fit = bm.fit_em(spec, table, random_seed=1, n_starts=2, max_iter=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    n_levels = fit.params["code_p"].shape[1]
    assert n_levels > 15_000
    # indicators of the rows would be 3,600 MB, and those of the levels alone 2,600 MB
    assert peak < 8 * 200 * 2 * n_levels + 400 * len(codes) < 100e6
    labels = fit.predict()
    assert max(np.mean(labels == group), np.mean(labels != group)) > 0.95
    bound, data = fit.bound, fit.encoded
    resp = bound.responsibilities(fit.params, data)
    levels = np.array(bound.site.children[0].children[1].learned.levels)
    place = np.searchsorted(levels, codes)
    expected = [np.bincount(place, own, n_levels) for own in resp.T]
    _, found = EStep(bound, data, np.ones(len(codes)))(fit.params)
    np.testing.assert_allclose(found[bound.site.children[0].children[1].key]["counts"], expected, atol=1e-8)
    assert "Component 1" in str(fit.describe())
    drawn = fit.sample(20_000, random_seed=3)["code"]
    assert set(np.unique(drawn)) <= set(levels.tolist())


def test_draws_of_a_category_have_its_probabilities_Categorical():
    fit = bm.fit_em(bm.Categorical(), list("aab") * 30 + ["c"])
    drawn = fit.sample(20_000, random_seed=1)["x"]
    shares = [np.mean(drawn == symbol) for symbol in "abc"]
    np.testing.assert_allclose(shares, fit.params["p"], atol=4 * np.sqrt(0.25 / 20_000))


# ------------------------------------------------------------ chains


def walks(n_rows: int, size: int) -> list:
    """Chains of two kinds: steps up and steps down, with some at random; one is missing, one empty."""
    rng = np.random.default_rng(6)
    cells: list = []
    for row in range(n_rows):
        steps = np.where(rng.random(12) < 0.2, rng.integers(size, size=12), 1 - 2 * (row % 2))
        cells.append(((rng.integers(size) + np.cumsum(steps)) % size).tolist())
    cells[3], cells[8] = None, []
    return cells


def test_chains_of_many_pairs_are_the_same_with_a_matrix_MarkovChain(monkeypatch):
    cells = walks(120, 20)
    spec = bm.Mixture(bm.MarkovChain(), 2)
    sparse = bm.fit_em(spec, cells, random_seed=1, n_starts=2)
    assert isinstance(sparse.encoded.arrays["counts"], SparseRows)
    initial, transition, weights = sparse.params["initial"], sparse.params["transition"], sparse.params["weights"]
    expected = []
    for cell in cells:
        own = np.zeros(2)
        if cell:
            own = np.log(initial[:, cell[0]]) + sum(np.log(transition[:, a, b]) for a, b in pairwise(cell))
        expected.append(np.logaddexp(*(np.log(weights) + own)))
    np.testing.assert_allclose(sparse.log_density(cells), expected, rtol=1e-10, atol=1e-12)
    monkeypatch.setattr(markov_chain, "is_sparse", lambda size, per_row: False)
    dense = bm.fit_em(spec, cells, random_seed=1, n_starts=2)
    np.testing.assert_allclose(sparse.history[-1], dense.history[-1], rtol=1e-9)
    labels = sparse.predict()
    there = [row for row in range(120) if row not in (3, 8)]
    assert max(np.mean([labels[row] == (row + g) % 2 for row in there]) for g in (0, 1)) > 0.97


def test_chains_of_too_many_symbols_are_refused_with_the_way_out_MarkovChain():
    cells = [[2 * row, 2 * row + 1] for row in range(1300)]
    with pytest.raises(bm.DataError, match=r"w: a MarkovChain of 2,600 symbols has 6,760,000 transition .* Give rare"):
        bm.fit_em(bm.Mixture(bm.Composite(w=bm.MarkovChain()), 2), {"w": cells})
