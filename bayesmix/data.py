"""Tables of any origin, as columns that the spec can read.

A `Table` is a block of columns with their missing cells marked. Data frames come in through
narwhals; dicts of columns, numpy arrays and lists of records are read here. Nothing is ever
converted silently: a column is numbers, truth values or objects (symbols, records, sequences),
and the family that reads it says whether that will do.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix.errors import DataError, close_to, gather_faults
from bayesmix.threads import alone

Kind = Literal["number", "bool", "object"]


#: What dates and times are in a column.
TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_NUMPY_TIMES = (np.datetime64, np.timedelta64)
#: Faults of one kind that a message names; of the others it gives the number.
SHOWN = 5
#: Cells of a column of objects that are read at once.
_AT_ONCE = 2**16


def listed(shown: Sequence[str], total: int, noun: str) -> str:
    """The first faults of a kind, and how many there are in all where that is more than one."""
    text = ", ".join(shown)
    if total > len(shown):
        return f"{text} and {total - len(shown)} more ({total} {noun} in all)"
    return text if total < 2 else f"{text} ({total} {noun} in all)"


def texts(labels: Iterable) -> list[str]:
    """Labels as people read them: as `str` writes them, or as `repr` where that would make one of two (1 and "1")."""
    labels = [_item(label) for label in labels]
    shown = [str(label) for label in labels]
    return shown if len(set(shown)) == len(shown) else [repr(label) for label in labels]


def is_missing(value: Any) -> bool:
    """Whether a single cell is `None`, NaN, `pd.NA` or NaT."""
    if value is None:
        return True
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return type(value).__name__ in ("NAType", "NaTType")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
        The field's path, as errors name it.
    values : ndarray, shape (N,)
        Numbers, truth values, or Python objects, by `kind`. What stands in a missing cell means nothing.
    missing : ndarray of bool, shape (N,)
    kind : {"number", "bool", "object"}
    levels : tuple or None
        The categories that the frame itself declares (pandas Categorical, polars Enum), in order.
    dictionary : tuple or None
        What `coded` gives, where the frame has it.
    """

    name: str
    values: np.ndarray
    missing: np.ndarray
    kind: Kind
    levels: tuple | None = None
    dictionary: tuple[np.ndarray, list] | None = None

    def __len__(self) -> int:
        return len(self.missing)

    @classmethod
    def joined(cls, columns: Sequence[Column]) -> Column:
        """Columns of one kind below each other, under the first one's name."""
        known = [column for column in columns if not column.missing.all()]
        if known and len(known) < len(columns):  # what has no cell has no type of its own
            columns = [column if not column.missing.all() else known[0]._blank(len(column)) for column in columns]
        kinds = {column.kind for column in columns}
        names = " and ".join(dict.fromkeys(column.name for column in columns))
        if len(kinds) > 1:
            raise DataError(f"{names}: tied nodes read columns of {' and '.join(sorted(kinds))}. Give them one type.")
        if len({column.values.shape[1:] for column in columns}) > 1:
            raise DataError(f"{names}: tied nodes read vectors of different lengths. Give them one length.")
        values = np.concatenate([column.values for column in columns])
        missing = np.concatenate([column.missing for column in columns])
        declared = [column.levels for column in columns]
        if values.ndim == 2:
            return cls(names, values, missing, columns[0].kind, columns[0].levels)
        levels = None
        if all(own is not None for own in declared):
            levels = tuple(dict.fromkeys(level for own in declared for level in own or ()))
        return cls(names, values, missing, columns[0].kind, levels)

    def coded(self) -> tuple[np.ndarray, list]:
        """Cells as codes (N,), -1 where missing, and the symbols that these stand for, in order of appearance.

        Whole numbers are of type int, so that 1 and 1.0 are one symbol. Not every symbol of a frame's dictionary need
        have a cell.
        """
        if self.dictionary is not None:
            return self.dictionary
        if self.kind == "number" and self.values.ndim == 1:
            return _coded_numbers(self.values, self.missing)
        places: dict[Any, int] = {}
        cells = zip(self.values.tolist(), self.missing.tolist())
        codes = (-1 if gone else places.setdefault(cell, len(places)) for cell, gone in cells)
        return np.fromiter(codes, np.int64, len(self)), list(places)

    @classmethod
    def below(cls, columns: Sequence[Column]) -> Column:
        """Columns below each other; truth values and numbers make one of numbers, other kinds one of objects."""
        known = [column for column in columns if not column.missing.all()]
        if {column.kind for column in known} == {"bool", "number"}:
            columns = [
                replace(column, values=column.values.astype(float), kind="number") if column.kind == "bool" else column
                for column in columns
            ]
        elif len({column.kind for column in known}) > 1:
            columns = [replace(column, values=_objects(column.values.tolist()), kind="object") for column in columns]
        return cls.joined(columns)

    def take(self, rows: Any) -> Column:
        """Some of the cells."""
        coded = None if self.dictionary is None else (self.dictionary[0][rows], self.dictionary[1])
        return replace(self, values=self.values[rows], missing=self.missing[rows], dictionary=coded)

    def _blank(self, n_rows: int) -> Column:
        """A column of this kind of which every cell is missing."""
        nothing = np.full_like(self.values[:1], np.nan) if self.values.dtype.kind == "f" else self.values[:1]
        values = np.broadcast_to(nothing, (n_rows, *self.values.shape[1:]))
        return replace(self, values=values, missing=np.ones(n_rows, bool), dictionary=None)

    def at(self, bad: np.ndarray, show: Callable[[Any], str] = str, verb: str = "is ") -> str:
        """What stands in the rows that `bad` (N,) marks, for a message: the first five, and how many there are."""
        rows = np.flatnonzero(bad & ~self.missing)
        return listed([f"row {row} {verb}{show(_item(self.values[row]))}" for row in rows[:SHOWN]], len(rows), "rows")


