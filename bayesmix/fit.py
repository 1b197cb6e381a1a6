"""`Fit`: one result for every engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import narwhals as nw
import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import arguments, labels, predictive, streaming
from bayesmix.bound import Bound
from bayesmix.build import _labels, dim_labels
from bayesmix.data import Table, read
from bayesmix.diagnostics import verdict
from bayesmix.errors import BayesmixWarning, DataError, warn
from bayesmix.families._summaries import in_order
from bayesmix.impute import impute, real_columns
from bayesmix.inference.modes import Modes, combined, weighed
from bayesmix.params import Params
from bayesmix.plan import EStep, Pass
from bayesmix.relabel import Relabelling, in_canonical_order, relabelled
from bayesmix.seeds import generator
from bayesmix.spec import Encoded
from bayesmix.statistics import weighted_sum
from bayesmix.structure.composite import Composite
from bayesmix.structure.mixture import Mixture
from bayesmix.structure.optional import Optional
from bayesmix.structure.sequence import cells
from bayesmix.threads import alone
from bayesmix.training import difference

#: Posterior draws that predictions average over, evenly spaced, unless the caller asks for more.
_MAX_DRAWS = 400
#: Numbers up to which sets of many symbols are written out as a matrix in ``observed_data``.
_MOST_KEPT = 10**8


@dataclass(frozen=True)
class Status:
    """How a fit ended.

    Attributes
    ----------
    engine : str
    converged : bool
        Whether the engine's own rule held; the rule is in the engine's docstring.
    message : str
        One sentence for people.
    complete : bool
        False where the engine was interrupted: the fit is what there was then.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> status = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1).status
    >>> status.engine, status.converged
    ('em', True)
    """

    engine: str
    converged: bool
    message: str
    complete: bool = True

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Fit:
    """Result of an engine: a posterior, in the same form for all of them.

    A point estimate is a posterior with one chain and one draw, so every method works for every engine.
    Predictions average over draws: over 400 of them, evenly spaced, where the posterior has more.

    Attributes
    ----------
    bound : Bound
        The spec with its slots; ``fit.spec`` is the spec itself.
    idata : xarray.DataTree
        ArviZ groups: ``posterior``; ``observed_data`` (NaN or -1 where missing; without sets whose matrix would have
        more than 10⁸ numbers, as its attribute ``left_out`` says); and, where the engine gives
        them, ``sample_stats``, ``log_likelihood`` (one variable ``row``), ``constant_data`` (row weights).
    status : Status
    loglik : float
        Log-likelihood of the training data, mean over the posterior, in nats.
    history : ndarray or None
        Objective before each EM iteration; ELBO for ADVI.
    starts : list of dict
        What every start reached: objective, status, iterations; and, where there are any, saddles that it left and the
        log-likelihood of the validation rows. For moments, the log-likelihood of each answer.
    trajectory : xarray.Dataset or None
        Parameters and ``objective`` by ``iteration``, where `fit_em` was told to keep them.
    relabelling : Relabelling or None
        How the draws' labels were found and put back, of a posterior; see `relabel`.
    pareto_k : float or None
        Of an approximation (`fit_laplace`, `fit_advi`): shape of the tail of its importance weights. Below 0.7 its
        draws can be trusted; it is -infinite where the weights are all alike.
    modes_found : Modes or None
        What `modes` weighs.
    mode_fits : tuple of Fit
        The posterior at each mode, where `fit_nuts` sampled several that do not mix; the heaviest first.

    Examples
    --------
    >>> import numpy as np, bayesmix as bm
    >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
    >>> fit.params["mu"].round(1), fit.predict(np.array([1, 10]))
    (array([0.7, 9.3]), array([0, 1]))
    """

    bound: Bound
    idata: xr.DataTree
    status: Status
    loglik: float
    history: np.ndarray | None = None
    starts: list[dict[str, Any]] = field(default_factory=list)
    table: Table | None = None
    encoded: Encoded | None = None
    trajectory: xr.Dataset | None = None
    relabelling: Relabelling | None = None
    pareto_k: float | None = None
    modes_found: Modes | None = None
    mode_fits: tuple[Fit, ...] = ()

    @cached_property
    def modes(self) -> Modes | None:
        """The modes that EM found on the way, up to relabelling, with what each weighs (see `Modes`), highest first.

        They are weighed when they are first asked for. None for an engine that does not run EM.
        """
        if self.modes_found is None or self.encoded is None:
            return self.modes_found
        if any(not np.isnan(mode.weight) for mode in self.modes_found):
            return self.modes_found
        return weighed(self.bound, self.encoded, self.row_weights, self.modes_found)

    @property
    def row_weights(self) -> np.ndarray | None:
        """Weights of the training rows (N,), None where none were given."""
        given = self.idata.children.get("constant_data")
        return None if given is None else np.asarray(given["row_weights"].values)

    def combine(self, method: str = "stacking", *, random_seed: Any = None) -> Fit:
        """Modes that were sampled apart, as one posterior: each draw from a mode as often as its weight says.

        Components of different modes have nothing in common, so a parameter's distribution over all modes may mean
        little; what no labelling changes (densities, predictions, imputed cells) does.

        Parameters
        ----------
        method : {"stacking", "laplace", "bridge"}
            Weights that predict best, by leave-one-out cross-validation (Yao, Vehtari and Gelman 2022); the shares of
            the posterior's mass, by Laplace's approximation; or these by bridge sampling.
        random_seed : int, SeedSequence or Generator, optional

        Returns
        -------
        Fit
            This fit itself where it has one mode.

        References
        ----------
        Yao, Vehtari and Gelman 2022, *JMLR* 23.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
        >>> fit = bm.fit(bm.Mixture(bm.Normal(), 2), x, method="nuts", draws=500, tune=500, random_seed=1)
        >>> fit.combine() is fit
        True
        """
        return combined(self, method, random_seed)

    @property
    def spec(self) -> Any:
        """The spec that was fitted."""
        return self.bound.spec

    @property
    def posterior(self) -> xr.Dataset:
        """Draws of every parameter: ``(chain, draw, *dims)``."""
        return self.idata["posterior"].to_dataset()

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters by name, posterior means (of positions the most frequent), fixed ones included."""
        means = {name: self.posterior[name].values.mean((0, 1)) for name in self.bound.sampled_slots}
        for name, slot in self.bound.discrete_slots.items():
            draws = self.posterior[name].values.reshape(-1, int(np.prod(slot.shape, dtype=int)))
            means[name] = np.reshape([_most_frequent(column) for column in draws.T], slot.shape)
        return self.bound.with_fixed({name: means[name] for name in self.bound.free_slots})

    def _draws(self, n_draws: int | None) -> list[dict[str, np.ndarray]]:
        """Parameter values of `n_draws` evenly spaced draws, at least one."""
        if n_draws is not None:
            arguments.check(n_draws=n_draws)
        posterior = self.posterior
        arrays = {n: posterior[n].values.reshape(-1, *posterior[n].shape[2:]) for n in self.bound.free_slots}
        total = posterior.sizes["chain"] * posterior.sizes["draw"]
        picked = np.unique(np.linspace(0, total - 1, min(total, n_draws or _MAX_DRAWS)).astype(int))
        return [self.bound.with_fixed({n: values[i] for n, values in arrays.items()}) for i in picked]

    def _data(self, data: Any, unseen: str) -> tuple[Table, Encoded]:
        if unseen not in ("error", "ignore"):
            raise ValueError(f'unseen: "error" or "ignore" is needed, not {unseen!r}.')
        if data is not None:
            table = read(data)
            return table, self.bound.encode(table, unseen)
        if self.encoded is None:
            raise DataError(
                "data: the fit does not keep its training table, because it was loaded or read the table in parts. "
                "Pass the table."
            )
        return cast(Table, self.table), self.encoded

    def _training(self, data: Any) -> Encoded:
        """The encoded training table. Raises `DataError` where `data` is another one, for all that the fit knows."""
        _, encoded = self._data(data, "error")
        if data is not None and (found := difference(self, encoded)):
            raise DataError(f"data: {found}. Pass the training table.")
        return encoded

    def _weights_of(self, data: Any, encoded: Encoded) -> np.ndarray | None:
        """Row weights where the table is the training table; None for another, and where there are none."""
        weights = self.row_weights
        return weights if weights is None or data is None or not difference(self, encoded) else None

    def log_density(
        self,
        data: Any = None,
        *,
        to: str | os.PathLike[str] | None = None,
        per_draw: bool = False,
        n_draws: int | None = None,
        unseen: str = "error",
    ) -> Any:
        """Log predictive density of each row, labels summed out: log of the mean density over draws.

        Parameters
        ----------
        data : table or source, optional
            N rows, also ones that are read in parts (see `bayesmix.fit`); the training table by default.
        to : path, optional
            Write the result to this Parquet file instead, a part of the rows at a time: column ``log_density``. The
            file takes its place when it is whole.
        per_draw : bool
            Return the log density at each draw instead.
        n_draws : int, optional
        unseen : {"error", "ignore"}
            Symbols that the fitted data did not have: raise, or treat as missing.

        Returns
        -------
        ndarray, shape (N,) or (n_draws, N), or Path
            Nats.
        """
        data = streaming.opened(data)
        if streaming.is_streamed(data, to):
            _check_whole(per_draw)
            return self._rowwise(
                data, to, lambda table: self.log_density(table, n_draws=n_draws, unseen=unseen), ("log_density",)
            )
        _, encoded = self._data(data, unseen)
        each = np.array([self.bound.log_density(params, encoded) for params in self._draws(n_draws)])
        return each if per_draw else np.logaddexp.reduce(each, axis=0) - np.log(len(each))

    def responsibilities(
        self,
        data: Any = None,
        *,
        of: str | None = None,
        to: str | os.PathLike[str] | None = None,
        per_draw: bool = False,
        n_draws: int | None = None,
        unseen: str = "error",
    ) -> Any:
        """Posterior probability of each component for each row.

        Parameters
        ----------
        data : table, optional
            N rows; the training table by default.
        of : str, optional
            Which mixture: the field that it stands in (``"y"``), or the name of its weights (``"topic_weights"``). By
            default the root. A mixture below a sequence has one row for each element of it.
        to : path, optional
            A Parquet file to write the result to, as in `log_density`: columns ``component_0``, ``component_1``, …
        per_draw : bool
            Keep the draws apart instead of averaging.
        n_draws : int, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        ndarray, shape (N, K) or (n_draws, N, K), or Path
            Rows sum to 1, but for rows with density zero under every component (zeros, with a warning).

        Raises
        ------
        SpecError
            The root of the spec is not a mixture.
        """
        data = streaming.opened(data)
        if streaming.is_streamed(data, to):
            _check_whole(per_draw)
            return self._rowwise(
                data, to, lambda table: self.responsibilities(table, of=of, n_draws=n_draws, unseen=unseen), None
            )
        _, encoded = self._data(data, unseen)
        _, key = labels.mixture_of(self.bound, of)
        self._warn_of_labels()
        each: Iterator = (labels.probabilities(self.bound, key, params, encoded) for params in self._draws(n_draws))
        if per_draw:
            found = np.array(list(each))
            nowhere = ~found.any((0, 2))
        else:
            total, count = np.zeros(()), 0
            for resp in each:
                total, count = total + resp, count + 1
            found, nowhere = total / count, ~total.any(1)
        if nowhere.any():
            warn(
                f"row {int(np.flatnonzero(nowhere)[0])} ({int(nowhere.sum())} in all) has density zero under every "
                "component, so its responsibilities are zeros. Look at its values, or mark the strange cell missing.",
                BayesmixWarning,
            )
        return found

    def responsibility_intervals(
        self,
        data: Any = None,
        *,
        of: str | None = None,
        prob: float = 0.89,
        n_draws: int | None = None,
        unseen: str = "error",
    ) -> xr.Dataset:
        """Posterior mean and interval of each component's probability for each row, of the training or new rows.

        Parameters
        ----------
        data : table, optional
            N rows; the training table by default.
        of : str, optional
            Which mixture; see `responsibilities`.
        prob : float
            Mass of the equal-tailed intervals.
        n_draws : int, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        xarray.Dataset
            ``mean``, ``lower`` and ``upper`` of dims (row, component).

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-2, 2)])
        >>> fit = bm.fit_advi(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
        >>> fit.responsibility_intervals(np.array([0.0, 5.0])).sizes
        Frozen({'row': 2, 'component': 2})
        """
        table, encoded = self._data(data, unseen)
        self._warn_of_labels()
        return labels.intervals(self.bound, self._draws(n_draws), encoded, _rows(table, encoded), of, prob)

    def sample_labels(
        self,
        data: Any = None,
        *,
        n_draws: int = 400,
        of: str | None = None,
        random_seed: Any = None,
        unseen: str = "error",
    ) -> xr.Dataset:
        """Draw the labels of the rows, each time with a draw of the parameters.

        Parameters
        ----------
        data : table, optional
            N rows; the training table by default.
        n_draws : int
        of : str, optional
            Only this mixture; see `responsibilities`. By default all: their labels are drawn together, those inside
            given those around them.
        random_seed : int, SeedSequence or Generator, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        xarray.Dataset
            ``label`` (draw, row), and the labels of other mixtures under the names that `build_model` gives them with
            ``labels="explicit"``; of mixtures below a sequence one for each element. Rows of components that a mixture
            does not stand in have -1 there.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> fit.sample_labels(n_draws=3, random_seed=1)["label"].dims
        ('draw', 'row')
        """
        table, encoded = self._data(data, unseen)
        self._warn_of_labels()
        rng, rows = generator(random_seed), _rows(table, encoded)
        return labels.labels_dataset(self.bound, self._repeated(n_draws), encoded, rows, of, rng)

    def coclustering(
        self, data: Any = None, *, of: str | None = None, n_draws: int | None = None, unseen: str = "error"
    ) -> np.ndarray:
        """Posterior probability that two rows have one label, (N, N); it does not depend on how components are called.

        Parameters
        ----------
        data : table, optional
            At most 5,000 rows; the training table by default.
        of : str, optional
            Which mixture; see `responsibilities`.
        n_draws : int, optional
        unseen : {"error", "ignore"}

        Raises
        ------
        DataError
            There are more rows.
        SpecError
            Labels of that mixture mean something else in each component around it.
        """
        _, encoded = self._data(data, unseen)
        return labels.coclustering(self.bound, self._draws(n_draws), encoded, of)

    def partition(
        self,
        loss: str = "vi",
        *,
        data: Any = None,
        of: str | None = None,
        n_draws: int = 400,
        random_seed: Any = None,
        unseen: str = "error",
    ) -> labels.Partition:
        """One partition of the rows for the whole posterior: that of the least expected loss that a search finds.

        Parameters
        ----------
        loss : {"vi", "binder"}
            Variation of information, or the share of pairs that are wrongly together or wrongly apart (which tends to
            give doubtful rows clusters of their own).
        data : table, optional
            N rows; the training table by default.
        of : str, optional
            Which mixture; see `responsibilities`.
        n_draws : int
            Draws of the labels that the expected loss is the mean over.
        random_seed : int, SeedSequence or Generator, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        Partition
            ``labels`` (N,), ``expected_loss``, ``n_clusters``.

        References
        ----------
        Wade and Ghahramani 2018, *Bayesian Analysis* 13; Dahl, Johnson and Müller 2022, *JCGS* 31.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> len(set(fit.partition(random_seed=1).labels[:4])), fit.partition(random_seed=1).n_clusters
        (1, 2)
        """
        _, encoded = self._data(data, unseen)
        site, key = labels.mixture_of(self.bound, of)
        labels.require_one_meaning(site)
        draws, rng = self._repeated(n_draws), generator(random_seed)
        z = labels.draw_labels(self.bound, draws, encoded, rng)[key]
        resp = np.zeros(())
        for params in self._draws(n_draws):
            resp = resp + labels.probabilities(self.bound, key, params, encoded)
        return labels.partition(z, loss, resp, rng)

    def posterior_predictive(
        self, data: Any = None, *, n_draws: int = 100, random_seed: Any = None, unseen: str = "error"
    ) -> xr.DataTree:
        """Tables drawn from the posterior predictive distribution, for the ``plot_ppc_…`` functions of ArviZ.

        Training rows of a weighted fit count as often as their weights say: not at all with weight 0, twice with weight
        2. Where weights are not whole, there are as many rows as without them, in proportion. Those of another table
        count once.

        Cells that are missing in the table are missing in those that are drawn, but for optional fields, which draw it.
        Where a drawn table has other cells (elements of sequences of other lengths, fields of optional records), as
        large a share of them is missing, at random.

        Parameters
        ----------
        data : table, optional
            The observed rows, N; the training table by default.
        n_draws : int
            Tables of N rows.
        random_seed : int, SeedSequence or Generator, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        xarray.DataTree
            Groups ``posterior_predictive`` (chain, draw, row) and ``observed_data``, a variable for each field, encoded
            as in ``fit.idata``. Elements of sequences are not in it, since each table has its own number of them; see
            `predictive_checks` for those.

        Raises
        ------
        DataError
            A field is called "chain" or "draw".

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> fit.posterior_predictive(n_draws=5, random_seed=1)["posterior_predictive"]["x"].shape
        (1, 5, 7)
        """
        table, encoded = self._data(data, unseen)
        rows = _rows(table, encoded)
        if (weights := self._weights_of(data, encoded)) is not None:
            often = predictive.rows_by_weight(weights)
            encoded, rows = encoded.take(often), np.asarray(rows)[often]
        observed = observed_dataset(self.bound, encoded, rows)
        rng = generator(random_seed)
        return predictive.predictive_tree(self.bound, self._repeated(n_draws), encoded, observed, rng)

    def predictive_checks(
        self,
        data: Any = None,
        *,
        n_draws: int = 200,
        prob: float = 0.89,
        random_seed: Any = None,
        unseen: str = "error",
    ) -> pd.DataFrame:
        """Statistics of every field beside those of tables that are drawn from the posterior predictive distribution.

        Means, standard deviations, extremes, shares of zeros, of missing cells and of symbols.

        Training rows of a weighted fit count as often as their weights say: not at all with weight 0, twice with weight
        2. Where weights are not whole, there are as many rows as without them, in proportion. Those of another table
        count once.

        Cells that are missing in the table are missing in those that are drawn, but for optional fields, which draw it.
        Where a drawn table has other cells (elements of sequences of other lengths, fields of optional records), as
        large a share of them is missing, at random.

        Parameters
        ----------
        data : table, optional
            The observed rows, N; the training table by default.
        n_draws : int
            Tables of N rows.
        prob : float
            Mass of the interval of the drawn statistics, ``lower`` to ``upper``.
        random_seed : int, SeedSequence or Generator, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        pandas.DataFrame
            Index ``field``, ``statistic``; columns observed, mean, lower, upper and ``p_value``, the share of tables
            with a greater statistic (ties count half). Near 0 or 1 the model misses this feature of the data.

        References
        ----------
        Gelman, Meng and Stern 1996, *Statistica Sinica* 6.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> list(fit.predictive_checks(n_draws=20, random_seed=1).loc["x"].index)
        ['mean', 'sd', 'share of zeros', 'largest']
        """
        _, encoded = self._data(data, unseen)
        if (weights := self._weights_of(data, encoded)) is not None:
            encoded = encoded.take(predictive.rows_by_weight(weights))
        rng = generator(random_seed)
        return predictive.predictive_table(self.bound, self._repeated(n_draws), encoded, prob, rng)

    def _repeated(self, n_draws: int) -> list[dict[str, np.ndarray]]:
        """`n_draws` parameter values, each of them repeated where the posterior has fewer."""
        arguments.check(n_draws=n_draws)
        params = self._draws(n_draws)
        return [params[i * len(params) // n_draws] for i in range(n_draws)] if len(params) < n_draws else params

    def _warn_of_labels(self) -> None:
        found = self.relabelling
        if found is not None and found.method is None and found.switched:
            warn(f"{found} Averages over labels mean little. Use fit.relabel().", BayesmixWarning)

    def predict(self, data: Any = None, *, to: str | os.PathLike[str] | None = None, unseen: str = "error") -> Any:
        """Most probable component of each row, shape (N,), int; with `to` a Parquet file of them: column ``component``.

        Parameters
        ----------
        data : table or source, optional
            N rows; the training table by default.
        to : path, optional
            See `log_density`.
        unseen : {"error", "ignore"}
        """
        data = streaming.opened(data)
        if streaming.is_streamed(data, to):
            return self._rowwise(data, to, lambda table: self.predict(table, unseen=unseen), ("component",))
        return self.responsibilities(data, unseen=unseen).argmax(1)

    def _rowwise(self, data: Any, to: Any, find: Callable[[Table], np.ndarray], names: tuple[str, ...] | None) -> Any:
        """What `find` says of the rows, some at a time; components name the columns where there are no `names`."""

        def named(values: np.ndarray) -> dict[str, np.ndarray]:
            if names is not None:
                return {names[0]: values}
            return {f"component_{k}": np.ascontiguousarray(column) for k, column in enumerate(values.T)}

        if data is None:
            data, _ = self._data(None, "error")
        return streaming.rowwise(data, to, self.spec.column_names(), find, named)

    def relabel(
        self, method: str | None = "kl", *, like: Params | None = None, data: Any = None, skip: Sequence[str] = ()
    ) -> Fit:
        """The same posterior with one labelling of the components in all draws.

        Components that may change places without changing the posterior are permuted draw by draw, within each
        component around them: mixtures inside others, topics, and rows and columns of a transition included.

        Parameters
        ----------
        method : {"kl", "ecr", "data"} or None
            Stephens' algorithm on the responsibilities; most rows in the component that they have at `like`; greatest
            log density of the rows of `like`'s components. None only finds out what would change.
        like : dict, optional
            Parameters whose labels the draws get. By default those of EM's mode, where the engine began with it, and
            otherwise the draw with the greatest log posterior density, in canonical order.
        data : table, optional
            The training table, of a fit that was loaded. At most 1,000 rows of it are taken.
        skip : sequence of str
            Dims of components to leave as they are, because their parameters are kept in order.

        Returns
        -------
        Fit
            Its ``relabelling`` tells what was moved; the status of several chains is judged again.

        References
        ----------
        Stephens 2000, *JRSS B* 62; Papastamoulis and Iliopoulos 2010, *JCGS* 19; Rodríguez and Walker 2014, *JCGS* 23.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 100) for m in (-4, 4)])
        >>> fit = bm.fit_advi(bm.Mixture(bm.Normal(), 2), x, random_seed=1).relabel()
        >>> fit.relabelling.switched
        False
        """
        encoded = self._training(data)
        posterior = self.posterior
        draws = {name: posterior[name].values for name in self.bound.free_slots}
        if like is None and self.relabelling is not None:
            like = self.relabelling.reference
        if like is None:
            like = in_canonical_order(self.bound, max(self._draws(None), key=lambda p: self._log_posterior(p, encoded)))
        arrays, report = relabelled(self.bound, draws, encoded, like, method=method, skip=skip)
        changed = posterior.assign({name: (posterior[name].dims, arrays[name]) for name in draws})
        groups = {name: group.to_dataset() for name, group in self.idata.children.items()}
        found = replace(self, idata=xr.DataTree.from_dict({**groups, "posterior": changed}), relabelling=report)
        if posterior.sizes["chain"] < 2:
            return found
        return replace(found, status=Status(self.status.engine, *verdict(found, data)))

    def _log_posterior(self, params: Params, encoded: Encoded) -> float:
        weights = self.row_weights
        rows = self.bound.log_density(params, encoded)
        return self.bound.log_prior(params) + float(rows.sum() if weights is None else weighted_sum(rows, weights))

    def occupied(
        self, data: Any = None, *, of: str | None = None, n_draws: int = 400, random_seed: Any = None
    ) -> pd.Series:
        """Posterior of the number of occupied components: those that a row is drawn from, by draws of the labels.

        With more components than needed and a small Dirichlet concentration, superfluous ones stay empty, and the
        number of the others estimates the number of components. NUTS moves badly among empty components where the
        concentration is below about 0.1; see `Fit.status`.

        Parameters
        ----------
        data : table, optional
            N rows; the training table by default, whose rows of weight 0 occupy nothing.
        of : str, optional
            Which mixture, as in `responsibilities`.
        n_draws : int
            Draws of all labels, each with a draw of the parameters.
        random_seed : int, SeedSequence or Generator, optional

        Returns
        -------
        pandas.Series
            Probability of every number from 1 to K.

        References
        ----------
        Malsiner-Walli, Frühwirth-Schnatter and Grün 2016, *Statistics and Computing* 26; Rousseau and Mengersen 2011,
        *JRSS B* 73, for which concentrations empty them.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, 60) for m in (-5, 5)])
        >>> fit = bm.fit_em(bm.Mixture(bm.Normal(), 2), x, random_seed=1)
        >>> fit.occupied(random_seed=1).to_dict()
        {1: 0.0, 2: 1.0}
        """
        from bayesmix.select import occupied

        _, encoded = self._data(data, "error")
        if (weights := self._weights_of(data, encoded)) is not None:
            encoded = encoded.take(np.flatnonzero(weights))
        return occupied(self.bound, self._repeated(n_draws), encoded, of, generator(random_seed))

    def impute(
        self,
        data: Any = None,
        *,
        to: str | os.PathLike[str] | None = None,
        n_draws: int = 1000,
        random_seed: Any = None,
        unseen: str = "error",
    ) -> Any:
        """Draw the missing cells from their posterior given everything that is observed in their rows.

        Parameters
        ----------
        data : table or source, optional
            N rows; the training table by default.
        to : path, optional
            A Parquet file to write the filled table to, some rows at a time: what ``table()`` of the result gives, with
            all columns, without an index of pandas'. Tables that are read in parts need it.
        n_draws : int
            Draws of every cell. With a posterior of several draws the parameters vary too.
        random_seed : int, SeedSequence or Generator, optional
        unseen : {"error", "ignore"}

        Returns
        -------
        Imputation or Path
            Its ``draws``, ``summary()`` and ``table()``.
        """
        arguments.check(n_draws=n_draws)
        data = streaming.opened(data)
        if streaming.is_streamed(data, to):
            if to is None:
                raise ValueError(
                    "to: a table that is read in parts needs the path of a Parquet file for its filled rows."
                )
            rng = generator(random_seed)
            return streaming.imputed(
                self._data(None, unseen)[0] if data is None else data,
                to,
                n_draws,
                partial(real_columns, self.bound),
                lambda table: self.impute(table, n_draws=n_draws, random_seed=rng, unseen=unseen).table(),
            )
        table, encoded = self._data(data, unseen)
        return impute(self.bound, self._repeated(n_draws), table, encoded, generator(random_seed))

    def sample(self, size: int, *, random_seed: Any = None) -> Any:
        """Draw new rows from the posterior predictive distribution.

        Parameters
        ----------
        size : int
            Rows, each from a random draw of the parameters.
        random_seed : int, SeedSequence or Generator, optional

        Returns
        -------
        frame
            Of the library that the training table came from (pandas otherwise), a column a field.
        """
        arguments.check(size=size)
        rng = generator(random_seed)
        params = self._draws(max(size, _MAX_DRAWS))
        which = np.sort(rng.integers(0, len(params), size))
        parts = [
            draw_rows(self.bound, params[i], int(count), rng) for i, count in zip(*np.unique(which, return_counts=True))
        ]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        shuffled = rng.permutation(size)
        columns = {name: values[shuffled] for name, values in columns.items()}
        backend = None if self.table is None else self.table.backend
        return as_frame(columns, backend)

    def to_spec(self) -> Any:
        """The fitted spec: every parameter fixed at its value in ``fit.params``. It is a distribution.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> bm.sample(fit.to_spec(), 3, random_seed=1).shape
        (3, 1)
        """
        return self.spec.fixed_at(self.bound.site, self.params)

    def kl_divergence(self, other: Fit, data: Any = None, *, size: int = 10_000, random_seed: Any = None) -> float:
        """Kullback-Leibler divergence of this fit from another, estimated: mean of log p_self - log p_other, in nats.

        Parameters
        ----------
        other : Fit
            Of the same fields.
        data : table, optional
            Rows to take the mean over; by default `size` rows drawn from this fit.
        size : int
        random_seed : int, SeedSequence or Generator, optional

        Raises
        ------
        DataError
            The fits have different fields; or the other does not take what this one draws, so that the divergence is
            infinite.
        """
        if not isinstance(other, Fit):
            raise TypeError(f"other: a Fit is needed, not {other!r}.")
        self._check_fields(other, data is None)
        if data is None:
            rows = self.sample(size, random_seed=random_seed)
            if len(own_names := self.bound.columns) == len(rows.columns):  # as the other may call them
                rows = nw.from_native(rows).rename(dict(zip(rows.columns, own_names))).to_native()
        else:
            rows = data
        try:
            own = self.log_density(rows)
        except DataError as error:
            raise (predictive.outside(error) if data is None else error) from None
        try:
            return float(np.mean(own - other.log_density(rows)))
        except DataError as error:
            if data is not None:
                raise
            raise DataError(
                f"other: it does not take what this fit draws, so that the divergence is infinite ({error.faults[0]}) "
                "Give both fits one support, or pass rows that both take as data=."
            ) from None

    def _check_fields(self, other: Fit, drawn: bool) -> None:
        """Raise `DataError` where another fit has other columns, as far as they have names: `drawn` rows do."""
        own, others = (_drawn_names(fit) for fit in (self, other))
        named = drawn or own != [f"x{j + 1}" for j in range(len(own))]
        if len(own) != len(others) or (named and other.spec.column_names() is not None and set(own) != set(others)):
            raise DataError(
                f"other: its fields are {', '.join(others)}, and those of this fit {', '.join(own)}. Densities of "
                "different fields do not compare: fit both to the same."
            )

    @alone
    def summary(self, **kwargs: Any) -> pd.DataFrame:
        """Table of the parameters: `arviz_stats.summary` for a posterior, values for a point estimate.

        Parameters
        ----------
        **kwargs
            Passed on to `arviz_stats.summary` (``var_names``, ``ci_prob``, ``round_to``, …); a point estimate
            takes ``var_names`` only.
        """
        import arviz_stats as azs  # slow to import

        posterior = self.posterior
        asked = kwargs.get("var_names") or []
        for name in [asked] if isinstance(asked, str) else asked:
            if name not in posterior and not (name.startswith("~") or "filter_vars" in kwargs):
                raise ValueError(
                    f"var_names: no parameter is called {name!r}. There are {', '.join(map(str, posterior))}."
                )
        if posterior.sizes["chain"] * posterior.sizes["draw"] == 1:
            names = kwargs.pop("var_names", None) or list(self.bound.free_slots)
            if kwargs:
                raise TypeError(f"{', '.join(kwargs)}: a point estimate has no draws to summarise; use method='nuts'.")
            rows = {}
            for name in [names] if isinstance(names, str) else names:
                array = posterior[name].isel(chain=0, draw=0)
                labels = [[str(label) for label in array[dim].values] for dim in array.dims]
                for parts, number in zip(product(*labels), array.values.ravel().tolist()):
                    rows[f"{name}[{', '.join(parts)}]" if parts else name] = number
            return pd.DataFrame({"value": rows})
        return azs.summary(self.idata, **kwargs)

    def check(self, data: Any = None) -> Any:
        """Report what this fit can be trusted for: a verdict, and the way out of each fault. See `bayesmix.check`.

        Parameters
        ----------
        data : table, optional
            The training table, of a fit that was loaded.

        Returns
        -------
        Report

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 3), np.array([0, 1, 1, 0, 9, 12, 8, 9]), random_seed=1)
        >>> "duplicate_components" in fit.check()
        True
        """
        from bayesmix.check import check

        return check(self, data=data)

    def save(self, path: str | Path) -> None:
        """Write the fit to a file (zip of the spec as JSON and the arrays as netCDF; no pickle). See `bm.load`.

        It is written at once or not at all: an error, a full disk or the death of the process leave what was at `path`
        before as it was. The training table is not kept.

        Raises
        ------
        OSError
            The file cannot be written.
        DataError, SpecError
            A symbol, or a prior of your own, that a file cannot hold.
        """
        from bayesmix.io import save

        save(self, path)

    def describe(self, *, n_fields: int = 6, prob: float = 0.89, data: Any = None) -> Any:
        """Say in words what was found: the components, what this fit can be trusted for, and how it was made.

        Parameters
        ----------
        n_fields : int
            At most so many fields of a component are described: those that tell it best from the other components.
        prob : float
            Mass of the intervals, where there are draws.
        data : table, optional
            The training table, of a fit that was loaded.

        Returns
        -------
        Description
            Prints as text; ``components``, ``separation``, ``check``, ``methods`` and ``references`` are its parts.

        Examples
        --------
        >>> import numpy as np, bayesmix as bm
        >>> fit = bm.fit(bm.Mixture(bm.Poisson(), 2), np.array([0, 1, 1, 0, 9, 12, 8]), random_seed=1)
        >>> print(fit.describe().components[1].text)
        Component 1 holds 44 % of the rows (about 3 of 7).
          x: mean 9.3 (0.71 in the other). Tells it from the other by 0.96.
        """
        from bayesmix.describe import describe

        return describe(self, n_fields=n_fields, prob=prob, data=data)

    def _repr_html_(self) -> str:
        from bayesmix.trees import fit_page

        return fit_page(self)

    def __repr__(self) -> str:
        sizes = self.posterior.sizes
        draws = f"{sizes['chain']} × {sizes['draw']} draws"
        return f"<Fit by {self.status.engine}: {draws}, loglik {self.loglik:.3f}. {self.status}>"


def _rows(table: Table, encoded: Encoded) -> Any:
    """Labels of the rows."""
    if table.index is None:
        return pd.RangeIndex(encoded.n_rows)  # of no memory
    return table.index if table.index.dtype.kind in "iuf" else _labels(table.index)


def _most_frequent(values: np.ndarray) -> float:
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()])


