"""The number of components: criteria and the evidence, against sums over every labelling of conjugate toys.

With conjugate priors everything given the labels is in closed form, so the posterior of a handful of rows is a finite
mixture over all labellings: its evidence, exact independent draws, leave-one-out densities, and the number of occupied
components come from one sum.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field, replace
from math import lgamma
from typing import Any

import arviz_stats as azs
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats
from scipy.special import betaln, gammaln, logsumexp

import bayesmix as bm
from bayesmix import evidence
from bayesmix.bound import bind, prepare
from bayesmix.build import model_of, variables_at
from bayesmix.data import read
from bayesmix.evidence import require_proper
from bayesmix.fit import Status, make_fit
from bayesmix.inference.em import fit_em
from bayesmix.inference.proposal import Kernel, Permutations, averaged, fitted_to, nearest
from bayesmix.inference.target import Target
from bayesmix.select import n_parameters

# ---------------------------------------------------------------- conjugate toys, summed over all labellings


def dirichlet_multinomial(counts: np.ndarray, concentration: np.ndarray) -> float:
    """Log probability of labels with these counts, the weights integrated out."""
    a = np.broadcast_to(concentration, counts.shape)
    return float(gammaln(a.sum()) - gammaln((a + counts).sum()) + (gammaln(a + counts) - gammaln(a)).sum())


@dataclass
class Poisson:
    """Counts with mu ~ Gamma(shape, rate), the mean integrated out."""

    x: np.ndarray
    shape: float = 2.0
    rate: float = 0.3

    def family(self):
        return bm.Poisson(mu=pm.Gamma.dist(self.shape, self.rate))

    def log_marginal(self, rows: np.ndarray) -> float:
        x, a, b = self.x[rows], self.shape, self.rate
        return (
            a * np.log(b) - lgamma(a) + lgamma(a + x.sum()) - (a + x.sum()) * np.log(b + len(x)) - gammaln(x + 1).sum()
        )

    def draw(self, rows: np.ndarray, rng) -> dict[str, float]:
        x = self.x[rows]
        return {"mu": rng.gamma(self.shape + x.sum()) / (self.rate + len(x))}


@dataclass
class Bernoulli:
    x: np.ndarray
    a: float = 2.0
    b: float = 3.0

    def family(self):
        return bm.Bernoulli(p=pm.Beta.dist(self.a, self.b))

    def log_marginal(self, rows):
        x = self.x[rows]
        return betaln(self.a + x.sum(), self.b + len(x) - x.sum()) - betaln(self.a, self.b)

    def draw(self, rows, rng):
        x = self.x[rows]
        return {"p": rng.beta(self.a + x.sum(), self.b + len(x) - x.sum())}


@dataclass
class Normal:
    """Real numbers of known standard deviation with mu ~ Normal(centre, spread)."""

    x: np.ndarray
    sigma: float = 1.0
    centre: float = 0.5
    spread: float = 3.0

    def family(self):
        return bm.Normal(mu=pm.Normal.dist(self.centre, self.spread), sigma=self.sigma)

    def log_marginal(self, rows):
        x = self.x[rows]
        if len(x) == 0:
            return 0.0
        covariance = self.sigma**2 * np.eye(len(x)) + self.spread**2
        return stats.multivariate_normal(np.full(len(x), self.centre), covariance).logpdf(x)

    def draw(self, rows, rng):
        x = self.x[rows]
        precision = 1 / self.spread**2 + len(x) / self.sigma**2
        mean = (self.centre / self.spread**2 + x.sum() / self.sigma**2) / precision
        return {"mu": rng.normal(mean, precision**-0.5)}


@dataclass
class Toy:
    """A mixture of K components of one conjugate family."""

    leaf: Any
    k: int
    concentration: Any = 2.0
    log_terms: np.ndarray = field(init=False)

    def __post_init__(self):
        self.labels = list(itertools.product(range(self.k), repeat=len(self.leaf.x)))
        self.log_terms = np.array([self.log_joint(np.array(z, int)) for z in self.labels])

    def log_joint(self, z: np.ndarray) -> float:
        counts = np.bincount(z, minlength=self.k)
        marginals = [self.leaf.log_marginal(np.flatnonzero(z == k)) for k in range(self.k)]
        return dirichlet_multinomial(counts, np.asarray(self.concentration)) + sum(marginals)

    @property
    def log_evidence(self) -> float:
        return float(logsumexp(self.log_terms))

    @property
    def spec(self):
        prior = pm.Dirichlet.dist(np.broadcast_to(np.asarray(self.concentration, float), self.k).copy())
        return bm.Mixture(self.leaf.family(), self.k, weights=prior)

    @property
    def table(self):
        return self.leaf.x

    def exact_draws(self, size: int, rng) -> dict[str, np.ndarray]:
        chance = np.exp(self.log_terms - self.log_evidence)
        found: dict[str, list] = {}
        for at in rng.choice(len(self.labels), size, p=chance / chance.sum()):
            z = np.array(self.labels[at], int)
            counts = np.bincount(z, minlength=self.k)
            one = {"weights": rng.dirichlet(np.asarray(self.concentration) + counts)}
            each = [self.leaf.draw(np.flatnonzero(z == k), rng) for k in range(self.k)]
            one.update({name: np.array([e[name] for e in each]) for name in each[0]})
            for name, value in one.items():
                found.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in found.items()}


def exact_fit(toy, draws: dict[str, np.ndarray], n_chains: int = 4, log_likelihood: bool = False) -> bm.Fit:
    """A fit whose posterior is made of given independent draws."""
    table, bound, encoded, _, _ = prepare(toy.spec, toy.table, None)
    arrays = {name: values.reshape(n_chains, -1, *values.shape[1:]) for name, values in draws.items()}
    status = Status("nuts", True, "drawn from the exact posterior")
    given = {"row_weights": None, "status": status, "log_likelihood": log_likelihood}
    return make_fit(bound, arrays, table=table, encoded=encoded, **given)


def sorted_by(name: str, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws of a flat mixture as an ordered model gives them."""
    order = np.argsort(draws[name], axis=1)
    return {key: np.take_along_axis(values, order, axis=1) for key, values in draws.items()}


