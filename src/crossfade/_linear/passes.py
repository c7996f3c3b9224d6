"""Row losses of ``hidden @ weight.T + bias`` and their gradients, a piece of the logits at a time.

Nothing here knows autograd: :mod:`crossfade._linear.autograd` does.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from crossfade._linear.pieces import KernelPiece, choose
from crossfade._linear.problem import Inputs, Needs, Options, Plan, wide

Rows: TypeAlias = slice | Tensor
Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]


class Outcome(NamedTuple):
    """Per row, 0 where ignored: loss, ce, w_y g'(ce), on request whether y is the argmax. Then the gradients needed."""

    loss: Tensor
    ce: Tensor
    row_weight: Tensor
    correct: Tensor
    gradients: Gradients


def run(inputs: Inputs, options: Options, factor: Tensor | None, needs: Needs, argmax: bool = False) -> Outcome:
    """The losses of all rows and the gradients of sum_i factor_i loss_i (factor None: all 1).

    Ignored rows take part in no matrix product. A gradient comes in the type that it was summed in.

    Raises:
        IndexError: a target that is neither a class nor ``ignore_index``.
    """
    with torch.no_grad(), torch.autocast(inputs.hidden.device.type, enabled=False):
        walk = _Walk(inputs, options, factor, needs, argmax)
        walk.over_rows()
        if walk.plan.by_class and needs.weight:
            walk.over_classes()
        return Outcome(
            walk.loss, walk.ce, walk.row_weight, walk.correct, (walk.of_hidden, walk.of_weight, walk.of_bias)
        )


def valid_rows(target: Tensor, classes: int, ignore_index: int) -> Tensor | None:
    """The rows that count, None for all of them. The one place that waits for the device."""
    ignored = target == ignore_index
    bad = ((target < 0) | (target >= classes)) & ~ignored
    bad_count, ignored_count = torch.stack([bad.sum(), ignored.sum()]).tolist()
    if bad_count:
        raise IndexError(
            f"Target {int(target[bad][0])} is out of bounds: class indices must be in [0, {classes}) "
            f"or ignore_index={ignore_index}"
        )
    return (~ignored).nonzero().squeeze(1) if ignored_count else None


