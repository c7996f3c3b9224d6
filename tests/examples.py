"""The number of examples that a property is tried on."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

_USUAL = 100  # what hypothesis draws where nothing is said; a profile with more of them draws more everywhere


def examples(count: int) -> settings:
    """Return the current profile's settings with ``count`` examples, or as many times more as the profile draws."""
    return settings(max_examples=count * settings().max_examples // _USUAL)
