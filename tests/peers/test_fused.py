"""What the peers of the fused loss publish about theirs: PyTorch, Liger and cut-cross-entropy.

Facts from their documentation and tests; the references are written here in float64, without the library.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf

# CE in the forms of this library: with numbers, with tensors as a schedule has them, and as a g of one's own.
CROSS_ENTROPIES: dict[str, dict[str, Any]] = {
    "numbers": {"beta": 0.0},
    "tensors": {"alpha": torch.tensor(1.0), "beta": torch.tensor(0.0)},
    "own": {"g": lambda ce: ce},
}
ONE_ROW = 1e-6


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def same(loss: Tensor, expected: Tensor, of: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(loss, expected, check_dtype=False)
    upstream = torch.rand_like(loss)
    actual, wanted = (torch.autograd.grad(x, of, upstream.to(x.dtype), retain_graph=True) for x in (loss, expected))
    torch.testing.assert_close(actual, wanted)


def plain(logits: Tensor, target: Tensor, *, g: Callable[[Tensor], Tensor] | None = None, **options: Any) -> Any:
    return (
        cf.crossfade_loss(logits, target, **options) if g is None else cf.probability_loss(g, logits, target, **options)
    )


def torch_samples() -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Any]]]:
    """Return OpInfo's samples of ``nn.functional.linear_cross_entropy``: shapes, targets and options."""
    for (shape, classes), soft, reduction in itertools.product(
        [((3,), 4), ((5, 3), 4), ((2, 1), 3), ((1, 6), 2)], (False, True), ("mean", "sum", "none")
    ):
        hidden, weight, bias = normal(*shape), normal(classes, shape[-1]), normal(classes)
        target = torch.randint(classes, shape[:-1])
        if soft:
            target = torch.rand(*shape[:-1], classes, dtype=torch.float64)  # it needs no sum of 1
        class_weight = torch.rand(classes, dtype=torch.float64) * 1.5 + 0.5
        for options in (
            {},
            {"weight": class_weight},
            {"linear_bias": bias},
            {"weight": class_weight, "linear_bias": bias},
        ):
            yield hidden, weight, target, options | {"reduction": reduction}
        if not soft:
            yield hidden, weight, target, {"ignore_index": 1, "reduction": reduction}


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_samples_of_linear_cross_entropy(name: str) -> None:
    """PyTorch: OpInfo of ``F.linear_cross_entropy``. Unbatched input too, and class probabilities of any sum."""
    torch.manual_seed(0)
    theirs = getattr(F, "linear_cross_entropy", None)  # torch 2.12 and later
    for hidden, weight, target, options in torch_samples():
        ours = {("bias" if key == "linear_bias" else key): value for key, value in options.items()}
        bias = ours.get("bias")
        loss = cf.linear_crossfade_loss(
            hidden, weight, target, memory_budget_mb=ONE_ROW, **ours, **CROSS_ENTROPIES[name]
        )
        without_bias = {key: value for key, value in ours.items() if key != "bias"}
        expected = F.cross_entropy(F.linear(hidden, weight, bias), target, **without_bias)
        if expected.isnan().any():  # every target is ignored: where the sample has none, OpInfo puts one in
            continue
        of = (hidden, weight) if bias is None else (hidden, weight, bias)
        same(loss, expected, of)
        if theirs is not None:
            same(loss, theirs(hidden, weight, target, **options), of)


