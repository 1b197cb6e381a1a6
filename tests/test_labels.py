"""Labels with their uncertainty, against enumeration."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.diagnostics import label_free, verdict
from bayesmix.fit import Status, make_fit
from bayesmix.labels import partition
from bayesmix.predictive import replicates
from bayesmix.relabel import Relabelling

X = np.array([-3.0, -2.5, -0.4, 0.3, 2.0, 2.2, 3.1])


def _posterior(mode, n_chains=2, n_draws=50, spread=0.2, seed=0, **kwargs):
    """A `Fit` whose draws lie about a point, of locations and weights."""
    rng = np.random.default_rng(seed)
    draws = {}
    for name, slot in mode.bound.free_slots.items():
        value = np.broadcast_to(mode.params[name], (n_chains, n_draws, *slot.shape))
        noisy = value * np.exp(spread * rng.standard_normal(value.shape))
        draws[name] = noisy / noisy.sum(-1, keepdims=True) if slot.support.ndim == 1 else noisy
    return make_fit(
        mode.bound, draws, table=mode.table, encoded=mode.encoded, row_weights=None, status=Status("nuts", True, "")
    )


@pytest.fixture(scope="module")
def flat():
    return _posterior(bm.fit_em(bm.Mixture(bm.Normal(sigma=1.0), 2), X, random_seed=0))


def _by_hand(fit, x):
    """Responsibilities (draws, N, K) by scipy."""
    mu, weights = (fit.posterior[name].values.reshape(-1, 1, 2) for name in ("mu", "weights"))
    density = weights * stats.norm.pdf(np.asarray(x)[None, :, None], mu, 1.0)
    return density / density.sum(-1, keepdims=True)


def test_intervals_are_quantiles_over_draws(flat):
    for rows in (None, np.array([0.0, 0.7])):
        found = flat.responsibility_intervals(rows, prob=0.8)
        each = _by_hand(flat, X if rows is None else rows)
        np.testing.assert_allclose(found["mean"], each.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found["lower"], np.quantile(each, 0.1, axis=0), rtol=1e-9)
        np.testing.assert_allclose(found["upper"], np.quantile(each, 0.9, axis=0), rtol=1e-9)
        assert found["mean"].dims == ("row", "component")
    with pytest.raises(ValueError, match="prob"):
        flat.responsibility_intervals(prob=89)


def test_blocks_of_rows_do_not_change_intervals(flat, monkeypatch):
    whole = flat.responsibility_intervals()
    monkeypatch.setattr("bayesmix.labels._AT_ONCE", 600)
    assert whole.identical(flat.responsibility_intervals())


def test_drawn_labels_have_the_frequencies_of_the_responsibilities(flat):
    drawn = flat.sample_labels(n_draws=20_000, random_seed=1)["label"].values
    expected = _by_hand(flat, X).mean(0)[:, 1]
    np.testing.assert_allclose(drawn.mean(0), expected, atol=4 * np.sqrt(0.25 / 20_000))


def test_drawn_labels_go_with_the_parameters_of_their_draw():
    # rows that lie exactly between two components that one draw in two has swapped: labels follow the parameters
    mode = bm.fit_em(bm.Mixture(bm.Normal(sigma=1.0), 2, weights=[0.5, 0.5]), X, random_seed=0)
    draws = {"mu": np.array([[[-9.0, 9.0], [9.0, -9.0]]])}
    fit = make_fit(
        mode.bound, draws, table=mode.table, encoded=mode.encoded, row_weights=None, status=Status("nuts", True, "")
    )
    labels = fit.sample_labels(np.array([9.0, -9.0]), n_draws=2, random_seed=0)["label"].values
    np.testing.assert_array_equal(labels, [[1, 0], [0, 1]])
    assert fit.coclustering(np.array([9.0, 8.0, -9.0]))[0, 1:] == pytest.approx([1.0, 0.0])


def test_labels_of_several_levels_are_drawn_together():
    rng = np.random.default_rng(0)
    rows = [list(rng.normal([-5.0, 5.0][k], 1, 3)) for k in (0, 0, 1, 1, 0)]
    spec = bm.HierarchicalMixture(bm.Normal(), n_topics=2, n_mixtures=2)
    # kind 0 has topic 0 alone, and kind 1 topic 1: labels of elements and rows agree in every draw
    params = {
        "weights": np.array([0.5, 0.5]),
        "topic_weights": np.array([[1 - 1e-13, 1e-13], [1e-13, 1 - 1e-13]]),
        "topic_mu": np.array([0.1, -0.1]),
        "topic_sigma": np.array([50.0, 50.0]),
    }
    mode = bm.fit_em(spec, {"x": rows}, n_starts=2, random_seed=0)
    fit = make_fit(
        mode.bound,
        {name: value[None, None] for name, value in params.items()},
        table=mode.table,
        encoded=mode.encoded,
        row_weights=None,
        status=Status("nuts", True, ""),
    )
    found = fit.sample_labels(n_draws=200, random_seed=2)
    outer, inner = found["label"], found["sublabel"]
    assert outer.dims == ("draw", "row")
    assert inner.shape == (200, 15)
    np.testing.assert_array_equal(np.repeat(outer.values, 3, axis=1), inner.values)
    assert 0.3 < outer.values.mean() < 0.7
    assert list(fit.sample_labels(n_draws=2, of="topic_weights", random_seed=0)) == [inner.name]


def test_coclustering_is_the_probability_of_equal_labels(flat):
    found = flat.coclustering()
    each = _by_hand(flat, X)
    expected = np.einsum("tik,tjk->ij", each, each) / len(each)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(bm.DataError, match="at most 5000 rows"):
        flat.coclustering(np.zeros(5001))


def _partitions(n):
    """Every partition of n rows, as labels."""
    if n == 0:
        yield ()
        return
    for rest in _partitions(n - 1):
        for k in range(max(rest, default=-1) + 2):
            yield (*rest, k)


def _entropy(*labels):
    _, counts = np.unique(np.array(labels), axis=1, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _expected_loss(own, draws, loss):
    """By the definitions: pairs on which partitions disagree; 2 H(c, z) - H(c) - H(z)."""
    if loss == "binder":
        pairs = np.triu_indices(len(own), 1)
        same = np.equal.outer(own, own)[pairs]
        return float(np.mean([(same != np.equal.outer(z, z)[pairs]).mean() for z in draws]))
    return float(np.mean([2 * _entropy(own, z) - _entropy(own) - _entropy(z) for z in draws]))


@pytest.mark.parametrize("loss", ["binder", "vi"])
@pytest.mark.parametrize("seed", range(5))
def test_the_partition_has_the_least_expected_loss_of_all(loss, seed):
    # 6 rows: all 203 partitions, under draws of labels that are uncertain and whose names mean nothing
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(3, 0.4), 6)
    z = np.array([[rng.choice(3, p=row) for row in p] for _ in range(25)])
    z = np.array([rng.permutation(3)[row] for row in z])
    found = partition(z, loss, p, rng)
    least = min(_expected_loss(np.array(own), z, loss) for own in _partitions(6))
    assert found.expected_loss == pytest.approx(_expected_loss(found.labels, z, loss), abs=1e-12)
    assert found.expected_loss == pytest.approx(least, abs=1e-12)


def test_clusters_have_the_numbers_of_their_components(flat):
    for loss in ("binder", "vi"):
        found = flat.partition(loss, random_seed=1)
        assert found.n_clusters == 2
        np.testing.assert_array_equal(found.labels[[0, -1]], flat.predict()[[0, -1]])
    with pytest.raises(ValueError, match="loss"):
        flat.partition("none")


def test_labels_that_switched_and_were_left_are_warned_of(flat):
    left = replace(flat, relabelling=Relabelling(None, {"component": np.array([0.5, 0.0])}))
    for method in ("responsibilities", "responsibility_intervals", "sample_labels"):
        with pytest.warns(bm.BayesmixWarning, match="relabel"):
            getattr(left, method)()


def test_imputed_cells_come_with_the_label_that_they_were_drawn_from():
    rng = np.random.default_rng(1)
    z = rng.integers(0, 2, 60)
    x = rng.normal(np.array([-20.0, 20.0])[z], 1)
    y = rng.normal(np.array([-9.0, 9.0])[z], 1)
    x[:5], y[:3] = np.nan, np.nan
    fit = bm.fit_em(bm.Mixture(bm.Composite(x=bm.Normal(), y=bm.Normal()), 2), {"x": x, "y": y}, random_seed=0)
    found = fit.impute(n_draws=50, random_seed=0)
    high = fit.params["x_mu"].argmax()
    np.testing.assert_array_equal(found.labels["x"] == high, found.draws["x"] > 0)
    np.testing.assert_array_equal(found.labels["x"][:, :3], found.labels["y"])
    assert found.labels["x"].shape == (50, 5)
    assert 0.2 < (found.labels["x"][:, 0] == high).mean() < 0.8  # nothing of the row is known


def test_predictive_tables_are_those_of_the_model():
    rng = np.random.default_rng(0)
    n = 200
    z = rng.integers(0, 2, n)
    table = {
        "x": np.where(rng.random(n) < 0.1, np.nan, rng.normal(6.0 * z, 1)),
        "n": rng.poisson(1 + 5 * z),
        "c": np.array(["u", "v", "w"], object)[rng.integers(0, 3, n)],
        "g": [None if rng.random() < 0.3 else int(v) for v in rng.geometric(0.3, n)],
        "t": [frozenset(s for s in "pq" if rng.random() < 0.4) for _ in range(n)],
        "s": [list(rng.normal(0, 1, rng.poisson(3))) for _ in range(n)],
    }
    spec = bm.Mixture(
        bm.Composite(
            x=bm.Normal(),
            n=bm.Poisson(),
            c=bm.Categorical(),
            g=bm.Optional(bm.Geometric()),
            t=bm.BernoulliSet(),
            s=bm.Sequence(bm.Normal(), length=bm.Poisson()),
        ),
        2,
    )
    fit = bm.fit_em(spec, table, random_seed=0)
    tree = fit.posterior_predictive(n_draws=60, random_seed=0)
    drawn, observed = tree["posterior_predictive"], tree["observed_data"]
    assert drawn["x"].dims == ("chain", "draw", "row")
    np.testing.assert_array_equal(np.isnan(drawn["x"].values[0, 0]), np.isnan(table["x"]))
    assert set(drawn.data_vars) == set(observed.data_vars) == {"x", "n", "c", "g", "g_missing", "t", "s_length"}
    assert drawn["t"].dims[-1] == observed["t"].dims[-1]
    np.testing.assert_allclose(drawn["n"].values.mean(), table["n"].mean(), rtol=0.1)
    checks = fit.predictive_checks(n_draws=100, random_seed=1)
    assert checks.loc[("x", "mean"), "observed"] == pytest.approx(np.nanmean(table["x"]))
    assert checks.loc[("n", "share of zeros"), "observed"] == pytest.approx((table["n"] == 0).mean())
    assert checks.loc[("c", "share of v"), "observed"] == pytest.approx((table["c"] == "v").mean())
    assert checks.loc[("g_missing", "share missing"), "observed"] == pytest.approx(
        np.mean([g is None for g in table["g"]])
    )
    assert checks.loc[("t", "share of p"), "observed"] == pytest.approx(np.mean(["p" in t for t in table["t"]]))
    assert checks.loc[("s", "mean"), "observed"] == pytest.approx(np.mean(np.concatenate(table["s"])))
    assert checks.loc[("s_length", "mean"), "observed"] == pytest.approx(np.mean([len(s) for s in table["s"]]))
    bulk = checks[checks.index.get_level_values(1).isin(["mean", "share of zeros", "share missing", "share of p"])]
    assert bulk["p_value"].between(0.02, 0.98).all()


def test_a_feature_that_the_model_misses_is_seen():
    x = np.concatenate([np.random.default_rng(0).exponential(1.0, 200)])
    checks = bm.fit_em(bm.Mixture(bm.Normal(), 1), x, random_seed=0).predictive_checks(random_seed=0)
    assert checks.loc[("x", "smallest"), "p_value"] == 0
    assert 0.1 < checks.loc[("x", "mean"), "p_value"] < 0.9


def test_a_saved_fit_keeps_what_is_known_of_its_labels(tmp_path, flat):
    fit = flat.relabel()
    fit.save(tmp_path / "fit.zip")
    again = bm.load(tmp_path / "fit.zip").relabelling
    assert again.method == "kl"
    np.testing.assert_array_equal(again.moved["component"], fit.relabelling.moved["component"])
    np.testing.assert_array_equal(again.reference["mu"], fit.relabelling.reference["mu"])
    assert again.non_permutation == fit.relabelling.non_permutation


def test_the_partition_of_many_rows_is_found_from_the_best_starts_alone():
    """Labels of 2,100 rows are sure but for their names, which say nothing."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2100)
    z = np.array([rng.permutation(3)[truth] for _ in range(4)])
    found = partition(z, "vi", np.eye(3)[truth], rng)
    np.testing.assert_array_equal(found.labels, truth)
    assert found.expected_loss == pytest.approx(0, abs=1e-9)


