"""A spec whose parameters are all numbers is a distribution: draw from it, evaluate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix import arguments
from bayesmix.bound import Bound, bind_learned
from bayesmix.errors import DataError, SpecError
from bayesmix.fit import as_frame, draw_rows
from bayesmix.seeds import generator
from bayesmix.spec import Node, validate


def _of_numbers(spec: Node) -> Bound:
    """A spec bound without data. Raises `SpecError` that names every parameter without a number."""
    validate(spec)
    bound = bind_learned(spec, {})
    if bound.free_slots:
        raise SpecError(
            f"{', '.join(bound.free_slots)}: no number. A spec is a distribution where every parameter is fixed: "
            "give numbers, or take fit.to_spec()."
        )
    return bound


def sample(spec: Node, size: int, *, random_seed: Any = None) -> pd.DataFrame:
    """Draw rows from a spec whose parameters are all numbers.

    Parameters
    ----------
    spec : Node
        For instance ``bm.Mixture(bm.Normal(mu=[-2, 3], sigma=1), 2, weights=[.3, .7])``, or ``fit.to_spec()``.
    size : int
    random_seed : int, SeedSequence or Generator, optional

    Returns
    -------
    pandas.DataFrame
        A column a field.

    Raises
    ------
    SpecError
        Names every parameter without a number.

    Examples
    --------
    >>> import bayesmix as bm
    >>> coin = bm.Categorical(p={"heads": 0.5, "tails": 0.5})
    >>> bm.sample(coin, 3, random_seed=1)["x"].tolist()
    ['tails', 'tails', 'heads']
    """
    arguments.check(size=size)
    bound = _of_numbers(spec)
    return as_frame(draw_rows(bound, bound.with_fixed({}), size, generator(random_seed)), None)


def log_density(spec: Node, data: Any) -> np.ndarray:
    """Log density of every row under a spec whose parameters are all numbers, labels summed out, shape (N,), in nats.

    Parameters
    ----------
    spec : Node
    data : table
        N rows; see `bayesmix.fit`.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.log_density(bm.Mixture(bm.Poisson(mu=[1, 10]), 2, weights=[0.5, 0.5]), [0, 10]).round(3)
    array([-1.693, -2.772])
    """
    bound = _of_numbers(spec)
    return bound.log_density(bound.with_fixed({}), bound.encode(data))


def responsibilities(spec: Node, data: Any) -> np.ndarray:
    """Probability of each component for every row under a mixture whose parameters are all numbers, shape (N, K).

    Parameters
    ----------
    spec : Node
        Its root is a mixture.
    data : table
        N rows; see `bayesmix.fit`.

    Examples
    --------
    >>> import bayesmix as bm
    >>> bm.responsibilities(bm.Mixture(bm.Poisson(mu=[1, 10]), 2, weights=[0.5, 0.5]), [0, 10]).round(2)
    array([[1., 0.],
           [0., 1.]])
    """
    bound = _of_numbers(spec)
    return bound.responsibilities(bound.with_fixed({}), bound.encode(data))


def split(data: Any, shares: Sequence[float], *, random_seed: Any = None) -> list[Any]:
    """Divide the rows of a table at random, for instance into training and validation rows.

    Parameters
    ----------
    data : table
        Anything that `bayesmix.fit` takes; N rows.
    shares : sequence of float
        Shares of the rows, which sum to 1.
    random_seed : int, SeedSequence or Generator, optional

    Returns
    -------
    list
        One table of the same type for each share; its rows are in their original order.

    Examples
    --------
    >>> import bayesmix as bm
    >>> [len(part) for part in bm.split(list(range(10)), [0.8, 0.2], random_seed=1)]
    [8, 2]
    """
    parts = np.asarray(shares, float)
    if parts.ndim != 1 or (parts < 0).any() or not np.isclose(parts.sum(), 1):
        raise ValueError(f"shares: non-negative numbers that sum to 1 are needed, not {parts.tolist()}.")
    n_rows = _n_rows(data)
    cuts = np.round(np.cumsum(parts)[:-1] * n_rows).astype(int)
    order = generator(random_seed).permutation(n_rows)
    return [_rows(data, np.sort(part)) for part in np.split(order, cuts)]


def _n_rows(data: Any) -> int:
    if isinstance(data, Mapping):
        return min((len(column) for column in data.values()), default=0)
    try:
        return len(data)
    except TypeError:
        raise DataError(f"data: a table is needed, not {type(data).__name__}.") from None


def _rows(data: Any, rows: np.ndarray) -> Any:
    if isinstance(data, Mapping):
        return {name: _rows(column, rows) for name, column in data.items()}
    native = nw.from_native(data, pass_through=True, allow_series=True)
    if isinstance(native, (nw.DataFrame, nw.Series)):
        return native[rows.tolist()].to_native()
    if isinstance(data, np.ndarray):
        return data[rows]
    return [data[row] for row in rows]
