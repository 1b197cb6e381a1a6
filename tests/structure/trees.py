"""The catalogue of structure nodes: each with at least two families, and a table that it reads.

Two well separated groups of rows, and in the elements of sequences two or three well separated kinds, so that EM
converges in tens of iterations and every maximum under flat priors is inside the support. Sequences of length 0 and 1,
missing rows and missing elements are in every column where they may stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytest

import bayesmix as bm

_rng = np.random.default_rng(11)
N_ROWS = 48
GROUP = np.repeat([0, 1], N_ROWS // 2)
KIND = np.tile([0, 0, 1], N_ROWS // 3)
#: Lengths 0 and 1 in both groups, and short ones otherwise.
LENGTHS = _rng.poisson(np.array([2.0, 5.0])[GROUP])
LENGTHS[[0, 24]], LENGTHS[[1, 25]] = 0, 1


def _sequences(draw) -> list[list]:
    return [[draw(group) for _ in range(n)] for group, n in zip(GROUP, LENGTHS)]


def _with_gaps(cells: list, rows: tuple[int, ...], elements: bool = False) -> list:
    """Some rows missing, and the second element of every third sequence that has one."""
    out = [list(cell) if isinstance(cell, list) else cell for cell in cells]
    if elements:
        for i in range(2, len(out), 3):
            if len(out[i]) > 1:
                out[i][1] = None
    for row in rows:
        out[row] = None
    return out


def _topic(group: int) -> int:
    return int(_rng.random() < (0.25, 0.75)[group])


def _chain(group: int, n: int) -> list[str]:
    stay = (0.25, 0.8)[group]
    out = ["ab"[int(_rng.random() < 0.5)]] if n else []
    while len(out) < n:
        out.append(out[-1] if _rng.random() < stay else "ab"["ab".index(out[-1]) - 1])
    return out


_REALS = _sequences(lambda g: float((-4.0, 6.0)[g] + _rng.normal()))
_COUNTS = _sequences(lambda g: int(_rng.poisson((2.0, 20.0)[g])))
_TOPICS = _sequences(lambda g: float((-6.0, 6.0)[_topic(g)] + _rng.normal()))
_WORDS = _sequences(lambda g: "uvw"[int(_rng.choice(3, p=((0.7, 0.2, 0.1), (0.1, 0.3, 0.6))[g]))])
_TOPIC_COUNTS = _sequences(lambda g: int(_rng.poisson((2.0, 30.0)[_topic(g)])))
_RECORDS = _sequences(lambda g: (float((-4.0, 6.0)[g] + _rng.normal()), "uvw"[int(_rng.integers(3))]))
_CHAINS = [_chain(group, n) for group, n in zip(GROUP, LENGTHS)]
_GONE = (3, 30)

COLUMNS: dict[str, list] = {
    "y": list(np.array([-4.0, 6.0])[GROUP] + _rng.normal(size=N_ROWS)),
    "x": list(np.array([[-30.0, -10.0], [10.0, 35.0]])[GROUP, KIND] + _rng.normal(size=N_ROWS)),
    "m": _rng.poisson(np.array([2.0, 25.0])[GROUP]).tolist(),
    "g": _rng.geometric(np.array([0.7, 0.05])[GROUP]).tolist(),
    "c": np.array(["u", "v", "w"], object)[_rng.integers(0, 3, N_ROWS)].tolist(),
    "l": np.exp(np.array([0.5, 3.0])[KIND] + 0.5 * _rng.normal(size=N_ROWS)).tolist(),
    "t": [frozenset(t for t, p in zip("pqr", ps) if _rng.random() < p)
          for ps in np.array([[0.2, 0.8, 0.5], [0.7, 0.3, 0.5]])[GROUP]],
    "v": list(np.array([[0.0, 0.0], [6.0, -9.0]])[GROUP] + _rng.normal(size=(N_ROWS, 2))),
    # half of the rows a spike, the other half counts
    "k": np.where(_rng.random(N_ROWS) < 0.5, 7, np.minimum(_rng.poisson(1.5, N_ROWS), 9)).tolist(),
    "sx": _with_gaps(_REALS, _GONE, True),
    "sn": _with_gaps(_COUNTS, _GONE, True),
    "st": _with_gaps(_TOPICS, _GONE, True),
    "sw": _with_gaps(_WORDS, _GONE, True),
    "sc": _with_gaps(_TOPIC_COUNTS, _GONE, True),
    "sr": _with_gaps(_RECORDS, _GONE),
    "ch": _with_gaps(_CHAINS, _GONE),
}  # fmt: skip
_lost = np.random.default_rng(12)
for _name in ("y", "x", "m", "c", "l", "t", "v"):
    for _row in np.flatnonzero(_lost.random(N_ROWS) < 0.12):
        COLUMNS[_name][_row] = None
for _row in np.flatnonzero(_lost.random(N_ROWS) < np.array([0.15, 0.4])[GROUP]):
    COLUMNS["g"][_row] = None


@dataclass(frozen=True)
class Tree:
    """A spec and the columns that it reads; the name says structure and families."""

    name: str
    spec: Any
    fields: tuple[str, ...]
    record: bool = False
    #: EM's iterations at tol=0, where the default does not do
    flat: bool = True

    @property
    def table(self) -> Any:
        if self.record:
            return {name: COLUMNS[name] for name in self.fields}
        return COLUMNS[self.fields[0]]


C, M, S, O = bm.Composite, bm.Mixture, bm.Sequence, bm.Optional  # noqa: E741


def _lone(name: str, spec: Any, field: str, **kwargs: Any) -> Tree:
    return Tree(name, spec, (field,), **kwargs)


def _record(name: str, spec: Any, fields: str, **kwargs: Any) -> Tree:
    return Tree(name, spec, tuple(fields.split()), True, **kwargs)


TREES = [
    _lone("Sequence-Normal", S(bm.Normal(), length=bm.Poisson()), "sx"),
    _lone("Mixture-Sequence-Normal", M(S(bm.Normal()), 2), "sx"),
    _lone("Mixture-Sequence-Normal-Poisson", M(S(bm.Normal(), length=bm.Poisson()), 2), "sx"),
    _lone("Mixture-Sequence-Poisson", M(S(bm.Poisson()), 2), "sn"),
    _lone("Mixture-Sequence-Categorical-Poisson", M(S(bm.Categorical(), length=bm.Poisson()), 2), "sw"),
    _lone("Mixture-Sequence-Composite-Normal-Categorical", M(S(C(bm.Normal(), bm.Categorical())), 2), "sr"),
    _lone("Mixture-Sequence-Optional-Normal", M(S(O(bm.Normal())), 2), "sx"),
    _lone("Mixture-Sequence-Mixture-Normal", M(S(M(bm.Normal(), 2)), 2), "st", flat=False),
    _lone("Optional-Normal", O(bm.Normal()), "y"),
    _lone("Mixture-Optional-Normal", M(O(bm.Normal()), 2), "y"),
    _lone("Mixture-Optional-Poisson", M(O(bm.Poisson(), p=False), 2), "m"),
    _record("Mixture-Composite-Normal-Optional-Geometric", M(C(y=bm.Normal(), g=O(bm.Geometric())), 2), "y g"),
    _record("Mixture-Composite-Optional-BernoulliSet", M(C(y=bm.Normal(), t=O(bm.BernoulliSet())), 2), "y t"),
    _record("Mixture-Composite-Optional-Sequence-Normal",
            M(C(m=bm.Poisson(), sx=O(S(bm.Normal(), length=bm.Poisson()))), 2), "m sx"),
    _record("Mixture-Composite-Optional-Mixture-Normal", M(C(m=bm.Poisson(), x=O(M(bm.Normal(), 2))), 2), "m x"),
    _lone("HierarchicalMixture-Normal", bm.HierarchicalMixture(bm.Normal(), 2, 2), "st"),
    _lone("HierarchicalMixture-Poisson-Poisson",
          bm.HierarchicalMixture(bm.Poisson(), 2, 2, length=bm.Poisson()), "sc"),
    _lone("HierarchicalMixture-Normal-Normal",
          bm.HierarchicalMixture([bm.Normal(mu=-6.0), bm.Normal(sigma=1.0)], n_mixtures=2), "st"),
    _record("JointMixture-Normal-Poisson", bm.JointMixture(y=(bm.Normal(), 2), m=(bm.Poisson(), 2)), "y m"),
    _record("JointMixture-Composite-Sequence",
            bm.JointMixture(r=(C(bm.Normal(), bm.Categorical()), 2), sx=(S(bm.Normal(), bm.Poisson()), 2)), "r sx",
            flat=False),
    _lone("Mixture-LogNormal-Exponential", M([bm.LogNormal(), bm.LogNormal(), bm.Exponential()]), "l", flat=False),
    _lone("Mixture-SpikeAndSlab-Poisson", M([bm.SpikeAndSlab(k=7), bm.Poisson()]), "k"),
    _lone("Mixture-Normal-fixed-Normal", M([bm.Normal(), bm.Normal(sigma=1.0), bm.Normal(sigma=1.0)]), "x"),
    _record("Mixture-Composite-Mixture-LogNormal-Exponential",
            M(C(m=bm.Poisson(), l=M([bm.LogNormal(), bm.LogNormal(sigma=0.5)])), 2), "m l", flat=False),
    _lone("Mixture-Sequence-Normal-Sequence-Normal-fixed",
          M([S(bm.Normal(), length=bm.Poisson()), S(bm.Normal(sigma=1.0), length=bm.Poisson())]), "sx"),
    _lone("MarkovChain", bm.MarkovChain(), "ch"),
    _lone("Mixture-MarkovChain", M(bm.MarkovChain(), 2), "ch", flat=False),
    _lone("Mixture-MarkovChain-Poisson", M(bm.MarkovChain(length=bm.Poisson()), 2), "ch", flat=False),
    _record("Mixture-Composite-Normal-MarkovChain",
            M(C(y=bm.Normal(), ch=bm.MarkovChain(length=bm.Poisson())), 2), "y ch",
            flat=False),  # one kind of pair never comes in the second component: that maximum is on the edge
    _record("Mixture-Composite-tied-Normal",
            M(C(y=bm.Normal(tie="shared"), x=bm.Normal(tie="shared"), m=bm.Poisson()), 2), "y x m"),
    _record("Mixture-Composite-shared-Mixture-Normal", M(C(m=bm.Poisson(), x=M(bm.Normal(), 3, shared=True)), 2),
            "m x"),
    _record("Mixture-Composite-shared-Mixture-Poisson", M(C(y=bm.Normal(), m=M(bm.Poisson(), 2, shared=True)), 2),
            "y m", flat=False),
    _lone("Mixture-Normal-Shared", M(bm.Normal(sigma=bm.Shared()), 2), "y"),
    _lone("Mixture-MvNormal-Shared", M(bm.MvNormal(cov=bm.Shared()), 2), "v"),
    _lone("Mixture-Normal-min_weight", M(bm.Normal(), 2, min_weight=0.1), "y"),
    _lone("Mixture-Poisson-min_weight", M(bm.Poisson(), 2, min_weight=0.05), "m"),
    _lone("Mixture-Normal-fixed", M(bm.Normal(sigma=1), 2, weights=[0.5, 0.5]), "y"),
]  # fmt: skip
COLUMNS["r"] = [
    None if y is None else (y, c) for y, c in zip(COLUMNS["y"], np.random.default_rng(5).choice(list("uvw"), N_ROWS))
]

_HALF_NORMAL, _LOG_NORMAL = pm.HalfNormal.dist(3.0), pm.LogNormal.dist(2.0, 1.5)
_STICKS = pm.StickBreakingWeights.dist(alpha=2.0, K=1)
#: Users' priors, without a closed M-step.
NUMERIC = [
    _lone("Mixture-Sequence-Normal-HalfNormal", M(S(bm.Normal(sigma=_HALF_NORMAL), bm.Poisson(mu=_LOG_NORMAL)), 2),
          "sx"),
    _lone("Mixture-Sequence-Poisson-LogNormal", M(S(bm.Poisson(mu=_LOG_NORMAL)), 2, weights=_STICKS), "sn"),
    _record("Mixture-Composite-Optional-Geometric-LogitNormal",
            M(C(y=bm.Normal(), g=O(bm.Geometric(), p=pm.LogitNormal.dist(-1.0, 1.0))), 2), "y g"),
    _lone("HierarchicalMixture-Normal-HalfNormal",
          bm.HierarchicalMixture(bm.Normal(sigma=_HALF_NORMAL), 2, 2, topic_weights=_STICKS), "st"),
    _record("JointMixture-Normal-Poisson-LogNormal",
            bm.JointMixture(y=(bm.Normal(sigma=_HALF_NORMAL), 2), m=(bm.Poisson(mu=_LOG_NORMAL), 2),
                            transition=_STICKS), "y m"),
    _lone("Mixture-MarkovChain-StickBreaking",
          M(bm.MarkovChain(transition=_STICKS, length=bm.Poisson(mu=_LOG_NORMAL)), 2), "ch"),
    _lone("Mixture-LogNormal-HalfNormal-Exponential",
          M([bm.LogNormal(sigma=_HALF_NORMAL), bm.Exponential(scale=_LOG_NORMAL)]), "l"),
    _lone("Mixture-SpikeAndSlab-LogitNormal",
          M([bm.SpikeAndSlab(p=pm.LogitNormal.dist(0.0, 1.0), k=7), bm.Poisson(mu=_LOG_NORMAL)]), "k"),
    _lone("Mixture-Normal-Shared-HalfNormal", M(bm.Normal(sigma=bm.Shared(_HALF_NORMAL)), 2), "y"),
    _record("Mixture-Composite-tied-Normal-HalfNormal",
            M(C(y=bm.Normal(sigma=_HALF_NORMAL, tie="s"), x=bm.Normal(sigma=_HALF_NORMAL, tie="s"), m=bm.Poisson()), 2),
            "y x m"),
]  # fmt: skip


def over(trees: list[Tree], fast: tuple[str, ...] | None = None):
    """Parametrise over trees; where `fast` names some of them, the others are marked slow."""
    marked = [
        pytest.param(tree, id=tree.name, marks=[] if fast is None or tree.name in fast else [pytest.mark.slow])
        for tree in trees
    ]
    return pytest.mark.parametrize("tree", marked)
