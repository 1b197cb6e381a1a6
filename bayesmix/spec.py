"""The tree that a user writes, and the walks that everything else is made of.

A spec is a tree of immutable `Node`s. Bound to what was learned from a table (`bayesmix.bound.bind`) it becomes a tree
of `Site`s: each site is a node in its place, with named parameter slots. A few walks carry the library:

==============  ======  =====================================================================
walk            goes    carries
==============  ======  =====================================================================
`read`          down    the table, and gives each node the column that it learns from
`layout`        down    places and what was learned, and makes the sites
`encode`        down    a table, and gives its validated arrays, rows first
`evaluate`      up      log densities ``(N, K)``, K the components around the site's parameters
`accumulate`    down    responsibilities ``(N, K)``, and adds up sufficient statistics
`seed`          down    the same with responsibilities made from the data instead of parameters
`plan`          up      instructions of the kernel, which runs `evaluate` and `accumulate` in one pass
`features`      up      rows as points, for starts
`draw`          down    a component for each row, and draws values from it
`impute`        down    the same, and fills missing cells
`expect`        down    responsibilities, and gives the means of missing cells
`gaps`          up      the missing cells, as `impute` and `expect` file them
`portraits`     up      what each field is like in each component, for sentences
`by_field`      up      the log densities that `evaluate` found, field by field
`graph`         up      `evaluate`, in PyTensor with PyMC's own densities
`observed`      up      the arrays that a PyMC model observes
`graph_draw`    down    `draw` of those arrays, in PyTensor
==============  ======  =====================================================================

`update` is the M-step of one site's own parameters, from its statistics; `natural` gives what its log density is linear
in. `lay_out` and `read_from` are what a parent calls: `layout` and `read`, with tied nodes in their own place.

A site's K is the product of the axes of its own parameters. A node whose parameters are shared by the components
around it (a shared mixture, a tied node) has fewer axes than its surroundings; `spread` and `gather` go from the one
to the other. A family need not implement any walk: `families._contract.Leaf` does it once for all of them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from bayesmix.data import Column, Table
from bayesmix.errors import DataError, SpecError
from bayesmix.params import Dim, Flat, Params, Place, Shared, Slot, check_prior_like, prior_signature, show, size_of
from bayesmix.portraits import Portrait
from bayesmix.statistics import SparseRows
from bayesmix.summaries import Cells, Seen, Summary, learn_from

#: Numbers that a sparse array may have once it is written out for PyMC.
MOST_WRITTEN = 10**9
#: Sufficient statistics: site key -> name -> array with components first. They add up by `+`.
Stats = dict[str, dict[str, np.ndarray]]
#: What nodes learn from a column (levels, reference points), by site key: frozen dataclasses of numbers and strings.
Learned = dict[str, Any]
#: The nodes that learn, by site key, each with the columns that it reads: several where it is tied.
Readers = dict[str, tuple[Any, list[Column]]]
#: Makes the label (N,) of a mixture's rows from its probabilities (N, G), in PyTensor: ``label(site, probabilities)``.
Labeller = Callable[[Any, Any], Any]


def add_to(stats: Stats, key: str, own: dict[str, np.ndarray]) -> None:
    """Add statistics of one site; a tied node's come from every place where it stands."""
    if key in stats:
        own = {name: stats[key][name] + value for name, value in own.items()}
    stats[key] = own


def add_stats(a: Stats, b: Stats) -> Stats:
    """Statistics of two disjoint sets of rows together."""
    return {key: {name: a[key][name] + b[key][name] for name in a[key]} for key in a}


def spread(values: np.ndarray, have: tuple[Dim, ...], want: tuple[Dim, ...]) -> np.ndarray:
    """Columns over the axes `have` (N, K, ...) repeated over the axes `want`: (N, K_want, ...).

    `have` is a part of `want`, in the same order.
    """
    if have == want:
        return values
    rest = values.shape[2:]
    lengths = [len(axis) for axis in want]
    kept = [len(axis) if axis in have else 1 for axis in want]
    wide = values.reshape(len(values), *kept, *rest)
    return np.broadcast_to(wide, (len(values), *lengths, *rest)).reshape(len(values), size_of(want), *rest)


