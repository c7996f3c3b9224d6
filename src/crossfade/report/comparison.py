"""The report of ``crossfade compare``: its verdict, and the sections that support it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.report import provenance, tables
from crossfade.report.figures import curves_figure, differences_figure, overall_curves_figure
from crossfade.report.inputs import Inputs, checked_results, describe_methods, read_inputs
from crossfade.report.page import Block, Fold, Items, Page, Section, Text, render_page
from crossfade.stats import Comparison, compare_methods
from crossfade.stats.words import count, decimal, level, listed, p_value

_TITLE = "Does fading from cross entropy into the expectation loss help?"
_FEW = 4  # so many data sets are shown unfolded
_MOST_LINES = 12
_MOST_DRAWN = 360  # data sets times methods with drawings of their own: some 1.5 kB each
# What an outcome says of some methods, and what it says where it is that of all.
_FINDINGS = {
    "better": (
        "Reliably more accurate than {control}: {names}.",
        "All {number} other losses are reliably more accurate than {control}.",
    ),
    "worse": (
        "Reliably less accurate than {control}: {names}.",
        "All {number} other losses are reliably less accurate than {control}.",
    ),
    "no reliable difference": (
        "No reliable difference from {control}: {names}.",
        "None of the {number} other losses differs reliably from {control} in accuracy.",
    ),
    "identical": (
        "Identical to {control}: {names}.",
        "All {number} other losses have exactly the accuracy of {control}.",
    ),
    "one repeat": (
        "One repeat carries no interval: nothing follows about {names}.",
        "One repeat carries no interval: nothing follows about any of the {number} other losses.",
    ),
    "no spread": (
        "The same difference from {control} in every repeat, so no interval: {names}.",
        "All {number} other losses differ from {control} by the same in every repeat: no interval.",
    ),
    "too few data sets": (
        "{datasets} are too few to conclude anything beyond them about {names}.",
        "{datasets} are too few to conclude anything beyond them.",
    ),
    "mixed": (
        "Mixed evidence against {control}: {names}.",
        "Mixed evidence for all {number} other losses against {control}.",
    ),
}


def comparison_page(results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> str:
    """Analyze a comparison and return its report as one self-contained HTML file.

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
    results = checked_results(results, meta)
    usable = results[np.isfinite(results["accuracy"])]
    control, *others = describe_methods(results, meta)
    if control.name not in set(usable["method"]):
        raise UserError(
            f"results: no result of the control {control.name!r}, which the other methods are compared with"
        )
    titles = {method.name: method.title for method in (control, *others)}
    comparison = compare_methods(usable, control.name, missing="drop", titles=titles)
    return render_comparison(comparison, results, curves, meta)


def render_comparison(
    comparison: Comparison, results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]
) -> str:
    """Return the report of a comparison that is analysed already; see `comparison_page` for the other arguments."""
    return render_page(_page(read_inputs(comparison, results, curves, meta)))


def _page(inputs: Inputs) -> Page:
    sections = [
        Section("results", "Results", _results(inputs)),
        Section("care", "How to read these numbers", _care(inputs.comparison)),
        Section("calibration", "Calibration", _calibration(inputs)),
        Section("curves", "Training curves", _overall_curves(inputs)),
    ]
    if not inputs.only_dataset:
        sections.append(Section("datasets", "Data set by data set", tuple(_by_dataset(inputs))))
    rates = tables.learning_rate_table(inputs)
    sections.append(provenance.losses_section(inputs))
    if rates is not None:
        notes = (Text(note, "warn") for note in tables.learning_rate_notes(inputs))
        sections.append(Section("rates", "Learning rates", (rates, *notes)))
    sections += [
        provenance.run_section(inputs),
        provenance.not_run_section(inputs),
        provenance.reproduce_section(inputs),
    ]
    missing = len(inputs.gaps) + len(inputs.meta.get("missing", ()))
    caution = f"Not everything ran: see “What was not run” ({count(missing, 'entry')})."
    version = (inputs.meta.get("versions") or {}).get("crossfade")
    return Page(
        title=str(inputs.meta.get("title") or _TITLE),
        lead=_lead(inputs),
        verdict=(_headline(inputs),),
        details=_details(inputs),
        caution=caution if missing else "",
        sections=tuple(sections),
        footer=f"Written by crossfade {version}." if version else "Written by crossfade.",
    )


def _lead(inputs: Inputs) -> str:
    others = count(len(inputs.methods) - 1, "other loss")
    fewest, most = min(inputs.repeats.values()), max(inputs.repeats.values())
    repeats = count(most, "repeat") if fewest == most else f"{fewest} to {most} repeats"
    where = inputs.only_dataset or count(len(inputs.datasets), "data set")
    return f"{inputs.control.title} against {others} on {where}, {repeats}, everything but the loss the same."


