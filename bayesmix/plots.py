"""Plots of a fit, with matplotlib: ``import bayesmix.plots`` (needs ``pip install "bayesmix[plots]"``).

Every function returns ``(figure, axes)`` and shows nothing by itself. Components have fixed colours (Okabe and
Ito's, which colour-blind readers can tell apart) and fixed line styles (for prints without colour).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bayesmix.data import column_of
from bayesmix.errors import DataError
from bayesmix.fit import Fit
from bayesmix.impute import Imputation
from bayesmix.spec import Encoded

#: Okabe and Ito 2008, *Color Universal Design*; black is kept for totals.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "++")
_OBSERVED = "#DADADA"
_INK = "#333333"

_GRID_POINTS = 300
#: Posterior draws that a curve is the mean of.
_CURVE_DRAWS = 40
#: Distinct counts above which a field of counts is drawn as a curve.
_MOST_BARS = 30
#: Rows above which the picture of imputed cells names none of them.
_MOST_LABELS = 60
#: Draws of a component from which the densities of a vector's coordinates are smoothed.
_SMOOTHED = 3000


def plot_fields(fit: Fit, data: Any = None, *, unseen: str = "error") -> tuple[Any, Any]:
    """Plot each field as a histogram (bars for symbols and counts) with the components overlaid.

    A component's curve is its weight times its density, so that the curves add up to the dark line, the
    mixture's density. With a posterior of several draws the curves are means over draws. Fields of an inner
    mixture have that mixture summed out; coordinates of vectors have a panel each, with smoothed draws in place
    of a formula.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        Rows of the histograms; the training table by default.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each field (each coordinate of a vector), in order.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"height": [1.6, 1.7, 1.9, 1.5, 1.8], "team": ["a", "a", "b", "a", "b"]}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(height=bm.Normal(), team=bm.Categorical()), 2), table, random_seed=1)
    >>> figure, axes = bm.plots.plot_fields(fit)
    >>> [axis.get_title(loc="left") for axis in axes]
    ['height', 'team']
    """
    plt = _pyplot()
    table, encoded = fit._data(data, unseen)
    panels = [
        (leaf, block, coordinate) for leaf, block in _leaves(fit, encoded) for coordinate in _coordinates(leaf, block)
    ]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(0.4 + 3.7 * columns, 0.5 + 2.7 * lines), squeeze=False, layout="constrained"
    )
    axes = grid.ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (leaf, block, coordinate) in zip(axes, panels):
        if coordinate is not None:
            _draw_coordinate(axis, fit, leaf, block, coordinate)
        elif leaf.node.value_kind == "set":
            _draw_shares(axis, fit, leaf, block)
        elif leaf.node.value_dtype == "float64":
            _draw_curves(axis, fit, encoded, leaf, block)
        else:
            _draw_bars(axis, fit, encoded, leaf, block)
        axis.set_title(_title(leaf, coordinate, table.names[0]), loc="left", fontsize=10, color=_INK)
        _tidy(axis)
        axis.tick_params(left=False, labelleft=False)
    _legend(figure, fit, axes[: len(panels)])
    return figure, axes[: len(panels)]


def plot_responsibilities(fit: Fit, data: Any = None, *, groups: Any = None, unseen: str = "error") -> tuple[Any, Any]:
    """Plot every row as a thin column whose colours are its probabilities of the components.

    Rows are sorted by their most probable component, most certain first: a sharp staircase means that the
    components are well apart, a blur that they overlap.

    Parameters
    ----------
    fit : Fit
        Its spec's root is a mixture.
    data : table, optional
        The training table by default.
    groups : array_like, shape (N,), optional
        Labels of the rows, such as a class that the model was not shown: one panel for each.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each group.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.plots
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> figure, axes = bm.plots.plot_responsibilities(fit)
    """
    plt = _pyplot()
    resp = fit.responsibilities(data, unseen=unseen)
    labels = np.full(len(resp), "") if groups is None else np.asarray(groups).astype(str)
    if labels.shape != (len(resp),):
        raise ValueError(f"groups: shape {labels.shape} for {len(resp)} rows. Give one label a row.")
    names, sizes = np.unique(labels, return_counts=True)
    figure, grid = plt.subplots(
        1, len(names), figsize=(10, 2.9), squeeze=False, sharey=True, layout="constrained", width_ratios=sizes
    )
    axes = grid.ravel()
    for axis, name, size in zip(axes, names, sizes):
        own = resp[labels == name]
        best = own.argmax(1)
        stacked = np.vstack([np.zeros(size), own[np.lexsort((-own.max(1), best))].cumsum(1).T])
        edges = np.arange(size + 1)
        for k in range(resp.shape[1]):
            axis.stairs(stacked[k + 1], edges, baseline=stacked[k], fill=True, **_fill(k))
        axis.set(xlim=(0, size), ylim=(0, 1), yticks=[0, 0.5, 1])
        axis.set_xlabel(f"{name} ({size} rows)" if name else f"{size} rows", color=_INK)
        _tidy(axis)
        axis.set_xticks([])
    axes[0].set_ylabel("probability", color=_INK)
    _component_legend(figure, plt, resp.shape[1])
    return figure, axes


def plot_imputation(imputation: Imputation, *, prob: float = 0.89) -> tuple[Any, Any]:
    """Plot the missing cells: an interval for each number, probabilities for each symbol.

    The grey band holds the same share of the field's observed cells: an interval as wide as the band has
    learned nothing from the rest of its row.

    Parameters
    ----------
    imputation : Imputation
        From `Fit.impute`.
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
    plt = _pyplot()
    panels = list(_imputed_panels(imputation))
    if not panels:
        raise ValueError("imputation: no cell of the table is missing, so there is nothing to plot.")
    every = np.unique(np.concatenate([rows for _, _, rows, _, _ in panels]))
    figure, grid = plt.subplots(
        1,
        len(panels),
        figsize=(0.8 + 2.3 * len(panels), 1.5 + 0.26 * min(len(every), _MOST_LABELS)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    axes = grid.ravel()
    for axis, (title, draws, rows, observed, is_symbol) in zip(axes, panels):
        at = np.searchsorted(every, rows)
        if is_symbol:
            _draw_symbol_shares(axis, draws, at)
        else:
            _draw_intervals(axis, draws, at, observed, prob)
        axis.set_title(title, loc="left", fontsize=10, color=_INK)
        _tidy(axis)
        axis.tick_params(axis="y", length=0)
    if len(every) <= _MOST_LABELS:
        axes[0].set_yticks(np.arange(len(every)), [str(imputation._label(row)) for row in every])
    else:
        axes[0].set_yticks([])
    axes[0].set_ylim(len(every) - 0.4, -0.6)
    axes[0].set_ylabel("row", color=_INK)
    return figure, axes


def plot_starts(fit: Fit) -> tuple[Any, Any]:
    """Plot the objective on its way up (EM's log posterior, ADVI's bound), and what every start reached.

    Starts at one level reached the same mode. Where the best level has one start only, a higher one may have
    been missed: raise ``n_starts``.

    Parameters
    ----------
    fit : Fit
        Of an engine that keeps ``history`` and ``starts``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (2,)

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.plots
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> figure, axes = bm.plots.plot_starts(fit)
    """
    if fit.history is None:
        raise ValueError(f"fit: the engine {fit.status.engine!r} keeps no history, so there is nothing to plot.")
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    history = np.asarray(fit.history)
    axes[0].plot(np.arange(len(history)), history, color=COLOURS[0], marker="o", markersize=3)
    axes[0].set(xlabel="iteration", ylabel="objective (nats)")
    axes[0].set_title("best start", loc="left", fontsize=10, color=_INK)
    low, high = np.quantile(history, 0.1), history.max()  # the first steps are the tallest; the end is what matters
    axes[0].set_ylim(low - 0.05 * (high - low or 1.0), high + 0.08 * (high - low or 1.0))
    reached = np.array([start["objective"] for start in fit.starts], float)
    status = np.array([start["status"] for start in fit.starts])
    order = np.argsort(-np.where(np.isfinite(reached), reached, -np.inf))
    ranks = np.arange(1, len(order) + 1)
    failed = np.array([text.startswith("failed") for text in status[order]], bool)
    finished = status[order] == "converged"
    left = ~finished & ~failed
    axes[1].plot(ranks[finished], reached[order][finished], "o", color=COLOURS[0], label="converged")
    if left.any():
        style = {"color": COLOURS[0], "markerfacecolor": "white"}
        axes[1].plot(ranks[left], reached[order][left], "o", **style, label="short run only")
    if failed.any():
        bottom = reached[np.isfinite(reached)].min()
        axes[1].plot(ranks[failed], np.full(failed.sum(), bottom), "x", color=COLOURS[5], label="failed")
    axes[1].set(xlabel="start, best first", ylabel="objective reached (nats)")
    axes[1].set_title("all starts", loc="left", fontsize=10, color=_INK)
    axes[1].legend(frameon=False, fontsize=9)
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        _tidy(axis)
    return figure, axes


# ---------------------------------------------------------------- densities, without knowing any family


def _leaves(fit: Fit, encoded: Encoded) -> Iterator[tuple[Any, Encoded]]:
    """Families whose values stand one to a row, with their encoded columns."""
    for site, block in fit.bound.site.walk_with(encoded):
        if not site.children and block.n_rows == encoded.n_rows and "value" in block.arrays:
            yield site, block


def _alone(encoded: Encoded, block: Encoded, n_rows: int, arrays: Any) -> Encoded:
    """Put `arrays` in place of `block`, and make every other field missing, so that it is summed out."""
    if encoded is block:
        return Encoded(n_rows, arrays)
    return Encoded(
        n_rows,
        {name: array[:0] for name, array in encoded.arrays.items()},
        np.empty(0, int) if encoded.arrays else None,
        tuple(_alone(child, block, n_rows, arrays) for child in encoded.children),
    )


def _component_densities(fit: Fit, encoded: Encoded, leaf: Any, block: Encoded, values: np.ndarray) -> np.ndarray:
    """Weight times density of each component of the root at encoded `values` of one field, (len(values), K)."""
    column = column_of(leaf.node.decode(values, leaf.learned), leaf.place.path)
    arrays = dict(leaf.node.encode_column(column, leaf.learned))
    arrays.pop("unknown", None)
    data = _alone(encoded, block, len(values), arrays)
    total: Any = 0.0
    draws = fit._draws(_CURVE_DRAWS)
    for params in draws:
        evaluation = fit.bound.site.evaluate(params, data)
        joint = evaluation.log_density if evaluation.joint is None else evaluation.joint[:, 0, :]
        total = total + np.exp(joint)
    return total / len(draws)


# ---------------------------------------------------------------- panels


def _draw_curves(axis: Any, fit: Fit, encoded: Encoded, leaf: Any, block: Encoded) -> None:
    values = block.arrays["value"]
    axis.hist(values, bins=_bins(values), density=True, color=_OBSERVED, edgecolor="white", linewidth=0.5)
    margin = 0.08 * (np.ptp(values) or 1.0)
    grid = np.linspace(values.min() - margin, values.max() + margin, _GRID_POINTS)
    try:
        curves = _component_densities(fit, encoded, leaf, block, grid)
    except DataError:  # the margin leaves the support
        grid = np.linspace(values.min(), values.max() + margin, _GRID_POINTS)
        curves = _component_densities(fit, encoded, leaf, block, grid)
    _plot_components(axis, grid, curves)


def _draw_coordinate(axis: Any, fit: Fit, leaf: Any, block: Encoded, coordinate: int) -> None:
    from scipy.stats import gaussian_kde

    values = block.arrays["value"][:, coordinate]
    axis.hist(values, bins=_bins(values), density=True, color=_OBSERVED, edgecolor="white", linewidth=0.5)
    margin = 0.08 * (np.ptp(values) or 1.0)
    grid = np.linspace(values.min() - margin, values.max() + margin, _GRID_POINTS)
    curves = [weight * gaussian_kde(drawn[:, coordinate])(grid) for weight, drawn in _component_draws(fit, leaf)]
    _plot_components(axis, grid, np.column_stack(curves))


def _draw_shares(axis: Any, fit: Fit, leaf: Any, block: Encoded) -> None:
    """How many of the rows hold each symbol; the most frequent symbols where there are many."""
    shares = block.arrays["value"].mean(0)
    shown = np.sort(np.argsort(-shares, kind="stable")[:_MOST_BARS])
    grid = np.arange(len(shown))
    axis.bar(grid, shares[shown], width=0.92, color=_OBSERVED, edgecolor="white")
    base = np.zeros(len(grid))
    for k, (weight, drawn) in enumerate(_component_draws(fit, leaf)):
        height = weight * drawn.mean(0)[shown]
        axis.bar(grid, height, bottom=base, width=0.5, linewidth=0.6, **_fill(k))
        base += height
    axis.set_xticks(grid, [str(leaf.value_dims[0].labels[s]) for s in shown])


def _component_draws(fit: Fit, leaf: Any) -> Iterator[tuple[float, np.ndarray]]:
    """Weight of each component of the root, and draws of one field from it, (_SMOOTHED, D)."""
    rng = np.random.default_rng(0)
    site, weights = fit.bound.site, np.ones(1)
    if fit.bound.is_mixture:
        site, weights = site.children[0], fit.params[site.slots["weights"].name]
    for k, weight in enumerate(weights):
        drawn: dict[str, Any] = {}
        site.node.draw(site, fit.params, np.full(_SMOOTHED, k), rng, drawn)
        yield weight, drawn[leaf.key]


def _coordinates(leaf: Any, block: Encoded) -> Any:
    """Coordinates of vectors that have a panel each; one panel, None, for anything else."""
    return range(block.arrays["value"].shape[1]) if leaf.node.value_ndim and leaf.node.value_kind != "set" else [None]


def _bins(values: np.ndarray) -> int:
    return int(np.clip(np.sqrt(len(values)), 8, 60))


def _plot_components(axis: Any, grid: np.ndarray, curves: np.ndarray) -> None:
    for k in range(curves.shape[1]):
        colour = COLOURS[k % len(COLOURS)]
        axis.fill_between(grid, curves[:, k], color=colour, alpha=0.15, linewidth=0)
        axis.plot(grid, curves[:, k], color=colour, linestyle=LINES[k % len(LINES)], linewidth=1.6)
    axis.plot(grid, curves.sum(1), color=_INK, linewidth=1.0, alpha=0.8)
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(bottom=0)


def _draw_bars(axis: Any, fit: Fit, encoded: Encoded, leaf: Any, block: Encoded) -> None:
    values = np.asarray(block.arrays["value"], np.int64)
    symbols = leaf.node.decode(np.zeros(1, np.int64), leaf.learned).dtype == object
    grid = np.arange(0 if symbols else values.min(), values.max() + 1)
    curves = _component_densities(fit, encoded, leaf, block, grid)
    observed = np.array([(values == g).mean() for g in grid])
    axis.bar(grid, observed, width=0.92, color=_OBSERVED, edgecolor="white")
    if len(grid) > _MOST_BARS:
        _plot_components(axis, grid.astype(float), curves)
        return
    base = np.zeros(len(grid))
    for k in range(curves.shape[1]):
        axis.bar(grid, curves[:, k], bottom=base, width=0.5, linewidth=0.6, **_fill(k))
        base += curves[:, k]
    if symbols:
        axis.set_xticks(grid, [str(s) for s in leaf.node.decode(grid, leaf.learned)])
    else:
        axis.xaxis.get_major_locator().set_params(integer=True)


def _imputed_panels(imputation: Imputation) -> Iterator[tuple[str, np.ndarray, np.ndarray, Any, bool]]:
    """Title, draws (n_draws, n_missing), rows, observed numbers or None, whether symbols."""
    columns = {column.name: column for column in imputation.source.columns}
    for field, draws in imputation.draws.items():
        rows = imputation.rows[field]
        column = columns.get(field)
        usable = column is not None and column.kind == "number"
        observed = column.values[~column.missing].astype(float) if column is not None and usable else None
        if draws.ndim == 3:
            for d in range(draws.shape[2]):
                yield f"{field}[{d}]", draws[:, :, d], rows, None, False
        else:
            yield field, draws, rows, observed, imputation.kinds[field] in ("symbol", "truth", "set")


def _draw_intervals(axis: Any, draws: np.ndarray, at: np.ndarray, observed: Any, prob: float) -> None:
    tails = [(1 - prob) / 2, 0.5, (1 + prob) / 2]
    if observed is not None and len(observed):
        low, _, high = np.quantile(observed, tails)
        axis.axvspan(low, high, color=_OBSERVED, alpha=0.6, linewidth=0)
    low, middle, high = np.quantile(draws.astype(float), tails, axis=0)
    axis.hlines(at, low, high, color=COLOURS[0], linewidth=2.2)
    axis.plot(middle, at, "o", color="white", markeredgecolor=COLOURS[0], markersize=5)


def _draw_symbol_shares(axis: Any, draws: np.ndarray, at: np.ndarray) -> None:
    symbols = sorted({symbol for symbol in draws.ravel().tolist()}, key=str)
    base = np.zeros(len(at))
    for k, symbol in enumerate(symbols):
        share = (draws == symbol).mean(0)
        axis.barh(at, share, left=base, height=0.72, label=str(symbol), linewidth=0.6, **_fill(k))
        base += share
    axis.set_xlim(0, 1)
    axis.set_xlabel("probability", color=_INK)
    axis.legend(frameon=False, fontsize=8, ncols=min(3, len(symbols)), loc="lower left", bbox_to_anchor=(0, -0.22))


# ---------------------------------------------------------------- looks


def _fill(k: int) -> dict[str, Any]:
    """Colour and hatch of a component's bars."""
    return {
        "facecolor": COLOURS[k % len(COLOURS)] + "B0",
        "edgecolor": "white",
        "hatch": HATCHES[k % len(HATCHES)],
    }


def _title(leaf: Any, coordinate: int | None, only_column: str) -> str:
    name = leaf.place.path or only_column
    if coordinate is None:
        return name
    labels = leaf.value_dims[0].labels if leaf.value_dims else None
    return f"{name}[{coordinate}]" if labels is None else str(labels[coordinate])


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#999999")
    axis.tick_params(colors=_INK, labelsize=9)


def _component_legend(figure: Any, plt: Any, n_components: int) -> None:
    if n_components < 2:
        return
    handles = [plt.Rectangle((0, 0), 1, 1, label=f"component {k}", **_fill(k)) for k in range(n_components)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(n_components, 6), frameon=False, fontsize=9)


def _legend(figure: Any, fit: Fit, axes: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    n_components = len(fit.bound.site.slots["weights"].event[0]) if fit.bound.is_mixture else 1
    handles: list[Any] = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], linestyle=LINES[k % len(LINES)], label=f"component {k}")
        for k in range(n_components)
    ]
    handles += [Line2D([], [], color=_INK, linewidth=1, label="mixture"), Patch(color=_OBSERVED, label="observed")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False, fontsize=9)


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('bayesmix.plots needs matplotlib: pip install "bayesmix[plots]"') from error
    return plt
