"""Estimators for scikit-learn: its own checks, its own estimators as oracles, and tables of mixed columns."""

import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pymc as pm
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import bayesmix as bm
from bayesmix.sklearn import MixtureClassifier, MixtureClusterer, MixtureImputer

ESTIMATORS = (MixtureClusterer, MixtureClassifier, MixtureImputer)
WINE, CULTIVAR = load_wine(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
NORMALS = bm.Composite(*[bm.Normal()] * 4)


def blobs(seed=4, n=60):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.multivariate_normal([m, m / 2], [[1, 0.6], [0.6, 1]], n) for m in (-3, 3)])


def mixed_table(n=120, share=0.1, seed=0):
    """A table of columns of every kind with cells missing at random, the complete one, and the two groups in it."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    full = pd.DataFrame(
        {
            "size (cm)": rng.normal(5 * group, 1),
            "colour": np.where(rng.random(n) < 0.1 + 0.8 * group, "red", "blue"),
            "ill": pd.array(rng.random(n) < 0.2 + 0.6 * group, dtype="boolean"),
            "kind": pd.Categorical(np.where(rng.random(n) < 0.1 + 0.8 * group, "x", "y"), categories=["x", "y", "z"]),
            "visits": pd.array(rng.poisson(2 + 6 * group), dtype="Int64"),
        },
        index=[f"r{i}" for i in range(n)],
    )
    table = full.copy()
    for name in table:
        table.loc[rng.random(n) < share, name] = None
    return table, full, group


TABLE, FULL, GROUP = mixed_table()


# ---------------------------------------------------------------- scikit-learn's own checks

ALL_CHECKS = """
import sys, warnings
import bayesmix, bayesmix.sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator
warnings.simplefilter("error")
# clusters of noise, and fewer rows than components, are part of the checks
warnings.simplefilter("ignore", bayesmix.BayesmixWarning)
warnings.simplefilter("ignore", ConvergenceWarning)
results = check_estimator(getattr(bayesmix.sklearn, sys.argv[1])(), on_skip="warn", on_fail="raise")
print(len(results), {result["status"] for result in results})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_least"), [(each.__name__, 50) for each in ESTIMATORS])
def test_every_check_passes_and_none_is_skipped(name, at_least):
    """In a process of its own: one check wants SCIPY_ARRAY_API to be set before scipy is imported."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_CHECKS, name],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, statuses = done.stdout.split(maxsplit=1)
    assert int(count) >= at_least
    assert statuses.strip() == "{'passed'}"


MORE_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
]


@pytest.mark.parametrize(
    ("estimator", "name"),
    [(MixtureImputer, name) for name in MORE_CHECKS] + [(each, MORE_CHECKS[0]) for each in ESTIMATORS[:2]],
)
@pytest.mark.filterwarnings("ignore::bayesmix.BayesmixWarning", "ignore:X (does not have valid|has) feature names")
def test_checks_that_scikit_learn_has_for_its_own_estimators(estimator, name):
    getattr(estimator_checks, name)(estimator.__name__, estimator(1, n_init=1, random_state=0))


def test_the_library_does_not_import_scikit_learn():
    code = "import sys, bayesmix; assert not any(name.split('.')[0] == 'sklearn' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_clone_and_repr_keep_specs_with_priors(estimator):
    spec = bm.Mixture(bm.Composite(x=bm.Normal(sigma=pm.InverseGamma.dist(3.0, 2.0))), 2)
    made = estimator(spec=spec, engine_params={"accelerate": False})
    copied = clone(made)
    assert repr(copied.spec) == repr(spec)
    assert copied.get_params().keys() == made.get_params().keys()
    assert "InverseGamma" in repr(made)


# ---------------------------------------------------------------- what all three promise


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_neither_the_order_of_rows_nor_how_repeated_ones_are_written_matters(estimator):
    rng = np.random.default_rng(1)
    X = np.where(rng.random((40, 4)) < 0.1, np.nan, IRIS[::4][:38].mean(0) + rng.normal(0, 1, (40, 4)))
    y, weights = np.arange(40) % 2, rng.integers(0, 4, 40)
    method = "transform" if estimator is MixtureImputer else "predict_proba"

    def outcome(X_, y_, w=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bm.BayesmixWarning)  # noise has no clusters
            made = estimator(2, spec=NORMALS, n_init=2, random_state=0).fit(X_, y_, sample_weight=w)
        return getattr(made, method)(X)

    plain, order = outcome(X, y), rng.permutation(40)
    np.testing.assert_array_equal(plain, outcome(X[order], y[order]))
    repeated = outcome(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_array_equal(repeated, outcome(X[order], y[order], weights[order]))
    assert np.abs(repeated - plain).max() > 1e-3  # and weights do matter


def test_fractions_as_weights_are_the_weights_of_the_likelihood():
    X, weights = blobs(), np.linspace(0.2, 1.7, 120)
    spec = bm.Mixture(bm.MvNormal(), 2).with_flat_priors()
    found = MixtureClusterer(spec=spec, random_state=0).fit(X, sample_weight=weights).fit_
    by_hand = bm.fit(spec, X, row_weights=weights, random_seed=0)
    assert found.loglik == pytest.approx(by_hand.loglik, abs=1e-6)
    np.testing.assert_array_equal(found.row_weights, weights)


def test_the_fit_has_the_callers_rows_in_the_callers_order():
    weights = np.ones(len(TABLE))
    weights[3] = 0
    estimator = MixtureClusterer(2, random_state=0).fit(TABLE, sample_weight=weights)
    fit = estimator.fit_
    assert list(fit.idata["observed_data"]["row"].values) == list(TABLE.index)
    np.testing.assert_allclose(fit.responsibilities(), estimator.predict_proba(TABLE), rtol=1e-12)
    rows = fit.log_density(TABLE)
    assert fit.loglik == pytest.approx(rows @ weights, rel=1e-10)
    np.testing.assert_allclose(fit.idata["log_likelihood"]["row_loglik"].values.ravel(), rows, rtol=1e-9)
    assert fit.impute(n_draws=2).table()["colour"].notna().all()


@pytest.mark.parametrize("weights", [[1.0] * 5, [[1.0]] * 6, [-1.0] + [1.0] * 5, [0.0] * 6, [np.nan] + [1.0] * 5])
def test_weights_that_are_none_are_errors(weights):
    with pytest.raises(ValueError, match="weight"):
        MixtureClusterer(1).fit(np.arange(6.0)[:, None], sample_weight=weights)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::bayesmix.BayesmixWarning")
def test_fewer_distinct_rows_than_components_is_a_warning(estimator):
    X, y = np.repeat([[0.0, 1.0], [3.0, 2.0], [0.1, 1.0], [3.0, 2.5]], 3, axis=0), np.repeat([0, 1, 0, 1], 3)
    found = 2 if estimator is MixtureClassifier else 4
    made = estimator(9, n_init=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match=f"{found} components are fitted instead of 9"):
        made.fit(X, y)
    assert len(made.fit_.params["weights"]) == 4


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_components": 0}, "n_components: a whole number"),
        ({"n_components": 2.5}, "n_components: a whole number"),
        ({"method": "magic"}, "method: one of"),
        ({"spec": "Normal"}, "spec: a spec of bayesmix"),
        ({"engine_params": {"speed": 9}}, "speed: fit_em does not take this"),
        (
            {"engine_params": {"row_weights": [1, 1, 1, 1]}},
            "engine_params: row_weights is .* Pass sample_weight to fit",
        ),
        ({"engine_params": {"data": [1.0]}}, "engine_params: data is not taken from here. Pass X to fit"),
        ({"engine_params": [1]}, r"engine_params: a dict of the engine's keywords is needed, not \[1\]"),
        ({"n_init": 0}, "^n_init: a whole number of at least 1 is needed, not 0"),
        ({"spec": bm.Composite(age=bm.Normal())}, "age: the table has no such column"),
    ],
)
def test_wrong_parameters_are_named_in_fit_and_not_before(estimator, wrong, message):
    made = estimator(**wrong)
    with pytest.raises((ValueError, TypeError), match=message):
        made.fit(pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, 0, 2, 1]}), [0, 0, 1, 1])


def test_unknown_symbols_are_errors_or_missing():
    new = pd.DataFrame({"a": ["p", "never"], "b": [0.1, 5.2]})
    table = pd.DataFrame({"a": ["p", "p", "q", "q"], "b": [0.0, 0.2, 5.0, 5.1]})
    with pytest.raises(ValueError, match="never"):
        MixtureClusterer(2, random_state=0).fit(table).predict(new)
    for estimator in (MixtureClusterer(2), MixtureClassifier(), MixtureImputer(2)):
        estimator.set_params(handle_unknown="ignore", random_state=0).fit(table, [0, 0, 1, 1])
        if isinstance(estimator, MixtureImputer):
            np.testing.assert_array_equal(estimator.transform(new), new.to_numpy())  # observed: left as it is
        else:
            np.testing.assert_array_equal(estimator.predict(new), [0, 1])
    with pytest.raises(ValueError, match="handle_unknown"):
        MixtureClusterer(2, random_state=0, handle_unknown="skip").fit(table).predict(new)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_errors_speak_of_the_estimators_own_arguments(estimator):
    table = pd.DataFrame({"a": ["p", "p", "q", "q"], "b": [0.0, 0.2, 5.0, 5.1]})
    made = estimator(2, random_state=0) if estimator is not MixtureClassifier else estimator(random_state=0)
    made.fit(table, [0, 0, 1, 1])
    new = pd.DataFrame({"a": ["never"], "b": [0.1]})
    methods = [name for name in ("predict", "predict_proba", "score_samples", "transform") if hasattr(made, name)]
    assert methods
    for name in methods:
        with pytest.raises(bm.DataError, match=r"a: row 0 is 'never'.* Pass handle_unknown=\"ignore\" to treat"):
            getattr(made, name)(new)
    wrong = {"shape": np.ones(3), "numbers are needed": ["x"] * 4, r"row 1 is -1\.0": [1.0, -1.0, 1.0, 1.0]}
    for message, weights in wrong.items():
        with pytest.raises(ValueError, match=f"^sample_weight: {message}"):
            made.fit(table, [0, 0, 1, 1], sample_weight=weights)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_columns_of_one_name(estimator):
    """The library that reads frames had the word; its error named no argument."""
    table = pd.DataFrame([[0.0, 0.1], [0.2, 0.4], [5.0, 5.2], [5.1, 4.9]], columns=["a", "b"])
    twice = table.set_axis(["a", "a"], axis=1)
    with pytest.raises(bm.DataError, match=r"^data: columns with one name: 'a' 2 times\. Rename all but one"):
        estimator(1).fit(twice, [0, 0, 1, 1])
    made = estimator(1).fit(table, [0, 0, 1, 1])
    with pytest.raises(bm.DataError, match="columns with one name"):
        (made.transform if estimator is MixtureImputer else made.predict)(twice)


def test_rows_without_any_cell_have_the_classes_own_shares():
    """NumPy's error came where no row of the call had a vector."""
    table = np.array([[0.0, 0.1], [0.2, 0.4], [0.1, 0.3], [5.0, 5.2], [5.1, 4.9], [5.3, 5.2]])
    made = MixtureClassifier(random_state=0).fit(table, [0, 0, 0, 0, 1, 1])
    gone = np.full((2, 2), np.nan)
    np.testing.assert_allclose(made.predict_proba(gone), [made.class_prior_] * 2)
    assert made.predict(gone).tolist() == [0, 0]


