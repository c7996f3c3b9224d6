"""The fused loss without a valid row, with bad arguments, and its statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import crossfade as cf
from tests.linear.linear_reference import cubed, gradients, problem


@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"g": cubed},
        {"label_smoothing": 0.1},
        {"alpha": torch.tensor(0.5)},
        {"z_loss": 0.1, "weight": torch.ones(11)},
    ],
)
def test_nothing_valid(rows: int, options: dict[str, object]) -> None:
    """As in F.cross_entropy: mean NaN, sum 0, none 0; the graph is connected and the gradients are 0."""
    hidden, weight, bias, target = problem(rows=rows, bias=True, ignored=1.1)
    for reduction, value in (("mean", float("nan")), ("sum", 0.0)):
        loss = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, reduction=reduction, **options)
        torch.testing.assert_close(loss, torch.tensor(value, dtype=torch.float64), equal_nan=True)
        for gradient in gradients(loss, (hidden, weight, bias)):
            assert torch.equal(gradient, torch.zeros_like(gradient))
    none = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, reduction="none", **options)
    assert torch.equal(none, torch.zeros(rows, dtype=torch.float64))
    assert gradients(none, (weight,))[0].count_nonzero() == 0


def test_class_weights_of_zero_give_torchs_nan() -> None:
    hidden, weight, _, _ = problem(rows=3)
    target, class_weight = torch.tensor([0, 1, 0]), torch.ones(11, dtype=torch.float64)
    class_weight[:2] = 0
    loss = cf.linear_crossfade_loss(hidden, weight, target, weight=class_weight)
    expected = F.cross_entropy(F.linear(hidden, weight), target, weight=class_weight)
    assert loss.isnan()
    assert expected.isnan()
    assert gradients(loss, (weight,))[0].isnan().all() == gradients(expected, (weight,))[0].isnan().all()


def test_a_g_with_a_constant_slope() -> None:
    """Label smoothing needs g' at every class; for g(ce) = ce autograd stores it as one number."""
    hidden, weight, _, target = problem()
    class_weight = torch.rand(11, dtype=torch.float64)
    loss = cf.linear_crossfade_loss(hidden, weight, target, g=lambda ce: ce, weight=class_weight, label_smoothing=0.1)
    expected = F.cross_entropy(F.linear(hidden, weight), target, class_weight, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, (hidden, weight)), gradients(expected, (hidden, weight)))


@pytest.mark.parametrize("bad", [-1, 11, -101, 2**40])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_target_out_of_range(bad: int, reduction: str) -> None:
    hidden, weight, _, target = problem()
    target[3], target[4] = bad, -100
    with pytest.raises(IndexError, match=rf"Target {bad} is out of bounds: .* \[0, 11\) or ignore_index=-100"):
        cf.linear_crossfade_loss(hidden, weight, target, reduction=reduction)


def refused(kind: type[Exception], match: str, **changes: object) -> None:
    hidden, weight, bias, target = problem(bias=True)
    arguments = {"hidden": hidden, "linear_weight": weight, "target": target, "bias": bias} | changes
    with pytest.raises(kind, match=match):
        cf.linear_crossfade_loss(**arguments)


