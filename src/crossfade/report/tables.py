"""The tables of a comparison that need no inference: accuracy by data set, calibration, learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from crossfade.report.inputs import Inputs
from crossfade.report.page import Cell, Column, Table, Tone
from crossfade.report.words import MISSING, decimal, percent, points, signed

__all__ = ["accuracy_table", "calibration_sentences", "calibration_table", "learning_rate_notes", "learning_rate_table"]

_SAME = 1e-12  # means that differ by less differ by the order of a sum


def accuracy_table(inputs: Inputs) -> Table:
    """Mean accuracy of every method on every data set, the best of each row marked."""
    wide = inputs.cells["accuracy"].unstack("method")
    columns = (Column("Data set", align="left"), *(Column(method.title) for method in inputs.methods))
    rows = []
    for dataset in inputs.datasets:
        values = [float(wide[method.name][dataset]) for method in inputs.methods]
        best = max(values)
        cells = (Cell(f"{percent(v)}*", tone="best") if v >= best - _SAME else percent(v) for v in values)
        rows.append((dataset, *cells))
    note = "Mean over the repeats, in percent. * marks the best of a row, ties included."
    return Table("Test accuracy by data set", columns, tuple(rows), (note,))


def calibration_table(inputs: Inputs) -> Table:
    """NLL and ECE beside accuracy, with their differences from the control."""
    columns = (
        Column("Method", align="left"),
        Column("Accuracy", "%, higher is better"),
        Column("NLL", "nats, lower is better"),
        Column("Δ NLL"),
        Column("ECE", "%, lower is better"),
        Column("Δ ECE", "points"),
    )
    rows: list[tuple[Cell | str, ...]] = []
    for method in inputs.methods:
        nll, ece = (inputs.mean(method, metric, change=True) for metric in ("nll", "ece"))
        changes = (Cell(signed(nll), tone=_tone(nll, 3)), Cell(points(ece), tone=_tone(100 * ece, 2)))
        first, second = changes if method is not inputs.control else (MISSING, MISSING)
        accuracy, own_nll, own_ece = (inputs.mean(method, metric) for metric in ("accuracy", "nll", "ece"))
        rows.append((method.title, percent(accuracy), decimal(own_nll), first, percent(own_ece), second))
    return Table("Accuracy and calibration on the test rows", columns, tuple(rows))


def _tone(difference: float, digits: int) -> Tone:  # of a measure that is better when lower
    if not math.isfinite(difference) or round(difference, digits) == 0:
        return ""
    return "bad" if difference > 0 else "good"


def calibration_sentences(inputs: Inputs) -> tuple[str, ...]:
    """Why these columns stand beside accuracy, and what they say here."""
    why = (
        "The expectation loss asks for right answers, not for right probabilities: it drives them towards 0 and 1, and "
        "is known to trade calibration for accuracy. So two measures of the probabilities stand beside it: NLL, the "
        "mean cross entropy on the test rows, and ECE, how far confidence and accuracy lie apart. Lower is better."
    )
    changes = {m.title: [inputs.mean(m, metric, change=True) for metric in ("nll", "ece")] for m in inputs.methods[1:]}
    both = [title for title, (nll, ece) in changes.items() if nll > 0 and ece > 0]
    one = [title for title, (nll, ece) in changes.items() if (nll > 0) != (ece > 0)]
    if not all(math.isfinite(value) for pair in changes.values() for value in pair):
        return why, f"Some of these numbers are missing ({MISSING}) or infinite; they were not recorded as finite."
    control = inputs.control.title
    rest = [title for title in changes if title not in (*both, *one)]
    groups = (("worse", both, "in both"), ("worse", one, "in one of the two"), ("no worse", rest, "in either"))
    here = [f"{word} than {control} {where}: {', '.join(titles)}" for word, titles, where in groups if titles]
    advice = " If you use the probabilities themselves, weigh that." if both or one else ""
    return why, f"Here, on average: {'; '.join(here)}.{advice}"


def learning_rate_table(inputs: Inputs) -> Table | None:
    """How often each learning rate was chosen, and at which epoch; None where neither was recorded."""
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
    """A warning for each method that mostly took an end of the grid: better rates may lie outside."""
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
