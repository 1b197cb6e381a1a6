"""Parameters: supports, priors, and the slots that hold them.

A `Parameter` is what a family declares (support, event dims, default prior). A `Slot` is a declared parameter
in its place in a model: it has a PyMC name, named dims with the components first, and a prior. Parameter
values travel as ``dict[str, ndarray]`` from slot name to array, shape = components' axes + event dims; the
same names and shapes as in the PyMC model.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
from pymc.distributions.distribution import SymbolicRandomVariable, support_point
from pymc.distributions.mixture import MixtureRV
from pymc.distributions.shape_utils import change_dist_size
from pymc.distributions.transforms import _default_transform, log, logodds, simplex
from pymc.distributions.truncated import TruncatedRV
from pymc.logprob.transforms import Transform
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.variable import TensorVariable

from bayesmix import distributions
from bayesmix.compilation import QuickFunction, constant
from bayesmix.conjugate import Conjugate, Dirichlet, recognise
from bayesmix.errors import SpecError
from bayesmix.threads import alone

Params = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Flat:
    """The improper flat prior: the parameter enters the posterior through the likelihood alone.

    Flat in the declared parameter (on ``sigma``, not on its logarithm). ``spec.with_flat_priors()`` puts it
    on every free parameter, which makes EM plain maximum likelihood.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Normal(sigma=bm.Flat()), 2)
    Mixture(Normal(sigma=Flat()), 2)
    """

    def __repr__(self) -> str:
        return "Flat()"


@dataclass(frozen=True)
class Shared:
    """One parameter for all components of the mixture around it, instead of one for each.

    The variable has no axis for that mixture; the M-step pools the components' statistics.

    Parameters
    ----------
    prior : prior, optional
        As the parameter's own keyword takes; the family's default where not given.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Normal(sigma=bm.Shared()), 3)
    Mixture(Normal(sigma=Shared()), 3)
    """

    prior: Any = None

    def __repr__(self) -> str:
        return f"Shared({'' if self.prior is None else show(self.prior)})"


@dataclass(frozen=True)
class Dim:
    """A named axis with the labels of its entries."""

    name: str
    labels: tuple

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Support:
    """Where a parameter may lie: `ndim` event axes, a test for fixed values, and the flat prior there.

    Without a flat prior of its own a parameter's default is flat already (a position among the values of a range).
    `transform` leads to numbers without bounds, for priors of which PyMC has none.
    """

    name: str
    ndim: int
    contains: Callable[[np.ndarray], bool]
    flat: Callable[[tuple[int, ...], tuple[int, ...]], TensorVariable] | None
    transform: Transform | None = None

    def __reduce__(self) -> str:
        """Pickled and copied by the name that it has in this module: there is one of each."""
        return next(name for name, value in globals().items() if value is self)


def _flat_covariance(batch: tuple[int, ...], event: tuple[int, ...]) -> TensorVariable:
    return distributions.FlatCovariance.dist(np.eye(event[0]), size=batch)


def _is_covariance(value: np.ndarray) -> bool:
    return bool(np.allclose(value, np.swapaxes(value, -1, -2)) and (np.linalg.eigvalsh(value) > 0).all())


#: Mass of a prior where the parameter cannot be, above which it is refused; what it costs the evidence, in nats.
_OUTSIDE = 1e-3
#: How far inside searches start from a probability on the edge of its support, and how near a floor is on it.
_INSIDE, _AT_FLOOR = 1e-3, 1e-10

REAL = Support("a real number", 0, lambda v: bool(np.isfinite(v).all()), lambda b, e: pm.Flat.dist(size=b + e))
POSITIVE = Support(
    "a positive number",
    0,
    lambda v: bool((np.isfinite(v) & (v > 0)).all()),
    lambda b, e: pm.HalfFlat.dist(size=b + e),
    log,
)
UNIT = Support(
    "a probability",
    0,
    lambda v: bool(((v >= 0) & (v <= 1)).all()),
    lambda b, e: pm.Beta.dist(1.0, 1.0, size=b + e),
    logodds,
)
SIMPLEX = Support(
    "probabilities that sum to 1",
    1,
    lambda v: bool((v >= 0).all() and np.allclose(v.sum(-1), 1, atol=1e-8)),
    lambda b, e: pm.Dirichlet.dist(np.ones(e[-1]), size=b + e[:-1]),
    simplex,
)
POSITION = Support("a whole number", 0, lambda v: bool((v == np.round(v)).all()), None)
COVARIANCE = Support("a positive definite matrix", 2, _is_covariance, _flat_covariance)


@dataclass(frozen=True)
class Parameter:
    """What a family declares about one of its parameters.

    Attributes
    ----------
    support : Support
    default : TensorVariable or number
        Default prior, a PyMC distribution made with ``.dist()``, for one component; or a fixed value.
    conjugate : str
        Kind of prior for which the family has a closed-form M-step (a key of `bayesmix.conjugate.KINDS`).
    event : tuple of Dim
        Axes of one component's value; empty for a number.
    floor : float
        Least value of a probability on a simplex.
    """

    support: Support
    default: Any
    conjugate: str
    event: tuple[Dim, ...] = ()
    floor: float = 0.0


@dataclass(frozen=True)
class Slot:
    """One parameter in its place: name, dims, prior.

    Attributes
    ----------
    name : str
        Name of the parameter, and of its PyMC variable.
    axes, event : tuple of Dim
        Components' axes first, then the event's.
    around : tuple of Dim
        Components' axes of the node that the parameter belongs to: `axes`, and those that it is shared over.
    kind : {"prior", "fixed", "tensor"}
        Has a prior and is estimated; is a constant; is an expression of the user's own PyMC model.
    rv : TensorVariable or None
        The prior, with the slot's shape.
    value : ndarray or TensorVariable or None
        The constant, or the expression.
    hyper : Conjugate or None
        Hyperparameters broadcast to the slot's shape with the components' axes flattened, where the prior is
        of the kind that the family has a closed form for.
    transform : Transform or None
        PyMC transform of the prior's variable.
    """

    name: str
    axes: tuple[Dim, ...]
    event: tuple[Dim, ...]
    around: tuple[Dim, ...]
    support: Support
    kind: str
    rv: Any = None
    value: Any = None
    hyper: Conjugate | None = None
    transform: Transform | None = None

    @cached_property
    def dims(self) -> tuple[str, ...]:
        return tuple(dim.name for dim in (*self.axes, *self.event))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(dim) for dim in (*self.axes, *self.event))

    @cached_property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(len(dim) for dim in self.event)

    @cached_property
    def n_components(self) -> int:
        """Product of the components' axes around the parameter, K."""
        return size_of(self.around)

    @property
    def free(self) -> bool:
        return self.kind == "prior"

    @property
    def discrete(self) -> bool:
        """Whether it is one of finitely many values: profiled by EM, summed out of the PyMC model."""
        return self.free and self.support is POSITION

    @property
    def n_free(self) -> int:
        """Free numbers: simplexes of G entries have G - 1, covariance matrices D (D + 1) / 2."""
        size = int(np.prod(self.shape, dtype=int))
        if self.support.ndim == 1:
            return size - size // self.shape[-1]
        if self.support.ndim == 2:
            return size * (self.shape[-1] + 1) // (2 * self.shape[-1])
        return size

    def inside(self, value: np.ndarray) -> np.ndarray:
        """The value, with probabilities on the edge of their support (or at a floor) moved off it.

        EM's mode may lie there, where coordinates without bounds would be infinite.
        """
        value = np.asarray(value, float)
        if self.support is UNIT:
            return np.where((value > 0) & (value < 1), value, np.clip(value, _INSIDE, 1 - _INSIDE))
        if self.support is not SIMPLEX:
            return value
        floor, size = getattr(self.transform, "floor", 0.0), value.shape[-1]
        room = 1 - size * floor
        share = (value - floor) / room
        moved = floor + room * ((1 - _INSIDE) * np.maximum(share, 0) + _INSIDE / size)
        return np.where((share > (_AT_FLOOR if floor else 0)).all(-1, keepdims=True), value, moved)

    @property
    def depends_on_model(self) -> bool:
        """Whether prior or value refer to variables of a PyMC model of the user's own."""
        if self.kind == "tensor":
            return True
        return self.rv is not None and _refers_to_model(self.rv)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without what it has worked out, which holds functions."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def components(self, values: Any) -> Any:
        """The slot's array (numpy or PyTensor) with the components' axes flattened to K: (K, *event)."""
        if self._shared:
            values = self.own_components(values)[self._places]
        return values.reshape((self.n_components, *self.event_shape))

    def own_components(self, values: Any) -> Any:
        """The same over the slot's own axes alone: what a shared parameter is shared over counts once."""
        return values.reshape((size_of(self.axes), *self.event_shape))

    def of_components(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `components`: (K, *event) in the slot's shape."""
        if self.axes != self.around:
            _, first = np.unique(self._places, return_index=True)
            values = values[first]
        return values.reshape(self.shape)

    @cached_property
    def _shared(self) -> bool:
        return self.axes != self.around

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each of the K components finds its value among the slot's own."""
        own = np.arange(size_of(self.axes)).reshape([len(a) if a in self.axes else 1 for a in self.around])
        return np.broadcast_to(own, [len(a) for a in self.around]).ravel()

    @cached_property
    def priors(self) -> Conjugate | None:
        """`hyper` for each of the K components, for closed-form M-steps."""
        if self.hyper is None or self.axes == self.around:
            return self.hyper
        return self.hyper.shared(self._places)

    @alone
    def central_value(self) -> np.ndarray:
        """The prior's own central value: a point of its support."""
        return np.asarray(QuickFunction([], support_point(self.rv))(), float)

    @cached_property
    @alone
    def log_prior(self) -> Callable[[np.ndarray], float]:
        """Log density of the declared PyMC variable at a value of a free parameter (no Jacobian)."""
        hyper = self.hyper
        if hyper is not None:
            return lambda value: float(hyper.log_density(self.own_components(value)))
        variable = self.rv.type()
        density = QuickFunction([variable], pm.logp(self.rv, variable).sum())
        return lambda value: float(density(value))


def size_of(axes: tuple[Dim, ...]) -> int:
    """Product of the lengths of axes."""
    return math.prod([len(axis) for axis in axes])


def is_prior(value: Any) -> bool:
    """Whether `value` is a PyMC distribution made with ``.dist()`` and not yet part of a model."""
    if not isinstance(value, TensorVariable) or value.owner is None or value.name is not None:
        return False
    return isinstance(value.owner.op, (RandomVariable, SymbolicRandomVariable))


def _refers_to_model(rv: TensorVariable) -> bool:
    """Whether anything above `rv` is a random variable of another model, or waits for a value."""
    for variable in ancestors([rv]):
        if variable is rv or variable.owner is None:
            continue
        if isinstance(variable.owner.op, (RandomVariable, SymbolicRandomVariable)) and variable.name is not None:
            return True
    return False


def made_of(rv: TensorVariable) -> tuple[list[Any], Any]:
    """The distributions that a prior is made of, as truncated ones and mixtures are, and its other parameters."""
    node = rv.owner
    if type(node.op) is TruncatedRV:
        *inputs, lower, upper = node.inputs
        return [node.op.base_rv_op.make_node(*inputs).default_output()], [lower, upper]
    parameters = list(node.op.dist_params(node))
    return (parameters[1:], parameters[:1]) if type(node.op) is MixtureRV else ([], parameters)


def check_prior_like(name: str, value: Any) -> str | None:
    """The fault of something that is neither a prior, nor a number, nor a tensor; None where there is none."""
    if isinstance(value, Shared):
        return check_prior_like(name, value.prior)
    if value is None or isinstance(value, (Flat, TensorVariable)):
        return None
    if isinstance(value, type) or callable(value):
        return f"{name}: {value!r} is not a prior. Make it with .dist(), for instance pm.Normal.dist(0, 1)."
    if isinstance(value, tuple):
        return (
            f"{name}: a tuple is not a prior. For pm.LKJCholeskyCov.dist pass compute_corr=False."
            if any(isinstance(part, TensorVariable) for part in value)
            else None
        )
    try:
        np.asarray(value, float)
    except (TypeError, ValueError):
        return f"{name}: {value!r} is neither a PyMC .dist(), nor a number, nor bm.Flat()."
    return None


def make_slot(name: str, axes: tuple[Dim, ...], parameter: Parameter, given: Any) -> Slot:
    """Put a parameter in its place, with the prior that the user gave or the default.

    Raises
    ------
    SpecError
        A value outside the support, a prior of the wrong kind or shape.
    """
    support, event, around = parameter.support, parameter.event, axes
    if isinstance(given, Shared):
        axes, given = axes[:-1], given.prior
    batch = tuple(len(axis) for axis in axes)
    event_shape = tuple(len(dim) for dim in event)
    shape = batch + event_shape
    common: dict[str, Any] = {"name": name, "axes": axes, "event": event, "around": around, "support": support}

    if isinstance(given, Flat):
        given = None if support.flat is None else support.flat(batch, event_shape)
    if given is None and not isinstance(parameter.default, TensorVariable):
        given = parameter.default
    if given is None or is_prior(given):
        given_rv: Any = parameter.default if given is None else given
        if support is POSITION and type(given_rv.owner.op).__name__ != "DiscreteUniformRV":
            raise SpecError(
                f"{name}: fix it at a whole number, or leave it out: all positions are then alike a priori."
            )
        _check_prior(name, given_rv, support)
    elif isinstance(given, TensorVariable):
        _check_owned(name, given)
        return Slot(**common, kind="tensor", value=given)
    else:
        return Slot(**common, kind="fixed", value=_fixed(name, given, shape, support))

    if support is COVARIANCE and type(given_rv.owner.op).__name__ == "_LKJCholeskyCovRV":
        given_rv = distributions.LKJCovariance.of_cholesky(given_rv)
    rv = _sized(name, given_rv, batch, event_shape, support)
    if support is COVARIANCE:
        transform: Transform | None = distributions.CholeskyCovariance(event_shape[0])
    elif parameter.floor:
        transform = distributions.FlooredSimplex(parameter.floor)
    else:
        transform = _default_transform(rv.owner.op, rv) or support.transform
    hyper = None
    if not _refers_to_model(rv):
        hyper = recognise(parameter.conjugate, given_rv, batch, (size_of(axes), *event_shape))
        if hyper is None:
            _check_inside(name, given_rv, support)
        if parameter.floor and isinstance(hyper, Dirichlet):
            hyper = replace(hyper, floor=parameter.floor)
    return Slot(**common, kind="prior", rv=rv, hyper=hyper, transform=transform)


def _check_prior(name: str, rv: TensorVariable, support: Support) -> None:
    """Raise `SpecError` where a prior has no density over numbers, or has one that is drawn anew each time."""
    if support is not POSITION and not rv.dtype.startswith("float"):
        raise SpecError(
            f"{name}: the parameter is {support.name}; {_op_name(rv)} is a distribution over whole numbers. "
            "Use a continuous prior, or fix the parameter."
        )
    if _nobodys(rv.owner.inputs):  # mixtures and LKJ priors are made of such, and sum them out
        _check_owned(name, pm.logp(rv, rv.type(), warn_rvs=False))


def _check_inside(name: str, rv: TensorVariable, support: Support) -> None:
    """Raise `SpecError` where a prior of a number has mass where the parameter cannot be.

    The density would be cut there and not scaled up again: the mode is right, and the evidence is not.
    """
    if support not in (POSITIVE, UNIT) or rv.owner.op.ndim_supp:
        return
    lowest = np.zeros(constant(rv.shape).astype(int))
    try:
        outside = np.exp(constant(pm.logcdf(rv, lowest, warn_rvs=False)))
        if support is UNIT:
            outside = outside - np.expm1(constant(pm.logcdf(rv, lowest + 1, warn_rvs=False)))
    except NotImplementedError:
        return  # it has no distribution function
    if (share := float(np.max(outside))) > _OUTSIDE:
        given = _op_name(rv)
        bounds = "lower=0" if support is POSITIVE else "lower=0, upper=1"
        raise SpecError(
            f"{name}: the parameter is {support.name}, and {share:.2g} of the mass of its prior {given} is not. "
            f"Use one over such numbers (pm.{'HalfNormal' if support is POSITIVE else 'Beta'}), or cut it: "
            f"pm.Truncated.dist(pm.{given}.dist(…), {bounds})."
        )


def _check_owned(name: str, graph: Any) -> None:
    """Raise `SpecError` where the value of a graph is drawn anew each time, of a variable that no model has."""
    stray = _nobodys([graph])
    if stray:
        other = _op_name(stray[0])
        raise SpecError(
            f"{name}: its prior depends on {other}, a random variable without a name that no model has. Give it a "
            f'name in your own PyMC model, as in pm.{other}("{name}_prior", …), or a value.'
        )


def _nobodys(graphs: list) -> list[Any]:
    """Random variables that are in graphs, but neither in a model nor above a variable of one."""
    found = []
    todo, seen = list(graphs), set()
    while todo:
        variable = todo.pop()
        if variable in seen or variable.owner is None:
            continue
        seen.add(variable)
        if isinstance(variable.owner.op, (RandomVariable, SymbolicRandomVariable)):
            if variable.name is not None:
                continue
            found.append(variable)
        todo += variable.owner.inputs
    return found


def _sized(name: str, rv: TensorVariable, batch: tuple, event: tuple, support: Support) -> TensorVariable:
    ndim = rv.owner.op.ndim_supp
    if ndim == support.ndim:
        size = batch + event[: len(event) - ndim]
    elif ndim == 1 and support.ndim == 0 and event:
        size = batch
    else:
        raise SpecError(
            f"{name}: the parameter is {support.name}; {_op_name(rv)} is a distribution over "
            f"{('numbers', 'vectors', 'matrices')[ndim]}. Use a prior over {support.name}."
        )
    own = rv.type.shape[: rv.type.ndim - ndim]
    if None not in own and not _broadcasts(own, size):  # PyMC would take it, and fail where it is used, or drop it
        raise _misshaped(name, rv.type.shape, batch + event)
    try:
        sized = change_dist_size(rv, size)
        shape = sized.type.shape
        if None in own or None in shape:  # then only running it tells
            shape = tuple(int(n) for n in QuickFunction([], list(sized.shape))())
    except Exception as error:
        raise SpecError(f"{name}: the prior {_op_name(rv)} does not fit the shape {batch + event}: {error}") from None
    if shape != batch + event:
        raise _misshaped(name, shape, batch + event)
    return sized


def _broadcasts(shape: tuple, to: tuple) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _misshaped(name: str, shape: tuple, needed: tuple) -> SpecError:
    return SpecError(f"{name}: the prior has shape {shape}, the parameter {needed}. Give it that shape.")


def _fixed(name: str, given: Any, shape: tuple, support: Support) -> np.ndarray:
    value = np.asarray(given, float)
    try:
        value = np.broadcast_to(value, shape).copy()
    except ValueError:
        raise SpecError(f"{name}: a fixed value of shape {value.shape} does not fit {shape}.") from None
    if not support.contains(value):
        total = f"; it sums to {float(value.sum(-1).flat[0]):g}" if support is SIMPLEX else ""
        raise SpecError(f"{name}: must be {support.name}, not {np.asarray(given).tolist()}{total}.")
    return value


def _op_name(rv: TensorVariable) -> str:
    print_name = getattr(rv.owner.op, "_print_name", None)
    return print_name[0] if print_name else type(rv.owner.op).__name__


def prior_signature(prior: Any) -> Any:
    """Equal for priors that are alike, to the last digit; an expression is like itself alone."""
    if prior is None or isinstance(prior, Flat):
        return prior
    if isinstance(prior, Shared):
        return "shared", prior_signature(prior.prior)
    if not isinstance(prior, TensorVariable):
        value = np.asarray(prior, float)
        return value.shape, value.tobytes()
    if is_prior(prior) and type(prior.owner.op) in (TruncatedRV, MixtureRV):
        of, others = made_of(prior)
        inside = tuple(map(prior_signature, of))
        if all(isinstance(each, Constant) for each in others) and not any(isinstance(each, int) for each in inside):
            sizes = [constant(each.shape).tobytes() for each in of]
            about = [prior_signature(np.asarray(constant(each), float)) for each in others]
            return type(prior.owner.op), inside, tuple(sizes), tuple(about)
    # an op that is made of another distribution's does not say so in its type
    alone = is_prior(prior) and not hasattr(prior.owner.op, "base_rv_op")
    numbers = hyperparameters(prior) if alone else None
    if numbers is None:
        return id(prior)
    doubles = [np.asarray(value, float) for value in numbers]  # 3 and 3.0 are alike
    # PyMC makes some classes anew with every distribution
    name = _op_name(prior)
    made_anew = type(prior.owner.op).__module__ == "abc" and name != "CustomDist" and hasattr(pm, name)
    return name if made_anew else type(prior.owner.op), tuple((value.shape, value.tobytes()) for value in doubles)


def hyperparameters(rv: TensorVariable) -> list[np.ndarray] | None:
    """The numbers that a distribution is made with; None where there is more to it (other distributions, variables)."""
    inputs = rv.owner.op.dist_params(rv.owner)
    for each in ancestors(inputs):
        random = each.owner is not None and isinstance(each.owner.op, (RandomVariable, SymbolicRandomVariable))
        if random or (each.owner is None and not isinstance(each, Constant)):
            return None
    return [constant(each) for each in inputs]


def show(prior: Any) -> str:
    """The code that makes a prior, for ``repr``; an ellipsis stands for what no code can be found for."""
    if isinstance(prior, TensorVariable):
        return _code(prior) if is_prior(prior) else prior.name or "…"
    if isinstance(prior, (Flat, Shared)):
        return repr(prior)
    try:
        return show_number(prior)
    except (TypeError, ValueError):  # a fault, which validation names
        return repr(prior)


def show_number(value: Any) -> str:
    """The code that makes a number or an array, to its last digit; whole numbers without their point."""
    value = np.asarray(value, float)
    if value.ndim:
        return repr(value.tolist()) if np.isfinite(value).all() else f"[{', '.join(map(show_number, value))}]"
    number = float(value)
    if not np.isfinite(number):
        return f"float('{number}')"
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _code(rv: TensorVariable) -> str:
    """The call of ``.dist()`` that makes a distribution.

    PyMC keeps other parameters than some of its classes take (a gamma's scale for its rate, a location of 0), so calls
    are tried until one makes the same distribution.
    """
    name = _op_name(rv)
    own = getattr(distributions, name, None)
    kind, shown = (own, name) if own is not None else (_pymc_class(rv.owner.op), f"pm.{name}")
    if own is None and kind is not None:
        shown = f"pm.{kind.__name__}"
    if type(rv.owner.op).__name__ == "_LKJCholeskyCovRV":
        n, eta, sd = rv.owner.op.dist_params(rv.owner)[:3]
        size, shape = show(constant(n)), show(constant(eta))
        return f"pm.LKJCholeskyCov.dist(n={size}, eta={shape}, sd_dist={show(sd)}, compute_corr=False)"
    if type(rv.owner.op) in (TruncatedRV, MixtureRV):
        return _code_of_made(rv)
    if kind is None:
        return f"{shown}.dist(…)"
    numbers = hyperparameters(rv)
    if hasattr(rv.owner.op, "base_rv_op"):
        return f"{shown}.dist(…)"
    if numbers is None:  # distributions or variables of a model stand in it
        inputs = rv.owner.op.dist_params(rv.owner)
        inside = [show(constant(each)) if isinstance(each, Constant) else show(each) for each in inputs]
        return f"{shown}.dist({', '.join(inside)})"
    texts = [show_number(number) for number in numbers]
    logp = getattr(kind, "logp", None)
    names = [] if logp is None else [each for each in inspect.signature(logp).parameters if each != "value"]
    keywords = [f"{key}={text}" for key, text in zip(names, texts)]
    calls = [texts, texts[1:], keywords, [*texts[:1], *keywords[1:]], [*texts[:2], *keywords[2:]]]
    if texts:
        calls += [[*texts[:-1], inverse] for inverse in _inverses(numbers[-1])]
    for call in sorted(calls, key=lambda call: len("".join(call))):
        if _makes(kind, call, rv):
            return f"{shown}.dist({', '.join(call)})"
    return f"{shown}.dist(…)"


def _code_of_made(rv: TensorVariable) -> str:
    """The call that makes a truncated distribution, or a mixture."""
    of, numbers = made_of(rv)
    if not all(isinstance(number, Constant) for number in numbers):
        return f"pm.{'Mixture' if type(rv.owner.op) is MixtureRV else 'Truncated'}.dist(…)"
    texts = [show(constant(number)) for number in numbers]
    if type(rv.owner.op) is MixtureRV:
        parts = f"[{', '.join(map(show, of))}]"
        if len(of) == 1:  # of which each entry is a component
            parts = f"{show(of[0]).removesuffix(')')}, size={int(constant(of[0].shape[-1]))})"
        return f"pm.Mixture.dist({texts[0]}, {parts})"
    bounds = ["None" if np.isinf(constant(number)).all() else text for number, text in zip(numbers, texts)]
    return f"pm.Truncated.dist({show(of[0])}, {', '.join(bounds)})"


def _pymc_class(op: Any) -> Any:
    """The class of PyMC's that makes an op: of its name, or, where it prints under another name, the op's own."""
    found = getattr(pm, op._print_name[0], None) if getattr(op, "_print_name", None) else None
    if found is not None:
        return found
    own = (
        each for each in vars(pm).values() if isinstance(each, type) and type(getattr(each, "rv_op", None)) is type(op)
    )
    return next(own, getattr(pm, type(op).__name__, None))


def _inverses(scale: np.ndarray) -> list[str]:
    """Numbers whose inverses are `scale`, as code, the shortest first: the rates that a user gave are among them."""
    if not scale.size or not ((scale > 1e-300) & (scale < 1e300)).all():
        return []
    found = []
    for digits in range(1, 18):
        rates = np.reshape([float(f"{1 / each:.{digits}g}") for each in scale.ravel()], scale.shape)
        if np.abs(rates * scale - 1).max() < 1e-6:  # PyMC divides small whole numbers in single
            found.append(show_number(rates))
    return list(dict.fromkeys(found))


def _makes(kind: Any, call: list[str], rv: TensorVariable) -> bool:
    """Whether the call with these arguments makes a distribution like `rv`."""
    try:
        made = eval(f"kind.dist({', '.join(call)})", {"kind": kind})
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return False
    return prior_signature(made) == prior_signature(rv)


@dataclass(frozen=True)
class Place:
    """Where in the tree a node stands: how errors call it, how its variables are named, which axes it has.

    Attributes
    ----------
    key : str
        Name of its parameters and statistics, unique for each node but for tied ones, which have one key.
    path : str
        Field path that users know, such as ``"income"``: names the data.
    prefix : str
        Put before the names of the node's variables, such as ``"income_"``.
    axes : tuple of Dim
        Components' axes of the node's parameters, outermost first: the mixtures around it, but for those whose
        components share it.
    depth : int
        Mixtures around this node that share its prefix.
    level : int
        Sequences around this node that share its path.
    optional : bool
        Whether an `Optional` around this node shares its prefix.
    """

    key: str = "root"
    path: str = ""
    prefix: str = ""
    axes: tuple[Dim, ...] = ()
    depth: int = 0
    level: int = 0
    optional: bool = False

    @property
    def n_components(self) -> int:
        return size_of(self.axes)

    @property
    def observed(self) -> str:
        """Name of the observed variable of the data here: the field's path, or ``x`` for a lone family."""
        return self.path.replace(".", "_").replace("/", "_") or "x"

    def field_place(self, name: str) -> Place:
        """The place of a composite's field."""
        path = f"{self.path}.{name}" if self.path else name
        key, prefix = name.replace("/", "//"), name.replace("/", "_")  # names of variables may hold no slash
        return Place(f"{self.key}/{key}", path, f"{self.prefix}{prefix}_", self.axes)

    @property
    def lengths(self) -> Place:
        """The place of the lengths of the sequences here."""
        return self.field_place("element_" * self.level + "length")

    @property
    def element(self) -> Place:
        """The place of their elements: the same path, rows of its own."""
        return replace(self, key=f"{self.key}/element", level=self.level + 1)

    @property
    def value(self) -> Place:
        """The place of what an `Optional` here holds."""
        return replace(self, key=f"{self.key}/value", optional=True)

    def of_optional(self, name: str) -> str:
        """``name`` of an `Optional` here; inside another it is one of elements, and says so."""
        return f"{'element_' * self.level if self.optional else ''}{name}"

    @property
    def element_dim(self) -> str:
        """Dim of those rows."""
        return self.observed + "_element" * (self.level + 1)

    def within(self, key: str, *, prefix: str = "", axis: Dim | None = None, shared: bool = False) -> Place:
        """The place of a mixture's component: the same data, one more axis."""
        around = self.axes[:-1] if shared else self.axes
        axes = around if axis is None else (*around, axis)
        depth = 0 if prefix else self.depth + 1
        optional = self.optional and not prefix
        return Place(f"{self.key}/{key}", self.path, f"{self.prefix}{prefix}", axes, depth, self.level, optional)

    def tied(self, name: str) -> Place:
        """The place of a tied node: one set of parameters, wherever it stands."""
        return Place(f"tie:{name}", self.path, f"{name}_", level=self.level)

    def name(self, base: str) -> str:
        """Name of a variable or axis of a mixture here: nested mixtures of one field say ``sub``."""
        return f"{self.prefix}{'sub' * self.depth}{base}"
