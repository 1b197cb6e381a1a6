"""How many components, and which of several specs: criteria side by side, on the same rows.

Every criterion is of the marginal likelihood of the rows, with the labels summed out. Information criteria (BIC, ICL)
are taken at EM's mode; leave-one-out and bridge sampling need draws of the posterior; Laplace's evidence needs the mode
only.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import predictive
from bayesmix.bound import Bound, bind
from bayesmix.data import read
from bayesmix.errors import BayesmixWarning, DataError, SpecError, heard, warn
from bayesmix.evidence import METHODS, log_evidence
from bayesmix.fit import Fit, observed_dataset
from bayesmix.inference.em import _SAME_MODE, fit_em, fit_rows
from bayesmix.inference.rows import Rows, rows_in_parts
from bayesmix.labels import draw_labels, require_one_meaning
from bayesmix.params import Params
from bayesmix.progress import Progress
from bayesmix.seeds import spawned
from bayesmix.sources import source_of
from bayesmix.spec import Encoded, Node, Site
from bayesmix.threads import ALONE, without_warnings
from bayesmix.training import same

#: Labels that are drawn at once to count occupied components.
_AT_ONCE = 10_000_000
#: Criterion -> column, and whether a high value is good.
CRITERIA = {
    "bic": ("bic", False),
    "icl": ("icl", False),
    "loo": ("elpd_loo", True),
    "evidence": ("log_evidence", True),
}


@dataclass(frozen=True)
class Selection:
    """Fits with different numbers of components, and what the criteria say of each.

    Attributes
    ----------
    table : pandas.DataFrame
        One row for each number of components; see `select` for the columns.
    best : int or tuple of int
        Number of components that the criterion prefers; a tuple where several mixtures vary.
    fits : dict
        Number of components -> `Fit`; those that failed are left out.
    criterion : str

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.array([0, 1, 1, 0, 2, 9, 12, 8, 11, 10])
    >>> selection = bm.select(bm.Mixture(bm.Poisson(), 2), x, [1, 2], random_seed=1)
    >>> selection.best, selection.best_fit.params["mu"].shape
    (2, (2,))
    """

    table: pd.DataFrame
    best: Any
    fits: dict[Any, Fit]
    criterion: str

    @property
    def best_fit(self) -> Fit:
        """The fit with the best number of components."""
        return self.fits[self.best]

    @property
    def failed(self) -> dict[Any, str]:
        """Number of components -> why there is no fit of it."""
        return {key: note for key, note in zip(self.table.index, self.table["note"]) if key not in self.fits}

    def __repr__(self) -> str:
        shown = self.table.drop(columns="note").dropna(axis=1, how="all").round(3).to_string()
        return "\n".join([f"<Selection: {self.best} by {self.criterion}>", shown, *_reasons(self.failed)])

    def _repr_html_(self) -> str:
        column, _ = CRITERIA[self.criterion]

        def mark(row: pd.Series) -> list[str]:
            return ["font-weight: bold" if row.name == self.best else ""] * len(row)

        try:
            table = self.table.style.apply(mark, axis=1).format(precision=3).to_html()
        except (AttributeError, ImportError):  # pandas styles need jinja2
            table = self.table.round(3).to_html()
        failed = "".join(f"<p>{html.escape(reason)}</p>" for reason in _reasons(self.failed))
        return f"<p>{self.best} components by {column}</p>{table}{failed}"


def _reasons(failed: Mapping[Any, str]) -> list[str]:
    """A sentence for each reason why there is no fit."""
    numbers: dict[str, list[str]] = {}
    for key, note in failed.items():
        numbers.setdefault(note, []).append(str(key))
    return [f"No fit of {', '.join(keys)}: {note}" for note, keys in numbers.items()]


def select(
    spec: Node,
    data: Any,
    n_components: Any = range(1, 9),
    *,
    method: str = "em",
    criterion: str = "bic",
    of: str | None = None,
    evidence: str | None = "auto",
    row_weights: Any = None,
    n_starts: int = 16,
    random_seed: Any = None,
    progressbar: bool = False,
    **kwargs: Any,
) -> Selection:
    r"""Fit a spec with different numbers of components, and compare them.

    Parameters
    ----------
    spec : Node
        With any number of components; it is not changed. One component is a mixture of one.
    data : table or source
        N rows; see `bayesmix.fit`. Of a table that is read in parts only EM's mode is found, with BIC and ICL.
    n_components : iterable of int, or dict
        Numbers to try. A dict varies several mixtures, on a grid: name of the mixture, as in `of`, -> numbers.
    method : str
        The engine whose fits are kept; see `bayesmix.fit`. Every number is fitted by EM first, for BIC and ICL.
        "nuts", "laplace" and "advi" give draws, which leave-one-out needs.
    criterion : {"bic", "icl", "loo", "evidence"}
        What ``selection.best`` goes by.
    of : str, optional
        Which mixture varies: the field that it stands in (``"y"``), or the name of its weights
        (``"topic_weights"``). By default the root, or the only one.
    evidence : {"auto", "laplace", "importance", "bridge"} or None
        See `log_evidence`. "auto": by bridge sampling for NUTS, else by Laplace, and none where priors are improper.
    row_weights : array_like, shape (N,), optional
    n_starts : int
        Of EM, for each number.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool
    **kwargs
        What the engine takes; of a source `n_jobs` and `memory` too (see `fit_em`).

    Returns
    -------
    Selection
        Its ``table`` has the columns

        - ``n_parameters``: free numbers, p. Simplexes of G entries have G - 1, tied and shared parameters count once;
        - ``loglik``: log-likelihood at EM's mode, in nats;
        - ``bic``: :math:`p \log N - 2` loglik, N the sum of the row weights: **low is good**;
        - ``icl``: BIC + 2 entropy: low is good. It prefers components that do not overlap;
        - ``entropy``: :math:`-\sum_{nk} r_{nk} \log r_{nk}` of the labels of the mixture that varies (and of those
          around it, where each has components of its own), in nats; and
          ``entropy_relative``, the same over its largest value, :math:`N \log K`: 0 for labels that are
          certain, 1 for labels of which nothing is known;
        - ``elpd_loo``, ``se_loo``, ``bad_k``: leave-one-out log predictive density of the rows by PSIS, with labels
          summed out, **high is good**; its standard error; and the rows whose Pareto k is above ArviZ's threshold;
        - ``log_evidence``, ``se_evidence``: over all orders of the labels, high is good;
        - ``smallest_weight``: of the mixture that varies;
        - ``converged``, ``starts_agreed``: of the fit; and how many of EM's starts reached its mode;
        - ``note``: warnings; or why there is no fit, in a row that is empty otherwise.

    Raises
    ------
    SpecError
        The mixture has a list of different components, or priors that are one component's own.
    DataError, TypeError, ValueError
        Every number of components failed: the first one's reason.

    Warns
    -----
    BayesmixWarning
        Some of them failed: which, and why.

    Notes
    -----
    BIC and ICL are defined at the maximum of the likelihood. Under the default priors `loglik` is the likelihood at the
    posterior mode, which lies a little lower, and exists where the likelihood has no maximum (Fraley and Raftery 2007).
    ``spec.with_flat_priors()`` gives the classical figures, and no evidence.

    References
    ----------
    Schwarz 1978, *Annals of Statistics* 6; Biernacki, Celeux and Govaert 2000, *IEEE PAMI* 22, for ICL; Celeux and
    Soromenho 1996, *Journal of Classification* 13, for the entropy; Fraley and Raftery 2007, *Journal of
    Classification* 24; Vehtari, Gelman and Gabry 2017, *Statistics and Computing* 27; Celeux, Frühwirth-Schnatter and
    Robert 2019, *Handbook of Mixture Analysis*, chapter 7.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-6, 0, 6)])
    >>> selection = bm.select(bm.Mixture(bm.Normal(), 2), x, range(1, 5), random_seed=1)
    >>> selection.best
    3
    >>> [round(value) for value in selection.table["bic"]]
    [1828, 1704, 1533, 1550]
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion: one of {', '.join(CRITERIA)} is needed, not {criterion!r}.")
    if evidence not in (*METHODS, "auto", None):
        raise ValueError(f'evidence: one of {", ".join(METHODS)}, "auto" or None is needed, not {evidence!r}.')
    if criterion == "loo" and method in ("em", "map", "moments"):
        raise ValueError(f'criterion: "loo" needs draws, which method={method!r} does not give. Take "nuts".')
    if criterion == "evidence" and evidence is None:
        raise ValueError('criterion: "evidence" needs evidence="auto", or one of its methods.')
    common: dict[str, Any] = {
        "criterion": criterion,
        "of": of,
        "n_starts": n_starts,
        "random_seed": random_seed,
        "progressbar": progressbar,
    }
    if (source := source_of(data)) is not None:
        if method != "em" or evidence not in ("auto", None):
            raise ValueError(
                f"data: {source.name} is read in parts, of which select finds BIC and ICL: leave method= and evidence= "
                "out, or pass a table that fits in memory, such as a sample of the rows."
            )
        reading = {name: kwargs.pop(name) for name in ("n_jobs", "memory") if name in kwargs}
        rows_of = partial(rows_in_parts, source=source, row_weights=row_weights, **reading)
        return select_rows(spec, rows_of, n_components, **common, **kwargs)
    table = read(data)

    def row(resized: Node, varied: Site, n_starts: int, seed: np.random.SeedSequence) -> tuple[dict[str, Any], Fit]:
        return _row(resized, table, varied, method, evidence, row_weights, n_starts, seed, kwargs)

    return _selected(bind(spec, table), n_components, row, **common)


