"""Batches of an epoch: images that live on the device, image files that workers decode, and texts.

A loop iterates over them; the graphs of ``side_by_side`` find those of images and texts in memory that stays where it
is. All of an epoch's randomness comes from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

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
from crossfade.lab.train.deep.pretrained import encode, padded_length
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.epochs import epoch_batches, scoring_batches
from crossfade.lab.train.hardware import Hardware

_IMAGES, _MANY_IMAGES = 500, 2_500  # that a process scores at once, and beside graphs
_TEXTS, _MANY_TEXTS = 64, 512

DeepSplit: TypeAlias = ImageSplit | StreamSplit | TextSplit
# Inputs, labels, places in the part, and this process's share: its examples times the processes over the whole batch.
Batch: TypeAlias = tuple[Any, Tensor, Tensor, float]
Kind: TypeAlias = tuple[int, ...]  # of a step: how many examples, and whatever else its shapes depend on


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


class Place(NamedTuple):
    """Where batches are needed: on which device, by which of how many processes. Each gets an equal run of a batch."""

    device: torch.device
    rank: int = 0
    world: int = 1


class Feed(ABC):
    """Batches of a part, one epoch after the other.

    Args:
        seed: Of order and augmentation; None for a part that is only scored.
        place: Where they are needed.

    Attributes:
        parts: For a training part, the batches of ``"val"`` and ``"test"``, as far as there are such parts.
        kinds: Of the steps of an epoch that lies ready.
    """

    def __init__(self, seed: int | None, place: Place) -> None:
        self.seed, self.place, self.device = seed, place, place.device
        self.epoch = 0
        self.parts: dict[str, Feed] = {}
        self.kinds: list[Kind] = []

    @property
    def sampler(self) -> Feed:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take this epoch's order and augmentation in the next pass."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def begin(self, epoch: int) -> None:
        """Lay an epoch ready in memory that stays where it is, as graphs need it; files have none."""
        raise NotImplementedError

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        """Return inputs and labels of that epoch's places ``first``, ``first`` + 1, ..."""
        raise NotImplementedError

    def _epoch_seed(self, stream: str) -> int:
        return epoch_seed(self.seed or 0, self.epoch, stream)


class ImageFeed(Feed):
    """Images that live on the device: shuffled and augmented, or as they are.

    Args:
        part: The images.
        split: Whose mean and deviation they are normalised with.
        recipe: Batch size (of all processes), augmentation and precision.
        seed: Of order and augmentation; None: in order, for scoring.
        place: Where.
        channels_last: Memory format of an epoch that lies ready.
        scored: Images that a process scores at once.
    """

    def __init__(
        self,
        part: Part,
        split: ImageSplit,
        recipe: ImageRecipe,
        seed: int | None,
        place: Place,
        *,
        channels_last: bool = True,
        scored: int = _IMAGES,
    ) -> None:
        super().__init__(seed, place)
        self.augment, self.channels_last, self.scored = recipe.augment, channels_last, scored
        border = 0 if seed is None else self.augment.crop
        self.pixels = Pixels(part.images, split.mean, split.std, border=border, device=self.device)
        self.labels = part.labels.to(self.device)
        self.bounds = bounds(len(part), recipe.batch_size)
        self.kinds = [(stop - start,) for start, stop in pairwise(self.bounds)]
        # bfloat16 is what autocast makes of them before the first layer.
        self._dtype = torch.bfloat16 if recipe.precision == "bf16-mixed" else torch.float32
        self._ready: tuple[Tensor, Tensor, Tensor] | None = None  # images, labels, and 0, 1, ...

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Batch]:
        _, rank, world = self.place
        if self.seed is None:
            for mine in torch.split(torch.arange(rank, len(self.labels), world, device=self.device), self.scored):
                yield self.pixels.batch(mine), self.labels.index_select(0, mine), mine, 1.0
            return
        order, draws = self._choices()
        for start, stop in pairwise(self.bounds):
            mine = order[start:stop].tensor_split(world)[rank]
            share = len(mine) * world / (stop - start)
            yield self.pixels.batch(mine, draws.rows(mine)), self.labels.index_select(0, mine), mine, share

    def begin(self, epoch: int) -> None:
        self.set_epoch(epoch)
        order, draws = self._choices()
        if self._ready is None:
            side = (self.pixels.height, self.pixels.width)
            shape = (len(order), *side, 3) if self.channels_last else (len(order), 3, *side)
            offsets = torch.arange(max(self.kinds)[0], device=self.device)
            self._ready = torch.empty(shape, device=self.device, dtype=self._dtype), self.labels.clone(), offsets
        ready, labels, _ = self._ready
        torch.index_select(self.labels, 0, order, out=labels)
        for start in range(0, len(order), _MANY_IMAGES):
            mine = order[start : start + _MANY_IMAGES]
            images = self.pixels.batch(mine, draws.rows(mine))
            ready[start : start + len(mine)].copy_(images.permute(0, 2, 3, 1) if self.channels_last else images)

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        assert self._ready is not None, "begin lays the epoch ready"
        images, labels, offsets = self._ready
        mine = first + offsets[: kind[0]]
        images = images.index_select(0, mine)
        return images.permute(0, 3, 1, 2) if self.channels_last else images, labels.index_select(0, mine)

    def _choices(self) -> tuple[Tensor, Draws]:
        """Return the epoch's order, (N,) int64, and what happens to each image, both on the device."""
        count, height, width = len(self.labels), self.pixels.height, self.pixels.width
        order_generator, generator = (
            torch.Generator().manual_seed(self._epoch_seed(stream)) for stream in ("order", "augment")
        )
        order = torch.randperm(count, generator=order_generator).to(self.device, non_blocking=True)
        return order, draw(self.augment, count, height, width, generator).to(self.device)


