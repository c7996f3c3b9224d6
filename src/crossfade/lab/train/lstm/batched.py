"""The batched engine: many LSTM classifiers of one shape as one computation on a GPU, each step one CUDA graph.

A single network leaves a GPU mostly idle: its step consists of hundreds of kernel launches, each of which waits for the
one before. Here a launch serves all networks of the stack, whatever their method, seed and split, and the host launches
whole steps. On the CPU the same steps run without graphs, for tests. ``plain`` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crossfade.kernels.graphs import Graphs, begun, optimizer_state
from crossfade.kernels.recurrence import recurrence
from crossfade.lab.methods import value_table
from crossfade.lab.own_loss import value_and_slope
from crossfade.lab.train.epochs import epoch_batches, scoring_batches
from crossfade.lab.train.lstm.network import LstmClassifier, Record, Scores, Texts, initial_state, scores
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenPart
from crossfade.lab.train.outcome import Floats, History

SLOTS = 64  # networks in a stack at most
_LINE = 16  # numbers: the GPU reads aligned rows of a matrix in its widest pieces
_BUCKET = 16  # texts are padded to a multiple of this length, as each length needs a graph of its own


def train_batched(
    members: Sequence[LstmMember], recipe: LstmRecipe, device: str, on_progress: Callable[[float], None]
) -> list[History]:
    """Train all members, in stacks of one number of classes and of steps."""
    place, out, done = torch.device(device), dict[int, History](), 0

    def report(networks: int) -> None:
        nonlocal done
        done += networks
        on_progress(done / (len(members) * recipe.epochs))

    kinds: dict[tuple[int, int], list[int]] = {}
    for at, member in enumerate(members):
        kinds.setdefault((member.split.classes, recipe.steps(len(member.split.train))), []).append(at)
    with _as_cudnn():
        for alike in kinds.values():
            for start in range(0, len(alike), SLOTS):
                chosen = alike[start : start + SLOTS]
                stream = torch.cuda.Stream(place) if place.type == "cuda" else None  # type: ignore[no-untyped-call]
                with torch.cuda.stream(stream):
                    stack = _Stack([members[at] for at in chosen], recipe, place, stream)
                    out.update(zip(chosen, stack.train(partial(report, len(chosen))), strict=True))
                del stack  # the next one needs its memory
    return [out[at] for at in range(len(members))]


@contextmanager
def _as_cudnn() -> Iterator[None]:
    """Allow TF32 in matrix products if PyTorch allows it in cuDNN's LSTM, which is its default."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _Stack:
    """Networks of one shape, and their batches."""

    def __init__(
        self, members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self.members, self.recipe, self.device = members, recipe, device
        self.graphs = Graphs(device, self._changing, stream=stream)
        self.networks = _Networks(members, recipe, device)
        cuda, weights = device.type == "cuda", self.networks.weights.values()
        self.optimizer = begun(torch.optim.Adam(weights, recipe.learning_rate, fused=cuda or None, capturable=cuda))
        self.batches: dict[str, Batches] = {}
        self.lengths: dict[str, list[int]] = {}
        self.logits: dict[str, Tensor] = {}
        for name in ("train", "val", "test"):
            parts = [member.split.parts[name] for member in members]
            batches = self.batches[name] = Batches(parts, min(recipe.batch_size, max(map(len, parts))), device)
            if name != "train":
                orders = {part: scoring_batches(part.lengths, recipe.batch_size) for part in parts}
                self.lengths[name] = batches.lay([orders[part] for part in parts])
                shape = (len(self.lengths[name]), len(members), batches.rows, self.networks.classes)
                self.logits[name] = torch.empty(shape, device=device)
        moves = recipe.moves(len(members[0].split.train))
        tables = [value_table(member.method, recipe.epochs, moves) for member in members]
        columns = max(2, *(table.shape[2] for table in tables))
        padded = [np.pad(table, ((0, 0), (0, 0), (0, columns - table.shape[2]))) for table in tables]
        self.values = torch.from_numpy(np.stack(padded, -1)).to(device)  # epoch, step, (alpha, beta or others), member
        methods = [member.method for member in members]
        self.custom = [
            (method, at, torch.tensor([other is method for other in methods], device=device)[:, None])
            for at, method in enumerate(methods)
            if method.own is not None and all(other is not method for other in methods[:at])
        ]
        self.epoch, self.step = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.lost = torch.zeros(len(members), dtype=torch.float64, device=device)

    def _changing(self) -> list[Tensor]:
        return [*self.networks.weights.values(), *optimizer_state(self.optimizer), self.step, self.lost]

    def train(self, on_epoch: Callable[[], None]) -> list[History]:
        records = [Record(member.split, self.recipe) for member in self.members]
        for epoch in range(self.recipe.epochs):
            losses = self._train_epoch(epoch)
            finite = self.networks.finite()
            logits = {name: self._scored(name) for name in self.logits}
            improved = []
            for at, record in enumerate(records):
                val, test = (self._scores(name, at, logits) for name in ("val", "test"))
                if record.add(epoch, losses[at], val, test, finite[at]):
                    improved.append(at)
            self.networks.keep(improved)
            on_epoch()
        return [record.history(self.networks.kept(at), "batched") for at, record in enumerate(records)]

    def _train_epoch(self, epoch: int) -> list[float]:
        """Return the mean loss of each network's examples."""
        sources = [(member.split.train, member.seed) for member in self.members]
        size = self.recipe.batch_size
        orders = {(part, seed): epoch_batches(seed, epoch, part.lengths, size) for part, seed in set(sources)}
        lengths = self.batches["train"].lay([orders[source] for source in sources])
        self.epoch.fill_(epoch)
        self.step.zero_()
        self.lost.zero_()
        for length in lengths:
            self.graphs.run(("train", length), partial(self._step, length))
        return [lost / len(member.split.train) for lost, member in zip(self.lost.tolist(), self.members, strict=True)]

    def _step(self, length: int) -> None:
        tokens, lengths, labels, real = self.batches["train"].batch(self.step, length)
        self.optimizer.zero_grad()
        logits = self.networks.logits(tokens, lengths)
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
        """Return g'(ce) and g(ce) of every network and row."""
        table = self.values.index_select(0, self.epoch)[0]
        values = table.index_select(0, self.step.clamp(max=len(table) - 1))[0]
        alpha, beta = values[:2, :, None]
        p = (-ce).exp()
        # Without CE an infinite ce must not become NaN as 0 * inf.
        slope, loss = alpha + beta * p, alpha * torch.where(alpha == 0, 0.0, ce) + beta * (1 - p)
        for method, at, mine in self.custom:
            g = method.transform(values[: len(method.names), at].unbind())
            value, own = (part.view_as(ce) for part in value_and_slope(g, ce.flatten()))
            slope, loss = torch.where(mine, own, slope), torch.where(mine, value, loss)
        return slope, loss

    @torch.no_grad()
    def _scored(self, name: str) -> Tensor:
        """Return a part's logits (network, step, row, class) on the host."""
        self.step.zero_()
        for length in self.lengths[name]:
            self.graphs.run((name, length), partial(self._show, name, length))
        return self.logits[name].transpose(0, 1).cpu()

    def _show(self, name: str, length: int) -> None:
        tokens, lengths, *_ = self.batches[name].batch(self.step, length)
        self.logits[name].index_copy_(0, self.step, self.networks.logits(tokens, lengths)[None])
        self.step.add_(1)

    def _scores(self, name: str, at: int, logits: dict[str, Tensor]) -> Scores:
        batches = self.batches[name]
        return scores(batches.own(logits[name][at], at), torch.from_numpy(batches.parts[at].labels))


class Batches:
    """The batches of one epoch of the training or another part, in memory whose address graphs can rely on.

    Args:
        parts: The part of each network; several networks may share the object.
        rows: The size of the largest batch.
    """

    def __init__(self, parts: Sequence[TokenPart], rows: int, device: torch.device) -> None:
        self.parts, self.rows, self.device = parts, rows, device
        distinct = list(dict.fromkeys(parts))
        begins = np.cumsum([0, *map(len, distinct)])
        self.first = [int(begins[distinct.index(part)]) for part in parts]
        self.texts = Texts(distinct, device, _BUCKET)
        self.order: NDArray[np.int64] = np.zeros((0, 0, 0), dtype=np.int64)  # step, network, row; -1 for none
        self.on_device = torch.empty(0, dtype=torch.int64, device=device)

    def lay(self, batches: Sequence[Sequence[NDArray[np.int64]]]) -> list[int]:
        """Copy the networks' batches to the device, always the same number, and return each step's padded length."""
        self.order = np.full((max(map(len, batches)), len(batches), self.rows), -1, dtype=np.int64)
        for at, (first, mine) in enumerate(zip(self.first, batches, strict=True)):
            for step, places in enumerate(mine):
                self.order[step, at, : len(places)] = places + first
        if not len(self.on_device):
            self.on_device = torch.empty(self.order.shape, dtype=torch.int64, device=self.device)
        self.on_device.copy_(torch.from_numpy(self.order))
        longest = np.where(self.order < 0, 1, self.texts.lengths[self.order]).max((1, 2))
        return [int(length) for length in -(-longest // _BUCKET) * _BUCKET]

    def batch(self, step: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the batches of a step, given its number as a tensor (1,).

        They are tokens (networks, rows, length) and for every row a length, a label, and whether it is real, as smaller
        batches are filled up.
        """
        order = self.on_device.index_select(0, step)[0]
        real = order >= 0
        tokens, lengths, labels = self.texts.rows(order.clamp(min=0), length)
        return tokens, torch.where(real, lengths, 1), labels, real

    def own(self, values: Tensor, at: int) -> Tensor:
        """Return a network's values (steps, rows, ...) as one value for each example, in the order of its part."""
        order = torch.from_numpy(self.order[:, at])
        out = values.new_empty(len(self.parts[at]), *values.shape[2:])
        out[order[order >= 0] - self.first[at]] = values[order >= 0]
        return out


class _Networks:
    """The members' networks, each equal to an ``LstmClassifier`` with its initial weights.

    Cells, vectors of words and vocabularies are padded to common sizes. The weights of the padding are zero and stay
    so, because their gradients are zero.

    Attributes:
        weights: The stacked weights by their names, one network along the first axis.
    """

    def __init__(self, members: Sequence[LstmMember], recipe: LstmRecipe, device: torch.device) -> None:
        self.members, self.recipe, self.device = members, recipe, device
        self.classes, self.vocabulary = members[0].split.classes, max(member.split.vocabulary for member in members)
        self.cells = _padded(recipe.hidden)
        wide = replace(recipe, embedding=_padded(recipe.embedding), hidden=self.cells)
        distinct = list(dict.fromkeys((member.seed, member.split.vocabulary) for member in members))
        places = [distinct.index((member.seed, member.split.vocabulary)) for member in members]
        states = [initial_state(seed, vocabulary, self.classes, recipe) for seed, vocabulary in distinct]
        self.weights: dict[str, Tensor] = {}
        for name, shape in _shapes(self.vocabulary, self.classes, wide).items():
            filled = torch.zeros(len(states), *shape)
            for weight, state in zip(filled, states, strict=True):
                own = _own(name, weight, state[name].shape)
                own.copy_(state[name].view_as(own))
            self.weights[name] = filled[places].to(device).requires_grad_()
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return (networks, rows, classes) from tokens (networks, rows, length) and lengths (networks, rows)."""
        weights, (count, rows, length) = self.weights, tokens.shape
        words = tokens.mT.flatten(1)  # by time first
        words = words + self.vocabulary * torch.arange(count, device=self.device)[:, None]
        values = weights["embedding.weight"].flatten(0, 1).index_select(0, words.flatten()).view(*words.shape, -1)
        for layer in range(self.recipe.layers):
            bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
            gates = torch.baddbmm(bias[:, None], values, weights[f"lstm.weight_ih_l{layer}"].mT)
            states = recurrence(gates.view(count, length, rows, -1), weights[f"lstm.weight_hh_l{layer}"])
            values = states.flatten(1, 2)
        last = (lengths - 1)[:, None, :, None].expand(-1, 1, -1, self.cells)
        return torch.baddbmm(weights["output.bias"][:, None], states.gather(1, last)[:, 0], weights["output.weight"].mT)

    def clip(self, limit: float) -> None:
        """Limit the 2-norm of each network's whole gradient, as ``clip_grad_norm_`` does."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def finite(self) -> list[bool]:
        each = [weight.flatten(1).isfinite().all(1) for weight in self.weights.values()]
        found: list[bool] = torch.stack(each).all(0).tolist()
        return found

    @torch.no_grad()
    def keep(self, places: Sequence[int]) -> None:
        for name, weight in self.weights.items():
            self.best[name][places] = weight[places]

    def kept(self, at: int) -> dict[str, Floats]:
        """Return the best weights of one network, as the ``state_dict()`` of its ``LstmClassifier``."""
        shapes = _shapes(self.members[at].split.vocabulary, self.classes, self.recipe)
        own = {name: _own(name, self.best[name][at].cpu(), shape).reshape(shape) for name, shape in shapes.items()}
        return {name: weight.numpy().copy() for name, weight in own.items()}


def _shapes(vocabulary: int, classes: int, recipe: LstmRecipe) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: one.shape for name, one in LstmClassifier(vocabulary, classes, recipe).state_dict().items()}


def _own(name: str, filled: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a view of a padded weight without its padding; an LSTM's weight gets an axis for the gates."""
    if name.startswith("lstm."):
        filled, shape = filled.view(4, -1, *filled.shape[1:]), (4, shape[0] // 4, *shape[1:])
    return filled[tuple(map(slice, shape))]


def _padded(size: int) -> int:
    """Return a number of cells or places of a vector, rounded up."""
    return -(-size // _LINE) * _LINE
