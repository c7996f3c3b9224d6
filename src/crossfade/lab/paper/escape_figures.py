"""The escape study's figures, from its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossfade.lab.paper.why_tables import COLOURS, Table, figure, save

__all__ = ["draw", "predicted_rise"]


def draw(out: Path) -> None:
    """Write whatever figures the tables in ``out`` have rows for."""
    for name, function in {
        "along": _along, "pair": _pair, "simulation": _simulation, "slices": _slices, "minima": _rise,
    }.items():  # fmt: skip
        table = Table(out / f"{name}.csv")
        if table.rows:
            function(table, out)


def _along(table: Table, out: Path) -> None:
    """Tr(H Sigma) over CE's at the same weights: as it stands, and at CE's noise."""
    fig, (raw, matched) = figure(2, sharey=False)
    names = [name for name in dict.fromkeys(row["mixture"] for row in table.rows) if name != "ce"]
    ce = {row["unit"]: float(row["tr_h_sigma"]) for row in table.rows if row["mixture"] == "ce"}
    for axis, column in ((raw, None), (matched, "matched_ratio")):
        values = []
        for name in names:
            rows = [row for row in table.rows if row["mixture"] == name]
            ratio = [float(row[column]) if column else float(row["tr_h_sigma"]) / ce[row["unit"]] for row in rows]
            values.append([value for value in ratio if np.isfinite(value)])
        axis.boxplot(values, showfliers=False, widths=0.6, medianprops={"color": COLOURS["f0"]})
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set_xticks(range(1, len(names) + 1), names, rotation=60, fontsize=7)
    raw.set(ylabel="Tr(HΣ), in CE's", title="same learning rate")
    raw.set_yscale("symlog", linthresh=0.1)
    matched.set(title="at CE's noise Tr(Σ)")
    save(fig, out / "along.svg")


def _pair(table: Table, out: Path) -> None:
    fig, axes = figure(3, height=2.5)
    for axis, name in zip(axes, ("f0", "f0.2", "f0.4"), strict=True):
        rows = [row for row in table.rows if row["mixture"] == name]
        p = [float(row["p"]) for row in rows]
        for column, colour, style in (
            ("gain", COLOURS["f0"], "-"), ("printed_bound", COLOURS["f0.4"], "--"), ("derived_bound", "black", ":"),
        ):  # fmt: skip
            axis.plot(p, [float(row[column]) for row in rows], style, color=colour, lw=1.5, label=column)
        last = max((float(row["p"]) for row in rows if row["is_minimum"] == "False"), default=0.0)
        axis.axvspan(0, last, color="0.93")
        axis.set(title=f"{name}, β = {float(rows[0]['beta']):.3g}", xlabel="p", xlim=(0, 1))
    axes[0].legend(frameon=False, fontsize=7)
    axes[0].set_ylabel("difference in Tr(HΣ)")
    save(fig, out / "pair.svg")


def _simulation(table: Table, out: Path) -> None:
    wells = list(dict.fromkeys(row["well"] for row in table.rows))
    fig, axes = figure(len(wells), 2, sharey=True, squeeze=False, height=2.3)
    for column, well in enumerate(wells):
        for line, matched in enumerate(("False", "True")):
            axis = axes[line][column]
            for name in ("ce", "f0", "f0.2", "f0.4", "el"):
                rows = [
                    row for row in table.rows
                    if (row["well"], row["matched"], row["mixture"], row["kind"]) == (well, matched, name, "sgd")
                ]  # fmt: skip
                share = [100 * int(row["escaped"]) / int(row["walkers"]) for row in rows]
                axis.plot([float(r["rate"]) for r in rows], share, "o-", ms=3, color=COLOURS[name], label=name)
            axis.set(title=f"{well}, {'same noise' if line else 'same rate'}", xscale="log")
            rates = sorted({float(row["rate"]) for row in table.rows})
            axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
            axis.minorticks_off()
            axis.title.set_fontsize(8)
        axes[1][column].set_xlabel("learning rate (CE's)")
    for line in (0, 1):
        axes[line][0].set_ylabel("escaped, %")
    axes[0][0].legend(frameon=False, fontsize=7)
    save(fig, out / "simulation.svg")


def _slices(table: Table, out: Path) -> None:
    """1-D and 2-D slices of CE around the solutions of CE and of the gradual mixture, seed 0, on the last data set."""
    dataset = table.rows[-1]["dataset"]
    own = [r for r in table.rows if r["dataset"] == dataset and r["seed"] == "0" and r["loss"] == "ce"]
    names = list(dict.fromkeys(row["trained_with"] for row in own))[:2]
    fig, axes = figure(len(names) + 1, height=2.6)
    for name in names:
        line = [row for row in own if row["trained_with"] == name and not row["t"]]
        axes[0].plot(
            [float(r["s"]) for r in line], [float(r["value"]) for r in line], color=COLOURS.get(name), label=name
        )
    axes[0].set(xlabel="s", ylabel="CE", title="one direction", yscale="log")
    axes[0].legend(frameon=False, fontsize=7)
    planes = {name: _plane([row for row in own if row["trained_with"] == name and row["t"]]) for name in names}
    heights = np.concatenate([plane.ravel() for _, plane in planes.values()])
    levels = np.geomspace(max(heights.min(), 1e-4), heights.max(), 12)
    for axis, (name, (steps, plane)) in zip(axes[1:], planes.items(), strict=True):
        drawn = axis.contour(steps, steps, plane.T, levels=levels, cmap="viridis", linewidths=0.9)
        axis.clabel(drawn, fontsize=5)
        axis.set(title=f"trained with {name}", xlabel="s", ylabel="t")
    fig.suptitle(dataset, fontsize=9)
    save(fig, out / "slices.svg")


def _plane(rows: list[dict[str, str]]) -> tuple[list[float], np.ndarray]:
    steps = sorted({float(row["s"]) for row in rows})
    values = {(float(row["s"]), float(row["t"])): float(row["value"]) for row in rows}
    return steps, np.array([[values[s, t] for t in steps] for s in steps])


def _rise(table: Table, out: Path) -> None:
    """How the measured rise of the loss compares with (eta t / 2) Tr(H Sigma) after 1, 10 and 50 steps."""
    fig, axis = figure(width=4.2, height=2.8)
    for step, marker in ((1, "o"), (10, "s"), (50, "^")):
        predicted = [predicted_rise(row, step) for row in table.rows]
        measured = [float(row[f"rise{step}"]) for row in table.rows]
        axis.plot(predicted, measured, marker, ms=3, alpha=0.7, label=f"{step} step{'s' * (step > 1)}")
    low, high = axis.get_xlim()
    ends = [max(low, 1e-8), max(high, 1e-7)]
    axis.plot(ends, ends, color="0.5", lw=0.8)
    axis.set(xlabel="(ηt/2) Tr(HΣ) at the minimum", ylabel="measured rise of the loss", xscale="log", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    save(fig, out / "rise.svg")


def predicted_rise(row: dict[str, str], step: int) -> float:
    """(eta t / 2) Tr((H + ridge) Sigma) with t = eta * steps; Sigma for batches of m."""
    rate, m = float(row["sgd_rate"]), float(row["sgd_batch"])
    product = float(row["tr_h_sigma"]) + float(row["ridge"]) * float(row["tr_sigma"])
    return rate**2 * step * product / m / 2
