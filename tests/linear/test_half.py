"""Half precision and autocast: no error is larger than that of the reference in the same type."""

from __future__ import annotations

import pytest
import torch

import crossfade as cf
from crossfade import _linear
from tests.linear.linear_reference import gradients, problem, reference_loss

HALVES = [torch.bfloat16, torch.float16]
PIECES = 0.02  # MiB: several pieces, so that sums over pieces count


def errors(
    fn: object, exact: tuple[torch.Tensor, ...], inputs: tuple[torch.Tensor, ...], **options: object
) -> list[float]:
    hidden, weight, target = inputs
    loss = fn(hidden, weight, target, **options)
    got = (loss.detach(), *gradients(loss, (hidden, weight)))
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)]


def exact(
    hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, **options: object
) -> tuple[torch.Tensor, ...]:
    leaves = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    loss = reference_loss(*leaves, target, **options)
    return loss.detach(), *gradients(loss, leaves)


def inputs_of(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden, weight, _, target = problem(rows=300, dim=24, classes=120, ignored=0.2, dtype=dtype)
    return hidden, weight, target


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 4.0}, {"alpha": 0.0}, {"z_loss": 0.1}])
def test_no_less_exact_than_the_reference(dtype: torch.dtype, reduction: str, options: dict[str, object]) -> None:
    inputs = inputs_of(dtype)
    options = options | {"reduction": reduction}
    truth = exact(*inputs, **options)
    ours = errors(cf.linear_crossfade_loss, truth, inputs, memory_budget_mb=PIECES, **options)
    theirs = errors(reference_loss, truth, inputs, **options)
    assert all(a <= 1.05 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


@pytest.mark.parametrize("dtype", HALVES)
def test_types(dtype: torch.dtype) -> None:
    hidden, weight, target = inputs_of(dtype)
    loss = cf.linear_crossfade_loss(hidden, weight, target)
    assert loss.dtype == torch.float32
    assert [g.dtype for g in gradients(loss, (hidden, weight))] == [dtype, dtype]


def test_loss_scaling_survives_float16() -> None:
    """Mean gradients of 1e-8 are 0 in float16; with an upstream gradient of 2^16, as GradScaler gives, they aren't."""
    hidden, weight, target = inputs_of(torch.float16)
    small = (weight.detach() * 1e-3).requires_grad_()
    loss = cf.linear_crossfade_loss(hidden * 1e-3, small, target, memory_budget_mb=PIECES) * 65536.0
    (got,) = gradients(loss, (small,))
    leaf = small.detach().double().requires_grad_()
    (wanted,) = gradients(reference_loss(hidden.detach().double() * 1e-3, leaf, target) * 65536.0, (leaf,))
    assert ((got.double() - wanted).norm() / wanted.norm()).item() < 2e-3


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_autocast(reduction: str) -> None:
    """float32 parameters under autocast have float32 gradients, as exact as float32 on the CPU."""
    hidden, weight, bias, target = problem(rows=40, classes=30, bias=True, ignored=0.2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, reduction=reduction)
    expected = reference_loss(hidden, weight, target, bias=bias, reduction=reduction)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(
        gradients(loss, (hidden, weight, bias)), gradients(expected, (hidden, weight, bias)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_autocast_takes_a_half_hidden_state_and_a_float32_weight() -> None:
    hidden, weight, _, target = problem(rows=40, classes=30, dtype=torch.float32)
    half = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cf.linear_crossfade_loss(half, weight, target)
    assert [g.dtype for g in gradients(loss, (half, weight))] == [torch.bfloat16, torch.float32]


def rows_then_sum(*arguments: torch.Tensor, **options: object) -> torch.Tensor:
    return cf.linear_crossfade_loss(*arguments, **options | {"reduction": "none"}).sum()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("weight_type", ["same", "float32"])
@pytest.mark.parametrize("fn", [cf.linear_crossfade_loss, rows_then_sum])
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0}, {"label_smoothing": 0.1}])
def test_products_in_half_precision(
    dtype: torch.dtype, weight_type: str, fn: object, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, the weight's gradient is written once, class by class, from logits computed a second time."""
    monkeypatch.setattr(_linear, "compute_type", lambda *_: dtype)
    hidden, weight, target = inputs_of(dtype)
    if weight_type == "float32":
        weight = weight.detach().float().requires_grad_()
    options = options | {"reduction": "sum", "sample_weight": torch.linspace(0.1, 2, 300)}
    inputs = (hidden, weight, target)
    loss, of_hidden, of_weight = errors(fn, exact(*inputs, **options), inputs, memory_budget_mb=PIECES, **options)
    unit = torch.finfo(dtype).eps
    assert loss < unit
    assert of_hidden < 2 * unit
    assert of_weight < 2 * unit
