"""A user's script, for mypy --strict: what the public names return is what their types say. A test runs it, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_type

import pandas as pd
import torch
from torch import Tensor

import crossfade
from crossfade import migrate, stats
from crossfade.diagnostics import Calibration, Peak, calibration, gradient_curve, numeric_peak
from crossfade.functional import LossStats
from crossfade.lab import ComparisonResult, compare, load_model
from crossfade.testing import LossReport, check_loss

logits, target = torch.randn(8, 3, requires_grad=True), torch.randint(3, (8,))


def squared(ce: Tensor) -> Tensor:
    return torch.expm1(-ce) ** 2


# Losses
assert_type(crossfade.crossfade_loss(logits, target), Tensor)
assert_type(crossfade.crossfade_loss(logits, target, return_stats=True), tuple[Tensor, LossStats])
assert_type(crossfade.focal_loss(logits, target, gamma=1.0), Tensor)
assert_type(crossfade.probability_loss(squared, logits, target, label_smoothing=0.1), Tensor)
assert_type(crossfade.linear_crossfade_loss(torch.randn(8, 4), torch.randn(3, 4), target), Tensor)

# Criteria and schedules
criterion = crossfade.CrossfadeLoss(crossfade.gradual(), ignore_index=255)
assert_type(criterion.at(0.5), crossfade.CrossfadeLoss)
loss: Tensor = criterion.at(0.5)(logits, target)  # nn.Module's call is Any
assert_type(criterion.forward(logits, target), Tensor | tuple[Tensor, LossStats])
assert_type(crossfade.gradual()(0.5), crossfade.Weights)
assert_type(crossfade.weights(0.25).beta, float)


def own(progress: float) -> crossfade.Weights:
    return crossfade.Weights(1.0, progress)


schedules: list[crossfade.Schedule] = [own, crossfade.linear(), crossfade.staircase([0.0, 0.5])]
assert_type(migrate.from_poly(2.0), crossfade.CrossfadeLoss)
assert_type(migrate.from_gce(), Callable[[Tensor, Tensor], Tensor])

# Checks and measurements
assert_type(check_loss(crossfade.mae_loss, classes=3), LossReport)
assert_type(numeric_peak(squared, 101), Peak)
assert_type(gradient_curve(squared, torch.linspace(0, 1, 5)), Tensor)
assert_type(calibration(logits, target), Calibration)
assert_type(crossfade.fit_temperature(logits, target).value, float)

# Statistics
interval = stats.bootstrap_interval([0.1, 0.2, 0.15, 0.05])
assert_type(interval, stats.Interval)
assert_type(interval.low, float)
assert_type(stats.wilcoxon([0.9, 0.8, 0.7], [0.8, 0.7, 0.65]), tuple[float, float])
assert_type(stats.rank_matrix(pd.DataFrame({"a": [0.9, 0.8], "b": [0.8, 0.9]})), pd.DataFrame)


def comparison(table: pd.DataFrame, labels: list[str]) -> Path:
    """Compare losses, which needs data."""
    net: torch.nn.Module = load_model("weights/net.safetensors")
    assert_type(net.training, bool)
    answer = compare(table, labels, methods=["gradual", own, squared], repeats=2)
    assert_type(answer, ComparisonResult)
    assert_type(answer.table, pd.DataFrame)
    assert_type(answer.verdict, str)
    return answer.report("page.html")
