"""The published sets of texts: GLUE's classification tasks, and the reviews of women's clothing."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.hub import hub
from crossfade.lab.data.texts import TextPart, TextSet, load_texts


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE.

    Args:
        name: Of its folder.
        hub: What the hub calls it.
        columns: The sentences, by their names in the files.
        label: The label's column.
        classes: In the order of their numbers.
        metric: The official one, a name in a result: ``accuracy``, ``f1`` or ``mcc``.
        rows: Training examples as published.
        header: The columns of a file without a header.
    """

    name: str
    hub: str
    columns: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    metric: str
    rows: int
    header: tuple[str, ...] = ()


_BINARY, _ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")

GLUE = (
    GlueTask("CoLA", "cola", ("sentence",), "label", _BINARY, "mcc", 8_551, ("source", "label", "mark", "sentence")),
    GlueTask("SST-2", "sst2", ("sentence",), "label", _BINARY, "accuracy", 67_349),
    GlueTask("MRPC", "mrpc", ("#1 String", "#2 String"), "Quality", _BINARY, "f1", 3_668),
    GlueTask("QQP", "qqp", ("question1", "question2"), "is_duplicate", _BINARY, "f1", 363_846),
    GlueTask(
        "MNLI",
        "mnli",
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        392_702,
    ),
    GlueTask("QNLI", "qnli", ("question", "sentence"), "label", _ENTAILMENT, "accuracy", 104_743),
    GlueTask("RTE", "rte", ("sentence1", "sentence2"), "label", _ENTAILMENT, "accuracy", 2_490),
    GlueTask("WNLI", "wnli", ("sentence1", "sentence2"), "label", _BINARY, "accuracy", 635),
)


def load_glue(task: GlueTask, data_dir: Path) -> TextSet:
    """Read a task of GLUE from its published folder (TASK/train.tsv, TASK/dev.tsv), or get it from the hub.

    The dev part is the one that is scored, as in the paper: the test labels aren't public.

    Raises:
        UserError: neither in the folder nor to be had from the hub, or damaged files.
    """
    folder = data_dir / "glue" / task.name
    dev = next((folder / name for name in ("dev.tsv", "dev_matched.tsv") if (folder / name).is_file()), None)
    if dev is not None and (folder / "train.tsv").is_file():
        (train, notes), (test, more) = _read(folder / "train.tsv", task), _read(dev, task)
        source, notes = "GLUE folder", [*notes, *more]
    else:
        train, test = _from_hub(task, folder)
        source, notes = "GLUE, the hub's nyu-mll/glue", []
    if len(train) < task.rows:
        source += f", {len(train):,} of {task.rows:,} training rows"
    return TextSet(task.name, source, task.classes, train, None, test, tuple(notes))


def _read(path: Path, task: GlueTask) -> tuple[TextPart, list[str]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = [line.rstrip("\r\n") for line in file]
    rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    header = list(task.header) or (rows.pop(0) if rows else [])
    absent = [name for name in (*task.columns, task.label) if name not in header]
    if absent:
        raise UserError(f"{path}: no column {absent[0]!r} (columns: {', '.join(header)}); expected GLUE's {task.name}")
    place = [header.index(name) for name in (*task.columns, task.label)]
    whole = [[row[at].strip() for at in place] for row in rows if len(row) > max(place)]
    number = {name: at for at, name in enumerate(task.classes)}
    good = [cells for cells in whole if cells[-1] in number and all(cells[:-1])]
    if len(good) < 0.99 * len(rows) or not good:
        raise UserError(
            f"{path}: {len(rows) - len(good)} of {len(rows)} rows are damaged or have no label of {task.name}'s "
            f"({', '.join(task.classes)}); get the file again"
        )
    notes = [f"{path.name}: {len(rows) - len(good)} damaged rows are left out"] if len(good) < len(rows) else []
    return _part(list(zip(*good, strict=True))[:-1], [number[cells[-1]] for cells in good]), notes


def _part(texts: Sequence[Sequence[str]], labels: Sequence[int]) -> TextPart:
    seconds = tuple(texts[1]) if len(texts) > 1 else None
    return TextPart(tuple(texts[0]), np.array(labels, dtype=np.int64), seconds)


def _from_hub(task: GlueTask, folder: Path) -> tuple[TextPart, TextPart]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"GLUE {task.name}: not in {folder}; put train.tsv and dev.tsv there") from None
    try:
        with hub("dataset", "nyu-mll/glue"):
            data: Any = load_dataset("nyu-mll/glue", task.hub)
        parts = [data["train"], data["validation_matched" if task.name == "MNLI" else "validation"]]
    except Exception as error:  # whatever a hub, a proxy or a cache may raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"GLUE {task.name}: not in {folder}, and the hub can't be reached ({reason[:120]}); put its train.tsv and "
            "dev.tsv there"
        ) from None
    names = [name for name in parts[0].column_names if name not in ("label", "idx")]
    train, test = (_part([list(part[name]) for name in names], list(part["label"])) for part in parts)
    return train, test


def find_reviews(data_dir: Path) -> Path | None:
    """Return the CSV in ``data_dir`` or its folder ``reviews``."""
    return next((path for place in ("reviews", ".") for path in sorted((data_dir / place).glob("*Reviews*.csv"))), None)


def load_reviews(data_dir: Path) -> TextSet:
    """Read Women's Clothing E-Commerce Reviews (Agarap 2018): the rating, 1 to 5, of the 22,641 that have a text.

    Raises:
        UserError: the file isn't there, or isn't that table.
    """
    path = find_reviews(data_dir)
    if path is None:
        raise UserError(
            f'reviews: no *Reviews*.csv in {data_dir / "reviews"}; get "Women\'s Clothing E-Commerce Reviews" from '
            "Kaggle (nicapotato/womens-ecommerce-clothing-reviews)"
        )
    return replace(load_texts(path, ["Review Text"], "Rating"), name="Reviews")
