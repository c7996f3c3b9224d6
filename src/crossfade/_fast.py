"""The fast form of a loss on the CPU: the softmax's memory becomes the gradient.

``F.cross_entropy`` reads or writes four N x C arrays (logits, log-probabilities, the gradient of these, the gradient of
the logits), and more with label smoothing. Here the forward pass already turns the softmax, in place, into the
gradient; the backward pass only scales it. A second backward pass computes it again in the same way; one that is to be
differentiated takes the readable form, by rows or by classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade._reduction import CrossEntropyOptions
from crossfade._row import Row
from crossfade._tensors import along_classes, full_precision, is_observed, is_plain, is_soft, smoothed, wide
from crossfade._transforms import Focal, Mixture, Transform, probe, value_and_slope

# Where p_y is smaller than this, float32 is near its underflow, and ce is computed from the logits.
_UNDERFLOW = 1e-30
# Logits that are read more than once or widened are taken this many at a time: they stay in the processor's cache.
_PIECE = 524_288
# On rows up to this length log_softmax and an exponential take less time than softmax, and a product of matrices takes
# half the time of a sum.
_SHORT = 64
# With fewer numbers a second operation takes longer than it saves.
_WORTH_TWO = 4_096
# Rows shorter than a vector register PyTorch takes one number at a time: as columns they need a tenth of that.
NARROW = 16
# A tensor: with a number an operation on a small batch takes twice as long.
_ONE = torch.ones((), device="cpu")

# From some rows of the logits, which rows these are, and memory for the gradient to the losses, with a class dimension
# of size 1, and their gradient.
_Piece: TypeAlias = Callable[[Tensor, slice, Tensor | None], tuple[Tensor, Tensor]]


def fast_applies(logits: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Return whether :func:`fast` serves these: plain CPU tensors in eager mode, types and shapes that fit."""
    if is_soft(logits, target):
        fits = target.is_floating_point() and not target.requires_grad
    else:
        fits = target.dtype == torch.int64 and logits.shape[:1] + logits.shape[2:] == target.shape
    return (
        fits
        and is_plain(logits)
        and is_plain(target)
        and logits.is_cpu
        and target.is_cpu
        and logits.is_floating_point()
        and logits.dim() >= 2
        and logits.numel() > 0
        and (weight is None or (is_plain(weight) and not weight.requires_grad and weight.shape == logits.shape[1:2]))
        and not is_observed()
    )


def _in_range(target: Tensor, classes: int) -> bool:
    low, high = torch.aminmax(target)
    return bool(low.item() >= 0 and high.item() < classes)


def _all_finite(weight: Tensor | None) -> bool:
    return weight is None or bool(weight.isfinite().all().item())


