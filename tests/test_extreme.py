"""Extreme data against 60 digits: rows' log densities, and the gradient in mu, log sigma, log odds and log weights."""

from decimal import Decimal, localcontext
from math import factorial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.compilation import QUICK
from bayesmix.data import read
from bayesmix.kernels.log_sum_exp import exp, log, log_and_inverse
from bayesmix.likelihood import Rows, row_log_density

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
#: Of a row's log density; of a gradient, relative to the sum of the sizes of its terms.
TOLERANCE = 1e-9
_rng = np.random.default_rng(20)


def exactly(values):
    return [Decimal(float(v)) for v in values]


def log_factorial(x):
    if x < 1000:
        return Decimal(factorial(int(x))).ln()
    bernoulli = [(1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6)]
    terms = [Decimal(a) / b / (2 * j * (2 * j - 1) * x ** (2 * j - 1)) for j, (a, b) in enumerate(bernoulli, 1)]
    return x * x.ln() - x + (2 * PI * x).ln() / 2 + sum(terms)


def normal(x, p):
    z = (x - p["mu"]) / p["sigma"]
    return -p["sigma"].ln() - (2 * PI).ln() / 2 - z * z / 2, {"mu": z / p["sigma"], "sigma": z * z - 1}


def log_normal(x, p):
    density, scores = normal(x.ln(), p)
    return density - x.ln(), scores


def poisson(x, p):
    return x * p["mu"].ln() - p["mu"] - log_factorial(x), {"mu": x - p["mu"]}


def exponential(x, p):
    return -p["scale"].ln() - x / p["scale"], {"scale": x / p["scale"] - 1}


def geometric(x, p):
    p = p["p"]
    return p.ln() + (x - 1) * (1 - p).ln(), {"p": 1 - p - (x - 1) * p}


def bernoulli(x, p):
    p = p["p"]
    return (p if x else 1 - p).ln(), {"p": x - p}


#: What each parameter is a function of, in PyTensor and in numpy backwards.
COORDINATES = {
    "mu of normal": (lambda u: u, lambda v: v),
    "log": (pt.exp, np.log),
    "log odds": (pt.sigmoid, lambda v: np.log(v) - np.log1p(-v)),
}


def by_decimals(density, x, weights, params):
    """Log densities of rows (N,), the gradient of their sum, and the sums of its terms' sizes, by parameter."""
    with localcontext() as context:
        context.prec = 60
        n_components = len(weights)
        log_weights = [w.ln() for w in exactly(weights)]
        components = [dict(zip(params, values)) for values in zip(*[exactly(v) for v in params.values()])]
        rows, total = [], {name: [Decimal(0)] * n_components for name in ("weights", *params)}
        size = {name: [Decimal(0)] * n_components for name in total}
        for value in exactly(x):
            found = [density(value, component) for component in components]
            joint = [w + d for w, (d, _) in zip(log_weights, found)]
            peak = max(joint)
            rows.append(peak + sum((j - peak).exp() for j in joint).ln())
            for k, (_, scores) in enumerate(found):
                resp = (joint[k] - rows[-1]).exp()
                for name, score in {"weights": Decimal(1), **scores}.items():
                    total[name][k] += resp * score
                    size[name][k] += abs(resp * score)
        return (
            np.array([float(r) for r in rows]),
            {name: np.array([float(v) for v in values]) for name, values in total.items()},
            {name: np.array([float(v) for v in values]) for name, values in size.items()},
        )


def ours(family, x, weights, params, kinds):
    """The same by the fused likelihood."""
    bound = bind(bm.Mixture(family, len(weights)), read(x))
    data = bound.encode(read(x))
    inputs, variables, values = {}, {}, []
    for name, value in {"weights": weights, **params}.items():
        forward, backward = COORDINATES[kinds.get(name, "log")]
        inputs[name] = pt.vector(name, shape=np.shape(value))
        variables[name] = forward(inputs[name])
        values.append(backward(np.asarray(value, float)))
    rows = row_log_density(Rows(bound, data), variables)
    gradients = pt.grad(rows.sum(), list(inputs.values()))
    function = pytensor.function(list(inputs.values()), [rows, *gradients], mode=QUICK)
    found, *gradients = function(*values)
    return found, dict(zip(inputs, gradients))


def mixture(x, means, sigmas, weights=None):
    weights = np.full(len(means), 1 / len(means)) if weights is None else np.array(weights)
    return bm.Normal(), normal, x, weights, {"mu": np.array(means, float), "sigma": np.array(sigmas, float)}


def counts(family, density, x, weights, name, values):
    return family, density, np.asarray(x), np.array(weights), {name: np.array(values, float)}


