"""Plots of a fit, with matplotlib: ``import bayesmix.plots`` (needs ``pip install "bayesmix[plots]"``).

Every function returns ``(figure, axes)`` and shows nothing by itself. Components have fixed colours (Okabe and
Ito's, which colour-blind readers can tell apart) and fixed line styles (for prints without colour).

No plot knows a family or a structure. Densities are those of the tree at rows in which all but one field is missing,
and everything else is read from rows that are drawn from one component and encoded as if they were data: whatever is
counted in the observed rows is counted in the drawn ones too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from bayesmix.data import Column, Table, column_of
from bayesmix.errors import DataError
from bayesmix.fit import Fit
from bayesmix.impute import Imputation
from bayesmix.params import Params
from bayesmix.spec import Encoded, Readers, Site
from bayesmix.structure.sequence import Ragged, cells

#: Okabe and Ito 2008, *Color Universal Design*; black is kept for totals.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "++")
_OBSERVED = "#DADADA"
_INK = "#333333"
_FAINT = "#777777"

_GRID_POINTS = 300
#: Times that the steep parts of a curve are halved.
_REFINEMENTS = 12
#: Posterior draws that a curve is the mean of.
_CURVE_DRAWS = 40
#: Distinct values above which counts are drawn as a curve, and the rarer symbols left out.
_MOST_BARS = 30
#: Rows above which the picture of imputed cells names none of them.
_MOST_LABELS = 60
#: Rows drawn from each component, and the elements of their sequences at most.
_DRAWN_ROWS = 4000
_DRAWN_ELEMENTS = 80_000


def plot_fields(fit: Fit, data: Any = None, *, unseen: str = "error") -> tuple[Any, Any]:
    """Plot each field as a histogram (bars for symbols and counts) with the components overlaid.

    A component's curve is its weight times its density, so that the curves add up to the dark line, the
    mixture's density. With a posterior of several draws the curves are means over draws. Components are those of the
    outermost mixture around the field; mixtures further in are summed out.

    ==================  ==================================================================================
    field               panels
    ==================  ==================================================================================
    number              histogram and curves; bars for counts
    vector              one for each coordinate, with smoothed draws in place of a formula
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
    plt = _pyplot()
    table, encoded = fit._data(data, unseen)
    views = list(_views(fit, encoded))
    panels = [(title, view, draw) for view in views for title, draw in _panels(view, table.names[0])]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    width = 1.5 + 3.7 * columns if columns == 1 else 0.4 + 3.7 * columns
    figure, grid = plt.subplots(lines, columns, figsize=(width, 0.6 + 2.6 * lines), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = grid.ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, view, draw) in zip(axes, panels):
        _tidy(axis)
        axis.tick_params(left=False, labelleft=False)
        draw(axis, view)
        axis.set_title(title, loc="left", fontsize=10, color=_INK)
        _show_missing(axis, view)
    _legend(figure, max(len(view.weights) for view in views), columns)
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
    learned nothing from the rest of its row. Of missing sequences the lengths are shown, of sets how probable each
    symbol is in them (the darker, the more).

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
    panels = list(_imputed_panels(imputation, prob))
    if not panels:
        raise ValueError("imputation: no cell of the table is missing, so there is nothing to plot.")
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
    for axis, (title, cells_of_field, draw) in zip(axes, panels):
        axis.set_title(title, loc="left", fontsize=10, color=_INK)
        _tidy(axis)
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
    trajectory = fit if isinstance(fit, xr.Dataset) else getattr(fit, "trajectory", None)
    if trajectory is None:
        raise ValueError("fit: it kept no trajectory. Fit again with keep_trajectory=True, or pass a trajectory.")
    if "objective" not in trajectory or "iteration" not in trajectory.dims:
        raise ValueError("fit: a trajectory has the dim 'iteration' and the variable 'objective'.")
    names = [name for name in trajectory.data_vars if name not in ("objective", "validation")]
    if parameter is not None and parameter not in names:
        raise ValueError(
            f"parameter: {parameter!r} is not in the trajectory. Choose from {', '.join(map(str, names))}."
        )
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis in axes:
        _tidy(axis)
    _draw_objective(axes[0], trajectory)
    name = parameter or next((n for n in names if str(n).split("_")[-1] == "mu"), None)
    name = name or next((n for n in names if str(n).split("_")[-1] != "weights"), names[0] if names else None)
    if name is None:
        axes[1].set_visible(False)
    else:
        _draw_path(axes[1], trajectory[name])
    return figure, axes


