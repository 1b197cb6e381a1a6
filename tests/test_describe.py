"""Fits in sentences: figures are the fit's, order is by a divergence that integrals confirm, every node is told."""

import re
import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import integrate, special, stats

import bayesmix as bm
from bayesmix.describe import separation
from tests.cases import CASES
from tests.structure.trees import TREES

_rng = np.random.default_rng(1)


def fixed(spec, data):
    """A fit of a spec whose parameters are all numbers: the data matter for the report alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.DegenerateWarning)
        return bm.fit(spec, data)


# ------------------------------------------------------------------ what sets components apart


def _bits_between(f, g, low, high):
    """Jensen-Shannon divergence in bits by quadrature."""

    def half(x):
        p, q = f(x), g(x)
        return 0.5 * (special.rel_entr(p, (p + q) / 2) + special.rel_entr(q, (p + q) / 2)) / np.log(2)

    return integrate.quad(half, low, high, limit=200, points=[0.0])[0]


def test_separation_of_normals_is_their_jensen_shannon_divergence():
    mu, weights = [0.0, 2.0, 5.0], [0.5, 0.3, 0.2]
    spec = bm.Mixture(bm.Composite(x=bm.Normal(mu=mu, sigma=1.0), y=bm.Normal(mu=1.0, sigma=2.0)), 3, weights=weights)
    found = separation(fixed(spec, bm.sample(spec, 50, random_seed=1)))
    densities = [stats.norm(m, 1).pdf for m in mu]
    for k in range(3):
        others = [j for j in range(3) if j != k]
        share = np.array([weights[j] for j in others]) / sum(weights[j] for j in others)
        rest = lambda x, others=others, share=share: sum(w * densities[j](x) for w, j in zip(share, others))  # noqa: E731
        # about 400 rows a component: a standard error of 0.02
        assert abs(found.loc["x", k] - _bits_between(densities[k], rest, -9, 14)) < 0.06
    np.testing.assert_allclose(found.loc["y"], 0, atol=1e-12)


def test_separation_of_symbols_and_of_families_that_differ():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    spec = bm.Mixture(bm.Categorical(p=p, levels=["a", "b", "c"]), 2, weights=[0.5, 0.5])
    found = separation(fixed(spec, ["a", "b", "c", "a"]))
    middle = p.mean(0)
    exact = 0.5 * special.rel_entr(p, middle).sum() / np.log(2)
    np.testing.assert_allclose(found.loc["x"], exact, atol=0.06)
    mixed = bm.Mixture([bm.LogNormal(mu=2.0, sigma=0.5), bm.Exponential(scale=3.0)], weights=[0.5, 0.5])
    exact = _bits_between(stats.lognorm(0.5, scale=np.exp(2)).pdf, stats.expon(scale=3).pdf, 0, 90)
    np.testing.assert_allclose(separation(fixed(mixed, [0.1, 0.5, 2.0])).loc["x"], exact, atol=0.06)


def test_separation_where_a_family_draws_what_another_does_not_take():
    """Normals are below 0 now and then, where an exponential is not: the training rows serve instead."""
    x = np.concatenate([_rng.normal(6, 3, 2000), _rng.exponential(2, 2000)])
    spec = bm.Mixture([bm.Normal(mu=6.0, sigma=3.0), bm.Exponential(scale=2.0)], weights=[0.5, 0.5])
    exact = _bits_between(stats.norm(6, 3).pdf, stats.expon(scale=2).pdf, -9, 60)
    np.testing.assert_allclose(separation(fixed(spec, x[x >= 0])).loc["x"], exact, atol=0.04)


def test_separation_is_at_most_one_and_empty_for_one_component():
    spec = bm.Mixture(bm.Normal(mu=[-1e6, 1e6], sigma=1e-3), 2, weights=[0.5, 0.5])
    np.testing.assert_allclose(separation(fixed(spec, [-1e6, 1e6])).to_numpy(), 1)
    assert separation(bm.fit(bm.Mixture(bm.Normal(), 1), [1.0, 2.0, 3.0])).empty
    assert separation(bm.fit(bm.Normal(), [1.0, 2.0, 3.0])).empty


def test_of_200_fields_those_that_differ_are_told():
    apart = {17: 3.0, 120: 2.0, 150: 1.0}
    fields = {f"f{j}": bm.Normal(mu=[0.0, apart.get(j, 0.1)], sigma=1.0) for j in range(200)}
    spec = bm.Mixture(bm.Composite(fields), 2, weights=[0.5, 0.5])
    fit = fixed(spec, {name: [0.0, 1.0] for name in fields})
    told = fit.describe(n_fields=3)
    for each in told.components:
        assert list(each.fields) == [f"f{j}" for j in apart]
        assert each.rest.startswith("197 more fields tell it less well (at most 0.")
    assert told.separation.shape == (200, 2)


# ------------------------------------------------------------------ sentences


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_traits_are_those_of_the_family(case):
    """Figures called mean or by a symbol are `Leaf.mean`'s; all are (K, J), named, and finite."""
    _, site, _ = case.bind()
    traits = site.node.traits(case.params, site.learned)
    for each in traits:
        assert each.values.shape == (case.n_components, len(each.names))
        assert np.isfinite(each.values).all()
        assert each.form in ("location", "count", "scale", "share", "value")
    first = traits[0]
    if first.names[0].startswith("mean") or len(first.names) > 1:
        np.testing.assert_allclose(np.squeeze(first.values), site.node.mean(case.params))


