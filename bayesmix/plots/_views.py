"""Fields, without knowing any family or structure: what a fit says of each, and what its components are like.

Densities are those of the tree at rows in which all but one field is missing, and everything else is read from rows
that are drawn from one component and encoded as if they were data: whatever is counted in the observed rows is counted
in the drawn ones too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from bayesmix.data import Column, Table, column_of, texts
from bayesmix.fit import Fit
from bayesmix.params import Params
from bayesmix.spec import Encoded, Readers, Site
from bayesmix.structure.sequence import Ragged, cells

#: Posterior draws that a curve is the mean of.
_CURVE_DRAWS = 40
#: Rows drawn from each component, the elements of their sequences and the cells of all fields at most.
_DRAWN_ROWS = 4000
_DRAWN_ELEMENTS = 80_000
_DRAWN_CELLS = 150_000
#: Rows below which fields could not be ranked.
_FEWEST_ROWS = 200


@dataclass(frozen=True)
class View:
    """One field: its values in the data, and in rows drawn from each component.

    Attributes
    ----------
    name : str
        The field's path; elements of a sequence are called ``path[]``.
    site : Site
        Of the family (the first of them, where components have different ones).
    observed : Encoded
    drawn : list of Column
        The user's own values, from `n_drawn` rows of each of the G components.
    weights : ndarray, shape (G,)
        Of the components among rows.
    joint : callable
        Weight times density of each component at T draws of the parameters, (T, n, G), at n of the user's own values.
    expected : callable
        Mean of the value in each component at T draws of the parameters, (T, G, ...); None where there is none.
    """

    name: str
    site: Site
    observed: Encoded
    drawn: list[Column]
    n_drawn: int
    weights: np.ndarray
    joint: Callable[[Any], np.ndarray]
    expected: Callable[[], np.ndarray | None]

    @property
    def values(self) -> np.ndarray:
        """Encoded values of the cells that are present."""
        return self.observed.arrays["value"]

    @property
    def missing(self) -> float:
        """Share of missing cells."""
        return len(self.observed.missing_rows()) / max(self.observed.n_rows, 1)

    def amounts(self, of: Callable[[Column], Any]) -> np.ndarray:
        """What each component adds to a row's expected amount of something, (..., G)."""
        return np.stack([of(column) for column in self.drawn], axis=-1) / self.n_drawn * self.weights

    def curves(self, values: np.ndarray) -> np.ndarray:
        """Density of each component times its share of the field's values, (n, G), at encoded `values`."""
        return self.each_curve(values).mean(0)

    def each_curve(self, values: np.ndarray) -> np.ndarray:
        """`curves` at each draw of the parameters, (T, n, G)."""
        return self.joint(self.site.node.decode(values, self.site.learned)) * self._present

    def each_marginal(self, values: np.ndarray, coordinate: int) -> np.ndarray:
        """The same of one coordinate of a vector, with the others missing."""
        vectors = np.full((len(values), len(self.site.value_dims[0])), np.nan)
        vectors[:, coordinate] = values
        column = Column(self.name, vectors, np.zeros(len(values), bool), "number")
        return self.joint(column) * self._present

    @property
    def _present(self) -> np.ndarray:
        """How many values a row of each component has, over the mean of all components, (G,)."""
        present = np.array([(~column.missing).sum() for column in self.drawn]) / self.n_drawn
        return np.asarray(present / (self.weights @ present))

    @property
    def n_symbols(self) -> int:
        """Number of symbols of a field of symbols."""
        return 1 + max(int(codes.max(initial=0)) for codes in (self.values, *map(self.encoded, self.drawn)))

    def called(self, only_column: str) -> str:
        """The field's name for people; a lone field has its column's."""
        return self.name if self.name.strip("[]") else f"{only_column}{self.name}"

    def coordinate_names(self, name: str) -> list[str]:
        """Names of a vector's coordinates."""
        labels = texts(self.site.value_dims[0].labels)
        unnamed = {f"{self.site.place.path}[{d}]": f"{name}[{d}]" for d in range(len(labels))}
        return [unnamed.get(label, label) for label in labels]

    def as_data(self, column: Column) -> Encoded:
        """A drawn column, with the cells that are present."""
        if self.site.node.value_kind == "chain":
            return of_chains(self, column)
        return Encoded(int((~column.missing).sum()), {"value": self.encoded(column)})

    def encoded(self, column: Column) -> np.ndarray:
        """Encoded values of a drawn column's cells that are present."""
        return np.asarray(self.site.node.encode_column(column, self.site.learned)["value"])[~column.missing]


