"""Values and gradients against formulas, published equations and other libraries."""

from __future__ import annotations

import itertools
import math
from functools import partial

import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import crossfade as cf
from crossfade import _fast, _heart
from crossfade._reduction import CrossEntropyOptions
from crossfade._transforms import Mixture
from crossfade.objectives import focal
from tests.core.cases import CASES, FORMULAS, p_of
from tests.examples import examples


def batch(n: int, c: int, *rest: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, c, *rest, generator=generator, dtype=torch.float64) * 3).to(dtype)
    return logits.requires_grad_(), torch.randint(c, (n, *rest), generator=generator)


@pytest.mark.parametrize("rows", [6, 5000])
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients_against_formulas(name: str, rows: int) -> None:
    logits, target = batch(rows, 7)
    loss = CASES[name](logits, target, reduction="none")
    expected = FORMULAS[name](p_of(logits, target), target)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    (actual,) = torch.autograd.grad(loss.sum(), logits)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 5.0), (0.4, 1.0)])
@pytest.mark.parametrize("rows", [5, 4000])
def test_printed_gradients(alpha: float, beta: float, rows: int) -> None:
    """Eq. (8), (10) and (13)."""
    logits, target = batch(rows, 6)
    loss = cf.crossfade_loss(logits, target, alpha=alpha, beta=beta, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, logits)
    p = logits.detach().softmax(1)
    p_y = p.gather(1, target.unsqueeze(1))
    expected = (p * (beta * p_y + alpha)).scatter(1, target.unsqueeze(1), beta * p_y**2 + p_y * (alpha - beta) - alpha)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("focus", [0.0, 0.1, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("scale", ["paper", "unit"])
def test_the_gradient_peaks_at_the_focus(focus: float, scale: str) -> None:
    """Eq. (14), on the loss itself: two classes, so that q_y - q_j is the logit of p."""
    p = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)
    logits = torch.stack([p.log() - (-p).log1p(), torch.zeros_like(p)], 1).requires_grad_()
    alpha, beta = cf.weights(focus, scale)  # type: ignore[arg-type]
    loss = cf.crossfade_loss(logits, torch.zeros(len(p), dtype=torch.long), alpha=alpha, beta=beta, reduction="sum")
    size = torch.autograd.grad(loss, logits)[0][:, 0].abs()
    assert abs(p[size.argmax()].item() - focus) <= 1.01e-4
    height = (1 - focus) ** 2 if scale == "unit" else (0.25 if focus == 0.5 else (1 - focus) ** 2 / (1 - 2 * focus))
    assert math.isclose(size.max().item(), height, rel_tol=1e-3)


def exactly(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


SHAPES = {"rows": (9, 5), "one": (1, 4), "image": (2, 4, 3, 5), "line": (3, 4, 6), "single": (4,), "one class": (5, 1)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_of_cross_entropy(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """alpha = 1, beta = 0 is F.cross_entropy bit for bit, in the forms by class and by row, with every option."""
    torch.manual_seed(1)
    classes = shape[min(1, len(shape) - 1)]
    logits = torch.randn(shape, dtype=dtype)
    index_shape = shape[:1] + shape[2:] if len(shape) > 1 else ()
    index = torch.randint(classes, index_shape)
    holes = index.clone()
    if holes.dim():
        holes.view(-1)[0] = -100
    soft = torch.rand(shape, dtype=dtype)
    weights = (None, torch.rand(classes, dtype=dtype) + 0.1)
    for target, weight, smoothing, reduction in itertools.product(
        (index, holes, soft), weights, (0.0, 0.1), ("none", "mean", "sum")
    ):
        options = {"weight": weight, "reduction": reduction}
        expected = F.cross_entropy(logits, target, label_smoothing=smoothing, **options)
        by_class = _heart.by_class(
            Mixture(1.0, 0.0), logits, target, CrossEntropyOptions(weight, -100, smoothing, reduction)
        )
        own = _heart.by_class(lambda ce: ce, logits, target, CrossEntropyOptions(weight, -100, smoothing, reduction))
        exactly(by_class, expected)
        exactly(own, expected)
        if target is not soft and not smoothing:
            by_row = _heart.by_row(lambda ce: ce, logits, target, CrossEntropyOptions(weight, reduction=reduction))
            exactly(by_row, expected)


@pytest.mark.parametrize("rows", [1, 33, 5000])
def test_bits_of_cross_entropy_by_row_in_large_batches(rows: int) -> None:
    logits, target = batch(rows, 17, dtype=torch.float32)
    weight = torch.rand(17)
    for w in (None, weight):
        for reduction in ("none", "mean", "sum"):
            expected = F.cross_entropy(logits, target, weight=w, reduction=reduction)
            exactly(
                _heart.by_row(Mixture(1.0, 0.0), logits, target, CrossEntropyOptions(w, reduction=reduction)), expected
            )


FAST = {"ce": Mixture(1.0, 0.0), "mixture": Mixture(0.3, 2.0), "el": Mixture(0.0, 1.0), "focal": focal()}
DISTRIBUTIONS = {"index": 0.0, "smoothed": 0.2, "probabilities": 0.0, "smoothed probabilities": 0.1, "half": 0.1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(300, 70), (900, 21), (3000, 7), (3, 9, 40, 30), (2, 30_000)])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("name", FAST)
def test_fast_form_agrees_with_by_class(dtype: torch.dtype, shape: tuple[int, ...], kind: str, name: str) -> None:
    """Value, gradient, both with ignored rows and class weights; a second backward pass has the first one's bits."""
    torch.manual_seed(2)
    g, smoothing = FAST[name], DISTRIBUTIONS[kind]
    if name == "focal" and kind != "index":
        return
    logits = (torch.randn(shape) * 4).to(dtype).requires_grad_()
    target = torch.randint(shape[1], shape[:1] + shape[2:])
    target.view(-1)[1::7] = -1
    ignored = -1
    if "index" not in kind and kind != "smoothed":
        target, ignored = torch.rand(shape), -100
        target = (target / target.sum(1, keepdim=True) * 1.3).to(dtype if kind == "half" else torch.float64)
    wide = logits.detach().double().requires_grad_()
    wide_target = target.double() if target.is_floating_point() else target
    for weight, reduction in itertools.product((None, torch.rand(shape[1])), ("none", "mean", "sum")):
        options = CrossEntropyOptions(weight, ignored, smoothing, reduction)  # type: ignore[arg-type]

        def readable(x: Tensor, options: CrossEntropyOptions = options) -> Tensor:
            return _heart.by_class(g, x, wide_target, options)

        loss = _fast.fast(g, logits, target, options, readable)
        assert loss is not None
        reference = readable(wide, options._replace(weight=None if weight is None else weight.double()))
        upstream = torch.rand_like(reference)
        gradient, again = (
            torch.autograd.grad(loss, logits, upstream.to(loss.dtype), retain_graph=True)[0] for _ in "12"
        )
        exactly(again, gradient)
        (expected,) = torch.autograd.grad(reference, wide, upstream)
        assert gradient.dtype == dtype
        torch.testing.assert_close(loss.double(), reference, rtol=2e-6, atol=2e-6)
        # the gradient is rounded to the half type, and so is what multiplies it
        tolerance = {torch.bfloat16: 1.2e-2, torch.float16: 1.5e-3}.get(dtype, 1e-5)
        torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=2e-6)


@pytest.mark.parametrize("target", [torch.randint(7, (3000,)), torch.rand(3000, 7).softmax(1)], ids=["index", "soft"])
def test_the_fast_form_of_target_distributions_is_taken_and_differentiated_twice(target: Tensor) -> None:
    logits = torch.randn(3000, 7, dtype=torch.float64)
    logits[0, 1] = -math.inf  # a masked class
    weight = torch.rand(7, dtype=torch.float64)
    seconds = []
    for form in (cf.crossfade_loss, partial(cf.probability_loss, lambda ce: ce - torch.expm1(-ce))):
        leaf = logits.clone().requires_grad_()
        loss = form(leaf, target, weight=weight, label_smoothing=0.1, reduction="none")[1:].sum()
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), leaf)[0][1:])
    torch.testing.assert_close(*seconds)
    for alpha, expected in ((0.0, False), (1.0, True)):
        rows = cf.crossfade_loss(
            logits.clone().requires_grad_(), target, alpha=alpha, label_smoothing=0.1, reduction="none"
        )
        assert rows[0].isinf() == expected
        assert "Fast" in str(rows.grad_fn)


