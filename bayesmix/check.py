"""One report on what a posterior can be trusted for.

Each check is a function of an `_Evidence` that yields findings: what was found, where, and the way out. They know no
family and no engine; what a check needs and an engine does not give (chains, draws, a sampler's statistics) is listed
as not checked instead.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from bayesmix.bound import Bound
from bayesmix.build import RowsRV, model_of, variables_at
from bayesmix.compilation import QUICK, QuickFunction
from bayesmix.data import read
from bayesmix.diagnostics import ESS, RHAT, SWITCHING, Convergence, convergence, label_free
from bayesmix.errors import DataError, SpecError
from bayesmix.fit import Fit, Status
from bayesmix.inference.degenerate import WAY_OUT, indistinct, overruled
from bayesmix.inference.laplace import information_rank
from bayesmix.inference.modes import weighed
from bayesmix.inference.spikes import spikes
from bayesmix.inference.target import Target
from bayesmix.params import SIMPLEX
from bayesmix.plan import EStep
from bayesmix.psis import INEXACT_K, LARGEST_K
from bayesmix.spec import Evaluation, Site
from bayesmix.symmetry import symmetries
from bayesmix.threads import alone

#: Draws, evenly spaced, that the checks of components look at.
_DRAWS = 50
#: R-hat above which chains are in different places, and below which one is only to take more draws.
_FAR_RHAT = 1.05
#: Energy's Bayesian fraction of missing information below which tails are not explored (Betancourt 2016).
_BFMI = 0.3
#: A chain is stuck whose mean log posterior is below the best chain's by this many standard deviations within it.
_STUCK = 4.0
#: Rows that a component has at least.
_FEW_ROWS = 1.5
#: Jensen-Shannon divergence, in nats, below which two components are one: unit normals .28 apart.
_ALIKE = 0.01
#: A parameter says no more than its prior if its posterior's interquartile range is at least this share of the prior's.
_SAME_WIDTH, _SAME_PLACE = 0.9, 0.2
_PRIOR_DRAWS = 2000
#: Of draws; from there on no labelling means much.
_NO_LABELS = 0.1

#: Parameters up to which it is looked whether the data tell them apart: each takes passes of its own.
_MOST_RANKED = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str
        Such as ``"divergences"``: the same in every version.
    severity : {"serious", "caution", "note"}
    what : str
        What was found, with its figure.
    where : str
        Parameters, components, chains or rows that it is about; empty where it is about all.
    way_out : str

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([0, 1, 1, 0, 9, 12, 8, 9]), random_seed=1)
    >>> fit.check()["duplicate_components"].severity
    'caution'
    """

    code: str
    severity: str
    what: str
    where: str
    way_out: str

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.severity}: {self.code}{place}: {self.what} {self.way_out}".rstrip()