def test_cells_that_no_family_reads_say_so():
    with pytest.raises(TypeError, match=r"x1: argument must be a string or a number, not list \(row 0\)"):
        MixtureClusterer().fit(np.array([[[1], 2.0], [3, 4.0]], dtype=object))
    spec = bm.Composite(words=bm.Sequence(bm.Categorical()), n=bm.Poisson())
    table = pd.DataFrame({"words": [["a", "b"], ["b"], ["a", "a"], ["b", "b"]] * 3, "n": [1, 9, 2, 8] * 3})
    labels = MixtureClusterer(2, spec=spec, random_state=0).fit_predict(table)
    assert list(labels) in ([0, 1] * 6, [1, 0] * 6)


def test_estimators_are_pickled_with_their_fits():
    """Slots of a bound spec remember functions: they were in the way."""
    X = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.1, np.nan, IRIS)
    made = MixtureClusterer(2, n_init=1, random_state=0).fit(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).predict_proba(X), made.predict_proba(X))
    made = MixtureClassifier(spec=bm.Composite(size=bm.Normal(sigma=pm.InverseGamma.dist(3.0, 2.0)), n=bm.Poisson()))
    table = pd.DataFrame({"size": IRIS[:, 0], "n": SPECIES})
    made.fit(table, SPECIES)
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.predict_proba(table), made.predict_proba(table))
    assert again.fit_.bound.log_prior(again.fit_.params) == made.fit_.bound.log_prior(made.fit_.params)


