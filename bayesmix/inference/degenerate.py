"""Warnings of what was found: components that hold a row or none, that are one, or that a prior lets collapse.

Every engine that begins with a mode calls `warn_of_components` there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesmix.bound import Bound
from bayesmix.data import SHOWN
from bayesmix.errors import DegenerateWarning, ImproperWarning, IndistinctWarning, PriorWarning, warn
from bayesmix.inference.spikes import largest_tie, spikes
from bayesmix.params import Params
from bayesmix.plan import Pass
from bayesmix.spec import Encoded, Site, Stats
from bayesmix.structure.mixture import posterior
from bayesmix.symmetry import Symmetry, permuted

#: Rows that a component has at least.
FEW_ROWS = 1.5
#: A prior overrules a component of at least so many rows, and so many for each parameter, if it costs them more nats of
#: log-likelihood than these and one for each parameter.
_ENOUGH_ROWS, _ROWS_A_PARAMETER, _COST = 10, 5, 10.0
#: Share of a component's rows from which they are taken for ties.
_MOSTLY_TIED = 0.5
#: What to do about it.
WAY_OUT = (
    "Default priors take their scale from the whole column: give ones that reach there, or fit the column's logarithm."
)
#: Share of a component's rows that another one claims, below which they are not taken for one.
_OVERLAP = 0.02
#: Rows on which that is found, pairs that are looked at, and iterations that one component in their place gets.
_ROWS, _PAIRS, _ITERATIONS = 5_000, 3, 10


def warn_of_components(e_step: Pass, params: Params, *, improper: bool = True) -> None:
    """Warn of a mode's degenerate components, see the module; of an `improper` posterior where nothing else does."""
    _, stats = e_step(params)
    _warn_of_lone_rows(e_step, stats, params)
    _warn_of_overruled(e_step.bound, stats, params, e_step.data)
    _warn_of_indistinct(e_step, params)
    if improper:
        _warn_of_spikes(e_step, params)


def _warn_of_lone_rows(e_step: Pass, stats: Stats, params: Params) -> None:
    """Warn of components of the root that hold less than a row and a half: they describe no group."""
    bound = e_step.bound
    if not bound.is_mixture or e_step.n_rows < 3:
        return
    held = stats[bound.site.key]["n"].ravel()
    few = np.flatnonzero(held < FEW_ROWS * e_step.largest_weight)
    if len(held) > 1 and len(few):
        resp = bound.responsibilities(params, e_step.data)[:, few[:SHOWN]]
        which = [
            f"component {k} holds {held[k]:.2g} rows"
            + (f" (row {int(own.argmax())})" if own.max() > 0.5 and len(own) == e_step.n_rows else "")
            for k, own in zip(few, resp.T)
        ]
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        warn(
            f"{', '.join(which)}{more}: it describes single rows, not a group. Use fewer components, or look at those "
            "rows: where they are right, one component more keeps them apart.",
            DegenerateWarning,
        )


@dataclass(frozen=True)
class Overruled:
    """Components of one family that a prior holds far from their own rows.

    Attributes
    ----------
    site : Site
    components : tuple of int
        The worst first.
    cost : float
        What the rows of the worst lose of their log-likelihood, in nats.
    numbers : tuple of str
        Its parameters, and what an M-step by the rows alone makes of them.
    """

    site: Site
    components: tuple[int, ...]
    cost: float
    numbers: tuple[str, ...]

    def __str__(self) -> str:
        numbers = f" ({'; '.join(self.numbers)})" if self.numbers else ""
        return f"a prior costs the rows of a component {self.cost:.0f} nats{numbers}"


