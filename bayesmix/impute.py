"""Missing cells, drawn from their posterior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix import arguments
from bayesmix.bound import Bound
from bayesmix.data import Table, is_missing
from bayesmix.families._summaries import in_order
from bayesmix.params import Params
from bayesmix.spec import Encoded, Node, Site
from bayesmix.structure.composite import Composite
from bayesmix.structure.sequence import Sequence as SequenceNode
from bayesmix.threads import alone

#: Types of columns of whole numbers, as frame libraries call them.
_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


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
        ``name[]``. Of sequences in sequences, ``name[][]``, (n_missing, L): that of the inner one, and that in it.
    coordinates : dict
        Field of vectors -> ndarray of bool (n_missing, D): which coordinates are missing. The draws hold whole vectors,
        with the observed coordinates as they are.
    labels : dict
        Field -> ndarray of int (n_draws, n_missing): the component of the outermost mixture that each cell was drawn
        from, in the same draw; empty where the root of the spec is not a mixture.

    Examples
    --------
    >>> import bayesmix as bm
    >>> table = {"income": [1.2, 0.8, 1.1, 5.3, None, 4.9], "visits": [0, 1, 0, 7, 9, None]}
    >>> spec = bm.Mixture(bm.Composite(income=bm.Normal(), visits=bm.Poisson()), 2)
    >>> imputed = bm.fit(spec, table, random_seed=1).impute(n_draws=50, random_seed=1)
    >>> imputed.draws["income"].shape, imputed.rows["income"]
    ((50, 1), array([4]))
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
    #: Field -> the way to its cells inside the cells of its column.
    within: dict[str, list] = dataclass_field(default_factory=dict, repr=False)

    @property
    def n_draws(self) -> int:
        """Number of completed tables."""
        return len(next(iter(self.draws.values()), ()))

    @alone
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
        arguments.check(prob=prob)
        lines = []
        for field, values in self.draws.items():
            for j, row in enumerate(self.rows[field]):
                cell = values[:, j]
                at = _at(field, self.positions[field][j]) if field in self.positions else field
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

    @alone
    def table(self, draw: int | None = None) -> Any:
        """The table with every missing cell of the spec's fields filled, in the caller's frame type.

        Index, columns that the spec does not name, and column types are kept (a whole-number column takes real
        numbers only as a real column, and a categorical one gets the symbols that it lacks as its last categories).
        Symbols that the fit does not know stay as they are. A series comes back as a series; arrays, dicts and lists as
        a pandas frame.

        Parameters
        ----------
        draw : int, optional
            Which draw fills it. By default the centre of the draws: mean for real numbers, median for counts,
            most frequent for symbols and truth values, the symbols of most draws for sets. For sequences the most
            typical draw: of those of median length, without gaps if there are such, the one that lies nearest to the
            others, place by place.
        """
        drawn = min((len(values) for values in self.draws.values()), default=0)
        if draw is not None and drawn and not -drawn <= draw < drawn:
            raise ValueError(f"draw: there are {drawn} draws, 0 to {drawn - 1}, and no {draw!r}.")
        native = self.source.native
        series = nw.from_native(native, pass_through=True, series_only=True) if native is not None else None
        if isinstance(series, nw.Series):
            return _as_series(series, self._filled(series.to_frame().to_native(), draw))
        frame = self._filled(_as_pandas(self.source) if native is None else native, draw)
        return frame.copy() if frame is native and isinstance(frame, pd.DataFrame) else frame

    def _filled(self, frame: Any, draw: int | None) -> Any:
        for field, rows in self.rows.items():
            within = self.within[field]
            fill = self.draws[field][draw] if draw is not None else self._centre(field)
            positions = self.columns[field]
            parts = [fill] if len(positions) == 1 else list(fill.T)
            at, lacking = self.positions.get(field), self.coordinates.get(field)
            for d, (position, part) in enumerate(zip(positions, parts)):
                own = slice(None) if lacking is None or len(positions) == 1 else lacking[:, d]
                frame = _with_cells(frame, position, rows[own], part[own], self.kinds[field], within, at)
        return frame

    def _centre(self, field: str) -> np.ndarray:
        values, kind = self.draws[field], self.kinds[field]
        if kind == "real":
            return values.mean(0)
        if kind == "count":
            return np.quantile(values, 0.5, axis=0, method="lower").astype(np.int64)
        if kind == "set":
            return _majority(values)
        centre = np.empty(values.shape[1], object)
        for j, cell in enumerate(values.T):
            sequences = [each for each in cell if isinstance(each, list)]
            centre[j] = _typical(sequences) if 2 * len(sequences) > len(cell) else _mode(cell)[0]
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
    ordered, positions = bound.in_order(table)
    lone = ordered.names[0] if len(ordered.columns) == 1 else "x"
    name = {path: f"{lone}{path}" if path[:1] in ("", "[") else path for path in gaps}
    return Imputation(
        {
            name[path]: np.array(values) if values[0].dtype != object else _stack(values)
            for path, values in found.items()
        },
        {name[path]: needed[gap.rows] for path, gap in gaps.items()},
        {name[path]: _kind(gap.site) for path, gap in gaps.items()},
        {name[path]: [positions[at] for at in _places(bound.spec, gap.site, ordered)] for path, gap in gaps.items()},
        {name[path]: value for path, value in means.items()},
        {name[path]: gap.positions for path, gap in gaps.items() if gap.positions is not None},
        {name[path]: gap.coordinates for path, gap in gaps.items() if gap.coordinates is not None},
        {name[path]: np.array([z[gap.rows] for z in drawn_labels]) for path, gap in gaps.items() if drawn_labels},
        table,
        {name[path]: _within(bound.spec, gap.site, path, ordered) for path, gap in gaps.items()},
    )


def _stack(values: list[np.ndarray]) -> np.ndarray:
    """Arrays of objects as one with the draws first; lists in their cells stay lists."""
    out = np.empty((len(values), *values[0].shape), object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def _places(spec: Node, site: Site, table: Table) -> list[int]:
    """Where a field's columns are in a table whose columns are in the spec's order."""
    top = _column_of(spec, site.place.path)
    if top is None:
        labels = [label for dim in site.value_dims for label in dim.labels] if len(table.columns) > 1 else []
        names = table.names if table.named else ()
        if labels and set(labels) <= set(names):
            return [names.index(label) for label in labels]
        return list(range(len(table.columns)))
    record = _record(spec)
    if table.named and top in table.names and not record.positional:
        return [table.names.index(top)]
    if _in_one_column(record, top, table):
        return [0]
    return [[name for name, _ in record.parts].index(top)]  # records go by position


def _in_one_column(record: Composite, top: str, table: Table) -> bool:
    """Whether the table has whole records in its one column."""
    return len(table.columns) == 1 and len(record.parts) > 1 and not (table.named and top in table.names)


def real_columns(bound: Bound, table: Table) -> set[str]:
    """Names of the columns that fields of real numbers read."""
    ordered, _ = bound.in_order(table)
    leaves = [leaf for leaf in bound.site.leaves() if leaf.node.value_kind == "real"]
    return {ordered.names[at] for leaf in leaves for at in _places(bound.spec, leaf, ordered)}


def _record(spec: Node) -> Any:
    while not isinstance(spec, Composite):
        spec = spec.parts[0][1]
    return spec


def _column_of(spec: Node, path: str) -> str | None:
    """Name of the outermost field that a path begins with; None where the rows are no records."""
    while not isinstance(spec, Composite):
        if not hasattr(spec, "parts") or not spec.parts or isinstance(spec, SequenceNode):
            return None
        spec = spec.parts[0][1]
    return _first_name(path, [name for name, _ in spec.parts]) if path else None


def _within(spec: Node, site: Site, path: str, table: Table) -> list[Any]:
    """The way from a column's cell to a field's: names of fields with their places, and ``"[]"`` for an element."""
    top = _column_of(spec, site.place.path)
    steps = _steps(spec, path)
    return steps if top is None or _in_one_column(_record(spec), top, table) else steps[1:]


def _steps(node: Node, path: str) -> list[Any]:
    if not path:
        return []
    if isinstance(node, Composite):
        names = [name for name, _ in node.parts]
        name = _first_name(path, names)
        return [(name, names.index(name)), *_steps(dict(node.parts)[name], path[len(name) :].removeprefix("."))]
    if path.startswith("[]") and isinstance(node, SequenceNode):
        return ["[]", *_steps(node.parts[0][1], path[2:].removeprefix("."))]
    return _steps(node.parts[0][1], path)


def _first_name(path: str, names: list[str]) -> str:
    """The name that a path begins with: the longest of those that there are, since names may have dots in them."""
    return max((name for name in names if path == name or path.startswith((f"{name}.", f"{name}["))), key=len)


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


def _as_series(series: nw.Series, frame: Any) -> Any:
    """The one column of a frame as a series, under the name that the caller's had."""
    if isinstance(frame, pd.DataFrame):
        return frame.iloc[:, 0].rename(series.to_native().name)
    return nw.from_native(frame)[:, 0].alias(series.name).to_native()


