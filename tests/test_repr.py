"""A spec prints as the code that makes it, to the last digit; specs and fits show as HTML that is safe to show."""

import re

import numpy as np
import pymc as pm
import pytest

import bayesmix as bm
from tests.cases import CASES
from tests.structure.trees import NUMERIC, TREES

NAMES = {**{name: getattr(bm, name) for name in bm.__all__}, "pm": pm}


def evaluated(spec):
    """What ``from bayesmix import *`` makes of the code."""
    return eval(repr(spec), dict(NAMES))


@pytest.mark.parametrize("tree", TREES + NUMERIC, ids=lambda tree: tree.name)
def test_code_makes_the_spec(tree):
    assert evaluated(tree.spec) == tree.spec


@pytest.mark.parametrize("priors", ["conjugate", "numeric", "flat"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_code_makes_the_familys_priors(case, priors):
    leaf = case.leaf(priors)
    if "LKJCholeskyCov" in repr(leaf):  # made with another distribution inside, so like itself alone
        code = "pm.LKJCholeskyCov.dist(n=2, eta=2, sd_dist=pm.HalfNormal.dist([5.0]), compute_corr=False)"
        assert repr(leaf) == repr(evaluated(leaf)) == f"MvNormal(cov={code})"
    else:
        assert evaluated(bm.Mixture(leaf, 3)) == bm.Mixture(leaf, 3)


@pytest.mark.parametrize(
    ("prior", "code"),
    [
        (lambda: pm.Gamma.dist(2, 3), "pm.Gamma.dist(2, 3)"),  # PyMC keeps the scale, 1/3
        (lambda: pm.Gamma.dist(2.5, 0.1), "pm.Gamma.dist(2.5, 0.1)"),
        (lambda: pm.Gamma.dist(2.0, [0.5, 0.25]), "pm.Gamma.dist([2.0], [0.5, 0.25])"),
        (lambda: pm.Exponential.dist(3.0), "pm.Exponential.dist(3)"),
        (lambda: pm.HalfNormal.dist(5), "pm.HalfNormal.dist(5)"),  # PyMC keeps a location of 0
        (lambda: pm.StudentT.dist(3, 0, sigma=2), "pm.StudentT.dist(3, 0, sigma=2)"),
        (lambda: pm.TruncatedNormal.dist(1, 2, lower=0), "pm.TruncatedNormal.dist(1, 2, lower=0, upper=float('inf'))"),
        (lambda: pm.Normal.dist(0.1, 2 / 3), "pm.Normal.dist(0.1, 0.6666666666666666)"),
        (lambda: pm.Dirichlet.dist([2.0, 3.5]), "pm.Dirichlet.dist([2.0, 3.5])"),
        (lambda: bm.InverseWishart.dist(6.0, np.eye(2)), "InverseWishart.dist(6, [[1.0, 0.0], [0.0, 1.0]])"),
        (lambda: pm.Flat.dist(), "pm.Flat.dist()"),
        (lambda: pm.PolyaGamma.dist(1.0, 2.0), "pm.PolyaGamma.dist(1, 2)"),  # PyMC prints it as PG
        (lambda: pm.StickBreakingWeights.dist(1.0, 2), "pm.StickBreakingWeights.dist(1, 2)"),
        (
            lambda: pm.Truncated.dist(pm.Exponential.dist(3.0), lower=0.5),
            "pm.Truncated.dist(pm.Exponential.dist(3), 0.5, None)",
        ),
        (
            lambda: pm.Mixture.dist([0.25, 0.75], [pm.HalfNormal.dist(1), pm.HalfCauchy.dist(5)]),
            "pm.Mixture.dist([0.25, 0.75], [pm.HalfNormal.dist(1), pm.HalfCauchy.dist(5)])",
        ),
        (
            lambda: pm.NormalMixture.dist(np.array([0.25, 0.75]), np.array([0.0, 2.0]), 1),
            "pm.Mixture.dist([0.25, 0.75], pm.Normal.dist([0.0, 2.0], [1.0], size=2))",
        ),
        (lambda: 1 / 3, "0.3333333333333333"),
        (lambda: 12345678.0, "12345678"),
    ],
)
def test_a_prior_is_shown_as_the_call_that_a_user_writes(prior, code):
    spec = bm.Normal(sigma=prior())
    assert repr(spec) == f"Normal(sigma={code})"
    assert evaluated(spec) == spec


@pytest.mark.parametrize("wrong", ["a", pm.Normal, None, 2j, {"a": 1}, [1, "b"], (1, (2, 3))], ids=str)
def test_a_spec_with_a_fault_has_a_repr(wrong):
    for spec in (bm.Normal(mu=wrong), bm.Normal(mu=bm.Shared(wrong)), bm.Mixture(bm.Poisson(), 2, weights=wrong)):
        assert wrong is None or repr(wrong) in repr(spec)
        assert spec._repr_html_()


def test_levels_that_are_no_list_have_a_repr():
    for family in (bm.Categorical, bm.BernoulliSet, bm.MarkovChain):
        assert repr(family(levels="ab")) == f"{family.__name__}(levels='ab')"
        assert repr(family(levels=5)) == f"{family.__name__}(levels=5)"


def test_a_prior_over_another_is_shown_as_well_as_can_be():
    assert repr(bm.Normal(mu=pm.Normal.dist(pm.Normal.dist(0, 1), 2))) == (
        "Normal(mu=pm.Normal.dist(pm.Normal.dist(0, 1), 2))"
    )
    with pm.Model():
        centre = pm.Normal("centre", 0, 1)
        assert repr(bm.Normal(mu=centre)) == "Normal(mu=centre)"
        assert repr(bm.Normal(mu=pm.Normal.dist(centre, 10))) == "Normal(mu=pm.Normal.dist(centre, 10))"


def test_priors_made_of_others_are_alike_where_all_their_numbers_are():
    def cut(centre=0.0, upper=5.0):
        return bm.Normal(mu=pm.Truncated.dist(pm.Laplace.dist(centre, 1), 0, upper))

    def mixed(centre=0.0):
        return bm.Normal(mu=pm.Mixture.dist([0.5, 0.5], [pm.Laplace.dist(centre, 1), pm.Normal.dist(0, 1)]))

    assert cut() == cut() != cut(upper=4.0)
    assert cut() != cut(1.0)
    assert mixed() == mixed() != mixed(1.0)
    with pm.Model():
        a, b = pm.Normal("a"), pm.Normal("b")
        assert cut(a) != cut(b)
        assert mixed(a) != mixed(b)


def test_a_prior_over_vectors_is_shown_under_the_name_that_makes_it():
    """PyMC prints MvNormal as MultivariateNormal, which it has no class of."""
    spec = bm.MvNormal(mu=pm.MvNormal.dist([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]))
    assert repr(spec) == "MvNormal(mu=pm.MvNormal.dist([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]))"
    assert evaluated(spec) == spec


def test_a_prior_that_no_code_is_known_of_has_its_name_alone():
    class Own(pm.Exponential):
        rv_op = type("OwnRV", (type(pm.Exponential.rv_op),), {"_print_name": ("Own", "Own")})()

    assert repr(bm.Normal(sigma=Own.dist(1.0))) == "Normal(sigma=pm.Own.dist(…))"
    shares = pm.Dirichlet.dist([1.0, 1.0])
    unknown = pm.Mixture.dist(shares, [pm.Normal.dist(0, 1), pm.StudentT.dist(3)])
    assert repr(bm.Normal(mu=unknown)) == "Normal(mu=pm.Mixture.dist(…))"


def test_names_that_cannot_be_keywords():
    names = ("class", "tie", "self", "two words", "quote'd")
    spec = bm.Composite({name: bm.Normal() for name in names})
    assert evaluated(spec) == spec
    joint = bm.JointMixture(**{"class": (bm.Normal(), 2), "from": (bm.Poisson(), 3)})
    assert evaluated(joint) == joint
    assert evaluated(joint.with_flat_priors()) == joint.with_flat_priors()


def test_equal_specs_are_equal_values():
    one, two = (
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2)), 2),
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2.0)), 2),
    )
    assert one == two
    assert len({one, two}) == 1
    others = [
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2.1)), 2),
        bm.Mixture(bm.Normal(sigma=pm.HalfCauchy.dist(2)), 2),
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2)), 3),
        bm.Mixture(bm.LogNormal(sigma=pm.HalfNormal.dist(2)), 2),
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2)), 2, shared=True),
        bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2), tie="a"), 2),
    ]
    assert all(other != one for other in others)
    assert one != "Mixture"
    # two bases that are truncated have one class in PyMC: nothing is said of them
    cut = [pm.Truncated.dist(base.dist(1.0), lower=0.5, upper=2) for base in (pm.Exponential, pm.HalfNormal)]
    assert bm.Normal(sigma=cut[0]) != bm.Normal(sigma=cut[1])


