"""The engines tell the same story on data where they must, from their default calls."""

from __future__ import annotations

import json
from pathlib import Path

import arviz_stats as azs
import numpy as np
import pytest

import bayesmix as bm

WEIGHTS, MU, SIGMA = np.array([0.3, 0.5, 0.2]), np.array([-4.0, 0.0, 3.0]), np.array([1.0, 0.7, 1.2])


@pytest.fixture(scope="module")
def three_normals() -> np.ndarray:
    rng = np.random.default_rng(20)
    return rng.normal(MU[z := rng.choice(3, 20_000, p=WEIGHTS)], SIGMA[z])


@pytest.mark.slow
def test_nuts_advi_and_map_agree_at_20_000_rows_Normal(three_normals):
    """On these rows the plain PyMC model settles in a wrong mode with R-hat 1.00 from its default start."""
    spec = bm.Mixture(bm.Normal(), 3)
    mode = bm.fit(spec, three_normals, method="map", random_seed=1)
    nuts = bm.fit(spec, three_normals, method="nuts", random_seed=1)
    advi = bm.fit(spec, three_normals, method="advi", random_seed=1)
    assert mode.status.converged
    assert nuts.status.converged
    assert advi.status.converged
    assert float(azs.rhat(nuts.posterior)["mu"].max()) <= 1.01
    assert float(azs.ess(nuts.posterior, method="bulk")["mu"].min()) >= 400
    assert int(nuts.idata["sample_stats"]["diverging"].sum()) == 0
    # the truth, within five posterior sds: the right mode in every chain
    for name, truth in {"weights": WEIGHTS, "mu": MU, "sigma": SIGMA}.items():
        draws = nuts.posterior[name]
        sd = draws.std(("chain", "draw")).values
        assert (np.abs(draws.mean("draw").values - truth) < 5 * sd).all()
        error = azs.mcse(draws).values
        gap = np.abs(draws.mean(("chain", "draw")).values - advi.posterior[name].mean(("chain", "draw")).values)
        # ADVI's mirrored draws carry less Monte-Carlo error than independent ones would
        assert (gap <= 3 * np.hypot(error, sd / np.sqrt(1000))).all()
        for fit in (nuts, advi):
            away = np.abs(fit.posterior[name].mean(("chain", "draw")).values - mode.params[name])
            assert (away <= 0.2 * sd).all()


@pytest.mark.slow
def test_nuts_finds_old_faithfuls_mode_MvNormal():
    rows = json.loads((Path(__file__).parents[1] / "reference" / "faithful.json").read_text())["rows"]
    data = np.array([[row["eruptions"], row["waiting"]] for row in rows])
    fit = bm.fit(bm.Mixture(bm.MvNormal(), 2), data, method="nuts", random_seed=2)
    assert fit.status.converged, fit.status
    each = np.sort(fit.posterior["weights"].mean("draw").values, axis=-1)
    np.testing.assert_allclose(each, [[0.3559, 0.6441]] * 4, atol=0.02)  # published at the maximum of the likelihood


@pytest.mark.slow
def test_pymcs_own_sampler_is_a_choice_Poisson():
    x = np.random.default_rng(0).poisson(np.repeat([2, 15], 80))
    fit = bm.fit(bm.Mixture(bm.Poisson(), 2), x, method="nuts", nuts_sampler="pymc", random_seed=1, cores=1)
    assert fit.status.converged, fit.status
    np.testing.assert_allclose(fit.params["mu"], [2, 15], atol=0.8)
