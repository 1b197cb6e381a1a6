"""Posterior predictive checks: tables drawn from the posterior beside the one that was fitted, field by field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import arguments
from bayesmix.bound import Bound
from bayesmix.data import texts
from bayesmix.errors import DataError
from bayesmix.families._contract import Leaf
from bayesmix.params import Params
from bayesmix.spec import Encoded, Observed, Site
from bayesmix.structure.optional import Optional
from bayesmix.structure.sequence import Sequence as SequenceNode

#: Fields of symbols have a line for each of the most frequent ones, this many at most.
_MOST_SYMBOLS = 20


def replicates(
    bound: Bound, draws: Sequence[Params], data: Encoded, rng: np.random.Generator
) -> Iterator[dict[str, Observed]]:
    """For each draw a new table of N rows, as the arrays that a model observes, by name.

    Optional fields draw which cells are missing. Others miss the table's own cells; where a drawn table has other cells
    than the table (elements of sequences, fields of optional records), as large a share of them, at random.
    """
    from bayesmix.fit import draw_rows

    own, own_cells = written(bound, data), _cells(bound.site, data)
    marks = missing_marks(bound)
    missing = {name: _missing(each, own_cells[name], marks) for name, each in own.items()}
    missing = {name: gone for name, gone in missing.items() if gone.any()}
    for params in draws:
        try:
            encoded = bound.encode(draw_rows(bound, params, data.n_rows, rng), "ignore")
        except DataError as error:
            raise outside(error) from None
        found, found_cells = written(bound, encoded), _cells(bound.site, encoded) if missing else {}
        for name, gone in missing.items():
            values, here, there = found[name].values, own_cells[name], found_cells[name]
            if not here.like(there):
                patterns, rows = gone[~here.absent], np.flatnonzero(~there.absent)
                gone = np.zeros((len(values), *gone.shape[1:]), bool)
                if len(patterns):
                    gone[rows] = patterns[np.resize(rng.permutation(len(patterns)), len(rows))]
            values[gone] = np.nan if values.dtype.kind == "f" else marks.get(name, -1)
        yield found


@dataclass(frozen=True)
class _Cells:
    """Which cells an observed array has, apart from their values.

    `absent` are the rows (M,) that an `Optional` around them says are missing, `missing` those that are missing as a
    whole, for whatever reason; `lengths` are those of the sequences around.
    """

    absent: np.ndarray
    missing: np.ndarray
    lengths: tuple[np.ndarray, ...]

    def like(self, other: _Cells) -> bool:
        """Whether two tables have the same cells."""
        pairs = zip((self.absent, *self.lengths), (other.absent, *other.lengths), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)


def _cells(
    site: Site, data: Any, absent: np.ndarray | None = None, lengths: tuple[np.ndarray, ...] = ()
) -> dict[str, _Cells]:
    """The cells of each array that is observed at a site or below, by its name."""
    absent = np.zeros(data.n_rows, bool) if absent is None else absent
    missing = np.zeros(data.n_rows, bool)
    missing[data.missing_rows()] = True
    here = _Cells(absent, missing, lengths)
    found = {site.place.observed: here, site.place.lengths.observed: here}
    below: list[Any] = [(absent, lengths)] * len(site.children)
    if isinstance(site.node, Optional):
        found[site.node.indicator(site)] = here
        below = [(absent | data.full(data.arrays["missing"], False), lengths)]
    elif isinstance(site.node, SequenceNode):
        below[0] = None, (*lengths, data.lengths)
    for child, block, around in zip(site.children, site.node.child_data(data), below):
        found |= _cells(child, block, *around)
    return found


def _missing(each: Observed, cells: _Cells, marks: Mapping[str, int]) -> np.ndarray:
    """Which cells of an array are missing; rows (N,) of chains, which are padded."""
    is_chain = each.shapes and each.values.ndim == 2
    return cells.missing if is_chain else is_missing(each.values, marks.get(each.name, -1))


def missing_marks(bound: Bound) -> dict[str, int]:
    """What missing cells of whole numbers have, or less, where it is not -1."""
    leaves = [
        site for site in bound.site.leaves() if isinstance(site.node, Leaf) and site.node.value_dtype != "float64"
    ]
    marks = sorted(((site.place.observed, site.node.mark(site.learned)) for site in leaves), key=lambda each: -each[1])
    return dict(marks)


def outside(error: DataError) -> DataError:
    """What the error of a drawn table means: the user's own is not at fault."""
    return DataError(
        f"a table that the fit draws, not yours, has values where another component has no density ({error.faults[0]}) "
        "Give all components one support, such as bm.LogNormal or bm.Exponential for numbers above 0."
    )


def rows_by_weight(weights: np.ndarray) -> np.ndarray:
    """Rows (M,), each as often as its weight says; with weights that are not whole, N rows, in proportion."""
    n_rows, total = len(weights), weights.sum()
    whole = (weights == np.round(weights)).all() and total <= max(10 * n_rows, 100_000)
    ends = np.round(np.cumsum(weights) * (1 if whole else n_rows / total)).astype(int)
    return np.repeat(np.arange(n_rows), np.diff(ends, prepend=0))


