"""The E-step's kernel against the walks in numpy, on small tables of every width and number of symbols."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.inference.start import initial_params
from bayesmix.plan import EStep

M, C = bm.Mixture, bm.Composite
_rng = np.random.default_rng(11)
_N = 75
X = _rng.normal(size=(_N, 9)) + 4 * _rng.integers(2, size=(_N, 1))


def _symbols(number):
    return [f"s{i}" for i in _rng.integers(number, size=_N)]


ONES = [(1.0,)] * _N
_PRIORS = {"mu": pm.Normal.dist(np.zeros(1), np.ones(1)), "cov": bm.InverseWishart.dist(5.0, np.eye(1))}
#: Columns are taken one, two, four and eight at a time; few symbols otherwise than many.
CASES = {
    **{f"{d} coordinates": (M(bm.MvNormal(), 2), list(X[:, :d])) for d in (1, 2, 3, 4, 6, 9)},
    **{
        f"{s} symbols": (M(C(x=bm.Normal(), s=bm.Categorical()), 3), {"x": X[:, 0], "s": _symbols(s)})
        for s in (1, 2, 3, 4, 5, 12)
    },
    "two of two columns, not the first one's square": (M(bm.LogNormal(), 2), np.exp(X[:, 0])),
    "two mixtures of two in fields": (
        M(C(a=M(bm.Normal(), 2), b=M(bm.LogNormal(), 2)), 2),
        {"a": X[:, 0], "b": np.exp(X[:, 1])},
    ),
    "a component, and mixtures of two in fields": (
        C(a=M(bm.Normal(), 2), b=M(bm.LogNormal(), 2), c=M(bm.Exponential(), 2)),
        {"a": X[:, 0], "b": np.exp(X[:, 1]), "c": X[:, 2] ** 2},
    ),
    "a set in a field": (
        M(C(x=bm.Normal(), s=bm.BernoulliSet()), 2),
        {"x": X[:, 0], "s": [{"ab"[i % 2], *"cde"[: i % 4]} for i in range(_N)]},
    ),
    "chains": (
        M(C(x=bm.Normal(), s=bm.MarkovChain()), 2),
        {"x": X[:, 0], "s": [[f"s{v}" for v in _rng.integers(6, size=i % 5)] for i in range(_N)]},
    ),
    "four components": (M(bm.Normal(), 4), X[:, 0]),
    "five components in a field": (M(C(a=M(bm.Normal(), 5), b=bm.Exponential()), 2), {"a": X[:, 0], "b": X[:, 1] ** 2}),
    "four components in a field": (M(C(a=M(bm.Normal(), 4), b=bm.Exponential()), 2), {"a": X[:, 0], "b": X[:, 1] ** 2}),
    "more symbols than rows": (
        M(C(x=bm.Normal(), s=bm.Categorical()), 2),
        {"x": X[:, 0], "s": pd.Categorical(_symbols(40), [f"s{i}" for i in range(300)])},
    ),
    "more symbols than rows, some missing": (
        M(C(x=bm.Normal(), s=bm.Categorical()), 2),
        {"x": X[:, 0], "s": pd.Categorical([None, *_symbols(40)[1:]], [f"s{i}" for i in range(300)])},
    ),
    "what may be missing whole": (
        M(C(x=bm.Normal(), s=bm.Optional(bm.Sequence(bm.Poisson()))), 2),
        {"x": X[:, 0], "s": [None if i % 4 == 0 else _rng.poisson(2, i % 3).tolist() for i in range(_N)]},
    ),
    "all true": (M(bm.Bernoulli(), 2), np.ones(_N, bool)),
    # a column of ones is no column, so that the products stand with another's, or alone
    "vectors of ones": (M(C(a=bm.MvNormal(**_PRIORS), b=bm.Exponential()), 3), {"a": ONES, "b": X[:, 0] ** 2}),
    "vectors of ones twice": (M(C(a=bm.MvNormal(**_PRIORS), b=bm.MvNormal(**_PRIORS)), 3), {"a": ONES, "b": ONES}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_finds_what_the_walks_find(name):
    spec, data = CASES[name]
    weights = _rng.random(_N)
    _, bound, encoded, _, _ = prepare(spec, data, None)
    params = initial_params(bound, encoded, np.ones(_N), np.random.default_rng(0), 0)
    e_step = EStep(bound, encoded, weights)
    loglik, stats = e_step(params)
    expected, walked = bound.e_step(params, encoded, weights)
    assert loglik == pytest.approx(expected, rel=1e-12)
    for key, own in walked.items():
        for each, value in own.items():
            scale = max(1.0, np.abs(value).max())
            np.testing.assert_allclose(stats[key][each], value, atol=1e-11 * scale, err_msg=f"{key} {each}")
    np.testing.assert_allclose(e_step.rows(params), bound.log_density(params, encoded), rtol=1e-11, atol=1e-13)