APART = Poisson(np.array([0, 1, 1, 0, 9, 12, 8, 0, 1, 11]))
CLOSE = Poisson(np.array([3, 2, 5, 4, 2, 6, 1, 3]))
TOYS = {
    "one component": Toy(APART, 1),
    "two apart": Toy(APART, 2),
    "two that overlap": Toy(CLOSE, 2),
    "three": Toy(Poisson(np.array([0, 1, 10, 12, 30, 33, 1, 28])), 3),
    "three that overlap": Toy(CLOSE, 3),
    "bernoulli": Toy(Bernoulli(np.array([0, 1, 1, 0, 1, 1, 1, 0])), 2, 1.5),
    "normal, known sigma": Toy(Normal(np.array([-2.1, -1.7, -2.6, 2.2, 3.1, 1.4, 2.7, -1.2])), 2, 1.0),
    "weights of unlike priors": Toy(APART, 2, np.array([1.0, 4.0])),
}


@pytest.mark.parametrize("order", ["any order", "ordered"])
@pytest.mark.parametrize("name", TOYS)
@pytest.mark.slow
def test_bridge_sampling_finds_the_sum_over_all_labellings(name, order):
    """Within a hundredth of a nat, whether the draws are ordered, as PyMC's transform gives them, or switch labels."""
    toy = TOYS[name]
    draws = toy.exact_draws(12_000, np.random.default_rng(1))
    if order == "ordered" and name != "weights of unlike priors":
        draws = sorted_by("p" if "p" in draws else "mu", draws)
    found = bm.log_evidence(exact_fit(toy, draws), "bridge", draws=12_000, random_seed=2)
    assert abs(found.value - toy.log_evidence) < 1e-2
    assert abs(found.value - toy.log_evidence) < 5 * found.error
    symmetric = 1 if name == "weights of unlike priors" else toy.k
    np.testing.assert_allclose(found.log_symmetries, lgamma(symmetric + 1))


@pytest.mark.parametrize("name", ["one component", "two apart", "three", "normal, known sigma", "bernoulli"])
def test_importance_sampling_needs_the_mode_only(name):
    toy = TOYS[name]
    found = bm.log_evidence(fit_em(toy.spec, toy.table, random_seed=1), "importance", draws=20_000, random_seed=2)
    assert abs(found.value - toy.log_evidence) < 1e-2
    assert found.pareto_k < 0.7


@pytest.mark.slow
def test_the_error_that_bridge_sampling_states_is_its_spread():
    toy = TOYS["two that overlap"]
    draws = toy.exact_draws(4_800, np.random.default_rng(0))
    scores = []
    for part in range(6):
        fit = exact_fit(toy, {name: values[part::6] for name, values in draws.items()})
        found = bm.log_evidence(fit, "bridge", random_seed=part)
        scores.append((found.value - toy.log_evidence) / found.error)
    # six standard scores: their sum of squares is chi-squared
    assert stats.chi2(6).ppf(0.0005) < np.sum(np.square(scores)) < stats.chi2(6).ppf(0.9995)


# ---------------------------------------------------------------- two levels


@dataclass
class Joint:
    """x a mixture of K, and y of M whose label depends on that of x."""

    x: Poisson
    y: Bernoulli
    k: int = 2
    m: int = 2

    @property
    def spec(self):
        return bm.JointMixture(x=(self.x.family(), self.k), y=(self.y.family(), self.m))

    @property
    def table(self):
        return {"x": self.x.x, "y": self.y.x}

    def terms(self):
        for labels in itertools.product(range(self.k * self.m), repeat=len(self.x.x)):
            z = np.array(labels)
            yield z // self.m, z % self.m

    def log_joint(self, zx, zy):
        table = np.zeros((self.k, self.m))
        np.add.at(table, (zx, zy), 1)
        found = dirichlet_multinomial(table.sum(1), np.array(2.0))
        found += sum(dirichlet_multinomial(row, np.array(2.0)) for row in table)
        found += sum(self.x.log_marginal(np.flatnonzero(zx == k)) for k in range(self.k))
        return found + sum(self.y.log_marginal(np.flatnonzero(zy == m)) for m in range(self.m))

    def exact_draws(self, size, rng):
        terms = list(self.terms())
        scores = np.array([self.log_joint(*each) for each in terms])
        chance = np.exp(scores - logsumexp(scores))
        found: dict[str, list] = {"weights": [], "transition": [], "x_mu": [], "y_p": []}
        for at in rng.choice(len(terms), size, p=chance / chance.sum()):
            zx, zy = terms[at]
            table = np.full((self.k, self.m), 2.0)
            np.add.at(table, (zx, zy), 1)
            found["weights"].append(rng.dirichlet(table.sum(1) - 2.0 * self.m + 2.0))
            found["transition"].append([rng.dirichlet(row) for row in table])
            found["x_mu"].append([self.x.draw(np.flatnonzero(zx == k), rng)["mu"] for k in range(self.k)])
            found["y_p"].append([self.y.draw(np.flatnonzero(zy == m), rng)["p"] for m in range(self.m)])
        return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("order", ["any order", "ordered"])
@pytest.mark.slow
def test_evidence_of_a_joint_mixture_counts_both_orders(order):
    toy = Joint(Poisson(np.array([0, 1, 9, 12, 0, 10])), Bernoulli(np.array([0, 1, 1, 1, 0, 1])))
    draws = toy.exact_draws(10_000, np.random.default_rng(1))
    if order == "ordered":  # the labels of x by their means, and those of y by their probabilities
        by_x, by_y = np.argsort(draws["x_mu"], 1), np.argsort(draws["y_p"], 1)
        rows = np.arange(len(by_x))[:, None]
        draws = {
            "weights": draws["weights"][rows, by_x],
            "transition": draws["transition"][rows[:, :, None], by_x[:, :, None], by_y[:, None, :]],
            "x_mu": draws["x_mu"][rows, by_x],
            "y_p": draws["y_p"][rows, by_y],
        }
    found = bm.log_evidence(exact_fit(toy, draws), "bridge", draws=10_000, random_seed=2)
    assert abs(found.value - logsumexp([toy.log_joint(*each) for each in toy.terms()])) < 1e-2
    assert round(np.exp(found.log_symmetries)) == 4  # 2! 2!


