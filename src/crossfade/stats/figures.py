"""The four figures of a comparison, each sized to its labels: ranks, pairwise p-values, profile and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crossfade.errors import UserError
from crossfade.stats.drawing import COLOURS, FONT_SIZE, INK, LINE_STYLES, caption, label_size, style, wrapped
from crossfade.stats.means import Interval
from crossfade.stats.ranking import Floats, Profile
from crossfade.stats.significance import contiguous_groups

# Names are drawn with parse_math=False: a dollar sign in one is no formula.
_RULER = 5.0  # inches from rank 1 to rank k
_LEVEL = 0.13  # inches between two bars
_LIMITS = (0.001, 0.01, 0.05)
# From strongest to weakest: the row's method better, worse; then no difference, and the diagonal.
_BETTER = ("#08519C", "#4292C6", "#9ECAE1")
_WORSE = ("#A63603", "#F16913", "#FDBE85")
_NOTHING, _DIAGONAL = "#EEEEEE", "#FFFFFF"


def critical_difference_diagram(
    mean_ranks: Mapping[str, float] | pd.Series[float],
    p_values: pd.DataFrame,
    *,
    alpha: float = 0.05,
    critical: float | None = None,
    title: str = "",
) -> Figure:
    """Draw mean ranks on a ruler, best on the left, with a bar over each of the `contiguous_groups`.

    This is the diagram of Demšar (2006), for any pairwise test. The figure grows with the names and their number; long
    names are broken into lines, none is cut.

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
    inch = _RULER / (len(ranks) - 1)  # a rank
    place = {str(name): (rank - 1) * inch for name, rank in ranks.items()}
    levels = _stack([(place[group[0]], place[group[-1]]) for group in groups])
    labels = [f"{wrapped(name)}  ({rank:.2f})" for name, rank in ranks.items()]
    half = (len(ranks) + 1) // 2
    left, right = label_size(labels[:half])[0] + 0.35, label_size(labels[half:])[0] + 0.35
    rows = max(_heights(labels[:half])[-1], _heights(labels[half:][::-1])[-1])
    above = 0.45 + (0.3 if critical is not None else 0.0) + (0.3 if title else 0.0)
    below = 0.2 + _LEVEL * (max(levels, default=-1) + 1)
    width = max(left + _RULER + right, label_size([title], FONT_SIZE + 1)[0] + 0.2)
    figure = Figure(figsize=(width, above + below + rows + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, width - left), ylim=(-below - rows - 0.1, above))
    axes.axis("off")
    axes.plot([0, _RULER], [0, 0], color=INK, lw=1.2)
    for k in range(len(ranks)):
        axes.plot([k * inch, k * inch], [0, 0.07], color=INK, lw=1)
        axes.text(k * inch, 0.11, str(k + 1), ha="center", va="bottom", fontsize=FONT_SIZE, color=INK)
    for group, level in zip(groups, levels, strict=True):
        y = -0.12 - _LEVEL * level
        ends = [place[group[0]] - 0.04, place[group[-1]] + 0.04]
        axes.plot(ends, [y, y], color="#D55E00", lw=3.2, solid_capstyle="butt", zorder=3)
    _names(axes, [place[name] for name in ranks.index[:half]], labels[:half], -0.12, -below)
    _names(axes, [place[name] for name in ranks.index[half:][::-1]], labels[half:][::-1], _RULER + 0.12, -below)
    if critical is not None:
        fits = critical * inch <= _RULER
        text = f"CD = {critical:.2f}" if fits else f"CD = {critical:.2f}, more than the whole ruler"
        if fits:
            axes.plot([0, critical * inch], [0.5, 0.5], color=INK, lw=1.5, marker="|")
        axes.text(critical * inch + 0.08 if fits else 0, 0.5, text, va="center", fontsize=FONT_SIZE, color=INK)
    if title:
        axes.text(-left + 0.1, above - 0.18, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)
    return figure


