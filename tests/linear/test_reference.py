"""The fused loss agrees with the readable reference in float64: values and gradients, all options and reductions."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

import crossfade as cf
from tests.examples import examples
from tests.linear.linear_reference import cubed, gradients, problem, reference_loss

# The smallest budget: one row at a time.
ONE_ROW = 1e-6
LOSSES: dict[str, dict[str, Any]] = {
    "ce": {"alpha": 1.0, "beta": 0.0},
    "el": {"alpha": 0.0, "beta": 1.0},
    "mixture": {"alpha": 0.7, "beta": 1.3},
    "tensors": {"alpha": torch.tensor(0.7), "beta": torch.tensor(1.3, dtype=torch.float64)},
    "own": {"g": cubed},
}


def agree(hidden: Any, linear_weight: Any, target: Any, /, **options: Any) -> None:
    loss = cf.linear_crossfade_loss(hidden, linear_weight, target, **options)
    expected = reference_loss(hidden, linear_weight, target, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10, equal_nan=True, check_dtype=False)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(loss.shape, dtype=loss.dtype, generator=generator)
    of = [x for x in (hidden, linear_weight, options.get("bias")) if x is not None and x.requires_grad]
    for got, wanted in zip(gradients(loss, of, upstream), gradients(expected, of, upstream), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_every_option(loss: str, reduction: str, smoothing: float, softcap: float | None) -> None:
    class_weight = torch.rand(11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sample_weight = torch.rand(23, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    several_rows = 4e-4
    for weight, samples, bias, ignored, budget in itertools.product(
        (None, class_weight), (None, sample_weight), (False, True), (0.0, 0.4), (None, several_rows)
    ):
        hidden, linear_weight, linear_bias, target = problem(bias=bias, ignored=ignored)
        agree(
            hidden,
            linear_weight,
            target,
            bias=linear_bias,
            reduction=reduction,
            label_smoothing=smoothing,
            softcap=softcap,
            weight=weight,
            sample_weight=samples,
            memory_budget_mb=budget,
            **LOSSES[loss],
        )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_soft_targets_and_z_loss(loss: str, reduction: str) -> None:
    """PyTorch's ``F.linear_cross_entropy`` takes class probabilities, Liger's has ``lse_square_scale``."""
    generator = torch.Generator().manual_seed(2)
    class_weight = torch.rand(11, dtype=torch.float64, generator=generator)
    sample_weight = torch.rand(23, dtype=torch.float64, generator=generator)
    soft = torch.rand(23, 11, dtype=torch.float64, generator=generator)
    for is_soft, weight, samples, smoothing, softcap, z_loss, budget in itertools.product(
        (True, False), (None, class_weight), (None, sample_weight), (0.0, 0.2), (None, 3.0), (0.0, 0.3), (None, 4e-4)
    ):
        if not (is_soft or z_loss):
            continue
        hidden, linear_weight, bias, target = problem(bias=True, ignored=0.4)
        options = {"weight": weight, "sample_weight": samples, "label_smoothing": smoothing, "softcap": softcap}
        agree(
            hidden,
            linear_weight,
            soft if is_soft else target,
            bias=bias,
            reduction=reduction,
            z_loss=z_loss,
            memory_budget_mb=budget,
            **options,
            **LOSSES[loss],
        )


def test_z_loss_of_a_learnable_mixture_and_learnable_sample_weights() -> None:
    hidden, weight, _, target = problem(ignored=0.3)
    alpha = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    samples = torch.rand(23, dtype=torch.float64).requires_grad_()
    for reduction in ("mean", "sum", "none"):
        options = {"alpha": alpha, "sample_weight": samples, "z_loss": 0.2, "reduction": reduction}
        of = (alpha, samples, hidden, weight)
        loss, expected = (fn(hidden, weight, target, **options) for fn in (cf.linear_crossfade_loss, reference_loss))
        torch.testing.assert_close(gradients(loss.sum(), of), gradients(expected.sum(), of))


def test_a_soft_target_that_requires_a_gradient_gets_one() -> None:
    hidden, weight, _, _ = problem()
    soft = torch.rand(23, 11, dtype=torch.float64).requires_grad_()
    loss, expected = (fn(hidden, weight, soft, z_loss=0.1) for fn in (cf.linear_crossfade_loss, reference_loss))
    of = (soft, hidden, weight)
    torch.testing.assert_close(gradients(loss, of), gradients(expected, of))


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_shift(shift: int, reduction: str) -> None:
    """cut-cross-entropy: e[..., :-shift, :] against targets[..., shift:], and "none" has the shape of the latter."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(9, 5, dtype=torch.float64, generator=generator).requires_grad_()
    target, samples = torch.randint(9, (2, 6), generator=generator), torch.rand(2, 6, generator=generator)
    soft = torch.rand(2, 6, 9, dtype=torch.float64, generator=generator)
    target[0, 2] = -100
    for of, later in ((target, target[:, shift:]), (soft, soft[:, shift:])):
        options = {"reduction": reduction, "return_stats": True}
        loss, stats = cf.linear_crossfade_loss(
            hidden, weight, of, shift=shift, sample_weight=samples.double(), **options
        )
        expected, same = cf.linear_crossfade_loss(
            hidden[:, :-shift], weight, later, sample_weight=samples[:, shift:].double(), **options
        )
        assert stats.ce.shape == (2, 6 - shift)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(stats.row_weight, same.row_weight)
        torch.testing.assert_close(gradients(loss.sum(), (hidden,)), gradients(expected.sum(), (hidden,)))
    for bad in (-1, 6):
        with pytest.raises(ValueError, match=rf"shift must be in \[0, 6\).*got {bad}"):
            cf.linear_crossfade_loss(hidden, weight, target, shift=bad)