def test_evidence_of_a_hierarchical_mixture():
    """Importance sampling from the mode, against the sum over all labels of sequences and of elements."""
    sequences = [[0, 1], [11, 9], [0], [12, 1]]
    owner, leaf = np.repeat(range(4), [2, 2, 1, 2]), Poisson(np.concatenate(sequences))
    terms = []
    for z in itertools.product(range(2), repeat=4):
        for t in itertools.product(range(2), repeat=7):
            kinds, topics, table = np.array(z), np.array(t), np.zeros((2, 2))
            np.add.at(table, (kinds[owner], topics), 1)
            score = dirichlet_multinomial(np.bincount(kinds, minlength=2), np.array(2.0))
            score += sum(dirichlet_multinomial(row, np.array(2.0)) for row in table)
            terms.append(score + sum(leaf.log_marginal(np.flatnonzero(topics == k)) for k in range(2)))
    fit = fit_em(bm.HierarchicalMixture(leaf.family(), n_topics=2, n_mixtures=2), sequences, random_seed=1)
    found = bm.log_evidence(fit, "importance", draws=40_000, random_seed=1)
    assert abs(found.value - logsumexp(terms)) < 1e-2
    assert round(np.exp(found.log_symmetries)) == 4  # 2! 2!


@pytest.mark.slow
@pytest.mark.parametrize("order", [None, "mu"])
def test_evidence_from_nuts_ordered_and_not(order):
    toy = Toy(Normal(np.array([-2.1, -1.7, -2.6, 2.2, 3.1, 1.4, 2.7, -1.2])), 2, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # labels switch
        fit = bm.fit_nuts(toy.spec, toy.table, order=order, draws=4000, chains=4, random_seed=1)
    found = bm.log_evidence(fit, draws=16_000, random_seed=1)
    assert found.method == "bridge"
    assert abs(found.value - toy.log_evidence) < 1e-2


# ---------------------------------------------------------------- permutations


def _target(fit):
    return Target(
        model_of(fit.bound, fit.encoded, initval=fit.params), variables_at(fit.bound, fit.params), jacobian=True
    )


NESTED = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Categorical()), 2)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (bm.Mixture(bm.Normal(), 4), 24),
        (NESTED, 8),
        (bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Categorical(), 3)), 12),
        (bm.Mixture([bm.Normal(), bm.Normal(), bm.LogNormal()]), 2),
        (bm.Mixture(bm.MvNormal(), 3), 6),
    ],
    ids=["flat", "nested", "joint", "groups", "matrices"],
)
def test_permutations_leave_the_density_of_the_coordinates_as_it_is(spec, count):
    """As linear maps they form a group of the size that `log_symmetries` says, and the posterior does not see them."""
    rng = np.random.default_rng(3)
    if isinstance(spec.component, bm.MvNormal):
        table: Any = rng.normal(size=(200, 2)) + 6 * rng.integers(0, 3, (200, 1))
    elif isinstance(spec.component, bm.Composite):
        table = {"x": rng.normal(size=30), "y": rng.choice(list("abc"), 30)}
    else:
        table = np.exp(rng.normal(size=30))
    fit = fit_em(spec, table, n_starts=2, random_seed=1)
    target = _target(fit)
    permutations = Permutations(fit.bound, target)
    maps = permutations.closure(permutations.swaps)
    assert len(maps) == count == round(np.exp(permutations.log_count))
    point = target.start + 0.2 * rng.standard_normal(len(target.start))
    values = [target(matrix @ point)[0] for matrix in maps]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)
    assert len({matrix.tobytes() for matrix in maps}) == count
    assert len(np.unique(np.round([matrix @ point for matrix in maps], 9), axis=0)) == count


def test_an_order_of_the_components_leaves_no_linear_permutations():
    fit = fit_em(bm.Mixture(bm.Normal(), 2), np.random.default_rng(0).normal(size=30), n_starts=2, random_seed=1)
    model = model_of(fit.bound, fit.encoded, initval=fit.params, order="mu")
    target = Target(model, variables_at(fit.bound, fit.params), jacobian=True)
    with pytest.raises(bm.SpecError, match="their permutations are not linear"):
        Permutations(fit.bound, target)


def test_orders_are_counted_up_to_a_thousand_and_overlaps_beyond_are_refused():
    """Of 6! orders each is found; 7! are too many, unless most components cannot be taken for one another."""

    def of(n):
        x = np.concatenate([np.random.default_rng(0).normal(10 * k, 1, 9) for k in range(n)])
        fit = fit_em(bm.Mixture(bm.Normal(sigma=1.0), n), x, n_starts=2, random_seed=1)
        return Permutations(fit.bound, _target(fit))

    six, seven = of(6), of(7)
    assert len(six.closure(six.swaps)) == 720
    assert seven.closure(seven.swaps) is None
    rng, one = np.random.default_rng(0), np.ones(1)
    alike = Kernel(np.zeros(seven.dimension), np.eye(seven.dimension))
    with pytest.raises(ValueError, match="21 pairs of components overlap, in more than 1000 orders"):
        averaged([alike], one, seven, rng)
    apart = Kernel(100.0 * np.arange(seven.dimension), np.eye(seven.dimension))
    assert len(averaged([apart], one, seven, rng).maps) == 1


def test_few_draws_are_taken_for_one_normal_distribution():
    points = np.random.default_rng(0).normal(size=(15, 3)) + 40.0 * np.arange(15)[:, None]
    kernels, weights = fitted_to(points[:, :1], np.random.default_rng(1))
    assert len(kernels) == len(weights) == 1  # less than ten draws a coordinate for each of two
    draws = kernels[0].draw(20_000, np.random.default_rng(2))
    np.testing.assert_allclose(draws.mean(), points[:, 0].mean(), rtol=0.05)


def test_the_nearest_order_is_never_lower_and_the_highest_where_few_turns_lead_there():
    """Swaps of neighbours sort: as far as twenty turns go."""
    for n, sorts in ((10, True), (40, False)):
        swaps = np.array([np.eye(n)[[*range(i), i + 1, i, *range(i + 2, n)]] for i in range(n - 1)])

        def density(points, n=n):
            return points @ np.arange(n)

        backwards = np.arange(n, dtype=float)[None, ::-1]
        found = nearest(backwards, density, swaps)
        assert density(found) > density(backwards)
        np.testing.assert_array_equal(np.sort(found[0]), np.arange(n))
        assert (np.diff(found[0]) > 0).all() == sorts


