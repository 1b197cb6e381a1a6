"""The laws over trees: structure nodes × families × priors, with and without missing cells."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of
from bayesmix.data import read
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target
from bayesmix.spec import add_stats

# Two well separated groups of rows, and in `x` and `n` two well separated subgroups in each: EM then converges in
# tens of iterations, and every maximum under flat priors is inside the support.
_rng = np.random.default_rng(7)
_N = 72
_GROUP = np.repeat([0, 1], _N // 2)
_SUB = np.tile([0, 0, 1], _N // 3)
TABLE: dict[str, Any] = {
    "x": np.array([[-30.0, -10.0], [10.0, 35.0]])[_GROUP, _SUB] + _rng.normal(size=_N),
    "y": np.array([1.0, 8.0])[_GROUP] + _rng.normal(size=_N),
    "n": _rng.poisson(np.array([[1.0, 30.0], [120.0, 300.0]])[_GROUP, _SUB]),
    "m": _rng.poisson(np.array([2.0, 25.0])[_GROUP]),
    "c": np.array(["a", "b", "c"], object)[
        np.where(_rng.random(_N) < 0.2, _rng.integers(0, 3, _N), np.array([0, 2])[_GROUP])
    ],
    "b": _rng.random(_N) < np.array([0.2, 0.8])[_GROUP],
    "v": np.array([[0.0, 0.0], [6.0, -9.0]])[_GROUP] + _rng.normal(size=(_N, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]]),
    "l": np.exp(np.array([-2.0, 5.0])[_GROUP] + _rng.normal(size=_N)),
    "e": _rng.exponential(np.array([0.1, 90.0])[_GROUP]),
    "s": [
        frozenset(t for t, p in zip("pqr", ps) if _rng.random() < p)
        for ps in np.array([[0.2, 0.9, 0.5], [0.8, 0.1, 0.5]])[_GROUP]
    ],
    "g": _rng.geometric(np.array([0.7, 0.01])[_GROUP]),
}


def missing(table: dict[str, Any]) -> dict[str, Any]:
    """The same with a fifth of the cells missing, whole rows among them."""
    rng = np.random.default_rng(8)
    out = {}
    for name, values in table.items():
        gone = rng.random(len(values)) < 0.2
        gone[[0, 40]] = True
        out[name] = [None if lost else value for lost, value in zip(gone, list(values))]
    return out


@dataclass(frozen=True)
class Tree:
    """A spec and the fields that it reads; the name says structure and families."""

    name: str
    spec: Any
    fields: str

    def table(self, source: dict[str, Any] | None = None) -> Any:
        columns = {name: (TABLE if source is None else source)[name] for name in self.fields}
        return columns if self.is_record else next(iter(columns.values()))

    @property
    def is_record(self) -> bool:
        node = self.spec
        while isinstance(node, bm.Mixture):
            node = node.component
        return isinstance(node, bm.Composite)


C, M = bm.Composite, bm.Mixture
IDENTIFIED = [
    Tree("Normal", bm.Normal(), "y"),
    Tree("MvNormal", bm.MvNormal(), "v"),
    Tree("Poisson", bm.Poisson(), "m"),
    Tree("Categorical", bm.Categorical(), "c"),
    Tree("Bernoulli", bm.Bernoulli(), "b"),
    Tree("LogNormal", bm.LogNormal(), "l"),
    Tree("Exponential", bm.Exponential(), "e"),
    Tree("Geometric", bm.Geometric(), "g"),
    Tree("BernoulliSet", bm.BernoulliSet(), "s"),
    Tree("Mixture-Normal", M(bm.Normal(), 2), "y"),
    Tree("Mixture-MvNormal", M(bm.MvNormal(), 2), "v"),
    Tree("Mixture-Poisson", M(bm.Poisson(), 2), "m"),
    Tree("Mixture-LogNormal", M(bm.LogNormal(), 2), "l"),
    Tree("Mixture-Exponential", M(bm.Exponential(), 2), "e"),
    Tree("Mixture-Geometric", M(bm.Geometric(), 2), "g"),
    Tree("Mixture1-Normal", M(bm.Normal(), 1), "y"),
    Tree("Mixture1-Poisson", M(bm.Poisson(), 1), "m"),
    Tree("Composite-Normal-Poisson", C(y=bm.Normal(), m=bm.Poisson()), "ym"),
    Tree("Composite-MvNormal-Categorical", C(v=bm.MvNormal(), c=bm.Categorical()), "vc"),
    Tree("Mixture-Composite-Normal-Poisson", M(C(y=bm.Normal(), m=bm.Poisson()), 2), "ym"),
    Tree(
        "Mixture-Composite-MvNormal-Categorical-Bernoulli",
        M(C(v=bm.MvNormal(), c=bm.Categorical(), b=bm.Bernoulli()), 2),
        "vcb",
    ),
    Tree(
        "Mixture-Composite-LogNormal-Exponential-Geometric",
        M(C(l=bm.LogNormal(), e=bm.Exponential(), g=bm.Geometric()), 2),
        "leg",
    ),
    Tree("Mixture-Composite-Normal-BernoulliSet", M(C(y=bm.Normal(), s=bm.BernoulliSet()), 2), "ys"),
    Tree("Mixture1-Composite-Normal-Bernoulli", M(C(y=bm.Normal(), b=bm.Bernoulli()), 1), "yb"),
    Tree("Composite-Mixture-Normal-Poisson", C(y=M(bm.Normal(), 2), m=M(bm.Poisson(), 2)), "ym"),
    Tree("Mixture-Composite-Mixture-Normal-Poisson", M(C(x=M(bm.Normal(), 2), m=bm.Poisson()), 2), "xm"),
    Tree("Mixture-Composite-Mixture-Poisson-MvNormal", M(C(n=M(bm.Poisson(), 2), v=bm.MvNormal()), 2), "nv"),
]
# Identified up to which component belongs to which: only a proper prior on the weights makes the mode a point.
RIDGED = [
    Tree("Mixture-Mixture-Normal", M(M(bm.Normal(), 2), 2), "x"),
    Tree("Mixture-Mixture-Poisson", M(M(bm.Poisson(), 2), 2), "n"),
    Tree("Mixture-Categorical", M(bm.Categorical(), 2), "c"),
    Tree("Mixture-Bernoulli", M(bm.Bernoulli(), 2), "b"),
]
HALF_NORMAL = {"sigma": pm.HalfNormal.dist(3.0)}
LOG_NORMAL = {"mu": pm.LogNormal.dist(2.0, 1.5)}
NUMERIC = [
    Tree("Normal-HalfNormal", bm.Normal(**HALF_NORMAL), "y"),
    Tree("Mixture-Normal-HalfNormal", M(bm.Normal(**HALF_NORMAL), 2), "y"),
    Tree(
        "Mixture-Normal-Gamma",
        M(bm.Normal(sigma=pm.Gamma.dist(2.0, 1.5), mu=pm.StudentT.dist(nu=4, mu=0.0, sigma=10.0)), 2),
        "y",
    ),
    Tree("Mixture-Poisson-LogNormal", M(bm.Poisson(**LOG_NORMAL), 2), "m"),
    Tree(
        "Mixture-Composite-Normal-HalfNormal-Poisson-LogNormal",
        M(C(y=bm.Normal(**HALF_NORMAL), m=bm.Poisson(**LOG_NORMAL)), 2),
        "ym",
    ),
    Tree(
        "Mixture-Composite-Mixture-Normal-HalfNormal-Poisson-LogNormal",
        M(C(x=M(bm.Normal(**HALF_NORMAL), 2), m=bm.Poisson(**LOG_NORMAL)), 2),
        "xm",
    ),
    Tree("Composite-Bernoulli-LogitNormal", C(b=bm.Bernoulli(p=pm.LogitNormal.dist(0.0, 1.5)), y=bm.Normal()), "by"),
    Tree(
        "MvNormal-LKJ",
        bm.MvNormal(
            cov=pm.LKJCholeskyCov.dist(eta=2.0, n=2, sd_dist=pm.HalfNormal.dist(3.0, shape=2), compute_corr=False)
        ),
        "v",
    ),
    Tree(
        "Mixture-MvNormal-LKJ",
        M(
            bm.MvNormal(
                cov=pm.LKJCholeskyCov.dist(eta=2.0, n=2, sd_dist=pm.HalfNormal.dist(3.0, shape=2), compute_corr=False)
            ),
            2,
        ),
        "v",
    ),
]
CONJUGATE = [
    Tree(
        "Mixture-Normal-conjugate",
        M(bm.Normal(mu=pm.Normal.dist(4.0, 3.0), sigma=pm.InverseGamma.dist(3.0, 2.0)), 2),
        "y",
    ),
    Tree(
        "Mixture-Poisson-Gamma",
        M(bm.Poisson(mu=pm.Gamma.dist(2.0, 0.25)), 2, weights=pm.Dirichlet.dist([2.0, 3.0])),
        "m",
    ),
    Tree("Mixture-Normal-fixed-weights", M(bm.Normal(sigma=1.0), 2, weights=[0.25, 0.75]), "y"),
    # one prior for each component
    Tree("Mixture-Normal-prior-per-component", M(bm.Normal(mu=pm.Normal.dist([8.0, 0.0], [1.0, 2.0])), 2), "y"),
]


def trees(*groups, fast=None):
    """Parametrise over trees; where `fast` names some of them, the others are marked slow."""
    chosen = [tree for group in groups for tree in group]
    slow = [tree for tree in chosen if fast is not None and tree.name not in fast]
    marked = [pytest.param(tree, id=tree.name, marks=[pytest.mark.slow] if tree in slow else []) for tree in chosen]
    return pytest.mark.parametrize("tree", marked)


# Every structure node with at least two families; building a PyMC model's gradient takes about two seconds each.
BROAD = (
    "Mixture-MvNormal",
    "Mixture-Poisson",
    "Composite-MvNormal-Categorical",
    "Mixture1-Composite-Normal-Bernoulli",
    "Mixture-Composite-Normal-Poisson",
    "Mixture-Composite-MvNormal-Categorical-Bernoulli",
    "Mixture-Composite-Mixture-Normal-Poisson",
    "Mixture-Composite-Mixture-Poisson-MvNormal",
)
NARROW = ("Mixture-Composite-MvNormal-Categorical-Bernoulli", "Mixture-Composite-Mixture-Normal-Poisson")


def fixed_point(spec, table, *, max_iter=400, **kwargs):
    """EM until nothing moves; what still moves in its last digits is caught by the tests, not by a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        return bm.fit_em(spec, table, tol=0, n_starts=3, max_iter=max_iter, random_seed=1, **kwargs)


