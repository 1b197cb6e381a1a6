"""Labels with their uncertainty: intervals, draws, which rows belong together, and one partition of them.

Responsibilities average over the posterior; what is here keeps its spread. Which rows share a component does not depend
on how components are called, so co-clustering and partitions need no relabelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from bayesmix import arguments
from bayesmix.bound import Bound
from bayesmix.errors import DataError, SpecError
from bayesmix.params import Params
from bayesmix.spec import Encoded, Site
from bayesmix.structure.sequence import Sequence as SequenceNode

#: Numbers that are held at once while responsibilities of all draws are looked at.
_AT_ONCE = 10_000_000
#: Rows of a co-clustering matrix, at most (200 MB).
MOST_ROWS = 5_000
#: Sweeps over all rows in the search for a partition, at most.
_SWEEPS = 50
#: Draws of the labels that a search begins with; with more rows than these only the best two starts are followed.
_STARTS, _MANY_ROWS = 4, 2_000


@dataclass(frozen=True)
class Partition:
    """A partition of the rows that represents the posterior of their labels.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
        Cluster of each row. Clusters have the numbers of the components that they mostly consist of; there may be fewer
        than components, or more.
    loss : {"binder", "vi"}
    expected_loss : float
        Posterior mean of the loss: for Binder's the share of pairs of rows on which partitions disagree, for the
        variation of information bits.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> partition = fit.partition(random_seed=1)
    >>> partition.n_clusters, partition.labels.shape
    (2, (7,))
    """

    labels: np.ndarray
    loss: str
    expected_loss: float

    @property
    def n_clusters(self) -> int:
        """Number of clusters that have rows."""
        return len(np.unique(self.labels))


def mixture_of(bound: Bound, of: str | None) -> tuple[Site, tuple[str, str]]:
    """The mixture that a user names by its field or its weights (the root by default), and its key among labels.

    Raises
    ------
    SpecError
        There is none.
    """
    mixtures = {(s.place.path, s.slots["weights"].name): s for s in bound.site.walk() if "weights" in s.slots}
    if of is None:
        bound.require_mixture()
        return bound.site, (bound.site.place.path, bound.site.slots["weights"].name)
    found = [key for key in mixtures if of in key]
    if not found:
        where = ", ".join(repr(path or name) for path, name in mixtures)
        raise SpecError(f"of: no mixture is called {of!r}. Choose from {where or 'none: the spec has no mixture'}.")
    return mixtures[found[0]], found[0]


def require_one_meaning(site: Site) -> None:
    """Raise `SpecError` where a label means other components in each component around the mixture."""
    if site.axes and not site.node.shared:
        name = site.slots["weights"].name
        raise SpecError(f"of: each component around {name} has components of its own. Ask for a mixture above it.")


def row_dims(bound: Bound, data: Encoded) -> dict[tuple[str, str], str]:
    """Dim of the rows of every mixture, by path and weights: the table's, or those of a sequence's elements."""
    whole = {each.name: each.row_dim for each in bound.site.observed(data)}
    return {
        (site.place.path, site.slots["weights"].name): next(
            whole[each.name] for each in site.observed(block) if each.row_dim == "row"
        )
        for site, block in bound.site.walk_with(data)
        if "weights" in site.slots
    }


def probabilities(bound: Bound, key: tuple[str, str], params: Params, data: Encoded) -> np.ndarray:
    """Responsibilities (N, G) of one mixture."""
    if key == (bound.site.place.path, getattr(bound.site.slots.get("weights"), "name", None)):
        return bound.responsibilities(params, data)
    return bound.label_probabilities(params, data)[key]


def intervals(
    bound: Bound, draws: Sequence[Params], data: Encoded, index: list, of: str | None, prob: float
) -> xr.Dataset:
    """Posterior mean and equal-tailed interval of every responsibility. See `Fit.responsibility_intervals`."""
    site, key = mixture_of(bound, of)
    arguments.check(prob=prob)
    axis = site.slots["weights"].event[0]
    step = max(_AT_ONCE // (len(draws) * len(axis)), 1)
    parts = []
    for begin in range(0, data.n_rows, step):
        block = data.take(np.arange(begin, min(begin + step, data.n_rows)))
        each = np.array([probabilities(bound, key, params, block) for params in draws])
        low, high = np.quantile(each, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        parts.append((each.mean(0), low, high))
    dim = row_dims(bound, data)[key]
    columns = [np.concatenate(each) for each in zip(*parts)]
    rows = index if dim == "row" else list(range(len(columns[0])))
    return xr.Dataset(
        {name: ((dim, axis.name), values) for name, values in zip(("mean", "lower", "upper"), columns)},
        coords={dim: rows, axis.name: list(axis.labels)},
        attrs={"prob": prob},
    )


def draw_labels(
    bound: Bound, draws: Sequence[Params], data: Encoded, rng: np.random.Generator
) -> dict[tuple[str, str], np.ndarray]:
    """Labels of every mixture, one draw for each of the parameter draws: path and weights -> (draws, N).

    Labels inside are drawn given the labels around them.
    """
    found: dict[tuple[str, str], list] = {}
    names = {(s.key, s.place.path): s.slots["weights"].name for s in bound.site.walk() if "weights" in s.slots}
    before: Params | None = None
    for params in draws:
        if params is not before:  # a point estimate has one value for all draws
            before, evaluation = params, bound.site.evaluate(params, data)
        out: dict[Any, Any] = {}
        bound.site.impute(params, evaluation, data, np.zeros(data.n_rows, int), rng, out)
        for (key, path), name in names.items():
            found.setdefault((path, name), []).append(out["label", key, path])
    return {key: np.array(values) for key, values in found.items()}


def labels_dataset(
    bound: Bound, draws: Sequence[Params], data: Encoded, index: list, of: str | None, rng: np.random.Generator
) -> xr.Dataset:
    """`draw_labels` with names and dims. See `Fit.sample_labels`."""
    wanted = None if of is None else mixture_of(bound, of)[1]
    found = draw_labels(bound, draws, data, rng)
    if not found:
        bound.require_mixture()
    dims, sites = row_dims(bound, data), {key: mixture_of(bound, key[1])[0] for key in found}
    names = {key: site.place.name("label") for key, site in sites.items()}
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {"draw": np.arange(len(draws))}
    for key, values in found.items():
        if wanted in (None, key):
            alone = list(names.values()).count(names[key]) == 1
            name = names[key] if alone else f"{key[0]}_label"  # fields that are tied
            variables[name] = (("draw", dims[key]), values)
            coords[dims[key]] = index if dims[key] == "row" else list(range(values.shape[1]))
    return xr.Dataset(variables, coords=coords)


def coclustering(bound: Bound, draws: Sequence[Params], data: Encoded, of: str | None) -> np.ndarray:
    """Posterior probability (N, N) that two rows have one label. See `Fit.coclustering`."""
    site, key = mixture_of(bound, of)
    require_one_meaning(site)
    owner = _owner(bound, data, site)
    total, n_rows = np.zeros((0, 0)), 0
    for params in draws:
        joint = bound.joint_label_probabilities(params, data)[key]
        if not n_rows:
            n_rows = len(joint)
            if n_rows > MOST_ROWS:
                raise DataError(
                    f"data: a co-clustering matrix of {n_rows} rows would hold {n_rows**2:.1e} numbers. Pass at most "
                    f"{MOST_ROWS} rows as data=; partition() takes any number."
                )
            total = np.zeros((n_rows, n_rows))
        resp = joint.sum(1)
        together = resp @ resp.T
        for row in np.unique(owner):  # elements of one row are independent given the components around them alone
            own = np.flatnonzero(owner == row)
            around = joint[own[0]].sum(-1)
            share = np.divide(1.0, around, out=np.zeros_like(around), where=around > 0)
            together[np.ix_(own, own)] = np.einsum("ikg,jkg,k->ij", joint[own], joint[own], share, optimize=True)
        total += together
    total /= len(draws)
    np.fill_diagonal(total, 1.0)
    return total


def _owner(bound: Bound, data: Encoded, wanted: Site) -> np.ndarray:
    """Row of each element whose label a mixture is, where it is below a sequence; nothing where labels are of rows."""

    def below(site: Site, block: Encoded, around: list) -> list:
        if site is wanted:
            return around
        inside = [
            below(child, own, [*around, (site, block)])
            for child, own in zip(site.children, site.node.child_data(block))
        ]
        return next((each for each in inside if each), [])

    around = below(bound.site, data, [])
    sequences = [i for i, (site, _) in enumerate(around) if isinstance(site.node, SequenceNode)]
    if not sequences:
        return np.empty(0, int)
    if len(sequences) > 1 or any("weights" in site.slots for site, _ in around[sequences[0] :]):
        raise SpecError(
            f"of: {wanted.slots['weights'].name} is below several levels of elements. Count in sample_labels() how "
            "often two of them have one label, or take partition()."
        )
    elements: Any = around[sequences[0]][1]
    return elements.owner


# ---------------------------------------------------------------- one partition


def partition(draws: np.ndarray, loss: str, resp: np.ndarray, rng: np.random.Generator) -> Partition:
    r"""The partition with the least expected loss that a search finds.

    Starts from the most probable labels, from some of the draws and from all rows together; each row in turn
    goes to the cluster (or a new one) in which the expected loss is least, and clusters are merged where that helps.

    Parameters
    ----------
    draws : ndarray of int, shape (T, N)
        Draws of the labels.
    loss : {"binder", "vi"}
    resp : ndarray, shape (N, K)
        Mean responsibilities: the first start, and what gives clusters their numbers.
    rng : numpy.random.Generator

    Notes
    -----
    With :math:`n_k` rows in cluster k, :math:`m_l` in component l of a draw and :math:`n_{kl}` in both, the losses are
    :math:`Σ_k g(n_k) + Σ_l g(m_l) - 2 Σ_{kl} g(n_{kl})`, where g(n) is :math:`n^2` for Binder's and
    :math:`n \\log_2 n` for the variation of information.

    References
    ----------
    Binder 1978, *Biometrika* 65; Dahl 2006; Wade and Ghahramani 2018, *Bayesian Analysis* 13; Dahl, Johnson and Müller
    2022, *JCGS* 31, for searches by sweeps.
    """
    if loss not in ("binder", "vi"):
        raise ValueError(f'loss: "binder" or "vi" is needed, not {loss!r}.')
    draws = draws - min(draws.min(initial=0), 0)  # those of rows without a label, -1, are one too
    n_rows = draws.shape[1]
    counts = np.arange(n_rows + 2, dtype=float)
    gain = counts**2 if loss == "binder" else counts * np.log2(np.maximum(counts, 1))
    starts = [resp.argmax(1), np.zeros(n_rows, int)]
    starts += [draws[t] for t in rng.choice(len(draws), min(_STARTS, len(draws)), replace=False)]
    found = [_Search(draws, start, gain) for start in starts]
    if n_rows > _MANY_ROWS:
        found = sorted(found, key=lambda search: search.loss())[:2]
    best = min([search.run(rng) for search in found], key=lambda search: search.loss())
    labels = _named(best.labels, resp)
    return Partition(
        labels, loss, max(best.loss(), 0.0) / (max(n_rows * (n_rows - 1), 1) if loss == "binder" else n_rows)
    )


class _Search:
    """A partition on its way: cluster of each row, and counts of rows by draw, cluster and label, (T, C, L)."""

    def __init__(self, draws: np.ndarray, start: np.ndarray, gain: np.ndarray):
        self.draws, self.gain = draws, gain
        self.labels = np.unique(start, return_inverse=True)[1].ravel()
        n_draws, n_labels = len(draws), int(draws.max(initial=0)) + 1
        self.size = min(max(2 * n_labels, int(self.labels.max(initial=0)) + 2), draws.shape[1] + 1)
        self.counts = np.zeros((n_draws, self.size, n_labels), np.int64)
        each = np.arange(n_draws)
        for i, k in enumerate(self.labels):
            self.counts[each, k, draws[:, i]] += 1
        self.totals = np.bincount(self.labels, minlength=self.size)
        marginal = self.counts.sum(1)
        self.constant = float(gain[marginal].sum(1).mean())

    def loss(self) -> float:
        """Expected loss, not yet divided by the number of rows or pairs."""
        joint = float(self.gain[self.counts].sum((1, 2)).mean())
        return float(self.gain[self.totals].sum()) + self.constant - 2 * joint

    def run(self, rng: np.random.Generator) -> _Search:
        """Sweeps until nothing changes."""
        for _ in range(_SWEEPS):
            moved = sum([self._move(i) for i in rng.permutation(len(self.labels))])
            if not self._merge() and not moved:
                break
        return self

    def _move(self, i: int) -> bool:
        each, own = np.arange(len(self.draws)), self.draws[:, i]
        old = self.labels[i]
        self._shift(i, old, -1)
        beside = self.counts[each, :, own]  # (T, C)
        cost = self.gain[self.totals + 1] - self.gain[self.totals]
        cost = cost - 2 * (self.gain[beside + 1] - self.gain[beside]).mean(0)
        new = old if cost[old] <= cost.min() + 1e-9 else int(cost.argmin())
        self._shift(i, new, 1)
        self.labels[i] = new
        return bool(new != old)

    def _shift(self, i: int, cluster: int, by: int) -> None:
        self.counts[np.arange(len(self.draws)), cluster, self.draws[:, i]] += by
        self.totals[cluster] += by

    def _merge(self) -> bool:
        """Merge the two clusters whose merger gains most; whether there were such."""
        used = np.flatnonzero(self.totals)
        best, pair = -1e-9, None
        own = self.gain[self.counts].sum(2).mean(0)
        for place, k in enumerate(used):
            for other in used[place + 1 :]:
                together = self.gain[self.counts[:, k] + self.counts[:, other]].sum(1).mean()
                change = self.gain[self.totals[k] + self.totals[other]]
                change = change - self.gain[self.totals[k]] - self.gain[self.totals[other]]
                change = change - 2 * (together - own[k] - own[other])
                if change < best:
                    best, pair = change, (k, other)
        if pair is None:
            return False
        k, other = pair
        self.labels[self.labels == other] = k
        self.counts[:, k] += self.counts[:, other]
        self.totals[k] += self.totals[other]
        self.counts[:, other], self.totals[other] = 0, 0
        return True


def _named(labels: np.ndarray, resp: np.ndarray) -> np.ndarray:
    """Clusters with the numbers of the components that they mostly consist of, new numbers for those beyond."""
    own, labels = np.unique(labels, return_inverse=True)
    shares = np.array([resp[labels.ravel() == k].sum(0) for k in range(len(own))])
    rows, columns = linear_sum_assignment(-shares)
    names = np.full(len(own), -1)
    names[rows] = columns
    names[names < 0] = resp.shape[1] + np.arange((names < 0).sum())
    return names[labels.ravel()]
