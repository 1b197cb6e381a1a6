"""How a fit came about: starts, trajectories, and the choice among numbers of components."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesmix.fit import Fit
from bayesmix.plots._looks import COLOURS, INK, LINES, OBSERVED, colour, line, pyplot, require, tidy
from bayesmix.select import CRITERIA, Selection


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
    require("fit", fit, Fit, "a Fit")
    if fit.history is None:
        raise ValueError(f"fit: the engine {fit.status.engine!r} keeps no history, so there is nothing to plot.")
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    history = np.asarray(fit.history)
    axes[0].plot(np.arange(len(history)), history, color=COLOURS[0], marker="o", markersize=3)
    axes[0].set(xlabel="iteration", ylabel="objective (nats)")
    axes[0].set_title("best start", loc="left", fontsize=10, color=INK)
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
    axes[1].set_title("all starts", loc="left", fontsize=10, color=INK)
    axes[1].legend(frameon=False, fontsize=9)
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        tidy(axis)
    return figure, axes


def plot_trajectory(fit: Any, *, parameter: str | None = None) -> tuple[Any, Any]:
    """Plot the way to the mode: the objective, and where a parameter went, by iteration.

    The first panel shows how far the objective (and the log-likelihood of validation rows, if any) is below its
    best, on a scale of powers of ten: a straight line is an error that shrinks by the same factor at every step.
    The second follows one parameter of each component, or the paths of means in the plane, from the hollow mark to
    the filled one.

    Parameters
    ----------
    fit : Fit or xarray.Dataset
        A fit that kept its ``trajectory``, or the trajectory itself: parameters by name, with dims ``("iteration",
        *dims)``, and the variable ``objective``; also ``validation``, if there is one.
    parameter : str, optional
        Which one. By default the first location (``mu``), else the first parameter that is no probability.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (2,)

    Examples
    --------
    >>> import numpy as np, xarray as xr, bayesmix.plots
    >>> steps = np.arange(20)
    >>> mu = np.stack([-2 + 0.6**steps, 2 - 0.8**steps], axis=1)
    >>> trajectory = xr.Dataset({"mu": (("iteration", "component"), mu), "objective": ("iteration", -(0.7**steps))})
    >>> figure, axes = bayesmix.plots.plot_trajectory(trajectory)
    """
    require("fit", fit, (Fit, xr.Dataset), "a Fit or its trajectory")
    trajectory = fit if isinstance(fit, xr.Dataset) else fit.trajectory
    if trajectory is None:
        raise ValueError("fit: it kept no trajectory. Fit again with keep_trajectory=True, or pass a trajectory.")
    if "objective" not in trajectory or "iteration" not in trajectory.dims:
        raise ValueError("fit: a trajectory has the dim 'iteration' and the variable 'objective'.")
    names = [name for name in trajectory.data_vars if name not in ("objective", "validation")]
    if parameter is not None and parameter not in names:
        raise ValueError(
            f"parameter: {parameter!r} is not in the trajectory. Choose from {', '.join(map(str, names))}."
        )
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis in axes:
        tidy(axis)
    _draw_objective(axes[0], trajectory)
    name = parameter or next((n for n in names if str(n).split("_")[-1] == "mu"), None)
    name = name or next((n for n in names if str(n).split("_")[-1] != "weights"), names[0] if names else None)
    if name is None:
        axes[1].set_visible(False)
    else:
        _draw_path(axes[1], trajectory[name])
    return figure, axes


def _draw_objective(axis: Any, trajectory: xr.Dataset) -> None:
    """How far below its best each objective is, down to the last digits."""
    steps = np.arange(trajectory.sizes["iteration"])
    for i, name in enumerate(name for name in ("objective", "validation") if name in trajectory):
        values = trajectory[name].values.astype(float)
        gap = np.nanmax(values) - values
        shown = gap > 0
        axis.plot(steps[shown], gap[shown], color=COLOURS[i], linestyle=LINES[i], linewidth=1.6, label=name)
        best = int(np.nanargmax(values))
        if name == "validation" and best < len(steps) - 1:
            axis.axvline(best, color=COLOURS[i], linewidth=0.8, alpha=0.7)
    axis.set_yscale("log")
    axis.set(xlabel="iteration", ylabel="below its best (nats)")
    axis.set_title(
        f"objective: {float(trajectory['objective'][-1]):.6g} at the end", loc="left", fontsize=10, color=INK
    )
    if "validation" in trajectory:
        axis.legend(frameon=False, fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _draw_path(axis: Any, values: xr.DataArray) -> None:
    """One line for each number by iteration; in the plane, where the last axis holds two coordinates."""
    values = values.transpose("iteration", ...)
    planar = values.ndim > 1 and values.shape[-1] == 2 and str(values.dims[-1]).endswith("coordinate")
    lead = values.shape[1:-1] if planar else values.shape[1:]
    steps = np.arange(values.shape[0])
    for index in np.ndindex(*lead):
        k = index[0] if index else 0
        path = values.values[(slice(None), *index)]
        across, up = (path[:, 0], path[:, 1]) if planar else (steps, path)
        style = {"color": colour(k), "linestyle": line(k)}
        first = not any(index[1:])
        axis.plot(across, up, linewidth=1.6, label=f"component {k}" if lead and first else None, **style)
        if planar:
            axis.plot(across, up, ".", markersize=4, color=style["color"])
            axis.plot(across[0], up[0], "o", markersize=7, color="white", markeredgecolor=style["color"])
        axis.plot(across[-1], up[-1], "o", markersize=6, color=style["color"])
    axis.set_title(str(values.name), loc="left", fontsize=10, color=INK)
    if planar:
        known = values.dims[-1] in values.coords
        labels = values.coords[values.dims[-1]].values if known else [f"{values.name}[{d}]" for d in (0, 1)]
        axis.set(xlabel=str(labels[0]), ylabel=str(labels[1]))
    else:
        axis.set_xlabel("iteration")
        axis.xaxis.get_major_locator().set_params(integer=True)
    if lead and lead[0] > 1:
        axis.legend(frameon=False, fontsize=9)


#: Column of a selection's table, its standard error, and what the panel is called.
_CRITERIA = (
    ("bic", None, "BIC"),
    ("icl", None, "ICL"),
    ("elpd_loo", "se_loo", "leave-one-out"),
    ("log_evidence", "se_evidence", "log evidence"),
)


def plot_selection(selection: Selection) -> tuple[Any, Any]:
    """Plot the criteria by the number of components: one panel for each that the table has.

    A ring marks the number that a criterion likes best, and the grey band the number that was chosen. Hollow marks
    are fits that did not converge; numbers without a fit are crosses at the lowest value. Lines at the marks are
    two standard errors to either side.

    Parameters
    ----------
    selection : Selection
        From `bayesmix.select`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each criterion.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm, bayesmix.plots
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 60) for m in (-6, 6)])
    >>> selection = bm.select(bm.Mixture(bm.Normal(), 2), x, range(1, 4), n_starts=2, random_seed=1)
    >>> figure, axes = bm.plots.plot_selection(selection)
    >>> [axis.get_title(loc="left") for axis in axes]
    ['BIC (low is good)', 'ICL (low is good)', 'log evidence (high is good)']
    """
    require("selection", selection, Selection, "what bm.select gives")
    table = selection.table
    shown = [each for each in _CRITERIA if np.isfinite(np.asarray(table[each[0]], float)).any()]
    plt = pyplot()
    labels = ["×".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in table.index]
    width = max(2.6, 1.0 + 0.24 * len(labels))
    figure, grid = plt.subplots(
        1, len(shown), figsize=(0.5 + width * len(shown), 3.0), squeeze=False, layout="constrained"
    )
    axes = grid.ravel()
    for axis, (column, error, name) in zip(axes, shown):
        tidy(axis)
        axis.axvspan(*np.array([-0.4, 0.4]) + list(table.index).index(selection.best), color=OBSERVED, alpha=0.6, lw=0)
        high = next(good for each, good in CRITERIA.values() if each == column)
        errors = np.asarray(table[error], float) if error else np.full(len(labels), np.nan)
        _draw_criterion(axis, np.asarray(table[column], float), errors, np.asarray(table["converged"], bool), high)
        axis.set_title(f"{name} ({'high' if high else 'low'} is good)", loc="left", fontsize=10, color=INK)
        crowded = sum(map(len, labels)) > 8 * width
        axis.set_xticks(np.arange(len(labels)), labels, rotation=90 if crowded else 0)
        axis.set_xlim(-0.6, len(labels) - 0.4)
        axis.set_xlabel("components")
    return figure, axes


def _draw_criterion(axis: Any, values: np.ndarray, errors: np.ndarray, converged: np.ndarray, high: bool) -> None:
    at, there = np.arange(len(values)), np.isfinite(values)
    axis.plot(at[there], values[there], color=COLOURS[0], linewidth=1.2, zorder=1)
    known = there & np.isfinite(errors)
    if known.any():
        axis.vlines(at[known], (values - 2 * errors)[known], (values + 2 * errors)[known], color=COLOURS[0], lw=1.2)
    for which, face in ((there & converged, COLOURS[0]), (there & ~converged, "white")):
        axis.plot(at[which], values[which], "o", color=COLOURS[0], markerfacecolor=face, markersize=5)
    best = int(np.nanargmax(values if high else -values))
    axis.plot(at[best], values[best], "o", markersize=12, markerfacecolor="none", markeredgecolor=INK)
    axis.margins(y=0.12)
    if not there.all():
        axis.plot(at[~there], np.full((~there).sum(), values[there].min()), "x", color=COLOURS[5], label="no fit")
        axis.legend(frameon=False, fontsize=8)
