"""The motivating example on real runs: who moves from wrong-and-hopeless, wrong-and-near and right to what.

Every run records p_y of every training example (as it is trained on) and of every test example (after each epoch).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from crossfade.diagnostics.dynamics import (
    GROUPS,
    calibration_history,
    forgetting,
    gradient_mass,
    histograms,
    transitions,
)
from crossfade.diagnostics.recorder import ProbabilityRecorder, Recording
from crossfade.lab.methods import method
from crossfade.lab.paper.why_tables import COLOURS, Progress, Row, Table, check_scale, figure, save, write_provenance
from crossfade.lab.paper.why_training import Problem, cifar, epochs_of, tabular

__all__ = ["METHODS", "Plan", "became_right", "draw", "plans", "run"]

METHODS = ("ce", "f0", "f0-late", "gradual", "gradual-unit", "el")
_TABLES = ("transitions", "calibration", "histograms", "forgetting", "mass")
_BINS = 10


@dataclass(frozen=True)
class Plan:
    """A data set with the way it is trained. ``watch`` is the motivating example's epoch 70 of 90."""

    load: Callable[[], Problem]
    name: str
    epochs: int
    learning_rate: float
    batch_size: int
    momentum: float
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = ()
    seeds: int = 3

    @property
    def watch(self) -> int:
        """The epoch, counted from 0, after which 70/90 of the training is done."""
        return max(0, round(self.epochs * 70 / 90) - 1)


def plans(data_dir: Path | None, scale: str) -> list[Plan]:
    """What is trained at each scale: without ``data_dir`` only scikit-learn's sets."""
    smoke, paper = scale == "smoke", scale == "paper"
    epochs, seeds = (6, 1) if smoke else (45, 3 if paper else 2)

    def table(name: str) -> Plan:
        return Plan(lambda: tabular(name, data_dir), name, epochs, 0.01, 8, 0.9, seeds=seeds)

    chosen = [table("wine")] if smoke else [table("digits"), table("breast_cancer")]
    if data_dir is None:
        return chosen
    if not smoke:
        chosen += [table(name) for name in ("statlog-vehicle", "yeast", "wine-quality-red")]
    if paper:
        sizes = {"classes": 100, "per_class": 500, "pixels": 32, "depth": 32}
    else:
        sizes = {"classes": 20, "per_class": 250, "pixels": 16, "depth": 8}
    if smoke:
        sizes |= {"classes": 4, "per_class": 20, "pixels": 8}
    images = Plan(
        lambda: cifar(data_dir, **sizes), "cifar100" if paper else "cifar100-small", 90 if paper else 27,
        0.1 if paper else 0.05, 128 if paper else 64, 0.9, 1e-4, (1 / 3, 2 / 3), seeds,
    )  # fmt: skip
    if smoke:
        images = replace(images, epochs=3)
    return [*chosen, images]


def run(
    out: Path,
    data_dir: Path | None = None,
    scale: str = "short",
    *,
    methods: tuple[str, ...] = METHODS,
    only: tuple[str, ...] = (),
    on_progress: Progress | None = None,
) -> Path:
    """Train with a recorder and write the tables and figures into ``out``; returns ``out``. Resumes, in mid-run too.

    Args:
        out: gets ``transitions.csv, calibration.csv, histograms.csv, forgetting.csv, mass.csv``, three figures, and
            ``recordings/`` with the recordings themselves.
        data_dir: holds the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        scale: ``smoke`` takes seconds; ``short`` minutes to an hour (CIFAR-100 cut down, and labelled so); ``paper``
            trains ResNet-32 on all of CIFAR-100 for 90 epochs.
        methods: names of mixtures (``crossfade list``).
        only: these data sets.

    Raises:
        UserError: unknown scale or method, or data that isn't there.
    """
    check_scale(scale)
    tables = {name: Table(out / f"{name}.csv") for name in _TABLES}
    chosen = [plan for plan in plans(data_dir, scale) if not only or plan.name in only]
    settings = {"methods": methods, "data sets": [plan.name for plan in chosen], "threads": torch.get_num_threads()}
    write_provenance(out, "dynamics", scale, settings, ["crossfade", *sys.argv[1:]])
    units = [(plan, name, seed) for plan in chosen for name in methods for seed in range(plan.seeds)]
    problems: dict[str, Problem] = {}
    for done, (plan, name, seed) in enumerate(units):
        unit = f"{scale}/{plan.name}/{name}/{seed}"
        if on_progress is not None:
            on_progress(done / len(units), unit)
        if all(unit in table for table in tables.values()):
            continue
        if plan.name not in problems:
            problems = {plan.name: plan.load()}
        folder = out / "recordings" / unit
        problem = problems[plan.name]
        _train(plan, problem, name, seed, folder)
        head = {"dataset": problem.name, "method": name, "seed": seed, "epochs": plan.epochs}
        found = {part: _describe(Recording(folder / part), plan, part) for part in ("train", "test")}
        for table_name, table in tables.items():
            if unit not in table:
                rows = ({**head, "part": part, **row} for part, all_ in found.items() for row in all_[table_name])
                table.add(unit, rows)
    if any(table.rows for table in tables.values()):
        draw(out)
    return out


