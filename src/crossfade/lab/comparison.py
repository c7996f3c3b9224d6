"""The question "would it help on my data?", whatever the data are: from a request to an answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from crossfade.errors import UserError
from crossfade.lab.answer import ComparisonResult
from crossfade.lab.described import SCHEDULE_GRID, describe_run
from crossfade.lab.methods import DEFAULT_METHODS, METHODS, Method, method, shared_epochs
from crossfade.lab.own_loss import check_loss_function, load_loss
from crossfade.lab.run import run_request
from crossfade.lab.settings import Data, Images, Kind, Settings, Texts, Training, check_kind, given, option
from crossfade.lab.store import Run, Store
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    from crossfade.lab.data.table import Table
    from crossfade.lab.data.texts import TextSet
    from crossfade.lab.train.deep.recipe import ImageRecipe
    from crossfade.lab.train.deep.text_recipe import TextRecipe
    from crossfade.lab.train.lstm.types import LstmRecipe
    from crossfade.lab.train.tables.types import Recipe
    from crossfade.lab.trial import Task

    AnyRecipe: TypeAlias = Recipe | LstmRecipe | TextRecipe | ImageRecipe
    Loaded: TypeAlias = Sequence[Table] | TextSet | Path

__all__ = ["CONTROL", "ComparisonResult", "Plan", "compare", "compare_folder", "execute", "kind_of", "load", "plan"]

CONTROL = "ce"
_LSTM = "lstm"
_MIXTURES = ("ce", "f0", "f0-late", "gradual")  # compared by default on texts and images, which take longer


@dataclass(frozen=True, eq=False)
class Plan:
    """A request that can be carried out: everything was read and checked, nothing was trained."""

    trials: tuple[Trial, ...]
    run: Run
    notes: tuple[str, ...]
    heading: str


def compare(
    X: object,
    y: object = None,
    *,
    methods: Sequence[str | Method | Callable[..., Any]] = (),
    test: Any = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    name: str = "data",
    repeats: int | None = None,
    seed: int = 0,
    test_size: float = 0.2,
    net: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rates: Sequence[float] | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    granularity: str | None = None,
    tie: str | None = None,
    precision: str | None = None,
    texts: Texts = Texts(),  # noqa: B008  (frozen)
    images: Images = Images(),  # noqa: B008
    hardware: Hardware = Hardware(),  # noqa: B008
    store: str | Path = ":memory:",
    keep_weights: Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> ComparisonResult:
    """Train the same small networks under different losses on your data, and say which differences are reliable.

    Every repeat draws a stratified split into training, validation and test rows; all methods of a repeat share it,
    and the initial weights and batches too. Learning rate (of tables) and epoch are chosen for each method on the
    validation rows.

    Args:
        X: (rows, features): a NumPy array or a pandas data frame; categories, dates and missing values are fine. Or the
            path of a table, or of a folder with a folder of images for each class.
        y: (rows,): class labels, numbers or text. Of a path, the name of the column with the class.
        methods: Names (see ``crossfade list``), ``Method`` objects, or own losses g(ce) as functions; CE is always
            among them. Default: the paper's six on tables, CE and its three mixtures on texts and images.
        test: ``(X_test, y_test)``, or of a path another path, to test every repeat on these rows; then only training
            and validation rows are drawn.
        categorical: Columns whose numbers are names of categories.
        drop: Columns to leave out.
        name: What tables call the data.
        repeats, seed, test_size, net, width, depth, epochs, batch_size, learning_rates, learning_rate, momentum, \
weight_decay, granularity, tie, precision: See ``crossfade.lab.settings.Training``; None is the usual value.
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
    own = [_as_method(one) for one in methods if not isinstance(one, str)]
    named = [one for one in methods if isinstance(one, str)]
    chosen = Settings.of(
        {
            "methods": named or None, "repeats": repeats, "seed": seed, "test_size": test_size, "net": net,
            "width": width, "depth": depth, "epochs": epochs, "batch_size": batch_size,
            "learning_rates": None if learning_rates is None else list(learning_rates), "learning_rate": learning_rate,
            "momentum": momentum, "weight_decay": weight_decay, "granularity": granularity, "tie": tie,
            "precision": precision,
        }
    )  # fmt: skip
    settings = Settings(chosen.training, texts, images)
    if isinstance(X, str | Path):
        if not isinstance(y, str | None) or not isinstance(test, str | Path | None):
            raise UserError("y, test: with the path of a table, expected a column's name and a path")
        columns = Data(y, None if test is None else Path(test), tuple(categorical) or None, tuple(drop) or None)
        check_kind(kind_of(Path(X), settings), str(X), columns, settings.training, texts, images)
        data, command = load(Path(X), columns, settings), f"crossfade.lab.compare({str(X)!r})"
    else:
        check_kind(kind_of(None, settings), "", settings.training, texts, images)
        data, command = _from_arrays(X, y, test, name, categorical, drop, texts.text), "crossfade.lab.compare(X, y)"
    planned = plan(data, settings, command, own)
    for note in planned.notes:
        warnings.warn(note, stacklevel=2)
    with Store(store) as opened:
        machine = hardware if workers is None else replace(hardware, threads=workers)
        return execute(planned, opened, machine, keep_weights=keep_weights, progress=progress)