# ---------------------------------------------------------------- fields, without knowing any family or structure


@dataclass(frozen=True)
class _View:
    """One field: its values in the data, and in rows drawn from each component.

    Attributes
    ----------
    name : str
        The field's path; elements of a sequence are called ``path[]``.
    site : Site
        Of the family (the first of them, where components have different ones).
    observed : Encoded
    drawn : list of Column
        The user's own values, from `n_drawn` rows of each of the G components.
    weights : ndarray, shape (G,)
        Of the components among rows.
    joint : callable
        Weight times density of each component, (n, G), at n of the user's own values.
    """

    name: str
    site: Site
    observed: Encoded
    drawn: list[Column]
    n_drawn: int
    weights: np.ndarray
    joint: Callable[[np.ndarray], np.ndarray]

    @property
    def values(self) -> np.ndarray:
        """Encoded values of the cells that are present."""
        return self.observed.arrays["value"]

    @property
    def missing(self) -> float:
        """Share of missing cells."""
        return len(self.observed.missing_rows()) / max(self.observed.n_rows, 1)

    def amounts(self, of: Callable[[Column], Any]) -> np.ndarray:
        """What each component adds to a row's expected amount of something, (..., G)."""
        return np.stack([of(column) for column in self.drawn], axis=-1) / self.n_drawn * self.weights

    def curves(self, values: np.ndarray) -> np.ndarray:
        """Density of each component times its share of the field's values, (n, G), at encoded `values`."""
        present = np.array([(~column.missing).sum() for column in self.drawn]) / self.n_drawn
        return self.joint(self.site.node.decode(values, self.site.learned)) * present / (self.weights @ present)

    def encoded(self, column: Column) -> np.ndarray:
        """Encoded values of a drawn column's cells that are present."""
        return np.asarray(self.site.node.encode_column(column, self.site.learned)["value"])[~column.missing]


def _views(fit: Fit, encoded: Encoded) -> Iterator[_View]:
    """Every field, in order."""
    params, draws = fit.params, fit._draws(_CURVE_DRAWS)
    for root in _outermost(_Spot(fit.bound.site, encoded)):
        weights = root.site.values(params)["weights"][0] if root.is_mixture else np.ones(1)
        size = _affordable(root)
        drawn = [_drawn(root, params, k, size) for k in range(len(weights))]
        seen = set()
        for i, spot in enumerate(root.fields()):
            if spot.name not in seen:  # different components have a place each for one field
                seen.add(spot.name)
                joint = partial(_joint, root, spot.name, draws)
                yield _View(spot.name, spot.site, spot.data, [columns[i] for columns in drawn], size, weights, joint)


@dataclass(frozen=True)
class _Spot:
    """A site with its part of the data, and what the panels call it.

    `around` is the path of the innermost sequence that it is an element of, and `called` what the elements are called.
    """

    site: Site
    data: Encoded
    around: str = ""
    called: str = ""

    @property
    def name(self) -> str:
        return self.called + self.site.place.path[len(self.around) :]

    @property
    def is_mixture(self) -> bool:
        return "weights" in self.site.slots

    def below(self) -> list[_Spot]:
        """The children."""
        found = []
        for i, (site, data) in enumerate(zip(self.site.children, self.site.node.child_data(self.data))):
            element = i == 0 and isinstance(self.data, Ragged) and data is not self.data
            found.append(
                _Spot(site, data, self.site.place.path, f"{self.name}[]")
                if element
                else replace(self, site=site, data=data)
            )
        return found

    def fields(self) -> Iterator[_Spot]:
        """What has values of its own, in order."""
        if self.site.node.value_kind:
            yield self
        for child in self.below():
            yield from child.fields()


