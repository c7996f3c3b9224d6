"""What a training log shows of every example or token, beside its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crossfade._fast import pieces
from crossfade._reduction import CrossEntropyOptions
from crossfade._row import Row
from crossfade._tensors import along_classes, class_dim, full_precision, is_observed, is_soft, smoothed
from crossfade._transforms import Transform, value_and_slope


@dataclass(frozen=True)
class LossStats:
    """The rows' statistics, each in the shape of the losses with ``reduction="none"``: no gradient, 0 where ignored.

    With a target distribution v they are expectations over it.

    Attributes:
        ce: -log p_y, in nats, without class weights and label smoothing.
        p: p_y.
        entropy: -sum_c p_c log p_c, in nats.
        lse: log sum_c exp(z_c) of the (capped) logits z.
        correct: whether y, or the likeliest class of v, has the largest logit.
        row_weight: w_y g'(ce), times the sample weight: how much of CE's gradient the row keeps. With label smoothing
            or a distribution v the sum of v_c w_c g'(-log p_c).
        valid: whether the row counts, target != ignore_index.
        z_loss: z_loss * lse^2, which is a part of the loss.
    """

    ce: Tensor
    p: Tensor
    entropy: Tensor
    lse: Tensor
    correct: Tensor
    row_weight: Tensor
    valid: Tensor
    z_loss: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of the valid rows that are correct; NaN where none is valid."""
        return self.correct.sum() / self.valid.sum()

    @property
    def weight_mass(self) -> Tensor:
        """Sum of the row weights, in rows of CE's gradient. Under EL it is the expected number of hits."""
        return self.row_weight.sum()


# Transforms, compilers and torch.export carry it as they carry a tuple.
torch.export.register_dataclass(LossStats, serialized_type_name="crossfade.LossStats")


def row_stats(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    options: CrossEntropyOptions,
    z_loss: float = 0.0,
) -> LossStats:
    """Return the statistics of plain logits, in eager mode a few rows at a time."""
    if is_observed() or logits.dim() < 2 or not len(logits):
        return _stats(g, logits, target, options, z_loss)
    parts = [vars(_stats(g, logits[at], target[at], options, z_loss)).values() for at in pieces(logits)]
    return LossStats(*map(torch.cat, zip(*parts, strict=True)))


def _stats(g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions, z_loss: float) -> LossStats:
    weight, ignore_index, label_smoothing, _ = options
    dim, soft = class_dim(logits), is_soft(logits, target)
    logits = full_precision(logits.detach())
    log_p, lse = torch.log_softmax(logits, dim), torch.logsumexp(logits, dim)
    p = log_p.exp()
    valid = torch.ones_like(lse, dtype=torch.bool) if soft else target != ignore_index
    likeliest = target.argmax(dim) if soft else target.masked_fill(~valid, 0)
    index = likeliest.unsqueeze(dim)
    if soft:
        v = target.detach().to(p.dtype)
        ce, p_y = -torch.where(v == 0, 0.0, v * log_p).sum(dim), (v * p).sum(dim)
    else:
        ce, p_y = -log_p.gather(dim, index).squeeze(dim), p.gather(dim, index).squeeze(dim)
    row = Row(lambda: p, dim, index)
    if soft or label_smoothing > 0:
        v = v if soft else torch.zeros_like(p).scatter(dim, index, 1.0)
        v = smoothed(v, label_smoothing, logits.shape[dim])
        if weight is not None:
            v = v * along_classes(weight.to(v.dtype), logits)
        row_weight = (v * value_and_slope(g, -log_p, Row(lambda: p, dim, None))[1]).sum(dim)
    else:
        row_weight = value_and_slope(g, ce, row)[1]
        if weight is not None:
            row_weight = row_weight * weight.to(p.dtype)[likeliest]
    correct = logits.argmax(dim) == likeliest
    rows = (ce, p_y, row.entropy, lse, correct, row_weight, valid, z_loss * lse.square())
    return LossStats(*(values.masked_fill(~valid, 0) for values in rows))