def written(bound: Bound, data: Encoded) -> dict[str, Observed]:
    """What a model observes of a table, by name, all of it written out."""
    return {each.name: replace(each, values=each.written_out()) for each in bound.site.observed(data)}


def is_missing(values: np.ndarray, mark: int = -1) -> np.ndarray:
    """Which of a model's observed values are missing."""
    return np.isnan(values) if values.dtype.kind == "f" else values <= mark


def predictive_tree(
    bound: Bound, draws: Sequence[Params], data: Encoded, observed: xr.Dataset, rng: np.random.Generator
) -> xr.DataTree:
    """Groups ``posterior_predictive`` and ``observed_data``. See `Fit.posterior_predictive`."""
    own = {name: each for name, each in written(bound, data).items() if each.row_dim == "row" and name in observed}
    for name in {"chain", "draw"} & set(own):
        raise DataError(
            f"{name}: the draws have a dimension of this name. Rename the field, and fit again; "
            "predictive_checks() and sample() take it as it is."
        )
    kept: dict[str, list] = {name: [] for name in own}
    for table in replicates(bound, draws, data, rng):
        for name in list(kept):
            if table[name].values.shape != own[name].values.shape:  # chains, as long as the longest
                del kept[name]
            else:
                kept[name].append(table[name].values)
    dims = {name: observed[name].dims for name in kept}
    coords = {dim: observed[dim].values for name in kept for dim in dims[name] if dim in observed.coords}
    drawn = xr.Dataset(
        {name: (("chain", "draw", *dims[name]), np.array(values)[None]) for name, values in kept.items()},
        coords={"chain": [0], "draw": np.arange(len(draws)), **coords},
    )
    return xr.DataTree.from_dict({"posterior_predictive": drawn, "observed_data": observed[list(kept)]})


def predictive_table(
    bound: Bound, draws: Sequence[Params], data: Encoded, prob: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Statistics of every field, observed and drawn. See `Fit.predictive_checks`."""
    # not leaves alone: a chain has a family of its lengths below it
    leaves = {site.place.observed: site for site in bound.site.walk() if site.node.value_kind}
    arguments.check(prob=prob)
    own = written(bound, data)
    marks = missing_marks(bound)

    def figures(table: dict[str, Observed]) -> dict[tuple[str, str], float]:
        each = ((name, _statistics(array, leaves.get(name), marks.get(name, -1))) for name, array in table.items())
        return {(name, key): value for name, found in each for key, value in found}

    observed = figures(own)
    drawn: dict[tuple[str, str], list] = {key: [] for key in observed}
    for table in replicates(bound, draws, data, rng):
        found = figures(table)
        for key, each in drawn.items():
            each.append(found.get(key, np.nan))
    lines = {}
    for key, value in observed.items():
        values: Any = np.array(drawn[key])
        values = values[~np.isnan(values)]
        if not len(values) or np.isnan(value):
            continue
        low, high = np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2])
        close = np.isclose(values, value, rtol=1e-12, atol=1e-12)
        p_value = float(((values > value) & ~close).mean() + 0.5 * close.mean())
        lines[key] = {"observed": value, "mean": values.mean(), "lower": low, "upper": high, "p_value": p_value}
    checks = pd.DataFrame.from_dict(lines, orient="index", columns=["observed", "mean", "lower", "upper", "p_value"])
    checks.index = pd.MultiIndex.from_tuples(lines, names=["field", "statistic"])
    return checks


def _statistics(each: Observed, leaf: Site | None, mark: int) -> Iterator[tuple[str, float]]:
    """Test statistics of one observed array, without its missing cells."""
    values = each.values
    kind = leaf.node.value_kind if leaf is not None else "count"
    if leaf is None and each.name.endswith("_missing"):
        known = values[values >= 0]  # records around that are missing say nothing
        if len(known):
            yield "share missing", float(known.mean())
        return
    if kind in ("symbol", "chain"):
        codes = values[values >= 0]
        labels = _symbols(leaf)
        counts = np.bincount(codes.ravel().astype(int), minlength=len(labels))
        for code in range(min(len(labels), _MOST_SYMBOLS)):
            yield f"share of {labels[code]}", float(counts[code] / max(counts.sum(), 1))
        return
    names = [""] if values.ndim == 1 else [f" of {label}" for label in texts(each.dims[-1].labels)]
    for name, column in zip(names, values.reshape(len(values), math.prod(values.shape[1:])).T):
        column = column[~is_missing(column, mark)]
        if not len(column):
            continue
        if kind in ("truth", "set"):
            yield f"share{name}", float(column.mean())
            continue
        yield f"mean{name}", float(column.mean())
        yield f"sd{name}", float(column.std())
        if kind == "count":
            yield f"share of zeros{name}", float((column == 0).mean())
        else:
            yield f"smallest{name}", float(column.min())
        yield f"largest{name}", float(column.max())


def _symbols(leaf: Any) -> list:
    """The user's symbols in the order of their codes."""
    return texts(leaf.learned.levels)