_Z = _rng.normal(size=40)
_WIDE = np.concatenate([_Z, -8 + 1e-3 * _Z, 1e3 * _Z])
CASES = {
    "offset of 1e8": mixture(1e8 + 2 * _Z, 1e8 + np.array([-1.5, 0.25, 2.0]), [1.0, 0.5, 3.0]),
    "densities below 1e-300": mixture(np.append(_Z, [60.0, -400.0, 1e5, 1e8]), [-1.0, 1.0], [1.0, 0.7]),
    "a component of weight 1e-12": mixture(np.append(_Z, [9.0, 30.0]), [0.0, 9.0], [1.0, 1.0], [1 - 1e-12, 1e-12]),
    "a component of weight 1e-300": mixture(np.append(_Z, 60.0), [0.0, 60.0], [1.0, 1.0], [1.0, 1e-300]),
    "fifty components": mixture(50 * _Z, np.linspace(-90, 90, 50), np.geomspace(0.1, 20, 50)),
    "fifty equal ones": mixture(_Z, np.zeros(50), np.ones(50)),
    "unit of 1e-8": mixture(1e-8 * _Z, [-1e-8, 5e-9], [1e-8, 2e-8]),
    "unit of 1e8": mixture(1e8 * _Z, [-1e8, 5e7], [1e8, 2e8]),
    "unit of 1e30": mixture(1e30 * _Z, [-1e30, 5e29], [1e30, 2e30]),
    "widths from 1e-3 to 1e3": mixture(_WIDE, [0.0, -8.0, 0.0], [1.0, 1e-2, 1e3]),
    "log-normal": (bm.LogNormal(), log_normal, np.exp(30 * _Z), np.array([0.5, 0.5]),
                   {"mu": np.array([-20.0, 15.0]), "sigma": np.array([10.0, 30.0])}),
    "counts of 1e9": counts(
        bm.Poisson(), poisson, 10**9 + np.round(4e4 * _Z), [0.4, 0.6], "mu", [1e9 - 2e4, 1e9 + 3e4]
    ),
    "counts of 1e5 and 0": counts(
        bm.Poisson(), poisson, np.append(_rng.poisson(1e5, 20), np.zeros(20)), [0.5, 0.5], "mu", [1e-3, 1e5]
    ),
    "rates from 1e-9 to 1e4": counts(bm.Poisson(), poisson, _rng.poisson(3, 30), [0.3, 0.3, 0.4], "mu", [1e-9, 2, 1e4]),
    "waiting times of 1e-8 and 1e8": counts(
        bm.Exponential(), exponential, np.append(1e-8, 1e8) * _rng.exponential(size=(30, 2)).ravel().reshape(-1, 2),
        [0.5, 0.5], "scale", [1e-8, 1e8],
    ),
    "geometric at 1e-12": counts(
        bm.Geometric(), geometric, _rng.geometric(1e-6, 30), [0.2, 0.3, 0.5], "p", [1e-12, 1e-6, 0.5]
    ),
    "Bernoulli at 1e-12": counts(bm.Bernoulli(), bernoulli, [0] * 20 + [1], [0.5, 0.5], "p", [1e-12, 0.25]),
    "all Bernoulli at 1e-12": counts(bm.Bernoulli(), bernoulli, [0] * 20 + [1], [1.0], "p", [1e-12]),
}  # fmt: skip
_family, _density, _x, *_rest = CASES["waiting times of 1e-8 and 1e8"]
CASES["waiting times of 1e-8 and 1e8"] = (_family, _density, np.ravel(_x), *_rest)
KINDS = {bm.Normal: {"mu": "mu of normal"}, bm.LogNormal: {"mu": "mu of normal"},
         bm.Bernoulli: {"p": "log odds"}, bm.Geometric: {"p": "log odds"}}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_log_density_and_gradient_to_nine_digits(name):
    family, density, x, weights, params = CASES[name]
    rows, gradient, size = by_decimals(density, x, weights, params)
    found, found_gradient = ours(family, x, weights, params, KINDS.get(type(family), {}))
    np.testing.assert_allclose(found, rows, rtol=TOLERANCE)
    for each, value in gradient.items():
        assert np.isfinite(found_gradient[each]).all()
        wrong = np.abs(found_gradient[each] - value)
        assert (wrong <= TOLERANCE * size[each] + 1e-300).all(), (each, wrong / size[each])


