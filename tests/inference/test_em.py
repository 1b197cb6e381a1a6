"""EM: acceleration, saddles, validation, trajectories, threads."""

from __future__ import annotations

import warnings

import numpy as np
import pymc as pm
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.inference.em import Run, advance
from bayesmix.inference.quasi_newton import Complete
from bayesmix.inference.saddles import ascents
from bayesmix.inference.start import initial_params, with_mode_inside
from bayesmix.inference.target import Target
from bayesmix.plan import EStep

_rng = np.random.default_rng(5)
X = np.concatenate([_rng.normal(-3, 1, 300), _rng.normal(3, 1, 300)])
OVERLAP = np.concatenate([_rng.normal(0, 1, 2000), _rng.normal(1.8, 1, 1000)])


def test_a_start_at_a_saddle_is_left_Normal():
    """Two equal components are a stationary point of EM; the mode has two groups."""
    start = {"weights": np.array([0.5, 0.5]), "mu": np.zeros(2), "sigma": np.full(2, X.std())}
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, start=start, random_seed=1)
    np.testing.assert_allclose(fit.params["mu"], [-3, 3], atol=0.2)
    assert fit.starts[0]["saddles"] >= 1
    best = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, random_seed=1)
    np.testing.assert_allclose(fit.history[-1], best.history[-1], rtol=1e-9)


@pytest.mark.parametrize("flat", [False, True])
def test_acceleration_reaches_the_same_mode_sooner_Normal(flat):
    spec = bm.Mixture(bm.Normal(), 2)
    spec = spec.with_flat_priors() if flat else spec
    start = {"weights": np.array([0.5, 0.5]), "mu": np.array([-0.5, 1.5]), "sigma": np.ones(2)}
    plain = bm.fit_em(spec, OVERLAP, start=start, accelerate=False, tol=1e-10, max_iter=20_000)
    fast = bm.fit_em(spec, OVERLAP, start=start, tol=1e-10)
    np.testing.assert_allclose(fast.history[-1], plain.history[-1], rtol=1e-10)
    for name, value in plain.params.items():
        np.testing.assert_allclose(fast.params[name], value, atol=2e-3, err_msg=name)
    assert len(fast.history) < 0.3 * len(plain.history)
    assert (np.diff(fast.history) >= -1e-9 * np.abs(fast.history[:-1])).all()


def test_validation_rows_choose_the_start_MvNormal():
    points = _rng.normal(size=(120, 3)) @ _rng.normal(size=(3, 3))
    train, held_out = bm.split(points, [0.7, 0.3], random_seed=1)
    fit = bm.fit_em(bm.Mixture(bm.MvNormal(), 3), train, validation=held_out, n_starts=6, random_seed=2)
    scores = [start["validation"] for start in fit.starts]
    np.testing.assert_allclose(fit.log_density(held_out).sum(), max(scores), rtol=1e-9)
    with pytest.raises(bm.DataError):
        bm.fit_em(bm.Mixture(bm.Normal(), 2), X, validation=["a"])


def test_the_trajectory_ends_at_the_fit_and_explains_the_history_Normal():
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, keep_trajectory=True, validation=X[::7], random_seed=1)
    path = fit.trajectory
    assert path.sizes["iteration"] == len(fit.history)
    np.testing.assert_array_equal(path["objective"], fit.history)
    last = path.isel(iteration=-1)
    for name, value in fit.params.items():
        np.testing.assert_allclose(last[name], value, rtol=1e-6)
    # the objective of a point on the way, by the fit's own bound
    step = path.isel(iteration=2)
    params = {name: step[name].values for name in fit.params}
    value = fit.bound.log_density(params, fit.encoded).sum() + fit.bound.log_prior(params)
    np.testing.assert_allclose(value, path["objective"][2], rtol=1e-12)
    np.testing.assert_allclose(last["validation"], fit.log_density(X[::7]).sum(), rtol=1e-9)
    assert bm.fit_em(bm.Mixture(bm.Normal(), 2), X, random_seed=1).trajectory is None


