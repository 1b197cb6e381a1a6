"""Simulation-based calibration: parameters that data were drawn from are found as often as an engine claims, or not.

Parameters are drawn from the prior, rows from the parameters, and the engine is given the rows. If its draws are from
the posterior, the true value of any quantity has every rank among its posterior draws equally often: what the
parameters were drawn from and what the engine believes are then one joint distribution. A wrong density, Jacobian or
sampler bends the ranks.

A mixture's labels mean nothing, so the true parameters and every draw are put in the same canonical order
(`bayesmix.relabel`): ranks are of functions of the mixture, whatever its labels. The joint log-likelihood is one of the
quantities: it sees faults that no single parameter shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from scipy.special import gammaln
from scipy.stats import binom

from bayesmix import arguments
from bayesmix.bound import Bound, bind, require_free
from bayesmix.build import RowsRV, check_order, model_of, variables_at
from bayesmix.compilation import QUICK
from bayesmix.data import read
from bayesmix.discrete import completed
from bayesmix.errors import SpecError, quiet
from bayesmix.fit import draw_rows
from bayesmix.inference.advi import _FullRank, ascend, fixed_points
from bayesmix.inference.em import maximise
from bayesmix.inference.laplace import corrected, laplace_at
from bayesmix.inference.nuts import _nutpie, started
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.params import SIMPLEX, Params
from bayesmix.progress import Progress
from bayesmix.psis import FEWEST
from bayesmix.relabel import in_canonical_order
from bayesmix.seeds import spawned
from bayesmix.spec import Encoded, Node
from bayesmix.structure.mixture import posterior
from bayesmix.symmetry import ascending

#: Of the intervals whose coverage is reported.
_PROB = 0.89
#: Chance that a calibrated engine has any quantity outside its band.
_ALPHA = 0.01
#: Chains start within this many Laplace standard deviations of the mode, as in `fit_nuts`.
_JITTER = 2.0
_LOGLIK = "log_likelihood"


def calibrate(
    spec: Node,
    data: Any,
    *,
    method: str = "nuts",
    replications: int = 100,
    n_rows: int | None = None,
    draws: int = 99,
    thin: int = 5,
    tune: int = 300,
    order: str | Sequence[str] | None = None,
    n_starts: int = 4,
    random_seed: Any = None,
    progressbar: bool = False,
) -> Calibration:
    """Check an engine on tables that are simulated from the spec's own prior (simulation-based calibration).

    Default priors are scaled to a column; here they are fixed once, at what `data` gives, and every simulated table
    is fitted with those.

    Parameters
    ----------
    spec : Node
        Every prior is proper.
    data : table
        Gives levels, scales and default priors, and nothing else.
    method : {"nuts", "advi", "laplace"}
        "nuts" is one chain of what `fit_nuts` does, with the model's function made once for all tables. "advi" (full
        rank) and "laplace" are approximations, corrected by importance where Pareto k allows it: outside of the bands
        they are as good as their ranks say.
    replications : int
        Tables R. A hundred show gross faults, several hundred those of a fifth of a standard deviation.
    n_rows : int, optional
        Rows N of each table; as many as `data` by default. Few rows leave the prior its say, and faults in it show.
    draws, thin : int
        Posterior draws that ranks are among; NUTS keeps every `thin`-th of ``draws * thin``, nearly independent ones.
    tune : int
    order : str, sequence of str, or None
        As in `fit_nuts`.
    n_starts : int
        Of the EM that chains start from.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool

    Returns
    -------
    Calibration
        ``table()`` has a line for each quantity; ``passed`` says whether all are inside their bands.

    Raises
    ------
    SpecError
        An improper prior, or one that depends on a model of your own: there is nothing to draw from.

    References
    ----------
    Talts et al. 2018, arXiv:1804.06788; Säilynoja, Bürkner and Vehtari 2022, *Statistics and Computing* 32, for the
    bands; Modrák et al. 2023, *Bayesian Analysis*, for the log-likelihood among the quantities.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 15) for m in (-4, 4)])
    >>> found = bm.calibrate(bm.Mixture(bm.Normal(), 2), x, replications=20, draws=49, random_seed=1)
    >>> found.passed, found.ranks.shape
    (True, (20, 6))
    """
    return calibrate_part(
        spec,
        data,
        method=method,
        replications=replications,
        n_rows=n_rows,
        draws=draws,
        thin=thin,
        tune=tune,
        order=order,
        n_starts=n_starts,
        random_seed=random_seed,
        progressbar=progressbar,
    )


def calibrate_part(
    spec: Node,
    data: Any,
    *,
    method: str,
    replications: int,
    n_rows: int | None,
    draws: int,
    thin: int,
    tune: int,
    order: str | Sequence[str] | None,
    n_starts: int,
    random_seed: Any,
    progressbar: bool,
    part: slice = slice(None),
) -> Calibration:
    """`calibrate`, or some of its tables: every table has a seed of its own."""
    check_arguments(
        method, replications=replications, n_rows=n_rows, draws=draws, thin=thin, tune=tune, n_starts=n_starts
    )
    table = read(data)
    bound = bind(spec, table)
    require_free(bound, method)
    keywords = {"thin": thin, "tune": tune} if method == "nuts" else {}
    sampler = _SAMPLERS[method](bound, draws, order=order, n_starts=n_starts, **keywords)
    return ranks_of(
        bound,
        sampler,
        method=method,
        replications=replications,
        n_rows=table.n_rows if n_rows is None else n_rows,
        n_draws=draws,
        random_seed=random_seed,
        progressbar=progressbar,
        part=part,
    )


def check_arguments(method: str, **numbers: Any) -> None:
    """Raise `ValueError` for what `calibrate` cannot take."""
    if method not in _SAMPLERS:
        raise ValueError(f"method: one of {', '.join(_SAMPLERS)} is needed, not {method!r}.")
    arguments.check(**numbers)


@dataclass(frozen=True)
class Calibration:
    """Ranks of true values among posterior draws.

    Attributes
    ----------
    method : str
    n_rows, n_draws : int
        Rows N of each simulated table; posterior draws L that the ranks are among.
    ranks : pandas.DataFrame, shape (R, quantities)
        From 0 to L, a row for each table. Parameters are in canonical order of the components.
    responsibility_ranks : ndarray of int, shape (R, N, K - 1)
        The same for the rows' responsibilities of all components but the last; K is 1 where the root is no mixture.
    failed : tuple of str
        Why tables could not be fitted. They are missing in the ranks: many of them would be a bias of their own.
    divergences : int
        Of all tables together.

    Examples
    --------
    >>> import numpy as np, pandas as pd, bayesmix as bm
    >>> ranks = pd.DataFrame({"mu": np.arange(100) % 20, "log_likelihood": np.arange(100) % 20})
    >>> found = bm.Calibration("mine", 30, 19, ranks, np.zeros((100, 30, 0), int))
    >>> found.passed, round(found.coverage(0.9), 2)
    (True, 0.9)
    """

    method: str
    n_rows: int
    n_draws: int
    ranks: pd.DataFrame
    responsibility_ranks: np.ndarray = field(repr=False)
    failed: tuple[str, ...] = ()
    divergences: int = 0

    @cached_property
    def p_values(self) -> pd.Series:
        """For each quantity the chance that ranks of a calibrated engine stray as far (see `uniformity`)."""
        return pd.Series({name: uniformity(self.ranks[name].to_numpy(), self.n_draws + 1) for name in self.ranks})

    @property
    def passed(self) -> bool:
        """Whether all quantities are inside bands that a calibrated engine leaves once in a hundred calibrations."""
        return bool((self.p_values >= _ALPHA / len(self.p_values)).all()) and not self.failed

    def table(self, prob: float = _PROB) -> pd.DataFrame:
        """A line for each quantity, and one for the responsibilities.

        Parameters
        ----------
        prob : float
            Of the central posterior intervals.

        Returns
        -------
        DataFrame
            ``p_value`` and whether it is ``inside`` its band; ``coverage``, the share of intervals that hold the true
            value (for responsibilities of all rows together); ``shift``, how far true values lie above the
            posterior's middle, and ``spread`` of the ranks: 0 and 1 where calibrated; a spread above 1 is of a
            posterior that is too narrow.
        """
        arguments.check(prob=prob)
        middle, uniform = self.n_draws / 2, np.sqrt(self.n_draws * (self.n_draws + 2) / 12)
        lines = {
            name: {
                "p_value": self.p_values[str(name)],
                "inside": bool(self.p_values[str(name)] >= _ALPHA / len(self.p_values)),
                "coverage": self._covered(ranks.to_numpy(), prob),
                "shift": (ranks.mean() - middle) / uniform,
                "spread": np.sqrt(((ranks - middle) ** 2).mean()) / uniform,
            }
            for name, ranks in self.ranks.items()
        }
        if self.responsibility_ranks.size:
            lines["responsibilities"] = {"coverage": self._covered(self.responsibility_ranks, prob)}
        return pd.DataFrame.from_dict(lines, orient="index")

    def coverage(self, prob: float = _PROB) -> float:
        """Share of the parameters' central posterior intervals, all together, that hold the true value."""
        arguments.check(prob=prob)
        return self._covered(self.ranks.drop(columns=_LOGLIK).to_numpy(), prob)

    def _covered(self, ranks: np.ndarray, prob: float) -> float:
        """Intervals hold a share of the L + 1 ranks; a rank that the ends cut counts in part."""
        cut = (1 - prob) / 2 * (self.n_draws + 1)
        whole, part = int(cut), cut - int(cut)
        outer = np.minimum(ranks, self.n_draws - ranks)
        return float(np.mean((outer > whole) + (1 - part) * (outer == whole)))

    def __str__(self) -> str:
        lines = [f"{len(self.ranks)} tables of {self.n_rows} rows, {self.method}: {self._verdict()}"]
        table = self.table()
        for name, line in table[table["inside"] == False].iterrows():  # noqa: E712 (the responsibilities have none)
            lines.append(f"  {name}: p = {line['p_value']:.2g}; {_shape(line['shift'], line['spread'])}")
        if self.failed:
            lines.append(f"  {len(self.failed)} tables could not be fitted; the first: {self.failed[0]}")
        if self.divergences:
            lines.append(
                f"  {self.divergences} divergences in {len(self.ranks) * self.n_draws} draws and those between"
            )
        return "\n".join(lines)

    def _verdict(self) -> str:
        outside = int((self.p_values < _ALPHA / len(self.p_values)).sum())
        total = len(self.p_values)
        if outside:
            return f"{outside} of {total} quantities are outside their 99 % bands. The engine is not calibrated here."
        return f"all {total} quantities are inside their 99 % bands."

    def plot(self) -> tuple[Any, Any]:
        """Plot, for every quantity, how far the ranks' distribution function is from the diagonal, with the 99 % band.

        Returns
        -------
        figure, axes
        """
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
        at = np.arange(1, self.n_draws + 1) / (self.n_draws + 1)
        lower, upper = band(len(self.ranks), self.n_draws + 1, _ALPHA / len(self.p_values))
        axes.fill_between(at, lower - at, upper - at, color="#DADADA", step="mid", linewidth=0)
        for name in self.ranks:
            below = (self.ranks[name].to_numpy()[:, None] < np.arange(1, self.n_draws + 1)).mean(0)
            axes.plot(at, below - at, linewidth=0.8, color="#333333" if name == _LOGLIK else None)
        axes.set(xlabel="rank, as a share", ylabel="distribution function − share", xlim=(0, 1))
        return figure, axes