def compare_folder(
    folder: str | Path, *, store: str | Path = "crossfade.db", progress: bool = True, **options: Any
) -> ComparisonResult:
    """Compare losses on a folder of class folders: ``compare`` with a store and progress."""
    return compare(folder, store=store, progress=progress, **options)


def kind_of(file: Path | None, settings: Settings) -> Kind:
    """Return what the data are: a folder is one of images, and with a column of texts a table is one of texts."""
    if file is not None and file.is_dir():
        return Kind.IMAGES
    return Kind.TEXTS if settings.texts.text else Kind.TABLE


def load(file: Path | None, columns: Data, settings: Settings) -> Loaded:
    """Read a table, or texts; a folder of images is read by ``plan``, which knows their size.

    Args:
        file: A table or a folder; None for four real data sets.
        columns: The table's columns.
        settings: Say whether the table holds texts.

    Raises:
        UserError: what can't be read, or a column that isn't there or wasn't named.
    """
    from crossfade.lab.data.builtin import BUILTIN, load_builtin
    from crossfade.lab.data.reading import read_frame
    from crossfade.lab.data.table import from_file
    from crossfade.lab.data.texts import load_texts

    kind = kind_of(file, settings)
    if file is None:
        for name in given(columns) | given(settings.texts):
            raise UserError(f"{option(name)} needs a FILE: crossfade compare FILE --target COLUMN")
        return [load_builtin(name) for name in BUILTIN]
    if kind is Kind.IMAGES:
        return file
    if columns.target is None:
        known = ", ".join(map(str, read_frame(file).frame.columns[:12]))
        raise UserError(f"{file}: which column is the class? Add --target COLUMN (columns: {known})")
    categorical = columns.categorical or ()
    if kind is Kind.TEXTS:
        text = [name for one in settings.texts.text or () for name in _column_names(one, file)]
        numbers_are_names = columns.target in categorical
        return load_texts(file, text, columns.target, test=columns.test, numbers_are_names=numbers_are_names)
    return [from_file(file, columns.target, test=columns.test, categorical=categorical, drop=columns.drop or ())]


def _from_arrays(
    X: object,
    y: object,
    test: tuple[object, object] | None,
    name: str,
    categorical: Sequence[str],
    drop: Sequence[str],
    text: Sequence[str] | None,
) -> Loaded:
    from crossfade.lab.data.table import from_arrays
    from crossfade.lab.data.texts import texts_from_arrays

    if text is None:
        return [from_arrays(X, y, name=name, test=test, categorical=categorical, drop=drop)]
    return texts_from_arrays(X, y, text, name=name, test=test, numbers_are_names="y" in categorical)


def _column_names(text: str, file: Path) -> list[str]:
    """Return the columns that a text names; one column's name may hold a comma."""
    from crossfade.lab.data.reading import read_frame

    whole = "," not in text or text in read_frame(file).frame.columns
    return [text] if whole else [part.strip() for part in text.split(",") if part.strip()]


def plan(data: Loaded, settings: Settings, command: str | Sequence[str], own: Sequence[Method] = ()) -> Plan:
    """Check a request and write it down as trials, before anything is trained.

    Args:
        data: From ``load``: tables, texts, or a folder of images.
        settings: What decides the numbers.
        command: What was called, for the page.
        own: Methods beside those that the settings name.

    Raises:
        UserError: data, network, methods or settings that can't be used.
    """
    from crossfade.lab.data.texts import TextSet

    training = settings.training
    if isinstance(data, Path):
        methods = _methods(training, own, _MIXTURES, deep=True)
        request = _for_images(data, settings)
    elif isinstance(data, TextSet):
        methods = _methods(training, own, _MIXTURES, deep=(training.net or _LSTM) != _LSTM)
        request = _for_texts(data, settings)
    else:
        methods = _methods(training, own, DEFAULT_METHODS)
        request = _for_tables(data, training)
    repeats, recipe = training.repeats or request.repeats, request.recipe
    trials = tuple(
        Trial(request.study, task, method, recipe, repeat)
        for task in request.tasks
        for repeat in range(repeats)
        for method in methods
    )
    notes = (*request.notes, *_same_schedules(methods, recipe))
    title = f"Losses compared on {', '.join(task.name for task in request.tasks)}"
    seed = training.seed or 0
    meta = describe_run(title, trials, command, seed=seed, notes=notes, device=request.device)
    run = Run(request.study, {"settings": request.settings, "meta": meta}, tuple(trial.key for trial in trials))
    rates = " or ".join(f"{rate:g}" for rate in recipe.learning_rates)
    heading = (
        f"{request.data} · {', '.join(one.name for one in methods)} · {repeats} repeats · {request.net}, "
        f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {rates}"
    )
    return Plan(trials, run, notes, heading)


