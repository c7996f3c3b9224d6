"""One network in training as a CUDA graph takes it: whatever a step reads and writes stays where it is.

On the CPU the same steps run without graphs.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from crossfade._transforms import Transform
from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.methods import Method
from crossfade.lab.train.deep.batches import Batch, epoch_seed
from crossfade.lab.train.deep.lightning import DeepHistory
from crossfade.lab.train.deep.record import Observer, Record, scored, step_settings
from crossfade.lab.train.graphs import Graphs, begun, optimizer_state
from crossfade.lab.train.hardware import Hardware

__all__ = ["Feed", "Job", "Kind", "Member"]

Kind: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train.

    Args:
        split: Data of its repeat; jobs of a repeat share the object.
        method: The loss.
        seed: Of initial weights, order, augmentation and dropout; the same for the methods of a repeat.
        folder: For its checkpoint (``beside.ckpt``), from which training goes on; None: nothing is written.
        observe: As for :func:`crossfade.lab.train.deep.lightning.train`.
    """

    split: Any
    method: Method
    seed: int
    folder: Path | None = None
    observe: Observer | None = None


def _loss(
    forward: Callable[[nn.Module, Any], Tensor],
    net: nn.Module,
    g: Transform | None,
    x: Any,
    y: Tensor,
    alpha: Tensor,
    beta: Tensor,
) -> Tensor:
    logits = forward(net, x)
    if g is not None:
        return probability_loss(g, logits, y)
    return crossfade_loss(logits, y, alpha=alpha, beta=beta)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """One compilation for all networks of a shape."""
    return torch.compile(_loss, dynamic=False)


class Feed(Protocol):
    """A repeat's examples as an epoch takes them, in memory that stays where it is.

    Attributes:
        kinds: Of the epoch's steps: how many examples, and whatever else the shapes of a step depend on.
        parts: What is scored.
    """

    device: torch.device
    kinds: list[Kind]
    parts: Mapping[str, Iterable[Batch]]

    def begin(self, epoch: int) -> None:
        """Lay the epoch's examples ready."""

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Inputs and labels of the epoch's places ``first``, ``first`` + 1, ..."""