# ---------------------------------------------------------------- the clusterer


@pytest.mark.parametrize("X", [blobs(), IRIS[:, 1:3]], ids=["blobs", "iris"])
def test_clusterer_agrees_with_gaussian_mixture(X):
    """Of flat priors the mode is the maximum of the likelihood, which GaussianMixture comes to as well."""
    peer = GaussianMixture(2, n_init=10, tol=1e-12, max_iter=10_000, reg_covar=0, random_state=0).fit(X)
    spec = bm.Mixture(bm.MvNormal(), 2).with_flat_priors()
    ours = MixtureClusterer(spec=spec, random_state=0).fit(X)
    assert ours.score(X) == pytest.approx(peer.score(X), abs=1e-8)
    np.testing.assert_allclose(ours.score_samples(X), peer.score_samples(X), atol=1e-4)
    order = [0, 1] if (ours.labels_ == peer.predict(X)).mean() > 0.5 else [1, 0]
    np.testing.assert_array_equal(ours.labels_, np.argsort(order)[peer.predict(X)])
    np.testing.assert_allclose(ours.weights_, peer.weights_[order], atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X)[:, order], atol=1e-4)
    assert ours.bic(X) == pytest.approx(peer.bic(X), abs=1e-5)
    assert ours.aic(X) == pytest.approx(peer.aic(X), abs=1e-5)
    assert ours.converged_
    assert ours.n_iter_ > 1


def test_clusterer_of_a_frame_with_symbols_truth_values_and_gaps():
    made = MixtureClusterer(random_state=0).fit(TABLE)
    assert repr(made.fit_.spec) == (
        "Mixture(Composite({'size (cm)': Normal(), 'colour': Categorical(), 'ill': Bernoulli(), "
        "'kind': Categorical(), 'visits': Normal()}), 2)"
    )
    agreement = (made.labels_ == GROUP).mean()
    assert max(agreement, 1 - agreement) > 0.97
    np.testing.assert_array_equal(made.predict(TABLE), made.labels_)
    by_hand = bm.fit(made.fit_.spec, TABLE, random_seed=0)
    assert made.fit_.loglik == pytest.approx(by_hand.loglik, abs=1e-5)
    np.testing.assert_array_equal(made.predict(pl.from_pandas(TABLE)), made.labels_)