def overruled(bound: Bound, stats: Stats, params: Params, data: Encoded) -> Iterator[Overruled]:
    """Families whose priors hold a component far from its own rows: what an M-step without them gains over one with.

    Default priors are worth two or three rows of the column's own size. Where a component is a hundredth of that in
    size, those few weigh as much as hundreds of its own rows. Only conjugate priors are looked at. Where most of a
    component's rows are tied they have no spread of their own, and to keep it from 0 is what the prior is for.

    Parameters
    ----------
    bound : Bound
    stats : dict
        Expected statistics of all rows at `params`.
    params : dict
    data : Encoded
        The rows, or a sample of them.
    """
    for site in bound.site.distinct():
        free = {key: slot for key, slot in site.slots.items() if slot.free}
        if not free or "weights" in free or site.key not in stats or any(slot.hyper is None for slot in free.values()):
            continue
        without: dict = {key: replace(slot, hyper=slot.hyper.without()) for key, slot in free.items() if slot.hyper}
        flat = replace(site, slots={**site.slots, **without})
        own = stats[site.key]
        n_rows = _rows_of(own)
        size = sum(slot.n_free for slot in free.values()) / len(n_rows)
        enough = n_rows >= max(_ENOUGH_ROWS, _ROWS_A_PARAMETER * size)
        if not enough.any():
            continue
        try:
            with np.errstate(all="ignore"):
                steps = [each.node.update(each, stats, params) for each in (site, flat)]
                points = [site.values(bound.with_fixed({**params, **step})) for step in steps]
                was, would = (site.node.expected_logp(point, own, site.learned, np) for point in points)
        except np.linalg.LinAlgError:
            continue  # rows that have no spread of their own
        cost = np.where(enough & np.isfinite(would), would - was, 0.0)
        if any(slot.axes != slot.around for slot in free.values()) and (would - was).sum() <= _COST + size:
            continue  # a value that components share is a compromise between them: what one loses another gains
        far = [int(k) for k in np.argsort(-cost) if cost[k] > _COST + size]
        tied = _tied_shares(bound, site, params, data) if far else None
        far = [k for k in far if tied is None or tied[k] < _MOSTLY_TIED]
        if far:
            before, after = ({key: values[key][far[0]] for key in free} for values in points)
            numbers = [
                f"{slot.name} {before[key]:.3g} instead of {after[key]:.3g}"
                for key, slot in free.items()
                if np.ndim(before[key]) == 0 and abs(after[key] - before[key]) > 0.02 * abs(before[key])
            ]
            yield Overruled(site, tuple(far), float(cost[far[0]]), tuple(numbers))


def _tied_shares(bound: Bound, site: Site, params: Params, data: Encoded) -> np.ndarray | None:
    """Of each component's rows (K,), the share that has the most frequent real value; None without ties."""
    if getattr(site.node, "value_dtype", "") != "float64":
        return None
    block = next(own for each, own in bound.site.walk_with(data) if each.key == site.key)
    if (tie := largest_tie(block)) is None:
        return None
    rows = tie[0] if block.present is None else block.present[tie[0]]
    if block.n_rows != data.n_rows:  # elements of sequences
        return np.full(site.n_components, len(rows) / block.n_rows)
    params = bound.with_fixed(params)
    held = []
    for some in (data.take(rows), data):
        _, stats = bound.e_step(params, some, np.ones(some.n_rows))
        held.append(_rows_of(stats[site.key]))
    return held[0] / np.maximum(held[1], 1e-300)


def _rows_of(stats: Any) -> np.ndarray:
    """Rows (K,) behind a family's statistics; without a number of rows these are all counts."""
    counts = [stats["n"]] if "n" in stats else list(stats.values())
    return np.sum([np.asarray(each).reshape(len(each), -1).sum(1) for each in counts], axis=0)


def _warn_of_overruled(bound: Bound, stats: Stats, params: Params, data: Encoded) -> None:
    for each in overruled(bound, stats, params, data):
        which = ", ".join(map(str, each.components[:SHOWN]))
        warn(f"{each.site.place.path or 'data'}: {each} (component {which}). {WAY_OUT}", PriorWarning)


@dataclass(frozen=True)
class Indistinct:
    """Two components of the root in whose place one would do.

    Attributes
    ----------
    components : tuple of int
    loss : float
        Log-likelihood that one in their place has less, in nats.
    called_for : float
        That a second one must gain by the BIC: half the logarithm of the rows' number for each of its parameters.
    """

    components: tuple[int, int]
    loss: float
    called_for: float

    def __str__(self) -> str:
        return (
            f"components {self.components[0]} and {self.components[1]} cannot be told apart: one in their place "
            f"describes the rows as well (its log-likelihood is {max(self.loss, 0):.2g} nats lower, where the BIC asks "
            f"{self.called_for:.2g} of a component)"
        )


