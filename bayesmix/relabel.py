r"""Labels: a canonical order of components, and one labelling for all draws of a posterior.

Draws of a mixture's posterior may come from any of its copies (`bayesmix.symmetry`). `relabelled` finds a permutation
for each draw, so that all are of one copy: the one around a reference point, such as EM's mode. It works with what each
draw says of the rows, an array of probabilities (draws, components, rows), and solves an assignment problem for each
draw by the Hungarian algorithm:

==========  ================================================================================================
``"kl"``    Stephens 2000: iterates to the permutations and the classification of the rows :math:`q` for which
            :math:`\sum_{tij} p_{tij} \log (p_{tij} / q_{ij})` is least, from the reference's responsibilities
``"ecr"``   as many rows as possible keep the component that they most probably have at the reference: expected
            matches, with the probabilities in the place of drawn labels (Papastamoulis and Iliopoulos 2010)
``"data"``  the rows that belong to a component at the reference have the greatest log density under the draw's
            (Rodríguez and Walker 2014, with the family's own log density for their distance)
==========  ================================================================================================

Mixtures are taken outermost first. An outer label does not depend on how labels inside are called, and those of a
shared mixture do not depend on the outer ones, so one pass over the mixtures is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logit

from bayesmix.bound import Bound
from bayesmix.errors import close_to
from bayesmix.params import POSITIVE, UNIT, Params
from bayesmix.spec import Encoded, Evaluation, Site
from bayesmix.symmetry import Symmetry, permuted, permuted_along

#: Rows, and elements of sequences, that labels are judged by: more would not tell them better apart.
_MOST_ROWS = 1_000
#: Numbers that an array of probabilities may hold.
_MOST_NUMBERS = 10_000_000
#: Probabilities are kept this far from 0 and 1 (Stephens' criterion takes their logarithms).
_CLIP = 1e-6
#: Iterations of Stephens' algorithm, at most.
_MOST_ITERATIONS = 100

METHODS = ("kl", "ecr", "data")


@dataclass(frozen=True)
class Relabelling:
    """What was found out about the labels of a posterior's draws.

    Attributes
    ----------
    method : str or None
        How draws were relabelled; None where they were left as they came.
    moved : dict
        Dim of a mixture's components -> ndarray (chain,): share of the draws whose labels differ from the reference's
        (and were put back, unless `method` is None).
    non_permutation : dict
        Dim -> share of the draws whose components, put into clusters together with those of all other draws, are not
        one in each cluster (Malsiner-Walli, Frühwirth-Schnatter and Grün 2016). Near 0 the components are well told
        apart; near 1 no labelling means much.
    reference : dict
        The parameters that the labels are those of.
    n_rows : int
        Rows that labels were judged by.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> relabelling = bm.fit_advi(bm.Mixture(bm.Normal(), 2), x, random_seed=1).relabel().relabelling
    >>> relabelling.method, relabelling.switched
    ('kl', False)
    """

    method: str | None
    moved: dict[str, np.ndarray] = field(default_factory=dict)
    non_permutation: dict[str, float] = field(default_factory=dict)
    reference: Params = field(default_factory=dict)
    n_rows: int = 0

    @property
    def switched(self) -> bool:
        """Whether any draw's labels differ from the reference's."""
        return any(bool((share > 0).any()) for share in self.moved.values())

    @property
    def share_moved(self) -> float:
        """Largest share of all draws whose labels differ, over the mixtures."""
        return max((float(share.mean()) for share in self.moved.values()), default=0.0)

    def __str__(self) -> str:
        if not self.switched:
            return "No draw switched labels."
        names = ", ".join(f"{name} {share.mean():.1%}" for name, share in self.moved.items() if share.any())
        done = "they were left as they came" if self.method is None else f'put back by "{self.method}"'
        return f"Labels switched in some draws ({names}); {done}."


def relabelled(
    bound: Bound,
    draws: Mapping[str, np.ndarray],
    data: Encoded,
    reference: Params,
    *,
    method: str | None = "kl",
    skip: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], Relabelling]:
    """Draws with one labelling, that of the reference, and what was found out.

    Parameters
    ----------
    bound : Bound
    draws : dict
        Free slots (chain, draw, *slot.shape).
    data : Encoded
        N rows, of which at most 1,000 are taken.
    reference : dict
        Parameters, such as EM's mode.
    method : {"kl", "ecr", "data"} or None
        None judges as ``"kl"`` does, and leaves the draws as they are.
    skip : sequence of str
        Dims of components that are identified otherwise (ordered ones).
    """
    if method is not None and method not in METHODS:
        raise ValueError(f"relabel: {', '.join(map(repr, METHODS))} or None is needed, not {method!r}.")
    dims = {dim for slot in bound.slots.values() for dim in slot.dims}
    if unknown := [each for each in ([skip] if isinstance(skip, str) else skip) if each not in dims]:
        raise ValueError(f"skip: no parameter has a dim called {unknown[0]!r}. There are {', '.join(sorted(dims))}.")
    if absent := [name for name in bound.free_slots if name not in reference]:
        raise ValueError(f"like: values of {', '.join(absent)} are needed too, as in fit.params.")
    for name, value in reference.items():
        if name not in bound.slots:
            raise ValueError(f"like: no parameter is called {name!r}.{close_to(name, bound.slots)} Leave it out.")
        if np.shape(value) != (shape := bound.slots[name].shape):
            raise ValueError(f"like: {name} has shape {np.shape(value)}, not {shape}. Give it as fit.params has it.")
    found = {name: np.asarray(value) for name, value in draws.items()}
    todo = [each for each in bound.symmetries if each.name not in skip]
    shape = next(iter(found.values())).shape[:2] if found else (1, 1)
    n_draws = int(np.prod(shape))
    flat = {name: value.reshape(n_draws, *value.shape[2:]) for name, value in found.items()}
    if not todo:
        return dict(found), Relabelling(method, {}, _rates(bound, flat, reference), dict(reference))
    part = _rows(bound, data, todo, n_draws)
    points = (bound.with_fixed({name: value[i] for name, value in flat.items()}) for i in range(n_draws))
    chances = label_arrays(bound, points, part, todo)
    first = label_arrays(bound, [bound.with_fixed(reference)], part, todo)
    scores: dict[str, np.ndarray] = {}
    if method == "data":
        points = (bound.with_fixed({name: value[i] for name, value in flat.items()}) for i in range(n_draws))
        scores = score_arrays(bound, points, part, todo)
    moved = {}
    for symmetry in todo:
        key = symmetry.weights.name
        p, pivot = _of_group(symmetry, chances[key]), _of_group(symmetry, first[key])[0]
        order = np.broadcast_to(symmetry.identity, (n_draws, *symmetry.shape)).copy()
        for at, block in symmetry.blocks():
            here = (slice(None), *at, block)
            if method == "ecr":
                own = np.eye(len(block))[:, pivot[here[1:]].argmax(0)] * (pivot[here[1:]].max(0) > 0)
                chosen = best_orders(-np.einsum("jn,tln->tjl", own, p[here]))
            elif method == "data":
                belongs = _of_group(symmetry, first[key], apart=True)[0][here[1:]]
                log_density = _of_group(symmetry, scores[key], apart=True)[here]
                chosen = best_orders(-np.einsum("jn,tln->tjl", belongs, log_density))
            else:
                chosen = stephens(p[here], pivot[here[1:]])
            order[here] = block[chosen]
        changed = (order != symmetry.identity).reshape(n_draws, -1).any(1)
        moved[symmetry.name] = changed.reshape(shape).mean(1)
        flat.update(permuted(bound, symmetry, flat, order))
        for other in todo:  # arrays of the mixtures inside go along
            name, axes = other.weights.name, other.weights.around
            if symmetry.axis in axes:
                for arrays in (chances, scores):
                    if name in arrays:
                        arrays[name] = permuted_along(symmetry, arrays[name], axes, order, 1)
    report = Relabelling(method, moved, _rates(bound, flat, reference), dict(reference), part.n_rows)
    if method is None:
        return dict(found), report
    return {name: value.reshape(*shape, *value.shape[1:]) for name, value in flat.items()}, report


def stephens(p: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Permutations of each draw's components for which Stephens' criterion is least, from `start` on.

    The criterion is ``Σ_t Σ_k Σ_n p log(p / q)`` of the permuted draws, with q their mean.

    Parameters
    ----------
    p : ndarray, shape (draws, K, N)
        Probabilities of the components for each row.
    start : ndarray, shape (K, N)
        The classification to begin with, whose labels the result has.

    Returns
    -------
    ndarray of int, shape (draws, K)
        Component k of the relabelled draw t is its component ``order[t, k]``.

    References
    ----------
    Stephens 2000, *Journal of the Royal Statistical Society B* 62, algorithm 2.
    """
    n_draws, size, n_rows = p.shape
    p, q = _clipped(p), _clipped(start)
    order = np.full((n_draws, size), -1)
    for _ in range(_MOST_ITERATIONS):
        scores = (p.reshape(n_draws * size, n_rows) @ np.log(q).T).reshape(n_draws, size, size)
        new = best_orders(-np.swapaxes(scores, 1, 2))
        if np.array_equal(new, order):
            break
        order, q = new, np.zeros_like(q)
        for draw, own in zip(p, order):
            q += draw[own]
        q /= n_draws
    # the classification may have wandered off to other names than the start's
    return order[:, best_orders(-(np.log(_clipped(start)) @ q.T)[None])[0]]


