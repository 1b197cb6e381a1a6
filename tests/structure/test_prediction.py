"""Conditional prediction in a joint mixture, at the source's fitted parameters: P(H | X, Y), P(H | Y), Y given X."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import bayesmix as bm

FOLDER = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def joint():
    data = json.loads((FOLDER / "joint.json").read_text())
    ref = json.loads((FOLDER / "joint.ref.json").read_text())
    spec = bm.JointMixture(
        x=(
            bm.Composite(
                bm.Categorical(p={a: [c[a] for c in ref["x_cat"]] for a in "abc"}),
                bm.Normal(mu=ref["x_mu"], sigma=np.sqrt(ref["x_sigma2"])),
            ),
            3,
        ),
        y=(
            bm.Sequence(
                bm.Normal(mu=ref["y_mu"], sigma=np.sqrt(ref["y_sigma2"])), length=bm.Poisson(mu=ref["y_len_lam"])
            ),
            3,
        ),
        weights=np.array(ref["w1"]) / np.sum(ref["w1"]),
        transition=np.array(ref["taus12"]) / np.sum(ref["taus12"], axis=1, keepdims=True),
    )
    rows = [((data["x_cat"][i], data["x_real"][i]), data["y"][i]) for i in range(200)]
    return spec, bm.fit_em(spec, rows), data, ref


def test_labels_of_y_given_both_fields_and_given_y_alone(joint):
    _, fit, data, _ = joint
    first = data["train_index"][0]
    x, y = (data["x_cat"][first], data["x_real"][first]), data["y"][first]
    assert x[0] == "b"
    both = fit.responsibilities([(x, y)], of="y")
    np.testing.assert_allclose(both[0], [9.99914370e-01, 4.48108839e-07, 8.51814067e-05], rtol=2e-3)
    alone = fit.responsibilities([((None, None), y), (x, y)], of="y")[0]
    np.testing.assert_allclose(alone, [9.98775214e-01, 1.93336787e-06, 1.22285236e-03], rtol=2e-3)


def test_y_given_x_by_the_formula_and_by_draws(joint):
    _, fit, data, ref = joint
    x = [(data["x_cat"][i], data["x_real"][i]) for i in range(40)]
    table = [(each, None) for each in x[:-1]] + [(x[-1], data["y"][39])]
    taus, weights = np.array(ref["taus12"]), np.array(ref["w1"])
    of_x = np.array(
        [
            [
                np.log(weights[k] * ref["x_cat"][k][c])
                + stats.norm.logpdf(v, ref["x_mu"][k], np.sqrt(ref["x_sigma2"][k]))
                for k in range(3)
            ]
            for c, v in x
        ]
    )
    p_z = np.exp(of_x - np.logaddexp.reduce(of_x, axis=1, keepdims=True))
    p_h = p_z @ (taus / taus.sum(1, keepdims=True))
    np.testing.assert_allclose(fit.responsibilities(table)[:-1], p_z[:-1], rtol=1e-9)
    np.testing.assert_allclose(fit.responsibilities(table, of="y")[:-1], p_h[:-1], rtol=1e-9)
    imputed = fit.impute(table, n_draws=600, random_seed=1)
    np.testing.assert_allclose(imputed.means["y"], p_h[:-1] @ np.array(ref["y_mu"]), rtol=1e-9)
    drawn = imputed.draws["y"]
    assert drawn.shape == (600, 39)
    # an element of a drawn sequence, over all rows: within four standard errors of the mean by the formula
    elements = [np.array([v for cell in drawn[:, j] for v in cell]) for j in range(39)]
    errors = [(e.mean() - m) / (e.std() / np.sqrt(len(e) / 3)) for e, m in zip(elements, imputed.means["y"])]
    assert np.abs(errors).max() < 4.5
    lengths = np.array([[len(cell) for cell in row] for row in drawn])
    np.testing.assert_allclose(lengths.mean(), (p_h[:-1] @ np.array(ref["y_len_lam"])).mean(), atol=0.06)
