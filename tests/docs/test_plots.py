"""Plots: the numbers that are drawn, on trees where they are known by hand."""

import itertools
import re

import matplotlib
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayesmix as bm
from bayesmix.fit import Fit, Status, make_fit
from tests.docs import pictures

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


# ---------------------------------------------------------------- every structure

C, M, S = bm.Composite, bm.Mixture, bm.Sequence
MORE = {
    **TABLE,
    "n": RNG.poisson(np.where(GROUP, 300, 90)),
    "b": RNG.random(N) < 0.2 + 0.6 * GROUP,
    "e": RNG.exponential(np.where(GROUP, 1.0, 9.0)),
    "o": [None if RNG.random() < 0.1 + 0.5 * g else int(RNG.poisson(3 + 6 * g)) for g in GROUP],
    "t": [frozenset(t for t, p in zip("pqr", ps) if RNG.random() < p) for ps in np.array([[0.1, 0.9, 0.5]] * N)],
    "q": [RNG.normal(5 * g, 1, RNG.poisson(3 + 5 * g)).tolist() for g in GROUP],
    "w": [RNG.normal(5 * g, 1, (RNG.poisson(3), 2)).tolist() for g in GROUP],
    "r": [[{"u": RNG.normal(), "s": "no"} for _ in range(RNG.poisson(2))] for g in GROUP],
    "m": [list(RNG.choice(["x", "y"], RNG.poisson(4), p=[0.2 + 0.6 * g, 0.8 - 0.6 * g])) for g in GROUP],
    "d": [{"k": RNG.normal(), "l": "no" if RNG.random() < 0.5 else "yes"} for _ in GROUP],
}
MORE["q"][2], MORE["m"][3], MORE["t"][4], MORE["d"][6] = None, None, None, None
MORE["q"][10] = [1.0, None]
MORE["h"] = [(None, 1.0), (2.0, None), None, *MORE["v"][3:]]

TREES = {
    "leaf": (bm.Bernoulli(), "b", ["x"]),
    "leaf-vector": (bm.MvNormal(), "v", ["x1", "x2"]),
    "vectors-with-gaps": (M(C(h=bm.MvNormal()), 2), "h", ["h[0]", "h[1]"]),
    "composite": (C(n=bm.Poisson(), e=bm.Exponential()), "ne", ["n", "e"]),
    "composite-mixtures": (C(a=M(bm.Normal(), 2), c=M(bm.Poisson(), 2)), "ac", ["a", "c"]),
    "composite-tied": (C(a=bm.Normal(tie="z"), e=bm.Normal(tie="z")), "ae", ["a", "e"]),
    "mixture-tied": (M(C(a=bm.Normal(tie="z"), e=bm.Normal(tie="z"), b=bm.Bernoulli()), 2), "aeb", ["a", "e", "b"]),
    "tied-mixtures": (C(a=M(bm.Normal(), 2, tie="z"), e=M(bm.Normal(), 2, tie="z")), "ae", ["a", "e"]),
    "heterogeneous": (M([bm.Normal(), bm.Exponential(), bm.Normal()]), "e", ["x"]),
    "heterogeneous-counts": (M([bm.Poisson(), bm.SpikeAndSlab()]), "n", ["x"]),
    "heterogeneous-records": (
        M([C(e=bm.Normal(), b=bm.Bernoulli()), C(e=bm.LogNormal(), b=bm.Bernoulli())]),
        "eb",
        "eb",
    ),
    "heterogeneous-inner": (M(C(e=M([bm.Exponential(), bm.Normal()]), c=bm.Poisson()), 2), "ec", ["e", "c"]),
    "optional": (M(C(o=bm.Optional(bm.Poisson()), c=bm.Optional(bm.Poisson(), p=False)), 2), "oc", ["o", "c"]),
    "optional-alone": (bm.Optional(bm.Poisson()), "o", ["x"]),
    "optional-record": (
        M(C(d=bm.Optional(C(k=bm.Normal(), l=bm.Categorical())), c=bm.Poisson()), 2),
        "dc",
        ["d.k", "d.l", "c"],
    ),
    "set": (M(bm.BernoulliSet(), 2), "t", ["x"]),
    "sequence": (M(C(q=S(bm.Normal())), 2), "q", ["q[]"]),
    "sequence-length": (M(C(q=S(bm.Normal(), bm.Poisson()), s=bm.Categorical()), 2), "qs", ["q[]", "q.length", "s"]),
    "sequence-optional": (M(S(bm.Optional(bm.Normal())), 2), "q", ["x[]"]),
    "sequence-outside": (S(M(bm.Normal(), 2), bm.Poisson()), "q", ["x[]", "length"]),
    "sequence-vectors": (M(C(w=S(bm.MvNormal())), 2), "w", ["w[][0]", "w[][1]"]),
    "sequence-records": (M(C(r=S(C(u=bm.Normal(), s=bm.Categorical()))), 2), "r", ["r[].u", "r[].s"]),
    "sequence-chains": (M(C(m=bm.Optional(bm.MarkovChain())), 2), "m", ["m", "m: next symbol"]),
    "chain": (M(bm.MarkovChain(length=bm.Poisson()), 2), "m", ["x", "x: next symbol", "length"]),
    "hierarchical": (
        bm.HierarchicalMixture(bm.Normal(), n_topics=2, n_mixtures=2, length=bm.Poisson()),
        "q",
        ["x[]", "length"],
    ),
    "hierarchical-mixed": (bm.HierarchicalMixture([bm.Normal(), bm.Normal(sigma=9.0)], n_mixtures=2), "q", ["x[]"]),
    "joint": (bm.JointMixture(a=(bm.Normal(), 3), q=(S(bm.Normal()), 2)), "aq", ["a", "q[]"]),
    "positional": (M(C(bm.Normal(), bm.Poisson()), 2), "ac", ["x1", "x2"]),
}