@dataclass(frozen=True)
class Report:
    """What `Fit.check` found.

    Attributes
    ----------
    engine : str
    findings : tuple of Finding
        Worst first.
    checked : tuple of str
        Codes of the checks that were made.
    unchecked : tuple of str
        What could not be checked, and why.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([0, 1, 1, 0, 9, 12, 8, 9]), random_seed=1)
    >>> report = fit.check()
    >>> report.verdict, "duplicate_components" in report
    ('caution', True)
    """

    engine: str
    findings: tuple[Finding, ...]
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What to make of it: "do not use" after a serious finding, "caution" after a lesser one, else "trust"."""
        found = {finding.severity for finding in self.findings}
        return "do not use" if "serious" in found else "caution" if "caution" in found else "trust"

    def __contains__(self, code: str) -> bool:
        return any(finding.code == code for finding in self.findings)

    def __getitem__(self, code: str) -> Finding:
        """The worst finding of a code."""
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(code)

    def to_frame(self) -> pd.DataFrame:
        """A line for each finding."""
        columns = ["code", "severity", "what", "where", "way_out"]
        return pd.DataFrame([[getattr(each, name) for name in columns] for each in self.findings], columns=columns)

    def __str__(self) -> str:
        lines = [f"{self.engine}: {self.verdict}"]
        for each in self.findings:
            place = f" ({each.where})" if each.where else ""
            lines.append(f"  {each.severity:8} {each.code}{place}: {each.what}")
            if each.way_out:
                lines.append(f"  {'':8} → {each.way_out}")
        if self.checked:
            fine = [code for code in self.checked if code not in self]
            lines.append(f"  not found: {', '.join(fine)}" if fine else "  nothing is fine")
        lines += [f"  not checked: {each}" for each in self.unchecked]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(index=False) if self.findings else ""
        rest = "".join(f"<li>not checked: {html.escape(each)}</li>" for each in self.unchecked)
        return f"<p><b>{html.escape(self.engine)}: {self.verdict}</b></p>{table}<ul>{rest}</ul>"


@alone
def check(posterior: Any, model: pm.Model | None = None, data: Any = None) -> Report:
    """Everything that speaks for or against trusting a posterior, with the way out of each fault.

    Parameters
    ----------
    posterior : Fit or xarray.DataTree
        Of any engine; or what `pymc.sample` gave for a model of `bayesmix.build_model`.
    model : pymc.Model, optional
        That model, with a DataTree: also one whose priors depend on variables of your own.
    data : table, optional
        The training table, of a fit that was loaded.

    Returns
    -------
    Report

    References
    ----------
    Vehtari et al. 2021, *Bayesian Analysis* 16 (R-hat, effective sample sizes); Betancourt 2016, arXiv:1604.00695
    (energy); Vehtari et al. 2024, *JMLR* 25 (Pareto k); Rothenberg 1971, *Econometrica* 39 (rank of the information).

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> fit = bm.fit_nuts(bm.Mixture(bm.Normal(), 2), x, draws=500, tune=500, random_seed=1)
    >>> bm.check(fit).verdict
    'trust'
    """
    evidence = _Evidence(posterior if isinstance(posterior, Fit) else fit_of(posterior, model), model, data)
    found: list[Finding] = []
    checked: list[str] = []
    unchecked: list[str] = []
    for codes, needs, look in _CHECKS:
        why = evidence.lacks(needs)
        if why:
            if why not in unchecked:
                unchecked.append(why)
            continue
        try:
            found += look(evidence)
            checked += codes
        except (SpecError, NotImplementedError, np.linalg.LinAlgError) as error:
            unchecked.append(f"{', '.join(codes)}: {error}")
    found.sort(key=lambda finding: ("serious", "caution", "note").index(finding.severity))
    return Report(evidence.fit.status.engine, tuple(found), tuple(checked), tuple(unchecked))


class _Evidence:
    """A fit, and what several checks need of it, computed once."""

    def __init__(self, fit: Fit, model: pm.Model | None, data: Any):
        if data is not None:
            data = read(data)
            fit = replace(fit, table=data, encoded=fit._training(data))
        self.fit, self.model = fit, model
        self.bound: Bound = fit.bound
        self.posterior = fit.posterior
        self.n_chains, self.n_draws = self.posterior.sizes["chain"], self.posterior.sizes["draw"]
        self.data: Any = fit.encoded
        groups = fit.idata.children
        self.stats = groups["sample_stats"].to_dataset() if "sample_stats" in groups else xr.Dataset()
        weights: Any = groups["constant_data"]["row_weights"].to_numpy() if "constant_data" in groups else None
        self.row_weights = weights
        if self.data is not None:
            self.ones = np.ones(self.data.n_rows) if weights is None else np.asarray(weights, float)

    @property
    def draws(self) -> int:
        """Of all chains together."""
        return self.n_chains * self.n_draws

    def lacks(self, needs: str) -> str:
        """Why a check cannot be made; empty where it can."""
        engine = self.fit.status.engine
        if "chains" in needs and self.n_chains < 2:
            return (
                f"convergence of chains (R-hat, effective sample sizes, stuck chains): {engine} has no several chains"
            )
        if "chains" in needs and self.n_draws < 4:
            return f"convergence of chains: {self.n_draws} draws a chain are too few"
        if "sampler" in needs and not len(self.stats):
            return f"the sampler (divergences, energy, tree depth): {engine} is no sampler"
        if "draws" in needs and self.draws < 100:
            return f"what only draws show (posterior against prior, labels): {engine} gave {self.draws}"
        if "data" in needs and self.data is None:
            return "components, ties and rank: a loaded fit does not keep its table; pass data="
        return ""

    def points(self, count: int = _DRAWS) -> list[dict[str, np.ndarray]]:
        """Values of all slots at some draws, evenly spaced."""
        flat = {n: self.posterior[n].values.reshape(-1, *self.posterior[n].shape[2:]) for n in self.bound.free_slots}
        picked = np.unique(np.linspace(0, self.draws - 1, min(count, self.draws)).astype(int))
        return [self.bound.with_fixed({name: values[i] for name, values in flat.items()}) for i in picked]

    @cached_property
    def best(self) -> dict[str, np.ndarray]:
        """The likeliest of those points: a mean would be of nothing where labels switch."""
        return max(self.points(), key=lambda point: float(self.ones @ self.bound.log_density(point, self.data)))

    @cached_property
    def convergence(self) -> Convergence:
        return convergence(self.fit)

    @cached_property
    def target_with_others(self) -> tuple[Any, dict[str, np.ndarray]]:
        """The log posterior of the user's model, and the values of its own variables; nothing without one."""
        if self.model is None:
            return None, {}
        at = {rv.name: self.posterior[rv.name].median(("chain", "draw")).values for rv in self.model.free_RVs}
        others = {name: value for name, value in at.items() if name not in self.bound.slots}
        return Target(self.model, {**others, **variables_at(self.bound, self.best)}, jacobian=True), others

    @cached_property
    def target(self) -> Any:
        """The fit's own log posterior, made once for all checks; None where it has parameters that are summed out."""
        if self.bound.discrete_slots or not self.bound.sampled_slots:
            return None
        model = model_of(self.bound, self.data, row_weights=self.row_weights, initval=self.best)
        return Target(model, variables_at(self.bound, self.best), jacobian=True)

    @property
    def modes(self) -> Any:
        """The fit's modes, weighed."""
        found, fit = self.fit.modes_found, self.fit
        if not found or fit.encoded is None or any(not np.isnan(mode.weight) for mode in found):
            return fit.modes
        return weighed(self.bound, fit.encoded, fit.row_weights, found, self.target)

    @property
    def computed(self) -> set[str]:
        """Slots that are expressions of the user's variables: the flat prior that they stand here with is no one's."""
        return set() if self.model is None else set(self.bound.free_slots) - {rv.name for rv in self.model.free_RVs}


