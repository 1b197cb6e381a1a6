"""The modes that EM found: which they are, and what each of them weighs.

Two runs stand at one mode if they give every row the same density, and the same probabilities of components that their
priors tell apart: that is blind to the order of components that are alike, at any depth of the tree. A mode weighs what
its Laplace approximation does, so that a high but narrow one need not be the heaviest. `Scout` decides which starts,
beyond those that EM finishes anyway, are worth finishing to find others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import pandas as pd

from bayesmix.bound import Bound
from bayesmix.errors import MultimodalWarning, SpecError, warn
from bayesmix.params import Params
from bayesmix.plan import Pass
from bayesmix.relabel import in_canonical_order
from bayesmix.seeds import generator
from bayesmix.spec import Encoded
from bayesmix.threads import ALONE, without_warnings

#: Rows, evenly spaced, by whose densities two points are compared.
_ROWS = 500
#: Two converged runs stand at one mode: distance in standard deviations of the posterior, and difference in nats.
_SAME = (0.2, 0.02)
#: A run that was not finished is on its way to a mode.
_NEAR = (0.5, 0.2)
#: Beyond the best few, starts are followed that promise to end at most so many nats below the best.
_WITHIN = 10.0
#: A start that promises to gain less, in nats, has settled: whether at a mode is seen when it is finished.
_SETTLED = 0.1
#: Tables of more rows have no second mode worth the time: what tells modes apart grows with every row.
_MOST_ROWS = 20_000
#: Iterations that engines which take seconds let EM spend on further modes, as a share of those of its starts.
THOROUGH = 2.0
#: Modes that get chains of their own unless all are asked for.
_MOST_SAMPLED = 4
#: A chain is stuck whose mean log density lies this many standard deviations below another chain's; and one below what
#: the mode promises by this many of a normal posterior's standard deviations, and this many nats.
_STUCK, _STUCK_BELOW_MODE = 3.0, (5.0, 10.0)
#: Chains from several modes visit the same ones where no R-hat is larger; estimated from so many draws and rows.
_MIXED, _MIXED_DRAWS, _MIXED_ROWS = 1.05, 100, 30
#: Modes of a larger share of the posterior's mass are spoken of.
LEAST_WEIGHT = 0.01
#: Parameters up to which modes are weighed.
_MOST_WEIGHED = 2000


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
        there is none, it was not asked for, or there are more than 2,000 parameters. -inf: in unconstrained
        coordinates this is no mode of its own.
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
    [0.0, 8.3]
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

    def to_sample(self, which: str) -> tuple[Mode, ...]:
        """The modes that chains are to start from; see `fit_nuts`."""
        if which == "dominant":
            return self.heavy[:1]
        if which == "auto":
            return self.heavy[:_MOST_SAMPLED]
        rest = [mode for mode in self if mode not in self.heavy and mode.log_mass != -math.inf]
        return (*self.heavy, *rest)

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
    """Compares points of the parameters by the log densities of some rows, which relabelling does not change.

    The distance of two points is in standard deviations of the posterior: the sum over all rows of the squared
    differences is a quadratic form of the difference in the parameters, and its matrix is the Fisher information.

    Components that priors tell apart make labels part of what a point says: that they change places may leave the
    densities as they are, and is another point all the same. So the rows' probabilities of each class of components
    that are alike are compared too.
    """

    def __init__(self, bound: Bound, data: Encoded, row_weights: np.ndarray):
        self.bound = bound
        total = int(np.count_nonzero(row_weights))
        rows = np.unique(np.linspace(0, total - 1, min(total, _ROWS)).astype(int))
        rows = rows if total == data.n_rows else np.flatnonzero(row_weights)[rows]
        self.data = data if len(rows) == data.n_rows else data.take(rows)
        self.size = float(row_weights.sum())
        self.classes = _told_apart(bound)

    @property
    def n_rows(self) -> int:
        """Rows that are compared, R: the first of the numbers are their log densities."""
        return self.data.n_rows

    def __call__(self, params: Params) -> np.ndarray:
        """Log densities (R,) of the rows, and then the probabilities of classes of components."""
        density = np.nan_to_num(self.bound.log_density(params, self.data), neginf=-1e6, posinf=1e6)
        if not self.classes:
            return density
        with np.errstate(all="ignore"):
            labels = self.bound.label_probabilities(params, self.data)
        shares = [(labels[key] @ member).ravel() for key, member in self.classes.items()]
        return np.concatenate([density, *map(np.nan_to_num, shares)])

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
        """Between two runs' points."""
        return self.between(self.of(a), self.of(b))

    def between(self, a: np.ndarray, b: np.ndarray) -> float:
        """Between two points by their rows' log densities."""
        return float(np.sqrt(self.size * (np.sum((a - b) ** 2) / self.n_rows)))


