"""Plots: the numbers that are drawn, on trees where they are known by hand."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

import bayesmix as bm

matplotlib.use("Agg")
plots = pytest.importorskip("bayesmix.plots")
plt = pytest.importorskip("matplotlib.pyplot")

RNG = np.random.default_rng(3)
N = 120
GROUP = np.repeat([0, 1], N // 2)
TABLE = {
    "a": np.where(GROUP, 6.0, 0.0) + np.where(RNG.random(N) < 0.5, -1.5, 1.5) + RNG.normal(0, 0.3, N),
    "v": [tuple(row) for row in RNG.normal(np.where(GROUP, 4.0, 0.0)[:, None], 1, (N, 2))],
    "c": RNG.poisson(np.where(GROUP, 2, 15)).astype(float),
    "s": np.where(RNG.random(N) < 0.2 + 0.6 * GROUP, "yes", "no").astype(object),
}
TABLE["a"][:3] = np.nan
TABLE["c"][5] = np.nan
TABLE["s"][7:9] = None
SPEC = bm.Mixture(bm.Composite(a=bm.Mixture(bm.Normal(), 2), v=bm.MvNormal(), c=bm.Poisson(), s=bm.Categorical()), 2)


@pytest.fixture(scope="module")
def fit():
    return bm.fit(SPEC, TABLE, random_seed=1)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_fields_draws_weight_times_density(fit):
    _, axes = plots.plot_fields(fit)
    assert [axis.get_title(loc="left") for axis in axes] == ["a", "v[0]", "v[1]", "c", "s"]
    params = fit.params
    first, second, total = axes[0].lines
    for k, line in enumerate((first, second)):
        x, drawn = line.get_data()
        inner = stats.norm(params["a_mu"][k], params["a_sigma"][k]).pdf(x[:, None]) @ params["a_weights"][k]
        np.testing.assert_allclose(drawn, params["weights"][k] * inner, rtol=1e-9)
    np.testing.assert_allclose(total.get_ydata(), first.get_ydata() + second.get_ydata(), rtol=1e-12)


def test_fields_smooths_the_coordinates_of_vectors(fit):
    _, axes = plots.plot_fields(fit)
    x, drawn = axes[1].lines[-1].get_data()
    # curves are cut at the data's ends, a kernel estimate of 3000 draws: a few per cent
    assert abs(np.trapezoid(drawn, x) - 1) < 0.05


def test_fields_bars_add_up_to_the_mixture(fit):
    _, axes = plots.plot_fields(fit)
    bars = [patch for patch in axes[4].patches if patch.get_width() < 0.9]
    by_symbol = np.array([patch.get_height() for patch in bars]).reshape(2, 2).sum(0)
    np.testing.assert_allclose(by_symbol, fit.params["weights"] @ fit.params["s_p"], rtol=1e-9)


def test_fields_of_a_spec_without_components():
    figure, axes = plots.plot_fields(bm.fit(bm.Poisson(), np.array([0, 1, 4, 2, 1])))
    assert len(axes) == 1
    assert figure is axes[0].figure


def test_responsibilities_by_group(fit):
    _, axes = plots.plot_responsibilities(fit, groups=np.where(GROUP, "high", "low"))
    assert [axis.get_xlabel() for axis in axes] == ["high (60 rows)", "low (60 rows)"]
    with pytest.raises(ValueError, match="one label a row"):
        plots.plot_responsibilities(fit, groups=["a"])


def test_imputation_names_the_rows(fit):
    figure, axes = plots.plot_imputation(fit.impute(n_draws=50, random_seed=1))
    assert [axis.get_title(loc="left") for axis in axes] == ["a", "c", "s"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0", "1", "2", "5", "7", "8"]
    figure.canvas.draw()


def test_imputation_of_a_whole_table_says_so():
    fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    with pytest.raises(ValueError, match="no cell of the table is missing"):
        plots.plot_imputation(fit.impute(n_draws=5))


def test_starts_shows_every_start(fit):
    _, axes = plots.plot_starts(fit)
    assert sum(len(line.get_xdata()) for line in axes[1].lines) == len(fit.starts) == 16
