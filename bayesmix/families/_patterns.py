"""Normal vectors of which some coordinates are missing: densities, statistics and draws, pattern by pattern.

Rows that lack the same coordinates share their linear algebra. Within such a pattern, *o* are the coordinates that
are observed and *m* those that are missing; for each component

    x_m | x_o ~ Normal(mu_m + B (x_o - mu_o), C),   B = Σ_mo Σ_oo⁻¹,   C = Σ_mm - B Σ_om.

One Cholesky factor of Σ, its coordinates in the order o, m, holds all of it: with blocks L_oo, L_mo and L_mm,
Σ_oo = L_oo L_ooᵀ, B = L_mo L_oo⁻¹ and C = L_mm L_mmᵀ, which is positive whatever the rounding.

References
----------
Little and Rubin 2019, *Statistical Analysis with Missing Data*, 3rd ed., section 11.2; Ghahramani and Jordan 1994,
*Supervised learning from incomplete data via an EM approach*, for mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Rows whose products are summed at once.
_AT_ONCE = 2**12


@dataclass(frozen=True)
class Pattern:
    """Rows that have the same coordinates.

    Attributes
    ----------
    rows : ndarray of int or slice, shape (n,)
        ``slice(None)`` where all rows have this pattern.
    observed, missing : ndarray of int, shapes (O,) and (M,)
        Coordinates, ascending; O + M = D.
    """

    rows: np.ndarray | slice
    observed: np.ndarray
    missing: np.ndarray

    def seen(self, value: np.ndarray) -> np.ndarray:
        """The observed part of the pattern's rows, (n, O); not a copy where it is everything."""
        part = value[self.rows]
        return part[:, self.observed] if len(self.missing) else part


@dataclass(frozen=True)
class Patterns:
    """The patterns of a table of vectors; each row is in one of them.

    Attributes
    ----------
    groups : tuple of Pattern
    """

    groups: tuple[Pattern, ...]

    @classmethod
    def of(cls, value: np.ndarray, codes: np.ndarray | None = None) -> Patterns:
        """Group rows by the coordinates that are NaN.

        Parameters
        ----------
        value : ndarray, shape (N, D)
        codes : ndarray of int, shape (N,), optional
            What `pattern_codes` gave for these rows (or for a table that they were taken from): saves finding the
            patterns again.
        """
        codes = pattern_codes(value) if codes is None else codes
        if not codes.any():
            return cls((Pattern(slice(None), np.arange(value.shape[1]), np.empty(0, int)),))
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        groups = []
        for rows in np.split(order, starts[1:]):
            gone = np.isnan(value[rows[0]])
            groups.append(Pattern(rows, np.flatnonzero(~gone), np.flatnonzero(gone)))
        return cls(tuple(groups))

    @property
    def complete(self) -> bool:
        """Whether no coordinate is missing."""
        return all(not len(group.missing) for group in self.groups)


def pattern_codes(value: np.ndarray) -> np.ndarray:
    """A number for each row's pattern of NaN, shape (N,); 0 is the row without any.

    The codes stand with the rows: whatever rows are taken, `Patterns.of` groups them without another search.
    """
    gone = np.isnan(value)
    codes = np.zeros(len(value), np.int64)
    some = gone.any(1)
    if some.any():
        codes[some] = 1 + np.unique(gone[some], axis=0, return_inverse=True)[1].ravel()
    return codes