def _told_apart(bound: Bound) -> dict[tuple[str, str], np.ndarray]:
    """Of mixtures of which priors tell components apart: which class each is of, (G, classes), by the mixture's key.

    Those whose classes differ from one component around them to the next are left out.
    """
    found = {}
    for site in bound.site.distinct():
        if "weights" not in site.slots:
            continue
        slot, mine = site.slots["weights"], [each for each in bound.symmetries if each.site is site]
        if any((each.classes != each.classes[(0,) * len(each.around)]).any() for each in mine):
            continue
        classes = np.arange(slot.shape[-1])
        for each in mine:
            members, own = np.array(each.members), each.classes[(0,) * len(each.around)]
            for number in np.unique(own):
                classes[members[own == number]] = members[own == number][0]
        if len(np.unique(classes)) > 1:
            found[site.place.path, slot.name] = (classes[:, None] == np.unique(classes)).astype(float)
    return found


class Scout:
    """Which starts are worth finishing after the best few: those that may end at a mode that nobody reached.

    Such a start promises to end within ten nats of the best, by what it gained last (Aitken). It goes on ten iterations
    at a time, and is given up where it comes near a point that another start ended at. On tables of more than 20,000
    rows nothing is spent.

    Parameters
    ----------
    e_step : Pass
    share : float
        Iterations that may be spent so, as a share of those that were spent before.
    onward : callable
        Takes a run and a number of iterations to advance it by; returns what it can still gain, in nats.
    """

    def __init__(self, e_step: Pass, share: float, onward: Callable[[Any, int], float]):
        self.share = share if e_step.n_rows <= _MOST_ROWS else 0.0
        self.onward = onward
        self.fingerprints = Fingerprints(e_step.bound, e_step.data, e_step.row_weights)
        self.budget: float | None = None

    def next(self, runs: Sequence[Any]) -> Any:
        """A run that settled where none of the finished ones did; None where there is none, or nothing to spend."""
        finished = ends(runs)
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
                if run.status == "converged" or can_gain < _SETTLED:
                    return run
                before = run.n_iterations
                can_gain = self.onward(run, 10)
                self.budget -= run.n_iterations - before
        return None


def ends(runs: Sequence[Any]) -> list[Any]:
    """Where runs ended, and the lower maxima that they left on the way."""
    return [end for run in runs if run.finished and not run.failed for end in (run, *run.left)]


def modes_of(bound: Bound, data: Encoded, row_weights: np.ndarray, runs: Sequence[Any]) -> Modes:
    """The distinct modes among EM's runs, highest first, not yet weighed."""
    fingerprints = Fingerprints(bound, data, row_weights)
    found: list[Any] = []
    counts: list[int] = []
    best = max(runs, key=lambda run: run.objective)
    for run in sorted(ends(runs), key=lambda r: -r.objective):
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


