"""The multivariate normal family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm

from bayesmix import conjugate
from bayesmix.distributions import InverseWishart, whitener
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import robust_center_and_scale
from bayesmix.params import COVARIANCE, REAL, Dim, Parameter


@dataclass(frozen=True)
class Cloud:
    """Reference point and scale of each coordinate, and the coordinates' names."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    labels: tuple[str, ...]


@final
@dataclass(frozen=True, repr=False, eq=False)
class MvNormal(Leaf):
    r"""Vectors around a mean, correlated.

    .. math:: f(x \mid \mu, \Sigma) = (2\pi)^{-D/2} |\Sigma|^{-1/2}
              \exp\left(-\tfrac12 (x-\mu)^T \Sigma^{-1} (x-\mu)\right)

    ========  =========================================
    Support   real vectors of D coordinates
    Mean      :math:`\mu`
    Variance  :math:`\Sigma` (covariance matrix)
    ========  =========================================

    As the root's family it reads all columns of the table; as a field, a column of vectors. The coordinates
    label the dim ``{field}_coordinate`` (and ``{field}_coordinate_bis`` for the matrix's columns).

    Parameters
    ----------
    mu : prior, optional
        Mean, shape (D,). Default independent ``Normal(m_j, 2.5 s_j)``, with m_j the median of coordinate j and
        s_j its robust scale (interquartile range / 1.349).
    cov : prior, optional
        Covariance, shape (D, D). Default ``InverseWishart(D + 2, K^(-2/D) diag(s_j²))``, with K the number of
        components. NUTS moves through the Cholesky factor. ``pm.LKJCholeskyCov.dist(..., compute_corr=False)``
        is taken too: as the density that it implies for the covariance.

    Notes
    -----
    M-step: the conditional maxima of mu and of cov in turn until neither moves.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., section 3.6; Fraley and Raftery 2007, *Journal of
    Classification* 24, for the scale of the covariance's prior.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.MvNormal(), 2)
    Mixture(MvNormal(), 2)
    """

    mu: Any = None
    cov: Any = None

    value_ndim = 1
    learned_type = Cloud

    def learn_column(self, column):
        """See `Leaf.learn_column`."""
        pairs = [robust_center_and_scale(values) for values in column.values.T]
        center, scale = zip(*pairs)
        return Cloud(center, scale, column.levels)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        center, scale = np.array(learned.center), np.array(learned.scale)
        dimension = len(center)
        (across,) = self.value_dims(learned, prefix)
        down = Dim(f"{prefix}coordinate_bis", learned.labels)
        psi = np.diag(scale**2) * n_components ** (-2 / dimension)
        return {
            "mu": Parameter(REAL, pm.Normal.dist(center, 2.5 * scale), "normal", (across,)),
            "cov": Parameter(COVARIANCE, InverseWishart.dist(dimension + 2.0, psi), "inverse_wishart", (across, down)),
        }

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        return {"value": column.values}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values

    def value_dims(self, learned, prefix):
        """See `Leaf.value_dims`."""
        return (Dim(f"{prefix}coordinate", learned.labels),)

    def collapsed(self, params, learned):
        """See `Leaf.collapsed`."""
        scale = np.array(learned.scale)
        return np.linalg.eigvalsh(params["cov"] / (scale[:, None] * scale)).min(-1) < 1e-12

    def filler(self, learned):
        """See `Leaf.filler`."""
        return np.array(learned.center)

    def log_density(self, params, data):
        """One matrix product whitens the rows for all components."""
        value, mu = data["value"], params["mu"]
        n_components, dimension = mu.shape
        half, logdet = _whitener(params["cov"])
        middle = mu.mean(0)  # a common offset of rows and means would cost digits
        z = (value - middle) @ half.transpose(2, 0, 1).reshape(dimension, -1)
        z -= np.einsum("kij,kj->ki", half, mu - middle).ravel()
        z *= z
        squares = z.reshape(-1, n_components, dimension).sum(-1)
        return -0.5 * (squares + logdet + dimension * np.log(2 * np.pi))

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.MvNormal.dist(params["mu"], cov=params["cov"])

    def row_statistics(self, data, learned):
        """One, the deviation from the reference point, and its products (the upper triangle, row by row)."""
        deviation = data["value"] - np.array(learned.center)
        rows, columns = np.triu_indices(deviation.shape[1])
        return {
            "n": np.ones(len(deviation)),
            "first": deviation,
            "second": deviation[:, rows] * deviation[:, columns],
        }

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        center = np.array(learned.center) if isinstance(learned.center, tuple) else learned.center
        mu, cov = params["mu"] - center, params["cov"]
        dimension = len(learned.labels)
        rows, columns = np.triu_indices(dimension)
        half, logdet = _whitener(cov) if xp is np else whitener(cov)
        precision = (half[:, :, :, None] * half[:, :, None, :]).sum(1)
        whitened = (half * mu[:, None, :]).sum(-1)
        return {
            "n": -0.5 * (logdet + dimension * np.log(2 * np.pi) + (whitened**2).sum(-1)),
            "first": (precision * mu[:, None, :]).sum(-1),
            "second": -precision[:, rows, columns] * np.where(rows == columns, 0.5, 1.0),
        }

    def suff_stats(self, data, resp, learned):
        """Weight, sums, and sums of products, without the products of single rows."""
        deviation = data["value"] - np.array(learned.center)
        rows, columns = np.triu_indices(deviation.shape[1])
        second = np.array([((deviation * r[:, None]).T @ deviation)[rows, columns] for r in resp.T])
        return {"n": resp.sum(0), "first": resp.T @ deviation, "second": second.reshape(resp.shape[1], -1)}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        n, center = stats["n"], np.array(learned.center)
        scale = np.array(learned.scale)
        mean = stats["first"] / np.where(n > 0, n, 1)[:, None]
        second = _symmetric(stats["second"], len(center))
        about_mean = second - n[:, None, None] * mean[:, :, None] * mean[:, None, :]
        mu, cov = params["mu"] - center, params["cov"]
        for _ in range(25):
            before = mu, cov
            if "mu" in priors:
                prior = priors["mu"]
                precision = np.linalg.inv(cov)
                weight = n[:, None, None] * precision
                prior_precision = np.broadcast_to(prior.precision, mu.shape)
                right = prior.pool(np.einsum("kij,kj->ki", precision, stats["first"]))
                right = right + prior_precision * (prior.mean - center)
                left = prior.pool(weight) + prior_precision[:, :, None] * np.eye(len(center))
                mu = np.linalg.solve(left, right[..., None])[..., 0]
            if "cov" in priors:
                gap = mean - mu
                scatter = about_mean + n[:, None, None] * gap[:, :, None] * gap[:, None, :]
                cov = conjugate.covariance(priors["cov"], n, scatter)
            unit = scale[:, None] * scale
            moved = np.abs(mu - before[0]).max() / scale.min(), np.abs((cov - before[1]) / unit).max()
            if not max(moved) > 1e-13 or len(priors) < 2:
                break
        return {"mu": mu + center, "cov": cov}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        factor = np.linalg.cholesky(params["cov"])[z]
        noise = rng.standard_normal((len(z), factor.shape[-1]))
        return params["mu"][z] + np.einsum("nij,nj->ni", factor, noise)

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["mu"]

    def embed(self, data, learned):
        """See `Leaf.embed`."""
        return (data["value"] - np.array(learned.center)) / np.array(learned.scale)


def _symmetric(packed: np.ndarray, dimension: int) -> np.ndarray:
    """Symmetric matrices (K, D, D) from their upper triangles (K, D(D+1)/2)."""
    rows, columns = np.triu_indices(dimension)
    full = np.empty((len(packed), dimension, dimension))
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def _whitener(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`bayesmix.distributions.whitener` in numpy."""
    factor = np.linalg.cholesky(cov)
    return np.linalg.inv(factor), 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)