def test_mixtures_are_named_where_there_is_one():
    alone = bm.fit_em(bm.Normal(), X)
    with pytest.raises(bm.SpecError, match=r"no mixture is called 'z'. Choose from none: the spec has no mixture"):
        alone.partition(of="z")
    with pytest.raises(bm.SpecError, match=r"the root of the spec is Normal, which has no components.*bm.Mixture"):
        alone.sample_labels()
    nested = bm.fit_em(bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(sigma=1.0), 2)), 1), {"x": X})
    with pytest.raises(bm.SpecError, match="Choose from 'weights', 'x'"):
        nested.sample_labels(of="z")


def test_predictive_checks_of_chains_are_shares_of_their_symbols():
    """A chain with a family of its lengths is no leaf; its codes were taken for counts, place by place."""
    cells = [list("ab"), list("abab"), list("bbb"), list("ba")] * 4
    fit = bm.fit_em(bm.Mixture(bm.MarkovChain(length=bm.Poisson()), 1), cells, random_seed=1)
    checks = fit.predictive_checks(n_draws=20, random_seed=1)
    letters = [letter for cell in cells for letter in cell]
    assert checks.loc[("x", "share of a"), "observed"] == pytest.approx(letters.count("a") / len(letters))
    assert [statistic for field, statistic in checks.index if field == "x"] == ["share of a", "share of b"]
    assert checks.loc[("length", "mean"), "observed"] == pytest.approx(np.mean([len(cell) for cell in cells]))
    drawn = fit.posterior_predictive(n_draws=20, random_seed=1)["posterior_predictive"]
    assert set(drawn.data_vars) == {"length"}  # chains are as long as the longest, which differs


