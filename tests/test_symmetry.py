"""Symmetries of the posterior: each that is listed leaves it as it is, and none is left out."""

import itertools

import numpy as np
import pymc as pm
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.inference.start import initial_params
from bayesmix.symmetry import ascending, log_symmetries, permuted
from tests.structure.trees import TREES

ROWS = {"x": [0.1, 5.0, 0.3, 9.0, 4.0], "y": [1, 7, 0, 3, 2]}
SEQUENCES = [[0.1, 3.0], [0.2], [2.9, 3.1, 0.3], [3.3], []]
NESTED = bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson())
JOINT = bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3))
TIED = bm.Composite(x=bm.Mixture(bm.Normal(), 2, tie="a"), y=bm.Poisson())

_LKJ = pm.LKJCholeskyCov.dist(eta=2.0, n=2, sd_dist=pm.HalfNormal.dist(5.0, shape=2), compute_corr=False)


def _square(value, centre):
    return -((value - centre) ** 2)


COUNTS = [
    ("flat", bm.Mixture(bm.Normal(), 4), ROWS["x"], 24),
    ("no mixture", bm.Normal(), ROWS["x"], 1),
    ("nested", bm.Mixture(NESTED, 3), ROWS, 6 * 2**3),
    ("three levels", bm.Mixture(bm.Mixture(bm.Mixture(bm.Normal(), 2), 2), 2), ROWS["x"], 2 * 2**2 * 2**4),
    ("hierarchical", bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=2), SEQUENCES, 12),
    ("joint", JOINT, ROWS, 2 * 6),
    ("tied", bm.Mixture(TIED, 3), ROWS, 6 * 2),
    ("shared weights", bm.Mixture(bm.Mixture(bm.Normal(), 2, weights=bm.Shared()), 3), ROWS["x"], 6 * 2),
    ("tied components", bm.Mixture(bm.Normal(tie="a"), 2), ROWS["x"], 2),
    ("different", bm.Mixture([bm.Exponential(), bm.Exponential(), bm.LogNormal()]), [0.1, 2.0, 3.0, 1.0], 2),
    ("weights' prior", bm.Mixture(bm.Normal(), 3, weights=pm.Dirichlet.dist([1.0, 2, 2])), ROWS["x"], 2),
    ("weights fixed", bm.Mixture(bm.Normal(), 3, weights=[0.5, 0.25, 0.25]), ROWS["x"], 2),
    ("a prior each", bm.Mixture(bm.Normal(mu=pm.Normal.dist([0.0, 5.0, 0.0], 1.0)), 3), ROWS["x"], 2),
    ("all differ", bm.Mixture(bm.Normal(mu=pm.Normal.dist([0.0, 5.0, 9.0], 1.0)), 3), ROWS["x"], 1),
    ("numeric, a prior each", bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist([1.0, 5.0, 5.0])), 3), ROWS["x"], 2),
    ("numeric, alike", bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(5.0)), 3), ROWS["x"], 6),
    ("fixed each", bm.Mixture(bm.Normal(sigma=[1.0, 1.0, 2.0]), 3), ROWS["x"], 2),
    ("shared sigma", bm.Mixture(bm.Normal(sigma=bm.Shared()), 3), ROWS["x"], 6),
    # a prior over weights that is not exchangeable, and one that is, of a class that no formula is known of
    ("stick", bm.Mixture(bm.Normal(), 3, weights=pm.StickBreakingWeights.dist(alpha=2.0, K=2)), ROWS["x"], 1),
    ("truncated", bm.Mixture(bm.Normal(mu=pm.Truncated.dist(pm.Normal.dist(0, 9), 0, 99)), 3), ROWS["x"], 6),
    # priors that only their density tells of: bounds that differ, bounds of which hardly a point is inside, matrices
    (
        "bounds of positive numbers",
        bm.Mixture(bm.Normal(sigma=pm.Truncated.dist(pm.Exponential.dist(1.0), 0.5, np.array([2.0, 9.0, 9.0]))), 3),
        ROWS["x"],
        2,
    ),
    (
        "bounds of numbers",
        bm.Mixture(bm.Normal(mu=pm.Truncated.dist(pm.Laplace.dist(0, 9), np.array([-99.0, 0, 0]), 99)), 3),
        ROWS["x"],
        2,
    ),
    ("narrow", bm.Mixture(bm.Normal(mu=pm.Truncated.dist(pm.Laplace.dist(5, 9), 4.9, 5.1)), 3), ROWS["x"], 6),
    ("of ones own", bm.Mixture(bm.Normal(mu=pm.CustomDist.dist(1.0, logp=_square)), 3), ROWS["x"], 6),
    (
        "of ones own, each",
        bm.Mixture(bm.Normal(mu=pm.CustomDist.dist(np.array([1.0, 1.0, 4.0]), logp=_square)), 3),
        ROWS["x"],
        2,
    ),
    ("matrices", bm.Mixture(bm.MvNormal(cov=_LKJ), 3), np.random.default_rng(0).normal(size=(9, 2)), 6),
    # the inner priors tell apart the inner components of the first outer one, and it from the others
    (
        "nested prior",
        bm.Mixture(bm.Mixture(bm.Normal(mu=pm.Normal.dist([[0.0, 5.0], [0.0, 0.0], [0.0, 0.0]], 1.0)), 2), 3),
        ROWS["x"],
        2 * 2 * 2,
    ),
]


