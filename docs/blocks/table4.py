"""Tables and figures of docs/results/table4.md, from results/table4 and results/table4_wide."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from crossfade.lab.paper.table4_page import NETS, PAPER
from crossfade.stats import analyze, summarize_repeats, to_svg

ROOT = Path(__file__).parents[2]
CONTROLS = ["ce-matched", "ce-rate-matched"]  # of the gradient's size, eq. (20) to (22)
SIX = ["ce", "f0", "f0-late", "gradual", "el", "focal"]
WIDE = [*SIX, "ce-matched", "ce-cosine"]  # compared with learning rates up to 0.1
_FIGURE3 = {"seed 0": range(1), "seed 1": range(1, 2), "all seeds": None}


def _drawn(net: str, title: str) -> str:
    """Return the name of the file with a panel of Figure 3."""
    return f"table4-{net}-ranks{'' if title == 'all seeds' else '-' + title.replace(' ', '')}.svg"


def part(
    frame: pd.DataFrame, net: str, momentum: float, methods: list[str], seeds: Collection[int] | None = None
) -> pd.DataFrame:
    chosen = frame[(frame["net"] == net) & (frame["momentum"] == momentum) & frame["method"].isin(methods)]
    return chosen if seeds is None else chosen[chosen["seed"].isin(seeds)]


def main_table(frame: pd.DataFrame, momentum: float, seeds: range | None, score: str = "accuracy") -> str:
    """Return our numbers beside the paper's for both networks."""
    lines = [
        "| network | method | wins | paper | Δ points | paper | mean rank | paper | 95 % of Δ | p (Holm) |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for net, title in NETS.items():
        own = part(frame, net, momentum, SIX, seeds)
        summary = {row.method: row for row in summarize_repeats(own, "ce", score=score, repeat="seed", ties="min")}
        found = analyze(own, score=score, repeat="seed", control="ce")
        p = {test.method: test.p_adjusted for test in found.against_control}
        for method in SIX:
            row, paper, span = summary[method], PAPER[net][method], found.intervals.get(method)
            lines.append(
                f"| {title} | {method} | {row.wins:.1f} | {paper.wins:g} | {100 * (row.mean_delta or 0):+.2f} | "
                f"{paper.delta:+.2f} | {row.mean_rank:.2f} | {paper.rank:.2f} | "
                + (f"{100 * span.low:+.2f} to {100 * span.high:+.2f}" if span else "")
                + f" | {f'{p[method]:.2g}' if method in p else ''} |"
            )
    return "\n".join(lines)


def controls_table(frame: pd.DataFrame) -> str:
    """Return the table of size against shape: norm-matched CE and the unit scale, beside CE and the gradual fade."""
    lines = [
        "| network | momentum | method | Δ points | 95 % of Δ | mean rank | p (Holm) |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    methods = ["ce", *CONTROLS, "gradual", "gradual-unit"]
    for net, title in NETS.items():
        for momentum in sorted(frame["momentum"].unique(), reverse=True):
            own = part(frame, net, momentum, methods)
            found = analyze(own, repeat="seed", control="ce")
            p = {test.method: test.p_adjusted for test in found.against_control}
            for row in found.summary:
                span = found.intervals.get(row.method)
                lines.append(
                    f"| {title} | {momentum:g} | {row.method} | {100 * (row.mean_delta or 0):+.2f} | "
                    + (f"{100 * span.low:+.2f} to {100 * span.high:+.2f}" if span else "")
                    + f" | {row.mean_rank:.2f} | {f'{p[row.method]:.2g}' if row.method in p else ''} |"
                )
    return "\n".join(lines)


def shape_table(frame: pd.DataFrame) -> str:
    """Return what the fade's shape adds to CE with the same mean gradient."""
    lines = ["| network | momentum | seeds | gradual − | points | 95 % | p |", "|---|--:|--:|---|--:|--:|--:|"]
    for net, title in NETS.items():
        for momentum, control in itertools.product(sorted(frame["momentum"].unique(), reverse=True), CONTROLS):
            seeds = part(frame, net, momentum, [control])["seed"].unique()
            own = part(frame, net, momentum, [control, "gradual"], seeds)
            if not len(seeds):
                continue
            found = analyze(own, repeat="seed", control=control)
            span, test = found.intervals["gradual"], found.against_control[0]
            mean = next(row.mean_delta for row in found.summary if row.method == "gradual") or 0
            bounds = f"{100 * span.low:+.2f} to {100 * span.high:+.2f}"
            lines.append(
                f"| {title} | {momentum:g} | {len(seeds)} | {control} | {100 * mean:+.2f} | {bounds} | "
                f"{test.p_adjusted:.2g} |"
            )
    return "\n".join(lines)


def rivals_table(frame: pd.DataFrame) -> str:
    """Return the losses that aren't functions of ce beside CE, on the data sets and seeds that all of them have."""
    lines = [
        "| network | sets | seeds | method | Δ points | 95 % | mean rank | p (Holm) |",
        "|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    methods = ["ce", "cot", "mmc", "mpce"]
    for net, title in NETS.items():
        own = part(frame, net, 0.9, methods)
        own = own[own.groupby(["dataset", "seed"])["method"].transform("size") == len(methods)]
        found = analyze(own, repeat="seed", control="ce")
        p = {test.method: test.p_adjusted for test in found.against_control}
        rows = {row.method: row for row in found.summary}
        for name in methods[1:]:
            span = found.intervals[name]
            lines.append(
                f"| {title} | {own['dataset'].nunique()} | {own['seed'].nunique()} | {name} | "
                f"{100 * (rows[name].mean_delta or 0):+.2f} | {100 * span.low:+.2f} to {100 * span.high:+.2f} | "
                f"{rows[name].mean_rank:.2f} | {p[name]:.2g} |"
            )
    return "\n".join(lines)


def wide_table(frame: pd.DataFrame, wide: pd.DataFrame) -> str:
    """Return the differences to CE by the printed learning rates beside those with rates up to 0.1."""
    lines = [
        "| network | method | Δ points, printed rates | Δ points, up to 0.1 | 95 % | mean rank | p (Holm) | ECE, % |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for net, title in NETS.items():
        own = part(wide, net, 0.9, WIDE)
        found = analyze(own, repeat="seed", control="ce")
        printed = frame[(frame["net"] == net) & (frame["momentum"] == 0.9)].groupby("method")["accuracy"].mean()
        p = {test.method: test.p_adjusted for test in found.against_control}
        ece = own.groupby("method")["ece"].mean()
        rows = {row.method: row for row in found.summary}
        for row in (rows[method] for method in WIDE):
            span = found.intervals.get(row.method)
            before = f"{100 * (printed[row.method] - printed['ce']):+.2f}" if row.method in printed else ""
            lines.append(
                f"| {title} | {row.method} | {before} | {100 * (row.mean_delta or 0):+.2f} | "
                + (f"{100 * span.low:+.2f} to {100 * span.high:+.2f}" if span else "")
                + f" | {row.mean_rank:.2f} | {f'{p[row.method]:.2g}' if row.method in p else ''} | "
                f"{100 * ece[row.method]:.1f} |"
            )
    return "\n".join(lines)


def small_sets(frame: pd.DataFrame) -> str:
    """Return how many data sets are so small that one test row counts more than a point."""
    rows = frame.drop_duplicates("dataset")["n_test"]
    return f"On {sum(rows < 100)} of {len(rows)} sets one test row is worth over a point of accuracy."


def ties_table(frame: pd.DataFrame, momentum: float) -> str:
    """Return Δ to CE, mean rank, and the adjusted p against CE under each rule for equal validation accuracies."""
    lines = [
        "| network | method | first epoch | last epoch | lowest validation loss | the paper's |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for net, title in NETS.items():
        own = part(frame, net, momentum, SIX)
        by_rule = []
        for score in ("accuracy", "accuracy_last", "accuracy_loss"):
            rows = summarize_repeats(own, "ce", score=score, repeat="seed", ties="min")
            tests = analyze(own.assign(accuracy=own[score]), repeat="seed", control="ce").against_control
            p = {test.method: f", p {test.p_adjusted:.2g}" for test in tests}
            by_rule.append({row.method: (row, p.get(row.method, "")) for row in rows})
        for method in SIX:
            cells = [
                f"{100 * (row.mean_delta or 0):+.2f} (rank {row.mean_rank:.2f}{p})"
                for row, p in (rows[method] for rows in by_rule)
            ]
            paper = PAPER[net][method]
            cells.append(f"{paper.delta:+.2f} (rank {paper.rank:.2f})")
            lines.append(f"| {title} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def friedman_lines(frame: pd.DataFrame, momentum: float) -> str:
    lines = []
    for net, title in NETS.items():
        found = analyze(part(frame, net, momentum, SIX), repeat="seed", control="ce")
        groups = "; ".join(" = ".join(group) for group in found.groups) or "none"
        lines.append(
            f"* {title}: Friedman χ² = {found.friedman.chi2:.0f}, p = {found.friedman.chi2_p:.1g}, "
            f"{found.friedman.blocks} sets. Not told apart at 0.05 (Conover, Benjamini–Hochberg): {groups}."
        )
    return "\n".join(lines)


def seeds_table(frame: pd.DataFrame) -> str:
    """Return Figure 3 as printed, a panel for each network and each of two seeds, and beside it all seeds."""
    lines = ["| | linear classifier | one hidden layer |", "|---|---|---|"]
    for title, seeds in _FIGURE3.items():
        cells = []
        for net in NETS:
            found = analyze(part(frame, net, 0.9, SIX, seeds), repeat="seed", control="ce")
            joined = "; ".join(" = ".join(group) for group in found.groups) or "none"
            alt = f"Mean ranks, {NETS[net].lower()}, {title}"
            cells.append(f"![{alt}]({_drawn(net, title)})<br>not told apart: {joined}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks, and draw the figures."""
    frame, wide = (pd.read_parquet(ROOT / "results" / name / "results.parquet") for name in ("table4", "table4_wide"))
    figures(frame, ROOT / "docs" / "results")
    source = "results/table4"
    texts = {}
    for momentum in sorted(frame["momentum"].unique()):
        texts[f"{source} momentum {momentum:g}, two seeds"] = main_table(frame, momentum, range(2))
        texts[f"{source} momentum {momentum:g}, all seeds"] = main_table(frame, momentum, None)
        texts[f"{source} momentum {momentum:g}, friedman"] = friedman_lines(frame, momentum)
        texts[f"{source} momentum {momentum:g}, ties"] = ties_table(frame, momentum)
    texts[f"{source} figure 3"] = seeds_table(frame)
    texts[f"{source} controls"] = controls_table(frame)
    texts[f"{source}_wide"] = wide_table(frame, wide)
    texts[f"{source} shape"] = shape_table(frame)
    texts[f"{source} rivals"] = rivals_table(frame)
    texts[f"{source} small sets"] = small_sets(frame)
    return {"docs/results/table4.md": texts}


def figures(frame: pd.DataFrame, folder: Path) -> None:
    """Draw Figure 3 (ranks) for both networks, of two seeds and of all, and the pairwise p-values of all seeds."""
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    for net in NETS:
        for title, seeds in _FIGURE3.items():
            drawn = analyze(part(frame, net, 0.9, SIX, seeds), repeat="seed", control="ce").figures()
            (folder / _drawn(net, title)).write_text(header + to_svg(drawn["ranks"]))
        (folder / f"table4-{net}-signs.svg").write_text(header + to_svg(drawn["signs"]))