def select_rows(
    spec: Node, rows_of: Callable[[Node], Rows], n_components: Any, *, criterion: str, **kwargs: Any
) -> Selection:
    """`select` of rows wherever they are, by EM: `rows_of` binds a spec to them."""
    if criterion not in ("bic", "icl"):
        raise ValueError(f'criterion: of rows that are read in parts "bic" or "icl" is needed, not {criterion!r}.')
    own = {name: kwargs.pop(name) for name in ("of", "n_starts", "random_seed", "progressbar")}

    def row(resized: Node, varied: Site, n_starts: int, seed: np.random.SeedSequence) -> tuple[dict[str, Any], Fit]:
        rows = rows_of(resized)
        e_step: Any = rows.e_step
        mode = fit_rows(resized, rows, n_starts=n_starts, random_seed=seed.spawn(3)[0], **kwargs)
        site = next(site for site in mode.bound.site.walk() if site.key == varied.key)
        found = e_step.sum_of(partial(_entropy_of_rows, mode.bound, site, mode.params))
        return _criteria(mode, site, float(e_step.chunks.total_weight), found), mode

    return _selected(rows_of(spec).e_step.bound, n_components, row, criterion=criterion, **own)


def _selected(
    bound: Bound,
    n_components: Any,
    row: Callable[[Node, Site, int, np.random.SeedSequence], tuple[dict[str, Any], Fit]],
    *,
    criterion: str,
    of: str | None,
    n_starts: int,
    random_seed: Any,
    progressbar: bool,
) -> Selection:
    """The table, of which `row` makes the row and the fit of one spec."""
    sites, axes = _varied(bound, n_components, of)
    grid = list(itertools.product(*axes))
    seeds = spawned(random_seed, len(grid))
    rows, fits, faults = {}, {}, []
    with Progress("components", len(grid), progressbar) as progress:
        for counts, seed in zip(grid, seeds):
            key = counts[0] if len(counts) == 1 else counts
            fault: Exception | None = None
            with heard() as notes:
                try:
                    resized = _resized(bound.site, {site.key: n for site, n in zip(sites, counts)})
                    rows[key], fits[key] = row(resized, sites[0], n_starts, seed)
                except Exception as error:  # becomes a row with its reason
                    fault = error
                    faults.append(error)
                    rows[key] = {"converged": False}
            if fault is not None:
                notes.append(f"{type(fault).__name__}: {fault}")
            rows[key]["note"] = " ".join(dict.fromkeys([*rows[key].get("notes", []), *notes]))
            progress.step(f"{key}")
    if not fits:
        raise faults[0]
    column, high = CRITERIA[criterion]
    with ALONE:  # pandas puts the warnings filters aside
        frame = _frame(rows, sites)
        scores = pd.to_numeric(frame[column]) * (1 if high else -1)
    if scores.isna().all():
        reasons = " ".join(dict.fromkeys(frame["note"]))
        raise ValueError(f"criterion: no number of components has {criterion!r}. {reasons}")
    found = Selection(frame, list(rows)[int(np.nanargmax(scores.to_numpy()))], fits, criterion)
    if found.failed:
        reasons = " ".join(_reasons(found.failed))
        warn(f"n_components: {len(found.failed)} of {len(grid)} failed. {reasons}", BayesmixWarning)
    return found