def target_at(fit, row_weights=None):
    model = model_of(fit.bound, fit.encoded, row_weights=row_weights, initval=None)
    # exactly there: `variables_at` gives where searches start, off the edges
    return Target(model, {name: fit.params[name] for name in fit.bound.sampled_slots}, jacobian=False)


def check_fixed_point(spec, table, tolerance=1e-8, **kwargs):
    fit = fixed_point(spec, table, **kwargs)
    history = fit.history
    assert (np.diff(history) >= -1e-11 * np.abs(history[:-1])).all(), "the objective fell"
    target = target_at(fit, kwargs.get("row_weights"))
    value, gradient = target(target.start)
    np.testing.assert_allclose(value, history[-1], rtol=tolerance)
    assert np.abs(gradient).max(initial=0) < 1e-6
    check_elsewhere(fit, target, tolerance, kwargs.get("row_weights"))
    return fit


def check_elsewhere(fit, target, tolerance, row_weights):
    """Away from the fixed point: the model's value equals ours, and its gradient the slope of our own value."""
    rng = np.random.default_rng(4)
    u = target.start + 0.05 * rng.normal(size=target.start.shape)
    direction = rng.normal(size=u.shape)
    weights = np.ones(fit.encoded.n_rows) if row_weights is None else row_weights

    def own(at):
        params = fit.bound.with_fixed(target.constrained(at))
        return weights @ fit.bound.log_density(params, fit.encoded) + fit.bound.log_prior(params)

    value, gradient = target(u)
    np.testing.assert_allclose(value, own(u), rtol=tolerance)
    h = 1e-5
    slope = (own(u + h * direction) - own(u - h * direction)) / (2 * h)
    # central differences: rounding of the value (1e3 * 1e-16 / h) and h² times the third derivative
    np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-5, atol=1e-4)