def fitted(name: str) -> Fit:
    spec, fields, _ = TREES[name]
    node = spec
    while isinstance(node, bm.Mixture):
        node = node.component
    if isinstance(node, C):
        data = {field: MORE[field] for field in fields}
    else:
        data = MORE[fields]
    return bm.fit_em(spec, data, n_starts=3, random_seed=1)


def areas(axis) -> np.ndarray:
    """Area under each component's curve, the mixture's last."""
    return np.array([np.trapezoid(line.get_ydata(), line.get_xdata()) for line in axis.lines])


def bars(axis, n_components: int) -> np.ndarray:
    """Heights (1 + G, n): of what was observed, and of each component."""
    return np.array([patch.get_height() for patch in axis.patches]).reshape(1 + n_components, -1)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")
def test_fields_of_every_structure(name):
    """Each field has its panel, and what is drawn there adds up to one: a density, or shares of symbols."""
    fit = fitted(name)
    figure, axes = plots.plot_fields(fit)
    assert [axis.get_title(loc="left") for axis in axes] == list(TREES[name][2])
    figure.canvas.draw()
    for axis in axes:
        if axis.images or "set" in name:
            continue
        if len(axis.lines):
            *each, total = areas(axis)
            np.testing.assert_allclose(total, sum(each), rtol=1e-9)
        else:
            total = sum(patch.get_height() for patch in axis.patches if patch.get_width() < 0.9)
        # the axis ends a little beyond the data: what a wide component has beyond it is missing from the sum
        assert 0.7 < total < 1.03


def test_components_of_several_families_share_a_panel():
    fit = fitted("heterogeneous")
    _, (axis,) = plots.plot_fields(fit)
    p = fit.params
    densities = [
        stats.norm(p["normal_mu"][0], p["normal_sigma"][0]).pdf,
        stats.expon(scale=p["exponential_scale"][0]).pdf,
        stats.norm(p["normal_mu"][1], p["normal_sigma"][1]).pdf,
    ]
    for k, (line, density) in enumerate(zip(axis.lines, densities)):
        x, drawn = line.get_data()
        np.testing.assert_allclose(drawn, p["weights"][k] * density(x), rtol=1e-9, atol=1e-300)


def test_kinds_of_sequences_weigh_by_their_elements():
    """A kind whose sequences are long has more of the elements than of the rows."""
    fit = fitted("hierarchical")
    _, (elements, lengths) = plots.plot_fields(fit)
    p = fit.params
    share = p["weights"] * p["length_mu"] / (p["weights"] @ p["length_mu"])
    np.testing.assert_allclose(areas(elements)[:2], share, atol=0.02)
    k, (x, drawn) = 1, elements.lines[1].get_data()
    inner = stats.norm(p["topic_mu"], p["topic_sigma"]).pdf(x[:, None]) @ p["topic_weights"][k]
    np.testing.assert_allclose(drawn / drawn.max(), inner / inner.max(), rtol=1e-9, atol=1e-12)
    n = np.arange(int(min(map(len, filter(None, MORE["q"])))), int(max(map(len, filter(None, MORE["q"])))) + 1)
    drawn = bars(lengths, 2)
    n = np.arange(n[-1] + 1 - drawn.shape[1], n[-1] + 1)
    np.testing.assert_allclose(
        drawn[1:], p["weights"][:, None] * stats.poisson.pmf(n, p["length_mu"][:, None]), rtol=1e-9
    )


def test_missing_cells_of_the_model_have_a_bar():
    fit = fitted("optional")
    _, (informative, plain) = plots.plot_fields(fit)
    p = fit.params
    here, gone = p["weights"] * (1 - p["o_p_missing"]), p["weights"] * p["o_p_missing"]
    drawn = bars(informative, 2)
    assert drawn[0].sum() == pytest.approx(1)  # shares of what is there
    grid = np.array([patch.get_x() + patch.get_width() / 2 for patch in informative.patches[: drawn.shape[1]]])
    expected = here[:, None] / here.sum() * stats.poisson.pmf(grid, p["o_mu"][:, None])
    np.testing.assert_allclose(drawn[1:], expected, rtol=0.1)  # 4,000 draws of whether a cell is there
    (bar,) = informative.child_axes
    share = np.mean([value is None for value in MORE["o"]])
    np.testing.assert_allclose(bars(bar, 2).ravel(), [share, *gone], atol=0.02)
    assert informative.get_title(loc="right") == f"{share:.0%} missing"
    assert plain.get_title(loc="right") == "1% missing"


