"""Which methods are not told apart: the bars of a critical-difference diagram."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.shape import listed


def contiguous_groups(
    mean_ranks: Mapping[str, float] | pd.Series[float], p_values: pd.DataFrame, *, alpha: float = 0.05
) -> list[list[str]]:
    """Runs of methods, neighbours in mean rank, in which no pair differs at level ``alpha``; the longest ones only.

    A run holds every method between its ends, so a bar never covers one that differs from another under it. With tests
    whose p-values do not fall as ranks part (Wilcoxon on each pair), two methods that don't differ can be in no common
    run; `sign_plot` shows all pairs.

    Args:
        mean_ranks: mean rank by method.
        p_values: methods × methods, such as from `conover`; p ≤ ``alpha`` is a difference.
        alpha: the level.

    Returns:
        Runs of two or more methods, best first.

    Raises:
        UserError: ``p_values`` lacks a method.
    """
    ranks = pd.Series(mean_ranks, dtype=float).sort_values(kind="stable")
    lacking = [name for name in ranks.index if name not in p_values.index or name not in p_values.columns]
    if lacking:
        raise UserError(f"p_values must have a row and a column for every method; lacking: {listed(lacking)}")
    apart = (p_values.loc[ranks.index, ranks.index] <= alpha).to_numpy()
    groups: list[list[str]] = []
    reached = 0
    for start in range(len(ranks)):
        end = start + 1
        while end < len(ranks) and not apart[start:end, end].any():
            end += 1
        if end - start > 1 and end > reached:
            groups.append([str(name) for name in ranks.index[start:end]])
            reached = end
    return groups
