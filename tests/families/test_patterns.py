"""Normal vectors with missing coordinates, against scipy's marginals, formulas row by row, numerical optimisation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.families import _patterns
from bayesmix.families._patterns import Patterns, pattern_codes
from tests.cases import responsibilities

MU = np.array([[0.0, 5.0, -70.0], [2.0, 3.0, -66.0]])
COV = np.array(
    [
        [[1.0, 0.4, 0.9], [0.4, 2.0, -1.5], [0.9, -1.5, 9.0]],
        [[0.5, -0.3, 0.0], [-0.3, 1.0, 0.2], [0.0, 0.2, 4.0]],
    ]
)
CENTER = np.array([0.5, 4.0, -68.0])
D, K = 3, 2


def table(n_rows=60, missing=0.3, seed=0):
    """Draws from both components, with cells missing: every pattern, whole rows and empty ones included."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, K, n_rows)
    value = np.array([rng.multivariate_normal(MU[k], COV[k]) for k in z])
    value[rng.random(value.shape) < missing] = np.nan
    for row, gone in enumerate(np.ndindex(2, 2, 2)):
        value[row, np.array(gone, bool)] = np.nan
    return value


VALUE = table()
PATTERNS = Patterns.of(VALUE)


def marginal_log_density(row, mu, cov):
    seen = ~np.isnan(row)
    return stats.multivariate_normal.logpdf(row[seen], mu[seen], cov[np.ix_(seen, seen)]) if seen.any() else 0.0


def oracle_log_density(value, mu, cov):
    return np.array([[marginal_log_density(row, m, c) for m, c in zip(mu, cov)] for row in value])


def test_every_row_is_in_one_pattern():
    assert len(PATTERNS.groups) == 8
    rows = np.concatenate([group.rows for group in PATTERNS.groups])
    assert sorted(rows) == list(range(len(VALUE)))
    for group in PATTERNS.groups:
        gone = np.zeros(D, bool)
        gone[group.missing] = True
        assert (np.isnan(VALUE[group.rows]) == gone).all()
    assert not PATTERNS.complete


def test_codes_stay_right_for_any_rows_taken():
    codes = pattern_codes(VALUE)
    rows = np.random.default_rng(1).permutation(len(VALUE))[:23]
    with_codes, fresh = Patterns.of(VALUE[rows], codes[rows]), Patterns.of(VALUE[rows])
    a, b = (_patterns.log_density(VALUE[rows], patterns, MU, COV) for patterns in (with_codes, fresh))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, _patterns.log_density(VALUE, PATTERNS, MU, COV)[rows], rtol=1e-12)


def test_patterns_in_many_dimensions():
    """More coordinates than a 64-bit number has bits."""
    value = np.random.default_rng(2).normal(size=(40, 100))
    value[::3, 80] = np.nan
    value[::5, 2] = np.nan
    assert len(Patterns.of(value).groups) == 4


def test_no_rows():
    empty = np.empty((0, D))
    patterns = Patterns.of(empty)
    assert patterns.complete
    assert _patterns.log_density(empty, patterns, MU, COV).shape == (0, K)
    for name, statistic in _patterns.suff_stats(empty, patterns, np.empty((0, K)), MU, COV, CENTER).items():
        np.testing.assert_array_equal(statistic, np.zeros({"n": K, "first": (K, D), "second": (K, 6)}[name]))


def test_log_density_is_scipys_marginal():
    found = _patterns.log_density(VALUE, PATTERNS, MU, COV)
    np.testing.assert_allclose(found, oracle_log_density(VALUE, MU, COV), rtol=1e-11, atol=1e-12)


def test_whole_rows_have_the_familys_density_and_statistics():
    value = table(missing=0)[8:]
    patterns = Patterns.of(value)
    assert patterns.complete
    assert np.shares_memory(patterns.groups[0].seen(value), value)  # whole tables are not copied
    found = _patterns.log_density(value, patterns, MU, COV)
    scipys = np.column_stack([stats.multivariate_normal.logpdf(value, m, c) for m, c in zip(MU, COV)])
    np.testing.assert_allclose(found, scipys, rtol=1e-12)
    resp, center = responsibilities(len(value), K), np.arange(D) * 1.0
    ours = _patterns.suff_stats(value, patterns, resp, MU, COV, center)
    deviation = value - center
    rows, columns = np.triu_indices(D)
    np.testing.assert_allclose(ours["n"], resp.sum(0))
    np.testing.assert_allclose(ours["first"], resp.T @ deviation, rtol=1e-12)
    np.testing.assert_allclose(ours["second"], resp.T @ (deviation[:, rows] * deviation[:, columns]), rtol=1e-10)


