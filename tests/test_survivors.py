"""What the other tests left unsaid: each of these fails under a change of the code that they had all let pass."""

import decimal
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix import conjugate, relabel
from bayesmix.bound import prepare
from bayesmix.data import read
from bayesmix.families._summaries import codes_of, robust_center_and_scale
from bayesmix.impute import _majority, _mode
from bayesmix.inference import em, start
from bayesmix.inference.accelerate import Anderson, Coordinates
from bayesmix.inference.quasi_newton import Complete, QuasiNewton
from bayesmix.mstep import _newton, ascent_direction, hessian_by_differences
from bayesmix.plan import EStep
from bayesmix.relabel import METHODS, in_canonical_order, non_permutation_rate, relabelled
from bayesmix.summaries import Quartiles


def bound_of(spec, table):
    return prepare(spec, table, None)[1]


# ------------------------------------------------------------------- families and M-steps


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_a_collapse_is_judged_in_the_columns_unit_Normal_Exponential_MvNormal(unit):
    x = unit * np.random.default_rng(0).exponential(size=(40, 2))
    for family, column, name, power in [
        (bm.Normal(), x[:, 0], "sigma", 1),
        (bm.Exponential(), x[:, 0], "scale", 1),
        (bm.MvNormal(), list(x), "cov", 2),
    ]:
        leaf = bound_of(family, column).site
        wide = np.array([1.0, 1e-4, 1e-15]) ** power * unit**power
        value = wide if power == 1 else wide[:, None, None] * np.eye(2)
        assert leaf.node.collapsed({name: value}, leaf.learned).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("family", "column", "bad"),
    [
        (bm.Poisson(), [0, 3, 2], -1),
        (bm.Poisson(), [0, 3, 2], 1.5),
        (bm.Geometric(), [1, 3, 2], 0),
        (bm.Exponential(), [0.5, 3.0, 2.0], -0.5),
        (bm.LogNormal(), [0.5, 3.0, 2.0], 0.0),
        (bm.Bernoulli(), [0, 1, 1], 2),
        (bm.SpikeAndSlab(lower=0, upper=5), [0, 3, 3], 6),
    ],
)
def test_a_new_table_is_held_to_the_support_as_the_fitted_one_was(family, column, bad):
    fit = bm.fit_em(family, {"x": column}, random_seed=1)
    for method in (fit.log_density, fit.impute):
        with pytest.raises(bm.DataError, match=r"x: .*row 1"):
            method({"x": [column[0], bad]})


def test_densities_of_counts_keep_their_digits_where_the_formula_changes_Poisson():
    counts = np.array([13, 14, 15, 16, 17, 20, 50, 1000])
    _, bound, encoded, _, _ = prepare(bm.Poisson(), counts, None)
    found = [bound.log_density({"mu": np.array([float(x)])}, encoded)[i] for i, x in enumerate(counts)]
    with decimal.localcontext(prec=40):
        exact = [
            float(decimal.Decimal(x**x).ln() - decimal.Decimal(math.factorial(x)).ln() - x) for x in counts.tolist()
        ]
    # below 16 the terms that cancel are up to 30: their rounding is 1e-14
    np.testing.assert_allclose(found[3:], exact[3:], rtol=0, atol=3e-15)
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-14)


def test_a_probability_without_rows_is_a_half_and_symbols_without_rows_are_equally_likely():
    flat, flats = conjugate.Beta(np.ones(2), np.ones(2)), conjugate.Dirichlet(np.ones((2, 4)))
    p = conjugate.probability(flat, np.array([0.0, 3.0]), np.array([0.0, 4.0]))
    np.testing.assert_array_equal(p, [0.5, 0.75])
    p = conjugate.probabilities(flats, np.array([[0.0, 0, 0, 0], [1, 0, 1, 2]]))
    np.testing.assert_array_equal(p, [[0.25] * 4, [0.25, 0, 0.25, 0.5]])


def test_of_no_values_the_median_is_zero_and_the_scale_what_was_given():
    nothing = Quartiles.of(np.array([np.nan, np.nan]))
    assert robust_center_and_scale(nothing) == (0.0, 1.0)
    assert robust_center_and_scale(nothing, 2.5) == (0.0, 2.5)