def test_chains_show_symbols_and_transitions():
    fit = fitted("chain")
    _, (symbols, transitions, _) = plots.plot_fields(fit)
    chains = [chain for chain in MORE["m"] if chain is not None]
    observed = bars(symbols, 2)[0]
    letters = [letter for chain in chains for letter in chain]
    np.testing.assert_allclose(observed, [letters.count("x") / len(letters), letters.count("y") / len(letters)])
    np.testing.assert_allclose(bars(symbols, 2)[1:].sum(0), observed, atol=0.05)
    pairs = np.zeros((2, 2))
    for chain in chains:
        for one, next_one in itertools.pairwise(chain):
            pairs["xy".index(one), "xy".index(next_one)] += 1
    shown = [np.asarray(image.get_array()) for image in transitions.images]
    full = np.array([1 - 0x55 / 255, *(1 - int(colour[1:3], 16) / 255 for colour in plots.COLOURS[:2])])
    shares = [(1 - image[:, :, 0]) / dark for image, dark in zip(shown, full)]
    np.testing.assert_allclose(shares[0], pairs / pairs.sum(1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(shares[1:], fit.params["transition"], atol=0.05)


def test_sets_show_how_many_hold_each_symbol():
    fit = fitted("set")
    _, (axis,) = plots.plot_fields(fit)
    sets = [held for held in MORE["t"] if held is not None]
    np.testing.assert_allclose(bars(axis, 2)[0], [np.mean([s in held for held in sets]) for s in "pqr"])
    np.testing.assert_allclose(bars(axis, 2)[1:], fit.params["weights"][:, None] * fit.params["p"], atol=0.03)


def test_joint_mixtures_show_the_second_field_by_the_first_ones_components():
    fit = fitted("joint")
    _, (first, second) = plots.plot_fields(fit)
    p = fit.params
    for k, (one, other) in enumerate(zip(first.lines[:3], second.lines)):
        x, drawn = one.get_data()
        np.testing.assert_allclose(drawn, p["weights"][k] * stats.norm(p["a_mu"][k], p["a_sigma"][k]).pdf(x), rtol=1e-9)
        x, drawn = other.get_data()
        inner = stats.norm(p["q_mu"], p["q_sigma"]).pdf(x[:, None]) @ p["transition"][k]
        np.testing.assert_allclose(drawn, p["weights"][k] * inner, rtol=0.04)  # 4,000 draws of the sequences' lengths


def test_curves_follow_components_narrower_than_the_screen():
    """A spike of width 0.001 among values up to 100 was between two points of the grid."""
    x = np.concatenate([RNG.normal(50, 0.001, 60), RNG.uniform(0, 100, 60)])
    spec = M([bm.Normal(mu=50.0, sigma=0.001), bm.Normal(mu=50.0, sigma=30.0)])
    fit = bm.fit_em(spec, x, random_seed=1)
    _, (axis,) = plots.plot_fields(fit)
    np.testing.assert_allclose(areas(axis)[0], fit.params["weights"][0], rtol=0.02)


def test_responsibilities_of_many_components_are_a_heat_map():
    _, (axis,) = plots.plot_responsibilities(pictures.twelve())
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn.shape == (12, 72)
    np.testing.assert_allclose(drawn.sum(0), 1)
    assert (drawn.argmax(0) == np.repeat(np.arange(12), 6)).all()
    assert not axis.figure.legends


def test_a_component_on_one_value_does_not_hide_the_others():
    """Its curve was a thousand times as high as the histogram, which shrank to a line."""
    x = np.concatenate([np.zeros(60), RNG.exponential(10, 60)])
    fit = bm.fit_em(M([bm.Exponential(scale=0.001), bm.Exponential(scale=10.0)]), x, random_seed=1)
    _, (axis,) = plots.plot_fields(fit)
    tallest = max(bar.get_height() for bar in axis.patches)
    assert axis.get_ylim()[1] == pytest.approx(1.5 * tallest)
    assert [text.get_text() for text in axis.texts] == ["↑ peak at 0 cut off"]
    _, (axis,) = plots.plot_fields(bm.fit_em(M([bm.Exponential(scale=9.0), bm.Exponential(scale=11.0)]), x + 1))
    assert not axis.texts


def test_fields_of_a_posterior_and_of_other_rows():
    """Curves are means over draws; a field without any value is drawn all the same."""
    fit = bm.fit_em(M(C(e=bm.Exponential(), c=bm.Poisson()), 2), {k: MORE[k] for k in "ec"}, random_seed=1)
    factors = np.array([[0.9, 1.1, 1.0], [1.2, 0.8, 1.0]])
    draws = {name: np.stack([fit.params[name]] * 6).reshape(2, 3, -1) for name in fit.bound.free_slots}
    draws["e_scale"] = draws["e_scale"] * factors[:, :, None]
    status = Status("none", True, "made up")
    many = make_fit(fit.bound, draws, table=fit.table, encoded=fit.encoded, row_weights=None, status=status)
    figure, axes = plots.plot_fields(many, {"e": [1.0, None, 3.0], "c": [None, None, None]})
    assert [axis.get_title(loc="right") for axis in axes] == ["33% missing", "100% missing"]
    figure.canvas.draw()
    x, drawn = axes[0].lines[0].get_data()
    each = [stats.expon(scale=scale).pdf(x) for scale in draws["e_scale"][:, :, 0].ravel()]
    np.testing.assert_allclose(drawn, fit.params["weights"][0] * np.mean(each, axis=0), rtol=1e-9)


def test_imputation_of_every_kind_of_cell():
    spec = M(
        C(
            t=bm.BernoulliSet(),
            q=S(bm.Normal()),
            m=bm.MarkovChain(),
            v=bm.MvNormal(),
            o=bm.Optional(bm.Poisson()),
            d=C(k=bm.Normal(), l=bm.Categorical()),
        ),
        2,
    )
    table = {name: list(MORE[name]) for name in "tqmvod"}
    table["v"][8], table["v"][9] = None, (None, 1.0)
    fit = bm.fit_em(spec, table, n_starts=3, random_seed=1)
    figure, axes = plots.plot_imputation(fit.impute(n_draws=50, random_seed=1))
    titles = ["t", "q (length)", "q[]", "m (length)", "v[0]", "v[1]", "o", "d.k", "d.l"]
    assert [axis.get_title(loc="left") for axis in axes] == titles
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert "10[1]" in labels
    assert [len(axis.lines[0].get_ydata()) for axis in axes[4:6]] == [2, 1]  # of row 9 the first coordinate only
    assert labels[:2] == ["2", "3"]
    figure.canvas.draw()


# ---------------------------------------------------------------- trajectories

STEPS = np.arange(30)
OBJECTIVE = ("iteration", -100 - 0.5**STEPS)
MU = np.stack([-2 + 0.6**STEPS, 2 - 0.8**STEPS], axis=1)


def test_trajectory_shows_the_objective_and_locations():
    trajectory = xr.Dataset(
        {
            "weights": (("iteration", "component"), np.full((30, 2), 0.5)),
            "mu": (("iteration", "component"), MU),
            "objective": OBJECTIVE,
            "validation": ("iteration", -np.abs(STEPS - 12.0)),
        }
    )
    _, (objective, path) = plots.plot_trajectory(trajectory)
    steps, gap = objective.lines[0].get_data()
    np.testing.assert_allclose(gap, 0.5**steps - 0.5**29, rtol=1e-5)
    np.testing.assert_array_equal(objective.lines[2].get_xdata(), [12, 12])  # the best for the validation rows
    assert path.get_title(loc="left") == "mu"
    np.testing.assert_array_equal(path.lines[0].get_ydata(), MU[:, 0])
    np.testing.assert_array_equal(path.lines[2].get_ydata(), MU[:, 1])
    _, (_, path) = plots.plot_trajectory(trajectory, parameter="weights")
    assert path.get_title(loc="left") == "weights"
    with pytest.raises(ValueError, match="'sigma' is not in the trajectory"):
        plots.plot_trajectory(trajectory, parameter="sigma")


def test_trajectory_of_means_in_the_plane():
    means = np.stack([MU, MU[:, ::-1]], axis=1)
    trajectory = xr.Dataset(
        {"v_mu": (("iteration", "component", "v_coordinate"), means), "objective": OBJECTIVE},
        coords={"v_coordinate": ["east", "north"]},
    )
    figure, (_, path) = plots.plot_trajectory(trajectory)
    x, y = path.lines[0].get_data()
    np.testing.assert_array_equal(np.stack([x, y], axis=1), means[:, 0])
    assert (path.get_xlabel(), path.get_ylabel()) == ("east", "north")
    figure.canvas.draw()


def test_trajectory_says_what_is_missing(fit):
    with pytest.raises(ValueError, match="kept no trajectory"):
        plots.plot_trajectory(fit)
    with pytest.raises(ValueError, match="'objective'"):
        plots.plot_trajectory(xr.Dataset({"mu": (("iteration",), STEPS)}))


# ---------------------------------------------------------------- posteriors and wide tables


def test_fields_of_a_posterior_have_bands():
    fit = pictures.three(9)
    _, (height, _, team) = plots.plot_fields(fit, prob=0.5)
    x = height.lines[0].get_xdata()
    draws = fit._draws(None)
    each = np.array([p["weights"] * stats.norm(p["height_mu"], p["height_sigma"]).pdf(x[:, None]) for p in draws])
    outlines = [band.get_paths()[0].vertices for band in height.collections]
    # a band and the area of each of three components, then the mixture's band
    assert len(outlines) == 7
    for outline, curve in ((outlines[0], each[:, :, 0]), (outlines[6], each.sum(2))):
        at = np.searchsorted(x, 1.0)
        ends = np.quantile(curve[:, at], [0.25, 0.75])
        drawn = outline[np.isclose(outline[:, 0], x[at]), 1]
        np.testing.assert_allclose([drawn.min(), drawn.max()], ends, rtol=1e-9)
    lines = team.collections[0].get_segments()
    shares = np.array([p["weights"] @ p["team_p"] for p in draws])
    np.testing.assert_allclose([line[:, 1] for line in lines], np.quantile(shares, [0.25, 0.75], axis=0).T, rtol=1e-9)


def test_coordinates_of_vectors_have_their_marginal_density(fit):
    _, axes = plots.plot_fields(fit, fields="v")
    p = fit.params
    for d, axis in enumerate(axes):
        for k, line in enumerate(axis.lines[:2]):
            x, drawn = line.get_data()
            marginal = stats.norm(p["v_mu"][k, d], np.sqrt(p["v_cov"][k, d, d]))
            np.testing.assert_allclose(drawn, p["weights"][k] * marginal.pdf(x), rtol=1e-9)


def test_wide_tables_show_the_panels_that_differ_most():
    """Every seventh of 200 fields differs, the later the more."""
    fit = pictures.wide()
    figure, axes = plots.plot_fields(fit, max_panels=3)
    assert len(axes) == 3
    assert all(int(axis.get_title(loc="left")[-3:]) % 7 == 0 for axis in axes)
    assert figure.get_suptitle().startswith("3 of 200 panels")
    figure, axes = plots.plot_fields(fit, fields="measurement_of_the_quantity_3")
    assert len(axes) == 1
    assert figure.get_suptitle() == ""


def test_wide_tables_show_the_profiles_that_differ_most():
    fit = pictures.wide()
    figure, axes = plots.plot_profiles(fit, max_rows=10)
    assert all(int(label.get_text().split("_")[-1]) % 7 == 0 for label in axes[0].get_yticklabels())
    assert figure.get_suptitle().startswith("10 of 200 lines")


def test_wide_tables_show_the_pairs_that_differ_most():
    figure, axes = plots.plot_pairs(pictures.wide(), max_fields=2)
    assert axes.shape == (2, 2)
    assert figure.get_suptitle().startswith("2 of 200 numbers")
    assert int(axes[1, 0].get_ylabel()[-3:]) % 7 == 0


def test_fields_that_are_not_there_are_named():
    for plot in (plots.plot_fields, plots.plot_profiles, plots.plot_pairs):
        with pytest.raises(ValueError, match=r"no field is called 'hight'. Use 'height', 'weight'"):
            plot(pictures.three(), fields=["hight"])


def test_imputation_of_many_fields_shows_those_with_most_gaps(fit):
    imputation = fit.impute(n_draws=20, random_seed=1)
    figure, axes = plots.plot_imputation(imputation, max_fields=2)
    assert [axis.get_title(loc="left") for axis in axes] == ["a", "s"]
    assert figure.get_suptitle().startswith("2 of 3 panels")
    _, axes = plots.plot_imputation(imputation, fields="c")
    assert [axis.get_title(loc="left") for axis in axes] == ["c"]


# ---------------------------------------------------------------- profiles and pairs


def test_profiles_draw_means_in_standard_deviations():
    fit = pictures.three(9)
    _, axes = plots.plot_profiles(fit, prob=0.5)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["height", "weight", "team = red"]
    draws = fit._draws(None)
    red = [float(value == "red") for value in pictures.TABLE["team"] if value is not None]
    columns = [pictures.TABLE["height"], pictures.TABLE["weight"][9:], np.array(red)]
    for k, axis in enumerate(axes):
        means = np.array([[p["height_mu"][k], p["weight_mu"][k], p["team_p"][k, 1]] for p in draws])
        scaled = (means - [column.mean() for column in columns]) / [column.std() for column in columns]
        drawn = [patch.get_width() for patch in axis.patches]
        np.testing.assert_allclose(drawn, scaled.mean(0), rtol=1e-9)
        ends = np.array([line[:, 0] for line in axis.collections[-1].get_segments()])
        np.testing.assert_allclose(ends, np.quantile(scaled, [0.25, 0.75], axis=0).T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["optional-record", "sequence-length", "set", "chain", "hierarchical", "joint", "leaf"]
)
@pytest.mark.filterwarnings("ignore::bayesmix.errors.BayesmixWarning")
def test_profiles_of_every_structure(name):
    """The weighted mean over components is that of the rows: about 0, as EM fits the means."""
    fit = fitted(name)
    figure, axes = plots.plot_profiles(fit)
    figure.canvas.draw()
    assert len(axes) == (len(fit.params["weights"]) if "weights" in fit.params else 1)
    assert all(len(axis.patches) == len(axes[0].patches) > 0 for axis in axes)
    if name in ("set", "joint"):
        weights = fit.params["weights"]
        widths = np.array([[patch.get_width() for patch in axis.patches] for axis in axes])
        np.testing.assert_allclose((weights @ widths)[: 3 if name == "set" else 1], 0, atol=0.05)


def test_profiles_need_common_components():
    spec = C(a=M(bm.Normal(), 2), c=M(bm.Poisson(), 2))
    fit = bm.fit_em(spec, {k: MORE[k] for k in "ac"}, n_starts=2, random_seed=1)
    with pytest.raises(bm.SpecError, match=r"Use plot_fields"):
        plots.plot_profiles(fit)


def test_pairs_have_an_ellipse_for_each_component():
    """The ellipse of a component has its mean and standard deviations."""
    figure, axes = plots.plot_pairs(pictures.three(), prob=0.5)
    assert not axes[0, 1].get_visible()
    pair = axes[1, 0]
    outlines = [line.get_data() for line in pair.lines[1::2]]
    assert len(outlines) == 3
    p = pictures.PARAMS
    for k, (x, y) in enumerate(outlines):
        middle = ((x.max() + x.min()) / 2, (y.max() + y.min()) / 2)
        np.testing.assert_allclose(middle, [p["height_mu"][k], p["weight_mu"][k]], atol=0.06)  # of 4,000 drawn rows
        radius = np.sqrt(stats.chi2.ppf(0.5, 2))
        np.testing.assert_allclose(np.ptp(x) / 2, radius * p["height_sigma"][k], rtol=0.05)
        np.testing.assert_allclose(np.ptp(y) / 2, radius * p["weight_sigma"][k], rtol=0.05)
    points = sum(len(each.get_offsets()) for each in pair.collections)
    assert points == 66  # nine of the 75 rows have no weight
    figure.canvas.draw()


def test_pairs_need_two_numbers_and_a_mixture(fit):
    with pytest.raises(ValueError, match=r"1 number in a row, and a pair plot needs two. Use plot_fields"):
        plots.plot_pairs(fit, fields="a")
    with pytest.raises(bm.SpecError, match=r"Wrap it in bm\.Mixture"):
        plots.plot_pairs(bm.fit(C(n=bm.Poisson(), e=bm.Exponential()), {"n": MORE["n"], "e": MORE["e"]}))


# ---------------------------------------------------------------- rows


def test_simplex_has_a_corner_for_each_of_three_components(fit):
    three = pictures.three()
    _, (axis,) = plots.plot_simplex(three)
    resp = three.responsibilities()
    counts = [text.get_text() for text in axis.texts]
    assert counts == [f"component {k}\n{(resp[:, k] > 0.9).sum()} sure" for k in range(3)]
    assert sum(len(each.get_offsets()) for each in axis.collections) == 75
    _, axes = plots.plot_simplex(three, groups=pictures.GROUP)
    assert [axis.get_title() for axis in axes] == ["0 (30 rows)", "1 (20 rows)", "2 (25 rows)"]
    with pytest.raises(ValueError, match=r"there are 2 components. Use plot_responsibilities"):
        plots.plot_simplex(fit)


def test_coclustering_is_ordered_by_the_partition():
    fit = pictures.three(9)
    _, (axis,) = plots.plot_coclustering(fit, random_seed=1)
    drawn = np.asarray(axis.images[0].get_array())
    together, labels = fit.coclustering(), fit.partition(random_seed=1).labels
    np.testing.assert_allclose(np.sort(drawn.ravel()), np.sort(together.ravel()))
    begin = 0
    for k in np.unique(labels):
        size = (labels == k).sum()
        own = drawn[begin : begin + size, begin : begin + size]
        np.testing.assert_allclose(own.sum(), together[np.ix_(labels == k, labels == k)].sum(), rtol=1e-9)
        begin += size


# ---------------------------------------------------------------- the model


def test_transitions_write_the_matrix():
    fit = pictures.joint()
    _, (shares, matrix) = plots.plot_transitions(fit)
    np.testing.assert_allclose([patch.get_width() for patch in shares.patches], fit.params["weights"])
    p = fit.params["transition"]
    assert [text.get_text() for text in matrix.texts[::2]] == [f"{each:.2f}" for each in p.ravel()]
    low, high = np.quantile([draw["transition"] for draw in fit._draws(None)], [0.055, 0.945], axis=0)
    assert matrix.texts[1].get_text() == f"{low[0, 0]:.2f}–{high[0, 0]:.2f}"


def test_topics_have_a_panel_for_each_kind():
    fit = pictures.topics()
    _, axes = plots.plot_topics(fit)
    assert [axis.get_title(loc="left") for axis in axes] == ["mixture 0 (70%)", "mixture 1 (30%)"]
    drawn = [[patch.get_height() for patch in axis.patches] for axis in axes]
    np.testing.assert_allclose(drawn, fit.params["topic_weights"])


def test_linked_mixtures_are_told_apart(fit):
    with pytest.raises(bm.SpecError, match=r"as in bm.JointMixture. Use plot_topics for 'topic_weights'"):
        plots.plot_transitions(pictures.topics())
    with pytest.raises(bm.SpecError, match=r"as in bm.HierarchicalMixture. Use plot_transitions for 'transition'"):
        plots.plot_topics(pictures.joint())
    with pytest.raises(bm.SpecError, match=r"Use plot_fields"):
        plots.plot_topics(fit)


def test_chains_have_an_arrow_for_each_probability():
    fit = pictures.chain()
    figure, axes = plots.plot_chain(fit)
    for axis, transition in zip(axes, fit.params["transition"]):
        written = sorted(text.get_text() for text in axis.texts if text.get_text()[0].isdigit())
        assert written == sorted(f"{p:.2f}" for p in transition.ravel() if p >= 0.05)
    assert figure.get_suptitle() == "arrows below 0.05 are left out"
    # the sizes of nodes are ordered as the shares in the long run are: of 1 = P' 1
    from matplotlib.patches import Circle

    transition = fit.params["transition"][0]
    values, vectors = np.linalg.eig(transition.T)
    stationary = vectors[:, np.argmax(values.real)].real
    radii = [patch.radius for patch in axes[0].patches if isinstance(patch, Circle) and patch.get_fill()]
    assert np.argsort(radii).tolist() == np.argsort(stationary / stationary.sum()).tolist()
    figure, _ = plots.plot_chain(fit, max_states=2)
    assert figure.get_suptitle().startswith("2 of 3 symbols")


def test_chains_are_named_where_there_are_several(fit):
    with pytest.raises(bm.SpecError, match=r"no field is a Markov chain. Use plot_fields"):
        plots.plot_chain(fit)
    with pytest.raises(bm.SpecError, match=r"no chain is called 'm'. There is one only: leave of= out"):
        plots.plot_chain(pictures.chain(), of="m")


def test_model_names_every_parameter():
    fit = pictures.joint()
    figure, (axis,) = plots.plot_model(fit)
    texts = " ".join(text.get_text() for text in axis.texts)
    for name in fit.bound.slots:
        assert name in texts
    assert "JointMixture of 3" in texts
    assert "x: Normal" in texts
    figure.canvas.draw()
    _, (axis,) = plots.plot_model(bm.Mixture(bm.Normal(sigma=2.0), 2))
    assert "sigma = 2" in [text.get_text() for text in axis.texts]
    _, (axis,) = plots.plot_model(pictures.wide(), max_fields=3)
    assert [text.get_text() for text in axis.texts][-2:] == ["… 197 more", "197 × Normal"]
    with pytest.raises(TypeError, match=r"a Fit or a spec is needed"):
        plots.plot_model({"x": 1})


# ---------------------------------------------------------------- the number of components


def test_selection_rings_what_each_criterion_likes_best():
    selection = pictures.selection()
    _, axes = plots.plot_selection(selection)
    titles = ["BIC (low is good)", "ICL (low is good)", "leave-one-out (high is good)"]
    assert [axis.get_title(loc="left") for axis in axes] == titles
    ringed = [next(line for line in axis.lines if line.get_markersize() == 12).get_xdata()[0] for axis in axes]
    assert [selection.table.index[i] for i in ringed] == [3, 2, 3]
    hollow = [line.get_xdata().tolist() for line in axes[0].lines if line.get_markerfacecolor() == "white"]
    assert hollow == [[4]]
    crosses = [line.get_xdata().tolist() for line in axes[0].lines if line.get_marker() == "x"]
    assert crosses == [[3]]
    bars = axes[2].collections[0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [-112, -88])  # two standard errors of 6
    with pytest.raises(TypeError, match=r"what bm.select gives"):
        plots.plot_selection([1, 2])


@pytest.mark.parametrize("name", plots.__all__)
def test_what_is_no_fit_is_said_to_be_none(name):
    """A fit where an imputation or a selection is meant, or text, ended in an AttributeError."""
    wanted = {
        "plot_imputation": r"^imputation: what fit\.impute\(\) gives is needed, not (Fit|str)\.$",
        "plot_selection": r"^selection: what bm\.select gives is needed, not (Fit|str)\.$",
        "plot_trajectory": r"^fit: a Fit or its trajectory is needed, not str\.$",
        "plot_model": r"^model: a Fit or a spec is needed, not str\.$",
    }
    for wrong in ("a", pictures.chain()) if name in ("plot_imputation", "plot_selection") else ("a",):
        with pytest.raises(TypeError, match=wanted.get(name, r"^fit: a Fit is needed, not str\.$")):
            getattr(plots, name)(wrong)


def test_fourteen_components_look_different():
    from bayesmix.plots import _looks

    for style in (_looks.line, _looks.mark, lambda k: _looks.fill(k)["hatch"]):
        assert len({(_looks.colour(k), str(style(k))) for k in range(49)}) == 49


# ---------------------------------------------------------------- what is too much, too little or not there


def panels_of(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def test_transitions_of_many_components_are_shades_alone():
    rng = np.random.default_rng(2)
    spec = bm.JointMixture(x=(bm.Normal(), 11), y=(bm.Poisson(), 10))
    params = {
        "weights": np.full(11, 1 / 11),
        "transition": rng.dirichlet(np.ones(10), 11),
        "x_mu": np.arange(11.0),
        "x_sigma": np.ones(11),
        "y_mu": np.arange(1.0, 11.0),
    }
    fit = pictures.made(spec, {"x": np.arange(11.0), "y": np.arange(11)}, params)
    _, (_, matrix) = plots.plot_transitions(fit)
    assert not matrix.texts
    red = np.asarray(matrix.images[0].get_array())[:, :, 0]
    assert red.shape == (11, 10)
    assert (np.argsort(red.ravel()) == np.argsort(-params["transition"].ravel())).all()  # the darker the likelier


def test_topics_of_many_kinds_are_those_that_count():
    """Of 33 topics the 30 with the largest weights, of 26 kinds the 24 that are frequent."""
    rng = np.random.default_rng(4)
    for n_mixtures, n_topics, note in ((5, 3, ""), (26, 33, "30 of 33 topics: .*; 24 of 26 kinds: the most frequent")):
        spec = bm.HierarchicalMixture(bm.Poisson(), n_topics=n_topics, n_mixtures=n_mixtures)
        params = {
            "weights": rng.dirichlet(np.full(n_mixtures, 50.0)),
            "topic_weights": rng.dirichlet(np.ones(n_topics), n_mixtures),
            "topic_mu": np.arange(1.0, n_topics + 1),
        }
        rows = [list(range(i % 3, i % 3 + 3)) for i in range(40)]
        figure, axes = plots.plot_topics(pictures.made(spec, rows, params))
        kinds = np.sort(np.argsort(-params["weights"])[:24])
        topics = np.sort(np.argsort(-params["topic_weights"].max(0))[:30])
        drawn = [[patch.get_height() for patch in axis.patches] for axis in axes]
        np.testing.assert_allclose(drawn, params["topic_weights"][np.ix_(kinds, topics)])
        assert panels_of(figure) == list(axes)  # of the grid's eight places those without a kind are not seen
        assert re.fullmatch(note, figure.get_suptitle())


def test_one_of_several_linked_mixtures_is_chosen():
    spec = C(
        p=bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2)),
        q=bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3)),
    )
    params = {}
    for name, size in (("p", 2), ("q", 3)):
        params |= {
            f"{name}_weights": [0.25, 0.75],
            f"{name}_transition": np.random.default_rng(size).dirichlet(np.ones(size), 2),
            f"{name}_x_mu": [0.0, 4.0],
            f"{name}_x_sigma": [1.0, 1.0],
            f"{name}_y_mu": np.arange(1.0, size + 1),
        }
    rows = [{"x": 0.0, "y": 1}, {"x": 4.0, "y": 2}, {"x": 3.0, "y": 0}, {"x": 1.0, "y": 2}]
    fit = pictures.made(spec, {"p": rows, "q": rows}, params)
    with pytest.raises(bm.SpecError, match=r"which mixture\? Pass one of 'p_transition', 'q_transition'"):
        plots.plot_transitions(fit)
    with pytest.raises(bm.SpecError, match=r"no mixture 'r' here shares its components"):
        plots.plot_transitions(fit, of="r")
    _, (_, matrix) = plots.plot_transitions(fit, of="q_transition")
    assert [text.get_text() for text in matrix.texts] == [f"{p:.2f}" for p in params["q_transition"].ravel()]