@dataclass(frozen=True)
class Table:
    """A block of columns of equal length.

    Attributes
    ----------
    columns : tuple of Column
    named : bool
        Whether the columns have names of their own (a frame, a dict), or only positions (records, arrays).
    n_rows : int
    index : ndarray or None, shape (N,)
        Labels of the rows, from a pandas index.
    backend : str or None
        The frame library that the table came from, so that results go back in the same type.
    native : frame, series or None
        The caller's own.
    """

    columns: tuple[Column, ...]
    named: bool
    n_rows: int
    index: np.ndarray | None = None
    backend: str | None = None
    native: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def one(self, path: str) -> Column:
        """The single column of this block."""
        if len(self.columns) != 1:
            raise DataError(
                f"{path or 'data'}: one column is needed, the data have {len(self.columns)} "
                f"({', '.join(self.names[:6])}). Wrap the families in bm.Composite, or pass the one column."
            )
        return replace(self.columns[0], name=path or self.columns[0].name)

    def vector(self, path: str, family: str, *, partly: bool = False) -> Column:
        """The whole block as one column of vectors, (N, D): its columns, or the vectors in its one column.

        ``levels`` holds the names of the D coordinates. A row is missing where all its coordinates are; rows that lack
        some of them are an error unless `partly` allows them, with NaN there.
        """
        columns = self.columns
        if len(columns) == 1 and columns[0].kind == "object":
            columns = _coordinates(columns[0], path, family)
        if not columns:  # no row says how long the vectors are
            return Column(path or "data", np.empty((self.n_rows, 0)), np.ones(self.n_rows, bool), "number", ())
        values = np.column_stack(gather_faults(partial(numbers, column, family) for column in columns))
        missing = np.column_stack([column.missing for column in columns])
        some = missing.any(1) & ~missing.all(1)
        if some.any() and not partly:
            rows = np.flatnonzero(some)
            gone = [
                f"row {row} lacks {', '.join(column.name for column, cell in zip(columns, missing[row]) if cell)}"
                for row in rows[:SHOWN]
            ]
            raise DataError(
                f"{path or 'data'}: {listed(gone, len(rows), 'rows')} but has the other coordinates; {family} takes "
                "whole vectors. Use one Normal for each column, or mark the whole vector missing."
            )
        labels = tuple(column.name for column in columns)
        return Column(path or "data", values, missing.all(1), "number", labels)

    def of_names(self, names: Sequence[str], path: str) -> Table:
        """The columns of these names in this order; see `positions_of`."""
        positions = self.positions_of(names, path)
        if positions == list(range(len(self.columns))):
            return self
        return replace(self, columns=tuple(self.columns[position] for position in positions))

    def positions_of(self, names: Sequence[str], path: str) -> list[int]:
        """Positions of the columns of these names, where there are several and they have names of their own.

        A vector's coordinates, as in ``v[0]``, stand for it. In a table of names as arrays get them columns go by their
        places: all positions.
        """
        places = tuple(f"x{j + 1}" for j in range(len(names)))
        every = list(range(len(self.columns)))
        if len(every) < 2 or not self.named or self.names == tuple(names):
            return every
        whole: dict[str, list[int]] = {}
        coordinates: dict[str, list[int]] = {}
        for position, name in enumerate(self.names):
            whole.setdefault(name, []).append(position)
            vector, bracket, _ = name.rpartition("[")
            if bracket:
                coordinates.setdefault(vector, []).append(position)
        found = {name: whole.get(name) or coordinates.get(name, []) for name in names}
        absent = [name for name, own in found.items() if not own]
        if tuple(absent) == places or (absent and self.names == places):
            return every
        if absent:
            raise DataError(
                [
                    f"{path}: the table has no column {name!r}, which the fitted data had; it has "
                    f"{', '.join(self.names)}.{close_to(name, self.names) or ' Rename the column.'}"
                    for name in absent
                ]
            )
        return [position for own in found.values() for position in own]

    def slice(self, first: int, last: int) -> Table:
        """Some rows that follow each other."""
        if first <= 0 and last >= self.n_rows:
            return self
        rows, n_rows = slice(first, last), max(min(last, self.n_rows) - first, 0)
        index = None if self.index is None else self.index[rows]
        return Table(tuple(column.take(rows) for column in self.columns), self.named, n_rows, index, self.backend)

    def take(self, rows: np.ndarray) -> Table:
        """Some rows, in the order given."""
        index = None if self.index is None else self.index[rows]
        return Table(tuple(column.take(rows) for column in self.columns), self.named, len(rows), index, self.backend)

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """Tables of the same columns below each other, without an index."""
        if len(tables) == 1:
            return tables[0]
        names = dict.fromkeys(name for table in tables for name in table.names)
        if any(table.names != tables[0].names for table in tables):
            columns = [[column for table in tables for column in table.columns if column.name == n] for n in names]
            columns = [own for own in columns if len(own) == len(tables)]
        else:
            columns = [list(own) for own in zip(*[table.columns for table in tables])]
        n_rows = sum(table.n_rows for table in tables)
        return cls(tuple(map(Column.below, columns)), tables[0].named, n_rows, None, tables[0].backend)

    def without(self, name: str) -> Table:
        """All columns but one."""
        return replace(self, columns=tuple(column for column in self.columns if column.name != name), native=None)

    def field(self, column: Column, path: str) -> Table:
        """A block that holds only `column`, named by its path in the spec."""
        return replace(self, columns=(replace(column, name=path),))

    def missing(self) -> np.ndarray:
        """Rows whose every column is missing, (N,) of bool."""
        return np.column_stack([column.missing for column in self.columns]).all(1)

    def expand(self, path: str) -> Table:
        """Turn a single column of records into the block of its fields; other blocks stay as they are."""
        if len(self.columns) != 1 or self.columns[0].kind != "object":
            return self
        column = self.columns[0]
        cells = [None if gone else value for value, gone in zip(column.values, column.missing)]
        given = [cell for cell in cells if cell is not None]
        if not given or not all(isinstance(cell, (tuple, list, Mapping)) for cell in given):
            return self
        return replace(_from_records(cells, path), index=self.index, backend=self.backend)


