"""An image study's numbers beside the paper's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from crossfade.lab.paper.image_study import ImageStudy

__all__ = ["beside_paper", "escape_table", "markdown", "plus_minus", "signed"]

_GROUPS = ("right", "near", "far")


def beside_paper(study: ImageStudy, results: pd.DataFrame) -> pd.DataFrame:
    """A line for each network and method: ours in percent (mean, deviation over seeds, seeds), the paper's, and both
    differences to CE in points. Ours is paired: the mean over seeds that both methods have.
    """
    lines: list[dict[str, Any]] = []
    printed_cells = {cell.label: cell for cell in study.cells}
    # What the paper hasn't (``ImageStudy.any_cell``) stands below.
    for label in dict.fromkeys([*printed_cells, *results["dataset"]]):
        own, cell = results[results["dataset"] == label], printed_cells.get(label)
        table = own.pivot_table(index="repeat", columns="method", values="accuracy") * 100
        paper = cell.paper if cell else {}
        for name in cell.methods if cell else dict.fromkeys(own["method"]):
            ours = table[name].dropna() if name in table else pd.Series(dtype=float)
            gap = (ours - table["ce"]).dropna() if "ce" in table and name != "ce" else pd.Series(dtype=float)
            printed, spread = paper.get(name, (math.nan, None))
            base = paper["ce"][0] if "ce" in paper and name != "ce" else math.nan
            lines.append(
                {
                    "dataset": label, "method": name, "ours": ours.mean(), "ours_std": ours.std(),
                    "seeds": len(ours), "delta": gap.mean(), "paper": printed, "paper_std": spread,
                    "paper_delta": printed - base,
                }
            )  # fmt: skip
    return pd.DataFrame(lines)


def escape_table(results: pd.DataFrame) -> pd.DataFrame:
    """The motivating example, from results of recipes that watch.

    Numbers of test images in each group at the watched epoch and of those right at the end, and their share in percent;
    means over seeds.
    """
    counts = [f"{when}_{group}" for when in ("watch", "end") for group in _GROUPS]
    if not set(counts) <= set(results.columns):
        return pd.DataFrame(columns=["dataset", "method", *counts])
    own = results.dropna(subset=counts)
    return _shares(own.groupby(["dataset", "method"], sort=False)[counts].mean().reset_index())


def _shares(table: pd.DataFrame) -> pd.DataFrame:
    for group in _GROUPS if len(table) else ():
        table[f"share_{group}"] = 100 * table[f"end_{group}"] / table[f"watch_{group}"]
    return table


def markdown(study: ImageStudy, results: pd.DataFrame, scale: str) -> str:
    """The study's page: ours beside the paper's, and what the paper leaves open."""
    note = ""
    if scale != "paper" and len(results):
        images, epochs = int(results["n_train"].max()), int(results["epoch"].max())
        note = (
            f" Scale **{scale}**: {images:,} training images, {epochs} epochs{_batch(scale)}, the last one's accuracy. "
            "The paper's protocol is far longer: its numbers are here for reference, and ours say nothing about them."
        )
    lines = [
        f"### {study.title}", "", f"Accuracy on the test part, percent.{note}", "",
        "| | method | ours | seeds | Δ to CE | paper | paper's Δ |", "|---|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    lines += [_line(row) for row in beside_paper(study, results).to_dict("records") if row["seeds"]]
    escapes = escape_table(results)
    if len(escapes):
        printed = {"dataset": f"{study.cells[0].label}, the paper", "method": "ce", **study.counted}
        paper = pd.DataFrame([printed] if study.counted else [])
        escapes = pd.concat([_shares(paper), escapes])
        lines += [
            "", "Test images by their state at the watched epoch, and the share of each group that is right at the end "
            "(means over seeds):", "",
            "| | method | right | wrong, p_y > 0.2 | wrong, p_y < 0.2 |", "|---|---|---:|---:|---:|",
        ]  # fmt: skip
        lines += [_escape_line(row) for row in escapes.to_dict("records")]
    return "\n".join([*lines, "", "What the paper leaves open, and the choice here:", "", *_listed(study), ""])


def _batch(scale: str) -> str:
    from crossfade.lab.paper.image_study import SHORTENED

    return f", batch {SHORTENED[scale][1]}" if scale in SHORTENED else ""


def _line(row: dict[Any, Any]) -> str:
    return (
        f"| {row['dataset']} | {row['method']} | {plus_minus(row['ours'], row['ours_std'])} | {row['seeds'] or ''} | "
        f"{signed(row['delta'])} | {plus_minus(row['paper'], row['paper_std'])} | {signed(row['paper_delta'])} |"
    )


def _escape_line(row: dict[Any, Any]) -> str:
    counts = [(row[f"watch_{group}"], row[f"share_{group}"]) for group in _GROUPS]
    cells = [f"{count:,.0f}: {share:.2f} %" if count else "0" for count, share in counts]
    return f"| {row['dataset']} | {row['method']} | {' | '.join(cells)} |"


def _listed(study: ImageStudy) -> list[str]:
    return [f"- {choice}" for choice in study.choices]


def plus_minus(mean: float, std: float | None) -> str:
    """Mean and deviation, as far as they are known."""
    if math.isnan(mean):
        return ""
    return f"{mean:.2f}" + ("" if std is None or math.isnan(std) else f" ± {std:.2f}")


def signed(value: float) -> str:
    """A difference; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")
