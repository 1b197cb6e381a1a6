"""From a spec and a table to a plain PyMC model, labels summed out.

The fields of a row share one label, so they are the outputs of one random variable with several outputs
(`RowsRV`): it draws every field given the parameters, and its log density is the mixture's, one number a row,
which PyMC files under the first field (the others are given zeros).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pytensor.gradient import disconnected_grad
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomGeneratorType

from bayesmix.bound import Bound, check_row_weights, prepare
from bayesmix.data import read, texts
from bayesmix.discrete import combinations
from bayesmix.errors import DataError, SpecError
from bayesmix.likelihood import Apportioned, Rows, row_log_density
from bayesmix.params import Dim, Params, Slot
from bayesmix.spec import Encoded, Node
from bayesmix.structure.mixture import Mixture
from bayesmix.symmetry import ascending
from bayesmix.threads import alone

#: Rows that the starting point of the sampler is found on.
_START_ROWS = 5_000


class RowsRV(SymbolicRandomVariable):
    """The rows of a table: one output for each observed array, one log density for each row."""

    _print_name = ("Rows", "\\operatorname{Rows}")
    inline_logprob = False

    def __init__(self, *args: Any, parts: RowsParts, n_rngs: int, **kwargs: Any):
        self.parts, self.n_rngs = parts, n_rngs
        super().__init__(*args, **kwargs)


@dataclass(frozen=True)
class RowsParts:
    """What stands behind a model's observed variables.

    Attributes
    ----------
    bound : Bound
    observed : tuple of str
        Names of the outputs; the first has one entry a row.
    fused : Rows or None
        The model's own table, for the fused likelihood; None takes PyMC's densities.
    weighted : bool
        Whether the last input is the rows' weights.
    labels : tuple of str
        Site keys of the mixtures whose labels are inputs.
    tables : tuple of str
        Names of the observed arrays that are inputs, since draws take their shape from them.
    """

    bound: Bound
    observed: tuple[str, ...]
    fused: Rows | None
    weighted: bool
    labels: tuple[str, ...]
    tables: tuple[str, ...]

    def named(self, inputs: Sequence[Any]) -> tuple[dict[str, Any], Any, dict[str, Any], dict[Any, Any], Any]:
        """Slot variables by name, the number of rows, labels by site key, tables, row weights (or None)."""
        n = len(self.bound.slots)
        variables, rest = dict(zip(self.bound.slots, inputs[:n])), list(inputs[n + 1 :])
        weights = rest.pop() if self.weighted else None
        labels = dict(zip(self.labels, rest))
        tables = {("table", name): values for name, values in zip(self.tables, rest[len(labels) :])}
        return variables, inputs[n], labels, tables, weights


@_logprob.register(RowsRV)
def _rows_logprob(op, values, *inputs, **kwargs):
    parts = op.parts
    variables, _, labels, _, weights = parts.named(inputs[op.n_rngs :])
    # the fused likelihood speaks of the table that stands in the model, and of no other (a minibatch, `pm.observe`)
    fused = parts.fused is not None and all(_is_table(value) for value in values)

    def log_density(variables):
        if fused:
            return row_log_density(parts.fused, variables)
        return parts.bound.site.graph(variables, dict(zip(parts.observed, values)), labels)[:, 0]

    every = combinations(parts.bound, written=not fused)
    rows = [log_density({**variables, **{name: pt.as_tensor(v) for name, v in each.items()}}) for each in every]
    if weights is not None:
        rows = [row * weights for row in rows]
    row = rows[0] if len(rows) == 1 else _summed_out(rows)
    return [row, *[pt.zeros_like(value, dtype="float64") for value in values[1:]]]


def _summed_out(rows: list) -> Any:
    """Log densities (N,) whose sum is the log of the mean, over equally likely cases, of the cases' likelihoods.

    The cases are of the whole table and not of a row, so a row's share is a convention: its mean over the cases given
    all rows.
    """
    totals = pt.stack([row.sum() for row in rows])
    total = pt.logsumexp(totals) - np.log(len(rows))
    chance = pt.exp(totals - pt.logsumexp(totals))
    each = pt.stack(rows)
    share = pt.switch(chance[:, None] > 0, chance[:, None] * each, 0.0).sum(axis=0)
    return Apportioned()(total, disconnected_grad(share))


def _is_table(value: Any) -> bool:
    while value.owner is not None and len(value.owner.inputs) == 1:  # PyMC may cast what it observes
        value = value.owner.inputs[0]
    return getattr(value.tag, "is_table", False)


@alone
def build_model(
    spec: Node,
    data: Any,
    *,
    row_weights: Any = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
    likelihood: str = "fused",
    labels: str = "marginal",
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
        EM; or PyMC's own, at which all components are equal. With `order` its components change places together until
        these variables ascend; what no exchange of components brings in order is sorted by itself.
    likelihood : {"fused", "graph"}
        Our own likelihood, one Op whose gradient costs one E-step; or PyMC's densities, field by field (slower to
        compile and to run; for JAX, second derivatives, and as the oracle of the other).
    labels : {"marginal", "explicit"}
        Sum the labels out; or keep the label of every row (and of every element, in mixtures below sequences) as a
        categorical variable, ``label``, which `pymc.sample` draws by Gibbs steps: slower by far, and a chain seldom
        leaves the mode where it starts.

    Returns
    -------
    pymc.Model
        The log-likelihood of each row is filed under the first field:
        ``pm.compute_log_likelihood(idata, model=model, var_names=[first_field])``. Draws of sequences have the table's
        lengths, also where lengths have a family and are drawn themselves; `Fit.sample` draws whole new sequences.

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
        labels=labels,
        model=pm.Model.get_context(error_if_none=False),
    )


@alone
def model_of(
    bound: Bound,
    data: Encoded,
    *,
    index: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
    order: str | Sequence[str] | None = None,
    initval: Mapping[str, Any] | str | None = "em",
    likelihood: str = "fused",
    labels: str = "marginal",
    model: pm.Model | None = None,
) -> pm.Model:
    """`build_model` for a spec that is bound and data that are encoded: in `model`, or in one of its own."""
    if likelihood not in ("fused", "graph"):
        raise ValueError(f'likelihood: "fused" or "graph" is needed, not {likelihood!r}.')
    if labels not in ("marginal", "explicit"):
        raise ValueError(f'labels: "marginal" or "explicit" is needed, not {labels!r}.')
    combinations(bound, written=likelihood == "graph" or labels == "explicit")  # too many are said to be here
    ordered_names = check_order(bound, order)
    start = _starting_point(bound, data, row_weights, initval)
    if start is not None and ordered_names:
        start = ascending(bound, start, ordered_names)
    with model if model is not None else pm.Model(model=None) as model:  # not inside a model that is being built
        for dim in _dims(bound):
            model.add_coord(dim.name, dim_labels(dim))
        model.add_coord("row", _labels(range(data.n_rows) if index is None else index))
        variables = {}
        for name, slot in bound.slots.items():
            variables[name] = _register(model, slot, name in ordered_names, None if start is None else start.get(name))
        explicit = _add_labels(model, bound, data, variables, start) if labels == "explicit" else {}
        _observe(model, bound, data, variables, row_weights, likelihood == "fused" and not explicit, explicit)
    return model


def check_order(bound: Bound, order: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of the variables whose components are to ascend; raises `SpecError` where some cannot."""
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
        return {name: _as_slot(bound, name, np.asarray(value, float)) for name, value in initval.items()}
    from bayesmix.inference.em import maximise
    from bayesmix.inference.start import with_mode_inside

    if any(slot.depends_on_model for slot in bound.slots.values()):
        return None
    weights = np.ones(data.n_rows) if row_weights is None else row_weights
    if data.n_rows > _START_ROWS:
        rows = np.linspace(0, data.n_rows - 1, _START_ROWS).astype(int)
        data, weights = data.take(rows), weights[rows]
    try:
        best, _ = maximise(with_mode_inside(bound), data, weights, n_starts=6, max_iter=25, random_seed=0)
    except SpecError:  # flat priors on data that let a component collapse: PyMC's own start then
        return None
    return best.params


