"""A study of the paper, a request for it, and the plan of trials that the request becomes."""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args

from crossfade.errors import UserError
from crossfade.lab.checks import check_choice, check_count
from crossfade.lab.hardware import check_trials
from crossfade.lab.methods import MIXTURES, Method, method
from crossfade.lab.provenance import describe_run
from crossfade.lab.store import Run, Store
from crossfade.lab.train.executor import Family
from crossfade.lab.train.tables.recipe import Recipe as TableRecipe
from crossfade.lab.trial import Json, Recipe, Task, Trial

Scale: TypeAlias = Literal["smoke", "short", "paper"]
_UNPRINTED = ("momentum", "precision", "accumulate")  # not printed, where a study leaves them to the request

# Every study's title and choices, its cells, and the paper's numbers.
DEFINED: dict[str, Json] = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))

R = TypeVar("R", bound=Recipe)
D = TypeVar("D")


class NotHereError(Exception):
    """An error for data that isn't in the data folder, which doesn't prevent the other cells."""


@dataclass(frozen=True)
class Cell(Generic[R]):
    """One network on one data set: a group of lines in the printed table.

    Args:
        data, net: The names in ``--datasets`` and ``--nets``.
        recipe, repeats: The printed protocol and its number of seeds.
        label: The cell's name in results.
        paper: The printed accuracy in percent and its standard deviation (None if none is printed), by method.
        title: The cell's name in the printed table, if it isn't the label.
    """

    data: str
    net: str
    recipe: R
    repeats: int
    label: str
    paper: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    methods: tuple[str, ...] = MIXTURES
    title: str = ""


def by_method(
    methods: Sequence[str], printed: Sequence[float | Sequence[float]]
) -> dict[str, tuple[float, float | None]]:
    """Return the printed accuracy of each method and its standard deviation, None if there is only the accuracy."""
    pairs = [(value, None) if isinstance(value, float) else (value[0], value[1]) for value in printed]
    return dict(zip(methods, pairs, strict=False))


@dataclass(frozen=True)
class Request:
    """The part of a study to run. An empty tuple or None means the study's own value.

    Args:
        scale: ``"paper"`` for the printed protocol, or a shortened one.
        losses: The user's own losses, in addition to the methods.
        validation: Share of the training examples that are set aside to fit a temperature, where the protocol trains on
            all of them.
        recipe: Values for other fields of the recipes, by name.

    Raises:
        UserError: an unknown scale, a number below 1, or a share outside (0, 0.5).
    """

    data_dir: Path
    scale: Scale = "paper"
    datasets: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    losses: tuple[Method, ...] = ()
    repeats: int | None = None
    epochs: int | None = None
    validation: float | None = None
    recipe: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("--scale", self.scale, get_args(Scale))
        for option, count in (("--repeats", self.repeats), ("--epochs", self.epochs)):
            if count is not None:
                check_count(option, count)
        if self.validation is not None and not 0 < self.validation < 0.5:
            raise UserError(f"--validation must be a share between 0 and 0.5, got {self.validation:g}")

    @property
    def division(self) -> Json:
        """What a task is given to set the validation part aside; nothing where the protocol's division is kept."""
        return {} if self.validation is None else {"select": "validation", "test_size": self.validation}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a page says about the validation part."""
        if self.validation is None:
            return ()
        share = f"{100 * self.validation:g} % of the training examples"
        return (f"not the paper's protocol: {share} fit a temperature, and no weights",)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cell prepared for a request.

    Args:
        tasks: Its data sets: one, except for Table 4.
        repeats: The numbers of the repeats.
        about: Data and protocol in a few words.
        notes: Facts about the data that a reader should know.
        missing: The cell's data sets that aren't here.
    """

    label: str
    tasks: tuple[Task, ...]
    recipe: Recipe
    repeats: tuple[int, ...]
    about: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """A request that is ready to run: its data is loaded, but nothing is trained yet.

    Args:
        trials: The trials in the order of training.
        lines: A summary of the plan for the terminal.
        used: What is trained how, with the request's options.
        notes: Facts about the data that a reader should know, and requested data that isn't here.
    """

    name: str
    title: str
    scale: str
    trials: tuple[Trial, ...]
    runs: tuple[Run, ...]
    lines: tuple[str, ...]
    used: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The keys of all trials."""
        return [trial.key for trial in self.trials]


@dataclass(frozen=True)
class Study(ABC, Generic[R, D]):
    """A table or a figure of the paper for which networks are trained.

    Args:
        name, title: Its names on the command line and on pages.
        choices: The choices made here that the paper leaves open.
    """

    name: str
    title: str
    cells: tuple[Cell[R], ...]
    choices: tuple[str, ...] = ()

    nets_option: ClassVar[str] = "--nets"
    # By scale: what differs in the recipes, and the number of seeds.
    shortened: ClassVar[Mapping[str, tuple[Json, int]]] = {}

    @abstractmethod
    def load(self, data: str, request: Request) -> D:
        """Read the data set with this name.

        Raises:
            NotHereError: it isn't here.
        """

    @abstractmethod
    def prepare(self, cell: Cell[R], data: D, request: Request) -> Prepared:
        """Return the cell's tasks and recipe at the request's scale."""

    @abstractmethod
    def write(self, store: Store, planned: Plan, report: Path) -> str:
        """Write the page of a plan's results, of which there must be some, and return it as text."""

    def protocol(self, cell: Cell[R], request: Request) -> tuple[R, int]:
        """Return the cell's recipe and number of seeds at the request's scale."""
        recipe: Any = cell.recipe
        changes, repeats = self.shortened.get(request.scale, ({}, cell.repeats))
        scale = {"scale": request.scale} if changes and hasattr(recipe, "scale") else {}
        epochs = {"epochs": request.epochs} if request.epochs else {}
        return replace(recipe, **{**changes, **scale, **epochs, **request.recipe}), request.repeats or repeats

    @property
    def family(self) -> Family | None:
        """What computes the trials, if that isn't the training of their recipe."""
        return None

    def scale_label(self, request: Request) -> str:
        """Return the name of the request's scale in tables: ``"own"`` for the paper's data by another recipe."""
        first, given = self.cells[0].recipe, request.recipe.items()
        changed = any(getattr(first, name) != value for name, value in given if name not in _UNPRINTED)
        own = request.scale == "paper" and (changed or request.epochs not in (None, first.epochs))
        return "own" if own else request.scale

    def chosen(self, request: Request) -> list[Cell[R]]:
        """Return the requested cells.

        Raises:
            UserError: an unknown name, or no such cell.
        """
        all_data, all_nets = [cell.data for cell in self.cells], [cell.net for cell in self.cells]
        check_known("--datasets", request.datasets, all_data, self.name)
        check_known(self.nets_option, request.nets, all_nets, self.name)
        datasets, nets = request.datasets or all_data, request.nets or all_nets
        found = [cell for cell in self.cells if cell.data in datasets and cell.net in nets]
        if not found:
            raise UserError(f"{self.name}: no such network on such a data set; leave out --nets or --datasets")
        return found

    def methods(self, cell: Cell[R], request: Request) -> list[Method]:
        """Return the methods to train a cell with; CE, the control, comes first.

        Raises:
            UserError: an unknown name.
        """
        names = dict.fromkeys(["ce", *(request.methods or cell.methods)])
        tables = isinstance(cell.recipe, TableRecipe)
        return [*(method(name, tables=tables) for name in names), *request.losses]

    def runs(self, request: Request, parts: Sequence[tuple[Prepared, Sequence[Trial]]], meta: Json) -> list[Run]:
        """Return the request as the store keeps it: one run of all its parts, described by ``meta``."""
        keys = tuple(trial.key for _, trials in parts for trial in trials)
        return [Run(self.name, {"meta": meta, "settings": {"scale": meta["scale"]}}, keys)]


