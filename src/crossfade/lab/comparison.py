"""A comparison of losses on a user's data, whatever they are: from a request to an answer."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from crossfade.errors import UserError
from crossfade.lab.data.harder import with_wrong_labels
from crossfade.lab.data.table import Table, TableTask, from_arrays
from crossfade.lab.data.texts import TextSet, TextTask, texts_from_arrays
from crossfade.lab.hardware import Hardware, check_memory, check_trials, device_memory
from crossfade.lab.loading import Loaded, kind_of, load, rare_of
from crossfade.lab.methods import COSINE, DEFAULT_METHODS, MATCHED, METHODS, MIXTURES, Method, method
from crossfade.lab.own_loss import as_method, check_method, load_loss, load_schedule
from crossfade.lab.provenance import describe_run, same_schedules, sizes_of
from crossfade.lab.result import ComparisonResult
from crossfade.lab.run import run_request
from crossfade.lab.settings import Data, Images, Settings, Texts, Training, check_kind, given
from crossfade.lab.store import Run, Store
from crossfade.lab.train.deep.recipe import Augment, DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.tokens import tokenize
from crossfade.lab.train.tables.recipe import Recipe
from crossfade.lab.trial import Json, Task, Trial, digest
from crossfade.stats.words import count, listed

CONTROL = "ce"
# Compared by default. Texts have MIXTURES without ce-matched: Adam's steps don't depend on the gradient's size.
_ON_IMAGES = (*MIXTURES, MATCHED)
_ON_TABLES = (*DEFAULT_METHODS, MATCHED)
_UNSAID = ("protocol", "wider_rates", "learning_rates")  # stored settings hold these only where a user gave them
_RATES = {"learning_rates": (0.1, 0.03, 0.01, 0.003, 0.001), "wider_rates": (1.0, 0.3, 0.0003, 0.0001)}


@dataclass(frozen=True, eq=False)
class Plan:
    """A request that can be carried out: everything was read and checked, nothing was trained."""

    trials: tuple[Trial, ...]
    run: Run
    notes: tuple[str, ...]
    heading: str


@dataclass(frozen=True)
class _Experiment:
    """Data sets, and a network that is trained on them in one way."""

    study: str  # what the store calls comparisons on this kind of data
    data: str  # the data sets, for people
    tasks: Sequence[Task]
    recipe: Recipe | LstmRecipe | DeepRecipe
    repeats: int
    settings: Mapping[str, object]  # what the store keeps of them
    notes: Sequence[str]  # what a reader should know about the data
    device: str = ""  # what the page puts before the machine's name


def compare(
    X: object,
    y: object = None,
    *,
    methods: str | Method | Callable[..., Any] | Sequence[str | Method | Callable[..., Any]] = (),
    test: Any = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    merge_rare: int | None = None,
    drop_rare: int | None = None,
    group: Any = None,
    time: Any = None,
    name: str = "data",
    repeats: int | None = None,
    seed: int = 0,
    test_size: float = 0.2,
    split: str | None = None,
    net: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rates: Sequence[float] | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    lr_schedule: str | None = None,
    granularity: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    tie: str | None = None,
    precision: str | None = None,
    label_noise: float | None = None,
    noise_kind: str | None = None,
    noisy_validation: bool = False,
    equivalent: float | None = None,
    texts: Texts = Texts(),  # noqa: B008  (frozen)
    images: Images = Images(),  # noqa: B008
    hardware: Hardware = Hardware(),  # noqa: B008
    store: str | Path = ":memory:",
    keep_weights: Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> ComparisonResult:
    """Train the same small networks under different losses on your data, and say which differences are reliable.

    Every repeat has a stratified split into training, validation and test rows; all methods of a repeat share it,
    and the initial weights and batches too. Learning rate (of tables) and epoch are chosen for each method on the
    validation rows.

    Args:
        X: (rows, features): a NumPy array or a pandas data frame; categories, dates and missing values are fine. Or the
            path of a table (or paths of several, compared together), or of a folder with a folder of images for each
            class.
        y: (rows,): class labels, numbers or text. Of a path, the name of the column with the class.
        methods: Names (see ``crossfade list``), ``Method`` objects, or functions: own losses g(ce), and own schedules,
            which return (alpha, beta) at a progress in [0, 1]; CE is always among them. Default: see ``Training``.
        test: ``(X_test, y_test)``, or of a path another path, to test every repeat on these rows; then only training
            and validation rows are drawn.
        categorical: Columns whose numbers are names of categories.
        drop: Columns to leave out.
        merge_rare, drop_rare: Classes with fewer rows than this are merged into one, or left out.
        group, time: A column's name, or a value for each row: rows of a group are never in two parts; by time the last
            rows are tested on.
        name: What tables call the data; a file is called by its own name.
        repeats, seed, test_size, split, net, width, depth, epochs, batch_size, learning_rates, learning_rate, \
