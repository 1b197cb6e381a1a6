"""What the engines promise, one by one and of each other."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.errors import ConvergenceWarning

_rng = np.random.default_rng(5)
_GROUP = np.repeat([0, 1], 60)
X = np.array([-4.0, 4.0])[_GROUP] + _rng.normal(size=120)
_SUB = np.tile([0, 0, 1], 40)
TABLE = {
    "x": X,
    "deep": np.array([[-30.0, -10.0], [10.0, 35.0]])[_GROUP, _SUB] + _rng.normal(size=120),
    "n": _rng.poisson(np.array([2.0, 20.0])[_GROUP]),
    "v": np.array([[0.0, 0.0], [7.0, -5.0]])[_GROUP] + _rng.normal(size=(120, 2)),
    "c": np.array(["u", "v", "w"], object)[_rng.integers(0, 3, 120)],
    "b": _rng.random(120) < np.array([0.3, 0.8])[_GROUP],
}
C, M = bm.Composite, bm.Mixture

AGREE = {
    "Mixture-Normal": (M(bm.Normal(), 2), X),
    "Mixture-Poisson": (M(bm.Poisson(), 2), TABLE["n"]),
    "Mixture-MvNormal": (M(bm.MvNormal(), 2), TABLE["v"]),
    "Mixture-Normal-HalfNormal": (M(bm.Normal(sigma=pm.HalfNormal.dist(3.0)), 2), X),
    "Mixture-Composite-Normal-Categorical-Bernoulli": (
        M(C(x=bm.Normal(), c=bm.Categorical(), b=bm.Bernoulli()), 2),
        TABLE,
    ),
    "Mixture-Composite-Mixture-Normal-Poisson": (M(C(deep=M(bm.Normal(), 2), n=bm.Poisson()), 2), TABLE),
    "Composite-Normal-Poisson": (C(x=bm.Normal(), n=bm.Poisson()), TABLE),
    "Mixture-Normal-flat": (M(bm.Normal(), 2).with_flat_priors(), X),
}


@pytest.mark.parametrize("name", AGREE)
def test_map_is_ems_mode(name):
    spec, data = AGREE[name]
    em = bm.fit_em(spec, data, random_seed=1, n_starts=4, tol=1e-13)
    found = bm.fit_map(spec, data, random_seed=1, n_starts=4)
    assert em.status.converged
    assert found.status.converged
    for parameter, value in em.params.items():
        np.testing.assert_allclose(found.params[parameter], value, rtol=1e-6, atol=1e-6, err_msg=parameter)
    np.testing.assert_allclose(found.loglik, em.loglik, rtol=1e-9)
    # the last digits of the objective may go either way
    assert found.history[-1] >= em.history[-1] - 1e-9 * abs(em.history[-1])


def test_map_finds_the_maximum_that_scipy_finds_Normal():
    """By Nelder-Mead on scipy's densities of likelihood and declared priors, no gradient and no EM."""
    from scipy.optimize import minimize
    from scipy.stats import beta, invgamma, norm

    spec = M(bm.Normal(mu=pm.Normal.dist(0.0, 10.0), sigma=pm.InverseGamma.dist(3.0, 4.0)), 2)
    fit = bm.fit_em(spec, X, random_seed=1, tol=1e-12)

    def negative(u):
        w, mu, sigma = 1 / (1 + np.exp(-u[0])), u[1:3], np.exp(u[3:5])
        joint = np.log([w, 1 - w]) + norm.logpdf(X[:, None], mu, sigma)
        prior = beta.logpdf(w, 2, 2) + norm.logpdf(mu, 0, 10).sum() + invgamma.logpdf(sigma, 3, scale=4).sum()
        return -(np.logaddexp.reduce(joint, axis=1).sum() + prior)

    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000, "adaptive": True}
    best = minimize(negative, [0.1, -3.0, 3.0, 0.2, 0.1], method="Nelder-Mead", options=options)
    # flat to rounding at the mode: parameters to the root of the objective's 1e-13
    np.testing.assert_allclose(fit.history[-1], -best.fun, rtol=1e-9)
    np.testing.assert_allclose(fit.params["mu"], best.x[1:3], atol=1e-5)
    np.testing.assert_allclose(fit.params["sigma"], np.exp(best.x[3:5]), atol=1e-5)
    np.testing.assert_allclose(fit.params["weights"][0], 1 / (1 + np.exp(-best.x[0])), atol=1e-5)


