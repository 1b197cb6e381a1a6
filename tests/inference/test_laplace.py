"""Laplace's approximation, importance weights and the rank of the information, against integrals and algebra."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pymc as pm
import pytest
from scipy import integrate, stats

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.errors import ApproximationWarning
from bayesmix.inference.advi import _FullRank, ascend
from bayesmix.inference.laplace import information_rank, laplace_of, log_mass
from bayesmix.inference.map import climb
from bayesmix.inference.minibatch import Batches, Climb
from bayesmix.progress import Progress
from bayesmix.psis import importance

REFERENCE = Path(__file__).parent.parent / "reference"
_rng = np.random.default_rng(2)
Y = _rng.normal(1.5, 2.0, 12)
GROUP = _rng.integers(0, 2, 400)
SEPARATED = np.array([-4.0, 4.0])[GROUP] + _rng.normal(size=400)


def close_pair(seed):
    """The hundred points of a course page on two close Gaussians, with a seed of our own."""
    rng = np.random.default_rng(seed)
    return rng.normal(np.where(rng.integers(0, 2, 100), 1.0, -1.0), 1)


def test_laplace_is_exact_where_the_posterior_is_normal_Normal():
    """Known sigma, normal prior on mu: posterior and evidence in closed form."""
    spec = bm.Normal(mu=pm.Normal.dist(0.5, 3.0), sigma=2.0)
    precision = len(Y) / 4 + 1 / 9
    mean = (Y.sum() / 4 + 0.5 / 9) / precision
    evidence = stats.multivariate_normal(np.full(12, 0.5), 4 * np.eye(12) + 9.0).logpdf(Y)
    fit = bm.fit_laplace(spec, Y, draws=4000, random_seed=1)
    assert fit.status.converged
    assert fit.pareto_k < 0.1
    np.testing.assert_allclose(fit.posterior["mu"].mean(), mean, atol=4 * (4000 * precision) ** -0.5)
    np.testing.assert_allclose(fit.posterior["mu"].std(), precision**-0.5, rtol=0.03)
    found, _ = laplace_of(fit.bound, fit.encoded, fit.params)
    np.testing.assert_allclose(found.log_mass, evidence, atol=1e-5)


@pytest.mark.slow
def test_importance_weights_give_the_evidence_of_a_brute_force_integral_Normal():
    """Two parameters, the posterior far from normal: a quadrature on the declared scale is the oracle."""
    y = Y[:5]
    spec = bm.Normal(mu=pm.Normal.dist(0.0, 5.0), sigma=pm.HalfNormal.dist(3.0))

    mu, sigma = np.linspace(-20, 20, 2001)[:, None], np.linspace(0.02, 18, 1500)
    prior = stats.norm(0, 5).pdf(mu) * stats.halfnorm(scale=3).pdf(sigma)
    density = prior * np.exp(sum(stats.norm(mu, sigma).logpdf(value) for value in y))
    evidence, moment = (
        integrate.trapezoid(integrate.trapezoid(each, mu[:, 0], axis=0), sigma) for each in (density, sigma * density)
    )
    _, bound, encoded, _, _ = prepare(spec, y, None)
    fit = bm.fit_laplace(spec, y, draws=8000, random_seed=1)
    laplace, target = laplace_of(bound, encoded, fit.params)
    z = np.random.default_rng(1).standard_normal((20_000, 2))
    log_q = stats.multivariate_normal(np.zeros(2)).logpdf(z) - np.linalg.slogdet(laplace.factor)[1]
    found = importance(np.array([target(laplace.point + laplace.factor @ each)[0] for each in z]), log_q)
    np.testing.assert_allclose(found.log_evidence, np.log(evidence), atol=0.02)
    # the plain approximation is off by more than the corrected one may be
    assert abs(laplace.log_mass - np.log(evidence)) > 0.03
    assert fit.pareto_k < 0.7
    np.testing.assert_allclose(fit.posterior["sigma"].mean(), moment / evidence, rtol=0.03)
    raw = bm.fit_laplace(spec, y, draws=8000, random_seed=1, correct=False)
    assert abs(float(raw.posterior["sigma"].mean()) - moment / evidence) > 0.05 * moment / evidence


def test_pareto_k_of_known_tails():
    """Weights x**a of uniform x have a Pareto tail of shape a by construction."""
    x = np.random.default_rng(0).random(40_000)
    for shape in (0.3, 0.9):
        found = importance(-shape * np.log(x), np.zeros(40_000))
        assert abs(found.pareto_k - shape) < 0.1
        assert found.trusted == (shape < 0.7)
        np.testing.assert_allclose(np.exp(found.log_weights).sum(), 1)


def test_weights_that_are_nearly_equal_are_no_alarm_Normal():
    """Their tail may have any shape: here k was 1.35, and no weight more than 1.06 times the mean."""
    x = np.random.default_rng(0).normal(1, 1, 25)
    grid = np.linspace(-1, 3, 4001)
    density = stats.skewnorm(5).pdf(grid) * stats.norm(x.mean(), 0.2).pdf(grid)
    mean = np.average(grid, weights=density)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=density))
    fit = bm.fit_advi(bm.Normal(mu=pm.SkewNormal.dist(mu=0, sigma=1, alpha=5), sigma=1.0), x, random_seed=1)
    assert fit.pareto_k == -np.inf
    assert fit.status.converged
    assert "importance weights all alike" in fit.status.message
    drawn = fit.posterior["mu"].values
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [mean, sd], atol=0.1 * sd)  # of 500 mirrored pairs


def test_a_large_table_is_no_alarm_Poisson():
    """The posterior of 2,000 rows is normal to a hundredth; k of its weights was 1.2."""
    rng = np.random.default_rng(0)
    x = rng.poisson(np.repeat([3.0, 15.0], 1000))
    assert bm.fit_advi(bm.Mixture(bm.Poisson(), 2), x, random_seed=0).status.converged


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_of_little_mass_is_an_alarm(seed):
    """A hundredth of the mass, ten times as wide."""
    x = stats.norm.rvs(size=16_000, random_state=seed)
    log_target = np.logaddexp(np.log(0.99) + stats.norm.logpdf(x), np.log(0.01) + stats.norm.logpdf(x, scale=10))
    assert not importance(log_target, stats.norm.logpdf(x)).trusted


def test_draws_without_weight_are_not_alike():
    """A tenth of the draws lie outside the support, the weights of the others differ by a thousandth, with a tail."""
    log_target = np.log1p(1e-4 * np.random.default_rng(0).pareto(1.2, 4000))
    assert importance(log_target, np.zeros(4000)).pareto_k == -np.inf
    log_target[::10] = -np.inf
    assert importance(log_target, np.zeros(4000)).pareto_k > -np.inf


def test_resampling_gives_draws_as_often_as_their_weights_say():
    raw = np.random.default_rng(0).normal(size=500)
    found = importance(raw, np.zeros(500))
    counts = np.bincount(found.resample(2000, np.random.default_rng(0)), minlength=500)
    assert (np.abs(counts - np.exp(found.log_weights) * 2000) <= 1).all()
    most = np.argsort(raw)[:400]  # those that are not smoothed keep their ratios
    np.testing.assert_allclose(np.diff(found.log_weights[most]), np.diff(raw[most]), atol=1e-9)
    nothing = importance(np.full(5, -np.inf), np.zeros(5))
    assert not nothing.trusted
    assert importance(np.zeros(5), np.zeros(5)).trusted  # q is the target


def test_a_mode_without_curvature_has_no_mass():
    assert np.isnan(log_mass(0.0, np.diag([-1.0, 0.0])))
    assert np.isnan(log_mass(0.0, np.diag([-1.0, 2.0])))
    assert np.isnan(log_mass(0.0, -np.ones((2, 2))))
    # units do not matter, only what is flat beside its own scale
    assert np.isfinite(log_mass(0.0, np.diag([-1e-12, -1e12])))


@pytest.mark.parametrize("method", ["laplace", "advi"])
def test_well_separated_components_need_no_nuts_Normal(method):
    """Standard deviations within 20 % of the ones for known labels: normal about its mean, chi-squared for sigma."""
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), SEPARATED, method=method, random_seed=1)
    assert fit.status.converged
    assert fit.pareto_k < 0.5
    for k in (0, 1):
        own = SEPARATED[GROUP == k]
        sd = fit.posterior.isel(component=k).std(("chain", "draw"))
        np.testing.assert_allclose(sd["mu"], own.std() / np.sqrt(len(own)), rtol=0.2)
        np.testing.assert_allclose(sd["sigma"], own.std() / np.sqrt(2 * len(own)), rtol=0.2)


@pytest.mark.parametrize("method", ["laplace", "advi"])
def test_the_close_pair_is_flagged_Normal(method):
    with pytest.warns(ApproximationWarning, match="Pareto k"):
        fit = bm.fit(bm.Mixture(bm.Normal(), 2), close_pair(2), method=method, random_seed=1)
    assert fit.pareto_k >= 0.7
    assert not fit.status.converged
    assert "fit_nuts" in fit.status.message


def test_draws_keep_their_number_and_their_seed():
    spec = bm.Mixture(bm.Normal(), 2)
    first, second = (bm.fit_laplace(spec, SEPARATED, draws=7, random_seed=3) for _ in range(2))
    assert first.posterior.sizes["draw"] == 7
    np.testing.assert_array_equal(first.posterior["mu"], second.posterior["mu"])
    with pytest.raises(ValueError, match="draws: a whole number of at least 1"):
        bm.fit_laplace(spec, SEPARATED, draws=0)


def test_pareto_k_and_modes_are_saved(tmp_path):
    fit = bm.fit_laplace(bm.Mixture(bm.Normal(), 2), SEPARATED, draws=50, random_seed=1)
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert again.pareto_k == fit.pareto_k
    assert len(again.modes) == len(fit.modes)
    np.testing.assert_array_equal(again.modes[0].params["mu"], fit.modes[0].params["mu"])


@pytest.mark.slow
def test_advi_by_minibatches_agrees_with_all_rows_Normal_Poisson():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 6000)
    table = {"x": np.array([-3.0, 3.0])[group] + rng.normal(size=6000), "n": rng.poisson(np.array([2, 9])[group])}
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson()), 2)
    settings = {"random_seed": 1, "correct": False, "log_likelihood": False, "draws": 4000}
    full, part = (bm.fit_advi(spec, table, minibatch=size, **settings) for size in (None, 1000))
    assert part.status.converged
    for name in full.bound.free_slots:
        sd = full.posterior[name].std(("chain", "draw"))
        gap = (full.posterior[name] - part.posterior[name]).mean(("chain", "draw"))
        assert (np.abs(gap) < 0.1 * sd).all(), name
        np.testing.assert_allclose(part.posterior[name].std(("chain", "draw")), sd, rtol=0.1, err_msg=name)
    with pytest.raises(ValueError, match="minibatch: a whole number of at least 1"):
        bm.fit_advi(spec, table, minibatch=0)


def values(n_components, flat):
    columns = json.loads((REFERENCE / "values.json").read_text())["columns"]
    spec = bm.Mixture(bm.Composite(**{name: bm.Categorical() for name in columns}), n_components)
    return bm.fit_em(spec.with_flat_priors() if flat else spec, columns, random_seed=1, max_iter=1000)


@pytest.mark.filterwarnings("ignore:EM stopped at max_iter")  # it creeps along what is not identified
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.slow
def test_latent_classes_of_values_are_identified_for_two_and_not_for_three_Categorical(flat):
    """Published: 14 parameters, and a Jacobian of rank 13; for two classes a log-likelihood of -504.46767 (poLCA)."""
    two, three = values(2, flat), values(3, flat)
    assert information_rank(two.bound, two.params, two.encoded) == (9, 9)
    assert information_rank(three.bound, three.params, three.encoded) == (13, 14)
    if flat:
        np.testing.assert_allclose(two.loglik, -504.46767, atol=1e-3)


def test_a_model_of_seven_questions_is_identified_though_few_patterns_were_seen_Categorical():
    columns = json.loads((REFERENCE / "carcinoma.json").read_text())["columns"]
    spec = bm.Mixture(bm.Composite(**{name: bm.Categorical() for name in columns}), 3)
    fit = bm.fit_em(spec, columns, random_seed=1)
    assert information_rank(fit.bound, fit.params, fit.encoded) == (23, 23)


def test_the_rank_counts_what_rows_can_tell_Normal_MvNormal():
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), 1e6 + 1e-3 * SEPARATED, random_seed=1)
    assert information_rank(fit.bound, fit.params, fit.encoded) == (5, 5)  # whatever the unit
    params = {**fit.params, "mu": np.zeros(2) + fit.params["mu"][0], "sigma": np.zeros(2) + fit.params["sigma"][0]}
    rank, n_free = information_rank(fit.bound, params, fit.encoded)
    assert rank < n_free == 5  # of equal components nothing tells the weights
    vectors = np.column_stack([SEPARATED, np.random.default_rng(0).normal(size=400)])
    fit = bm.fit_em(bm.Mixture(bm.MvNormal(), 2), vectors, random_seed=1)
    assert information_rank(fit.bound, fit.params, fit.encoded) == (11, 11)


# ------------------------------------------------------------ minibatches


def _many(n: int = 6000) -> np.ndarray:
    rng = np.random.default_rng(12)
    return rng.normal(np.where(rng.random(n) < 0.4, -1.5, 1.5), 1.0)


def test_batches_are_unbiased_and_the_control_variate_takes_noise_away():
    """The mean over all batches is the whole posterior's gradient, exactly, at any point."""
    x, spec = _many(), bm.Mixture(bm.Normal(), 2)
    fit = bm.fit_em(spec, x, n_starts=2, random_seed=1)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(x))
    _, full = laplace_of(fit.bound, fit.encoded, fit.params, weights)
    rng = np.random.default_rng(2)
    batches = Batches(fit.bound, fit.encoded, weights, 1000, fit.params, full, None, rng)
    u = full.start + 0.02 * rng.standard_normal(len(full.start))
    values, gradients = [], []
    for number in range(len(batches.rows)):
        batches.take(number)
        value, gradient = batches(u)
        values.append(value)
        gradients.append(gradient)
    expected = full(u)
    np.testing.assert_allclose(np.mean(values), expected[0], rtol=1e-10)
    np.testing.assert_allclose(np.mean(gradients, axis=0), expected[1], rtol=1e-6, atol=1e-5)
    plain = [gradient - batches.offsets[number][1] for number, gradient in enumerate(gradients)]
    assert (np.std(gradients, axis=0) < 0.2 * np.std(plain, axis=0)).all()