momentum, weight_decay, lr_schedule, granularity, metric, select, tie, precision, label_noise, noise_kind, \
noisy_validation, equivalent: See ``crossfade.lab.settings.Training``; None is the usual value.
        texts: ``Texts(text=("review",))`` trains on a column of texts.
        images: Size, augmentation and pretrained weights, for a folder.
        hardware: Where to train.
        store: A file that keeps the results, so that a run that was stopped goes on; default: only memory.
        keep_weights: A folder for the weights of networks for images.
        workers: Threads, for tables and LSTMs; default: all cores.
        progress: Show how far it is, on standard error.

    Returns:
        The answer: ``.table``, ``.verdict``, ``.results``, ``.report(path)``.

    Raises:
        UserError: data or settings that can't be used, in one line.

    >>> from sklearn.datasets import load_iris
    >>> answer = compare(*load_iris(return_X_y=True), repeats=2, epochs=2, methods=["ce", "gradual"])
    >>> list(answer.table.index)
    ['ce', 'gradual']
    """
    arguments = dict(locals())
    categorical, drop = ([one] if isinstance(one, str) else one for one in (categorical, drop))
    chosen = methods if isinstance(methods, Sequence) and not isinstance(methods, str) else [methods]
    named = [part for one in chosen if isinstance(one, str) for part in one.split(",")]
    own = [as_method(one) for one in chosen if not isinstance(one, str)]
    paths = [X] if isinstance(X, str | Path) else X if isinstance(X, list | tuple) else []
    columns = Data(None, None, tuple(categorical) or None, tuple(drop) or None, merge_rare, drop_rare)
    division = {"group": group, "time": time}
    said = {field.name: arguments.get(field.name) for field in fields(Training)} | {"methods": named or None}
    training = Settings.of(said).training
    settings, command = Settings(training, texts, images), "crossfade.compare(X, y)"
    beside = [name for name in ("group", "time", "keep_weights", "workers") if arguments[name] is not None]
    data: Loaded
    if paths and all(isinstance(one, str | Path) for one in paths):
        if not isinstance(y, str | None) or not isinstance(test, str | Path | None):
            raise UserError("y, test: of a path, expected the name of the column with the class, and another path")
        files = [Path(one) for one in paths]
        columns = replace(columns, target=y, test=None if test is None else Path(test), **division)
        check_kind(kind_of(files, settings), str(X), [*given(columns), *settings.given(), *beside])
        data, command = load(files, columns, settings), f"crossfade.compare({', '.join(map(repr, map(str, files)))})"
    else:
        check_kind(kind_of((), settings), "", [*given(columns), *settings.given(), *beside])
        rare = rare_of(columns)
        if texts.text is None:
            data = [from_arrays(X, y, name=name, test=test, categorical=categorical, drop=drop, rare=rare, **division)]
        else:
            declared = "y" in categorical
            data = [texts_from_arrays(X, y, texts.text, name=name, test=test, numbers_are_names=declared, rare=rare)]
    machine = hardware if workers is None else replace(hardware, threads=workers)
    planned = plan(data, settings, command, own, machine)
    for note in planned.notes:
        warnings.warn(note, stacklevel=2)
    with Store(store) as opened:
        return execute(planned, opened, machine, keep_weights=keep_weights, progress=progress)


def compare_folder(
    folder: str | Path, *, store: str | Path = "crossfade.db", progress: bool = True, **options: Any
) -> ComparisonResult:
    """Compare losses on a folder of class folders: ``compare`` with a store and progress."""
    return compare(folder, store=store, progress=progress, **options)


def plan(
    data: Loaded,
    settings: Settings,
    command: str | Sequence[str],
    own: Sequence[Method] = (),
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
) -> Plan:
    """Check a request for data from ``load``, and write it down as trials, before anything is trained.

    Raises:
        UserError: data, network, methods or settings that can't be used.
    """
    training = settings.training
    if isinstance(data, Path):
        methods, asked = _methods(training, own, _ON_IMAGES), _on_images(data, settings, hardware)
    elif sets := [one for one in data if isinstance(one, TextSet)]:
        methods, asked = _methods(training, own, MIXTURES), _on_texts(sets, settings, hardware)
    else:
        tables = [one for one in data if not isinstance(one, TextSet)]
        methods, asked = _methods(training, own, _ON_TABLES, tables=True), _on_tables(tables, settings)
    if noise := settings.given("label_noise", "noise_kind", "noisy_validation"):
        harder, note = with_wrong_labels(asked.tasks, **noise)
        asked = replace(asked, tasks=harder, settings={**asked.settings, **noise}, notes=[*asked.notes, note])
    if len({digest(dict(task.content)) for task in asked.tasks}) < len(asked.tasks):
        raise UserError(f"{asked.data}: two of the data sets hold the same rows; name each once")
    check_trials(len(asked.tasks) * asked.repeats * len(methods))
    if isinstance(asked.recipe, Recipe | LstmRecipe):
        for task in asked.tasks:
            needed = asked.recipe.memory(task.shape, len(methods))
            fewer = "methods" if isinstance(asked.recipe, LstmRecipe) else "methods or rates, or fewer columns (--drop)"
            advice = f"use a smaller --width, or fewer {fewer}"
            check_memory(f"{task.name}: networks of {len(methods)} methods", needed, advice)
    recipe, pairs = asked.recipe, itertools.product(asked.tasks, range(asked.repeats))
    trials = tuple(Trial(asked.study, task, one, recipe, repeat) for task, repeat in pairs for one in methods)
    notes = (*asked.notes, *same_schedules(methods, recipe))
    title = f"Losses compared on {listed((task.name for task in asked.tasks), 4)}"
    about = describe_run(title, trials, command, seed=training.seed or 0, notes=notes, device=asked.device)
    kept = {"settings": {**asked.settings, **settings.given("equivalent")}, "meta": about}
    run = Run(asked.study, kept, tuple(trial.key for trial in trials))
    net, rates = getattr(recipe, "net", "lstm"), ", ".join(f"{rate:g}" for rate in recipe.learning_rates)
    heading = (
        f"{asked.data} · {', '.join(one.name for one in methods)} · {count(asked.repeats, 'repeat')} · {net}, "
        f"{count(recipe.epochs, 'epoch')}, batch {recipe.batch_size}, learning rate {rates}"
    )
    return Plan(trials, run, notes, heading)


def execute(
    planned: Plan,
    store: Store,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    *,
    keep_weights: Path | None = None,
    progress: bool = False,
    retry_failed: bool = False,
    curves: bool = True,
) -> ComparisonResult:
    """Train what the store doesn't know yet, and read the answer from the store, with all ``curves`` or their means."""
    run_request(
        [planned.run],
        planned.trials,
        store,
        hardware,
        keep_weights=keep_weights,
        retry_failed=retry_failed,
        progress=progress,
        label="Comparing",
    )
    return ComparisonResult.load(store, planned.run, curves=curves)


