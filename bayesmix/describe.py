"""A fit in sentences: its components, what it can be trusted for, and how it was made.

Components are described by `bayesmix.portraits`; which fields come first is decided by `separation`, a figure of the
model itself. Nothing here knows a family or a structure.
"""

from __future__ import annotations

import html
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from bayesmix import arguments
from bayesmix.check import Report, check
from bayesmix.data import read
from bayesmix.diagnostics import convergence
from bayesmix.errors import DataError
from bayesmix.fit import Fit, draw_rows
from bayesmix.params import Flat, Shared, show
from bayesmix.portraits import Portrait, Traits, everyone, stacked
from bayesmix.seeds import generator
from bayesmix.spec import Node, is_given_value

#: Draws, evenly spaced, that intervals are taken from.
_DRAWS = 200
#: Rows drawn from each component, at most, and from all together, to find `separation`.
_ROWS, _ALL_ROWS = 400, 8000
#: Shares below which a symbol is not worth a word, and how many are told.
_SMALL_SHARE, _MOST_SHARES = 0.05, 3
#: Figures of one kind that are told of a field: of vectors, the coordinates that differ most.
_MOST_FIGURES = 4
#: Differences from which a figure is compared with the other components', by `Traits.form`.
_DIFFERENT = {"location": 0.25, "count": 0.25, "scale": 0.2, "share": 0.05}
#: Default priors up to which the methods text writes them out.
_FEW_PRIORS = 12


@dataclass(frozen=True)
class ComponentDescription:
    """One component in words.

    Attributes
    ----------
    label : int
    weight : tuple of float
        Posterior mean, and the ends of its interval (the mean again for a point estimate).
    headline : str
        One sentence on its size.
    fields : dict
        Field -> sentence, those that tell it best from the others first.
    rest : str
        What is left out, and why; may be empty.
    """

    label: int
    weight: tuple[float, float, float]
    headline: str
    fields: dict[str, str]
    rest: str = ""

    @property
    def text(self) -> str:
        """All of it, a line for each field."""
        lines = [f"  {name}: {sentence}" for name, sentence in self.fields.items()]
        return "\n".join([self.headline, *lines, *([f"  {self.rest}"] if self.rest else [])])

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Description:
    """What `Fit.describe` says. It prints as text, and shows as HTML in a notebook.

    Attributes
    ----------
    title : str
    components : tuple of ComponentDescription
        Of the outermost mixture; one where the spec has none.
    common : dict
        Components that others share (topics, linked labels) -> a sentence on what they are like.
    separation : pandas.DataFrame
        Fields by components: how well a field alone tells a row of the component from a row of the others, as the
        Jensen-Shannon divergence in bits, from 0 (not at all) to 1 (surely). Empty for one component.
    methods : str
        Text for a paper's methods section.
    references : tuple of str
        What `methods` cites.
    """

    title: str
    components: tuple[ComponentDescription, ...]
    common: dict[str, str]
    separation: pd.DataFrame
    methods: str
    references: tuple[str, ...]
    _source: Fit = field(repr=False)

    @cached_property
    def check(self) -> Report | None:
        """What `Fit.check` says, when first asked for; None where there is no table."""
        return check(self._source) if self._source.encoded is not None else None

    @property
    def _note(self) -> str:
        if self.separation.empty:
            return ""
        return (
            "Fields come in the order in which they tell the component from the others: the figure is the "
            "Jensen-Shannon divergence in bits, 0 for not at all and 1 for surely."
        )

    def _sections(self) -> Iterator[tuple[str, list[str]]]:
        """Headings and paragraphs."""
        yield self.title, [self._note] if self._note else []
        yield "Components", [each.text for each in self.components]
        if self.common:
            yield "Shared components", [f"{name}: {text}" for name, text in self.common.items()]
        yield "Check", [str(self.check) if self.check is not None else "Not checked: pass the training table as data=."]
        yield "Methods", [self.methods]
        yield "References", list(self.references)

    def __str__(self) -> str:
        parts = []
        for i, (heading, paragraphs) in enumerate(self._sections()):
            parts.append(f"{heading}\n{('=' if i == 0 else '-') * len(heading)}")
            parts += ["\n".join(paragraphs)] if heading == "References" else paragraphs
        return "\n\n".join(parts)

    __repr__ = __str__

    def to_markdown(self) -> str:
        """The same as Markdown, to paste into a report."""
        lines = [f"# {_plain(self.title)}", _plain(self._note), "## Components"]
        for each in self.components:
            told = [f"- **{_plain(name)}**: {_plain(sentence)}" for name, sentence in each.fields.items()]
            lines += [f"**{_plain(each.headline)}**", "\n".join(told), _plain(each.rest)]
        if self.common:
            lines += ["## Shared components"]
            lines += ["\n".join(f"- **{_plain(name)}**: {_plain(text)}" for name, text in self.common.items())]
        report = str(self.check) if self.check is not None else "Not checked."
        lines += ["## Check", f"```text\n{report}\n```", "## Methods", _plain(self.methods), "## References"]
        lines += ["\n".join(f"- {_plain(each)}" for each in self.references)]
        return "\n\n".join(line for line in lines if line) + "\n"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        e = html.escape
        parts = [f"<h3>{e(self.title)}</h3>", f"<p>{e(self._note)}</p>" if self._note else ""]
        for each in self.components:
            items = "".join(f"<li><b>{e(name)}</b>: {e(text)}</li>" for name, text in each.fields.items())
            rest = f"<li>{e(each.rest)}</li>" if each.rest else ""
            parts.append(f"<p><b>{e(each.headline)}</b></p><ul>{items}{rest}</ul>")
        if self.common:
            items = "".join(f"<li><b>{e(name)}</b>: {e(text)}</li>" for name, text in self.common.items())
            parts.append(f"<p><b>Shared components</b></p><ul>{items}</ul>")
        parts.append("<h4>Check</h4>" + (self.check._repr_html_() if self.check is not None else "<p>Not checked.</p>"))
        references = "".join(f"<li>{e(each)}</li>" for each in self.references)
        parts.append(f"<h4>Methods</h4><p>{e(self.methods)}</p><h4>References</h4><ul>{references}</ul>")
        return f"<div>{''.join(parts)}</div>"


