"""Escaping efficiency (eq. 15-18) measured: along real training runs, at minima, on a known landscape; and sharpness.

Five tables, each resumable on its own:

* ``along.csv``: both sides of (18) for every mixture at the same weights, along training runs on real data;
* ``minima.csv``: the same at stationary points of each mixture, where the derivation wants them, and whether the loss
  of SGD started there rises as eq. (17)'s approximation says;
* ``pair.csv``: the two-example family in which everything is known in closed form;
* ``simulation.csv``: walkers that escape a known sharp minimum, at the same learning rate and at the same noise;
* ``sharpness.csv``, ``slices.csv``: the largest Hessian eigenvalue, and loss slices, around the solutions.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossfade.lab.paper import escape_figures, escape_simulation
from crossfade.lab.paper.escape_measure import along_rows, minimum_rows, sharpness_rows, slice_rows
from crossfade.lab.paper.why_tables import Progress, Row, Table, check_scale, write_provenance
from crossfade.lab.paper.why_training import Problem, cifar, epochs_of, tabular

__all__ = ["Plan", "plans", "run"]

_TABLES = ("along", "minima", "pair", "simulation", "sharpness", "slices")


@dataclass(frozen=True)
class Plan:
    """A data set, how it is trained, and when it is measured (epochs done)."""

    name: str
    load: Callable[[], Problem]
    moments: tuple[int, ...]
    learning_rate: float
    batch_size: int
    probes: int
    examples: int = 2000
    momentum: float = 0.0
    seeds: int = 2
    trained_with: tuple[str, ...] = ("ce", "gradual", "el")
    minima: bool = True
    slices: bool = False


def plans(data_dir: Path | None, scale: str) -> list[Plan]:
    """What is measured at each scale: without ``data_dir`` only scikit-learn's sets."""
    smoke = scale == "smoke"

    def table(name: str) -> Plan:
        return Plan(name, lambda: tabular(name, data_dir), (0, 1, 5, 20, 60), 0.05, 16, 64)

    chosen = [table(name) for name in (("wine",) if smoke else ("iris", "wine", "breast_cancer", "digits"))]
    chosen[-1] = replace(chosen[-1], slices=True)
    if data_dir is not None and not smoke:
        names = ("statlog-vehicle", "yeast", "wine-quality-red", "contrac", "car", "energy-y1", "tic-tac-toe", "pima")
        chosen += [table(name) for name in names]
    if data_dir is not None:
        depth, sizes = (32, (100, 500, 32)) if scale == "paper" else (8, (20, 250, 16))
        sizes = (4, 20, 8) if smoke else sizes
        classes, per_class, pixels = sizes

        def images() -> Problem:
            return cifar(data_dir, classes=classes, per_class=per_class, pixels=pixels, depth=depth)

        moments = (0, 3, 12, 24) if scale != "paper" else (0, 10, 30, 60, 90)
        plan = Plan(
            "cifar100", images, moments, 0.05, 64, 16, 256, 0.9, 1, ("ce", "gradual"), minima=False, slices=True
        )
        chosen.append(plan)
    if smoke:
        chosen = [replace(p, moments=(0, 2), probes=4, seeds=1, trained_with=("ce",)) for p in chosen]
    return chosen


def run(
    out: Path,
    data_dir: Path | None = None,
    scale: str = "short",
    *,
    only: tuple[str, ...] = (),
    on_progress: Progress | None = None,
) -> Path:
    """Measure, and write the tables and figures into ``out``; returns ``out``. Goes on where it stopped.

    Args:
        out: gets the six tables named above, figures and ``provenance.json``.
        data_dir: holds the UCI sets and CIFAR-100; without it scikit-learn's sets alone are used.
        scale: ``smoke`` takes seconds, ``short`` about an hour on one core, ``paper`` uses all of CIFAR-100.
        only: these data sets, and ``simulation``.

    Raises:
        UserError: unknown scale, or data that isn't there.
    """
    check_scale(scale)
    tables = {name: Table(out / f"{name}.csv") for name in _TABLES}
    chosen = [plan for plan in plans(data_dir, scale) if not only or plan.name in only]
    settings = {"data sets": [plan.name for plan in chosen], "threads": torch.get_num_threads()}
    write_provenance(out, "escape", scale, settings, ["crossfade", *sys.argv[1:]])
    if not only or "simulation" in only:
        escape_simulation.fill(tables["pair"], tables["simulation"], scale, on_progress)
    for place, plan in enumerate(chosen):
        _measure(plan, scale, tables, functools.partial(on_progress or _silent, place / len(chosen)))
    escape_figures.draw(out)
    return out


def _silent(fraction: float, text: str) -> None:
    pass


def _measure(plan: Plan, scale: str, tables: dict[str, Table], say: Callable[[str], object]) -> None:
    loaded: list[Problem] = []

    def problem() -> Problem:
        if not loaded:
            loaded.append(plan.load())
        return loaded[0]

    for name in plan.trained_with:
        for seed in range(plan.seeds):
            run_name = f"{scale}/{plan.name}/{name}/{seed}"
            measured = all(f"{run_name}/{moment}" in tables["along"] for moment in plan.moments)
            sliced = run_name in tables["slices"] or not (plan.slices and seed == 0)
            if measured and sliced and run_name in tables["sharpness"]:
                continue
            say(run_name)
            _follow(plan, problem(), name, seed, run_name, tables)
    if plan.minima:
        for kind in ("linear", "mlp"):
            unit = f"{scale}/{plan.name}/{kind}"
            if unit not in tables["minima"]:
                say(f"{unit}: minima")
                walkers = 20 if scale == "smoke" else 400
                tables["minima"].add(unit, minimum_rows(problem(), kind, plan.probes, walkers))


def _follow(plan: Plan, problem: Problem, name: str, seed: int, run_name: str, tables: dict[str, Table]) -> None:
    from crossfade.lab.methods import method

    state = tables["along"].path.parent / "states" / f"{run_name}.pt"
    state.parent.mkdir(parents=True, exist_ok=True)
    # With a saved state the run starts at its last epoch: earlier moments were measured before it was saved.
    steps = epochs_of(
        problem, method(name).schedule, epochs=plan.moments[-1], learning_rate=plan.learning_rate, seed=seed,
        batch_size=plan.batch_size, momentum=plan.momentum, weight_decay=1e-4, state=state,
    )  # fmt: skip
    head: Row = {"dataset": problem.name, "trained_with": name, "seed": seed}
    for epoch, model in steps:
        unit = f"{run_name}/{epoch}"
        if epoch in plan.moments and unit not in tables["along"]:
            rows = along_rows(model, problem, plan.examples, plan.probes, seed)
            tables["along"].add(unit, _with(head, {"epoch": epoch}, rows))
        if epoch == plan.moments[-1]:
            if run_name not in tables["sharpness"]:
                tables["sharpness"].add(run_name, _with(head, {}, sharpness_rows(model, problem, plan.examples)))
            if plan.slices and seed == 0 and run_name not in tables["slices"]:
                tables["slices"].add(run_name, _with(head, {}, slice_rows(model, problem, plan.examples)))
    state.unlink(missing_ok=True)


def _with(head: Row, more: Row, rows: Iterator[Row]) -> list[Row]:
    return [{**head, **more, **row} for row in rows]