def _outermost(spot: _Spot) -> Iterator[_Spot]:
    """The outermost mixtures, and what is outside of them: the outermost nodes that have parameters."""
    if spot.site.slots:
        yield spot
    else:
        for child in spot.below():
            yield from _outermost(child)


def _affordable(root: _Spot) -> int:
    """Rows to draw from a component, fewer where sequences are long."""
    lengths = [data.arrays["length"].sum() for _, data in root.site.walk_with(root.data) if "length" in data.arrays]
    longest = max(lengths, default=0) / max(root.data.n_rows, 1)
    return int(np.clip(_DRAWN_ELEMENTS / max(longest, 1), 50, _DRAWN_ROWS))


def _drawn(root: _Spot, params: Params, k: int, size: int) -> list[Column]:
    """Columns of `root.fields()` in rows drawn from component k, read as if they were data."""
    site = root.site
    if root.is_mixture:
        slot = site.slots["weights"]
        params = {**params, slot.name: np.eye(len(slot.event[0]))[k]}
    values = site.draw(params, np.zeros(size, int), np.random.default_rng(0), {})
    column = column_of(cells(site.node, values), site.place.path or "x")
    readers: Readers = {}
    site.node.read(Table((column,), False, size), site.place, readers)
    tied = {key: iter(columns) for key, (_, columns) in readers.items()}
    return [next(tied[spot.site.key]) for spot in root.fields()]


def _joint(root: _Spot, name: str, draws: list, values: np.ndarray) -> np.ndarray:
    """Weight times density of each component of `root` at values of one field, (len(values), G), all else summed out.

    The mean over draws of the parameters.
    """
    data = _alone(root, name, column_of(values, name))
    total: Any = 0.0
    for params in draws:
        evaluation = root.site.evaluate(params, data)
        total = total + np.exp(evaluation.log_density if evaluation.joint is None else evaluation.joint[:, 0])
    return total / len(draws)


def _alone(spot: _Spot, name: str, column: Column) -> Encoded:
    """Rows that have one field only; all others are missing."""
    size = len(column)
    if spot.site.is_leaf and spot.name == name:
        arrays = dict(spot.site.node.encode_column(column, spot.site.learned))
        arrays.pop("unknown", None)
        return Encoded(size, arrays)
    below = spot.below()
    children = tuple(_alone(child, name, column) for child in below)
    if below and below[0].data is spot.data:
        return children[0]
    if isinstance(spot.data, Ragged) and name.startswith(f"{spot.name}[]"):
        return Ragged(size, {"length": np.ones(size, int)}, None, children)  # rows of one element each
    return replace(spot.data.blank(size), children=children)


# ---------------------------------------------------------------- panels

_Draw = Callable[[Any, _View], None]


def _panels(view: _View, only_column: str) -> list[tuple[str, _Draw]]:
    """Title of each panel of a field, and what draws it."""
    name = view.name if view.name.strip("[]") else f"{only_column}{view.name}"
    kind = view.site.node.value_kind
    if kind == "chain":
        return [(name, _draw_symbols_of_chains), (f"{name}: next symbol", _draw_transitions)]
    if kind == "set":
        return [(name, _draw_members)]
    if view.site.node.value_ndim:
        labels = [str(label) for label in view.site.value_dims[0].labels]
        unnamed = {f"{view.site.place.path}[{d}]": f"{name}[{d}]" for d in range(len(labels))}
        titles = [unnamed.get(label, label) for label in labels]
        return [(title, partial(_draw_coordinate, coordinate=d)) for d, title in enumerate(titles)]
    if kind in ("symbol", "truth"):
        return [(name, _draw_symbols)]
    if view.site.node.value_dtype == "float64" or _span(view.values) > _MOST_BARS:
        return [(name, _draw_curves)]
    return [(name, _draw_counts)]