_COLUMNS: dict[str, Any] = {
    "n_parameters": "Int64",
    "loglik": float,
    "bic": float,
    "icl": float,
    "entropy": float,
    "entropy_relative": float,
    "elpd_loo": float,
    "se_loo": float,
    "bad_k": "Int64",
    "log_evidence": float,
    "se_evidence": float,
    "smallest_weight": float,
    "converged": bool,
    "starts_agreed": "Int64",
    "note": object,
}


def _frame(rows: Mapping[Any, Mapping[str, Any]], sites: list[Site]) -> pd.DataFrame:
    names = ["n_components"] if len(sites) == 1 else [site.slots["weights"].event[0].name for site in sites]
    keys = list(rows)
    index = pd.Index(keys, name=names[0]) if len(sites) == 1 else pd.MultiIndex.from_tuples(keys, names=names)
    columns = {
        name: pd.array([row.get(name) if row.get(name) is not None else pd.NA for row in rows.values()], dtype="Int64")
        if kind == "Int64"
        else np.array([row.get(name, np.nan) for row in rows.values()], dtype=kind)
        for name, kind in _COLUMNS.items()
    }
    return pd.DataFrame(columns, index=index)


def _row(
    spec: Node,
    table: Any,
    varied: Site,
    method: str,
    evidence: str | None,
    row_weights: Any,
    n_starts: int,
    seed: np.random.SeedSequence,
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Any], Fit]:
    """One spec's row of the table, and its fit."""
    from bayesmix.api import fit as fit_by

    first, second, third = seed.spawn(3)
    common = {"row_weights": row_weights, "n_starts": n_starts}
    mode = fit_em(spec, table, random_seed=first, **common, **(kwargs if method == "em" else {}))
    fitted = mode
    if method != "em":
        given = {name: value for name, value in common.items() if name in _keywords(method)}
        fitted = fit_by(spec, table, method, random_seed=second, **given, **kwargs)
    site = next(site for site in mode.bound.site.walk() if site.key == varied.key)
    weights, data = _weights(mode), mode._data(None, "error")[1]
    row = _criteria(mode, site, weights.sum(), _entropy_of_rows(mode.bound, site, mode.params, data, weights))
    row["converged"] = fitted.status.converged
    notes = []
    if "log_likelihood" in fitted.idata.children and fitted.posterior.sizes["draw"] > 1:
        row.update(_loo(fitted))
    if evidence is not None:
        how = ("bridge" if method == "nuts" else "laplace") if evidence == "auto" else evidence
        try:
            found = log_evidence(fitted if how == "bridge" else mode, how, random_seed=third)
            row["log_evidence"], row["se_evidence"] = found.value, found.error if how != "laplace" else np.nan
        except (SpecError, ValueError, np.linalg.LinAlgError) as error:
            notes.append(f"No evidence: {error}")
    return {**row, "notes": notes}, fitted