class _Walk:
    """One walk over the rows, and where the weight's gradient is written class by class, one over the classes."""

    def __init__(self, inputs: Inputs, options: Options, factor: Tensor | None, needs: Needs, argmax: bool) -> None:
        hidden, weight, bias, target, class_weight = inputs
        compute, precise = options.compute, wide(options.compute)
        self.options, self.needs, self.argmax = options, needs, argmax
        self.hidden, self.target, self.factor = hidden, target, factor
        self.weight = weight.to(compute)
        self.bias = None if bias is None else bias.to(compute)
        self.class_weight = None if class_weight is None else class_weight.to(precise)
        self.valid = valid_rows(target, len(weight), options.ignore_index)
        self.count = len(target) if self.valid is None else len(self.valid)
        self.piece = choose(hidden, options)
        self.plan = Plan.of(self.count, inputs, options, self.piece is KernelPiece, needs.weight)

        n, device = len(target), hidden.device
        self.loss, self.ce, self.row_weight = (torch.zeros(n, dtype=precise, device=device) for _ in range(3))
        self.norm = torch.zeros(2, n, dtype=precise, device=device)
        self.correct = torch.zeros(n, dtype=torch.bool, device=device)
        self.of_hidden = torch.zeros_like(hidden, dtype=compute) if needs.hidden else None
        fresh = torch.empty_like if self.plan.by_class else torch.zeros_like
        self.of_weight = fresh(weight, dtype=self.plan.sums) if needs.weight else None
        self.left: Tensor | None = None
        self.of_bias = torch.zeros(len(weight), dtype=precise, device=device) if needs.bias else None

    def over_rows(self) -> None:
        buffer, piece_of = self._buffer(), slice(0, 0)
        for start in range(0, self.count, self.plan.rows):
            piece_of = slice(start, min(start + self.plan.rows, self.count))
            rows: Rows = piece_of if self.valid is None else self.valid[piece_of]
            hidden = self.hidden[rows].to(self.options.compute)
            logits = _affine(hidden, self.weight, self.bias, buffer[: len(hidden)])
            piece = self.piece(
                logits, self.target[rows], self.options, self.class_weight, self.argmax, self.plan.by_class
            )
            self.loss[rows], self.ce[rows], self.row_weight[rows] = piece.loss, piece.ce, piece.row_weight
            if self.argmax:
                self.correct[rows] = piece.correct
            if self.plan.by_class:
                self.norm[:, rows] = piece.norm
            if any(self.needs):
                gradient, scale = piece.gradient(None if self.factor is None else self.factor[rows])
                self._add(gradient, scale, hidden, rows)
        if self.plan.borrows:
            self.left = buffer[: piece_of.stop - piece_of.start]

    def _buffer(self) -> Tensor:
        """For the logits of a piece."""
        shape = (min(self.plan.rows, self.count), len(self.weight))
        if self.plan.borrows and self.of_weight is not None:
            # The end of it: the second walk overwrites it from the beginning, and takes what is still there.
            return self.of_weight.view(-1).view(self.options.compute)[-shape[0] * shape[1] :].view(shape)
        return self.hidden.new_empty(shape, dtype=self.options.compute)

    def _intact(self, first: int) -> Tensor:
        """Rows of the last piece's gradient that the weight's gradient up to class ``first`` hasn't overwritten."""
        if self.left is None or self.of_weight is None:
            return self.weight.new_empty(0, len(self.weight))
        written = self.of_weight[:first].numel() * self.of_weight.itemsize
        before = self.left.data_ptr() - self.of_weight.data_ptr()
        row = len(self.weight) * self.left.itemsize
        return self.left[max(0, -(-(written - before) // row)) :]

    def _add(self, gradient: Tensor, scale: Tensor | None, hidden: Tensor, rows: Rows) -> None:
        """Scale the small operands, not the (rows, C) gradient."""
        if self.of_hidden is not None:
            product = gradient @ self.weight
            self.of_hidden[rows] = product if scale is None else product.mul_(scale.unsqueeze(1))
        if self.of_weight is not None and not self.plan.by_class:
            _add_product(self.of_weight, gradient.t(), hidden if scale is None else hidden * scale.unsqueeze(1))
        if self.of_bias is not None and scale is not None:
            self.of_bias.addmv_(gradient.t(), scale)
        elif self.of_bias is not None:
            self.of_bias += gradient.sum(0, dtype=self.of_bias.dtype)

    def over_classes(self) -> None:
        """The weight's gradient, written once: the second time that these logits are computed."""
        assert self.of_weight is not None
        rows: Rows = slice(None) if self.valid is None else self.valid
        hidden, target = self.hidden[rows].to(self.options.compute), self.target[rows]
        factor = self.row_weight[rows] if self.factor is None else self.row_weight[rows] * self.factor[rows]
        norm, ce, buffer = self.norm[:, rows], self.ce[rows], hidden.new_empty(self.count * self.plan.classes)
        for first in range(0, len(self.weight), self.plan.classes):
            classes = slice(first, first + self.plan.classes)
            weight, bias = self.weight[classes], None if self.bias is None else self.bias[classes]
            gradient = buffer[: self.count * len(weight)].view(self.count, len(weight))
            intact = self._intact(first)
            again = self.count - len(intact)
            logits = _affine(hidden[:again], weight, bias, gradient[:again])
            self.piece.of_classes(
                logits, target[:again] - first, norm[:, :again], ce[:again], factor[:again], self.options.softcap
            )
            gradient[again:].copy_(intact[:, classes])
            _add_product(self.of_weight[classes], gradient.t(), hidden, keep=0)


def _affine(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    if bias is None:
        return torch.mm(hidden, weight.t(), out=out)
    return torch.addmm(bias, hidden, weight.t(), out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor, keep: int = 1) -> None:
    """total = keep * total + left @ right, summed in total's type."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, beta=keep, out=total)
    elif total.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(total.device)[0] >= 8:
        torch.addmm(total, left, right, beta=keep, out_dtype=total.dtype, out=total)
    else:
        torch.addmm(total, left.to(total.dtype), right.to(total.dtype), beta=keep, out=total)
