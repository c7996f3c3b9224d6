"""Results as text and as plain data: numbers, lists and tables for people, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeAlias

#: What JSON knows.
Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None

MISSING = "—"


def decimal(value: float | None, digits: int = 3) -> str:
    """Write a number as ``0.153``; a dash stands for a missing one, and zero has no minus sign."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    written = f"{value:,.{digits}f}".replace(",", "\u202f")
    return (written.removeprefix("-") if float(f"{value:.{digits}f}") == 0 else written).replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Write a difference as ``+0.041``, ``−0.020`` or ``0.000``."""
    written = decimal(value, digits)
    return f"+{written}" if value > 0 and float(f"{value:.{digits}f}") != 0 else written


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction in percent, without the percent sign: ``86.67``."""
    return decimal(None if fraction is None else 100 * fraction, digits)


def points(fraction: float, digits: int = 2) -> str:
    """Write a difference of fractions in percentage points: ``+0.41``."""
    return signed(100 * fraction, digits)


def points_range(low: float, high: float, digits: int = 2) -> str:
    """Write an interval of differences of fractions in percentage points: ``−1.00 to +0.92``."""
    return f"{points(low, digits)} to {points(high, digits)}"


def region_points(region: float) -> str:
    """Write the size of a region of practical equivalence in percentage points, unrounded: ``1.0`` or ``0.25``."""
    return str(float(f"{100 * region:g}"))


def level(fraction: float) -> str:
    """Write a level of confidence or significance: ``95 %``."""
    return f"{100 * fraction:g} %"


def p_number(p: float, digits: int = 3) -> str:
    """Write a p-value for a table: ``0.012`` or ``< 0.001``, never 0."""
    return "< 0.001" if p < 0.001 else f"{p:.{digits}f}"


def p_value(p: float, digits: int = 3) -> str:
    """Write a p-value for a sentence: ``p = 0.012`` or ``p < 0.001``."""
    return f"p {p_number(p, digits)}" if p < 0.001 else f"p = {p_number(p, digits)}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 repeat``, ``10 repeats``, ``2 losses``, ``3 entries``, ``4 days``."""
    many = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        many = f"{noun[:-1]}ies"
    return f"{number:,} {noun if number == 1 else many}".replace(",", "\u202f")


def listed(items: Iterable[object], limit: int = 8) -> str:
    """Join names as ``a, b, c and 4 more``: enough to act on, never a screenful."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table for a terminal: the first column to the left, all others to the right."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    )


def plain(value: object) -> Plain:
    """Turn dataclasses, tuples and numpy's numbers into what JSON knows; NaN and infinity become ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        # What is concluded from a comparison belongs to the data, though it is computed (a property) and not stored.
        concluded = {name: getattr(value, name) for name in ("detectable", "outcome") if hasattr(value, name)}
        shown = {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
        return plain({**shown, **concluded})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"plain data expected, got {type(value).__name__}")
    return plain(item())