def test_minibatches_resume_to_the_last_bit_and_report_their_noise(tmp_path, monkeypatch):
    x, spec = _many(), bm.Mixture(bm.Normal(), 2)
    settings = {"minibatch": 1000, "n_starts": 2, "draws": 200, "random_seed": 3}
    whole = bm.fit_advi(spec, x, checkpoint=tmp_path / "whole", **settings)
    noise = whole.idata["variational"]
    assert (noise["gradient_sd"] < 0.5 * noise["gradient_sd_without_control"]).all()
    write = Climb.write

    def stops(self, path, about):
        write(self, path, about)
        if len(self.history) == 2:
            raise RuntimeError("stopped")

    monkeypatch.setattr(Climb, "write", stops)
    with pytest.raises(RuntimeError, match="stopped"):
        bm.fit_advi(spec, x, checkpoint=tmp_path / "run", **settings)
    monkeypatch.setattr(Climb, "write", write)
    resumed = bm.fit_advi(spec, x, resume=tmp_path / "run", **{**settings, "random_seed": None})
    np.testing.assert_array_equal(resumed.history, whole.history)
    for name in whole.posterior:
        np.testing.assert_array_equal(resumed.posterior[name], whole.posterior[name])
    with pytest.raises(bm.DataError, match="another table"):
        bm.fit_advi(spec, x + 1, resume=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match="minibatch=1000"):
        bm.fit_advi(spec, x, resume=tmp_path / "run", **{**settings, "minibatch": 500})
    with pytest.raises(bm.DataError, match=r"spec='Mixture\(Normal\(\), 2\)'"):  # numpy's complaint of shapes
        bm.fit_advi(bm.Mixture(bm.Normal(), 3), x, resume=tmp_path / "run", **settings)
    with pytest.raises(bm.DataError, match=r"spec="):  # a climb that ended under another prior was the result
        bm.fit_advi(bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 0.01)), 2), x, resume=tmp_path / "run", **settings)
    with pytest.raises(ValueError, match="Pass minibatch="):
        bm.fit_advi(spec, x, checkpoint=tmp_path / "other")


