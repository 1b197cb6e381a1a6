r"""The evidence of a mixture, with every order of its labels counted.

The evidence (marginal likelihood) is the integral of likelihood times prior over the parameters. Where components are
exchangeable the integrand has S equal copies, one for each permutation of labels that leaves the posterior as it is
(K! for a mixture of K alike components, K! M! for hierarchical and joint mixtures, K! (G!)^K for nested ones; see
`bayesmix.symmetry`), and an approximation that knows one copy must say how much of the whole that is.

Here that is done in the proposal instead of afterwards. In the unconstrained coordinates a permutation is a linear map
A of determinant 1 or -1, and with q a density around one copy

.. math:: \bar q(u) = \frac{1}{S} \sum_{\sigma} q(A_\sigma u)

is symmetric as the posterior is. A ratio of the two is the same at all S images of a point, so draws in any order of
labels (ordered, relabelled, switching) are as good as draws over all of them, and nothing remains to be multiplied.
Where copies lie apart this is the factor S; where they overlap it is what S would get wrong. What is integrated is
always the model without ``order=``: PyMC's ordered transform keeps one copy, and leaves its prior without the
factor that would make it integrate to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm

from bayesmix import arguments
from bayesmix.bound import Bound
from bayesmix.build import model_of, variables_at
from bayesmix.compilation import QuickFunction
from bayesmix.errors import ApproximationWarning, SpecError, warn
from bayesmix.inference.laplace import Laplace, laplace_at
from bayesmix.inference.proposal import Kernel, Permutations, Proposal, Unconstrain, averaged, fitted_to, nearest, root
from bayesmix.inference.target import Target
from bayesmix.params import Params
from bayesmix.psis import LARGEST_K, importance
from bayesmix.seeds import generator
from bayesmix.threads import ALONE

if TYPE_CHECKING:
    from bayesmix.fit import Fit

METHODS = ("laplace", "importance", "bridge")
#: Draws of the proposal, and of the posterior at most.
_DRAWS = 4_000
#: Draws that importance sampling needs, at least: of fewer the tail has too few for Pareto k.
_FEWEST = 25
#: Degrees of freedom of the importance sampling's proposal.
_DF = 5.0
#: Error of the log evidence, in nats, above which there is a warning.
_COARSE = 0.1


@dataclass(frozen=True)
class Evidence:
    """Log evidence, and how it was found.

    Attributes
    ----------
    value : float
        Log marginal likelihood in nats, over all orders of labels.
    error : float
        Standard error of `value` from the draws, that is, the relative standard error of the evidence; 0 for Laplace,
        whose error is not known.
    method : str
    log_symmetries : float
        Log of the number of permutations of labels that leave the posterior as it is.
    log_copies : float
        How much of that is in `value`: less where the copies of a mode overlap.
    pareto_k : float or None
        For importance sampling, the shape of the weights' tail; below 0.7 they can be trusted.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> evidence = bm.log_evidence(fit, method="laplace")
    >>> evidence.method, evidence.error
    ('laplace', 0.0)
    """

    value: float
    error: float
    method: str
    log_symmetries: float
    log_copies: float
    pareto_k: float | None = None

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        error = f" ± {self.error:.2g}" if self.error else ""
        k = "" if self.pareto_k is None else f", Pareto k {self.pareto_k:.2f}"
        return f"<Log evidence {self.value:.3f}{error} by {self.method}{k}>"


def log_evidence(
    fit: Fit, method: str | None = None, *, data: Any = None, draws: int = _DRAWS, random_seed: Any = None
) -> Evidence:
    r"""Log marginal likelihood of a fit's spec, with all orders of the labels.

    Parameters
    ----------
    fit : Fit
        A point estimate suffices for Laplace and importance sampling. Bridge sampling needs draws of the posterior
        (`fit_nuts`), in any order of labels, ordered and switching ones included.
    method : {"laplace", "importance", "bridge"}, optional
        Laplace's approximation at the mode near the fit; importance sampling from a t distribution there; bridge
        sampling between half of the draws and a mixture of normals fitted to the other half. By default "bridge" for
        a fit by NUTS and "importance" otherwise.
    data : table, optional
        For a loaded fit, the table that it was fitted to.
    draws : int
        Of the proposal; of the posterior at most.
    random_seed : int, SeedSequence or Generator, optional

    Returns
    -------
    Evidence
        ``float(evidence)`` is the log evidence in nats.

    Raises
    ------
    SpecError
        There is no evidence: a prior is improper (`Flat`), or the spec has ``min_weight``, which cuts the prior of the
        weights and leaves what remains without its factor.
    ValueError
        No draws for bridge sampling; or no curvature at the mode for the others.

    Warns
    -----
    ApproximationWarning
        The error is above 0.1 nats, or Pareto k above 0.7; or the fit is of one of several modes (see `Fit.modes`), and
        the others would add more than 0.1 nats.

    Notes
    -----
    Default priors take their scale from the column, so evidences compare specs on one table, and the evidence of
    one spec depends on the data twice, a little. Give priors of your own where that matters.

    References
    ----------
    Meng and Wong 1996, *Statistica Sinica* 6; Gronau et al. 2017, *Journal of Mathematical Psychology* 81, for the
    bridge and its error; Frühwirth-Schnatter 2004, *Econometrics Journal* 7, for proposals averaged over permutations;
    Tierney and Kadane 1986, *JASA* 81.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> evidence = bm.log_evidence(fit, random_seed=1)
    >>> round(float(evidence), 1), round(float(np.exp(evidence.log_symmetries)))
    (-19.6, 2)
    """
    several = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"] > 1
    if method is None:
        method = "bridge" if several and fit.status.engine == "nuts" else "importance"
    if method not in METHODS:
        raise ValueError(f"method: one of {', '.join(METHODS)} is needed, not {method!r}.")
    arguments.check(draws=draws)
    require_proper(fit.bound)
    if method == "importance" and draws < _FEWEST:
        raise ValueError(
            f"draws: at least {_FEWEST} are needed, of which the largest ratios say how far they can be "
            f"trusted, not {draws}."
        )
    if method == "bridge" and fit.posterior.sizes["draw"] < 50:
        raise ValueError(
            'method: "bridge" needs draws of the posterior, 50 a chain at least. Fit with method="nuts", or take '
            'method="importance".'
        )
    if not fit.bound.sampled_slots:  # nothing is estimated: the likelihood is all there is
        return Evidence(float(QuickFunction([], _model(fit, data, None).logp())()), 0.0, method, 0.0, 0.0)
    rng = generator(random_seed)
    target, start, points = _target_and_draws(fit, data)
    permutations = Permutations(fit.bound, target)
    laplace = laplace_at(target, start)
    if method == "bridge":
        found = _bridge(target, permutations, laplace, points, draws, rng)
    else:
        found = _around_mode(target, permutations, laplace, draws, rng, method)
    if found.error > _COARSE:
        warn(
            f'The log evidence has a standard error of {found.error:.2g} nats. Take more draws, or method="bridge" '
            "with draws of NUTS.",
            ApproximationWarning,
        )
    elif found.pareto_k is not None and not found.pareto_k < LARGEST_K:
        warn(
            f"The log evidence has a Pareto k of {found.pareto_k:.2f}: the approximation misses part of the posterior, "
            'and the stated error is too small. Take method="bridge" with draws of NUTS.',
            ApproximationWarning,
        )
    missed = _missed(fit) if fit.modes_found is not None and len(fit.modes_found) > 1 else 0.0
    if -np.log1p(-missed) > _COARSE:
        warn(
            f"The log evidence is of one mode, and others have {missed:.0%} of the mass: with them it is about "
            f'{-np.log1p(-missed):.2g} nats higher. Pool the modes: fit_nuts(…, combine="bridge").',
            ApproximationWarning,
        )
    return found


def _missed(fit: Fit) -> float:
    """Share of the posterior's mass at modes that the fit does not tell of."""
    from bayesmix.inference.modes import not_visited

    modes = fit.modes
    assert modes is not None
    heavy = modes.heavy
    if len(heavy) < 2 or fit.encoded is None or any(np.isnan(mode.weight) for mode in heavy):
        return 0.0
    if fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"] > 1 and fit.status.engine == "nuts":
        return float(min(sum(mode.weight for mode in not_visited(fit, heavy)), 0.99))
    return float(1 - heavy[0].weight)


