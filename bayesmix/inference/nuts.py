"""The full posterior by NUTS."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from pymc.step_methods.hmc.base_hmc import BaseHMC

from bayesmix import arguments
from bayesmix.bound import Bound, prepare, require_free
from bayesmix.build import check_order, mode_in_order, model_of, variables_at
from bayesmix.checkpoint import Checkpoint, Run, check_place, incomplete, kept_chains, read_checkpoint
from bayesmix.diagnostics import verdict
from bayesmix.discrete import completed
from bayesmix.errors import ConvergenceWarning, close_to, warn
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.inference.chains import STATS, Drawn, nutpie_options, sample, stacked
from bayesmix.inference.degenerate import warn_of_components
from bayesmix.inference.em import maximise
from bayesmix.inference.laplace import laplace_at, start_of
from bayesmix.inference.large import nuts_of_rows
from bayesmix.inference.modes import (
    THOROUGH,
    Modes,
    check_modes,
    dominant,
    joined,
    not_visited,
    stuck_chains,
    with_caution,
)
from bayesmix.inference.rows import rows_in_memory, rows_in_parts
from bayesmix.inference.spikes import spikes
from bayesmix.inference.start import with_mode_inside
from bayesmix.inference.target import Target
from bayesmix.params import Params
from bayesmix.plan import EStep
from bayesmix.relabel import METHODS, location_slot, relabelled
from bayesmix.seeds import entropy_of
from bayesmix.sources import source_of
from bayesmix.spec import Node
from bayesmix.symmetry import ascending

#: Components are ordered where their locations lie this many posterior standard deviations apart.
_SEPARATION = 5.0
#: Chains start within this many Laplace standard deviations of the mode, in each principal direction.
_JITTER = 2.0


def fit_nuts(
    spec: Node,
    data: Any,
    *,
    draws: int | None = None,
    tune: int = 1000,
    chains: int | None = None,
    cores: int | None = None,
    target_accept: float = 0.8,
    nuts_sampler: str = "nutpie",
    order: str | Sequence[str] | None = "auto",
    relabel: str | None = "auto",
    modes: str = "auto",
    combine: str | None = None,
    row_weights: Any = None,
    n_starts: int = 16,
    subsample: int | None = None,
    n_jobs: int = 1,
    memory: int | str = "256 MiB",
    log_likelihood: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    random_seed: Any = None,
    progressbar: bool = False,
    **sampler_kwargs: Any,
) -> Fit:
    """Draw from the posterior by NUTS, every chain started at EM's mode with a jitter of the Laplace scale.

    Where that mode is on an edge of the support (a weight or a rate of 0), chains start at the mode of the density of
    the coordinates in which they move, as in `fit_laplace`.

    Parameters
    ----------
    spec : Node
    data : table or source
        N rows; see `bayesmix.fit`. Of a table that is read in parts each gradient is a pass over it, or with
        `subsample` one over the sample; the highest mode alone is sampled, draws are relabelled, and there are no
        checkpoints.
    draws, tune, chains, cores, target_accept
        As in `pymc.sample`: 1000 draws and 4 chains by default.
    nuts_sampler : {"nutpie", "pymc"}
    order : "auto", str, sequence of str, or None
        Variables whose components are kept ascending (PyMC's ``ordered`` transform). "auto" orders a mixture by
        its own family's scalar ``mu`` where the components' locations at the mode lie at least five posterior
        standard deviations apart; ordering overlapping components would cut their posterior in two.
    relabel : {"auto", "kl", "ecr", "data"} or None
        How draws of mixtures that are not ordered get one labelling, that of EM's mode; see `Fit.relabel`. "auto" is
        "kl", Stephens' algorithm. None leaves the labels as they come, and only says in ``fit.relabelling`` and in the
        status whether they switched.
    modes : {"auto", "dominant", "all"}
        Chains start from the heaviest mode that EM found (see `Fit.modes`). "auto" samples every mode that carries more
        than 1 % of the mass by Laplace's approximation, four at most, each by chains of its own; "all" those of less
        too. Where chains from different modes mix, the posterior is one; otherwise the fit is that of the heaviest, the
        others are in ``fit.mode_fits``, and a `MultimodalWarning` says so.
    combine : {"stacking", "laplace", "bridge"}, optional
        Put modes that do not mix together into one posterior; see `Fit.combine`.
    row_weights : array_like, shape (N,), optional
    n_starts : int
        Of the EM before it; see `fit_em`.
    log_likelihood : bool, optional
        Store the pointwise log-likelihood (chain, draw, row). By default where it has at most 5 million entries.
    checkpoint : path, optional
        A folder to keep draws in while they are made. After the process has died, of whatever, `load` gives those that
        were written (every half second, or twenty times what writing takes), and `resume` goes on. The folder holds the
        fit in the end. See `bayesmix.checkpoint`. For nutpie.
    resume : path, optional
        Such a folder: chains go on from their last draws with the metric that they learned, after a short tuning, until
        each has the number of draws that was asked for, or `draws`. The other settings are those it was begun with.
    overwrite : bool
        Whether `checkpoint` may take the place of another one.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool
    subsample : int, optional
        Rows that NUTS draws from; value, gradient and curvature at the mode are those of all rows (see
        `bayesmix.inference.large`). 400 of the draws are held against all rows, which ``fit.pareto_k`` is of; where
        their weights differ they are drawn again by them, and the fit has these.
    n_jobs, memory
        Of a source; see `fit_em`.
    **sampler_kwargs
        Passed on to `nutpie.sample` or `pymc.sample`.

    Returns
    -------
    Fit
        ``fit.status.converged`` says that every R-hat is at most 1.01, every bulk ESS at least 100 a chain, and
        nothing diverged (Vehtari et al. 2021), for the parameters, relabelled, and for quantities that do not depend on
        labels (`bayesmix.diagnostics`); that no chain is stuck, its log density far below another's or below what the
        mode promises; and that no other mode carries weight that is left out. Otherwise a `ConvergenceWarning` or
        `MultimodalWarning` tells what to try. After Ctrl-C it has the draws that there are, and
        ``fit.status.complete`` is False.

    Raises
    ------
    FileExistsError
        Something is at `checkpoint` already.
    TypeError
        Keywords that neither `fit_nuts` nor the sampler takes.
    DataError
        The spec or the table is not the one that `resume` was begun with.
    SpecError
        No labelling of the mode has what `order` names ascending.
    KeyboardInterrupt
        Ctrl-C before there was a draw.

    References
    ----------
    Hoffman and Gelman 2014, *JMLR* 15; Vehtari et al. 2021, *Bayesian Analysis* 16; Yao, Vehtari and Gelman
    2022, *JMLR* 23, for chains in several modes.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> fit = bm.fit_nuts(bm.Mixture(bm.Normal(), 2), x, draws=500, tune=500, random_seed=1)
    >>> fit.posterior["mu"].dims
    ('chain', 'draw', 'component')
    """
    if nuts_sampler not in ("nutpie", "pymc"):
        raise ValueError(f'nuts_sampler: "nutpie" or "pymc" is needed, not {nuts_sampler!r}.')
    _check_options(nuts_sampler, sampler_kwargs)
    arguments.check(**{name: value for name, value in {"draws": draws, "chains": chains}.items() if value is not None})
    arguments.check(tune=tune, cores=cores, target_accept=target_accept, subsample=subsample, n_jobs=n_jobs)
    if relabel not in ("auto", *METHODS, None):
        raise ValueError(f'relabel: "auto", {", ".join(map(repr, METHODS))} or None is needed, not {relabel!r}.')
    check_modes(modes, combine)
    settings: dict[str, Any] = {
        "draws": 1000 if draws is None else draws,
        "tune": tune,
        "chains": 4 if chains is None else chains,
        "target_accept": target_accept,
        "order": order if order is None or isinstance(order, str) else list(order),
        "relabel": relabel,
        "modes": modes,
        "combine": combine,
        "log_likelihood": log_likelihood,
    }
    kept: Checkpoint | None = None
    if resume is not None:
        kept = _resumed(resume, spec, {**settings, "chains": chains}, draws)
        settings = {**kept.settings, "draws": kept.settings["draws"] if draws is None else draws}
    if checkpoint is not None and resume is None:
        check_place(Path(checkpoint), overwrite)
    elif checkpoint is not None and resume is not None and os.path.abspath(checkpoint) != os.path.abspath(resume):
        raise ValueError("checkpoint: draws are added to the folder that resume= names. Leave checkpoint out.")
    if nuts_sampler != "nutpie" and (checkpoint is not None or resume is not None):
        raise ValueError('checkpoint: only nutpie writes one. Use nuts_sampler="nutpie".')
    source = source_of(data)
    if subsample is not None or source is not None:
        asked = {
            "order": order not in ("auto", None),
            "relabel": relabel not in ("auto", "kl"),
            "modes": modes not in ("auto", "dominant"),
            "combine": combine is not None,
            "log_likelihood": bool(log_likelihood),
            "checkpoint": checkpoint is not None,
            "resume": resume is not None,
            "nuts_sampler": nuts_sampler != "nutpie",
            **dict.fromkeys(sampler_kwargs, True),
        }
        if others := [name for name, given in asked.items() if given]:
            raise ValueError(
                f"{', '.join(others)}: not for a table that is read in parts, nor with subsample. The highest mode is "
                "sampled there by nutpie, and draws are relabelled by Stephens' algorithm. Leave it out."
            )
        if source is None:
            rows = rows_in_memory(prepare(spec, data, row_weights), n_jobs)
        else:
            rows = rows_in_parts(spec, source, row_weights, n_jobs, memory)
        require_free(rows.e_step.bound, "nuts")
        return nuts_of_rows(
            rows,
            subsample=subsample,
            draws=settings["draws"],
            tune=tune,
            chains=settings["chains"],
            cores=cores,
            target_accept=target_accept,
            n_starts=n_starts,
            seeds=np.random.SeedSequence(entropy_of(random_seed)).spawn(2),
            progressbar=progressbar,
        )
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    require_free(bound, "nuts")
    if order != "auto":
        check_order(bound, order)
    entropy = np.random.SeedSequence(entropy_of(random_seed) if kept is None else kept.seed).entropy
    seeds = np.random.SeedSequence(entropy).spawn(2)
    if kept is None:
        em: dict[str, Any] = {
            "n_starts": n_starts,
            "random_seed": seeds[0],
            "progressbar": progressbar,
            "explore": THOROUGH,
        }
        mode, runs = maximise(with_mode_inside(bound), encoded, weights, **em)
        at, found = dominant(bound, encoded, weights, given, mode, runs, None if order == "auto" else order)
        warn_of_components(EStep(bound, encoded, weights), at, improper=False)  # chains look for that themselves
        history, reports = np.array(mode.history), [r.report() for r in runs]
    else:
        begun = kept.begun
        assert begun.modes_found is not None
        assert begun.history is not None
        at, found, history, reports = begun.params, begun.modes_found, begun.history, begun.starts
    options = {"cores": cores, "progressbar": progressbar, **sampler_kwargs}
    rng = np.random.default_rng(seeds[1])
    common = {"table": table, "encoded": encoded, "row_weights": given, "history": history, "starts": reports}
    sampling = _Sampling(bound, weights, found, settings, common, nuts_sampler, options, kept, rng)
    if kept is not None or checkpoint is not None:
        there = {name: np.asarray(at[name])[None, None] for name in bound.free_slots}
        begun = sampling.fit_of(there, Status("nuts", False, "Begun.", complete=False), log_likelihood=False)
        if kept is None:
            assert checkpoint is not None
            sampling.kept = kept = Checkpoint.create(Path(checkpoint), begun, encoded, settings, entropy, overwrite)
        else:
            kept.check_data(begun, encoded)
            kept.set_draws(settings["draws"])
            if kept.finished:
                return replace(kept.fit(), table=table, encoded=encoded)
    fit, described = sampling.from_modes(at)
    if not described:
        fit = with_caution(fit, found, f"Sampled {'apart' if fit.mode_fits else 'the heaviest alone'}")
    if kept is not None and fit.status.complete:
        kept.finish(fit)
    if not fit.status.converged:
        warn(fit.status.message, ConvergenceWarning)
    return fit


@dataclass
class _Sampling:
    """What the chains from every mode have in common.

    Attributes
    ----------
    bound : Bound
    weights : ndarray, shape (N,)
        The rows' weights; `common` has None where the user gave none.
    found : Modes
    settings : dict
        What `fit_nuts` was asked for, as a checkpoint keeps it.
    common : dict
        What every `Fit` of it is made with.
    sampler : str
    options : dict
        Keywords of the sampler.
    kept : Checkpoint or None
    rng : numpy.random.Generator
    begun : int
        Modes from which chains were begun so far: the number of the next run in the checkpoint.
    """

    bound: Bound
    weights: np.ndarray
    found: Modes
    settings: dict[str, Any]
    common: dict[str, Any]
    sampler: str
    options: dict[str, Any]
    kept: Checkpoint | None
    rng: np.random.Generator
    begun: int = 0

    def fit_of(self, arrays: dict[str, np.ndarray], status: Status, **more: Any) -> Fit:
        more = {"log_likelihood": self.settings["log_likelihood"], **more}
        return make_fit(self.bound, arrays, status=status, modes=self.found, **self.common, **more)

    def from_modes(self, at: Params) -> tuple[Fit, bool]:
        """The posterior from the heaviest mode `at` and the others to sample, and whether it tells of all of them."""
        chosen = self.found.to_sample(self.settings["modes"]) if len(self.found) > 1 else ()
        if self.settings["order"] != "auto":
            for mode in chosen:
                mode_in_order(self.bound, mode.params, self.settings["order"])
        fit = self.from_mode(at)
        if len(chosen) < 2:
            return fit, len(self.found.heavy) < 2
        described, rest, each = True, not_visited(fit, chosen), [fit]
        for other in rest:
            if each[-1].status.complete:
                try:
                    each.append(self.from_mode(other.params))
                except KeyboardInterrupt:
                    each.append(replace(fit, status=replace(fit.status, complete=False)))
        if each[-1].status.complete:
            fit, described = joined(each, [chosen[0], *rest])
        elif len(each) > 1:
            message = f"Not complete: interrupted at another of {1 + len(rest)} modes. {fit.status.message}"
            fit = replace(fit, status=Status("nuts", False, message, complete=False))
        if not described and self.settings["combine"] is not None:
            return fit.combine(self.settings["combine"], random_seed=self.rng), True
        return fit, described

    def from_mode(self, params: Params) -> Fit:
        """The posterior of chains that start at a mode."""
        bound, encoded, settings, kept = self.bound, self.common["encoded"], self.settings, self.kept
        number, self.begun = self.begun, self.begun + 1
        run: Run | None = None if kept is None else kept.run(number)
        order = settings["order"]
        names = (None if order == "auto" else order) if run is None else run.order or None
        params = mode_in_order(bound, params, names)
        model, target, start, factor = self._target(params, names)
        improper = spikes(bound, encoded, params, self.common["row_weights"], None if names else target)
        if run is None and order == "auto" and (names := separated(bound, params, target, factor)):
            params = mode_in_order(bound, params, names)
            model, target, start, factor = self._target(params, names)
        ordered = [names] if isinstance(names, str) else list(names or ())
        noise = self.rng.standard_normal((settings["chains"], len(target.start))).clip(-_JITTER, _JITTER)
        starts, seed = started(target, noise @ factor.T, start), int(self.rng.integers(2**31))
        if run is not None:
            starts, seed = run.starts, run.seed
        elif kept is not None:
            run = kept.begin_run(number, ordered, starts, seed)
        if run is not None and bound.discrete_slots:
            run.complete = _completion(bound, encoded, self.weights, seed)
        own = {name: settings[name] for name in ("draws", "tune", "target_accept")}
        if self.sampler == "nutpie":
            own["run"] = run
        draw = _nutpie if self.sampler == "nutpie" else _pymc
        arrays, stats, lengths = draw(model, target, starts, seed=seed, **own, **self.options)
        if not set(bound.discrete_slots) <= set(arrays):
            sampled = {name: arrays[name] for name in bound.sampled_slots}
            arrays = completed(bound, encoded, self.weights, sampled, self.rng)
        arrays, labels = relabelled(
            bound,
            {name: arrays[name] for name in bound.free_slots},
            encoded,
            params,
            method="kl" if settings["relabel"] == "auto" else settings["relabel"],
            skip=[bound.slots[name].axes[-1].name for name in ordered],
        )
        unknown = Status("nuts", False, "")
        fit = replace(self.fit_of(arrays, unknown, groups={"sample_stats": stats}), relabelling=labels)
        converged, message = verdict(fit)
        log_density = stats["logp" if "logp" in stats else "lp"].values
        stuck = stuck_chains(log_density, laplace_at(target).log_density, len(target.start))
        if improper:
            stuck += f" Improper posterior: {improper[0]} Use a prior that vanishes at 0, as the default does."
        whole = not lengths
        if not whole:
            message = f"{incomplete(lengths, settings['draws'], *log_density.shape)} {message}"
        status = Status("nuts", converged and whole and not stuck, f"{message} {stuck}".rstrip(), whole)
        return replace(fit, status=status)

    def _target(self, params: Params, order: Any) -> tuple[pm.Model, Target, np.ndarray, np.ndarray]:
        """The model whose initial point is `params`, its log posterior, and `start_of` that."""
        given = {"index": self.common["table"].index, "row_weights": self.common["row_weights"], "initval": params}
        model = model_of(self.bound, self.common["encoded"], order=order, **given)
        target = Target(model, variables_at(self.bound, params, order), jacobian=True)
        return model, target, *start_of(target)


def _check_options(sampler: str, given: dict[str, Any]) -> None:
    """Raise `TypeError` for keywords that `sampler` does not take, before there is any work to lose."""
    known, taken = _OPTIONS[sampler](given)
    if unknown := [name for name in given if name not in taken]:
        known = known | set(inspect.signature(fit_nuts).parameters) - {"sampler_kwargs"}
        wanted = "".join(close_to(name, known) for name in unknown)
        raise TypeError(f"{', '.join(unknown)}: neither fit_nuts nor {sampler} takes this.{wanted}")


def _pymc_options(given: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Keywords of `pymc.sample` and of its steps that `_pymc` does not set itself, twice: see `nutpie_options`."""
    own = "draws chains cores tune target_accept nuts_sampler init initvals random_seed progressbar model".split()
    own += ["compute_convergence_checks", "nuts_sampler_kwargs", "kwargs", "self", "vars", "pytensor_kwargs", "rng"]
    calls: list[Any] = [pm.sample, pm.NUTS.__init__, BaseHMC.__init__]
    known = {name for call in calls for name in inspect.signature(call).parameters} | {"nuts"}
    return known - set(own), known - set(own)


_OPTIONS = {"nutpie": nutpie_options, "pymc": _pymc_options}


def _resumed(path: str | os.PathLike[str], spec: Node, settings: dict[str, Any], draws: int | None) -> Checkpoint:
    """The checkpoint at `path`, which is of `spec`.

    Raises `ValueError` where a setting was given that differs both from its default and from what the checkpoint has.
    """
    kept = read_checkpoint(Path(path))
    kept.check_spec(spec)
    defaults = {"tune": 1000, "target_accept": 0.8, "order": "auto", "relabel": "auto", "modes": "auto"}
    for name, value in settings.items():
        was = kept.settings[name]
        was = list(was) if isinstance(was, tuple) else was  # files have sequences of one kind
        if name != "draws" and value != defaults.get(name) and value != was:
            raise ValueError(f"{name}: the checkpoint was begun with {was!r}, not {value!r}. Leave it out.")
    if draws is not None and draws < kept.settings["draws"]:
        raise ValueError(f"draws: the checkpoint was begun for {kept.settings['draws']}. Ask for as many, or more.")
    return kept


def _completion(bound: Bound, data: Any, weights: np.ndarray, seed: int) -> Any:
    """Adds the parameters that the model sums out to draws of a chain, the same whenever they are written."""

    def complete(chain: int, first: int, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = []
        for i in range(len(draws["u"])):
            rng = np.random.default_rng([seed, chain, first + i])
            one = {name: draws[name][None, i : i + 1] for name in bound.sampled_slots}
            found.append(completed(bound, data, weights, one, rng))
        empty = {name: np.empty((0, *slot.shape)) for name, slot in bound.discrete_slots.items()}
        added = {name: np.array([each[name][0, 0] for each in found]) for name in empty} if found else empty
        return {**draws, **added}

    return complete


def started(target: Target, steps: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Points (chains, d) at steps from a start (the target's own), each halved until the density is near the start's.

    Where the posterior is as its curvature says, a step falls by at most 2 d nats. A flat direction (an empty
    component) or an edge (an ordered location that must be positive) may lead to where there is no density at all.
    """
    start = target.start if start is None else start
    lowest = target(start)[0] - 2 * len(start) - 10
    for step in steps:
        for _ in range(60):
            value, gradient = target(start + step)
            if value > lowest and np.isfinite(gradient).all():
                break
            step /= 2
    return start + steps


def separated(bound: Bound, params: Params, target: Target, factor: np.ndarray) -> list[str]:
    """Locations by which mixtures can be ordered without cutting the posterior: all gaps are wide."""
    names = []
    spread = laplace_sd(bound, target, factor)
    for site in bound.site.walk():
        if "weights" not in site.slots or (name := location_slot(site)) is None:
            continue
        if not any(each.site.key == site.key and not each.classes.any() for each in bound.symmetries):
            continue  # components that cannot change places need no order
        if len(site.slots["weights"].event[0]) < 2 or bound.slots[name].transform is not None:
            continue
        sorted_mu = np.sort(params[name], axis=-1)
        at = np.argsort(params[name], axis=-1)
        sd = np.take_along_axis(spread[name], at, -1)
        gaps = np.diff(sorted_mu, axis=-1)
        if (gaps > _SEPARATION * np.hypot(sd[..., 1:], sd[..., :-1])).all():
            names.append(name)
            found = ascending(bound, params, names)
            if any((np.diff(found[each]) < 0).any() for each in names):
                names.pop()  # components of several mixtures change places at once, and not all can ascend
    return names


def laplace_sd(bound: Bound, target: Target, factor: np.ndarray) -> dict[str, np.ndarray]:
    """Laplace standard deviations of the untransformed variables, in their own shapes."""
    sd = np.sqrt((factor**2).sum(1))
    found, offset = {}, 0
    for variable in target.model.value_vars:
        size = target.point[variable.name].size
        rv = target.model.values_to_rvs[variable]
        if rv.name in bound.slots and target.model.rvs_to_transforms[rv] is None:
            found[rv.name] = sd[offset : offset + size].reshape(bound.slots[rv.name].shape)
        offset += size
    return found


def _nutpie(model, target, starts, *, draws, run=None, **kwargs) -> tuple[dict[str, np.ndarray], xr.Dataset, list[int]]:
    """Draws (chain, draw, ...), statistics, and the chains' lengths where the user interrupted them (else none)."""
    found: Drawn = sample(target, starts, draws=draws, run=run, **kwargs)
    lengths = [min(length, draws) for length in found.lengths]
    kept, n_draws = kept_chains(lengths)
    arrays = stacked([found.chains[c] for c in kept], n_draws)
    names = {rv.name for rv in model.free_RVs}
    stats = {name: (("chain", "draw"), v) for name, v in arrays.items() if v.ndim == 2 and name in STATS}
    dataset = xr.Dataset(stats, coords={"chain": np.arange(len(kept)), "draw": np.arange(n_draws)})
    arrays = {name: values for name, values in arrays.items() if name in names or name not in (*STATS, "u")}
    return arrays, dataset, [] if found.complete else lengths


def _pymc(model, target, starts, *, draws, tune, cores, target_accept, seed, progressbar, **kwargs):
    """As `_nutpie`, by PyMC's own sampler."""
    found = target.constrained(starts)
    initvals = [{rv.name: found[rv.name][c] for rv in model.free_RVs} for c in range(len(starts))]
    sampled = pm.sample(
        draws=draws,
        tune=tune,
        chains=len(starts),
        cores=cores,
        target_accept=target_accept,
        nuts_sampler="pymc",
        init="adapt_diag",
        initvals=initvals,
        random_seed=seed,
        progressbar=progressbar,
        compute_convergence_checks=False,
        model=model,
        **kwargs,
    )
    posterior = sampled["posterior"].to_dataset()
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    if not all(shape):
        raise KeyboardInterrupt
    arrays = {rv.name: posterior[rv.name].values for rv in model.free_RVs}
    whole = shape == (len(starts), draws)
    return arrays, sampled["sample_stats"].to_dataset(), [] if whole else [shape[1]] * shape[0]