# ------------------------------------------------------------------- EM


def test_starts_are_reported():
    fit = bm.fit_em(M(bm.Normal(), 2), X, n_starts=7, random_seed=1)
    assert len(fit.starts) == 7
    assert all(set(start) == {"objective", "status", "iterations"} for start in fit.starts)
    np.testing.assert_allclose(max(start["objective"] for start in fit.starts), fit.history[-1])
    assert fit.status.engine == "em"
    assert "converged" in str(fit.status)


def test_a_seed_gives_the_same_fit():
    spec = M(C(x=bm.Normal(), n=bm.Poisson()), 2)
    for seed in (3, np.random.SeedSequence(3)):
        a, b = (bm.fit_em(spec, TABLE, n_starts=3, random_seed=seed) for _ in range(2))
        for name, value in a.params.items():
            np.testing.assert_array_equal(b.params[name], value)
    a, b = (bm.fit_em(spec, TABLE, n_starts=3, random_seed=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(a.params["x_mu"], b.params["x_mu"])


def test_a_warning_at_max_iter():
    spec = M(bm.Normal(), 3)
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        fit = bm.fit_em(spec, X, max_iter=3, random_seed=1)
    assert not fit.status.converged
    assert "max_iter" in fit.status.message
    assert len(fit.history) == 3


def test_start_is_where_em_starts():
    start = {"weights": [0.5, 0.5], "mu": [-1.0, 1.0], "sigma": [2.0, 2.0]}
    with pytest.warns(ConvergenceWarning):
        fit = bm.fit_em(M(bm.Normal(mu=0.0), 2).with_flat_priors(), X, start={**start, "sigma": [1.0, 3.0]}, max_iter=1)
    assert len(fit.starts) == 1
    fit = bm.fit_em(M(bm.Normal(), 2), X, start=start)
    from scipy.stats import norm

    joint = np.log(0.5) + norm.logpdf(X[:, None], [-1.0, 1.0], 2.0)
    before = fit.history[0] - fit.bound.log_prior({name: np.array(value) for name, value in start.items()})
    np.testing.assert_allclose(before, np.logaddexp.reduce(joint, axis=1).sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("start", "needles"),
    [
        ({"weights": [0.5, 0.5], "mu": [0.0, 1.0]}, ["sigma", "missing"]),
        ({"weights": [0.5, 0.5], "mu": [0.0], "sigma": [1.0, 1.0]}, ["mu", "(1,)", "(2,)"]),
        ({"weights": [0.5, 0.4], "mu": [0.0, 1.0], "sigma": [1.0, -1.0]}, ["weights", "sigma", "2 faults"]),
    ],
)
def test_a_bad_start(start, needles):
    with pytest.raises(bm.SpecError) as caught:
        bm.fit_em(M(bm.Normal(), 2), X, start=start)
    assert all(needle in str(caught.value) for needle in needles), str(caught.value)


def test_a_start_of_names_that_are_not_there():
    """A misspelt parameter went by unseen, and one that is fixed in the spec may stand in a start."""
    start = {"weights": [0.5, 0.5], "mu": [0.0, 1.0], "sigma": [1.0, 1.0]}
    with pytest.raises(bm.SpecError, match=r"^start: no parameter is called 'muu'\. Did you mean mu\?$"):
        bm.fit_em(M(bm.Normal(), 2), X, start={**start, "muu": 1.0})
    with pytest.raises(bm.SpecError, match=r"'location'\. There are weights, mu, sigma\."):
        bm.fit_online(M(bm.Normal(), 2), X, start={**start, "location": 1.0})
    assert bm.fit_em(M(bm.Normal(sigma=1.0), 2), X, start=start).params["sigma"].tolist() == [1.0, 1.0]


def test_a_start_that_is_no_dict():
    fit = bm.fit_em(M(bm.Normal(), 2), X, random_seed=1)
    with pytest.raises(TypeError, match=r"^start: a dict of parameters is needed, not Fit\. Pass start=fit\.params\.$"):
        bm.fit_em(M(bm.Normal(), 2), X, start=fit)
    with pytest.raises(TypeError, match=r"^start: a dict of parameters is needed, not list\.$"):
        bm.fit_map(M(bm.Normal(), 2), X, start=[0.0, 1.0])
    again = bm.fit_em(M(bm.Normal(), 2), X, start=fit.params)
    np.testing.assert_allclose(again.params["mu"], fit.params["mu"], rtol=1e-4)


def test_no_starts():
    with pytest.raises(ValueError, match="n_starts"):
        bm.fit_em(M(bm.Normal(), 2), X, n_starts=0)


def test_components_come_in_order_of_location_Normal_Poisson():
    for seed in range(4):
        assert (np.diff(bm.fit_em(M(bm.Normal(), 3), X, n_starts=2, random_seed=seed).params["mu"]) > 0).all()
        assert (np.diff(bm.fit_em(M(bm.Poisson(), 2), TABLE["n"], n_starts=2, random_seed=seed).params["mu"]) > 0).all()


def test_reordering_does_not_change_the_density_Mixture_Composite_Mixture():
    spec = M(C(deep=M(bm.Normal(), 2), n=bm.Poisson()), 2)
    fit = bm.fit_em(spec, TABLE, n_starts=3, random_seed=1, tol=1e-12)
    # history is of the run before its components were put in order
    value = fit.loglik + fit.bound.log_prior(fit.params)
    np.testing.assert_allclose(value, fit.history[-1], rtol=1e-9)
    assert (np.diff(fit.params["deep_mu"], axis=1) > 0).all()
    assert (np.diff(fit.params["weights"]) <= 0).all()


@pytest.mark.filterwarnings("ignore:.*a spike:bayesmix.errors.DegenerateWarning")
def test_a_collapse_under_flat_priors_is_an_error_that_says_so_Normal():
    tied = np.concatenate([np.zeros(10), np.random.default_rng(0).normal(50, 1, 10)])
    # an error, or a warning (which pytest makes an error); never a quiet sigma of 3e-7 (the likelihood has no maximum)
    with pytest.raises((bm.SpecError, bm.DegenerateWarning), match="default priors"):
        bm.fit_em(M(bm.Normal(), 2).with_flat_priors(), tied, random_seed=1)


def test_em_does_not_estimate_a_users_own_variables():
    with pm.Model():
        spread = pm.HalfNormal("spread", 3.0)
        spec = M(bm.Normal(sigma=pm.HalfNormal.dist(spread)), 2)
        with pytest.raises(bm.SpecError, match=r"sigma.*build_model"):
            bm.fit_em(spec, X)


# ------------------------------------------------------------------- the one verb


def test_fit_passes_on_what_its_method_takes():
    a = bm.fit(M(bm.Normal(), 2), X, n_starts=3, random_seed=1)
    b = bm.fit_em(M(bm.Normal(), 2), X, n_starts=3, random_seed=1)
    np.testing.assert_array_equal(a.params["mu"], b.params["mu"])
    assert bm.fit(M(bm.Poisson(), 2), TABLE["n"], method="map", n_starts=2, random_seed=1).status.engine == "map"


@pytest.mark.parametrize("method", ["em", "map", "advi"])
def test_fit_names_the_keyword_that_its_method_does_not_take(method):
    with pytest.raises(TypeError) as caught:
        bm.fit(M(bm.Normal(), 2), X, method=method, colour="red", n_starts=2)
    for needle in ("colour", f"fit_{method}", "n_starts", "random_seed"):
        assert needle in str(caught.value)


def test_an_unknown_method():
    with pytest.raises(ValueError, match=r"em, map, nuts, advi.*'gibbs'"):
        bm.fit(M(bm.Normal(), 2), X, method="gibbs")


def test_unknown_choices_of_the_engines():
    with pytest.raises(ValueError, match="nuts_sampler"):
        bm.fit_nuts(M(bm.Normal(), 2), X, nuts_sampler="stan")
    with pytest.raises(ValueError, match="approximation"):
        bm.fit_advi(M(bm.Normal(), 2), X, approximation="lowrank")


# ------------------------------------------------------------------- sampling (these compile)


WELL_SEPARATED = M(bm.Normal(), 2)


@pytest.mark.slow
def test_nuts_agrees_with_the_mode_Normal():
    mode = bm.fit_em(WELL_SEPARATED, X, random_seed=1)
    fit = bm.fit_nuts(WELL_SEPARATED, X, draws=1000, tune=500, chains=4, cores=2, random_seed=1)
    assert fit.status.converged, fit.status
    assert "R-hat" in fit.status.message
    assert fit.posterior.sizes == {"chain": 4, "draw": 1000, "component": 2}
    assert fit.idata["log_likelihood"]["row_loglik"].shape == (4, 1000, 120)
    assert "diverging" in fit.idata["sample_stats"]
    posterior = fit.posterior
    for name in ("mu", "weights", "sigma"):
        mean = posterior[name].mean(("chain", "draw")).values
        sd = posterior[name].std(("chain", "draw")).values
        # the posterior of 60 rows a component is near normal: mean and mode lie within a fraction of its sd
        assert (np.abs(mean - mode.params[name]) < 0.35 * sd).all(), name
    # in a well separated mixture sd(mu) is sigma / sqrt(n) up to the priors' weight
    np.testing.assert_allclose(
        posterior["mu"].std(("chain", "draw")).values, mode.params["sigma"] / np.sqrt(60), rtol=0.15
    )


@pytest.mark.slow
@pytest.mark.parametrize("approximation", ["fullrank", "meanfield"])
def test_advi_agrees_with_the_mode_Normal(approximation):
    mode = bm.fit_em(WELL_SEPARATED, X, random_seed=1)
    fit = bm.fit_advi(WELL_SEPARATED, X, approximation=approximation, draws=2000, random_seed=1)
    assert fit.status.converged, fit.status
    assert fit.history[-1] >= fit.history[0]
    posterior = fit.posterior
    for name in ("mu", "weights", "sigma"):
        mean = posterior[name].mean(("chain", "draw")).values
        sd = posterior[name].std(("chain", "draw")).values
        assert (np.abs(mean - mode.params[name]) < 0.35 * sd).all(), name
    np.testing.assert_allclose(
        posterior["mu"].std(("chain", "draw")).values, mode.params["sigma"] / np.sqrt(60), rtol=0.15
    )


@pytest.mark.slow
def test_advi_of_ordered_components_Normal():
    """Close components: the normal around one labelling reaches across the tie, the ordered one cannot."""
    x = np.random.default_rng(1).normal(np.repeat([-0.7, 0.7], 50), 1)
    spec = bm.Mixture(bm.Normal(sigma=1.0), 2, weights=[0.5, 0.5])
    with pytest.warns(bm.ApproximationWarning, match="Pareto k"):  # neither is near the posterior
        fits = [bm.fit_advi(spec, x, order=order, random_seed=1) for order in (None, "mu")]
    free, ordered = (fit.posterior["mu"].values for fit in fits)
    assert (np.diff(free) < 0).any()
    assert (np.diff(ordered) > 0).all()


def falling():
    """Two groups far apart, of which the one with the greater mean has the smaller counts."""
    rng = np.random.default_rng(0)
    low = np.repeat([True, False], 60)
    table = {"a": rng.normal(np.where(low, -3.0, 3.0)), "k": rng.poisson(np.where(low, 20, 2))}
    return bm.Mixture(bm.Composite(a=bm.Normal(), k=bm.Poisson()), 2), table, low


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        (bm.fit_nuts, {}),
        (bm.fit_nuts, {"draws": 1000, "tune": 500, "nuts_sampler": "pymc", "cores": 1}),
        (bm.fit_laplace, {}),
        (bm.fit_advi, {}),
        (bm.fit_advi, {"minibatch": 60, "max_iter": 30}),
    ],
)
def test_an_order_that_em_s_labels_do_not_have_relabels_the_start(engine, options):
    """EM labels by the first field, and the second falls along these labels: NUTS failed, the others gave NaN."""
    spec, table, low = falling()
    fit = engine(spec, table, order="k_mu", random_seed=1, **options)
    counts = fit.posterior["k_mu"].values
    assert (np.diff(counts) > 0).all()
    of_low, of_high = ([table[name][rows].mean() for name in ("a", "k")] for rows in (low, ~low))
    found = [fit.posterior[name].values.mean((0, 1)) for name in ("a_mu", "k_mu")]
    # means of 60 rows known to a tenth of their standard deviation, which is 0.13 and, of counts, 0.6 and 0.2
    np.testing.assert_allclose(found[0], [of_high[0], of_low[0]], atol=0.1)
    np.testing.assert_allclose(found[1], [of_high[1], of_low[1]], atol=0.3)


