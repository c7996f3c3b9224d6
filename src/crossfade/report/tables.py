"""The tables of a comparison's page, with the sentences that read them: results, calibration, rates, losses, data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from crossfade.report.figures import schedule_phases
from crossfade.report.inputs import Inputs, MethodInfo
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
    """Return a row a method on one data set, or (None) over all: accuracy, its difference, wins, rank, calibration."""
    comparison, only = inputs.comparison, inputs.only_dataset
    outcomes = {v.method: v.outcome for v in comparison.verdicts if v.dataset == (dataset or only)}
    columns = (
        Column("Method", align="left"),
        Column(f"{comparison.metric[0].upper()}{comparison.metric[1:]}", "%"),
        Column(f"Δ {comparison.metric}", f"points, {level(comparison.confidence)} interval"),
        Column("Reading", f"at level {level(1 - comparison.confidence)}", align="left"),
        Column("Wins / ties / losses", "repeats" if dataset or only else "data sets"),
        Column("Mean rank", "1 is best"),
        Column("NLL", "nats"),
        Column("ECE", "%"),
    )
    rows = tuple((method.name, *_cells(row, outcomes.get(method.name, ""))) for method, row in inputs.rows(dataset))
    if dataset is not None:
        return Table(f"Results on {dataset}", columns, rows)
    mean = f" on {only}, mean over the repeats" if only else f", mean over {count(len(inputs.datasets), 'data set')}"
    return Table(f"Results{mean}", columns, rows)


def _cells(row: Row, outcome: str) -> tuple[Cell | str, ...]:
    rank, scores = decimal(row.mean_rank, 2), (decimal(row.nll), percent(row.ece))
    if row.delta is None or row.counts is None:
        return percent(row.score), MISSING, Cell("control", tone="quiet"), MISSING, rank, *scores
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(outcome, "")
    interval = "no interval" if row.interval is None else points_range(row.interval.low, row.interval.high)
    p = "" if row.p_adjusted is None else f"adjusted {p_value(row.p_adjusted)}"
    return (
        percent(row.score),
        Cell(points(row.delta), interval, tone),
        Cell(_READINGS.get(outcome, outcome), p, tone),
        f"{row.counts.wins} / {row.counts.ties} / {row.counts.losses}",
        rank,
        *scores,
    )


def accuracy_table(inputs: Inputs) -> Table:
    """Return the mean accuracy of every method on every data set, the best of each row marked."""
    columns = (Column("Data set", align="left"), *(Column(method.name) for method in inputs.methods))
    rows = []
    for dataset in inputs.datasets:
        values = [row.score for _, row in inputs.rows(dataset)]
        best = max(values)
        cells = (Cell(f"{percent(v)}*", tone="best") if v >= best - _SAME else percent(v) for v in values)
        rows.append((dataset, *cells))
    note = "Mean over the repeats, in percent. * marks the best of a row, ties included."
    return Table("Test accuracy by data set", columns, tuple(rows), (note,))


def calibration(inputs: Inputs) -> tuple[Text, Text, Table]:
    """Return why NLL and ECE stand beside accuracy, what they show here, and both with their differences."""
    columns = (
        Column("Method", align="left"),
        Column("Accuracy", "%, higher is better"),
        Column("NLL", "nats, lower is better"),
        Column("Δ NLL"),
        Column("ECE", "%, lower is better"),
        Column("Δ ECE", "points"),
    )
    (_, control), *_ = inputs.rows()
    rows: list[tuple[Cell | str, ...]] = []
    changes: dict[str, tuple[float, float]] = {}
    for method, row in inputs.rows():
        first, second = Cell(MISSING), Cell(MISSING)
        if method is not inputs.control:
            nll, ece = changes[method.name] = _less(row.nll, control.nll), _less(row.ece, control.ece)
            first, second = Cell(signed(nll), tone=_tone(nll, 3)), Cell(points(ece), tone=_tone(100 * ece, 2))
        rows.append((method.name, percent(row.score), decimal(row.nll), first, percent(row.ece), second))
    why = (
        "The expectation loss asks for right answers, not for right probabilities: it drives them towards 0 and 1, and "
        "is known to trade calibration for accuracy. So two measures of the probabilities stand beside it: NLL, the "
        "mean cross entropy on the test rows, and ECE, how far confidence and accuracy lie apart. Lower is better."
    )
    table = Table("Accuracy and calibration on the test rows", columns, tuple(rows))
    return Text(why), Text(_calibration_finding(changes, inputs.control.name)), table


def _less(own: float | None, base: float | None) -> float:
    return math.nan if own is None or base is None else own - base


def _tone(difference: float, digits: int) -> Tone:  # of a measure that is better when lower
    if not math.isfinite(difference) or round(difference, digits) == 0:
        return ""
    return "bad" if difference > 0 else "good"


def _calibration_finding(changes: Mapping[str, tuple[float, float]], control: str) -> str:
    if not all(math.isfinite(value) for pair in changes.values() for value in pair):
        return f"Some of these numbers are missing ({MISSING}) or infinite; they were not recorded as finite."
    worse = {title: (nll > 0) + (ece > 0) for title, (nll, ece) in changes.items()}
    groups = ((2, "worse", "in both"), (1, "worse", "in one of the two"), (0, "no worse", "in either"))
    parts = [
        f"{word} than {control} {where}: {', '.join(title for title, n in worse.items() if n == number)}"
        for number, word, where in groups
        if number in worse.values()
    ]
    advice = " If you use the probabilities themselves, weigh that." if any(worse.values()) else ""
    return f"Here, on average: {'; '.join(parts)}.{advice}"


def learning_rates(inputs: Inputs) -> tuple[Table | Text, ...]:
    """Count how often each learning rate was chosen and at which epoch, and warn of those at an end of the grid.

    Nothing is returned where no rate was recorded.
    """
    results = inputs.results
    if "learning_rate" not in results:
        return ()
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
    note = "Trials in which this learning rate had the best validation accuracy; of equals the first one tried counts."
    blocks: list[Table | Text] = [Table("Learning rates chosen", columns, tuple(rows), (note,))]
    for word, edge in (("largest", grid[0]), ("smallest", grid[-1])) if len(grid) > 1 else ():
        share = rates.eq(edge).groupby(results["method"]).mean()
        names = [f"{m.name} ({share[m.name]:.0%})" for m in inputs.methods if share[m.name] > 0.6]
        if names:
            warning = (
                f"The {word} learning rate of the grid, {edge:g}, was chosen in most trials of {', '.join(names)}: "
                "a wider grid might change these numbers."
            )
            blocks.append(Text(warning, "warn"))
    return tuple(blocks)


def _epochs(own: pd.DataFrame) -> Cell | str:
    if "epoch" not in own or own["epoch"].isna().all():
        return MISSING
    low, middle, high = np.nanquantile(own["epoch"].to_numpy(dtype=float), [0.25, 0.5, 0.75]).tolist()
    return Cell(f"{middle:g}", f"{low:g} to {high:g}")


def losses_table(methods: Sequence[MethodInfo]) -> Table:
    """Return the losses with their formulas and schedules in words."""
    columns = (Column("Method", align="left"), Column("Loss", align="left"))
    return Table("The losses that were compared", columns, tuple((m.name, _formula(m)) for m in methods))


def _formula(method: MethodInfo) -> Cell | str:
    if method.schedule is None:
        text = method.formula or MISSING
    else:
        phases = schedule_phases(method.schedule)
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
        rows.append(
            (
                str(entry["name"]),
                *(written(entry.get(key)) for key in ("source", "rows", "features", "classes")),
                parts,
                Cell(str(used), tone="" if used else "warn"),
                written(entry.get("sha256"))[:12],
            )
        )
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
