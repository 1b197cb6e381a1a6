"""Components side by side: their means in every field, and pairs of numbers with an ellipse for each component."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.errors import SpecError
from bayesmix.fit import Fit
from bayesmix.plots._looks import (
    FAINT,
    INK,
    OBSERVED,
    chosen,
    colour,
    fill,
    line,
    mark,
    pyplot,
    require,
    say,
    short,
    soft,
    tidy,
)
from bayesmix.plots._views import Feature, View, features, views

#: Posterior draws of the means.
_MEAN_DRAWS = 200
#: Components in one line of panels.
_ACROSS = 6
#: Rows that a pair plot draws.
_MOST_POINTS = 1500


def plot_profiles(
    fit: Fit, data: Any = None, *, fields: Any = None, max_rows: int = 30, prob: float = 0.89, unseen: str = "error"
) -> tuple[Any, Any]:
    """Plot the profile of every component: how its mean differs from that of all rows, field by field.

    Numbers, coordinates of vectors, and shares of rows that are, or hold, a symbol stand on one scale: differences in
    standard deviations of the observed values, of which 0 is the mean. Bars are the components' means (posterior
    means), dark lines their posterior intervals, where the fit has several draws, and thin lines the middle half of the
    component's own values. Components are those of the outermost mixture around the field.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        Rows that the scale is taken from; the training table by default.
    fields : str or list of str, optional
        Which ones. By default all; where they would take more than `max_rows` lines, those in which the components
        differ most: the figure says so.
    max_rows : int
    prob : float
        Mass of the posterior intervals, equal-tailed.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each component.

    Raises
    ------
    SpecError
        Different mixtures stand in different fields, so that there are no common components.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"height": [1.6, 1.7, 1.9, 1.5, 1.8], "team": ["a", "a", "b", "a", "b"]}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(height=bm.Normal(), team=bm.Categorical()), 2), table, random_seed=1)
    >>> figure, axes = bm.plots.plot_profiles(fit)
    >>> [label.get_text() for label in axes[0].get_yticklabels()]
    ['height', 'team = b']
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(max_rows=max_rows, prob=prob)
    plt = pyplot()
    table, encoded = fit._data(data, unseen)
    found = list(views(fit, encoded, _MEAN_DRAWS))
    if not fit.bound.is_mixture and any(len(view.weights) > 1 for view in found):
        raise SpecError(
            "fit: the root of the spec is not a mixture, so its fields have no components in common. "
            "Use plot_fields, or wrap the fields in one bm.Mixture."
        )
    rows, note = _chosen_features(found, table.names[0], fields, max_rows)
    n_components = len(rows[0].weights)
    across = min(n_components, _ACROSS)
    down = -(-n_components // across)
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(2.2 + 1.75 * across, down * (1.0 + 0.24 * len(rows)) + 0.5),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    axes = grid.ravel()
    for axis in axes[n_components:]:
        axis.set_visible(False)
    scaled = [_scaled(feature) for feature in rows]
    for k, axis in enumerate(axes[:n_components]):
        _draw_profile(axis, k, scaled, prob)
        weight = f" ({rows[0].weights[k]:.0%})" if n_components > 1 else ""
        axis.set_title(f"{'component ' if across < 5 else ''}{k}{weight}", loc="left", fontsize=10, color=INK)
    for axis in axes[-across - (down * across - n_components) : n_components]:
        axis.tick_params(labelbottom=True)
    axes[0].set_yticks(np.arange(len(rows)), [short(feature.name) for feature in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel("standard deviations from the mean of the rows", fontsize=9, color=INK)
    if note:
        say(figure, note)
    return figure, axes[:n_components]


def _chosen_features(found: list[View], only_column: str, fields: Any, most: int) -> tuple[list[Feature], str]:
    """What is shown, and a note on what is not."""
    if fields is not None:
        wanted = chosen([view.called(only_column) for view in found], fields)
        found = [view for view in found if view.called(only_column) in wanted]
    every = [feature for view in found for feature in features(view, only_column)]
    if fields is not None or len(every) <= most:
        return every, ""
    shown = np.sort(np.argsort([-feature.separation for feature in every], kind="stable")[:most])
    how = "those in which the components differ most" if len(every[0].weights) > 1 else "the first"
    return [every[i] for i in shown], f"{most} of {len(every)} lines: {how} (fields= chooses others)"


def _scaled(feature: Feature) -> tuple[np.ndarray, list[np.ndarray]]:
    """Means (T, G), and quartiles of the values where they are numbers, in standard deviations of what was observed."""
    values = feature.observed if len(feature.observed) else np.concatenate(feature.drawn)
    centre, scale = values.mean(), values.std() or 1.0
    quartiles = [np.quantile(own, [0.25, 0.75]) if len(own) and not feature.share else [] for own in feature.drawn]
    return (feature.expected - centre) / scale, [(np.asarray(pair) - centre) / scale for pair in quartiles]


def _draw_profile(axis: Any, k: int, scaled: list, prob: float) -> None:
    """Bars of one component's means, with their intervals and the middle half of its values."""
    tidy(axis)
    at = np.arange(len(scaled))
    axis.hlines(at, -1e3, 1e3, color="#EEEEEE", linewidth=0.6, zorder=0)
    axis.barh(at, [means[:, k].mean() for means, _ in scaled], height=0.62, linewidth=0.6, **fill(k))
    half = [(i, *quartiles[k]) for i, (_, quartiles) in enumerate(scaled) if len(quartiles[k])]
    if half:
        axis.hlines(*np.array(half).T, color=FAINT, linewidth=0.9)
    if len(scaled[0][0]) > 1:
        tails = [(1 - prob) / 2, (1 + prob) / 2]
        axis.hlines(at, *np.array([np.quantile(means[:, k], tails) for means, _ in scaled]).T, color=INK, linewidth=2.4)
    axis.axvline(0, color=INK, linewidth=0.8)
    ends = [np.abs(means.mean(0)).max() for means, _ in scaled]
    ends += [np.abs(pair).max() for _, quartiles in scaled for pair in quartiles if len(pair)]
    limit = 1.08 * max(np.nanmax(ends), 0.1)
    axis.set_xlim(-limit, limit)
    axis.tick_params(axis="y", length=0)


def plot_pairs(
    fit: Fit, data: Any = None, *, fields: Any = None, max_fields: int = 5, prob: float = 0.89, unseen: str = "error"
) -> tuple[Any, Any]:
    """Plot every pair of numbers of a row against each other, with an ellipse for each component.

    A row has the mark of its most probable component, and a colour that is mixed from the components' in the
    proportions of its responsibilities: rows in between look in between. Each ellipse has the component's mean and
    covariance, and would hold `prob` of its rows if they were normal. The diagonal has histograms, and the range that
    holds `prob` of each component's rows.

    Parameters
    ----------
    fit : Fit
        Its spec's root is a mixture, with at least two numbers (or coordinates of vectors) in a row.
    data : table, optional
        The training table by default; 1,500 of its rows, evenly spaced, where it has more.
    fields : str or list of str, optional
        Which ones. By default all numbers; of more than `max_fields` those in which the components differ most: the
        figure says so.
    max_fields : int
    prob : float
        Mass of the ellipses and ranges.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (D, D)
        Those above the diagonal are not visible.

    Raises
    ------
    SpecError
        The root of the spec is not a mixture.
    ValueError
        There are fewer than two numbers in a row.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"height": [1.6, 1.7, 1.9, 1.5, 1.8], "age": [31, 35, 60, 29, 58]}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(height=bm.Normal(), age=bm.Normal()), 2), table, random_seed=1)
    >>> figure, axes = bm.plots.plot_pairs(fit)
    >>> axes.shape
    (2, 2)
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(max_fields=max_fields, prob=prob)
    if max_fields < 2:
        raise ValueError(f"max_fields: a whole number of at least 2 is needed, not {max_fields!r}.")
    plt = pyplot()
    table, encoded = fit._data(data, unseen)
    resp = fit.responsibilities(data, unseen=unseen)
    numbers, notes = _chosen_numbers(list(views(fit, encoded)), table.names[0], len(resp), fields, max_fields)
    rows = np.unique(np.linspace(0, len(resp) - 1, min(len(resp), _MOST_POINTS)).astype(int))
    if len(rows) < len(resp):
        notes.append(f"{len(rows)} of {len(resp)} rows")
    size = len(numbers)
    figure, axes = plt.subplots(
        size, size, figsize=(1.2 + 2.1 * size, 1.2 + 1.9 * size), sharex="col", squeeze=False, layout="constrained"
    )
    for i, (name, values, drawn) in enumerate(numbers):
        for j, (_, across, drawn_across) in enumerate(numbers):
            axis = axes[i, j]
            tidy(axis)
            if j > i:
                axis.set_visible(False)
            elif i == j:
                _draw_range(axis, values, drawn, prob)
            else:
                _draw_pair(axis, across[rows], values[rows], resp[rows], drawn_across, drawn, prob)
                axis.sharey(axes[i, 0])
            if j > 0:
                axis.tick_params(labelleft=False)
        axes[-1, i].set_xlabel(short(name, 21), fontsize=9, color=INK)
        axes[i, 0].set_ylabel(short(name, 21) if i else "", fontsize=9, color=INK)
    _mark_legend(figure, resp.shape[1])
    if notes:
        say(figure, "; ".join(notes))
    return figure, axes


def _chosen_numbers(
    found: list[View], only_column: str, n_rows: int, fields: Any, most: int
) -> tuple[list[tuple[str, np.ndarray, list[np.ndarray]]], list[str]]:
    """Name, values (N,) and values in drawn rows, NaN where missing, of the numbers that are shown; and notes."""
    held = [view for view in found if _is_number(view) and view.observed.n_rows == n_rows]
    if fields is not None:
        wanted = chosen([view.called(only_column) for view in held], fields)
        held = [view for view in held if view.called(only_column) in wanted]
    every = []
    for view in held:
        rows = view.observed.full(np.asarray(view.values, float), np.nan).reshape(n_rows, -1)
        drawn = [_with_gaps(view, column) for column in view.drawn]
        for j, feature in enumerate(features(view, only_column)):
            every.append((feature.separation, (feature.name, rows[:, j], [own[:, j] for own in drawn])))
    if len(every) < 2:
        raise ValueError(f"fit: {len(every)} number in a row, and a pair plot needs two. Use plot_fields.")
    if fields is not None or len(every) <= most:
        return [number for _, number in every], []
    shown = np.sort(np.argsort([-score for score, _ in every], kind="stable")[:most])
    return [every[i][1] for i in shown], [
        f"{most} of {len(every)} numbers: those in which the components differ most (fields= chooses others)"
    ]


def _is_number(view: View) -> bool:
    return "[]" not in view.name and view.site.node.value_kind not in ("symbol", "truth", "set", "chain")


def _with_gaps(view: View, column: Any) -> np.ndarray:
    """Numbers of drawn rows, (n, D), NaN where a cell is missing."""
    present = view.encoded(column).astype(float)
    values = np.full((len(column), *present.shape[1:]), np.nan)
    values[~column.missing] = present
    return values.reshape(len(column), -1)


def _draw_range(axis: Any, values: np.ndarray, drawn: list[np.ndarray], prob: float) -> None:
    """Histogram, and under it the range of each component."""
    seen = values[~np.isnan(values)]
    if len(seen):
        bins = int(np.clip(1.5 * np.sqrt(len(seen)), 8, 40))
        axis.hist(seen, bins=bins, color=OBSERVED, edgecolor="white", linewidth=0.5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    below = axis.get_ylim()[1] * 0.07
    for k, own in enumerate(drawn):
        own = own[~np.isnan(own)]
        if len(own):
            low, middle, high = np.quantile(own, [(1 - prob) / 2, 0.5, (1 + prob) / 2])
            axis.plot([low, high], [-below * (k + 1)] * 2, color=colour(k), linestyle=line(k), linewidth=1.6)
            axis.plot([middle], [-below * (k + 1)], mark(k), color=colour(k), markersize=4)
    axis.set_ylim(bottom=-below * (len(drawn) + 1))


def _draw_pair(
    axis: Any,
    x: np.ndarray,
    y: np.ndarray,
    resp: np.ndarray,
    drawn_x: list[np.ndarray],
    drawn_y: list[np.ndarray],
    prob: float,
) -> None:
    """Rows in soft colours, and the components' ellipses."""
    colours, best = soft(resp), resp.argmax(1)
    there = ~np.isnan(x) & ~np.isnan(y)
    size = 14 if there.sum() < 400 else 7
    for k in np.unique(best[there]):
        own = there & (best == k)
        axis.scatter(x[own], y[own], s=size, c=colours[own], marker=mark(int(k)), alpha=0.55, linewidths=0)
    for k, (own_x, own_y) in enumerate(zip(drawn_x, drawn_y)):
        both = ~np.isnan(own_x) & ~np.isnan(own_y)
        if both.sum() > 2:
            outline = _ellipse(own_x[both], own_y[both], prob)
            axis.plot(*outline, color="white", linewidth=3.0, alpha=0.8)
            axis.plot(*outline, color=colour(k), linestyle=line(k), linewidth=1.6)


def _ellipse(x: np.ndarray, y: np.ndarray, prob: float) -> np.ndarray:
    """Outline (2, n) of the ellipse that holds `prob` of a normal distribution with the points' moments."""
    values, vectors = np.linalg.eigh(np.cov(x, y))
    radius = np.sqrt(-2 * np.log1p(-prob))  # chi-square with two degrees of freedom
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.array([np.cos(angle), np.sin(angle)])
    return np.asarray(
        np.array([[x.mean()], [y.mean()]]) + radius * vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
    )


def _mark_legend(figure: Any, n_components: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour(k), linestyle=line(k), marker=mark(k), markersize=5, label=f"component {k}")
        for k in range(n_components)
    ]
    if n_components > 1:
        columns = min(n_components, max(2, round(figure.get_figwidth() / 1.5)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