# ------------------------------------------------------------------- law 4: one posterior for every engine


@trees(IDENTIFIED, RIDGED)
def test_em_stops_where_the_pymc_models_gradient_is_zero(tree):
    # along a ridge EM creeps: it needs thousands of its cheap iterations
    check_fixed_point(tree.spec, tree.table(), max_iter=8000 if tree in RIDGED else 400)


@trees(IDENTIFIED, fast=BROAD)
def test_em_stops_where_the_gradient_is_zero_under_flat_priors(tree):
    fit = check_fixed_point(tree.spec.with_flat_priors(), tree.table())
    # flat priors have log density 0, but for the constant (K-1)! of a Dirichlet(1, …, 1)
    assert fit.loglik <= fit.history[-1] + 1e-9


NESTED_NUMERIC = "Mixture-Composite-Mixture-Normal-HalfNormal-Poisson-LogNormal"


@trees(NUMERIC, CONJUGATE, fast={tree.name for tree in [*NUMERIC, *CONJUGATE]} - {NESTED_NUMERIC, "MvNormal-LKJ"})
def test_em_stops_where_the_gradient_is_zero_under_users_priors(tree):
    # hyperparameters given as Python floats are single precision in PyMC, so logarithms of them are off by 1e-8
    check_fixed_point(tree.spec, tree.table(), 1e-7, max_iter=150)


