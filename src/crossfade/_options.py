"""The options that losses g(ce) share, and what those of them do that aren't ``F.cross_entropy``'s."""

from __future__ import annotations

import math
import operator
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import _heart, kernels
from crossfade._reduction import CrossEntropyOptions, Reduction, reduce_rows
from crossfade._stats import LossStats, row_stats
from crossfade._tensors import as_index, capped, class_dim, full_precision, is_sharded, is_soft
from crossfade._transforms import Transform, check_number


class LossOptions(TypedDict, total=False):
    """The keyword arguments of every loss g(ce) that don't change the type of its result."""

    weight: Tensor | None
    ignore_index: int
    label_smoothing: float
    reduction: Reduction
    softcap: float | None
    z_loss: float
    shift: int


class MixtureOptions(LossOptions, total=False):
    """Those of the mixture, alpha * CE + beta * EL."""

    alpha: float | Tensor
    beta: float | Tensor


def check(softcap: float | None, z_loss: float, **others: float | None) -> None:
    """Raise ValueError unless z_loss is a finite number >= 0, and the others are positive numbers or None."""
    for name, number in {"softcap": softcap, **others}.items():
        if number is not None:
            check_number(name, number, "a positive number or None", lambda x: 0 < x < math.inf)
    check_number("z_loss", z_loss, "a finite number >= 0", lambda x: 0 <= x < math.inf)


def check_shift(shift: int, values: Tensor) -> None:
    """Raise ValueError unless the shift leaves some of the positions of the values (..., T, D)."""
    length = values.shape[-2] if values.dim() > 1 else 0
    expected = f"in [0, {length}), the number of positions"
    check_number("shift", shift, expected, lambda k: 0 <= operator.index(k) < length)


def loss(
    g: Transform,
    logits: Tensor,
    target: Tensor,
    options: CrossEntropyOptions,
    softcap: float | None,
    z_loss: float,
    shift: int,
    return_stats: bool,
) -> Tensor | tuple[Tensor, LossStats]:
    """Return the loss, and on request the rows' statistics, as :mod:`crossfade.functional` describes them."""
    if softcap is None and not z_loss and not shift and not return_stats:
        return _heart.probability(g, logits, target, options)
    check(softcap, z_loss)
    if is_sharded(logits):
        raise ValueError("softcap, z_loss, shift and return_stats need plain logits, got a DTensor")
    target, shape = as_index(target), logits.shape
    if shift:
        logits, target = _of_positions(logits, target, options.ignore_index, shift)

    def placed(rows: Tensor) -> Tensor:
        """Return results of the rows at their positions, without those that have no target."""
        if not shift:
            return rows
        length = shape[-2] - shift
        return rows.reshape(*shape[:-2], length if is_soft(logits, target) else shape[-2])[..., :length]

    if softcap is not None:
        logits = capped(full_precision(logits), softcap)
    if z_loss and options.label_smoothing <= 0 and kernels.available(logits, target):
        rows, lse = _heart.rows_by_kernel(g, logits, target, options.ignore_index)
        value = reduce_rows(rows, target, options)
    else:
        logits = full_precision(logits) if z_loss else logits  # the gradients of loss and z-loss are rounded together
        value = _heart.probability(g, logits, target, options)
        lse = torch.logsumexp(logits, class_dim(logits)) if z_loss else value
    if z_loss:
        squares, soft = lse.square(), is_soft(logits, target)  # all rows of a soft target count
        valid = torch.zeros_like(squares, dtype=torch.int64) if soft else target
        of_all = options._replace(weight=None, ignore_index=-100 if soft else options.ignore_index)
        value = value + z_loss * reduce_rows(squares, valid, of_all)
    value = placed(value) if options.reduction == "none" else value
    if not return_stats:
        return value
    stats = row_stats(g, logits, target, options, z_loss)
    return value, LossStats(*map(placed, vars(stats).values()))


def _of_positions(logits: Tensor, target: Tensor, ignore_index: int, shift: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, C) and their targets of the positions that have one, or of all with the others ignored."""
    rows, classes, soft = logits.shape[:-1], logits.shape[-1:], target.dim() == logits.dim()
    if logits.dim() < 2 or target.shape != (logits.shape if soft else rows):
        raise ValueError(
            "shift needs logits (..., T, C), the classes last, and a target (..., T) or (..., T, C), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}; logits (N, C, T) become that by logits.movedim(1, -1)"
        )
    check_shift(shift, logits)
    if soft:
        return logits[..., :-shift, :].reshape(-1, *classes), target[..., shift:, :].reshape(-1, *classes)
    # Ignored and not cut off: a slice of a batch of logits would be a copy.
    target = F.pad(target[..., shift:], (0, shift), value=ignore_index).reshape(-1)
    return logits.reshape(-1, *classes), target
