"""Random spec trees, and tables that they can read.

hypothesis draws the tree, how each column is made and one seed; numpy makes the cells from the seed, so that tables are
cheap and a failure shrinks to a small tree. A `Field` is a node with the way to make its cells, given which group each
row is of: trees nest, and so do the ways.

Every public node stands in the trees, with parameters that are free, fixed, shared, tied or under priors of other kinds
than the default; tables have missing cells, empty sequences, ties, constant columns, few rows, symbols seen once,
offsets and scales. All of it is valid: a table may still deserve an error (no cell at all in a column), see `DESERVED`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from hypothesis import strategies as st

import bayesmix as bm

#: Groups of rows that the cells differ by.
GROUPS = 3
#: Depth of a tree: its longest chain of nodes.
DEPTH = 4
ROWS = (1, 2, 3, 4, 6, 9, 14, 20)
#: What may be refused: a column without anything to learn from, more components than distinct rows, and an `Optional`
#: that reads the cells of another.
DESERVED = re.compile(
    r"every (cell is missing|set is empty|sequence is empty)|no element at all|needs a range of two values"
    r"|components but only|an Optional inside an Optional"
)
#: Priors that do not keep a component from collapsing onto a point.
COLLAPSING = re.compile(r"HalfNormal|Flat\(\)|StudentT|Gamma\.dist\(3, ")

#: Makes the cells of rows: (rng, groups (N,)) -> list of N cells.
Cells = Callable[[np.random.Generator, np.ndarray], list]


@dataclass(frozen=True)
class Field:
    """A node, and how the cells of a column for it are made.

    Attributes
    ----------
    node : Node
    cells : callable
    record : bool
        Whether the cells are records by name: dicts.
    others : tuple of Node
        Nodes of the same support, for lists of components.
    """

    node: Any
    cells: Cells
    record: bool = False
    others: tuple = ()


@dataclass(frozen=True)
class Case:
    """A spec, its table as a dict of columns, and how it is to be fitted.

    Attributes
    ----------
    spec : Node
    columns : dict of str to list
        A lone column is called ``x``.
    record : bool
        Whether the spec reads fields by name.
    form : str
        What the table is given as: ``"dict"``, ``"pandas"``, ``"records"``.
    weights : ndarray or None
        Row weights.
    seed : int
    """

    spec: Any
    columns: dict[str, list]
    record: bool
    form: str
    weights: np.ndarray | None
    seed: int

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def index(self) -> np.ndarray:
        """Labels of the rows, in no order."""
        return 100 + np.random.default_rng(self.seed).permutation(self.n_rows)

    def table(self, rows: Any = None) -> Any:
        """The table in its form; with `rows` some of the rows, in that order."""
        rows = np.arange(self.n_rows) if rows is None else rows
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        if self.form == "pandas":
            return pd.DataFrame({name: _series(cells) for name, cells in columns.items()}).set_axis(self.index[rows])
        if self.form == "records" and self.record:
            return [dict(zip(columns, cells)) for cells in zip(*columns.values())]
        as_records = any(isinstance(cell, tuple) for cell in columns.get("x", ()))  # a list of tuples is one of records
        return columns if self.record or self.form == "dict" or as_records else columns["x"]

    def __repr__(self) -> str:
        weights = None if self.weights is None else self.weights.tolist()
        return f"spec: {self.spec!r}\n{self.form} of {self.columns}\nweights: {weights}, seed: {self.seed}"


def _series(cells: list) -> pd.Series:
    """A column as pandas makes it of numbers, and of objects where there is anything else."""
    kinds = {type(cell) for cell in cells if cell is not None}
    return pd.Series(cells, dtype=None if kinds <= {int} or kinds <= {float} else object)


# ------------------------------------------------------------------- priors


def _prior(draw: Any, **choices: Any) -> dict[str, Any]:
    """For most trees the defaults; for some one parameter otherwise: fixed, flat, shared, or another prior.

    A choice is a prior or a function that makes one, so that no PyMC distribution is made in vain.
    """
    if draw(st.integers(0, 2)):
        return {}
    name = draw(st.sampled_from(sorted(choices)))
    given = draw(st.sampled_from(choices[name]))
    given = given() if callable(given) else given
    return {name: bm.Shared(given) if draw(st.integers(0, 3)) == 0 else given}


_PROBABILITY = (None, bm.Flat(), 0.3, lambda: pm.Beta.dist(2.5, 1.5), lambda: pm.LogitNormal.dist(0.0, 1.5))


# ------------------------------------------------------------------- families


@st.composite
def normal(draw, scales=((0.0, 1.0), (0.0, 1e-8), (0.0, 1e8), (1e8, 1.0), (-5.0, 3.0))):
    offset, scale = draw(st.sampled_from(scales))
    digits = draw(st.sampled_from((None, None, 0, "constant")))
    node = bm.Normal(
        **_prior(
            draw,
            mu=(None, offset, lambda: pm.Normal.dist(offset, 3 * scale), bm.Flat(),
                lambda: pm.StudentT.dist(nu=4.0, mu=offset, sigma=3 * scale)),
            sigma=(None, scale, lambda: pm.HalfNormal.dist(2 * scale), lambda: pm.InverseGamma.dist(3.0, 2 * scale)),
        )
    )  # fmt: skip

    def cells(rng, groups):
        values = 4.0 * groups + rng.normal(size=len(groups))
        values = values if digits is None else np.zeros(len(groups)) if digits == "constant" else np.round(values)
        return (offset + scale * values).tolist()

    return Field(node, cells)


@st.composite
def positive(draw):
    """LogNormal and Exponential; also for lists of components."""
    scale = draw(st.sampled_from((1.0, 1.0, 1e-8, 1e8)))
    log_normal = bm.LogNormal(
        **_prior(
            draw,
            mu=(None, float(np.log(scale)), lambda: pm.Normal.dist(np.log(scale), 2.0), bm.Flat()),
            sigma=(None, 0.7, lambda: pm.HalfNormal.dist(1.0), lambda: pm.Gamma.dist(3.0, 2.0)),
        )
    )
    exponential = bm.Exponential(
        **_prior(
            draw,
            scale=(None, scale, lambda: pm.InverseGamma.dist(3.0, 2.0 * scale),
                   lambda: pm.LogNormal.dist(np.log(scale), 1.0), bm.Flat()),
        )
    )  # fmt: skip
    digits = draw(st.booleans())

    def cells(rng, groups):
        values = np.exp(1.5 * groups - 2) * rng.exponential(size=len(groups))
        values = np.ceil(values) if digits else np.maximum(values, 1e-6)
        return (scale * values).tolist()

    both = [log_normal, exponential] if draw(st.booleans()) else [exponential, log_normal]
    return Field(both[0], cells, others=tuple(both))


@st.composite
def counts(draw):
    """Poisson, Geometric and SpikeAndSlab; also for lists of components."""
    rate = draw(st.sampled_from((1.0, 3.0, 3.0, 20.0, 1e9)))
    poisson = bm.Poisson(
        **_prior(
            draw,
            mu=(None, rate, lambda: pm.Gamma.dist(3.0, 1 / rate), lambda: pm.LogNormal.dist(np.log(rate), 1.0),
                bm.Flat()),
        )
    )  # fmt: skip
    geometric = bm.Geometric(**_prior(draw, p=_PROBABILITY))
    nodes = [poisson, geometric]
    if rate < 10:
        bounded = draw(st.booleans())
        ends = {"lower": 0, "upper": 30} if bounded else {}
        spike = _prior(draw, p=_PROBABILITY) if draw(st.booleans()) else {"k": 2, "lower": 0, "upper": 30}
        nodes.append(bm.SpikeAndSlab(**{**ends, **spike}))
    constant = draw(st.integers(0, 5)) == 0

    def cells(rng, groups):
        values = 1 + rng.poisson(rate * (0.3 + groups)) if not constant else np.full(len(groups), 3)
        return np.minimum(values, 30 if rate < 10 else values).tolist()

    order = draw(st.permutations(nodes))
    return Field(order[0], cells, others=tuple(order))


@st.composite
def truths(draw):
    node = bm.Bernoulli(**_prior(draw, p=_PROBABILITY))
    share = np.array(draw(st.sampled_from(((0.1, 0.5, 0.9), (0.0, 0.2, 0.0), (1.0, 1.0, 1.0)))))
    whole = draw(st.booleans())

    def cells(rng, groups):
        values = rng.random(len(groups)) < share[groups]
        return values.astype(int).tolist() if whole else values.tolist()

    return Field(node, cells)


SYMBOLS = (("a", "b", "c"), ("u",), (1, 2, 3, 10), ("p", "q", "r", "s", "t"), ("no", "yes"))


@st.composite
def symbols(draw):
    levels = draw(st.sampled_from(SYMBOLS))
    given = levels if draw(st.integers(0, 3)) == 0 else None
    dirichlet = (None, bm.Flat(), lambda: pm.Dirichlet.dist(np.full(len(levels), 1.5))) if given else (None, bm.Flat())
    node = bm.Categorical(levels=given, **_prior(draw, p=dirichlet))
    return Field(node, _some_of(levels))


def _some_of(levels):
    def cells(rng, groups):
        return [levels[int(len(levels) * rng.random() ** (1 + group))] for group in groups.tolist()]

    return cells


@st.composite
def chains(draw, depth=1):
    levels = draw(st.sampled_from(SYMBOLS))
    length = draw(lengths()) if depth > 1 and draw(st.booleans()) else None
    node = bm.MarkovChain(length=length, **_prior(draw, initial=(None, bm.Flat()), transition=(None, bm.Flat())))
    mean = draw(st.sampled_from((0.3, 2.0, 4.0)))
    least = _least(length)

    def cells(rng, groups):
        n = np.maximum(rng.poisson(mean * (0.5 + groups)), least)
        return [_some_of(levels)(rng, np.full(k, group)) for k, group in zip(n.tolist(), groups.tolist())]

    return Field(node, cells)


@st.composite
def sets(draw):
    levels = draw(st.sampled_from(SYMBOLS))
    node = bm.BernoulliSet(**_prior(draw, p=_PROBABILITY))
    kind = draw(st.sampled_from((frozenset, list)))

    def cells(rng, groups):
        chance = (groups + 0.5) / (GROUPS + 1)
        return [kind(level for level in levels if rng.random() < p) for p in chance.tolist()]

    return Field(node, cells)


@st.composite
def vectors(draw):
    width = draw(st.sampled_from((1, 2, 3)))
    offset, scale = draw(st.sampled_from(((0.0, 1.0), (1e8, 1.0), (0.0, 1e-8), (0.0, 1e8))))
    partly = draw(st.booleans())
    node = bm.MvNormal(
        **_prior(
            draw,
            mu=(None, np.full(width, offset), lambda: pm.Normal.dist(offset, 3 * scale), bm.Flat()),
            cov=(None, scale**2 * np.eye(width), lambda: bm.InverseWishart.dist(width + 2.0, scale**2 * np.eye(width))),
        )
    )

    def cells(rng, groups):
        points = offset + scale * (3.0 * groups[:, None] + rng.normal(size=(len(groups), width)))
        gone = rng.random(points.shape) < (0.2 if partly else 0.0)
        return [[None if lost else x for x, lost in zip(*row)] for row in zip(points.tolist(), gone.tolist())]

    return Field(node, cells)


FAMILIES = (normal, normal, positive, counts, counts, truths, symbols, chains, sets, vectors)


@st.composite
def families(draw, depth=1):
    make = draw(st.sampled_from(FAMILIES))
    return draw(make(depth) if make is chains else make())


@st.composite
def lengths(draw):
    return draw(st.sampled_from((bm.Poisson, bm.Poisson, bm.Geometric)))()


def _least(length: Any) -> int:
    return int(isinstance(length, bm.Geometric))  # which begins at 1


# ------------------------------------------------------------------- structure


@st.composite
def composites(draw, depth, n_fields=None):
    """Records by name. Some have a pair of tied fields."""
    n_fields = draw(st.integers(1, 3)) if n_fields is None else n_fields
    parts = [draw(fields(depth - 1)) for _ in range(n_fields)]
    if depth > 1 and draw(st.integers(0, 5)) == 0:
        tied = draw(fields(max(depth - 2, 1)))
        names = draw(st.shared(st.builds(itertools.count), key="ties"))
        tied = replace(tied, node=_tied(tied.node, f"t{next(names)}"))
        parts += [tied, draw(wrapped(tied)) if depth > 2 else tied]
    mark = draw(st.sampled_from(("f", "f", "f.", "a b ")))
    names = [f"{mark}{i}" for i in range(len(parts))]
    node = bm.Composite({name: part.node for name, part in zip(names, parts)})

    def cells(rng, groups):
        columns = [part.cells(rng, groups) for part in parts]
        return [dict(zip(names, row)) for row in zip(*columns)]

    return Field(node, cells, record=True)


def _tied(node: Any, name: str) -> Any:
    return node._changed(tie=name)


@st.composite
def wrapped(draw, child):
    """The child inside of another node."""
    kind = draw(st.sampled_from(("mixture", "optional", "sequence")))
    if kind == "mixture":
        return replace(child, node=bm.Mixture(child.node, 2))
    return draw(sequences(child) if kind == "sequence" else optionals(child))


@st.composite
def sequences(draw, child):
    length = draw(lengths()) if draw(st.booleans()) else None
    mean = draw(st.sampled_from((0.3, 2.0, 4.0)))
    share = draw(st.sampled_from((0.0, 0.0, 0.3)))
    least, kind = _least(length), draw(st.sampled_from((list, tuple)))

    def cells(rng, groups):
        n = np.maximum(rng.poisson(mean * (0.5 + 0.5 * groups)), least)
        flat = iter(_with_gaps(child.cells(rng, np.repeat(groups, n)), share, rng))
        return [kind(next(flat) for _ in range(k)) for k in n.tolist()]

    return Field(bm.Sequence(child.node, length), cells)


@st.composite
def optionals(draw, child):
    p = draw(st.sampled_from((None, None, None, 0.4, bm.Flat(), False, "beta")))
    share = np.array(draw(st.sampled_from(((0.1, 0.4, 0.7), (0.0, 0.0, 0.0), (0.5, 0.0, 0.9)))))
    node = bm.Optional(child.node, pm.Beta.dist(1.5, 2.5) if p == "beta" else p)

    def cells(rng, groups):
        gone = rng.random(len(groups)) < share[groups]
        return [None if lost else cell for cell, lost in zip(child.cells(rng, groups), gone)]

    return Field(node, cells, child.record)


@st.composite
def mixtures(draw, child, shared=False):
    """Of one spec, or a list of families that have one support."""
    weights = {}
    if child.others and draw(st.booleans()):
        listed = draw(st.lists(st.sampled_from(child.others), min_size=2, max_size=3))
        return replace(child, node=bm.Mixture(listed, shared=shared), others=())
    k = draw(st.sampled_from((1, 2, 2, 3)))
    prior = draw(st.integers(0, 5))
    if prior == 0:
        weights = {"weights": bm.Flat()}
    elif prior == 1:
        weights = {"weights": pm.Dirichlet.dist(np.arange(k) + 1.5)}
    elif prior == 2:
        weights = {"weights": np.full(k, 1 / k)}
    elif prior == 3:
        weights = {"min_weight": 0.5 / k}
    return replace(child, node=bm.Mixture(child.node, k, shared=shared, **weights), others=())


@st.composite
def hierarchies(draw, child):
    length = draw(lengths()) if draw(st.booleans()) else None
    sequence = draw(sequences(replace(child, node=bm.Normal())))
    if child.others and draw(st.booleans()):
        topic, n_topics = list(child.others), None
    else:
        topic, n_topics = child.node, draw(st.integers(1, 3))
    node = bm.HierarchicalMixture(topic, n_topics, draw(st.integers(1, 2)), length=length)
    cells = sequence.cells
    if _least(length):  # a geometric length begins at 1

        def cells(rng, groups, empty=sequence.cells):
            return [cell if len(cell) else child.cells(rng, np.zeros(1, int)) for cell in empty(rng, groups)]

    return Field(node, cells)  # fmt: skip


@st.composite
def joints(draw, depth):
    x, y = draw(fields(depth)), draw(fields(depth))
    second = list(y.others) if y.others and draw(st.booleans()) else (y.node, draw(st.integers(1, 3)))
    node = bm.JointMixture(x=(x.node, draw(st.integers(1, 3))), y=second)

    def cells(rng, groups):
        return [{"x": a, "y": b} for a, b in zip(x.cells(rng, groups), y.cells(rng, rng.permutation(groups)))]

    return Field(node, cells, record=True)


@st.composite
def fields(draw, depth):
    """A field of any kind, at most `depth` nodes deep. Its cells may be missing, all at random."""
    kind = draw(st.sampled_from(("family", "family", "mixture", "sequence", "optional", "composite", "structure")))
    if depth <= 1 or kind == "family":
        field = draw(families(depth))
    elif kind == "composite":
        field = draw(composites(depth))
    elif kind == "structure":
        joint = depth > 2 and draw(st.booleans())
        field = draw(joints(depth - 2)) if joint else draw(hierarchies(draw(families())))
    else:
        child = draw(fields(depth - 1))
        make = {"mixture": mixtures, "sequence": sequences, "optional": optionals}[kind]
        shared = {"shared": draw(st.integers(0, 2)) == 0} if kind == "mixture" else {}
        field = draw(make(child, **shared))
    share = draw(st.sampled_from((0.0, 0.0, 0.2, 0.6)))
    cells = field.cells
    return replace(field, cells=lambda rng, groups: _with_gaps(cells(rng, groups), share, rng))


def _with_gaps(cells: list, share: float, rng: np.random.Generator) -> list:
    gone = rng.random(len(cells)) < share
    return [None if lost else cell for cell, lost in zip(cells, gone)]


# ------------------------------------------------------------------- cases


@st.composite
def cases(draw):
    """A spec and a table that it reads."""
    kind = draw(st.sampled_from(("mixture", "mixture", "mixture", "composite", "joint", "field")))
    if kind == "mixture":
        field = draw(mixtures(draw(composites(DEPTH - 1))))
    elif kind == "composite":
        field = draw(composites(DEPTH))
    elif kind == "joint":
        field = draw(joints(DEPTH - 2))
    else:
        field = draw(fields(DEPTH))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, GROUPS, draw(st.sampled_from(ROWS)))
    cells = field.cells(rng, groups)
    record, node = field.record, field.node
    while record and not isinstance(node, bm.Composite):
        node = node.parts[0][1]
    columns = {"x": cells}
    if record:
        columns = {name: [None if cell is None else cell[name] for cell in cells] for name, _ in node.parts}
    weights = rng.integers(0, 4, len(groups)).astype(float) if draw(st.integers(0, 3)) == 0 else None
    if weights is not None and not weights.any():
        weights[0] = 1.0
    return Case(field.node, columns, record, draw(st.sampled_from(("dict", "pandas", "records"))), weights, seed)
