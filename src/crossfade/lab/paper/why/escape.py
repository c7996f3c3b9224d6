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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from crossfade.diagnostics.simulate import DoubleWell
from crossfade.lab.checks import Precision
from crossfade.lab.files import write_bytes
from crossfade.lab.methods import Method, method
from crossfade.lab.paper.why.files import COLOURS, check_scale, chosen_sets
from crossfade.lab.paper.why.measure import MIXTURES, SELECTED, along_rows, minimum_rows, sharpness_rows, slice_rows
from crossfade.lab.paper.why.simulation import WELLS, escape_rows, pair_rows
from crossfade.lab.paper.why.watched import Row, arrays_of, cifar, outcome_of, table_task, train_observed, with_unit
from crossfade.lab.store import Outcome
from crossfade.lab.train import Recipe
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.trial import Shape, Trial
from crossfade.schedules import fixed
from crossfade.stats.drawing import new_figure

STUDY = "escape"


@dataclass(frozen=True)
class _Measured:
    """The recipe of a measurement, with what a trial's key and progress need."""

    kind: ClassVar[str] = ""
    epochs: ClassVar[int] = 1
    granularity: ClassVar[str] = "epoch"
    learning_rates: ClassVar[tuple[float, ...]] = ()

    def to_dict(self) -> dict[str, object]:
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


def plan(
    data_dir: Path | None,
    scale: str,
    only: Sequence[str] = (),
    epochs: int | None = None,
    precision: Precision = "32-true",
) -> list[Trial]:
    """Return the study's trials at a scale: without ``data_dir`` on scikit-learn's sets alone.

    Args:
        data_dir: Holds the UCI sets and CIFAR-100.
        scale: ``smoke`` takes seconds, ``short`` about an hour on one core, ``paper`` uses all of CIFAR-100.
        only: The names of the data sets and ``simulation``, if not all.
        epochs, precision: Of the trainings on CIFAR-100; the scale's number of epochs if None.

    Raises:
        UserError: an unknown scale or data set, or missing data.
    """
    check_scale(scale)
    smoke = scale == "smoke"
    trials: list[Trial] = []
    names = ["wine"] if smoke else ["iris", "wine", "breast_cancer", "digits"]
    if data_dir is not None and not smoke:
        names += ["statlog-vehicle", "yeast", "wine-quality-red", "contrac", "car", "energy-y1", "tic-tac-toe", "pima"]
    there = ["simulation", *names, *(["cifar100"] if data_dir is not None else [])]
    wanted = chosen_sets(only, there, f"{STUDY} at scale {scale}", data_dir)
    if "simulation" in wanted:
        size = Simulation(30, 50) if smoke else Simulation(1000, 1000)
        wells = WELLS[1:2] if smoke else WELLS
        trials += [Trial(STUDY, well, _mixture(name), size, 0) for well in wells for name in SELECTED]
    sliced, trained_with = ("wine", ("ce",)) if smoke else ("digits", ("ce", "gradual", "el"))
    moments, probes = ((0, 2), 4) if smoke else ((0, 1, 5, 20, 60), 64)
    training = Recipe(
        width=32, epochs=moments[-1], batch_size=16, learning_rates=(0.05,), momentum=0.0, weight_decay=1e-4
    )
    for name in names:
        if name in wanted:
            task = table_task(name, data_dir)
            for seed in range(1 if smoke else 2):
                along = Along(training, moments, probes, 2000, slices=seed == 0 and name == sliced)
                trials += [Trial(STUDY, task, method(one), along, seed) for one in trained_with]
            for network in ("linear", "mlp"):
                trials.append(Trial(STUDY, task, method("ce"), Minima(network, probes, 20 if smoke else 400), 0))
    if data_dir is not None and "cifar100" in wanted:
        usual = {"smoke": (0, 2), "short": (0, 3, 12, 24), "paper": (0, 10, 30, 60, 90)}[scale]
        images, recipe = cifar(data_dir, scale, usual[-1], epochs, precision, batch_size=64, learning_rate=0.05)
        watched_epochs = tuple(sorted({round(moment * recipe.epochs / usual[-1]) for moment in usual}))
        recipe = replace(recipe, evaluate=(recipe.epochs,))
        probes = {"smoke": 4, "short": 16, "paper": 8}[scale]  # one of ResNet-32 takes a core most of a minute
        along = Along(recipe, watched_epochs, probes, 256, slices=True)
        trials += [Trial(STUDY, images, method(one), along, 0) for one in trained_with if one != "el"]
    return trials


