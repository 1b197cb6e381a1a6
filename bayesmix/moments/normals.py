r"""Mixtures of normals from their moments.

**Two normals, each with its own sigma: Pearson's nonic.** With deviations :math:`\gamma_i` of the two means from the
mean of all, central moments :math:`\mu_2 \ldots \mu_5`, :math:`\lambda_4 = 9\mu_2^2 - 3\mu_4` and
:math:`\lambda_5 = 30\mu_2\mu_3 - 3\mu_5`, the product :math:`p = \gamma_1\gamma_2 < 0` is a root of

.. math::

    24p^9 - 28\lambda_4p^7 + 36\mu_3^2p^6 - (24\mu_3\lambda_5 - 10\lambda_4^2)p^5
    - (148\mu_3^2\lambda_4 + 2\lambda_5^2)p^4 + (288\mu_3^4 - 12\lambda_4\lambda_5\mu_3 - \lambda_4^3)p^3 \\
    + (24\mu_3^3\lambda_5 - 7\mu_3^2\lambda_4^2)p^2 + 32\mu_3^4\lambda_4p - 24\mu_3^6 = 0.

Given p, the fourth moment leaves a quadratic for :math:`s = p(\gamma_1 + \gamma_2)`,
:math:`2s^2 + 4\mu_3 s + \lambda_4 p - 6p^3 - \mu_3^2 = 0`, which unlike Pearson's quotient for s stays regular where
the mixture is symmetric. Weights and variances follow:
:math:`w_1 = \gamma_2/(\gamma_2 - \gamma_1)`, :math:`\sigma_i^2 = \mu_2 + p - e\gamma_i` with
:math:`e = (s + \mu_3)/(3p)`. Every root is then polished on the moment equations themselves. Several can be
admissible; Pearson's sixth moment decides.

**K normals with one sigma: Lindsay, and Wu and Yang.** The moments of the means' distribution are
:math:`d_r(\sigma) = E[\sigma^r He_r(x/\sigma)]`. Their Hankel matrix :math:`[d_{i+j}]_{0 \ldots K}` is positive
definite from sigma = 0 up to the smallest root of its determinant, which is the estimate; at the root it is on the
boundary of the moment space, where the distribution has K points: a Gauss quadrature. So the answer always exists.

References
----------
Pearson 1894, *Philosophical Transactions of the Royal Society A* 185, "Contributions to the mathematical theory of
evolution"; Lindsay 1989, *Annals of Statistics* 17, "Moment matrices: applications in mixtures"; Wu and Yang 2020,
*Annals of Statistics* 48, "Optimal estimation of Gaussian mixtures via denoised method of moments".
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from scipy.optimize import brentq

from bayesmix.errors import MomentsError, SpecError
from bayesmix.moments.estimator import Estimator, Solution, about, polish
from bayesmix.moments.mixing import closed, gauss_quadrature, of_normal

#: Moment equations hold when their residual, relative to the moments, is below this.
_SOLVED = 1e-9


def two_normals(moments: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Two normals from five moments, Pearson's way.

    Parameters
    ----------
    moments : array_like, shape (5,) or (6,)
        Raw moments of orders 1 to 5. The sixth ranks the answers; without it they come as they are found.

    Returns
    -------
    list of dict
        Every admissible answer, best first: ``weights``, ``mu``, ``sigma``, shape (2,) each; mu ascends.

    Raises
    ------
    MomentsError
        No mixture of two normals has these moments.

    Examples
    --------
    >>> from bayesmix.moments import two_normals
    >>> best = two_normals([3.0, 35.5, 381.0, 4726.5, 60645.0, 818302.5])[0]  # of 0.7 N(0, 2²) + 0.3 N(10, 3²)
    >>> best["mu"].round(9) + 0.0, best["sigma"].round(9), best["weights"].round(9)
    (array([ 0., 10.]), array([2., 3.]), array([0.7, 0.3]))
    """
    moments = np.asarray(moments, float)
    if moments.shape not in ((5,), (6,)):
        raise ValueError(f"moments: orders 1 to 5, and the sixth to rank by, are needed, not shape {moments.shape}.")
    center = moments[0]
    variance = moments[1] - center**2
    if not variance > 0:
        raise MomentsError(f"moments: the variance is {variance:g}; two normals have a positive one.")
    scale = np.sqrt(variance)
    answers = _two_standard(about(moments, center, scale))
    return [_two_named(theta, center, scale) for theta in answers]


