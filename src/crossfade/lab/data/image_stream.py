"""ImageNet: too large to live on a device, so its parts are lists of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from crossfade.errors import UserError
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
        """Return the parts, which are the same for every repeat."""
        return StreamSplit(self.train, None, self.test, len(self.classes), torch.tensor(_MEAN), torch.tensor(_STD))

    def describe(self) -> dict[str, Any]:
        """Return one entry of the report's ``datasets``."""
        return {
            "name": self.name, "source": self.source, "rows": len(self.train) + len(self.test),
            "features": self.shape[1], "classes": len(self.classes), "n_train": len(self.train), "n_val": 0,
            "n_test": len(self.test), "sha256": str(self.content["files"]),
        }  # fmt: skip


def find_imagenet(folder: Path) -> Path | None:
    """Return the place below a folder that holds ImageNet's train and val, or None."""
    for place in (folder / "imagenet", folder / "ILSVRC2012", folder):
        if (place / "train").is_dir() and (place / "val").is_dir() and not (place / "val_annotations.txt").exists():
            return place
    return None


def stream_task(place: Path, each: int | None, test: int | None, label: str) -> StreamTask:
    """Return the task of ``place/train/WNID/*`` and ``place/val/WNID/*``, or of the first images of each class.

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
