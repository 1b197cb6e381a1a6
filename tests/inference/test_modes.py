"""Modes that EM finds: that they are listed, weighed, sampled and combined, and that none is taken for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.errors import ApproximationWarning, ConvergenceWarning, MultimodalWarning
from bayesmix.inference import nuts
from bayesmix.inference.em import Run, advance
from bayesmix.inference.modes import Mode, Modes, stuck_chains, weighed
from bayesmix.inference.target import laplace_factor
from bayesmix.plan import EStep

_rng = np.random.default_rng(0)
_HALF = np.concatenate([_rng.normal(8, 1, 60), _rng.normal(13, 1, 60)])
#: Four groups, mirrored, for three components: either the left or the right two are taken for one.
TWO_MODES = np.concatenate([_HALF, -_HALF])
THREE = bm.Mixture(bm.Normal(), 3)
_EVEN = np.full(3, 1 / 3)
#: Two near groups, and a far one that the wrong mode splits.
TRAP = np.array([0.0, 5.0, 25.0])[np.repeat([0, 1, 2], 100)] + _rng.normal(size=300)
WRONG = {"weights": _EVEN, "mu": np.array([2.5, 24.5, 25.5]), "sigma": np.array([2.5, 1.0, 1.0])}
RIGHT = {"weights": _EVEN, "mu": np.array([0.0, 5.0, 25.0]), "sigma": np.ones(3)}


def uphill(spec, x, start):
    """Where plain EM ends, without the nudges that leave a bad mode."""
    _, bound, encoded, weights, _ = prepare(spec, x, None)
    run = Run({name: np.asarray(value, float) for name, value in start.items()})
    advance(EStep(bound, encoded, weights), run, 1000, 1e-9)
    return run


def test_mirrored_modes_are_both_listed_with_equal_weight_Normal():
    fit = bm.fit_em(THREE, TWO_MODES, random_seed=1)
    assert len(fit.modes.heavy) == 2
    first, second = fit.modes.heavy
    np.testing.assert_allclose([first.weight, second.weight], 0.5, atol=0.01)
    np.testing.assert_allclose(np.sort(first.params["mu"]), np.sort(-second.params["mu"]), atol=1e-3)
    assert sum(mode.starts for mode in fit.modes) <= 16
    assert fit.modes.table.loc[0, "below"] == 0
    assert "2 modes" in repr(fit.modes)
    assert fit.modes is fit.modes  # weighed once


def test_relabelled_runs_are_one_mode_Normal():
    """Separated groups: sixteen starts, 3! orders, one mode."""
    fit = bm.fit_em(THREE, TRAP, random_seed=2)
    assert len(fit.modes.heavy) == 1
    assert fit.modes[0].starts > 1
    np.testing.assert_allclose(fit.modes[0].log_posterior, fit.history[-1])
    for name, value in fit.params.items():
        np.testing.assert_allclose(fit.modes[0].params[name], value)


@pytest.mark.parametrize("seed", range(5))
def test_the_default_fit_is_not_in_a_planted_mode_Normal(seed):
    rng = np.random.default_rng(seed)
    x = np.array([0.0, rng.uniform(5, 6), 25.0])[np.repeat([0, 1, 2], 100)] + rng.normal(size=300)
    right = uphill(THREE, x, RIGHT).objective
    assert uphill(THREE, x, WRONG).objective < right - 50
    fit = bm.fit_em(THREE, x, random_seed=seed)
    assert fit.history[-1] > right - 1e-6


def test_every_second_start_is_hard_enough_to_tell_neighbours_apart_Normal():
    """With soft starts alone all sixteen merged two groups, and put two equal components on them, 21 nats lower."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 0.7, 40) for m in (-11.9, -8, 8, 11.9)])
    start = {"weights": [0.25, 0.25, 0.5], "mu": [-11.9, -8.0, 10.0], "sigma": [0.7, 0.7, 2.0]}
    assert bm.fit_em(THREE, x, random_seed=1).history[-1] > bm.fit_em(THREE, x, start=start).history[-1] - 1e-6


