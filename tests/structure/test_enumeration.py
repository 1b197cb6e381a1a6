"""Every structure node against the sum over all of its labels, written out with scipy's densities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of, variables_at
from bayesmix.data import read
from bayesmix.inference.target import Target


def bound_and_data(spec, table):
    bound = bind(spec, read(table))
    return bound, bound.encode(table)


def loglik(spec, table, params):
    bound, data = bound_and_data(spec, table)
    assert set(params) == set(bound.slots), "the names of DESIGN section 6"
    return bound.log_density(params, data).sum()


def log_sum(terms):
    return float(np.logaddexp.reduce(list(terms)))


def assert_model_agrees(spec, table, params, expected):
    """The PyMC model's likelihood at the same point, ours and in PyMC's own densities."""
    bound, data = bound_and_data(spec, table)
    for kind in ("fused", "graph"):
        model = model_of(bound, data, initval=None, likelihood=kind)
        target = Target(model, variables_at(bound, params), jacobian=False)
        prior = sum(bound.slots[name].log_prior(params[name]) for name in bound.sampled_slots)
        np.testing.assert_allclose(target(target.start)[0] - prior, expected, rtol=1e-7)


MU, SIGMA = np.array([-1.0, 1.5]), np.array([0.7, 1.2])
ROWS = [[0.3, -1.2], [2.5], [], [0.9, 1.1]]
W, TAU = np.array([0.3, 0.7]), np.array([[0.2, 0.8], [0.6, 0.4]])


def enumerate_hierarchy(rows, w, tau, log_f, log_length=lambda m, n: 0.0):
    """Over the labels of all rows and of all elements at once."""
    owner = [i for i, row in enumerate(rows) for _ in row or []]
    elements = [x for row in rows for x in row or []]
    terms = []
    for kinds in itertools.product(range(len(w)), repeat=len(rows)):
        for topics in itertools.product(range(tau.shape[1]), repeat=len(elements)):
            total = sum(np.log(w[m]) for m in kinds)
            total += sum(log_length(m, len(row)) for m, row in zip(kinds, rows) if row is not None)
            for i, x, k in zip(owner, elements, topics):
                total += np.log(tau[kinds[i], k]) + (0.0 if x is None else log_f(x, kinds[i], k))
            terms.append(total)
    return log_sum(terms)


@pytest.mark.parametrize("gone", [False, True], ids=["complete", "missing"])
def test_HierarchicalMixture_Normal(gone):
    rows = [[0.3, None], [2.5], [], None] if gone else ROWS
    expected = enumerate_hierarchy(rows, W, TAU, lambda x, m, k: stats.norm.logpdf(x, MU[k], SIGMA[k]))
    params = {"weights": W, "topic_weights": TAU, "topic_mu": MU, "topic_sigma": SIGMA}
    spec = bm.HierarchicalMixture(bm.Normal(), 2, 2)
    np.testing.assert_allclose(loglik(spec, rows, params), expected, rtol=1e-12)
    assert_model_agrees(spec, rows, params, expected)


def test_HierarchicalMixture_Poisson_with_lengths_and_different_topics():
    rows = [[1, 4], [0], [], [7]]
    rate = np.array([1.0, 2.5])
    expected = enumerate_hierarchy(
        rows,
        W,
        TAU,
        lambda x, m, k: stats.poisson.logpmf(x, 3.0) if k == 0 else stats.poisson.logpmf(x, 0.5),
        lambda m, n: stats.poisson.logpmf(n, rate[m]),
    )
    spec = bm.HierarchicalMixture([bm.Poisson(), bm.Poisson(mu=0.5)], n_mixtures=2, length=bm.Poisson())
    params = {
        "weights": W, "topic_weights": TAU, "topic_poisson_mu": np.array([3.0]),
        "topic_poisson_2_mu": np.array([0.5]), "length_mu": rate,
    }  # fmt: skip
    np.testing.assert_allclose(loglik(spec, rows, params), expected, rtol=1e-12)


@pytest.mark.parametrize("gone", [False, True], ids=["complete", "missing"])
def test_Mixture_Sequence_Mixture_Normal(gone):
    """Elements' components of their own for every component of the rows."""
    rows = [[0.3, None], [2.5], [], None] if gone else ROWS
    mu, sigma = np.array([[-1.0, 1.0], [0.0, 3.0]]), np.array([[0.5, 1.0], [2.0, 0.7]])
    rate = np.array([0.8, 2.5])
    expected = enumerate_hierarchy(
        rows, W, TAU, lambda x, m, k: stats.norm.logpdf(x, mu[m, k], sigma[m, k]),
        lambda m, n: stats.poisson.logpmf(n, rate[m]),
    )  # fmt: skip
    spec = bm.Mixture(bm.Sequence(bm.Mixture(bm.Normal(), 2), length=bm.Poisson()), 2)
    params = {"weights": W, "subweights": TAU, "mu": mu, "sigma": sigma, "length_mu": rate}
    np.testing.assert_allclose(loglik(spec, rows, params), expected, rtol=1e-12)


