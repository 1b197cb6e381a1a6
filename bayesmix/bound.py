"""A spec bound to what was learned from a table: everything that needs parameters, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from bayesmix.data import SHOWN, Table, index_of, listed, read
from bayesmix.errors import DataError, DegenerateWarning, SpecError, gather_faults, warn
from bayesmix.params import SIMPLEX, UNIT, Params, Place, Slot
from bayesmix.sources import source_of
from bayesmix.spec import Encoded, Learned, Node, Readers, Site, Stats, validate
from bayesmix.statistics import SparseRows, weighted_sum
from bayesmix.threads import alone
from bayesmix.ties import warn_of_ties


@dataclass(frozen=True)
class Bound:
    """A spec with named slots and resolved priors.

    Attributes
    ----------
    spec : Node
    site : Site
        Root of the tree of sites.
    learned : dict
        What each node learned from its column, by site key.
    columns : tuple of str
        Names of the fitted table's columns, of a spec that takes them by their places; empty where there are none.
    """

    spec: Node
    site: Site
    learned: Learned
    columns: tuple[str, ...] = ()

    @property
    def slots(self) -> dict[str, Slot]:
        """Every slot by name, in tree order."""
        return {slot.name: slot for slot in self.site.all_slots()}

    @property
    def free_slots(self) -> dict[str, Slot]:
        """The slots that are estimated."""
        return {name: slot for name, slot in self.slots.items() if slot.free}

    @property
    def sampled_slots(self) -> dict[str, Slot]:
        """The slots that are variables of the PyMC model: the free ones but for discrete ones, which it sums out."""
        return {name: slot for name, slot in self.free_slots.items() if not slot.discrete}

    @property
    def discrete_slots(self) -> dict[str, Slot]:
        """The free slots of finitely many values."""
        return {name: slot for name, slot in self.free_slots.items() if slot.discrete}

    @cached_property
    def symmetries(self) -> list[Any]:
        """See `bayesmix.symmetry.symmetries`."""
        from bayesmix.symmetry import symmetries

        return symmetries(self)

    def held(self, params: Params) -> Bound:
        """The same with the slots in `params` fixed at those values."""
        return replace(self, site=_held(self.site, params))

    def encode(self, data: Any, unseen: str = "error") -> Encoded:
        """Validated arrays of any table the spec reads. Raises `DataError`."""
        if unseen not in ("error", "ignore"):
            raise ValueError(f'unseen: "error" or "ignore" is needed, not {unseen!r}.')
        table = read(data)
        if table.n_rows == 0:
            raise DataError("data: the table has no rows. Pass at least one.")
        return self.site.encode(self.in_order(table)[0], unseen)

    def in_order(self, table: Table) -> tuple[Table, list[int]]:
        """The columns that the spec reads, where it finds them by the fitted table's names, and their positions."""
        if not self.columns:
            return table, list(range(len(table.columns)))
        return table.of_names(self.columns, "data"), table.positions_of(self.columns, "data")

    def with_fixed(self, params: Params) -> dict[str, np.ndarray]:
        """`params` with the fixed slots' constants added."""
        fixed = {name: slot.value for name, slot in self.slots.items() if slot.kind == "fixed"}
        return {**fixed, **params}

    def log_density(self, params: Params, data: Encoded) -> np.ndarray:
        """Log density of each row with the labels summed out, shape (N,)."""
        return self.site.evaluate(params, data).log_density[:, 0]

    def responsibilities(self, params: Params, data: Encoded) -> np.ndarray:
        """Posterior probabilities of the outermost mixture's components, (N, K)."""
        from bayesmix.structure.mixture import posterior

        self.require_mixture()
        return posterior(self.site.evaluate(params, data))[:, 0]

    def label_probabilities(self, params: Params, data: Encoded) -> dict[tuple[str, str], np.ndarray]:
        """The same for every mixture of the tree, by its path and the name of its weights; (N, G), N its own rows."""
        return {key: value.sum(1) for key, value in self.joint_label_probabilities(params, data).items()}

    def joint_label_probabilities(self, params: Params, data: Encoded) -> dict[tuple[str, str], np.ndarray]:
        """Probabilities of a component of every mixture and of the components around it together: (N, K, G)."""
        evaluation = self.site.evaluate(params, data)
        out: dict[Any, np.ndarray] = {}
        self.site.expect(params, evaluation, data, np.ones((data.n_rows, 1)), out)
        return {key[1:]: value for key, value in out.items() if isinstance(key, tuple)}

    def require_mixture(self) -> None:
        """Raise `SpecError` unless the root is a mixture."""
        if not self.is_mixture:
            raise SpecError(
                f"the root of the spec is {type(self.spec).__name__}, which has no components to tell apart. "
                "Wrap it in bm.Mixture."
            )

    @property
    def is_mixture(self) -> bool:
        """Whether the root has components."""
        return "weights" in self.site.slots

    def e_step(self, params: Params, data: Encoded, row_weights: np.ndarray) -> tuple[float, Stats]:
        """Log-likelihood and expected sufficient statistics, by the walks; `bayesmix.plan.EStep` is the fast way."""
        evaluation = self.site.evaluate(params, data)
        stats: Stats = {}
        self.site.accumulate(evaluation, data, row_weights[:, None], stats)
        return float(weighted_sum(evaluation.log_density[:, 0], row_weights)), stats

    def m_step(self, stats: Stats, params: Params) -> dict[str, np.ndarray]:
        """Parameters that maximise the expected log posterior."""
        new = dict(params)
        for site in self.site.distinct():
            new.update(site.node.update(site, stats, params))
        return new

    def log_prior(self, params: Params) -> float:
        """Log density of the declared PyMC variables, without Jacobians of their transforms."""
        return sum(slot.log_prior(params[name]) for name, slot in self.free_slots.items())


