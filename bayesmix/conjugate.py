"""The priors that have closed-form M-steps, as numbers.

Each class holds the hyperparameters of one kind of prior, broadcast over the components (K first), and its
log density. The flat prior is the limit of each kind, so a family's M-step has one formula for both.
Families say which kind they can use (`Parameter.conjugate`); `recognise` finds out whether a PyMC
distribution is of that kind. Anything else goes to the numeric M-step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
from pytensor.tensor.variable import TensorVariable
from scipy.special import gammaln, multigammaln, xlog1py, xlogy

from bayesmix.compilation import constant


@dataclass(frozen=True)
class Conjugate:
    """Base of the conjugate kinds; fields are arrays of shape (K, *event)."""

    op: ClassVar[str]
    flat_op: ClassVar[str]
    #: Where each component's parameter is one for several components: its index among the distinct ones, (K,).
    places: Any = field(default=None, kw_only=True)

    def shared(self, places: np.ndarray) -> Conjugate:
        """Hyperparameters for each of the components that share values, by the index of the value."""
        own = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name not in ("places", "floor")}
        spread = {name: value[places] if value.ndim else value for name, value in own.items()}
        return replace(self, **spread, places=places)

    def pool(self, values: np.ndarray) -> np.ndarray:
        """Statistics (K, ...) summed over the components that share the parameter, at each of them."""
        if self.places is None:
            return values
        total = np.zeros((int(self.places.max()) + 1, *values.shape[1:]))
        np.add.at(total, self.places, values)
        return total[self.places]

    @classmethod
    def from_inputs(cls, *inputs: np.ndarray) -> Conjugate:
        """Hyperparameters from the inputs of the PyMC distribution's Op."""
        return cls(*inputs)

    @classmethod
    def flat(cls) -> Conjugate:
        """The limit in which the prior is constant."""
        raise NotImplementedError

    def without(self) -> Conjugate:
        """The flat prior in the place of this one."""
        return replace(self.flat(), places=self.places)

    def log_density(self, value: np.ndarray) -> float:
        """Sum over components of the log density at `value`, shape (K, *event)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Normal(Conjugate):
    """Normal prior on a location, as mean and precision."""

    op, flat_op = "NormalRV", "FlatRV"
    mean: Any
    precision: Any

    @classmethod
    def from_inputs(cls, *inputs: np.ndarray) -> Normal:
        mu, sigma = inputs
        return cls(mu, 1 / sigma**2)

    @classmethod
    def flat(cls) -> Normal:
        return cls(np.float64(0), np.float64(0))

    def log_density(self, value: np.ndarray) -> float:
        if not np.any(self.precision):
            return 0.0
        terms = np.log(self.precision / (2 * np.pi)) - self.precision * (value - self.mean) ** 2
        return float(0.5 * terms.sum())


@dataclass(frozen=True)
class InverseGamma(Conjugate):
    """Inverse-gamma prior on a scale: density proportional to s^(-alpha-1) exp(-beta/s)."""

    op, flat_op = "InvGammaRV", "HalfFlatRV"
    alpha: Any
    beta: Any

    @classmethod
    def flat(cls) -> InverseGamma:
        return cls(np.float64(-1), np.float64(0))

    def log_density(self, value: np.ndarray) -> float:
        if not np.any(self.beta):
            return 0.0
        constant = self.alpha * np.log(self.beta) - gammaln(self.alpha)
        return float((constant - (self.alpha + 1) * np.log(value) - self.beta / value).sum())


@dataclass(frozen=True)
class Gamma(Conjugate):
    """Gamma prior on a rate or mean: density proportional to m^(alpha-1) exp(-beta m)."""

    op, flat_op = "GammaRV", "HalfFlatRV"
    alpha: Any
    beta: Any

    @classmethod
    def from_inputs(cls, *inputs: np.ndarray) -> Gamma:
        shape, scale = inputs
        return cls(shape, 1 / scale)

    @classmethod
    def flat(cls) -> Gamma:
        return cls(np.float64(1), np.float64(0))

    def log_density(self, value: np.ndarray) -> float:
        if not np.any(self.beta):
            return 0.0
        constant = self.alpha * np.log(self.beta) - gammaln(self.alpha)
        return float((constant + (self.alpha - 1) * np.log(value) - self.beta * value).sum())


@dataclass(frozen=True)
class Beta(Conjugate):
    """Beta prior on a probability; Beta(1, 1) is the flat one."""

    op, flat_op = "BetaRV", "BetaRV"
    alpha: Any
    beta: Any

    def without(self) -> Beta:
        return replace(self, alpha=np.ones_like(self.alpha), beta=np.ones_like(self.beta))

    def log_density(self, value: np.ndarray) -> float:
        return float(self.terms(value).sum())

    def terms(self, value: np.ndarray) -> np.ndarray:
        """Log density of each probability."""
        constant = gammaln(self.alpha + self.beta) - gammaln(self.alpha) - gammaln(self.beta)
        return constant + xlogy(self.alpha - 1, value) + xlog1py(self.beta - 1, -value)


@dataclass(frozen=True)
class Dirichlet(Conjugate):
    """Dirichlet prior on probabilities, last axis; all ones is the flat one."""

    op, flat_op = "DirichletRV", "DirichletRV"
    concentration: Any
    floor: float = 0.0

    def without(self) -> Dirichlet:
        return replace(self, concentration=np.ones_like(self.concentration))

    def log_density(self, value: np.ndarray) -> float:
        constant = gammaln(self.concentration.sum(-1)) - gammaln(self.concentration).sum(-1)
        return float((constant + _power(self.concentration - 1, value).sum(-1)).sum())


@dataclass(frozen=True)
class InverseWishart(Conjugate):
    """Inverse-Wishart prior on covariance matrices: nu (K,), psi (K, D, D)."""

    op, flat_op = "InverseWishartRV", "FlatCovarianceRV"
    nu: Any
    psi: Any

    @classmethod
    def flat(cls) -> InverseWishart:
        return cls(np.float64(np.nan), np.float64(0))

    def log_density(self, value: np.ndarray) -> float:
        if not np.any(self.psi):
            return 0.0
        dimension = value.shape[-1]
        factor, scale = np.linalg.cholesky(value), np.linalg.cholesky(self.psi)
        half = np.linalg.solve(factor, scale)
        logdet, logdet_psi = (2 * np.log(np.diagonal(f, axis1=-2, axis2=-1)).sum(-1) for f in (factor, scale))
        nu = np.broadcast_to(self.nu, logdet.shape)
        log_gamma = np.array([multigammaln(0.5 * n, dimension) for n in nu])
        terms = 0.5 * nu * (logdet_psi - dimension * np.log(2)) - log_gamma - 0.5 * (nu + dimension + 1) * logdet
        return float((terms - 0.5 * (half**2).sum((-1, -2))).sum())


@dataclass(frozen=True)
class Position(Conjugate):
    """Uniform prior on a whole number from `lower` to `upper`."""

    op, flat_op = "DiscreteUniformRV", "DiscreteUniformRV"
    lower: Any
    upper: Any

    def without(self) -> Position:
        return self

    def log_density(self, value: np.ndarray) -> float:
        inside = (value >= self.lower) & (value <= self.upper)
        with np.errstate(divide="ignore"):
            return float(np.where(inside, -np.log(self.upper - self.lower + 1.0), -np.inf).sum())


KINDS: dict[str, type[Conjugate]] = {
    "normal": Normal,
    "inverse_gamma": InverseGamma,
    "gamma": Gamma,
    "beta": Beta,
    "dirichlet": Dirichlet,
    "inverse_wishart": InverseWishart,
    "position": Position,
}


def recognise(kind: str, rv: TensorVariable, batch: tuple[int, ...], shape: tuple[int, ...]) -> Conjugate | None:
    """Hyperparameters of `rv` if it is of the kind named, broadcast to `shape` = (K, *event); else None.

    `batch` is the shape of the components' axes, whose product is K.
    """
    cls = KINDS[kind]
    name = type(rv.owner.op).__name__
    if name == cls.flat_op != cls.op:
        return cls.flat()
    if name != cls.op:
        return None
    inputs = [constant(parameter) for parameter in rv.owner.op.dist_params(rv.owner)]
    event, op = shape[1:], rv.owner.op
    lead = event[: len(event) - op.ndim_supp]  # axes over which the prior is repeated
    full = []
    for value, n in zip(inputs, op.ndims_params):
        core = (*lead, *event[len(event) - n :]) if n else lead
        full.append(np.broadcast_to(value, batch + core).reshape((shape[0], *core)))
    return cls.from_inputs(*full)


def _power(exponent: np.ndarray, value: np.ndarray) -> np.ndarray:
    """``exponent * log(value)``, zero where the exponent is zero even at value 0."""
    with np.errstate(divide="ignore"):
        logs = np.log(value)
    return exponent * np.where(exponent == 0, 0.0, logs)


# ---------------------------------------------------------------- closed-form modes


def location(prior: Normal, total: np.ndarray, weight: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mode of a location with weighted sum `total`, `weight` observations, each of `precision`.

    Maximises ``-precision/2 Σ r (x - m)² + log prior(m)``.
    """
    top, bottom = prior.pool(precision * total), prior.pool(precision * weight)
    return (prior.precision * prior.mean + top) / (prior.precision + bottom)