def test_predictive_tables_in_which_no_sequence_has_an_element():
    element = bm.Sequence(bm.Normal(mu=0.0, sigma=1.0), length=bm.Poisson(mu=0.01))
    table = {"s": [[1.0], [], [], []], "x": [1.0, 2.0, 3.0, 4.0]}
    fit = bm.fit_em(bm.Mixture(bm.Composite(s=element, x=bm.Normal()), 1), table, random_seed=1)
    checks = fit.predictive_checks(n_draws=4, random_seed=1)
    assert checks.loc[("s_length", "mean"), "observed"] == 0.25
    assert checks.loc[("s_length", "mean"), "mean"] == 0
    assert "s" not in checks.index.get_level_values("field")  # there is nothing to compare with


def test_predictive_checks_of_optional_records_are_those_of_their_cells():
    """Their drawn cells were missing where the draw said so, and again where the table did: twice as many."""
    rng = np.random.default_rng(0)
    cells = [None if rng.random() < 0.6 else float(rng.exponential()) for _ in range(200)]
    records = [None if cell is None else {"a": cell} for cell in cells]
    flat = bm.fit_em(bm.Composite(r=bm.Optional(bm.Exponential())), {"r": cells}, random_seed=1)
    for optional in (bm.Optional(bm.Composite(a=bm.Exponential())), bm.Composite(a=bm.Optional(bm.Exponential()))):
        table = {"r": records if isinstance(optional, bm.Optional) else [{"a": cell} for cell in cells]}
        fit = bm.fit_em(bm.Composite(r=optional), table, random_seed=1)
        checks, expected = (each.predictive_checks(n_draws=30, random_seed=1) for each in (fit, flat))
        np.testing.assert_allclose(checks.loc["r_a"], expected.loc["r"], rtol=1e-6)
    (drawn,) = replicates(fit.bound, [fit.params], fit.encoded, np.random.default_rng(1))
    assert np.isnan(drawn["r_a"].values).mean() == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("optional", [bm.Optional, partial(bm.Optional, p=False)], ids=["informative", "at random"])
