"""The fused likelihood: one PyTensor Op for the log density of every row, with the labels summed out.

Its value is one E-step. Its pullback is the gradient of the expected log density at the expected statistics, which is
the gradient of the marginal log-likelihood (Fisher's identity):

    ∇ Σ_n g_n log p(x_n | θ) = ∇ Σ_sites expected_logp(θ; statistics under weights g r)

So a gradient costs one E-step more and a graph as small as the parameters, whatever the spec; no engine and no node
writes a derivative.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import grad
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace

from bayesmix.bound import Bound
from bayesmix.spec import Encoded, Evaluation, Stats


class Rows:
    """The encoded rows that a likelihood speaks of; `bayesmix.set_data` swaps them.

    Holds the last evaluation of each thread: value and pullback are asked for at the same parameters.
    """

    def __init__(self, bound: Bound, data: Encoded):
        self.bound, self.data = bound, data
        self._last = threading.local()

    def swap(self, data: Encoded) -> None:
        """Put other rows in their place."""
        self.data = data
        self._last = threading.local()

    def evaluate(self, arrays: list[np.ndarray]) -> Evaluation:
        """Log densities at the slots' values."""
        last = getattr(self._last, "found", None)
        if last is not None and all(np.array_equal(a, b) for a, b in zip(last[0], arrays)):
            return last[1]
        params = dict(zip(self.bound.slots, arrays))
        with np.errstate(all="ignore"):  # far from the data a density underflows, and that is its value
            evaluation = self.bound.site.evaluate(params, self.data)
        self._last.found = [np.array(a) for a in arrays], evaluation
        return evaluation

    def statistics(self, arrays: list[np.ndarray], row_weights: np.ndarray) -> Stats:
        """Expected sufficient statistics at the slots' values, each row with its weight."""
        evaluation = self.evaluate(arrays)
        stats: Stats = {}
        with np.errstate(all="ignore"):
            self.bound.site.accumulate(evaluation, self.data, np.asarray(row_weights)[:, None], stats)
        return stats

    def __getstate__(self) -> dict[str, Any]:
        return {"bound": self.bound, "data": self.data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class RowLogDensity(Op):
    """Log density (N,) of every row at the values of the slots, in the order of `Bound.slots`."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self._statistics: RowStatistics | None = None

    def make_node(self, *slots):
        """Slot values in, one vector out."""
        return Apply(self, [pt.as_tensor(slot).astype("float64") for slot in slots], [pt.vector(dtype="float64")])

    def perform(self, node, inputs, output_storage):
        """See the class."""
        density = self.rows.evaluate(inputs).log_density[:, 0]
        # no parameters, no likelihood: NaN would send a sampler astray where it steps out of bounds
        output_storage[0][0] = np.where(np.isnan(density), -np.inf, density)

    def pullback(self, inputs, outputs, cotangents):
        """Gradient of the expected log density at the expected statistics."""
        if self._statistics is None:
            self._statistics = RowStatistics(self.rows)
        bound = self.rows.bound
        found = self._statistics(*inputs, cotangents[0], return_list=True)
        own = [variable.type() for variable in inputs]
        given = [variable.type() for variable in found]
        values, stats = dict(zip(bound.slots, own)), self._statistics.unpack(given)
        total = pt.zeros(())
        for site in bound.site.distinct():
            if site.key not in stats:
                continue
            params = {name: slot.components(values[slot.name]) for name, slot in site.slots.items()}
            total = total + site.node.expected_logp(params, stats[site.key], site.learned, pt).sum()
        gradients = grad(total, own, consider_constant=given, disconnected_inputs="ignore", return_disconnected="zero")
        return clone_replace(gradients, dict(zip([*own, *given], [*inputs, *found])))


class RowStatistics(Op):
    """Expected sufficient statistics of every site, each row with its weight: slots and weights (N,) in, arrays out."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self.layout = self._layout()

    def _layout(self) -> list[tuple[str, str, int]]:
        """Site key, name and number of axes of every statistic."""
        from bayesmix.inference.start import middle

        one = self.rows.data.take(np.zeros(1, int))
        bound = self.rows.bound
        params = {
            name: np.zeros(slot.shape) if slot.kind == "tensor" else value
            for (name, slot), value in zip(bound.slots.items(), middle(bound).values())
        }
        stats: Stats = {}
        with np.errstate(all="ignore"):
            bound.site.accumulate(bound.site.evaluate(params, one), one, np.ones((1, 1)), stats)
        return [(key, name, np.ndim(value)) for key, own in stats.items() for name, value in own.items()]

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
        stats = self.rows.statistics(slots, weights)
        for (key, name, _), storage in zip(self.layout, output_storage):
            storage[0] = np.ascontiguousarray(stats[key][name], float)

    def pullback(self, inputs, outputs, cotangents):
        """Second derivatives are not of this form."""
        raise NotImplementedError(
            "The fused likelihood has first derivatives only. Differentiate its gradient numerically, or build the "
            'model with likelihood="graph".'
        )