def _held(site: Site, params: Params) -> Site:
    slots = {
        key: replace(slot, kind="fixed", value=np.asarray(params[slot.name], float)) if slot.name in params else slot
        for key, slot in site.slots.items()
    }
    return replace(site, slots=slots, children=tuple(_held(child, params) for child in site.children))


@alone
def bind(spec: Node, table: Table) -> Bound:
    """Bind a spec to a table.

    Raises
    ------
    SpecError
        Lists every fault of the spec.
    DataError
        Lists every fault of the table.
    """
    validate(spec)
    spec = spec.plain()
    if table.n_rows == 0:
        raise DataError("data: the table has no rows. Pass at least one.")
    readers: Readers = {}
    learned: Learned = {}

    def steps() -> Iterator[Callable[[], None]]:
        yield partial(spec.read_from, table, Place(), readers)
        for key, (node, columns) in readers.items():
            if columns:  # they could be read
                yield partial(_learn, learned, key, node, columns)

    gather_faults(steps())
    return bind_learned(spec, learned, table.names if table.named else ())


def _learn(learned: Learned, key: str, node: Any, columns: list) -> None:
    learned[key] = node.learn(columns)


def _names_to_find(spec: Node, columns: Sequence[str]) -> tuple[str, ...]:
    """Names by which a new table's columns are put in order, for a spec that does not name them itself.

    Drawn tables call columns x1, x2, …: where some of the fitted table are called so, in other places, places decide.
    """
    drawn = [f"x{j + 1}" for j in range(len(columns))]
    if spec.column_names() is not None or (set(columns) & set(drawn) and list(columns) != drawn):
        return ()
    return tuple(columns)


@alone
def bind_learned(spec: Node, learned: Learned, columns: Sequence[str] = ()) -> Bound:
    """Bind a spec to what was learned before (as a saved fit does), of a table with these columns."""
    bound = Bound(spec, spec.lay_out(Place(), learned), learned, _names_to_find(spec, columns))
    names = [slot.name for slot in bound.site.all_slots()]
    names += list(dict.fromkeys(leaf.place.observed for leaf in bound.site.leaves()))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError([f"{name}: two variables would have this name. Rename the field." for name in twice])
    dims = {"row"}.union(*(slot.dims for slot in bound.site.all_slots()))
    taken = sorted({leaf.place.observed for leaf in bound.site.leaves()} & dims)
    if taken:
        raise SpecError([f"{name}: a dimension of the results has this name. Rename the field." for name in taken])
    return bound


