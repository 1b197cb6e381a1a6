"""Random spec trees and tables: what every fit keeps to, whatever the tree.

``make check`` runs 300 cases, ``make fuzz`` 10,000. A test is a portion of the cases, made from the portion's number
alone; a failure is run again with ``BAYESMIX_FUZZ=… pytest tests/fuzz -k "portion7-"`` (and the same
``BAYESMIX_FUZZ_FIRST``, the number of the first portion, where one was given).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
from bayesmix.bound import bind
from bayesmix.build import model_of, variables_at
from bayesmix.chunked import ChunkedEStep, learn
from bayesmix.data import read
from bayesmix.inference.start import initial_params
from bayesmix.inference.target import Target
from bayesmix.io import node_from_json, node_to_json
from bayesmix.plan import EStep
from bayesmix.sources import source_of
from bayesmix.spec import add_stats
from bayesmix.symmetry import permuted
from tests.fuzz import strategies

CASES = int(os.environ.get("BAYESMIX_FUZZ", "300"))
FIRST = int(os.environ.get("BAYESMIX_FUZZ_FIRST", "0"))
#: Cases of a portion.
PORTION = 50
#: A PyMC model takes a second or two: one case in so many.
MODELS = 25
N_PORTIONS = -(-CASES // PORTION)


def portions(per_case=1, first_of_few=N_PORTIONS):
    """A test of one case over all portions, or of 300 cases some; ``portion7-`` is made from the number 7."""

    def decorate(test):
        numbers = range(FIRST, FIRST + (N_PORTIONS if CASES > 300 else min(first_of_few, N_PORTIONS)))

        @pytest.mark.parametrize("portion", [pytest.param(n, id=f"portion{n}-") for n in numbers])
        def run(portion):
            size = min(PORTION, CASES - (portion - FIRST) * PORTION)

            @hypothesis.settings(
                max_examples=max(size // per_case, 1),
                deadline=None,
                database=None,
                print_blob=False,
                report_multiple_bugs=False,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.seed(portion)
            @hypothesis.given(case=strategies.cases())
            def property_(case):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", bm.BayesmixWarning)
                    test(case)

            property_()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def deserved(case, error: ValueError) -> None:
    """Raise the error again unless the case deserves it."""
    if re.search("collapsed onto a point|left its support", str(error)) and strategies.COLLAPSING.search(
        repr(case.spec)
    ):
        return
    faults = error.faults if isinstance(error, (bm.DataError, bm.SpecError)) else []
    if not faults or not all(strategies.DESERVED.search(fault) for fault in faults):
        raise error


@portions()
def test_every_fit(case):
    """Fit, and look at everything that can be done with a fit; then the laws."""
    try:
        fit = bm.fit_em(case.spec, case.table(), n_starts=2, max_iter=12, row_weights=case.weights, random_seed=1)
    except ValueError as error:
        return deserved(case, error)
    check_mode(case, fit)
    check_rows(case, fit)
    check_draws(case, fit)
    check_json(case, fit)
    check_kernel(case, fit)
    check_labels(case, fit)
    check_order_and_chunks(case, fit)
    check_weights(case, fit)
    laws = [check_one_component, check_new_names, check_new_symbols, check_new_origin, check_file, check_distribution]
    laws[case.seed % len(laws)](case, fit)


@portions(MODELS, first_of_few=2)
def test_every_model(case):
    """The PyMC model's log density, fused and in PyMC's own densities, is ours; gradients are its differences."""
    try:
        bound = bind(case.spec, read(case.table()))
        data = bound.encode(case.table())
        weights = np.ones(data.n_rows) if case.weights is None else case.weights
        rng = np.random.default_rng(case.seed)
        params = start_of(bound, data, weights, rng)
        if not bound.sampled_slots or not all(np.isfinite(value).all() for value in params.values()):
            return None
        targets = [
            Target(model_of(bound, data, row_weights=case.weights, initval=None, likelihood=kind),
                   variables_at(bound, params), jacobian=False)
            for kind in ("graph", "fused")
        ]  # fmt: skip
    except ValueError as error:
        if "too many to sum over" in str(error):
            return None
        return deserved(case, error)
    graph, fused = targets
    step, begun = 0.3 * rng.normal(size=graph.start.shape), graph(graph.start)[0]
    while np.isfinite(begun) and np.abs(graph(graph.start + step)[0] - begun) > 1e5:
        step /= 4  # millions of sds away, all digits are lost to squares
    u = graph.start + step
    (value, gradient), (own, own_gradient) = graph(u), fused(u)
    close(own, value, "the fused likelihood is not the graph's")
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    size = np.abs(gradient).max(initial=1.0)
    np.testing.assert_allclose(own_gradient, gradient, rtol=1e-7, atol=1e-8 * size)
    if not bound.discrete_slots:
        here = bound.with_fixed(graph.constrained(u))
        close(bound.log_prior(here) + weights @ bound.log_density(here, data), value, "our log density is not PyMC's")
    direction = rng.normal(size=u.shape)
    off = []
    for h in 10.0 ** -np.arange(3, 13):  # sds may be 1e-8: a step that is short for all is not known beforehand
        slope = (graph(u + h * direction)[0] - graph(u - h * direction)[0]) / (2 * h)
        # digits of the sum, and of the distance between a location and rows that are far from 0
        rounding = (1e-14 * np.abs(value) + 2e-16 * size * np.abs(u).max(initial=0.0)) / h
        if h == 1e-5 or rounding < 1e-2 * size:
            off.append(np.abs(direction @ gradient - slope) / (1e-4 * size + rounding))
    assert min(off) < 1, "the gradient is not the difference quotient's"
    return None


# ------------------------------------------------------------------- what is compared


@portions()
def test_every_table_in_parts(case):
    """A table that is read in parts binds the spec as the whole does, and its E-step is the same."""
    whole, found, parts = [], [], [part for part in np.split(np.arange(case.n_rows), cuts_of(case)) if len(part)]
    for learn_it, into in ((lambda: bound_to(case.spec, case.table()), whole),
                           (lambda: in_parts(case, parts), found)):  # fmt: skip
        try:
            into.append(learn_it())
        except ValueError as error:
            into.append(error)
    if isinstance(whole[0], ValueError):
        assert isinstance(found[0], type(whole[0])), found
        return deserved(case, whole[0])
    if isinstance(found[0], ValueError):  # more components than rows is found by what `bind` leaves to others
        return deserved(case, found[0])
    (bound, data), e_step = whole[0], found[0]
    close_learned(e_step.bound.learned, bound.learned)
    weights = weights_of(case)
    params = start_of(bound, data, weights, np.random.default_rng(case.seed))
    expected, stats = EStep(bound, data, weights)(params)
    for _ in range(2):  # once read, once kept
        loglik, own = e_step(params)
        if np.isfinite(expected):
            rows = bound.log_density(params, data)  # -inf where flat priors leave a symbol no probability
            size = np.abs(rows[np.isfinite(rows)]).sum() * weights.max()
            close(loglik, expected, "log-likelihood", atol=1e-11 * size)
        check_statistics(own, stats, 0.0)


def start_of(bound, data, weights, rng):
    """A start as engines make it: where flat priors and no rows leave nothing to go by it is not finite."""
    with np.errstate(all="ignore"):
        return initial_params(bound, data, weights, rng, 0)


def cuts_of(case):
    return np.sort(np.random.default_rng(case.seed).integers(0, case.n_rows + 1, 3))


def in_parts(case, parts):
    return ChunkedEStep(learn(case.spec, source_of(lambda: [case.table(part) for part in parts]), case.weights))


def close_learned(found, expected):
    """What nodes learned is equal, but for the rounding of sums."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert type(found[key]) is type(value)
        for name, own in vars(value).items():
            other = getattr(found[key], name)
            if isinstance(own, float) or (isinstance(own, tuple) and own and isinstance(own[0], float)):
                close(other, own, f"{key}: {name}", rtol=1e-12)
            else:
                assert other == own, f"{key}: {name}"


