"""Distributions that PyMC lacks and the default priors need, and the transform of covariance matrices."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.distribution import Continuous
from pymc.distributions.shape_utils import change_dist_size
from pymc.distributions.transforms import simplex
from pymc.logprob.transforms import Transform
from pytensor.assumptions import assume
from pytensor.link.numba.dispatch import basic as numba_basic
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.random.op import RandomVariable


class CholeskyCovariance(Transform):
    r"""Covariance matrices from unconstrained vectors, through the Cholesky factor.

    A value of shape ``(..., D(D+1)/2)`` holds the lower triangle of :math:`L` row by row, its diagonal as
    logarithms; the matrix, of shape ``(..., D, D)``, is :math:`\Sigma = L L^T`. With :math:`u` the vector,

    .. math:: |\partial \Sigma/\partial u| = 2^D \prod_{i=1}^{D} L_{ii}^{D-i+2}

    (Muirhead 1982, *Aspects of Multivariate Statistical Theory*, theorem 2.1.9, times the exponentials).
    """

    name = "cholesky"
    ndim_supp = 2

    def __init__(self, dimension: int):
        self.dimension = dimension
        self._rows, self._columns = np.tril_indices(dimension)
        self._diagonal = np.flatnonzero(self._rows == self._columns)

    def forward(self, value, *inputs):
        """Matrix to vector."""
        packed = pt.linalg.cholesky(value)[..., self._rows, self._columns]
        return pt.set_subtensor(packed[..., self._diagonal], pt.log(packed[..., self._diagonal]))

    def backward(self, value, *inputs):
        """Vector to matrix."""
        packed = pt.set_subtensor(value[..., self._diagonal], pt.exp(value[..., self._diagonal]))
        batch = [value.shape[axis] for axis in range(value.ndim - 1)]
        zeros = pt.zeros([*batch, self.dimension, self.dimension])
        factor = assume(pt.set_subtensor(zeros[..., self._rows, self._columns], packed), lower_triangular=True)
        return factor @ factor.mT

    def log_jac_det(self, value, *inputs):
        """Logarithm of the Jacobian determinant, one for each matrix."""
        powers = self.dimension - np.arange(self.dimension) + 1.0
        return (value[..., self._diagonal] * powers).sum(axis=-1) + self.dimension * np.log(2.0)


class FlooredSimplex(Transform):
    """Probabilities none of which is below a floor, from unconstrained vectors.

    ``p = floor + (1 - G floor) q`` with `q` on the simplex of G entries, and PyMC's simplex transform for `q`.
    """

    name = "floored_simplex"
    ndim_supp = 1

    def __init__(self, floor: float):
        self.floor = floor

    def _room(self, size):
        return 1 - size * self.floor

    def forward(self, value, *inputs):
        """Probabilities (..., G) to a vector (..., G - 1)."""
        return simplex.forward((value - self.floor) / self._room(value.shape[-1]), *inputs)

    def backward(self, value, *inputs):
        """Vector to probabilities."""
        q = simplex.backward(value, *inputs)
        return self.floor + self._room(q.shape[-1]) * q

    def log_jac_det(self, value, *inputs):
        """Logarithm of the Jacobian determinant, one for each vector."""
        free = value.shape[-1]
        return simplex.log_jac_det(value, *inputs) + free * pt.log(self._room(free + 1))


class InverseWishartRV(RandomVariable):
    """Random generation of inverse-Wishart matrices by Bartlett's decomposition."""

    name = "inverse_wishart"
    signature = "(),(d,d)->(d,d)"
    dtype = "floatX"
    _print_name = ("InverseWishart", "\\operatorname{InverseWishart}")

    @classmethod
    def rng_fn(cls, rng, nu, psi, size):
        """Draws of shape ``size + (D, D)``."""
        batch = np.broadcast_shapes(np.shape(nu), np.shape(psi)[:-2]) if size is None else tuple(size)
        dimension = psi.shape[-1]
        degrees = np.broadcast_to(nu, batch)[..., None] - np.arange(dimension)
        bartlett = np.tril(rng.standard_normal((*batch, dimension, dimension)), -1)
        diagonal = np.arange(dimension)
        bartlett[..., diagonal, diagonal] = np.sqrt(rng.chisquare(degrees))
        # (A A^T)^-1 is a standard inverse-Wishart draw when A is Bartlett's factor of a Wishart draw
        factor = np.linalg.cholesky(psi) @ np.swapaxes(np.linalg.inv(bartlett), -1, -2)
        return factor @ np.swapaxes(factor, -1, -2)


