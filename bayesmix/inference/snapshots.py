"""What EM keeps on the disk while it runs: a saved `Fit` of the best point so far, with the points of all starts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesmix.errors import DataError
from bayesmix.fit import Fit, Status, posterior_dataset
from bayesmix.inference.rows import Rows
from bayesmix.relabel import in_canonical_order
from bayesmix.spec import Node

#: Seconds between writings, and how many times longer than a writing they are at least.
_EVERY, _TIMES_LONGER = 1.0, 20
#: The group of the points of all starts, and what tells which table they are of.
_STARTS, _DIGEST, _OBSERVED = "em_starts", "digest", "observed_data"


class Snapshots:
    """Called with all of EM's runs after each iteration, it writes them to `path` where it is time to."""

    def __init__(self, path: Path, rows: Rows):
        self.path, self.rows, self.bound = path, rows, rows.e_step.bound
        self.next = time.monotonic() + _EVERY
        self.runs: Sequence[Any] = ()

    def __call__(self, runs: Sequence[Any]) -> None:
        self.runs = runs
        if time.monotonic() >= self.next:
            self.write()

    def write(self) -> bool:
        """Write the best point so far, and those of all starts; whether there is any."""
        began, runs = time.monotonic(), self.runs
        begun = [run for run in runs if run.history and not run.failed]
        if begun:
            best = max(begun, key=lambda run: run.objective)
            point = in_canonical_order(self.bound, best.params)
            fit = self.rows.make_fit(
                {name: np.asarray(point[name])[None, None] for name in self.bound.free_slots},
                status=Status("em", False, f"EM was at iteration {len(best.history)}.", complete=False),
                history=np.array(best.history),
                starts=[run.report() for run in runs],
                log_likelihood=False,
                loglik=None if self.rows.encoded is not None else best.loglik,  # without another pass
            )
            self._save(fit, begun)
        ended = time.monotonic()
        self.next = ended + max(_EVERY, _TIMES_LONGER * (ended - began))
        return bool(begun)

    def end(self, fit: Fit, runs: Sequence[Any]) -> None:
        """Write the fit that EM returns; of one that has not converged, where every start is too."""
        self._save(fit, [] if fit.status.converged else [run for run in runs if run.history and not run.failed])

    def _save(self, fit: Fit, begun: Sequence[Any]) -> None:
        groups = {name: group.to_dataset() for name, group in fit.idata.children.items()}
        if begun:
            points = {n: np.array([run.params[n] for run in begun])[None] for n in self.bound.free_slots}
            dataset = posterior_dataset(self.bound, points).isel(chain=0, drop=True).rename(draw="start")
            groups[_STARTS] = dataset
        fit = replace(fit, idata=xr.DataTree.from_dict(groups))
        marked(fit, {_DIGEST: self.rows.digest(fit)}).save(self.path)


def marked(fit: Fit, marks: dict[str, str]) -> Fit:
    """A fit that says of what rows it is, and how it was made."""
    groups = {name: group.to_dataset() for name, group in fit.idata.children.items()}
    groups[_OBSERVED] = groups.get(_OBSERVED, xr.Dataset()).assign_attrs(marks)
    return replace(fit, idata=xr.DataTree.from_dict(groups))


def marks_of(fit: Fit) -> dict[str, Any]:
    """What `marked` noted."""
    attributes = fit.idata[_OBSERVED].attrs if _OBSERVED in fit.idata.children else {}
    return {str(name): value for name, value in attributes.items()}


def read(path: Path, spec: Node, rows: Rows) -> tuple[Fit, list[dict[str, np.ndarray]]]:
    """The fit in a file, and the points of all starts.

    Raises `DataError` where it is of another spec or table.
    """
    from bayesmix.io import load, node_to_json

    bound = rows.e_step.bound
    fit = load(path)
    if node_to_json(fit.spec) != node_to_json(spec.plain()):
        raise DataError(f"resume: {path} is of another spec: {fit.spec!r}. Pass that one.")
    attributes = marks_of(fit)
    own, given = fit.row_weights, rows.row_weights
    same = own is given is None or (own is not None and given is not None and np.array_equal(own, given))
    same = same and fit.bound.learned == bound.learned  # symbols too
    if attributes.get(_DIGEST) != rows.digest(fit) or not same:
        raise DataError(f"resume: {path} is of another table or other row weights. Pass those it was begun with.")
    if _STARTS not in fit.idata.children:
        return fit, []
    points = fit.idata[_STARTS].to_dataset()
    found = []
    for i in range(points.sizes["start"]):
        values = {name: np.asarray(points[name].values[i], float) for name in bound.free_slots}
        if any(values[name].shape != bound.slots[name].shape or not np.isfinite(values[name]).all() for name in values):
            raise DataError(f"{path}: a start is not as the spec says. Begin again.")
        found.append(bound.with_fixed(values))
    return fit, found


def check_begin(checkpoint: Any, resume: Any, overwrite: bool) -> None:
    """Raise `FileExistsError` where something is at `checkpoint` that is neither gone on from nor to be overwritten."""
    if checkpoint is not None and (resume is None or os.path.abspath(checkpoint) != os.path.abspath(resume)):
        check_place(Path(checkpoint), overwrite)


def check_place(path: Path, overwrite: bool) -> None:
    """Raise `OSError` where something is at `path` that may not be overwritten, or no folder is around it."""
    from bayesmix.io import require_folder

    require_folder(path)
    if path.exists() and (not overwrite or path.is_dir()):
        raise FileExistsError(
            17, "checkpoint: it is there already; pass resume= to go on, or overwrite=True", str(path)
        )
