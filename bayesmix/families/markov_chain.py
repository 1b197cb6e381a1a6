"""The Markov chain family: sequences of symbols."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from bayesmix import conjugate
from bayesmix.data import SHOWN, Column, lengths_and_elements, listed, texts
from bayesmix.errors import DataError
from bayesmix.families._summaries import (
    MOST_COLUMNS,
    N_AXES,
    Levels,
    as_levels,
    codes_of,
    counts_of,
    level_faults,
    safe_log,
)
from bayesmix.mstep import numeric_step
from bayesmix.params import SIMPLEX, Dim, Parameter, make_slot
from bayesmix.portraits import Portrait, shares
from bayesmix.spec import Encoded, Evaluation, Gap, Node, Observed, Site, add_to, gather, places, spread
from bayesmix.statistics import OneHot, SparseRows, is_sparse, principal_scores, sums
from bayesmix.structure.sequence import Lengths, count_lengths, draw_lengths
from bayesmix.summaries import Counts, Summary

#: Pairs of symbols above which starts look at the symbols' shares alone.
_MANY_PAIRS = 64
#: Transition probabilities of all components together, at most: EM keeps some tens of copies, 80 MB each.
_MOST = 10**7


@dataclass(frozen=True)
class Chains:
    """The symbols of a column of chains, their frequencies, and how often each length came."""

    levels: tuple
    frequencies: tuple[float, ...]
    lengths: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Symbols(Summary):
    """How often each symbol and each length came."""

    symbols: Counts
    lengths: Counts


@final
class MarkovChain(Node):
    r"""Sequences of symbols, each depending on the one before it.

    .. math:: f(x_1, \ldots, x_n) = g(n)\, \pi_{x_1} \prod_{t=2}^{n} P_{x_{t-1} x_t}, \qquad f(()) = g(0)

    ========  ==================================================
    Support   sequences of symbols of any length, 0 included
    ========  ==================================================

    The symbols are those of the training data; they label the dims ``{field}_symbol`` (of ``initial``),
    ``{field}_from`` and ``{field}_to`` (of ``transition``). Where every sequence is empty, the only symbol is None,
    which no sequence can hold: a longer one that is drawn is itself missing.

    Parameters
    ----------
    initial : prior, optional
        Probabilities of the first symbol, shape (S,). Default ``Dirichlet(1 + 2 f)``, with f the smoothed shares of
        the symbols in the column: worth two symbols.
    transition : prior, optional
        Probabilities of the next symbol given the one before it, rows sum to 1, shape (S, S). Default
        ``Dirichlet(1 + 2 f)`` for every row.
    length : Node, optional
        Family of the length n, for instance ``bm.Poisson()``. Without one the density is conditional on the lengths.
    levels : sequence, optional
        The symbols, in order. By default those of the training column. Dicts of probabilities by symbol (for
        ``transition`` a dict of dicts) name them too.
    tie : str, optional
        Nodes of one name share their parameters.

    Notes
    -----
    M-step: both are proportional to the expected counts plus concentration - 1. A transition of probability zero makes
    the log density -inf. S symbols have S² transitions for each component: of more than 10⁷ in all, a `DataError` says
    what to do.

    References
    ----------
    Anderson and Goodman 1957, *Annals of Mathematical Statistics* 28; Cadez et al. 2003, for mixtures of them.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.Mixture(bm.MarkovChain(length=bm.Poisson()), 2)
    Mixture(MarkovChain(length=Poisson()), 2)
    """

    value_kind = "chain"
    learned_type = Chains

    def __init__(
        self,
        initial: Any = None,
        transition: Any = None,
        length: Any = None,
        *,
        levels: Any = None,
        tie: str | None = None,
    ):
        self.levels = as_levels(levels)
        self._initial = self._named(initial)
        self._transition = self._named(transition)
        self._length = length
        self.tie = tie

    def _named(self, given: Any) -> Any:
        """Probabilities that are given by symbol as an array."""
        if not isinstance(given, Mapping):
            return given
        self.levels = tuple(given) if self.levels is None else self.levels
        rows = [given[symbol] for symbol in self.levels]
        if isinstance(rows[0], Mapping):
            return np.array([[row.get(symbol, 0.0) for symbol in self.levels] for row in rows], float)
        return np.moveaxis(np.array(rows, float), 0, -1)

    @property
    def options(self) -> dict[str, Any]:
        return {"tie": self.tie, "levels": self.levels}

    @classmethod
    def restore(cls, options, priors, parts):
        return cls(**priors, **options, length=dict(parts).get("length"))

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return (("length", self._length),) if self._length is not None else ()

    @property
    def priors(self) -> dict[str, Any]:
        return {"initial": self._initial, "transition": self._transition}

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> MarkovChain:
        return self._changed(
            _initial=priors.get("initial"), _transition=priors.get("transition"), _length=parts[0] if parts else None
        )

    def faults(self, path=""):
        """See `Node.faults`."""
        return [*level_faults(self.levels, path), *super().faults(path)]

    def __repr__(self) -> str:
        shown = self._shown_priors()
        if self.levels is not None:
            shown.append(f"levels={list(self.levels) if isinstance(self.levels, tuple) else self.levels!r}")
        return f"MarkovChain({', '.join(shown + ([f'length={self._length!r}'] if self._length is not None else []))})"

    def read(self, table, place, readers):
        column = table.one(place.path)
        lengths, _ = lengths_and_elements(column, "MarkovChain")
        readers.setdefault(place.key, (self, []))[1].append(column)
        if self._length is not None:
            block = replace(table, columns=(lengths,), named=False)
            self._length.read_from(block, place.lengths, readers)

    def summarise(self, column, earlier=None):
        """See `Node.summarise`: symbols and lengths."""
        lengths, elements = lengths_and_elements(column, "MarkovChain")
        _check_symbols(column, elements, lengths)
        return Symbols(counts_of(elements), count_lengths(lengths))

    def learn_summary(self, summary, name):
        """See `Node.learn_summary`."""
        levels, known = Levels.of(summary.symbols, self.levels), Lengths.of(summary.lengths)
        return Chains(levels.levels, levels.frequencies, known.lengths, known.shares)

    def assume(self, place):
        """See `Node.assume`: the symbols are 0, 1, … where nothing names them."""
        levels = tuple(range(np.shape(self._initial)[-1])) if self.levels is None else self.levels
        return Chains(levels, (1 / len(levels),) * len(levels), (0,), (1.0,))

    def fixed_at(self, site, params):
        """See `Node.fixed_at`."""
        return super().fixed_at(site, params)._changed(levels=site.learned.levels)

    def layout(self, place, learned):
        known = self.known(learned, place)
        size, n_components = len(known.levels), place.n_components
        if n_components * size**2 > _MOST:
            raise DataError(
                f"{place.path or 'data'}: a MarkovChain of {size:,} symbols has {size**2:,} transition "
                f"probabilities for each of {n_components} components; {_MOST:,} are the most in all. Give rare "
                "symbols one name, take fewer components, or use bm.Sequence(bm.Categorical()), which has one "
                "probability a symbol."
            )
        one = pm.Dirichlet.dist(1 + 2 * np.array(known.frequencies))
        symbol, source, target = (Dim(f"{place.prefix}{name}", known.levels) for name in ("symbol", "from", "to"))
        parameters = {
            "initial": Parameter(SIMPLEX, one, "dirichlet", (symbol,)),
            "transition": Parameter(SIMPLEX, one, "dirichlet", (source, target)),
        }
        slots = {
            name: make_slot(f"{place.prefix}{name}", place.axes, parameter, self.priors[name])
            for name, parameter in parameters.items()
        }
        children = ()
        if self._length is not None:
            children = (self._length.lay_out(place.lengths, learned),)
        return Site(self, place, slots, children, known)

    def encode(self, site, table, unseen):
        column = table.one(site.place.path)
        lengths, elements = lengths_and_elements(column, "MarkovChain")
        _check_symbols(column, elements, lengths)
        levels = site.learned.levels
        codes = codes_of(elements, levels)
        owner = np.repeat(np.arange(len(column)), lengths.values)
        missing = column.missing.copy()
        if (codes < 0).any():
            if unseen != "ignore":
                first: dict[int, Any] = {}
                for at in np.flatnonzero(codes < 0):
                    first.setdefault(int(owner[at]), elements.values[at])
                rows = [f"row {row} has {symbol!r}" for row, symbol in list(first.items())[:SHOWN]]
                raise DataError(
                    f"{column.name}: {listed(rows, len(first), 'rows')}, which the fitted data did not have. "
                    'Pass unseen="ignore" to treat such rows as missing, or fit again with them.'
                )
            missing[owner[codes < 0]] = True
            codes = np.maximum(codes, 0)
        pairs = sum(max(n - 1, 0) * share for n, share in zip(site.learned.lengths, site.learned.shares))
        arrays = _arrays(codes, lengths.values.astype(np.int64), owner, len(levels), is_sparse(len(levels) ** 2, pairs))
        children = ()
        if self._length is not None:
            children = (site.children[0].encode(replace(table, columns=(lengths,), named=False), unseen),)
        if not missing.any():
            return Encoded(len(column), arrays, None, children)
        present = np.flatnonzero(~missing)
        return Encoded(len(column), {name: array[present] for name, array in arrays.items()}, present, children)

    def child_data(self, data):
        return data.children

    def evaluate(self, site, params, data):
        values = site.values(params)
        initial, transition = values["initial"], values["transition"].reshape(site.n_components, -1)
        first, counts = data.arrays["first"], data.arrays["counts"]
        with np.errstate(divide="ignore"):
            density = np.where(first[:, None] >= 0, np.log(initial).T[first], 0.0)
            logs = np.log(transition)
        impossible = np.isneginf(logs)
        density = density + counts @ np.where(impossible, 0.0, logs).T
        if impossible.any():
            density = np.where(counts @ impossible.T > 0, -np.inf, density)
        total = data.full(density, 0.0)
        below = tuple(child.evaluate(params, block) for child, block in zip(site.children, data.children))
        for child, each in zip(site.children, below):
            total = total + spread(each.log_density, child.axes, site.axes)
        return Evaluation(total, below, values=values)

    def accumulate(self, site, evaluation, data, resp, stats):
        self._count(site, data, resp, stats)
        for child, below, block in zip(site.children, evaluation.children, data.children):
            child.accumulate(below, block, gather(resp, child.axes, site.axes), stats)

    def seed(self, site, data, resp, stats, splitter):
        self._count(site, data, resp, stats)
        for child, block in zip(site.children, data.children):
            child.seed(block, gather(resp, child.axes, site.axes), stats, splitter)

    def _count(self, site, data, resp, stats):
        present = resp if data.present is None else resp[data.present]
        size = len(site.learned.levels)
        first = data.arrays["first"]
        begun = first >= 0
        initial = [np.bincount(first[begun], weights=column[begun], minlength=size) for column in present.T]
        transition = sums(data.arrays["counts"], present).reshape(-1, size, size)
        add_to(stats, site.key, {"initial": np.array(initial).reshape(-1, size), "transition": transition})

    def features(self, site, data):
        """Shares of the pairs of neighbours (of the symbols where there are many pairs) on a common scale."""
        size = len(site.learned.levels)
        counts = data.arrays["counts"]
        if size * size > _MANY_PAIRS:
            counts = _without_targets(counts, size)
        total, of_column = counts.sum(1), counts.sum(0)
        share = (of_column + 0.5) / (of_column.sum() + 0.5 * counts.shape[1])
        at_least = np.maximum(total, 1)
        if isinstance(counts, SparseRows) and counts.size > MOST_COLUMNS:
            points = principal_scores(counts, 1 / np.sqrt(share), 1 / np.sqrt(at_least), np.sqrt(total), N_AXES)
        else:
            points = (np.asarray(counts) - total[:, None] * share) / np.sqrt(at_least[:, None] * share)
        parts = [data.full(points, np.nan)]
        parts += [child.features(block) for child, block in zip(site.children, data.children)]
        return np.column_stack(parts)

    def natural(self, params, learned, xp):
        """Logarithms of the probabilities; the statistics are counts of first symbols and of pairs."""
        return {"initial": safe_log(params["initial"], xp), "transition": safe_log(params["transition"], xp)}

    def portraits(self, site, params):
        values, levels = site.values(params), texts(site.learned.levels)
        first = shares([f"first {level}" for level in levels], values["initial"])
        steps = values["transition"]
        moves = shares([f"{a} → {b}" for a in levels for b in levels], steps.reshape(len(steps), -1))
        below = [
            portrait.at(places(child.axes, site.axes)).within(site.place.lengths.path, "length")
            for child in site.children
            for portrait in child.node.portraits(child, params)
        ]
        return [Portrait(site.place.path, type(self).__name__, (first, moves), parts=tuple(below))]

    def plan(self, site, data, plan, into, level):
        counts = {
            "initial": OneHot(data.arrays["first"], len(site.learned.levels)),
            "transition": data.arrays["counts"],
        }
        out = plan.linear(site, data, counts, into, level)
        for child, block in zip(site.children, data.children):
            child.node.plan(child, block, plan, out, level)
        return out

    def update(self, site, stats, params):
        own = stats[site.key]
        free = {name: slot for name, slot in site.slots.items() if slot.free}
        if any(slot.hyper is None for slot in free.values()):
            return numeric_step(site, own, params)
        return {
            slot.name: slot.of_components(conjugate.probabilities(slot.priors, own[name]))
            for name, slot in free.items()
        }

    def draw(self, site, params, z, rng, labels):
        if self._length is not None:
            child = site.children[0]
            lengths = child.draw(params, places(child.axes, site.axes)[z], rng, labels).astype(int)
        else:
            lengths = rng.choice(site.learned.lengths, len(z), p=site.learned.shares)
        values = site.values(params)
        initial, transition = values["initial"].cumsum(-1), values["transition"].cumsum(-1)
        codes = np.zeros((len(z), max(lengths.max(initial=0), 1)), int)
        for t in range(lengths.max(initial=0)):
            cumulative = initial[z] if t == 0 else transition[z, codes[:, t - 1]]
            codes[:, t] = (cumulative[:, :-1] < (rng.random(len(z)) * cumulative[:, -1])[:, None]).sum(1)
        levels = site.learned.levels
        out = np.empty(len(z), object)
        out[:] = [[levels[code] for code in row[:n]] for row, n in zip(codes.tolist(), lengths.tolist())]
        if levels == (None,):
            out[lengths > 0] = None  # of which symbols, nobody knows
        return out

    def impute(self, site, params, evaluation, data, z, rng, out):
        rows = data.missing_rows()
        if len(rows):
            out[site.place.path] = self.draw(site, params, z[rows], rng, {})

    def expect(self, site, params, evaluation, data, resp, out):
        pass  # a sequence of symbols has no mean

    def gaps(self, site, data):
        rows = data.missing_rows()
        if len(rows):
            yield Gap(site.place.path, rows, site)

    def graph(self, site, variables, observed, labels):
        values = {name: slot.components(variables[slot.name]) for name, slot in site.slots.items()}
        codes = observed[site.place.observed]
        first, before, after = codes[:, 0], codes[:, :-1], codes[:, 1:]
        start = pt.log(values["initial"])[:, pt.maximum(first, 0)]
        steps = pt.log(values["transition"])[:, pt.maximum(before, 0), pt.maximum(after, 0)]
        total = pt.switch(first >= 0, start, 0.0).T + pt.switch(after >= 0, steps, 0.0).sum(-1).T
        for child in site.children:
            total = total + child.graph(variables, observed, labels)[:, places(child.axes, site.axes)]
        return total

    def observed(self, site, data):
        lengths = data.arrays["length"]
        codes = np.full((data.n_rows, max(int(lengths.max(initial=0)), 1)), -1, np.int32)
        rows = range(data.n_rows) if data.present is None else data.present.tolist()
        for row, own in zip(rows, data.arrays["codes"]):
            codes[row, : len(own)] = own
        steps = Dim(f"{site.place.observed}_step" if site.place.path else "step", tuple(range(codes.shape[1])))
        yield Observed(site.place.observed, codes, dims=(steps,), shapes=True)
        if site.children:
            yield from (replace(each, shapes=True) for each in site.children[0].observed(data.children[0]))
        else:
            yield Observed(site.place.lengths.observed, data.full(lengths, -1), shapes=True)

    def graph_draw(self, site, variables, z, out, label):
        draw_lengths(site, variables, z, out, label)
        lengths = out["table", site.place.lengths.observed]
        values = {key: slot.components(variables[slot.name]) for key, slot in site.slots.items()}
        initial, transition = pt.cumsum(values["initial"], -1)[z], pt.cumsum(values["transition"], -1)
        steps = out["table", site.place.observed].shape[1]
        uniform = pm.Uniform.dist(0.0, 1.0, shape=(steps, z.shape[0]))

        def choose(cumulative, u):
            return pt.lt(cumulative[:, :-1], (u * cumulative[:, -1])[:, None]).sum(1)

        begin = choose(initial, uniform[0])
        following = pytensor.scan(
            lambda u, before, z, transition: choose(transition[z, before], u),
            sequences=[uniform[1:]],
            outputs_info=[begin],
            non_sequences=[z, transition],
            strict=True,
            return_updates=False,
        )
        codes = pt.concatenate([begin[None], following]).T
        out[site.place.observed] = pt.switch(pt.arange(steps) < lengths[:, None], codes, -1)


def _without_targets(counts: Any, size: int) -> Any:
    """How often a symbol is followed by any, (N, S), from counts of pairs (N, S²)."""
    if isinstance(counts, SparseRows):
        return replace(counts, indices=counts.indices // size, size=size)  # an entry may come in parts
    return counts.reshape(-1, size, size).sum(2)


def _arrays(codes: np.ndarray, lengths: np.ndarray, owner: np.ndarray, size: int, few: bool) -> dict[str, Any]:
    """First symbol (-1 where empty), counts of pairs (N, S²), lengths, and the symbols themselves of each row.

    `few` says whether most counts are 0, and only the others kept.
    """
    n_rows = len(lengths)
    starts = np.cumsum(lengths) - lengths
    first = np.full(n_rows, -1)
    first[lengths > 0] = codes[starts[lengths > 0]]
    same = owner[1:] == owner[:-1]
    pair = owner[1:][same] * (size * size) + codes[:-1][same] * size + codes[1:][same]
    counts: Any
    if few:
        found, times = np.unique(pair, return_counts=True)
        indptr = np.searchsorted(found, np.arange(n_rows + 1) * (size * size))
        counts = SparseRows(indptr, (found % (size * size)).astype(np.int32), size * size, times.astype(float))
    else:
        counts = np.bincount(pair, minlength=n_rows * size * size).reshape(n_rows, size * size).astype(float)
    rows = np.empty(n_rows, object)
    rows[:] = np.split(codes, np.cumsum(lengths)[:-1]) if n_rows else []
    return {"first": first, "counts": counts, "length": lengths, "codes": rows}


def _check_symbols(column: Column, elements: Column, lengths: Column) -> None:
    if elements.kind == "object":
        strange = [not gone and not isinstance(each, Hashable) for each, gone in zip(elements.values, elements.missing)]
        rows = np.unique(np.repeat(np.arange(len(column)), lengths.values)[strange])
        if len(rows):
            shown = [f"row {row} holds {column.values[row]!r}" for row in rows[:SHOWN]]
            raise DataError(
                f"{column.name}: MarkovChain needs hashable symbols; {listed(shown, len(rows), 'rows')}. "
                "Make tuples of lists."
            )
    if elements.missing.any():
        at = int(np.flatnonzero(elements.missing)[0])
        row = int(np.searchsorted(np.cumsum(lengths.values), at, side="right"))
        raise DataError(
            f"{column.name}: row {row} has a missing symbol at place {at - lengths.values[:row].sum()}; "
            "MarkovChain needs whole sequences. Drop it, give it its own symbol, or mark the whole row missing (None)."
        )
