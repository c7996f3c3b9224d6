"""The heart: logits -> ce = -log p_y -> g(ce), and the gradient g'(ce) * (softmax - onehot).

Three forms of one loss, chosen by :func:`probability`:

* ``by_class`` applies g to every class's -log p and lets ``F.nll_loss`` pick, weigh, ignore and reduce. It is the
  definition, sum_c w_c v_c g(-log p_c) with v the target distribution, and the only form for soft targets.
* ``by_row`` applies g to the vector of ce. The form under ``torch.compile``, ``torch.func``, and on a GPU; for a
  DTensor, too, where ``_sharded`` makes the vector.
* ``_fast.fast`` keeps one N x C buffer from the logits to their gradient. Large batches on the CPU, in eager mode.

The first two give ``F.cross_entropy``'s bits for g(ce) = ce, the third agrees within rounding.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import kernels
from crossfade._fast import fast, fast_applies, pieces, transformed
from crossfade._sharded import is_sharded, replicated, whole_rows
from crossfade._transforms import Mixture, Transform, evaluate

Reduction: TypeAlias = Literal["none", "mean", "sum"]

# Below this many logits the count of autograd nodes is the cost, and by_class has the fewest (benchmarks/loss_cpu.py).
_FEW_LOGITS = 16_384
_HALF = (torch.float16, torch.bfloat16)


def is_soft(logits: Tensor, target: Tensor) -> bool:
    """Whether the target holds class probabilities, by ``F.cross_entropy``'s own rule: it has the logits' shape."""
    return logits.shape == target.shape


def full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in _HALF else logits


def probability(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Choose the form. Arguments as ``F.cross_entropy``'s."""
    if is_sharded(logits):
        return _sharded(g, logits, target, weight, ignore_index, label_smoothing, reduction)
    if label_smoothing > 0 or is_soft(logits, target):
        return by_class(g, logits, target, weight, ignore_index, label_smoothing, reduction)
    few = logits.numel() <= _FEW_LOGITS
    if few and isinstance(g, Mixture) and g.is_fixed:
        return by_class(g, logits, target, weight, ignore_index, 0.0, reduction)
    if not few and fast_applies(logits, target, weight):
        loss = fast(g, logits, target, weight, ignore_index, reduction)
        if loss is not None:
            return loss
    return by_row(g, logits, target, weight, ignore_index, reduction)


def refuse_sharded(logits: Tensor, name: str) -> None:
    if is_sharded(logits):
        raise ValueError(f"{name} is not a function of ce: logits that are a DTensor need full_tensor() first")