def test_a_spike_that_is_given_gets_the_share_of_its_own_value_SpikeAndSlab():
    spec = bm.SpikeAndSlab(lower=3, upper=7, k=5, p=bm.Flat())
    fit = bm.fit_em(spec, [5, 5, 5, 3, 7, 4, 5, 6], random_seed=1)
    np.testing.assert_allclose(fit.params["p"], 0.5)


def test_points_for_the_starts_have_one_scale_BernoulliSet_MarkovChain():
    """Each symbol less its share, in units of its binomial sd; shares are those with half a row of each kind added."""
    rng = np.random.default_rng(0)
    rows = [frozenset(np.flatnonzero(rng.random(3) < (0.2, 0.5, 0.7)).tolist()) for _ in range(400)]
    _, bound, encoded, _, _ = prepare(bm.BernoulliSet(), {"s": rows}, None)
    points = bound.site.features(encoded)
    holds = np.array([[symbol in row for symbol in range(3)] for row in rows], float)
    share = (holds.sum(0) + 0.5) / (len(rows) + 1)
    np.testing.assert_allclose(points, (holds - share) / np.sqrt(share * (1 - share)), rtol=1e-12)

    chains = [list("abab"), list("ba"), list("bbb")]  # of pairs aa, ab, ba, bb: 0, 2, 2, 2
    _, bound, encoded, _, _ = prepare(bm.MarkovChain(), {"c": chains}, None)
    pairs = np.array([[0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 2]])
    share = np.array([0.5, 2.5, 2.5, 2.5]) / 8
    total = pairs.sum(1, keepdims=True)
    expected = (pairs - total * share) / np.sqrt(total * share)
    np.testing.assert_allclose(bound.site.features(encoded)[:, :4], expected, rtol=1e-12)


# ------------------------------------------------------------------- EM


def test_the_leap_lands_on_the_fixed_point_of_a_linear_map_however_near_it_is():
    turn = np.array([[0.9, 0.2], [-0.1, 0.7]])
    there = np.array([0.3, -0.2])
    for away in (1.0, 1e-3, 1e-6):
        leaps, point = Anderson(), there + away * np.array([0.05, 0.02])
        for _ in range(3):  # two dimensions: after three points the map is known
            point = leaps.propose(point, there + turn @ (point - there))
        np.testing.assert_allclose(point, there, rtol=0, atol=1e-7 * away)


def test_newtons_direction_leads_up_and_stays_where_nothing_changes():
    hessian, gradient = np.diag([-2.0, 0.0, 4.0]), np.array([3.0, 0.0, 2.0])
    np.testing.assert_allclose(ascent_direction(hessian, gradient), [1.5, 0.0, 0.5])


@pytest.mark.parametrize("accelerate", [True, False])
def test_em_without_tolerance_ends_at_the_mode_soon(accelerate):
    """The further steps would only follow rounding."""
    x = np.random.default_rng(3).normal(size=400) + np.repeat([0.0, 6.0], 200)
    for spec, column in [
        (bm.Mixture(bm.Normal(), 2), x),
        (bm.Mixture(bm.Poisson(), 2), np.abs(x).round()),
        (bm.Mixture(bm.Normal(sigma=[1.0, 1.0]), 2), x),
    ]:
        fit = bm.fit_em(spec, column, tol=0, n_starts=1, accelerate=accelerate, random_seed=1)
        assert fit.status.converged
        assert len(fit.history) < (30 if accelerate else 120)


def test_plain_em_stops_when_less_than_the_tolerance_is_left_to_gain():
    """Its last gain alone says little: here they shrink by a few percent an iteration."""
    x = np.random.default_rng(3).normal(size=200) + np.repeat([0.0, 2.2], 100)
    spec = bm.Mixture(bm.Normal(sigma=1.0), 2)
    mode = bm.fit_em(spec, x, tol=0, n_starts=1, random_seed=1)
    ended = {}
    for tol in (1e-2, 1e-5):
        fit = bm.fit_em(spec, x, tol=tol, n_starts=1, accelerate=False, random_seed=1)
        assert fit.status.converged
        assert 0 <= mode.history[-1] - fit.history[-1] < 3 * tol
        ended[tol] = len(fit.history)
    assert ended[1e-2] < ended[1e-5]