def test_masses_are_integrals_Poisson():
    """Two parameters, weights fixed: the mass of the mode against a sum over a grid about it."""
    from scipy import stats

    x = np.concatenate([_rng.poisson(3, 60), _rng.poisson(14, 60)])
    fit = bm.fit_em(bm.Mixture(bm.Poisson(), 2, weights=[0.5, 0.5]), x, random_seed=1)
    prior = fit.bound.slots["mu"].hyper
    low, high = np.linspace(1.5, 5, 400), np.linspace(10, 18, 400)
    grid = [stats.gamma(prior.alpha[k], scale=1 / prior.beta[k]).logpdf(mu) for k, mu in enumerate((low, high))]
    joint = np.logaddexp(
        stats.poisson.logpmf(x[:, None], low)[:, :, None], stats.poisson.logpmf(x[:, None], high)[:, None]
    )
    log_density = (joint - np.log(2)).sum(0) + grid[0][:, None] + grid[1]
    cell = (low[1] - low[0]) * (high[1] - high[0])
    np.testing.assert_allclose(
        fit.modes[0].log_mass, np.logaddexp.reduce(log_density, axis=None) + np.log(cell), atol=0.01
    )


def test_nuts_samples_both_modes_and_puts_them_together_Normal():
    with pytest.warns((MultimodalWarning, ConvergenceWarning), match="another mode carries weight"):
        fit = bm.fit_nuts(THREE, TWO_MODES, draws=300, tune=300, chains=2, random_seed=1)
    assert not fit.status.converged
    assert "another mode" in fit.status.message
    assert len(fit.mode_fits) == 2
    apart = [one.loglik for one in fit.mode_fits]
    np.testing.assert_allclose(apart[0], apart[1], atol=2)
    for method in ("laplace", "stacking"):
        whole = fit.combine(method, random_seed=1)
        assert whole.posterior.sizes == fit.posterior.sizes
        # symmetric data: either side holds the pair in half of the draws
        left = (whole.posterior["mu"].median("component") < 0).mean("draw")
        np.testing.assert_allclose(left, 0.5, atol=0.1 if method == "stacking" else 0.02)
        assert "combined by" in whole.status.message
        assert whole.mode_fits == ()
        assert whole.idata["log_likelihood"]["row_loglik"].shape == (2, 300, 240)
        np.testing.assert_allclose(whole.idata["log_likelihood"]["row_loglik"].sum("row").mean(), whole.loglik, atol=2)
    with pytest.raises(ValueError, match="method: one of"):
        fit.combine("mean")


def test_the_heaviest_alone_on_request_and_with_a_warning_Normal():
    with pytest.warns((MultimodalWarning, ConvergenceWarning), match='Take modes="auto"'):
        fit = bm.fit_nuts(THREE, TWO_MODES, draws=100, tune=200, chains=2, modes="dominant", random_seed=1)
    assert fit.mode_fits == ()
    assert not fit.status.converged
    assert fit.combine() is fit


@pytest.mark.parametrize("method", ["laplace", "advi"])
def test_an_approximation_of_one_mode_says_so_Normal(method):
    with pytest.warns(MultimodalWarning, match="fit_nuts"):
        fit = bm.fit(THREE, TWO_MODES, method=method, random_seed=1, draws=50)
    assert not fit.status.converged


@pytest.mark.parametrize("stuck", [[0], [0, 1]])
def test_a_stuck_chain_is_no_success_Normal(monkeypatch, stuck):
    """Chains that are forced into the wrong mode, hundreds of nats down: one of them, and both, where R-hat is fine."""
    x = np.array([0.0, 60.0, 300.0, 308.0])[np.repeat([0, 1, 2, 3], 100)] + np.random.default_rng(0).normal(size=400)
    start = {"weights": [0.5, 0.25, 0.25], "mu": [30.0, 300.0, 308.0], "sigma": [30.0, 1.0, 1.0]}
    wrong = uphill(THREE, x, start)
    right = bm.fit_em(THREE, x, random_seed=1)
    assert wrong.objective < right.history[-1] - 200
    run = nuts._nutpie

    def forced(model, target, starts, **kwargs):
        arrays, stats, lengths = run(model, target, starts, **kwargs)
        at = target.unconstrained({name: wrong.params[name] for name in ("weights", "mu", "sigma")})
        factor = laplace_factor(target.hessian(at))
        for c in stuck:  # what a chain gives that never left the wrong mode
            points = at + np.random.default_rng(c).standard_normal((300, len(at))) @ factor.T
            for name, values in target.constrained(points).items():
                arrays[name][c] = values
            stats["logp"].values[c] = [target(point)[0] for point in points]
        return arrays, stats, lengths

    monkeypatch.setattr(nuts, "_nutpie", forced)
    with pytest.warns(ConvergenceWarning, match="nats below"):
        fit = bm.fit_nuts(THREE, x, draws=300, tune=300, chains=2, random_seed=1)
    assert not fit.status.converged


