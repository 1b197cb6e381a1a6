"""Bugs that were found by using the library, each told as a test."""

from __future__ import annotations

import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pymc as pm
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of, variables_at
from bayesmix.data import read
from bayesmix.inference.advi import _FullRank
from bayesmix.inference.em import maximise
from bayesmix.inference.nuts import laplace_sd, separated
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.seeds import entropy_of

RNG = np.random.default_rng(0)
CLOSE = np.concatenate([RNG.normal(-1, 1, 100), RNG.normal(1.3, 1, 100)])
APART = np.concatenate([RNG.normal(-4, 1, 50), RNG.normal(4, 1, 50)])


def laplace(values):
    from bayesmix.bound import bind
    from bayesmix.data import read

    table = read(values)
    bound = bind(bm.Mixture(bm.Normal(), 2), table)
    data = bound.encode(table)
    mode, _ = maximise(bound, data, np.ones(len(values)), random_seed=1, n_starts=4)
    target = Target(model_of(bound, data, initval=mode.params), variables_at(bound, mode.params), jacobian=True)
    factor = laplace_factor(target.hessian(target.start))
    return bound, mode.params, target, factor


@pytest.mark.parametrize(("scale", "offset"), [(1e4, 0.0), (1e6, 0.0), (1e-8, 0.0), (1.0, 1e9)])
def test_laplace_scales_do_not_depend_on_the_unit_of_the_column_Normal(scale, offset):
    """Curvatures of different units were compared: at a scale of 1e4 the order of close components was imposed."""
    bound, params, target, factor = laplace(CLOSE)
    plain = laplace_sd(bound, target, factor)["mu"]
    moved_bound, moved_params, moved_target, moved_factor = laplace(CLOSE * scale + offset)
    moved = laplace_sd(moved_bound, moved_target, moved_factor)["mu"]
    np.testing.assert_allclose(moved / scale, plain, rtol=1e-3)
    assert separated(moved_bound, moved_params, moved_target, moved_factor) == separated(bound, params, target, factor)


@pytest.mark.parametrize(
    "component",
    [
        pytest.param(lambda: bm.Normal(mu=pm.StudentT.dist(4, mu=np.array([4.0, -4.0]), sigma=0.1)), id="Normal"),
        pytest.param(lambda: bm.Normal(mu=pm.Normal.dist(np.array([4.0, -4.0]), 0.1)), id="Normal-conjugate"),
    ],
)
def test_components_that_a_prior_tells_apart_are_not_reordered(component):
    fit = bm.fit_em(bm.Mixture(component(), 2), APART, random_seed=0)
    assert fit.loglik + fit.bound.log_prior(fit.params) == pytest.approx(fit.history[-1], abs=1e-6)
    assert fit.params["mu"][0] > fit.params["mu"][1]


def test_a_prior_on_part_of_the_support_can_be_started_Normal():
    sigma = pm.Truncated.dist(pm.Normal.dist(0, 1), lower=0.0, upper=5.0)
    fit = bm.fit_em(bm.Mixture(bm.Normal(sigma=sigma), 2), APART, random_seed=1)
    np.testing.assert_allclose(fit.params["mu"], [-4, 4], atol=0.5)


def test_entropy_of_many_small_scales_does_not_underflow():
    family = _FullRank.__new__(_FullRank)
    family.size, family.factor, family.diagonal = 150, 1e-3 * np.eye(150), np.ones(150, bool)
    expected = 150 * (np.log(1e-3) + 0.5 * (1 + np.log(2 * np.pi)))
    assert family.entropy(np.zeros(300)) == pytest.approx(expected)


def test_children_of_a_seed_sequence_differ():
    a, b = (entropy_of(child) for child in np.random.SeedSequence(1).spawn(2))
    assert a != b


# ------------------------------------------------------------------- tables


def test_columns_named_by_numbers_MvNormal():
    """The names that pandas gives by itself."""
    x = RNG.normal(size=(30, 2))
    named = bm.fit(bm.Mixture(bm.MvNormal(), 2), pd.DataFrame(x), random_seed=1)
    plain = bm.fit(bm.Mixture(bm.MvNormal(), 2), x, random_seed=1)
    np.testing.assert_array_equal(named.params["mu"], plain.params["mu"])


def test_two_columns_of_one_name():
    frame = pd.DataFrame(np.ones((3, 2)), columns=["a", "a"])
    with pytest.raises(bm.DataError, match="Rename"):
        bm.fit(bm.Mixture(bm.Composite(a=bm.Normal()), 1), frame)


def test_counts_beyond_doubles_are_an_error_Poisson():
    with pytest.raises(bm.DataError, match=r"row 0 is 1e\+20"):
        bm.fit(bm.Mixture(bm.Poisson(), 1), [1e20, 3.0, 4.0])


