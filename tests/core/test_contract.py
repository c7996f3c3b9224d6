"""check_loss on every loss of the table, and on losses that break the contract."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from torch import Tensor

import crossfade as cf
from crossfade.testing import CHECKS, check_loss
from tests.core.cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    report = check_loss(CASES[name])
    assert not report.skipped
    assert len(report.passed) == len(CHECKS) - 1  # all but the compiler's


def test_compiles_without_a_graph_break() -> None:
    """All losses in one graph, so that the C++ compiler runs once for each direction, and for nothing else."""
    names = ["f0", "tensors", "el", "focal", "truncated", "complement", "mpce"]

    def together(logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack([scale * CASES[name](logits, target) for scale, name in enumerate(names, 1)]).sum()

    everything_else = set(CHECKS) - {"compile_fullgraph"}
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}):
        assert check_loss(together, compile=True, skip=everything_else).passed == ("compile_fullgraph",)


def test_criterion_and_features() -> None:
    assert check_loss(cf.CrossfadeLoss()).passed
    assert check_loss(cf.MaxMahalanobisCenterLoss(5, 8).double(), inputs=8, skip=("autocast",)).passed


@pytest.mark.parametrize(
    ("loss", "finding"),
    [
        (lambda x, t, reduction="mean": F.cross_entropy(x.double(), t, reduction=reduction).detach(), "gradient_is"),
        (lambda x, t, reduction="mean": F.cross_entropy(x, t, reduction=reduction) + x.mean(), "rows_are_independent"),
        (lambda x, t, weight=None, reduction="mean": F.cross_entropy(x, t, reduction=reduction), "class_weights"),
        (lambda x, t, ignore_index=-100, reduction="mean": F.cross_entropy(x, t, reduction=reduction), "ignored_rows"),
        (lambda x, t, reduction="mean": F.cross_entropy(x.clamp_(-9, 9), t, reduction=reduction), "backward_twice"),
        (partial(cf.probability_loss, lambda ce: ce * torch.exp(-ce)), "extreme_logits"),
        (lambda x, t, reduction="mean": F.nll_loss(x.softmax(1).log(), t, reduction=reduction), "extreme_logits"),
        (lambda x, t: F.cross_entropy(x, t.clamp(0, x.shape[1] - 1)), "target_out_of_range"),
    ],
)
def test_finds(loss: object, finding: str) -> None:
    with pytest.raises(AssertionError, match=finding):
        check_loss(loss)  # type: ignore[arg-type]


def test_unknown_check() -> None:
    with pytest.raises(ValueError, match="unknown checks"):
        check_loss(F.cross_entropy, skip=("spelling",))