def brute_force_statistics(value, resp, mu, cov):
    """Little and Rubin 2019, section 11.2.1, row by row: conditional means, and conditional covariances of pairs."""
    first, second = np.zeros((K, D)), np.zeros((K, D, D))
    for row, weights in zip(value, resp):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        for k, r in enumerate(weights):
            whole, extra = row.copy(), np.zeros((D, D))
            inverse = np.linalg.inv(cov[k][np.ix_(o, o)])
            slope = cov[k][np.ix_(m, o)] @ inverse
            whole[m] = mu[k][m] + slope @ (row[o] - mu[k][o])
            extra[np.ix_(m, m)] = cov[k][np.ix_(m, m)] - slope @ cov[k][np.ix_(o, m)]
            first[k] += r * (whole - CENTER)
            second[k] += r * (np.outer(whole - CENTER, whole - CENTER) + extra)
    upper = np.triu_indices(D)
    return {"n": resp.sum(0), "first": first, "second": second[:, upper[0], upper[1]]}


def test_statistics_are_those_of_the_completed_rows():
    resp = 3 * responsibilities(len(VALUE), K)
    found = _patterns.suff_stats(VALUE, PATTERNS, resp, MU, COV, CENTER)
    for name, expected in brute_force_statistics(VALUE, resp, MU, COV).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_statistics_add_up_over_splits_of_the_rows():
    resp = responsibilities(len(VALUE), K)
    whole = _patterns.suff_stats(VALUE, PATTERNS, resp, MU, COV, CENTER)
    blocks = np.array_split(np.random.default_rng(1).permutation(len(VALUE)), 3)
    parts = [_patterns.suff_stats(VALUE[b], Patterns.of(VALUE[b]), resp[b], MU, COV, CENTER) for b in blocks]
    for name, value in whole.items():
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=1e-12, atol=1e-10, err_msg=name)


def test_the_statistics_give_the_gradient_of_the_marginal_likelihood():
    """Fisher's identity with the family's own `expected_logp`: what the PyMC model's gradient would stand on."""
    bound = bind(bm.MvNormal(), read(table(missing=0)[8:]))
    node, learned = bound.site.node, bound.site.learned
    weights = np.array([0.3, 0.7])

    def loglik(mu, cov):
        joint = _patterns.log_density(VALUE, PATTERNS, mu, cov) + np.log(weights)
        return np.logaddexp.reduce(joint, axis=1)

    resp = np.exp(_patterns.log_density(VALUE, PATTERNS, MU, COV) + np.log(weights) - loglik(MU, COV)[:, None])
    statistics = _patterns.suff_stats(VALUE, PATTERNS, resp, MU, COV, np.array(learned.center))
    rng = np.random.default_rng(5)
    of_mu, of_cov = rng.normal(size=MU.shape), rng.normal(size=COV.shape)
    of_cov = of_cov + of_cov.swapaxes(1, 2)

    def along(function, h=1e-5):
        return (function(MU + h * of_mu, COV + h * of_cov) - function(MU - h * of_mu, COV - h * of_cov)) / (2 * h)

    def expected(mu, cov):
        return node.expected_logp({"mu": mu, "cov": cov}, statistics, learned, np).sum()

    np.testing.assert_allclose(along(expected), along(lambda mu, cov: loglik(mu, cov).sum()), rtol=1e-6)


def test_draws_are_from_the_conditional_normal():
    """Many copies of one row of each pattern: mean and covariance of what is drawn, and what is observed stays."""
    copies = 20_000
    for group in PATTERNS.groups:
        row = VALUE[group.rows[0]]
        value, z = np.tile(row, (copies, 1)), np.arange(copies) % K
        drawn = _patterns.impute(value, Patterns.of(value), z, MU, COV, np.random.default_rng(3))
        o, m = group.observed, group.missing
        assert (drawn[:, o] == row[o]).all()
        if not len(m):
            continue
        for k in range(K):
            slope = COV[k][np.ix_(m, o)] @ np.linalg.inv(COV[k][np.ix_(o, o)])
            mean = MU[k][m] + slope @ (row[o] - MU[k][o])
            cov = COV[k][np.ix_(m, m)] - slope @ COV[k][np.ix_(o, m)]
            own = drawn[z == k][:, m]
            error = np.sqrt(np.diag(cov) / len(own))
            assert (np.abs(own.mean(0) - mean) < 4.5 * error).all()
            # a covariance's standard error is at most sqrt(2) times its coordinates' variances over sqrt(n)
            scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)) * 2 / len(own))
            assert (np.abs(np.cov(own.T) - cov) < 4.5 * scale).all()


def test_a_rows_draw_does_not_depend_on_the_other_rows_patterns():
    z = np.arange(len(VALUE)) % K
    drawn = _patterns.impute(VALUE, PATTERNS, z, MU, COV, np.random.default_rng(4))
    other = VALUE.copy()
    other[30:] = table(seed=9)[30:]
    again = _patterns.impute(other, Patterns.of(other), z, MU, COV, np.random.default_rng(4))
    np.testing.assert_allclose(again[:30], drawn[:30], rtol=1e-12)
    assert np.isfinite(drawn).all()


# ------------------------------------------------------------------- EM with these statistics


