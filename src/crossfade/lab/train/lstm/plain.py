"""The plain engine, which trains each network by itself with ``nn.LSTM``: the CPU's, and the batched one's reference.

On a CPU PyTorch computes a whole LSTM layer in one call of oneDNN, which is faster than anything made of PyTorch's
smaller operations. Such networks gain nothing from being stacked, and a lot from a processor core for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from copy import copy, deepcopy
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crossfade.lab.methods import ScaledRate, TwoPass, starts, take_step, value_table
from crossfade.lab.train.epochs import epoch_batches, scoring_batches
from crossfade.lab.train.lstm.network import LstmClassifier, Record, Scores, Texts, initial_state, scores
from crossfade.lab.train.lstm.recipe import LstmMember, LstmRecipe
from crossfade.lab.train.lstm.tokens import TokenSplit
from crossfade.lab.train.outcome import Floats, History

_POLL = 0.2  # seconds between reports of progress
Parts = Mapping[str, Texts]


class Training:
    """One network in training.

    Attributes:
        done: The number of finished epochs, with a fraction within an epoch; all once weights or loss aren't finite.
    """

    def __init__(
        self, member: LstmMember, recipe: LstmRecipe, texts: Parts, device: torch.device, dtype: torch.dtype
    ) -> None:
        split = member.split
        self.member, self.recipe, self.texts, self.device = member, recipe, texts, device
        self.net = LstmClassifier(split.vocabulary, split.classes, recipe)
        self.net.load_state_dict(initial_state(member.seed, split.vocabulary, split.classes, recipe))
        self.net.to(device, dtype)
        fused = device.type in ("cpu", "cuda")
        self.optimizers = [  # one for each pass
            torch.optim.Adam(self.net.parameters(), recipe.learning_rate, fused=fused)
            for _ in range(2 if isinstance(member.method, TwoPass) else 1)
        ]
        self.record, self.weights = Record(split, recipe), _weights(self.net)
        self.values = value_table(member.method, recipe.epochs, recipe.moves(len(split.train)))
        self.done = 0.0

    def fork(self, member: LstmMember) -> Training:
        """Return a copy that continues with another member, whose training has been the same so far."""
        other = copy(self)
        other.member = member
        other.values = value_table(member.method, self.recipe.epochs, self.values.shape[1])
        # One call for all, so that the copied optimizer refers to the copied weights.
        other.net, other.optimizers, other.record, other.weights = deepcopy(
            (self.net, self.optimizers, self.record, self.weights)
        )
        return other

    def train_epoch(self, stop: threading.Event) -> None:
        """Train for an epoch and score it.

        Raises:
            CancelledError: soon after ``stop`` was set.
        """
        recipe, split, epoch, total_loss = self.recipe, self.member.split, int(self.done), 0.0
        method, moves = self.member.method, self.values.shape[1]
        batches = epoch_batches(self.member.seed, epoch, split.train.lengths, recipe.batch_size)
        for step, places in enumerate(batches):
            if stop.is_set():
                raise CancelledError
            move = min(step, moves - 1)
            values, rate = self.values[epoch, move].tolist(), recipe.learning_rate
            if isinstance(method, ScaledRate):
                rate *= method.factor((epoch + move / moves) / recipe.epochs)
            tokens, lengths, target = self._rows("train", places)
            outputs = partial(self.net, tokens, lengths)
            loss, _ = take_step(method, self.optimizers, outputs, target, values, rate, recipe.clip)
            total_loss += loss * len(places)
            self.done = epoch + step / len(batches)
        finite = all(bool(weight.isfinite().all()) for weight in self.net.parameters())
        val, test = self._scores("val", stop), self._scores("test", stop)
        if self.record.add(epoch, total_loss / len(split.train), val, test, finite):
            self.weights = _weights(self.net)
        self.done = epoch + 1.0 if self.record.finite else float(recipe.epochs)

    def _rows(self, part: str, places: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        texts = self.texts[part]
        return texts.rows(torch.from_numpy(places).to(self.device), int(texts.lengths[places].max()))

    @torch.no_grad()
    def _scores(self, part: str, stop: threading.Event) -> Scores:
        batches = scoring_batches(self.texts[part].lengths, self.recipe.batch_size)
        logits, labels = [], []
        for places in batches:
            if stop.is_set():
                raise CancelledError
            tokens, lengths, target = self._rows(part, places)
            logits.append(self.member.method.class_scores(self.net(tokens, lengths)))
            labels.append(target)
        order = np.argsort(np.concatenate(batches))
        return scores(torch.cat(logits)[order], torch.cat(labels)[order])


def _weights(net: nn.Module) -> dict[str, Floats]:
    return {name: value.float().cpu().numpy().copy() for name, value in net.state_dict().items()}


def train_plain(
    members: Sequence[LstmMember],
    recipe: LstmRecipe,
    *,
    device: str = "cpu",
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda fraction: None,
    dtype: torch.dtype = torch.float32,
) -> list[History]:
    """Train every member; epochs that several members have in common are trained once.

    Args:
        threads: How many networks are trained at the same time, each on one core. The results don't depend on it.
        dtype: The type of weights and computation; float64 is for tests.
    """
    methods, groups = [member.method for member in members], [(member.split, member.seed) for member in members]
    begins = starts(methods, groups, recipe.epochs, [recipe.moves(len(member.split.train)) for member in members])
    where = torch.device(device)
    texts: dict[TokenSplit, Parts] = {}
    for split in dict.fromkeys(member.split for member in members):
        texts[split] = {name: Texts([part], where) for name, part in split.parts.items()}
    begun: dict[int, Training] = {}  # by the member's index
    running: dict[Future[None], int] = {}
    total = sum(_cost(member) * (recipe.epochs - start.epoch) for member, start in zip(members, begins, strict=True))

    def begin() -> None:
        """Begin the trainings that can begin: from scratch, or from a source that has reached the epoch to fork at."""
        for at, (member, (source, epoch)) in enumerate(zip(members, begins, strict=True)):
            if at in begun:
                continue
            if source is None:
                begun[at] = Training(member, recipe, texts[member.split], where, dtype)
            elif source in begun and source not in running.values() and begun[source].done in (epoch, recipe.epochs):
                begun[at] = begun[source].fork(member)

    stop, before = threading.Event(), torch.get_num_threads()
    with ThreadPoolExecutor(threads, "crossfade", initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            while True:
                begin()
                idle = [at for at, one in begun.items() if one.done < recipe.epochs and at not in running.values()]
                # The one with the most work left comes first, so that all threads finish at about the same time.
                idle.sort(key=lambda at: _cost(members[at]) * (recipe.epochs - begun[at].done), reverse=True)
                for at in idle[: threads - len(running)]:
                    running[pool.submit(begun[at].train_epoch, stop)] = at
                if not running:
                    trained = [begun[at] for at in range(len(members))]
                    return [one.record.history(one.weights, "plain") for one in trained]
                for future in wait(running, _POLL, FIRST_COMPLETED).done:
                    del running[future]
                    future.result()
                done = sum(_cost(members[at]) * (one.done - begins[at].epoch) for at, one in begun.items())
                on_progress(min(done / total, 1.0))
        finally:
            stop.set()
            torch.set_num_threads(before)  # otherwise the initializer's number holds for later threads, too


def _cost(member: LstmMember) -> int:
    return len(member.split.train.tokens)
