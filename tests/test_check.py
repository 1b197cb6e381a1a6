"""The report on a posterior: the traps that fooled trusted programs, and what it says of sound fits."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.errors import quiet
from bayesmix.inference.spikes import spikes
from bayesmix.inference.target import Target
from tests.structure.trees import TREES, over

REFERENCE = Path(__file__).parent / "reference"
WAITING = np.array([row["waiting"] for row in json.loads((REFERENCE / "faithful.json").read_text())["rows"]], float)
VALUES = json.loads((REFERENCE / "values.json").read_text())["columns"]
LATENT_CLASSES = bm.Composite(**{name: bm.Categorical() for name in VALUES})

_rng = np.random.default_rng(0)
X = np.repeat([-5.0, 5.0], 60) + _rng.normal(size=120)


def _spread(sigma) -> bm.Mixture:
    return bm.Mixture(bm.Normal(sigma=sigma), 2)


def _nuts(spec, data, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.BayesmixWarning)
        return bm.fit_nuts(spec, data, **{"draws": 600, "tune": 400, "random_seed": 1, "n_starts": 4, **kwargs})


@pytest.fixture(scope="module")
def sound():
    return _nuts(bm.Mixture(bm.Normal(), 2), X)


def test_a_sound_posterior_is_trusted(sound):
    report = sound.check()
    assert report.verdict == "trust"
    assert report.findings == ()
    assert {"r_hat", "stuck_chain", "divergences", "e_bfmi", "improper_posterior", "not_identified"} <= set(
        report.checked
    )
    assert "trust" in str(report)
    assert "not found: r_hat" in str(report)
    assert "trust" in report._repr_html_()
    assert list(report.to_frame().columns) == ["code", "severity", "what", "where", "way_out"]
    with pytest.raises(FrozenInstanceError):
        report.engine = "other"


# ------------------------------------------------------------------ improper posteriors


@pytest.mark.parametrize(
    ("sigma", "power"),
    [(pm.HalfNormal.dist(10.0), 0), (pm.HalfCauchy.dist(5.0), 0), (pm.Gamma.dist(2.0, 0.1), 1), (bm.Flat(), 0)],
    ids=["HalfNormal", "HalfCauchy", "Gamma", "Flat"],
)
@pytest.mark.filterwarnings("ignore::bayesmix.errors.ImproperWarning")
def test_fifteen_ties_and_a_prior_that_reaches_zero(sigma, power):
    """A prior of sigma**p near 0 and m ties: the mass grows by (m - 2 - p) log 10 as sigma falls by ten."""
    fit = bm.fit_em(_spread(sigma), WAITING, random_seed=1, n_starts=4)
    [spike] = spikes(fit.bound, fit.encoded, fit.params)
    assert (spike.value, spike.ties) == ("78.0", 15)
    assert spike.gain == pytest.approx((15 - 2 - power) * np.log(10), abs=0.01)


@pytest.mark.parametrize("sigma", [None, pm.Gamma.dist(20.0, 2.0), pm.LogNormal.dist(1.5, 0.5), 5.0])
def test_priors_that_vanish_at_zero_need_no_warning(sigma):
    fit = bm.fit_em(_spread(sigma), WAITING, random_seed=1, n_starts=4)
    assert spikes(fit.bound, fit.encoded, fit.params) == []


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ImproperWarning")
def test_two_ties_are_the_least_that_make_a_half_normal_improper():
    """The integral of sigma**(1 - m) near 0 is infinite for m = 2 and finite for m = 1."""
    fit = bm.fit_em(_spread(pm.HalfNormal.dist(10.0)), X, random_seed=1)
    assert spikes(fit.bound, fit.encoded, fit.params) == []
    tied = X.copy()
    tied[3] = tied[4]
    fit = bm.fit_em(_spread(pm.HalfNormal.dist(10.0)), tied, random_seed=1)
    [spike] = spikes(fit.bound, fit.encoded, fit.params)
    assert spike.gain == pytest.approx(0, abs=0.01)


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ImproperWarning")
def test_ties_are_found_in_fields_and_in_other_families():
    rng = np.random.default_rng(1)
    table = {"time": np.r_[0.0, 0.0, 0.0, rng.exponential(10, 57)], "count": rng.poisson(4, 60)}
    spec = bm.Mixture(bm.Composite(time=bm.Exponential(scale=pm.HalfNormal.dist(10.0)), count=bm.Poisson()), 2)
    fit = bm.fit_em(spec, table, random_seed=1)
    [spike] = spikes(fit.bound, fit.encoded, fit.params)
    assert (spike.field, spike.value, spike.slots) == ("time", "0.0", ("time_scale",))
    # scales fall by a hundred a step; the density is scale**-3, and one power is the Jacobian's
    assert spike.gain == pytest.approx(2 * np.log(100), abs=0.01)
    table["time"] += 1.0  # a scale of 0 is then impossible
    fit = bm.fit_em(spec, table, random_seed=1)
    assert spikes(fit.bound, fit.encoded, fit.params) == []


def test_a_scale_that_components_share_cannot_shrink_onto_one_of_them():
    """The other component's rows would then be impossible."""
    x = np.array([1.0, 1, 1, 1, 2, 3, 4, 9, 9.5, 10, 11, 12])
    fit = bm.fit_em(bm.Mixture(bm.Normal(sigma=bm.Shared(pm.HalfNormal.dist(10.0))), 2), x, n_starts=4, random_seed=1)
    assert spikes(fit.bound, fit.encoded, fit.params) == []
    # a location that they share may lie on the tie, and one component's scale goes to 0 there
    proper = bm.fit_em(bm.Mixture(bm.Normal(mu=bm.Shared()), 2), x, n_starts=4, random_seed=1)
    spec = bm.Mixture(bm.Normal(mu=bm.Shared(), sigma=pm.HalfNormal.dist(10.0)), 2)
    [spike] = spikes(prepare(spec, x, None)[1], proper.encoded, proper.params)
    assert (spike.value, spike.ties) == ("1.0", 4)
    assert spike.gain == pytest.approx((4 - 2) * np.log(10), abs=0.01)