def close(a, b, message="", rtol=1e-8, atol=0.0):
    """Equal but for rounding of sums of terms as large as the largest."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    size = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0.0))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size + atol, err_msg=message)


def weights_of(case):
    return np.ones(case.n_rows) if case.weights is None else case.weights


def weighed(case, density):
    """Sum over the rows of positive weight; under flat priors another may have a symbol of probability zero."""
    weights = weights_of(case)
    return weights[weights > 0] @ density[weights > 0]


def objective(case, bound, params, data):
    return bound.log_prior(params) + weighed(case, bound.log_density(params, data))


def rounding(fit):
    """Nats that the kernel loses: its densities are differences of terms about the column's reference point."""
    lost = 0.0
    for site, data in fit.bound.site.walk_with(fit.encoded):
        if isinstance(site.node, bm.Poisson):
            lost += np.abs(data.arrays["value"] - site.learned.mean).sum()
        if not isinstance(site.node, (bm.Normal, bm.LogNormal, bm.MvNormal)) or not len(data.arrays["value"]):
            continue
        values = site.values(fit.params)
        center = np.broadcast_to(site.learned.center, np.shape(site.learned.scale))
        value = np.log(data.arrays["value"]) if isinstance(site.node, bm.LogNormal) else data.arrays["value"]
        spread = values["sigma"] if "sigma" in values else np.sqrt(np.linalg.eigvalsh(values["cov"]).min(-1))
        reach = max(np.nanmax(np.abs(value - center), initial=0.0), np.abs(values["mu"] - center).max())
        lost += data.n_rows * (reach / spread.min()) ** 2
    return 1e-15 * lost * (fit.row_weights.max() if fit.row_weights is not None else 1.0)


