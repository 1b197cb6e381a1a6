"""The distributions that PyMC lacks, against PyMC, scipy and finite differences."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from bayesmix.compilation import QuickFunction
from bayesmix.distributions import CholeskyCovariance, InverseWishart, LKJCovariance


def some_covariance(dimension: int) -> np.ndarray:
    factor = np.random.default_rng(dimension).normal(size=(dimension, dimension + 2))
    return factor @ factor.T / 3


@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_lkj_covariance_is_pymcs_lkj_cholesky_cov_said_of_the_matrix(dimension, eta):
    cov = some_covariance(dimension)
    factor = np.linalg.cholesky(cov)
    sd = pm.HalfNormal.dist(1.5, size=dimension)
    theirs = pm.LKJCholeskyCov.dist(n=dimension, eta=eta, sd_dist=sd, compute_corr=False)
    packed = factor[np.tril_indices(dimension)]
    # density of L to density of L L^T: 2^D prod L_ii^(D-i+1), i from 1 (Muirhead 1982, theorem 2.1.9)
    powers = np.arange(dimension, 0, -1)
    jacobian = dimension * np.log(2) + (powers * np.log(np.diagonal(factor))).sum()
    expected = QuickFunction([], pm.logp(theirs, packed))() - jacobian
    ours = LKJCovariance.of_cholesky(theirs)
    found = QuickFunction([], pm.logp(ours, pt.as_tensor(cov)))()
    assert float(found) == pytest.approx(float(expected), abs=1e-6)  # PyMC keeps 1.5 and 2.5 in single precision


def test_lkj_covariance_draws_have_uniform_correlations_at_eta_1():
    """In two dimensions LKJ(1) is uniform on (-1, 1)."""
    draws = LKJCovariance.rv_op.rng_fn(np.random.default_rng(0), 1.0, np.array([1.0, 2.0]), (4000,))
    assert stats.kstest(draws[:, 0, 1] / 2, "uniform", args=(-1, 2)).pvalue > 0.01
    np.testing.assert_allclose(draws[:, [0, 1], [0, 1]], [[1.0, 4.0]] * 4000)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_inverse_wishart_is_scipys(dimension):
    cov, psi, nu = some_covariance(dimension), some_covariance(dimension + 1)[:dimension, :dimension], dimension + 2.5
    found = QuickFunction([], pm.logp(InverseWishart.dist(nu, psi), pt.as_tensor(cov)))()
    assert float(found) == pytest.approx(stats.invwishart.logpdf(cov, nu, psi), abs=1e-9)
    draws = InverseWishart.rv_op.rng_fn(np.random.default_rng(1), nu + 8, psi, (20_000,))
    np.testing.assert_allclose(draws.mean(0), psi / (nu + 8 - dimension - 1), atol=0.03)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_jacobian_of_the_cholesky_transform_is_that_of_finite_differences(dimension):
    transform, size = CholeskyCovariance(dimension), dimension * (dimension + 1) // 2
    u = pt.vector("u", shape=(size,))
    back = QuickFunction([u], transform.backward(u)[np.tril_indices(dimension)])
    jacobian = QuickFunction([u], transform.log_jac_det(u))
    at = np.random.default_rng(dimension).normal(size=size) * 0.5
    step = 1e-6 * np.eye(size)
    matrix = np.array([(back(at + h) - back(at - h)) / 2e-6 for h in step])
    assert float(jacobian(at)) == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-7)
    forward = QuickFunction([u], transform.forward(transform.backward(u)))
    np.testing.assert_allclose(forward(at), at, atol=1e-10)


@pytest.mark.slow
def test_compiled_draws_of_an_inverse_wishart_are_scipys():
    """Samplers of the prior compile it: the draws' matrices have the moments, each entry its distribution."""
    nu, psi = 9.0, np.array([[2.0, 0.6], [0.6, 1.0]])
    draws = pm.draw(InverseWishart.dist(nu, psi), 4000, random_seed=1)
    np.testing.assert_allclose(draws, np.swapaxes(draws, 1, 2), rtol=1e-9)
    # a diagonal entry is inverse-gamma with shape (nu - D + 1) / 2
    for i in (0, 1):
        own = stats.invgamma((nu - 1) / 2, scale=psi[i, i] / 2)
        assert stats.kstest(draws[:, i, i], own.cdf).pvalue > 1e-3
    np.testing.assert_allclose(draws.mean(0), psi / (nu - 3), rtol=0.1)