def indistinct(e_step: Pass, params: Params) -> Indistinct | None:
    """Two components of the root that the data do not tell apart, if there are any among those that overlap most.

    One component in their place starts from each of them in turn and takes a few EM iterations: what it lacks then is
    at least what it lacks at its mode.

    References
    ----------
    Schwarz 1978, *Annals of Statistics* 6.
    """
    bound = e_step.bound
    for symmetry in bound.symmetries:
        if symmetry.site is not bound.site or symmetry.around:
            continue
        loglik = e_step(params)[0]
        worth = 0.5 * _own_parameters(bound, symmetry) * np.log(max(e_step.row_weights.sum(), 2.0))
        for pair in _overlapping(e_step, params, symmetry):
            needed = loglik - worth
            loss = loglik - max(_as_one(e_step, params, symmetry, pair, kept, needed) for kept in pair)
            if loss < worth:
                members = symmetry.members
                return Indistinct((members[pair[0]], members[pair[1]]), float(loss), float(worth))
    return None


def _overlapping(e_step: Pass, params: Params, symmetry: Symmetry) -> list[tuple[int, int]]:
    """Positions of pairs of components that claim the same rows, those that do most first."""
    bound, data, row_weights = e_step.bound, e_step.data, e_step.row_weights
    if data.n_rows > _ROWS:
        rows = np.sort(np.random.default_rng(0).choice(data.n_rows, _ROWS, replace=False))
        data, row_weights = data.take(rows), row_weights[rows]
    with np.errstate(all="ignore"):
        evaluation = bound.site.evaluate(params, data)
        resp = posterior(evaluation)[:, 0][:, list(symmetry.members)]
    common = resp.T @ (resp * row_weights[:, None])
    held = (resp * row_weights[:, None]).sum(0)
    share = common / np.maximum(np.minimum(held[:, None], held), 1e-300)
    pairs = [(j, k) for _, block in symmetry.blocks() for j in block for k in block if j < k]
    alike = [pair for pair in pairs if share[pair] > _OVERLAP and min(held[list(pair)]) > FEW_ROWS * row_weights.max()]
    return sorted(alike, key=lambda pair: -share[pair])[:_PAIRS]


def _as_one(e_step: Pass, params: Params, symmetry: Symmetry, pair: tuple[int, int], kept: int, needed: float) -> float:
    """Log-likelihood with two copies of one component in the place of a pair; EM leaves copies what they are.

    It ends where the log-likelihood will not be as high as is `needed`, were it to rise as in the last iteration.
    """
    bound = e_step.bound
    order = np.arange(len(symmetry.members))
    order[list(pair)] = kept
    weights = symmetry.weights
    point = {**params, **permuted(bound, symmetry, params, order)}
    if weights.free:
        own = np.array(params[weights.name], float)
        both = [symmetry.members[position] for position in pair]
        own[..., both] = own[..., both].mean(-1, keepdims=True)
        point[weights.name] = own
    best = -np.inf
    with np.errstate(all="ignore"):
        for left in range(_ITERATIONS, 0, -1):
            loglik, stats = e_step(point)
            before, best = best, max(best, loglik) if np.isfinite(loglik) else best
            if np.isfinite(before) and best + left * (best - before) < needed:
                break
            try:
                point = bound.m_step(stats, point)
            except np.linalg.LinAlgError:
                break
    return best


def _own_parameters(bound: Bound, symmetry: Symmetry) -> float:
    """Free numbers that a component of the root adds."""
    own, axis = float(symmetry.weights.free), symmetry.axis
    if axis is not None:
        own += sum(slot.n_free / len(axis) for slot in bound.free_slots.values() if axis in slot.axes)
    return own


def _warn_of_indistinct(e_step: Pass, params: Params) -> None:
    if e_step.bound.is_mixture and (found := indistinct(e_step, params)) is not None:
        n = e_step.bound.site.slots["weights"].shape[-1]
        warn(
            f"{found}. K = {n} is too large for these data: use fewer components; bm.select helps to choose.",
            IndistinctWarning,
        )


def _warn_of_spikes(e_step: Pass, params: Params) -> None:
    """Warn of an improper posterior, where a prior that is not one of the closed forms lets a component collapse."""
    bound = e_step.bound
    given = [slot for slot in bound.free_slots.values() if slot.hyper is None and not slot.depends_on_model]
    if not given or bound.discrete_slots:
        return
    for spike in spikes(bound, e_step.data, params, e_step.row_weights, only={slot.name for slot in given}):
        warn(
            f"{spike} Give {' and '.join(spike.slots)} a prior that vanishes at 0, as the default does, or model the "
            "rounding.",
            ImproperWarning,
        )