def test_what_counts_as_stuck():
    """Draws of chi-squared log densities, as a normal posterior's are."""
    rng = np.random.default_rng(0)
    for dimension in (2, 8, 50):
        good = -0.5 * rng.chisquare(dimension, (4, 500))
        assert stuck_chains(good, 0.0, dimension) == ""
        assert "chain 2 lies" in stuck_chains(good - 200 * (np.arange(4) == 2)[:, None], 0.0, dimension)
        assert "all chains lie" in stuck_chains(good - 200, 0.0, dimension)
    assert stuck_chains(np.zeros((2, 10)), 0.0, 1) == ""


def test_keywords_that_are_not_understood():
    for name in ("modes", "combine"):
        with pytest.raises(ValueError, match=f"{name}: "):
            bm.fit_nuts(THREE, TRAP, **{name: "some"})


def _mode(log_posterior, **more):
    return Mode({}, log_posterior, log_posterior, 1, 0.5, **more)


def test_which_modes_chains_start_from():
    heavy, light = _mode(0.0, log_mass=0.0, weight=0.99), _mode(-3.0, log_mass=-6.0, weight=0.001)
    none = _mode(-4.0, log_mass=-np.inf, weight=0.0)  # in unconstrained coordinates no mode of its own
    modes = Modes([heavy, light, none])
    assert modes.to_sample("dominant") == modes.to_sample("auto") == (heavy,)
    assert modes.to_sample("all") == (heavy, light)
    empty = Modes([])
    assert empty.heavy == empty.to_sample("all") == ()
    assert empty.describe() == ""
    assert len(empty.table) == 0


def test_no_modes_need_no_weighing_and_numbers_have_none():
    fit = bm.fit_em(bm.Normal(mu=0.0, sigma=1.0), TRAP[:5], random_seed=1)
    modes = Modes([_mode(-1.0)])
    assert weighed(fit.bound, fit.encoded, None, modes) is modes  # nothing is sampled
    free = bm.fit_em(bm.Normal(), TRAP[:5], random_seed=1)
    assert len(weighed(free.bound, free.encoded, None, Modes([]))) == 0


def test_what_a_way_to_combine_modes_needs_is_said():
    fit = bm.fit_em(THREE, TRAP, n_starts=4, random_seed=1)
    without = replace(fit, idata=xr.DataTree.from_dict({"posterior": fit.posterior}))
    without = replace(without, modes_found=Modes([_mode(0.0)]))  # its mass is not known
    both = replace(without, mode_fits=(without, without))
    with pytest.raises(ValueError, match=r"needs the rows' log-likelihood. Pass log_likelihood=True"):
        both.combine("stacking")
    with pytest.raises(ValueError, match=r'a mode has no Laplace approximation. Use "stacking" or "bridge"'):
        both.combine("laplace")


def test_chains_start_at_the_mode_itself_where_there_is_nothing_else():
    """Each step is halved until there is a density."""

    def spike(u):
        return (0.0 if (u == 0).all() else -np.inf), np.zeros(len(u))

    found = nuts.started(spike, np.array([[1.0, -3.0], [0.5, 2.0]]), np.zeros(2))
    np.testing.assert_allclose(found, 0, atol=1e-17)


SHORT = {"draws": 60, "tune": 150, "chains": 2, "random_seed": 1, "log_likelihood": False}


@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")  # few draws will do
@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_at_one_of_several_modes_keeps_what_was_drawn_Normal(monkeypatch, at):
    """At the first its draws so far are left; at the second those of the first, which are whole."""
    drawn, calls = nuts.sample, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if at == len(calls) == 2:
            raise KeyboardInterrupt
        found = drawn(*args, **kwargs)
        if at == len(calls) == 1:
            fewer = [{name: values[:40] for name, values in chain.items()} for chain in found.chains]
            return replace(found, chains=fewer, complete=False)
        return found

    monkeypatch.setattr(nuts, "sample", interrupted)
    fit = bm.fit_nuts(THREE, TWO_MODES, **SHORT)
    assert len(calls) == at
    assert not fit.status.complete
    assert not fit.status.converged
    assert fit.mode_fits == ()
    assert fit.posterior.sizes["draw"] == (40 if at == 1 else 60)
    assert ("interrupted at another of 2 modes" in fit.status.message) == (at == 2)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")  # few draws will do
