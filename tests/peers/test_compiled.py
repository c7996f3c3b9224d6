"""The losses in whole graphs of PyTorch: ``torch.compile`` with symbolic numbers, ``torch.export`` with any batch.

PyTorch's own loss has no number but ``label_smoothing``, and compiles and exports with any size of its batch
(test_torchinductor_dynamic_shapes, test_export). The compiler's backends here do all but write C++.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters

import crossfade as cf
from tests.core.cases import CASES

# On both sides of 1536 logits: eager mode chooses among its forms by this size.
BATCHES = (1, 150, 40_000)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def every_number(
    logits: Tensor, target: Tensor, alpha: float, beta: float, gamma: float, q: float, k: float, smoothing: float
) -> Tensor:
    """Return all losses that take a number, each with its own factor."""
    options = {"label_smoothing": smoothing}
    losses = [
        cf.crossfade_loss(logits, target, alpha=alpha, beta=beta, **options),
        cf.focal_loss(logits, target, gamma=gamma, alpha=alpha, **options),
        cf.poly_loss(logits, target, epsilon=beta, **options),
        cf.generalized_cross_entropy(logits, target, q=q, **options),
        cf.truncated_cross_entropy(logits, target, q=q, k=k, **options),
        cf.tamed_cross_entropy(logits, target, alpha=alpha, **options),
    ]
    return torch.stack([factor * loss for factor, loss in enumerate(losses, 1)]).sum()


def test_symbolic_numbers() -> None:
    """Other numbers and another size of the batch don't compile again."""
    torch.manual_seed(0)
    compiled = torch.compile(every_number, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows, *numbers in (
        (30, 0.5, 1.5, 2.0, 0.7, 0.3, 0.1),
        (31, 0.7, 2.5, 1.5, 0.3, 0.1, 0.2),
        (52, 1.5, 1.0, 3.0, 1.0, 0.4, 0.15),
    ):
        logits, target = torch.randn(rows, 7).requires_grad_(), torch.randint(7, (rows,))
        actual, expected = (loss(logits, target, *numbers) for loss in (compiled, every_number))
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient(actual, logits), gradient(expected, logits))
    assert counters["stats"]["unique_graphs"] == 1


def test_bad_numbers_are_refused_while_compiling() -> None:
    compiled = torch.compile(cf.crossfade_loss, backend="eager", dynamic=True)
    with pytest.raises(ValueError, match="alpha must be finite"):
        compiled(torch.zeros(2, 3), torch.tensor([0, 1]), alpha=torch.inf)


KINDS = ["f0.3", "tensors", "focal", "truncated", "tamed", "own", "complement", "mpce"]


class Together(torch.nn.Module):
    """A loss of each kind in one graph."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.losses = [partial(CASES[name], **options) for name in KINDS]

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack([loss(logits, target) for loss in self.losses])


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1, "weight": torch.rand(7) + 0.1},
    "ignored": {"ignore_index": 1, "weight": torch.rand(7) + 0.1, "reduction": "sum"},
    "soft": {},
    "positions": {},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_export_with_any_batch(name: str) -> None:
    def batch(rows: int) -> tuple[Tensor, Tensor]:
        rest = (3,) if name == "positions" else ()
        logits = torch.randn(rows, 7, *rest)
        return logits, torch.rand(rows, 7).softmax(1) if name == "soft" else torch.randint(7, (rows, *rest))

    torch.manual_seed(0)
    module, rows = Together(**OPTIONS[name]), torch.export.Dim("rows")
    shapes = {"logits": {0: rows}, "target": {0: rows}}
    exported = torch.export.export(module, batch(6), dynamic_shapes=shapes, strict=name == "plain").module()
    for count in BATCHES:
        inputs = batch(count)
        torch.testing.assert_close(exported(*inputs), module(*inputs), equal_nan=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_compiled_criterion_moves_on_before_the_backward_pass(smoothing: float) -> None:
    """PyTorch's compiler saves inputs of cheap operations for the backward pass; at() overwrites the buffers."""
    torch.manual_seed(0)
    criterion = cf.CrossfadeLoss(label_smoothing=smoothing)
    compiled = torch.compile(criterion, backend="aot_eager_decomp_partition", fullgraph=True)
    logits, target = torch.randn(9, 5).requires_grad_(), torch.randint(5, (9,))
    for before, after in ((0.0, 1.0), (0.5, 0.9), (1.0, 0.0)):
        actual, expected = (loss(logits, target) for loss in (compiled, criterion.at(before)))
        criterion.at(after)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient(actual, logits), gradient(expected, logits))
    assert counters["stats"]["unique_graphs"] == 1


def test_the_compiled_row_weight_keeps_the_digits_of_p() -> None:
    """PyTorch decomposes elu, too, into an exponential: the compiled gradient is as exact as the eager one."""
    compiled = torch.compile(cf.expectation_loss, backend="aot_eager_decomp_partition", fullgraph=True)
    logits = torch.tensor([[margin, 0.0, 1.0] for margin in (1.0, 18.0, 40.0, 80.0)]).requires_grad_()
    target = torch.ones(4, dtype=torch.long)
    actual = gradient(compiled(logits, target), logits).double()
    p = F.softmax(logits.double(), 1)
    expected = p[:, 1:2] * (p - F.one_hot(target, 3)) / 4
    torch.testing.assert_close(actual, expected, rtol=5e-6, atol=1e-40)


@pytest.mark.parametrize("name", ["f0.3", "truncated", "tamed"])
def test_export_with_statistics(name: str) -> None:
    class Statistics(torch.nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> list[Tensor]:
            loss, stats = CASES[name](logits, target, return_stats=True)
            return [loss, stats.row_weight, stats.entropy, stats.correct]

    torch.manual_seed(0)
    module, rows = Statistics(), torch.export.Dim("rows")
    shapes = {"logits": {0: rows}, "target": {0: rows}}
    inputs = torch.randn(6, 7), torch.randint(7, (6,))
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False).module()
    masked = torch.randn(4, 7).index_fill(1, torch.tensor([2]), -torch.inf), torch.tensor([2, 1, 0, -100])
    for batch in (inputs, masked):
        torch.testing.assert_close(exported(*batch), module(*batch))
