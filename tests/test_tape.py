"""Tapes against PyTensor's own op-by-op run of the same graph."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pymc as pm
import pytensor.scalar as ps
import pytensor.tensor as pt
import pytest
from pymc.logprob.utils import CheckParameterValue
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.tensor.elemwise import CAReduce
from scipy import special

import bayesmix as bm
from bayesmix import tape as tape_module
from bayesmix.bound import prepare
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QuickFunction
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target
from bayesmix.kernels import interpreter as machine
from bayesmix.kernels.log_sum_exp import LogSumExp, log_in_place
from bayesmix.tape import Tape

from .cases import CASES

_rng = np.random.default_rng(3)
U = _rng.normal(size=12)
#: A matrix of constants, with a negative stride.
C = _rng.normal(size=(4, 3))[::-1]
EDGES = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-320, 800.0, -800.0, 0.3, 5.0])


def matrix(u):
    return u.reshape((4, 3))


def spd(u):
    a = u[:9].reshape((3, 3))
    return a @ a.T + 3 * pt.eye(3)


GRAPHS = {
    "arithmetic": lambda u: [u + 1, u * 2 - u, u / 3, -u, u**2, u**3.5, pt.abs(u) ** -1, u % 1, pt.sqr(u), 1 / u],
    "many terms": lambda u: [u + u[::-1] + 3.0 + u**3 + 2.0, u * 2.0 * u[::-1] * 3.0 * pt.exp(u), u * -1.0],
    "broadcasting": lambda u: [matrix(u) + u[:3], u[:4, None] * u[None, :3], u[0] + matrix(u) * u[3:7][:, None]],
    "comparisons": lambda u: [
        u > 0,
        u >= u[::-1],
        u < 0,
        u <= u,
        pt.eq(u, 0.0),
        pt.neq(u, u),
        pt.isnan(u),
        pt.isinf(u),
    ],
    "logic": lambda u: [
        (u > 0) & (u < 1),
        (u > 0) | (u < -1),
        (u > 0) ^ (u < 1),
        ~(u > 0),
        pt.all(u > 0),
        pt.any(u > 2),
    ],
    "choices": lambda u: [
        pt.switch(u > 0, u, -u),
        pt.switch(C[:, 0] > 0, u[:4], 7.0),
        pt.maximum(u, 0.2),
        pt.minimum(u, u[0]),
    ],
    "casts": lambda u: [
        (u > 0).astype("float64") * u,
        u.astype("int64"),
        u.astype("float32"),
        u.astype("bool"),
        pt.sign(u),
    ],
    "integers": lambda u: [
        (u > 0).astype("int64") * 3 - 7,
        (u > 0).astype("int8") + (u > 1).astype("int8"),
        (u > 0).sum(),
    ],
    "sums": lambda u: [
        u.sum(),
        matrix(u).sum(0),
        matrix(u).sum(1),
        u.reshape((2, 3, 2)).sum((0, 2)),
        matrix(u).mean(1),
    ],
    "products": lambda u: [u.prod(), matrix(u).prod(0), matrix(u).T.prod(1)],
    "extremes": lambda u: [u.max(), matrix(u).max(1), matrix(u).min(0), pt.argmax(u), pt.sort(u)],
    "empty": lambda u: [u[:0].sum(), u[:0] * 2, u[:0].prod(), pt.concatenate([u[:0], u]), matrix(u)[:, :0].sum(1)],
    "zero-d": lambda u: [u[3], u[3] * u[4], u[3].reshape((1, 1)) + 1, pt.stack([u[0], u[1] * 2, pt.constant(4.0)])],
    "slices": lambda u: [u[2:9:3], u[::-2], matrix(u)[1:, ::-1], matrix(u)[2], matrix(u)[..., None, 1]],
    "lists": lambda u: [
        u[[3, 3, 0]],
        matrix(u)[[0, 2], [1, 1]],
        matrix(u)[:, [2, 0]],
        matrix(u)[np.array([True, False, True, True])],
    ],
    "shapes": lambda u: [
        matrix(u).T,
        matrix(u).reshape((2, 6)),
        matrix(u).dimshuffle(1, "x", 0),
        u.shape[0] * u,
        u.flatten(),
    ],
    "joins": lambda u: [pt.concatenate([u, C[:, 0], u[:2]]), *pt.split(u, [3, 9]), pt.stack([u, u * 2], axis=1)],
    "fills": lambda u: [
        pt.alloc(u[0], 2, 3),
        pt.zeros_like(u) + u[1],
        pt.full((2,), u[2]),
        pt.repeat(u[:3], 2),
        pt.tile(u[:2], 3),
    ],
    "diagonals": lambda u: [
        pt.diagonal(matrix(u)),
        pt.diag(u[:3]),
        pt.diag(u[:3], 1),
        pt.tril(matrix(u)),
        pt.triu(matrix(u), 1),
    ],
    "set": lambda u: [
        pt.set_subtensor(u[2:4], 0.0),
        pt.set_subtensor(matrix(u)[:, 1], u[:4]),
        pt.set_subtensor(pt.zeros((3, 3))[[0, 1, 2], [2, 1, 0]], u[:3]),
        pt.set_subtensor(pt.constant(C.copy())[::-1, 0], u[0]),
    ],
    "increment": lambda u: [
        pt.inc_subtensor(u[2:4], u[:2]),
        pt.inc_subtensor(pt.zeros(5)[[1, 1, 3]], u[:3]),
        pt.inc_subtensor(matrix(u)[[0, 0, 2]], 1.5),
        pt.inc_subtensor(pt.ones((2, 3))[:, ::2], u[0]),
    ],
    "cumulative": lambda u: [pt.cumsum(u), pt.cumsum(matrix(u), 0), pt.cumprod(matrix(u), 1)],
    "dot": lambda u: [
        matrix(u) @ u[:3],
        matrix(u).T @ C,
        pt.dot(u, u),
        C @ matrix(u).T,
        u.reshape((2, 2, 3)) @ C[:3, :2],
    ],
    "softmax": lambda u: [
        pt.special.softmax(u),
        pt.special.log_softmax(matrix(u), 1),
        pt.special.softmax(matrix(u), 0),
    ],
    "logsumexp": lambda u: [pt.logsumexp(matrix(u), axis=0), pt.logaddexp(u, 1.0), *LogSumExp(3)(u.reshape((2, 6)))],
    "cholesky": lambda u: [
        pt.linalg.cholesky(spd(u)),
        pt.linalg.cholesky(pt.stack([spd(u), 2 * spd(u)])),
        pt.linalg.cholesky(spd(u), lower=False),
    ],
    "triangular": lambda u: [
        pt.linalg.solve_triangular(pt.tril(spd(u)), u[:3], lower=True),
        pt.linalg.solve_triangular(spd(u), u[:6].reshape((3, 2)), lower=False),
        pt.linalg.solve_triangular(spd(u).T, u[:3], lower=False, trans=1),
        pt.linalg.solve_triangular(pt.stack([spd(u)] * 2), pt.stack([pt.eye(3)] * 2), lower=True, unit_diagonal=True),
    ],
    "not positive definite": lambda u: [
        pt.linalg.cholesky(spd(u) - 50 * pt.eye(3)),
        pt.linalg.cholesky(pt.stack([spd(u), -spd(u)])),
    ],
    "singular": lambda u: [
        pt.linalg.solve_triangular(pt.tril(spd(u), -1), u[:3], lower=True),
        pt.linalg.solve_triangular(
            pt.stack([pt.tril(spd(u)), pt.tril(spd(u), -1)]), pt.stack([pt.eye(3)] * 2), lower=True
        ),
    ],
    "single precision": lambda u: [
        pt.inc_subtensor(u.astype("float32")[2:4], 1.0),
        pt.sum(u.astype("float32")),
        pt.cumsum(u.astype("float32")),
        matrix(u).astype("float32") @ C.astype("float32").T,
        pt.linalg.cholesky(spd(u).astype("float32")),
        pt.linalg.solve_triangular(spd(u).astype("float32"), u[:3].astype("float32"), lower=True),
    ],
    "of nothing": lambda u: [
        pt.cumsum(u[:0]),
        matrix(u)[:, :0] @ C[:0],
        matrix(u)[:0] @ C.T,
        pt.linalg.cholesky(matrix(u)[:0, :0]),
        pt.linalg.solve_triangular(spd(u)[:0, :0], matrix(u)[:0], lower=True),
        *LogSumExp(3)(u[:0].reshape((0, 6))),
    ],
    "bits": lambda u: [
        CAReduce(ps.and_, axis=None)(u.astype("int64")),
        CAReduce(ps.or_, axis=(1,))(matrix(u).astype("int64")),
        CAReduce(ps.xor, axis=None)(u > 0),
    ],
    "set where the input says": lambda u: [
        pt.set_subtensor(u[(u[0] > 0).astype("int64")], 7.0),
        pt.inc_subtensor(u[(u[:3] > 0).astype("int64")], u[3:6]),
    ],
    "other linear algebra": lambda u: [pt.linalg.inv(spd(u)), pt.linalg.det(spd(u)), pt.linalg.slogdet(spd(u))[1]],
    "constants": lambda u: [pt.constant(C.copy()), u.shape, pt.zeros(3), pt.constant(3)],
    "index from the input": lambda u: [u[(u[0] > 0).astype("int64")], u[pt.argsort(u)]],
}
UNARY = {
    "exp": pt.exp, "log": pt.log, "log1p": pt.log1p, "expm1": pt.expm1, "sqrt": pt.sqrt, "sigmoid": pt.sigmoid,
    "softplus": pt.softplus, "log1mexp": pt.log1mexp, "gammaln": pt.gammaln, "psi": pt.psi, "trigamma": pt.tri_gamma,
    "erf": pt.erf, "erfc": pt.erfc, "erfcx": pt.erfcx, "erfinv": pt.erfinv, "log2": pt.log2, "log10": pt.log10,
    "exp2": pt.exp2, "sin": pt.sin, "cos": pt.cos, "tan": pt.tan, "arcsin": pt.arcsin, "arccos": pt.arccos,
    "arctan": pt.arctan, "sinh": pt.sinh, "cosh": pt.cosh, "tanh": pt.tanh, "arcsinh": pt.arcsinh,
    "arccosh": pt.arccosh, "arctanh": pt.arctanh, "floor": pt.floor, "ceil": pt.ceil, "abs": pt.abs, "sign": pt.sign,
    "neg": pt.neg, "sqr": pt.sqr, "reciprocal": pt.reciprocal, "round": pt.round, "i0": pt.i0, "gamma": pt.gamma,
}  # fmt: skip
BINARY = {
    "add": pt.add, "sub": pt.sub, "mul": pt.mul, "div": pt.true_div, "pow": pt.power, "maximum": pt.maximum,
    "minimum": pt.minimum, "arctan2": pt.arctan2, "mod": pt.mod, "int_div": pt.int_div, "gammainc": pt.gammainc,
    "lt": pt.lt, "gt": pt.gt, "le": pt.le, "ge": pt.ge, "eq": pt.eq, "neq": pt.neq,
}  # fmt: skip


def agree(inputs, outputs, examples, points, rtol=1e-12):
    """A tape made at the first point gives what PyTensor gives at all of them."""
    tape, quick = Tape(inputs, outputs, examples), QuickFunction(inputs, outputs)
    for point in points:
        for found, expected in zip(tape(*point), quick(*point), strict=True):
            assert np.shape(found) == np.shape(expected)
            assert np.asarray(found).dtype == np.asarray(expected).dtype
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-14)
    return tape


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, in the oracle
def test_graphs_agree_with_pytensor_as_instructions_and_as_calls(name, large, monkeypatch):
    if large:  # every operation is then a call
        monkeypatch.setattr(tape_module, "LARGE", -1)
    u = pt.vector("u", shape=(12,))
    agree(
        [u], [pt.as_tensor(output) for output in GRAPHS[name](u)], [U], [[U], [U[::-1]], [U * 3 + 0.5], [np.round(U)]]
    )


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_of_one_number_agree_to_the_edges(name):
    u = pt.vector("u", shape=(12,))
    # where the trigamma function is reflected, next to its poles, the sine of a rounded number limits both
    rtol = 1e-9 if name == "trigamma" else 1e-12
    agree([u], [UNARY[name](u)], [U], [[U], [EDGES], [np.abs(U) / 4], [100 * U]], rtol)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_of_two_numbers_agree_to_the_edges(name):
    u, v = pt.vector("u", shape=(12,)), pt.matrix("v", shape=(12, 1))
    agree([u, v], [BINARY[name](u, v)], [U, U[:, None]], [[U, U[:, None] + 1], [EDGES, EDGES[:, None]]])


def run(opcode, x):
    memory = np.concatenate([x, np.zeros(len(x))])
    machine.run(np.array([opcode, len(x), len(x), 0, 1]), np.zeros(0, np.int64), memory, 0, 5)
    return memory[len(x) :]


@pytest.mark.parametrize(
    ("opcode", "oracle"),
    [
        (machine.GAMMALN, special.gammaln),
        (machine.PSI, special.psi),
        (machine.TRIGAMMA, lambda x: special.polygamma(1, x)),
        (machine.ERF, special.erf),
        (machine.ERFC, special.erfc),
        (machine.ERFCX, special.erfcx),
        (machine.SIGMOID, special.expit),
    ],
)
def test_special_functions_agree_with_scipy(opcode, oracle):
    assert opcode not in machine.MISSING
    x = np.concatenate([np.linspace(0.01, 60, 4000), 10.0 ** np.arange(-100, 100), -np.linspace(0.1, 20, 173) + 0.013])
    # see above for the trigamma function
    np.testing.assert_allclose(run(opcode, x), oracle(x), rtol=1e-14 if opcode != machine.TRIGAMMA else 1e-11)


def test_the_vectorised_logarithm_agrees_with_numpy():
    x = np.concatenate([1 + 10.0 ** np.arange(-16, 0, 0.1), np.linspace(1, 100, 5001), [1e300, np.inf, np.nan]])
    found = x.copy()
    log_in_place(found)
    np.testing.assert_allclose(found, np.log(x), rtol=1e-15)


@pytest.mark.parametrize("shape", [(30_000, 3), (3, 30_000), (300, 200)])
def test_large_arrays_are_calls_and_agree(shape):
    rows = _rng.normal(size=shape)
    u = pt.vector("u", shape=(shape[1],))
    product = pt.constant(rows) * u
    shifted = product + u[None, :] - pt.exp(u[0])
    outputs = [
        product.sum(0), shifted.sum(1), shifted, shifted.sum(), pt.switch(shifted > 0, shifted, 0.0).max(),
        pt.dot(pt.constant(rows), u), pt.dot(shifted.T, product[:, :2]), *LogSumExp(shape[1])(shifted),
        pt.grad(LogSumExp(shape[1])(shifted)[0].sum(), u), pt.maximum(u, shifted) / (1 + shifted[:, :1] ** 2),
    ]  # fmt: skip
    point = _rng.normal(size=shape[1])
    agree([u], outputs, [point], [[point], [point[::-1]]], rtol=1e-10)


class Unheard(Op):
    """An operation that no instruction knows, with a view for a result."""

    def make_node(self, x):
        return Apply(self, [x], [pt.vector(dtype="float64"), pt.vector(dtype="int64")])

    def perform(self, node, inputs, outputs):
        outputs[0][0], outputs[1][0] = inputs[0][::-1], np.argsort(inputs[0])


def test_an_unknown_operation_is_called_between_instructions():
    u = pt.vector("u", shape=(12,))
    turned, order = Unheard()(u * 2)
    tape = agree([u], [turned + 1, turned[order], order * 2], [U], [[U], [U[::-1]]])
    assert sum(not isinstance(step, tuple) for step in tape._steps) >= 1


def test_a_result_whose_shape_changes_is_refused():
    u = pt.vector("u", shape=(12,))
    tape = Tape([u], [u[u > 0].sum()], [U])
    assert tape(U)[0] == pytest.approx(U[U > 0].sum())
    with pytest.raises(ValueError, match="shape of its result changed"):
        tape(np.abs(U))


def test_moves_cost_nothing_at_run_time():
    u = pt.vector("u", shape=(12,))
    moved = pt.concatenate([matrix(u).T[::-1].ravel(), pt.zeros(3)])[[3, 1, 14]]
    tape = Tape([u], [pt.exp(pt.diag(pt.diag(pt.diag(moved))))], [U])
    assert len(tape._code) == 4 + 5  # one gathering, one exponential


def test_what_the_outputs_do_not_need_is_left_out():
    u = pt.vector("u", shape=(12,))
    tape = Tape([u], [pt.concatenate([pt.exp(u), pt.log(u)])[:12]], [U])
    assert len(tape._code) == 5


def test_a_call_that_the_outputs_do_not_need_is_left_out():
    u = pt.vector("u", shape=(12,))
    turned, _ = Unheard()(u * 2)
    tape = agree([u], [pt.concatenate([u + 1, turned])[:12]], [U], [[U], [U[::-1]]])
    assert all(isinstance(step, tuple) for step in tape._steps)


def test_a_function_that_scipy_does_not_offer_to_c_is_called(monkeypatch):
    u = pt.vector("u", shape=(12,))
    monkeypatch.setattr(machine, "MISSING", set())
    machine._from_scipy("gammaln_of_no_scipy", machine.GAMMALN)
    tape = Tape([u], [pt.gammaln(u) + 1], [U])
    assert sum(not isinstance(step, tuple) for step in tape._steps) == 1
    np.testing.assert_allclose(tape(np.abs(U))[0], special.gammaln(np.abs(U)) + 1, rtol=1e-14)


def test_a_parameter_outside_its_support_gives_minus_infinity():
    u = pt.vector("u", shape=(12,))
    check = CheckParameterValue("sigma > 0", can_be_replaced_by_ninf=True)
    tape = Tape([u], [check(u.sum(), pt.all(u > 0), u[0] < 5)], [np.abs(U)])
    assert tape(np.abs(U))[0] == pytest.approx(np.abs(U).sum())
    assert tape(U)[0] == -np.inf
    assert tape(np.abs(U) + 10)[0] == -np.inf


def test_inputs_are_copied_and_outputs_belong_to_the_caller():
    u = pt.vector("u", shape=(12,))
    tape = Tape([u], [u, pt.constant(C.copy())], [U])
    first = tape(U)
    first[0][:] = 0
    first[1][:] = 0
    second = tape(U)
    assert (second[0] == U).all()
    assert (second[1] == C).all()


def test_shared_variables_keep_their_values():
    import pytensor

    u, shared = pt.vector("u", shape=(12,)), pytensor.shared(2.0)
    tape = Tape([u], [u * shared], [U])
    shared.set_value(3.0)
    np.testing.assert_array_equal(tape(U)[0], 2 * U)


def test_a_missing_input_is_named():
    u, other = pt.vector("u", shape=(12,)), pt.scalar("other")
    with pytest.raises(ValueError, match="other"):
        Tape([u], [u * other], [U])


def _targets():
    x = np.concatenate([_rng.normal(m, 1, 40) for m in (-4, 4)])
    z = _rng.integers(2, size=80)
    yield "three normals, ordered", bm.Mixture(bm.Normal(), 3), x, "mu"
    yield (
        "user's priors",
        bm.Mixture(
            bm.Composite(
                a=bm.Normal(mu=pm.StudentT.dist(nu=4, mu=0, sigma=10), sigma=pm.HalfNormal.dist(5)),
                b=bm.Normal(sigma=pm.LogNormal.dist(0, 1)),
                c=bm.Poisson(mu=pm.Gamma.dist(2, 0.5)),
                d=bm.Categorical(p=pm.Dirichlet.dist(np.array([1.5, 2.0, 3.0]))),
                e=bm.Bernoulli(p=pm.Beta.dist(2, 3)),
            ),
            2,
        ),
        {"a": x, "b": x[::-1], "c": 3 * z, "d": np.array(["r", "g", "b"])[(z + np.arange(80)) % 3], "e": z > 0},
        None,
    )
    yield "nested", bm.Mixture(bm.Composite(a=bm.Mixture(bm.Normal(), 2), c=bm.Poisson()), 2), {"a": x, "c": z}, None
    yield "two rows", bm.Mixture(bm.Normal(), 2), np.array([0.0, 1.0]), None
    yield "20,000 rows", bm.Mixture(bm.Normal(), 3), np.tile(x, 250), None
    for case in CASES:
        # the categorical's stick-breaking prior has an integer hyperparameter, which `build_model` cannot share yet
        for priors in ("default", "conjugate") if case.name == "Categorical" else ("default", "numeric"):
            yield f"{case.name}, {priors}", bm.Mixture(case.leaf(priors), 2), case.column, None


TARGETS = {name: rest for name, *rest in _targets()}


def _target(name, likelihood="fused"):
    spec, data, order = TARGETS[name]
    table, bound, encoded, weights, _ = prepare(spec, data, None)
    start = maximise(bound, encoded, weights, n_starts=4, random_seed=0)[0].params
    model = model_of(bound, encoded, index=table.index, order=order, initval=start, likelihood=likelihood)
    return Target(model, variables_at(bound, start), jacobian=True)


#: Compiling PyTensor's side of these takes seconds.
_SLOW = ("SpikeAndSlab", "MvNormal", "nested", "user's priors")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name.startswith(_SLOW) else []) for name in TARGETS]
)
@pytest.mark.parametrize("likelihood", ["fused", "graph"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_log_posteriors_agree_with_pytensor(name, likelihood, monkeypatch):
    target = _target(name, likelihood)
    monkeypatch.setattr("bayesmix.inference.target.Tape", lambda inputs, outputs, _: QuickFunction(inputs, outputs))
    oracle = Target(target.model, target.constrained(target.start), jacobian=True)
    np.testing.assert_allclose(oracle.start, target.start, atol=1e-9)
    for scale in (0, 0.1, 1, 5, 40):
        u = target.start + scale * np.random.default_rng(1).standard_normal(len(target.start))
        try:
            value, gradient = oracle(u)
        except pm.logprob.utils.ParameterValueError:
            assert target(u)[0] == -np.inf
            continue
        found, slope = target(u)
        np.testing.assert_allclose(found, value, rtol=1e-12)
        size = np.abs(gradient[np.isfinite(gradient)]).max(initial=1.0)
        # sums over rows in another order
        np.testing.assert_allclose(slope, gradient, rtol=1e-8, atol=1e-10 * size)


@pytest.mark.parametrize("name", ["three normals, ordered", "20,000 rows"])
def test_threads_give_what_one_thread_gives(name):
    target = _target(name)
    points = target.start + 0.1 * np.random.default_rng(2).standard_normal((40, len(target.start)))
    alone = [target(u) for u in points]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(target, points))
    for (value, gradient), (found, slope) in zip(alone, together):
        assert value == found
        np.testing.assert_array_equal(gradient, slope)