def _with_cells(
    frame: Any, position: int, rows: np.ndarray, fill: np.ndarray, kind: str, steps: list, at: np.ndarray | None
) -> Any:
    """The frame with some cells of one column filled."""
    if not isinstance(frame, pd.DataFrame):
        table = nw.from_native(frame)
        series = table[:, position]
        cells = series.to_list()
        blank = all(map(is_missing, cells))
        _fill(cells, rows, fill, kind, steps, at)
        dtype: Any = nw.Float64() if kind == "real" and series.dtype.is_integer() else series.dtype
        if kind == "count" and not _fits(fill, str(dtype)):
            dtype = nw.Int64()
        if isinstance(dtype, nw.Enum):
            dtype = nw.Enum(_with_symbols(dtype.categories, cells))
        elif blank and (fill.dtype == object or dtype == nw.Unknown()):
            dtype = None  # a column without any cell has no type of its own
        if dtype == series.dtype and table.implementation.is_pyarrow():
            import pyarrow

            own = frame.schema.field(position)  # arrow has more types than narwhals
            return frame.set_column(position, own, pyarrow.array(cells, own.type))
        new = nw.new_series(series.name, cells, dtype, backend=table.implementation)
        return table.with_columns(new).to_native()
    old = frame.iloc[:, position]
    cells = old.tolist()
    kept: Any = old.dtype
    blank = all(map(is_missing, cells))
    _fill(cells, rows, fill, kind, steps, at)
    if isinstance(kept, pd.CategoricalDtype):
        kept = pd.CategoricalDtype(_with_symbols(kept.categories.tolist(), cells), kept.ordered)
    elif blank and (fill.dtype == object or str(kept) == "null[pyarrow]"):
        kept = None
    elif kind == "real" and pd.api.types.is_integer_dtype(kept):
        kept = "Float64" if pd.api.types.is_extension_array_dtype(kept) else float
    elif kind == "count" and not _fits(fill, str(kept)):
        kept = "int64[pyarrow]" if "pyarrow" in str(kept) else "Int64"
    frame = frame.copy()
    frame.isetitem(position, pd.Series(cells, index=frame.index, dtype=kept))
    return frame


