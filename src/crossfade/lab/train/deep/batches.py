"""Batches of an epoch for a loop: images that live on the device, image files decoded by workers, and texts."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.errors import UserError
from crossfade.lab.data.image_stream import FilePart, StreamSplit
from crossfade.lab.data.images import ImageSplit, Part
from crossfade.lab.data.texts import TextPart, TextSplit
from crossfade.lab.train.checks import expect
from crossfade.lab.train.deep.augment import Draws, Pixels, draw
from crossfade.lab.train.deep.pretrained import encode, load_tokenizer
from crossfade.lab.train.deep.recipe import Augment, DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.train.lstm.tokens import epoch_batches, scoring_batches

_Part = TypeVar("_Part")
_SCORED_IMAGES, _SCORED_TEXTS = 500, 64  # that a process scores at once

DeepSplit: TypeAlias = ImageSplit | StreamSplit | TextSplit
# Inputs, labels, places in the part, and this process's share: its examples times the processes over the whole batch.
Batch: TypeAlias = tuple[Any, Tensor, Tensor, float]


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """Return the seed of one source of randomness in one epoch: nothing has to be restored on resuming."""
    raw = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


def bounds(count: int, size: int) -> list[int]:
    """Return where batches begin, and the end: a last batch below a quarter of ``size`` joins the one before it.

    Batch normalisation can't use a batch, or a process's part of it, of one image; and the rule must not depend on the
    number of processes.
    """
    marks = [*range(0, count, size), count]
    if len(marks) > 2 and marks[-1] - marks[-2] < size / 4:
        del marks[-2]
    return marks


class EpochBatches(ABC):
    """Batches of one epoch after the other; all of an epoch's randomness comes from (seed, epoch)."""

    epoch = 0

    @property
    def sampler(self) -> EpochBatches:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take this epoch's order and augmentation in the next pass."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...


class TrainBatches(EpochBatches):
    """Shuffled, augmented batches of images that live on the device.

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
        device: torch.device | str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pixels = Pixels(split.train.images, split.mean, split.std, border=augment.crop, device=device)
        self.labels = split.train.labels.to(self.pixels.device)
        self.augment, self.seed, self.rank, self.world = augment, seed, rank, world
        self.bounds = bounds(len(split.train), batch_size)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def choices(self) -> tuple[Tensor, Draws]:
        """Return the epoch's order, (N,) int64, and what happens to each image, both on the device."""
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
        self, part: Part, split: ImageSplit, batch_size: int, device: torch.device | str, rank: int = 0, world: int = 1
    ) -> None:
        self.pixels = Pixels(part.images, split.mean, split.std, device=device)
        self.labels = part.labels.to(self.pixels.device)
        self.index = torch.arange(rank, len(part), world, device=self.pixels.device)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        for index in torch.split(self.index, self.batch_size):
            yield self.pixels.batch(index), self.labels.index_select(0, index), index, 1.0


class _Files(torch.utils.data.Dataset[Any]):
    """Decoding and augmentation in a worker; an image's randomness comes from (epoch seed, its place) alone."""

    def __init__(self, part: FilePart, size: int, training: bool) -> None:
        from torchvision.transforms import v2

        crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()] if training else []
        whole = [] if training else [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
        self.transform = v2.Compose([*crop, *whole, v2.PILToTensor()])
        self.part, self.seed = part, 0

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, at: int) -> Any:
        from PIL import Image

        file, label = self.part.files[at]
        torch.manual_seed((self.seed + at) % 2**63)
        random.seed(self.seed + at)
        try:
            with Image.open(file) as image:
                return self.transform(image.convert("RGB")), label, at
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{file}: can't be read ({error}); repair or remove it") from None


class StreamBatches(EpochBatches):
    """Batches of image files that worker processes decode, for training (shuffled, augmented) or scoring."""

    def __init__(
        self,
        part: FilePart,
        split: StreamSplit,
        recipe: ImageRecipe,
        seed: int,
        *,
        training: bool,
        workers: int,
        device: torch.device | str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.files, self.workers = _Files(part, recipe.size or 224, training), workers
        self.bounds = bounds(len(part), recipe.batch_size)
        self.training, self.seed = training, seed
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self._scale = (1 / (255 * split.std)).view(3, 1, 1).to(self.device)
        self._shift = (-split.mean / split.std).view(3, 1, 1).to(self.device)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self.files))
        if self.training:
            order = np.random.default_rng(epoch_seed(self.seed, self.epoch, "order")).permutation(order)
        self.files.seed = epoch_seed(self.seed, self.epoch, "augment") % 2**62
        whole = [order[start:stop] for start, stop in pairwise(self.bounds)]
        mine = [np.array_split(batch, self.world)[self.rank].tolist() for batch in whole]
        loader = torch.utils.data.DataLoader(
            self.files, batch_sampler=mine, num_workers=self.workers, pin_memory=self.device.type == "cuda"
        )
        for batch, (images, labels, index) in zip(whole, loader, strict=True):
            share = len(labels) * self.world / len(batch)
            pixels = images.to(self.device, non_blocking=True).float().mul_(self._scale).add_(self._shift)
            yield pixels, labels.to(self.device), index.to(self.device), share


