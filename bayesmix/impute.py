"""Missing cells, drawn from their posterior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix.bound import Bound
from bayesmix.data import Table, is_missing
from bayesmix.families._summaries import in_order
from bayesmix.params import Params
from bayesmix.spec import Encoded, Node, Site
from bayesmix.structure.composite import Composite


@dataclass(frozen=True)
class Imputation:
    """Draws of the missing cells, each consistent with a draw of the row's label and of the parameters.

    Attributes
    ----------
    draws : dict
        Field -> ndarray (n_draws, n_missing), or (n_draws, n_missing, D) for vectors, in the user's own values.
    rows : dict
        Field -> ndarray of int (n_missing,): row positions of the missing cells.
    means : dict
        Field -> ndarray (n_missing,) or (n_missing, D): the cells' means given what is observed, by the formula
        ``Σ_k r_k E_k[x]`` and not from the draws, averaged over the posterior. For symbols the probabilities
        (n_missing, S) of the levels; for missing sequences the mean of an element.
    positions : dict
        Field -> ndarray of int (n_missing,): places of missing elements in their row's sequence; such fields are called
        ``name[]``.
    coordinates : dict
        Field of vectors -> ndarray of bool (n_missing, D): which coordinates are missing. The draws hold whole vectors,
        with the observed coordinates as they are.
    labels : dict
        Field -> ndarray of int (n_draws, n_missing): the component of the outermost mixture that each cell was drawn
        from, in the same draw; empty where the root of the spec is not a mixture.
    """

    draws: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    kinds: dict[str, str]
    columns: dict[str, list[int]]
    means: dict[str, np.ndarray]
    positions: dict[str, np.ndarray]
    coordinates: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    source: Table

    @property
    def n_draws(self) -> int:
        """Number of completed tables."""
        return len(next(iter(self.draws.values()), ()))

    def summary(self, prob: float = 0.89) -> pd.DataFrame:
        """One line for each missing cell.

        Parameters
        ----------
        prob : float
            Mass of the equal-tailed interval, ``low`` to ``high``.

        Returns
        -------
        pandas.DataFrame
            Index ``field``, ``row`` (the frame's own labels); columns mean, sd, low, high (NaN for symbols),
            mode, and ``p_mode``, the posterior probability of the mode (NaN for real numbers).
        """
        lines = []
        for field, values in self.draws.items():
            for j, row in enumerate(self.rows[field]):
                cell = values[:, j]
                at = f"{field[:-2]}[{self.positions[field][j]}]" if field in self.positions else field
                named = [(at, cell)]
                if cell.ndim == 2:
                    named = list(zip(self._coordinates(field, cell.shape[1]), cell.T))
                    lacking = self.coordinates.get(field)
                    named = [each for d, each in enumerate(named) if lacking is None or lacking[j, d]]
                lines += [
                    {"field": name, "row": self._label(row), **_summary(draws, self.kinds[field], prob)}
                    for name, draws in named
                ]
        columns = ["mean", "sd", "low", "high", "mode", "p_mode"]
        if not lines:
            return pd.DataFrame(columns=columns, index=pd.MultiIndex.from_arrays([[], []], names=["field", "row"]))
        return pd.DataFrame(lines).set_index(["field", "row"])[columns]

    def table(self, draw: int | None = None) -> Any:
        """The table with every missing cell of the spec's fields filled, in the caller's frame type.

        Index, columns that the spec does not name, and column types are kept (a whole-number column takes real
        numbers only as a real column).

        Parameters
        ----------
        draw : int, optional
            Which draw fills it. By default the centre of the draws: mean for real numbers, median for counts,
            most frequent for symbols and truth values, the symbols of most draws for sets.
        """
        frame = self.source.native if self.source.native is not None else _as_pandas(self.source)
        for field, rows in self.rows.items():
            fill = self.draws[field][draw] if draw is not None else self._centre(field)
            positions = self.columns[field]
            parts = [fill] if len(positions) == 1 else list(fill.T)
            at, lacking = self.positions.get(field), self.coordinates.get(field)
            for d, (position, part) in enumerate(zip(positions, parts)):
                own = slice(None) if lacking is None or len(positions) == 1 else lacking[:, d]
                frame = _with_cells(frame, position, rows[own], part[own], self.kinds[field], field, at)
        return frame.copy() if frame is self.source.native and isinstance(frame, pd.DataFrame) else frame

    def _centre(self, field: str) -> np.ndarray:
        values, kind = self.draws[field], self.kinds[field]
        if kind == "real":
            return values.mean(0)
        if kind == "count":
            return np.quantile(values, 0.5, axis=0, method="lower").astype(np.int64)
        if kind == "set":
            return _majority(values)
        centre = np.empty(values.shape[1], object)
        centre[:] = [_mode(values[:, j])[0] for j in range(values.shape[1])]
        return centre if kind == "symbol" else centre.astype(values.dtype)

    def _coordinates(self, field: str, width: int) -> list[str]:
        if len(self.columns[field]) == width:
            return [self.source.columns[position].name for position in self.columns[field]]
        return [f"{field}[{d}]" for d in range(width)]

    def _label(self, row: int) -> Any:
        return row if self.source.index is None else self.source.index[row]

    def __repr__(self) -> str:
        cells = ", ".join(f"{field}: {len(rows)}" for field, rows in self.rows.items())
        return f"Imputation({self.n_draws} draws of missing cells; {cells or 'none missing'})"


def impute(
    bound: Bound, draws: Sequence[Params], table: Table, encoded: Encoded, rng: np.random.Generator
) -> Imputation:
    """Draw every missing cell once for each of the parameter draws.

    For each draw of the parameters the row's labels are drawn given all that is observed in it, outer mixtures
    first, then the missing cells given the labels.
    """
    all_gaps = list(bound.site.gaps(encoded))
    if not all_gaps:
        return Imputation({}, {}, {}, {}, {}, {}, {}, {}, table)
    needed = np.unique(np.concatenate([gap.rows for gap in all_gaps])).astype(int)
    part = encoded.take(needed)
    gaps = {gap.path: gap for gap in bound.site.gaps(part)}
    found: dict[str, list] = {path: [] for path in gaps}
    means: dict[str, Any] = {}
    drawn_labels: list[np.ndarray] = []
    before: Params | None = None
    for params in draws:
        if params is not before:  # a point estimate has one value for all draws
            before, evaluation = params, bound.site.evaluate(params, part)
            expected: dict[Any, np.ndarray] = {}
            bound.site.expect(params, evaluation, part, np.ones((len(needed), 1)), expected)
        out: dict[Any, np.ndarray] = {}
        bound.site.impute(params, evaluation, part, np.zeros(len(needed), int), rng, out)
        if bound.is_mixture:
            drawn_labels.append(out["label", bound.site.key, bound.site.place.path])
        for path in gaps:
            found[path].append(out[path])
            if path in expected:
                means[path] = means.get(path, 0.0) + expected[path] / len(draws)
    lone = table.names[0] if len(table.columns) == 1 else "x"
    name = {path: f"{lone}{path}" if path[:1] in ("", "[") else path for path in gaps}
    return Imputation(
        {
            name[path]: np.array(values) if values[0].dtype != object else _stack(values)
            for path, values in found.items()
        },
        {name[path]: needed[gap.rows] for path, gap in gaps.items()},
        {name[path]: _kind(gap.site) for path, gap in gaps.items()},
        {name[path]: _source_columns(bound.spec, gap.site, table) for path, gap in gaps.items()},
        {name[path]: value for path, value in means.items()},
        {name[path]: gap.positions for path, gap in gaps.items() if gap.positions is not None},
        {name[path]: gap.coordinates for path, gap in gaps.items() if gap.coordinates is not None},
        {name[path]: np.array([z[gap.rows] for z in drawn_labels]) for path, gap in gaps.items() if drawn_labels},
        table,
    )


def _stack(values: list[np.ndarray]) -> np.ndarray:
    """Arrays as one with the draws first; lists in the cells of objects stay lists."""
    if values[0].dtype != object:
        return np.array(values)
    out = np.empty((len(values), *values[0].shape), object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def _source_columns(spec: Node, site: Site, table: Table) -> list[int]:
    """Positions of the table's columns that a field reads."""
    path = site.place.path
    if not path:
        return list(range(len(table.columns)))
    top = path.split(".")[0]
    if table.named and top in table.names:
        return [table.names.index(top)]
    while not isinstance(spec, Composite):
        spec = spec.parts[0][1]
    return [[name for name, _ in spec.parts].index(top)]  # records go by position


def _as_pandas(table: Table) -> pd.DataFrame:
    """A table that did not come as a frame, as one, with its missing cells."""
    columns: dict[str, Any] = {}
    for column in table.columns:
        cells = column.values
        if column.missing.any():
            cells = cells.astype(float if column.kind == "number" else object)
            cells[column.missing] = np.nan if column.kind == "number" else None
        columns[column.name] = cells
    return pd.DataFrame(columns, index=table.index)


def _with_cells(
    frame: Any, position: int, rows: np.ndarray, fill: np.ndarray, kind: str, field: str, at: np.ndarray | None
) -> Any:
    """The frame with some cells of one column filled."""
    if not isinstance(frame, pd.DataFrame):
        table = nw.from_native(frame)
        series = table[:, position]
        cells = series.to_list()
        _fill(cells, rows, fill, kind, field, at)
        dtype = nw.Float64() if kind == "real" and series.dtype.is_integer() else series.dtype
        new = nw.new_series(series.name, cells, dtype, backend=table.implementation)
        return table.with_columns(new).to_native()
    old = frame.iloc[:, position]
    cells = old.tolist()
    _fill(cells, rows, fill, kind, field, at)
    kept: Any = old.dtype
    if kind == "real" and pd.api.types.is_integer_dtype(kept):
        kept = "Float64" if pd.api.types.is_extension_array_dtype(kept) else float
    frame = frame.copy()
    frame.isetitem(position, pd.Series(cells, index=frame.index, dtype=kept))
    return frame


def _fill(cells: list, rows: np.ndarray, fill: np.ndarray, kind: str, field: str, at: np.ndarray | None) -> None:
    """Put values into cells; a field inside a record, or an element of a sequence, goes into a copy of it."""
    whole, _, element = field.partition("[]")
    within = whole.split(".")[1:]
    truth = kind == "truth" and any(isinstance(cell, bool) for cell in cells)
    like = next((type(cell) for cell in cells if kind == "set" and isinstance(cell, (list, tuple, set))), None)
    for i, (row, value) in enumerate(zip(rows, fill.tolist())):
        cell = bool(value) if truth else value if like is None else like(in_order(value))
        if at is not None:
            sequence = list(cells[row])
            deeper = element.split(".")[1:]
            sequence[at[i]] = _in_record(sequence[at[i]], deeper, cell) if deeper else cell
            cells[row] = sequence
        else:
            if within and is_missing(cells[row]):  # a record like the others: a tuple where they are
                record = next((each for each in cells if isinstance(each, (tuple, list))), None)
                cells[row] = None if record is None else type(record)([None] * len(record))
            cells[row] = _in_record(cells[row], within, cell) if within else cell


def _in_record(record: Any, within: list[str], value: Any) -> Any:
    name, *deeper = within
    if isinstance(record, (tuple, list)):
        place = int(name[1:]) - 1
        inner = _in_record(record[place], deeper, value) if deeper else value
        return type(record)([*record[:place], inner, *record[place + 1 :]])
    record = {} if record is None or is_missing(record) else record
    return {**record, name: _in_record(record.get(name), deeper, value) if deeper else value}


def _kind(site: Site) -> str:
    """What a summary of this field's cells makes sense of."""
    return site.node.value_kind if site.is_leaf else "symbol"


def _summary(draws: np.ndarray, kind: str, prob: float) -> dict[str, Any]:
    line: dict[str, Any] = {"mean": np.nan, "sd": np.nan, "low": np.nan, "high": np.nan, "mode": None, "p_mode": np.nan}
    if kind not in ("symbol", "set"):
        numbers = draws.astype(float)
        low, high = np.quantile(numbers, [(1 - prob) / 2, (1 + prob) / 2])
        line.update(mean=numbers.mean(), sd=numbers.std(ddof=1) if len(draws) > 1 else np.nan, low=low, high=high)
    if kind != "real":
        line["mode"], line["p_mode"] = _mode(draws)
    return line


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _majority(draws: np.ndarray) -> np.ndarray:
    """The set of the symbols that are in more than half of a cell's draws, for draws (n_draws, n_missing) of sets."""
    centre = np.empty(draws.shape[1], object)
    for j, cell in enumerate(draws.T.tolist()):
        counts = Counter(symbol for drawn in cell for symbol in drawn)
        centre[j] = frozenset(symbol for symbol, count in counts.items() if count > len(cell) / 2)
    return centre


def _mode(draws: np.ndarray) -> tuple[Any, float]:
    counts: dict[Any, int] = {}
    for value in map(_hashable, draws.tolist()):
        counts[value] = counts.get(value, 0) + 1
    best = max(counts, key=lambda value: counts[value])
    return best, counts[best] / len(draws)
