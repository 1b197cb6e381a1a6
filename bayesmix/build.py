"""From a spec and a table to a plain PyMC model, labels summed out.

The fields of a row share one label, so they are the outputs of one random variable with several outputs
(`RowsRV`): it draws every field given the parameters, and its log density is the mixture's, one number a row,
which PyMC files under the first field (the others are given zeros).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.distribution import SymbolicRandomVariable
from pymc.distributions.shape_utils import change_dist_size
from pymc.distributions.transforms import ordered
from pymc.logprob.abstract import _logprob
from pymc.pytensorf import collect_default_updates
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.random.type import RandomGeneratorType

from bayesmix.bound import Bound, check_row_weights, observed_names, prepare
from bayesmix.compilation import constant
from bayesmix.data import read
from bayesmix.errors import DataError, SpecError
from bayesmix.params import Dim, Params, Slot
from bayesmix.spec import Encoded, Node

#: Rows that the starting point of the sampler is found on.
_START_ROWS = 5_000


class RowsRV(SymbolicRandomVariable):
    """The rows of a table: one output for each field, one log density for each row."""

    _print_name = ("Rows", "\\operatorname{Rows}")
    inline_logprob = False

    def __init__(self, *args: Any, bound: Bound, n_rngs: int, n_blocks: int, weighted: bool, **kwargs: Any):
        self.bound, self.n_rngs, self.n_blocks, self.weighted = bound, n_rngs, n_blocks, weighted
        super().__init__(*args, **kwargs)


@_logprob.register(RowsRV)
def _rows_logprob(op, values, *inputs, **kwargs):
    inputs = inputs[op.n_rngs :]
    variables = dict(zip(op.bound.slots, inputs))
    blocks = inputs[len(variables) + 1 : len(variables) + 1 + op.n_blocks]
    site = op.bound.site
    # the blocks speak of the observed values that stand in the model, and of no others (a minibatch, `pm.observe`)
    if blocks and all(_has_blocks(value) for value in values):
        row = site.node.linear_graph(site, variables, iter(blocks))[:, 0]
    else:
        by_site = {leaf.key: value for leaf, value in zip(site.leaves(), values)}
        row = site.node.graph(site, variables, by_site)[:, 0]
    if op.weighted:
        row = row * inputs[-1]
    return [row, *[pt.zeros_like(row) for _ in values[1:]]]


def _has_blocks(value: Any) -> bool:
    while value.owner is not None and len(value.owner.inputs) == 1:  # PyMC may cast what it observes
        value = value.owner.inputs[0]
    return getattr(value.tag, "has_blocks", False)


def build_model(
    spec: Node,
    data: Any,
    *,
    row_weights: Any = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
    likelihood: str = "fused",
) -> pm.Model:
    """A plain `pymc.Model` of the spec with the labels summed out.

    Inside a ``with pm.Model():`` block the variables are added to that model, so that priors may depend on
    variables of your own; elsewhere a new model is made. Every parameter is one variable with the components on
    its first axis; every field is an observed variable. `bm.set_data` swaps the table.

    Parameters
    ----------
    spec : Node
    data : table
        N rows; see `bayesmix.fit`.
    row_weights : array_like, shape (N,), optional
        Multiply the rows' log densities.
    order : str or sequence of str, optional
        Names of variables, such as ``"mu"``, whose components are to ascend (PyMC's ``ordered`` transform, along
        the last axis: in a nested mixture, its own components within each component around).
    initval : dict, "em" or None
        Starting point of samplers and of `pymc.find_MAP`: parameter name -> array; found by a few iterations of
        EM; or PyMC's own, at which all components are equal.
    likelihood : {"fused", "graph"}
        Matrix products of the rows' statistics with the natural parameters; or PyMC's own densities, field by
        field (slower to compile and to run; the oracle of the other).

    Returns
    -------
    pymc.Model
        The log-likelihood of each row is filed under the first field:
        ``pm.compute_log_likelihood(idata, model=model, var_names=[first_field])``.

    Raises
    ------
    DataError, SpecError
        Everything that is wrong with the data or the spec, listed together.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> model = bm.build_model(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]))
    >>> [variable.name for variable in model.free_RVs]
    ['weights', 'mu']
    """
    table, bound, encoded, _, given = prepare(spec, data, row_weights)
    return model_of(
        bound,
        encoded,
        index=table.index,
        row_weights=given,
        order=order,
        initval=initval,
        likelihood=likelihood,
        model=pm.Model.get_context(error_if_none=False),
    )


def model_of(
    bound: Bound,
    data: Encoded,
    *,
    index: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
    likelihood: str = "fused",
    model: pm.Model | None = None,
) -> pm.Model:
    """`build_model` for a spec that is bound and data that are encoded: in `model`, or in one of its own."""
    if likelihood not in ("fused", "graph"):
        raise ValueError(f'likelihood: "fused" or "graph" is needed, not {likelihood!r}.')
    ordered_names = _check_order(bound, order)
    start = _starting_point(bound, data, row_weights, initval)
    with model if model is not None else pm.Model(model=None) as model:  # not inside a model that is being built
        for dim in _dims(bound):
            model.add_coord(dim.name, _labels(dim.labels))
        model.add_coord("row", _labels(range(data.n_rows) if index is None else index))
        variables = {}
        for name, slot in bound.slots.items():
            variables[name] = _register(model, slot, name in ordered_names, None if start is None else start.get(name))
        _observe(model, bound, data, variables, row_weights, likelihood)
    return model


def _check_order(bound: Bound, order: str | Sequence[str] | None) -> tuple[str, ...]:
    names = () if order is None else (order,) if isinstance(order, str) else tuple(order)
    can = [name for name, slot in bound.free_slots.items() if not slot.event and slot.axes]
    faults = [
        f"order: {name!r} cannot be ordered; choose from {', '.join(can) or 'nothing here'}."
        for name in names
        if name not in can
    ]
    if faults:
        raise SpecError(faults)
    return names


def _starting_point(bound: Bound, data: Encoded, row_weights: Any, initval: Any) -> Params | None:
    if initval is None:
        return None
    if not isinstance(initval, str):
        return {name: np.asarray(value, float) for name, value in initval.items()}
    from bayesmix.inference.em import maximise

    if any(slot.depends_on_model for slot in bound.slots.values()):
        return None
    weights = np.ones(data.n_rows) if row_weights is None else row_weights
    if data.n_rows > _START_ROWS:
        rows = np.linspace(0, data.n_rows - 1, _START_ROWS).astype(int)
        data, weights = data.take(rows), weights[rows]
    try:
        best, _ = maximise(bound, data, weights, n_starts=6, max_iter=25, random_seed=0)
    except SpecError:  # flat priors on data that let a component collapse: PyMC's own start then
        return None
    return best.params


def variables_at(bound: Bound, params: Params) -> dict[str, np.ndarray]:
    """Values of the model's free variables at parameter values."""
    return {name: params[name] for name in bound.free_slots}