@pytest.mark.parametrize("gone", [False, True], ids=["complete", "missing"])
def test_JointMixture_Normal_Poisson(gone):
    x, y = [0.3, -1.2, 2.5], [2, 0, 7]
    if gone:
        x[1], y[2] = None, None
    rate, tau = np.array([0.5, 3.0, 8.0]), np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    terms = []
    for ks in itertools.product(range(2), repeat=3):
        for ms in itertools.product(range(3), repeat=3):
            total = 0.0
            for k, m, a, b in zip(ks, ms, x, y):
                total += np.log(W[k]) + np.log(tau[k, m])
                total += 0 if a is None else stats.norm.logpdf(a, MU[k], SIGMA[k])
                total += 0 if b is None else stats.poisson.logpmf(b, rate[m])
            terms.append(total)
    params = {"weights": W, "transition": tau, "x_mu": MU, "x_sigma": SIGMA, "y_mu": rate}
    spec = bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3))
    table = {"x": x, "y": y}
    np.testing.assert_allclose(loglik(spec, table, params), log_sum(terms), rtol=1e-12)
    assert_model_agrees(spec, table, params, log_sum(terms))
    # P(label of y | row) by Bayes' rule, from the joint table of both labels
    bound, data = bound_and_data(spec, table)
    joint = np.log(W)[:, None] + np.log(tau) + np.zeros((3, 2, 3))
    for i, (a, b) in enumerate(zip(x, y)):
        joint[i] += 0 if a is None else stats.norm.logpdf(a, MU, SIGMA)[:, None]
        joint[i] += 0 if b is None else stats.poisson.logpmf(b, rate)
    joint = np.exp(joint - np.logaddexp.reduce(joint, axis=(1, 2), keepdims=True))
    found = bound.label_probabilities(params, data)
    np.testing.assert_allclose(found["", "weights"], joint.sum(2), rtol=1e-10)
    np.testing.assert_allclose(found["y", "transition"], joint.sum(1), rtol=1e-10)


def test_Mixture_of_LogNormal_Exponential_and_Exponential_again():
    x = [0.3, 1.2, 2.5, 0.01]
    w, scale = np.array([0.2, 0.5, 0.3]), np.array([0.5, 4.0])
    logs = np.stack([
        stats.expon.logpdf(x, scale=0.5), stats.lognorm.logpdf(x, 0.8, scale=np.exp(0.3)),
        stats.expon.logpdf(x, scale=4.0),
    ])  # fmt: skip
    expected = log_sum(
        sum(np.log(w[k]) + logs[k, i] for i, k in enumerate(labels)) for labels in itertools.product(range(3), repeat=4)
    )
    spec = bm.Mixture([bm.Exponential(), bm.LogNormal(), bm.Exponential()])
    params = {
        "weights": w, "exponential_scale": scale, "log_normal_mu": np.array([0.3]), "log_normal_sigma": np.array([0.8]),
    }  # fmt: skip
    np.testing.assert_allclose(loglik(spec, x, params), expected, rtol=1e-12)
    assert_model_agrees(spec, x, params, expected)


