"""The log-normal family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm

from bayesmix.data import numbers
from bayesmix.families import _gaussian
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import Location
from bayesmix.moments import normals
from bayesmix.params import POSITIVE, REAL, Parameter
from bayesmix.portraits import location, scale
from bayesmix.summaries import Quartiles


@final
@dataclass(frozen=True, repr=False, eq=False)
class LogNormal(Leaf):
    r"""Positive numbers whose logarithms are normal: sizes, durations, incomes.

    .. math:: f(x \mid \mu, \sigma) = \frac{1}{x\sigma\sqrt{2\pi}}
              \exp\left(-\frac{(\log x-\mu)^2}{2\sigma^2}\right)

    ========  ===================================================
    Support   real numbers > 0
    Mean      :math:`e^{\mu + \sigma^2/2}`
    Variance  :math:`(e^{\sigma^2} - 1)\, e^{2\mu + \sigma^2}`
    ========  ===================================================

    Parametrised by mean and standard deviation of the logarithm, as `pymc.LogNormal`.

    Parameters
    ----------
    mu : prior, optional
        Mean of log x. Default ``Normal(m, 2.5 s)``, with m the median of the column's logarithms and s their
        robust scale (interquartile range / 1.349; the standard deviation where that is zero; 1 in a constant
        column).
    sigma : prior, optional
        Standard deviation of log x, > 0. Default ``InverseGamma(2, 3 s/K)`` on sigma itself, whose mode is s/K
        with K the number of components: worth three observations, and zero at sigma = 0.

    Notes
    -----
    M-step: that of `Normal` on the logarithms. A zero is outside the support; for columns with zeros see
    `Exponential`.

    References
    ----------
    Johnson, Kotz and Balakrishnan 1994, *Continuous Univariate Distributions* 1, 2nd ed., chapter 14.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.LogNormal(), 2)
    Mixture(LogNormal(), 2)
    """

    mu: Any = None
    sigma: Any = None

    learned_type = Location

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        return Quartiles.of(np.log(numbers(column, "LogNormal", above=0)), earlier)

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        # the size of a logarithm is a matter of the unit: it does not serve as the scale of a constant column
        return Location.of(summary, constant=1.0)

    def assume(self, place):
        """See `Node.assume`."""
        return Location(0.0, 1.0)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        spread = learned.scale
        return {
            "mu": Parameter(REAL, pm.Normal.dist(learned.center, 2.5 * spread), "normal"),
            "sigma": Parameter(POSITIVE, pm.InverseGamma.dist(2.0, 3 * spread / n_components), "inverse_gamma"),
        }

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        value = numbers(column, "LogNormal", above=0)
        return {"value": value, "log": np.log(value)}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values

    def collapsed(self, params, learned):
        """See `Leaf.collapsed`."""
        return params["sigma"] < 1e-6 * learned.scale

    def filler(self, learned):
        """See `Leaf.filler`."""
        return np.exp(learned.center)

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        mu, sigma, log = params["mu"], params["sigma"], data["log"][:, None]
        z = (log - mu) / sigma
        with np.errstate(over="ignore"):  # so far away that the density is zero
            return -0.5 * z * z - (np.log(sigma) + 0.5 * np.log(2 * np.pi)) - log

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.LogNormal.dist(params["mu"], params["sigma"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return _gaussian.row_statistics(data["log"] - learned.center)

    def natural(self, params, learned, xp):
        """Those of the normal, and the Jacobian: -log x is the reference point and the deviation from it."""
        normal = _gaussian.natural(params["mu"] - learned.center, params["sigma"], xp)
        return {**normal, "n": normal["n"] - learned.center, "first": normal["first"] - 1}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return _gaussian.map_step(stats, priors, params, learned)

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return rng.lognormal(params["mu"][z], params["sigma"][z])

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        with np.errstate(over="ignore"):
            return [location("median", np.exp(params["mu"])), scale("typical factor about it", np.exp(params["sigma"]))]

    def mean(self, params):
        """See `Leaf.mean`."""
        with np.errstate(over="ignore"):
            return np.exp(params["mu"] + 0.5 * params["sigma"] ** 2)

    def moment_estimator(self, site, data, row_weights):
        """See `Leaf.moment_estimator`."""
        return normals.estimator_of(data["log"], site, row_weights)

    def embed(self, data, learned):
        """See `Leaf.embed`."""
        return ((data["log"] - learned.center) / learned.scale)[:, None]
