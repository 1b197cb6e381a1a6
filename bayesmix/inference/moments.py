"""The method of moments: an answer from the sample's moments, without a starting guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from bayesmix import arguments
from bayesmix.bound import Bound, bind_learned, prepare
from bayesmix.errors import DegenerateWarning, MomentsError, SpecError, warn
from bayesmix.fit import Fit, Status, make_fit, posterior_dataset
from bayesmix.inference.start import middle
from bayesmix.moments.estimator import Estimator
from bayesmix.moments.views import Split, conditional_means, nearest_possible, no_decomposition, random_splits
from bayesmix.params import Slot
from bayesmix.relabel import in_canonical_order
from bayesmix.seeds import generator
from bayesmix.spec import Encoded, Node, Site, Stats, add_to
from bayesmix.statistics import weighted_sum

#: Groups of rows that standard errors of cross moments are computed from, where rows repeat less often.
_GROUPS = 200
#: How many projections' answers EM begins with.
_CANDIDATES = 10
#: Relative change of a group's weight in those derivatives.
_STEP = 1e-4

Arrays = dict[str, np.ndarray]


@dataclass
class Estimate:
    """What the moments gave.

    Attributes
    ----------
    solutions : list of dict
        Parameter name -> array in the slots' shapes; the best first.
    candidates : list of dict
        Where EM may begin: the solutions, or the answers of the best projections.
    errors : dict
        Standard errors of the best, by the same names; NaN where the delta method does not apply.
    exact : bool
        Whether the best reproduces the moments.
    message : str
    moments : dict
        What the group ``moments`` reports besides.
    """

    solutions: list[Arrays]
    candidates: list[Arrays]
    errors: Arrays
    exact: bool
    message: str
    moments: dict[str, Any] = field(default_factory=dict)


def fit_moments(spec: Node, data: Any, *, row_weights: Any = None, n_splits: int = 50, random_seed: Any = None) -> Fit:
    r"""Fit by the method of moments: the parameters that reproduce the sample's moments, from no start at all.

    Priors play no part. What a mixture's component can be:

    - a normal with its own mu and sigma, two of them: five moments, Pearson's nonic; all its admissible roots,
      ranked by the sixth moment;
    - a normal with one sigma for all, any number of them: 2K moments, Lindsay's estimator, which always has an
      answer; with one *fixed* sigma 2K - 1 moments, Wu and Yang's;
    - any family with functions :math:`h_r` of a row whose mean is the r-th power of (a function of) the parameter:
      the moments of the mixing distribution, moved to the nearest that are possible, and its Gauss quadrature.
      Poisson: :math:`x(x-1)\cdots(x-r+1)`; exponential: :math:`x^r/r!`; geometric (from 1):
      :math:`\binom{x-1}{r}`, whose mean is :math:`((1-p)/p)^r`;
    - a composite of three or more fields of any families: the cross moments of their statistics of order three,
      decomposed by eigenvectors; the best of several random projections by likelihood. Rows with a missing cell
      count only for that likelihood.

    A good start for EM: ``fit_em(spec, data, start="moments")``. As an estimate it is less efficient than the
    likelihood's maximum, and can fail where the components overlap.

    Parameters
    ----------
    spec : Node
        A mixture.
    data : table
        N rows; see `bayesmix.fit`.
    row_weights : array_like, shape (N,), optional
        Weight 2 is the same as the row twice.
    n_splits : int
        Random projections for a composite.
    random_seed : int, SeedSequence or Generator, optional
        For a composite; the others draw nothing.

    Returns
    -------
    Fit
        One chain, one draw. ``fit.status.converged`` says that the fitted moments are the sample's.
        ``fit.idata["moments"]`` has, with the dims of the parameters, standard errors ``{parameter}_se`` by the
        delta method (NaN where the moments had to be moved, or a mean lies on the edge of its range); every
        admissible answer under the parameters' names along ``solution``, the chosen first; and for one family,
        in the data's units, ``sample_moments`` and ``fitted_moments`` along ``moment`` (of a normal about the sample
        mean, of other families those of the mixing distribution) with ``criterion``, the distance in the last of
        them, which was not fitted. ``fit.starts`` lists the log-likelihood of each answer or projection.

    Raises
    ------
    MomentsError
        No mixture of this kind has the sample's moments. (A ``ValueError``.)
    SpecError
        There is no estimator from moments for this spec.
    DataError
        Everything that is wrong with the data.

    References
    ----------
    Pearson 1894, *Philosophical Transactions A* 185; Lindsay 1989, *Annals of Statistics* 17; Wu and Yang 2020,
    *Annals of Statistics* 48; Hsu and Kakade 2013, *ITCS*; Anandkumar et al. 2014, *JMLR* 15. Formulas:
    `bayesmix.moments`.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> rng = np.random.default_rng(43)
    >>> first = rng.random(5000) < 0.7
    >>> x = np.where(first, rng.normal(0, 2, 5000), rng.normal(10, 3, 5000))
    >>> fit = bm.fit_moments(bm.Mixture(bm.Normal(), 2), x)
    >>> fit.params["mu"].round() + 0.0, fit.params["sigma"].round()
    (array([ 0., 10.]), array([2., 3.]))
    >>> bool((fit.idata["moments"]["mu_se"] < 0.5).all())
    True
    """
    arguments.check(n_splits=n_splits)
    table, bound, encoded, weights, given = prepare(spec, data, row_weights)
    found = estimate(bound, encoded, weights, generator(random_seed), n_splits)
    best = found.solutions[0]
    if not found.exact and _coincide(bound, best):
        warn(
            f"{found.message} Two of the components coincide: the moments speak for fewer. Use fewer components.",
            DegenerateWarning,
        )
    return make_fit(
        bound,
        {name: best[name][None, None] for name in bound.free_slots},
        table=table,
        encoded=encoded,
        row_weights=given,
        status=Status("moments", found.exact, found.message),
        starts=found.moments.pop("starts"),
        groups={"moments": _report(bound, found)},
    )


def moments_starts(bound: Bound, data: Encoded, row_weights: np.ndarray, rng: np.random.Generator) -> list[Arrays]:
    """Where EM begins when it is told to begin at the moments' answers: each admissible one, or the best projections.

    Raises `MomentsError` where all of them have coinciding components, which EM cannot tell apart.
    """
    found = estimate(bound, data, row_weights, rng)
    apart = [params for params in found.candidates if not _coincide(bound, params)]
    if not apart:
        raise MomentsError(
            f"{found.message} Two of the components coincide, which is no start for EM. Leave start out, or use fewer "
            "components."
        )
    return apart


def estimate(
    bound: Bound, data: Encoded, row_weights: np.ndarray, rng: np.random.Generator, n_splits: int = 50
) -> Estimate:
    """Parameters from moments, by whichever way the spec has; components in canonical order. See `fit_moments`.

    Raises `SpecError` where there is none, and `MomentsError`.
    """
    bound.require_mixture()
    _check_estimable(bound)
    fields: list[tuple[Site, Encoded]] = []
    if len(bound.site.children) == 1:  # components of one spec
        component, block = bound.site.children[0], bound.site.node.child_data(data)[0]
        fields = component.node.independent_fields(component, block)
    _check_own(bound, fields)
    if len(fields) == 1:
        (site, own), weights = fields[0], row_weights
        if own.present is not None:
            weights = weights[own.present]
        arrays = {name: array[weights > 0] for name, array in own.arrays.items()}
        estimator = site.node.moment_estimator(site, arrays, weights[weights > 0])
        if estimator is not None:
            return _from_one_family(bound, data, row_weights, site, estimator, weights[weights > 0])
    if sum(len(site.node.independent_columns(site.learned) or [0]) for site, _ in fields) >= 3:
        return _from_cross_moments(bound, data, row_weights, fields, rng, n_splits)
    raise SpecError(
        f"{bound.spec!r}: this has no estimator from moments. They can do with one family that offers "
        'one, or three or more independent fields of any families. Use method="em".'
    )


def _check_estimable(bound: Bound) -> None:
    faults = [
        f"{name}: depends on variables of your PyMC model, which moments do not estimate. "
        "Use bm.build_model and pm.sample."
        for name, slot in bound.slots.items()
        if slot.depends_on_model
    ]
    weights = bound.site.slots["weights"]
    if not weights.free:
        faults.append(f'{weights.name}: fixed, but the method of moments estimates the weights. Use method="em".')
    if faults:
        raise SpecError(faults)


def _check_own(bound: Bound, fields: list[tuple[Site, Encoded]]) -> None:
    """Raise `SpecError` where a family has one set of parameters for all of the mixture's components."""
    axis = bound.site.slots["weights"].event[0]
    faults = [
        f"{slot.name}: tied, so the components have it in common, and the method of moments does not estimate that. "
        'Use method="em".'
        for site, _ in fields
        if axis not in site.place.axes
        for slot in site.slots.values()
    ]
    if faults:
        raise SpecError(sorted(set(faults)))


