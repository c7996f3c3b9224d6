"""One image network in training as a CUDA graph takes it: whatever a step reads and writes stays where it is.

On the CPU the same steps run without graphs.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfade._transforms import Transform
from crossfade.functional import crossfade_loss, probability_loss
from crossfade.lab.data.images import ImageSplit
from crossfade.lab.methods import Method
from crossfade.lab.nets import build
from crossfade.lab.train.deep import DeepHistory
from crossfade.lab.train.deep_batches import EvalBatches, TrainBatches, epoch_seed
from crossfade.lab.train.deep_recipe import Hardware, ImageRecipe
from crossfade.lab.train.deep_record import Observer, Record, scored, step_settings

__all__ = ["Feed", "Job", "Member"]

_EVAL_BATCH = 2_500
_WARM_UP = 3  # steps before a capture: libraries choose and load their kernels


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train.

    Args:
        split: Data of its repeat; jobs of a repeat share the object.
        method: The loss.
        seed: Of initial weights, order and augmentation; the same for the methods of a repeat.
        folder: For its checkpoint (``side.ckpt``), from which training goes on; None: nothing is written.
        observe: As for :func:`crossfade.lab.train.deep.train`.
    """

    split: ImageSplit
    method: Method
    seed: int
    folder: Path | None = None
    observe: Observer | None = None


