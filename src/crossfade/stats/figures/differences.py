"""Paired differences to the control: every pair a dot, the mean and its interval over them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossfade.errors import UserError
from crossfade.stats.figures.base import FONT_SIZE, INK, label_size, literal, wrapped
from crossfade.stats.intervals import Interval
from crossfade.stats.ranking import Floats


def paired_difference_plot(
    differences: pd.DataFrame,
    intervals: Mapping[str, Interval | None] | None = None,
    *,
    scale: float = 100.0,
    label: str = "difference in accuracy, points",
    title: str = "",
) -> Figure:
    """A row a method: its paired differences to the control as dots, their mean as a diamond, the interval as a bar.

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
    axes = figure.add_axes(
        ((wide + 0.35) / width, 0.55 / height, (width - wide - 0.6) / width, row * len(names) / height)
    )
    spans = {i: (intervals or {}).get(str(name)) for i, name in enumerate(differences.columns)}
    low, high_end = _range(values, [span for span in spans.values() if span is not None], scale)
    for i in range(values.shape[1]):
        _row(axes, i, values[:, i], spans[i], scale, (low, high_end))
    axes.axvline(0, color=INK, lw=0.8, ls="--", zorder=1)
    axes.set(xlim=(low, high_end), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names, fontsize=FONT_SIZE, color=INK)
    literal(axes.get_yticklabels())
    axes.set_xlabel(label, fontsize=FONT_SIZE, color=INK, parse_math=False)
    axes.tick_params(axis="x", labelsize=FONT_SIZE, colors=INK)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)
    axes.set_axisbelow(True)
    figure.text(0.1 / width, 1 - 0.2 / height, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)
    return figure


def _range(values: Floats, spans: list[Interval], scale: float) -> tuple[float, float]:
    held = [0.0, *values.mean(axis=0), *np.quantile(values, [0.025, 0.975])]
    held += [scale * bound for span in spans for bound in (span.low, span.high)]
    margin = 0.08 * (max(held) - min(held)) or 1.0
    return float(min(held) - margin), float(max(held) + margin)


def _row(
    axes: Axes,
    y: int,
    values: Floats,
    span: Interval | None,
    scale: float,
    limits: tuple[float, float],
) -> None:
    # A fixed spread up and down: equal differences stay visible side by side, and the figure is the same every time.
    order = np.argsort(np.argsort(values, kind="stable"))
    offsets = ((order * 0.618034) % 1 - 0.5) * 0.42
    inside = (values >= limits[0]) & (values <= limits[1])
    axes.plot(values[inside], y + offsets[inside], "o", ms=3.2, color="#56B4E9", alpha=0.75, mew=0, zorder=2)
    for edge, marker, beyond in ((limits[0], "<", values < limits[0]), (limits[1], ">", values > limits[1])):
        if beyond.any():
            count = int(beyond.sum())
            axes.plot([edge], [y], marker, ms=7, color="#56B4E9", clip_on=False, zorder=2)
            axes.annotate(
                str(count), (edge, y), xytext=(9 if marker == "<" else -9, 0), textcoords="offset points",
                ha="left" if marker == "<" else "right", va="center", fontsize=FONT_SIZE - 2, color=INK,
            )  # fmt: skip
    if span is not None:
        axes.plot([scale * span.low, scale * span.high], [y, y], color="#D55E00", lw=2.2, zorder=3)
    axes.plot([values.mean()], [y], "D", ms=5.5, color="#D55E00", mec="white", mew=0.6, zorder=4)
