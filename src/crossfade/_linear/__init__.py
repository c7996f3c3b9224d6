"""The loss fused with the output projection. (``crossfade.linear`` is a schedule.)

Here the arguments are checked, the type of the products is chosen and the losses of the rows are reduced.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from crossfade import _options
from crossfade._linear import autograd
from crossfade._linear.passes import Inputs, Losses
from crossfade._linear.pieces import Options
from crossfade._options import MixtureOptions
from crossfade._reduction import Reduction, check_reduction
from crossfade._row import STATISTICS, Row
from crossfade._sharded import local_projection
from crossfade._stats import LossStats
from crossfade._tensors import (
    as_index,
    check_per_class,
    check_smoothing,
    is_half,
    is_sharded,
    is_transformed,
    target_weight,
    wide,
)
from crossfade._transforms import Mixture, Transform, evaluate, probe, takes_row, value_and_slope


class LinearOptions(MixtureOptions, total=False):
    """The keyword arguments of :func:`linear_crossfade_loss` that don't change the type of its result."""

    bias: Tensor | None
    sample_weight: Tensor | None
    g: Transform | None
    memory_budget_mb: float | None


@overload
def linear_crossfade_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[LinearOptions],
) -> Tensor: ...


@overload
def linear_crossfade_loss(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    return_stats: Literal[True],
    **options: Unpack[LinearOptions],
) -> tuple[Tensor, LossStats]: ...


@overload
def linear_crossfade_loss(
    hidden: Tensor, linear_weight: Tensor, target: Tensor, *, return_stats: bool, **options: Unpack[LinearOptions]
) -> Tensor | tuple[Tensor, LossStats]: ...


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
    z_loss: float = 0.0,
    shift: int = 0,
    g: Transform | None = None,
    memory_budget_mb: float | None = None,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, LossStats]:
    r"""alpha * CE + beta * EL, eq. (12), of ``F.linear(hidden, linear_weight, bias)``, without the (N, C) logits.

    The same loss and gradients as the reference

        logits = torch.nn.functional.linear(hidden, linear_weight, bias)
        crossfade.crossfade_loss(logits, target, alpha=alpha, beta=beta, weight=weight, ...)

    computed a few rows at a time. For ``"mean"`` and ``"sum"`` the gradients are computed in the forward pass, where
    each piece of logits is at hand; for ``"none"`` the backward pass computes the logits again.

    Args:
        hidden: (N, D) or (..., D), floating point.
        linear_weight: (C, D), the output projection, such as ``lm_head.weight``. It may be tied or frozen, or a DTensor
            that is sharded over the classes, ``Shard(0)``; ``hidden`` is then the same in every process, and so are
            the results.
        target: (N) or (...), int64 or uint8 class indices in [0, C), or ``ignore_index``; or class probabilities
            (..., C).
        bias: (C,).
        alpha, beta: numbers, or tensors with one element (a schedule then changes them without recompiling; they may
            require a gradient, at the price of a second computation of the logits).
        sample_weight: factors of the rows, in the shape of ``hidden`` without D. An integer k means what k copies of
            the row mean: ``"mean"`` divides by the sum of ``sample_weight * weight[target]`` over the valid rows.
        weight, ignore_index, label_smoothing, reduction, softcap, z_loss: as in :mod:`crossfade.functional`. Ignored
            rows cost no matrix product.
        shift: ``shift=1`` makes position t of (..., T, D) predict the target at t + 1 of (..., T): the loss of
            ``hidden[..., :-1, :]``, ``target[..., 1:]`` and ``sample_weight[..., 1:]``. Any number below T.
        g: any elementwise, differentiable function of ce, or of ce and the row's statistics, instead of the mixture of
            alpha and beta: see :mod:`crossfade.objectives`.
        memory_budget_mb: MiB for the piece of logits at hand, beyond results and gradients. None: 48, or the size of
            ``hidden`` if that is larger. At least one row is computed at a time.
        return_stats: also return a :class:`LossStats` of the rows.

    Returns:
        The loss, float32 for half-precision inputs, and with ``return_stats`` the pair (loss, stats).

    Half precision: matrix products run in the inputs' type (autocast's, where it is on), everything between them and
    every sum over rows in float32; on the CPU the products, too, run in float32. Without a valid row the mean is NaN
    and the gradients are 0, as ``F.cross_entropy``'s.

    Second derivatives, ``torch.func``'s transforms, forward mode, gradients of class probabilities and of several rows
    at once (``is_grads_batched``) come from the reference, with all logits in memory.

    Raises:
        RuntimeError, ValueError: shapes, types, options that ``F.linear`` or ``F.cross_entropy`` refuse too; DTensors
            that are sharded otherwise.
        IndexError: a target out of range.

    >>> import torch
    >>> hidden, lm_head = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, stats = linear_crossfade_loss(hidden, lm_head, torch.tensor([0, 0]), return_stats=True)
    >>> round(loss.item(), 4), round(stats.accuracy.item(), 2)
    (1.7245, 0.5)
    """
    if g is not None and not (isinstance(alpha, float | int) and isinstance(beta, float | int) and alpha == beta == 1):
        raise ValueError("g replaces the mixture: pass either g or alpha and beta")
    _options.check(softcap, z_loss, memory_budget_mb=memory_budget_mb)
    check_reduction(reduction)
    target = as_index(target)
    _check_tensors(hidden, linear_weight, target, bias, weight, sample_weight, label_smoothing)
    soft = target.dim() == hidden.dim()
    if shift:
        _options.check_shift(shift, hidden)
        hidden, target = hidden[..., :-shift, :], target[..., shift:, :] if soft else target[..., shift:]
        sample_weight = None if sample_weight is None else sample_weight[..., shift:]
    g = Mixture(_copied(alpha), _copied(beta)) if g is None else g
    compute = compute_type(hidden, linear_weight, bias)
    classes, shard = linear_weight.shape[0], None
    if is_sharded(linear_weight):
        if soft:
            raise ValueError("a linear_weight that is a DTensor needs class indices, got class probabilities")
        hidden, linear_weight, bias, shard = local_projection(hidden, linear_weight, bias)
    learnable, asked = _probe(g, hidden.device)
    options = Options(g, ignore_index, max(label_smoothing, 0.0), softcap, compute, memory_budget_mb, asked, shard)
    flat_target = target.reshape(-1, classes) if soft else target.reshape(-1)
    inputs = Inputs(hidden.reshape(-1, hidden.shape[-1]), linear_weight, bias, flat_target, weight)
    ignored = torch.zeros_like(flat_target[:, 0], dtype=torch.bool) if soft else flat_target == ignore_index
    factor = None
    if sample_weight is not None:
        factor = sample_weight.reshape(-1).to(wide(compute)).masked_fill(ignored, 0.0)
    compute_losses = _losses
    of_class = label_smoothing > 0 or soft or return_stats
    if torch.compiler.is_compiling() and (shard is not None or (of_class and not isinstance(g, Mixture))):
        # These need g' between the matrix products, and the operator takes tensors and numbers only: a graph break.
        compute_losses = torch.compiler.disable(_losses)  # type: ignore[no-untyped-call]
    wanted = ("p", "entropy", "correct") if return_stats else ()
    losses = compute_losses(inputs, options, learnable, z_loss, factor, ignored, reduction, wanted)
    shape = hidden.shape[:-1]
    loss = losses.loss.reshape(shape) if reduction == "none" else losses.loss
    if not return_stats:
        return loss
    row_weight = losses.row_weight if factor is None else losses.row_weight * factor.detach()
    lse = losses.lse.detach()
    rows = (losses.ce, losses.p, losses.entropy, lse, losses.correct, row_weight, ~ignored, z_loss * lse.square())
    return loss, LossStats(*(values.reshape(shape) for values in rows))


