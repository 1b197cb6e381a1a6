"""The log posterior as nutpie calls it: the function that Python calls, at every family and structure."""

import ctypes

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.inference.start import middle
from bayesmix.inference.target import Target
from tests.cases import over_cases

_address = ctypes.c_void_p
_AS_C = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, _address, _address, _address, _address)
RNG = np.random.default_rng(4)
X = RNG.normal(5.0 * RNG.integers(0, 2, 60), 1)


def called(native, v):
    """What nutpie is told at v: the status, the value and the gradient; and the point."""
    gradient, value, point = np.empty(len(v)), np.empty(1), np.empty(len(v))
    data = native.user_data.ctypes.data
    density = _AS_C(native.density.address)
    status = density(len(v), v.ctypes.data, gradient.ctypes.data, value.ctypes.data, data)
    expand = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint64, _address, _address, _address)
    assert expand(native.point.address)(len(v), len(v), v.ctypes.data, point.ctypes.data, data) == 0
    return status, float(value[0]), gradient, point


def target_of(spec, data, row_weights=None, **kwargs):
    table, bound, encoded, _, given = prepare(spec, data, row_weights)
    params = middle(bound)
    model = model_of(bound, encoded, index=table.index, row_weights=given, initval=params, **kwargs)
    return Target(model, variables_at(bound, params), jacobian=True)


def agree(target, v, native, u):
    """The native function at v against Python's at u."""
    status, value, gradient, point = called(native, v)
    expected, slope = target(u)
    assert status == 0
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_array_equal(point, u)
    return gradient, slope


@over_cases()
def test_every_family_has_pythons_value_and_gradient(case):
    target = target_of(bm.Mixture(case.family(), 2), case.column)
    native = target.native()
    for _ in range(3):
        u = target.start + 0.2 * RNG.normal(size=len(target.start))
        gradient, slope = agree(target, u, native, u)
        np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-12)


STRUCTURES = {
    "row weights": (bm.Mixture(bm.Normal(), 2), X, {"row_weights": RNG.random(60)}),
    "gaps and fields": (
        bm.Mixture(bm.Composite(x=bm.Optional(bm.Normal()), s=bm.Categorical()), 2),
        {"x": np.where(RNG.random(60) < 0.3, np.nan, X), "s": list(RNG.choice(list("abc"), 60))},
        {},
    ),
    "sequences": (bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=2), [X[:9], X[9:9], X[20:]], {}),
    "fields of two": (bm.JointMixture(x=(bm.Normal(), 2), y=(bm.Poisson(), 3)), {"x": X, "y": RNG.poisson(4, 60)}, {}),
    "no likelihood but a table": (bm.Normal(mu=0.5), X, {}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_in_its_own_coordinates_and_in_others(name):
    spec, data, kwargs = STRUCTURES[name]
    target = target_of(spec, data, **kwargs)
    u = target.start + 0.1 * RNG.normal(size=len(target.start))
    gradient, slope = agree(target, u, target.native(), u)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-12)
    # a chain that goes on: by the chain rule its gradient is that of u times the scale
    origin, scale = target.start, RNG.uniform(0.5, 2, len(u))
    v = (u - origin) / scale
    gradient, slope = agree(target, v, target.native(origin, scale), origin + scale * v)
    np.testing.assert_allclose(gradient, slope * scale, rtol=1e-12, atol=1e-12)


def test_a_point_outside_the_support_is_no_success():
    target = target_of(bm.Mixture(bm.Normal(), 2), X)
    for bad in (np.nan, 1e308):
        status, *_ = called(target.native(), np.full_like(target.start, bad))
        assert status > 0  # which nutpie takes for a divergence; a negative one ends the chain


@pytest.mark.filterwarnings("ignore::bayesmix.errors.ConvergenceWarning")  # few draws will do
def test_draws_are_those_of_a_density_that_is_called_as_python(monkeypatch):
    spec = bm.Mixture(bm.Composite(x=bm.Normal(), s=bm.Categorical()), 2)
    data = {"x": X, "s": list(RNG.choice(list("ab"), len(X)))}
    fits = [bm.fit_nuts(spec, data, draws=50, tune=100, chains=2, random_seed=1)]
    monkeypatch.setattr(Target, "native", lambda *_: None)  # as where a step of the tape is Python's
    fits.append(bm.fit_nuts(spec, data, draws=50, tune=100, chains=2, random_seed=1))
    for name in fits[0].posterior.data_vars:
        np.testing.assert_array_equal(*[fit.posterior[name].values for fit in fits])


def test_large_arrays_are_pythons():
    data = [[f"s{i}" for i in RNG.integers(0, 12_000, 30)] for _ in range(600)]
    target = target_of(bm.Mixture(bm.Sequence(bm.Categorical()), 3), data)
    assert len(target.start) > 20_000
    assert target.native() is None
