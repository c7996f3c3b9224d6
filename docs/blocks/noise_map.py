"""Words, tables and figure of docs/results/map.md, from results/map."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from crossfade.lab.paper.map_page import averages, figure, key_of_figure, places, tables, words
from crossfade.lab.paper.page import signed
from crossfade.stats import save_svg
from crossfade.stats.words import count

RESULTS = Path(__file__).parents[2] / "results" / "map" / "results.parquet"


def blocks(folder: Path) -> dict[str, str]:
    """Return the blocks of the page, and draw its figure into the folder."""
    frame = pd.read_parquet(RESULTS)
    found = places(frame)
    save_svg(figure(found), folder / "map.svg")
    judging = [len(place.judged) for place in found]
    sure = sum(place.first.sure for place in found), sum(place.second.sure for place in found)
    worst = [place.gap("tgce").mean for place in found]
    scale = (
        f"**{frame['dataset'].nunique()} UCI sets of at most 750 rows, of which {max(judging)} judge; "
        f"{count(int(frame['repeat'].nunique()), 'seed')}; {len(found)} places.** The chosen method is reliably better "
        f"than CE in {sure[0]} of them, and another shape of loss than CE's best in {sure[1]}. `tgce` from scratch is "
        f"{signed(min(worst))} to {signed(max(worst))} points from CE: rows at p ≤ 0.5 have no gradient, and "
        "at first they are the most."
    )
    mean = "Means over the places of a network and a share of wrong labels, a description without a test:"
    parts = [scale, words(found), mean, averages(found), "![The map](map.svg)", key_of_figure()]
    return {"results/map": "\n\n".join(parts), "results/map, tables": tables(found)}
