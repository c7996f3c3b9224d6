"""Logits whose classes are spread over processes, as a DTensor that is sharded over them.

A row needs a few numbers of every shard, which one collective brings: its largest logit, the sum of the exponentials
below it, the target's logit, and for each statistic that is asked for one more. The logits stay where they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from crossfade._fast import pieces
from crossfade._reduction import CrossEntropyOptions
from crossfade._row import Row
from crossfade._tensors import along_classes, full_precision, target_weight
from crossfade._transforms import Transform, evaluate, probe

# The exponential of this is 0, also in float64.
_NO_PROBABILITY = -1e4


@dataclass(frozen=True)
class Shard:
    """The classes that this process holds.

    Attributes:
        group: the processes that hold the others.
        first: the first class here.
        classes: the number of all classes.
        largest: the size of the largest shard, by which all processes plan, so that they cut the rows alike.
    """

    group: Any
    first: int
    classes: int
    largest: int


def shard_of(tensor: Tensor, dim: int, rest: str) -> tuple[Shard, int]:
    """Return the shard of a DTensor's classes, which are its dimension ``dim``, and which dimension of the mesh it is.

    Raises:
        ValueError: the classes aren't sharded, or by more than one dimension of the mesh; ``rest`` says what to do.
    """
    from torch.distributed.tensor import Shard as Placement
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole = cast(Any, tensor)
    sharded = [at for at, one in enumerate(whole.placements) if isinstance(one, Placement) and one.dim == dim]
    if len(sharded) != 1 or any(one.is_partial() for one in whole.placements):
        raise ValueError(f"expected a DTensor with its classes sharded, Shard({dim}), got {whole.placements}: {rest}")
    _, offset = compute_local_shape_and_global_offset(tensor.shape, whole.device_mesh, whole.placements)
    group = whole.device_mesh.get_group(sharded[0])
    return Shard(group, offset[dim], tensor.shape[dim], -(-tensor.shape[dim] // group.size())), sharded[0]


def local_projection(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Shard]:
    """Return what this process has of an output projection (C, D) that is sharded over its rows, the classes.

    The gradient of the hidden states, which all processes have, becomes the sum over the shards.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate
    from torch.distributed.tensor import Shard as Placed

    shard, at = shard_of(weight, 0, "pass linear_weight.full_tensor()")
    whole = cast(DTensor, weight)
    mesh, everywhere = whole.device_mesh, [Replicate()] * whole.device_mesh.ndim
    if any(isinstance(one, Placed) for i, one in enumerate(whole.placements) if i != at):
        raise ValueError(f"linear_weight may be sharded by one dimension of the mesh only, got {whole.placements}")

    def distributed(tensor: Tensor) -> DTensor:
        return tensor if isinstance(tensor, DTensor) else DTensor.from_local(tensor, mesh, everywhere, run_check=False)

    of_hidden = distributed(hidden)
    if list(of_hidden.placements) != everywhere:
        raise ValueError(f"every process needs all of hidden beside its classes, got {of_hidden.placements}")
    summed = [Partial() if i == at else Replicate() for i in range(mesh.ndim)]
    own_bias = None if bias is None else distributed(bias).redistribute(placements=whole.placements).to_local()
    return of_hidden.to_local(grad_placements=summed), whole.to_local(), own_bias, shard


