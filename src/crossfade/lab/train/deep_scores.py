"""Scores of a part of the data as sums: over batches, and over processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Tally"]

_BINS = 15
_COUNT, _LOSS_COUNT, _LOSS, _CORRECT, _NLL, _BRIER, _GAPS = range(7)


class Tally:
    """Sums from which accuracy, nll, ece and brier follow, the same numbers as ``crossfade.lab.scores``'.

    They stay on the device until they are asked for.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None

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
        sums[_GAPS:].index_add_(0, place, correct - confidence)

    def total(self, device: torch.device) -> Tensor:
        """The sums, to be added to other processes'."""
        return self._at(device)

    @staticmethod
    def scores(total: Tensor) -> dict[str, float]:
        """Means; NaN for what wasn't counted."""
        sums = total.double().cpu()
        count, losses = (float(sums[at]) or float("nan") for at in (_COUNT, _LOSS_COUNT))
        return {
            "loss": float(sums[_LOSS]) / losses,
            "accuracy": float(sums[_CORRECT]) / count,
            "nll": float(sums[_NLL]) / count,
            "ece": float(sums[_GAPS:].abs().sum()) / count,
            "brier": float(sums[_BRIER]) / count,
        }

    def _at(self, device: torch.device) -> Tensor:
        if self._sums is None:
            dtype = torch.float32 if device.type == "mps" else torch.float64
            self._sums = torch.zeros(_GAPS + _BINS, dtype=dtype, device=device)
        return self._sums
