"""Networks of one recipe trained side by side on a GPU, the whole training step of each one CUDA graph.

Small networks leave a GPU waiting for the host: a step is hundreds of kernels of microseconds. A graph launches them
all at once, and the graphs of several networks (methods x seeds) run at the same time, each on a stream of its own.
Everything that changes from step to step lies on the device before an epoch begins: the augmented images (or tokens) in
their order, made once for all methods of a repeat, the loss's weights and the learning rate of every step. So the host
only launches.

Weights, order, augmentation and dropout are those of :func:`crossfade.lab.train.deep.lightning.train`, the reference
beside this engine; on the CPU the same steps run without graphs, for tests.
"""

from __future__ import annotations

import copy
import functools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfade._transforms import Transform
from crossfade.lab.methods import Method, TwoPass
from crossfade.lab.train.deep import network
from crossfade.lab.train.deep.feeds import Feed, Kind, Place, epoch_seed, make_feed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe
from crossfade.lab.train.deep.record import Record
from crossfade.lab.train.graphs import Graphs, begun, optimizer_state
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.train.outcome import History

_SAVE_SECONDS = 10.0  # between checkpoints at least
_SAVE_SHARE = 0.05  # of the time at most
_TIMED_STEPS = 30


def serves(hardware: Hardware, recipe: DeepRecipe, method: Method) -> bool:
    """Return whether this engine trains such networks.

    On one CUDA device, a step in one piece without a loss scaler, no logger; a transformer that isn't to be compiled.
    """
    whole = recipe.accumulate == 1 and recipe.precision != "16-mixed" and not isinstance(method, TwoPass)
    here = uses_cuda(hardware) and one_process(hardware) and not hardware.logger
    return here and whole and (isinstance(recipe, ImageRecipe) or not hardware.compile)


def uses_cuda(hardware: Hardware) -> bool:
    """Return whether training is on CUDA devices."""
    return hardware.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def one_process(hardware: Hardware) -> bool:
    """Return whether this process trains alone, on one device."""
    return hardware.devices * hardware.nodes == int(os.environ.get("WORLD_SIZE", "1")) == 1


def train_side_by_side(
    jobs: Sequence[Job],
    recipe: DeepRecipe,
    *,
    hardware: Hardware,
    device: torch.device | str = "cuda",
    on_progress: Callable[[float], None] | None = None,
    max_epochs: int | None = None,
) -> list[History]:
    """Train networks of one recipe, all at once.

    Args:
        jobs: For which :func:`serves` holds. A method that begins as an earlier one of the same split and seed does is
            trained from where they part.
        recipe: The protocol.
        hardware: ``channels_last`` and ``compile`` are looked at.
        device: Where.
        on_progress: Told the fraction done after every epoch.
        max_epochs: Stop after so many, as a kill would.

    Returns:
        A history each, in the jobs' order; ``seconds`` is the time of the call shared out by the epochs trained.
    """
    started = time.perf_counter()
    members = _members(jobs, recipe, hardware, torch.device(device))
    saved, pause = time.monotonic(), _SAVE_SECONDS
    last = min(recipe.epochs, max_epochs or recipe.epochs)
    for epoch in range(min(member.epoch for member in members), last):
        active = [member for member in members if member.ready(epoch)]
        feeds = {id(member.feed): member.feed for member in active}.values()
        for feed in feeds:
            feed.begin(epoch)
        for member in active:
            member.begin(epoch)
        for step in range(max((len(feed.kinds) for feed in feeds), default=0)):
            for member in active:
                if step < len(member.feed.kinds):
                    member.step(member.feed.kinds[step])
        for member in active:
            member.end(epoch)
        if epoch + 1 < recipe.epochs and (time.monotonic() - saved > pause or epoch + 1 == last):
            started_saving = time.monotonic()
            for member in active:
                member.save()
            saved = time.monotonic()
            pause = max(_SAVE_SECONDS, (saved - started_saving) / _SAVE_SHARE)
        if on_progress is not None:
            on_progress((epoch + 1) / recipe.epochs)
    seconds = (time.perf_counter() - started) / max(1, sum(member.trained for member in members))
    return [member.history(seconds * member.trained) for member in members]


def seconds_an_epoch(
    jobs: Sequence[Job], recipe: DeepRecipe, *, hardware: Hardware, device: torch.device | str = "cuda"
) -> float:
    """Return how long an epoch of one of these networks takes beside the others: some steps are timed, uncompiled.

    Args:
        jobs: Of one split and seed.
        recipe, hardware, device: As for :func:`train_side_by_side`.
    """
    alone = [replace(job, folder=None, observe=None) for job in jobs]
    members = _members(alone, recipe, replace(hardware, compile=False), torch.device(device))
    feed = members[0].feed
    feed.begin(0)
    kinds, seconds = feed.kinds[:_TIMED_STEPS], 0.0
    for _ in range(2):  # the first time warms up
        for member in members:
            member.begin(0)
        wait(feed.device)
        started = time.perf_counter()
        for kind in kinds:
            for member in members:
                member.step(kind)
        wait(feed.device)
        seconds = time.perf_counter() - started
    return seconds * len(feed.kinds) / (len(kinds) * len(members))


