"""The figures of a comparison's page: paired differences, training curves."""

from __future__ import annotations

import numpy as np

from crossfade.report.charts import DotRow, Line, dot_chart, line_chart, log_axis, thinned
from crossfade.report.inputs import Inputs
from crossfade.report.page import Figure, Key, Panel
from crossfade.stats.words import decimal, level, signed

_MOST_POINTS = 40_000  # of all curves together: some 7 bytes each
_CURVES = (
    ("val_accuracy", "Validation accuracy (%)", 100.0, False),
    ("test_accuracy", "Test accuracy (%)", 100.0, False),
    ("test_nll", "Test NLL (nats)", 1.0, True),
)


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
    recorded = [curve for curve in _CURVES if curve[0] in curves]
    if curves.empty or not recorded:
        return None
    names = [column for column, *_ in recorded]
    means = curves.groupby(["method", "epoch"], sort=False)[names].mean().reset_index()
    most = max(_MOST_POINTS // (len(inputs.datasets) * len(inputs.methods) * len(_CURVES)), 12)
    panels = []
    for column, title, scale, log in recorded:
        wide = means.pivot(index="epoch", columns="method", values=column).sort_index() * scale
        epochs = thinned(wide.index.to_numpy(dtype=float).tolist(), most)
        lines, ends = [], []
        for method in (*inputs.methods[1:], inputs.control):  # the control last, on top of the others
            if method.name in wide:
                y = thinned(wide[method.name].to_numpy(dtype=float).tolist(), most)
                lines.append(Line(method.style, epochs, y, f"{method.name}: {decimal(y[-1], 2)} at the last epoch"))
                ends.append(f"{method.name} {decimal(y[-1], 2)}")
        where = "over the data sets" if dataset is None else f"on {dataset}"
        name = f"{title} by epoch {where}; at the last epoch: {', '.join(ends)}"
        reach = (epochs[0], max(epochs[-1], epochs[0] + 1.0))
        chart = line_chart(
            lines, x_title="epoch", name=name, x_range=reach, log=log, least=0.02 if log else 0.5, settled=0.1
        )
        log_drawn = log and log_axis((v for line in lines for v in line.y), 0.0, 1.0).log
        panels.append(Panel(chart, f"{title}, log scale" if log_drawn else title))
    caption = "Lines: mean over the data sets; within one, mean accuracy and median NLL over the repeats."
    if dataset is not None:
        caption = (
            "Lines: mean accuracy and median NLL over the repeats, at the learning rate that was chosen. "
            "A steep beginning may lie outside the drawing."
        )
    legend = tuple(Key(method.name, f"line {method.style}") for method in inputs.methods)
    return Figure(tuple(panels), caption, legend)
