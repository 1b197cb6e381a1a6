"""Whether a table is the one that a fit was made of.

A fit keeps what a PyMC model observes of its rows (``observed_data``), in memory and in a file, though not of rows that
were read in parts. That is what a table can be held against, whichever way it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmix.spec import Encoded

if TYPE_CHECKING:
    from bayesmix.fit import Fit

#: Numbers that are as close are the same: copies in 32 bits, and text that was written and read again.
_RTOL = 1e-6


def difference(fit: Fit, data: Encoded) -> str:
    """In what a table differs from the fit's own, for all that the fit knows of that; empty where it does not."""
    kept = fit.idata.children
    sizes = [kept[name].sizes["row"] for name in ("observed_data", "log_likelihood", "constant_data") if name in kept]
    if sizes and sizes[0] != data.n_rows:
        return f"{data.n_rows} rows, but the fit was made of {sizes[0]}"
    known: Any = kept.get("observed_data", {})
    for each in fit.bound.site.observed(data):
        if each.name not in known:
            continue
        own, values = known[each.name].values, each.written_out()
        if own.shape != values.shape:
            return f"{each.name} has sequences of other lengths than the table that the fit was made of"
        changed = ~same(values, own)
        if changed.any():
            at = int(np.flatnonzero(changed.reshape(len(changed), -1).any(1))[0])
            where = f"{'row' if each.row_dim == 'row' else 'element'} {at}"
            return f"{each.name} has another value in {where} than the table that the fit was made of"
    return ""


def same(values: Any, others: Any) -> np.ndarray:
    """Which values of two arrays of one shape are the same; missing ones are."""
    if np.asarray(values).dtype.kind != "f":
        return values == others
    finite = np.abs(others[np.isfinite(others)])
    return np.isclose(values, others, rtol=_RTOL, atol=1e-3 * _RTOL * float(finite.max(initial=0)), equal_nan=True)