def _plain(text: str) -> str:
    """Text that Markdown leaves alone."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in text)


def describe(fit: Fit, *, n_fields: int = 6, prob: float = 0.89, data: Any = None) -> Description:
    """See `Fit.describe`."""
    arguments.check(n_fields=n_fields, prob=prob)
    if data is not None:
        data = read(data)
        fit = replace(fit, table=data, encoded=fit._training(data))
    fit._warn_of_labels()
    draws = fit._draws(_DRAWS)
    root = stacked([_root(fit.bound.site.node.portraits(fit.bound.site, params)) for params in draws])
    writer = _Writer(prob, len(draws) > 1, _lone_name(fit))
    separations = separation(fit)
    weights = _weights(fit, draws)
    told = tuple(_component(fit, writer, root, k, weights, separations, n_fields) for k in range(weights.shape[1]))
    references: list[str] = []
    methods = _methods(fit, prob, not separations.empty, references)
    return Description(_title(fit), told, _common(writer, root), separations, methods, tuple(references), fit)


def _root(portraits: list[Portrait]) -> Portrait:
    """The root's portraits as one, with a kind for each component of the outermost mixture."""
    if len(portraits) == 1 and portraits[0].kinds:
        return portraits[0]
    return Portrait("", "", kinds=((Traits("share", ("",), np.ones((1, 1))), tuple(portraits)),))


def _weights(fit: Fit, draws: list) -> np.ndarray:
    """Weights of the outermost mixture's components, (S, K); one of 1 where there is no mixture."""
    if not fit.bound.is_mixture:
        return np.ones((len(draws), 1))
    slot = fit.bound.site.slots["weights"]
    return np.array([slot.components(params[slot.name])[0] for params in draws])


def _lone_name(fit: Fit) -> str:
    names = fit.table.names if fit.table is not None else ()
    return names[0] if len(names) == 1 else "x"