@pytest.mark.parametrize("rows", [3, 6000])
def test_underflow(rows: int) -> None:
    """Where p_y < 1e-30 in float32, ce and the losses made of it agree with mpmath."""
    gaps = torch.tensor([50.0, 69.0, 70.0, 88.0, 104.0, 300.0, 9999.0])
    logits = torch.zeros(rows, 7)
    logits[:, 0] = gaps.repeat(rows)[:rows]
    logits.requires_grad_()
    target = torch.full((rows,), 3)
    ce = cf.crossfade_loss(logits, target, beta=0.0, reduction="none")
    focal_loss = cf.focal_loss(logits, target, gamma=2.0, alpha=1.0, reduction="none")
    for row in range(min(rows, 7)):
        gap = mpmath.mpf(logits[row, 0].item())
        exact = mpmath.log(6 + mpmath.exp(gap))
        assert math.isclose(ce[row].item(), float(exact), rel_tol=1e-6)
        assert math.isclose(focal_loss[row].item(), float(exact * (1 - mpmath.exp(-exact)) ** 2), rel_tol=1e-6)
    (gradient,) = torch.autograd.grad(ce.sum(), logits)
    torch.testing.assert_close(gradient[:, 3], torch.full((rows,), -1.0))


@pytest.mark.parametrize("rows", [4, 9000])
@pytest.mark.parametrize("tensors", [False, True])
def test_expectation_of_an_impossible_target_is_one(rows: int, tensors: bool) -> None:
    logits = torch.zeros(rows, 4)
    logits[:, 2] = -math.inf
    logits.requires_grad_()
    target = torch.full((rows,), 2)
    alpha, beta = (torch.tensor(0.0), torch.tensor(1.0)) if tensors else (0.0, 1.0)
    loss = cf.crossfade_loss(logits, target, alpha=alpha, beta=beta)
    assert loss.item() == 1.0
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()
    infinite = cf.crossfade_loss(logits, target)
    assert infinite.item() == math.inf
    (gradient,) = torch.autograd.grad(infinite, logits)
    torch.testing.assert_close(gradient[0] * rows, torch.tensor([1 / 3, 1 / 3, -1.0, 1 / 3]))


