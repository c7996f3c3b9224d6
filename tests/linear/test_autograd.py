"""The fused loss as a part of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import crossfade as cf
from tests.linear.linear_reference import cubed, gradients, problem, reference_loss


def named(options):
    """Return a test's name, the same in every process."""
    return ", ".join(options) or "plain"


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"softcap": 2.0}, {"g": cubed}], ids=named)
def test_gradcheck(reduction: str, options: dict[str, object]) -> None:
    hidden, weight, bias, target = problem(rows=5, dim=3, classes=4, bias=True, ignored=0.2)

    def loss(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return cf.linear_crossfade_loss(
            hidden, weight, target, bias=bias, reduction=reduction, memory_budget_mb=1e-4, **options
        )

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


def test_learnable_alpha_and_beta() -> None:
    hidden, weight, _, target = problem(ignored=0.3)
    alpha, beta = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 1.5))
    for reduction in ("mean", "sum"):
        loss = cf.linear_crossfade_loss(hidden, weight, target, alpha=alpha, beta=beta, reduction=reduction)
        expected = reference_loss(hidden, weight, target, alpha=alpha, beta=beta, reduction=reduction)
        of = (alpha, beta, hidden, weight)
        for got, wanted in zip(gradients(loss, of), gradients(expected, of), strict=True):
            torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="probability_loss"):
        cf.linear_crossfade_loss(hidden, weight, target, alpha=alpha, label_smoothing=0.1)


def test_learnable_tensor_inside_g_and_sample_weight() -> None:
    hidden, weight, _, target = problem(ignored=0.3)
    q = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    samples = torch.rand(23, dtype=torch.float64).requires_grad_()
    options = {"g": lambda ce: -torch.expm1(-q * ce) / q, "sample_weight": samples}
    loss = cf.linear_crossfade_loss(hidden, weight, target, **options)
    expected = reference_loss(hidden, weight, target, **options)
    for got, wanted in zip(
        gradients(loss, (q, samples, hidden)), gradients(expected, (q, samples, hidden)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_backward_twice_through_a_retained_graph() -> None:
    hidden, weight, bias, target = problem(bias=True, ignored=0.3)
    for reduction in ("mean", "none"):
        loss = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, reduction=reduction).sum()
        first, second = gradients(loss, (hidden, weight, bias)), gradients(3 * loss, (hidden, weight, bias))
        for one, three in zip(first, second, strict=True):
            torch.testing.assert_close(3 * one, three)


def test_a_gradient_that_was_handed_over_stays_as_it_is() -> None:
    hidden, weight, _, target = problem()
    loss = cf.linear_crossfade_loss(hidden, weight, target)
    loss.backward(retain_graph=True)
    kept = weight.grad
    before = kept.clone()
    torch.autograd.grad(5 * loss, (hidden, weight))
    torch.testing.assert_close(kept, before)


SMALL = [{}, {"z_loss": 0.3}, {"label_smoothing": 0.1, "softcap": 2.0}, {"g": cubed}, {"soft": True}]


def small(
    options: dict[str, object],
) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], tuple[Any, ...]]:
    """Return the fused loss and the reference as functions of hidden, weight and bias, and values of these."""
    hidden, weight, bias, target = problem(rows=4, dim=3, classes=4, bias=True, ignored=0.2)
    options = dict(options)
    if options.pop("soft", False):
        target = torch.rand(4, 4, dtype=torch.float64)

    def of(loss: Any) -> Callable[..., Any]:
        return lambda h, w, b: loss(h, w, target, bias=b, **options)

    return of(cf.linear_crossfade_loss), of(reference_loss), (hidden, weight, bias)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", SMALL, ids=named)
def test_second_derivatives(reduction: str, options: dict[str, object]) -> None:
    """PyTorch: ``F.linear_cross_entropy`` has them (its default form; the chunked one has not)."""
    fused, _, inputs = small(options | {"reduction": reduction})
    assert torch.autograd.gradgradcheck(fused, inputs)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", SMALL, ids=named)
def test_batched_gradients(reduction: str, options: dict[str, object]) -> None:
    fused, reference, inputs = small(options | {"reduction": reduction})
    for loss in (fused, lambda *x: fused(*x).sum()):
        value, expected = loss(*inputs), reference(*inputs)
        many = torch.randn(3, *value.shape, dtype=torch.float64)
        got = torch.autograd.grad(value, inputs, many, is_grads_batched=True, retain_graph=True)
        for k in range(3):
            upstream = many[k] if value.shape == expected.shape else many[k].expand(expected.shape)
            torch.testing.assert_close(tuple(g[k] for g in got), gradients(expected, inputs, upstream))
        torch.testing.assert_close(gradients(value, inputs, many[0]), tuple(g[0] for g in got))
    wanted = torch.autograd.functional.jacobian(reference, inputs)
    torch.testing.assert_close(torch.autograd.functional.jacobian(fused, inputs, vectorize=True), wanted)
    hessian = torch.autograd.functional.hessian
    first, second = ((lambda h, f=f: f(h, *inputs[1:]).sum()) for f in (fused, reference))
    torch.testing.assert_close(hessian(first, inputs[0], vectorize=True), hessian(second, inputs[0]))


