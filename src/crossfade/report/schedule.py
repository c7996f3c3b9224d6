"""How a loss fades: the weights of a schedule over the training, drawn and counted in phases."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.report.charts import Line, line_chart, thinned
from crossfade.report.inputs import MethodInfo
from crossfade.report.page import Figure, Key, Panel

__all__ = ["schedule_figure", "schedule_phases"]


def schedule_figure(methods: Sequence[MethodInfo]) -> Figure | None:
    """For each schedule that changes: alpha and beta over progress, and the row weight alpha + beta p of its phases."""
    panels = []
    for method in methods:
        phases = schedule_phases(method.schedule or ())
        if len(phases) < 2:
            continue
        said = "; ".join(f"from progress {t:.3g} alpha {a:.3g}, beta {b:.3g}" for t, a, b in _few(phases))
        x, alphas, betas = _stairs(phases)
        weights = line_chart(
            [Line("s1", x, alphas), Line("s2 dash", x, betas)], x_title="progress of the training",
            name=f"Weights of {method.title}: {said}", x_range=(0.0, 1.0), height=160.0, y_low=0.0,
        )  # fmt: skip
        lines = [Line("s0 early", (0.0, 1.0), (a, a + b)) for _, a, b in _few(phases[:-1])]
        _, a, b = phases[-1]
        rows = line_chart(
            [*lines, Line("s0 late", (0.0, 1.0), (a, a + b))], x_title="p, probability of the right class",
            name=f"Row weight of {method.title} over p: at the end from {a:.3g} at p = 0 to {a + b:.3g} at p = 1",
            x_range=(0.0, 1.0), height=160.0, y_low=0.0,
        )  # fmt: skip
        panels += [Panel(weights, f"{method.title}: α and β"), Panel(rows, f"{method.title}: row weight α + β p")]
    if not panels:
        return None
    caption = (
        "The training loss is α · CE + β · EL. Its gradient is that of the cross entropy, row by row, times α + β p, "
        "where p is the probability that the network gives to the right class. Thick: the last phase."
    )
    return Figure(
        tuple(panels), caption, (Key("α, weight of CE", "line s1"), Key("β, weight of EL", "line s2 dash")), small=True
    )


def schedule_phases(steps: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """(progress, alpha, beta) at the steps where a weight changes."""
    kept: list[tuple[float, float, float]] = []
    for step in sorted(steps):
        if not kept or step[1:] != kept[-1][1:]:
            kept.append(step)
    return kept


def _few(phases: Sequence[tuple[float, float, float]], most: int = 8) -> list[tuple[float, float, float]]:
    return [phases[k] for k in thinned(len(phases), most)]


def _stairs(phases: Sequence[tuple[float, float, float]]) -> tuple[list[float], list[float], list[float]]:
    """Each step holds until the next, the last one to the end."""
    x: list[float] = []
    alphas: list[float] = []
    betas: list[float] = []
    for (start, alpha, beta), end in zip(phases, [*(t for t, _, _ in phases[1:]), 1.0], strict=True):
        x += [start, max(start, end)]
        alphas += [alpha, alpha]
        betas += [beta, beta]
    return x, alphas, betas
