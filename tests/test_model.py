"""`build_model`: a plain PyMC model, to be extended, swapped, drawn and sampled."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QUICK
from bayesmix.data import read
from bayesmix.inference.target import Target

_rng = np.random.default_rng(9)
_N = 30
_GROUP = np.repeat([0, 1], _N // 2)
TABLE = pd.DataFrame(
    {
        "x": np.array([-3.0, 3.0])[_GROUP] + _rng.normal(size=_N),
        "n": pd.array(_rng.poisson(np.array([2.0, 12.0])[_GROUP]), "Int64"),
        "c": np.array(["u", "v", "w"], object)[_rng.integers(0, 3, _N)],
    },
    index=[f"r{i}" for i in range(_N)],
)
TABLE.loc["r4", "x"] = np.nan
TABLE.loc["r7", "n"] = pd.NA
C, M = bm.Composite, bm.Mixture
SPEC = M(C(x=bm.Normal(), n=bm.Poisson(), c=bm.Categorical()), 2)


def test_a_model_of_another_kind_is_refused():
    for name, given, choices in (
        ("likelihood", "exact", '"fused" or "graph"'),
        ("labels", "hidden", '"marginal" or "explicit"'),
    ):
        with pytest.raises(ValueError, match=f"{name}: {choices} is needed, not '{given}'"):
            bm.build_model(SPEC, TABLE, **{name: given})


def test_a_prior_over_vectors_may_stand_for_one_over_each_number():
    """Of the mean of a normal distribution in the plane, whose coordinates are correlated a priori."""
    centre, cov = np.array([1.0, -2.0]), np.array([[2.0, 0.9], [0.9, 1.0]])
    spec = M(bm.MvNormal(mu=pm.MvNormal.dist(centre, cov), cov=np.eye(2)), 2)
    bound = bind(spec, read(np.random.default_rng(0).normal(size=(9, 2))))
    mu = np.array([[0.5, 0.1], [3.0, -4.0]])
    expected = stats.multivariate_normal(centre, cov).logpdf(mu).sum()
    assert bound.slots["mu"].log_prior(mu) == pytest.approx(expected, rel=1e-9)


def logp_of(model, point, **kwargs):
    """Log density of a PyMC model at values of its declared variables, without compiling."""
    target = Target(model, point, jacobian=False, **kwargs)
    return target(target.start)[0]


# the fast formula and, where the library has the choice, PyMC's own densities field by field
LIKELIHOODS = (
    [pytest.param({"likelihood": kind}, id=kind) for kind in ("fused", "graph")]
    if "likelihood" in inspect.signature(bm.build_model).parameters
    else [pytest.param({}, id="only")]
)

POINT = {
    "weights": np.array([0.3, 0.7]),
    "x_mu": np.array([-2.0, 2.5]),
    "x_sigma": np.array([0.8, 1.7]),
    "n_mu": np.array([2.5, 11.0]),
    "c_p": np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]),
}


def rows_by_scipy(point, table=TABLE):
    joint = np.log(point["weights"]) + np.zeros((len(table), 2))
    for i, (x, n, c) in enumerate(table[["x", "n", "c"]].itertuples(index=False)):
        joint[i] += 0 if pd.isna(x) else stats.norm.logpdf(x, point["x_mu"], point["x_sigma"])
        joint[i] += 0 if pd.isna(n) else stats.poisson.logpmf(int(n), point["n_mu"])
        joint[i] += 0 if pd.isna(c) else np.log(point["c_p"][:, "uvw".index(c)])
    return np.logaddexp.reduce(joint, axis=1)


def observed(model, name):
    """What the model holds as observed values of a field."""
    return pytensor.function([], model.rvs_to_values[model[name]], mode=QUICK)()


# ------------------------------------------------------------------- names, dims, coords


def test_a_plain_pymc_model():
    model = bm.build_model(SPEC, TABLE, initval=None)
    assert type(model) is pm.Model
    assert [rv.name for rv in model.free_RVs] == ["weights", "x_mu", "x_sigma", "n_mu", "c_p"]
    assert [rv.name for rv in model.observed_RVs] == ["x", "n", "c"]
    assert model.named_vars_to_dims["x_mu"] == ("component",)
    assert model.named_vars_to_dims["c_p"] == ("component", "c_symbol")
    assert model.named_vars_to_dims["weights"] == ("component",)
    assert model.named_vars_to_dims["x"] == ("row",)
    assert list(model.coords["component"]) == [0, 1]
    assert list(model.coords["c_symbol"]) == ["u", "v", "w"]
    assert list(model.coords["row"]) == list(TABLE.index)
    np.testing.assert_array_equal(observed(model, "x"), TABLE["x"])
    assert observed(model, "n")[:3].tolist() == TABLE["n"].tolist()[:3]
    assert observed(model, "n")[7] == -1


def test_names_of_nested_mixtures():
    spec = M(C(x=M(bm.Normal(), 3), n=bm.Poisson()), 2)
    model = bm.build_model(spec, TABLE, initval=None)
    dims = {rv.name: model.named_vars_to_dims[rv.name] for rv in model.free_RVs}
    assert dims == {
        "weights": ("component",),
        "x_weights": ("component", "x_component"),
        "x_mu": ("component", "x_component"),
        "x_sigma": ("component", "x_component"),
        "n_mu": ("component",),
    }
    directly = bm.build_model(M(M(bm.Normal(), 2), 3), TABLE["x"], initval=None)
    # DESIGN §6 has no example of a mixture right inside a mixture: names must be distinct, and so must the axes
    lengths = {dim: len(labels) for dim, labels in directly.coords.items()}
    shapes = [tuple(lengths[dim] for dim in directly.named_vars_to_dims[rv.name]) for rv in directly.free_RVs]
    assert sorted(shapes) == [(3,), (3, 2), (3, 2), (3, 2)]
    assert len({d for dims in directly.named_vars_to_dims.values() for d in dims if d != "row"}) == 2


def test_names_of_vectors_MvNormal():
    frame = pd.DataFrame({"bill": TABLE["x"].fillna(0.0), "flipper": TABLE["x"].fillna(0.0) ** 2})
    model = bm.build_model(M(bm.MvNormal(), 2), frame, initval=None)
    assert model.named_vars_to_dims["mu"] == ("component", "coordinate")
    assert model.named_vars_to_dims["cov"] == ("component", "coordinate", "coordinate_bis")
    assert list(model.coords["coordinate"]) == ["bill", "flipper"]


def test_fixed_parameters_are_no_variables():
    model = bm.build_model(M(bm.Normal(sigma=2.0), 2, weights=[0.5, 0.5]), TABLE["x"], initval=None)
    assert [rv.name for rv in model.free_RVs] == ["mu"]


def test_components_are_batched_not_listed():
    """A Python list of components compiles in minutes at K=20: the graph must not grow with K."""

    def size(n_components):
        model = bm.build_model(M(C(x=bm.Normal(), n=bm.Poisson()), n_components), TABLE, initval=None)
        return len(list(pytensor.graph.traversal.ancestors([model.logp()])))

    assert size(9) == size(3)


def test_two_fields_of_one_name_are_an_error():
    # the variable x_y_mu of field x.y and of field x_y
    spec = C({"x": C(y=bm.Normal()), "x_y": bm.Normal()})
    data = [{"x": {"y": 1.0}, "x_y": 2.0}, {"x": {"y": 2.0}, "x_y": 0.0}]
    with pytest.raises(bm.SpecError, match="x_y_mu: two variables"):
        bm.build_model(spec, data)


# ------------------------------------------------------------------- densities


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_logp_is_the_rows_and_the_priors(likelihood):
    model = bm.build_model(SPEC, TABLE, initval=None, **likelihood)
    bound = bind(SPEC, read(TABLE))
    prior = bound.log_prior(POINT)
    np.testing.assert_allclose(logp_of(model, POINT) - prior, rows_by_scipy(POINT).sum(), rtol=1e-11)


def test_the_first_field_carries_the_rows_and_the_others_zeros():
    model = bm.build_model(SPEC, TABLE, initval=None)
    terms = model.logp(vars=model.observed_RVs, sum=False, jacobian=False)
    target = Target(model, POINT, jacobian=False)
    found = pytensor.function(model.value_vars, terms, mode=QUICK)(*[target.point[v.name] for v in model.value_vars])
    np.testing.assert_allclose(found[0], rows_by_scipy(POINT), rtol=1e-11)
    for other in found[1:]:
        np.testing.assert_array_equal(other, np.zeros(_N))


@pytest.mark.slow
def test_compute_log_likelihood_is_the_rows_density():
    model = bm.build_model(SPEC, TABLE, initval=None)
    fit = bm.fit_em(SPEC, TABLE, n_starts=2, random_seed=1)
    found = pm.compute_log_likelihood(
        fit.idata, model=model, var_names=["x"], extend_inferencedata=False, progressbar=False
    )
    np.testing.assert_allclose(np.asarray(found["x"])[0, 0], fit.log_density(), rtol=1e-10)


def test_row_weights_multiply():
    weights = np.random.default_rng(1).integers(0, 4, _N).astype(float)
    model = bm.build_model(SPEC, TABLE, row_weights=weights, initval=None)
    bound = bind(SPEC, read(TABLE))
    expected = weights @ rows_by_scipy(POINT) + bound.log_prior(POINT)
    np.testing.assert_allclose(logp_of(model, POINT), expected, rtol=1e-11)
    with pytest.raises(bm.DataError, match="row_weights"):
        bm.build_model(SPEC, TABLE, row_weights=weights[:-1])


def test_the_model_starts_at_ems_mode():
    model = bm.build_model(SPEC, TABLE)
    fit = bm.fit_em(SPEC, TABLE, random_seed=1)
    start = model.rvs_to_initial_values
    by_name = {rv.name: np.asarray(value) for rv, value in start.items()}
    np.testing.assert_allclose(by_name["x_mu"], fit.params["x_mu"], atol=0.05)
    given = bm.build_model(SPEC, TABLE, initval={**POINT})
    by_name = {rv.name: np.asarray(value) for rv, value in given.rvs_to_initial_values.items()}
    np.testing.assert_array_equal(by_name["n_mu"], POINT["n_mu"])


# ------------------------------------------------------------------- inside a larger model


def test_priors_may_depend_on_a_users_variables():
    with pm.Model() as model:
        center = pm.Normal("center", 0.0, 5.0)
        spread = pm.HalfNormal("spread", 3.0)
        spec = M(bm.Normal(mu=pm.Normal.dist(center, spread), sigma=pm.InverseGamma.dist(3.0, 2.0)), 2)
        returned = bm.build_model(spec, TABLE["x"].dropna())
    assert returned is model
    assert [rv.name for rv in model.free_RVs] == ["center", "spread", "weights", "mu", "sigma"]
    point = {
        "center": np.array(0.7), "spread": np.array(1.9), "weights": np.array([0.4, 0.6]), "mu": np.array([-3.0, 2.0]),
        "sigma": np.array([1.0, 1.4]),
    }  # fmt: skip
    x = TABLE["x"].dropna().to_numpy()[:, None]
    joint = np.log(point["weights"]) + stats.norm.logpdf(x, point["mu"], point["sigma"])
    expected = (
        np.logaddexp.reduce(joint, axis=1).sum()
        + stats.norm.logpdf(0.7, 0, 5)
        + stats.halfnorm.logpdf(1.9, 0, 3)
        + stats.norm.logpdf(point["mu"], 0.7, 1.9).sum()
        + stats.invgamma.logpdf(point["sigma"], 3, scale=2).sum()
        + stats.dirichlet.logpdf(point["weights"], [2, 2])
    )
    # PyMC keeps Python floats in single precision, and their logarithms too
    np.testing.assert_allclose(logp_of(model, point), expected, rtol=1e-8)


def test_a_prior_over_a_variable_that_no_model_has_is_refused():
    """Its density would be another with every evaluation: of a value drawn there and then."""
    for scale, name in ((pm.Gamma.dist(2, 1), "Gamma"), (2 * pm.HalfNormal.dist(1), "HalfNormal")):
        with pytest.raises(bm.SpecError, match=f"sigma: its prior depends on {name}, a random variable without a name"):
            bm.fit_em(M(bm.Normal(sigma=pm.HalfNormal.dist(scale)), 2), [1.0, 2.0, 3.0])
    with pytest.raises(bm.SpecError, match="mu: its prior depends on Normal, a random variable without a name"):
        bm.build_model(M(bm.Normal(mu=2 * pm.Normal.dist(0, 1)), 2), [1.0, 2.0, 3.0])
    shares = pm.Dirichlet.dist([1.0, 1.0])
    with pytest.raises(bm.SpecError, match="mu: its prior depends on Dirichlet"):
        bm.fit_em(bm.Normal(mu=pm.Mixture.dist(shares, [pm.Normal.dist(0, 1), pm.StudentT.dist(3)])), [1.0, 2.0])
    with pm.Model():  # what a variable of the model is made of is the model's
        centre = pm.Mixture("centre", [0.5, 0.5], [pm.Normal.dist(0, 1), pm.Normal.dist(5, 1)])
        model = bm.build_model(M(bm.Normal(mu=pm.Normal.dist(centre, 1)), 2), [1.0, 2.0, 3.0])
    assert np.isfinite(model.point_logps().get("centre"))


def test_a_prior_over_whole_numbers_is_refused():
    with pytest.raises(bm.SpecError, match=r"mu: the parameter is a real number; DiscreteUniform is .* whole numbers"):
        bm.fit_em(M(bm.Normal(mu=pm.DiscreteUniform.dist(0, 5)), 2), [1.0, 2.0, 3.0])


def test_a_parameter_may_be_a_users_expression():
    with pm.Model() as model:
        low = pm.Normal("low", 0.0, 5.0)
        gap = pm.HalfNormal("gap", 5.0)
        bm.build_model(
            M(bm.Normal(mu=pt.stack([low, low + gap]), sigma=1.0), 2, weights=[0.5, 0.5]), TABLE["x"].dropna()
        )
    assert [rv.name for rv in model.free_RVs] == ["low", "gap"]
    x = TABLE["x"].dropna().to_numpy()[:, None]
    joint = np.log(0.5) + stats.norm.logpdf(x, [-2.0, 3.0], 1.0)
    expected = np.logaddexp.reduce(joint, axis=1).sum() + stats.norm.logpdf(-2, 0, 5) + stats.halfnorm.logpdf(5, 0, 5)
    np.testing.assert_allclose(logp_of(model, {"low": np.array(-2.0), "gap": np.array(5.0)}), expected, rtol=1e-8)


def test_two_specs_in_one_model():
    with pm.Model() as model:
        bm.build_model(C(x=bm.Normal()), TABLE[["x"]], initval=None)
        bm.build_model(C(n=bm.Poisson()), TABLE[["n"]], initval=None)
    assert [rv.name for rv in model.free_RVs] == ["x_mu", "x_sigma", "n_mu"]


# ------------------------------------------------------------------- other data


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_data_can_be_swapped(likelihood):
    model = bm.build_model(SPEC, TABLE, initval=None, **likelihood)
    bound = bind(SPEC, read(TABLE))
    new = pd.DataFrame({"x": [0.5, np.nan], "n": [3, 4], "c": ["w", None]}, index=["a", "b"])
    bm.set_data(model, new)
    assert observed(model, "n").tolist() == [3, 4]
    assert list(model.coords["row"]) == ["a", "b"]
    assert observed(model, "c").tolist() == [2, -1]
    expected = rows_by_scipy(POINT, new).sum() + bound.log_prior(POINT)
    np.testing.assert_allclose(logp_of(model, POINT), expected, rtol=1e-11)
    bm.set_data(model, TABLE)
    np.testing.assert_allclose(logp_of(model, POINT), rows_by_scipy(POINT).sum() + bound.log_prior(POINT), rtol=1e-11)


def test_swapped_data_are_checked():
    model = bm.build_model(SPEC, TABLE, initval=None)
    with pytest.raises(bm.DataError, match=r"n: .*row 1 is -1"):
        bm.set_data(model, {"x": [0.0, 1.0], "n": [1, -1], "c": ["u", "u"]})
    unseen = {"x": [0.0], "n": [1], "c": ["z"]}
    with pytest.raises(bm.DataError, match="'z'"):
        bm.set_data(model, unseen)
    bm.set_data(model, unseen, unseen="ignore")
    assert observed(model, "c").tolist() == [-1]
    with pytest.raises(bm.DataError, match=r"bm\.build_model did not make"):
        bm.set_data(pm.Model(), TABLE)


def test_swapped_data_of_a_weighted_model():
    model = bm.build_model(SPEC, TABLE, row_weights=np.full(_N, 3.0), initval=None)
    prior, rows = bind(SPEC, read(TABLE)).log_prior(POINT), rows_by_scipy(POINT)

    def log_posterior():  # a target keeps the table that it was made with
        target = Target(model, POINT, jacobian=False)
        return target(target.start)[0]

    np.testing.assert_allclose(log_posterior(), prior + 3 * rows.sum(), rtol=1e-11)
    bm.set_data(model, TABLE.iloc[:2], row_weights=[2.0, 0.5])
    np.testing.assert_allclose(log_posterior(), prior + 2 * rows[0] + 0.5 * rows[1], rtol=1e-11)
    bm.set_data(model, TABLE.iloc[:3])
    np.testing.assert_allclose(log_posterior(), prior + rows[:3].sum(), rtol=1e-11)
    with pytest.raises(bm.DataError, match="row_weights"):
        bm.set_data(model, TABLE, row_weights=[1.0])


# ------------------------------------------------------------------- order


def test_ordered_components():
    model = bm.build_model(M(bm.Normal(), 2), TABLE["x"].dropna(), order="mu")
    [transform] = [t for rv, t in model.rvs_to_transforms.items() if rv.name == "mu"]
    assert "order" in type(transform).__name__.lower()
    target = Target(
        model,
        {"weights": np.array([0.5, 0.5]), "mu": np.array([-1.0, 2.0]), "sigma": np.array([1.0, 1.0])},
        jacobian=False,
    )
    rng = np.random.default_rng(1)
    for _ in range(20):
        mu = target.constrained(target.start + 3 * rng.normal(size=target.start.shape))["mu"]
        assert mu[0] < mu[1]


def test_ordered_components_start_as_whole_components():
    """Not each variable sorted by itself, which makes components that nobody asked for."""
    spec = M(C(x=bm.Normal(), n=bm.Poisson()), 2)
    start = {
        "weights": np.array([0.3, 0.7]),
        "x_mu": np.array([-1.0, 2.0]),
        "x_sigma": np.array([1.0, 3.0]),
        "n_mu": np.array([6.0, 0.5]),
    }

    def at(model):
        """The starting point as values of the variables."""
        free = dict.fromkeys([rv.name for rv in model.free_RVs])
        values = [model.initial_point()[model.rvs_to_values[model[name]].name] for name in free]
        found = pytensor.function(model.value_vars, model.replace_rvs_by_values(list(model.free_RVs)), mode=QUICK)
        return dict(zip(free, found(*values)))

    found = at(bm.build_model(spec, TABLE, order="n_mu", initval=start))
    for name, value in start.items():
        np.testing.assert_allclose(found[name], value[::-1], rtol=1e-6, err_msg=name)
    # no labelling has both: the second is sorted by itself, for a start must lie inside
    found = at(bm.build_model(spec, TABLE, order=["x_mu", "n_mu"], initval=start))
    np.testing.assert_allclose(found["x_mu"], start["x_mu"], rtol=1e-6)
    np.testing.assert_allclose(found["n_mu"], [0.5, 6.0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"initval: x_mu has the shape \(3,\), and \(2,\) is needed"):
        bm.build_model(spec, TABLE, order="x_mu", initval={"x_mu": [0.0, 1.0, 2.0]})


def test_what_cannot_be_ordered():
    with pytest.raises(bm.SpecError, match="'weights' cannot be ordered; choose from mu, sigma"):
        bm.build_model(M(bm.Normal(), 2), TABLE["x"].dropna(), order="weights")
    with pytest.raises(bm.SpecError, match="'nu'"):
        bm.build_model(M(bm.Normal(), 2), TABLE["x"].dropna(), order=["mu", "nu"])


# ------------------------------------------------------------------- draws, figures


def test_a_draw_of_the_model_has_the_components_fields_together():
    """Outputs of one random variable: x and n of a row come from one component."""
    spec = M(C(x=bm.Normal(mu=[-50.0, 50.0], sigma=1.0), n=bm.Poisson(mu=[1.0, 1000.0])), 2, weights=[0.3, 0.7])
    table = {"x": np.zeros(4_000), "n": np.zeros(4_000, int)}
    table["x"][0], table["n"][1] = 1.0, 2
    model = bm.build_model(spec, table, initval=None)
    rvs = [rv for rv in model.observed_RVs]
    x, n = pytensor.function([], rvs, mode=QUICK)()
    assert ((x > 0) == (n > 100)).all()
    share = (x > 0).mean()
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / 4_000)
    assert abs(x[x > 0].mean() - 50) < 4 / np.sqrt((x > 0).sum())


def test_prior_predictive_of_the_whole_model():
    model = bm.build_model(M(C(x=bm.Normal(), n=bm.Poisson()), 2), TABLE, initval=None)
    prior = pm.sample_prior_predictive(5, model=model, random_seed=1)
    assert prior["prior"]["x_mu"].shape == (1, 5, 2)
    assert prior["prior_predictive"]["x"].dims == ("chain", "draw", "row")
    assert (prior["prior_predictive"]["n"].values >= 0).all()


def test_the_graph_can_be_drawn():
    pytest.importorskip("graphviz")
    model = bm.build_model(SPEC, TABLE, initval=None)
    source = pm.model_to_graphviz(model).source
    for name in ("weights", "x_mu", "c_p", "component", "row"):
        assert name in source


def test_values_at_parameters_are_those_of_the_variables():
    fit = bm.fit_em(SPEC, TABLE, n_starts=2, random_seed=1)
    model = model_of(fit.bound, fit.encoded, initval=None)
    target = Target(model, variables_at(fit.bound, fit.params), jacobian=False)
    back = target.constrained(target.start)
    for name, value in fit.params.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.slow
def test_pymcs_own_tools_take_the_model():
    model = bm.build_model(M(bm.Normal(), 2), TABLE["x"].dropna())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyMC announces another type of result
        mode = pm.find_MAP(model=model, progressbar=False)
    fit = bm.fit_em(M(bm.Normal(), 2), TABLE["x"].dropna(), random_seed=1)
    # find_MAP stops at its own tolerance
    np.testing.assert_allclose(mode["mu"], fit.params["mu"], atol=1e-2)
    with model:
        idata = pm.sample(
            draws=50, tune=50, chains=1, nuts_sampler="pymc", progressbar=False, random_seed=1,
            compute_convergence_checks=False,
        )  # fmt: skip
    assert idata["posterior"]["mu"].dims == ("chain", "draw", "component")


def test_counts_beyond_32_bits_are_what_pymc_s_densities_see():
    """PyMC puts whole numbers that it observes into 32 bits, where 2,300,000,000 is negative: a missing cell."""
    counts = np.array([1_900_000_000, 2_300_000_000, 4_900_000_000])
    for family, expected in [
        (bm.Poisson(mu=2.5e9), stats.poisson(2.5e9).logpmf(counts).sum()),
        (bm.Geometric(p=1e-9), stats.geom(1e-9).logpmf(counts).sum()),
    ]:
        for likelihood in ("graph", "fused"):
            model = bm.build_model(family, {"x": [*counts, None]}, likelihood=likelihood)
            found = model.compile_fn(model.logp(), inputs=[], mode="NUMBA", point_fn=False)()
            np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        (bm.Normal(sigma=pm.Normal.dist(0, 1)), "0.5 of the mass"),
        (bm.Normal(sigma=pm.Uniform.dist(-1, 3)), "0.25 of the mass"),
        (bm.Normal(sigma=pm.Normal.dist([9, 0], 1)), "0.5 of the mass"),
        (bm.Bernoulli(p=pm.Uniform.dist(-0.5, 1.5)), "0.5 of the mass"),
        (bm.Bernoulli(p=pm.Exponential.dist(1)), "0.37 of the mass"),
    ],
    ids=repr,
)
def test_priors_with_mass_where_the_parameter_cannot_be_are_refused(spec, share):
    """Their density would be cut and not scaled up, and the evidence too low, by log 2 a component of the first."""
    with pytest.raises(bm.SpecError, match=share + ".*pm.Truncated"):
        bm.fit(bm.Mixture(spec, 2), [0.0, 1.0, 1.0, 0.0], random_seed=1)


@pytest.mark.parametrize("prior", [pm.Truncated.dist(pm.Normal.dist(0, 1), lower=0), pm.Normal.dist(6, 1)], ids=repr)
def test_priors_that_are_cut_as_the_errors_say_or_have_no_mass_there_pass(prior):
    x = np.random.default_rng(0).normal(0, 1, 30)
    assert bm.fit(bm.Normal(sigma=prior), x, random_seed=1).status.converged
