"""Texts with classes: a user's table or a published set, and its division in each repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.data.columns import Rare, labelled, without_rare
from crossfade.lab.data.reading import Rows, check_names, rows_of_arrays, rows_of_files
from crossfade.lab.data.sources import CATALOGUE, find_reviews, hub
from crossfade.lab.data.split import DividedTask, Examples, Parts, divide, entry
from crossfade.lab.trial import Json, Shape, stream_seed


@dataclass(frozen=True, eq=False)
class TextPart:
    """Examples: ``texts``, for pairs of sentences also ``seconds``, and (N,) class numbers."""

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
        return self.labels

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The texts and, for pairs, the seconds."""
        return [self.texts] if self.seconds is None else [self.texts, self.seconds]

    def rows(self, index: NDArray[np.int64]) -> TextPart:
        return self.of([[texts[at] for at in index] for texts in self.columns], self.labels[index])


@dataclass(frozen=True, eq=False)
class TextSet(Examples[TextPart]):
    """Texts in memory."""

    @cached_property
    def sha256(self) -> str:
        """Hash of texts, labels and class names."""
        hashed = hashlib.sha256("\x1e".join(self.classes).encode())
        for part in self.parts.values():
            hashed.update(part.labels.tobytes())
            for texts in part.columns:
                hashed.update("\x1f".join(texts).encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()


@dataclass(frozen=True, eq=False)
class TextSplit(Parts[TextPart]):
    """The parts of one repeat."""


@dataclass(frozen=True, eq=False)
class TextTask(DividedTask[TextPart]):
    """A set of texts, and its division in each repeat.

    Args:
        limit: The number of examples to learn from, drawn from a repeat's training part by class; None for all.
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
        """The approximate numbers of training words (as rows) and classes."""
        words = sum(len(text.split()) for texts in self.data.train.columns for text in texts)
        examples = len(self.data.train)
        return Shape(max(1, words * min(examples, self.limit or examples) // examples), 1, len(self.data.classes))

    def split(self, repeat: int) -> TextSplit:
        # The validation part is as large as a drawn test part.
        share = self.test_size if self.data.test is not None else self.test_size / (1.0 - self.test_size)
        train, validation, test, tested = self.divided(stream_seed(self.content, repeat, "split"), share)
        classes = len(self.data.classes)
        if self.limit is not None and self.limit < len(train):
            _, train, _ = divide(train, classes, self.limit / len(train), stream_seed(self.content, 0, "limit"))
        return TextSplit(train, validation, test, classes, tested=tested)

    def describe(self) -> Json:
        data, split = self.data, self.split(0)
        parts = (split.train, split.validation, split.test)
        return entry(self, data.source, len(data.train.columns), parts, data.sha256) | self.judged


def load_texts(
    path: Path,
    text: Sequence[str],
    target: str,
    *,
    test: Path | None = None,
    numbers_are_names: bool = False,
    rare: Rare | None = None,
) -> TextSet:
    """Read a table with a column of texts (or two, for pairs) and a column of classes.

    Rows without a text or without a class are left out and counted in a note.

    Raises:
        UserError: a missing or empty column, labels that can't be classes, or a class that occurs in test rows alone.
    """
    if target in text:
        raise UserError(f"--text: expected columns other than the target {target!r}, got {', '.join(text)}")
    name = path.name.split(".")[0] or path.name
    return _text_set(name, path.name, rows_of_files(path, target, test), text, numbers_are_names, rare)


def texts_from_arrays(
    X: object,
    y: object,
    text: Sequence[str],
    *,
    name: str = "data",
    test: tuple[object, object] | None = None,
    numbers_are_names: bool = False,
    rare: Rare | None = None,
) -> TextSet:
    """Return the texts in one column of a data frame (or two, for pairs) with their labels; as ``load_texts``."""
    return _text_set(name, "Python", rows_of_arrays(X, y, test), text, numbers_are_names, rare)


def _text_set(
    name: str, source: str, tables: Sequence[Rows], text: Sequence[str], numbers_are_names: bool, rare: Rare | None
) -> TextSet:
    """Return the texts of one table, or of two, of which the second holds the test rows."""
    if not 1 <= len(text) == len(set(text)) <= 2:
        raise UserError(f"--text: expected one column of texts, or two for pairs, got {', '.join(text)}")
    kept = without_rare([_with_text(rows, text) for rows in tables], rare)
    classes, parts, notes = labelled(kept, numbers_are_names)
    train, *tests = (TextPart.of([frame[name].tolist() for name in text], codes) for frame, codes in parts)
    different = set(zip(*train.columns, strict=True))
    for test in tests:
        if copies := sum(example in different for example in zip(*test.columns, strict=True)):
            notes.append(f"{copies} of {len(test)} test texts are training texts, too: scores there are too good")
    duplicates = len(train) - len(different)
    if duplicates > len(train) // 100:
        notes.append(f"{duplicates} of {len(train)} texts repeat an earlier one: copies may fall into both parts")
    return TextSet(name, classes, train, tests[0] if tests else None, source=source, notes=tuple(notes))


def _with_text(rows: Rows, text: Sequence[str]) -> Rows:
    """Return the rows that have texts, without spaces around them."""
    check_names(text, rows.frame.columns, "--text", rows.where)
    cells = rows.frame[list(text)].astype("object")
    frame = cells.where(cells.notna(), "").map(lambda cell: str(cell).strip())
    for name in text:
        filled = frame[name][frame[name] != ""]
        if len(filled) and pd.to_numeric(filled, errors="coerce").notna().all():
            raise UserError(
                f"{rows.where}: --text {name!r} holds numbers, expected texts; without --text it is a table"
            )
    empty = (frame == "").any(axis=1)
    if empty.all():
        raise UserError(f"{rows.where}: --text {', '.join(text)}: every cell is empty; name a column of texts")
    notes = [f"{int(empty.sum())} of {len(frame)} rows without a text are left out"] if empty.any() else []
    return replace(rows, frame=frame[~empty], labels=rows.labels[~empty], notes=(*rows.notes, *notes))


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE.

    Args:
        name, hub: Its name as a folder and on the hub.
        columns, label: The columns of sentences and of labels in the files.
        classes: The names in the order of the class numbers.
        metric: The official metric by its name in a result: ``accuracy``, ``f1`` or ``mcc``.
        rows, dev: The numbers of published training examples and of those in the dev part (MNLI: the matched one).
        header: The columns, if the files have no header.
    """

    name: str
    hub: str
    columns: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    metric: str
    rows: int
    dev: int
    header: tuple[str, ...] = ()


_PAIR, _BINARY, _ENTAILMENT = ("sentence1", "sentence2"), ("0", "1"), ("entailment", "not_entailment")
_THREE = ("entailment", "neutral", "contradiction")
_COLA = ("source", "label", "mark", "sentence")

GLUE = (
    GlueTask("CoLA", "cola", ("sentence",), "label", _BINARY, "mcc", 8_551, 1_043, _COLA),
    GlueTask("SST-2", "sst2", ("sentence",), "label", _BINARY, "accuracy", 67_349, 872),
    GlueTask("MRPC", "mrpc", ("#1 String", "#2 String"), "Quality", _BINARY, "f1", 3_668, 408),
    GlueTask("QQP", "qqp", ("question1", "question2"), "is_duplicate", _BINARY, "f1", 363_846, 40_430),
    GlueTask("MNLI", "mnli", _PAIR, "gold_label", _THREE, "accuracy", 392_702, 9_815),
    GlueTask("QNLI", "qnli", ("question", "sentence"), "label", _ENTAILMENT, "accuracy", 104_743, 5_463),
    GlueTask("RTE", "rte", _PAIR, "label", _ENTAILMENT, "accuracy", 2_490, 277),
    GlueTask("WNLI", "wnli", _PAIR, "label", _BINARY, "accuracy", 635, 71),
)


def load_glue(task: GlueTask, data_dir: Path) -> TextSet:
    """Read a task of GLUE from its published folder (TASK/train.tsv, TASK/dev.tsv) or from the hub.

    The dev part is the test part, as in the paper, because the test labels aren't public.

    Raises:
        UserError: files that are damaged, or that neither the folder nor the hub has.
    """
    folder = data_dir / "glue" / task.name
    dev = next((folder / name for name in ("dev.tsv", "dev_matched.tsv") if (folder / name).is_file()), None)
    notes: list[str] = []
    if dev is not None and (folder / "train.tsv").is_file():
        source = "GLUE folder"
        train, test = (_read(path, task, notes) for path in (folder / "train.tsv", dev))
    else:
        source = "GLUE, the hub's nyu-mll/glue"
        train, test = from_hub(task, folder)
    if len(train) < task.rows:
        source += f", {len(train):,} of {task.rows:,} training rows"
    return TextSet(task.name, task.classes, train, test, source=source, notes=tuple(notes))


def _read(path: Path, task: GlueTask, notes: list[str]) -> TextPart:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [bare.split("\t") for line in file if (bare := line.rstrip("\r\n"))]
    header = list(task.header) or (rows.pop(0) if rows else [])
    wanted = (*task.columns, task.label)
    missing = [name for name in wanted if name not in header]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r} (columns: {', '.join(header)}); expected GLUE's {task.name}")
    place = [header.index(name) for name in wanted]
    whole = [[row[at].strip() for at in place] for row in rows if len(row) > max(place)]
    good = [cells for cells in whole if cells[-1] in task.classes and all(cells)]
    damaged = len(rows) - len(good)
    if len(good) < 0.99 * len(rows) or not good:
        raise UserError(
            f"{path}: {damaged} of {len(rows)} rows are damaged or have no label of {task.name}'s "
            f"({', '.join(task.classes)}); get the file again"
        )
    if damaged:
        notes.append(f"{path.name}: {damaged} damaged rows are left out")
    *columns, labels = zip(*good, strict=True)
    return TextPart.of(columns, np.array([task.classes.index(label) for label in labels], dtype=np.int64))


