"""Tables that are read in parts: files larger than memory, partitions, chunks that a program makes.

A `Source` is a sequence of parts, each of which can be read by itself, again and again, by any thread or process, and
gives tables of a bounded number of rows. Nothing here knows of specs.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np

from bayesmix.data import Table, read
from bayesmix.errors import DataError

#: Rows of a table that a part gives, at most; fewer where rows are wide.
ROWS = 2**18
#: Bytes of such a table, about.
_BYTES = 2**25
#: Names that a path to Parquet ends in.
ENDINGS = (".parquet", ".pq", ".parq")


class Part(ABC):
    """Some rows of a source, which any process can read by itself.

    Attributes
    ----------
    name : str
        As errors call it.
    """

    name: str

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the user's own files on this machine that the rows are in."""
        return ()

    @abstractmethod
    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        """Its rows in order, as tables of at most `ROWS` rows, none of them empty, each with what errors call it.

        `columns` are the ones that are needed; None for all. Raises `DataError` that names the part where it cannot be
        read.
        """


@dataclass(frozen=True)
class Source:
    """Rows in parts.

    Attributes
    ----------
    name : str
        As errors call it.
    parts : tuple of Part
    typed : bool
        Whether a column has one type throughout, as in files.
    """

    name: str
    parts: tuple[Part, ...]
    typed: bool = False

    @property
    def files(self) -> set[Path]:
        """The user's own files that the rows are in, where it is known."""
        return {Path(path) for part in self.parts for path in part.files}

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.parts)} part{'s' if len(self.parts) != 1 else ''}>"