def test_rows_without_weight_do_not_count_as_distinct_Normal():
    with pytest.raises(bm.DataError, match="3 components but only 2"):
        bm.fit(bm.Mixture(bm.Normal(), 3), [1.0, 2.0, 3.0, 4.0], row_weights=[1, 1, 0, 0])


def test_imputation_leaves_other_columns_and_types_alone():
    frame = pd.DataFrame(
        {
            "flag": pd.array([True, None, False] * 4, dtype="boolean"),
            "a": np.array([np.nan, *RNG.normal(size=11)], "float32"),
            "c": pd.Categorical(["x", None, *list("xyxyxyxyxy")]),
        }
    )
    fit = bm.fit(bm.Mixture(bm.Composite(a=bm.Normal(), c=bm.Categorical()), 1), frame)
    filled = fit.impute(random_seed=1, n_draws=20).table()
    assert filled.dtypes.tolist() == frame.dtypes.tolist()
    pd.testing.assert_series_equal(filled["flag"], frame["flag"])
    assert not filled[["a", "c"]].isna().any().any()
    assert frame["a"].isna().sum() == 1  # the caller's own frame is not touched


def test_imputation_keeps_polars_types():
    frame = pl.DataFrame(
        {
            "c": pl.Series(["x", "y", None] * 4, dtype=pl.Enum(["x", "y"])),
            "n": [None, *range(11)],
            "z": [None, True] * 6,
        }
    )
    fit = bm.fit(bm.Mixture(bm.Composite(c=bm.Categorical(), n=bm.Poisson()), 1), frame)
    filled = fit.impute(random_seed=1, n_draws=20).table()
    assert filled.schema == frame.schema
    assert filled["z"].to_list() == frame["z"].to_list()
    assert filled["c"].null_count() == filled["n"].null_count() == 0


def test_imputation_of_positional_fields_and_records():
    by_place = bm.fit(bm.Mixture(bm.Composite(bm.Normal(), bm.Poisson()), 1), {"a": [1.0, 2, None], "b": [1, None, 3]})
    assert not by_place.impute(random_seed=1, n_draws=20).table().isna().any().any()
    cells = [{"a": 1.0, "b": 2}, {"a": None, "b": 2}, {"a": 2.0, "b": None}, None]
    nested = bm.fit(bm.Mixture(bm.Composite(v=bm.Composite(a=bm.Normal(), b=bm.Poisson())), 1), {"v": cells})
    filled = nested.impute(random_seed=1, n_draws=20).table()["v"].tolist()
    assert filled[0] == cells[0]
    assert all(set(record) == {"a", "b"} and None not in record.values() for record in filled)


@pytest.mark.parametrize("as_frame", [pd.DataFrame, pl.DataFrame])
def test_imputation_fills_the_columns_that_are_read_wherever_they_stand(as_frame):
    """Fields without names read a frame by the fitted names; filled were the columns at their places."""
    table = {"a": [1.0, 2.0, None, 3.0], "b": [1, None, 3, 2]}
    fit = bm.fit(bm.Mixture(bm.Composite(bm.Normal(), bm.Poisson()), 1), as_frame(table))
    expected = fit.impute(as_frame(table), n_draws=5, random_seed=1).table()
    for names in (["b", "a"], ["z", "a", "b"], ["b", "z", "a"]):
        given = as_frame({name: {**table, "z": list("pqrs")}[name] for name in names})
        filled = fit.impute(given, n_draws=5, random_seed=1).table()
        assert list(filled.columns) == names
        for name in names:
            assert filled[name].to_list() == (list("pqrs") if name == "z" else expected[name].to_list())
    one = bm.fit(bm.Normal(), as_frame({"a": table["a"]}))
    filled = one.impute(as_frame({"z": [1, 2], "a": [None, 5.0]}), n_draws=5, random_seed=1)
    assert filled.rows.keys() == {"a"}
    assert filled.table()["a"].to_list()[1] == 5
    assert filled.table()["z"].to_list() == [1, 2]


def test_vectors_are_read_by_name_and_by_coordinates_MvNormal():
    """Columns called x1 and x2 in another order than at the fit were read by their places, and vectors drawn from a
    fit of one column not at all."""
    x = RNG.normal([0, 100], 1, (30, 2))
    frame = pd.DataFrame(x, columns=["x2", "x1"])
    fit = bm.fit(bm.MvNormal(), frame)
    np.testing.assert_array_equal(fit.log_density(frame[["x1", "x2"]]), fit.log_density(frame))
    np.testing.assert_array_equal(fit.log_density(frame.assign(x3=0)[["x3", "x1", "x2"]]), fit.log_density(frame))
    whole = bm.fit(bm.MvNormal(), {"v": x})
    drawn = whole.sample(20, random_seed=1)
    assert list(drawn.columns) == ["v[0]", "v[1]"]
    np.testing.assert_array_equal(whole.log_density(drawn), whole.log_density({"v": drawn.to_numpy()}))


