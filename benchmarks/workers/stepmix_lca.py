"""StepMix: latent classes by EM from one given start, to convergence."""

from __future__ import annotations

import importlib.metadata

from _server import serve
from stepmix.stepmix import StepMix


def prepare(case, task):
    x = case["x"].astype(float)
    n_components = len(case["start"]["weights"])

    def step():
        model = StepMix(
            n_components, measurement="binary", n_init=1, random_state=0, max_iter=2000, abs_tol=1e-10, rel_tol=0.0,
            progress_bar=0, verbose=0,
        )  # fmt: skip
        model.fit(x)
        return {"loglik": float(model.score(x)) * len(x), "iterations": int(model.n_iter_)}

    return step, {"version": f"StepMix {importlib.metadata.version('stepmix')}"}


serve(prepare)
