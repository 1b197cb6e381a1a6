"""The fused likelihood: one PyTensor Op for the log density of every row, with the labels summed out.

Its input is one vector, the natural parameters of the whole tree, in which every family's log density is linear. Its
value is one pass of the E-step kernel; and so is its gradient, the expected statistics (Fisher's identity):

    ∂/∂η Σ_n g_n log p(x_n | η) = expected statistics, each row with weight g_n

The rest of the graph, from PyMC's variables to natural parameters, is as small as the parameters are.
`with_log_likelihood` puts both passes together where all that a posterior takes is the sum. Where a node has no linear
form (vectors that lack coordinates) the walks in numpy take the kernel's place, over the slots' values
(`WalkedLogDensity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type, grad
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.graph.traversal import apply_ancestors
from pytensor.link.numba.dispatch.basic import (
    generate_fallback_impl,
    numba_njit,
    register_funcify_and_cache_key,
)
from pytensor.scalar.basic import Mul
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Sum
from pytensor.tensor.rewriting.basic import register_specialize

from bayesmix.bound import Bound
from bayesmix.kernels import whole_table
from bayesmix.plan import Plan
from bayesmix.spec import Encoded, NotLinear, Stats
from bayesmix.threads import without_warnings


class Rows:
    """The encoded rows that a likelihood speaks of; `bayesmix.set_data` swaps them.

    Parameters
    ----------
    bound : Bound
    data : Encoded
    weights : ndarray, shape (N,), optional
        Of the rows, in the log-likelihood of the whole table.
    """

    def __init__(self, bound: Bound, data: Encoded, weights: np.ndarray | None = None):
        self.bound, self.data = bound, data
        self.weights = np.ones(data.n_rows) if weights is None else np.asarray(weights, float)
        try:
            self.plan: Plan | None = Plan(bound, data)
            self.gathered = self.plan.gathered(self.weights)
        except NotLinear:
            self.plan = None
        self.arrays: dict[str, Any] = {}

    def inputs(self) -> list[Any]:
        """The row weights and the plan's arrays as inputs of a graph (shared variables, always the same ones)."""
        values = self.table()
        if not self.arrays:
            self.arrays = {
                name: pytensor.shared(value, name=f"rows_{name}", shape=(None,) * value.ndim, borrow=True)
                for name, value in values.items()
            }
        return list(self.arrays.values())

    def table(self) -> dict[str, np.ndarray]:
        """What `bayesmix.kernels.whole_table` takes besides the parameters, by name."""
        return {"weights": self.gathered, **self.plan.arrays()}  # type: ignore[union-attr]

    def swap(self, data: Encoded, weights: np.ndarray | None = None) -> None:
        """Put other rows in their place."""
        arrays = self.arrays
        self.__init__(self.bound, data, weights)  # type: ignore[misc]
        if arrays:
            for name, value in self.table().items():
                arrays[name].set_value(value, borrow=True)
        self.arrays = arrays

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("bound", "data", "weights", "arrays")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state.pop("arrays")
        self.__init__(**state)  # type: ignore[misc]
        self.arrays = arrays


def row_log_density(rows: Rows, variables: Mapping[str, Any]) -> Any:
    """Log density (N,) of every row as a PyTensor expression of the slots' variables."""
    if rows.plan is not None:
        return RowLogDensity(rows).of(rows.plan.natural_graph(variables))
    return WalkedLogDensity(rows)(*[variables[name] for name in rows.bound.slots])


class _OfRows(Op):
    """What the fused operations share: the rows are in `rows`, and the last inputs too.

    Run by Python they take them from `rows`, whose plan keeps memory from call to call. Compiled by numba they take
    them from the inputs: PyTensor keeps compiled code on disk under a key of the operation, and data inside that code
    would be handed to the same operation on another table.
    """

    __props__ = ("rows",)

    def __init__(self, rows: Rows):
        self.rows = rows

    def __str__(self):
        return type(self).__name__

    def of(self, *own: Any) -> Any:
        """The operation's value at natural parameters (and weights)."""
        return self(*own, *self.rows.inputs())

    def _floats(self, inputs: Any, n_own: int) -> list[Any]:
        return [pt.as_tensor(value).astype("float64") for value in inputs[:n_own]] + list(inputs[n_own:])

    def connection_pattern(self, node):
        """Rows have no gradient."""
        n_rows = len(self.rows.inputs())
        own = len(node.inputs) - n_rows
        return [[True] * len(node.outputs)] * own + [[False] * len(node.outputs)] * n_rows

    def _pulled(self, *own: Any) -> list[Any]:
        return [*own, *[disconnected_type() for _ in self.rows.inputs()]]


