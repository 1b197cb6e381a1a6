"""Structure: nodes that combine others."""

from bayesmix.structure.composite import Composite
from bayesmix.structure.mixture import Mixture

__all__ = ["Composite", "Mixture"]
