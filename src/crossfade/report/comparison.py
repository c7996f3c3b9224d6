"""`comparison_page`: the report of ``crossfade compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from crossfade.report import provenance, tables
from crossfade.report.figures import curves_figure, differences_figure, overall_curves_figure
from crossfade.report.inputs import Inputs, read_inputs
from crossfade.report.page import Block, Fold, Items, Page, Section, Text, render_page
from crossfade.report.summary import care_section, headline, results_table
from crossfade.report.words import count
from crossfade.stats import Comparison, Row, compare_methods

__all__ = ["comparison_page"]

_TITLE = "Does fading from cross entropy into the expectation loss help?"
_FEW = 4  # so many data sets are shown unfolded
_MOST_LINES = 12
_MOST_DRAWN = 360  # data sets times methods with drawings of their own: some 1.5 kB each


def comparison_page(results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> str:
    """The report of a comparison as one self-contained HTML file.

    Repeats in which a method has no (finite) accuracy are left out for every method, and the page says which. The page
    holds no date and nothing random: the same input gives the same text.

    Args:
        results: a row a trial: dataset, method, repeat, accuracy, n_train, n_test, and, where known, nll, ece,
            learning_rate and epoch. Accuracy and ECE are fractions.
        curves: a row an epoch: dataset, method, repeat, epoch, val_accuracy, test_accuracy, test_nll. May be empty.
        meta: what was run, all of it optional: title, command, recipe, versions, device, commit, datasets, methods
            (name, title, schedule as (progress, alpha, beta) or None, g), control (default ``"ce"``), missing, seed,
            repeats.

    Returns:
        HTML text; write it as UTF-8.

    Raises:
        UserError: a column is missing, a result occurs twice, an accuracy is not a fraction, the control or every other
            method has no result, or no repeat has all methods.
    """
    inputs = read_inputs(results, curves, meta)
    titles = {method.name: method.title for method in inputs.methods}
    comparison = compare_methods(inputs.results, inputs.control.name, titles=titles)
    return render_page(_page(inputs, comparison))


def _page(inputs: Inputs, comparison: Comparison) -> Page:
    several = len(inputs.datasets) > 1
    lines, _ = _lines(inputs, comparison)
    missing = len(inputs.gaps) + len(inputs.meta.get("missing", ()))
    caution = f"Not everything ran: see “What was not run” ({count(missing, 'entry')})."
    sections = [
        Section("results", "Results", _results(inputs, comparison)),
        care_section(comparison),
        Section("calibration", "Calibration", _calibration(inputs)),
        Section("curves", "Training curves", _overall_curves(inputs)),
    ]
    if several:
        sections.append(Section("datasets", "Data set by data set", _by_dataset(inputs, comparison)))
    sections += [
        provenance.losses_section(inputs),
        *_learning_rates(inputs),
        provenance.run_section(inputs),
        provenance.not_run_section(inputs),
        provenance.reproduce_section(inputs),
    ]
    version = (inputs.meta.get("versions") or {}).get("crossfade")
    return Page(
        title=str(inputs.meta.get("title") or _TITLE),
        lead=_lead(inputs),
        verdict=(headline(inputs, comparison),),
        details=tuple(lines),
        caution=caution if missing else "",
        sections=tuple(sections),
        footer=f"Written by crossfade {version}." if version else "Written by crossfade.",
    )


def _lines(inputs: Inputs, comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences for the verdict, and those that say the same of every method and stand lower down."""
    by_method, by_dataset = comparison.lines[: len(inputs.methods) - 1], comparison.lines[len(inputs.methods) - 1 :]
    if by_dataset and all(v.outcome == "too few data sets" for v in comparison.verdicts[: len(by_method)]):
        return by_dataset[:_MOST_LINES], by_method
    return by_method, ()


