"""Fits in threads and in processes at once are right, and leave the process as they found it.

What starts processes runs in a script of its own (this file, called by name), so that forks are of a process that has
compiled and sampled before, and nothing of pytest's is in it.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest

import bayesmix as bm
from bayesmix import threads
from bayesmix.compilation import no_compiler
from bayesmix.errors import heard, warn
from tests.test_determinism import digest, digest_of

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
GROUP = RNG.integers(2, size=90)
DATA = {
    "x": np.where(np.arange(90) % 7 == 0, np.nan, RNG.normal(5.0 * GROUP, 1.0)),
    "n": RNG.poisson(2 + 3 * GROUP),
    "kind": np.array(["red", "green", "blue"])[RNG.integers(3, size=90)],
}
#: One spec for all threads. A half-normal sigma has no closed-form M-step, so EM uses PyTensor too.
SPEC = bm.Mixture(
    bm.Composite(x=bm.Normal(sigma=pm.HalfNormal.dist(3)), n=bm.Poisson(), kind=bm.Categorical()), 2
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")


def em(seed=1):
    return digest_of(bm.fit_em(SPEC, DATA, n_starts=2, random_seed=seed))


def the_map(seed=1):
    return digest_of(bm.fit_map(SPEC, DATA, n_starts=2, random_seed=seed))


def laplace(seed=1):
    return digest_of(bm.fit_laplace(SPEC, DATA, n_starts=2, draws=50, random_seed=seed))


def nuts(seed=1):
    fit = bm.fit_nuts(SPEC, DATA, draws=30, tune=40, chains=2, cores=2, n_starts=2, random_seed=seed)
    return digest_of(fit) + digest(fit.responsibilities(), fit.status.message)


def used(fit):
    """What one fit says, of its own rows and of others."""
    rows = {name: column[:20] for name, column in DATA.items()}
    imputed = fit.impute(n_draws=3, random_seed=1)
    return digest(
        *imputed.draws.values(),
        fit.responsibilities(),
        fit.predict(rows),
        fit.log_density(rows),
        fit.sample(20, random_seed=1)["n"].to_numpy(),
    )


JOBS = {"em": em, "map": the_map, "laplace": laplace}


def run(name, seed=1):
    return JOBS[name](seed)


# In threads


def in_threads(*jobs):
    """Results of functions that start at one moment, each in a thread of its own."""
    together = threading.Barrier(len(jobs))

    def started(job):
        together.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(started, job) for job in jobs]]


def state():
    """What belongs to the whole process and a fit might change."""
    config = {name: str(getattr(pytensor.config, name)) for name in ("cxx", "linker", "mode", "traceback__limit")}
    legacy = np.random.get_state()  # noqa: NPY002
    return list(warnings.filters), config, digest(legacy[1], legacy[2:]), dict(os.environ), np.geterr()


@pytest.mark.slow
def test_fits_in_threads_are_those_one_after_another():
    before = state()
    jobs = [em, the_map, laplace, lambda: em(2), lambda: the_map(2)]
    alone = [job() for job in jobs]
    assert in_threads(*jobs) == alone
    assert len(set(alone)) == len(jobs)
    assert state() == before


def test_one_fit_is_used_by_several_threads():
    fit = bm.fit_em(SPEC, DATA, n_starts=2, random_seed=1)
    alone = used(bm.fit_em(SPEC, DATA, n_starts=2, random_seed=1))
    assert in_threads(*[lambda: used(fit)] * 4) == [alone] * 4


@pytest.mark.slow
def test_nuts_in_two_threads():
    before = state()
    alone = [nuts(1), nuts(2)]
    assert in_threads(lambda: nuts(1), lambda: nuts(2)) == alone
    assert alone[0] != alone[1]
    assert state() == before


@pytest.mark.slow
def test_settings_of_the_process_are_put_aside_by_one_thread_at_a_time(monkeypatch):
    """What overlaps must, to leave everything silenced or no compiler, takes luck: so look wherever it could begin."""
    own, unguarded = str(Path(bm.__file__).parent), []

    def watched(enter):
        def entered(self):
            stack = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
            if not threads.ALONE._is_owned() and any(line.startswith(own) for line in stack):
                unguarded.append(stack[-12:])
            return enter(self)

        return entered

    flags = type(pytensor.config.change_flags())
    for kind in (warnings.catch_warnings, flags):
        monkeypatch.setattr(kind, "__enter__", watched(kind.__enter__))
    fit = bm.fit_em(SPEC, DATA, n_starts=2, random_seed=1)
    for each in (fit, bm.fit_laplace(SPEC, pd.DataFrame(DATA), draws=50, start=fit.params, random_seed=1)):
        used(each)
    bm.fit_nuts(SPEC, DATA, draws=4, tune=10, chains=2, cores=2, n_starts=1, random_seed=1)
    assert not unguarded


def test_flags_of_pytensor_survive_blocks_that_overlap():
    """Two blocks that overlapped left the whole process without compilers."""
    before = state()
    first_is_in, second_may_end = threading.Event(), threading.Event()

    def first():
        with no_compiler():
            first_is_in.set()
            second_may_end.wait(0.2)  # until long after the second wanted to begin

    def second():
        first_is_in.wait()
        with no_compiler():
            second_may_end.wait(0.2)

    in_threads(first, second)
    assert state() == before


def test_what_one_thread_keeps_back_another_is_told():
    inside, outside = threading.Event(), threading.Event()

    def kept_back():
        with heard() as messages:
            inside.set()
            outside.wait()
            warn("mine", bm.ConvergenceWarning)
        return messages

    def told():
        inside.wait()
        with pytest.warns(bm.ConvergenceWarning, match="yours"):
            warn("yours", bm.ConvergenceWarning)
        outside.set()

    assert in_threads(kept_back, told) == [["mine"], None]


# In processes


def script_of(code, timeout=300):
    """What a script prints last, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def at_once(method, names):
    """Digests of jobs in this process, and then of the same in processes at once."""
    warnings.simplefilter("ignore")  # that the process which forks has threads, above all
    own = [run(name) for name in names]
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(json.dumps([own, pool.map(run, names, chunksize=1)]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_at_once(method):
    """A fork is of a process that has used numba's and PyTensor's compiled code."""
    names = ["em", "map", "laplace", "em"]
    own, theirs = script_of(f"from tests.test_concurrency import at_once; at_once({method!r}, {names!r})")
    assert theirs == own


def fork_while_another_thread_traces():
    inside = threading.Event()

    def tracing():
        with no_compiler():
            inside.set()
            threading.Event().wait(0.3)

    warnings.simplefilter("ignore")
    linker = pytensor.config.linker
    thread = threading.Thread(target=tracing)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        free = threads.ALONE.acquire(timeout=2)
        os._exit(0 if free and pytensor.config.linker == linker else 1)
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.mark.slow
def test_a_fork_waits_until_no_thread_has_settings_put_aside():
    """A child that was made in the middle of it had no compilers, and waited for a lock that nobody held."""
    called = "fork_while_another_thread_traces"
    assert script_of(f"from tests.test_concurrency import {called}; {called}()") == 0


# On import

#: What others change when they are imported is theirs: all that bayesmix imports is imported before it.
IMPORTING = """
import json, logging, os, random, sys, warnings

import arviz_base, h5py, narwhals, numba, numpy as np, pandas, pymc, pytensor, threadpoolctl, xarray
import pytensor.link.numba.dispatch
import scipy.linalg, scipy.optimize, scipy.special, scipy.stats


def state():
    legacy = np.random.get_state()
    loggers = logging.root.manager.loggerDict.items()
    return {
        "numpy's generator": [legacy[1].tolist(), list(legacy[2:])],
        "Python's generator": repr(random.getstate()),
        "warnings": [str(each) for each in warnings.filters] + [str(warnings.showwarning)],
        "environment": dict(os.environ),
        "thread pools": sorted(
            f"{pool['filepath']} {pool['num_threads']}" for pool in threadpoolctl.threadpool_info()
        ),
        "numba": {name: str(value) for name, value in vars(numba.config).items() if name.isupper()},
        "loggers": {
            name: [each.level, each.disabled, len(each.handlers), len(each.filters)]
            for name, each in [("", logging.root), *loggers]
            if isinstance(each, logging.Logger) and not name.startswith("bayesmix")
        },
        "pytensor": {name: str(getattr(pytensor.config, name)) for name in pytensor.config._config_var_dict},
        "pandas": repr(sorted(pandas._config.config._global_config.items(), key=str)),
        "xarray": repr(sorted(xarray.core.options.OPTIONS.items())),
        "numpy": [np.geterr(), repr(np.get_printoptions())],
        "python": [str(sys.excepthook), str(sys.displayhook), sys.getrecursionlimit(), sys.getswitchinterval()],
    }


state()  # some of PyTensor's configuration is found out when it is read
before = state()
import bayesmix

after, ours = state(), logging.getLogger("bayesmix")
changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
print(json.dumps([changed, len(ours.handlers), ours.level]))
"""


@pytest.mark.slow
def test_import_changes_nothing():
    assert script_of(IMPORTING) == [{}, 0, 0]