class FileFeed(Feed):
    """Image files that worker processes decode: shuffled and augmented, or (without a seed) as they are."""

    def __init__(
        self, part: FilePart, split: StreamSplit, recipe: ImageRecipe, seed: int | None, place: Place, *, workers: int
    ) -> None:
        super().__init__(seed, place)
        self.files, self.workers = _Files(part, recipe.size or 224, seed is not None), workers
        self.bounds = bounds(len(part), recipe.batch_size)
        self._scale = (1 / (255 * split.std)).view(3, 1, 1).to(self.device)
        self._shift = (-split.mean / split.std).view(3, 1, 1).to(self.device)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        device, rank, world = self.place
        order = np.arange(len(self.files))
        if self.seed is not None:
            order = np.random.default_rng(self._epoch_seed("order")).permutation(order)
        self.files.seed = self._epoch_seed("augment") % 2**62
        whole = [order[start:stop] for start, stop in pairwise(self.bounds)]
        mine = [np.array_split(batch, world)[rank].tolist() for batch in whole]
        loader = torch.utils.data.DataLoader(
            self.files, batch_sampler=mine, num_workers=self.workers, pin_memory=device.type == "cuda"
        )
        for batch, (images, labels, index) in zip(whole, loader, strict=True):
            share = len(labels) * world / len(batch)
            pixels = images.to(device, non_blocking=True).float().mul_(self._scale).add_(self._shift)
            yield pixels, labels.to(device), index.to(device), share


class _Files(torch.utils.data.Dataset[Any]):
    """Decoding and augmentation in a worker; an image's randomness comes from (epoch seed, its place) alone."""

    def __init__(self, part: FilePart, size: int, training: bool) -> None:
        from torchvision.transforms import v2

        crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
        whole = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
        self.transform = v2.Compose([*(crop if training else whole), v2.PILToTensor()])
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


