"""bayesmix: the same work as each of its peers."""

from __future__ import annotations

import sys
import time
import tracemalloc

import numpy as np
from _server import peak_mib, serve

import bayesmix as bm
from bayesmix.bound import prepare as read
from bayesmix.build import model_of, variables_at
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target
from bayesmix.plan import EStep

FACTS = {"version": f"bayesmix {bm.__version__}"}


def normal(case):
    return bm.Mixture(bm.Normal(), len(case["start"]["mu"])), case["x"]


def mvnormal(case):
    return bm.Mixture(bm.MvNormal(), len(case["start"]["mu"])), case["x"]


def composite(case):
    fields = {
        "x1": bm.Mixture(bm.Normal(), 2),
        "x2": bm.Optional(bm.Geometric()),
        "x3": bm.MarkovChain(length=bm.Poisson()),
        "x4": bm.BernoulliSet(),
    }
    sets = [set(row) for row in case["x4"]]
    return bm.Mixture(bm.Composite(fields), 3), {"x1": case["x1"], "x2": case["x2"], "x3": case["x3"], "x4": sets}


def hierarchical(case):
    p = case["start"]
    spec = bm.HierarchicalMixture(bm.Normal(), len(p["topic_mu"]), len(p["weights"]))
    return spec, {"x": case["x"].tolist()}


def joint(case):
    first = bm.Composite(cat=bm.Categorical(), real=bm.Normal())
    spec = bm.JointMixture(x=(first, 3), y=(bm.Sequence(bm.Normal(), length=bm.Poisson()), 3))
    rows = zip(case["cat"], case["real"].tolist())
    return spec, [{"x": {"cat": cat, "real": real}, "y": y} for (cat, real), y in zip(rows, case["y"])]


def binary(case):
    names = [f"item{j}" for j in range(case["x"].shape[1])]
    spec = bm.Mixture(bm.Composite({name: bm.Bernoulli() for name in names}), len(case["start"]["weights"]))
    return spec, {name: case["x"][:, j] for j, name in enumerate(names)}


def waiting(case):
    return bm.Mixture([bm.Exponential(), bm.Exponential(), bm.LogNormal()]), case["x"]


KINDS = {f.__name__: f for f in (normal, mvnormal, composite, hierarchical, joint, binary, waiting)}


def em(case, n_jobs=1):
    """One iteration: E-step, M-step and the objective that decides on convergence."""
    spec, table = KINDS[case["kind"]](case)
    _, bound, encoded, weights, _ = read(spec, table, None)
    params = bound.with_fixed(case["start"])
    assert set(params) == set(bound.slots), set(bound.slots) ^ set(params)
    e_step = EStep(bound, encoded, weights, n_jobs)
    loglik, stats = e_step(params)
    bound.m_step(stats, params)

    def step():
        begin = time.perf_counter()
        found, stats = e_step(params)
        middle = time.perf_counter()
        bound.m_step(stats, params)
        last = time.perf_counter()
        found + bound.log_prior(params)
        return {"e_step": middle - begin, "m_step": last - middle, "objective": time.perf_counter() - last}

    return step, {**FACTS, "loglik": loglik}


def em_two_threads(case):
    """The same on two processors."""
    return em(case, 2)


def _repeated(call, argument):
    """Seconds of one of the calls that fill a tenth of a second."""
    begin, times = time.perf_counter(), 0
    while time.perf_counter() - begin < 0.1 or not times:
        call(argument)
        times += 1
    return {"seconds": (time.perf_counter() - begin) / times, "processor": None}


def logp(case):
    """Value and gradient of the log posterior as NUTS calls it, in unconstrained coordinates."""
    spec, table = KINDS[case["kind"]](case)
    table, bound, encoded, _, _ = read(spec, table, None)
    params = bound.with_fixed(case["start"])
    begin = time.perf_counter()
    target = Target(model_of(bound, encoded, initval=case["start"]), variables_at(bound, params), jacobian=True)
    target(target.start)
    ready = time.perf_counter() - begin
    loglik = EStep(bound, encoded, np.ones(encoded.n_rows))(params)[0]
    return lambda: _repeated(target, target.start), {**FACTS, "loglik": loglik, "ready": ready}


def logp_graph(case):
    """The likelihood of PyMC's own densities, compiled in PyTensor's numba mode."""
    from pymc.blocking import DictToArrayBijection

    spec, table = KINDS[case["kind"]](case)
    table, bound, encoded, _, _ = read(spec, table, None)
    begin = time.perf_counter()
    model = model_of(bound, encoded, initval=case["start"], likelihood="graph")
    function = model.logp_dlogp_function(ravel_inputs=True, mode="NUMBA")
    function.set_extra_values({})
    start = DictToArrayBijection.map(model.initial_point())
    function._pytensor_function.trust_input = True
    function(start)
    ready = time.perf_counter() - begin
    loglik = EStep(bound, encoded, np.ones(encoded.n_rows))(bound.with_fixed(case["start"]))[0]
    return lambda: _repeated(function, start), {**FACTS, "loglik": loglik, "ready": ready}


