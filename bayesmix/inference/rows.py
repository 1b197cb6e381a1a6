"""The rows that an engine is given, wherever they are: in memory, or read in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.bound import Bound, check_rows
from bayesmix.chunked import ChunkedEStep, learn
from bayesmix.data import Table
from bayesmix.fit import Fit, make_fit
from bayesmix.plan import EStep, Pass
from bayesmix.sources import Source
from bayesmix.spec import Encoded, Node
from bayesmix.ties import warn_of_ties


@dataclass(frozen=True)
class Rows:
    """Rows under a bound spec.

    Attributes
    ----------
    e_step : Pass
    table, encoded : Table and Encoded, or None
        Rows in memory.
    row_weights : ndarray, shape (N,), or None
        As given, for rows in memory.
    """

    e_step: Pass
    table: Table | None = None
    encoded: Encoded | None = None
    row_weights: np.ndarray | None = None

    def make_fit(self, draws: dict[str, np.ndarray], **others: Any) -> Fit:
        """See `bayesmix.fit.make_fit`."""
        return make_fit(
            self.e_step.bound,
            draws,
            table=self.table,
            encoded=self.encoded,
            row_weights=self.row_weights,
            e_step=self.e_step,
            **others,
        )

    def digest(self, fit: Fit) -> str:
        """What tells this table from others."""
        from bayesmix.checkpoint import digest

        if self.encoded is not None:
            return digest(self.encoded, fit)
        return self.e_step.chunks.digest()  # type: ignore[attr-defined]


def rows_in_memory(prepared: tuple[Table, Bound, Encoded, np.ndarray, np.ndarray | None], n_jobs: int = 1) -> Rows:
    """Rows of a table in memory, from what `bayesmix.bound.prepare` gives."""
    table, bound, encoded, weights, given = prepared
    return Rows(EStep(bound, encoded, weights, n_jobs), table, encoded, given)


def rows_in_parts(spec: Node, source: Source, row_weights: Any, n_jobs: int = 1, memory: int | str = "256 MiB") -> Rows:
    """Rows of a source: see `bayesmix.chunked`.

    Raises
    ------
    SpecError, DataError
        A `DataError` names the part.
    """
    return checked(ChunkedEStep(learn(spec, source, row_weights, n_jobs), n_jobs, memory))


def checked(e_step: Pass) -> Rows:
    """Rows that are not in memory, after the warnings that `bayesmix.bound.prepare` gives of those that are."""
    if e_step.data.n_rows == e_step.n_rows:  # of a sample fewer rows may differ than of all
        check_rows(e_step.bound, e_step.data, e_step.row_weights)
    warn_of_ties(e_step.bound.site, e_step.data, "data")
    return Rows(e_step)
