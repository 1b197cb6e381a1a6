"""Variational inference on minibatches: the bound's gradient from a part of the rows at a time.

Rows are dealt once into batches of equal chance; a batch's likelihood counts as many times as there are batches, so
that its log posterior is unbiased. What it lacks in precision is mostly common to all parameters near the mode, and is
taken away by what the same batch said at the mode, where all rows have been asked once (a control variate):

    ∇ log p(u) ≈ ∇ log p_b(u) - ∇ log p_b(û) + ∇ log p(û).

The remaining noise falls with the posterior's width, so that a few hundred steps of Adam and the mean of the last ones
are as good as L-BFGS on all rows.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from bayesmix.bound import Bound
from bayesmix.build import RowsRV, model_of, variables_at
from bayesmix.errors import SpecError
from bayesmix.inference.target import Target
from bayesmix.params import Params
from bayesmix.progress import Progress
from bayesmix.spec import Encoded

#: Steps whose mean is one iterate; the search ends where two iterates differ by less, in Laplace standard deviations.
_WINDOW, _STILL = 50, 0.01
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
    ):
        if bound.discrete_slots:
            raise SpecError(f"minibatch: {', '.join(bound.discrete_slots)} must be judged by all rows. Leave it out.")
        count = -(-data.n_rows // size)
        self.rows = [np.sort(part) for part in np.array_split(rng.permutation(data.n_rows), count)]
        self.data, self.weights = data, weights
        first = self._batch(0)
        model = model_of(bound, first[0], row_weights=first[1], order=order, initval=params)
        self.target = Target(model, variables_at(bound, params), jacobian=True)
        ops = [rv.owner.op for rv in model.observed_RVs if rv.owner is not None]
        self.held = cast(Any, next(op.parts.fused for op in ops if isinstance(op, RowsRV)))
        if self.held.plan is None:
            raise SpecError("minibatch: vectors that lack coordinates need all rows. Leave it out.")
        self.at = full.start
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


def climb_by_batches(
    batches: Batches, family: Any, draw_points: Any, max_iter: int, rng: np.random.Generator, progress: Progress
) -> tuple[np.ndarray, list[float], bool]:
    """Maximise the evidence lower bound by Adam with averaged iterates.

    Returns the mean of the last window, the mean bound of every window, and whether two windows agreed.

    References
    ----------
    Kingma and Ba 2015, *ICLR*; Dhaka, Catalina, Andersen et al. 2020, *NeurIPS*, for averages and for ending where
    iterates have settled; Johnson and Zhang 2013, *NeurIPS*, for the control variate.
    """
    lam = family.start
    first, second = np.zeros_like(lam), np.zeros_like(lam)
    history: list[float] = []
    before: Any = None
    settled, order = False, np.empty(0, int)
    total, bounds = np.zeros_like(lam), []
    for step in range(1, max_iter * _WINDOW + 1):
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
            if settled:
                break
    return before, history, settled