@pytest.mark.parametrize("informative", [True, False])
def test_Mixture_Optional_Poisson(informative):
    """A missing cell has probability p of its component; without p it says nothing."""
    x, rate, p = [3, None, 0, None], np.array([1.0, 5.0]), np.array([0.1, 0.6])
    terms = []
    for labels in itertools.product(range(2), repeat=4):
        total = 0.0
        for k, value in zip(labels, x):
            total += np.log(W[k])
            if informative:
                total += np.log(p[k]) if value is None else np.log1p(-p[k])
            total += 0 if value is None else stats.poisson.logpmf(value, rate[k])
        terms.append(total)
    params = {"weights": W, "mu": rate} | ({"p_missing": p} if informative else {})
    spec = bm.Mixture(bm.Optional(bm.Poisson(), p=None if informative else False), 2)
    np.testing.assert_allclose(loglik(spec, x, params), log_sum(terms), rtol=1e-12)
    assert_model_agrees(spec, x, params, log_sum(terms))


CHAINS = [list("abba"), [], list("b"), None, list("aa")]
INITIAL = np.array([[0.3, 0.7], [0.8, 0.2]])
STEP = np.array([[[0.1, 0.9], [0.5, 0.5]], [[0.7, 0.3], [0.2, 0.8]]])


def chain_logp(chain, k, rate=None):
    """Product of the probabilities, symbol by symbol."""
    if chain is None:
        return 0.0
    codes = ["ab".index(symbol) for symbol in chain]
    chance = math.prod([INITIAL[k, codes[0]]] if codes else [])
    chance *= math.prod(STEP[k, a, b] for a, b in itertools.pairwise(codes))
    chance *= 1.0 if rate is None else stats.poisson.pmf(len(codes), rate[k])
    return np.log(chance)


@pytest.mark.parametrize("rate", [None, np.array([2.0, 1.0])], ids=["free-length", "Poisson-length"])
def test_Mixture_MarkovChain(rate):
    expected = log_sum(
        sum(np.log(W[k]) + chain_logp(chain, k, rate) for k, chain in zip(labels, CHAINS))
        for labels in itertools.product(range(2), repeat=5)
    )
    params = {"weights": W, "initial": INITIAL, "transition": STEP} | ({} if rate is None else {"length_mu": rate})
    spec = bm.Mixture(bm.MarkovChain(length=None if rate is None else bm.Poisson()), 2)
    np.testing.assert_allclose(loglik(spec, CHAINS, params), expected, rtol=1e-12)
    assert_model_agrees(spec, CHAINS, params, expected)


def test_MarkovChain_probabilities_of_all_chains_of_a_length_sum_to_one():
    every = [list(chain) for n in range(5) for chain in itertools.product("ab", repeat=n)]
    bound, data = bound_and_data(bm.MarkovChain(), every)
    found = bound.log_density({"initial": INITIAL[0], "transition": STEP[0]}, data)
    lengths = np.array(list(map(len, every)))
    np.testing.assert_allclose([np.exp(found[lengths == n]).sum() for n in range(5)], np.ones(5), rtol=1e-12)


def test_MarkovChain_impossible_transitions_are_minus_infinity_and_no_others_are():
    bound, data = bound_and_data(bm.MarkovChain(), [list("ab"), list("ba"), list("aab"), [], list("b")])
    certain = {"initial": np.array([1.0, 0.0]), "transition": np.array([[0.5, 0.5], [0.0, 1.0]])}
    found = bound.log_density(certain, data)
    np.testing.assert_array_equal(found, [np.log(0.5), -np.inf, np.log(0.25), 0.0, -np.inf])


def spike_logp(x, k, p, lower, upper):
    others = upper - lower
    return sum(np.log(p if value == k else (1 - p) / others) for value in x)


