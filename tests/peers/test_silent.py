"""Inputs for which a loss could be wrong without a word, each found with the tests or definitions of the source it names.

The references are written in float64 here, without the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
from crossfade import _heart, _transforms
from crossfade.integrations.distributed import global_count
from tests.core.cases import CASES

INF = math.inf
# Up to 16384 logits are a small batch, which takes another form of the loss than a large one.
SMALL, LARGE = 6, 4000


def gradient_of(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    leaf = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected) / expected).abs().max().item()


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 1}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_uint8_targets(name: str, options: dict[str, float], rows: int) -> None:
    """PyTorch's ``F.cross_entropy`` takes uint8 targets (test_nn, nll_loss with byte targets)."""
    torch.manual_seed(0)
    logits, target, weight = torch.randn(rows, 7), torch.randint(7, (rows,)), torch.rand(7) + 0.1
    for reduction in ("none", "mean", "sum"):
        loss = partial(CASES[name], weight=weight, reduction=reduction, **options)
        torch.testing.assert_close(loss(logits, target.byte()), loss(logits, target), rtol=1e-6, atol=1e-6)
    byte, long = (gradient_of(lambda x, t=t: loss(x, t), logits) for t in (target.byte(), target))  # type: ignore[misc]
    torch.testing.assert_close(byte, long, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_the_uint8_class_156_is_not_the_ignored_minus_100(rows: int) -> None:
    """PyTorch: in uint8 arithmetic 156 == -100, but ``F.cross_entropy`` counts class 156."""
    logits, target = torch.randn(rows, 200), torch.full((rows,), 156)
    weight = torch.rand(200) + 0.1
    for loss in (cf.crossfade_loss, cf.complement_entropy, partial(cf.crossfade_loss, label_smoothing=0.1)):
        torch.testing.assert_close(loss(logits, target.byte(), weight=weight), loss(logits, target, weight=weight))


def test_uint8_targets_elsewhere() -> None:
    """PyTorch: as above, for features and for the number of targets of several processes."""
    target, weight = torch.tensor([2, 0, 1, 1]), torch.tensor([0.5, 3.0, 2.0])
    features = torch.randn(4, 5)
    centers = cf.MaxMahalanobisCenterLoss(3, 5, weight=weight, label_smoothing=0.1)
    torch.testing.assert_close(centers(features, target.byte()), centers(features, target))
    criterion = cf.CrossfadeLoss(weight=weight)
    torch.testing.assert_close(criterion(torch.eye(4, 3), target.byte()), criterion(torch.eye(4, 3), target))
    assert global_count(criterion, target.byte()).item() == 8.5
