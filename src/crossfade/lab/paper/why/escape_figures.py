"""Figures of the escape study, drawn from its tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from crossfade.lab.paper.why.files import COLOURS
from crossfade.stats.drawing import new_figure


def figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return the figures by name, for the tables that exist."""
    makers = {
        "along": ("along", _along),
        "pair": ("pair", _pair),
        "simulation": ("simulation", _simulation),
        "slices": ("slices", _slices),
        "rise": ("minima", _rise),
    }
    return {name: draw(tables[table]) for name, (table, draw) in makers.items() if table in tables}


def _along(table: pd.DataFrame) -> Figure:
    """Draw Tr(H Sigma) over CE's at the same weights, for the same learning rate and for the same noise."""
    product = table.pivot(index="unit", columns="mixture", values="tr_h_sigma").astype("float64")
    ratios = product.div(product["ce"], axis=0)
    matched = table.pivot(index="unit", columns="mixture", values="matched_ratio").astype("float64")
    names = [name for name in table["mixture"].unique() if name != "ce"]
    figure, axes = new_figure(2)
    for axis, values in zip(axes, (ratios, matched), strict=True):
        finite = [values[name][np.isfinite(values[name])] for name in names]
        axis.boxplot(finite, showfliers=False, widths=0.6, medianprops={"color": COLOURS["f0"]})
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set_xticks(range(1, len(names) + 1), names, rotation=60, fontsize=7)
    axes[0].set(ylabel="Tr(HΣ), in CE's", title="same learning rate")
    axes[0].set_yscale("symlog", linthresh=0.1)
    axes[1].set(title="at CE's noise Tr(Σ)")
    return figure


def _pair(table: pd.DataFrame) -> Figure:
    figure, axes = new_figure(3, height=2.5)
    lines = (("gain", COLOURS["f0"], "-"), ("printed_bound", COLOURS["f0.4"], "--"), ("derived_bound", "black", ":"))
    for axis, name in zip(axes, ("f0", "f0.2", "f0.4"), strict=True):
        own = table[table["mixture"] == name]
        for column, colour, style in lines:
            axis.plot(own["p"], own[column], style, color=colour, lw=1.5, label=column)
        no_minimum = own["p"][~own["is_minimum"].astype("bool")]
        axis.axvspan(0, no_minimum.max() if len(no_minimum) else 0, color="0.93")
        axis.set(title=f"{name}, β = {own['beta'].iloc[0]:.3g}", xlabel="p", xlim=(0, 1))
    axes[0].legend(frameon=False, fontsize=7)
    axes[0].set_ylabel("difference in Tr(HΣ)")
    return figure


def _simulation(table: pd.DataFrame) -> Figure:
    wells, rates = list(table["well"].unique()), sorted(table["rate"].unique())
    figure, axes = new_figure(len(wells), 2, share_y=True, height=2.3)
    for place, axis in enumerate(axes):
        matched, well = place >= len(wells), wells[place % len(wells)]
        own = table[(table["well"] == well) & (table["matched"] == matched) & (table["kind"] == "sgd")]
        for name in ("ce", "f0", "f0.2", "f0.4", "el"):
            line = own[own["mixture"] == name]
            axis.plot(
                line["rate"], 100 * line["escaped"] / line["walkers"], "o-", ms=3, color=COLOURS[name], label=name
            )
        axis.set(title=f"{well}, {'same noise' if matched else 'same rate'}", xscale="log")
        axis.title.set_fontsize(8)
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        if matched:
            axis.set_xlabel("learning rate (CE's)")
        if place % len(wells) == 0:
            axis.set_ylabel("escaped, %")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _slices(table: pd.DataFrame) -> Figure:
    """Draw 1-D and 2-D slices of CE around the solutions of CE and the gradual mixture, on the last data set."""
    dataset = table["dataset"].iloc[-1]
    own = table[(table["dataset"] == dataset) & (table["seed"] == 0) & (table["loss"] == "ce")]
    names = list(own["trained_with"].unique())[:2]
    figure, axes = new_figure(len(names) + 1, height=2.6)
    planes = {}
    for name in names:
        mine = own[own["trained_with"] == name]
        line = mine[mine["t"].isna()]
        axes[0].plot(line["s"].astype(float), line["value"].astype(float), color=COLOURS.get(name), label=name)
        planes[name] = mine[mine["t"].notna()].pivot(index="s", columns="t", values="value").astype("float64")
    axes[0].set(xlabel="s", ylabel="CE", title="one direction", yscale="log")
    axes[0].legend(frameon=False, fontsize=7)
    heights = np.concatenate([plane.to_numpy().ravel() for plane in planes.values()])
    levels = np.geomspace(max(heights.min(), 1e-4), heights.max(), 12)
    for axis, (name, plane) in zip(axes[1:], planes.items(), strict=True):
        steps = plane.index.astype(float)
        drawn = axis.contour(steps, steps, plane.to_numpy().T, levels=levels, cmap="viridis", linewidths=0.9)
        axis.clabel(drawn, fontsize=5)
        axis.set(title=f"trained with {name}", xlabel="s", ylabel="t")
    figure.suptitle(str(dataset), fontsize=9)
    return figure


def _rise(table: pd.DataFrame) -> Figure:
    """Draw the measured rise of the loss over (eta t / 2) Tr(H Sigma) after 1, 10 and 50 steps."""
    figure, (axis,) = new_figure(width=4.2, height=2.8)
    for step, marker in ((1, "o"), (10, "s"), (50, "^")):
        label = f"{step} step{'s' * (step > 1)}"
        axis.plot(predicted_rise(table, step), table[f"rise{step}"], marker, ms=3, alpha=0.7, label=label)
    low, high = axis.get_xlim()
    ends = [max(low, 1e-8), max(high, 1e-7)]
    axis.plot(ends, ends, color="0.5", lw=0.8)
    axis.set(xlabel="(ηt/2) Tr(HΣ) at the minimum", ylabel="measured rise of the loss", xscale="log", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    return figure


def predicted_rise(table: pd.DataFrame, step: int) -> pd.Series[float]:
    """Return (eta t / 2) Tr((H + ridge) Sigma) with t = eta * steps, for each row; Sigma is that of batches of m."""
    product = table["tr_h_sigma"] + table["ridge"] * table["tr_sigma"]
    return table["sgd_rate"] ** 2 * step * product / table["sgd_batch"] / 2
