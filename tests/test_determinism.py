"""The same seed gives the same digits: in every process, however many threads there are."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.inference import chains

ROOT = Path(__file__).parents[1]
SPEC = bm.Mixture(
    bm.Composite(
        x=bm.Normal(),
        n=bm.Poisson(),
        kind=bm.Categorical(),
        tags=bm.Optional(bm.BernoulliSet()),
        v=bm.MvNormal(),
        path=bm.Sequence(bm.Categorical(), length=bm.Poisson()),
    ),
    2,
)
SMALL = bm.Mixture(bm.Composite(x=bm.Normal(), kind=bm.Categorical()), 2)


def table(n_rows):
    """Rows of every kind, some of them missing; symbols are strings, whose hashes differ from process to process."""
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=n_rows)
    x = rng.normal(3.0 * group, 1.0)
    x[::7] = np.nan
    symbols = np.array(["red", "green", "blue", "grey"])
    return {
        "x": x,
        "n": rng.poisson(2 + 3 * group),
        "kind": symbols[rng.integers(4, size=n_rows)],
        "tags": [
            None if i % 11 == 0 else {s for s, p in zip(symbols, (0.2, 0.5, 0.5, 0.7)) if rng.random() < p}
            for i in range(n_rows)
        ],
        "v": (rng.normal(size=(n_rows, 3)) + group[:, None]).tolist(),
        "path": [symbols[rng.integers(4, size=rng.integers(0, 4))].tolist() for _ in range(n_rows)],
    }


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr(plain(array)).encode())
    return found.hexdigest()[:16]


def plain(value):
    """Lists of Python's numbers and strings; sets in order."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(value.tolist()) if isinstance(value, (np.ndarray, np.generic)) else value


def digest_of(fit):
    return digest(fit.loglik, fit.history, *(fit.posterior[name].values for name in fit.posterior))


def every_engine(n_jobs):
    """A digest of what each engine gives."""
    large, small = table(6000), {name: table(120)[name] for name in ("x", "kind")}
    em = bm.fit_em(SPEC, large, n_starts=3, n_jobs=n_jobs, random_seed=1)
    nuts = bm.fit_nuts(SMALL, small, draws=60, tune=60, chains=3, cores=n_jobs, n_starts=2, random_seed=1)
    advi = bm.fit_advi(SMALL, small, draws=40, n_starts=2, random_seed=1)
    imputed = em.impute(n_draws=3, random_seed=1)
    return {
        "em": digest_of(em),
        "map": digest_of(bm.fit_map(SMALL, small, n_starts=2, random_seed=1)),
        "nuts": digest_of(nuts),
        "advi": digest_of(advi),
        "laplace": digest_of(bm.fit_laplace(SMALL, small, n_starts=2, random_seed=1)),
        "moments": digest_of(bm.fit_moments(bm.Mixture(bm.Poisson(), 2), large["n"])),
        "imputation": digest(*imputed.draws.values()),
        "prediction": digest(em.responsibilities(), nuts.responsibilities(), nuts.log_density()),
        "new rows": digest(*(nuts.sample(20, random_seed=1)[name].to_numpy() for name in small)),
    }


@pytest.mark.slow
def test_three_processes_with_one_thread_and_two():
    found = []
    for i in range(3):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", __file__],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(i + 1)},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ended.returncode == 0, ended.stderr
        found += json.loads(ended.stdout)
    assert len(found) == 6
    different = {name for each in found for name, value in each.items() if value != found[0][name]}
    assert not different


@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")
def test_threads_do_not_change_em():
    data = {"x": table(20_000)["x"]}
    spec = bm.Mixture(bm.Composite(x=bm.Normal()), 2)
    fits = [bm.fit_em(spec, data, n_starts=2, n_jobs=n_jobs, random_seed=1) for n_jobs in (1, 2, -1)]
    assert len({digest_of(fit) for fit in fits}) == 1


@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")
def test_a_chain_does_not_depend_on_the_others(monkeypatch):
    """Chains begin in any order: each has its own start, and draws as it would alone."""
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, 30) for m in (-4, 4)])
    spec = bm.Mixture(bm.Normal(), 2)
    options = {"draws": 12, "tune": 20, "chains": 4, "n_starts": 2, "random_seed": 3, "relabel": None}
    fits = [bm.fit_nuts(spec, x, cores=cores, **options) for cores in (1, 4)]
    begun = []
    begin = chains._Sampler.begin

    def backwards(self, given):
        begun.append(self.number)
        begin(self, given)

    monkeypatch.setattr(chains._Sampler, "begin", backwards)
    monkeypatch.setattr(chains, "_first", lambda waiting: waiting.pop())
    fits.append(bm.fit_nuts(spec, x, cores=2, **options))
    assert begun == [3, 2, 1, 0]
    assert len({digest_of(fit) for fit in fits}) == 1
    first = [fit.posterior["mu"].values[:, 0] for fit in fits]
    assert len(np.unique(first[0])) == 8  # no two chains are the same


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([every_engine(1), every_engine(2)]))