def test_clusterer_takes_a_family_a_component_or_a_mixture():
    X = np.random.default_rng(0).poisson(np.repeat([2, 20], 50))[:, None]
    expected = np.repeat([0, 1], 50)
    for made in (
        MixtureClusterer(2, spec=bm.Poisson()),
        MixtureClusterer(spec=bm.Mixture(bm.Poisson(), 2)),
        MixtureClusterer(2, spec=bm.Mixture(bm.Poisson(), 7)),
        MixtureClusterer(spec=bm.Mixture([bm.Poisson(), bm.Poisson(mu=20.0)])),
    ):
        labels = made.set_params(random_state=0).fit_predict(X)
        agreement = (labels == expected).mean()
        assert max(agreement, 1 - agreement) > 0.9
        assert len(made.weights_) == 2
    with pytest.raises(ValueError, match="a list of different components has its own number"):
        MixtureClusterer(3, spec=bm.Mixture([bm.Poisson(), bm.Poisson(mu=20.0)])).fit(X)


def test_clusterer_leaves_out_columns_without_values():
    X = np.column_stack([blobs(), np.full(120, np.nan)])
    made = MixtureClusterer(2, n_init=1, random_state=0).fit(X)
    np.testing.assert_array_equal(made.labels_, MixtureClusterer(2, n_init=1, random_state=0).fit_predict(X[:, :2]))
    with pytest.raises(ValueError, match="every cell is missing"):
        MixtureClusterer().fit(X[:, 2:])


def test_clusterer_draws_rows_with_their_components():
    made = MixtureClusterer(2, n_init=1, random_state=0).fit(blobs())
    X, y = made.sample(4000)
    assert X.shape == (4000, 2)
    for k in range(2):
        standard = X[y == k].std(0) / np.sqrt((y == k).sum())
        assert (np.abs(X[y == k].mean(0) - made.fit_.params["mu"][k]) < 4 * standard).all()
    assert stats.binomtest(int(y.sum()), 4000, made.weights_[1]).pvalue > 1e-4
    drawn, _ = MixtureClusterer(2, n_init=1, random_state=0).fit(TABLE).sample(5)
    assert list(drawn) == list(TABLE)
    assert drawn["ill"].dtype == bool
    drawn, _ = MixtureClusterer(2, n_init=1, random_state=0).fit(pl.from_pandas(TABLE)).sample(5)
    assert isinstance(drawn, pl.DataFrame)


def test_clusterer_averages_over_a_posterior():
    X = blobs(n=150)
    made = MixtureClusterer(2, method="laplace", random_state=0, engine_params={"draws": 50}).fit(X)
    assert made.fit_.posterior.sizes["draw"] == 50
    each = np.exp(made.fit_.log_density(X, per_draw=True))
    np.testing.assert_allclose(made.score_samples(X), np.log(each.mean(0)))
    assert len(made.sample(60)[1]) == 60
    assert made.n_iter_ >= 1


def test_grid_search_over_components_and_specs():
    spread = StratifiedKFold(3, shuffle=True, random_state=0)
    folds = list(spread.split(IRIS, SPECIES))
    grid = {"n_components": [1, 2], "spec": [None, NORMALS]}
    search = GridSearchCV(MixtureClusterer(n_init=1, random_state=0), grid, cv=folds).fit(IRIS)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"n_components": 2, "spec": None}
    train, test = folds[0]
    by_hand = bm.fit(bm.Mixture(bm.MvNormal(), 1), IRIS[train]).log_density(IRIS[test]).mean()
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(by_hand, abs=1e-6)
    assert np.isfinite(scores).all()


# ---------------------------------------------------------------- the classifier


@pytest.mark.parametrize(("X", "y"), [(WINE, CULTIVAR), (IRIS, SPECIES)], ids=["wine", "iris"])
def test_classifier_does_not_fall_behind_naive_bayes(X, y):
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    ours = cross_val_score(MixtureClassifier(random_state=0), X, y, cv=folds).mean()
    assert ours >= cross_val_score(GaussianNB(), X, y, cv=folds).mean()


def test_classifier_of_one_normal_a_class_is_naive_bayes():
    """With flat priors the classes' means and standard deviations, and so Bayes' rule, are GaussianNB's."""
    spec = NORMALS.with_flat_priors()
    ours = MixtureClassifier(spec=spec).fit(IRIS, SPECIES)
    peer = GaussianNB(var_smoothing=0, priors=ours.class_prior_).fit(IRIS, SPECIES)
    np.testing.assert_allclose(ours.predict_proba(IRIS), peer.predict_proba(IRIS), atol=1e-9)
    np.testing.assert_allclose(ours.class_prior_, [51 / 153] * 3)  # of the default prior, worth a row each


