"""The figures of a comparison: paired differences, training curves, schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from crossfade.report.charts import DotRow, Line, dot_chart, line_chart, thinned
from crossfade.report.inputs import Inputs, MethodInfo
from crossfade.report.page import Figure, Key, Panel
from crossfade.report.svg import log_axis
from crossfade.report.words import decimal, signed

__all__ = ["curves_figure", "differences_figure", "legend", "overall_curves_figure"]

_UNITS = {"accuracy": "Δ accuracy (points)", "nll": "Δ NLL (nats)", "ece": "Δ ECE (points)"}
_SCALES = {"accuracy": 100.0, "nll": 1.0, "ece": 100.0}
_LEAST = {"accuracy": 0.5, "nll": 0.02, "ece": 0.5}
_MOST_POINTS = 40_000  # of all curves together: some 7 bytes each
_CURVES = (
    ("val_accuracy", "Validation accuracy (%)", 100.0, False),
    ("test_accuracy", "Test accuracy (%)", 100.0, False),
    ("test_nll", "Test NLL (nats)", 1.0, True),
)


def legend(methods: Sequence[MethodInfo]) -> tuple[Key, ...]:
    """One entry for each method."""
    return tuple(Key(method.title, f"line {method.style}") for method in methods)


def differences_figure(
    inputs: Inputs,
    metrics: Sequence[str],
    caption: str,
    *,
    dataset: str | None = None,
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
) -> Figure:
    """Differences from the control, a panel a metric: one dot a repeat of ``dataset``, or one a data set.

    Args:
        inputs: the results.
        metrics: of accuracy, nll and ece.
        caption: below the figure.
        dataset: draw its repeats; None draws the means of the data sets.
        intervals: of the first metric, by method.
    """
    panels = []
    for k, metric in enumerate(metrics):
        wide = inputs.differences(metric) * _SCALES[metric]
        by_dataset = wide.groupby(level="dataset", sort=False).mean()
        part = by_dataset if dataset is None else wide.loc[[dataset]]
        rows, said = [], []
        for method in inputs.methods[1:]:
            values = part[method.name].to_numpy(dtype=float)
            mean = float(np.mean(values))
            bounds = (intervals or {}).get(method.name) if k == 0 else None
            scaled = None if bounds is None else (bounds[0] * _SCALES[metric], bounds[1] * _SCALES[metric])
            rows.append(DotRow(method.title, method.style, values.tolist(), mean, scaled))
            said.append(f"{method.title} {signed(mean, 2)}")
        dot = "repeat" if dataset is not None else "data set"
        where = "" if dataset is None else f" on {dataset}"
        name = f"{_UNITS[metric]} from {inputs.control.title}{where}, one dot a {dot}; means: {', '.join(said)}"
        panels.append(Panel(dot_chart(rows, title=_UNITS[metric], name=name, least=_LEAST[metric]), _UNITS[metric]))
    return Figure(tuple(panels), caption)


def curves_figure(inputs: Inputs, dataset: str) -> Figure | None:
    """Accuracy and NLL over the epochs on one data set; None where no curves were recorded."""
    curves = inputs.curves[inputs.curves["dataset"] == dataset] if len(inputs.curves) else inputs.curves
    caption = (
        "Lines: mean accuracy and median NLL over the repeats, at the learning rate that was chosen. "
        "A steep beginning may lie outside the drawing."
    )
    return _curves(inputs, _over_repeats(curves), f"on {dataset}", caption)


def overall_curves_figure(inputs: Inputs) -> Figure | None:
    """Accuracy and NLL over the epochs, averaged over the data sets."""
    cells = [_over_repeats(part).assign(dataset=name) for name, part in inputs.curves.groupby("dataset", sort=False)]
    if not cells:
        return None
    columns = [c for c, *_ in _CURVES if all(c in cell for cell in cells)]
    mean = pd.concat(cells).groupby(["method", "epoch"], sort=False)[columns].mean().reset_index()
    return _curves(
        inputs,
        mean,
        "over the data sets",
        "Lines: mean over the data sets; within one, mean accuracy and median NLL over the repeats.",
    )


def _over_repeats(curves: pd.DataFrame) -> pd.DataFrame:
    columns = {c: "median" if log else "mean" for c, _, _, log in _CURVES if c in curves}
    if curves.empty or not columns:
        return pd.DataFrame({"method": [], "epoch": []})
    return curves.groupby(["method", "epoch"], sort=False).agg(columns).reset_index()


def _curves(inputs: Inputs, means: pd.DataFrame, where: str, caption: str) -> Figure | None:
    if means.empty:
        return None
    panels, drawn = [], (*inputs.methods[1:], inputs.methods[0])  # the control last, on top of the others
    budget = _MOST_POINTS // (len(inputs.datasets) * len(inputs.methods) * len(_CURVES))
    for column, title, scale, log in _CURVES:
        if column not in means:
            continue
        wide = means.pivot(index="epoch", columns="method", values=column).sort_index() * scale
        kept = thinned(len(wide), max(budget, 12))
        epochs = wide.index.to_numpy(dtype=float)[kept].tolist()
        lines, ends = [], []
        for method in drawn:
            if method.name in wide:
                y = wide[method.name].to_numpy(dtype=float)[kept].tolist()
                lines.append(Line(method.style, epochs, y))
                ends.append(f"{method.title} {decimal(y[-1], 2)}")
        name = f"{title} by epoch {where}; at the last epoch: {', '.join(ends)}"
        reach = (epochs[0], max(epochs[-1], epochs[0] + 1.0))
        chart = line_chart(
            lines, x_title="epoch", name=name, x_range=reach, log=log, least=0.02 if log else 0.5, settled=0.1
        )
        log_drawn = log and log_axis((v for line in lines for v in line.y), 0.0, 1.0).log
        panels.append(Panel(chart, f"{title}, log scale" if log_drawn else title))
    return Figure(tuple(panels), caption, legend(inputs.methods))
