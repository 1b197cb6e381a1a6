"""The catalogue of families: every contract test runs over all of it.

A new family adds one `Case` here. Columns are small, hold ties and values at the ends of their supports, and give
every symbol some weight, so that maxima under flat priors are inside the support.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.bound import Bound, bind
from bayesmix.data import read
from bayesmix.spec import Encoded, Node, Site

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """What the contract tests must know of one family.

    Attributes
    ----------
    family : class
    column : Any
        Example data of N rows.
    params : dict
        A point of K components, K first.
    oracle : callable
        ``oracle(params_of_one_component, column) -> (N,)``: scipy's log density.
    edge_params : dict
        A point at the ends of the support (or far from the data).
    conjugate : dict
        User's priors that have a closed-form M-step.
    numeric : dict
        User's priors that have none.
    fixed : dict
        A fixed value for each parameter, for one component.
    indicators : callable
        Encoded values -> what `mean` is the mean of.
    """

    family: type
    column: Any
    params: Params
    oracle: Callable[[Params, Any], np.ndarray]
    edge_params: Params
    conjugate: dict[str, Callable[[], Any]]
    numeric: dict[str, Callable[[], Any]]
    fixed: dict[str, Any]
    indicators: Callable[[np.ndarray], np.ndarray] = field(default=lambda values: values)

    @property
    def name(self) -> str:
        return self.family.__name__

    @property
    def n_components(self) -> int:
        return len(next(iter(self.params.values())))

    def leaf(self, priors: str = "default") -> Node:
        """The family under ``"default"``, ``"flat"``, ``"conjugate"`` or ``"numeric"`` priors."""
        if priors == "flat":
            return self.family().with_flat_priors()
        made = {} if priors == "default" else getattr(self, priors)
        return self.family(**{name: make() for name, make in made.items()})

    def bind(self, leaf: Node | None = None) -> tuple[Bound, Site, Encoded]:
        """A mixture of the family bound to the column: the whole, the family's site, the encoded column."""
        table = read(self.column)
        bound = bind(bm.Mixture(leaf or self.leaf(), self.n_components), table)
        return bound, bound.site.children[0], bound.encode(table)

    def component(self, k: int, params: Params | None = None) -> Params:
        return {name: value[k] for name, value in (params or self.params).items()}


_rng = np.random.default_rng(20240501)
_COLOURS = np.array(["amber", "blue", "cyan"], object)
_AGES = np.array([3, 0, 12, 1, 1, 7, 40, 0, 5, 2, 3, 3, 9, 17, 0, 28])

NORMAL = Case(
    family=bm.Normal,
    column=np.concatenate([_rng.normal(-3, 1, 12), _rng.normal(250, 4, 12), [0.0, 0.0]]),
    params={"mu": np.array([-3.0, 0.5, 249.0]), "sigma": np.array([1.1, 30.0, 4.5])},
    oracle=lambda p, x: stats.norm.logpdf(x, p["mu"], p["sigma"]),
    edge_params={"mu": np.array([-1e4, 0.0, 1e3]), "sigma": np.array([1e-3, 1e5, 1.0])},
    conjugate={"mu": lambda: pm.Normal.dist(2.0, 7.0), "sigma": lambda: pm.InverseGamma.dist(3.0, 4.0)},
    numeric={"sigma": lambda: pm.HalfNormal.dist(10.0)},
    fixed={"mu": 1.5, "sigma": 2.5},
)