def test_minibatches_say_what_needs_all_rows():
    counts, rng = np.array([3, 3, 0, 5, 3, 1, 3, 4, 2, 3] * 4), np.random.default_rng(1)
    fit = bm.fit_em(bm.Mixture(bm.SpikeAndSlab(), 2), counts, n_starts=2, random_seed=1)
    _, full = laplace_of(
        fit.bound.held({name: fit.params[name] for name in fit.bound.discrete_slots}), fit.encoded, fit.params
    )
    with pytest.raises(bm.SpecError, match=r"minibatch: .* must be judged by all rows\. Leave it out"):
        Batches(fit.bound, fit.encoded, np.ones(40), 10, fit.params, full, None, rng)
    vectors = rng.normal(size=(60, 2))
    vectors[::7, 1] = np.nan
    with pytest.raises(bm.SpecError, match=r"vectors that lack coordinates need all rows\. Leave it out"):
        bm.fit_advi(bm.Mixture(bm.MvNormal(), 1), vectors, minibatch=20, n_starts=1, random_seed=1)


def test_a_climb_is_read_as_it_was_written_and_nothing_else_is(tmp_path):
    for before in (None, np.array([0.5, 0.25])):
        climb = Climb(np.array([1.0, 2.0]), np.ones(2), np.full(2, 3.0), before, [-3.0], np.array([4, 1]), 7, True)
        climb.write(tmp_path / "run", {"minibatch": 5})
        found, about = Climb.read(tmp_path / "run")
        assert about == {"minibatch": 5}
        assert (found.step, found.settled, found.history, found.generator) == (7, True, [-3.0], {})
        assert (found.before is None) == (before is None)
        for name in ("lam", "first", "second", "order", "before"):
            np.testing.assert_array_equal(getattr(found, name), getattr(climb, name))
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        bm.fit_advi(bm.Mixture(bm.Normal(), 2), Y, minibatch=5, resume=tmp_path / "nothing")