def _lead(inputs: Inputs) -> str:
    others = count(len(inputs.methods) - 1, "other loss")
    fewest, most = int(inputs.repeats.min()), int(inputs.repeats.max())
    repeats = count(most, "repeat") if fewest == most else f"{fewest} to {most} repeats"
    where = inputs.datasets[0] if len(inputs.datasets) == 1 else count(len(inputs.datasets), "data set")
    return f"{inputs.control.title} against {others} on {where}, {repeats}, everything but the loss the same."


def _results(inputs: Inputs, comparison: Comparison) -> tuple[Block, ...]:
    several = len(inputs.datasets) > 1
    level = f"{100 * comparison.confidence:g} %"
    dot = "data set" if several else "repeat"
    caption = (
        f"Accuracy less that of {inputs.control.title} on the same split. Dots: one a {dot}; diamond: their mean; "
        f"bar: its {level} interval. Right of zero is better."
    )
    only = None if several else inputs.datasets[0]
    intervals = _intervals(comparison.overall)
    figure = differences_figure(inputs, ("accuracy",), caption, dataset=only, intervals=intervals)
    _, words = _lines(inputs, comparison)
    folded = (Fold("Method by method, in words", (Items(words),)),) if words else ()
    blocks: tuple[Block, ...] = (results_table(inputs, comparison), *folded, figure)
    return (*blocks, tables.accuracy_table(inputs)) if several else blocks


def _calibration(inputs: Inputs) -> tuple[Block, ...]:
    only = inputs.datasets[0] if len(inputs.datasets) == 1 else None
    dot = "repeat" if only else "data set"
    caption = (
        f"Differences from {inputs.control.title}. Dots: one a {dot}; diamond: their mean. Left of zero is better."
    )
    figure = differences_figure(inputs, ("nll", "ece"), caption, dataset=only)
    return (*(Text(text) for text in tables.calibration_sentences(inputs)), tables.calibration_table(inputs), figure)


def _overall_curves(inputs: Inputs) -> tuple[Block, ...]:
    only = len(inputs.datasets) == 1
    figure = curves_figure(inputs, inputs.datasets[0]) if only else overall_curves_figure(inputs)
    return (figure,) if figure else (Text("No training curves were recorded."),)


def _by_dataset(inputs: Inputs, comparison: Comparison) -> tuple[Block, ...]:
    lines = dict(zip(comparison.datasets, comparison.lines[len(inputs.methods) - 1 :], strict=True))
    pairs = len(inputs.datasets) * len(inputs.methods)
    drawn = pairs <= _MOST_DRAWN
    folds: list[Block] = []
    if not drawn:
        folds.append(Text(f"{pairs} pairs of data set and method are too many to draw one by one: tables alone."))
    for dataset in inputs.datasets:
        drawings = _drawings(inputs, comparison, dataset) if drawn else ()
        blocks = (Text(lines[dataset]), results_table(inputs, comparison, dataset), *drawings)
        folds.append(Fold(dataset, blocks, open=len(inputs.datasets) <= _FEW))
    return tuple(folds)


def _drawings(inputs: Inputs, comparison: Comparison, dataset: str) -> tuple[Block, ...]:
    caption = (
        f"Accuracy less that of {inputs.control.title} in the same repeat. Dots: one a repeat; diamond: their mean."
    )
    rows = [row for row in comparison.rows if row.dataset == dataset]
    dots = differences_figure(inputs, ("accuracy",), caption, dataset=dataset, intervals=_intervals(rows))
    curves = curves_figure(inputs, dataset)
    return (dots, curves) if curves else (dots,)


def _intervals(rows: Sequence[Row]) -> dict[str, tuple[float, float] | None]:
    return {row.method: (row.interval.low, row.interval.high) if row.interval else None for row in rows}


def _learning_rates(inputs: Inputs) -> list[Section]:
    table = tables.learning_rate_table(inputs)
    if table is None:
        return []
    notes = (Text(note, "warn") for note in tables.learning_rate_notes(inputs))
    return [Section("rates", "Learning rates", (table, *notes))]
