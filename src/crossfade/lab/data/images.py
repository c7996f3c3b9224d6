"""Data sets of small images as tensors of bytes, and ImageNet as lists of files, in the parts of a repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.errors import UserError
from crossfade.lab.data.split import DividedTask, Examples, Parts, entry, first_of_each
from crossfade.lab.trial import Json, Shape, digest, stream_seed

Files: TypeAlias = tuple[tuple[str, int], ...]  # image files and their class numbers
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one size, (N, 3, H, W) uint8, with their class numbers, (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: NDArray[np.int64]) -> Part:
        places = torch.from_numpy(index)
        return Part(self.images[places], self.labels[places])

    @property
    def codes(self) -> NDArray[np.int64]:
        return self.labels.numpy()

    def in_order(self) -> Part:
        """Return the part sorted by a hash of each image, so that the order doesn't depend on the files.

        The order is as good as random, and the first n images are a fixed random sample.
        """
        keys = [
            (hashlib.blake2b(image.tobytes(), digest_size=16).digest(), label, place)
            for place, (image, label) in enumerate(zip(self.images.numpy(), self.labels.tolist(), strict=True))
        ]
        return self.rows(np.array([place for *_, place in sorted(keys)], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class ImageSet(Examples[Part]):
    """Images in memory.

    Raises:
        UserError: a class without images in a part, or class numbers out of range.
    """

    def __post_init__(self) -> None:
        for word, part in self.parts.items():
            if len(part) and not (part.labels.min() >= 0 and part.labels.max() < len(self.classes)):
                raise UserError(
                    f"{self.name}: class numbers of the {word} part must be in [0, {len(self.classes)}), got "
                    f"{int(part.labels.min())} to {int(part.labels.max())}"
                )
            counts = np.bincount(part.codes, minlength=len(self.classes))
            empty = [repr(name) for name, count in zip(self.classes, counts, strict=True) if not count]
            if empty:
                names = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
                raise UserError(
                    f"{self.name}: no image of class {names} in the {word} part; add some, or remove the class"
                )

    @cached_property
    def sha256(self) -> str:
        """Hash of pixels, labels and class names."""
        hashed = hashlib.sha256("\n".join(self.classes).encode())
        for part in self.parts.values():
            hashed.update(part.codes.tobytes())
            hashed.update(part.images.contiguous().numpy().data)
        return hashed.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSplit(Parts[Part]):
    """One repeat: the parts, and the training part's mean and standard deviation of each colour, in [0, 1]."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, eq=False)
class ImageTask(DividedTask[Part]):
    """A set of images, and how a repeat divides it.

    Args:
        per_class, test_per_class: The number of training and of test images of each class; None for all.
    """

    noun: ClassVar[str] = "image(s)"

    data: ImageSet
    select: str = "last"
    per_class: int | None = None
    test_per_class: int | None = None

    @cached_property
    def content(self) -> Mapping[str, object]:
        return {
            "data": self.data.sha256,
            "per_class": self.per_class,
            "test_per_class": self.test_per_class,
            "select": self.select,
            "test_size": self.test_size,
            "seed": self.seed,
            "preprocessing": 1,
        }

    @property
    def shape(self) -> Shape:
        """Training images, pixels times colours, classes."""
        images, classes = self.data.train.images, len(self.data.classes)
        return Shape(min(len(images), (self.per_class or len(images)) * classes), images[0].numel(), classes)

    def split(self, repeat: int) -> ImageSplit:
        train, validation, test, tested = self.divided(stream_seed(self.content, repeat, "split"), self.test_size)
        train, test = _sample(train, self.per_class), _sample(test, self.test_per_class)
        whole = tested if self.test_per_class is None else None
        return ImageSplit(train, validation, test, len(self.data.classes), *_moments(train.images), tested=whole)

    def describe(self) -> Json:
        data, split = self.data, self.split(0)
        parts = (split.train, split.validation, split.test)
        return entry(self, data.source, self.shape.inputs, parts, data.sha256) | self.judged


def _sample(part: Part, each: int | None) -> Part:
    """Return the first images of each class, in the part's order."""
    return part if each is None else part.rows(first_of_each(part.codes, each))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact mean and standard deviation of each colour, from histograms."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for colour in range(3):
        count = torch.bincount(images[:, colour].reshape(-1), minlength=256).double()
        mean.append((levels * count).sum() / count.sum())
        std.append((((levels - mean[-1]) ** 2 * count).sum() / count.sum()).sqrt())
    # A constant colour isn't scaled.
    spread = torch.stack(std)
    return torch.stack(mean), torch.where(spread > 0, spread, torch.ones_like(spread))


@dataclass(frozen=True, eq=False)
class StreamSplit(Parts[Files]):
    """The parts of one repeat, as ``ImageSplit`` with files instead of pixels."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, eq=False)
class StreamTask:
    """A data set of image files with a fixed test part."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: Files
    test: Files

    @cached_property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers: the files' names instead of their bytes, as hashing 150 GB would take too long."""
        parts = [[Path(file).parts[-2:] for file, _ in part] for part in (self.train, self.test)]
        return {"files": digest(parts), "preprocessing": 1}

    @property
    def shape(self) -> Shape:
        """Training images, values of one as the network sees it, classes."""
        return Shape(len(self.train), 3 * 224 * 224, len(self.classes))

    def split(self, repeat: int) -> StreamSplit:
        """Return the parts, which are the same for every repeat."""
        return StreamSplit(self.train, None, self.test, len(self.classes), torch.tensor(_MEAN), torch.tensor(_STD))

    def describe(self) -> dict[str, str | int]:
        parts = (self.train, None, self.test)
        return entry(self, self.source, self.shape.inputs, parts, str(self.content["files"]))


def stream_task(place: Path, each: int | None, test: int | None, label: str) -> StreamTask:
    """Return the task of ``place/train/WNID/*`` and ``place/val/WNID/*``, or of the first images of each class.

    Raises:
        UserError: classes that differ, or an unshortened copy with other counts than ImageNet-2012's.
    """
    from torchvision.datasets import ImageFolder

    try:
        train, val = (ImageFolder(str(place / part), loader=lambda path: path) for part in ("train", "val"))
    except (FileNotFoundError, RuntimeError) as error:
        raise UserError(f"{place}: {str(error).splitlines()[0]}") from None
    unmatched = sorted(set(train.classes) ^ set(val.classes))
    if unmatched:
        raise UserError(f"{place}: class {unmatched[0]} is in only one of train and val; complete the copy")
    parts = []
    for word, samples, limit, wanted in (("train", train.samples, each, 1_281_167), ("val", val.samples, test, 50_000)):
        if limit is not None:
            labels = np.array([label for _, label in samples])
            samples = [samples[at] for at in first_of_each(labels, limit)]
        elif len(samples) != wanted:
            raise UserError(f"{place / word}: {len(samples):,} images, expected {wanted:,}; the copy isn't complete")
        parts.append(tuple(samples))
    return StreamTask(label, str(place.name), tuple(train.classes), *parts)