def test_chains_of_many_symbols_and_components():
    rng = np.random.default_rng(5)
    spec = bm.Mixture(bm.MarkovChain(levels=list("abcdef")), 5)
    params = {
        "weights": np.full(5, 0.2),
        "initial": rng.dirichlet(np.ones(6), 5),
        "transition": rng.dirichlet(np.ones(6), (5, 6)),
    }
    cells = [list("abcdef"), list("fa"), list("bd"), list("ce"), list("ad"), list("be")]
    figure, axes = plots.plot_chain(pictures.made(spec, cells, params))
    assert panels_of(figure) == list(axes)  # five of eight places
    assert [axis.get_title(loc="left") for axis in axes] == [f"component {k}" for k in range(5)]
    for axis in axes:
        assert sorted(text.get_text() for text in axis.texts) == list("abcdef")  # arrows without figures
    alone = pictures.made(
        bm.MarkovChain(), [list("ab"), list("ba")], {"initial": [0.5, 0.5], "transition": [[0.9, 0.1], [0.2, 0.8]]}
    )
    _, (axis,) = plots.plot_chain(alone)
    assert axis.get_title(loc="left") == ""
    _, axes = plots.plot_fields(pictures.made(spec, cells, params))
    assert [label.get_text() for label in axes[1].get_xticklabels()] == []  # 36 letters would not be read