def dominant(
    bound: Bound,
    data: Encoded,
    weights: np.ndarray,
    given: np.ndarray | None,
    best: Any,
    runs: Sequence[Any],
    order: Any = None,
) -> tuple[dict[str, np.ndarray], Modes]:
    """Parameters at the heaviest mode that EM's runs found, and all modes, weighed where there are several.

    An `order` of components that priors tell apart leaves only the modes that are in it.
    """
    found = modes_of(bound, data, weights, runs)
    left = _in_order(bound, found, order)
    if len(left) > 1:
        left = weighed(bound, data, given, left)
    if len(left) > 1 and left.heavy:
        return left.heavy[0].params, left
    return (best.params if len(left) == len(found) else left[0].params), left


def _in_order(bound: Bound, modes: Modes, order: Any) -> Modes:
    """The modes that an order does not cut off, where it says more than how labels are named; else all."""
    if not order or len(modes) < 2 or not _told_apart(bound):
        return modes
    from bayesmix.build import mode_in_order

    kept = []
    for mode in modes:
        try:
            mode_in_order(bound, mode.params, order)
        except SpecError:
            continue
        kept.append(mode)
    return Modes(kept) if kept else modes


def weighed(bound: Bound, data: Encoded, row_weights: np.ndarray | None, modes: Modes, target: Any = None) -> Modes:
    """The modes with their Laplace masses and weights; `target` is the model's log posterior where it is at hand."""
    from bayesmix.build import model_of, variables_at
    from bayesmix.inference.laplace import laplace_at
    from bayesmix.inference.target import Target

    if not len(modes) or not bound.sampled_slots:
        return modes
    if sum(slot.n_free for slot in bound.sampled_slots.values()) > _MOST_WEIGHED:
        return modes  # a Hessian takes a gradient for each parameter, and room for the square of their number
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
            abs(found.log_density - value) < _SAME[1] and fingerprints.between(at, other) < _SAME[0]
            for value, other in seen
        )
        seen.append((found.log_density, at))
        masses.append(-math.inf if again else found.log_mass if found.converged else math.nan)
    known = np.array([mass for mass in masses if not math.isnan(mass)])
    total = np.logaddexp.reduce(known) if len(known) else math.nan
    return Modes(replace(mode, log_mass=mass, weight=float(np.exp(mass - total))) for mode, mass in zip(modes, masses))


def check_modes(modes: str, combine: str | None) -> None:
    """Raise `ValueError` where the two keywords of `fit_nuts` are not understood."""
    if modes not in ("auto", "dominant", "all"):
        raise ValueError(f'modes: "auto", "dominant" or "all" is needed, not {modes!r}.')
    if combine is not None and combine not in _WEIGHTS:
        raise ValueError(f"combine: one of {', '.join(_WEIGHTS)} or None is needed, not {combine!r}.")


def stuck_chains(log_density: np.ndarray, at_mode: float, dimension: int) -> str:
    """What is wrong with chains that sit far too low; empty where nothing is.

    A chain in a mode of no weight lies below the others; and where all are in one, they lie below what the dominant
    mode promises: for a normal posterior of d coordinates the log density is d/2 below that of the mode on average,
    with a standard deviation of √(d/2). R-hat cannot see the latter.

    Parameters
    ----------
    log_density : ndarray, shape (chain, draw)
        Of the unconstrained coordinates.
    at_mode : float
        The same at the mode that the chains started from.
    dimension : int
    """
    means = log_density.mean(1)
    best = int(means.argmax())
    spread = float(log_density[best].std())
    below = means[best] - means
    stuck = below > _STUCK * max(spread, 1e-6 * max(1.0, abs(means[best])))
    if stuck.any():
        which = ", ".join(f"chain {c} lies {below[c]:.0f} nats below chain {best}" for c in np.flatnonzero(stuck))
        return f"Stuck in a mode of no weight: {which}. Not converged: start again with another random_seed."
    gap = at_mode - dimension / 2 - means[best]
    if gap > _STUCK_BELOW_MODE[0] * math.sqrt(dimension / 2) + _STUCK_BELOW_MODE[1]:
        return (
            f"Not converged: all chains lie {gap:.0f} nats below what their mode promises: they are in a "
            "mode of no weight, or that one is a spike on few rows, which a prior that keeps sigma from 0 removes."
        )
    return ""