MV_NORMAL = Case(
    family=bm.MvNormal,
    column=_rng.normal(size=(20, 2)) @ np.array([[1.0, 0.6], [0.0, 3.0]]) + np.array([5.0, -70.0]),
    params={
        "mu": np.array([[5.0, -70.0], [4.0, -66.0], [6.5, -72.0]]),
        "cov": np.array([[[1.0, 0.5], [0.5, 9.0]], [[2.0, -1.9], [-1.9, 4.0]], [[0.3, 0.0], [0.0, 20.0]]]),
    },
    oracle=lambda p, x: stats.multivariate_normal.logpdf(x, p["mu"], p["cov"]),
    edge_params={
        "mu": np.array([[500.0, 0.0], [5.0, -70.0], [0.0, 0.0]]),
        # the second has correlation 0.999
        "cov": np.array([[[1e-2, 0.0], [0.0, 1e4]], [[1.0, 1.998], [1.998, 4.0]], [[1e3, 0.0], [0.0, 1e3]]]),
    },
    conjugate={
        "mu": lambda: pm.Normal.dist(np.array([4.0, -60.0]), np.array([2.0, 9.0])),
        "cov": lambda: bm.InverseWishart.dist(6.0, np.array([[2.0, 0.3], [0.3, 5.0]])),
    },
    numeric={
        "cov": lambda: pm.LKJCholeskyCov.dist(
            eta=2.0, n=2, sd_dist=pm.HalfNormal.dist(5.0, shape=2), compute_corr=False
        )
    },
    fixed={"mu": np.array([4.5, -69.0]), "cov": np.array([[1.5, 0.2], [0.2, 8.0]])},
)

POISSON = Case(
    family=bm.Poisson,
    column=_AGES,
    params={"mu": np.array([0.7, 3.0, 22.0])},
    oracle=lambda p, x: stats.poisson.logpmf(x, p["mu"]),
    edge_params={"mu": np.array([1e-9, 1.0, 1e4])},
    conjugate={"mu": lambda: pm.Gamma.dist(3.0, 0.4)},
    numeric={"mu": lambda: pm.LogNormal.dist(1.0, 0.8)},
    fixed={"mu": 4.0},
)

CATEGORICAL = Case(
    family=bm.Categorical,
    column=_COLOURS[np.array([0, 1, 2, 1, 0, 0, 2, 1, 1, 0, 0, 1, 2, 2, 0, 1])],
    params={"p": np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1], [0.05, 0.9, 0.05]])},
    oracle=lambda p, x: stats.multinomial.logpmf((x[:, None] == _COLOURS).astype(int), 1, p["p"]),
    edge_params={"p": np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [1e-12, 1e-12, 1 - 2e-12]])},
    conjugate={"p": lambda: pm.Dirichlet.dist(np.array([2.0, 3.5, 1.2]))},
    # the same law as a Dirichlet with concentrations (2, 3, 4), by another of PyMC's classes: no closed form known
    numeric={"p": lambda: pm.StickBreakingWeights.dist(alpha=2.0, K=2)},
    fixed={"p": np.array([0.25, 0.35, 0.4])},
    indicators=lambda values: np.eye(3)[values],
)

BERNOULLI = Case(
    family=bm.Bernoulli,
    column=np.array([True, False, False, True, True, False, True, False, False, False, True, True]),
    params={"p": np.array([0.1, 0.55, 0.93])},
    oracle=lambda p, x: stats.bernoulli.logpmf(np.asarray(x, int), p["p"]),
    edge_params={"p": np.array([0.0, 1.0, 1e-12])},
    conjugate={"p": lambda: pm.Beta.dist(2.5, 1.3)},
    numeric={"p": lambda: pm.LogitNormal.dist(0.3, 1.2)},
    fixed={"p": 0.3},
)

LOG_NORMAL = Case(
    family=bm.LogNormal,
    column=np.concatenate([np.exp(_rng.normal(-3, 0.3, 12)), np.exp(_rng.normal(6, 0.8, 12)), [1.0, 1.0]]),
    params={"mu": np.array([-3.0, 0.5, 6.1]), "sigma": np.array([0.3, 1.2, 0.9])},
    oracle=lambda p, x: stats.lognorm.logpdf(x, p["sigma"], scale=np.exp(p["mu"])),
    edge_params={"mu": np.array([-200.0, 0.0, 300.0]), "sigma": np.array([1e-2, 1e3, 1.0])},
    conjugate={"mu": lambda: pm.Normal.dist(2.0, np.float64(7.0)), "sigma": lambda: pm.InverseGamma.dist(3.0, 4.0)},
    numeric={"sigma": lambda: pm.HalfNormal.dist(10.0)},
    fixed={"mu": 1.5, "sigma": 2.5},
)