@trees([tree for tree in IDENTIFIED if "Mixture1" not in tree.name], fast=NARROW)
@pytest.mark.parametrize("flat", [False, True], ids=["default", "flat"])
def test_em_stops_where_the_gradient_is_zero_with_missing_cells(tree, flat):
    spec = tree.spec.with_flat_priors() if flat else tree.spec
    check_fixed_point(spec, tree.table(missing(TABLE)), max_iter=1000)


@trees([tree for tree in IDENTIFIED if tree.name in ("Mixture-Normal", "Mixture-Composite-Mixture-Normal-Poisson")])
def test_em_stops_where_the_gradient_is_zero_with_row_weights(tree):
    weights = np.random.default_rng(3).integers(0, 4, _N).astype(float)
    check_fixed_point(tree.spec, tree.table(), row_weights=weights, max_iter=1000)


# ------------------------------------------------------------------- enumeration of labels


def enumerate_labels(joint: np.ndarray) -> float:
    """Log-likelihood from the joint log densities (N, L) of each row and label, over all L^N label vectors."""
    n_rows, n_labels = joint.shape
    terms = [
        sum(joint[row, label] for row, label in enumerate(labels))
        for labels in itertools.product(range(n_labels), repeat=n_rows)
    ]
    return float(np.logaddexp.reduce(terms))


def loglik_of(spec, table, params):
    bound = bind(spec, read(table))
    return bound.log_density(params, bound.encode(table)).sum(), bound


W = np.array([0.3, 0.5, 0.2])
MU, SIGMA, RATE = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 1.0, 2.0]), np.array([1.0, 4.0, 9.0])
X, COUNTS = np.array([0.3, -1.2, 2.5, 0.9]), np.array([2, 0, 7, 3])


def test_enumeration_Mixture_Normal():
    joint = np.log(W) + stats.norm.logpdf(X[:, None], MU, SIGMA)
    found, _ = loglik_of(bm.Mixture(bm.Normal(), 3), X, {"weights": W, "mu": MU, "sigma": SIGMA})
    np.testing.assert_allclose(found, enumerate_labels(joint), rtol=1e-12)