def _span(values: np.ndarray) -> float:
    return float(np.ptp(values)) if len(values) else 0.0


def _draw_curves(axis: Any, view: _View) -> None:
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
    _plot_components(axis, grid, curves)


def _histogram(axis: Any, values: np.ndarray, whole: bool) -> tuple[float, float]:
    """Draw it, and give the ends of the values."""
    low, high = float(values.min()), float(values.max())
    n_bins = int(np.clip(1.5 * np.sqrt(len(values)), 8, 60))
    bins: Any = n_bins
    if whole:
        width = max(int(np.ceil((high - low + 1) / n_bins)), 1)
        bins = np.arange(low - 0.5, high + width + 0.5, width)
    axis.hist(values, bins=bins, density=True, color=_OBSERVED, edgecolor="white", linewidth=0.5)
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


def _draw_coordinate(axis: Any, view: _View, coordinate: int) -> None:
    from scipy.stats import gaussian_kde

    drawn = [view.encoded(column)[:, coordinate] for column in view.drawn]
    values = view.values[:, coordinate]
    values = values[~np.isnan(values)]
    low, high = _histogram(axis, values if len(values) else np.concatenate(drawn), False)
    grid = np.linspace(low - 0.08 * (high - low), high + 0.08 * (high - low), _GRID_POINTS)
    present = view.amounts(lambda column: (~column.missing).sum())
    each = [gaussian_kde(own[:_DRAWN_ROWS])(grid) if len(own) > 1 else np.zeros(len(grid)) for own in drawn]
    _plot_components(axis, grid, np.column_stack(each) * present / present.sum())


def _draw_counts(axis: Any, view: _View) -> None:
    values = np.asarray(view.values, np.int64)
    if not len(values):
        values = np.concatenate([column.values[~column.missing] for column in view.drawn]).astype(np.int64)
    grid = np.arange(values.min(), values.max() + 1)
    observed = np.array([(values == value).mean() for value in grid])
    _bars(axis, grid, observed, view.curves(grid))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _draw_symbols(axis: Any, view: _View) -> None:
    top = max(int(codes.max(initial=0)) for codes in (view.values, *map(view.encoded, view.drawn)))
    grid = np.arange(top + 1)
    observed = np.array([(view.values == code).sum() for code in grid]) / max(len(view.values), 1)
    labels = view.site.node.decode(grid, view.site.learned).tolist()
    _labelled_bars(axis, labels, observed, view.curves(grid))


def _draw_members(axis: Any, view: _View) -> None:
    """How many of the sets hold each symbol."""
    held = view.amounts(lambda column: view.encoded(column).sum(0))
    total = view.amounts(lambda column: (~column.missing).sum()).sum()
    observed = view.values.sum(0) / max(len(view.values), 1)
    _labelled_bars(axis, view.site.value_dims[0].labels, observed, held / total)


def _draw_symbols_of_chains(axis: Any, view: _View) -> None:
    """Shares of the symbols of all chains together."""
    labels = view.site.learned.levels

    def counts(data: Encoded) -> np.ndarray:
        return np.bincount(np.concatenate([[], *data.arrays["codes"]]).astype(int), minlength=len(labels))

    found = view.amounts(lambda column: counts(_of_chains(view, column)))
    observed = counts(view.observed)
    _labelled_bars(axis, labels, observed / max(observed.sum(), 1), found / found.sum())


