"""Saving and loading fits: a zip of JSON and netCDF. Nothing in it is executed when it is read.

``fit.json`` has the spec and everything small; each member ``….nc`` has the arrays of one field of `Fit`, and each
member ``….zip`` a fit within the fit, as a file of its own. What becomes of each field stands in `SAVED` and
`NOT_SAVED`: a new field has to be put in one of them. A reader takes no byte on trust: it looks at names, sizes and
kinds before it reads a member, and holds the arrays against the spec.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import h5py
import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pymc.distributions.mixture import MixtureRV
from pymc.distributions.multivariate import StickBreakingWeightsRV
from pymc.distributions.shape_utils import change_dist_size
from pytensor.tensor.variable import TensorVariable

from bayesmix import distributions
from bayesmix.bound import Bound, bind_learned
from bayesmix.compilation import constant
from bayesmix.errors import DataError, SpecError
from bayesmix.fit import Fit, Status
from bayesmix.inference.modes import Mode, Modes
from bayesmix.params import Flat, Shared, is_prior, made_of
from bayesmix.relabel import Relabelling
from bayesmix.spec import Node
from bayesmix.threads import ALONE

#: Version of the file's layout; a reader refuses newer ones. `_READERS` has the older ones.
SCHEMA = 3
#: A member may be so large unpacked, in bytes, or so many times its packed size if that is more.
_LARGEST, _MOST_PACKED = 2**26, 100
#: Numbers of components and the like are below.
_LARGEST_OPTION = 10**7
#: What reading a file that was cut short, edited or made up can raise.
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    LookupError,
    ValueError,
    TypeError,
    OSError,
    AttributeError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@dataclass(frozen=True)
class _AsJson:
    """A field of `Fit` in ``fit.json``: how it is written, and read again."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class _AsArrays:
    """A field of `Fit` that is a `Dataset` or `DataTree`: in a member of its own, as netCDF."""

    write: Callable[[Any], Any]
    read: Callable[[io.BytesIO], Any]


@dataclass(frozen=True)
class _AsFits:
    """A field of `Fit` that is a tuple of fits: each in a member of its own."""


def save(fit: Fit, path: str | Path) -> None:
    """Write a fit to `path`, at once or not at all. See `Fit.save`."""
    with writing(Path(path)) as file:
        _write(fit, file)


def _write(fit: Fit, file: Any) -> None:
    """The archive. HDF5 gets to write to memory only: where a disk is full it brings the process down."""
    _check(fit)
    document: dict[str, Any] = {"schema": SCHEMA}
    members: dict[str, bytes] = {}
    for name, kind in SAVED.items():
        value = _value_of(fit, name)
        if isinstance(kind, _AsJson):
            document[name] = None if value is None else kind.write(value)
        elif isinstance(kind, _AsFits):
            document[name] = len(value)
            for i, each in enumerate(value):
                buffer = io.BytesIO()
                _write(each, buffer)
                members[f"{name}-{i}.zip"] = buffer.getvalue()
        elif value is not None:
            buffer = io.BytesIO()
            with _dask_aside():
                kind.write(value).to_netcdf(buffer, engine="h5netcdf")
            members[f"{name}.nc"] = buffer.getvalue()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fit.json", json.dumps(document, indent=1, allow_nan=False))
        for name, content in members.items():  # not packed: numbers hardly get smaller, and sizes are what they seem
            archive.writestr(name, content, compress_type=zipfile.ZIP_STORED)


@contextmanager
def _dask_aside() -> Iterator[None]:
    """Dask's settings put aside: xarray asks for its scheduler, and one whose client has gone is an error."""
    dask = sys.modules.get("dask")
    if dask is None:
        yield
        return
    with ALONE, dask.config.set(scheduler="synchronous"):
        yield