def test_classes_of_several_components_take_what_one_cannot():
    """Two clumps a class, which alternate along a line: one normal a class cannot tell them apart."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal([4 * m, m], 0.7, (50, 2)) for m in (0, 2, 1, 3)])
    y = np.repeat(["even", "odd"], 100)
    two = MixtureClassifier(2, random_state=0).fit(X, y)
    assert two.score(X, y) > 0.97 > 0.8 > MixtureClassifier(1).fit(X, y).score(X, y)
    assert two.n_components_ == 2
    np.testing.assert_allclose(two.class_prior_, [0.5, 0.5], atol=0.01)
    p = two.fit_.params
    normals = [stats.multivariate_normal(m, c) for m, c in zip(p["features_mu"], p["features_cov"])]
    # components 2 c and 2 c + 1 are of class c
    parts = np.array([w * normal.pdf(X) for w, normal in zip(p["weights"], normals)]).reshape(2, 2, -1).sum(1)
    np.testing.assert_allclose(two.predict_proba(X), (parts / parts.sum(0)).T, atol=1e-9)
    np.testing.assert_allclose(two.score_samples(X), np.log(parts.sum(0)), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_rows_without_labels_help(seed):
    """Five labels a class: what the other rows look like makes up for the missing ones."""
    rng = np.random.default_rng(seed)
    few = np.concatenate([rng.choice(np.flatnonzero(SPECIES == c), 5, replace=False) for c in range(3)])
    y = np.full(len(SPECIES), -1)
    y[few] = SPECIES[few]
    rest = y == -1
    alone = MixtureClassifier().fit(IRIS[few], SPECIES[few]).score(IRIS[rest], SPECIES[rest])
    made = MixtureClassifier(random_state=0).fit(IRIS, y)
    assert list(made.classes_) == [0, 1, 2]
    assert made.score(IRIS[rest], SPECIES[rest]) >= max(0.95, alone)


def test_unlabelled_rows_enter_the_likelihood_by_all_classes():
    y = np.where(np.arange(150) % 3 == 0, SPECIES, -1)
    made = MixtureClassifier(spec=NORMALS, random_state=0).fit(IRIS, y)
    p = made.fit_.params
    each = [
        np.log(w) + stats.norm(mu, sd).logpdf(IRIS).sum(1)
        for w, mu, sd in zip(
            p["weights"],
            np.column_stack([p[f"x{j}_mu"] for j in range(1, 5)]),
            np.column_stack([p[f"x{j}_sigma"] for j in range(1, 5)]),
        )
    ]
    joint = np.array(each).T
    expected = np.where(y >= 0, joint[np.arange(150), y], np.logaddexp.reduce(joint, axis=1)).sum()
    assert made.fit_.loglik == pytest.approx(expected, abs=1e-8)


def test_a_label_holds_however_far_off_its_row_lies():
    """A row of the first class amid the second: 2,500 nats were more than the kernel's log of a probability of 0."""
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(0, 1, 5000), rng.normal(1000, 1, 5000)][:, None]
    y = np.repeat([0, 1], 5000)
    y[-1] = 0
    made = MixtureClassifier().fit(X, y)
    np.testing.assert_allclose(made.fit_.params["x1_sigma"], [X[y == c].std() for c in (0, 1)], rtol=0.15)
    assert made.fit_.loglik == pytest.approx(made.fit_.log_density().sum(), rel=1e-10)


def test_labels_of_minus_one_and_one_are_two_classes():
    y = np.where(SPECIES == 0, -1, 1)
    made = MixtureClassifier().fit(IRIS, y)
    assert list(made.classes_) == [-1, 1]
    assert made.score(IRIS, y) == 1
    three = SPECIES - 1
    assert list(MixtureClassifier(unlabeled=None).fit(IRIS, three).classes_) == [-1, 0, 1]
    assert list(MixtureClassifier().fit(IRIS, three).classes_) == [0, 1]


def test_labels_may_be_texts():
    names = np.array(["setosa", "versicolor", "virginica"])[SPECIES].astype(object)
    names[5:40] = -1
    names[60:90] = -1
    for y in (names, names.tolist(), pd.Series(names)):
        made = MixtureClassifier(random_state=0).fit(IRIS, y)
        assert list(made.classes_) == ["setosa", "versicolor", "virginica"]
        assert made.predict(IRIS[:1])[0] == "setosa"
    names[0] = None
    with pytest.raises(ValueError, match="y contains NaN"):
        MixtureClassifier().fit(IRIS, names)


def test_classifier_says_what_is_wrong_with_labels():
    with pytest.raises(ValueError, match="at least 2 classes; y has 1 class"):
        MixtureClassifier().fit(IRIS, np.zeros(150))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MixtureClassifier().fit(IRIS, SPECIES[:-1])
    with pytest.raises(ValueError, match="continuous"):
        MixtureClassifier().fit(IRIS, SPECIES + 0.5)
    with pytest.warns(DataConversionWarning):
        MixtureClassifier().fit(IRIS, SPECIES[:, None])
    with pytest.raises(NotFittedError):
        MixtureClassifier().predict(IRIS)


@pytest.mark.parametrize(
    "spec",
    [
        bm.Mixture([bm.Normal(), bm.LogNormal()]),
        bm.Mixture(bm.Normal(), 2, weights=[0.5, 0.5]),
        bm.Mixture(bm.Normal(), 2, min_weight=0.1),
        bm.JointMixture(x1=(bm.Normal(), 2), x2=(bm.Normal(), 2)),
    ],
)
def test_classifier_refuses_mixtures_that_it_would_change(spec):
    with pytest.raises(ValueError, match="spec: each class has components of one spec"):
        MixtureClassifier(spec=spec).fit(IRIS[:, :1] if "Joint" not in repr(spec) else IRIS[:, :2], SPECIES)