def nuts(case, chains=4):
    """From the call to the result: reading, EM, tracing, sampling, diagnostics."""
    import arviz_stats as azs

    spec, table = KINDS[case["kind"]](case)
    seeds = iter(range(100))

    def step():
        begin, processor = time.perf_counter(), time.process_time()
        fit = bm.fit(
            spec, table, method="nuts", draws=500, tune=500, chains=chains, cores=case.get("cores", 1),
            n_starts=case.get("n_starts", 16), random_seed=next(seeds),
        )  # fmt: skip
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        ess = min(float(v.min()) for v in azs.ess(fit.posterior, method="bulk").data_vars.values())
        rhat = max(float(v.max()) for v in azs.rhat(fit.posterior).data_vars.values())
        mean = float(np.sort(fit.posterior["mu"].mean(("chain", "draw")).values).sum())
        return {"seconds": seconds, "processor": processor, "ess": ess, "rhat": rhat, "mean": mean}

    return step, FACTS


def nuts_two_chains(case):
    """Two chains on two processors."""
    return nuts({**case, "cores": 2}, chains=2)


def latent_classes(case):
    """From the call to the result, one start."""
    spec, table = KINDS[case["kind"]](case)

    def step():
        fit = bm.fit_em(spec.with_flat_priors(), table, n_starts=1, tol=1e-8, random_seed=0)
        return {"loglik": fit.loglik, "iterations": len(fit.history)}

    return step, FACTS


def passes(case):
    """E-steps of the run that wins a default call until no entry of the log posterior's gradient is above 1e-6."""
    spec, table = KINDS[case["kind"]](case)
    _, bound, encoded, weights, _ = read(spec, table, None)

    def gradient(params):
        model = model_of(bound, encoded, initval=params)
        target = Target(model, variables_at(bound, params), jacobian=False)
        return float(np.abs(target(target.start)[1]).max())

    def count(**options):
        run, _ = maximise(bound, encoded, weights, keep_trajectory=True, random_seed=0, **options)
        last = len(run.trajectory) - 1
        if gradient(run.trajectory[last]) > 1e-6:
            return None, gradient(run.trajectory[last]), run.history[-1]
        low, high = 0, last
        while low < high:  # the first point from which on the gradient is small
            middle = (low + high) // 2
            low, high = (low, middle) if gradient(run.trajectory[middle]) <= 1e-6 else (middle + 1, high)
        return low + 1 + run.rejected, gradient(run.trajectory[low]), run.history[-1]

    def step():
        fast, slow = count(), count(accelerate=False, tol=0.0, n_starts=1, max_iter=20_000)
        return {
            "passes": fast[0],
            "gradient": fast[1],
            "objective": fast[2],
            "plain": slow[0],
            "plain_objective": slow[2],
        }

    return step, FACTS


def kernel(case):
    """Nanoseconds a row and component beside numpy's exponential of as many doubles; equal rows kept apart."""
    import bayesmix.plan

    spec = bm.Mixture({"Poisson": bm.Poisson, "Categorical": bm.Categorical, "Normal": bm.Normal}[case["family"]](), 10)
    _, bound, encoded, weights, _ = read(spec, {"y": case["y"]}, None)
    params = maximise(bound, encoded, weights, n_starts=1, max_iter=2, random_seed=0)[0].params
    natural = EStep(bound, encoded, weights)._plan.natural(params)
    together = EStep(bound, encoded, weights)
    bayesmix.plan.repeats = lambda data: None
    apart = EStep(bound, encoded, weights)
    size = encoded.n_rows * 10
    x = -20 * np.random.default_rng(0).random(size)
    out = np.empty_like(x)

    def nanoseconds(call):
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) / size * 1e9

    def step():
        return {
            "exp": nanoseconds(lambda: np.exp(x, out=out)),
            "apart": nanoseconds(lambda: apart._plan.total(natural, apart._gathered)),
            "up": nanoseconds(lambda: apart._plan.run(natural, weights, down=False)),
            "together": nanoseconds(lambda: together._plan.total(natural, together._gathered)),
        }

    return step, FACTS


def memory(case):
    """Peak of what a fit allocates, beside what the encoded columns take."""
    spec, table = KINDS[case["kind"]](case)
    _, _, encoded, _, _ = read(spec, table, None)
    size = _bytes(encoded)
    del encoded

    few = {name: column[:200] for name, column in table.items()} if isinstance(table, dict) else table[:200]

    def step():
        bm.fit_em(spec, few, random_seed=0)  # what is imported and compiled for any table
        tracemalloc.start()
        bm.fit_em(spec, table, random_seed=0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        _, bound, encoded, weights, _ = read(spec, table, None)
        params = maximise(bound, encoded, weights, n_starts=1, max_iter=1, random_seed=0)[0].params
        tracemalloc.start()
        e_step = EStep(bound, encoded, weights)
        for _ in range(3):
            bound.m_step(e_step(params)[1], params)
        _, iterations = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {"encoded": size, "peak": peak, "iterations": iterations + size, "rss": peak_mib()}

    return step, FACTS


def _bytes(encoded):
    """Of the encoded columns; where a cell is an array of its own (symbols of a sequence) with what that takes."""
    arrays = [np.asarray(array) for array in encoded.arrays.values()]
    own = sum(sys.getsizeof(cell) for array in arrays if array.dtype == object for cell in array)
    places = 0 if encoded.present is None else encoded.present.nbytes  # of the cells that are there
    return own + places + sum(array.nbytes for array in arrays) + sum(map(_bytes, encoded.children))


TASKS = {
    f.__name__: f
    for f in (em, em_two_threads, logp, logp_graph, nuts, nuts_two_chains, latent_classes, passes, kernel, memory)
}

serve(lambda case, task: TASKS[task](case))