def test_more_permutations_than_can_be_averaged_over():
    """Of 8! orders those that exchange overlapping components are kept, and the others counted."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(10 * k, 1, 40) for k in range(8)])
    fit = fit_em(bm.Mixture(bm.Normal(), 8), x, random_seed=1)
    by_laplace = bm.log_evidence(fit, "laplace", random_seed=1)
    np.testing.assert_allclose(by_laplace.log_copies, lgamma(9), atol=1e-6)
    by_importance = bm.log_evidence(fit, "importance", random_seed=1)
    assert abs(by_importance.value - by_laplace.value) < 0.5


def test_copies_that_are_one_count_once():
    """Two equal components: the mode is its own image, and its mass is not doubled."""
    toy = TOYS["two that overlap"]
    fit = fit_em(toy.spec, toy.table, random_seed=1)
    np.testing.assert_allclose(fit.params["mu"][0], fit.params["mu"][1], rtol=1e-3)
    found = bm.log_evidence(fit, "laplace", random_seed=1)
    np.testing.assert_allclose(found.log_copies, 0.0, atol=0.05)
    assert abs(found.value - toy.log_evidence) < 0.25


# ---------------------------------------------------------------- what has no evidence


def test_improper_priors_have_no_evidence():
    fit = fit_em(bm.Mixture(bm.Normal(mu=bm.Flat()), 2), np.array([0.0, 0.2, 5.0, 5.3, 0.4, 5.1]), random_seed=1)
    with pytest.raises(bm.SpecError, match=r"mu: its prior is flat"):
        bm.log_evidence(fit)
    floored = fit_em(bm.Mixture(bm.Poisson(), 2, min_weight=0.1), APART.x, random_seed=1)
    with pytest.raises(bm.SpecError, match="min_weight"):
        bm.log_evidence(floored)


def test_bridge_sampling_needs_draws():
    fit = fit_em(bm.Mixture(bm.Poisson(), 2), APART.x, random_seed=1)
    with pytest.raises(ValueError, match="needs draws"):
        bm.log_evidence(fit, "bridge")
    with pytest.raises(ValueError, match="method"):
        bm.log_evidence(fit, "harmonic mean")


@pytest.mark.parametrize("times", [None, [1, 2, 1, 3]])
def test_the_evidence_of_a_spec_of_numbers_is_its_likelihood(times):
    x = np.array([0.0, 1.0, 3.0, 2.5])
    spec = bm.Mixture(bm.Normal(mu=[0.0, 3.0], sigma=1.0), 2, weights=[0.25, 0.75])
    found = bm.log_evidence(bm.fit(spec, x, row_weights=times))
    rows = np.log(0.25 * stats.norm.pdf(x) + 0.75 * stats.norm.pdf(x, 3.0))
    assert found.value == pytest.approx(rows @ (times or np.ones(4)), rel=1e-12)
    assert (found.error, found.log_copies) == (0, 0)


def test_a_rough_evidence_says_so():
    fit = fit_em(bm.Mixture(bm.Normal(), 3), np.random.default_rng(0).normal(size=12), random_seed=1)
    with pytest.warns(
        bm.ApproximationWarning, match=r"a standard error of .* nats. Take more draws, or method=.bridge"
    ):
        found = bm.log_evidence(fit, "importance", draws=40, random_seed=1)
    assert found.error > 0.1
    with pytest.raises(ValueError, match="draws: at least 25 are needed"):
        bm.log_evidence(fit, "importance", draws=24)


def test_evidence_by_weights_that_cannot_be_trusted_warns(monkeypatch):
    """Where k is large the stated error is small by chance: it is of the draws that there are."""
    toy = Toy(APART, 2)
    mode, trusted = fit_em(toy.spec, toy.table, random_seed=1), evidence.importance
    monkeypatch.setattr(evidence, "importance", lambda *given: replace(trusted(*given), pareto_k=0.83))
    with pytest.warns(bm.ApproximationWarning, match=r"Pareto k of 0\.83: .*method=\"bridge\""):
        bm.log_evidence(mode, "importance", draws=2000, random_seed=2)


def test_priors_on_variables_of_a_model_of_ones_own_have_no_evidence():
    with pm.Model():
        centre = pm.Normal("centre", 0, 1)
        fit = fit_em(bm.Mixture(bm.Poisson(), 2), APART.x, random_seed=1)
        spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(centre, 1.0)), 2)
        bound = bind(spec, read(np.array([0.0, 1.0, 5.0, 7.0])))
    with pytest.raises(bm.SpecError, match="mu: its prior depends on variables of your PyMC model"):
        require_proper(bound)
    require_proper(fit.bound)


def test_numbers_of_components_of_other_weights():
    """Shared weights are resized as others are; what is for one number alone says so."""
    shared = bm.Mixture(bm.Normal(), 3, weights=bm.Shared(pm.Dirichlet.dist([3.0, 3.0, 3.0])))
    assert shared.with_n_components(2) == bm.Mixture(bm.Normal(), 2, weights=bm.Shared(pm.Dirichlet.dist([3.0, 3.0])))
    for weights in (pm.Dirichlet.dist([1.0, 3.0, 3.0]), [0.2, 0.3, 0.5]):
        with pytest.raises(
            bm.SpecError, match=r"weights: .* is for one number of components. Use a Dirichlet of equal"
        ):
            bm.Mixture(bm.Normal(), 3, weights=weights).with_n_components(2)


def test_row_weights_count_in_the_evidence():
    x, times = np.array([0, 1, 9, 12, 0, 10]), [1, 2, 2, 1, 1, 2]
    spec = bm.Mixture(Poisson(x).family(), 2)
    weighted = fit_em(spec, x, row_weights=times, random_seed=1)
    repeated = fit_em(spec, np.repeat(x, times), random_seed=1)
    a, b = (bm.log_evidence(fit, "laplace", random_seed=1).value for fit in (weighted, repeated))
    np.testing.assert_allclose(a, b, rtol=1e-6)


# ---------------------------------------------------------------- criteria


X = np.concatenate([np.random.default_rng(0).normal(m, 1, 60) for m in (-6, 0, 6)])


@pytest.fixture(scope="module")
def three() -> bm.Selection:
    return bm.select(bm.Mixture(bm.Normal(), 2), X, range(1, 5), n_starts=8, random_seed=1)


def test_select_finds_three_groups(three):
    assert three.best == 3
    assert three.best_fit.params["mu"].shape == (3,)
    assert list(three.table.index) == [1, 2, 3, 4]
    assert three.table["log_evidence"].idxmax() == 3
    assert three.table["icl"].idxmin() == 3
    assert "3 by bic" in repr(three)
    assert "<table" in three._repr_html_()


def test_information_criteria_by_hand(three):
    """BIC and ICL from scipy's densities at the parameters that the fit reports."""
    for k, fit in three.fits.items():
        params = fit.params
        joint = np.log(params["weights"]) + stats.norm(params["mu"], params["sigma"]).logpdf(X[:, None])
        loglik = logsumexp(joint, axis=1).sum()
        resp = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        entropy = stats.entropy(resp, axis=1).sum()
        row = three.table.loc[k]
        bic = (3 * k - 1) * np.log(len(X)) - 2 * loglik
        np.testing.assert_allclose(row[["loglik", "bic"]].astype(float), [loglik, bic], rtol=1e-10)
        np.testing.assert_allclose(row["entropy"], entropy, atol=1e-8)
        np.testing.assert_allclose(row["icl"], bic + 2 * entropy, rtol=1e-9)
        np.testing.assert_allclose(row["entropy_relative"], entropy / (len(X) * np.log(k)) if k > 1 else 0.0, atol=1e-9)
        np.testing.assert_allclose(row["smallest_weight"], params["weights"].min())