@numba_core_rv_funcify.register(InverseWishartRV)
def _numba_inverse_wishart(op, node):
    @numba_basic.numba_njit
    def draw(rng, nu, psi):
        dimension = psi.shape[0]
        bartlett = np.zeros((dimension, dimension))
        for i in range(dimension):
            bartlett[i, i] = np.sqrt(rng.chisquare(nu - i))
            for j in range(i):
                bartlett[i, j] = rng.standard_normal()
        factor = np.linalg.cholesky(psi) @ np.linalg.inv(bartlett).T
        return factor @ factor.T

    return draw


class InverseWishart(Continuous):
    r"""Inverse-Wishart distribution over covariance matrices.

    .. math:: f(\Sigma \mid \nu, \Psi) = \frac{|\Psi|^{\nu/2}}{2^{\nu D/2}\,\Gamma_D(\nu/2)}
              |\Sigma|^{-(\nu+D+1)/2} \exp\left(-\tfrac12 \operatorname{tr}(\Psi\Sigma^{-1})\right)

    ======== ==================================
    Support  positive definite D×D matrices
    Mean     Psi / (nu - D - 1), for nu > D + 1
    Mode     Psi / (nu + D + 1)
    ======== ==================================

    NUTS moves through the Cholesky factor (`CholeskyCovariance`).

    Parameters
    ----------
    nu : tensor_like of float
        Degrees of freedom, > D - 1.
    psi : tensor_like of float, shape (..., D, D)
        Scale matrix, positive definite.

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., appendix A.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> prior = bm.InverseWishart.dist(nu=5.0, psi=np.eye(2))
    >>> spec = bm.Mixture(bm.MvNormal(cov=prior), 3)
    """

    rv_op = InverseWishartRV()

    @classmethod
    def dist(cls, nu, psi, **kwargs):
        """Make the distribution outside a model."""
        return super().dist([pt.as_tensor(np.float64(nu) if np.isscalar(nu) else nu), pt.as_tensor(psi)], **kwargs)

    def support_point(rv, size, nu, psi):
        """The mode."""
        mode = psi / (nu + psi.shape[-1] + 1)[..., None, None]
        return pt.broadcast_to(mode, rv.shape)

    def logp(value, nu, psi):
        """Log density, one for each matrix."""
        dimension = psi.shape[-1]
        half, logdet = whitener(value)
        precision = (half[..., :, :, None] * half[..., :, None, :]).sum(-3)
        trace = (psi * precision).sum((-1, -2))
        log_gamma = 0.25 * dimension * (dimension - 1) * np.log(np.pi) + pt.gammaln(
            0.5 * (nu[..., None] - pt.arange(dimension))
        ).sum(-1)
        return (
            0.5 * nu * _log_det(pt.linalg.cholesky(psi))
            - 0.5 * nu * dimension * np.log(2.0)
            - log_gamma
            - 0.5 * (nu + dimension + 1) * logdet
            - 0.5 * trace
        )


class LKJCovarianceRV(RandomVariable):
    """Random generation of covariance matrices: an LKJ correlation matrix with given standard deviations."""

    name = "lkj_covariance"
    signature = "(),(d)->(d,d)"
    dtype = "floatX"
    _print_name = ("LKJCovariance", "\\operatorname{LKJCovariance}")

    @classmethod
    def rng_fn(cls, rng, eta, sd, size):
        """Draws of shape ``size + (D, D)``, by the canonical vine."""
        batch = np.broadcast_shapes(np.shape(eta), np.shape(sd)[:-1]) if size is None else tuple(size)
        dimension = np.shape(sd)[-1]
        factor = np.zeros((*batch, dimension, dimension))
        left = np.ones((*batch, dimension))  # squared length still to be given out, row by row
        for k in range(dimension):
            factor[..., k, k] = np.sqrt(left[..., k])
            shape = np.broadcast_to(eta, batch)[..., None] + 0.5 * (dimension - 2 - k)
            partial = 2 * rng.beta(np.maximum(shape, 1e-3), np.maximum(shape, 1e-3), (*batch, dimension - k - 1)) - 1
            factor[..., k + 1 :, k] = partial * np.sqrt(left[..., k + 1 :])
            left[..., k + 1 :] *= 1 - partial**2
        scaled = np.broadcast_to(sd, (*batch, dimension))[..., None] * factor
        return scaled @ np.swapaxes(scaled, -1, -2)