def _two_numbers(rows, **params):
    n = len(params["x_mu"])
    spec = bm.Mixture(C(x=bm.Normal(), o=bm.Optional(bm.Normal())), n)
    whole = {"weights": np.full(n, 1 / n), "x_sigma": np.ones(n), "o_sigma": np.ones(n), **params}
    return pictures.made(spec, rows, whole)


def test_profiles_of_seven_components_take_two_lines():
    x = np.arange(20.0)
    fit = _two_numbers({"x": x, "o": x}, x_mu=np.arange(7.0), o_mu=np.arange(7.0), o_p_missing=np.full(7, 0.1))
    figure, axes = plots.plot_profiles(fit)
    assert len(panels_of(figure)) == len(axes) == 7
    assert [axis.get_title(loc="left") for axis in axes][-1] == "6 (14%)"


def test_pairs_of_many_rows_show_some_and_say_so():
    rng = np.random.default_rng(6)
    rows = {"x": rng.normal(size=1800), "o": np.where(rng.random(1800) < 0.5, np.nan, rng.normal(size=1800))}
    # the second component has no `o` at all: there is no range and no ellipse of it
    fit = _two_numbers(rows, x_mu=[0.0, 3.0], o_mu=[0.0, 5.0], o_p_missing=[0.2, 1.0])
    figure, axes = plots.plot_pairs(fit)
    assert figure.get_suptitle() == "1500 of 1800 rows"
    assert len(axes[1, 0].lines) == 2  # one ellipse, with its rim
    assert len(axes[1, 1].lines) == 2  # one range, with its middle
    assert len(axes[0, 0].lines) == 4
    with pytest.raises(ValueError, match=r"max_fields: a whole number of at least 2 is needed, not 1"):
        plots.plot_pairs(fit, max_fields=1)
    figure, axes = plots.plot_pairs(fit, {"x": [0.0, 1.0, 3.0], "o": [None, None, None]})
    assert len(axes[0, 0].patches) > 0
    assert len(axes[1, 1].patches) == 0  # nothing was observed, and what components have is still there
    assert len(axes[1, 1].lines) == 2


