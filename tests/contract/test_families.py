"""The leaf contract, over every family of `tests.cases`."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

import bayesmix as bm
from bayesmix.compilation import QUICK
from bayesmix.families._contract import CONTRACT, Leaf
from bayesmix.mstep import numeric_step
from tests.cases import CASES, MV_NORMAL, over_cases, responsibilities

# Sums of some tens of terms in double precision, in another order: 1e-12 relative is what rounding allows.
ROUNDING = 1e-12

PRIORS = ["default", "flat", "conjugate"]
over_priors = pytest.mark.parametrize("priors", PRIORS)


def quick(expression):
    return pytensor.function([], expression, mode=QUICK)()


def expected_log_density(case, params, resp):
    """Σ_n r_nk log f(x_n; θ_k), (K,), by scipy alone."""
    columns = [resp[:, k] @ case.oracle(case.component(k, params), case.column) for k in range(case.n_components)]
    return np.array(columns)


def log_prior_of(slots):
    """Log density of all free parameters, by PyMC alone, as a function of parameters by the family's own names."""
    densities = {}
    for name, slot in slots.items():
        if slot.free:
            variable = slot.rv.type()
            expression = pm.logp(slot.rv, variable).sum()
            densities[name] = slot, pytensor.function([variable], expression, mode=QUICK, on_unused_input="ignore")

    def log_prior(params):
        values = (
            (name, slot, np.asarray(params[name]).astype(slot.rv.dtype).reshape(slot.shape))
            for name, (slot, _) in densities.items()
        )
        return sum(float(densities[name][1](value)) for name, slot, value in values)

    return log_prior


# ------------------------------------------------------------------- densities


@over_cases()
@pytest.mark.parametrize("point", ["params", "edge_params"])
def test_log_density_is_scipys(case, point):
    _, site, data = case.bind()
    params = getattr(case, point)
    ours = site.node.log_density(params, data.arrays)
    theirs = np.stack([case.oracle(case.component(k, params), case.column) for k in range(case.n_components)], axis=1)
    assert ours.shape == (len(case.column), case.n_components)
    # near-singular covariances lose digits by their condition number (1e6 in the edge point)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@over_cases()
@pytest.mark.parametrize("point", ["params", "edge_params"])
def test_log_density_is_pymcs(case, point):
    _, site, data = case.bind()
    params = getattr(case, point)
    value = data.arrays["value"].astype(site.node.value_dtype)
    dist = site.node.pymc_dist({name: pt.as_tensor(array) for name, array in params.items()})
    theirs = quick(pm.logp(dist, pt.as_tensor(value)[:, None]))
    theirs = theirs.sum(tuple(range(2, theirs.ndim)))  # independent coordinates, each with a density of its own
    np.testing.assert_allclose(site.node.log_density(params, data.arrays), theirs, rtol=1e-10, atol=1e-10)


@over_cases()
def test_filler_is_inside_the_support(case):
    _, site, _ = case.bind()
    filler = np.asarray(site.node.filler(site.learned), site.node.value_dtype)
    dist = site.node.pymc_dist({name: pt.as_tensor(array) for name, array in case.params.items()})
    assert np.isfinite(quick(pm.logp(dist, pt.as_tensor(filler)))).all()


# ------------------------------------------------------------------- statistics


@over_cases()
def test_statistics_add_up_over_splits_of_the_rows(case):
    _, site, data = case.bind()
    resp = responsibilities(data.n_rows, case.n_components)
    whole = site.node.suff_stats(data.arrays, resp, site.learned)
    rows = np.random.default_rng(1).permutation(data.n_rows)
    parts = [
        site.node.suff_stats(data.take(block).arrays, resp[block], site.learned) for block in np.array_split(rows, 3)
    ]
    for name, value in whole.items():
        assert value.shape[0] == case.n_components
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=ROUNDING, atol=1e-9, err_msg=name)


@over_cases()
def test_statistics_of_no_rows_are_zero(case):
    _, site, data = case.bind()
    empty = site.node.suff_stats(data.take(np.empty(0, int)).arrays, np.empty((0, case.n_components)), site.learned)
    whole = site.node.suff_stats(data.arrays, responsibilities(data.n_rows, case.n_components), site.learned)
    for name, value in empty.items():
        np.testing.assert_array_equal(value, np.zeros_like(whole[name]), err_msg=name)


@over_cases()
def test_statistics_are_linear_in_the_responsibilities(case):
    _, site, data = case.bind()
    a, b = (responsibilities(data.n_rows, case.n_components, seed) for seed in (2, 3))

    def statistics(resp):
        return site.node.suff_stats(data.arrays, resp, site.learned)

    of_a, of_b, of_both = statistics(a), statistics(b), statistics(2.5 * a + 0.25 * b)
    for name, value in of_both.items():
        np.testing.assert_allclose(value, 2.5 * of_a[name] + 0.25 * of_b[name], rtol=ROUNDING, atol=1e-9, err_msg=name)