def _keywords(method: str) -> Iterable[str]:
    import inspect

    from bayesmix.api import ENGINES

    if method not in ENGINES:
        raise ValueError(f"method: one of {', '.join(ENGINES)} is needed, not {method!r}.")
    return inspect.signature(ENGINES[method]).parameters


# ---------------------------------------------------------------- specs with other numbers of components


def _mixtures(bound: Bound) -> list[Site]:
    return [site for site in bound.site.distinct() if "weights" in site.slots]


def find_mixture(bound: Bound, of: str | None) -> Site:
    """The mixture that `of` names, by its field or its weights; by default the root, or the only one.

    Raises
    ------
    SpecError
        There is none, or several.
    """
    mixtures = _mixtures(bound)
    names = [(site.place.path, site.slots["weights"].name) for site in mixtures]
    if of is None:
        found = mixtures if len(mixtures) == 1 else [bound.site] if bound.is_mixture else []
    else:
        found = [site for site, each in zip(mixtures, names) if of in each][:1]
    if not found:
        if not names:
            raise SpecError("n_components: the spec has no mixture whose components could vary. Wrap it in bm.Mixture.")
        what = "which mixture varies? Pass of=," if of is None else f"no mixture is called {of!r};"
        raise SpecError(f"of: {what} one of {', '.join(repr(path or name) for path, name in names)}.")
    return found[0]