def test_a_sample_for_the_starts_has_the_weight_of_all_rows_unless_few_rows_have_most_of_it():
    x = np.random.default_rng(0).normal(size=2000)
    _, bound, encoded, _, _ = prepare(bm.Mixture(bm.Normal(), 2), x, None)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, 2000)
    data, own = EStep(bound, encoded, weights).sample(500, np.random.default_rng(2))
    assert data.n_rows == len(own) == 500
    assert own.sum() == pytest.approx(weights.sum())
    few = np.where(np.arange(2000) < 3, 1e6, 1e-6)
    assert EStep(bound, encoded, few).sample(500, np.random.default_rng(2)) is None


def test_tables_of_less_than_two_samples_are_taken_whole(monkeypatch):
    monkeypatch.setattr(start, "_SAMPLE", 500)
    x = np.random.default_rng(0).normal(size=2000)
    _, bound, encoded, weights, _ = prepare(bm.Mixture(bm.Normal(), 2), x, None)
    data, own = em._sample(EStep(bound, encoded, weights), np.random.default_rng(2))
    assert data.n_rows == len(own) == 500
    short = EStep(bound, encoded.take(np.arange(999)), weights[:999])
    assert em._sample(short, np.random.default_rng(2)) is None


def test_every_start_gets_its_short_run_and_only_the_best_are_finished():
    x = np.random.default_rng(0).normal(size=300) + np.repeat([0.0, 3.0, 9.0], 100)
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, n_starts=12, random_seed=1)
    assert len(fit.starts) == 12
    for each in fit.starts:
        assert np.isfinite(each["objective"])
        assert each["iterations"] >= 10 or each["status"] == "converged"
    assert any(start["status"].startswith("not finished") for start in fit.starts)
    assert fit.history[-1] == max(start["objective"] for start in fit.starts)


def test_a_spec_of_numbers_has_converged_at_once_Normal():
    spec = bm.Mixture(bm.Normal(mu=[-1.0, 1.0], sigma=1.0), 2, weights=[0.3, 0.7])
    fit = bm.fit_em(spec, [-1.5, -1.2, -0.8, 0.2, 0.6, 1.0, 1.4, 1.7], random_seed=1)
    assert fit.status.converged
    assert len(fit.history) == 1


# ------------------------------------------------------------------- imputation


def test_whole_numbers_that_may_be_missing_take_real_numbers_as_a_real_column():
    frame = pd.DataFrame({"x": pd.array([1, 4, None, 3, 2, 5], dtype="Int64")}, index=list("abcdef"))
    fit = bm.fit_em(bm.Normal(), frame, random_seed=1)
    imputed = fit.impute(n_draws=5, random_seed=1)
    filled = imputed.table(0)
    assert str(filled["x"].dtype) == "Float64"
    assert filled["x"].loc["c"] == imputed.draws["x"][0, 0]
    assert filled["x"].drop("c").tolist() == [1, 4, 3, 2, 5]
    assert str(frame["x"].dtype) == "Int64"


def test_imputed_vectors_keep_what_was_observed_and_say_which_coordinates_were_drawn():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 3))
    rows[4, 1] = rows[7, 0] = rows[7, 2] = np.nan
    count = rng.poisson(3, 30).astype(float)
    count[4] = np.nan
    fit = bm.fit_em(
        bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 1), {"v": list(rows), "n": count}, random_seed=1
    )
    imputed = fit.impute(n_draws=20, random_seed=1)
    assert set(imputed.coordinates) == {"v"}
    np.testing.assert_array_equal(imputed.coordinates["v"], [[False, True, False], [True, False, True]])
    assert imputed.draws["v"].shape == (20, 2, 3)
    assert (imputed.draws["v"][:, 0, [0, 2]] == rows[4, [0, 2]]).all()
    assert (imputed.draws["v"][:, 1, 1] == rows[7, 1]).all()
    assert imputed.draws["v"][:, 0, 1].std() > 0
    # one line for each number that is missing, and none for those that are not
    assert imputed.summary().index.tolist() == [("v[1]", 4), ("v[0]", 7), ("v[2]", 7), ("n", 4)]