# ------------------------------------------------------------ one family


def _from_one_family(
    bound: Bound, data: Encoded, row_weights: np.ndarray, site: Site, estimator: Estimator, weights: np.ndarray
) -> Estimate:
    """Solve the estimator's equations; `weights` are those of the rows that it was made from."""
    total = weights.sum()
    sample = weights @ estimator.statistics / total
    deviation = estimator.statistics - sample
    covariance = (deviation * weights[:, None]).T @ deviation / total
    answers = estimator.solve(sample, covariance)
    errors = {name: np.full(site.n_components, np.nan) for name in estimator.named(answers[0].theta)}
    if answers[0].exact:
        errors = estimator.standard_errors(answers[0].theta, covariance, total)
    solutions = []
    for number, answer in enumerate(answers):
        plain = _in_slots(bound, site, estimator.named(answer.theta))
        ordered = in_canonical_order(bound, plain)
        if number == 0:
            errors = _reordered(bound, site, plain, ordered, _in_slots(bound, site, errors))
        solutions.append(ordered)
    fitted = np.array([estimator.moments(answer.theta) for answer in answers]) * estimator.units
    sample = sample * estimator.units
    logliks = [float(weighted_sum(bound.log_density(params, data), row_weights)) for params in solutions]
    count = len(answers[0].theta)
    if answers[0].exact:
        message = f"{count} moments reproduced; {len(answers)} admissible " + (
            "answer." if len(answers) == 1 else f"answers, the nearest in moment {count + 1} chosen."
        )
    else:
        message = f"No such mixture has these {count} moments: fitted to the nearest ones that are possible."
    return Estimate(
        solutions,
        solutions,
        errors,
        answers[0].exact,
        message,
        {
            "sample_moments": ("moment", sample),
            "fitted_moments": (("solution", "moment"), fitted),
            "criterion": ("solution", np.abs(fitted - sample)[:, -1]),
            "starts": [{"objective": value, "status": "admissible", "iterations": 0} for value in logliks],
        },
    )


