"""The memory that a training takes, from its network without values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

# Measured peaks of nine trainings over what is kept for the backward pass are 0.8 to 1.25 of the estimate with this.
_WORKING = 1.3


def training_memory(make: Callable[[], nn.Module], shape: Sequence[int], *, moments: int, half: bool = False) -> float:
    """Return the bytes that a training's steps take, roughly.

    They are weights, gradients, the optimizer's moments, and what the forward pass of a batch keeps for the backward
    pass. A network that can't run without values counts without the last.

    Args:
        make: Builds the network, here on PyTorch's meta device; of a transformer's the head doesn't count.
        shape: That of the batch: images (N, 3, H, W), or tokens (N, length).
        moments: Numbers that the optimizer keeps for each weight.
        half: Whether the forward pass computes in half precision.
    """
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        return kept.setdefault(value.untyped_storage()._cdata, value)

    with torch.device("meta"):
        net: Any = make().train()
        own = [*net.parameters(), *net.buffers()]
        with suppress(Exception), saved_tensors_hooks(keep, lambda value: value):
            getattr(net, "base_model", net)(torch.zeros(*shape, dtype=torch.int64 if len(shape) == 2 else None))
    for value in own:
        kept.pop(value.untyped_storage()._cdata, None)
    batch: int = sum(value.untyped_storage().nbytes() for value in kept.values())
    weights: int = sum(value.nbytes for value in own)
    return (2 + moments) * weights + _WORKING * batch / (1 + half)