def test_imputation_of_whole_vectors_MvNormal():
    x = RNG.normal(size=(20, 2))
    x[3] = np.nan
    imputed = bm.fit(bm.Mixture(bm.MvNormal(), 1), pd.DataFrame(x, columns=["u", "v"])).impute(
        random_seed=1, n_draws=50
    )
    assert imputed.summary().index.tolist() == [("u", 3), ("v", 3)]
    assert not imputed.table().isna().any().any()


# ------------------------------------------------------------------- arguments and files


def test_nothing_to_estimate_is_said_Normal():
    spec = bm.Mixture(bm.Normal(mu=[0.0, 1.0], sigma=1.0), 2, weights=[0.5, 0.5])
    for method in ("map", "nuts", "advi"):
        with pytest.raises(bm.SpecError, match="every parameter is fixed"):
            bm.fit(spec, APART, method=method)


def test_counts_of_draws_are_checked():
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), APART, random_seed=1)
    for call in (lambda: fit.sample(0), lambda: fit.sample(2.5), lambda: fit.impute(n_draws=0)):
        with pytest.raises(ValueError, match="at least 1"):
            call()
    with pytest.raises(bm.DataError, match="row_weights"):
        bm.fit(bm.Mixture(bm.Normal(), 2), APART, row_weights=["a"] * len(APART))


def test_a_damaged_file_is_said_to_be_damaged(tmp_path):
    fit = bm.fit(bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2.0)), 2), APART, random_seed=1)
    path = tmp_path / "fit.zip"
    fit.save(path)
    assert bm.load(path).params["mu"] == pytest.approx(fit.params["mu"])
    whole = path.read_bytes()
    for begin in (60, 400, len(whole) // 2):
        path.write_bytes(whole[:begin] + bytes(255 - b for b in whole[begin : begin + 140]) + whole[begin + 140 :])
        with pytest.raises(bm.DataError, match=r"damaged|not a saved fit"):
            bm.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "no fit")
    with pytest.raises(bm.DataError, match="not a saved fit"):
        bm.load(path)


def test_a_prior_that_could_not_be_loaded_is_not_saved_Normal(tmp_path):
    own = pm.CustomDist.dist(
        1.0, logp=lambda value, scale: -abs(value) / scale, random=lambda scale, rng, size: rng.normal(size=size)
    )
    fit = bm.fit(bm.Mixture(bm.Normal(mu=own), 1), APART, random_seed=1)
    with pytest.raises(bm.SpecError, match="cannot be saved"):
        fit.save(tmp_path / "fit.zip")
    assert not list(tmp_path.iterdir())


def test_a_row_far_from_every_component_is_said_Normal():
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), APART, random_seed=1)
    with pytest.warns(bm.BayesmixWarning, match="row 1 .* density zero"):
        resp = fit.responsibilities([0.0, 1e200])
    np.testing.assert_array_equal(resp[1], [0, 0])


def test_the_summary_of_a_point_names_what_it_does_not_take():
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), APART, random_seed=1)
    assert fit.summary(var_names=["mu"]).index.tolist() == ["mu[0]", "mu[1]"]
    with pytest.raises(TypeError, match="ci_prob"):
        fit.summary(ci_prob=0.9)


def test_a_fit_inside_a_model_that_is_being_built_leaves_it_alone_Normal():
    """Engines built their model inside whatever model was open."""
    with pm.Model() as own:
        pm.Normal("mine")
        bm.fit(bm.Mixture(bm.Normal(), 2), APART, method="map", random_seed=1)
    assert [rv.name for rv in own.basic_RVs] == ["mine"]


def test_missing_sequences_of_optional_elements_are_imputed():
    """The elements' own missingness was looked up in rows that have none: two missing sequences were too many."""
    rows = [[None if RNG.random() < 0.3 else float(v) for v in RNG.normal(6 * (i % 2), 1, 4)] for i in range(30)]
    rows[3] = rows[4] = None
    fit = bm.fit_em(bm.Mixture(bm.Sequence(bm.Optional(bm.Normal())), 2), rows, n_starts=2, random_seed=1)
    means = fit.impute(n_draws=5, random_seed=1).means["x"]
    np.testing.assert_allclose(means, fit.params["weights"] @ fit.params["mu"], rtol=1e-9)


# ------------------------------------------------------------------- found by random trees (tests/fuzz)

RECORDS = [{"a": 1.0, "b": 2}, {"a": -1.0, "b": 0}, {"a": 2.5, "b": 4}, {"a": 0.2, "b": 1}]


