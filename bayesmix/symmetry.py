r"""Which permutations of labels leave a posterior as it is.

A mixture of K components whose priors are alike has a posterior with K! copies of everything. Which components may
change places follows from the bound spec alone:

- components of one spec (a heterogeneous mixture's groups), whose parameters all have one prior: a fixed value or a
  prior of a component's own tells it apart from the others, and the rest may still change places with each other;
- a mixture inside another permutes within each component around it, :math:`K!\,(G!)^K` in all; a shared one permutes
  once, for all components around it, together with the columns of their weights: :math:`K!\,M!` for hierarchical and
  joint mixtures; a tied one once, wherever it stands.

`symmetries` lists one `Symmetry` for each group of components, `permuted` applies permutations to arrays of draws,
`ascending` finds one that puts variables in order, and `log_symmetries` counts them. Symmetries across levels (two
priors that differ, and would be swapped along with the components around them) are not looked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pytensor.tensor.random.op import RandomVariable
from scipy.special import gammaln

from bayesmix.bound import Bound
from bayesmix.params import COVARIANCE, POSITIVE, SIMPLEX, UNIT, Dim, Params, Slot, hyperparameters
from bayesmix.spec import Site


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Components of one mixture that are of one spec, and which of them may change places.

    Attributes
    ----------
    site : Site
        The mixture.
    members : tuple of int
        Which of the mixture's components these are, ascending; G of them.
    axis : Dim or None
        Their axis in the parameters below; None where these have none (tied components).
    around : tuple of Dim
        Axes within each entry of which they permute independently.
    classes : ndarray of int, shape (*around, G)
        Components of one class may change places.
    """

    site: Site
    members: tuple[int, ...]
    axis: Dim | None
    around: tuple[Dim, ...]
    classes: np.ndarray

    @property
    def weights(self) -> Slot:
        """Slot of the mixture's weights."""
        return self.site.slots["weights"]

    @property
    def name(self) -> str:
        """Name of the components' dim."""
        return self.weights.event[0].name if self.axis is None else self.axis.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an order: ``(*around, G)``."""
        return self.classes.shape

    @property
    def identity(self) -> np.ndarray:
        """The order that changes nothing, of this shape."""
        return np.broadcast_to(np.arange(self.shape[-1]), self.shape)

    @property
    def log_count(self) -> float:
        """Log of the number of permutations."""
        each = self.classes.reshape(-1, self.shape[-1])
        return float(sum(gammaln(np.unique(row, return_counts=True)[1] + 1).sum() for row in each))

    def blocks(self) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Positions among the members that may change places: (index of `around`, positions), two or more each."""
        for at in np.ndindex(self.shape[:-1]):
            for number in np.unique(self.classes[at]):
                block = np.flatnonzero(self.classes[at] == number)
                if len(block) > 1:
                    yield at, block

    def allows(self, order: np.ndarray) -> bool:
        """Whether the order (*around, G), or several (..., *around, G), moves components within their classes only."""
        order = np.asarray(order)
        if not np.array_equal(np.sort(order, -1), np.broadcast_to(self.identity, order.shape)):
            return False
        classes = np.broadcast_to(self.classes, order.shape)
        return bool((np.take_along_axis(classes, order, -1) == classes).all())


def symmetries(bound: Bound) -> list[Symmetry]:
    """Every group of components of which some may change places, outer mixtures first.

    Examples
    --------
    >>> import bayesmix as bm
    >>> from bayesmix.bound import bind
    >>> from bayesmix.data import read
    >>> spec = bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 3)
    >>> bound = bind(spec, read({"x": [0.1, 2.0, 3.0], "y": [1, 2, 0]}))
    >>> [(each.name, each.shape) for each in symmetries(bound)]
    [('component', (3,)), ('x_component', (3, 2))]
    """
    found = []
    for site in bound.site.distinct():
        if "weights" not in site.slots:
            continue
        for group, child in zip(site.node.groups, site.children):
            own = bool(child.axes) and child.axes[-1].labels == group.members and child.axes[-1] not in site.axes
            axis = child.axes[-1] if own else None
            # weights that the components around have in common keep these from being permuted one by one
            around = tuple(a for a in (child.axes[:-1] if own else site.axes) if a in site.slots["weights"].axes)
            classes = _classes(bound.site, site, axis, around, group.members)
            symmetry = Symmetry(site, group.members, axis, around, classes)
            if symmetry.log_count > 0:
                found.append(symmetry)
    return found