def require_proper(bound: Bound) -> None:
    """Raise `SpecError` where the evidence does not exist."""
    faults = []
    for name, slot in bound.sampled_slots.items():
        kind = type(slot.rv.owner.op).__name__
        if kind in ("FlatRV", "HalfFlatRV", "FlatCovarianceRV"):
            faults.append(f"{name}: its prior is flat, which is improper. The evidence needs proper priors.")
        if slot.depends_on_model:
            faults.append(f"{name}: its prior depends on variables of your PyMC model, which are not part of the fit.")
    for site in bound.site.distinct():
        if "weights" in site.slots and site.slots["weights"].free and site.node.min_weight:
            faults.append(
                f"{site.slots['weights'].name}: min_weight cuts the prior, and leaves it without its factor. "
                "Leave min_weight out; the default prior keeps weights from 0."
            )
    if faults:
        raise SpecError(faults)


def _model(fit: Fit, data: Any, initval: Params | None) -> pm.Model:
    """The unordered model of the fit's rows."""
    return model_of(fit.bound, fit._training(data), row_weights=fit.row_weights, initval=initval)


def _target_and_draws(fit: Fit, data: Any) -> tuple[Target, np.ndarray, np.ndarray]:
    """Log density of the unordered model, the best of some draws (d,), and all draws (chain, draw, d)."""
    arrays = {name: fit.posterior[name].values for name in fit.bound.sampled_slots}
    first = {name: values[0, 0] for name, values in arrays.items()}
    target = Target(_model(fit, data, first), variables_at(fit.bound, first), jacobian=True)
    shape = next(iter(arrays.values())).shape[:2]
    points = Unconstrain(target)({name: values.reshape(-1, *values.shape[2:]) for name, values in arrays.items()})
    some = points[np.unique(np.linspace(0, len(points) - 1, 100).astype(int))]
    best = some[np.argmax([target(point)[0] for point in some])]
    return target, best, points.reshape(*shape, -1)