class Member:
    """A network in training. What a step reads and writes stays where it is, as a graph needs it."""

    def __init__(
        self, job: Job, feed: Feed, recipe: Any, hardware: Hardware, seen: Counter[object] | None = None
    ) -> None:
        self.job, self.feed, self.recipe, self.hardware = job, feed, recipe, hardware
        self.device = feed.device
        self.epoch, self.trained = 0, 0
        self.source: Member | None = None
        self.record = Record(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(epoch_seed(job.seed, 0, "weights"))
            self.net = self.build().to(self.device)
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = begun(self.make_optimizer())
        self.table = torch.zeros(0)  # alpha, beta and rate of the epoch's steps
        self.at, self.first = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.graphs = Graphs(self.device, self._changing, seen)
        self._load()

    def build(self) -> nn.Module:
        """The network, its weights drawn from the global generator."""
        raise NotImplementedError

    def make_optimizer(self) -> torch.optim.Optimizer:
        """With ``rate`` as its learning rate."""
        raise NotImplementedError

    @staticmethod
    def forward(net: nn.Module, x: Any) -> Tensor:
        """Logits."""
        return net(x)  # type: ignore[no-any-return]

    def around_step(self) -> AbstractContextManager[None]:
        """What holds while a step is made."""
        return nullcontext()

    def scoring_inputs(self, x: Any) -> Any:
        """The inputs of a part that is scored as the network takes them."""
        return x

    def ready(self, epoch: int) -> bool:
        """Whether this epoch is to be trained now; a network that starts from another's state takes it over first."""
        if epoch != self.epoch or not self.record.finite:
            return False
        if self.source is not None and self.trained == 0:
            self._restore(copy.deepcopy(self.source.state()))
        return self.record.finite

    def begin(self, epoch: int) -> None:
        """Losses' weights and learning rates of the epoch's steps."""
        method, steps, table = self.job.method, len(self.feed.kinds), []
        for step in range(steps):
            progress, rate = step_settings(method, self.recipe, epoch, step / steps)
            table.append([*method.schedule(progress), rate])
        if not len(self.table):
            self.table = torch.zeros(steps, 3, dtype=torch.float64, device=self.device)
        self.table.copy_(torch.tensor(table, dtype=torch.float64))
        for counter in (self.at, self.first, self.loss):
            counter.zero_()
        self.graphs.seed(epoch_seed(self.job.seed, epoch, "dropout 0"))
        if self.graphs.stream is not None:
            self.graphs.stream.wait_stream(torch.cuda.current_stream(self.device))

    def step(self, kind: Kind) -> None:
        """One step on the next examples."""
        self.graphs.run(kind, functools.partial(self._step, kind))

    def end(self, epoch: int) -> None:
        """Loss and scores of the epoch."""
        if self.graphs.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.graphs.stream)
        self.epoch, self.trained = epoch + 1, self.trained + 1
        loss = self.loss.item() / sum(kind[0] for kind in self.feed.kinds)
        if self.record.wants(epoch, loss, self.net):
            parts = {part: self._evaluate(epoch, part, batches) for part, batches in self.feed.parts.items()}
            self.record.add(epoch, loss, parts, self.net)

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on, and what was scored."""
        optimizer = [self.optimizer.state[weight] for weight in self.net.parameters()]
        return {"epoch": self.epoch, "net": self.net.state_dict(), "optimizer": optimizer, **self.record.state()}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if self.job.folder is None:
            return
        self.job.folder.mkdir(parents=True, exist_ok=True)
        part = self.job.folder / "beside.part"
        torch.save(self.state(), part)
        part.replace(self.job.folder / "beside.ckpt")

    def history(self, seconds: float) -> DeepHistory:
        self.optimizer.zero_grad()  # gradients lie in the graphs' memory, and would keep it
        return DeepHistory.of(self.record, self.net, seconds, self.device)

    def _changing(self) -> list[Tensor]:
        own = [*self.net.parameters(), *self.net.buffers(), *optimizer_state(self.optimizer)]
        return [*own, self.rate, self.at, self.first, self.loss]

    def _load(self) -> None:
        path = None if self.job.folder is None else self.job.folder / "beside.ckpt"
        if path is not None and path.exists():
            self._restore(torch.load(path, map_location=self.device, weights_only=True))

    def _restore(self, state: dict[str, Any]) -> None:
        """Before the first step: no graph knows the optimizer's memory yet."""
        self.net.load_state_dict(state["net"])
        for weight, values in zip(self.net.parameters(), state["optimizer"], strict=True):
            self.optimizer.state[weight] = values
        self.epoch = state["epoch"]
        self.record.restore(state)

    def _step(self, kind: Kind) -> None:
        x, y = self.feed.batch(self.first, kind)
        alpha, beta, rate = self.table.index_select(0, self.at).unbind(1)
        self.rate.copy_(rate.squeeze(0))
        # A ragged batch isn't worth a compilation.
        loss_of = _compiled() if self.hardware.compile and kind == self.feed.kinds[0] else _loss
        mixed = self.recipe.precision == "bf16-mixed"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed), self.around_step():
            loss = loss_of(self.forward, self.net, self.job.method.g, x, y, alpha, beta)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.loss.add_(loss.detach().reshape(()), alpha=kind[0])
        self.first.add_(kind[0])
        self.at.add_(1)

    def _evaluate(self, epoch: int, part: str, batches: Iterable[Batch]) -> dict[str, float]:
        observe = None if self.job.observe is None else functools.partial(self.job.observe, epoch, part)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16-mixed"):
            tally = scored(self.net, self._logits, batches, self.job.split.classes, self.device, observe)
        return tally.scores(tally.total(self.device))

    def _logits(self, x: Any) -> Tensor:
        return self.forward(self.net, self.scoring_inputs(x))
