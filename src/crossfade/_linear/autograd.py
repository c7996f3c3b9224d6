"""Autograd around :mod:`crossfade._linear.passes`: a sum's gradients in the forward pass, rows' in the backward."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from crossfade._linear.compiled import run_as_operator
from crossfade._linear.passes import Gradients, Outcome, run
from crossfade._linear.problem import Inputs, Needs, Options

_TWICE = (
    "linear_crossfade_loss has no second derivative. For one, take the reference, which holds the (N, C) logits: "
    "crossfade.probability_loss(g, torch.nn.functional.linear(hidden, linear_weight, bias), target)"
)


class Losses(NamedTuple):
    """The sum of the rows' losses or the rows' losses, then ce, w_y g'(ce) and whether y is the argmax."""

    loss: Tensor
    ce: Tensor
    row_weight: Tensor
    correct: Tensor


def total(inputs: Inputs, options: Options, factor: Tensor | None, argmax: bool) -> Losses:
    """sum_i factor_i loss_i."""
    return Losses(*_Total.apply(*inputs, factor, options, _needs(inputs), argmax))


def rows(inputs: Inputs, options: Options, argmax: bool) -> Losses:
    """loss_i, 0 where ignored."""
    return Losses(*_Rows.apply(*inputs, options, _needs(inputs), argmax))


def _needs(inputs: Inputs) -> Needs:
    if not torch.is_grad_enabled():
        return Needs()
    bias = inputs.bias is not None and inputs.bias.requires_grad
    return Needs(inputs.hidden.requires_grad, inputs.weight.requires_grad, bias)


def _run(inputs: Inputs, options: Options, factor: Tensor | None, needs: Needs, argmax: bool = False) -> Outcome:
    walk = run_as_operator if torch.compiler.is_compiling() else run
    return walk(inputs, options, factor, needs, argmax)


class _Once(torch.autograd.Function):
    """The identity on a gradient, whose own derivative is the error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *depends_on: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        raise RuntimeError(_TWICE)


def _typed(gradients: Gradients, inputs: Inputs, upstream: Tensor) -> tuple[Tensor | None, ...]:
    """In the types of what they are gradients of, and without a derivative of their own."""
    of = (inputs.hidden, inputs.weight, inputs.bias)
    typed = tuple(None if g is None or x is None else g.to(x.dtype) for g, x in zip(gradients, of, strict=True))
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return typed
    depends_on = (upstream, *(x for x in of if x is not None))
    return tuple(None if g is None else cast(Tensor, _Once.apply(g, *depends_on)) for g in typed)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        class_weight: Tensor | None,
        factor: Tensor | None,
        options: Options,
        needs: Needs,
        argmax: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = Inputs(hidden, weight, bias, target, class_weight)
        outcome = _run(inputs, options, factor, needs, argmax)
        ctx.options, ctx.needs = options, needs
        if torch.compiler.is_compiling():
            ctx.gradients = None
            ctx.save_for_backward(*inputs, factor, *outcome.gradients)
        else:
            # Outside of save_for_backward the backward pass may overwrite them: no second (C, D) buffer.
            ctx.gradients = outcome.gradients
            ctx.save_for_backward(*inputs, factor)
        loss = outcome.loss.sum() if factor is None else torch.dot(outcome.loss, factor)
        ctx.mark_non_differentiable(outcome.ce, outcome.row_weight, outcome.correct)
        return loss, outcome.ce, outcome.row_weight, outcome.correct

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, class_weight, factor, *kept = ctx.saved_tensors
        inputs = Inputs(hidden, weight, bias, target, class_weight)
        if torch.compiler.is_compiling():
            gradients = tuple(None if g is None else g * upstream for g in kept)
            return *_typed(cast(Gradients, gradients), inputs, upstream), *(None,) * 6
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # a second backward pass through a retained graph
            gradients = _run(inputs, ctx.options, factor, ctx.needs).gradients
        with torch.no_grad():
            gradients = tuple(None if g is None else g.mul_(upstream) for g in gradients)
        return *_typed(cast(Gradients, gradients), inputs, upstream), *(None,) * 6


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        class_weight: Tensor | None,
        options: Options,
        needs: Needs,
        argmax: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = Inputs(hidden, weight, bias, target, class_weight)
        outcome = _run(inputs, options, None, Needs(), argmax)
        ctx.options, ctx.needs = options, needs
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(outcome.ce, outcome.row_weight, outcome.correct)
        return outcome.loss, outcome.ce, outcome.row_weight, outcome.correct

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs = Inputs(*ctx.saved_tensors)
        gradients = _run(inputs, ctx.options, upstream, ctx.needs).gradients
        return *_typed(gradients, inputs, upstream), *(None,) * 5