def test_flat_priors_give_classical_figures_and_no_evidence():
    """At the maximum of the likelihood of one normal, in closed form."""
    spec = bm.Mixture(bm.Normal(), 3).with_flat_priors()
    found = bm.select(spec, X, [1], random_seed=1)
    loglik = stats.norm(X.mean(), X.std()).logpdf(X).sum()
    np.testing.assert_allclose(found.table.loc[1, "bic"], 2 * np.log(len(X)) - 2 * loglik, rtol=1e-9)
    assert np.isnan(found.table.loc[1, "log_evidence"])
    assert "improper" in found.table.loc[1, "note"]


def test_entropy_of_nested_labels_is_of_both():
    """By enumeration of the four (outer, inner) pairs of labels."""
    rng = np.random.default_rng(4)
    table = {"x": rng.normal(np.repeat([-3, -1, 2, 5], 20), 1.0), "y": rng.poisson(np.repeat([2, 2, 6, 6], 20))}
    spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2)
    found = bm.select(spec, table, [2], of="x", n_starts=4, evidence=None, random_seed=1)
    params = found.fits[2].params
    inner = stats.norm(params["x_mu"], params["x_sigma"]).logpdf(table["x"][:, None, None])
    outer = np.log(params["weights"]) + stats.poisson(params["y_mu"]).logpmf(table["y"][:, None])
    joint = (outer[:, :, None] + np.log(params["x_weights"]) + inner).reshape(80, 4)
    entropy = stats.entropy(np.exp(joint - logsumexp(joint, axis=1, keepdims=True)), axis=1).sum()
    np.testing.assert_allclose(found.table.loc[2, "entropy"], entropy, rtol=1e-8)


def test_numbers_that_fail_are_warned_of_with_their_reasons():
    """A prior for two components is none for one or three: a table half of NaN said nothing of why."""
    spec = bm.Mixture(bm.Normal(mu=[0.0, 5.0]), 2)
    with pytest.warns(
        bm.BayesmixWarning, match=r"2 of 3 failed\. No fit of 1: SpecError: mu: .* No fit of 3: SpecError"
    ):
        found = bm.select(spec, X, [1, 2, 3], evidence=None, random_seed=1)
    assert found.best == 2
    assert list(found.failed) == [1, 3]
    whole = bm.select(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 9, 12]), [1, 2], evidence=None, random_seed=1)
    assert whole.failed == {}
    assert "No fit" not in repr(whole)


def test_a_number_that_fails_is_a_row_with_its_reason():
    with pytest.warns(
        bm.BayesmixWarning, match=r"^n_components: 1 of 3 failed\. No fit of 4: DataError: .*only 3 rows"
    ):
        found = bm.select(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 9]), [2, 3, 4], evidence=None, random_seed=1)
    assert "4 components but only 3 rows" in found.table.loc[4, "note"]
    assert list(found.failed) == [4]
    assert found.failed[4] == found.table.loc[4, "note"]
    assert "\nNo fit of 4: DataError: data: 4 components but only 3 rows" in repr(found)
    assert "No fit of 4: DataError" in found._repr_html_()
    assert not found.table.loc[4, "converged"]
    assert np.isnan(found.table.loc[4, "bic"])
    assert set(found.fits) == {2, 3}
    with pytest.raises(bm.DataError, match="only 3 rows"):
        bm.select(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 9]), [4, 5])
    with pytest.raises(TypeError, match="n_start"):
        bm.select(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 9]), [1, 2], n_start=3)


def test_a_spec_is_not_changed_and_its_priors_are_resized():
    spec = bm.Mixture(bm.Poisson(), 2, weights=pm.Dirichlet.dist([1.7, 1.7]))
    before = repr(spec)
    found = bm.select(spec, APART.x, [1, 3], evidence=None, random_seed=1)
    assert repr(spec) == before
    assert "Dirichlet.dist([1.7, 1.7, 1.7])" in repr(found.fits[3].spec)
    with pytest.raises(bm.SpecError, match="equal concentrations"):
        bm.select(bm.Mixture(bm.Poisson(), 2, weights=[0.4, 0.6]), APART.x, [3])
    with pytest.raises(bm.SpecError, match="list of different components"):
        bm.select(bm.Mixture([bm.Normal(), bm.LogNormal()]), np.array([1.0, 2.0, 3.0]), [3])


RNG = np.random.default_rng(5)
LABEL = RNG.integers(0, 2, 80)
PAIRS = {"x": RNG.normal(8 * LABEL, 1.0), "y": RNG.poisson(np.where(LABEL == RNG.integers(0, 2, 80), 2, 20))}


def test_a_grid_over_two_axes():
    spec = bm.JointMixture(x=(bm.Normal(), 3), y=(bm.Poisson(), 3))
    found = bm.select(spec, PAIRS, {"weights": [1, 2], "y": [1, 2]}, n_starts=4, evidence=None, random_seed=1)
    assert found.table.index.names == ["x_component", "y_component"]
    assert found.best == (2, 2)
    assert found.fits[1, 2].params["transition"].shape == (1, 2)
    assert list(found.table["n_parameters"]) == [3, 5, 6, 9]


@pytest.mark.parametrize(
    ("spec", "of", "shape"),
    [
        (bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2)), "transition", {"transition": (2, 3), "y_mu": (3,)}),
        (
            bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 2),
            "x",
            {"x_mu": (2, 3), "y_mu": (2,)},
        ),
        (bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), None, {"x_mu": (3,), "y_mu": ()}),
    ],
    ids=["joint", "nested", "only one"],
)
def test_the_mixture_that_varies(spec, of, shape):
    found = bm.select(spec, PAIRS, [3], of=of, n_starts=3, evidence=None, random_seed=1)
    assert {name: found.fits[3].params[name].shape for name in shape} == shape