def _title(fit: Fit) -> str:
    if not fit.bound.is_mixture:
        return f"A model without components, by {fit.status.engine}"
    k = len(fit.bound.site.slots["weights"].event[0])
    return f"A mixture of {k} component{'s' if k > 1 else ''}, by {fit.status.engine}"


# ------------------------------------------------------------------ what sets components apart


def separation(fit: Fit, random_seed: Any = 0) -> pd.DataFrame:
    """How well each field alone tells each component of the outermost mixture from the others.

    The Jensen-Shannon divergence, in bits, of the field's distribution in the component from that in the others
    together, these by their weights: 0 where they are one, 1 where they do not overlap. It is estimated from rows that
    are drawn from the components at ``fit.params``, with a standard error of about 0.02; from the training rows where
    families that differ draw what the others do not take.

    Parameters
    ----------
    fit : Fit
    random_seed : int, SeedSequence or Generator

    Returns
    -------
    pandas.DataFrame
        Fields by components; empty where there are fewer than two components.

    References
    ----------
    Lin 1991, *IEEE Transactions on Information Theory* 37.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> from bayesmix.describe import separation
    >>> rng = np.random.default_rng(0)
    >>> table = {"apart": np.repeat([0.0, 9.0], 50) + rng.normal(size=100), "alike": rng.normal(size=100)}
    >>> fit = bm.fit(bm.Mixture(bm.Composite(apart=bm.Normal(), alike=bm.Normal()), 2), table, random_seed=1)
    >>> (separation(fit) > 0.9).to_numpy().tolist()
    [[True, True], [False, False]]
    """
    bound, params = fit.bound, fit.params
    if not bound.is_mixture:
        return pd.DataFrame()
    site: Any = bound.site
    slot = site.slots["weights"]
    weights = slot.components(params[slot.name])[0]
    n = len(weights)
    if n < 2:
        return pd.DataFrame()
    rng = generator(random_seed)
    size = max(50, min(_ROWS, _ALL_ROWS // n))
    samples: list[tuple[Any, np.ndarray]] = []
    try:
        for k in range(n):
            alone = {**params, slot.name: np.eye(n)[k].reshape(slot.shape)}
            rows = bound.encode(draw_rows(bound, alone, size, rng), "ignore")
            samples.append((site.evaluate(params, rows), np.full(size, 1 / size)))
    except DataError:  # a component draws what is outside of another's support: take the rows that there are
        if fit.encoded is None:
            return pd.DataFrame()
        evaluation = site.evaluate(params, fit.encoded)
        resp = bound.responsibilities(params, fit.encoded)
        samples = [(evaluation, column / max(column.sum(), 1e-300)) for column in resp.T]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for evaluation, shares in samples:
        for path, density in site.node.component_fields(site, evaluation).items():
            found.setdefault(path or _lone_name(fit), []).append((density[:, 0], shares))
    lines = {path: _divergences(parts, weights) for path, parts in found.items()}
    components = pd.RangeIndex(n, name="component")
    return pd.DataFrame.from_dict(lines, orient="index", columns=components).rename_axis("field")


def _divergences(parts: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Of each component from the others (K,), from rows of each: log densities (S, K), and the rows' shares (S,)."""
    n = len(weights)
    found = np.empty(n)
    for k in range(n):
        others = np.flatnonzero(np.arange(n) != k)
        share = weights[others] / max(weights[others].sum(), 1e-300)
        terms = np.empty(n)
        for j, (density, rows) in enumerate(parts):
            with np.errstate(divide="ignore", invalid="ignore"):
                rest = np.logaddexp.reduce(density[:, others] + np.log(share), axis=1)
                own = density[:, k]
                middle = np.logaddexp(own, rest) - np.log(2)
                terms[j] = rows @ np.nan_to_num((own if j == k else rest) - middle, nan=0.0, neginf=0.0)
        found[k] = np.clip((terms[k] + share @ terms[others]) / (2 * np.log(2)), 0, 1)
    return found


# ------------------------------------------------------------------ sentences


@dataclass(frozen=True)
class _Writer:
    """Figures as words."""

    prob: float
    has_draws: bool
    lone: str

    def interval(self, values: np.ndarray) -> tuple[float, float, float]:
        """Mean and ends of the interval of draws (S,)."""
        low, high = np.quantile(values, [(1 - self.prob) / 2, (1 + self.prob) / 2])
        return float(np.mean(values)), float(low), float(high)

    def number(self, values: np.ndarray) -> str:
        """A figure with its interval, where there are draws."""
        mean, low, high = self.interval(values)
        return f"{_number(mean)} [{_number(low)}, {_number(high)}]" if self.has_draws else _number(mean)

    def percent(self, values: np.ndarray) -> str:
        """The same of a probability."""
        mean, low, high = (_percent(each) for each in self.interval(values))
        return f"{mean} % [{low}, {high}]" if self.has_draws else f"{mean} %"

    def sentence(self, portrait: Portrait, k: int, others: list[Portrait | None], weights: np.ndarray) -> str:
        """What a portrait's column `k` says; compared with the first columns of the others' portraits."""
        alike = [other for other in others if other is not None and other.what == portrait.what]
        if len(alike) < len(others) or not all(_same(portrait, other) for other in alike):
            alike = []
        said = [portrait.what] if others and not alike else []
        for i, traits in enumerate(portrait.traits):
            spread = _spread(portrait, i)
            rest = [other.traits[i].values[:, 0] for other in alike]
            said += self._traits(traits, k, rest, weights, spread)
        for j, part in enumerate(portrait.parts):
            text = self.sentence(part, k, [other.parts[j] for other in alike], weights)
            if text:
                said.append(f"{part.lead}: {text}" if part.lead else text)
        if portrait.kinds:
            kinds = [
                f"in {self.percent(share.values[:, k, 0])} {self._all(below, k)}" for share, below in portrait.kinds
            ]
            said.append("; ".join(kinds))
        return "; ".join(said)

    def _all(self, portraits: Iterable[Portrait], k: int) -> str:
        texts = []
        for each in portraits:
            text = self.sentence(each, k, [], np.empty(0)).replace("; ", ", ")
            texts.append(f"{each.lead} {text}" if each.lead else text)
        return ", ".join(texts)

    def _traits(
        self, traits: Traits, k: int, rest: list[np.ndarray], weights: np.ndarray, spread: np.ndarray | None
    ) -> list[str]:
        own = traits.values[:, k]  # (S, J)
        other = sum((w * each for w, each in zip(weights, rest)), start=np.zeros(())) if rest else None
        effect = np.zeros(own.shape[1]) if other is None else _effect(traits.form, own.mean(0), other.mean(0), spread)
        share = traits.form == "share"
        told = _worth(own.mean(0), effect) if share else np.sort(np.argsort(-effect, kind="stable")[:_MOST_FIGURES])
        said = []
        for j in told:
            text = f"{traits.names[j]}{' in ' if share else ' '}" if traits.names[j] else ""
            text += self.percent(own[:, j]) if share else self.number(own[:, j])
            if other is not None and effect[j] > _DIFFERENT.get(traits.form, np.inf):
                against = f"{_percent(float(other[:, j].mean()))} %" if share else _number(float(other[:, j].mean()))
                text += f" ({against} in the other{'s' if len(rest) > 1 else ''})"
            said.append(text)
        if len(told) < own.shape[1] and not share:
            said.append(f"{own.shape[1] - len(told)} more figures of this kind differ less")
        return said


def _same(a: Portrait, b: Portrait) -> bool:
    """Whether two portraits have the same figures."""
    names = [[(each.form, each.names) for each in portrait.traits] for portrait in (a, b)]
    return names[0] == names[1] and len(a.parts) == len(b.parts) and all(map(_same, a.parts, b.parts))


def _spread(portrait: Portrait, i: int) -> np.ndarray | None:
    """Spreads (J,) that go with a portrait's locations: the mean of its scales of the same number."""
    own = portrait.traits[i]
    for traits in portrait.traits:
        if own.form == "location" and traits.form == "scale" and len(traits.names) == len(own.names):
            return traits.values.mean((0, 1))
    return None


def _effect(form: str, own: np.ndarray, other: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
    """Sizes of differences (J,), in the unit of their form."""
    difference = np.abs(own - other)
    if form == "share":
        return difference
    with np.errstate(divide="ignore", invalid="ignore"):
        if form == "scale":
            return np.nan_to_num(np.abs(np.log(own / other)))
        if form == "count":
            return difference / np.sqrt(np.maximum((own + other) / 2, 1e-12))
        unit = np.maximum(np.abs(own), np.abs(other)) if spread is None else spread
        return np.nan_to_num(difference / unit) if form in _DIFFERENT else np.zeros(len(own))


def _worth(own: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Which shares are told: the largest ones, and the one that differs most from the others'; largest first."""
    largest = [j for j in np.argsort(-own, kind="stable")[:_MOST_SHARES] if own[j] >= _SMALL_SHARE or own.size == 1]
    most = int(np.argmax(effect))
    if effect[most] > _DIFFERENT["share"] and most not in largest:
        largest.append(most)
    return np.array(largest or [int(np.argmax(own))])


def _number(value: float) -> str:
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.3g}"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _percent(value: float) -> str:
    value *= 100
    if 0 < value < 0.1:
        return "< 0.1"
    if 99.9 < value < 100:
        return "> 99.9"
    return f"{value:.1f}".removesuffix(".0") if value < 10 or value > 99 else f"{value:.0f}"


def _component(
    fit: Fit, writer: _Writer, root: Portrait, k: int, weights: np.ndarray, separations: pd.DataFrame, n_fields: int
) -> ComponentDescription:
    fields = {each.path or writer.lone: each for each in root.kinds[k][1]}
    others = [{each.path or writer.lone: each for each in below} for j, (_, below) in enumerate(root.kinds) if j != k]
    share = np.delete(weights.mean(0), k)
    share = share / max(share.sum(), 1e-300)
    known = [name for name in fields if name in separations.index]
    ranks = separations.loc[known, k].sort_values(ascending=False, kind="stable") if known else pd.Series(dtype=float)
    order = [*ranks.index, *[name for name in fields if name not in ranks.index]]
    told = {}
    for name in order[:n_fields]:
        text = writer.sentence(fields[name], 0, [other.get(name) for other in others], share) or "nothing to tell"
        if name in ranks.index:
            text += f". Tells it from the other{'s' if len(others) > 1 else ''} by {ranks[name]:.2f}"
        told[name] = f"{text}."
    left = order[n_fields:]
    rest = ""
    if left:
        most = f" (at most {ranks[left].max():.2f}: {left[0]})" if all(name in ranks.index for name in left) else ""
        rest = f"{len(left)} more field{'s tell' if len(left) > 1 else ' tells'} it less well{most}."
    return ComponentDescription(k, writer.interval(weights[:, k]), _headline(fit, writer, k, weights), told, rest)


def _headline(fit: Fit, writer: _Writer, k: int, weights: np.ndarray) -> str:
    if weights.shape[1] == 1:
        return "Every row comes from one component." if fit.bound.is_mixture else "The model has no components."
    text = f"Component {k} holds {writer.percent(weights[:, k])} of the rows"
    if fit.encoded is not None and fit.row_weights is None:
        n = fit.encoded.n_rows
        text += f" (about {weights[:, k].mean() * n:.0f} of {n})"
    return f"{text}."


def _common(writer: _Writer, root: Portrait) -> dict[str, str]:
    """Components that others share, each told once."""
    found: dict[str, tuple[Portrait, ...]] = {}

    def visit(portrait: Portrait) -> None:
        for name, below in portrait.common:
            found.setdefault(name, below)

    everyone(root, visit)
    texts = {}
    for name, below in found.items():
        parts = []
        for each in below:
            text = writer.sentence(each, 0, [], np.empty(0))
            parts.append(f"{each.lead}: {text}" if each.lead else text)
        texts[name] = "; ".join(parts) + "."
    return texts


# ------------------------------------------------------------------ methods

_REFERENCES = {
    "mixtures": ("McLachlan and Peel 2000", "McLachlan, G. and Peel, D. (2000). Finite Mixture Models. Wiley."),
    "pymc": (
        "Abril-Pla et al. 2023",
        "Abril-Pla, O. et al. (2023). PyMC: a modern, and comprehensive probabilistic programming framework in Python. "
        "PeerJ Computer Science 9, e1516.",
    ),
    "em": (
        "Dempster et al. 1977",
        "Dempster, A. P., Laird, N. M. and Rubin, D. B. (1977). Maximum likelihood from incomplete data via the EM "
        "algorithm. Journal of the Royal Statistical Society B 39, 1-38.",
    ),
    "lbfgs": (
        "Liu and Nocedal 1989",
        "Liu, D. C. and Nocedal, J. (1989). On the limited memory BFGS method for large scale optimization. "
        "Mathematical Programming 45, 503-528.",
    ),
    "nuts": (
        "Hoffman and Gelman 2014",
        "Hoffman, M. D. and Gelman, A. (2014). The No-U-Turn sampler: adaptively setting path lengths in Hamiltonian "
        "Monte Carlo. Journal of Machine Learning Research 15, 1593-1623.",
    ),
    "rhat": (
        "Vehtari et al. 2021",
        "Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. and Bürkner, P.-C. (2021). Rank-normalization, folding, "
        "and localization: an improved R-hat for assessing convergence of MCMC. Bayesian Analysis 16, 667-718.",
    ),
    "relabel": (
        "Stephens 2000",
        "Stephens, M. (2000). Dealing with label switching in mixture models. Journal of the Royal Statistical Society "
        "B 62, 795-809.",
    ),
    "laplace": (
        "Tierney and Kadane 1986",
        "Tierney, L. and Kadane, J. B. (1986). Accurate approximations for posterior moments and marginal densities. "
        "Journal of the American Statistical Association 81, 82-86.",
    ),
    "advi": (
        "Kucukelbir et al. 2017",
        "Kucukelbir, A., Tran, D., Ranganath, R., Gelman, A. and Blei, D. M. (2017). Automatic differentiation "
        "variational inference. Journal of Machine Learning Research 18(14), 1-45.",
    ),
    "psis": (
        "Vehtari et al. 2024",
        "Vehtari, A., Simpson, D., Gelman, A., Yao, Y. and Gabry, J. (2024). Pareto smoothed importance sampling. "
        "Journal of Machine Learning Research 25(72), 1-58.",
    ),
    "moments": (
        "Lindsay 1989",
        "Lindsay, B. G. (1989). Moment matrices: applications in mixtures. Annals of Statistics 17, 722-740.",
    ),
    "missing": (
        "Little and Rubin 2019",
        "Little, R. J. A. and Rubin, D. B. (2019). Statistical Analysis with Missing Data, 3rd ed. Wiley.",
    ),
    "separation": (
        "Lin 1991",
        "Lin, J. (1991). Divergence measures based on the Shannon entropy. IEEE Transactions on Information Theory 37, "
        "145-151.",
    ),
}

#: What each engine does, and whom to cite; `{…}` are filled by `_engine`.
_ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "em": ("The posterior mode was found by the EM algorithm {cite}, the best of {starts}", ("em",)),
    "map": ("The posterior mode was found by EM and polished by L-BFGS {cite}", ("em", "lbfgs")),
    "nuts": (
        "The posterior was sampled by the No-U-Turn sampler {cite}: {chains} chains of {draws} draws each after "
        "tuning, started at the mode that EM found",
        ("nuts",),
    ),
    "laplace": (
        "The posterior was approximated by a normal distribution at its mode (Laplace's method), corrected by "
        "importance sampling {cite}, with {total} draws",
        ("laplace", "psis"),
    ),
    "advi": (
        "The posterior was approximated by variational inference, corrected by importance sampling {cite}, with "
        "{total} draws",
        ("advi", "psis"),
    ),
    "moments": ("Parameters were estimated by the method of moments {cite}", ("moments",)),
}


def _cite(references: list[str], *keys: str) -> str:
    """Short citations in brackets; what they stand for goes to the references."""
    references += [_REFERENCES[key][1] for key in keys if _REFERENCES[key][1] not in references]
    return f"({'; '.join(_REFERENCES[key][0] for key in keys)})"


def _methods(fit: Fit, prob: float, separated: bool, references: list[str]) -> str:
    sentences = [
        *_data_sentences(fit, references),
        *_model_sentences(fit, references),
        *_engine_sentences(fit, references),
        *_summary_sentences(fit, prob, separated, references),
        _software(fit, references),
    ]
    return " ".join(sentences)


def _data_sentences(fit: Fit, references: list[str]) -> Iterator[str]:
    if fit.encoded is None:
        return
    n = fit.encoded.n_rows
    yield f"The data are {n} rows{', weighted' if fit.row_weights is not None else ''}."
    informative = {site.place.path: site for site in fit.bound.site.distinct() if "p_missing" in _slot_ends(site)}
    cells: dict[str, int] = {}
    for gap in fit.bound.site.gaps(fit.encoded):
        field = gap.path.split("[")[0]
        if field not in informative:
            cells[field] = cells.get(field, 0) + len(gap.rows)
    if cells:
        total = sum(cells.values())
        names = _listed([f"{name or _lone_name(fit)} ({count})" for name, count in cells.items()])
        what = "missing cells, in {}, were" if total > 1 else "missing cell, in {}, was"
        yield (
            f"{total} {what.format(names)} taken as missing at random and integrated out of the likelihood "
            f"{_cite(references, 'missing')}."
        )
    if informative:
        names = _listed([path or _lone_name(fit) for path in informative])
        yield f"Whether a cell is missing was modelled as depending on the component for {names}."


def _slot_ends(site: Any) -> list[str]:
    return [slot.name[len(site.place.prefix) :] for slot in site.slots.values()]


def _model_sentences(fit: Fit, references: list[str]) -> Iterator[str]:
    site = fit.bound.site
    weights = fit.bound.is_mixture
    cite = _cite(references, "mixtures")
    fields = _fields(fit)
    if weights:
        k = len(site.slots["weights"].event[0])
        yield f"Rows were modelled by a finite mixture of {k} component{'s' if k > 1 else ''} {cite}."
    given = "Given the component, fields are independent and distributed as " if weights else "Fields are independent: "
    if len(fields) > 1:
        groups: dict[str, list[str]] = {}
        for path, node in fields:
            groups.setdefault(_stripped(node), []).append(path)
        yield given + "; ".join(f"{code} ({_listed(names)})" for code, names in groups.items()) + "."
    else:
        yield f"In the notation of the software the model is {_stripped(fit.spec)}."
    yield _prior_sentence(list(_priors(fit)))


def _prior_sentence(slots: list[tuple[Any, Any]]) -> str:
    """What is said of the priors of slots, each with what the user gave for it (None for the default)."""
    if not slots:
        return "All parameters were fixed."
    if all(isinstance(given, Flat) for _, given in slots):
        return "Priors were flat."
    own = [slot for slot, given in slots if given is not None]
    default = [slot for slot, given in slots if given is None]
    given = ", ".join(_prior(slot) for slot in own[:_FEW_PRIORS])
    given += f" and {len(own) - _FEW_PRIORS} more" if len(own) > _FEW_PRIORS else ""
    rest = "weakly informative defaults of the software, scaled to each column"
    if len(default) <= _FEW_PRIORS:
        rest += f": {', '.join(map(_prior, default))}"
    if not default:
        return f"Priors were {given}."
    return f"Priors were {given}; the others {rest}." if own else f"Priors were {rest}."


def _prior(slot: Any) -> str:
    return f"{slot.name} ~ {_rounded(show(slot.rv).replace('pm.', '').replace('.dist(', '('))}"


def _fields(fit: Fit) -> list[tuple[str, Node]]:
    """Path and node of each field of a row: the parts of the record, if the rows are records."""
    node = fit.spec
    while len(node.parts) == 1 and not hasattr(node, "positional"):
        (_, below) = node.parts[0]
        if not fit.bound.is_mixture or node is not fit.spec:
            break
        node = below
    return list(node.parts) if hasattr(node, "positional") else [("", node)]


def _stripped(node: Node) -> str:
    """The code of a node without the priors of what is estimated."""
    return repr(_bare(node))


def _bare(node: Node) -> Node:
    given = {name: _fixed_or_shared(prior) for name, prior in node.priors.items()}
    return node.with_priors(given, tuple(_bare(child) for _, child in node.parts))


def _fixed_or_shared(given: Any) -> Any:
    """What belongs to the model itself: values that are fixed, and that one is shared."""
    if isinstance(given, Shared):
        return Shared(_fixed_or_shared(given.prior))
    return given if is_given_value(given) else None


def _priors(fit: Fit) -> Iterator[tuple[Any, Any]]:
    """Each free slot, and what the user gave for its prior."""
    for site in fit.bound.site.distinct():
        for name, slot in site.slots.items():
            if slot.free:
                given = site.node.priors.get(name)
                yield slot, given.prior if isinstance(given, Shared) else given


def _rounded(code: str) -> str:
    """Numbers to four digits, and without the brackets of arrays of one entry or row."""
    code = re.sub(r"-?\d+\.\d+(e[-+]?\d+)?", lambda found: f"{float(found.group()):.4g}", code)
    return re.sub(r"\[(\[[^][]*\])\]", r"\1", re.sub(r"\[([^][,]*)\]", r"\1", code))


def _engine_sentences(fit: Fit, references: list[str]) -> Iterator[str]:
    if not fit.bound.free_slots:
        return
    engine = fit.status.engine
    text, keys = _ENGINES.get(engine, (f"The posterior is by {engine}", ()))
    sizes = fit.posterior.sizes
    chains, draws = sizes["chain"], sizes["draw"]
    starts = len(fit.starts)
    yield (
        text.format(
            cite=_cite(references, *keys) if keys else "",
            starts=f"{starts} starts" if starts > 1 else "one start",
            chains=chains,
            draws=draws,
            total=chains * draws,
        )
        + "."
    )
    if chains > 1 and draws >= 4 and fit.encoded is not None:
        found = convergence(fit)
        worst = float(np.nanmin(found.table["ess_bulk"])) if len(found.table) else np.nan
        yield (
            f"The largest R-hat was {found.rhat:.3f}, the smallest bulk effective sample size {worst:.0f}, and "
            f"{found.divergences} transitions diverged {_cite(references, 'rhat')}."
        )
    if fit.relabelling is not None and fit.relabelling.method == "kl":
        yield f"Labels were put in one order by Stephens' algorithm {_cite(references, 'relabel')}."
    if fit.pareto_k == -np.inf:
        yield "The importance weights were all alike."
    elif fit.pareto_k is not None:
        yield f"The importance weights' Pareto k was {fit.pareto_k:.2f}."
    if not fit.status.converged:
        yield "The engine did not report convergence."


def _summary_sentences(fit: Fit, prob: float, separated: bool, references: list[str]) -> Iterator[str]:
    if fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"] > 1:
        yield f"Figures are posterior means with {100 * prob:.3g} % equal-tailed intervals."
    if separated:
        yield (
            "How well a field tells a component from the others is given as a Jensen-Shannon divergence in bits "
            f"{_cite(references, 'separation')}."
        )


def _software(fit: Fit, references: list[str]) -> str:
    cite = _cite(references, "pymc")
    names = ["pymc", "pytensor", "numpy", *(["nutpie"] if fit.status.engine == "nuts" else [])]
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return f"Software: bayesmix {_version('bayesmix')} on {versions} {cite}, Python {platform.python_version()}."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        import bayesmix

        return bayesmix.__version__ if name == "bayesmix" else "(unknown version)"


def _listed(names: list[str], most: int = 12) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
