"""Estimators in the style of scikit-learn: a clusterer, a classifier and an imputer.

All three fit a mixture to the rows of ``X`` and keep it as ``fit_``, a `bayesmix.Fit` with everything that one can do.
They take arrays, lists and data frames, cells of numbers, truth values and symbols, and missing ones (NaN, `None`,
`pd.NA`) among them, which are integrated out of the likelihood.

The classifier is a mixture whose labels are observed: each class has components of its own, and a field of known
probabilities 0 and 1 says which. Where the label of a row is missing that field is integrated out as any missing cell
is, which is all that learning from unlabelled rows takes.

Rows are put in an order of their own before a fit, and whole sample weights repeat them. So a fit depends neither on
the order of the rows nor on how repeated ones are written.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from bayesmix import arguments
from bayesmix.api import ENGINES, fit
from bayesmix.bound import Bound, bind, check_row_weights
from bayesmix.data import Column, Table, is_missing, read
from bayesmix.errors import DataError, SpecError
from bayesmix.families import Bernoulli, Categorical, MvNormal, Normal
from bayesmix.families._summaries import in_order
from bayesmix.fit import Fit, as_frame, draw_rows, make_fit
from bayesmix.impute import Imputation, _with_cells, impute
from bayesmix.infer import infer_spec
from bayesmix.inference.em import maximise
from bayesmix.select import n_parameters
from bayesmix.spec import Node
from bayesmix.structure import Composite, Mixture

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, DensityMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
    from sklearn.utils._set_output import _get_output_config
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_feature_names_in,
        check_consistent_length,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:  # pragma: no cover
    raise ImportError('bayesmix.sklearn needs scikit-learn 1.6 or newer: pip install "bayesmix[sklearn]"') from error

__all__ = ["MixtureClassifier", "MixtureClusterer", "MixtureImputer"]

#: Arguments of engines that are the estimators' own, and where they are given.
_GIVEN = {
    "spec": "Use the parameter spec.",
    "data": "Pass X to fit.",
    "method": "Use the parameter method.",
    "row_weights": "Pass sample_weight to fit.",
}
#: Whole weights repeat rows, as long as these are no more than so many times as many, or so many.
_REPEATS, _REPEATED_ROWS = 10, 10_000
#: Draws of cells that have no mean (sets, sequences), of which the centre is imputed.
_DRAWS = 100


# ---------------------------------------------------------------- what every estimator does


class _MixtureEstimator(BaseEstimator):
    """Reads tables, builds the spec, and fits it."""

    #: Components where neither the user nor the spec says how many.
    _default_components = 1

    def __init__(
        self,
        n_components=None,
        *,
        spec=None,
        method="em",
        n_init=4,
        max_iter=None,
        tol=None,
        handle_unknown="error",
        random_state=None,
        engine_params=None,
    ):
        self.n_components = n_components
        self.spec = spec
        self.method = method
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.handle_unknown = handle_unknown
        self.random_state = random_state
        self.engine_params = engine_params

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> Table:
        """Any table with the names that the columns had in `fit`; raises scikit-learn's errors for what is none."""
        if nw.dependencies.is_into_dataframe(X):
            table = read(X)  # first: scikit-learn fails at names that are there twice
            validate_data(self, X, reset=reset, skip_check_array=True)
            for size, what in ((table.n_rows, "sample"), (len(table.columns), "feature")):
                if not size:
                    raise ValueError(
                        f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required."
                    )
        else:
            if isinstance(X, (list, tuple)) and any(isinstance(cell, str) for row in X for cell in np.ravel(row)):
                X = np.array(X, dtype=object)  # numbers beside symbols stay numbers
            X = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
            table = read(X)
        for column in table.columns:
            _check_cells(column, self.spec)
        if reset:
            self._names, self._backend = table.names, table.backend
            self._truths = [column.name for column in table.columns if column.kind == "bool"]
        elif table.named and table.names != self._names and sorted(table.names) == sorted(self._names):
            # scikit-learn looks only at names that are text
            raise ValueError(
                f"X: its columns are {', '.join(table.names[:6])}, and those of fit were {', '.join(self._names[:6])}. "
                "Put them in the same order."
            )
        columns = tuple(replace(column, name=name) for column, name in zip(table.columns, self._names))
        return replace(table, columns=columns, named=True)

    def _component(self, table: Table) -> tuple[Node, int]:
        """Spec of one component, and how many there are to be."""
        given = self.n_components
        if given is not None:
            arguments.check(n_components=given)
        if self.spec is None:
            return default_component(table), int(given or self._default_components)
        if isinstance(self.spec, str) and self.spec == "infer":
            return infer_spec(table).component, int(given or self._default_components)
        if not isinstance(self.spec, Node):
            raise TypeError(f'spec: a spec of bayesmix is needed, "infer" or None, not {self.spec!r}.')
        if isinstance(self.spec, Mixture):
            return self.spec.component, int(given or self.spec.n_components)
        return self.spec, int(given or self._default_components)

    def _mixture(self, rows: _Rows) -> Mixture:
        """The mixture to fit, of no more components than there are distinct rows."""
        component, wanted = self._component(rows.table)
        if not isinstance(self.spec, Mixture):
            return Mixture(component, _reduced(wanted, rows.n_distinct(), "X has"))
        if self.spec._listed and wanted == self.spec.n_components:
            return self.spec
        return self.spec.with_n_components(_reduced(wanted, rows.n_distinct(), "X has"))

    def _random_seed(self) -> Any:
        if self.random_state is None or isinstance(self.random_state, (int, np.integer)):
            return self.random_state
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _keywords(self, seed: Any) -> dict[str, Any]:
        """What the engine takes of the estimator's parameters."""
        if self.method not in ENGINES:
            raise ValueError(f"method: one of {', '.join(ENGINES)} is needed, not {self.method!r}.")
        self._unseen()  # before the work, not after it
        if self.n_init is not None:
            arguments.check(n_init=self.n_init)
        _check_engine_params(self.engine_params)
        wanted = {"n_starts": self.n_init, "max_iter": self.max_iter, "tol": self.tol}
        taken = inspect.signature(ENGINES[self.method]).parameters
        known = {name: value for name, value in wanted.items() if value is not None and name in taken}
        return {**known, "random_seed": seed, **(self.engine_params or {})}

    def _fit_spec(self, spec: Node, rows: _Rows, keywords: dict[str, Any]) -> Fit:
        self.fit_ = rows.restored(fit(spec, rows.table, self.method, row_weights=rows.weights, **keywords))
        self.converged_ = self.fit_.status.converged
        self.n_iter_ = max(1, 0 if self.fit_.history is None else len(self.fit_.history))
        return self.fit_

    def _fitted(self) -> Fit:
        check_is_fitted(self)
        return self.fit_

    def _unseen(self) -> str:
        if self.handle_unknown not in ("error", "ignore"):
            raise ValueError(f'handle_unknown: "error" or "ignore" is needed, not {self.handle_unknown!r}.')
        return self.handle_unknown

    def _asked(self, method: Callable[..., Any], table: Table) -> Any:
        """What a method of the fit says of a table, or its error in the words of this estimator."""
        try:
            return method(table, unseen=self._unseen())
        except DataError as error:
            raise DataError([fault.replace("unseen=", "handle_unknown=") for fault in error.faults]) from None


