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
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomGeneratorType

from bayesmix.bound import Bound, bind, check_row_weights, check_rows, observed_names
from bayesmix.data import read
from bayesmix.errors import DataError, SpecError
from bayesmix.params import Dim, Params, Slot
from bayesmix.relabel import in_canonical_order
from bayesmix.spec import Encoded, Node

#: Rows that the starting point of the sampler is found on.
_START_ROWS = 5_000


class RowsRV(SymbolicRandomVariable):
    """The rows of a table: one output for each field, one log density for each row."""

    _print_name = ("Rows", "\\operatorname{Rows}")
    inline_logprob = False

    def __init__(self, *args: Any, bound: Bound, n_rngs: int, weighted: bool, **kwargs: Any):
        self.bound, self.n_rngs, self.weighted = bound, n_rngs, weighted
        super().__init__(*args, **kwargs)


@_logprob.register(RowsRV)
def _rows_logprob(op, values, *inputs, **kwargs):
    inputs = inputs[op.n_rngs :]
    slots = list(op.bound.slots)
    variables = dict(zip(slots, inputs))
    by_site = {leaf.key: value for leaf, value in zip(op.bound.site.leaves(), values)}
    row = op.bound.site.node.graph(op.bound.site, variables, by_site)[:, 0]
    if op.weighted:
        row = row * inputs[-1]
    return [row, *[pt.zeros_like(row) for _ in values[1:]]]


