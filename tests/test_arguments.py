"""A number that a function cannot take is refused before any work, by its name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import distributed
import numpy as np
import pytest

import bayesmix as bm
import bayesmix.plots
from bayesmix import arguments
from bayesmix import dask as cluster
from bayesmix.inference import em

X = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], 25), 1)
SPEC = bm.Mixture(bm.Normal(), 2)
COUNTS = (0, -1, 2.5, 10.0, "3", np.nan, np.inf, True)
SHARES = (0, 1, -0.1, 2.0, "a", np.nan, np.inf, None, True)
BAD: dict[str, tuple] = {
    **dict.fromkeys(("prob", "target_accept"), SHARES),
    "kappa": (0.5, 1.1, "a", np.nan, None),
    "max_iter": (-1, 2.5, "3", np.nan, None, True),
    "min_prob": (-0.1, 1.1, "a", np.nan, None),
    "n_jobs": (0, -2, 2.5, "3", np.nan, None, True),
    "t0": (0, -1.0, "a", np.nan, np.inf, None),
    "tol": (-1e-9, "a", np.nan, np.inf, None),
}
#: Numbers of other kinds, whose rules are their functions' own.
OTHERS = {"random_seed", "n_components", "shares", "memory", "start"}
ENGINES: dict[str, Callable] = {
    **{f.__name__: f for f in (bm.fit_em, bm.fit_map, bm.fit_laplace, bm.fit_advi, bm.fit_online, bm.fit_nuts)},
    **{f.__name__: f for f in (bm.fit_moments, bm.select, bm.calibrate, bm.sample)},
}


def numbers_of(function: Callable) -> Iterator[tuple[str, Any]]:
    """Numeric parameters, and values that they cannot have."""
    for name, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation)
        if name in OTHERS or not ({"int", "float"} & set(kind.replace("|", " ").split())):
            continue
        bad = BAD.get(name, COUNTS)
        yield from ((name, value) for value in (bad if "None" in kind or name in BAD else (*bad, None)))


ASKED = [(engine, name, value) for engine, function in ENGINES.items() for name, value in numbers_of(function)]


@pytest.mark.parametrize(("engine", "name", "value"), ASKED)
def test_engines_refuse_a_wrong_number(engine, name, value):
    given = {"size": 3} if engine == "sample" else {"data": X}
    spec = bm.Normal(mu=0, sigma=1) if engine == "sample" else SPEC
    with pytest.raises(ValueError, match=f"^{name}: .* is needed, not "):
        ENGINES[engine](spec, **{**given, name: value})


def test_every_number_of_the_engines_has_a_rule():
    asked = {engine: {name for of, name, _ in ASKED if of == engine} for engine in ENGINES}
    assert asked["fit_nuts"] == {"draws", "tune", "chains", "cores", "target_accept", "n_starts", "subsample", "n_jobs"}
    assert asked["fit_em"] == {"n_starts", "max_iter", "tol", "n_jobs"}
    assert all(asked.values())


@pytest.fixture(scope="module")
def fit():
    table = {"x": [*X[:-1], np.nan], "s": [*"ab"] * 25}
    return bm.fit_em(bm.Mixture(bm.Composite(x=bm.Normal(), s=bm.Categorical()), 2), table, random_seed=1)


@pytest.mark.parametrize(
    "method",
    "log_density responsibilities predict responsibility_intervals sample_labels coclustering partition "
    "posterior_predictive predictive_checks impute".split(),
)
def test_unseen_is_checked_without_a_table_too(fit, method):
    """A misspelt word was found only where there was something to encode."""
    for data in (None, [0.0, 1.0]):
        with pytest.raises(ValueError, match='unseen: "error" or "ignore" is needed, not \'ignroe\''):
            getattr(fit, method)(data=data, unseen="ignroe")


def test_methods_refuse_a_wrong_number(fit):
    imputed = fit.impute(n_draws=5, random_seed=1)
    chain = bm.fit_em(bm.Mixture(bm.MarkovChain(), 2), [list("abab"), list("bb"), list("aab"), list("ba")], n_starts=1)
    methods = [
        fit.responsibilities, fit.responsibility_intervals, fit.sample_labels, fit.coclustering, fit.partition,
        fit.posterior_predictive, fit.predictive_checks, fit.occupied, fit.impute, fit.sample, fit.describe,
        partial(fit.log_density, per_draw=True), imputed.summary,
    ]  # fmt: skip
    plots = bayesmix.plots
    drawn = [
        (plots.plot_fields, fit), (plots.plot_pairs, fit), (plots.plot_profiles, fit), (plots.plot_imputation, imputed),
        (plots.plot_model, SPEC), (plots.plot_chain, chain),
    ]  # fmt: skip
    tried = 0
    for method in methods:
        for name, value in numbers_of(method):
            if name in ("size", "n_draws", "n_fields", "prob"):
                tried += 1
                with pytest.raises(ValueError, match=f"^{name}: .* is needed, not "):
                    method(
                        **({"per_draw": True} if name == "n_draws" and method == fit.log_density else {}),
                        **{name: value},
                    )
    for plot, of in drawn:
        for name, value in numbers_of(plot):
            tried += 1
            with pytest.raises(ValueError, match=f"^{name}: .* is needed, not "):
                plot(of, **{name: value})
    assert tried > 150


def test_the_cluster_s_functions_refuse_wrong_arguments():
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        for function in (
            bayesmix.dask.fit_em,
            bayesmix.dask.fit_laplace,
            bayesmix.dask.fit_nuts,
            bayesmix.dask.calibrate,
        ):
            for name, value in numbers_of(function):
                if function is not cluster.fit_em or (name, value) in (("max_iter", -1), ("tol", np.nan)):
                    if name == "n_starts" and function is not cluster.calibrate:
                        continue  # known once the rows are
                    with pytest.raises(ValueError, match=f"^{name}: .* is needed, not "):
                        function(SPEC, X, client=client, **{name: value})
    for function in (cluster.fit_em, cluster.select, cluster.fit_laplace, cluster.calibrate):
        with pytest.raises(TypeError, match=r"client: a distributed\.Client is needed, and no async.* not 'tcp://"):
            function(SPEC, X, client="tcp://scheduler:8786")


def test_what_may_be_left_out_or_be_of_numpy_is_taken():
    arguments.check(cores=None, minibatch=None, n_points=None, n_rows=None, subsample=None)
    arguments.check(
        draws=np.int64(5), n_starts=np.uint8(1), tol=0, target_accept=np.float32(0.9), n_jobs=-1, max_iter=0
    )
    with pytest.raises(ValueError, match="subsample: a whole number of at least 1 or None is needed, not 0"):
        arguments.check(subsample=0)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [3, -1], np.float64(2.0)], ids=repr)
@pytest.mark.parametrize("engine", ["em", "map", "laplace", "advi", "nuts", "moments"])
def test_what_is_no_seed(engine, seed):
    spec = bm.Mixture(bm.Normal(), 2)
    with pytest.raises(ValueError, match=r"random_seed: a whole number of at least 0, .* is needed, not "):
        bm.fit(spec, np.arange(20.0), method=engine, random_seed=seed)


@pytest.mark.parametrize(
    "seed",
    [3, np.uint8(3), [3, 4], np.random.SeedSequence(3), np.random.PCG64(3)],
    ids=lambda seed: type(seed).__name__,
)
def test_what_is_a_seed_gives_the_same_draws_again(seed):
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), np.arange(20.0), random_seed=1)
    first, second = (fit.sample(5, random_seed=copy.deepcopy(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("engine", ["em", "nuts", "online", "advi"])
def test_a_checkpoint_needs_a_folder_before_the_work_begins(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(em, "_given_starts", lambda *_: pytest.fail("EM has begun"))
    call = {"em": bm.fit_em, "nuts": bm.fit_nuts, "online": bm.fit_online, "advi": bm.fit_advi}[engine]
    options = {"minibatch": 10} if engine == "advi" else {}
    with pytest.raises(FileNotFoundError, match="No such folder: make it first"):
        call(bm.Mixture(bm.Normal(), 2), np.arange(20.0), checkpoint=tmp_path / "absent" / "run", **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"drws": 10}, r"drws: neither fit_nuts nor nutpie takes this\. Did you mean draws\?"),
        ({"target_acept": 0.9}, r"target_acept: .* Did you mean target_accept\?"),
        ({"max_depth": 8}, r"max_depth: .* Did you mean maxdepth\?"),
        ({"progress_bar": True}, r"progress_bar: .* Did you mean progressbar\?"),
        ({"maxdepth": "deep"}, "maxdepth: .*says nutpie of 'deep'"),
        ({"max_treedepht": 8, "nuts_sampler": "pymc"}, r"neither fit_nuts nor pymc .* Did you mean max_treedepth\?"),
        ({"foo": 1, "nuts_sampler": "pymc"}, "foo: neither fit_nuts nor pymc takes this"),
    ],
)
def test_keywords_that_no_sampler_takes_are_refused_before_any_work(given, message, monkeypatch):
    """nutpie said so after EM, in words of its own; PyMC took them silently."""
    monkeypatch.setattr("bayesmix.inference.nuts.prepare", None)
    with pytest.raises(TypeError, match=message):
        bm.fit(SPEC, X, method="nuts", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"maxdepth": 1},
        {"adaptation": "low_rank", "mass_matrix_gamma": 1e-4, "maxdepth": 1},
        {"max_treedepth": 1, "nuts_sampler": "pymc", "cores": 1},
    ],
)
def test_keywords_of_the_samplers_reach_them(given):
    """With trees of depth 1 a step takes one gradient, or a few at the most."""
    with pytest.warns(bm.ConvergenceWarning):
        fit = bm.fit_nuts(SPEC, X, draws=20, tune=20, chains=2, random_seed=1, **given)
    assert fit.idata["sample_stats"]["n_steps"].max() <= 2