def _mixture(name: str) -> Method:
    """Return one of ``MIXTURES`` as a method with constant weights."""
    return Method(name, name, schedule=fixed(*MIXTURES[name]))


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
    try:
        tables: dict[str, list[Row]] = json.loads(known.read_text())
        measured = {row["epoch"] for row in tables["along"]}
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # nothing yet, or nothing that could be used
        tables, measured = {"along": []}, set()

    def look(done: int, net: nn.Module) -> None:
        if done not in recipe.moments or done in measured:
            return
        rows = along_rows(net, data, recipe.examples, recipe.probes, trial.repeat)
        tables["along"] += [{"epoch": done, **row} for row in rows]
        if done == recipe.moments[-1]:
            tables["sharpness"] = list(sharpness_rows(net, data, recipe.examples))
            if recipe.slices:
                tables["slices"] = list(slice_rows(net, data, recipe.examples))
        write_bytes(known, json.dumps(tables).encode(), "measurements", folder=True)

    def missing(epochs: int) -> int:
        return len({moment for moment in recipe.moments if moment <= epochs} - measured)

    train_observed(trial, recipe.training, folder, look=look, missing=missing)
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


def figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return the figures by name, for the tables that exist."""
    makers = {
        "along": ("along", _draw_along),
        "pair": ("pair", _draw_pair),
        "simulation": ("simulation", _draw_simulation),
        "slices": ("slices", _draw_slices),
        "rise": ("minima", _draw_rise),
    }
    return {name: draw(tables[table]) for name, (table, draw) in makers.items() if table in tables}


def _draw_along(table: pd.DataFrame) -> Figure:
    """Draw Tr(H Sigma) over CE's at the same weights, for the same learning rate and for the same noise."""
    product = table.pivot(index="unit", columns="mixture", values="tr_h_sigma").astype("float64")
    ratios = product.div(product["ce"], axis=0)
    matched = table.pivot(index="unit", columns="mixture", values="matched_ratio").astype("float64")
    names = [name for name in table["mixture"].unique() if name != "ce"]
    figure, axes = new_figure(2)
    for axis, values in zip(axes, (ratios, matched), strict=True):
        finite = [values[name][np.isfinite(values[name])] for name in names]
        axis.boxplot(finite, showfliers=False, widths=0.6, medianprops={"color": COLOURS["f0"]})
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set_xticks(range(1, len(names) + 1), names, rotation=60, fontsize=7)
    axes[0].set(ylabel="Tr(HΣ), in CE's", title="same learning rate")
    axes[0].set_yscale("symlog", linthresh=0.1)
    axes[1].set(title="at CE's noise Tr(Σ)")
    return figure


def _draw_pair(table: pd.DataFrame) -> Figure:
    figure, axes = new_figure(3, height=2.5)
    lines = (("gain", COLOURS["f0"], "-"), ("printed_bound", COLOURS["f0.4"], "--"), ("derived_bound", "black", ":"))
    for axis, name in zip(axes, ("f0", "f0.2", "f0.4"), strict=True):
        own = table[table["mixture"] == name]
        for column, colour, style in lines:
            axis.plot(own["p"], own[column], style, color=colour, lw=1.5, label=column)
        no_minimum = own["p"][~own["is_minimum"].astype("bool")]
        axis.axvspan(0, no_minimum.max() if len(no_minimum) else 0, color="0.93")
        axis.set(title=f"{name}, β = {own['beta'].iloc[0]:.3g}", xlabel="p", xlim=(0, 1))
    axes[0].legend(frameon=False, fontsize=7)
    axes[0].set_ylabel("difference in Tr(HΣ)")
    return figure


