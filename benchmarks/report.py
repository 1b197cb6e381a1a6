"""The table and the plot of `docs/benchmarks` from its `results.json`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

HEAD = """# Benchmarks

Made by `make bench` ({processor}, {cores} processors, Python {python}). Every library has the same data and the same
parameters to begin with, and does the same work: an EM iteration is E-step, M-step and log-likelihood. One thread each,
unless a row says more; libraries are asked in turn, round after round, so that the machine's other work falls on all
alike. Times are medians by the wall's clock. A ratio is that of the medians, peer over bayesmix, with the smallest and
the largest of single rounds; the last column is the ratio of the processor's seconds, which other processes disturb
less. Log-likelihoods at the common start agree to 1e-9 in every row, or the row says so. What each worker runs is in
`benchmarks/workers`.

"""


def write(results: dict[str, Any], folder: Path) -> None:
    """`README.md` and `scaling.svg`."""
    found = results["experiments"]
    lines = [HEAD.format(**results["machine"])]
    lines += [
        "## Side by side",
        "",
        "| work | library | time | peak memory | ratio (min to max) | wanted | processor |",
    ]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, each in found.items():
        if not name.startswith(("rows", "components", "dimensions", "kernel", "memory", "passes")):
            lines += _rows(each)
    lines += ["", *_alone(found)]
    if _plot(found, folder / "scaling.svg"):
        lines += ["## Scaling", "", "![Seconds of an EM iteration by rows, components and dimensions](scaling.svg)", ""]
        lines += _scaling(found)
    versions = sorted({w["version"] for e in found.values() for w in e["workers"].values() if "version" in w})
    lines += ["", f"Versions: {', '.join(versions)}.", ""]
    (folder / "README.md").write_text("\n".join(lines), "utf-8")


def _rows(each: dict[str, Any]) -> list[str]:
    workers = each["workers"]
    ours = next(iter(workers))
    lines = []
    for name, values in workers.items():
        title = each["title"] if name == ours else ""
        if "steps" not in values or not values["steps"]:
            lines.append(f"| {title} | {name} | not measurable: {values.get('error', '')} | | | | |")
            continue
        title += "" if each["equal"] or name != ours else " (log-likelihoods differ!)"
        memory = f"{values['peak']:.0f} MiB"
        lines.append(f"| {title} | {name} | {_time(_median(values))} | {memory} | {_ratio(each, ours, name)} |")
        if "ess" in values["steps"][0]:
            rates = [step["ess"] / step["seconds"] for step in values["steps"]]
            rhat = max(step["rhat"] for step in values["steps"])
            own = [step["ess"] / step["seconds"] for step in workers[ours].get("steps", [])]
            ratio = f"{statistics.median(own) / statistics.median(rates):.1f}" if name != ours and own else ""
            lines.append(f"| | | {statistics.median(rates):.0f} ESS/s, R-hat {rhat:.3f} | | {ratio} | | |")
        if "iterations" in values["steps"][0] and "loglik" in values["steps"][0]:
            step = values["steps"][0]
            lines.append(f"| | | {step['iterations']} iterations to {step['loglik']:.3f} | | | | |")
        if "e_step" in values["steps"][0]:
            parts = [statistics.median(s[part] for s in values["steps"]) for part in ("e_step", "m_step", "objective")]
            lines.append("| | | E {} + M {} + prior {} | | | | |".format(*map(_time, parts)))
        if "ready" in values:
            lines.append(f"| | | ready after {values['ready']:.1f} s | | | | |")
    return lines


def _ratio(each: dict[str, Any], ours: str, name: str) -> str:
    """The last three cells of a row."""
    if name == ours or not each["workers"][ours].get("steps"):
        return "| |"
    own, peer = each["workers"][ours]["steps"], each["workers"][name]["steps"]
    rounds = [b["seconds"] / a["seconds"] for a, b in zip(own, peer)]
    ratio = _median(each["workers"][name]) / _median(each["workers"][ours])
    processor = ""
    if own[0]["processor"] is not None:
        medians = [statistics.median(step["processor"] for step in steps) for steps in (peer, own)]
        processor = f"{medians[0] / medians[1]:.1f}"
    wanted = each["goal"].get(name)
    return f"{ratio:.1f} ({min(rounds):.1f} to {max(rounds):.1f}) | {wanted or ''} | {processor}"


def _alone(found: dict[str, Any]) -> list[str]:
    lines = ["## On its own", ""]
    kernels = {name.split()[1]: each for name, each in found.items() if name.startswith("kernel")}
    if kernels:
        lines += [
            "Nanoseconds a row and component, K = 10, 10⁵ rows, beside `numpy.exp` of as many doubles. Equal rows are"
        ]
        lines += [
            "kept apart in the second and third column and taken together, as they are in a fit, in the fourth.",
            "",
        ]
        lines += ["| family | `numpy.exp` | E-step | densities alone | E-step, equal rows together | E-step / exp |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
    for family, each in kernels.items():
        if not (steps := next(iter(each["workers"].values())).get("steps")):
            continue
        exp, apart, up, together = (statistics.median(s[p] for s in steps) for p in ("exp", "apart", "up", "together"))
        lines.append(f"| {family} | {exp:.2f} | {apart:.2f} | {up:.2f} | {together:.3f} | {apart / exp:.2f} |")
    lines.append("")
    for name in ("memory", "memory composite"):
        if steps := _steps(found, name):
            step = steps[0]
            lines.append(
                f"- {name}: encoded columns {_mib(step['encoded'])}; columns and what EM's iterations hold "
                f"{_mib(step['iterations'])} ({step['iterations'] / step['encoded']:.1f}×); peak of the whole call "
                f"{_mib(step['peak'])} ({step['peak'] / step['encoded']:.1f}×)."
            )
    if steps := _steps(found, "passes"):
        step = steps[0]
        plain = step["plain"] or "more than 20,000"
        lines.append(
            f"- Passes until no entry of the gradient is above 1e-6 (two exponentials and a log-normal that overlap, "
            f"10,000 rows): {step['passes']}; plain EM {plain}."
        )
    return [*lines, ""]


def _steps(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return next(iter(found[name]["workers"].values())).get("steps", []) if name in found else []


def _curves(found: dict[str, Any], kind: str) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    points = [(int(name.split()[1]), each) for name, each in found.items() if name.startswith(kind + " ")]
    if kind == "rows" and "normal" in found:
        points.append((1_000_000, found["normal"]))
    for x, each in sorted(points, key=lambda point: point[0]):
        for worker, values in each["workers"].items():
            if values.get("steps"):
                curves.setdefault(worker, []).append((x, _median(values)))
    return curves


KINDS = {
    "rows": "rows (Normal, K = 2)",
    "components": "components (Normal, 20,000 rows)",
    "dimensions": "dimensions (MvNormal, K = 3, 20,000 rows)",
}


def _scaling(found: dict[str, Any]) -> list[str]:
    lines = []
    for kind, label in KINDS.items():
        curves = _curves(found, kind)
        xs = sorted({x for points in curves.values() for x, _ in points})
        lines += [f"| {label} | " + " | ".join(f"{x:,}" for x in xs) + " |", "| --- |" + " --- |" * len(xs)]
        for worker, points in curves.items():
            known = dict(points)
            lines.append(f"| {worker} | " + " | ".join(_time(known[x]) if x in known else "" for x in xs) + " |")
        lines.append("")
    return lines


def _plot(found: dict[str, Any], path: Path) -> bool:
    if not any(_curves(found, kind) for kind in KINDS):
        return False
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bayesmix"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharey=False)
    for axis, (kind, label) in zip(axes, KINDS.items()):
        for worker, points in _curves(found, kind).items():
            axis.loglog(*zip(*points), marker="o", label=worker, linewidth=2 if worker == "bayesmix" else 1.2)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds an EM iteration")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    return True


def _median(values: dict[str, Any]) -> float:
    return statistics.median(step["seconds"] for step in values["steps"])


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"