def fit_of(idata: Any, model: pm.Model | None) -> Fit:
    """A `Fit` of what `pymc.sample` drew from a model that `build_model` made.

    Parameters that are expressions of the user's variables are computed for every draw.
    """
    if model is None:
        raise TypeError("check: with draws of pymc.sample pass the model too: bm.check(idata, model).")
    rows = [rv for rv in model.observed_RVs if rv.owner is not None and isinstance(rv.owner.op, RowsRV)]
    if not rows:
        raise DataError("model: bm.build_model did not make this model, so bm.check does not know its components.")
    op, inputs = rows[0].owner.op, rows[0].owner.inputs
    bound, given = op.parts.bound, inputs[op.n_rngs :]
    if op.parts.fused is None:
        raise DataError('model: it keeps no encoded rows. Build it with likelihood="fused" and labels="marginal".')
    posterior = idata["posterior"].to_dataset() if hasattr(idata["posterior"], "to_dataset") else idata["posterior"]
    tensors = {n: given[i] for i, (n, slot) in enumerate(bound.slots.items()) if slot.kind == "tensor"}
    if tensors:
        free = [rv for rv in model.free_RVs if rv.name in posterior]
        value_of = QuickFunction(free, list(tensors.values()))
        shape = (posterior.sizes["chain"], posterior.sizes["draw"])
        each = [value_of(*[posterior[rv.name].values[at] for rv in free]) for at in np.ndindex(*shape)]
        for i, name in enumerate(tensors):
            values = np.array([np.asarray(value[i]) for value in each])
            posterior[name] = (("chain", "draw", *bound.slots[name].dims), values.reshape(*shape, *values.shape[1:]))
        bound = _computed(bound, set(tensors))
    tree = {"posterior": posterior}
    if "sample_stats" in idata.children:
        tree["sample_stats"] = idata["sample_stats"].to_dataset()
    weights = op.parts.fused.weights
    if op.parts.weighted:
        tree["constant_data"] = xr.Dataset({"row_weights": (("row",), weights)})
    status = Status("pymc", True, "Drawn by pymc.sample.")
    return Fit(bound, xr.DataTree.from_dict(tree), status, math.nan, encoded=op.parts.fused.data)


