"""Passes over the rows of ``hidden @ weight.T + bias`` for their losses and gradients, a piece of the logits at a time.

Nothing here uses autograd: :mod:`crossfade._linear.autograd` does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade._linear.pieces import KernelPiece, Options, piece_type
from crossfade._tensors import wide

_MIB = 2**20
# Without a budget: pieces of 48 MiB or of hidden's size, and at least 16 rows, which keeps the products efficient.
_DEFAULT_BYTES = 48 * _MIB
_DEFAULT_ROWS = 16
_ALIGNED = 128  # a number of classes that suits a GPU's matrix products
# A CPU's matrix product computes the rows of full blocks in one way and the rest in another, with other bits. Rows of
# zeros fill the last block, so that a row's results don't depend on how many others there are.
_BLOCK = 8
# Label smoothing needs g and g' for every class: their intermediate results have the size of the logits.
_SMOOTHING_COPIES = 8

Rows: TypeAlias = slice | Tensor


class Inputs(NamedTuple):
    """The tensors: hidden (N, D), weight (C, D), bias (C,), target (N,) or (N, C), class_weight (C,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    class_weight: Tensor | None


class Factors(NamedTuple):
    """Factors of the sum whose gradient is wanted, sum_i f_i (loss_i + z lse_i^2) or sum_i (f_i loss_i + h_i lse_i).

    Attributes:
        loss: f, (N,), None for 1.
        z: a 0-dim tensor, None for 0.
        lse: h, (N,), None for 0.
    """

    loss: Tensor | None = None
    z: Tensor | None = None
    lse: Tensor | None = None


class Needs(NamedTuple):
    """Which gradients are wanted."""

    hidden: bool = False
    weight: bool = False
    bias: bool = False


class Losses(NamedTuple):
    """Of each row, 0 where ignored: loss, lse, ce, w_y g'(ce), and on request further statistics.

    p is p_y and correct whether y is the argmax, the others are those of :class:`crossfade._row.Row`. Instead of the
    rows' losses, ``loss`` may hold their sum.
    """

    loss: Tensor
    lse: Tensor
    ce: Tensor
    row_weight: Tensor
    p: Tensor
    entropy: Tensor
    collision: Tensor
    max_p: Tensor
    is_max: Tensor
    correct: Tensor

    @staticmethod
    def empty(like: Tensor, dtype: torch.dtype) -> Losses:
        """Return zeros for as many rows as the first dimension of ``like`` has."""
        booleans = dict.fromkeys(("is_max", "correct"), torch.bool)
        return Losses(*(like.new_zeros(len(like), dtype=booleans.get(name, dtype)) for name in Losses._fields))


class Gradients(NamedTuple):
    """The gradients that are wanted, each in the type that it was summed in."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def run(
    inputs: Inputs, options: Options, factors: Factors, needs: Needs, wanted: Collection[str] = ()
) -> tuple[Losses, Gradients]:
    """Return the losses of all rows, with the statistics of these names, and the gradients of their sum.

    Ignored rows take part in no matrix product.

    Raises:
        IndexError: a target that is neither a class nor ``ignore_index``.
    """
    with torch.no_grad(), torch.autocast(inputs.hidden.device.type, enabled=False):
        passes = _Passes(inputs, options, factors, needs, wanted)
        passes.over_rows()
        if passes.plan.by_class and needs.weight:
            passes.over_classes()
        return passes.losses, Gradients(passes.of_hidden, passes.of_weight, passes.of_bias)


@dataclass(frozen=True)
class Plan:
    """How the logits are cut: into pieces of ``rows`` rows with all classes, computed in full blocks of ``block`` rows.

    A half-precision weight gradient would lose digits if it were summed piece by piece, and a float32 sum beside it
    would take twice its memory. ``by_class`` computes the logits once more instead, ``classes`` classes of all rows at
    a time, and writes each element of the gradient once. ``sums`` is the type that the weight's gradient is held in.
    Until it is written, its memory is free: ``borrows`` says that the first pass's logits lie there, so that a piece
    can have as many rows as the weight has columns.
    """

    rows: int
    block: int
    by_class: bool
    classes: int
    sums: torch.dtype
    borrows: bool

    @staticmethod
    def of(count: int, inputs: Inputs, options: Options, in_place: bool, of_weight: bool) -> Plan:
        """Return the plan for ``count`` valid rows.

        Args:
            in_place: whether a piece turns its logits into their gradient without further memory.
            of_weight: whether the weight's gradient is wanted.
        """
        width, compute = len(inputs.weight) if options.shard is None else options.shard.largest, options.compute
        smooth = options.smoothing > 0 or inputs.target.dim() > 1
        size, precise = compute.itemsize, wide(compute).itemsize
        copies = (size < precise) + (options.softcap is not None) + _SMOOTHING_COPIES * smooth
        row_bytes = max(1, width * (size if in_place else size + copies * precise))
        if options.budget_mb is None:
            budget = max(_DEFAULT_BYTES, inputs.hidden.numel() * inputs.hidden.element_size())
            rows = max(_DEFAULT_ROWS, budget // row_bytes)
        else:
            budget = int(options.budget_mb * _MIB)
            rows = budget // row_bytes
        block = _BLOCK if rows >= _BLOCK and inputs.hidden.is_cpu else 1
        rows = max(1, rows - rows % block)
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
        rows = max(1, -(-count // pieces))
        if rows >= 8 * block:  # full blocks in all pieces but the last
            rows += -rows % block
        return Plan(rows, block, by_class, max(1, min(width, classes)), sums, borrows)


def _valid_rows(target: Tensor, classes: int, ignore_index: int) -> Tensor | None:
    """Return the rows that count, None for all of them. Only here the host waits for the device."""
    if target.dim() > 1:
        return None
    ignored = target == ignore_index
    bad = ((target < 0) | (target >= classes)) & ~ignored
    bad_count, ignored_count = torch.stack([bad.sum(), ignored.sum()]).tolist()
    if bad_count:
        raise IndexError(
            f"Target {int(target[bad][0])} is out of bounds: class indices must be in [0, {classes}) "
            f"or ignore_index={ignore_index}"
        )
    return (~ignored).nonzero().squeeze(1) if ignored_count else None


class _Passes:
    """One pass over the rows, and one over the classes where the weight's gradient is written class by class."""

    def __init__(
        self, inputs: Inputs, options: Options, factors: Factors, needs: Needs, wanted: Collection[str]
    ) -> None:
        hidden, weight, bias, target, class_weight = inputs
        compute, precise = options.compute, wide(options.compute)
        self.options, self.factors, self.needs, self.wanted = options, factors, needs, wanted
        self.hidden, self.target = hidden, target if options.shard is None else target - options.shard.first
        self.weight = weight.to(compute)
        self.bias = None if bias is None else bias.to(compute)
        self.class_weight = None if class_weight is None else class_weight.to(precise)
        classes = len(weight) if options.shard is None else options.shard.classes
        self.valid = _valid_rows(target, classes, options.ignore_index)
        self.count = len(target) if self.valid is None else len(self.valid)
        self.piece = piece_type(hidden, target, options)
        self.plan = Plan.of(self.count, inputs, options, self.piece is KernelPiece, needs.weight)

        n, device = len(target), hidden.device
        self.losses = Losses.empty(hidden, precise)
        self.norm = torch.zeros(2, n, dtype=precise, device=device)
        self.of_hidden = torch.zeros_like(hidden, dtype=compute) if needs.hidden else None
        fresh = torch.empty_like if self.plan.by_class else torch.zeros_like
        self.of_weight = fresh(weight, dtype=self.plan.sums) if needs.weight else None
        self.left: Tensor | None = None
        self.of_bias = torch.zeros(len(weight), dtype=precise, device=device) if needs.bias else None

    def over_rows(self) -> None:
        """Compute every row's loss, and the gradients but for a weight's that is written class by class."""
        buffer, part = self._buffer(), slice(0, 0)
        for start in range(0, self.count, self.plan.rows):
            part = slice(start, min(start + self.plan.rows, self.count))
            rows: Rows = part if self.valid is None else self.valid[part]
            hidden = self.hidden[rows].to(self.options.compute)
            logits = _affine(hidden, self.weight, self.bias, buffer, self.plan.block)
            piece = self.piece(
                logits, self.target[rows], self.options, self.class_weight, self.wanted, self.plan.by_class
            )
            for name in ("loss", "lse", "ce", "row_weight"):
                getattr(self.losses, name)[rows] = getattr(piece, name)
            for name in self.wanted:
                getattr(self.losses, name)[rows] = piece.statistic(name)
            if self.factors.z is not None:
                self.losses.loss[rows] += self.factors.z * piece.lse.square()
            if self.plan.by_class:
                self.norm[:, rows] = piece.norm
            if any(self.needs):
                factor = None if self.factors.loss is None else self.factors.loss[rows]
                gradient, scale = piece.gradient(factor, self._of_lse(rows))
                self._add(gradient, scale, hidden, rows)
        if self.plan.borrows:
            self.left = buffer[: part.stop - part.start]

    def _of_lse(self, rows: Rows) -> Tensor | None:
        """Return the derivative by lse of some rows."""
        if self.factors.z is None:
            return None if self.factors.lse is None else self.factors.lse[rows]
        slope = self.factors.z * (2.0 * self.losses.lse[rows])
        return slope if self.factors.loss is None else slope * self.factors.loss[rows]

    def over_classes(self) -> None:
        """Write the weight's gradient. The logits are computed for the second time."""
        assert self.of_weight is not None
        rows: Rows = slice(None) if self.valid is None else self.valid
        hidden, target = self.hidden[rows].to(self.options.compute), self.target[rows]
        factor, of_lse = self.losses.row_weight[rows], self._of_lse(rows)
        if self.factors.loss is not None:
            factor = factor * self.factors.loss[rows]
        norm, ce = self.norm[:, rows], self.losses.ce[rows]
        buffer = hidden.new_empty(self.count * self.plan.classes)
        for first in range(0, len(self.weight), self.plan.classes):
            classes = slice(first, first + self.plan.classes)
            weight, bias = self.weight[classes], None if self.bias is None else self.bias[classes]
            gradient = buffer[: self.count * len(weight)].view(self.count, len(weight))
            intact = self._intact(first)
            again = self.count - len(intact)
            self.piece.of_classes(
                _affine(hidden[:again], weight, bias, gradient[:again]),
                target[:again] - first,
                norm[:, :again],
                ce[:again],
                factor[:again],
                None if of_lse is None else of_lse[:again],
                self.options.softcap,
            )
            gradient[again:].copy_(intact[:, classes])
            _add_product(self.of_weight[classes], gradient.t(), hidden, keep=0)

    def _buffer(self) -> Tensor:
        """Return memory for the logits of a piece."""
        shape = (min(self.plan.rows, self.count + -self.count % self.plan.block), len(self.weight))
        if self.plan.borrows and self.of_weight is not None:
            # Its end: the second pass overwrites it from the beginning, and uses what is still there.
            return self.of_weight.view(-1).view(self.options.compute)[-shape[0] * shape[1] :].view(shape)
        return self.hidden.new_empty(shape, dtype=self.options.compute)

    def _intact(self, first: int) -> Tensor:
        """Return the rows of the last piece's gradient that writing the weight's up to class ``first`` has left."""
        if self.left is None or self.of_weight is None:
            return self.weight.new_empty(0, len(self.weight))
        written = self.of_weight[:first].numel() * self.of_weight.itemsize
        before = self.left.data_ptr() - self.of_weight.data_ptr()
        row = len(self.weight) * self.left.itemsize
        return self.left[max(0, -(-(written - before) // row)) :]

    def _add(self, gradient: Tensor, scale: Tensor | None, hidden: Tensor, rows: Rows) -> None:
        """Add a piece's part to the gradients, scaling the small operands and not the (rows, C) gradient."""
        if self.of_hidden is not None:
            product = gradient @ self.weight
            self.of_hidden[rows] = product if scale is None else product.mul_(scale.unsqueeze(1))
        if self.of_weight is not None and not self.plan.by_class:
            _add_product(self.of_weight, gradient.t(), hidden if scale is None else hidden * scale.unsqueeze(1))
        if self.of_bias is not None and scale is not None:
            self.of_bias.addmv_(gradient.t(), scale)
        elif self.of_bias is not None:
            self.of_bias += gradient.sum(0, dtype=self.of_bias.dtype)


def _affine(hidden: Tensor, weight: Tensor, bias: Tensor | None, buffer: Tensor, block: int = 1) -> Tensor:
    """Return hidden @ weight.T + bias in the first rows of the buffer, computed in full blocks of rows."""
    rows, left = len(hidden), len(hidden) % block
    if left and rows + block - left <= len(buffer):
        hidden, left = F.pad(hidden, (0, 0, 0, block - left)), 0
    full = len(hidden) - left
    _product(hidden[:full], weight, bias, buffer[:full])
    if left:
        last = F.pad(hidden[full:], (0, 0, 0, block - left))
        buffer[full:rows] = _product(last, weight, bias, buffer.new_empty(block, len(weight)))[:left]
    return buffer[:rows]


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    if bias is None:
        return torch.mm(hidden, weight.t(), out=out)
    return torch.addmm(bias, hidden, weight.t(), out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor, keep: int = 1) -> None:
    """Set total = keep * total + left @ right, summed in total's type."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, beta=keep, out=total)
    elif total.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(total.device)[0] >= 8:
        torch.addmm(total, left, right, beta=keep, out_dtype=total.dtype, out=total)
    else:
        torch.addmm(total, left.to(total.dtype), right.to(total.dtype), beta=keep, out=total)
