"""Inputs for which a loss could be wrong silently, each found with the tests or definitions of the source it names.

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
from crossfade import _heart
from crossfade._reduction import CrossEntropyOptions
from crossfade._transforms import Mixture, one_minus_exp
from crossfade.integrations.distributed import global_count
from tests.core.cases import CASES

INF = math.inf
# Up to 1536 logits are a small batch, which takes another form of the loss than a large one.
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
    for options in ({}, {"weight": weight}, {"label_smoothing": 0.1}, {"ignore_index": 1}):
        fused = cf.linear_crossfade_loss(torch.eye(4), torch.eye(3, 4), target.byte(), **options)
        torch.testing.assert_close(fused, cf.crossfade_loss(torch.eye(4, 3), target, **options))


def entropy_of_the_others(logits: Tensor, own: int) -> Tensor:
    others = torch.cat([logits[:own], logits[own + 1 :]]).double().softmax(0)
    return torch.special.entr(others).sum()


@pytest.mark.parametrize("margin", [1.0, 20.0, 37.0, 40.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_complement_entropy_of_soft_targets_at_a_margin(margin: float, dtype: torch.dtype) -> None:
    """COT (Chen et al. 2019): the entropy of the other classes doesn't depend on the target's own logit."""
    logits = torch.tensor([[margin, 0.0, 1.0, -0.5], [0.0, margin, 0.0, margin]], dtype=dtype)
    soft = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.0, 1.0, 0.0, 0.0]], dtype=dtype)

    def expected(x: Tensor) -> Tensor:
        each = torch.stack([torch.stack([entropy_of_the_others(row, c) for c in range(4)]) for row in x])
        return (each * soft.double()).sum(1)

    torch.testing.assert_close(
        cf.complement_entropy(logits, soft, reduction="none").double(), expected(logits), rtol=1e-6, atol=1e-7
    )
    actual = gradient_of(lambda x: cf.complement_entropy(x, soft, reduction="sum"), logits)
    wanted = gradient_of(lambda x: expected(x).sum(), logits.double())
    torch.testing.assert_close(actual.double(), wanted, rtol=1e-5, atol=1e-7)


def test_complement_entropy_has_one_value_for_an_index_and_its_one_hot_vector() -> None:
    """COT: the example of the report, and a smoothed target."""
    logits, hot = torch.tensor([[40.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    expected = entropy_of_the_others(logits[0], 0).item()
    assert math.isclose(cf.complement_entropy(logits, hot).item(), expected, rel_tol=1e-6)
    smoothed = cf.complement_entropy(logits, torch.tensor([0]), label_smoothing=0.3)
    of_soft = cf.complement_entropy(logits, torch.tensor([[0.8, 0.1, 0.1]]))
    torch.testing.assert_close(smoothed, of_soft)
    assert (
        gradient_of(lambda x: cf.complement_entropy(x, torch.tensor([0]), label_smoothing=0.3), logits).isfinite().all()
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("scale", [1.0, 32768.0, 65536.0])
def test_loss_scaling_of_float16_logits(scale: float, reduction: str) -> None:
    """PyTorch's ``GradScaler`` multiplies the loss, so that float16 gradients don't underflow; it starts at 65536."""
    torch.manual_seed(0)
    logits, target = (torch.randn(4096, 50) * 3).half(), torch.randint(50, (4096,))
    options = {"beta": 2.5, "weight": torch.rand(50) + 0.5, "reduction": reduction}
    share = 4096.0 if reduction != "mean" else 1.0

    def scaled(x: Tensor) -> Tensor:
        return cf.crossfade_loss(x, target, **options).sum() * (scale / share)

    actual = gradient_of(scaled, logits)
    assert actual.dtype == torch.float16
    expected = gradient_of(scaled, logits.double())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=6.1e-8)


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", CASES)
def test_a_masked_class_beside_the_target(name: str, rows: int) -> None:
    """timm and TRL mask classes and tokens with -inf: the loss is that of the classes left, with a finite gradient."""
    torch.manual_seed(0)
    left, target = torch.randn(rows, 6, dtype=torch.float64), torch.randint(6, (rows,))
    masked = torch.cat([left, torch.full((rows, 1), -INF, dtype=torch.float64)], 1)
    loss = partial(CASES[name], target=target, reduction="sum")
    torch.testing.assert_close(loss(masked), loss(left))
    gradient = gradient_of(loss, masked)
    torch.testing.assert_close(gradient[:, :6], gradient_of(loss, left))
    assert (gradient[:, 6] == 0).all()


@pytest.mark.parametrize("target", [torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]])], ids=["index", "soft"])
def test_the_target_is_the_only_class_left(target: Tensor) -> None:
    """COT: without another class the entropy is 0, as it is for a single class."""
    logits = torch.tensor([[-INF, 2.0, -INF]])
    assert cf.complement_entropy(logits, target).item() == 0
    assert (gradient_of(lambda x: cf.complement_entropy(x, target), logits) == 0).all()


def test_mpce_of_a_masked_target_is_infinite() -> None:
    """Eq. (7): as ``F.cross_entropy``; its gradient has no value, and is taken as 0."""
    logits = torch.tensor([[0.0, 1.0, -INF]])
    assert cf.mpce_loss(logits, torch.tensor([2])).item() == INF
    assert gradient_of(lambda x: cf.mpce_loss(x, torch.tensor([2])), logits).isfinite().all()


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", CASES)
def test_a_nan_among_the_logits_shows_in_its_row_alone(name: str, rows: int) -> None:
    """PyTorch: ``F.cross_entropy`` of NaN is NaN. Truncated L_q compares, and comparing with NaN is false."""
    logits, target = torch.randn(rows, 6), torch.randint(1, 6, (rows,))
    logits[0, 0] = math.nan
    logits[1] = torch.tensor([120.0, 0, 0, 0, 0, 0])
    for leaf in (logits, logits.clone().requires_grad_()):
        loss = CASES[name](leaf, target, reduction="none")
        assert loss[0].isnan()
        torch.testing.assert_close(loss[1:], CASES[name](logits[1:], target[1:], reduction="none"))


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("broken", [math.nan, -INF])
def test_a_class_weight_of_zero_hides_no_nan(broken: float, rows: int) -> None:
    """PyTorch: 0 * NaN and 0 * inf are NaN, unlike the loss of an ignored row."""
    logits, target = torch.randn(rows, 6), torch.randint(1, 6, (rows,))
    logits[:2, 0] = broken
    target[0], target[1] = 0, -100
    weight = torch.tensor([0.0, 1, 1, 1, 1, 1])
    for leaf in (logits, logits.clone().requires_grad_()):
        loss = cf.crossfade_loss(leaf, target, weight=weight, beta=0.0, reduction="none")
        torch.testing.assert_close(loss, F.cross_entropy(leaf, target, weight, reduction="none"), equal_nan=True)
        assert loss[0].isnan()
        assert loss[1] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_a_mean_over_targets_whose_weights_are_zero_is_torchs(rows: int, smoothing: float) -> None:
    logits, target = torch.randn(rows, 6, requires_grad=True), torch.zeros(rows, dtype=torch.int64)
    weight = torch.tensor([0.0, 1, 1, 1, 1, 1])
    options = {"weight": weight, "label_smoothing": smoothing}
    actual, expected = (
        cf.crossfade_loss(logits, target, beta=0.0, **options),
        F.cross_entropy(logits, target, **options),
    )
    torch.testing.assert_close(actual, expected, equal_nan=True)
    (got,), (wanted,) = (torch.autograd.grad(loss, logits) for loss in (actual, expected))
    torch.testing.assert_close(got, wanted, equal_nan=True)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_infinite_class_weights_are_torchs(rows: int, smoothing: float, reduction: str) -> None:
    """PyTorch: with label smoothing every row's loss is infinite, not NaN; without, that of the class's rows."""
    torch.manual_seed(0)
    weight, hidden, eye = torch.tensor([1.0, 0.5, INF]), torch.randn(rows, 3), torch.eye(3)
    target = torch.randint(2, (rows,))
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    for loss in (cf.crossfade_loss, lambda x, y, **kw: cf.linear_crossfade_loss(x, eye, y, **kw)):
        for of in (target, torch.cat([target[1:], torch.tensor([2])])):
            expected = F.cross_entropy(hidden, of, **options)
            ce = loss(hidden.clone().requires_grad_(), of, beta=0.0, **options)
            torch.testing.assert_close(ce, expected, equal_nan=True)
            mixture = loss(hidden.clone().requires_grad_(), of, **options)
            assert torch.equal(mixture.isinf(), expected.isinf())
            assert torch.equal(mixture.isnan(), expected.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_a_common_offset_of_the_logits_changes_nothing(offset: float, rows: int, dtype: torch.dtype) -> None:
    """Liger and cut-cross-entropy test large logits: the softmax doesn't depend on a number added to all of them."""
    torch.manual_seed(0)
    logits = torch.randn(rows, 6) * 8
    logits[:, :2] = 100.0
    logits = (logits + offset).to(dtype)
    target = torch.randint(2, 6, (rows,))
    exact = F.cross_entropy(logits.double(), target, reduction="none")
    for loss in (partial(cf.crossfade_loss, beta=0.0), partial(cf.probability_loss, lambda ce: ce)):
        leaf = logits.clone().requires_grad_()
        assert relative_error(loss(leaf, target, reduction="none"), exact) < 2e-7


