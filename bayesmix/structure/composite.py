"""Records of several fields, independent given the component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from keyword import iskeyword
from typing import Any, final

import numpy as np
import pytensor.tensor as pt

from bayesmix.data import Table
from bayesmix.errors import DataError, close_to, gather_faults
from bayesmix.params import Place
from bayesmix.spec import Encoded, Evaluation, Node, Site, gather, places, spread


@final
class Composite(Node):
    r"""A record of fields, independent of each other given the component.

    .. math:: f(x_1, \ldots, x_J) = \prod_j f_j(x_j)

    Named fields read the columns of a table (or the keys of records) of those names, and other columns are left
    alone. Positional fields read the columns, or the places of tuples, in order; they are called ``x1``,
    ``x2``, … and their number must agree.

    Parameters
    ----------
    *fields : Node
        Positional fields; or one mapping from name to node, for names that are not identifiers.
    **named : Node
        Named fields.
    tie : str, optional
        Nodes of one name share their parameters.

    Notes
    -----
    A field's name is put before the names of its variables: ``income_mu``.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Composite(income=bm.Normal(), visits=bm.Poisson())
    Composite(income=Normal(), visits=Poisson())
    >>> bm.Composite({"body mass": bm.Normal()})
    Composite({'body mass': Normal()})
    """

    def __init__(self, *fields: Any, tie: str | None = None, **named: Any):
        self.tie = tie
        mapping: dict[str, Any] = {}
        if len(fields) == 1 and isinstance(fields[0], Mapping):
            mapping.update(fields[0])
            fields = ()
        mapping.update(named)
        self._positional = bool(fields) and not mapping
        if fields and mapping:
            raise TypeError("Composite takes positional fields or named ones, not both.")
        if fields:
            mapping = {f"x{i}": node for i, node in enumerate(fields, 1)}
        self._fields = {str(name): node for name, node in mapping.items()}

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return tuple(self._fields.items())

    @property
    def priors(self) -> dict[str, Any]:
        return {}

    @property
    def positional(self) -> bool:
        """Whether the fields go by position."""
        return self._positional

    @property
    def options(self) -> dict[str, Any]:
        return {"tie": self.tie, "_positional": self._positional}

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Composite:
        return self._changed(_fields=dict(zip(self._fields, parts)))

    @classmethod
    def restore(cls, options, priors, parts):
        new = cls({name: node for name, node in parts}, tie=options["tie"])
        return new._changed(_positional=options["_positional"])

    def column_names(self):
        """See `Node.column_names`."""
        return None if self._positional else tuple(self._fields)

    def faults(self, path: str = "") -> list[str]:
        if not self._fields:
            return [f"{path or 'Composite'}: a composite needs at least one field."]
        return super().faults(path)

    def __repr__(self) -> str:
        if self._positional:
            shown = list(map(repr, self._fields.values()))
        elif all(is_keyword(name) for name in self._fields):
            shown = [f"{name}={node!r}" for name, node in self._fields.items()]
        else:
            shown = [f"{{{', '.join(f'{name!r}: {node!r}' for name, node in self._fields.items())}}}"]
        return f"Composite({', '.join(shown + self._shown_priors())})"

    def _blocks(self, table: Table, place: Place) -> list[tuple[Place, Node, Table]]:
        """Each field with its place and its block of columns."""
        # a field's records stand in one column, whose name is the field's and may be that of a field of theirs too
        named = table.named and not place.path
        if not (named and set(table.names) & set(self._fields)):
            table = table.expand(place.path)
        where = place.path or "data"
        alone = len(table.columns) == 1 and (len(self._fields) > 1 or bool(place.path))
        if alone and table.columns[0].missing.all():
            table = replace(table, columns=table.columns * len(self._fields), named=False)  # no record at all
        if self._positional or not table.named:
            if len(table.columns) != len(self._fields):
                raise DataError(
                    f"{where}: {len(table.columns)} columns for {len(self._fields)} fields "
                    f"({', '.join(self._fields)}). Give each record exactly the fields of the spec."
                )
            columns = dict(zip(self._fields, table.columns))
        else:
            columns = {column.name: column for column in table.columns}
            absent = [name for name in self._fields if name not in columns]
            if absent:
                raise DataError(
                    [
                        f"{name}: the table has no such column; it has {_some(list(columns))}."
                        f"{close_to(name, columns) or ' Rename the column or the field.'}"
                        for name in absent
                    ]
                )
        return [
            (below := place.field_place(name), node, table.field(columns[name], below.path))
            for name, node in self._fields.items()
        ]

    def read(self, table, place, readers):
        gather_faults(
            partial(node.read_from, block, below, readers) for below, node, block in self._blocks(table, place)
        )

    def layout(self, place, learned):
        children = tuple(node.lay_out(place.field_place(name), learned) for name, node in self._fields.items())
        return Site(self, place, {}, children)

    def encode(self, site, table, unseen):
        blocks = self._blocks(table, site.place)
        children = gather_faults(
            partial(child.encode, block, unseen) for child, (_, _, block) in zip(site.children, blocks)
        )
        return Encoded(table.n_rows, children=tuple(children))

    def child_data(self, data):
        return data.children

    def evaluate(self, site, params, data):
        children = tuple(child.evaluate(params, block) for child, block in zip(site.children, data.children))
        terms = [spread(below.log_density, child.axes, site.axes) for child, below in zip(site.children, children)]
        return Evaluation(sum(terms[1:], start=terms[0]), children)

    def accumulate(self, site, evaluation, data, resp, stats):
        for child, below, block in zip(site.children, evaluation.children, data.children):
            child.accumulate(below, block, gather(resp, child.axes, site.axes), stats)

    def seed(self, site, data, resp, stats, splitter):
        for child, block in zip(site.children, data.children):
            child.seed(block, gather(resp, child.axes, site.axes), stats, splitter)

    def features(self, site, data):
        return np.column_stack([child.features(block) for child, block in zip(site.children, data.children)])

    def independent_fields(self, site, data):
        each = [child.node.independent_fields(child, block) for child, block in zip(site.children, data.children)]
        return [field for fields in each for field in fields] if all(each) else []

    def update(self, site, stats, params):
        return {}

    def draw(self, site, params, z, rng, labels):
        return {
            name: child.draw(params, places(child.axes, site.axes)[z], rng, labels)
            for name, child in zip(self._fields, site.children)
        }

    def impute(self, site, params, evaluation, data, z, rng, out):
        for child, below, block in zip(site.children, evaluation.children, data.children):
            child.impute(params, below, block, places(child.axes, site.axes)[z], rng, out)

    def expect(self, site, params, evaluation, data, resp, out):
        for child, below, block in zip(site.children, evaluation.children, data.children):
            child.expect(params, below, block, gather(resp, child.axes, site.axes), out)

    def gaps(self, site, data):
        for child, block in zip(site.children, data.children):
            yield from child.gaps(block)

    def portraits(self, site, params):
        return [
            portrait.at(places(child.axes, site.axes))
            for child in site.children
            for portrait in child.node.portraits(child, params)
        ]

    def by_field(self, site, evaluation):
        return [
            (path, spread(density, child.axes, site.axes))
            for child, below in zip(site.children, evaluation.children)
            for path, density in child.node.by_field(child, below)
        ]

    def plan(self, site, data, plan, into, level):
        out = into if into is not None and into.axes == site.axes else plan.buffer(level, site.axes)
        for child, block in zip(site.children, data.children):
            child.node.plan(child, block, plan, out, level)
        return out if into is None or out is into else plan.add(out, into)

    def graph(self, site, variables, observed, labels):
        terms = [child.graph(variables, observed, labels)[:, places(child.axes, site.axes)] for child in site.children]
        return sum(terms[1:], start=terms[0])

    def observed(self, site, data):
        for child, block in zip(site.children, data.children):
            yield from child.observed(block)

    def graph_draw(self, site, variables, z, out, label):
        for child in site.children:
            child.graph_draw(variables, pt.as_tensor(places(child.axes, site.axes))[z], out, label)


def _some(names: list[str], most: int = 12) -> str:
    return f"{', '.join(names[:most])} and {len(names) - most} more" if len(names) > most else ", ".join(names)


def is_keyword(name: str) -> bool:
    """Whether a field may stand as a keyword in the code that makes a spec."""
    return name.isidentifier() and not iskeyword(name) and name not in ("self", "tie", "weights", "transition")
