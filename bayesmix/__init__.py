"""bayesmix: mixture models of anything, as one declarative tree, with a full posterior from PyMC."""

from typing import Any as _Any

from bayesmix.api import fit
from bayesmix.build import build_model, set_data
from bayesmix.calibration import Calibration, calibrate
from bayesmix.check import Finding, Report, check
from bayesmix.checkpoint import Checkpoint, read_checkpoint
from bayesmix.distribution import log_density, responsibilities, sample, split
from bayesmix.distributions import InverseWishart
from bayesmix.errors import (
    ApproximationWarning,
    BayesmixWarning,
    ConvergenceWarning,
    DataError,
    DegenerateWarning,
    ImproperWarning,
    IndistinctWarning,
    MomentsError,
    MultimodalWarning,
    PriorWarning,
    SpecError,
)
from bayesmix.evidence import Evidence, log_evidence
from bayesmix.families import (
    Bernoulli,
    BernoulliSet,
    Categorical,
    Exponential,
    Geometric,
    LogNormal,
    MarkovChain,
    MvNormal,
    Normal,
    Poisson,
    SpikeAndSlab,
)
from bayesmix.fit import Fit, Status
from bayesmix.impute import Imputation
from bayesmix.infer import InferredSpec, infer_spec
from bayesmix.inference.advi import fit_advi
from bayesmix.inference.em import fit_em
from bayesmix.inference.laplace import fit_laplace
from bayesmix.inference.map import fit_map
from bayesmix.inference.moments import fit_moments
from bayesmix.inference.nuts import fit_nuts
from bayesmix.inference.online import fit_online
from bayesmix.io import load
from bayesmix.labels import Partition
from bayesmix.params import Flat, Shared
from bayesmix.relabel import Relabelling
from bayesmix.select import Selection, compare, select
from bayesmix.structure import Composite, HierarchicalMixture, JointMixture, Mixture, Optional, Sequence

__version__ = "0.1.0"

__all__ = [
    "ApproximationWarning",
    "BayesmixWarning",
    "Bernoulli",
    "BernoulliSet",
    "Calibration",
    "Categorical",
    "Checkpoint",
    "Composite",
    "ConvergenceWarning",
    "DataError",
    "DegenerateWarning",
    "Evidence",
    "Exponential",
    "Finding",
    "Fit",
    "Flat",
    "Geometric",
    "HierarchicalMixture",
    "ImproperWarning",
    "Imputation",
    "IndistinctWarning",
    "InferredSpec",
    "InverseWishart",
    "JointMixture",
    "LogNormal",
    "MarkovChain",
    "Mixture",
    "MomentsError",
    "MultimodalWarning",
    "MvNormal",
    "Normal",
    "Optional",
    "Partition",
    "Poisson",
    "PriorWarning",
    "Relabelling",
    "Report",
    "Selection",
    "Sequence",
    "Shared",
    "SpecError",
    "SpikeAndSlab",
    "Status",
    "build_model",
    "calibrate",
    "check",
    "compare",
    "fit",
    "fit_advi",
    "fit_em",
    "fit_laplace",
    "fit_map",
    "fit_moments",
    "fit_nuts",
    "fit_online",
    "infer_spec",
    "load",
    "log_density",
    "log_evidence",
    "read_checkpoint",
    "responsibilities",
    "sample",
    "select",
    "set_data",
    "split",
]


def __getattr__(name: str) -> _Any:
    """`bm.plots`, `bm.datasets` and `bm.sklearn` without an import of their own: they are loaded when first used."""
    if name in ("datasets", "plots", "sklearn"):
        from importlib import import_module

        return import_module(f"bayesmix.{name}")
    raise AttributeError(f"module 'bayesmix' has no attribute {name!r}")