def test_a_field_that_one_component_has_separates_by_its_absence_alone():
    x = np.r_[np.zeros(10), np.full(10, 9.0)]
    rows = {"x": x, "o": [*range(10), *[None] * 10]}
    fit = _two_numbers(rows, x_mu=[0.0, 9.0], o_mu=[4.0, 400.0], o_p_missing=[0.0, 1.0])
    _, axes = plots.plot_fields(fit, fields=["o"])
    figure, axes = plots.plot_profiles(fit)
    assert len(axes) == 2
    figure.canvas.draw()


def test_one_component_needs_no_legend():
    x = np.arange(20.0)
    fit = _two_numbers({"x": x, "o": x + 1}, x_mu=[9.0], o_mu=[10.0], o_p_missing=[0.1])
    figure, axes = plots.plot_pairs(fit)
    assert not figure.legends
    assert len(axes[1, 0].lines) == 2
    figure, _ = plots.plot_responsibilities(fit)
    assert not figure.legends
    trajectory = xr.Dataset({"mu": (("iteration", "component"), MU[:, :1]), "objective": OBJECTIVE})
    _, (_, path) = plots.plot_trajectory(trajectory)
    assert path.get_legend() is None
    np.testing.assert_array_equal(path.lines[0].get_ydata(), MU[:, 0])