# p = 1e-38 is float32's smallest; the row weight of L_q is p^0.7.
KEEP_P = {
    "el": cf.expectation_loss,
    "tensors-el": CASES["tensors-el"],
    "mae": cf.mae_loss,
    "L_q": cf.generalized_cross_entropy,
    "L_1": partial(cf.generalized_cross_entropy, q=1.0),
    "truncated": partial(cf.truncated_cross_entropy, q=0.7, k=1e-37),
    "by row": lambda x, t, reduction: _heart.by_row(Mixture(0.0, 1.0), x, t, CrossEntropyOptions(reduction=reduction)),
    "by class": lambda x, t, reduction: _heart.by_class(
        Mixture(0.0, 1.0), x, t, CrossEntropyOptions(reduction=reduction)
    ),
    "smoothed": lambda x, t, reduction: cf.mae_loss(x, F.one_hot(t, x.shape[1]).to(x.dtype), reduction=reduction),
}


@pytest.mark.parametrize("name", KEEP_P)
@pytest.mark.parametrize("classes", [5, 500_000])
def test_the_row_weight_keeps_the_digits_of_p(name: str, classes: int) -> None:
    """DFT (Wu et al. 2025): the row weight p is an exponential there. The slope of expm1 is p in steps of 6e-8."""
    torch.manual_seed(0)
    logits = torch.randn(SMALL if classes > 5 else LARGE, classes) / 4
    if classes == 5:
        logits[:, 0] = torch.tensor([1.0, 9.0, 18.0, 30.0, 60.0, 80.0]).repeat(LARGE)[:LARGE]
    target = torch.arange(len(logits)) % (classes - 1) + 1
    loss = partial(KEEP_P[name], reduction="sum")
    for count in {len(logits), SMALL}:
        x, t = logits[:count], target[:count]
        expected = gradient_of(lambda x, t=t: loss(x, t), x.double())
        error = (gradient_of(lambda x, t=t: loss(x, t), x) - expected).abs().amax(1) / expected.abs().amax(1)
        # exp(-ce) has the relative error that the rounded ce has as an absolute one. For class probabilities it is
        # exp2(-ce log2(e)), whose argument is rounded once more.
        ce = F.cross_entropy(x, t, reduction="none")
        assert (error < 1.5e-6 + (1.2e-7 if name == "smoothed" else 6e-8) * ce).all(), error