@over_cases()
def test_a_repeated_row_is_a_row_of_weight_two(case):
    _, site, data = case.bind()
    resp = responsibilities(data.n_rows, case.n_components)
    rows = np.append(np.arange(data.n_rows), 4)
    repeated = site.node.suff_stats(data.take(rows).arrays, resp[rows], site.learned)
    weighted = resp.copy()
    weighted[4] *= 2
    once = site.node.suff_stats(data.arrays, weighted, site.learned)
    for name, value in repeated.items():
        np.testing.assert_allclose(once[name], value, rtol=ROUNDING, atol=1e-9, err_msg=name)


@over_cases()
def test_expected_logp_needs_the_statistics_only(case):
    _, site, data = case.bind()
    resp = 3 * responsibilities(data.n_rows, case.n_components)
    statistics = site.node.suff_stats(data.arrays, resp, site.learned)
    found = site.node.expected_logp(case.params, statistics, site.learned, np)
    # squares about the reference point, of size 1e5 here, cancel to 1e1: 1e-10 is left of double precision
    np.testing.assert_allclose(found, expected_log_density(case, case.params, resp), rtol=1e-10)


@over_cases()
def test_expected_logp_is_the_same_in_pytensor(case):
    _, site, data = case.bind()
    resp = 3 * responsibilities(data.n_rows, case.n_components)
    statistics = site.node.suff_stats(data.arrays, resp, site.learned)
    symbolic = site.node.expected_logp(
        {name: pt.as_tensor(value) for name, value in case.params.items()},
        {name: pt.as_tensor(value) for name, value in statistics.items()},
        site.learned,
        pt,
    )
    np.testing.assert_allclose(quick(symbolic), expected_log_density(case, case.params, resp), rtol=1e-10)