def scale(prior: InverseGamma, weight: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Mode of a Normal's standard deviation with `squares` the weighted sum of squares about the mean.

    Maximises ``-(n + a + 1) log s - SS/(2 s²) - b/s``: the positive root of
    ``(n + a + 1) s² - b s - SS = 0``.
    """
    count = prior.pool(weight) + prior.alpha + 1
    return (prior.beta + np.sqrt(prior.beta**2 + 4 * count * prior.pool(squares))) / (2 * count)


def rate(prior: Gamma, events: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Mode of a Poisson mean given weighted events in `exposure` rows."""
    return (prior.pool(events) + prior.alpha - 1) / (prior.pool(exposure) + prior.beta)


def probabilities(prior: Dirichlet, counts: np.ndarray) -> np.ndarray:
    """Mode of probabilities given weighted counts, last axis; none below the prior's floor."""
    raw = np.maximum(prior.pool(counts) + prior.concentration - 1, 0.0)
    total = raw.sum(-1, keepdims=True)
    uniform = np.full_like(raw, 1 / raw.shape[-1])
    found = np.where(total > 0, raw / np.where(total > 0, total, 1), uniform)
    return _above(prior.floor, found) if prior.floor else found


def _above(floor: float, p: np.ndarray) -> np.ndarray:
    """Of all probabilities >= floor, those that maximise ``Σ p log q``: some at the floor, the others in proportion."""
    held = np.zeros(p.shape, bool)
    while True:  # each turn holds one more at least
        left = 1 - floor * held.sum(-1, keepdims=True)
        rest = np.where(held, 0.0, p)
        q = np.where(held, floor, left * rest / np.maximum(rest.sum(-1, keepdims=True), 1e-300))
        below = (q < floor) & ~held
        if not below.any():
            return q
        held |= below


def probability(prior: Beta, successes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mode of a probability given weighted successes out of `weight`."""
    top = np.maximum(prior.pool(successes) + prior.alpha - 1, 0.0)
    bottom = np.maximum(prior.pool(weight - successes) + prior.beta - 1, 0.0)
    total = top + bottom
    return np.where(total > 0, top / np.where(total > 0, total, 1), 0.5)


def covariance(prior: InverseWishart, weight: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Mode of covariance matrices (K, D, D) given the weighted scatter about the mean."""
    dimension = scatter.shape[-1]
    extra = np.where(np.isnan(prior.nu), 0.0, prior.nu + dimension + 1)
    return (prior.psi + prior.pool(scatter)) / (prior.pool(weight) + extra)[..., None, None]
