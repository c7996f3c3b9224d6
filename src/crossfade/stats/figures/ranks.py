"""The critical-difference diagram of Demšar (2006), for any pairwise test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossfade.errors import UserError
from crossfade.stats.figures.base import FONT_SIZE, INK, label_size, wrapped
from crossfade.stats.groups import contiguous_groups

RULER = 5.0  # inches from rank 1 to rank k
LEVEL = 0.13  # inches between two bars


def critical_difference_diagram(
    mean_ranks: Mapping[str, float] | pd.Series[float],
    p_values: pd.DataFrame,
    *,
    alpha: float = 0.05,
    critical: float | None = None,
    title: str = "",
) -> Figure:
    """Mean ranks on a ruler, best on the left, with a bar over each of the `contiguous_groups`.

    The figure grows with the names and their number; long names are broken into lines, none is cut.

    Args:
        mean_ranks: mean rank by method, 1 is best: ``rank_matrix(matrix).mean()``.
        p_values: methods × methods, such as from `conover` or `nemenyi`.
        alpha: methods under one bar don't differ at this level.
        critical: a critical difference (`critical_difference`) to draw as a yardstick.
        title: printed above.

    Raises:
        UserError: fewer than two methods, or ``p_values`` lacks one.
    """
    ranks = pd.Series(mean_ranks, dtype=float).sort_values(kind="stable")
    if len(ranks) < 2:
        raise UserError(f"a critical-difference diagram needs two methods or more, got {len(ranks)}")
    groups = contiguous_groups(ranks, p_values, alpha=alpha)
    place = {str(name): RULER * (rank - 1) / (len(ranks) - 1) for name, rank in ranks.items()}
    levels = _stack([(place[group[0]], place[group[-1]]) for group in groups])
    labels = [f"{wrapped(name)}  ({rank:.2f})" for name, rank in ranks.items()]
    half = (len(ranks) + 1) // 2
    left, right = label_size(labels[:half])[0] + 0.35, label_size(labels[half:])[0] + 0.35
    rows = max(_heights(labels[:half])[-1], _heights(labels[half:][::-1])[-1])
    above = 0.45 + (0.3 if critical is not None else 0.0) + (0.3 if title else 0.0)
    below = 0.2 + LEVEL * (max(levels, default=-1) + 1)
    width = max(left + RULER + right, label_size([title], FONT_SIZE + 1)[0] + 0.2)
    figure = Figure(figsize=(width, above + below + rows + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, width - left), ylim=(-below - rows - 0.1, above))
    axes.axis("off")
    _ruler(axes, len(ranks))
    for group, level in zip(groups, levels, strict=True):
        y = -0.12 - LEVEL * level
        axes.plot(
            [place[group[0]] - 0.04, place[group[-1]] + 0.04],
            [y, y],
            color="#D55E00",
            lw=3.2,
            solid_capstyle="butt",
            zorder=3,
        )
    _names(axes, [place[name] for name in ranks.index[:half]], labels[:half], -0.12, -below)
    _names(axes, [place[name] for name in ranks.index[half:][::-1]], labels[half:][::-1], RULER + 0.12, -below)
    if critical is not None:
        _yardstick(axes, critical, len(ranks))
    if title:
        axes.text(-left + 0.1, above - 0.18, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)
    return figure


def _stack(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """The level of each bar, so that no two on a level come close (places in inches)."""
    ends: list[float] = []
    levels: list[int] = []
    for low, high in intervals:
        level = next((i for i, end in enumerate(ends) if end + 0.25 < low), len(ends))
        ends[level : level + 1] = [high]
        levels.append(level)
    return levels


def _heights(labels: Sequence[str]) -> list[float]:
    """Where each label ends, in inches below the first."""
    ends = [0.0]
    for label in labels:
        ends.append(ends[-1] + 0.07 + 0.155 * (label.count("\n") + 1))
    return ends


def _ruler(axes: Axes, methods: int) -> None:
    axes.plot([0, RULER], [0, 0], color=INK, lw=1.2)
    for rank in range(1, methods + 1):
        x = RULER * (rank - 1) / (methods - 1)
        axes.plot([x, x], [0, 0.07], color=INK, lw=1)
        axes.text(x, 0.11, str(rank), ha="center", va="bottom", fontsize=FONT_SIZE, color=INK)


def _yardstick(axes: Axes, critical: float, methods: int) -> None:
    length = RULER * critical / (methods - 1)
    fits = length <= RULER
    text = f"CD = {critical:.2f}" if fits else f"CD = {critical:.2f}, more than the whole ruler"
    if fits:
        axes.plot([0, length], [0.5, 0.5], color=INK, lw=1.5, marker="|")
    axes.text(length + 0.08 if fits else 0, 0.5, text, va="center", fontsize=FONT_SIZE, color=INK)


def _names(axes: Axes, places: Sequence[float], labels: Sequence[str], edge: float, top: float) -> None:
    """Labels one below the other, the outermost on top: then no line crosses another's label."""
    ends = _heights(labels)
    on_left = edge < 0
    for x, label, start, end in zip(places, labels, ends, ends[1:], strict=False):
        y = top - (start + end) / 2
        axes.plot([x, x, edge], [0, y, y], color=INK, lw=0.8, zorder=2)
        axes.plot([x], [0], marker="o", ms=4, color=INK, zorder=4)
        axes.text(
            edge + (-0.06 if on_left else 0.06), y, label, ha="right" if on_left else "left", va="center",
            fontsize=FONT_SIZE, color=INK, parse_math=False,
        )  # fmt: skip
