"""Mixtures: one of several components for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.kernels.log_sum_exp import LogSumExp
from bayesmix.mstep import numeric_step
from bayesmix.params import SIMPLEX, Parameter, make_slot
from bayesmix.spec import Evaluation, Node, Site


@final
class Mixture(Node):
    r"""A finite mixture: each row comes from one of K components, which one is not observed.

    .. math:: f(x) = \sum_{k=1}^{K} w_k f_k(x)

    Parameters
    ----------
    component : Node
        Family or structure of every component. A mixture may stand in it, at any depth.
    n_components : int
        K, at least 1.
    weights : prior, optional
        Probabilities of the components, shape (K,). Default ``Dirichlet(2, …, 2)``: worth one row a component,
        and zero where a component is empty.

    Notes
    -----
    The axis of the components is the dim ``component`` (with the field's name before it inside a composite).
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

    def __init__(self, component: Any, n_components: int, *, weights: Any = None):
        self._component = component
        self._n = n_components
        self._weights = weights

    @property
    def component(self) -> Node:
        """The spec of one component."""
        return self._component

    @property
    def n_components(self) -> int:
        """K."""
        return self._n

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return (("", self._component),)

    @property
    def priors(self) -> dict[str, Any]:
        return {"weights": self._weights}

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Mixture:
        return Mixture(parts[0], self._n, weights=priors["weights"])

    def faults(self, path: str = "") -> list[str]:
        found = []
        if isinstance(self._n, bool) or not isinstance(self._n, (int, np.integer)) or self._n < 1:
            found.append(f"{path}n_components: a whole number of at least 1 is needed, not {self._n!r}.")
        return found + super().faults(path)

    def __repr__(self) -> str:
        return f"Mixture({', '.join([repr(self._component), str(self._n), *self._shown_priors()])})"

    def learn(self, table, place, learned):
        self._component.learn(table, place.component_place(self._n), learned)

    def layout(self, place, learned):
        below = place.component_place(self._n)
        prior = pm.Dirichlet.dist(np.full(self._n, 2.0))
        parameter = Parameter(SIMPLEX, prior, "dirichlet", (below.axes[-1],))
        weights = make_slot(place.name("weights"), place.axes, parameter, self._weights)
        return Site(self, place, {"weights": weights}, (self._component.layout(below, learned),))

    def encode(self, site, table, unseen):
        return site.children[0].encode(table, unseen)

    def child_data(self, data):
        return (data,)

    def evaluate(self, site, params, data):
        below = site.children[0].evaluate(params, data)
        with np.errstate(divide="ignore"):
            log_weights = np.log(site.values(params)["weights"])
        joint = below.log_density.reshape(-1, *log_weights.shape) + log_weights
        return Evaluation(log_sum_exp(joint), (below,), joint)

    def accumulate(self, site, evaluation, data, resp, stats):
        inner = resp[:, :, None] * posterior(evaluation)
        stats[site.key] = {"n": inner.sum(0)}
        site.children[0].accumulate(evaluation.children[0], data, inner.reshape(len(resp), -1), stats)

    def seed(self, site, data, resp, stats, splitter):
        child = site.children[0]
        points = child.node.features(child, data)
        inner = np.stack([splitter(points, r, self._n) * r[:, None] for r in resp.T], axis=1)
        stats[site.key] = {"n": inner.sum(0)}
        child.node.seed(child, data, inner.reshape(len(resp), -1), stats, splitter)

    def features(self, site, data):
        child = site.children[0]
        return child.node.features(child, data)

    def expected_logp(self, params, stats, learned, xp):
        """Expected log probability of the labels, for the numeric M-step."""
        seen = stats["n"] > 0
        return (stats["n"] * xp.log(xp.where(seen, params["weights"], 1.0))).sum(-1)

    def update(self, site, stats, params):
        slot = site.slots["weights"]
        if not slot.free:
            return {}
        if slot.hyper is None:
            return numeric_step(site, stats[site.key], params)
        return {slot.name: conjugate.probabilities(slot.hyper, stats[site.key]["n"]).reshape(slot.shape)}

    def draw(self, site, params, z, rng, out):
        weights = site.values(params)["weights"]
        child = site.children[0]
        out[site.key] = choose(weights[z], rng)
        child.node.draw(child, params, z * self._n + out[site.key], rng, out)

    def impute(self, site, params, evaluation, data, z, rng, out):
        child = site.children[0]
        chosen = choose(posterior(evaluation)[np.arange(len(z)), z], rng)
        out[site.key] = chosen
        child.node.impute(child, params, evaluation.children[0], data, z * self._n + chosen, rng, out)

    def graph(self, site, variables, values):
        child = site.children[0]
        return self._sum_out(site, variables, child.node.graph(child, variables, values))

    def linear_blocks(self, site, data):
        child = site.children[0]
        return child.node.linear_blocks(child, data)

    def linear_graph(self, site, variables, blocks):
        child = site.children[0]
        return self._sum_out(site, variables, child.node.linear_graph(child, variables, blocks))

    def _sum_out(self, site, variables, density):
        log_weights = pt.log(variables[site.slots["weights"].name].ravel())
        return LogSumExp(int(self._n))(density + log_weights)[0]

    def graph_draw(self, site, variables, z, out):
        child = site.children[0]
        slot = site.slots["weights"]
        weights = slot.components(variables[slot.name])
        label = pm.Categorical.dist(weights[z])
        child.node.graph_draw(child, variables, z * self._n + label, out)


def log_sum_exp(joint: np.ndarray) -> np.ndarray:
    """Over the last axis; -inf where every term is."""
    top = joint.max(-1)
    safe = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(joint - safe[..., None]).sum(-1))


def posterior(evaluation: Evaluation) -> np.ndarray:
    """Probabilities of a mixture's components given each row and each component around it, (N, K, G).

    Zero for a row that every component excludes.
    """
    total = evaluation.log_density
    return np.exp(evaluation.joint - np.where(np.isneginf(total), 0.0, total)[..., None])


def choose(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column index a row, drawn by the probabilities (N, G)."""
    cumulative = np.cumsum(probabilities, axis=-1)
    u = rng.random(len(cumulative)) * cumulative[:, -1]
    return np.minimum((cumulative <= u[:, None]).sum(-1), cumulative.shape[-1] - 1)
