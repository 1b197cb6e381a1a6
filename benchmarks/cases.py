"""Data and parameters of every comparison: made here once, and given to all libraries in the same file.

A case is a dict of arrays and lists. Parameters are those from which an iteration is timed: near the ones that the
data were drawn at, moved a little, so that no library stands at a fixed point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Case = dict[str, Any]


def normals(n_rows: int, n_components: int) -> Case:
    """Univariate normals three standard deviations apart."""
    rng = np.random.default_rng(20)
    mu = 3.0 * np.arange(n_components) - 1.5 * (n_components - 1)
    sigma = 1 + 0.2 * np.cos(np.arange(n_components))
    z = rng.integers(n_components, size=n_rows)
    start = {"weights": np.full(n_components, 1 / n_components), "mu": mu + 0.3, "sigma": sigma * 1.1}
    return {"kind": "normal", "x": rng.normal(mu[z], sigma[z]), "start": start}


def vectors(n_rows: int, dimension: int, n_components: int) -> Case:
    """Multivariate normals with full covariances."""
    rng = np.random.default_rng(21)
    mu = rng.normal(0, 3, (n_components, dimension))
    factor = rng.normal(size=(n_components, dimension, dimension)) / np.sqrt(dimension)
    cov = factor @ factor.transpose(0, 2, 1) + np.eye(dimension)
    z = rng.integers(n_components, size=n_rows)
    noise = rng.standard_normal((n_rows, dimension))
    x = mu[z] + np.einsum("nij,nj->ni", np.linalg.cholesky(cov)[z], noise)
    start = {"weights": np.full(n_components, 1 / n_components), "mu": mu + 0.1, "cov": cov * 1.2}
    return {"kind": "mvnormal", "x": x, "start": start}


def composite(n_rows: int) -> Case:
    """Four fields: a mixture of two normals, an optional count, a chain of two symbols, a set of four."""
    rng = np.random.default_rng(22)
    weights = np.array([0.4, 0.3, 0.3])
    centres = np.array([[-10.0, 0], [10, 5], [0, 5]])
    missing, p = np.array([0.1, 0.2, 0.01]), np.array([0.1, 0.2, 0.9])
    first = np.array([0.5, 0.5, 0.2])  # of "b"
    stay = np.array([[0.2, 0.2], [0.8, 0.8], [0.5, 0.8]])
    sets = np.array([[0.1, 0.3, 0.7, 0.9], [0.9, 0.8, 0.1, 0.1], [0.5, 0.5, 0.5, 0.8]])
    z = rng.choice(3, n_rows, p=weights)
    x1 = rng.normal(centres[z, rng.integers(2, size=n_rows)], 1)
    x2 = [None if gone else int(v) for gone, v in zip(rng.random(n_rows) < missing[z], rng.geometric(p[z]))]
    x3, x4 = [], []
    for k, length in zip(z, rng.poisson(8, n_rows)):
        chain: list[int] = []
        for u in rng.random(length):
            chain.append(int(u < first[k]) if not chain else int((u < stay[k, chain[-1]]) == chain[-1]))
        x3.append(["ab"[s] for s in chain])
        x4.append([name for name, u, q in zip("abcd", rng.random(4), sets[k]) if u < q])
    transition = np.array([[[a, 1 - a], [1 - b, b]] for a, b in stay])
    start = {
        "weights": np.full(3, 1 / 3),
        "x1_weights": np.full((3, 2), 0.5),
        "x1_mu": centres + 0.2,
        "x1_sigma": np.full((3, 2), 1.2),
        "x2_p_missing": missing,
        "x2_p": p,
        "x3_initial": np.column_stack([1 - first, first]),
        "x3_transition": transition,
        "x3_length_mu": np.array([7.5, 8.0, 8.5]),
        "x4_p": sets,
    }
    return {"kind": "composite", "x1": x1, "x2": x2, "x3": x3, "x4": x4, "start": start}


def hierarchical(n_rows: int, length: int) -> Case:
    """Sequences of one length, of three normal topics in four kinds of proportions."""
    rng = np.random.default_rng(23)
    weights = np.array([0.4, 0.2, 0.2, 0.2])
    topics = np.array([[0.34, 0.33, 0.33], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    mu = np.array([-5.0, 0, 5])
    z = rng.choice(4, n_rows, p=weights)
    chosen = (rng.random((n_rows, length, 1)) > topics[z].cumsum(1)[:, None, :-1]).sum(-1)
    start = {
        "weights": np.full(4, 0.25),
        "topic_weights": topics,
        "topic_mu": mu + 0.3,
        "topic_sigma": np.full(3, 1.2),
    }
    return {"kind": "hierarchical", "x": rng.normal(mu[chosen], 1), "start": start}


def joint(n_rows: int) -> Case:
    """A symbol and a number with one label, a sequence of numbers with another that depends on it."""
    rng = np.random.default_rng(24)
    weights, transition = np.array([0.6, 0.3, 0.1]), 0.1 + 0.7 * np.eye(3)
    symbols = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    z = rng.choice(3, n_rows, p=weights)
    second = (rng.random((n_rows, 1)) > transition[z].cumsum(1)[:, :-1]).sum(1)
    symbol = (rng.random((n_rows, 1)) > symbols[z].cumsum(1)[:, :-1]).sum(1)
    y = [rng.normal(2 - 2.0 * m, 1, n).tolist() for m, n in zip(second, rng.poisson(3, n_rows))]
    start = {
        "weights": weights,
        "transition": transition,
        "x_cat_p": symbols,
        "x_real_mu": np.array([-2.0, 0, 2]) + 0.2,
        "x_real_sigma": np.full(3, 1.1),
        "y_mu": np.array([2.0, 0, -2]) + 0.2,
        "y_sigma": np.full(3, 1.1),
        "y_length_mu": np.array([2.8, 3.0, 3.2]),
    }
    cells = {"cat": np.array(list("abc"))[symbol].tolist(), "real": rng.normal(2.0 * z - 2, 1)}
    return {"kind": "joint", **cells, "y": y, "start": start}


def binary_items(n_rows: int, n_items: int = 10, n_components: int = 4) -> Case:
    """Latent classes."""
    rng = np.random.default_rng(25)
    p = rng.uniform(0.1, 0.9, (n_components, n_items))
    weights = np.arange(1, n_components + 1) / (n_components * (n_components + 1) / 2)
    z = rng.choice(n_components, n_rows, p=weights)
    x = (rng.random((n_rows, n_items)) < p[z]).astype(np.int8)
    return {"kind": "binary", "x": x, "start": {"weights": weights, "p": p}}


def waiting_times(n_rows: int = 10_000) -> Case:
    """Two exponentials and a log-normal that overlap: plain EM takes thousands of passes."""
    rng = np.random.default_rng(26)
    z = rng.choice(3, n_rows, p=[0.1, 0.3, 0.6])
    draws = [rng.exponential(5, n_rows), rng.exponential(10, n_rows), rng.lognormal(0.5, 1, n_rows)]
    return {"kind": "waiting", "x": np.choose(z, draws), "start": {}}


def one_family(family: str, n_rows: int) -> Case:
    """A column of one family, drawn from ten components."""
    rng = np.random.default_rng(27)
    z = rng.integers(10, size=n_rows)
    draws = {
        "Normal": lambda: rng.normal(3.0 * z, 1),
        "Poisson": lambda: rng.poisson(1 + 4 * z),
        "Categorical": lambda: (z + rng.integers(3, size=n_rows)) % 12,
    }
    return {"kind": "field", "family": family, "y": draws[family](), "start": {}}
