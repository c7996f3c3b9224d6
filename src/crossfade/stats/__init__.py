"""Statistics for comparing classifiers, usable alone on any data frame; knows nothing of training.

Names load on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade.stats.analysis import Analysis as Analysis
    from crossfade.stats.analysis import analyze as analyze
    from crossfade.stats.compare import Comparison as Comparison
    from crossfade.stats.compare import Row as Row
    from crossfade.stats.compare import compare_methods as compare_methods
    from crossfade.stats.drawing import new_figure as new_figure
    from crossfade.stats.drawing import save_svg as save_svg
    from crossfade.stats.drawing import to_svg as to_svg
    from crossfade.stats.evidence import AcrossComparison as AcrossComparison
    from crossfade.stats.evidence import PairedComparison as PairedComparison
    from crossfade.stats.evidence import compare_datasets as compare_datasets
    from crossfade.stats.evidence import compare_repeats as compare_repeats
    from crossfade.stats.evidence import mean_interval as mean_interval
    from crossfade.stats.figures import critical_difference_diagram as critical_difference_diagram
    from crossfade.stats.figures import paired_difference_plot as paired_difference_plot
    from crossfade.stats.figures import performance_plot as performance_plot
    from crossfade.stats.figures import sign_plot as sign_plot
    from crossfade.stats.intervals import Interval as Interval
    from crossfade.stats.intervals import MeanTest as MeanTest
    from crossfade.stats.intervals import bootstrap_interval as bootstrap_interval
    from crossfade.stats.intervals import corrected_resampled_t as corrected_resampled_t
    from crossfade.stats.intervals import detectable_difference as detectable_difference
    from crossfade.stats.intervals import paired_t as paired_t
    from crossfade.stats.omnibus import Friedman as Friedman
    from crossfade.stats.omnibus import adjust_p as adjust_p
    from crossfade.stats.omnibus import conover as conover
    from crossfade.stats.omnibus import contiguous_groups as contiguous_groups
    from crossfade.stats.omnibus import critical_difference as critical_difference
    from crossfade.stats.omnibus import friedman as friedman
    from crossfade.stats.omnibus import nemenyi as nemenyi
    from crossfade.stats.paired import ControlTest as ControlTest
    from crossfade.stats.paired import compare_with_control as compare_with_control
    from crossfade.stats.paired import sign_test as sign_test
    from crossfade.stats.paired import wilcoxon as wilcoxon
    from crossfade.stats.ranking import MethodSummary as MethodSummary
    from crossfade.stats.ranking import Profile as Profile
    from crossfade.stats.ranking import WinTieLoss as WinTieLoss
    from crossfade.stats.ranking import performance_profile as performance_profile
    from crossfade.stats.ranking import rank_matrix as rank_matrix
    from crossfade.stats.ranking import summarize as summarize
    from crossfade.stats.ranking import summarize_repeats as summarize_repeats
    from crossfade.stats.ranking import win_tie_loss as win_tie_loss
    from crossfade.stats.shape import score_matrix as score_matrix
    from crossfade.stats.verdicts import Verdict as Verdict
    from crossfade.stats.verdicts import verdict as verdict

_HOME = {
    "analysis": ("Analysis", "analyze"),
    "compare": ("Comparison", "Row", "compare_methods"),
    "drawing": ("new_figure", "save_svg", "to_svg"),
    "evidence": ("AcrossComparison", "PairedComparison", "compare_datasets", "compare_repeats", "mean_interval"),
    "figures": ("critical_difference_diagram", "paired_difference_plot", "performance_plot", "sign_plot"),
    "intervals": (
        "Interval", "MeanTest", "bootstrap_interval", "corrected_resampled_t", "detectable_difference", "paired_t",
    ),
    "omnibus": (
        "Friedman", "adjust_p", "conover", "contiguous_groups", "critical_difference", "friedman", "nemenyi",
    ),
    "paired": ("ControlTest", "compare_with_control", "sign_test", "wilcoxon"),
    "ranking": (
        "MethodSummary", "Profile", "WinTieLoss", "performance_profile", "rank_matrix", "summarize",
        "summarize_repeats", "win_tie_loss",
    ),
    "shape": ("score_matrix",),
    "verdicts": ("Verdict", "verdict"),
}  # fmt: skip
_SOURCE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_SOURCE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _SOURCE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