def _train(plan: Plan, problem: Problem, name: str, seed: int, folder: Path) -> None:
    with (
        ProbabilityRecorder(folder / "train", len(problem.y), plan.epochs) as train,
        ProbabilityRecorder(folder / "test", len(problem.y_test), plan.epochs) as test,
    ):
        state = folder / "state.pt"
        steps = epochs_of(
            problem, method(name).schedule, epochs=plan.epochs, learning_rate=plan.learning_rate,
            batch_size=plan.batch_size, seed=seed, momentum=plan.momentum, weight_decay=plan.weight_decay,
            milestones=plan.milestones, on_batch=train.record, state=state,
        )  # fmt: skip
        for epoch, model in steps:
            if epoch:
                with torch.no_grad():
                    logits = torch.cat([model(x) for x in torch.split(problem.x_test, 500)])
                test.record(epoch - 1, range(len(logits)), logits, problem.y_test)
    state.unlink(missing_ok=True)


def _describe(recording: Recording, plan: Plan, part: str) -> dict[str, list[Row]]:
    last = plan.epochs - 1
    moves = transitions(recording, plan.watch, last)
    rows: dict[str, list[Row]] = {name: [] for name in _TABLES}
    for i, start in enumerate(GROUPS):
        cells = {f"to {end}": int(moves.counts[i, j]) for j, end in enumerate(GROUPS)}
        rows["transitions"].append({"from": start, "first_epoch": plan.watch + 1, "last_epoch": last + 1, **cells})
    epochs = range(plan.epochs) if part == "test" else _moments(plan)  # every epoch of both would be a megabyte
    scores = calibration_history(recording, epochs=epochs)
    rows["calibration"] = [{"epoch": epoch + 1, **found._asdict()} for epoch, found in zip(epochs, scores, strict=True)]
    counts = histograms(recording, _BINS)
    for epoch in _moments(plan):
        bins = {f"bin{k}": int(counts[epoch, k]) for k in range(_BINS)}
        rows["histograms"].append({"epoch": epoch + 1, **bins})
        for loss, (alpha, beta) in {"ce": (1.0, 0.0), "f0": (1.0, 1.0), "f0.4": (0.2, 1.0), "el": (0.0, 1.0)}.items():

            def g(ce: torch.Tensor, alpha: float = alpha, beta: float = beta) -> torch.Tensor:
                return alpha * ce - beta * torch.expm1(-ce)

            share = gradient_mass(recording, g, epoch, _BINS)
            bins_ = {f"bin{k}": round(float(share[k]), 4) for k in range(_BINS)}
            rows["mass"].append({"epoch": epoch + 1, "loss": loss, **bins_})
    events = forgetting(recording)
    learnt = events.first_learned >= 0
    for count in range(int(events.events.max()) + 1):
        rows["forgetting"].append({"events": count, "examples": int((learnt & (events.events == count)).sum())})
    rows["forgetting"].append({"events": "never learnt", "examples": int((~learnt).sum())})
    return rows


