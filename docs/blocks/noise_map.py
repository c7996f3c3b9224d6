"""Words, tables and figure of docs/results/map.md, from results/map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from crossfade.lab.paper.map_page import Place, averages, coarse, figure, gains, key_of_figure, places, tables, words
from crossfade.lab.paper.page import signed
from crossfade.stats import adjust_p, save_svg, wilcoxon
from crossfade.stats.words import count

ROOT = Path(__file__).parents[2]
# The methods of the map that stand for a card's loss.
CARDS = {
    "crossfade": ("gradual",),
    "generalized-cross-entropy": ("gce", "gce-rising"),
    "truncated-cross-entropy": ("tgce",),
}


def pages() -> dict[str, dict[str, str]]:
    """Return the blocks of the map's page and of the cards of its methods, and draw its figure."""
    frame = pd.read_parquet(ROOT / "results" / "map" / "results.parquet")
    found = places(frame)
    save_svg(figure(found), ROOT / "docs" / "results" / "map.svg")
    tables_only = frame[frame["data"] == "uci121"]
    judging = [len(place.judged) for place in found]
    sure = sum(place.first.sure for place in found), sum(place.second.sure for place in found)
    worst = [place.gap("tgce").mean for place in found]
    scale = (
        f"**{tables_only['dataset'].nunique()} UCI sets, of which {max(judging)} judge; "
        f"{count(int(tables_only['repeat'].nunique()), 'seed')}; {len(found)} places.** The chosen method is reliably "
        f"better than CE in {sure[0]} of them, and another shape of loss than CE's best in {sure[1]}. `tgce` from "
        f"scratch is {signed(min(worst))} to {signed(max(worst))} points from CE: rows at p ≤ 0.5 have no gradient, "
        "and at first they are the most."
    )
    mean = "Means over the places of a network and a share of wrong labels, a description without a test:"
    parts = [scale, words(found), mean, averages(found), "![The map](map.svg)", key_of_figure()]
    page = {
        "results/map": "\n\n".join(parts),
        "results/map, new": on_new_sets(found),
        "results/map, tables": tables(found),
    }
    coarse_tables = "\n\n".join(coarse(frame))
    page |= {"results/map, coarse": coarse_tables} if coarse_tables else {}
    cards = {f"docs/cards/{card}.md": {f"results/map {card}": _on_a_card(found, card)} for card in CARDS}
    return {"docs/results/map.md": page, **cards}


def on_new_sets(found: Sequence[Place]) -> str:
    """Return what the judging sets say that weren't looked at before the larger sets were run."""
    seen = (ROOT / "results" / "map" / "seen.txt").read_text(encoding="utf-8").split()
    new = [replace(place, judged=place.judged[~place.judged.index.isin(seen)]) for place in found]
    adjusted = adjust_p([wilcoxon(place.judged[place.first.method], place.judged["ce"])[1] for place in new], "fdr_bh")
    duels = [
        replace(place.first, test=place.gap(place.first.method), p=float(p))
        for place, p in zip(new, adjusted, strict=True)
    ]
    return (
        f"**{len(new[0].judged)} judging sets.** The method that the choosing sets name is ahead of CE in "
        f"{sum(duel.test.mean > 0 for duel in duels)} of {len(new)} places, reliably in "
        f"{sum(duel.sure for duel in duels)}.\n\n{averages(new)}"
    )


def _on_a_card(found: Sequence[Place], card: str) -> str:
    told = "; ".join(gains(found, method) for method in CARDS[card])
    return (
        "**With wrong labels**, against a tuned CE on tables, means over the places of "
        f"[the map](../results/map.md) with a linear classifier and with a hidden layer (95 %): {told}."
    )
