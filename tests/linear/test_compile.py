"""torch.compile captures the fused loss without a graph break, and a schedule never makes it compile again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import crossfade as cf
from tests.linear.linear_reference import cubed, gradients, problem

ARGUMENTS = problem(rows=50, dim=6, classes=30, bias=True, ignored=0.2, dtype=torch.float32)


def mean(criterion: cf.LinearCrossfadeLoss) -> Tensor:
    hidden, weight, bias, target = ARGUMENTS
    return criterion(hidden.sin(), weight, target, bias=bias)


def none(criterion: cf.LinearCrossfadeLoss) -> Tensor:
    hidden, weight, bias, target = ARGUMENTS
    rows = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, alpha=criterion.alpha, reduction="none")
    return rows[::2].sum()


def own(criterion: cf.LinearCrossfadeLoss) -> Tensor:
    hidden, weight, bias, target = ARGUMENTS
    return cf.linear_crossfade_loss(hidden, weight, target, bias=bias, g=cubed) * criterion.alpha


def with_stats(criterion: cf.LinearCrossfadeLoss) -> Tensor:
    hidden, weight, bias, target = ARGUMENTS
    loss, stats = criterion(hidden, weight, target, bias=bias, return_stats=True)
    return loss + stats.weight_mass + stats.accuracy


def soft(criterion: cf.LinearCrossfadeLoss) -> Tensor:
    hidden, weight, bias, _ = ARGUMENTS
    target = torch.linspace(0, 1, 50 * 30).reshape(50, 30)
    options = {"bias": bias, "alpha": criterion.alpha, "z_loss": 0.1, "shift": 1}
    rows = cf.linear_crossfade_loss(hidden, weight, target, reduction="none", **options)
    return rows[::2].sum() + cf.linear_crossfade_loss(hidden, weight, target, **options)


@pytest.mark.parametrize("fn", [mean, none, own, with_stats, soft])
def test_whole_graph_and_no_recompilation(fn: Callable[[cf.LinearCrossfadeLoss], Tensor]) -> None:
    torch._dynamo.reset()
    criterion = cf.LinearCrossfadeLoss(memory_budget_mb=1e-3)
    # aot_eager: the whole capture, without the C++ compiler's seconds
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    of = ARGUMENTS[:3]
    for progress in (0.0, 0.4, 1.0):
        criterion.at(progress)
        expected = fn(criterion)
        with torch._dynamo.config.patch(error_on_recompile=True):
            loss = compiled(criterion)
        torch.testing.assert_close(loss, expected)
        for got, wanted in zip(gradients(loss, of), gradients(expected, of), strict=True):
            torch.testing.assert_close(got, wanted)


def test_operator_keeps_its_contract() -> None:
    hidden, weight, bias, target = (x.detach() for x in ARGUMENTS)
    one = torch.tensor(1.0, dtype=torch.float64)
    tensors = (hidden, weight, bias, target, None)
    options = (None, one, one, -100, 0.0, None, 1e-3, "p,entropy,correct")
    for needs in ([True, True, True], [True, False, False], [False, False, False]):
        for more in ((), (one.float(), None), (None, torch.ones(50))):
            arguments = (*tensors, torch.float32, needs, *options, *more)
            torch.library.opcheck(torch.ops.crossfade.linear_loss.default, arguments)