class LKJCovariance(Continuous):
    r"""Covariance matrices with an LKJ prior on the correlations and any prior on the standard deviations.

    With :math:`\Sigma_{ij} = R_{ij} \sigma_i \sigma_j`,

    .. math:: f(\Sigma) = \mathrm{LKJ}(R \mid \eta) \prod_i f(\sigma_i) \; \Big/ \; 2^D \prod_i \sigma_i^D

    the last factor being the Jacobian. It is what `pymc.LKJCholeskyCov` puts on its Cholesky factor, said of the
    covariance matrix, and for any number of components at once (PyMC's takes one matrix).

    References
    ----------
    Lewandowski, Kurowicka and Joe 2009, *Journal of Multivariate Analysis* 100.
    """

    rv_op = LKJCovarianceRV()

    @classmethod
    def of_cholesky(cls, rv):
        """From a ``pymc.LKJCholeskyCov.dist(...)``."""
        _, _, eta, sd = rv.owner.inputs[:4]
        return cls.dist(eta, sd)

    @classmethod
    def dist(cls, eta, sd, **kwargs):
        """`sd` is a distribution of shape (D,)."""
        return super().dist([pt.as_tensor(eta), pt.as_tensor(sd)], **kwargs)

    def support_point(rv, size, eta, sd):
        """The identity."""
        return pt.broadcast_to(pt.eye(rv.shape[-1]), rv.shape)

    def logp(value, eta, sd):
        """Log density, one for each matrix."""
        dimension = value.type.shape[-1]
        variance = pt.diagonal(value, axis1=-2, axis2=-1)
        batch = [value.shape[axis] for axis in range(value.ndim - 2)]
        while sd.owner is not None and isinstance(sd.owner.op, DimShuffle):
            sd = sd.owner.inputs[0]  # PyTensor adds the components' axes; the distribution is underneath
        log_sd = pm.logp(change_dist_size(sd, [*batch, dimension]), pt.sqrt(variance)).sum(-1)
        _, logdet = whitener(value)
        below = np.arange(dimension - 1, 0, -1)
        log_beta = 2 * pt.gammaln(eta[..., None] + (below - 1) / 2) - pt.gammaln(2 * eta[..., None] + below - 1)
        constant = ((2 * eta[..., None] - 2 + below) * below * np.log(2.0) + below * log_beta).sum(-1)
        log_correlations = (eta - 1) * (logdet - pt.log(variance).sum(-1)) - constant
        return log_correlations + log_sd - dimension * (np.log(2.0) + 0.5 * pt.log(variance).sum(-1))


class FlatCovarianceRV(RandomVariable):
    """The improper distribution that is constant over positive definite matrices."""

    name = "flat_covariance"
    signature = "(d,d)->(d,d)"
    dtype = "floatX"
    _print_name = ("FlatCovariance", "\\operatorname{FlatCovariance}")

    @classmethod
    def rng_fn(cls, rng, scale, size):
        """An improper distribution cannot be drawn from."""
        raise NotImplementedError("A flat prior is improper and has no draws; give the parameter a proper prior.")


class FlatCovariance(Continuous):
    """Improper flat prior over positive definite matrices; `scale` (D, D) only sets where searches start."""

    rv_op = FlatCovarianceRV()

    @classmethod
    def dist(cls, scale, **kwargs):
        """Make the distribution outside a model."""
        return super().dist([pt.as_tensor(scale)], **kwargs)

    def support_point(rv, size, scale):
        """The scale given."""
        return pt.broadcast_to(scale, rv.shape)

    def logp(value, scale):
        """Zero for each matrix."""
        return pt.zeros_like(value[..., 0, 0])


def _log_det(factor):
    """Log-determinant of ``factor @ factor.T`` for a lower-triangular factor (..., D, D)."""
    return 2 * pt.log(pt.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def whitener(cov):
    """Inverse of the lower Cholesky factor, and the log-determinant, of covariance matrices (..., D, D).

    One triangular solve, the same wherever it is asked for, so that a graph holds it once.
    """
    factor = pt.linalg.cholesky(cov)
    batch = [cov.shape[axis] for axis in range(cov.ndim - 2)]
    dimension = cov.type.shape[-1] if cov.type.shape[-1] is not None else cov.shape[-1]
    identity = pt.broadcast_to(pt.eye(dimension), [*batch, dimension, dimension])
    return pt.linalg.solve_triangular(factor, identity, lower=True), _log_det(factor)