def test_soft_targets_expect_the_zero_one_loss() -> None:
    logits, _ = batch(6, 5)
    soft = torch.rand(6, 5, dtype=torch.float64).softmax(1)
    p = logits.softmax(1)
    torch.testing.assert_close(cf.expectation_loss(logits, soft), (1 - (soft * p).sum(1)).mean())
    mixture = cf.crossfade_loss(logits, soft, alpha=1.0, beta=2.0)
    torch.testing.assert_close(mixture, F.cross_entropy(logits, soft) + 2 * (1 - (soft * p).sum(1)).mean())


def test_learnable_weights_have_gradients() -> None:
    for rows in (5, 5000):
        logits, target = batch(rows, 6)
        alpha = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        cf.crossfade_loss(logits, target, alpha=alpha, beta=1.0).backward()
        torch.testing.assert_close(alpha.grad, F.cross_entropy(logits, target).detach())
        q = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        cf.probability_loss(lambda ce: q * ce, logits, target).backward()  # noqa: B023
        torch.testing.assert_close(q.grad, F.cross_entropy(logits, target).detach())


BAD_ARGUMENTS = {
    "target out of range": (torch.randn(4, 3), torch.tensor([0, 1, 2, 3]), {}),
    "target below 0": (torch.randn(4, 3), torch.tensor([0, 1, 2, -1]), {}),
    "batch": (torch.randn(4, 3), torch.tensor([0, 1]), {}),
    "spatial": (torch.randn(4, 3, 5), torch.zeros(4, 6, dtype=torch.long), {}),
    "0-dim logits": (torch.tensor(1.0), torch.tensor(0), {}),
    "index dtype": (torch.randn(4, 3), torch.zeros(4), {}),
    "integer probabilities": (torch.randn(4, 3), torch.zeros(4, 3, dtype=torch.long), {}),
    "ignored probabilities": (torch.randn(4, 3), torch.rand(4, 3), {"ignore_index": 1}),
    "smoothing above 1": (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), {"label_smoothing": 1.5}),
    "short weight": (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), {"weight": torch.ones(2)}),
    "short weight, probabilities": (torch.randn(4, 3), torch.rand(4, 3), {"weight": torch.ones(2)}),
    "reduction": (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), {"reduction": "max"}),
    "integer logits": (torch.ones(4, 3, dtype=torch.long), torch.tensor([0, 1, 2, 0]), {}),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