@contextmanager
def writing(path: Path) -> Iterator[Any]:
    """A file to write to, which takes the place of `path` once it is whole and on the disk; after an error it goes."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bayesmix-") as folder:
        whole = Path(folder) / "whole"
        with open(whole, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(whole, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power, where the system can."""
    if os.name != "posix":
        return
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def require_folder(path: Path) -> None:
    """Raise `FileNotFoundError` where no folder is that a file at `path` would be in: before the work that it keeps."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "No such folder: make it first", str(path.absolute().parent))


def load(path: str | Path) -> Fit:
    """Read a fit that `Fit.save` wrote, or what there is of one from the checkpoint of an engine.

    The training table is not in the file: predictions of a loaded fit need a table.

    Parameters
    ----------
    path : str or Path
        A file, or the folder that ``fit_nuts(checkpoint=…)`` wrote to.

    Returns
    -------
    Fit
        Of a checkpoint that its engine has not finished, exactly the draws that were made, and
        ``fit.status.complete`` is False; see `read_checkpoint`.

    Raises
    ------
    DataError
        The file is not a saved fit, is damaged, was tampered with, or is from a newer version. A checkpoint without
        draws.
    FileNotFoundError

    Examples
    --------
    >>> import tempfile, numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(f"{folder}/fit.zip")
    ...     again = bm.load(f"{folder}/fit.zip")
    >>> bool((again.params["mu"] == fit.params["mu"]).all())
    True
    """
    path = Path(path)
    if path.is_dir():
        from bayesmix.checkpoint import read_checkpoint

        return read_checkpoint(path).fit()
    with open(path, "rb") as file, reading(path):
        return _read(file, path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read, as one `DataError` that names it."""
    try:
        yield
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except FAULTS as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DataError(f"{path}: not a saved fit, or damaged ({what}). Save it again.") from error


def _read(file: Any, path: Path) -> Fit:
    with zipfile.ZipFile(file) as archive:
        members = _checked_members(archive)
        document = json.loads(archive.read("fit.json"))
        schema = document["schema"]
        if not isinstance(schema, int) or schema > SCHEMA:
            raise DataError(f"{path}: written by a newer bayesmix (schema {schema}, this one reads {SCHEMA}). Update.")
        if schema not in _READERS:
            raise DataError(f"{path}: schema {schema}, from before the first release, is not read any more. Fit again.")
        document = _READERS[schema](document)
        values: dict[str, Any] = {}
        for name, kind in SAVED.items():
            if isinstance(kind, _AsFits):
                each = [archive.read(f"{name}-{i}.zip") for i in range(_count(document.get(name, 0), members))]
                values[name] = tuple(_read(io.BytesIO(content), path) for content in each)
            elif isinstance(kind, _AsArrays):
                if f"{name}.nc" in members:
                    values[name] = kind.read(_checked_arrays(archive.read(f"{name}.nc")))
            elif document.get(name) is not None:
                values[name] = kind.read(document[name])
    missing = [name for name in ("bound", "idata", "status", "loglik") if name not in values]
    if missing:
        raise DataError(f"{path}: not a saved fit, or damaged (no {', '.join(missing)}). Save it again.")
    fit = Fit(**values)
    _check(fit)
    return fit