def _in_slots(bound: Bound, site: Site, named: Arrays) -> Arrays:
    """A family's values (K, …) and the weights in the shapes of their slots, with what is fixed."""
    weights = bound.site.slots["weights"]
    out = {weights.name: named["weights"].reshape(weights.shape)}
    out.update({slot.name: slot.of_components(named[name]) for name, slot in site.slots.items() if slot.free})
    return bound.with_fixed(out)


def _per_component(site: Site, slot: Slot) -> bool:
    """Whether a slot has a value for each of the mixture's components, and not one for all."""
    return site.place.axes[-1] in slot.axes


def _reordered(bound: Bound, site: Site, before: Arrays, after: Arrays, errors: Arrays) -> Arrays:
    """Errors in the order that took `before` to `after`."""
    order = _order(bound, before, after)
    names = {bound.site.slots["weights"].name}
    names.update(slot.name for part in site.walk() for slot in part.slots.values() if _per_component(site, slot))
    return {name: value[order] if name in names else value for name, value in errors.items()}


def _order(bound: Bound, before: Arrays, after: Arrays) -> np.ndarray:
    """Component of `before` that each component of `after` is, (K,)."""
    axis = bound.site.slots["weights"].event[0]
    names = [name for name, slot in bound.slots.items() if axis in (*slot.axes, *slot.event) and slot.free]
    size = len(axis)
    old, new = (np.column_stack([side[name].reshape(size, -1) for name in names]) for side in (before, after))
    order: list[int] = []
    for row in new:
        order.append(next(i for i in range(size) if i not in order and (old[i] == row).all()))
    return np.array(order)


def _coincide(bound: Bound, params: Arrays) -> bool:
    """Whether two components have the same parameters."""
    axis = bound.site.slots["weights"].event[0]
    each = [params[name].reshape(len(axis), -1) for name, slot in bound.slots.items() if axis in slot.axes]
    rows = np.column_stack(each)
    return len(np.unique(rows, axis=0)) < len(rows)


