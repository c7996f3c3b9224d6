"""Pieces of the logits: the losses of their rows, and the logits turned into their own gradient.

With logits z, p = softmax(z), class weights w and the target distribution v, which is a smoothed one-hot vector or
given, a row's loss and its gradient are

    loss = sum_c w_c v_c g(-log p_c),    d loss / d z_c = p_c * sum_k s_k - s_c    with s_c = w_c v_c g'(-log p_c).

For a class index without label smoothing only s_y is not 0: the loss is w_y g(ce) and its gradient s_y (p - onehot).
The gradient of lse = logsumexp(z) is p.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from crossfade import _sharded, kernels
from crossfade._fast import softmax
from crossfade._row import STATISTICS, Row
from crossfade._sharded import Shard
from crossfade._tensors import capped, smoothed, wide
from crossfade._transforms import Transform, value_and_slope


@dataclass(frozen=True)
class Options:
    """Everything that a loss depends on besides its tensors.

    Attributes:
        compute: the type of the matrix products.
        asked: the statistics of :class:`crossfade._row.Row` that g asks for.
        shard: the classes that are here, if others are in other processes; targets count from the first one here.
    """

    g: Transform
    ignore_index: int
    smoothing: float
    softcap: float | None
    compute: torch.dtype
    budget_mb: float | None
    asked: frozenset[str] = frozenset()
    shard: Shard | None = None


class Piece:
    """Some rows with all their classes, computed by PyTorch's operations. The gradient takes over the logits' memory.

    Attributes:
        loss, ce, lse, row_weight: of each row; row_weight is w_y g'(ce).
        row: the rows' statistics, until :meth:`gradient` overwrites the softmax.
        norm: the softmax's maximum and the log of its sum, (2, rows); only there if asked for.
    """

    ce: Tensor
    lse: Tensor
    norm: Tensor
    row: Row

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        options: Options,
        class_weight: Tensor | None,
        wanted: Collection[str],
        with_norm: bool,
    ) -> None:
        self.logits, self.target, self.softcap, self.shard = logits, target, options.softcap, options.shard
        if "correct" in wanted and self.shard is None:
            self.correct = logits.argmax(1) == (target if target.dim() == 1 else target.argmax(1))
        self.normalise(options.asked.union(wanted), with_norm)
        self.weigh(options, class_weight)

    def normalise(self, asked: frozenset[str], with_norm: bool) -> None:
        """Compute the softmax, and set ``ce``, ``lse``, ``row`` and on request ``norm``."""
        z = self._wide_logits()
        maximum, own = z.amax(1), z.gather(1, self._index).squeeze(1)
        # Not log_softmax followed by its exp: that would be a second exp of every logit.
        self._p, self.row = softmax(z, self._index, asked, z)
        p_y = self._p.gather(1, self._index).squeeze(1)
        self.ce = p_y.log().neg_()
        self.lse = own + self.ce
        rare = p_y < torch.finfo(p_y.dtype).tiny * 1e8
        if with_norm or rare.any():
            log_sum = self._p.amax(1).log_().neg_()
            self.ce = torch.where(rare, log_sum - (own - maximum), self.ce)
            self.norm = torch.stack([maximum, log_sum])
            self.lse = torch.where(rare, maximum + log_sum, self.lse)  # the same bits for a row, whatever others need

    def weigh(self, options: Options, class_weight: Tensor | None) -> None:
        """Set ``loss`` and ``row_weight``."""
        self.loss, self.row_weight = value_and_slope(options.g, self.ce, self.row)
        if class_weight is not None:
            own = class_weight[self.target if self.shard is None else self.target + self.shard.first]
            self.loss, self.row_weight = self.loss * own, self.row_weight * own

    def statistic(self, name: str) -> Tensor:
        """Return a statistic of the rows by its name in :class:`Losses`, until the gradient overwrites the softmax."""
        if name == "p":
            return self.target_probability()
        found: Tensor = self.correct if name == "correct" else getattr(self.row, name)
        return found

    def target_probability(self) -> Tensor:
        """Return p_y, or the expectation of p over a target distribution."""
        return torch.exp(-self.ce)

    def gradient(self, factor: Tensor | None, of_lse: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the gradient of sum_i (factor_i loss_i + of_lse_i lse_i), and what its rows are yet to be scaled by.

        It lies in the logits' memory.
        """
        scale = self.row_weight if factor is None else self.row_weight * factor
        own = torch.expm1(-self.ce)  # not p - 1: the digits of 1 - p_y where p_y is nearly 1
        if of_lse is None:
            return self._written(self._p.scatter_(1, self._index, own.unsqueeze(1)), scale)
        own = own * scale + of_lse * torch.exp(-self.ce)
        gradient = self._p.mul_((scale + of_lse).unsqueeze(1))
        return self._written(gradient.scatter_(1, self._index, own.unsqueeze(1)), None)

    @staticmethod
    def of_classes(
        logits: Tensor,
        target: Tensor,
        norm: Tensor,
        ce: Tensor,
        factor: Tensor,
        of_lse: Tensor | None,
        softcap: float | None,
    ) -> Tensor:
        """Return factor (p - onehot) + of_lse p for some classes of all rows, in the logits' memory.

        ``target`` counts from the first of these classes, and may lie outside of them.
        """
        z, curve = _capped(logits.to(norm.dtype), softcap)
        p = _sharded.of_classes(z, target.unsqueeze(1), norm, ce, factor, of_lse)
        if curve is not None:
            p.mul_(curve)
        return logits.copy_(p)

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


