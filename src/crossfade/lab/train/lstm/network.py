"""The parts that both engines share: the LSTM classifier, its texts as tensors, and the record of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.lab.scores import calibrated_scores
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenPart, TokenSplit
from crossfade.lab.train.outcome import Curve, Floats, History, chosen_epoch, probability_scores

_CURVES = ("val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss")


class LstmClassifier(nn.Module):
    """Embedding, LSTM, and a linear layer on the LSTM's output at the last token of each text.

    ``forward``: tokens (batch, longest), padded at the right with any token number, and lengths (batch,) to logits
    (batch, classes).
    """

    def __init__(self, vocabulary: int, classes: int, recipe: LstmRecipe) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, recipe.embedding)
        self.lstm = nn.LSTM(recipe.embedding, recipe.hidden, recipe.layers)
        self.output = nn.Linear(recipe.hidden, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.embedding(tokens.t()))  # time first
        logits: Tensor = self.output(outputs[lengths - 1, torch.arange(len(tokens), device=tokens.device)])
        return logits


def initial_state(seed: int, vocabulary: int, classes: int, recipe: LstmRecipe) -> dict[str, Tensor]:
    """Return the weights that a new ``LstmClassifier`` draws from this seed. The global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LstmClassifier(vocabulary, classes, recipe).state_dict()


class Texts:
    """The examples of one or several parts, one part after the other, all padded to one length.

    Args:
        parts: At least one.
        multiple: The common length is that of the longest text, rounded up to a multiple of this.
    """

    def __init__(self, parts: Sequence[TokenPart], device: torch.device, multiple: int = 1) -> None:
        self.lengths: NDArray[np.int64] = np.concatenate([part.lengths for part in parts])
        tokens = np.concatenate([part.tokens for part in parts])
        longest = -(-int(self.lengths.max()) // multiple) * multiple
        # Padding changes no result. It is all words in turn, as a GPU adds up one word's gradients one by one.
        row = np.arange(longest, dtype=np.int32) % (tokens.max() + 1)
        padded = np.tile(row, (len(self.lengths), 1))
        padded[np.arange(longest) < self.lengths[:, None]] = tokens
        arrays = padded, self.lengths, np.concatenate([part.labels for part in parts])
        self._tokens, self._lengths, self._labels = (torch.from_numpy(array).to(device) for array in arrays)

    def rows(self, places: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (..., length), lengths (...) and labels (...) of the examples at these places (...).

        Places are on the device; ``length`` is that of the longest of these texts, or more, as far as texts are padded.
        """
        return self._tokens[places, :length], self._lengths[places], self._labels[places]


class Scores(NamedTuple):
    """Accuracy, mean cross entropy in nats and logits (N, classes) of a part."""

    accuracy: float
    nll: float
    logits: Tensor


def scores(logits: Tensor, labels: Tensor) -> Scores:
    """Return the scores of logits (N, classes)."""
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return Scores(accuracy, F.cross_entropy(logits, labels).item(), logits.cpu())


class Record:
    """The curves of a network, and its logits for the validation and the test part at the best epoch so far."""

    def __init__(self, split: TokenSplit, recipe: LstmRecipe) -> None:
        self.epochs, self.select, self.split = recipe.epochs, recipe.select, split
        self.curves: dict[str, Curve] = {name: np.full(recipe.epochs, np.nan) for name in _CURVES}
        self.chosen, self.finite = -1, True
        self.logits = [torch.full((len(part), split.classes), torch.nan) for part in (split.val, split.test)]

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
        self.chosen, self.logits = epoch, [val.logits, test.logits]
        return True

    def history(self, weights: Mapping[str, Floats], engine: str) -> History:
        """Return the history of a network with these weights at the chosen epoch."""
        found: dict[str, float] = {}
        probabilities = self.logits[1].softmax(1).float().numpy()
        if self.chosen < 0:
            weights = {name: np.full_like(weight, np.nan) for name, weight in weights.items()}
        else:
            nll = float(self.curves["test_nll"][self.chosen])
            found = probability_scores(probabilities, self.split.test.labels, nll)
            labels = (torch.from_numpy(part.labels) for part in (self.split.val, self.split.test))
            found |= calibrated_scores(*zip(self.logits, labels, strict=True))
        return History(
            curves={"epoch": np.arange(1.0, self.epochs + 1), **self.curves},
            chosen=self.chosen,
            scores=found,
            weights=weights,
            probabilities=probabilities,
            finite=self.finite,
            engine=engine,
        )