EVIL = "<script>alert('&')</script>"


def test_html_of_a_spec_is_a_tree_and_escapes():
    numbers = bm.Sequence(bm.Normal(sigma=pm.HalfNormal.dist(2)), length=bm.Poisson())
    spec = bm.Mixture(bm.Composite({EVIL: numbers, "b": bm.Categorical(levels=[EVIL, "x"])}), 3)
    page = spec._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert page.count("<ul") == page.count("</ul>") == 4
    assert page.count("<details") == page.count("</details>") == 3
    for word in (
        "<b>Mixture</b>",
        "n_components=3",
        "<b>Sequence</b>",
        "length: <b>Poisson</b>",
        "sigma=pm.HalfNormal.dist(2)",
    ):
        assert word in page
    assert not re.search(r"\b(src|href)=", page)  # nothing from elsewhere


def test_html_of_an_inferred_spec_has_its_notes():
    page = bm.infer_spec({EVIL: [1.5, 2.5, 3.0], "b": [EVIL, "x", "x"]}, 1)._repr_html_()
    assert "<script" not in page
    assert "real numbers, 1.5 to 3" in page


@pytest.mark.parametrize("engine", ["em", "laplace"])
def test_html_of_a_fit(engine):
    rng = np.random.default_rng(0)
    table = {EVIL: rng.normal(size=60) + np.repeat([0, 9], 30), "n": rng.poisson(3, 60)}
    spec = bm.Mixture(bm.Composite({EVIL: bm.Normal(), "n": bm.Poisson()}), 2)
    fit = bm.fit(spec, table, method=engine, random_seed=1)
    page = fit._repr_html_()
    assert "<script" not in page
    assert f"<b>✓ {engine}</b>" in page
    assert str(fit.status) in page
    mean = fit.posterior["n_mu"].mean().item() if engine == "em" else fit.posterior["n_mu"][..., 1].mean().item()
    cells = re.findall(r"n_mu\[1\]</td><td[^>]*>([^<]*)", page)
    assert len(cells) == 1
    np.testing.assert_allclose(float(cells[0]), fit.params["n_mu"][1] if engine == "em" else mean, rtol=1e-3)
    assert ("94.5 %" in page) == (engine == "laplace")
    assert "<b>Composite</b>" in page


def test_html_of_a_fit_of_many_parameters_is_short():
    levels = [f"s{j}" for j in range(200)]
    fit = bm.fit(bm.Categorical(), levels * 2)
    page = fit._repr_html_()
    assert "Parameters (200)" in page
    assert "140 more" in page
    assert page.count("<tr>") == 61