def _check_engine_params(given: Any) -> None:
    """Raise `TypeError` for what is no dict, or holds what the estimator gives the engine itself."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"engine_params: a dict of the engine's keywords is needed, not {given!r}.")
    for name, way in _GIVEN.items():
        if name in given:
            raise TypeError(f"engine_params: {name} is not taken from here. {way}")


def default_component(table: Table) -> Node:
    """Spec of a component where the user gives none.

    One column of numbers is `Normal`, and several are one `MvNormal` with a full covariance matrix, as in
    `sklearn.mixture.GaussianMixture`. Where there are other columns, all are independent given the component: numbers
    `Normal`, truth values `Bernoulli`, symbols `Categorical`. Columns without any value are left out.
    """
    columns = [column for column in table.columns if not column.missing.all()]
    if not columns:
        raise ValueError("X: every cell is missing. At least one value is needed.")
    if len(columns) == len(table.columns) and all(column.kind == "number" for column in columns):
        return MvNormal() if len(columns) > 1 else Normal()
    families = {"number": Normal, "bool": Bernoulli, "object": Categorical}
    return Composite({column.name: families[column.kind]() for column in columns})


def _check_cells(column: Column, spec: Node | None) -> None:
    """Raise for a cell that no family of the default spec reads, as scikit-learn's encoders do."""
    if spec is not None or column.kind != "object":
        return
    for row, (cell, gone) in enumerate(zip(column.values, column.missing)):
        if not gone and not pd.api.types.is_scalar(cell):
            raise TypeError(
                f"{column.name}: argument must be a string or a number, not {type(cell).__name__} (row {row}). "
                "Give a spec that reads such cells (bm.Sequence, bm.BernoulliSet, …)."
            )


# ---------------------------------------------------------------- rows, in an order that depends on nothing else


