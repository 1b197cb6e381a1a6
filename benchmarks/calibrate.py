"""Simulation-based calibration of every family and structure: `make calibrate`.

    python benchmarks/calibrate.py [--replications 300] [--methods nuts,advi,laplace] [--only NAME] [--out FOLDER]

For each case, tables are drawn from the default priors (fixed at a small table of the case's own) and fitted. The page
and the figure are written from `ranks.npz` beside them, which also lets a run go on where another stopped: tables come
in batches of fifty, each with a seed of its own, all cases in turn.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

import bayesmix as bm
from bayesmix.calibration import Calibration, band, joined

_rng = np.random.default_rng(2024)
_N = 30
_Z = np.repeat([0, 1], _N // 2)


def _sequences(draw: Any, n: int = 16) -> list[list]:
    return [[draw(i % 2) for _ in range(_rng.poisson(3))] for i in range(n)]


REAL = np.array([-4.0, 4.0])[_Z] + _rng.normal(size=_N)
COUNT = _rng.poisson(np.array([3.0, 15.0])[_Z])
AGE = _rng.geometric(np.array([0.6, 0.1])[_Z])
SYMBOL = np.array(["a", "b", "c"])[[_rng.choice(3, p=((0.7, 0.2, 0.1), (0.1, 0.3, 0.6))[z]) for z in _Z]]
POSITIVE = np.exp(np.array([0.0, 2.5])[_Z] + 0.4 * _rng.normal(size=_N))
SETS = [frozenset(s for s, p in zip("pqr", ((0.2, 0.8, 0.5), (0.7, 0.3, 0.5))[z]) if _rng.random() < p) for z in _Z]
VECTOR = np.array([[0.0, 0.0], [5.0, -5.0]])[_Z] + _rng.normal(size=(_N, 2))
SPIKE = np.where(_rng.random(_N) < 0.4, 3, _rng.integers(0, 6, _N))
SPIKE[:2] = 0, 5
CHAINS = _sequences(lambda z: "ab"[int(_rng.random() < (0.2, 0.7)[z])], _N)
SEQUENCES = _sequences(lambda z: float((-4.0, 4.0)[z] + _rng.normal()))
TOPICS = _sequences(lambda z: float((-5.0, 5.0)[int(_rng.random() < (0.2, 0.8)[z])] + _rng.normal()))
MAYBE = [None if _rng.random() < (0.1, 0.4)[z] else int(age) for z, age in zip(_Z, AGE)]


@dataclass(frozen=True)
class Case:
    """A spec and the table that its default priors are fixed at; tables drawn from it have as many rows."""

    name: str
    spec: Any
    data: Any
    order: str | None = None


#: Tables that a case is given at a time.
BATCH = 50
C, M = bm.Composite, bm.Mixture
CASES = [
    Case("Normal", M(bm.Normal(), 2), REAL),
    Case("MvNormal", M(bm.MvNormal(), 2), VECTOR),
    Case("LogNormal", M(bm.LogNormal(), 2), POSITIVE),
    Case("Exponential", M(bm.Exponential(), 2), POSITIVE),
    Case("Poisson", M(bm.Poisson(), 2), COUNT),
    Case("Geometric", M(bm.Geometric(), 2), AGE),
    Case("Categorical", M(bm.Categorical(), 2), SYMBOL),
    Case("Bernoulli", M(bm.Bernoulli(), 2), _Z.astype(bool)),
    Case("BernoulliSet", M(bm.BernoulliSet(), 2), SETS),
    Case("SpikeAndSlab", M(bm.SpikeAndSlab(lower=0, upper=5), 2), SPIKE),
    Case("MarkovChain", M(bm.MarkovChain(length=bm.Poisson()), 2), CHAINS),
    Case("Composite", M(C(x=bm.Normal(), y=bm.Poisson()), 3), {"x": REAL, "y": COUNT}),
    Case("Optional", M(C(x=bm.Normal(), y=bm.Optional(bm.Geometric())), 2), {"x": REAL, "y": MAYBE}),
    Case("Sequence", M(bm.Sequence(bm.Normal(), length=bm.Poisson()), 2), SEQUENCES),
    Case("Nested", M(C(x=M(bm.Normal(), 2), y=bm.Poisson()), 2), {"x": REAL, "y": COUNT}),
    Case("Hierarchical", bm.HierarchicalMixture(bm.Normal(), 2, 2, length=bm.Poisson()), TOPICS),
    Case("Joint", bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2)), {"x": REAL, "y": COUNT}),
    Case("List", M([bm.LogNormal(), bm.Exponential()]), POSITIVE),
    Case("Shared", M(bm.Normal(sigma=bm.Shared()), 2), REAL),
    Case(
        "Tied",
        M(C(x=bm.Poisson(tie="t"), y=bm.Poisson(tie="t"), z=bm.Normal()), 2),
        {"x": COUNT, "y": COUNT, "z": REAL},
    ),
    Case("Gamma", M(bm.Normal(sigma=pm.Gamma.dist(4.0, 3.0)), 2), REAL),
    Case("Ordered", M(bm.Normal(), 2), REAL, order="mu"),
]


def load(path: Path) -> dict[tuple[str, str], Calibration]:
    """What earlier runs found, by case and method."""
    found = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            for key in {name.rsplit("|", 1)[0] for name in archive.files}:
                case, method = key.split("|")
                n_rows, n_draws, divergences, n_failed = archive[f"{key}|facts"]
                frame = pd.DataFrame(archive[f"{key}|ranks"].astype(int), columns=archive[f"{key}|names"].tolist())
                failed = ("(from an earlier run)",) * int(n_failed)
                resp = archive[f"{key}|responsibilities"].astype(int)
                found[case, method] = Calibration(
                    method, int(n_rows), int(n_draws), frame, resp, failed, int(divergences)
                )
    return found


def store(path: Path, found: dict[tuple[str, str], Calibration]) -> None:
    """Keep the ranks: one byte each."""
    arrays = {}
    for (case, method), each in found.items():
        key = f"{case}|{method}"
        arrays[f"{key}|facts"] = np.array([each.n_rows, each.n_draws, each.divergences, len(each.failed)])
        arrays[f"{key}|ranks"] = each.ranks.to_numpy().astype(np.uint8)
        arrays[f"{key}|names"] = np.array(list(each.ranks.columns))
        arrays[f"{key}|responsibilities"] = each.responsibility_ranks.astype(np.uint8)
    np.savez_compressed(path, **arrays)


INTRODUCTION = """# Calibration