def _loss(net: nn.Module, g: Transform | None, x: Tensor, y: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    logits = net(x)
    if g is not None:
        return probability_loss(g, logits, y)
    return crossfade_loss(logits, y, alpha=alpha, beta=beta)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """One compilation for all networks of a shape."""
    return torch.compile(_loss, dynamic=False)


class Feed:
    """A repeat's images and labels as an epoch takes them, in memory that stays where it is."""

    def __init__(
        self, split: ImageSplit, recipe: ImageRecipe, hardware: Hardware, seed: int, device: torch.device
    ) -> None:
        self.batches = TrainBatches(split, recipe.augment, recipe.batch_size, seed, device)
        self.sizes = [stop - start for start, stop in pairwise(self.batches.bounds)]
        scored = {"val": split.validation, "test": split.test}
        self.parts = {name: EvalBatches(part, split, _EVAL_BATCH, device) for name, part in scored.items() if part}
        pixels, self.channels_last = self.batches.pixels, hardware.channels_last
        side = (pixels.height, pixels.width)
        # bfloat16 is what autocast makes of them before the first layer.
        dtype = torch.bfloat16 if recipe.precision == "bf16-mixed" else torch.float32
        shape = (pixels.count, *side, 3) if self.channels_last else (pixels.count, 3, *side)
        self.images = torch.empty(shape, device=device, dtype=dtype)
        self.labels = torch.empty(pixels.count, dtype=torch.int64, device=device)
        self.offsets = torch.arange(max(self.sizes), device=device)

    def begin(self, epoch: int) -> None:
        """Lay the epoch's images ready."""
        self.batches.set_epoch(epoch)
        order, draws = self.batches.choices()
        torch.index_select(self.batches.labels, 0, order, out=self.labels)
        for start in range(0, len(order), _EVAL_BATCH):
            mine = order[start : start + _EVAL_BATCH]
            images = self.batches.pixels.batch(mine, draws.rows(mine))
            self.images[start : start + len(mine)].copy_(images.permute(0, 2, 3, 1) if self.channels_last else images)

    def batch(self, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels of the epoch's places ``first``, ``first`` + 1, ..."""
        mine = first + self.offsets[:size]
        images = self.images.index_select(0, mine)
        return images.permute(0, 3, 1, 2) if self.channels_last else images, self.labels.index_select(0, mine)


@contextmanager
def _uncounted(norms: Sequence[Any]) -> Iterator[None]:
    """Batch normalisation without its count of batches, a kernel for each layer: the host counts."""
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count


class Member:
    """A network in training. What a step reads and writes stays where it is, as a graph needs it."""

    def __init__(self, job: Job, feed: Feed, recipe: ImageRecipe, hardware: Hardware) -> None:
        self.job, self.feed, self.recipe, self.hardware = job, feed, recipe, hardware
        self.device = feed.batches.pixels.device
        self.epoch, self.trained = 0, 0
        self.source: Member | None = None
        self.record = Record(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(epoch_seed(job.seed, 0, "weights"))
            net = build(recipe.net, job.split.classes, pretrained=recipe.pretrained)
        self.net = net.to(self.device)
        if hardware.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        self.norms = [
            layer
            for layer in self.net.modules()
            # without a momentum, the count is the average's divisor
            if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.momentum is not None
        ]
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), self.rate, recipe.momentum, weight_decay=recipe.weight_decay,
            fused=self.device.type == "cuda",
        )  # fmt: skip
        for weight in self.net.parameters():  # before any step, and where a restored one finds it
            self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        steps = len(feed.sizes)
        self.table = torch.zeros(steps, 3, dtype=torch.float64, device=self.device)  # alpha, beta, rate
        self.at, self.first = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.graphs: dict[int, Any] = {}
        self.stream: Any = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._load()

    def ready(self, epoch: int) -> bool:
        """Whether this epoch is to be trained now; a network that starts from another's state takes it over first."""
        if epoch != self.epoch or not self.record.finite:
            return False
        if self.source is not None and self.trained == 0:
            self._restore(self.source.state())
        return self.record.finite

    def begin(self, epoch: int) -> None:
        """Losses' weights and learning rates of the epoch's steps."""
        if self.stream is not None and not self.graphs:
            self._capture()
        method, steps, table = self.job.method, len(self.feed.sizes), []
        for step in range(steps):
            progress, rate = step_settings(method, self.recipe, epoch, step / steps)
            table.append([*method.schedule(progress), rate])
        self.table.copy_(torch.tensor(table, dtype=torch.float64))
        for counter in (self.at, self.first, self.loss):
            counter.zero_()
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def step(self, size: int) -> None:
        """One step on the next ``size`` images."""
        if self.stream is None:
            self._step(size)
            return
        with torch.cuda.stream(self.stream):
            self.graphs[size].replay()

    def end(self, epoch: int) -> None:
        """Loss and scores of the epoch."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.epoch, self.trained = epoch + 1, self.trained + 1
        for norm in self.norms:
            cast("Tensor", norm.num_batches_tracked).add_(len(self.feed.sizes))
        loss = self.loss.item() / sum(self.feed.sizes)
        if self.record.wants(epoch, loss, self.net):
            parts = {part: self._evaluate(epoch, part, batches) for part, batches in self.feed.parts.items()}
            self.record.add(epoch, loss, parts, self.net)

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on, and what was scored."""
        momentum = [self.optimizer.state[weight]["momentum_buffer"] for weight in self.net.parameters()]
        return {"epoch": self.epoch, "net": self.net.state_dict(), "momentum": momentum, **self.record.state()}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if self.job.folder is None:
            return
        self.job.folder.mkdir(parents=True, exist_ok=True)
        part = self.job.folder / "side.part"
        torch.save(self.state(), part)
        part.replace(self.job.folder / "side.ckpt")

    def history(self, seconds: float) -> DeepHistory:
        return DeepHistory.of(self.record, self.net, seconds, self.device)

    def _load(self) -> None:
        path = None if self.job.folder is None else self.job.folder / "side.ckpt"
        if path is not None and path.exists():
            self._restore(torch.load(path, map_location=self.device, weights_only=True))

    @torch.no_grad()
    def _restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        for weight, value in zip(self.net.parameters(), state["momentum"], strict=True):
            self.optimizer.state[weight]["momentum_buffer"].copy_(value)
        self.epoch = state["epoch"]
        self.record.restore(state)

    def _step(self, size: int) -> None:
        x, y = self.feed.batch(self.first, size)
        alpha, beta, rate = self.table.index_select(0, self.at).unbind(1)
        self.rate.copy_(rate.squeeze(0))
        # A ragged batch isn't worth a compilation.
        loss_of = _compiled() if self.hardware.compile and size == self.feed.sizes[0] else _loss
        mixed = self.recipe.precision == "bf16-mixed"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed), _uncounted(self.norms):
            loss = loss_of(self.net, self.job.method.g, x, y, alpha, beta)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.loss.add_(loss.detach().reshape(()), alpha=size)
        self.first.add_(size)
        self.at.add_(1)

    def _capture(self) -> None:
        """A graph for each size of batch. The steps that warm up leave no trace."""
        assert self.stream is not None
        before = copy.deepcopy(self.state())
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        # The commonest size first: the others' graphs use its memory again.
        sizes = [size for size, _ in Counter(self.feed.sizes).most_common()]
        with torch.cuda.stream(self.stream):
            for size in sizes:
                for _ in range(_WARM_UP):
                    self.first.zero_()
                    self.at.zero_()
                    self._step(size)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        pool = None
        for size in sizes:
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad()
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                self._step(size)
            pool = pool or graph.pool()
            self.graphs[size] = graph
        self.optimizer.zero_grad()
        self._restore(before)

    def _evaluate(self, epoch: int, part: str, batches: EvalBatches) -> dict[str, float]:
        observe = None if self.job.observe is None else functools.partial(self.job.observe, epoch, part)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16-mixed"):
            tally = scored(self.net, self._logits, batches, self.job.split.classes, self.device, observe)
        return tally.scores(tally.total(self.device))

    def _logits(self, x: Tensor) -> Tensor:
        if self.hardware.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.net(x)  # type: ignore[no-any-return]