def test_records_in_one_column_are_filled_where_they_stand():
    records = pd.Series([(1.0, 2), (2.0, None), (np.nan, 3), (1.5, 2)], index=list("abcd"))
    frame = pd.DataFrame({"record": records})
    fit = bm.fit_em(bm.Composite(x=bm.Normal(), y=bm.Poisson()), frame, random_seed=1)
    imputed = fit.impute(n_draws=3, random_seed=1)
    filled = imputed.table(0)
    assert list(filled.columns) == ["record"]
    assert filled["record"]["a"] == (1.0, 2)
    assert filled["record"]["b"] == (2.0, imputed.draws["y"][0, 0])
    assert filled["record"]["c"] == (imputed.draws["x"][0, 0], 3)


# ------------------------------------------------------------------- order of the components


def test_components_of_equal_weight_come_in_one_order_whatever_their_labels():
    spec = bm.Mixture(bm.Composite(a=bm.Poisson(), b=bm.Categorical()), 3)
    bound = bound_of(spec, {"a": [1, 2, 9, 4], "b": ["x", "y", "z", "x"]})
    params = {
        "weights": np.full(3, 1 / 3),
        "a_mu": np.array([5.0, 1.0, 3.0]),
        "b_p": np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]),
    }
    for order in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        found = in_canonical_order(bound, {name: value[order] for name, value in params.items()})
        np.testing.assert_array_equal(found["a_mu"], [1.0, 3.0, 5.0])
        np.testing.assert_array_equal(found["b_p"], params["b_p"][[1, 2, 0]])


def test_clusters_of_draws_are_told_apart_where_probabilities_are_zero_or_one_Categorical():
    bound = bound_of(bm.Mixture(bm.Categorical(), 2), list("abcab"))
    reference = {"weights": np.array([0.4, 0.6]), "p": np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])}
    clean = {name: np.repeat(value[None], 8, axis=0) for name, value in reference.items()}
    turned = {name: np.concatenate([value, value[:, ::-1]]) for name, value in clean.items()}
    for draws in (clean, turned):
        assert non_permutation_rate(bound, bound.symmetries[0], draws, reference) == 0
    alike = {**clean, "p": np.repeat(clean["p"][:, :1], 2, axis=1)}
    mixed = {name: np.concatenate([clean[name], alike[name]]) for name in clean}
    assert non_permutation_rate(bound, bound.symmetries[0], mixed, reference) == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_only_components_of_one_prior_change_places(method):
    """The third has a scale of its own: draws in which the first two changed places come back, each to its own."""
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, 30) for m in (-6, 0, 6)])
    mode = bm.fit_em(bm.Mixture(bm.Normal(sigma=[1.0, 1.0, 2.0]), 3), x, random_seed=0)
    turns = [[0, 1, 2], [1, 0, 2], [1, 0, 2], [0, 1, 2], [1, 0, 2]]
    draws = {name: np.array([[mode.params[name][turn] for turn in turns]]) for name in ("weights", "mu")}
    back, report = relabelled(mode.bound, draws, mode.encoded, mode.params, method=method)
    for name, value in back.items():
        np.testing.assert_array_equal(value, np.broadcast_to(mode.params[name], value.shape))
    assert report.share_moved == 0.6


def test_rows_for_relabelling_are_as_many_as_its_arrays_may_hold(monkeypatch):
    """For each draw and row, a probability of each label in each copy of the mixture inside."""
    monkeypatch.setattr(relabel, "_MOST_NUMBERS", 24_000)
    _, bound, encoded, _, _ = prepare(bm.Mixture(bm.Mixture(bm.Normal(), 3), 4), np.arange(600.0), None)
    assert relabel._rows(bound, encoded, bound.symmetries, 10).n_rows == 24_000 // (10 * 4 * 3)
    assert relabel._rows(bound, encoded, bound.symmetries, 1).n_rows == 600


# ------------------------------------------------------------------- what specs say of themselves


