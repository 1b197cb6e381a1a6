r"""A mixing distribution from its moments: points and weights.

Many families have functions of a row whose mean is a power of the parameter: falling factorials of a Poisson count,
``E[x (x-1) … (x-r+1)] = mu^r``; powers of an exponential waiting time, ``E[x^r] = r! scale^r``; Hermite
polynomials of a normal with known sigma. Averaged over a mixture they are moments of the mixing distribution
:math:`m_r = \sum_k w_k a_k^r`, and a distribution on K points is determined by :math:`m_1 \ldots m_{2K-1}`: the
points and weights of the Gauss quadrature (Golub and Welsch 1969). Sampled moments may be those of no
distribution at all. Then the nearest ones that are take their place, as Wu and Yang (2020) proposed; here "nearest"
is in the metric of the moments' sampling covariance, and the convex problem is solved on the moment curve itself
by Wolfe's method, whose answer already is a set of points and weights.

References
----------
Golub and Welsch 1969, *Mathematics of Computation* 23; Wu and Yang 2020, *Annals of Statistics* 48, "Optimal
estimation of Gaussian mixtures via denoised method of moments"; Wolfe 1976, *Mathematical Programming* 11;
Lindsay 1989, *Annals of Statistics* 17.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from scipy.linalg import LinAlgError, eigh
from scipy.optimize import least_squares

from bayesmix.errors import MomentsError, SpecError
from bayesmix.moments.estimator import Estimator, Solution, about, polish


def mixing_distribution(
    moments: np.ndarray,
    n_points: int,
    *,
    support: tuple[float, float] = (-np.inf, np.inf),
    within: tuple[float, float] | None = None,
    covariance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Points and weights of the distribution with given moments, or with the nearest that are possible.

    Parameters
    ----------
    moments : array_like, shape (2K - 1,)
        Raw moments of orders 1 to 2K - 1.
    n_points : int
        K.
    support : tuple of float
        Where points may lie: an open interval.
    within : tuple of float, optional
        A closed finite interval, for the nearest possible moments; without it, impossible ones are an error.
    covariance : ndarray, shape (2K - 1, 2K - 1), optional
        Of the sampled moments up to a factor: the metric of "nearest". Without it, each moment counts by the
        power of the interval's size.

    Returns
    -------
    points, weights : ndarray, shape (K,)
        Points ascend.
    exact : bool
        Whether they reproduce the moments. Where not, two points can be one and the same.

    Raises
    ------
    MomentsError
        The moments are those of no distribution on K points of the support.

    Examples
    --------
    >>> from bayesmix.moments import mixing_distribution
    >>> points, weights, exact = mixing_distribution([2.2, 5.8, 16.6], 2)  # 0.4 at 1 and 0.6 at 3
    >>> points.round(9), weights.round(9), exact
    (array([1., 3.]), array([0.4, 0.6]), True)
    """
    moments = np.asarray(moments, float)
    if moments.shape != (2 * n_points - 1,):
        raise ValueError(f"moments: {2 * n_points - 1} are needed for {n_points} points, not {moments.shape}.")
    found = gauss_quadrature(moments)
    if found is not None and support[0] < found[0].min() and found[0].max() < support[1]:
        return *found, True
    if within is None:
        raise MomentsError(
            f"the moments {np.array2string(moments, precision=6)} are those of no distribution on {n_points} points "
            f"between {support[0]:g} and {support[1]:g}. Pass within= for the nearest ones that are, or fewer points."
        )
    return *nearest_points(moments, n_points, within, covariance), False


