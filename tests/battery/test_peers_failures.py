"""What the closest peers do wrong, measured on the same inputs: none of it may happen here.

Each test is named after the probe. Those that only an error or a warning answers stand in `test_adversarial` where the
same input is a case there.
"""

from __future__ import annotations

import numpy as np
import pytest

import bayesmix as bm
from tests.battery.tools import assert_sane, fitted

M, C, N = bm.Mixture, bm.Composite, bm.Normal
ENGINES = ["em", pytest.param("nuts", marks=pytest.mark.slow)]
_rng = np.random.default_rng(11)
X = np.r_[_rng.normal(-5, 1, 40), _rng.normal(5, 1, 40)]


def raises(error, spec, data, *parts, **kwargs):
    for method in ("em", "nuts"):
        with pytest.raises(error) as caught:
            bm.fit(spec, data, method=method, **kwargs)
        assert all(part in str(caught.value) for part in parts), caught.value


def test_empty_data():
    """A peer returns N(0, 1)."""
    raises(bm.DataError, M(N(), 2), [], "no rows")
    raises(bm.DataError, N(), np.empty(0), "no rows")


def test_more_components_than_rows():
    """Peers give variances of 1e-9 in silence, or with a floor."""
    raises(bm.DataError, M(N(), 5), [1.0, 2.0, 3.0], "5 components", "3 rows")


@pytest.mark.parametrize("method", ENGINES)
def test_small_variance_at_an_offset(method):
    """1e6 + N(0, 0.01²): a peer's variance is 1.0, in silence."""
    values = 1e6 + 0.01 * np.random.default_rng(1).normal(size=200)
    fit, caught = fitted(M(N(), 1), values, method)
    assert not caught
    assert float(fit.posterior["sigma"].mean()) == pytest.approx(values.std(), rel=0.05)
    assert_sane(fit, values)


@pytest.mark.parametrize("method", ENGINES)
def test_one_outlier_and_a_likelihood_that_never_falls(method):
    """A peer's variance toggles between 0 and 1, its likelihood falls, and it stops."""
    fit, caught = fitted(M(N(), 2), np.append(X, 1e5), method)
    assert any("holds 1 rows (row 80)" in str(each.message) for each in caught)
    assert (np.diff(fit.history) >= -1e-9 * np.abs(fit.history[:-1])).all()
    assert_sane(fit, X)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_an_error_with_row_and_way_out(value):
    data = {"y": np.append(X, value)}
    raises(bm.DataError, M(C(y=N()), 2), data, "y:", "row 80", str(value), "mark it missing")


def test_numeric_strings():
    """Both peers convert them in silence."""
    raises(bm.DataError, M(N(), 1), ["1.5", "2.5", "3.5"], "row 0", "'1.5'")
    raises(bm.DataError, M(N(), 1), np.array(["1.5", "2.5"]), "row 0", "'1.5'")


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize(
    ("family", "cells"),
    [(bm.Poisson(), np.zeros(50, int)), (bm.Geometric(), np.ones(50, int)), (bm.Bernoulli(), np.ones(50, int)),
     (bm.Categorical(), ["a"] * 50)],
    ids=["Poisson zeros", "Geometric ones", "Bernoulli ones", "one symbol"],
)  # fmt: skip
def test_counts_at_the_edge_of_their_support(family, cells, n_components, method):
    """A peer crashes on Poisson zeros, and runs on NaN to the last iteration where all geometrics are one."""
    if n_components == 1 and method == "nuts" and isinstance(family, bm.Categorical):
        with pytest.raises(bm.SpecError, match="one possible value"):
            fitted(M(family, 1), cells, method)
        return
    fit, caught = fitted(M(family, n_components), cells, method)
    expected = [] if n_components == 1 else ["1 distinct row", "cannot be told apart", "single rows"]
    assert all(any(part in str(each.message) for part in expected) for each in caught)
    assert_sane(fit, cells)