def log_symmetries(bound: Bound) -> float:
    """Log of the number of permutations of labels that leave the posterior as it is, in nats.

    A mass around one mode times this number is the evidence; so is that of a model whose components are kept in order.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> from bayesmix.bound import bind
    >>> from bayesmix.data import read
    >>> rows = [[0.1, 3.0], [0.2], [2.9, 3.1], [3.3]]
    >>> bound = bind(bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=2), read({"x": rows}))
    >>> round(np.exp(log_symmetries(bound)))  # 2! · 3!
    12
    """
    return sum(symmetry.log_count for symmetry in bound.symmetries)


def permuted(bound: Bound, symmetry: Symmetry, draws: Mapping[str, np.ndarray], order: np.ndarray) -> dict[str, Any]:
    """Draws with components in another order: the new component g is the old one ``order[..., g]``.

    Parameters
    ----------
    bound : Bound
    symmetry : Symmetry
    draws : dict
        Arrays (*batch, *slot.shape) by slot; any of the slots.
    order : ndarray of int, shape (*batch, *around, G)
        Positions among the members.

    Returns
    -------
    dict
        The arrays that changed.
    """
    order = np.asarray(order)
    n_batch = order.ndim - len(symmetry.shape)
    found = {}
    for slot in bound.site.all_slots():
        if slot.name in draws:
            entry = slot is symmetry.weights
            if entry or symmetry.axis in slot.axes:
                found[slot.name] = permuted_along(
                    symmetry, np.asarray(draws[slot.name]), slot.axes, order, n_batch, entry
                )
    return found


def ascending(bound: Bound, params: Params, names: Sequence[str]) -> Params:
    """The same mixture with the components labelled so that variables ascend along their last axes.

    Parameters
    ----------
    bound : Bound
    params : dict
        Values of slots; some may be missing.
    names : sequence of str
        Variables to put in order, those first that decide where not all can be.

    Examples
    --------
    >>> import bayesmix as bm
    >>> from bayesmix.bound import bind
    >>> from bayesmix.data import read
    >>> bound = bind(bm.Mixture(bm.Normal(sigma=1.0), 2), read({"x": [0.1, 3.0]}))
    >>> ascending(bound, {"mu": [3.0, 0.1], "weights": [0.6, 0.4]}, ["mu"])
    {'mu': array([0.1, 3. ]), 'weights': array([0.4, 0.6])}
    """
    out = {name: np.asarray(value) for name, value in params.items()}
    for symmetry in bound.symmetries:
        keys = [_keys_along(symmetry, bound.slots[name], out[name]) for name in names if name in out]
        if keys := [key for key in keys if key is not None]:
            key = np.concatenate(keys)
            order = symmetry.identity.copy()
            for at, block in symmetry.blocks():
                order[(*at, block)] = block[np.lexsort(key[(slice(None), *at, block)][::-1])]
            out.update(permuted(bound, symmetry, out, order))
    return out


def _keys_along(symmetry: Symmetry, slot: Slot, values: np.ndarray) -> np.ndarray | None:
    """What components are put in order by, (R, *around, G); None of a variable that they do not have last."""
    if symmetry.axis is None or slot.axes[-1:] != (symmetry.axis,):
        return None
    around = [slot.axes.index(axis) for axis in symmetry.around if axis in slot.axes]
    values = np.moveaxis(values, around, range(-1 - len(around), -1))
    values = values.reshape(-1, *values.shape[values.ndim - 1 - len(around) :])
    lengths = [len(axis) if axis in slot.axes else 1 for axis in symmetry.around]
    return np.broadcast_to(values.reshape(len(values), *lengths, values.shape[-1]), (len(values), *symmetry.shape))


