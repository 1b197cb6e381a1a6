"""Specs as trees for a browser: nested lists that fold, in plain HTML without scripts or outside styles."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from bayesmix.params import show

_STYLE = "margin:0.1em 0;padding-left:1.4em;list-style:none;border-left:1px solid rgba(128,128,128,0.4)"


def spec_tree(node: Any) -> str:
    """A spec as a tree: a line for each node, with what it is called, its class, and the priors that were given."""
    return f'<ul style="{_STYLE};border:none;padding-left:0">{_branch("", node)}</ul>'


def _branch(name: str, node: Any) -> str:
    label = f"{html.escape(name)}: " if name else ""
    settings = _settings(node)
    head = f"{label}<b>{html.escape(type(node).__name__)}</b>"
    head += f" <code>{html.escape(settings)}</code>" if settings else ""
    parts = node.parts
    if not parts:
        return f"<li>{head}</li>"
    inside = "".join(_branch(part, child) for part, child in parts)
    opened = " open" if len(parts) <= 50 else ""
    many = f" ({len(parts)})" if len(parts) > 50 else ""
    return f'<li><details{opened}><summary>{head}{many}</summary><ul style="{_STYLE}">{inside}</ul></details></li>'


def _settings(node: Any) -> str:
    """What a node is made of besides its parts, in the words of its own code."""
    given = [f"{name}={show(prior)}" for name, prior in node.priors.items() if prior is not None]
    others = node.shown_options
    return ", ".join([*others, *given])


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A small table; every cell is escaped."""
    head = "".join(f'<th style="text-align:left">{html.escape(str(cell))}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def folded(title: str, content: str, *, opened: bool = False) -> str:
    """A part that a click opens. `content` is HTML, the title is text."""
    return f"<details{' open' if opened else ''}><summary>{html.escape(title)}</summary>{content}</details>"


#: Parameters that the table of a fit shows; the others are counted.
_MOST_LINES = 60


def fit_page(fit: Any) -> str:
    """A fit: how it ended, its parameters, and its spec."""
    sizes = fit.posterior.sizes
    n_draws = sizes["chain"] * sizes["draw"]
    what = "a point estimate" if n_draws == 1 else f"{sizes['chain']} × {sizes['draw']} draws"
    mark = "✓" if fit.status.converged else "✗"
    head = f"<p><b>{mark} {html.escape(fit.status.engine)}</b>: {html.escape(str(fit.status))}<br>"
    head += f"{what}, log-likelihood {fit.loglik:.2f} nats</p>"
    header, lines, total = _parameters(fit, n_draws)
    rest = f"<p>… and {total - len(lines)} more: <code>fit.summary()</code></p>" if total > len(lines) else ""
    parameters = folded(f"Parameters ({total})", table(header, lines) + rest, opened=total <= 20)
    return f"<div>{head}{parameters}{folded('Spec', spec_tree(fit.spec))}</div>"


def _parameters(fit: Any, n_draws: int) -> tuple[list[str], list[list[str]], int]:
    """Header and lines of the table of parameters, and how many parameters there are."""
    posterior, prob = fit.posterior, 0.89
    header = ["", "value"] if n_draws == 1 else ["", "mean", "sd", "5.5 %", "94.5 %"]
    total = sum(int(np.prod(slot.shape, dtype=int)) for slot in fit.bound.free_slots.values())
    lines: list[list[str]] = []
    for name in fit.bound.free_slots:
        array = posterior[name]
        values = array.values.reshape(n_draws, -1)
        dims = array.dims[2:]
        for i, index in enumerate(np.ndindex(*array.shape[2:])):
            if len(lines) == _MOST_LINES:
                return header, lines, total
            labels = ", ".join(str(array[dim].values[at]) for dim, at in zip(dims, index))
            column = values[:, i]
            figures = [column.mean()]
            if n_draws > 1:
                figures += [column.std(ddof=1), *np.quantile(column, [(1 - prob) / 2, (1 + prob) / 2])]
            lines.append([f"{name}[{labels}]" if labels else name, *(f"{figure:.4g}" for figure in figures)])
    return header, lines, total