def _check_whole(per_draw: bool) -> None:
    if per_draw:
        raise ValueError("per_draw: of a table that is read in parts only means over draws are found.")


def make_fit(
    bound: Bound,
    draws: dict[str, np.ndarray],
    *,
    table: Table | None,
    encoded: Encoded | None,
    row_weights: np.ndarray | None,
    status: Status,
    history: np.ndarray | None = None,
    starts: list[dict[str, Any]] | None = None,
    groups: dict[str, xr.Dataset] | None = None,
    log_likelihood: bool | None = None,
    trajectory: xr.Dataset | None = None,
    pareto_k: float | None = None,
    modes: Modes | None = None,
    e_step: Pass | None = None,
    loglik: float | None = None,
) -> Fit:
    """Assemble a `Fit` from draws (chain, draw, *shape) of the free parameters.

    `log_likelihood` None stores the pointwise group where it has at most 5 million entries, or 100,000 of one draw,
    of which nothing asks for it but `Fit.log_density`, which finds it again. Where rows are not in memory, `table` and
    `encoded` are None, and `e_step` is the pass over them. `loglik` is the log-likelihood, where it is known.
    """
    tree = {"posterior": posterior_dataset(bound, draws)}
    tree.update(groups or {})
    n_chains, n_draws = next(iter(draws.values())).shape[:2] if draws else (1, 1)
    rows: Any = None
    if encoded is None or table is None:
        log_likelihood, weights = False, np.empty(0)
    else:
        weights = np.broadcast_to(1.0, encoded.n_rows) if row_weights is None else row_weights
        e_step = EStep(bound, encoded, weights) if e_step is None else e_step
        rows = _rows(table, encoded)
    assert e_step is not None
    if log_likelihood is None and encoded is not None:
        log_likelihood = n_chains * n_draws * encoded.n_rows <= (5_000_000 if n_chains * n_draws > 1 else 100_000)
    if log_likelihood and encoded is not None and isinstance(e_step, EStep):
        pointwise = np.empty((n_chains, n_draws, encoded.n_rows))
        for c in range(n_chains):
            for d in range(n_draws):
                params = bound.with_fixed({name: values[c, d] for name, values in draws.items()})
                pointwise[c, d] = e_step.rows(params)
        loglik = float(weighted_sum(pointwise, weights).mean())
        tree["log_likelihood"] = xr.Dataset(
            {"row_loglik": (("chain", "draw", "row"), pointwise)},
            coords={"chain": np.arange(n_chains), "draw": np.arange(n_draws), "row": rows},
        )
    elif loglik is None:
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}
        picked = np.linspace(0, n_chains * n_draws - 1, min(100, n_chains * n_draws)).astype(int)
        points = [bound.with_fixed({name: values[i] for name, values in flat.items()}) for i in picked]
        loglik = float(np.mean([e_step(point)[0] for point in points]))
    if encoded is not None:
        tree["observed_data"] = observed_dataset(bound, encoded, rows)
    if row_weights is not None:
        tree["constant_data"] = xr.Dataset({"row_weights": (("row",), row_weights)}, coords={"row": rows})
    for dataset in tree.values():
        dataset.attrs.setdefault("inference_library", "bayesmix")
    idata = xr.DataTree.from_dict(tree)
    return Fit(bound, idata, status, loglik, history, starts or [], table, encoded, trajectory, None, pareto_k, modes)


