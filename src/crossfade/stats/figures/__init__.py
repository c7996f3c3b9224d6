"""Figures: each function returns a matplotlib ``Figure`` sized to its labels; `to_svg` writes one for HTML."""

from crossfade.stats.figures.base import to_svg
from crossfade.stats.figures.differences import paired_difference_plot
from crossfade.stats.figures.profiles import performance_plot
from crossfade.stats.figures.ranks import critical_difference_diagram
from crossfade.stats.figures.signs import sign_plot

__all__ = [
    "critical_difference_diagram",
    "paired_difference_plot",
    "performance_plot",
    "sign_plot",
    "to_svg",
]
