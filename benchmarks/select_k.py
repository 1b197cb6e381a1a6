"""How often `bayesmix.select` finds the number of components that the data were drawn from.

    python benchmarks/select_k.py [data sets of each kind] [kind] [laplace]

With "laplace" by the evidence too, which takes several times as long.

Each kind has two to four components whose means lie at least four standard deviations apart. "acidity-like" is
drawn from two overlapping normals with the size and the shape of the lake-acidity data (155 lakes, means 4.3 and 6.2);
"galaxy-like" from six normals with the size and shape of the 82 galaxy velocities: on those two the answer is a
matter of the prior, and the table shows what each criterion says. One line a kind: how many of the data sets each
criterion got right, and the numbers that BIC chose.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter

import numpy as np

import bayesmix as bm


def normals(rng, k):
    return np.concatenate([rng.normal(5.0 * j, 1.0, rng.integers(60, 140)) for j in range(k)])


def counts(rng, k):
    return np.concatenate([rng.poisson(mean, rng.integers(60, 140)) for mean in (2, 25, 80, 160)[:k]])


def records(rng, k):
    """A normal, a category and a missing cell here and there."""
    z = np.repeat(np.arange(k), 100)
    x = rng.normal(5.0 * z, 1.0)
    x[rng.random(len(x)) < 0.1] = np.nan
    chance = np.full((k, 4), 0.1)
    chance[np.arange(k), np.arange(k)] = 0.7
    return {"x": x, "c": [str(rng.choice(list("abcd"), p=chance[each])) for each in z]}


def vectors(rng, k):
    centres = 6.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    return np.concatenate([rng.multivariate_normal(c, [[1, 0.5], [0.5, 1]], 100) for c in centres[:k]])


def acidity(rng, k):
    z = rng.random(155) < 0.6
    return np.where(z, rng.normal(4.33, 0.37, 155), rng.normal(6.25, 0.52, 155))


def galaxies(rng, k):
    z = rng.choice(6, 82, p=np.array([7, 30, 26, 14, 2, 3]) / 82)
    return rng.normal(np.array([9.7, 19.8, 22.5, 23.9, 26.9, 33.0])[z], np.array([0.4, 0.7, 0.8, 0.9, 0.5, 0.9])[z])


RECORD = bm.Composite(x=bm.Normal(), c=bm.Categorical())
KINDS = {
    "normals": (bm.Mixture(bm.Normal(), 1), normals, (2, 3, 4)),
    "counts": (bm.Mixture(bm.Poisson(), 1), counts, (2, 3, 4)),
    "records": (bm.Mixture(RECORD, 1), records, (2, 3, 4)),
    "vectors": (bm.Mixture(bm.MvNormal(), 1), vectors, (2, 3, 4)),
    "acidity-like": (bm.Mixture(bm.Normal(), 1), acidity, (2,)),
    "galaxy-like": (bm.Mixture(bm.Normal(), 1), galaxies, (6,)),
}


COLUMNS = {"bic": -1, "icl": -1, "log_evidence": 1}


def main(n_sets: int, kinds: list[str], evidence: str | None) -> None:
    columns = list(COLUMNS) if evidence else ["bic", "icl"]
    for kind in kinds:
        spec, draw, true = KINDS[kind]
        begin = time.perf_counter()
        right, chosen = Counter(), Counter()
        for seed in range(n_sets):
            rng = np.random.default_rng([7, seed])
            k = true[seed % len(true)]
            table = draw(rng, k)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bm.BayesmixWarning)
                found = bm.select(spec, table, range(1, max(true) + 3), evidence=evidence, n_starts=6, random_seed=seed)
            for column in columns:
                scores = (COLUMNS[column] * found.table[column].astype(float)).dropna()
                right[column] += int(len(scores) > 0 and scores.idxmax() == k)
            chosen[found.best - k] += 1
            if seed % 10 == 9:
                print(kind, seed + 1, dict(right), file=sys.stderr, flush=True)
        each = ", ".join(f"{column} {right[column]}/{n_sets}" for column in columns)
        off = ", ".join(f"{off:+d}: {n}" for off, n in sorted(chosen.items()))
        seconds = (time.perf_counter() - begin) / n_sets
        print(f"{kind:13} right: {each}   BIC's distance from the truth {off}   {seconds:.1f} s each", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    named = [each for each in given if each in KINDS]
    number = next((int(each) for each in given if each.isdigit()), 100)
    main(number, named or list(KINDS), "laplace" if "laplace" in given else None)