def test_spikes_are_looked_for_along_their_own_coordinates():
    """All coordinates' widths, 86 of a table of 13 fields, took half a minute; only those that move have a say."""
    rng = np.random.default_rng(1)
    table = {name: rng.normal(size=80).round(1) for name in "abcdefgh"}
    spec = bm.Mixture(bm.Composite(**{name: bm.Normal() for name in table}), 2)
    with quiet():
        fit = bm.fit_em(spec, table, random_seed=1, n_starts=2)
    target = Target(bm.build_model(spec, table), fit.params, jacobian=True)
    calls = []
    counting = _Counting(target, calls)
    assert spikes(fit.bound, fit.encoded, fit.params, target=counting) == []
    # 8 fields, 2 components, 2 points, mean and scale, both ways, 18 halvings
    assert len(calls) <= 8 * 2 * 2 * (2 * 2 * 18 + 1)


class _Counting:
    """A target that counts its calls."""

    def __init__(self, target, calls):
        self.target, self.calls = target, calls
        self.unconstrained, self.of_variables = target.unconstrained, target.of_variables

    def __call__(self, u):
        self.calls.append(1)
        return self.target(u)


@pytest.mark.slow
def test_waiting_times_with_a_half_normal_draw_the_warning_and_with_the_default_do_not():
    with pytest.warns(bm.ConvergenceWarning, match="15 rows are tied at 78"):
        fit = bm.fit_nuts(
            _spread(pm.HalfNormal.dist(10.0)), WAITING, draws=300, tune=300, n_starts=4, random_seed=1, chains=4
        )
    assert not fit.status.converged
    assert "Improper posterior" in fit.status.message
    report = fit.check()
    assert report.verdict == "do not use"
    assert report["improper_posterior"].severity == "serious"
    assert "improper_posterior" not in _nuts(_spread(None), WAITING).check()


def test_flat_priors_of_components_have_no_posterior(sound):
    spec = bm.Mixture(bm.Normal(mu=bm.Flat()), 2)
    report = _nuts(spec, X).check()
    assert report["improper_prior"].where == "mu"
    assert report.verdict == "do not use"


# ------------------------------------------------------------------ identification


