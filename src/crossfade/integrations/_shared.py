"""What the integrations share: progress, and a criterion with another reduction."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar, runtime_checkable

from torch import nn

from crossfade._heart import Reduction
from crossfade.losses import CrossfadeLoss


@runtime_checkable
class Scheduled(Protocol):
    """A criterion whose weights follow a schedule: ``CrossfadeLoss`` and anything with the same verb."""

    schedule: object

    def at(self, progress: float) -> object: ...


C = TypeVar("C", bound=CrossfadeLoss)


def with_reduction(criterion: C, reduction: Reduction) -> C:
    """The same criterion with another reduction: weights are shared, also when ``criterion.at`` changes them later."""
    if not isinstance(criterion, CrossfadeLoss):
        raise TypeError(f"criterion must be a crossfade.CrossfadeLoss, got {type(criterion).__name__}")
    # A shallow copy shares the dict of buffers, so alpha and beta stay one and the same.
    other = copy.copy(criterion)
    other.reduction = reduction
    return other


def find_scheduled(module: nn.Module) -> list[Scheduled]:
    return [child for child in module.modules() if isinstance(child, Scheduled)]


def fraction(step: int, total: float) -> float:
    """Training done, in [0, 1]; beyond ``total`` a schedule stays at its end."""
    return min(step / total, 1.0)