@alone
def read(data: Any) -> Table:
    """Read whatever `fit` takes into a `Table`.

    Parameters
    ----------
    data : pandas, polars or pyarrow table or series; dict of columns; ndarray of shape (N,) or (N, D);
        list of scalars, of tuples or of dicts; or a `Table`

    Raises
    ------
    DataError
        Unequal lengths, records of unequal length, an unreadable type.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, Mapping):
        return _from_mapping(data)
    if type(data).__name__ == "RecordBatch" and hasattr(data, "to_struct_array"):
        import pyarrow

        data = pyarrow.Table.from_batches([data])
    try:
        native = nw.from_native(data, pass_through=True, allow_series=True)
    except nw.exceptions.DuplicateError as error:
        names = " ".join(str(error).split()).replace("Expected unique column names, got: - ", "").replace(" - ", ", ")
        raise DataError(f"data: columns with one name: {names}. Rename all but one of them.") from None
    if isinstance(native, nw.LazyFrame):
        native = native.collect()
    if isinstance(native, nw.DataFrame):
        _check_names(native.columns)
        columns = tuple(_from_series(native[:, j], str(name)) for j, name in enumerate(native.columns))
        backend = native.implementation.name.lower()
        return Table(columns, True, native.shape[0], index_of(data), backend, native.to_native())
    if isinstance(native, nw.Series):
        column = _from_series(native, str(native.name or "x"))
        backend = native.implementation.name.lower()
        return Table((column,), True, len(column), index_of(data), backend, native.to_native())
    if isinstance(data, np.ndarray):
        return _from_array(data)
    _refuse_set("data", data)
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        hint = " Read the file first, for instance with pandas.read_csv." if isinstance(data, (str, Path)) else ""
        raise DataError(
            f"data: a table, dict of columns, array or list of records is needed, not {type(data).__name__}.{hint}"
        )
    return _from_records(list(data), "data")


def _refuse_set(name: Any, values: Any) -> None:
    """Raise `DataError` for a set in the place of a column: its order is nobody's, and equal cells are one."""
    if isinstance(values, (set, frozenset)):
        raise DataError(f"{name}: a set has no order, and its cells no rows. Pass a list with one cell a row.")