class SoftPiece(Piece):
    """A piece with target distributions, which need g and g' at every class: several times the logits' memory."""

    def normalise(self, asked: frozenset[str], with_norm: bool) -> None:
        z = self._wide_logits()
        maximum = z.amax(1)
        self._log_p = torch.log_softmax(z, 1, out=z)
        self.lse = maximum - self._log_p.amax(1)
        if self.target.dim() == 1:
            self.ce = -self._log_p.gather(1, self._index).squeeze(1)
        else:
            self.ce = -(self._log_p * self.target).sum(1)
        likeliest = self.target.argmax(1, keepdim=True) if self.target.dim() > 1 else self._index
        self.row = Row(self._log_p.exp, 1, likeliest)
        self.of_class = Row(self._log_p.exp, 1, None)

    def weigh(self, options: Options, class_weight: Tensor | None) -> None:
        value, self._spread = value_and_slope(options.g, -self._log_p, self.of_class)
        here = self.logits.shape[1]
        first, classes = (0, here) if self.shard is None else (self.shard.first, self.shard.classes)
        if self.target.dim() == 1:
            inside, at = _sharded.within(self._index, value)
            v = torch.full_like(value, options.smoothing / classes)
            if here:
                v.scatter_add_(1, at, inside.to(v.dtype) * (1.0 - options.smoothing))
        else:
            v = smoothed(self.target.to(value.dtype), options.smoothing, classes)
        if class_weight is not None:
            v.mul_(class_weight[first : first + here])
        sums = torch.stack([value.mul_(v).sum(1), self._spread.mul_(v).sum(1)])
        self.loss, self.row_weight = sums if self.shard is None else _sharded.all_reduced(sums, self.shard)

    def target_probability(self) -> Tensor:
        if self.target.dim() == 1:
            return super().target_probability()
        return (self._log_p.exp() * self.target).sum(1)

    def gradient(self, factor: Tensor | None, of_lse: Tensor | None) -> tuple[Tensor, Tensor | None]:
        total = self.row_weight
        if of_lse is not None:
            if factor is not None:
                self._spread.mul_(factor.unsqueeze(1))
                total, factor = total * factor, None
            total = total + of_lse
        return self._written(self._log_p.exp_().mul_(total.unsqueeze(1)).sub_(self._spread), factor)


class ShardedPiece(Piece):
    """A piece with the logits of some classes, whose rows' statistics are those of all classes."""

    def normalise(self, asked: frozenset[str], with_norm: bool) -> None:
        assert self.shard is not None
        self._p = self._wide_logits()
        self.ce, self.norm, known = _sharded.normalise(self._p, self._index, self.shard, asked)
        self.lse, self.correct = self.norm.sum(0), known.pop("correct", self.ce)
        self.row = Row(self._p.exp, 1, self._index, **known)

    def gradient(self, factor: Tensor | None, of_lse: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.row_weight if factor is None else self.row_weight * factor
        return self._written(_sharded.of_classes(self._p, self._index, self.norm, self.ce, scale, of_lse), None)


class ShardedSoftPiece(SoftPiece):
    """The same with smoothed indices."""

    def normalise(self, asked: frozenset[str], with_norm: bool) -> None:
        ShardedPiece.normalise(cast(ShardedPiece, self), asked, with_norm)
        self._log_p = self._p.sub_(self.norm[0].unsqueeze(1))
        is_max = self._log_p == 0
        self._log_p.sub_(self.norm[1].unsqueeze(1))
        known = {
            name: values.unsqueeze(1).expand_as(self._p)
            for name, values in vars(self.row).items()
            if name in STATISTICS
        }
        self.of_class = Row(self._p.exp, 1, None, **known | {"is_max": is_max})


class KernelPiece(Piece):
    """A piece computed by the GPU kernels: they read the logits once for the losses, and once for the gradient."""

    def normalise(self, asked: frozenset[str], with_norm: bool) -> None:
        self.ce, self.norm, known = kernels.forward(self.logits, self.target, softcap=self.softcap, asked=asked)
        self.lse = self.norm.sum(0)
        self.row = Row(self._softmax, 1, self.target.unsqueeze(1), **known)

    def _softmax(self) -> Tensor:
        return torch.softmax(capped(self.logits.float(), self.softcap), 1)

    def gradient(self, factor: Tensor | None, of_lse: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.row_weight if factor is None else self.row_weight * factor
        return self.of_classes(self.logits, self.target, self.norm, self.ce, scale, of_lse, self.softcap), None

    @staticmethod
    def of_classes(
        logits: Tensor,
        target: Tensor,
        norm: Tensor,
        ce: Tensor,
        factor: Tensor,
        of_lse: Tensor | None,
        softcap: float | None,
    ) -> Tensor:
        return kernels.backward(logits, target, norm, ce, factor, of_lse=of_lse, softcap=softcap, out=logits)


def piece_type(hidden: Tensor, target: Tensor, options: Options) -> type[Piece]:
    """Return the kind of piece that serves these options on this device."""
    soft = options.smoothing > 0 or target.dim() > 1
    if options.shard is not None:
        return ShardedSoftPiece if soft else ShardedPiece
    if soft:
        return SoftPiece
    return KernelPiece if options.compute != torch.float64 and kernels.usable(hidden) else Piece


def _capped(z: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Return softcap * tanh(z / softcap), in place, and its derivative."""
    if softcap is None:
        return z, None
    z.div_(softcap).tanh_()
    curve = torch.mul(z, z).neg_().add_(1.0)
    return z.mul_(softcap), curve
