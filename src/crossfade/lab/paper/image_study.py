"""What the image studies share (Tables 1, 2, 5, 6, motivating example, eq. 20-22): they are data, this is code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from crossfade.errors import UserError
from crossfade.lab.described import describe_run
from crossfade.lab.store import Run
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    from crossfade.lab.data.image_stream import StreamTask
    from crossfade.lab.data.images import ImageTask

__all__ = ["SHORTENED", "Cell", "ImagePlan", "ImageRequest", "ImageStudy", "plan_images", "scaled"]

Scale: TypeAlias = Literal["smoke", "short", "paper"]
MIXTURES = ("ce", "f0", "f0-late", "gradual")
TITLES = {
    "cifar100": "CIFAR-100", "cinic10": "CINIC-10", "tinyimagenet": "Tiny-ImageNet", "imagenet": "ImageNet",
}  # fmt: skip
_CLASSES = {"cifar100": 100, "cinic10": 10, "tinyimagenet": 200, "imagenet": 1000}
# epochs, batch, training images in all, test images of a class (None: all), repeats at most
SHORTENED: dict[str, tuple[int, int, int, int | None, int]] = {
    "smoke": (2, 32, 1_000, 2, 1),
    "short": (9, 64, 4_800, None, 2),
}


@dataclass(frozen=True)
class Cell:
    """One network on one data set: a group of lines in the printed table.

    Args:
        data: Key of the data set.
        recipe: The protocol as printed.
        methods: Names.
        repeats: Seeds.
        paper: Printed accuracy in percent and its spread (None where none is printed), by method.
        label: What tables call it.
    """

    data: str
    recipe: ImageRecipe
    methods: tuple[str, ...]
    repeats: int
    paper: Mapping[str, tuple[float, float | None]]
    label: str


@dataclass(frozen=True)
class ImageStudy:
    """A table of the paper.

    Args:
        name, title: What the command line and pages call it.
        cells: Its groups of lines.
        choices: What the paper leaves open, and how it was chosen here.
        counted: The paper's counts under CE of the groups that ``ImageRecipe.watch`` follows, where it prints them: of
            the first cell.
        any_cell: Other networks and data sets can be asked for, by the first cell's protocol.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    choices: tuple[str, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    any_cell: bool = False


@dataclass(frozen=True)
class ImageRequest:
    """What to run of a study. Empty tuples mean all."""

    study: ImageStudy
    data_dir: Path
    scale: Scale = "paper"
    datasets: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repeats: int | None = None
    epochs: int | None = None
    precision: str = "32-true"
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def label(self) -> str:
        """What tables call the scale: ``"own"`` for the paper's data with another number of epochs."""
        return "own" if self.scale == "paper" and self.epochs is not None else self.scale


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """Trials that can be run, and cells whose data isn't here."""

    request: ImageRequest
    cells: tuple[Cell, ...]
    trials: tuple[Trial, ...]
    run: Run
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """What will be run, for people."""
        request, recipes = self.request, list(dict.fromkeys(trial.recipe for trial in self.trials))
        epochs = sum(trial.recipe.epochs for trial in self.trials)
        head = f"{request.study.name} · {request.study.title}"
        if request.label != "paper":
            head += f" · scale {request.label}, not the paper's protocol"
        lines = [head, f"{len(self.trials)} runs, {epochs:,} epochs in all, {len(recipes)} recipes"]
        for cell in self.cells:
            own = [trial for trial in self.trials if trial.task.name == cell.label]
            recipe, repeats = cast("ImageRecipe", own[0].recipe), 1 + max(trial.repeat for trial in own)
            methods = dict.fromkeys(trial.method.name for trial in own)
            lines.append(
                f"  {cell.label}: {', '.join(methods)} · {repeats} seeds · {recipe.epochs} epochs, "
                f"batch {recipe.batch_size}, rate {recipe.learning_rate:g} falling at "
                f"{', '.join(f'{at:.4g}' for at in recipe.milestones) or 'no epoch'}"
            )
        return lines + [f"  not here: {line}" for line in self.missing]


def scaled(
    cell: Cell, scale: str, repeats: int | None = None, epochs: int | None = None
) -> tuple[ImageRecipe, int | None, int | None, int]:
    """Recipe, training and test images of a class (None: all) and repeats of a cell at a scale.

    A shortened recipe keeps the learning rate, and the place of every fall and phase as a fraction of the training; its
    schedule moves by steps, since 9 epochs are too few for a last 5 %. ``epochs`` takes the place of the scale's own.
    """
    whole = cell.recipe
    if scale == "paper" and epochs is None:
        return whole, None, None, repeats or cell.repeats
    own = (whole.epochs, whole.batch_size, 0, None, cell.repeats)
    of_scale, batch, images, test, most = SHORTENED.get(scale, own)
    count = epochs or of_scale
    recipe = replace(
        whole, epochs=count, batch_size=batch, granularity="step", scale="own" if scale == "paper" else scale,
        milestones=tuple(round(at * count / whole.epochs, 6) for at in whole.milestones),
        watch=min(count - 1, max(1, round(whole.watch * count / whole.epochs))) if whole.watch else 0,
        evaluate=(count,),
    )  # fmt: skip
    each = max(2, images // _CLASSES.get(cell.data, 100)) if images else None
    return recipe, each, test, repeats or min(cell.repeats, most)


def plan_images(request: ImageRequest, command: str | Sequence[str]) -> ImagePlan:
    """Check a request and write it down as trials; data that isn't here is named, and the rest is planned.

    Raises:
        UserError: unknown names, a count out of range, or no data at all.
    """
    from crossfade.lab.methods import method
    from crossfade.lab.paper.image_cells import NotHereError, chosen, methods_of, task_of

    cells = chosen(request)
    tasks: dict[tuple[Any, ...], ImageTask | StreamTask] = {}
    missing: dict[str, str] = {}
    trials: list[Trial] = []
    for cell in cells:
        recipe, each, test, repeats = scaled(cell, request.scale, request.repeats, request.epochs)
        at = (cell.data, cell.label, each, test)
        try:
            tasks[at] = task_of(cell, request.data_dir, each, test, tasks)
        except NotHereError as error:
            missing[cell.data] = str(error)
            continue
        if cell.data not in TITLES:
            recipe = recipe.fitting(len(tasks[at].split(0).train))
        recipe = replace(recipe, precision=request.precision)  # type: ignore[arg-type]
        trials += [
            Trial(request.study.name, tasks[at], method(name, deep=True), recipe, repeat)
            for repeat in range(repeats)
            for name in methods_of(cell, request)
        ]
    if not trials:
        raise UserError(f"{request.study.name}: no data. {'; '.join(missing.values())}")
    meta = describe_run(
        request.study.title, trials, command, scale=request.label, missing=list(missing.values()),
        choices=list(request.study.choices),
    )  # fmt: skip
    run = Run(request.study.name, {"meta": meta, "settings": {"scale": request.label}}, tuple(t.key for t in trials))
    here = tuple(cell for cell in cells if cell.data not in missing)
    return ImagePlan(request, here, tuple(trials), run, tuple(missing.values()))
