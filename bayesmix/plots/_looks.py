"""What all plots have in common: colours, line styles, hatches and marks of components, panels, legends, notes.

The colours are Okabe and Ito's, which colour-blind readers can tell apart, and each goes with a line style, a hatch and
a mark for prints without colour. There are seven of each; the second seven components have the colours again with the
next style, so that 49 combinations differ.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from bayesmix.data import texts

#: Okabe and Ito 2008, *Color Universal Design*; black is kept for totals.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "++")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
OBSERVED = "#DADADA"
INK = "#333333"
FAINT = "#777777"
#: Distinct values above which counts are drawn as a curve, and the rarer symbols left out.
MOST_BARS = 30
#: Characters of a name, of which the middle is left out beyond.
_LONGEST = 26


def colour(k: int) -> str:
    """Colour of component k."""
    return COLOURS[k % len(COLOURS)]


def _style(styles: tuple, k: int) -> Any:
    return styles[(k + k // len(COLOURS)) % len(styles)]


def line(k: int) -> Any:
    """Line style of component k."""
    return _style(LINES, k)


def mark(k: int) -> str:
    """Mark of component k."""
    return str(_style(MARKS, k))


def soft(shares: np.ndarray) -> np.ndarray:
    """Colours of rows (N, 3) that are mixed from the components' in the shares (N, K), which sum to 1."""
    return shares @ np.array([rgb(colour(k)) for k in range(shares.shape[1])])


def shades(values: np.ndarray, full: str = INK) -> np.ndarray:
    """Colours (…, 3) from white at 0 to `full` at 1."""
    return 1 - np.clip(np.asarray(values, float), 0, 1)[..., None] * (1 - np.array(rgb(full)))


def short(name: Any, longest: int = _LONGEST) -> str:
    """A name that fits beside a panel: the middle of a long one is left out."""
    text = str(name)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def say(figure: Any, text: str) -> None:
    """A note above the panels: what is left out."""
    lines = textwrap.wrap(text, int(15 * figure.get_figwidth()))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8, color=FAINT)


def title(axis: Any, text: str) -> None:
    """A panel's title."""
    axis.set_title(text, loc="left", fontsize=10, color=INK)


def chosen(names: list[str], fields: Any) -> set[str]:
    """The fields that the user asks for, in a set.

    Raises
    ------
    ValueError
        There is no such field.
    """
    wanted = [fields] if isinstance(fields, str) else list(fields)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        some = ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
        raise ValueError(f"fields: no field is called {', '.join(map(repr, unknown)) or '(none given)'}. Use {some}.")
    return set(wanted)


def fill(k: int) -> dict[str, Any]:
    """Colour and hatch of a component's bars."""
    return {
        "facecolor": colour(k) + "B0",
        "edgecolor": "white",
        "hatch": _style(HATCHES, k),
    }


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def name_symbols(axis: Any, symbols: Any) -> None:
    """Name the places 0, 1, … along the axis; slanted where the names need room."""
    names = texts(symbols)
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(np.arange(len(names)), names, **(slanted if sum(map(len, names)) > 34 else {}))


def tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#999999")
    axis.tick_params(colors=INK, labelsize=9)


def component_legend(figure: Any, plt: Any, n_components: int) -> None:
    if n_components < 2:
        return
    handles = [plt.Rectangle((0, 0), 1, 1, label=f"component {k}", **fill(k)) for k in range(n_components)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(n_components, 6), frameon=False, fontsize=9)


def legend(figure: Any, n_components: int, columns: int) -> None:
    """The components' colours as lines and as bars, the mixture and the data."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        (Patch(**fill(k)), Line2D([], [], color=colour(k), linestyle=line(k))) for k in range(n_components)
    ]
    labels = [f"component {k}" for k in range(n_components)] if n_components > 1 else ["model"]
    if n_components > 1:
        handles.append(Line2D([], [], color=INK, linewidth=1))
        labels.append("mixture")
    handles.append(Patch(color=OBSERVED))
    labels.append("observed")
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 2 + 2 * columns), frameon=False, fontsize=9
    )


def require(name: str, value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise `TypeError` where an argument is not what the plot is of."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: {what} is needed, not {type(value).__name__}.")


def pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('bayesmix.plots needs matplotlib: pip install "bayesmix[plots]"') from error
    return plt
