"""The same mixture of normals in numpyro on the processor, sampled by its own NUTS."""

from __future__ import annotations

import time

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from _server import serve
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import initialize_model

numpyro.enable_x64()


def mixture(x, n_components):
    weights = numpyro.sample("weights", dist.Dirichlet(np.full(n_components, 2.0)))
    mu = numpyro.sample(
        "mu",
        dist.TransformedDistribution(
            dist.Normal(x.mean(), 3 * x.std()).expand([n_components]).to_event(1),
            dist.transforms.OrderedTransform(),
        ),
    )
    sigma = numpyro.sample("sigma", dist.InverseGamma(2, x.std()).expand([n_components]).to_event(1))
    parts = dist.Normal(mu, sigma)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(probs=weights), parts), obs=x)


def start_of(case):
    order = np.argsort(case["start"]["mu"])
    return {name: np.asarray(case["start"][name])[order] for name in ("weights", "mu", "sigma")}


def logp(case):
    begin = time.perf_counter()
    start, x = start_of(case), np.asarray(case["x"])
    info = initialize_model(
        jax.random.PRNGKey(0), mixture, model_args=(x, len(start["mu"])), init_strategy=init_to_value(values=start)
    )
    function = jax.jit(jax.value_and_grad(info.potential_fn))
    point = info.param_info.z
    jax.block_until_ready(function(point))
    ready = time.perf_counter() - begin

    def step():
        begin, times = time.perf_counter(), 0
        while time.perf_counter() - begin < 0.1 or not times:
            jax.block_until_ready(function(point))
            times += 1
        return {"seconds": (time.perf_counter() - begin) / times, "processor": None}

    return step, {"version": f"numpyro {numpyro.__version__}", "ready": ready}


def nuts(case):
    start, x = start_of(case), np.asarray(case["x"])
    seeds = iter(range(100))

    def step():
        begin, processor = time.perf_counter(), time.process_time()
        sampler = MCMC(
            NUTS(mixture, init_strategy=init_to_value(values=start)),
            num_warmup=500, num_samples=500, num_chains=4, chain_method="sequential", progress_bar=False,
        )  # fmt: skip
        sampler.run(jax.random.PRNGKey(next(seeds)), x, len(start["mu"]))
        found = {name: np.asarray(value) for name, value in sampler.get_samples(group_by_chain=True).items()}
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        ess = min(float(effective_sample_size(found[name]).min()) for name in start)
        rhat = max(float(split_gelman_rubin(found[name]).max()) for name in start)
        mean = float(found["mu"].mean((0, 1)).sum())
        return {"seconds": seconds, "processor": processor, "ess": ess, "rhat": rhat, "mean": mean}

    return step, {"version": f"numpyro {numpyro.__version__}"}


TASKS = {"logp": logp, "nuts": nuts}
serve(lambda case, task: TASKS[task](case))
