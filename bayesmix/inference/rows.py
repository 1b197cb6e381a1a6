"""The rows that an engine is given, wherever they are: in memory, or read in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesmix.bound import prepare
from bayesmix.chunked import ChunkedEStep, learn
from bayesmix.data import Table
from bayesmix.fit import Fit, make_fit
from bayesmix.plan import EStep, Pass
from bayesmix.sources import source_of
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


def rows_of(spec: Node, data: Any, row_weights: Any, n_jobs: int = 1, memory: int | str = "256 MiB") -> Rows:
    """A spec bound to its rows, and the pass over them.

    Raises
    ------
    SpecError, DataError
        Everything that is wrong with the spec or the data, listed together.
    """
    source = source_of(data)
    if source is None:
        table, bound, encoded, weights, given = prepare(spec, data, row_weights)
        return Rows(EStep(bound, encoded, weights, n_jobs), table, encoded, given)
    e_step = ChunkedEStep(learn(spec, source, row_weights, n_jobs), n_jobs, memory)
    warn_of_ties(e_step.bound.site, e_step.data, "data")
    return Rows(e_step)
