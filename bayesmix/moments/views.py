r"""Conditional means of fields that are independent given the component, from their cross moments.

Split the fields into three groups with statistics a, b, c (the constant 1 among a and b). Given the component they
are independent, so with A, B the matrices of conditional means, w the weights and :math:`C_t` the means of
one statistic t of c,

.. math::

    E[a b^T] = A \,\mathrm{diag}(w)\, B^T, \qquad E[a b^T t] = A \,\mathrm{diag}(w \circ C_t)\, B^T .

With U, V, S the leading K singular vectors and values of the first, ``U' E[a b' t] V / S = R diag(C_t) R^{-1}`` for
every t with the same eigenvectors R: one random combination of the t gives R, and R gives every mean and weight. No
start, no likelihood, no local maximum; but the split and the combination are arbitrary, so several random ones are
tried, and the caller keeps the best by likelihood.

References
----------
Anandkumar, Hsu and Kakade 2012, "A method of moments for mixture models and hidden Markov models"; Hsu and Kakade
2013, "Learning mixtures of spherical Gaussians"; Anandkumar, Ge, Hsu, Kakade and Telgarsky 2014, *Journal of Machine
Learning Research* 15, "Tensor decompositions for learning latent variable models"; Leurgans, Ross and Abel 1993,
*SIAM Journal on Matrix Analysis* 14.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from bayesmix.errors import MomentsError
from bayesmix.moments.mixing import nearest_in_hull
from bayesmix.seeds import generator

#: A group's statistics are multiplied out when its fields are too few to tell K components apart by themselves.
_MAX_PRODUCTS = 256
#: How near to the edge of their range, as a share of the way from the middle, conditional means count as on it.
_MARGIN = 1e-5


@dataclass(frozen=True)
class Split:
    """One random way to look at the fields.

    Attributes
    ----------
    groups : tuple of tuple of int
        Positions of the views in the groups a, b and c.
    direction : ndarray
        Combination of the statistics of c, in all their order.
    products : bool
        Whether the groups a and b hold products of their fields' statistics too.
    """

    groups: tuple[tuple[int, ...], ...]
    direction: np.ndarray
    products: bool


def random_splits(
    views: list[np.ndarray], n_components: int, rng: np.random.Generator, n_splits: int
) -> Iterator[Split]:
    """Splits at random: at most a third of the fields in c, the others shared out evenly, all wide enough.

    Parameters
    ----------
    views : list of ndarray, shape (N, J_v)
    n_components : int
    rng : numpy.random.Generator
    n_splits : int

    Raises
    ------
    MomentsError
        The fields are too few to tell so many components apart.
    """
    ranks = [int(np.linalg.matrix_rank(np.cov(view.T))) for view in views]
    found = 0
    for _ in range(max(100, 4 * n_splits)):
        if found == n_splits:
            return
        order = rng.permutation(len(views))
        n_last = 1 if len(views) < 5 else int(rng.integers(1, len(views) // 3 + 1))
        last, rest = order[:n_last], order[n_last:]
        groups = tuple(tuple(int(i) for i in part) for part in (rest[::2], rest[1::2], last))
        products = min(1 + sum(ranks[i] for i in group) for group in groups[:2]) < n_components
        if products:
            room = min(prod(1 + ranks[i] for i in group) for group in groups[:2])
            widest = max(prod(1 + views[i].shape[1] for i in group) for group in groups[:2])
            if room < n_components or widest > _MAX_PRODUCTS:
                continue
        found += 1
        yield Split(groups, rng.standard_normal(sum(views[i].shape[1] for i in last)), products)
    if not found:
        raise MomentsError(
            f"{len(views)} fields do not tell {n_components} components apart by moments of order three. "
            'Use fewer components, more fields, or method="em".'
        )


def conditional_means(
    views: list[np.ndarray], n_components: int, row_weights: np.ndarray, split: Split
) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Weights and conditional means, by one split.

    Parameters
    ----------
    views : list of ndarray, shape (N, J_v)
        Statistics of each field.
    n_components : int
        K.
    row_weights : ndarray, shape (N,)
    split : Split

    Returns
    -------
    weights : ndarray, shape (K,)
    means : list of ndarray, shape (K, J_v)
        Not confined to what is possible for the fields. None (for both) where the moments have no such
        decomposition in real numbers.
    """
    share = row_weights / row_weights.sum()
    shifts = [share @ view for view in views]
    scales = [np.sqrt(share @ (view - shift) ** 2) for view, shift in zip(views, shifts)]
    scales = [np.where(scale > 0, scale, 1.0) for scale in scales]
    plain = [(view - shift) / scale for view, shift, scale in zip(views, shifts, scales)]
    a, b = (_stacked([plain[i] for i in group], split.products) for group in split.groups[:2])
    c = np.hstack([plain[i] for i in split.groups[2]])

    pair = (a * share[:, None]).T @ b
    left, values, right = np.linalg.svd(pair)
    left, values, right = left[:, :n_components], values[:n_components], right[:n_components].T
    if values[-1] <= 1e-10 * values[0]:
        return None
    inner_a, inner_b = a @ left * share[:, None], b @ right / values
    slices = np.stack([(inner_a * t[:, None]).T @ inner_b for t in c.T])  # (T, K, K)
    roots, vectors = np.linalg.eig(np.tensordot(split.direction, slices, 1))
    if np.iscomplexobj(roots) and np.abs(roots.imag).max() > 1e-9 * np.abs(roots).max():
        return None
    vectors = vectors.real
    try:
        inverse = np.linalg.inv(vectors)
    except np.linalg.LinAlgError:
        return None
    of_a = pair @ (right / values) @ vectors  # A with its columns scaled; its first row is the scale
    scale = of_a[0]
    of_b = pair.T @ left @ inverse.T * scale  # B with its columns times the weights; its first row is the weights
    weights = of_b[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {0: (of_a / scale).T, 1: (of_b / weights).T, 2: np.einsum("ki,tij,jk->kt", inverse, slices, vectors)}
    if not all(np.isfinite(means).all() for means in found.values()):
        return None
    if not weights.min() > 0:
        return None
    order = np.argsort(roots.real)  # the order of the components does not jump when the rows' weights change a little
    means: list[np.ndarray] = [np.empty(0)] * len(views)
    for number, group in enumerate(split.groups):
        at = 0 if number == 2 else 1
        for i in group:
            width = views[i].shape[1]
            means[i] = (shifts[i] + scales[i] * found[number][:, at : at + width])[order]
            at += width
    return weights[order] / weights.sum(), means


def _stacked(parts: list[np.ndarray], products: bool) -> np.ndarray:
    """One, the statistics side by side, and then their products over the fields where those are wanted: (N, J)."""
    one = np.ones((len(parts[0]), 1))
    plain = np.hstack([one, *parts])
    if not products or len(parts) < 2:
        return plain
    whole = one
    for part in parts:
        whole = (whole[:, :, None] * np.hstack([one, part])[:, None, :]).reshape(len(one), -1)
    return np.hstack([plain, whole])


def nearest_possible(
    means: np.ndarray, rows: np.ndarray, overall: np.ndarray, pull: float
) -> tuple[np.ndarray, np.ndarray]:
    """Conditional means moved into what the statistics' values can average to.

    Parameters
    ----------
    means : ndarray, shape (K, J)
    rows : ndarray, shape (M, J)
        The distinct values of the statistics: averages lie in their convex hull.
    overall : ndarray, shape (J,)
        The mean of all rows.
    pull : float
        What lies outside the hull, or on its edge, is drawn by this share of the way from its edge towards `overall`.

    Returns
    -------
    means : ndarray, shape (K, J)
    moved : ndarray, shape (K,), bool
        Those that lay outside or on the edge.
    """
    size = np.ptp(rows, axis=0)
    size = np.where(size > 0, size, 1.0)
    out, moved = means.copy(), np.zeros(len(means), bool)
    for k, mean in enumerate(means):
        target = mean + _MARGIN * (mean - overall)
        vertices = (rows - target) / size

        def oracle(direction, vertices=vertices):
            lowest = int((vertices @ direction).argmin())
            return lowest, vertices[lowest]

        labels, weights = nearest_in_hull(oracle, rows.shape[1])
        near = weights @ rows[labels]
        moved[k] = np.abs((near - target) / size).max() > 0.1 * _MARGIN
        if moved[k]:
            out[k] = near + pull * (overall - near)
    return out, moved


def latent_class(
    symbols: np.ndarray, n_classes: int, *, n_splits: int = 50, random_seed: int | np.random.Generator | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Latent class analysis by cross moments: classes' weights and each field's probabilities, without a start.

    Parameters
    ----------
    symbols : ndarray of int, shape (N, J)
        Symbol of each row in each of J >= 3 fields, from 0.
    n_classes : int
        K.
    n_splits : int
        Random projections to choose from by the likelihood.
    random_seed : int or Generator, optional

    Returns
    -------
    weights : ndarray, shape (K,)
        Descending.
    probabilities : list of ndarray, shape (K, S_j)

    Raises
    ------
    MomentsError
        Too few fields, or no decomposition in real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesmix.moments import latent_class
    >>> rng = np.random.default_rng(0)
    >>> high = rng.random(20_000) < 0.3
    >>> answers = (rng.random((20_000, 4)) < np.where(high, 0.9, 0.2)[:, None]).astype(int)
    >>> weights, p = latent_class(answers, 2, random_seed=1)
    >>> weights.round(1), p[0][:, 1].round(1)
    (array([0.7, 0.3]), array([0.2, 0.9]))
    """
    rng = generator(random_seed)
    symbols = np.asarray(symbols)
    n_rows, sizes = len(symbols), symbols.max(0) + 1
    symbols, counts = np.unique(symbols, axis=0, return_counts=True)
    views = [np.eye(size)[column] for size, column in zip(sizes, symbols.T)]
    if len(views) < 3:
        raise MomentsError(f"latent classes need three fields or more, not {len(views)}.")
    best, best_value = None, -np.inf
    for split in random_splits(views, n_classes, rng, n_splits):
        found = conditional_means(views, n_classes, counts, split)
        if found is None:
            continue
        weights, means = found
        tables = [_probabilities(mean, n_rows) for mean in means]
        joint = np.log(weights) + sum(np.log(p).T[column] for p, column in zip(tables, symbols.T))
        value = counts @ np.logaddexp.reduce(joint, axis=1)
        if value > best_value:
            best, best_value = (weights, tables), value
    if best is None:
        raise MomentsError(no_decomposition(n_classes))
    weights, tables = best
    order = np.argsort(-weights)
    return weights[order], [table[order] for table in tables]


def no_decomposition(n_components: int) -> str:
    """The message where no split gave real numbers."""
    return (
        f"the cross moments of these rows are those of no {n_components} components: no split of the fields gave real "
        'numbers. Use method="em", fewer components, or more rows.'
    )


def _probabilities(means: np.ndarray, n_rows: int) -> np.ndarray:
    """Rows (K, S) that sum to 1, none below half a row's share."""
    kept = np.maximum(means, 0.5 / n_rows)
    return kept / kept.sum(1, keepdims=True)