def equal_sigma_normals(moments: np.ndarray, n_components: int) -> dict[str, np.ndarray]:
    """K normals with one standard deviation from 2K moments, by Lindsay's estimator.

    Parameters
    ----------
    moments : array_like, shape (2K,)
        Raw moments of orders 1 to 2K.
    n_components : int
        K.

    Returns
    -------
    dict
        ``weights`` and ``mu``, shape (K,), mu ascending; ``sigma``, shape (K,), all the same.

    Raises
    ------
    MomentsError
        The moments are those of a distribution on K points or fewer, or of none.

    Examples
    --------
    >>> from bayesmix.moments import equal_sigma_normals
    >>> found = equal_sigma_normals([0.0, 5.0, 0.0, 43.0], 2)  # half N(-2, 1), half N(2, 1)
    >>> found["mu"].round(6), found["sigma"].round(6)
    (array([-2.,  2.]), array([1., 1.]))
    """
    moments = np.asarray(moments, float)
    if moments.shape != (2 * n_components,):
        raise ValueError(f"moments: {2 * n_components} are needed, not shape {moments.shape}.")
    variance = moments[1] - moments[0] ** 2
    if not variance > 0:
        raise MomentsError(f"moments: the variance is {variance:g}; normals have a positive one.")
    scale = np.sqrt(variance)
    theta = _equal_standard(about(moments, moments[0], scale), n_components)
    return _equal_named(theta, n_components, moments[0], scale)


def normal_moments(mu: np.ndarray, variance: np.ndarray, n_moments: int) -> np.ndarray:
    """Raw moments (n_moments, K) of normals, by ``M_r = mu M_{r-1} + (r - 1) variance M_{r-2}``."""
    found = [np.ones_like(mu), mu]
    for r in range(2, n_moments + 1):
        found.append(mu * found[-1] + (r - 1) * variance * found[-2])
    return np.stack(found[1:])


# ------------------------------------------------------------ two normals: theta = (w_1, mu_1, mu_2, var_1, var_2)


def _two_moments(theta: np.ndarray, n_moments: int) -> np.ndarray:
    return normal_moments(theta[1:3], theta[3:5], n_moments) @ closed(theta[:1])


def _two_named(theta: np.ndarray, center: float, scale: float) -> dict[str, np.ndarray]:
    return {
        "weights": closed(theta[:1]),
        "mu": center + scale * theta[1:3],
        "sigma": scale * theta[3:5] ** 0.5,
    }


def _two_standard(moments: np.ndarray) -> list[np.ndarray]:
    """Every admissible theta (5,) at moments (5,) or (6,) of a standardised variable, best first."""
    found: list[np.ndarray] = []
    for start in _pearson(*moments[2:5]):
        theta, residual = polish(lambda t: _two_moments(t, 5), start, moments[:5])
        if residual > _SOLVED or not (0 < theta[0] < 1 and theta[3:5].min() > 0):
            continue
        if theta[1] > theta[2]:
            theta = np.array([1 - theta[0], theta[2], theta[1], theta[4], theta[3]])
        if not any(np.allclose(theta, other, rtol=1e-6, atol=1e-6) for other in found):
            found.append(theta)
    if not found:
        raise MomentsError(
            f"two normals: no mixture of two has these moments (skewness {moments[2]:.3g}, kurtosis {moments[3]:.3g}). "
            'Use method="em", one component, or more rows; with sigma=bm.Shared() there always is an answer.'
        )
    if len(moments) == 6:
        found.sort(key=lambda theta: abs(_two_moments(theta, 6)[5] - moments[5]))
    return found


