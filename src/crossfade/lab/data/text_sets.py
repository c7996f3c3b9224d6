"""The published sets of texts: GLUE's classification tasks, and the reviews of women's clothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossfade.errors import UserError
from crossfade.lab.data.sources import CATALOGUE, find_reviews, hub
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


_PAIR, _BINARY, _ENTAILMENT = ("sentence1", "sentence2"), ("0", "1"), ("entailment", "not_entailment")
_THREE = ("entailment", "neutral", "contradiction")

GLUE = (
    GlueTask("CoLA", "cola", ("sentence",), "label", _BINARY, "mcc", 8_551, ("source", "label", "mark", "sentence")),
    GlueTask("SST-2", "sst2", ("sentence",), "label", _BINARY, "accuracy", 67_349),
    GlueTask("MRPC", "mrpc", ("#1 String", "#2 String"), "Quality", _BINARY, "f1", 3_668),
    GlueTask("QQP", "qqp", ("question1", "question2"), "is_duplicate", _BINARY, "f1", 363_846),
    GlueTask("MNLI", "mnli", _PAIR, "gold_label", _THREE, "accuracy", 392_702),
    GlueTask("QNLI", "qnli", ("question", "sentence"), "label", _ENTAILMENT, "accuracy", 104_743),
    GlueTask("RTE", "rte", _PAIR, "label", _ENTAILMENT, "accuracy", 2_490),
    GlueTask("WNLI", "wnli", _PAIR, "label", _BINARY, "accuracy", 635),
)


def load_glue(task: GlueTask, data_dir: Path) -> TextSet:
    """Read a task of GLUE from its published folder (TASK/train.tsv, TASK/dev.tsv), or get it from the hub.

    The dev part is the one that is scored, as in the paper: the test labels aren't public.

    Raises:
        UserError: neither in the folder nor to be had from the hub, or damaged files.
    """
    folder = data_dir / "glue" / task.name
    dev = next((folder / name for name in ("dev.tsv", "dev_matched.tsv") if (folder / name).is_file()), None)
    notes: list[str] = []
    if dev is not None and (folder / "train.tsv").is_file():
        source = "GLUE folder"
        train, test = (_read(path, task, notes) for path in (folder / "train.tsv", dev))
    else:
        source = "GLUE, the hub's nyu-mll/glue"
        train, test = _from_hub(task, folder)
    if len(train) < task.rows:
        source += f", {len(train):,} of {task.rows:,} training rows"
    return TextSet(task.name, task.classes, train, test, source=source, notes=tuple(notes))


def _read(path: Path, task: GlueTask, notes: list[str]) -> TextPart:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [bare.split("\t") for line in file if (bare := line.rstrip("\r\n"))]
    header = list(task.header) or (rows.pop(0) if rows else [])
    wanted = (*task.columns, task.label)
    absent = [name for name in wanted if name not in header]
    if absent:
        raise UserError(f"{path}: no column {absent[0]!r} (columns: {', '.join(header)}); expected GLUE's {task.name}")
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


def _from_hub(task: GlueTask, folder: Path) -> tuple[TextPart, TextPart]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"GLUE {task.name}: not in {folder}; put train.tsv and dev.tsv there") from None
    try:
        with hub("dataset", "nyu-mll/glue"):
            data = load_dataset("nyu-mll/glue", task.hub)
        parts = [data["train"], data["validation_matched" if task.name == "MNLI" else "validation"]]
    except Exception as error:  # whatever a hub, a proxy or a cache may raise
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
