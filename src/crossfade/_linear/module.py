"""The criterion of the fused form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from crossfade._heart import Reduction
from crossfade._linear.api import linear_crossfade_loss
from crossfade.losses import CrossfadeLoss
from crossfade.schedules import Schedule


class LinearCrossfadeLoss(CrossfadeLoss):
    """:class:`crossfade.CrossfadeLoss` fused with the output projection: see :func:`crossfade.linear_crossfade_loss`.

    Args:
        schedule, weight, ignore_index, label_smoothing, reduction: as :class:`crossfade.CrossfadeLoss`'s.
        softcap, memory_budget_mb: as :func:`crossfade.linear_crossfade_loss`'s.

    >>> import torch
    >>> criterion, lm_head = LinearCrossfadeLoss(), torch.nn.Linear(4, 10)
    >>> hidden, target = torch.zeros(3, 4), torch.tensor([1, 2, 3])
    >>> loss = criterion.at(0.5)(hidden, lm_head.weight, target, bias=lm_head.bias)
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        softcap: float | None = None,
        memory_budget_mb: float | None = None,
    ) -> None:
        super().__init__(
            schedule, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction
        )
        self.softcap = softcap
        self.memory_budget_mb = memory_budget_mb

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        *,
        bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        return_stats: bool = False,
    ) -> Any:
        """The loss, or (loss, stats). ``linear_weight`` and ``bias`` are the output projection's."""
        return linear_crossfade_loss(  # type: ignore[call-overload, misc]
            hidden,
            linear_weight,
            target,
            bias=bias,
            alpha=self.alpha,
            beta=self.beta,
            weight=self.weight,
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            softcap=self.softcap,
            memory_budget_mb=self.memory_budget_mb,
            return_stats=return_stats,
        )