def test_a_trajectory_without_parameters_is_its_objective():
    figure, (objective, _) = plots.plot_trajectory(xr.Dataset({"objective": OBJECTIVE}))
    assert panels_of(figure) == [objective]
    assert len(objective.lines) == 1


def test_starts_need_a_history():
    with pytest.raises(ValueError, match=r"the engine 'none' keeps no history, so there is nothing to plot"):
        plots.plot_starts(pictures.three())


def test_small_clusters_have_no_room_for_their_size():
    x = np.r_[np.zeros(59), 50.0]
    fit = pictures.made(M(bm.Normal(), 2), x, {"weights": [0.98, 0.02], "mu": [0.0, 50.0], "sigma": [1.0, 1.0]})
    _, (axis,) = plots.plot_coclustering(fit, random_seed=1)
    assert axis.get_title(loc="left") == "2 clusters"
    assert [text.get_text() for text in axis.texts] == ["0 (59)"]


def test_imputed_symbols_beyond_the_colours_are_one_bar():
    levels = [f"s{i:02d}" for i in range(12)]
    p = np.r_[np.full(6, 0.15), np.full(6, 0.1 / 6)]
    spec = M(C(s=bm.Categorical(levels=levels), x=bm.Normal()), 1)
    cells = [*levels, *[None] * 70]
    params = {"weights": [1.0], "s_p": [p], "x_mu": [40.0], "x_sigma": [9.0]}
    fit = pictures.made(spec, {"s": cells, "x": np.arange(82.0)}, params)
    _, (axis,) = plots.plot_imputation(fit.impute(n_draws=200, random_seed=1))
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == [*levels[:6], "others"]
    widths = np.array([patch.get_width() for patch in axis.patches]).reshape(7, 70)
    np.testing.assert_allclose(widths.sum(0), 1)
    np.testing.assert_allclose(widths.mean(1), [*p[:6], 0.1], atol=0.01)  # 14,000 draws
    assert len(axis.get_yticks()) == 0  # 70 rows are too many to name


def test_coordinates_that_never_lack_have_no_panel():
    rows = np.arange(20.0).reshape(10, 2)
    rows[3, 1] = np.nan
    params = {"weights": [1.0], "mu": [[9.0, 10.0]], "cov": [np.eye(2) * 40]}
    fit = pictures.made(M(bm.MvNormal(), 1), rows, params)
    _, axes = plots.plot_imputation(fit.impute(n_draws=20, random_seed=1))
    assert len(axes) == 1
    assert len(axes[0].lines[0].get_ydata()) == 1