@pytest.mark.parametrize(("spec", "rows", "count"), [c[1:] for c in COUNTS], ids=[c[0] for c in COUNTS])
def test_there_are_as_many_symmetries_as_combinatorics_says(spec, rows, count):
    assert np.exp(log_symmetries(bind(spec, read(rows)))) == pytest.approx(count, rel=1e-12)


def _log_posterior(bound, params, data):
    return bound.log_prior(params) + bound.log_density(params, data).sum()


def _random_point(bound, data, seed):
    """Parameters that no two components have in common."""
    rng = np.random.default_rng(seed)
    params = initial_params(bound, data, np.ones(data.n_rows), rng, 0)
    for name, slot in bound.free_slots.items():
        if slot.discrete:
            continue
        factor = 1 + 0.2 * rng.random(params[name].shape)
        if slot.support.ndim == 2:
            factor = factor[..., :1, :1]
        value = params[name] * factor
        if slot.support.name == "a probability":
            value = params[name] ** factor
        params[name] = value / value.sum(-1, keepdims=True) if slot.support.ndim == 1 else value
    return params


EVERY = [(tree.name, tree.spec, tree.table) for tree in TREES] + [case[:3] for case in COUNTS]


@pytest.mark.parametrize(("spec", "rows"), [case[1:] for case in EVERY], ids=[case[0] for case in EVERY])
def test_the_posterior_does_not_change_under_any_symmetry(spec, rows):
    table = read(rows)
    bound = bind(spec, table)
    data = bound.encode(table)
    params = _random_point(bound, data, 3)
    before = _log_posterior(bound, params, data)
    for symmetry in bound.symmetries:
        order = symmetry.identity.copy()
        for at, block in symmetry.blocks():
            order[(*at, block)] = np.roll(block, 1)
        assert symmetry.allows(order)
        moved = permuted(bound, symmetry, params, order)
        assert any(not np.array_equal(moved[name], params[name]) for name in moved)
        np.testing.assert_allclose(_log_posterior(bound, {**params, **moved}, data), before, rtol=1e-12)


def _images(bound, params):
    """The point under every combination of the symmetries' permutations, outer ones first."""
    images = [params]
    for symmetry in bound.symmetries:
        orders = [symmetry.identity.copy()]
        for at, block in symmetry.blocks():
            others = itertools.permutations(block)
            orders = [_with_block(order, (*at, block), other) for other in others for order in orders]
        images = [{**image, **permuted(bound, symmetry, image, order)} for image in images for order in orders]
    return images


def _with_block(order, at, block):
    order = order.copy()
    order[at] = block
    return order


FEW = [case[:3] for case in COUNTS if case[3] <= 100]


