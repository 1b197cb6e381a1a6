"""Sequences: any number of elements in a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pytensor.tensor as pt

from bayesmix.data import Column, Table, lengths_and_elements
from bayesmix.params import Place
from bayesmix.portraits import Portrait
from bayesmix.spec import Encoded, Evaluation, Gap, Node, Observed, Site, gather, places, spread
from bayesmix.summaries import Counts


@dataclass(frozen=True)
class Lengths:
    """The lengths of the training sequences and how often each came: what draws without a length family use."""

    lengths: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, summary: Counts) -> Lengths:
        """From how often each length came."""
        values = sorted(summary.counts)
        if not values:
            return cls((0,), (1.0,))
        counts = np.array([summary.counts[value] for value in values])
        return cls(tuple(values), tuple((counts / counts.sum()).tolist()))


def count_lengths(column: Column) -> Counts:
    """How often each length came in a column of lengths."""
    values, counts = np.unique(column.values[~column.missing].astype(int), return_counts=True)
    return Counts(Counter(dict(zip(values.tolist(), counts.tolist()))))


@dataclass(frozen=True)
class Ragged(Encoded):
    """Sequences: the first child holds the elements of all rows that are present, row after row.

    ``arrays["length"]`` are the lengths of the rows that are present.
    """

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row, (N,); 0 where it is missing."""
        return self.full(self.arrays["length"], 0)

    @property
    def owner(self) -> np.ndarray:
        """Row of every element, (T,)."""
        return np.repeat(np.arange(self.n_rows), self.lengths)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the elements (T, ...) of each row: (N, ...)."""
        lengths = self.lengths
        out = np.zeros((self.n_rows, *values.shape[1:]))
        filled = np.flatnonzero(lengths)
        if len(filled):
            starts = np.cumsum(lengths) - lengths
            out[filled] = np.add.reduceat(values, starts[filled], axis=0)
        return out

    def _children_of(self, rows):
        elements, *others = self.children
        lengths = self.lengths
        starts, chosen = (np.cumsum(lengths) - lengths)[rows], lengths[rows]
        within = np.arange(chosen.sum()) - np.repeat(np.cumsum(chosen) - chosen, chosen)
        return (elements.take(np.repeat(starts, chosen) + within), *[child.take(rows) for child in others])

    def _children_without(self, gone):
        elements, *others = self.children
        return (elements.take(np.flatnonzero(~gone[self.owner])), *[child.without(gone) for child in others])

    def _blank_children(self, n_rows):
        elements, *others = self.children
        return (elements.take(np.empty(0, int)), *[child.blank(n_rows) for child in others])


@final
class Sequence(Node):
    r"""Sequences of elements, independent of each other given the component.

    .. math:: f(x_1, \ldots, x_n) = g(n) \prod_{j=1}^{n} f(x_j)

    Parameters
    ----------
    child : Node
        Family or structure of every element.
    length : Node, optional
        Family of the length n, for instance ``bm.Poisson()``. Without one the density is conditional on the lengths,
        and draws take theirs from the training rows.
    tie : str, optional
        Nodes of one name share their parameters.

    Notes
    -----
    A row is a list (or tuple, or array) of elements; it may be empty. A row may be missing as a whole, and so may
    single elements. The length's variables are called ``{field}_length_…``.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Sequence(bm.Normal(), length=bm.Poisson()), 2)
    Mixture(Sequence(Normal(), length=Poisson()), 2)
    """

    learned_type = Lengths

    def __init__(self, child: Any, length: Any = None, *, tie: str | None = None):
        self._child = child
        self._length = length
        self.tie = tie

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return (("", self._child),) + ((("length", self._length),) if self._length is not None else ())

    @property
    def priors(self) -> dict[str, Any]:
        return {}

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Sequence:
        return self._changed(_child=parts[0], _length=parts[1] if len(parts) > 1 else None)

    def __repr__(self) -> str:
        shown = [repr(self._child)] + ([f"length={self._length!r}"] if self._length is not None else [])
        return f"Sequence({', '.join(shown + self._shown_priors())})"

    def _tables(self, table: Table, place: Place) -> tuple[Table, Table, Column]:
        lengths, elements = lengths_and_elements(table.one(place.path), "Sequence")
        columns = Table((elements,), False, len(elements), table.index, table.backend)
        return replace(columns, index=None), replace(table, columns=(lengths,), named=False), lengths

    def read(self, table, place, readers):
        elements, lengths, column = self._tables(table, place)
        readers.setdefault(place.key, (self, []))[1].append(column)
        self._child.read_from(elements, place.element, readers)
        if self._length is not None:
            self._length.read_from(lengths, place.lengths, readers)

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        return count_lengths(column)

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`: the distribution of the lengths."""
        return Lengths.of(summary)

    def layout(self, place, learned):
        children = [self._child.lay_out(place.element, learned)]
        if self._length is not None:
            children.append(self._length.lay_out(place.lengths, learned))
        return Site(self, place, {}, tuple(children), self.known(learned, place))

    def assume(self, place):
        """See `Node.assume`: lengths come from their family, or there are none."""
        return Lengths((0,), (1.0,))

    def encode(self, site, table, unseen):
        elements, lengths, column = self._tables(table, site.place)
        children = [site.children[0].encode(elements, unseen)]
        if self._length is not None:
            children.append(site.children[1].encode(lengths, unseen))
        if not column.missing.any():
            return Ragged(len(column), {"length": column.values}, None, tuple(children))
        present = np.flatnonzero(~column.missing)
        return Ragged(len(column), {"length": column.values[present]}, present, tuple(children))

    def child_data(self, data):
        return data.children

    def evaluate(self, site, params, data):
        below = tuple(child.evaluate(params, block) for child, block in zip(site.children, data.children))
        total = spread(data.sums(below[0].log_density), site.children[0].axes, site.axes)
        if self._length is not None:
            total = total + spread(below[1].log_density, site.children[1].axes, site.axes)
        return Evaluation(total, below)

    def accumulate(self, site, evaluation, data, resp, stats):
        for child, below, block, own in zip(
            site.children, evaluation.children, data.children, self._narrow(site, data, resp)
        ):
            child.accumulate(below, block, own, stats)

    def seed(self, site, data, resp, stats, splitter):
        for child, block, own in zip(site.children, data.children, self._narrow(site, data, resp)):
            child.seed(block, own, stats, splitter)

    def _narrow(self, site, data, resp):
        """Responsibilities (N, K) as each child takes them: the elements' are their row's."""
        own = [gather(resp, child.axes, site.axes) for child in site.children]
        return [own[0][data.owner], *own[1:]]

    def features(self, site, data):
        """Mean and spread of the elements' features, and the length."""
        points = site.children[0].features(data.children[0])
        known = ~np.isnan(points)
        filled = np.where(known, points, 0.0)
        count = data.sums(known.astype(float))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = data.sums(filled) / count
            variance = data.sums(filled**2) / count - mean**2
            sd = np.sqrt(np.maximum(variance, 0))
        parts = [mean, np.where(count > 1, sd, np.nan)]
        if self._length is not None:
            parts.append(site.children[1].features(data.children[1]))
        return np.column_stack(parts)

    def update(self, site, stats, params):
        return {}

    def draw(self, site, params, z, rng, labels):
        lengths = self._draw_lengths(site, params, z, rng, labels)
        owner = np.repeat(z, lengths)
        values = site.children[0].draw(params, places(site.children[0].axes, site.axes)[owner], rng, labels)
        return pieces(self._child, values, lengths)

    def _draw_lengths(self, site, params, z, rng, labels):
        if self._length is not None:
            child = site.children[1]
            return child.draw(params, places(child.axes, site.axes)[z], rng, labels).astype(int)
        return rng.choice(site.learned.lengths, len(z), p=site.learned.shares)

    def impute(self, site, params, evaluation, data, z, rng, out):
        rows = data.missing_rows()
        if len(rows):
            out[site.place.path] = self.draw(site, params, z[rows], rng, {})
        child, found = site.children[0], {}
        below = places(child.axes, site.axes)[z[data.owner]]
        child.impute(params, evaluation.children[0], data.children[0], below, rng, found)
        out.update({_element_path(site, path): values for path, values in found.items()})

    def expect(self, site, params, evaluation, data, resp, out):
        child = site.children[0]
        own = gather(resp, child.axes, site.axes)
        found: dict = {}
        child.expect(params, evaluation.children[0], data.children[0], own[data.owner], found)
        for path, values in found.items():
            name = _element_path(site, path)
            out[name] = out.get(name, 0.0) + values
        rows = data.missing_rows()
        if len(rows):
            blank = data.children[0].blank(len(rows))
            whole: dict = {}
            child.expect(params, child.evaluate(params, blank), blank, own[rows], whole)
            for path, values in whole.items():
                if not isinstance(path, tuple):
                    out[path] = out.get(path, 0.0) + values

    def gaps(self, site, data):
        rows = data.missing_rows()
        if len(rows):
            yield Gap(site.place.path, rows, site)
        owner, lengths = data.owner, data.lengths
        starts = np.cumsum(lengths) - lengths
        for gap in site.children[0].gaps(data.children[0]):
            at = gap.rows
            places = at - starts[owner[at]]
            if gap.positions is not None:  # a sequence inside: its place, then the place in it
                places = np.column_stack([places, gap.positions])
            yield Gap(_element_path(site, gap.path), owner[at], gap.site, places, gap.coordinates)

    def portraits(self, site, params):
        path = site.place.path
        leads = ["elements", "length"]
        below = [
            portrait.at(places(child.axes, site.axes)).within(at.path, lead)
            for child, lead, at in zip(site.children, leads, (site.place, site.place.lengths))
            for portrait in child.node.portraits(child, params)
        ]
        return [Portrait(path, type(self).__name__, parts=tuple(below))]

    def plan(self, site, data, plan, into, level):
        out = into if into is not None and into.axes == site.axes else plan.buffer(level, site.axes)
        indptr = np.append(0, np.cumsum(data.lengths))
        child = site.children[0]
        if any("weights" in each.slots for each in child.walk()):
            elements = child.node.plan(child, data.children[0], plan, None, plan.level(level, indptr))
            plan.segments(elements, out, indptr)
        else:
            child.node.plan(child, data.children[0], plan, out, plan.summed(level, indptr))
        if self._length is not None:
            site.children[1].node.plan(site.children[1], data.children[1], plan, out, level)
        return out if into is None or out is into else plan.add(out, into)

    def graph(self, site, variables, observed, labels):
        lengths = observed[site.place.lengths.observed]
        owner = pt.repeat(pt.arange(lengths.shape[0]), pt.maximum(lengths, 0))
        child = site.children[0]
        each = child.graph(variables, observed, labels)[:, places(child.axes, site.axes)]
        total = pt.inc_subtensor(pt.zeros((lengths.shape[0], site.n_components))[owner], each)
        if self._length is not None:
            child = site.children[1]
            total = total + child.graph(variables, observed, labels)[:, places(child.axes, site.axes)]
        return total

    def observed(self, site, data):
        name = site.place.lengths.observed
        if self._length is not None:
            yield from (replace(each, shapes=True) for each in site.children[1].observed(data.children[1]))
        else:
            yield Observed(name, data.full(np.asarray(data.arrays["length"], np.int64), -1), shapes=True)
        for each in site.children[0].observed(data.children[0]):
            yield each if each.row_dim != "row" else replace(each, row_dim=site.place.element_dim)

    def graph_draw(self, site, variables, z, out, label):
        table = out["table", site.place.lengths.observed]
        draw_lengths(site, variables, z, out, label)
        owner = pt.repeat(pt.arange(z.shape[0]), pt.maximum(table, 0))
        child = site.children[0]
        drawn = {key: value for key, value in out.items() if key[0] != "rows"}
        child.graph_draw(variables, pt.as_tensor(places(child.axes, site.axes))[z[owner]], drawn, label)
        for name, value in drawn.items():
            if isinstance(name, str) and value is not out.get(name):
                out[name] = value
                out["rows", name] = owner[drawn["rows", name]] if ("rows", name) in drawn else owner