def test_classifier_of_a_frame_with_symbols_truth_values_and_gaps():
    made = MixtureClassifier().fit(TABLE[:80], GROUP[:80])
    assert made.score(TABLE[80:], GROUP[80:]) > 0.95
    assert list(made.feature_names_in_) == list(TABLE)
    chosen = MixtureClassifier(spec=bm.Composite(visits=bm.Poisson(), colour=bm.Categorical()))
    assert chosen.fit(TABLE[:80], GROUP[:80]).score(TABLE[80:], GROUP[80:]) > 0.85
    taken = TABLE.rename(columns={"kind": "class"})  # a column may have the name of the field that is added
    np.testing.assert_allclose(
        MixtureClassifier().fit(taken, GROUP).predict_proba(taken),
        MixtureClassifier().fit(TABLE, GROUP).predict_proba(TABLE),
        rtol=1e-9,
    )


@pytest.mark.slow
def test_classifier_averages_over_a_posterior():
    """With few rows the posterior's predictions are less sure than the mode's."""
    X, y = IRIS[50:][::10, :2], SPECIES[50:][::10]
    draws = {"draws": 1000, "tune": 500, "chains": 2}
    sampled = MixtureClassifier(spec=bm.Composite(bm.Normal(), bm.Normal()), method="nuts", random_state=1)
    sampled.set_params(engine_params=draws).fit(X, y)
    mode = MixtureClassifier(spec=bm.Composite(bm.Normal(), bm.Normal())).fit(X, y)
    rest = IRIS[50:, :2]
    assert sampled.converged_
    assert sampled.predict_proba(rest).max(1).mean() < mode.predict_proba(rest).max(1).mean()
    assert sampled.score(rest, SPECIES[50:]) > 0.6


# ---------------------------------------------------------------- the imputer


def test_imputer_beats_the_columns_means():
    X = StandardScaler().fit_transform(WINE)
    hidden = np.random.default_rng(0).random(X.shape) < 0.1
    table = np.where(hidden, np.nan, X)

    def error(imputer):
        filled = imputer.fit_transform(table)
        np.testing.assert_array_equal(filled[~hidden], X[~hidden])
        return np.sqrt(np.mean((filled[hidden] - X[hidden]) ** 2))

    assert error(MixtureImputer(1)) < 0.8 * error(SimpleImputer())
    assert error(MixtureImputer(2, n_init=1, random_state=0)) < 0.75 * error(SimpleImputer())


def test_imputed_numbers_are_conditional_means():
    X = blobs()
    X[::7, 0], X[3::11, 1] = np.nan, np.nan
    made = MixtureImputer(2, random_state=0).fit(X)
    p, filled = made.fit_.params, made.transform(X)
    for i in np.flatnonzero(np.isnan(X).sum(1) == 1):
        j = int(np.isnan(X[i]).argmax())
        o = 1 - j
        density = p["weights"] * stats.norm(p["mu"][:, o], np.sqrt(p["cov"][:, o, o])).pdf(X[i, o])
        given = p["mu"][:, j] + p["cov"][:, j, o] / p["cov"][:, o, o] * (X[i, o] - p["mu"][:, o])
        assert filled[i, j] == pytest.approx(density @ given / density.sum(), rel=1e-9)
    both = np.isnan(X).all(1)
    assert both.any()
    np.testing.assert_allclose(filled[both], np.broadcast_to(p["weights"] @ p["mu"], (both.sum(), 2)))


def test_one_column_is_imputed_too():
    x = np.array([[1.0], [np.nan], [4.0]])
    for spec in (bm.Normal(), bm.MvNormal(), None):
        made = MixtureImputer(1, spec=spec).fit(x)
        assert made.transform(x)[1, 0] == pytest.approx(made.fit_.params["mu"].item())


def test_imputer_gives_values_of_the_callers_types():
    imputer = MixtureImputer(2, random_state=0).set_output(transform="pandas")
    filled = imputer.fit_transform(TABLE)
    assert filled.notna().all().all()
    assert list(filled.index) == list(TABLE.index)
    assert [str(t) for t in filled.dtypes] == [str(t).replace("Int", "Float") for t in TABLE.dtypes]
    there = TABLE.notna()
    for name in TABLE:
        assert (filled.loc[there[name], name] == FULL.loc[there[name], name]).all()
    hidden = ~there["colour"]
    assert (filled.loc[hidden, "colour"] == FULL.loc[hidden, "colour"]).mean() > 0.7
    array = clone(imputer).set_output(transform="default").fit_transform(TABLE)
    assert array.dtype == object
    assert [type(cell) for cell in array[0]] == [float, str, bool, str, float]
    np.testing.assert_array_equal(array[:, 1], filled["colour"])


def test_tables_without_rows_or_columns():
    for table, what in (
        (pd.DataFrame({"a": pd.Series([], dtype=float)}), "sample"),
        (pd.DataFrame(index=[0]), "feature"),
    ):
        with pytest.raises(ValueError, match=rf"Found array with 0 {what}\(s\)"):
            MixtureClusterer(2).fit(table)