def test_threads_give_the_same_fit_Normal():
    x = np.tile(X, 20)
    one = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, n_starts=2, random_seed=1)
    two = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, n_starts=2, random_seed=1, n_jobs=2)
    np.testing.assert_array_equal(one.history, two.history)
    for name, value in one.params.items():
        np.testing.assert_array_equal(two.params[name], value)


def test_divergence_between_fits_is_that_of_the_distributions_Normal():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = bm.fit_em(bm.Normal(mu=0.0, sigma=1.0), X)
        b = bm.fit_em(bm.Normal(mu=1.0, sigma=2.0), X)
    exact = np.log(2) + (1 + 1) / 8 - 0.5
    np.testing.assert_allclose(a.kl_divergence(b, size=200_000, random_seed=1), exact, atol=0.01)
    assert abs(a.kl_divergence(a, size=10)) < 1e-12


def _waiting(n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(26)
    z = rng.choice(3, n_rows, p=[0.1, 0.3, 0.6])
    draws = [rng.exponential(5, n_rows), rng.exponential(10, n_rows), rng.lognormal(0.5, 1, n_rows)]
    return np.choose(z, draws)


@pytest.mark.parametrize("flat", [False, True])
def test_few_passes_lead_to_a_gradient_of_zero_on_a_curved_ridge_Exponential_LogNormal(flat):
    """Plain EM takes thousands; every pass of the winner counts, and the gradient is that of the PyMC model."""
    spec = bm.Mixture([bm.Exponential(), bm.Exponential(), bm.LogNormal()])
    spec = spec.with_flat_priors() if flat else spec
    for seed in (0, 4):
        fit = bm.fit_em(spec, _waiting(10_000), random_seed=seed)
        best = max(fit.starts, key=lambda start: start["objective"])
        assert best["status"] == "converged"
        assert best["iterations"] <= 65
        assert (np.diff(fit.history) >= -1e-12 * abs(fit.history[-1])).all()
    target = Target(model_of(fit.bound, fit.encoded), variables_at(fit.bound, fit.params), jacobian=False)
    assert np.abs(target(target.start)[1]).max() < 1e-6


def test_differences_of_the_m_steps_objective_are_the_gradient_of_the_log_posterior_MvNormal_Poisson():
    """Away from a mode, against differences of the log posterior itself."""
    table = {"v": list(_rng.normal(size=(80, 2))), "n": _rng.poisson(3, 80)}
    _, bound, encoded, weights, _ = prepare(bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 2), table, None)
    params = initial_params(bound, encoded, weights, np.random.default_rng(1), 1)
    complete, e_step = Complete(bound), EStep(bound, encoded, weights)
    u, stats = complete.coordinates.forward(params), e_step(params)[1]
    image = complete.coordinates.forward(bound.m_step(stats, params))
    found = complete.gradient(u, image, stats, params)

    def objective(point):
        values = complete.coordinates.backward(point, params)
        return e_step(values)[0] + bound.log_prior(values)

    slopes = [(objective(u + h) - objective(u - h)) / 2e-5 for h in 1e-5 * np.eye(len(u))]
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-4)


def test_inner_components_made_equal_are_told_apart_again_Normal():
    """A saddle flat to second order: inner means equal, each as wide as its rows. The outer labels are known by `y`."""
    rng = np.random.default_rng(3)
    z, g = rng.integers(2, size=600), rng.integers(2, size=600)
    table = {"x": rng.normal(10 * z + 5 * g, 1), "y": rng.poisson(1 + 20 * z)}
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2).with_flat_priors()
    best = bm.fit_em(spec, table, random_seed=0)
    start = {name: np.array(value) for name, value in best.params.items()}
    mean = (start["x_weights"] * start["x_mu"]).sum(1, keepdims=True)
    second = (start["x_weights"] * (start["x_sigma"] ** 2 + start["x_mu"] ** 2)).sum(1, keepdims=True)
    start["x_mu"], start["x_sigma"] = np.tile(mean, 2), np.tile(np.sqrt(second - mean**2), 2)
    for seed in range(4):
        fit = bm.fit_em(spec, table, start=start, random_seed=seed)
        assert fit.starts[0]["saddles"] >= 1
        np.testing.assert_allclose(fit.history[-1], best.history[-1], atol=1e-5)


