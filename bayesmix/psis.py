"""Pareto-smoothed importance sampling: how far an approximation is from the posterior, and its draws corrected.

Draws of an approximation q get the weight p / q. The largest weights are replaced by quantiles of a generalised Pareto
distribution that is fitted to them; its shape k says whether they can be trusted. Below 0.7 corrected draws serve
as draws of the posterior; above it q misses part of the posterior, and no practical number of draws helps. The
smoothing is ArviZ's.

The shape says nothing of the size: the largest weights may be a few per cent above the mean, and k, which is of their
excesses over a threshold alone, above 1. Where all weights are nearly equal q is as good as the posterior wherever it
has draws, whatever k is: a mean by the weights differs from the plain one by at most their coefficient of variation, in
standard deviations (Cauchy and Schwarz), and no draw has a share that matters, the criterion of Chatterjee and Diaconis
2018, *Annals of Applied Probability* 28.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

#: Pareto k from which weights are not to be trusted (Vehtari et al. 2024, section 3).
LARGEST_K = 0.7
#: Pareto k above which an approximation is of use but not exact (Yao et al. 2018).
INEXACT_K = 0.5
#: Weights are alike up to this coefficient of variation, and up to this largest one as a multiple of the mean. Two
#: Poisson components of 2,000 rows have 0.01 and 1.3, and k 1.2. So has, with 16,000 draws and four seeds of ten, a
#: posterior of which a thousandth is in a tail ten times as wide: that much may be missed, and a hundredth is not.
_ALIKE, _LARGEST_ALIKE = 0.03, 1.4
#: Draws that k is estimated from, at least and at most. From 1,000 it has an error of 0.15 and sees little of the tail;
#: from 16,000 two close Gaussians stand out (0.7 to 1.1) from well-separated ones (below 0.45).
FEWEST, MOST = 1_000, 16_000


@dataclass(frozen=True)
class Importance:
    """Importance weights of M draws of an approximation.

    Attributes
    ----------
    log_weights : ndarray, shape (M,)
        Smoothed, and normalised: their exponentials sum to 1.
    pareto_k : float
        Shape of the tail of the weights; infinite where it cannot be estimated, and -infinite where the weights are all
        alike, so that there is no tail to speak of.
    log_evidence : float
        Log of the mean raw weight: of the integral of the target, in nats, as far as q covers it.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao and Gabry 2024, *JMLR* 25; Yao, Vehtari, Simpson and Gelman 2018, *ICML*, for
    variational approximations.
    """

    log_weights: np.ndarray
    pareto_k: float
    log_evidence: float

    @property
    def trusted(self) -> bool:
        """Whether k is below 0.7."""
        return self.pareto_k < LARGEST_K

    def resample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of `size` draws, as often as their weights say up to rounding, in random order (systematic)."""
        share = np.exp(self.log_weights)
        points = (rng.random() + np.arange(size)) / size
        return rng.permutation(np.searchsorted(np.cumsum(share) / share.sum(), points).clip(0, len(share) - 1))


def importance(log_target: np.ndarray, log_q: np.ndarray) -> Importance:
    """Weights of draws of q at which the log densities of the target and of q are known, each (M,).

    Where the target is not finite a draw has no weight.

    Examples
    --------
    A normal approximation that is a little too wide:

    >>> import numpy as np
    >>> from scipy.stats import norm
    >>> from bayesmix.psis import importance
    >>> x = norm(0, 1.2).rvs(4000, random_state=1)
    >>> found = importance(norm.logpdf(x), norm(0, 1.2).logpdf(x))
    >>> bool(found.pareto_k < 0.3), bool(abs(found.log_evidence) < 0.02)
    (True, True)
    """
    ratios = np.where(np.isfinite(log_target), log_target, -np.inf) - log_q
    inside = np.isfinite(ratios)
    log_weights = np.full(len(ratios), -np.inf)
    if not inside.any():
        return Importance(np.full(len(ratios), -np.log(len(ratios))), np.inf, -np.inf)
    highest = ratios[inside].max()
    log_evidence = highest + np.log(np.exp(ratios[inside] - highest).sum() / len(ratios))
    if np.ptp(ratios[inside]) < 1e-4:  # equal but for rounding: there is no tail to fit
        log_weights[inside], k = -np.log(inside.sum()), -np.inf
    else:
        from arviz_stats.base import array_stats  # slow to import

        smoothed: Any
        smoothed, k = array_stats.psislw(-ratios[inside])
        log_weights[inside] = smoothed - np.logaddexp.reduce(smoothed)
        if not k < LARGEST_K and _alike(np.exp(ratios - log_evidence)):
            k = -np.inf
    return Importance(log_weights, float(k) if not np.isnan(k) else np.inf, float(log_evidence))


def _alike(weights: np.ndarray) -> bool:
    """Whether weights (M,) of mean 1 are nearly equal, those of draws outside the support, 0, included."""
    return bool(weights.std() <= _ALIKE and weights.max() <= _LARGEST_ALIKE)


def normal_log_density(z: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Log density (M,) of N(m, F F^T) at m + F z, for z (M, d)."""
    dimension = z.shape[1]
    return -0.5 * (z**2).sum(1) - 0.5 * dimension * np.log(2 * np.pi) - np.linalg.slogdet(factor)[1]
