"""Batches for Lightning from images that live on the device; no worker processes, nothing is copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from crossfade.lab.data.images import ImageSplit, Part
from crossfade.lab.train.deep.augment import Augment, Draws, Pixels, draw

if TYPE_CHECKING:
    from crossfade.lab.data.image_stream import StreamSplit
    from crossfade.lab.train.deep.recipe import ImageRecipe
    from crossfade.lab.train.hardware import Hardware

__all__ = ["Batch", "EvalBatches", "TrainBatches", "bounds", "epoch_seed", "feeds"]

EVAL_BATCH = 500

# Images, labels, places in the part, and this process's share: its images times the processes over the whole batch.
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, float]


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """Seed of one source of randomness in one epoch: nothing has to be restored when training is resumed."""
    raw = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


class TrainBatches:
    """Shuffled, augmented batches; all of an epoch's randomness comes from (seed, epoch).

    Of several processes each gets an equal run of every global batch.

    Args:
        split: The repeat's parts.
        augment: What is done to the images.
        batch_size: Global.
        seed: Of order and augmentation.
        device: Where images live.
        rank, world: This process and how many there are.
    """

    def __init__(
        self,
        split: ImageSplit,
        augment: Augment,
        batch_size: int,
        seed: int,
        device: Any,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pixels = Pixels(split.train.images, split.mean, split.std, border=augment.crop, device=device)
        self.labels = split.train.labels.to(self.pixels.device)
        self.augment, self.seed, self.rank, self.world = augment, seed, rank, world
        self.bounds = bounds(len(split.train), batch_size)
        self.epoch = 0

    @property
    def sampler(self) -> TrainBatches:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch's."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def choices(self) -> tuple[Tensor, Draws]:
        """The epoch's order, (N,) int64, and what happens to each image, both on the device."""
        device, count = self.pixels.device, self.pixels.count
        order_seed, draw_seed = (epoch_seed(self.seed, self.epoch, stream) for stream in ("order", "augment"))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(order_seed)).to(device, non_blocking=True)
        generator = torch.Generator().manual_seed(draw_seed)
        return order, draw(self.augment, count, self.pixels.height, self.pixels.width, generator).to(device)

    def __iter__(self) -> Iterator[Batch]:
        order, draws = self.choices()
        for start, stop in pairwise(self.bounds):
            mine = order[start:stop].tensor_split(self.world)[self.rank]
            share = len(mine) * self.world / (stop - start)
            yield self.pixels.batch(mine, draws.rows(mine)), self.labels.index_select(0, mine), mine, share


class EvalBatches:
    """A part as it is, in order; of several processes each gets every so-many-th image."""

    def __init__(
        self, part: Part, split: ImageSplit, batch_size: int, device: Any, rank: int = 0, world: int = 1
    ) -> None:
        self.pixels = Pixels(part.images, split.mean, split.std, device=device)
        self.labels = part.labels.to(self.pixels.device)
        self.index = torch.arange(rank, len(part), world, device=self.pixels.device)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        for index in torch.split(self.index, self.batch_size):
            yield self.pixels.batch(index), self.labels.index_select(0, index), index, 1.0


def bounds(count: int, size: int) -> list[int]:
    """Where batches begin, and the end: a last batch below a quarter of ``size`` joins the one before it.

    Batch normalisation can't use a batch, or a process's part of it, of one image; and the rule must not depend on the
    number of processes.
    """
    marks = [*range(0, count, size), count]
    if len(marks) > 2 and marks[-1] - marks[-2] < size / 4:
        del marks[-2]
    return marks


def feeds(
    split: ImageSplit | StreamSplit,
    recipe: ImageRecipe,
    hardware: Hardware,
    seed: int,
    device: Any,
    rank: int,
    world: int,
) -> tuple[Any, dict[str, Any]]:
    """Batches to train on, and those of ``"val"`` and ``"test"``, wherever the images live."""
    scored = {"val": split.validation, "test": split.test}
    if isinstance(split, ImageSplit):
        train: Any = TrainBatches(split, recipe.augment, recipe.batch_size, seed, device, rank, world)
        parts: dict[str, Any] = {
            name: EvalBatches(part, split, EVAL_BATCH, device, rank, world)
            for name, part in scored.items()
            if isinstance(part, Part)
        }
        return train, parts
    from crossfade.lab.data.image_stream import FilePart, StreamBatches

    def stream(part: FilePart, training: bool) -> StreamBatches:
        return StreamBatches(
            part, split, recipe, hardware, seed, training=training, device=device, rank=rank, world=world
        )

    return stream(split.train, True), {n: stream(p, False) for n, p in scored.items() if isinstance(p, FilePart)}