def test_topics_of_a_hierarchical_mixture():
    rng = np.random.default_rng(2)
    rows = [rng.normal(rng.choice([-5, 5], 6, p=[p, 1 - p]), 1).tolist() for p in rng.choice([0.1, 0.9], 60)]
    spec = bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=2)
    found = bm.select(spec, rows, [1, 2, 3], of="topic_weights", n_starts=4, evidence=None, random_seed=1)
    assert found.best == 2
    assert found.fits[3].params["topic_weights"].shape == (2, 3)
    # entropy of the elements' labels: there are six times as many as rows
    fit = found.fits[2]
    resp = fit.responsibilities(of="topic_weights")
    assert resp.shape == (360, 2)
    np.testing.assert_allclose(found.table.loc[2, "entropy"], stats.entropy(resp, axis=1).sum(), atol=1e-8)


def test_row_weights_are_rows():
    weights = RNG.integers(1, 4, len(X))
    a = bm.select(bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 9), sigma=pm.InverseGamma.dist(3, 2)), 2), X, [2],
                  row_weights=weights, random_seed=1).table  # fmt: skip
    b = bm.select(bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 9), sigma=pm.InverseGamma.dist(3, 2)), 2),
                  np.repeat(X, weights), [2], random_seed=1).table  # fmt: skip
    for column in ("bic", "icl", "entropy_relative", "log_evidence"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"of": "z"}, "no mixture is called 'z'; one of"),
        ({"of": "weights", "n_components": {"weights": [1, 2]}}, "a dict of n_components names the mixtures already"),
        ({"n_components": []}, "whole numbers of at least 1"),
        ({"n_components": [0]}, "whole numbers of at least 1"),
        ({"criterion": "aic"}, "criterion: one of .* is needed, not 'aic'"),
        ({"evidence": "guess"}, "evidence: one of .* is needed, not 'guess'"),
        ({"criterion": "evidence", "evidence": None}, '"evidence" needs evidence="auto"'),
        ({"method": "gibbs"}, "method: one of .* is needed, not 'gibbs'"),
    ],
)
def test_arguments_that_make_no_sense(given, match):
    with pytest.raises((ValueError, TypeError, bm.SpecError), match=match):
        bm.select(bm.Mixture(bm.Poisson(), 2), APART.x, **{"n_components": [1, 2], **given})


def test_a_spec_without_a_mixture_has_no_number_to_vary():
    with pytest.raises(bm.SpecError, match=r"no mixture whose components could vary. Wrap it in bm\.Mixture"):
        bm.select(bm.Poisson(), APART.x, [1, 2])


def test_evidence_of_flat_priors_alone_leaves_nothing_to_choose_by():
    spec = bm.Mixture(bm.Poisson(mu=pm.HalfFlat.dist()), 2, weights=[0.5, 0.5])
    with pytest.raises(ValueError, match="no number of components has 'evidence'"):
        bm.select(spec, APART.x, [2], criterion="evidence", random_seed=1)


def test_components_of_a_list_that_are_alike_vary_inside():
    """Equal components of a list are laid out as one; each comes back with the inner number that is asked for."""
    inner = bm.Mixture(bm.Poisson(), 2)
    spec = bm.Mixture([bm.Composite(x=inner), bm.Composite(x=inner), bm.Composite(x=bm.Geometric())])
    table = {"x": np.maximum(APART.x, 1)}
    found = bm.select(spec, table, [1, 3], of="x", evidence=None, n_starts=2, random_seed=1)
    for n in (1, 3):
        by_hand = bm.Mixture([*[bm.Composite(x=bm.Mixture(bm.Poisson(), n))] * 2, bm.Composite(x=bm.Geometric())])
        assert found.fits[n].spec == by_hand


def test_leave_one_out_needs_draws():
    with pytest.raises(ValueError, match="needs draws"):
        bm.select(bm.Mixture(bm.Poisson(), 2), APART.x, [1, 2], criterion="loo")


def test_numbers_of_parameters_are_the_dimensions_of_the_model():
    rng = np.random.default_rng(0)
    table = {"x": rng.normal(size=20), "y": rng.choice(list("abc"), 20), "z": list(rng.normal(size=(20, 2)))}
    fields = {"x": bm.Normal(sigma=bm.Shared()), "y": bm.Categorical(), "z": bm.MvNormal()}
    bound = bind(bm.Mixture(bm.Composite(fields), 3), read(table))
    by_hand = 2 + (3 + 1) + 3 * 2 + 3 * (2 + 3)
    assert n_parameters(bound) == by_hand
    fit = fit_em(bm.Mixture(bm.Composite(fields), 3), table, n_starts=2, random_seed=1)
    assert len(_target(fit).start) == by_hand


# ---------------------------------------------------------------- leave-one-out and comparison


@pytest.fixture(scope="module")
def exact_posteriors() -> dict[str, tuple[Toy, bm.Fit]]:
    rng = np.random.default_rng(7)
    toys = {"two": Toy(APART, 2), "one": Toy(APART, 1)}
    return {name: (toy, exact_fit(toy, toy.exact_draws(4_000, rng), log_likelihood=True)) for name, toy in toys.items()}


def test_arviz_leaves_rows_out_with_labels_summed_out(exact_posteriors):
    """ArviZ takes our trees as they are; its figure is that of refitting without each row, which here has a sum."""
    toy, fit = exact_posteriors["two"]
    found = azs.loo(fit.idata)
    rest = [Toy(Poisson(np.delete(APART.x, i)), 2).log_evidence for i in range(len(APART.x))]
    assert found.n_data_points == len(APART.x)
    assert abs(found.elpd - np.sum(toy.log_evidence - np.array(rest))) < 0.1


def test_compare_by_leave_one_out_is_arviz_own(exact_posteriors):
    fits = {name: fit for name, (_, fit) in exact_posteriors.items()}
    ours = bm.compare(fits)
    theirs = azs.compare({name: fit.idata for name, fit in fits.items()})
    assert list(ours.index) == list(theirs.index) == ["two", "one"]
    np.testing.assert_allclose(ours["elpd"].astype(float), theirs["elpd"].astype(float))


