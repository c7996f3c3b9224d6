"""Texts with a class each: a user's table, and how a repeat divides it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from crossfade.errors import UserError
from crossfade.lab.data.split import DividedTask, Examples, divide, entry
from crossfade.lab.trial import Shape, stream_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossfade.lab.data.reading import Rows


@dataclass(frozen=True, eq=False)
class TextPart:
    """Examples: ``texts``, for tasks on pairs of sentences the ``seconds`` beside them, and (N,) class numbers."""

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    seconds: tuple[str, ...] | None = None

    @classmethod
    def of(cls, columns: Sequence[Iterable[str]], labels: NDArray[np.int64]) -> TextPart:
        """Return the examples of one column of texts or, for pairs, of two."""
        texts, *seconds = map(tuple, columns)
        return cls(texts, labels, seconds[0] if seconds else None)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def codes(self) -> NDArray[np.int64]:
        """The class numbers."""
        return self.labels

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The texts and, of pairs, the seconds."""
        return [self.texts] if self.seconds is None else [self.texts, self.seconds]

    def rows(self, index: NDArray[np.int64]) -> TextPart:
        """Return the examples at these places, in this order."""
        return self.of([[texts[at] for at in index] for texts in self.columns], self.labels[index])

    @cached_property
    def words(self) -> int:
        """How many there are, roughly: for progress, never for results."""
        return sum(len(text.split()) for texts in self.columns for text in texts)


@dataclass(frozen=True, eq=False)
class TextSet(Examples[TextPart]):
    """Texts in memory."""

    @cached_property
    def sha256(self) -> str:
        """Hash of texts, labels and class names."""
        known = hashlib.sha256("\x1e".join(self.classes).encode())
        for part in self.parts.values():
            known.update(part.labels.tobytes())
            for texts in part.columns:
                known.update("\x1f".join(texts).encode("utf-8", "surrogatepass"))
        return known.hexdigest()


@dataclass(frozen=True, eq=False)
class TextSplit:
    """One repeat. ``validation`` is None where the last epoch counts."""

    train: TextPart
    validation: TextPart | None
    test: TextPart
    classes: int


@dataclass(frozen=True, eq=False)
class TextTask(DividedTask[TextPart]):
    """A set of texts, and how a repeat divides it.

    Args:
        limit: Learn from so many examples at most, drawn once for all repeats; None for all.
    """

    noun: ClassVar[str] = "texts"

    data: TextSet
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 2 * len(self.data.classes):
            raise UserError(f"limit must be at least {2 * len(self.data.classes)}, got {self.limit}")

    @cached_property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers."""
        return {
            "data": self.data.sha256,
            "select": self.select,
            "test_size": self.test_size,
            "limit": self.limit,
            "seed": self.seed,
            "preprocessing": 1,
            "fixed_test": self.data.test is not None,
        }

    @cached_property
    def shape(self) -> Shape:
        """Words to learn from, 1, classes: roughly."""
        words, examples = self.data.train.words, len(self.data.train)
        return Shape(max(1, words * min(examples, self.limit or examples) // examples), 1, len(self.data.classes))

    def split(self, repeat: int) -> TextSplit:
        """Return the parts of one repeat; they are the same for every method."""
        # As many examples for validation as in the test part, whatever was taken before.
        share = self.test_size if self.data.test is not None else self.test_size / (1.0 - self.test_size)
        train, validation, test = self.divided(stream_seed(self.content, repeat, "split"), share)
        classes = len(self.data.classes)
        if self.limit is not None and self.limit < len(train):
            _, train = divide(train, classes, self.limit / len(train), stream_seed(self.content, 0, "limit"))
        return TextSplit(train, validation, test, classes)

    def describe(self) -> dict[str, str | int]:
        """Return one entry of the report's ``datasets``."""
        data, split = self.data, self.split(0)
        parts = (split.train, split.validation, split.test)
        return entry(self.name, data.source, len(data.train.columns), split.classes, parts, data.sha256)


def load_texts(
    path: Path, text: Sequence[str], target: str, *, test: Path | None = None, numbers_are_names: bool = False
) -> TextSet:
    """Read a table with a column of texts (or two, for pairs) and a column of classes.

    Rows without a text or without a class are left out and counted in a note.

    Raises:
        UserError: no such column, no texts in it, labels that can't be classes, or a class of test rows alone.
    """
    from crossfade.lab.data.reading import rows_of_files

    if target in text:
        raise UserError(f"--text: expected columns other than the target {target!r}, got {', '.join(text)}")
    name = path.name.split(".")[0] or path.name
    return _text_set(name, path.name, rows_of_files(path, target, test), text, numbers_are_names)


def texts_from_arrays(
    X: object,
    y: object,
    text: Sequence[str],
    *,
    name: str = "data",
    test: tuple[object, object] | None = None,
    numbers_are_names: bool = False,
) -> TextSet:
    """Return the texts in one column of a data frame (or two, for pairs) with their labels; as ``load_texts``."""
    from crossfade.lab.data.reading import rows_of_arrays

    return _text_set(name, "Python", rows_of_arrays(X, y, test), text, numbers_are_names)


def _text_set(name: str, source: str, tables: Sequence[Rows], text: Sequence[str], numbers_are_names: bool) -> TextSet:
    """Return the texts of one table, or of two, of which the second holds the test rows."""
    from crossfade.lab.data.columns import labelled

    if not 1 <= len(text) == len(set(text)) <= 2:
        raise UserError(f"--text: expected one column of texts, or two for pairs, got {', '.join(text)}")
    classes, parts, notes = labelled([_with_text(rows, text) for rows in tables], numbers_are_names)
    train, *tests = (TextPart.of([frame[name].tolist() for name in text], codes) for frame, codes in parts)
    twice = len(train) - len(set(zip(*train.columns, strict=True)))
    if twice > len(train) // 100:
        notes.append(f"{twice} of {len(train)} texts repeat an earlier one: copies may fall into both parts")
    return TextSet(name, classes, train, tests[0] if tests else None, source=source, notes=tuple(notes))


def _with_text(rows: Rows, text: Sequence[str]) -> Rows:
    """Return the rows that have texts, without spaces around them."""
    from crossfade.lab.data.reading import check_names

    check_names(text, rows.frame.columns, "--text", rows.where)
    cells = rows.frame[list(text)].astype("object")
    frame = cells.where(cells.notna(), "").map(lambda cell: str(cell).strip())
    empty = (frame == "").any(axis=1)
    if empty.all():
        raise UserError(f"{rows.where}: --text {', '.join(text)}: every cell is empty; name a column of texts")
    notes = [f"{int(empty.sum())} of {len(frame)} rows without a text are left out"] if empty.any() else []
    return replace(rows, frame=frame[~empty], labels=rows.labels[~empty], notes=(*rows.notes, *notes))
