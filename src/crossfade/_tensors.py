"""Questions that every form of a loss asks about its tensors: their kind, precision, dimensions and class weights."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.utils import _python_dispatch

_PLAIN = (Tensor, torch.nn.Parameter)


def is_plain(tensor: Tensor) -> bool:
    """Return whether this is a tensor or a parameter of PyTorch itself, not of a subclass such as DTensor."""
    return type(tensor) in _PLAIN


def is_observed() -> bool:
    """Return whether something follows the operations of a call, so that the call may only use differentiable ones.

    It may be a compiler, a transform of ``torch.func``, forward-mode differentiation, tracing or a dispatch mode.
    """
    return bool(
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        or _python_dispatch._get_current_dispatch_mode() is not None
    )


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which losses and row weights of logits of this type are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_half(dtype: torch.dtype) -> bool:
    """Return whether the type is float16 or bfloat16."""
    return dtype in (torch.float16, torch.bfloat16)


def full_precision(logits: Tensor) -> Tensor:
    """Return half-precision logits in float32, and all others as they are."""
    return logits.float() if is_half(logits.dtype) else logits


def is_soft(logits: Tensor, target: Tensor) -> bool:
    """Return whether the target holds class probabilities: as in ``F.cross_entropy``, if it has the logits' shape."""
    return logits.shape == target.shape


def class_dim(logits: Tensor) -> int:
    """Return the dimension of the classes, or raise RuntimeError if the logits have no dimension at all."""
    if logits.dim() == 0:
        raise RuntimeError("logits must have at least one dimension, that of the classes; got a 0-dim tensor")
    return 0 if logits.dim() == 1 else 1


def check_per_class(name: str, values: Tensor | None, classes: int) -> None:
    """Raise RuntimeError, as ``F.cross_entropy`` does, unless there is exactly one element for each class."""
    if values is not None and values.shape != (classes,):
        raise RuntimeError(f"{name} must have one element for each of {classes} classes, got {tuple(values.shape)}")


def target_weight(weight: Tensor, target: Tensor, ignored: Tensor) -> Tensor:
    """Return the class weight of each target, 0 where it is ignored."""
    return weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0.0)