def test_nuts_takes_no_order_that_not_all_mixtures_of_one_kind_can_have():
    """Components that share their weights change places in all outer components at once; NUTS chose to order them, and
    then said that no exchange makes them ascend."""
    rng = np.random.default_rng(0)
    outer, inner = rng.integers(2, size=200), rng.random(200) < 0.3
    table = {"x": rng.normal(np.where(outer == inner, -5, 5), 0.5), "y": rng.normal(20 * outer - 10, 1)}
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2, weights=bm.Shared()), y=bm.Normal()), 2)
    fit = bm.fit_nuts(spec, table, draws=1000, tune=500, chains=2, random_seed=1)
    assert fit.status.converged
    mu = fit.posterior["x_mu"].mean(("chain", "draw")).values
    np.testing.assert_allclose(np.sort(mu, axis=-1), [[-5, 5]] * 2, atol=0.3)
    assert mu[0, 0] * mu[1, 0] < 0


@pytest.mark.parametrize("engine", [bm.fit_nuts, bm.fit_laplace, bm.fit_advi])
def test_an_order_that_no_labelling_of_the_mode_has_is_an_error(engine):
    spec, table, _ = falling()
    with pytest.raises(bm.SpecError, match=r"order: k_mu does not ascend at the mode.* where a_mu ascends"):
        engine(spec, table, order=["a_mu", "k_mu"], random_seed=1)
    fixed = bm.Mixture(bm.Composite(a=bm.Normal(mu=[-3.0, 3.0], sigma=1.0), k=bm.Poisson()), 2)
    with pytest.raises(bm.SpecError, match="k_mu does not ascend at the mode"):
        engine(fixed, table, order="k_mu", random_seed=1)