def _on_tables(tables: Sequence[Table], settings: Settings) -> _Experiment:
    """Return what is trained on tables: the paper's small networks, at several learning rates."""
    training = settings.training
    if training.net == "linear" and (training.width is not None or training.depth not in (None, 1)):
        raise UserError("net: 'linear' has no hidden layer, so width and depth mean nothing; leave them out or use mlp")
    said = settings.given(*(field.name for field in fields(Recipe)))
    recipe = Recipe(tallied=True, **{"tie": "expected", **({} if "learning_rates" in said else _RATES), **said})
    division = _division(training)
    split = training.split or ("folds" if all(table.independent for table in tables) else "random")
    tasks = [TableTask(table, **division, folds=split == "folds") for table in tables]
    repeats = training.repeats or 10
    kept = {"methods": list(training.methods or ()), "loss": list(training.loss or ()), "repeats": repeats, **division}
    kept |= {"split": split}
    kept |= {name: value for name, value in recipe.to_dict().items() if name in said or name not in _UNSAID}
    notes = [f"{table.source}: {note}" for table in tables for note in table.notes]
    return _Experiment("compare", listed((task.name for task in tasks), 4), tasks, recipe, repeats, kept, notes, "CPU")


def _on_texts(sets: Sequence[TextSet], settings: Settings, hardware: Hardware) -> _Experiment:
    """Return what is trained on texts: an LSTM, or a pretrained transformer."""
    training = settings.training
    tasks = [TextTask(data, **_division(training)) for data in sets]
    splits = [task.split(0) for task in tasks]
    fewest = min(len(split.train) for split in splits)
    recipe = _text_recipe(settings)
    if training.batch_size is None:  # few texts would make too few steps to learn anything from
        recipe = replace(recipe, batch_size=min(recipe.batch_size, max(8, fewest // 100)))
    recipe = replace(recipe, batch_size=min(recipe.batch_size, max(2, math.ceil(fewest / 4))))
    if isinstance(recipe, LstmRecipe):
        for split in splits:
            tokenize(split, recipe)  # what can't be read is told before anything is trained
    else:
        from crossfade.lab.nets.pretrained import check_model, empty_classifier

        recipe = replace(recipe, digest=check_model(recipe.model, recipe.max_length))
        make = partial(empty_classifier, recipe.model, splits[0].classes)
        _check_batches(recipe, make, (recipe.max_length,), 2, "--max-length or model, or --accumulate N", hardware)
    notes = [note for data in sets for note in data.notes]
    notes += ["the test part is a file's own, the same in every repeat"] if sets[0].test else []
    repeats, kept = training.repeats or 5, {"scale": recipe.scale}
    sizes = "; ".join(f"{task.name}: {sizes_of(task, 'texts')}" for task in tasks)
    return _Experiment("compare-texts", sizes, tasks, recipe, repeats, kept, notes)


def _text_recipe(settings: Settings) -> LstmRecipe | TextRecipe:
    training, texts = settings.training, settings.texts
    said = settings.given("epochs", "batch_size", "learning_rate", "max_length") | _select(training)
    net = training.net or "lstm"
    if net == "lstm":
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
    usual_bert = TextRecipe(model, max_length=128, epochs=3, scale="own")
    return replace(usual_bert, **said, **settings.given("accumulate", "precision"))


def _on_images(folder: Path, settings: Settings, hardware: Hardware) -> _Experiment:
    """Return what is trained on a folder of images: a network for small images, or one of torchvision's."""
    from crossfade.lab.data.image_sets import load_folder
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.nets import build, check_name

    training, images = settings.training, settings.images
    net, pretrained = training.net or "resnet20", images.pretrained
    check_name(net, pretrained)
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
        milestones=tuple(round(epochs * part, 6) for part in (1 / 2, 2 / 3, 5 / 6)),  # as in the longest protocol
        augment=augment[images.augment or "full"],
        size=side,
        granularity="step",
        scale="own",
    )
    said = settings.given("batch_size", "learning_rate", "weight_decay", "precision")
    recipe = replace(usual, **said, **_select(training))
    recipe = recipe.fitting(len(task.split(0).train))
    make = partial(build, net, len(data.classes))
    _check_batches(recipe, make, (3, side, side), 1, "--image-size or --net", hardware)
    notes = ["the test part is the folder's own, the same in every repeat"] if data.test is not None else []
    repeats, kept = training.repeats or 3, recipe.to_dict()
    sizes = f"{task.name}: {sizes_of(task, 'images')}"
    return _Experiment("compare-images", sizes, [task], recipe, repeats, kept, notes)


def _check_batches(
    recipe: DeepRecipe, make: Callable[[], Any], example: Sequence[int], moments: int, advice: str, hardware: Hardware
) -> None:
    """Raise UserError if a batch of examples of this shape doesn't fit into memory where its part is trained."""
    from crossfade.lab.nets.memory import training_memory

    size = math.ceil(recipe.batch_size / (hardware.devices * hardware.nodes * recipe.accumulate))
    half = recipe.precision != "32-true"
    needed = training_memory(make, (size, *example), moments=moments, half=half)
    what = f"{getattr(recipe, 'net', '')} with {count(size, 'example')} at once"
    check_memory(what, needed, f"use a smaller --batch-size, {advice}", device_memory(hardware))


def _division(training: Training) -> Json:
    """Return how a task divides its data."""
    return {"seed": training.seed or 0, "test_size": 0.2 if training.test_size is None else training.test_size}


def _select(training: Training) -> Json:
    """Return which epoch counts, as the recipes of texts and images say it."""
    return {"select": "last" if training.select == "last" else "validation"}


def _methods(training: Training, own: Sequence[Method], usual: Sequence[str], *, tables: bool = False) -> list[Method]:
    """Return what is compared: the control first, no name twice."""
    every = [known.name for known in METHODS if tables or known is not COSINE]
    names = [name for one in training.methods or () for name in (every if one == "all" else [one])]
    if not names and (not own or training.loss or training.schedule):
        names = list(usual)
    chosen = (
        [method(name, tables=tables) for name in names]
        + [load_loss(one) for one in training.loss or ()]
        + [load_schedule(one) for one in training.schedule or ()]
        + [*own]
    )
    if all(one.name != CONTROL for one in chosen):
        chosen.insert(0, method(CONTROL))
    seen: dict[str, Method] = {}
    for one in chosen:
        if seen.setdefault(one.name, one) is not one:
            raise UserError(f"methods: two different losses are called {one.name!r}; rename one")
        if one in own and (one.g or one.g_of) and one not in METHODS:
            check_method(one)
    if training.lr_schedule == "cosine" and COSINE.name in seen:
        raise UserError(f"methods: with lr-schedule cosine {COSINE.name!r} is the same as 'ce'; leave one of them out")
    if len(seen) < 2:
        raise UserError("methods: only the control 'ce' is left; name another one to compare it with")
    return sorted(seen.values(), key=lambda one: one.name != CONTROL)