class TextFeed(Feed):
    """Batches of texts of similar length, whose tokens live on the device.

    Each is padded to its longest text; in an epoch that lies ready to a multiple of 32, as every other length is
    another graph.

    Args:
        part: The examples.
        recipe: Batch size, length, and in how many pieces a batch comes; each process gets an equal run of every piece.
        seed: Of the order; None: by length, for scoring.
        place: Where.
        scored: Texts that a process scores at once.
    """

    def __init__(
        self, part: TextPart, recipe: TextRecipe, seed: int | None, place: Place, *, scored: int = _TEXTS
    ) -> None:
        super().__init__(seed, place)
        tokens = encode(part, recipe.model, recipe.max_length)
        self.lengths, self.left, self.longest = tokens.lengths, tokens.left, recipe.max_length
        self.inputs = {name: values.to(self.device) for name, values in tokens.padded.items()}
        self.labels = torch.from_numpy(np.ascontiguousarray(part.labels)).to(self.device)
        self.size = recipe.batch_size if seed is not None else scored * place.world
        self.pieces = recipe.accumulate if seed is not None else 1
        self.order = torch.zeros_like(self.labels)  # of the epoch that lies ready
        self.offsets = torch.arange(self.size, device=self.device)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size) * self.pieces

    def __iter__(self) -> Iterator[Batch]:
        device, rank, world = self.place
        for whole in self._batches():
            for piece in range(self.pieces):
                mine = np.array_split(np.array_split(whole, self.pieces)[piece], world)[rank]
                # The loss is a mean over ``mine``; times its share, summed over pieces and averaged over processes (as
                # Lightning and DDP do), it is the mean over the batch.
                share = len(mine) * self.pieces * world / len(whole)
                if not len(mine) and self.seed is None:
                    continue
                rows = mine if len(mine) else whole[:1]  # nothing left: all processes must step, with weight 0 then
                index = torch.from_numpy(rows)
                yield *self._rows(index.to(device), int(self.lengths[rows].max())), index, share

    def begin(self, epoch: int) -> None:
        self.set_epoch(epoch)
        batches = self._batches()
        self.order.copy_(torch.from_numpy(np.concatenate(batches)))
        self.kinds = [(len(rows), padded_length(int(self.lengths[rows[0]]), self.longest)) for rows in batches]

    def batch(self, first: Tensor, kind: Kind) -> tuple[Any, Tensor]:
        examples, length = kind
        return self._rows(self.order.index_select(0, first + self.offsets[:examples]), length)

    def _batches(self) -> list[NDArray[np.int64]]:
        if self.seed is None:
            return scoring_batches(self.lengths, self.size)
        return epoch_batches(self.seed, self.epoch, self.lengths, self.size)

    def _rows(self, rows: Tensor, length: int) -> tuple[Any, Tensor]:
        """Return the tokens of some texts, each padded to this length, and their labels."""
        places = slice(-length, None) if self.left else slice(length)
        inputs = {name: values.index_select(0, rows)[:, places] for name, values in self.inputs.items()}
        return inputs, self.labels.index_select(0, rows)


def make_feed(
    split: DeepSplit, recipe: DeepRecipe, hardware: Hardware, seed: int, place: Place, *, many: bool = False
) -> Feed:
    """Return the feed of a repeat's training part, with the order and augmentation of a seed, and its ``parts``.

    Args:
        split: The repeat's parts.
        recipe: The protocol.
        hardware: How many workers decode files, and the memory format of images.
        seed: Of order and augmentation.
        place: Where the batches are needed.
        many: Score many examples at once.
    """
    if isinstance(split, TextSplit):
        texts, scored = expect("recipe", recipe, TextRecipe), _MANY_TEXTS if many else _TEXTS
        return _with_parts(partial(TextFeed, recipe=texts, place=place, scored=scored), split, seed)
    recipe = expect("recipe", recipe, ImageRecipe)
    if isinstance(split, StreamSplit):
        files = partial(FileFeed, split=split, recipe=recipe, place=place, workers=hardware.workers)
        return _with_parts(files, split, seed)
    layout, scored = hardware.channels_last, _MANY_IMAGES if many else _IMAGES
    images = partial(ImageFeed, split=split, recipe=recipe, place=place, channels_last=layout, scored=scored)
    return _with_parts(images, split, seed)


def _with_parts(make: Callable[..., Feed], split: DeepSplit, seed: int) -> Feed:
    feed = make(split.train, seed=seed)
    parts = {"val": split.validation, "test": split.test}
    feed.parts = {name: make(part, seed=None) for name, part in parts.items() if part is not None}
    return feed
