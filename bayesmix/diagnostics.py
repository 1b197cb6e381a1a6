"""How far a posterior's draws can be trusted: quantities that no labelling can change, and the parameters.

R-hat of a parameter means nothing where chains carry different labels, and R-hat of parameters that were relabelled may
look better than the chains are. So both are judged: `label_free` gives quantities that are the same in every copy of
the posterior (a chain in a wrong mode shows there), and `convergence` the R-hat and effective sample sizes of these and
of the parameters as they are, relabelled or not. All are pure functions of a `Fit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix.bound import Bound
from bayesmix.params import Params
from bayesmix.plan import Plan
from bayesmix.spec import Encoded, NotLinear
from bayesmix.statistics import weighted_sum
from bayesmix.threads import ALONE

#: Largest R-hat, and least effective sample size a chain (Vehtari et al. 2021).
RHAT, ESS = 1.01, 100
#: Share of moved draws from which a fit speaks of switching.
SWITCHING = 0.001


def label_free(fit: Any, data: Any = None) -> xr.Dataset:
    """Quantities that do not depend on how components are called, (chain, draw).

    ``log_likelihood`` and ``log_posterior`` (density of the declared variables, no Jacobian) in nats; and for every
    mixture ``sorted_{weights}``, ascending over all of its entries.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        The training table, of a fit that was loaded and does not have its pointwise log-likelihood.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> from bayesmix.diagnostics import label_free
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
    >>> label_free(bm.fit_advi(bm.Mixture(bm.Normal(), 2), x, random_seed=1)).sizes["draw"]
    1000
    """
    posterior, bound = fit.posterior, fit.bound
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    arrays = {name: posterior[name].values for name in bound.free_slots}
    points = [
        bound.with_fixed({name: value[c, d] for name, value in arrays.items()})
        for c in range(n_chains)
        for d in range(n_draws)
    ]
    children = fit.idata.children
    weights = children["constant_data"]["row_weights"].values if "constant_data" in children else None
    if "log_likelihood" in children:
        rows = children["log_likelihood"]["row_loglik"].values
        likelihood = rows.sum(-1) if weights is None else weighted_sum(rows, weights)
    else:
        likelihood = np.reshape(_log_likelihoods(bound, points, fit._training(data), weights), (n_chains, n_draws))
    found: dict[str, Any] = {"log_likelihood": (("chain", "draw"), likelihood)}
    if not any(slot.depends_on_model for slot in bound.slots.values()):
        prior = np.array([bound.log_prior(point) for point in points]).reshape(n_chains, n_draws)
        found["log_posterior"] = (("chain", "draw"), likelihood + prior)
    for name in {each.weights.name: None for each in bound.symmetries}:
        if name in arrays:
            values = np.sort(arrays[name].reshape(n_chains, n_draws, -1), -1)
            found[f"sorted_{name}"] = (("chain", "draw", f"sorted_{name}_place"), values)
    return xr.Dataset(found, coords={"chain": posterior["chain"].values, "draw": posterior["draw"].values})


def _log_likelihoods(bound: Bound, points: list[Params], data: Encoded, weights: np.ndarray | None) -> list[float]:
    """At each point, by the kernel where the spec has a linear form."""
    found = []
    try:
        plan: Plan | None = Plan(bound, data)
    except NotLinear:
        plan = None
    for point in points:
        if plan is None:
            rows = bound.log_density(point, data)
        else:
            with np.errstate(all="ignore"):
                rows, _ = plan.run(plan.natural(point), np.empty(0), down=False)
        found.append(float(rows.sum() if weights is None else weighted_sum(rows, weights)))
    return found


@dataclass(frozen=True)
class Convergence:
    """R-hat and effective sample sizes of a posterior.

    Attributes
    ----------
    table : pandas.DataFrame
        One line for each number: ``r_hat``, ``ess_bulk``, ``ess_tail``, and ``label_free``, whether no labelling can
        change it.
    n_chains : int
    n_draws : int
        In each chain.
    divergences : int
    """

    table: pd.DataFrame
    n_chains: int
    n_draws: int
    divergences: int

    @property
    def rhat(self) -> float:
        """Largest R-hat; 1 where nothing can move."""
        return _extreme(self.table["r_hat"].to_numpy(), np.max, 1.0)

    @property
    def rhat_label_free(self) -> float:
        """Largest R-hat of the quantities that no labelling can change."""
        return _extreme(self.table["r_hat"].to_numpy()[self.table["label_free"].to_numpy()], np.max, 1.0)

    @property
    def ess_bulk(self) -> float:
        """Smallest bulk effective sample size."""
        return _extreme(self.table["ess_bulk"].to_numpy(), np.min, np.inf)

    @property
    def ess_tail(self) -> float:
        """Smallest tail effective sample size."""
        return _extreme(self.table["ess_tail"].to_numpy(), np.min, np.inf)

    @property
    def worst(self) -> str:
        """What has the largest R-hat."""
        rhat = self.table["r_hat"].to_numpy()
        return "" if np.isnan(rhat).all() else str(self.table.index[int(np.nanargmax(rhat))])

    @property
    def enough(self) -> bool:
        """Whether chains are long and many enough to be judged."""
        return self.n_chains >= 2 and self.n_draws >= 4

    @property
    def converged(self) -> bool:
        """R-hat at most 1.01, bulk ESS at least 100 a chain, no divergence."""
        good = self.rhat <= RHAT and self.ess_bulk >= ESS * self.n_chains
        return self.enough and good and self.divergences == 0


def convergence(fit: Any, data: Any = None) -> Convergence:
    """R-hat and effective sample sizes of label-free quantities and of the parameters.

    Parameters
    ----------
    fit : Fit
    data : table, optional
        See `label_free`.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, *Bayesian Analysis* 16.
    """
    import arviz_stats as azs  # slow to import

    posterior = fit.posterior
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    children = fit.idata.children
    stats = children["sample_stats"].to_dataset() if "sample_stats" in children else xr.Dataset()
    divergences = int(stats["diverging"].values.sum()) if "diverging" in stats else 0
    lines: dict[str, dict[str, Any]] = {}
    if n_chains >= 2 and n_draws >= 4:
        for free, dataset in ((True, label_free(fit, data)), (False, posterior)):
            with ALONE, np.errstate(all="ignore"):  # ArviZ puts the warnings filters aside; NaN for what cannot move
                measures = {
                    "r_hat": azs.rhat(dataset),
                    "ess_bulk": azs.ess(dataset, method="bulk"),
                    "ess_tail": azs.ess(dataset, method="tail"),
                }
            for name in dataset.data_vars:
                first = measures["r_hat"][name]
                for index in np.ndindex(*first.shape):
                    labels = ", ".join(str(first[d].values[i]) for d, i in zip(first.dims, index))
                    line = {key: float(measure[name].values[index]) for key, measure in measures.items()}
                    lines[f"{name}[{labels}]" if labels else str(name)] = {**line, "label_free": free}
    columns = ["r_hat", "ess_bulk", "ess_tail", "label_free"]
    with ALONE:  # pandas too
        table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
        table["label_free"] = table["label_free"].astype(bool)
    return Convergence(table, n_chains, n_draws, divergences)


def verdict(fit: Any, data: Any = None) -> tuple[bool, str]:
    """Whether NUTS converged, and a sentence that says so, for people."""
    found = convergence(fit, data)
    if found.n_chains < 2:
        return False, "NUTS ran one chain, which no diagnostic can judge; use chains=4."
    if not found.enough:
        return False, f"NUTS kept {found.n_draws} draws a chain, too few to judge; take more."
    message = f"NUTS: largest R-hat {found.rhat:.3f}, smallest bulk ESS {found.ess_bulk:.0f}, "
    message += f"{found.divergences} divergences."
    labels = fit.relabelling
    switched = labels is not None and labels.share_moved >= SWITCHING
    if switched:
        message += f" {labels}"
    if found.converged:
        return True, message
    ways = []
    if found.divergences:
        ways.append("raise target_accept")
    if found.rhat_label_free > RHAT:
        ways.append(f"take more draws; chains disagree in {found.worst}, whatever components are called")
    elif found.rhat > RHAT or found.ess_bulk < ESS * found.n_chains:
        left = switched and labels.method is None
        ways.append('relabel="auto"' if left else "take more draws")
    return False, f"{message} Not converged: {'; '.join(ways)}."


def _extreme(values: np.ndarray, pick: Any, otherwise: float) -> float:
    """Of every number; a parameter that cannot move (NaN) says nothing."""
    numbers = values[~np.isnan(values)]
    return float(pick(numbers)) if len(numbers) else otherwise
