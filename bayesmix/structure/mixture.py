"""Mixtures: one of several components for each row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.errors import SpecError, gather_faults
from bayesmix.families._summaries import safe_log
from bayesmix.kernels.log_sum_exp import LogSumExp
from bayesmix.mstep import numeric_step
from bayesmix.params import (
    SIMPLEX,
    Dim,
    Flat,
    Parameter,
    Place,
    Shared,
    hyperparameters,
    is_prior,
    make_slot,
    show,
    size_of,
)
from bayesmix.portraits import Portrait, shares
from bayesmix.spec import Encoded, Evaluation, Node, Site, add_to, gather, places, signature, spread


@dataclass(frozen=True)
class Group:
    """Components that have one spec: they are one node with an axis of their own.

    Attributes
    ----------
    node : Node
    members : tuple of int
        Which of the mixture's components these are, ascending.
    name : str
        Put before the names of the group's variables; empty where all components have one spec.
    """

    node: Node
    members: tuple[int, ...]
    name: str


class Mixture(Node):
    r"""A finite mixture: each row comes from one of K components, which one is not observed.

    .. math:: f(x) = \sum_{k=1}^{K} w_k f_k(x)

    Parameters
    ----------
    component : Node or list of Node
        Family or structure of every component; or a list of K of them, of any families with one support. Equal ones
        are computed together. Mixtures may stand in them, at any depth.
    n_components : int, optional
        K, at least 1. Not with a list.
    weights : prior, optional
        Probabilities of the components, shape (K,). Default ``Dirichlet(2, …, 2)``: worth one row a component,
        and zero where a component is empty.
    min_weight : float
        No weight lies below it (below 1/K). The prior is restricted to such weights.
    shared : bool
        In the component of another mixture: all of that mixture's components have the same inner components, and only
        the inner weights are their own.
    tie : str, optional
        Nodes of one name share their parameters, weights included.

    Notes
    -----
    The axis of the components is the dim ``component`` (with the field's name before it inside a composite).
    Different components take their family's name before their variables: ``exponential_scale
    (exponential_component)``, labelled by the components' numbers.
    Given parameters, the sum is taken by log-sum-exp; EM's responsibilities are
    :math:`r_{nk} \propto w_k f_k(x_n)`, and the M-step for the weights is
    ``w ∝ Σ_n r_nk + concentration - 1``.

    References
    ----------
    McLachlan and Peel 2000, *Finite Mixture Models*, chapter 2.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Composite(x=bm.Mixture(bm.Normal(), 2), y=bm.Poisson()), 3)
    Mixture(Composite(x=Mixture(Normal(), 2), y=Poisson()), 3)
    """

    #: Names of the axis and of the weights, and a prefix of what is below; by default by the place.
    _axis: str | None = None
    _weights_name: str | None = None
    _prefix: str = ""

    def __init__(
        self,
        component: Any,
        n_components: int | None = None,
        *,
        weights: Any = None,
        min_weight: float = 0.0,
        shared: bool = False,
        tie: str | None = None,
    ):
        self._listed = isinstance(component, Sequence) and not isinstance(component, (str, bytes))
        if self._listed:
            if n_components is not None:
                raise TypeError("Mixture: a list of components says how many there are; leave n_components out.")
            n_components = len(component)
        elif n_components is None:
            raise TypeError("Mixture: n_components is missing. Pass it, or a list of components.")
        self._components = tuple(component) if self._listed else (component,)
        self._n = n_components
        self._weights = weights
        self._min_weight = min_weight
        self._shared = shared
        self.tie = tie

    @property
    def component(self) -> Node:
        """The spec of one component (the first of a list)."""
        return self._components[0]

    @property
    def n_components(self) -> int:
        """K."""
        return self._n

    @property
    def min_weight(self) -> float:
        """Least value of a weight."""
        return self._min_weight

    @property
    def shared(self) -> bool:
        """Whether the components around this mixture have its components in common."""
        return self._shared

    @property
    def groups(self) -> list[Group]:
        """The components, equal ones together."""
        if not self._listed:
            return [Group(self._components[0], tuple(range(self._n)), "")]
        members: dict[Any, list[int]] = {}
        for k, node in enumerate(self._components):
            members.setdefault(signature(node), []).append(k)
        if len(members) == 1:
            return [Group(self._components[0], tuple(range(self._n)), "")]
        names: list[str] = []
        for ks in members.values():
            base = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self._components[ks[0]]).__name__).lower()
            taken = sum(re.fullmatch(rf"{base}(_\d+)?", name) is not None for name in names)
            names.append(f"{base}_{taken + 1}" if taken else base)
        return [Group(self._components[ks[0]], tuple(ks), name) for ks, name in zip(members.values(), names)]

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        if not self._listed:
            return (("", self._components[0]),)
        return tuple((f"component[{k}]", node) for k, node in enumerate(self._components))

    @property
    def priors(self) -> dict[str, Any]:
        return {"weights": self._weights}

    @property
    def options(self) -> dict[str, Any]:
        names = ("tie", "_n", "_listed", "_min_weight", "_shared", "_axis", "_weights_name", "_prefix")
        return {name: getattr(self, name) for name in names}

    @property
    def shown_options(self) -> list[str]:
        """See `Node.shown_options`."""
        shown = [f"n_components={self._n}", *super().shown_options]
        shown += [f"min_weight={self._min_weight!r}"] if self._min_weight else []
        return shown + (["shared=True"] if self._shared else [])

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Mixture:
        return self._changed(_weights=priors["weights"], _components=tuple(parts))

    def named(self, *, axis: str | None = None, weights: str | None = None, prefix: str = "") -> Mixture:
        """The same mixture with other names: of its axis, of its weights, and before what is below it."""
        return self._changed(_axis=axis, _weights_name=weights, _prefix=prefix)

    def with_n_components(self, n_components: int) -> Mixture:
        """The same mixture with another number of components, where all have one spec.

        Raises
        ------
        SpecError
            The components differ, or the prior of the weights does.

        Examples
        --------
        >>> import bayesmix as bm
        >>> bm.Mixture(bm.Poisson(), 2, weights=pm.Dirichlet.dist([3.0, 3.0])).with_n_components(3)
        Mixture(Poisson(), 3, weights=pm.Dirichlet.dist([3.0, 3.0, 3.0]))
        """
        if len(self.groups) > 1:
            raise SpecError("n_components: a list of different components has its own number.")
        weights = self._weights if n_components == self._n else _for_components(self._weights, n_components)
        return self._changed(_n=n_components, _listed=False, _components=self._components[:1], _weights=weights)

    def faults(self, path: str = "") -> list[str]:
        found = []
        if isinstance(self._n, bool) or not isinstance(self._n, (int, np.integer)) or self._n < 1:
            found.append(f"{path}n_components: a whole number of at least 1 is needed, not {self._n!r}.")
        elif not isinstance(self._min_weight, (int, float)) or not 0 <= self._min_weight < 1 / self._n:
            found.append(f"{path}min_weight: a number of at least 0 and below 1/{self._n}, not {self._min_weight!r}.")
        found += super().faults(path)
        if not found and self._listed:
            dtypes = {getattr(node, "value_dtype", None) for node in self._components} - {None}
            if len(dtypes) > 1:
                shown = ", ".join(type(node).__name__ for node in self._components)
                found.append(f"{path or 'Mixture'}: {shown} have different supports (real numbers and whole ones).")
            named = [names for node in self._components if (names := node.column_names()) is not None]
            if any(set(names) != set(named[0]) for names in named):
                shown = "; ".join(dict.fromkeys(", ".join(names) for names in named))
                found.append(
                    f"{path or 'Mixture'}: components have different fields ({shown}), and densities of different "
                    "things cannot be compared. Give all components the same fields."
                )
        return found

    def __repr__(self) -> str:
        if self._listed:
            shown = [f"[{', '.join(map(repr, self._components))}]"]
        else:
            shown = [repr(self._components[0]), str(self._n)]
        shown += self._shown_priors()
        shown += [f"min_weight={self._min_weight!r}"] if self._min_weight else []
        shown += ["shared=True"] if self._shared else []
        return f"Mixture({', '.join(shown)})"

    def _axes(self, place: Place) -> list[Dim]:
        """The axis of each group of components."""
        if not self.groups[0].name:
            return [Dim(self._axis_name(place), self.groups[0].members)]
        return [Dim(f"{place.prefix}{self._prefix}{group.name}_component", group.members) for group in self.groups]

    def _below(self, place: Place) -> list[Place]:
        """The place of each group of components."""
        found = []
        for i, (group, axis) in enumerate(zip(self.groups, self._axes(place))):
            key = f"component{i}" if group.name else "component"
            prefix = self._prefix + (f"{group.name}_" if group.name else "")
            found.append(place.within(key, prefix=prefix, axis=axis, shared=self._shared))
        return found

    def _members(self, site: Site) -> list[tuple[Group, Site, tuple[Dim, ...]]]:
        """Each group with its site and the axes (K, its components), over which the site's own are spread."""
        wide = [(*site.axes, axis) for axis in self._axes(site.place)]
        return list(zip(self.groups, site.children, wide))

    def _axis_name(self, place: Place) -> str:
        if self._axis:
            return f"{place.prefix}{self._axis}"
        around = {axis.name for axis in place.axes}
        while (name := place.name("component")) in around:  # the components of a joint mixture go by their field's name
            place = replace(place, depth=place.depth + 1)
        return name

    def _name_of_weights(self, place: Place) -> str:
        if not self._weights_name:
            return place.name("weights")
        # what links two fields is named beside them, not in the second one
        prefix = place.prefix if self._prefix else place.prefix.removesuffix(f"{place.path.rsplit('.')[-1]}_")
        return f"{prefix}{self._weights_name}"

    def column_names(self):
        """See `Node.column_names`."""
        own = [group.node.column_names() for group in self.groups]
        return None if None in own else tuple(dict.fromkeys(name for names in own for name in names))

    def read(self, table, place, readers):
        below = self._below(place)
        gather_faults(
            lambda group=group, at=at: group.node.read_from(table, at, readers) for group, at in zip(self.groups, below)
        )

    def layout(self, place, learned):
        prior = pm.Dirichlet.dist(np.full(self._n, 2.0))
        axis = Dim(self._axis_name(place), tuple(range(self._n)))
        parameter = Parameter(SIMPLEX, prior, "dirichlet", (axis,), floor=float(self._min_weight))
        weights = make_slot(self._name_of_weights(place), place.axes, parameter, self._weights)
        children = tuple(group.node.lay_out(at, learned) for group, at in zip(self.groups, self._below(place)))
        self._check_levels(children)
        return Site(self, place, {"weights": weights}, children)

    def _check_levels(self, children: tuple[Site, ...]) -> None:
        """Raise `SpecError` where a code would be one symbol in one component and another one in another."""
        known: dict[str, tuple] = {}
        for leaf in [leaf for child in children for leaf in child.leaves()]:
            levels = getattr(leaf.learned, "levels", ())
            earlier = known.setdefault(leaf.place.path, levels)
            if any(a != b for a, b in zip(earlier, levels)):
                raise SpecError(
                    f"{leaf.place.path or 'Mixture'}: components list their levels in different orders, "
                    f"{', '.join(map(str, earlier))} and {', '.join(map(str, levels))}. List them in one order."
                )

    def _fixed_parts(self, site, params):
        found = {}
        for group, child in zip(self.groups, site.children):
            found.update(dict.fromkeys(group.members, child.node.fixed_at(child, params)))
        return tuple(found[k] for k in range(self._n)) if self._listed else (found[0],)

    def encode(self, site, table, unseen):
        blocks = gather_faults(lambda child=child: child.encode(table, unseen) for child in site.children)
        return blocks[0] if len(blocks) == 1 else Encoded(table.n_rows, children=tuple(blocks))

    def child_data(self, data):
        return data.children if self.groups[0].name else (data,)

    @cached_property
    def _order(self) -> np.ndarray:
        """Where each component stands among the groups' components put one after another, (K,)."""
        return np.argsort([k for group in self.groups for k in group.members])

    def _wide(self, site: Site, densities: list) -> Any:
        """Log densities of the groups (N, K_child) as one array (N, K, G) of the components."""
        parts = []
        for (group, child, axes), density in zip(self._members(site), densities):
            wide = spread(density, child.axes, axes)
            parts.append(wide.reshape(len(density), site.n_components, len(group.members)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)[:, :, self._order]

    def _narrow(self, site: Site, resp: np.ndarray) -> list[np.ndarray]:
        """The transpose: responsibilities (N, K, G) for each group's site, (N, K_child)."""
        found = []
        for group, child, axes in self._members(site):
            own = resp[:, :, list(group.members)] if group.name else resp
            found.append(gather(own.reshape(len(resp), size_of(axes)), child.axes, axes))
        return found

    def evaluate(self, site, params, data):
        below = tuple(child.evaluate(params, block) for child, block in zip(site.children, self.child_data(data)))
        with np.errstate(divide="ignore"):
            log_weights = np.log(site.values(params)["weights"])
        joint = self._wide(site, [each.log_density for each in below]) + log_weights
        return Evaluation(log_sum_exp(joint), below, joint)

    def accumulate(self, site, evaluation, data, resp, stats):
        inner = resp[:, :, None] * posterior(evaluation)
        add_to(stats, site.key, {"n": inner.sum(0)})
        for child, below, block, own in zip(
            site.children, evaluation.children, self.child_data(data), self._narrow(site, inner)
        ):
            child.accumulate(below, block, own, stats)

    def seed(self, site, data, resp, stats, splitter):
        points = self.features(site, data)
        around = resp.sum(1)[:, None] if self._shared else resp
        split = np.stack([splitter(points, r, self._n) for r in around.T], axis=1)
        inner = resp[:, :, None] * split
        add_to(stats, site.key, {"n": inner.sum(0)})
        for child, block, own in zip(site.children, self.child_data(data), self._narrow(site, inner)):
            child.seed(block, own, stats, splitter)

    def features(self, site, data):
        return site.children[0].features(self.child_data(data)[0])

    def natural(self, params, learned, xp):
        """Logarithms of the weights; the statistics are the expected numbers of rows."""
        return {"n": safe_log(params["weights"], xp)}

    def portraits(self, site, params):
        weights, path = site.values(params)["weights"], site.place.path
        found: list[Any] = [None] * self._n
        for group, child, axes in self._members(site):
            below = child.node.portraits(child, params)
            columns = places(child.axes, axes).reshape(site.n_components, -1)
            for g, member in enumerate(group.members):
                found[member] = below, columns[:, g], len(child.axes) == 1
        what, names = type(self).__name__, [f"{self._axis_name(site.place)} {k}" for k in range(self._n)]
        if self._shared and site.axes and all(alone for *_, alone in found):
            # the same for all components around: told once
            common = [
                (name, tuple(each.at(columns[:1]).within(path, "") for each in below))
                for name, (below, columns, _) in zip(names, found)
            ]
            return [Portrait(path, what, (shares(names, weights),), common=tuple(common))]
        kinds = [
            (shares([name], weights[:, [k]]), tuple(each.at(columns).within(path, "") for each in below))
            for k, (name, (below, columns, _)) in enumerate(zip(names, found))
        ]
        return [Portrait(path, what, kinds=tuple(kinds))]

    def component_fields(self, site: Site, evaluation: Evaluation) -> dict[str, np.ndarray]:
        """Log densities (N, K, G) of each field under each component; of all together where their fields differ."""
        each = [child.node.by_field(child, below) for child, below in zip(site.children, evaluation.children)]
        paths = [path for path, _ in each[0]]
        if any([path for path, _ in fields] != paths for fields in each):
            each = [[(site.place.path, below.log_density)] for below in evaluation.children]
            paths = [site.place.path]
        return {path: self._wide(site, [fields[j][1] for fields in each]) for j, path in enumerate(paths)}

    def plan(self, site, data, plan, into, level):
        sources: list = [None] * (site.n_components * self._n)
        for (group, child, axes), block in zip(self._members(site), self.child_data(data)):
            buffer = child.node.plan(child, block, plan, None, level)
            columns = places(child.axes, axes).reshape(site.n_components, -1)
            for k in range(site.n_components):
                for g, member in enumerate(group.members):
                    sources[k * self._n + member] = (buffer, int(columns[k, g]))
        return plan.mixture(site, sources, self._n, level, into)

    def update(self, site, stats, params):
        slot = site.slots["weights"]
        if not slot.free:
            return {}
        if slot.hyper is None:
            return numeric_step(site, stats[site.key], params)
        return {slot.name: slot.of_components(conjugate.probabilities(slot.priors, stats[site.key]["n"]))}

    def draw(self, site, params, z, rng, labels):
        chosen = choose(site.values(params)["weights"][z], rng)
        labels[site.key] = chosen
        drawn = []
        for rows, child, below in self._rows_of(site, z, chosen):
            drawn.append((rows, child.draw(params, below, rng, labels)))
        return merged(drawn, len(z))

    def _rows_of(self, site, z, chosen):
        """For each group: its rows, its site, and the component of the site for each row."""
        for group, child, axes in self._members(site):
            rows = np.arange(len(z)) if not group.name else np.flatnonzero(np.isin(chosen, group.members))
            place = np.searchsorted(group.members, chosen[rows])
            wide = z[rows] * len(group.members) + place
            yield rows, child, places(child.axes, axes)[wide]

    def impute(self, site, params, evaluation, data, z, rng, out):
        chosen = choose(posterior(evaluation)[np.arange(len(z)), z], rng)
        out["label", site.key, site.place.path] = chosen
        if not self.groups[0].name:
            [(_, child, below)] = self._rows_of(site, z, chosen)
            child.impute(params, evaluation.children[0], self.child_data(data)[0], below, rng, out)
            return
        # every group fills all missing cells; each row keeps those of its own group
        kept: dict = {}
        for (rows, child, below), before, block in zip(
            self._rows_of(site, z, chosen), evaluation.children, self.child_data(data)
        ):
            full = np.zeros(len(z), int)
            full[rows] = below
            filled: dict = {}
            child.impute(params, before, block, full, rng, filled)
            for key, inner in filled.items():  # labels of mixtures inside, which rows of other components have not
                if isinstance(key, tuple):
                    own = np.isin(np.arange(len(z)), rows) if len(inner) == len(z) else True
                    kept[key] = np.where(own, inner, -1)
            for gap in child.gaps(block):
                own = np.isin(gap.rows, rows)
                values = filled[gap.path]
                if gap.path in kept:
                    values = np.where(own.reshape(-1, *[1] * (values.ndim - 1)), values, kept[gap.path])
                kept[gap.path] = values
        out.update(kept)

    def expect(self, site, params, evaluation, data, resp, out):
        inner = resp[:, :, None] * posterior(evaluation)
        label = ("label", site.place.path, site.slots["weights"].name)
        out[label] = out.get(label, 0.0) + inner
        for child, below, block, own in zip(
            site.children, evaluation.children, self.child_data(data), self._narrow(site, inner)
        ):
            child.expect(params, below, block, own, out)

    def gaps(self, site, data):
        return site.children[0].gaps(self.child_data(data)[0])

    def graph(self, site, variables, observed, labels):
        parts = []
        for group, child, axes in self._members(site):
            density = child.graph(variables, observed, labels)[:, places(child.axes, axes)]
            parts.append(density.reshape((-1, site.n_components, len(group.members))))
        joint = parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=2)[:, :, self._order]
        if site.key in labels:
            label = labels[site.key]
            return joint[pt.arange(label.shape[0]), :, label]
        slot = site.slots["weights"]
        log_weights = pt.log(slot.components(variables[slot.name]))
        flat = (joint + log_weights).reshape((-1, site.n_components * self._n))
        return LogSumExp(int(self._n))(flat)[0]

    def observed(self, site, data):
        if len(site.children) == 1:
            yield from site.children[0].observed(self.child_data(data)[0])
            return
        found = [{each.name: each for each in c.observed(b)} for c, b in zip(site.children, self.child_data(data))]
        for name, each in found[0].items():
            if each.values.dtype.kind == "i":  # families differ in what marks a missing cell: the least does for all
                lowest = np.minimum.reduce([own[name].values for own in found])
                each = replace(each, values=lowest)
            yield each

    def graph_draw(self, site, variables, z, out, label):
        slot = site.slots["weights"]
        weights = slot.components(variables[slot.name])
        chosen = label(site, weights[z])
        for group, child, axes in self._members(site):
            place = np.zeros(self._n, int)
            place[list(group.members)] = np.arange(len(group.members))
            to = pt.as_tensor(places(child.axes, axes))
            drawn: dict = dict(out)
            child.graph_draw(variables, to[z * len(group.members) + pt.as_tensor(place)[chosen]], drawn, label)
            member = pt.as_tensor(np.isin(np.arange(self._n), group.members))[chosen]
            for name, value in drawn.items():
                if name in out and group.name and not isinstance(name, tuple) and value is not out[name]:
                    own = member[drawn["rows", name]] if ("rows", name) in drawn else member
                    value = pt.switch(own.reshape((-1, *[1] * (value.ndim - 1))), value, out[name])
                out[name] = value


