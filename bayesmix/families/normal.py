"""The normal family."""

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
class Normal(Leaf):
    r"""Real numbers around a mean.

    .. math:: f(x \mid \mu, \sigma) = \frac{1}{\sigma\sqrt{2\pi}} \exp\left(-\frac{(x-\mu)^2}{2\sigma^2}\right)

    ========  ===========================
    Support   real numbers
    Mean      :math:`\mu`
    Variance  :math:`\sigma^2`
    ========  ===========================

    Parametrised by the standard deviation, as `pymc.Normal`.

    Parameters
    ----------
    mu : prior, optional
        Mean. Default ``Normal(m, 2.5 s)``, with m the median of the column and s its robust scale
        (interquartile range / 1.349; the standard deviation where that is zero).
    sigma : prior, optional
        Standard deviation, > 0. Default ``InverseGamma(2, 3 s/K)`` on sigma itself, whose mode is s/K with K
        the number of components: worth three observations, and zero at sigma = 0, so that no component can
        collapse onto a point.

    Notes
    -----
    A prior is a PyMC distribution made with ``.dist()``, a number (fixed), or ``bm.Flat()``. M-step: the two
    conditional maxima in turn until neither moves (their joint mode has no closed form because mu and sigma
    are independent a priori).

    References
    ----------
    Gelman et al. 2013, *Bayesian Data Analysis*, 3rd ed., appendix A; Chan, Golub and LeVeque 1983,
    *The American Statistician* 37, for sums about a reference point.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Normal(sigma=1.0), 2)
    Mixture(Normal(sigma=1), 2)
    """

    mu: Any = None
    sigma: Any = None

    learned_type = Location

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        return Quartiles.of(numbers(column, "Normal"), earlier)

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Location.of(summary)

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
        return {"value": numbers(column, "Normal")}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values

    def collapsed(self, params, learned):
        """See `Leaf.collapsed`."""
        return params["sigma"] < 1e-6 * learned.scale

    def filler(self, learned):
        """See `Leaf.filler`."""
        return learned.center

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        mu, sigma = params["mu"], params["sigma"]
        z = (data["value"][:, None] - mu) / sigma
        with np.errstate(over="ignore"):  # so far away that the density is zero
            return -0.5 * z * z - (np.log(sigma) + 0.5 * np.log(2 * np.pi))

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Normal.dist(params["mu"], params["sigma"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return _gaussian.row_statistics(data["value"] - learned.center)

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        return _gaussian.natural(params["mu"] - learned.center, params["sigma"], xp)

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return _gaussian.map_step(stats, priors, params, learned)

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return rng.normal(params["mu"][z], params["sigma"][z])

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        return [location("mean", params["mu"]), scale("standard deviation", params["sigma"])]

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["mu"]

    def moment_estimator(self, site, data, row_weights):
        """See `Leaf.moment_estimator`."""
        return normals.estimator_of(data["value"], site, row_weights)

    def embed(self, data, learned):
        """See `Leaf.embed`."""
        return ((data["value"] - learned.center) / learned.scale)[:, None]