def _as_slot(bound: Bound, name: str, value: np.ndarray) -> np.ndarray:
    if name not in bound.slots:
        return value
    try:
        return np.broadcast_to(value, bound.slots[name].shape)
    except ValueError:
        raise ValueError(
            f"initval: {name} has the shape {value.shape}, and {bound.slots[name].shape} is needed."
        ) from None


def mode_in_order(bound: Bound, params: Params, order: str | Sequence[str] | None) -> Params:
    """A mode with its components labelled as `order` wants them. Raises `SpecError` where no labelling is so."""
    names = check_order(bound, order)
    found = ascending(bound, params, names) if names else params
    for name in names:
        values = np.reshape(found[name], (-1, np.shape(found[name])[-1]))
        for line in values[(np.diff(values) < 0).any(-1)][:1]:
            others = [each for each in names if each != name]
            where = f" where {' and '.join(others)} ascend{'s' * (len(others) == 1)}" if others else ""
            raise SpecError(
                f"order: {name} does not ascend at the mode, {np.array2string(line, precision=4, threshold=8)}{where}, "
                "and no exchange of components that the priors allow makes it. That order would cut the mode off. "
                f"{'Order by one of them' if others else 'Order by another variable'}, or leave it out."
            )
    return found


def variables_at(bound: Bound, params: Params, order: str | Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Values of the model's free variables at parameter values, off the edges of their supports and of ties."""
    at = {name: slot.inside(params[name]) for name, slot in bound.sampled_slots.items()}
    for name in check_order(bound, order):
        if name in at and (np.diff(at[name]) <= 0).any():
            at[name] = _without_ties(at[name])
    return at


def _without_ties(values: np.ndarray) -> np.ndarray:
    """Values sorted along the last axis, equal ones a little apart: ties have no image under the ordered transform."""
    values = np.sort(values, axis=-1)
    gap = max(np.ptp(values), 1e-6 * np.abs(values).max()) or 1.0
    return values + np.arange(values.shape[-1]) * 1e-9 * gap


def _dims(bound: Bound) -> list[Dim]:
    dims = {dim.name: dim for slot in bound.slots.values() for dim in (*slot.around, *slot.event)}
    dims.update({axis.name: axis for site in bound.site.walk() for axis in site.place.axes})
    return list(dims.values())


def _labels(labels: Any) -> list:
    """Labels that xarray and netCDF can keep: all numbers, or all strings."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if all(isinstance(label, (int, float)) and not isinstance(label, bool) for label in labels):
        if not any(isinstance(label, int) and not -(2**63) <= label < 2**63 for label in labels):
            return labels
    # neither knows of half characters, nor netCDF of zeros
    return [str(label).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00") for label in labels]


def dim_labels(dim: Dim) -> list:
    """Labels of a dim as `_labels`; symbols that are one as text (1 and "1") are told apart."""
    found = _labels(dim.labels)
    return found if len(set(found)) == len(found) else _labels(texts(dim.labels))


def _register(model: pm.Model, slot: Slot, in_order: bool, start: np.ndarray | None) -> Any:
    if slot.kind == "tensor":
        return pt.broadcast_to(slot.value, slot.shape)
    if slot.discrete:  # no variable of the model: summed out of its density, and drawn a priori
        return change_dist_size(slot.rv, slot.shape)
    if slot.kind == "fixed":
        return pt.as_tensor(slot.value)
    rv = change_dist_size(slot.rv, slot.shape[: len(slot.shape) - slot.rv.owner.op.ndim_supp])
    if start is not None:
        start = slot.inside(start)
        if in_order:
            start = _without_ties(start)
    extra = {"transform": ordered} if in_order else {}
    return model.register_rv(rv, slot.name, dims=slot.dims, default_transform=slot.transform, initval=start, **extra)


def _add_labels(
    model: pm.Model, bound: Bound, data: Encoded, variables: Mapping[str, Any], start: Params | None
) -> dict[str, Any]:
    """The labels of every mixture as variables of the model, by site key."""
    if not any(isinstance(site.node, Mixture) for site in bound.site.walk()):
        raise SpecError('labels="explicit": the spec has no mixture, hence no labels.')
    initial: dict[Any, Any] = {}
    if start is not None:
        params = bound.with_fixed(start)
        evaluation, rng = bound.site.evaluate(params, data), np.random.default_rng(0)
        bound.site.impute(params, evaluation, data, np.zeros(data.n_rows, int), rng, initial)
    found: dict[str, Any] = {}
    row_dims = _row_dims(bound, data)

    def label(site, probabilities):
        rv = pm.Categorical.dist(probabilities)
        at = initial.get(("label", site.key, site.place.path))
        name = site.place.name("label")
        if site.key in found:
            raise SpecError(f'labels="explicit": {name} would be the label of two fields, which are tied.')
        found[site.key] = model.register_rv(rv, name, dims=(row_dims[site.key],), initval=at)
        return found[site.key]

    out: dict[Any, Any] = {("table", each.name): pt.as_tensor(each.written_out()) for each in bound.site.observed(data)}
    for each in bound.site.observed(data):
        if each.row_dim != "row":
            model.add_coord(each.row_dim, range(len(each.values)))
    bound.site.graph_draw(variables, pt.zeros((data.n_rows,), "int64"), out, label)
    return found


def _row_dims(bound: Bound, data: Encoded) -> dict[str, str]:
    """Dim of the rows of every site, by key: the table's, or those of a sequence's elements."""
    whole = {each.name: each.row_dim for each in bound.site.observed(data)}
    return {
        site.key: next(whole[each.name] for each in site.observed(block) if each.row_dim == "row")
        for site, block in bound.site.walk_with(data)
    }


def _observe(
    model: pm.Model,
    bound: Bound,
    data: Encoded,
    variables: Mapping[str, Any],
    row_weights: Any,
    fused: bool,
    labels: Mapping[str, Any],
) -> None:
    arrays = sorted(bound.site.observed(data), key=lambda each: each.row_dim != "row")
    containers = {}
    for each in arrays:
        containers[each.name] = _shared(f"{each.name}_data", each.written_out())
        containers[each.name].tag.is_table = True
        model.add_coords({dim.name: dim_labels(dim) for dim in each.dims if dim.name not in model.coords})
        if each.row_dim not in model.coords:
            model.add_coord(each.row_dim, range(len(each.values)))
    parts = RowsParts(
        bound,
        tuple(containers),
        Rows(bound, data, row_weights) if fused else None,
        row_weights is not None,
        tuple(labels),
        tuple(each.name for each in arrays if each.shapes),
    )
    inputs = [*variables.values(), containers[arrays[0].name].shape[0], *labels.values()]
    inputs += [containers[name] for name in parts.tables]
    if row_weights is not None:
        inputs.append(_shared("row_weights", np.asarray(row_weights, float)))
        inputs[-1].tag.row_weights = True
    for each, rv in zip(arrays, _rows_rv(parts, inputs)):
        dims = (each.row_dim, *[dim.name for dim in each.dims])
        observed = containers[each.name]
        if np.issubdtype(observed.dtype, np.integer):  # which PyMC would put into 32 bits on the way
            observed = observed.astype("float64")
        model.register_rv(rv, each.name, observed=observed, dims=dims)


def _shared(name: str, values: np.ndarray) -> Any:
    """A graph input that `set_data` can swap.

    Not `pymc.Data`: that refuses NaN (missing cells) and keeps whole numbers at 32 bits, and `pymc.set_data` would
    change one of the arrays that belong together.
    """
    return pytensor.shared(values, name=name, shape=(None,) * values.ndim)


def _rows_rv(parts: RowsParts, inputs: list) -> list:
    """One output for each observed array, drawn from the mixture."""
    bound = parts.bound
    dummies = [pt.as_tensor(variable).type() for variable in inputs]
    variables, n_rows, labels, drawn, _ = parts.named(dummies)

    def label(site, probabilities):
        return labels[site.key] if labels else pm.Categorical.dist(probabilities)

    with pm.Model(model=None):  # .dist() graphs only: nothing is registered anywhere
        bound.site.graph_draw(variables, pt.zeros((n_rows,), "int64"), drawn, label)
    outputs = [drawn[name] for name in parts.observed]
    rngs = [v for v in ancestors(outputs) if isinstance(v, SharedVariable) and isinstance(v.type, RandomGeneratorType)]
    updates = collect_default_updates(outputs=outputs, inputs=dummies)
    rngs = [rng for rng in rngs if rng in updates]
    inner = [rng.type() for rng in rngs]
    cloned = clone_replace([*[updates[rng] for rng in rngs], *outputs], replace=list(zip(rngs, inner)))
    core = [",".join(f"i{i}d{j}" for j in range(dummy.type.ndim)) for i, dummy in enumerate(dummies)]
    made = [",".join(f"o{i}d{j}" for j in range(out.type.ndim)) for i, out in enumerate(outputs)]
    signature = (
        ",".join(["[rng]"] * len(rngs) + [f"({c})" for c in core])
        + "->"
        + ",".join(["[rng]"] * len(rngs) + [f"({m})" for m in made])
    )
    op = RowsRV([*inner, *dummies], cloned, extended_signature=signature, parts=parts, n_rngs=len(rngs))
    fresh = [pytensor.shared(np.random.default_rng()) for _ in rngs]
    return op.make_node(*fresh, *inputs).outputs[len(rngs) :]


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
    parts: RowsParts = node.op.parts
    if parts.labels:
        raise DataError('model: a model with labels="explicit" keeps its rows. Build one for the other table.')
    table = read(data)
    encoded = parts.bound.encode(table, unseen)
    model.set_dim("row", encoded.n_rows, _labels(range(encoded.n_rows) if table.index is None else table.index))
    arrays = {each.name: each for each in parts.bound.site.observed(encoded)}
    for rv in rows:
        each = arrays[rv.name]
        [container] = [v for v in ancestors([model.rvs_to_values[rv]]) if isinstance(v, SharedVariable)]
        container.set_value(each.written_out())
        if each.row_dim != "row":
            model.set_dim(each.row_dim, len(each.values), range(len(each.values)))
        for dim in each.dims:  # the steps of chains: as many as the longest has
            if len(dim) != len(model.coords[dim.name]):
                model.set_dim(dim.name, len(dim), dim_labels(dim))
    weights = check_row_weights(row_weights, encoded.n_rows, index=table.index) if parts.weighted else None
    if parts.fused is not None:
        parts.fused.swap(encoded, weights)
    if weights is not None:
        node.inputs[-1].set_value(weights)
