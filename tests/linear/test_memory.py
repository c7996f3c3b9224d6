"""The fused loss never holds all (N, C) logits, and no piece exceeds the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import crossfade as cf
from tests.linear.linear_reference import problem

ROWS, DIM, CLASSES = 300, 8, 1000


class Largest(TorchDispatchMode):
    """The largest tensor that any operation returns, in bytes, apart from those of a given shape."""

    def __init__(self, *apart_from: tuple[int, ...]) -> None:
        super().__init__()
        self.bytes, self.apart_from = 0, apart_from

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, torch.Tensor) and tuple(result.shape) not in self.apart_from:
                self.bytes = max(self.bytes, result.numel() * result.element_size())
        return results


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 3.0}, {"ignored": 0.5}, {"z_loss": 0.1}])
@pytest.mark.parametrize("budget", [0.004, 0.1, 1.0])
def test_budget(reduction: str, options: dict[str, Any], budget: float) -> None:
    hidden, weight, bias, target = problem(
        ROWS, DIM, CLASSES, bias=True, ignored=options.pop("ignored", 0.0), dtype=torch.float32
    )
    with Largest((CLASSES, DIM), (DIM, CLASSES)) as largest:
        loss = cf.linear_crossfade_loss(
            hidden, weight, target, bias=bias, reduction=reduction, memory_budget_mb=budget, **options
        )
        loss.sum().backward()
    one_row = 4 * CLASSES
    others = 8 * ROWS * DIM
    assert largest.bytes <= max(budget * 2**20, one_row, others)
    assert largest.bytes < 4 * ROWS * CLASSES


def test_default_is_48_mib_or_the_size_of_hidden() -> None:
    hidden, weight, _, target = problem(64, 2, 400_000, dtype=torch.float32)
    with Largest((400_000, 2), (2, 400_000)) as largest:
        cf.linear_crossfade_loss(hidden, weight, target).backward()
    assert 32 * 2**20 < largest.bytes <= 48 * 2**20


def test_pieces_have_equal_sizes() -> None:
    """33 rows within a budget of 32 are 17 + 16, not 32 + 1: a product with one row is slow."""
    hidden, weight, _, target = problem(33, 4, 1024, dtype=torch.float32)
    with Largest((1024, 4), (4, 1024)) as largest:
        cf.linear_crossfade_loss(hidden, weight, target, memory_budget_mb=32 * 4 / 1024)
    assert largest.bytes == 17 * 4 * 1024
