"""The tree that a user writes, and the walks that everything else is made of.

A spec is a tree of immutable `Node`s. Bound to what was learned from a table it becomes a tree of `Site`s:
each site is a node in its place, with named parameter slots. Five walks over the sites carry the library:

=============  ======  =====================================================================
walk           goes    carries
=============  ======  =====================================================================
`evaluate`     up      log densities ``(N, K)``, K the components of the mixtures around the site
`accumulate`   down    responsibilities ``(N, K)``, and adds up sufficient statistics
`seed`         down    the same with responsibilities made from the data instead of parameters
`draw`         down    a component for each row, and makes data (or fills missing cells)
`graph`        up      `evaluate`, in PyTensor with PyMC's own densities
=============  ======  =====================================================================

Leaves implement none of these; `families._contract.Leaf` does it once for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesmix.data import Table
from bayesmix.errors import SpecError
from bayesmix.params import Dim, Flat, Params, Place, Slot, check_prior_like, show

#: Sufficient statistics: site key -> name -> array with components first. They add up by `+`.
Stats = dict[str, dict[str, np.ndarray]]
#: What families learn from a column (levels, reference points): site key -> anything that knows `to_json`.
Learned = dict[str, Any]


def add_stats(a: Stats, b: Stats) -> Stats:
    """Statistics of two disjoint sets of rows together."""
    return {key: {name: a[key][name] + b[key][name] for name in a[key]} for key in a}


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
    def n_components(self) -> int:
        """K, the product of the components' axes around this site."""
        return self.place.n_components

    @property
    def value_dims(self) -> tuple[Dim, ...]:
        """Named axes of one row's value at a family's site."""
        return self.node.value_dims(self.learned, self.place.prefix)

    def walk(self) -> Iterator[Site]:
        """This site and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def walk_with(self, data: Encoded) -> Iterator[tuple[Site, Encoded]]:
        """`walk`, each site with its own part of the encoded data."""
        yield self, data
        for child, block in zip(self.children, self.node.child_data(data), strict=True):
            yield from child.walk_with(block)

    def leaves(self) -> Iterator[Site]:
        """The sites of families, in field order."""
        return (site for site in self.walk() if not site.children)

    def all_slots(self) -> Iterator[Slot]:
        """Every slot of the tree, in order."""
        for site in self.walk():
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


@dataclass(frozen=True)
class Encoded:
    """Validated arrays of one site, rows first.

    Attributes
    ----------
    n_rows : int
    arrays : dict
        What the family precomputed, for the rows that are present only.
    present : ndarray of int or None, shape (N_present,)
        Rows that are present; None where all are.
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

    def take(self, rows: np.ndarray) -> Encoded:
        """The same for some of the rows, in the order given (repeats allowed)."""
        if self.present is None:
            arrays = {name: array[rows] for name, array in self.arrays.items()}
            return Encoded(len(rows), arrays, None, tuple(child.take(rows) for child in self.children))
        position = np.full(self.n_rows, -1)
        position[self.present] = np.arange(len(self.present))
        chosen = position[rows]
        present = np.flatnonzero(chosen >= 0)
        arrays = {name: array[chosen[present]] for name, array in self.arrays.items()}
        return Encoded(len(rows), arrays, present, tuple(child.take(rows) for child in self.children))


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
    """

    log_density: np.ndarray
    children: tuple[Evaluation, ...] = ()
    joint: np.ndarray | None = None


class Node(ABC):
    """A node of the specification: a family or a structure. Immutable."""

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

    @abstractmethod
    def learn(self, table: Table, place: Place, learned: Learned) -> None:
        """Put what each family below needs to know of its column (levels, reference points) into `learned`."""

    @abstractmethod
    def layout(self, place: Place, learned: Learned) -> Site:
        """The tree of sites, with named slots and resolved priors."""

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

    @abstractmethod
    def draw(self, site: Site, params: Params, z: np.ndarray, rng: np.random.Generator, out: dict) -> None:
        """Draw one value a row from components `z` (N,) into ``out[site.key]``."""

    @abstractmethod
    def impute(
        self, site: Site, params: Params, evaluation: Evaluation, data: Encoded, z: np.ndarray, rng: Any, out: dict
    ) -> None:
        """Draw the missing cells given components `z` (N,) and what is observed, into ``out[site.key]``."""

    @abstractmethod
    def graph(self, site: Site, variables: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """`evaluate` as a PyTensor expression (N, K) of PyMC variables and observed values by site key."""

    @abstractmethod
    def linear_blocks(self, site: Site, data: Encoded) -> list[np.ndarray]:
        """Matrices (N, J) of row statistics for `linear_graph`, in the order in which it takes them."""

    @abstractmethod
    def linear_graph(self, site: Site, variables: Mapping[str, Any], blocks: Iterator[Any]) -> Any:
        """`graph` by the exponential family's form: row statistics times natural parameters, (N, K)."""

    @abstractmethod
    def graph_draw(self, site: Site, variables: Mapping[str, Any], z: Any, out: dict) -> None:
        """`draw` as PyTensor expressions."""

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
        priors = {name: given if is_given_value(given) else Flat() for name, given in self.priors.items()}
        return self.with_priors(priors, tuple(child.with_flat_priors() for _, child in self.parts))

    def faults(self, path: str = "") -> list[str]:
        """Every fault of this node and those below, by path."""
        found = [
            fault
            for name, given in self.priors.items()
            if (fault := check_prior_like(f"{path}{name}", given)) is not None
        ]
        for name, child in self.parts:
            below = f"{path}{name}." if name else path
            if isinstance(child, Node):
                found += child.faults(below)
            else:
                found.append(f"{below.rstrip('.') or type(self).__name__}: {child!r} is not a bayesmix node.")
        return found

    def _shown_priors(self) -> list[str]:
        return [f"{name}={show(given)}" for name, given in self.priors.items() if given is not None]


def is_given_value(given: Any) -> bool:
    """Whether a prior keyword is a fixed number or array."""
    from pytensor.graph.basic import Variable

    return given is not None and not isinstance(given, (Flat, Variable))


def validate(spec: Any) -> None:
    """Raise one `SpecError` that lists every fault of the spec."""
    if not isinstance(spec, Node):
        raise SpecError(f"a spec is needed, such as bm.Mixture(bm.Normal(), 2), not {type(spec).__name__}.")
    faults = spec.faults()
    if faults:
        raise SpecError(faults)
