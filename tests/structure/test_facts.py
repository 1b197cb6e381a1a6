"""What each structure is by another name, its names and dims, and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pymc as pm
import pytest
from scipy import stats
from scipy.optimize import minimize

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of, variables_at
from bayesmix.data import read
from bayesmix.inference.target import Target
from tests.structure.trees import COLUMNS


def row_log_density(spec, table, params):
    bound = bind(spec, read(table))
    return bound.log_density(params, bound.encode(table))


def dims(spec, table):
    return {name: slot.dims for name, slot in bind(spec, read(table)).slots.items()}


def em(spec, table, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        warnings.simplefilter("ignore", bm.DegenerateWarning)
        return bm.fit_em(spec, table, **{"tol": 0, "n_starts": 3, "random_seed": 1, **kwargs})


# ------------------------------------------------------------------- one algebra

W = np.array([0.4, 0.3, 0.2, 0.1])
TAU = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
MU, SIGMA = np.array([-5.0, 0.0, 5.0]), np.array([1.0, 2.0, 0.5])


def test_HierarchicalMixture_is_a_shared_mixture_in_sequences_and_the_tied_list():
    rows = COLUMNS["st"]
    hierarchical = row_log_density(
        bm.HierarchicalMixture(bm.Normal(), 3, 4),
        rows,
        {"weights": W, "topic_weights": TAU, "topic_mu": MU, "topic_sigma": SIGMA},
    )
    shared = row_log_density(
        bm.Mixture(bm.Sequence(bm.Mixture(bm.Normal(), 3, shared=True)), 4),
        rows,
        {"weights": W, "subweights": TAU, "mu": MU, "sigma": SIGMA},
    )
    inner = bm.Sequence(bm.Mixture([bm.Normal(tie="a"), bm.Normal(tie="b"), bm.Normal(tie="c")]))
    params = {"weights": W, "subweights": TAU}
    for name, mu, sigma in zip("abc", MU, SIGMA):
        params |= {f"{name}_mu": np.array(mu), f"{name}_sigma": np.array(sigma)}
    tied = row_log_density(bm.Mixture([inner] * 4), rows, params)
    np.testing.assert_allclose(shared, hierarchical, rtol=1e-12)
    np.testing.assert_allclose(tied, hierarchical, rtol=1e-12)


def test_JointMixture_is_a_composite_with_a_shared_mixture():
    table = {"x": COLUMNS["y"], "y": COLUMNS["m"]}
    w, tau = np.array([0.3, 0.7]), np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    params = {"x_mu": MU[:2], "x_sigma": SIGMA[:2], "y_mu": np.array([1.0, 5.0, 20.0]), "weights": w}
    joint = bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3))
    same = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Mixture(bm.Poisson(), 3, shared=True)), 2)
    a = row_log_density(joint, table, {**params, "transition": tau})
    b = row_log_density(same, table, {**params, "y_weights": tau})
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    # the other way round: P(y) and P(x | y) of the same joint table
    table_of = w[:, None] * tau
    turned = bm.JointMixture(y=(bm.Poisson(), 3), x=(bm.Normal(), 2))
    swapped = {"weights": table_of.sum(0), "transition": (table_of / table_of.sum(0)).T}
    c = row_log_density(turned, {"y": table["y"], "x": table["x"]}, {**params, **swapped})
    np.testing.assert_allclose(c, a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("component", [bm.Normal(), bm.Mixture(bm.Normal(), 2)], ids=["Normal", "Mixture-Normal"])
def test_a_list_of_one_component_is_that_component_times_n(component):
    a, b = bm.Mixture(component, 3), bm.Mixture([component] * 3)
    assert dims(a, COLUMNS["x"]) == dims(b, COLUMNS["x"])
    first, second = (em(spec, COLUMNS["x"], tol=1e-8) for spec in (a, b))
    for name, value in first.params.items():
        np.testing.assert_array_equal(second.params[name], value, err_msg=name)


def test_components_that_differ_in_the_seventh_digit_are_different_Normal():
    """They were told apart by what `repr` shows, which is six digits."""
    spec = bm.Mixture([bm.Normal(mu=100000.1, sigma=1.0), bm.Normal(mu=100000.2, sigma=1.0)], weights=[0.5, 0.5])
    x = np.array([100000.1, 100000.5])
    expected = np.logaddexp.reduce(np.log(0.5) + stats.norm.logpdf(x[:, None], [100000.1, 100000.2], 1.0), axis=1)
    bound = bind(spec, read(x))
    np.testing.assert_allclose(bound.log_density(bound.with_fixed({}), bound.encode(x)), expected, rtol=1e-9)
    with pytest.raises(bm.SpecError, match="differ"):
        bind(bm.Composite(a=bm.Normal(mu=100000.1, tie="t"), b=bm.Normal(mu=100000.2, tie="t")), read({"a": x, "b": x}))


# ------------------------------------------------------------------- names and dims


def test_names_and_dims_HierarchicalMixture():
    assert dims(bm.HierarchicalMixture(bm.Normal(), 3, 4, length=bm.Poisson()), COLUMNS["st"]) == {
        "weights": ("mixture",),
        "topic_weights": ("mixture", "topic"),
        "topic_mu": ("topic",),
        "topic_sigma": ("topic",),
        "length_mu": ("mixture",),
    }


def test_names_and_dims_JointMixture():
    table = {"x": COLUMNS["y"], "y": COLUMNS["sx"]}
    assert dims(bm.JointMixture(x=(bm.Normal(), 3), y=(bm.Sequence(bm.Normal(), bm.Poisson()), 2)), table) == {
        "weights": ("x_component",),
        "x_mu": ("x_component",),
        "x_sigma": ("x_component",),
        "transition": ("x_component", "y_component"),
        "y_mu": ("y_component",),
        "y_sigma": ("y_component",),
        "y_length_mu": ("y_component",),
    }


def test_names_and_dims_MarkovChain_in_a_field():
    assert dims(bm.Mixture(bm.Composite(clicks=bm.MarkovChain()), 2), {"clicks": COLUMNS["ch"]}) == {
        "weights": ("component",),
        "clicks_initial": ("component", "clicks_symbol"),
        "clicks_transition": ("component", "clicks_from", "clicks_to"),
    }


def test_names_and_dims_of_different_components():
    spec = bm.Mixture([bm.Exponential(), bm.LogNormal(), bm.Exponential()])
    bound = bind(spec, read(COLUMNS["l"]))
    assert {name: slot.dims for name, slot in bound.slots.items()} == {
        "weights": ("component",),
        "exponential_scale": ("exponential_component",),
        "log_normal_mu": ("log_normal_component",),
        "log_normal_sigma": ("log_normal_component",),
    }
    assert bound.slots["exponential_scale"].axes[0].labels == (0, 2)


def test_names_Shared_and_tie_have_no_axis():
    assert dims(bm.Mixture(bm.Normal(sigma=bm.Shared()), 2), COLUMNS["y"])["sigma"] == ()
    tied = bm.Mixture(bm.Composite(y=bm.Normal(tie="s"), x=bm.Normal(tie="s")), 2)
    assert dims(tied, {"y": COLUMNS["y"], "x": COLUMNS["x"]}) == {
        "weights": ("component",), "s_mu": (), "s_sigma": (),
    }  # fmt: skip


def test_what_cannot_be_is_said():
    with pytest.raises(TypeError, match="change the order"):
        bm.JointMixture(x=[bm.Normal(), bm.LogNormal()], y=(bm.Poisson(), 2))
    with pytest.raises(bm.SpecError, match="different supports"):
        bm.fit(bm.Mixture([bm.Normal(), bm.Poisson()]), [1, 2, 3])
    with pytest.raises(bm.DataError, match=r"twice|duplicate|more than once"):
        bm.fit(bm.BernoulliSet(), [["a", "b"], ["a", "a"]])
    tied = bm.Mixture(bm.Normal(), 2, tie="t")
    with pytest.raises(bm.SpecError, match="tied"):
        bm.build_model(bm.Composite(x=tied, y=tied), {"x": [1.0, 2, 3], "y": [3.0, 4, 1]}, labels="explicit")


# ------------------------------------------------------------------- closed forms


def test_HierarchicalMixture_weights_count_sequences_and_not_elements():
    """Two kinds, half of the rows each, of lengths 1 and 50: weights by tokens would be .02 and .98."""
    rng = np.random.default_rng(2)
    rows = [[float(rng.normal(-9, 1))] for _ in range(30)] + [rng.normal(9, 1, 50).tolist() for _ in range(30)]
    fit = em(bm.HierarchicalMixture(bm.Normal(), 2, 2).with_flat_priors(), rows)
    np.testing.assert_allclose(fit.params["weights"], [0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(np.sort(fit.params["topic_weights"], axis=None), [0, 0, 1, 1], atol=1e-9)


def _pair(a, b):
    return {"a": a, "b": b}


_rng = np.random.default_rng(3)
TIED = [
    ("Normal", _pair(_rng.normal(3, 2, 40), _rng.normal(-1, 1, 40)), lambda x: {"mu": x.mean(), "sigma": x.std()}),
    ("Geometric", _pair(_rng.geometric(0.3, 40), _rng.geometric(0.8, 40)), lambda x: {"p": 1 / x.mean()}),
    ("Exponential", _pair(_rng.exponential(3, 40), _rng.exponential(9, 40)), lambda x: {"scale": x.mean()}),
    ("LogNormal", _pair(np.exp(_rng.normal(3, 2, 40)), np.exp(_rng.normal(0, 1, 40))),
     lambda x: {"mu": np.log(x).mean(), "sigma": np.log(x).std()}),
    ("MvNormal", _pair(list(_rng.normal(2, 2, (40, 2))), list(_rng.normal(-1, 1, (40, 2)))),
     lambda x: {"mu": x.mean(0), "cov": np.cov(x.T, bias=True)}),
    ("Categorical", _pair(list(_rng.choice(list("uvw"), 40)), list(_rng.choice(list("uv"), 40))),
     lambda x: {"p": np.array([(x == s).mean() for s in "uvw"])}),
    ("Poisson", _pair(_rng.poisson(2, 40), _rng.poisson(9, 40)), lambda x: {"mu": x.mean()}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "table", "closed"), TIED, ids=[case[0] for case in TIED])
def test_tied_nodes_pool_the_data_of_all(family, table, closed):
    leaf = getattr(bm, family)(tie="both")
    fit = em(bm.Composite(a=leaf, b=leaf).with_flat_priors(), table)
    both = np.concatenate([np.asarray(table["a"]), np.asarray(table["b"])])
    for name, value in closed(both).items():
        np.testing.assert_allclose(fit.params[f"both_{name}"], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("family", ["Normal", "LogNormal", "MvNormal"])
def test_tied_nodes_pool_within_a_mixture_by_responsibilities(family):
    """A tied node in the components of a list: one value for all of them, so as if there were no mixture."""
    column = {"Normal": COLUMNS["y"], "LogNormal": COLUMNS["l"], "MvNormal": COLUMNS["v"]}[family]
    leaf = getattr(bm, family)
    table = {"a": column, "m": COLUMNS["m"]}
    spec = bm.Mixture(bm.Composite(a=leaf(tie="one"), m=bm.Poisson()), 2).with_flat_priors()
    mixed, alone = em(spec, table), em(leaf().with_flat_priors(), column)
    for name, value in alone.params.items():
        np.testing.assert_allclose(mixed.params[f"one_{name}"], value, rtol=1e-9, err_msg=name)


def graph_gradient(fit):
    model = model_of(fit.bound, fit.encoded, initval=None, likelihood="graph")
    target = Target(model, variables_at(fit.bound, fit.params), jacobian=False)
    return target(target.start)[1]


def test_Shared_sigma_is_the_pooled_one():
    """σ² = Σ_k Σ_n r_nk (x_n - μ_k)² / N at the fixed point."""
    x = np.array([value for value in COLUMNS["y"] if value is not None])
    fit = em(bm.Mixture(bm.Normal(sigma=bm.Shared()), 2).with_flat_priors(), x)
    p = fit.params
    assert fit.posterior["sigma"].dims == ("chain", "draw")
    joint = np.log(p["weights"]) + stats.norm.logpdf(x[:, None], p["mu"], p["sigma"])
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(p["mu"], resp.T @ x / resp.sum(0), rtol=1e-9)
    pooled = (resp * (x[:, None] - p["mu"]) ** 2).sum() / len(x)
    np.testing.assert_allclose(p["sigma"] ** 2, pooled, rtol=1e-9)
    assert np.abs(graph_gradient(fit)).max() < 1e-6


def test_Shared_in_a_nested_mixture_is_shared_over_the_inner_one_alone():
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(sigma=bm.Shared()), 2), m=bm.Poisson()), 2)
    table = {"x": COLUMNS["x"], "m": COLUMNS["m"]}
    assert dims(spec, table)["x_sigma"] == ("component",)
    assert np.abs(graph_gradient(em(spec, table))).max() < 1e-6


def test_min_weight_that_binds_is_the_constrained_optimum_Normal():
    """Nine rows in ten lie in one group: under min_weight=0.3 the other has 0.3, and the rest is what scipy finds."""
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(-2, 1, 90), rng.normal(2, 1, 10)])
    fit = em(bm.Mixture(bm.Normal(), 2, min_weight=0.3).with_flat_priors(), x, max_iter=5000)
    assert fit.params["weights"].min() == pytest.approx(0.3, abs=1e-12)

    def minus_loglik(u):
        w = u[0]
        joint = np.log([w, 1 - w]) + stats.norm.logpdf(x[:, None], u[1:3], np.exp(u[3:5]))
        return -np.logaddexp.reduce(joint, axis=1).sum()

    best = min(
        (
            minimize(minus_loglik, start, bounds=[(0.3, 0.7)] + [(None, None)] * 4, options={"ftol": 1e-14})
            for start in ([0.7, -2, 2, 0.0, 0.0], [0.7, -2.5, -1.0, 0.0, 0.5], [0.7, -2.0, 0.0, 0.0, 1.0])
        ),
        key=lambda found: found.fun,
    )
    np.testing.assert_allclose(fit.loglik, -best.fun, rtol=1e-7)
    np.testing.assert_allclose(fit.params["mu"], np.sort(best.x[1:3]), atol=1e-3)


def test_min_weight_that_does_not_bind_changes_nothing_but_the_support_Poisson():
    a = em(bm.Mixture(bm.Poisson(), 2), COLUMNS["m"])
    b = em(bm.Mixture(bm.Poisson(), 2, min_weight=0.05), COLUMNS["m"])
    for name, value in a.params.items():
        np.testing.assert_allclose(b.params[name], value, rtol=1e-8, err_msg=name)
    assert np.abs(graph_gradient(b)).max() < 1e-6


def test_min_weight_holds_for_every_draw_and_start():
    spec = bm.Mixture(bm.Normal(), 4, min_weight=0.2)
    fit = em(spec, COLUMNS["x"], tol=1e-8)
    model = model_of(fit.bound, fit.encoded, initval=None)
    inside = {**fit.params, "weights": np.full(4, 0.25)}
    target = Target(model, variables_at(fit.bound, inside), jacobian=False)
    for seed in range(20):
        u = 5 * np.random.default_rng(seed).normal(size=target.start.shape)
        w = target.constrained(u)["weights"]
        assert w.min() >= 0.2
        np.testing.assert_allclose(w.sum(), 1, rtol=1e-12)
    assert fit.params["weights"].min() >= 0.2 - 1e-12
    np.testing.assert_allclose(fit.params["weights"].sum(), 1, rtol=1e-12)


FIXED = [
    ("Mixture(Normal(sigma=1), 2, weights=[.5, .5])", bm.Mixture(bm.Normal(sigma=1), 2, weights=[0.5, 0.5]), "y"),
    ("Optional p", bm.Mixture(bm.Optional(bm.Normal(), p=0.25), 2), "y"),
    ("Sequence length", bm.Mixture(bm.Sequence(bm.Normal(), bm.Poisson(mu=3.0)), 2), "sx"),
    ("MarkovChain initial", bm.Mixture(bm.MarkovChain(initial=[0.5, 0.5]), 2), "ch"),
    ("topic_weights", bm.HierarchicalMixture(bm.Normal(), 2, 2, topic_weights=[[0.3, 0.7], [0.8, 0.2]]), "st"),
    ("all", bm.Mixture(bm.Normal(mu=[-4.0, 6.0], sigma=1.0), 2, weights=[0.5, 0.5]), "y"),
    ("one topic", bm.HierarchicalMixture([bm.Normal(mu=-6.0, sigma=1.0), bm.Normal()], n_mixtures=2), "st"),
]


@pytest.mark.parametrize(("name", "spec", "column"), FIXED, ids=[case[0] for case in FIXED])
def test_fixed_parameters_stay_where_they_are(name, spec, column):
    fit = em(spec, COLUMNS[column], tol=1e-9)
    fixed = {name: slot.value for name, slot in fit.bound.slots.items() if slot.kind == "fixed"}
    assert fixed
    for key, value in fixed.items():
        np.testing.assert_array_equal(fit.params[key], value)
        assert key not in fit.posterior
    model = bm.build_model(spec, COLUMNS[column])
    assert not {variable.name for variable in model.free_RVs} & set(fixed)
    if fit.bound.free_slots:
        assert np.abs(graph_gradient(em(spec, COLUMNS[column]))).max() < 1e-6


def test_a_users_prior_on_Shared_is_the_variables_prior():
    spec = bm.Mixture(bm.Normal(sigma=bm.Shared(pm.InverseGamma.dist(3.0, 2.0))), 2)
    bound = bind(spec, read(COLUMNS["y"]))
    sigma = np.array(1.7)
    np.testing.assert_allclose(bound.slots["sigma"].log_prior(sigma), stats.invgamma.logpdf(1.7, 3, scale=2))


@pytest.mark.parametrize(
    ("family", "column"),
    [
        (bm.Normal, [1.0, 3.0, 2.0, 0.0]),
        (bm.MvNormal, [[1.0, 2.0], [3.0, 1.0], [2.0, 5.0], [0.0, 1.0]]),
        (bm.LogNormal, [1.0, 3.0, 2.0, 0.5]),
        (bm.Exponential, [1.0, 3.0, 2.0, 0.5]),
        (bm.Poisson, [1, 3, 2, 0]),
        (bm.Geometric, [1, 2, 3, 4]),
        (bm.Bernoulli, [True, False, True, True]),
        (bm.SpikeAndSlab, [1, 3, 2, 0]),
        (bm.Categorical, ["a", "b", "c", "a"]),
        (bm.BernoulliSet, [{"a"}, {"a", "b"}, set(), {"c"}]),
        (bm.MarkovChain, [["a", "b"], ["b", "a"], ["a", "a", "b"], ["b"]]),
    ],
)
def test_a_field_without_any_cell_changes_nothing_for_the_one_it_is_tied_to(family, column):
    pair = bm.Mixture(bm.Composite(a=family(tie="t"), b=family(tie="t")), 1)
    fit = bm.fit_em(pair, {"a": [None] * 4, "b": column}, random_seed=1)
    alone = bm.fit_em(bm.Mixture(bm.Composite(b=family(tie="t")), 1), {"b": column}, random_seed=1)
    assert fit.loglik == pytest.approx(alone.loglik, rel=1e-12)
    for name, value in alone.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9)
    assert len(fit.idata["observed_data"]["a"]) == 4


def test_what_nothing_was_seen_of_Sequence_MvNormal_MarkovChain_SpikeAndSlab():
    """Sequences that are all empty: vectors have the length of numbers or of a tied field."""
    for given in (
        bm.MvNormal(mu=[0.0, 0.0]),
        bm.MvNormal(mu=pm.Normal.dist(0, 1, shape=2)),
        bm.MvNormal(cov=np.eye(2)),
    ):
        fit = bm.fit_em(bm.Composite(a=bm.Sequence(given)), {"a": [None, []]}, random_seed=1)
        learned = fit.bound.learned["root/a/element"]
        assert learned.center == (0, 0)

    tied = bm.Composite(f=bm.MvNormal(tie="t"), g=bm.Sequence(bm.MvNormal(tie="t")))
    fit = bm.fit_em(tied, {"f": [None, [6.0, 5.0, 4.0]], "g": [(), ()]}, random_seed=1)
    assert fit.idata["observed_data"]["g"].shape == (0, 3)

    chain = bm.MarkovChain(length=bm.Poisson(mu=2.0))
    fit = bm.fit_em(bm.Composite(c=chain), {"c": [None, None, []]}, random_seed=1)
    drawn = fit.sample(50, random_seed=1)
    assert all(cell is None or cell == [] for cell in drawn["c"])
    assert np.isfinite(fit.log_density(drawn)).all()

    for spec, ends in [
        (bm.SpikeAndSlab(), (0, 1)),
        (bm.SpikeAndSlab(lower=3), (3, 4)),
        (bm.SpikeAndSlab(upper=9), (8, 9)),
    ]:
        fit = bm.fit_em(bm.Composite(s=bm.Sequence(spec)), {"s": [[], []]}, random_seed=1)
        learned = fit.bound.learned["root/s/element"]
        assert (learned.lower, learned.upper) == ends


def test_elements_that_may_be_missing_in_a_sequence_that_may_have_names_of_their_own():
    rows = [None, [1, None, 2], [3], [None], None, [0, 2]]
    spec = bm.Optional(bm.Sequence(bm.Optional(bm.Poisson())))
    fit = bm.fit_em(spec, {"n": rows}, random_seed=1)
    assert list(fit.params) == ["p_missing", "element_p_missing", "mu"]
    # modes under the default priors Beta(1 + 2m, 3 - 2m), where m counts half a cell of each kind more
    np.testing.assert_allclose(fit.params["p_missing"], (2 + 2 * 2.5 / 7) / (6 + 2), rtol=1e-6)
    np.testing.assert_allclose(fit.params["element_p_missing"], (2 + 2 * 2.5 / 8) / (7 + 2), rtol=1e-6)
    model = bm.build_model(bm.Mixture(bm.Composite(n=spec), 1), {"n": rows}, likelihood="graph")
    assert {"n_missing", "n_element_missing"} <= {rv.name for rv in model.observed_RVs}
    assert "n_element_p_missing" in {rv.name for rv in model.free_RVs}


def test_positions_that_are_too_many_to_write_out_are_for_the_fused_likelihood_SpikeAndSlab():
    spec, table = bm.Mixture(bm.SpikeAndSlab(lower=0, upper=30), 2), {"x": [3, 3, 7, 12, 3, 30, 0]}
    with pytest.raises(bm.SpecError, match=r"961 combinations of positions are too many .* take likelihood=\"fused\""):
        bm.build_model(spec, table, likelihood="graph")
    assert bm.build_model(spec, table).free_RVs
    with pytest.raises(bm.SpecError, match=r"29791 combinations of positions .* use method=\"em\""):
        bm.build_model(bm.Mixture(bm.SpikeAndSlab(lower=0, upper=30), 3), table)


def test_positions_that_are_free_leave_room_for_every_row_SpikeAndSlab():
    """Rows off the middle of the range were said to be impossible under every component."""
    fit = bm.fit_em(bm.Mixture(bm.SpikeAndSlab(p=1.0), 2), np.repeat([7, 3], 30), random_seed=1)
    assert sorted(fit.params["k"]) == [3, 7]
    assert fit.loglik == pytest.approx(60 * np.log(0.5))