def _headline(inputs: Inputs) -> str:
    """Say in one or two sentences what was found about all methods, no stronger than the verdicts they sum up."""
    control, others = inputs.control.title, inputs.methods[1:]
    outcomes = {v.method: v.outcome for v in inputs.comparison.overall_verdicts}
    names: dict[str, list[str]] = {}
    for method in others:
        names.setdefault(outcomes[method.name], []).append(method.title)
    everyone = len(names) == 1 and len(others) > 1
    words = {"control": control, "number": len(others), "datasets": count(len(inputs.datasets), "data set")}
    parts = [
        sentences[everyone].format(names=listed(names[outcome], 12), **words)
        for outcome, sentences in _FINDINGS.items()
        if outcome in names
    ]
    if inputs.only_dataset:
        return " ".join(parts)
    single = [v.outcome for v in inputs.comparison.verdicts if v.dataset is not None]
    reliable = ((single.count("better"), "reliable gain"), (single.count("worse"), "reliable loss"))
    found = " and ".join(count(number, noun) for number, noun in reliable if number)
    if found:
        parts.append(f"Data set by data set: {found} in {count(len(single), 'comparison')} with {control}.")
    else:
        parts.append(f"On no data set by itself does a loss differ reliably from {control}.")
    return " ".join(parts)


def _verdict_lines(inputs: Inputs) -> tuple[str, ...]:
    lines = {verdict.method: verdict.text for verdict in inputs.comparison.overall_verdicts}
    return tuple(lines[method.name] for method in inputs.methods[1:])


def _says_the_same_of_all(inputs: Inputs) -> bool:
    """Say whether the verdicts over data sets differ in nothing but the method, and belong lower down."""
    return all(verdict.outcome == "too few data sets" for verdict in inputs.comparison.overall_verdicts)


def _details(inputs: Inputs) -> tuple[str, ...]:
    if _says_the_same_of_all(inputs):
        return tuple(inputs.comparison.dataset_lines[name] for name in inputs.datasets)[:_MOST_LINES]
    return _verdict_lines(inputs)


def _results(inputs: Inputs) -> tuple[Block, ...]:
    only = inputs.only_dataset
    caption = (
        f"Accuracy less that of {inputs.control.title} on the same split. Dots: one a "
        f"{'repeat' if only else 'data set'}; diamond: their mean; bar: its {level(inputs.comparison.confidence)} "
        "interval. Right of zero is better."
    )
    blocks: list[Block] = [tables.results_table(inputs)]
    if _says_the_same_of_all(inputs):
        blocks.append(Fold("Method by method, in words", (Items(_verdict_lines(inputs)),)))
    blocks.append(differences_figure(inputs, ("accuracy",), caption, dataset=only))
    return tuple(blocks) if only else (*blocks, tables.accuracy_table(inputs))


def _care(comparison: Comparison) -> tuple[Block, ...]:
    blocks: list[Block] = [Items(comparison.cautions, "warn")] if comparison.cautions else []
    blocks += [Text(note) for note in comparison.notes]
    friedman = comparison.friedman
    if friedman is not None:
        blocks.append(
            Text(
                f"Friedman's test that all {friedman.methods} methods rank alike over {friedman.blocks} data sets: "
                f"F = {decimal(friedman.f, 2)} (Iman and Davenport), {p_value(friedman.f_p)}."
            )
        )
    return tuple(blocks)


def _calibration(inputs: Inputs) -> tuple[Block, ...]:
    caption = (
        f"Differences from {inputs.control.title}. Dots: one a {'repeat' if inputs.only_dataset else 'data set'}; "
        "diamond: their mean. Left of zero is better."
    )
    figure = differences_figure(inputs, ("nll", "ece"), caption, dataset=inputs.only_dataset)
    return (*tables.calibration_sentences(inputs), tables.calibration_table(inputs), figure)


def _overall_curves(inputs: Inputs) -> tuple[Block, ...]:
    only = inputs.only_dataset
    figure = curves_figure(inputs, only) if only else overall_curves_figure(inputs)
    return (figure or Text("No training curves were recorded."),)


def _by_dataset(inputs: Inputs) -> Iterable[Block]:
    pairs = len(inputs.datasets) * len(inputs.methods)
    drawn = pairs <= _MOST_DRAWN
    if not drawn:
        yield Text(f"{pairs} pairs of data set and method are too many to draw one by one: tables alone.")
    for dataset in inputs.datasets:
        drawings = _drawings(inputs, dataset) if drawn else ()
        line = Text(inputs.comparison.dataset_lines[dataset])
        blocks = (line, tables.results_table(inputs, dataset), *drawings)
        yield Fold(dataset, blocks, open=len(inputs.datasets) <= _FEW)


def _drawings(inputs: Inputs, dataset: str) -> tuple[Block, ...]:
    caption = (
        f"Accuracy less that of {inputs.control.title} in the same repeat. Dots: one a repeat; diamond: their mean."
    )
    dots = differences_figure(inputs, ("accuracy",), caption, dataset=dataset)
    curves = curves_figure(inputs, dataset)
    return (dots, curves) if curves else (dots,)
