"""The fused likelihood is the graph's, in PyMC's own densities: value and gradient, for all families and structures."""

import numpy as np
import pytest

from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.inference.start import initial_params
from bayesmix.inference.target import Target
from tests.contract import test_structures as contract
from tests.structure import trees as structure

#: Relative to the largest entry: smaller ones are sums of many terms of that size.
TOLERANCE = 1e-9
#: Building a model twice takes two seconds: these have every node and most families.
FAST = (
    "Mixture-Composite-MvNormal-Categorical-Bernoulli",
    "HierarchicalMixture-Poisson-Poisson",
    "Mixture-SpikeAndSlab-Poisson",
)
TREES = [(tree, tree.table(contract.missing(contract.TABLE))) for tree in (*contract.IDENTIFIED, *contract.RIDGED)]
TREES += [(tree, tree.table) for tree in (*structure.TREES, *structure.NUMERIC)]


def over(*names):
    chosen = [(tree, table, flat) for tree, table in TREES for flat in (False, True) if not names or tree.name in names]
    chosen = [each for each in chosen if not (each[2] and each[0] in structure.NUMERIC)]  # flat, they are others' twins
    return pytest.mark.parametrize(
        ("tree", "table", "flat"),
        [
            pytest.param(
                tree, table, flat, id=f"{tree.name}-{'flat' if flat else 'default'}",
                marks=[] if tree.name in FAST and not flat else [pytest.mark.slow],
            )
            for tree, table, flat in chosen
        ],
    )  # fmt: skip


@over()
def test_fused_value_and_gradient_are_the_graphs(tree, table, flat):
    """At random points near the data and far from them, with missing cells, and with row weights (some of them 0)."""
    spec = tree.spec.with_flat_priors() if flat else tree.spec
    _, bound, data, _, _ = prepare(spec, table, None)
    rng = np.random.default_rng(5)
    weights = rng.integers(0, 4, data.n_rows) * 0.5
    params = initial_params(bound, data, weights, rng, 0)
    graph, fused = [
        Target(
            model_of(bound, data, row_weights=weights, initval=None, likelihood=kind),
            variables_at(bound, params),
            jacobian=False,
        )
        for kind in ("graph", "fused")
    ]
    for distance in (0.1, 0.5, 2.0):
        u = graph.start + distance * rng.normal(size=graph.start.shape)
        while not np.isfinite(fused(u)[0]):  # a probability under a logit-normal prior has no transform
            u = (graph.start + u) / 2
        (value, gradient), (own, own_gradient) = graph(u), fused(u)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(own, value, rtol=TOLERANCE)
        size = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(own_gradient, gradient, rtol=TOLERANCE, atol=TOLERANCE * size)


def test_every_family_and_structure_is_among_them():
    import bayesmix as bm
    from bayesmix.families._contract import Leaf
    from bayesmix.spec import Node

    def nodes(node):
        yield type(node)
        for _, part in node.parts:
            yield from nodes(part)

    public = {value for value in vars(bm).values() if isinstance(value, type) and issubclass(value, Node)}
    assert len([value for value in public if issubclass(value, Leaf)]) >= 10
    public -= {bm.InferredSpec}  # a mixture with notes, which is fitted without them
    assert public <= {kind for tree, _ in TREES for kind in nodes(tree.spec)}