def draw_lengths(site: Site, variables: Mapping[str, Any], z: Any, out: dict, label: Any) -> None:
    """New lengths of sequences, from their family (the last child) or as often as each came in training.

    The elements are drawn for the table's own lengths all the same: draws of a PyMC variable have one shape.
    """
    name = site.place.lengths.observed
    if len(site.node.parts) and site.node.parts[-1][0] == "length":
        child = site.children[-1]
        child.graph_draw(variables, pt.as_tensor(places(child.axes, site.axes))[z], out, label)
    else:
        out[name] = out["table", name]


def _element_path(site: Site, path: Any) -> Any:
    """What the elements' path is called outside of the sequence; labels have keys of their own."""
    if isinstance(path, tuple):
        return path
    below = path[len(site.place.path) :]
    return f"{site.place.path}[]{'.' if below[:1] not in ('', '.', '[') else ''}{below}"


def pieces(child: Node, values: Any, lengths: np.ndarray) -> np.ndarray:
    """Elements (T, ...) cut into one list for each row: an array of objects (N,)."""
    flat = cells(child, values)
    out = np.empty(len(lengths), object)
    ends = np.cumsum(lengths)
    out[:] = [flat[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist())]
    return out


def cells(node: Node, values: Any) -> list:
    """Drawn values as one Python object a row: records of a composite as tuples, or dicts where fields have names."""
    if isinstance(values, dict):
        while not hasattr(node, "positional"):
            node = node.parts[0][1]
        parts = {name: cells(part, values[name]) for name, part in node.parts}
        rows = zip(*parts.values())
        return [tuple(row) if node.positional else dict(zip(parts, row)) for row in rows]
    return values.tolist() if values.ndim == 1 else list(values)
