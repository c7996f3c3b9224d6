"""The public function: arguments checked, types chosen, the rows' losses reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from crossfade._heart import Reduction
from crossfade._linear import autograd, checks
from crossfade._linear.autograd import Losses
from crossfade._linear.pieces import value_and_slope
from crossfade._linear.problem import Inputs, Options, wide
from crossfade._transforms import Mixture, Transform, evaluate


@dataclass(frozen=True)
class LinearLossStats:
    """What a training log wants to know of every token: in the target's shape, without gradient, 0 where ignored.

    Attributes:
        ce: -log p_y, in nats, without class weights and label smoothing.
        p: p_y.
        correct: whether y has the largest logit.
        row_weight: w_y g'(ce), times the sample weight: how much of CE's gradient the token keeps.
        valid: whether the token counts, target != ignore_index.
    """

    ce: Tensor
    p: Tensor
    correct: Tensor
    row_weight: Tensor
    valid: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of the valid tokens whose target has the largest logit; NaN where none is valid."""
        return self.correct.sum() / self.valid.sum()

    @property
    def weight_mass(self) -> Tensor:
        """Sum of the row weights: CE's gradient on that many tokens. Under EL, the expected number of hits."""
        return self.row_weight.sum()


@overload
def linear_crossfade_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    g: Transform | None = None,
    memory_budget_mb: float | None = None,
    return_stats: Literal[False] = False,
) -> Tensor: ...


@overload
def linear_crossfade_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    g: Transform | None = None,
    memory_budget_mb: float | None = None,
    return_stats: Literal[True],
) -> tuple[Tensor, LinearLossStats]: ...


def linear_crossfade_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 1.0,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    g: Transform | None = None,
    memory_budget_mb: float | None = None,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, LinearLossStats]:
    r"""alpha * CE + beta * EL, eq. (12), of ``F.linear(hidden, linear_weight, bias)``, without the (N, C) logits.

    The same loss and gradients as the reference

        logits = torch.nn.functional.linear(hidden, linear_weight, bias)
        crossfade.crossfade_loss(logits, target, alpha=alpha, beta=beta, weight=weight, ...)

    computed a few rows at a time. For ``"mean"`` and ``"sum"`` the gradients are computed in the forward pass, where
    each piece of logits is at hand; for ``"none"`` the backward pass computes the logits again.

    Args:
        hidden: (N, D) or (..., D), floating point.
        linear_weight: (C, D), the output projection, such as ``lm_head.weight``. It may be tied or frozen.
        target: (N) or (...), int64 class indices in [0, C), or ``ignore_index``.
        bias: (C,).
        alpha, beta: numbers, or tensors with one element (a schedule then changes them without recompiling; they may
            require a gradient, at the price of a second computation of the logits).
        weight: (C,) factors of the classes, outside p. ``"mean"`` divides by the targets' weights.
        sample_weight: factors of the rows, in the target's shape. An integer k means what k copies of the row mean:
            ``"mean"`` divides by the sum of ``sample_weight * weight[target]`` over the valid rows.
        ignore_index: a target value that adds neither loss nor gradient nor to the mean, and costs no matrix product.
        label_smoothing: in [0, 1], the share of the target distribution that is spread over all classes.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (the target's shape).
        softcap: logits become ``softcap * tanh(logits / softcap)``, as in Gemma 2.
        g: any elementwise, differentiable function of ce, instead of the mixture of alpha and beta.
        memory_budget_mb: MiB for the piece of logits at hand, beyond results and gradients. None: 48, or the size of
            ``hidden`` if that is larger. At least one row is computed at a time.
        return_stats: also return a :class:`LinearLossStats`.

    Returns:
        The loss, float32 for half-precision inputs, and with ``return_stats`` the pair (loss, stats).

    Half precision: matrix products run in the inputs' type (autocast's, where it is on), everything between them and
    every sum over rows in float32; on the CPU the products, too, run in float32. Without a valid row the mean is NaN
    and the gradients are 0, as ``F.cross_entropy``'s.

    Raises:
        RuntimeError, ValueError: shapes, types or options that ``F.linear`` or ``F.cross_entropy`` refuse too; a second
            derivative; ``torch.func``'s transforms; DTensors (take ``probability_loss`` on sharded logits under
            ``loss_parallel``).
        IndexError: a target out of range.

    >>> import torch
    >>> hidden, lm_head = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, stats = linear_crossfade_loss(hidden, lm_head, torch.tensor([0, 0]), return_stats=True)
    >>> round(loss.item(), 4), round(stats.accuracy.item(), 2)
    (1.7072, 0.5)
    """
    if g is not None and not (isinstance(alpha, float | int) and isinstance(beta, float | int) and alpha == beta == 1):
        raise ValueError("g replaces the mixture: pass either g or alpha and beta")
    checks.refuse_transforms()
    checks.check(hidden, linear_weight, target, bias, weight, sample_weight, softcap, memory_budget_mb)
    checks.check_reduction(label_smoothing, reduction)
    g = _mixture(alpha, beta) if g is None else g
    compute = checks.compute_type(hidden, linear_weight, bias)
    options = Options(g, ignore_index, max(label_smoothing, 0.0), softcap, compute, memory_budget_mb)
    inputs = Inputs(hidden.reshape(-1, hidden.shape[-1]), linear_weight, bias, target.reshape(-1), weight)
    factor = None if sample_weight is None else sample_weight.reshape(-1).to(wide(compute))
    compute_losses = _losses
    if torch.compiler.is_compiling() and not isinstance(g, Mixture) and (label_smoothing > 0 or return_stats):
        # These need g' in the middle of the walk, and an operator takes tensors and numbers only: a graph break.
        compute_losses = torch.compiler.disable(_losses)  # type: ignore[no-untyped-call]
    losses = compute_losses(inputs, options, factor, reduction, return_stats)
    loss = losses.loss.reshape(target.shape) if reduction == "none" else losses.loss
    return (loss, _stats(losses, inputs, options, factor, target)) if return_stats else loss


