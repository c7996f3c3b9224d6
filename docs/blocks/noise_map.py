"""Words, tables and figure of docs/results/map.md, from results/map."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from crossfade.lab.paper.map_page import figure, key_of_figure, places, tables, words
from crossfade.stats import save_svg


def blocks(frame: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Return the blocks of the page, and draw its figure into the folder."""
    found = places(frame)
    save_svg(figure(found), folder / "map.svg")
    judging = [len(place.judged) for place in found]
    scale = (
        f"{frame['dataset'].nunique()} UCI sets of at most 750 rows, of which up to {max(judging)} judge; "
        f"{frame['repeat'].nunique()} seeds; {len(found)} places."
    )
    parts = [scale, words(found), "![The map](map.svg)", key_of_figure()]
    return {"results/map": "\n\n".join(parts), "results/map, tables": tables(found)}