def views(fit: Fit, encoded: Encoded, n_draws: int = _CURVE_DRAWS) -> Iterator[View]:
    """Every field, in order."""
    params, draws = fit.params, fit._draws(n_draws)
    for root in _outermost(Spot(fit.bound.site, encoded)):
        weights = root.site.values(params)["weights"][0] if root.is_mixture else np.ones(1)
        fields = list(root.fields())
        size = _affordable(root, len(fields) * len(weights))
        drawn = [_drawn(root, params, k, size) for k in range(len(weights))]
        means = cache(partial(_means, root, len(weights), draws))
        seen = set()
        for i, spot in enumerate(fields):
            if spot.name not in seen:  # different components have a place each for one field
                seen.add(spot.name)
                joint = partial(_joint, root, spot.name, draws)
                expected = partial(_mean_of, means, spot.site.place.path)
                columns = [each[i] for each in drawn]
                yield View(spot.name, spot.site, spot.data, columns, size, weights, joint, expected)


@dataclass(frozen=True)
class Spot:
    """A site with its part of the data, and what the panels call it.

    `around` is the path of the innermost sequence that it is an element of, and `called` what the elements are called.
    """

    site: Site
    data: Encoded
    around: str = ""
    called: str = ""

    @property
    def name(self) -> str:
        return self.called + self.site.place.path[len(self.around) :]

    @property
    def is_mixture(self) -> bool:
        return "weights" in self.site.slots

    def below(self) -> list[Spot]:
        """The children."""
        found = []
        for i, (site, data) in enumerate(zip(self.site.children, self.site.node.child_data(self.data))):
            element = i == 0 and isinstance(self.data, Ragged) and data is not self.data
            found.append(
                Spot(site, data, self.site.place.path, f"{self.name}[]")
                if element
                else replace(self, site=site, data=data)
            )
        return found

    def fields(self) -> Iterator[Spot]:
        """What has values of its own, in order."""
        if self.site.node.value_kind:
            yield self
        for child in self.below():
            yield from child.fields()


def _outermost(spot: Spot) -> Iterator[Spot]:
    """The outermost mixtures, and what is outside of them: the outermost nodes that have parameters."""
    if spot.site.slots:
        yield spot
    else:
        for child in spot.below():
            yield from _outermost(child)


def _affordable(root: Spot, n_columns: int) -> int:
    """Rows to draw from a component, fewer where sequences are long or fields and components are many."""
    lengths = [data.arrays["length"].sum() for _, data in root.site.walk_with(root.data) if "length" in data.arrays]
    longest = max(lengths, default=0) / max(root.data.n_rows, 1)
    affordable = min(_DRAWN_ELEMENTS / max(longest, 1), max(_DRAWN_CELLS / n_columns, _FEWEST_ROWS))
    return int(np.clip(affordable, 50, _DRAWN_ROWS))


def _drawn(root: Spot, params: Params, k: int, size: int) -> list[Column]:
    """Columns of `root.fields()` in rows drawn from component k, read as if they were data."""
    site = root.site
    values = site.draw(_only(root, params, k), np.zeros(size, int), np.random.default_rng(0), {})
    column = column_of(cells(site.node, values), site.place.path or "x")
    readers: Readers = {}
    site.node.read(Table((column,), False, size), site.place, readers)
    tied = {key: iter(columns) for key, (_, columns) in readers.items()}
    return [next(tied[spot.site.key]) for spot in root.fields()]


def _only(root: Spot, params: Params, k: int) -> Params:
    """Parameters at which every row is of component k."""
    if not root.is_mixture:
        return params
    slot = root.site.slots["weights"]
    return {**params, slot.name: np.eye(len(slot.event[0]))[k]}


def _means(root: Spot, n_components: int, draws: list) -> list[list[dict]]:
    """Mean of every field in each component, by draw and component: path -> (1, ...)."""
    blank = root.data.blank(1)
    found: list[list[dict]] = []
    for params in draws:
        found.append([])
        for k in range(n_components):
            own = _only(root, params, k)
            out: dict[Any, Any] = {}
            with np.errstate(divide="ignore"):
                root.site.expect(own, root.site.evaluate(own, blank), blank, np.ones((1, 1)), out)
            found[-1].append(out)
    return found


def _mean_of(means: Callable[[], list[list[dict]]], path: str) -> np.ndarray | None:
    """One field's part of `_means`."""
    if any(path not in out for each in means() for out in each):
        return None
    return np.array([[np.asarray(out[path])[0] for out in each] for each in means()])


def _joint(root: Spot, name: str, draws: list, values: Any) -> np.ndarray:
    """Weight times density of each component of `root` at values of one field, (T, n, G), all else summed out."""
    site, data = _alone(root, name, values if isinstance(values, Column) else column_of(values, name))
    found = []
    for params in draws:
        evaluation = site.evaluate(params, data)
        found.append(np.exp(evaluation.log_density if evaluation.joint is None else evaluation.joint[:, 0]))
    return np.array(found)