def gauss_quadrature(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Points and weights (K,) of raw moments (2K - 1,), polished by Newton; None where there are none."""
    size = (len(moments) + 1) // 2
    if size == 1:
        return moments.copy(), np.ones(1)
    variance = moments[1] - moments[0] ** 2
    if not variance > 0:
        return None
    center, scale = moments[0], np.sqrt(variance)
    inner = about(moments, center, scale)
    full = np.concatenate([[1.0], inner])
    order = np.add.outer(np.arange(size), np.arange(size))
    try:
        # the pencil of the two Hankel matrices: its eigenvalues are the roots of the orthogonal polynomial
        points, vectors = eigh(full[order + 1], full[order])
    except LinAlgError:
        return None
    weights = (full[:size] @ vectors) ** 2
    theta, _ = polish(lambda t: powers(t, size, len(moments)), np.concatenate([weights[:-1], points]), inner)
    polished, points = closed(theta[: size - 1]), theta[size - 1 :]
    if not ((polished > 0).all() and np.isfinite(points).all()):
        return None
    ascending = np.argsort(points)
    return center + scale * points[ascending], polished[ascending]


def closed(weights: np.ndarray) -> np.ndarray:
    """Weights (K,) from the first K - 1."""
    return np.append(weights, 1 - weights.sum())


def powers(theta: np.ndarray, size: int, n_moments: int) -> np.ndarray:
    """Moments (n_moments,) of the points and weights in theta = (w_1 … w_{K-1}, a_1 … a_K)."""
    weights, points = closed(theta[: size - 1]), theta[size - 1 :]
    return np.stack([(weights * points**r).sum() for r in range(1, n_moments + 1)])


def nearest_points(
    moments: np.ndarray, n_points: int, within: tuple[float, float], covariance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights (K,) in a finite interval whose moments are nearest to the given ones (2K - 1,).

    The moments of distributions on the interval are the convex hull of the curve ``(a, a², …)``. Its point nearest
    to the target is found exactly (see `nearest_in_hull`); it lies on a face whose vertices are at most K points.
    """
    low, high = within
    orders = np.arange(1, len(moments) + 1)
    middle, half = 0.5 * (low + high), 0.5 * (high - low) or 1.0
    shift = _shift_matrix(len(moments), middle, half)
    target = about(moments, middle, half)
    if covariance is None:
        root = np.eye(len(moments))
    else:
        metric = shift @ covariance @ shift.T
        size = np.sqrt(np.diag(metric).clip(np.finfo(float).tiny))
        # high moments are nearly collinear: the floor keeps rounding from dominating the metric
        root = size[:, None] * np.linalg.cholesky(metric / np.outer(size, size) + 1e-10 * np.eye(len(size)))
    whiten = np.linalg.inv(root)
    start, end = (low - middle) / half, (high - middle) / half

    def point_of(a):
        return whiten @ (a**orders - target)

    def oracle(direction):
        slope = np.concatenate([[0.0], direction @ whiten])
        turns = np.polynomial.polynomial.polyroots(np.polynomial.polynomial.polyder(slope))
        turns = turns.real[(turns.real > start) & (turns.real < end)]
        places = np.concatenate([[start, end], turns])
        best = places[np.polynomial.polynomial.polyval(places, slope).argmin()]
        return best, point_of(best)

    places, weights = nearest_in_hull(oracle, len(moments))
    points, weights = _gathered(np.array(places), weights, n_points, end - start)
    points, weights = _refined(points, weights, whiten, target, (start, end))
    while len(points) < n_points:  # fewer points do as well: the heaviest counts as two
        heavy = weights.argmax()
        weights = np.append(weights, weights[heavy] / 2)
        weights[heavy] /= 2
        points = np.append(points, points[heavy])
    ascending = np.argsort(points, kind="stable")
    return middle + half * points[ascending], weights[ascending]


def _shift_matrix(size: int, center: float, scale: float) -> np.ndarray:
    """Linear part (R, R) of `about`."""
    zero = about(np.zeros(size), center, scale)
    return np.stack([about(unit, center, scale) - zero for unit in np.eye(size)], axis=1)


def nearest_in_hull(
    oracle: Callable[[np.ndarray], tuple[float, np.ndarray]], dimension: int, max_iter: int = 500
) -> tuple[list, np.ndarray]:
    """The point of a convex hull nearest to the origin, by Wolfe's active-set method.

    Parameters
    ----------
    oracle : callable
        Direction (R,) -> label and coordinates (R,) of the vertex that lies lowest in it.
    dimension : int
        R.
    max_iter : int

    Returns
    -------
    labels : list
        Of the vertices that span the answer, at most R + 1.
    weights : ndarray
        Their convex weights.
    """
    label, vertex = oracle(np.ones(dimension))
    labels, vertices, weights = [label], vertex[None], np.ones(1)
    for _ in range(max_iter):
        x = weights @ vertices
        label, vertex = oracle(x)
        # the gap bounds the squared distance to the answer
        if x @ x - x @ vertex <= 1e-13 * max(1.0, (vertices**2).sum(1).max()) or label in labels:
            break
        labels, vertices, weights = [*labels, label], np.vstack([vertices, vertex]), np.append(weights, 0.0)
        while True:
            affine = _affine_minimum(vertices)
            if (affine > 1e-12).all():
                weights = affine
                break
            falling = affine <= 1e-12
            room = weights[falling] - affine[falling]
            step = min(1.0, float((weights[falling] / np.where(room > 0, room, 1e-300)).min()))
            weights = np.maximum(weights + step * (affine - weights), 0)
            keep = weights > 1e-12
            keep[weights.argmax()] = True
            if keep.all():
                keep[np.where(falling)[0][weights[falling].argmin()]] = False
            labels = [name for name, stays in zip(labels, keep) if stays]
            vertices, weights = vertices[keep], weights[keep] / weights[keep].sum()
    return labels, weights


def _affine_minimum(vertices: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 of the point nearest to the origin in the affine hull."""
    base = vertices[0]
    others = np.linalg.lstsq((vertices[1:] - base).T, -base, rcond=None)[0]
    return np.concatenate([[1 - others.sum()], others])


def _gathered(points: np.ndarray, weights: np.ndarray, n_points: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Points that are one but for rounding put together, and the nearest pairs until there are at most `n_points`."""
    order = np.argsort(points)
    points, weights = points[order], weights[order]
    while len(points) > 1:
        gaps = np.diff(points)
        i = gaps.argmin()
        if gaps[i] > 1e-4 * width and len(points) <= n_points:
            break
        total = weights[i] + weights[i + 1]
        points[i] = (weights[i] * points[i] + weights[i + 1] * points[i + 1]) / total
        weights[i] = total
        points, weights = np.delete(points, i + 1), np.delete(weights, i + 1)
    weights = np.maximum(weights, 0.0)
    return points, weights / weights.sum()


def _refined(points, weights, whiten, target, bounds) -> tuple[np.ndarray, np.ndarray]:
    """The same points and weights moved to the least distance from the target, which gathering disturbed."""
    size = len(points)

    def distance(theta):
        return whiten @ (powers(theta, size, len(target)) - target)

    low = np.concatenate([np.zeros(size - 1), np.full(size, bounds[0])])
    high = np.concatenate([np.ones(size - 1), np.full(size, bounds[1])])
    start = np.concatenate([weights[:-1], points])
    found = least_squares(distance, np.clip(start, low, high), bounds=(low, high), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    moved = closed(found.x[: size - 1])
    if (moved < 0).any() or found.cost > 0.5 * (distance(start) ** 2).sum():
        return points, weights
    return found.x[size - 1 :], moved


@final
class Mixing(Estimator):
    """A family whose statistics average to powers of a point of the mixing distribution.

    Parameters
    ----------
    statistics : ndarray, shape (N, 2K)
        Row functions with mean ``((a - center) / scale) ** r`` in a component with point a, r = 1 … 2K.
    parameter : str
        The family's name of what a point stands for.
    center, scale : float
        Reference point and unit of the points.
    support : tuple of float
        Open interval of admissible points.
    within : tuple of float
        Closed finite interval in which the nearest possible moments are sought.
    of_point : callable, optional
        Parameter from point; the point itself by default.
    """

    def __init__(self, statistics, parameter, *, center=0.0, scale=1.0, support, within, of_point=None):
        self.statistics = statistics
        self.parameter, self.center, self.scale = parameter, center, scale
        self.support, self.within = support, within
        self.of_point = of_point or (lambda point: point)
        self.n_points = statistics.shape[1] // 2
        self.units = float(scale) ** np.arange(1, 2 * self.n_points + 1)

    def _inner(self, interval):
        return tuple((end - self.center) / self.scale for end in interval)

    def solve(self, moments, covariance):
        """The one answer. See `Estimator.solve`."""
        points, weights, exact = mixing_distribution(
            moments[:-1],
            self.n_points,
            support=self._inner(self.support),
            within=self._inner(self.within),
            covariance=covariance[:-1, :-1],
        )
        return [Solution(np.concatenate([weights[:-1], points]), exact)]

    def moments(self, theta):
        """See `Estimator.moments`."""
        return powers(theta, self.n_points, 2 * self.n_points)

    def named(self, theta):
        """See `Estimator.named`."""
        points = self.center + self.scale * theta[self.n_points - 1 :]
        return {"weights": closed(theta[: self.n_points - 1]), self.parameter: self.of_point(points)}


def _require_own(site: Any, name: str) -> None:
    """Raise `SpecError` unless each component has a value of its own to estimate."""
    slot = site.slots[name]
    if not slot.free or site.place.axes[-1] not in slot.axes:
        raise SpecError(
            f"{slot.name}: the method of moments estimates one value for each component; here it is fixed or shared. "
            'Use method="em".'
        )


def _of_counts(counts: np.ndarray, n_components: int, row_weights: np.ndarray, factorials: bool):
    """Scaled falling factorials (N, 2K) of counts, divided by r! or not; their unit; the interval for points."""
    scale = float(np.average(counts, weights=row_weights)) or 1.0
    columns, value = [], np.ones(len(counts))
    for r in range(1, 2 * n_components + 1):
        value = value * (counts - (r - 1)) / (scale * (r if factorials else 1))
        columns.append(value)
    least = max(
        float(counts.min()), 0.5 / row_weights.sum()
    )  # half an event in all rows: a rate of zero has no density
    return np.stack(columns, axis=1), scale, (least, max(float(counts.max()), 2 * least))


def of_poisson(counts: np.ndarray, site: Any, row_weights: np.ndarray) -> Mixing:
    """Poisson means from factorial moments: ``E[x (x-1) … (x-r+1)] = mu^r``.

    Parameters
    ----------
    counts : ndarray, shape (N,)
    site : Site
        Of the family, with the slot ``mu``.
    row_weights : ndarray, shape (N,)
    """
    _require_own(site, "mu")
    statistics, scale, within = _of_counts(counts, site.n_components, row_weights, False)
    return Mixing(statistics, "mu", scale=scale, support=(0.0, np.inf), within=within)


def of_geometric(trials: np.ndarray, site: Any, row_weights: np.ndarray) -> Mixing:
    """Geometric probabilities from factorial moments of the failures: ``E[C(x-1, r)] = ((1 - p)/p)^r``.

    Parameters
    ----------
    trials : ndarray, shape (N,)
        From 1.
    site : Site
        Of the family, with the slot ``p``.
    row_weights : ndarray, shape (N,)
    """
    _require_own(site, "p")
    statistics, scale, within = _of_counts(trials - 1, site.n_components, row_weights, True)
    return Mixing(
        statistics,
        "p",
        scale=scale,
        support=(0.0, np.inf),
        within=within,
        of_point=lambda odds: 1 / (1 + odds),
    )


def of_exponential(times: np.ndarray, site: Any, row_weights: np.ndarray) -> Mixing:
    """Means of exponential waiting times: ``E[x^r] / r! = scale^r``.

    Parameters
    ----------
    times : ndarray, shape (N,)
    site : Site
        Of the family, with the slot ``scale``.
    row_weights : ndarray, shape (N,)
    """
    _require_own(site, "scale")
    scale = float(np.average(times, weights=row_weights)) or 1.0
    columns, value = [], np.ones(len(times))
    for r in range(1, 2 * site.n_components + 1):
        value = value * times / (scale * r)
        columns.append(value)
    positive = times[times > 0]
    least = float(positive.min()) if len(positive) else 0.5 * scale
    within = (least, max(float(times.max()), 2 * least))
    return Mixing(np.stack(columns, axis=1), "scale", scale=scale, support=(0.0, np.inf), within=within)


def of_normal(values: np.ndarray, sigma: float, n_components: int, row_weights: np.ndarray) -> Mixing:
    """Means of normals with known sigma: ``E[sigma^r He_r(x / sigma)] = mu^r``, He_r Hermite's polynomials.

    Parameters
    ----------
    values : ndarray, shape (N,)
    sigma : float
    n_components : int
    row_weights : ndarray, shape (N,)
    """
    center = float(np.average(values, weights=row_weights))
    scale = float(np.sqrt(np.average((values - center) ** 2, weights=row_weights))) or sigma
    z, variance = (values - center) / scale, (sigma / scale) ** 2
    columns = [np.ones(len(z)), z]
    for r in range(2, 2 * n_components + 1):
        columns.append(z * columns[-1] - (r - 1) * variance * columns[-2])
    within = (float(values.min()), float(values.max()) if np.ptp(values) > 0 else float(values.min()) + scale)
    statistics = np.stack(columns[1:], axis=1)
    return Mixing(statistics, "mu", center=center, scale=scale, support=(-np.inf, np.inf), within=within)
