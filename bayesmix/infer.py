"""A first spec for a table: a family for each column by what is in it, with a note that says why.

Rules look at one column at a time, in the order of `_RULES`: the first that has something to say decides. They are
guesses that a reader can follow and change, not a model choice: `bayesmix.compare` compares specs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, final

import numpy as np
import pandas as pd
from scipy import stats

from bayesmix import arguments, families
from bayesmix.data import TIMES, Column, lengths_and_elements, read, sequence_like
from bayesmix.errors import DataError
from bayesmix.families._summaries import codes_of, counts_of, in_order
from bayesmix.spec import Node
from bayesmix.structure.composite import Composite, is_keyword
from bayesmix.structure.mixture import Mixture
from bayesmix.structure.sequence import Sequence

#: Symbols, or values of whole numbers, up to which they are taken as categories of their own.
_FEW = 10
#: Points that a rating scale, which starts at 0 or 1, has at most.
_SCALE = 7
#: Share of the rows at the highest value from which whole numbers from 0 are a scale: counts fade out.
_TOP = 0.05
#: Rows that each of few values has on average, where these are taken as categories though they are no whole numbers.
_EACH = 20
#: Values of any numbers up to which they are taken as categories.
_FEWEST = 3
#: Symbols above which a column of text is taken as names or free text, if they are this share of the rows too.
_MANY, _MANY_SHARE = 20, 0.5
#: Whole numbers that start above 0 are counts up to here, and measurements beyond.
_SMALL = 30
#: Whole numbers that start at 0 are counts up to here, and amounts beyond.
_LARGE = 1000
#: Skewness from which positive numbers are taken by their logarithms, if those are less than half as skewed.
_SKEWED = 1.0
#: Share of rows that one value of a measurement has before the note speaks of it.
_SPIKE = 0.2


@dataclass(frozen=True)
class _Proposal:
    """What becomes of a column: a node, or None where it is left out."""

    node: Node | None
    note: str


@final
class InferredSpec(Mixture):
    """A mixture that `infer_spec` proposes, with a note for each column. It prints as the code that makes it.

    It is a `Mixture` and goes wherever one goes. To change it, copy the printed code, or use `edit`.

    Attributes
    ----------
    notes : pandas.DataFrame
        A line for each column of the table: ``spec``, the code of its node (empty where it is left out), and ``note``.

    Examples
    --------
    >>> import bayesmix as bm
    >>> spec = bm.infer_spec({"visits": [0, 1, 0, 7, 9, 2], "sex": ["f", "m", "f", "m", "m", "f"]}, 2)
    >>> spec.notes.loc["sex", "spec"]
    'Categorical()'
    """

    _notes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Node], n_components: int, notes: Mapping[str, str]) -> InferredSpec:
        """Of fields by name, with notes by column, also those of columns that are left out."""
        return cls(Composite(dict(fields)), n_components)._changed(_notes=tuple(notes.items()))

    @property
    def spec(self) -> Mixture:
        """The same without the notes."""
        return Mixture(self.component, self.n_components, weights=self._weights, min_weight=self.min_weight)

    def plain(self) -> Mixture:
        """See `Node.plain`."""
        return self.spec

    @property
    def notes(self) -> pd.DataFrame:
        fields = dict(self.component.parts)
        lines = {
            column: (repr(fields[column]) if column in fields else "", note)
            for column, note in ({name: "" for name in fields} | dict(self._notes)).items()
        }
        frame = pd.DataFrame.from_dict(lines, orient="index", columns=["spec", "note"])
        return frame.rename_axis("column")

    def edit(self, n_components: int | None = None, /, **fields: Any) -> InferredSpec:
        """The same spec with some fields changed.

        Parameters
        ----------
        n_components : int, optional
            Another number of components.
        **fields : Node or None
            The node of a field, new ones included; None leaves a field out. Names that are no identifiers go in as
            ``**{"body mass": bm.Normal()}``.

        Returns
        -------
        InferredSpec

        Examples
        --------
        >>> import bayesmix as bm
        >>> spec = bm.infer_spec({"spend": [1.5, 20.1, 3.2, 0.7], "visits": [0, 3, 1, 0]}, 2)
        >>> spec.edit(3, visits=bm.Optional(bm.Poisson()), spend=None).spec
        Mixture(Composite(visits=Optional(Poisson())), 3)
        """
        own = dict(self.component.parts)
        notes = dict(self._notes)
        for name, node in fields.items():
            if node is None and name not in own:
                raise KeyError(f"{name}: the spec has no such field; it has {', '.join(own)}.")
            if node is None:
                del own[name]
                notes[name] = "by your choice"
            else:
                if not isinstance(node, Node):
                    raise TypeError(f"{name}: a node such as bm.Normal() is needed, or None, not {node!r}.")
                own[name] = node
                notes[name] = "your choice"
        changed = self._changed(_components=(Composite(own),), _notes=tuple(notes.items()))
        return changed if n_components is None else changed.with_n_components(n_components)

    def __repr__(self) -> str:
        fields = self.component.parts
        notes = dict(self._notes)
        named = all(is_keyword(name) for name, _ in fields)
        lines = []
        for name, node in fields:
            code = f"{name}={node!r}," if named else f"{name!r}: {node!r},"
            lines.append((code, notes.get(name, "")))
        width = min(60, max(len(code) for code, _ in lines)) if lines else 0
        shown = [f"        {code:{width}}  # {_one_line(note)}" if note else f"        {code}" for code, note in lines]
        rest = [str(self.n_components), *self._shown_priors()]
        rest += [f"min_weight={self.min_weight!r}"] if self.min_weight else []
        opening, closing = ("Composite(", ")") if named else ("Composite({", "})")
        left = [
            f"# left out: {_one_line(name)}: {_one_line(note)}"
            for name, note in notes.items()
            if name not in dict(fields)
        ]
        whole = ["Mixture(", f"    {opening}", *shown, f"    {closing},", f"    {', '.join(rest)},", ")"]
        return "\n".join([*whole, *left])

    def _repr_html_(self) -> str:
        from bayesmix.trees import spec_tree, table

        lines = [
            (name, code or "left out", note) for name, (code, note) in zip(self.notes.index, self.notes.to_numpy())
        ]
        return f"{table(('column', 'spec', 'note'), lines)}{spec_tree(self.spec)}"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def infer_spec(data: Any, n_components: int = 3) -> InferredSpec:
    """Propose a spec for a table: a family for each column by its type and values, with a note that says why.

    It is a beginning, to be read and edited. Missing cells are taken as missing at random, and integrated out; where
    being missing says something of the row, put the field's node into `Optional`. Columns that say nothing of groups
    (identifiers, constants, dates, free text) are left out.

    ========================================  ================================================================
    column                                    proposal
    ========================================  ================================================================
    truth values, 0 and 1                     ``Bernoulli``
    text, categories; numbers of few values   ``Categorical``
    each of which many rows share
    whole numbers from 0, or up to 30         ``Poisson``
    positive and skewed                       ``LogNormal``, or ``Exponential`` where there are zeros
    other numbers                             ``Normal``
    lists of symbols                          ``MarkovChain`` if a symbol depends on the one before it (by BIC), else
                                              ``Sequence(Categorical())``
    lists of numbers                          ``Sequence(Normal())``, or of counts or truth values
    sets                                      ``BernoulliSet``
    ========================================  ================================================================

    Parameters
    ----------
    data : table
        As `fit` takes it, N rows.
    n_components : int
        K. `select` compares several.

    Returns
    -------
    InferredSpec
        A `Mixture` with ``notes``; prints as code with a comment for each column.

    Raises
    ------
    ValueError
        `n_components` is no whole number above 0.
    DataError
        The table has no rows; no column is left; or columns of an array or of records, which go by position, would be
        left out.

    See Also
    --------
    fit, select

    Examples
    --------
    >>> import bayesmix as bm
    >>> from bayesmix.datasets import penguins
    >>> table = penguins()[["species", "body_mass_g"]]
    >>> bm.infer_spec(table, n_components=3)
    Mixture(
        Composite(
            species=Categorical(),  # 3 symbols: Adelie, Chinstrap, Gentoo
            body_mass_g=Normal(),   # whole numbers, 2700 to 6300, taken as measurements; 2 missing ...
        ),
        3,
    )
    >>> fit = bm.fit(bm.infer_spec(table, 3), table, random_seed=1)
    """
    arguments.check(n_components=n_components)
    n_components = int(n_components)
    table = read(data)
    if table.columns and not table.n_rows:
        raise DataError("data: the table has no rows. Pass at least one.")
    fields: dict[str, Node] = {}
    notes: dict[str, str] = {}
    for column in table.columns:
        found = _propose(column)
        notes[column.name] = found.note
        if found.node is not None:
            fields[column.name] = found.node
    left = [name for name in notes if name not in fields]
    if not fields:
        raise DataError(
            ["data: no column is left for a spec.", *(f"{name}: {note}." for name, note in notes.items())]
            if notes
            else "data: the table has no columns. Pass at least one."
        )
    if left and not table.named:
        raise DataError(
            [
                f"{name}: {notes[name]}. Columns without names go by position, so drop it from the table."
                for name in left
            ]
        )
    return InferredSpec.of(fields, n_components, notes)


def _propose(column: Column) -> _Proposal:
    """The first rule's proposal, with a word on missing cells."""
    present = ~column.missing
    if not column.name:
        return _Proposal(None, "the column has no name")
    if not present.any():
        return _Proposal(None, "every cell is missing" if len(column) else "no rows")
    for rule in _RULES:
        found = rule(column, present)
        if found is not None:
            break
    assert found is not None  # the last rule always has something to say
    if column.kind == "number" and column.levels is None and found.node is not None:
        found = _Proposal(found.node, found.note + _codes(column.values[present].astype(float)))
    gone = int(column.missing.sum())
    if not gone:
        return found
    cells = f"{found.note}; {gone} missing ({100 * gone / len(column):.1f} %)"
    return _Proposal(found.node, cells if found.node is None else f"{cells}, at random unless in Optional()")


