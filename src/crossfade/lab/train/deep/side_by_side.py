"""Networks of one recipe trained side by side on a GPU, with each training step as one CUDA graph.

With small networks a GPU mostly waits for the host, as a step consists of hundreds of kernels that take microseconds. A
graph launches them all at once, and the graphs of several networks (methods x seeds) run at the same time, each on its
own stream. Everything that changes from step to step is on the device before an epoch begins: the augmented images (or
tokens) in their order, made once for all methods of a repeat, and the loss's weights and learning rate of every step.

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

from crossfade.kernels.graphs import Graphs, begun, optimizer_state
from crossfade.lab import checkpoints
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import Method, TwoPass, training_loss
from crossfade.lab.train.deep import network
from crossfade.lab.train.deep.feeds import Feed, Inputs, Kind, Place, epoch_seed, make_feed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe
from crossfade.lab.train.deep.record import Record
from crossfade.lab.train.outcome import History

CHECKPOINT = "beside.ckpt"  # in a job's folder
_SAVE_SECONDS = 10.0  # between checkpoints at least
_SAVE_SHARE = 0.05  # of the time at most
_TIMED_STEPS = 30


def serves(hardware: Hardware, recipe: DeepRecipe, method: Method) -> bool:
    """Return whether this engine can train such networks.

    It needs one CUDA device and steps in one piece without a loss scaler, and supports neither loggers nor compiled
    transformers.
    """
    whole = recipe.accumulate == 1 and recipe.precision != "16-mixed" and not isinstance(method, TwoPass)
    here = uses_cuda(hardware) and one_process(hardware) and not hardware.logger
    return here and whole and (isinstance(recipe, ImageRecipe) or not hardware.compile)


def uses_cuda(hardware: Hardware) -> bool:
    """Return whether networks are trained on CUDA devices."""
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
        jobs: Jobs that :func:`serves` accepts. Epochs that methods of a split and seed have in common are trained once.
        hardware: Its ``channels_last`` and ``compile`` are used.
        on_progress: Called with the fraction of the work that is done after every epoch.
        max_epochs: Stop after this many epochs, as if interrupted.

    Returns:
        The histories in the jobs' order. ``seconds`` is the time of the call, divided in proportion to trained epochs.
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
    """Return the seconds of an epoch of one of these networks beside the others, by timing some steps uncompiled.

    The jobs have one split and seed.
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
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _training_loss(
    net: nn.Module,
    criterion: Callable[..., Tensor] | None,
    inputs: Inputs,
    labels: Tensor,
    values: Sequence[Tensor],
) -> Tensor:
    return training_loss(criterion, network.outputs_of(net, inputs), labels, values)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """Return the compiled training loss, which all networks of a shape share."""
    return torch.compile(_training_loss, dynamic=False)


