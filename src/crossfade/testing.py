"""A check of the contract that classification losses keep: ``check_loss(loss)``.

>>> import torch.nn.functional as F
>>> print(check_loss(F.cross_entropy, skip=("half_precision",)))  # F.cross_entropy rounds bfloat16 losses to bfloat16
20 checks passed, skipped: half_precision
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

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

    A loss whose row weights are constants, such as those of ``objectives.weighted``, doesn't descend its value. If it
    takes ``return_stats``, its gradient must then be the row weights that it reports times that of the cross entropy,
    and its second derivative isn't checked.

    Args:
        loss: a function or module of logits (N, C, d1, ...) and a target of class indices.
        classes: C, at least 2.
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
    case = _Case(loss, classes, inputs or classes, "return_stats" in options)
    passed, skipped, failed = [], [], []
    for name, (check, needs) in CHECKS.items():
        if name in skip or not set(needs) <= options or (name == "compile_fullgraph" and not compile):
            skipped.append(name)
            continue
        torch.manual_seed(0)
        try:
            check(case)
        except _NotApplicableError:
            skipped.append(name)
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
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name for name in _OPTIONS if takes_any or name in parameters} | {"return_stats"} & parameters.keys()


class _NotApplicableError(Exception):
    """What a check raises that makes no sense for the loss at hand."""


def _close(actual: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except (ValueError, RuntimeError, IndexError):
        return
    raise AssertionError(f"{what} is accepted")


#: Every check by name, with the keywords that a loss must take for it.
CHECKS: dict[str, tuple[Callable[[_Case], None], tuple[str, ...]]] = {}


def _check(*needs: str) -> Callable[[Callable[[_Case], None]], Callable[[_Case], None]]:
    """Register a check that needs these keywords of the loss."""

    def register(check: Callable[[_Case], None]) -> Callable[[_Case], None]:
        CHECKS[check.__name__] = (check, needs)
        return check

    return register


@dataclass(frozen=True)
class _Case:
    """A loss under test, with batches that fit it, and a method for each check."""

    loss: Loss
    classes: int
    inputs: int
    reports: bool  # whether it takes return_stats

    def batch(self, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        n, *rest = shape
        logits = torch.randn(n, self.inputs, *rest, dtype=dtype) * 2
        return logits.requires_grad_(), torch.randint(self.classes, shape)

    def sizes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a small and a large batch: a loss may compute them in different ways."""
        yield self.batch(8)
        yield self.batch(40_000 // self.inputs)

    def rows(self, logits: Tensor, target: Tensor, **options: object) -> Tensor:
        return self.loss(logits, target, reduction="none", **options)

    def gradient(self, logits: Tensor, target: Tensor, **options: object) -> Tensor:
        leaf = logits.detach().clone().requires_grad_()
        return torch.autograd.grad(self.loss(leaf, target, **options), leaf)[0]

    def weighs_by_constants(self) -> bool:
        """Return whether the loss reports row weights, and its gradient isn't its value's."""
        logits, target = self.batch(4)
        return self.reports and not torch.autograd.gradcheck(
            lambda x: self.loss(x, target), (logits,), raise_exception=False
        )

    @_check()
    def gradient_is_the_value_s(self) -> None:
        logits, target = self.batch(4)
        if not self.weighs_by_constants():
            torch.autograd.gradcheck(lambda x: self.loss(x, target), (logits,))
            return
        for logits, target in self.sizes():
            stats: Any = self.loss(logits, target, return_stats=True)[1]
            of_ce = logits.detach().softmax(1) - torch.nn.functional.one_hot(target, self.classes)
            expected = stats.row_weight.unsqueeze(1) * of_ce / len(target)
            _close(self.gradient(logits, target), expected, "the gradient is not row_weight times the cross entropy's")

    @_check()
    def second_derivative(self) -> None:
        if self.weighs_by_constants():
            raise _NotApplicableError
        logits, target = self.batch(3)
        torch.autograd.gradgradcheck(lambda x: self.loss(x, target), (logits,))

    @_check("reduction")
    def reductions_agree(self) -> None:
        for logits, target in self.sizes():
            rows = self.rows(logits, target)
            assert rows.shape == target.shape, f"reduction='none' gives {[*rows.shape]}, expected {[*target.shape]}"
            _close(self.loss(logits, target, reduction="sum"), rows.sum(), "sum is not the sum of the rows")
            _close(self.loss(logits, target, reduction="mean"), rows.mean(), "mean is not the mean of the rows")
            _close(self.loss(logits, target), rows.mean(), "the default is not the mean of the rows")

    @_check("reduction")
    def unknown_reduction_is_refused(self) -> None:
        _refused(lambda: self.loss(*self.batch(3), reduction="median"), "reduction='median'")

    @_check()
    def target_out_of_range_is_refused(self) -> None:
        logits, target = self.batch(6)
        for bad in (self.classes, -1):
            target[2] = bad
            _refused(lambda: self.loss(logits, target), f"target {bad}")

    @_check()
    def batch_mismatch_is_refused(self) -> None:
        logits, target = self.batch(6)
        _refused(lambda: self.loss(logits, target[:4]), "4 targets for 6 rows")

    @_check("reduction")
    def rows_are_independent(self) -> None:
        logits, target = self.batch(12)
        order = torch.randperm(12)
        rows = self.rows(logits, target)
        _close(self.rows(logits[order], target[order]), rows[order], "rows depend on their order")
        _close(self.rows(logits[:5], target[:5]), rows[:5], "rows depend on the batch")

    @_check("reduction")
    def spatial_dimensions(self) -> None:
        logits, target = self.batch(2, 3, 4)
        flat = logits.movedim(1, -1).reshape(-1, self.inputs), target.reshape(-1)
        rows = self.rows(logits, target)
        _close(rows.reshape(-1), self.rows(*flat), "(N, C, d1, d2) differs from its rows")
        _close(self.loss(logits, target), self.loss(*flat), "the mean over (N, C, d1, d2) differs from its rows'")

    @_check("ignore_index", "reduction")
    def ignored_rows(self) -> None:
        for index in (-100, 255, 0):
            for logits, target in self.sizes():
                target = torch.where(torch.arange(len(target)) % 3 == 0, index, target.clamp(min=1))
                kept = target != index
                rows = self.rows(logits, target, ignore_index=index)
                assert (rows[~kept] == 0).all(), "an ignored row has a loss"
                mean = self.loss(logits, target, ignore_index=index)
                _close(mean, rows[kept].mean(), "the mean counts ignored rows")
                gradient = self.gradient(logits, target, ignore_index=index)
                assert (gradient[~kept] == 0).all(), "an ignored row has a gradient"
                alone = self.gradient(logits[kept], target[kept])
                _close(gradient[kept], alone, "ignored rows change the others' gradient")

    @_check("ignore_index", "reduction")
    def nothing_left(self) -> None:
        logits, target = self.batch(4)
        for batch, targets in ((logits[:0], target[:0]), (logits, torch.full_like(target, -100))):
            assert self.loss(batch, targets).isnan(), "the mean over no row is not NaN, as F.cross_entropy's is"
            total = self.loss(batch, targets, reduction="sum")
            assert total == 0, f"the sum over no row is {total.item()}, expected 0"
            assert total.requires_grad, "the sum over no row has lost its graph"
            (gradient,) = torch.autograd.grad(total, logits)
            assert (gradient == 0).all(), "no row is left, but there is a gradient"

    @_check("weight", "reduction")
    def class_weights(self) -> None:
        weight = torch.rand(self.classes, dtype=torch.float64) + 0.5
        for logits, target in self.sizes():
            rows = self.rows(logits, target)
            weighted = self.rows(logits, target, weight=weight)
            _close(weighted, rows * weight[target], "weight is not a factor of the row's loss")
            mean, expected = self.loss(logits, target, weight=weight), weighted.sum() / weight[target].sum()
            _close(mean, expected, "the weighted mean doesn't divide by the weights")
        _refused(lambda: self.loss(logits, target, weight=weight[:-1]), "a weight too short")

    @_check("reduction")
    def class_probabilities(self) -> None:
        logits, target = self.batch(6)
        hot = torch.nn.functional.one_hot(target, self.classes).double()
        _close(self.rows(logits, hot), self.rows(logits, target), "one-hot probabilities differ from indices", 1e-7)
        soft = torch.rand_like(hot).softmax(1)
        each = [self.rows(logits, torch.full_like(target, c)) * soft[:, c] for c in range(self.classes)]
        expected = torch.stack(each).sum(0)
        _close(self.rows(logits, soft), expected, "soft targets are not the expectation over labels", 1e-7)

    @_check("label_smoothing", "weight", "ignore_index", "reduction")
    def label_smoothing(self) -> None:
        logits, target = self.batch(6)
        smoothed = 0.9 * torch.nn.functional.one_hot(target, self.classes).double() + 0.1 / self.classes
        for weight in (None, torch.rand(self.classes, dtype=torch.float64) + 0.5):
            rows = self.rows(logits, target, weight=weight, label_smoothing=0.1)
            expected = self.rows(logits, smoothed, weight=weight)
            _close(rows, expected, "label smoothing differs from the smoothed distribution", 1e-7)
            target_with_hole = target.clone()
            target_with_hole[1] = -100
            kept = target_with_hole >= 0
            scale = kept.sum() if weight is None else weight[target[kept]].sum()
            mean = self.loss(logits, target_with_hole, weight=weight, label_smoothing=0.1)
            _close(mean, rows[kept].sum() / scale, "the smoothed mean over valid rows", 1e-7)

    @_check()
    def backward_twice(self) -> None:
        for logits, target in self.sizes():
            before = logits.detach().clone()
            loss = self.loss(logits, target)
            (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
            kept = first.clone()
            (second,) = torch.autograd.grad(loss, logits)
            _close(second, kept, "a second backward pass gives another gradient")
            _close(first, kept, "a second backward pass overwrites the first one's gradient")
            assert torch.equal(logits, before), "the loss writes into its logits"

    @_check()
    def without_gradient(self) -> None:
        for logits, target in self.sizes():
            with torch.no_grad():
                value = self.loss(logits, target)
            assert not value.requires_grad, "the loss builds a graph under no_grad"
            _close(value, self.loss(logits, target).detach(), "the value differs under no_grad")

    @_check()
    def non_contiguous(self) -> None:
        for logits, target in self.sizes():
            strided = torch.stack([logits.detach().t(), logits.detach().t()], -1)[..., 0].t()
            assert not strided.is_contiguous()
            _close(self.loss(strided, target), self.loss(logits, target).detach(), "strided logits change the value")
            _close(self.gradient(strided, target), self.gradient(logits, target), "strided logits change the gradient")

    @_check("reduction")
    def extreme_logits(self) -> None:
        for size in (1e4, float("inf")):
            for rows in (self.classes, 40_000 // self.inputs):
                logits = torch.zeros(rows, self.inputs)
                logits[:, 0] = -size
                target = torch.arange(rows) % self.classes
                gradient = self.gradient(logits, target, reduction="sum")
                assert not self.rows(logits, target).isnan().any(), f"a loss with {-size:g} among the logits is NaN"
                assert not gradient.isnan().any(), f"a gradient with {-size:g} among the logits is NaN"
        logits = torch.zeros(self.classes, self.inputs)
        logits[:, 1] = 1e4
        losses = self.rows(logits, torch.arange(self.classes))
        assert not losses.isnan().any(), "a loss with 1e4 among the logits is NaN"

    @_check("reduction")
    def single_precision(self) -> None:
        for logits, target in self.sizes():
            wide = logits.detach().float()
            rows = self.rows(wide, target)
            assert rows.dtype == torch.float32, f"float32 logits give a {rows.dtype} loss"
            _close(rows, self.rows(wide.double(), target), "float32 differs from float64", 1e-5)
            exact = self.gradient(wide.double(), target)
            _close(self.gradient(wide, target), exact, "float32's gradient differs", 1e-5)

    @_check("reduction")
    def half_precision(self) -> None:
        for dtype in (torch.bfloat16, torch.float16):
            for logits, target in self.sizes():
                half = logits.detach().to(dtype)
                exact = self.rows(half.double(), target)
                _close(self.rows(half, target), exact, f"{dtype} logits lose the loss's precision", 1e-3)
                gradient = self.gradient(half, target, reduction="sum")
                assert gradient.dtype == dtype, f"{dtype} logits have a {gradient.dtype} gradient"
                _close(gradient, self.gradient(half.double(), target, reduction="sum"), f"{dtype} gradient", 2e-2)

    @_check("reduction")
    def function_transforms(self) -> None:
        logits, target = self.batch(4)
        logits = logits.detach()
        gradient = torch.func.grad(lambda x: self.loss(x, target))(logits)
        _close(gradient, self.gradient(logits, target), "torch.func.grad differs from backward")
        many = torch.randn(3, *logits.shape, dtype=logits.dtype)
        values = torch.func.vmap(lambda x: self.loss(x, target))(many)
        _close(values, torch.stack([self.loss(x, target) for x in many]), "torch.func.vmap differs from a loop")

    @_check()
    def autocast(self) -> None:
        logits, target = self.batch(8, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = self.loss(logits, target)
        assert inside.dtype == torch.float32, f"float32 logits give {inside.dtype} under autocast"
        _close(inside, self.loss(logits, target), "the value differs under autocast", 1e-5)

    @_check()
    def compile_fullgraph(self) -> None:
        logits, target = self.batch(16, dtype=torch.float32)
        torch.compiler.reset()
        compiled = torch.compile(self.loss, fullgraph=True)
        _close(compiled(logits, target), self.loss(logits, target), "the compiled value differs", 1e-5)
        (gradient,) = torch.autograd.grad(compiled(logits, target), logits)
        _close(gradient, self.gradient(logits, target), "the compiled gradient differs", 1e-5)
