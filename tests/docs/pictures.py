"""The pictures that `test_images.py` compares with those in `baseline/`.

``python -m tests.docs.pictures`` draws them anew, where a change was meant: look at every one before it is committed.
Parameters are made up, not fitted, so that a picture changes only where the plot does.
"""

import dataclasses
import functools
import pathlib
import sys

import matplotlib
import numpy as np
import xarray as xr

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.data import read
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.select import Selection

BASELINE = pathlib.Path(__file__).parent / "baseline"
DPI = 42
#: Matplotlib's own defaults, its own font and nothing of the user's, and text without hinting.
STYLE = {**matplotlib.rcParamsDefault, "font.family": "DejaVu Sans", "text.hinting": "none", "backend": "agg"}


def made(spec, data, params: dict, n_draws: int = 1) -> Fit:
    """A fit with the parameters `params`; with draws around them, the same for every machine."""
    table = read(data)
    bound = bind(spec, table)
    shake = np.linspace(-0.06, 0.06, n_draws) if n_draws > 1 else np.zeros(1)
    draws = {}
    for name, value in params.items():
        value = np.asarray(value, float)
        each = np.array([value * (1 + s * (-1) ** np.arange(value.shape[-1])) for s in shake])
        if np.allclose(value.sum(-1), 1):
            each = each / each.sum(-1, keepdims=True)
        draws[name] = each[None]
    status = Status("none", True, "made up")
    return make_fit(bound, draws, table=table, encoded=bound.encode(table), row_weights=None, status=status)


RNG = np.random.default_rng(7)
GROUP = np.repeat([0, 1, 2], [30, 20, 25])
TABLE = {
    "height": RNG.normal(np.array([1.0, 3.0, 4.2])[GROUP], 0.6),
    "weight": RNG.normal(np.array([2.0, 6.0, 2.5])[GROUP], 0.8),
    "team": np.where(RNG.random(75) < np.array([0.9, 0.5, 0.1])[GROUP], "red", "blue").astype(object),
}
TABLE["weight"][:9] = np.nan
TABLE["team"][40:45] = None
SPEC = bm.Mixture(bm.Composite(height=bm.Normal(), weight=bm.Normal(), team=bm.Categorical()), 3)
PARAMS = {
    "weights": [0.4, 0.27, 0.33],
    "height_mu": [1.0, 3.0, 4.2],
    "height_sigma": [0.8, 0.8, 0.8],
    "weight_mu": [2.0, 6.0, 2.5],
    "weight_sigma": [1.1, 1.3, 1.1],
    "team_p": [[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]],
}


def three(n_draws: int = 1) -> Fit:
    """Three components with two numbers and a symbol."""
    return made(SPEC, TABLE, PARAMS, n_draws)


@functools.cache
def wide() -> Fit:
    """Two hundred fields with long names, of which every seventh has components that differ."""
    names = [f"measurement_of_the_quantity_{j}" for j in range(200)]
    x = np.random.default_rng(3).normal(0, 1, (40, 200))
    spec = bm.Mixture(bm.Composite(**{name: bm.Normal() for name in names}), 2)
    params = {"weights": [0.5, 0.5]}
    for j, name in enumerate(names):
        away = 1 + j / 100 if j % 7 == 0 else 0.0
        x[:, j] += np.where(np.arange(40) % 2, away, -away)
        params |= {f"{name}_mu": [-away, away], f"{name}_sigma": [1.0, 1.0]}
    return made(spec, {name: x[:, j] for j, name in enumerate(names)}, params)


def joint() -> Fit:
    """A joint mixture with draws."""
    spec = bm.JointMixture(x=(bm.Normal(), 3), y=(bm.Poisson(), 2))
    params = {
        "weights": [0.5, 0.3, 0.2],
        "transition": [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]],
        "x_mu": [0.0, 4.0, 8.0],
        "x_sigma": [1.0, 1.0, 1.0],
        "y_mu": [1.0, 9.0],
    }
    return made(spec, {"x": [0.0, 4.0, 8.0], "y": [1, 3, 9]}, params, 9)


def topics() -> Fit:
    """A hierarchical mixture with draws."""
    spec = bm.HierarchicalMixture(bm.Normal(), n_topics=4, n_mixtures=2)
    params = {
        "weights": [0.7, 0.3],
        "topic_weights": [[0.4, 0.3, 0.2, 0.1], [0.05, 0.05, 0.2, 0.7]],
        "topic_mu": [0.0, 2.0, 4.0, 6.0],
        "topic_sigma": [1.0, 1.0, 1.0, 1.0],
    }
    return made(spec, [[0.0, 2.0], [4.0, 6.0, 6.1]], params, 9)


