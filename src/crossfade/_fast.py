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

from crossfade._transforms import Mixture, Transform, evaluate

_PLAIN = (Tensor, torch.nn.Parameter)
# Where p_y is smaller, float32 is near its underflow: ce is computed from the logits.
_UNDERFLOW = 1e-30
# Half-precision rows are widened a piece at a time, small enough to stay in the cache.
_PIECE = 524_288


def transformed() -> bool:
    """Whether a function transform, forward-mode AD, a compiler or a dispatch mode looks on: each needs plain ops."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
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
        and (
            weight is None
            or (type(weight) in _PLAIN and not weight.requires_grad and weight.shape == logits.shape[1:2])
        )
        and not transformed()
    )


def _in_range(target: Tensor, classes: int) -> bool:
    low, high = torch.aminmax(target)
    return bool(low.item() >= 0 and high.item() < classes)


def fast(
    g: Transform, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor | None:
    """The loss, or None where the composed form has to serve (a g with its own learnable tensors, a bad target)."""
    if reduction not in ("none", "mean", "sum"):
        return None
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return None
    classes = logits.shape[1]
    ignored = None
    if not _in_range(target, classes) or 0 <= ignore_index < classes:
        ignored = target == ignore_index
        target = target.masked_fill(ignored, 0)
        if not _in_range(target, classes):
            return None
    if isinstance(g, Mixture):
        if _learnable(g.alpha) or _learnable(g.beta):
            return None
        g = Mixture(float(g.alpha), float(g.beta))
    elif g(torch.ones(1, dtype=torch.float64)).requires_grad:
        return None
    row_weight = None if weight is None else weight.to(_row_dtype(logits))[target]
    if ignored is not None:
        ones = torch.ones(target.shape, dtype=_row_dtype(logits)) if row_weight is None else row_weight
        row_weight = ones.masked_fill(ignored, 0.0)
    return cast(Tensor, _Fast.apply(logits, target, g, row_weight, reduction))


def pieces(logits: Tensor) -> list[slice]:
    """Slices of the rows, each with few enough logits to be widened in the cache."""
    step = max(1, _PIECE * logits.shape[0] // max(1, logits.numel()))
    return [slice(start, start + step) for start in range(0, logits.shape[0], step)]


def _learnable(value: float | Tensor) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


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


def _cross_entropy(p_y: Tensor, logits: Tensor, index: Tensor) -> Tensor:
    ce = p_y.log().neg_()
    if p_y.min().item() < _UNDERFLOW:
        tiny = p_y.squeeze(1) < _UNDERFLOW
        rows = logits.movedim(1, -1)[tiny].to(ce.dtype)
        chosen = rows.gather(1, index.squeeze(1)[tiny].unsqueeze(1)).squeeze(1)
        ce.squeeze(1)[tiny] = rows.logsumexp(1) - chosen
    return ce


def _value_and_slope(g: Transform, ce: Tensor, missing: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """g(ce), and g'(ce) times ``scale``, with missing = p_y - 1."""
    if isinstance(g, Mixture):
        alpha, beta = float(g.alpha), float(g.beta)
        slope = (missing * (beta * scale)).add_((alpha + beta) * scale)
        if alpha == 0.0:
            return missing * -beta, slope
        return torch.sub(ce if alpha == 1.0 else ce * alpha, missing, alpha=beta), slope
    with torch.enable_grad():
        # A derivative at ce = inf is a limit: take it where every p is 0 and the arithmetic is still finite.
        leaf = ce.squeeze(1).clamp(max=torch.finfo(ce.dtype).max / 4).requires_grad_()
        value = evaluate(g, leaf)
        slope = torch.autograd.grad(value.sum(), leaf)[0] if value.requires_grad else torch.zeros_like(leaf)
    value = g(ce.squeeze(1)) if ce.isinf().any() else value.detach()
    return value.unsqueeze(1), slope.unsqueeze(1) * scale


def _piece(
    g: Transform, logits: Tensor, index: Tensor, row_weight: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Per-example losses, and their gradient times ``scale`` in full precision and in memory of its own."""
    p = torch.softmax(logits.to(_row_dtype(logits)), 1)
    p_y = p.gather(1, index)
    ce = _cross_entropy(p_y, logits, index)
    missing = p_y.sub_(1.0)
    rows, slope = _value_and_slope(g, ce, missing, scale)
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
        if logits.dtype == _row_dtype(logits):
            rows, gradient = _piece(g, logits, index, row_weight, scale)
        else:
            rows = torch.empty(target.shape, dtype=_row_dtype(logits))
            gradient = torch.empty(logits.shape, dtype=logits.dtype)
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
        if transformed() or torch._C._functorch.is_legacy_batchedtensor(upstream):
            return gradient * factor.to(gradient.dtype), None, None, None, None
        ctx.gradient = None  # the caller's from here on
        if ctx.loss[1] == "none" or upstream.item() != 1.0:
            gradient.mul_(factor.to(gradient.dtype))
        return gradient, None, None, None, None


def _recomputed(ctx: Any, upstream: Tensor) -> Tensor:
    logits, target, row_weight = ctx.saved_tensors
    g, reduction = ctx.loss
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = logits if differentiable else logits.detach().requires_grad_()
        loss = _composed(g, leaf, target, row_weight, reduction)
        (gradient,) = torch.autograd.grad(loss, leaf, upstream, create_graph=differentiable)
    return cast(Tensor, gradient)