def compute_type(hidden: Tensor, linear_weight: Tensor, bias: Tensor | None) -> torch.dtype:
    """Return the type of the matrix products: autocast's where it would cast, the inputs' elsewhere; on a CPU no half.

    A CPU without bfloat16 instructions emulates them at a small fraction of float32's speed, and sums in them.
    """
    device, dtype = hidden.device.type, hidden.dtype
    given = [t.dtype for t in (hidden, linear_weight, bias) if t is not None]
    if not all(d.is_floating_point for d in given):
        raise RuntimeError(f"hidden, linear_weight and bias must be floating point, got {', '.join(map(str, given))}")
    if torch.is_autocast_enabled(device) and torch.float64 not in given:
        dtype = torch.get_autocast_dtype(device)
    elif len(set(given)) > 1:
        raise RuntimeError(f"hidden, linear_weight and bias must have the same type, got {', '.join(map(str, given))}")
    return torch.float32 if device == "cpu" and is_half(dtype) else dtype


def _check_tensors(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
) -> None:
    """Refuse what ``F.linear`` or ``F.cross_entropy`` would refuse, with the same kind of error."""
    if is_sharded(hidden) and not is_sharded(linear_weight):
        raise ValueError("hidden is a DTensor, but linear_weight isn't: pass hidden.full_tensor()")
    if hidden.dim() < 1 or linear_weight.dim() != 2 or hidden.shape[-1] != linear_weight.shape[1]:
        raise RuntimeError(
            "expected hidden (..., D) and linear_weight (C, D), "
            f"got {tuple(hidden.shape)} and {tuple(linear_weight.shape)}"
        )
    if len(linear_weight) == 0:
        raise ValueError(f"linear_weight must have at least one class (row), got shape {tuple(linear_weight.shape)}")
    rows = hidden.shape[:-1]
    if target.shape == (*rows, linear_weight.shape[0]) and target.is_floating_point():
        pass
    elif target.dtype != torch.int64:
        raise RuntimeError(
            f"target must hold class indices in torch.int64, got {target.dtype} of shape {tuple(target.shape)}; class "
            f"probabilities are floating point and have the shape {(*rows, linear_weight.shape[0])}"
        )
    elif target.shape != rows:
        raise ValueError(f"expected target of shape {tuple(rows)}, hidden's without D, got {tuple(target.shape)}")
    check_smoothing(label_smoothing)
    for name, per_class in (("bias", bias), ("weight", weight)):
        check_per_class(name, per_class, linear_weight.shape[0])
    if sample_weight is not None and sample_weight.shape != rows:
        raise ValueError(f"sample_weight must have target's shape {tuple(rows)}, got {tuple(sample_weight.shape)}")
    if weight is not None and weight.requires_grad:
        raise ValueError("weight gets no gradient here: detach it, or take crossfade.crossfade_loss on the logits")