@pytest.mark.slow
def test_compare_by_evidence_and_bic(exact_posteriors):
    fits = {name: fit for name, (_, fit) in exact_posteriors.items()}
    table = bm.compare(fits, criterion="evidence", random_seed=1)
    exact = np.array([exact_posteriors[name][0].log_evidence for name in table.index])
    assert list(table.index) == ["two", "one"]
    np.testing.assert_allclose(table["weight"], np.exp(exact) / np.exp(exact).sum(), atol=0.01)
    by_bic = bm.compare(fits, criterion="bic", random_seed=1)
    mode = fit_em(fits["two"].spec, APART.x, random_seed=1)
    np.testing.assert_allclose(by_bic.loc["two", "bic"], 3 * np.log(10) - 2 * mode.loglik, rtol=1e-9)
    np.testing.assert_allclose(by_bic["weight"].sum(), 1)


def test_fits_of_other_rows_do_not_compare(exact_posteriors):
    _, fit = exact_posteriors["two"]
    spec = bm.Mixture(bm.Poisson(), 2)
    with pytest.raises(bm.DataError, match="8 rows; two has 10"):
        bm.compare({"two": fit, "other": fit_em(spec, CLOSE.x, random_seed=1)}, criterion="bic")
    with pytest.raises(bm.DataError, match="x has other values"):
        bm.compare({"two": fit, "other": fit_em(spec, APART.x[::-1], random_seed=1)}, criterion="bic")
    with pytest.raises(bm.DataError, match="not the fields"):
        bm.compare({"two": fit, "other": fit_em(bm.Composite(y=bm.Poisson()), {"y": APART.x})}, criterion="bic")
    with pytest.raises(ValueError, match="no draws"):
        bm.compare({"two": fit, "other": fit_em(spec, APART.x, random_seed=1)})
    weighted = fit_em(spec, APART.x, row_weights=np.arange(1.0, 11.0), random_seed=1)
    with pytest.raises(bm.DataError, match="other: other row weights than two"):
        bm.compare({"two": fit, "other": weighted}, criterion="bic")


def test_fits_of_one_table_compare_whatever_the_order_of_their_symbols():
    """Codes were compared: a column of text and a categorical one have other codes for one symbol."""
    table = pd.DataFrame(
        {"s": list("vuuvu") * 4, "n": [3, 1, 2, 2, 1] * 4, "t": [{"p"}, {"q"}, set(), {"q", "p"}, None] * 4}
    )
    table["m"] = [["v", "u"], ["u"], [], ["u", "v"], None] * 4
    specs = [
        bm.Composite(s=bm.Categorical(), n=bm.Poisson(), t=bm.BernoulliSet(), m=bm.MarkovChain()),
        bm.Composite(
            s=bm.Categorical(levels=["v", "u"]),
            n=bm.Categorical(),
            t=bm.BernoulliSet(levels=["q", "p"]),
            m=bm.MarkovChain(levels=["v", "u"]),
        ),
    ]
    one, other = (fit_em(spec, table, random_seed=1) for spec in specs)
    assert len(bm.compare({"one": one, "other": other}, criterion="bic")) == 2
    others = {"s": "u", "n": 2, "t": {"q"}, "m": ["v", "v"]}
    for name, cell in others.items():
        changed = table.copy()
        changed[name] = [cell, *table[name][1:]]
        with pytest.raises(bm.DataError, match=f"third: {name} has other values than in one"):
            bm.compare({"one": one, "third": fit_em(specs[1], changed, random_seed=1)}, criterion="bic")


def test_missing_cells_are_the_same_in_counts_and_in_real_numbers():
    x = np.array([3.0, np.nan, 1.0, 2.0, 5.0])
    fits = {"counts": fit_em(bm.Poisson(), x), "numbers": fit_em(bm.Normal(), x)}
    assert len(bm.compare(fits, criterion="bic")) == 2


@pytest.mark.parametrize("criterion", ["bic", "evidence"])
def test_loaded_fits_compare_with_their_table(criterion, tmp_path):
    """The table was passed, and "Pass the table" was all that there was to read."""
    spec = bm.Mixture(bm.Poisson(), 2)
    fit = bm.fit_laplace(spec, APART.x, draws=20, n_starts=2, random_seed=1)
    fit.save(tmp_path / "fit")
    loaded = bm.load(tmp_path / "fit")
    expected = bm.compare({"a": fit, "b": bm.Poisson()}, APART.x, criterion=criterion, method="laplace", random_seed=1)
    found = bm.compare({"a": loaded, "b": bm.Poisson()}, APART.x, criterion=criterion, method="laplace", random_seed=1)
    pd.testing.assert_frame_equal(found, expected)
    for each in (fit, loaded):
        with pytest.raises(bm.DataError, match=r"a: data: x has another value in row 0 .* Pass the training table"):
            bm.compare({"a": each}, APART.x[::-1], criterion=criterion)
        with pytest.raises(ValueError, match=r"method: one of .* is needed, not 'nonsense'"):
            bm.compare({"a": each}, APART.x, criterion=criterion, method="nonsense")


def test_fits_read_in_parts_compare_with_their_table(tmp_path):
    """It was a KeyError."""
    table = pd.DataFrame({"x": APART.x})
    table.to_parquet(tmp_path / "table.parquet")
    spec, row_weights = bm.Mixture(bm.Composite(x=bm.Poisson()), 2), np.arange(len(table)) % 3
    parts = bm.fit(spec, tmp_path / "table.parquet", n_starts=2, random_seed=1)
    here = bm.fit(spec, table, n_starts=2, random_seed=1)
    found = bm.compare({"parts": parts, "here": here}, table, criterion="bic")
    assert found["bic"]["parts"] == pytest.approx(found["bic"]["here"], abs=1e-6)
    with pytest.raises(bm.DataError, match=r"parts: its rows .* not kept.* Pass the table as data="):
        bm.compare({"parts": parts, "here": here}, criterion="bic")
    weighted = bm.fit(spec, table, row_weights=row_weights, n_starts=2, random_seed=1)
    with pytest.raises(bm.DataError, match="weighted: other row weights than parts"):
        bm.compare({"parts": parts, "weighted": weighted}, table, criterion="bic")