def test_one_batch_has_no_noise_and_gives_the_whole_posterior():
    spec = bm.Mixture(bm.Normal(), 2)
    settings = {"n_starts": 2, "draws": 200, "random_seed": 3}
    fit = bm.fit_advi(spec, SEPARATED, minibatch=1000, **settings)
    assert (fit.idata["variational"]["gradient_sd"] == 0).all()
    assert (fit.idata["variational"]["gradient_sd_without_control"] == 0).all()
    whole = bm.fit_advi(spec, SEPARATED, **settings)
    for name in ("mu", "sigma", "weights"):
        sd = whole.posterior[name].std(("chain", "draw"))
        gap = fit.posterior[name].mean(("chain", "draw")) - whole.posterior[name].mean(("chain", "draw"))
        assert (abs(gap) < 0.3 * sd).all()


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ApproximationWarning")
def test_a_climb_that_is_cut_short_is_not_converged():
    with pytest.warns(bm.ConvergenceWarning, match="ADVI stopped after 1 iterations before the bound settled"):
        fit = bm.fit_advi(bm.Mixture(bm.Normal(), 2), close_pair(1), max_iter=1, n_starts=2, random_seed=1, draws=50)
    assert not fit.status.converged
    assert "ADVI (fullrank) stopped after 1" in fit.status.message


