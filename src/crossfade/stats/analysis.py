"""The whole analysis of one table of scores, as ``crossfade stats`` prints it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.means import Interval, mean_interval
from crossfade.stats.ranking import MethodSummary, performance_profile, summarize, summarize_repeats
from crossfade.stats.shape import check_fraction, score_matrix
from crossfade.stats.significance import (
    ControlTest,
    Friedman,
    compare_with_control,
    conover,
    contiguous_groups,
    critical_difference,
    friedman,
)
from crossfade.stats.words import Plain, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Analysis:
    """The findings on a block × method matrix.

    Attributes:
        matrix: scores, repeats averaged.
        summary: Table 4's three summaries of ``matrix``.
        by_repeat: the same, repeat by repeat and then averaged, as the paper does; ``None`` without repeats, or where a
            repeat does not cover every block.
        friedman: the test of whether there is any difference.
        p_values: Conover's, over all pairs, adjusted by Benjamini and Hochberg.
        groups: runs of methods not told apart at ``alpha``.
        critical_difference: Nemenyi's at ``alpha``.
        control: the method that the others are compared with, if any.
        against_control: Wilcoxon's signed-rank test of every other method, adjusted by Holm's method.
        intervals: of the mean difference to the control, by method.
        alpha: the level; intervals are at 1 − alpha.
        lower_is_better: whether scores are errors.
    """

    matrix: pd.DataFrame
    summary: tuple[MethodSummary, ...]
    by_repeat: tuple[MethodSummary, ...] | None
    friedman: Friedman
    p_values: pd.DataFrame
    groups: tuple[tuple[str, ...], ...]
    critical_difference: float
    control: str | None
    against_control: tuple[ControlTest, ...]
    intervals: dict[str, Interval | None]
    alpha: float
    lower_is_better: bool

    def differences(self) -> pd.DataFrame:
        """Return score − score of the control, blocks × the other methods.

        Raises:
            UserError: there is no control.
        """
        if self.control is None:
            raise UserError("no control was named, so there are no differences to it")
        return self.matrix.drop(columns=self.control).sub(self.matrix[self.control], axis=0)

    def figures(self) -> dict[str, Figure]:
        """Draw the figures, by name: ranks, signs, profile (no negative score) and differences (with a control)."""
        from crossfade.stats import figures as draw

        ranks = {row.method: row.mean_rank for row in self.summary}
        blocks = f"{len(self.matrix)} blocks"
        caption = f"Mean ranks over {blocks}; bars join methods not told apart"
        found = {
            "ranks": draw.critical_difference_diagram(ranks, self.p_values, alpha=self.alpha, title=caption),
            "signs": draw.sign_plot(self.p_values, ranks, title=f"Pairwise p-values over {blocks} (Conover, adjusted)"),
        }
        if (self.matrix >= 0).all(axis=None):
            profile = performance_profile(self.matrix, lower_is_better=self.lower_is_better)
            found["profile"] = draw.performance_plot(profile, title=f"Performance profile over {blocks}")
        if self.control is not None:
            label, title = f"difference to {self.control}", f"Paired differences over {blocks}"
            found["differences"] = draw.paired_difference_plot(
                self.differences(), self.intervals, scale=1.0, label=label, title=title
            )
        return found

    def to_dict(self) -> dict[str, Plain]:
        """Return plain data, ready for strict JSON."""
        renamed = ("matrix", "p_values", "critical_difference")
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in renamed}
        found |= {
            "blocks": list(map(str, self.matrix.index)),
            "methods": list(map(str, self.matrix.columns)),
            "scores": self.matrix.to_numpy().tolist(),
            "conover_bh": self.p_values.to_dict("index"),
            "nemenyi_critical_difference": self.critical_difference,
        }
        return {name: plain(value) for name, value in found.items()}


def analyze(
    frame: pd.DataFrame,
    *,
    block: str = "dataset",
    method: str = "method",
    score: str = "accuracy",
    repeat: str | None = None,
    control: str | None = None,
    lower_is_better: bool = False,
    alpha: float = 0.05,
) -> Analysis:
    """Analyze a block × method table: summaries, Friedman, all pairs, and every method against a control.

    Args:
        frame: a row a result.
        block, method, score: columns of the blocks (data sets), of the methods and of the scores.
        repeat: column of the repeats; they are averaged inside their block.
        control: a method to compare the others with.
        lower_is_better: scores are errors or losses.
        alpha: level of the tests; intervals are at 1 − alpha.

    Raises:
        UserError: see `score_matrix`; or no such control, or ``alpha`` outside (0, 1).
    """
    check_fraction("alpha", alpha)
    matrix = score_matrix(frame, block=block, method=method, score=score, repeat=repeat)
    p_values = conover(matrix)
    summary = summarize(matrix, control, lower_is_better=lower_is_better)
    ranks = {row.method: row.mean_rank for row in summary}
    by_repeat = None
    if repeat is not None and frame[repeat].nunique() > 1:
        with suppress(UserError):  # not every block has every repeat
            by_repeat = summarize_repeats(
                frame, control, block=block, method=method, score=score, repeat=repeat, lower_is_better=lower_is_better
            )
    against = () if control is None else compare_with_control(matrix, control, lower_is_better=lower_is_better)
    return Analysis(
        matrix=matrix,
        summary=summary,
        by_repeat=by_repeat,
        friedman=friedman(matrix),
        p_values=p_values,
        groups=tuple(tuple(group) for group in contiguous_groups(ranks, p_values, alpha=alpha)),
        critical_difference=critical_difference(matrix.shape[1], len(matrix), alpha=alpha),
        control=control,
        against_control=against,
        intervals={test.method: mean_interval(matrix[test.method], matrix[control], 1 - alpha) for test in against},
        alpha=alpha,
        lower_is_better=lower_is_better,
    )