def _for_components(weights: Any, n_components: int) -> Any:
    """A prior of weights for another number of components."""
    if isinstance(weights, Shared):
        return Shared(_for_components(weights.prior, n_components))
    if weights is None or isinstance(weights, Flat):
        return weights
    if is_prior(weights) and type(weights.owner.op).__name__ == "DirichletRV":
        concentration = hyperparameters(weights)
        if concentration is not None and np.ptp(concentration[0]) == 0:
            return pm.Dirichlet.dist(np.full(n_components, concentration[0].flat[0]))
    raise SpecError(
        f"weights: {show(weights)} is for one number of components. Use a Dirichlet of equal concentrations, or none."
    )


def merged(parts: list[tuple[np.ndarray, Any]], n_rows: int) -> Any:
    """Values drawn for some of the rows each, as values of all rows."""
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    if isinstance(first, dict):
        return {name: merged([(rows, values[name]) for rows, values in parts], n_rows) for name in first}
    kind = object if any(values.dtype == object for _, values in parts) else np.result_type(*[v for _, v in parts])
    out = np.empty((n_rows, *first.shape[1:]), kind)
    for rows, values in parts:
        out[rows] = values
    return out


def log_sum_exp(joint: np.ndarray) -> np.ndarray:
    """Over the last axis; -inf where every term is."""
    top = joint.max(-1)
    safe = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(joint - safe[..., None]).sum(-1))


def posterior(evaluation: Evaluation) -> np.ndarray:
    """Probabilities of a mixture's components given each row and each component around it, (N, K, G).

    Zero for a row that every component excludes. They sum to 1 whatever the log densities: of a row so far away that
    these have no digits left for the logarithm of the sum, its exponential would not do.
    """
    joint = evaluation.joint
    assert joint is not None
    top = joint.max(-1, keepdims=True)
    terms = np.exp(joint - np.where(np.isneginf(top), 0.0, top))
    total = terms.sum(-1, keepdims=True)
    return terms / np.where(total > 0, total, 1.0)


def choose(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column index a row, drawn by the probabilities (N, G)."""
    cumulative = np.cumsum(probabilities, axis=-1)
    u = rng.random(len(cumulative)) * cumulative[:, -1]
    return np.minimum((cumulative <= u[:, None]).sum(-1), cumulative.shape[-1] - 1)
