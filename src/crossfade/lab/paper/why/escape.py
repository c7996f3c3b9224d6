"""Measurements of escaping efficiency (eq. 15-18) in real trainings, at minima and on a known landscape.

Six tables:

* ``along``: both sides of (18) for every mixture at the same weights, along trainings on real data;
* ``minima``: the same at stationary points of each mixture, as the derivation assumes, and how the loss of SGD that
  starts there rises compared with eq. (17)'s approximation;
* ``pair``: the two-example family in which everything is known in closed form;
* ``simulation``: how many walkers escape a known sharp minimum, at the same learning rate and at the same noise;
* ``sharpness``, ``slices``: the largest Hessian eigenvalue, and loss slices, around the solutions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pandas as pd
from torch import nn

from crossfade.diagnostics.simulate import DoubleWell
from crossfade.lab.files import write_text
from crossfade.lab.methods import Method, method
from crossfade.lab.paper.why.files import check_scale
from crossfade.lab.paper.why.measure import MIXTURES, along_rows, minimum_rows, sharpness_rows, slice_rows
from crossfade.lab.paper.why.simulation import WELLS, escape_rows, pair_rows
from crossfade.lab.paper.why.watched import Row, arrays_of, cifar, follow, outcome_of, table_task, with_unit
from crossfade.lab.store import Outcome
from crossfade.lab.train import Recipe
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.trial import Shape, Trial
from crossfade.schedules import Weights

STUDY = "escape"
TITLE = "Escaping efficiency, eq. (15) to (18)"
CAPTIONS = {
    "along": "Tr(HΣ) of each mixture over CE's at the same weights.",
    "pair": "The pair of examples in closed form: the gain, the printed and the derived bound.",
    "simulation": "Walkers that left the sharp minimum.",
    "slices": "Loss slices around the solutions.",
    "rise": "The measured rise of the loss against its prediction.",
}
_SIMULATED = ("ce", "f0", "f0.2", "f0.4", "f0.4-unit", "el")


@dataclass(frozen=True)
class _Measured:
    """The recipe of a measurement, with what a trial's key and progress need."""

    kind: ClassVar[str] = ""
    epochs: ClassVar[int] = 1
    granularity: ClassVar[str] = "epoch"
    learning_rates: ClassVar[tuple[float, ...]] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the recipe as plain data, which the trial's key is made of."""
        return {"net": self.kind, **asdict(self)}

    def cost(self, shape: Shape) -> float:
        """Return a constant, as the time hardly depends on the data's size."""
        return 1e12


@dataclass(frozen=True)
class Along(_Measured):
    """A training with measurements after some epochs.

    Args:
        moments: The numbers of finished epochs at which it is measured; the last one is the end.
        probes, examples: The numbers of random directions for estimates of traces, and of training examples used.
        slices: Whether to compute loss slices around the solution.
    """

    training: Recipe | ImageRecipe
    moments: tuple[int, ...]
    probes: int
    examples: int
    slices: bool = False
    kind: ClassVar[str] = "along"

    def to_dict(self) -> dict[str, object]:
        """Return the recipe as plain data, the training's own included."""
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


def plan(data_dir: Path | None, scale: str, only: Sequence[str] = ()) -> list[Trial]:
    """Return the study's trials at a scale: without ``data_dir`` on scikit-learn's sets alone.

    Args:
        data_dir: Holds the UCI sets and CIFAR-100.
        scale: ``smoke`` takes seconds, ``short`` about an hour on one core, ``paper`` uses all of CIFAR-100.
        only: The names of the data sets and ``simulation``, if not all.

    Raises:
        UserError: an unknown scale, or missing data.
    """
    check_scale(scale)
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
            for network in ("linear", "mlp"):
                trials.append(Trial(STUDY, task, method("ce"), Minima(network, probes, 20 if smoke else 400), 0))
    if data_dir is not None and (not only or "cifar100" in only):
        watched_epochs = {"smoke": (0, 2), "short": (0, 3, 12, 24), "paper": (0, 10, 30, 60, 90)}[scale]
        images, recipe = cifar(data_dir, scale, epochs=watched_epochs[-1], batch_size=64, learning_rate=0.05)
        along = Along(recipe, watched_epochs, 4 if smoke else 16, 256, slices=True)
        trials += [Trial(STUDY, images, method(one), along, 0) for one in trained_with if one != "el"]
    return trials


def _mixture(name: str) -> Method:
    """Return one of ``MIXTURES`` as a method with constant weights."""
    return Method(name, name, schedule=partial(_fixed, MIXTURES[name]))


def _fixed(weights: Weights, progress: float) -> Weights:
    return weights


def compute(trial: Trial, folder: Path) -> Outcome:
    """Return the measurements of the trial's recipe."""
    recipe = trial.recipe
    if isinstance(recipe, Along):
        return _along(trial, recipe, folder)
    if isinstance(recipe, Minima):
        rows: Sequence[Row] = list(minimum_rows(arrays_of(trial), recipe.network, recipe.probes, recipe.walkers))
        return outcome_of({}, {"minima": rows})
    well = trial.task.split(trial.repeat)
    if isinstance(recipe, Simulation) and isinstance(well, DoubleWell):
        return outcome_of({}, {"simulation": list(escape_rows(well, trial.method.name, recipe.steps, recipe.walkers))})
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
        folder.mkdir(parents=True, exist_ok=True)  # an image network's training resumes from its checkpoint there
        write_text(known, json.dumps(tables), "measurements")

    follow(trial, recipe.training, folder, look=look)
    shutil.rmtree(folder)
    last = tables["sharpness"][0]
    about = {"accuracy": last["test_accuracy"], "nll": last["test_ce"], "epoch": recipe.moments[-1]}
    sizes = {"n_train": len(data.y), "n_test": len(data.y_test), "classes": data.classes}
    return outcome_of({**about, "learning_rate": recipe.training.learning_rates[0], **sizes}, tables)


def tables(found: Mapping[str, pd.DataFrame], scale: str) -> dict[str, pd.DataFrame]:
    """Return the study's tables from what its trials have stored."""
    made = {name: table.rename(columns={"method": "trained_with"}) for name, table in found.items()}
    trial = ["dataset", "trained_with", "seed"]
    units = {
        "along": [*trial, "epoch"],
        "minima": ["dataset", "network"],
        "simulation": ["well", "mixture"],
        "pair": [],
    }
    if "minima" in made:
        made["minima"] = made["minima"].drop(columns=["trained_with", "seed"])
    if "simulation" in made:
        names = {"dataset": "well", "trained_with": "mixture"}
        made["simulation"] = made["simulation"].rename(columns=names).drop(columns="seed")
        made["pair"] = pd.DataFrame(list(pair_rows()))
    return {name: with_unit(table, scale, units.get(name, trial)) for name, table in made.items()}