@pytest.mark.parametrize("method", ENGINES)
def test_all_sequences_empty(method):
    """A peer crashes."""
    fit, _ = fitted(M(bm.Sequence(N(), length=bm.Poisson()), 1), [[]] * 30, method)
    assert_sane(fit, [[]] * 30, [[], [0.5, 1.0]])


def test_non_integers_for_a_poisson():
    raises(bm.DataError, M(bm.Poisson(), 1), [1.0, 2.5, 3.0], "row 1", "2.5", "whole numbers")


@pytest.mark.parametrize("method", ENGINES)
def test_categories_of_none_nan_and_mixed_types(method):
    """A peer's TypeError is about '<'."""
    cells = ["a", 1, None, float("nan"), (2, 3), "a"] * 5
    fit, caught = fitted(M(bm.Categorical(), 1), cells, method)
    assert not caught
    assert_sane(fit, cells)
    np.testing.assert_allclose(fit.log_density([None, float("nan")]), [0, 0], atol=1e-12)


@pytest.mark.parametrize("method", ENGINES)
def test_unseen_categories_and_set_elements(method):
    """Peers give the prior weights in silence, [0, 0], or a bare KeyError."""
    cells = {"c": ["u", "v"] * 40, "s": [{"a"}, {"b"}] * 40, "x": X}
    fit, _ = fitted(M(C(c=bm.Categorical(), s=bm.BernoulliSet(), x=N()), 2), cells, method)
    for field, strange in (("c", "w"), ("s", {"z"})):
        new = {"c": ["u"], "s": [{"a"}], "x": [-5.0], field: [strange]}
        with pytest.raises(bm.DataError, match=rf"{field}: row 0 .*unseen="):
            fit.responsibilities(new)
        missing = fit.responsibilities({**new, field: [None]})
        np.testing.assert_array_equal(fit.responsibilities(new, unseen="ignore"), missing)
        assert missing.max() > 0.9  # the other fields still speak


def test_an_impossible_transition_is_impossible():
    """A peer's vectorised log probability is 0, that is, certain."""
    chains = [list("ab"), list("ba"), list("bb")] * 9
    for k in (1, 2):
        fit, _ = fitted(M(bm.MarkovChain(), k).with_flat_priors(), chains)
        found = fit.log_density([["a", "a"], ["b", "b"]] * 50)
        assert (found[::2] == -np.inf).all()
        assert np.isfinite(found[1::2]).all()


@pytest.mark.parametrize("method", ENGINES)
def test_prediction_at_nan(method):
    """Peers give a NaN posterior, or an exception: a missing cell tells nothing, so that the weights remain."""
    fit, _ = fitted(M(N(), 2), X, method)
    resp = fit.responsibilities([np.nan, 5.0])
    np.testing.assert_allclose(resp[0], fit.posterior["weights"].mean(("chain", "draw")), rtol=1e-9)
    assert fit.predict([np.nan, -5.0]).shape == (2,)
    np.testing.assert_allclose(fit.log_density([np.nan]), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [(M(N(), 2, weights=[0.9, 0.9]), ("weights", "sum", "1.8")), (M(N(sigma=0.0), 2), ("sigma", "positive")),
     (M(N(sigma=-1.0), 2), ("sigma", "-1")), (M(bm.Exponential(scale=-1.0), 2), ("scale", "-1"))],
    ids=["weights", "sigma 0", "sigma < 0", "scale < 0"],
)  # fmt: skip
def test_parameters_outside_of_their_support(spec, parts):
    """A peer accepts weights that sum to 1.8 and replaces variances that are not positive."""
    raises(bm.SpecError, spec, np.abs(X), *parts)


def test_a_singular_covariance():
    """A peer's LinAlgError: fixed ones are an error of the spec, estimated ones are finite under the proper prior."""
    plane = np.column_stack([X, 2 * X])
    raises(bm.SpecError, M(bm.MvNormal(cov=np.ones((2, 2))), 2), plane, "cov", "positive definite")
    fit, _ = fitted(M(bm.MvNormal(), 2), plane)
    assert np.linalg.eigvalsh(fit.params["cov"]).min() > 0
    assert_sane(fit, plane)