def test_a_record_may_have_a_field_of_its_columns_name():
    spec = bm.Composite(a=bm.Composite(a=bm.Normal(), b=bm.Poisson()))
    fit = bm.fit(spec, {"a": RECORDS})
    assert set(fit.params) == {"a_a_mu", "a_a_sigma", "a_b_mu"}
    assert fit.log_density({"a": [None, RECORDS[0]]})[0] == 0  # a record that is missing says nothing


def test_a_column_of_missing_records_of_one_field_says_nothing():
    fit = bm.fit(bm.Composite(a=bm.Composite(b=bm.Normal())), {"a": [{"b": 1.0}, {"b": 2.0}]})
    np.testing.assert_array_equal(fit.log_density({"a": [None, None]}), [0, 0])


def test_two_hierarchical_mixtures_stand_in_one_spec():
    """Their variables had one name, and their axes one label whatever their lengths."""
    rows = [[float(v) for v in RNG.normal(6 * (i % 2), 1, 3)] for i in range(12)]
    topics = {
        "u": bm.HierarchicalMixture(bm.Normal(), n_topics=2, n_mixtures=2),
        "v": bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=1),
    }
    fit = bm.fit(bm.Composite(topics), {"u": rows, "v": rows}, random_seed=1)
    assert fit.posterior["u_topic_weights"].dims[2:] == ("u_mixture", "u_topic")
    assert fit.posterior["v_topic_weights"].shape[2:] == (1, 3)


def test_two_joint_mixtures_stand_in_one_spec():
    table = {name: [{"x": float(v), "y": int(v > 0)} for v in RNG.normal(size=12)] for name in "pq"}
    joint = {name: bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Bernoulli(), 2)) for name in "pq"}
    fit = bm.fit(bm.Composite(joint), table, random_seed=1)
    assert fit.posterior["p_transition"].dims[2:] == ("p_x_component", "p_y_component")
    assert fit.posterior["q_weights"].dims[2:] == ("q_x_component",)


def test_the_first_field_of_a_joint_mixture_may_be_a_mixture():
    """Its components' axis had the name of the joint mixture's own."""
    spec = bm.JointMixture(x=(bm.Mixture(bm.Normal(), 3), 2), y=(bm.Poisson(), 2))
    fit = bm.fit(spec, {"x": CLOSE[::10], "y": np.arange(20) % 4}, random_seed=1)
    assert fit.posterior["x_mu"].dims[2:] == ("x_component", "x_subcomponent")


def test_responsibilities_of_a_row_far_away_sum_to_one():
    """The exponential of joint minus total was taken, of numbers whose digits had gone."""
    params = {"weights": [0.5, 0.5], "mu": [0.0, 0.0], "sigma": [1.0, 1.0]}
    spec = bm.Mixture(bm.Normal(mu=params["mu"], sigma=params["sigma"]), 2, weights=params["weights"])
    np.testing.assert_allclose(bm.responsibilities(spec, [1e9, 0.0]), 0.5)


def test_imputed_truth_values_are_truth_values_inside_sequences_and_records():
    rows = [(True, False), (True, True, False), None, (False,)]
    imputed = bm.fit(bm.Sequence(bm.Bernoulli()), {"x": rows}).impute(n_draws=3, random_seed=1)
    assert all(isinstance(cell, bool) for row in imputed.table()["x"] for cell in row)
    cells = [{"t": True}, {"t": None}, {"t": False}]
    imputed = bm.fit(bm.Composite(r=bm.Composite(t=bm.Bernoulli())), {"r": cells}).impute(n_draws=3, random_seed=1)
    assert all(isinstance(cell["t"], bool) for cell in imputed.table()["r"])


def test_zeros_and_ones_stay_numbers_Bernoulli():
    assert bm.fit(bm.Bernoulli(), [0, 1, 1, 0]).sample(5, random_seed=1)["x"].dtype.kind == "i"


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", [bm.Normal(), bm.MvNormal()])
def test_the_kernel_takes_rows_without_any_element(family, mixed):
    from bayesmix.plan import EStep

    child = bm.Mixture(family, 2) if mixed else family
    cells = [[v, -v] if "MvNormal" in repr(child) else v for v in (1.0, 2.0, 4.0, 9.0)]
    fit = bm.fit(bm.Sequence(child), {"x": [cells, cells[:2]]}, random_seed=1)
    empty = fit.bound.encode({"x": [[], []]})
    np.testing.assert_array_equal(EStep(fit.bound, empty, np.ones(2)).rows(fit.params), [0, 0])


def test_a_fitted_spike_is_a_distribution_in_a_mixture_of_one():
    fit = bm.fit(bm.Mixture(bm.SpikeAndSlab(), 1), [7, 7, 2, 9, 7])
    np.testing.assert_allclose(bm.log_density(fit.to_spec(), [7, 3]), fit.log_density([7, 3]))


