"""Plots of a fit, with matplotlib: ``import bayesmix.plots`` (needs ``pip install "bayesmix[plots]"``).

Every function returns ``(figure, axes)`` and shows nothing by itself. Components have fixed colours (Okabe and
Ito's, which colour-blind readers can tell apart), line styles, hatches and marks (for prints without colour).

===================================================  ===================================================================
of                                                   functions
===================================================  ===================================================================
fields                                               `plot_fields`, `plot_profiles`, `plot_pairs`
rows                                                 `plot_responsibilities`, `plot_simplex`, `plot_coclustering`
missing cells                                        `plot_imputation`
the model                                            `plot_model`, `plot_transitions`, `plot_topics`, `plot_chain`
the run of an engine, the number of components       `plot_starts`, `plot_trajectory`, `plot_selection`
===================================================  ===================================================================

Pictures of many fields, symbols or states show those that matter most, and say above the panels what they leave out.
"""

from bayesmix.plots._looks import COLOURS as COLOURS
from bayesmix.plots._looks import HATCHES as HATCHES
from bayesmix.plots._looks import LINES as LINES
from bayesmix.plots._looks import MARKS as MARKS
from bayesmix.plots.fields import plot_fields
from bayesmix.plots.imputation import plot_imputation
from bayesmix.plots.labels import plot_coclustering, plot_responsibilities, plot_simplex
from bayesmix.plots.profiles import plot_pairs, plot_profiles
from bayesmix.plots.runs import plot_selection, plot_starts, plot_trajectory
from bayesmix.plots.structure import plot_chain, plot_model, plot_topics, plot_transitions

__all__ = [
    "plot_chain",
    "plot_coclustering",
    "plot_fields",
    "plot_imputation",
    "plot_model",
    "plot_pairs",
    "plot_profiles",
    "plot_responsibilities",
    "plot_selection",
    "plot_simplex",
    "plot_starts",
    "plot_topics",
    "plot_trajectory",
    "plot_transitions",
]