def fast(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    options: CrossEntropyOptions,
    readable: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """Return the loss, or None where the readable form has to serve.

    That is for bad arguments, for a g with learnable tensors, for target distributions with a g that is no mixture or
    infinite class weights, and for a mean over rows without any weight or with an infinite one.

    Args:
        readable: a function from the logits to the loss in a form that can be differentiated twice.
    """
    weight, ignore_index, label_smoothing, reduction = options
    soft, classes, precise = is_soft(logits, target), logits.shape[1], wide(logits.dtype)
    read_again = logits, target, weight
    if (
        reduction not in ("none", "mean", "sum")
        or not (torch.is_grad_enabled() and logits.requires_grad)
        or not label_smoothing <= 1
        or (soft and (ignore_index >= 0 or label_smoothing < 0))
        or ((soft or label_smoothing > 0) and not (isinstance(g, Mixture) and _all_finite(weight)))
    ):
        return None
    weight = None if weight is None else weight.to(precise)
    ignored = row_weight = None
    if not soft:
        if not _in_range(target, classes) or 0 <= ignore_index < classes:
            ignored = target == ignore_index
            target = target.masked_fill(ignored, 0)
            if not _in_range(target, classes):
                return None
        row_weight = None if weight is None else weight[target]
        target = target.unsqueeze(1)
    learnable, asked = probe(g, logits.device)
    if learnable:
        return None
    count = 1.0
    if reduction == "mean":
        count = logits.numel() / classes
        if row_weight is not None:
            count = (row_weight if ignored is None else row_weight.masked_fill(ignored, 0.0)).sum().item()
        elif ignored is not None:
            count -= ignored.sum().item()
        if count == 0 or not math.isfinite(count):
            return None
    scale = 1.0 / count
    if isinstance(g, Mixture):
        g = Mixture(float(g.alpha), float(g.beta))
    elif isinstance(g, Focal) and reduction == "mean":  # its losses are scaled with their slopes: two operations less
        reduction = "sum"
    piece: _Piece = partial(_piece, g, asked, target, row_weight, ignored, scale)
    if soft:
        piece = partial(_soft_piece, cast(Mixture, g), target, weight, max(label_smoothing, 0.0), scale)
    elif label_smoothing > 0:
        piece = partial(_smooth_piece, cast(Mixture, g), target, weight, label_smoothing, ignored, scale)
    size = _PIECE // 2 if soft else _PIECE  # a soft target is one more array of the logits' size
    whole = logits.dtype == precise and not soft and (label_smoothing <= 0 or classes <= _SHORT)
    loss: Tensor = _Fast.apply(*read_again, _Call(piece, whole, size, count, reduction, readable))
    return loss


def pieces(logits: Tensor, size: int = _PIECE) -> list[slice]:
    """Return slices of the rows, each with few enough logits to be widened in the processor's cache.

    On a GPU they are larger, because each operation on one takes a launch.
    """
    size = size if logits.is_cpu else 128 * size
    step = max(1, size * logits.shape[0] // max(1, logits.numel()))
    return [slice(start, start + step) for start in range(0, logits.shape[0], step)]


def _cross_entropy(p_y: Tensor, logits: Tensor, index: Tensor) -> Tensor:
    ce = p_y.log().neg_()
    if not p_y.min().item() >= _UNDERFLOW:  # also where one of them is NaN, which hides the smallest
        tiny = p_y.squeeze(1) < _UNDERFLOW
        rows = logits.movedim(1, -1)[tiny].to(ce.dtype)
        ce.squeeze(1)[tiny] = F.cross_entropy(rows, index.squeeze(1)[tiny], reduction="none")
    return ce


def _scaled_slope(
    g: Transform, ce: Tensor, row: Row, p_y: Tensor, minus_el: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return g(ce) and scale * g'(ce), given p_y and minus_el = p_y - 1, all with a class dimension of size 1.

    For the focal loss both are scaled.
    """
    if isinstance(g, Mixture):
        alpha, beta = float(g.alpha), float(g.beta)
        slope = (p_y * (beta * scale)).add_(alpha * scale)
        if alpha == 0.0:
            return minus_el * -beta, slope
        return torch.sub(ce if alpha == 1.0 else ce * alpha, minus_el, alpha=beta), slope
    if isinstance(g, Focal):  # ce comes in steps of 6e-8 near p = 1, as 1 - p does: expm1, which is slow, adds nothing
        return g.value_and_slope(ce, p_y, minus_el, scale)
    value, slope = value_and_slope(g, ce.squeeze(1), row)
    return value.unsqueeze(1), slope.unsqueeze(1) * scale


def _log_softmax(z: Tensor, out: Tensor | None) -> Tensor:
    """Return ``torch.log_softmax(z, 1, out=out)``."""
    if z.dim() > 2 or z.shape[1] >= NARROW:
        return torch.log_softmax(z, 1, out=out)
    log_p = torch.log_softmax(z.t(), 0).t()
    return log_p.contiguous() if out is None else out.copy_(log_p)


def _sums(values: Tensor) -> Tensor:
    """Return the sums over dimension 1, which is kept. On short rows ``sum`` takes twice as long as a product."""
    if values.dim() > 2 or values.shape[1] > _SHORT:
        return values.sum(1, keepdim=True)
    return torch.mv(values, values.new_ones(values.shape[1])).unsqueeze(1)


def _exp_(x: Tensor) -> Tensor:
    """Turn x <= 0 into exp(x). On processors of AMD ``torch.exp`` takes four times as long as ``torch.exp2``.

    The relative error is up to 1e-7 |x|, as much again as the rounding of x alone brings.
    """
    if x.numel() < _WORTH_TWO:
        return x.exp_()
    return x.mul_(math.log2(math.e)).exp2_()


def softmax(z: Tensor, index: Tensor, asked: frozenset[str], out: Tensor | None) -> tuple[Tensor, Row]:
    """Return the softmax of the logits (rows, C, ...), and the rows' statistics.

    The entropy is log sum_c exp(z_c - max z) + sum_c p_c (max z - z_c), two sums without cancellation, which takes
    half the time of sum_c p_c log p_c. ``out`` may be the logits.
    """
    if "entropy" not in asked:
        p = torch.softmax(z, 1, out=out)
        return p, Row(lambda: p, 1, index)
    p, entropy = torch.empty_like(z) if out is None else out, z.new_empty(index.squeeze(1).shape)
    for at in pieces(z):
        below = z[at] - z[at].amax(1, keepdim=True)
        torch.softmax(below, 1, out=p[at])
        entropy[at] = -p[at].amax(1).log() - below.mul_(p[at]).sum(1)
    masked = entropy.isnan()  # 0 * -inf of a class without probability
    if masked.any():
        entropy[masked] = torch.special.entr(p.movedim(1, -1)[masked]).sum(-1)
    return p, Row(lambda: p, 1, index, entropy=entropy)


def _piece(
    g: Transform,
    asked: frozenset[str],
    index: Tensor,
    row_weight: Tensor | None,
    ignored: Tensor | None,
    scale: float,
    logits: Tensor,
    at: slice,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the losses of the rows, and their gradient times ``scale`` in full precision."""
    index = index if index.shape[0] == logits.shape[0] else index[at]
    z = full_precision(logits)
    if asked or z.shape[1] > _SHORT:
        p, row = softmax(z, index, asked, out)
        p_y = p.gather(1, index)
        ce = _cross_entropy(p_y, logits, index)
    else:
        log_p = _log_softmax(z, out)
        log_p_y = log_p.gather(1, index)
        ce = -log_p_y
        p, p_y, row = _exp_(log_p), log_p_y.exp_(), Row(lambda: p, 1, index)
    minus_el = p_y - _ONE
    rows, slope = _scaled_slope(g, ce, row, p_y, minus_el, scale)
    if row_weight is not None:
        own = row_weight[at].unsqueeze(1)
        rows, slope = rows * own, slope * own
    if ignored is not None:  # not by a weight of 0: a NaN among the logits would pass
        hidden = ignored[at].unsqueeze(1)
        rows, slope = rows.masked_fill(hidden, 0.0), slope.masked_fill(hidden, 0.0)
    return rows, p.scatter_(1, index, minus_el).mul_(slope)


def _smooth_piece(
    g: Mixture,
    index: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignored: Tensor | None,
    scale: float,
    logits: Tensor,
    at: slice,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    r"""Return what :func:`_piece` does, for a mixture and smoothed indices.

    With own = w_y (1 - smoothing), share = smoothing / C, and sums over the classes, a row's loss and its gradient are

        own g(ce_y) + share sum_c w_c g(ce_c),    p_c (slope - beta share w_c) - alpha share w_c - own g'(ce_y) [c = y]

    with slope = own g'(ce_y) + share (alpha sum_c w_c + beta sum_c w_c p_c).
    """
    alpha, beta, share = float(g.alpha), float(g.beta), smoothing / logits.shape[1]
    index = index[at]
    log_p = _log_softmax(full_precision(logits), out)
    ce = -log_p.gather(1, index)
    own: float | Tensor = 1.0 - smoothing
    even: float | Tensor = share
    mass: float | Tensor = smoothing
    of_p: float | Tensor = share
    if weight is None:
        log_p_of_all = log_p.sum(1, keepdim=True) * share
    else:
        own, even = weight[index] * own, along_classes(weight, logits) * share
        mass, log_p_of_all = even.sum(), (log_p * even).sum(1, keepdim=True)
    p = _exp_(log_p)
    if weight is not None:
        of_p = (p * even).sum(1, keepdim=True)
    p_y = torch.exp(-ce)
    rows = ((1.0 - p_y) * own + (mass - of_p)) * beta
    if alpha != 0.0:  # p_y = 0 with alpha = 0 is not NaN
        rows += (ce * own - log_p_of_all) * alpha
    slope_y = (p_y * beta + alpha) * (own * scale)
    slope = slope_y + (alpha * mass + beta * of_p) * scale
    p.mul_(slope - (beta * scale) * even).sub_(even, alpha=alpha * scale).scatter_add_(1, index, -slope_y)
    if ignored is not None:
        hidden = ignored[at].unsqueeze(1)
        rows, p = rows.masked_fill_(hidden, 0.0), p.masked_fill_(hidden, 0.0)
    return rows, p


def _soft_piece(
    g: Mixture,
    target: Tensor,
    weight: Tensor | None,
    smoothing: float,
    scale: float,
    logits: Tensor,
    at: slice,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    r"""Return what :func:`_piece` does, for a mixture and target distributions v.

    With u_c = w_c v_c, and sums over the classes, a row's loss and its gradient are

        sum_c u_c g(ce_c),    p_c sum_k o_k - o_c    with o_c = u_c (alpha + beta p_c).
    """
    alpha, beta = float(g.alpha), float(g.beta)
    z = full_precision(logits)
    u = target[at].to(z.dtype)
    if smoothing > 0:
        u = smoothed(u, smoothing, z.shape[1])
    if weight is not None:
        u = u * along_classes(weight, z)
    mass = _sums(u)
    log_p = _log_softmax(z, out)
    product = log_p * u
    log_p_of_u, p = _sums(product), _exp_(log_p)
    own = torch.addcmul(u if alpha == 1.0 else u * alpha, p, u, value=beta, out=product)
    slope = _sums(own)
    rows = mass * (alpha + beta) - slope
    if alpha != 0.0:  # p_y = 0 with alpha = 0 is not NaN
        rows -= alpha * log_p_of_u
    return rows, p.mul_(slope * scale).sub_(own, alpha=scale)


class _Call(NamedTuple):
    """What a loss is made of besides tensors: one object, because autograd handles each argument of a function."""

    piece: _Piece
    whole: bool
    size: int
    divisor: float
    reduction: str
    readable: Callable[[Tensor], Tensor]

    def losses_and_gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        if self.whole:
            rows, gradient = self.piece(logits, slice(None), None)
            return rows, gradient.contiguous()
        precise = wide(logits.dtype)
        rows = torch.empty((len(logits), 1, *logits.shape[2:]), dtype=precise)
        # Not in float16, whose range is too small until backward knows the loss's scale. Autograd casts its result.
        gradient = torch.empty(logits.shape, dtype=torch.bfloat16 if logits.dtype == torch.bfloat16 else precise)
        for at in pieces(logits, self.size):
            out = gradient[at] if logits.dtype == precise else None
            rows[at], found = self.piece(logits[at], at, out)
            if found is not out:
                gradient[at] = found
        return rows, gradient


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, call: _Call) -> Tensor:
        rows, ctx.gradient = call.losses_and_gradient(logits)
        ctx.save_for_backward(logits, target, weight)  # autograd then refuses to compute again from changed ones
        ctx.call = call
        if call.reduction == "none":
            return rows.squeeze(1)
        if call.reduction == "sum":
            return rows.sum()
        return rows.mean() if call.divisor == rows.numel() else rows.sum() / call.divisor

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            logits, _, _ = ctx.saved_tensors
            (gradient,) = torch.autograd.grad(ctx.call.readable(logits), logits, upstream, create_graph=True)
            return gradient, None, None, None
        gradient = ctx.gradient
        if gradient is None:  # a second pass
            _, gradient = ctx.call.losses_and_gradient(ctx.saved_tensors[0])
        by_row = ctx.call.reduction == "none"
        factor = upstream.unsqueeze(1) if by_row else upstream
        if is_observed() or torch._C._functorch.is_legacy_batchedtensor(upstream):
            return gradient * factor.to(gradient.dtype), None, None, None
        ctx.gradient = None  # from here on it belongs to the caller
        if by_row or upstream.item() != 1.0:
            gradient.mul_(factor.to(gradient.dtype))
        return gradient, None, None, None