def test_the_derivative_of_one_minus_p_in_every_kind_of_differentiation() -> None:
    """PyTorch's ``F.elu`` is expm1 below 0, with the exponential itself as its derivative, however it is taken."""
    value = lambda x: -one_minus_exp(x)  # noqa: E731
    slope = torch.func.grad(lambda x: value(x).sum())
    for dtype in (torch.float32, torch.float64):
        log_p = -torch.linspace(0, 80, 161, dtype=dtype)[1:]  # at p = 1 its second derivative is 0
        p, one = log_p.exp(), torch.ones_like(log_p)
        torch.testing.assert_close(value(log_p), torch.expm1(log_p), rtol=4 * torch.finfo(dtype).eps, atol=0)
        for found in (
            slope(log_p),
            torch.func.grad(lambda x: slope(x).sum())(log_p),
            torch.func.vmap(torch.func.grad(value))(log_p),
            torch.func.jvp(value, (log_p,), (one,))[1],
            torch.func.jvp(slope, (log_p,), (one,))[1],
        ):
            torch.testing.assert_close(found, p, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("changed", ["target", "weight"])
@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_nothing_is_computed_again_from_changed_tensors(changed: str, differentiable: bool, soft: bool) -> None:
    """PyTorch: a second or differentiable backward pass of ``F.cross_entropy`` raises, too."""
    logits = torch.randn(LARGE, 6, requires_grad=True)
    tensors = {"target": torch.rand(LARGE, 6) if soft else torch.randint(6, (LARGE,)), "weight": torch.rand(6) + 0.1}
    loss = cf.crossfade_loss(logits, **tensors)
    torch.autograd.grad(loss, logits, retain_graph=True)
    tensors[changed].mul_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, logits, create_graph=differentiable)