def _varied(bound: Bound, n_components: Any, of: str | None) -> tuple[list[Site], list[list[int]]]:
    given = n_components if isinstance(n_components, Mapping) else {of: n_components}
    if isinstance(n_components, Mapping) and of is not None:
        raise TypeError("of: a dict of n_components names the mixtures already.")
    sites = [find_mixture(bound, name) for name in given]
    asked = [list(n) if isinstance(n, Iterable) and not isinstance(n, str) else [n] for n in given.values()]
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for each in asked for n in each)
    axes = [[int(n) for n in each] for each in asked] if whole else []
    if not axes or not all(axes) or min(min(each) for each in axes) < 1:
        raise ValueError(f"n_components: whole numbers of at least 1 are needed, not {n_components!r}.")
    return sites, [list(dict.fromkeys(each)) for each in axes]


def _resized(site: Site, counts: Mapping[str, int]) -> Node:
    """The spec at a site with other numbers of components in some mixtures, by site key."""
    node, parts = site.node, site.node.parts
    if len(parts) == len(site.children):
        children = tuple(_resized(child, counts) for child in site.children)
    else:  # a list of components, equal ones in one site
        members = {k: child for group, child in zip(node.groups, site.children) for k in group.members}
        children = tuple(_resized(members[k], counts) for k in range(len(parts)))
    node = node.with_priors(node.priors, children)
    return node.with_n_components(counts[site.key]) if site.key in counts else node


# ---------------------------------------------------------------- criteria


def n_parameters(bound: Bound) -> int:
    """Free numbers of a spec: simplexes of G entries have G - 1, covariance matrices D (D + 1) / 2.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> from bayesmix.bound import bind
    >>> from bayesmix.data import read
    >>> n_parameters(bind(bm.Mixture(bm.MvNormal(), 3), read(np.eye(4)[:, :2])))
    17
    """
    return sum(slot.n_free for slot in bound.free_slots.values())


def information(mode: Fit, total_weight: float | None = None) -> dict[str, Any]:
    """Free parameters, log-likelihood and BIC of a point estimate; N is the sum of the row weights."""
    p, total = n_parameters(mode.bound), _weights(mode).sum() if total_weight is None else total_weight
    return {"n_parameters": p, "loglik": mode.loglik, "bic": p * np.log(total) - 2 * mode.loglik}


def _weights(fit: Fit) -> np.ndarray:
    """The row weights of a fit that has its rows."""
    if fit.row_weights is not None:
        return fit.row_weights
    return np.ones(fit.encoded.n_rows if fit.encoded is not None else fit.idata["observed_data"].sizes["row"])


def _criteria(mode: Fit, site: Site, total_weight: float, entropy: np.ndarray) -> dict[str, Any]:
    """What EM's mode says of one number of components; `entropy` is the sum over rows of `_entropy_of_rows`."""
    row = information(mode, total_weight)
    largest = float(entropy[1])
    row["entropy"], row["entropy_relative"] = float(entropy[0]), float(entropy[0]) / largest if largest > 0 else 0.0
    row["icl"] = row["bic"] + 2 * row["entropy"]
    row["smallest_weight"] = float(np.min(mode.params[site.slots["weights"].name]))
    row["converged"] = mode.status.converged
    reached = np.array([start["objective"] for start in mode.starts])
    row["starts_agreed"] = int((reached > reached.max() - _SAME_MODE).sum())
    return row


def _entropy_of_rows(bound: Bound, site: Site, params: Params, data: Encoded, weights: np.ndarray) -> np.ndarray:
    """Of the labels of one mixture given the rows, in nats, and its largest value; (2,).

    Components that each component around has of its own are told apart by both labels.
    """
    out: dict[Any, np.ndarray] = {}
    bound.site.expect(params, bound.site.evaluate(params, data), data, weights[:, None], out)
    resp = out["label", site.place.path, site.slots["weights"].name]  # (N, components around, components)
    resp = resp.sum(1) if site.node.shared else resp.reshape(len(resp), -1)
    total = resp.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -float(np.where(resp > 0, resp * np.log(resp / total), 0.0).sum()) + 0.0
    return np.array([entropy, float(total.sum()) * np.log(resp.shape[1])])


def _loo(fit: Fit) -> dict[str, Any]:
    """PSIS leave-one-out by rows, labels summed out."""
    import arviz_stats as azs  # slow to import

    if fit.row_weights is not None:
        return {}  # a row of weight 2 is two rows, and leaving both out is not leaving one out
    with without_warnings("Estimated shape parameter"):  # counted in a column
        found = azs.loo(fit.idata, pointwise=True)
    bad = int((found.pareto_k.values > found.good_k).sum())
    return {"elpd_loo": float(found.elpd), "se_loo": float(found.se), "bad_k": bad}


