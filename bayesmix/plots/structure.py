"""The model: its tree, and what a fit says of mixtures that share their components and of Markov chains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesmix import arguments
from bayesmix.data import texts
from bayesmix.errors import SpecError
from bayesmix.fit import Fit
from bayesmix.params import Dim, show
from bayesmix.plots._looks import (
    COLOURS,
    FAINT,
    INK,
    MOST_BARS,
    colour,
    fill,
    pyplot,
    require,
    say,
    shades,
    short,
    tidy,
)
from bayesmix.spec import Node, Site

#: Posterior draws of the parameters.
_DRAWS = 400
#: Cells of a matrix above which no numbers are written in.
_MOST_NUMBERS = 100
#: Panels at most.
_MOST_PANELS = 24


# ---------------------------------------------------------------- mixtures whose components are shared


def plot_transitions(fit: Fit, *, of: str | None = None, prob: float = 0.89) -> tuple[Any, Any]:
    """Plot the transition matrix of a joint mixture: which component of the second field goes with one of the first.

    A line is a component of the first field, its share of the rows the bar at the left; the shades along it are the
    probabilities of the second field's components, and add up to 1. Small numbers are posterior intervals, where the
    fit has several draws.

    Parameters
    ----------
    fit : Fit
        Of a `JointMixture`, or of a mixture with another one inside whose components are shared (``shared=True``).
    of : str, optional
        Which mixture, where there are several: the second field, or the name of its weights.
    prob : float
        Mass of the intervals, equal-tailed.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (2,)
        The shares, and the matrix.

    Raises
    ------
    SpecError
        There is no such mixture.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> table = {"x": [0.1, 0.2, 5.0, 5.1, 0.3, 5.2], "y": [1, 0, 9, 8, 1, 11]}
    >>> spec = bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2))
    >>> figure, axes = bm.plots.plot_transitions(bm.fit(spec, table, random_seed=1))
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(prob=prob)
    site = _linked(fit, of, below_sequence=False)
    each, weights = _linked_weights(fit, site)
    outer, inner = _names(site.slots["weights"].axes), _names(site.slots["weights"].event)
    plt = pyplot()
    n_outer, n_inner = each.shape[1:]
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(2.4 + min(0.75 * n_inner, 9.0), 1.3 + min(0.5 * n_outer, 9.0)),
        width_ratios=[1.2, max(0.75 * n_inner, 1.2)],
        sharey=True,
        layout="constrained",
    )
    at = np.arange(n_outer)
    for k in range(n_outer):
        axes[0].barh(k, weights[k], height=0.86, linewidth=0.6, **fill(k))
    tidy(axes[0])
    axes[0].set(xlabel="share", ylabel=_called(site.slots["weights"].axes))
    axes[0].set_yticks(at, outer)
    axes[0].tick_params(axis="y", length=0)
    means = each.mean(0)
    axes[1].imshow(shades(means, COLOURS[0]), aspect="auto", interpolation="nearest")
    if means.size <= _MOST_NUMBERS:
        tails = np.quantile(each, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        for k, m in np.ndindex(*means.shape):
            ink = "white" if means[k, m] > 0.55 else INK
            many = len(each) > 1
            axes[1].text(m, k - 0.12 * many, f"{means[k, m]:.2f}", ha="center", va="center", fontsize=9, color=ink)
            if many:
                text = f"{tails[0, k, m]:.2f}–{tails[1, k, m]:.2f}"
                axes[1].text(m, k + 0.22, text, ha="center", va="center", fontsize=6.5, color=ink)
    axes[1].set_xticks(np.arange(n_inner), inner)
    axes[1].tick_params(length=0, labelsize=9, colors=INK, labelleft=False)
    for spine in axes[1].spines.values():
        spine.set_color("#BBBBBB")
    axes[1].set_xlabel(_called(site.slots["weights"].event))
    axes[0].set_ylim(n_outer - 0.5, -0.5)
    return figure, axes


def plot_topics(fit: Fit, *, of: str | None = None, prob: float = 0.89) -> tuple[Any, Any]:
    """Plot the topic weights of a hierarchical mixture: one panel for each kind of sequences, a bar for each topic.

    Lines on the bars are posterior intervals, where the fit has several draws. Of more than 30 topics those with the
    largest weights are shown, of more than 24 kinds the most frequent: the figure says so.

    Parameters
    ----------
    fit : Fit
        Of a `HierarchicalMixture`, or of a mixture of sequences of a mixture with ``shared=True``.
    of : str, optional
        Which mixture, where there are several: the field, or the name of the weights (``"topic_weights"``).
    prob : float
        Mass of the intervals, equal-tailed.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each kind.

    Raises
    ------
    SpecError
        There is no such mixture.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> rows = [[0.1, 5.2, 0.3], [5.0, 5.1, 4.9], [0.2, 0.1], [5.3, 4.8], [0.0, 0.4, 0.2]]
    >>> fit = bm.fit(bm.HierarchicalMixture(bm.Normal(), n_topics=2, n_mixtures=2), rows, random_seed=1)
    >>> figure, axes = bm.plots.plot_topics(fit)
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(prob=prob)
    site = _linked(fit, of, below_sequence=True)
    each, weights = _linked_weights(fit, site)
    slot = site.slots["weights"]
    kinds, topics = _names(slot.axes), _names(slot.event)
    means = each.mean(0)
    panels = np.sort(np.argsort(-weights, kind="stable")[:_MOST_PANELS])
    shown = np.sort(np.argsort(-means.max(0), kind="stable")[:MOST_BARS])
    plt = pyplot()
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    width = float(np.clip(0.3 * len(shown), 1.6, 4.5))
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(0.7 + width * across, 0.7 + 1.7 * down),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    axes = grid.ravel()
    tails = np.quantile(each, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    for axis, m in zip(axes, panels):
        tidy(axis)
        for place, t in enumerate(shown):
            axis.bar(place, means[m, t], width=0.8, linewidth=0.6, **fill(t))
        if len(each) > 1:
            axis.vlines(np.arange(len(shown)), *tails[:, m, shown], color=INK, linewidth=1.8)
        axis.set_title(f"{_called(slot.axes)} {short(kinds[m])} ({weights[m]:.0%})", loc="left", fontsize=10, color=INK)
        axis.set_xticks(np.arange(len(shown)), [topics[t] for t in shown], fontsize=9 if len(shown) <= 12 else 6)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    axes[0].set_ylim(0, min(1.0, 1.08 * float(tails[1].max())))
    figure.supxlabel(_called(slot.event), fontsize=9, color=INK)
    figure.supylabel("weight", fontsize=9, color=INK)
    notes = [f"{len(shown)} of {len(topics)} topics: those with the largest weights"] * (len(shown) < len(topics))
    notes += [f"{len(panels)} of {len(kinds)} kinds: the most frequent"] * (len(panels) < len(kinds))
    if notes:
        say(figure, "; ".join(notes))
    return figure, axes[: len(panels)]


def _linked(fit: Fit, of: str | None, below_sequence: bool) -> Site:
    """The mixture whose weights depend on a component around it, and whose components do not."""
    found = {
        (site.place.path, site.slots["weights"].name): site
        for site in fit.bound.site.walk()
        if "weights" in site.slots and set(site.slots["weights"].axes) - set(site.children[0].axes)
    }
    fitting = {key: site for key, site in found.items() if (site.place.level > 0) == below_sequence}
    if of is not None:
        fitting = {key: site for key, site in fitting.items() if of in key}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if fitting:
        raise SpecError(f"of: which mixture? Pass one of {', '.join(repr(name) for _, name in fitting)}.")
    kind, other = ("HierarchicalMixture", "plot_transitions") if below_sequence else ("JointMixture", "plot_topics")
    instead = f" Use {other} for {', '.join(repr(name) for _, name in found)}." if found else " Use plot_fields."
    what = f"mixture {of!r}" if of else "mixture"
    raise SpecError(f"fit: no {what} here shares its components as in bm.{kind}.{instead}")


def _linked_weights(fit: Fit, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Weights at draws of the parameters, (T, K, M), and how frequent each of the K components around is."""
    slot = site.slots["weights"]
    each = np.array([slot.components(params[slot.name]) for params in fit._draws(_DRAWS)])
    shares, params = np.ones(1), fit.params
    for axis in slot.axes:
        around = next(s for s in fit.bound.site.walk() if "weights" in s.slots and axis in s.slots["weights"].event)
        own = around.slots["weights"].components(params[around.slots["weights"].name])
        shares = (shares[:, None] * own).ravel() if len(own) in (1, len(shares)) else np.outer(shares, own[0]).ravel()
    return each, shares


def _names(axes: tuple[Dim, ...]) -> list[str]:
    """Names of the components along flattened axes."""
    found = [""]
    for axis in axes:
        found = [f"{first}, {label}" if first else str(label) for first in found for label in axis.labels]
    return found


def _called(axes: tuple[Dim, ...]) -> str:
    return ", ".join(axis.name for axis in axes)


# ---------------------------------------------------------------- Markov chains


def plot_chain(fit: Fit, *, of: str | None = None, max_states: int = 10, min_prob: float = 0.05) -> tuple[Any, Any]:
    """Plot the Markov chains of a fit as graphs: symbols as nodes, probabilities of the next symbol as arrows.

    One panel for each component. The larger a node, the larger its symbol's share in the long run, from the chain's own
    beginning; the width of an arrow is its probability (a posterior mean), which is written beside it where there are
    few. A ring at a node is the probability of staying.

    Parameters
    ----------
    fit : Fit
        Of a spec with a `MarkovChain`.
    of : str, optional
        Which field, where there are several.
    max_states : int
        Of more symbols the most frequent are shown: the figure says so.
    min_prob : float
        Arrows that are less probable are left out: the figure says so.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes
        One for each component, of more than 24 the first.

    Raises
    ------
    SpecError
        There is no such field, or there are several.

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> rows = [list("aababab"), list("bbbbab"), list("ababaa"), list("bbbbbb")]
    >>> fit = bm.fit(bm.Mixture(bm.MarkovChain(), 2), rows, random_seed=1)
    >>> figure, axes = bm.plots.plot_chain(fit)
    """
    require("fit", fit, Fit, "a Fit")
    arguments.check(max_states=max_states, min_prob=min_prob)
    site = _chain(fit, of)
    draws = fit._draws(_DRAWS)
    values = [site.values(params) for params in draws]
    initial, transition = (np.mean([each[name] for each in values], axis=0) for name in ("initial", "transition"))
    long_run = np.array([_long_run(*each) for each in zip(initial, transition)])
    symbols = texts(site.learned.levels)
    shown = np.sort(np.argsort(-long_run.sum(0), kind="stable")[:max_states])
    panels = min(len(transition), _MOST_PANELS)
    plt = pyplot()
    across = min(4, panels)
    down = -(-panels // across)
    figure, grid = plt.subplots(down, across, figsize=(3.3 * across, 3.4 * down), squeeze=False, layout="constrained")
    axes = grid.ravel()
    names = _names(site.slots["transition"].axes)
    for k, axis in enumerate(axes):
        axis.set_visible(k < panels)
        axis.axis("off")
        if k < panels:
            own = transition[k][np.ix_(shown, shown)]
            _draw_graph(axis, [symbols[s] for s in shown], own, long_run[k, shown], colour(k), min_prob)
            if names[k]:
                axis.set_title(f"component {names[k]}", loc="left", fontsize=10, color=INK)
    notes = [f"{len(shown)} of {len(symbols)} symbols: the most frequent"] * (len(shown) < len(symbols))
    few = int((transition[:panels][:, shown][:, :, shown] < min_prob).sum())
    notes += [f"arrows below {min_prob:g} are left out"] * (few > 0)
    notes += [f"{panels} of {len(transition)} components"] * (panels < len(transition))
    if notes:
        say(figure, "; ".join(notes))
    return figure, axes[:panels]


def _chain(fit: Fit, of: str | None) -> Site:
    found = {site.place.path: site for site in fit.bound.site.walk() if site.node.value_kind == "chain"}
    fitting = found if of is None else {path: site for path, site in found.items() if path == of}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    where = ", ".join(repr(path) for path in found)
    if not found:
        raise SpecError("fit: no field is a Markov chain. Use plot_fields, or give a field bm.MarkovChain().")
    what = "which chain?" if of is None else f"no chain is called {of!r}."
    raise SpecError(f"of: {what} {f'Pass one of {where}.' if len(found) > 1 else 'There is one only: leave of= out.'}")


def _long_run(initial: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Shares of the symbols in the long run (S,); of the lazy chain, which has a limit where the chain alternates."""
    step = (transition + np.eye(len(transition))) / 2
    return np.asarray(initial @ np.linalg.matrix_power(step, 2**20))


def _draw_graph(
    axis: Any, symbols: list[str], transition: np.ndarray, share: np.ndarray, own: str, min_prob: float
) -> None:
    """Symbols on a circle, and the arrows between them."""
    from matplotlib.patches import Circle, FancyArrowPatch

    size = len(symbols)
    angle = np.pi / 2 - 2 * np.pi * np.arange(size) / max(size, 1)
    at = np.column_stack([np.cos(angle), np.sin(angle)]) if size > 1 else np.zeros((1, 2))
    largest, least = 0.26 if size <= 6 else 0.2, 0.17 if max(map(len, symbols)) > 2 else 0.11
    radius = least + (largest - least) * share / max(share.max(), 1e-12)
    written = size <= 5
    for i, j in np.ndindex(size, size):
        p = transition[i, j]
        if p < min_prob:
            continue
        width = 0.4 + 3.6 * p
        if i == j:
            out = at[i] / max(np.hypot(*at[i]), 1e-9) if size > 1 else np.array([0.0, 1.0])
            ring = at[i] + out * (radius[i] + 0.07)
            axis.add_patch(Circle(ring, 0.11, fill=False, edgecolor=own, linewidth=width, alpha=0.75, zorder=1))
            place = at[i] + out * (radius[i] + 0.27)
        else:
            way = (at[j] - at[i]) / np.hypot(*(at[j] - at[i]))
            begin, end = at[i] + way * radius[i], at[j] - way * (radius[j] + 0.03)
            axis.add_patch(
                FancyArrowPatch(
                    begin,
                    end,
                    connectionstyle="arc3,rad=0.22",
                    arrowstyle=f"-|>,head_length={3 + 4 * p:.2f},head_width={1.5 + 2 * p:.2f}",
                    color=own,
                    linewidth=width,
                    alpha=0.75,
                    shrinkA=0,
                    shrinkB=0,
                    zorder=1,
                )
            )
            place = (begin + end) / 2 + 0.17 * np.hypot(*(end - begin)) * np.array([way[1], -way[0]])
        if written:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
            axis.text(*place, f"{p:.2f}", fontsize=7.5, ha="center", va="center", color=INK, bbox=box, zorder=3)
    for (x, y), r, symbol in zip(at, radius, symbols):
        axis.add_patch(Circle((x, y), r, facecolor="white", edgecolor=own, linewidth=1.6, zorder=2))
        text = short(symbol, 7)
        axis.text(x, y, text, ha="center", va="center", fontsize=9 if len(text) <= 2 else 6.5, color=INK, zorder=4)
    axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")


# ---------------------------------------------------------------- the tree


@dataclass
class _Box:
    """A node as it is drawn: its lines of text, its children, and where it stands (inches, from the top)."""

    heading: str
    lines: list[str]
    style: str
    children: list[_Box] = field(default_factory=list)
    depth: int = 0
    y: float = 0.0

    @property
    def height(self) -> float:
        return 0.30 + 0.16 * len(self.lines)

    @property
    def width(self) -> float:
        return 0.25 + max(0.085 * len(self.heading), *(0.068 * len(line) for line in self.lines), 0.5)


def plot_model(model: Any, *, max_fields: int = 12) -> tuple[Any, Any]:
    """Plot the tree of a spec, with the parameters of each node.

    Mixtures have a heavy frame, families a plain white one, other structure a grey one. Of a fit, parameters have
    their names in ``fit.posterior`` and their dims; of a spec, the family's names, with the priors that were given. The
    graph of the PyMC model with all its variables is another picture: ``pymc.model_to_graphviz(bm.build_model(spec,
    data))``, which needs Graphviz.

    Parameters
    ----------
    model : Fit or Node
        A fit, or a spec.
    max_fields : int
        Children of one node that are drawn; the others are counted in a box of their own.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (1,)

    Examples
    --------
    >>> import bayesmix as bm, bayesmix.plots
    >>> spec = bm.Mixture(bm.Composite(height=bm.Normal(), team=bm.Categorical()), 2)
    >>> figure, axes = bm.plots.plot_model(spec)
    """
    arguments.check(max_fields=max_fields)
    if isinstance(model, Fit):
        root = _box_of_site("", model.bound.site, max_fields)
    elif isinstance(model, Node):
        root = _box_of_node("", model, max_fields)
    else:
        raise TypeError(f"model: a Fit or a spec is needed, not {type(model).__name__}.")
    plt = pyplot()
    below = _place(root, 0, 0.1)
    boxes = list(_walk(root))
    depths = range(1 + max(box.depth for box in boxes))
    widths = [max(box.width for box in boxes if box.depth == depth) for depth in depths]
    left = np.concatenate([[0.1], 0.1 + np.cumsum(np.array(widths) + 0.45)])
    figure, axis = plt.subplots(figsize=(left[-1] - 0.3, below + 0.1))
    axis.set_position((0, 0, 1, 1))
    axis.set(xlim=(0, left[-1] - 0.3), ylim=(below + 0.1, 0))
    axis.axis("off")
    for box in boxes:
        _draw_box(axis, box, left, widths)
    return figure, np.array([axis])


def _box_of_site(name: str, site: Site, most: int) -> _Box:
    lines = []
    for slot in site.slots.values():
        dims = f" ({', '.join(slot.dims)})" if slot.dims else ""
        lines.append(f"{short(slot.name)}{dims}{', fixed' if slot.kind == 'fixed' else ''}")
    parts = [part for part, _ in site.node.parts]
    names = parts if len(parts) == len(site.children) else [""] * len(site.children)
    children = [(site.node, child, each) for child, each in zip(site.children, names)]
    some, rest = _split([child.node for _, child, _ in children], most)
    boxes = [_box_of_site(each, child, most) for _, child, each in children[:some]]
    return _Box(_heading(name, site.node), _some(lines), _style(site.node), boxes + rest)


def _box_of_node(name: str, node: Node, most: int) -> _Box:
    lines = [each if given is None else f"{each} = {show(given)}" for each, given in node.priors.items()]
    some, rest = _split([child for _, child in node.parts], most)
    boxes = [_box_of_node(part, child, most) for part, child in node.parts[:some]]
    return _Box(_heading(name, node), _some(lines), _style(node), boxes + rest)


def _some(lines: list[str]) -> list[str]:
    return [line if len(line) <= 64 else line[:63] + "…" for line in lines]


def _split(nodes: list[Node], most: int) -> tuple[int, list[_Box]]:
    """How many children are drawn, and a box for the others."""
    if len(nodes) <= max(most, 1):
        return len(nodes), []
    rest = Counter(type(node).__name__ for node in nodes[most:])
    lines = [f"{count} × {kind}" for kind, count in rest.most_common(5)]
    lines += [f"and {len(rest) - 5} other kinds"] if len(rest) > 5 else []
    return most, [_Box(f"… {len(nodes) - most} more", lines, "rest")]


def _heading(name: str, node: Node) -> str:
    number = getattr(node, "n_components", None)
    kind = type(node).__name__ + (f" of {number}" if number is not None else "")
    return f"{short(name)}: {kind}" if name else kind


def _style(node: Node) -> str:
    return "family" if not node.parts or node.is_family else "mixture" if "weights" in node.priors else "structure"


def _walk(box: _Box) -> Any:
    yield box
    for child in box.children:
        yield from _walk(child)


def _place(box: _Box, depth: int, top: float) -> float:
    """Give the boxes their places from `top` down; where the next may begin."""
    box.depth, end = depth, top
    for child in box.children:
        end = _place(child, depth + 1, end)
    box.y = (box.children[0].y + box.children[-1].y) / 2 if box.children else top + box.height / 2
    box.y = max(box.y, top + box.height / 2)
    return max(end, box.y + box.height / 2 + 0.12)


def _draw_box(axis: Any, box: _Box, left: np.ndarray, widths: list[float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, width = left[box.depth], box.width
    looks: dict[str, Any] = {
        "mixture": {"facecolor": "#E4EFF7", "edgecolor": COLOURS[0], "linewidth": 2.0},
        "structure": {"facecolor": "#F0F0F0", "edgecolor": "#999999", "linewidth": 1.0},
        "family": {"facecolor": "white", "edgecolor": INK, "linewidth": 1.0},
        "rest": {"facecolor": "white", "edgecolor": "#999999", "linewidth": 1.0, "linestyle": "--"},
    }[box.style]
    axis.add_patch(
        FancyBboxPatch(
            (x, box.y - box.height / 2), width, box.height, boxstyle="round,pad=0,rounding_size=0.06", zorder=2, **looks
        )
    )
    top = box.y - box.height / 2 + 0.15
    axis.text(x + 0.1, top, box.heading, fontsize=9, color=INK, va="center", zorder=3)
    for i, text in enumerate(box.lines):
        axis.text(x + 0.1, top + 0.16 * (i + 1), text, fontsize=7.5, color=FAINT, va="center", zorder=3)
    for child in box.children:
        bend = left[child.depth] - 0.22
        axis.plot([x + width, bend, bend, left[child.depth]], [box.y, box.y, child.y, child.y], color="#999999", lw=0.9)