def _codes(values: np.ndarray) -> str:
    """A word on a number that stands apart from all others and comes often: -999, or 99, for missing cells."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEWEST:
        return ""
    span = distinct[-1] - distinct[0]
    for at, gap in ((0, distinct[1] - distinct[0]), (-1, distinct[-1] - distinct[-2])):
        if counts[at] >= _FEWEST and gap > 0.6 * span:
            value = f"{distinct[at]:.15g}"
            return f"; {counts[at]} of them are {value}, far from all others: mark them missing if {value} means that"
    return ""


Rule = Callable[[Column, np.ndarray], _Proposal | None]


def _dates(column: Column, present: np.ndarray) -> _Proposal | None:
    if column.kind != "object":
        return None
    if all(isinstance(cell, TIMES) for cell in column.values[present]):
        return _Proposal(None, "dates or times: make numbers of them (days since a day, hour, weekday) to use them")
    return None


def _nested(column: Column, present: np.ndarray) -> _Proposal | None:
    """Sets, records, and lists of numbers or symbols."""
    if column.kind != "object":
        return None
    cells = column.values[present]
    if all(isinstance(cell, (set, frozenset)) for cell in cells):
        symbols = set().union(*cells)
        if not symbols:
            return _Proposal(None, "every set is empty")
        return _Proposal(families.BernoulliSet(), f"sets of {_symbols(symbols)}")
    if all(isinstance(cell, Mapping) for cell in cells):
        return _Proposal(None, "records: write a Composite for their fields, or make columns of them")
    if any(isinstance(cell, (set, frozenset, Mapping)) for cell in cells):
        return _Proposal(None, "sets or records among other things: make its cells alike")
    if not all(map(sequence_like, cells)):
        if any(map(sequence_like, cells)):
            return _Proposal(None, "lists among single values: make its cells alike")
        return None
    lengths, elements = lengths_and_elements(column, "Sequence")
    if not len(elements):
        return _Proposal(None, "every list is empty")
    if any(map(sequence_like, elements.values[~elements.missing])) or isinstance(elements.values[0], Mapping):
        return _Proposal(None, "lists of lists or of records: write a Sequence of what one element is")
    sizes = lengths.values[present]
    alike = sizes.min() == sizes.max()
    length = None if alike else families.Poisson()
    how = f"{sizes.min()}" if alike else f"{sizes.min()} to {sizes.max()}"
    inner = _propose(Column(column.name, elements.values, elements.missing, elements.kind, elements.levels))
    if elements.kind != "object" and inner.node is not None and elements.kind == "number":
        note = f"lists of {how} numbers ({inner.note})"
        if alike and 1 < sizes[0] <= _FEW and present.sum() > 2 * sizes[0]:
            note += f"; MvNormal() if they are the {sizes[0]} coordinates of a vector"
        return _Proposal(Sequence(inner.node, length), note)
    if elements.kind == "bool":
        return _Proposal(Sequence(families.Bernoulli(), length), f"lists of {how} truth values")
    if not all(isinstance(symbol, Hashable) for symbol in elements.values):
        return _Proposal(None, "lists of things that cannot be told apart (not hashable)")
    distinct = set(counts_of(elements).counts)
    if len(distinct) < 2:
        return _Proposal(None, "lists of one symbol over and over; their lengths may make a column")
    if len(distinct) > max(_MANY, _MANY_SHARE * len(elements)):
        return _Proposal(None, f"lists of {len(distinct)} different symbols, hardly any of them twice")
    gain = _gain_of_order(lengths, elements)
    what = f"lists of {how} symbols ({_symbols(distinct)})"
    if gain > 0:
        return _Proposal(
            families.MarkovChain(length=length), f"{what}; each depends on the one before it (BIC better by {gain:.0f})"
        )
    return _Proposal(
        Sequence(families.Categorical(), length),
        f"{what}; no sign that their order matters (MarkovChain() if it does)",
    )


def _gain_of_order(lengths: Column, elements: Column) -> float:
    """By how much BIC prefers a Markov chain to independent symbols, all rows together."""
    levels = tuple(in_order(set(counts_of(elements).counts)))
    codes = codes_of(elements, levels)
    size = len(levels)
    if elements.missing.any() or size > 200:
        return -np.inf  # a chain's elements are never missing
    ends = np.cumsum(np.where(lengths.missing, 0, lengths.values)).astype(int)
    follows = np.ones(len(codes), bool)
    follows[0] = False
    follows[ends[:-1][ends[:-1] < len(codes)]] = False
    after = np.flatnonzero(follows)
    if not len(after):
        return -np.inf
    counts = np.zeros((size, size))
    np.add.at(counts, (codes[after - 1], codes[after]), 1)
    rows, columns, total = counts.sum(1, keepdims=True), counts.sum(0, keepdims=True), counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts * total / (rows * columns)), 0.0)
    free = ((rows > 0).sum() - 1) * ((columns > 0).sum() - 1)
    return float(2 * terms.sum() - free * np.log(total))


def _truth(column: Column, present: np.ndarray) -> _Proposal | None:
    if column.kind == "object" or column.levels is not None:
        return None
    values = column.values[present]
    found = np.unique(values)
    if len(found) < 2:
        return _constant(values[0])
    if column.kind == "bool" or set(found.tolist()) == {0, 1}:
        share = float(np.mean(values))
        return _Proposal(
            families.Bernoulli(), f"{'truth values' if column.kind == 'bool' else '0 and 1'}, {100 * share:.0f} % true"
        )
    return None


def _constant(value: Any) -> _Proposal:
    return _Proposal(None, f"one value ({_short(value)}) wherever it is given, which says nothing of groups")


def _categories(column: Column, present: np.ndarray) -> _Proposal | None:
    """Text and whatever else is no number; and numbers that the frame declares to be categories."""
    if column.kind != "object" and column.levels is None:
        return None
    cells = column.values[present]
    if not all(isinstance(cell, Hashable) for cell in cells):
        return _Proposal(None, "cells that cannot be told apart (not hashable): make symbols or numbers of them")
    if all(isinstance(cell, Decimal) for cell in cells):
        return _Proposal(None, "decimals: convert the column to float")
    distinct = set(counts_of(column).counts)
    if len(distinct) < 2:
        return _constant(cells[0])
    declared = column.levels is not None
    texts = {cell for cell in distinct if not (isinstance(cell, str) and _is_number(cell))}
    if not declared and len(distinct) > _FEW and len(texts) <= 0.2 * len(distinct):
        but = f", but for {', '.join(map(repr, in_order(texts)[:3]))}" if texts else ""
        way = 'pd.to_numeric(column, errors="coerce")' if texts else "pd.to_numeric(column)"
        return _Proposal(None, f"numbers written as text{but}: convert the column, as {way} does")
    if len(distinct) == len(cells) > _FEW:
        return _Proposal(None, "a value of its own in every row: names, identifiers or free text")
    if len(distinct) > _MANY and len(distinct) > _MANY_SHARE * len(cells):
        return _Proposal(None, f"{len(distinct)} different values in {len(cells)} rows: names or free text")
    return _Proposal(families.Categorical(), _symbols(distinct if not declared else column.levels))


def _identifiers(column: Column, present: np.ndarray) -> _Proposal | None:
    values = column.values[present].astype(float)
    if not np.isfinite(values).all():
        return _Proposal(None, "infinite numbers: correct them or mark them missing")
    whole = (values == np.floor(values)).all()
    if not whole or len(values) < 3 or len(np.unique(values)) < len(values):
        return None
    steps = np.diff(values)
    name = column.name.lower().replace("-", "_").replace(" ", "_")
    called = name in ("id", "index", "key", "row", "nr", "no", "number") or name.endswith(
        ("_id", "_key", "_index", "_no")
    )
    called = called or name.startswith(("unnamed", "id_")) or column.name.endswith("ID")
    in_a_row = len(values) > _FEW and present.all() and ((steps == 1).all() or (steps == -1).all())
    if called or in_a_row:
        return _Proposal(None, "a whole number of its own in every row: an identifier")
    return None


def _whole_numbers(column: Column, present: np.ndarray) -> _Proposal | None:
    values = column.values[present].astype(float)
    if (values != np.floor(values)).any():
        return None
    low, high, distinct = float(values.min()), float(values.max()), np.unique(values)
    span = f"{low:.15g} to {high:.15g}"
    few = _SCALE if low in (0, 1) else _FEW
    often = low != 0 or (len(values) >= _EACH * len(distinct) and np.mean(values == high) > _TOP)
    if len(distinct) <= _FEWEST or (often and len(distinct) <= few and len(distinct) < len(values) / 2):
        shown = _symbols([int(value) for value in distinct])
        also = "; Poisson() if they count something" if low >= 0 and high <= _SMALL and len(distinct) > 2 else ""
        also = "; Poisson() if they have no upper end" if low == 0 and len(distinct) > _FEWEST else also
        also = also or ("; Normal() if they measure something" if len(distinct) > 2 else "")
        return _Proposal(families.Categorical(), f"whole numbers of few values, taken as {shown}{also}")
    if low >= 0 and (high <= _LARGE if low == 0 else high <= _SMALL):
        note = f"counts, {span}"
        mean, zeros = float(values.mean()), float(np.mean(values == 0))
        if zeros > 0.1 and zeros > 2 * np.exp(-mean):
            note += f"; {100 * zeros:.0f} % zeros, more than one Poisson has (a component may take them up)"
        if low == 1:
            note += "; Geometric() if they count trials up to a success"
        return _Proposal(families.Poisson(), note)
    found = _measurements(column, present)
    note = found.note.replace("real numbers", "whole numbers").replace("positive numbers", "positive whole numbers")
    return _Proposal(found.node, note.replace(span, f"{span}, taken as measurements", 1))


def _measurements(column: Column, present: np.ndarray) -> _Proposal:
    values = column.values[present].astype(float)
    low, high = float(values.min()), float(values.max())
    span = f"{low:.4g} to {high:.4g}" if (values != np.floor(values)).any() else f"{low:.15g} to {high:.15g}"
    distinct = np.unique(values)
    each = 2 if len(distinct) <= _FEWEST else _EACH
    if len(distinct) <= _FEW and len(values) > each * len(distinct):
        note = f"numbers of few values, taken as {_symbols(distinct.tolist())}; Normal() if they measure something"
        return _Proposal(families.Categorical(), note)
    most, count = max(zip(*np.unique(values, return_counts=True)), key=lambda pair: pair[1])
    share = count / len(values)
    spike = f"; {100 * share:.0f} % of them are {most:.6g}" if share > _SPIKE and len(values) >= _FEW else ""
    enough = len(values) >= _FEW
    skewness = float(stats.skew(values / np.abs(values).max())) if enough and high > low else 0.0
    if low > 0 and skewness > _SKEWED and abs(float(stats.skew(np.log(values)))) < skewness / 2:
        return _Proposal(families.LogNormal(), f"positive numbers, {span}, skewed{spike}")
    if low == 0 and skewness > _SKEWED:
        zeros = float(np.mean(values == 0))
        if zeros > _SPIKE:
            spike = (
                f"; {100 * zeros:.0f} % zeros: mark them missing and take Optional(LogNormal()), which says whether "
                "there is any and how much"
            )
        return _Proposal(families.Exponential(), f"numbers, {span}, skewed{spike}")
    shares = "; shares, which Normal() takes beyond 0 and 1" if 0 <= low and high <= 1 and low < high else ""
    return _Proposal(families.Normal(), f"real numbers, {span}{shares}{spike}")


#: In order: the first rule that has something to say decides. Numbers alone come to those after `_categories`.
_RULES: tuple[Rule, ...] = (_dates, _nested, _truth, _categories, _identifiers, _whole_numbers, _measurements)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _symbols(symbols: Any, most: int = 5) -> str:
    ordered = in_order(symbols)
    shown = ", ".join(map(_short, ordered[:most]))
    return f"{len(ordered)} symbols: {shown}" + (", …" if len(ordered) > most else "")


def _short(value: Any, width: int = 20) -> str:
    text = _one_line(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        text = f"{float(value):.6g}"
    return text if len(text) <= width else f"{text[: width - 1]}…"
