"""The figures of a comparison's page: paired differences, training curves, schedules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from crossfade.report.charts import DotRow, Line, dot_chart, line_chart, log_axis, thinned
from crossfade.report.inputs import Inputs, MethodInfo
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


def schedule_figure(methods: Sequence[MethodInfo]) -> Figure | None:
    """Draw α and β of each schedule that changes over progress, and the row weight α + β p of its phases."""
    panels = []
    for method in methods:
        phases, title = schedule_phases(method.schedule or ()), method.name
        if len(phases) < 2:
            continue
        said = "; ".join(f"from progress {t:.3g} alpha {a:.3g}, beta {b:.3g}" for t, a, b in thinned(phases, 8))
        # Each step holds until the next one, the last one to the end.
        ends = [*(start for start, _, _ in phases[1:]), 1.0]
        x = [place for (start, _, _), end in zip(phases, ends, strict=True) for place in (start, max(start, end))]
        alphas, betas = ([phase[k] for phase in phases for _ in range(2)] for k in (1, 2))
        stairs = [Line("s1", x, alphas), Line("s2 dash", x, betas)]
        rows = [Line("s0 early", (0.0, 1.0), (a, a + b)) for _, a, b in thinned(phases[:-1], 8)]
        _, a, b = phases[-1]
        rows.append(Line("s0 late", (0.0, 1.0), (a, a + b)))
        weight = f"Row weight of {title} over p: at the end from {a:.3g} at p = 0 to {a + b:.3g} at p = 1"
        panels += [
            _unit_panel(stairs, f"{title}: α and β", "progress of the training", f"Weights of {title}: {said}"),
            _unit_panel(rows, f"{title}: row weight α + β p", "p, probability of the right class", weight),
        ]
    if not panels:
        return None
    caption = (
        "The training loss is α · CE + β · EL. Its gradient is that of the cross entropy, row by row, times α + β p, "
        "where p is the probability that the network gives to the right class. Thick: the last phase."
    )
    legend = (Key("α, weight of CE", "line s1"), Key("β, weight of EL", "line s2 dash"))
    return Figure(tuple(panels), caption, legend, small=True)


def schedule_phases(steps: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Return (progress, alpha, beta) at the steps where a weight changes."""
    return [next(same) for _, same in groupby(sorted(steps), key=lambda step: step[1:])]


def _unit_panel(lines: Sequence[Line], heading: str, x_title: str, name: str) -> Panel:
    chart = line_chart(lines, x_title=x_title, name=name, x_range=(0.0, 1.0), height=160.0, y_low=0.0)
    return Panel(chart, heading)