def best_orders(costs: np.ndarray) -> np.ndarray:
    """For each of the cost matrices (draws, K, K) the cheapest assignment of columns to rows: (draws, K)."""
    found = costs.argmin(2)
    own = np.arange(costs.shape[1])
    for t in np.flatnonzero((np.sort(found, 1) != own).any(1)):
        found[t] = linear_sum_assignment(np.nan_to_num(costs[t], nan=1e300, posinf=1e300, neginf=-1e300))[1]
    return found


def _clipped(p: np.ndarray) -> np.ndarray:
    return np.clip(p, _CLIP, 1 - _CLIP)


def _rows(bound: Bound, data: Encoded, todo: Sequence[Symmetry], n_draws: int) -> Encoded:
    """Some rows, the same every time: few enough for all draws, elements of sequences counted."""
    sizes = {site.key: block.n_rows for site, block in bound.site.walk_with(data)}
    longest = max(sizes[each.site.key] for each in todo)
    wide = max(each.site.n_components * len(each.weights.event[0]) for each in todo)
    most = int(np.clip(_MOST_NUMBERS // (n_draws * wide), 100, _MOST_ROWS))
    share = most / max(longest, data.n_rows)
    n_rows = min(data.n_rows, max(int(share * data.n_rows), 1))
    if n_rows == data.n_rows:
        return data
    return data.take(np.sort(np.random.default_rng(0).choice(data.n_rows, n_rows, replace=False)))


def label_arrays(bound: Bound, points: Any, data: Encoded, todo: Sequence[Symmetry]) -> dict[str, np.ndarray]:
    """Probabilities of labels at each of the points, by name of weights: (points, *axes of the weights, G, N)."""
    names = {each.weights.name for each in todo}
    found: dict[str, list] = {name: [] for name in names}
    for params in points:
        own: dict[str, list] = {name: [] for name in names}
        for (_, name), value in bound.joint_label_probabilities(params, data).items():
            if name in names:  # a tied mixture stands in several places
                own[name].append(value)
        for name, values in own.items():
            found[name].append(np.moveaxis(np.concatenate(values), 0, -1))
    return {name: _shaped(bound, name, values) for name, values in found.items()}


def score_arrays(bound: Bound, points: Any, data: Encoded, todo: Sequence[Symmetry]) -> dict[str, np.ndarray]:
    """Log densities of the rows under each component, in the form of `label_arrays`."""
    names = {each.weights.name for each in todo}
    found: dict[str, list] = {name: [] for name in names}
    for params in points:
        own: dict[str, list] = {name: [] for name in names}
        for site, evaluation in _with_evaluation(bound.site, bound.site.evaluate(params, data)):
            if evaluation.joint is not None and site.slots["weights"].name in names:
                with np.errstate(divide="ignore", invalid="ignore"):
                    score = evaluation.joint - np.log(site.values(params)["weights"])
                own[site.slots["weights"].name].append(np.nan_to_num(score, nan=-1e6, neginf=-1e6))
        for name, values in own.items():
            found[name].append(np.moveaxis(np.concatenate(values), 0, -1))
    return {name: _shaped(bound, name, values) for name, values in found.items()}


def _with_evaluation(site: Site, evaluation: Evaluation) -> Iterator[tuple[Site, Evaluation]]:
    yield site, evaluation
    for child, below in zip(site.children, evaluation.children):
        yield from _with_evaluation(child, below)


def _shaped(bound: Bound, name: str, values: list[np.ndarray]) -> np.ndarray:
    slot = bound.slots[name]
    array = np.array(values)
    return array.reshape(len(array), *[len(axis) for axis in slot.around], *array.shape[2:])


def _of_group(symmetry: Symmetry, values: np.ndarray, apart: bool = False) -> np.ndarray:
    """What the group's own labels are judged by: (draws, *around, members, N), summed over other components around.

    `apart` keeps these as further rows instead.
    """
    gone = tuple(1 + i for i, axis in enumerate(symmetry.weights.around) if axis not in symmetry.around)
    values = values[..., list(symmetry.members), :]
    if not apart:
        return values.sum(gone)
    values = np.moveaxis(values, gone, range(values.ndim - 1 - len(gone), values.ndim - 1))
    return values.reshape(*values.shape[: values.ndim - 1 - len(gone)], -1)


def _rates(bound: Bound, flat: Mapping[str, np.ndarray], reference: Params) -> dict[str, float]:
    return {each.name: non_permutation_rate(bound, each, flat, reference) for each in bound.symmetries}


def non_permutation_rate(bound: Bound, symmetry: Symmetry, flat: Mapping[str, np.ndarray], reference: Params) -> float:
    """Share of draws whose components do not fall into clusters one each. See `Relabelling`.

    Components' parameters (positive ones as logarithms, probabilities as logits), in units of their spread within the
    labels, by k-means from the reference's.
    """
    columns, starts = [], []
    n_batch, size = 1 + len(symmetry.around), len(symmetry.members)
    for name, slot in bound.free_slots.items():
        if symmetry.axis is None or symmetry.axis not in slot.axes or slot.discrete:
            continue
        both = np.concatenate([flat[name], np.asarray(reference[name])[None]])
        if slot.support is POSITIVE:
            both = np.log(np.maximum(both, 1e-300))
        elif slot.support is UNIT or slot.support.ndim == 1:
            both = logit(np.clip(both, 1e-9, 1 - 1e-9))
        kept = [1 + slot.axes.index(axis) for axis in (*symmetry.around, symmetry.axis)]
        both = np.moveaxis(both, kept, range(1, len(kept) + 1))
        both = both.reshape(*both.shape[: n_batch + 1], -1)
        columns.append(both[:-1])
        starts.append(both[-1:])
    if not columns:
        return float("nan")
    points, start = np.concatenate(columns, -1), np.concatenate(starts, -1)
    worst = 0.0
    for at in np.ndindex(symmetry.shape[:-1]):
        own, centres = points[(slice(None), *at)], start[(0, *at)]
        spread = own.std(0).mean(0)
        spread = np.where(spread > 0, spread, 1.0)
        worst = max(worst, _share_not_permuted(own / spread, centres / spread, size))
    return worst


def _share_not_permuted(points: np.ndarray, centres: np.ndarray, size: int) -> float:
    """For points (draws, K, F) and the clusters' first centres (K, F)."""
    everything = points.reshape(-1, points.shape[-1])
    nearest = np.full(len(everything), -1)
    for _ in range(50):
        distance = (centres**2).sum(1) - 2 * everything @ centres.T
        new = distance.argmin(1)
        if np.array_equal(new, nearest):
            break
        nearest = new
        counts = np.bincount(nearest, minlength=size)
        for k in np.flatnonzero(counts):
            centres[k] = everything[nearest == k].mean(0)
    each = np.sort(nearest.reshape(len(points), size), 1)
    return float((each != np.arange(size)).any(1).mean())


def location_slot(mixture: Site) -> str | None:
    """Name of the slot by which a mixture's components can be ordered: the scalar ``mu`` of its own family."""
    child = mixture.children[0]
    slot = child.slots.get("mu")
    if len(mixture.children) > 1 or slot is None or not child.is_leaf or slot.event or not slot.free:
        return None
    return slot.name if slot.axes == slot.around else None


def in_canonical_order(bound: Bound, params: Params, *others: Params) -> Any:
    """The same mixture with its components in a fixed order: by location where they have one, else by weight.

    Locations ascend and weights descend, within each component of the mixtures around, among the components that may
    change places (`bayesmix.symmetry`); so the posterior density does not change. With `others`, points on the way to
    `params`, a list of all of them, each in the order of `params`.
    """
    out, rest = dict(params), [dict(other) for other in others]
    for symmetry in bound.symmetries:
        key = np.broadcast_to(_keys(symmetry, out), symmetry.shape)
        tie_breaker = np.broadcast_to(_tie_breaker(symmetry, out), symmetry.shape)
        order = symmetry.identity.copy()
        for at, block in symmetry.blocks():
            order[(*at, block)] = block[np.lexsort((tie_breaker[at][block], key[at][block]))]
        out.update(permuted(bound, symmetry, out, order))
        for other in rest:
            other.update(permuted(bound, symmetry, other, order))
    return [out, *rest] if others else out


def _keys(symmetry: Symmetry, params: Params) -> np.ndarray:
    """What the components of a group are sorted by, (*around, G)."""
    by = location_slot(symmetry.site)
    slot = symmetry.weights if by is None else symmetry.site.children[0].slots["mu"]
    gone = tuple(i for i, axis in enumerate(slot.axes) if axis not in (*symmetry.around, symmetry.axis))
    if by is not None:
        return params[by].mean(gone)
    return -np.round(params[slot.name][..., list(symmetry.members)].mean(gone), 6)


def _tie_breaker(symmetry: Symmetry, params: Params) -> np.ndarray:
    """What tells components of equal weight apart, (G,): the first parameter below, in tree order."""
    for child in symmetry.site.children:
        for site in child.walk() if symmetry.axis is not None else ():
            for slot in site.slots.values():
                if symmetry.axis in slot.axes and slot.free:
                    value = params[slot.name]
                    # entries of a vector differently, so that probabilities do not all sum to 1
                    own = value.reshape(*value.shape[: len(slot.axes)], -1)
                    own = own @ np.arange(1.0, own.shape[-1] + 1)
                    at = slot.axes.index(symmetry.axis)
                    return np.sort(np.moveaxis(own, at, 0).reshape(len(symmetry.axis), -1), axis=1)[:, 0]
    return np.arange(len(symmetry.members))