def test_traits_by_default_are_the_mean():
    for case in CASES:
        _, site, _ = case.bind()
        (traits,) = super(type(site.node), site.node).traits(case.params, site.learned)
        means = np.reshape(site.node.mean(case.params), (case.n_components, -1))
        np.testing.assert_array_equal(traits.values, means)


@pytest.mark.filterwarnings("ignore::bayesmix.BayesmixWarning")
@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_every_structure_is_told(tree):
    fit = bm.fit(tree.spec, tree.table, n_starts=1, max_iter=20, random_seed=1)
    told = fit.describe(n_fields=99)
    n = len(fit.bound.site.slots["weights"].event[0]) if fit.bound.is_mixture else 1
    assert [each.label for each in told.components] == list(range(n))
    fields = set(tree.fields) if tree.record else {"x"}
    for each in told.components:
        assert {name.split(".")[0] for name in each.fields} == fields
        text = each.text + "".join(told.common.values())
        assert "nan" not in text
        assert "inf" not in text
        assert re.search(r"\d", text)
        held = re.search(r"holds (\S+) %", each.headline)
        assert n == 1 or abs(float(held.group(1)) / 100 - each.weight[0]) < 0.006
    assert (told.separation >= 0).all(axis=None)
    assert (told.separation <= 1).all(axis=None)
    assert told.methods.count("Rows were modelled") == fit.bound.is_mixture


def test_a_point_estimate_in_plain_words():
    spec = bm.Mixture(
        bm.Composite(
            mass=bm.Normal(mu=[3400.0, 5000.0], sigma=[250.0, 500.0]),
            sex=bm.Categorical(p=[[0.9, 0.1], [0.5, 0.5]], levels=["f", "m"]),
            eggs=bm.Optional(bm.Poisson(mu=[1.5, 1.5]), p=[0.05, 0.4]),
            year=bm.Bernoulli(p=0.25),
        ),
        2,
        weights=[0.25, 0.75],
    )
    fit = fixed(spec, bm.sample(spec, 40, random_seed=1))
    told = fit.describe()
    first = told.components[0]
    assert first.headline == "Component 0 holds 25 % of the rows (about 10 of 40)."
    assert next(iter(first.fields)) == "mass"
    assert first.fields["mass"].startswith(
        "mean 3400 (5000 in the other); standard deviation 250 (500 in the other). Tells it from the other by 0.9"
    )
    assert first.fields["sex"].startswith("f in 90 % (50 % in the other); m in 10 % (50 % in the other).")
    assert first.fields["eggs"].startswith("missing in 5 % (40 % in the other); where present: mean 1.5.")
    assert first.fields["year"] == "true in 25 %. Tells it from the other by 0.00."
    assert "All parameters were fixed." in told.methods
    assert "Whether a cell is missing was modelled as depending on the component for eggs." in told.methods


def test_nested_shared_and_linked_components():
    topics = bm.HierarchicalMixture(bm.Normal(mu=[-5.0, 5.0], sigma=1.0), 2, 2, topic_weights=[[0.9, 0.1], [0.2, 0.8]],
                                    weights=[0.5, 0.5], length=bm.Poisson(mu=[2.0, 8.0]))  # fmt: skip
    told = fixed(topics, [[-5.0, 5.0], [5.0], [], [4.0]]).describe()
    assert told.common == {
        "topic 0": "mean -5; standard deviation 1.",
        "topic 1": "mean 5; standard deviation 1.",
    }
    sentence = told.components[0].fields["x"]
    assert sentence.startswith(
        "elements: topic 0 in 90 % (20 % in the other); topic 1 in 10 % (80 % in the other); "
        "length: mean 2 (8 in the other)."
    )
    inner = bm.Mixture(bm.Normal(mu=[[0.0, 1.0], [5.0, 6.0]], sigma=1.0), 2, weights=[[0.3, 0.7], [0.5, 0.5]])
    nested = bm.Mixture(inner, 2, weights=[0.5, 0.5])
    sentence = fixed(nested, [0.0, 1.0, 5.0]).describe().components[0].fields["x"]
    assert sentence.startswith("in 30 % mean 0, standard deviation 1; in 70 % mean 1, standard deviation 1.")
    chain = bm.Mixture(bm.MarkovChain(initial=[[1.0, 0.0], [0.5, 0.5]], transition=[[[0.9, 0.1], [0.1, 0.9]],
                       [[0.5, 0.5], [0.5, 0.5]]], levels=["a", "b"]), 2, weights=[0.5, 0.5])  # fmt: skip
    sentence = fixed(chain, [["a", "b"], ["b", "a", "a"], ["a"]]).describe().components[0].fields["x"]
    assert sentence.startswith("first a in 100 % (50 % in the other); a → a in 90 % (50 % in the other); b → b in 90 %")


