"""Table 3 and Figure 2 from results: ours, and the paper's beside them where it prints any."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from crossfade.lab.paper.image_tables import plus_minus, signed
from crossfade.lab.paper.table3 import ARCHITECTURES, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["experiments", "figure2_markdown", "glue_scores", "profile_figure", "table3_markdown"]

_FACTORS = (1.0, 1.01, 1.02, 1.05)
_METRICS = {"mcc": "Matthews", "f1": "F1", "accuracy": "accuracy"}


def table3_markdown(results: pd.DataFrame) -> str:
    """A line for each architecture and method: accuracy in percent, paired differences to CE, the paper's."""
    lines = [
        "| architecture | method | ours | seeds | Δ to CE | paper | paper's Δ |", "|---|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for place, name in enumerate(ARCHITECTURES):
        size, layers = ARCHITECTURES[name]
        own = results[results["dataset"] == f"Reviews · {name}"]
        table = own.pivot_table(index="repeat", columns="method", values="accuracy", sort=False) * 100
        for method in table.columns:
            printed, spread = PAPER[method][place] if method in PAPER else (math.nan, None)
            gap = math.nan if method == "ce" else float((table[method] - table["ce"]).mean())
            base = math.nan if method == "ce" else PAPER["ce"][place][0]
            lines.append(
                f"| {layers} × {size} | {method} | {plus_minus(table[method].mean(), table[method].std())} | "
                f"{table[method].count()} | {signed(gap)} | {plus_minus(printed, spread)} | "
                f"{signed(printed - base)} |"
            )
    return "\n".join(lines)


def glue_scores(results: pd.DataFrame) -> pd.DataFrame:
    """``task`` and its official metric (``score``, of ``metric``) beside every result."""
    from crossfade.lab.data.glue import GLUE

    metric = {task.name: task.metric for task in GLUE}
    frame = results.assign(task=[name.partition(" ")[0] for name in results["dataset"]])
    frame = frame.assign(metric=frame["task"].map(metric))
    return frame.assign(score=[row[row["metric"]] for _, row in frame.iterrows()])


def figure2_markdown(results: pd.DataFrame) -> str:
    """The official metric and accuracy of each task and method, and how often each method is near the best."""
    frame = glue_scores(results)
    lines = [
        "| task | metric | method | score | Δ to CE | accuracy | Δ to CE | seeds |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for (name, metric), own in frame.groupby(["dataset", "metric"], sort=False):
        tables = [
            own.pivot_table(index="repeat", columns="method", values=value, sort=False) * 100
            for value in ("score", "accuracy")
        ]
        for method in tables[0].columns:
            cells = [str(name), _METRICS[str(metric)], method]
            for table in tables:
                gap = math.nan if method == "ce" else float((table[method] - table["ce"]).mean())
                cells += [plus_minus(table[method].mean(), table[method].std()), signed(gap)]
            lines.append(f"| {' | '.join([*cells, str(tables[0][method].count())])} |")
    matrix = experiments(results)
    if len(matrix) < 2:
        return "\n".join(lines)
    from crossfade.stats import performance_profile

    profile = performance_profile(matrix)
    lines += [
        "",
        f"Share of the {len(matrix)} experiments (a task and a seed; WNLI isn't counted) in which a method's official "
        "metric, times τ, is at least the best method's:",
        "",
        "| method | " + " | ".join(f"τ = {factor:g}" for factor in _FACTORS) + " |",
        "|---|" + "---:|" * len(_FACTORS),
    ]
    shares = {factor: profile.share(factor) for factor in _FACTORS}
    lines += [
        f"| {method} | " + " | ".join(f"{shares[factor][method]:.2f}" for factor in _FACTORS) + " |"
        for method in matrix.columns
    ]
    return "\n".join(lines)


def profile_figure(results: pd.DataFrame, title: str) -> Figure | None:
    """The Dolan-Moré profile of Figure 2; None while there are fewer than two experiments."""
    from crossfade.stats import performance_plot, performance_profile

    matrix = experiments(results)
    return None if len(matrix) < 2 else performance_plot(performance_profile(matrix), title=title)


def experiments(results: pd.DataFrame) -> pd.DataFrame:
    """Experiment (a task and a seed) × method, the official metric; without WNLI.

    A correlation below zero is as useless as zero, and counts so.
    """
    frame = glue_scores(results)
    own = frame[frame["task"] != "WNLI"]
    matrix = own.pivot_table(index=["dataset", "repeat"], columns="method", values="score", sort=False)
    matrix.index = pd.Index([f"{name}, seed {repeat}" for name, repeat in matrix.index])
    return matrix.dropna().clip(lower=0.0)