@pytest.mark.slow
def test_three_latent_classes_of_four_items_are_not_identified():
    """14 parameters and a Jacobian of rank 13; two classes have 9 of 9."""
    fit = bm.fit_em(bm.Mixture(LATENT_CLASSES, 3), VALUES, random_seed=1)
    report = fit.check()
    assert "rank 13, and there are 14" in report["not_identified"].what
    assert "1 direction in" in report["not_identified"].what
    assert report.verdict == "caution"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # along the ridge EM may take for ever
        flat = bm.fit_em(bm.Mixture(LATENT_CLASSES, 3).with_flat_priors(), VALUES, n_starts=4, random_seed=1).check()
    assert flat["not_identified"].severity == "serious"
    assert "not_identified" not in bm.fit_em(bm.Mixture(LATENT_CLASSES, 2), VALUES, random_seed=1).check()


@pytest.mark.slow
def test_parameters_that_the_data_say_nothing_of_are_named():
    """No row is anywhere near the second component."""
    spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(np.array([-5.0, 500.0]), 1.0), sigma=pm.Gamma.dist(20.0, 20.0)), 2)
    report = _nuts(spec, X[:60]).check()
    assert report["weakly_identified"].where == "mu[1], sigma[1]"


def test_an_empty_component_and_a_duplicate_are_found():
    rng = np.random.default_rng(3)
    spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(np.array([0.0, 60.0]), 1.0), sigma=1.0), 2)
    with pytest.warns(bm.DegenerateWarning):
        report = bm.fit_em(spec, rng.normal(size=80), random_seed=1).check()
    assert report["empty_component"].where == "component 1"
    fit = bm.fit_em(bm.Mixture(bm.Poisson(mu=[5.0, 5.05]), 2), rng.poisson(5, 300), random_seed=1)
    report = fit.check()
    assert "components 0 and 1 have nearly one density" in report["duplicate_components"].what
    apart = bm.fit_em(bm.Mixture(bm.Poisson(mu=[5.0, 12.0]), 2), rng.poisson(5, 300), random_seed=1)
    assert "duplicate_components" not in apart.check()


# ------------------------------------------------------------------ chains


def _with_posterior(fit, arrays):
    groups = {name: group.to_dataset() for name, group in fit.idata.children.items()}
    posterior = groups["posterior"].assign({n: (groups["posterior"][n].dims, v) for n, v in arrays.items()})
    groups.pop("log_likelihood", None)
    return replace(fit, idata=xr.DataTree.from_dict({**groups, "posterior": posterior}))


def test_a_stuck_chain_never_comes_back_as_a_success():
    """Three groups; the last chain has two components on one of them, 200 nats down and more, and mixes well there."""
    rng = np.random.default_rng(4)
    x = np.repeat([-12.0, 0.0, 12.0], 60) + rng.normal(size=180)
    fit = _nuts(bm.Mixture(bm.Normal(), 3), x, chains=3)
    assert fit.check().verdict == "trust"
    arrays = {name: np.array(fit.posterior[name].values) for name in ("weights", "mu", "sigma")}
    n = arrays["mu"].shape[1]
    wrong = {"weights": [1 / 3, 1 / 3, 1 / 3], "mu": [-12.0, -11.9, 6.0], "sigma": [1.0, 1.0, 6.0]}
    for name, value in wrong.items():
        noise = 0 if name == "weights" else 0.05 * rng.normal(size=(1, n, 3))
        arrays[name] = np.concatenate([arrays[name], np.full((1, n, 3), value) + noise])
    groups = {name: group.to_dataset() for name, group in fit.idata.children.items() if name != "log_likelihood"}
    four = fit.posterior.isel(chain=[0, 1, 2, 2]).assign_coords(chain=np.arange(4))
    four = four.assign({name: (four[name].dims, values) for name, values in arrays.items()})
    sample_stats = groups["sample_stats"].isel(chain=[0, 1, 2, 2]).assign_coords(chain=np.arange(4))
    tree = xr.DataTree.from_dict({**groups, "posterior": four, "sample_stats": sample_stats})
    report = replace(fit, idata=tree).check()
    assert report.verdict == "do not use"
    assert report["stuck_chain"].where == "chain 3"
    below = float(report["stuck_chain"].what.split(" is ")[1].split()[0])
    assert below > 150
    assert report["r_hat"].severity == "serious"


@pytest.mark.slow
def test_switched_labels_are_found_where_nobody_put_them_back(sound):
    arrays = {name: np.array(sound.posterior[name].values) for name in ("weights", "mu", "sigma")}
    swapped = {
        name: np.where(np.arange(v.shape[1])[None, :, None] % 2 == 0, v, v[..., ::-1]) for name, v in arrays.items()
    }
    report = replace(_with_posterior(sound, swapped), relabelling=None).check()
    assert report["label_switching"].severity == "serious"
    same = {name: v[..., ::-1] for name, v in arrays.items()}  # the other way round throughout is no switching
    assert "label_switching" not in replace(_with_posterior(sound, same), relabelling=None).check()


