"""Label switching, forced and found: chains that start in different copies of the mode, and change labels on the way.

The study over seeds is `benchmarks/label_switching.py`; here one seed of some of its cases.
"""

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.diagnostics import convergence, label_free
from bayesmix.fit import Status, make_fit
from benchmarks.label_switching import CASES, one


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["close pair", "Normal, K=4", "Categorical, K=2", "BernoulliSet, K=3", "hierarchical, 2 of 3", "joint, 2 and 3"],
)
def test_relabelled_draws_have_the_means_of_draws_that_never_switched(name):
    spec, draw = CASES[name]
    found = one(spec, draw(np.random.default_rng(0)), 0)
    assert found["R-hat"] <= 1.01
    assert found["away"] <= 4  # Monte-Carlo errors
    assert found["reported"]
    assert not found["default reported"]


def _fit(chains_of_mu, spec=None, x=None):
    x = np.linspace(-6, 6, 40) if x is None else x
    mode = bm.fit_em(spec or bm.Mixture(bm.Normal(sigma=1.0), 2), x, random_seed=0)
    draws = {"mu": np.asarray(chains_of_mu), "weights": np.full(np.shape(chains_of_mu), 0.5)}
    return make_fit(
        mode.bound, draws, table=mode.table, encoded=mode.encoded, row_weights=None, status=Status("nuts", False, "")
    )


def test_switched_chains_are_good_once_they_are_relabelled():
    rng = np.random.default_rng(0)
    mu = rng.normal([-3.0, 3.0], 0.2, (4, 500, 2))
    mu[1:3, 100:] = mu[1:3, 100:, ::-1]
    fit = _fit(mu)
    before = convergence(fit)
    assert before.rhat > 1.1
    assert before.rhat_label_free < 1.01
    left = fit.relabel(None)
    assert not left.status.converged
    assert 'relabel="auto"' in left.status.message
    assert "switched" in left.status.message
    back = fit.relabel()
    assert back.status.converged
    assert convergence(back).rhat < 1.01
    np.testing.assert_allclose(np.sort(back.relabelling.moved["component"]), [0, 0, 0.8, 0.8])


def test_a_chain_in_another_mode_is_not_made_good_by_relabelling():
    # the last chain has both components on one side: no labelling helps, and the label-free quantities say so
    rng = np.random.default_rng(0)
    mu = rng.normal([-3.0, 3.0], 0.2, (4, 500, 2))
    mu[3] = rng.normal([2.0, 4.0], 0.2, (500, 2))
    back = _fit(mu).relabel()
    assert not back.status.converged
    assert "whatever components are called" in back.status.message
    assert convergence(back).rhat_label_free > 1.5


def test_label_free_quantities_do_not_change_under_any_permutation():
    rng = np.random.default_rng(1)
    mu = rng.normal([-3.0, 3.0], 0.2, (2, 50, 2))
    before, after = label_free(_fit(mu)), label_free(_fit(mu[..., ::-1]))
    for name in before.data_vars:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-12)
    assert set(before.data_vars) == {"log_likelihood", "log_posterior", "sorted_weights"}


@pytest.mark.slow
def test_label_free_quantities_are_those_of_the_model():
    import pymc as pm

    rng = np.random.default_rng(1)
    x = rng.normal(np.repeat([-3.0, 3.0], 20), 1)
    spec = bm.Mixture(bm.Normal(sigma=pm.HalfNormal.dist(2.0)), 2)
    mode = bm.fit_em(spec, x, random_seed=0)
    draws = {name: np.broadcast_to(mode.params[name], (1, 3, 2)) * [[[1.0], [1.0], [1.0]]] for name in mode.bound.slots}
    model = bm.build_model(spec, x, initval=None)
    points = [{name: value[0, i] for name, value in draws.items()} for i in range(3)]
    fits = [
        make_fit(mode.bound, draws, table=mode.table, encoded=mode.encoded, row_weights=None,
                 status=Status("nuts", True, ""), log_likelihood=kept)
        for kept in (True, False)
    ]  # fmt: skip
    logp = model.compile_logp(jacobian=False)
    forward = {rv.name: model.rvs_to_transforms[rv] for rv in model.free_RVs}
    values = {}
    for rv in model.free_RVs:
        value = points[0][rv.name]
        moved = value if forward[rv.name] is None else forward[rv.name].forward(value, *rv.owner.inputs).eval()
        values[model.rvs_to_values[rv].name] = moved
    for fit in fits:
        np.testing.assert_allclose(label_free(fit)["log_posterior"].values, float(logp(values)), rtol=1e-9)


def test_order_and_relabelling_leave_ordered_components_alone():
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, 60) for m in (-6, 6)])
    fit = bm.fit_nuts(bm.Mixture(bm.Normal(), 2), x, draws=500, tune=300, random_seed=0)
    assert fit.relabelling.moved == {}
    assert fit.relabelling.non_permutation == {"component": 0.0}
    with pytest.raises(ValueError, match="relabel"):
        bm.fit_nuts(bm.Mixture(bm.Normal(), 2), x, relabel="sometimes")
