"""Checkpoints of NUTS: a folder that draws are appended to, of which any prefix is whole.

===================== ==============================================================================
``checkpoint.json``   version, settings, the seed, and a digest of the data
``begun.zip``         a saved `Fit`: the mode that chains start from, and what EM found on the way
``run-0/run.json``    of each mode that is sampled: the order of components, the chains' starts
``run-0/0.draws``     of each chain: records, each with the checksum of all before it
``fit.zip``           the finished `Fit`, once there is one
===================== ==============================================================================

Small files are written at once or not at all. A chain's file is only ever appended to. A record has the kind, the
length and a CRC-32 that goes on from the record before, so a reader takes records up to the first that is cut short or
wrong, and knows that they are what was written, in that order. No place is set aside for draws that have yet to come:
what was not drawn is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesmix.errors import DataError
from bayesmix.fit import Fit, Status, posterior_dataset
from bayesmix.io import (
    load,
    node_to_json,
    reading,
    require_folder,
    save,
    sync_folder,
    value_from_json,
    value_to_json,
    writing,
)
from bayesmix.spec import Encoded, Node
from bayesmix.statistics import SparseRows

#: Version of the folder's layout; a reader refuses newer ones.
SCHEMA = 1
_HEAD = struct.Struct("<BII")  # kind, bytes, checksum
_COLUMNS, _TUNING, _DRAWS, _METRIC = range(4)
_KINDS = re.compile(r"<f8|<i8|<u8|\|b1")


@dataclass
class Chain:
    """What a chain's file holds.

    Attributes
    ----------
    tuned : int
        Tuning steps.
    last : ndarray or None, shape (d,)
        The last point, in unconstrained coordinates.
    metric : ndarray or None, shape (d,)
        Variances of the coordinates, as the sampler learned them.
    draws : dict
        Name -> array (n_draws, ...): parameters and sampler's statistics.
    size : int
        Bytes that are whole.
    """

    tuned: int = 0
    last: np.ndarray | None = None
    metric: np.ndarray | None = None
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    size: int = 0
    crc: int = 0

    @property
    def n_draws(self) -> int:
        return len(next(iter(self.draws.values()))) if self.draws else 0


def read_chain(path: Path) -> Chain:
    """The valid prefix of a chain's file; nothing where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Chain()
    chain, at = Chain(), 0
    columns: np.dtype | None = None
    blocks: list[np.ndarray] = []
    while at + _HEAD.size <= len(content):
        kind, size, crc = _HEAD.unpack_from(content, at)
        body = content[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size or crc != zlib.crc32(body, zlib.crc32(content[at : at + 5], chain.crc)):
            break
        if kind == _COLUMNS:
            columns = _row_type(json.loads(body))
        elif kind == _METRIC:
            chain.metric = np.frombuffer(body)
        elif columns is not None and kind in (_TUNING, _DRAWS):
            row = columns["u"] if kind == _TUNING else columns
            rows = np.frombuffer(body, np.dtype([("u", row)]) if kind == _TUNING else row)
            chain.last = rows["u"][-1]
            if kind == _TUNING:
                chain.tuned += len(rows)
            else:
                blocks.append(rows)
        at += _HEAD.size + size
        chain.size, chain.crc = at, crc
    if blocks:  # what a later version of the sampler did not tell is not there
        names = [name for name in blocks[0].dtype.names or () if all(name in (b.dtype.names or ()) for b in blocks)]
        chain.draws = {name: np.concatenate([block[name] for block in blocks]) for name in names}
    return chain


def _row_type(columns: list) -> np.dtype:
    for _, kind, shape in columns:
        if not _KINDS.fullmatch(kind) or not all(isinstance(n, int) and 0 <= n < 2**31 for n in shape):
            raise DataError(f"a column of {kind!r} and shape {shape!r}.")
    return np.dtype([(name, kind, tuple(shape)) for name, kind, shape in columns])


def _lock(file: Any, path: Path) -> None:
    """Keep other processes from appending to a file, where the system can; a process that dies lets go of it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(11, "resume: another process is writing draws there; wait for it", str(path)) from None


class ChainWriter:
    """Appends to a chain's file, after what is whole of it.

    Raises `OSError` where it cannot; what was appended before is still whole then.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "ab")
        try:
            _lock(self._file, path)
            self.found = read_chain(path)
            self._crc, self._columns = self.found.crc, b""
            self._file.truncate(self.found.size)
            self._file.seek(self.found.size)
        except BaseException:
            self._file.close()
            raise

    @property
    def place(self) -> tuple[int, int, bytes]:
        """Where the file ends; see `back_to`."""
        return self._file.tell(), self._crc, self._columns

    def back_to(self, place: tuple[int, int, bytes]) -> None:
        """Take back what was appended after a place."""
        self._file.flush()
        self._file.truncate(place[0])
        self._file.seek(place[0])
        _, self._crc, self._columns = place

    def append(self, tuning: np.ndarray, draws: Mapping[str, np.ndarray], metric: np.ndarray | None) -> None:
        """Rows of tuning (n, d), then draws by name (m, ...), ``u`` among them; flushed and on the disk on return."""
        kinds = {name: array.dtype.newbyteorder("<") for name, array in draws.items()}
        row = np.dtype([(name, kinds[name], array.shape[1:]) for name, array in draws.items()])
        columns = json.dumps([[name, kinds[name].str, draws[name].shape[1:]] for name in draws]).encode()
        if columns != self._columns:
            self._record(_COLUMNS, columns)
            self._columns = columns
        if metric is not None:
            self._record(_METRIC, np.ascontiguousarray(metric, "<f8").tobytes())
        if len(tuning):
            self._record(_TUNING, np.ascontiguousarray(tuning, "<f8").tobytes())
        rows = np.empty(len(draws["u"]), row)
        for name, array in draws.items():
            rows[name] = array
        if len(rows):
            self._record(_DRAWS, rows.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _record(self, kind: int, body: bytes) -> None:
        start = struct.pack("<BI", kind, len(body))
        self._crc = zlib.crc32(body, zlib.crc32(start, self._crc))
        self._file.write(start + struct.pack("<I", self._crc) + body)

    def close(self) -> None:
        """No more will be appended."""
        self._file.close()


@dataclass
class Run:
    """One mode of a checkpoint: its folder, and what chains of it need to go on.

    `order` are the parameters whose components are kept in order, `starts` the chains' first points (chains, d).
    `complete` adds to draws of one chain, from a number on, the parameters that the model sums out.
    """

    folder: Path
    order: list[str]
    starts: np.ndarray
    seed: int
    complete: Callable[[int, int, dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda chain, first, draws: draws

    def chain(self, number: int) -> Chain:
        """What is there of a chain."""
        with reading(self.folder):
            return read_chain(self.folder / f"{number}.draws")

    def writer(self, number: int) -> ChainWriter:
        """What goes on with a chain's file."""
        self.chain(number)
        return ChainWriter(self.folder / f"{number}.draws")


class Checkpoint:
    """What `fit_nuts` keeps in a folder while it draws; see `read_checkpoint`.

    Attributes
    ----------
    path : Path
    settings : dict
        Of `fit_nuts`: draws, tune, chains, and others.

    Examples
    --------
    >>> import tempfile, numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 50) for m in (-4, 4)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = dict(draws=400, tune=400, checkpoint=f"{folder}/run", random_seed=1)
    ...     fit = bm.fit_nuts(bm.Mixture(bm.Normal(), 2), x, **settings)
    ...     bm.read_checkpoint(f"{folder}/run").settings["draws"]
    400
    """

    def __init__(self, path: Path, document: dict[str, Any]):
        self.path, self._document = path, document
        self.settings: dict[str, Any] = document["settings"]

    @classmethod
    def create(
        cls, path: Path, begun: Fit, data: Encoded, settings: dict[str, Any], seed: Any, overwrite: bool
    ) -> Checkpoint:
        """A new folder at `path`, there at once with all that it begins with."""
        document = {"schema": SCHEMA, "settings": value_to_json(settings), "seed": seed, "data": digest(data, begun)}
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bayesmix-") as folder:
            new = Path(folder) / "new"
            new.mkdir()
            save(begun, new / "begun.zip")
            with writing(new / "checkpoint.json") as file:
                file.write(json.dumps(document, indent=1).encode())
            check_place(path, overwrite)
            if path.exists():
                os.rename(path, Path(folder) / "old")
            os.rename(new, path)
        sync_folder(path.parent)
        return read_checkpoint(path)

    @cached_property
    def begun(self) -> Fit:
        """The fit at the mode that chains start from: one draw, not complete."""
        return load(self.path / "begun.zip")

    @property
    def seed(self) -> Any:
        """What the engine's random numbers come from."""
        return self._document["seed"]

    @property
    def finished(self) -> bool:
        """Whether the engine came to its end."""
        return (self.path / "fit.zip").exists()

    def check_spec(self, spec: Node) -> None:
        """Raise `DataError` unless the checkpoint is of this spec."""
        if node_to_json(spec.plain()) != node_to_json(self.begun.spec):
            raise DataError(f"resume: {self.path} is of another spec: {self.begun.spec!r}. Pass that one.")

    def check_data(self, fit: Fit, data: Encoded) -> None:
        """Raise `DataError` unless the checkpoint is of this table, with the row weights that `fit` has."""
        if digest(data, fit) != self._document["data"] or fit.bound.learned != self.begun.bound.learned:
            raise DataError(
                f"resume: {self.path} is of another table or other row weights. Pass those it was begun with."
            )

    def set_draws(self, draws: int) -> None:
        """Ask for another number of draws a chain."""
        if draws == self.settings["draws"]:
            return
        self.settings = {**self.settings, "draws": draws}
        self._document["settings"] = self.settings
        with writing(self.path / "checkpoint.json") as file:
            file.write(json.dumps({**self._document, "settings": value_to_json(self.settings)}, indent=1).encode())
        (self.path / "fit.zip").unlink(missing_ok=True)

    def run(self, number: int) -> Run | None:
        """What was begun of a mode's sampling."""
        folder = self.path / f"run-{number}"
        if not (folder / "run.json").exists():
            return None
        with reading(folder):
            document = value_from_json(json.loads((folder / "run.json").read_bytes()))
            return Run(folder, list(document["order"]), document["starts"], document["seed"])

    def begin_run(self, number: int, order: Sequence[str], starts: np.ndarray, seed: int) -> Run:
        """Begin to sample a mode."""
        folder = self.path / f"run-{number}"
        folder.mkdir(exist_ok=True)
        document = value_to_json({"order": list(order), "starts": starts, "seed": seed})
        with writing(folder / "run.json") as file:
            file.write(json.dumps(document).encode())
        return Run(folder, list(order), starts, seed)

    def finish(self, fit: Fit) -> None:
        """Keep the finished fit."""
        save(fit, self.path / "fit.zip")

    def chains(self, run: int = 0) -> list[xr.Dataset]:
        """What each chain has drawn: parameters and the sampler's statistics by ``draw``.

        Chains may differ in length; a chain that has not begun to draw has no draws.

        Parameters
        ----------
        run : int
            Which mode, where several are sampled.
        """
        there = self.run(run)
        found = [] if there is None else [there.chain(c) for c in range(self.settings["chains"])]
        datasets = []
        for chain in found:
            slots = self.begun.bound.free_slots
            arrays = {name: chain.draws.get(name, np.empty((0, *slot.shape)))[None] for name, slot in slots.items()}
            dataset = posterior_dataset(self.begun.bound, arrays).isel(chain=0, drop=True)
            stats = {name: ("draw", v) for name, v in chain.draws.items() if name not in slots and name != "u"}
            datasets.append(dataset.assign(stats))
        return datasets

    def fit(self) -> Fit:
        """The finished fit; before that the draws that there are, as a fit that is not complete.

        Chains with half the draws of the longest, or more, are in it, cut to the shortest of them. `chains` has
        everything. Labels are as they came (``fit.relabel(data=table)`` gives them one labelling); ``fit.loglik`` is
        NaN, since the data are not here.
        """
        if self.finished:
            return load(self.path / "fit.zip")
        lengths = [chain.sizes["draw"] for chain in self.chains()]
        kept, n_draws = kept_chains(lengths)
        if not n_draws:
            raise DataError(f"{self.path}: no draw was made before it stopped. Go on with fit_nuts(…, resume=…).")
        each = [chain.isel(draw=slice(n_draws)) for c, chain in enumerate(self.chains()) if c in kept]
        whole = xr.concat(each, "chain").assign_coords(chain=np.arange(len(each)))
        slots = list(self.begun.bound.free_slots)
        groups = {name: group.to_dataset() for name, group in self.begun.idata.children.items()}
        groups.pop("log_likelihood", None)
        groups["posterior"] = whole[slots].transpose("chain", "draw", ...)
        groups["sample_stats"] = whole.drop_vars([*slots, *(set(whole.coords) - {"chain", "draw"})])
        message = incomplete(lengths, self.settings["draws"], len(kept), n_draws)
        return replace(
            self.begun,
            idata=xr.DataTree.from_dict(groups),
            status=Status("nuts", False, f"{message} Go on with fit_nuts(…, resume=…).", complete=False),
            loglik=float("nan"),
        )

    def __repr__(self) -> str:
        if self.finished:
            return f"<Checkpoint {self.path.name}: finished>"
        return f"<Checkpoint {self.path.name}: {[chain.sizes['draw'] for chain in self.chains()]} draws>"


def kept_chains(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Of chains of different lengths, those that a fit has, and how many draws of each."""
    longest = max(lengths, default=0)
    kept = [c for c, length in enumerate(lengths) if length and 2 * length >= longest]
    return kept, min((lengths[c] for c in kept), default=0)


def incomplete(lengths: Sequence[int], asked: int, n_kept: int, n_draws: int) -> str:
    """What a status says of a fit that is not complete."""
    each = ", ".join(map(str, lengths))
    return f"Not complete: chains have {each} of {asked} draws; {n_kept} × {n_draws} are in the fit."


def read_checkpoint(path: str | Path) -> Checkpoint:
    """What ``fit_nuts(checkpoint=path)`` has written so far; the engine may still be at work.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Checkpoint
        Its ``chains()`` are all draws of each chain, of different lengths; its ``fit()`` is what `load` returns.

    Raises
    ------
    DataError
        It is no checkpoint, or is from a newer version.
    FileNotFoundError

    Examples
    --------
    >>> import tempfile, numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 50) for m in (-4, 4)])
    >>> spec = bm.Mixture(bm.Normal(), 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit = bm.fit_nuts(spec, x, draws=400, tune=400, checkpoint=f"{folder}/run", random_seed=1)
    ...     [chain.sizes["draw"] for chain in bm.read_checkpoint(f"{folder}/run").chains()]
    [400, 400, 400, 400]
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(2, "No such checkpoint", str(path))
    with reading(path):
        if not (path / "checkpoint.json").exists():
            raise DataError(f"{path}: not a checkpoint.")
        document = json.loads((path / "checkpoint.json").read_bytes())
        if not isinstance(document["schema"], int) or document["schema"] > SCHEMA:
            raise DataError(f"{path}: a checkpoint of a newer bayesmix. Update.")
        settings = value_from_json(document["settings"])
        for name in ("draws", "chains"):
            if not isinstance(settings[name], int) or not 0 < settings[name] < 2**31:
                raise DataError(f"{path}: {name} is {settings[name]!r}.")
        return Checkpoint(path.absolute(), {**document, "settings": settings})


def check_place(path: Path, overwrite: bool) -> None:
    """Raise unless a checkpoint may be begun at `path`.

    Raises
    ------
    FileExistsError
        Something is there; with `overwrite`, something that is no checkpoint.
    FileNotFoundError
        The folder around it is not there.
    """
    require_folder(path)
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(
            17, "checkpoint: it is there already; pass resume= to go on, or overwrite=True", str(path)
        )
    if not (path / "checkpoint.json").exists():
        raise FileExistsError(17, "checkpoint: what is there is no checkpoint, and is left alone", str(path))


def digest(data: Encoded, fit: Fit) -> str:
    """A digest of encoded rows and their weights: whether a table is the one that a checkpoint is of."""
    return digest_of(data, fit.row_weights)


def digest_of(data: Encoded, weights: np.ndarray | None) -> str:
    """`digest`, of weights (N,) or None."""
    found = hashlib.sha256()

    def add(part: Encoded) -> None:
        found.update(f"{type(part).__name__} {part.n_rows} {len(part.children)}".encode())
        arrays: dict[str, Any] = {**part.arrays, "present": part.present}
        for name in list(arrays):
            if isinstance(rows := arrays[name], SparseRows):
                arrays |= {f"{name} {own}": getattr(rows, own) for own in ("indptr", "indices", "values")}
        for name in sorted(arrays):
            array = arrays[name]
            if isinstance(array, np.ndarray) and array.dtype == object:  # whose bytes are addresses
                for i, row in enumerate(array):
                    found.update(f"{name} {i} {row.dtype} {row.shape}".encode() + row.tobytes())
            elif isinstance(array, np.ndarray):
                found.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        for child in part.children:
            add(child)

    add(data)
    found.update(b"" if weights is None else weights.tobytes())
    return found.hexdigest()
