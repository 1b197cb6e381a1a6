"""Variational inference on minibatches: the bound's gradient from a part of the rows at a time.

Rows are dealt once into batches of equal chance; a batch's likelihood counts as many times as there are batches, so
that its log posterior is unbiased. What it lacks in precision is mostly common to all parameters near the mode, and is
taken away by what the same batch said at the mode, where all rows have been asked once (a control variate):

    ∇ log p(u) ≈ ∇ log p_b(u) - ∇ log p_b(û) + ∇ log p(û).

The remaining noise falls with the posterior's width, so that a few hundred steps of Adam and the mean of the last ones
are as good as L-BFGS on all rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from bayesmix.bound import Bound
from bayesmix.build import RowsRV, model_of, variables_at
from bayesmix.errors import DataError, SpecError
from bayesmix.inference.target import Target
from bayesmix.params import Params
from bayesmix.progress import Progress
from bayesmix.spec import Encoded

#: Steps whose mean is one iterate; the search ends where two iterates differ by less, in Laplace standard deviations.
_WINDOW, _STILL = 50, 0.01
#: Batches that the noise of gradients is found from.
_NOISE_BATCHES = 30
#: Adam's step in those units, at first, and its memories.
_STEP, _FIRST, _SECOND = 0.05, 0.9, 0.99


class Batches:
    """Log posteriors of batches of rows, each unbiased, with the gradient corrected about one point.

    Parameters
    ----------
    bound : Bound
    data : Encoded
        N rows.
    weights : ndarray, shape (N,)
    size : int
        Rows in a batch.
    params : mapping
        The mode.
    full : Target
        Log posterior of all rows.
    order : str, sequence of str, or None
        See `fit_advi`.
    rng : numpy.random.Generator
    at : ndarray, shape (d,), optional
        The point; the mode where not given.

    Raises
    ------
    SpecError
        A likelihood that rows do not add up to (discrete positions), or that has no fused form.
    """

    def __init__(
        self,
        bound: Bound,
        data: Encoded,
        weights: np.ndarray,
        size: int,
        params: Params,
        full: Target,
        order: Any,
        rng: np.random.Generator,
        at: np.ndarray | None = None,
    ):
        if bound.discrete_slots:
            raise SpecError(f"minibatch: {', '.join(bound.discrete_slots)} must be judged by all rows. Leave it out.")
        count = -(-data.n_rows // size)
        self.rows = [np.sort(part) for part in np.array_split(rng.permutation(data.n_rows), count)]
        self.data, self.weights = data, weights
        first = self._batch(0)
        model = model_of(bound, first[0], row_weights=first[1], order=order, initval=params)
        self.target = Target(model, variables_at(bound, params, order), jacobian=True)
        ops = [rv.owner.op for rv in model.observed_RVs if rv.owner is not None]
        self.held = cast(Any, next(op.parts.fused for op in ops if isinstance(op, RowsRV)))
        if self.held.plan is None:
            raise SpecError("minibatch: vectors that lack coordinates need all rows. Leave it out.")
        self.at = full.start if at is None else at
        self.anchor = full(self.at)
        self.offsets: dict[int, tuple[float, np.ndarray]] = {}

    def _batch(self, number: int) -> tuple[Encoded, np.ndarray]:
        rows = self.rows[number]
        return self.data.take(rows), self.weights[rows] * len(self.rows)

    def take(self, number: int) -> None:
        """Speak of this batch from now on."""
        self.held.swap(*self._batch(number))
        if number not in self.offsets:
            value, gradient = self.target(self.at)
            self.offsets[number] = (self.anchor[0] - value, self.anchor[1] - gradient)
        self.offset = self.offsets[number]

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log posterior and gradient at `u` (d,), as far as the batch tells them."""
        value, gradient = self.target(u)
        return value + self.offset[0] + float(self.offset[1] @ (u - self.at)), gradient + self.offset[1]