def _draw_transitions(axis: Any, view: _View) -> None:
    """How often each symbol (across) follows each (down): in the data, and in each component."""
    labels = [str(level) for level in view.site.learned.levels]
    size = len(labels)
    blocks = [view.observed, *[_of_chains(view, column) for column in view.drawn]]
    step = size + 0.5
    for i, data in enumerate(blocks):
        pairs = data.arrays["counts"].sum(0).reshape(size, size)
        shares = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
        shade = np.array(_rgb("#555555" if i == 0 else COLOURS[(i - 1) % len(COLOURS)]))
        left = i * step - 0.5
        axis.imshow(
            1 - shares[:, :, None] * (1 - shade),
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
    axis.set_yticks(range(size), labels) if size <= _MOST_BARS else axis.set_yticks([])
    if size * len(blocks) <= 24 and max(map(len, labels)) <= 3:
        axis.set_xticks([i * step + s for i in range(len(blocks)) for s in range(size)], labels * len(blocks))
    else:
        axis.set_xticks([])


def _of_chains(view: _View, column: Column) -> Encoded:
    return view.site.encode(Table((column,), False, len(column)), "ignore")


def _labelled_bars(axis: Any, labels: Any, observed: np.ndarray, shares: np.ndarray) -> None:
    """Bars of symbols; of the most frequent ones, where there are many."""
    shown = np.sort(np.argsort(-(observed + shares.sum(1)), kind="stable")[:_MOST_BARS])
    _bars(axis, np.arange(len(shown)), observed[shown], shares[shown])
    _name_symbols(axis, [labels[s] for s in shown])


def _bars(axis: Any, grid: np.ndarray, observed: np.ndarray, shares: np.ndarray) -> None:
    """Wide grey bars of what was observed, and before them slim ones of the components, (n, G), on each other."""
    axis.bar(grid, observed, width=0.92, color=_OBSERVED, edgecolor="white")
    base = np.zeros(len(grid))
    for k in range(shares.shape[1]):
        axis.bar(grid, shares[:, k], bottom=base, width=0.5, linewidth=0.6, **_fill(k))
        base += shares[:, k]


def _plot_components(axis: Any, grid: np.ndarray, curves: np.ndarray) -> None:
    for k in range(curves.shape[1]):
        colour = COLOURS[k % len(COLOURS)]
        axis.fill_between(grid, curves[:, k], color=colour, alpha=0.15, linewidth=0)
        axis.plot(grid, curves[:, k], color=colour, linestyle=LINES[k % len(LINES)], linewidth=1.6)
    axis.plot(grid, curves.sum(1), color=_INK, linewidth=1.0, alpha=0.8)
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(bottom=0)


def _show_missing(axis: Any, view: _View) -> None:
    """Say how many cells are missing; where that is part of the model, compare with the components in a bar."""
    if view.missing:
        share = f"{view.missing:.0%}" if view.missing >= 0.005 else "< 1%"
        axis.set_title(f"{share} missing", loc="right", fontsize=8, color=_FAINT)
    gone = view.amounts(lambda column: column.missing.sum())
    if gone.any():
        every = view.amounts(len).sum()
        bar = axis.inset_axes((1.03, 0, 0.05, 1))
        _bars(bar, np.zeros(1), np.array([view.missing]), gone[None] / every)
        bar.set(xlim=(-0.46, 0.46), ylim=(0, 1), xticks=[], yticks=[])
        for spine in bar.spines.values():
            spine.set_color("#BBBBBB")


# ---------------------------------------------------------------- missing cells


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
        axis.axvspan(low, high, color=_OBSERVED, alpha=0.6, linewidth=0)
    low, middle, high = np.quantile(draws.astype(float), tails, axis=0)
    axis.hlines(at, low, high, color=COLOURS[0], linewidth=2.2)
    axis.plot(middle, at, "o", color="white", markeredgecolor=COLOURS[0], markersize=5)


def _draw_symbol_shares(axis: Any, at: np.ndarray, *, draws: np.ndarray) -> None:
    """Bars from 0 to 1; the rarest symbols together, where there are more than colours."""
    counts = Counter(draws.ravel().tolist())
    frequent = [symbol for symbol, _ in counts.most_common(len(COLOURS) if len(counts) <= len(COLOURS) else 6)]
    base = np.zeros(len(at))
    for k, symbol in enumerate(sorted(frequent, key=str)):
        share = (draws == symbol).mean(0)
        axis.barh(at, share, left=base, height=0.72, label=str(symbol), linewidth=0.6, **_fill(k))
        base += share
    if len(frequent) < len(counts):
        axis.barh(at, 1 - base, left=base, height=0.72, label="others", color=_OBSERVED)
    axis.set_xlim(0, 1)
    axis.set_xlabel("probability", color=_INK)
    axis.legend(
        frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4.2,
        handlelength=1.2, columnspacing=0.8, handletextpad=0.4,
    )  # fmt: skip


def _draw_memberships(axis: Any, at: np.ndarray, *, draws: np.ndarray) -> None:
    """How probable each symbol is in each set, as shades."""
    counts = Counter(symbol for drawn in draws.ravel().tolist() for symbol in drawn)
    symbols = sorted((symbol for symbol, _ in counts.most_common(_MOST_BARS)), key=str)
    for j, symbol in enumerate(symbols):
        share = np.array([[symbol in drawn for drawn in row] for row in draws.tolist()]).mean(0)
        shades = [(*_rgb(COLOURS[0]), each) for each in share]
        axis.barh(at, 0.94, left=j - 0.47, height=0.86, color=shades, edgecolor="#CCCCCC", linewidth=0.5)
    _name_symbols(axis, symbols)


# ---------------------------------------------------------------- trajectories


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
        f"objective: {float(trajectory['objective'][-1]):.6g} at the end", loc="left", fontsize=10, color=_INK
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
        line = values.values[(slice(None), *index)]
        across, up = (line[:, 0], line[:, 1]) if planar else (steps, line)
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)]}
        first = not any(index[1:])
        axis.plot(across, up, linewidth=1.6, label=f"component {k}" if lead and first else None, **style)
        if planar:
            axis.plot(across, up, ".", markersize=4, color=style["color"])
            axis.plot(across[0], up[0], "o", markersize=7, color="white", markeredgecolor=style["color"])
        axis.plot(across[-1], up[-1], "o", markersize=6, color=style["color"])
    axis.set_title(str(values.name), loc="left", fontsize=10, color=_INK)
    if planar:
        known = values.dims[-1] in values.coords
        labels = values.coords[values.dims[-1]].values if known else [f"{values.name}[{d}]" for d in (0, 1)]
        axis.set(xlabel=str(labels[0]), ylabel=str(labels[1]))
    else:
        axis.set_xlabel("iteration")
        axis.xaxis.get_major_locator().set_params(integer=True)
    if lead and lead[0] > 1:
        axis.legend(frameon=False, fontsize=9)


