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


def is_transformed() -> bool:
    """Return whether a transform of ``torch.func``, forward-mode differentiation or tracing follows the operations."""
    return bool(
        torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def is_observed() -> bool:
    """Return whether something follows the operations of a call, so that the call may only use differentiable ones.

    It may be a compiler, a transform, or a dispatch mode.
    """
    return bool(
        torch.compiler.is_compiling() or is_transformed() or _python_dispatch._get_current_dispatch_mode() is not None
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


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Return softcap * tanh(logits / softcap), or the logits as they are."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def is_soft(logits: Tensor, target: Tensor) -> bool:
    """Return whether the target holds class probabilities: as in ``F.cross_entropy``, if it has the logits' shape."""
    return logits.shape == target.shape


def as_index(target: Tensor) -> Tensor:
    """Return uint8 targets as int64, others as they are: an index of type uint8 is a mask, and in uint8 156 == -100."""
    return target.long() if target.dtype == torch.uint8 else target


def class_dim(logits: Tensor) -> int:
    """Return the dimension of the classes.

    Raises:
        RuntimeError: logits without any dimension.
        ValueError: logits of no class.
    """
    if logits.dim() == 0:
        raise RuntimeError("logits must have at least one dimension, that of the classes; got a 0-dim tensor")
    dim = 0 if logits.dim() == 1 else 1
    if logits.shape[dim] == 0:
        raise ValueError(f"logits must have at least one class in dimension {dim}, got shape {tuple(logits.shape)}")
    return dim


def along_classes(weight: Tensor, scores: Tensor) -> Tensor:
    """Return the class weights as a view that broadcasts against the scores."""
    return weight.view([-1 if d == class_dim(scores) else 1 for d in range(scores.dim())])


def smoothed(distribution: Tensor, label_smoothing: float, classes: int) -> Tensor:
    """Return target distributions of which a share is spread evenly over all classes."""
    return distribution * (1 - label_smoothing) + label_smoothing / classes


def check_smoothing(label_smoothing: float) -> None:
    """Raise RuntimeError above 1, as ``F.cross_entropy`` does, and ValueError for NaN. Below 0 there is none."""
    if not label_smoothing <= 1:
        error = RuntimeError if label_smoothing > 1 else ValueError
        raise error(f"label_smoothing must be between 0.0 and 1.0, got {label_smoothing!r}")


def check_per_class(name: str, values: Tensor | None, classes: int) -> None:
    """Raise RuntimeError, as ``F.cross_entropy`` does, unless there is exactly one element for each class."""
    if values is not None and values.shape != (classes,):
        raise RuntimeError(f"{name} must have one element for each of {classes} classes, got {tuple(values.shape)}")


def check_range(name: str, values: Tensor, end: int, error: type[Exception]) -> None:
    """Raise an error of this type unless all values are in [0, end)."""
    numbers = values.cpu().numpy()
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < end):
        raise error(f"{name} must be in [0, {end}), got {numbers.min()} to {numbers.max()}")


def target_weight(weight: Tensor, target: Tensor, ignored: Tensor) -> Tensor:
    """Return the class weight of each target, 0 where it is ignored."""
    return weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0.0)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this is a DTensor."""
    return not is_plain(tensor) and hasattr(tensor, "placements")


def refuse_sharded(logits: Tensor, name: str) -> None:
    """Raise ValueError for a DTensor, which a loss that isn't a function of ce can't take."""
    if is_sharded(logits):
        raise ValueError(f"{name} is not a function of ce: call logits.full_tensor() before it, got a DTensor")