def compare(
    fits: Mapping[str, Any],
    data: Any = None,
    *,
    criterion: str = "loo",
    method: str = "nuts",
    random_seed: Any = None,
    progressbar: bool = False,
    **kwargs: Any,
) -> pd.DataFrame:
    """Compare specs of different shapes on the same rows.

    Parameters
    ----------
    fits : dict
        Name -> `Fit`, or spec, which is then fitted to `data`.
    data : table, optional
        N rows, for specs and for fits that were loaded; fits must have been made of it.
    criterion : {"loo", "bic", "evidence"}
        By leave-one-out, with `arviz_stats.compare` (the fits need draws); by BIC at EM's mode; or by the log evidence.
    method : str
        The engine for specs under "loo" and "evidence"; BIC takes EM.
    random_seed : int, SeedSequence or Generator, optional
    progressbar : bool
    **kwargs
        For `arviz_stats.compare` (``method`` excepted: weights are by stacking) under "loo"; the ``method`` of
        `log_evidence` is its default.

    Returns
    -------
    pandas.DataFrame
        Best first. For "loo" that of `arviz_stats.compare`. Otherwise the criterion, its difference to the best, and
        ``weight``: each spec's posterior probability where all are alike a priori (by BIC, approximately).

    Raises
    ------
    DataError
        The fits are of different rows or fields, or of other rows than `data`.
    ValueError
        A fit has no draws where the criterion needs them, or row weights under "loo".

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> x = np.random.default_rng(0).gamma(2.0, size=200)
    >>> specs = {"normals": bm.Mixture(bm.Normal(), 2), "log-normal": bm.Mixture(bm.LogNormal(), 1)}
    >>> bm.compare(specs, x, criterion="bic", random_seed=1).index[0]
    'log-normal'
    """
    if criterion not in ("loo", "bic", "evidence"):
        raise ValueError(f"criterion: one of loo, bic, evidence is needed, not {criterion!r}.")
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError(f"fits: a dict of names to fits or specs is needed, not {fits!r}.")
    _keywords(method)
    seeds = spawned(random_seed, 2 * len(fits))
    made = {}
    with Progress("specs", sum(isinstance(each, Node) for each in fits.values()), progressbar) as progress:
        for (name, each), seed in zip(fits.items(), seeds):
            if isinstance(each, Node):
                from bayesmix.api import fit as fit_by

                if data is None:
                    raise DataError(f"data: {name} is a spec, and needs the table. Pass it, or fits.")
                made[name] = fit_by(each, data, "em" if criterion == "bic" else method, random_seed=seed)
                progress.step(name)
            else:
                made[name] = _of_table(name, each, data)
    _check_same_rows(made)
    if criterion == "loo":
        return _compare_loo(made, kwargs)
    if kwargs:
        raise TypeError(f"{', '.join(kwargs)}: only criterion='loo' takes more.")
    rows = {}
    for (name, each), seed in zip(made.items(), seeds[len(made) :]):
        if criterion == "bic":
            rows[name] = information(_at_mode(each, seed))
        else:
            found = log_evidence(each, random_seed=seed)
            rows[name] = {"log_evidence": found.value, "se": found.error, "method": found.method}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    score = -0.5 * frame["bic"] if criterion == "bic" else frame["log_evidence"]
    frame["difference"] = (frame["bic"] - frame["bic"].min()) if criterion == "bic" else score - score.max()
    chance = np.exp(score - score.max())
    frame["weight"] = chance / chance.sum()
    return frame.iloc[np.argsort(-score.to_numpy(), kind="stable")]


def _of_table(name: str, fit: Fit, data: Any) -> Fit:
    """The fit with the table; `DataError` where it was made of another."""
    if data is None or source_of(data) is not None:
        return fit
    table = read(data)
    try:
        return replace(fit, table=table, encoded=fit._training(table))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _at_mode(fit: Fit, seed: Any) -> Fit:
    """The fit where it is EM's or the MAP's; otherwise EM's of the same spec and rows."""
    if fit.status.engine in ("em", "map"):
        return fit
    return fit_em(fit.spec, fit._data(None, "error")[0], row_weights=fit.row_weights, random_seed=seed)