def test_chains_of_two_fields_that_are_tied_have_their_own_lengths():
    chain = bm.MarkovChain(tie="c")
    fit = bm.fit(bm.Composite(a=chain, b=chain), {"a": [list("xy"), list("x")], "b": [list("xyx"), list("yxyx")]})
    assert fit.idata["observed_data"]["a"].shape == (2, 2)
    assert fit.idata["observed_data"]["b"].shape == (2, 4)


def test_the_beta_prior_of_a_tiny_probability_keeps_its_digits():
    """1 - p was formed before its logarithm: with a concentration of 1e9 the objective moved by 1e-8 and fell."""
    from bayesmix.conjugate import Beta

    p, beta = np.array([3.9e-9, 7.8e-9]), 1e9
    found = Beta(np.array([3.0]), np.array([beta])).terms(p)
    exact = 2 * np.log(p) - (beta - 1) * (p + p**2 / 2)  # the series' next term is 1e-16
    np.testing.assert_allclose(found[1] - found[0], exact[1] - exact[0], rtol=0, atol=1e-12)


def test_sequences_of_sequences_are_imputed_in_their_places():
    """The place in the inner sequence was lost, and a number took the inner sequence's place."""
    rows = [[[1.0, None, 3.0], [4.0]], [[], [5.0, 6.0, None]], None]
    fit = bm.fit(bm.Sequence(bm.Sequence(bm.Normal())), {"x": rows})
    imputed = fit.impute(n_draws=4, random_seed=1)
    np.testing.assert_array_equal(imputed.positions["x[][]"], [[0, 1], [1, 2]])
    filled = imputed.table(2)["x"].tolist()
    assert filled[0][0][::2] == [1.0, 3.0]
    assert filled[0][0][1] == imputed.draws["x[][]"][2, 0]
    assert filled[1] == [[], [5.0, 6.0, imputed.draws["x[][]"][2, 1]]]
    assert ("x[0][1]", 0) in imputed.summary().index


def test_elements_that_are_records_of_a_lone_sequence_are_imputed():
    rows = [[{"a": 1.0, "b": 2}, {"a": None, "b": 3}], [{"a": 4.0, "b": None}, None]]
    fit = bm.fit(bm.Sequence(bm.Composite(a=bm.Normal(), b=bm.Poisson())), {"x": rows})
    filled = fit.impute(n_draws=3, random_seed=1).table()["x"].tolist()
    assert filled[0][0] == rows[0][0]
    assert filled[0][1]["b"] == 3
    assert all(None not in cell.values() for row in filled for cell in row)


def test_missing_sequences_of_vectors_and_of_records_have_a_summary():
    rows = [[[1.0, 2.0], [0.5, 1.0]], None, [[3.0, 1.0]]]
    fit = bm.fit(bm.Sequence(bm.MvNormal()), {"x": rows})
    imputed = fit.impute(n_draws=3, random_seed=1)
    assert imputed.summary()["p_mode"].notna().all()
    assert np.isfinite(fit.log_density(imputed.table())).all()
    rows = [[{"a": 1.0}], None, [{"a": 2.0}, {"a": 0.0}]]
    imputed = bm.fit(bm.Sequence(bm.Composite(a=bm.Normal())), {"x": rows}).impute(n_draws=3, random_seed=1)
    assert all(isinstance(cell, dict) for cell in imputed.table()["x"][1])


def test_columns_and_fields_with_dots_in_their_names_are_imputed():
    table = {"body.mass": [1.0, None, 3.0], "r": [{"a.b": 1.0, "a": 2.0}, None, {"a.b": None, "a": 5.0}]}
    record = bm.Composite({"a.b": bm.Normal(), "a": bm.Normal()})
    filled = bm.fit(bm.Composite({"body.mass": bm.Normal(), "r": record}), table).impute(n_draws=3).table()
    assert not filled["body.mass"].isna().any()
    assert [set(cell) for cell in filled["r"]] == [{"a.b", "a"}] * 3
    assert filled["r"][2]["a"] == 5.0


def test_a_tied_column_without_any_cell_takes_the_others_type():
    node = bm.Categorical(tie="c")
    fit = bm.fit(bm.Composite(a=node, b=node), {"a": ["u", "v", "u"], "b": [None, None, None]})
    assert fit.params["c_p"].shape == (2,)


def test_a_coordinate_without_any_cell_is_an_error_MvNormal():
    with pytest.raises(bm.DataError, match=r"every cell is missing in b"):
        bm.fit(bm.MvNormal(), pd.DataFrame({"a": [1.0, 2.0], "b": [np.nan, np.nan]}))