EXPONENTIAL = Case(
    family=bm.Exponential,
    column=np.concatenate([_rng.exponential(0.02, 10), _rng.exponential(70.0, 10), [0.0, 0.0, 1.0]]),
    params={"scale": np.array([0.02, 1.0, 80.0])},
    oracle=lambda p, x: stats.expon.logpdf(x, scale=p["scale"]),
    edge_params={"scale": np.array([1e-9, 1.0, 1e12])},
    conjugate={"scale": lambda: pm.InverseGamma.dist(3.0, 4.0)},
    numeric={"scale": lambda: pm.LogNormal.dist(1.0, 2.0)},
    fixed={"scale": 3.5},
)

GEOMETRIC = Case(
    family=bm.Geometric,
    column=1 + _AGES,
    params={"p": np.array([0.07, 0.3, 0.9])},
    oracle=lambda p, x: stats.geom.logpmf(x, p["p"]),
    edge_params={"p": np.array([1e-5, 1.0, 1 - 1e-12])},
    conjugate={"p": lambda: pm.Beta.dist(2.5, 3.3)},
    numeric={"p": lambda: pm.LogitNormal.dist(-1.0, 1.2)},
    fixed={"p": 0.3},
)

_TAGS = ("new", "old", "red")
# each three times, but for the empty set and the full one
_BASKETS = [frozenset(tag for s, tag in enumerate(_TAGS) if bits >> s & 1) for bits in [*range(8), *range(1, 7)] * 2]


def _log_density_of_sets(params: Params, column: Any) -> np.ndarray:
    """Term by term, with scipy's Bernoulli."""
    held = np.array([[tag in basket for tag in _TAGS] for basket in column], int)
    return stats.bernoulli.logpmf(held, params["p"]).sum(1)


BERNOULLI_SET = Case(
    family=bm.BernoulliSet,
    column=_BASKETS,
    params={"p": np.array([[0.1, 0.55, 0.93], [0.5, 0.2, 0.3], [0.7, 0.7, 0.01]])},
    oracle=_log_density_of_sets,
    edge_params={"p": np.array([[0.0, 1.0, 0.4], [1e-12, 0.5, 1.0], [1.0, 1.0, 1.0]])},
    conjugate={"p": lambda: pm.Beta.dist(np.array([2.5, 3.0, 1.1]), np.array([1.3, 2.0, 1.6]))},
    numeric={"p": lambda: pm.LogitNormal.dist(0.3, 1.2)},
    fixed={"p": np.array([0.3, 0.6, 0.9])},
)


def log(x):
    """Logarithm, -inf at 0."""
    with np.errstate(divide="ignore"):
        return np.log(x)


SPIKE_AND_SLAB = Case(
    family=bm.SpikeAndSlab,
    column=np.array([3, 3, 0, 5, 3, 1, 3, 4, 2, 3, 0, 3, 5, 1, 3, 3]),
    params={
        "p": np.array([0.6, 0.1, 0.3]),
        "k": np.array([3.0, 0.0, 5.0]),
        "lower": np.zeros(3),
        "upper": np.full(3, 5.0),
    },
    oracle=lambda p, x: log(np.where(x == p["k"], p["p"], (1 - p["p"]) / (p["upper"] - p["lower"]))),
    edge_params={
        "p": np.array([1.0, 0.0, 1e-12]),
        "k": np.array([3.0, 0.0, 2.0]),
        "lower": np.zeros(3),
        "upper": np.full(3, 5.0),
    },
    conjugate={"p": lambda: pm.Beta.dist(2.5, 1.3)},
    numeric={"p": lambda: pm.LogitNormal.dist(0.3, 1.2)},
    fixed={"p": 0.3, "k": 3},
)

CASES = [
    NORMAL,
    MV_NORMAL,
    POISSON,
    CATEGORICAL,
    BERNOULLI,
    BERNOULLI_SET,
    LOG_NORMAL,
    EXPONENTIAL,
    GEOMETRIC,
    SPIKE_AND_SLAB,
]


def over_cases(*names: str):
    """Parametrise a test over the whole catalogue; ids are the class names."""
    return pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def responsibilities(n_rows: int, n_components: int, seed: int = 0) -> np.ndarray:
    """Any positive responsibilities (N, K); rows sum to 1."""
    return np.random.default_rng(seed).dirichlet(np.ones(n_components), n_rows)