@pytest.mark.parametrize("lower", [0, -3])
def test_SpikeAndSlab_sums_its_position_out_of_the_whole_table(lower):
    """One position for all rows: the sum over positions is over the table's likelihood, not over each row's."""
    x, p = (np.array([2, 4, 2, 0, 2]) + lower), 0.4
    upper = lower + 4
    each = [spike_logp(x, k, p, lower, upper) for k in range(lower, upper + 1)]
    expected = log_sum(each) - np.log(5)
    spec = bm.SpikeAndSlab()
    assert_model_agrees(spec, x, {"p": np.array(p)}, expected)
    for k, value in zip(range(lower, upper + 1), each):
        bound, data = bound_and_data(spec, x)
        params = {"p": p, "k": k, "lower": lower, "upper": upper}
        found = bound.log_density({name: np.array(float(each)) for name, each in params.items()}, data).sum()
        np.testing.assert_allclose(found, value, rtol=1e-12)


def test_Mixture_SpikeAndSlab_Poisson_sums_positions_and_labels():
    x, p, rate, w = np.array([2, 4, 2, 0]), 0.6, 1.3, np.array([0.45, 0.55])
    each = []
    for k in range(5):
        terms = []
        for labels in itertools.product(range(2), repeat=4):
            terms.append(
                sum(
                    np.log(w[z]) + (spike_logp([value], k, p, 0, 4) if z == 0 else stats.poisson.logpmf(value, rate))
                    for z, value in zip(labels, x)
                )
            )
        each.append(log_sum(terms))
    params = {"weights": w, "spike_and_slab_p": np.array([p]), "poisson_mu": np.array([rate])}
    spec = bm.Mixture([bm.SpikeAndSlab(), bm.Poisson()])
    assert_model_agrees(spec, x, params, log_sum(each) - np.log(5))


@pytest.mark.slow
def test_two_SpikeAndSlab_components_sum_all_pairs_of_positions():
    x, p = np.array([1, 3, 1, 0]), np.array([0.6, 0.5])
    each = [
        sum(
            log_sum(np.log(W[z]) + spike_logp([value], ks[z], p[z], 0, 3) for z in range(2))
            for value in x
        )
        for ks in itertools.product(range(4), repeat=2)
    ]  # fmt: skip
    assert_model_agrees(bm.Mixture(bm.SpikeAndSlab(), 2), x, {"weights": W, "p": p}, log_sum(each) - np.log(16))


def test_Sequence_of_Sequences_Normal():
    rows = [[[0.3, -1.2], [2.5]], [], [[], [0.1]]]
    expected = log_sum(
        sum(
            np.log(W[m]) + sum(stats.norm.logpdf(x, MU[m], SIGMA[m]) for inner in row for x in inner)
            for m, row in zip(labels, rows)
        )
        for labels in itertools.product(range(2), repeat=3)
    )
    params = {"weights": W, "mu": MU, "sigma": SIGMA}
    spec = bm.Mixture(bm.Sequence(bm.Sequence(bm.Normal())), 2)
    np.testing.assert_allclose(loglik(spec, rows, params), expected, rtol=1e-12)
    assert_model_agrees(spec, rows, params, expected)


def test_Sequence_of_MarkovChains_with_lengths_of_both():
    rows = [[list("ab"), list("b")], [], [[], list("aab")]]
    rate, inner = np.array([1.0, 2.0]), np.array([1.5, 0.5])
    expected = log_sum(
        sum(
            np.log(W[m]) + stats.poisson.logpmf(len(row), rate[m]) + sum(chain_logp(chain, m, inner) for chain in row)
            for m, row in zip(labels, rows)
        )
        for labels in itertools.product(range(2), repeat=3)
    )
    params = {
        "weights": W, "initial": INITIAL, "transition": STEP, "element_length_mu": inner, "length_mu": rate,
    }  # fmt: skip
    spec = bm.Mixture(bm.Sequence(bm.MarkovChain(length=bm.Poisson()), length=bm.Poisson()), 2)
    np.testing.assert_allclose(loglik(spec, rows, params), expected, rtol=1e-12)
    assert_model_agrees(spec, rows, params, expected)