def column_of(values: Any, name: str) -> Column:
    """A `Column` from an array or a sequence of cells, without changing any value's type."""
    if isinstance(values, nw.Series):
        return _from_series(values, name)
    native = nw.from_native(values, pass_through=True, series_only=True)
    if isinstance(native, nw.Series):
        return _from_series(native, name)
    if isinstance(values, np.ndarray):
        mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        column = _from_vector(np.ma.getdata(values), name)
        return column if mask is None else replace(column, missing=column.missing | mask)
    return _from_cells(list(values), name)


def _from_cells(cells: list | np.ndarray, name: str) -> Column:
    """Of Python objects, in a list or in an array, which is kept where no cell of it must change."""
    types = set(map(type, cells))
    if any(issubclass(kind, _NUMPY_TIMES) for kind in types):
        return _from_cells([_item(cell) for cell in cells], name)
    whole = any(issubclass(kind, (int, np.integer)) for kind in types)
    if types and types <= {float, int}:
        column = _from_vector(np.array(cells, float), name)
        return _told_apart(column, cells) if whole else column
    missing = np.fromiter(map(is_missing, cells), bool, len(cells))

    def given() -> Iterator[Any]:
        return (cell for cell, gone in zip(cells, missing) if not gone)

    if not missing.all() and all(isinstance(cell, (bool, np.bool_)) for cell in given()):
        filled = np.array([False if gone else cell for cell, gone in zip(cells, missing)], bool)
        return Column(name, filled, missing, "bool")
    number = (int, float, np.integer, np.floating)
    if all(isinstance(cell, number) and not isinstance(cell, (bool, np.bool_)) for cell in given()):
        filled = np.array([np.nan if gone else cell for cell, gone in zip(cells, missing)], float)
        column = Column(name, filled, missing, "number")
        return _told_apart(column, cells) if whole else column
    if isinstance(cells, list) or any(issubclass(kind, np.generic) for kind in types):
        cells = _objects(cells)
    return Column(name, cells, missing, "object")


def _told_apart(column: Column, cells: Iterable) -> Column:
    """The column, with a dictionary of its cells where some are whole numbers beyond 2^53: doubles confuse those."""
    if not (np.abs(column.values) >= 2.0**53).any():
        return column
    places: dict[Any, int] = {}
    codes = (-1 if gone else places.setdefault(_item(cell), len(places)) for cell, gone in zip(cells, column.missing))
    coded = np.fromiter(codes, np.int64, len(column))
    symbols = [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in places]
    return replace(column, dictionary=(coded, symbols))