def test_what_the_sampler_says_of_itself(sound):
    stats = sound.idata["sample_stats"].to_dataset()
    shape = (stats.sizes["chain"], stats.sizes["draw"])
    diverging = np.zeros(shape, bool)
    diverging[0, :2] = True
    slow = np.cumsum(np.random.default_rng(5).normal(size=shape), axis=1)
    stats = stats.assign(
        diverging=(("chain", "draw"), diverging),
        energy=(("chain", "draw"), slow),
        maxdepth_reached=(("chain", "draw"), np.arange(shape[1]) % 10 == np.zeros((shape[0], 1))),
    )
    groups = {name: group.to_dataset() for name, group in sound.idata.children.items()}
    report = replace(sound, idata=xr.DataTree.from_dict({**groups, "sample_stats": stats})).check()
    assert f"2 of {np.prod(shape)}" in report["divergences"].what
    assert report["divergences"].severity == "caution"
    assert report["e_bfmi"].severity == "caution"
    assert "10%" in report["tree_depth"].what
    assert all(finding.way_out for finding in report.findings)


@pytest.mark.slow
def test_one_chain_and_few_draws_are_said_to_be_too_little():
    report = _nuts(bm.Mixture(bm.Normal(), 2), X, chains=1).check()
    assert report.verdict == "caution"
    assert "one_chain" in report
    assert "r_hat" not in report.checked
    short = _nuts(bm.Mixture(bm.Normal(), 2), X, draws=20, tune=100).check()
    assert "ess_bulk" in short
    assert short.verdict != "trust"


# ------------------------------------------------------------------ every engine


@pytest.mark.parametrize("method", ["em", "map", "moments", "advi", "laplace"])
def test_every_engine_is_checked_as_far_as_it_goes(method, tmp_path):
    fit = bm.fit(bm.Mixture(bm.Normal(), 2), X, method=method, random_seed=1)
    report = fit.check()
    assert report.verdict == "trust", report
    assert "not_identified" in report.checked
    assert any("R-hat" in each for each in report.unchecked)
    assert ("weakly_identified" in report.checked) == (method in ("advi", "laplace"))
    fit.save(tmp_path / "fit.zip")
    loaded = bm.load(tmp_path / "fit.zip")
    assert any("pass data=" in each for each in loaded.check().unchecked)
    assert loaded.check(X).checked == report.checked


@pytest.mark.parametrize("weights", [None, np.ones(len(X))], ids=["alike", "weighted"])
@pytest.mark.parametrize("ask", ["check", "relabel", "evidence", "describe"])
def test_another_table_than_the_training_one_is_an_error(ask, weights, tmp_path):
    """With row weights it was numpy's error, of arrays that do not go together; without them it was taken."""
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), X, row_weights=weights, random_seed=1)
    fit.save(tmp_path / "fit")
    for each in (bm.load(tmp_path / "fit"), fit):
        asked = {
            "check": each.check,
            "relabel": lambda data, each=each: each.relabel(data=data),
            "evidence": lambda data, each=each: bm.log_evidence(each, data=data, method="laplace"),
            "describe": lambda data, each=each: str(each.describe(data=data)),
        }
        with pytest.raises(bm.DataError, match=rf"9 rows, but the fit was made of {len(X)}. Pass the training table"):
            asked[ask](X[:9])
        with pytest.raises(bm.DataError, match=r"x has another value in row 3 than .* Pass the training table"):
            asked[ask](np.r_[X[:3], X[3] + 0.1, X[4:]])
        asked[ask](X.astype("float32"))  # a copy that is less precise will do


