"""The report of ``crossfade compare``: its verdict, and the sections that support it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossfade.report import tables
from crossfade.report.charts import DotRow, Line, dot_chart, line_chart, thinned, y_axis
from crossfade.report.inputs import CURVES, Inputs, checked_results, read_inputs
from crossfade.report.page import Block, Code, Facts, Figure, Fold, Items, Key, Page, Panel, Section, Text, render_page
from crossfade.stats import Comparison, compare_methods
from crossfade.stats.words import count, decimal, level, p_value, signed

_TITLE = "Does fading from cross entropy into the expectation loss help?"
_MOST_ENTRIES = 30  # of what is missing, shown unfolded
_MOST_DRAWN = 360  # data sets times methods with drawings of their own: some 1.5 kB each
_FACTS = ("control", "repeats", "seed", "device", "commit")
_AUTOMATIC = {"width": "as many as inputs"}  # what None means in a recipe
_MOST_POINTS = 40_000  # of all curves together: some 7 bytes each


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
    finite = results[np.isfinite(results["accuracy"])]
    comparison = compare_methods(finite, str(meta.get("control", "ce")), missing="drop")
    return render_comparison(comparison, results, curves, meta)


def render_comparison(
    comparison: Comparison, results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]
) -> str:
    """Return the report of a comparison that is analysed already; see `comparison_page` for the other arguments."""
    inputs = read_inputs(comparison, checked_results(results, meta), curves, meta)
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
        found = f"F = {decimal(friedman.f, 2)} (Iman and Davenport), {p_value(friedman.f_p)}"
        if math.isinf(friedman.f):  # its p is 0 however few the data sets are
            found = f"they agree on one order, chi² = {decimal(friedman.chi2, 2)}, {p_value(friedman.chi2_p)}"
        about = f"all {friedman.methods} methods rank alike over {friedman.blocks} data sets"
        notes += (f"Friedman's test that {about}: {found}.",)
    said = tuple(verdict.text for verdict in comparison.headlines)
    yield Fold("The verdict in full, and how to read it", (Items(said), *map(Text, notes)))
    if drawn := curves_figure(inputs, inputs.only_dataset):
        yield Fold("Training curves", (drawn,))
    if rates := tables.learning_rates(inputs):
        yield Fold("Learning rates and epochs", (rates,))
    yield Fold("Calibration, before and after one temperature", (tables.calibration_table(inputs.results),))
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
        if hashes := [f"{entry['sha256']}  {entry['name']}" for entry in meta["datasets"] if entry.get("sha256")]:
            yield Code("\n".join(hashes), "SHA-256")
    if meta.get("notes"):
        yield Items(tuple(map(str, meta["notes"])), "warn")
    yield Facts(tuple((key.capitalize(), tables.written(meta.get(key))) for key in _FACTS))
    for key, title in (("recipe", "Recipe, the same for every method"), ("versions", "Versions")):
        if entries := meta.get(key):
            given = ((k, _AUTOMATIC.get(str(k)) if v is None else v) for k, v in entries.items())
            yield Facts(tuple((tables.spaced(k), tables.written(v)) for k, v in given), title)


def differences_figure(inputs: Inputs, dataset: str | None) -> Figure:
    """Draw differences of the judged score from the control: a dot a repeat of ``dataset``, or (None) a data set."""
    metric, control = inputs.comparison.metric, inputs.control.name
    intervals, wide = inputs.comparison.intervals(dataset), inputs.comparison.differences(dataset) * 100
    rows = []
    for method in inputs.methods[1:]:
        values, span = wide[method.name].to_numpy(dtype=float), intervals.get(method.name)
        bounds = None if span is None else (100 * span.low, 100 * span.high)
        rows.append(DotRow(method.name, method.style, values.tolist(), float(np.mean(values)), bounds))
    dot, where = ("data set", "") if dataset is None else ("repeat", f" on {dataset}")
    title = f"Δ {metric} (points)"
    said = ", ".join(f"{row.label} {signed(row.mean, 2)}" for row in rows)
    name = f"{title} from {control}{where}, one dot a {dot}; means: {said}"
    bar = f"{level(inputs.comparison.confidence)} interval"
    caption = f"Differences from {control}. Dot: a {dot}; diamond: their mean; bar: its {bar}. Right of zero is better."
    return Figure((Panel(dot_chart(rows, title=title, name=name, least=0.5)),), caption)


def curves_figure(inputs: Inputs, dataset: str | None) -> Figure | None:
    """Draw accuracy and NLL over the epochs on one data set, or (None) averaged over all; None without curves."""
    curves = inputs.curves
    if dataset is not None and len(curves):
        curves = curves[curves["dataset"] == dataset]
    recorded = [curve for curve in CURVES if curve[0] in curves]
    if curves.empty or not recorded:
        return None
    names = [column for column, *_ in recorded]
    means = curves.groupby(["epoch", "method"])[names].mean().unstack("method")
    most = max(_MOST_POINTS // (len(inputs.datasets) * len(inputs.methods) * len(CURVES)), 12)
    panels = []
    for column, title, scale, log in recorded:
        wide = means[column] * scale
        epochs = thinned(wide.index.to_numpy(dtype=float).tolist(), most)
        lines, ends = [], []
        for method in (*inputs.methods[1:], inputs.control):  # the control last, on top of the others
            if method.name in wide:
                values = thinned(wide[method.name].to_numpy(dtype=float).tolist(), most)
                end = decimal(values[-1], 2)
                lines.append(Line(method.style, epochs, values, f"{method.name}: {end} at the last epoch"))
                ends.append(f"{method.name} {end}")
        where = "over the data sets" if dataset is None else f"on {dataset}"
        name = f"{title} by epoch {where}; at the last epoch: {', '.join(ends)}"
        reach = (epochs[0], max(epochs[-1], epochs[0] + 1.0))
        y = y_axis(lines, log=log, least=0.02 if log else 0.5, settled=0.1)
        chart = line_chart(lines, y, x_title="epoch", name=name, x_range=reach)
        panels.append(Panel(chart, f"{title}, log scale" if y.log else title))
    caption = "Lines: mean over the data sets; within one, mean accuracy and median NLL over the repeats."
    if dataset is not None:
        caption = (
            "Lines: mean accuracy and median NLL over the repeats, at the learning rate that was chosen. "
            "A steep beginning may lie outside the drawing."
        )
    legend = tuple(Key(method.name, f"line {method.style}") for method in inputs.methods)
    return Figure(tuple(panels), caption, legend)
