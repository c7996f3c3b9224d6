"""Scores of a part of the data as sums: over batches, and over processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tally"]

_BINS = 15
_COUNT, _LOSS_COUNT, _LOSS, _CORRECT, _NLL, _BRIER, _GAPS = range(7)
_COUNTS = _GAPS + _BINS
_FEW = 30  # classes


class Tally:
    """Sums from which accuracy, nll, ece and brier follow, the same numbers as ``crossfade.lab.scores``'.

    They stay on the device until they are asked for.

    Args:
        classes: With up to 30, what was taken for what is counted too: for f1 (of class 1 where there are two, else the
            mean over classes) and mcc (Matthews' correlation).
    """

    def __init__(self, classes: int = 0) -> None:
        self._sums: Tensor | None = None
        self._classes = classes if classes <= _FEW else 0

    def add_loss(self, loss: Tensor, count: int) -> None:
        """A batch's mean training loss."""
        sums = self._at(loss.device)
        sums[_LOSS_COUNT] += count
        sums[_LOSS] += loss * count

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """A batch of (N, C) logits and (N,) labels."""
        sums = self._at(logits.device)
        log_p = F.log_softmax(logits.to(sums.dtype), 1)
        p = log_p.exp()
        confidence, predicted = p.max(1)
        correct = (predicted == labels).to(sums.dtype)
        own = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        sums[_COUNT] += len(labels)
        sums[_CORRECT] += correct.sum()
        sums[_NLL] -= own.sum()
        sums[_BRIER] += (p.square().sum(1) - 2 * own.exp() + 1).sum()
        place = (confidence * _BINS).ceil().long().sub_(1).clamp_(0, _BINS - 1)
        sums[_GAPS:_COUNTS].index_add_(0, place, correct - confidence)
        if self._classes:
            sums[_COUNTS:].index_add_(0, labels * self._classes + predicted, torch.ones_like(confidence))

    def total(self, device: torch.device) -> Tensor:
        """The sums, to be added to other processes'."""
        return self._at(device)

    def scores(self, total: Tensor) -> dict[str, float]:
        """Means; NaN for what wasn't counted."""
        sums = total.double().cpu()
        count, losses = (float(sums[at]) or float("nan") for at in (_COUNT, _LOSS_COUNT))
        return {
            "loss": float(sums[_LOSS]) / losses,
            "accuracy": float(sums[_CORRECT]) / count,
            "nll": float(sums[_NLL]) / count,
            "ece": float(sums[_GAPS:_COUNTS].abs().sum()) / count,
            "brier": float(sums[_BRIER]) / count,
            **(_agreement(sums[_COUNTS:].numpy(), self._classes) if self._classes else {}),
        }

    def _at(self, device: torch.device) -> Tensor:
        if self._sums is None:
            dtype = torch.float32 if device.type == "mps" else torch.float64
            self._sums = torch.zeros(_COUNTS + self._classes**2, dtype=dtype, device=device)
        return self._sums


def _agreement(counts: NDArray[np.float64], classes: int) -> dict[str, float]:
    from sklearn.metrics import f1_score, matthews_corrcoef

    if not counts.sum():
        return {"f1": float("nan"), "mcc": float("nan")}
    true, predicted = np.divmod(np.arange(classes**2), classes)
    average = "binary" if classes == 2 else "macro"
    f1 = f1_score(true, predicted, average=average, sample_weight=counts, zero_division=0.0)
    return {"f1": float(f1), "mcc": float(matthews_corrcoef(true, predicted, sample_weight=counts))}