@pytest.mark.parametrize("large", [False, True])
def test_errors_are_those_of_cross_entropy(name: str, large: bool) -> None:
    logits, target, options = BAD_ARGUMENTS[name]
    if large and logits.dim() > 1:
        logits, target = logits.repeat_interleave(3000, 0), target.repeat_interleave(3000, 0)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        F.cross_entropy(logits, target, **options)  # type: ignore[arg-type]
    for loss in (cf.crossfade_loss, cf.focal_loss, cf.mpce_loss):
        with pytest.raises(type(expected.value)):
            loss(logits, target, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(cf.crossfade_loss, alpha=math.nan), "alpha must be finite"),
        (partial(cf.crossfade_loss, beta=torch.ones(2)), "one element"),
        (partial(cf.focal_loss, gamma=-1.0), "gamma must be"),
        (partial(cf.generalized_cross_entropy, q=-0.1), "q must be in"),
        (partial(cf.truncated_cross_entropy, k=1.0), "k must be in"),
        (partial(cf.tamed_cross_entropy, alpha=1.0), "alpha must not be 1"),
        (partial(cf.probability_loss, torch.sum), "elementwise"),
        (partial(cf.probability_loss, lambda ce: 1.0), "elementwise"),
    ],
)
def test_bad_options_name_themselves(call: object, message: str) -> None:
    logits, target = batch(4, 3)
    with pytest.raises(ValueError, match=message):
        call(logits, target)  # type: ignore[operator]


NO_CLASS = {
    "index": (torch.randn(4, 0), torch.zeros(4, dtype=torch.long)),
    "ignored": (torch.randn(4, 0), torch.full((4,), -100)),
    "probabilities": (torch.randn(4, 0), torch.zeros(4, 0)),
    "no row": (torch.randn(0, 0), torch.zeros(0, 0)),
    "no batch": (torch.randn(0), torch.tensor(0)),
}


@pytest.mark.parametrize("case", NO_CLASS)
@pytest.mark.parametrize("name", CASES)
def test_logits_of_no_class_are_refused(name: str, case: str) -> None:
    logits, target = NO_CLASS[case]
    with pytest.raises(ValueError, match=r"at least one class .* got shape \("):
        CASES[name](logits, target)
    with pytest.raises(ValueError, match=r"at least one class .* got shape \(0, 3\)"):
        cf.linear_crossfade_loss(torch.zeros(*logits.shape[:-1], 3), torch.zeros(0, 3), target)


@pytest.mark.parametrize("rows", [4, 4000])
@pytest.mark.parametrize("name", CASES)
def test_a_label_smoothing_that_is_no_number_is_refused(name: str, rows: int) -> None:
    logits, target = batch(rows, 5)
    for of in (target, F.one_hot(target, 5).to(logits.dtype)):
        with pytest.raises(ValueError, match=r"label_smoothing must be between 0.0 and 1.0, got nan"):
            CASES[name](logits.requires_grad_(), of, label_smoothing=math.nan)
        with pytest.raises(ValueError, match=r"label_smoothing must be between 0.0 and 1.0, got nan"):
            cf.linear_crossfade_loss(logits, torch.eye(5, dtype=logits.dtype), of, label_smoothing=math.nan)


def test_complement_entropy_against_its_formula() -> None:
    logits, target = batch(8, 5)
    p = logits.softmax(1)
    p_y = p.gather(1, target.unsqueeze(1))
    ratio = p / (1 - p_y)
    others = torch.ones_like(p).scatter(1, target.unsqueeze(1), 0.0)
    expected = -(others * ratio * ratio.log()).sum(1)
    torch.testing.assert_close(cf.complement_entropy(logits, target, reduction="none"), expected)
    assert cf.complement_entropy(logits[:, :1], torch.zeros(8, dtype=torch.long)).item() == 0
    torch.testing.assert_close(cf.complement_entropy(logits[:, :2], target.clamp(max=1)).item(), 0.0)