def _report(bound: Bound, found: Estimate) -> xr.Dataset:
    """The group ``moments``."""
    free = list(bound.free_slots)
    every = {name: np.stack([solution[name] for solution in found.solutions])[None] for name in free}
    solutions = posterior_dataset(bound, every).isel(chain=0, drop=True).rename(draw="solution")
    errors = posterior_dataset(bound, {name: found.errors[name][None, None] for name in free})
    errors = errors.isel(chain=0, draw=0, drop=True).rename({name: f"{name}_se" for name in free})
    dataset = solutions.merge(errors).assign(found.moments)
    if "moment" in dataset.dims:
        dataset = dataset.assign_coords(moment=np.arange(1, dataset.sizes["moment"] + 1))
    return dataset


# ------------------------------------------------------------ fields that are independent given the component


@dataclass(frozen=True)
class _Fields:
    """Complete rows of independent fields.

    Attributes
    ----------
    sites : list of Site
    layouts : list of list of (str, int, bool)
        Of each site, its statistics by name, number of columns, and whether they are vectors.
    views : list of ndarray, shape (N, J_v)
    owners : list of (int, ndarray)
        Of each view, its site and its columns in the site's stacked statistics.
    whole : list of ndarray, shape (N, J)
        Stacked statistics of each site.
    values : list of ndarray, shape (M_v, J_v)
        The distinct rows of each view.
    """

    sites: list[Site]
    layouts: list[list[tuple[str, int, bool]]]
    views: list[np.ndarray]
    owners: list[tuple[int, np.ndarray]]
    whole: list[np.ndarray]
    values: list[np.ndarray]


def _gather(fields: list[tuple[Site, Encoded]], rows: np.ndarray) -> _Fields:
    sites, layouts, views, owners, whole = [], [], [], [], []
    for number, (site, data) in enumerate(fields):
        statistics = site.node.row_statistics(data.take(rows).arrays, site.learned)
        arrays = {name: np.asarray(array, float) for name, array in statistics.items()}
        stacked = np.column_stack(list(arrays.values()))
        sites.append(site)
        whole.append(stacked)
        layouts.append([(name, 1 if a.ndim == 1 else a.shape[1], a.ndim > 1) for name, a in arrays.items()])
        for columns in site.node.independent_columns(site.learned) or [np.arange(stacked.shape[1])]:
            views.append(stacked[:, columns])
            owners.append((number, columns))
    return _Fields(sites, layouts, views, owners, whole, [np.unique(view, axis=0) for view in views])


def _from_cross_moments(
    bound: Bound,
    data: Encoded,
    row_weights: np.ndarray,
    blocks: list[tuple[Site, Encoded]],
    rng: np.random.Generator,
    n_splits: int,
) -> Estimate:
    """The best of several random splits of the fields, by the likelihood of all rows."""
    complete = row_weights > 0
    for _, block in blocks:
        complete[block.missing_rows()] = False
    rows = np.flatnonzero(complete)
    size = len(bound.site.slots["weights"].event[0])
    if len(rows) <= size:
        raise MomentsError(
            f"only {len(rows)} rows have no missing cell, too few for moments of {size} components. "
            'Use method="em", which takes them as they are.'
        )
    n_rows, weights = len(rows), row_weights[rows]
    fields = _gather(blocks, rows)
    _, first, group = np.unique(np.hstack(fields.views), axis=0, return_index=True, return_inverse=True)
    if len(first) < len(rows) / 2:  # each pattern once, with the weight of all rows that show it
        rows, weights, group = rows[first], np.bincount(group.ravel(), weights), np.arange(len(first))
        fields = _gather(blocks, rows)
        others = np.flatnonzero(~complete & (row_weights > 0))
        data = data.take(np.concatenate([rows, others]))
        row_weights = np.concatenate([weights, row_weights[others]])
    # the M-step turns the means of any family's statistics into its parameters
    flat = bind_learned(bound.spec.with_flat_priors(), bound.learned)
    base = middle(flat)

    def solve(share: np.ndarray, split: Split, known: np.ndarray | None = None) -> tuple[Arrays, np.ndarray] | None:
        found = conditional_means(fields.views, size, share, split)
        if found is None:
            return None
        stats, moved = _as_stats(flat, fields, *found, share, 1 / n_rows, known)
        params = flat.m_step(stats, base)
        return (params, moved) if all(np.isfinite(value).all() for value in params.values()) else None

    answers: list[tuple[float, Arrays, np.ndarray, Split]] = []
    splits = []
    for split in random_splits(fields.views, size, rng, n_splits):
        found = solve(weights, split)
        loglik = -np.inf if found is None else float(weighted_sum(bound.log_density(found[0], data), row_weights))
        status = "failed: no real decomposition" if found is None else "admissible"
        splits.append({"objective": loglik, "status": status, "iterations": 0})
        if found is not None:
            answers.append((loglik, *found, split))
    if not answers:
        raise MomentsError(no_decomposition(size))
    answers.sort(key=lambda answer: -answer[0])
    _, params, moved, split = answers[0]
    errors = _cross_errors(bound, group.ravel(), weights, params, lambda share: solve(share, split, moved), rng)
    errors = _without_moved(bound, fields, errors, moved)
    errors.update(
        {name: np.full_like(errors[name], np.nan) for name in bound.discrete_slots}
    )  # they do not vary smoothly
    ordered = in_canonical_order(bound, params)
    errors = _reordered(bound, bound.site.children[0], params, ordered, errors)
    message = f"Cross moments of {len(fields.views)} fields; the best of {len(answers)} projections by likelihood." + (
        f" {int(moved.sum())} conditional means lay outside their range or on its edge, and were moved inside."
        if moved.any()
        else ""
    )
    return Estimate(
        [ordered], [answer[1] for answer in answers[:_CANDIDATES]], errors, not moved.any(), message, {"starts": splits}
    )


