"""Table 4 and Figure 3 as text and as a page: our results beside the paper's, with tests of the differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from markupsafe import Markup

from crossfade.lab import frames
from crossfade.lab.data.uci import SPLITS
from crossfade.lab.files import write_text
from crossfade.lab.paper.study import DEFINED
from crossfade.lab.store import Run, Store
from crossfade.lab.trial import Json
from crossfade.report import Block, Code, Column, Facts, Figure, Items, Page, Panel, Section, Table, render_page
from crossfade.report.tables import calibration_table
from crossfade.stats.calibration import HEADINGS, calibration_cells, calibration_notes
from crossfade.stats.words import text_table

if TYPE_CHECKING:
    from crossfade.stats import Analysis, MethodSummary

NETS = {"linear": "Linear classifier", "mlp": "One hidden layer"}


class PaperRow(NamedTuple):
    """A row of the printed table: number of wins, mean difference to CE in points, mean rank."""

    wins: float
    delta: float
    rank: float


PAPER = {
    net: {method: PaperRow(*row) for method, row in rows.items()} for net, rows in DEFINED["table4"]["printed"].items()
}

_COLUMNS = ("Method", "Wins", "paper", "Δ points", "paper", "Mean rank", "paper", "95 % of Δ", "p (Holm)")


def write_page(store: Store, runs: Sequence[Run], report: Path) -> str:
    """Write the page of these runs, one for each network, from the store alone, and return its tables as text.

    A data set with a failed trial is left out and named, so that all methods are compared on the same sets.

    Raises:
        UserError: missing methods or repeats of some data sets, which are all listed.
    """
    from crossfade.stats import analyze, summarize_repeats

    halves, meta = [], dict(runs[0].request["meta"])
    for run in runs:
        results, net = frames.results(store, run.keys), run.request["meta"]["net"]
        failed = {name for name, *_ in frames.failures(store, run.keys)}
        meta["missing"] = [*meta["missing"], *(f"{name} ({net})" for name in sorted(failed))]
        results = results[~results["dataset"].isin(failed)]
        summary = summarize_repeats(results, "ce", ties="min")
        analysis = analyze(results, repeat="repeat", control="ce")
        halves.append(_Half(net, summary, analysis, results))
    write_text(report, render_page(_page(halves, meta)), "--report")
    return _text(halves, meta)


@dataclass(frozen=True)
class _Half:
    """One half of Table 4: ``summary`` averages the seeds as the paper does, ``analysis`` averages scores first."""

    net: str
    summary: tuple[MethodSummary, ...]
    analysis: Analysis
    results: pd.DataFrame

    @cached_property
    def seeds(self) -> list[Analysis]:
        """The analyses of the first two seeds by themselves: Figure 3's panels."""
        from crossfade.stats import analyze

        rows = self.results
        first = [repeat for repeat in sorted(rows["repeat"].unique()) if repeat % SPLITS == 0][:2]
        return [analyze(rows[rows["repeat"] == repeat], repeat="repeat", control="ce") for repeat in first]

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Yield a row for each method, as in ``_COLUMNS``; differences in points of accuracy."""
        p_values = {test.method: test.p_adjusted for test in self.analysis.against_control}
        for row in self.summary:
            paper = PAPER[self.net].get(row.method)
            interval = self.analysis.intervals.get(row.method)
            yield (
                row.method,
                f"{row.wins:g}" if row.wins == int(row.wins) else f"{row.wins:.1f}",
                f"{paper.wins:g}" if paper else "",
                f"{100 * (row.mean_delta or 0.0):+.2f}",
                f"{paper.delta:+.2f}" if paper else "",
                f"{row.mean_rank:.2f}",
                f"{paper.rank:.2f}" if paper else "",
                f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}" if interval else "",
                f"{p_values[row.method]:.2g}" if row.method in p_values else "",
            )


def _text(tables: Sequence[_Half], meta: Json) -> str:
    """Return the tables for a terminal."""
    lines = []
    for table in tables:
        lines += [f"{NETS[table.net]}: {_scope(table, meta)}"]
        lines += [f"  {line}" for line in text_table(_COLUMNS, list(table.cells())).splitlines()]
        test = table.analysis.friedman
        lines += [f"  Friedman: chi² = {test.chi2:.1f}, p = {test.chi2_p:.2g}", ""]
        if notes := list(calibration_notes(table.results)):
            cells = [[name, *found] for name, found in calibration_cells(table.results).items()]
            lines += [f"  {line}" for line in text_table(["Method", *HEADINGS], cells).splitlines()]
            lines += [*(f"  {note}" for note in notes), ""]
    return "\n".join(lines)


def _scope(table: _Half, meta: Json) -> str:
    sets, repeats = len(table.analysis.matrix), table.results["repeat"].nunique()
    missing = f" (not here: {', '.join(meta['missing'])})" if meta["missing"] else ""
    scale = "" if meta["scale"] == "paper" else f", scale {meta['scale']}: not the paper's protocol"
    return f"{sets} of {meta['of']} sets{missing}, {repeats} repeats, momentum {meta['momentum']:g}{scale}"


def _page(tables: Sequence[_Half], meta: Json) -> Page:
    facts = (("Device", meta["device"]), ("Commit", meta["commit"] or "installed package"), *meta["versions"].items())
    how = (Facts(facts), Code(meta["command"], "Command"))
    absent = tuple(f"{name}: its files are not here" for name in meta["missing"])
    return Page(
        title="Table 4: losses on the UCI sets",
        lead=f"Ours beside the paper's. {_scope(tables[0], meta)}.",
        verdict=tuple(_finding(table) for table in tables),
        sections=(
            *(Section(table.net, NETS[table.net], tuple(_blocks(table, meta))) for table in tables),
            *([Section("figure3", "Figure 3 as printed", (_figure3(tables),))] if len(tables[0].seeds) > 1 else []),
            Section("run", "What was run", how),
            *([Section("not-run", "What was not run", (Items(absent),))] if absent else []),
        ),
        details=(
            "Wins, mean difference and mean rank are computed for each seed and averaged, as in the paper.",
            "Methods that tie get their best rank: the paper's mean ranks add up to less than average ranks would.",
            "Intervals and p-values (Wilcoxon against CE, Holm) are over data sets, repeats averaged first.",
        ),
    )


def _finding(table: _Half) -> str:
    others = [row for row in table.summary if row.method != "ce"]
    best = min(others, key=lambda row: row.mean_rank)
    own = next(row for row in table.summary if row.method == "ce")
    p = {test.method: test.p_adjusted for test in table.analysis.against_control}[best.method]
    sure = "a reliable difference" if p < table.analysis.alpha else "no reliable difference"
    return (
        f"{NETS[table.net]}: {best.method} has the best mean rank, {best.mean_rank:.2f} (CE {own.mean_rank:.2f}), and "
        f"{100 * (best.mean_delta or 0.0):+.2f} points against CE: {sure} (p = {p:.2g})."
    )


def _figure3(tables: Sequence[_Half]) -> Block:
    """Return Figure 3: a panel for each network and each of two seeds."""
    from crossfade.stats import to_svg

    panels = (
        (NETS[table.net], seed, to_svg(analysis.figures()["ranks"], prefix=f"{table.net}-{seed}-"))
        for table in tables
        for seed, analysis in enumerate(table.seeds)
    )
    drawn = tuple(Panel(Markup(svg), f"{name}, seed {seed}") for name, seed, svg in panels)
    return Figure(drawn, "Mean ranks of single seeds; joined are methods that Conover's test doesn't tell apart.")


def _blocks(table: _Half, meta: Json) -> Iterator[Block]:
    from crossfade.stats import to_svg

    titles = {entry["name"]: entry["title"] for entry in meta["methods"]}
    yield Table(
        f"Table 4, {NETS[table.net].lower()}: {_scope(table, meta)}",
        tuple(Column(name, align="left" if not at else "right") for at, name in enumerate(_COLUMNS)),
        tuple((titles.get(row[0], row[0]), *row[1:]) for row in table.cells()),
        notes=(f"Friedman: chi² = {table.analysis.friedman.chi2:.1f}, p = {table.analysis.friedman.chi2_p:.2g}.",),
    )
    yield calibration_table(table.results)
    drawn = table.analysis.figures()
    captions = {
        "ranks": "Mean ranks; methods that Conover's test (Benjamini–Hochberg) doesn't tell apart are joined (Fig. 3).",
        "signs": "Conover's p-values of all pairs, adjusted by Benjamini and Hochberg.",
        "differences": "Difference to CE on each data set, with the mean and its 95 % interval.",
    }
    for name, caption in captions.items():
        if name in drawn:
            yield Figure((Panel(Markup(to_svg(drawn[name], prefix=f"{table.net}-{name}-"))),), caption)
