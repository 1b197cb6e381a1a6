"""Families of distributions, one file each. `_contract` says what a family is."""

from bayesmix.families.bernoulli import Bernoulli
from bayesmix.families.bernoulli_set import BernoulliSet
from bayesmix.families.categorical import Categorical
from bayesmix.families.exponential import Exponential
from bayesmix.families.geometric import Geometric
from bayesmix.families.log_normal import LogNormal
from bayesmix.families.markov_chain import MarkovChain
from bayesmix.families.mv_normal import MvNormal
from bayesmix.families.normal import Normal
from bayesmix.families.poisson import Poisson
from bayesmix.families.spike_and_slab import SpikeAndSlab

__all__ = [
    "Bernoulli",
    "BernoulliSet",
    "Categorical",
    "Exponential",
    "Geometric",
    "LogNormal",
    "MarkovChain",
    "MvNormal",
    "Normal",
    "Poisson",
    "SpikeAndSlab",
]
