"""The record of one network's training: the scores after each epoch, and the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenSplit
from crossfade.lab.train.outcome import Curve, Floats, History, chosen_epoch, probability_scores

_CURVES = ("val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss")


class Scores(NamedTuple):
    """Accuracy, mean cross entropy in nats and probabilities (N, classes) of a part; NaN without examples."""

    accuracy: float
    nll: float
    probabilities: Floats


def scores(logits: Tensor, labels: Tensor) -> Scores:
    """Return the scores of logits (N, classes)."""
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return Scores(accuracy, F.cross_entropy(logits, labels).item(), logits.softmax(1).float().cpu().numpy())


class Record:
    """The curves of a network, and its test probabilities at the best epoch so far."""

    def __init__(self, split: TokenSplit, recipe: LstmRecipe) -> None:
        self.epochs, self.select, self.labels = recipe.epochs, recipe.select, split.test.labels
        self.curves: dict[str, Curve] = {name: np.full(recipe.epochs, np.nan) for name in _CURVES}
        self.chosen, self.finite = -1, True
        self.probabilities: Floats = np.full((len(split.test), split.classes), np.nan, dtype=np.float32)

    def add(self, epoch: int, loss: float, val: Scores, test: Scores, finite: bool) -> bool:
        """Add an epoch, and return whether it is the best one so far.

        ``finite`` tells whether the weights are. Once weights or loss aren't finite, no epoch is added any more.
        """
        self.finite &= finite and bool(np.isfinite([loss, val.nll]).all())
        if not self.finite:
            return False
        for name, value in zip(_CURVES, (val.accuracy, test.accuracy, val.nll, test.nll, loss), strict=True):
            self.curves[name][epoch] = value
        if self.select == "validation" and chosen_epoch(self.curves["val_accuracy"]) != epoch:
            return False
        self.chosen, self.probabilities = epoch, test.probabilities
        return True

    def history(self, weights: Mapping[str, Floats], engine: str, device: str) -> History:
        """Return the history of a network with these weights at the chosen epoch."""
        found: dict[str, float] = {}
        if self.chosen < 0:
            weights = {name: np.full_like(weight, np.nan) for name, weight in weights.items()}
        elif len(self.probabilities):
            nll = float(self.curves["test_nll"][self.chosen])
            found = probability_scores(self.probabilities, self.labels, nll)
        return History(
            curves={"epoch": np.arange(1.0, self.epochs + 1), **self.curves},
            chosen=self.chosen,
            scores=found,
            weights=weights,
            probabilities=self.probabilities,
            finite=self.finite,
            engine=engine,
            device=device,
        )