def _from_series(series: nw.Series, name: str) -> Column:
    dtype = series.dtype
    missing = series.is_null().to_numpy().astype(bool)
    if dtype.is_numeric() and not isinstance(dtype, nw.Decimal):
        if missing.any() or dtype.is_float():
            if dtype.is_integer() and series.implementation.is_pyarrow():  # which refuses to round those above 2^53
                values = series.to_native().cast("float64", safe=False).to_numpy(zero_copy_only=False)
            else:
                values = series.cast(nw.Float64).to_numpy().astype(float)
            missing = missing | np.isnan(values)
        else:
            values = series.to_numpy()
        column = Column(name, values, missing, "number")
        return _told_apart(column, series.to_list()) if dtype.is_integer() and values.dtype.kind == "f" else column
    if dtype == nw.Boolean:
        values = np.array([bool(cell) if not gone else False for cell, gone in zip(series.to_list(), missing)], bool)
        return Column(name, values, missing, "bool")
    if (coded := _dictionary(series)) is not None:
        codes, symbols = coded
        cells = np.empty(len(symbols) + 1, object)  # the last for missing cells
        cells[:-1] = symbols
        declared = tuple(symbols) if isinstance(dtype, nw.Categorical) and series.implementation.is_pandas() else None
        return Column(name, cells[codes], codes < 0, "object", declared, coded)
    levels = None
    if isinstance(dtype, nw.Enum):
        levels = tuple(dtype.categories)
    elif isinstance(dtype, nw.Categorical) and series.implementation.is_pandas():
        levels = tuple(series.to_native().cat.categories.tolist())
    cells = np.empty(len(series), object)
    known: dict[str, str] = {}
    for at in range(0, len(series), _AT_ONCE):  # Arrow's strings become objects: one for all that are equal
        for i, cell in enumerate(series[at : at + _AT_ONCE].to_list(), at):
            cells[i] = known.setdefault(cell, cell) if type(cell) is str else cell
    column = _from_cells(cells, name)
    return replace(column, missing=column.missing | missing, levels=levels) if levels is not None else column


def _dictionary(series: nw.Series) -> tuple[np.ndarray, list] | None:
    """Codes and symbols of a column of text, where its frame has them or finds them fast; see `Column.coded`."""
    dtype, native = series.dtype, series.to_native()
    if isinstance(dtype, nw.Categorical) and series.implementation.is_pandas():
        symbols = native.cat.categories.tolist()
        codes = native.cat.codes.to_numpy().astype(np.int64)
    elif isinstance(dtype, (nw.Categorical, nw.String)) and series.implementation.is_pyarrow():
        array = native.unify_dictionaries() if isinstance(dtype, nw.Categorical) else native.dictionary_encode()
        array = array.combine_chunks()
        symbols = array.dictionary.to_pylist()
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        return None
    return (codes, symbols) if all(isinstance(symbol, str) for symbol in symbols) else None


def _coded_numbers(values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, list]:
    """See `Column.coded`."""
    there = ~missing
    own = values if there.all() else values[there]
    codes = np.full(len(values), -1, np.int64)
    if not len(own):
        return codes, []
    low, high = own.min(), own.max()
    if values.dtype.kind in "iu" and int(high) - int(low) < 4 * len(own) + 1024:  # without sorting
        # differences may not fit in the column's own type: 127 - -128 of int8
        own = own.astype(np.int64) - int(low) if values.dtype.kind == "i" else (own - low).astype(np.int64)
        first = np.full(int(own.max()) + 1, len(own))
        np.minimum.at(first, own[::-1], np.arange(len(own))[::-1])
        found = np.flatnonzero(first < len(own))
        found = found[np.argsort(first[found])]
        number = np.zeros(len(first), np.int64)
        number[found] = np.arange(len(found))
        codes[there] = number[own]
        return codes, [int(low) + int(each) for each in found]
    found, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(found), np.int64)
    number[order] = np.arange(len(found))
    codes[there] = number[inverse.ravel()]
    cells = found[order].tolist()
    return codes, [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]


