"""Structure: nodes that combine others."""

from bayesmix.structure.composite import Composite
from bayesmix.structure.hierarchical import HierarchicalMixture
from bayesmix.structure.joint import JointMixture
from bayesmix.structure.mixture import Mixture
from bayesmix.structure.optional import Optional
from bayesmix.structure.sequence import Sequence

__all__ = ["Composite", "HierarchicalMixture", "JointMixture", "Mixture", "Optional", "Sequence"]
