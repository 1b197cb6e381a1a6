"""Rows by their components: responsibilities, and which rows belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesmix.fit import Fit
from bayesmix.plots._looks import FAINT, INK, colour, component_legend, fill, mark, pyplot, require, short, soft, tidy

#: Components that are drawn on top of each other; of more there is a heat map.
_MOST_STACKED = 8


def plot_responsibilities(fit: Fit, data: Any = None, *, groups: Any = None, unseen: str = "error") -> tuple[Any, Any]:
    """Plot every row as a thin column whose colours are its probabilities of the components.

    Rows are sorted by their most probable component, most certain first: a sharp staircase means that the
    components are well apart, a blur that they overlap. With more than eight components, which colours and hatches no
    longer tell apart at a glance, it is a heat map: a line for each component, dark where it is probable.

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
    require("fit", fit, Fit, "a Fit")
    plt = pyplot()
    resp = fit.responsibilities(data, unseen=unseen)
    labels, names = _grouped(groups, len(resp))
    sizes = [int((labels == name).sum()) for name in names]
    figure, grid = plt.subplots(
        1, len(names), figsize=(10, 2.9), squeeze=False, sharey=True, layout="constrained", width_ratios=sizes
    )
    axes = grid.ravel()
    for axis, name, size in zip(axes, names, sizes):
        own = resp[labels == name]
        own = own[np.lexsort((-own.max(1), own.argmax(1)))]
        axis.set_xlabel(f"{name} ({size} rows)" if name else f"{size} rows", color=INK)
        tidy(axis)
        if resp.shape[1] > _MOST_STACKED:
            axis.imshow(own.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            axis.set(xticks=[], yticks=range(resp.shape[1]))
            continue
        stacked = np.vstack([np.zeros(size), own.cumsum(1).T])
        edges = np.arange(size + 1)
        for k in range(resp.shape[1]):
            axis.stairs(stacked[k + 1], edges, baseline=stacked[k], fill=True, **fill(k))
        axis.set(xlim=(0, size), ylim=(0, 1), yticks=[0, 0.5, 1], xticks=[])
    if resp.shape[1] > _MOST_STACKED:
        axes[0].set_ylabel("component (dark: probable)", color=INK)
        return figure, axes
    axes[0].set_ylabel("probability", color=INK)
    component_legend(figure, plt, resp.shape[1])
    return figure, axes


def _grouped(groups: Any, n_rows: int) -> tuple[np.ndarray, list[str]]:
    """Group of each row, and the groups in order; one without a name where there are none."""
    labels = np.full(n_rows, "") if groups is None else np.asarray(groups).astype(str)
    if labels.shape != (n_rows,):
        raise ValueError(f"groups: shape {labels.shape} for {n_rows} rows. Give one label a row.")
    return labels, np.unique(labels).tolist()


def plot_simplex(fit: Fit, data: Any = None, *, groups: Any = None, unseen: str = "error") -> tuple[Any, Any]:
    """Plot the responsibilities of three components as points in a triangle, of which each corner is a component.

    Rows in a corner are certain; those on an edge lie between two components, those in the middle between all three.
    Rows that would hide each other are moved a little; the numbers beside the corners count the rows that have the
    component with a probability above 0.9. Any other number of components: `plot_responsibilities`.

    Parameters
    ----------
    fit : Fit
        Its spec's root is a mixture of three components.
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
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([0, 1, 1, 9, 8, 11, 40, 38]), random_seed=1)
    >>> figure, axes = bm.plots.plot_simplex(fit)
    """
    require("fit", fit, Fit, "a Fit")
    resp = fit.responsibilities(data, unseen=unseen)
    if resp.shape[1] != 3:
        raise ValueError(
            f"fit: a triangle has three corners, and there are {resp.shape[1]} components. Use plot_responsibilities."
        )
    plt = pyplot()
    labels, names = _grouped(groups, len(resp))
    figure, grid = plt.subplots(
        1, len(names), figsize=(0.6 + 3.6 * len(names), 3.6), squeeze=False, layout="constrained"
    )
    axes = grid.ravel()
    for axis, name in zip(axes, names):
        own = resp[labels == name]
        _draw_triangle(axis, own)
        axis.set_title(f"{short(name)} ({len(own)} rows)" if name else f"{len(own)} rows", fontsize=10, color=INK)
    return figure, axes


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])