@dataclass
class Climb:
    """Where a climb is, at the end of a window: all that the next one depends on.

    Attributes
    ----------
    lam, first, second : ndarray
        The iterate, and Adam's moments.
    before : ndarray or None
        Mean of the last window.
    history : list of float
        Mean bound of every window.
    order : ndarray of int
        Batches that are left of this turn.
    step : int
    settled : bool
        Whether the last two windows agreed.
    generator : dict
        State of the random numbers.
    """

    lam: np.ndarray
    first: np.ndarray
    second: np.ndarray
    before: np.ndarray | None = None
    history: list[float] = field(default_factory=list)
    order: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    step: int = 0
    settled: bool = False
    generator: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write it to a file, with what else must be known to go on."""
        from bayesmix.io import writing

        document = {**about, "step": self.step, "settled": self.settled, "generator": self.generator}
        arrays = {"lam": self.lam, "first": self.first, "second": self.second, "order": self.order}
        if self.before is not None:
            arrays["before"] = self.before
        with writing(path) as file:
            np.savez(
                file,
                allow_pickle=False,
                climb=np.array(json.dumps(document)),
                history=np.array(self.history),
                **arrays,
            )

    @classmethod
    def read(cls, path: Path) -> tuple[Climb, dict[str, Any]]:
        """What `write` wrote. Raises `DataError` where it is something else."""
        from bayesmix.io import FAULTS

        if not path.exists():
            raise FileNotFoundError(2, "No such checkpoint", str(path))
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                about = json.loads(str(file["climb"]))
                arrays = {name: file[name] for name in ("lam", "first", "second", "order")}
                before = file["before"] if "before" in file.files else None
                history = file["history"].tolist()
                step, settled, generator = about.pop("step"), about.pop("settled"), about.pop("generator")
        except FAULTS as error:
            raise DataError(f"resume: {path} is no checkpoint of fit_advi, or damaged.") from error
        lam, first, second, order = (arrays[name] for name in ("lam", "first", "second", "order"))
        return cls(lam, first, second, before, history, order, step, settled, generator), about


def gradient_noise(batches: Batches, family: Any, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (d,) of a batch's gradient at the centre, with and without the control variate.

    In nats per Laplace standard deviation: a step of Newton's method from one batch would be off by so many of them.
    """
    centre = family.transform(lam, np.zeros((1, batches.target.start.size)))[0]
    unit = family.unit()
    corrected, plain = [], []
    for number in range(min(len(batches.rows), _NOISE_BATCHES)):
        batches.take(number)
        found = batches(centre)[1]
        corrected.append(found @ unit)
        plain.append((found - batches.offset[1]) @ unit)
    if len(corrected) < 2:
        return np.zeros(unit.shape[1]), np.zeros(unit.shape[1])
    return np.std(corrected, axis=0, ddof=1), np.std(plain, axis=0, ddof=1)


def climb_by_batches(
    batches: Batches,
    family: Any,
    draw_points: Any,
    max_iter: int,
    rng: np.random.Generator,
    progress: Progress,
    begun: Climb | None = None,
    keep: Callable[[Climb], None] | None = None,
) -> tuple[np.ndarray, list[float], bool]:
    """Maximise the evidence lower bound by Adam with averaged iterates.

    Returns the mean of the last window, the mean bound of every window, and whether two windows agreed. `keep` is
    called at the end of every window with what is needed to go on from there (`begun`), to the same digits.

    References
    ----------
    Kingma and Ba 2015, *ICLR*; Dhaka, Catalina, Andersen et al. 2020, *NeurIPS*, for averages and for ending where
    iterates have settled; Johnson and Zhang 2013, *NeurIPS*, for the control variate.
    """
    state = Climb(family.start, np.zeros_like(family.start), np.zeros_like(family.start)) if begun is None else begun
    lam, first, second, before = state.lam, state.first, state.second, state.before
    history, settled, order = state.history, state.settled, state.order
    if state.generator:
        rng.bit_generator.state = state.generator
    total, bounds = np.zeros_like(lam), []
    for step in range(state.step + 1, 1 if settled else max_iter * _WINDOW + 1):
        if not len(order):
            order = rng.permutation(len(batches.rows))
        batches.take(int(order[0]))
        order = order[1:]
        points = draw_points()
        pairs = [batches(u) for u in family.transform(lam, points)]
        good = [np.isfinite(pair[0]) for pair in pairs]
        scores = np.array([pair[1] if ok else np.zeros_like(batches.at) for pair, ok in zip(pairs, good)])
        gradient = np.nan_to_num(family.gradient(lam, points, scores))
        bounds.append(np.mean([pair[0] if ok else -1e300 for pair, ok in zip(pairs, good)]) + family.entropy(lam))
        first = _FIRST * first + (1 - _FIRST) * gradient
        second = _SECOND * second + (1 - _SECOND) * gradient**2
        scale = np.sqrt(second / (1 - _SECOND**step)) + 1e-8
        # smaller steps as time goes on, so that what remains of the noise averages out
        lam = lam + _STEP / np.sqrt(1 + step / _WINDOW) * (first / (1 - _FIRST**step)) / np.maximum(scale, 0.1)
        total = total + lam
        if step % _WINDOW == 0:
            here = total / len(bounds)
            history.append(float(np.mean(bounds)))
            progress.step(f"bound {history[-1]:.3f}")
            settled = before is not None and bool(np.abs(here - before).max() < _STILL)
            before, total, bounds = here, np.zeros_like(lam), []
            if keep is not None:
                keep(Climb(lam, first, second, before, history, order, step, settled, dict(rng.bit_generator.state)))
            if settled:
                break
    assert before is not None
    return before, history, settled