def _around_mode(
    target: Target, permutations: Permutations, laplace: Laplace, draws: int, rng: np.random.Generator, method: str
) -> Evidence:
    if not laplace.definite:
        raise ValueError(
            "the log posterior is flat, or rises, in some direction at the mode, so that it has no normal "
            'approximation: components may be empty or alike. Use fewer, or method="bridge" with draws of NUTS.'
        )
    kernel = Kernel(laplace.point, root(laplace.factor @ laplace.factor.T), _DF if method == "importance" else np.inf)
    proposal = averaged([kernel], np.ones(1), permutations, rng)
    points = proposal.draw(draws, rng)
    if method == "laplace":
        share = _own_share(proposal, points[:1000])
        copies = permutations.log_count + np.log(share)
        return Evidence(laplace.log_mass + copies, 0.0, method, permutations.log_count, copies)
    log_q, log_p = proposal(points), _values(target, points)
    found = importance(log_p, log_q)
    copies = float(np.mean(proposal.one(points) - log_q))
    ratios = np.exp(log_p - log_q - found.log_evidence)
    error = float(np.std(ratios) / np.sqrt(draws))
    return Evidence(found.log_evidence, error, method, permutations.log_count, copies, found.pareto_k)


def _values(target: Target, points: np.ndarray) -> np.ndarray:
    """Log density of the target at points (M, d); -inf where there is none."""
    with np.errstate(all="ignore"):
        values = np.array([target(point)[0] for point in points])
    return np.where(np.isfinite(values), values, -np.inf)


def _own_share(proposal: Proposal, points: np.ndarray) -> float:
    """Share of the normal distribution that lies nearer to its own centre than to its images; ties are shared out."""
    each = proposal.each(points)
    highest = each.max(0)
    ties = (each > highest - 1e-6).sum(0)
    return float(np.mean((proposal.one(points) > highest - 1e-6) / ties))


def _bridge(
    target: Target,
    permutations: Permutations,
    laplace: Laplace,
    points: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> Evidence:
    """Half of every chain's draws (chain, draw, d) shape the proposal; the bridge is built on the other half."""
    n_chains, n_draws, dimension = points.shape
    kept = np.unique(np.linspace(0, n_draws - 1, min(n_draws, draws // n_chains)).astype(int))
    points, half = points[:, kept], len(kept) // 2
    first, second = points[:, :half].reshape(-1, dimension), points[:, half:].reshape(-1, dimension)
    density = Kernel(laplace.point, root(laplace.factor @ laplace.factor.T))
    for _ in range(3):
        first = nearest(first, density, permutations.swaps)
        density = Kernel(first.mean(0), root(np.atleast_2d(np.cov(first.T))))
    proposal = averaged(*fitted_to(first, rng), permutations, rng)
    second = nearest(second, proposal.one, permutations.swaps)
    drawn = proposal.draw(len(second), rng)
    q_second, q_drawn = proposal(second), proposal(drawn)
    # logs of the ratios target / proposal, about a constant that keeps their exponentials in range
    of_second, of_drawn = _values(target, second) - q_second, _values(target, drawn) - q_drawn
    middle = float(np.median(of_second))
    effective = _effective_size(np.reshape(of_second, (n_chains, -1)))
    share = effective / (effective + len(drawn)), len(drawn) / (effective + len(drawn))
    up, down = np.exp(of_drawn - middle), np.exp(of_second - middle)
    ratio = 1.0
    for _ in range(1000):
        new = np.mean(up / (share[0] * up + share[1] * ratio)) / np.mean(1 / (share[0] * down + share[1] * ratio))
        settled = abs(new - ratio) < 1e-12 * abs(new)
        ratio = float(new)
        if settled:
            break
    f_drawn = up / (share[0] * up + share[1] * ratio)
    f_second = 1 / (share[0] * down + share[1] * ratio)
    independent = _effective_size(f_second.reshape(n_chains, -1))
    error = np.sqrt(
        np.var(f_drawn) / np.mean(f_drawn) ** 2 / len(drawn) + np.var(f_second) / np.mean(f_second) ** 2 / independent
    )
    copies = float(np.mean(proposal.one(second) - q_second))
    return Evidence(middle + np.log(ratio), float(error), "bridge", permutations.log_count, copies)


def _effective_size(values: np.ndarray) -> float:
    """Effective number of draws (chain, draw) for the mean."""
    import arviz_stats as azs  # slow to import

    if np.ptp(values) == 0 or not np.isfinite(values).all():
        return float(values.size)
    with ALONE:  # ArviZ puts the warnings filters aside
        return float(np.clip(azs.ess(values, method="mean"), 1.0, values.size))
