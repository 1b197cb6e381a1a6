"""Second derivatives by differences of the fused gradient, against exact ones of PyMC's densities."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QUICK
from bayesmix.inference.target import Target


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "unit"), [(0.0, 1.0), (1e8, 1.0), (0.0, 1e-8), (0.0, 1e8)])
def test_differences_of_the_gradient_have_seven_digits(offset, unit):
    """Whatever the column's unit and offset; each entry in units of the square roots of its diagonal ones."""
    rng = np.random.default_rng(0)
    x = offset + unit * rng.normal(4 * rng.integers(2, size=200), 1)
    _, bound, data, _, _ = prepare(bm.Mixture(bm.Normal(), 2), x, None)
    center = {"weights": np.array([0.4, 0.6]), "mu": offset + unit * np.array([0.3, 3.5]), "sigma": unit * np.ones(2)}
    fused, graph = [
        Target(model_of(bound, data, initval=None, likelihood=kind), variables_at(bound, center), jacobian=False)
        for kind in ("fused", "graph")
    ]
    flat, [logp] = graph._joined([graph.model.logp(jacobian=False)])
    gradient = pt.grad(logp, flat)
    rows = [pt.grad(gradient[i], flat) for i in range(len(graph.start))]
    exact = pytensor.function([flat], pt.stack(rows), mode=QUICK)(fused.start)
    size = np.sqrt(np.abs(np.diagonal(exact)))
    assert (np.abs(fused.hessian(fused.start) - exact) <= 1e-7 * size[:, None] * size).all()
