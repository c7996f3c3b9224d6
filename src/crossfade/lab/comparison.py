"""The question "would it help on my data?": methods × repeats on tables, from a request to an answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import UserError
from crossfade.lab.config import Settings, resolve
from crossfade.lab.described import SCHEDULE_GRID, describe_run
from crossfade.lab.result import ComparisonResult
from crossfade.lab.run import run_request
from crossfade.lab.store import Run, Store
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    from crossfade.lab.data.table import Table
    from crossfade.lab.methods import Method

__all__ = ["CONTROL", "ComparisonResult", "Plan", "compare", "execute", "plan"]

CONTROL = "ce"
_STUDY = "compare"


@dataclass(frozen=True, eq=False)
class Plan:
    """A request that can be carried out: everything was read and checked, nothing was trained."""

    trials: tuple[Trial, ...]
    run: Run
    notes: tuple[str, ...]


def compare(
    X: Any,
    y: Any,
    *,
    methods: Sequence[str | Method | Callable[..., Any]] = (),
    test: tuple[Any, Any] | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    name: str = "data",
    repeats: int = 10,
    seed: int = 0,
    test_size: float = 0.2,
    net: str = "mlp",
    width: int | None = None,
    depth: int = 1,
    epochs: int = 50,
    batch_size: int = 8,
    learning_rates: Sequence[float] = (0.01, 0.005, 0.001),
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    granularity: str = "epoch",
    tie: str = "first",
    store: str | Path = ":memory:",
    workers: int | None = None,
    progress: bool = False,
) -> ComparisonResult:
    """Train the same small networks under different losses on your data, and say which differences are reliable.

    Every repeat draws a stratified split into training, validation and test rows; all methods of a repeat share it,
    and the initial weights and batches too. Learning rate and epoch are chosen for each method on the validation rows.

    Args:
        X: (rows, features): a NumPy array or a pandas data frame; categories, dates and missing values are fine.
        y: (rows,): class labels, numbers or text.
        methods: Names (see ``crossfade list``), ``Method`` objects, or own losses g(ce) as functions; CE is always
            among them. Default: the paper's six.
        test: ``(X_test, y_test)`` to test every repeat on these rows; then only training and validation rows are drawn.
        categorical: Columns whose numbers are names of categories.
        drop: Columns to leave out.
        name: What tables call the data.
        repeats, seed, test_size, net, width, depth, epochs, batch_size, learning_rates, momentum, weight_decay, \
granularity, tie: See ``crossfade.lab.config.Settings``.
        store: A file that keeps the results, so that a run that was stopped goes on; default: only memory.
        workers: Threads; default: all cores.
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
    from crossfade.lab.data.table import from_arrays

    own = [_as_method(given) for given in methods if not isinstance(given, str)]
    settings = resolve(
        {
            "methods": [given for given in methods if isinstance(given, str)], "repeats": repeats, "seed": seed,
            "test_size": test_size, "net": net, "width": width, "depth": depth, "epochs": epochs,
            "batch_size": batch_size, "learning_rates": list(learning_rates), "momentum": momentum,
            "weight_decay": weight_decay, "granularity": granularity, "tie": tie,
        }
    )  # fmt: skip
    table = from_arrays(X, y, name=name, test=test, categorical=categorical, drop=drop)
    planned = plan([table], settings, "crossfade.lab.compare(X, y)", own=own)
    for note in planned.notes:
        warnings.warn(note, stacklevel=2)
    with Store(store) as opened:
        return execute(planned, opened, workers=workers, progress=progress)


def plan(tables: Sequence[Table], settings: Settings, command: str | Sequence[str], own: Sequence[Method] = ()) -> Plan:
    """Check a request and write it down, before anything is trained.

    Raises:
        UserError: unknown methods, or rows that can't be divided.
    """
    from crossfade.lab.data.task import TableTask

    methods = _methods(settings, own)
    recipe = settings.recipe()
    tasks = [TableTask(table, settings.test_size, settings.seed) for table in tables]
    trials = tuple(
        Trial(_STUDY, task, method, recipe, repeat)
        for task in tasks
        for repeat in range(settings.repeats)
        for method in methods
    )
    notes = [f"{table.source}: {note}" for table in tables for note in table.notes]
    notes += _same_schedules(trials[: len(methods)])
    request = {
        "settings": settings.to_dict(),
        "meta": describe_run(
            f"Losses compared on {', '.join(task.name for task in tasks)}",
            trials,
            command,
            seed=settings.seed,
            notes=notes,
            device="CPU",
        ),
    }
    return Plan(trials, Run(_STUDY, request, tuple(trial.key for trial in trials)), tuple(notes))


def execute(
    planned: Plan,
    store: Store,
    *,
    workers: int | None = None,
    progress: bool = False,
    retry_failed: bool = False,
) -> ComparisonResult:
    """Run what the store doesn't know yet and read the answer from the store."""
    run_request(
        [planned.run],
        planned.trials,
        store,
        Hardware(threads=workers),
        retry_failed=retry_failed,
        progress=progress,
        label="Comparing",
    )
    return ComparisonResult.load(store, planned.run)


def _methods(settings: Settings, own: Sequence[Method]) -> list[Method]:
    from crossfade.lab.methods import DEFAULT_METHODS, METHODS, method
    from crossfade.lab.own_loss import check_loss_function, load_loss

    names = list(settings.methods)
    if names == ["all"]:
        names = [known.name for known in METHODS]
    elif not names and not (own and not settings.loss):
        names = list(DEFAULT_METHODS)
    chosen = [method(name) for name in names] + [load_loss(spec) for spec in settings.loss] + list(own)
    if all(one.name != CONTROL for one in chosen):
        chosen.insert(0, method(CONTROL))
    seen: dict[str, Method] = {}
    for one in chosen:
        if seen.setdefault(one.name, one) is not one:
            raise UserError(f"methods: two different losses are called {one.name!r}; rename one")
    for one in seen.values():
        if one.g is not None and one not in METHODS:
            check_loss_function(one.g)
    if len(seen) < 2:
        raise UserError("methods: only the control 'ce' is left; name another one to compare it with")
    return sorted(seen.values(), key=lambda one: one.name != CONTROL)


def _as_method(given: object) -> Method:
    from crossfade.lab.methods import Method

    if isinstance(given, Method):
        return given
    if not callable(given):
        raise UserError(f"methods: expected names, Method objects or functions g(ce), got {given!r}")
    name = str(getattr(given, "__name__", type(given).__name__)).strip("<>")
    return Method(name, name, g=given)


def _same_schedules(trials: Sequence[Trial]) -> list[str]:
    """Few epochs can make two schedules the same; a comparison of them would look like a tie."""
    seen: dict[str, str] = {}
    notes = []
    for trial in trials:
        if trial.method.g is None:
            epochs = trial.recipe.epochs
            steps = epochs if trial.recipe.granularity == "epoch" else SCHEDULE_GRID
            weights = repr([tuple(trial.method.schedule(step / steps)) for step in range(steps)])
            if weights in seen:
                notes.append(
                    f"{trial.method.name} is the same as {seen[weights]} at {epochs} epochs; "
                    "use more epochs or --granularity step"
                )
            seen.setdefault(weights, trial.method.name)
    return notes
