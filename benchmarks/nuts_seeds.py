"""NUTS from the default call over several seeds: does every chain find the right mode?

    python benchmarks/nuts_seeds.py [seeds]

Two cases: Old Faithful (MvNormal, K=2) and 20,000 rows of three Normals, on which the plain PyMC model from its
default start settles in a wrong mode with R-hat 1.00. One line a seed; the last line of each case is the worst of all.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import arviz_stats as azs
import numpy as np

import bayesmix as bm

WEIGHTS, MU, SIGMA = np.array([0.3, 0.5, 0.2]), np.array([-4.0, 0.0, 3.0]), np.array([1.0, 0.7, 1.2])


def three_normals(n_rows: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(20)
    z = rng.choice(3, n_rows, p=WEIGHTS)
    return rng.normal(MU[z], SIGMA[z])


def faithful() -> np.ndarray:
    path = Path(__file__).parents[1] / "tests" / "reference" / "faithful.json"
    rows = json.loads(path.read_text())["rows"]
    return np.array([[row["eruptions"], row["waiting"]] for row in rows])


CASES = {
    "faithful": (bm.Mixture(bm.MvNormal(), 2), faithful),
    "three normals": (bm.Mixture(bm.Normal(), 3), three_normals),
}


def one(spec, data, seed: int, mode: dict) -> dict[str, float]:
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        fit = bm.fit(spec, data, method="nuts", random_seed=seed)
    seconds = time.perf_counter() - begin
    posterior = fit.posterior
    flat = np.concatenate([np.ravel(v) for v in azs.rhat(posterior).data_vars.values()])
    ess = np.concatenate([np.ravel(v) for v in azs.ess(posterior, method="bulk").data_vars.values()])
    away = 0.0
    for name in ("weights", "mu"):
        chains = posterior[name].mean("draw").values
        sd = posterior[name].std(("chain", "draw")).values
        away = max(away, float(np.abs((chains - mode[name]) / sd).max()))
    return {
        "R-hat": float(np.nanmax(flat)),
        "bulk ESS": float(np.nanmin(ess)),
        "divergences": int(fit.idata["sample_stats"]["diverging"].sum()),
        "chains from the mode (sd)": away,
        "seconds": seconds,
    }


def main(seeds: int) -> None:
    for name, (spec, make) in CASES.items():
        data = make()
        mode = bm.fit(spec, data, random_seed=0).params
        lines = []
        for seed in range(seeds):
            lines.append(one(spec, data, seed, mode))
            print(name, seed, {key: round(value, 4) for key, value in lines[-1].items()}, flush=True)
        pick = {"bulk ESS": min}
        print(
            name,
            "worst",
            {key: round(pick.get(key, max)(line[key] for line in lines), 4) for key in lines[0]},
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
