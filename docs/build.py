"""Builder of the site: python docs/build.py

It writes tables and figures from results/, and then the pages into docs/_build/html, with warnings as errors. Every
number between ``<!-- from results/... -->`` and ``<!-- end -->`` in README.md and docs/ comes from here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
sys.path.insert(1, str(Path(__file__).parent / "blocks"))
import benchmarks
import calibration
import large_vocabularies
import matplotlib.pyplot as plt
import mpce
import noise_map
import readme
import sentences
import table4
import text_studies
import why

import crossfade
import images
from crossfade.stats import to_svg

ROOT = Path(__file__).parent.parent
# Each has pages(): for each page the text between its marks, by their names. Figures are drawn beside the page.
BLOCKS = (
    benchmarks, calibration, images, large_vocabularies, mpce, noise_map, readme, sentences, table4, text_studies, why,
)  # fmt: skip


def fill(page: Path, source: str, text: str) -> None:
    """Replace the text between the marks of ``source`` on a page: lines of their own, or words of a sentence."""
    before = page.read_text()
    mark = f"<!-- from {source} -->"
    after, found = re.subn(
        rf"(?s){re.escape(mark)}(\n?).*?<!-- end -->", lambda at: f"{mark}{at[1]}{text}{at[1]}<!-- end -->", before
    )
    if not found:
        sys.exit(f"{page}: no mark {mark}")
    page.write_text(after)


def picture() -> None:
    """Draw the size of the gradient of the target's logit over p, in each phase of recipe 3 (unit scale)."""
    p = np.linspace(0, 1, 201)
    figure, axes = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
    phases = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(phases)))
    axes.plot(p, 1 - p, color="0.6", ls="--", lw=1.5, label="cross entropy")
    for focus, colour in zip(phases, colours, strict=True):
        alpha, beta = crossfade.weights(focus, "unit")
        size = (1 - p) * (alpha + beta * p)
        axes.plot(p, size, color=colour, lw=2, label=f"F = {focus:g}")
        axes.plot([focus], [(1 - focus) ** 2], "o", color=colour, ms=5)
    axes.set(xlabel="p, the probability of the right class", ylabel="size of the gradient", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, ncols=2, title="training goes on ↓", title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    svg = to_svg(figure)
    (ROOT / "docs" / "fade.svg").write_text('<?xml version="1.0" encoding="utf-8"?>\n' + svg)


def first_comparison() -> None:
    """Run the README's first command and keep what it prints and its page, for the site's first page."""
    place, shown = ROOT / "docs" / "_build" / "first", ROOT / "docs" / "first"
    for folder in (place, shown):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "crossfade", "compare"]
    done = subprocess.run(command, cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    (shown / "answer.txt").write_text(done.stdout)
    shutil.copy(place / "report.html", shown / "first.html")


def site() -> int:
    """Build the pages of the site, all of them, and return the exit status."""
    from sphinx.cmd.build import build_main

    docs = ROOT / "docs"
    return build_main(["-b", "html", "-W", "--keep-going", "-q", "-E", str(docs), str(docs / "_build" / "html")])


def main() -> None:
    picture()
    for source in BLOCKS:
        for page, blocks in source.pages().items():
            for name, text in blocks.items():
                fill(ROOT / page, name, text)


if __name__ == "__main__":
    main()
    first_comparison()
    sys.exit(site())
