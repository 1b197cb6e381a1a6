"""bayesmix: mixture models of anything, as one declarative tree, with a full posterior from PyMC."""

from bayesmix.api import fit
from bayesmix.build import build_model, set_data
from bayesmix.distribution import log_density, responsibilities, sample, split
from bayesmix.distributions import InverseWishart
from bayesmix.errors import (
    BayesmixWarning,
    ConvergenceWarning,
    DataError,
    DegenerateWarning,
    MomentsError,
    SpecError,
)
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
from bayesmix.inference.advi import fit_advi
from bayesmix.inference.em import fit_em
from bayesmix.inference.map import fit_map
from bayesmix.inference.moments import fit_moments
from bayesmix.inference.nuts import fit_nuts
from bayesmix.io import load
from bayesmix.labels import Partition
from bayesmix.params import Flat, Shared
from bayesmix.relabel import Relabelling
from bayesmix.structure import Composite, HierarchicalMixture, JointMixture, Mixture, Optional, Sequence

__version__ = "0.1.0"

__all__ = [
    "BayesmixWarning",
    "Bernoulli",
    "BernoulliSet",
    "Categorical",
    "Composite",
    "ConvergenceWarning",
    "DataError",
    "DegenerateWarning",
    "Exponential",
    "Fit",
    "Flat",
    "Geometric",
    "HierarchicalMixture",
    "Imputation",
    "InverseWishart",
    "JointMixture",
    "LogNormal",
    "MarkovChain",
    "Mixture",
    "MomentsError",
    "MvNormal",
    "Normal",
    "Optional",
    "Partition",
    "Poisson",
    "Relabelling",
    "Sequence",
    "Shared",
    "SpecError",
    "SpikeAndSlab",
    "Status",
    "build_model",
    "fit",
    "fit_advi",
    "fit_em",
    "fit_map",
    "fit_moments",
    "fit_nuts",
    "load",
    "log_density",
    "responsibilities",
    "sample",
    "set_data",
    "split",
]