def _stack(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """Return the level of each bar, so that no two on a level come close (places in inches)."""
    ends: list[float] = []
    levels: list[int] = []
    for low, high in intervals:
        level = next((i for i, end in enumerate(ends) if end + 0.25 < low), len(ends))
        ends[level : level + 1] = [high]
        levels.append(level)
    return levels


def _heights(labels: Sequence[str]) -> list[float]:
    """Return where each label ends, in inches below the first."""
    return list(accumulate(labels, lambda end, label: end + 0.07 + 0.155 * (label.count("\n") + 1), initial=0.0))


def _names(axes: Axes, places: Sequence[float], labels: Sequence[str], edge: float, top: float) -> None:
    """Write labels one below the other, the outermost on top, so that no line crosses another's label."""
    ends = _heights(labels)
    side, gap = ("right", -0.06) if edge < 0 else ("left", 0.06)
    for x, label, start, end in zip(places, labels, ends, ends[1:], strict=False):
        y = top - (start + end) / 2
        axes.plot([x, x, edge], [0, y, y], color=INK, lw=0.8, zorder=2)
        axes.plot([x], [0], marker="o", ms=4, color=INK, zorder=4)
        axes.text(edge + gap, y, label, ha=side, va="center", fontsize=FONT_SIZE, color=INK, parse_math=False)


def sign_plot(p_values: pd.DataFrame, mean_ranks: Mapping[str, float] | pd.Series[float], *, title: str = "") -> Figure:
    """Draw which pairs differ, how surely and which way: a coloured square a pair, read along the row.

    This is the content of the paper's Figure 3. Blue says that the row's method ranks better than the column's, orange
    worse; the darker, the smaller p. Rows and columns are ordered by mean rank, best first. Up to ten methods the
    p-values are printed in the squares.

    Args:
        p_values: symmetric, methods × methods, such as from `conover`.
        mean_ranks: mean rank by method, 1 is best.
        title: printed above.

    Raises:
        UserError: the two don't name the same methods, or a p-value is missing.
    """
    ranks = pd.Series(mean_ranks, dtype=float).sort_values(kind="stable")
    if set(ranks.index) != set(p_values.index) or set(ranks.index) != set(p_values.columns):
        raise UserError("p_values and mean_ranks must name the same methods")
    p = p_values.loc[ranks.index, ranks.index].to_numpy(dtype=np.float64)
    if np.isnan(p).any():
        raise UserError("p_values must hold a number for every pair; got NaN")
    k = len(ranks)
    strength = np.searchsorted(_LIMITS, p, side="left")
    better = ranks.to_numpy()[:, None] <= ranks.to_numpy()[None, :]
    code = np.where(strength == 3, 6, np.where(better, strength, strength + 3))
    np.fill_diagonal(code, 7)
    names = [wrapped(name, 28) for name in ranks.index]
    wide, high = label_size(names)
    cell = max(0.55 if k <= 10 else 0.3, high + 0.08)
    side, key = k * cell, 2.1
    width = max(wide + 0.3 + side + key, label_size([title], FONT_SIZE + 1)[0] + 0.2)
    height = max(side + wide + 0.3, 2.6) + 0.35
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(((wide + 0.2) / width, (height - 0.4 - side) / height, side / width, side / height))
    axes.imshow(code, cmap=ListedColormap([*_BETTER, *_WORSE, _NOTHING, _DIAGONAL]), vmin=-0.5, vmax=7.5, aspect="auto")
    axes.set_xticks(range(k), names, rotation=90, fontsize=FONT_SIZE, color=INK, parse_math=False)
    axes.set_yticks(range(k), names, fontsize=FONT_SIZE, color=INK, parse_math=False)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if k <= 10:
        for i, j in np.argwhere(~np.eye(k, dtype=bool)):
            shade = "white" if code[i, j] in (0, 1, 3) else INK
            axes.text(j, i, _short(p[i, j]), ha="center", va="center", fontsize=FONT_SIZE - 1.5, color=shade)
    patches = [
        Patch(color=colour, label=f"{word}, p ≤ {limit:g}")
        for word, colours in (("row better", _BETTER), ("row worse", _WORSE))
        for colour, limit in zip(colours, _LIMITS, strict=True)
    ]
    patches.append(Patch(color=_NOTHING, label=f"p > {_LIMITS[-1]:g}"))
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=FONT_SIZE - 0.5)
    caption(figure, title)
    return figure


def _short(p: float) -> str:
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".lstrip("0") if p < 0.1 else f"{p:.2f}".lstrip("0") if p < 0.995 else "1"


def performance_plot(profile: Profile, *, title: str = "", largest: float | None = None) -> Figure:
    """Draw the share of blocks on which a method is within a factor τ of the best, a stair a method.

    A method whose stair is above another's is within the factor more often; the height at τ = 1 is how often it is the
    best. The legend is in the order of the area under the stairs.

    Args:
        profile: from `performance_profile`.
        title: printed above.
        largest: where the axis of τ ends; by default it holds 98 % of the finite ratios, and the axis label says what
            is beyond.

    Raises:
        UserError: ``largest`` is not above 1.
    """
    ratios = profile.ratios
    finite = ratios.to_numpy()[np.isfinite(ratios.to_numpy())]
    if largest is None:
        largest = max(1.0 + 1e-3, float(np.quantile(finite, 0.98)) * 1.01)
    if largest <= 1:
        raise UserError(f"largest must be above 1, got {largest}")
    grid = np.concatenate([[1.0], np.unique(finite[(finite > 1) & (finite < largest)]), [largest]])
    heights = {name: (ratios[name].to_numpy()[:, None] <= grid[None, :]).mean(axis=0) for name in ratios.columns}
    area = {name: float((height[:-1] * np.diff(np.log(grid))).sum()) for name, height in heights.items()}
    names = {name: wrapped(name) for name in sorted(heights, key=lambda name: -area[name])}
    key_width, _ = label_size(names.values())
    key_height = sum(0.08 + 0.165 * (name.count("\n") + 1) for name in names.values())
    width, height = 5.2 + key_width + 0.8, max(3.4, key_height + 0.9)
    width = max(width, label_size([title], FONT_SIZE + 1)[0] + 1)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.75 / width, 0.6 / height, 4.3 / width, (height - 1.0) / height))
    for name, label in names.items():
        dashes, colour = divmod(list(ratios.columns).index(name), len(COLOURS))
        (line,) = axes.step(grid, heights[name], where="post", label=label, lw=1.6, color=COLOURS[colour])
        line.set(linestyle=LINE_STYLES[dashes % len(LINE_STYLES)])
    beyond = float((ratios.to_numpy() > largest).mean())
    note = f"; {100 * beyond:.2g} % of results lie beyond" if beyond else ""
    axes.set_xlabel(f"within a factor τ of the best{note}", fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel("share of blocks", fontsize=FONT_SIZE, color=INK)
    if largest > 4:
        axes.set_xscale("log", base=2)
    axes.set(xlim=(1, largest), ylim=(0, 1.02))
    style(axes)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False, fontsize=FONT_SIZE)
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption(figure, title)
    return figure