def test_the_training_table_is_known_whatever_its_fields(tmp_path):
    """All that a fit can know of it: missing cells, sets, chains and elements of sequences too."""
    rng = np.random.default_rng(0)
    table = {
        "x": np.where(rng.random(40) < 0.2, np.nan, rng.normal(size=40)),
        "c": rng.choice(["u", "v"], 40).tolist(),
        "t": [set("ab"[: i % 3]) for i in range(40)],
        "m": [list("abab"[: 1 + i % 4]) for i in range(40)],
        "q": [rng.normal(size=i % 3).tolist() for i in range(40)],
        "r": [None if i % 5 == 0 else {"a": float(i)} for i in range(40)],
    }
    fields = {
        "x": bm.Normal(), "c": bm.Categorical(), "t": bm.BernoulliSet(), "m": bm.MarkovChain(),
        "q": bm.Sequence(bm.Normal()), "r": bm.Optional(bm.Composite(a=bm.Normal())),
    }  # fmt: skip
    fit = bm.fit_em(bm.Composite(fields), table, random_seed=1)
    fit.save(tmp_path / "fit")
    loaded = bm.load(tmp_path / "fit")
    loaded.relabel(data=table)
    others = {"x": 0.5, "c": "u", "t": {"b"}, "m": ["b", "b", "b", "b"], "q": [9.0, 9.0], "r": {"a": -1.0}}
    for name, cell in others.items():
        changed = [*table[name][:-1], cell] if table[name][-1] != cell else [*table[name][:-1], "v"]
        with pytest.raises(bm.DataError, match=rf"data: {name}.* has .* Pass the training table"):
            loaded.relabel(data={**table, name: changed})
    groups = {name: group.to_dataset() for name, group in loaded.idata.children.items() if name != "observed_data"}
    older = replace(loaded, idata=xr.DataTree.from_dict(groups))
    with pytest.raises(bm.DataError, match="9 rows, but the fit was made of 40"):
        older.relabel(data={name: cells[:9] for name, cells in table.items()})
    older.relabel(data=table)


def test_an_approximation_that_fails_is_not_to_be_used(sound):
    report = replace(sound, pareto_k=0.9).check()
    assert report["pareto_k"].severity == "serious"
    assert "pareto_k" not in replace(sound, pareto_k=0.3).check()


def test_a_point_estimate_that_did_not_converge_is_not_to_be_used():
    with pytest.warns(bm.ConvergenceWarning):
        fit = bm.fit_em(bm.Mixture(bm.Normal(), 3), WAITING, max_iter=2, random_seed=1)
    assert fit.check()["not_converged"].severity == "serious"


def test_other_modes_of_weight_are_reported():
    """Four groups, symmetric about 0, and three components: which two groups share one is a matter of taste."""
    rng = np.random.default_rng(0)
    half = np.concatenate([rng.normal(m, 1, 30) for m in (4, 8)])
    x = np.concatenate([half, -half])
    fit = bm.fit_em(bm.Mixture(bm.Normal(), 3), x, random_seed=1)
    assert "another mode carries weight" in fit.check()["modes"].what.lower()


@pytest.mark.slow
@over(TREES)
def test_every_structure_runs_through_the_report(tree):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.BayesmixWarning)
        report = bm.fit_em(tree.spec, tree.table, n_starts=2, max_iter=300, random_seed=1).check()
    assert {"empty_component", "duplicate_components", "improper_posterior", "not_identified"} <= set(report.checked)
    assert "improper_posterior" not in report  # default priors
    assert str(report).startswith("em: ")


def test_a_component_that_others_share_is_empty_only_where_all_have_few_rows():
    """Rows of one x never come with one y: an empty cell of the transition is no empty component."""
    rng = np.random.default_rng(7)
    z = np.repeat([0, 1], 40)
    table = {"x": rng.normal(10 * z), "y": rng.poisson(np.where(z, 30, 2))}
    report = bm.fit_em(bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 2)), table, random_seed=1).check()
    assert "empty_component" not in report


# ------------------------------------------------------------------ any prior


def _table():
    rng = np.random.default_rng(6)
    z = np.repeat([0, 1], 60)
    return {
        "x": rng.normal(z * 8 - 4),
        "a": rng.poisson(3 + 10 * z),
        "b": rng.poisson(3 + 10 * z),
        "w": rng.normal(z * 4),
    }


def _any_prior(**location):
    return bm.Mixture(
        bm.Composite(
            x=bm.Normal(sigma=pm.HalfCauchy.dist(2.0), **location),
            a=bm.Poisson(tie="t"),
            b=bm.Poisson(tie="t"),
            w=bm.Normal(sigma=1.0),
        ),
        2,
    )