def em(value, weights, mu, cov, iterations):
    """Maximum likelihood by the statistics; the log-likelihood before each iteration."""
    patterns, center = Patterns.of(value), np.nanmean(value, 0)
    upper, history = np.triu_indices(value.shape[1]), []
    for _ in range(iterations):
        joint = _patterns.log_density(value, patterns, mu, cov) + np.log(weights)
        total = np.logaddexp.reduce(joint, axis=1)
        history.append(total.sum())
        found = _patterns.suff_stats(value, patterns, np.exp(joint - total[:, None]), mu, cov, center)
        n, deviation = found["n"], found["first"] / found["n"][:, None]
        second = np.empty_like(cov)
        second[:, upper[0], upper[1]] = second[:, upper[1], upper[0]] = found["second"] / n[:, None]
        weights, mu = n / n.sum(), center + deviation
        cov = second - deviation[:, :, None] * deviation[:, None, :]
    return weights, mu, cov, np.array(history)


def test_em_never_lowers_the_likelihood_of_what_is_observed():
    value = table(200, seed=3)
    *_, history = em(value, np.full(K, 0.5), MU + 1.0, 2 * COV, 60)
    assert (np.diff(history) > -1e-9).all()
    assert history[-1] > history[0] + 10


def test_em_reaches_the_closed_form_of_monotone_missing_data():
    """Anderson 1957: with x1 seen everywhere, x1's moments come from all rows, x2 | x1 from the regression."""
    rng = np.random.default_rng(6)
    value = rng.multivariate_normal([3.0, -2.0], [[2.0, 1.2], [1.2, 1.5]], 50)
    value[30:, 1] = np.nan
    _, mu, cov, _ = em(value, np.ones(1), np.zeros((1, 2)), np.eye(2)[None], 400)
    x, y = value[:30].T
    mean, variance = value[:, 0].mean(), value[:, 0].var()
    slope = np.cov(x, y, ddof=0)[0, 1] / x.var()
    rest = (y - y.mean() - slope * (x - x.mean())).var()
    np.testing.assert_allclose(mu[0], [mean, y.mean() + slope * (mean - x.mean())], rtol=1e-9)
    expected = [[variance, slope * variance], [slope * variance, slope**2 * variance + rest]]
    np.testing.assert_allclose(cov[0], expected, rtol=1e-9)


@pytest.mark.parametrize("n_components", [1, 2])
def test_em_reaches_what_a_numerical_optimiser_finds(n_components):
    """The marginal likelihood from its textbook formula, maximised by BFGS over unconstrained coordinates."""
    value = table(150, missing=0.25, seed=7)
    lower = np.tril_indices(D)
    start = np.full(n_components, 1 / n_components), MU[:n_components], COV[:n_components]
    weights, mu, cov, history = em(value, *start, 500)

    def unpack(u):
        logits = np.append(u[: n_components - 1], 0.0)
        rest = u[n_components - 1 :].reshape(n_components, -1)
        factor = np.zeros((n_components, D, D))
        factor[:, lower[0], lower[1]] = rest[:, D:]
        return logits - np.logaddexp.reduce(logits), rest[:, :D], factor @ factor.swapaxes(1, 2)

    groups = [(~np.isnan(value[rows[0]]), value[rows]) for rows in (g.rows for g in Patterns.of(value).groups)]

    def textbook(x, m, c):
        gap = x - m
        squares = (gap * np.linalg.solve(c, gap.T).T).sum(1)
        return -0.5 * (squares + np.linalg.slogdet(2 * np.pi * c)[1])

    def loss(u):
        log_weights, m, c = unpack(u)
        total = 0.0
        for seen, rows in groups:
            if seen.any():
                parts = [
                    w + textbook(rows[:, seen], a[seen], b[np.ix_(seen, seen)]) for w, a, b in zip(log_weights, m, c)
                ]
                total += np.logaddexp.reduce(parts, axis=0).sum()
        return -total

    factor = np.linalg.cholesky(COV[:n_components])
    blocks = np.concatenate([MU[:n_components], factor[:, lower[0], lower[1]]], axis=1)
    found = optimize.minimize(loss, np.concatenate([np.zeros(n_components - 1), blocks.ravel()]), method="BFGS")
    # the optimiser works with gradients by differences: it stops a little below the top
    assert -1e-9 < history[-1] + found.fun < 1e-3
    log_weights, best_mu, best_cov = unpack(found.x)
    np.testing.assert_allclose(weights, np.exp(log_weights), atol=1e-3)
    np.testing.assert_allclose(mu, best_mu, atol=2e-2)
    np.testing.assert_allclose(cov, best_cov, atol=5e-2)


def test_a_shift_of_the_table_shifts_the_fit():
    """Sums about the reference point: a shift of 1e7 must not cost the digits that raw moments would lose."""
    value = table(120, seed=8)
    _, mu, cov, history = em(value, np.full(K, 0.5), MU, COV, 30)
    _, m, c, h = em(value + 1e7, np.full(K, 0.5), MU + 1e7, COV, 30)
    np.testing.assert_allclose(h, history, rtol=1e-7)
    np.testing.assert_allclose(m - 1e7, mu, atol=1e-5)
    np.testing.assert_allclose(c, cov, rtol=1e-5, atol=1e-5)
