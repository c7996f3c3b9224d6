"""Figure 2: BERT fine-tuned on GLUE's classification tasks, and the profile of the four methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.data.texts import GLUE, TextSet, TextTask, load_glue
from crossfade.lab.paper.page import MarkdownStudy, paired_gaps, plus_minus, row, signed
from crossfade.lab.paper.study import DEFINED, Cell, NotHereError, Prepared, Request, check_known
from crossfade.lab.provenance import sizes_of
from crossfade.lab.train.deep.recipe import TextRecipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHORTENED = {"smoke": ({"epochs": 1, "evaluate": (1,)}, 1), "short": ({"epochs": 3, "evaluate": (3,)}, 2)}
_LIMITS = {"smoke": 64, "short": 800}  # the most training examples of a task
_TASKS = {task.name: task for task in GLUE}
_METRICS = {"mcc": "Matthews", "f1": "F1", "accuracy": "accuracy"}
_FACTORS = (1.0, 1.01, 1.02, 1.05)


def study(model: str = "bert-base-uncased", limit: int | None = None) -> _Figure2:
    """Return the study with a model of the hub or in a folder, trained on at most ``limit`` examples of each task."""
    recipe = TextRecipe(model)
    cells = tuple(Cell(name, recipe.net, recipe, 4, name) for name in _TASKS)
    return _Figure2("figure2", f"Figure 2: {recipe.net} on GLUE", cells, tuple(DEFINED["figure2"]["choices"]), limit)


def task_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return GLUE's own spelling of the names of tasks.

    Raises:
        UserError: an unknown name.
    """
    known = {name.lower(): name for name in _TASKS}
    asked = [name.lower() for name in names]
    check_known("--tasks", asked, list(known), "GLUE")
    return tuple(known[name] for name in asked)


@dataclass(frozen=True)
class _Figure2(MarkdownStudy[TextRecipe, TextSet]):
    limit: int | None = None

    shortened = _SHORTENED

    def load(self, data: str, request: Request) -> TextSet:
        try:
            return load_glue(_TASKS[data], request.data_dir)
        except UserError as error:  # doesn't stop the other tasks
            raise NotHereError(str(error)) from None

    def prepare(self, cell: Cell[TextRecipe], data: TextSet, request: Request) -> Prepared:
        from crossfade.lab.nets.pretrained import check_model

        recipe, repeats = self.protocol(cell, request)
        limit = self.limit or _LIMITS.get(request.scale)
        recipe = replace(recipe, digest=check_model(recipe.model, recipe.max_length))
        rows, used = _TASKS[data.name].rows, min(limit or len(data.train), len(data.train))
        label = data.name if used >= rows else f"{data.name} ({used:,} of {rows:,} rows)"
        notes = (*data.notes, *request.notes)
        if request.scale == "paper" and (changed := _changes(cell.recipe, recipe, limit)):
            notes = (f"not the paper's protocol: {', '.join(changed)}", *notes)
        task = TextTask(data, **(request.division or {"select": "last"}), limit=limit, label=label)
        terms = f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {recipe.learning_rate:g}"
        about = f"{sizes_of(task)} · {terms}"
        return Prepared(label, (task,), recipe, tuple(range(repeats)), about, notes)

    def tables(self, results: pd.DataFrame) -> str:
        profiles = [
            _profile_table(experiments(results, score), score, subsets(results)) for score in ("accuracy", "score")
        ]
        return "\n\n".join([_scores_table(results), *filter(None, profiles)])

    def figure(self, results: pd.DataFrame, title: str) -> Figure | None:
        """Return the Dolan-Moré profile of accuracy; None while there are fewer than two experiments."""
        from crossfade.stats import performance_plot, performance_profile

        matrix = experiments(results, "accuracy")
        return None if len(matrix) < 2 else performance_plot(performance_profile(matrix), title=title)


def _changes(printed: TextRecipe, recipe: TextRecipe, limit: int | None) -> list[str]:
    """Return the deviations from the printed protocol, in words."""
    changed = [
        f"{name} {getattr(recipe, name):g}"
        for name in ("epochs", "learning_rate", "batch_size")
        if getattr(recipe, name) != getattr(printed, name)
    ]
    return changed + ([f"at most {limit:,} examples"] if limit else [])


def glue_scores(results: pd.DataFrame) -> pd.DataFrame:
    """Return the results with their ``task`` and its official metric (``score``, of ``metric``)."""
    frame = results.assign(task=[name.partition(" ")[0] for name in results["dataset"]])
    frame = frame.assign(metric=[_TASKS[name].metric for name in frame["task"]])
    return frame.assign(score=[line[line["metric"]] for _, line in frame.iterrows()])


def experiments(results: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return accuracy, or the official metric (``score``), by experiment (a task and a seed) and method, without WNLI.

    A correlation below zero counts as zero.
    """
    frame = glue_scores(results)
    own = frame[frame["task"] != "WNLI"]
    matrix = own.pivot_table(index=["dataset", "repeat"], columns="method", values=score, sort=False)
    matrix.index = pd.Index([f"{name}, seed {repeat}" for name, repeat in matrix.index])
    return matrix.dropna().clip(lower=0.0)


def subsets(results: pd.DataFrame) -> str:
    """Return which tasks' training or dev parts are subsets, in parentheses; empty if none is."""
    known = glue_scores(results).drop_duplicates("dataset")
    parts = [
        name
        for name, train, test in known[["task", "n_train", "n_test"]].itertuples(index=False)
        if train < _TASKS[name].rows or test < _TASKS[name].dev
    ]
    return f" (subsets: {', '.join(dict.fromkeys(parts))})" if parts else ""


def _scores_table(results: pd.DataFrame) -> str:
    """Return the official metric and accuracy of each task and method."""
    lines = [
        "| task | dev rows | metric | method | score | Δ to CE | accuracy | Δ to CE | seeds |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for (name, metric), own in glue_scores(results).groupby(["dataset", "metric"], sort=False):
        scores, accuracies = (
            own.pivot_table(index="repeat", columns="method", values=value, sort=False) * 100
            for value in ("score", "accuracy")
        )
        for method in scores.columns:
            cells = []
            for values in (scores, accuracies):
                cells.append(plus_minus(values[method].mean(), values[method].std()))
                cells.append(signed(paired_gaps(values, method).mean()))
            scored, whole = int(own["n_test"].max()), _TASKS[own["task"].iloc[0]].dev
            rows = f"{scored:,} of {whole:,}" if scored < whole else f"{scored:,}"
            lines.append(row(name, rows, _METRICS[str(metric)], method, *cells, scores[method].count()))
    return "\n".join(lines)


def _profile_table(matrix: pd.DataFrame, score: str, cut: str) -> str:
    """Return the table of how often each method is close to the best one; empty for fewer than two experiments."""
    from crossfade.stats import performance_profile

    if len(matrix) < 2:
        return ""
    words = {"accuracy": "accuracy (the axis of the paper's figure)", "score": "official metric"}[score]
    profile = performance_profile(matrix)
    shares = {factor: profile.share(factor) for factor in _FACTORS}
    lines = [
        f"Share of the {len(matrix)} experiments (a task and a seed; WNLI isn't counted){cut} in which a method's "
        f"{words}, times τ, is at least the best method's:",
        "",
        row("method", *(f"τ = {factor:g}" for factor in _FACTORS)),
        "|---|" + "---:|" * len(_FACTORS),
    ]
    lines += [row(name, *(f"{shares[factor][name]:.2f}" for factor in _FACTORS)) for name in matrix.columns]
    return "\n".join(lines)