def test_fields_of_optional_records_are_missing_as_often_as_in_the_table(optional):
    """Half of the records are there, and a third of those has no `a`; what is not there has no share of missing `b`."""
    rng = np.random.default_rng(1)
    there, n = rng.random(600) < 0.5, iter(range(600))
    records = [
        {"a": None if next(n) % 3 == 0 else 1.0 + i, "b": i % 4 or None} if t else None for i, t in enumerate(there)
    ]
    spec = bm.Composite(r=optional(bm.Composite(a=bm.Normal(), b=bm.Optional(bm.Poisson()))), x=bm.Normal())
    fit = bm.fit_em(spec, {"r": records, "x": np.arange(600.0)}, random_seed=1)
    (drawn,) = replicates(fit.bound, [fit.params], fit.encoded, np.random.default_rng(2))
    known = ~np.isnan(drawn["r_a"].values)
    absent = drawn["r_b_missing"].values < 0
    assert absent.mean() == pytest.approx(0.5, abs=0.07)
    assert not known[absent].any()
    assert known[~absent].mean() == pytest.approx(2 / 3, abs=0.02)
    shares = fit.predictive_checks(n_draws=50, random_seed=1).loc[("r_b_missing", "share missing")]
    assert shares["observed"] == pytest.approx(np.mean([r["b"] is None for r in records if r]))
    assert shares["lower"] < shares["observed"] < shares["upper"]