def check_known(option: str, wanted: Sequence[str], known: Sequence[str], where: str, more: str = "") -> None:
    """Raise UserError if one of the ``wanted`` names isn't known."""
    if unknown := sorted(set(wanted) - set(known)):
        there = ", ".join(sorted(set(known)))
        raise UserError(f"{option}: {unknown[0]!r} isn't in {where} (there are {there}{more})")


def plan(study: Study[R, D], request: Request, command: str | Sequence[str], *, to_run: bool = True) -> Plan:
    """Return the plan of a request; cells without data are left out and named in its notes.

    Args:
        to_run: Refuse a request of which nothing can be run.

    Raises:
        UserError: an unknown name, unusable settings, or no data at all.
    """
    lines: list[str] = []
    loaded: dict[str, D] = {}
    absent: dict[str, str] = {}
    parts: list[tuple[Prepared, list[Trial]]] = []
    check_trials(request.repeats or 1)  # before there is a number for each
    for cell in study.chosen(request):
        methods = study.methods(cell, request)
        if cell.data not in loaded and cell.data not in absent:
            try:
                loaded[cell.data] = study.load(cell.data, request)
            except NotHereError as error:
                absent[cell.data] = str(error)
        if cell.data in loaded:
            ready = study.prepare(cell, loaded[cell.data], request)
            check_trials(len(ready.tasks) * len(ready.repeats) * len(methods))
            pairs = [(task, repeat) for task in ready.tasks for repeat in ready.repeats]
            trials = [Trial(study.name, task, one, ready.recipe, repeat) for task, repeat in pairs for one in methods]
            parts.append((ready, trials))
            label, repeats, about = ready.label, len(ready.repeats), ready.about
        else:
            recipe, repeats = study.protocol(cell, request)
            label, about = cell.label, f"{recipe.epochs} epochs · its data isn't here"
        lines.append(f"  {label}: {', '.join(one.name for one in methods)} · repeats: {repeats} · {about}")
    whole = tuple(trial for _, trials in parts for trial in trials)
    if to_run and not whole:
        raise UserError(f"{study.name}: no data. {'; '.join(absent.values())}")
    notes = list(dict.fromkeys(note for ready, _ in parts for note in ready.notes))
    missing = list(dict.fromkeys([*absent.values(), *(name for ready, _ in parts for name in ready.missing)]))
    scale = study.scale_label(request)
    epochs = sum(trial.recipe.epochs * len(trial.recipe.learning_rates) for trial in whole)
    lines = [
        f"{study.name} · {study.title}" + ("" if scale == "paper" else f" · scale {scale}, not the paper's protocol"),
        f"runs: {len(whole):,} · epochs: {epochs:,} · recipes: {len({trial.recipe for trial in whole})}",
        *lines,
        *(f"  note: {note}" for note in notes),
        *([f"  not here: {' · '.join(missing)}"] if missing else []),
    ]
    runs: list[Run] = []
    if whole:
        meta = describe_run(study.title, whole, command, notes=[*notes, *study.choices], scale=scale, missing=missing)
        runs = study.runs(request, parts, meta)
    used = [f"{ready.label}: {ready.about}" for ready, _ in parts]
    if len(alike := {ready.about for ready, _ in parts}) == 1:
        used = [*alike]
    trained = tuple(f"trained here: {about}" for about in used)
    return Plan(study.name, study.title, scale, whole, tuple(runs), tuple(lines), trained, (*notes, *missing))