@over_cases()
def test_gradient_of_expected_logp_is_that_of_the_log_likelihood(case):
    """Fisher's identity: what EM and the fused likelihood stand on. Central differences of scipy's density."""
    _, site, data = case.bind()
    weights = np.full(case.n_components, 1 / case.n_components)

    def loglik(params):
        parts = np.stack([case.oracle(case.component(k, params), case.column) for k in range(case.n_components)], 1)
        return np.logaddexp.reduce(parts + np.log(weights), axis=1)

    densities = site.node.log_density(case.params, data.arrays)
    resp = np.exp(densities + np.log(weights) - loglik(case.params)[:, None])
    statistics = site.node.suff_stats(data.arrays, resp, site.learned)
    direction = {name: np.random.default_rng(5).normal(size=value.shape) for name, value in case.params.items()}
    for value in direction.values():
        if value.ndim == 3:
            value += np.swapaxes(value, 1, 2).copy()
    for name, slot in site.slots.items():
        if slot.support.name == "a whole number":  # no direction leads to the next one
            direction[name] *= 0
    if case.name == "Categorical":  # scipy wants probabilities that sum to 1
        direction["p"] -= direction["p"].mean(-1, keepdims=True)

    def moved(step):
        return {name: value + step * direction[name] for name, value in case.params.items()}

    h = 1e-5
    of_loglik = (loglik(moved(h)).sum() - loglik(moved(-h)).sum()) / (2 * h)

    def expected(params):
        return site.node.expected_logp(params, statistics, site.learned, np).sum()

    of_expected = (expected(moved(h)) - expected(moved(-h))) / (2 * h)
    # central differences: error about h² times the third derivative
    np.testing.assert_allclose(of_expected, of_loglik, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------- M-steps


def settings():
    for case in CASES:
        for priors in PRIORS:
            yield pytest.param(case, case.leaf(priors), id=f"{case.name}-{priors}")
        if len(case.fixed) > 1:
            for name, value in case.fixed.items():
                yield pytest.param(case, case.family(**{name: value}), id=f"{case.name}-fixed-{name}")
                flat = case.family(**{name: value}).with_flat_priors()
                yield pytest.param(case, flat, id=f"{case.name}-flat-fixed-{name}")


def m_step(case, leaf):
    """The closed-form M-step at some responsibilities, from a start that is not the answer."""
    bound, site, data = case.bind(leaf)
    # two observations' worth of every row: enough that flat maxima are inside the support
    resp = 2 * responsibilities(data.n_rows, case.n_components, seed=7)
    statistics = site.node.suff_stats(data.arrays, resp, site.learned)
    start = bound.with_fixed({name: value for name, value in case.params.items() if site.slots[name].free})
    updated = site.node.update(site, {site.key: statistics}, start)
    return site, resp, statistics, start, {**start, **updated}


def nearby(slot, value, rng, size):
    """A random point of the slot's support near `value`."""
    if slot.support.ndim == 2:
        factor = np.linalg.cholesky(value)
        moved = factor @ (np.eye(value.shape[-1]) + size * np.tril(rng.normal(size=value.shape)))
        return moved @ np.swapaxes(moved, -1, -2)
    if slot.support.ndim == 1:
        moved = value * np.exp(size * rng.normal(size=value.shape))
        return moved / moved.sum(-1, keepdims=True)
    if slot.support.name == "a probability":
        odds = value / (1 - value) * np.exp(size * rng.normal(size=value.shape))
        return odds / (1 + odds)
    if slot.support.name == "a whole number":
        other = rng.integers(slot.hyper.lower.max(), slot.hyper.upper.max() + 1, value.shape)
        return np.where(rng.random(value.shape) < 0.5, value, other)
    if slot.support.name == "a positive number":
        return value * np.exp(size * rng.normal(size=value.shape))
    return value + size * (1 + np.abs(value)) * rng.normal(size=value.shape)


@pytest.mark.parametrize(("case", "leaf"), list(settings()))
def test_no_nearby_point_beats_the_map_step(case, leaf):
    site, resp, _, _, found = m_step(case, leaf)

    log_prior = log_prior_of(site.slots)

    def objective(params):
        return expected_log_density(case, params, resp).sum() + log_prior(params)

    best = objective(found)
    assert np.isfinite(best)
    rng = np.random.default_rng(11)
    for size in (1e-3, 1e-2, 1e-1, 0.5):
        for _ in range(10):
            other = {
                name: nearby(site.slots[name], value, rng, size) if site.slots[name].free else value
                for name, value in found.items()
            }
            assert objective(other) <= best + 1e-9 * abs(best)


def numeric_settings():
    for setting in settings():
        # the numeric M-step takes tens of seconds to see that it stands on the mode of this one
        marks = [pytest.mark.slow] if setting.id == "MvNormal-default" else []
        yield pytest.param(*setting.values, id=setting.id, marks=marks)


@pytest.mark.parametrize(("case", "leaf"), list(numeric_settings()))
def test_map_step_is_what_the_numeric_m_step_finds(case, leaf):
    site, _, statistics, start, closed = m_step(case, leaf)
    rng = np.random.default_rng(13)
    free = {name for name, slot in site.slots.items() if slot.free}
    elsewhere = {name: closed[name] if name in free else start[name] for name in start}
    for name in free:
        if not site.slots[name].discrete:
            elsewhere[name] = nearby(site.slots[name], closed[name], rng, 0.1)
    numeric = numeric_step(site, statistics, elsewhere)
    for name, value in numeric.items():
        np.testing.assert_allclose(closed[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@over_cases()
def test_a_prior_without_closed_form_goes_to_the_numeric_m_step(case):
    site, resp, _, _, found = m_step(case, case.leaf("numeric"))
    assert any(slot.free and slot.hyper is None for slot in site.slots.values())

    log_prior = log_prior_of(site.slots)

    def objective(params):
        return expected_log_density(case, params, resp).sum() + log_prior(params)

    best, rng = objective(found), np.random.default_rng(12)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(10):
            other = {
                name: nearby(site.slots[name], value, rng, size) if site.slots[name].free else value
                for name, value in found.items()
            }
            assert objective(other) <= best + 1e-9 * abs(best)


@over_cases()
def test_a_fixed_parameter_does_not_move(case):
    leaf = case.family(**case.fixed)
    bound, site, data = case.bind(leaf)
    assert not [slot for slot in site.slots.values() if slot.free]
    statistics = site.node.suff_stats(data.arrays, responsibilities(data.n_rows, case.n_components), site.learned)
    assert site.node.update(site, {site.key: statistics}, bound.with_fixed({})) == {}
    for name, value in case.fixed.items():
        for row in bound.with_fixed({})[name]:
            np.testing.assert_array_equal(row, value)


@over_cases()
def test_an_empty_component_stays_inside_its_support(case):
    """Under the default priors: the M-step of a component without rows is the mode of its prior."""
    _, site, data = case.bind()
    resp = responsibilities(data.n_rows, case.n_components)
    resp[:, 0] = 0
    statistics = site.node.suff_stats(data.arrays, resp, site.learned)
    found = site.node.update(site, {site.key: statistics}, case.params)
    log_prior, rng = log_prior_of(site.slots), np.random.default_rng(3)
    best = log_prior(found)
    for name, value in found.items():
        assert np.isfinite(value).all()
        for _ in range(10):
            moved = np.array(value)
            moved[0] = nearby(site.slots[name], value, rng, 0.1)[0]
            assert log_prior({**found, name: moved}) <= best + 1e-9


# ------------------------------------------------------------------- priors


@over_cases()
@over_priors
def test_conjugate_log_density_is_pymcs(case, priors):
    _, site, _ = case.bind(case.leaf(priors))
    for name, slot in site.slots.items():
        if not slot.free:  # the ends of a range
            continue
        assert slot.hyper is not None, name
        value = case.params[name]
        pymcs = log_prior_of({name: slot})({name: value})
        # PyMC keeps hyperparameters that users write as Python floats in single precision, and takes their logs in it
        tolerance = 5e-9 if priors == "conjugate" else 1e-12
        found = slot.log_prior(value.reshape(slot.shape))
        np.testing.assert_allclose(found, pymcs, rtol=tolerance, atol=tolerance, err_msg=name)


def test_inverse_wishart_is_scipys():
    psi = np.array([[2.0, 0.3], [0.3, 5.0]])
    cov = MV_NORMAL.params["cov"]
    ours = quick(pm.logp(bm.InverseWishart.dist(6.0, psi, size=3), pt.as_tensor(cov)))
    np.testing.assert_allclose(ours, [stats.invwishart.logpdf(c, 6, psi) for c in cov], rtol=1e-12)


def test_inverse_wishart_draws_have_its_mean():
    psi = np.array([[2.0, 0.3], [0.3, 5.0]])
    op = bm.InverseWishart.rv_op
    draws = op.rng_fn(np.random.default_rng(0), np.float64(12.0), psi, (20_000,))
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - psi / (12 - 2 - 1)) < 4 * error).all()


# ------------------------------------------------------------------- draws


@over_cases()
def test_draws_have_the_mean_of_their_rows_component(case):
    """Rows come in no order of the components, so this fails if draws are sorted by component too."""
    _, site, _ = case.bind()
    rng = np.random.default_rng(17)
    z = rng.integers(0, case.n_components, 30_000)
    values = np.asarray(site.node.sample(case.params, z, rng))
    assert len(values) == len(z)
    seen = case.indicators(values).astype(float)
    mean = np.asarray(site.node.mean(case.params), float)
    for k in range(case.n_components):
        own = seen[z == k]
        error = own.std(0, ddof=1) / np.sqrt(len(own))
        assert (np.abs(own.mean(0) - mean[k]) < 4 * error + 1e-12).all(), k


@over_cases()
def test_draws_have_the_density_of_their_component(case):
    """The mean log density of draws from a component is largest at the component's own parameters (Gibbs)."""
    _, site, _ = case.bind()
    rng = np.random.default_rng(18)
    for k in range(case.n_components):
        values = site.node.sample(case.params, np.full(4_000, k), rng)
        column = site.node.decode(np.asarray(values), site.learned)
        means = [case.oracle(case.component(j), column).mean() for j in range(case.n_components)]
        assert int(np.argmax(means)) == k


@over_cases()
def test_decode_undoes_encode(case):
    _, site, data = case.bind()
    value = data.arrays["value"].astype(site.node.value_dtype)
    decoded = site.node.decode(value, site.learned)
    assert decoded.shape == np.shape(case.column)
    assert (decoded == case.column).all()
    draws = site.node.decode(np.stack([value, value]), site.learned)
    assert (draws[1] == case.column).all()


@over_cases()
def test_points_for_starts_are_finite_and_tell_rows_apart(case):
    _, site, data = case.bind()
    points = site.node.embed(data.arrays, site.learned)
    assert points.shape[0] == data.n_rows
    assert points.ndim == 2
    assert np.isfinite(points).all()
    distinct = len({str(row) for row in np.asarray(case.column).tolist()})
    assert len(np.unique(points, axis=0)) == distinct


# ------------------------------------------------------------------- classes


@pytest.mark.parametrize("name", CONTRACT)
def test_a_family_that_misses_a_method_cannot_be_defined(name):
    whole = {key: value for key, value in vars(bm.Poisson).items() if key in CONTRACT}
    whole["learn_column"] = lambda self, column: None
    assert set(whole) == set(CONTRACT)
    type("Whole", (Leaf,), whole)
    partial = {key: value for key, value in whole.items() if key != name}
    with pytest.raises(TypeError, match=f"Broken misses {name} of the leaf contract"):
        type("Broken", (Leaf,), partial)


def test_every_public_family_has_a_case():
    public = {value for value in vars(bm).values() if isinstance(value, type) and issubclass(value, Leaf)}
    assert public == {case.family for case in CASES}


@over_cases()
def test_specs_are_values(case):
    """The repr makes the same spec again, and nothing can be assigned to it."""
    leaf = case.family(**case.fixed)
    assert repr(case.family()) == f"{case.name}()"
    assert repr(leaf).startswith(f"{case.name}({next(iter(case.fixed))}=")
    with pytest.raises(AttributeError):
        setattr(leaf, next(iter(case.fixed)), 1.0)