def _computed(bound: Bound, names: set[str]) -> Bound:
    """The same with some slots, whose values the posterior has, as free ones without a prior of their own."""

    def changed(site: Site) -> Site:
        slots = {
            key: replace(
                slot,
                kind="prior",
                value=None,
                rv=slot.support.flat(tuple(map(len, slot.axes)), slot.event_shape) if slot.support.flat else None,
            )
            if slot.name in names
            else slot
            for key, slot in site.slots.items()
        }
        return replace(site, slots=slots, children=tuple(changed(child) for child in site.children))

    return replace(bound, site=changed(bound.site))


# ------------------------------------------------------------------ chains and sampler


def _chains(e: _Evidence) -> Iterator[Finding]:
    found = e.convergence
    free = found.table["label_free"]
    for mask, name in ((free, "quantities that labels cannot change"), (~free, "parameters")):
        rhat = found.table["r_hat"][mask]
        if (rhat > RHAT).any():
            worst = rhat[rhat > RHAT].sort_values(ascending=False)
            yield Finding(
                "r_hat",
                "serious" if worst.iloc[0] > _FAR_RHAT else "caution",
                f"R-hat of {name} up to {worst.iloc[0]:.4f}; above {RHAT} chains do not agree.",
                _first(worst.index),
                "Take more draws and tune; where chains stay apart, look at fit.modes.",
            )
    for column, code, meaning in (
        ("ess_bulk", "ess_bulk", "means"),
        ("ess_tail", "ess_tail", "interval ends"),
    ):
        ess = found.table[column].dropna()
        low = ess[ess < ESS * found.n_chains].sort_values()
        if len(low):
            yield Finding(
                code,
                "serious" if low.iloc[0] < 0.1 * ESS * found.n_chains else "caution",
                f"effective sample size {low.iloc[0]:.0f}, below {ESS * found.n_chains}: {meaning} are imprecise.",
                _first(low.index),
                "Take more draws.",
            )


def _stuck(e: _Evidence) -> Iterator[Finding]:
    quantities = label_free(e.fit)
    name = "log_posterior" if "log_posterior" in quantities else "log_likelihood"
    values = quantities[name].values
    means, spread = values.mean(1), values.std(1)
    best = int(means.argmax())
    below = means[best] - means
    # a chain that still climbs, or explores a mode of its own, has a spread of its own: the best chain's is the measure
    stuck = np.flatnonzero(below > _STUCK * max(float(spread[best]), 0.5))
    for chain in stuck:
        yield Finding(
            "stuck_chain",
            "serious",
            f"its mean {name.replace('_', ' ')} is {below[chain]:.0f} nats below chain {best}'s.",
            f"chain {chain}",
            "It is in an inferior mode: sample again from fit.modes[0], and do not pool it with the others.",
        )


def _one_chain(e: _Evidence) -> Iterator[Finding]:
    if len(e.stats) and e.n_chains < 2:
        yield Finding("one_chain", "caution", "one chain cannot show whether it converged.", "", "Use chains=4.")