def _with_symbols(categories: Sequence[Any], cells: list) -> list:
    """The categories of a column, and after them the symbols that it has got now."""
    return list(dict.fromkeys([*categories, *(cell for cell in cells if not is_missing(cell))]))


def _fits(fill: np.ndarray, dtype: str) -> bool:
    """Whether whole numbers go into a column of this type; any do into one that is not of whole numbers."""
    name = dtype.lower().split("[")[0]
    if fill.dtype.kind not in "iu" or not fill.size or name not in _WHOLE:
        return True
    range_ = np.iinfo(name)
    return bool(range_.min <= fill.min() and fill.max() <= range_.max)


def _fill(cells: list, rows: np.ndarray, fill: np.ndarray, kind: str, steps: list, at: np.ndarray | None) -> None:
    """Put values into cells; a field inside a record, or an element of a sequence, goes into a copy of it."""
    truth = kind == "truth" and any(isinstance(cell, bool) for cell in cells)
    like = next((type(cell) for cell in cells if kind == "set" and isinstance(cell, (list, tuple, set))), None)
    positions = np.empty((len(rows), 0), int) if at is None else at.reshape(len(rows), -1)
    # a record that is missing becomes one like the others
    record = next(
        (each for each in cells if steps and steps[0] != "[]" and isinstance(each, (tuple, list, dict))), None
    )
    for row, value, places in zip(rows, fill.tolist(), positions.tolist()):
        cell = bool(value) if truth else value if like is None else like(in_order(value))
        if steps and is_missing(cells[row]):
            cells[row] = (
                dict.fromkeys(record) if isinstance(record, dict) else record and type(record)([None] * len(record))
            )
        cells[row] = _placed(cells[row], steps, places, cell, kind)