def test_bad_arguments() -> None:
    ones = torch.ones(11, dtype=torch.float64)
    refused(RuntimeError, r"hidden \(..., D\) and linear_weight \(C, D\), got \(23, 7\)", hidden=torch.zeros(23, 7))
    refused(RuntimeError, "linear_weight", linear_weight=ones)
    refused(ValueError, r"target of shape \(23,\)", target=torch.zeros(22, dtype=torch.int64))
    refused(RuntimeError, "int64, got torch.int32", target=torch.zeros(23, dtype=torch.int32))
    refused(RuntimeError, r"class probabilities are .* shape \(23, 11\)", target=torch.rand(23, 10))
    refused(ValueError, "z_loss must be a finite number >= 0", z_loss=-1e-4)
    refused(RuntimeError, "same type, got torch.float64, torch.float32", linear_weight=torch.zeros(11, 6))
    refused(RuntimeError, "bias must have one element for each of 11 classes", bias=ones[:4])
    refused(RuntimeError, "weight must have one element for each of 11 classes", weight=ones[:4])
    refused(ValueError, "weight gets no gradient", weight=ones.clone().requires_grad_())
    refused(ValueError, r"sample_weight must have target's shape \(23,\)", sample_weight=ones)
    refused(RuntimeError, "label_smoothing must be between 0.0 and 1.0, got 1.5", label_smoothing=1.5)
    refused(ValueError, "reduction must be", reduction="avg")
    refused(ValueError, "softcap must be a positive number", softcap=0.0)
    refused(ValueError, "memory_budget_mb must be a positive number", memory_budget_mb=-3)
    refused(ValueError, "either g or alpha and beta", g=cubed, alpha=0.5)
    refused(ValueError, "alpha must be finite", alpha=float("nan"))
    refused(ValueError, r"beta must be a number or a tensor with one element, got shape \(2,\)", beta=ones[:2])
    refused(ValueError, "elementwise", g=lambda ce: ce.sum())


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", [{"alpha": 0.5, "beta": 2.0}, {"g": cubed}])
def test_stats(reduction: str, options: dict[str, object]) -> None:
    hidden, weight, _, target = problem(rows=24, ignored=0.3)
    hidden = hidden.detach().reshape(4, 6, 6).requires_grad_()
    target = target.reshape(4, 6)
    class_weight, samples = torch.rand(11, dtype=torch.float64), torch.rand(4, 6, dtype=torch.float64)
    loss, stats = cf.linear_crossfade_loss(
        hidden,
        weight,
        target,
        weight=class_weight,
        sample_weight=samples,
        reduction=reduction,
        return_stats=True,
        **options,
    )
    plain = cf.linear_crossfade_loss(
        hidden, weight, target, weight=class_weight, sample_weight=samples, reduction=reduction, **options
    )
    torch.testing.assert_close(loss, plain)
    valid = target != -100
    safe = target.masked_fill(~valid, 0)
    logits = F.linear(hidden.detach(), weight.detach())
    p = torch.where(valid, logits.softmax(-1).gather(-1, safe.unsqueeze(-1)).squeeze(-1), 0.0)
    slope = 0.5 + 2.0 * p if "alpha" in options else 3 * (1 - p) ** 2 * p
    torch.testing.assert_close(stats.p, p)
    torch.testing.assert_close(stats.ce, torch.where(valid, -p.log(), 0.0))
    torch.testing.assert_close(stats.lse, torch.where(valid, logits.logsumexp(-1), 0.0))
    torch.testing.assert_close(stats.entropy, torch.where(valid, torch.special.entr(logits.softmax(-1)).sum(-1), 0.0))
    torch.testing.assert_close(stats.row_weight, torch.where(valid, slope * class_weight[safe] * samples, 0.0))
    assert torch.equal(stats.correct, (logits.argmax(-1) == target) & valid)
    assert torch.equal(stats.valid, valid)
    torch.testing.assert_close(stats.accuracy, stats.correct.sum() / valid.sum())
    torch.testing.assert_close(stats.weight_mass, stats.row_weight.sum())
    assert not any(t.requires_grad for t in (stats.ce, stats.p, stats.row_weight))


def test_module_follows_its_schedule() -> None:
    hidden, weight, bias, target = problem(bias=True, ignored=0.2)
    criterion = cf.LinearCrossfadeLoss(cf.staircase([0.0, 0.25, 0.5]), label_smoothing=0.1, softcap=5.0)
    for progress, (alpha, beta) in ((0.0, (1.0, 1.0)), (0.5, (1.0, 2.0)), (1.0, (0.0, 1.0))):
        loss = criterion.at(progress)(hidden, weight, target, bias=bias)
        expected = cf.linear_crossfade_loss(
            hidden, weight, target, bias=bias, alpha=alpha, beta=beta, label_smoothing=0.1, softcap=5.0
        )
        torch.testing.assert_close(loss, expected)
    assert criterion.state_dict() == {}


def test_the_schedule_named_linear_survives_the_import() -> None:
    assert cf.linear(0.0, 0.5)(0.0) == cf.Weights(1.0, 1.0)