def bound_to(spec, table):
    bound = bind(spec, read(table))
    return bound, bound.encode(table)


# ------------------------------------------------------------------- one fit


def check_mode(case, fit):
    """Finite, inside the supports, and never lower than before."""
    for name, slot in fit.bound.slots.items():
        value = fit.params[name]
        assert value.shape == slot.shape
        assert np.isfinite(value).all(), name
        assert slot.support.contains(value), f"{name} = {value} is not {slot.support.name}"
    history = np.append(fit.history, objective(case, fit.bound, fit.params, fit.encoded))
    assert np.isfinite(history).all()
    allowed = 1e-9 * np.maximum(1.0, np.abs(history[:-1])) + rounding(fit)
    assert (np.diff(history) >= -allowed).all(), "the objective fell"
    close(fit.loglik, weighed(case, fit.log_density()), "log-likelihood", atol=rounding(fit))
    values = fit.summary()
    assert values.notna().all(axis=None)


def check_rows(case, fit):
    """One value for each row, in their order."""
    density = fit.log_density()
    assert density.shape == (case.n_rows,)
    counted = weights_of(case) > 0
    assert np.isfinite(density[counted]).all()
    assert not np.isnan(density).any()
    close(fit.log_density(case.table()), density)
    rows = fit.idata["log_likelihood"]["row_loglik"]
    close(rows.values[0, 0][counted], density[counted], "stored log-likelihood", atol=rounding(fit))
    if case.form == "pandas":
        np.testing.assert_array_equal(rows["row"].values, case.index)
    if not fit.bound.is_mixture:
        with pytest.raises(bm.SpecError, match="no components"):
            fit.predict()
        return
    resp = fit.responsibilities()
    assert resp.shape == (case.n_rows, fit.spec.n_components)
    assert (resp >= 0).all()
    np.testing.assert_allclose(resp.sum(1), np.isfinite(density), rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(case.table()), resp.argmax(1))
    rows = np.random.default_rng(case.seed).permutation(case.n_rows)[: max(1, case.n_rows // 2)]
    close(fit.responsibilities(case.table(rows)), resp[rows])
    labels = fit.sample_labels(n_draws=2, random_seed=1)["label"].values
    assert labels.shape == (2, case.n_rows)
    assert (np.take_along_axis(resp, labels.T, 1) > 0)[np.isfinite(density)].all()


def nodes(node):
    yield node
    for _, part in node.parts:
        yield from nodes(part)


def has_different_supports(spec):
    """Whether a list has counts that begin or end at different numbers: what one draws another may refuse."""
    whole = (bm.Poisson, bm.Geometric, bm.SpikeAndSlab)
    listed = [[type(part) for _, part in node.parts if isinstance(part, whole)] for node in nodes(spec)
              if isinstance(node, bm.Mixture)]  # fmt: skip
    return any(len(set(kinds)) > 1 for kinds in listed)


def check_draws(case, fit):
    """What is drawn has positive density; what is imputed fills the gaps and leaves the rest."""
    drawn = fit.sample(7, random_seed=1)
    assert len(drawn) == 7
    differ = has_different_supports(case.spec)
    if not differ:
        assert np.isfinite(fit.log_density(drawn)).all()
    imputed = fit.impute(n_draws=3, random_seed=1)
    for values in imputed.draws.values():
        assert values.dtype == object or np.isfinite(values.astype(float)).all()
    for values in imputed.means.values():
        assert np.isfinite(values).all()
    imputed.summary()
    for draw in (None, 1):
        table = imputed.table(draw)
        assert len(table) == case.n_rows
        if case.form == "pandas":
            np.testing.assert_array_equal(table.index, case.index)
        before = list(case.columns.values())
        after = [table.iloc[:, j].tolist() for j in range(table.shape[1])]
        for old, new in zip(before, after, strict=True):
            for cell, filled in zip(old, new, strict=True):
                if is_whole(cell):
                    assert plain(filled) == plain(cell)
        if differ:
            continue
        encoded = fit.bound.encode(table)
        if any(name.endswith("p_missing") and (value == 1).any() for name, value in fit.params.items()):
            continue  # under a flat prior, of a field without any cell: none that is filled in can be
        assert np.isfinite(fit.bound.log_density(fit.params, encoded))[np.isfinite(fit.log_density())].all()
        unseen = any(getattr(site.learned, "levels", None) == (None,) for site in fit.bound.site.walk())
        if not unseen and not any(isinstance(node, bm.Optional) for node in nodes(case.spec)):
            assert not any(len(gap.rows) for gap in fit.bound.site.gaps(encoded)), "a gap is left"


def is_whole(cell):
    if isinstance(cell, (list, tuple)):
        return all(map(is_whole, cell))
    return all(map(is_whole, cell.values())) if isinstance(cell, dict) else cell is not None


def plain(cell):
    """A cell as nested tuples, so that sequences of any kind compare; numbers as floats."""
    if isinstance(cell, dict):
        return {name: plain(value) for name, value in cell.items()}
    if isinstance(cell, (list, tuple, np.ndarray)):
        return tuple(map(plain, cell))
    return float(cell) if isinstance(cell, (int, float)) else cell


def check_json(case, fit):
    spec = node_from_json(json.loads(json.dumps(node_to_json(case.spec))))
    assert repr(spec) == repr(case.spec)


def check_file(case, fit):
    """A saved fit says the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.zip"
        fit.save(path)
        again = bm.load(path)
    assert repr(again.spec) == repr(fit.spec)
    assert again.status == fit.status
    for name, value in fit.params.items():
        np.testing.assert_array_equal(again.params[name], value, err_msg=name)
    np.testing.assert_array_equal(again.log_density(case.table()), fit.log_density(case.table()))
    pd.testing.assert_frame_equal(again.sample(3, random_seed=1), fit.sample(3, random_seed=1))


def check_distribution(case, fit):
    """The fitted spec, with all its numbers, is a distribution of its own."""
    close(bm.log_density(fit.to_spec(), case.table()), fit.log_density())


# ------------------------------------------------------------------- laws


def check_kernel(case, fit):
    """The kernel's rows and statistics are those of the walks."""
    weights = weights_of(case)
    e_step = EStep(fit.bound, fit.encoded, weights)
    walked = fit.bound.log_density(fit.params, fit.encoded)
    some, lost = np.isfinite(walked), rounding(fit)
    close(e_step.rows(fit.params)[some], walked[some], "rows of the kernel", atol=lost)
    (loglik, stats), (own, others) = e_step(fit.params), fit.bound.e_step(fit.params, fit.encoded, weights)
    close(loglik, own, "log-likelihood of the kernel", atol=lost)
    check_statistics(stats, others, lost)


def check_statistics(stats, others, lost):
    """Errors of log densities are relative errors of responsibilities."""
    assert stats.keys() >= others.keys()
    for key, named in others.items():
        # deviations from a common point cancel: the root of their squares says how large they are
        largest = np.sqrt(np.max(named["second"], initial=0.0)) if {"first", "second"} <= named.keys() else 0.0
        for name, value in named.items():
            rtol = 1e-8 + lost
            close(stats[key][name], value, f"statistics of {key}: {name}", rtol, rtol * largest * (name == "first"))


def check_labels(case, fit):
    """Components that are alike may change places."""
    rng = np.random.default_rng(case.seed)
    bound, before = fit.bound, fit.bound.log_density(fit.params, fit.encoded)
    for symmetry in bound.symmetries:
        order = rng.permuted(np.broadcast_to(symmetry.identity, symmetry.shape), axis=-1)
        if not symmetry.allows(order):
            continue
        params = {**fit.params, **permuted(bound, symmetry, fit.params, order)}
        close(bound.log_density(params, fit.encoded), before, f"{symmetry.name} in another order")
        close(bound.log_prior(params), bound.log_prior(fit.params), f"prior of {symmetry.name} in another order")
        if symmetry.site is bound.site and len(order) == bound.spec.n_components:
            resp = bound.responsibilities(params, fit.encoded)
            close(resp, fit.responsibilities()[:, order], "responsibilities in another order")


def check_order_and_chunks(case, fit):
    """Rows in another order have their densities in that order; statistics of parts add up."""
    rng = np.random.default_rng(case.seed)
    rows = rng.permutation(case.n_rows)
    bound, data = bound_to(case.spec, case.table(rows))
    before = fit.bound.log_density(fit.params, fit.encoded)
    close(bound.log_density(fit.params, data), before[rows], "rows in another order")
    close(bound.log_prior(fit.params), fit.bound.log_prior(fit.params), "default priors after another order")
    parts = [part for part in np.array_split(rows, 3) if len(part)]
    weights = weights_of(case)
    together = None
    for part in parts:
        encoded = fit.bound.encode(case.table(part))
        close(fit.bound.log_density(fit.params, encoded), before[part], "rows by themselves")
        _, stats = EStep(fit.bound, encoded, weights[part])(fit.params)
        together = stats if together is None else add_stats(together, stats)
    check_statistics(together, fit.bound.e_step(fit.params, fit.encoded, weights)[1], rounding(fit))


def check_weights(case, fit):
    """A row of weight two is the row twice, and one of weight 0 is none; under one prior."""
    rng = np.random.default_rng(case.seed)
    times = rng.integers(0, 3, case.n_rows) * np.isfinite(fit.log_density())
    if not times.any():
        return
    loglik, stats = EStep(fit.bound, fit.encoded, times.astype(float))(fit.params)
    repeated = fit.encoded.take(np.repeat(np.arange(case.n_rows), times))
    own, others = EStep(fit.bound, repeated, np.ones(times.sum()))(fit.params)
    close(loglik, own, "weighted rows", atol=rounding(fit))
    check_statistics(stats, others, rounding(fit))
    with np.errstate(divide="ignore", invalid="ignore"):  # as EM: no row and a flat prior leave a parameter undefined
        a, b = (fit.bound.m_step(each, fit.params) for each in (stats, others))
    for name, slot in fit.bound.slots.items():
        if not slot.discrete:
            close(a[name], b[name], f"M-step of weighted rows: {name}", rtol=1e-6)


def check_one_component(case, fit):
    """A mixture of one is its component."""
    bound, data = bound_to(bm.Mixture(case.spec, 1), case.table())
    own, *slots = bound.slots.values()
    params = {own.name: np.ones(1)}
    for slot, (_, value) in zip(slots, ((n, fit.params[n]) for n in fit.bound.slots), strict=True):
        params[slot.name] = value.reshape(slot.shape)
    close(bound.log_density(params, data), fit.bound.log_density(fit.params, fit.encoded), "a mixture of one")
    close(bound.log_prior(params), fit.bound.log_prior(fit.params), "prior of a mixture of one")


def _renamed_fields(node, names):
    if isinstance(node, bm.Composite):
        return node._changed(_fields={names.get(name, name): part for name, part in node.parts})
    parts = tuple(_renamed_fields(part, names) for _, part in node.parts)
    return node.with_priors(node.priors, parts)


def check_new_names(case, fit):
    """Other names of the columns change the names of the parameters, and nothing else."""
    if not case.record:
        return
    names = {name: f"the {name}!" for name in case.columns}
    columns = {names[name]: cells for name, cells in case.columns.items()}
    again = bm.fit_em(
        _renamed_fields(case.spec, names), columns, n_starts=2, max_iter=12, row_weights=case.weights, random_seed=1
    )
    np.testing.assert_array_equal(again.history, fit.history)
    for name, other in zip(fit.bound.slots, again.bound.slots, strict=True):
        np.testing.assert_array_equal(again.params[other], fit.params[name], err_msg=name)


def check_new_symbols(case, fit):
    """Other symbols, in another order, move the entries of their probabilities, and change nothing else."""
    levels = [level for leaf in fit.bound.site.walk() for level in getattr(leaf.learned, "levels", ())]
    if not levels or any(getattr(node, "levels", None) is not None for node in nodes(case.spec)):
        return
    symbols = {level for level in levels if isinstance(level, str)}
    new = {old: f"z{len(symbols) - i:03d}" for i, old in enumerate(sorted(symbols))}
    columns = {name: [_translated(cell, new) for cell in cells] for name, cells in case.columns.items()}
    bound, data = bound_to(case.spec, columns)
    params = {}
    for name, slot in fit.bound.slots.items():
        value = fit.params[name]
        for axis, (old, dim) in enumerate(zip(slot.event, bound.slots[name].event), len(slot.axes)):
            place = {new.get(label, label): i for i, label in enumerate(old.labels)}
            value = value.take([place[label] for label in dim.labels], axis)
        params[name] = value
    close(bound.log_density(params, data), fit.bound.log_density(fit.params, fit.encoded), "other symbols")
    close(bound.log_prior(params), fit.bound.log_prior(fit.params), "prior of other symbols")


def _translated(cell, new):
    if isinstance(cell, dict):
        return {name: _translated(value, new) for name, value in cell.items()}
    if isinstance(cell, (list, tuple, frozenset)):
        return type(cell)(_translated(value, new) for value in cell)
    return new.get(cell, cell) if isinstance(cell, str) else cell


def check_new_origin(case, fit):
    """A constant added to a column of a lone Normal moves its means by as much, and nothing else."""
    sites = [
        site
        for site in fit.bound.site.leaves()
        if isinstance(site.node, bm.Normal) and site.place.path in case.columns and site.node.priors["mu"] is None
    ]
    columns, params = dict(case.columns), dict(fit.params)
    for path in {site.place.path for site in sites}:
        readers = [site for site in fit.bound.site.walk() if site.place.path == path and site.is_leaf]
        if any(site not in sites or site.node.tie for site in readers):
            return
        shift = 3 * readers[0].learned.scale
        cells = case.columns[path]
        if any(isinstance(cell, (list, tuple)) for cell in cells) or len(set(cells) - {None}) < 2:
            return  # the scale of a constant column is the size of its value
        columns[path] = [None if cell is None else cell + shift for cell in cells]
        for slot in {site.slots["mu"].name: site.slots["mu"] for site in readers}.values():
            params[slot.name] = fit.params[slot.name] + shift
    bound, data = bound_to(case.spec, columns)
    # the shifted cells are rounded, relative to their scale, as the offset is large
    far = max((abs(site.learned.center) / site.learned.scale for site in sites), default=0.0)
    rtol = 1e-8 + 1e-15 * far * 100
    close(bound.log_density(params, data), fit.bound.log_density(fit.params, fit.encoded), "another origin", rtol)
    close(bound.log_prior(params), fit.bound.log_prior(fit.params), "prior at another origin", rtol)