def from_hub(task: GlueTask, folder: Path) -> tuple[TextPart, TextPart]:
    """Return a task's training and dev part as the datasets library fetches them.

    Raises:
        UserError: no connection; it names the folder that the files could be put into.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"GLUE {task.name}: not in {folder}; put train.tsv and dev.tsv there") from None
    try:
        with hub("dataset", "nyu-mll/glue"):
            data = load_dataset("nyu-mll/glue", task.hub)
        parts = [data["train"], data["validation_matched" if task.name == "MNLI" else "validation"]]
    except Exception as error:  # the hub's library, a proxy or a cache may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"GLUE {task.name}: not in {folder}, and the hub can't be reached ({reason[:120]}); put its train.tsv and "
            "dev.tsv there"
        ) from None
    names = [name for name in parts[0].column_names if name not in ("label", "idx")]
    train, test = (
        TextPart.of([part[name] for name in names], np.array(list(part["label"]), dtype=np.int64)) for part in parts
    )
    return train, test


def load_reviews(data_dir: Path) -> TextSet:
    """Read Women's Clothing E-Commerce Reviews (Agarap 2018): the rating, 1 to 5, of the 22,641 that have a text.

    Raises:
        UserError: the file isn't there, or isn't that table.
    """
    path = find_reviews(data_dir)
    if path is None:
        raise UserError(
            f"reviews: no *Reviews*.csv in {data_dir / 'reviews'}; get {CATALOGUE['reviews'].title} "
            f"{CATALOGUE['reviews'].how}"
        )
    return replace(load_texts(path, ["Review Text"], "Rating"), name="Reviews")
