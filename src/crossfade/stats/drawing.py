"""The common style of all matplotlib figures, and SVG that depends on nothing but the drawing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common colour vision; line styles carry on where they run out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
FONT_SIZE = 9.0
INK = "#222222"


def new_figure(
    columns: int = 1,
    rows: int = 1,
    *,
    width: float = 7.2,
    height: float = 2.8,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with its axes in the common style, in reading order.

    Args:
        columns, rows: panels side by side, and one below the other.
        width, height: of the figure, and of each row, in inches.
        share_x, share_y: give all panels the same axis.
    """
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
    axes: list[Axes] = panels.ravel().tolist()
    for one in axes:
        style(one, size=FONT_SIZE - 1, grid="both")
    return figure, axes


def style(axes: Axes, *, size: float = FONT_SIZE, grid: Literal["x", "y", "both"] | None = None) -> None:
    """Draw axes as all figures do: no frame but left and bottom, dark labels, and a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=size, colors=INK)
    if grid is not None:
        axes.grid(axis=grid, color="#DDDDDD", lw=0.6, zorder=0)
        axes.set_axisbelow(True)


def caption(figure: Figure, title: str) -> None:
    """Write a title into the upper left corner of a figure."""
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.2 / height, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)


def wrapped(name: object, width: int = 40) -> str:
    """Break a label into lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(str(name), width)) or " "


def label_size(labels: Iterable[str], size: float = FONT_SIZE) -> tuple[float, float]:
    """Return width and height in inches of the widest and of the highest of some labels."""
    figure = Figure()
    boxes = [figure.text(0, 0, label, fontsize=size, parse_math=False).get_window_extent() for label in labels]
    dpi = figure.dpi
    return max((box.width for box in boxes), default=0) / dpi, max((box.height for box in boxes), default=0) / dpi


def to_svg(figure: Figure, prefix: str = "", *, outlines: bool = True) -> str:
    """Return the figure as one ``<svg>`` element that fetches nothing and is the same every time.

    Args:
        figure: any matplotlib figure.
        prefix: put before every ``id``. Give each figure of a page its own: identifiers are shared by the whole page.
        outlines: draw letters as outlines, which look the same everywhere. ``False`` keeps them as text, in a smaller
            file that can be searched but needs the reader's fonts.
    """
    out = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path" if outlines else "none", "svg.hashsalt": "crossfade"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text) if prefix else text


def save_svg(figure: Figure, path: Path, *, outlines: bool = True) -> None:
    """Write the figure as an SVG file, whose bytes depend on nothing but the drawing (see `to_svg`)."""
    path.write_text('<?xml version="1.0" encoding="utf-8"?>\n' + to_svg(figure, outlines=outlines), encoding="utf-8")