@pytest.mark.parametrize("distance", [1e2, 1e3, 1e5, 1e7])
def test_what_a_component_far_from_the_reference_point_loses(distance):
    """About L² times the rounding of a double, L its distance from the median in its own standard deviations."""
    x = np.append(_Z, distance + _Z[:10])
    family, density, x, weights, params = mixture(x, [0.0, distance], [1.0, 1.0])
    rows, _, _ = by_decimals(density, x, weights, params)
    found, _ = ours(family, x, weights, params, KINDS[bm.Normal])
    assert np.abs(found - rows).max() <= 2 * np.finfo(float).eps * (10 + distance**2)


# ------------------------------------------------------------------- the kernel's exponential and logarithm


def test_exponential_to_its_last_digit():
    spread = np.concatenate([-np.geomspace(1e-320, 708, 3000), -_rng.uniform(0, 708, 3000), [-0.0, -5e-324, -2.2e-308]])
    with localcontext() as context:
        context.prec = 40
        exact = [Decimal(float(v)).exp() for v in spread]
        worst = max(abs(Decimal(float(exp(v))) / e - 1) for v, e in zip(spread, exact))
    assert worst < 3e-16
    # below that the terms of a sum whose largest is 1 are nothing
    assert [exp(v) for v in (-708.1, -745.0, -1e308, -np.inf)] == [0.0] * 4
    assert np.isnan(exp(np.nan))


def test_logarithm_and_inverse_to_their_last_digits():
    spread = np.concatenate([
        1 + np.geomspace(2.3e-16, 1, 2000), _rng.uniform(1, 100, 2000), np.geomspace(1, 1e300, 2000), [1.0, 2.0, 50.0]
    ])  # fmt: skip
    with localcontext() as context:
        context.prec = 40
        for value in spread:
            exact = Decimal(float(value))
            logarithm, inverse = log_and_inverse(value)
            for found, wanted, limit in ((log(value), exact.ln(), 1e-15), (logarithm, exact.ln(), 2e-15)):
                assert abs(Decimal(float(found)) - wanted) <= Decimal(limit) * wanted, value
            assert abs(Decimal(float(inverse)) * exact - 1) < 5e-16
    assert log(np.inf) == np.inf
    assert np.isnan(log(np.nan))
    assert np.isnan(log_and_inverse(np.nan)).all()


@pytest.mark.parametrize("n_components", [2, 3, 50])
def test_rows_that_components_exclude_tie_on_or_do_not_know(n_components):
    weights = np.full(n_components, 1 / n_components)
    table = read([0, 1, 1, 0])
    bound = bind(bm.Mixture(bm.Bernoulli(), n_components), table)
    rows = Rows(bound, bound.encode(table)).plan

    def density(p, weights=weights):
        natural = rows.natural({"weights": weights, "p": p})
        return rows.run(natural, np.ones(4))

    found, statistics = density(np.full(n_components, 0.25))  # all tie
    np.testing.assert_allclose(found, np.log([0.75, 0.25, 0.25, 0.75]), rtol=0, atol=2e-15)
    np.testing.assert_allclose(statistics[:n_components], 4 / n_components, rtol=1e-14)
    only = np.zeros(n_components)
    only[-1] = 0.5
    found, statistics = density(only)  # the others all but exclude the ones
    np.testing.assert_allclose(found[1:3], np.log(0.5 / n_components), rtol=1e-14)
    natural = rows.natural({"weights": weights, "p": only})
    natural[:n_components] = -np.inf  # every component excludes every row
    found, statistics = rows.run(natural, np.ones(4))
    assert (found == -np.inf).all()
    assert (statistics == 0).all()
    natural[:] = np.nan  # no parameters, no likelihood
    assert (rows.run(natural, np.ones(4))[0] == -np.inf).all()


def test_an_impossible_symbol_outweighs_any_density():
    """The kernel took log 0 as that of the smallest double, -708: a row that lay further off changed its component."""
    label = bm.Categorical(p=[[1.0, 0.0], [0.0, 1.0]], levels=["a", "b"])
    spec = bm.Mixture(bm.Composite(label=label, x=bm.Normal(mu=np.array([0.0, 1000.0]), sigma=1.0)), 2)
    fit = bm.fit_em(spec, {"label": list("aabab"), "x": [0.5, 1000.0, 999.0, -0.5, 1001.0]}, random_seed=1)
    # three rows of the first component, two of the second, and a row for each that the prior of the weights is worth
    np.testing.assert_allclose(fit.params["weights"], [4 / 7, 3 / 7], rtol=1e-12)
    far = -0.5 * np.array([0.25, 1e6, 1.0, 0.25, 1.0]) - 0.5 * np.log(2 * np.pi)
    expected = (far + np.log(fit.params["weights"][[0, 0, 1, 0, 1]])).sum()
    np.testing.assert_allclose(fit.loglik, expected, rtol=1e-12)
    np.testing.assert_allclose(fit.log_density().sum(), expected, rtol=1e-12)
