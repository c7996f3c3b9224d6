"""The fast form on the CPU: softmax once, and its own buffer becomes the gradient.

``F.cross_entropy`` touches four N x C arrays (logits, log-probabilities, the gradient of these, the gradient of the
logits). Here the softmax is turned, in place and already in the forward pass, into g'(ce) * (softmax - onehot); the
backward pass scales it and hands it over. A second backward pass, or a differentiable one, recomputes by rows.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.utils import _python_dispatch

from crossfade._transforms import Mixture, Transform

_PLAIN = (Tensor, torch.nn.Parameter)
# Where p_y is smaller, its logarithm has lost digits (float32 underflows from 1e-38 on) and ce is computed from the logits.
_UNDERFLOW = 1e-30
# Half-precision rows are widened a piece at a time: 1 MiB of float32 stays in the L2 cache.
_PIECE = 262_144


def transformed() -> bool:
    """Whether a function transform, forward-mode AD, a compiler or a dispatch mode looks on: each needs plain ops."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
        or _python_dispatch._get_current_dispatch_mode() is not None
    )


def fast_applies(logits: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Plain CPU tensors of floating type in eager mode, class indices, and shapes that ``F.cross_entropy`` takes."""
    return (
        not torch.compiler.is_compiling()
        and type(logits) in _PLAIN
        and type(target) in _PLAIN
        and logits.device.type == target.device.type == "cpu"
        and logits.is_floating_point()
        and target.dtype == torch.int64
        and logits.dim() >= 2
        and logits.numel() > 0
        and logits.shape[:1] + logits.shape[2:] == target.shape
        and (weight is None or (type(weight) in _PLAIN and not weight.requires_grad and weight.shape == logits.shape[1:2]))
        and not transformed()
    )


def fast(
    g: Transform, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor | None:
    """The loss, or None where the composed form has to serve (a g with its own learnable tensors, a bad target)."""
    if reduction not in ("none", "mean", "sum"):
        return None
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return None
    low, high = torch.aminmax(target)
    ignored = None
    if low < 0 or high >= logits.shape[1] or 0 <= ignore_index < logits.shape[1]:
        ignored = target == ignore_index
        target = target.masked_fill(ignored, 0)
        low, high = torch.aminmax(target)
        if low < 0 or high >= logits.shape[1]:
            return None
    if not isinstance(g, Mixture) and g(torch.ones(1, dtype=torch.float64)).requires_grad:
        return None
    row_weight = None if weight is None else weight.to(_row_dtype(logits))[target]
    if ignored is not None:
        ones = torch.ones(target.shape, dtype=_row_dtype(logits)) if row_weight is None else row_weight
        row_weight = ones.masked_fill(ignored, 0.0)
    return cast(Tensor, _Fast.apply(logits, target, g, row_weight, reduction))


def _row_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _composed(g: Transform, logits: Tensor, target: Tensor, row_weight: Tensor | None, reduction: str) -> Tensor:
    """The same loss from plain differentiable operations."""
    rows = g(torch.nn.functional.cross_entropy(logits.to(_row_dtype(logits)), target, reduction="none"))
    if row_weight is not None:
        rows = torch.where(row_weight == 0, 0.0, rows) * row_weight
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / _count(target, row_weight)


def _count(target: Tensor, row_weight: Tensor | None) -> float:
    return float(target.numel()) if row_weight is None else row_weight.sum().item()


def _softmax(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax in the logits' dtype, in memory of its own, and p_y in full precision, without an N x C wide copy."""
    if logits.dtype in (torch.float32, torch.float64):
        p = torch.softmax(logits, 1)
        return p, p.gather(1, index)
    p = torch.empty(logits.shape, dtype=logits.dtype)
    p_y = torch.empty(index.shape, dtype=torch.float32)
    step = max(1, _PIECE * logits.shape[0] // logits.numel())
    for start in range(0, logits.shape[0], step):
        rows = slice(start, start + step)
        piece = torch.softmax(logits[rows], 1, dtype=torch.float32)
        p_y[rows] = piece.gather(1, index[rows])
        p[rows] = piece
    return p, p_y


def _cross_entropy(p_y: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    ce = p_y.squeeze(1).log().neg_()
    if p_y.min() < _UNDERFLOW:
        tiny = p_y.squeeze(1) < _UNDERFLOW
        rows = logits.movedim(1, -1)[tiny].to(ce.dtype)
        chosen = rows.gather(1, target[tiny].unsqueeze(1)).squeeze(1)
        ce[tiny] = rows.logsumexp(1) - chosen
    return ce


def _value_and_slope(g: Transform, ce: Tensor, p_y: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(g, Mixture):
        alpha, beta = float(g.alpha), float(g.beta)
        return g(ce), (p_y.squeeze(1) * beta).add_(alpha)
    with torch.enable_grad():
        # A derivative at ce = inf is a limit: take it where every p is 0 and the arithmetic is still finite.
        leaf = ce.clamp(max=torch.finfo(ce.dtype).max / 4).requires_grad_()
        value = g(leaf)
        if value.shape != ce.shape:
            raise ValueError(
                f"g must map the cross entropies elementwise: expected shape {tuple(ce.shape)}, got {tuple(value.shape)}"
            )
        slope = torch.autograd.grad(value.sum(), leaf)[0] if value.requires_grad else torch.zeros_like(ce)
    return (g(ce) if ce.isinf().any() else value.detach()), slope


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, g: Transform, row_weight: Tensor | None, reduction: str
    ) -> Tensor:
        index = target.unsqueeze(1)
        p, p_y = _softmax(logits, index)
        ce = _cross_entropy(p_y, logits, target)
        rows, slope = _value_and_slope(g, ce, p_y)
        if row_weight is not None:
            rows = torch.where(row_weight == 0, 0.0, rows * row_weight)
            slope = torch.where(row_weight == 0, 0.0, slope * row_weight)
        loss = rows
        if reduction != "none":
            loss = rows.sum()
            if reduction == "mean":
                count = _count(target, row_weight)
                loss = loss / count
                slope = slope * (1.0 / count) if count else slope
        slope = slope.unsqueeze(1)
        at_target = slope * (p_y - 1.0)
        ctx.gradient = p.mul_(slope.to(p.dtype)).scatter_(1, index, at_target.to(p.dtype))
        ctx.save_for_backward(logits, target, row_weight)
        ctx.loss = (g, reduction)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or torch.is_grad_enabled() or transformed():
            return _recomputed(ctx, upstream), None, None, None, None
        _, reduction = ctx.loss
        if reduction == "none":
            gradient.mul_(upstream.unsqueeze(1).to(gradient.dtype))
        elif upstream != 1.0:
            gradient.mul_(upstream.to(gradient.dtype))
        return gradient, None, None, None, None


def _recomputed(ctx: Any, upstream: Tensor) -> Tensor:
    logits, target, row_weight = ctx.saved_tensors
    g, reduction = ctx.loss
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = logits if differentiable else logits.detach().requires_grad_()
        loss = _composed(g, leaf, target, row_weight, reduction)
        (gradient,) = torch.autograd.grad(loss, leaf, upstream, create_graph=differentiable)
    return gradient
