"""What a fit says of every row of a table that is read in parts, written to Parquet as it is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix.data import Table, read
from bayesmix.errors import DataError
from bayesmix.sources import ENDINGS, ROWS, Source, arrow, named, source_of

#: Drawn cells that wait in memory at once.
_CELLS = 4_000_000

PathLike = str | os.PathLike[str]


def tables(data: Any, columns: Any = None, rows: int = ROWS) -> Iterator[tuple[str, Table]]:
    """The rows of a source or a table, some at a time, with what errors call them."""
    source = source_of(data)
    if source is None:
        yield from _slices("rows", read(data), rows)
        return
    for part in source.parts:
        for where, table in part.tables(columns):
            yield from _slices(where, table, rows)


def _slices(where: str, table: Table, rows: int) -> Iterator[tuple[str, Table]]:
    if table.n_rows <= rows:
        yield where, table
        return
    native = nw.from_native(table.native, pass_through=True, eager_only=True) if table.native is not None else None
    for first in range(0, table.n_rows, rows):
        if isinstance(native, nw.DataFrame):  # results keep its types
            yield f"{where}, from row {first} of these", read(native[first : first + rows].to_native())
        else:
            yield f"{where}, from row {first} of these", table.slice(first, first + rows)


def opened(data: Any) -> Any:
    """The source that `data` is, which can be read again and again; a table, or None, as it is."""
    source = None if data is None or isinstance(data, Table) else source_of(data)
    return data if source is None else source


def is_streamed(data: Any, to: Any) -> bool:
    """Whether rows are to be taken some at a time."""
    return to is not None or isinstance(data, Source)


def rowwise(
    data: Any,
    to: PathLike | None,
    columns: Any,
    find: Callable[[Table], np.ndarray],
    name: Callable[[np.ndarray], Mapping[str, np.ndarray]],
) -> Any:
    """What `find` says of each row: as one array, or, where `to` is a path, as a Parquet file of named columns."""

    def found() -> Iterator[tuple[str, np.ndarray]]:
        for where, table in tables(data, columns):
            try:
                yield where, find(table)
            except DataError as error:
                raise named(error, where) from None

    if to is not None:
        check_target(to, data)
    if to is None:
        results = [values for _, values in found()]
        if not results:
            raise DataError("data: the table has no rows. Pass at least one.")
        return np.concatenate(results)
    return write(to, ((where, name(values)) for where, values in found()))


def imputed(
    data: Any, to: PathLike, n_draws: int, real: Callable[[Table], set[str]], fill: Callable[[Table], Any]
) -> Path:
    """Write a table with its missing cells filled; columns in `real` hold real numbers, whatever they held before."""
    pyarrow = arrow()
    check_target(to, data)

    def found() -> Iterator[tuple[str, Any]]:
        for where, table in tables(data, rows=max(_CELLS // n_draws, 256)):
            try:
                filled = fill(table)
                if isinstance(filled, pd.DataFrame):  # whose parts may have an index or not, or of several kinds
                    frame = pyarrow.Table.from_pandas(filled, preserve_index=False)
                else:
                    frame = nw.from_native(filled, eager_only=True).to_arrow()
            except DataError as error:
                raise named(error, where) from None
            except pyarrow.ArrowException as error:
                raise DataError(f"{where}: a column cannot be in a Parquet file ({error}).") from None
            names = real(table)
            for j, each in enumerate(frame.schema):
                if each.name in names and pyarrow.types.is_integer(each.type):
                    frame = frame.set_column(j, each.name, frame.column(j).cast(pyarrow.float64()))
            yield where, frame

    return write(to, found())


def check_target(to: PathLike, data: Any) -> None:
    """Raise, before any work, where a file cannot be written or would take the place of one that is read."""
    path = Path(to)
    if path.is_dir():
        raise IsADirectoryError(21, "to: the path of a file is needed", str(path))
    if path.suffix and path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"to: a Parquet file is written. Name it {path.with_suffix('.parquet').name}, not {path.name}."
        )
    source = source_of(data) if not isinstance(data, Table) else None
    if source is not None and path.exists() and any(path.samefile(each) for each in source.files if each.exists()):
        raise ValueError(f"to: {path} is read here, and would be replaced. Name another file.")


def write(to: PathLike, pieces: Iterator[tuple[str, Any]]) -> Path:
    """Write tables below each other to one Parquet file, all of them or none: it takes its place when it is whole."""
    pyarrow = arrow()
    path = Path(to)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    writer = None
    try:
        for where, columns in pieces:
            table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(dict(columns))
            if writer is None:
                schema = table.schema.remove_metadata()
                writer = pyarrow.parquet.ParquetWriter(str(temporary), schema)
            try:
                table = table.select(schema.names)
                if (wider := _wider(schema, table)) != schema:
                    writer.close()
                    schema = wider
                    writer = _written_again(temporary, schema)
                table = table.cast(schema)
            except (KeyError, pyarrow.ArrowException) as error:
                raise DataError(f"{where}: its columns are not those of the parts before ({error}).") from error
            writer.write_table(table)
        if writer is None:
            raise DataError("data: the table has no rows. Pass at least one.")
        writer.close()
        os.replace(temporary, path)
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return path


def _wider(schema: Any, table: Any) -> Any:
    """The schema itself where a table can be cast to it; or one that has room for both, as numbers are for nothing."""
    pyarrow = arrow()
    try:
        table.cast(schema)
    except pyarrow.ArrowException:
        return pyarrow.unify_schemas([schema, table.schema.remove_metadata()], promote_options="permissive")
    return schema


def _written_again(path: Path, schema: Any) -> Any:
    """A writer of a file that begins with what is in `path`, under another schema; it takes the place of `path`."""
    pyarrow = arrow()
    new = path.with_name(f"{path.name}-")
    writer = pyarrow.parquet.ParquetWriter(str(new), schema)
    try:
        with pyarrow.parquet.ParquetFile(str(path)) as file:
            for batch in file.iter_batches():
                writer.write_table(pyarrow.Table.from_batches([batch]).cast(schema))
        os.replace(new, path)
    except BaseException:
        writer.close()
        new.unlink(missing_ok=True)
        raise
    return writer