def _sharded(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    if label_smoothing > 0 or is_soft(logits, target):
        raise ValueError("logits that are a DTensor need class indices without label_smoothing, as under loss_parallel")
    weight = class_weight(weight, logits)
    ce, target, weight = whole_rows(full_precision(logits), target, weight, ignore_index)
    return replicated(reduce_rows(evaluate(g, ce), target, weight, ignore_index, reduction), logits)


def by_row(
    g: Transform, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: Reduction
) -> Tensor:
    """Class indices, no label smoothing: g on the vector of ce."""
    ce = _cross_entropies(logits, target, ignore_index)
    return reduce_rows(evaluate(g, ce), target, class_weight(weight, logits), ignore_index, reduction)


def _cross_entropies(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    if kernels.available(logits, target):
        return kernels.ce_rows(logits, target, ignore_index=ignore_index)
    whole = logits.dtype not in _HALF or logits.dim() < 2 or logits.shape[:1] != target.shape[:1]
    if whole or (torch.is_grad_enabled() and logits.requires_grad) or transformed():
        return F.cross_entropy(full_precision(logits), target, ignore_index=ignore_index, reduction="none")
    # An evaluation, too, never holds the whole batch in float32.
    rows = torch.empty(target.shape, dtype=torch.float32, device=logits.device)
    for at in pieces(logits):
        rows[at] = F.cross_entropy(logits[at].float(), target[at], ignore_index=ignore_index, reduction="none")
    return rows


def class_weight(weight: Tensor | None, logits: Tensor) -> Tensor | None:
    classes = logits.shape[class_dim(logits)]
    if weight is not None and weight.shape != (classes,):
        raise RuntimeError(
            f"weight should have one element for each of the {classes} classes, got shape {tuple(weight.shape)}"
        )
    return weight


def reduce_rows(rows: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: Reduction) -> Tensor:
    """Reduce per-example losses as ``F.cross_entropy`` reduces its own, in the same order of sums.

    ``F.nll_loss`` over a single class does the sums: torch.sum adds in another order, and the bits would differ.
    """
    ignored = target == ignore_index
    only_class = torch.where(ignored, -100, 0)

    def reduce(values: Tensor, how: str) -> Tensor:
        if values.dim() == 0:
            return F.nll_loss(-values.unsqueeze(0), only_class, reduction=how)
        return F.nll_loss(-values.unsqueeze(1), only_class, reduction=how)

    if weight is None:
        return reduce(rows, reduction)
    row_weight = weight.to(rows.dtype)[target.masked_fill(ignored, 0)]
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
    """The definition: sum_c w_c v_c g(-log p_c)."""
    log_p = torch.log_softmax(full_precision(logits), class_dim(logits))
    scores = g.of_log_probability(log_p) if isinstance(g, Mixture) else -evaluate(g, -log_p)
    return reduce_classes(scores, logits, target, weight, ignore_index, label_smoothing, reduction)


def class_dim(logits: Tensor) -> int:
    if logits.dim() == 0:
        raise RuntimeError("logits must have at least one dimension, that of the classes; got a 0-dim tensor")
    return 0 if logits.dim() == 1 else 1


def reduce_classes(
    scores: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Reduce ``scores``, minus the loss of each class (N, C, d1, ...), as ``F.cross_entropy`` reduces log_softmax."""
    if weight is not None:
        weight = weight.to(scores.dtype)
    if is_soft(logits, target):
        return _soft(scores, logits, target, weight, ignore_index, label_smoothing, reduction)
    picked = F.nll_loss(scores, target, weight, None, ignore_index, None, reduction)
    if label_smoothing <= 0:  # F.cross_entropy, too, takes a negative value for none
        return picked
    if label_smoothing > 1:
        return _refusal(logits, target, weight, ignore_index, label_smoothing)
    dim = class_dim(scores)
    spread = -(scores if weight is None else scores * _along(weight, scores)).sum(dim)
    ignored = target == ignore_index
    spread = spread.masked_fill(ignored, 0.0)
    if reduction == "sum":
        spread = spread.sum()
    elif reduction == "mean":
        valid = ~ignored if weight is None else weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0.0)
        spread = spread.sum() / valid.sum()
    return (1 - label_smoothing) * picked + spread * (label_smoothing / scores.shape[dim])


def _soft(
    scores: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    dim = class_dim(scores)
    wrong_weight = weight is not None and weight.shape != (scores.shape[dim],)
    if wrong_weight or not target.is_floating_point() or ignore_index >= 0 or not 0 <= label_smoothing <= 1:
        return _refusal(logits, target, weight, ignore_index, label_smoothing)
    if label_smoothing > 0:
        target = target * (1 - label_smoothing) + label_smoothing / scores.shape[dim]
    product = scores * target
    if weight is not None:
        product = product * _along(weight, scores)
    if reduction == "none":
        return -product.sum(dim)
    if reduction == "sum":
        return -product.sum()
    if reduction != "mean":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return -product.sum() / (scores.numel() / scores.shape[dim])


def _along(weight: Tensor, scores: Tensor) -> Tensor:
    return weight.view([-1 if d == class_dim(scores) else 1 for d in range(scores.dim())])


def _refusal(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> Tensor:
    """Raise what ``F.cross_entropy`` raises for arguments that it refuses."""
    return F.cross_entropy(logits, target, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