def _as_stats(
    bound: Bound,
    fields: _Fields,
    proportions: np.ndarray,
    means: list[np.ndarray],
    row_weights: np.ndarray,
    pull: float,
    known: np.ndarray | None,
) -> tuple[Stats, np.ndarray]:
    """Expected sufficient statistics of all rows from conditional means, and which means had to be moved (V, K).

    With `known`, the ones that are known to need it get the overall mean, and none are looked at.
    """
    total = row_weights.sum()
    held = total * proportions
    stats: Stats = {bound.site.key: {"n": held[None]}}
    # columns of no view are constants, such as the 1 of every row
    stacked = [np.tile(row_weights @ whole / total, (len(held), 1)) for whole in fields.whole]
    moved = []
    for v, ((number, columns), values, mean) in enumerate(zip(fields.owners, fields.values, means)):
        overall = stacked[number][0, columns].copy()
        if known is None:
            possible, outside = nearest_possible(mean, values, overall, pull)
        else:
            possible, outside = np.where(known[v][:, None], overall, mean), known[v]
        stacked[number][:, columns] = possible
        moved.append(outside)
    for site, layout, columns in zip(fields.sites, fields.layouts, stacked):
        own, at = {}, 0
        for name, width, vector in layout:
            value = columns[:, at : at + width] * held[:, None]
            own[name] = value if vector else value[:, 0]
            at += width
        add_to(stats, site.key, own)
    return stats, np.array(moved)


def _cross_errors(
    bound: Bound, group: np.ndarray, weights: np.ndarray, params: Arrays, solve: Any, rng: np.random.Generator
) -> Arrays:
    """Standard errors by the infinitesimal jackknife, which is the delta method for all the moments at once.

    The estimate is differentiated in the weight of every distinct row (`group` (N,) numbers them), or of random
    groups where there are many.
    """
    if group.max() >= _GROUPS:
        group = rng.permutation(len(group)) % _GROUPS
        # groups of weighted rows: their sums vary by the squares of the weights
        inverse = np.full(group.max() + 1, weights.sum() / (weights**2).sum())
    else:
        inverse = 1 / np.bincount(group, weights)
    variance = {name: np.zeros_like(params[name]) for name in bound.free_slots}
    for number, factor in enumerate(inverse):
        sides = [solve(np.where(group == number, weights * (1 + sign * _STEP), weights)) for sign in (1, -1)]
        if None in sides:
            return {name: np.full_like(value, np.nan) for name, value in variance.items()}
        for name in variance:
            slope = (sides[0][0][name] - sides[1][0][name]) / (2 * _STEP)
            variance[name] += factor * slope**2
    return {name: np.sqrt(value) for name, value in variance.items()}


def _without_moved(bound: Bound, fields: _Fields, errors: Arrays, moved: np.ndarray) -> Arrays:
    """Errors with NaN where a family's means were moved: its estimate is then not smooth in the moments."""
    out = dict(errors)
    for (number, _), outside in zip(fields.owners, moved):
        site = fields.sites[number]
        for slot in site.slots.values():
            if slot.free:
                index = outside if _per_component(site, slot) else outside.any()
                out[slot.name] = out[slot.name].copy()
                out[slot.name][index] = np.nan
    return out
