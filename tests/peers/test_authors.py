"""Losses as their authors publish them: timm's by timm itself, the others by the formulas of their papers' code."""

from __future__ import annotations

import pytest
import timm.loss
import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf


@pytest.fixture(params=[6, 3000])
def batch(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(request.param, 7, dtype=torch.float64).mul_(3).requires_grad_(), torch.randint(
        7, (request.param,)
    )


def agree(actual: Tensor, expected: Tensor, logits: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    (gradient,), (wanted,) = (torch.autograd.grad(loss, logits, retain_graph=True) for loss in (actual, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-9)


def test_soft_targets_of_timm(batch: tuple[Tensor, Tensor]) -> None:
    """timm: SoftTargetCrossEntropy, for mixup and cutmix."""
    logits, target = batch
    mixed = 0.7 * F.one_hot(target, 7).double() + 0.3 * F.one_hot(target.roll(1), 7)
    agree(cf.crossfade_loss(logits, mixed, beta=0.0), timm.loss.SoftTargetCrossEntropy()(logits, mixed), logits)


def test_label_smoothing_of_timm(batch: tuple[Tensor, Tensor]) -> None:
    """timm: LabelSmoothingCrossEntropy."""
    logits, target = batch
    expected = timm.loss.LabelSmoothingCrossEntropy(0.1)(logits, target)
    agree(cf.crossfade_loss(logits, target, beta=0.0, label_smoothing=0.1), expected, logits)


def test_poly_1(batch: tuple[Tensor, Tensor]) -> None:
    """PolyLoss (Leng et al. 2022): CE + epsilon (1 - pt), pt the product of labels and softmax."""
    logits, target = batch
    p = (F.one_hot(target, 7) * logits.softmax(1)).sum(1)
    agree(
        cf.poly_loss(logits, target, epsilon=2.0),
        (F.cross_entropy(logits, target, reduction="none") + 2 * (1 - p)).mean(),
        logits,
    )


def test_generalized_and_truncated_cross_entropy(batch: tuple[Tensor, Tensor]) -> None:
    """GCE (Zhang and Sabuncu 2018): (1 - Yg^q) / q; truncated below k, where it is constant."""
    logits, target = batch
    p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    loss = (1 - p**0.7) / 0.7
    agree(cf.generalized_cross_entropy(logits, target, q=0.7), loss.mean(), logits)
    cut = torch.where(p > 0.3, loss, torch.full_like(p, (1 - 0.3**0.7) / 0.7))
    agree(cf.truncated_cross_entropy(logits, target, q=0.7, k=0.3), cut.mean(), logits)


def test_complement_entropy(batch: tuple[Tensor, Tensor]) -> None:
    """COT (Chen et al. 2019): p_j / (1 - p_y) times its logarithm over the other classes, by batch and classes."""
    logits, target = batch
    p = logits.softmax(1)
    ratio = p / (1 - p.gather(1, target[:, None]))
    others = 1 - F.one_hot(target, 7)
    published = (ratio * torch.log(ratio + 1e-10) * others).sum() / len(logits) / 7
    agree(-cf.complement_entropy(logits, target) / 7, published, logits)