def _draw_simulation(table: pd.DataFrame) -> Figure:
    wells, rates = list(table["well"].unique()), sorted(table["rate"].unique())
    figure, axes = new_figure(len(wells), 2, share_y=True, height=2.3)
    for place, axis in enumerate(axes):
        matched, well = place >= len(wells), wells[place % len(wells)]
        own = table[(table["well"] == well) & (table["matched"] == matched) & (table["kind"] == "sgd")]
        for name in ("ce", "f0", "f0.2", "f0.4", "el"):
            line = own[own["mixture"] == name]
            axis.plot(
                line["rate"], 100 * line["escaped"] / line["walkers"], "o-", ms=3, color=COLOURS[name], label=name
            )
        axis.set(title=f"{well}, {'same noise' if matched else 'same rate'}", xscale="log")
        axis.title.set_fontsize(8)
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        if matched:
            axis.set_xlabel("learning rate (CE's)")
        if place % len(wells) == 0:
            axis.set_ylabel("escaped, %")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _draw_slices(table: pd.DataFrame) -> Figure:
    """Draw 1-D and 2-D slices of CE around the solutions of CE and the gradual mixture, on the last data set."""
    dataset = table["dataset"].iloc[-1]
    own = table[(table["dataset"] == dataset) & (table["seed"] == 0) & (table["loss"] == "ce")]
    names = list(own["trained_with"].unique())[:2]
    figure, axes = new_figure(len(names) + 1, height=2.6)
    planes = {}
    for name in names:
        mine = own[own["trained_with"] == name]
        line = mine[mine["t"].isna()]
        axes[0].plot(line["s"].astype(float), line["value"].astype(float), color=COLOURS.get(name), label=name)
        planes[name] = mine[mine["t"].notna()].pivot(index="s", columns="t", values="value").astype("float64")
    axes[0].set(xlabel="s", ylabel="CE", title="one direction", yscale="log")
    axes[0].legend(frameon=False, fontsize=7)
    heights = np.concatenate([plane.to_numpy().ravel() for plane in planes.values()])
    levels = np.geomspace(max(heights.min(), 1e-4), heights.max(), 12)
    for axis, (name, plane) in zip(axes[1:], planes.items(), strict=True):
        steps = plane.index.astype(float)
        drawn = axis.contour(steps, steps, plane.to_numpy().T, levels=levels, cmap="viridis", linewidths=0.9)
        axis.clabel(drawn, fontsize=5)
        axis.set(title=f"trained with {name}", xlabel="s", ylabel="t")
    figure.suptitle(str(dataset), fontsize=9)
    return figure


def _draw_rise(table: pd.DataFrame) -> Figure:
    """Draw the measured rise of the loss over (eta t / 2) Tr(H Sigma) after 1, 10 and 50 steps."""
    figure, (axis,) = new_figure(width=4.2, height=2.8)
    for step, marker in ((1, "o"), (10, "s"), (50, "^")):
        label = f"{step} step{'s' * (step > 1)}"
        axis.plot(predicted_rise(table, step), table[f"rise{step}"], marker, ms=3, alpha=0.7, label=label)
    low, high = axis.get_xlim()
    ends = [max(low, 1e-8), max(high, 1e-7)]
    axis.plot(ends, ends, color="0.5", lw=0.8)
    axis.set(xlabel="(ηt/2) Tr(HΣ) at the minimum", ylabel="measured rise of the loss", xscale="log", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    return figure


def predicted_rise(table: pd.DataFrame, step: int) -> pd.Series[float]:
    """Return (eta t / 2) Tr((H + ridge) Sigma) with t = eta * steps, for each row; Sigma is that of batches of m."""
    product = table["tr_h_sigma"] + table["ridge"] * table["tr_sigma"]
    return table["sgd_rate"] ** 2 * step * product / table["sgd_batch"] / 2
