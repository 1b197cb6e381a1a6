"""The method of moments: parameters that reproduce the sample's moments, without a starting guess.

The numerics behind `bayesmix.fit_moments`, usable alone on moments that are known:

===========  =====================================================================================
module       estimates
===========  =====================================================================================
`normals`    two normals from five moments; K normals with one standard deviation from 2K moments
`mixing`     K points and weights of a mixing distribution from 2K - 1 of its moments
`views`      conditional means of any statistics of three or more conditionally independent fields
`estimator`  what the first two have in common, with standard errors by the delta method
===========  =====================================================================================
"""

from bayesmix.moments.mixing import mixing_distribution
from bayesmix.moments.normals import equal_sigma_normals, two_normals
from bayesmix.moments.views import latent_class

__all__ = ["equal_sigma_normals", "latent_class", "mixing_distribution", "two_normals"]
