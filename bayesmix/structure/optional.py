"""Cells whose missingness says something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.data import Column
from bayesmix.families._summaries import Rate, safe_log, safe_log_rest
from bayesmix.mstep import numeric_step
from bayesmix.params import UNIT, Parameter, make_slot
from bayesmix.portraits import Portrait, shares
from bayesmix.spec import Encoded, Evaluation, Node, Observed, Site, add_to, gather, places, spread
from bayesmix.structure.mixture import Mixture
from bayesmix.structure.sequence import cells
from bayesmix.summaries import Sums


@final
class Optional(Node):
    r"""A value that may be missing, with a probability that depends on the component.

    .. math:: f(\text{missing}) = p, \qquad f(x) = (1 - p)\, f_{\text{child}}(x)

    Without it a missing cell is taken as missing at random and says nothing of its row's component.

    Parameters
    ----------
    child : Node
        Family or structure of the values that are present.
    p : prior, or False
        Probability that the cell is missing. Default ``Beta(1 + 2 m, 3 - 2 m)`` with m the share of missing cells
        (half a cell of each kind added): its mode is m, its weight two rows. With False the missingness says nothing,
        as without `Optional`.
    tie : str, optional
        Nodes of one name share their parameters.

    Notes
    -----
    The variable is called ``{field}_p_missing``; the PyMC model observes ``{field}_missing``, 0 or 1. For the elements
    of an optional sequence they are ``{field}_element_p_missing`` and ``{field}_element_missing``.
    M-step: ``p = (Σ r [missing] + alpha - 1) / (Σ r + alpha + beta - 2)``.

    References
    ----------
    Little and Rubin 2019, *Statistical Analysis with Missing Data*, 3rd ed., chapter 15 (not missing at random).

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.Composite(visits=bm.Optional(bm.Geometric()), age=bm.Normal()), 2)
    Mixture(Composite(visits=Optional(Geometric()), age=Normal()), 2)
    """

    learned_type = Rate

    def __init__(self, child: Any, p: Any = None, *, tie: str | None = None):
        self._child = child
        self._informative = p is not False
        self._p = p if self._informative else None
        self.tie = tie

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return (("", self._child),)

    @property
    def priors(self) -> dict[str, Any]:
        return {"p": self._p} if self._informative else {}

    @property
    def options(self) -> dict[str, Any]:
        return {"tie": self.tie, "_informative": self._informative}

    @property
    def shown_options(self) -> list[str]:
        """See `Node.shown_options`."""
        return super().shown_options + ([] if self._informative else ["p=False"])

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Optional:
        return self._changed(_child=parts[0], _p=priors.get("p"))

    def __repr__(self) -> str:
        shown = [] if self._informative else ["p=False"]
        return f"Optional({', '.join([repr(self._child), *shown, *self._shown_priors()])})"

    def faults(self, path: str = "") -> list[str]:
        found = super().faults(path)
        if isinstance(self._p, bool):
            found.append(f"{path}p: a probability, a prior, or False is needed, not {self._p!r}.")
        if self._informative and not found and _is_optional(self._child):
            found.append(f"{path or 'Optional'}: an Optional inside an Optional reads the same cells. Leave one out.")
        return found

    def column_names(self):
        """See `Node.column_names`."""
        return None  # whether a row is missing depends on all columns

    def read(self, table, place, readers):
        gone = table.missing()
        readers.setdefault(place.key, (self, []))[1].append(
            Column(place.path or "data", gone, np.zeros(len(gone), bool), "bool")
        )
        self._child.read_from(table, place.value, readers)

    def summarise(self, column, earlier=None):
        """See `Node.summarise`."""
        return Sums(len(column), column.values.sum())

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`: the share of missing cells, kept off 0 and 1."""
        return Rate((summary.total + 0.5) / (summary.n + 1))

    def assume(self, place):
        """See `Node.assume`."""
        return Rate(0.5)

    def layout(self, place, learned):
        known = self.known(learned, place)
        slots = {}
        if self._informative:
            prior = pm.Beta.dist(1 + 2 * known.mean, 3 - 2 * known.mean)
            name = f"{place.prefix}{place.of_optional('p_missing')}"
            slots["p"] = make_slot(name, place.axes, Parameter(UNIT, prior, "beta"), self._p)
        return Site(self, place, slots, (self._child.lay_out(place.value, learned),), known)

    def encode(self, site, table, unseen):
        gone = table.missing()
        child = site.children[0].encode(table, unseen)
        if gone.any() and not site.children[0].is_leaf:
            child = child.without(gone)  # optional fields inside of what is not there say nothing
        return Encoded(table.n_rows, {"missing": gone}, None, (child,))

    def child_data(self, data):
        return data.children

    def evaluate(self, site, params, data):
        child = site.children[0]
        below = child.evaluate(params, data.children[0])
        total = spread(below.log_density, child.axes, site.axes)
        if self._informative:
            p = site.values(params)["p"]
            with np.errstate(divide="ignore"):
                own = np.where(data.arrays["missing"][:, None], np.log(p), np.log1p(-p))
            total = total + data.full(own, 0.0)  # of rows that are blank nothing is known
        return Evaluation(total, (below,))

    def accumulate(self, site, evaluation, data, resp, stats):
        child = site.children[0]
        own = gather(self._own(site, data, resp, stats), child.axes, site.axes)
        child.accumulate(evaluation.children[0], data.children[0], own, stats)

    def seed(self, site, data, resp, stats, splitter):
        child = site.children[0]
        own = gather(self._own(site, data, resp, stats), child.axes, site.axes)
        child.seed(data.children[0], own, stats, splitter)

    def _own(self, site, data, resp, stats):
        """Responsibilities of the rows that are present; the counts go into `stats`."""
        missing = data.arrays["missing"]
        present = resp * ~data.full(missing, True)[:, None]
        if self._informative:
            known = resp if data.present is None else resp[data.present]
            add_to(
                stats, site.key, {"present": (~missing).astype(float) @ known, "missing": missing.astype(float) @ known}
            )
        return present

    def features(self, site, data):
        points = site.children[0].features(data.children[0])
        if not self._informative:
            return points
        gone = data.arrays["missing"].astype(float)
        share = site.learned.mean
        return np.column_stack([points, data.full((gone - share) / np.sqrt(share * (1 - share)), np.nan)])

    def natural(self, params, learned, xp):
        """Logarithms of the probabilities of being missing and of being there."""
        return {"missing": safe_log(params["p"], xp), "present": safe_log_rest(params["p"], xp)} if params else {}

    def portraits(self, site, params):
        child, path = site.children[0], site.place.path
        lead = "where present" if self._informative else ""
        below = [
            portrait.at(places(child.axes, site.axes)).within(path, lead)
            for portrait in child.node.portraits(child, params)
        ]
        missing = (shares(["missing"], site.values(params)["p"][:, None]),) if self._informative else ()
        return [Portrait(path, type(self).__name__, missing, parts=tuple(below))]

    def plan(self, site, data, plan, into, level):
        out = into if into is not None and into.axes == site.axes else plan.buffer(level, site.axes)
        gone = data.arrays["missing"]
        if self._informative:
            counts = {"missing": gone.astype(float), "present": (~gone).astype(float)}
            plan.linear(site, replace(data, children=()), counts, out, level)
        gone = data.full(gone, True)
        child = site.children[0]
        if child.is_leaf or not gone.any():
            child.node.plan(child, data.children[0], plan, out, level)
        else:
            below = child.node.plan(child, data.children[0], plan, None, level)
            plan.mask(below, gone, level)
            plan.add(below, out)
        return out if into is None or out is into else plan.add(out, into)

    def update(self, site, stats, params):
        if not self._informative or not site.slots["p"].free:
            return {}
        slot, own = site.slots["p"], stats[site.key]
        if slot.hyper is None:
            return numeric_step(site, own, params)
        found = conjugate.probability(slot.priors, own["missing"], own["missing"] + own["present"])
        return {slot.name: slot.of_components(found)}

    def draw(self, site, params, z, rng, labels):
        child = site.children[0]
        values = child.draw(params, places(child.axes, site.axes)[z], rng, labels)
        p = site.values(params)["p"][z] if self._informative else np.full(len(z), site.learned.mean)
        gone = rng.random(len(z)) < p
        if not isinstance(values, dict) and values.dtype.kind == "f" and values.ndim == 1:
            return np.where(gone, np.nan, values)
        out = np.empty(len(z), object)
        out[:] = [None if lost else value for lost, value in zip(gone, cells(self._child, values))]
        return out

    def impute(self, site, params, evaluation, data, z, rng, out):
        child = site.children[0]
        child.impute(params, evaluation.children[0], data.children[0], places(child.axes, site.axes)[z], rng, out)

    def expect(self, site, params, evaluation, data, resp, out):
        child = site.children[0]
        own = gather(resp, child.axes, site.axes)
        child.expect(params, evaluation.children[0], data.children[0], own, out)

    def gaps(self, site, data):
        return site.children[0].gaps(data.children[0])

    def graph(self, site, variables, observed, labels):
        child = site.children[0]
        total = child.graph(variables, observed, labels)[:, places(child.axes, site.axes)]
        if not self._informative:
            return total
        slot = site.slots["p"]
        missing = observed[self.indicator(site)][:, None]
        own = pm.logp(pm.Bernoulli.dist(slot.components(variables[slot.name])), pt.maximum(missing, 0))
        return total + pt.switch(missing < 0, 0.0, own)

    def indicator(self, site: Site) -> str:
        """Name of the observed variable that says which cells are missing."""
        return f"{site.place.observed}_{site.place.of_optional('missing')}"

    def observed(self, site, data):
        yield from site.children[0].observed(data.children[0])
        if self._informative:
            # -1 where the record around is missing
            yield Observed(self.indicator(site), data.full(data.arrays["missing"].astype(np.int64), -1))

    def graph_draw(self, site, variables, z, out, label):
        child = site.children[0]
        child.graph_draw(variables, pt.as_tensor(places(child.axes, site.axes))[z], out, label)
        if not self._informative:
            return
        slot = site.slots["p"]
        gone = pm.Bernoulli.dist(slot.components(variables[slot.name])[z])
        out[self.indicator(site)] = gone
        for leaf in child.leaves():  # marked as missing, as in the observed data
            name = leaf.place.observed
            if ("rows", name) not in out:
                mask = pt.eq(gone, 1).reshape((-1, *[1] * (out[name].ndim - 1)))
                out[name] = pt.switch(mask, np.asarray(leaf.node.mark(leaf.learned), out[name].dtype), out[name])


def _is_optional(node: Node) -> bool:
    """Whether a node, or a component of it, says how often its own cells are missing."""
    if isinstance(node, Optional) and node.priors:
        return True
    same = isinstance(node, (Optional, Mixture))
    return same and any(_is_optional(part) for _, part in node.parts if isinstance(part, Node))
