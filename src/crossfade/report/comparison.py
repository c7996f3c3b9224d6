"""The report of ``crossfade compare``: its verdict, and the sections that support it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from crossfade.report import tables
from crossfade.report.figures import curves_figure, differences_figure, schedule_figure
from crossfade.report.inputs import Inputs, checked_results, describe_methods, read_inputs
from crossfade.report.page import Block, Code, Facts, Fold, Items, Page, Section, Text, render_page
from crossfade.stats import Comparison, compare_methods
from crossfade.stats.words import count, decimal, level, p_value

_TITLE = "Does fading from cross entropy into the expectation loss help?"
_FEW = 4  # so many data sets are shown unfolded
_MOST_LINES = 12
_MOST_ENTRIES = 30  # of what is missing, shown unfolded
_MOST_DRAWN = 360  # data sets times methods with drawings of their own: some 1.5 kB each
_AUTOMATIC = {"width": "as many as inputs"}  # what None means in a recipe


def comparison_page(results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> str:
    """Analyze a comparison and return its report as one self-contained HTML file.

    Repeats in which a method has no (finite) accuracy are left out for every method, and the page says which. The page
    holds no date and nothing random: the same input gives the same text.

    Args:
        results: a row a trial: dataset, method, repeat, accuracy, n_train, n_test, and, where known, nll, ece,
            learning_rate and epoch. Accuracy and ECE are fractions.
        curves: a row an epoch: dataset, method, repeat, epoch, val_accuracy, test_accuracy, test_nll. May be empty, or
            without the column repeat: the means that `mean_curves` gives of the repeats that count.
        meta: what was run, all of it optional: title, command, recipe, versions, device, commit, datasets, methods
            (name, title, schedule as (progress, alpha, beta) or None, g), control (default ``"ce"``), missing, seed,
            repeats.

    Returns:
        HTML text; write it as UTF-8.

    Raises:
        UserError: a column is missing, a result occurs twice, an accuracy is not a fraction, the control or every other
            method has no result, or no repeat has all methods.
    """
    results = checked_results(results, meta)
    methods = describe_methods(results, meta)
    comparison = compare_methods(
        results[np.isfinite(results["accuracy"])],
        methods[0].name,
        missing="drop",
    )
    return render_comparison(comparison, results, curves, meta)


def render_comparison(
    comparison: Comparison, results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]
) -> str:
    """Return the report of a comparison that is analysed already; see `comparison_page` for the other arguments."""
    inputs = read_inputs(comparison, results, curves, meta)
    drawn = curves_figure(inputs, inputs.only_dataset)
    losses: tuple[Block | None, ...] = (tables.losses_table(inputs.methods), schedule_figure(inputs.methods))
    sections = (
        Section("results", "Results", tuple(_results(inputs))),
        Section("care", "How to read these numbers", tuple(_care(inputs.comparison))),
        Section("calibration", "Calibration", _calibration(inputs)),
        Section("curves", "Training curves", (drawn or Text("No training curves were recorded."),)),
        Section("datasets", "Data set by data set", () if inputs.only_dataset else tuple(_by_dataset(inputs))),
        Section("losses", "Losses and schedules", tuple(filter(None, losses))),
        Section("rates", "Learning rates", tables.learning_rates(inputs)),
        Section("run", "What was run", tuple(_run(inputs))),
        Section("not-run", "What was not run", tuple(_not_run(inputs))),
        Section("reproduce", "How to reproduce it", tuple(_reproduce(inputs))),
    )
    details = _verdict_lines(inputs)
    if _says_the_same_of_all(inputs):
        by_set = tuple(inputs.comparison.dataset_lines[name] for name in inputs.datasets)[:_MOST_LINES]
        details = (*by_set, *inputs.comparison.findings)
    missing = len(inputs.gaps) + len(meta.get("missing", ()))
    caution = f"Not everything ran: see “What was not run” ({count(missing, 'entry')})."
    version = (meta.get("versions") or {}).get("crossfade")
    page = Page(
        title=str(meta.get("title") or _TITLE),
        lead=_lead(inputs),
        verdict=(comparison.headline,),
        details=details,
        caution=caution if missing else "",
        sections=tuple(section for section in sections if section.blocks),
        footer=f"Written by crossfade {version}." if version else "Written by crossfade.",
    )
    return render_page(page)


def _lead(inputs: Inputs) -> str:
    others = count(len(inputs.methods) - 1, "other loss")
    fewest, most = min(inputs.repeats.values()), max(inputs.repeats.values())
    repeats = count(most, "repeat") if fewest == most else f"{fewest} to {most} repeats"
    where = inputs.only_dataset or count(len(inputs.datasets), "data set")
    return f"{inputs.control.name} against {others} on {where}, {repeats}, everything but the loss the same."


def _verdict_lines(inputs: Inputs) -> tuple[str, ...]:
    lines = {verdict.method: verdict.text for verdict in inputs.comparison.headlines}
    return (*(lines[one.name] for one in inputs.methods if one.name in lines), *inputs.comparison.findings)


def _says_the_same_of_all(inputs: Inputs) -> bool:
    """Say whether the verdicts over data sets differ in nothing but the method, and belong lower down."""
    return all(verdict.outcome == "too few data sets" for verdict in inputs.comparison.overall_verdicts)


def _results(inputs: Inputs) -> Iterator[Block]:
    yield tables.results_table(inputs)
    if _says_the_same_of_all(inputs):
        yield Fold("Method by method, in words", (Items(_verdict_lines(inputs)),))
    what = f"Accuracy less that of {inputs.control.name} on the same split"
    reading = f"; bar: its {level(inputs.comparison.confidence)} interval. Right of zero is better"
    yield differences_figure(inputs, ("accuracy",), inputs.only_dataset, what, reading)
    if not inputs.only_dataset:
        yield tables.accuracy_table(inputs)


def _care(comparison: Comparison) -> Iterator[Block]:
    if comparison.cautions:
        yield Items(comparison.cautions, "warn")
    yield from map(Text, comparison.notes)
    friedman = comparison.friedman
    if friedman is not None:
        yield Text(
            f"Friedman's test that all {friedman.methods} methods rank alike over {friedman.blocks} data sets: "
            f"F = {decimal(friedman.f, 2)} (Iman and Davenport), {p_value(friedman.f_p)}."
        )


def _calibration(inputs: Inputs) -> tuple[Block, ...]:
    what = f"Differences from {inputs.control.name}"
    figure = differences_figure(inputs, ("nll", "ece"), inputs.only_dataset, what, ". Left of zero is better")
    return (*tables.calibration(inputs), figure)


def _by_dataset(inputs: Inputs) -> Iterator[Block]:
    pairs = len(inputs.datasets) * len(inputs.methods)
    drawn = pairs <= _MOST_DRAWN
    if not drawn:
        yield Text(f"{pairs} pairs of data set and method are too many to draw one by one: tables alone.")
    for dataset in inputs.datasets:
        blocks: list[Block] = [Text(inputs.comparison.dataset_lines[dataset]), tables.results_table(inputs, dataset)]
        if drawn:
            what = f"Accuracy less that of {inputs.control.name} in the same repeat"
            figures = (differences_figure(inputs, ("accuracy",), dataset, what), curves_figure(inputs, dataset))
            blocks += [figure for figure in figures if figure]
        yield Fold(dataset, tuple(blocks), open=len(inputs.datasets) <= _FEW)


def _run(inputs: Inputs) -> Iterator[Block]:
    meta = inputs.meta
    if meta.get("datasets"):
        yield tables.data_table(inputs)
        hashes = [f"{entry['sha256']}  {entry['name']}" for entry in meta["datasets"] if entry.get("sha256")]
        if hashes:
            yield Fold("SHA-256 of the data, in full", (Code("\n".join(hashes)),))
    if meta.get("notes"):
        yield Items(tuple(map(str, meta["notes"])), "warn")
    control = ("Control", inputs.control.name)
    facts = ((key.capitalize(), tables.written(meta.get(key))) for key in ("repeats", "seed", "device", "commit"))
    yield Facts((control, *facts))
    for key, title in (("recipe", "Recipe, the same for every method"), ("versions", "Versions")):
        entries = meta.get(key)
        if entries:
            given = ((k, _AUTOMATIC.get(str(k)) if v is None else v) for k, v in entries.items())
            yield Facts(tuple((tables.spaced(k), tables.written(v)) for k, v in given), title)


def _not_run(inputs: Inputs) -> Iterator[Block]:
    """Yield everything that was asked for and has no result, and what was left out because of it."""
    said = tuple(map(str, inputs.meta.get("missing", ())))
    for heading, items in (("Reported by the run:", said), ("Found missing in the results:", inputs.gaps)):
        if items:
            yield Text(heading)
            yield Items(items) if len(items) <= _MOST_ENTRIES else Fold(count(len(items), "entry"), (Items(items),))
    if not said and not inputs.gaps:
        trials = count(len(inputs.results), "trial")
        yield Text(f"Nothing is missing: all {trials} of this comparison finished and are on this page.")


def _reproduce(inputs: Inputs) -> Iterator[Block]:
    if inputs.meta.get("command"):
        yield Code(str(inputs.meta["command"]), "Run again with")
    versions = inputs.meta.get("versions") or {}
    exact = " and ".join(f"{name}=={versions[name]}" for name in ("crossfade", "torch") if name in versions)
    yield Text(
        f"The same data and command{f' with {exact}' if exact else ''} give the same splits, initial weights and "
        "batches: their seeds depend on the data set and the repeat, and never on the method, so every difference on "
        "this page is paired. Another processor or version may round sums differently, which can move single trials."
    )
