"""Logits as a DTensor, such as those that a class-parallel output projection leaves sharded over the classes.

``torch.distributed.tensor.parallel.loss_parallel`` computes log_softmax followed by nll_loss without gathering such
logits, and only the two together: its log_softmax alone has a wrong gradient. So ce comes from ``F.cross_entropy`` in
one call, and the rest is a vector's work, done on the whole vector by every process.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)


def is_sharded(logits: Tensor) -> bool:
    return type(logits) not in _PLAIN and hasattr(logits, "placements")


def whole_rows(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """ce of all rows, the target and the class weights as plain tensors, the same in every process. Differentiable."""
    from torch.distributed.tensor import DTensor

    ce = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    assert isinstance(ce, DTensor)
    if isinstance(target, DTensor):
        target = target.full_tensor()
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return ce.full_tensor(), target, weight


def replicated(loss: Tensor, logits: Tensor) -> Tensor:
    """A loss that every process has, as the DTensor that ``F.cross_entropy`` would return."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = cast(DTensor, logits).device_mesh
    return DTensor.from_local(loss, mesh, [Replicate()] * mesh.ndim, run_check=False)