def test_enumeration_Mixture_MvNormal():
    points = np.column_stack([X, COUNTS.astype(float)])
    cov = np.array([[[1.0, 0.4], [0.4, 2.0]], [[3.0, 0.0], [0.0, 1.0]]])
    mean = np.array([[0.0, 1.0], [1.0, 4.0]])
    logs = [stats.multivariate_normal.logpdf(points, m, c) for m, c in zip(mean, cov)]
    joint = np.log([0.4, 0.6]) + np.stack(logs, 1)
    params = {"weights": np.array([0.4, 0.6]), "mu": mean, "cov": cov}
    found, _ = loglik_of(bm.Mixture(bm.MvNormal(), 2), points, params)
    np.testing.assert_allclose(found, enumerate_labels(joint), rtol=1e-12)


@pytest.mark.parametrize("gone", [False, True], ids=["complete", "missing"])
def test_enumeration_Mixture_Composite_Normal_Poisson(gone):
    of_x = stats.norm.logpdf(X[:, None], MU, SIGMA)
    of_n = stats.poisson.logpmf(COUNTS[:, None], RATE)
    table = {"x": X.tolist(), "n": COUNTS.tolist()}
    if gone:  # a missing cell is integrated out: its factor is 1; row 3 has no cell at all
        of_x[[1, 3]], of_n[[2, 3]] = 0, 0
        table = {"x": [X[0], None, X[2], float("nan")], "n": [2, 0, None, None]}
    params = {"weights": W, "x_mu": MU, "x_sigma": SIGMA, "n_mu": RATE}
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), n=bm.Poisson()), 3)
    found, bound = loglik_of(spec, table, params)
    np.testing.assert_allclose(found, enumerate_labels(np.log(W) + of_x + of_n), rtol=1e-12)
    # responsibilities by Bayes' rule, row by row
    joint = np.exp(np.log(W) + of_x + of_n)
    resp = bound.responsibilities(params, bound.encode(table))
    np.testing.assert_allclose(resp, joint / joint.sum(1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("gone", [False, True], ids=["complete", "missing"])
def test_enumeration_Mixture_Composite_Mixture_Normal_Poisson(gone):
    """Each row has an outer label and one inside the field x; both are enumerated."""
    outer, inner = np.array([0.35, 0.65]), np.array([[0.2, 0.8], [0.6, 0.4]])
    mu, sigma = np.array([[-1.0, 0.0], [1.0, 3.0]]), np.array([[0.5, 1.5], [1.0, 2.0]])
    rate = np.array([1.5, 6.0])
    of_x = np.log(inner) + stats.norm.logpdf(X[:, None, None], mu, sigma)
    of_n = stats.poisson.logpmf(COUNTS[:, None], rate)
    table = {"x": X.tolist(), "n": COUNTS.tolist()}
    if gone:
        of_x[1] = np.log(inner)
        of_n[2] = 0
        table = {"x": [X[0], None, X[2], X[3]], "n": [2, 0, None, 3]}
    joint = (np.log(outer)[:, None] + of_x + of_n[:, :, None]).reshape(4, 4)
    params = {"weights": outer, "x_weights": inner, "x_mu": mu, "x_sigma": sigma, "n_mu": rate}
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), n=bm.Poisson()), 2)
    found, _ = loglik_of(spec, table, params)
    np.testing.assert_allclose(found, enumerate_labels(joint), rtol=1e-12)


