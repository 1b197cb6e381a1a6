"""Draw the gallery's pictures: `python docs/families/draw.py` writes an SVG for each family beside this file.

Every curve is `bayesmix.log_density` of a spec of numbers, so that a picture shows the library's own density. Pictures
are stored, not drawn at each build, so that pages show them also where nobody builds; a test draws them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import bayesmix as bm

#: Blue, orange and green of Okabe and Ito, who chose them for the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
MARKERS = ("o", "s", "^")
REAL, POSITIVE = np.linspace(-6, 12, 361), np.linspace(0.01, 8, 320)

#: Family -> what the axis is called, its values, and (label, spec) of every curve.
SPECS = {
    "Normal": ("x", REAL, [(f"mu = {m}, sigma = {s}", bm.Normal(mu=m, sigma=s)) for m, s in ((0, 1), (0, 2), (3, 1))]),
    "LogNormal": (
        "x",
        POSITIVE,
        [(f"mu = {m}, sigma = {s}", bm.LogNormal(mu=m, sigma=s)) for m, s in ((0, 0.5), (0, 1), (1, 0.3))],
    ),
    "Exponential": ("x", POSITIVE, [(f"scale = {s}", bm.Exponential(scale=s)) for s in (0.5, 1.0, 3.0)]),
    "Poisson": ("count", np.arange(16), [(f"mu = {m}", bm.Poisson(mu=m)) for m in (1.0, 4.0, 8.0)]),
    "Geometric": ("trials", np.arange(1, 13), [(f"p = {p}", bm.Geometric(p=p)) for p in (0.2, 0.5, 0.8)]),
    "SpikeAndSlab": (
        "count",
        np.arange(10),
        [(f"k = {k}, p = {p}", bm.SpikeAndSlab(k=k, p=p, lower=0, upper=9)) for k, p in ((0, 0.5), (3, 0.3))],
    ),
    "Bernoulli": ("value", np.array([False, True]), [(f"p = {p}", bm.Bernoulli(p=p)) for p in (0.2, 0.7)]),
    "Categorical": (
        "symbol",
        np.array(list("abcd"), object),
        [
            ("one", bm.Categorical(p=dict(zip("abcd", (0.1, 0.2, 0.3, 0.4))))),
            ("two", bm.Categorical(p=dict(zip("abcd", (0.7, 0.1, 0.1, 0.1))))),
        ],
    ),
}


def curves(name):
    """(label, densities at the values) of a family of numbers or symbols."""
    _, values, specs = SPECS[name]
    return [(label, np.exp(bm.log_density(spec, values))) for label, spec in specs]


def draw_values(axis, name):
    xlabel, values, _ = SPECS[name]
    smooth, ordered = values.dtype.kind == "f", values.dtype.kind in "fi"
    width = 1.6 if smooth else 0.7 if ordered else 0
    at = values if ordered else np.arange(len(values))
    for (label, density), colour, marker in zip(curves(name), COLOURS, MARKERS):
        axis.plot(at, density, color=colour, label=label, lw=width, marker="" if smooth else marker, ms=4)
    if not smooth:
        axis.set_xticks(at, [str(value) for value in values])
    axis.set(xlabel=xlabel, ylabel="density" if smooth else "probability", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8, loc="best" if not smooth else "upper right")


def draw_vectors(axis):
    covariance = [[1.0, 0.7], [0.7, 1.0]]
    x, y = np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-3, 3, 61))
    density = np.exp(
        bm.log_density(bm.MvNormal(mu=[0.0, 0.0], cov=covariance), np.column_stack([x.ravel(), y.ravel()]))
    )
    axis.contour(x, y, density.reshape(x.shape), levels=5, colors=COLOURS[0], linewidths=1)
    axis.set(xlabel="first coordinate", ylabel="second", aspect="equal")


def draw_sets(axis):
    chances = {"new": 0.8, "club": 0.3, "sale": 0.5}
    spec = bm.BernoulliSet(p=chances)
    sets = [frozenset(s for s, bit in zip(chances, f"{i:03b}") if bit == "1") for i in range(8)]
    density = np.exp(bm.log_density(spec, {"tags": sets}))
    axis.barh(range(8), density, color=COLOURS[0])
    axis.set_yticks(range(8), ["{" + ", ".join(sorted(s)) + "}" for s in sets], fontsize=8)
    axis.set(xlabel="probability")


def draw_chains(axis):
    spec = bm.MarkovChain(
        initial={"a": 0.5, "b": 0.5},
        transition={"a": {"a": 0.9, "b": 0.1}, "b": {"a": 0.4, "b": 0.6}},
        length=bm.Poisson(mu=3.0),
    )
    chains = [list(word) for word in ("aaa", "aab", "aba", "abb", "baa", "bab", "bba", "bbb")]
    density = np.exp(bm.log_density(spec, {"path": chains}))
    axis.barh(range(8), density, color=COLOURS[0])
    axis.set_yticks(range(8), [" → ".join(chain) for chain in chains], fontsize=8)
    axis.set(xlabel="probability")


OTHERS = {"MvNormal": draw_vectors, "BernoulliSet": draw_sets, "MarkovChain": draw_chains}


def main(folder: Path) -> None:
    """Write every picture into `folder`."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "bayesmix",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with plt.rc_context(settings):
        for name in (*SPECS, *OTHERS):
            figure, axis = plt.subplots(figsize=(4.6, 2.6), layout="constrained")
            OTHERS[name](axis) if name in OTHERS else draw_values(axis, name)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