def _dims(bound: Bound) -> list[Dim]:
    dims = {dim.name: dim for slot in bound.slots.values() for dim in (*slot.axes, *slot.event)}
    dims.update({axis.name: axis for site in bound.site.walk() for axis in site.place.axes})
    return list(dims.values())


def _labels(labels: Any) -> list:
    """Labels that xarray and netCDF can keep: all numbers, or all strings."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
        return labels
    if all(isinstance(label, (int, float)) and not isinstance(label, bool) for label in labels):
        return labels
    return [str(label) for label in labels]


def _register(model: pm.Model, slot: Slot, ascending: bool, start: np.ndarray | None) -> Any:
    if slot.kind == "tensor":
        return pt.broadcast_to(slot.value, slot.shape)
    if slot.kind == "fixed":
        return pt.as_tensor(slot.value)
    batch = slot.shape[: len(slot.axes)]
    ndim = slot.rv.owner.op.ndim_supp
    rv = _with_shared_hyperparameters(change_dist_size(slot.rv, batch if ndim else slot.shape))
    if start is not None:
        start = np.array(start, float)
        if ascending:
            # ties have no image under the ordered transform
            start = np.sort(start, axis=-1)
            start = start + np.arange(start.shape[-1]) * 1e-9 * (np.ptp(start) or 1.0)
    extra = {"transform": ordered} if ascending else {}
    return model.register_rv(rv, slot.name, dims=slot.dims, default_transform=slot.transform, initval=start, **extra)


def _with_shared_hyperparameters(rv: Any) -> Any:
    """The same prior with its constants as graph inputs.

    Default priors are scaled to the data; as constants they would be compiled into the kernels, and every new
    table would miss PyTensor's cache of them.
    """
    node = rv.owner
    if not isinstance(node.op, RandomVariable):
        return rv
    parameters = set(node.op.dist_params(node))
    values = {v: constant(v) for v in parameters if _is_constant(v)}
    inputs = [pytensor.shared(values[v], shape=values[v].shape) if v in values else v for v in node.inputs]
    return node.op.make_node(*inputs).outputs[1]


def _is_constant(variable: Any) -> bool:
    """Whether an expression is made of constants alone."""
    return all(isinstance(v, Constant) for v in ancestors([variable]) if v.owner is None)


def _observe(
    model: pm.Model, bound: Bound, data: Encoded, variables: Mapping[str, Any], row_weights: Any, likelihood: str
) -> None:
    names, containers = observed_names(bound.site), {}
    for key, values in observed_values(bound, data).items():
        containers[key] = _shared(f"{names[key]}_data", values)
        containers[key].tag.has_blocks = True
    matrices = bound.site.node.linear_blocks(bound.site, data) if likelihood == "fused" else []
    blocks = [_shared(f"row_statistics_{i}", matrix) for i, matrix in enumerate(matrices)]
    inputs = [*variables.values(), next(iter(containers.values())).shape[0], *blocks]
    if row_weights is not None:
        inputs.append(_shared("row_weights", np.asarray(row_weights, float)))
    rows = _rows_rv(bound, inputs, len(blocks), row_weights is not None)
    for leaf, rv in zip(bound.site.leaves(), rows):
        dims = ("row", *[dim.name for dim in leaf.value_dims])
        model.register_rv(rv, names[leaf.key], observed=containers[leaf.key], dims=dims)


def _shared(name: str, values: np.ndarray) -> Any:
    """A graph input that `set_data` can swap.

    Not `pymc.Data`: that refuses NaN (missing cells) and keeps whole numbers at 32 bits, and `pymc.set_data` would
    change one of the arrays that belong together.
    """
    return pytensor.shared(values, name=name, shape=(None, *values.shape[1:]))


def _rows_rv(bound: Bound, inputs: list, n_blocks: int, weighted: bool) -> list:
    """One output for each field, drawn from the mixture."""
    dummies = [pt.as_tensor(variable).type() for variable in inputs]
    slots = list(bound.slots)
    n_rows = dummies[len(slots)]
    drawn: dict[str, Any] = {}
    with pm.Model(model=None):  # .dist() graphs only: nothing is registered anywhere
        bound.site.node.graph_draw(bound.site, dict(zip(slots, dummies)), pt.zeros((n_rows,), "int64"), drawn)
    outputs = [drawn[leaf.key] for leaf in bound.site.leaves()]
    rngs = [v for v in ancestors(outputs) if isinstance(v, SharedVariable) and isinstance(v.type, RandomGeneratorType)]
    updates = collect_default_updates(outputs=outputs, inputs=dummies)
    rngs = [rng for rng in rngs if rng in updates]
    inner = [rng.type() for rng in rngs]
    cloned = clone_replace([*[updates[rng] for rng in rngs], *outputs], replace=list(zip(rngs, inner)))
    core = [",".join(f"i{i}d{j}" for j in range(dummy.type.ndim)) for i, dummy in enumerate(dummies)]
    made = [",".join(["r", *[f"o{i}d{j}" for j in range(1, out.type.ndim)]]) for i, out in enumerate(outputs)]
    signature = (
        ",".join(["[rng]"] * len(rngs) + [f"({c})" for c in core])
        + "->"
        + ",".join(["[rng]"] * len(rngs) + [f"({m})" for m in made])
    )
    op = RowsRV(
        [*inner, *dummies],
        cloned,
        extended_signature=signature,
        bound=bound,
        n_rngs=len(rngs),
        n_blocks=n_blocks,
        weighted=weighted,
    )
    fresh = [pytensor.shared(np.random.default_rng()) for _ in rngs]
    return op.make_node(*fresh, *inputs).outputs[len(rngs) :]


def observed_values(bound: Bound, data: Encoded) -> dict[str, np.ndarray]:
    """What PyMC observes, by site key: every row, NaN (or -1 in whole numbers) where a cell is missing."""
    found = {}
    for site, block in bound.site.walk_with(data):
        if site.children:
            continue
        value = block.arrays["value"]
        mark = np.nan if site.node.value_dtype == "float64" else -1
        full = np.full((block.n_rows, *value.shape[1:]), mark, site.node.value_dtype)
        full[slice(None) if block.present is None else block.present] = value
        found[site.key] = full
    return found


def set_data(model: pm.Model, data: Any, *, row_weights: Any = None, unseen: str = "error") -> None:
    """Swap the table of a model that `build_model` made, for instance for prediction.

    Parameters
    ----------
    model : pymc.Model
    data : table
        Any number of rows, with the fields of the spec.
    row_weights : array_like, shape (N,), optional
        For a model that was built with row weights; ones where not given.
    unseen : {"error", "ignore"}
        What to do with symbols that the model's first table did not have: raise, or treat as missing.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> model = bm.build_model(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]))
    >>> bm.set_data(model, np.array([3, 4]))
    >>> model["x"].shape.eval()
    array([2])
    """
    rows = [rv for rv in model.observed_RVs if rv.owner is not None and isinstance(rv.owner.op, RowsRV)]
    if not rows:
        raise DataError("model: bm.build_model did not make this model, so bm.set_data does not know its fields.")
    node = rows[0].owner
    bound, table = node.op.bound, read(data)
    encoded = bound.encode(table, unseen)
    index = range(encoded.n_rows) if table.index is None else table.index
    model.set_dim("row", encoded.n_rows, _labels(index))
    for rv, values in zip(rows, observed_values(bound, encoded).values()):
        [container] = [v for v in ancestors([model.rvs_to_values[rv]]) if isinstance(v, SharedVariable)]
        container.set_value(values)
    inputs = node.inputs[node.op.n_rngs + len(bound.slots) + 1 :]
    if node.op.n_blocks:
        for block, matrix in zip(inputs, bound.site.node.linear_blocks(bound.site, encoded)):
            block.set_value(matrix)
    if node.op.weighted:
        inputs[-1].set_value(check_row_weights(row_weights, encoded.n_rows))