def _sampler(e: _Evidence) -> Iterator[Finding]:
    if "diverging" in e.stats:
        diverged = int(e.stats["diverging"].values.sum())
        if diverged:
            yield Finding(
                "divergences",
                "serious" if diverged > 0.01 * e.draws else "caution",
                f"{diverged} of {e.draws} draws diverged: there are places that the sampler cannot follow.",
                "",
                "Raise target_accept; a scale near 0 or an empty component wants a stronger prior.",
            )
    if "energy" in e.stats:
        energy = e.stats["energy"].values
        with np.errstate(invalid="ignore", divide="ignore"):
            fraction = (np.diff(energy, axis=1) ** 2).mean(1) / energy.var(1)
        low = np.flatnonzero(fraction < _BFMI)
        if len(low):
            yield Finding(
                "e_bfmi",
                "caution",
                f"energy's fraction of missing information is {np.nanmin(fraction):.2f}, below {_BFMI}: tails are "
                "explored slowly.",
                _first([f"chain {chain}" for chain in low]),
                "Take more tune; a prior with lighter tails helps.",
            )
    for name in ("maxdepth_reached", "reached_max_treedepth"):
        if name in e.stats and (share := float(e.stats[name].values.mean())) > 0.05:
            yield Finding(
                "tree_depth",
                "caution",
                f"{share:.0%} of the draws reached the largest tree depth: they move little.",
                "",
                "Raise the largest tree depth, or look for parameters that the data do not identify.",
            )


def _rest(e: _Evidence) -> Iterator[Finding]:
    """What the engine says of itself."""
    k = e.fit.pareto_k
    far = k is not None and not k < LARGEST_K
    if not e.fit.status.converged and not len(e.stats) and not far:
        yield Finding(
            "not_converged", "serious", e.fit.status.message, "", "Raise max_iter, or start it from elsewhere."
        )
    if far:
        yield Finding(
            "pareto_k",
            "serious",
            f"Pareto k {k:.2f} is not below {LARGEST_K}: the approximation is too far from the posterior.",
            "",
            'Use method="nuts".',
        )
    elif k is not None and k > INEXACT_K:
        yield Finding(
            "pareto_k",
            "caution",
            f"Pareto k {k:.2f} is above {INEXACT_K}: the approximation is of use, but its intervals may be off.",
            "",
            'Use method="nuts" where they matter.',
        )


def _starts(e: _Evidence) -> Iterator[Finding]:
    starts = e.fit.starts
    failed = [each for each in starts if str(each.get("status", "")).startswith("failed")]
    if failed:
        yield Finding(
            "failed_starts",
            "caution" if 2 * len(failed) > len(starts) else "note",
            f"{len(failed)} of EM's {len(starts)} starts failed ({str(failed[0]['status']).removeprefix('failed: ')}).",
            "",
            "Use priors that keep components from collapsing (the default ones do), or fewer components.",
        )
    modes = e.fit.modes_found
    if modes is not None and len(starts) >= 8 and len(modes) > 1 and modes[0].starts == 1:
        yield Finding(
            "lone_start",
            "caution",
            f"one of EM's {len(starts)} starts reached the best mode: there may be better ones still.",
            "",
            "Raise n_starts.",
        )


def _modes(e: _Evidence) -> Iterator[Finding]:
    modes = e.modes
    if modes is not None and (text := modes.describe()):
        yield Finding(
            "modes",
            "caution",
            f"{text[0].upper()}{text[1:]}.",
            "",
            "What is said of components is of one mode. Compare them, or sample from each and combine.",
        )


# ------------------------------------------------------------------ components


