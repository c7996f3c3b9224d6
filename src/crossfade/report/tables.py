"""The tables of a comparison's page: results, rates, losses, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from crossfade.report.inputs import Inputs, MethodInfo
from crossfade.report.page import Cell, Column, Table, Tone
from crossfade.stats import Row
from crossfade.stats.calibration import HEADINGS, calibration_cells, calibration_notes
from crossfade.stats.words import MISSING, count, decimal, level, p_value, percent, points, points_range

_SAME = 1e-12  # means that differ by less differ by the order of a sum
_READINGS = {
    "better": "reliable gain",
    "worse": "reliable loss",
    "one repeat": "one repeat: no interval",
    "no spread": "no spread: no interval",
}  # of an outcome, where it is not the outcome itself


def results_table(inputs: Inputs, dataset: str | None = None) -> Table:
    """Return a row a method on one data set, or (None) over all: accuracy, its difference, wins, rank, calibration."""
    comparison, only = inputs.comparison, inputs.only_dataset
    outcomes = {v.method: v.outcome for v in comparison.verdicts if v.dataset == (dataset or only)}
    region = comparison.equivalent
    metric = f"{comparison.metric[0].upper()}{comparison.metric[1:]}"
    columns = (
        Column("Method", align="left"),
        Column(f"Δ {comparison.metric}", f"points, {level(comparison.confidence)} interval"),
        Column("Reading", f"adjusted p, level {level(1 - comparison.confidence)}", align="left"),
        *([Column(f"Within {100 * region:g}", "probability, %")] if region else []),
        Column(metric, "%"),
        Column("Wins / ties / losses", "repeats" if dataset or only else "data sets"),
        Column("Mean rank", "1 is best"),
        Column("NLL", "nats"),
        Column("ECE", "%"),
    )
    rows = tuple(
        (method.name, *_cells(row, outcomes.get(method.name, ""), region)) for method, row in inputs.rows(dataset)
    )
    guesses = [share for name, share in comparison.majority.items() if dataset in (None, name)]
    guess = (f"Always answering the most frequent class: {percent(sum(guesses) / len(guesses))} %.",) if guesses else ()
    if dataset is not None:
        return Table(f"Results on {dataset}", columns, rows, guess)
    mean = f" on {only}, mean over the repeats" if only else f", mean over {count(len(inputs.datasets), 'data set')}"
    return Table(f"Results{mean}", columns, rows, guess)


def _cells(row: Row, outcome: str, region: float | None) -> tuple[Cell | str, ...]:
    within = [percent(row.equivalence.equivalent if row.equivalence else None, 0)] if region else []
    rank, scores = decimal(row.mean_rank, 2), (decimal(row.nll), percent(row.ece))
    if row.delta is None or row.counts is None:
        return MISSING, Cell("control", tone="quiet"), *within, percent(row.score), MISSING, rank, *scores
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(outcome, "")
    interval = "no interval" if row.interval is None else points_range(row.interval.low, row.interval.high)
    p = "" if row.p_adjusted is None else p_value(row.p_adjusted)
    return (
        Cell(points(row.delta), interval, tone),
        Cell(_READINGS.get(outcome, outcome), p, tone),
        *within,
        percent(row.score),
        f"{row.counts.wins} / {row.counts.ties} / {row.counts.losses}",
        rank,
        *scores,
    )


def accuracy_table(inputs: Inputs) -> Table:
    """Return the mean score of every method on every data set, the best of each row marked."""
    columns = (Column("Data set", align="left"), *(Column(method.name) for method in inputs.methods))
    rows = []
    for dataset in inputs.datasets:
        values = [row.score for _, row in inputs.rows(dataset)]
        best = max(values)
        cells = (Cell(f"{percent(v)}*", tone="best") if v >= best - _SAME else percent(v) for v in values)
        rows.append((dataset, *cells))
    note = "Mean over the repeats, in percent. * marks the best of a row, ties included."
    return Table(f"Test {inputs.comparison.metric} by data set", columns, tuple(rows), (note,))


def learning_rates(inputs: Inputs) -> Table | None:
    """Count how often each learning rate was chosen, and at which epoch; None where no rate was recorded."""
    results = inputs.results
    if "learning_rate" not in results:
        return None
    rates = results["learning_rate"].astype(float)
    given: Sequence[float] = (inputs.meta.get("recipe") or {}).get("learning_rates") or ()
    grid = sorted({float(rate) for rate in (*given, *rates.dropna())}, reverse=True)
    columns = (
        Column("Method", align="left"),
        *(Column(f"{rate:g}") for rate in grid),
        Column("Epoch chosen", "median, quartiles"),
    )
    rows = []
    for method in inputs.methods:
        own = results["method"] == method.name
        counts = [int(np.isclose(rates[own], rate, rtol=1e-9).sum()) for rate in grid]
        cells = (str(n) if n else Cell("0", tone="quiet") for n in counts)
        rows.append((method.name, *cells, _epochs(results[own])))
    best = f"the best validation {inputs.comparison.metric}"
    note = f"Trials in which this learning rate had {best}; of equals the first one tried counts."
    return Table("Learning rates chosen", columns, tuple(rows), (note,))


def _epochs(own: pd.DataFrame) -> Cell | str:
    if "epoch" not in own or own["epoch"].isna().all():
        return MISSING
    low, middle, high = np.nanquantile(own["epoch"].to_numpy(dtype=float), [0.25, 0.5, 0.75]).tolist()
    return Cell(f"{middle:g}", f"{low:g} to {high:g}")


def calibration_table(results: pd.DataFrame) -> Table:
    """Return a row a method: its temperature, and NLL, ECE and Brier score before and after it."""
    cells, notes = calibration_cells(results), tuple(calibration_notes(results))
    columns = (Column("Method", align="left"), *map(Column, HEADINGS))
    return Table(
        "Calibration, before and after one temperature", columns, tuple((m, *c) for m, c in cells.items()), notes
    )


def losses_table(methods: Sequence[MethodInfo]) -> Table:
    """Return the losses with their formulas and schedules in words."""
    columns = (Column("Method", align="left"), Column("Loss", align="left"))
    note = (
        "α CE + β EL has the gradient of the cross entropy, row by row, times α + β p, where p is the probability that "
        "the network gives to the right class."
    )
    return Table("The losses that were compared", columns, tuple((m.name, _formula(m)) for m in methods), (note,))


def _formula(method: MethodInfo) -> Cell | str:
    if method.schedule is None:
        text = method.formula or MISSING
    else:
        steps = groupby(sorted(method.schedule), key=lambda step: step[1:])  # where a weight changes
        phases = [next(same) for _, same in steps]
        weights = [f"(α, β) = ({alpha:.4g}, {beta:.4g})" for _, alpha, beta in phases]
        if len(phases) <= 3:
            starts = ["", *(f"from {100 * start:.4g} % of the training on " for start, _, _ in phases[1:])]
            parts = map("".join, zip(starts, weights, strict=False))
            text = "α CE + β EL with " + ", then ".join(parts) + (" throughout" if len(phases) == 1 else "")
        else:
            text = f"α CE + β EL in {count(len(phases), 'phase')}, from {weights[0]} to {weights[-1]}"
    return Cell(text, method.note) if method.note and method.note != text else text


def data_table(inputs: Inputs) -> Table:
    """Return a row a data set: where it is from, its sizes, its complete repeats and its hash."""
    columns = (
        Column("Data set", align="left"),
        Column("Source", align="left"),
        *(Column(title) for title in ("Rows", "Features", "Classes")),
        Column("Train / validation / test", "rows of a repeat"),
        Column("Repeats", "complete"),
        Column("SHA-256", "first digits"),
    )
    rows: list[tuple[Cell | str, ...]] = []
    for entry in inputs.meta["datasets"]:
        parts = " / ".join(written(entry.get(part)) for part in ("n_train", "n_val", "n_test"))
        used = int(inputs.repeats.get(str(entry["name"]), 0))
        about = (written(entry.get(key)) for key in ("source", "rows", "features", "classes"))
        repeats = Cell(str(used), tone="" if used else "warn")
        rows.append((str(entry["name"]), *about, parts, repeats, written(entry.get("sha256"))[:12]))
    return Table("Data", columns, tuple(rows))


def spaced(key: object) -> str:
    """Write the name of a setting in words."""
    return str(key).replace("_", " ")


def written(value: object) -> str:
    """Write any plain value in words."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return decimal(value, 0)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{spaced(k)} {written(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(written(v) for v in value)
    return str(value)