def wait(device: torch.device) -> None:
    """Wait for what the device still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _training_loss(
    net: nn.Module, g: Transform | None, inputs: Any, labels: Tensor, alpha: Tensor, beta: Tensor, channels_last: bool
) -> Tensor:
    return network.loss_of(g, network.logits_of(net, inputs, channels_last=channels_last), labels, alpha, beta)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """Return one compilation for all networks of a shape."""
    return torch.compile(_training_loss, dynamic=False)


class Member:
    """A network in training. What a step reads and writes stays where it is, as a graph needs it.

    Attributes:
        epoch: How many it has behind it; before its first, where it begins.
        source: The network whose state it begins with; None for its own.
        trained: Epochs that it was trained for in this call.
    """

    def __init__(
        self, job: Job, feed: Feed, recipe: DeepRecipe, hardware: Hardware, seen: Counter[object] | None = None
    ) -> None:
        self.job, self.feed, self.recipe, self.hardware = job, feed, recipe, hardware
        self.device = feed.device
        self.epoch, self.trained = 0, 0
        self.source: Member | None = None
        self.record = Record(recipe)
        self.net = network.build_network(job, recipe, channels_last=hardware.channels_last).to(self.device)
        norms = [layer for layer in self.net.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
        # without a momentum, the count is the average's divisor
        self.norms = [layer for layer in norms if layer.momentum is not None]
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = begun(network.make_optimizer(self.net, recipe, self.rate))
        self.table = torch.zeros(0)  # alpha, beta and rate of the epoch's steps
        self.at, self.first = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.graphs = Graphs(self.device, self._changing, seen)
        path = None if job.folder is None else job.folder / "beside.ckpt"
        if path is not None and path.exists():
            self._restore(torch.load(path, map_location=self.device, weights_only=True))

    def ready(self, epoch: int) -> bool:
        """Return whether this epoch is to be trained now; the state of another network is taken over first."""
        if epoch != self.epoch or not self.record.finite:
            return False
        if self.source is not None and self.trained == 0:
            self._restore(copy.deepcopy(self.source.state()))
        return self.record.finite

    def begin(self, epoch: int) -> None:
        """Lay the losses' weights and learning rates of the epoch's steps ready."""
        steps = len(self.feed.kinds)
        table = [network.step_settings(self.job.method, self.recipe, epoch, step / steps) for step in range(steps)]
        if not len(self.table):
            self.table = torch.zeros(steps, 3, dtype=torch.float64, device=self.device)
        self.table.copy_(torch.tensor(table, dtype=torch.float64))
        for counter in (self.at, self.first, self.loss):
            counter.zero_()
        self.graphs.seed(epoch_seed(self.job.seed, epoch, "dropout 0"))
        if self.graphs.stream is not None:
            self.graphs.stream.wait_stream(torch.cuda.current_stream(self.device))

    def step(self, kind: Kind) -> None:
        """Make one step on the next examples."""
        self.graphs.run(kind, functools.partial(self._step, kind))

    def end(self, epoch: int) -> None:
        """Record loss and scores of the epoch."""
        if self.graphs.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.graphs.stream)
        for norm in self.norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(len(self.feed.kinds))
        self.epoch, self.trained = epoch + 1, self.trained + 1
        loss = self.loss.item() / sum(kind[0] for kind in self.feed.kinds)
        if self.record.wants(epoch, loss, self.net):
            layout = self.hardware.channels_last
            with self._autocast():
                parts = {
                    part: network.scored(self.job, self.net, epoch, part, batches, channels_last=layout).scores()
                    for part, batches in self.feed.parts.items()
                }
            self.record.add(epoch, loss, parts, self.net)

    def state(self) -> dict[str, Any]:
        """Return what the next epoch depends on, and what was scored."""
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

    def history(self, seconds: float) -> History:
        """Return the history of the training, which has ended."""
        self.optimizer.zero_grad()  # gradients lie in the graphs' memory, and would keep it
        return self.record.history(self.net, self.device, seconds)

    def _changing(self) -> list[Tensor]:
        own = [*self.net.parameters(), *self.net.buffers(), *optimizer_state(self.optimizer)]
        return [*own, self.rate, self.at, self.first, self.loss]

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over a state before the first step: no graph knows the optimizer's memory yet."""
        self.net.load_state_dict(state["net"])
        for weight, values in zip(self.net.parameters(), state["optimizer"], strict=True):
            self.optimizer.state[weight] = values
        self.epoch = state["epoch"]
        self.record.restore(state)

    def _step(self, kind: Kind) -> None:
        inputs, labels = self.feed.batch(self.first, kind)
        alpha, beta, rate = self.table.index_select(0, self.at).unbind(1)
        self.rate.copy_(rate.squeeze(0))
        # A ragged batch isn't worth a compilation.
        loss_fn = _compiled() if self.hardware.compile and kind == self.feed.kinds[0] else _training_loss
        with self._autocast(), _uncounted(self.norms):
            loss = loss_fn(self.net, self.job.method.g, inputs, labels, alpha, beta, self.hardware.channels_last)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.loss.add_(loss.detach().reshape(()), alpha=kind[0])
        self.first.add_(kind[0])
        self.at.add_(1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16-mixed")


@contextmanager
def _uncounted(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Leave out batch normalisation's count of batches, a kernel for each layer: the host counts."""
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count


def _members(jobs: Sequence[Job], recipe: DeepRecipe, hardware: Hardware, device: torch.device) -> list[Member]:
    groups = [(id(job.split), job.seed) for job in jobs]
    feeds = {}
    for group, job in dict(zip(groups, jobs, strict=True)).items():
        feeds[group] = make_feed(job.split, recipe, hardware, job.seed, Place(device), many=True)
    seen: dict[int, Counter[object]] = defaultdict(Counter)  # steps of one loss are alike
    pairs = zip(jobs, groups, strict=True)
    members = [Member(job, feeds[group], recipe, hardware, seen[id(job.method.g)]) for job, group in pairs]
    places = network.job_starts([job.method for job in jobs], groups, recipe, [member.epoch for member in members])
    for member, start in zip(members, places, strict=True):
        member.epoch, member.source = start.epoch, None if start.source is None else members[start.source]
    return members
