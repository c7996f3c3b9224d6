"""Autograd around :mod:`crossfade._linear.passes`, and the same passes as one operator for ``torch.compile``.

The gradients of a sum of losses are computed in the forward pass, while each piece of logits is in memory. Those of
single rows need the upstream gradient: the backward pass computes the logits again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossfade._linear.passes import Gradients, Inputs, Losses, Needs, run
from crossfade._linear.pieces import Options
from crossfade._tensors import wide
from crossfade._transforms import Mixture


def total(inputs: Inputs, options: Options, factor: Tensor | None, with_correct: bool) -> Losses:
    """Return the losses with their sum, sum_i factor_i loss_i."""
    return Losses(*_Total.apply(options, _needs(inputs), with_correct, factor, *inputs))


def rows(inputs: Inputs, options: Options, with_correct: bool) -> Losses:
    """Return the losses of the rows."""
    return Losses(*_Rows.apply(options, _needs(inputs), with_correct, *inputs))


def _needs(inputs: Inputs) -> Needs:
    if not torch.is_grad_enabled():
        return Needs()
    bias = inputs.bias is not None and inputs.bias.requires_grad
    return Needs(inputs.hidden.requires_grad, inputs.weight.requires_grad, bias)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, options: Options, needs: Needs, with_correct: bool, factor: Tensor | None, *tensors: Any
    ) -> tuple[Tensor, ...]:
        losses, gradients = _run(Inputs(*tensors), options, factor, needs, with_correct)
        ctx.options, ctx.needs = options, needs
        if torch.compiler.is_compiling():
            ctx.gradients = None
            ctx.save_for_backward(factor, *tensors, *gradients)
        else:
            # Outside of save_for_backward the backward pass may overwrite them: no second (C, D) buffer.
            ctx.gradients = gradients
            ctx.save_for_backward(factor, *tensors)
        ctx.mark_non_differentiable(*losses[1:])
        return losses.loss.sum() if factor is None else torch.dot(losses.loss, factor), *losses[1:]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        factor, *tensors = ctx.saved_tensors
        inputs, kept = Inputs(*tensors[:5]), tensors[5:]
        if torch.compiler.is_compiling():
            scaled = [None if g is None else g * upstream for g in kept]
        else:
            gradients, ctx.gradients = ctx.gradients, None
            if gradients is None:  # a second backward pass through a retained graph
                _, gradients = _run(inputs, ctx.options, factor, ctx.needs)
            with torch.no_grad():
                scaled = [None if g is None else g.mul_(upstream) for g in gradients]
        return None, None, None, None, *_typed(Gradients(*scaled), inputs, upstream), None, None


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: Options, needs: Needs, with_correct: bool, *tensors: Any) -> tuple[Tensor, ...]:
        losses, _ = _run(Inputs(*tensors), options, None, Needs(), with_correct)
        ctx.options, ctx.needs = options, needs
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*losses[1:])
        return tuple(losses)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs = Inputs(*ctx.saved_tensors)
        _, gradients = _run(inputs, ctx.options, upstream, ctx.needs)
        return None, None, None, *_typed(gradients, inputs, upstream), None, None


def _typed(gradients: Gradients, inputs: Inputs, upstream: Tensor) -> list[Tensor | None]:
    """Return the gradients in the types of hidden, weight and bias, refusing a derivative of their own."""
    of = (inputs.hidden, inputs.weight, inputs.bias)
    typed = [None if g is None or x is None else g.to(x.dtype) for g, x in zip(gradients, of, strict=True)]
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return typed
    depends_on = [upstream, *(x for x in of if x is not None)]
    return [None if g is None else _Once.apply(g, *depends_on) for g in typed]


class _Once(torch.autograd.Function):
    """The identity on a gradient, whose own derivative is the error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *depends_on: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            "linear_crossfade_loss has no second derivative. For one, take the reference, which holds the (N, C) "
            "logits: crossfade.probability_loss(g, torch.nn.functional.linear(hidden, linear_weight, bias), target)"
        )


def _run(
    inputs: Inputs, options: Options, factor: Tensor | None, needs: Needs, with_correct: bool = False
) -> tuple[Losses, Gradients]:
    """Call :func:`run`, under ``torch.compile`` as an operator; ``options.g`` is then a mixture."""
    if not torch.compiler.is_compiling():
        return run(inputs, options, factor, needs, with_correct)
    assert isinstance(options.g, Mixture)
    device = inputs.hidden.device
    number = torch.float32 if device.type == "mps" else torch.float64
    loss, ce, row_weight, correct, *gradients = _operator(
        *inputs,
        options.compute,
        list(needs),
        factor,
        *(torch.as_tensor(w, dtype=number, device=device) for w in (options.g.alpha, options.g.beta)),
        options.ignore_index,
        options.smoothing,
        options.softcap,
        options.budget_mb,
        with_correct,
    )
    needed = (g if need else None for g, need in zip(gradients, needs, strict=True))
    return Losses(loss, ce, row_weight, correct), Gradients(*needed)


@torch.library.custom_op("crossfade::linear_loss", mutates_args=())
def _operator(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    compute: torch.dtype,
    needs: list[bool],
    factor: Tensor | None,
    alpha: Tensor,
    beta: Tensor,
    ignore_index: int,
    smoothing: float,
    softcap: float | None,
    budget_mb: float | None,
    with_correct: bool,
) -> list[Tensor]:
    """Return the losses, and after them three gradients, empty where they aren't needed."""
    options = Options(Mixture(alpha, beta), ignore_index, smoothing, softcap, compute, budget_mb)
    inputs = Inputs(hidden, weight, bias, target, class_weight)
    losses, gradients = run(inputs, options, factor, Needs(*needs), with_correct)
    typed = [
        hidden.new_empty(0) if gradient is None else gradient.to(kind)
        for gradient, kind in zip(gradients, _gradient_types(weight, compute), strict=True)
    ]
    return [*losses, *typed]


@_operator.register_fake
def _shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    compute: torch.dtype,
    needs: list[bool],
    *others: object,
) -> list[Tensor]:
    """Return empty tensors of the shapes and types that the operator returns."""
    loss, ce, row_weight = (hidden.new_empty(target.shape, dtype=wide(compute)) for _ in range(3))
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    gradients = [
        hidden.new_empty(shape, dtype=kind) if needed else hidden.new_empty(0)
        for shape, kind, needed in zip(shapes, _gradient_types(weight, compute), needs, strict=True)
    ]
    return [loss, ce, row_weight, hidden.new_empty(target.shape, dtype=torch.bool), *gradients]


def _gradient_types(weight: Tensor, compute: torch.dtype) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """Return types that depend on the inputs' types alone; those of a run depend on the number of valid targets."""
    precise = wide(compute)
    return compute, torch.bfloat16 if weight.dtype == compute == torch.bfloat16 else precise, precise
