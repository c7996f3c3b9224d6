"""Escaping efficiency (eq. 15-18) measured: along real trainings, at minima, on a known landscape; and sharpness.

Six tables:

* ``along``: both sides of (18) for every mixture at the same weights, along trainings on real data;
* ``minima``: the same at stationary points of each mixture, where the derivation wants them, and whether the loss of
  SGD started there rises as eq. (17)'s approximation says;
* ``pair``: the two-example family in which everything is known in closed form;
* ``simulation``: walkers that escape a known sharp minimum, at the same learning rate and at the same noise;
* ``sharpness``, ``slices``: the largest Hessian eigenvalue, and loss slices, around the solutions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeAlias

from torch import nn

from crossfade.diagnostics.simulate import DoubleWell
from crossfade.lab.files import write_text
from crossfade.lab.methods import Method, method
from crossfade.lab.paper.why.measure import MIXTURES, along_rows, minimum_rows, sharpness_rows, slice_rows
from crossfade.lab.paper.why.simulation import WELLS, escape_rows
from crossfade.lab.paper.why.watched import Row, arrays_of, cifar, follow, table_task, watched
from crossfade.lab.store import Outcome
from crossfade.lab.train import Recipe
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Shape, Task, Trial
from crossfade.schedules import Weights

__all__ = ["Along", "Minima", "Simulation", "compute", "plan"]

STUDY = "escape"
_SIMULATED = ("ce", "f0", "f0.2", "f0.4", "f0.4-unit", "el")


@dataclass(frozen=True)
class _Measured:
    """What a trial's key and progress need of a measurement that isn't a training alone."""

    kind: ClassVar[str] = ""
    epochs: ClassVar[int] = 1
    granularity: ClassVar[str] = "epoch"
    learning_rates: ClassVar[tuple[float, ...]] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain data."""
        return {"net": self.kind, **asdict(self)}

    def cost(self, shape: Shape) -> float:
        """Every measurement counts alike: what it takes is mostly independent of the data's size."""
        return 1e12


@dataclass(frozen=True)
class Along(_Measured):
    """A training that is measured at some moments (epochs done).

    Args:
        training: How the network is trained.
        moments: When it is measured; the last is the training's end.
        probes: Random directions of the trace estimates.
        examples: Of the training part, that are measured on.
        slices: Also draw loss slices around the solution.
    """

    training: Recipe | ImageRecipe
    moments: tuple[int, ...]
    probes: int
    examples: int
    slices: bool = False
    kind: ClassVar[str] = "along"

    def to_dict(self) -> dict[str, object]:
        """Plain data."""
        return {**super().to_dict(), "training": self.training.to_dict()}


@dataclass(frozen=True)
class Minima(_Measured):
    """Stationary points of a small smooth network, ``"linear"`` or ``"mlp"``, and SGD started there."""

    network: str
    probes: int
    walkers: int
    kind: ClassVar[str] = "minima"


@dataclass(frozen=True)
class Simulation(_Measured):
    """Walkers on a double well."""

    steps: int
    walkers: int
    kind: ClassVar[str] = "simulation"


_Recipe: TypeAlias = Along | Minima | Simulation


def plan(data_dir: Path | None, scale: str, only: Sequence[str] = ()) -> list[Trial]:
    """Return what is measured at each scale: without ``data_dir`` only on scikit-learn's sets.

    Args:
        data_dir: Holds the UCI sets and CIFAR-100.
        scale: ``smoke`` takes seconds, ``short`` about an hour on one core, ``paper`` uses all of CIFAR-100.
        only: These data sets alone, and ``simulation``.

    Raises:
        UserError: data that isn't there.
    """
    smoke = scale == "smoke"
    trials: list[Trial] = []
    if not only or "simulation" in only:
        size = Simulation(30, 50) if smoke else Simulation(1000, 1000)
        wells = WELLS[1:2] if smoke else WELLS
        trials += [Trial(STUDY, well, _mixture(name), size, 0) for well in wells for name in _SIMULATED]
    names = ["wine"] if smoke else ["iris", "wine", "breast_cancer", "digits"]
    if data_dir is not None and not smoke:
        names += ["statlog-vehicle", "yeast", "wine-quality-red", "contrac", "car", "energy-y1", "tic-tac-toe", "pima"]
    sliced, trained_with = ("wine", ("ce",)) if smoke else ("digits", ("ce", "gradual", "el"))
    moments, probes = ((0, 2), 4) if smoke else ((0, 1, 5, 20, 60), 64)
    training = Recipe(
        width=32, epochs=moments[-1], batch_size=16, learning_rates=(0.05,), momentum=0.0, weight_decay=1e-4
    )
    for name in names:
        if not only or name in only:
            task = table_task(name, data_dir)
            for seed in range(1 if smoke else 2):
                along = Along(training, moments, probes, 2000, slices=seed == 0 and name == sliced)
                trials += [Trial(STUDY, task, method(one), along, seed) for one in trained_with]
            minima = [Minima(kind, probes, 20 if smoke else 400) for kind in ("linear", "mlp")]
            trials += [Trial(STUDY, task, method("ce"), recipe, 0) for recipe in minima]
    if data_dir is not None and (not only or "cifar100" in only):
        task, along = _images(data_dir, smoke, scale == "paper")
        trials += [Trial(STUDY, task, method(one), along, 0) for one in trained_with if one != "el"]
    return trials


