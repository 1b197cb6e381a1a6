"""Law 4 over every structure node: EM stops where the gradient of the model in PyMC's own densities is zero."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.build import model_of, variables_at
from bayesmix.inference.target import Target
from tests.structure.trees import NUMERIC, TREES, over

# Building a PyMC model's gradient takes about two seconds each; these have every node.
BROAD = (
    "Mixture-Composite-Optional-Sequence-Normal",
    "Mixture-Sequence-Mixture-Normal",
    "HierarchicalMixture-Poisson-Poisson",
    "JointMixture-Composite-Sequence",
    "Mixture-SpikeAndSlab-Poisson",
    "Mixture-MarkovChain-Poisson",
    "Mixture-Composite-tied-Normal",
    "Mixture-Normal-Shared",
    "Mixture-Poisson-min_weight",
)


def fixed_point(spec, table, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        warnings.simplefilter("ignore", bm.DegenerateWarning)  # groups are small here, and weights make them smaller
        return bm.fit_em(spec, table, tol=0, n_starts=3, random_seed=1, max_iter=3000, **kwargs)


def targets(fit, row_weights=None):
    """The log posterior without Jacobians, from PyMC's own densities and from ours."""
    start = variables_at(fit.bound, fit.params)
    return [
        Target(
            model_of(fit.bound, fit.encoded, row_weights=row_weights, initval=None, likelihood=kind),
            start,
            jacobian=False,
        )
        for kind in ("graph", "fused")
    ]


def check(spec, table, tolerance=1e-9, row_weights=None):
    fit = fixed_point(spec, table, row_weights=row_weights)
    history = fit.history
    assert (np.diff(history) >= -1e-12 * np.abs(history[:-1])).all(), "the objective fell"
    assert fit.status.converged, "tol=0 must end"
    graph, fused = targets(fit, row_weights)
    value, gradient = graph(graph.start)
    np.testing.assert_allclose(value, history[-1], rtol=tolerance)
    assert np.abs(gradient).max(initial=0) < 1e-6
    away = graph.start + 0.05 * np.random.default_rng(4).normal(size=graph.start.shape)
    for u in (graph.start, away):
        (value, gradient), (own, own_gradient) = graph(u), fused(u)
        np.testing.assert_allclose(own, value, rtol=1e-9)
        # where the gradient vanishes, terms as large as the number of elements cancel
        np.testing.assert_allclose(own_gradient, gradient, rtol=1e-9, atol=1e-9)
    return fit


@over(TREES, fast=BROAD)
def test_em_stops_where_the_graphs_gradient_is_zero_and_the_fused_one_agrees(tree):
    # hyperparameters given as Python floats are single precision in PyMC, and so are their logarithms
    check(tree.spec, tree.table, 1e-8)


@over([tree for tree in TREES if tree.flat], fast=BROAD[:4])
def test_the_same_under_flat_priors(tree):
    check(tree.spec.with_flat_priors(), tree.table)


@pytest.mark.slow
@over(NUMERIC)
def test_the_same_under_users_priors(tree):
    check(tree.spec, tree.table, 1e-7)


@over([tree for tree in TREES if "Mixture" in tree.name], fast=("HierarchicalMixture-Normal",))
def test_the_same_with_row_weights(tree):
    check(tree.spec, tree.table, 1e-8, np.random.default_rng(3).integers(0, 4, 48).astype(float))


@over(TREES)
def test_acceleration_changes_the_way_and_not_the_end(tree):
    """Plain EM from the accelerated fixed point stays there."""
    fit = fixed_point(tree.spec, tree.table)
    start = {name: fit.params[name] for name in fit.bound.free_slots}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        again = bm.fit_em(tree.spec, tree.table, start=start, accelerate=False, tol=0, max_iter=20)
    np.testing.assert_allclose(again.history[-1], fit.history[-1], rtol=1e-12)
    for name, value in fit.params.items():
        np.testing.assert_allclose(again.params[name], value, rtol=1e-6, atol=1e-8, err_msg=name)
