"""What estimators from moments have in common: the contract, Newton's polish, the delta method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True)
class Solution:
    """One admissible answer.

    Attributes
    ----------
    theta : ndarray, shape (P,)
        The estimator's own coordinates of the mixture.
    exact : bool
        Whether it reproduces the moments. If not, the sample's moments are those of no mixture of this kind, and
        it is the answer for the nearest ones that are.
    """

    theta: np.ndarray
    exact: bool = True


class Estimator(ABC):
    """Estimates a mixture of one family from the means of some statistics of its rows.

    The first P moments determine the P coordinates ``theta``; one more is there to compare by. What takes
    ``theta`` also takes complex numbers, by which it is differentiated without loss of digits.

    Attributes
    ----------
    statistics : ndarray, shape (N, P + 1)
        Of each row; their means are the moments.
    units : ndarray, shape (P + 1,)
        What the moments are multiplied by to have the data's units.
    """

    statistics: np.ndarray
    units: np.ndarray

    @abstractmethod
    def solve(self, moments: np.ndarray, covariance: np.ndarray) -> list[Solution]:
        """Every admissible answer to moments (P + 1,), best first; `covariance` is that of the statistics.

        Raises `MomentsError` where there is none.
        """

    @abstractmethod
    def moments(self, theta: np.ndarray) -> np.ndarray:
        """Moments (P + 1,) of the mixture at `theta`."""

    @abstractmethod
    def named(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """``weights`` and the family's parameters by name, (K,) each, in the data's units."""

    def standard_errors(self, theta: np.ndarray, covariance: np.ndarray, n: float) -> dict[str, np.ndarray]:
        r"""Standard errors of `named` by the delta method, (K,) each.

        With J the derivative of the moments in theta and D that of the parameters, the estimate's covariance
        is :math:`D J^{-1} \Sigma J^{-T} D^T / n`: implicit differentiation of "the moments agree".

        Parameters
        ----------
        theta : ndarray, shape (P,)
        covariance : ndarray, shape (P + 1, P + 1)
            Of the statistics.
        n : float
            Rows, or their total weight.
        """
        size = len(theta)
        inverse = np.linalg.inv(derivative(self.moments, theta)[:size])
        spread = inverse @ covariance[:size, :size] @ inverse.T / n
        names = list(self.named(theta))
        each = derivative(lambda t: np.concatenate([self.named(t)[name] for name in names]), theta)
        variance = np.einsum("ij,jk,ik->i", each, spread, each)
        return dict(zip(names, np.sqrt(np.maximum(variance, 0)).reshape(len(names), -1)))


def derivative(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Jacobian (M, P) of an analytic function by complex steps, which do not cancel (Squire and Trapp 1998)."""
    step = 1e-30
    return np.stack([function(at + 1j * step * unit).imag for unit in np.eye(len(at))], axis=1) / step


def polish(
    function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, float]:
    """Solve ``function(theta) = target`` by Newton's method with halved steps, from nearby.

    Parameters
    ----------
    function : callable
        Analytic, from (P,) to (P,).
    theta, target : ndarray, shape (P,)

    Returns
    -------
    theta : ndarray, shape (P,)
    residual : float
        Largest that is left, relative to the target (to 1 where that is smaller).
    """
    size = np.maximum(1.0, np.abs(target))

    def residual(at):
        return (function(at) - target) / size

    left = residual(theta)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(30):
            slope = derivative(function, theta) / size[:, None]
            if not np.isfinite(slope).all():
                break
            step = np.linalg.lstsq(slope, -left, rcond=None)[0]
            for shrink in 0.5 ** np.arange(12):
                tried = residual(theta + shrink * step)
                if np.linalg.norm(tried) < np.linalg.norm(left):
                    break
            else:
                break
            theta, left = theta + shrink * step, tried
    return theta, float(np.abs(left).max())


def about(moments: np.ndarray, center: float, scale: float) -> np.ndarray:
    """Raw moments of ``(x - center) / scale`` from those of x, orders 1 to R each."""
    raw = np.concatenate([[1.0], moments])
    orders = range(1, len(raw))
    return np.array([sum(comb(r, j) * raw[j] * (-center) ** (r - j) for j in range(r + 1)) / scale**r for r in orders])
