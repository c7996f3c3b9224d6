"""With logits sharded over the classes of 2 and 4 gloo processes, losses and gradients equal those of one device."""

from __future__ import annotations

import itertools
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


def everything(ce: Tensor, row: cf.objectives.Row) -> Tensor:
    return ce * (row.entropy + row.collision) + torch.where(row.is_max, row.max_p, 0.5) * ce


LOSSES = {
    "ce": partial(cf.crossfade_loss, alpha=1.0, beta=0.0),
    "mixture": partial(cf.crossfade_loss, alpha=0.5, beta=2.0),
    "tensors": partial(cf.crossfade_loss, alpha=torch.tensor(0.5), beta=torch.tensor(2.0)),
    "criterion": cf.CrossfadeLoss().at(0.5),
    "focal": cf.focal_loss,
    "gce": cf.generalized_cross_entropy,
    "own": partial(cf.probability_loss, cubed),
    "deft": partial(cf.probability_loss, cf.objectives.deft()),
    "entropy-gated": partial(cf.probability_loss, cf.objectives.entropy_gated()),
    "everything": partial(cf.probability_loss, everything),
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
                {"label_smoothing": 0.1},
                {"label_smoothing": 0.3, "weight": class_weight, "reduction": "none"},
                {"label_smoothing": 1.0, "weight": class_weight},
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
    check_losses(("mixture", "criterion", "own", "everything"), world)


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
    for reduction, options in itertools.product(("mean", "sum", "none"), ({}, {"label_smoothing": 0.1})):
        one = logits.clone().requires_grad_()
        expected = cf.crossfade_loss(one, target, beta=2.0, reduction=reduction, **options)
        expected.sum().backward()
        with loss_parallel():
            sharded = distribute_tensor(logits, mesh, [Shard(0), Shard(1)]).requires_grad_()
            result = cf.crossfade_loss(sharded, rows, beta=2.0, reduction=reduction, **options)
            result.sum().backward()
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
        learnable = torch.tensor(1.0, requires_grad=True)
        with pytest.raises(ValueError, match="label_smoothing"):
            cf.crossfade_loss(sharded, target, alpha=learnable, label_smoothing=0.1)
        with pytest.raises(RuntimeError, match="label_smoothing must be between"):
            cf.crossfade_loss(sharded, target, label_smoothing=1.1)
        with pytest.raises(IndexError, match="Target 10 is out of bounds"):
            cf.crossfade_loss(sharded, target.masked_fill(target >= 0, CLASSES))
        with pytest.raises(ValueError, match="class indices"):
            cf.crossfade_loss(sharded, F.one_hot(target.clamp(min=0), CLASSES).float())
        for loss in (cf.mpce_loss, cf.complement_entropy):
            with pytest.raises(ValueError, match="full_tensor"):
                loss(sharded, target)
    hidden = torch.zeros(6, 4)
    weight = distribute_tensor(torch.zeros(CLASSES, 4), mesh, [Shard(0)])
    soft = F.one_hot(target.clamp(min=0), CLASSES).float()
    for of, bad, given in (
        (ValueError, "class probabilities", (hidden, weight, soft)),
        (ValueError, "classes sharded", (hidden, distribute_tensor(torch.zeros(CLASSES, 4), mesh, [Shard(1)]), target)),
        (
            ValueError,
            "every process needs all of hidden",
            (distribute_tensor(hidden, mesh, [Shard(0)]), weight, target),
        ),
        (
            ValueError,
            "hidden is a DTensor",
            (distribute_tensor(hidden, mesh, [Shard(0)]), torch.zeros(CLASSES, 4), target),
        ),
        (IndexError, "out of bounds", (hidden, weight, target.masked_fill(target >= 0, CLASSES))),
    ):
        with pytest.raises(of, match=bad):
            cf.linear_crossfade_loss(*given)


FUSED = {
    "mean": {},
    "sum": {"reduction": "sum", "beta": 2.0},
    "rows": {"reduction": "none", "z_loss": 0.1},
    "tensors": {"alpha": torch.tensor(0.5, requires_grad=True)},
    "weights": {
        "weight": torch.linspace(0.5, 2.0, CLASSES),
        "sample_weight": torch.linspace(0.0, 2.0, 40),
        "softcap": 2.0,
    },
    "smoothed": {"label_smoothing": 0.2},
    "smoothed rows": {
        "label_smoothing": 0.2,
        "weight": torch.linspace(0.5, 2.0, CLASSES),
        "reduction": "none",
        "z_loss": 0.1,
    },
    "deft": {"g": cf.objectives.deft()},
    "gated": {"g": cf.objectives.entropy_gated(), "label_smoothing": 0.1},
    "everything": {"g": everything, "reduction": "none"},
    "everything smoothed": {"g": everything, "label_smoothing": 0.1},
}


def check_fused_projection(world: int) -> None:
    """Check the loss, the statistics and the gradients of a projection that is sharded over the vocabulary."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((40, 6), (CLASSES, 6), (CLASSES,))]
    target = torch.randint(CLASSES, (40,), generator=generator)
    target[::6] = -100
    for name, options in FUSED.items():
        for budget in (None, 0.0005):
            one = [x.clone().requires_grad_() for x in tensors]
            expected, stats = cf.linear_crossfade_loss(*one[:2], target, bias=one[2], return_stats=True, **options)
            expected.sum().backward()
            hidden = tensors[0].clone().requires_grad_()
            weight = distribute_tensor(tensors[1], mesh, [Shard(0)]).requires_grad_()
            bias = (
                tensors[2].clone().requires_grad_()
                if budget is None
                else (distribute_tensor(tensors[2], mesh, [Shard(0)]).requires_grad_())
            )
            loss, same = cf.linear_crossfade_loss(
                hidden, weight, target, bias=bias, return_stats=True, memory_budget_mb=budget, **options
            )
            loss.sum().backward()
            close(loss.detach(), expected.detach(), name)
            for key, value in vars(same).items():
                close(value.float(), getattr(stats, key).float(), f"{key} of {name}")
            close(hidden.grad, one[0].grad, f"hidden's gradient of {name}")
            assert weight.grad.placements == (Shard(0),)
            close(weight.grad.full_tensor(), one[1].grad, f"weight's gradient of {name}")
            of_bias = bias.grad if budget is None else bias.grad.full_tensor()
            close(of_bias, one[2].grad, f"bias's gradient of {name}")


def check_few_numbers_a_row(world: int) -> None:
    """Check that one collective brings a few numbers a row, and that nothing of the logits' size is exchanged."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    sent: list[int] = []
    gather, reduce = dist.all_gather_into_tensor, dist.all_reduce

    def counted_gather(out: Tensor, mine: Tensor, **options: object) -> object:
        sent.append(mine.numel())
        return gather(out, mine, **options)

    def counted_reduce(values: Tensor, **options: object) -> object:
        sent.append(values.numel())
        return reduce(values, **options)

    rows, classes = 30, 400
    weight = distribute_tensor(torch.randn(classes, 4), mesh, [Shard(0)]).requires_grad_()
    hidden, target = torch.randn(rows, 4), torch.randint(classes, (rows,))
    dist.all_gather_into_tensor, dist.all_reduce = counted_gather, counted_reduce  # type: ignore[assignment]
    try:
        cf.linear_crossfade_loss(hidden, weight, target, g=cf.objectives.deft()).backward()
        assert sent == [4 * rows], sent
        sent.clear()
        cf.linear_crossfade_loss(hidden, weight, target, g=everything, label_smoothing=0.1).backward()
        assert sent == [5 * rows, 2 * rows], sent
        sent.clear()
        logits = distribute_tensor(torch.randn(rows, classes), mesh, [Shard(1)]).requires_grad_()
        cf.crossfade_loss(logits, target).backward()
        assert sent == [3 * rows], sent
    finally:
        dist.all_gather_into_tensor, dist.all_reduce = gather, reduce  # type: ignore[assignment]


def check_a_process_without_classes(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    hidden, weight, target = torch.randn(9, 4), torch.randn(world - 1, 4), torch.arange(9) % (world - 1)
    dist.broadcast(hidden, 0)
    dist.broadcast(weight, 0)
    for options in ({"g": everything}, {"g": everything, "label_smoothing": 0.1}):
        one = weight.clone().requires_grad_()
        expected = cf.linear_crossfade_loss(hidden, one, target, **options)
        expected.backward()
        sharded = distribute_tensor(weight, mesh, [Shard(0)]).requires_grad_()
        loss = cf.linear_crossfade_loss(hidden, sharded, target, **options)
        loss.backward()
        close(loss.detach(), expected.detach(), "loss")
        close(sharded.grad.full_tensor(), one.grad, "gradient")
        logits = distribute_tensor(hidden @ weight.t(), mesh, [Shard(1)]).requires_grad_()
        own = {name: value for name, value in options.items() if name != "g"}
        loss = cf.probability_loss(everything, logits, target, **own)
        loss.backward()
        close(loss.full_tensor().detach(), expected.detach(), "loss of the logits")


def run_checks(world: int, *checks: Callable[[int], None]) -> None:
    for check in checks:
        check(world)


def test_two_processes(processes: Callable[..., None]) -> None:
    checks = (check_all_losses, check_projection, check_fused_projection, check_few_numbers_a_row, check_refusals)
    processes(2, run_checks, 2, *checks)


def test_four_processes_with_uneven_shards(processes: Callable[..., None]) -> None:
    checks = (check_uneven_shards, check_projection, check_fused_projection, check_two_dimensional_mesh)
    checks += (check_a_process_without_classes,)
    processes(4, run_checks, 4, *checks)