def mixed(fits: Sequence[Any]) -> bool:
    """Whether chains that started from different modes visit the same ones, by what no labelling changes."""
    import arviz_stats as azs  # slow to import
    import xarray as xr

    rows = np.concatenate([_rows_of_draws(fit) for fit in fits])
    n_rows = _fingerprints(fits[0]).n_rows
    parts = [part for part in (rows[..., :n_rows], rows[..., n_rows:]) if part.shape[-1]]
    some = [part[..., np.unique(np.linspace(0, part.shape[-1] - 1, _MIXED_ROWS).astype(int))] for part in parts]
    densities = rows[..., :n_rows].sum(-1)
    both = xr.Dataset(
        {"row": (("chain", "draw", "which"), np.concatenate(some, -1)), "sum": (("chain", "draw"), densities)}
    )
    with ALONE:  # ArviZ puts the warnings filters aside
        worst = azs.rhat(both)
    return bool(max(np.nanmax(worst["row"].values), float(worst["sum"])) < _MIXED)  # NaN of what never changes


def _fingerprints(fit: Any) -> Fingerprints:
    return Fingerprints(fit.bound, fit.encoded, _ones_or(fit.row_weights, fit.encoded))


def _ones_or(weights: np.ndarray | None, data: Encoded) -> np.ndarray:
    return np.ones(data.n_rows) if weights is None else weights


def _rows_of_draws(fit: Any) -> np.ndarray:
    """Fingerprints (chain, draw, row) of some draws."""
    fingerprints = _fingerprints(fit)
    posterior, chains = fit.posterior, []
    picked = np.unique(np.linspace(0, posterior.sizes["draw"] - 1, _MIXED_DRAWS).astype(int))
    arrays = {name: posterior[name].values for name in fit.bound.free_slots}
    for c in range(posterior.sizes["chain"]):
        points = [{name: values[c, d] for name, values in arrays.items()} for d in picked]
        chains.append([fingerprints(fit.bound.with_fixed(point)) for point in points])
    return np.array(chains)


def not_visited(fit: Any, modes: Sequence[Mode]) -> list[Mode]:
    """Those of some modes, the first of which chains started from, that half of the chains did not come to.

    A draw is at the mode whose fingerprint is most like its own; a chain came to a mode if a hundredth of its draws is
    there.
    """
    fingerprints = _fingerprints(fit)
    rows = _rows_of_draws(fit)
    distance = np.array([((rows - fingerprints(mode.params)) ** 2).sum(-1) for mode in modes])
    share = (distance.argmin(0)[None] == np.arange(len(modes))[:, None, None]).mean(-1)
    return [mode for mode, each in zip(modes, share) if (each >= 0.01).mean() < 0.5 and mode is not modes[0]]


def joined(fits: Sequence[Any], modes: Sequence[Mode]) -> tuple[Any, bool]:
    """One fit of several modes, the heaviest first; and whether it is the whole posterior, because chains mix."""
    first = fits[0]
    if len(fits) == 1 or mixed(fits):
        message = f"{first.status.message} Chains pass between the modes that carry weight."
        return replace(first, status=replace(first.status, message=message)), True
    each = [replace(fit, modes_found=Modes([mode])) for fit, mode in zip(fits, modes)]
    return replace(first, mode_fits=tuple(each)), False


def with_caution(fit: Any, modes: Modes, what: str) -> Any:
    """The fit of one of several modes, not converged, and a `MultimodalWarning`."""
    methods = 'combine="bridge" (by their mass) or "stacking" (by what they predict)'
    ways = f"Put them together by {methods}" if fit.mode_fits else 'Take modes="auto"'
    if fit.status.engine != "nuts":
        ways = f"Use fit_nuts with {methods}"
    message = f"{what}: {modes.describe()}. {ways}, or fewer components."
    warn(message, MultimodalWarning)
    status = replace(fit.status, converged=False, message=f"{fit.status.message} {message}")
    return replace(fit, status=status)


