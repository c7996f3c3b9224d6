"""With logits sharded over the classes of 2 and 4 gloo processes, losses and gradients equal those of one device."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

CLASSES = 10  # not a multiple of 4: uneven shards
TOLERANCE = 1e-6


def cubed(ce: Tensor) -> Tensor:
    return (-torch.expm1(-ce)) ** 3


LOSSES = {
    "ce": partial(cf.crossfade_loss, alpha=1.0, beta=0.0),
    "mixture": partial(cf.crossfade_loss, alpha=0.5, beta=2.0),
    "tensors": partial(cf.crossfade_loss, alpha=torch.tensor(0.5), beta=torch.tensor(2.0)),
    "criterion": cf.CrossfadeLoss().at(0.5),
    "focal": cf.focal_loss,
    "gce": cf.generalized_cross_entropy,
    "own": partial(cf.probability_loss, cubed),
}


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[1] = -100
    return logits, target


def close(got: Tensor, wanted: Tensor, what: str) -> None:
    difference = (got - wanted).abs().max().item()
    assert difference <= TOLERANCE * max(1.0, wanted.abs().max().item()), f"{what}: differs by {difference}"


def check_losses(names: Collection[str], world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (world,))
    class_weight = torch.rand(CLASSES, generator=torch.Generator().manual_seed(1))
    for shape in ((6, CLASSES), (3, CLASSES, 4)):
        logits, target = batch(shape)
        for name in names:
            loss = LOSSES[name]
            for options in (
                {"reduction": "mean"},
                {"reduction": "sum"},
                {"reduction": "none"},
                {"weight": class_weight},
                {"ignore_index": 3},
            ):
                if name == "criterion" and options:
                    options = {}
                valid = target if "ignore_index" not in options else target.masked_fill(target == -100, 3)
                one = logits.clone().requires_grad_()
                expected = loss(one, valid, **options)
                expected.sum().backward()
                with loss_parallel():
                    sharded = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
                    result = loss(sharded, valid, **options)
                    assert isinstance(result, DTensor)
                    result.sum().backward()
                what = f"{name} {options} on {tuple(shape)}"
                close(result.full_tensor().detach(), expected.detach(), what)
                assert sharded.grad.placements == (Shard(1),)
                close(sharded.grad.full_tensor(), one.grad, f"gradient of {what}")


def check_all_losses(world: int) -> None:
    check_losses(LOSSES, world)


def check_uneven_shards(world: int) -> None:
    check_losses(("mixture", "criterion", "own"), world)


def check_projection(world: int) -> None:
    """Check a column-parallel output layer in use: the gradients of its weight and of the hidden states."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, loss_parallel, parallelize_module

    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, CLASSES)
    hidden, (_, target) = torch.randn(6, 5), batch((6, CLASSES))
    criterion = cf.CrossfadeLoss(cf.constant(0.25))
    criterion(layer(hidden), target).backward()
    expected = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    style = ColwiseParallel(input_layouts=Replicate(), output_layouts=Shard(-1), use_local_output=False)
    parallel = parallelize_module(layer, mesh, style)
    with loss_parallel():
        criterion(parallel(hidden), target).backward()
    for name, parameter in parallel.named_parameters():
        close(parameter.grad.full_tensor(), expected[name], name)


def check_two_dimensional_mesh(world: int) -> None:
    """Check batch and classes sharded: the mean is over all rows, which F.cross_entropy refuses to compute here."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (2, world // 2))
    logits, target = batch((8, CLASSES))
    rows = distribute_tensor(target, mesh, [Shard(0), Replicate()])
    for reduction in ("mean", "sum"):
        one = logits.clone().requires_grad_()
        expected = cf.crossfade_loss(one, target, beta=2.0, reduction=reduction)
        expected.backward()
        with loss_parallel():
            sharded = distribute_tensor(logits, mesh, [Shard(0), Shard(1)]).requires_grad_()
            result = cf.crossfade_loss(sharded, rows, beta=2.0, reduction=reduction)
            result.backward()
        close(result.full_tensor().detach(), expected.detach(), reduction)
        close(sharded.grad.full_tensor(), one.grad, f"gradient of {reduction}")


def check_refusals(world: int) -> None:
    """Check that what loss_parallel can't do is refused, and not computed with a wrong gradient."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (world,))
    logits, target = batch((6, CLASSES))
    with loss_parallel():
        sharded = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
        with pytest.raises(ValueError, match="label_smoothing"):
            cf.crossfade_loss(sharded, target, label_smoothing=0.1)
        with pytest.raises(ValueError, match="class indices"):
            cf.crossfade_loss(sharded, F.one_hot(target.clamp(min=0), CLASSES).float())
        for loss in (cf.mpce_loss, cf.complement_entropy):
            with pytest.raises(ValueError, match="full_tensor"):
                loss(sharded, target)
    hidden = torch.zeros(6, 4)
    weight = distribute_tensor(torch.zeros(CLASSES, 4), mesh, [Shard(0)])
    with pytest.raises(ValueError, match="linear_weight is a DTensor"):
        cf.linear_crossfade_loss(hidden, weight, target)


def run_checks(world: int, *checks: Callable[[int], None]) -> None:
    for check in checks:
        check(world)


def test_two_processes(processes: Callable[..., None]) -> None:
    processes(2, run_checks, 2, check_all_losses, check_projection, check_refusals)


def test_four_processes_with_uneven_shards(processes: Callable[..., None]) -> None:
    processes(4, run_checks, 4, check_uneven_shards, check_projection, check_two_dimensional_mesh)