@pytest.mark.slow
def test_a_half_cauchy_a_fixed_and_a_tied_parameter_run_through_the_report():
    report = _nuts(_any_prior(), _table()).check()
    assert report.verdict == "trust", report
    assert not any("depends" in each for each in report.unchecked)


@pytest.mark.slow
def test_so_does_a_user_variable_that_feeds_a_prior():
    table = _table()
    with pm.Model() as model:
        tau = pm.HalfNormal("tau", 5.0)
        bm.build_model(_any_prior(mu=pm.Normal.dist(0.0, tau)), table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = pm.sample(
            400, tune=400, chains=2, cores=1, model=model, nuts_sampler="pymc", progressbar=False, random_seed=1
        )
    report = bm.check(idata, model)
    assert {"r_hat", "improper_posterior", "empty_component", "not_identified"} <= set(report.checked)
    assert report.verdict != "do not use", report
    table["x"][:6] = table["x"][0]  # ties, now with a half-Cauchy
    with pm.Model() as tied:
        tau = pm.HalfNormal("tau", 5.0)
        bm.build_model(_any_prior(mu=pm.Normal.dist(0.0, tau)), table)
    found = bm.check(idata, tied)
    assert "6 rows are tied" in found["improper_posterior"].what


@pytest.mark.slow
def test_and_one_that_a_parameter_is_an_expression_of():
    with pm.Model() as model:
        tau = pm.HalfNormal("tau", 5.0)
        bm.build_model(bm.Mixture(bm.Normal(sigma=2 * tau), 2), X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = pm.sample(
            400, tune=400, chains=2, cores=1, model=model, nuts_sampler="pymc", progressbar=False, random_seed=1
        )
    report = bm.check(idata, model)
    assert "r_hat" in report.checked
    assert any("expression of your own variables" in each for each in report.unchecked)
    with pytest.raises(TypeError, match=r"bm\.check\(idata, model\)"):
        bm.check(idata)


@pytest.mark.parametrize(("k", "severity"), [(0.45, None), (0.6, "caution"), (0.75, "serious")])
def test_pareto_k_is_flagged_in_two_steps(k, severity):
    x = np.random.default_rng(0).normal(np.repeat([-4.0, 4.0], 60), 1)
    fit = replace(bm.fit_laplace(bm.Mixture(bm.Normal(), 2), x, draws=200, random_seed=1), pareto_k=k)
    found = [each.severity for each in fit.check().findings if each.code == "pareto_k"]
    assert found == ([] if severity is None else [severity])


def test_a_report_has_only_what_was_found(sound):
    with pytest.raises(KeyError, match="divergences"):
        sound.check()["divergences"]


@pytest.mark.slow
def test_a_sampler_that_says_nothing_of_energy_is_not_held_to_have_failed(sound):
    groups = {name: group.to_dataset() for name, group in sound.idata.children.items()}
    groups["sample_stats"] = groups["sample_stats"][["maxdepth_reached"]]
    report = replace(sound, idata=xr.DataTree.from_dict(groups)).check()
    assert report.verdict == "trust"


def test_three_draws_a_chain_say_nothing_of_convergence(sound):
    groups = {name: group.to_dataset() for name, group in sound.idata.children.items()}
    few = {n: group.isel(draw=slice(3)) if "draw" in group.sizes else group for n, group in groups.items()}
    report = replace(sound, idata=xr.DataTree.from_dict(few)).check()
    assert "r_hat" not in report.checked
    assert any("3 draws a chain are too few" in each for each in report.unchecked)


def test_starts_that_failed_and_a_mode_that_one_start_found():
    starts = [{"status": "failed: a component collapsed"}] * 5 + [{"status": "converged"}] * 4
    fit = replace(bm.fit_em(bm.Mixture(bm.Normal(), 2), X, random_seed=1), starts=tuple(starts))
    found = fit.check()["failed_starts"]
    assert found.severity == "caution"
    assert "5 of EM's 9 starts failed (a component collapsed)" in found.what
    fewer = replace(fit, starts=tuple(starts[4:])).check()["failed_starts"]
    assert fewer.severity == "note"


def test_no_component_has_a_labelling_where_draws_are_no_permutation_of_each_other(sound):
    """Half of the draws have both components in one place."""
    values = {name: np.array(sound.posterior[name].values) for name in ("weights", "mu", "sigma")}
    values["mu"][:, ::2] = 5.0 + 0.01 * values["mu"][:, ::2]
    report = replace(_with_posterior(sound, values), relabelling=None).relabel().check()
    assert report["vague_labels"].severity == "caution"
    assert "50% of the draws" in report["vague_labels"].what


def test_only_models_that_bayesmix_built_can_be_checked(sound):
    idata = sound.idata
    with pm.Model() as other:
        pm.Normal("x", observed=X)
    with pytest.raises(bm.DataError, match=r"bm\.build_model did not make this model"):
        bm.check(idata, other)
    graph = bm.build_model(bm.Mixture(bm.Normal(), 2), X, likelihood="graph")
    with pytest.raises(bm.DataError, match=r'no encoded rows\. Build it with likelihood="fused"'):
        bm.check(idata, graph)


def test_draws_of_a_weighted_model_are_checked_with_their_weights():
    """Rows of weight 0 are no rows: without the weights the second component would not be empty."""
    weights = np.where(X < 0, 1.0, 0.0)
    spec = bm.Mixture(bm.Normal(mu=pm.Normal.dist(0, 10), sigma=1.0), 2, weights=[0.5, 0.5])
    model = bm.build_model(spec, X, row_weights=weights)
    rng = np.random.default_rng(0)
    mu = np.array([-5.0, 5.0]) + 0.01 * rng.normal(size=(2, 60, 2))
    idata = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": (("chain", "draw", "component"), mu)})})
    report = bm.check(idata, model)
    assert report["empty_component"].where == "component 1"
    assert "empty_component" not in bm.check(idata, bm.build_model(spec, X))


_FAR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("spec", "near", "far"),
    [
        (bm.Normal(), _FAR.normal(0, 1, 100), _FAR.normal(1000, 1, 100)),
        (bm.Exponential(), _FAR.exponential(1, 100), _FAR.exponential(1000, 100)),
        (bm.Geometric(), _FAR.geometric(0.7, 100), _FAR.geometric(0.001, 100)),
        (bm.MvNormal(), _FAR.normal(0, 1, (100, 2)), _FAR.normal(100, 1, (100, 2))),
    ],
    ids=["Normal", "Exponential", "Geometric", "MvNormal"],
)
def test_a_prior_that_overrules_a_components_rows_is_found(spec, near, far):
    """Two or three rows of the whole column's size weigh more than a hundred of a component that is far smaller."""
    x = np.concatenate([near, far])
    with pytest.warns(bm.PriorWarning, match="take their scale from the whole column"):
        fit = bm.fit(bm.Mixture(spec, 2), x, random_seed=1)
    assert "prior_overrules_rows" in fit.check()
    # and it is the prior: without it the rows gain that much
    alone = bm.fit_em(bm.Mixture(spec, 2).with_flat_priors(), x, random_seed=1)
    cost = float(re.search(r"rows of a component ([0-9]+) nats", fit.check()["prior_overrules_rows"].what)[1])
    assert alone.loglik - fit.loglik > 0.8 * cost > 8


def test_a_prior_that_fits_the_rows_overrules_none():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(0, 1, 100), rng.normal(1000, 1, 100)]
    fit = bm.fit(bm.Mixture(bm.Normal(sigma=pm.InverseGamma.dist(2, 3)), 2), x, random_seed=1)
    assert "prior_overrules_rows" not in fit.check()
    table = {"a": rng.normal(3 * (x > 500), 1), "b": rng.poisson(2, 200), "c": rng.choice(list("uv"), 200)}
    mixed = bm.fit(bm.Mixture(bm.Composite(a=bm.Normal(), b=bm.Poisson(), c=bm.Categorical()), 2), table, random_seed=1)
    assert "prior_overrules_rows" not in mixed.check()
    # a spread that components share is a compromise: what the rows of one lose by it, those of the other gain
    apart = np.r_[rng.normal(0, 0.2, 10_000), rng.normal(1000, 5, 10_000)]
    shared = bm.fit(bm.Mixture(bm.Normal(sigma=bm.Shared()), 2), apart, random_seed=1)
    assert "prior_overrules_rows" not in shared.check()
    # rows that tie have no spread of their own: to keep it from 0 is what the prior is for
    half = bm.fit(bm.Mixture(bm.Normal(), 2), np.r_[np.zeros(150), rng.normal(3, 1, 150)], random_seed=1)
    assert "prior_overrules_rows" not in half.check()