def _alone(spot: Spot, name: str, column: Column) -> tuple[Site, Encoded]:
    """Rows that have one field only, all others are missing; and the site, of records with that field alone."""
    size = len(column)
    if spot.site.is_leaf and spot.name == name:
        arrays = dict(spot.site.node.encode_column(column, spot.site.learned))
        arrays.pop("unknown", None)
        return spot.site, Encoded(size, arrays)
    below = spot.below()
    if not spot.site.slots and not isinstance(spot.data, Ragged):  # a wide record is slow to evaluate whole
        below = [child for child in below if any(each.name == name for each in child.fields())] or below[:1]
    parts = [_alone(child, name, column) for child in below]
    children = tuple(data for _, data in parts)
    site = replace(spot.site, children=tuple(each for each, _ in parts)) if parts else spot.site
    if below and below[0].data is spot.data:
        return site, children[0]
    if isinstance(spot.data, Ragged) and name.startswith(f"{spot.name}[]"):
        return site, Ragged(size, {"length": np.ones(size, int)}, None, children)  # rows of one element each
    return site, replace(spot.data.blank(size), children=children)


# ---------------------------------------------------------------- what can be measured in every field


@dataclass(frozen=True)
class Feature:
    """One number of a field: its value, a coordinate of it, or whether it is, or holds, a symbol.

    Attributes
    ----------
    name : str
        For people.
    field : str
        Path of the field.
    observed : ndarray, shape (n,)
        In the data, where it is present.
    drawn : list of ndarray
        In rows drawn from each component.
    expected : ndarray, shape (T, G)
        Its mean in each component at draws of the parameters.
    weights : ndarray, shape (G,)
    share : bool
        Whether it is 0 or 1, or a share in between.
    """

    name: str
    field: str
    observed: np.ndarray
    drawn: list[np.ndarray]
    expected: np.ndarray
    weights: np.ndarray
    share: bool

    @property
    def separation(self) -> float:
        """How far components differ: share of the variance between them, of the value or of how far off it is."""
        held = [k for k, values in enumerate(self.drawn) if len(values)]
        if len(held) < 2:
            return 0.0
        drawn, weights = [self.drawn[k] for k in held], self.weights[held] / self.weights[held].sum()
        middle = np.median(np.concatenate(drawn))
        return max(_between(drawn, weights), _between([np.abs(values - middle) for values in drawn], weights))


def _between(drawn: list[np.ndarray], weights: np.ndarray) -> float:
    means, variances = np.array([[values.mean(), values.var()] for values in drawn]).T
    between = float(weights @ (means - weights @ means) ** 2)
    total = between + float(weights @ variances)
    return between / total if total > 0 else 0.0


def features(view: View, only_column: str) -> list[Feature]:
    """What can be measured in a field."""
    name, kind = view.called(only_column), view.site.node.value_kind
    observed = _measured(view, view.observed)
    drawn = [_measured(view, view.as_data(column)) for column in view.drawn]
    expected = view.expected()
    if expected is None:
        expected = np.array(
            [[values.mean(0) if len(values) else np.full(observed.shape[1], np.nan) for values in drawn]]
        )
    width = observed.shape[1]
    expected = expected.reshape(*expected.shape[:2], -1)
    if expected.shape[2] == width - 1:  # truth values: of the second
        expected = np.concatenate([1 - expected.sum(2, keepdims=True), expected], axis=2)
    share = bool(kind in ("symbol", "truth", "set", "chain"))
    names, which = _feature_names(view, name, width)
    return [
        Feature(
            label, view.name, observed[:, j], [values[:, j] for values in drawn], expected[:, :, j], view.weights, share
        )
        for label, j in zip(names, which)
    ]


def _feature_names(view: View, name: str, width: int) -> tuple[list[str], list[int]]:
    """Names of what is measured in a field, and which columns they are; of two symbols one says it all."""
    kind, every = view.site.node.value_kind, list(range(width))
    if kind in ("symbol", "truth"):
        labels = texts(view.site.node.decode(np.arange(width), view.site.learned))
        which = every[1:] if width == 2 else every
        return [f"{name} = {labels[j]}" for j in which], which
    if kind == "set":
        return [f"{name} has {label}" for label in texts(view.site.value_dims[0].labels)], every
    if kind == "chain":
        return [f"{name}: {label}" for label in texts(view.site.learned.levels)], every
    return (view.coordinate_names(name) if view.site.node.value_ndim else [name]), every


def _measured(view: View, data: Encoded) -> np.ndarray:
    """Numbers of the rows that are present, (n, F), without NaN."""
    kind = view.site.node.value_kind
    if kind == "chain":
        size = len(view.site.learned.levels)
        counts = [np.bincount(codes, minlength=size) / len(codes) for codes in data.arrays["codes"] if len(codes)]
        return np.array(counts).reshape(-1, size)
    values = np.asarray(data.arrays["value"])
    if kind in ("symbol", "truth"):
        return np.eye(view.n_symbols)[values.astype(int)]
    values = values.astype(float).reshape(len(values), math.prod(values.shape[1:]))  # also where no row has it
    return values[~np.isnan(values).any(1)]


def of_chains(view: View, column: Column) -> Encoded:
    """A drawn column of chains, encoded."""
    return view.site.encode(Table((column,), False, len(column)), "ignore")