def _labels(e: _Evidence) -> Iterator[Finding]:
    labels = e.fit.relabelling
    if labels is None and any(len(each.members) > 1 for each in symmetries(e.bound)):
        labels = e.fit.relabel(None, like=e.best).relabelling
    if labels is None:
        return
    if labels.share_moved >= SWITCHING and labels.method is None:
        yield Finding(
            "label_switching",
            "serious",
            f"{labels.share_moved:.1%} of the draws carry other labels: means over draws mix components.",
            _first([name for name, share in labels.moved.items() if share.any()]),
            "Use fit.relabel(), or order= one of the parameters.",
        )
    elif labels.share_moved >= SWITCHING:
        yield Finding(
            "label_switching",
            "note",
            f"labels switched in {labels.share_moved:.1%} of the draws, and were put back.",
            _first([name for name, share in labels.moved.items() if share.any()]),
            "",
        )
    vague = {name: share for name, share in labels.non_permutation.items() if share > _NO_LABELS}
    if vague:
        yield Finding(
            "vague_labels",
            "caution",
            f"in {max(vague.values()):.0%} of the draws the components are no permutation of the others': no labelling "
            "means much.",
            _first(vague),
            "Use what does not depend on labels (log_density, co-clustering), or fewer components.",
        )


def _empty(e: _Evidence) -> Iterator[Finding]:
    held: dict[str, list] = {}
    for point in e.points():
        _, stats = e.bound.e_step(point, e.data, e.ones)
        for site in e.bound.site.distinct():
            if "weights" in site.slots and site.key in stats:
                held.setdefault(site.key, []).append(_own_rows(site, stats[site.key]["n"]))
    largest = float(e.ones.max())
    for site in e.bound.site.distinct():
        if site.key not in held:
            continue
        rows = np.mean(held[site.key], axis=0)
        few = [tuple(map(int, at)) for at in np.argwhere(rows < _FEW_ROWS * largest)] if rows.shape[-1] > 1 else []
        within = rows.shape[0] > 1
        if few:
            yield Finding(
                "empty_component",
                "caution",
                f"{'they hold' if len(few) > 1 else 'it holds'} {rows[few[0]]:.2g} rows: no group, and parameters that "
                "come from the prior.",
                _first([_component(site, at, within) for at in few]),
                "Use fewer components; bm.select helps to choose.",
            )


def _duplicate(e: _Evidence) -> Iterator[Finding]:
    points = e.points(20)
    found: dict[tuple[str, int, int, int], list[float]] = {}
    sites: dict[str, Site] = {}
    for point in points:
        for site, evaluation in _mixtures(e.bound.site, e.bound.site.evaluate(point, e.data)):
            sites[site.key] = site
            with np.errstate(divide="ignore", invalid="ignore"):
                density = evaluation.joint - np.log(site.values(point)["weights"])
            for k in range(density.shape[1]):
                for i in range(density.shape[2]):
                    for j in range(i):
                        value = _divergence(density[:, k, i], density[:, k, j], evaluation.log_density[:, k])
                        found.setdefault((site.key, k, j, i), []).append(value)
    root = indistinct(EStep(e.bound, e.data, e.ones), e.best) if e.bound.is_mixture else None
    alike: dict[str, list] = {}
    for (key, k, j, i), values in found.items():
        if np.mean(values) < _ALIKE:
            alike.setdefault(key, []).append((k, j, i, float(np.mean(values))))
    for key, pairs in alike.items():
        k, j, i, value = min(pairs, key=lambda pair: pair[-1])
        within = f" within {_around(sites[key], k)}" if sites[key].n_components > 1 else ""
        yield Finding(
            "duplicate_components",
            "caution",
            f"components {j} and {i} have nearly one density{within} (Jensen-Shannon divergence {value:.2g} nats).",
            f"{sites[key].slots['weights'].name}",
            "Use one component less; bm.select helps to choose.",
        )
    if root is not None and e.bound.site.key not in alike:
        yield Finding(
            "duplicate_components",
            "caution",
            f"{root}.",
            e.bound.site.slots["weights"].name,
            "Use one component less; bm.select helps to choose.",
        )