def _from_vector(values: np.ndarray, name: str) -> Column:
    if values.dtype.kind == "f":
        values = values.astype(float, copy=False)
        return Column(name, values, np.isnan(values), "number")
    if values.dtype.kind in "iu":
        return Column(name, values, np.zeros(len(values), bool), "number")
    if values.dtype.kind == "b":
        return Column(name, values, np.zeros(len(values), bool), "bool")
    if values.dtype.kind in "mM" and values.ndim == 1:  # of nanoseconds numpy makes whole numbers
        return _from_cells(list(values), name)
    return _from_cells(values if values.dtype == object and values.ndim == 1 else values.tolist(), name)


def _from_array(array: np.ndarray) -> Table:
    if array.dtype.names:
        return _from_mapping({name: array[name] for name in array.dtype.names})
    if array.ndim == 1:
        if array.dtype == object:
            return _from_records(array.tolist(), "data")
        return Table((column_of(array, "x"),), False, len(array))
    if array.ndim != 2:
        raise DataError(f"data: an array of shape (N,) or (N, D) is needed, not {array.shape}.")
    columns = tuple(column_of(array[:, j], f"x{j + 1}") for j in range(array.shape[1]))
    return Table(columns, False, len(array))


def _check_names(names: Iterable) -> None:
    """Raise `DataError` where names that differ, as 1 and "1" do, are one as text."""
    found: dict[str, Any] = {}
    for name in names:
        if found.setdefault(str(name), name) != name:
            raise DataError(f"data: columns with one name: {found[str(name)]!r}, {name!r}. Rename all but one of them.")


def _from_mapping(data: Mapping) -> Table:
    columns = []
    _check_names(data)
    for name, values in data.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:
            values = list(values)
        _refuse_set(name, values)
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise DataError(f"{name}: a column is needed, not {values!r}. Pass a list or array with one cell a row.")
        columns.append(column_of(values, str(name)))
    lengths = {column.name: len(column) for column in columns}
    if len(set(lengths.values())) > 1:
        raise DataError(f"data: the columns have unequal lengths {lengths}. Give every column one cell a row.")
    return Table(tuple(columns), True, next(iter(lengths.values()), 0))


def _from_records(records: list, path: str) -> Table:
    given = [record for record in records if record is not None]
    n_rows = len(records)
    if given and all(isinstance(record, Mapping) for record in given):
        names = list(given[0])
        _check_records(records, lambda record: list(record) == names or set(record) == set(names), names, path)
        cells: Iterable = ([None if record is None else record[name] for record in records] for name in names)
        return Table(tuple(column_of(c, str(name)) for name, c in zip(names, cells)), True, n_rows)
    if given and all(isinstance(record, (tuple, np.void)) for record in given):
        width = len(given[0])
        _check_records(records, lambda record: len(record) == width, width, path)
        cells = ([None if record is None else record[j] for record in records] for j in range(width))
        return Table(tuple(column_of(c, f"x{j + 1}") for j, c in enumerate(cells)), False, n_rows)
    return Table((column_of(records, "x"),), False, n_rows)


def _check_records(records: list, fits: Any, expected: Any, path: str) -> None:
    bad = [row for row, record in enumerate(records) if record is not None and not fits(record)]
    if bad:
        counted = isinstance(expected, int)
        found = [
            f"row {row} has {f'{len(records[row])} fields' if counted else f'the fields {list(records[row])}'}"
            for row in bad[:SHOWN]
        ]
        raise DataError(
            f"{path}: {listed(found, len(bad), 'rows')} where row 0 has {expected}. "
            "Give every record the same fields, with None for a missing cell."
        )


def _coordinates(column: Column, path: str, family: str) -> tuple[Column, ...]:
    """The coordinates of a column of vectors, as columns."""
    name = path or column.name
    strange = np.array([not sequence_like(cell) for cell in column.values], bool) & ~column.missing
    if strange.any():
        raise DataError(f"{name}: {family} needs vectors; {column.at(strange, with_type)}. Give each row a list.")
    rows = [None if gone else cell for cell, gone in zip(column.values, column.missing)]
    width = next((len(cell) for cell in rows if cell is not None), 0)
    wrong = np.array([cell is not None and len(cell) != width for cell in rows], bool)
    if wrong.any():
        found = column.at(wrong, lambda cell: f"{len(cell)} coordinates", "has ")
        raise DataError(f"{name}: {found} where the first has {width}. Give every row {width}.")
    return tuple(
        column_of([None if cell is None else _item(cell[j]) for cell in rows], f"{name}[{j}]") for j in range(width)
    )