def source_of(data: Any) -> Source | None:
    """The source that `data` is; None for tables in memory, which `bayesmix.data.read` reads.

    Parameters
    ----------
    data : path of a Parquet file or of a folder of them, with ``*`` in it for several; list of such paths;
        ``pyarrow.dataset.Dataset``; Arrow ``RecordBatchReader``; Dask data frame; list of data frames; function without
        arguments that returns an iterable of tables, a new one with each call

    Raises
    ------
    DataError
        There is no such file, it is no Parquet, or `data` is an iterator, which can be read once only.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, Path)):
        return _files([data])
    if isinstance(data, (list, tuple)) and data and all(map(_is_path, data)):
        return _files(list(data))
    if isinstance(data, (list, tuple)) and data and all(map(_is_frame, data)):
        return _frames(data)
    kind = type(data)  # of a frame itself an attribute may be a column
    if hasattr(kind, "to_delayed") and hasattr(kind, "npartitions"):
        return _dask(data)
    if kind.__module__.split(".")[0] == "pyarrow" and hasattr(kind, "get_fragments"):
        return _dataset(data)
    if hasattr(kind, "read_next_batch"):
        return _spooled(data)
    if callable(data):
        return Source("chunks", (_Made("chunks", data),))
    if isinstance(data, Iterator):
        raise DataError(
            "data: an iterator can be read once, and a fit reads its rows many times. Pass a function that returns a "
            "new one with each call: bm.fit(spec, lambda: chunks()); or list(…) of records that fit in memory."
        )
    return None


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and value.lower().endswith(ENDINGS))


def _is_frame(value: Any) -> bool:
    if isinstance(value, Mapping):
        return False
    frame = isinstance(nw.from_native(value, pass_through=True), (nw.DataFrame, nw.LazyFrame))
    return frame or hasattr(type(value), "to_struct_array")  # an Arrow record batch


def _pieces(name: str, table: Table, first: int = 0) -> Iterator[tuple[str, Table]]:
    """A table in pieces of at most `ROWS` rows; it begins with row `first` of what has this name."""
    native = nw.from_native(table.native, pass_through=True, eager_only=True) if table.n_rows > ROWS else None
    for begin in range(0, table.n_rows, ROWS):
        piece = table.slice(begin, begin + ROWS)
        if isinstance(native, nw.DataFrame):  # what is filled keeps its types, and columns that no field reads
            piece = replace(piece, native=native[begin : begin + ROWS].to_native())
        yield _at(name, first + begin), piece


def _at(name: str, first: int) -> str:
    """What errors call a piece that begins with this row."""
    return f"{name}, rows from {first}" if first else name


# ---------------------------------------------------------------- chunks that a program makes, and partitions


@dataclass(frozen=True)
class _Made(Part):
    name: str
    make: Callable[[], Iterable[Any]]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        try:
            made = self.make()
            chunks = enumerate(made)
        except TypeError as error:
            raise DataError(f"data: a function that returns an iterable of tables is needed ({error}).") from None
        if isinstance(made, Mapping) or _is_frame(made) or (isinstance(made, np.ndarray) and made.ndim < 3):
            raise DataError(  # its columns, or its rows, would be taken for tables
                f"data: the function returns one {type(made).__name__}, and an iterable of tables is needed. Pass the "
                "table itself, or a function that returns a list of it."
            )
        for number, chunk in chunks:
            try:
                table = read(chunk)
            except DataError as error:
                raise named(error, f"chunk {number}") from None
            yield from _pieces(f"chunk {number}", table)


@dataclass(frozen=True)
class _Frame(Part):
    name: str
    frame: Any

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        try:
            table = read(self.frame)
        except DataError as error:
            raise named(error, self.name) from None
        yield from _pieces(self.name, table)


def _frames(frames: Sequence[Any]) -> Source:
    return Source("data frames", tuple(_Frame(f"chunk {i}", frame) for i, frame in enumerate(frames)))


@dataclass(frozen=True)
class _Delayed(Part):
    """A partition of a Dask data frame, computed by the thread that reads it."""

    name: str
    delayed: Any

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        try:
            frame = _computed(self.delayed)
        except Exception as error:
            raise DataError(f"{self.name}: it cannot be computed ({_short(error)}).") from error
        yield from _pieces(self.name, read(frame))


def _computed(delayed: Any) -> Any:
    """What a delayed value is: by this thread, or by the cluster where that holds some of it (``persist``)."""
    distributed = sys.modules.get("distributed")  # otherwise there is no cluster
    held = [] if distributed is None else distributed.futures_of(delayed)
    if distributed is None or not held:
        return delayed.compute(scheduler="synchronous")
    try:
        worker = distributed.get_worker()
    except ValueError:
        return held[0].client.compute(delayed).result()
    try:
        client = distributed.default_client()
    except ValueError:
        with distributed.worker_client() as client:  # which lets another task have this one's place while it waits
            return client.compute(delayed).result()
    # a worker in the user's process: a client that it makes outlives the user's, and leaves Dask's settings as it was
    distributed.secede()
    try:
        if client.scheduler.address == worker.scheduler.address:
            return client.compute(delayed).result()
        with distributed.Client(worker.scheduler.address, set_as_default=False) as client:
            return client.compute(delayed).result()
    finally:
        distributed.rejoin()


def _dask(frame: Any) -> Source:
    from dask.delayed import Delayed
    from dask.optimization import cull

    pieces = frame.to_delayed()
    if isinstance(pieces, np.ndarray):  # blocks of a Dask array
        if pieces.size > len(pieces):
            raise DataError("data: blocks of the Dask array have some of the columns each. Pass x.rechunk({1: -1}).")
        pieces = pieces.ravel().tolist()
    graph = dict(pieces[0].dask) if pieces else {}
    parts = []
    for i, each in enumerate(pieces):  # alone: a part takes its graph with it, which may hold the rows
        parts.append(_Delayed(f"partition {i}", Delayed(each.key, cull(graph, [each.key])[0])))
    return Source("Dask data frame", tuple(parts), typed=True)


# ---------------------------------------------------------------- Parquet and Arrow


def arrow() -> Any:
    """The package pyarrow, with what is needed of it."""
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet and Arrow data need pyarrow. Install it: pip install 'bayesmix[parquet]'.") from None
    return pyarrow


@dataclass(frozen=True)
class _RowGroups(Part):
    """Row groups of a Parquet file that follow each other; `keys` are columns that the file's folder stands for."""

    name: str
    path: str
    groups: tuple[int, ...]
    rows: int
    filesystem: Any = None
    keys: tuple[tuple[str, Any], ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """See `Part.files`."""
        return (self.path,) if self.filesystem is None else ()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        pyarrow = arrow()
        try:
            with pyarrow.parquet.ParquetFile(
                self.path,
                filesystem=self.filesystem,
                pre_buffer=False,
                buffer_size=2**20,
                page_checksum_verification=True,
            ) as file:
                names = file.schema_arrow.names
                # a column that is not there is told of where it is missed
                wanted = None if columns is None else [name for name in columns if name in names]
                wanted = wanted or None
                first = 0
                for batch in file.iter_batches(self.rows, self.groups, wanted, use_threads=False):
                    table = pyarrow.Table.from_batches([batch])
                    for key, value in self.keys:
                        table = table.append_column(key, pyarrow.array([value] * len(table)))
                    yield _at(self.name, first), read(table)
                    first += len(table)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: it cannot be read ({_short(error)}).") from error


@dataclass(frozen=True)
class _Fragment(Part):
    """A part of an Arrow dataset of files of another kind."""

    name: str
    fragment: Any
    schema: Any

    @property
    def files(self) -> tuple[str, ...]:
        """See `Part.files`."""
        path = getattr(self.fragment, "path", None)
        local = isinstance(getattr(self.fragment, "filesystem", None), arrow().fs.LocalFileSystem)
        return (path,) if path and local else ()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        pyarrow = arrow()
        try:
            first = 0
            for batch in self.fragment.to_batches(
                schema=self.schema, batch_size=ROWS, use_threads=False, batch_readahead=1, fragment_readahead=1
            ):
                table = read(pyarrow.Table.from_batches([batch]))
                yield from _pieces(self.name, table, first)
                first += table.n_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: it cannot be read ({_short(error)}).") from error


@dataclass(frozen=True)
class _Batches(Part):
    """Record batches of an Arrow file that follow each other. `folder` is removed when nothing refers to it."""

    name: str
    path: str
    batches: range
    folder: Any = None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Table]]:
        pyarrow = arrow()
        try:
            with pyarrow.OSFile(self.path) as at, pyarrow.ipc.open_file(at) as file:
                for number in self.batches:
                    yield f"record batch {number}", read(pyarrow.Table.from_batches([file.get_batch(number)]))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: it cannot be read ({_short(error)}).") from error