def _shape(shift: float, spread: float) -> str:
    """What is wrong with ranks, in words."""
    words = []
    if abs(shift) > 0.1:
        words.append(f"true values lie {'above' if shift > 0 else 'below'} where the posterior has them")
    if abs(spread - 1) > 0.05:
        words.append(f"the posterior is too {'narrow' if spread > 1 else 'wide'}")
    return " and ".join(words) or "the posterior has another shape"


def ranks_of(
    bound: Bound,
    sampler: Callable[[Encoded, np.random.Generator], tuple[dict[str, np.ndarray], int]],
    *,
    method: str,
    replications: int,
    n_rows: int,
    n_draws: int,
    random_seed: Any = None,
    progressbar: bool = False,
    part: slice = slice(None),
) -> Calibration:
    """`calibrate` for a spec that is bound and any sampler: rows, rng -> draws (L, *shape) by name, and divergences.

    `part` picks some of the tables, whose results are the same alone.
    """
    seeds = spawned(random_seed, replications + 1)
    truths = prior_draws(bound, replications, np.random.default_rng(seeds[0]))
    pairs = list(zip(truths, seeds[1:]))[part]
    ranks, responsibilities, failed, divergences = [], [], [], 0
    names: list[str] = []
    with Progress("calibration", len(pairs), progressbar) as progress, quiet(), np.errstate(all="ignore"):
        for truth, seed in pairs:
            rng = np.random.default_rng(seed)
            try:
                data = bound.encode(draw_rows(bound, truth, n_rows, rng))
                found, diverged = sampler(data, rng)
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")
                continue
            draws = [bound.with_fixed({n: v[i] for n, v in found.items()}) for i in range(n_draws)]
            names, at_truth, resp = quantities(bound, in_canonical_order(bound, truth), data)
            each = [quantities(bound, in_canonical_order(bound, params), data)[1:] for params in draws]
            ranks.append(_ranks(at_truth, np.array([values for values, _ in each]), rng))
            responsibilities.append(_ranks(resp, np.array([own for _, own in each]), rng))
            divergences += diverged
            progress.step(f"{len(failed)} failed")
    calibration = Calibration(
        method,
        n_rows,
        n_draws,
        pd.DataFrame(np.array(ranks), columns=names) if ranks else pd.DataFrame(),
        np.array(responsibilities),
        tuple(failed),
        divergences,
    )
    return calibration if part != slice(None) else joined([calibration])