def permuted_along(
    symmetry: Symmetry, values: np.ndarray, axes: tuple[Dim, ...], order: np.ndarray, n_batch: int, entry: bool = False
) -> np.ndarray:
    """An array (*batch, *axes, ...) in another order, see `permuted`.

    `entry` says that the axis after `axes` is that of all of the mixture's components, as of its weights; otherwise the
    group's own axis is one of `axes`.
    """
    batch = order.shape[:n_batch]
    if entry:
        place = n_batch + len(axes)
        index = _aligned(order, batch, symmetry.around, axes)
        index = index.reshape(index.shape + (1,) * (values.ndim - index.ndim))
        members = list(symmetry.members)
        if len(members) == values.shape[place]:
            return np.take_along_axis(values, index, place)
        here: tuple[Any, ...] = (*[slice(None)] * place, members)
        new = values.copy()
        new[here] = np.take_along_axis(values[here], index, place)
        return new
    place = axes.index(symmetry.axis)
    index = _aligned(order, batch, symmetry.around, axes[:place])
    index = index.reshape(index.shape + (1,) * (values.ndim - index.ndim))
    return np.take_along_axis(values, index, n_batch + place)


def _aligned(order: np.ndarray, batch: tuple, around: tuple[Dim, ...], axes: tuple[Dim, ...]) -> np.ndarray:
    """`order` (*batch, *around, G) with an axis of length one for every one of `axes` that is not in `around`."""
    lengths = [len(axis) if axis in around else 1 for axis in axes]
    return order.reshape([*batch, *lengths, order.shape[-1]])


# ---------------------------------------------------------------- which components are alike


def _classes(root: Site, mixture: Site, axis: Dim | None, around: tuple[Dim, ...], members: Sequence[int]) -> Any:
    shape = (*[len(each) for each in around], len(members))
    tests = []
    for site in root.distinct():
        for slot in site.slots.values():
            if slot is mixture.slots["weights"]:
                tests.append(_Alike(slot, len(slot.axes), around, members))
            elif axis is not None and axis in slot.axes:
                tests.append(_Alike(slot, slot.axes.index(axis), around, range(len(members))))
    tests = [test for test in tests if not test.always]
    classes = np.zeros(shape, int)
    if not tests:
        return classes
    for at in np.ndindex(shape[:-1]):
        first: list[int] = []
        for g in range(shape[-1]):
            same = next((n for n, h in enumerate(first) if all(test(at, h, g) for test in tests)), len(first))
            classes[(*at, g)] = same
            if same == len(first):
                first.append(g)
    return classes


class _Alike:
    """Whether two components' entries of a slot have one prior: whether swapping them changes it.

    What a slot's prior is made of are arrays that are swapped and compared; the log density of a prior of any other
    kind is compared at random points.
    """

    def __init__(self, slot: Slot, place: int, around: tuple[Dim, ...], members: Sequence[int]):
        self.slot, self.place, self.around, self.members = slot, place, around, list(members)
        arrays = _made_of(slot, place)
        self.by_density = arrays is None
        if arrays is None:
            self.centre, self.arrays = slot.central_value(), _points(slot)
        else:
            self.arrays = [a for a in arrays if not _constant_along(a, place)]
        self.always = not self.by_density and not self.arrays

    def __call__(self, at: tuple[int, ...], g: int, h: int) -> bool:
        if self.by_density:
            return self._density_is_kept(at, g, h)
        return all(np.array_equal(self._swapped(array, at, g, h), array, equal_nan=True) for array in self.arrays)

    def _density_is_kept(self, at: tuple[int, ...], g: int, h: int) -> bool:
        seen = False
        for point in self._points(at, g):
            before, after = (self.slot.log_prior(p) for p in (point, self._swapped(point, at, g, h)))
            if np.isfinite(before) != np.isfinite(after):
                return False
            if np.isfinite(before):
                seen = True
                if not np.isclose(before, after, rtol=1e-9, atol=1e-9):
                    return False
        return seen

    def _points(self, at: tuple[int, ...], g: int) -> Iterator[np.ndarray]:
        """Points of the support; after each, the prior's centre with one component's entry moved there.

        Inside of bounds that differ the density does not tell components apart; beyond those of one alone it does.
        """
        own = self._entry(at, g)
        for point in self.arrays:
            yield point
            moved = self.centre.copy()
            moved[own] = point[own]
            yield moved

    def _entry(self, at: tuple[int, ...], g: int) -> tuple:
        """Where the entries of one component are."""
        here: list[Any] = [slice(None)] * len(self.slot.shape)
        for entry, axis in zip(at, self.around):
            if axis in self.slot.axes:
                here[self.slot.axes.index(axis)] = entry
        here[self.place] = self.members[g]
        return tuple(here)

    def _swapped(self, array: np.ndarray, at: tuple[int, ...], g: int, h: int) -> np.ndarray:
        here: list[Any] = [slice(None)] * array.ndim
        for entry, axis in zip(at, self.around):
            if axis in self.slot.axes:
                place = self.slot.axes.index(axis)
                here[place] = 0 if array.shape[place] == 1 else entry
        one, other = list(here), list(here)
        one[self.place], other[self.place] = self.members[g], self.members[h]
        new = array.copy()
        new[tuple(one)], new[tuple(other)] = array[tuple(other)], array[tuple(one)]
        return new


