"""All pairwise p-values at a glance: the content of the paper's Figure 3."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crossfade.errors import UserError
from crossfade.stats.figures.base import FONT_SIZE, INK, label_size, literal, wrapped

LIMITS = (0.001, 0.01, 0.05)
# From strongest to weakest: the row's method better, worse; then no difference, and the diagonal.
BETTER = ("#08519C", "#4292C6", "#9ECAE1")
WORSE = ("#A63603", "#F16913", "#FDBE85")
NOTHING, DIAGONAL = "#EEEEEE", "#FFFFFF"


def sign_plot(p_values: pd.DataFrame, mean_ranks: Mapping[str, float] | pd.Series[float], *, title: str = "") -> Figure:
    """Which pairs differ, how surely, and which way: a coloured square a pair, read along the row.

    Blue says that the row's method ranks better than the column's, orange worse; the darker, the smaller p. Rows and
    columns are ordered by mean rank, best first. Up to ten methods the p-values are printed in the squares.

    Args:
        p_values: symmetric, methods × methods, such as from `conover`.
        mean_ranks: mean rank by method, 1 is best.
        title: printed above.

    Raises:
        UserError: the two don't name the same methods, or a p-value is missing.
    """
    ranks = pd.Series(mean_ranks, dtype=float).sort_values(kind="stable")
    if set(ranks.index) != set(p_values.index) or set(ranks.index) != set(p_values.columns):
        raise UserError("p_values and mean_ranks must name the same methods")
    p = p_values.loc[ranks.index, ranks.index].to_numpy(dtype=np.float64)
    if np.isnan(p).any():
        raise UserError("p_values must hold a number for every pair; got NaN")
    k = len(ranks)
    strength = np.searchsorted(LIMITS, p, side="left")
    better = ranks.to_numpy()[:, None] <= ranks.to_numpy()[None, :]
    code = np.where(strength == 3, 6, np.where(better, strength, strength + 3))
    np.fill_diagonal(code, 7)
    names = [wrapped(name, 28) for name in ranks.index]
    wide, high = label_size(names)
    cell = 0.55 if k <= 10 else max(0.3, high + 0.05)
    cell = max(cell, high + 0.08)
    key = 2.1
    caption = label_size([title], FONT_SIZE + 1)[0] + 0.2
    figure = Figure(figsize=(max(wide + 0.3 + k * cell + key, caption), max(k * cell + wide + 0.3, 2.6) + 0.35))
    inch_w, inch_h = figure.get_size_inches()
    axes = figure.add_axes(
        ((wide + 0.2) / inch_w, (inch_h - 0.4 - k * cell) / inch_h, k * cell / inch_w, k * cell / inch_h)
    )
    axes.imshow(code, cmap=ListedColormap([*BETTER, *WORSE, NOTHING, DIAGONAL]), vmin=-0.5, vmax=7.5, aspect="auto")
    axes.set_xticks(range(k), names, rotation=90, fontsize=FONT_SIZE, color=INK)
    axes.set_yticks(range(k), names, fontsize=FONT_SIZE, color=INK)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    literal([*axes.get_xticklabels(), *axes.get_yticklabels()])
    if k <= 10:
        for i, j in np.argwhere(~np.eye(k, dtype=bool)):
            shade = "white" if code[i, j] in (0, 1, 3) else INK
            axes.text(j, i, _short(p[i, j]), ha="center", va="center", fontsize=FONT_SIZE - 1.5, color=shade)
    entries = [("row better", BETTER), ("row worse", WORSE)]
    patches = [
        Patch(color=colour, label=f"{word}, p ≤ {limit:g}")
        for word, colours in entries
        for colour, limit in zip(colours, LIMITS, strict=True)
    ]
    patches.append(Patch(color=NOTHING, label=f"p > {LIMITS[-1]:g}"))
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=FONT_SIZE - 0.5)
    figure.text(0.1 / inch_w, 1 - 0.2 / inch_h, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)
    return figure


def _short(p: float) -> str:
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".lstrip("0") if p < 0.1 else f"{p:.2f}".lstrip("0") if p < 0.995 else "1"