def log_density(value: np.ndarray, patterns: Patterns, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log density of what is observed of each row, the missing coordinates integrated out.

    Parameters
    ----------
    value : ndarray, shape (N, D)
        NaN where missing.
    patterns : Patterns
    mu : ndarray, shape (K, D)
    cov : ndarray, shape (K, D, D)

    Returns
    -------
    ndarray, shape (N, K)
        Zero for a row without any coordinate.

    Raises
    ------
    numpy.linalg.LinAlgError
        A covariance that is not positive definite.
    """
    found = np.empty((len(value), len(mu)))
    for group in patterns.groups:
        o = group.observed
        found[group.rows] = _whole_log_density(group.seen(value), mu[:, o], cov[:, o[:, None], o])
    return found


def suff_stats(
    value: np.ndarray, patterns: Patterns, resp: np.ndarray, mu: np.ndarray, cov: np.ndarray, center: np.ndarray
) -> dict[str, np.ndarray]:
    """Expected statistics of the completed rows, given what is observed of them and the parameters.

    A missing coordinate enters with its conditional mean, and its products with their conditional covariance too:
    with the means alone the M-step's covariance would be too small. The completed row is linear in its observed part,
    so the sums over rows are those of the observed parts, and the rest is arithmetic with (K, D, D) arrays.

    Parameters
    ----------
    value : ndarray, shape (N, D)
        NaN where missing.
    patterns : Patterns
    resp : ndarray, shape (N, K)
    mu : ndarray, shape (K, D)
    cov : ndarray, shape (K, D, D)
    center : ndarray, shape (D,)
        Reference point of the sums.

    Returns
    -------
    dict
        ``n`` (K,), ``first`` (K, D), and ``second`` (K, D(D+1)/2), the upper triangle row by row. They add up over any
        split of the rows (at one value of the parameters).
    """
    n_components, dimension = mu.shape
    first = np.zeros((n_components, dimension))
    second = np.zeros((n_components, dimension, dimension))
    for group in patterns.groups:
        o, m = group.observed, group.missing
        weights, deviation = resp[group.rows], group.seen(value) - center[o]
        n = weights.sum(0)
        sums = weights.T @ deviation
        products = np.zeros((n_components, len(o), len(o)))
        for at in range(0, len(deviation), _AT_ONCE):
            part, own = deviation[at : at + _AT_ONCE], weights[at : at + _AT_ONCE]
            for k in range(n_components):
                products[k] += (part * own[:, k, None]).T @ part
        first[:, o] += sums
        second[:, o[:, None], o] += products
        if not len(m):
            continue
        # a completed deviation is base + slope @ observed deviation
        slope, factor = _conditional(cov, group)
        base = mu[:, m] - center[m] - _times(slope, mu[:, o] - center[o])
        moved = _times(slope, sums)
        cross = base[:, :, None] * sums[:, None, :] + slope @ products  # Σ r d_m d_oᵀ
        mixed = moved[:, :, None] * base[:, None, :]
        both = n[:, None, None] * (base[:, :, None] * base[:, None, :] + factor @ factor.swapaxes(1, 2))
        both += mixed + mixed.swapaxes(1, 2) + slope @ products @ slope.swapaxes(1, 2)
        first[:, m] += n[:, None] * base + moved
        second[:, m[:, None], o] += cross
        second[:, o[:, None], m] += cross.swapaxes(1, 2)
        second[:, m[:, None], m] += both
    rows, columns = np.triu_indices(dimension)
    return {"n": resp.sum(0), "first": first, "second": second[:, rows, columns]}


def impute(
    value: np.ndarray, patterns: Patterns, z: np.ndarray, mu: np.ndarray, cov: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the missing coordinates from component ``z[n]``, given the observed ones.

    Parameters
    ----------
    value : ndarray, shape (N, D)
        NaN where missing.
    patterns : Patterns
    z : ndarray of int, shape (N,)
    mu : ndarray, shape (K, D)
    cov : ndarray, shape (K, D, D)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (N, D)
        A copy, whole. A row's draw does not depend on how the rows are grouped.
    """
    noise = rng.standard_normal(value.shape)
    whole = value.copy()
    for group in patterns.groups:
        o, m = group.observed, group.missing
        if not len(m):
            continue
        rows = np.arange(len(value))[group.rows]
        slope, factor = _conditional(cov, group)
        for k in np.unique(z[rows]):
            own = rows[z[rows] == k]
            given = value[np.ix_(own, o)] - mu[k, o]
            whole[np.ix_(own, m)] = mu[k, m] + given @ slope[k].T + noise[np.ix_(own, m)] @ factor[k].T
    return whole


def conditional_means(value: np.ndarray, patterns: Patterns, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Each row completed by its conditional mean under each component: (N, K, D)."""
    found = np.broadcast_to(value[:, None, :], (len(value), *mu.shape)).copy()
    for group in patterns.groups:
        o, m = group.observed, group.missing
        if not len(m):
            continue
        slope, _ = _conditional(cov, group)
        deviation = group.seen(value)[:, None, :] - mu[:, o]
        rows = np.arange(len(value))[group.rows]
        found[np.ix_(rows, np.arange(len(mu)), m)] = mu[:, m] + np.einsum("kmo,nko->nkm", slope, deviation)
    return found


def _conditional(cov: np.ndarray, group: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """B (K, M, O), and a factor (K, M, M) of C, of the module's docstring."""
    order = np.concatenate([group.observed, group.missing])
    size = len(group.observed)
    factor = np.linalg.cholesky(cov[:, order[:, None], order])
    lower = factor[:, size:, :size]
    slope = np.linalg.solve(factor[:, :size, :size].swapaxes(1, 2), lower.swapaxes(1, 2)).swapaxes(1, 2)
    return slope, factor[:, size:, size:]


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Matrices (K, I, J) times vectors (K, J)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _whole_log_density(value: np.ndarray, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log density (N, K) of rows without missing coordinates: one matrix product whitens them for all components."""
    n_components, dimension = mu.shape
    factor = np.linalg.cholesky(cov)
    half = np.linalg.inv(factor)
    logdet = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)
    middle = mu.mean(0)  # a common offset of rows and means would cost digits
    z = (value - middle) @ half.transpose(2, 0, 1).reshape(dimension, n_components * dimension)
    z -= np.einsum("kij,kj->ki", half, mu - middle).ravel()
    z *= z
    squares = z.reshape(len(value), n_components, dimension).sum(-1)
    return -0.5 * (squares + logdet + dimension * np.log(2 * np.pi))