def test_rows_of_symbols_and_numbers_as_lists():
    """As numpy makes one array of them, numbers would be texts."""
    made = MixtureClusterer(2, random_state=0).fit([["a", 1.0], ["a", 2.0], ["b", 50.0], ["b", 51.0]])
    assert made.labels_[0] == made.labels_[1] != made.labels_[2] == made.labels_[3]
    np.testing.assert_allclose(np.sort(made.fit_.params["x2_mu"]), [1.5, 50.5], atol=1.0)


def test_a_generator_of_random_states_goes_on():
    X = np.r_[blobs(), [[np.nan, 0.0]]]
    state = np.random.RandomState(3)
    made = MixtureImputer(2, sample_posterior=True, random_state=state).fit(X)
    first, second = made.transform(X)[-1, 0], made.transform(X)[-1, 0]
    assert first != second
    again = MixtureImputer(2, sample_posterior=True, random_state=np.random.RandomState(3)).fit(X)
    assert again.transform(X)[-1, 0] == first


def test_positional_fields_are_as_many_as_columns():
    with pytest.raises(ValueError, match=r"3 columns for 2 fields. Give each column a field"):
        MixtureClassifier(spec=bm.Composite(bm.Normal(), bm.Normal())).fit(IRIS[:, :3], SPECIES)


def test_indicators_in_a_frame_of_pandas():
    table = pd.DataFrame({"a": [1.0, 2.0, np.nan, 5.0], "b": [1.0, 2.0, 3.0, 4.0]})
    filled = MixtureImputer(1, add_indicator=True).set_output(transform="pandas").fit_transform(table)
    assert list(filled) == ["a", "b", "missingindicator_a"]
    assert filled["missingindicator_a"].tolist() == [False, False, True, False]
    assert filled["b"].tolist() == table["b"].tolist()
    assert 2 < filled.loc[2, "a"] < 5


def test_whole_sets_are_imputed_by_what_most_draws_say():
    sets = [frozenset("ab"), frozenset("a"), None, frozenset("a"), frozenset("a")]
    table = pd.DataFrame({"t": sets, "b": [1.0, 2.0, 3.0, 4.0, 5.0]})
    spec = bm.Composite(t=bm.BernoulliSet(), b=bm.Normal())
    filled = MixtureImputer(1, spec=spec, random_state=0).fit_transform(table)
    assert filled[2, 0] == frozenset("a")
    assert filled[0, 0] == frozenset("ab")


def test_counts_are_whole_and_integers_stay_integers():
    spec = bm.Composite(
        {"visits": bm.Poisson(), "size (cm)": bm.Normal(), "ill": bm.Bernoulli(), "colour": bm.Categorical()}
    )
    imputer = MixtureImputer(2, spec=spec, random_state=0).set_output(transform="pandas")
    filled = imputer.fit_transform(TABLE)
    assert filled["visits"].dtype == "Int64"
    assert filled["kind"].isna().any()  # the spec does not read it
    frame = pl.from_pandas(TABLE)
    filled = MixtureImputer(2, random_state=0, add_indicator=True).set_output(transform="polars").fit_transform(frame)
    assert isinstance(filled, pl.DataFrame)
    assert filled.null_count().sum_horizontal().item() == 0
    assert filled["ill"].dtype == pl.Boolean
    assert filled["missingindicator_colour"].to_list() == frame["colour"].is_null().to_list()


def test_columns_without_values_are_left_out_or_kept():
    X = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, np.nan], [4.0, np.nan, 1.0]])
    imputer = MixtureImputer(1).fit(X)
    assert imputer.transform(X).shape == (3, 2)
    assert list(imputer.get_feature_names_out()) == ["x0", "x2"]
    kept = MixtureImputer(1, keep_empty_features=True, add_indicator=True).fit(X)
    peer = SimpleImputer(keep_empty_features=True, add_indicator=True).fit(X)
    assert list(kept.get_feature_names_out()) == list(peer.get_feature_names_out())
    filled = kept.transform(X)
    np.testing.assert_array_equal(filled[:, 1], 0)
    np.testing.assert_array_equal(filled[:, 3:], peer.transform(X)[:, 3:])


def test_parts_of_cells_are_left_to_the_fit():
    table = pd.DataFrame({"v": [[1.0, 2.0], [None, 2.1], [5.0, 7.0], [5.1, 6.9]], "n": [1, 2, 8, 9]})
    made = MixtureImputer(1, spec=bm.Composite(v=bm.MvNormal(), n=bm.Poisson())).fit(table)
    with pytest.raises(ValueError, match=r"v: parts of records, sequences and vectors .* fit_.impute"):
        made.transform(table)
    table = pd.DataFrame({"w": [["a"], ["b", None], ["a", "b"]], "n": [1, None, 8]})
    made = MixtureImputer(1, spec=bm.Composite(w=bm.Sequence(bm.Categorical()), n=bm.Poisson())).fit(table)
    with pytest.raises(ValueError, match="w"):
        made.transform(table)
    filled = made.transform(table.assign(w=[["a"], ["b"], ["a"]]))
    assert filled[1, 1] == round(made.fit_.params["n_mu"][0])