def gather(resp: np.ndarray, have: tuple[Dim, ...], want: tuple[Dim, ...]) -> np.ndarray:
    """Columns over the axes `want` (N, K_want) summed to the axes `have` (N, K): the transpose of `spread`."""
    if have == want:
        return resp
    gone = tuple(i for i, axis in enumerate(want, 1) if axis not in have)
    return resp.reshape(len(resp), *[len(axis) for axis in want]).sum(gone).reshape(len(resp), size_of(have))


def places(have: tuple[Dim, ...], want: tuple[Dim, ...]) -> np.ndarray:
    """Column of `have` for each column of `want`, (K_want,)."""
    return spread(np.arange(size_of(have))[None], have, want)[0]


@dataclass(frozen=True)
class Site:
    """A node in its place.

    Attributes
    ----------
    node : Node
    place : Place
    slots : dict
        Parameter name of the family -> `Slot`.
    children : tuple of Site
    learned : Any
        What the family learned from its column; None for structure.
    """

    node: Any
    place: Place
    slots: Mapping[str, Slot]
    children: tuple[Site, ...] = ()
    learned: Any = None

    @property
    def key(self) -> str:
        return self.place.key

    @property
    def axes(self) -> tuple[Dim, ...]:
        """Axes of this site's parameters."""
        return self.place.axes

    @property
    def n_components(self) -> int:
        """K, the product of the components' axes of this site's parameters."""
        return self.place.n_components

    @property
    def is_leaf(self) -> bool:
        """Whether a family stands here."""
        return self.node.is_family

    @property
    def value_dims(self) -> tuple[Dim, ...]:
        """Named axes of one row's value at a family's site."""
        return self.node.value_dims(self.learned, self.place.prefix)

    def walk(self) -> Iterator[Site]:
        """This site and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def distinct(self) -> Iterator[Site]:
        """`walk`, tied sites once."""
        seen = set()
        for site in self.walk():
            if site.key not in seen:
                seen.add(site.key)
                yield site

    def walk_with(self, data: Encoded) -> Iterator[tuple[Site, Encoded]]:
        """`walk`, each site with its own part of the encoded data."""
        yield self, data
        for child, block in zip(self.children, self.node.child_data(data), strict=True):
            yield from child.walk_with(block)

    def leaves(self) -> Iterator[Site]:
        """The sites of families, in field order."""
        return (site for site in self.walk() if site.is_leaf)

    def all_slots(self) -> Iterator[Slot]:
        """Every slot of the tree, in order."""
        for site in self.distinct():
            yield from site.slots.values()

    def values(self, params: Params) -> dict[str, np.ndarray]:
        """This site's parameters by the family's own names, components flattened: (K, *event)."""
        return {name: slot.components(params[slot.name]) for name, slot in self.slots.items()}

    # The walks, so that a caller says `site.evaluate(...)`.

    def encode(self, table: Table, unseen: str = "error") -> Encoded:
        """See `Node.encode`."""
        return self.node.encode(self, table, unseen)

    def evaluate(self, params: Params, data: Encoded) -> Evaluation:
        """See `Node.evaluate`."""
        return self.node.evaluate(self, params, data)

    def accumulate(self, evaluation: Evaluation, data: Encoded, resp: np.ndarray, stats: Stats) -> None:
        """See `Node.accumulate`."""
        self.node.accumulate(self, evaluation, data, resp, stats)

    def seed(self, data: Encoded, resp: np.ndarray, stats: Stats, splitter: Any) -> None:
        """See `Node.seed`."""
        self.node.seed(self, data, resp, stats, splitter)

    def features(self, data: Encoded) -> np.ndarray:
        """See `Node.features`."""
        return self.node.features(self, data)

    def draw(self, params: Params, z: np.ndarray, rng: np.random.Generator, labels: dict) -> Any:
        """See `Node.draw`."""
        return self.node.draw(self, params, z, rng, labels)

    def impute(self, params: Params, evaluation: Evaluation, data: Encoded, z: np.ndarray, rng: Any, out: dict) -> None:
        """See `Node.impute`."""
        self.node.impute(self, params, evaluation, data, z, rng, out)

    def expect(self, params: Params, evaluation: Evaluation, data: Encoded, resp: np.ndarray, out: dict) -> None:
        """See `Node.expect`."""
        self.node.expect(self, params, evaluation, data, resp, out)

    def gaps(self, data: Encoded) -> Iterator[Gap]:
        """See `Node.gaps`."""
        return self.node.gaps(self, data)

    def graph(self, variables: Mapping[str, Any], observed: Mapping[str, Any], labels: Mapping[str, Any]) -> Any:
        """See `Node.graph`."""
        return self.node.graph(self, variables, observed, labels)

    def observed(self, data: Encoded) -> Iterator[Observed]:
        """See `Node.observed`."""
        return self.node.observed(self, data)

    def graph_draw(self, variables: Mapping[str, Any], z: Any, out: dict, label: Labeller) -> None:
        """See `Node.graph_draw`."""
        self.node.graph_draw(self, variables, z, out, label)


@dataclass(frozen=True)
class Encoded:
    """Validated arrays of one site, rows first.

    Attributes
    ----------
    n_rows : int
    arrays : dict
        What the family precomputed, for the rows that are present only.
    present : ndarray of int or None, shape (N_present,)
        Rows that are present, ascending; None where all are.
    children : tuple of Encoded
    """

    n_rows: int
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    present: np.ndarray | None = None
    children: tuple[Encoded, ...] = ()

    def missing_rows(self) -> np.ndarray:
        """Rows whose cell is missing, ascending."""
        if self.present is None:
            return np.empty(0, int)
        return np.setdiff1d(np.arange(self.n_rows), self.present, assume_unique=True)

    def full(self, values: Any, fill: Any) -> Any:
        """Values of the rows that are present, with `fill` in the others: rows first (zeros in sparse ones)."""
        if self.present is None:
            return values
        if isinstance(values, SparseRows):
            return values.spread(self.present, self.n_rows)
        out = np.full((self.n_rows, *values.shape[1:]), fill, values.dtype)
        out[self.present] = values
        return out

    def take(self, rows: np.ndarray) -> Encoded:
        """The same for some of the rows, in the order given (repeats allowed)."""
        arrays, present = self._own_rows(rows)
        return type(self)(len(rows), arrays, present, self._children_of(rows))

    def blank(self, n_rows: int) -> Encoded:
        """Rows of this kind that are all missing."""
        arrays = {name: array[:0] for name, array in self.arrays.items()}
        return type(self)(n_rows, arrays, np.empty(0, int), self._blank_children(n_rows))

    def without(self, gone: np.ndarray) -> Encoded:
        """The same with some rows blank, (N,) of bool: nothing is known of them."""
        present = np.arange(self.n_rows) if self.present is None else self.present
        kept = ~gone[present]
        arrays = {name: array[kept] for name, array in self.arrays.items()}
        return type(self)(self.n_rows, arrays, present[kept], self._children_without(gone))

    def _children_without(self, gone: np.ndarray) -> tuple[Encoded, ...]:
        return tuple(child.without(gone) for child in self.children)

    def _blank_children(self, n_rows: int) -> tuple[Encoded, ...]:
        return tuple(child.blank(n_rows) for child in self.children)

    def _children_of(self, rows: np.ndarray) -> tuple[Encoded, ...]:
        return tuple(child.take(rows) for child in self.children)

    def _own_rows(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        if self.present is None:
            return {name: array[rows] for name, array in self.arrays.items()}, None
        place = np.searchsorted(self.present, rows)
        there = place < len(self.present)
        there[there] = self.present[place[there]] == rows[there]
        present = np.flatnonzero(there)
        return {name: array[place[present]] for name, array in self.arrays.items()}, present


@dataclass(frozen=True)
class Evaluation:
    """Log densities on the way up, kept for the way down.

    Attributes
    ----------
    log_density : ndarray, shape (N, K)
        Zero where the row is missing: a missing cell is integrated out.
    children : tuple of Evaluation
    joint : ndarray or None, shape (N, K, G)
        At a mixture of G components: their log weights plus log densities.
    values : dict or None
        At a family: the parameters, (K, *event).
    """

    log_density: np.ndarray
    children: tuple[Evaluation, ...] = ()
    joint: np.ndarray | None = None
    values: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Observed:
    """One array that a PyMC model observes.

    Attributes
    ----------
    name : str
        Name of the observed variable.
    values : ndarray or SparseRows
        Rows first; NaN (or -1 in whole numbers) where a cell is missing.
    row_dim : str
        Dim of the first axis: ``"row"``, or that of a sequence's elements.
    dims : tuple of Dim
        The other axes.
    shapes : bool
        Whether draws take their shape from it: the lengths of sequences.
    """

    name: str
    values: Any
    row_dim: str = "row"
    dims: tuple[Dim, ...] = ()
    shapes: bool = False

    @property
    def size(self) -> int:
        """How many numbers the array has once it is written out."""
        return int(np.prod(self.values.shape, dtype=np.int64))

    def written_out(self) -> np.ndarray:
        """The array itself. Raises `DataError` where a sparse one would take more memory than a machine has."""
        if isinstance(self.values, np.ndarray):
            return self.values
        if self.size > MOST_WRITTEN:
            rows, columns = self.values.shape
            raise DataError(
                f"{self.name}: a PyMC model holds sets as a matrix of {rows:,} rows and {columns:,} symbols, "
                f"{8e-9 * self.size:,.0f} GB. Use fit_em, which needs what is in the sets alone, or take fewer rows or "
                "symbols (the rarest as one)."
            )
        return np.asarray(self.values, np.int64)


@dataclass(frozen=True)
class Gap:
    """The missing cells of one field.

    Attributes
    ----------
    path : str
        As in the results of `impute`; elements of a sequence are called ``path[]``.
    rows : ndarray of int, shape (n_missing,)
    positions : ndarray of int or None, shape (n_missing,)
        Within the row's sequence; (n_missing, L) where sequences stand in sequences, L of them, outer places first.
    coordinates : ndarray of bool or None, shape (n_missing, D)
        Which coordinates of a vector are missing; None where all are.
    site : Site
        Of the family, or of the structure whose whole value is missing.
    """

    path: str
    rows: np.ndarray
    site: Site
    positions: np.ndarray | None = None
    coordinates: np.ndarray | None = None


class NotLinear(Exception):
    """A node whose log density is not linear in statistics that do not depend on the parameters: it has no `plan`."""


class Node(ABC):
    """A node of the specification: a family or a structure. Immutable."""

    tie: str | None = None
    is_family: ClassVar[bool] = False
    #: What one value is: `Leaf`'s kinds, ``"chain"`` for a sequence of symbols; empty where only the parts have values.
    value_kind: ClassVar[str] = ""
    #: Whether a value that many rows share is what a family of real numbers is made for.
    expects_ties: ClassVar[bool] = False
    #: Keywords of `priors` that are never estimated (the ends of a range).
    constants: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def parts(self) -> tuple[tuple[str, Node], ...]:
        """Child nodes with the names that errors call them by."""

    @property
    @abstractmethod
    def priors(self) -> dict[str, Any]:
        """Prior keyword -> what the user gave (None for the default)."""

    @abstractmethod
    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Node:
        """The same node with other priors and children."""

    @property
    def options(self) -> dict[str, Any]:
        """What a node is made of besides priors and parts, as plain JSON values by attribute."""
        return {"tie": self.tie}

    @classmethod
    def restore(cls, options: Mapping[str, Any], priors: Mapping[str, Any], parts: list[tuple[str, Node]]) -> Node:
        """The node that has these `options`, `priors` and `parts`."""
        new = cls.__new__(cls)
        for name, value in options.items():
            object.__setattr__(new, name, value)
        return new.with_priors(priors, tuple(node for _, node in parts))

    @abstractmethod
    def read(self, table: Table, place: Place, readers: Readers) -> None:
        """Put every node here and below that learns from data into `readers`, with its column, by site key.

        Such a node has `summarise` and `learn_summary`; the latter's result is ``site.learned``.
        """

    def column_names(self) -> tuple[str, ...] | None:
        """The columns that this node, as the root, reads of a table with names; None for all."""
        return None

    def learn(self, columns: list[Column]) -> Any:
        """What must be known of all the columns that the node reads, taken as one."""
        return learn_from(self, [Seen.of(self, column) for column in columns])

    def summarise(self, column: Column, earlier: Any = None) -> Summary:
        """What a part of the column says to `learn_summary`; it adds up over parts. See `bayesmix.summaries`.

        Not every cell of it is missing. `earlier` is the sum over all parts, where that wanted another look at them. By
        default the cells themselves. Raises `DataError` where they are not of this node's kind.
        """
        return Cells([column])

    def learn_summary(self, summary: Any, name: str) -> Any:
        """What must be known of the column ever after, from its summary; `name` is for errors."""
        raise NotImplementedError(f"{type(self).__name__} reads a column, but has no learn_summary.")

    @abstractmethod
    def layout(self, place: Place, learned: Learned) -> Site:
        """The tree of sites, with named slots and resolved priors."""

    def known(self, learned: Learned, place: Place) -> Any:
        """What was learned here; where nothing was, for want of data, what the node's own numbers say."""
        if place.key not in learned:
            learned[place.key] = self.assume(place)
        return learned[place.key]

    def assume(self, place: Place) -> Any:
        """What stands for what would be learned from data, in a spec that is all numbers."""
        raise SpecError(f"{place.path or type(self).__name__}: this needs data to learn from. Use bm.fit.")

    def fixed_at(self, site: Site, params: Params) -> Node:
        """The same node with every parameter fixed at its value."""
        priors = {}
        for name, given in self.priors.items():
            slot = site.slots.get(name)
            value = given if slot is None else np.asarray(params[slot.name])
            priors[name] = Shared(value) if isinstance(given, Shared) and slot is not None else value
        return self.with_priors(priors, self._fixed_parts(site, params))

    def _fixed_parts(self, site: Site, params: Params) -> tuple[Node, ...]:
        return tuple(child.node.fixed_at(child, params) for child in site.children)

    @abstractmethod
    def encode(self, site: Site, table: Table, unseen: str) -> Encoded:
        """Validated arrays. Raises `DataError`; `unseen="ignore"` treats unknown symbols as missing."""

    @abstractmethod
    def child_data(self, data: Encoded) -> tuple[Encoded, ...]:
        """The encoded data of each child, in the order of `Site.children`."""

    @abstractmethod
    def evaluate(self, site: Site, params: Params, data: Encoded) -> Evaluation:
        """Log densities (N, K) at `params`."""

    @abstractmethod
    def accumulate(self, site: Site, evaluation: Evaluation, data: Encoded, resp: np.ndarray, stats: Stats) -> None:
        """Add the sufficient statistics under responsibilities `resp` (N, K) to `stats`."""

    @abstractmethod
    def seed(self, site: Site, data: Encoded, resp: np.ndarray, stats: Stats, splitter: Any) -> None:
        """`accumulate` with inner responsibilities made by ``splitter(features, weights, n)``."""

    @abstractmethod
    def features(self, site: Site, data: Encoded) -> np.ndarray:
        """Rows as points of a Euclidean space (N, F), for starts; NaN where missing."""

    @abstractmethod
    def update(self, site: Site, stats: Stats, params: Params) -> dict[str, np.ndarray]:
        """The M-step: new values of this site's free slots, maximising expected log density + log prior."""

    def natural(self, params: Mapping[str, Any], learned: Any, xp: Any) -> dict[str, Any]:
        """Natural parameters of this site, (K, ...), by the names of its statistics, in which the density is linear.

        `xp` is numpy or pytensor.tensor.
        """
        return {}

    def expected_logp(self, params: Mapping[str, Any], stats: Mapping[str, Any], learned: Any, xp: Any) -> Any:
        """Expected log density (K,) of this site's own parameters from its statistics alone.

        Its gradient is the gradient of the log-likelihood (Fisher's identity).
        """
        terms = [value * stats[name] for name, value in self.natural(params, learned, xp).items()]
        return sum(term if term.ndim == 1 else term.sum(tuple(range(1, term.ndim))) for term in terms)

    @abstractmethod
    def plan(self, site: Site, data: Encoded, plan: Any, into: Any, level: int) -> Any:
        """Write the instructions of `evaluate` and `accumulate` into a `bayesmix.plan.Plan`.

        The log densities are added to the buffer `into`, or to a new one where it is None; the buffer is returned.
        Raises `NotLinear` where there is no linear form.
        """

    @abstractmethod
    def draw(self, site: Site, params: Params, z: np.ndarray, rng: np.random.Generator, labels: dict) -> Any:
        """Draw one value a row from components `z` (N,): an array of the user's own values, rows first.

        A composite gives a dict of them. The labels drawn on the way go into ``labels[site.key]``.
        """

    @abstractmethod
    def impute(
        self, site: Site, params: Params, evaluation: Evaluation, data: Encoded, z: np.ndarray, rng: Any, out: dict
    ) -> None:
        """Draw the missing cells given components `z` (N,) and what is observed, into ``out[path]``."""

    @abstractmethod
    def expect(
        self, site: Site, params: Params, evaluation: Evaluation, data: Encoded, resp: np.ndarray, out: dict
    ) -> None:
        """Add the means of the missing cells under responsibilities `resp` (N, K) to ``out[path]``."""

    @abstractmethod
    def gaps(self, site: Site, data: Encoded) -> Iterator[Gap]:
        """The missing cells, as `impute` and `expect` file them."""

    def portraits(self, site: Site, params: Params) -> list[Portrait]:
        """What is typical of each of the site's K components, a portrait for each field below.

        By default the field here, with all that is below as its parts.
        """
        path = site.place.path
        below = [
            portrait.at(places(child.axes, site.axes)).within(path, "")
            for child in site.children
            for portrait in child.node.portraits(child, params)
        ]
        return [Portrait(path, type(self).__name__, parts=tuple(below))]

    def by_field(self, site: Site, evaluation: Evaluation) -> list[tuple[str, np.ndarray]]:
        """Path and log densities (N, K) of each field below: `portraits`' fields, in that order."""
        return [(site.place.path, evaluation.log_density)]

    @abstractmethod
    def graph(
        self, site: Site, variables: Mapping[str, Any], observed: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> Any:
        """`evaluate` as a PyTensor expression (N, K) of PyMC variables and observed values by name.

        A mixture whose label is among `labels` (by site key) is taken at the label instead of summed out.
        """

    @abstractmethod
    def observed(self, site: Site, data: Encoded) -> Iterator[Observed]:
        """What a PyMC model of this site observes."""

    @abstractmethod
    def graph_draw(self, site: Site, variables: Mapping[str, Any], z: Any, out: dict, label: Labeller) -> None:
        """Draw what is `observed`, as PyTensor expressions by name into `out`.

        ``out["table", name]`` holds what the table has (draws of sequences take their shape from it), and
        ``out["rows", name]`` is set to the row of each element where a variable's rows are elements of sequences.
        """

    def lay_out(self, place: Place, learned: Learned) -> Site:
        """`layout`; a tied node in its own place."""
        return self.layout(place.tied(self.tie) if self.tie else place, learned)

    def read_from(self, table: Table, place: Place, readers: Readers) -> None:
        """`read`; a tied node in its own place."""
        self.read(table, place.tied(self.tie) if self.tie else place, readers)

    def independent_fields(self, site: Site, data: Encoded) -> list[tuple[Site, Encoded]]:
        """The families, with their data, that make up a row independently of each other given the component.

        Empty for a node that is more than that. The method of moments estimates from their cross moments.
        """
        return []

    def with_flat_priors(self) -> Node:
        """The same tree with improper flat priors on every free parameter: plain maximum likelihood.

        Fixed numbers stay fixed.

        Examples
        --------
        >>> import bayesmix as bm
        >>> bm.Mixture(bm.Poisson(), 2).with_flat_priors()
        Mixture(Poisson(mu=Flat()), 2, weights=Flat())
        """
        return self.with_priors(
            {name: given if name in self.constants else _flattened(given) for name, given in self.priors.items()},
            tuple(child.with_flat_priors() for _, child in self.parts),
        )

    def faults(self, path: str = "") -> list[str]:
        """Every fault of this node and those below, by path."""
        found = [
            fault
            for name, given in self.priors.items()
            if (fault := check_prior_like(f"{path}{name}", given)) is not None
        ]
        if self.tie is not None and (not isinstance(self.tie, str) or not self.tie):
            found.append(f"{path}tie: a name is needed, not {self.tie!r}.")
        for name, child in self.parts:
            below = f"{path}{name}." if name else path
            if isinstance(child, Node):
                found += child.faults(below)
            else:
                shown = f"{child!r} is not a bayesmix node."
                if isinstance(child, type) and issubclass(child, Node):
                    shown = f"{child.__name__} is a class. Write {child.__name__}(), with brackets."
                found.append(f"{below.rstrip('.') or type(self).__name__}: {shown}")
        return found

    @property
    def shown_options(self) -> list[str]:
        """What a tree of the spec says of this node besides its priors and parts, as code."""
        options = {name: value for name, value in self.options.items() if not name.startswith("_")}
        return [
            f"{name}={list(value) if isinstance(value, tuple) else value!r}"
            for name, value in options.items()
            if value is not None
        ]

    def plain(self) -> Node:
        """What stands in for this node once it is bound: itself, but for nodes that carry notes for their reader."""
        return self

    def __eq__(self, other: object) -> bool:
        """Specs are values: equal where one would make the same model as the other."""
        return isinstance(other, Node) and signature(self) == signature(other)

    def __hash__(self) -> int:
        return hash(signature(self))

    def _repr_html_(self) -> str:
        from bayesmix.trees import spec_tree

        return spec_tree(self)

    def _shown_priors(self) -> list[str]:
        shown = [f"{name}={show(given)}" for name, given in self.priors.items() if given is not None]
        return shown + ([f"tie={self.tie!r}"] if self.tie else [])

    def _changed(self, **attributes: Any) -> Any:
        """A copy with other attributes."""
        new = copy.copy(self)
        for name, value in attributes.items():
            object.__setattr__(new, name, value)
        return new


def is_given_value(given: Any) -> bool:
    """Whether a prior keyword is a fixed number or array."""
    from pytensor.graph.basic import Variable

    return given is not None and not isinstance(given, (Flat, Shared, Variable))


def _flattened(given: Any) -> Any:
    if isinstance(given, Shared):
        return Shared(_flattened(given.prior))
    return given if is_given_value(given) else Flat()


def validate(spec: Any) -> None:
    """Raise one `SpecError` that lists every fault of the spec."""
    if not isinstance(spec, Node):
        raise SpecError(f"a spec is needed, such as bm.Mixture(bm.Normal(), 2), not {type(spec).__name__}.")
    faults = spec.faults()
    tied: dict[str, Node] = {}
    for node in _all_nodes(spec) if not faults else ():
        if node.tie and signature(tied.setdefault(node.tie, node)) != signature(node):
            faults.append(f"tie={node.tie!r}: {tied[node.tie]!r} and {node!r} differ. Tied nodes must be equal.")
    if faults:
        raise SpecError(faults)


def signature(node: Node) -> Any:
    """Equal for nodes that are one in all but their place, to the last digit of their priors."""
    node = node.plain()
    return (
        type(node),
        repr(node.options),
        tuple((name, prior_signature(given)) for name, given in node.priors.items()),
        tuple((name, signature(child)) for name, child in node.parts),
    )


def _all_nodes(spec: Node) -> Iterator[Node]:
    yield spec
    for _, child in spec.parts:
        yield from _all_nodes(child)
