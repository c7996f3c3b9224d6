"""Feeds of batches: of images on the device, of image files that workers decode, and of texts.

A training loop iterates over a feed; the CUDA graphs of ``side_by_side`` read batches of images and texts from memory
at a fixed address. All randomness of an epoch comes from (seed, epoch).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.errors import UserError
from crossfade.lab.checks import expect
from crossfade.lab.data.images import Files, ImageSplit, Part, StreamSplit
from crossfade.lab.data.texts import TextPart, TextSplit
from crossfade.lab.hardware import Hardware
from crossfade.lab.nets.pretrained import encode, padded_length
from crossfade.lab.train.deep.augment import Draws, Pixels, draw
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.epochs import epoch_batches, scoring_batches

_IMAGES, _MANY_IMAGES = 500, 2_500  # scored at once by a loop, and by ``side_by_side``
_TEXTS, _MANY_TEXTS = 64, 512

DeepSplit: TypeAlias = ImageSplit | StreamSplit | TextSplit
Inputs: TypeAlias = Tensor | Mapping[str, Tensor]  # images, or a tokenizer's arrays by name
# Inputs, labels, indices in the part, and the loss's weight: this process's examples x processes / the whole batch's.
Batch: TypeAlias = tuple[Inputs, Tensor, Tensor, float]
Kind: TypeAlias = tuple[int, ...]  # what a step's shapes depend on: the number of examples, and a text's length


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """Return the seed of one source of randomness in one epoch, so that a resumed run needs no saved state."""
    raw = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


def bounds(count: int, size: int) -> list[int]:
    """Return where batches begin, and the end. A last batch below a quarter of ``size`` is joined to the one before.

    Batch normalisation can't use a single image, neither as a batch nor as a process's part of one, and the rule must
    not depend on the number of processes.
    """
    marks = [*range(0, count, size), count]
    if len(marks) > 2 and marks[-1] - marks[-2] < size / 4:
        del marks[-2]
    return marks


class Place(NamedTuple):
    """A device, and the process there among ``world`` processes, each of which gets an equal part of a batch."""

    device: torch.device
    rank: int = 0
    world: int = 1
    channels_last: bool = True  # the memory format of images


class Feed(ABC):
    """The batches of a part, epoch by epoch.

    Args:
        seed: The seed of order and augmentation; None for a part that is only scored, as it is.
        place: The process that gets the batches.

    Attributes:
        parts: Of a training part's feed, the feeds of ``"val"`` and ``"test"``, if there are such parts.
        kinds: The kinds of the steps in the epoch that ``begin`` has prepared.
    """

    def __init__(self, seed: int | None, place: Place) -> None:
        self.seed, self.place, self.device = seed, place, place.device
        self.epoch = 0
        self.parts: dict[str, Feed] = {}
        self.kinds: list[Kind] = []

    def set_epoch(self, epoch: int) -> None:
        """Use this epoch's order and augmentation in the next pass."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def begin(self, epoch: int) -> None:
        """Prepare an epoch in memory at a fixed address, as graphs need it; image files don't support it."""
        raise NotImplementedError

    def batch(self, first: Tensor, kind: Kind) -> tuple[Inputs, Tensor]:
        """Return inputs and labels of the prepared epoch's examples ``first``, ``first`` + 1, ..."""
        raise NotImplementedError

    def _epoch_seed(self, stream: str) -> int:
        return epoch_seed(self.seed or 0, self.epoch, stream)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.place.channels_last else images


