"""A mixture of normals as one writes it in PyMC: `pm.NormalMixture`, in PyTensor's numba mode; sampled by nutpie."""

from __future__ import annotations

import time

import numpy as np
import pymc as pm
from _server import serve
from pymc.blocking import DictToArrayBijection


def model_of(case):
    p, x = case["start"], case["x"]
    order = np.argsort(p["mu"])
    start = {name: p[name][order] for name in ("weights", "mu", "sigma")}
    with pm.Model() as model:
        weights = pm.Dirichlet("weights", np.full(len(order), 2.0), initval=start["weights"])
        ordered = pm.distributions.transforms.ordered
        mu = pm.Normal("mu", x.mean(), 3 * x.std(), shape=len(order), transform=ordered, initval=start["mu"])
        sigma = pm.InverseGamma("sigma", 2, x.std(), shape=len(order), initval=start["sigma"])
        pm.NormalMixture("x", weights, mu, sigma, observed=x)
    return model, start


def logp(case):
    begin = time.perf_counter()
    model, _ = model_of(case)
    function = model.logp_dlogp_function(ravel_inputs=True, mode="NUMBA")
    function.set_extra_values({})
    function._pytensor_function.trust_input = True
    start = DictToArrayBijection.map(model.initial_point())
    function(start)
    ready = time.perf_counter() - begin
    from scipy.special import logsumexp
    from scipy.stats import norm

    p = case["start"]
    loglik = logsumexp(np.log(p["weights"]) + norm.logpdf(case["x"][:, None], p["mu"], p["sigma"]), 1).sum()

    def step():
        begin, times = time.perf_counter(), 0
        while time.perf_counter() - begin < 0.1 or not times:
            function(start)
            times += 1
        return {"seconds": (time.perf_counter() - begin) / times, "processor": None}

    return step, {"version": f"PyMC {pm.__version__}", "loglik": float(loglik), "ready": ready}


def nuts(case):
    import arviz_stats as azs
    import nutpie

    seeds = iter(range(100))

    def step():
        begin, processor = time.perf_counter(), time.process_time()
        model, _ = model_of(case)
        compiled = nutpie.compile_pymc_model(model)
        sampled = nutpie.sample(
            compiled, draws=500, tune=500, chains=4, cores=1, seed=next(seeds), progress_bar=False, save_warmup=False
        )
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        posterior = sampled["posterior"].to_dataset()[["weights", "mu", "sigma"]]
        ess = min(float(v.min()) for v in azs.ess(posterior, method="bulk").data_vars.values())
        rhat = max(float(v.max()) for v in azs.rhat(posterior).data_vars.values())
        mean = float(posterior["mu"].mean(("chain", "draw")).values.sum())
        return {"seconds": seconds, "processor": processor, "ess": ess, "rhat": rhat, "mean": mean}

    return step, {"version": f"PyMC {pm.__version__} + nutpie {nutpie.__version__}"}


TASKS = {"logp": logp, "nuts": nuts}
serve(lambda case, task: TASKS[task](case))