def _placed(cell: Any, steps: list, places: list[int], value: Any, kind: str) -> Any:
    """A copy of a cell with a value at the end of the steps into it; `places` are those of elements."""
    if not steps:  # a symbol that the fit does not know is taken for missing, but is the user's
        return cell if kind == "symbol" and not is_missing(cell) else value
    step, *deeper = steps
    if step == "[]":
        place, *places = places
    else:
        name, place = step
    if isinstance(cell, (tuple, list, np.ndarray)):
        parts = list(cell)
        parts[place] = _placed(parts[place], deeper, places, value, kind)
        return tuple(parts) if isinstance(cell, tuple) else parts
    record = {} if cell is None or is_missing(cell) else cell
    return {**record, name: _placed(record.get(name), deeper, places, value, kind)}


def _at(field: str, places: Any) -> str:
    """A field's name with the places of one of its elements."""
    for place in np.atleast_1d(places).tolist():
        field = field.replace("[]", f"[{place}]", 1)
    return field


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
    if isinstance(value, dict):
        return tuple((name, _hashable(part)) for name, part in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple, np.ndarray)) else value


def _majority(draws: np.ndarray) -> np.ndarray:
    """The set of the symbols that are in more than half of a cell's draws, for draws (n_draws, n_missing) of sets."""
    centre = np.empty(draws.shape[1], object)
    for j, cell in enumerate(draws.T.tolist()):
        counts = Counter(symbol for drawn in cell for symbol in drawn)
        centre[j] = frozenset(symbol for symbol, count in counts.items() if count > len(cell) / 2)
    return centre


def _typical(draws: list[list]) -> list:
    """Of the sequences of median length the medoid: of least squared distance, summed over the others and over places.

    Numbers are measured by their standard deviation; other values are at a distance of 1 unless they are the same. That
    two sequences of numbers are equal has probability 0, so that none is the most frequent.
    """
    median = sorted(map(len, draws))[(len(draws) - 1) // 2]
    draws = [each for each in draws if len(each) == median]
    parts = [dict(_parts(each, ())) for each in draws]
    whole = [
        i for i, each in enumerate(parts) if None not in each.values()
    ]  # others leave gaps, if elements are Optional
    if whole:
        draws, parts = [draws[i] for i in whole], [parts[i] for i in whole]
    cost = np.zeros(len(draws))
    for place in dict.fromkeys(place for each in parts for place in each):
        values = [each.get(place) for each in parts]
        is_real = np.array([isinstance(value, float) for value in values])
        kinds = [float if real else value for real, value in zip(is_real, values)]
        counts = Counter(kinds)
        cost += [1 - counts[kind] / len(draws) for kind in kinds]
        numbers = np.array(values, object)[is_real].astype(float)
        if len(numbers) and np.ptp(numbers) > 0:
            cost[is_real] += ((numbers - numbers.mean()) / numbers.std()) ** 2
    return draws[int(cost.argmin())]


def _parts(value: Any, place: tuple) -> Iterator[tuple[tuple, Any]]:
    """What a drawn value is made of, each part with its place in it."""
    if isinstance(value, (dict, list, tuple, np.ndarray)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _parts(part, (*place, key))
    elif isinstance(value, frozenset):
        yield from (((*place, "in", symbol), True) for symbol in value)
    else:
        yield place, None if is_missing(value) else value


def _mode(draws: np.ndarray) -> tuple[Any, float]:
    counts: dict[Any, int] = {}
    values: dict[Any, Any] = {}
    for value in draws.tolist():
        key = _hashable(value)
        counts[key] = counts.get(key, 0) + 1
        values.setdefault(key, value)
    best = max(counts, key=lambda key: counts[key])
    return values[best], counts[best] / len(draws)
