"""Relabelling: draws whose labels were scrambled come back, by criteria that are checked by brute force."""

import itertools

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.fit import Status, make_fit
from bayesmix.relabel import METHODS, best_orders, in_canonical_order, relabelled, stephens
from bayesmix.symmetry import permuted
from tests.structure.trees import TREES

BY_NAME = {tree.name: tree for tree in TREES}


def _near(bound, params, n_chains, n_draws, seed, spread=0.03):
    """Draws (chain, draw, ...) close to a point of the parameters' space."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, slot in bound.free_slots.items():
        shape = (n_chains, n_draws, *params[name].shape)
        value = np.broadcast_to(params[name], shape).copy()
        if slot.discrete:
            found[name] = value
        elif slot.support.ndim == 2:
            found[name] = value * np.exp(spread * rng.standard_normal((*shape[:-2], 1, 1)))
        elif slot.support.ndim == 1:
            value = value * np.exp(spread * rng.standard_normal(shape))
            found[name] = value / value.sum(-1, keepdims=True)
        elif slot.support.name == "a probability":
            found[name] = value ** np.exp(spread * rng.standard_normal(shape))
        else:
            found[name] = value * np.exp(spread * rng.standard_normal(shape))
    return found


def scrambled(bound, draws, rng, chains=None):
    """The same with labels permuted at random: in every draw, or (`chains`) the same way in a whole chain."""
    for symmetry in bound.symmetries:
        shape = next(iter(draws.values())).shape[:2]
        order = np.broadcast_to(symmetry.identity, (*shape, *symmetry.shape)).copy()
        for at, block in symmetry.blocks():
            for c in range(shape[0]):
                whole = rng.permutation(block)
                for d in range(shape[1]):
                    order[(c, d, *at, block)] = whole if chains else rng.permutation(block)
        draws = {**draws, **permuted(bound, symmetry, draws, order)}
    return draws


@pytest.mark.parametrize("n_components", [2, 3, 4])
def test_stephens_criterion_is_the_least_of_all_permutations(n_components):
    # 5 draws of 6 rows: all K! ** 4 labellings of the draws after the first, by enumeration for K <= 3; for K = 4 all
    # labellings of each draw given the others
    rng = np.random.default_rng(n_components)
    start = rng.dirichlet(np.full(n_components, 0.3), 6).T
    p = np.array([rng.dirichlet(0.01 + 30 * row, 1)[0] for _ in range(5) for row in start.T])
    p = np.swapaxes(p.reshape(5, 6, n_components), 1, 2)
    p = np.array([draw[rng.permutation(n_components)] for draw in p])
    p = np.clip(p, 1e-6, 1 - 1e-6)
    order = stephens(p, start)
    every = list(itertools.permutations(range(n_components)))

    def loss(orders):
        moved = np.array([draw[list(own)] for draw, own in zip(p, orders)])
        return float((moved * np.log(moved / moved.mean(0))).sum())

    criterion = loss(order)
    if n_components <= 3:
        least = min(loss([every[0], *others]) for others in itertools.product(every, repeat=4))
        assert criterion == pytest.approx(least, rel=1e-9)
    for t, own in itertools.product(range(5), every):
        assert loss([*order[:t], own, *order[t + 1 :]]) >= criterion - 1e-9


def test_labels_are_those_of_the_start():
    rng = np.random.default_rng(0)
    start = rng.dirichlet(np.full(3, 0.2), 30).T
    for turn in itertools.permutations(range(3)):
        order = stephens(np.array([start[list(turn)]] * 4), start)
        np.testing.assert_array_equal(order, [np.argsort(turn)] * 4)


def test_assignments_are_the_cheapest():
    costs = np.random.default_rng(0).normal(size=(50, 4, 4))
    for cost, own in zip(costs, best_orders(costs)):
        least = min(cost[range(4), turn].sum() for turn in itertools.permutations(range(4)))
        assert cost[range(4), own].sum() == pytest.approx(least)


SPECS = [
    "Mixture-Composite-Optional-Mixture-Normal",
    "Mixture-Sequence-Mixture-Normal",
    "HierarchicalMixture-Normal",
    "HierarchicalMixture-Poisson-Poisson",
    "JointMixture-Normal-Poisson",
    "Mixture-LogNormal-Exponential",
    "Mixture-Composite-Optional-BernoulliSet",
    "Mixture-Sequence-Categorical-Poisson",
    "Mixture-Composite-shared-Mixture-Normal",
]


_rng = np.random.default_rng(2)
_GROUP, _INNER = np.repeat([0, 1], 40), np.tile([0, 1], 40)
_WIDE = {
    "x": _rng.normal(np.array([[-9.0, 0.0], [9.0, 25.0]])[_GROUP, _INNER], 1),
    "w": _rng.normal(np.array([-9.0, 25.0])[_INNER], 1),
    "y": _rng.poisson(np.array([2.0, 30.0])[_GROUP]),
}
_TIED = bm.Mixture(bm.Normal(), 2, tie="a")
ALL = [(name, BY_NAME[name].spec, BY_NAME[name].table) for name in SPECS] + [
    ("nested", bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2), _WIDE),
    ("a tied mixture", bm.Mixture(bm.Composite(x=_TIED, w=_TIED, y=bm.Poisson()), 2), _WIDE),
    ("shared weights", bm.Mixture(bm.Mixture(bm.Normal(), 2, weights=bm.Shared()), 2), _WIDE["x"]),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("spec", "table"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
def test_scrambled_draws_come_back(spec, table, method):
    mode = bm.fit_em(spec, table, n_starts=1, random_seed=1)
    bound, encoded = mode.bound, mode.encoded
    draws = _near(bound, mode.params, 2, 15, 5)
    mixed = scrambled(bound, draws, np.random.default_rng(6))
    assert any(not np.array_equal(mixed[key], draws[key]) for key in draws)
    back, report = relabelled(bound, mixed, encoded, mode.params, method=method)
    for key in draws:
        np.testing.assert_allclose(back[key], draws[key], atol=1e-12)
    assert report.switched
    assert report.method == method
    assert set(report.moved) == {each.name for each in bound.symmetries}
    again, report = relabelled(bound, back, encoded, mode.params, method=method)
    assert not report.switched
    for key in draws:
        np.testing.assert_array_equal(again[key], back[key])


def test_components_that_a_prior_tells_apart_stay_where_they_are():
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, 30) for m in (-6, 0, 6)])
    mode = bm.fit_em(bm.Mixture(bm.Normal(sigma=[1.0, 1.0, 2.0]), 3), x, random_seed=0)
    draws = _near(mode.bound, mode.params, 1, 10, 1)
    turned = {"weights": draws["weights"][..., [1, 2, 0]], "mu": draws["mu"][..., [1, 2, 0]]}
    back, _ = relabelled(mode.bound, turned, mode.encoded, mode.params)
    np.testing.assert_array_equal(back["mu"][..., 2], turned["mu"][..., 2])


def _fit_of(mode, draws):
    return make_fit(
        mode.bound, draws, table=mode.table, encoded=mode.encoded, row_weights=None, status=Status("nuts", True, "")
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mu": np.zeros(3)}, r"like: mu has shape \(3,\), not \(2,\). Give it as fit.params has it"),
        ({"mu": 1.0}, r"like: mu has shape \(\), not \(2,\)"),
        ({"weighs": np.ones(2)}, r"like: no parameter is called 'weighs'. Did you mean weights\? Leave it out"),
    ],
    ids=["too long", "a number", "unknown"],
)
def test_a_reference_that_does_not_fit(wrong, says):
    """Shapes were numpy's error, of arrays that cannot be reshaped; names were left aside without a word."""
    fit = bm.fit_em(bm.Mixture(bm.Normal(sigma=1.0), 2), np.array([-3.0, -2.9, 3.0, 3.1]), random_seed=1)
    assert fit.relabel(like=fit.params).relabelling.reference["mu"].shape == (2,)
    with pytest.raises(ValueError, match=says):
        fit.relabel(like={**fit.params, **wrong})


