"""The multivariate normal family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.data import SHOWN
from bayesmix.distributions import InverseWishart, whitener
from bayesmix.errors import DataError
from bayesmix.families import _patterns
from bayesmix.families._contract import Leaf
from bayesmix.families._summaries import robust_center_and_scale
from bayesmix.params import COVARIANCE, REAL, Dim, Parameter, Shared, is_prior
from bayesmix.portraits import Traits, value
from bayesmix.spec import Encoded, Gap, NotLinear
from bayesmix.statistics import Products
from bayesmix.summaries import Labels, Quartiles, Summary

#: Coordinates up to which every correlation is told.
_FEW_COORDINATES = 3


@dataclass(frozen=True)
class Cloud:
    """Reference point and scale of each coordinate, the coordinates' names, and whether rows lack some of them."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    labels: tuple[str, ...]
    partly: bool = False


@dataclass(frozen=True)
class Coordinates(Summary):
    """The quartiles of each coordinate, the coordinates' names, and the rows that lack some of them."""

    labels: Labels
    coordinates: tuple[Quartiles, ...]
    n_rows: int
    lacking: int


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
    label the dim ``{field}_coordinate`` (and ``{field}_coordinate_bis`` for the matrix's columns). A row may lack
    some of its coordinates: they are integrated out, and imputed given the others.

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
    M-step: the conditional maxima of mu and of cov in turn until neither moves. A missing coordinate enters the
    statistics with its conditional mean, and with its conditional covariance (Little and Rubin 2019, section 11.2).

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
    partly_missing = True
    learned_type = Cloud

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        before = earlier.coordinates if earlier is not None else (None,) * column.values.shape[1]
        lacking = int(np.isnan(column.values[~column.missing]).any(1).sum())
        return Coordinates(
            Labels(column.levels or (), column.name),
            tuple(Quartiles.of(values, own) for values, own in zip(column.values.T, before)),
            len(column),
            lacking,
        )

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        if not summary.n_rows and self._dimension():
            return self._of_dimension()  # elements of sequences that are all empty
        labels = summary.labels.value
        empty = [label for label, values in zip(labels, summary.coordinates) if not values.n]
        if empty and summary.n_rows:
            raise DataError(
                f"{name}: every cell is missing in {', '.join(empty)}, so MvNormal has nothing to learn from. "
                "Leave the coordinate out."
            )
        center, scale = zip(*map(robust_center_and_scale, summary.coordinates))
        return Cloud(center, scale, labels, summary.lacking > 0)

    def assume(self, place):
        """See `Node.assume`."""
        return self._of_dimension()

    def _dimension(self):
        """Length of the vectors as the spec has it, by numbers or by the shape of a prior; None: it does not say."""
        for given, ndim in ((self.mu, 1), (self.cov, 2)):
            given = given.prior if isinstance(given, Shared) else given
            shape = given.type.shape if is_prior(given) else np.shape(given)
            if len(shape) >= ndim and shape[-1]:
                return shape[-1]
        return None

    def _of_dimension(self):
        dimension = self._dimension()
        labels = tuple(f"x{d + 1}" for d in range(dimension))
        return Cloud((0.0,) * dimension, (1.0,) * dimension, labels)

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

    def encode(self, site, table, unseen):
        """See `Node.encode`: columns by the names that the fitted ones had."""
        return super().encode(site, table.of_names(site.learned.labels, site.place.path or "data"), unseen)

    def encode_column(self, column, learned):
        """See `Leaf.encode_column`."""
        values, dimension = column.values, len(learned.center)
        if column.missing.all():  # how long the vectors would be is known from others
            values = np.full((len(column), dimension), np.nan)
        if values.shape[1] != dimension:
            raise DataError(
                f"{column.name}: vectors of {values.shape[1]} coordinates, where the fitted data had {dimension} "
                f"({', '.join(map(str, learned.labels[:SHOWN]))}{', …' if dimension > SHOWN else ''}). Pass those."
            )
        return {"value": values, "pattern": _patterns.pattern_codes(values)}

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
        """See `Leaf.log_density`."""
        return _patterns.log_density(data["value"], _grouped(data), params["mu"], params["cov"])

    def pymc_dist(self, params):
        """See `Leaf.pymc_dist`."""
        return pm.MvNormal.dist(params["mu"], cov=params["cov"])

    def graph(self, site, variables, observed, labels):
        """`Leaf.graph`; rows that lack some coordinates have a covariance of their own, which is slow."""
        if not site.learned.partly:
            return super().graph(site, variables, observed, labels)
        value = observed[site.place.observed]
        params = self._flat_variables(site, variables)
        mu, cov, dimension = params["mu"], params["cov"], len(site.learned.labels)
        missing = pt.isnan(value)[:, None, :]
        # a missing coordinate stands at the mean of a unit normal of its own, whose density is taken off again
        apart = missing[..., :, None] | missing[..., None, :]
        marginal = pt.switch(apart, np.eye(dimension), cov)
        filled = pt.switch(missing, mu, value[:, None, :])
        extra = 0.5 * np.log(2 * np.pi) * missing.sum(axis=-1)
        return pm.logp(pm.MvNormal.dist(mu=mu, cov=marginal), filled) + extra

    def row_statistics(self, data, learned):
        """One, the deviation from the reference point, and its products (the upper triangle, row by row)."""
        deviation = data["value"] - np.array(learned.center)
        rows, columns = np.triu_indices(deviation.shape[1])
        return {
            "n": np.broadcast_to(1.0, len(deviation)),
            "first": deviation,
            "second": Products(deviation, rows, columns),
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
        return self.expected_stats(None, data, resp, learned)

    def expected_stats(self, params, data, resp, learned):
        """See `Leaf.expected_stats`; a start takes the coordinates as independent."""
        center, scale = np.array(learned.center), np.array(learned.scale)
        if params is None:
            mu = np.broadcast_to(center, (resp.shape[1], len(center)))
            cov = np.broadcast_to(np.diag(scale**2), (resp.shape[1], len(center), len(center)))
            params = {"mu": mu, "cov": cov}
        return _patterns.suff_stats(data["value"], _grouped(data), resp, params["mu"], params["cov"], center)

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
                unknown = ~left.any((1, 2))  # no rows, and a flat prior
                left[unknown], right[unknown] = np.eye(len(center)), np.nan
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

    def plan(self, site, data, plan, into, level):
        """Vectors that lack coordinates have statistics that depend on the parameters."""
        if data.arrays["pattern"].any():
            raise NotLinear
        return super().plan(site, data, plan, into, level)

    def gaps(self, site, data):
        """Rows that lack some coordinates, or all of them."""
        rows, value = _incomplete(data)
        if len(rows):
            yield Gap(site.place.path, rows, site, coordinates=np.isnan(value))

    def impute(self, site, params, evaluation, data, z, rng, out):
        """See `Node.impute`: given the coordinates that are observed."""
        rows, value = _incomplete(data)
        if len(rows):
            mu, cov = (site.values(params)[name] for name in ("mu", "cov"))
            out[site.place.path] = _patterns.impute(value, _patterns.Patterns.of(value), z[rows], mu, cov, rng)

    def expect(self, site, params, evaluation, data, resp, out):
        """See `Node.expect`."""
        rows, value = _incomplete(data)
        if len(rows):
            mu, cov = (site.values(params)[name] for name in ("mu", "cov"))
            given = _patterns.conditional_means(value, _patterns.Patterns.of(value), mu, cov)
            means = np.einsum("nk,nkd->nd", resp[rows], given)
            out[site.place.path] = out.get(site.place.path, 0.0) + means

    def sample(self, params, z, rng):
        """See `Leaf.sample`."""
        factor = np.linalg.cholesky(params["cov"])[z]
        noise = rng.standard_normal((len(z), factor.shape[-1]))
        return params["mu"][z] + np.einsum("nij,nj->ni", factor, noise)

    def traits(self, params, learned):
        """See `Leaf.traits`."""
        sd = np.sqrt(np.diagonal(params["cov"], axis1=1, axis2=2))
        labels = learned.labels
        pairs = [(i, j) for i in range(len(labels)) for j in range(i)] if len(labels) <= _FEW_COORDINATES else []
        correlation = [params["cov"][:, i, j] / (sd[:, i] * sd[:, j]) for i, j in pairs]
        return [
            Traits("location", tuple(f"mean of {label}" for label in labels), params["mu"]),
            Traits("scale", tuple(f"standard deviation of {label}" for label in labels), sd),
            *[value(f"correlation of {labels[j]} and {labels[i]}", each) for (i, j), each in zip(pairs, correlation)],
        ]

    def mean(self, params):
        """See `Leaf.mean`."""
        return params["mu"]

    def embed(self, data, learned):
        """See `Leaf.embed`."""
        return (data["value"] - np.array(learned.center)) / np.array(learned.scale)


def _grouped(data) -> _patterns.Patterns:
    return _patterns.Patterns.of(data["value"], data["pattern"])


def _incomplete(data: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Rows that lack a coordinate, ascending, and their values with NaN for it, (n, D)."""
    whole, some = data.missing_rows(), np.flatnonzero(data.arrays["pattern"])
    partly = some if data.present is None else data.present[some]
    rows = np.concatenate([whole, partly])
    value = data.arrays["value"]
    value = np.vstack([np.full((len(whole), value.shape[1]), np.nan), value[some]])
    order = np.argsort(rows)
    return rows[order], value[order]


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
