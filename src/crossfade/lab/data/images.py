"""Small-image data sets as tensors of bytes, and the division of one into the parts of a repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from crossfade.errors import UserError
from crossfade.lab.data.split import held_out
from crossfade.lab.trial import Shape, stream_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one size with their class numbers.

    Args:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64.

    Raises:
        UserError: shapes or types that don't fit.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"images must be uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise UserError(f"labels must be int64, one for each of {len(images)} images, got {tuple(labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: NDArray[np.int64] | Tensor) -> Part:
        """Return some of them."""
        index = torch.as_tensor(index)
        return Part(self.images[index], self.labels[index])

    def in_order(self) -> Part:
        """Return the part sorted by a hash of each image, whatever files it was read from.

        The order is as good as random, and the first n images are a fixed random sample.
        """
        raw = self.images.numpy()
        keys = [
            (hashlib.blake2b(image.tobytes(), digest_size=16).digest(), int(label), place)
            for place, (image, label) in enumerate(zip(raw, self.labels, strict=True))
        ]
        return self.rows(np.array([key[2] for key in sorted(keys)], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set in memory.

    Args:
        name: What tables call it.
        classes: Names, in the order of the class numbers.
        train: All that may be learnt from.
        validation: A part that chooses epochs, where the data set brings one.
        test: The test part; None: each repeat divides ``train``.
        source: Where it was read.

    Raises:
        UserError: a class without images in a part, or class numbers out of range.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    validation: Part | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for word, part in (("training", self.train), ("validation", self.validation), ("test", self.test)):
            if part is None:
                continue
            if len(part) and not (part.labels.min() >= 0 and part.labels.max() < len(self.classes)):
                raise UserError(
                    f"{self.name}: class numbers of the {word} part must be in [0, {len(self.classes)}), got "
                    f"{int(part.labels.min())} to {int(part.labels.max())}"
                )
            empty = (torch.bincount(part.labels, minlength=len(self.classes)) == 0).nonzero().view(-1).tolist()
            if empty:
                names = ", ".join(repr(self.classes[at]) for at in empty[:5]) + (", …" if len(empty) > 5 else "")
                raise UserError(
                    f"{self.name}: no image of class {names} in the {word} part; add some, or remove the class"
                )
            if part.images.shape[1:] != self.train.images.shape[1:]:
                raise UserError(
                    f"{self.name}: images of the {word} part are {tuple(part.images.shape[2:])} pixels, of the "
                    f"training part {tuple(self.train.images.shape[2:])}; make them one size"
                )

    @cached_property
    def sha256(self) -> str:
        """Hash of pixels, labels and class names."""
        known = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.train, self.validation, self.test):
            if part is not None:
                known.update(part.labels.numpy().tobytes())
                known.update(part.images.contiguous().numpy().data)
        return known.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """One repeat: the parts, and the training part's mean and standard deviation of each colour, in [0, 1]."""

    train: Part
    validation: Part | None
    test: Part
    classes: int
    mean: Tensor
    std: Tensor


@dataclass(frozen=True, eq=False)
class ImageTask:
    """A data set, and how a repeat divides it.

    Args:
        data: The images.
        per_class: Learn from this many images of each class only; None for all.
        test_per_class: As many of the test part.
        select: ``"validation"`` sets a validation part aside where the data has none; ``"last"`` doesn't need one.
        test_size: Share of the images in a part that is set aside.
        seed: Another number gives other divisions, initial weights and batches.
        label: What tables call it, when it isn't the data set's name.

    Raises:
        UserError: too few images of a class for this division.
    """

    data: ImageSet
    per_class: int | None = None
    test_per_class: int | None = None
    select: str = "last"
    test_size: float = 0.2
    seed: int = 0
    label: str | None = None

    def __post_init__(self) -> None:
        counts = torch.bincount(self.data.train.labels, minlength=len(self.data.classes))
        needed = 1 + (self.data.test is None) + self._sets_validation_aside
        if int(counts.min()) < needed:
            name = self.data.classes[int(counts.argmin())]
            raise UserError(
                f"{self.data.name}: class {name!r} has {int(counts.min())} image(s), and {needed} are needed, one "
                "for each part; add images or remove the class"
            )
        for word, number in (("per_class", self.per_class), ("test_per_class", self.test_per_class)):
            if number is not None and number < 1:
                raise UserError(f"{word} must be at least 1, got {number}")

    @property
    def _sets_validation_aside(self) -> bool:
        return self.select == "validation" and self.data.validation is None

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label or self.data.name

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What decides the numbers."""
        return {
            "data": self.data.sha256, "per_class": self.per_class, "test_per_class": self.test_per_class,
            "select": self.select, "test_size": self.test_size, "seed": self.seed, "preprocessing": 1,
        }  # fmt: skip

    @property
    def shape(self) -> Shape:
        """Training images, pixels times colours, classes."""
        images, classes = self.data.train.images, len(self.data.classes)
        return Shape(min(len(images), (self.per_class or len(images)) * classes), images[0].numel(), classes)

    def split(self, repeat: int) -> ImageSplit:
        """Return the parts of one repeat; they are the same for every method."""
        train, validation, test = self.data.train, self.data.validation, self.data.test
        state = stream_seed(self.content, repeat, "split")
        if test is None:
            train, test = self._divide(train, state)
        if self._sets_validation_aside:
            train, validation = self._divide(train, state + 1)
        train, test = _sample(train, self.per_class), _sample(test, self.test_per_class)
        mean, std = _moments(train.images)
        return ImageSplit(
            train, validation if self.select == "validation" else None, test, len(self.data.classes), mean, std
        )

    def describe(self) -> dict[str, Any]:
        """Return one entry of the report's ``datasets``."""
        split = self.split(0)
        sizes = [len(split.train), 0 if split.validation is None else len(split.validation), len(split.test)]
        return {
            "name": self.name, "source": self.data.source, "rows": sum(sizes), "features": self.shape[1],
            "classes": split.classes, "n_train": sizes[0], "n_val": sizes[1], "n_test": sizes[2],
            "sha256": self.data.sha256,
        }  # fmt: skip

    def _divide(self, part: Part, state: int) -> tuple[Part, Part]:
        """Divide by class: every class has at least one image in both parts."""
        out = held_out(part.labels.numpy(), len(self.data.classes), self.test_size, state)
        return part.rows(np.setdiff1d(np.arange(len(part)), out)), part.rows(out)


def _sample(part: Part, each: int | None) -> Part:
    """Return the first images of each class, in the part's order."""
    if each is None:
        return part
    labels = part.labels.numpy()
    chosen = [np.flatnonzero(labels == number)[:each] for number in range(int(labels.max()) + 1)]
    return part.rows(np.sort(np.concatenate(chosen)))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each colour, exactly: from histograms, without a copy as floats."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for colour in range(3):
        count = torch.bincount(images[:, colour].reshape(-1), minlength=256).double()
        mean.append((levels * count).sum() / count.sum())
        std.append((((levels - mean[-1]) ** 2 * count).sum() / count.sum()).sqrt())
    # A colour that never changes, such as an empty plane, carries nothing to scale.
    spread = torch.stack(std)
    return torch.stack(mean), torch.where(spread > 0, spread, torch.ones_like(spread))