def paired_difference_plot(
    differences: pd.DataFrame,
    intervals: Mapping[str, Interval | None] | None = None,
    *,
    scale: float = 100.0,
    label: str = "difference in accuracy, points",
    title: str = "",
) -> Figure:
    """Draw paired differences to the control as dots, a row a method, with their mean (diamond) and its interval (bar).

    The axis holds the means, the intervals and 95 % of the dots; dots beyond it are triangles on its edge, so that one
    collapsed run doesn't hide the rest.

    Args:
        differences: a row a pair (repeat or data set), a column a method: ``comparison.differences()``.
        intervals: by method: ``comparison.intervals()``.
        scale: factor for what is shown; 100 makes fractions into percentage points.
        label: of the axis.
        title: printed above.

    Raises:
        UserError: no difference, or one that is not a finite number.
    """
    values = differences.to_numpy(dtype=np.float64) * scale
    if values.size == 0 or not np.isfinite(values).all():
        raise UserError("differences must hold one or more finite numbers a method")
    names = [wrapped(name) for name in differences.columns]
    wide, high = label_size(names)
    row = max(0.34, high + 0.1)
    width = max(wide + 5.2, label_size([title], FONT_SIZE + 1)[0] + 0.3, wide + label_size([label])[0] + 0.5)
    height = row * len(names) + 1.0
    figure = Figure(figsize=(width, height))
    place = ((wide + 0.35) / width, 0.55 / height, (width - wide - 0.6) / width, row * len(names) / height)
    axes = figure.add_axes(place)
    spans = {i: (intervals or {}).get(str(name)) for i, name in enumerate(differences.columns)}
    held = [0.0, *values.mean(axis=0), *np.quantile(values, [0.025, 0.975])]
    held += [scale * bound for span in spans.values() if span is not None for bound in (span.low, span.high)]
    margin = 0.08 * (max(held) - min(held)) or 1.0
    limits = float(min(held) - margin), float(max(held) + margin)
    for i in range(values.shape[1]):
        _row(axes, i, values[:, i], spans[i], scale, limits)
    axes.axvline(0, color=INK, lw=0.8, ls="--", zorder=1)
    axes.set(xlim=limits, ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names, fontsize=FONT_SIZE, color=INK, parse_math=False)
    axes.set_xlabel(label, fontsize=FONT_SIZE, color=INK, parse_math=False)
    style(axes, grid="x")
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    caption(figure, title)
    return figure


def _row(axes: Axes, y: int, values: Floats, span: Interval | None, scale: float, limits: tuple[float, float]) -> None:
    # A fixed spread up and down: equal differences stay visible side by side, and the figure is the same every time.
    order = np.argsort(np.argsort(values, kind="stable"))
    offsets = ((order * 0.618034) % 1 - 0.5) * 0.42
    inside = (values >= limits[0]) & (values <= limits[1])
    axes.plot(values[inside], y + offsets[inside], "o", ms=3.2, color="#56B4E9", alpha=0.75, mew=0, zorder=2)
    for edge, marker, beyond, side, shift in (
        (limits[0], "<", values < limits[0], "left", 9),
        (limits[1], ">", values > limits[1], "right", -9),
    ):
        if beyond.any():
            axes.plot([edge], [y], marker, ms=7, color="#56B4E9", clip_on=False, zorder=2)
            text = axes.annotate(str(beyond.sum()), (edge, y), xytext=(shift, 0), textcoords="offset points")
            text.set(ha=side, va="center", fontsize=FONT_SIZE - 2, color=INK)
    if span is not None:
        axes.plot([scale * span.low, scale * span.high], [y, y], color="#D55E00", lw=2.2, zorder=3)
    axes.plot([values.mean()], [y], "D", ms=5.5, color="#D55E00", mec="white", mew=0.6, zorder=4)