def prepare(spec: Node, data: Any, row_weights: Any) -> tuple[Table, Bound, Encoded, np.ndarray, np.ndarray | None]:
    """What every engine begins with: the table, the bound spec, the encoded rows, and the rows' weights.

    The weights come twice: as an array (ones where none were given), and as given (None where none were).

    Raises
    ------
    SpecError, DataError
        Everything that is wrong with the spec or the data, listed together.
    """
    if (source := source_of(data)) is not None:
        raise DataError(
            f"data: {source.name} is read in parts, which this engine cannot do: fit_em, fit_map, "
            "fit_online, fit_laplace and fit_nuts can. Pass a table "
            "that fits in memory, such as a sample of the rows."
        )
    table = read(data)
    bound = bind(spec, table)
    encoded = bound.encode(table)
    weights = check_row_weights(row_weights, encoded.n_rows, index=table.index)
    check_rows(bound, encoded, weights)
    warn_of_ties(bound.site, encoded, table.names[0] if len(table.names) == 1 else "data")
    return table, bound, encoded, weights, None if row_weights is None else weights


def require_free(bound: Bound, method: str) -> None:
    """Raise `SpecError` where every parameter is fixed, or has one possible value (the weight of one component)."""
    if not any(slot.n_free for slot in bound.free_slots.values()):
        raise SpecError(
            f'every parameter is fixed or has one possible value: nothing for "{method}" to estimate. '
            'Use method="em" to evaluate it.'
        )


def check_enough(bound: Bound, n_rows: int) -> None:
    """Raise `DataError` where a mixture has more components than rows."""
    if bound.is_mixture and n_rows < (n_components := len(bound.site.slots["weights"].event[0])):
        raise DataError(
            f"data: {n_components} components but only {n_rows} rows. Use n_components of at most {n_rows}."
        )


def check_rows(bound: Bound, data: Encoded, row_weights: np.ndarray | None = None) -> None:
    """Raise `DataError` where a mixture has more components than rows, or fixed probabilities leave no room for a row.

    Warns where there are more components than distinct rows.
    """
    own = np.arange(data.n_rows)
    if row_weights is not None and not row_weights.all():
        own = np.flatnonzero(row_weights)
        data = data.take(own)
    _check_possible(bound, data, own)
    if not bound.is_mixture:
        return
    check_enough(bound, data.n_rows)
    n_components = len(bound.site.slots["weights"].event[0])
    distinct = count_distinct(data, n_components)
    if distinct < n_components:
        warn(
            f"data: {n_components} components but only {distinct} distinct row{'s' if distinct > 1 else ''}: "
            f"components are then copies of each other. Use n_components of at most {distinct}.",
            DegenerateWarning,
        )


def _check_possible(bound: Bound, data: Encoded, rows: np.ndarray) -> None:
    """Raise `DataError` where fixed probabilities of 0 and 1 give a row density zero, whatever the others are."""
    fixed = [slot for slot in bound.slots.values() if slot.kind == "fixed" and slot.support in (SIMPLEX, UNIT)]
    several = [slot for slot in fixed if slot.support is UNIT or slot.shape[-1] > 1]
    zeros = [slot.name for slot in several if (slot.value * (1 - slot.value) == 0).any()]
    free = bound.free_slots
    if (
        not zeros
        or bound.discrete_slots
        or any(slot.depends_on_model or slot.kind == "tensor" for slot in bound.slots.values())
    ):
        return
    with np.errstate(all="ignore"):
        density = bound.log_density(bound.with_fixed({name: slot.central_value() for name, slot in free.items()}), data)
    never = rows[density == -np.inf]
    if len(never):
        where = listed([f"row {row}" for row in never[:SHOWN]], len(never), "rows")
        raise DataError(
            f"{where}: impossible under every component, as probabilities of 0 or 1 are fixed ({', '.join(zeros)}). "
            "Give what occurs a small probability, or leave the rows out."
        )