def test_enumeration_Composite_of_two_Mixtures_Normal_Poisson():
    """The fields' labels are independent: one label each a row."""
    weights, mu, sigma = np.array([0.3, 0.7]), np.array([-1.0, 2.0]), np.array([0.6, 1.4])
    rates, shares = np.array([1.0, 6.0]), np.array([0.55, 0.45])
    of_x = np.log(weights) + stats.norm.logpdf(X[:, None], mu, sigma)
    of_n = np.log(shares) + stats.poisson.logpmf(COUNTS[:, None], rates)
    joint = (of_x[:, :, None] + of_n[:, None, :]).reshape(4, 4)
    spec = bm.Composite(x=bm.Mixture(bm.Normal(), 2), n=bm.Mixture(bm.Poisson(), 2))
    params = {"x_weights": weights, "x_mu": mu, "x_sigma": sigma, "n_weights": shares, "n_mu": rates}
    found, _ = loglik_of(spec, {"x": X, "n": COUNTS}, params)
    np.testing.assert_allclose(found, enumerate_labels(joint), rtol=1e-12)


def test_enumeration_Mixture_Mixture_Poisson():
    outer, inner = np.array([0.35, 0.65]), np.array([[0.2, 0.8], [0.6, 0.4]])
    rate = np.array([[1.0, 3.0], [6.0, 12.0]])
    joint = np.log(outer)[:, None] + np.log(inner) + stats.poisson.logpmf(COUNTS[:, None, None], rate)
    bound = bind(bm.Mixture(bm.Mixture(bm.Poisson(), 2), 2), read(COUNTS))
    params = {}
    for name, slot in bound.slots.items():
        params[name] = rate if name.endswith("mu") else (outer if slot.shape == (2,) else inner)
    found = bound.log_density(params, bound.encode(COUNTS)).sum()
    np.testing.assert_allclose(found, enumerate_labels(joint.reshape(4, 4)), rtol=1e-12)


def test_enumeration_Mixture_Categorical_Bernoulli_with_certain_parameters():
    """Probabilities of exactly 0 and 1 exclude components, and a row that all exclude has density 0."""
    spec = bm.Mixture(bm.Composite(c=bm.Categorical(), b=bm.Bernoulli()), 2)
    table = {"c": ["u", "v", "u", "v"], "b": [0, 1, 1, 0]}
    weights, p, q = np.array([0.4, 0.6]), np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([0.0, 1.0])
    with np.errstate(divide="ignore"):
        of_c = np.log(p).T[[0, 1, 0, 1]]
        of_b = stats.bernoulli.logpmf(np.array(table["b"])[:, None], q)
    joint = np.log(weights) + of_c + of_b
    bound = bind(spec, read(table))
    found = bound.log_density({"weights": weights, "c_p": p, "b_p": q}, bound.encode(table))
    np.testing.assert_allclose(found, np.logaddexp.reduce(joint, axis=1), rtol=1e-12)
    assert np.isneginf(found[3])
    np.testing.assert_allclose(found[:3].sum(), enumerate_labels(joint[:3]), rtol=1e-12)


# ------------------------------------------------------------------- special cases that must agree


@pytest.mark.parametrize("priors", ["default", "flat"])
@pytest.mark.parametrize(
    ("family", "field"),
    [("Normal", "y"), ("MvNormal", "v"), ("Poisson", "m"), ("Categorical", "c"), ("Bernoulli", "b")],
)
def test_a_mixture_of_one_is_its_component(family, field, priors):
    leaf = getattr(bm, family)()
    alone, mixed = leaf, bm.Mixture(leaf, 1)
    if priors == "flat":
        alone, mixed = alone.with_flat_priors(), mixed.with_flat_priors()
    a = bm.fit_em(alone, TABLE[field], tol=0, random_seed=1)
    b = bm.fit_em(mixed, TABLE[field], tol=0, random_seed=1)
    np.testing.assert_allclose(b.loglik, a.loglik, rtol=1e-12)
    np.testing.assert_allclose(b.history[-1], a.history[-1], rtol=1e-12)
    np.testing.assert_array_equal(b.params["weights"], [1.0])
    for name, value in a.params.items():
        np.testing.assert_allclose(b.params[name][0], value, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(b.responsibilities(), np.ones((_N, 1)))


@pytest.mark.parametrize(
    ("family", "field", "closed"),
    [
        ("Normal", "y", lambda x: {"mu": x.mean(), "sigma": x.std()}),
        ("MvNormal", "v", lambda x: {"mu": x.mean(0), "cov": np.cov(x.T, bias=True)}),
        ("Poisson", "m", lambda x: {"mu": x.mean()}),
        ("Bernoulli", "b", lambda x: {"p": x.mean()}),
        ("Categorical", "c", lambda x: {"p": np.array([np.mean(x == s) for s in "abc"])}),
    ],
)
def test_one_component_under_flat_priors_is_the_textbooks_maximum(family, field, closed):
    fit = bm.fit_em(getattr(bm, family)().with_flat_priors(), TABLE[field], tol=0)
    for name, value in closed(TABLE[field]).items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-10, err_msg=name)


