"""The parts of a repeat: a table's as arrays, the division of a data set, and its entry in a report."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.checks import INDEX
from crossfade.lab.trial import Json, Task

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

_PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test rows of a table, preprocessed, with labels in [0, classes).

    ``x_*`` is (rows, features) and becomes float32, C-contiguous; ``y_*`` is (rows,) and becomes int64. ``test_rows``
    are the places of the test rows among all rows, where rows are independent.

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
    test_rows: Integers | None = None

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(f"classes must be at least 1, got {self.classes}")
        for part in _PARTS:
            x = np.ascontiguousarray(getattr(self, f"x_{part}"), dtype=np.float32)
            y = np.ascontiguousarray(getattr(self, f"y_{part}"), dtype=np.int64)
            if x.ndim != 2 or x.shape[1] == 0 or y.shape != x.shape[:1] or len(y) >= INDEX:
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
    """Examples with class numbers, of which some can be selected."""

    def __len__(self) -> int:
        """Return the number of examples."""

    @property
    def codes(self) -> Integers:
        """The class number of each."""

    def rows(self, index: Integers) -> Self:
        """Return the examples at these places, in this order."""


AnyPart = TypeVar("AnyPart", bound=Part)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Parts(Generic[T]):
    """The parts of one repeat; ``validation`` is None if the last epoch counts.

    ``tested`` is which examples are tested, as in ``DividedTask.divided``; None if not all of the test part are.
    """

    train: T
    validation: T | None
    test: T
    classes: int
    tested: Mask | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Examples(Generic[AnyPart]):
    """Examples to learn from, and the test and the validation part if they are fixed.

    Args:
        name: The name in tables.
        classes: The names in the order of the class numbers.
        train: All examples to learn from.
        test: The test part; None if each repeat takes one out of ``train``.
        validation: The part that chooses epochs, if the data set has one.
        notes: Facts that a reader should know, one line each.
    """

    name: str
    classes: tuple[str, ...]
    train: AnyPart
    test: AnyPart | None = None
    validation: AnyPart | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, AnyPart]:
        """The existing parts, by their names in messages."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        return {word: part for word, part in parts.items() if part is not None}


@dataclass(frozen=True, eq=False)
class DividedTask(Generic[AnyPart]):
    """A data set, and its division in each repeat.

    Args:
        select: With ``"validation"`` a validation part is set aside if the data has none; ``"last"`` doesn't need one.
        test_size: Share of the examples in a part that is set aside, in (0, 0.5).
        seed: The seed of divisions, initial weights and batches.
        label: The name in tables, if it isn't the data set's own.

    Raises:
        UserError: too few examples of a class for this division.
    """

    noun: ClassVar[str]  # for the examples in messages

    data: Examples[AnyPart]
    select: str = "validation"
    test_size: float = 0.2
    seed: int = 0
    label: str | None = None

    def __post_init__(self) -> None:
        data, counts = self.data, np.bincount(self.data.train.codes, minlength=len(self.data.classes)).tolist()
        needed, least = 1 + (data.test is None) + self._sets_validation_aside, min(counts)
        if least < needed:
            raise UserError(
                f"{data.source or data.name}: class {data.classes[counts.index(least)]!r} has {least} {self.noun}, and "
                f"{needed} are needed, one for each part; add some, or merge or remove the class"
            )

    @property
    def name(self) -> str:
        """The name in tables."""
        return self.label or self.data.name

    @property
    def _sets_validation_aside(self) -> bool:
        return self.select == "validation" and self.data.validation is None

    @property
    def judged(self) -> Json:
        """What the verdict needs, as entries of ``describe``: the most frequent class's share, and fixed test rows."""
        codes = self.data.train.codes
        fixed = {} if self.data.test is None else {"fixed_test": True}
        return {"majority": float(np.bincount(codes).max() / len(codes)), **fixed}

    def divided(self, state: int, validation_share: float) -> tuple[AnyPart, AnyPart | None, AnyPart, Mask]:
        """Return the training, the validation (None if the last epoch counts) and the test part of one repeat.

        The last is which examples these test: of all, or of the fixed test part. ``validation_share`` is the
        validation part's share of the examples outside the test part.
        """
        train, validation, test, classes = self.data.train, self.data.validation, self.data.test, len(self.data.classes)
        if test is None:
            train, test, tested = divide(train, classes, self.test_size, state)
        else:
            tested = np.ones(len(test), bool)
        if self._sets_validation_aside:
            train, validation, _ = divide(train, classes, validation_share, state + 1)
        return train, validation if self.select == "validation" else None, test, tested


def divide(part: AnyPart, classes: int, share: float, state: int) -> tuple[AnyPart, AnyPart, Mask]:
    """Return the rest of a part, what is held out, and which that is.

    Held out is this share of each class, at least one example, never all.
    """
    rng = np.random.default_rng(state)
    held: list[Integers] = []
    for number in range(classes):
        own = rng.permutation(np.flatnonzero(part.codes == number))
        held.append(own[: min(max(1, round(share * len(own))), len(own) - 1)])
    out = np.zeros(len(part), bool)
    out[np.concatenate(held)] = True
    return part.rows(np.flatnonzero(~out)), part.rows(np.flatnonzero(out)), out


def first_of_each(labels: Integers, number: int) -> Integers:
    """Return the sorted indices of the first ``number`` examples of each class.

    >>> first_of_each(np.array([1, 0, 1, 0, 1]), 2).tolist()
    [0, 1, 2, 3]
    """
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:number] for label in np.unique(labels)]))


def entry(task: Task, source: str, features: int, parts: Sequence[Sized | None], sha256: str) -> Json:
    """Return a task's entry in a report's ``datasets``, given its training, validation (or None) and test part."""
    sizes = [0 if part is None else len(part) for part in parts]
    counts = dict(zip(("n_train", "n_val", "n_test"), sizes, strict=True))
    shape = {"rows": sum(sizes), "features": features, "classes": task.shape.classes}
    return {"name": task.name, "source": source, **shape, **counts, "sha256": sha256}