def test_predictive_checks_of_sequences_with_missing_elements_are_of_as_many():
    """All drawn elements were compared with the few observed ones: the largest of 240 with that of 60."""
    spec = bm.Composite(q=bm.Sequence(bm.Exponential(scale=1.0), length=bm.Poisson(mu=4.0)))
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cells = [[None if rng.random() < 0.75 else x for x in rng.exponential(size=rng.poisson(4))] for _ in range(60)]
        fit = bm.fit_em(spec, {"q": cells}, n_starts=1, random_seed=1)
        p_values.append(fit.predictive_checks(n_draws=40, random_seed=seed).loc[("q", "largest"), "p_value"])
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.13)  # sd of a mean of 40 uniforms: 0.046; it was 0.8


def test_missing_elements_keep_their_places_where_sequences_are_as_long():
    rng = np.random.default_rng(0)
    cells = [[x, 10 + x, None] for x in rng.normal(size=30)]
    fit = bm.fit_em(bm.Composite(q=bm.Sequence(bm.Normal())), {"q": cells}, random_seed=1)
    for drawn in replicates(fit.bound, [fit.params] * 3, fit.encoded, rng):
        np.testing.assert_array_equal(np.isnan(drawn["q"].values.reshape(30, 3)), [[False, False, True]] * 30)


def test_predictive_checks_of_whole_numbers_below_zero():
    """They were taken for missing cells, which a range that begins below zero marks with less."""
    x = np.array([-4, -4, -4, 0, 3, np.nan] * 10)
    fit = bm.fit_em(bm.SpikeAndSlab(lower=-5, upper=5), x, random_seed=1)
    checks = fit.predictive_checks(n_draws=20, random_seed=1)
    assert checks.loc[("x", "mean"), "observed"] == pytest.approx(np.nanmean(x))
    for drawn in replicates(fit.bound, [fit.params] * 3, fit.encoded, np.random.default_rng(0)):
        np.testing.assert_array_equal(drawn["x"].values <= -6, np.isnan(x))


def test_drawn_chains_are_missing_where_the_tables_are_and_else_as_long_as_drawn():
    """The shorter chains of the table were laid over the drawn ones."""
    cells = [["a"], None, [], list("abab")] * 10
    fit = bm.fit_em(bm.Mixture(bm.MarkovChain(length=bm.Poisson()), 1), cells, random_seed=1)
    for drawn in replicates(fit.bound, [fit.params] * 20, fit.encoded, np.random.default_rng(0)):
        lengths = drawn["length"].values
        np.testing.assert_array_equal(lengths < 0, [cell is None for cell in cells])
        np.testing.assert_array_equal((drawn["x"].values >= 0).sum(1), np.maximum(lengths, 0))


def test_what_relabelling_says():
    assert str(Relabelling("kl", {"component": np.zeros(2)})) == "No draw switched labels."
    left = Relabelling(None, {"component": np.array([0.5, 0.0]), "x_component": np.zeros(2)})
    assert str(left) == "Labels switched in some draws (component 25.0%); they were left as they came."