def repeated(table, row):
    rows = np.append(np.arange(_N), row)
    if isinstance(table, dict):
        return {name: np.asarray(values)[rows] for name, values in table.items()}
    return np.asarray(table)[rows]


WEIGHED = [
    tree
    for tree in IDENTIFIED
    if tree.name
    in (
        "Normal",
        "Mixture-MvNormal",
        "Mixture-Poisson",
        "Mixture-Composite-MvNormal-Categorical-Bernoulli",
        "Mixture-Composite-Mixture-Normal-Poisson",
    )
]


@trees(WEIGHED)
def test_a_repeated_row_is_a_row_of_weight_two(tree):
    """Under one prior: default priors take their scale from the column, so they are held by one bound spec."""
    table = read(tree.table())
    bound = bind(tree.spec, table)
    data = bound.encode(table)
    once, weights = np.arange(_N), np.ones(_N)
    weights[5] = 2
    begin, _ = maximise(bound, data, np.ones(_N), n_starts=2, random_seed=1)
    start = {name: begin.params[name] for name in bound.free_slots}
    weighted, _ = maximise(bound, data, weights, start=start)
    twice, _ = maximise(bound, data.take(np.append(once, 5)), np.ones(_N + 1), start=start)
    np.testing.assert_allclose(weighted.objective, twice.objective, rtol=1e-12)
    for name, value in twice.params.items():
        np.testing.assert_allclose(weighted.params[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


@trees(WEIGHED)
def test_a_repeated_row_is_a_row_of_weight_two_for_users(tree):
    spec = tree.spec.with_flat_priors()
    first = bm.fit_em(spec, tree.table(), n_starts=2, random_seed=1)
    start = {name: first.params[name] for name in first.bound.free_slots}
    weights = np.ones(_N)
    weights[5] = 2
    weighted = bm.fit_em(spec, tree.table(), start=start, row_weights=weights)
    twice = bm.fit_em(spec, repeated(tree.table(), 5), start=start)
    np.testing.assert_allclose(weighted.history[-1], twice.history[-1], rtol=1e-10)
    np.testing.assert_allclose(weighted.loglik, twice.loglik, rtol=1e-10)
    for name, value in twice.params.items():
        np.testing.assert_allclose(weighted.params[name], value, rtol=1e-6, atol=1e-8, err_msg=name)


@trees(WEIGHED)
def test_a_row_of_weight_zero_is_no_row(tree):
    spec = tree.spec.with_flat_priors()
    first = bm.fit_em(spec, tree.table(), n_starts=2, random_seed=1)
    start = {name: first.params[name] for name in first.bound.free_slots}
    table = repeated(tree.table(), 5)
    weighted = bm.fit_em(spec, table, start=start, row_weights=np.append(np.ones(_N), 0.0))
    np.testing.assert_allclose(weighted.history[-1], first.history[-1], rtol=1e-8)


@trees(IDENTIFIED, fast=BROAD)
def test_the_order_of_the_rows_does_not_matter(tree):
    table = tree.table(missing(TABLE))
    order = np.random.default_rng(9).permutation(_N)
    if isinstance(table, dict):
        shuffled = {name: [values[i] for i in order] for name, values in table.items()}
    else:
        shuffled = [table[i] for i in order]
    first = bm.fit_em(tree.spec, table, n_starts=2, random_seed=1)
    start = {name: first.params[name] for name in first.bound.free_slots}
    a = bm.fit_em(tree.spec, table, start=start)
    b = bm.fit_em(tree.spec, shuffled, start=start)
    np.testing.assert_allclose(b.history[-1], a.history[-1], rtol=1e-11)
    for name, value in a.params.items():
        np.testing.assert_allclose(b.params[name], value, rtol=1e-7, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(b.log_density(), a.log_density()[order], rtol=1e-7, atol=1e-9)


@trees(IDENTIFIED)
def test_statistics_of_two_halves_add_up_to_the_whole(tree):
    fit = bm.fit_em(tree.spec, tree.table(missing(TABLE)), n_starts=1, random_seed=1)
    bound, data, params = fit.bound, fit.encoded, fit.params
    weights = np.random.default_rng(10).random(_N)
    loglik, whole = bound.e_step(params, data, weights)
    rows = np.random.default_rng(11).permutation(_N)
    parts = [bound.e_step(params, data.take(half), weights[half]) for half in np.array_split(rows, 2)]
    np.testing.assert_allclose(parts[0][0] + parts[1][0], loglik, rtol=1e-12)
    together = add_stats(parts[0][1], parts[1][1])
    assert together.keys() == whole.keys()
    for key, named in whole.items():
        for name, value in named.items():
            np.testing.assert_allclose(together[key][name], value, rtol=1e-10, atol=1e-9, err_msg=f"{key}.{name}")


def test_weights_of_components_that_no_row_wants_stay_proper_Mixture_Normal():
    """More components than clusters: default priors keep every scale and weight positive."""
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 6), TABLE["y"], n_starts=4, random_seed=1)
    assert (fit.params["weights"] > 0).all()
    assert (fit.params["sigma"] > 0.01).all()
    assert np.isfinite(fit.history).all()


def test_a_component_cannot_collapse_onto_tied_values_Mixture_Normal():
    """Old Faithful's trap of PUBLISHED.md: 15 ties among rounded values draw a component to sigma = 0."""
    x = np.concatenate([np.random.default_rng(0).normal(0, 5, 60).round(), np.full(15, 3.0)])
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, random_seed=1)
    assert (fit.params["sigma"] > 0.05).all()
    assert np.isfinite(fit.loglik)


