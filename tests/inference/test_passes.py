"""Posteriors of rows that are read in parts: the same function as the model of all rows, and the same approximation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
from bayesmix.build import model_of, variables_at
from bayesmix.errors import ApproximationWarning
from bayesmix.inference.large import Surrogate
from bayesmix.inference.passes import PassTarget
from bayesmix.inference.rows import rows_in_parts
from bayesmix.inference.target import Target
from bayesmix.mstep import hessian_by_differences
from bayesmix.sources import source_of

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
    rows = rows_in_parts(spec, source_of(PARTS), weights)
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
    rows = rows_in_parts(bm.Composite(x=bm.SpikeAndSlab()), source_of([pd.DataFrame({"x": counts})]), None)
    assert rows.e_step.bound.discrete_slots
    with pytest.raises(bm.SpecError, match="discrete parameters need all rows in memory"):
        PassTarget(rows.e_step, {})


@pytest.fixture(scope="module")
def exact():
    return bm.fit_nuts(SPEC, FRAME, draws=1000, tune=500, chains=2, n_starts=2, random_seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("subsample", [None, 600])
def test_nuts_of_parts_is_nuts_of_the_table(exact, subsample):
    fit = bm.fit_nuts(SPEC, PARTS, draws=500, tune=400, chains=2, n_starts=2, subsample=subsample, random_seed=2)
    assert fit.status.converged, fit.status
    if subsample is not None:
        assert fit.pareto_k < 0.7
        assert "Against all rows" in fit.status.message
    for name in exact.bound.free_slots:
        sd, mean = (getattr(exact.posterior[name], what)(("chain", "draw")) for what in ("std", "mean"))
        own = fit.posterior[name]
        # 400 draws and more: the standard error of a mean is a twentieth of an sd
        assert (abs(own.mean(("chain", "draw")) - mean) < 0.25 * sd).all()
        np.testing.assert_allclose(own.std(("chain", "draw")) / sd, 1.0, atol=0.2)


def test_the_surrogate_has_the_value_gradient_and_curvature_of_all_rows():
    start = bm.fit_em(SPEC, FRAME, n_starts=2, random_seed=1)
    rows = rows_in_parts(SPEC, source_of(PARTS), None)
    full = PassTarget(rows.e_step, start.params)
    data, weights = rows.e_step.sample(500, np.random.default_rng(3))
    model = model_of(rows.e_step.bound, data, row_weights=weights, initval=start.params)
    few = Target(model, variables_at(rows.e_step.bound, start.params), jacobian=True)
    at = full.start
    hessian = full.hessian(at)
    surrogate = Surrogate(full, few, at, hessian)
    np.testing.assert_allclose(surrogate(at)[0], full(at)[0], rtol=1e-12)
    np.testing.assert_allclose(surrogate(at)[1], full(at)[1], atol=1e-6)
    scale = np.sqrt(np.abs(np.diag(hessian)))
    curvature = hessian_by_differences(lambda u: surrogate(u)[1], at)
    np.testing.assert_allclose(curvature / scale / scale[:, None], hessian / scale / scale[:, None], atol=1e-5)
    # two standard deviations away it is nearer to the truth than the sample, and than the quadratic
    factor = np.linalg.cholesky(np.linalg.inv(-hessian))
    steps = [2 * factor @ z / np.linalg.norm(z) * np.sqrt(len(z)) for z in RNG.standard_normal((20, len(at)))]
    errors = {"surrogate": [], "quadratic": [], "sample": []}
    for step in steps:
        truth = full(at + step)[0] - full(at)[0]
        errors["surrogate"].append(surrogate(at + step)[0] - surrogate(at)[0] - truth)
        errors["quadratic"].append(full(at)[1] @ step + 0.5 * step @ hessian @ step - truth)
        errors["sample"].append(few(at + step)[0] - few(at)[0] - truth)
    size = {name: float(np.sqrt(np.mean(np.square(found)))) for name, found in errors.items()}
    assert size["surrogate"] < 0.6 * size["quadratic"]
    assert size["surrogate"] < 0.1 * size["sample"]
    # far away a quadratic says nothing any more
    value, gradient = surrogate(at + 20 * steps[0])
    assert value == -np.inf
    assert not gradient.any()


SMALL = {"draws": 100, "tune": 200, "chains": 2, "n_starts": 2, "random_seed": 1}


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ConvergenceWarning")  # few draws will do
def test_draws_of_a_sample_are_drawn_again_by_what_all_rows_say():
    x = FRAME["n"].to_numpy()
    fit = bm.fit_nuts(bm.Mixture(bm.Poisson(), 2), x[:400], subsample=150, **SMALL)
    assert "drawn again by them" in fit.status.message
    assert fit.pareto_k < 0.7
    whole = bm.fit_nuts(bm.Mixture(bm.Poisson(), 2), x[:400], **SMALL)
    for name in ("mu", "weights"):
        sd, mean = (getattr(whole.posterior[name], what)(("chain", "draw")) for what in ("std", "mean"))
        assert (abs(fit.posterior[name].mean(("chain", "draw")) - mean) < 0.5 * sd).all()


def test_a_sample_that_says_too_little_is_not_trusted():
    x = FRAME["n"].to_numpy()[:200]
    with pytest.warns((ApproximationWarning, bm.ConvergenceWarning), match="Raise subsample|not to be trusted"):
        fit = bm.fit_nuts(bm.Mixture(bm.Poisson(), 2), x, subsample=4, **SMALL)
    assert not fit.status.converged
    assert "draws are not to be trusted" in fit.status.message


def test_a_sample_of_rows_of_which_few_have_most_of_the_weight_is_refused():
    weights = np.ones(N)
    weights[7] = 1e6
    with pytest.raises(bm.DataError, match=r"a few rows have most of the weight. Leave it out"):
        bm.fit_nuts(bm.Mixture(bm.Poisson(), 2), FRAME["n"].to_numpy(), row_weights=weights, subsample=50, **SMALL)


@pytest.mark.parametrize(
    "asked", [{"order": "mu"}, {"relabel": None}, {"modes": "all"}, {"combine": "stacking"}, {"nuts_sampler": "pymc"}]
)
def test_nuts_of_parts_says_what_it_does_not_do(asked):
    for data, more in ((PARTS, {}), (PARTS[0], {"subsample": 100})):
        with pytest.raises(ValueError, match=rf"{next(iter(asked))}: not for a table that is read in parts"):
            bm.fit_nuts(SPEC, data, **asked, **more)