def with_z_loss(logits: Tensor, target: Tensor, scale: float, reduction: str, **options: Any) -> tuple[Tensor, Tensor]:
    """Return Liger's total loss and its z-loss: the mean of the latter is over the targets that aren't ignored."""
    valid = target != options["ignore_index"]
    z_loss = torch.where(valid, scale * logits.logsumexp(-1) ** 2, 0.0)
    if reduction != "none":
        z_loss = z_loss.sum() / (valid.sum() if reduction == "mean" else 1)
    return F.cross_entropy(logits, target, reduction=reduction, **options) + z_loss, z_loss


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@pytest.mark.parametrize("rows", [6, 2000])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_liger_s_z_loss_softcap_and_accuracy(name: str, rows: int, reduction: str) -> None:
    """Liger: lse_square_scale, softcap (30), label_smoothing, ce_weight, ignore_index, return_z_loss, token accuracy.

    The softcap comes before everything, and the z-loss isn't multiplied by the class weight (test_cross_entropy.py).
    """
    torch.manual_seed(0)
    hidden, weight, bias, target = normal(rows, 5), normal(9, 5), normal(9), torch.randint(9, (rows,))
    for scale, softcap, smoothing, class_weight, ignored in itertools.product(
        (1e-4, 1e-1), (None, 30.0), (0.0, 0.1), (None, torch.rand(9, dtype=torch.float64)), (2, -123)
    ):
        target[1] = ignored
        options = {"weight": class_weight, "label_smoothing": smoothing, "ignore_index": ignored}
        logits = F.linear(hidden, weight, bias)
        capped = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        expected, z_loss = with_z_loss(capped, target, scale, reduction, **options)
        options |= {"z_loss": scale, "softcap": softcap, "reduction": reduction, "return_stats": True}
        fused, stats = cf.linear_crossfade_loss(hidden, weight, target, bias=bias, **options, **CROSS_ENTROPIES[name])
        same(fused, expected, (hidden, weight, bias))
        loss, same_stats = plain(logits, target, **options, **CROSS_ENTROPIES[name])
        same(loss, expected, (hidden, weight, bias))
        valid = target != ignored
        for of in (stats, same_stats):
            reduced = {"none": of.z_loss, "sum": of.z_loss.sum(), "mean": of.z_loss.sum() / of.valid.sum()}[reduction]
            torch.testing.assert_close(reduced, z_loss.detach())
            torch.testing.assert_close(of.accuracy, (capped.argmax(1) == target)[valid].float().mean())
    target[1] = 0


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cut_cross_entropy_s_shift_and_softcap(name: str, reduction: str) -> None:
    """cut-cross-entropy: e (4, T, D), shift 0 and 2, softcap 20, a fifth of the targets ignored, with and without bias.

    With ``reduction="none"`` the losses have the shape of ``targets[..., shift:]`` (tests/test_cce_loss_forward.py).
    """
    torch.manual_seed(0)
    e, c, bias, targets = normal(4, 16, 6), normal(11, 6), normal(11), torch.randint(11, (4, 16))
    targets[torch.rand(4, 16) < 0.2] = -100
    for shift, softcap, b in itertools.product((0, 1, 2, 15), (None, 20.0), (None, bias)):
        logits = F.linear(e, c, b)
        early = logits[:, : 16 - shift]
        capped = early if softcap is None else torch.tanh(early / softcap) * softcap
        later = targets[:, shift:]
        expected = F.cross_entropy(capped.flatten(0, 1), later.flatten(), reduction=reduction)
        expected = expected.view(4, 16 - shift) if reduction == "none" else expected
        options = {"softcap": softcap, "reduction": reduction, **CROSS_ENTROPIES[name]}
        of = (e, c) if b is None else (e, c, bias)
        same(cf.linear_crossfade_loss(e, c, targets, bias=b, shift=shift, **options), expected, of)
        if shift:  # the plain loss has the classes last only with a shift
            same(plain(logits, targets, shift=shift, **options), expected, of)


def test_cut_cross_entropy_s_shift_is_a_number_of_positions() -> None:
    """It refuses what isn't in [0, T)."""
    hidden, weight, target = normal(2, 3, 4), normal(5, 4), torch.zeros(2, 3, dtype=torch.long)
    assert cf.linear_crossfade_loss(hidden, weight, target, shift=True) == cf.linear_crossfade_loss(
        hidden, weight, target, shift=1
    )
    for loss in (partial(cf.linear_crossfade_loss, hidden, weight), partial(cf.crossfade_loss, hidden @ weight.T)):
        for bad in (-1, 3):
            with pytest.raises(ValueError, match=r"shift must be in \[0, 3\)"):
                loss(target, shift=bad)


def test_cut_cross_entropy_s_z_loss_from_lse() -> None:
    """README: ``lse`` is returned beside the loss, and ``lse.pow(2).mean()`` is the z-loss where nothing is ignored."""
    torch.manual_seed(0)
    hidden, weight, target = normal(8, 4), normal(5, 4), torch.randint(5, (8,))
    loss, stats = cf.linear_crossfade_loss(hidden, weight, target, beta=0.0, z_loss=0.3, return_stats=True)
    torch.testing.assert_close(stats.lse, (hidden @ weight.T).logsumexp(1).detach())
    expected = F.cross_entropy(hidden @ weight.T, target) + 0.3 * stats.lse.pow(2).mean()
    torch.testing.assert_close(loss, expected)