def test_two_shifted_copies_are_fitted_alike_Normal_MvNormal():
    """Sums about a reference point: a shift of 1e8 must not cost the digits that raw moments would lose."""
    x = TABLE["y"]
    a = bm.fit_em(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    b = bm.fit_em(bm.Mixture(bm.Normal(), 2), x + 1e8, random_seed=1)
    # x + 1e8 itself is rounded to 1.5e-8
    np.testing.assert_allclose(b.params["sigma"], a.params["sigma"], rtol=1e-6)
    np.testing.assert_allclose(b.params["mu"] - 1e8, a.params["mu"], atol=1e-6)
    a = bm.fit_em(bm.Mixture(bm.MvNormal(), 2), TABLE["v"], random_seed=1)
    b = bm.fit_em(bm.Mixture(bm.MvNormal(), 2), TABLE["v"] + 1e8, random_seed=1)
    order = np.argsort(a.params["mu"][:, 0]), np.argsort(b.params["mu"][:, 0])
    np.testing.assert_allclose(b.params["cov"][order[1]], a.params["cov"][order[0]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_do_not_matter_Mixture_Normal(scale):
    """PUBLISHED.md: a trusted program gives two equal means on data scaled by 1e-8."""
    x = TABLE["y"]
    a = bm.fit_em(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
    b = bm.fit_em(bm.Mixture(bm.Normal(), 2), x * scale, random_seed=1)
    np.testing.assert_allclose(b.params["mu"], a.params["mu"] * scale, rtol=1e-6)
    np.testing.assert_allclose(b.params["sigma"], a.params["sigma"] * scale, rtol=1e-6)
    np.testing.assert_allclose(b.params["weights"], a.params["weights"], rtol=1e-6)
