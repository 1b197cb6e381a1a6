"""Each field's values, with the components' densities over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.data import texts
from bayesmix.errors import DataError
from bayesmix.fit import Fit
from bayesmix.plots._looks import (
    FAINT,
    INK,
    MOST_BARS,
    OBSERVED,
    chosen,
    colour,
    fill,
    legend,
    line,
    name_symbols,
    pyplot,
    require,
    say,
    shades,
    short,
    tidy,
    title,
)
from bayesmix.plots._views import View, features, of_chains, views
from bayesmix.spec import Encoded

_GRID_POINTS = 300
#: Times that the steep parts of a curve are halved.
_REFINEMENTS = 12


def plot_fields(
    fit: Fit, data: Any = None, *, fields: Any = None, max_panels: int = 24, prob: float = 0.89, unseen: str = "error"
) -> tuple[Any, Any]:
    """Plot each field as a histogram (bars for symbols and counts) with the components overlaid.

    A component's curve is its weight times its density, so that the curves add up to the dark line, the
    mixture's density. With a posterior of several draws the curves are means over draws, and bands (of bars: a line at
    the top of the stack) hold the density with probability `prob`; sets and chains, which are counted in drawn rows,
    have none. Components are those of the outermost mixture around the field; mixtures further in are summed out.

    ==================  ==================================================================================
    field               panels
    ==================  ==================================================================================
    number              histogram and curves; bars for counts
    vector              one for each coordinate
    symbol, set         bars: the share of the rows that are, or hold, each symbol
    sequence            its elements (``name[]``), and its lengths where they have a family
    chain of symbols    bars of the symbols' shares, and a table of the next symbol (columns) given the last (rows)
    ==================  ==================================================================================

    Where components differ in how many values a row holds (sequences, values that may be missing) a component's
    weight is its share of the values. Where missing cells are part of the model, a slim bar beside the panel
    compares their share with the components'.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        Rows of the histograms; the training table by default.
    fields : str or list of str, optional
        Which ones. By default all; where that would be more than `max_panels`, those in which the components differ
        most: the figure says so.
    max_panels : int
    prob : float
        Mass of the bands.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each panel, in the order of the fields.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"height": [1.6, 1.7, 1.9, 1.5, 1.8], "team": ["a", "a", "b", "a", "b"]}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(height=bm.Normal(), team=bm.Categorical()), 2), table, random_seed=1)
    >>> figure, axes = bm.plots.plot_fields(fit)
    >>> [axis.get_title(loc="left") for axis in axes]
    ['height', 'team']
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(max_panels=max_panels, prob=prob)
    plt = pyplot()
    table, encoded = fit._data(data, unseen)
    panels, note = _chosen_panels(list(views(fit, encoded)), table.names[0], fields, max_panels)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    width = 1.5 + 3.7 * columns if columns == 1 else 0.4 + 3.7 * columns
    figure, grid = plt.subplots(lines, columns, figsize=(width, 0.6 + 2.6 * lines), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = grid.ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (text, view, draw) in zip(axes, panels):
        tidy(axis)
        axis.tick_params(left=False, labelleft=False)
        draw(axis, view, prob)
        title(axis, short(text))
        _show_missing(axis, view)
    legend(figure, max(len(view.weights) for _, view, _ in panels), columns)
    if note:
        say(figure, note)
    return figure, axes[: len(panels)]


#: Times the histogram's height that a curve may have before the panel cuts it off.
_ABOVE = 4
_Draw = Callable[[Any, View, float], None]


def _chosen_panels(found: list[View], only_column: str, fields: Any, most: int) -> tuple[list, str]:
    """Title, field and what draws it of the panels that are shown, and a note on those that are not."""
    if fields is not None:
        wanted = chosen([view.called(only_column) for view in found], fields)
        found = [view for view in found if view.called(only_column) in wanted]
    panels = [(name, view, draw) for view in found for name, draw in _panels(view, only_column)]
    if fields is not None or len(panels) <= most:
        return panels, ""
    scores = []
    for view in found:
        each = [feature.separation for feature in features(view, only_column)]
        n_panels = len(_panels(view, only_column))
        scores += each if len(each) == n_panels and view.site.node.value_ndim else [max(each)] * n_panels
    shown = np.sort(np.argsort(-np.array(scores), kind="stable")[:most])
    how = "those in which the components differ most" if max(len(view.weights) for view in found) > 1 else "the first"
    return [panels[i] for i in shown], f"{most} of {len(panels)} panels: {how} (fields= chooses others)"


def _panels(view: View, only_column: str) -> list[tuple[str, _Draw]]:
    """Title of each panel of a field, and what draws it."""
    name = view.called(only_column)
    kind = view.site.node.value_kind
    if kind == "chain":
        return [(name, _draw_symbols_of_chains), (f"{name}: next symbol", _draw_transitions)]
    if kind == "set":
        return [(name, _draw_members)]
    if view.site.node.value_ndim:
        return [(each, partial(_draw_coordinate, coordinate=d)) for d, each in enumerate(view.coordinate_names(name))]
    if kind in ("symbol", "truth"):
        return [(name, _draw_symbols)]
    if view.site.node.value_dtype == "float64" or _span(view.values) > MOST_BARS:
        return [(name, _draw_curves)]
    return [(name, _draw_counts)]


def _span(values: np.ndarray) -> float:
    return float(np.ptp(values)) if len(values) else 0.0


def _draw_curves(axis: Any, view: View, prob: float) -> None:
    values = np.asarray(view.values, float)
    drawn = [column.values[~column.missing].astype(float) for column in view.drawn]
    whole = view.site.node.value_dtype != "float64"
    low, high = _histogram(axis, values if len(values) else np.concatenate(drawn), whole)
    margin = 0.08 * (high - low)
    for below, above in ((margin, margin), (0, margin), (margin, 0), (0, 0)):
        grid = _grid(low - below, high + above, drawn, whole)
        try:
            curves = view.curves(grid)
        except DataError:  # the margin leaves the support
            continue
        break
    if not whole:
        grid, curves = _refined(grid, curves, view.curves)
    _plot_components(axis, grid, curves, _band(view.each_curve(grid), prob))


def _histogram(axis: Any, values: np.ndarray, whole: bool) -> tuple[float, float]:
    """Draw it, and give the ends of the values."""
    low, high = float(values.min()), float(values.max())
    n_bins = int(np.clip(1.5 * np.sqrt(len(values)), 8, 60))
    bins: Any = n_bins
    if whole:
        width = max(int(np.ceil((high - low + 1) / n_bins)), 1)
        bins = np.arange(low - 0.5, high + width + 0.5, width)
    axis.hist(values, bins=bins, density=True, color=OBSERVED, edgecolor="white", linewidth=0.5)
    return low, high if high > low else low + 1.0


def _grid(low: float, high: float, drawn: list[np.ndarray], whole: bool) -> np.ndarray:
    """Points from `low` to `high`, denser where a component is narrow; whole numbers within, where values are."""
    dense = [np.quantile(values, np.linspace(0.01, 0.99, 50)) for values in drawn if len(values)]
    grid = np.clip(np.concatenate([np.linspace(low, high, _GRID_POINTS), *dense]), low, high)
    return np.unique(np.clip(np.round(grid), np.ceil(low), np.floor(high)) if whole else grid)


def _refined(
    grid: np.ndarray, curves: np.ndarray, at: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Points added until a line between neighbours is never steep, (n,), and the curves there, (n, G)."""
    for _ in range(_REFINEMENTS):
        total = curves.sum(1)
        steep = np.abs(np.diff(total)) > 0.02 * total.max()
        if not steep.any():
            break
        middle = ((grid[:-1] + grid[1:]) / 2)[steep]
        grid, curves = np.concatenate([grid, middle]), np.concatenate([curves, at(middle)])
        order = np.argsort(grid)
        grid, curves = grid[order], curves[order]
    return grid, curves


def _draw_coordinate(axis: Any, view: View, prob: float, coordinate: int) -> None:
    drawn = [view.encoded(column)[:, coordinate] for column in view.drawn]
    values = view.values[:, coordinate]
    values = values[~np.isnan(values)]
    low, high = _histogram(axis, values if len(values) else np.concatenate(drawn), False)
    margin = 0.08 * (high - low)
    grid = _grid(low - margin, high + margin, drawn, False)
    each = view.each_marginal(grid, coordinate)
    _plot_components(axis, grid, each.mean(0), _band(each, prob))


def _draw_counts(axis: Any, view: View, prob: float) -> None:
    values = np.asarray(view.values, np.int64)
    if not len(values):
        values = np.concatenate([column.values[~column.missing] for column in view.drawn]).astype(np.int64)
    grid = np.arange(values.min(), values.max() + 1)
    observed = np.array([(values == value).mean() for value in grid])
    each = view.each_curve(grid)
    _bars(axis, grid, observed, each.mean(0), _band(each, prob))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _draw_symbols(axis: Any, view: View, prob: float) -> None:
    grid = np.arange(view.n_symbols)
    observed = np.array([(view.values == code).sum() for code in grid]) / max(len(view.values), 1)
    labels = texts(view.site.node.decode(grid, view.site.learned))
    each = view.each_curve(grid)
    _labelled_bars(axis, labels, observed, each.mean(0), _band(each, prob))


def _draw_members(axis: Any, view: View, prob: float) -> None:
    """How many of the sets hold each symbol."""
    held = view.amounts(lambda column: view.encoded(column).sum(0))
    total = view.amounts(lambda column: (~column.missing).sum()).sum()
    observed = view.values.sum(0) / max(len(view.values), 1)
    _labelled_bars(axis, texts(view.site.value_dims[0].labels), observed, held / total)


def _draw_symbols_of_chains(axis: Any, view: View, prob: float) -> None:
    """Shares of the symbols of all chains together."""
    labels = texts(view.site.learned.levels)

    def counts(data: Encoded) -> np.ndarray:
        return np.bincount(np.concatenate([[], *data.arrays["codes"]]).astype(int), minlength=len(labels))

    found = view.amounts(lambda column: counts(of_chains(view, column)))
    observed = counts(view.observed)
    _labelled_bars(axis, labels, observed / max(observed.sum(), 1), found / found.sum())


def _draw_transitions(axis: Any, view: View, prob: float) -> None:
    """How often each symbol (across) follows each (down): in the data, and in each component."""
    labels = texts(view.site.learned.levels)
    size = len(labels)
    blocks = [view.observed, *[of_chains(view, column) for column in view.drawn]]
    step = size + 0.5
    for i, data in enumerate(blocks):
        pairs = data.arrays["counts"].sum(0).reshape(size, size)
        shares = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
        left = i * step - 0.5
        axis.imshow(
            shades(shares, "#555555" if i == 0 else colour(i - 1)),
            extent=(left, left + size, size - 0.5, -0.5),
            aspect="auto",
            interpolation="nearest",
        )
        axis.plot(
            [left, left + size, left + size, left, left],
            [-0.5, -0.5, size - 0.5, size - 0.5, -0.5],
            color="#BBBBBB",
            lw=0.6,
        )
    axis.set(xlim=(-0.7, len(blocks) * step - 0.8), ylim=(size - 0.4, -0.6))
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0, labelleft=True, labelsize=8)
    axis.set_yticks(range(size), labels) if size <= MOST_BARS else axis.set_yticks([])
    if size * len(blocks) <= 24 and max(map(len, labels)) <= 3:
        axis.set_xticks([i * step + s for i in range(len(blocks)) for s in range(size)], labels * len(blocks))
    else:
        axis.set_xticks([])


def _labelled_bars(axis: Any, labels: Any, observed: np.ndarray, shares: np.ndarray, band: Any = None) -> None:
    """Bars of symbols; of the most frequent ones, where there are many."""
    shown = np.sort(np.argsort(-(observed + shares.sum(1)), kind="stable")[:MOST_BARS])
    _bars(axis, np.arange(len(shown)), observed[shown], shares[shown], None if band is None else band[:, shown])
    name_symbols(axis, [labels[s] for s in shown])


def _bars(axis: Any, grid: np.ndarray, observed: np.ndarray, shares: np.ndarray, band: Any = None) -> None:
    """Wide grey bars of what was observed, and before them slim ones of the components, (n, G), on each other."""
    axis.bar(grid, observed, width=0.92, color=OBSERVED, edgecolor="white")
    base = np.zeros(len(grid))
    for k in range(shares.shape[1]):
        axis.bar(grid, shares[:, k], bottom=base, width=0.5, linewidth=0.6, **fill(k))
        base += shares[:, k]
    if band is not None:
        axis.vlines(grid, *band[:, :, 0], color=INK, linewidth=1.8)


def _band(each: np.ndarray, prob: float) -> np.ndarray | None:
    """Equal-tailed interval (2, n, 1 + G) of the mixture's and the components' curves, (T, n, G)."""
    if len(each) < 2:
        return None
    every = np.concatenate([each.sum(2, keepdims=True), each], axis=2)
    return np.asarray(np.quantile(every, [(1 - prob) / 2, (1 + prob) / 2], axis=0))


def _plot_components(axis: Any, grid: np.ndarray, curves: np.ndarray, band: np.ndarray | None = None) -> None:
    tallest, total = axis.dataLim.y1, curves.sum(1)  # of the histogram
    for k in range(curves.shape[1]):
        if band is not None:
            axis.fill_between(grid, *band[:, :, 1 + k], color=colour(k), alpha=0.35, linewidth=0)
        axis.fill_between(grid, curves[:, k], color=colour(k), alpha=0.15, linewidth=0)
        axis.plot(grid, curves[:, k], color=colour(k), linestyle=line(k), linewidth=1.6)
    if band is not None:
        axis.fill_between(grid, *band[:, :, 0], color=INK, alpha=0.2, linewidth=0)
    axis.plot(grid, total, color=INK, linewidth=1.0, alpha=0.8)
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(bottom=0)
    if tallest > 0 and total.max() > _ABOVE * tallest:  # a component on one value: the others are to be seen too
        axis.set_ylim(0, 1.5 * tallest)
        at, right = grid[total.argmax()], grid[total.argmax()] > (grid[0] + grid[-1]) / 2
        axis.annotate(
            f"↑ peak at {at:.3g} cut off",
            (at, 0.99),
            (-5 if right else 5, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=8,
            color=FAINT,
        )


def _show_missing(axis: Any, view: View) -> None:
    """Say how many cells are missing; where that is part of the model, compare with the components in a bar."""
    if view.missing:
        share = f"{view.missing:.0%}" if view.missing >= 0.005 else "< 1%"
        axis.set_title(f"{share} missing", loc="right", fontsize=8, color=FAINT)
    gone = view.amounts(lambda column: column.missing.sum())
    if gone.any():
        every = view.amounts(len).sum()
        bar = axis.inset_axes((1.03, 0, 0.05, 1))
        _bars(bar, np.zeros(1), np.array([view.missing]), gone[None] / every)
        bar.set(xlim=(-0.46, 0.46), ylim=(0, 1), xticks=[], yticks=[])
        for spine in bar.spines.values():
            spine.set_color("#BBBBBB")