def test_too_few_draws_are_not_judged(flat):
    short = _posterior(bm.fit_em(flat.bound.spec, X, random_seed=0), n_draws=3)
    assert verdict(short) == (False, "NUTS kept 3 draws a chain, too few to judge; take more.")
    alone = _posterior(bm.fit_em(flat.bound.spec, X, random_seed=0), n_chains=1)
    assert verdict(alone) == (False, "NUTS ran one chain, which no diagnostic can judge; use chains=4.")


def test_a_verdict_names_each_way_out(flat):
    import xarray as xr

    mode = bm.fit_em(flat.bound.spec, X, random_seed=0)
    good = _posterior(mode, n_chains=4, n_draws=400, spread=0.05)
    assert verdict(good)[0]
    groups = {name: group.to_dataset() for name, group in good.idata.children.items()}
    diverging = np.zeros((4, 400), bool)
    diverging[0, :3] = True
    groups["sample_stats"] = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    converged, message = verdict(replace(good, idata=xr.DataTree.from_dict(groups)))
    assert not converged
    assert message.endswith("3 divergences. Not converged: raise target_accept.")


def test_log_likelihoods_of_vectors_that_lack_coordinates_MvNormal():
    """No linear form says them: they are found row by row."""
    rows = np.random.default_rng(0).normal(size=(12, 2))
    rows[3, 0] = np.nan
    fit = _posterior(bm.fit_em(bm.MvNormal(cov=np.eye(2)), rows), n_draws=5)
    groups = {name: group.to_dataset() for name, group in fit.idata.children.items() if name != "log_likelihood"}
    import xarray as xr

    found = label_free(replace(fit, idata=xr.DataTree.from_dict(groups)))["log_likelihood"].values
    for c, d in np.ndindex(2, 5):
        mu = fit.posterior["mu"].values[c, d]
        density = stats.norm.logpdf(rows, mu, 1.0)
        assert found[c, d] == pytest.approx(np.nansum(density), rel=1e-10)


# ------------------------------------------------------------------ mixtures inside


def test_elements_of_one_row_are_together_more_often():
    """They share the row's kind: taken as independent, the two of the first row were together in half of the draws."""
    spec = bm.HierarchicalMixture(
        bm.Normal(mu=[-5, 5], sigma=1), 2, 2, weights=[0.5, 0.5], topic_weights=[[0.95, 0.05], [0.05, 0.95]]
    )
    fit = bm.fit(spec, [[None, None], [-5.0, None], [1.0, None, None]], random_seed=1)
    together = fit.coclustering(of="topic_weights")
    assert together[0, 1] == pytest.approx(0.95**2 + 0.05**2)
    drawn = fit.sample_labels(n_draws=20_000, random_seed=1)["sublabel"].values
    np.testing.assert_allclose(together, (drawn[:, :, None] == drawn[:, None, :]).mean(0), atol=0.02)


def test_labels_that_mean_something_else_in_each_component_make_no_clusters():
    inner = bm.Mixture(bm.Normal(mu=[[-9, -8], [8, 9]], sigma=0.1), 2, weights=[[0.5, 0.5]] * 2)
    spec = bm.Mixture(bm.Composite(x=inner, y=bm.Normal(mu=[-9, 9], sigma=1)), 2, weights=[0.5, 0.5])
    fit = bm.fit(spec, {"x": [-9.0, -8, 8, 9], "y": [-9.0, -9, 9, 9]}, random_seed=1)
    for ask in (fit.coclustering, fit.partition, fit.occupied):
        with pytest.raises(bm.SpecError, match=r"has components of its own. Ask for a mixture above it"):
            ask(of="x")


def test_a_mixture_among_other_components():
    """Rows of the other components have no label in it; asking for any label was a KeyError."""
    x = np.random.default_rng(0).gamma(2, 4, 60)
    fit = bm.fit(bm.Mixture([bm.Mixture(bm.Normal(), 2), bm.Exponential()]), x, random_seed=1)
    drawn = fit.sample_labels(n_draws=50, random_seed=1)
    outer, inner = drawn["label"].values, drawn["mixture_label"].values
    np.testing.assert_array_equal(inner == -1, outer == 1)
    assert set(np.unique(inner)) == {-1, 0, 1}
    assert fit.partition(random_seed=1).labels.shape == (60,)
