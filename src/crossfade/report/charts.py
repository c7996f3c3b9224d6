"""The two kinds of drawing on a page: dots by row, and lines; each is one SVG element."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from crossfade.report import svg

_TOP, _LEFT, _RIGHT = 6.0, 44.0, 352.0
_DOT, _HIGHEST = 4.8, 6  # pixels between stacked dots, and how many a row has room for
_NAME_LENGTH = 44  # characters of 13 px text that fit the width of a drawing


@dataclass(frozen=True)
class DotRow:
    """One row of a dot chart: single differences, their mean, and its interval where there is one."""

    label: str
    style: str
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """One line of a line chart."""

    style: str
    x: Sequence[float]
    y: Sequence[float]


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _slots(places: Sequence[float]) -> list[int]:
    return [round(place / _DOT) for place in places]


def _stacked(places: Sequence[float], y: float, room: float) -> list[tuple[float, float]]:
    """Stack dots that would hide each other, from ``y`` upwards within ``room``."""
    taken: dict[int, int] = {}
    most = max(Counter(_slots(places)).values(), default=1)
    step = min(_DOT, room / most)
    stacked = []
    for place, slot in zip(places, _slots(places), strict=True):
        stacked.append((place, y - step * taken.get(slot, 0)))
        taken[slot] = taken.get(slot, 0) + 1
    return stacked


def dot_chart(rows: Sequence[DotRow], *, title: str, name: str, least: float) -> Markup:
    """Draw differences as dots around a zero line, a row each, with the mean (diamond) and its interval (bar).

    Args:
        rows: from top to bottom.
        title: of the x axis.
        name: what a screen reader says for the drawing.
        least: smallest width of the x axis, so that rounding doesn't fill the page.
    """
    every = [v for row in rows for v in (*row.values, row.mean, *(row.interval or ()))]
    x = svg.Axis(*svg.span(every, include=(0.0,), least=least), 10.0, _RIGHT - 2.0)
    places = [[x(v) for v in row.values if math.isfinite(v)] for row in rows]
    rooms = [_DOT * min(max(Counter(_slots(at)).values(), default=0), _HIGHEST) for at in places]
    bottom = _TOP + sum(44.0 + room for room in rooms)
    parts = [svg.grid_x(x, _TOP, bottom, title=title)]
    y = _TOP - 9.0
    for row, at, room in zip(rows, places, rooms, strict=True):
        y += 44.0 + room
        parts.append(svg.text(x.start, y - room - 15.0, _shortened(row.label), "name halo"))
        parts.append(svg.dots(_stacked(at, y - 9.0, room), row.style))
        if row.interval is not None and all(map(math.isfinite, row.interval)):
            parts.append(svg.bar(x(row.interval[0]), x(row.interval[1]), y, row.style))
        if math.isfinite(row.mean):
            parts.append(svg.mean_mark(x(row.mean), y, row.style))
    return svg.drawing(parts, bottom + 36, name)


def line_chart(
    lines: Sequence[Line],
    *,
    x_title: str,
    name: str,
    x_range: tuple[float, float],
    least: float = 0.02,
    log: bool = False,
    height: float = 200.0,
    y_low: float | None = None,
    settled: float = 0.0,
) -> Markup:
    """Draw lines over a common axis.

    Args:
        lines: drawn in this order, the last on top.
        x_title: of the x axis.
        name: what a screen reader says for the drawing.
        x_range: first and last x.
        least: smallest height of the y axis.
        log: make the y axis logarithmic where the values span more than a factor of 30.
        height: in pixels of a drawing that is 360 wide.
        y_low: where the y axis begins; by default where the values do.
        settled: fraction of each line, from its start, that may lie outside the y axis, so that a steep beginning
            doesn't flatten the rest.
    """
    values = [v for line in lines for v in line.y[int(settled * len(line.y)) :]]
    bottom = height - 38.0
    if log:
        y = svg.log_axis(values, bottom, _TOP)
    else:
        low, high = svg.span(values, include=() if y_low is None else (y_low,), least=least)
        y = svg.Axis(low if y_low is None else y_low, high, bottom, _TOP)
    x = svg.Axis(*x_range, _LEFT, _RIGHT)
    parts = [svg.frame(x, y, x_title=x_title)]
    paths = []
    for line in lines:
        places = ((x(a), y(b) if math.isfinite(b) else math.nan) for a, b in zip(line.x, line.y, strict=True))
        paths.append(svg.line(places, line.style))
    parts.append(svg.window("".join(paths), _LEFT, _TOP, _RIGHT, bottom))
    return svg.drawing(parts, height, name)


def thinned(length: int, most: int) -> list[int]:
    """Return at most ``most`` places of ``length``, evenly spread, the first and the last among them."""
    kept = min(length, most)
    return sorted({round(k * (length - 1) / max(kept - 1, 1)) for k in range(kept)})
