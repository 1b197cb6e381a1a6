"""The full posterior by NUTS."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from bayesmix.bound import Bound, prepare, require_free
from bayesmix.build import model_of, variables_at
from bayesmix.diagnostics import verdict
from bayesmix.discrete import completed
from bayesmix.errors import ConvergenceWarning
from bayesmix.fit import Fit, Status, make_fit
from bayesmix.inference.em import maximise
from bayesmix.inference.target import Target, laplace_factor
from bayesmix.params import Params
from bayesmix.relabel import METHODS, location_slot, relabelled
from bayesmix.spec import Node

#: Components are ordered where their locations lie this many posterior standard deviations apart.
_SEPARATION = 5.0
#: Chains start within this many Laplace standard deviations of the mode, in each principal direction.
_JITTER = 2.0


def fit_nuts(
    spec: Node,
    data: Any,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    target_accept: float = 0.8,
    nuts_sampler: str = "nutpie",
    order: str | Sequence[str] | None = "auto",
    relabel: str | None = "auto",
    row_weights: Any = None,
    n_starts: int = 16,
    log_likelihood: bool | None = None,
    random_seed: Any = None,
    progressbar: bool = False,
    **sampler_kwargs: Any,
) -> Fit:
    """Draw from the posterior by NUTS, every chain started at EM's mode with a jitter of the Laplace scale.

    Parameters
    ----------
    spec : Node
    data : table
        N rows; see `bayesmix.fit`.
    draws, tune, chains, cores, target_accept
        As in `pymc.sample`.
    nuts_sampler : {"nutpie", "pymc"}
    order : "auto", str, sequence of str, or None
        Variables whose components are kept ascending (PyMC's ``ordered`` transform). "auto" orders a mixture by
        its own family's scalar ``mu`` where the components' locations at the mode lie at least five posterior
        standard deviations apart; ordering overlapping components would cut their posterior in two.
    relabel : {"auto", "kl", "ecr", "data"} or None
        How draws of mixtures that are not ordered get one labelling, that of EM's mode; see `Fit.relabel`. "auto" is
        "kl", Stephens' algorithm. None leaves the labels as they come, and only says in ``fit.relabelling`` and in the
        status whether they switched.
    row_weights : array_like, shape (N,), optional
    n_starts : int
        Of the EM before it; see `fit_em`.
    log_likelihood : bool, optional
        Store the pointwise log-likelihood (chain, draw, row). By default where it has at most 5 million entries.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool
    **sampler_kwargs
        Passed on to `nutpie.sample` or `pymc.sample`.

    Returns
    -------
    Fit
        ``fit.status.converged`` says that every R-hat is at most 1.01, every bulk ESS at least 100 a chain, and
        nothing diverged (Vehtari et al. 2021), for the parameters, relabelled, and for quantities that do not depend on
        labels (`bayesmix.diagnostics`). Otherwise a `ConvergenceWarning` tells what to try.

    References
    ----------
    Hoffman and Gelman 2014, *JMLR* 15; Vehtari et al. 2021, *Bayesian Analysis* 16.

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
    for name, value in (("draws", draws), ("chains", chains)):
        if value < 1:
            raise ValueError(f"{name}: at least 1 is needed, not {value}.")
    if relabel not in ("auto", *METHODS, None):
        raise ValueError(f'relabel: "auto", {", ".join(map(repr, METHODS))} or None is needed, not {relabel!r}.')
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    require_free(bound, "nuts")
    seeds = np.random.SeedSequence(_entropy(random_seed)).spawn(2)
    mode, runs = maximise(bound, encoded, weights, n_starts=n_starts, random_seed=seeds[0], progressbar=progressbar)

    def model_with(names: Any) -> pm.Model:
        return model_of(bound, encoded, index=table.index, row_weights=given, order=names, initval=mode.params)

    model = model_with(None if order == "auto" else order)
    target = Target(model, variables_at(bound, mode.params), jacobian=True)
    factor = laplace_factor(target.hessian(target.start))
    if order == "auto" and (order := separated(bound, mode.params, target, factor)):
        model = model_with(order)
        target = Target(model, variables_at(bound, mode.params), jacobian=True)
        factor = laplace_factor(target.hessian(target.start))
    rng = np.random.default_rng(seeds[1])
    noise = rng.standard_normal((chains, len(target.start))).clip(-_JITTER, _JITTER)
    starts = target.start + noise @ factor.T
    run = _nutpie if nuts_sampler == "nutpie" else _pymc
    sampled = run(
        model,
        target,
        starts,
        draws=draws,
        tune=tune,
        cores=cores,
        target_accept=target_accept,
        seed=int(rng.integers(2**31)),
        progressbar=progressbar,
        **sampler_kwargs,
    )
    posterior = sampled["posterior"].to_dataset()
    sampled_arrays = {name: posterior[name].values for name in bound.sampled_slots}
    arrays = completed(bound, encoded, weights, sampled_arrays, rng)
    ordered = [order] if isinstance(order, str) else list(order or ())
    arrays, labels = relabelled(
        bound,
        arrays,
        encoded,
        mode.params,
        method="kl" if relabel == "auto" else relabel,
        skip=[bound.slots[name].axes[-1].name for name in ordered],
    )
    fit = make_fit(
        bound,
        arrays,
        table=table,
        encoded=encoded,
        row_weights=given,
        status=Status("nuts", False, ""),
        history=np.array(mode.history),
        starts=[r.report() for r in runs],
        groups={"sample_stats": sampled["sample_stats"].to_dataset()},
        log_likelihood=log_likelihood,
    )
    fit = replace(fit, relabelling=labels)
    fit = replace(fit, status=Status("nuts", *verdict(fit)))
    if not fit.status.converged:
        warnings.warn(fit.status.message, ConvergenceWarning, stacklevel=2)
    return fit


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


def _nutpie(model, target, starts, *, draws, tune, cores, target_accept, seed, progressbar, **kwargs) -> xr.DataTree:
    """Sample through nutpie's interface for functions: a tape needs no compiling, and runs without the GIL.

    nutpie's own way compiles each model for a minute. The draws are transformed all at once at the end.
    """
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    size = len(target.start)
    queue = iter(starts)
    compiled = from_pyfunc(
        ndim=size,
        make_logp_fn=lambda: target,
        make_expand_fn=lambda *seeds: lambda u: {"unconstrained": u},
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(size,)],
        expanded_names=["unconstrained"],
        dims={"unconstrained": ("coordinate",)},
        coords={"coordinate": pd.Index(np.arange(size))},
        make_initial_point_fn=lambda seed: next(queue).copy(),
    )
    sampled = nutpie.sample(
        compiled,
        draws=draws,
        tune=tune,
        chains=len(starts),
        cores=cores,
        seed=seed,
        target_accept=target_accept,
        progress_bar=progressbar,
        **{"save_warmup": False, **kwargs},
    )
    unconstrained = sampled["posterior"]["unconstrained"].values
    found = target.constrained(unconstrained.reshape(-1, size))
    shape = unconstrained.shape[:2]
    dims = {rv.name: model.named_vars_to_dims.get(rv.name) or () for rv in model.free_RVs}
    posterior = xr.Dataset(
        {name: (("chain", "draw", *dims[name]), found[name].reshape(*shape, *found[name].shape[1:])) for name in dims},
        coords={"chain": np.arange(shape[0]), "draw": np.arange(shape[1])},
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": sampled["sample_stats"].to_dataset()})


def _pymc(model, target, starts, *, draws, tune, cores, target_accept, seed, progressbar, **kwargs) -> xr.DataTree:
    found = target.constrained(starts)
    initvals = [{rv.name: found[rv.name][c] for rv in model.free_RVs} for c in range(len(starts))]
    return pm.sample(
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


def _entropy(random_seed: Any) -> Any:
    if isinstance(random_seed, np.random.SeedSequence):
        return [int(word) for word in random_seed.generate_state(4)]
    if isinstance(random_seed, np.random.Generator):
        return int(random_seed.integers(2**63))
    return random_seed
