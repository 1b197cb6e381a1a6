"""Densities that are as symmetric as a mixture's posterior: normal distributions averaged over orders of the labels.

In the unconstrained coordinates a permutation of labels is a linear map: logarithms of scales change places, and
log-ratios of probabilities are linear in one another. `Permutations` finds these maps, and a `Proposal` is averaged
over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
from scipy.linalg import solve_triangular
from scipy.special import gammaln

from bayesmix.bound import Bound
from bayesmix.compilation import QuickFunction
from bayesmix.errors import SpecError, quiet
from bayesmix.inference.target import Target
from bayesmix.symmetry import log_symmetries, permuted

#: Permutations that a proposal is averaged over, at most; of more, those that exchange components that overlap.
_MOST = 1_000
#: Two components overlap where swapping them keeps this share of the proposal's density, on average over its draws.
_OVERLAP = 1e-6
#: Numbers of normal distributions that a proposal may be made of.
_PARTS = (1, 2, 3, 4)
#: Draws that they are fitted to, at most.
_ROWS = 2_000


class Unconstrain:
    """From draws of the free variables to their unconstrained coordinates: the inverse of `Target.constrained`."""

    def __init__(self, target: Target):
        model = target.model
        self.parts: list[tuple[str, Any]] = []
        for variable in model.value_vars:
            rv = model.values_to_rvs[variable]
            transform, forward = model.rvs_to_transforms[rv], None
            if transform is not None:
                raw = pt.tensor("raw", dtype="float64", shape=(None,) * (rv.ndim + 1))
                forward = QuickFunction([raw], transform.forward(raw, *rv.owner.inputs))
            self.parts.append((rv.name, forward))

    def __call__(self, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Coordinates (M, d) of draws (M, *shape) by name."""
        found = []
        with np.errstate(divide="ignore"):
            for name, forward in self.parts:
                values = np.asarray(draws[name], float)
                found.append(np.reshape(values if forward is None else forward(values), (len(values), -1)))
        return np.concatenate(found, axis=1)


class Permutations:
    """Permutations of labels as linear maps of the unconstrained coordinates.

    Attributes
    ----------
    log_count : float
        Log of the number S of all of them.
    swaps : ndarray, shape (T, d, d)
        Those that exchange two components.
    """

    def __init__(self, bound: Bound, target: Target):
        self.dimension = len(target.start)
        self.log_count = float(log_symmetries(bound))
        to = Unconstrain(target) if self.dimension else None
        swaps = [
            self._matrix(bound, target, to, symmetry, at, pair)
            for symmetry in bound.symmetries
            for at, block in symmetry.blocks()
            for pair in ((g, h) for i, g in enumerate(block) for h in block[i + 1 :])
        ]
        self.swaps = np.array(swaps).reshape(-1, self.dimension, self.dimension)

    def _matrix(self, bound: Bound, target: Target, to: Any, symmetry: Any, at: Any, pair: Any) -> np.ndarray:
        """The map of one swap, by its images of the origin and of the unit vectors."""
        order = np.array(symmetry.identity)
        order[(*at, pair[0])], order[(*at, pair[1])] = pair[1], pair[0]
        units = np.vstack([np.zeros(self.dimension), np.eye(self.dimension)])
        draws = target.constrained(units)
        many = np.broadcast_to(order, (len(units), *order.shape))
        images = to({**draws, **permuted(bound, symmetry, draws, many)})
        matrix = (images[1:] - images[0]).T
        # NaN is neither: an image outside the support, as of a transform that keeps components in order
        if not (np.abs(images[0]).max() < 1e-6 and np.abs(matrix - np.round(matrix)).max() < 1e-6):
            raise SpecError(
                f"{symmetry.name}: a prior's transform treats the components differently, so their permutations are "
                "not linear. Give all components one prior."
            )
        return np.round(matrix)

    def closure(self, swaps: np.ndarray) -> np.ndarray | None:
        """Every permutation that the swaps make together, (S, d, d); None where there are too many."""
        found = {np.eye(self.dimension).tobytes(): np.eye(self.dimension)}
        fresh = list(found.values())
        while fresh:
            made = []
            for one in fresh:
                for swap in swaps:
                    new = swap @ one + 0.0  # no negative zeros, whose bytes differ
                    if new.tobytes() not in found:
                        found[new.tobytes()] = new
                        made.append(new)
                if len(found) > _MOST:
                    return None
            fresh = made
        return np.array(list(found.values()))


@dataclass(frozen=True)
class Kernel:
    """A normal distribution, or Student's t.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    factor : ndarray, shape (d, d)
        Lower triangular F; F F^T is the covariance (of t, the scale).
    df : float
        A finite one is of Student's t, whose tails hold importance weights down.
    """

    mean: np.ndarray
    factor: np.ndarray
    df: float = np.inf

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Log density (M,) at points (M, d)."""
        return self._of_squares((solve_triangular(self.factor, (points - self.mean).T, lower=True) ** 2).sum(0))

    def at_images(self, points: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """Log density (S, M) at the images of points (M, d) under maps (S, d, d)."""
        inverse = solve_triangular(self.factor, np.eye(len(self.mean)), lower=True)
        centre, flat = (inverse @ self.mean)[:, None], (inverse @ maps).reshape(-1, len(self.mean))
        squared, step = np.empty((len(maps), len(points))), max(1, 4_000_000 // len(flat))
        for begin in range(0, len(points), step):
            z = (flat @ points[begin : begin + step].T).reshape(*maps.shape[:2], -1) - centre
            squared[:, begin : begin + step] = np.einsum("sdm,sdm->sm", z, z)
        return self._of_squares(squared)

    def _of_squares(self, squared: np.ndarray) -> np.ndarray:
        d, df = len(self.mean), self.df
        log_det = np.log(np.diagonal(self.factor)).sum()
        if np.isinf(df):
            return -0.5 * squared - 0.5 * d * np.log(2 * np.pi) - log_det
        constant = gammaln((df + d) / 2) - gammaln(df / 2) - 0.5 * d * np.log(np.pi * df) - log_det
        return constant - 0.5 * (df + d) * np.log1p(squared / df)

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Points (size, d)."""
        steps = rng.standard_normal((size, len(self.mean))) @ self.factor.T
        if np.isfinite(self.df):
            steps /= np.sqrt(rng.chisquare(self.df, size) / self.df)[:, None]
        return self.mean + steps


