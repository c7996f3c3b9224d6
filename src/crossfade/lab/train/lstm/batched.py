"""Many LSTM classifiers of one shape as one batched computation, for a GPU: a training step is one CUDA graph.

One such network leaves a GPU idle: its step is hundreds of launches, each of which waits for the one before. Here a
launch serves all networks of the stack, whatever their method, seed and split, and the host starts whole steps. On the
CPU the same steps run without graphs, for tests. ``lstm_plain`` is the reference beside this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade.lab.own_loss import value_and_slope
from crossfade.lab.train.graphs import Graphs, begun, optimizer_state
from crossfade.lab.train.lstm.feed import Feed
from crossfade.lab.train.lstm.networks import Networks, filled
from crossfade.lab.train.lstm.setup import (
    better,
    empty_curves,
    epoch_batches,
    history,
    mixture,
    scoring_batches,
)
from crossfade.lab.train.lstm.types import LstmHistory, LstmMember, LstmRecipe
from crossfade.lab.train.outcome import Floats

__all__ = ["SLOTS", "train_batched"]

SLOTS = 64  # networks in a stack at most
_SHARE = 0.6  # of the free memory


def train_batched(
    members: Sequence[LstmMember], recipe: LstmRecipe, device: str, on_progress: Callable[[float], None]
) -> list[LstmHistory]:
    """Train all members, in stacks of one number of classes and of steps."""
    place, done = torch.device(device), 0
    order = sorted(range(len(members)), key=lambda i: _kind(members[i], recipe))
    out: dict[int, LstmHistory] = {}

    def report(networks: int) -> None:
        nonlocal done
        done += networks
        on_progress(done / (len(members) * recipe.epochs))

    with _as_cudnn():
        for _, alike in groupby(order, key=lambda i: _kind(members[i], recipe)):
            group = list(alike)
            slots = _slots([members[i] for i in group], recipe, place)
            for start in range(0, len(group), slots):
                chosen = group[start : start + slots]
                done_one = partial(report, len(chosen))
                out.update(zip(chosen, _trained([members[i] for i in chosen], recipe, place, done_one), strict=True))
    return [out[i] for i in range(len(members))]


def _trained(
    members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device, on_epoch: Callable[[], None]
) -> list[LstmHistory]:
    """One stack, which is gone afterwards."""
    stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        return _Stack(members, recipe, device, stream).train(on_epoch)


def _kind(member: LstmMember, recipe: LstmRecipe) -> tuple[int, int, bool]:
    split = member.split
    return split.classes, -(-len(split.train) // recipe.batch_size), len(split.test) > 0


def _slots(members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device) -> int:
    """How many networks fit into the device's memory, roughly."""
    if device.type != "cuda":
        return SLOTS
    torch.cuda.empty_cache()  # of earlier stacks, which count as taken
    free = torch.cuda.mem_get_info(device)[0]
    splits = {id(member.split): member.split for member in members}.values()
    longest = max(int(part.lengths.max(initial=1)) for one in splits for part in (one.train, one.val, one.test))
    embedding, hidden = filled(recipe.embedding), filled(recipe.hidden)
    texts = recipe.batch_size * longest * (3 * embedding + 20 * hidden * recipe.layers)
    words = 6 * max(split.vocabulary for split in splits) * embedding
    return max(1, min(SLOTS, int(_SHARE * free / (4 * (texts + words)))))