def _moments(plan: Plan) -> list[int]:
    """Epochs that are looked at closely: the first, a quarter, half, the watched one, the last."""
    return sorted({0, plan.epochs // 4, plan.epochs // 2, plan.watch, plan.epochs - 1})


def draw(out: Path) -> None:
    """The figures, from the tables in ``out``."""
    _draw_transitions(Table(out / "transitions.csv"), out)
    _draw_mass(Table(out / "mass.csv"), out)
    _draw_calibration(Table(out / "calibration.csv"), out)


def _names(table: Table, column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in table.rows))


def became_right(table: Table, dataset: str, name: str, part: str = "test") -> dict[str, tuple[int, int]]:
    """For each group at the watched epoch: how many, and how many of them are right at the end; all seeds together."""
    found = {}
    for group in GROUPS:
        wanted = (dataset, name, part, group)
        rows = [r for r in table.rows if (r["dataset"], r["method"], r["part"], r["from"]) == wanted]
        total = sum(int(row[f"to {end}"]) for row in rows for end in GROUPS)
        found[group] = (total, sum(int(row["to right"]) for row in rows))
    return found


def _draw_transitions(table: Table, out: Path) -> None:
    datasets, names = _names(table, "dataset"), _names(table, "method")
    fig, axes = figure(1, width=7.2, height=2.9)
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        shares = []
        for dataset in datasets:
            total, right = became_right(table, dataset, name)["wrong and near"]
            shares.append(100 * right / total if total else np.nan)
        axes.bar(np.arange(len(datasets)) + k * width, shares, width, label=name, color=COLOURS.get(name))
    axes.set_xticks(
        np.arange(len(datasets)) + 0.4 - width / 2,
        [d.replace(", ", "\n").replace(" (", "\n(") for d in datasets],
        fontsize=7,
    )
    axes.set(ylabel="wrong and near → right, %")
    axes.legend(frameon=False, fontsize=7, ncols=3)
    save(fig, out / "transitions.svg")


def _draw_mass(table: Table, out: Path) -> None:
    dataset = _names(table, "dataset")[-1]
    rows = [r for r in table.rows if r["dataset"] == dataset and r["method"] == "ce" and r["part"] == "train"]
    epochs = sorted({int(row["epoch"]) for row in rows})
    fig, axes = figure(len(epochs), sharey=True, height=2.4)
    centres = (np.arange(_BINS) + 0.5) / _BINS
    for axis, epoch in zip(np.atleast_1d(axes), epochs, strict=True):
        for loss in ("ce", "f0", "f0.4", "el"):
            own = [r for r in rows if r["loss"] == loss and int(r["epoch"]) == epoch]
            share = np.mean([[float(row[f"bin{k}"]) for k in range(_BINS)] for row in own], axis=0)
            axis.plot(centres, 100 * share, "o-", ms=2.5, lw=1.2, color=COLOURS[loss], label=loss)
        axis.set(title=f"epoch {epoch}", xlabel="p")
    np.atleast_1d(axes)[0].set_ylabel("share of the gradient, %")
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=7)
    fig.suptitle(f"{dataset}, trained with CE", fontsize=9)
    save(fig, out / "mass.svg")


def _draw_calibration(table: Table, out: Path) -> None:
    dataset = _names(table, "dataset")[-1]
    fig, axes = figure(4, height=2.2)
    for axis, score in zip(axes, ("accuracy", "nll", "ece", "brier"), strict=True):
        for name in _names(table, "method"):
            rows = [r for r in table.rows if (r["dataset"], r["method"], r["part"]) == (dataset, name, "test")]
            epochs = sorted({int(row["epoch"]) for row in rows})
            means = [np.mean([float(r[score]) for r in rows if int(r["epoch"]) == epoch]) for epoch in epochs]
            axis.plot(epochs, means, lw=1.2, color=COLOURS.get(name), label=name)
        axis.set(title=score, xlabel="epoch")
    axes[0].legend(frameon=False, fontsize=6)
    fig.suptitle(f"{dataset}, test images or rows", fontsize=9)
    save(fig, out / "calibration.svg")