@alone
def posterior_dataset(bound: Bound, draws: dict[str, np.ndarray]) -> xr.Dataset:
    """Draws with the slots' dims and labels."""
    coords: dict[str, Any] = {}
    variables = {}
    for name, values in draws.items():
        slot = bound.slots[name]
        variables[name] = (("chain", "draw", *slot.dims), values)
        coords.update({dim.name: dim_labels(dim) for dim in (*slot.axes, *slot.event)})
    shape = next(iter(draws.values())).shape[:2] if draws else (1, 1)
    return xr.Dataset(variables, coords={"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), **coords})


def observed_dataset(bound: Bound, encoded: Encoded, rows: Any) -> xr.Dataset:
    """The encoded fields by the names that they have in a model, with the labels of the rows."""
    variables, coords, left_out = {}, {"row": rows}, []
    for each in bound.site.observed(encoded):
        if each.size > _MOST_KEPT and not isinstance(each.values, np.ndarray):
            left_out.append(each.name)
            continue
        coords.update({dim.name: dim_labels(dim) for dim in each.dims})
        values = each.written_out()
        if values.dtype.kind == "i" and values.size:  # padded sequences are as wide as the longest
            values = values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
        variables[each.name] = ((each.row_dim, *[dim.name for dim in each.dims]), values)
    attrs = {"left_out": f"too large to write out: {', '.join(left_out)}"} if left_out else {}
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _drawn_names(fit: Fit) -> list[str]:
    """Names of the columns of rows drawn from a fit: where its spec gives none, those of the fitted table."""
    drawn = list(draw_rows(fit.bound, fit.params, 1, generator(0)))
    return list(fit.bound.columns) if len(fit.bound.columns) == len(drawn) else drawn


def draw_rows(
    bound: Bound, params: Params, size: int, rng: np.random.Generator, chosen: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Rows drawn at one parameter value: column name -> values in the user's terms.

    `chosen` is given the components that they were drawn from, by the mixtures' site keys.
    """
    drawn = bound.site.draw(params, np.zeros(size, int), rng, {} if chosen is None else chosen)
    if not isinstance(drawn, dict):
        drawn = _fields_of(bound.spec, drawn)
    labels = {leaf.place.path: leaf.value_dims for leaf in bound.site.leaves()}
    columns: dict[str, np.ndarray] = {}
    for name, values in drawn.items():
        if isinstance(values, dict):
            node = next(site.node for site in bound.site.walk() if site.place.path == name)
            columns[name] = np.empty(size, object)
            columns[name][:] = cells(node, values)
        elif values.ndim == 2 and not name:  # a table of the coordinates
            columns.update({str(label): values[:, j] for j, label in enumerate(labels[name][0].labels)})
        elif values.ndim == 2:  # one column of vectors, as the spec reads it
            columns[name] = np.empty(size, object)
            columns[name][:] = [row.tolist() for row in values]
        else:
            columns[name or "x"] = values
    return columns


def _fields_of(node: Any, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Drawn records (N,) of objects, of which some are missing, as columns; other values as the one column."""
    while isinstance(node, (Mixture, Optional)):
        node = node.parts[0][1]
    if not isinstance(node, Composite) or drawn.dtype != object:
        return {"": drawn}
    columns = {}
    for place, (name, _) in enumerate(node.parts):
        columns[name] = np.empty(len(drawn), object)
        at = place if node.positional else name
        columns[name][:] = [None if record is None else record[at] for record in drawn]
    return columns


@alone
def as_frame(columns: dict[str, np.ndarray], backend: str | None) -> Any:
    """A frame of the caller's library, pandas where there was none."""
    if backend in (None, "pandas"):
        return pd.DataFrame(columns)
    cells = {name: [_cell(value) for value in values.tolist()] for name, values in columns.items()}
    return nw.from_dict(cells, backend=cast(Any, backend)).to_native()


def _cell(value: Any) -> Any:
    return in_order(value) if isinstance(value, frozenset) else value  # these frames have lists, and no sets
