"""What components are like, in figures that people read: what `Fit.describe` makes its sentences of.

A family says what is typical of its components as `Traits`, K first like all parameters; a structure puts the
`Portrait`s of what is below it together. A portrait belongs to one field and has K columns, one for each component of
the site's axes; with the draws of a posterior stacked in front, (S, K).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesmix.data import texts


@dataclass(frozen=True)
class Traits:
    """Figures of one kind.

    Attributes
    ----------
    form : {"location", "count", "scale", "share", "value"}
        What differences between components are measured in: spreads of the field, square roots of counts, ratios,
        probabilities, or not at all.
    names : tuple of str
        J of them, such as ``("mean",)`` or the symbols.
    values : ndarray, shape (K, J), or (S, K, J) for S draws
    """

    form: str
    names: tuple[str, ...]
    values: np.ndarray


def location(name: str, values: Any) -> Traits:
    """A typical value of each component, (K,), in the field's units."""
    return Traits("location", (name,), np.asarray(values, float)[:, None])


def scale(name: str, values: Any) -> Traits:
    """A spread of each component, (K,), > 0."""
    return Traits("scale", (name,), np.asarray(values, float)[:, None])


def value(name: str, values: Any) -> Traits:
    """Any other figure, (K,)."""
    return Traits("value", (name,), np.asarray(values, float)[:, None])


def shares(names: Sequence[Any], values: Any) -> Traits:
    """Probabilities of things by name, (K, J)."""
    return Traits("share", tuple(texts(names)), np.asarray(values, float))


@dataclass(frozen=True)
class Portrait:
    """One field, or a part of it, in each of K components.

    Attributes
    ----------
    path : str
        The field, as errors call it.
    what : str
        Class of the node, so that figures of one kind are compared.
    traits : tuple of Traits
    lead : str
        What part of the field it is: ``"length"``, ``"elements"``; empty for all of it.
    parts : tuple of Portrait
        More that is true of every row.
    kinds : tuple of (Traits, tuple of Portrait)
        Of a mixture inside: the share of each of its components, and what those are like.
    common : tuple of (str, tuple of Portrait)
        Components that those around share, by name, each with one column; they are described once.
    """

    path: str
    what: str
    traits: tuple[Traits, ...] = ()
    lead: str = ""
    parts: tuple[Portrait, ...] = ()
    kinds: tuple[tuple[Traits, tuple[Portrait, ...]], ...] = ()
    common: tuple[tuple[str, tuple[Portrait, ...]], ...] = ()

    def at(self, columns: np.ndarray) -> Portrait:
        """The portrait of these of its components."""
        return replace(
            self,
            traits=tuple(_at(each, columns) for each in self.traits),
            parts=tuple(part.at(columns) for part in self.parts),
            kinds=tuple((_at(share, columns), tuple(p.at(columns) for p in below)) for share, below in self.kinds),
        )

    def within(self, path: str, lead: str) -> Portrait:
        """The portrait as a part of the field `path`: what its own path has more is put before what it says."""
        more = self.path[len(path) :].lstrip(".") if self.path.startswith(path) else ""
        return replace(self, lead=" ".join(word for word in (lead, more, self.lead) if word))


def _at(traits: Traits, columns: np.ndarray) -> Traits:
    return replace(traits, values=np.take(traits.values, columns, axis=-2))


def stacked(portraits: Sequence[Portrait]) -> Portrait:
    """The same portrait at several draws as one, with the draws first."""
    first = portraits[0]
    return replace(
        first,
        traits=tuple(map(_stacked, zip(*(each.traits for each in portraits)))),
        parts=tuple(map(stacked, zip(*(each.parts for each in portraits)))),
        kinds=tuple(
            (_stacked([kind[0] for kind in kinds]), tuple(map(stacked, zip(*(kind[1] for kind in kinds)))))
            for kinds in zip(*(each.kinds for each in portraits))
        ),
        common=tuple(
            (shared[0][0], tuple(map(stacked, zip(*(each[1] for each in shared)))))
            for shared in zip(*(each.common for each in portraits))
        ),
    )


def _stacked(traits: Sequence[Traits]) -> Traits:
    return replace(traits[0], values=np.stack([each.values for each in traits]))


def everyone(portrait: Portrait, visit: Callable[[Portrait], None]) -> None:
    """Visit a portrait and all inside it."""
    visit(portrait)
    for part in portrait.parts:
        everyone(part, visit)
    for _, below in (*portrait.kinds, *portrait.common):
        for each in below:
            everyone(each, visit)
