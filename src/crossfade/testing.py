"""A check of the contract that classification losses keep: ``check_loss(loss)``.

>>> import torch.nn.functional as F
>>> print(check_loss(F.cross_entropy, skip=("half_precision",)))  # F.cross_entropy rounds bfloat16 losses to bfloat16
20 checks passed, skipped: half_precision
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["CHECKS", "LossReport", "check_loss"]

Loss: TypeAlias = Callable[..., Tensor]
_OPTIONS = ("weight", "ignore_index", "label_smoothing", "reduction")


@dataclass(frozen=True)
class LossReport:
    """The names of the checks that passed, and of those that were left out."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f", skipped: {', '.join(self.skipped)}" if self.skipped else ""
        return f"{len(self.passed)} checks passed{left_out}"


def check_loss(
    loss: Loss, *, classes: int = 5, inputs: int | None = None, skip: Collection[str] = (), compile: bool = False
) -> LossReport:
    """Check that ``loss(logits, target, *, weight, ignore_index, label_smoothing, reduction)`` keeps the contract.

    Checks that need a keyword which the loss doesn't have are skipped. A criterion (``nn.Module``) has its options
    already, and is checked as it is.

    Args:
        loss: a function or module of logits (N, C, d1, ...) and a target of class indices.
        classes: C, at least 3.
        inputs: size of dimension 1 if it isn't C, for a loss of features.
        skip: names of checks to leave out, from :data:`CHECKS`.
        compile: whether to compile the loss, too, with ``fullgraph=True``. That takes seconds and a C++ compiler.

    Raises:
        AssertionError: with a line for each check that failed, what was expected and what came.
        ValueError: a name in ``skip`` that isn't a check's.
    """
    unknown = set(skip) - set(CHECKS)
    if unknown:
        raise ValueError(f"skip names unknown checks {sorted(unknown)}; the checks are {', '.join(CHECKS)}")
    options = _options(loss)
    case = _Case(loss, classes, inputs or classes)
    passed, skipped, failed = [], [], []
    for name, (check, needs) in CHECKS.items():
        if name in skip or not set(needs) <= options or (name == "compile_fullgraph" and not compile):
            skipped.append(name)
            continue
        torch.manual_seed(0)
        try:
            check(case)
        except Exception as error:  # the user's loss may raise anything
            line = " ".join(str(error).split())
            failed.append(f"{name}: {line[:300] or type(error).__name__}")
        else:
            passed.append(name)
    if failed:
        raise AssertionError(f"{len(failed)} of {len(failed) + len(passed)} checks failed\n  " + "\n  ".join(failed))
    return LossReport(tuple(passed), tuple(n for n in skipped if n != "compile_fullgraph" or n in skip))


def _options(loss: Loss) -> set[str]:
    if isinstance(loss, torch.nn.Module):
        return set()
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return set(_OPTIONS)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return set(_OPTIONS)
    return set(_OPTIONS) & set(parameters)


