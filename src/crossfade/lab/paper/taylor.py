"""Eq. (11): Taylor's remainder of CE around EL, and the text's statements about it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from crossfade.diagnostics.taylor import check_claims, remainder, remainder_bounds, xi
from crossfade.lab.paper.why_tables import COLOURS, Progress, Table, check_scale, figure, save, write_provenance

__all__ = ["INTERVALS", "run"]

#: The paper's three intervals for two classes.
INTERVALS = {"right and certain": (0.75, 1.0), "uncertain": (0.25, 0.75), "wrong and certain": (0.0, 0.25)}


def run(out: Path, data_dir: Path | None = None, scale: str = "short", *, on_progress: Progress | None = None) -> Path:
    """Write ``claims.csv``, ``intervals.csv``, ``remainder.csv`` and ``taylor.svg`` into ``out``; returns ``out``.

    Raises:
        UserError: unknown scale.
    """
    check_scale(scale)
    points = {"smoke": 1001, "short": 100_001, "paper": 1_000_001}[scale]
    out.mkdir(parents=True, exist_ok=True)
    for name in ("claims.csv", "intervals.csv", "remainder.csv"):
        (out / name).unlink(missing_ok=True)
    Table(out / "claims.csv").add("claims", [claim._asdict() for claim in check_claims(points)])
    rows = []
    for name, (low, high) in INTERVALS.items():
        smallest, largest = remainder_bounds(low, high)
        lagrange = (1 - low) ** 2 / (2 * low**2) if low else float("inf")
        rows.append(
            {
                "interval": name, "low": low, "high": high, "smallest": smallest, "largest": largest,
                "lagrange_bound": lagrange, "printed_bound": 2 * lagrange,
            }
        )  # fmt: skip
    Table(out / "intervals.csv").add("intervals", rows)
    p = torch.arange(1, 201, dtype=torch.float64) / 200
    columns = {"p": p, "remainder": remainder(p), "xi": xi(p), "xi_printed": xi(p, printed=True)}
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    Table(out / "remainder.csv").add("remainder", [dict(zip(columns, row, strict=True)) for row in values])
    _draw(columns, out)
    write_provenance(out, "taylor", scale, {"points": points}, ["crossfade", *sys.argv[1:]])
    return out


def _draw(columns: dict[str, torch.Tensor], out: Path) -> None:
    p = columns["p"]
    fig, (left, right) = figure(2)
    left.plot(p, -p.log(), color=COLOURS["ce"], label="CE")
    left.plot(p, 1 - p, color=COLOURS["el"], label="EL")
    left.plot(p, columns["remainder"], color=COLOURS["f0"], ls="--", label="CE − EL")
    left.plot([0, 0.5, 0.5, 1], [1, 1, 0, 0], color="0.7", lw=1, label="zero-one, 2 classes")
    left.axhline(4.5, color=COLOURS["f0.4"], lw=0.8, ls=":")
    left.annotate("4.5, stated for p ≤ 1/4", (0.98, 4.5), ha="right", va="bottom", fontsize=7)
    left.set(xlabel="p", ylabel="loss", ylim=(0, 5.3))
    left.legend(frameon=False, fontsize=8)
    right.fill_between(p, p, 1.0, color="0.92", label="[p, 1]")
    right.plot(p, columns["xi"], color=COLOURS["f0"], label="ξ, exact form")
    right.plot(p, columns["xi_printed"], color=COLOURS["f0.4"], label="ξ, printed form")
    right.set(xlabel="p", ylabel="ξ", ylim=(0, 1.5))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    save(fig, out / "taylor.svg")
