"""Sets of a large vocabulary, and categories of many levels: memory beside what is not zero.

Usage: ``python benchmarks/sparse.py [rows] [symbols] [symbols a set]`` (100,000, 100,000 and 20 by default: about three
minutes). Memory is the process's peak above what the table itself takes, in MB, for each step.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import bayesmix as bm
from bayesmix.data import read


def _memory(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` (its peak) of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measured(what: str, call: Callable[[], Any]) -> Any:
    """Run a step, and print its seconds and its peak above where it began."""
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = _memory("VmRSS"), time.perf_counter()
    found = call()
    print(f"{what:<44}{time.perf_counter() - begun:8.1f} s{_memory('VmHWM') - before:9.0f} MB", flush=True)
    return found


def sets(n_rows: int, n_symbols: int, per_set: int, rng: np.random.Generator) -> tuple[list[list[int]], np.ndarray]:
    """Sets of two groups, half of whose symbols come from a tenth of the vocabulary that is their group's own."""
    group = rng.integers(2, size=n_rows)
    tenth = n_symbols // 10
    own = group[:, None] * tenth + rng.integers(tenth, size=(n_rows, per_set // 2))
    cells = np.hstack([own, rng.integers(n_symbols, size=(n_rows, per_set - per_set // 2))])
    return [list(set(row)) for row in cells.tolist()], group


def main(n_rows: int, n_symbols: int, per_set: int) -> None:
    """Print the table."""
    rng = np.random.default_rng(1)
    bm.fit(bm.Mixture(bm.BernoulliSet(), 2), [{"a"}, {"b"}] * 20, n_starts=2, random_seed=1)  # what is compiled once
    cells, group = sets(n_rows, n_symbols, per_set, rng)
    entries = sum(map(len, cells))
    print(f"{n_rows:,} sets of {n_symbols:,} symbols: {entries:,} entries, {12e-6 * entries:.0f} MB as compressed rows")
    print(f"parameters: {2 * n_symbols * 8e-6:.1f} MB; the matrix would take {n_rows * n_symbols * 8e-6:,.0f} MB\n")
    spec = bm.Mixture(bm.BernoulliSet(), 2)
    bound = measured("learn", lambda: bm.bound.bind(spec, read(cells)))
    value = measured("encode", partial(bound.encode, cells)).arrays["value"]
    print(f"{'  kept':<44}{'':10}{value.nbytes / 1e6:9.0f} MB")
    del value
    fit = measured("fit_em, 4 starts", lambda: bm.fit_em(spec, cells, n_starts=4, max_iter=100, random_seed=1))
    print(f"  {fit.status}")
    labels = measured("predict", fit.predict)
    print(f"  rows in their own group: {max(np.mean(labels == group), np.mean(labels != group)):.4f}")
    measured("summary", lambda: fit.summary(var_names=["weights"]))
    measured("describe", lambda: fit.describe())
    with tempfile.TemporaryDirectory() as folder:
        measured("save", lambda: fit.save(f"{folder}/fit.zip"))
        measured("load", lambda: bm.load(f"{folder}/fit.zip"))
    del fit

    codes = rng.integers(n_symbols // 2, size=10 * n_rows) + n_symbols // 2 * (
        height := rng.integers(2, size=10 * n_rows)
    )
    table = {"height": rng.normal(4.0 * height), "code": codes}
    print(f"\n{10 * n_rows:,} rows of {n_symbols:,} categories and a number: {16e-6 * 10 * n_rows:.0f} MB as codes")
    spec = bm.Mixture(bm.Composite(height=bm.Normal(), code=bm.Categorical()), 2)
    fit = measured("fit_em, 4 starts", lambda: bm.fit_em(spec, table, n_starts=4, max_iter=100, random_seed=1))
    print(f"  {fit.status}")
    measured("predict", fit.predict)
    measured("describe", lambda: fit.describe())
    with tempfile.TemporaryDirectory() as folder:
        measured("save", lambda: fit.save(f"{folder}/fit.zip"))
        measured("load", lambda: bm.load(f"{folder}/fit.zip"))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(100_000, 100_000, 20)[len(given) :])
