"""A piece of the logits: its rows' losses, and the logits turned into their gradient.

With logits z, p = softmax(z), class weights w and the smoothed one-hot target v, a row's loss and its gradient are

    loss = sum_c w_c v_c g(-log p_c),    d loss / d z_c = p_c * sum_k s_k - s_c    with s_c = w_c v_c g'(-log p_c).

Without label smoothing only s_y is not 0: the loss is w_y g(ce) and its gradient s_y (p - onehot).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from crossfade import kernels
from crossfade._linear.problem import Options, wide
from crossfade._transforms import Mixture, Transform, evaluate


def value_and_slope(g: Transform, ce: Tensor) -> tuple[Tensor, Tensor]:
    """g(ce) and g'(ce) on a tensor of any shape, without waiting for the device."""
    if isinstance(g, Mixture):
        return g(ce), torch.exp(-ce).mul_(g.beta).add_(g.alpha)
    with torch.enable_grad():
        # A derivative at ce = inf is a limit: take it where every p is 0 and the arithmetic is still finite.
        leaf = ce.clamp(max=torch.finfo(ce.dtype).max / 4).requires_grad_()
        value = evaluate(g, leaf)
        slope = torch.zeros_like(ce)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)
    return torch.where(ce.isinf(), evaluate(g, ce), value).detach(), slope


def _weighed(options: Options, ce: Tensor, target: Tensor, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """w_y g(ce) and w_y g'(ce)."""
    value, slope = value_and_slope(options.g, ce)
    if class_weight is None:
        return value, slope
    own = class_weight[target]
    return value * own, slope * own


class TorchPiece:
    """All classes of some rows, in the logits' own memory: the softmax, and onehot taken off. Runs everywhere.

    Attributes:
        loss, ce, row_weight: of each row; row_weight is w_y g'(ce).
        correct: whether y has the largest logit; on request.
        norm: the softmax's maximum and the log of its sum, (2, rows); on request.
    """

    correct: Tensor
    norm: Tensor

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        options: Options,
        class_weight: Tensor | None,
        with_correct: bool,
        with_norm: bool,
    ) -> None:
        self._out, self._index = logits, target.unsqueeze(1)
        z, self._curve = _capped(logits.to(wide(logits.dtype)), options.softcap)
        if with_correct:
            self.correct = z.argmax(1) == target
        maximum, own = z.amax(1), z.gather(1, self._index).squeeze(1)
        # Not log_softmax, to go on with its exp: that would be a second exp of every logit.
        self._p = torch.softmax(z, 1, out=z)
        p_y = self._p.gather(1, self._index).squeeze(1)
        self.ce = p_y.log().neg_()
        rare = p_y < torch.finfo(p_y.dtype).tiny * 1e8
        if with_norm or rare.any():
            log_sum = self._p.amax(1).log_().neg_()
            self.ce = torch.where(rare, log_sum - (own - maximum), self.ce)
            self.norm = torch.stack([maximum, log_sum])
        self.loss, self.row_weight = _weighed(options, self.ce, target, class_weight)

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """factor_i d loss_i / d logits_i, in the logits' type and memory, and what its rows are yet to be scaled by."""
        scale = self.row_weight if factor is None else self.row_weight * factor
        # expm1, not p - 1: the digits of 1 - p_y where p_y is nearly 1.
        gradient = self._p.scatter_(1, self._index, torch.expm1(-self.ce).unsqueeze(1))
        if self._curve is not None:
            gradient.mul_(self._curve)
        return _scaled_if_cast(gradient, scale, self._out)

    @staticmethod
    def of_classes(
        logits: Tensor, target: Tensor, norm: Tensor, ce: Tensor, factor: Tensor, softcap: float | None
    ) -> Tensor:
        """factor (p - onehot) for some classes of all rows, in the logits' memory; ``target`` counts from the first."""
        z, curve = _capped(logits.to(norm.dtype), softcap)
        p = z.sub_(norm[0].unsqueeze(1)).sub_(norm[1].unsqueeze(1)).exp_()
        here = ((target >= 0) & (target < logits.shape[1])).nonzero().squeeze(1)
        p[here, target[here]] = torch.expm1(-ce[here])
        if curve is not None:
            p.mul_(curve)
        return torch.mul(p, factor.unsqueeze(1), out=logits)


class SmoothPiece:
    """The same with label smoothing, which needs g and g' at every class: several times the logits' memory."""

    norm: Tensor
    correct: Tensor

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        options: Options,
        class_weight: Tensor | None,
        with_correct: bool,
        with_norm: bool,
    ) -> None:
        self._out, self._index = logits, target.unsqueeze(1)
        z, self._curve = _capped(logits.to(wide(logits.dtype)), options.softcap)
        if with_correct:
            self.correct = z.argmax(1) == target
        self._log_p = torch.log_softmax(z, 1, out=z)
        self.ce = -self._log_p.gather(1, self._index).squeeze(1)
        loss, row_weight = _weighed(options, self.ce, target, class_weight)
        value, slope = value_and_slope(options.g, -self._log_p)
        if class_weight is not None:
            value, slope = value.mul_(class_weight), slope.mul_(class_weight)
        share = options.smoothing / z.shape[1]
        self.loss = loss * (1 - options.smoothing) + value.sum(1) * share
        self.row_weight = row_weight * (1 - options.smoothing)
        self._spread = slope.mul_(share)

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        own = self.row_weight.unsqueeze(1)
        p = self._log_p.exp_()
        gradient = p.mul_(own + self._spread.sum(1, keepdim=True)).sub_(self._spread)
        gradient.scatter_add_(1, self._index, -own)
        if self._curve is not None:
            gradient.mul_(self._curve)
        return _scaled_if_cast(gradient, factor, self._out)

    of_classes = TorchPiece.of_classes


def _scaled_if_cast(gradient: Tensor, scale: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor | None]:
    """A cast is a pass over all logits anyway, and scales on the way."""
    if gradient.dtype == out.dtype:
        return gradient, scale
    return (out.copy_(gradient) if scale is None else torch.mul(gradient, scale.unsqueeze(1), out=out)), None


def _capped(z: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """softcap * tanh(z / softcap), in place, and its derivative."""
    if softcap is None:
        return z, None
    z.div_(softcap).tanh_()
    curve = torch.mul(z, z).neg_().add_(1.0)
    return z.mul_(softcap), curve


class KernelPiece:
    """The same with the GPU kernels: one read of the logits for the losses, one read and one write for the gradient."""

    correct: Tensor

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        options: Options,
        class_weight: Tensor | None,
        with_correct: bool,
        with_norm: bool,
    ) -> None:
        self._logits, self._target, self._softcap = logits, target, options.softcap
        self.ce, self.norm = kernels.forward(logits, target, softcap=options.softcap)
        if with_correct:
            self.correct = logits.argmax(1) == target
        self.loss, self.row_weight = _weighed(options, self.ce, target, class_weight)

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.row_weight if factor is None else self.row_weight * factor
        return self.of_classes(self._logits, self._target, self.norm, self.ce, scale, self._softcap), None

    @staticmethod
    def of_classes(
        logits: Tensor, target: Tensor, norm: Tensor, ce: Tensor, factor: Tensor, softcap: float | None
    ) -> Tensor:
        return kernels.backward(logits, target, norm, ce, factor, softcap=softcap, out=logits)


Piece: TypeAlias = TorchPiece | SmoothPiece | KernelPiece


def choose(hidden: Tensor, options: Options) -> type[Piece]:
    if options.smoothing > 0:
        return SmoothPiece
    return KernelPiece if options.compute != torch.float64 and kernels.usable(hidden) else TorchPiece
