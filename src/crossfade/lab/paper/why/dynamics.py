"""Training dynamics on real data: how examples move between wrong and hopeless, wrong and near, and right.

Every trial records p_y of every training example (as it is trained on) and of every test example (after each epoch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from crossfade._transforms import Mixture
from crossfade.diagnostics.dynamics import (
    GROUPS,
    calibration_history,
    forgetting,
    gradient_mass,
    histograms,
    transitions,
)
from crossfade.diagnostics.recorder import Recording, Watcher
from crossfade.lab.checks import Precision
from crossfade.lab.methods import method
from crossfade.lab.paper.why.files import COLOURS, check_scale, chosen_sets
from crossfade.lab.paper.why.watched import Row, arrays_of, cifar, outcome_of, table_task, train_observed, with_unit
from crossfade.lab.store import Outcome
from crossfade.lab.train import Recipe
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.trial import Task, Trial
from crossfade.stats.drawing import new_figure

STUDY = "dynamics"
METHODS = ("ce", "f0", "f0-late", "gradual", "gradual-unit", "el")
_MASS_OF = {"ce": Mixture(1.0, 0.0), "f0": Mixture(1.0, 1.0), "f0.4": Mixture(0.2, 1.0), "el": Mixture(0.0, 1.0)}
_BINS = 10


def plan(
    data_dir: Path | None,
    scale: str,
    methods: Sequence[str] = METHODS,
    only: Sequence[str] = (),
    epochs: int | None = None,
    precision: Precision = "32-true",
) -> list[Trial]:
    """Return the study's trials at a scale: without ``data_dir`` on scikit-learn's sets alone.

    Args:
        data_dir: Holds the UCI sets and CIFAR-100.
        scale: ``smoke`` takes seconds, ``short`` uses a part of CIFAR-100, ``paper`` trains ResNet-32 for 90 epochs.
        only: The names of the data sets, if not all.
        epochs, precision: Of the trainings on CIFAR-100; the scale's number of epochs if None.

    Raises:
        UserError: an unknown scale, method or data set, or missing data.
    """
    check_scale(scale)
    smoke, paper = scale == "smoke", scale == "paper"
    # For CIFAR-100: epochs, batch size, learning rate. For every data set: seeds.
    sizes = {"smoke": (3, 64, 0.05, 1), "short": (27, 64, 0.05, 2), "paper": (90, 128, 0.1, 3)}
    usual, batch, rate, seeds = sizes[scale]
    names = ["wine"] if smoke else ["digits", "breast_cancer"]
    if data_dir is not None and not smoke:
        names += ["statlog-vehicle", "yeast", "wine-quality-red"]
    recipe = Recipe(width=32, epochs=6 if smoke else 45, batch_size=8, learning_rates=(0.01,))
    images = "cifar100" if paper else "cifar100-small"
    there = [*names, *([images] if data_dir is not None else [])]
    wanted = chosen_sets(only, there, f"{STUDY} at scale {scale}", data_dir)
    trained: list[tuple[Task, Recipe | ImageRecipe]] = [
        (table_task(name, data_dir), recipe) for name in names if name in wanted
    ]
    if data_dir is not None and images in wanted:
        trained.append(cifar(data_dir, scale, usual, epochs, precision, batch, rate, falls=(1 / 3, 2 / 3)))
    return [
        Trial(STUDY, task, method(name), how, seed)
        for task, how in trained
        for name in methods
        for seed in range(seeds)
    ]


def compute(trial: Trial, folder: Path) -> Outcome:
    """Train, record p_y of every example in every epoch, and return the tables of what was recorded."""
    recipe, data = trial.recipe, arrays_of(trial)
    if not isinstance(recipe, Recipe | ImageRecipe):
        raise TypeError(f"expected a recipe for tables or images, got {type(recipe).__name__}")
    parts = {"train": (folder / "train", len(data.y)), "test": (folder / "test", len(data.y_test))}
    watcher = Watcher(parts, recipe.epochs, range(recipe.epochs))
    train_observed(trial, recipe, folder, observe=watcher, missing=watcher.missing)
    if missing := watcher.missing(recipe.epochs):
        return Outcome(error=f"{missing} values of p_y weren't recorded; run it again")
    tables: dict[str, list[Row]] = {}
    for part in parts:
        for name, rows in _described(Recording(folder / part), recipe.epochs, part).items():
            tables.setdefault(name, []).extend({"epochs": recipe.epochs, "part": part, **row} for row in rows)
    last = calibration_history(Recording(folder / "test"), epochs=[recipe.epochs - 1])[0]._asdict()
    about = {"learning_rate": recipe.learning_rates[0], "epoch": recipe.epochs, "classes": data.classes}
    return outcome_of({**last, **about, "n_train": len(data.y), "n_test": len(data.y_test)}, tables)


def watched_epoch(epochs: int) -> int:
    """Return the epoch, counted from 0, after which 70/90 of the training is done, as in the motivating example."""
    return max(0, round(epochs * 70 / 90) - 1)


def _described(recording: Recording, epochs: int, part: str) -> dict[str, list[Row]]:
    watch, last = watched_epoch(epochs), epochs - 1
    selected = sorted({0, epochs // 4, epochs // 2, watch, last})  # epochs with histograms
    moves = transitions(recording, watch, last)
    rows: dict[str, list[Row]] = {"transitions": [], "histograms": [], "mass": [], "forgetting": []}
    for i, start in enumerate(GROUPS):
        ends = {f"to {end}": int(moves.counts[i, j]) for j, end in enumerate(GROUPS)}
        rows["transitions"].append({"from": start, "first_epoch": watch + 1, "last_epoch": last + 1, **ends})
    scored = range(epochs) if part == "test" else selected  # all epochs of both parts would take a megabyte
    scores = calibration_history(recording, epochs=scored)
    rows["calibration"] = [{"epoch": epoch + 1, **found._asdict()} for epoch, found in zip(scored, scores, strict=True)]
    counts = histograms(recording, _BINS)
    for epoch in selected:
        rows["histograms"].append({"epoch": epoch + 1, **{f"bin{k}": int(counts[epoch, k]) for k in range(_BINS)}})
        for loss, g in _MASS_OF.items():
            share = gradient_mass(recording, g, epoch, _BINS)
            bins = {f"bin{k}": round(float(share[k]), 4) for k in range(_BINS)}
            rows["mass"].append({"epoch": epoch + 1, "loss": loss, **bins})
    events = forgetting(recording)
    learnt = events.first_learned >= 0
    for count in range(int(events.events.max()) + 1):
        rows["forgetting"].append({"events": str(count), "examples": int((learnt & (events.events == count)).sum())})
    rows["forgetting"].append({"events": "never learnt", "examples": int((~learnt).sum())})
    return rows


def tables(found: Mapping[str, pd.DataFrame], scale: str) -> dict[str, pd.DataFrame]:
    """Return the study's tables from what its trials have stored."""
    return {name: with_unit(table, scale, ["dataset", "method", "seed"]) for name, table in found.items()}


def figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return the study's figures by name, drawn from its tables."""
    return {
        "transitions": _transitions(tables["transitions"]),
        "mass": _mass(tables["mass"]),
        "calibration": _calibration(tables["calibration"]),
    }


def _transitions(table: pd.DataFrame) -> Figure:
    """Draw the share of the wrong and near test examples that are right at the end, over all seeds."""
    near = table[(table["part"] == "test") & (table["from"] == "wrong and near")]
    ends = near.groupby(["dataset", "method"], sort=False)[[f"to {end}" for end in GROUPS]].sum().astype("float64")
    share = (100 * ends["to right"] / ends.sum(axis=1)).unstack("method")
    figure, (axis,) = new_figure(1, width=7.2, height=2.9)
    width = 0.8 / len(share.columns)
    for k, name in enumerate(share.columns):
        axis.bar(np.arange(len(share)) + k * width, share[name], width, label=name, color=COLOURS.get(name))
    labels = [name.replace(", ", "\n").replace(" (", "\n(") for name in share.index]
    axis.set_xticks(np.arange(len(share)) + 0.4 - width / 2, labels, fontsize=7)
    axis.set(ylabel="wrong and near → right, %")
    axis.legend(frameon=False, fontsize=7, ncols=3)
    return figure


def _mass(table: pd.DataFrame) -> Figure:
    dataset = table["dataset"].iloc[-1]
    own = table[(table["dataset"] == dataset) & (table["method"] == "ce") & (table["part"] == "train")]
    bins = [f"bin{k}" for k in range(_BINS)]
    means = own.groupby(["epoch", "loss"], sort=False)[bins].mean().astype("float64")
    epochs = sorted(own["epoch"].unique())
    figure, axes = new_figure(max(1, len(epochs)), share_y=True, height=2.4)
    centres = (np.arange(_BINS) + 0.5) / _BINS
    for axis, epoch in zip(axes, epochs, strict=False):
        for loss in _MASS_OF:
            share = 100 * means.loc[(epoch, loss)]
            axis.plot(centres, share, "o-", ms=2.5, lw=1.2, color=COLOURS[loss], label=loss)
        axis.set(title=f"epoch {epoch}", xlabel="p")
    axes[0].set_ylabel("share of the gradient, %")
    axes[-1].legend(frameon=False, fontsize=7)
    figure.suptitle(f"{dataset}, trained with CE", fontsize=9)
    return figure


def _calibration(table: pd.DataFrame) -> Figure:
    dataset = table["dataset"].iloc[-1]
    own = table[(table["dataset"] == dataset) & (table["part"] == "test")]
    figure, axes = new_figure(4, height=2.2)
    for axis, score in zip(axes, ("accuracy", "nll", "ece", "brier"), strict=True):
        means = own.groupby(["method", "epoch"], sort=False)[score].mean().astype("float64")
        for name in own["method"].unique():
            curve = means.loc[name].sort_index()
            axis.plot(curve.index, curve, lw=1.2, color=COLOURS.get(name), label=name)
        axis.set(title=score, xlabel="epoch")
    axes[0].legend(frameon=False, fontsize=6)
    figure.suptitle(f"{dataset}, test examples", fontsize=9)
    return figure