class TextBatches(EpochBatches):
    """Batches of examples of similar length, each padded to its longest.

    Args:
        part: The examples.
        recipe: Batch size, length, and in how many pieces a batch comes.
        tokenizer: Pads.
        seed: Of the order; None: by length, for scoring.
        device: Where the tokens are needed.
        rank, world: This process and how many there are: each gets an equal run of every piece.
        scored: Texts that a process scores at once.
    """

    def __init__(
        self,
        part: TextPart,
        recipe: TextRecipe,
        tokenizer: Any,
        seed: int | None,
        device: torch.device | str,
        rank: int = 0,
        world: int = 1,
        scored: int = _SCORED_TEXTS,
    ) -> None:
        self.tokens, self.lengths = encode(part, recipe.model, recipe.max_length)
        self.labels = torch.from_numpy(np.ascontiguousarray(part.labels))
        self.tokenizer, self.seed, self.device, self.rank, self.world = tokenizer, seed, device, rank, world
        self.size = recipe.batch_size if seed is not None else scored * world
        self.pieces = recipe.accumulate if seed is not None else 1

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size) * self.pieces

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            batches = scoring_batches(self.lengths, self.size)
        else:
            batches = epoch_batches(self.seed, self.epoch, self.lengths, self.size)
        for whole in batches:
            for piece in range(self.pieces):
                mine = np.array_split(np.array_split(whole, self.pieces)[piece], self.world)[self.rank]
                # The loss is a mean over ``mine``; times its share, summed over pieces and averaged over processes (as
                # Lightning and DDP do), it is the mean over the batch.
                share = len(mine) * self.pieces * self.world / len(whole)
                if not len(mine) and self.seed is None:
                    continue
                rows = mine if len(mine) else whole[:1]  # nothing left: all processes must step, with weight 0 then
                yield self._padded(rows), self.labels[rows].to(self.device), torch.from_numpy(rows), share

    def _padded(self, rows: NDArray[np.int64]) -> Any:
        chosen = {name: [values[at] for at in rows] for name, values in self.tokens.items()}
        return self.tokenizer.pad(chosen, return_tensors="pt").to(self.device)


def batches_of(
    split: DeepSplit,
    recipe: DeepRecipe,
    hardware: Hardware,
    seed: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> tuple[EpochBatches, dict[str, Iterable[Batch]]]:
    """Return batches to train on, and those of ``"val"`` and ``"test"`` as far as there are such parts.

    Args:
        split: The repeat's parts.
        recipe: The protocol.
        hardware: How many workers decode files.
        seed: Of order and augmentation.
        device: Where the batches are needed.
        rank, world: This process and how many there are: each gets an equal run of every global batch.
    """
    if isinstance(split, TextSplit):
        recipe = expect("recipe", recipe, TextRecipe)
        tokenizer = load_tokenizer(recipe.model)
        texts = partial(TextBatches, recipe=recipe, tokenizer=tokenizer, device=device, rank=rank, world=world)
        return texts(split.train, seed=seed), {
            name: texts(part, seed=None) for name, part in _scored(split.validation, split.test).items()
        }
    recipe = expect("recipe", recipe, ImageRecipe)
    if isinstance(split, StreamSplit):
        files = partial(
            StreamBatches, split=split, recipe=recipe, workers=hardware.workers, seed=seed, device=device, rank=rank,
            world=world,
        )  # fmt: skip
        return files(split.train, training=True), {
            name: files(part, training=False) for name, part in _scored(split.validation, split.test).items()
        }
    return TrainBatches(split, recipe.augment, recipe.batch_size, seed, device, rank, world), {
        name: EvalBatches(part, split, _SCORED_IMAGES, device, rank, world)
        for name, part in _scored(split.validation, split.test).items()
    }


def _scored(validation: _Part | None, test: _Part) -> dict[str, _Part]:
    return {"test": test} if validation is None else {"val": validation, "test": test}
