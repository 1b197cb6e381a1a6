"""What a posterior of many rows costs on 1 to 1,000 workers: a model of time, not a measurement.

Usage: ``python benchmarks/cost_model.py [nanoseconds a row and pass] [ms of a round trip]``.

A pass takes rows / workers × time of a row, and a round trip that grows with the logarithm of the number of workers (a
tree of sums). With rows on the workers nothing is read. The time of a row is that of a mixture of three components with
three fields on one core, which this script measures; round trips are 8 ms by default, which is what two workers on one
machine take for a pass over few rows.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.inference.rows import rows_in_memory

#: Passes: EM's iterations of a start that is finished, after a sample; of Laplace (mode, Hessian of 25 parameters, k);
#: leapfrogs of NUTS (four chains of 1,000 draws, 7 steps each); of a sample's NUTS the passes on all rows.
PASSES = {"EM": 40, "online EM": 3, "Laplace": 40 + 400, "NUTS": 40 + 4 * 1000 * 7, "NUTS on a sample": 40 + 600}
#: Of which so many must wait for each other (chains run beside each other).
SERIAL = {**PASSES, "NUTS": 40 + 1000 * 7}


def nanoseconds_a_row(n: int = 400_000) -> float:
    """Measured here: one E-step of three components and three fields."""
    rng = np.random.default_rng(1)
    table = {"x": rng.normal(size=n), "y": rng.normal(size=n), "n": rng.poisson(3.0, n).astype(float)}
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Normal(), n=bm.Poisson()), 3)
    rows = rows_in_memory(prepare(spec, table, None))
    params = bm.fit_em(spec, {name: values[:5000] for name, values in table.items()}, n_starts=1, random_seed=1).params
    rows.e_step(params)
    begun = time.perf_counter()
    for _ in range(5):
        rows.e_step(params)
    return (time.perf_counter() - begun) / 5 / n * 1e9


def seconds(engine: str, n: float, workers: int, row: float, trip: float) -> float:
    """Of an engine on rows that the workers hold, each gradient a sum over all of them."""
    wait = trip * (1 + math.log2(workers)) if workers > 1 else 0.0
    return PASSES[engine] * n / workers * row + SERIAL[engine] * wait


def main(row: float, trip: float) -> None:
    """Print tables by rows and workers, and where NUTS by passes begins to pay."""
    print(f"{row * 1e9:.0f} ns a row and pass, round trip {trip * 1e3:.1f} ms\n")
    workers = (1, 10, 100, 1000)
    for n in (1e6, 1e7, 1e8, 1e9):
        print(f"{n:,.0f} rows".ljust(20) + "".join(f"{w:>12,} w" for w in workers))
        for engine in PASSES:
            print(f"  {engine:<18}" + "".join(f"{_human(seconds(engine, n, w, row, trip)):>14}" for w in workers))
    print("\nRows a worker at which a pass takes as long as its round trip (fewer: more workers do not help):")
    for w in workers[1:]:
        print(f"  {w:>5,} workers: {trip * (1 + math.log2(w)) / row:>12,.0f}")


def _human(value: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s"


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    main((given[0] if given else nanoseconds_a_row()) * 1e-9, (given[1] if len(given) > 1 else 8.0) * 1e-3)