Written by `make calibrate` (`benchmarks/calibrate.py`). Parameters are drawn from the default priors, fixed at a small
table; rows from the parameters; and each table of rows is fitted. Where an engine's draws are from the posterior, the
true values' ranks among them are uniform (simulation-based calibration; see `bayesmix.calibrate`). A case passes where
all of its quantities, the joint log-likelihood among them, are inside bands that calibrated ranks leave once in a
hundred (Bonferroni over the case's quantities). Coverage is of central 89 % intervals, over all parameters of a case,
and over the responsibilities of all rows. Components are brought into a fixed order first, in the truth as in the
draws.

NUTS is to pass; of a hundred cases one fails by chance. `Ordered` is there as a contrast: it forces an order of means
onto components that overlap, which `fit_nuts` does not do by itself, and one chain may stay on one side of a tie. ADVI
and Laplace are approximations (corrected by importance where Pareto k allows it), with few rows and components that
overlap as often as the prior has it: their tables say how far they are from the posterior there."""


def page(found: dict[tuple[str, str], Calibration]) -> str:
    """The page with the table of every method."""
    lines = [INTRODUCTION]
    titles = {"nuts": "NUTS", "advi": "ADVI (full rank)", "laplace": "Laplace"}
    for method, title in titles.items():
        own = {case.name: found[case.name, method] for case in CASES if (case.name, method) in found}
        if not own:
            continue
        lines += ["", f"## {title}", ""]
        lines += [
            "| case | tables × rows | quantities | outside | smallest p | parameters | responsibilities | failed |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for name, each in own.items():
            table = each.table()
            resp = table["coverage"].get("responsibilities", np.nan)
            outside = [str(n) for n in table.index[table["inside"] == False]]  # noqa: E712
            lines.append(
                f"| {name} | {len(each.ranks)} × {each.n_rows} | {each.ranks.shape[1]} | {', '.join(outside) or '–'} | "
                f"{each.p_values.min():.2g} | {100 * each.coverage():.1f} % | "
                f"{'' if np.isnan(resp) else f'{100 * resp:.1f} %'} | {len(each.failed)} |"
            )
        total = sum(each.ranks.shape[1] for each in own.values())
        least = min(each.p_values.min() for each in own.values())
        passed = sum(bool((each.p_values >= 0.01 / len(each.p_values)).all()) for each in own.values())
        tables = sum(len(each.ranks) for each in own.values())
        parameters = np.mean([each.coverage() for each in own.values()])
        rows = np.mean([each.table()["coverage"].get("responsibilities", np.nan) for each in own.values()])
        lines += [
            "",
            f"{passed} of {len(own)} cases pass. Of all {total} quantities the smallest p is {least:.2g}; with "
            f"Bonferroni over all of them the limit is {0.01 / total:.2g}. Over {tables} tables 89 % intervals hold "
            f"{100 * parameters:.1f} % of the parameters and {100 * rows:.1f} % of the responsibilities.",
        ]
    lines += ["", "![ECDF of ranks minus the diagonal, NUTS, with 99 % bands](nuts.png)", ""]
    return "\n".join(lines)


def figure(found: dict[tuple[str, str], Calibration], path: Path) -> None:
    """A panel a case: how far the ranks' distribution function is from the diagonal."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    own = [(case.name, found[case.name, "nuts"]) for case in CASES if (case.name, "nuts") in found]
    if not own:
        return
    columns = 5
    height = -(-len(own) // columns)
    drawn, axes = plt.subplots(
        height, columns, figsize=(10, 1.5 * height), layout="constrained", sharex=True, squeeze=False
    )
    for axis in axes.ravel()[len(own) :]:
        axis.axis("off")
    for axis, (name, each) in zip(axes.ravel(), own):
        at = np.arange(1, each.n_draws + 1) / (each.n_draws + 1)
        lower, upper = band(len(each.ranks), each.n_draws + 1, 0.01 / each.ranks.shape[1])
        axis.fill_between(at, lower - at, upper - at, color="#DADADA", linewidth=0)
        for quantity in each.ranks:
            below = (each.ranks[quantity].to_numpy()[:, None] < np.arange(1, each.n_draws + 1)).mean(0)
            axis.plot(at, below - at, linewidth=0.6, color="#D55E00" if quantity == "log_likelihood" else "#0072B2")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
    drawn.savefig(path, dpi=90)
    plt.close(drawn)


def main() -> None:
    """Run the cases that are asked for, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replications", type=int, default=300)
    parser.add_argument("--methods", default="nuts,advi,laplace")
    parser.add_argument("--only", default="", help="names of cases, with commas between")
    parser.add_argument("--out", default="docs/calibration")
    asked = parser.parse_args()
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    found = load(out / "ranks.npz")
    names = asked.only.split(",") if asked.only else [case.name for case in CASES]
    for method in asked.methods.split(","):
        for wanted in range(BATCH, asked.replications + 1, BATCH):
            for case in CASES:
                before = found.get((case.name, method))
                if case.name not in names or (before is not None and len(before.ranks) >= wanted):
                    continue
                begin = time.perf_counter()
                each = bm.calibrate(
                    case.spec, case.data, method=method, order=case.order, replications=BATCH, random_seed=wanted
                )
                each = found[case.name, method] = each if before is None else joined([before, each])
                print(f"{case.name} ({time.perf_counter() - begin:.0f} s): {each}", flush=True)
                store(out / "ranks.npz", found)
                (out / "README.md").write_text(page(found))
    figure(found, out / "nuts.png")


if __name__ == "__main__":
    main()