# ---------------------------------------------------------------- looks


def _fill(k: int) -> dict[str, Any]:
    """Colour and hatch of a component's bars."""
    return {
        "facecolor": COLOURS[k % len(COLOURS)] + "B0",
        "edgecolor": "white",
        "hatch": HATCHES[k % len(HATCHES)],
    }


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _name_symbols(axis: Any, symbols: Any) -> None:
    """Name the places 0, 1, … along the axis; slanted where the names need room."""
    names = [str(symbol) for symbol in symbols]
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(np.arange(len(names)), names, **(slanted if sum(map(len, names)) > 34 else {}))


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


def _legend(figure: Any, n_components: int, columns: int) -> None:
    """The components' colours as lines and as bars, the mixture and the data."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        (Patch(**_fill(k)), Line2D([], [], color=COLOURS[k % len(COLOURS)], linestyle=LINES[k % len(LINES)]))
        for k in range(n_components)
    ]
    labels = [f"component {k}" for k in range(n_components)] if n_components > 1 else ["model"]
    if n_components > 1:
        handles.append(Line2D([], [], color=_INK, linewidth=1))
        labels.append("mixture")
    handles.append(Patch(color=_OBSERVED))
    labels.append("observed")
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 2 + 2 * columns), frameon=False, fontsize=9
    )


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('bayesmix.plots needs matplotlib: pip install "bayesmix[plots]"') from error
    return plt