def normalise(
    z: Tensor, index: Tensor, shard: Shard, asked: Collection[str]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return ce of the rows (N, ...), their norm (2, N, ...), and the statistics that are asked for.

    The norm is the row's maximum over all shards and log(sum(exp(logits - maximum))).

    Args:
        z: logits (N, C', ...) of the classes here, in full precision.
        index: the target's number (N, 1, ...) among the classes here, which may lie outside of them.
        asked: names of :class:`crossfade._row.Row`'s statistics, and "correct" for whether the target is the argmax.
    """
    names = ["top", "total", "own", *sorted({"entropy", "collision", "correct"} & set(asked))]
    here = dict(zip(names, z.new_zeros(len(names), *index.squeeze(1).shape).unbind(), strict=True))
    here["top"].fill_(torch.finfo(z.dtype).min)
    inside, at_target = within(index, z)
    here["own"].fill_(-torch.inf)
    if z.shape[1]:
        here["own"].copy_(z.gather(1, at_target).masked_fill(~inside, -torch.inf).squeeze(1))
    for at in pieces(z) if z.shape[1] else ():
        top = z[at].amax(1, keepdim=True).clamp(min=torch.finfo(z.dtype).min)  # inf - inf never arises
        below = z[at] - top
        exponential = below.exp()
        here["top"][at], here["total"][at] = top.squeeze(1), exponential.sum(1)
        if "entropy" in here:
            here["entropy"][at] = -below.clamp_(min=_NO_PROBABILITY).mul_(exponential).sum(1)
        if "collision" in here:
            here["collision"][at] = exponential.square_().sum(1)
        if "correct" in here:
            here["correct"][at] = (z[at].argmax(1) + shard.first).to(z.dtype)
    mine = torch.stack(list(here.values()))
    all_of_them = mine.new_empty(shard.group.size() * len(mine), *mine.shape[1:])
    dist.all_gather_into_tensor(all_of_them, mine, group=shard.group)
    of = dict(zip(names, all_of_them.view(-1, *mine.shape).unbind(1), strict=True))  # each (shards, N, ...)
    top, lower = of["top"].amax(0), (of["top"] - of["top"].amax(0)).clamp(min=_NO_PROBABILITY)
    scale = lower.exp()
    total = (of["total"] * scale).sum(0)
    norm = torch.stack([top, total.log()])
    ce = norm[1] - (of["own"].amax(0) - top)
    # Where the target has the largest logit, ce is log(sum(exp(logits - maximum))) to the last bit.
    known = {"max_p": torch.exp(-norm[1]), "is_max": ce <= norm[1]}
    if "entropy" in of:
        known["entropy"] = norm[1] + ((of["entropy"] - lower * of["total"]) * scale).sum(0) / total
    if "collision" in of:
        known["collision"] = (of["collision"] * scale.square()).sum(0) / total.square()
    if "correct" in of:
        first = of["correct"].gather(0, of["top"].argmax(0, keepdim=True)).squeeze(0)
        known["correct"] = first == (index.squeeze(1) + shard.first)
    return ce, norm, known


def of_classes(
    z: Tensor, index: Tensor, norm: Tensor, ce: Tensor, of_ce: Tensor, of_lse: Tensor | None = None
) -> Tensor:
    """Return of_ce (p - onehot) + of_lse p for some classes of all rows, in the memory of their logits z."""
    p = z.sub_(norm[0].unsqueeze(1)).sub_(norm[1].unsqueeze(1)).exp_()
    own = torch.expm1(-ce) * of_ce  # not p - 1: the digits of 1 - p_y where p_y is nearly 1
    if of_lse is not None:
        own, of_ce = own + of_lse * torch.exp(-ce), of_ce + of_lse
    p.mul_(of_ce.unsqueeze(1))
    inside, at = within(index, p)
    return p.scatter_(1, at, torch.where(inside, own.unsqueeze(1), p.gather(1, at))) if p.shape[1] else p


def within(index: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether an index is one of these classes, and the nearest that is."""
    return (index >= 0) & (index < z.shape[1]), index.clamp(0, max(0, z.shape[1] - 1))


def all_reduced(values: Tensor, shard: Shard) -> Tensor:
    """Return the sum over the shards, without gradient, in the values' memory."""
    dist.all_reduce(values, group=shard.group)
    return values


class _Rows(torch.autograd.Function):
    """The rows' ce and log(sum(exp(logits - maximum))), both differentiable, their maximum and their statistics."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, index: Tensor, shard: Shard, asked: tuple[str, ...]) -> tuple[Tensor, ...]:
        ce, norm, known = normalise(z, index, shard, asked)
        ctx.save_for_backward(z, index, norm, ce)
        others = norm[0], *(known[name] for name in asked)
        ctx.mark_non_differentiable(*others)
        return ce, norm[1].clone(), *others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_ce: Tensor, of_lse: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        z, index, norm, ce = ctx.saved_tensors
        return of_classes(z.clone(), index, norm, ce, of_ce, of_lse), None, None, None


def losses(
    g: Transform, logits: Tensor, target: Tensor, options: CrossEntropyOptions
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the losses of all rows times their class weights, the targets and the rows' weights, in every process.

    Args:
        logits: a DTensor (N, C, ...), sharded over the classes and over the rows, too, if another dimension of the
            mesh does so.
        target: class indices (N, ...), all of them, or a DTensor. The class weights likewise.

    Raises:
        ValueError: logits that aren't sharded over the classes, or tensors in g that would need a gradient of all
            classes.
        IndexError: a target that is neither a class nor ``ignore_index``.
    """
    from torch.distributed.tensor import DTensor, Partial, Placement, Replicate
    from torch.distributed.tensor import Shard as Placed

    weight, ignore_index, label_smoothing, _ = options
    shard, at = shard_of(logits, 1, "call logits.full_tensor(), or shard the layer before by its output features")
    mesh, placements = cast(DTensor, logits).device_mesh, cast(DTensor, logits).placements
    of_rows: list[Placement] = [
        Placed(one.dim - (one.dim > 1)) if isinstance(one, Placed) and i != at else Replicate()
        for i, one in enumerate(placements)
    ]
    target = target.full_tensor() if isinstance(target, DTensor) else target
    weight = weight.full_tensor() if isinstance(weight, DTensor) else weight
    ignored = target == ignore_index
    wrong = ~ignored & ((target < 0) | (target >= shard.classes))
    if wrong.any():
        raise IndexError(f"Target {int(target[wrong][0])} is out of bounds: there are {shard.classes} classes")

    def whole(rows: Tensor, placed: list[Placement]) -> Tensor:
        shape, stride = target.shape, target.contiguous().stride()
        return DTensor.from_local(rows, mesh, placed, run_check=False, shape=shape, stride=stride).full_tensor()

    replicated = DTensor.from_local(target.masked_fill(ignored, 0), mesh, [Replicate()] * mesh.ndim, run_check=False)
    index = (replicated.redistribute(placements=of_rows).to_local() - shard.first).unsqueeze(1)
    z = full_precision(cast(DTensor, logits).to_local())
    learnable, asked = probe(g, z.device)
    ce, log_total, top, *found = _Rows.apply(z, index, shard, tuple(asked))
    known = {name: whole(values, of_rows) for name, values in zip(asked, found, strict=True)}
    rows = evaluate(g, whole(ce, of_rows).masked_fill(ignored, 0.0), Row(z.new_empty, 1, target, **known))
    mass = None if weight is None else target_weight(weight.to(rows.dtype), target, ignored)
    rows = rows if mass is None else rows * mass
    if label_smoothing <= 0:
        return rows, target, mass
    if learnable:
        raise ValueError("with label_smoothing and logits that are a DTensor, tensors in g can't get a gradient")
    of_shards = [Partial() if i == at else one for i, one in enumerate(of_rows)]
    # Every shard's classes use it, so that its gradient is the sum over the shards.
    used = DTensor.from_local(log_total, mesh, of_rows, run_check=False).to_local(grad_placements=of_shards)
    below = z - top.unsqueeze(1)
    spread = {name: values.unsqueeze(1).expand_as(z) for name, values in zip(asked, found, strict=True)}
    scores = evaluate(g, used.unsqueeze(1) - below, Row(z.new_empty, 1, None, **spread | {"is_max": below == 0}))
    if weight is not None:
        scores = scores * along_classes(weight.to(z.dtype)[shard.first : shard.first + z.shape[1]], z)
    even = whole(scores.sum(1), of_shards).masked_fill(ignored, 0.0)
    return rows * (1 - label_smoothing) + even * (label_smoothing / shard.classes), target, mass


def replicated(loss: Tensor, logits: Tensor) -> Tensor:
    """Return a loss that every process has computed as the DTensor that ``F.cross_entropy`` would return."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = cast(DTensor, logits).device_mesh
    return DTensor.from_local(loss, mesh, [Replicate()] * mesh.ndim, run_check=False)