def test_a_direction_that_leads_up_is_found_Normal():
    """Equal components whose rows have heavier tails than a normal's: the widths part at once. None at a mode."""
    spec = bm.Mixture(bm.Normal(), 2).with_flat_priors()
    heavy = _rng.standard_t(3, 500)
    _, bound, encoded, weights, _ = prepare(spec, heavy, None)
    e_step = EStep(bound, encoded, weights)
    saddle = {"weights": np.array([0.5, 0.5]), "mu": np.full(2, heavy.mean()), "sigma": np.full(2, heavy.std())}
    before = e_step(saddle)[0]
    assert max(e_step(point)[0] for point in ascents(e_step, saddle, np.random.default_rng(1))) > before + 1
    mode = bm.fit_em(spec, X, random_seed=1)
    at_mode = EStep(mode.bound, mode.encoded, np.ones(len(X)))
    assert list(ascents(at_mode, mode.params, np.random.default_rng(1))) == []


def test_starts_on_a_sample_keep_a_rare_component_and_all_rows_judge_Normal():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-3, 1, 30_000), rng.normal(3, 1, 30_000), rng.normal(15, 0.7, 120)])
    weights = rng.integers(1, 3, len(x)).astype(float)
    one = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, row_weights=weights, random_seed=1)
    two = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, row_weights=weights, random_seed=1, n_jobs=2)
    np.testing.assert_allclose(one.params["mu"], [-3, 3, 15], atol=0.3)
    np.testing.assert_array_equal(one.history, two.history)
    value = weights @ one.log_density(x) + one.bound.log_prior(one.params)
    np.testing.assert_allclose(one.history[-1], value, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.DegenerateWarning")
def test_counts_of_billions_do_not_fall_by_rounding():
    """Terms of 5e10 nats a row add up to -12: their last digits are no fall of the log posterior."""
    costs = [
        *(196551700.27207786, 12060167.933251267, 36098967.51226614, 5340361.596549689, 107020915.95344673),
        *(93880260.78000619, 93228809.03456827, 3729162.041475374, 27443287.836841445, 20017069.33575621),
        *(29322105.506727554, 212641549.51146388, 162975914.00321266, 577425.2424253821),
    ]
    counts = [None, 299989570, 300015345, 299989597, 1300038471, 2299992702, None]
    counts += [299993334, 1299967275, None, 2299969437, 2300129028, 2299956314, 300014430]
    answers = [[True] if i in (1, 3, 4, 5, 7, 13) else None for i in range(14)]
    fields = {
        "answers": bm.HierarchicalMixture(bm.Bernoulli(), n_topics=1, n_mixtures=2, length=bm.Geometric()),
        "cost": bm.Exponential(),
        "count": bm.Poisson(mu=pm.Gamma.dist(3, 1e-9)),
    }
    spec = bm.Mixture(bm.Composite(**fields), 3, weights=np.full(3, 1 / 3))
    table = {"answers": answers, "cost": costs, "count": counts}
    for seed in range(1, 6):
        assert np.isfinite(bm.fit_em(spec, table, random_seed=seed, n_starts=2).loglik)


class _Faulty(EStep):
    """A pass that goes wrong once: `fault(self, params, number)` returns what it says instead, or None."""

    fault = None
    number = 0

    def __call__(self, params):
        self.number += 1
        found = self.fault(params, self.number)
        return super().__call__(params) if found is None else found


def _pass(spec, data):
    _, bound, encoded, weights, _ = prepare(spec, data, None)
    e_step = _Faulty(bound, encoded, weights)
    return e_step, initial_params(bound, encoded, weights, np.random.default_rng(1), 1)


def test_a_log_posterior_that_falls_is_no_success():
    """EM cannot fall: where it does, a family's M-step is wrong, and the run says so."""
    e_step, start = _pass(bm.Mixture(bm.Normal(), 2), X)
    whole = EStep.__call__

    def falls(params, number):
        loglik, stats = whole(e_step, params)
        return (loglik - 5.0 * (number == 3), stats) if number <= 3 else None

    e_step.fault = falls
    run = Run(start)
    advance(e_step, run, 50, 1e-8)
    assert run.failed
    assert "failed: the log posterior fell by" in run.status
    assert len(run.history) == 2
    run.begin_again()
    assert run.failed  # what failed stays so
    assert run.objective == -np.inf


def test_a_leap_to_where_nothing_can_be_computed_is_taken_back():
    e_step, start = _pass(bm.Mixture(bm.Normal(), 2), OVERLAP)
    e_step.fault = lambda params, number: None
    whole, run, faults = Run(start), Run(start), []
    advance(e_step, whole, 500, 1e-8, accelerate=True)

    def singular(params, number):
        if run.plain is not None and len(faults) < 3:
            faults.append(number)
            raise np.linalg.LinAlgError("no density there")

    e_step.fault = singular
    advance(e_step, run, 500, 1e-8, accelerate=True)
    assert len(faults) == 3 <= run.rejected  # some leaps are too far by themselves
    assert whole.status == run.status == "converged"
    assert run.objective == pytest.approx(whole.objective, abs=1e-6)


@pytest.mark.parametrize("tol", [0, 1e-8])
@pytest.mark.parametrize("n_fields", [2, 9])
def test_a_start_with_probabilities_of_zero_goes_where_plain_em_goes(n_fields, tol):
    """A coordinate at the edge is infinite: there are neither gradients nor leaps, few parameters or many."""
    rng = np.random.default_rng(4)
    z = rng.integers(0, 2, 200)
    names = [f"f{j}" for j in range(n_fields)]
    table = {
        name: np.array(list("abc"))[np.where(rng.random(200) < 0.4, 2 * z, rng.integers(3, size=200))] for name in names
    }
    spec = bm.Mixture(bm.Composite({name: bm.Categorical() for name in names}), 2).with_flat_priors()
    bound = prepare(spec, table, None)[1]
    start, edge = {"weights": np.array([0.5, 0.5])}, 0.0
    for name in names:
        own = list(bound.site.children[0].children[names.index(name)].learned.levels)
        start[f"{name}_p"] = np.array([[0.6, 0.4 - edge, edge], [edge, 0.5 - edge, 0.5]])[
            :, ["abc".index(v) for v in own]
        ]
        edge = 0.1  # in the first field alone there are zeros
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # components that cannot be told apart are another matter
        fast = bm.fit_em(spec, table, start=start, tol=tol, random_seed=1)
        plain = bm.fit_em(spec, table, start=start, tol=1e-10, accelerate=False, max_iter=5000, random_seed=1)
    assert (np.diff(fast.history) >= -1e-9 * np.abs(fast.history[:-1])).all()
    assert fast.history[-1] >= plain.history[-1] - 1e-6


def test_a_spec_of_numbers_has_no_direction_to_look_in():
    e_step, params = _pass(bm.Normal(mu=0.0, sigma=1.0), X)
    e_step.fault = lambda params, number: None
    assert list(ascents(e_step, params, np.random.default_rng(0))) == []


def test_no_direction_is_looked_for_where_em_leads_nowhere():
    e_step, params = _pass(bm.Mixture(bm.Normal(), 2), X)
    stats = EStep.__call__(e_step, params)[1]
    nothing = {key: {name: np.full_like(value, np.nan) for name, value in own.items()} for key, own in stats.items()}
    e_step.fault = lambda params, number: (0.0, nothing)
    assert list(ascents(e_step, params, np.random.default_rng(0))) == []


def test_a_prior_that_rises_to_the_edge_has_its_mode_inside_where_samplers_start():
    """Beta(1/2, 1/2) and five times yes: the logit's density is p^(11/2) (1 - p)^(1/2), highest at p = 11/12."""
    spec = bm.Bernoulli(p=pm.Beta.dist(0.5, 0.5))
    _, bound, encoded, weights, _ = prepare(spec, [True] * 5, None)
    inside = with_mode_inside(bound)
    params = initial_params(inside, encoded, weights, np.random.default_rng(0), 0)
    _, stats = EStep(inside, encoded, weights)(params)
    np.testing.assert_allclose(inside.m_step(stats, params)["p"], 5.5 / 6, rtol=1e-12)
    np.testing.assert_allclose(bound.m_step(stats, params)["p"], 1.0, rtol=1e-12)  # where EM would go