def count_distinct(data: Encoded, enough: int) -> int:
    """Number of distinct rows, counted no further than `enough`."""
    seen: set[tuple] = set()
    step = 1024
    for begin in range(0, data.n_rows, step):
        block = data.take(np.arange(begin, min(begin + step, data.n_rows)))
        seen.update(_row_keys(block))
        if len(seen) >= enough:
            break
    return len(seen)


def _row_keys(data: Encoded) -> list[tuple]:
    """For each row something hashable that equal rows have in common."""
    parts: list[list] = []
    for name in ("value", "codes", "length", "missing"):
        if isinstance(array := data.arrays.get(name), SparseRows):
            rows, marks = data.full(array, 0), np.full(data.n_rows, True)
            marks[data.missing_rows()] = False
            ends = zip(rows.indptr, rows.indptr[1:], marks)
            parts.append(
                [rows.indices[i:j].tobytes() + rows.entries[i:j].tobytes() if on else None for i, j, on in ends]
            )
        elif array is not None:
            own = [
                np.asarray(value).tobytes() for value in np.asarray(data.arrays[name]) + (0 if name == "codes" else 0.0)
            ]
            full: list[Any] = [None] * data.n_rows
            for row, key in zip(range(data.n_rows) if data.present is None else data.present, own):
                full[row] = key
            parts.append(full)
    for child in data.children:
        keys = _row_keys(child)
        if child.n_rows != data.n_rows:  # the elements of sequences
            ends = np.cumsum(data.lengths)  # type: ignore[attr-defined]
            keys = [tuple(keys[begin:end]) for begin, end in zip([0, *ends[:-1]], ends)]
        parts.append(keys)
    return list(zip(*parts))


def check_row_weights(
    row_weights: Any, n_rows: int, name: str = "row_weights", index: np.ndarray | None = None
) -> np.ndarray:
    """Row weights as float64 (N,), ones (of no memory) where None. Raises `DataError`.

    `index` holds the labels of the table's rows, which a pandas series must have in that order if it has any.
    """
    if row_weights is None:
        return np.broadcast_to(1.0, n_rows)
    try:
        given = np.asarray(row_weights)
        if given.dtype.kind in "SU" or (given.dtype == object and any(isinstance(w, (str, bytes)) for w in given.flat)):
            raise TypeError  # numpy would make numbers of text
        weights = np.asarray(row_weights, float)
    except (TypeError, ValueError):
        raise DataError(f"{name}: numbers are needed, not {row_weights!r}. Give one weight a row.") from None
    if weights.shape != (n_rows,):
        raise DataError(f"{name}: shape {weights.shape} for {n_rows} rows. Give one weight a row.")
    if index is not None and isinstance(row_weights, pd.Series):
        _check_labels(name, row_weights, index)
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{name}: row {row} is {weights[row]}; weights are finite and >= 0. Drop the row instead.")
    if not weights.any():
        raise DataError(f"{name}: all weights are 0. Give at least one row a weight.")
    return weights


def _check_labels(name: str, weights: pd.Series, rows: np.ndarray) -> None:
    """Raise `DataError` where weights have labels, and not those of their rows: they are taken by place."""
    if weights.index.equals(pd.RangeIndex(len(rows))):
        return
    labels: tuple[Any, Any] = (index_of(weights), rows)
    own, known = (pd.Index(each, tupleize_cols=False) for each in labels)
    pairs = zip(own.tolist(), known.tolist())
    differing = () if own.equals(known) else (i for i, (a, b) in enumerate(pairs) if a != b)
    if (row := next(iter(differing), None)) is None:
        return
    mine, its = (each.tolist()[row] for each in (own, known))
    what = "the table's labels in another order" if set(own) == set(known) else "other labels than the table's"
    raise DataError(
        f"{name}: its index has {what}; row {row} is {mine!r}, where the table has {its!r}. Align it, as with "
        "weights.loc[table.index], or pass weights.to_numpy() to take weights by place."
    )
