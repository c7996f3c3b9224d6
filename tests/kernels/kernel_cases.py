"""The kernels against PyTorch: on a CUDA device where there is one, in Triton's interpreter on the CPU otherwise.

``TRITON_INTERPRET=1`` must be set before Triton is imported, so that test_kernels.py runs these cases in a process of
their own. On a machine with a GPU: ``python -m pytest tests/kernels/kernel_cases.py``.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

import crossfade as cf
from crossfade import _heart, _linear, kernels
from crossfade._row import row_of
from crossfade.objectives import deft, entropy_gated
from tests.examples import examples

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
pytestmark = pytest.mark.skipif(
    not GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a GPU or TRITON_INTERPRET=1"
)
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def batch(rows: int, classes: int, dtype: torch.dtype, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, classes, generator=generator) * scale).to(DEVICE, dtype).requires_grad_()
    return logits, torch.randint(classes, (rows,), generator=generator).to(DEVICE)


def exact(logits: Tensor, target: Tensor, upstream: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().double().requires_grad_()
    ce = F.cross_entropy(leaf, target, ignore_index=ignore_index, reduction="none")
    return ce.detach(), torch.autograd.grad(ce, leaf, upstream.double())[0]


def check(logits: Tensor, target: Tensor, **options: Any) -> None:
    upstream = torch.linspace(-1, 2, len(target), device=DEVICE)
    ce = kernels.ce_rows(logits, target, **options)
    (gradient,) = torch.autograd.grad(ce, logits, upstream)
    expected, slope = exact(logits, target, upstream, options.get("ignore_index", -100))
    assert ce.dtype == torch.float32
    assert gradient.dtype == logits.dtype
    torch.testing.assert_close(ce.double(), expected, rtol=2e-6, atol=2e-6)
    unit = torch.finfo(logits.dtype).eps
    torch.testing.assert_close(gradient.double(), slope, rtol=max(2 * unit, 1e-5), atol=2e-7)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 127, 128, 129, 5000, 8192, 20000])
def test_losses_and_gradients(dtype: torch.dtype, classes: int) -> None:
    check(*batch(5, classes, dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_vocabulary(dtype: torch.dtype) -> None:
    check(*batch(1, 262_144, dtype))


@examples(40)
@given(
    rows=st.integers(0, 4),
    classes=st.integers(1, 300),
    scale=st.sampled_from([0.0, 1.0, 50.0]),
    dtype=st.sampled_from(TYPES),
    ignore_index=st.sampled_from([-100, 0]),
    seed=st.integers(0, 1000),
)
def test_any_shape(rows: int, classes: int, scale: float, dtype: torch.dtype, ignore_index: int, seed: int) -> None:
    check(*batch(rows, classes, dtype, scale, seed), ignore_index=ignore_index)


def test_ignored_rows_have_no_loss_and_no_gradient() -> None:
    logits, target = batch(6, 50, torch.float32)
    target[2] = -100
    with torch.no_grad():
        logits[2] = float("nan")
    ce = kernels.ce_rows(logits, target)
    (gradient,) = torch.autograd.grad(ce.sum(), logits)
    assert ce[2] == 0
    assert gradient[2].count_nonzero() == 0
    assert gradient.isfinite().all()


def test_extreme_logits() -> None:
    inf, big = float("inf"), 3e38
    rows = [
        [0.0, -inf, 1.0, -inf],  # classes that are masked out
        [-inf, -inf, 5.0, -inf],  # certain
        [-inf, 0.0, 1.0, 2.0],  # p_y = 0: ce is inf
        [-inf] * 4,
        [float("nan"), 0.0, 0.0, 0.0],
        [big, -big, 0.0, 0.0],
        [-big] * 4,
        [1e4, 1e4, -1e4, 0.0],
    ]
    logits = torch.tensor(rows, device=DEVICE)
    target = torch.tensor([0, 2, 0, 1, 1, 0, 3, 0], device=DEVICE)
    expected = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(kernels.ce_rows(logits, target), expected, equal_nan=True)
    leaf, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(kernels.ce_rows(leaf, target).sum(), leaf)
    (wanted,) = torch.autograd.grad(F.cross_entropy(other, target, reduction="sum"), other)
    finite = expected.isfinite()
    torch.testing.assert_close(gradient[finite], wanted[finite])


def test_target_out_of_range_gives_nan_and_reads_nothing_outside() -> None:
    logits, target = batch(4, 10, torch.float32)
    target[0], target[1] = 10, -1
    ce = kernels.ce_rows(logits, target)
    assert ce[:2].isnan().all()
    assert ce[2:].isfinite().all()


def test_digits_of_a_nearly_certain_row() -> None:
    """1 - p_y = 1e-9: p_y - 1 is 0 in float32, expm1(-ce) isn't."""
    logits = torch.tensor([[0.0, -20.72326583694641]], device=DEVICE, requires_grad=True)
    ce = kernels.ce_rows(logits, torch.tensor([0], device=DEVICE))
    (gradient,) = torch.autograd.grad(ce.sum(), logits)
    # The forward's sum 1 + 1e-9 is 1 in float32, as F.cross_entropy's is; the other class keeps its digits.
    torch.testing.assert_close(gradient[0, 1].item(), 1e-9, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", TYPES)
def test_offsets_beyond_two_to_the_31(dtype: torch.dtype) -> None:
    """Two rows that lie more than 2^31 elements apart, for the losses and, in place, for the gradient."""
    classes, stride = 1000, 2**31 + 64
    memory = torch.empty(stride + classes, dtype=dtype, device=DEVICE)  # on the CPU only the touched pages are real
    logits = memory.as_strided((2, classes), (stride, 1))
    values, target = batch(2, classes, dtype)
    logits.copy_(values.detach())
    logits.requires_grad_()
    ce = kernels.ce_rows(logits * 1.0 if GPU else logits, target)
    expected, slope = exact(values, target, torch.ones(2, device=DEVICE))
    torch.testing.assert_close(ce.double(), expected.double(), rtol=2e-6, atol=2e-6)
    with torch.no_grad():
        ce, norm, _ = kernels.forward(logits, target)
        kernels.backward(logits, target, norm, ce, torch.ones(2, device=DEVICE), out=logits)
    torch.testing.assert_close(logits.double(), slope, rtol=max(2 * torch.finfo(dtype).eps, 1e-5), atol=2e-7)


def test_safe_by_default() -> None:
    logits, target = batch(4, 300, torch.float32)
    before = logits.detach().clone()
    ce = kernels.ce_rows(logits, target)
    first, second = (torch.autograd.grad(ce.sum(), logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits, before)


def test_in_place() -> None:
    leaf, target = batch(4, 300, torch.float32)
    _, slope = exact(leaf, target, torch.ones(4, device=DEVICE))
    logits = leaf * 1.0
    address = logits.data_ptr()
    taken: list[int] = []
    logits.register_hook(lambda gradient: taken.append(gradient.data_ptr()))
    ce = kernels.ce_rows(logits, target, inplace=True)
    ce.sum().backward(retain_graph=True)
    torch.testing.assert_close(leaf.grad.double(), slope, rtol=1e-5, atol=1e-6)
    assert taken == [address]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ce.sum().backward()


def test_in_place_is_noticed_by_others_who_need_the_logits() -> None:
    leaf, target = batch(4, 300, torch.float32)
    logits = leaf * 1.0
    needs_logits = logits.square().sum()
    kernels.ce_rows(logits, target, inplace=True).sum().backward(inputs=[leaf], retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        needs_logits.backward(inputs=[leaf])


def test_second_derivative() -> None:
    logits, target = batch(3, 20, torch.float32)
    (gradient,) = torch.autograd.grad(kernels.ce_rows(logits, target).sum(), logits, create_graph=True)
    (got,) = torch.autograd.grad(gradient.square().sum(), logits)
    leaf = logits.detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(leaf, target, reduction="sum"), leaf, create_graph=True)
    (wanted,) = torch.autograd.grad(slope.square().sum(), leaf)
    torch.testing.assert_close(got, wanted)


def test_refusals() -> None:
    logits, target = batch(4, 10, torch.float32)
    for bad in (logits.double(), logits.t(), logits[0], logits.unsqueeze(0)):
        assert not kernels.available(bad)
        with pytest.raises(ValueError, match=r"torch\.nn\.functional\.cross_entropy"):
            kernels.ce_rows(bad, target)
    with pytest.raises(ValueError, match=r"target must be int64 of shape \(4,\)"):
        kernels.ce_rows(logits, target[:3])


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"weight": torch.rand(400)}, {"alpha": torch.tensor(0.5)}]
)
def test_losses_use_the_kernels(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    options = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in options.items()}
    logits, target = batch(6, 400, torch.float32)
    target[0] = -100
    served: list[int] = []
    plain = kernels.ce_and_statistics

    def counted(*arguments: Any, **keywords: Any) -> Any:
        served.append(1)
        return plain(*arguments, **keywords)

    monkeypatch.setattr(kernels, "ce_and_statistics", counted)
    monkeypatch.setattr(_heart, "_FEW_LOGITS", 0)
    monkeypatch.setattr(_heart, "fast_applies", lambda *_: False)
    loss = cf.crossfade_loss(logits, target, beta=2.0, **options)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert served == [1]
    leaf = logits.detach().double().requires_grad_()
    expected = cf.crossfade_loss(leaf, target, beta=2.0, **options)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), torch.autograd.grad(expected, leaf)[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 129, 5000])
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_statistics_of_the_row(dtype: torch.dtype, classes: int, softcap: float | None) -> None:
    """From the pass that computes ce: with a common offset, classes without probability, and an ignored row."""
    logits, target = batch(6, classes, dtype)
    with torch.no_grad():
        logits[0] += 1e4
        logits[1, : classes // 2] = -float("inf")
        logits[2] = torch.linspace(0, 40, classes)
    target[3] = -100
    names = ("entropy", "collision", "max_p", "is_max")
    found = kernels.forward(logits.detach(), target, ignore_index=-100, softcap=softcap, asked=names)[2]
    capped = logits.detach().double()
    capped = capped if softcap is None else softcap * torch.tanh(capped / softcap)
    kept = target != -100
    expected = row_of(capped[kept], target[kept])
    for name in names:
        torch.testing.assert_close(found[name][kept].double(), getattr(expected, name).double(), rtol=2e-6, atol=2e-6)


def test_only_what_is_asked_for() -> None:
    logits, target = batch(4, 50, torch.float32)
    assert "entropy" not in kernels.forward(logits.detach(), target, asked=("collision",))[2]


@pytest.mark.parametrize("g", [deft(), entropy_gated()])
def test_losses_of_the_row(g: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On logits and fused with the projection: nothing computes a softmax but the kernels."""
    monkeypatch.setattr(_heart, "fast_applies", lambda *_: False)
    logits, target = batch(9, 300, torch.float32)
    target[2] = -100
    expected = cf.probability_loss(g, logits.double(), target)
    (wanted,) = torch.autograd.grad(expected, logits)
    hidden, weight = torch.eye(9, device=DEVICE), logits.detach().t().contiguous().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "softmax", None)
        loss = cf.probability_loss(g, logits, target)
        fused = cf.linear_crossfade_loss(hidden, weight, target, g=g)
    for got, leaf in ((loss, logits), (fused, weight)):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(got, leaf)
        torch.testing.assert_close(gradient if leaf is logits else gradient.t(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("softcap", [None, 4.0])
@pytest.mark.parametrize(("reduction", "z_loss"), [("mean", 0.0), ("mean", 0.1), ("none", 0.1)])
@pytest.mark.parametrize(("rows", "dim"), [(24, 16), (62, 24), (23, 64)])
def test_fused_linear(
    dtype: torch.dtype,
    softcap: float | None,
    reduction: str,
    z_loss: float,
    rows: int,
    dim: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """linear_crossfade_loss with the kernels agrees with its PyTorch form; half types pass over the classes once more.

    With more than 16 columns the first pass's logits lie where the weight's gradient will be.
    """
    monkeypatch.setattr(_linear, "compute_type", lambda *_: dtype)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator).to(DEVICE, dtype).requires_grad_()
        for shape in ((rows, dim), (300, dim), (300,))
    )
    target = torch.randint(300, (rows,), generator=generator).to(DEVICE)
    target[::5] = -100
    options = {"bias": bias, "softcap": softcap, "reduction": reduction, "memory_budget_mb": 0.01, "beta": 2.0}
    options["z_loss"] = z_loss
    calls: list[int] = []
    backward = kernels.backward

    def counted(*arguments: Any, **keywords: Any) -> Tensor:
        calls.append(1)
        return backward(*arguments, **keywords)

    def results() -> tuple[Tensor, ...]:
        loss, stats = cf.linear_crossfade_loss(hidden, weight, target, return_stats=True, **options)
        of_rows = (stats.entropy, stats.lse, stats.p)
        return loss.detach(), *of_rows, *torch.autograd.grad(loss.sum(), (hidden, weight, bias))

    monkeypatch.setattr(kernels, "backward", counted)
    with_kernels = results()
    assert len(calls) > 1
    calls.clear()
    monkeypatch.setattr(kernels, "usable", lambda _: False)
    without = results()
    assert not calls
    unit = torch.finfo(dtype).eps
    for got, wanted in zip(with_kernels, without, strict=True):
        assert (got - wanted).double().norm() <= max(unit, 1e-6) * wanted.double().norm()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_z_loss(dtype: torch.dtype, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels serve the derivative by lse: of the loss with z_loss, of lse alone, and of the gradient."""
    logits, target = batch(9, 300, dtype)
    target[2] = -100
    weight = torch.rand(300, device=DEVICE) + 0.5
    leaf, wide = logits.detach().requires_grad_(), logits.detach().double().requires_grad_()
    with monkeypatch.context() as patch:  # nothing else computes the logsumexp
        patch.setattr(torch, "logsumexp", None)
        options = {"beta": 2.0, "z_loss": 0.1, "weight": weight, "reduction": reduction}
        loss = cf.crossfade_loss(leaf, target, **options)
    expected = cf.crossfade_loss(wide, target, **options | {"weight": weight.double()})
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), wide, retain_graph=True)
    torch.testing.assert_close(gradient.double(), wanted, rtol=max(1e-5, 2 * torch.finfo(dtype).eps), atol=1e-6)
    _, lse, _ = kernels.ce_and_statistics(leaf, target)
    (gradient,) = torch.autograd.grad(lse.sum(), leaf)
    p = wide.softmax(1).masked_fill((target == -100).unsqueeze(1), 0.0)
    torch.testing.assert_close(gradient.double(), p.detach(), rtol=max(1e-5, 2 * torch.finfo(dtype).eps), atol=1e-7)
    if dtype == torch.float32:
        twice, same = (
            torch.autograd.grad(torch.autograd.grad(x.sum(), of, create_graph=True)[0].square().sum(), of)[0]
            for x, of in ((loss, leaf), (expected, wide))
        )
        torch.testing.assert_close(twice.double(), same, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_host_never_waits() -> None:
    logits, target = batch(64, 1000, torch.bfloat16)
    alpha = torch.tensor(0.5, device=DEVICE)
    cf.crossfade_loss(logits, target, alpha=alpha).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        cf.crossfade_loss(logits, target, alpha=alpha).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