def _compare_loo(fits: Mapping[str, Fit], kwargs: Mapping[str, Any]) -> pd.DataFrame:
    import arviz_stats as azs  # slow to import

    for name, fit in fits.items():
        if fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"] == 1:
            raise ValueError(f'{name}: a point estimate has no draws to leave rows out of. Fit with method="nuts".')
        if "log_likelihood" not in fit.idata.children:
            raise ValueError(f"{name}: the log-likelihood of the rows was not kept. Fit with log_likelihood=True.")
        if fit.row_weights is not None:
            raise ValueError(f'{name}: leave-one-out is of rows without weights. Take criterion="bic" or "evidence".')
    with ALONE:  # ArviZ puts the warnings filters aside
        return azs.compare({name: fit.idata for name, fit in fits.items()}, **kwargs)


def _check_same_rows(fits: Mapping[str, Fit]) -> None:
    """Raise `DataError` where the densities of two fits are not of the same rows."""
    (first, one), *others = fits.items()
    have = _observed(first, one)
    for name, fit in others:
        own = _observed(name, fit)
        if own.sizes["row"] != have.sizes["row"]:
            raise DataError(f"{name}: {own.sizes['row']} rows; {first} has {have.sizes['row']}. Fit them to one table.")
        if set(own) != set(have):
            only = ", ".join(sorted(map(str, set(own) ^ set(have))))
            raise DataError(
                f"{name}: not the fields of {first} ({only} in one alone). Densities of them do not compare."
            )
        for field in map(str, own):
            symbols: dict[Any, float] = {}
            a, b = _as_read(fit, own[field], symbols), _as_read(one, have[field], symbols)
            for dim in a.dims[1:]:  # columns of vectors and of sets may have another order
                if dim in a.coords and dim in b.coords and set(a[dim].values) == set(b[dim].values):
                    a = a.sel({dim: b[dim].values})
            if a.shape != b.shape or not same(a.values, b.values).all():
                raise DataError(f"{name}: {field} has other values than in {first}. Fit them to one table.")
        if not np.array_equal(_weights(fit), _weights(one)):
            raise DataError(f"{name}: other row weights than {first}. Fit them with the same.")


def _observed(name: str, fit: Fit) -> xr.Dataset:
    """A fit's rows; `DataError` where they were not kept."""
    if "observed_data" in fit.idata.children:
        return fit.idata["observed_data"].to_dataset()
    if fit.encoded is None:
        raise DataError(
            f"{name}: its rows were read in parts and not kept, so that nobody knows whether the fits have the same. "
            "Pass the table as data=, in memory."
        )
    return observed_dataset(fit.bound, fit.encoded, np.arange(fit.encoded.n_rows))


def _as_read(fit: Fit, values: xr.DataArray, symbols: dict[Any, float]) -> xr.DataArray:
    """Values of a field as numbers that families and orders of levels do not change: NaN where they are missing.

    `symbols` has the numbers of those that are none, and gets those that it lacks.
    """
    field, kinds = str(values.name), ("symbol", "chain")
    missing = predictive.is_missing(values.values, predictive.missing_marks(fit.bound).get(field, -1))
    numbers = np.where(missing, np.nan, values.values)
    sites = (s for s in fit.bound.site.walk() if s.place.observed == field and s.node.value_kind in kinds)
    if (site := next(sites, None)) is not None:
        levels = [
            float(each) if isinstance(each, (int, float, np.number)) else symbols.setdefault(each, -0.5 - len(symbols))
            for each in site.learned.levels
        ]
        numbers[~missing] = np.array(levels)[values.values[~missing]]
    return values.copy(data=numbers)


# ---------------------------------------------------------------- occupied components


def occupied(
    bound: Bound, draws: Sequence[Params], data: Encoded, of: str | None, rng: np.random.Generator
) -> pd.Series:
    """See `bayesmix.Fit.occupied`."""
    site = find_mixture(bound, of)
    name = site.place.path, site.slots["weights"].name
    require_one_meaning(site)
    counts: list[int] = []
    step = max(_AT_ONCE // max(data.n_rows, 1), 1)
    for begin in range(0, len(draws), step):
        drawn = draw_labels(bound, draws[begin : begin + step], data, rng)[name]
        counts += [len(np.unique(z[z >= 0])) for z in drawn]
    sizes, times = np.unique(counts, return_counts=True)
    chance = pd.Series(times / len(counts), index=pd.Index(sizes, name="occupied"), name="probability")
    return chance.reindex(range(1, len(site.slots["weights"].event[0]) + 1), fill_value=0.0).rename_axis("occupied")