def test_a_spec_shows_what_was_given_and_nothing_else():
    assert repr(bm.SpikeAndSlab(lower=0, upper=9)) == "SpikeAndSlab(lower=0, upper=9)"
    assert repr(bm.Normal(tie="both")).count("tie") == 1
    for spec in (bm.Poisson(), bm.SpikeAndSlab(), bm.Categorical(), bm.BernoulliSet()):
        assert repr(spec) == f"{type(spec).__name__}()"


# ------------------------------------------------------------------- EM's steps


def test_em_ends_at_once_where_a_step_changes_nothing():
    x = np.random.default_rng(0).normal(size=50)
    for spec, column in [(bm.Normal(), x), (bm.Mixture(bm.Normal(), 1), x), (bm.Poisson(), [1, 2, 3, 9])]:
        for accelerate in (True, False):
            fit = bm.fit_em(spec, column, tol=0, accelerate=accelerate, n_starts=1, random_seed=1)
            assert len(fit.history) == 1


def test_coordinates_lead_back_to_the_values_also_where_probabilities_have_a_floor():
    fields = bm.Composite(s=bm.Categorical(), v=bm.MvNormal(), b=bm.Bernoulli(), n=bm.Poisson())
    rng = np.random.default_rng(0)
    table = {"s": list("abc") * 5, "v": list(rng.normal(size=(15, 2))), "b": [0, 1, 1] * 5, "n": [0, 4, 2] * 5}
    for floor in (0.0, 0.1):
        bound = bound_of(bm.Mixture(fields, 2, min_weight=floor), table)
        params = start.initial_params(bound, bound.encode(table), np.ones(15), rng, 0)
        coordinates = Coordinates(bound)
        back = coordinates.backward(coordinates.forward(params), params)
        for name, value in params.items():
            np.testing.assert_allclose(back[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


def test_probabilities_above_a_floor_are_those_of_the_highest_likelihood():
    """Against all ways to hold some of them at the floor."""
    p = np.random.default_rng(1).dirichlet(np.full(4, 0.3), size=(3, 2))
    p[0, 0] = [0.97, 0.01, 0.01, 0.01]
    found = conjugate._above(0.05, p)
    for q, own in zip(p.reshape(-1, 4), found.reshape(-1, 4)):
        best = -np.inf
        for held in itertools.product([False, True], repeat=4):
            if all(held):
                continue
            rest = np.where(held, 0.0, q)
            each = np.where(held, 0.05, (1 - 0.05 * sum(held)) * rest / rest.sum())
            if (each >= 0.05 - 1e-12).all():
                best = max(best, float(q @ np.log(each)))
        assert own.min() >= 0.05 - 1e-12
        np.testing.assert_allclose([own.sum(), q @ np.log(own)], [1.0, best], rtol=1e-12)


def test_differences_of_a_gradient_that_ends_nearby_are_taken_inside():
    def gradient(u):
        return np.where(np.abs(u) < 1e-7, 3.0 * u, np.sign(u) * np.inf)

    np.testing.assert_allclose(hessian_by_differences(gradient, np.zeros(1)), [[3.0]], rtol=1e-6)


def test_newton_stays_where_there_is_no_gradient_to_follow():
    np.testing.assert_array_equal(_newton(lambda u: (0.0, np.array([np.inf])), np.array([0.5])), [0.5])


def test_a_run_on_a_saddle_goes_on_from_near_it():
    x = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], 60), 1)
    bound = bound_of(bm.Mixture(bm.Normal(), 2), x)
    e_step = EStep(bound, bound.encode(x), np.ones(120))
    alike = {"weights": np.full(2, 0.5), "mu": np.full(2, x.mean()), "sigma": np.full(2, x.std())}
    run = em.Run(alike)
    em.advance(e_step, run, 500, 1e-8, True)
    assert run.status == "converged"
    assert np.ptp(run.params["mu"]) == 0
    assert em._leave_saddle(e_step, run, np.random.default_rng(1), renew=False)
    assert run.status == "running"
    em.advance(e_step, run, 500, 1e-8, True)
    np.testing.assert_allclose(np.sort(run.params["mu"]), [-3, 3], atol=0.3)
    assert not em._leave_saddle(e_step, run, np.random.default_rng(1), renew=False)


