"""A study's page in Markdown: our results beside the paper's, and the choices that the paper leaves open."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from crossfade.lab import frames
from crossfade.lab.files import SIGNATURE, write_text
from crossfade.lab.paper.study import Cell, D, Plan, R, Study
from crossfade.lab.store import Store
from crossfade.stats.calibration import HEADINGS, calibration_cells, calibration_notes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossfade.stats.means import MeanTest


@dataclass(frozen=True)
class MarkdownStudy(Study[R, D]):
    """A study whose page is a Markdown file."""

    above_choices: ClassVar[str] = ""

    @abstractmethod
    def tables(self, results: pd.DataFrame) -> str:
        """Return the tables of our results beside the paper's."""

    def lead(self, results: pd.DataFrame, scale: str) -> str:
        """Return the text above the tables."""
        shortened = "" if scale == "paper" else f"Scale **{scale}**, not the paper's protocol.\n\n"
        return f"{shortened}Percent."

    def figure(self, results: pd.DataFrame, title: str) -> Figure | None:
        """Return the study's figure, if it has one."""
        return None

    def page(self, results: pd.DataFrame, scale: str, notes: Sequence[str] = (), used: Sequence[str] = ()) -> str:
        """Return the page of these results; what was ``used`` stands above the study's choices, ``notes`` below."""
        listed = "\n".join(f"- {line}" for line in (*used, *self.choices, *notes))
        parts = [f"### {self.title}", self.lead(results, scale), self.tables(results), *calibration_parts(results)]
        parts += [self.above_choices, listed]
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, store: Store, planned: Plan, report: Path) -> str:
        """Write the page, and the figure beside it."""
        from crossfade.stats import to_svg

        results = frames.results(store, planned.keys)
        notes = (*planned.notes, *frames.origins(store, planned.keys))
        page = self.page(results, planned.scale, notes, planned.used)
        figure = self.figure(results, planned.title)
        if figure is not None:
            drawn = report.with_suffix(".svg")
            write_text(drawn, to_svg(figure) + SIGNATURE, "--report")
            page += f"\n![performance profile]({drawn.name})\n"
        write_text(report, f"{page}\n{SIGNATURE}", "--report")
        return page


def beside_paper(cells: Sequence[Cell[R]], results: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each network and method.

    It holds our accuracy in percent (mean, deviation over seeds, number of seeds), the paper's, and both differences to
    CE in points. Our difference is paired: the mean over the seeds that both methods have, from three on with half of
    Student's 95 % interval.
    """
    from crossfade.stats import paired_t

    lines: list[dict[str, object]] = []
    known = {cell.label: cell for cell in cells}
    for label in dict.fromkeys([*known, *results["dataset"]]):  # cells that aren't in the paper come last
        own, cell = results[results["dataset"] == label], known.get(label)
        ours = own.pivot_table(index="repeat", columns="method", values="accuracy") * 100
        title, paper, methods = (cell.title or label, cell.paper, cell.methods) if cell else (label, {}, ())
        for name in dict.fromkeys([*methods, *own["method"]]):
            mine = ours[name].dropna() if name in ours else pd.Series(dtype=float)
            printed, spread = paper.get(name, (math.nan, None))
            base = paper["ce"][0] if "ce" in paper and name != "ce" else math.nan
            gaps = paired_gaps(ours, name)
            lines.append(
                {
                    "dataset": label,
                    "title": title,
                    "method": name,
                    "ours": mine.mean(),
                    "ours_std": mine.std(),
                    "seeds": len(mine),
                    "delta": gaps.mean(),
                    "delta_half": half_width(paired_t(gaps)) if len(gaps) > 2 else math.nan,
                    "paper": printed,
                    "paper_std": spread,
                    "paper_delta": printed - base,
                }
            )
    return pd.DataFrame(lines)


def paired_gaps(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a method's differences to CE in a table of seed × method, over the seeds that both have; none for CE."""
    if name == "ce" or name not in table or "ce" not in table:
        return pd.Series(dtype=float)
    return (table[name] - table["ce"]).dropna()


def half_width(test: MeanTest) -> float:
    """Return half of a mean's interval, NaN if it has none."""
    return (test.interval.high - test.interval.low) / 2 if test.interval else math.nan


def table(cells: Sequence[Cell[R]], results: pd.DataFrame, heading: str = "") -> str:
    """Return ``beside_paper`` as Markdown, without the methods that have no results."""
    first = f"| {heading} " if heading else "| "
    beside = beside_paper(cells, results)
    gap = "Δ to CE (95 %)" if beside["delta_half"].notna().any() else "Δ to CE"
    lines = [f"{first}| method | ours | seeds | {gap} | paper | paper's Δ |", "|---|---|---:|---:|---:|---:|---:|"]
    for line in beside.to_dict("records"):
        if line["seeds"]:
            ours, paper = plus_minus(line["ours"], line["ours_std"]), plus_minus(line["paper"], line["paper_std"])
            gaps = [signed(line["delta"], line["delta_half"]), signed(line["paper_delta"])]
            lines.append(row(line["title"], line["method"], ours, line["seeds"], gaps[0], paper, gaps[1]))
    return "\n".join(lines)


def calibration_parts(results: pd.DataFrame) -> list[str]:
    """Return scores before and after one temperature as Markdown, over all networks; empty where there is none."""
    notes = list(calibration_notes(results))
    rows = [row(name, *cells) for name, cells in calibration_cells(results).items()]
    table = "\n".join([row("method", *HEADINGS), "|---|" + "---:|" * len(HEADINGS), *rows])
    return [*notes, table] if notes else []


def row(*cells: object) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def plus_minus(mean: float, std: float | None) -> str:
    """Return mean and deviation; an unknown one is left out."""
    if math.isnan(mean):
        return ""
    return f"{mean:.2f}" + ("" if std is None or math.isnan(std) else f" ± {std:.2f}")


def signed(value: float, half: float = math.nan) -> str:
    """Return a difference with its sign, and half of its interval if there is one; an empty text for NaN."""
    width = "" if math.isnan(half) else f" ± {half:.2f}"
    return "" if math.isnan(value) else f"{value:+.2f}".replace("-", "−") + width