class Member:
    """A network in training, whose steps read and write memory at fixed addresses, as graphs need it.

    Attributes:
        epoch: The number of finished epochs; before the first one, the epoch at which it begins.
        source: The network whose state it begins with; None for its own.
        trained: How many epochs it has been trained in this call.
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
        # without a momentum, the average depends on the count
        self.norms = [layer for layer in norms if layer.momentum is not None]
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = begun(network.make_optimizer(self.net, recipe, self.rate))
        self.table = torch.zeros(0)  # the loss's parameters and the rate of the epoch's steps
        self.at, self.first = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.graphs = Graphs(self.device, self._changing, seen)
        if self.job.folder and (state := checkpoints.resume(self.job.folder / CHECKPOINT, self._check, self.device)):
            self._restore(state)

    def ready(self, epoch: int) -> bool:
        """Return whether to train this epoch, after taking over the state of the source if it is the first one."""
        if epoch != self.epoch or not self.record.finite:
            return False
        if self.source is not None and self.trained == 0:
            self._restore(copy.deepcopy(self.source.state()))
        return self.record.finite

    def begin(self, epoch: int) -> None:
        """Prepare the loss's weights and the learning rate of all steps of the epoch."""
        steps = len(self.feed.kinds)
        table = [network.step_settings(self.job.method, self.recipe, epoch, step / steps) for step in range(steps)]
        if not len(self.table):
            self.table = torch.zeros(steps, len(table[0]), dtype=torch.float64, device=self.device)
        self.table.copy_(torch.tensor(table, dtype=torch.float64))
        for counter in (self.at, self.first, self.loss):
            counter.zero_()
        self.graphs.seed(epoch_seed(self.job.seed, epoch, "dropout 0"))
        if self.graphs.stream is not None:
            self.graphs.stream.wait_stream(torch.cuda.current_stream(self.device))

    def step(self, kind: Kind) -> None:
        """Take one step on the next examples."""
        self.graphs.run(kind, functools.partial(self._step, kind))

    def end(self, epoch: int) -> None:
        """Record the loss and the scores of the epoch."""
        if self.graphs.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.graphs.stream)
        for norm in self.norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(len(self.feed.kinds))
        self.epoch, self.trained = epoch + 1, self.trained + 1
        loss = self.loss.item() / sum(kind[0] for kind in self.feed.kinds)
        if self.record.wants(epoch, loss, self.net):
            with self._autocast():
                parts = {
                    part: network.scored(self.job, self.net, epoch, part, batches)
                    for part, batches in self.feed.parts.items()
                }
            self.record.add(epoch, loss, parts, self.net)

    def state(self) -> dict[str, Any]:
        """Return the state that the next epoch depends on, with the scores so far."""
        optimizer = [self.optimizer.state[weight] for weight in self.net.parameters()]
        return {"epoch": self.epoch, "net": self.net.state_dict(), "optimizer": optimizer, **self.record.state()}

    def save(self) -> None:
        """Write the checkpoint."""
        if self.job.folder is not None:
            checkpoints.save(self.state(), self.job.folder / CHECKPOINT)

    def history(self, seconds: float) -> History:
        """Return the history of the finished training."""
        self.optimizer.zero_grad()  # frees the gradients, and with them the graphs' memory
        return self.record.history(self.net, self.device, seconds)

    def _changing(self) -> list[Tensor]:
        own = [*self.net.parameters(), *self.net.buffers(), *optimizer_state(self.optimizer)]
        return [*own, self.rate, self.at, self.first, self.loss]

    def _check(self, state: dict[str, Any]) -> None:
        self.job.check(self.net, state["net"], state["epoch"])
        Record(self.recipe).restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over a state; only before the first step, as graphs refer to the optimizer's memory."""
        self.net.load_state_dict(state["net"])
        for weight, values in zip(self.net.parameters(), state["optimizer"], strict=True):
            self.optimizer.state[weight] = values
        self.epoch = state["epoch"]
        self.record.restore(state)

    def _step(self, kind: Kind) -> None:
        inputs, labels = self.feed.batch(self.first, kind)
        *values, rate = self.table.index_select(0, self.at)[0].unbind()
        self.rate.copy_(rate)
        # A batch of another size isn't worth a compilation.
        loss_fn = _compiled() if self.hardware.compile and kind == self.feed.kinds[0] else _training_loss
        with self._autocast(), _uncounted(self.norms):
            loss = loss_fn(self.net, self.job.method.criterion, inputs, labels, values)
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
    """Skip batch normalisation's count of batches, which takes a kernel for each layer: the host counts instead."""
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
    feeds, place = {}, Place(device, channels_last=hardware.channels_last)
    for group, job in dict(zip(groups, jobs, strict=True)).items():
        feeds[group] = make_feed(job.split, recipe, hardware, job.seed, place, many=True)
    seen: dict[int, Counter[object]] = defaultdict(Counter)  # steps with the same loss run the same kernels
    pairs = zip(jobs, groups, strict=True)
    members = [Member(job, feeds[group], recipe, hardware, seen[id(job.method.criterion)]) for job, group in pairs]
    places = network.job_starts([job.method for job in jobs], groups, recipe, [member.epoch for member in members])
    for member, start in zip(members, places, strict=True):
        member.epoch, member.source = start.epoch, None if start.source is None else members[start.source]
    return members