@pytest.mark.parametrize("options", SMALL, ids=named)
def test_function_transforms(options: dict[str, object]) -> None:
    """PyTorch: ``F.linear_cross_entropy`` runs under ``torch.func``, and in forward mode."""
    fused, reference, inputs = small(options)
    values = tuple(x.detach() for x in inputs)
    tangents = tuple(torch.randn_like(x) for x in values)
    many = tuple(torch.randn(3, *x.shape, dtype=x.dtype) for x in values)
    for transform in (
        lambda f: torch.func.grad(f, argnums=(0, 1, 2))(*values),
        lambda f: torch.func.jvp(f, values, tangents),
        lambda f: torch.func.vmap(f)(*many),
        lambda f: torch.func.vmap(torch.func.grad(f, argnums=(0, 2)))(*many),
        lambda f: torch.func.hessian(f)(*values),
    ):
        torch.testing.assert_close(transform(fused), transform(reference))


def test_statistics_under_function_transforms() -> None:
    hidden, weight, _, target = problem(rows=4, ignored=0.2)

    def loss(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, stats = cf.linear_crossfade_loss(h, weight.detach(), target, return_stats=True)
        return value, torch.stack([stats.ce, stats.p, stats.entropy, stats.lse, stats.row_weight])

    gradient, stats = torch.func.grad(loss, has_aux=True)(hidden.detach())
    value, expected = loss(hidden)
    torch.testing.assert_close(stats, expected)
    torch.testing.assert_close(gradient, gradients(value, (hidden,))[0])


def test_tied_weight() -> None:
    _, weight, _, target = problem(rows=10, classes=11)
    tokens = torch.arange(10)

    def loss(fn: object) -> torch.Tensor:
        return fn(F.embedding(tokens, weight), weight, target)

    got, wanted = (gradients(loss(fn), (weight,))[0] for fn in (cf.linear_crossfade_loss, reference_loss))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant: bool) -> None:
    hidden, weight, _, target = problem()
    loss = partial(cf.linear_crossfade_loss, target=target)
    direct = loss(hidden.tanh(), weight)
    checkpointed = checkpoint(lambda h, w: loss(h.tanh(), w), hidden, weight, use_reentrant=use_reentrant)
    of = (hidden, weight)
    if use_reentrant:  # torch.autograd.grad doesn't reach through a reentrant checkpoint
        checkpointed.backward()
        got = tuple(x.grad for x in of)
    else:
        got = gradients(checkpointed, of)
    for a, b in zip(got, gradients(direct, of), strict=True):
        torch.testing.assert_close(a, b)


def matrix_work(rows: int, dim: int, classes: int) -> int:
    """Return the operations of one matrix product between hidden, weight and logits."""
    return 2 * rows * dim * classes


def flops(backward: bool, hidden: torch.Tensor, *arguments: object, **options: object) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        loss = cf.linear_crossfade_loss(hidden, *arguments, memory_budget_mb=1e-3, **options)
        if backward:
            loss.sum().backward()
    return counter.get_total_flops()


def test_matrix_work() -> None:
    """Three products for mean, four for none, one less for each frozen input, and one without gradients."""
    hidden, weight, _, target = problem(rows=40, dim=8, classes=30)
    one = matrix_work(40, 8, 30)
    assert flops(True, hidden, weight, target) == 3 * one
    assert flops(True, hidden, weight, target, reduction="none") == 4 * one
    assert flops(True, hidden, weight.detach(), target) == 2 * one
    assert flops(True, hidden.detach(), weight, target) == 2 * one
    with torch.no_grad():
        assert flops(False, hidden, weight, target) == one
    assert flops(False, hidden.detach(), weight.detach(), target) == one


def test_ignored_rows_cost_no_matrix_work() -> None:
    hidden, weight, _, target = problem(rows=40, dim=8, classes=30)
    target[::4] = -100
    assert flops(True, hidden, weight, target) == 3 * matrix_work(30, 8, 30)
    assert flops(True, hidden, weight, target, reduction="none") == 4 * matrix_work(30, 8, 30)
    assert flops(True, hidden, weight, torch.full_like(target, -100)) == 0


def test_frozen_inputs_get_no_gradient() -> None:
    hidden, weight, bias, target = problem(bias=True)
    weight.requires_grad_(False)
    cf.linear_crossfade_loss(hidden, weight, target, bias=bias).backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert bias.grad is not None
    frozen = cf.linear_crossfade_loss(hidden.detach(), weight, target)
    assert not frozen.requires_grad


def test_inputs_are_not_written_to() -> None:
    hidden, weight, bias, target = problem(bias=True, ignored=0.3)
    tensors = (hidden, weight, bias, target)
    before = [t.detach().clone() for t in tensors]
    for options in ({}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"softcap": 2.0}):
        cf.linear_crossfade_loss(hidden, weight, target, bias=bias, **options).sum().backward()
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)


def test_alpha_overwritten_before_backward() -> None:
    hidden, weight, _, target = problem()
    alpha = torch.tensor(1.0, dtype=torch.float64)
    loss = cf.linear_crossfade_loss(hidden, weight, target, alpha=alpha, reduction="none").sum()
    expected = gradients(reference_loss(hidden, weight, target, alpha=1.0, reduction="sum"), (weight,))
    alpha.fill_(100.0)
    torch.testing.assert_close(gradients(loss, (weight,)), expected)
