"""Missing cells: what is known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.data import texts
from bayesmix.impute import Imputation
from bayesmix.plots._looks import (
    COLOURS,
    INK,
    MOST_BARS,
    OBSERVED,
    chosen,
    fill,
    name_symbols,
    pyplot,
    require,
    rgb,
    say,
    short,
    tidy,
)

#: Rows above which the picture of imputed cells names none of them.
_MOST_LABELS = 60


def plot_imputation(
    imputation: Imputation, *, fields: Any = None, max_fields: int = 12, prob: float = 0.89
) -> tuple[Any, Any]:
    """Plot the missing cells: an interval for each number, probabilities for each symbol.

    The grey band holds the same share of the field's observed cells: an interval as wide as the band has
    learned nothing from the rest of its row. Of missing sequences the lengths are shown, of sets how probable each
    symbol is in them (the darker, the more).

    Parameters
    ----------
    imputation : Imputation
        From `Fit.impute`.
    fields : str or list of str, optional
        Which ones, by the titles of their panels. By default all; of more than `max_fields` those with the most missing
        cells: the figure says so.
    max_fields : int
    prob : float
        Mass of the intervals, equal-tailed.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each field with missing cells (each coordinate of a vector).

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"height": [1.6, None, 1.9, 1.5, 1.8], "team": ["a", "a", "b", None, "b"]}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(height=bm.Normal(), team=bm.Categorical()), 2), table, random_seed=1)
    >>> figure, axes = bm.plots.plot_imputation(fit.impute(n_draws=100, random_seed=1))
    """
    require("imputation", imputation, Imputation, "what fit.impute() gives")
    plt = pyplot()
    arguments.check(max_fields=max_fields, prob=prob)
    panels = list(_imputed_panels(imputation, prob))
    if not panels:
        raise ValueError("imputation: no cell of the table is missing, so there is nothing to plot.")
    n_panels, names = len(panels), [name for name, _, _ in panels]
    if fields is not None:
        wanted = chosen(names, fields)
        panels = [panel for panel in panels if panel[0] in wanted]
    elif n_panels > max_fields:
        order = np.argsort([-len(cells_of_field) for _, cells_of_field, _ in panels], kind="stable")
        panels = [panels[i] for i in np.sort(order[:max_fields])]
    every = sorted({cell for _, cells, _ in panels for cell in cells})
    shown = min(len(every), _MOST_LABELS)
    figure, grid = plt.subplots(
        1,
        len(panels),
        figsize=(0.8 + 2.3 * len(panels), 1.5 + (0.26 if shown == len(every) else 0.12) * shown),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    axes = grid.ravel()
    place = {cell: i for i, cell in enumerate(every)}
    for axis, (name, cells_of_field, draw) in zip(axes, panels):
        axis.set_title(short(name, 22), loc="left", fontsize=10, color=INK)
        tidy(axis)
        draw(axis, np.array([place[cell] for cell in cells_of_field]))
        axis.tick_params(axis="y", length=0)
    index = imputation.source.index
    if len(every) <= _MOST_LABELS:
        labels = [
            f"{row if index is None else index[row]}{'' if position < 0 else f'[{position}]'}"
            for row, position in every
        ]
        axes[0].set_yticks(np.arange(len(every)), labels)
    else:
        axes[0].set_yticks([])
    axes[0].set_ylim(len(every) - 0.4, -0.6)
    axes[0].set_ylabel("row", color=INK)
    if fields is None and len(panels) < n_panels:
        say(figure, f"{len(panels)} of {n_panels} panels: those with the most missing cells (fields= chooses others)")
    return figure, axes


def _imputed_panels(imputation: Imputation, prob: float) -> Iterator[tuple[str, list[tuple[int, int]], Any]]:
    """Title, the cells (row, place in its sequence or -1), and what draws them."""
    columns = {column.name: column for column in imputation.source.columns}
    for field, draws in imputation.draws.items():
        rows = imputation.rows[field]
        positions = imputation.positions.get(field, np.full(len(rows), -1))
        places = positions if positions.ndim == 1 else np.unique(positions, axis=0, return_inverse=True)[1].ravel()
        at = list(zip(rows.tolist(), places.tolist()))
        kind, column = imputation.kinds[field], columns.get(field)
        observed = None
        if column is not None and column.kind == "number":
            observed = column.values[~column.missing].astype(float)
        if draws.ndim == 3:
            own, lacking = imputation.columns[field], imputation.coordinates.get(field)
            for d in range(draws.shape[2]):
                title = imputation.source.columns[own[d]].name if len(own) == draws.shape[2] else f"{field}[{d}]"
                some = np.arange(len(at)) if lacking is None else np.flatnonzero(lacking[:, d])
                if len(some):
                    yield title, [at[i] for i in some], partial(_draw_intervals, draws=draws[:, some, d], prob=prob)
        elif isinstance(draws.flat[0], list):
            lengths = np.vectorize(len, otypes=[float])(draws)
            yield f"{field} (length)", at, partial(_draw_intervals, draws=lengths, prob=prob)
        elif kind == "set":
            yield field, at, partial(_draw_memberships, draws=draws)
        elif kind in ("symbol", "truth"):
            yield field, at, partial(_draw_symbol_shares, draws=draws)
        else:
            yield field, at, partial(_draw_intervals, draws=draws, prob=prob, observed=observed)


def _draw_intervals(axis: Any, at: np.ndarray, *, draws: np.ndarray, prob: float, observed: Any = None) -> None:
    tails = [(1 - prob) / 2, 0.5, (1 + prob) / 2]
    if observed is not None and len(observed):
        low, _, high = np.quantile(observed, tails)
        axis.axvspan(low, high, color=OBSERVED, alpha=0.6, linewidth=0)
    low, middle, high = np.quantile(draws.astype(float), tails, axis=0)
    axis.hlines(at, low, high, color=COLOURS[0], linewidth=2.2)
    axis.plot(middle, at, "o", color="white", markeredgecolor=COLOURS[0], markersize=5)


def _draw_symbol_shares(axis: Any, at: np.ndarray, *, draws: np.ndarray) -> None:
    """Bars from 0 to 1; the rarest symbols together, where there are more than colours."""
    counts = Counter(draws.ravel().tolist())
    frequent = [symbol for symbol, _ in counts.most_common(len(COLOURS) if len(counts) <= len(COLOURS) else 6)]
    base = np.zeros(len(at))
    frequent = sorted(frequent, key=str)
    for k, (symbol, label) in enumerate(zip(frequent, texts(frequent))):
        share = (draws == symbol).mean(0)
        axis.barh(at, share, left=base, height=0.72, label=label, linewidth=0.6, **fill(k))
        base += share
    if len(frequent) < len(counts):
        axis.barh(at, 1 - base, left=base, height=0.72, label="others", color=OBSERVED)
    axis.set_xlim(0, 1)
    axis.set_xlabel("probability", color=INK)
    axis.legend(
        frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4.2,
        handlelength=1.2, columnspacing=0.8, handletextpad=0.4,
    )  # fmt: skip


def _draw_memberships(axis: Any, at: np.ndarray, *, draws: np.ndarray) -> None:
    """How probable each symbol is in each set, as shades."""
    counts = Counter(symbol for drawn in draws.ravel().tolist() for symbol in drawn)
    symbols = sorted((symbol for symbol, _ in counts.most_common(MOST_BARS)), key=str)
    for j, symbol in enumerate(symbols):
        share = np.array([[symbol in drawn for drawn in row] for row in draws.tolist()]).mean(0)
        shades = [(*rgb(COLOURS[0]), each) for each in share]
        axis.barh(at, 0.94, left=j - 0.47, height=0.86, color=shades, edgecolor="#CCCCCC", linewidth=0.5)
    name_symbols(axis, symbols)
