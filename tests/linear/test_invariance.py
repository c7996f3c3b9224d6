"""A row's results don't depend on the other rows of the batch, and no result on the memory budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import crossfade as cf
from crossfade.objectives import Row
from tests.linear.linear_reference import problem

ROWS, DIM, CLASSES = 90, 24, 700


def own(ce: Tensor, row: Row) -> Tensor:
    return ce * (row.entropy + row.collision) + torch.where(row.is_max, row.max_p, 0.5) * ce


def results(hidden: Tensor, weight: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    loss, stats = cf.linear_crossfade_loss(
        hidden, weight, target, reduction="none", return_stats=True, **{"g": own, "memory_budget_mb": 0.2} | options
    )
    return [loss.detach(), *vars(stats).values()]


@pytest.mark.parametrize(
    "options", [{}, {"g": None}, {"softcap": 4.0}, {"z_loss": 0.1}, {"label_smoothing": 0.1, "memory_budget_mb": 3}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_has_the_same_bits_in_every_batch(dtype: torch.dtype, options: dict[str, Any]) -> None:
    hidden, weight, _, target = problem(ROWS, DIM, CLASSES, dtype=dtype)
    with torch.no_grad():
        hidden[5] *= 200.0  # so that most of its p are 0
    whole = results(hidden, weight, target, **options)
    for chosen in (torch.tensor([5]), torch.arange(3, 20), torch.randperm(ROWS)[:53], torch.arange(0, ROWS, 2)):
        part = results(hidden[chosen], weight, target[chosen], **options)
        assert all(torch.equal(got, of_all[chosen]) for got, of_all in zip(part, whole, strict=True))
    kept = torch.arange(ROWS) % 3 > 0
    ignored = results(hidden, weight, target.where(kept, -100), **options)
    assert all(torch.equal(got[kept], of_all[kept]) for got, of_all in zip(ignored, whole, strict=True))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_budget_changes_nothing_but_the_last_bits(reduction: str) -> None:
    """Of the rows' results not even these, where the budget is enough for a block of eight rows."""
    hidden, weight, _, target = problem(ROWS, DIM, CLASSES, dtype=torch.float32)
    whole = results(hidden, weight, target, memory_budget_mb=8)
    for budget in (0.3, 0.5, None):
        again = results(hidden, weight, target, memory_budget_mb=budget)
        assert all(torch.equal(got, wanted) for got, wanted in zip(again, whole, strict=True))

    def gradients(budget: float | None) -> tuple[Tensor, ...]:
        options: dict[str, Any] = {"g": own, "reduction": reduction, "memory_budget_mb": budget}
        loss = cf.linear_crossfade_loss(hidden, weight, target, **options)
        return loss.detach(), *torch.autograd.grad(loss.sum(), (hidden, weight))

    for budget in (0.001, 0.1, 8):
        for got, wanted in zip(gradients(budget), gradients(None), strict=True):
            assert (got - wanted).abs().max() <= 3e-6 * wanted.abs().max()