def _made_of(slot: Slot, place: int) -> list[np.ndarray] | None:
    """Arrays, axes as the slot's, whose symmetry along the axis at `place` is that of the prior; None where unknown."""
    if slot.kind == "fixed":
        return [np.asarray(slot.value)]
    if slot.kind == "tensor":
        at = slot.value.ndim - len(slot.shape) + place
        constant_along = at < 0 or slot.value.type.shape[at] == 1
        return [] if constant_along else _all_differ(slot)
    if slot.hyper is not None:
        values = [np.asarray(v) for name, v in vars(slot.hyper).items() if name not in ("places", "floor")]
        axes = tuple(len(axis) for axis in slot.axes)
        return [v.reshape(axes + v.shape[1:]) for v in values if v.ndim]
    op = slot.rv.owner.op
    if not isinstance(op, RandomVariable) or place >= len(slot.shape) - op.ndim_supp:
        return _unknown(slot)
    numbers = hyperparameters(slot.rv)
    found = []
    parameters: Any = op.dist_params(slot.rv.owner)
    for i, (parameter, core) in enumerate(zip(parameters, op.ndims_params)):
        batch = parameter.ndim - core
        at = place - (len(slot.shape) - op.ndim_supp - batch)
        if at < 0 or parameter.type.shape[at] == 1:
            continue
        if numbers is None:
            return _unknown(slot)
        missing = len(slot.shape) - op.ndim_supp - batch
        found.append(numbers[i].reshape((1,) * missing + numbers[i].shape))
    return found


def _unknown(slot: Slot) -> list[np.ndarray] | None:
    """Of a prior that only its density can tell of; where it waits for variables of a user's own, all differ."""
    return _all_differ(slot) if slot.depends_on_model else None


def _all_differ(slot: Slot) -> list[np.ndarray]:
    return [np.arange(float(np.prod(slot.shape))).reshape(slot.shape)]


def _constant_along(array: np.ndarray, place: int) -> bool:
    return array.ndim <= place or array.shape[place] == 1 or bool((array == np.take(array, [0], place)).all())


def _points(slot: Slot) -> list[np.ndarray]:
    """Points of the support, (*slot.shape), from near the prior's centre to far, that no two components share."""
    rng = np.random.default_rng(0)
    centre = slot.central_value()
    points = []
    for step, side in itertools.product(np.geomspace(0.01, 8.0, 16), (-1, 1)):
        share, away = min(step, 1.0), step * side * (1 + rng.random(slot.shape))
        if slot.support is SIMPLEX:
            point = (1 - share) * centre + share * rng.dirichlet(np.ones(slot.shape[-1]), slot.shape[:-1])
        elif slot.support is COVARIANCE:
            root = rng.standard_normal(slot.shape)
            point = (1 - share) * centre + step * (root @ np.swapaxes(root, -1, -2) + np.eye(slot.shape[-1]))
        elif slot.support is UNIT:
            point = (1 - share) * centre + share * rng.random(slot.shape)
        elif slot.support is POSITIVE:
            point = centre * np.exp(away)
        else:
            point = centre + away * (1 + np.abs(centre))
        points.append(point)
    return points
