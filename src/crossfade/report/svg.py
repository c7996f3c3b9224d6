"""Small line drawings: axes, lines, dots and bars as SVG text.

Written by hand rather than with matplotlib for what a page needs: colours that follow the reader's dark or light mode
(classes, no colours), no ids that could collide, a fixed order of bytes, and a tenth of the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360


@dataclass(frozen=True)
class Axis:
    """A map from values in [low, high] to places in [start, end]; on a log axis low must be positive."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            value, low, high = math.log(max(value, self.low)), math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the axis, about ``count`` of them."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in factors if low <= m * 10.0**d <= high]
        if len(ticks) <= count + 2:
            return ticks
    return ticks[:: math.ceil(len(ticks) / count)]


def span(values: Iterable[float], *, include: Sequence[float] = (), least: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest finite value with a little room, at least ``least`` apart; (0, 1) without any."""
    finite = [v for v in (*values, *include) if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    lacking = max(least, abs(high) * 1e-6, 1e-12) - (high - low)
    if lacking > 0:
        low, high = low - lacking / 2, high + lacking / 2
    room = 0.04 * (high - low)
    return low - room, high + room


def log_axis(values: Iterable[float], start: float, end: float, *, ratio: float = 30.0) -> Axis:
    """Return an axis for values that are not negative, logarithmic where they span more than ``ratio``."""
    finite = [v for v in values if math.isfinite(v)]
    positive = [v for v in finite if v > 0.0]
    if positive and max(positive) > ratio * min(positive):
        top = max(positive)
        return Axis(max(min(positive), top * 1e-6) * 0.9, top * 1.1, start, end, log=True)
    return Axis(*span(finite, least=0.01), start, end)


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".").replace("-0.", "-.").removeprefix("0") or "0"


def _tick_text(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Write a label; ``style`` is one of name, end and mid, or several."""
    styled = f' class="{style}"' if style else ""
    return f'<text x="{_number(x)}" y="{_number(y)}"{styled}>{escape(words)}</text>'


def frame(x: Axis, y: Axis, *, x_title: str, y_ticks: int = 5) -> str:
    """Draw horizontal grid lines with their values, the values of the x axis, and its title."""
    left, right, bottom = x.start, x.end, y.start
    parts = []
    for tick in y.ticks(y_ticks):
        parts.append(f'<path class="grid" d="M{_number(left)} {_number(y(tick))}H{_number(right)}"/>')
        parts.append(text(left - 5, y(tick) + 4, _tick_text(tick), "end"))
    parts += [text(x(tick), bottom + 15, _tick_text(tick), "mid") for tick in x.ticks(5)]
    parts.append(text((left + right) / 2, bottom + 31, x_title, "mid"))
    return "".join(parts)


def grid_x(x: Axis, top: float, bottom: float, *, title: str, zero: bool = True) -> str:
    """Draw vertical grid lines with their values below; zero stands out."""
    parts = []
    for tick in x.ticks(5):
        style = "zero" if zero and abs(tick) < 1e-12 else "grid"
        parts.append(f'<path class="{style}" d="M{_number(x(tick))} {_number(top)}V{_number(bottom)}"/>')
        parts.append(text(x(tick), bottom + 15, _tick_text(tick), "mid"))
    parts.append(text((x.start + x.end) / 2, bottom + 31, title, "mid"))
    return "".join(parts)


def line(points: Iterable[tuple[float, float]], style: str) -> str:
    """Draw a line through places on the page; it breaks where one isn't finite."""
    path, pen, at = [], False, (0, 0)
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = False
            continue
        here = (round(x * 10), round(y * 10))  # tenths, as integers: the rounding doesn't add up along the line
        if pen:
            step = _number((here[1] - at[1]) / 10)
            path.append(f"l{_number((here[0] - at[0]) / 10)}{'' if step.startswith('-') else ' '}{step}")
        else:
            path.append(f"M{_number(here[0] / 10)} {_number(here[1] / 10)}")
            pen = True
        at = here
    return f'<path class="line {style}" d="{"".join(path)}"/>' if path else ""


def dots(points: Iterable[tuple[float, float]], style: str) -> str:
    """Draw round dots, all in one path."""
    path = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points if math.isfinite(x) and math.isfinite(y))
    return f'<path class="dots {style}" d="{path}"/>' if path else ""


def bar(low: float, high: float, y: float, style: str) -> str:
    """Draw a horizontal interval with its ends."""
    low_, high_, y_ = _number(low), _number(high), _number(y)
    ends = "".join(f"M{end} {_number(y - 4)}v8" for end in (low_, high_))
    return f'<path class="bar {style}" d="M{low_} {y_}H{high_}{ends}"/>'


def mean_mark(x: float, y: float, style: str) -> str:
    """Draw a diamond."""
    return f'<path class="mean {style}" d="M{_number(x)} {_number(y - 6)}l5 6-5 6-5-6z"/>'


def window(body: str, left: float, top: float, right: float, bottom: float) -> str:
    """Show the part of ``body`` in the rectangle, with a line's width around it; a clip path would need an id."""
    left, top, width, height = left - 2, top - 2, right - left + 4, bottom - top + 4
    box = " ".join(map(_number, (left, top, width, height)))
    place = f'x="{_number(left)}" y="{_number(top)}" width="{_number(width)}" height="{_number(height)}"'
    return f'<svg {place} viewBox="{box}" overflow="hidden">{body}</svg>'


def drawing(parts: Iterable[str], height: float, name: str) -> Markup:
    """Put the parts together as one picture, ``name`` being what a screen reader says for it."""
    body = "".join(part for part in parts if part)
    box, label = f"0 0 {WIDTH} {_number(height)}", escape(name)
    return Markup(f'<svg class="chart" viewBox="{box}" role="img" aria-label="{label}">{body}</svg>')
