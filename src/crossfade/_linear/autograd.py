"""Autograd around :mod:`crossfade._linear.passes`, and the same passes as one operator for ``torch.compile``.

The gradients of a sum of losses are computed in the forward pass, while each piece of logits is in memory. Those of
single rows need the upstream gradient: the backward pass computes the logits again. A gradient that is to be
differentiated, or many upstream gradients at once (``is_grads_batched``), take the form that holds all logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade import _heart
from crossfade._linear.passes import Factors, Gradients, Inputs, Losses, Needs, run
from crossfade._linear.pieces import Options
from crossfade._reduction import CrossEntropyOptions
from crossfade._stats import row_stats
from crossfade._tensors import capped, full_precision, wide
from crossfade._transforms import Mixture

Wanted: TypeAlias = tuple[str, ...]


def total(inputs: Inputs, options: Options, factor: Tensor | None, z: Tensor | None, wanted: Wanted) -> Losses:
    """Return the losses with their sum, sum_i factor_i (loss_i + z lse_i^2), and the statistics of these names."""
    return Losses(*_Total.apply(options, _needs(inputs), wanted, factor, z, *inputs))


def rows(inputs: Inputs, options: Options, of_lse: bool, wanted: Wanted) -> Losses:
    """Return the losses of the rows. ``of_lse`` says whether lse gets a gradient, too."""
    return Losses(*_Rows.apply(options, _needs(inputs), of_lse, wanted, *inputs))


def composed(inputs: Inputs, options: Options, wanted: Wanted = ()) -> Losses:
    """Return the losses of the rows, made of PyTorch's differentiable operations: all logits at once."""
    hidden, weight, bias, target, class_weight = inputs
    if options.shard is not None:
        raise ValueError("a linear_weight that is a DTensor has neither second derivatives nor function transforms")
    with torch.autocast(hidden.device.type, enabled=False):
        compute = options.compute
        logits = F.linear(hidden.to(compute), weight.to(compute), None if bias is None else bias.to(compute))
        logits = capped(full_precision(logits), options.softcap)
        of_rows = CrossEntropyOptions(class_weight, options.ignore_index, options.smoothing, "none")
        loss = _heart.probability(options.g, logits, target, of_rows)
        lse = torch.logsumexp(logits, 1)
        if target.dim() == 1:
            lse = lse.masked_fill(target == options.ignore_index, 0.0)
        found = dict.fromkeys(Losses._fields, lse.new_zeros(()))
        if wanted:
            found |= vars(row_stats(options.g, logits, target, of_rows))
    return Losses(**{name: found[name] for name in Losses._fields} | {"loss": loss, "lse": lse})


def _needs(inputs: Inputs) -> Needs:
    if not torch.is_grad_enabled():
        return Needs()
    bias = inputs.bias is not None and inputs.bias.requires_grad
    return Needs(inputs.hidden.requires_grad, inputs.weight.requires_grad, bias)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        options: Options,
        needs: Needs,
        wanted: Wanted,
        factor: Tensor | None,
        z: Tensor | None,
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        losses, gradients = _run(Inputs(*tensors), options, Factors(factor, z), needs, wanted)
        ctx.options, ctx.needs = options, needs
        if torch.compiler.is_compiling():
            ctx.gradients = None
            ctx.save_for_backward(factor, z, *tensors, *gradients)
        else:
            # Outside of save_for_backward the backward pass may overwrite them: no second (C, D) buffer.
            ctx.gradients = gradients
            ctx.save_for_backward(factor, z, *tensors)
        ctx.mark_non_differentiable(*losses[1:])
        return losses.loss.sum() if factor is None else torch.dot(losses.loss, factor), *losses[1:]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        factor, z, *tensors = ctx.saved_tensors
        inputs, kept = Inputs(*tensors[:5]), Gradients(*tensors[5:]) if tensors[5:] else ctx.gradients
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            losses = composed(inputs, ctx.options)
            each = losses.loss if z is None else losses.loss + z * losses.lse.square()
            whole = each.sum() if factor is None else torch.dot(each, factor)
            scaled = _differentiable(inputs, ctx.needs, [whole], [upstream])
        else:
            if kept is None:  # a second backward pass through a retained graph
                _, kept = _run(inputs, ctx.options, Factors(factor, z), ctx.needs)
            if torch.compiler.is_compiling() or _is_batched(upstream):
                scaled = Gradients(*(None if g is None else g * upstream for g in kept))
            else:
                ctx.gradients = None
                scaled = Gradients(*(None if g is None else g.mul_(upstream) for g in kept))
        return None, None, None, None, None, *_typed(scaled, inputs), None, None


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, options: Options, needs: Needs, of_lse: bool, wanted: Wanted, *tensors: Any
    ) -> tuple[Tensor, ...]:
        losses, _ = _run(Inputs(*tensors), options, Factors(), Needs(), wanted)
        ctx.options, ctx.needs, ctx.of_lse = options, needs, of_lse
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*losses[2 if of_lse else 1 :])
        return tuple(losses)

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, of_lse: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, upstream = Inputs(*ctx.saved_tensors), [of_loss, of_lse] if ctx.of_lse else [of_loss]
        if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or any(map(_is_batched, upstream))):
            with torch.enable_grad():
                outputs = composed(inputs, ctx.options)[: len(upstream)]
            gradients = _differentiable(inputs, ctx.needs, outputs, upstream)
        else:
            factors = Factors(of_loss, None, of_lse if ctx.of_lse else None)
            _, gradients = _run(inputs, ctx.options, factors, ctx.needs)
        return None, None, None, None, *_typed(gradients, inputs), None, None