def test_what_compare_cannot_do():
    spec, settings = bm.Mixture(bm.Poisson(), 2), {"draws": 20, "n_starts": 2, "random_seed": 1}
    with pytest.raises(ValueError, match="criterion: one of loo, bic, evidence is needed, not 'waic'"):
        bm.compare({"a": spec}, APART.x, criterion="waic")
    with pytest.raises(bm.DataError, match="a is a spec, and needs the table"):
        bm.compare({"a": spec})
    with pytest.raises(TypeError, match="seed: only criterion='loo' takes more"):
        bm.compare({"a": spec}, APART.x, criterion="bic", random_seed=1, seed=2)
    with pytest.raises(ValueError, match="a: the log-likelihood of the rows was not kept"):
        bm.compare({"a": bm.fit_laplace(spec, APART.x, log_likelihood=False, **settings)})
    # ArviZ would count a row of weight 3 once
    with pytest.raises(ValueError, match="a: leave-one-out is of rows without weights"):
        bm.compare({"a": bm.fit_laplace(spec, APART.x, row_weights=np.arange(1.0, 11.0), **settings)})


def test_select_by_leave_one_out_has_no_figure_for_rows_that_weigh():
    spec = bm.Mixture(bm.Poisson(), 2)
    settings = {"criterion": "loo", "method": "laplace", "evidence": None, "n_starts": 2, "random_seed": 1}
    with pytest.raises(ValueError, match="no number of components has 'loo'"):
        bm.select(spec, APART.x, [1, 2], row_weights=np.arange(1.0, 11.0), **settings)


# ---------------------------------------------------------------- occupied components


def test_occupied_components_against_all_labellings():
    """An overfitted mixture with a small concentration: how many components the labels use, by the sum over them."""
    toy = Toy(APART, 3, 0.2)
    chance = np.exp(toy.log_terms - toy.log_evidence)
    used = np.array([len(set(z)) for z in toy.labels])
    exact = np.array([chance[used == n].sum() for n in (1, 2, 3)])
    fit = exact_fit(toy, toy.exact_draws(4_000, np.random.default_rng(3)))
    found = fit.occupied(n_draws=4_000, random_seed=1)
    assert list(found.index) == [1, 2, 3]
    np.testing.assert_allclose(found, exact, atol=4 * np.sqrt(0.25 / 4_000))
    assert found.idxmax() == 2


def test_occupied_components_of_new_rows_and_of_inner_mixtures():
    fit = fit_em(bm.Mixture(bm.Poisson(), 2), APART.x, random_seed=1)
    assert fit.occupied([0, 0, 1], random_seed=1)[1] == pytest.approx(1, abs=0.03)
    nested = fit_em(NESTED, {"x": X[:40], "y": np.repeat(list("ab"), 20)}, n_starts=2, random_seed=1)
    with pytest.raises(bm.SpecError, match="components of its own"):
        nested.occupied(of="x")


def test_occupied_components_of_a_point_estimate():
    """One draw of the labels was all there was, whatever `n_draws`."""
    fit = fit_em(bm.Mixture(bm.Poisson(mu=[2.0, 3.0]), 2, weights=[0.5, 0.5]), [2, 3, 2], random_seed=1)
    resp = fit.responsibilities()[:, 0]
    one = resp.prod() + (1 - resp).prod()  # all three from one component
    found = fit.occupied(n_draws=4_000, random_seed=1)
    np.testing.assert_allclose(found, [one, 1 - one], atol=4 * np.sqrt(0.25 / 4_000))


def test_rows_without_weight_occupy_nothing(tmp_path):
    x = np.array([-3.0, -3.1, -2.9, 3.0, 3.1, 2.9])
    spec = bm.Mixture(bm.Normal(mu=[-3.0, 3.0], sigma=1.0), 2)
    fit = fit_em(spec, x, row_weights=np.repeat([1.0, 0.0], 3), random_seed=1)
    fit.save(tmp_path / "fit")
    for each, data in ((fit, None), (fit, x), (bm.load(tmp_path / "fit"), x)):
        assert each.occupied(data, n_draws=50, random_seed=1)[1] == 1
    assert fit.occupied(x[::-1], n_draws=50, random_seed=1)[2] > 0.9  # another table has no weights


def test_occupied_components_of_elements_agree_within_a_row():
    """Both elements of a row are of the one kind or of the other, so that two rows are of one kind half of the time."""
    inner = bm.Mixture(bm.Categorical([0.5, 0.5]), 2, shared=True, weights=[[1.0, 0.0], [0.0, 1.0]])
    fit = fit_em(bm.Mixture(bm.Sequence(inner), 2, weights=[0.5, 0.5]), [["a", "b"], ["b", "a"]], random_seed=1)
    assert fit.occupied(of="subweights", random_seed=1)[1] == pytest.approx(0.5, abs=4 * 0.5 / 20)


@pytest.mark.slow
def test_a_sparse_prior_empties_superfluous_components():
    """NUTS with a concentration below 1, which has no mode inside: the occupied number is that of the exact sum."""
    toy = Toy(APART, 3, 0.5)
    used = np.array([len(set(z)) for z in toy.labels])
    exact = [np.exp(toy.log_terms - toy.log_evidence)[used == n].sum() for n in (1, 2, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.BayesmixWarning)  # labels switch, and empty components have funnels
        fit = bm.fit_nuts(toy.spec, toy.table, draws=2000, target_accept=0.95, random_seed=1)
    np.testing.assert_allclose(fit.occupied(n_draws=8000, random_seed=1), exact, atol=0.04)


@pytest.mark.slow
def test_select_by_leave_one_out_and_by_bridge_sampling():
    toys = {k: Toy(APART, k) for k in (1, 2)}
    found = bm.select(toys[2].spec, APART.x, [1, 2], method="nuts", criterion="loo", random_seed=1)
    assert found.best == 2
    exact = [toys[k].log_evidence for k in (1, 2)]
    np.testing.assert_allclose(found.table["log_evidence"], exact, atol=0.05)
    assert (found.table["se_evidence"] < 0.03).all()
    assert list(found.table["bad_k"]) == [0, 0]


@pytest.mark.parametrize("given", ["12", [1.9], [True], [], [0]])
def test_numbers_of_components_are_whole(given):
    """Text was a number for each of its characters, and fractions were cut."""
    with pytest.raises(ValueError, match="n_components: whole numbers of at least 1 are needed"):
        bm.select(bm.Mixture(bm.Normal(), 2), np.arange(9.0), given)


@pytest.mark.parametrize("given", [{}, [1], None])
def test_what_is_compared_has_names(given):
    with pytest.raises(TypeError, match="fits: a dict of names to fits or specs is needed"):
        bm.compare(given)
