"""The mean over all processes' targets under DDP, for plain loops, Accelerate and Lightning.

DDP averages gradients over processes. The average of the processes' own means is not the mean over all targets if the
processes have different numbers of them (padding, ignored labels), and a process without any target makes it NaN for
all. The same holds for the micro-batches of gradient accumulation. The Hugging Face ``Trainer`` and TRL take care of
this themselves.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from crossfade._tensors import as_index, class_dim, target_weight
from crossfade.integrations._shared import with_reduction
from crossfade.losses import Fade


def global_mean(
    criterion: Fade,
    logits: Tensor,
    target: Tensor,
    *,
    count: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Return the loss whose DDP-averaged gradient is that of the mean over all processes' targets: world x sum / count.

    Every process must call it the same number of times (it sums the count over processes, unless ``count`` is given).
    Its value is this process's share of the global mean; without ``torch.distributed`` it is the mean.

    Args:
        criterion: everything of it counts but its ``reduction``.
        logits, target: as for the criterion. A process may have only ignored targets: its loss is 0, with a zero
            gradient.
        count: :func:`global_count` of all targets of one optimizer step, when several calls make up the step: their
            losses then add up to the mean over all of them.

    Raises:
        TypeError: a criterion that isn't a ``Fade``.
        ValueError: a criterion with a ``z_loss`` and class weights, whose mean divides the two by different counts.

    >>> import torch
    >>> from crossfade import CrossfadeLoss
    >>> criterion = CrossfadeLoss()
    >>> logits, target = torch.zeros(4, 3), torch.tensor([0, 1, 2, -100])
    >>> bool(global_mean(criterion, logits, target) == criterion(logits, target))
    True
    """
    total: Tensor = with_reduction(criterion, "sum")(logits, target)
    if criterion.z_loss and criterion.weight is not None:
        raise ValueError("z_loss counts all targets alike: expected a criterion without weight, or z_loss=0")
    if count is None:
        count = global_count(criterion, target, group=group)
    world = dist.get_world_size(group) if _several() else 1
    # No target anywhere: 0 / 1, where the mean would be NaN.
    return total * (world / count.masked_fill(count == 0, 1.0))


def global_count(criterion: Fade, *targets: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the number that ``reduction="mean"`` divides by, for all given targets on all processes.

    It is the number of targets that aren't ignored, each counted with its class weight if the criterion has them: a
    0-dim float32 tensor.
    """
    total = sum(_count(criterion, target) for target in targets)
    if not isinstance(total, Tensor):
        raise ValueError("targets must hold at least one tensor, got none")
    if _several():
        dist.all_reduce(total, group=group)
    return total


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _count(criterion: Fade, target: Tensor) -> Tensor:
    if target.is_floating_point():  # class probabilities: every row counts once
        rows = target[..., criterion.shift :, 0] if criterion.shift else target.select(class_dim(target), 0)
        return torch.tensor(rows.numel(), dtype=torch.float32, device=target.device)
    target = as_index(target)[..., criterion.shift :] if criterion.shift else as_index(target)
    ignored = target == criterion.ignore_index
    if criterion.weight is None:
        return (~ignored).sum().float()
    return target_weight(criterion.weight.float(), target, ignored).sum()
