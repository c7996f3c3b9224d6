"""Texts with a class each: a user's table or a published set, and how a repeat divides it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.split import entry, held_out
from crossfade.lab.trial import Shape, stream_seed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TextPart:
    """Examples: ``texts``, for tasks on pairs of sentences the ``seconds`` beside them, and (N,) class numbers."""

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    seconds: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, places: NDArray[np.int64]) -> TextPart:
        """Some of the examples, in this order."""
        chosen = [tuple(texts[at] for at in places) for texts in (self.texts, self.seconds) if texts is not None]
        return TextPart(chosen[0], self.labels[places], chosen[1] if len(chosen) > 1 else None)

    @cached_property
    def words(self) -> int:
        """How many there are, roughly: for progress, never for results."""
        return sum(len(text.split()) for texts in (self.texts, self.seconds or ()) for text in texts)


@dataclass(frozen=True, eq=False)
class TextSet:
    """Texts to learn from, and the validation and test part where they are fixed."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: TextPart
    validation: TextPart | None = None
    test: TextPart | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of texts, labels and class names."""
        known = hashlib.sha256("\x1e".join(self.classes).encode())
        for part in (self.train, self.validation, self.test):
            if part is not None:
                known.update(part.labels.tobytes())
                for texts in (part.texts, part.seconds or ()):
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
class TextTask:
    """A set of texts, and how a repeat divides it.

    Args:
        data: The texts.
        select: ``"validation"`` sets a validation part aside where the data has none; ``"last"`` doesn't need one.
        test_size: Share of the examples in a part that is set aside.
        limit: Learn from so many examples at most, drawn once for all repeats; None for all.
        seed: Another number gives other divisions, initial weights and batches.
        label: What tables call it, when it isn't the data's name.

    Raises:
        UserError: too few examples of a class for this division.
    """

    data: TextSet
    select: str = "validation"
    test_size: float = 0.2
    limit: int | None = None
    seed: int = 0
    label: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.test_size < 0.5:
            raise UserError(f"test_size must be greater than 0 and less than 0.5, got {self.test_size!r}")
        if self.limit is not None and self.limit < 2 * len(self.data.classes):
            raise UserError(f"limit must be at least {2 * len(self.data.classes)}, got {self.limit}")
        counts = np.bincount(self.data.train.labels, minlength=len(self.data.classes))
        needed = 1 + (self.data.test is None) + self._sets_validation_aside
        if counts.min() < needed:
            few = self.data.classes[int(counts.argmin())]
            raise UserError(
                f"{self.data.source}: class {few!r} has {counts.min()} texts, and {needed} are needed, one for each "
                "part; add texts, or merge or remove the class"
            )

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
        """The parts of one repeat; the same for every method."""
        train, validation, test = self.data.train, self.data.validation, self.data.test
        state = stream_seed(self.content, repeat, "split")
        if test is None:
            train, test = self._divide(train, self.test_size, state)
        if self._sets_validation_aside:
            # the same number of examples as in the test part, whatever was taken before
            share = self.test_size if self.data.test is not None else self.test_size / (1.0 - self.test_size)
            train, validation = self._divide(train, share, state + 1)
        if self.limit is not None and self.limit < len(train):
            _, train = self._divide(train, self.limit / len(train), stream_seed(self.content, 0, "limit"))
        return TextSplit(train, validation if self.select == "validation" else None, test, len(self.data.classes))

    def describe(self) -> dict[str, Any]:
        """Return one entry of the report's ``datasets``."""
        split = self.split(0)
        sizes = [len(split.train), 0 if split.validation is None else len(split.validation), len(split.test)]
        features, sha256 = 1 if self.data.train.seconds is None else 2, self.data.sha256
        return entry(self.name, self.data.source, features=features, classes=split.classes, sizes=sizes, sha256=sha256)

    def _divide(self, part: TextPart, share: float, state: int) -> tuple[TextPart, TextPart]:
        """Stratified, and every class in both: at least one example each."""
        out = held_out(part.labels, len(self.data.classes), share, state)
        return part.rows(np.setdiff1d(np.arange(len(part)), out)), part.rows(out)


