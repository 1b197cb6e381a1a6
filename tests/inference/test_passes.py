"""Posteriors of rows that are read in parts: the same function as the model of all rows, and the same approximation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
from bayesmix.build import model_of, variables_at
from bayesmix.inference.passes import PassTarget
from bayesmix.inference.rows import rows_of
from bayesmix.inference.target import Target

N = 3000
RNG = np.random.default_rng(2)
GROUP = RNG.integers(2, size=N)
FRAME = pd.DataFrame(
    {
        "x": np.where(RNG.random(N) < 0.05, np.nan, RNG.normal(np.array([-2.0, 2.0])[GROUP], 1.0)),
        "n": RNG.poisson(np.array([1.0, 6.0])[GROUP]),
        "c": np.array(list("abc"))[np.where(RNG.random(N) < 0.6, GROUP, RNG.integers(3, size=N))],
    }
)
SPEC = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical()), 2)
PARTS = [FRAME.iloc[:1100], FRAME.iloc[1100:1300], FRAME.iloc[1300:]]

SPECS = {
    "record": SPEC,
    "nested": bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), n=bm.Poisson()), 2),
    "shared": bm.Mixture(bm.Composite(x=bm.Normal(sigma=bm.Shared()), n=bm.Poisson(mu=3.0)), 2),
}


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_the_log_posterior_is_that_of_the_model_of_all_rows(name, jacobian):
    spec = SPECS[name]
    weights = RNG.uniform(0.5, 2.0, N)
    start = bm.fit_em(spec, FRAME, row_weights=weights, n_starts=2, max_iter=500, random_seed=1)
    rows = rows_of(spec, PARTS, weights)
    target = PassTarget(rows.e_step, start.params, jacobian=jacobian)
    model = model_of(start.bound, start.encoded, row_weights=weights, initval=start.params)
    whole = Target(model, variables_at(start.bound, start.params), jacobian=jacobian)
    for u in (whole.start, whole.start + 0.1 * RNG.standard_normal(len(whole.start))):
        (value, gradient), (expected, slope) = target(u), whole(u)
        np.testing.assert_allclose(value, expected, rtol=1e-11)
        np.testing.assert_allclose(gradient, slope, rtol=1e-7, atol=1e-6)
    assert target.n_passes == 2
    # and the gradient is that of the value
    u = whole.start + 0.05
    for i in range(len(u)):
        step = 1e-5 * np.eye(len(u))[i]
        slope = (target(u + step)[0] - target(u - step)[0]) / 2e-5
        np.testing.assert_allclose(target(u)[1][i], slope, rtol=1e-4, atol=1e-2)


def test_laplace_of_parts_is_laplace_of_the_table():
    parts = bm.fit_laplace(SPEC, PARTS, draws=4000, n_starts=2, random_seed=1)
    table = bm.fit_laplace(SPEC, FRAME, draws=4000, n_starts=2, correct=False, random_seed=1)
    assert parts.status.converged
    assert parts.pareto_k < 0.7
    assert "passes over the rows" in parts.status.message
    for name in table.bound.free_slots:
        own, other = parts.posterior[name], table.posterior[name]
        sd = other.std(("chain", "draw"))
        np.testing.assert_allclose(own.std(("chain", "draw")) / sd, 1.0, atol=0.08)
        # draws are mirrored about the mode: means of the table's are, too
        assert (abs(own.mean(("chain", "draw")) - other.mean(("chain", "draw"))) < 0.05 * sd).all()
    np.testing.assert_allclose(parts.loglik, table.loglik, atol=1.0)


def test_discrete_parameters_are_refused():
    counts = np.array([4] * 60 + list(range(12)) * 5)
    rows = rows_of(bm.SpikeAndSlab(), [pd.DataFrame({"x": counts})], None)
    assert rows.e_step.bound.discrete_slots
    with pytest.raises(bm.SpecError, match="discrete parameters need all rows in memory"):
        PassTarget(rows.e_step, {})
