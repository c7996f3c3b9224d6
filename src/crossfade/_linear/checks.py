"""What ``F.linear`` and ``F.cross_entropy`` would refuse, refused with the same kind of error."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    softcap: float | None,
    memory_budget_mb: float | None,
) -> None:
    for name, tensor in (("hidden", hidden), ("linear_weight", linear_weight)):
        if hasattr(tensor, "placements"):
            raise ValueError(
                f"{name} is a DTensor: pass {name}.full_tensor(), or keep the logits sharded over classes and call "
                "probability_loss on them under torch.distributed.tensor.parallel.loss_parallel()"
            )
    if hidden.dim() < 1 or linear_weight.dim() != 2 or hidden.shape[-1] != linear_weight.shape[1]:
        raise RuntimeError(
            "expected hidden (..., D) and linear_weight (C, D), "
            f"got {tuple(hidden.shape)} and {tuple(linear_weight.shape)}"
        )
    classes = linear_weight.shape[0]
    if target.is_floating_point():
        raise RuntimeError(
            "target must hold class indices, got class probabilities: take crossfade.crossfade_loss on the logits"
        )
    if target.dtype != torch.int64:
        raise RuntimeError(f"expected target of type torch.int64, got {target.dtype}")
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"expected target of shape {tuple(hidden.shape[:-1])}, hidden's without D, got {tuple(target.shape)}"
        )
    for name, per_class in (("bias", bias), ("weight", weight)):
        if per_class is not None and per_class.shape != (classes,):
            raise RuntimeError(
                f"{name} must have one element for each of {classes} classes, got {tuple(per_class.shape)}"
            )
    if sample_weight is not None and sample_weight.shape != target.shape:
        raise ValueError(
            f"sample_weight must have target's shape {tuple(target.shape)}, got {tuple(sample_weight.shape)}"
        )
    if weight is not None and weight.requires_grad:
        raise ValueError("weight gets no gradient here: detach it, or take crossfade.crossfade_loss on the logits")
    for name, number in (("softcap", softcap), ("memory_budget_mb", memory_budget_mb)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name} must be a positive number or None, got {number!r}")


def refuse_transforms() -> None:
    # Dispatch modes (FLOP counters, memory trackers) and tracing only look on: they are welcome.
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "linear_crossfade_loss doesn't run under torch.func's transforms: take the reference, which does: "
            "crossfade.probability_loss(g, torch.nn.functional.linear(hidden, linear_weight, bias), target)"
        )


def check_reduction(label_smoothing: float, reduction: str) -> None:
    if label_smoothing > 1:  # F.cross_entropy takes a negative value for none
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0, got {label_smoothing!r}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def compute_type(hidden: Tensor, linear_weight: Tensor, bias: Tensor | None) -> torch.dtype:
    """The type of the matrix products: autocast's where it would cast, the inputs' elsewhere; never a half on the CPU.

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
    return torch.float32 if device == "cpu" and dtype in (torch.bfloat16, torch.float16) else dtype