def test_draws_of_cells_are_from_their_posterior():
    """Of 400 completed tables, the cell's values have its conditional mean and standard deviation."""
    X = blobs()
    X[10, 0] = np.nan
    centre = MixtureImputer(1).fit(X)
    p = centre.fit_.params
    sd = np.sqrt(p["cov"][0, 0, 0] - p["cov"][0, 0, 1] ** 2 / p["cov"][0, 1, 1])
    sampler = MixtureImputer(1, sample_posterior=True).fit(X)
    drawn = np.array([sampler.set_params(random_state=seed).transform(X)[10, 0] for seed in range(400)])
    assert stats.kstest(drawn, stats.norm(centre.transform(X)[10, 0], sd).cdf).pvalue > 1e-3
    assert sampler.transform(X)[10, 0] == drawn[-1]


def test_imputer_in_a_pipeline_under_grid_search():
    hidden = np.random.default_rng(0).random(IRIS.shape) < 0.1
    frame = pd.DataFrame(np.where(hidden, np.nan, IRIS), columns=["a", "b", "c", "d"])
    steps = make_pipeline(StandardScaler(), MixtureImputer(n_init=1, random_state=0), GaussianNB())
    steps.set_output(transform="pandas")
    search = GridSearchCV(steps, {"mixtureimputer__n_components": [1, 2]}, cv=3).fit(frame, SPECIES)
    assert search.best_score_ > 0.9
    assert list(search.best_estimator_[:-1].transform(frame)) == ["a", "b", "c", "d"]
    plain = make_pipeline(StandardScaler(), SimpleImputer(), GaussianNB())
    assert search.best_score_ > cross_val_score(plain, frame, SPECIES, cv=3).mean()


# ------------------------------------------------------------------ specs that are proposed


def test_infer_takes_the_proposal_for_the_columns_and_leaves_out_what_it_does():
    rng = np.random.default_rng(3)
    group = np.repeat([0, 1], 60)
    table = pd.DataFrame(
        {
            "visits": rng.poisson(np.array([1.0, 9.0])[group]),
            "spend": np.exp(rng.normal(group, 1.2)),
            "town": rng.choice(["Ayr", "Ely"], 120),
            "name": [f"n{i}" for i in range(120)],
        }
    )
    table.loc[::9, "spend"] = np.nan
    table.loc[4, "name"] = None
    clusterer = MixtureClusterer(2, spec="infer", random_state=0).fit(table)
    expected = bm.Composite(visits=bm.Poisson(), spend=bm.LogNormal(), town=bm.Categorical())
    assert clusterer.fit_.spec == bm.Mixture(expected, 2)
    assert clusterer.n_features_in_ == 4
    filled = MixtureImputer(2, spec="infer", random_state=0).set_output(transform="pandas").fit_transform(table)
    assert filled["spend"].notna().all()
    assert filled["name"].isna().sum() == 1  # what the model does not know stays missing
    assert list(filled) == list(table)
    with pytest.raises(TypeError, match=r"not 'guess'"):
        MixtureClusterer(2, spec="guess").fit(table)


def test_a_row_whose_symbol_is_missing():
    """A column without any cell is one of numbers, into which no symbol went."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=30), "s": rng.choice(["u", "v"], 30)})
    imputer = MixtureImputer(2, random_state=0).fit(table)
    for gone in ([None], pd.array([None], "string"), np.array([None], object)):
        row = pd.DataFrame({"a": [1.0], "s": gone})
        assert imputer.transform(row).tolist()[0][1] in ("u", "v")
        framed = MixtureImputer(2, random_state=0).set_output(transform="pandas").fit(table)
        assert framed.transform(row)["s"][0] in "uv"


def test_a_misspelt_way_with_unknown_symbols_is_noticed_in_fit():
    with pytest.raises(ValueError, match='handle_unknown: "error" or "ignore" is needed'):
        MixtureClusterer(2, handle_unknown="ignroe").fit(np.arange(9.0)[:, None])


@pytest.mark.parametrize("names", [[0, 1], pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])], ids=["numbers", "levels"])
def test_columns_in_another_order_are_an_error_whatever_their_names_are(names):
    """Text names are scikit-learn's to compare; of others it keeps none."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(np.column_stack([rng.normal(0, 1, 40), rng.normal(9, 1, 40)])).set_axis(names, axis=1)
    fitted = MixtureClusterer(2, random_state=0).fit(frame)
    fitted.predict(frame)
    fitted.predict(frame.to_numpy())
    with pytest.raises(ValueError, match="same order"):
        fitted.predict(frame.iloc[:, ::-1])


def test_arrays_go_by_place_whatever_the_columns_of_the_fitted_frame_were_called():
    """They were refused where a frame's columns were x2, x1: the names that arrays get."""
    x = np.random.default_rng(0).normal(np.repeat([[0, 100], [9, 80]], 30, axis=0), 1)
    model = MixtureClusterer(n_components=2, random_state=0, n_init=2).fit(pd.DataFrame(x, columns=["x2", "x1"]))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        labels = model.predict(x)
    assert labels.tolist() == [labels[0]] * 30 + [labels[-1]] * 30
    assert labels[0] != labels[-1]