def build_model(
    spec: Node,
    data: Any,
    *,
    row_weights: Any = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
) -> pm.Model:
    """A plain `pymc.Model` of the spec with the labels summed out.

    Inside a ``with pm.Model():`` block the variables are added to that model, so that priors may depend on
    variables of your own; elsewhere a new model is made. Every parameter is one variable with the components on
    its first axis; every field is an observed variable whose values are `pm.Data`, so that `bm.set_data` can
    swap the table.

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
    table = read(data)
    bound = bind(spec, table)
    encoded = bound.encode(table)
    check_rows(bound, encoded)
    weights = None if row_weights is None else check_row_weights(row_weights, encoded.n_rows)
    return model_of(bound, encoded, index=table.index, row_weights=weights, order=order, initval=initval)


def model_of(
    bound: Bound,
    data: Encoded,
    *,
    index: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
) -> pm.Model:
    """`build_model` for a spec that is bound and data that are encoded."""
    ordered_names = _check_order(bound, order)
    start = _starting_point(bound, data, row_weights, initval)
    model = pm.Model.get_context(error_if_none=False)
    with model if model is not None else pm.Model() as model:
        for dim in _dims(bound):
            model.add_coord(dim.name, _labels(dim.labels))
        model.add_coord("row", _labels(range(data.n_rows) if index is None else index))
        variables = {}
        for name, slot in bound.slots.items():
            variables[name] = _register(model, slot, name in ordered_names, None if start is None else start.get(name))
        _observe(model, bound, data, variables, row_weights)
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
    return {slot.variable_name: slot.to_variable(params[name]) for name, slot in bound.free_slots.items()}


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
    rv = change_dist_size(slot.rv, batch if ndim else slot.shape)
    if start is not None:
        start = slot.to_variable(np.array(start, float))
        if ascending:
            # ties have no image under the ordered transform
            start = np.sort(start, axis=-1)
            start = start + np.arange(start.shape[-1]) * 1e-9 * (np.ptp(start) or 1.0)
    extra = {"transform": ordered} if ascending else {}
    dims: tuple[str, ...] | None = slot.dims
    if slot.packed:
        dims = None
    variable = model.register_rv(
        rv, slot.variable_name, dims=dims, default_transform=slot.transform, initval=start, **extra
    )
    if slot.packed:
        return pm.Deterministic(slot.name, slot.to_parameter(variable), dims=slot.dims)
    return variable


def _observe(model: pm.Model, bound: Bound, data: Encoded, variables: Mapping[str, Any], row_weights: Any) -> None:
    values = observed_values(bound, data)
    names = observed_names(bound.site)
    containers, dims = {}, {}
    for leaf in bound.site.leaves():
        extra = tuple(dim.name for dim in leaf.slots["mu"].event) if leaf.node.value_ndim else ()
        dims[leaf.key] = ("row", *extra)
        containers[leaf.key] = _container(model, f"{names[leaf.key]}_data", values[leaf.key], dims[leaf.key])
    first = next(iter(containers.values()))
    inputs = [*variables.values(), first.shape[0]]
    if row_weights is not None:
        inputs.append(_container(model, "row_weights", np.asarray(row_weights, float), ("row",)))
    rows = _rows_rv(bound, inputs, row_weights is not None)
    for (key, container), rv in zip(containers.items(), rows):
        model.register_rv(rv, names[key], observed=container, dims=dims[key])


def _container(model: pm.Model, name: str, values: np.ndarray, dims: tuple[str, ...]) -> Any:
    """What `pymc.Data` makes, with NaN allowed (missing cells) and whole numbers kept at 64 bits."""
    shared = pytensor.shared(values, name=model.name_for(name), shape=(None, *values.shape[1:]))
    model.register_data_var(shared, dims=dims)
    return shared


def _rows_rv(bound: Bound, inputs: list, weighted: bool) -> list:
    """One output for each field, drawn from the mixture."""
    dummies = [pt.as_tensor(variable).type() for variable in inputs]
    slots = list(bound.slots)
    n_rows = dummies[len(slots)]
    drawn: dict[str, Any] = {}
    with pm.Model():  # .dist() graphs only: nothing is registered anywhere
        bound.site.node.graph_draw(bound.site, dict(zip(slots, dummies)), pt.zeros((n_rows,), "int64"), drawn)
    outputs = [drawn[leaf.key] for leaf in bound.site.leaves()]
    rngs = [v for v in ancestors(outputs) if isinstance(v, SharedVariable) and isinstance(v.type, RandomGeneratorType)]
    updates = collect_default_updates(outputs=outputs, inputs=dummies)
    rngs = [rng for rng in rngs if rng in updates]
    inner = [rng.type() for rng in rngs]
    cloned = clone_replace([*[updates[rng] for rng in rngs], *outputs], replace=dict(zip(rngs, inner)))
    core = [",".join(f"i{i}d{j}" for j in range(dummy.type.ndim)) for i, dummy in enumerate(dummies)]
    made = [",".join(["r", *[f"o{i}d{j}" for j in range(1, out.type.ndim)]]) for i, out in enumerate(outputs)]
    signature = (
        ",".join(["[rng]"] * len(rngs) + [f"({c})" for c in core])
        + "->"
        + ",".join(["[rng]"] * len(rngs) + [f"({m})" for m in made])
    )
    op = RowsRV(
        [*inner, *dummies], cloned, extended_signature=signature, bound=bound, n_rngs=len(rngs), weighted=weighted
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
    >>> model["x_data"].get_value()
    array([3, 4])
    """
    ops = [rv.owner.op for rv in model.observed_RVs if rv.owner is not None and isinstance(rv.owner.op, RowsRV)]
    if not ops:
        raise DataError("model: bm.build_model did not make this model, so bm.set_data does not know its fields.")
    bound = ops[0].bound
    table = read(data)
    encoded = bound.encode(table, unseen)
    names = observed_names(bound.site)
    new = {f"{names[key]}_data": value for key, value in observed_values(bound, encoded).items()}
    if ops[0].weighted:
        new["row_weights"] = check_row_weights(row_weights, encoded.n_rows)
    index = range(encoded.n_rows) if table.index is None else table.index
    blank = {name: np.zeros_like(values) for name, values in new.items()}
    with pytensor.config.change_flags(linker="py"):
        pm.set_data(blank, model=model, coords={"row": _labels(index)})
    for name, values in new.items():
        model[name].set_value(values)