@dataclass(frozen=True)
class _Case:
    """A loss under test, with batches that fit it."""

    loss: Loss
    classes: int
    inputs: int

    def batch(self, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        n, *rest = shape
        logits = torch.randn(n, self.inputs, *rest, dtype=dtype) * 2
        return logits.requires_grad_(), torch.randint(self.classes, shape)

    def gradient(self, logits: Tensor, target: Tensor, **options: object) -> Tensor:
        leaf = logits.detach().clone().requires_grad_()
        return torch.autograd.grad(self.loss(leaf, target, **options), leaf)[0]


def _close(actual: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def _not_nan(tensor: Tensor, what: str) -> None:
    assert not tensor.isnan().any(), f"{what} is NaN"


#: Every check by name, with the keywords that a loss must take for it.
CHECKS: dict[str, tuple[Callable[[_Case], None], tuple[str, ...]]] = {}


def _check(*needs: str) -> Callable[[Callable[[_Case], None]], Callable[[_Case], None]]:
    """Register a check that needs these keywords of the loss."""

    def register(check: Callable[[_Case], None]) -> Callable[[_Case], None]:
        CHECKS[check.__name__] = (check, needs)
        return check

    return register


@_check()
def gradient_is_the_value_s(case: _Case) -> None:
    logits, target = case.batch(4)
    torch.autograd.gradcheck(lambda x: case.loss(x, target), (logits,))


@_check()
def second_derivative(case: _Case) -> None:
    logits, target = case.batch(3)
    torch.autograd.gradgradcheck(lambda x: case.loss(x, target), (logits,))


def _sizes(case: _Case) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a small and a large batch: a loss may compute them in different ways."""
    yield case.batch(8)
    yield case.batch(40_000 // case.inputs)


@_check("reduction")
def reductions_agree(case: _Case) -> None:
    for logits, target in _sizes(case):
        rows = case.loss(logits, target, reduction="none")
        assert rows.shape == target.shape, f"reduction='none' gives {tuple(rows.shape)}, expected {tuple(target.shape)}"
        _close(case.loss(logits, target, reduction="sum"), rows.sum(), "sum is not the sum of the rows")
        _close(case.loss(logits, target, reduction="mean"), rows.mean(), "mean is not the mean of the rows")
        _close(case.loss(logits, target), rows.mean(), "the default is not the mean of the rows")


@_check("reduction")
def unknown_reduction_is_refused(case: _Case) -> None:
    _refused(lambda: case.loss(*case.batch(3), reduction="median"), "reduction='median'")


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except (ValueError, RuntimeError, IndexError):
        return
    raise AssertionError(f"{what} is accepted")


@_check()
def target_out_of_range_is_refused(case: _Case) -> None:
    logits, target = case.batch(6)
    for bad in (case.classes, -1):
        target[2] = bad
        _refused(lambda: case.loss(logits, target), f"target {bad}")


@_check()
def batch_mismatch_is_refused(case: _Case) -> None:
    logits, target = case.batch(6)
    _refused(lambda: case.loss(logits, target[:4]), "4 targets for 6 rows")


@_check("reduction")
def rows_are_independent(case: _Case) -> None:
    logits, target = case.batch(12)
    order = torch.randperm(12)
    rows = case.loss(logits, target, reduction="none")
    _close(case.loss(logits[order], target[order], reduction="none"), rows[order], "rows depend on their order")
    _close(case.loss(logits[:5], target[:5], reduction="none"), rows[:5], "rows depend on the batch")


@_check("reduction")
def spatial_dimensions(case: _Case) -> None:
    logits, target = case.batch(2, 3, 4)
    flat = logits.movedim(1, -1).reshape(-1, case.inputs), target.reshape(-1)
    rows = case.loss(logits, target, reduction="none")
    _close(rows.reshape(-1), case.loss(*flat, reduction="none"), "(N, C, d1, d2) differs from its rows")
    _close(case.loss(logits, target), case.loss(*flat), "the mean over (N, C, d1, d2) differs from its rows'")


@_check("ignore_index", "reduction")
def ignored_rows(case: _Case) -> None:
    for index in (-100, 255, 0):
        for logits, target in _sizes(case):
            target = torch.where(torch.arange(len(target)) % 3 == 0, index, target.clamp(min=1))
            kept = target != index
            rows = case.loss(logits, target, ignore_index=index, reduction="none")
            assert (rows[~kept] == 0).all(), "an ignored row has a loss"
            mean = case.loss(logits, target, ignore_index=index)
            _close(mean, rows[kept].mean(), "the mean counts ignored rows")
            gradient = case.gradient(logits, target, ignore_index=index)
            assert (gradient[~kept] == 0).all(), "an ignored row has a gradient"
            _close(
                gradient[kept], case.gradient(logits[kept], target[kept]), "ignored rows change the others' gradient"
            )


@_check("ignore_index", "reduction")
def nothing_left(case: _Case) -> None:
    logits, target = case.batch(4)
    for batch, targets in ((logits[:0], target[:0]), (logits, torch.full_like(target, -100))):
        assert case.loss(batch, targets).isnan(), "the mean over no row is not NaN, as F.cross_entropy's is"
        total = case.loss(batch, targets, reduction="sum")
        assert total == 0, f"the sum over no row is {total.item()}, expected 0"
        assert total.requires_grad, "the sum over no row has lost its graph"
        (gradient,) = torch.autograd.grad(total, logits)
        assert (gradient == 0).all(), "no row is left, but there is a gradient"


@_check("weight", "reduction")
def class_weights(case: _Case) -> None:
    weight = torch.rand(case.classes, dtype=torch.float64) + 0.5
    for logits, target in _sizes(case):
        rows = case.loss(logits, target, reduction="none")
        weighted = case.loss(logits, target, weight=weight, reduction="none")
        _close(weighted, rows * weight[target], "weight is not a factor of the row's loss")
        expected = (rows * weight[target]).sum() / weight[target].sum()
        _close(case.loss(logits, target, weight=weight), expected, "the weighted mean doesn't divide by the weights")
    _refused(lambda: case.loss(logits, target, weight=weight[:-1]), "a weight too short")


@_check("reduction")
def class_probabilities(case: _Case) -> None:
    logits, target = case.batch(6)
    shape = (6, case.classes)
    hot = torch.zeros(shape, dtype=torch.float64).scatter(1, target.unsqueeze(1), 1.0)
    rows = case.loss(logits, target, reduction="none")
    _close(case.loss(logits, hot, reduction="none"), rows, "one-hot probabilities differ from indices", 1e-7)
    soft = torch.rand(shape, dtype=torch.float64).softmax(1)
    each = [case.loss(logits, torch.full_like(target, c), reduction="none") * soft[:, c] for c in range(case.classes)]
    expected = torch.stack(each).sum(0)
    _close(
        case.loss(logits, soft, reduction="none"), expected, "soft targets are not the expectation over labels", 1e-7
    )


@_check("label_smoothing", "weight", "ignore_index", "reduction")
def label_smoothing(case: _Case) -> None:
    logits, target = case.batch(6)
    smoothed = torch.full((6, case.classes), 0.1 / case.classes, dtype=torch.float64)
    smoothed = smoothed.scatter(1, target.unsqueeze(1), 0.9 + 0.1 / case.classes)
    for weight in (None, torch.rand(case.classes, dtype=torch.float64) + 0.5):
        rows = case.loss(logits, target, weight=weight, label_smoothing=0.1, reduction="none")
        expected = case.loss(logits, smoothed, weight=weight, reduction="none")
        _close(rows, expected, "label smoothing differs from the smoothed distribution", 1e-7)
        target_with_hole = target.clone()
        target_with_hole[1] = -100
        kept = target_with_hole >= 0
        scale = kept.sum() if weight is None else weight[target[kept]].sum()
        mean = case.loss(logits, target_with_hole, weight=weight, label_smoothing=0.1)
        _close(mean, rows[kept].sum() / scale, "the smoothed mean over valid rows", 1e-7)


@_check()
def backward_twice(case: _Case) -> None:
    for logits, target in _sizes(case):
        before = logits.detach().clone()
        loss = case.loss(logits, target)
        (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
        kept = first.clone()
        (second,) = torch.autograd.grad(loss, logits)
        _close(second, kept, "a second backward pass gives another gradient")
        _close(first, kept, "a second backward pass overwrites the first one's gradient")
        assert torch.equal(logits, before), "the loss writes into its logits"


@_check()
def without_gradient(case: _Case) -> None:
    for logits, target in _sizes(case):
        with torch.no_grad():
            value = case.loss(logits, target)
        assert not value.requires_grad, "the loss builds a graph under no_grad"
        _close(value, case.loss(logits, target).detach(), "the value differs under no_grad")


@_check()
def non_contiguous(case: _Case) -> None:
    for logits, target in _sizes(case):
        strided = torch.stack([logits.detach().t(), logits.detach().t()], -1)[..., 0].t()
        assert not strided.is_contiguous()
        _close(case.loss(strided, target), case.loss(logits, target).detach(), "the value differs for strided logits")
        _close(case.gradient(strided, target), case.gradient(logits, target), "the gradient differs for strided logits")


@_check("reduction")
def extreme_logits(case: _Case) -> None:
    for size in (1e4, float("inf")):
        for rows in (case.classes, 40_000 // case.inputs):
            logits = torch.zeros(rows, case.inputs)
            logits[:, 0] = -size
            target = torch.arange(rows) % case.classes
            _not_nan(case.loss(logits, target, reduction="none"), f"a loss with {-size:g} among the logits")
            _not_nan(case.gradient(logits, target, reduction="sum"), f"a gradient with {-size:g} among the logits")
    logits = torch.zeros(case.classes, case.inputs)
    logits[:, 1] = 1e4
    _not_nan(case.loss(logits, torch.arange(case.classes), reduction="none"), "a loss with 1e4 among the logits")


@_check("reduction")
def single_precision(case: _Case) -> None:
    for logits, target in _sizes(case):
        wide = logits.detach().float()
        rows = case.loss(wide, target, reduction="none")
        assert rows.dtype == torch.float32, f"float32 logits give a {rows.dtype} loss"
        _close(rows, case.loss(wide.double(), target, reduction="none"), "float32 differs from float64", 1e-5)
        _close(case.gradient(wide, target), case.gradient(wide.double(), target), "float32's gradient differs", 1e-5)


@_check("reduction")
def half_precision(case: _Case) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for logits, target in _sizes(case):
            half = logits.detach().to(dtype)
            exact = case.loss(half.double(), target, reduction="none")
            _close(case.loss(half, target, reduction="none"), exact, f"{dtype} logits lose the loss's precision", 1e-3)
            gradient = case.gradient(half, target, reduction="sum")
            assert gradient.dtype == dtype, f"{dtype} logits have a {gradient.dtype} gradient"
            _close(gradient, case.gradient(half.double(), target, reduction="sum"), f"{dtype} gradient", 2e-2)


@_check("reduction")
def function_transforms(case: _Case) -> None:
    logits, target = case.batch(4)
    logits = logits.detach()
    gradient = torch.func.grad(lambda x: case.loss(x, target))(logits)
    _close(gradient, case.gradient(logits, target), "torch.func.grad differs from backward")
    many = torch.randn(3, *logits.shape, dtype=logits.dtype)
    values = torch.func.vmap(lambda x: case.loss(x, target))(many)
    _close(values, torch.stack([case.loss(x, target) for x in many]), "torch.func.vmap differs from a loop")


@_check()
def autocast(case: _Case) -> None:
    logits, target = case.batch(8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = case.loss(logits, target)
    assert inside.dtype == torch.float32, f"float32 logits give {inside.dtype} under autocast"
    _close(inside, case.loss(logits, target), "the value differs under autocast", 1e-5)


@_check()
def compile_fullgraph(case: _Case) -> None:
    logits, target = case.batch(16, dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(case.loss, fullgraph=True)
    _close(compiled(logits, target), case.loss(logits, target), "the compiled value differs", 1e-5)
    (gradient,) = torch.autograd.grad(compiled(logits, target), logits)
    _close(gradient, case.gradient(logits, target), "the compiled gradient differs", 1e-5)