def execute(
    planned: Plan,
    store: Store | Path,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    *,
    keep_weights: Path | None = None,
    progress: bool = False,
    retry_failed: bool = False,
) -> ComparisonResult:
    """Train what the store doesn't know yet, and read the answer from the store."""
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
    if isinstance(store, Store):
        return ComparisonResult.load(store, planned.run)
    with Store(store, mode="read") as opened:
        return ComparisonResult.load(opened, planned.run)


@dataclass(frozen=True)
class _Request:
    """What depends on the kind of data.

    Attributes:
        study: What the store calls the comparison.
        data: What the data are, for people.
        tasks, net, recipe: The data sets, the network's name, and how it is trained.
        repeats: How many, where the user doesn't say.
        settings: What the store keeps of the settings.
        notes: What the user should know about the data.
        device: What the page calls the device; "" for the machine's own name.
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


def _for_tables(tables: Sequence[Table], training: Training) -> _Request:
    from crossfade.lab.data.task import TableTask
    from crossfade.lab.train.tables.types import Recipe

    if training.net == "linear" and (training.width is not None or training.depth not in (None, 1)):
        raise UserError("net: 'linear' has no hidden layer, so width and depth mean nothing; leave them out or use mlp")
    names = [field.name for field in fields(Recipe)]
    recipe = replace(Recipe(), **{name: value for name, value in given(training).items() if name in names})
    test_size, seed = _division(training)
    tasks = [TableTask(table, test_size, seed) for table in tables]
    settings = {
        "methods": list(training.methods or ()),
        "loss": list(training.loss or ()),
        "repeats": training.repeats or 10,
        "seed": seed,
        "test_size": test_size,
        **{name: value for name, value in recipe.to_dict().items() if name != "protocol"},
    }
    notes = [f"{table.source}: {note}" for table in tables for note in table.notes]
    named = ", ".join(task.name for task in tasks)
    return _Request("compare", named, tasks, recipe.net, recipe, 10, settings, notes, "CPU")


def _for_texts(data: TextSet, settings: Settings) -> _Request:
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.train.deep.text_models import check_model
    from crossfade.lab.train.lstm.types import LstmRecipe
    from crossfade.lab.train.lstm.words import tokenize

    test_size, seed = _division(settings.training)
    task = TextTask(data, test_size=test_size, seed=seed)
    examples = len(task.split(0).train)
    recipe = _text_recipe(settings)
    if settings.training.batch_size is None:  # few texts would make too few steps to learn anything from
        recipe = replace(recipe, batch_size=min(recipe.batch_size, max(8, examples // 100)))
    recipe = replace(recipe, batch_size=min(recipe.batch_size, max(2, math.ceil(examples / 4))))
    if isinstance(recipe, LstmRecipe):
        tokenize(task.split(0), recipe)  # what can't be read is told before anything is trained
    else:
        recipe = replace(recipe, digest=check_model(recipe.model, recipe.max_length))
    notes = [*data.notes, *(["the test part is a file's own, the same in every repeat"] if data.test else [])]
    net = _LSTM if isinstance(recipe, LstmRecipe) else recipe.net
    return _Request("compare-texts", _sizes(task, "texts"), [task], net, recipe, 5, {"scale": recipe.scale}, notes)


def _text_recipe(settings: Settings) -> LstmRecipe | TextRecipe:
    from crossfade.lab.train.deep.text_recipe import TextRecipe
    from crossfade.lab.train.lstm.types import LstmRecipe

    training, texts = settings.training, settings.texts
    said = {name: value for name, value in given(training).items() if name in ("epochs", "batch_size", "learning_rate")}
    said |= {"max_length": texts.max_length} if texts.max_length is not None else {}
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
    return replace(
        TextRecipe(model, max_length=128, epochs=3, select="validation", scale="own"),
        accumulate=texts.accumulate or 1,
        precision=training.precision or "32-true",
        **said,
    )


def _for_images(folder: Path, settings: Settings) -> _Request:
    from crossfade.lab.data.image_folder import load_folder
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.nets import SMALL_NETS, check_name
    from crossfade.lab.train.deep.augment import Augment
    from crossfade.lab.train.deep.recipe import ImageRecipe

    training, images = settings.training, settings.images
    net = training.net or "resnet20"
    check_name(net)
    if images.pretrained and net in SMALL_NETS:
        raise UserError(f"net {net!r} has no pretrained weights; use one of torchvision's, such as resnet18")
    data = load_folder(folder, size=images.image_size or (224 if images.pretrained else None))
    test_size, seed = _division(training)
    task = ImageTask(data, select="validation", test_size=test_size, seed=seed)
    side, epochs = data.train.images.shape[2], training.epochs or 60
    augment = {
        "full": Augment(crop=max(1, side // 8), rotation=10.0),
        "flip": Augment(crop=0),
        "none": Augment(crop=0, flip=False),
    }[images.augment or "full"]
    recipe = ImageRecipe(
        net=net,
        pretrained=images.pretrained,
        epochs=epochs,
        batch_size=training.batch_size or 64,
        # Pretrained weights are to be moved a little, fresh ones a lot.
        learning_rate=training.learning_rate or (0.01 if images.pretrained else 0.1),
        # Where the paper's longest protocol lets the rate fall.
        milestones=tuple(round(epochs * part, 6) for part in (1 / 2, 2 / 3, 5 / 6)),
        weight_decay=1e-4 if training.weight_decay is None else training.weight_decay,
        augment=augment,
        size=side,
        granularity="step",
        select="validation",
        precision=training.precision or "32-true",
        scale="own",
    ).fitting(len(task.split(0).train))
    notes = ["the test part is the folder's own, the same in every repeat"] if data.test is not None else []
    return _Request("compare-images", _sizes(task, "images"), [task], net, recipe, 3, recipe.to_dict(), notes)


def _division(training: Training) -> tuple[float, int]:
    """Return the share of the test part, and the seed."""
    return 0.2 if training.test_size is None else training.test_size, training.seed or 0


def _sizes(task: Task, examples: str) -> str:
    about = task.describe()
    sizes = " + ".join(f"{about[part]:,}" for part in ("n_train", "n_val", "n_test"))
    return f"{task.name}: {sizes} {examples} of {about['classes']} classes"


def _methods(training: Training, own: Sequence[Method], usual: Sequence[str], *, deep: bool = False) -> list[Method]:
    """Return what is compared: the control first, no name twice."""
    names = list(training.methods or ())
    if names == ["all"]:
        names = [known.name for known in METHODS]
    elif not names and not (own and not training.loss):
        names = list(usual)
    chosen = [method(name, deep=deep) for name in names]
    chosen += [load_loss(reference) for reference in training.loss or ()]
    chosen += own
    if all(one.name != CONTROL for one in chosen):
        chosen.insert(0, method(CONTROL))
    seen: dict[str, Method] = {}
    for one in chosen:
        if seen.setdefault(one.name, one) is not one:
            raise UserError(f"methods: two different losses are called {one.name!r}; rename one")
    for one in own:
        if one.g is not None and one not in METHODS:
            check_loss_function(one.g)
    if len(seen) < 2:
        raise UserError("methods: only the control 'ce' is left; name another one to compare it with")
    return sorted(seen.values(), key=lambda one: one.name != CONTROL)


def _as_method(given: object) -> Method:
    if isinstance(given, Method):
        return given
    if not callable(given):
        raise UserError(f"methods: expected names, Method objects or functions g(ce), got {given!r}")
    name = str(getattr(given, "__name__", type(given).__name__)).strip("<>")
    return Method(name, name, g=given)


def _same_schedules(methods: Sequence[Method], recipe: AnyRecipe) -> list[str]:
    """Return a note on each method that few epochs make the same as another: it would look like a tie."""
    steps = 1 if recipe.granularity == "epoch" else math.ceil(SCHEDULE_GRID / recipe.epochs)
    notes = []
    for at, one in enumerate(methods):
        same = [two for two in methods[:at] if shared_epochs(two, one, recipe.epochs, steps) == recipe.epochs]
        if same:
            notes.append(
                f"{one.name} is the same as {same[0].name} at {recipe.epochs} epochs; use more epochs or "
                "--granularity step"
            )
    return notes
