"""ImageNet: too large to live on a device, so torchvision's data set and worker processes decode it as it is needed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crossfade.errors import UserError
from crossfade.lab.trial import Shape, digest

if TYPE_CHECKING:
    from crossfade.lab.train.deep.batches import Batch
    from crossfade.lab.train.deep.recipe import ImageRecipe
    from crossfade.lab.train.hardware import Hardware

__all__ = ["FilePart", "StreamBatches", "StreamSplit", "StreamTask", "find_imagenet", "stream_task"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class FilePart:
    """Files and their class numbers."""

    files: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """One repeat: as ``ImageSplit``, with files instead of pixels."""

    train: FilePart
    validation: FilePart | None
    test: FilePart
    classes: int
    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True, eq=False)
class StreamTask:
    """A data set of image files with a fixed test part."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: FilePart
    test: FilePart

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """The files' names below their part stand for the images: hashing 150 GB would take longer than many a run."""
        parts = [
            [(Path(file).parent.name, Path(file).name) for file, _ in part.files] for part in (self.train, self.test)
        ]
        return {"files": digest(parts), "preprocessing": 1}

    @property
    def shape(self) -> Shape:
        """Training images, values of one as the network sees it, classes."""
        return Shape(len(self.train), 3 * 224 * 224, len(self.classes))

    def split(self, repeat: int) -> StreamSplit:
        """The same for every repeat."""
        return StreamSplit(self.train, None, self.test, len(self.classes), torch.tensor(_MEAN), torch.tensor(_STD))

    def describe(self) -> dict[str, Any]:
        """One entry of the report's ``datasets``."""
        return {
            "name": self.name, "source": self.source, "rows": len(self.train) + len(self.test),
            "features": self.shape[1], "classes": len(self.classes), "n_train": len(self.train), "n_val": 0,
            "n_test": len(self.test), "sha256": str(self.content["files"]),
        }  # fmt: skip


def find_imagenet(folder: Path) -> Path | None:
    """``imagenet`` or the folder itself, if it holds train and val."""
    for place in (folder / "imagenet", folder / "ILSVRC2012", folder):
        if (place / "train").is_dir() and (place / "val").is_dir() and not (place / "val_annotations.txt").exists():
            return place
    return None


def stream_task(place: Path, each: int | None, test: int | None, label: str) -> StreamTask:
    """``place/train/WNID/*`` and ``place/val/WNID/*``, or the first so many images of each class.

    Raises:
        UserError: classes that differ, or an unshortened copy with other counts than ImageNet-2012's.
    """
    from torchvision.datasets import ImageFolder

    try:
        read = {part: ImageFolder(str(place / part), loader=lambda path: path) for part in ("train", "val")}
    except (FileNotFoundError, RuntimeError) as error:
        raise UserError(f"{place}: {str(error).splitlines()[0]}") from None
    if read["train"].classes != read["val"].classes:
        odd = sorted(set(read["train"].classes) ^ set(read["val"].classes))
        raise UserError(f"{place}: class {odd[0]} is in only one of train and val; complete the copy")
    train, val = _first(read["train"].samples, each), _first(read["val"].samples, test)
    for word, part, limit, wanted in (("train", train, each, 1_281_167), ("val", val, test, 50_000)):
        if limit is None and len(part) != wanted:
            raise UserError(f"{place / word}: {len(part):,} images, expected {wanted:,}; the copy isn't complete")
    return StreamTask(label, str(place.name), tuple(read["train"].classes), train, val)


def _first(samples: list[tuple[str, int]], each: int | None) -> FilePart:
    if each is None:
        return FilePart(tuple(samples))
    taken: dict[int, int] = {}
    chosen = []
    for file, label in samples:
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= each:
            chosen.append((file, label))
    return FilePart(tuple(chosen))


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


class StreamBatches:
    """Batches of files, for training (shuffled, augmented) or scoring."""

    def __init__(
        self, part: FilePart, split: StreamSplit, recipe: ImageRecipe, hardware: Hardware, seed: int, *,
        training: bool, device: Any, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.files, self.recipe, self.hardware = _Files(part, recipe.size or 224, training), recipe, hardware
        self.training, self.seed, self.epoch = training, seed, 0
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self._scale = (1 / (255 * split.std)).view(3, 1, 1).to(self.device)
        self._shift = (-split.mean / split.std).view(3, 1, 1).to(self.device)

    @property
    def sampler(self) -> StreamBatches:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch's."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def _bounds(self) -> list[int]:
        from crossfade.lab.train.deep.batches import bounds

        return bounds(len(self.files), self.recipe.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        from crossfade.lab.train.deep.batches import epoch_seed

        order = np.arange(len(self.files))
        if self.training:
            order = np.random.default_rng(epoch_seed(self.seed, self.epoch, "order")).permutation(order)
        self.files.seed = epoch_seed(self.seed, self.epoch, "augment") % 2**62
        marks = self._bounds()
        whole = [order[start:stop] for start, stop in pairwise(marks)]
        mine = [np.array_split(batch, self.world)[self.rank].tolist() for batch in whole]
        loader = torch.utils.data.DataLoader(
            self.files, batch_sampler=mine, num_workers=self.hardware.workers, pin_memory=self.device.type == "cuda"
        )
        for batch, (images, labels, index) in zip(whole, loader, strict=True):
            share = len(labels) * self.world / len(batch)
            pixels = images.to(self.device, non_blocking=True).float().mul_(self._scale).add_(self._shift)
            yield pixels, labels.to(self.device), index.to(self.device), share
