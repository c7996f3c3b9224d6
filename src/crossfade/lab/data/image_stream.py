"""ImageNet as lists of files, since it is too large for a device's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from crossfade.errors import UserError
from crossfade.lab.data.split import entry, first_of_each
from crossfade.lab.trial import Shape, digest

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class FilePart:
    """Files and their class numbers."""

    files: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """The parts of one repeat, as ``ImageSplit`` with files instead of pixels."""

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
    def content(self) -> Mapping[str, object]:
        """What decides the numbers: the files' names instead of their bytes, as hashing 150 GB would take too long."""
        parts = [[Path(file).parts[-2:] for file, _ in part.files] for part in (self.train, self.test)]
        return {"files": digest(parts), "preprocessing": 1}

    @property
    def shape(self) -> Shape:
        """Training images, values of one as the network sees it, classes."""
        return Shape(len(self.train), 3 * 224 * 224, len(self.classes))

    def split(self, repeat: int) -> StreamSplit:
        """Return the parts, which are the same for every repeat."""
        return StreamSplit(self.train, None, self.test, len(self.classes), torch.tensor(_MEAN), torch.tensor(_STD))

    def describe(self) -> dict[str, str | int]:
        """Return one entry of the report's ``datasets``."""
        _, features, classes = self.shape
        parts, sha256 = (self.train, None, self.test), str(self.content["files"])
        return entry(self.name, self.source, features, classes, parts, sha256)


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
        parts.append(FilePart(tuple(samples)))
    return StreamTask(label, str(place.name), tuple(train.classes), *parts)
