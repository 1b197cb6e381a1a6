"""A spec of numbers is a distribution; tables are split."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import bayesmix as bm

SPEC = bm.Mixture(
    bm.Composite(
        x=bm.Normal(mu=[-2.0, 3.0], sigma=[1.0, 0.5]),
        c=bm.Categorical(p={"u": [0.9, 0.2], "v": [0.1, 0.8]}),
        s=bm.BernoulliSet(p={"a": [0.9, 0.1], "b": [0.2, 0.7]}),
        m=bm.MarkovChain(
            initial={"p": 0.6, "q": 0.4},
            transition={"p": {"p": 0.9, "q": 0.1}, "q": {"p": 0.5, "q": 0.5}},
            length=bm.Poisson(mu=3.0),
        ),
        o=bm.Optional(bm.Geometric(p=0.3), p=0.25),
    ),
    2,
    weights=[0.3, 0.7],
)


def test_draws_have_the_distributions_moments():
    rows = bm.sample(SPEC, 40_000, random_seed=1)
    assert list(rows) == ["x", "c", "s", "m", "o"]
    np.testing.assert_allclose(rows["x"].mean(), 0.3 * -2 + 0.7 * 3, atol=0.05)
    np.testing.assert_allclose((rows["c"] == "u").mean(), 0.3 * 0.9 + 0.7 * 0.2, atol=0.02)
    np.testing.assert_allclose(rows["s"].map(lambda s: "a" in s).mean(), 0.3 * 0.9 + 0.7 * 0.1, atol=0.02)
    np.testing.assert_allclose(rows["m"].map(len).mean(), 3, atol=0.05)
    pairs = [pair for chain in rows["m"] for pair in itertools.pairwise(chain)]
    of_p = [b for a, b in pairs if a == "p"]
    np.testing.assert_allclose(np.mean([b == "p" for b in of_p]), 0.9, atol=0.02)
    gone = rows["o"].isna()
    np.testing.assert_allclose(gone.mean(), 0.25, atol=0.02)
    np.testing.assert_allclose(rows["o"][~gone].astype(float).mean(), 1 / 0.3, atol=0.1)
    assert bm.sample(SPEC, 5, random_seed=3).equals(bm.sample(SPEC, 5, random_seed=3))


def test_density_is_the_sum_over_components():
    row = {"x": [0.4], "c": ["v"], "s": [{"b"}], "m": [["p", "q"]], "o": [2]}
    own = []
    for k in range(2):
        own.append(
            stats.norm.logpdf(0.4, [-2, 3][k], [1, 0.5][k])
            + np.log([0.1, 0.8][k])
            + np.log((1 - [0.9, 0.1][k]) * [0.2, 0.7][k])
            + np.log(0.6 * 0.1)
            + stats.poisson.logpmf(2, 3)
            + np.log(0.75)
            + stats.geom.logpmf(2, 0.3)
        )
    joint = np.array(own) + np.log([0.3, 0.7])
    np.testing.assert_allclose(bm.log_density(SPEC, row), [np.logaddexp.reduce(joint)], rtol=1e-12)
    expected = np.exp(joint - np.logaddexp.reduce(joint))
    np.testing.assert_allclose(bm.responsibilities(SPEC, row), [expected], rtol=1e-12)


def test_a_parameter_without_a_number_is_named():
    with pytest.raises(bm.SpecError, match="sigma: no number"):
        bm.sample(bm.Normal(mu=0.0), 3)
    with pytest.raises(bm.SpecError, match="lower and upper"):
        bm.sample(bm.SpikeAndSlab(p=0.5, k=2), 3)


def test_a_fits_spec_is_its_density_and_can_be_fitted_from():
    rows = bm.sample(SPEC, 300, random_seed=1)
    spec = bm.Mixture(
        bm.Composite(
            x=bm.Normal(),
            c=bm.Categorical(),
            s=bm.BernoulliSet(),
            m=bm.MarkovChain(length=bm.Poisson()),
            o=bm.Optional(bm.Geometric()),
        ),
        2,
    )
    fit = bm.fit(spec, rows, random_seed=1)
    own = fit.to_spec()
    np.testing.assert_allclose(bm.log_density(own, rows), fit.log_density(rows), rtol=1e-12)
    np.testing.assert_allclose(bm.responsibilities(own, rows), fit.responsibilities(rows), atol=1e-12)
    again = bm.sample(own, 200, random_seed=2)
    assert bm.fit(spec, again, random_seed=1).loglik < 0


@pytest.mark.parametrize("kind", ["pandas", "polars", "dict", "array", "list"])
def test_split_keeps_type_rows_and_shares(kind):
    x, y = np.arange(10), [f"r{i}" for i in range(10)]
    table = {
        "pandas": pd.DataFrame({"x": x, "y": y}, index=[f"i{i}" for i in range(10)]),
        "polars": pl.DataFrame({"x": x, "y": y}),
        "dict": {"x": x, "y": y},
        "array": np.column_stack([x, x]),
        "list": list(zip(x.tolist(), y)),
    }[kind]
    parts = bm.split(table, [0.5, 0.3, 0.2], random_seed=1)
    assert [type(part) for part in parts] == [type(table)] * 3

    def first(part):
        if kind == "list":
            return [row[0] for row in part]
        return list(part[:, 0]) if kind == "array" else list(part["x"])

    assert [len(first(part)) for part in parts] == [5, 3, 2]
    assert sorted(value for part in parts for value in first(part)) == list(range(10))
    if kind == "pandas":
        assert list(parts[0].index) == [f"i{i}" for i in parts[0]["x"]]
    with pytest.raises(ValueError, match="sum to 1"):
        bm.split(table, [0.5, 0.3])