def test_starts_that_an_interruption_cut_off_say_so():
    x = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], 60), 1)
    bound = bound_of(bm.Mixture(bm.Normal(), 2), x)
    e_step = EStep(bound, bound.encode(x), np.ones(120))
    runs = [em.Run(start.initial_params(bound, e_step.data, np.ones(120), np.random.default_rng(i), i)) for i in (0, 1)]
    em.advance(e_step, runs[0], 500, 1e-8, True)
    em.advance(e_step, runs[1], 1, 1e-8, True)
    em._best_so_far(e_step, runs)
    assert "not finished" in runs[1].status


def test_the_quasi_newton_step_ends_a_quadratic_and_its_radius_follows_what_was_gained():
    complete = SimpleNamespace(information=lambda u, stats, like: np.eye(2))
    curvature = np.array([0.3, 0.05])  # in the metric EM's step is the gradient: -curvature * u
    path = [np.array([1.0, 0.0]), np.array([0.7, 0.0]), np.array([0.49, 0.0])]
    quasi = QuasiNewton(complete)
    quasi.begin(path, {}, {})
    here = path[-1]
    np.testing.assert_allclose(quasi.propose(here, (1 - curvature) * here, -curvature * here), 0.0, atol=1e-12)
    for gained, radius in [(0.9, 3.0), (0.5, 1.0), (0.05, 0.5), (-1.0, 0.25)]:
        quasi.radius, quasi.length, quasi.predicted = 1.0, 1.0, 1.0
        quasi.judge(gained, 0.0)
        assert quasi.radius == radius


def test_rows_of_less_than_one_in_all_give_the_mode_that_they_should_Normal():
    weights = np.array([0.2, 0.3])
    em_fit = bm.fit_em(bm.Normal(), [1.0, 4.0], row_weights=weights, tol=0, random_seed=1)
    mode = bm.fit_map(bm.Normal(), [1.0, 4.0], row_weights=weights, random_seed=1)
    for name in ("mu", "sigma"):
        np.testing.assert_allclose(em_fit.params[name], mode.params[name], rtol=1e-5)


# ------------------------------------------------------------------- families, imputation, order


def test_pymcs_density_of_rows_that_lack_coordinates_is_that_of_the_others_MvNormal():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 3))
    rows[1, 0] = rows[2, 1:] = rows[4, 2] = np.nan
    mu, root = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    cov = root @ root.swapaxes(1, 2) + np.eye(3)
    spec = bm.Mixture(bm.MvNormal(mu=mu, cov=cov), 2, weights=[0.3, 0.7])
    expected = 0.0
    for row in rows:
        seen = ~np.isnan(row)
        own = [stats.multivariate_normal(mu[k][seen], cov[k][np.ix_(seen, seen)]).pdf(row[seen]) for k in (0, 1)]
        expected += np.log([0.3, 0.7] @ np.array(own))
    model = bm.build_model(spec, list(rows), likelihood="graph")
    found = model.compile_fn(model.logp(), inputs=[], mode="NUMBA", point_fn=False)()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_symbols_that_nothing_names_are_equally_likely_Categorical():
    bound = bound_of(bm.Categorical(p=[0.2, 0.3, 0.5]), {"x": [0, 1, 2, 2]})
    assumed = bound.site.node.assume(None)
    np.testing.assert_allclose(assumed.frequencies, np.full(3, 1 / 3))


def test_the_centre_of_sets_holds_what_is_in_more_than_half_of_them():
    draws = np.empty((5, 1), object)
    draws[:, 0] = [frozenset(s) for s in ("ab", "ab", "a", "c", "a")]
    assert _majority(draws)[0] == frozenset("a")


def test_weights_that_differ_by_millionths_settle_the_order():
    bound = bound_of(bm.Mixture(bm.Categorical(), 2), {"x": ["a", "b", "a"]})
    p = np.array([[0.3, 0.7], [0.6, 0.4]])
    found = in_canonical_order(bound, {"weights": np.array([0.499998, 0.500002]), "p": p})
    np.testing.assert_array_equal(found["p"], p[::-1])
    same = in_canonical_order(bound, {"weights": np.array([0.500002, 0.499998]), "p": p})
    np.testing.assert_array_equal(same["p"], p)