def load_texts(
    path: Path, text: Sequence[str], target: str, *, test: Path | None = None, numbers_are_names: bool = False
) -> TextSet:
    """Read a table with a column of texts (or two, for pairs) and a column of classes.

    Rows without a text or without a class are left out and counted in a note.

    Raises:
        UserError: no such column, no texts in it, labels that can't be classes, or a class of test rows alone.
    """
    from crossfade.lab.data.columns import check_names
    from crossfade.lab.data.reading import read_frame

    if target in text:
        raise UserError(f"--text: expected columns other than the target {target!r}, got {', '.join(text)}")
    tables = []
    for place in [path] if test is None else [path, test]:
        raw = read_frame(place, target)
        check_names([target], list(raw.frame.columns), "--target", str(place))
        tables.append(_Labelled(raw.frame, raw.frame[target], str(place), raw.notes))
    name = path.name.split(".")[0] or path.name
    return _text_set(name, path.name, tables, text, f"{path}: target {target!r}", numbers_are_names)


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
    from crossfade.lab.data.table import as_frame, as_labels

    tables = []
    for where, of, pair in (("X", "y", (X, y)), ("X_test", "y_test", test)):
        if pair is not None:
            frame = as_frame(pair[0], where)
            tables.append(_Labelled(frame, as_labels(pair[1], of, len(frame)), where))
    return _text_set(name, "Python", tables, text, "y", numbers_are_names)


class _Labelled(NamedTuple):
    """Rows with their labels, what messages call them, and remarks on how they were read."""

    frame: pd.DataFrame
    labels: pd.Series
    where: str
    notes: Sequence[str] = ()


def _text_set(
    name: str, source: str, tables: Sequence[_Labelled], text: Sequence[str], target: str, numbers_are_names: bool
) -> TextSet:
    """Return the texts of one table, or of two, of which the second holds the test rows."""
    from crossfade.lab.data.labels import encode_test, read_labels

    if not 1 <= len(text) <= 2:
        raise UserError(f"--text: expected one column of texts, or two for pairs, got {', '.join(text)}")
    learn = tables[0]
    rows, notes = _with_text(learn.frame, text, learn.where)
    least = 3 if len(tables) == 1 else 2  # rows of a class, one for each part that is drawn
    known = read_labels(learn.labels[rows.index], target, least, numbers_are_names)
    keep = known.codes >= 0
    notes = [*learn.notes, *notes, *known.notes]
    held = None
    for test in tables[1:]:
        others, more = _with_text(test.frame, text, test.where)
        codes = encode_test(test.labels[others.index], known, test.where)
        if not (codes >= 0).any():
            raise UserError(f"{test.where}: no row has a text and a label; the test rows need theirs to be scored")
        notes += [f"{Path(test.where).name}: {note}" for note in [*test.notes, *more]]
        held = _part(others[codes >= 0], text, codes[codes >= 0])
    train = _part(rows[keep], text, known.codes[keep])
    twice = len(train) - len(set(zip(train.texts, train.seconds or train.texts, strict=True)))
    if twice > len(train) // 100:
        notes.append(f"{twice} of {len(train)} texts repeat an earlier one: copies may fall into both parts")
    return TextSet(name, source, known.classes, train, None, held, tuple(notes))


def _with_text(frame: pd.DataFrame, text: Sequence[str], where: str) -> tuple[pd.DataFrame, list[str]]:
    from crossfade.lab.data.columns import check_names

    check_names(text, list(frame.columns), "--text", where)
    cells = frame[list(text)].astype("object").where(frame[list(text)].notna(), "")
    frame = frame.assign(**{name: cells[name].map(lambda cell: str(cell).strip()) for name in text})
    empty = (frame[list(text)] == "").any(axis=1)
    if empty.all():
        raise UserError(f"{where}: --text {', '.join(text)}: every cell is empty; name a column of texts")
    notes = [f"{int(empty.sum())} of {len(frame)} rows without a text are left out"] if empty.any() else []
    return frame[~empty], notes


def _part(frame: pd.DataFrame, text: Sequence[str], labels: NDArray[np.int64]) -> TextPart:
    columns = [tuple(map(str, frame[name])) for name in text]
    return TextPart(columns[0], labels, columns[1] if len(columns) > 1 else None)
