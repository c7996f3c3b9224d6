"""Helpers of several integrations: criteria with a schedule, and with another reduction."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar, runtime_checkable

from crossfade._reduction import Reduction
from crossfade.losses import Fade


@runtime_checkable
class Scheduled(Protocol):
    """A criterion whose parameters follow a schedule: a ``Fade``, or any other with the same method."""

    schedule: object

    def at(self, progress: float) -> object: ...


C = TypeVar("C", bound=Fade)


def with_reduction(criterion: C, reduction: Reduction) -> C:
    """Return the criterion with another reduction. Both share their parameters, also after later calls of ``at``."""
    if not isinstance(criterion, Fade):
        raise TypeError(f"criterion must be a crossfade.CrossfadeLoss, got {type(criterion).__name__}")
    # A shallow copy shares the dict of buffers, and with it the parameters.
    other = copy.copy(criterion)
    other.reduction = reduction
    return other
