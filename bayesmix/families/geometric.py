"""The geometric family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm
from scipy.special import xlog1py

from bayesmix import conjugate
from bayesmix.data import numbers
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import Rate, safe_log, safe_log_rest
from bayesmix.moments import mixing
from bayesmix.params import UNIT, Parameter
from bayesmix.portraits import scale
from bayesmix.summaries import Sums


@final
@dataclass(frozen=True, repr=False, eq=False)
class Geometric(Leaf):
    r"""Number of trials up to and with the first success.

    .. math:: f(x \mid p) = p\,(1-p)^{x-1}

    ========  ======================
    Support   1, 2, 3, …
    Mean      :math:`1/p`
    Variance  :math:`(1-p)/p^2`
    ========  ======================

    Starts at 1, as `pymc.Geometric`. For the number of failures, which starts at 0, add 1 to the column.

    Parameters
    ----------
    p : prior, optional
        Probability of success at a trial. Default ``Beta(3, 1 + 2 (m - 1))``, with m the mean of the column
        (half a success in one trial is added, so that a column of ones has m > 1): its mode is 1/m, its
        weight two observations, and it is zero at p = 0 and p = 1.

    Notes
    -----
    M-step: ``p = (Σ r + alpha - 1) / (Σ r x + alpha + beta - 2)`` under a ``Beta(alpha, beta)`` prior.

    References
    ----------
    Johnson, Kemp and Kotz 2005, *Univariate Discrete Distributions*, 3rd ed., section 5.2.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Geometric(), 2)
    Mixture(Geometric(), 2)
    """

    p: Any = None

    value_dtype = "int64"
    value_kind = "count"
    learned_type = Rate

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        trials = numbers(column, "Geometric", whole=True, minimum=1)[~column.missing]
        return Sums(len(trials), trials.sum())

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        return Rate(float((summary.total + 1.0) / (summary.n + 0.5)))

    def assume(self, place):
        """See `Node.assume`."""
        return Rate(2.0)

    def parameters(self, learned, prefix, n_components):
        """See `Leaf.parameters`."""
        # in double precision: PyMC would keep the Python float 3.0 in single
        prior = pm.Beta.dist(np.float64(3.0), 1 + 2 * (learned.mean - 1))
        return {"p": Parameter(UNIT, prior, "beta")}

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        return {"value": numbers(column, "Geometric", whole=True, minimum=1)}

    def decode(self, values, learned):
        """See `Leaf.decode`."""
        return values.astype(np.int64)

    def log_density(self, params, data):
        """See `Leaf.log_density`."""
        with np.errstate(divide="ignore"):
            return xlog1py(data["value"][:, None] - 1, -params["p"]) + np.log(params["p"])

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.Geometric.dist(params["p"])

    def row_statistics(self, data, learned):
        """See `Leaf.row_statistics`."""
        return {"n": np.broadcast_to(1.0, len(data["value"])), "failures": data["value"] - 1}

    def natural(self, params, learned, xp):
        """See `Leaf.natural`."""
        p = params["p"]
        return {"n": safe_log(p, xp), "failures": safe_log_rest(p, xp)}

    def map_step(self, stats, priors, params, learned):
        """See `Leaf.map_step`."""
        return {"p": conjugate.probability(priors["p"], stats["n"], stats["n"] + stats["failures"])}

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        return rng.geometric(params["p"][z])

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        return [scale("mean", 1 / params["p"])]

    def mean(self, params):
        """See `Leaf.mean`."""
        return 1 / params["p"]

    def moment_estimator(self, site, data, row_weights):
        """See `Leaf.moment_estimator`."""
        return mixing.of_geometric(data["value"], site, row_weights)

    def embed(self, data, learned):
        """Logarithms: a component with small p has the same spread whatever its p."""
        return np.log(data["value"])[:, None]