def test_the_mode_of_imputed_records_tells_them_apart():
    draws = np.empty(3, object)
    draws[:] = [{"a": 1, "b": (2,)}, {"a": 2, "b": (2,)}, {"a": 2, "b": (2,)}]
    assert _mode(draws) == ({"a": 2, "b": (2,)}, 2 / 3)


def test_the_traits_of_a_vector_have_its_coordinates_names_MvNormal():
    x = np.random.default_rng(0).normal(size=(9, 2))
    leaf = bound_of(bm.MvNormal(), pd.DataFrame(x, columns=["u", "v"])).site
    traits, *_ = leaf.node.traits({"mu": x[:2], "cov": np.tile(np.eye(2), (2, 1, 1))}, leaf.learned)
    assert traits.names == ("mean of u", "mean of v")


def test_a_collapse_of_logarithms_is_judged_by_their_spread_LogNormal():
    for spread in (0.01, 1.0, 50.0):
        x = np.exp(spread * np.random.default_rng(0).normal(size=40))
        leaf = bound_of(bm.LogNormal(), x).site
        sigma = spread * np.array([1.0, 1e-4, 1e-8])
        assert leaf.node.collapsed({"sigma": sigma}, leaf.learned).tolist() == [False, False, True]


def test_the_metric_of_the_quasi_newton_steps_is_minus_the_hessian_of_ems_surrogate():
    x = np.random.default_rng(0).normal(np.repeat([-2.0, 2.0], 30), 1)
    table = {"x": x, "y": np.arange(60) % 5, "v": list(np.c_[x, x[::-1]])}
    bound = bound_of(
        bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Poisson(), v=bm.MvNormal()), 2, weights=[0.4, 0.6]), table
    )
    complete = Complete(bound)
    params = start.initial_params(bound, bound.encode(table), np.ones(60), np.random.default_rng(0), 0)
    _, stats = EStep(bound, bound.encode(table), np.ones(60))(params)
    u = complete.coordinates.forward(params)
    expected = -hessian_by_differences(lambda at: complete.gradient(at, u + 0.01, stats, params), u)
    found = complete.information(u, stats, params)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected - np.diag(np.diag(expected))).max() > 0.01 * np.abs(expected).max()


def test_correlations_are_told_of_few_coordinates_and_not_of_many_MvNormal():
    for d, told in ((2, 1), (30, 0)):
        x = np.random.default_rng(0).normal(size=(80, d))
        leaf = bound_of(bm.MvNormal(), pd.DataFrame(x, columns=[f"c{i}" for i in range(d)])).site
        traits = leaf.node.traits({"mu": x[:1], "cov": np.eye(d)[None]}, leaf.learned)
        assert sum(name.startswith("correlation") for each in traits for name in each.names) == told


def test_the_size_of_a_column_with_one_number_is_that_number_Exponential():
    assert bound_of(bm.Exponential(), {"x": [3.0]}).site.learned.scale == 3.0
    assert bound_of(bm.Exponential(), {"x": [3.0, 5.0, None]}).site.learned.scale == 4.0


def test_a_missing_symbol_is_none_of_the_levels():
    (column,) = read({"s": ["b", None, "a", "z"]}).columns
    assert codes_of(column, ("a", "b")).tolist() == [1, -1, 0, -1]


def test_clusters_of_draws_begin_at_the_reference_whatever_the_first_draw_is():
    bound = bound_of(bm.Mixture(bm.Normal(sigma=1.0), 3), np.arange(9.0))
    (symmetry,) = bound.symmetries
    mu = np.random.default_rng(0).normal([-5.0, 0.0, 5.0], 0.01, (50, 3))
    mu[0] = [-5.01, -5.0, -4.99]
    flat = {"mu": mu, "weights": np.full((50, 3), 1 / 3)}
    reference = {"mu": np.array([-5.0, 0.0, 5.0]), "weights": np.full(3, 1 / 3), "sigma": np.ones(3)}
    assert non_permutation_rate(bound, symmetry, flat, reference) == 1 / 50
