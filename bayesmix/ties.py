"""What of a table makes components degenerate, before anything is fitted: values that rows share where none should.

A family of a continuous value gives a value that many rows share no upper bound: a component that holds these rows
alone wants a scale of 0, and only its prior holds it. That is said of columns without spread, of columns of hardly more
values than components, and of spikes (half of the rows at exactly 0).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bayesmix.data import SHOWN, texts
from bayesmix.errors import DegenerateWarning, warn
from bayesmix.spec import Encoded, Site

#: Rows that are looked at before all of them are.
_SAMPLE = 2_000
#: Share of the rows, and number of them, that a spike has at least.
_SHARE, _FEWEST = 0.1, 5
#: A spike's value comes this many times as often as three quarters of the other values, and as its neighbours.
_ABOVE = 5


def warn_of_ties(root: Site, data: Encoded, name: str) -> None:
    """Warn of columns (N values) of continuous families that components can shrink onto; `name` is a lone one's."""
    found: dict[str, list[str]] = {}
    for site, block in root.walk_with(data):
        if not site.is_leaf or not any(slot.free for slot in site.slots.values()):
            continue
        if site.node.value_kind == "real" and not site.node.expects_ties:
            for path, values in _columns(site, block, name):
                for kind, what in _ties(values, site.n_components):
                    found.setdefault(kind, []).append(f"{path}: {what}")
    for kind, columns in found.items():
        shown = list(dict.fromkeys(columns))
        more = f" And {len(shown) - SHOWN} more columns." if len(shown) > SHOWN else ""
        warn(f"{' '.join(shown[:SHOWN])}{more} {_WAYS_OUT[kind]}", DegenerateWarning)


_WAYS_OUT = {
    "constant": "Its scale is what the prior says, and it tells no components apart: leave it out of the spec.",
    "few": "A component that holds one value alone has zero variance there: only its prior keeps its scale above 0. "
    "Use bm.Categorical, or fewer components.",
    "spike": "A component shrinks onto such a spike: only its prior keeps its scale above 0. Mark these cells "
    "missing (NaN) and wrap the field's family in bm.Optional, which says how often each component has them; or give "
    "the spike a field of its own.",
}


def _columns(site: Site, block: Encoded, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and finite values of every coordinate of a leaf."""
    values = np.asarray(block.arrays["value"])
    if values.ndim == 1:
        yield site.place.path or name, values
        return
    labels = texts(site.value_dims[0].labels)
    for j, column in enumerate(values.reshape(len(values), len(labels)).T):
        yield f"{site.place.path}[{labels[j]}]" if site.place.path else labels[j], column[~np.isnan(column)]


def _ties(values: np.ndarray, n_components: int) -> Iterator[tuple[str, str]]:
    """What is strange of a column (N,), and how to say it."""
    n = len(values)
    if n < 2:
        return
    if n > 2 * _SAMPLE:
        some = values[np.random.default_rng(0).choice(n, _SAMPLE, replace=False, shuffle=False)]
        if np.unique(some, return_counts=True)[1].max() < 0.5 * _SHARE * _SAMPLE:
            return
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        yield "constant", f"a constant column, all {n} values are {distinct[0]:g}."
    elif len(distinct) <= n_components and n >= 2 * len(distinct):
        shown = ", ".join(f"{value:g}" for value in distinct[:SHOWN])
        yield "few", f"{n} values of which only {len(distinct)} differ ({shown})."
    else:
        high = (counts >= max(_SHARE * n, _FEWEST)) & (counts >= _ABOVE * np.quantile(counts, 0.75))
        for i in np.flatnonzero(high):
            beside = np.append(counts[max(i - 2, 0) : i], counts[i + 1 : i + 3])
            if counts[i] >= _ABOVE * beside.max():  # else it is the top of a hill of rounded values
                yield "spike", f"{counts[i]} of {n} values are exactly {distinct[i]:g}, a spike."