def test_intervals_are_those_of_the_draws():
    x = np.concatenate([_rng.normal(m, 1, 60) for m in (-4, 4)])
    fit = bm.fit_laplace(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    told = fit.describe(prob=0.5)
    for k, each in enumerate(told.components):
        draws = fit.posterior["mu"].values.reshape(-1, 2)[:, k]
        found = [float(part) for part in re.match(r"mean (\S+) \[(\S+), (\S+)\]", each.fields["x"]).groups()]
        exact = [draws.mean(), *np.quantile(draws, [0.25, 0.75])]
        np.testing.assert_allclose(found, exact, atol=0.03)  # 200 of the 1000 draws
        low, high = np.quantile(fit.posterior["weights"].values.reshape(-1, 2)[:, k], [0.25, 0.75])
        np.testing.assert_allclose(each.weight, [fit.params["weights"][k], low, high], atol=0.01)
    assert "50 % equal-tailed intervals" in told.methods
    assert "Laplace" in told.methods


def test_methods_say_what_was_done_and_cite_it():
    table = {"a": [*_rng.normal(size=30), None], "b": [*_rng.poisson(3, 30), 2]}
    spec = bm.Mixture(bm.Composite(a=bm.Normal(sigma=bm.Shared(1.5)), b=bm.Poisson()), 2)
    told = bm.fit(spec, table, n_starts=3, random_seed=1).describe()
    for part in (
        "The data are 31 rows. 1 missing cell, in a (1), was taken as missing at random",
        "a finite mixture of 2 components",
        "Normal(sigma=Shared(1.5)) (a); Poisson() (b)",
        "weights ~ Dirichlet([2, 2])",
        "EM algorithm (Dempster et al. 1977), the best of 3 starts",
        f"bayesmix {bm.__version__}",
    ):
        assert part in told.methods
    cited = re.findall(r"([A-Z][\w-]+(?: et al\.| and [A-Z]\w+)?) (\d{4})", told.methods)
    for who, year in cited:
        assert any(each.startswith(who.split()[0].split("-")[0]) and f"({year})" in each for each in told.references), (
            who
        )
    assert len(told.references) == len({*cited})


def _methods(spec, data):
    return bm.fit(spec, data, n_starts=1, random_seed=1).describe().methods


def test_methods_say_every_prior():
    counts = [1, 2, 3, 30, 31, 28]
    assert "Priors were flat." in _methods(bm.Mixture(bm.Poisson(), 2).with_flat_priors(), counts)
    own = bm.Mixture(bm.Poisson(mu=pm.Gamma.dist(2.0, 0.5)), 2, weights=pm.Dirichlet.dist([1.0, 3.0]))
    assert "Priors were weights ~ Dirichlet([1, 3]), mu ~ Gamma(2, 0.5)." in _methods(own, counts)
    some = _methods(bm.Mixture(bm.Poisson(mu=pm.Gamma.dist(2.0, 0.5)), 2), counts)
    assert "Priors were mu ~ Gamma(2, 0.5); the others weakly informative defaults" in some
    rate = len(counts) / (sum(counts) + 0.5)  # the default, see `bm.Poisson`
    assert f"mu ~ Gamma(2, {rate:.4g})" in _methods(bm.Mixture(bm.Poisson(), 2), counts)
    assert "…" not in _methods(
        bm.Mixture(bm.Composite(a=bm.Exponential(), b=bm.Normal()), 2), {"a": counts, "b": counts}
    )


def test_numbers_that_are_large_or_small_or_nearly_all():
    spec = bm.Mixture(bm.Composite(x=bm.Normal(mu=[1e8, 2e8], sigma=[1e-6, 2e-6]), p=bm.Bernoulli(p=[0.9995, 0.5])), 2,
                      weights=[0.5, 0.5])  # fmt: skip
    told = fixed(spec, {"x": [1e8, 2e8, 1e8, 2e8], "p": [1, 0, 1, 1]}).describe().components[0].fields
    assert told["x"].startswith("mean 1e+08 (2e+08 in the other); standard deviation 1e-06 (2e-06 in the other).")
    assert told["p"].startswith("true in > 99.9 % (50 % in the other).")


def test_of_long_vectors_the_figures_that_differ_are_told():
    mu = np.array([np.zeros(7), [0.0, 5, 0, 7, 9, 0, 8]])
    spec = bm.Mixture(bm.MvNormal(mu=mu, cov=[np.eye(7)] * 2), 2, weights=[0.5, 0.5])
    sentence = fixed(spec, bm.sample(spec, 40, random_seed=1)).describe().components[1].fields["x"]
    means = re.findall(r"mean of x(\d) (\d)", sentence)
    assert means == [("2", "5"), ("4", "7"), ("5", "9"), ("7", "8")]
    assert "mean of x7 8 (0 in the other); 3 more figures of this kind differ less;" in sentence


def test_shared_components_are_told_once_in_every_form():
    topics = bm.HierarchicalMixture(bm.Normal(mu=[-5.0, 5.0], sigma=1.0), 2, 2, topic_weights=[[0.9, 0.1], [0.2, 0.8]],
                                    weights=[0.5, 0.5])  # fmt: skip
    told = fixed(topics, [[-5.0, 5.0], [5.0], [], [4.0]]).describe()
    sentence = "mean -5; standard deviation 1."
    assert f"Shared components\n-----------------\n\ntopic 0: {sentence}" in str(told)
    assert f"## Shared components\n\n- **topic 0**: {sentence}\n" in told.to_markdown()
    assert f"<b>Shared components</b></p><ul><li><b>topic 0</b>: {sentence}</li>" in told._repr_html_()


def test_components_that_cannot_be_compared_without_rows(tmp_path):
    """One draws what the other does not take, and the table that would do is not in the file."""
    fit = fixed(bm.Mixture([bm.LogNormal(mu=2.0, sigma=0.5), bm.Normal(mu=-3.0, sigma=3.0)], weights=[0.5, 0.5]),
                [1.0, 2.0, 3.0])  # fmt: skip
    assert not fit.describe().separation.empty
    fit.save(tmp_path / "fit")
    told = bm.load(tmp_path / "fit").describe()
    assert told.separation.empty
    assert told.components[1].fields == {"x": "Normal; mean -3; standard deviation 3."}
    assert "Jensen-Shannon" not in str(told)


def test_a_loaded_fit_with_its_table_is_described_as_the_fit_was(tmp_path):
    """The table was taken, and only checked: no numbers of rows, names or separation came from it."""
    x = pd.Series(np.concatenate([_rng.normal(m, 1, 60) for m in (3, 9)]), name="height")
    x[7] = np.nan
    mixtures = [bm.Mixture(bm.Normal(), 2), bm.Mixture([bm.LogNormal(), bm.Normal()])]
    for spec, weights in zip(mixtures, (None, np.full(120, 2.0))):
        fit = bm.fit_advi(spec, x, row_weights=weights, draws=50, random_seed=1)
        fit.save(tmp_path / "fit")
        assert str(bm.load(tmp_path / "fit").describe(data=x)) == str(fit.describe()) == str(fit.describe(data=x))


def test_the_report_is_part_of_it():
    fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([0, 1, 1, 0, 9, 12, 8, 9]), random_seed=1)
    told = fit.describe()
    assert "duplicate_components" in told.check
    assert str(told.check) in str(told)
    assert str(told.check) in told.to_markdown()
    assert "duplicate_components" in told._repr_html_()


def test_a_loaded_fit_is_described_without_its_table(tmp_path):
    x = np.concatenate([_rng.normal(m, 1, 60) for m in (-4, 4)])
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    fit.save(tmp_path / "fit")
    loaded = bm.load(tmp_path / "fit")
    told = loaded.describe()
    assert told.check is None
    assert told.components[1].fields == fit.describe().components[1].fields
    assert loaded.describe(data=x).check.verdict == fit.check().verdict
    assert "Not checked" in str(told)


def test_symbols_of_users_are_escaped():
    evil = "<script>*x*</script>"
    fit = bm.fit(bm.Mixture(bm.Categorical(), 1), [evil, evil, "b"])
    told = fit.describe()
    assert "<script" not in told._repr_html_()
    assert "<script" not in told.to_markdown().replace("\\<", "")
    assert evil in str(told)


def test_bad_arguments():
    fit = bm.fit(bm.Mixture(bm.Normal(), 1), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="n_fields"):
        fit.describe(n_fields=0)
    with pytest.raises(ValueError, match="prob"):
        fit.describe(prob=1.0)
    assert isinstance(fit.describe().separation, pd.DataFrame)