class ImageFeed(Feed):
    """Batches of images that are stored on the device.

    They are normalised with the mean and deviation of ``split``. A process scores ``scored`` of them at once.
    """

    def __init__(
        self, part: Part, split: ImageSplit, recipe: ImageRecipe, seed: int | None, place: Place, scored: int = _IMAGES
    ) -> None:
        super().__init__(seed, place)
        self.augment, self.scored = recipe.augment, scored
        border = 0 if seed is None else self.augment.crop
        self.pixels = Pixels(part.images, split.mean, split.std, border=border, device=self.device)
        self.labels = part.labels.to(self.device)
        self.bounds = bounds(len(part), recipe.batch_size)
        self.kinds = [(stop - start,) for start, stop in pairwise(self.bounds)]
        # Autocast would convert them to bfloat16 before the first layer.
        self._dtype = torch.bfloat16 if recipe.precision == "bf16-mixed" else torch.float32
        self._ready: tuple[Tensor, Tensor, Tensor] | None = None  # images, labels, and 0, 1, ...

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Batch]:
        rank, world = self.place.rank, self.place.world
        if self.seed is None:
            for mine in torch.split(torch.arange(rank, len(self.labels), world, device=self.device), self.scored):
                yield self._laid_out(self.pixels.batch(mine)), self.labels.index_select(0, mine), mine, 1.0
            return
        order, draws = self._choices()
        for start, stop in pairwise(self.bounds):
            mine = order[start:stop].tensor_split(world)[rank]
            share = len(mine) * world / (stop - start)
            images = self._laid_out(self.pixels.batch(mine, draws.rows(mine)))
            yield images, self.labels.index_select(0, mine), mine, share

    def begin(self, epoch: int) -> None:
        self.set_epoch(epoch)
        order, draws = self._choices()
        if self._ready is None:
            side = (self.pixels.height, self.pixels.width)
            shape = (len(order), *side, 3) if self.place.channels_last else (len(order), 3, *side)
            offsets = torch.arange(max(self.kinds)[0], device=self.device)
            self._ready = torch.empty(shape, device=self.device, dtype=self._dtype), self.labels.clone(), offsets
        ready, labels, _ = self._ready
        torch.index_select(self.labels, 0, order, out=labels)
        for start in range(0, len(order), _MANY_IMAGES):
            mine = order[start : start + _MANY_IMAGES]
            images = self.pixels.batch(mine, draws.rows(mine))
            ready[start : start + len(mine)].copy_(images.permute(0, 2, 3, 1) if self.place.channels_last else images)

    def batch(self, first: Tensor, kind: Kind) -> tuple[Inputs, Tensor]:
        assert self._ready is not None, "begin prepares the epoch"
        images, labels, offsets = self._ready
        mine = first + offsets[: kind[0]]
        images = images.index_select(0, mine)
        return images.permute(0, 3, 1, 2) if self.place.channels_last else images, labels.index_select(0, mine)

    def _choices(self) -> tuple[Tensor, Draws]:
        """Return the epoch's order, (N,) int64, and the augmentation of each image, both on the device."""
        count, height, width = len(self.labels), self.pixels.height, self.pixels.width
        order_generator, generator = (
            torch.Generator().manual_seed(self._epoch_seed(stream)) for stream in ("order", "augment")
        )
        order = torch.randperm(count, generator=order_generator).to(self.device, non_blocking=True)
        return order, draw(self.augment, count, height, width, generator).to(self.device)


class FileFeed(Feed):
    """Batches of image files that worker processes decode: augmented, or with a seed of None as they are."""

    def __init__(
        self, part: Files, split: StreamSplit, recipe: ImageRecipe, seed: int | None, place: Place, *, workers: int
    ) -> None:
        super().__init__(seed, place)
        self.files, self.workers = _Files(part, recipe.size or 224, seed is not None), workers
        self.bounds = bounds(len(part), recipe.batch_size)
        self._scale = (1 / (255 * split.std)).view(3, 1, 1).to(self.device)
        self._shift = (-split.mean / split.std).view(3, 1, 1).to(self.device)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        device, rank, world, _ = self.place
        order = np.arange(len(self.files))
        if self.seed is not None:
            order = np.random.default_rng(self._epoch_seed("order")).permutation(order)
        self.files.seed = self._epoch_seed("augment") % 2**62
        whole = [order[start:stop] for start, stop in pairwise(self.bounds)]
        mine = [np.array_split(batch, world)[rank].tolist() for batch in whole]
        loader = torch.utils.data.DataLoader(
            self.files, batch_sampler=mine, num_workers=self.workers, pin_memory=device.type == "cuda"
        )
        try:
            for batch, (images, labels, index) in zip(whole, loader, strict=True):
                share = len(labels) * world / len(batch)
                pixels = images.to(device, non_blocking=True).float().mul_(self._scale).add_(self._shift)
                yield self._laid_out(pixels), labels.to(device), index.to(device), share
        except UserError as error:  # from a worker it comes with the traceback in front of its line
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None


