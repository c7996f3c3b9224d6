"""The fast form of a loss on the CPU: the softmax's memory becomes the gradient.

``F.cross_entropy`` reads or writes four N x C arrays (logits, log-probabilities, the gradient of these, the gradient of
the logits). Here the forward pass already turns the softmax, in place, into g'(ce) * (softmax - onehot); the backward
pass only scales it. A second backward pass, or one that is to be differentiated, computes the loss again by rows.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade._tensors import is_observed, is_plain, wide
from crossfade._transforms import Mixture, Transform, is_learnable, value_and_slope

# Where p_y is smaller than this, float32 is near its underflow, and ce is computed from the logits.
_UNDERFLOW = 1e-30
# Half-precision logits are widened this many at a time, few enough to stay in the processor's cache.
_PIECE = 524_288


def fast_applies(logits: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Return whether :func:`fast` serves these: plain CPU tensors in eager mode, class indices, shapes that fit."""
    return (
        not torch.compiler.is_compiling()
        and is_plain(logits)
        and is_plain(target)
        and logits.device.type == target.device.type == "cpu"
        and logits.is_floating_point()
        and target.dtype == torch.int64
        and logits.dim() >= 2
        and logits.numel() > 0
        and logits.shape[:1] + logits.shape[2:] == target.shape
        and (weight is None or (is_plain(weight) and not weight.requires_grad and weight.shape == logits.shape[1:2]))
        and not is_observed()
    )


def _in_range(target: Tensor, classes: int) -> bool:
    low, high = torch.aminmax(target)
    return bool(low.item() >= 0 and high.item() < classes)


def fast(
    g: Transform, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor | None:
    """Return the loss, or None where the form by rows has to serve: a g with learnable tensors, or bad arguments."""
    if reduction not in ("none", "mean", "sum") or not (torch.is_grad_enabled() and logits.requires_grad):
        return None
    classes = logits.shape[1]
    ignored = None
    if not _in_range(target, classes) or 0 <= ignore_index < classes:
        ignored = target == ignore_index
        target = target.masked_fill(ignored, 0)
        if not _in_range(target, classes):
            return None
    if is_learnable(g, logits.device):
        return None
    if isinstance(g, Mixture):
        g = Mixture(float(g.alpha), float(g.beta))
    precise = wide(logits.dtype)
    row_weight = None if weight is None else weight.to(precise)[target]
    if ignored is not None:
        ones = torch.ones(target.shape, dtype=precise) if row_weight is None else row_weight
        row_weight = ones.masked_fill(ignored, 0.0)
    return cast(Tensor, _Fast.apply(logits, target, g, row_weight, reduction))


def pieces(logits: Tensor) -> list[slice]:
    """Return slices of the rows, each with few enough logits to be widened in the processor's cache.

    On a GPU they are larger, because each operation on one takes a launch.
    """
    size = _PIECE if logits.is_cpu else 128 * _PIECE
    step = max(1, size * logits.shape[0] // max(1, logits.numel()))
    return [slice(start, start + step) for start in range(0, logits.shape[0], step)]


def _count(target: Tensor, row_weight: Tensor | None) -> float:
    return float(target.numel()) if row_weight is None else row_weight.sum().item()


def _cross_entropy(p_y: Tensor, logits: Tensor, index: Tensor) -> Tensor:
    ce = p_y.log().neg_()
    if not p_y.min().item() >= _UNDERFLOW:  # also where one of them is NaN, which hides the smallest
        tiny = p_y.squeeze(1) < _UNDERFLOW
        rows = logits.movedim(1, -1)[tiny].to(ce.dtype)
        ce.squeeze(1)[tiny] = F.cross_entropy(rows, index.squeeze(1)[tiny], reduction="none")
    return ce


def _scaled_slope(g: Transform, ce: Tensor, p_y: Tensor, missing: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return g(ce) and scale * g'(ce), given p_y and missing = p_y - 1."""
    if isinstance(g, Mixture):
        alpha, beta = float(g.alpha), float(g.beta)
        slope = (p_y * (beta * scale)).add_(alpha * scale)
        if alpha == 0.0:
            return missing * -beta, slope
        return torch.sub(ce if alpha == 1.0 else ce * alpha, missing, alpha=beta), slope
    value, slope = value_and_slope(g, ce.squeeze(1))
    return value.unsqueeze(1), slope.unsqueeze(1) * scale


def _piece(
    g: Transform, logits: Tensor, index: Tensor, row_weight: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the losses of the rows, and their gradient times ``scale`` in full precision and in new memory."""
    p = torch.softmax(logits.to(wide(logits.dtype)), 1)
    p_y = p.gather(1, index)
    ce = _cross_entropy(p_y, logits, index)
    missing = p_y - 1.0
    rows, slope = _scaled_slope(g, ce, p_y, missing, scale)
    if row_weight is not None:
        row_weight = row_weight.unsqueeze(1)
        rows = torch.where(row_weight == 0, 0.0, rows * row_weight)
        slope = torch.where(row_weight == 0, 0.0, slope * row_weight)
    return rows.squeeze(1), p.mul_(slope).scatter_(1, index, slope * missing)


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, g: Transform, row_weight: Tensor | None, reduction: str
    ) -> Tensor:
        index = target.unsqueeze(1)
        count = _count(target, row_weight) if reduction == "mean" else 1.0
        scale = 1.0 / count if count else 1.0
        if logits.dtype == wide(logits.dtype):
            rows, gradient = _piece(g, logits, index, row_weight, scale)
        else:
            rows = torch.empty(target.shape, dtype=wide(logits.dtype))
            # Not in float16, whose range is too small until backward knows the loss's scale. Autograd casts its result.
            kept = torch.float32 if logits.dtype == torch.float16 else logits.dtype
            gradient = torch.empty(logits.shape, dtype=kept)
            for at in pieces(logits):
                weights = None if row_weight is None else row_weight[at]
                rows[at], gradient[at] = _piece(g, logits[at], index[at], weights, scale)
        ctx.gradient = gradient
        ctx.save_for_backward(logits, target, row_weight)
        ctx.loss = (g, reduction)
        if reduction == "none":
            return rows
        return rows.sum() / count if reduction == "mean" else rows.sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.gradient
        if gradient is None or torch.is_grad_enabled():
            return _recomputed(ctx, upstream), None, None, None, None
        factor = upstream.unsqueeze(1) if ctx.loss[1] == "none" else upstream
        if is_observed() or torch._C._functorch.is_legacy_batchedtensor(upstream):
            return gradient * factor.to(gradient.dtype), None, None, None, None
        ctx.gradient = None  # from here on it belongs to the caller
        if ctx.loss[1] == "none" or upstream.item() != 1.0:
            gradient.mul_(factor.to(gradient.dtype))
        return gradient, None, None, None, None


def _recomputed(ctx: Any, upstream: Tensor) -> Tensor:
    """Return the gradient of the same loss, made of PyTorch's differentiable operations."""
    logits, target, row_weight = ctx.saved_tensors
    g, reduction = ctx.loss
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = logits if differentiable else logits.detach().requires_grad_()
        loss = g(F.cross_entropy(leaf.to(wide(leaf.dtype)), target, reduction="none"))
        if row_weight is not None:
            loss = torch.where(row_weight == 0, 0.0, loss) * row_weight
        if reduction != "none":
            loss = loss.sum()
        if reduction == "mean":
            loss = loss / _count(target, row_weight)
        (gradient,) = torch.autograd.grad(loss, leaf, upstream, create_graph=differentiable)
    return cast(Tensor, gradient)