class RowLogDensity(_OfRows):
    """Log density (N,) of every row at a vector of natural parameters."""

    def make_node(self, *inputs):
        """One vector (and the rows) in, one out."""
        return Apply(self, self._floats(inputs, 1), [pt.vector(dtype="float64")])

    def infer_shape(self, node, input_shapes):
        """The number of rows, which costs no pass over them."""
        return [(_n_rows(node),)]

    def perform(self, node, inputs, output_storage):
        """See the class."""
        output_storage[0][0], _ = self.rows.plan.run(inputs[0], self.rows.weights, down=False)

    def pullback(self, inputs, outputs, cotangents):
        """The expected statistics."""
        return self._pulled(RowStatistics(self.rows)(inputs[0], cotangents[0], *inputs[1:])[1])


class RowStatistics(_OfRows):
    """Log densities (N,), and expected statistics at natural parameters, each row with its weight (N,)."""

    def make_node(self, *inputs):
        """Natural parameters and weights (and the rows) in, vectors of N and of the natural parameters' size out."""
        inputs = self._floats(inputs, 2)
        return Apply(self, inputs, [pt.vector(dtype="float64"), inputs[0].type()])

    def infer_shape(self, node, input_shapes):
        """See `RowLogDensity.infer_shape`."""
        return [(_n_rows(node),), input_shapes[0]]

    def perform(self, node, inputs, output_storage):
        """See the class."""
        natural, weights, *_ = inputs
        output_storage[0][0], output_storage[1][0] = self.rows.plan.run(natural, np.ascontiguousarray(weights))

    def pullback(self, inputs, outputs, cotangents):
        """Second derivatives are not of this form."""
        raise NotImplementedError(_FIRST_ONLY)


def _n_rows(node: Any) -> Any:
    """N, from the rows among a node's inputs: the shape of its result, without a pass over them."""
    return node.inputs[-2][-1]


@register_specialize
@node_rewriter([RowStatistics])
def _one_pass(fgraph, node):
    """Log densities come with the statistics at the same parameters: the E-step need not run twice."""
    natural, weights, *rows = node.inputs
    found = [client for client, _ in fgraph.clients[natural] if isinstance(client, Apply)]
    found = [client for client in found if isinstance(client.op, RowLogDensity) and client.inputs[1:] == rows]
    if not found or not set(found).isdisjoint(apply_ancestors([weights])):
        return None
    return {client.outputs[0]: node.outputs[0] for client in found}


class LogLikelihood(_OfRows):
    """Weighted sum of the rows' log densities, and its gradient: both from one E-step."""

    def make_node(self, *inputs):
        """One vector (and the rows) in; a number and a vector out."""
        inputs = self._floats(inputs, 1)
        return Apply(self, inputs, [pt.scalar(dtype="float64"), inputs[0].type()])

    def perform(self, node, inputs, output_storage):
        """See the class."""
        loglik, output_storage[1][0] = self.rows.plan.total(inputs[0], self.rows.gathered)
        output_storage[0][0] = np.asarray(loglik)

    def run_into(self, arguments, results):
        """`perform`, into arrays made beforehand."""
        results[0][...], results[1][...] = self.rows.plan.total(arguments[0], self.rows.gathered)

    def table(self) -> dict[str, np.ndarray]:
        """What `bayesmix.kernels.whole_table` takes besides the parameters."""
        return self.rows.table()

    def pullback(self, inputs, outputs, cotangents):
        """The statistics are the gradient."""
        if not isinstance(cotangents[1].type, DisconnectedType):
            raise NotImplementedError(_FIRST_ONLY)
        return self._pulled(cotangents[0] * outputs[1])


