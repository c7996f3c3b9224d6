"""The README's table: the fade against the cross entropy in every experiment that was run as the paper prints it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from table4 import SIX, part

from crossfade.lab.paper import figure2, table3
from crossfade.lab.paper.image_studies import IMAGE_STUDIES
from crossfade.lab.paper.page import beside_paper, row, signed
from crossfade.lab.paper.table4_page import NETS, PAPER
from crossfade.stats import analyze, summarize_repeats

RESULTS = Path(__file__).parents[2] / "results"


def pages() -> dict[str, dict[str, str]]:
    """Return the README's table, a row an experiment: the mean difference of the fade to CE, and the paper's."""
    rows = []
    uci = pd.read_parquet(RESULTS / "table4" / "results.parquet")
    for net, title in NETS.items():
        own = part(uci, net, 0.9, SIX)
        found = {one.method: one for one in summarize_repeats(own, "ce", repeat="seed", ties="min")}["gradual"]
        span = analyze(own, repeat="seed", control="ce").intervals["gradual"]
        interval = f" ({signed(100 * span.low)} to {signed(100 * span.high)})" if span else ""
        gains = signed(100 * (found.mean_delta or 0)) + interval, signed(PAPER[net]["gradual"].delta)
        data = f"{own['dataset'].nunique()} of the 121 UCI sets, {own['seed'].nunique()} seeds"
        rows.append(row(f"[Table 4](docs/results/table4.md), {title.lower()}", data, *gains))
    for page, name, cells, net, data in (
        ("images", "images/table1-paper-resnet20", IMAGE_STUDIES["table1"].cells, "ResNet20", "CIFAR-100, one seed"),
        ("text", "text/table3-paper", table3.STUDY.cells, "five LSTMs", "all clothing reviews, eight seeds"),
        ("text", "text/table3-gpu", table3.STUDY.cells, "five LSTMs", "the same seeds, on a GPU"),
    ):
        beside = beside_paper(cells, pd.read_csv(RESULTS / f"{name}.csv"))
        fade = beside[(beside["method"] == "gradual") & (beside["seeds"] > 0)]
        study = name.partition("/")[2].partition("-")[0].replace("table", "Table ")
        gains = signed(fade["delta"].mean()), signed(fade["paper_delta"].mean())
        rows.append(row(f"[{study}](docs/results/{page}.md), {net}", data, *gains))
    glue, gains = pd.read_csv(RESULTS / "text" / "figure2-protocol.csv"), []
    for score in ("accuracy", "score"):
        means = figure2.experiments(glue, score)
        gains.append(signed(100 * (means["gradual"] - means["ce"]).mean()))
    data = "GLUE, large tasks as subsets, four seeds"
    shown = f"{gains[0]}; {gains[1]} by the official metrics"
    rows.append(row("[Figure 2](docs/results/text.md), a small BERT", data, shown, "drawn only"))
    head = row("experiment", "data", "fade − CE, points (95 %)", "the paper's")
    return {"README.md": {"results": "\n".join([head, "|---|---|--:|--:|", *rows])}}
