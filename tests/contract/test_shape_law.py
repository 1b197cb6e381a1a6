"""The shape law: structure nodes change rows and components, and no family knows of it.

`Optional` hands on the rows that are present; `Sequence` makes its elements rows and reduces by segment sums; a shared
mixture keeps its K whatever stands around it. Each is held against the family's own log density, row by row.
"""

from __future__ import annotations

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.inference.start import initial_params
from tests.cases import CASES, over_cases, responsibilities


def cells_of(case) -> list:
    return list(case.column)


def some_params(bound, data):
    """A point inside the support: the M-step at a start."""
    return initial_params(bound, data, np.ones(data.n_rows), np.random.default_rng(3), 1)


def alone(case, params, prefix):
    """The family's own log densities (N, K) of the whole column at the parameters of a larger spec."""
    _, site, data = case.bind(case.leaf())
    return site.node.log_density({n: params[f"{prefix}{n}"] for n in site.slots}, data.arrays)


@over_cases()
def test_optional_passes_on_the_rows_that_are_present(case):
    cells = cells_of(case)
    gone = np.random.default_rng(0).random(len(cells)) < 0.3
    # whole column twice, so that what the family learns of it is the same with and without gaps
    field = [*cells, *[None if lost else cell for lost, cell in zip(gone, cells)]]
    spec = bm.Mixture(bm.Composite(v=bm.Optional(case.leaf())), case.n_components)
    table = {"v": field}
    bound = bind(spec, read(table))
    data = bound.encode(table)
    params = some_params(bound, data)
    params["v_p_missing"] = np.linspace(0.2, 0.5, case.n_components)
    optional = bound.site.children[0].children[0]
    found = optional.evaluate(params, data.children[0]).log_density
    own = alone(case, params, "v_")
    p = params["v_p_missing"]
    np.testing.assert_allclose(found[: len(cells)], np.log(1 - p) + own, rtol=1e-12)
    np.testing.assert_allclose(found[len(cells) :], np.where(gone[:, None], np.log(p), np.log(1 - p) + own), rtol=1e-12)

    resp = responsibilities(len(field), case.n_components)
    stats: dict = {}
    block = data.children[0]
    optional.accumulate(optional.evaluate(params, block), block, resp, stats)
    lost = np.concatenate([np.zeros(len(cells), bool), gone])
    np.testing.assert_allclose(stats[optional.key]["missing"], resp[lost].sum(0))
    np.testing.assert_allclose(stats[optional.key]["present"], resp[~lost].sum(0))
    leaf, (_, _, whole) = optional.children[0], case.bind(case.leaf())
    both = (resp * ~lost[:, None]).reshape(2, len(cells), -1).sum(0)
    expected = leaf.node.suff_stats(whole.arrays, both, leaf.learned)
    for name, value in expected.items():
        np.testing.assert_allclose(stats[leaf.key][name], value, rtol=1e-9, atol=1e-9)


@over_cases()
@pytest.mark.parametrize("length", [False, True], ids=["free-length", "Poisson-length"])
def test_a_sequence_makes_its_elements_rows(case, length):
    cells = cells_of(case)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(cells) + 1, 7))
    ends = np.concatenate([cuts, [len(cells)]])
    begins = np.concatenate([[0], cuts])  # some are empty
    rows = [cells[a:b] for a, b in zip(begins, ends)]
    rows += [None, [cells[0]], []]
    spec = bm.Mixture(bm.Sequence(case.leaf(), bm.Poisson() if length else None), case.n_components)
    bound = bind(spec, read({"v": rows}))
    data = bound.encode({"v": rows})
    params = some_params(bound, data)
    sequence, block = bound.site.children[0], data
    found = sequence.evaluate(params, block).log_density
    each = sequence.children[0].evaluate(params, block.children[0]).log_density
    lengths = np.array([0 if row is None else len(row) for row in rows])
    of_length = np.zeros((len(rows), case.n_components))
    if length:
        from scipy import stats

        of_length = stats.poisson.logpmf(lengths[:, None], params["length_mu"])
        of_length[len(begins)] = 0  # the missing row
    for i, (end, n) in enumerate(zip(np.cumsum(lengths), lengths)):
        np.testing.assert_allclose(found[i], each[end - n : end].sum(0) + of_length[i], rtol=1e-10)

    resp = responsibilities(len(rows), case.n_components)
    stats_: dict = {}
    sequence.accumulate(sequence.evaluate(params, block), block, resp, stats_)
    leaf = sequence.children[0]
    values = leaf.values(params)
    by_hand = (resp * (found - of_length)).sum(0)
    from_stats = leaf.node.expected_logp(values, stats_[leaf.key], leaf.learned, np)
    np.testing.assert_allclose(from_stats, by_hand, rtol=1e-9)

    # rows taken out are the rows themselves
    chosen = np.array([9, 2, 2, 0, 8])
    part = data.take(chosen)
    again = sequence.evaluate(params, part).log_density
    np.testing.assert_allclose(again, found[chosen], rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_shared_mixture_sums_responsibilities_over_the_outer_axis(case):
    """A mixture whose components are shared by M outer ones evaluates them once: (N, K), not (N, M·K)."""
    k, m = case.n_components, 2
    column = list(case.column)
    group = ["left", "right"] * (len(column) // 2) + ["left"] * (len(column) % 2)
    spec = bm.Mixture(bm.Composite(v=bm.Mixture(case.leaf(), k, shared=True), g=bm.Categorical()), m)
    table = {"v": column, "g": group}
    bound = bind(spec, read(table))
    data = bound.encode(table)
    params = some_params(bound, data)
    leaf = bound.site.children[0].children[0].children[0]
    assert leaf.n_components == k
    own = alone(case, params, "v_")
    codes = np.array([0 if g == "left" else 1 for g in group])
    inner = np.logaddexp.reduce(own[:, None, :] + np.log(params["v_weights"]), axis=2)
    joint = inner + np.log(params["g_p"]).T[codes] + np.log(params["weights"])
    expected = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(bound.log_density(params, data), expected, rtol=1e-10)

    _, stats = bound.e_step(params, data, np.ones(len(column)))
    outer = np.exp(joint - expected[:, None])
    share = np.exp(own[:, None, :] + np.log(params["v_weights"]) - inner[:, :, None])
    by_hand = (outer[:, :, None] * share).sum(1)
    np.testing.assert_allclose(stats[bound.site.children[0].children[0].key]["n"].sum(0), by_hand.sum(0), rtol=1e-9)
    _, site, whole = case.bind(case.leaf())
    for name, value in site.node.suff_stats(whole.arrays, by_hand, site.learned).items():
        np.testing.assert_allclose(stats[leaf.key][name], value, rtol=1e-8, atol=1e-8)