def _mixture(alpha: float | Tensor, beta: float | Tensor) -> Mixture:
    """In a copy: the backward pass may come after the schedule's next step has overwritten the tensors."""

    def copied(value: float | Tensor) -> float | Tensor:
        if not isinstance(value, Tensor):
            return value
        return value.reshape(()) if value.requires_grad else value.detach().clone().reshape(())

    return Mixture(copied(alpha), copied(beta))


def _learnable(g: Transform, hidden: Tensor) -> bool:
    if not torch.is_grad_enabled():
        return False
    if isinstance(g, Mixture):
        return any(isinstance(w, Tensor) and w.requires_grad for w in (g.alpha, g.beta))
    return bool(evaluate(g, torch.ones(1, device=hidden.device)).requires_grad)


def _losses(inputs: Inputs, options: Options, factor: Tensor | None, reduction: str, stats: bool) -> Losses:
    valid = inputs.target != options.ignore_index
    if factor is not None:
        factor = torch.where(valid, factor, 0.0)
    opaque = torch.compiler.is_compiling() and not isinstance(options.g, Mixture)
    if opaque or _learnable(options.g, inputs.hidden):
        losses = _outside(inputs, options, valid, stats)
    elif reduction == "none" or (factor is not None and factor.requires_grad):
        losses = autograd.rows(inputs, options, stats)
    else:
        losses = autograd.total(inputs, options, factor, stats)
        return losses if reduction == "sum" else losses._replace(loss=_mean(losses.loss, inputs, factor, valid))
    rows = losses.loss if factor is None else losses.loss * factor
    if reduction == "none":
        return losses._replace(loss=rows)
    return losses._replace(loss=rows.sum() if reduction == "sum" else _mean(rows.sum(), inputs, factor, valid))


def _outside(inputs: Inputs, options: Options, valid: Tensor, stats: bool) -> Losses:
    """g by autograd on the vector of ce: a g with learnable tensors, or one that no operator takes."""
    if options.smoothing > 0:
        raise ValueError(
            "label_smoothing needs g at every class, and there alpha, beta or tensors in g get no gradient: take "
            " crossfade.probability_loss(g, torch.nn.functional.linear(hidden, linear_weight, bias), target)"
        )
    plain = Options(Mixture(1.0, 0.0), options.ignore_index, 0.0, options.softcap, options.compute, options.budget_mb)
    losses = autograd.rows(inputs._replace(class_weight=None), plain, stats)
    ce = losses.loss.masked_fill(~valid, 1.0)  # any number at which every g has a derivative
    rows = evaluate(options.g, ce)
    slope = value_and_slope(options.g, ce.detach())[1].detach() if stats else losses.row_weight
    if inputs.class_weight is not None:
        own = inputs.class_weight.to(rows.dtype)[inputs.target.masked_fill(~valid, 0)]
        rows, slope = rows * own, slope * own
    return losses._replace(loss=rows.masked_fill(~valid, 0.0), row_weight=slope.masked_fill(~valid, 0.0))


def _mean(total: Tensor, inputs: Inputs, factor: Tensor | None, valid: Tensor) -> Tensor:
    mass = valid.to(total.dtype) if factor is None else factor
    if inputs.class_weight is not None:
        mass = mass * inputs.class_weight.to(total.dtype)[inputs.target.masked_fill(~valid, 0)].masked_fill(~valid, 0.0)
    # Nothing valid: NaN, but beside the graph, whose gradients stay 0.
    any_valid = valid.any()
    return torch.where(any_valid, total / torch.where(any_valid, mass.sum(), 1.0), float("nan"))


def _stats(losses: Losses, inputs: Inputs, options: Options, factor: Tensor | None, target: Tensor) -> LinearLossStats:
    valid = inputs.target != options.ignore_index
    p = torch.exp(-losses.ce).masked_fill(~valid, 0.0)
    row_weight = losses.row_weight if factor is None else (losses.row_weight * factor.detach()).masked_fill(~valid, 0.0)
    shape = target.shape
    return LinearLossStats(
        ce=losses.ce.reshape(shape),
        p=p.reshape(shape),
        correct=losses.correct.reshape(shape),
        row_weight=row_weight.reshape(shape),
        valid=valid.reshape(shape),
    )
