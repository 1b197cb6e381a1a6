"""The fused likelihood in graphs that PyTensor compiles by numba: whose data are whose, and how it runs there."""

import ctypes
import json
import os
import subprocess
import sys
import threading

import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix import likelihood
from bayesmix.bound import prepare
from bayesmix.compilation import QuickFunction
from bayesmix.inference.start import initial_params
from bayesmix.likelihood import LogLikelihood, RowLogDensity, Rows, RowStatistics, with_log_likelihood
from tests.structure.trees import TREES, over

SPEC = bm.Mixture(bm.Normal(), 2)
POINT = {"weights": np.array([0.3, 0.7]), "mu": np.array([-1.0, 2.0]), "sigma": np.array([0.8, 1.7])}


def numbers(seed, n_rows=40):
    return np.random.default_rng(seed).normal(size=n_rows)


def rows_by_scipy(x):
    joint = np.log(POINT["weights"]) + stats.norm.logpdf(x[:, None], POINT["mu"], POINT["sigma"])
    return np.logaddexp.reduce(joint, axis=1)


@pytest.fixture
def no_python(monkeypatch):
    """The operations cannot run as Python: what gives a result ran without object mode."""

    def forbidden(*arguments):
        raise AssertionError("run by Python")

    for op in (RowLogDensity, RowStatistics, LogLikelihood, likelihood.Apportioned):
        monkeypatch.setattr(op, "perform", forbidden)


def compiled(rows, names):
    """Log densities, their weighted sum, its gradient, and the log-likelihood of the table, of natural parameters."""
    natural, weights = pt.vector("natural"), pt.vector("weights")
    each = RowLogDensity(rows).of(natural)
    total = with_log_likelihood(RowLogDensity(rows).of(natural).sum())
    outputs = {
        "rows": each,
        "gradient": pt.grad((each * weights).sum(), natural),
        "total": total,
        "of total": pt.grad(total, natural),
    }
    inputs = [natural, weights]
    return pytensor.function(inputs, [outputs[n] for n in names], mode="NUMBA", on_unused_input="ignore")


NAMES = ("rows", "gradient", "total", "of total")


def test_sums_of_something_else_over_the_rows_stay_what_they_are():
    """Only the sum of the log densities is the log-likelihood: not that of the densities, nor of logs and numbers."""
    _, bound, encoded, _, _ = prepare(bm.Mixture(bm.Normal(), 2), np.arange(6.0), None)
    rows, natural = Rows(bound, encoded), pt.vector("natural")
    params = initial_params(bound, encoded, np.ones(6), np.random.default_rng(0), 0)
    each = RowLogDensity(rows).of(natural)
    sums = [with_log_likelihood(total) for total in (each.sum(), pt.exp(each).sum(), (each + 1.0).sum())]
    found = QuickFunction([natural], sums)(rows.plan.natural(params))
    density = bound.log_density(params, encoded)
    np.testing.assert_allclose(found, [density.sum(), np.exp(density).sum(), density.sum() + 6], rtol=1e-12)


@over(TREES, fast=("Mixture-Composite-Optional-Sequence-Normal", "JointMixture-Composite-Sequence"))
def test_compiled_values_are_those_of_the_plan(tree, no_python):
    _, bound, encoded, _, _ = prepare(tree.spec, tree.table, None)
    params = initial_params(bound, encoded, np.ones(encoded.n_rows), np.random.default_rng(0), 0)
    rng = np.random.default_rng(1)
    rows = Rows(bound, encoded)
    natural, weights = rows.plan.natural(params), rng.random(encoded.n_rows)
    function = compiled(rows, NAMES)
    for _ in range(2):
        each, gradient, total, of_total = function(natural, weights)
        expected = rows.plan.run(natural, weights)
        np.testing.assert_array_equal(each, expected[0])
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-13, atol=1e-300)
        expected = rows.plan.total(natural, rows.gathered)
        np.testing.assert_allclose(total, expected[0], rtol=1e-13)
        np.testing.assert_allclose(of_total, expected[1], rtol=1e-13, atol=1e-300)
        rows.swap(encoded.take(np.arange(0, encoded.n_rows, 2)), rng.random(24))  # other rows, of weights not 1
        weights = weights[::2]


def test_log_densities_and_statistics_are_one_pass(no_python):
    _, bound, encoded, _, _ = prepare(SPEC, numbers(0), None)
    function = compiled(Rows(bound, encoded), ("rows", "gradient"))
    ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    assert ops.count(RowStatistics) == 1
    assert RowLogDensity not in ops