class Apportioned(Op):
    """A total as one number a row: the rows' own shares, moved so that they add up to it."""

    def make_node(self, total, shares):
        """A number and a vector in, a vector out."""
        total, shares = (pt.as_tensor(value).astype("float64") for value in (total, shares))
        return Apply(self, [total, shares], [shares.type()])

    def perform(self, node, inputs, output_storage):
        """See the class."""
        total, shares = inputs
        with np.errstate(invalid="ignore"):
            output_storage[0][0] = shares - shares.mean() + total / len(shares)

    def pullback(self, inputs, outputs, cotangents):
        """The shares are a convention: only the total has a gradient."""
        return [cotangents[0].mean(), disconnected_type()]

    def connection_pattern(self, node):
        """See `pullback`."""
        return [[True], [False]]


@node_rewriter([Sum])
def _summed(fgraph, node):
    """The sum of the rows' log densities, with the table's own weights, is the log-likelihood: one E-step, not two."""
    [value] = node.inputs
    if value.ndim != 1 or value.owner is None:
        return None
    if isinstance(value.owner.op, Apportioned):
        return [value.owner.inputs[0]]
    parts = value.owner.inputs if isinstance(value.owner.op, Elemwise) else [value]
    rows = [part for part in parts if part.owner is not None and isinstance(part.owner.op, RowLogDensity)]
    weights = [part for part in parts if part not in rows]
    if len(rows) != 1 or any(getattr(part.tag, "row_weights", None) is not True for part in weights):
        return None
    if isinstance(value.owner.op, Elemwise) and not isinstance(value.owner.op.scalar_op, Mul):
        return None
    node = rows[0].owner
    return [LogLikelihood(node.op.rows)(*node.inputs)[0]]


def with_log_likelihood(logp: Any) -> Any:
    """A log posterior with the sum over rows as one operation."""
    graph = FunctionGraph(outputs=[logp], clone=False)
    dfs_rewriter(_summed).rewrite(graph)
    return graph.outputs[0]


class WalkedLogDensity(Op):
    """Log density (N,) of every row at the values of the slots, by the walks in numpy."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def make_node(self, *slots):
        """Slot values in, one vector out."""
        return Apply(self, [pt.as_tensor(slot).astype("float64") for slot in slots], [pt.vector(dtype="float64")])

    def perform(self, node, inputs, output_storage):
        """See the class."""
        rows = self.rows
        with np.errstate(all="ignore"):  # far from the data a density underflows, and that is its value
            density = rows.bound.log_density(dict(zip(rows.bound.slots, inputs)), rows.data)
        output_storage[0][0] = np.where(np.isnan(density), -np.inf, density)

    def pullback(self, inputs, outputs, cotangents):
        """Gradient of the expected log density at the expected statistics."""
        bound = self.rows.bound
        statistics = WalkedStatistics(self.rows)
        found = statistics(*inputs, cotangents[0], return_list=True)
        own, given = [variable.type() for variable in inputs], [variable.type() for variable in found]
        values, stats = dict(zip(bound.slots, own)), statistics.unpack(given)
        total = pt.zeros(())
        for site in bound.site.distinct():
            if site.key in stats:
                params = {name: slot.components(values[slot.name]) for name, slot in site.slots.items()}
                total = total + site.node.expected_logp(params, stats[site.key], site.learned, pt).sum()
        gradients = grad(total, own, consider_constant=given, disconnected_inputs="ignore", return_disconnected="zero")
        return clone_replace(gradients, dict(zip([*own, *given], [*inputs, *found])))


class WalkedStatistics(Op):
    """Expected statistics of every site at the values of the slots, each row with its weight (N,)."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self.layout = self._layout()

    def _layout(self) -> list[tuple[str, str, int]]:
        """Site key, name and number of axes of every statistic."""
        from bayesmix.inference.start import middle

        stats = self._found(middle(self.rows.bound), self.rows.data.take(np.zeros(1, int)), np.ones(1))
        return [(key, name, np.ndim(value)) for key, own in stats.items() for name, value in own.items()]

    def _found(self, params: Mapping[str, Any], data: Encoded, weights: np.ndarray) -> Stats:
        site, stats = self.rows.bound.site, Stats()
        with np.errstate(all="ignore"):
            site.accumulate(site.evaluate(params, data), data, weights[:, None], stats)
        return stats

    def unpack(self, arrays: list) -> dict[str, dict[str, Any]]:
        """Outputs by site key and name."""
        stats: dict[str, dict[str, Any]] = {}
        for (key, name, _), array in zip(self.layout, arrays):
            stats.setdefault(key, {})[name] = array
        return stats

    def make_node(self, *inputs):
        """Slot values and row weights in, one array for each statistic out."""
        outputs = [pt.tensor(dtype="float64", shape=(None,) * ndim) for _, _, ndim in self.layout]
        return Apply(self, [pt.as_tensor(value).astype("float64") for value in inputs], outputs)

    def perform(self, node, inputs, output_storage):
        """See the class."""
        *slots, weights = inputs
        stats = self._found(dict(zip(self.rows.bound.slots, slots)), self.rows.data, weights)
        for (key, name, _), storage in zip(self.layout, output_storage):
            storage[0] = np.ascontiguousarray(stats[key][name], float)

    def pullback(self, inputs, outputs, cotangents):
        """Second derivatives are not of this form."""
        raise NotImplementedError(_FIRST_ONLY)


