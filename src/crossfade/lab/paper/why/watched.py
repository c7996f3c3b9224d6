"""Trials that are observed during training: their data, their training, and their tables in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from crossfade.errors import UserError
from crossfade.lab.checks import Precision
from crossfade.lab.data.images import ImageSet, ImageSplit, ImageTask, Part
from crossfade.lab.data.table import BUILTIN, TableTask, load_builtin
from crossfade.lab.data.uci import uci_tasks
from crossfade.lab.paper.processes import report
from crossfade.lab.store import Outcome, Run, Store
from crossfade.lab.train import Member, Recipe, Split
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Task, Trial, seed

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from crossfade.lab.train.outcome import History
    from crossfade.lab.train.tables.plain import Look, Observe

Row: TypeAlias = Mapping[str, object]


def table_task(name: str, data_dir: Path | None) -> Task:
    """Return one of scikit-learn's four sets, or one of the 121 UCI sets in ``data_dir``.

    Raises:
        UserError: the UCI set isn't there.
    """
    if name in BUILTIN:
        return TableTask(load_builtin(name), 0.25, 0)
    if data_dir is None:
        raise UserError(f"data set {name!r} is one of the UCI sets: --data-dir must say where they are")
    tasks, missing = uci_tasks(data_dir, (name,))
    if missing:
        raise UserError(f"{data_dir}: UCI set {name!r} is not there; `crossfade data uci --download` gets it")
    return tasks[0]


def cifar(
    data_dir: Path,
    scale: str,
    usual: int,
    epochs: int | None,
    precision: Precision,
    batch_size: int,
    learning_rate: float,
    falls: tuple[float, ...] = (),
) -> tuple[ImageTask, ImageRecipe]:
    """Return CIFAR-100 and how a network is trained on it.

    Scale ``paper`` means ResNet-32 and all images. The others train ResNet-8 on fewer classes and images with a lower
    resolution, which the task's name tells.

    Args:
        usual, epochs: The scale's number of epochs, and another one if not None.
        falls: The fractions of the training after which the learning rate falls to a tenth.

    Raises:
        UserError: CIFAR-100 isn't in ``data_dir``.
    """
    from crossfade.lab.data.image_sets import load_images

    classes, per_class, pixels, net = {
        "smoke": (4, 20, 8, "resnet8"),
        "short": (20, 250, 16, "resnet8"),
        "paper": (100, 500, 32, "resnet32"),
    }[scale]
    epochs = usual if epochs is None else epochs
    recipe = ImageRecipe(
        net=net,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        milestones=tuple(epochs * fall for fall in falls),
        augment=Augment(crop=pixels // 8),
        granularity="epoch",
        precision=precision,
        scale="paper" if scale == "paper" and epochs == usual else "own",
    )
    whole = load_images("cifar100", data_dir)
    if scale == "paper" or whole.test is None:
        return ImageTask(whole, label=f"CIFAR-100, {net}"), recipe

    def cut(part: Part) -> Part:
        kept = part.labels < classes
        small = F.adaptive_avg_pool2d(part.images[kept].float(), pixels).round().to(torch.uint8)
        return Part(small, part.labels[kept])

    name = f"CIFAR-100 ({classes} classes x {per_class}, {pixels} px), {net}"
    data = ImageSet(name, whole.classes[:classes], cut(whole.train), cut(whole.test), source=whole.source)
    return ImageTask(data, per_class=per_class), recipe


@dataclass(frozen=True, eq=False)
class Arrays:
    """A repeat's training and test part as tensors for the network."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int


def arrays_of(trial: Trial) -> Arrays:
    """Return the data of a trial."""
    split = trial.task.split(trial.repeat)
    if isinstance(split, Split):
        x, y, x_test, y_test = map(torch.from_numpy, (split.x_train, split.y_train, split.x_test, split.y_test))
        return Arrays(x, y, x_test, y_test, split.classes)
    if not isinstance(split, ImageSplit):
        raise TypeError(f"expected a table or images, got {type(split).__name__}")
    mean, std = (moment.float().view(3, 1, 1) for moment in (split.mean, split.std))
    train, test = ((part.images.float() / 255 - mean) / std for part in (split.train, split.test))
    return Arrays(train, split.train.labels, test, split.test.labels, split.classes)