def joined(parts: Sequence[Calibration]) -> Calibration:
    """One calibration of several on different tables.

    Raises
    ------
    SpecError
        No table could be fitted.
    """
    ranked = [part for part in parts if len(part.ranks)]
    failed = tuple(reason for part in parts for reason in part.failed)
    if not ranked:
        raise SpecError(f"no simulated table could be fitted: {failed[0]}")
    return replace(
        parts[0],
        ranks=pd.concat([part.ranks for part in ranked], ignore_index=True),
        responsibility_ranks=np.concatenate([part.responsibility_ranks for part in ranked]),
        failed=failed,
        divergences=sum(part.divergences for part in parts),
    )


def prior_draws(bound: Bound, size: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Parameters drawn from the prior, fixed ones included.

    Raises
    ------
    SpecError
        Names the parameters whose prior has no draws.
    """
    faults = [
        f"{name}: it depends on variables of your PyMC model, so that there is nothing to draw it from."
        for name, slot in bound.slots.items()
        if slot.depends_on_model
    ]
    drawn = {}
    for name, slot in bound.free_slots.items() if not faults else ():
        try:
            values = pm.draw(slot.rv, draws=size, random_seed=rng, mode=QUICK).reshape(size, *slot.shape)
            low = getattr(slot.transform, "floor", 0.0)
            while low and (outside := (values < low).reshape(size, -1).any(1)).any():  # the prior is cut there
                again = pm.draw(slot.rv, draws=size, random_seed=rng, mode=QUICK).reshape(size, *slot.shape)
                values[outside] = again[outside]
            drawn[name] = values.astype(float)
        except NotImplementedError:
            faults.append(f"{name}: an improper prior has no draws. Give it a proper one, or leave the default.")
    if faults:
        raise SpecError(faults)
    return [bound.with_fixed({name: values[i] for name, values in drawn.items()}) for i in range(size)]


def quantities(bound: Bound, params: Params, data: Encoded) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names and values of what is ranked, and the responsibilities (N, K - 1).

    Of probabilities that sum to 1 the last is left out, and of a symmetric matrix what is above its diagonal.
    """
    names: list[str] = []
    values: list[np.ndarray] = []
    for name, slot in bound.free_slots.items():
        array = np.asarray(params[name], float)
        keep = np.ones(array.shape, bool)
        if slot.support is SIMPLEX:
            keep[..., -1] = False
        elif slot.support.ndim == 2:
            keep &= np.tri(array.shape[-1], dtype=bool)
        for index in np.argwhere(keep):
            names.append(f"{name}[{', '.join(map(str, index))}]" if len(index) else name)
        values.append(array[keep])
    evaluation = bound.site.evaluate(params, data)
    resp = posterior(evaluation)[:, 0, :-1] if bound.is_mixture else np.zeros((data.n_rows, 0))
    return [*names, _LOGLIK], np.concatenate([*values, [evaluation.log_density.sum()]]), resp


def _ranks(truth: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many of the draws (L, ...) are below the truth; among equals the place is drawn."""
    return (draws < truth).sum(0) + rng.integers(0, (draws == truth).sum(0) + 1)


# ------------------------------------------------------------------ is it uniform?


def uniformity(ranks: np.ndarray, n_bins: int) -> float:
    """Chance that R independent uniform ranks stray from uniform, where they stray most, as far as these.

    Exact: the distribution function at each of the ``n_bins - 1`` cuts is binomial, and the chance that all of them lie
    within bands is summed along the cuts (Säilynoja, Bürkner and Vehtari 2022, section 2.2).
    """
    n = len(ranks)
    below = np.searchsorted(np.sort(ranks), np.arange(1, n_bins), side="left")
    gamma = _tails(below, n, np.arange(1, n_bins) / n_bins).min()
    return float(min(1.0, max(0.0, 1 - _chance_inside(gamma, n, n_bins))))


def band(n: int, n_bins: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the distribution function, at each cut, that uniform ranks leave with chance `alpha`."""
    low, high = 0.0, alpha
    for _ in range(30):
        gamma = (low + high) / 2
        low, high = (gamma, high) if _chance_inside(gamma, n, n_bins) >= 1 - alpha else (low, gamma)
    lower, upper = _allowed(low, n, n_bins)
    return lower / n, upper / n


def _tails(below: np.ndarray, n: int, share: np.ndarray) -> np.ndarray:
    """Twice the smaller tail of the binomial distribution at counts."""
    return 2 * np.minimum(binom.cdf(below, n, share), binom.sf(below - 1, n, share))


def _allowed(gamma: float, n: int, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest count at each cut whose tails exceed gamma."""
    share = np.arange(1, n_bins) / n_bins
    inside = _tails(np.arange(n + 1)[:, None], n, share) > gamma * (1 + 1e-9)
    return inside.argmax(0), np.where(inside.any(0), n - inside[::-1].argmax(0), -1)


def _chance_inside(gamma: float, n: int, n_bins: int) -> float:
    """Chance that at every cut the count's tails exceed gamma: a Markov chain along the cuts."""
    lower, upper = _allowed(gamma, n, n_bins)
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    states, chance = np.array([0]), np.ones(1)
    for i in range(n_bins - 1):
        after = np.arange(lower[i], upper[i] + 1)
        if not len(after):
            return 0.0
        step, rest, p = after - states[:, None], n - states[:, None], 1 / (n_bins - i)
        fits = (step >= 0) & (step <= rest)
        step = np.where(fits, step, 0)
        log_pmf = log_factorial[rest] - log_factorial[step] - log_factorial[rest - step]
        log_pmf = log_pmf + step * np.log(p) + (rest - step) * np.log1p(-p)
        states, chance = after, chance @ np.where(fits, np.exp(log_pmf), 0.0)
    return float(chance.sum())


# ------------------------------------------------------------------ engines with the rows swapped


class _Posterior:
    """A model whose rows are swapped: its log density is made once.

    Parameters
    ----------
    bound : Bound
    n_draws : int
    order, n_starts
        See `calibrate`.
    jacobian : bool
        False drops the Jacobians of PyMC's transforms, which is wrong: tests of the test want that.
    """

    def __init__(self, bound: Bound, n_draws: int, *, order: Any = None, n_starts: int = 4, jacobian: bool = True):
        self.bound, self.n_draws, self.order, self.n_starts, self.jacobian = bound, n_draws, order, n_starts, jacobian
        self.target: Any = None

    def _put(self, data: Encoded, rng: np.random.Generator) -> np.ndarray:
        """Put the rows in place; EM's mode in unconstrained coordinates."""
        mode, _ = maximise(self.bound, data, np.ones(data.n_rows), n_starts=self.n_starts, random_seed=rng, explore=0)
        if self.target is None:
            model = model_of(self.bound, data, order=self.order, initval=mode.params)
            self.target = Target(model, self._at(mode.params), jacobian=self.jacobian)
            ops = [rv.owner.op for rv in model.observed_RVs]
            self.rows: Any = next(op.parts.fused for op in ops if isinstance(op, RowsRV))
        else:
            self.rows.swap(data)
        self.data = data
        return self.target.unconstrained(self._at(mode.params))

    def _at(self, params: Params) -> dict[str, np.ndarray]:
        """A mode as variables of the model: where `order` cuts it off, they are sorted each by itself."""
        return variables_at(self.bound, ascending(self.bound, params, check_order(self.bound, self.order)), self.order)

    def _found(self, u: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Points (L, d) as draws of all free parameters."""
        draws = {name: values[None] for name, values in self.target.constrained(u).items()}
        whole = completed(self.bound, self.data, np.ones(self.data.n_rows), draws, rng)
        return {name: values[0] for name, values in whole.items()}


class _Nuts(_Posterior):
    """One chain, from EM's mode with a jitter of the Laplace scale."""

    def __init__(self, bound: Bound, n_draws: int, *, thin: int = 5, tune: int = 300, **kwargs: Any):
        super().__init__(bound, n_draws, **kwargs)
        self.thin, self.tune = thin, tune

    def __call__(self, data: Encoded, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], int]:
        start = self._start(data, rng)
        arrays, stats, _ = _nutpie(
            self.target.model,
            self.target,
            start[None],
            draws=self.n_draws * self.thin,
            tune=self.tune,
            cores=1,
            target_accept=0.8,
            seed=int(rng.integers(2**31)),
            progressbar=False,
        )
        kept = slice(self.thin - 1, None, self.thin)
        draws = {rv.name: arrays[rv.name][:, kept] for rv in self.target.model.free_RVs}
        whole = completed(self.bound, data, np.ones(data.n_rows), draws, rng)
        return {n: v[0] for n, v in whole.items()}, int(stats["diverging"].sum())

    def _start(self, data: Encoded, rng: np.random.Generator) -> np.ndarray:
        mode = self._put(data, rng)
        step = laplace_factor(self.target.hessian(mode)) @ rng.standard_normal(len(mode)).clip(-_JITTER, _JITTER)
        return started(self.target, step[None], mode)[0]


class _Advi(_Posterior):
    """Full-rank ADVI, corrected as `fit_advi` corrects it."""

    def __call__(self, data: Encoded, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], int]:
        start = self._put(data, rng)
        family = _FullRank(self.target, start)
        best, _, _ = ascend(
            self.target, family, fixed_points(len(start), None, rng), 500, 1e-6, Progress("", None, False)
        )
        return self._corrected(lambda z: family.transform(best, z), family.entropy(best), len(start), rng), 0

    def _corrected(self, points_of: Any, entropy: float, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draws of a normal approximation, resampled by importance where the weights can be trusted."""
        z = rng.standard_normal((max(self.n_draws, FEWEST), size))
        log_q = 0.5 * (size - (z**2).sum(1)) - entropy
        points, _ = corrected(self.target, points_of(z), log_q, self.n_draws, True, rng)
        return self._found(points, rng)


class _Laplace(_Advi):
    """The normal distribution at the mode of the unconstrained coordinates' density, corrected as in `fit_laplace`."""

    def __call__(self, data: Encoded, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], int]:
        start = self._put(data, rng)
        found = laplace_at(self.target, start)
        size = len(found.point)
        entropy = 0.5 * size * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(found.factor)[1]
        return self._corrected(lambda z: found.point + z @ found.factor.T, float(entropy), size, rng), 0


_SAMPLERS: dict[str, Any] = {"nuts": _Nuts, "advi": _Advi, "laplace": _Laplace}