def test_modes_are_combined_on_request_Normal():
    fit = bm.fit_nuts(THREE, TWO_MODES, combine="laplace", **SHORT)
    assert fit.mode_fits == ()
    assert "NUTS from 2 modes, combined by laplace, weights 0.5" in fit.status.message
    left = (fit.posterior["mu"].median("component") < 0).mean("draw")
    np.testing.assert_allclose(left, 0.5, atol=0.05)  # the data are their own mirror image


def on_a_grid(x, weights):
    """P(mu0 < mu1), the mean of mu0 and the log evidence of two Poissons with known weights, by a sum over a grid."""
    grid = np.linspace(0.01, 25, 600)
    prior = stats.gamma(2, scale=5).logpdf(grid)
    each = stats.poisson.logpmf(x[:, None], grid)
    log = prior[:, None] + prior[None]
    for row in each:
        log += np.logaddexp(np.log(weights[0]) + row[:, None], np.log(weights[1]) + row[None])
    total = logsumexp(log)
    share = np.exp(log - total)
    return np.triu(share, 1).sum(), share.sum(1) @ grid, total + 2 * np.log(grid[1] - grid[0])


@pytest.mark.parametrize("weights", [[0.45, 0.55], [0.499, 0.501]], ids=str)
def test_components_that_priors_tell_apart_are_in_two_places_Poisson(weights):
    """Where components change places the densities stay nearly as they are, and yet it is another mode."""
    rng = np.random.default_rng(3)
    x = np.r_[rng.poisson(3, 14), rng.poisson(12, 16)]
    spec = bm.Mixture(bm.Poisson(mu=pm.Gamma.dist(2, 0.2)), 2, weights=weights)
    below, mean, evidence = on_a_grid(x, weights)
    with pytest.warns(MultimodalWarning), pytest.warns(ConvergenceWarning):
        apart = bm.fit_nuts(spec, x, draws=500, tune=500, random_seed=1)
    assert not apart.status.converged
    assert len(apart.mode_fits) == 2
    with pytest.warns(ApproximationWarning, match="others have"):
        bm.log_evidence(apart, random_seed=1)
    whole = apart.combine("bridge", random_seed=1)
    mu = whole.posterior["mu"].values
    assert (mu[..., 0] < mu[..., 1]).mean() == pytest.approx(below, abs=0.02)
    assert mu[..., 0].mean() == pytest.approx(mean, abs=0.25)
    assert float(bm.log_evidence(whole, random_seed=1)) == pytest.approx(evidence, abs=0.03)


def test_components_that_nothing_tells_apart_are_one_mode_Poisson():
    rng = np.random.default_rng(3)
    x = np.r_[rng.poisson(3, 14), rng.poisson(12, 16)]
    fit = bm.fit(bm.Mixture(bm.Poisson(), 2, weights=[0.5, 0.5]), x, random_seed=1)
    assert len(fit.modes) == 1
    mixed = bm.Mixture([bm.Poisson(), bm.Poisson(), bm.Geometric()], weights=[0.3, 0.3, 0.4])
    assert len(bm.fit(mixed, x[x > 0], random_seed=1).modes) < 6


@pytest.mark.parametrize("method", ["nuts", "laplace", "advi"])
def test_an_order_leaves_the_modes_that_are_in_it_where_priors_tell_components_apart_Poisson(method):
    """It is part of the model then: of two places the one that ascends, heavier or not."""
    rng = np.random.default_rng(3)
    x = np.r_[rng.poisson(3, 14), rng.poisson(12, 16)]
    short = {"draws": 1000, "tune": 500} if method == "nuts" else {"draws": 200}
    for weights in ([0.45, 0.55], [0.55, 0.45]):
        spec = bm.Mixture(bm.Poisson(mu=pm.Gamma.dist(2, 0.2)), 2, weights=weights)
        fit = bm.fit(spec, x, method=method, order="mu", random_seed=1, **short)
        assert (np.diff(fit.posterior["mu"].values) > 0).all()
        assert fit.mode_fits == ()
