"""The loss of every function here: logits -> ce = -log p_y -> g(ce), and the gradient g'(ce) * (softmax - onehot).

A loss has three forms, and :func:`probability` chooses among them:

* :func:`by_class` applies g to -log p of every class and lets ``F.nll_loss`` pick, weigh, ignore and reduce. It is the
  definition, sum_c w_c v_c g(-log p_c) with v the target distribution, and serves soft targets.
* :func:`by_row` applies g to the vector of ce. It serves ``torch.compile``, ``torch.func``, GPUs and DTensors.
* ``_fast.fast`` uses one N x C buffer for the softmax and for the gradient. It serves large batches on the CPU in eager
  mode, with soft targets those of a mixture.

For g(ce) = ce the first two give the bits of ``F.cross_entropy``; the third agrees within rounding.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import _sharded, kernels
from crossfade._fast import fast, fast_applies, pieces
from crossfade._row import row_of
from crossfade._tensors import (
    along_classes,
    as_index,
    check_per_class,
    check_smoothing,
    class_dim,
    full_precision,
    is_half,
    is_observed,
    is_sharded,
    is_soft,
    smoothed,
    target_weight,
)
from crossfade._transforms import Focal, Mixture, Transform, evaluate, probe, takes_row

Reduction: TypeAlias = Literal["none", "mean", "sum"]

# Up to this many logits the time goes into autograd's nodes, and by_class has the fewest (benchmarks/loss_cpu.py).
_FEW_LOGITS = 16_384


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless the reduction is "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def probability(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Return the loss g(ce) in the form that serves these arguments, which are those of ``F.cross_entropy``."""
    few = not torch.compiler.is_compiling() and logits.numel() <= _FEW_LOGITS
    if few and isinstance(g, Mixture) and g.is_fixed and not is_sharded(logits):
        return by_class(g, logits, target, weight, ignore_index, label_smoothing, reduction)
    target = as_index(target)
    soft = not label_smoothing <= 0 or is_soft(logits, target)  # by_class refuses NaN
    if is_sharded(logits):
        return by_shard(g, logits, target, weight, ignore_index, label_smoothing, reduction)

    def readable(logits: Tensor) -> Tensor:
        if soft:
            return by_class(g, logits, target, weight, ignore_index, label_smoothing, reduction)
        return by_row(g, logits, target, weight, ignore_index, reduction)

    if (not few or isinstance(g, Focal)) and fast_applies(logits, target, weight):
        loss = fast(g, logits, target, weight, ignore_index, label_smoothing, reduction, readable)
        if loss is not None:
            return loss
    return readable(logits)


def by_row(
    g: Transform, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: Reduction
) -> Tensor:
    """Return the loss for class indices without label smoothing, with g applied to the vector of ce."""
    check_per_class("weight", weight, logits.shape[class_dim(logits)])
    if kernels.available(logits, target):
        rows, _ = rows_by_kernel(g, logits, target, ignore_index)
    else:
        ce = _cross_entropies(logits, target, ignore_index)
        rows = evaluate(g, ce, row_of(logits, target, ignore_index) if takes_row(g) else None)
    return reduce_rows(rows, target, weight, ignore_index, reduction)


def by_shard(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Return the loss of logits that are sharded over the classes, as a DTensor."""
    check_per_class("weight", weight, logits.shape[class_dim(logits)])
    check_smoothing(label_smoothing)
    if is_soft(logits, target):
        raise ValueError(
            "logits that are a DTensor need class indices, as under loss_parallel, got class probabilities"
        )
    rows, target, mass = _sharded.losses(g, logits, target, weight, ignore_index, label_smoothing)
    if mass is None or reduction != "mean":
        loss = reduce_rows(rows, target, None, ignore_index, reduction)
    else:
        loss = reduce_rows(rows, target, None, ignore_index, "sum") / mass.sum()
    return _sharded.replicated(loss, logits)


def rows_by_kernel(g: Transform, logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return g of each row, and its logsumexp, where the GPU kernels serve."""
    if not takes_row(g):
        ce, lse, _ = kernels.ce_and_statistics(logits, target, ignore_index=ignore_index)
        return evaluate(g, ce), lse
    asked = probe(g, logits.device)[1]
    ce, lse, found = kernels.ce_and_statistics(logits, target, ignore_index=ignore_index, asked=asked)
    return evaluate(g, ce, row_of(logits, target, ignore_index, **found)), lse


def _cross_entropies(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    whole = not is_half(logits.dtype) or logits.dim() < 2 or logits.shape[:1] != target.shape[:1]
    if whole or (torch.is_grad_enabled() and logits.requires_grad) or is_observed():
        return F.cross_entropy(full_precision(logits), target, ignore_index=ignore_index, reduction="none")
    # Half-precision logits without a gradient: piece by piece, so that they are never all there in float32.
    rows = torch.empty(target.shape, dtype=torch.float32, device=logits.device)
    for at in pieces(logits):
        rows[at] = F.cross_entropy(logits[at].float(), target[at], ignore_index=ignore_index, reduction="none")
    return rows


def reduce_rows(rows: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: Reduction) -> Tensor:
    """Reduce the losses of rows as ``F.cross_entropy`` reduces its own, in the same order of sums.

    ``F.nll_loss`` over a single class adds up: ``torch.sum`` adds in another order, and the bits would differ.
    """
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


def by_class(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Return the loss by its definition, sum_c w_c v_c g(-log p_c)."""
    log_p = torch.log_softmax(full_precision(logits), class_dim(logits))
    scores = g.of_log_probability(log_p) if isinstance(g, Mixture) else -evaluate(g, -log_p, row_of(logits))
    return reduce_classes(scores, target, weight, ignore_index, label_smoothing, reduction)


def reduce_classes(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Reduce the scores (N, C, d1, ...) as ``F.cross_entropy`` reduces log_softmax.

    A score is minus the loss that the row would have if the class were its target.
    """
    target = as_index(target)
    if weight is not None:
        weight = weight.to(scores.dtype)
    if is_soft(scores, target):
        dim = class_dim(scores)
        wrong_weight = weight is not None and weight.shape != (scores.shape[dim],)
        if wrong_weight or not target.is_floating_point() or ignore_index >= 0 or not 0 <= label_smoothing <= 1:
            return _refusal(scores, target, weight, ignore_index, label_smoothing)
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
        return _refusal(scores, target, weight, ignore_index, label_smoothing)
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


def _refusal(
    scores: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> Tensor:
    """Raise what ``F.cross_entropy`` raises for arguments that it refuses, and for a NaN that it takes for 0."""
    check_smoothing(label_smoothing)
    return F.cross_entropy(scores, target, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
