"""Two mixtures whose labels depend on each other."""

from __future__ import annotations

from typing import Any, cast, final

from bayesmix.spec import signature
from bayesmix.structure.composite import Composite, is_keyword
from bayesmix.structure.mixture import Mixture


@final
class JointMixture(Mixture):
    r"""Pairs of fields, each a mixture, whose labels are linked by a transition matrix.

    .. math:: f(x, y) = \sum_{k=1}^{K} w_k F_k(x) \sum_{m=1}^{M} \tau_{km} G_m(y)

    The same model as ``Mixture(Composite(x=F, y=Mixture(G, M, shared=True)), K)``, with names of its own:
    ``weights (x_component)``, ``transition (x_component, y_component)``, ``x_…`` and ``y_…``.

    Parameters
    ----------
    weights, transition : prior, optional
        Of the first field's components, shape (K,), and of the second's given the first's, shape (K, M). Default
        ``Dirichlet(2, …, 2)``.
    tie : str, optional
    **fields : tuple of (Node, int)
        Two fields by name, each with the spec of its components and their number; the second may have a list of specs
        instead, different ones. The labels of the second depend on those of the first.

    Notes
    -----
    A table with one of the two fields missing is predicted from the other: ``fit.responsibilities(data, of="y")`` gives
    P(label of y | what is observed), and ``fit.impute(data)`` draws and means of the missing field.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.JointMixture(x=(bm.Normal(), 3), y=(bm.Sequence(bm.Normal()), 2))
    JointMixture(x=(Normal(), 3), y=(Sequence(Normal()), 2))
    """

    def __init__(self, *, weights: Any = None, transition: Any = None, tie: str | None = None, **fields: Any):
        if len(fields) != 2:
            raise TypeError(f"JointMixture takes two fields, such as x=(bm.Normal(), 3); it got {len(fields)}.")
        parts = {}
        for name, given in fields.items():
            if isinstance(given, list):
                given = (given, None)
            if not isinstance(given, tuple) or len(given) != 2:
                raise TypeError(f"{name}: a spec and a number of components are needed, such as (bm.Normal(), 3).")
            parts[name] = given
        (first, (outer, k)), (second, (inner, m)) = parts.items()
        linked = Mixture(inner, m, weights=transition, shared=True).named(weights="transition")
        if isinstance(outer, list):
            if len({signature(each) for each in outer}) != 1:
                raise TypeError(f"{first}: components of different kinds stand in the second field; change the order.")
            outer, k = outer[0], len(outer)
        super().__init__(Composite({first: outer, second: linked}), k, weights=weights, tie=tie)
        self._axis = f"{first}_component"

    def __repr__(self) -> str:
        (first, outer), (second, inner) = self.component.parts
        linked = cast(Mixture, inner)
        inners = [node for _, node in linked.parts]
        x = f"({outer!r}, {self.n_components})"
        y = repr(inners) if linked._listed else f"({inners[0]!r}, {linked.n_components})"
        if is_keyword(first) and is_keyword(second):
            shown = [f"{first}={x}", f"{second}={y}", *self._shown_priors()]
        else:
            shown = [f"**{{{first!r}: {x}, {second!r}: {y}}}", *self._shown_priors()]
        shown += [text.replace("weights", "transition", 1) for text in linked._shown_priors()]
        return f"JointMixture({', '.join(shown)})"
