"""The one verb that most users need."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from bayesmix.errors import close_to
from bayesmix.fit import Fit
from bayesmix.inference.advi import fit_advi
from bayesmix.inference.em import fit_em
from bayesmix.inference.laplace import fit_laplace
from bayesmix.inference.map import fit_map
from bayesmix.inference.moments import fit_moments
from bayesmix.inference.nuts import fit_nuts
from bayesmix.inference.online import fit_online
from bayesmix.spec import Node

ENGINES: dict[str, Callable[..., Fit]] = {
    "em": fit_em,
    "map": fit_map,
    "nuts": fit_nuts,
    "advi": fit_advi,
    "laplace": fit_laplace,
    "online": fit_online,
    "moments": fit_moments,
}


def fit(spec: Node, data: Any, method: str = "em", **kwargs: Any) -> Fit:
    """Fit a spec to data.

    Parameters
    ----------
    spec : Node
        For instance ``bm.Mixture(bm.Composite(income=bm.Normal(), visits=bm.Poisson()), 3)``.
    data : table or source
        A pandas, polars or pyarrow table, a dict of columns, an array of shape (N,) or (N, D), or a list of
        records (tuples or dicts); N rows. Missing cells (`None`, NaN, `pd.NA`, null) are integrated out as missing
        at random. With all but "advi" and "moments" also a source, which is read in parts: the path of a Parquet file
        or of a folder of them (``*`` in it for several) or a list of such paths, a ``pyarrow.dataset.Dataset``, an
        Arrow ``RecordBatchReader`` (written to a temporary file, for it can be read once), a Dask data frame, a list of
        data frames, or a function without arguments that returns an iterable of tables, the same ones with each call.
    method : {"em", "map", "nuts", "advi", "laplace", "moments", "online"}
        The engine: `fit_em` (posterior mode), `fit_online` (nearly that, in two passes over millions of rows),
        `fit_map` (the mode, polished), `fit_nuts` (full posterior), `fit_advi` and `fit_laplace` (normal
        approximations), `fit_moments` (from the sample's moments, without a start).
    **kwargs
        What the engine takes.

    Returns
    -------
    Fit
        The same ``random_seed`` gives the same digits on one machine, in every process and with any number of threads.
        The process that compiles kernels for the first time may differ in the last digits, and a chain then takes
        another course: as good, and equal within Monte-Carlo error.

    Raises
    ------
    DataError, SpecError
        Everything that is wrong with the data or the spec, listed together.
    TypeError
        Keywords that the engine does not take, with those that it does.

    Examples
    --------
    >>> import bayesmix as bm
    >>> table = {"income": [1.2, 0.8, 1.1, 5.3, None, 4.9], "visits": [0, 1, 0, 7, 9, None]}
    >>> spec = bm.Mixture(bm.Composite(income=bm.Normal(), visits=bm.Poisson()), 2)
    >>> bm.fit(spec, table, random_seed=1).predict()
    array([0, 0, 0, 1, 1, 1])
    """
    if not isinstance(spec, Node):
        raise TypeError(
            f"spec: a node such as bm.Mixture(bm.Normal(), 2) is needed, not {_called(spec)}; the spec comes first: "
            "bm.fit(spec, data). bm.infer_spec(data) proposes one."
        )
    if method not in ENGINES:
        raise ValueError(f"method: one of {', '.join(ENGINES)} is needed, not {method!r}.")
    engine = ENGINES[method]
    taken = inspect.signature(engine).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        unknown = [name for name in kwargs if name not in taken]
        if unknown:
            known = ", ".join(name for name in taken if name not in ("spec", "data"))
            wanted = "".join(close_to(name, taken) for name in unknown)
            raise TypeError(f"{', '.join(unknown)}: fit_{method} does not take this.{wanted} It takes {known}.")
    return engine(spec, data, **kwargs)


def _called(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
