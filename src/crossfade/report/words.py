"""Numbers as the page writes them: percent, points with a sign, counts with their noun."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["MISSING", "count", "decimal", "listed", "percent", "points", "points_range", "signed", "signed_range"]

MISSING = "—"


def decimal(value: float, digits: int = 3) -> str:
    """``0.153``; a dash where there is no number, and no minus sign on a zero."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    written = f"{value:,.{digits}f}".replace(",", "\u202f")
    return (written.removeprefix("-") if float(f"{value:.{digits}f}") == 0 else written).replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """``+0.041``, ``−0.020``, ``0.000``."""
    written = decimal(value, digits)
    return f"+{written}" if value > 0 and float(f"{value:.{digits}f}") != 0 else written


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction in percent, without the sign for percent."""
    return decimal(100.0 * fraction, digits)


def points(fraction: float, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return signed(100.0 * fraction, digits)


def signed_range(low: float, high: float, digits: int = 3) -> str:
    """``−0.010 to +0.092``."""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def points_range(low: float, high: float) -> str:
    """An interval of differences of fractions, in percentage points."""
    return signed_range(100.0 * low, 100.0 * high, 2)


_PLURALS = {"loss": "losses", "other loss": "other losses", "reliable loss": "reliable losses", "entry": "entries"}


def count(number: int, noun: str) -> str:
    """``1 repeat``, ``10 repeats``."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}".replace(",", "\u202f")


def listed(items: Iterable[str], limit: int = 12) -> str:
    """``a, b, c and 4 more``."""
    names = list(items)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