def _copied(value: float | Tensor) -> float | Tensor:
    """Return a weight as it is now: the schedule may change the tensor before the backward pass."""
    if not isinstance(value, Tensor):
        return value
    return value if value.requires_grad else value.detach().clone()


def _probe(g: Transform, device: torch.device) -> tuple[bool, frozenset[str]]:
    """Return whether g's tensors are to get a gradient, and the statistics that it asks for."""
    if torch.compiler.is_compiling():  # such a g runs outside of the operator, and autograd sees what it needs
        return isinstance(g, Mixture) and probe(g, device)[0], frozenset(STATISTICS if takes_row(g) else ())
    if is_transformed():
        return False, frozenset()
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        learnable, asked = probe(g, device)
    return learnable and recording, asked


def _losses(
    inputs: Inputs,
    options: Options,
    learnable: bool,
    z_loss: float,
    factor: Tensor | None,
    ignored: Tensor,
    reduction: Reduction,
    wanted: tuple[str, ...],
) -> Losses:
    """Return the rows' losses times ``factor``, reduced, with the rest of the rows' results."""
    compiling = torch.compiler.is_compiling()
    opaque = compiling and not isinstance(options.g, Mixture)
    count = (~ignored).to(wide(options.compute)) if factor is None else factor
    mass = count
    if inputs.class_weight is not None and inputs.target.dim() == 1:
        mass = count * target_weight(inputs.class_weight.to(count.dtype), inputs.target, ignored)
    # Without a valid row the NaN of a mean is a constant beside the graph, so that the gradients stay 0.
    any_valid = ~ignored.all()

    def divided(total: Tensor, by: Tensor) -> Tensor:
        return torch.where(any_valid, total / torch.where(any_valid, by.sum(), 1.0), float("nan"))

    def reduced(values: Tensor, by: Tensor) -> Tensor:
        values = values if factor is None else values * factor
        if reduction == "none":
            return values
        return values.sum() if reduction == "sum" else divided(values.sum(), by)

    # Dispatch modes (FLOP counters, memory trackers) and compilers only look on.
    if (not compiling and is_transformed()) or (torch.is_grad_enabled() and inputs.target.requires_grad):
        losses = autograd.composed(inputs, options, wanted)
    elif opaque or learnable:
        losses = _outside(inputs, options, ignored, z_loss > 0, wanted)
    elif reduction == "none" or (factor is not None and factor.requires_grad):
        losses = autograd.rows(inputs, options, z_loss > 0, wanted)
    else:
        z = torch.full_like(count.sum(), z_loss) if z_loss > 0 else None
        if z is not None and mass is not count and reduction == "mean":
            z = z * divided(mass.sum(), count)  # its mean is over the valid rows, whatever their class weights are
        losses = autograd.total(inputs, options, factor, z, wanted)
        return losses._replace(loss=divided(losses.loss, mass)) if reduction == "mean" else losses
    loss = reduced(losses.loss, mass)
    return losses._replace(loss=loss + reduced(z_loss * losses.lse.square(), count) if z_loss > 0 else loss)


def _outside(inputs: Inputs, options: Options, ignored: Tensor, of_lse: bool, wanted: tuple[str, ...]) -> Losses:
    """Return the rows' losses by autograd on the vector of ce: for a g that has learnable tensors or is no mixture."""
    if options.smoothing > 0 or inputs.target.dim() > 1:
        raise ValueError(
            "label_smoothing and class probabilities need g at every class, and there alpha, beta or tensors in g get "
            "no gradient: take "
            "crossfade.probability_loss(g, torch.nn.functional.linear(hidden, linear_weight, bias), target)"
        )
    ce_rows = replace(options, g=Mixture(1.0, 0.0))
    needed = tuple(dict.fromkeys((*wanted, *options.asked)))
    losses = autograd.rows(inputs._replace(class_weight=None), ce_rows, of_lse, needed)
    row = Row(inputs.hidden.new_empty, 0, None, **{name: getattr(losses, name) for name in STATISTICS})  # all are known
    ce = losses.loss.masked_fill(ignored, 1.0)  # any number at which every g has a derivative
    rows = evaluate(options.g, ce, row)
    slope = value_and_slope(options.g, ce.detach(), row)[1].detach() if wanted else losses.row_weight
    if inputs.class_weight is not None:
        own = target_weight(inputs.class_weight.to(rows.dtype), inputs.target, ignored)
        rows, slope = rows * own, slope * own
    return losses._replace(loss=rows.masked_fill(ignored, 0.0), row_weight=slope.masked_fill(ignored, 0.0))