def train_observed(
    trial: Trial,
    recipe: Recipe | ImageRecipe,
    folder: Path,
    *,
    observe: Observe | None = None,
    look: Look | None = None,
    missing: Callable[[int], int] = lambda epochs: 0,
) -> History:
    """Train a trial by its family's plain loop, with calls of ``observe`` and ``look``.

    Args:
        folder: For an image network's checkpoints, from which an interrupted training resumes.
        observe: Called with (epoch, part, index, logits, labels) of every training batch (part ``"train"``) and, after
            each epoch, of the parts ``"val"`` and ``"test"``.
        look: Called with (epochs done, network) before the first epoch and after each, before the checkpoint.
        missing: Returns how much of what was seen in so many epochs is missing; without it training doesn't resume.

    Raises:
        UserError: the weights diverge.
    """
    split = trial.task.split(trial.repeat)
    if isinstance(recipe, Recipe) and isinstance(split, Split):
        from crossfade.lab.train.tables.plain import train_plain

        member = Member(split, trial.method, recipe.learning_rates[0], seed(trial, "train"))
        history = train_plain(member, recipe, observe=observe, look=look)
    elif isinstance(recipe, ImageRecipe) and isinstance(split, ImageSplit):
        from crossfade.lab.train.deep.lightning import train
        from crossfade.lab.train.deep.network import Job

        job = Job(split, trial.method, seed(trial, "train"), folder, observe, missing)
        looking = [] if look is None else [_looking(look)]
        history = train(job, recipe, callbacks=looking, on_progress=partial(report, folder))
    else:
        raise TypeError(f"a {type(recipe).__name__} doesn't train on a {type(split).__name__}")
    if not history.finite:
        raise UserError(f"the weights diverge at learning rate {recipe.learning_rates[0]:g}")
    return history


def _looking(look: Look) -> Callback:
    """Return a callback of Lightning that shows the network in evaluation mode."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import LambdaCallback

    def show(done: int, module: LightningModule) -> None:
        module.net.eval()
        look(done, module.net)
        module.net.train()

    def start(trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            show(0, module)

    def end(trainer: Trainer, module: LightningModule) -> None:
        show(trainer.current_epoch + 1, module)

    return LambdaCallback(on_train_start=start, on_train_epoch_end=end)


def outcome_of(result: Mapping[str, object], tables: Mapping[str, Sequence[Row]]) -> Outcome:
    """Return a trial's outcome that holds the rows of its tables as one long table with the column ``table``.

    NaN and infinities are stored as missing.
    """
    parts = [pd.DataFrame(rows).assign(table=name) for name, rows in tables.items() if rows]
    whole = pd.concat(parts, ignore_index=True).astype("object")
    whole = whole.where(whole.notna() & ~whole.isin([float("inf"), float("-inf")]), None)
    return Outcome(dict(result), {str(name): whole[name].tolist() for name in ["table", *whole.columns.drop("table")]})


def stored_tables(store: Store, run: Run) -> dict[str, pd.DataFrame]:
    """Return the tables of a run's finished trials, each row with its data set, method and seed."""
    found: dict[str, list[pd.DataFrame]] = {}
    for row in store.rows(run.keys, curves=True):
        if row.outcome.curves:
            head = {"dataset": row.task, "method": row.method, "seed": row.repeat}
            for name, part in pd.DataFrame(row.outcome.curves).groupby("table", sort=False):
                own = part.drop(columns="table").dropna(axis=1, how="all").infer_objects()
                lead = {key: value for key, value in head.items() if key not in own}
                found.setdefault(str(name), []).append(pd.DataFrame(lead, index=own.index).join(own))
    return {name: pd.concat(parts, ignore_index=True).convert_dtypes() for name, parts in found.items()}


def with_unit(table: pd.DataFrame, scale: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table with a first column ``unit``, which joins the scale and these columns to one name."""
    unit = pd.Series(scale, index=table.index)
    for name in columns:
        unit = unit + "/" + table[name].astype("str")
    return pd.concat([unit.rename("unit"), table], axis=1)