def test_components_that_are_equal_at_the_mode_can_be_ordered():
    """Ties have no image under the ordered transform; the posterior is the one without an order, cut at the tie."""
    x = [0.0, 0.0]
    spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(0.0, 1.0), sigma=1.0), 2, weights=[0.5, 0.5])
    assert np.ptp(bm.fit_em(spec, x, random_seed=1).params["mu"]) == 0
    drawn = bm.fit_nuts(spec, x, order="mu", target_accept=0.98, random_seed=1).posterior["mu"].values
    assert (np.diff(drawn) > 0).all()
    grid = np.linspace(-6, 6, 601)
    density = stats.norm(0, 1).pdf(grid)[:, None] * stats.norm(0, 1).pdf(grid) * (grid[:, None] < grid)
    for value in x:
        each = stats.norm(grid, 1).pdf(value)
        density *= each[:, None] + each
    mean = np.array([(density.sum(axis) * grid).sum() for axis in (1, 0)]) / density.sum()
    np.testing.assert_allclose(drawn.mean((0, 1)), mean, atol=0.08)  # posterior sd 0.7, some 1,000 independent draws


@pytest.mark.slow
def test_a_run_that_is_too_short_warns_Normal():
    with pytest.warns(ConvergenceWarning, match="Not converged"):
        fit = bm.fit_nuts(WELL_SEPARATED, X, draws=20, tune=20, chains=2, cores=2, random_seed=1)
    assert not fit.status.converged