def _files(paths: list[Any]) -> Source:
    found: list[Any] = []
    parts: list[Part] = []
    for given in paths:
        path = Path(given).expanduser()
        if "*" in path.name:
            among = sorted(path.parent.glob(path.name))
        elif path.is_dir():
            source = _dataset(arrow().dataset.dataset(str(path), format="parquet", partitioning="hive"))
            if len(paths) == 1:
                return source
            found.append(path)
            parts += source.parts
            continue
        else:
            among = [path]
        if not among or not among[0].exists():
            raise DataError(
                f"data: a {type(given).__name__} is taken for the path of a Parquet file, and {str(given)!r} is none. "
                "Pass a table, or the path of a file or of a folder of them."
            )
        found += among
        parts += [part for path in among for part in _row_groups(str(path))]
    return Source(_called(found), tuple(parts), typed=True)


def _called(paths: list[Any]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _row_groups(path: str, filesystem: Any = None, keys: tuple[tuple[str, Any], ...] = ()) -> Iterator[Part]:
    """Parts of a Parquet file of about `ROWS` rows each, or of one row group where that has more."""
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(path, filesystem=filesystem) as file:
            metadata = file.metadata
            groups = [(metadata.row_group(g).num_rows, metadata.row_group(g).total_byte_size)
                      for g in range(metadata.num_row_groups)]  # fmt: skip
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet ({_short(error)}).") from error
    n_rows, n_bytes = sum(rows for rows, _ in groups), sum(size for _, size in groups)
    rows = min(ROWS, max(int(_BYTES * n_rows / max(n_bytes, 1)), 1024))
    begin = 0
    while begin < len(groups):
        end, total = begin + 1, groups[begin][0]
        while end < len(groups) and total + groups[end][0] <= rows:
            total, end = total + groups[end][0], end + 1
        which = f"row group {begin}" if end == begin + 1 else f"row groups {begin} to {end - 1}"
        name = path if len(groups) == end - begin else f"{path}, {which}"
        yield _RowGroups(name, path, tuple(range(begin, end)), rows, filesystem, keys)
        begin = end


def _dataset(dataset: Any) -> Source:
    pyarrow = arrow()
    if getattr(dataset, "_scan_options", None):
        raise DataError(
            "data: this dataset has a filter, which reading it part by part would leave out. Pass a function instead: "
            "bm.fit(spec, lambda: dataset.to_batches())."
        )
    parts: list[Part] = []
    fragments = list(dataset.get_fragments())
    for i, fragment in enumerate(fragments):
        path: Any = getattr(fragment, "path", None)
        if isinstance(fragment, pyarrow.dataset.ParquetFileFragment):
            keys = tuple(pyarrow.dataset.get_partition_keys(fragment.partition_expression).items())
            local = isinstance(fragment.filesystem, pyarrow.fs.LocalFileSystem)
            parts += _row_groups(path, None if local else fragment.filesystem, keys)
        else:
            parts.append(_Fragment(str(path or f"fragment {i}"), fragment, dataset.schema))
    if not parts:
        raise DataError("data: the dataset has no files.")
    return Source(f"dataset of {len(fragments)} file{'s' if len(fragments) != 1 else ''}", tuple(parts), typed=True)


class _Folder:
    """A folder for temporary files; it goes with the last reference to it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bayesmix-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __reduce__(self) -> Any:  # another process reads the file by its path, and leaves it alone
        return type(None), ()


def _spooled(reader: Any) -> Source:
    """A stream of record batches, which can be read once, as a temporary file."""
    pyarrow = arrow()
    folder = _Folder()
    path = str(folder.path / "rows.arrow")
    sizes: list[int] = []
    try:
        # each batch may have a dictionary of its own, and a file of them has one
        plain = {
            at: each.with_type(each.type.value_type)
            for at, each in enumerate(reader.schema)
            if pyarrow.types.is_dictionary(each.type)
        }
        schema = pyarrow.schema([plain.get(at, each) for at, each in enumerate(reader.schema)])
        with pyarrow.OSFile(path, "wb") as at, pyarrow.ipc.new_file(at, schema) as file:
            for batch in reader:
                columns = [c.dictionary_decode() if j in plain else c for j, c in enumerate(batch.columns)]
                batch = pyarrow.RecordBatch.from_arrays(columns, schema=schema)
                for first in range(0, len(batch), ROWS):
                    piece = batch.slice(first, ROWS)
                    file.write(piece)
                    sizes.append(len(piece))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data: the record batches cannot be written to a temporary file, which a second pass over them needs "
            f"({_short(error)}). Write them to Parquet and pass its path."
        ) from error
    parts, begin = [], 0
    while begin < len(sizes):
        end, total = begin + 1, sizes[begin]
        while end < len(sizes) and total + sizes[end] <= ROWS:
            total, end = total + sizes[end], end + 1
        which = f"record batch {begin}" if end == begin + 1 else f"record batches {begin} to {end - 1}"
        parts.append(_Batches(which, path, range(begin, end), folder))
        begin = end
    return Source("record batches", tuple(parts), typed=True)


def _short(error: BaseException) -> str:
    """An error's first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def named(error: DataError, name: str) -> DataError:
    """The same error, of the part of this name."""
    return DataError([fault if fault.startswith(f"{name}: ") else f"{name}: {fault}" for fault in error.faults])
