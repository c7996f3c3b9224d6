"""What the figures share: sizes of labels, colours, and SVG that stands alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from io import StringIO

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

# Okabe and Ito's colours, told apart with every common colour vision; line styles carry on where they run out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
FONT_SIZE = 9.0
INK = "#222222"


def wrapped(name: object, width: int = 40) -> str:
    """A label broken into lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(str(name), width)) or " "


def label_size(labels: Iterable[str], size: float = FONT_SIZE) -> tuple[float, float]:
    """Width and height in inches of the widest and of the highest of some labels."""
    figure = Figure()
    boxes = [figure.text(0, 0, label, fontsize=size, parse_math=False).get_window_extent() for label in labels]
    dpi = figure.dpi
    return max((box.width for box in boxes), default=0) / dpi, max((box.height for box in boxes), default=0) / dpi


def literal(texts: Iterable[Text]) -> None:
    """Show names as they are: a dollar sign in one is no formula."""
    for text in texts:
        text.set_parse_math(False)


def to_svg(figure: Figure, prefix: str = "") -> str:
    """The figure as one ``<svg>`` element for an HTML page: glyphs as outlines, nothing to fetch, the same every time.

    Args:
        figure: any matplotlib figure.
        prefix: put before every ``id``. Give each figure of a page its own: identifiers are shared by the whole page.
    """
    out = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "crossfade"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text) if prefix else text
