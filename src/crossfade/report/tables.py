"""The tables of a comparison's page: results, accuracy by data set, calibration, learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from crossfade.report.inputs import Inputs
from crossfade.report.page import Cell, Column, Table, Text, Tone
from crossfade.stats import Row
from crossfade.stats.words import MISSING, count, decimal, level, p_value, percent, points, points_range, signed

_SAME = 1e-12  # means that differ by less differ by the order of a sum
_READINGS = {
    "better": "reliable gain",
    "worse": "reliable loss",
    "one repeat": "one repeat: no interval",
    "no spread": "no spread: no interval",
}  # of an outcome, where it is not the outcome itself


def results_table(inputs: Inputs, dataset: str | None = None) -> Table:
    """Return a row a method: accuracy, its difference from the control, wins, rank and calibration.

    Args:
        inputs: the comparison.
        dataset: its repeats; None is over all data sets (or the only one's repeats).
    """
    comparison, only = inputs.comparison, inputs.only_dataset
    outcomes = {v.method: v.outcome for v in comparison.verdicts if v.dataset == (dataset or only)}
    columns = (
        Column("Method", align="left"),
        Column("Accuracy", "%"),
        Column("Δ accuracy", f"points, {level(comparison.confidence)} interval"),
        Column("Reading", f"at level {level(1 - comparison.confidence)}", align="left"),
        Column("Wins / ties / losses", "repeats" if dataset or only else "data sets"),
        Column("Mean rank", "1 is best"),
        Column("NLL", "nats"),
        Column("ECE", "%"),
    )
    rows = tuple((method.title, *_cells(row, outcomes.get(method.name, ""))) for method, row in inputs.rows(dataset))
    if dataset is not None:
        return Table(f"Results on {dataset}", columns, rows)
    mean = f" on {only}, mean over the repeats" if only else f", mean over {count(len(inputs.datasets), 'data set')}"
    return Table(f"Results{mean}", columns, rows)


def _cells(row: Row, outcome: str) -> tuple[Cell | str, ...]:
    rank, scores = decimal(row.mean_rank, 2), (decimal(row.nll), percent(row.ece))
    if row.delta is None or row.counts is None:
        return percent(row.accuracy), MISSING, Cell("control", tone="quiet"), MISSING, rank, *scores
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(outcome, "")
    interval = "no interval" if row.interval is None else points_range(row.interval.low, row.interval.high)
    p = "" if row.p_adjusted is None else f"adjusted {p_value(row.p_adjusted)}"
    return (
        percent(row.accuracy),
        Cell(points(row.delta), interval, tone),
        Cell(_READINGS.get(outcome, outcome), p, tone),
        f"{row.counts.wins} / {row.counts.ties} / {row.counts.losses}",
        rank,
        *scores,
    )


def accuracy_table(inputs: Inputs) -> Table:
    """Return the mean accuracy of every method on every data set, the best of each row marked."""
    columns = (Column("Data set", align="left"), *(Column(method.title) for method in inputs.methods))
    rows = []
    for dataset in inputs.datasets:
        values = [row.accuracy for _, row in inputs.rows(dataset)]
        best = max(values)
        cells = (Cell(f"{percent(v)}*", tone="best") if v >= best - _SAME else percent(v) for v in values)
        rows.append((dataset, *cells))
    note = "Mean over the repeats, in percent. * marks the best of a row, ties included."
    return Table("Test accuracy by data set", columns, tuple(rows), (note,))


def calibration_table(inputs: Inputs) -> Table:
    """Return NLL and ECE beside accuracy, with their differences from the control."""
    columns = (
        Column("Method", align="left"),
        Column("Accuracy", "%, higher is better"),
        Column("NLL", "nats, lower is better"),
        Column("Δ NLL"),
        Column("ECE", "%, lower is better"),
        Column("Δ ECE", "points"),
    )
    changes = _calibration_changes(inputs)
    rows: list[tuple[Cell | str, ...]] = []
    for method, row in inputs.rows():
        nll, ece = changes.get(method.title, (math.nan, math.nan))
        cells = (Cell(signed(nll), tone=_tone(nll, 3)), Cell(points(ece), tone=_tone(100 * ece, 2)))
        first, second = cells if method is not inputs.control else (MISSING, MISSING)
        rows.append((method.title, percent(row.accuracy), decimal(row.nll), first, percent(row.ece), second))
    return Table("Accuracy and calibration on the test rows", columns, tuple(rows))


def _calibration_changes(inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Return the differences of NLL and ECE from the control's, by title; NaN where one is missing."""

    def less(own: float | None, base: float | None) -> float:
        return math.nan if own is None or base is None else own - base

    (_, control), *others = inputs.rows()
    return {method.title: (less(row.nll, control.nll), less(row.ece, control.ece)) for method, row in others}


def _tone(difference: float, digits: int) -> Tone:  # of a measure that is better when lower
    if not math.isfinite(difference) or round(difference, digits) == 0:
        return ""
    return "bad" if difference > 0 else "good"


def calibration_sentences(inputs: Inputs) -> tuple[Text, Text]:
    """Say why these columns stand beside accuracy, and what they show here."""
    why = (
        "The expectation loss asks for right answers, not for right probabilities: it drives them towards 0 and 1, and "
        "is known to trade calibration for accuracy. So two measures of the probabilities stand beside it: NLL, the "
        "mean cross entropy on the test rows, and ECE, how far confidence and accuracy lie apart. Lower is better."
    )
    changes = _calibration_changes(inputs)
    if not all(math.isfinite(value) for pair in changes.values() for value in pair):
        here = f"Some of these numbers are missing ({MISSING}) or infinite; they were not recorded as finite."
        return Text(why), Text(here)
    worse = {title: (nll > 0) + (ece > 0) for title, (nll, ece) in changes.items()}
    groups = ((2, "worse", "in both"), (1, "worse", "in one of the two"), (0, "no worse", "in either"))
    parts = [
        f"{word} than {inputs.control.title} {where}: {', '.join(t for t, n in worse.items() if n == number)}"
        for number, word, where in groups
        if number in worse.values()
    ]
    advice = " If you use the probabilities themselves, weigh that." if any(worse.values()) else ""
    return Text(why), Text(f"Here, on average: {'; '.join(parts)}.{advice}")


def learning_rate_table(inputs: Inputs) -> Table | None:
    """Count how often each learning rate was chosen, and at which epoch; None where no rate was recorded."""
    results = inputs.results
    if "learning_rate" not in results:
        return None
    grid = _grid(inputs)
    columns = (
        Column("Method", align="left"),
        *(Column(f"{rate:g}") for rate in grid),
        Column("Epoch chosen", "median, quartiles"),
    )
    rows = []
    for method in inputs.methods:
        own = results[results["method"] == method.name]
        rates = own["learning_rate"].to_numpy(dtype=float)
        counts = [int(np.isclose(rates, rate, rtol=1e-9).sum()) for rate in grid]
        rows.append((method.title, *(str(n) if n else Cell("0", tone="quiet") for n in counts), _epochs(own)))
    note = "Trials in which this learning rate had the best validation accuracy; of equals the first one tried counts."
    return Table("Learning rates chosen", columns, tuple(rows), (note,))


def _epochs(own: pd.DataFrame) -> Cell | str:
    if "epoch" not in own or own["epoch"].isna().all():
        return MISSING
    low, middle, high = np.nanquantile(own["epoch"].to_numpy(dtype=float), [0.25, 0.5, 0.75]).tolist()
    return Cell(f"{middle:g}", f"{low:g} to {high:g}")


def _grid(inputs: Inputs) -> list[float]:
    given: Sequence[float] = (inputs.meta.get("recipe") or {}).get("learning_rates") or ()
    used = inputs.results["learning_rate"].dropna().astype(float)
    return sorted({float(rate) for rate in (*given, *used)}, reverse=True)


def learning_rate_notes(inputs: Inputs) -> tuple[str, ...]:
    """Warn of methods that mostly took an end of the grid: better rates may lie outside."""
    if "learning_rate" not in inputs.results:
        return ()
    grid = _grid(inputs)
    if len(grid) < 2:
        return ()
    notes = []
    for word, edge in (("largest", grid[0]), ("smallest", grid[-1])):
        share = inputs.results["learning_rate"].astype(float).eq(edge).groupby(inputs.results["method"]).mean()
        names = [f"{m.title} ({share[m.name]:.0%})" for m in inputs.methods if share[m.name] > 0.6]
        if names:
            notes.append(
                f"The {word} learning rate of the grid, {edge:g}, was chosen in most trials of {', '.join(names)}: "
                "a wider grid might change these numbers."
            )
    return tuple(notes)