def test_an_optional_inside_an_optional_is_an_error_that_says_so():
    for spec in (bm.Optional(bm.Optional(bm.Normal())), bm.Optional(bm.Mixture(bm.Optional(bm.Normal()), 2))):
        with pytest.raises(bm.SpecError, match="Leave one out"):
            bm.fit(spec, [1.0, None, 2.0])
    assert "p_missing" in bm.fit(bm.Optional(bm.Optional(bm.Normal(), p=False)), [1.0, None, 2.0]).params


def test_optional_fields_of_a_missing_record_say_nothing():
    """A missing record had the density p · p_a, and the M-step counted p alone."""
    spec = bm.Optional(bm.Composite(a=bm.Optional(bm.Normal()), b=bm.Poisson()))
    table = {"r": [None, {"a": 1.0, "b": 2}, {"a": None, "b": 1}, {"a": 3.0, "b": 0}]}
    fit = bm.fit(bm.Composite(r=spec), table)
    np.testing.assert_allclose(fit.log_density({"r": [None]}), np.log(fit.params["r_p_missing"]))
    from bayesmix.plan import EStep

    e_step = EStep(fit.bound, fit.encoded, np.ones(4))
    np.testing.assert_allclose(e_step.rows(fit.params), fit.log_density(), rtol=1e-12)
    target = Target(model_of(fit.bound, fit.encoded, initval=None, likelihood="graph"),
                    variables_at(fit.bound, fit.params), jacobian=False)  # fmt: skip
    value, gradient = target(target.start)
    assert value == pytest.approx(fit.history[-1], abs=1e-6)
    assert np.abs(gradient).max() < 1e-5


def test_rows_of_weight_zero_that_are_impossible_do_not_make_the_likelihood_NaN():
    spec = bm.Categorical().with_flat_priors()
    fit = bm.fit(spec, ["a", "b", "a"], row_weights=[1.0, 0.0, 2.0])
    assert fit.loglik == 0


def test_draws_of_records_that_may_be_missing_can_be_read_again():
    spec = bm.Optional(bm.Composite(x=bm.Normal(), y=bm.Categorical()))
    fit = bm.fit(spec, {"x": [1.0, None, 2.0, 0.0], "y": ["u", None, "v", "u"]})
    drawn = fit.sample(20, random_seed=1)
    assert list(drawn.columns) == ["x", "y"]
    assert np.isfinite(fit.log_density(drawn)).all()


def test_second_derivatives_of_what_depends_on_nothing_are_zero():
    from bayesmix.mstep import hessian_by_differences

    np.testing.assert_array_equal(hessian_by_differences(lambda u: np.zeros(2), np.ones(2)), np.zeros((2, 2)))


def test_a_prior_that_PyMC_makes_of_others_is_saved(tmp_path):
    fit = bm.fit(bm.Bernoulli(p=pm.LogitNormal.dist(0.0, 1.5)), [0, 1, 1, 1])
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert repr(again.spec) == repr(fit.spec)
    # PyMC keeps Python floats in single precision, and a file has doubles
    assert again.bound.log_prior(again.params) == pytest.approx(fit.bound.log_prior(fit.params), abs=1e-6)


@pytest.mark.parametrize("family", [bm.Normal(sigma=1.0), bm.LogNormal(sigma=1e-9), bm.MvNormal(cov=np.eye(2))])
def test_a_spread_that_is_given_is_no_collapse_however_narrow(family):
    """A constant column's unit is the size of its value: 1e8 for these, of which a spread of 1 is little."""
    column = [[1e8, 1e8]] * 4 if isinstance(family, bm.MvNormal) else [1e8] * 4
    fit = bm.fit_em(bm.Mixture(bm.Composite(x=family), 2), {"x": column}, n_starts=2, random_seed=1)
    assert fit.status.converged
    assert np.isfinite(fit.loglik)


# ------------------------------------------------------------------- columns that are not as the fitted ones were


def vectors():
    rng = np.random.default_rng(3)
    z = np.repeat([0, 1], 50)
    return pd.DataFrame({"a": rng.normal(10 * z, 1), "b": rng.normal(100 - 50 * z, 1)})


def test_coordinates_are_found_by_their_names_MvNormal():
    """A table with its columns in another order, or with more of them, was read by places: densities of -4000."""
    table = vectors()
    fit = bm.fit_em(bm.Mixture(bm.MvNormal(), 2), table, random_seed=1)
    expected = fit.log_density(table)
    np.testing.assert_array_equal(fit.log_density(table[["b", "a"]]), expected)
    np.testing.assert_array_equal(fit.log_density(table.assign(c=0.0)[["c", "b", "a"]]), expected)
    np.testing.assert_array_equal(fit.log_density(table.to_numpy()), expected)
    lacking = table.assign(c=7.0)[["c", "b", "a"]].copy()
    lacking.loc[[0, 99], "a"] = np.nan
    filled = fit.impute(lacking, n_draws=20, random_seed=1).table()
    assert list(filled) == ["c", "b", "a"]
    np.testing.assert_allclose(filled["a"][[0, 99]], [0, 10], atol=2)
    assert filled["b"].equals(lacking["b"])
    with pytest.raises(
        bm.DataError, match=r"data: the table has no column 'b', which the fitted data had; it has a, bb"
    ):
        fit.predict(table.rename(columns={"b": "bb"}))