def _images(data_dir: Path, smoke: bool, paper: bool) -> tuple[Task, Along]:
    moments = (0, 2) if smoke else (0, 10, 30, 60, 90) if paper else (0, 3, 12, 24)
    classes, per_class, pixels = (4, 20, 8) if smoke else (100, 500, 32) if paper else (20, 250, 16)
    recipe = ImageRecipe(
        net="resnet32" if paper else "resnet8",
        epochs=moments[-1],
        batch_size=64,
        learning_rate=0.05,
        milestones=(),
        augment=Augment(crop=pixels // 8),
        granularity="epoch",
        scale="paper" if paper else "own",
    )
    task = cifar(data_dir, classes=classes, per_class=per_class, pixels=pixels, net=recipe.net)
    return task, Along(recipe, moments, 4 if smoke else 16, 256, slices=True)


def _mixture(name: str) -> Method:
    """Return one of ``MIXTURES`` as a method whose weights never move."""
    return Method(name, name, schedule=partial(_fixed, MIXTURES[name]))


def _fixed(weights: Weights, progress: float) -> Weights:
    return weights


def compute(trial: Trial, folder: Path) -> Outcome:
    """Measure what the trial's recipe says."""
    recipe = trial.recipe
    if isinstance(recipe, Along):
        return _along(trial, recipe, folder)
    if isinstance(recipe, Minima):
        rows: Sequence[Row] = list(minimum_rows(arrays_of(trial), recipe.network, recipe.probes, recipe.walkers))
        return watched({}, {"minima": rows})
    well = trial.task.split(trial.repeat)
    if isinstance(recipe, Simulation) and isinstance(well, DoubleWell):
        return watched({}, {"simulation": list(escape_rows(well, trial.method.name, recipe.steps, recipe.walkers))})
    raise TypeError(f"a {type(recipe).__name__} can't be measured on a {type(well).__name__}")


def _along(trial: Trial, recipe: Along, folder: Path) -> Outcome:
    data, known = arrays_of(trial), folder / "measured.json"
    tables: dict[str, list[Row]] = json.loads(known.read_text()) if known.exists() else {"along": []}
    measured = {row["epoch"] for row in tables["along"]}

    def look(done: int, net: nn.Module) -> None:
        if done not in recipe.moments or done in measured:
            return
        rows = along_rows(net, data, recipe.examples, recipe.probes, trial.repeat)
        tables["along"] += [{"epoch": done, **row} for row in rows]
        if done == recipe.moments[-1]:
            tables["sharpness"] = list(sharpness_rows(net, data, recipe.examples))
            if recipe.slices:
                tables["slices"] = list(slice_rows(net, data, recipe.examples))
        folder.mkdir(parents=True, exist_ok=True)  # an image network's training goes on from its checkpoint there
        write_text(known, json.dumps(tables), "measurements")

    follow(trial, recipe.training, folder, look=look)
    shutil.rmtree(folder)
    last = tables["sharpness"][0]
    about = {"accuracy": last["test_accuracy"], "nll": last["test_ce"], "epoch": recipe.moments[-1]}
    sizes = {"n_train": len(data.y), "n_test": len(data.y_test), "classes": data.classes}
    return watched({**about, "learning_rate": recipe.training.learning_rates[0], **sizes}, tables)