def _pearson(third: float, fourth: float, fifth: float) -> list[np.ndarray]:
    """Starts theta (5,) from the roots of the nonic, for moments about the mean in units of the standard deviation."""
    b, l4, l5 = third, 9 - 3 * fourth, 30 * third - 3 * fifth
    nonic = [
        24.0,
        0.0,
        -28 * l4,
        36 * b**2,
        -(24 * b * l5 - 10 * l4**2),
        -(148 * b**2 * l4 + 2 * l5**2),
        288 * b**4 - 12 * l4 * l5 * b - l4**3,
        24 * b**3 * l5 - 7 * b**2 * l4**2,
        32 * b**4 * l4,
        -24 * b**6,
    ]
    roots = np.roots(nonic)
    # rounding splits close real roots into complex pairs: those go on too, and the moment equations decide
    near = np.abs(roots.imag) <= 0.1 * np.abs(roots.real)
    products = [float(p) for p in roots.real[near] if -1 < p < -1e-12]
    if l4 > 0:
        products.append(-float(np.sqrt(l4 / 6)))  # the symmetric mixture, with third = fifth = 0
    starts = []
    for p in products:
        inside = max(b**2 - 0.5 * (l4 * p - 6 * p**3 - b**2), 0.0)
        for s in (-b + np.sqrt(inside), -b - np.sqrt(inside)):
            total = s / p
            half = np.sqrt(total**2 / 4 - p)
            gamma = np.array([total / 2 - half, total / 2 + half])
            variance = 1 + p - (s + b) / (3 * p) * gamma
            starts.append(np.array([gamma[1] / (2 * half), *gamma, *variance]))
    return starts


@final
class TwoNormals(Estimator):
    """Two normals with own means and standard deviations. See the module's notes.

    Parameters
    ----------
    values : ndarray, shape (N,)
    row_weights : ndarray, shape (N,)
    """

    def __init__(self, values: np.ndarray, row_weights: np.ndarray):
        z, self.center, self.scale = _standardised(values, row_weights)
        self.statistics = _powers_of(z, 6)
        self.units = self.scale ** np.arange(1, 7)

    def solve(self, moments, covariance):
        """See `Estimator.solve`."""
        return [Solution(theta) for theta in _two_standard(moments)]

    def moments(self, theta):
        """See `Estimator.moments`."""
        return _two_moments(theta, 6)

    def named(self, theta):
        """See `Estimator.named`."""
        return _two_named(theta, self.center, self.scale)


# ------------------------------------------------------------ one sigma: theta = (w_1 … w_{K-1}, mu_1 … mu_K, var)


def _equal_moments(theta: np.ndarray, size: int, n_moments: int) -> np.ndarray:
    return normal_moments(theta[size - 1 : -1], theta[-1], n_moments) @ closed(theta[: size - 1])


def _equal_named(theta: np.ndarray, size: int, center: float, scale: float) -> dict[str, np.ndarray]:
    return {
        "weights": closed(theta[: size - 1]),
        "mu": center + scale * theta[size - 1 : -1],
        "sigma": scale * theta[-1] ** 0.5 * np.ones(size),
    }


def _denoised(moments: np.ndarray, variance: float) -> np.ndarray:
    """Moments of orders 1 to R with a normal of this variance taken out: those of x + i sd Z, a polynomial in it."""
    raw = np.concatenate([[1.0], moments])
    noise = normal_moments(np.zeros(1), np.full(1, -variance), len(moments))[:, 0]
    noise = np.concatenate([[1.0], noise])
    out = []
    binomial = np.ones(1)
    for r in range(1, len(raw)):
        binomial = np.concatenate([[1.0], binomial[:-1] + binomial[1:], [1.0]])
        out.append((binomial * raw[: r + 1] * noise[r::-1]).sum())
    return np.array(out)


