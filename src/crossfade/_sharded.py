"""Logits as a DTensor, such as those that a class-parallel output projection leaves sharded over the classes.

``torch.distributed.tensor.parallel.loss_parallel`` computes log_softmax followed by nll_loss without gathering such
logits, and only both together: its log_softmax alone has a wrong gradient. So ce comes from one call of
``F.cross_entropy``, and every process does the rest on the whole vector of ce.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor

from crossfade._tensors import is_plain


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this is a DTensor."""
    return not is_plain(tensor) and hasattr(tensor, "placements")


def refuse_sharded(logits: Tensor, name: str) -> None:
    """Raise ValueError for a DTensor, which a loss that isn't a function of ce can't take."""
    if is_sharded(logits):
        raise ValueError(f"{name} is not a function of ce: call logits.full_tensor() before it, got a DTensor")


def whole_rows(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ce (differentiable), target and class weights of all rows as plain tensors, the same in every process."""
    from torch.distributed.tensor import DTensor

    ce = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    assert isinstance(ce, DTensor)
    if isinstance(target, DTensor):
        target = target.full_tensor()
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return ce.full_tensor(), target, weight


def replicated(loss: Tensor, logits: Tensor) -> Tensor:
    """Return a loss that every process has computed as the DTensor that ``F.cross_entropy`` would return."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = cast(DTensor, logits).device_mesh
    return DTensor.from_local(loss, mesh, [Replicate()] * mesh.ndim, run_check=False)