@dataclass(frozen=True)
class Proposal:
    """A mixture of kernels around one copy of the posterior, averaged over all permutations.

    Attributes
    ----------
    kernels : tuple of Kernel
    weights : ndarray
        Of the kernels.
    maps : ndarray, shape (S, d, d)
        The permutations in which copies overlap; the others add nothing where this copy is.
    log_count : float
        Log of the number of all permutations.
    """

    kernels: tuple[Kernel, ...]
    weights: np.ndarray
    maps: np.ndarray
    log_count: float

    def one(self, points: np.ndarray) -> np.ndarray:
        """Log density (M,) of the one copy."""
        return self._mixed([kernel(points) for kernel in self.kernels])

    def each(self, points: np.ndarray) -> np.ndarray:
        """The same at the images under each of `maps`, (S, M)."""
        return self._mixed([kernel.at_images(points, self.maps) for kernel in self.kernels])

    def _mixed(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.logaddexp.reduce([part + np.log(w) for part, w in zip(parts, self.weights)], axis=0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Log density (M,), averaged over all permutations."""
        return np.logaddexp.reduce(self.each(points), axis=0) - self.log_count

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Points (size, d) around the one copy."""
        sizes = rng.multinomial(size, self.weights)
        return rng.permutation(np.vstack([k.draw(int(n), rng) for k, n in zip(self.kernels, sizes)]))


def averaged(kernels: list[Kernel], weights: np.ndarray, permutations: Permutations, rng: Any) -> Proposal:
    """The proposal over all permutations, or of too many over those that swaps of overlapping components make."""
    dimension = len(kernels[0].mean)
    alone = Proposal(tuple(kernels), weights, np.eye(dimension)[None], permutations.log_count)
    maps = None
    if permutations.log_count < np.log(_MOST):
        maps = permutations.closure(permutations.swaps)
    if maps is None:
        points = alone.draw(500, rng)
        here = alone.one(points)
        kept = [np.exp(np.minimum(alone.one(points @ swap.T) - here, 0)).mean() for swap in permutations.swaps]
        overlapping = permutations.swaps[np.array(kept) > _OVERLAP]
        maps = permutations.closure(overlapping)
        if maps is None:
            raise ValueError(
                f"{len(overlapping)} pairs of components overlap, in more than {_MOST} orders that cannot be told "
                "apart. Use fewer components: some of these are empty or alike."
            )
    return Proposal(tuple(kernels), weights, maps, permutations.log_count)


def fitted_to(points: np.ndarray, rng: np.random.Generator) -> tuple[list[Kernel], np.ndarray]:
    """Normal distributions that together resemble draws (M, d), and their weights: as many as BIC says.

    It is this library's own mixture of normals. A posterior that is one bump takes one.
    """
    from bayesmix.families import MvNormal, Normal
    from bayesmix.inference.em import fit_em
    from bayesmix.select import information
    from bayesmix.structure.mixture import Mixture

    mean, sd = points.mean(0), points.std(0)
    sd = np.where(sd > 0, sd, 1.0)
    family = MvNormal() if points.shape[1] > 1 else Normal()
    table = (points[np.linspace(0, len(points) - 1, min(len(points), _ROWS)).astype(int)] - mean) / sd
    table = table if points.shape[1] > 1 else table[:, 0]
    best, lowest = None, np.inf
    with quiet():
        for k in _PARTS:
            if k > 1 and len(table) < 10 * k * points.shape[1]:
                break
            fit = fit_em(Mixture(family, k), table, n_starts=3, max_iter=100, tol=1e-2, random_seed=rng)
            bic = information(fit)["bic"]
            if bic >= lowest:
                break
            best, lowest = fit, bic
    assert best is not None
    params = best.params
    means = params["mu"].reshape(len(params["weights"]), -1)
    covariances = params["cov"] if "cov" in params else params["sigma"].reshape(-1, 1, 1) ** 2
    kernels = [Kernel(mean + sd * m, root(c * sd[:, None] * sd)) for m, c in zip(means, covariances)]
    return kernels, params["weights"]


def root(covariance: np.ndarray) -> np.ndarray:
    """Cholesky factor; directions in which there is hardly any variance are held."""
    return np.linalg.cholesky(covariance + np.diag(1e-10 * np.diagonal(covariance)))


def nearest(points: np.ndarray, density: Callable[[np.ndarray], np.ndarray], swaps: np.ndarray) -> np.ndarray:
    """The points (M, d) each in the order of labels in which a log density is highest, as far as swaps lead uphill."""
    points, best = points.copy(), density(points)
    for _ in range(20):
        moved = False
        for swap in swaps:
            images = points @ swap.T
            there = density(images)
            better = there > best + 1e-9
            if better.any():
                points[better], best[better], moved = images[better], there[better], True
        if not moved:
            break
    return points
