"""What EM keeps on the disk while it runs: a saved `Fit` of the best point so far, with the points of all starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesmix.bound import Bound
from bayesmix.data import Table
from bayesmix.errors import DataError
from bayesmix.fit import Fit, Status, make_fit, posterior_dataset
from bayesmix.relabel import in_canonical_order
from bayesmix.spec import Encoded, Node

#: Seconds between writings, and how many times longer than a writing they are at least.
_EVERY, _TIMES_LONGER = 1.0, 20
#: The group of the points of all starts, and what tells which table they are of.
_STARTS, _DIGEST = "em_starts", "digest"


class Snapshots:
    """Called with all of EM's runs after each iteration, it writes them to `path` where it is time to."""

    def __init__(self, path: Path, bound: Bound, table: Table, data: Encoded, row_weights: np.ndarray | None):
        self.path, self.bound, self.table, self.data, self.row_weights = path, bound, table, data, row_weights
        self.next = time.monotonic() + _EVERY

    def __call__(self, runs: Sequence[Any]) -> None:
        began = time.monotonic()
        if began < self.next:
            return
        begun = [run for run in runs if run.history and not run.failed]
        if begun:
            best = max(begun, key=lambda run: run.objective)
            point = in_canonical_order(self.bound, best.params)
            fit = make_fit(
                self.bound,
                {name: np.asarray(point[name])[None, None] for name in self.bound.free_slots},
                table=self.table,
                encoded=self.data,
                row_weights=self.row_weights,
                status=Status("em", False, f"EM was at iteration {len(best.history)}.", complete=False),
                history=np.array(best.history),
                starts=[run.report() for run in runs],
                log_likelihood=False,
            )
            self._save(fit, begun)
        ended = time.monotonic()
        self.next = ended + max(_EVERY, _TIMES_LONGER * (ended - began))

    def end(self, fit: Fit, runs: Sequence[Any]) -> None:
        """Write the fit that EM returns."""
        self._save(fit, [] if fit.status.complete else [run for run in runs if run.history and not run.failed])

    def _save(self, fit: Fit, begun: Sequence[Any]) -> None:
        from bayesmix.checkpoint import digest

        groups = {name: group.to_dataset() for name, group in fit.idata.children.items()}
        groups["observed_data"] = groups["observed_data"].assign_attrs({_DIGEST: digest(self.data, fit)})
        if begun:
            points = {n: np.array([run.params[n] for run in begun])[None] for n in self.bound.free_slots}
            dataset = posterior_dataset(self.bound, points).isel(chain=0, drop=True).rename(draw="start")
            groups[_STARTS] = dataset
        replace(fit, idata=xr.DataTree.from_dict(groups)).save(self.path)


def read(
    path: Path, spec: Node, bound: Bound, data: Encoded, row_weights: np.ndarray
) -> tuple[Fit, list[dict[str, np.ndarray]]]:
    """The fit in a file, and the points of all starts.

    Raises `DataError` where it is of another spec or table.
    """
    from bayesmix.checkpoint import digest
    from bayesmix.io import load, node_to_json

    fit = load(path)
    if node_to_json(fit.spec) != node_to_json(spec):
        raise DataError(f"resume: {path} is of another spec: {fit.spec!r}. Pass that one.")
    attributes = fit.idata["observed_data"].attrs if "observed_data" in fit.idata.children else {}
    weights = np.ones(data.n_rows) if fit.row_weights is None else fit.row_weights
    if attributes.get(_DIGEST) != digest(data, fit) or not np.array_equal(weights, row_weights):
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


def check_place(path: Path, overwrite: bool) -> None:
    """Raise `FileExistsError` where something is at `path` that may not be overwritten."""
    if path.exists() and (not overwrite or path.is_dir()):
        raise FileExistsError(
            17, "checkpoint: it is there already; pass resume= to go on, or overwrite=True", str(path)
        )