@examples(60)
@given(
    rows=st.integers(0, 9),
    dim=st.integers(1, 5),
    classes=st.integers(1, 8),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    budget=st.sampled_from([None, ONE_ROW, 3e-4]),
    scale=st.sampled_from([1.0, 30.0]),
    soft=st.booleans(),
    z_loss=st.sampled_from([0.0, 1e-2]),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    rows: int,
    dim: int,
    classes: int,
    ignored: float,
    reduction: str,
    budget: float | None,
    scale: float,
    soft: bool,
    z_loss: float,
    seed: int,
) -> None:
    hidden, weight, bias, target = problem(rows, dim, classes, bias=True, ignored=ignored, seed=seed)
    wide_hidden = (hidden.detach() * scale).requires_grad_()
    if soft:
        target = torch.rand(rows, classes, dtype=torch.float64)
    options = {"reduction": reduction, "memory_budget_mb": budget, "z_loss": z_loss, "alpha": 0.5, "beta": 2.0}
    agree(wide_hidden, weight, target, bias=bias, **options)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 2), (2, 0, 3)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_leading_dimensions(shape: tuple[int, ...], reduction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, 5, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(9, 5, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.randint(9, shape, generator=generator)
    agree(hidden, weight, target, reduction=reduction)


def test_ignore_index_that_is_a_class() -> None:
    hidden, weight, _, target = problem()
    for reduction in ("mean", "sum", "none"):
        agree(hidden, weight, target, ignore_index=int(target[0]), reduction=reduction)


def test_cross_entropy_is_torchs() -> None:
    hidden, weight, bias, target = problem(bias=True, ignored=0.3)
    class_weight = torch.rand(11, dtype=torch.float64)
    options = {"weight": class_weight, "label_smoothing": 0.1}
    expected = F.cross_entropy(F.linear(hidden, weight, bias), target, **options)
    loss = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, beta=0.0, **options)
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(
        gradients(loss, (hidden, weight, bias)), gradients(expected, (hidden, weight, bias)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_sample_weights_are_copies() -> None:
    hidden, weight, _, target = problem(rows=4, ignored=0.2)
    copies = torch.tensor([2, 1, 0, 3])
    repeated = cf.linear_crossfade_loss(hidden.repeat_interleave(copies, 0), weight, target.repeat_interleave(copies))
    weighted = cf.linear_crossfade_loss(hidden, weight, target, sample_weight=copies.double())
    torch.testing.assert_close(weighted, repeated)


def test_strided_inputs_and_a_transposed_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 20, dtype=torch.float64, generator=generator)[:, ::4].requires_grad_()
    weight = torch.randn(5, 9, dtype=torch.float64, generator=generator).t().requires_grad_()
    target = torch.randint(9, (12,), generator=generator)[::2]
    agree(hidden, weight, target, memory_budget_mb=ONE_ROW)
    agree(hidden[:1].expand(6, 5), weight, target)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_where_p_underflows(alpha: float) -> None:
    """p_y = 0 in float64: EL is 1 and flat, CE has its full gradient; neither is NaN."""
    hidden = torch.tensor([[1000.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 0])
    for reduction in ("mean", "none"):
        agree(hidden, weight, target, alpha=alpha, reduction=reduction)


def test_a_class_that_is_masked_out() -> None:
    """-inf in the bias: a class with probability 0. As a target it costs inf under CE, and 1 under EL."""
    hidden, weight, _, target = problem(rows=5, classes=4)
    target = target.clamp(min=1)
    bias = torch.tensor([float("-inf"), 0.0, 0.0, 0.0], dtype=torch.float64)
    agree(hidden, weight, target, bias=bias)
    target[2] = 0
    agree(hidden, weight, target, bias=bias, alpha=0.0)
    assert cf.linear_crossfade_loss(hidden, weight, target, bias=bias, reduction="none")[2] == float("inf")
