"""Saving and loading fits: a zip of JSON and netCDF. Nothing in it is executed when it is read."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pytensor.tensor.variable import TensorVariable

from bayesmix import distributions
from bayesmix.bound import bind_learned
from bayesmix.compilation import constant
from bayesmix.errors import DataError, SpecError
from bayesmix.fit import Fit, Status
from bayesmix.params import Flat, Shared, is_prior
from bayesmix.relabel import Relabelling
from bayesmix.spec import Node

#: Version of the file's layout; a reader refuses newer ones.
SCHEMA = 2


def save(fit: Fit, path: str | Path) -> None:
    """Write a fit to `path`, at once or not at all. See `Fit.save`."""
    path = Path(path)
    document = {
        "schema": SCHEMA,
        "spec": node_to_json(fit.spec),
        "learned": {
            key: {"type": type(value).__name__, "fields": value_to_json(asdict(value))}
            for key, value in fit.bound.learned.items()
        },
        "status": asdict(fit.status),
        "loglik": fit.loglik,
        "history": None if fit.history is None else fit.history.tolist(),
        "starts": fit.starts,
        "relabelling": None if fit.relabelling is None else relabelling_to_json(fit.relabelling),
    }
    text = json.dumps(document, indent=1, allow_nan=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        arrays = Path(folder) / "idata.nc"
        fit.idata.to_netcdf(arrays, engine="h5netcdf")
        whole = Path(folder) / "fit.zip"
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fit.json", text)
            archive.write(arrays, "idata.nc")
        os.replace(whole, path)


def load(path: str | Path) -> Fit:
    """Read a fit that `Fit.save` wrote.

    The training table is not in the file: predictions of a loaded fit need a table.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Fit

    Raises
    ------
    DataError
        The file is not a saved fit, is damaged, or is from a newer version.
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
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            document = json.loads(archive.read("fit.json"))
            archive.extract("idata.nc", folder)
            with xr.open_datatree(Path(folder) / "idata.nc", engine="h5netcdf") as opened:
                idata = opened.load()
        if document["schema"] > SCHEMA:
            raise DataError(
                f"{path}: written by a newer bayesmix (schema {document['schema']}, this one reads {SCHEMA}). Update."
            )
        spec = node_from_json(document["spec"])
        learned = {key: _learned_from_json(value) for key, value in document["learned"].items()}
        history = document["history"]
        return Fit(
            bind_learned(spec, learned),
            idata,
            Status(**document["status"]),
            document["loglik"],
            None if history is None else np.array(history),
            document["starts"],
            relabelling=relabelling_from_json(document.get("relabelling")),
        )
    except (FileNotFoundError, DataError):
        raise
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, OSError, AttributeError) as error:
        raise DataError(f"{path}: not a saved fit, or damaged ({error}). Save it again.") from error


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
        "options": node.options,
        "parts": [[name, node_to_json(child)] for name, child in node.parts],
    }


def node_from_json(document: dict[str, Any]) -> Node:
    """The spec that `node_to_json` wrote."""
    priors = {name: prior_from_json(given) for name, given in document["priors"].items()}
    parts = [(name, node_from_json(child)) for name, child in document["parts"]]
    return _nodes()[document["node"]].restore(document["options"], priors, parts)


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
        op = given.owner.op
        inputs = [constant(parameter).tolist() for parameter in op.dist_params(given.owner)]
        document = {"dist": type(op).__name__, "inputs": inputs}
        try:
            prior_from_json(document)
        except Exception:
            raise SpecError(f"{name}: {document['dist']} is a prior that cannot be saved. Use a PyMC one.") from None
        return document
    return {"value": np.asarray(given, float).tolist()}


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
    for module in (pm, distributions):
        for candidate in vars(module).values():
            op: Any = getattr(candidate, "rv_op", None)
            if isinstance(candidate, type) and type(op).__name__ == document["dist"]:
                inputs = [pt.as_tensor(np.asarray(value, float)) for value in document["inputs"]]
                return op.make_node(pytensor.shared(np.random.default_rng()), None, *inputs).outputs[1]
            kind: Any = getattr(candidate, "rv_type", None)
            if isinstance(candidate, type) and getattr(kind, "__name__", None) == document["dist"]:
                return kind.rv_op(*[pt.as_tensor(np.asarray(value, float)) for value in document["inputs"]])
    raise DataError(f"{document['dist']}: this version knows no such prior. Update bayesmix or PyMC.")


def relabelling_to_json(report: Relabelling) -> dict[str, Any]:
    """What is known about labels, as plain JSON."""
    arrays = {name: np.asarray(value).tolist() for name, value in report.reference.items()}
    moved = {name: share.tolist() for name, share in report.moved.items()}
    return {**asdict(report), "moved": moved, "reference": arrays}


def relabelling_from_json(document: dict[str, Any] | None) -> Relabelling | None:
    """The inverse of `relabelling_to_json`."""
    if document is None:
        return None
    arrays = {name: np.asarray(value, float) for name, value in document["reference"].items()}
    moved = {name: np.asarray(share, float) for name, share in document["moved"].items()}
    return Relabelling(**{**document, "moved": moved, "reference": arrays})


def value_to_json(value: Any) -> Any:
    """Numbers, strings, None, tuples and mappings as JSON; tuples are marked so that they come back as tuples."""
    if isinstance(value, dict):
        return {"dict": {key: value_to_json(item) for key, item in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple": [value_to_json(item) for item in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DataError(
        f"{value!r}: symbols of type {type(value).__name__} cannot be saved. Use strings or numbers for categories."
    )


def value_from_json(value: Any) -> Any:
    """The inverse of `value_to_json`."""
    if isinstance(value, dict):
        if "tuple" in value:
            return tuple(value_from_json(item) for item in value["tuple"])
        return {key: value_from_json(item) for key, item in value["dict"].items()}
    return value
