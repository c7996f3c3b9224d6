"""The report of ``crossfade compare``: its verdict, and the sections that support it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossfade.report import tables
from crossfade.report.figures import curves_figure, differences_figure
from crossfade.report.inputs import Inputs, checked_results, describe_methods, read_inputs
from crossfade.report.page import Block, Code, Facts, Fold, Items, Page, Section, Text, render_page
from crossfade.stats import Comparison, compare_methods
from crossfade.stats.words import count, decimal, p_value

_TITLE = "Does fading from cross entropy into the expectation loss help?"
_MOST_ENTRIES = 30  # of what is missing, shown unfolded
_MOST_DRAWN = 360  # data sets times methods with drawings of their own: some 1.5 kB each
_FACTS = ("control", "repeats", "seed", "device", "commit")
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
    missing = (*map(str, meta.get("missing", ())), *inputs.gaps)
    caution = f"Not everything ran: see “What was not run” ({count(len(missing), 'entry')})."
    by_set = () if inputs.only_dataset else tuple(_by_dataset(inputs))
    sections = (
        Section("results", "Results", (differences_figure(inputs, inputs.only_dataset), tables.results_table(inputs))),
        Section("datasets", "Data set by data set", by_set),
        Section("more", "More", tuple(_more(inputs, missing))),
    )
    version = (meta.get("versions") or {}).get("crossfade")
    page = Page(
        title=str(meta.get("title") or _TITLE),
        lead=_lead(inputs),
        verdict=(comparison.headline,),
        details=(*comparison.findings, *comparison.warnings, f"Next: {comparison.advice}"),
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


def _by_dataset(inputs: Inputs) -> Iterator[Block]:
    yield Fold(f"All data sets: {inputs.comparison.metric}", (tables.accuracy_table(inputs),))
    pairs = len(inputs.datasets) * len(inputs.methods)
    if pairs > _MOST_DRAWN:
        yield Text(f"{pairs} pairs of data set and method are too many to draw one by one: tables alone.")
    for dataset in inputs.datasets:
        blocks: list[Block] = [Text(inputs.comparison.dataset_lines[dataset]), tables.results_table(inputs, dataset)]
        if pairs <= _MOST_DRAWN:
            blocks += filter(None, (differences_figure(inputs, dataset), curves_figure(inputs, dataset)))
        yield Fold(dataset, tuple(blocks))


def _more(inputs: Inputs, missing: Sequence[str]) -> Iterator[Block]:
    if missing:
        yield Fold("What was not run", (Items(tuple(missing)),), open=len(missing) <= _MOST_ENTRIES)
    yield Fold("The methods", (tables.losses_table(inputs.methods),))
    comparison, friedman = inputs.comparison, inputs.comparison.friedman
    notes = comparison.notes
    if friedman is not None:
        notes += (
            f"Friedman's test that all {friedman.methods} methods rank alike over {friedman.blocks} data sets: "
            f"F = {decimal(friedman.f, 2)} (Iman and Davenport), {p_value(friedman.f_p)}.",
        )
    said = tuple(verdict.text for verdict in comparison.headlines)
    yield Fold("The verdict in full, and how to read it", (Items(said), *map(Text, notes)))
    drawn = curves_figure(inputs, inputs.only_dataset)
    if drawn:
        yield Fold("Training curves", (drawn,))
    if rates := tables.learning_rates(inputs):
        yield Fold("Learning rates and epochs", (rates,))
    yield Fold("What was run, and how to run it again", tuple(_run(inputs, complete=not missing)))


def _run(inputs: Inputs, complete: bool) -> Iterator[Block]:
    meta = inputs.meta
    if meta.get("command"):
        yield Code(str(meta["command"]), "Run again with")
    versions = meta.get("versions") or {}
    exact = " and ".join(f"{name}=={versions[name]}" for name in ("crossfade", "torch") if name in versions)
    yield Text(
        f"The same data and command{f' with {exact}' if exact else ''} give the same splits, initial weights and "
        "batches: their seeds depend on the data set and the repeat, and never on the method, so every difference on "
        "this page is paired. Another processor or version may round sums differently, which can move single trials."
    )
    if complete:
        yield Text(f"Nothing is missing: all {count(len(inputs.results), 'trial')} finished and are on this page.")
    if meta.get("datasets"):
        yield tables.data_table(inputs)
        yield Code("\n".join(f"{entry.get('sha256')}  {entry['name']}" for entry in meta["datasets"]), "SHA-256")
    if meta.get("notes"):
        yield Items(tuple(map(str, meta["notes"])), "warn")
    yield Facts(tuple((key.capitalize(), tables.written(meta.get(key))) for key in _FACTS))
    for key, title in (("recipe", "Recipe, the same for every method"), ("versions", "Versions")):
        entries = meta.get(key)
        if entries:
            given = ((k, _AUTOMATIC.get(str(k)) if v is None else v) for k, v in entries.items())
            yield Facts(tuple((tables.spaced(k), tables.written(v)) for k, v in given), title)