@contextmanager
def _as_cudnn() -> Iterator[None]:
    """Matrix products in TF32 where PyTorch lets cuDNN's LSTM have it, as it does by default."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _Stack:
    """Networks of one shape. ``sources`` are their different pairs of a split and a seed: who sees the same batches."""

    def __init__(self, members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device, stream: Any) -> None:
        self.members, self.recipe, self.device = members, recipe, device
        self.graphs = Graphs(device, self._changing, stream=stream)
        pairs = {(id(member.split), member.seed): member for member in members}
        self.sources, places = list(pairs.values()), list(pairs)
        self.source = [places.index((id(member.split), member.seed)) for member in members]
        self.of = torch.tensor(self.source, device=device)
        self.classes = members[0].split.classes
        self.networks = Networks(members, recipe, device)
        adam = {"fused": True, "capturable": True} if device.type == "cuda" else {}
        weights = self.networks.weights.values()
        self.optimizer = begun(torch.optim.Adam(weights, recipe.learning_rate, **adam))  # type: ignore[arg-type]
        self.feeds, self.lengths, self.logits = {}, {}, {}
        for name in ("train", "val", "test"):
            parts = [getattr(member.split, name) for member in self.sources]
            most = max(map(len, parts))
            if most:
                self.feeds[name] = Feed(parts, min(recipe.batch_size, most), device)
            if most and name != "train":
                orders = [scoring_batches(part.lengths, recipe.batch_size) for part in parts]
                self.lengths[name] = self.feeds[name].lay(orders)
                shape = (len(self.lengths[name]), len(members), self.feeds[name].rows, self.classes)
                self.logits[name] = torch.empty(shape, device=device)
        tables = [mixture(member.method.schedule, recipe, len(member.split.train)) for member in members]
        self.mixture = torch.from_numpy(np.stack(tables, -1)).to(device)  # epoch, step, (alpha, beta), member
        losses = {id(member.method.g): member.method.g for member in members}.values()
        self.custom = [
            (g, torch.tensor([member.method.g is g for member in members], device=device)[:, None])
            for g in losses
            if g is not None
        ]
        self.epoch, self.step = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.lost = torch.zeros(len(members), dtype=torch.float64, device=device)

    def _changing(self) -> list[Tensor]:
        return [*self.networks.weights.values(), *optimizer_state(self.optimizer), self.step, self.lost]

    def train(self, on_epoch: Callable[[], None]) -> list[LstmHistory]:
        recipe, members = self.recipe, self.members
        curves = [empty_curves(recipe.epochs) for _ in members]
        shown = [np.zeros((len(member.split.test), self.classes), dtype=np.float32) for member in members]
        chosen, alive = [-1] * len(members), [True] * len(members)
        for epoch in range(recipe.epochs):
            losses = self._train_epoch(epoch)
            finite = self.networks.finite()
            logits = {name: self._scored(name) for name in self.logits}
            improved = []
            for at, (member, sound) in enumerate(zip(members, finite, strict=True)):
                scores = {name: self._scores(name, at, logits) for name in ("val", "test")}
                row = (losses[at] / len(member.split.train), *scores["val"][:2], *scores["test"][:2])
                alive[at] &= sound and bool(np.isfinite([row[0], row[2]]).all())
                if not alive[at]:
                    continue
                curves[at][epoch] = row
                if better(curves[at], epoch, chosen[at], recipe.select):
                    chosen[at], shown[at] = epoch, scores["test"][2]
                    improved.append(at)
            self.networks.keep(improved)
            on_epoch()
        kept = map(self.networks.kept, range(len(members)))
        return [history(*one, "batched") for one in zip(curves, chosen, shown, kept, strict=True)]

    def _train_epoch(self, epoch: int) -> list[float]:
        """Sums of the losses of each network's examples."""
        lengths = self.feeds["train"].lay(
            [epoch_batches(m.seed, epoch, m.split.train.lengths, self.recipe.batch_size) for m in self.sources]
        )
        self.epoch.fill_(epoch)
        self.step.zero_()
        self.lost.zero_()
        for length in lengths:
            self.graphs.run(("train", length), partial(self._step, length))
        return self.lost.tolist()

    def _step(self, length: int) -> None:
        texts = self.feeds["train"].batch(self.step, length)
        self.optimizer.zero_grad()
        labels, real = texts.labels[self.of], texts.real[self.of]
        logits = self.networks.logits(texts.tokens[self.of], texts.lengths[self.of])
        ce = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        with torch.no_grad():
            slope, loss = self._transformed(ce)
            self.lost.add_(torch.where(real, loss, 0.0).sum(1))
            slope = torch.where(real, slope / real.sum(1, keepdim=True), 0.0)
        torch.autograd.backward(ce, slope)
        if self.recipe.clip:
            self.networks.clip(self.recipe.clip)
        self.optimizer.step()
        self.step.add_(1)

    def _transformed(self, ce: Tensor) -> tuple[Tensor, Tensor]:
        """g'(ce) and g(ce) of every network and row."""
        table = self.mixture.index_select(0, self.epoch)[0]
        alpha, beta = table.index_select(0, self.step.clamp(max=len(table) - 1))[0, :, :, None]
        p = (-ce).exp()
        # The weight 0 turns CE off even where it is infinite.
        slope, loss = alpha + beta * p, alpha * torch.where(alpha == 0, 0.0, ce) + beta * (1 - p)
        for g, mine in self.custom:
            value, own = (part.view_as(ce) for part in value_and_slope(g, ce.flatten()))
            slope, loss = torch.where(mine, own, slope), torch.where(mine, value, loss)
        return slope, loss

    @torch.no_grad()
    def _scored(self, name: str) -> Floats:
        """Logits (network, step, row, class) of a part."""
        self.step.zero_()
        for length in self.lengths[name]:
            self.graphs.run((name, length), partial(self._show, name, length))
        return self.logits[name].transpose(0, 1).cpu().numpy()

    def _show(self, name: str, length: int) -> None:
        texts = self.feeds[name].batch(self.step, length)
        logits = self.networks.logits(texts.tokens[self.of], texts.lengths[self.of])
        self.logits[name].index_copy_(0, self.step, logits[None])
        self.step.add_(1)

    def _scores(self, name: str, at: int, logits: dict[str, Floats]) -> tuple[float, float, Floats]:
        """Accuracy, mean CE and probabilities in the part's order; NaN without examples."""
        if name not in logits:
            return float("nan"), float("nan"), np.zeros((0, self.classes), dtype=np.float32)
        source = self.source[at]
        own = torch.from_numpy(self.feeds[name].own(logits[name][at], source))
        labels = torch.from_numpy(self.feeds[name].parts[source].labels)
        right = (own.argmax(1) == labels).double().mean().item()
        return right, F.cross_entropy(own, labels).item(), own.softmax(1).numpy()
