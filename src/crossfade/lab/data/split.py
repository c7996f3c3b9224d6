"""One repeat of a data set: a table's arrays, how examples are held out for a part, and what a report says of the parts."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]

_ROWS = 2**31  # what 32 bits count
_PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test rows of a table, preprocessed, with labels in [0, classes).

    ``x_*`` is (rows, features) and becomes float32, C-contiguous; ``y_*`` is (rows,) and becomes int64.

    Raises:
        UserError: shapes that don't fit, labels outside [0, classes), no training or no validation row. The test part
            may be empty.
    """

    x_train: Floats
    y_train: Integers
    x_val: Floats
    y_val: Integers
    x_test: Floats
    y_test: Integers
    classes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(f"classes must be at least 1, got {self.classes}")
        for part in _PARTS:
            x = np.ascontiguousarray(getattr(self, f"x_{part}"), dtype=np.float32)
            y = np.ascontiguousarray(getattr(self, f"y_{part}"), dtype=np.int64)
            if x.ndim != 2 or x.shape[1] == 0 or y.shape != x.shape[:1] or len(y) >= _ROWS:
                raise UserError(
                    f"x_{part} must be (rows, features) with a label in y_{part} for each row, got {x.shape}, {y.shape}"
                )
            if len(y) and not (y.min() >= 0 and y.max() < self.classes):
                raise UserError(f"y_{part} must hold class numbers in [0, {self.classes}), got {y.min()} to {y.max()}")
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)
        widths = {part: x.shape[1] for part, (x, _) in zip(_PARTS, self.parts, strict=True)}
        if len(set(widths.values())) > 1:
            raise UserError(f"the parts must have the same features, got {widths}")
        if not len(self.y_train):
            raise UserError("the training part has no rows: there is nothing to learn from")
        if not len(self.y_val):
            raise UserError("the validation part has no rows: it chooses the epoch and the learning rate; give it some")

    @property
    def features(self) -> int:
        """Number of inputs."""
        return int(self.x_train.shape[1])

    @property
    def parts(self) -> tuple[tuple[Floats, Integers], ...]:
        """Inputs and labels of the training, the validation and the test part."""
        return (self.x_train, self.y_train), (self.x_val, self.y_val), (self.x_test, self.y_test)


class Part(Protocol):
    """Examples of which some can be taken."""

    def __len__(self) -> int:
        """Return how many they are."""

    def rows(self, index: Integers) -> Self:
        """Return the examples at these places, in this order."""


AnyPart = TypeVar("AnyPart", bound=Part)


def divide(part: AnyPart, labels: Integers, classes: int, share: float, state: int) -> tuple[AnyPart, AnyPart]:
    """Return what is left of a part and what is held out of it: this share of each class, at least one, never all."""
    rng = np.random.default_rng(state)
    held: list[Integers] = []
    for number in range(classes):
        own = rng.permutation(np.flatnonzero(labels == number))
        held.append(own[: min(max(1, round(share * len(own))), len(own) - 1)])
    out = np.sort(np.concatenate(held))
    return part.rows(np.setdiff1d(np.arange(len(part)), out)), part.rows(out)


def first_of_each(labels: Integers, number: int) -> Integers:
    """Return the places, in order, of the first so many examples of each class.

    >>> first_of_each(np.array([1, 0, 1, 0, 1]), 2).tolist()
    [0, 1, 2, 3]
    """
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:number] for label in np.unique(labels)]))


def check_classes(labels: Integers, classes: Sequence[str], needed: int, where: str, examples: str) -> None:
    """Raise a UserError that names the smallest class if it has fewer examples than the division needs."""
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < needed:
        raise UserError(
            f"{where}: class {classes[counts.argmin()]!r} has {counts.min()} {examples}, and {needed} are needed, one "
            "for each part; add some, or merge or remove the class"
        )


def entry(
    name: str, source: str, *, features: int, classes: int, parts: Sequence[Sized | None], sha256: str
) -> dict[str, str | int]:
    """Return one entry of a report's ``datasets``; the training, the validation and the test part, which may be None."""
    sizes = [0 if part is None else len(part) for part in parts]
    counts = dict(zip(("n_train", "n_val", "n_test"), sizes, strict=True))
    shape = {"rows": sum(sizes), "features": features, "classes": classes}
    return {"name": name, "source": source, **shape, **counts, "sha256": sha256}
