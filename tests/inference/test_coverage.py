"""Imputation says how sure it is: intervals of deleted cells hold them as often as they claim."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayesmix as bm

REPLICATIONS, ROWS, PROB = 200, 60, 0.89


@pytest.mark.slow
def test_intervals_of_deleted_cells_cover_as_often_as_they_claim_Normal():
    """A tenth of the cells deleted at random, 200 tables. Over some 2,400 cells the standard error is below 1 %."""
    rng = np.random.default_rng(20)
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Normal()), 2)
    inside, cells = 0, 0
    for _ in range(REPLICATIONS):
        gap = rng.uniform(2, 6)
        z = rng.random(ROWS) < rng.uniform(0.3, 0.7)
        whole = np.column_stack(
            [rng.normal(z * gap, rng.uniform(0.7, 1.3), ROWS), rng.normal(z * -gap, rng.uniform(0.7, 1.3), ROWS)]
        )
        gone = rng.random(whole.shape) < 0.1
        gone[0] = [True, False]
        table = pd.DataFrame(np.where(gone, np.nan, whole), columns=["x", "y"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = bm.fit_nuts(
                spec, table, draws=150, tune=200, chains=2, n_starts=4, random_seed=int(rng.integers(2**31))
            )
        summary = fit.impute(n_draws=300, random_seed=1).summary(prob=PROB)
        for (field, row), line in summary.iterrows():
            truth = whole[row, ["x", "y"].index(field)]
            inside += line["low"] <= truth <= line["high"]
            cells += 1
    assert cells > 2000
    assert abs(inside / cells - PROB) < 0.03, inside / cells
