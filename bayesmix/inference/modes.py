"""The modes that EM found: which they are, and what each of them weighs.

Two runs stand at one mode if they give every row the same density: that is blind to the order of components, at any
depth of the tree. A mode weighs what its Laplace approximation does, so that a high but narrow one need not be the
heaviest. `Scout` decides which starts, beyond those that EM finishes anyway, are worth finishing to find others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import pandas as pd

from bayesmix.bound import Bound
from bayesmix.params import Params
from bayesmix.relabel import in_canonical_order
from bayesmix.spec import Encoded

#: Rows, evenly spaced, by whose densities two points are compared.
_ROWS = 500
#: Two converged runs stand at one mode: root mean square difference of the rows' log densities, and of the objective.
_SAME = (0.02, 0.1)
#: A run that was not finished is on its way to a mode.
_NEAR = (0.05, 0.5)
#: Beyond the best few, starts are followed that promise to end at most so many nats below the best.
_WITHIN = 10.0
#: Tables of more rows have no second mode worth the time: what tells modes apart grows with every row.
_MOST_ROWS = 20_000
#: Modes of a larger share of the posterior's mass are spoken of.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Mode:
    """A mode of the posterior, one of its copies under relabelling.

    Attributes
    ----------
    params : dict
        Parameter name -> array, components in canonical order.
    log_posterior : float
        Log-likelihood plus log prior of the declared variables, in nats.
    loglik : float
    starts : int
        How many of EM's starts reached it, or were near it when they were given up.
    share_of_starts : float
    log_mass : float
        Log of the integral of the normal approximation there, in nats (see `bayesmix.inference.laplace.log_mass`). NaN:
        there is none, or it was not asked for. -inf: in unconstrained coordinates this is no mode of its own.
    weight : float
        Its share of the mass of all modes that were found.
    """

    params: dict[str, np.ndarray]
    log_posterior: float
    loglik: float
    starts: int
    share_of_starts: float
    log_mass: float = math.nan
    weight: float = math.nan


class Modes(Sequence[Mode]):
    """The modes that EM found, highest log posterior first: a sequence of `Mode`, which prints as a table.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(m, 1, 30) for m in (-8, -4, 4, 8)])
    >>> modes = bm.fit(bm.Mixture(bm.Normal(), 3), x, random_seed=1).modes
    >>> len(modes)
    2
    >>> modes.table["below"].round(1).tolist()
    [0.0, 2.5]
    """

    def __init__(self, modes: Iterable[Mode]):
        self._modes = tuple(modes)

    @overload
    def __getitem__(self, index: int) -> Mode: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Mode, ...]: ...
    def __getitem__(self, index: int | slice) -> Mode | tuple[Mode, ...]:
        return self._modes[index]

    def __len__(self) -> int:
        return len(self._modes)

    @property
    def table(self) -> pd.DataFrame:
        """One row a mode: its numbers, and how many nats it lies ``below`` the highest."""
        highest = max((mode.log_posterior for mode in self), default=math.nan)
        rows = [
            {
                "log_posterior": mode.log_posterior,
                "below": highest - mode.log_posterior,
                "starts": mode.starts,
                "share_of_starts": mode.share_of_starts,
                "log_mass": mode.log_mass,
                "weight": mode.weight,
            }
            for mode in self
        ]
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="mode"))

    @property
    def heavy(self) -> tuple[Mode, ...]:
        """The modes that carry more than 1 % of the mass, heaviest first.

        One whose mass is not known counts if it lies less than log 100 nats below the highest.
        """
        if not self._modes:
            return ()
        highest = max(mode.log_posterior for mode in self)

        def weight(mode: Mode) -> float:
            return math.exp(mode.log_posterior - highest) if math.isnan(mode.weight) else mode.weight

        return tuple(sorted((mode for mode in self if weight(mode) > LEAST_WEIGHT), key=weight, reverse=True))

    def describe(self) -> str:
        """One sentence on the modes that carry weight; empty where there is one."""
        others = self.heavy[1:]
        if not others:
            return ""
        first = self.heavy[0]

        def one(mode: Mode) -> str:
            height = f"log posterior {mode.log_posterior - first.log_posterior:+.1f}"
            return f"{height}, weight {mode.weight:.0%}" if not math.isnan(mode.weight) else height

        which = f"{len(others)} other modes carry" if len(others) > 1 else "another mode carries"
        return f"{which} weight ({'; '.join(one(mode) for mode in others[:3])}): see fit.modes"

    def __repr__(self) -> str:
        return f"{len(self)} mode{'s' * (len(self) != 1)}\n{self.table.to_string(float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.4g}".format)


class Fingerprints:
    """Compares points of the parameters by the log densities of some rows, which relabelling does not change."""

    def __init__(self, bound: Bound, data: Encoded, row_weights: np.ndarray):
        self.bound = bound
        rows = np.flatnonzero(row_weights)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int))]
        self.data = data if len(rows) == data.n_rows else data.take(rows)

    def __call__(self, params: Params) -> np.ndarray:
        """Log densities of the rows."""
        return np.nan_to_num(self.bound.log_density(params, self.data), neginf=-1e6, posinf=1e6)

    def of(self, run: Any) -> np.ndarray:
        """The same of a run's point, computed once."""
        if run.fingerprint is None or run.fingerprint[0] is not run.params:
            run.fingerprint = (run.params, self(run.params))
        return run.fingerprint[1]

    def alike(self, a: Any, b: Any, limits: tuple[float, float]) -> bool:
        """Whether two runs stand at one point, up to relabelling and within limits."""
        if abs(a.objective - b.objective) > limits[1]:
            return False
        return self.distance(a, b) < limits[0]

    def distance(self, a: Any, b: Any) -> float:
        """Root mean square difference of the rows' log densities at two runs' points."""
        return float(np.sqrt(np.mean((self.of(a) - self.of(b)) ** 2)))


