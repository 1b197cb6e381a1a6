"""Mixtures of mixtures that have their components in common."""

from __future__ import annotations

from typing import Any, cast, final

from bayesmix.structure.mixture import Mixture
from bayesmix.structure.sequence import Sequence


@final
class HierarchicalMixture(Mixture):
    r"""Sequences whose elements come from topics, in proportions that differ between kinds of sequences.

    .. math:: f(x_1, \ldots, x_n) = g(n) \sum_{m=1}^{M} w_m \prod_{j=1}^{n} \sum_{k=1}^{K} \tau_{mk} f_k(x_j)

    The same model as ``Mixture(Sequence(Mixture(topic, K, shared=True), length), M)``, with names of its own:
    ``weights (mixture)``, ``topic_weights (mixture, topic)``, and ``topic_…`` for the topics' parameters.

    Parameters
    ----------
    topic : Node or list of Node
        Family or structure of the elements; a list of K of them where they differ.
    n_topics : int, optional
        K. Not with a list.
    n_mixtures : int
        M.
    weights, topic_weights : prior, optional
        Of the kinds of sequences, shape (M,), and of the topics in each, shape (M, K). Default ``Dirichlet(2, …, 2)``.
    length : Node, optional
        Family of the sequences' length. See `Sequence`.
    tie : str, optional

    Notes
    -----
    Weights count sequences, not elements: a long sequence is one observation of its kind.

    References
    ----------
    The case of categorical topics is a mixture of unigrams' topic model with M profiles; Blei, Ng and Jordan 2003,
    section 4, for its relatives.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.HierarchicalMixture(bm.Normal(), n_topics=3, n_mixtures=4)
    HierarchicalMixture(Normal(), n_topics=3, n_mixtures=4)
    """

    def __init__(
        self,
        topic: Any,
        n_topics: int | None = None,
        n_mixtures: int = 2,
        *,
        weights: Any = None,
        topic_weights: Any = None,
        length: Any = None,
        tie: str | None = None,
    ):
        inner = Mixture(topic, n_topics, weights=topic_weights, shared=True)
        inner = inner.named(axis="topic", weights="topic_weights", prefix="topic_")
        super().__init__(Sequence(inner, length), n_mixtures, weights=weights, tie=tie)
        self._axis = "mixture"

    @property
    def topics(self) -> Mixture:
        """The inner mixture."""
        return cast(Mixture, self.component.parts[0][1])

    def __repr__(self) -> str:
        inner = self.topics
        topic = [node for _, node in inner.parts]
        shown = [repr(topic if inner._listed else topic[0])]
        shown += [] if inner._listed else [f"n_topics={inner.n_components}"]
        shown += [f"n_mixtures={self.n_components}", *self._shown_priors()]
        shown += [f"topic_{text}" for text in inner._shown_priors()]
        shown += [f"length={node!r}" for name, node in self.component.parts if name == "length"]
        return f"HierarchicalMixture({', '.join(shown)})"