def test_too_many_fields_in_a_record():
    """A peer ignores them."""
    raises(bm.DataError, M(C(N(), N()), 1), [(1.0, 2.0), (1.0, 2.0, 3.0)], "row 1 has 3 fields")
    raises(bm.DataError, M(C(N(), N()), 1), [(1.0, 2.0, 3.0)] * 4, "3 columns for 2 fields")


def test_a_duplicate_in_a_set():
    """A peer counts it twice."""
    raises(bm.DataError, M(bm.BernoulliSet(), 1), [["b"], ["a", "a"]], "row 1", "'a' twice")


@pytest.mark.parametrize(
    ("family", "name", "estimate"),
    [(N, "mu", np.mean), (bm.Geometric, "p", lambda x: 1 / np.mean(x)), (bm.Exponential, "scale", np.mean)],
    ids=["Normal", "Geometric", "Exponential"],
)
def test_tied_nodes_use_the_data_of_all(family, name, estimate):
    """A peer uses those of the first alone."""
    rng = np.random.default_rng(3)
    draw = {N: lambda m: rng.normal(m, 1, 60), bm.Geometric: lambda m: rng.geometric(1 / (1 + m), 60)}
    both = [draw.get(family, lambda m: rng.exponential(m, 60))(m) for m in (2.0, 9.0)]
    spec = M(C(a=family(tie="t"), b=family(tie="t")), 1).with_flat_priors()
    fit, _ = fitted(spec, {"a": both[0], "b": both[1]})
    assert fit.params[f"t_{name}"] == pytest.approx(estimate(np.concatenate(both)), rel=1e-6)


@pytest.mark.parametrize("method", ENGINES)
def test_hierarchical_sequences_of_unequal_length(method):
    """A peer's weights are .015 and .985 where they are a half each."""
    rng = np.random.default_rng(4)
    rows = [rng.normal(8 * (i % 2), 1, rng.integers(1, 9) if i % 2 else 12).tolist() for i in range(80)]
    fit, caught = fitted(bm.HierarchicalMixture(N(), n_topics=2, n_mixtures=2), rows, method)
    assert not caught
    np.testing.assert_allclose(fit.posterior["weights"].mean(("chain", "draw")), 0.5, atol=0.06)
    assert_sane(fit, rows)


@pytest.mark.parametrize("method", ENGINES)
def test_an_inner_component_on_one_point(method):
    """A peer takes a variance of 2e-241 for the best fit; here the prior holds it, and the point is said."""
    values = np.r_[np.zeros(20), np.random.default_rng(5).normal(3, 1, 80)]
    fit, caught = fitted(M(M(N(), 2), 2), values, method)
    assert any("20 of 100 values are exactly 0, a spike" in str(each.message) for each in caught)
    assert fit.posterior["sigma"].min() > 1e-4
    assert_sane(fit, values)


@pytest.mark.slow
def test_weights_are_sampled_and_mix():
    """Peers sample no weights, or leave them at equal; 500 rows gave a bulk ESS of 15 to 27 in 17 to 52 s."""
    import arviz_stats as azs

    rng = np.random.default_rng(6)
    x = np.r_[rng.normal(-2, 1, 150), rng.normal(2, 1, 350)]
    fit = bm.fit(M(N(), 2), x, method="nuts", random_seed=1, draws=500, tune=500)
    weights = fit.posterior["weights"]
    assert weights.mean(("chain", "draw")).values == pytest.approx([0.3, 0.7], abs=0.06)
    assert 0.01 < float(weights.std(("chain", "draw"))[0]) < 0.05
    assert float(azs.ess(fit.posterior, method="bulk")["weights"].min()) > 400


def test_the_sd_of_a_scale_in_advi():
    """A peer's is 4e-7 where the posterior's is .05: about sigma / sqrt(2 n)."""
    x = np.random.default_rng(8).normal(0, 1, 200)
    fit, _ = fitted(M(N(), 1), x, "advi")
    assert float(fit.posterior["sigma"].std(("chain", "draw"))[0]) == pytest.approx(1 / np.sqrt(400), rel=0.3)