def _draw_triangle(axis: Any, resp: np.ndarray) -> None:
    edge = _CORNERS[[0, 1, 2, 0]]
    axis.plot(*edge.T, color=FAINT, linewidth=0.9)
    middle = _CORNERS.mean(0)
    for k in range(3):  # where two components are as probable as each other, from the middle outwards
        half = (_CORNERS[(k + 1) % 3] + _CORNERS[(k + 2) % 3]) / 2
        axis.plot(*np.array([middle, half]).T, color="#BBBBBB", linewidth=0.7, linestyle=":")
    at = resp @ _CORNERS + np.random.default_rng(0).normal(0, 0.012, (len(resp), 2))
    colours, best = soft(resp), resp.argmax(1)
    for k in np.unique(best):
        own = best == k
        axis.scatter(*at[own].T, s=18, c=colours[own], marker=mark(int(k)), alpha=0.55, linewidths=0)
    for k, (x, y) in enumerate(_CORNERS):
        text = f"component {k}\n{int((resp[:, k] > 0.9).sum())} sure"
        axis.text(x, y + (0.07 if k == 2 else -0.07), text, ha="center", va="bottom" if k == 2 else "top", fontsize=8)
    axis.set(xlim=(-0.16, 1.16), ylim=(-0.24, 1.1), aspect="equal")
    axis.axis("off")


def plot_coclustering(
    fit: Fit,
    data: Any = None,
    *,
    of: str | None = None,
    loss: str = "vi",
    n_draws: int = 400,
    random_seed: Any = 0,
    unseen: str = "error",
) -> tuple[Any, Any]:
    """Plot how probable it is that two rows belong together, with the rows ordered by the point partition.

    Dark squares along the diagonal are clusters; grey outside of them is doubt. The strip at the left has the
    colours of the clusters, of which the largest have their numbers beside them. Nothing here depends on how
    components are called, so that no posterior has to be relabelled.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        At most 5,000 rows; the training table by default.
    of : str, optional
        Which mixture; see `Fit.responsibilities`.
    loss : {"vi", "binder"}
        Of the partition; see `Fit.partition`.
    n_draws : int
        Draws of the posterior.
    random_seed : int, SeedSequence or Generator, optional
        Of the search for the partition.
    unseen : {"error", "ignore"}
        See `Fit.predict`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (1,)

    Raises
    ------
    DataError
        There are more rows.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.plots
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> figure, axes = bm.plots.plot_coclustering(fit)
    """
    require("fit", fit, Fit, "a Fit")
    together = fit.coclustering(data, of=of, n_draws=n_draws, unseen=unseen)
    partition = fit.partition(loss, data=data, of=of, n_draws=n_draws, random_seed=random_seed, unseen=unseen)
    plt = pyplot()
    names, clusters = np.unique(partition.labels, return_inverse=True)
    belonging = together @ np.eye(len(names))[clusters.ravel()] / np.bincount(clusters.ravel())
    order = np.lexsort((-belonging[np.arange(len(together)), clusters.ravel()], clusters.ravel()))
    figure, axis = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
    image = axis.imshow(together[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    size, begin = len(order), 0
    for place, count in enumerate(np.bincount(clusters.ravel()).tolist()):
        k = int(names[place])
        axis.add_patch(
            plt.Rectangle(
                (-0.5, begin - 0.5), -0.04 * size, count, clip_on=False, linewidth=0.6, **{**fill(k), "alpha": 1.0}
            )
        )
        axis.add_patch(
            plt.Rectangle((begin - 0.5, begin - 0.5), count, count, fill=False, edgecolor=colour(k), linewidth=1.1)
        )
        if count >= 0.04 * size:
            text = f"{k} ({count})"
            axis.text(-0.06 * size - 0.5, begin + count / 2 - 0.5, text, ha="right", va="center", fontsize=8, color=INK)
        begin += count
    axis.set(xticks=[], yticks=[], xlabel=f"{size} rows, by cluster")
    axis.set_title(f"{len(names)} cluster{'s' * (len(names) > 1)}", loc="left", fontsize=10, color=INK)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, ticks=[0, 0.5, 1])
    bar.set_label("probability of belonging together", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return figure, np.array([axis])
