"""softcap, z_loss, shift and return_stats of the losses g(ce), against the same in readable float64."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

import crossfade as cf
from crossfade.functional import LossStats
from tests.core.cases import CASES, FORMULAS
from tests.examples import examples

FAMILY = [name for name in CASES if name not in ("complement", "mpce")]
SMALL, LARGE = 6, 3000
FIELDS = ("ce", "p", "entropy", "lse", "correct", "row_weight", "valid", "z_loss")


def batch(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = (torch.randn(shape[0], 7, *shape[1:], dtype=torch.float64) * 3).to(dtype)
    target = torch.randint(7, shape)
    target.view(-1)[1] = -100
    return logits.requires_grad_(), target


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", FAMILY)
def test_softcap_and_z_loss(name: str, rows: int) -> None:
    logits, target = batch(rows)
    weight = torch.rand(7, dtype=torch.float64) + 0.5
    soft = torch.rand(rows, 7, dtype=torch.float64)
    capped = 2.0 * torch.tanh(logits / 2.0)
    lse2 = capped.logsumexp(1) ** 2
    for of, reduction, smoothing in itertools.product((target, soft), ("mean", "sum", "none"), (0.0, 0.1)):
        options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
        loss = CASES[name](logits, of, softcap=2.0, z_loss=0.01, **options)
        extra = lse2 if of is soft else lse2.masked_fill(target == -100, 0.0)
        count = rows if of is soft else rows - 1
        extra = {"mean": extra.sum() / count, "sum": extra.sum(), "none": extra}[reduction]
        expected = CASES[name](capped, of, **options) + 0.01 * extra
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient(loss.sum(), logits), gradient(expected.sum(), logits))


def shifted(loss: Callable[..., Any], logits: Tensor, target: Tensor, k: int, **options: Any) -> Any:
    """Return the loss of logits (..., T, C) row by row, without the option."""
    soft = target.dim() == logits.dim()
    logits, target = logits[..., :-k, :], target[..., k:, :] if soft else target[..., k:]
    flat = loss(logits.reshape(-1, 7), target.reshape(-1, *target.shape[target.dim() - soft :]), **options)
    return flat.reshape(logits.shape[:-1]) if options.get("reduction") == "none" else flat


@pytest.mark.parametrize("shape", [(5,), (2, 7), (40, 70), (2, 3, 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_shift(shape: tuple[int, ...], k: int) -> None:
    """Also where T = C = 7: with a shift the classes are always the last dimension."""
    torch.manual_seed(0)
    logits = torch.randn(*shape, 7, dtype=torch.float64).requires_grad_()
    target, soft = torch.randint(7, shape), torch.rand(*shape, 7, dtype=torch.float64)
    target.view(-1)[-1] = 255
    for name, of, reduction in itertools.product(("f0", "focal"), (target, soft), ("mean", "sum", "none")):
        options: dict[str, Any] = {"reduction": reduction, "weight": torch.rand(7).double() + 0.1}
        if of is target:
            options["ignore_index"] = 255
        loss = CASES[name](logits, of, shift=k, **options)
        expected = shifted(CASES[name], logits, of, k, **options)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient(loss.sum(), logits), gradient(expected.sum(), logits))
        if of is target:
            torch.testing.assert_close(CASES[name](logits, of.byte(), shift=k, **options), expected)
    _, stats = cf.crossfade_loss(logits, target, shift=k, ignore_index=255, return_stats=True)
    assert stats.ce.shape == stats.valid.shape == (*shape[:-1], shape[-1] - k)
    assert int(stats.valid.sum()) == stats.valid.numel() - 1


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", FAMILY)
def test_statistics(name: str, rows: int) -> None:
    logits, target = batch(rows)
    weight = torch.rand(7, dtype=torch.float64) + 0.5
    valid, index = target != -100, target.clamp(min=0)
    loss, stats = CASES[name](logits, target, weight=weight, z_loss=0.1, return_stats=True)
    assert isinstance(stats, LossStats)
    torch.testing.assert_close(loss, CASES[name](logits, target, weight=weight, z_loss=0.1))
    p = logits.detach().softmax(1)
    p_y = p.gather(1, index.unsqueeze(1)).squeeze(1).requires_grad_()
    slope = -p_y * gradient(FORMULAS[name](p_y, index).sum(), p_y)
    expected = {
        "ce": -p_y.detach().log(),
        "p": p_y.detach(),
        "entropy": -(p * p.log()).sum(1),
        "lse": logits.detach().logsumexp(1),
        "correct": p.argmax(1) == index,
        "row_weight": slope * weight[index],
        "valid": valid,
        "z_loss": 0.1 * logits.detach().logsumexp(1) ** 2,
    }
    for field, values in expected.items():
        torch.testing.assert_close(
            getattr(stats, field), values.masked_fill(~valid, 0), msg=lambda m, f=field: f"{f}: {m}"
        )
        assert not getattr(stats, field).requires_grad
    torch.testing.assert_close(stats.accuracy, (expected["correct"] & valid).sum() / valid.sum())


def test_statistics_of_the_plain_and_the_fused_loss_are_the_same() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(4, 6, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    target, soft = torch.randint(7, (4, 6)), torch.rand(4, 6, 7, dtype=torch.float64)
    target[1, 2] = -100
    for of, smoothing, g in itertools.product((target, soft), (0.0, 0.2), (None, torch.sqrt)):
        options = {"shift": 1, "softcap": 3.0, "z_loss": 0.1, "label_smoothing": smoothing, "return_stats": True}
        options["weight"] = torch.rand(7, dtype=torch.float64) + 0.5
        loss, fused = cf.linear_crossfade_loss(hidden, weight, of, g=g, **options)
        plain_loss = cf.crossfade_loss if g is None else partial(cf.probability_loss, g)
        expected, plain = plain_loss(hidden @ weight.T, of, **options)
        torch.testing.assert_close(loss, expected)
        for field in FIELDS:
            torch.testing.assert_close(getattr(fused, field), getattr(plain, field), msg=lambda m, f=field: f"{f}: {m}")


@examples(60)
@given(
    st.integers(1, 4), st.integers(2, 6), st.integers(1, 5), st.booleans(), st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([None, 0.5, 30.0]), st.sampled_from([0.0, 0.1]), st.integers(0, 5), st.integers(0, 1000),
)  # fmt: skip
def test_plain_and_fused_losses_agree(
    n: int,
    positions: int,
    classes: int,
    soft: bool,
    reduction: str,
    softcap: float,
    z_loss: float,
    shift: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    hidden, weight = torch.randn(n, positions, 3, dtype=torch.float64), torch.randn(classes, 3, dtype=torch.float64)
    target = torch.randint(-1, classes, (n, positions))
    target = torch.rand(n, positions, classes, dtype=torch.float64) if soft else target
    options = {"softcap": softcap, "z_loss": z_loss, "reduction": reduction, "shift": max(1, shift % positions)}
    options |= {} if soft else {"ignore_index": -1}
    hidden.requires_grad_()
    fused = cf.linear_crossfade_loss(hidden, weight, target, **options)
    plain = cf.crossfade_loss(hidden @ weight.T, target, **options)
    torch.testing.assert_close(fused, plain, equal_nan=True)
    torch.testing.assert_close(gradient(fused.sum(), hidden), gradient(plain.sum(), hidden))


def everything(logits: Tensor, target: Tensor, loss: Callable[..., Any] = cf.crossfade_loss) -> tuple[Tensor, Tensor]:
    value, stats = loss(logits, target, softcap=3.0, z_loss=0.1, shift=1, return_stats=True)
    return value, torch.stack([getattr(stats, field).double() for field in FIELDS])


@pytest.mark.parametrize("loss", [cf.crossfade_loss, cf.focal_loss])
def test_transforms(loss: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, 7, dtype=torch.float64), torch.randint(7, (5,))
    soft = torch.rand(5, 7, dtype=torch.float64)
    for of in (target, soft):
        both = torch.func.vmap(torch.func.grad(partial(everything, loss=loss), has_aux=True), (0, None))(logits, of)
        for k in range(3):
            leaf = logits[k].clone().requires_grad_()
            value, stats = everything(leaf, of, loss)
            torch.testing.assert_close((both[0][k], both[1][k]), (gradient(value, leaf), stats))
            assert torch.autograd.gradgradcheck(lambda x, of=of: everything(x, of, loss)[0], leaf)


def test_compiled_in_one_graph() -> None:
    torch.compiler.reset()
    logits, target = torch.randn(4, 5, 7, requires_grad=True), torch.randint(7, (4, 5))
    criterion = cf.CrossfadeLoss(softcap=3.0, z_loss=0.1, shift=1)

    def step(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, stats = criterion(logits, target, return_stats=True)
        focal, of_focal = cf.focal_loss(logits, target, z_loss=0.1, shift=2, return_stats=True)
        return value + focal, stats.weight_mass + of_focal.weight_mass

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), step(logits, target))
    torch.testing.assert_close(gradient(compiled(logits, target)[0], logits), gradient(step(logits, target)[0], logits))
    torch.compiler.reset()


class WithStatistics(torch.nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, cf.functional.LossStats]:
        return cf.crossfade_loss(logits, target, z_loss=0.1, return_stats=True)


def test_statistics_pass_through_transforms_compilers_and_export() -> None:
    module, (logits, target) = WithStatistics(), batch(4, 5)
    expected = module(logits, target)
    torch.compiler.reset()
    rows = {0: torch.export.Dim("rows")}
    exported = torch.export.export(module, batch(3, 5), dynamic_shapes=(rows, rows))
    torch.export.save(exported, file := io.BytesIO())
    file.seek(0)
    twice = torch.func.vmap(module)(torch.stack([logits, logits]), torch.stack([target, target]))
    for value, stats in (
        torch.compile(module, fullgraph=True, backend="aot_eager")(logits, target),
        exported.module()(logits, target),
        torch.export.load(file).module()(logits, target),
        torch.utils._pytree.tree_map(lambda both: both[1], twice),
    ):
        assert isinstance(stats, cf.functional.LossStats)
        torch.testing.assert_close((value, vars(stats)), (expected[0], vars(expected[1])))
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_half_precision(dtype: torch.dtype, rows: int) -> None:
    logits, target = batch(rows, dtype=dtype)
    options = {"softcap": 3.0, "z_loss": 0.01}
    wide = logits.detach().double().requires_grad_()
    loss, exact = (cf.crossfade_loss(x, target, **options) for x in (logits, wide))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    actual, expected = gradient(loss, logits), gradient(exact, wide)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradients_of_a_loss_and_its_z_loss_are_rounded_together(smoothing: float, rows: int) -> None:
    logits, target = batch(rows, dtype=torch.bfloat16)
    wide = logits.detach().double().requires_grad_()
    actual, expected = (
        gradient(cf.crossfade_loss(x, target, z_loss=0.05, label_smoothing=smoothing, reduction="sum"), x)
        for x in (logits, wide)
    )
    # bfloat16 has 8 binary digits: half of the last one.
    torch.testing.assert_close(actual.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_an_empty_batch_of_sequences(soft: bool) -> None:
    logits, target = torch.zeros(0, 5, 7), torch.zeros(0, 5, *[7] * soft, dtype=torch.float if soft else torch.long)
    loss, stats = cf.crossfade_loss(logits, target, shift=2, z_loss=0.1, reduction="none", return_stats=True)
    assert loss.shape == stats.entropy.shape == (0, 3)


def test_nothing_valid() -> None:
    logits, target = batch(4)
    target.fill_(-100)
    loss, stats = cf.crossfade_loss(logits, target, z_loss=0.1, softcap=2.0, return_stats=True)
    assert loss.isnan()
    assert stats.accuracy.isnan()
    assert (gradient(loss, logits) == 0).all()
    assert cf.crossfade_loss(logits, target, z_loss=0.1, reduction="sum") == 0


def test_unbatched_logits_and_images() -> None:
    for shape, rest in (((7,), ()), ((2, 7, 3, 4), (2, 3, 4))):
        torch.manual_seed(0)
        logits, target = torch.randn(shape, dtype=torch.float64), torch.randint(7, rest)
        dim = 0 if len(shape) == 1 else 1
        loss, stats = cf.expectation_loss(logits, target, z_loss=0.5, reduction="none", return_stats=True)
        expected = cf.expectation_loss(logits, target, reduction="none") + 0.5 * logits.logsumexp(dim) ** 2
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(stats.ce, F.cross_entropy(logits, target, reduction="none"))


def test_criteria_take_the_options() -> None:
    torch.manual_seed(0)
    hidden, lm_head, target = torch.randn(2, 5, 4), torch.randn(7, 4), torch.randint(7, (2, 5))
    options = {"softcap": 3.0, "z_loss": 0.1, "shift": 1, "ignore_index": int(target[0, 2]), "label_smoothing": 0.1}
    plain, fused = cf.CrossfadeLoss(cf.constant(0.25), **options), cf.LinearCrossfadeLoss(cf.constant(0.25), **options)
    expected = cf.crossfade_loss(hidden @ lm_head.T, target, beta=2.0, **options)
    torch.testing.assert_close(plain(hidden @ lm_head.T, target), expected)
    torch.testing.assert_close(fused(hidden, lm_head, target), expected)
    assert set(plain.state_dict()) == set()


def test_mistakes() -> None:
    logits, target = torch.zeros(2, 5, 7), torch.zeros(2, 5, dtype=torch.long)
    for bad, match in (
        ({"softcap": 0.0}, "softcap must be a positive number or None, got 0"),
        ({"softcap": float("inf")}, "softcap must be a positive number"),
        ({"z_loss": -1.0}, "z_loss must be a finite number >= 0, got -1"),
        ({"shift": -1}, r"shift must be in \[0, 5\), the number of positions, got -1"),
        ({"shift": 5}, r"shift must be in \[0, 5\), the number of positions, got 5"),
        ({"shift": 1.5}, r"shift must be in \[0, 5\), the number of positions, got 1.5"),
        ({"shift": "1"}, r"shift must be in \[0, 5\), the number of positions, got '1'"),
        ({"alpha": "1"}, r"alpha must be finite .* got '1'"),
        ({"z_loss": "1"}, "z_loss must be a finite number >= 0, got '1'"),
    ):
        with pytest.raises(ValueError, match=match):
            cf.crossfade_loss(logits, target, **bad)
        with pytest.raises(ValueError, match=match):
            cf.linear_crossfade_loss(logits, torch.zeros(3, 7), target, **bad)
    with pytest.raises(ValueError, match=r"the classes last.*\(2, 7, 5\) and \(2, 5\).*movedim\(1, -1\)"):
        cf.crossfade_loss(logits.movedim(-1, 1), target, shift=1)
    with pytest.raises(ValueError, match="softcap must be a positive number"):
        cf.CrossfadeLoss(softcap=-1.0)
    with pytest.raises(TypeError, match="z_loss"):
        cf.mpce_loss(logits, target, z_loss=0.1)


def test_the_value_that_dft_reports() -> None:
    """Wu et al. 2025, and TRL: the mean of p * ce, whose applied gradient is that of 1 - p."""
    for rows in (SMALL, LARGE):
        logits, target = batch(rows)
        loss = cf.migrate.from_dft(reports_p_ce=True)(logits, target)
        ce = F.cross_entropy(logits, target, reduction="none")
        expected = (torch.exp(-ce).detach() * ce).sum() / (rows - 1)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits))
        torch.testing.assert_close(gradient(loss, logits), gradient(cf.migrate.from_dft()(logits, target), logits))
        _, stats = cf.expectation_loss(logits, target, return_stats=True)
        torch.testing.assert_close((stats.p * stats.ce).sum() / stats.valid.sum(), expected.detach())