class Scout:
    """Which starts are worth finishing after the best few: those that may end at a mode that nobody reached.

    Such a start promises to end within ten nats of the best, by what it gained last (Aitken). It goes on ten iterations
    at a time, and is given up where it comes near a point that another start ended at. On tables of more than 20,000
    rows nothing is spent.

    Parameters
    ----------
    bound, data, row_weights
        See `Fingerprints`.
    share : float
        Iterations that may be spent so, as a share of those that were spent before.
    onward : callable
        Takes a run and a number of iterations to advance it by; returns what it can still gain, in nats.
    """

    def __init__(
        self, bound: Bound, data: Encoded, row_weights: np.ndarray, share: float, onward: Callable[[Any, int], float]
    ):
        self.share = share if data.n_rows <= _MOST_ROWS else 0.0
        self.onward = onward
        self.fingerprints = Fingerprints(bound, data, row_weights)
        self.budget: float | None = None

    def next(self, runs: Sequence[Any]) -> Any:
        """A run that converged where none of the finished ones did; None where there is none, or nothing to spend."""
        finished = [run for run in runs if run.finished and not run.failed]
        if self.budget is None:
            self.budget = self.share * sum(run.n_iterations for run in runs)
        least = max((run.objective for run in finished), default=np.inf) - _WITHIN
        rest = [run for run in runs if not run.finished and not run.failed and not run.near]
        # those that have settled first: they cost least, and are modes most likely
        for can_gain, run in sorted(((self.onward(run, 0), run) for run in rest), key=lambda pair: pair[0]):
            while self.budget > 0 and not run.failed and run.objective + can_gain > least:
                run.near = any(self.fingerprints.alike(run, other, _NEAR) for other in finished)
                if run.near:
                    break
                if run.status == "converged":
                    return run
                before = run.n_iterations
                can_gain = self.onward(run, 10)
                self.budget -= run.n_iterations - before
        return None


def modes_of(bound: Bound, data: Encoded, row_weights: np.ndarray, runs: Sequence[Any]) -> Modes:
    """The distinct modes among EM's runs, highest first, not yet weighed."""
    fingerprints = Fingerprints(bound, data, row_weights)
    found: list[Any] = []
    counts: list[int] = []
    best = max(runs, key=lambda run: run.objective)
    for run in sorted((r for r in runs if r.finished and not r.failed), key=lambda r: -r.objective):
        if run.status != "converged" and run is not best:
            continue
        for i, other in enumerate(found):
            if fingerprints.alike(run, other, _SAME):
                counts[i] += 1
                break
        else:
            found.append(run)
            counts.append(1)
    for run in (r for r in runs if not r.finished and not r.failed):
        for i, other in enumerate(found):
            if fingerprints.alike(run, other, _NEAR):
                counts[i] += 1
                break
    return Modes(
        Mode(in_canonical_order(bound, run.params), run.objective, run.loglik, count, count / len(runs))
        for run, count in zip(found, counts)
    )


def weighed(bound: Bound, data: Encoded, row_weights: np.ndarray | None, modes: Modes, target: Any = None) -> Modes:
    """The modes with their Laplace masses and weights; `target` is the model's log posterior where it is at hand."""
    from bayesmix.build import model_of, variables_at
    from bayesmix.inference.laplace import laplace_at
    from bayesmix.inference.target import Target

    if not len(modes) or not bound.sampled_slots:
        return modes
    if target is None:
        model = model_of(bound, data, row_weights=row_weights, initval=modes[0].params)
        target = Target(model, variables_at(bound, modes[0].params), jacobian=True)
    fingerprints = Fingerprints(bound, data, np.ones(data.n_rows) if row_weights is None else row_weights)
    seen: list[tuple[float, np.ndarray]] = []
    masses = []
    for mode in modes:
        found = laplace_at(target, target.unconstrained(variables_at(bound, mode.params)))
        at = fingerprints({**mode.params, **target.constrained(found.point)})
        again = any(
            abs(found.log_density - value) < _SAME[1] and np.sqrt(np.mean((at - other) ** 2)) < _SAME[0]
            for value, other in seen
        )
        seen.append((found.log_density, at))
        masses.append(-math.inf if again else found.log_mass if found.converged else math.nan)
    known = np.array([mass for mass in masses if not math.isnan(mass)])
    total = np.logaddexp.reduce(known) if len(known) else math.nan
    return Modes(replace(mode, log_mass=mass, weight=float(np.exp(mass - total))) for mode, mass in zip(modes, masses))
