"""The plain PyTorch loop: what the fast engine must agree with. One network, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.train.lstm.setup import (
    better,
    empty_curves,
    epoch_batches,
    history,
    initial_state,
    mixture,
    scoring_batches,
)
from crossfade.lab.train.lstm.types import LstmHistory, LstmMember, LstmRecipe, TokenPart
from crossfade.lab.train.outcome import Floats

Batch = tuple[Tensor, Tensor, Tensor]


class LstmClassifier(nn.Module):
    """Embedding, LSTM, and a linear layer on the LSTM's output at the last token of each text.

    ``forward``: tokens (batch, longest), filled up at the right with any token number, and lengths (batch,) to logits
    (batch, classes).
    """

    def __init__(self, vocabulary: int, classes: int, recipe: LstmRecipe) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, recipe.embedding)
        self.lstm = nn.LSTM(recipe.embedding, recipe.hidden, recipe.layers, batch_first=True)
        self.output = nn.Linear(recipe.hidden, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.output(outputs[torch.arange(len(tokens), device=tokens.device), lengths - 1])
        return logits


def pad(part: TokenPart, rows: NDArray[np.int32], device: str = "cpu") -> Batch:
    """Tokens (batch, longest) filled up with zeros, lengths and labels of these examples."""
    lengths = part.lengths[rows]
    places = np.arange(lengths.max())[None, :] < lengths[:, None]
    tokens = np.zeros(places.shape, dtype=np.int64)
    tokens[places] = np.concatenate([part.tokens[part.offsets[i] : part.offsets[i + 1]] for i in rows])
    arrays = (tokens, lengths, part.labels[rows])
    return tuple(torch.from_numpy(array).to(device) for array in arrays)  # type: ignore[return-value]


def train_plain(
    member: LstmMember, recipe: LstmRecipe, device: str, on_epoch: Callable[[int], None], dtype: Any = torch.float32
) -> LstmHistory:
    """Train one member. ``on_epoch`` is told how many epochs are done."""
    split, method = member.split, member.method
    net = LstmClassifier(split.vocabulary, split.classes, recipe).to(device, dtype)
    initial = initial_state(member.seed, split.vocabulary, split.classes, recipe)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in initial.items()})
    optimizer = torch.optim.Adam(net.parameters(), recipe.learning_rate)
    table = mixture(method.schedule, recipe, len(split.train))
    curves, chosen, best = empty_curves(recipe.epochs), -1, _weights(net)
    shown = np.zeros((len(split.test), split.classes), dtype=np.float32)
    for epoch in range(recipe.epochs):
        order, starts = epoch_batches(member.seed, epoch, split.train.lengths, recipe.batch_size)
        lost = 0.0
        for step, rows in enumerate(np.split(order, starts[1:-1])):
            alpha, beta = table[epoch, min(step, table.shape[1] - 1)].tolist()
            tokens, lengths, target = pad(split.train, rows, device)
            logits = net(tokens, lengths)
            if method.g is None:
                loss = crossfade_loss(logits, target, alpha=alpha, beta=beta)
            else:
                loss = probability_loss(method.g, logits, target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip:
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimizer.step()
            lost += loss.item() * len(rows)
        validation, test = (score(net, part, recipe.batch_size, device) for part in (split.val, split.test))
        row = (lost / len(split.train), *validation[:2], *test[:2])
        if not (np.isfinite([row[0], row[2]]).all() and all(bool(p.isfinite().all()) for p in net.parameters())):
            break
        curves[epoch] = row
        if better(curves, epoch, chosen, recipe.select):
            chosen, best, shown = epoch, _weights(net), test[2] if len(split.test) else shown
        on_epoch(epoch + 1)
    return history(curves, chosen, shown, best, "plain")


def _weights(net: nn.Module) -> dict[str, Floats]:
    return {name: value.detach().float().cpu().numpy().copy() for name, value in net.state_dict().items()}


@torch.no_grad()
def score(net: nn.Module, part: TokenPart, batch_size: int, device: str = "cpu") -> tuple[float, float, Floats]:
    """Accuracy and mean CE (NaN without examples), and the probabilities (N, classes) in the part's order."""
    if not len(part):
        return float("nan"), float("nan"), np.zeros((0, 0), dtype=np.float32)
    order, starts = scoring_batches(part.lengths, batch_size)
    pieces = []
    for rows in np.split(order, starts[1:-1]):
        tokens, lengths, _ = pad(part, rows, device)
        pieces.append(net(tokens, lengths))
    logits = torch.empty_like(torch.cat(pieces))
    logits[torch.from_numpy(order.astype(np.int64)).to(device)] = torch.cat(pieces)
    labels = torch.from_numpy(part.labels).to(device)
    right = (logits.argmax(1) == labels).double().mean().item()
    return right, F.cross_entropy(logits, labels).item(), logits.softmax(1).float().cpu().numpy()
