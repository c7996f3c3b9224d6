"""Data sets made harder on purpose: with wrong labels, and with fewer rows to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.data.split import Split
from crossfade.lab.trial import Json, Shape, Task, stream_seed

Noise: TypeAlias = Literal["symmetric", "class-dependent"]


@dataclass(frozen=True, eq=False)
class HarderTask:
    """Another task with wrong labels in its training part, and only a part of its training rows.

    The parts themselves stay those of the task, and its test rows keep their labels.

    Args:
        task: The task, whose splits hold arrays or parts with ``labels``.
        noise: The share of wrong labels, see :func:`wrong`.
        kind: Which labels become wrong, and which ones they get.
        validation: Whether the validation rows have wrong labels, too.
        size: The share of each class's training rows that is kept, before labels become wrong; at least one row.
    """

    task: Task
    noise: float = 0.0
    kind: Noise = "symmetric"
    validation: bool = False
    size: float = 1.0

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def content(self) -> Mapping[str, object]:
        """What decides the numbers: the task's own content, and what is harder."""
        made: Json = {}
        if self.noise:
            made["label_noise"] = [self.noise, self.kind, "train and val" if self.validation else "train"]
        if self.size < 1.0:
            made["train_size"] = self.size
        return {**self.task.content, **made}

    @property
    def shape(self) -> Shape:
        return self.task.shape._replace(rows=max(1, round(self.size * self.task.shape.rows)))

    def describe(self) -> Json:
        return self.task.describe()

    def split(self, repeat: int) -> object:
        """Return the task's parts with fewer training rows and wrong labels."""
        split: Any = self.task.split(repeat)
        rng = np.random.default_rng(stream_seed(self.task.content, repeat, "labels"))
        kept = _some(_labels(split, "train"), self.size, rng)
        if isinstance(split, Split):
            split = replace(split, x_train=split.x_train[kept], y_train=split.y_train[kept])
        elif len(kept) < len(split.train):
            split = replace(split, train=split.train.rows(kept))
        for part in ("train", *(["val"] if self.validation else [])):
            labels = _labels(split, part)
            made = wrong(labels, split.classes, self.noise, self.kind, rng)
            if isinstance(split, Split):
                split = replace(split, **{f"y_{part}": made})
            elif len(labels):
                name = _NAMES[part]
                own = getattr(split, name)
                split = replace(split, **{name: replace(own, labels=_like(own.labels, made))})
        return split


_NAMES = {"train": "train", "val": "validation"}


def wrong(
    labels: NDArray[np.int64], classes: int, share: float, kind: Noise, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return class numbers of which some are wrong, drawn at random: ``round(share x rows)`` of them.

    Symmetric: any rows, whose labels become each other class equally often. Class-dependent: each class but the last
    loses this share of its rows to the class after it, so that the errors have a direction, also with two classes.
    """
    made = labels.copy()
    if kind == "symmetric":
        at = rng.permutation(len(labels))[: round(share * len(labels))]
        if classes > 1:
            made[at] = (labels[at] + rng.integers(1, classes, len(at))) % classes
        return made
    for number in range(classes - 1):
        own = rng.permutation(np.flatnonzero(labels == number))
        made[own[: round(share * len(own))]] = number + 1
    return made


def _some(labels: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the sorted places of this share of each class, at least one row."""
    own = (rng.permutation(np.flatnonzero(labels == number)) for number in np.unique(labels))
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in own]))


def _labels(split: Any, part: str) -> NDArray[np.int64]:
    if isinstance(split, Split):
        return np.asarray(getattr(split, f"y_{part}"))
    own = getattr(split, _NAMES[part])
    return np.zeros(0, np.int64) if own is None else np.asarray(own.codes)


def _like(labels: Any, made: NDArray[np.int64]) -> Any:
    """Return class numbers as an array or a tensor, as the others are."""
    return made if isinstance(labels, np.ndarray) else labels.new_tensor(made)
