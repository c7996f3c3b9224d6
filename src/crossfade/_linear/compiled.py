"""The walk as one operator that ``torch.compile`` takes whole. Operators take tensors and numbers: g is the mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from crossfade._linear.passes import Outcome, run
from crossfade._linear.problem import Inputs, Needs, Options, wide
from crossfade._transforms import Mixture


def run_as_operator(
    inputs: Inputs, options: Options, factor: Tensor | None, needs: Needs, argmax: bool = False
) -> Outcome:
    """:func:`crossfade._linear.passes.run` for ``options.g`` a mixture whose weights are tensors."""
    assert isinstance(options.g, Mixture)
    device = inputs.hidden.device
    number = torch.float32 if device.type == "mps" else torch.float64
    mixture = [torch.as_tensor(w, dtype=number, device=device) for w in (options.g.alpha, options.g.beta)]
    loss, ce, row_weight, correct, *gradients = _linear_loss(
        *inputs,
        factor,
        *mixture,
        options.ignore_index,
        options.smoothing,
        options.softcap,
        options.compute,
        options.budget_mb,
        list(needs),
        argmax,
    )
    hidden, weight, bias = (g if needed else None for g, needed in zip(gradients, needs, strict=True))
    return Outcome(loss, ce, row_weight, correct, (hidden, weight, bias))


@torch.library.custom_op("crossfade::linear_loss", mutates_args=())
def _linear_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    factor: Tensor | None,
    alpha: Tensor,
    beta: Tensor,
    ignore_index: int,
    smoothing: float,
    softcap: float | None,
    compute: torch.dtype,
    budget_mb: float | None,
    needs: list[bool],
    argmax: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    options = Options(Mixture(alpha, beta), ignore_index, smoothing, softcap, compute, budget_mb)
    inputs = Inputs(hidden, weight, bias, target, class_weight)
    outcome = run(inputs, options, factor, Needs(*needs), argmax)
    gradients = [
        hidden.new_empty(0) if gradient is None else gradient.to(kind)
        for gradient, kind in zip(outcome.gradients, _gradient_types(weight, compute), strict=True)
    ]
    return outcome.loss, outcome.ce, outcome.row_weight, outcome.correct, *gradients  # type: ignore[return-value]


def _gradient_types(weight: Tensor, compute: torch.dtype) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """A run's own types depend on its plan, which depends on the targets; an operator's must not."""
    precise = wide(compute)
    return compute, torch.bfloat16 if weight.dtype == compute == torch.bfloat16 else precise, precise


@_linear_loss.register_fake
def _fake(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    factor: Tensor | None,
    alpha: Tensor,
    beta: Tensor,
    ignore_index: int,
    smoothing: float,
    softcap: float | None,
    compute: torch.dtype,
    budget_mb: float | None,
    needs: list[bool],
    argmax: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss, ce, row_weight = (hidden.new_empty(target.shape, dtype=wide(compute)) for _ in range(3))
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    gradients = [
        hidden.new_empty(shape, dtype=kind) if needed else hidden.new_empty(0)
        for shape, kind, needed in zip(shapes, _gradient_types(weight, compute), needs, strict=True)
    ]
    return loss, ce, row_weight, hidden.new_empty(target.shape, dtype=torch.bool), *gradients  # type: ignore[return-value]
