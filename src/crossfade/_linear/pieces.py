"""Pieces of the logits: the losses of their rows, and the logits turned into their own gradient.

With logits z, p = softmax(z), class weights w and the smoothed one-hot target v, a row's loss and its gradient are

    loss = sum_c w_c v_c g(-log p_c),    d loss / d z_c = p_c * sum_k s_k - s_c    with s_c = w_c v_c g'(-log p_c).

Without label smoothing only s_y is not 0: the loss is w_y g(ce) and its gradient s_y (p - onehot).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crossfade import kernels
from crossfade._tensors import wide
from crossfade._transforms import Transform, value_and_slope


@dataclass(frozen=True)
class Options:
    """Everything that a loss depends on besides its tensors. ``compute`` is the type of the matrix products."""

    g: Transform
    ignore_index: int
    smoothing: float
    softcap: float | None
    compute: torch.dtype
    budget_mb: float | None


class Piece:
    """Some rows with all their classes, computed by PyTorch's operations. The gradient takes over the logits' memory.

    Attributes:
        loss, ce, row_weight: of each row; row_weight is w_y g'(ce).
        correct: whether y has the largest logit; only there if asked for.
        norm: the softmax's maximum and the log of its sum, (2, rows); only there if asked for.
    """

    ce: Tensor
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
        self.logits, self.target, self.softcap = logits, target, options.softcap
        if with_correct:
            self.correct = logits.argmax(1) == target
        self.normalise(with_norm)
        self.weigh(options, class_weight)

    def normalise(self, with_norm: bool) -> None:
        """Compute the softmax, and set ``ce`` and on request ``norm``."""
        z = self._wide_logits()
        maximum, own = z.amax(1), z.gather(1, self._index).squeeze(1)
        # Not log_softmax followed by its exp: that would be a second exp of every logit.
        self._p = torch.softmax(z, 1, out=z)
        p_y = self._p.gather(1, self._index).squeeze(1)
        self.ce = p_y.log().neg_()
        rare = p_y < torch.finfo(p_y.dtype).tiny * 1e8
        if with_norm or rare.any():
            log_sum = self._p.amax(1).log_().neg_()
            self.ce = torch.where(rare, log_sum - (own - maximum), self.ce)
            self.norm = torch.stack([maximum, log_sum])

    def weigh(self, options: Options, class_weight: Tensor | None) -> None:
        """Set ``loss`` and ``row_weight``."""
        self.loss, self.row_weight = value_and_slope(options.g, self.ce)
        if class_weight is not None:
            own = class_weight[self.target]
            self.loss, self.row_weight = self.loss * own, self.row_weight * own

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return factor_i d loss_i / d logits_i in the logits' memory, and what its rows are yet to be scaled by."""
        scale = self.row_weight if factor is None else self.row_weight * factor
        # expm1, not p - 1: the digits of 1 - p_y where p_y is nearly 1.
        return self._written(self._p.scatter_(1, self._index, torch.expm1(-self.ce).unsqueeze(1)), scale)

    @staticmethod
    def of_classes(
        logits: Tensor, target: Tensor, norm: Tensor, ce: Tensor, factor: Tensor, softcap: float | None
    ) -> Tensor:
        """Return factor (p - onehot) for some classes of all rows, in the logits' memory.

        ``target`` counts from the first of these classes, and may lie outside of them.
        """
        z, curve = _capped(logits.to(norm.dtype), softcap)
        p = z.sub_(norm[0].unsqueeze(1)).sub_(norm[1].unsqueeze(1)).exp_()
        here = ((target >= 0) & (target < logits.shape[1])).nonzero().squeeze(1)
        p[here, target[here]] = torch.expm1(-ce[here])
        if curve is not None:
            p.mul_(curve)
        return torch.mul(p, factor.unsqueeze(1), out=logits)

    def _wide_logits(self) -> Tensor:
        self._index = self.target.unsqueeze(1)
        z, self._curve = _capped(self.logits.to(wide(self.logits.dtype)), self.softcap)
        return z

    def _written(self, gradient: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Write the gradient to the logits' memory. Only a cast, a pass over all logits anyway, scales on the way."""
        if self._curve is not None:
            gradient.mul_(self._curve)
        if gradient.dtype == self.logits.dtype:
            return gradient, scale
        if scale is None:
            return self.logits.copy_(gradient), None
        return torch.mul(gradient, scale.unsqueeze(1), out=self.logits), None


class SmoothPiece(Piece):
    """A piece with label smoothing, which needs g and g' at every class, and so several times the logits' memory."""

    def normalise(self, with_norm: bool) -> None:
        z = self._wide_logits()
        self._log_p = torch.log_softmax(z, 1, out=z)
        self.ce = -self._log_p.gather(1, self._index).squeeze(1)

    def weigh(self, options: Options, class_weight: Tensor | None) -> None:
        super().weigh(options, class_weight)
        value, slope = value_and_slope(options.g, -self._log_p)
        if class_weight is not None:
            value, slope = value.mul_(class_weight), slope.mul_(class_weight)
        share = options.smoothing / self.logits.shape[1]
        self.loss = self.loss * (1 - options.smoothing) + value.sum(1) * share
        self.row_weight = self.row_weight * (1 - options.smoothing)
        self._spread = slope.mul_(share)

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        own = self.row_weight.unsqueeze(1)
        gradient = self._log_p.exp_().mul_(own + self._spread.sum(1, keepdim=True)).sub_(self._spread)
        return self._written(gradient.scatter_add_(1, self._index, -own), factor)


class KernelPiece(Piece):
    """A piece computed by the GPU kernels: they read the logits once for the losses, and once for the gradient."""

    def normalise(self, with_norm: bool) -> None:
        self.ce, self.norm = kernels.forward(self.logits, self.target, softcap=self.softcap)

    def gradient(self, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.row_weight if factor is None else self.row_weight * factor
        return self.of_classes(self.logits, self.target, self.norm, self.ce, scale, self.softcap), None

    @staticmethod
    def of_classes(
        logits: Tensor, target: Tensor, norm: Tensor, ce: Tensor, factor: Tensor, softcap: float | None
    ) -> Tensor:
        return kernels.backward(logits, target, norm, ce, factor, softcap=softcap, out=logits)


def piece_type(hidden: Tensor, options: Options) -> type[Piece]:
    """Return the kind of piece that serves these options on this device."""
    if options.smoothing > 0:
        return SmoothPiece
    return KernelPiece if options.compute != torch.float64 and kernels.usable(hidden) else Piece


def _capped(z: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Return softcap * tanh(z / softcap), in place, and its derivative."""
    if softcap is None:
        return z, None
    z.div_(softcap).tanh_()
    curve = torch.mul(z, z).neg_().add_(1.0)
    return z.mul_(softcap), curve
