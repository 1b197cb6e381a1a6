"""Missing cells, drawn from their posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix.bound import Bound
from bayesmix.data import Table
from bayesmix.params import Params
from bayesmix.spec import Encoded, Site


@dataclass(frozen=True)
class Imputation:
    """Draws of the missing cells, each consistent with a draw of the row's label and of the parameters.

    Attributes
    ----------
    draws : dict
        Field -> ndarray (n_draws, n_missing), or (n_draws, n_missing, D) for vectors, in the user's own values.
    rows : dict
        Field -> ndarray of int (n_missing,): row positions of the missing cells.
    """

    draws: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    kinds: dict[str, str]
    source: Table

    @property
    def n_draws(self) -> int:
        """Number of completed tables."""
        return len(next(iter(self.draws.values()), ()))

    def summary(self, prob: float = 0.89) -> pd.DataFrame:
        """One line for each missing cell.

        Parameters
        ----------
        prob : float
            Mass of the equal-tailed interval, ``low`` to ``high``.

        Returns
        -------
        pandas.DataFrame
            Index ``field``, ``row`` (the frame's own labels); columns mean, sd, low, high (NaN for symbols),
            mode, and ``p_mode``, the posterior probability of the mode (NaN for real numbers).
        """
        lines = []
        for field, values in self.draws.items():
            for j, row in enumerate(self.rows[field]):
                cell = values[:, j]
                named = (
                    [(field, cell)] if cell.ndim == 1 else [(f"{field}[{d}]", cell[:, d]) for d in range(cell.shape[1])]
                )
                lines += [
                    {"field": name, "row": self._label(row), **_summary(draws, self.kinds[field], prob)}
                    for name, draws in named
                ]
        columns = ["mean", "sd", "low", "high", "mode", "p_mode"]
        if not lines:
            return pd.DataFrame(columns=columns, index=pd.MultiIndex.from_arrays([[], []], names=["field", "row"]))
        return pd.DataFrame(lines).set_index(["field", "row"])[columns]

    def table(self, draw: int | None = None) -> Any:
        """The table with every missing cell filled, in the caller's frame type with the index kept.

        Parameters
        ----------
        draw : int, optional
            Which draw fills it. By default the centre of the draws: mean for real numbers, median for counts,
            most frequent for symbols and truth values.
        """
        columns: dict[str, Any] = {}
        for column in self.source.columns:
            field = column.name
            cells = list(column.values) if column.kind == "object" else column.values
            if field in self.draws and len(self.rows[field]):
                fill = self.draws[field][draw] if draw is not None else self._centre(field)
                if isinstance(cells, list):
                    for row, value in zip(self.rows[field], fill):
                        cells[row] = value
                else:
                    cells = cells.astype(np.result_type(cells, np.asarray(fill)))
                    cells[self.rows[field]] = fill
                    if self.kinds[field] != "real" and not np.isnan(cells.astype(float)).any():
                        cells = cells.astype(bool if column.kind == "bool" else np.int64)
            columns[field] = cells
        backend = self.source.backend
        if backend in (None, "pandas"):
            return pd.DataFrame(columns, index=self.source.index)
        return nw.from_dict(
            {name: list(cells) for name, cells in columns.items()}, backend=cast(Any, backend)
        ).to_native()

    def _centre(self, field: str) -> np.ndarray:
        values, kind = self.draws[field], self.kinds[field]
        if kind == "real":
            return values.mean(0)
        if kind == "count":
            return np.quantile(values, 0.5, axis=0, method="lower").astype(np.int64)
        centre = np.empty(values.shape[1], object)
        centre[:] = [_mode(values[:, j])[0] for j in range(values.shape[1])]
        return centre if kind == "symbol" else centre.astype(np.int64)

    def _label(self, row: int) -> Any:
        return row if self.source.index is None else self.source.index[row]

    def __repr__(self) -> str:
        cells = ", ".join(f"{field}: {len(rows)}" for field, rows in self.rows.items())
        return f"Imputation({self.n_draws} draws of missing cells; {cells or 'none missing'})"


def impute(
    bound: Bound, draws: Sequence[Params], table: Table, encoded: Encoded, rng: np.random.Generator
) -> Imputation:
    """Draw every missing cell once for each of the parameter draws.

    For each draw of the parameters the row's labels are drawn given all that is observed in it, outer mixtures
    first, then the missing cells given the labels.
    """
    leaves = [(site, block) for site, block in bound.site.walk_with(encoded) if not site.children]
    needed = np.unique(np.concatenate([block.missing_rows() for _, block in leaves] or [np.empty(0, int)]))
    rows = {leaf.place.path or table.names[0]: block.missing_rows() for leaf, block in leaves}
    rows = {field: missing for field, missing in rows.items() if len(missing)}
    kinds = {leaf.place.path or table.names[0]: _kind(leaf) for leaf, _ in leaves}
    found: dict[str, list] = {field: [] for field in rows}
    if len(needed):
        part = encoded.take(needed.astype(int))
        for params in draws:
            out: dict[str, np.ndarray] = {}
            evaluation = bound.site.evaluate(params, part)
            bound.site.node.impute(bound.site, params, evaluation, part, np.zeros(len(needed), int), rng, out)
            for leaf, _ in leaves:
                field = leaf.place.path or table.names[0]
                if field in rows:
                    found[field].append(out[leaf.key])
    decoded = {}
    for leaf, _ in leaves:
        field = leaf.place.path or table.names[0]
        if field in rows:
            decoded[field] = leaf.node.decode(np.array(found[field]), leaf.learned)
    return Imputation(decoded, rows, kinds, table)


def _kind(leaf: Site) -> str:
    """What a summary of this family's cells makes sense of."""
    if leaf.node.value_dtype == "float64":
        return "real"
    decoded = leaf.node.decode(np.zeros(1, np.int64), leaf.learned)
    if decoded.dtype == object:
        return "symbol"
    return "truth" if any(slot.support.name == "a probability" for slot in leaf.slots.values()) else "count"


def _summary(draws: np.ndarray, kind: str, prob: float) -> dict[str, Any]:
    line: dict[str, Any] = {"mean": np.nan, "sd": np.nan, "low": np.nan, "high": np.nan, "mode": None, "p_mode": np.nan}
    if kind != "symbol":
        numbers = draws.astype(float)
        low, high = np.quantile(numbers, [(1 - prob) / 2, (1 + prob) / 2])
        line.update(mean=numbers.mean(), sd=numbers.std(ddof=1) if len(draws) > 1 else np.nan, low=low, high=high)
    if kind != "real":
        line["mode"], line["p_mode"] = _mode(draws)
    return line


def _mode(draws: np.ndarray) -> tuple[Any, float]:
    counts: dict[Any, int] = {}
    for value in draws.tolist():
        counts[value] = counts.get(value, 0) + 1
    best = max(counts, key=lambda value: counts[value])
    return best, counts[best] / len(draws)