def _equal_standard(moments: np.ndarray, size: int) -> np.ndarray:
    """Theta (2K,) at moments (2K,) of a standardised variable."""
    order = np.add.outer(np.arange(size + 1), np.arange(size + 1))
    unit = 1 / np.sqrt(np.concatenate([[1.0], moments])[np.diag(order)])

    def smallest(variance):
        hankel = np.concatenate([[1.0], _denoised(moments, variance)])[order]
        return float(np.linalg.eigvalsh(unit[:, None] * hankel * unit)[0])

    # beyond the total variance, 1, the matrix cannot be positive definite; below the root it is
    if size > 1 and smallest(0.0) <= 0:
        raise MomentsError(
            f"normals with one sigma: the moments are those of {size} or fewer single points. Use fewer components."
        )
    variance = brentq(smallest, 0.0, 1.0 + 1e-9, xtol=1e-15, rtol=1e-14) if size > 1 else 1.0
    found = gauss_quadrature(_denoised(moments, variance)[:-1])
    if found is None:
        raise MomentsError(
            f"normals with one sigma: {size} components are more than the moments tell apart. Use fewer components, "
            'more rows, or method="em".'
        )
    mu, weights = found
    start = np.concatenate([weights[:-1], mu, [variance]])
    theta, residual = polish(lambda t: _equal_moments(t, size, 2 * size), start, moments)
    weights = closed(theta[: size - 1])
    return theta if residual < _SOLVED and theta[-1] > 0 and weights.min() > 0 else start


@final
class EqualSigmaNormals(Estimator):
    """K normals with one standard deviation. See the module's notes.

    Parameters
    ----------
    values : ndarray, shape (N,)
    n_components : int
    row_weights : ndarray, shape (N,)
    """

    def __init__(self, values: np.ndarray, n_components: int, row_weights: np.ndarray):
        z, self.center, self.scale = _standardised(values, row_weights)
        self.size = n_components
        self.statistics = _powers_of(z, 2 * n_components + 1)
        self.units = self.scale ** np.arange(1, 2 * n_components + 2)

    def solve(self, moments, covariance):
        """The one answer, which always exists. See `Estimator.solve`."""
        return [Solution(_equal_standard(moments[:-1], self.size))]

    def moments(self, theta):
        """See `Estimator.moments`."""
        return _equal_moments(theta, self.size, 2 * self.size + 1)

    def named(self, theta):
        """See `Estimator.named`."""
        return _equal_named(theta, self.size, self.center, self.scale)


def _standardised(values: np.ndarray, row_weights: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values about their mean in units of their standard deviation, and both."""
    center = float(np.average(values, weights=row_weights))
    scale = float(np.sqrt(np.average((values - center) ** 2, weights=row_weights)))
    if not scale > 0:
        raise MomentsError(f"normals: every value is {center:g}, so there is no variance to explain. Use other data.")
    return (values - center) / scale, center, scale


def _powers_of(z: np.ndarray, n_moments: int) -> np.ndarray:
    return np.cumprod(np.broadcast_to(z[:, None], (len(z), n_moments)), axis=1)


def estimator_of(values: np.ndarray, site: Any, row_weights: np.ndarray) -> Estimator:
    """The estimator for a family that is normal in `values` (N,), with parameters ``mu`` and ``sigma``.

    Raises
    ------
    SpecError
        There is none for what is free, shared and fixed at this site.
    """
    mu, sigma, size = site.slots["mu"], site.slots["sigma"], site.n_components
    own_axis = site.place.axes[-1]
    if mu.free and own_axis in mu.axes:
        if sigma.kind == "fixed" and np.ptp(sigma.value) == 0:
            return of_normal(values, float(sigma.value.flat[0]), size, row_weights)
        if sigma.free and (own_axis not in sigma.axes or size == 1):
            return EqualSigmaNormals(values, size, row_weights)
        if sigma.free and size == 2:
            return TwoNormals(values, row_weights)
    raise SpecError(
        f"{mu.name}, {sigma.name}: the method of moments estimates two normals with sigmas of their own, or any number "
        f"with one sigma (shared or fixed), and all of their means; not these {size}. Share sigma, or use "
        'method="em".'
    )