def _count(value: Any, members: set[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= len(members):
        raise DataError(f"{value!r} fits within the fit: damaged.")
    return value


def _checked_members(archive: zipfile.ZipFile) -> set[str]:
    """Names in the archive, if all are such as `save` writes, each once and not larger than it could be."""
    names = [info.filename for info in archive.infolist()]
    known = {"fit.json"} | {f"{name}.nc" for name, kind in SAVED.items() if isinstance(kind, _AsArrays)}
    within = tuple(f"{name}-" for name, kind in SAVED.items() if isinstance(kind, _AsFits))
    if "fit.json" not in names:
        raise DataError("not a saved fit, or damaged (no fit.json). Save it again.")
    for info in archive.infolist():
        name = info.filename
        if name not in known and not (name.startswith(within) and name.endswith(".zip") and "/" not in name):
            raise DataError(f"{name[:80]!r} is in it: not a saved fit, or tampered with.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name!r} is packed in a way that bayesmix does not use.")
        if name.startswith(within) and info.compress_type != zipfile.ZIP_STORED:  # packed within packed has no bound
            raise DataError(f"{name!r} is packed in a way that bayesmix does not use.")
        if info.file_size > max(_LARGEST, _MOST_PACKED * info.compress_size):
            raise DataError(f"{name!r} would be {info.file_size} bytes unpacked, of {info.compress_size}: not read.")
    if len(set(names)) < len(names):
        raise DataError("a name is in it twice: tampered with.")
    return set(names)


def _checked_arrays(content: bytes) -> io.BytesIO:
    """The bytes of a netCDF file that holds nothing but numbers and strings, all of them in the file itself.

    HDF5 can name data in other files, leave out what was never written, and pack without limit: a few bytes could ask
    for terabytes, or for somebody else's file.
    """
    with h5py.File(io.BytesIO(content), "r") as file:
        total = _check_group(file, len(content))
        if total > _MOST_PACKED * len(content):
            raise DataError(f"arrays of {total} bytes cannot be in a file of {len(content)} bytes.")
    return io.BytesIO(content)


def _check_group(group: h5py.Group, n_bytes: int, depth: int = 0) -> int:
    """Bytes of a group's arrays, if all of them are such as a fit has."""
    total = 0
    if depth > 3:
        raise DataError("groups of arrays are nested deeper than a fit has them.")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{name!r} links to somewhere else: not read.")
        item = group[name]
        if isinstance(item, h5py.Group):
            total += _check_group(item, n_bytes, depth + 1)
            continue
        if not isinstance(item, h5py.Dataset):
            raise DataError(f"{name!r} is not an array.")
        if item.dtype.kind not in "fiub" and h5py.check_string_dtype(item.dtype) is None:
            raise DataError(f"{name!r} holds neither numbers nor strings.")
        if item.attrs.get("CLASS", b"") == b"DIMENSION_SCALE" and _only_a_dimension(item):
            continue  # its length is that of the arrays that have it, and they are looked at themselves
        if item.is_virtual or item.external:
            raise DataError(f"{name!r} has its numbers in another file: not read.")
        if item.nbytes > (n_bytes if item.chunks is None else _MOST_PACKED * n_bytes):
            raise DataError(f"{name!r} of shape {item.shape} cannot be in a file of {n_bytes} bytes.")
        total += item.nbytes
    return total


def _only_a_dimension(item: h5py.Dataset) -> bool:
    return bytes(item.attrs.get("NAME", b"")).startswith(b"This is a netCDF dimension but not a netCDF variable")


def _check(fit: Fit) -> None:
    """Raise `DataError` unless the arrays of a fit are such as its spec says, and finite."""
    if "posterior" not in fit.idata.children:
        raise DataError("no posterior.")
    posterior = fit.posterior
    missing = [name for name in fit.bound.free_slots if name not in posterior]
    if missing:
        raise DataError(f"no draws of {', '.join(missing)}.")
    shape = tuple(posterior.sizes[dim] for dim in ("chain", "draw"))
    for name, slot in fit.bound.free_slots.items():
        values = posterior[name].values
        if values.shape != (*shape, *slot.shape) or posterior[name].dims[:2] != ("chain", "draw"):
            raise DataError(f"{name}: draws of shape {values.shape}, but the spec has {(*shape, *slot.shape)}.")
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            raise DataError(f"{name}: a draw is not a finite number.")
    for group in ("sample_stats", "log_likelihood"):
        sizes = fit.idata[group].to_dataset().sizes if group in fit.idata.children else {}
        for dim, size in zip(("chain", "draw"), shape):
            if sizes.get(dim, size) != size:
                raise DataError(f"{group}: {sizes[dim]} of {dim}, but the posterior has {size}.")
    if fit.history is not None and np.ndim(fit.history) != 1:
        raise DataError(f"history: an array of one dimension is needed, not of {np.ndim(fit.history)}.")


def _value_of(fit: Fit, name: str) -> Any:
    if name == "modes_found":
        return vars(fit).get("modes", fit.modes_found)  # weighed, if they were asked for
    return getattr(fit, name)


def _bound_to_json(bound: Bound) -> dict[str, Any]:
    learned = {
        key: {"type": type(value).__name__, "fields": value_to_json(asdict(value))}
        for key, value in bound.learned.items()
    }
    return {"spec": node_to_json(bound.spec), "learned": learned, "columns": list(bound.columns)}


def _bound_from_json(document: dict[str, Any]) -> Bound:
    spec = node_from_json(document["spec"])
    learned = {key: _learned_from_json(value) for key, value in document["learned"].items()}
    columns = document.get("columns", [])  # older files have none
    if not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
        raise DataError("columns: names are needed.")
    return bind_learned(spec, learned, columns)


def _status_from_json(document: dict[str, Any]) -> Status:
    kinds = {"engine": str, "converged": bool, "message": str, "complete": bool}
    for name, value in document.items():
        if not isinstance(value, kinds[name]):
            raise DataError(f"status: {name} is {value!r}.")
    return Status(**document)


def _number(value: Any) -> float:
    found = value_from_json(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise DataError(f"{value!r} is not a number.")
    return float(found)


def _starts_from_json(value: Any) -> list[dict[str, Any]]:
    return list(value_from_json(value))


def _modes_to_json(modes: Modes) -> list[Any]:
    return [value_to_json(vars(mode)) for mode in modes]


def _modes_from_json(documents: list[Any]) -> Modes:
    return Modes(Mode(**value_from_json(each)) for each in documents)


def _relabelling_to_json(found: Relabelling) -> Any:
    return value_to_json({each.name: getattr(found, each.name) for each in fields(found)})


def _relabelling_from_json(document: Any) -> Relabelling:
    return Relabelling(**value_from_json(document))


def _tree_as_it_is(tree: xr.DataTree) -> xr.DataTree:
    """The arrays without what another file said of how to pack them."""
    return xr.DataTree.from_dict({name: group.to_dataset().drop_encoding() for name, group in tree.children.items()})


def _read_tree(file: io.BytesIO) -> xr.DataTree:
    with xr.open_datatree(file, engine="h5netcdf") as opened:
        return opened.load()


def _read_dataset(file: io.BytesIO) -> xr.Dataset:
    with xr.open_dataset(file, engine="h5netcdf") as opened:
        return opened.load()


#: What is kept of a `Fit`, by field, in the order of the file.
SAVED: dict[str, _AsJson | _AsArrays | _AsFits] = {
    "bound": _AsJson(_bound_to_json, _bound_from_json),
    "status": _AsJson(asdict, _status_from_json),
    "loglik": _AsJson(lambda value: value_to_json(float(value)), _number),
    "pareto_k": _AsJson(lambda value: value_to_json(float(value)), _number),
    "starts": _AsJson(lambda value: value_to_json(list(value)), _starts_from_json),
    "modes_found": _AsJson(_modes_to_json, _modes_from_json),
    "relabelling": _AsJson(_relabelling_to_json, _relabelling_from_json),
    "history": _AsJson(lambda value: value_to_json(np.asarray(value, float)), lambda value: value_from_json(value)),
    "idata": _AsArrays(_tree_as_it_is, _read_tree),
    "trajectory": _AsArrays(xr.Dataset.drop_encoding, _read_dataset),
    "mode_fits": _AsFits(),
}

#: What is not, and why.
NOT_SAVED = {
    "table": "the data are the user's: large, and perhaps not to be passed on with the fit",
    "encoded": "the same in another form",
}


def _from_schema_2(document: dict[str, Any]) -> dict[str, Any]:
    """The members had the same names; the spec's options, history and starts were bare."""
    found: dict[str, Any] = {name: document[name] for name in ("status", "pareto_k") if name in document}
    found["bound"] = {"spec": _bare_options(document["spec"]), "learned": document["learned"]}
    found["starts"] = value_to_json(document["starts"])
    found["history"] = None if document["history"] is None else value_to_json(np.array(document["history"], float))
    found["loglik"] = value_to_json(document["loglik"])
    return found


def _bare_options(document: dict[str, Any]) -> dict[str, Any]:
    options = {name: value_to_json(value) for name, value in document["options"].items()}
    parts = [[name, _bare_options(child)] for name, child in document["parts"]]
    return {**document, "options": options, "parts": parts}


_READERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {2: _from_schema_2, 3: lambda document: document}


def _nodes(base: type[Node] = Node) -> dict[str, type[Node]]:
    """Every node class by name."""
    found = {}
    for cls in base.__subclasses__():
        found[cls.__name__] = cls
        found.update(_nodes(cls))
    return found


def _learned_from_json(document: dict[str, Any]) -> Any:
    kinds = {cls.learned_type.__name__: cls.learned_type for cls in _nodes().values() if hasattr(cls, "learned_type")}
    return kinds[document["type"]](**value_from_json(document["fields"]))


def node_to_json(node: Node) -> dict[str, Any]:
    """A spec as plain JSON values."""
    return {
        "node": type(node).__name__,
        "priors": {name: prior_to_json(name, given) for name, given in node.priors.items()},
        "options": {name: value_to_json(value) for name, value in node.options.items()},
        "parts": [[name, node_to_json(child)] for name, child in node.parts],
    }


def node_from_json(document: dict[str, Any]) -> Node:
    """The spec that `node_to_json` wrote."""
    known = _nodes()
    name = document["node"]
    if name not in known:
        raise DataError(f"{name!r}: this version knows no such node. Update bayesmix.")
    priors = {key: prior_from_json(given) for key, given in document["priors"].items()}
    parts = [(key, node_from_json(child)) for key, child in document["parts"]]
    options = {key: value_from_json(value) for key, value in document["options"].items()}
    for key, value in options.items():
        if isinstance(value, (int, float)) and not abs(value) <= _LARGEST_OPTION:
            raise DataError(f"{name}: {key} is {value}, more than any fit has.")
    node = known[name].restore(options, priors, parts)
    unknown = (set(options) - set(node.options)) | (set(priors) - set(node.priors))
    if unknown:
        raise DataError(f"{name}: it has no {', '.join(sorted(unknown))}.")
    return node


def prior_to_json(name: str, given: Any) -> Any:
    """A prior as plain JSON: a number, or the distribution's name and inputs; None stays None."""
    if given is None:
        return None
    if isinstance(given, Shared):
        return {"shared": prior_to_json(name, given.prior)}
    if isinstance(given, Flat):
        return {"flat": True}
    if isinstance(given, TensorVariable):
        if not is_prior(given):
            raise SpecError(f"{name}: a prior that is part of your own PyMC model cannot be saved.")
        document: dict[str, Any] = {"dist": type(given.owner.op).__name__}
        try:
            of, inputs = made_of(given)
            document["inputs"] = [_plain(constant(parameter).tolist()) for parameter in inputs]
            if of:
                document["of"] = [prior_to_json(name, each) for each in of]
                document["sizes"] = [np.asarray(constant(each.shape)).astype(int).tolist() for each in of]
            prior_from_json(document)
        except Exception:
            raise SpecError(f"{name}: {document['dist']} is a prior that cannot be saved. Use a PyMC one.") from None
        return document
    return {"value": _plain(np.asarray(given, float).tolist())}


def _plain(value: Any) -> Any:
    """Nested lists of numbers as strict JSON, which has no infinity: those are strings, which numpy reads."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if np.isfinite(value) else str(float(value))


def prior_from_json(document: dict[str, Any] | None) -> Any:
    """The prior that `prior_to_json` wrote."""
    if document is None:
        return None
    if "shared" in document:
        return Shared(prior_from_json(document["shared"]))
    if "flat" in document:
        return Flat()
    if "value" in document:
        return np.asarray(document["value"], float)
    if "of" in document:
        if max((n for size in document["sizes"] for n in size), default=0) > _LARGEST_OPTION:
            raise DataError(f"{document['dist']}: made of more numbers than any fit has.")
        of = [change_dist_size(prior_from_json(each), size) for each, size in zip(document["of"], document["sizes"])]
        numbers = [np.asarray(value, float) for value in document["inputs"]]
        if document["dist"] == MixtureRV.__name__:
            return pm.Mixture.dist(*numbers, of if len(of) > 1 else of[0])
        return pm.Truncated.dist(*of, *numbers)
    for module in (pm, distributions):
        for candidate in vars(module).values():
            op: Any = getattr(candidate, "rv_op", None)
            if isinstance(candidate, type) and type(op).__name__ == document["dist"]:
                inputs = [pt.as_tensor(np.asarray(value, float)) for value in document["inputs"]]
                if document["dist"] == StickBreakingWeightsRV.__name__:  # the number of breaks is part of its shape
                    inputs[1] = inputs[1].astype(int)
                return op.make_node(pytensor.shared(np.random.default_rng()), None, *inputs).outputs[1]
            kind: Any = getattr(candidate, "rv_type", None)
            if isinstance(candidate, type) and getattr(kind, "__name__", None) == document["dist"]:
                return kind.rv_op(*[pt.as_tensor(np.asarray(value, float)) for value in document["inputs"]])
    composed: Any = vars(pm.distributions.continuous).get(document["dist"])  # made of others, as LogitNormal is
    if hasattr(composed, "dist") and composed.__module__ == "pymc.distributions.continuous":
        return composed.dist(*[np.asarray(value, float) for value in document["inputs"]])
    raise DataError(f"{document['dist']}: this version knows no such prior. Update bayesmix or PyMC.")


def value_to_json(value: Any) -> Any:
    """Numbers, strings, None, arrays, sequences and mappings as strict JSON.

    Sequences are marked, and come back as tuples; so are arrays, and numbers that are not finite.
    """
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"{value!r}: keys that are not strings cannot be saved.")
        return {"dict": {key: value_to_json(item) for key, item in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple": [value_to_json(item) for item in value]}
    if type(value) in _TIMES:
        name, to_text, _ = _TIMES[type(value)]
        zone = getattr(getattr(value, "tzinfo", None), "key", None)  # the text has the offset of that moment alone
        return {"time": to_text(value), "type": name, **({} if zone is None else {"zone": zone})}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        numbers = _plain(value.ravel().tolist())
        return {"array": numbers, "shape": list(value.shape), "dtype": value.dtype.name}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DataError(
        f"{value!r}: symbols of type {type(value).__name__} cannot be saved. Use strings or numbers for categories."
    )


def value_from_json(value: Any) -> Any:
    """The inverse of `value_to_json`."""
    if isinstance(value, list):
        raise DataError("a list without a mark.")
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(value_from_json(item) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    if "time" in value:
        moment = {name: read for name, _, read in _TIMES.values()}[value["type"]](value["time"])
        return moment if value.get("zone") is None else _in_zone(moment, value["zone"])
    if "array" in value:
        if value["dtype"] not in _DTYPES:
            raise DataError(f"an array of {value['dtype']!r}.")
        return np.array(value["array"], value["dtype"]).reshape(value["shape"])
    return {key: value_from_json(item) for key, item in value["dict"].items()}


def _in_zone(moment: Any, name: Any) -> Any:
    """The moment, of which the offset is known, in a time zone; a time of day, which has none, is the zone's own."""
    try:
        zone = ZoneInfo(name)
    except (KeyError, OSError, TypeError, ValueError):
        raise DataError(f"{name!r} is no time zone that this machine knows. Install the package tzdata.") from None
    return moment.replace(tzinfo=zone) if type(moment) is datetime.time else moment.astimezone(zone)


def _span(microseconds: str) -> datetime.timedelta:
    return datetime.timedelta(microseconds=int(microseconds))


#: Types of dates and times: name in files, as text, and back.
_TIMES: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    datetime.date: ("date", lambda value: value.isoformat(), datetime.date.fromisoformat),
    datetime.datetime: ("datetime", lambda value: value.isoformat(), datetime.datetime.fromisoformat),
    datetime.time: ("time", lambda value: value.isoformat(), datetime.time.fromisoformat),
    datetime.timedelta: ("timedelta", lambda value: str(value // datetime.timedelta(microseconds=1)), _span),
    pd.Timestamp: ("Timestamp", lambda value: value.isoformat(), pd.Timestamp),
    pd.Timedelta: ("Timedelta", lambda value: value.isoformat(), pd.Timedelta),
}
_DTYPES = ("float64", "float32", "int64", "int32", "bool")