@pytest.mark.parametrize("width", [1, 3])
def test_vectors_of_another_length_are_an_error_MvNormal(width):
    """One coordinate was taken for the first of two, and its density for that of the row."""
    table = vectors().to_numpy()
    fit = bm.fit_em(bm.Mixture(bm.MvNormal(), 2), table, random_seed=1)
    other = np.ones((4, width))
    with pytest.raises(bm.DataError, match=rf"data: vectors of {width} coordinates?, where the fitted data had 2"):
        fit.log_density(other)
    fit = bm.fit_em(bm.Mixture(bm.Composite(v=bm.MvNormal()), 2), {"v": table.tolist()}, random_seed=1)
    with pytest.raises(bm.DataError, match=rf"v: vectors of {width} coordinates?, where the fitted data had 2"):
        fit.predict({"v": other.tolist()})


# ------------------------------------------------------------------- cells that numpy changes


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int64, np.uint8])
def test_whole_numbers_far_apart_are_symbols_of_their_own_Categorical(kind):
    """-100 and 100 of int8 are 200 apart, which int8 takes for -56: symbols were mixed up."""
    low, high = (0, 255) if kind is np.uint8 else (-100, 100)
    cells = np.tile(np.array([low, high, high, 3], kind), 10)
    fit = bm.fit_em(bm.Mixture(bm.Categorical(), 1), cells, random_seed=1)
    assert fit.posterior["symbol"].values.tolist() == sorted([low, high, 3])
    np.testing.assert_allclose(fit.params["p"][0][[0, -1]], [0.25, 0.5], atol=0.02)


LARGE = [2**53, 2**53 + 1, 2**53 + 1]


@pytest.mark.parametrize(
    "cells",
    [
        LARGE * 8,
        [*LARGE * 8, None],
        [*LARGE * 8, 0.5],
        np.array(LARGE * 8),
        pd.Series([*LARGE * 8, None], dtype="Int64"),
        [2**70, 2**70 + 1, 2**70 + 1] * 8,
    ],
    ids=["list", "missing", "floats", "array", "frame", "beyond 64 bits"],
)
def test_large_whole_numbers_are_symbols_of_their_own_Categorical(cells, tmp_path):
    """Identifiers of 64 bits became doubles, of which neighbours are one."""
    fit = bm.fit_em(bm.Mixture(bm.Categorical(), 1), cells, random_seed=1)
    symbols = next(iter(fit.bound.learned.values())).levels
    largest = sorted(symbols)[-2:]
    assert largest[1] - largest[0] == 1
    assert {int(symbol) for symbol in largest} <= {int(cell) for cell in cells if pd.notna(cell)}
    shares = dict(zip(symbols, fit.params["p"][0]))
    assert shares[largest[1]] > 1.5 * shares[largest[0]]
    fit.save(tmp_path / "fit.zip")
    assert bm.load(tmp_path / "fit.zip").bound.learned == fit.bound.learned


def test_large_whole_numbers_are_symbols_in_sequences():
    chains = [[2**60, 2**60 + 1, 2**60], [2**60 + 1, 2**60]] * 5
    for node in (bm.MarkovChain(), bm.Sequence(bm.Categorical())):
        fit = bm.fit_em(bm.Mixture(node, 1), chains, random_seed=1)
        assert any(getattr(known, "levels", None) == (2**60, 2**60 + 1) for known in fit.bound.learned.values())


@pytest.mark.parametrize("unit", ["ns", "us", "D"])
def test_dates_and_times_of_numpy_are_no_numbers_Normal(unit):
    """What a data frame's column gives as an array, nanoseconds, was taken for numbers of 1e18."""
    for kind, what in (("M8", "2020|Timestamp|date"), ("m8", "timedelta|Timedelta")):
        cells = np.array([18_300, 18_301, 18_305], "m8[D]").astype(f"m8[{unit}]").astype(f"{kind}[{unit}]")
        for column in (cells, list(cells), {"x": cells}):
            spec = bm.Composite(x=bm.Normal()) if isinstance(column, dict) else bm.Normal()
            with pytest.raises(bm.DataError, match=f"Normal needs numbers; row 0 is .*({what})"):
                bm.fit_em(spec, column)


