"""The LSTM classifier as a PyTorch module, its initial weights, and texts as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenPart


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
        longest = -(-int(self.lengths.max(initial=1)) // multiple) * multiple
        # What pads a text changes nothing. All words in turn, as a GPU adds gradients to one word one after the other.
        padded = np.tile(np.arange(longest) % (tokens.max(initial=0) + 1), (len(self.lengths), 1)).astype(np.int32)
        padded[np.arange(longest) < self.lengths[:, None]] = tokens
        arrays = padded, self.lengths, np.concatenate([part.labels for part in parts])
        self._tokens, self._lengths, self._labels = (torch.from_numpy(array).to(device) for array in arrays)

    def rows(self, places: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (..., length), lengths (...) and labels (...) of the examples at these places (...).

        Places are on the device; ``length`` is that of the longest of these texts, or more, as far as texts are padded.
        """
        return self._tokens[places, :length], self._lengths[places], self._labels[places]