def test_two_tables_in_one_process_and_a_swapped_one(no_python):
    tables = [numbers(seed) for seed in (0, 1)]
    models = [bm.build_model(SPEC, x, initval=None) for x in tables]
    functions = [pytensor.function(m.value_vars, m.logp(vars=m["x"], sum=False), mode="NUMBA") for m in models]
    point = models[0].initial_point()
    point |= {"mu": POINT["mu"], "sigma_log__": np.log(POINT["sigma"])}
    point["weights_simplex__"] = models[0].rvs_to_transforms[models[0]["weights"]].forward(POINT["weights"]).eval()

    def run(function, model):
        return function(*[point[v.name] for v in model.value_vars])[0]

    for function, model, x in zip(functions, models, tables):
        np.testing.assert_allclose(run(function, model), rows_by_scipy(x), rtol=1e-12)
    bm.set_data(models[0], numbers(2, 7))
    np.testing.assert_allclose(run(functions[0], models[0]), rows_by_scipy(numbers(2, 7)), rtol=1e-12)
    np.testing.assert_allclose(run(functions[1], models[1]), rows_by_scipy(tables[1]), rtol=1e-12)
    # what goes to another process is a copy of its own, which can be swapped there
    model, function = cloudpickle.loads(cloudpickle.dumps((models[1], functions[1])))
    np.testing.assert_allclose(run(function, model), rows_by_scipy(tables[1]), rtol=1e-12)
    bm.set_data(model, numbers(3, 9))
    np.testing.assert_allclose(run(function, model), rows_by_scipy(numbers(3, 9)), rtol=1e-12)
    np.testing.assert_allclose(run(functions[1], models[1]), rows_by_scipy(tables[1]), rtol=1e-12)


_PROCESS = """
import json, sys
import numpy as np, pytensor, pytensor.tensor as pt
import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.likelihood import RowLogDensity, Rows
from tests.test_compiled import POINT, SPEC, numbers
found = []
for seed in json.loads(sys.argv[1]):
    _, bound, encoded, _, _ = prepare(SPEC.with_flat_priors(), numbers(seed), None)
    rows, natural, weights = Rows(bound, encoded), pt.vector(), pt.vector()
    each = RowLogDensity(rows).of(natural)
    gradient = pt.grad((each * weights).sum(), natural)
    function = pytensor.function([natural, weights], [each, gradient], mode="NUMBA")
    each, gradient = function(rows.plan.natural(POINT), np.ones(40))
    found.append([each.tolist(), rows.plan.statistics(gradient)["root/component"]["n"].tolist()])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_warm_cache_gives_each_table_its_own_answer(tmp_path):
    """PyTensor's cache on disk is empty before the first process; the others find code of another table there."""
    environment = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"}
    for seeds in ([0, 1], [1, 2], [0]):
        command = [sys.executable, "-c", _PROCESS, json.dumps(seeds)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        for seed, (rows, n) in zip(seeds, json.loads(done.stdout.splitlines()[-1])):
            expected = rows_by_scipy(numbers(seed))
            np.testing.assert_allclose(rows, expected, rtol=1e-12)
            joint = np.log(POINT["weights"]) + stats.norm.logpdf(numbers(seed)[:, None], POINT["mu"], POINT["sigma"])
            np.testing.assert_allclose(n, np.exp(joint - expected[:, None]).sum(0), rtol=1e-12)
        kept = list(tmp_path.glob("**/*.nbi"))
        assert kept, "nothing was kept, so that this test saw no warm cache"


@pytest.mark.slow
def test_four_threads_at_once_in_nutpies_own_code(no_python):
    """ctypes lets go of the GIL: the compiled function runs in four threads at the same time."""
    nutpie = pytest.importorskip("nutpie")
    model = bm.build_model(bm.Mixture(bm.Normal(), 3), numbers(0, 3000), initval=None)
    function = nutpie.compile_pymc_model(model)
    logp = function.compiled_logp_func.ctypes
    data = ctypes.c_void_p(function.user_data.ctypes.data)
    points = np.random.default_rng(0).normal(size=(200, function.n_dim))

    def run(points, out):
        gradient, value = np.empty(points.shape[1]), np.empty(())
        for i, point in enumerate(points):
            pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (point, gradient, value)]
            assert logp(points.shape[1], *pointers, data) == 0
            out[i] = [value, *gradient]

    alone = np.empty((200, function.n_dim + 1))
    run(points, alone)
    together = [np.empty_like(alone) for _ in range(4)]
    threads = [threading.Thread(target=run, args=(points, out)) for out in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out in together:
        np.testing.assert_array_equal(out, alone)
    dlogp = model.compile_dlogp(jacobian=True)
    value = model.compile_logp(jacobian=True)
    start = points[0]
    shapes = {name: array.shape for name, array in model.initial_point().items()}
    at, parts = {}, 0
    for variable in model.value_vars:
        size = int(np.prod(shapes[variable.name]))
        at[variable.name] = start[parts : parts + size].reshape(shapes[variable.name])
        parts += size
    np.testing.assert_allclose(alone[0, 0], value(at), rtol=1e-11)
    np.testing.assert_allclose(alone[0, 1:], dlogp(at), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nutpie", "pymc"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # PyMC's leapfrog, in a step that diverges
def test_pymcs_samplers_sample_the_fused_model(sampler, no_python):
    """Two well separated normals: posterior means within Monte Carlo error of the groups' own means."""
    rng = np.random.default_rng(0)
    low, high = rng.normal(-4, 1, 300), rng.normal(4, 1, 200)
    model = bm.build_model(SPEC, np.concatenate([low, high]), order="mu")
    with model:
        draws = pm.sample(
            200,
            tune=200,
            chains=2,
            cores=2,
            nuts_sampler=sampler,
            random_seed=1,
            progressbar=False,
            compute_convergence_checks=False,
        )
    mean = draws.posterior["mu"].mean(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(mean, [low.mean(), high.mean()], atol=0.05)