def test_dates_of_arrays_are_symbols_as_those_of_frames_are_Categorical():
    cells = pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01", "2021-01-01"] * 5).astype("datetime64[ns]"))
    fit = bm.fit_em(bm.Mixture(bm.Categorical(), 1), cells, random_seed=1)
    array = cells.to_numpy().copy()
    np.testing.assert_array_equal(fit.log_density(array), fit.log_density(cells))
    array[0] = np.datetime64("NaT", "ns")
    assert fit.log_density(array)[0] == fit.log_density(list(array))[0] == 0


@pytest.mark.parametrize("make", [lambda c: pd.Series(c, dtype="Int8"), lambda c: pl.Series(c, dtype=pl.Int8)])
def test_imputed_counts_need_not_fit_the_column_s_type_Poisson(make):
    """A count of 131 in a column of int8 was an error of the frame's library."""
    column = make([120, 125, 127, 100, 110, 115, None, 90] * 5)
    imputed = bm.fit_em(bm.Mixture(bm.Poisson(), 1), column, random_seed=1).impute(n_draws=100, random_seed=1)
    (drawn,) = imputed.draws.values()
    highest = int(drawn.max(1).argmax())
    assert drawn[highest].max() > 127
    assert max(imputed.table(highest)) == drawn[highest].max()
    lowest = int(drawn.max(1).argmin())
    assert imputed.table(lowest).dtype == column.dtype


@pytest.mark.parametrize(
    "table",
    [pd.DataFrame([[1.0, 100.0], [2.0, 200.0]], columns=[1, "1"]), {1: [1.0, 2.0], "1": [100.0, 200.0]}],
    ids=["frame", "dict"],
)
def test_names_that_are_one_as_text_are_an_error(table):
    """The last of them was read."""
    with pytest.raises(bm.DataError, match="columns with one name: 1, '1'"):
        bm.fit_em(bm.Composite({"1": bm.Normal()}), table)


@pytest.mark.parametrize(
    "cells",
    [["a\0b", "a\0c"], [2**70, 2**70 + 2**20], np.array([1, 2**64 - 1], np.uint64)],
    ids=["zero", "huge", "unsigned"],
)
def test_symbols_that_netCDF_cannot_hold_are_saved_Categorical(cells, tmp_path):
    """Labels of the arrays; the symbols themselves are in the spec."""
    fit = bm.fit_em(bm.Mixture(bm.Categorical(), 1), [*cells] * 8, random_seed=1)
    assert len(set(fit.posterior["symbol"].values.tolist())) == 2
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip")
    assert again.bound.learned == fit.bound.learned
    np.testing.assert_array_equal(again.log_density(list(cells)), fit.log_density(list(cells)))


def test_a_wide_range_takes_no_matrix_SpikeAndSlab():
    """Starts took a unit matrix of the range: of 30,000 values 7 GB, of 100,000 the process was killed."""
    cells = [0, 4000, 5, 5, 5, 700] * 5
    bound = bind(bm.SpikeAndSlab(), read(cells))
    data = bound.encode(read(cells))
    points = bound.site.features(data)
    assert points.size < 40 * len(cells)
    same = np.array([(points == point).all(1) for point in points])
    np.testing.assert_array_equal(same, np.equal.outer(cells, cells))
    with pytest.raises(bm.DataError, match=r"0 to 1000000000 are 1,000,000,001 values; 1,000,000 are the most"):
        bm.fit_em(bm.SpikeAndSlab(), [0, 10**9, 5, 5])


@pytest.mark.parametrize("text", [["1", "2", "3"], np.array(["1", "2", "3"]), [1.0, "2", 3.0]])
def test_weights_that_are_text_are_an_error(text):
    """They were converted."""
    with pytest.raises(bm.DataError, match="row_weights: numbers are needed"):
        bm.fit_em(bm.Normal(), [1.0, 2.0, 5.0], row_weights=text)


def test_symbols_that_cannot_be_looked_up_are_an_error_MarkovChain():
    """They were a TypeError without a row."""
    with pytest.raises(bm.DataError, match=r"s: MarkovChain needs hashable symbols; row 1 holds \['a', \['b'\]\]"):
        bm.fit_em(bm.Composite(s=bm.MarkovChain()), {"s": [["c"], ["a", ["b"]], []]})


def test_faults_of_form_and_of_value_are_listed_together():
    """Vectors of unequal lengths hid what was wrong with the other fields."""
    table = {"v": [[1.0], [1.0, 2.0], [3.0]], "n": [-1, 0, 1], "x": [np.inf, 1.0, 2.0]}
    with pytest.raises(bm.DataError) as caught:
        bm.fit_em(bm.Composite(v=bm.MvNormal(), n=bm.Poisson(), x=bm.Normal()), table)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["v", "n", "x"]