def combined(fit: Any, method: str, random_seed: Any = None) -> Any:
    """See `Fit.combine`."""
    import xarray as xr

    if method not in _WEIGHTS:
        raise ValueError(f"method: one of {', '.join(_WEIGHTS)} is needed, not {method!r}.")
    fits = fit.mode_fits
    if not fits:
        return fit
    rng = generator(random_seed)
    weights = _WEIGHTS[method](fit, rng)
    n_draws = fit.posterior.sizes["draw"]
    counts = np.floor(weights * n_draws).astype(int)
    for i in np.argsort(counts - weights * n_draws)[: n_draws - counts.sum()]:
        counts[i] += 1
    order = rng.permutation(n_draws)
    groups = {}
    for name, group in fit.idata.children.items():
        dataset = group.to_dataset()
        if "draw" in dataset.dims:
            parts = [
                each.idata[name].to_dataset().isel(draw=np.linspace(0, n_draws - 1, count).astype(int))
                for each, count in zip(fits, counts)
            ]
            dataset = xr.concat(parts, "draw").isel(draw=order).assign_coords(draw=np.arange(n_draws))
        groups[name] = dataset
    share = counts / n_draws
    apart = [each.status.message for each in fits if not each.status.converged]
    message = f"NUTS from {len(fits)} modes, combined by {method}, weights {', '.join(f'{s:.2f}' for s in share)}. "
    return replace(
        fit,
        idata=xr.DataTree.from_dict(groups),
        loglik=float(sum(s * each.loglik for s, each in zip(share, fits))),
        status=replace(fit.status, converged=not apart, message=message + (apart[0] if apart else "Each converged.")),
        mode_fits=(),
    )


def _stacking(fit: Any, rng: np.random.Generator) -> np.ndarray:
    """Weights that maximise the mean log predictive density, leaving one row out at a time (PSIS)."""
    import arviz_stats as azs  # slow to import

    if not all("log_likelihood" in each.idata.children for each in fit.mode_fits):
        raise ValueError('combine: "stacking" needs the rows\' log-likelihood. Pass log_likelihood=True, or "laplace".')
    with without_warnings("Estimated shape parameter"):  # their terms are noisy, and the weights a little
        each = np.array([azs.loo(one.idata, pointwise=True).elpd_i.values for one in fit.mode_fits]).T
    rows = _ones_or(fit.row_weights, fit.encoded)
    density = np.exp(each - each.max(1, keepdims=True))
    weights = np.full(each.shape[1], 1 / each.shape[1])
    for _ in range(5_000):  # EM for the weights of fixed components: concave, so to the maximum
        resp = weights * density
        new = rows @ (resp / resp.sum(1, keepdims=True)) / rows.sum()
        settled = np.abs(new - weights).max() < 1e-8
        weights = new
        if settled:
            break
    return weights


def _laplace(fit: Any, rng: np.random.Generator) -> np.ndarray:
    return _shares(np.array([each.modes_found[0].log_mass for each in fit.mode_fits]))


def _bridge(fit: Any, rng: np.random.Generator) -> np.ndarray:
    from bayesmix.evidence import log_evidence

    return _shares(np.array([float(log_evidence(each, "bridge", random_seed=rng)) for each in fit.mode_fits]))


def _shares(log_mass: np.ndarray) -> np.ndarray:
    if np.isnan(log_mass).any():
        raise ValueError('combine: a mode has no Laplace approximation. Use "stacking" or "bridge".')
    share = np.exp(log_mass - log_mass.max())
    return share / share.sum()


_WEIGHTS: dict[str, Callable[[Any, np.random.Generator], np.ndarray]] = {
    "stacking": _stacking,
    "laplace": _laplace,
    "bridge": _bridge,
}
