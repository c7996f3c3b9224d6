"""Data sets made harder on purpose: with wrong labels, and with fewer rows to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError
from crossfade.lab.checks import Noise
from crossfade.lab.data.split import Split
from crossfade.lab.trial import Json, Shape, Task, stream_seed


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
        if isinstance(split, Split):
            kept = _some(split.y_train, self.size, rng)
            y_train = wrong(split.y_train[kept], split.classes, self.noise, self.kind, rng)
            y_val = wrong(split.y_val, split.classes, self.noise, self.kind, rng) if self.validation else split.y_val
            return replace(split, x_train=split.x_train[kept], y_train=y_train, y_val=y_val)
        train = split.train if self.size == 1.0 else split.train.rows(_some(split.train.codes, self.size, rng))
        parts = {"train": train}
        if self.validation and split.validation is not None:
            parts["validation"] = split.validation
        for name, part in parts.items():
            made = wrong(part.codes, split.classes, self.noise, self.kind, rng)
            labels = made if isinstance(part.labels, np.ndarray) else part.labels.new_tensor(made)
            parts[name] = replace(part, labels=labels)
        return replace(split, **parts)


def with_wrong_labels(
    tasks: Sequence[Task], *, label_noise: float = 0.0, noise_kind: Noise = "symmetric", noisy_validation: bool = False
) -> tuple[list[Task], str]:
    """Return the tasks with these shares of wrong labels, and what a reader should know about them.

    Raises:
        UserError: no share.
    """
    if not label_noise:
        raise UserError("noise-kind and noisy-validation say how labels become wrong: add --label-noise, such as 0.2")
    rows = "training and validation rows" if noisy_validation else "training rows"
    of = "" if noise_kind == "symmetric" else " of each class but the last"
    note = f"{100 * label_noise:g} % of the {rows}{of} got a wrong label on purpose; test rows keep theirs"
    return [HarderTask(task, label_noise, noise_kind, noisy_validation) for task in tasks], note


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