def _item(value: Any) -> Any:
    """A cell as a Python object; dates and times that Python's own types do not hold as pandas'."""
    if not isinstance(value, np.generic):
        return value
    item = value.item()
    if isinstance(item, int) and isinstance(value, _NUMPY_TIMES):
        return pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    return item


def _objects(cells: Sequence | np.ndarray) -> np.ndarray:
    array = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        array[i] = _item(cell)
    return array


def index_of(data: Any) -> np.ndarray | None:
    """Labels of the rows of pandas' data; None of others."""
    index = getattr(data, "index", None)
    if index is None or callable(index) or not hasattr(index, "nlevels"):
        return None
    return np.asarray(index.to_flat_index() if index.nlevels > 1 else index)


# ---------------------------------------------------------------- what families ask of a column


def numbers(
    column: Column, family: str, *, whole: bool = False, minimum: float | None = None, above: float | None = None
) -> np.ndarray:
    """The column as float64, shape (N,), or a `DataError` that names the first bad rows of each kind.

    Values are at least `minimum`, and more than `above`. Missing cells are NaN in the result.
    """
    if column.kind != "number":
        if column.missing.all():
            return np.full(len(column), np.nan)
        number = (int, float, np.integer, np.floating)
        strange = [not isinstance(cell, number) or isinstance(cell, (bool, np.bool_)) for cell in column.values]
        found = column.at(np.array(strange) if column.kind == "object" else ~column.missing, with_type)
        way = "Convert the column first, or use Categorical for symbols."
        if any(isinstance(cell, TIMES) for cell in column.values[~column.missing]):
            way = "Make numbers of dates and times first: days since a day, the hour, the weekday."
        raise DataError(f"{column.name}: {family} needs numbers; {found}. {way}")
    values = column.values.astype(float)
    values[column.missing] = np.nan
    faults = []
    infinite = np.isinf(values)
    if infinite.any():
        faults.append(
            f"{column.name}: {family} needs finite numbers; {column.at(infinite)}. Correct it or mark it missing (NaN)."
        )
    with np.errstate(invalid="ignore"):
        # beyond 2^53 a double no longer tells one whole number from the next
        large = np.abs(values) > 2.0**53 if whole else np.zeros(len(values), bool)
        bad = values != np.floor(values) if whole else np.zeros(len(values), bool)
        bad |= (values < minimum) if minimum is not None else False
        bad |= (values <= above) if above is not None else False
    bound = "" if minimum is None else f" >= {minimum:g}"
    bound += "" if above is None else f" > {above:g}"
    kind = "whole numbers" if whole else "numbers"
    for wrong, needed in ((bad, kind), (large & ~bad, f"{kind} up to 2^53")):
        wrong = wrong & ~column.missing & ~infinite
        if wrong.any():
            faults.append(
                f"{column.name}: {family} needs {needed}{bound}; {column.at(wrong, '{:g}'.format)}. "
                "Use a different family or mark it missing (NaN)."
            )
    if faults:
        raise DataError(faults)
    return values


def with_type(value: Any) -> str:
    """A strange cell as messages show it."""
    return f"{value!r} ({type(value).__name__})"


def lengths_and_elements(column: Column, family: str) -> tuple[Column, Column]:
    """A column of sequences as a column of their lengths (N,) and a column of all their elements, row after row."""
    strange = [not gone and not sequence_like(cell) for cell, gone in zip(column.values, column.missing)]
    if column.kind != "object" and not column.missing.all():
        strange = list(~column.missing)
    if any(strange):
        raise DataError(
            f"{column.name}: {family} needs sequences; {column.at(np.array(strange), with_type)}. "
            "Give each row a list of its elements (list(text) for the letters of a text), or None where it is missing."
        )
    cells = [() if gone else cell for cell, gone in zip(column.values, column.missing)]
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    flat = [_item(element) for cell in cells for element in cell]
    return Column(f"{column.name} (length)", lengths, column.missing, "number"), column_of(flat, column.name)


def sequence_like(value: Any) -> bool:
    """Whether a cell is a sequence of elements (a list, tuple or array), not a symbol or a set."""
    return isinstance(value, (list, tuple, np.ndarray))