class _Files(torch.utils.data.Dataset[tuple[Tensor, int, int]]):
    """Decoded and augmented images; the randomness of each comes from (epoch seed, index) alone."""

    def __init__(self, part: Files, size: int, training: bool) -> None:
        from torchvision.transforms import v2

        crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
        whole = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
        self.transform = v2.Compose([*(crop if training else whole), v2.PILToTensor()])
        self.part, self.seed = part, 0

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, at: int) -> tuple[Tensor, int, int]:
        from PIL import Image

        file, label = self.part[at]
        try:
            # Without workers the network's dropout draws from the same generator, and must not notice.
            with Image.open(file) as image, torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed((self.seed + at) % 2**63)
                return self.transform(image.convert("RGB")), label, at
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{file}: can't be read ({error}); repair or remove it") from None


class TextFeed(Feed):
    """Batches of texts of similar length, whose tokens are stored on the device.

    A batch is padded to its longest text, in a prepared epoch to a multiple of 32, as each length needs its own graph.
    It is divided into the recipe's number of pieces, and each process gets an equal part of every piece. Texts that are
    only scored are ordered by length, and a process scores ``scored`` of them at once.
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
        self.order = torch.zeros_like(self.labels)  # of the prepared epoch
        self.offsets = torch.arange(self.size, device=self.device)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size) * self.pieces

    def __iter__(self) -> Iterator[Batch]:
        device, rank, world, _ = self.place
        for whole in self._batches():
            for piece in range(self.pieces):
                mine = np.array_split(np.array_split(whole, self.pieces)[piece], world)[rank]
                # The loss is a mean over ``mine``. Times the share, summed over pieces (by Lightning) and averaged over
                # processes (by DDP), it is the mean over the batch.
                share = len(mine) * self.pieces * world / len(whole)
                if not len(mine) and self.seed is None:
                    continue
                # Where nothing is left for a process, it must still step: with weight 0.
                rows = mine if len(mine) else whole[:1]
                index = torch.from_numpy(rows)
                yield *self._rows(index.to(device), int(self.lengths[rows].max())), index, share

    def begin(self, epoch: int) -> None:
        self.set_epoch(epoch)
        batches = self._batches()
        self.order.copy_(torch.from_numpy(np.concatenate(batches)))
        self.kinds = [(len(rows), padded_length(int(self.lengths[rows[0]]), self.longest)) for rows in batches]

    def batch(self, first: Tensor, kind: Kind) -> tuple[Inputs, Tensor]:
        examples, length = kind
        return self._rows(self.order.index_select(0, first + self.offsets[:examples]), length)

    def _batches(self) -> list[NDArray[np.int64]]:
        if self.seed is None:
            return scoring_batches(self.lengths, self.size)
        return epoch_batches(self.seed, self.epoch, self.lengths, self.size)

    def _rows(self, rows: Tensor, length: int) -> tuple[Inputs, Tensor]:
        """Return tokens padded to this length, and labels, of the texts with these indices."""
        places = slice(-length, None) if self.left else slice(length)
        inputs = {name: values.index_select(0, rows)[:, places] for name, values in self.inputs.items()}
        return inputs, self.labels.index_select(0, rows)


def make_feed(
    split: DeepSplit, recipe: DeepRecipe, hardware: Hardware, seed: int, place: Place, *, many: bool = False
) -> Feed:
    """Return the feed of a repeat's training part; the feeds of the other parts are its ``parts``.

    With ``many``, more examples are scored at once, as ``side_by_side`` can.
    """
    if isinstance(split, TextSplit):
        texts, scored = expect("recipe", recipe, TextRecipe), _MANY_TEXTS if many else _TEXTS
        return _with_parts(partial(TextFeed, recipe=texts, place=place, scored=scored), split, seed)
    recipe = expect("recipe", recipe, ImageRecipe)
    if isinstance(split, StreamSplit):
        files = partial(FileFeed, split=split, recipe=recipe, place=place, workers=hardware.workers)
        return _with_parts(files, split, seed)
    scored = _MANY_IMAGES if many else _IMAGES
    return _with_parts(partial(ImageFeed, split=split, recipe=recipe, place=place, scored=scored), split, seed)


def _with_parts(make: Callable[..., Feed], split: DeepSplit, seed: int) -> Feed:
    feed = make(split.train, seed=seed)
    parts = {"val": split.validation, "test": split.test}
    feed.parts = {name: make(part, seed=None) for name, part in parts.items() if part is not None}
    return feed
