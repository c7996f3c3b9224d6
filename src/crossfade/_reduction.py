"""The options of ``F.cross_entropy``, and the reduction of a loss's rows or classes as they say."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade._tensors import along_classes, as_index, check_smoothing, class_dim, is_soft, smoothed, target_weight

Reduction: TypeAlias = Literal["none", "mean", "sum"]


class CrossEntropyOptions(NamedTuple):
    """The options that every loss shares with ``F.cross_entropy``."""

    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    reduction: Reduction = "mean"


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless the reduction is "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def reduce_rows(rows: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Reduce the losses of rows as ``F.cross_entropy`` reduces its own, in the same order of sums.

    ``F.nll_loss`` over a single class adds up: ``torch.sum`` adds in another order, and the bits would differ.
    """
    weight, ignore_index, _, reduction = options
    ignored = target == ignore_index
    only_class = torch.where(ignored, -100, 0)

    def reduce(values: Tensor, how: str) -> Tensor:
        if values.dim() == 0:
            return F.nll_loss(-values.unsqueeze(0), only_class, reduction=how)
        return F.nll_loss(-values.unsqueeze(1), only_class, reduction=how)

    if weight is None:
        return reduce(rows, reduction)
    row_weight = target_weight(weight.to(rows.dtype), target, ignored)
    if reduction != "mean":
        return reduce(rows * row_weight, reduction)
    return reduce(rows * row_weight, "sum") / reduce(row_weight, "sum")


def reduce_classes(scores: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Reduce the scores (N, C, d1, ...) as ``F.cross_entropy`` reduces log_softmax.

    A score is minus the loss that the row would have if the class were its target.
    """
    weight, ignore_index, label_smoothing, reduction = options
    target = as_index(target)
    if weight is not None:
        weight = weight.to(scores.dtype)
    if is_soft(scores, target):
        dim = class_dim(scores)
        wrong_weight = weight is not None and weight.shape != (scores.shape[dim],)
        if wrong_weight or not target.is_floating_point() or ignore_index >= 0 or not 0 <= label_smoothing <= 1:
            return _refusal(scores, target, options._replace(weight=weight))
        check_reduction(reduction)
        if label_smoothing > 0:
            target = smoothed(target.to(scores.dtype), label_smoothing, scores.shape[dim])
        product = scores * target
        if weight is not None:
            product = product * along_classes(weight, scores)
        if reduction == "none":
            return -product.sum(dim)
        total = -product.sum()
        return total if reduction == "sum" else total / (scores.numel() / scores.shape[dim])
    if not label_smoothing <= 1:
        return _refusal(scores, target, options._replace(weight=weight))
    picked = F.nll_loss(scores, target, weight, None, ignore_index, None, reduction)
    if label_smoothing <= 0:  # like F.cross_entropy, which takes a negative value for none
        return picked
    dim = class_dim(scores)
    spread = -(scores if weight is None else scores * along_classes(weight, scores)).sum(dim)
    ignored = target == ignore_index
    spread = spread.masked_fill(ignored, 0.0)
    if reduction == "sum":
        spread = spread.sum()
    elif reduction == "mean":
        valid = ~ignored if weight is None else target_weight(weight, target, ignored)
        spread = spread.sum() / valid.sum()
    return (1 - label_smoothing) * picked + spread * (label_smoothing / scores.shape[dim])


def _refusal(scores: Tensor, target: Tensor, options: CrossEntropyOptions) -> Tensor:
    """Raise what ``F.cross_entropy`` raises for arguments that it refuses, and for a NaN that it takes for 0."""
    check_smoothing(options.label_smoothing)
    return F.cross_entropy(scores, target, **options._asdict())
