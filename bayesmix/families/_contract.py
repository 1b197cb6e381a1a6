"""The leaf contract: what one file says about one family. The first page to read.

A family is a frozen dataclass whose fields are its parameters' priors, with the methods below. All arrays have
rows N first in data and components K first in parameters; a family never sees mixtures, sequences, missing
cells or row weights. `Leaf` turns the methods into the walks of `spec`. A class that misses a method fails
when it is made. The methods from `suff_stats` to `filler` have defaults that most families keep.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesmix.conjugate import Conjugate
from bayesmix.data import Column, Table, texts
from bayesmix.errors import DataError
from bayesmix.mstep import numeric_step
from bayesmix.params import Dim, Parameter, Params, Place, make_slot
from bayesmix.portraits import Portrait, Traits, location, shares
from bayesmix.spec import Encoded, Evaluation, Gap, Labeller, Learned, Node, Observed, Readers, Site, Stats, add_to
from bayesmix.statistics import SparseRows, sums

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, repr=False, eq=False)
class Leaf(Node):
    """A family of distributions.

    Parameters
    ----------
    tie : str, optional
        Nodes of one name share their parameters: one set of them, wherever the nodes stand.

    Attributes
    ----------
    value_ndim : int
        0 where a row holds a number or a symbol, 1 where it holds a vector.
    value_dtype : str
        ``"float64"`` or ``"int64"``: of encoded values. Missing is NaN or -1 in a PyMC model's observed data.
    value_kind : str
        ``"real"``, ``"count"``, ``"truth"``, ``"symbol"`` or ``"set"``: what a summary of cells makes sense of.
    expects_ties : bool
        Whether a value that many rows share is what a family of real numbers is made for.
    partly_missing : bool
        Whether a vector may lack some of its coordinates; they are NaN in its values.
    learned_type : type
        The frozen dataclass that `learn_column` returns. Its ``scale``, where it has one, is the unit in which starts
        and accelerated steps measure the column: a number, or one for each coordinate.
    """

    tie: str | None = field(default=None, kw_only=True)

    is_family = True
    value_ndim: ClassVar[int] = 0
    value_dtype: ClassVar[str] = "float64"
    value_kind: ClassVar[str] = "real"
    partly_missing: ClassVar[bool] = False
    learned_type: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        missing = sorted(name for name in CONTRACT if getattr(cls, name, None) is getattr(Leaf, name, None))
        if cls.summarise is not Leaf.summarise:  # instead of learn_column
            missing = [name for name in missing if name != "learn_column"]
        if missing:
            raise TypeError(f"{cls.__name__} misses {', '.join(missing)} of the leaf contract.")

    # ------------------------------------------------------------ the contract

    def learn_column(self, column: Column) -> Any:
        """What must be known of the training column ever after: levels, a reference point, a scale.

        Raises `DataError` where the column is not of this family's kind. The result is a frozen dataclass of
        numbers, tuples and strings. A family may say it in two steps instead, `summarise` and `learn_summary`, so that
        tables larger than memory need not keep their cells for it.
        """
        return self.learn_summary(self.summarise(column), column.name)

    @abstractmethod
    def parameters(self, learned: Any, prefix: str, n_components: int) -> dict[str, Parameter]:
        """Support, event dims and default prior of each parameter; `n_components` is K."""

    @abstractmethod
    def encode_column(self, column: Column, learned: Any) -> Arrays:
        """Validated arrays of all rows, with what can be precomputed; what is in missing rows means nothing.

        ``"value"`` is what PyMC's density takes: (N,) or (N, D). An optional ``"unknown"`` (N,) marks cells that
        training never saw. Raises `DataError` where a present cell is not of this family's kind.
        """

    @abstractmethod
    def decode(self, values: np.ndarray, learned: Any) -> np.ndarray:
        """Encoded values (any shape) back as the user's own: symbols, counts, numbers."""

    @abstractmethod
    def log_density(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Our own formula: (N, K)."""

    @abstractmethod
    def pymc_dist(self, params: Mapping[str, Any]) -> Any:
        """The PyMC distribution at `params`, any batch shape, never a Python list of components.

        Where a row's value has more axes than the distribution's own support, they are independent.
        """

    @abstractmethod
    def row_statistics(self, data: Arrays, learned: Any) -> dict[str, np.ndarray]:
        """What the log density is linear in: name -> (N,) or (N, J), the constant 1 included where it has weight.

        A `bayesmix.statistics.OneHot`, `Products` or `SparseRows` stands for a matrix that need not be written out.
        With `natural`, ``log f(x_n; θ_k) = Σ_names row_statistics · natural``: the exponential family's form. Sums
        over rows that could cancel are taken about the learned reference point.
        """

    @abstractmethod
    def natural(self, params: Mapping[str, Any], learned: Any, xp: Any) -> dict[str, Any]:
        """Natural parameters by the names of `row_statistics`: (K,) or (K, J).

        `xp` is numpy or pytensor.tensor; with the latter the numbers in `learned` may be tensors too.
        """

    @abstractmethod
    def map_step(
        self, stats: Arrays, priors: Mapping[str, Conjugate], params: Arrays, learned: Any
    ) -> dict[str, np.ndarray]:
        """Closed-form maximiser of ``expected_logp + log prior``.

        `priors` holds the free parameters, all of the declared conjugate kinds; those not in it are fixed at
        their value in `params`, the current point.
        """

    @abstractmethod
    def sample(self, params: Arrays, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One encoded value a row from component ``z[n]``, in row order."""

    @abstractmethod
    def mean(self, params: Arrays) -> np.ndarray:
        """Mean of each component, (K,) or (K, D); for symbols the probabilities (K, S)."""

    @abstractmethod
    def embed(self, data: Arrays, learned: Any) -> np.ndarray:
        """Rows as points (N, F) on a common scale, for starting values."""

    def suff_stats(self, data: Arrays, resp: np.ndarray, learned: Any) -> dict[str, np.ndarray]:
        """Additive statistics under `resp` (N, K): sums of `row_statistics`, K first."""
        return {name: sums(value, resp) for name, value in self.row_statistics(data, learned).items()}

    def expected_stats(
        self, params: Arrays | None, data: Arrays, resp: np.ndarray, learned: Any
    ) -> dict[str, np.ndarray]:
        """`suff_stats`, with what is missing of a value replaced by its expectation at `params` (None: at a start).

        A family whose answer depends on `params` raises `NotLinear` in `plan` where its data make it so.
        """
        return self.suff_stats(data, resp, learned)

    def collapsed(self, params: Arrays, learned: Any) -> np.ndarray:
        """Components that have shrunk onto a point, (K,) of bool: their density has no upper bound."""
        return np.zeros(len(next(iter(params.values()))), bool)

    def moment_estimator(self, site: Site, data: Arrays, row_weights: np.ndarray) -> Any:
        """How a mixture of this family alone is estimated from moments: a `bayesmix.moments.estimator.Estimator`.

        None where there is no such way. `data` are the rows that are present, `row_weights` (N,) their weights > 0.
        Raises `SpecError` where there is a way, but not for what is free, shared and fixed at this site.
        """
        return None

    def independent_columns(self, learned: Any) -> list[np.ndarray] | None:
        """Columns of the stacked `row_statistics` by parts of a row that are independent given the component.

        None where a row is one such part. For moments of a composite's fields.
        """
        return None

    def traits(self, params: Arrays, learned: Any) -> list[Traits]:
        """Figures that say to people what is typical of each component, (K, J) each, the most telling first.

        By default the `mean`: of numbers itself, of vectors by coordinate, of symbols the probabilities.
        """
        mean = np.asarray(self.mean(params), float)
        if mean.ndim == 1:
            return [location("mean", mean)]
        if hasattr(learned, "levels"):
            return [shares(learned.levels, mean)]
        (across,) = self.value_dims(learned, "") or (Dim("", tuple(range(mean.shape[1]))),)
        return [Traits("location", tuple(f"mean of {label}" for label in texts(across.labels)), mean)]

    def value_dims(self, learned: Any, prefix: str) -> tuple[Dim, ...]:
        """Named axes of one row's value: none, or the coordinates of a vector."""
        return ()

    def unseen_part(self, value: Any, learned: Any) -> Any:
        """What of a cell that `encode_column` calls unknown training never saw: the cell, or a part of it."""
        return value

    def mark(self, learned: Any) -> Any:
        """What stands in missing cells of a model's observed data: NaN, or, in whole numbers, this or less."""
        return np.nan if self.value_dtype == "float64" else -1

    def filler(self, learned: Any) -> Any:
        """A value inside the support, which stands in missing cells of PyMC graphs."""
        return 1

    # ------------------------------------------------------------ what the contract gives for free

    @property
    def parts(self) -> tuple[tuple[str, Node], ...]:
        return ()

    @property
    def priors(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.options}

    def with_priors(self, priors: Mapping[str, Any], parts: tuple[Node, ...]) -> Node:
        return self._changed(**priors)

    @classmethod
    def restore(cls, options: Mapping[str, Any], priors: Mapping[str, Any], parts: list[tuple[str, Node]]) -> Node:
        return cls(**priors, **options)

    def __repr__(self) -> str:
        others = {name: value for name, value in self.options.items() if name != "tie" and value is not None}
        shown = [f"{name}={list(value) if isinstance(value, tuple) else value!r}" for name, value in others.items()]
        return f"{type(self).__name__}({', '.join(self._shown_priors() + shown)})"

    def read(self, table: Table, place: Place, readers: Readers) -> None:
        readers.setdefault(place.key, (self, []))[1].append(self._column(table, place.path))

    def learn_summary(self, summary: Any, name: str) -> Any:
        return self.learn_column(replace(summary.column(), name=name))

    def layout(self, place: Place, learned: Learned) -> Site:
        known = self.known(learned, place)
        slots = {
            name: make_slot(f"{place.prefix}{name}", place.axes, parameter, self.priors[name])
            for name, parameter in self.parameters(known, place.prefix, place.n_components).items()
        }
        return Site(self, place, slots, (), known)

    def encode(self, site: Site, table: Table, unseen: str) -> Encoded:
        column = self._column(table, site.place.path)
        arrays = dict(self.encode_column(column, site.learned))
        missing = column.missing
        unknown = arrays.pop("unknown", np.zeros(len(missing), bool)) & ~missing
        if unknown.any():
            if unseen != "ignore":
                found = column.at(unknown, partial(self._unseen, site.learned), "")
                raise DataError(
                    f"{column.name}: {found}, which the fitted data did not have. "
                    'Pass unseen="ignore" to treat such cells as missing, or fit again with them.'
                )
            missing = missing | unknown
        if not missing.any():
            return Encoded(len(missing), arrays)
        present = np.flatnonzero(~missing)
        return Encoded(len(missing), {name: array[present] for name, array in arrays.items()}, present)

    def _unseen(self, learned: Any, value: Any) -> str:
        part = self.unseen_part(value, learned)
        return f"is {value!r}" if part is value else f"holds {part!r}"

    def _column(self, table: Table, path: str) -> Column:
        if not self.value_ndim:
            return table.one(path)
        return table.vector(path, type(self).__name__, partly=self.partly_missing)

    def child_data(self, data: Encoded) -> tuple[Encoded, ...]:
        return ()

    def independent_fields(self, site: Site, data: Encoded) -> list[tuple[Site, Encoded]]:
        return [(site, data)]

    def update(self, site: Site, stats: Stats, params: Params) -> dict[str, np.ndarray]:
        own = stats[site.key]
        free = {name: slot for name, slot in site.slots.items() if slot.free}
        if not free:
            return {}
        if any(slot.hyper is None for slot in free.values()):
            discrete = {name: slot for name, slot in free.items() if slot.discrete}
            if not discrete:
                return numeric_step(site, own, params)
            positions: dict[str, Any] = {name: slot.priors for name, slot in discrete.items()}
            found = self.map_step(own, positions, site.values(params), site.learned)
            chosen = {slot.name: slot.of_components(found[name]) for name, slot in discrete.items()}
            return {**chosen, **numeric_step(site, own, {**params, **chosen})}
        priors: dict[str, Any] = {name: slot.priors for name, slot in free.items()}
        found = self.map_step(own, priors, site.values(params), site.learned)
        return {slot.name: slot.of_components(found[name]) for name, slot in free.items()}

    def evaluate(self, site: Site, params: Params, data: Encoded) -> Evaluation:
        values = site.values(params)
        return Evaluation(data.full(self.log_density(values, data.arrays), 0.0), values=values)

    def accumulate(self, site: Site, evaluation: Evaluation | None, data: Encoded, resp: Any, stats: Stats) -> None:
        present = resp if data.present is None else resp[data.present]
        values = None if evaluation is None else evaluation.values
        add_to(stats, site.key, self.expected_stats(values, data.arrays, present, site.learned))

    def seed(self, site: Site, data: Encoded, resp: np.ndarray, stats: Stats, splitter: Any) -> None:
        self.accumulate(site, None, data, resp, stats)

    def features(self, site: Site, data: Encoded) -> np.ndarray:
        return data.full(self.embed(data.arrays, site.learned), np.nan)

    def draw(self, site: Site, params: Params, z: np.ndarray, rng: np.random.Generator, labels: dict) -> Any:
        return self.decode(self.sample(site.values(params), z, rng), site.learned)

    def impute(
        self, site: Site, params: Params, evaluation: Evaluation, data: Encoded, z: np.ndarray, rng: Any, out: dict
    ) -> None:
        rows = data.missing_rows()
        if len(rows):
            out[site.place.path] = self.decode(self.sample(site.values(params), z[rows], rng), site.learned)

    def expect(
        self, site: Site, params: Params, evaluation: Evaluation, data: Encoded, resp: np.ndarray, out: dict
    ) -> None:
        rows = data.missing_rows()
        if len(rows):
            means = self.mean(site.values(params))
            out[site.place.path] = out.get(site.place.path, 0.0) + resp[rows] @ means

    def gaps(self, site: Site, data: Encoded) -> Iterator[Gap]:
        rows = data.missing_rows()
        if len(rows):
            yield Gap(site.place.path, rows, site)

    def portraits(self, site: Site, params: Params) -> list[Portrait]:
        return [Portrait(site.place.path, type(self).__name__, tuple(self.traits(site.values(params), site.learned)))]

    def graph(
        self, site: Site, variables: Mapping[str, Any], observed: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> Any:
        value = observed[site.place.observed]
        missing = pt.isnan(value) if self.value_dtype == "float64" else pt.le(value, self.mark(site.learned))
        row_missing = missing.any(axis=-1) if self.value_ndim else missing
        # PyMC's densities must not see the mark of a missing cell: it is replaced by a value inside the support
        filled = pt.switch(missing, np.asarray(self.filler(site.learned), self.value_dtype), value)
        return pt.switch(row_missing[:, None], 0.0, self.pymc_logp(self._flat_variables(site, variables), filled))

    def pymc_logp(self, params: Mapping[str, Any], value: Any) -> Any:
        """PyMC's log density (N, K) at encoded values (N, ...): `log_density`, borrowed."""
        dist = self.pymc_dist(params)
        independent = self.value_ndim - dist.owner.op.ndim_supp
        log_density = pm.logp(dist, value[:, None])
        return log_density.sum(tuple(range(-independent, 0))) if independent else log_density

    def observed(self, site: Site, data: Encoded) -> Iterator[Observed]:
        values = data.arrays["value"]
        if isinstance(values, SparseRows):
            values = data.full(values, 0).marked(data.missing_rows(), self.mark(site.learned))
        else:
            values = data.full(np.asarray(values, self.value_dtype), self.mark(site.learned))
        yield Observed(site.place.observed, values, dims=site.value_dims)

    def graph_draw(self, site: Site, variables: Mapping[str, Any], z: Any, out: dict, label: Labeller) -> None:
        params = {name: value[z] for name, value in self._flat_variables(site, variables).items()}
        out[site.place.observed] = self.pymc_dist(params)

    def plan(self, site: Site, data: Encoded, plan: Any, into: Any, level: int) -> Any:
        return plan.linear(site, data, partial(self.row_statistics, learned=site.learned), into, level)

    def _flat_variables(self, site: Site, variables: Mapping[str, Any]) -> dict[str, Any]:
        return {name: slot.components(variables[slot.name]) for name, slot in site.slots.items()}


#: The methods that every family must write.
CONTRACT = (
    "learned_type",
    "learn_column",
    "parameters",
    "encode_column",
    "decode",
    "log_density",
    "pymc_dist",
    "row_statistics",
    "natural",
    "map_step",
    "sample",
    "mean",
    "embed",
)
