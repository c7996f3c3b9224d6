"""The verdict and the tables that rest on `crossfade.stats.compare_methods`."""

from __future__ import annotations

import math

from crossfade.report.inputs import Inputs
from crossfade.report.page import Block, Cell, Column, Items, Section, Table, Text, Tone
from crossfade.report.words import MISSING, count, decimal, listed, percent, points, points_range
from crossfade.stats import Comparison, Row

__all__ = ["care_section", "headline", "results_table"]

_SHORT = {
    "better": "reliable gain",
    "worse": "reliable loss",
    "no reliable difference": "no reliable difference",
    "identical": "identical",
    "one repeat": "one repeat: no interval",
    "no spread": "no spread: no interval",
    "too few data sets": "too few data sets",
    "mixed": "mixed",
}
_SOME = {
    "better": "Reliably more accurate than {control}: {names}.",
    "worse": "Reliably less accurate than {control}: {names}.",
    "no reliable difference": "No reliable difference from {control}: {names}.",
    "identical": "Identical to {control}: {names}.",
    "one repeat": "One repeat carries no interval: nothing follows about {names}.",
    "no spread": "The same difference from {control} in every repeat, so no interval: {names}.",
    "too few data sets": "{datasets} are too few to conclude anything beyond them about {names}.",
    "mixed": "Mixed evidence against {control}: {names}.",
}
_ALL = {
    "better": "All {number} other losses are reliably more accurate than {control}.",
    "worse": "All {number} other losses are reliably less accurate than {control}.",
    "no reliable difference": "None of the {number} other losses differs reliably from {control} in accuracy.",
    "identical": "All {number} other losses have exactly the accuracy of {control}.",
    "one repeat": "One repeat carries no interval: nothing follows about any of the {number} other losses.",
    "no spread": "All {number} other losses differ from {control} by the same in every repeat: no interval.",
    "too few data sets": "{datasets} are too few to conclude anything beyond them.",
    "mixed": "Mixed evidence for all {number} other losses against {control}.",
}


def headline(inputs: Inputs, comparison: Comparison) -> str:
    """What was found about all methods, in one or two sentences, no stronger than the verdicts they sum up."""
    control = inputs.control.title
    found = _outcomes(comparison, None)
    names: dict[str, list[str]] = {}
    for method in inputs.methods[1:]:
        names.setdefault(found[method.name], []).append(method.title)
    many = count(len(comparison.datasets), "data set")
    if len(names) == 1 and len(inputs.methods) > 2:
        everyone = _ALL[next(iter(names))]
        parts = [everyone.format(control=control, number=len(inputs.methods) - 1, datasets=many)]
    else:
        sentences = (
            text.format(control=control, names=listed(names.get(o, ())), datasets=many) for o, text in _SOME.items()
        )
        parts = [sentence for outcome, sentence in zip(_SOME, sentences, strict=True) if outcome in names]
    if len(comparison.datasets) > 1:
        parts.append(_singly(comparison, control))
    return " ".join(parts)


def _singly(comparison: Comparison, control: str) -> str:
    """How many differences are reliable on a data set by itself."""
    single = [v.outcome for v in comparison.verdicts if v.dataset is not None]
    better, worse = single.count("better"), single.count("worse")
    if not better and not worse:
        return f"On no data set by itself does a loss differ reliably from {control}."
    both = [count(n, noun) for n, noun in ((better, "reliable gain"), (worse, "reliable loss")) if n]
    return f"Data set by data set: {' and '.join(both)} in {count(len(single), 'comparison')} with {control}."


def _outcomes(comparison: Comparison, dataset: str | None) -> dict[str, str]:
    """Outcome by method: on one data set, or (None) over all of them."""
    only = comparison.datasets[0] if len(comparison.datasets) == 1 else None
    return {v.method: v.outcome for v in comparison.verdicts if v.dataset == (dataset or only)}


def results_table(inputs: Inputs, comparison: Comparison, dataset: str | None = None) -> Table:
    """A row a method: accuracy, its difference from the control, how often it won, its rank and its calibration.

    Args:
        inputs: the results.
        comparison: of the same results.
        dataset: its repeats; None is over all data sets (or the only one's repeats).
    """
    rows = comparison.overall if dataset is None else [r for r in comparison.rows if r.dataset == dataset]
    over = "data sets" if dataset is None and len(comparison.datasets) > 1 else "repeats"
    columns = (
        Column("Method", align="left"),
        Column("Accuracy", "%"),
        Column("Δ accuracy", f"points, {100 * comparison.confidence:g} % interval"),
        Column("Reading", f"at level {100 * (1 - comparison.confidence):.3g} %", align="left"),
        Column("Wins / ties / losses", over),
        Column("Mean rank", "1 is best"),
        Column("NLL", "nats"),
        Column("ECE", "%"),
    )
    by_method = {row.method: row for row in rows}
    outcomes = _outcomes(comparison, dataset)
    body = tuple(
        _row(method.title, by_method[method.name], outcomes.get(method.name, ""), inputs.control.title)
        for method in inputs.methods
    )
    where = f"Results on {dataset}" if dataset is not None else _where(inputs)
    return Table(where, columns, body)


def _where(inputs: Inputs) -> str:
    if len(inputs.datasets) == 1:
        return f"Results on {inputs.datasets[0]}, mean over the repeats"
    return f"Results, mean over {count(len(inputs.datasets), 'data set')}"


def _row(title: str, row: Row, outcome: str, control: str) -> tuple[Cell | str, ...]:
    scores = (decimal(_or_nan(row.nll)), percent(_or_nan(row.ece)))
    rank = decimal(row.mean_rank, 2)
    if row.delta is None or row.counts is None:
        return title, percent(row.accuracy), MISSING, Cell("control", tone="quiet"), MISSING, rank, *scores
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(outcome, "")
    interval = "no interval" if row.interval is None else points_range(row.interval.low, row.interval.high)
    return (
        title,
        percent(row.accuracy),
        Cell(points(row.delta), interval, tone),
        Cell(_SHORT.get(outcome, outcome), "" if row.p_adjusted is None else _p(row.p_adjusted), tone),
        f"{row.counts.wins} / {row.counts.ties} / {row.counts.losses}",
        rank,
        *scores,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _p(value: float) -> str:
    return "adjusted p < 0.001" if value < 0.001 else f"adjusted p = {value:.3f}"


def care_section(comparison: Comparison) -> Section:
    """What the intervals cover, and reasons for care."""
    blocks: list[Block] = [Items(comparison.warnings, "warn")] if comparison.warnings else []
    blocks += [Text(note) for note in comparison.notes]
    friedman = comparison.friedman
    if friedman is not None:
        p = "p < 0.001" if friedman.f_p < 0.001 else f"p = {friedman.f_p:.3f}"
        blocks.append(
            Text(
                f"Friedman's test that all {friedman.methods} methods rank alike over {friedman.blocks} data sets: "
                f"F = {decimal(friedman.f, 2)} (Iman and Davenport), {p}."
            )
        )
    return Section("care", "How to read these numbers", tuple(blocks))
