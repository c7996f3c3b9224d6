"""What PyTorch's own tests of ``F.cross_entropy`` ask of it, asked of the losses here.

The sources are test_nn's block on cross entropy, and the samples that OpInfo and ModuleInfo make for it
(torch.testing._internal.common_methods_invocations and common_modules).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
from tests.core.cases import CASES

# The losses that are F.cross_entropy: with numbers, with tensors as a schedule has them, and as a g of one's own.
CROSS_ENTROPIES = {
    "numbers": partial(cf.crossfade_loss, alpha=1.0, beta=0.0),
    "tensors": partial(
        cf.crossfade_loss, alpha=torch.tensor(1.0, dtype=torch.float64), beta=torch.tensor([0.0], dtype=torch.float64)
    ),
    "own": partial(cf.probability_loss, lambda ce: ce),
}


def samples(rows: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Return OpInfo's samples: shapes, indices and probabilities, and each combination of the options."""
    batch, classes, rest = (2, 3, (2,)) if rows == 2 else (rows, 5, (3,))
    shapes = [(batch, classes), (batch, classes, *rest), (batch, classes, *rest, 2)]
    if rows == 2:
        shapes.append((classes,))
    for shape, weighted, reduction in itertools.product(shapes, (False, True), ("mean", "sum", "none")):
        logits = (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)
        weight = (torch.rand(classes, dtype=torch.float64) + 0.1).to(dtype) if weighted else None
        index = torch.randint(classes, shape[:1] + shape[2:] if len(shape) > 1 else ())
        soft = torch.rand(shape, dtype=torch.float64).to(dtype)  # it needs no sum of 1
        for smoothing in (0.0, 0.3):
            options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
            yield logits, soft, options
            yield logits, index, options
            yield logits, index, options | {"ignore_index": int((index.view(-1)[0] + 1) % classes)}


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@pytest.mark.parametrize("rows", [2, 2000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_samples_of_cross_entropy(name: str, rows: int, dtype: torch.dtype) -> None:
    """OpInfo of nn.functional.cross_entropy, in small and large batches: value, gradient and type."""
    torch.manual_seed(0)
    half = dtype.itemsize == 2
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-6}
    for logits, target, options in samples(rows, dtype):
        leaf, wide = (x.detach().clone().requires_grad_() for x in (logits, logits.float() if half else logits))
        exact = {k: v.to(wide.dtype) if isinstance(v, Tensor) else v for k, v in options.items()}
        exact_target = target.to(wide.dtype) if target.is_floating_point() else target
        actual, expected = CROSS_ENTROPIES[name](leaf, target, **options), F.cross_entropy(wide, exact_target, **exact)
        assert actual.dtype == wide.dtype
        torch.testing.assert_close(actual, expected, **tolerance)
        upstream = torch.rand_like(expected)
        (gradient,), (wanted,) = (torch.autograd.grad(y, x, upstream) for y, x in ((actual, leaf), (expected, wide)))
        assert gradient.dtype == dtype
        loose = {"rtol": 2e-2, "atol": 2e-5} if half else tolerance
        torch.testing.assert_close(gradient.to(wide.dtype), wanted, **loose)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [4, 4000])
def test_one_hot_probabilities_and_smoothing_are_indices(name: str, rows: int) -> None:
    """test_nn: test_cross_entropy_loss_one_hot_target, ..._label_smoothing_consistent_index_target_and_probs."""
    torch.manual_seed(0)
    logits, target = torch.randn(rows, 5, dtype=torch.float64), torch.randint(5, (rows,))
    weight = torch.rand(5, dtype=torch.float64)
    hot = F.one_hot(target, 5).double()
    for smoothing, reduction in itertools.product((0.0, 0.2), ("none", "sum")):
        options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
        expected = CASES[name](logits, target, **options)
        torch.testing.assert_close(CASES[name](logits, hot, **options), expected)
        smoothed = hot * (1 - smoothing) + smoothing / 5
        torch.testing.assert_close(CASES[name](logits, smoothed, weight=weight, reduction=reduction), expected)


@pytest.mark.parametrize("rows", [4, 9000])
def test_bfloat16_probabilities_are_smoothed_in_float32(rows: int) -> None:
    """test_nn: test_cross_entropy_label_smoothing_with_probs. In bfloat16 1 - 0.1 and 0.1 / C have three digits."""
    torch.manual_seed(0)
    logits, soft = torch.randn(rows, 6).bfloat16(), torch.rand(rows, 6).softmax(1).bfloat16()
    expected = F.cross_entropy(logits.double(), soft.double(), label_smoothing=0.1)
    actual = cf.crossfade_loss(logits, soft, beta=0.0, label_smoothing=0.1)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [2, 9000])
@pytest.mark.parametrize("name", CASES)
def test_too_much_smoothing_is_named_before_anything_else(name: str, rows: int) -> None:
    """test_nn: test_cross_entropy_loss_label_smoothing_errors, here with a target that doesn't fit either."""
    with pytest.raises(RuntimeError, match="label_smoothing must be between"):
        CASES[name](torch.randn(rows, 3), torch.zeros(rows + 1, dtype=torch.long), label_smoothing=1.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_of_one_element_leaves_type_and_shape(dtype: torch.dtype) -> None:
    """OpInfo: an unbatched sample. A float64 weight must not make a float32 loss float64, nor a (1,) one a vector."""
    logits, target = torch.randn(5).to(dtype), torch.tensor(3)
    expected = cf.crossfade_loss(logits, target, alpha=0.5, beta=2.0)
    for shape, kind in itertools.product(((), (1,), (1, 1)), (torch.float64, torch.float32)):
        alpha, beta = torch.full(shape, 0.5, dtype=kind), torch.full(shape, 2.0, dtype=kind)
        for some in ({"alpha": alpha, "beta": beta}, {"alpha": 0.5, "beta": beta}, {"alpha": alpha, "beta": 2.0}):
            actual = cf.crossfade_loss(logits, target, **some)
            assert actual.dtype == torch.float32
            torch.testing.assert_close(actual, expected)
            smoothed = cf.crossfade_loss(logits[None], target[None], label_smoothing=0.1, **some)
            assert smoothed.dtype == torch.float32
    learned = torch.ones(1, requires_grad=True)
    (slope,) = torch.autograd.grad(cf.crossfade_loss(logits, target, alpha=learned), learned)
    torch.testing.assert_close(slope, F.cross_entropy(logits.float(), target).reshape(1))
