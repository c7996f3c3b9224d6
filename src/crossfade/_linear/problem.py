"""What is computed (inputs, options) and in which pieces (plan)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from crossfade._transforms import Transform

_MIB = 2**20
# Without a budget: pieces of 48 MiB or of hidden's size, and at least 16 rows, which keeps the products efficient.
_DEFAULT_BYTES = 48 * _MIB
_DEFAULT_ROWS = 16
_ALIGNED = 128  # classes: what a GPU's matrix products like
# Label smoothing needs g and g' for every class: their intermediate results have the size of the logits.
_SMOOTHING_COPIES = 8


class Inputs(NamedTuple):
    """hidden (N, D), weight (C, D), bias (C,), target (N,), class_weight (C,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    class_weight: Tensor | None


@dataclass(frozen=True)
class Options:
    """What is computed, apart from the tensors. ``compute`` is the type of the matrix products."""

    g: Transform
    ignore_index: int
    smoothing: float
    softcap: float | None
    compute: torch.dtype
    budget_mb: float | None


class Needs(NamedTuple):
    hidden: bool = False
    weight: bool = False
    bias: bool = False


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of everything between two matrix products."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Plan:
    """Pieces of ``rows`` rows with all classes.

    A half-precision weight gradient would lose digits if it were summed piece by piece, and a float32 sum beside it
    would take twice its memory. ``by_class`` computes the logits once more instead, ``classes`` classes of all rows at
    a time, and writes each element of the gradient once. ``sums`` is the type that the weight's gradient is held in.
    Until it is written, its memory is free: ``borrows`` says that the first walk's logits lie there, so that a piece
    can have as many rows as the weight has columns.
    """

    rows: int
    by_class: bool
    classes: int
    sums: torch.dtype
    borrows: bool

    @staticmethod
    def of(count: int, inputs: Inputs, options: Options, in_place: bool, of_weight: bool) -> Plan:
        """``in_place``: the piece at hand turns logits into their gradient without further memory.

        ``of_weight``: the weight's gradient is wanted.
        """
        width, compute, smooth = inputs.weight.shape[0], options.compute, options.smoothing > 0
        row_bytes = max(1, width * _bytes_per_logit(options, in_place))
        if options.budget_mb is None:
            budget = max(_DEFAULT_BYTES, inputs.hidden.numel() * inputs.hidden.element_size())
            rows = max(_DEFAULT_ROWS, budget // row_bytes)
        else:
            budget = int(options.budget_mb * _MIB)
            rows = max(1, budget // row_bytes)
        pieces = max(1, -(-count // rows))
        half = inputs.weight.dtype == compute and compute.itemsize < 4
        by_class = half and pieces > 1 and not smooth
        if by_class and options.budget_mb is None:
            budget = _DEFAULT_BYTES
        classes = budget * width // (row_bytes * max(1, count))
        if classes > _ALIGNED:
            classes -= classes % _ALIGNED
        # float16 can't hold a sum over rows that is yet to be divided by their count.
        once = half and (by_class or pieces == 1) and compute != torch.float16
        sums = compute if once else wide(compute)
        lent = inputs.weight.shape[1] * sums.itemsize // compute.itemsize
        borrows = by_class and in_place and of_weight and inputs.weight.is_contiguous() and lent >= rows
        if borrows:
            pieces = -(-count // lent)
        return Plan(
            rows=max(1, -(-count // pieces)),
            by_class=by_class,
            classes=max(1, min(width, classes)),
            sums=sums,
            borrows=borrows,
        )


def _bytes_per_logit(options: Options, in_place: bool) -> int:
    size, precise = options.compute.itemsize, wide(options.compute).itemsize
    if in_place:
        return size
    copies = (size < precise) + (options.softcap is not None) + _SMOOTHING_COPIES * (options.smoothing > 0)
    return size + copies * precise