def chain() -> Fit:
    """A mixture of Markov chains of three symbols."""
    params = {
        "weights": [0.6, 0.4],
        "initial": [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]],
        "transition": [
            [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]],
            [[0.02, 0.49, 0.49], [0.9, 0.05, 0.05], [0.0, 1.0, 0.0]],
        ],
    }
    return made(bm.Mixture(bm.MarkovChain(), 2), [["a", "b", "view"], ["b", "a"]], params)


def selection() -> Selection:
    """A table with a number that has no fit and one that did not converge."""
    import pandas as pd

    index = pd.Index([1, 2, 3, 4, 5], name="n_components")
    table = pd.DataFrame(
        {"bic": [210.0, 150.0, 140.0, np.nan, 155.0], "icl": [210.0, 155.0, 160.0, np.nan, 190.0]}, index
    )
    table["elpd_loo"], table["se_loo"] = [-100.0, -75.0, -68.0, np.nan, -69.0], [6.0, 5.0, 5.0, np.nan, 5.5]
    table["log_evidence"], table["se_evidence"] = np.nan, np.nan
    table["converged"] = [True, True, True, False, False]
    return Selection(table, 3, {}, "bic")


def trajectory() -> xr.Dataset:
    """The way of two means, with an objective."""
    steps = np.arange(30)
    mu = np.stack([-2 + 0.6**steps, 2 - 0.8**steps], axis=1)
    return xr.Dataset({"mu": (("iteration", "component"), mu), "objective": ("iteration", -(0.5**steps))})


def twelve() -> Fit:
    """Twelve components of one field."""
    x = np.repeat(np.arange(12.0), 6) + np.tile([-0.45, -0.3, -0.1, 0.1, 0.3, 0.45], 12)
    params = {"weights": np.full(12, 1 / 12), "mu": np.arange(12.0), "sigma": np.full(12, 0.35)}
    return made(bm.Mixture(bm.Normal(), 12), x, params)


def spike() -> Fit:
    """Half of the values are one, and a component sits on it."""
    x = np.concatenate([np.zeros(40), np.linspace(0.5, 30, 40)])
    return made(bm.Mixture(bm.Exponential(), 2), x, {"weights": [0.5, 0.5], "scale": [0.001, 12.0]})


def starts() -> Fit:
    """What sixteen starts reached, and the way of the best."""
    reached = [-100.0] * 6 + [-100.0 - 3 * k for k in range(9)]
    each = [{"objective": value, "status": "converged" if k < 9 else "stopped"} for k, value in enumerate(reached)] + [
        {"objective": -np.inf, "status": "failed: singular"}
    ]
    return dataclasses.replace(three(), history=-100 - 60 * 0.7 ** np.arange(25), starts=each)


def cases() -> dict:
    """Name -> what draws it."""
    from bayesmix import plots

    return {
        "fields": lambda: plots.plot_fields(three(9)),
        "fields_wide": lambda: plots.plot_fields(wide(), max_panels=3),
        "profiles": lambda: plots.plot_profiles(three(9)),
        "profiles_wide": lambda: plots.plot_profiles(wide(), max_rows=12),
        "pairs": lambda: plots.plot_pairs(three()),
        "responsibilities": lambda: plots.plot_responsibilities(three()),
        "responsibilities_many": lambda: plots.plot_responsibilities(twelve()),
        "fields_spike": lambda: plots.plot_fields(spike()),
        "starts": lambda: plots.plot_starts(starts()),
        "simplex": lambda: plots.plot_simplex(three()),
        "coclustering": lambda: plots.plot_coclustering(three(9)),
        "transitions": lambda: plots.plot_transitions(joint()),
        "topics": lambda: plots.plot_topics(topics()),
        "chain": lambda: plots.plot_chain(chain()),
        "model": lambda: plots.plot_model(joint()),
        "model_wide": lambda: plots.plot_model(wide(), max_fields=3),
        "selection": lambda: plots.plot_selection(selection()),
        "trajectory": lambda: plots.plot_trajectory(trajectory()),
        "imputation": lambda: plots.plot_imputation(three().impute(n_draws=50, random_seed=1)),
    }


def draw(name: str, path: pathlib.Path) -> None:
    """Draw one picture in the fixed style."""
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(STYLE):
        figure, _ = cases()[name]()
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    for each in sys.argv[1:] or cases():
        draw(each, BASELINE / f"{each}.png")
        print(f"{each}.png {(BASELINE / f'{each}.png').stat().st_size / 1000:.1f} kB")