def test_a_fit_is_relabelled_and_says_what_was_moved():
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, 50) for m in (-6, 0, 6)])
    mode = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, random_seed=0)
    draws = _near(mode.bound, mode.params, 2, 40, 1)
    mixed = {name: value.copy() for name, value in draws.items()}
    for name in mixed:  # the second chain changes its labels half way, the first never does
        mixed[name][1, 20:] = mixed[name][1, 20:][..., [2, 0, 1]]
    fit = _fit_of(mode, mixed)
    left = fit.relabel(None, like=mode.params)
    np.testing.assert_array_equal(left.posterior["mu"].values, mixed["mu"])
    np.testing.assert_array_equal(left.relabelling.moved["component"], [0.0, 0.5])
    assert left.relabelling.non_permutation["component"] == 0
    assert "left as they came" in str(left.relabelling)
    back = fit.relabel()  # without a reference: the best draw, by location
    np.testing.assert_allclose(back.posterior["mu"].values, draws["mu"])
    assert back.posterior["mu"].attrs == fit.posterior["mu"].attrs
    assert back.loglik == fit.loglik
    np.testing.assert_allclose(back.params["mu"], in_canonical_order(mode.bound, mode.params)["mu"], rtol=0.05)
    assert not back.relabel().relabelling.switched
    with pytest.raises(ValueError, match="nonsense"):
        fit.relabel("nonsense")


def test_the_non_permutation_rate_tells_clean_from_hopeless():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1, 50) for m in (-6, 6)])
    mode = bm.fit_em(bm.Mixture(bm.Normal(sigma=1.0), 2), x, random_seed=0)

    def rate(gap):
        mu = np.sort(rng.normal([[-gap / 2, gap / 2]], 1.0, size=(4, 500, 2)), -1)
        weights = np.full((4, 500, 2), 0.5)
        _, report = relabelled(mode.bound, {"weights": weights, "mu": mu}, mode.encoded, mode.params)
        return report.non_permutation["component"]

    clean, hopeless = rate(20.0), rate(0.0)
    # two clusters cut at 0: with both locations from one distribution half of the pairs lie on one side
    assert clean == 0
    assert hopeless == pytest.approx(0.5, abs=0.05)


def test_sequences_are_judged_by_some_of_their_rows():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 3000)
    rows = [list(rng.normal([-5.0, 5.0][k], 1, 3)) for k in kinds]
    table = read({"x": rows})
    bound = bind(bm.Mixture(bm.Sequence(bm.Normal()), 2), table)
    encoded = bound.encode(table)
    params = {"weights": np.array([0.5, 0.5]), "mu": np.array([-5.0, 5.0]), "sigma": np.ones(2)}
    draws = {name: np.broadcast_to(value, (1, 4, 2)).copy() for name, value in params.items()}
    draws["mu"][0, 2] = [5.0, -5.0]
    back, report = relabelled(bound, draws, encoded, params)
    assert report.n_rows <= 1000
    np.testing.assert_array_equal(back["mu"], np.broadcast_to(params["mu"], (1, 4, 2)))
