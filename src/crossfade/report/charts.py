"""The drawings on a page: dots by row, and lines; each is one SVG element.

Written by hand rather than with matplotlib for what a page needs: colours that follow the reader's dark or light mode
(classes, no colours), no ids that could collide, a fixed order of bytes, and a tenth of the size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from crossfade.stats.words import listed, signed

_WIDTH, _HEIGHT, _TOP, _LEFT, _RIGHT = 360, 200.0, 6.0, 44.0, 352.0
_DOT, _HIGHEST = 4.8, 4  # pixels between stacked dots, and how many a row has room for
_NAME_LENGTH, _CHARACTER = 20, 6.6  # of a name in a chart of dots: the most characters, and their width in pixels


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
    hover: str = ""


def dot_chart(rows: Sequence[DotRow], *, title: str, name: str, least: float) -> Markup:
    """Draw differences as dots around a zero line, a row each, with the mean (diamond) and its interval (bar).

    Names stand left of the rows, and a row says its numbers under the pointer. ``name`` is what a screen reader says.
    The x axis is at least ``least`` wide: rounding errors don't fill the page.
    """
    every = [0.0, *(v for row in rows for v in (*row.values, row.mean, *(row.interval or ())))]
    labels = [_shortened(row.label) for row in rows]
    left = 14.0 + _CHARACTER * max(map(len, labels), default=0)
    x = Axis(*span(every, least=least), left, _RIGHT - 2.0)
    places = [[x(v) for v in row.values if math.isfinite(v)] for row in rows]
    raised = [_raised(at) for at in places]
    bottom = _TOP + sum(22.0 + room for _, room in raised)
    parts = [_x_axis(x, bottom, title, grid=True)]
    y = _TOP - 5.0
    for row, label, at, (heights, room) in zip(rows, labels, places, raised, strict=True):
        y += 22.0 + room
        drawn = [f"<title>{escape(_hover(row))}</title>", _text(0.0, y + 4.0, label, "name")]
        # An invisible strip: the numbers show wherever the pointer is in the row.
        drawn.append(f'<path class="strip" d="M0 {_number(y - room - 9)}H{_WIDTH}v{_number(room + 20)}H0z"/>')
        path = "".join(f"M{_number(a)} {_number(y - 9.0 - b)}h0" for a, b in zip(at, heights, strict=True))
        drawn.append(f'<path class="dots {row.style}" d="{path}"/>' if path else "")
        if row.interval is not None and all(map(math.isfinite, row.interval)):
            low, high = (_number(x(bound)) for bound in row.interval)
            ends = "".join(f"M{end} {_number(y - 4)}v8" for end in (low, high))
            drawn.append(f'<path class="bar {row.style}" d="M{low} {_number(y)}H{high}{ends}"/>')
        if math.isfinite(row.mean):
            diamond = f"M{_number(x(row.mean))} {_number(y - 6)}l5 6-5 6-5-6z"
            drawn.append(f'<path class="mean {row.style}" d="{diamond}"/>')
        parts.append(f"<g>{''.join(drawn)}</g>")
    return _drawing(parts, bottom + 36, name)


def _shortened(label: str) -> str:
    """Return a name of at most ``_NAME_LENGTH`` characters: its beginning and its end, since names differ in both."""
    half = _NAME_LENGTH // 2
    return label if len(label) <= _NAME_LENGTH else f"{label[:half]}…{label[1 - half :]}"


def _hover(row: DotRow) -> str:
    bounds = "" if row.interval is None else f" ({signed(row.interval[0], 2)} to {signed(row.interval[1], 2)})"
    return f"{row.label}: {signed(row.mean, 2)}{bounds}; dots: {listed((signed(v, 2) for v in row.values), 30)}"


def y_axis(lines: Sequence[Line], *, least: float = 0.02, log: bool = False, settled: float = 0.0) -> Axis:
    """Return the y axis for a `line_chart`, which spans at least ``least``.

    ``log`` makes it logarithmic where the values span more than a factor of 30. The fraction ``settled`` of each line,
    from its start, may lie outside the axis: a steep beginning would flatten the rest.
    """
    values = [v for line in lines for v in line.y[int(settled * len(line.y)) :]]
    bottom = _HEIGHT - 38.0
    return log_axis(values, bottom, _TOP) if log else Axis(*span(values, least=least), bottom, _TOP)


def line_chart(lines: Sequence[Line], y: Axis, *, x_title: str, name: str, x_range: tuple[float, float]) -> Markup:
    """Draw lines over common axes, the last on top, in a drawing of 360 by 200 pixels.

    ``y`` is from `y_axis`, and ``name`` what a screen reader says.
    """
    x = Axis(*x_range, _LEFT, _RIGHT)
    parts, paths = [], []
    for tick in y.ticks():
        parts.append(f'<path class="grid" d="M{_number(x.start)} {_number(y(tick))}H{_number(x.end)}"/>')
        parts.append(_text(x.start - 5, y(tick) + 4, _tick_text(tick), "end"))
    for line in lines:
        places = ((x(a), y(b) if math.isfinite(b) else math.nan) for a, b in zip(line.x, line.y, strict=True))
        paths.append(path_through(places, line.style, line.hover))
    return _drawing([*parts, _x_axis(x, y.start, x_title), _window("".join(paths), y.start)], _HEIGHT, name)


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Return at most ``most`` of the values, evenly spread, the first and the last among them."""
    kept = min(len(values), most)
    return [values[k] for k in sorted({round(k * (len(values) - 1) / max(kept - 1, 1)) for k in range(kept)})]