@dataclass(frozen=True)
class _Rows:
    """The rows of a fit: of `whole`, the caller's table, those of weight above 0, in order.

    Attributes
    ----------
    table : Table
        Rows of equal cells beside each other, repeated where weights are whole.
    weights : ndarray or None, shape (N,)
        What is left of the weights, in the table's order.
    whole, given : Table, ndarray or None
        The caller's rows and weights.
    picked : ndarray of int, shape (N,)
        Which of the caller's rows the table's are.
    """

    table: Table
    weights: np.ndarray | None
    whole: Table
    given: np.ndarray | None
    picked: np.ndarray

    @classmethod
    def of(cls, table: Table, sample_weight: Any) -> _Rows:
        """Raises `ValueError` for weights that are none."""
        given = _checked_weights(sample_weight, table.n_rows)
        order = np.lexsort(_sort_keys(table)[::-1])
        weights = None
        if given is not None:
            order = order[given[order] > 0]
            weights = given[order]
            most = max(_REPEATS * len(order), _REPEATED_ROWS)
            if (weights == np.round(weights)).all() and weights.sum() <= most:
                order, weights = np.repeat(order, weights.astype(int)), None
        return cls(_take(table, order), weights, table, given, order)

    def n_distinct(self, rows: np.ndarray | None = None) -> int:
        """How many of the table's rows (or of some of them, ascending) differ."""
        keys = [key if rows is None else key[rows] for key in _sort_keys(self.table)]
        changes = [(key[1:] != key[:-1]) & ~(_isnan(key[1:]) & _isnan(key[:-1])) for key in keys]
        return 1 + int(np.any(changes, axis=0).sum())

    def restored(self, found: Fit) -> Fit:
        """The fit with the caller's rows, in the caller's order."""
        tree = found.idata.children
        kept = {name: group.to_dataset() for name, group in tree.items() if name not in _MADE}
        made = make_fit(
            found.bound,
            {name: found.posterior[name].values for name in found.bound.free_slots},
            table=self.whole,
            encoded=found.bound.encode(self.whole, "ignore"),  # rows of weight 0 may have symbols that the others lack
            row_weights=self.given,
            status=found.status,
            history=found.history,
            starts=found.starts,
            groups=kept,
            log_likelihood="log_likelihood" in tree,
            trajectory=found.trajectory,
            pareto_k=found.pareto_k,
            modes=found.modes_found,
        )
        return replace(made, relabelling=found.relabelling, mode_fits=found.mode_fits)


#: Groups that `make_fit` makes.
_MADE = ("posterior", "observed_data", "log_likelihood", "constant_data")


