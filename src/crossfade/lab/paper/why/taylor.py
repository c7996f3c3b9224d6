"""Taylor's remainder of CE around EL, eq. (11), and the text's statements about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from crossfade.diagnostics.curves import check_claims, remainder, remainder_bounds, xi
from crossfade.lab.paper.why.files import COLOURS, check_scale, write_study
from crossfade.stats.drawing import new_figure

#: The paper's three intervals of p for two classes.
INTERVALS = {"right and certain": (0.75, 1.0), "uncertain": (0.25, 0.75), "wrong and certain": (0.0, 0.25)}


def run(out: Path, scale: str = "short") -> None:
    """Write ``claims.csv``, ``intervals.csv``, ``remainder.csv`` and ``taylor.svg`` into the folder ``out``.

    Raises:
        UserError: an unknown scale, or a folder that can't be written to.
    """
    check_scale(scale)
    points = {"smoke": 1001, "short": 100_001, "paper": 1_000_001}[scale]
    p = torch.arange(1, 201, dtype=torch.float64) / 200
    curves = {"p": p, "remainder": remainder(p), "xi": xi(p), "xi_printed": xi(p, printed=True)}
    tables = {
        "claims": pd.DataFrame([{"unit": "claims", **claim._asdict()} for claim in check_claims(points)]),
        "intervals": pd.DataFrame([_interval(name, low, high) for name, (low, high) in INTERVALS.items()]),
        "remainder": pd.DataFrame({"unit": "remainder", **{name: one.numpy() for name, one in curves.items()}}),
    }
    write_study(out, "taylor", scale, tables, {"taylor": _draw(tables["remainder"])}, {"points": points})


def _interval(name: str, low: float, high: float) -> dict[str, object]:
    smallest, largest = remainder_bounds(low, high)
    lagrange = (1 - low) ** 2 / (2 * low**2) if low else float("inf")
    bounds = {"smallest": smallest, "largest": largest, "lagrange_bound": lagrange, "printed_bound": 2 * lagrange}
    return {"unit": "intervals", "interval": name, "low": low, "high": high, **bounds}


def _draw(columns: pd.DataFrame) -> Figure:
    p = columns["p"].to_numpy()
    figure, (left, right) = new_figure(2)
    left.plot(p, -np.log(p), color=COLOURS["ce"], label="CE")
    left.plot(p, 1 - p, color=COLOURS["el"], label="EL")
    left.plot(p, columns["remainder"], color=COLOURS["f0"], ls="--", label="CE − EL")
    left.plot([0, 0.5, 0.5, 1], [1, 1, 0, 0], color="0.7", lw=1, label="zero-one, 2 classes")
    left.axhline(4.5, color=COLOURS["f0.4"], lw=0.8, ls=":")
    left.annotate("4.5, stated for p ≤ 1/4", (0.98, 4.5), ha="right", va="bottom", fontsize=7)
    left.set(xlabel="p", ylabel="loss", ylim=(0, 5.3))
    left.legend(frameon=False, fontsize=8)
    right.fill_between(p, p, 1.0, color="0.92", label="[p, 1]")
    right.plot(p, columns["xi"], color=COLOURS["f0"], label="ξ, exact form")
    right.plot(p, columns["xi_printed"], color=COLOURS["f0.4"], label="ξ, printed form")
    right.set(xlabel="p", ylabel="ξ", ylim=(0, 1.5))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