def test_complement_entropy_is_right_for_a_certain_target() -> None:
    logits = torch.tensor([[60.0, 1.0, 2.0, 3.0]])
    rest = torch.tensor([1.0, 2.0, 3.0]).double().softmax(0)
    actual = cf.complement_entropy(logits, torch.tensor([0]))
    assert math.isclose(actual.item(), -(rest * rest.log()).sum().item(), rel_tol=1e-6)


def test_mpce_against_its_formula() -> None:
    logits, target = batch(8, 5)
    p = logits.softmax(1)
    p_y = p.gather(1, target.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(cf.mpce_loss(logits, target, reduction="none"), -(p.amax(1) - p_y) * p_y.log())


@examples(60)
@given(st.integers(2, 12), st.integers(0, 12), st.floats(0.5, 20))
def test_max_mahalanobis_centres_are_a_simplex(classes: int, spare: int, norm: float) -> None:
    from crossfade.losses import max_mahalanobis_centers

    centers = max_mahalanobis_centers(classes, classes - 1 + spare, norm)
    products = centers @ centers.T / norm**2
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64)
    torch.testing.assert_close(products, expected.fill_diagonal_(1.0), rtol=0, atol=1e-9)


def test_max_mahalanobis_loss() -> None:
    criterion = cf.MaxMahalanobisCenterLoss(4, 6)
    features, target = torch.randn(10, 6, requires_grad=True), torch.randint(4, (10,))
    expected = 0.5 * (features - criterion.centers[target]).square().sum(1)
    torch.testing.assert_close(criterion(features, target), expected.mean())
    assert (criterion.logits(criterion.centers).argmax(1) == torch.arange(4)).all()
    printed = cf.MaxMahalanobisCenterLoss(4, 6, squared=False)(features, target)
    torch.testing.assert_close(printed, 0.5 * (features - criterion.centers[target]).norm(dim=1).mean())
    for classes, dim in ((1, 5), (7, 0)):
        with pytest.raises(ValueError, match="must be at least"):
            cf.MaxMahalanobisCenterLoss(classes, dim)
    with pytest.raises(ValueError, match="features must have size 6"):
        criterion(torch.randn(10, 4), target)


@examples(150)
@given(
    st.integers(1, 6), st.integers(2, 6), st.floats(0, 3), st.floats(0, 5), st.integers(0, 10_000), st.floats(-50, 50)
)
def test_properties(n: int, c: int, alpha: float, beta: float, seed: int, shift: float) -> None:
    logits, target = batch(n, c, seed=seed)
    loss = partial(cf.crossfade_loss, alpha=alpha, beta=beta, reduction="none")
    rows = loss(logits, target)
    ce, el = cf.crossfade_loss(logits, target, beta=0.0, reduction="none"), cf.expectation_loss(logits, target)
    assert (rows >= 0).all()
    assert (cf.expectation_loss(logits, target, reduction="none") <= ce + 1e-12).all()  # below eq. (11)
    assert 0 <= el <= 1
    torch.testing.assert_close(loss(logits + shift, target), rows, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(rows.sum(), logits)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(n, dtype=torch.float64), rtol=0, atol=1e-9)


def test_batched_gradients() -> None:
    for rows in (5, 5000):
        logits, target = batch(rows, 6)
        loss = cf.crossfade_loss(logits, target)
        many = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
        (gradient,) = torch.autograd.grad(loss, logits, many, is_grads_batched=True, retain_graph=True)
        (single,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient, many.view(3, 1, 1) * single)


def test_forward_mode() -> None:
    for rows in (4, 4000):
        logits, target = batch(rows, 6)
        tangent = torch.randn_like(logits)
        _, slope = torch.func.jvp(lambda x: cf.crossfade_loss(x, target), (logits.detach(),), (tangent,))  # noqa: B023
        (gradient,) = torch.autograd.grad(cf.crossfade_loss(logits, target), logits)
        torch.testing.assert_close(slope, (gradient * tangent).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_evaluation_of_half_precision_logits(dtype: torch.dtype) -> None:
    logits, target = torch.randn(900, 1200).to(dtype), torch.randint(1200, (900,))
    target[:50] = -100
    for reduction in ("none", "mean", "sum"):
        exact = cf.crossfade_loss(logits.double(), target, reduction=reduction)  # type: ignore[arg-type]
        actual = cf.crossfade_loss(logits, target, reduction=reduction)  # type: ignore[arg-type]
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), exact, rtol=1e-5, atol=1e-5)