def _checked_weights(sample_weight: Any, n_rows: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    weights = np.full(n_rows, weights) if weights.ndim == 0 else weights
    if weights.shape == (n_rows,) and not weights.any():
        raise ValueError("sample_weight: all sample weights are zero. Give at least one row a weight.")
    return check_row_weights(weights, n_rows, "sample_weight")


def _take(table: Table, rows: np.ndarray) -> Table:
    columns = tuple(column.take(rows) for column in table.columns)
    index = None if table.index is None else table.index[rows]
    return replace(table, columns=columns, n_rows=len(rows), index=index, native=None)


def _sort_keys(table: Table) -> list[np.ndarray]:
    """A sortable array for each column: numbers with NaN where missing, and codes of everything else."""
    keys = []
    for column in table.columns:
        if column.kind == "object":
            texts = ["" if gone else _text(cell) for cell, gone in zip(column.values, column.missing)]
            keys.append(np.unique(texts, return_inverse=True)[1].astype(float))
        else:
            keys.append(np.where(column.missing, np.nan, column.values.astype(float)))
    return keys


def _text(cell: Any) -> str:
    return repr(in_order(cell) if isinstance(cell, (set, frozenset)) else cell)


def _isnan(values: np.ndarray) -> np.ndarray:
    return values != values


def _reduced(wanted: int, possible: int, of_what: str) -> int:
    """As many components as there can be; warns where these are fewer than were asked for."""
    if wanted > possible:
        warnings.warn(
            f"{of_what} {possible} distinct row{'s' if possible > 1 else ''}: {possible} component"
            f"{'s are' if possible > 1 else ' is'} fitted instead of {wanted}. Use n_components of at most {possible}.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return min(wanted, possible)


# ---------------------------------------------------------------- the clusterer


class MixtureClusterer(ClusterMixin, DensityMixin, _MixtureEstimator):
    """Clusters as the components of a mixture, of columns of any kind and with missing cells.

    Parameters
    ----------
    n_components : int, optional
        K; by default that of `spec` where it is a mixture, and 2. Where X has fewer distinct rows there are as many
        components as these, and a `ConvergenceWarning`.
    spec : Node or "infer", optional
        A mixture, or what is to be one component of it: ``bm.Composite(income=bm.LogNormal(), visits=bm.Poisson())``.
        By default several columns that are all numbers have one `MvNormal` with a full covariance matrix; where some
        are not, columns are independent given the component: numbers `Normal`, truth values `Bernoulli`, symbols
        `Categorical`. Columns without any value are left out. ``"infer"`` takes what `infer_spec` proposes for the
        columns, and leaves out what it does.
    method : {"em", "map", "nuts", "advi", "laplace", "moments"}
        The engine; see `bayesmix.fit`.
    n_init : int
        Starts of EM (``n_starts`` of the engines), of which the best is kept.
    max_iter, tol : optional
        Those of the engine, whose defaults None leaves.
    handle_unknown : {"error", "ignore"}
        Symbols that the fitted rows did not have: raise, or treat as missing.
    random_state : int, RandomState or None
        With an int the same rows give the same fit, in whatever order they come.
    engine_params : dict, optional
        More keywords of the engine: ``{"draws": 500}``.

    Attributes
    ----------
    fit_ : Fit
        The fit, with its summaries, plots and checks; its rows are those of X.
    labels_ : ndarray of int, shape (n_samples,)
        Most probable component of each row.
    weights_ : ndarray, shape (n_components,)
    converged_ : bool
        Whether the engine's rule held.
    n_iter_ : int
        Iterations of the start that is kept (1 where the engine has none).
    n_features_in_ : int
    feature_names_in_ : ndarray of str, one for each feature
        Where X has names.

    See Also
    --------
    sklearn.mixture.GaussianMixture : maximum likelihood for numbers without missing cells.

    Notes
    -----
    Default priors are weak, so the fit is the posterior mode and not the maximum of the likelihood; with
    ``spec=bm.Mixture(bm.MvNormal(), K).with_flat_priors()`` it is that.

    Whole sample weights repeat rows. Other ones weigh the likelihood, but not the medians and ranges that default
    priors are scaled by.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesmix.sklearn import MixtureClusterer
    >>> X = np.array([[1.0, 0.2], [0.9, np.nan], [1.2, 0.1], [5.1, 7.0], [np.nan, 6.8], [4.9, 7.2]])
    >>> MixtureClusterer(2, random_state=0).fit_predict(X)
    array([0, 0, 0, 1, 1, 1])
    """

    _default_components = 2

    def fit(self, X, y=None, sample_weight=None):
        """Fit the mixture.

        Parameters
        ----------
        X : array, list or data frame, shape (n_samples, n_features)
        y : ignored
        sample_weight : array_like, shape (n_samples,), optional
            Weight 2 is the same as the row twice.

        Returns
        -------
        self
        """
        rows = _Rows.of(self._read(X, reset=True), sample_weight)
        self._fit_spec(self._mixture(rows), rows, self._keywords(self._random_seed()))
        self.weights_ = self.fit_.params["weights"]
        self.labels_ = self.fit_.responsibilities().argmax(1)
        return self

    def predict(self, X):
        """Most probable component of each row, shape (n_samples,), int."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X):
        """Posterior probability of each component, shape (n_samples, n_components)."""
        fit = self._fitted()
        return self._asked(fit.responsibilities, self._read(X, reset=False))

    def score_samples(self, X):
        """Log predictive density of each row in nats, shape (n_samples,)."""
        fit = self._fitted()
        return self._asked(fit.log_density, self._read(X, reset=False))

    def score(self, X, y=None):
        """Mean log density of the rows of X in nats: greater is better."""
        return float(self.score_samples(X).mean())

    def bic(self, X):
        """Bayesian information criterion of X: lower is better."""
        log_density = self.score_samples(X)
        return float(n_parameters(self.fit_.bound) * np.log(len(log_density)) - 2 * log_density.sum())

    def aic(self, X):
        """Akaike information criterion of X: lower is better."""
        return float(2 * n_parameters(self.fit_.bound) - 2 * self.score_samples(X).sum())

    def sample(self, n_samples=1):
        """Draw new rows.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray or data frame, shape (n_samples, n_features)
            A frame of the caller's library where `fit` had one.
        y : ndarray of int, shape (n_samples,)
            Their components.
        """
        fit = self._fitted()
        rng = np.random.default_rng(self._random_seed())
        draws = fit._draws(n_samples)
        which = rng.integers(0, len(draws), n_samples)
        parts, labels = [], []
        for i, count in zip(*np.unique(which, return_counts=True)):
            drawn: dict[str, np.ndarray] = {}
            parts.append(draw_rows(fit.bound, draws[i], int(count), rng, drawn))
            labels.append(drawn[fit.bound.site.key])
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        columns.update({name: columns[name].astype(bool) for name in self._truths if name in columns})
        if self._backend is not None:
            return as_frame(columns, self._backend), np.concatenate(labels)
        values = list(columns.values())
        kind = object if any(each.dtype.kind not in "iuf" for each in values) else float
        return np.column_stack([each.astype(kind) for each in values]), np.concatenate(labels)


# ---------------------------------------------------------------- the classifier


class MixtureClassifier(ClassifierMixin, _MixtureEstimator):
    """Classes as mixtures: each class has components of its own, and Bayes' rule does the rest.

    With one component a class this is quadratic discriminant analysis (columns of numbers) or naive Bayes (columns of
    mixed kinds), with weak priors and missing cells. Rows without a label take part: they are classified while the
    classes are learned.

    Parameters
    ----------
    n_components : int, optional
        Components of each class; by default those of `spec` where it is a mixture, and 1. Where a class has fewer
        distinct rows all classes have as many components as these, and there is a `ConvergenceWarning`.
    spec : Node or "infer", optional
        What one component is, or a mixture of them. By default as in `MixtureClusterer`.
    unlabeled : optional
        The label of rows whose class is not known. Where there are not two other labels (classes coded as -1 and 1) it
        is a class like any other, and so it is with None.
    method, n_init, max_iter, tol, handle_unknown, random_state, engine_params
        See `MixtureClusterer`.

    Attributes
    ----------
    fit_ : Fit
        The fit of the joint mixture: components ``c * K`` to ``c * K + K - 1`` are those of class c. A further field
        holds the class.
    classes_ : ndarray, shape (n_classes,)
    class_prior_ : ndarray, shape (n_classes,)
        Probability of each class.
    n_components_ : int
        Components of each class.
    ``converged_, n_iter_, n_features_in_, feature_names_in_``
        See `MixtureClusterer`.

    References
    ----------
    Hastie and Tibshirani 1996, *JRSS B* 58, for mixtures in discriminant analysis; Nigam et al. 2000, *Machine
    Learning* 39, for rows without labels.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesmix.sklearn import MixtureClassifier
    >>> X = np.array([[1.0], [1.2], [0.8], [5.0], [5.2], [np.nan]])
    >>> y = ["low", "low", "low", "high", "high", "high"]
    >>> MixtureClassifier().fit(X, y).predict([[0.9], [5.1]])
    array(['low', 'high'], dtype='<U4')

    Of the eleven rows two are labelled:

    >>> X = np.r_[np.linspace(0, 2, 6), np.linspace(8, 9, 5)][:, None]
    >>> y = [0, -1, -1, -1, -1, -1, 1, -1, -1, -1, -1]
    >>> MixtureClassifier(random_state=0).fit(X, y).predict(X)
    array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """

    def __init__(
        self,
        n_components=None,
        *,
        spec=None,
        unlabeled=-1,
        method="em",
        n_init=4,
        max_iter=None,
        tol=None,
        handle_unknown="error",
        random_state=None,
        engine_params=None,
    ):
        super().__init__(
            n_components,
            spec=spec,
            method=method,
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            handle_unknown=handle_unknown,
            random_state=random_state,
            engine_params=engine_params,
        )
        self.unlabeled = unlabeled

    def fit(self, X, y, sample_weight=None):
        """Fit the classes' mixtures.

        Parameters
        ----------
        X : array, list or data frame, shape (n_samples, n_features)
        y : array_like, shape (n_samples,)
            Labels; see `unlabeled`.
        sample_weight : array_like, shape (n_samples,), optional
            Weight 2 is the same as the row twice.

        Returns
        -------
        self
        """
        if y is None:
            raise ValueError("MixtureClassifier requires y to be passed, but the target y is None.")
        table = self._read(X, reset=True)
        y = _checked_labels(y)
        check_consistent_length(table.columns[0].values, y)
        weights = _checked_weights(sample_weight, table.n_rows)
        codes = self._encode(y, np.ones(len(y), bool) if weights is None else weights > 0)
        component, wanted = self._component(table)
        if isinstance(self.spec, Mixture) and repr(self.spec) != repr(Mixture(component, self.spec.n_components)):
            raise SpecError(
                f"spec: each class has components of one spec and weights of its own, not {self.spec!r}. Give what one "
                "component is, with n_components."
            )
        self._layout = _Layout.of(table, component)
        rows = _Rows.of(self._layout.table(table, codes), weights)
        labels = rows.table.columns[0].values
        of_class = [np.flatnonzero(labels == c) for c in range(len(self.classes_))]
        possible = [rows.n_distinct(each) for each in of_class]
        fewest = int(np.argmin(possible))
        n = self.n_components_ = _reduced(wanted, possible[fewest], f"class {self.classes_[fewest]!r} has")
        keywords = self._keywords(self._random_seed())
        if "start" in inspect.signature(ENGINES[self.method]).parameters:
            keywords = {"start": self._start(rows, of_class, n, keywords["random_seed"]), **keywords}
        self._fit_spec(self._layout.joint(len(self.classes_), n), rows, keywords)
        self.class_prior_ = self.fit_.params["weights"].reshape(-1, n).sum(1)
        return self

    def _encode(self, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Number of each row's class, -1 where it is not known; sets ``classes_`` from the rows that count."""
        known = np.ones(len(y), bool)
        if self.unlabeled is not None:
            # numpy writes -1 beside texts as one of them
            mark = str(self.unlabeled) if y.dtype.kind == "U" else self.unlabeled
            known = np.array([label != mark for label in y.tolist()])
            if len(set(y[known & counts].tolist())) < 2:
                known[:] = True
        check_classification_targets(y[known])
        self.classes_ = np.unique(y[known & counts])
        if len(self.classes_) < 2:
            raise ValueError(f"MixtureClassifier needs at least 2 classes; y has 1 class: {self.classes_.tolist()}.")
        codes = np.full(len(y), -1)
        place = np.searchsorted(self.classes_, y[known]).clip(max=len(self.classes_) - 1)
        codes[known] = np.where(self.classes_[place] == y[known], place, -1)
        return codes

    def _start(self, rows: _Rows, of_class: list[np.ndarray], n: int, seed: Any) -> dict[str, np.ndarray]:
        """Parameters of each class from its own rows: EM by itself would have to guess which component is whose."""
        bound = bind(Mixture(Composite(self._layout.fields), n), rows.table)
        data = bound.encode(rows.table)
        weights = np.ones(rows.table.n_rows) if rows.weights is None else rows.weights
        known = {"n_starts": self.n_init, "max_iter": self.max_iter, "tol": self.tol}
        known = {name: value for name, value in known.items() if value is not None}
        found = []
        for which, each in zip(np.random.SeedSequence(seed).spawn(len(of_class)), of_class):
            best, _ = maximise(bound, data.take(each), weights[each], random_seed=which, explore=0.0, **known)
            found.append(best.params)
        shares = np.array([weights[each].sum() for each in of_class]) / sum(weights[each].sum() for each in of_class)
        start = {}
        for name, slot in bound.free_slots.items():
            parts = [share * p[name] if name == "weights" else p[name] for share, p in zip(shares, found)]
            own = name == "weights" or (slot.axes and slot.axes[0].name == "component")
            start[name] = np.concatenate(parts) if own else parts[0]  # what all components share is begun anywhere
        return start

    def _features(self, X: Any) -> Table:
        check_is_fitted(self)
        table = self._read(X, reset=False)
        return self._layout.table(table, np.full(table.n_rows, -1))

    def predict_proba(self, X):
        """Posterior probability of each class, shape (n_samples, n_classes)."""
        resp = self._asked(self._fitted().responsibilities, self._features(X))
        return resp.reshape(len(resp), len(self.classes_), self.n_components_).sum(2)

    def predict_log_proba(self, X):
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X):
        """Most probable class of each row, shape (n_samples,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def score_samples(self, X):
        """Log density of each row whatever its class, in nats, shape (n_samples,): low for rows unlike any class."""
        features = self._features(X)
        return self._asked(self.fit_.log_density, features)


def _checked_labels(y: Any) -> np.ndarray:
    """Labels as an array of shape (N,). Raises `ValueError` for missing and infinite ones."""
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    elif y.dtype == object and any(map(is_missing, y)):
        raise ValueError("Input y contains NaN. Rows without a label have the label `unlabeled`.")
    return y


@dataclass(frozen=True)
class _Layout:
    """How a component's spec and the class become one record.

    Attributes
    ----------
    label : str
        Name of the field of the class.
    fields : dict
        Name -> node. A spec that is no record is one field.
    vectors : bool
        Whether that one field holds whole rows, as vectors.
    """

    label: str
    fields: dict[str, Node]
    vectors: bool

    @classmethod
    def of(cls, table: Table, component: Node) -> _Layout:
        names = table.names
        vectors = False
        if isinstance(component, Composite):
            parts = component.parts
            if component.positional and len(parts) != len(names):
                raise SpecError(f"{len(names)} columns for {len(parts)} fields. Give each column a field.")
            fields = {(names[i] if component.positional else name): node for i, (name, node) in enumerate(parts)}
        else:
            vectors = len(names) > 1
            fields = {_free_name("features", names) if vectors else names[0]: component}
        return cls(_free_name("class", (*names, *fields)), fields, vectors)

    def table(self, table: Table, codes: np.ndarray) -> Table:
        """The rows with their classes in front."""
        label = Column(self.label, codes.astype(float), codes < 0, "number")
        columns = table.columns
        if self.vectors:
            cells = np.empty(table.n_rows, object)
            values = np.column_stack([np.where(c.missing, np.nan, c.values.astype(float)) for c in columns])
            cells[:] = values.tolist()
            columns = (Column(next(iter(self.fields)), cells, np.isnan(values).all(1), "object"),)
        return replace(table, columns=(label, *columns), native=None)

    def joint(self, n_classes: int, n_components: int) -> Mixture:
        """One mixture of all classes' components, each of which knows its class."""
        which = np.repeat(np.eye(n_classes), n_components, axis=0)
        label = Categorical(p=which, levels=tuple(range(n_classes)))
        return Mixture(Composite({self.label: label, **self.fields}), n_classes * n_components)


def _free_name(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name += "_"
    return name


# ---------------------------------------------------------------- the imputer


class MixtureImputer(TransformerMixin, _MixtureEstimator):
    """Missing cells filled with what a mixture expects there, given everything that is observed in their rows.

    Numbers get the mean of their conditional distribution, counts the nearest whole number to it, symbols and truth
    values the most probable one. Observed cells stay as they are.

    Parameters
    ----------
    n_components : int, optional
        K; by default that of `spec` where it is a mixture, and 2. Where X has fewer distinct rows there are as many
        components as these, and a `ConvergenceWarning`.
    spec : Node or "infer", optional
        See `MixtureClusterer`.
    sample_posterior : bool
        Draw the cells from their posterior instead, for multiple imputation: each `random_state` gives another
        completed table, and with None each call of `transform`.
    add_indicator : bool
        Append a column of truth values for each column that had missing cells in `fit`.
    keep_empty_features : bool
        Keep columns that had no value at all in `fit`, with zeros (symbols and truth values: the missing cells) in the
        place of their missing cells, instead of leaving them out.
    method, n_init, max_iter, tol, handle_unknown, random_state, engine_params
        See `MixtureClusterer`. With ``method="nuts"`` means are over the posterior.

    Attributes
    ----------
    fit_ : Fit
        The fit; ``fit_.impute()`` gives draws and intervals of each cell.
    ``converged_, n_iter_, n_features_in_, feature_names_in_``
        See `MixtureClusterer`.

    See Also
    --------
    sklearn.impute.IterativeImputer : chained regressions, for numbers.

    References
    ----------
    Little and Rubin 2019, *Statistical Analysis with Missing Data*, 3rd ed., chapters 11 and 14.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesmix.sklearn import MixtureImputer
    >>> x = np.linspace(0, 10, 40)
    >>> X = np.column_stack([x, 2 * x + np.sin(7 * x)])
    >>> X[20, 1] = np.nan
    >>> MixtureImputer(1).fit_transform(X)[20].round(0)
    array([ 5., 10.])
    """

    _default_components = 2

    def __init__(
        self,
        n_components=None,
        *,
        spec=None,
        sample_posterior=False,
        add_indicator=False,
        keep_empty_features=False,
        method="em",
        n_init=4,
        max_iter=None,
        tol=None,
        handle_unknown="error",
        random_state=None,
        engine_params=None,
    ):
        super().__init__(
            n_components,
            spec=spec,
            method=method,
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            handle_unknown=handle_unknown,
            random_state=random_state,
            engine_params=engine_params,
        )
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features

    def fit(self, X, y=None, sample_weight=None):
        """Fit the mixture.

        Parameters
        ----------
        X : array, list or data frame, shape (n_samples, n_features)
        y : ignored
        sample_weight : array_like, shape (n_samples,), optional
            Weight 2 is the same as the row twice.

        Returns
        -------
        self
        """
        table = self._read(X, reset=True)
        rows = _Rows.of(table, sample_weight)
        self._empty = np.array([column.missing.all() for column in table.columns])
        self._lacking = np.array([column.missing.any() for column in table.columns])
        self._fit_spec(self._mixture(rows), rows, self._keywords(self._random_seed()))
        return self

    def transform(self, X):
        """Fill the missing cells.

        Parameters
        ----------
        X : array, list or data frame, shape (n_samples, n_features)

        Returns
        -------
        ndarray or data frame, shape (n_samples, n_features_out)
            An array, of objects where some columns are not numbers; with ``set_output(transform="pandas")`` or
            ``"polars"`` a frame, whose columns keep their types.
        """
        fit = self._fitted()
        table = self._read(X, reset=False)
        encoded = self._asked(fit.bound.encode, table)
        rng = np.random.default_rng(self._random_seed())
        draws = fit._draws(None)
        if self.sample_posterior:
            draws = [draws[rng.integers(len(draws))]]
        elif not _has_means(fit.bound):
            draws = fit._repeated(_DRAWS)
        found = impute(fit.bound, draws, table, encoded, rng)
        columns = [_Filled(column) for column in table.columns]
        for field in found.rows:
            for position, rows, values in _fills(found, field, None if self.sample_posterior else fit.bound):
                columns[position].fill(rows, values, found.kinds[field])
        for column in (each for each, empty in zip(columns, self._empty) if empty and each.kind == "number"):
            column.fill(np.flatnonzero(column.missing), np.zeros(int(column.missing.sum())), "real")
        kept = [i for i in range(len(columns)) if self.keep_empty_features or not self._empty[i]]
        indicators = [table.columns[i].missing for i in np.flatnonzero(self._lacking)] if self.add_indicator else []
        return self._output(X, table, columns, kept, indicators)

    def _output(self, X: Any, table: Table, columns: list[_Filled], kept: list[int], indicators: list) -> Any:
        dense = _get_output_config("transform", self)["dense"]
        if dense == "default":
            every = [*(columns[i].values for i in kept), *indicators]
            numbers = all(columns[i].kind == "number" for i in kept)
            if numbers:
                out = np.column_stack([each.astype(float) for each in every])
                return out.astype(X.dtype) if getattr(X, "dtype", None) == np.float32 else out
            objects = np.empty((table.n_rows, len(every)), object)
            for j, each in enumerate(every):
                objects[:, j] = each.tolist()
            return objects
        frame = self._frame(X, table, columns, kept, dense)
        for name, mask in zip(self.get_feature_names_out()[len(kept) :], indicators):
            if isinstance(frame, pd.DataFrame):
                frame[name] = mask
            else:
                new = nw.new_series(name, mask.tolist(), nw.Boolean(), backend=nw.from_native(frame).implementation)
                frame = nw.from_native(frame).with_columns(new).to_native()
        return frame

    def _frame(self, X: Any, table: Table, columns: list[_Filled], kept: list[int], dense: str) -> Any:
        """The kept columns as a frame of the library `dense`; of the caller's own frame with only the cells changed."""
        if table.backend == dense:
            frame = table.native
            for position in kept:
                rows = columns[position].filled_rows
                if len(rows):
                    values = columns[position].values[rows]
                    frame = _with_cells(frame, position, rows, values, columns[position].filled_kind, [], None)
            if dense == "pandas":
                return frame.iloc[:, kept].copy()
            names = nw.from_native(frame).columns
            return nw.from_native(frame).select([names[i] for i in kept]).to_native()
        names = self.get_feature_names_out()
        cells = {names[j]: columns[i].values for j, i in enumerate(kept)}
        return pd.DataFrame(cells, index=table.index) if dense == "pandas" else as_frame(cells, dense)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of what `transform` returns.

        Parameters
        ----------
        input_features : array_like of str, optional
            Names of the columns of X, where it had none.

        Returns
        -------
        ndarray of str
            The kept columns, and ``missingindicator_`` before those of the indicators.
        """
        check_is_fitted(self)
        names = np.asarray(_check_feature_names_in(self, input_features), object)
        kept = names if self.keep_empty_features else names[~self._empty]
        if not self.add_indicator:
            return kept
        return np.concatenate([kept, [f"missingindicator_{name}" for name in names[self._lacking]]]).astype(object)


class _Filled:
    """A column on its way: its values, and which of its missing cells were filled with what."""

    def __init__(self, column: Column):
        self.kind, self.missing = column.kind, column.missing
        self.values = column.values
        if column.missing.any():
            kinds = {"number": (float, np.nan), "bool": (object, None), "object": (object, None)}
            dtype, gone = kinds[column.kind]
            self.values = column.values.astype(dtype)
            self.values[column.missing] = gone
        self.filled_rows = np.empty(0, int)
        self.filled_kind = "real"

    def fill(self, rows: np.ndarray, values: np.ndarray, kind: str) -> None:
        own = self.missing[rows]  # unknown symbols are drawn too, and are not missing
        rows, values = rows[own], values[own]
        if self.kind == "number" and values.dtype.kind not in "fiub":  # a column without any cell is one of numbers
            self.kind, self.values = "object", self.values.astype(object)
            self.values[self.missing] = None
        if self.values.dtype == object:
            for row, value in zip(rows, values.tolist()):
                self.values[row] = bool(value) if self.kind == "bool" else value
        else:
            self.values[rows] = values
        if self.kind == "bool" and not any(value is None for value in self.values):
            self.values = self.values.astype(bool)
        self.filled_rows, self.filled_kind = np.union1d(self.filled_rows, rows), kind


def _has_means(bound: Bound) -> bool:
    return all(site.node.value_kind in ("real", "count", "truth", "symbol") for site in bound.site.leaves())


def _fills(found: Imputation, field: str, bound: Bound | None) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Position, rows and values of each column that a field reads: of the first draw, or the centre (with `bound`)."""
    rows, positions, lacking = found.rows[field], found.columns[field], found.coordinates.get(field)
    first = found.source.columns[positions[0]]
    within = len(positions) == 1 and (field != first.name or (lacking is not None and first.kind == "object"))
    if within:
        raise SpecError(f"{field}: parts of records, sequences and vectors are not imputed here. Use fit_.impute().")
    values = found.draws[field][0] if bound is None else _centre(found, field, bound)
    if values.ndim == 1:
        return [(positions[0], rows, values)]
    every = np.ones(values.shape, bool) if lacking is None else lacking
    return [(position, rows[own], values[own, d]) for d, (position, own) in enumerate(zip(positions, every.T))]


def _centre(found: Imputation, field: str, bound: Bound) -> np.ndarray:
    """What the missing cells of a field are expected to be."""
    kind, means = found.kinds[field], found.means.get(field)
    if means is None or kind not in ("real", "count", "truth", "symbol"):
        return found._centre(field)
    if kind == "symbol":
        site = next(
            site for site in bound.site.leaves() if site.place.path in (field, "") and site.node.value_kind == kind
        )
        return site.node.decode(means.argmax(1), site.learned)
    return means if kind == "real" else np.rint(means).astype(np.int64)
