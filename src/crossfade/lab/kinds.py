"""The tasks, the network and the usual training of a comparison, for each kind of data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.settings import Settings, Texts, Training, given

if TYPE_CHECKING:
    from crossfade.lab.data.table import Table
    from crossfade.lab.data.texts import TextSet
    from crossfade.lab.train.deep.recipe import ImageRecipe, TextRecipe
    from crossfade.lab.train.lstm.recipe import LstmRecipe
    from crossfade.lab.train.tables.recipe import Recipe
    from crossfade.lab.trial import Task

    AnyRecipe: TypeAlias = Recipe | LstmRecipe | TextRecipe | ImageRecipe

_LSTM = "lstm"
# The parts of the training after which the learning rate falls tenfold, as in the paper's longest protocol.
_RATE_FALLS = (1 / 2, 2 / 3, 5 / 6)


@dataclass(frozen=True)
class Question:
    """Data sets, and a network that is trained on them in one way.

    Attributes:
        study: What the store calls comparisons on this kind of data.
        data: The data sets, for people.
        tasks, net, recipe: What is trained, and how.
        repeats: How many there are.
        settings: What the store keeps of the settings.
        notes: What a reader should know about the data.
        device: What the page puts before the machine's name.
    """

    study: str
    data: str
    tasks: Sequence[Task]
    net: str
    recipe: AnyRecipe
    repeats: int
    settings: Mapping[str, object]
    notes: Sequence[str]
    device: str = ""


def on_tables(tables: Sequence[Table], settings: Settings) -> Question:
    """Return what is trained on tables: the paper's small networks, at several learning rates."""
    from crossfade.lab.data.task import TableTask
    from crossfade.lab.train.tables.recipe import Recipe

    training = settings.training
    if training.net == "linear" and (training.width is not None or training.depth not in (None, 1)):
        raise UserError("net: 'linear' has no hidden layer, so width and depth mean nothing; leave them out or use mlp")
    recipe = Recipe(**_given(training, *(field.name for field in fields(Recipe))))
    division = _division(training)
    tasks = [TableTask(table, **division) for table in tables]
    repeats = training.repeats or 10
    kept = {"methods": list(training.methods or ()), "loss": list(training.loss or ()), "repeats": repeats, **division}
    kept |= {name: value for name, value in recipe.to_dict().items() if name != "protocol"}
    notes = [f"{table.source}: {note}" for table in tables for note in table.notes]
    names = ", ".join(task.name for task in tasks)
    return Question("compare", names, tasks, recipe.net, recipe, repeats, kept, notes, "CPU")


def on_texts(data: TextSet, settings: Settings) -> Question:
    """Return what is trained on texts: an LSTM, or a pretrained transformer."""
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.train.lstm.recipe import LstmRecipe
    from crossfade.lab.train.lstm.tokens import tokenize

    training = settings.training
    task = TextTask(data, **_division(training))
    split = task.split(0)
    recipe = _text_recipe(settings)
    if training.batch_size is None:  # few texts would make too few steps to learn anything from
        recipe = replace(recipe, batch_size=min(recipe.batch_size, max(8, len(split.train) // 100)))
    recipe = replace(recipe, batch_size=min(recipe.batch_size, max(2, math.ceil(len(split.train) / 4))))
    if isinstance(recipe, LstmRecipe):
        net = _LSTM
        tokenize(split, recipe)  # what can't be read is told before anything is trained
    else:
        from crossfade.lab.train.deep.pretrained import check_model

        net = recipe.net
        recipe = replace(recipe, digest=check_model(recipe.model, recipe.max_length))
    notes = [*data.notes, *(["the test part is a file's own, the same in every repeat"] if data.test else [])]
    repeats, kept = training.repeats or 5, {"scale": recipe.scale}
    return Question("compare-texts", _sizes(task, "texts"), [task], net, recipe, repeats, kept, notes)


def _text_recipe(settings: Settings) -> LstmRecipe | TextRecipe:
    from crossfade.lab.train.deep.recipe import TextRecipe
    from crossfade.lab.train.lstm.recipe import LstmRecipe

    training, texts = settings.training, settings.texts
    said = _given(training, "epochs", "batch_size", "learning_rate") | _given(texts, "max_length")
    net = training.net or _LSTM
    if net == _LSTM:
        if texts.accumulate not in (None, 1) or training.precision not in (None, "32-true"):
            raise UserError("accumulate and precision are for --net bert:NAME; an LSTM is trained in 32-true")
        usual = LstmRecipe(granularity="step", scale="own")
        width, depth = training.width or usual.hidden, training.depth or usual.layers
        return replace(usual, embedding=width, hidden=width, layers=depth, **said)
    kind, _, model = net.partition(":")
    if kind != "bert" or not model:
        raise UserError(f"net must be lstm, or bert:NAME with a model's name or folder, got {net!r}")
    if training.width is not None or training.depth is not None:
        raise UserError("width and depth are for --net lstm; a pretrained model has its own")
    usual_bert = TextRecipe(model, max_length=128, epochs=3, select="validation", scale="own")
    return replace(usual_bert, **said, **_given(texts, "accumulate"), **_given(training, "precision"))


def on_images(folder: Path, settings: Settings) -> Question:
    """Return what is trained on a folder of images: a network for small images, or one of torchvision's."""
    from crossfade.lab.data.image_folder import load_folder
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.nets import SMALL_NETS, check_name
    from crossfade.lab.train.deep.recipe import Augment, ImageRecipe

    training, images = settings.training, settings.images
    net, pretrained = training.net or "resnet20", images.pretrained
    check_name(net)
    if pretrained and net in SMALL_NETS:
        raise UserError(f"net {net!r} has no pretrained weights; use one of torchvision's, such as resnet18")
    data = load_folder(folder, size=images.image_size or (224 if pretrained else None))
    task = ImageTask(data, select="validation", **_division(training))
    side, epochs = data.train.images.shape[2], training.epochs or 60
    full = Augment(crop=max(1, side // 8), rotation=10.0)
    augment = {"full": full, "flip": Augment(crop=0), "none": Augment(crop=0, flip=False)}
    usual = ImageRecipe(
        net=net,
        pretrained=pretrained,
        epochs=epochs,
        batch_size=64,
        learning_rate=0.01 if pretrained else 0.1,  # pretrained weights are to be moved a little, fresh ones a lot
        milestones=tuple(round(epochs * part, 6) for part in _RATE_FALLS),
        augment=augment[images.augment or "full"],
        size=side,
        granularity="step",
        select="validation",
        scale="own",
    )
    recipe = replace(usual, **_given(training, "batch_size", "learning_rate", "weight_decay", "precision"))
    recipe = recipe.fitting(len(task.split(0).train))
    notes = ["the test part is the folder's own, the same in every repeat"] if data.test is not None else []
    repeats, kept = training.repeats or 3, recipe.to_dict()
    return Question("compare-images", _sizes(task, "images"), [task], net, recipe, repeats, kept, notes)


def _given(group: Training | Texts, *names: str) -> dict[str, Any]:
    """Return those of the named settings that are given."""
    return {name: value for name, value in given(group).items() if name in names}


def _division(training: Training) -> dict[str, Any]:
    """Return how a task divides its data."""
    return {"seed": training.seed or 0, "test_size": 0.2 if training.test_size is None else training.test_size}


def _sizes(task: Task, examples: str) -> str:
    about = task.describe()
    sizes = " + ".join(f"{about[part]:,}" for part in ("n_train", "n_val", "n_test"))
    return f"{task.name}: {sizes} {examples} of {about['classes']} classes"
