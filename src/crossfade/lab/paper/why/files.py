"""The output folder of a why-study: tables as CSV, figures as SVG, and the provenance of the numbers."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from crossfade.lab.checks import check_choice
from crossfade.lab.files import write_json, write_text
from crossfade.lab.paper.study import check_known
from crossfade.lab.provenance import provenance
from crossfade.stats.drawing import to_svg

#: One colour for each loss, the same in every figure: Okabe and Ito's, which colour-blind readers can tell apart.
COLOURS = {
    "ce": "#555555",
    "f0": "#0072B2",
    "f0.1": "#56B4E9",
    "f0.2": "#009E73",
    "f0.3": "#E69F00",
    "f0.4": "#D55E00",
    "el": "#CC79A7",
    "gradual": "#E69F00",
    "gradual-unit": "#009E73",
    "f0-late": "#56B4E9",
}


def check_scale(scale: str) -> None:
    """Raise UserError for an unknown scale."""
    check_choice("scale", scale, ("smoke", "short", "paper"))


def chosen_sets(only: Sequence[str], there: Sequence[str], where: str, data_dir: Path | None) -> Sequence[str]:
    """Return the names of data sets that are asked for, by default all; UserError for one that isn't ``there``."""
    check_known("--sets", only, there, where if data_dir is not None else f"{where} without --data-dir")
    return only or there


def command_line() -> str:
    """Return the command that this process runs, as a user would type it."""
    return shlex.join(["crossfade", *sys.argv[1:]])


def write_study(
    out: Path,
    study: str,
    scale: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    settings: Mapping[str, object],
    *,
    command: str = "",
    earlier: Iterable[Mapping[str, object]] = (),
) -> None:
    """Make the folder, and write every table as CSV with six digits, every figure as SVG, and ``provenance.json``.

    Args:
        tables, figures: The contents by names of files.
        command: The command of the request; by default this process's.
        earlier: The provenance of rows that were computed by other versions, commits or machines.

    Raises:
        UserError: the folder can't be written to.
    """
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, object] = {
        "study": study,
        "scale": scale,
        "settings": dict(settings),
        "command": command or command_line(),
        **provenance(),
        "machine": f"{os.cpu_count()}-core {_processor()}",
        "earlier": list(earlier),
    }
    write_json(out / "provenance.json", record)  # first: it says whose the other files are
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"), "--out")
    for name, figure in figures.items():
        drawn = '<?xml version="1.0" encoding="utf-8"?>\n' + to_svg(figure, outlines=False)
        write_text(out / f"{name}.svg", drawn, "--out")


def _processor() -> str:
    known = Path("/proc/cpuinfo")  # on Linux; on other systems Python knows the name
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())