@pytest.mark.parametrize(("spec", "rows"), [case[1:] for case in FEW], ids=[case[0] for case in FEW])
def test_components_ascend_where_any_labelling_makes_them(spec, rows):
    """Against every labelling there is: one variable at a time, and pairs of them, which may not go together."""
    table = read(rows)
    bound = bind(spec, table)
    data = bound.encode(table)
    can = [name for name, slot in bound.free_slots.items() if not slot.event and slot.axes and not slot.discrete]
    for seed in range(3):
        params = _random_point(bound, data, seed)
        images = _images(bound, params)
        for names in [[name] for name in can] + [list(pair) for pair in itertools.permutations(can, 2)]:
            found = ascending(bound, params, names)
            np.testing.assert_allclose(
                _log_posterior(bound, found, data), _log_posterior(bound, params, data), rtol=1e-12
            )
            possible = any(all((np.diff(image[name]) >= 0).all() for name in names) for image in images)
            assert all((np.diff(found[name]) >= 0).all() for name in names) == possible, names


PARTIAL = [case for case in COUNTS if case[0] in ("weights' prior", "a prior each", "numeric, a prior each",
           "fixed each", "stick", "weights fixed", "all differ", "of ones own, each")]  # fmt: skip


@pytest.mark.parametrize(("spec", "rows"), [c[1:3] for c in PARTIAL], ids=[c[0] for c in PARTIAL])
def test_permutations_that_are_not_listed_change_the_posterior(spec, rows):
    # all 3! permutations by enumeration: the posterior is the same at those that `allows` allows, and no others
    table = read(rows)
    bound = bind(spec, table)
    data = bound.encode(table)
    whole = bind(bm.Mixture(bm.Normal(), 3), table).symmetries[0]  # of equal priors: every permutation
    params = _random_point(bound, data, 5)
    before = _log_posterior(bound, params, data)
    for order in itertools.permutations(range(3)):
        moved = {}
        for name, slot in bound.slots.items():
            axis = (*slot.axes, *slot.event).index(whole.axis)
            moved[name] = np.take(params[name], order, axis) if slot.free else params[name]
        same = np.isclose(_log_posterior(bound, moved, data), before, rtol=1e-10)
        allowed = any(each.allows(np.array(order)) for each in bound.symmetries) or list(order) == [0, 1, 2]
        assert same == allowed, order


def test_orders_that_are_no_permutations_are_not_allowed():
    symmetry = bind(bm.Mixture(bm.Normal(), 3), read(ROWS["x"])).symmetries[0]
    assert symmetry.allows([2, 0, 1])
    assert symmetry.allows([[0, 1, 2], [1, 0, 2]])
    assert not symmetry.allows([0, 0, 1])
    assert not symmetry.allows([[0, 1, 2], [1, 1, 2]])


def test_a_permutation_of_draws_is_that_of_each_draw():
    table = read(ROWS)
    bound = bind(bm.Mixture(NESTED, 3), table)
    data = bound.encode(table)
    points = [_random_point(bound, data, seed) for seed in range(4)]
    draws = {name: np.array([point[name] for point in points]).reshape(2, 2, *slot.shape)
             for name, slot in bound.slots.items()}  # fmt: skip
    rng = np.random.default_rng(0)
    for symmetry in bound.symmetries:
        order = np.array([rng.permuted(symmetry.identity, axis=-1) for _ in points])
        together = permuted(bound, symmetry, draws, order.reshape(2, 2, *symmetry.shape))
        for i, point in enumerate(points):
            for name, value in permuted(bound, symmetry, point, order[i]).items():
                np.testing.assert_array_equal(together[name][divmod(i, 2)], value)


def test_priors_on_variables_of_a_model_of_ones_own():
    with pm.Model():
        one = pm.Normal("one", 0, 1)
        each = pm.Normal("each", 0, 1, shape=3)
        table = read(ROWS["x"])
        assert np.exp(log_symmetries(bind(bm.Mixture(bm.Normal(mu=pm.Normal.dist(one, 1)), 3), table))) == 6
        assert log_symmetries(bind(bm.Mixture(bm.Normal(mu=pm.Normal.dist(each, 1)), 3), table)) == 0
        assert log_symmetries(bind(bm.Mixture(bm.Normal(mu=each), 3), table)) == 0
        assert np.exp(log_symmetries(bind(bm.Mixture(bm.Normal(mu=one), 3), table))) == pytest.approx(6)
