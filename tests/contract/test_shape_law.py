"""The shape law carries what comes next: prototypes of two structure nodes over families that know nothing of them.

`Optional` hands on the rows that are present; `Sequence` makes its elements rows and reduces by segment sums. Both are
written here with nothing but the walks of `bayesmix.spec`, and every family of the catalogue runs under them.
"""

from __future__ import annotations

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.data import read
from bayesmix.params import Place
from bayesmix.spec import Encoded, Evaluation, Site
from tests.cases import CASES

K = 2


class OptionalWalks:
    """``missing: log p; present: log(1 - p) + log f``: the rows that are present go on to the child."""

    @staticmethod
    def evaluate(p, leaf, params, rows, present):
        child = leaf.evaluate(params, rows)
        out = np.tile(np.log(p), (len(present), 1))
        out[present] = np.log1p(-p) + child.log_density
        return Evaluation(out, (child,))

    @staticmethod
    def accumulate(leaf, evaluation, rows, present, resp):
        stats = {}
        leaf.accumulate(evaluation.children[0], rows, resp[present], stats)
        return {"missing": resp[~present].sum(0), "present": resp[present].sum(0)}, stats


class SequenceWalks:
    """``Σ_j log f(x_j)``: elements become rows, and a row's density is the sum over its segment."""

    @staticmethod
    def evaluate(leaf, params, elements, lengths):
        child = leaf.evaluate(params, elements)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        out = np.zeros((len(lengths), child.log_density.shape[1]))
        np.add.at(out, owner, child.log_density)
        return Evaluation(out, (child,))

    @staticmethod
    def accumulate(leaf, evaluation, elements, lengths, resp):
        stats = {}
        leaf.accumulate(evaluation.children[0], elements, np.repeat(resp, lengths, axis=0), stats)
        return stats


def bound_leaf(case) -> tuple[Site, Encoded]:
    table = read(case.column)
    learned: dict = {}
    place = Place().component_place(K)
    leaf = case.leaf()
    leaf.learn(table, place, learned)
    site = leaf.layout(place, learned)
    return site, leaf.encode(site, table, "error")


def some_params(site: Site, data: Encoded) -> dict[str, np.ndarray]:
    """An M-step at arbitrary responsibilities: a point inside the support."""
    from bayesmix.bound import Bound
    from bayesmix.inference.start import middle

    resp = np.random.default_rng(3).dirichlet(np.ones(K), data.n_rows)
    stats: dict = {}
    site.accumulate(None, data, resp, stats)
    start = middle(Bound(site.node, site, {}))
    return {**start, **site.node.update(site, stats, start)}


over_cases = pytest.mark.parametrize("case", [pytest.param(c, id=c.family.__name__) for c in CASES])


@over_cases
def test_optional_passes_on_the_rows_that_are_present(case):
    site, data = bound_leaf(case)
    params = some_params(site, data)
    rng = np.random.default_rng(0)
    present = rng.random(data.n_rows) < 0.7
    p = np.array([0.2, 0.4])
    rows = data.take(np.flatnonzero(present))
    found = OptionalWalks.evaluate(p, site, params, rows, present)
    whole = site.evaluate(params, data).log_density
    expected = np.where(present[:, None], np.log(1 - p) + whole, np.log(p))
    np.testing.assert_allclose(found.log_density, expected, rtol=1e-12)

    resp = rng.dirichlet(np.ones(K), data.n_rows)
    own, stats = OptionalWalks.accumulate(site, found, rows, present, resp)
    np.testing.assert_allclose(own["missing"] + own["present"], resp.sum(0))
    # zero responsibility where the cell is missing says the same
    other: dict = {}
    site.accumulate(None, data, resp * present[:, None], other)
    for name, value in other[site.key].items():
        np.testing.assert_allclose(stats[site.key][name], value, rtol=1e-10, atol=1e-10)


@over_cases
def test_a_sequence_makes_its_elements_rows(case):
    site, elements = bound_leaf(case)
    params = some_params(site, elements)
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.integers(0, elements.n_rows + 1, 7))
    lengths = np.diff(np.concatenate([[0], cuts, [elements.n_rows]]))  # some may be empty
    found = SequenceWalks.evaluate(site, params, elements, lengths)
    each = site.evaluate(params, elements).log_density
    ends = np.cumsum(lengths)
    for i, (begin, end) in enumerate(zip(ends - lengths, ends)):
        np.testing.assert_allclose(found.log_density[i], each[begin:end].sum(0), rtol=1e-10)

    resp = rng.dirichlet(np.ones(K), len(lengths))
    stats = SequenceWalks.accumulate(site, found, elements, lengths, resp)
    for k in range(K):
        # the expected log density of the elements, by hand
        by_hand = sum(resp[i, k] * found.log_density[i, k] for i in range(len(lengths)))
        values = {name: slot.components(params[slot.name]) for name, slot in site.slots.items()}
        from_stats = site.node.expected_logp(values, stats[site.key], site.learned, np)[k]
        np.testing.assert_allclose(from_stats, by_hand, rtol=1e-9)


def test_a_shared_mixture_sums_responsibilities_over_the_outer_axis_Normal():
    """A mixture whose components are shared by M outer ones evaluates them once: (N, K), not (N, M·K)."""
    x = np.random.default_rng(2).normal([0, 4] * 20, 1)
    leaf = bm.Normal()
    table, learned, place = read(x), {}, Place().component_place(K)
    leaf.learn(table, place, learned)
    site = leaf.layout(place, learned)
    data = leaf.encode(site, table, "error")
    params = {"mu": np.array([0.0, 4.0]), "sigma": np.array([1.0, 1.0])}
    inner = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]])  # (M, K)
    density = site.evaluate(params, data).log_density  # (N, K)
    joint = density[:, None, :] + np.log(inner)  # (N, M, K)
    outer = np.random.default_rng(4).dirichlet(np.ones(3), len(x))  # (N, M)
    share = np.exp(joint - np.logaddexp.reduce(joint, axis=2, keepdims=True))
    resp = (outer[:, :, None] * share).sum(1)
    stats: dict = {}
    site.accumulate(None, data, resp, stats)
    assert stats[site.key]["n"].shape == (K,)
    np.testing.assert_allclose(stats[site.key]["n"].sum(), len(x))