@register_funcify_and_cache_key(RowLogDensity)
def _numba_row_log_density(op, node, **kwargs):
    @numba_njit(error_model="numpy")
    def row_log_density_of(natural, weights, code, ints, floats, bounds, caps, cuts, sizes, groups):
        _, rows, _ = whole_table.run(natural, weights, code, ints, floats, bounds, caps, cuts, sizes, True, False)
        return whole_table.spread(rows, groups)

    return row_log_density_of, _key(op)


@register_funcify_and_cache_key(RowStatistics)
def _numba_row_statistics(op, node, **kwargs):
    @numba_njit(error_model="numpy")
    def row_statistics_of(natural, of_rows, weights, code, ints, floats, bounds, caps, cuts, sizes, groups):
        own = whole_table.gathered(of_rows, groups)
        _, rows, stats = whole_table.run(natural, own, code, ints, floats, bounds, caps, cuts, sizes, True, True)
        return whole_table.spread(rows, groups), stats

    return row_statistics_of, _key(op)


@register_funcify_and_cache_key(LogLikelihood)
def _numba_log_likelihood(op, node, **kwargs):
    @numba_njit(error_model="numpy")
    def log_likelihood_of(natural, weights, code, ints, floats, bounds, caps, cuts, sizes, groups):
        loglik, _, stats = whole_table.run(natural, weights, code, ints, floats, bounds, caps, cuts, sizes, False, True)
        return np.asarray(loglik), stats

    return log_likelihood_of, _key(op)


def _key(op: Op) -> str:
    """Of compiled code in PyTensor's cache: it has nothing of the rows in it."""
    whole_table.link()
    return f"bayesmix-{type(op).__name__}-{whole_table.version()}"


@register_funcify_and_cache_key(Apportioned)
def _numba_apportioned(op, node, **kwargs):
    @numba_njit(error_model="numpy")
    def apportioned_of(total, shares):
        return shares - shares.mean() + total.item() / len(shares)

    return apportioned_of, "bayesmix-Apportioned-1"


@register_funcify_and_cache_key(WalkedLogDensity)
@register_funcify_and_cache_key(WalkedStatistics)
def _as_python(op, node, **kwargs):
    """The walks run as they are where PyTensor compiles by numba: numpy, called from compiled code.

    Without a key nothing of the data is kept in PyTensor's cache.
    """
    with without_warnings("Numba will use object mode"):  # that it does so is known
        return generate_fallback_impl(op, node, **kwargs), None


_FIRST_ONLY = (
    "The fused likelihood has first derivatives only. Differentiate its gradient numerically, or build the "
    'model with likelihood="graph".'
)