def _is_batched(upstream: Tensor) -> bool:
    return torch._C._functorch.is_legacy_batchedtensor(upstream)


def _differentiable(inputs: Inputs, needs: Needs, outputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> Gradients:
    """Return the gradients of results of :func:`composed`, themselves differentiable if autograd records."""
    wanted = [x for x, need in zip(inputs, needs, strict=False) if need and x is not None]
    found = iter(torch.autograd.grad(outputs, wanted, upstream, create_graph=torch.is_grad_enabled()))
    return Gradients(*(next(found) if need else None for need in needs))


def _typed(gradients: Gradients, inputs: Inputs) -> list[Tensor | None]:
    """Return the gradients in the types of hidden, weight and bias."""
    of = (inputs.hidden, inputs.weight, inputs.bias)
    return [None if g is None or x is None else g.to(x.dtype) for g, x in zip(gradients, of, strict=True)]


def _run(
    inputs: Inputs, options: Options, factors: Factors, needs: Needs, wanted: Wanted = ()
) -> tuple[Losses, Gradients]:
    """Call :func:`run`, under ``torch.compile`` as an operator; ``options.g`` is then a mixture."""
    if not torch.compiler.is_compiling():
        return run(inputs, options, factors, needs, wanted)
    assert isinstance(options.g, Mixture)
    device = inputs.hidden.device
    number = torch.float32 if device.type == "mps" else torch.float64
    results = _operator(
        *inputs,
        options.compute,
        list(needs),
        factors.loss,
        *(torch.as_tensor(w, dtype=number, device=device) for w in (options.g.alpha, options.g.beta)),
        options.ignore_index,
        options.smoothing,
        options.softcap,
        options.budget_mb,
        ",".join(wanted),
        *factors[1:],
    )
    needed = (g if need else None for g, need in zip(results[-3:], needs, strict=True))
    return Losses(*results[:-3]), Gradients(*needed)


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
    wanted: str,
    z: Tensor | None = None,
    of_lse: Tensor | None = None,
) -> list[Tensor]:
    """Return the losses, and after them three gradients, empty where they aren't needed."""
    options = Options(Mixture(alpha, beta), ignore_index, smoothing, softcap, compute, budget_mb)
    inputs = Inputs(hidden, weight, bias, target, class_weight)
    names = wanted.split(",") if wanted else ()
    losses, gradients = run(inputs, options, Factors(factor, z, of_lse), Needs(*needs), names)
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
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    gradients = [
        hidden.new_empty(shape, dtype=kind) if needed else hidden.new_empty(0)
        for shape, kind, needed in zip(shapes, _gradient_types(weight, compute), needs, strict=True)
    ]
    return [*Losses.empty(hidden, wide(compute)), *gradients]


def _gradient_types(weight: Tensor, compute: torch.dtype) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """Return types that depend on the inputs' types alone; those of a run depend on the number of valid targets."""
    precise = wide(compute)
    return compute, torch.bfloat16 if weight.dtype == compute == torch.bfloat16 else precise, precise