@dataclass(frozen=True)
class Axis:
    """A map from values in [low, high] to places in [start, end]; on a log axis low must be positive."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the axis, about ``count`` of them."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1, 2, 5), (1, 3), (1,)):
                ticks = [m * 10.0**d for d in decades for m in factors if self.low <= m * 10.0**d <= self.high]
                if len(ticks) <= count + 2:
                    return ticks
            return ticks[:: math.ceil(len(ticks) / count)]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def _raised(places: Sequence[float]) -> tuple[list[float], float]:
    """Return how far up each dot stands so that none hides another, and the room that their row needs for it."""
    slots = [round(place / _DOT) for place in places]
    most = max(Counter(slots).values(), default=1)
    room = _DOT * min(most, _HIGHEST) if places else 0.0
    step = min(_DOT, room / most)
    below: Counter[int] = Counter()
    heights = []
    for slot in slots:
        heights.append(step * below[slot])
        below[slot] += 1
    return heights, room


def span(values: Iterable[float], *, least: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest finite value with a little room, at least ``least`` apart; (0, 1) without any."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    lacking = max(least, abs(high) * 1e-6, 1e-12) - (high - low)
    if lacking > 0:
        low, high = low - lacking / 2, high + lacking / 2
    room = 0.04 * (high - low)
    return low - room, high + room


def log_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """Return an axis for values that are not negative, logarithmic where they span more than a factor of 30."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min((v for v in finite if v > 0.0), default=math.inf), max(finite, default=0.0)
    if high > 30.0 * low:
        return Axis(max(low, high * 1e-6) * 0.9, high * 1.1, start, end, log=True)
    return Axis(*span(finite, least=0.01), start, end)


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".").replace("-0.", "-.").removeprefix("0") or "0"


def _tick_text(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _text(x: float, y: float, words: str, style: str) -> str:
    """Write a label; ``style`` is one of name, end and mid, or several."""
    return f'<text x="{_number(x)}" y="{_number(y)}" class="{style}">{escape(words)}</text>'


def _x_axis(x: Axis, bottom: float, title: str, *, grid: bool = False) -> str:
    """Draw the values below an x axis and its title, with vertical grid lines among which zero stands out."""
    parts = []
    for tick in x.ticks():
        if grid:
            style = "zero" if abs(tick) < 1e-12 else "grid"
            parts.append(f'<path class="{style}" d="M{_number(x(tick))} {_number(_TOP)}V{_number(bottom)}"/>')
        parts.append(_text(x(tick), bottom + 15, _tick_text(tick), "mid"))
    return "".join([*parts, _text((x.start + x.end) / 2, bottom + 31, title, "mid")])


def path_through(points: Iterable[tuple[float, float]], style: str, hover: str = "") -> str:
    """Draw a line through places on the page; it breaks where one isn't finite. ``hover`` shows under the pointer."""
    path: list[str] = []
    at: tuple[int, int] | None = None
    for x, y in points:
        # Tenths, as integers: the rounding doesn't add up along the line.
        here = (round(x * 10), round(y * 10)) if math.isfinite(x) and math.isfinite(y) else None
        if here and at:
            step = _number((here[1] - at[1]) / 10)
            path.append(f"l{_number((here[0] - at[0]) / 10)}{'' if step.startswith('-') else ' '}{step}")
        elif here:
            path.append(f"M{_number(here[0] / 10)} {_number(here[1] / 10)}")
        at = here
    title = f"<title>{escape(hover)}</title>" if hover else ""
    return f'<path class="line {style}" d="{"".join(path)}">{title}</path>' if path else ""


def _window(body: str, bottom: float) -> str:
    """Show the part of ``body`` in the frame, with a line's width around it; a clip path would need an id."""
    left, top, width, height = map(_number, (_LEFT - 2, _TOP - 2, _RIGHT - _LEFT + 4, bottom - _TOP + 4))
    place = f'x="{left}" y="{top}" width="{width}" height="{height}"'
    return f'<svg {place} viewBox="{left} {top} {width} {height}" overflow="hidden">{body}</svg>'


def _drawing(parts: Iterable[str], height: float, name: str) -> Markup:
    """Put the parts together as one picture, ``name`` being what a screen reader says for it."""
    box, label = f"0 0 {_WIDTH} {_number(height)}", escape(name)
    return Markup(f'<svg class="chart" viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>')
