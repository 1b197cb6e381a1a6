"""Extreme but valid tables: finite, sensible answers from every engine."""

from __future__ import annotations

import numpy as np
import pytest

import bayesmix as bm
from tests.battery.tools import assert_sane, fitted

M, C, N, P = bm.Mixture, bm.Composite, bm.Normal, bm.Poisson
#: EM here, the others where time is; each begins with EM's mode, or with moments.
ENGINES = ["em", *[pytest.param(name, marks=pytest.mark.slow) for name in ("map", "laplace", "advi", "nuts")]]
_rng = np.random.default_rng(21)
Z = np.repeat([0, 1], 50)
X = 8.0 * Z + _rng.normal(size=100)


TABLES = {
    "offset of 1e8": (M(N(), 2), 1e8 + X, "mu", 1.0),
    "offset of -1e8": (M(N(), 2), X - 1e8, "mu", 1.0),
    "scale of 1e-8": (M(N(), 2), 1e-8 * X, "mu", 1e-8),
    "scale of 1e8": (M(N(), 2), 1e8 * X, "mu", 1e8),
    "scales of 1e-8 and 1e8": (M(C(x=N(), y=N()), 2), {"x": 1e-8 * X, "y": 1e8 * X}, "y_mu", 1e8),
    "vectors, scales of 1e-8 and 1e8": (
        M(bm.MvNormal(), 2),
        np.column_stack([1e-8 * X, 1e8 * (X + _rng.normal(size=100))]),
        None,
        0,
    ),
    "counts of 1e9": (M(P(), 2), _rng.poisson(1e9 * (1 + Z)), "mu", 1e6),
    "waiting times of 1e8": (M(bm.Exponential(), 2), np.where(Z, 1e8, 1.0) * _rng.exponential(size=100), None, 0),
    "log-normals over 1e±100": (M(bm.LogNormal(), 2), np.exp(np.where(Z, 230.0, -230.0) + X), None, 0),
    "duplicated rows": (M(N(), 2), np.tile(X, 3), "mu", 1.0),
    "d > N": (M(bm.MvNormal(), 1), _rng.normal(size=(4, 6)), None, 0),
    "constant column": (M(C(x=N(), y=N()), 2), {"x": X, "y": np.full(100, 2.0)}, "x_mu", 1.0),
    "one-row component": (M(N(), 3), np.append(X, 500.0), None, 0),
    "one row of each": (M(C(x=N(), c=bm.Categorical()), 2), {"x": [1.0, 9.0], "c": ["a", "b"]}, None, 0),
    "rows that lack all cells": (
        M(C(x=N(), n=P()), 2),
        {"x": [*X, None, None], "n": [*(1 + 20 * Z), None, None]},
        "x_mu",
        1.0,
    ),
    "empty sequences": (M(bm.Sequence(N(), length=P()), 2), [[x] * (i % 3) for i, x in enumerate(X)], "mu", 1.5),
    "all sequences empty": (M(bm.Sequence(N(), length=P()), 2), [[]] * 30, None, 0),
    "all sets empty": (M(bm.BernoulliSet(), 2), [set()] * 30, None, 0),
}
CENTRES = {"counts of 1e9": (1e9, 2e9)}


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("name", TABLES)
def test_finite_and_sensible(name, method):
    spec, table, slot, tolerance = TABLES[name]
    fit, _ = fitted(spec, table, method)
    assert_sane(fit, table)
    drawn = fit.sample(20, random_seed=1)
    assert len(drawn) == 20
    if slot is not None:
        found = np.sort(fit.posterior[slot].mean(("chain", "draw")).values)
        unit = tolerance if name.startswith("scale") else 1.0
        shift = {"offset of 1e8": 1e8, "offset of -1e8": -1e8}.get(name, 0.0)
        centres = CENTRES.get(name, [shift + unit * X[Z == k].mean() for k in (0, 1)])
        np.testing.assert_allclose(found, centres, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    "table", [X, 1e8 + X, 1e-8 * X, 1e8 * X, np.tile(X, 2)], ids=["", "1e8 +", "1e-8", "1e8", "x 2"]
)
def test_moments(table):
    """The engine without a start, where it applies."""
    fit, _ = fitted(M(N(), 2), table, "moments")
    assert_sane(fit, table)
    unit = table[:100].std() / X.std()
    centre = table.mean() - X.mean() * unit
    np.testing.assert_allclose((np.sort(fit.params["mu"]) - centre) / unit, [0, 8], atol=1.0)


@pytest.mark.parametrize("method", ["em", pytest.param("laplace", marks=pytest.mark.slow)])
def test_fifty_components(method):
    """K = 50, thirty rows each, sixty sds apart: every one is found."""
    rng = np.random.default_rng(2)
    values = (60.0 * np.arange(50)[:, None] + rng.normal(size=(50, 30))).ravel()
    fit, _ = fitted(M(N(), 50), values, method)
    assert_sane(fit, values)
    if method == "em":
        assert len(set(fit.predict(60.0 * np.arange(50)))) >= 45


@pytest.mark.parametrize("method", ["em", "map", "nuts", "advi", "laplace", "moments"])
def test_a_column_without_a_cell_is_one_error(method):
    with pytest.raises(bm.DataError, match=r"y: every cell is missing.*Leave the field out"):
        bm.fit(M(C(x=N(), y=N()), 2), {"x": X, "y": [None] * 100}, method=method)