def _divergence(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> float:
    """Jensen-Shannon divergence of two log densities (N,), estimated on rows that are draws of `total`."""
    good = np.isfinite(total)
    if not good.any():
        return math.inf
    a, b, total = a[good], b[good], total[good]
    if not (np.isfinite(a) & np.isfinite(b)).any():
        return math.inf
    half = np.logaddexp(a, b) - math.log(2)
    with np.errstate(invalid="ignore", over="ignore"):
        share = [np.exp(each - total) for each in (a, b)]
        terms = [
            np.where(w > 0, w * (each - half), 0.0).sum() / w.sum() for w, each in zip(share, (a, b)) if w.sum() > 0
        ]
    return max(0.0, 0.5 * float(sum(terms))) if len(terms) == 2 else math.inf


def _mixtures(site: Site, evaluation: Evaluation) -> Iterator[tuple[Site, Evaluation]]:
    """Every mixture of the tree with its evaluation."""
    if evaluation.joint is not None and evaluation.joint.shape[2] > 1:
        yield site, evaluation
    for child, below in zip(site.children, evaluation.children):
        yield from _mixtures(child, below)


# ------------------------------------------------------------------ what the data say


def _weak(e: _Evidence) -> Iterator[Finding]:
    weak = []
    for name, prior in _prior_draws(e).items():
        values = e.posterior[name].values.reshape(e.draws, -1)
        prior = prior.reshape(len(prior), -1)
        slot = e.bound.slots.get(name)
        last = slot is not None and slot.support is SIMPLEX
        for i, index in enumerate(np.ndindex(*e.posterior[name].shape[2:])):
            if last and index[-1] == e.posterior[name].shape[-1] - 1:
                continue
            before, after = (np.quantile(each[:, i], [0.25, 0.5, 0.75]) for each in (prior, values))
            width = before[2] - before[0]
            if (
                width > 0
                and after[2] - after[0] > _SAME_WIDTH * width
                and abs(after[1] - before[1]) < _SAME_PLACE * width
            ):
                weak.append(f"{name}[{', '.join(map(str, index))}]" if index else name)
    if weak:
        yield Finding(
            "weakly_identified",
            "caution",
            f"{len(weak)} parameter{'s are' if len(weak) > 1 else ' is'} no better known than a priori.",
            _first(weak),
            "Report them as what the prior says, fix them, or gather data that speak of them.",
        )


def _overruled(e: _Evidence) -> Iterator[Finding]:
    _, stats = e.bound.e_step(e.best, e.data, e.ones)
    for each in overruled(e.bound, stats, e.best, e.data):
        yield Finding(
            "prior_overrules_rows",
            "caution",
            f"{each}.",
            _first(
                [_around(each.site, k) if each.site.axes else each.site.place.path or "data" for k in each.components]
            ),
            WAY_OUT,
        )


def _prior_draws(e: _Evidence) -> dict[str, np.ndarray]:
    """Draws (S, *shape) of the variables that have a proper prior."""
    rng = np.random.default_rng(0)
    if e.model is not None:
        rvs = [rv for rv in e.model.free_RVs if rv.name in e.posterior]
        drawn = pm.draw(rvs, draws=_PRIOR_DRAWS, random_seed=rng, mode=QUICK)
        return {rv.name: values for rv, values in zip(rvs, drawn)}
    found = {}
    for name, slot in e.bound.free_slots.items():
        try:
            if not slot.depends_on_model:
                found[name] = np.asarray(pm.draw(slot.rv, draws=_PRIOR_DRAWS, random_seed=rng, mode=QUICK), float)
        except NotImplementedError:
            continue
    return found


def _improper(e: _Evidence) -> Iterator[Finding]:
    """Flat priors in a mixture, and spikes on tied rows."""
    flat = []
    for site in e.bound.site.distinct():
        for slot in site.slots.values():
            if slot.free and not slot.discrete and site.axes and _is_flat(slot) and slot.name not in e.computed:
                flat.append(slot.name)
    if flat and e.draws > 1:
        yield Finding(
            "improper_prior",
            "serious",
            "a component that is empty takes any value of a flat prior: the posterior has no finite mass.",
            _first(flat),
            "Give a proper prior, or leave the default.",
        )
    if e.computed:
        raise SpecError(
            f"{_first(sorted(e.computed))}: an expression of your own variables, whose prior near 0 is unknown"
        )
    target, others = e.target_with_others
    for spike in spikes(e.bound, e.data, e.best, e.row_weights, target or e.target, others):
        yield Finding(
            "improper_posterior",
            "serious" if e.draws > 1 else "caution",
            f"{spike}",
            _first(spike.slots),
            "Use a prior that vanishes at 0 (the default does), or model the rounding.",
        )


def _is_flat(slot: Any) -> bool:
    return slot.support.ndim != 1 and type(slot.rv.owner.op).__name__ in ("FlatRV", "HalfFlatRV", "FlatCovarianceRV")


def _says_nothing(slot: Any, value: np.ndarray) -> bool:
    """Whether the prior's density is the same at a value and between it and its mean."""
    if slot.depends_on_model:
        return False
    between = 0.9 * value + 0.1 * (value.mean(-1, keepdims=True) if slot.support is SIMPLEX else value.mean() + 0.01)
    return abs(slot.log_prior(between) - slot.log_prior(value)) < 1e-9


def _rank(e: _Evidence) -> Iterator[Finding]:
    size = sum(slot.n_free for slot in e.bound.sampled_slots.values())
    if size > _MOST_RANKED:
        raise SpecError(f"the rank of an information matrix of {size:,} parameters would take hours")
    rank, free = information_rank(e.bound, e.best, e.data, e.row_weights)
    if rank < free:
        flat = all(_says_nothing(slot, e.best[name]) for name, slot in e.bound.sampled_slots.items())
        yield Finding(
            "not_identified",
            "serious" if flat else "caution",
            f"the information matrix has rank {rank}, and there are {free} parameters: {free - rank} direction"
            f"{'s' if free - rank > 1 else ''} in which the likelihood does not change.",
            "",
            "The prior alone decides there. Use fewer components, or share or fix parameters.",
        )


_CHECKS: tuple[tuple[tuple[str, ...], str, Callable[[_Evidence], Iterator[Finding]]], ...] = (
    (("r_hat", "ess_bulk", "ess_tail"), "chains data", _chains),
    (("stuck_chain",), "chains data", _stuck),
    ((), "", _one_chain),
    (("divergences", "e_bfmi", "tree_depth"), "sampler", _sampler),
    (("not_converged", "pareto_k"), "", _rest),
    (("failed_starts", "lone_start"), "", _starts),
    (("modes",), "", _modes),
    (("label_switching", "vague_labels"), "draws data", _labels),
    (("empty_component",), "data", _empty),
    (("duplicate_components",), "data", _duplicate),
    (("weakly_identified",), "draws", _weak),
    (("prior_overrules_rows",), "data", _overruled),
    (("improper_prior", "improper_posterior"), "data", _improper),
    (("not_identified",), "data", _rank),
)


def _first(names: Any, most: int = 4) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _own_rows(site: Site, rows: np.ndarray) -> np.ndarray:
    """Rows of components (K, G), those of shared ones together over the components around that share them."""
    below = site.children[0].axes
    gone = tuple(i for i, axis in enumerate(site.axes) if axis not in below)
    wide = rows.reshape([*[len(axis) for axis in site.axes], -1]).sum(gone)
    return wide.reshape(-1, rows.shape[-1])


def _component(site: Site, at: tuple[int, ...], within: bool) -> str:
    """A component of a mixture, in words: ``component 2`` or ``x_component 1 in component 0``."""
    slot = site.slots["weights"]
    own = f"{slot.event[0].name} {at[-1]}"
    return f"{own} in {_around(site, at[0])}" if within else own


def _around(site: Site, k: int) -> str:
    places = np.unravel_index(k, [len(axis) for axis in site.axes])
    return ", ".join(f"{axis.name} {int(place)}" for axis, place in zip(site.axes, places))