def test_nothing_to_integrate_has_the_mass_of_its_value():
    assert log_mass(-2.5, np.zeros((0, 0))) == -2.5
    assert np.isnan(log_mass(-2.5, np.diag([-1.0, 0.0])))


def test_rows_without_weight_tell_nothing_of_the_rank():
    """Of the rows with weight all are one number: the location and the scale are told by nothing."""
    x = np.concatenate([np.full(10, 1.0), Y])
    fit = bm.fit_em(bm.Normal(), x, random_seed=1)
    weights = (np.arange(len(x)) < 10).astype(float)
    assert information_rank(fit.bound, fit.params, fit.encoded) == (2, 2)
    alone = bm.fit_em(bm.Normal(), x, random_seed=1).encoded.take(np.arange(10))
    found = information_rank(fit.bound, fit.params, fit.encoded, weights)
    assert found == information_rank(fit.bound, fit.params, alone)


def test_newtons_method_gives_up_after_a_few_steps_on_a_flat_top():
    """On -u^4 a step takes a third of the way, so that five leave much of it."""

    class Quartic:
        def __call__(self, u):
            return float(-(u**4).sum()), -4 * u**3

        def hessian(self, u):
            return np.diag(-12 * u**2)

    u, history, converged = climb(Quartic(), np.array([100.0]), 1)
    assert not converged
    assert 0 < abs(u[0]) < 100
    assert (np.diff(history) > 0).all()
    assert history[-1] == pytest.approx(-(u[0] ** 4))


def test_a_bound_that_is_no_number_is_climbed_away_from():
    """Where the log density is -inf at a point, the step there is taken back."""

    class Half:
        start = np.array([1.0])

        def __call__(self, u):
            return (float(-0.5 * (u[0] - 3) ** 2), 3 - u) if u[0] < 7 else (-np.inf, np.zeros(1))

        def hessian(self, u):
            return np.array([[-1.0]])

    family = _FullRank(Half(), Half.start)
    points = np.array([[-1.0], [1.0]])
    with Progress("", None, False) as progress:
        found, history, converged = ascend(Half(), family, points, 100, 1e-8, progress)
    assert converged
    np.testing.assert_allclose(family.transform(found, points).mean(), 3, atol=1e-3)
    far = _FullRank(Half(), np.array([9.0]))
    with Progress("", None, False) as progress:
        _, history, converged = ascend(Half(), far, points, 100, 1e-8, progress)
    assert not converged
    assert history == [-1e300]
