"""Files that a why-study writes: CSV tables, figures and where the numbers come from."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.files import write_text
from crossfade.lab.provenance import provenance

__all__ = ["COLOURS", "check_scale", "output_folder", "write_provenance", "write_table"]

#: One colour for each loss, the same in every figure: Okabe and Ito's, which colour-blind readers can tell apart.
COLOURS = {
    "ce": "#555555",
    "f0": "#0072B2",
    "f0.1": "#56B4E9",
    "f0.2": "#009E73",
    "f0.25": "#009E73",
    "f0.3": "#E69F00",
    "f0.4": "#D55E00",
    "el": "#CC79A7",
    "gradual": "#E69F00",
    "gradual-unit": "#009E73",
    "f0-late": "#56B4E9",
}


def check_scale(scale: str) -> None:
    """Raise UserError for an unknown scale."""
    if scale not in ("smoke", "short", "paper"):
        raise UserError(f"scale must be smoke, short or paper, got {scale!r}")


def output_folder(out: Path) -> Path:
    """Return the folder, made if need be.

    Raises:
        UserError: it is a file, or can't be made.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file, expected a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: can't be made ({error.strerror})") from None
    return out


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a CSV file, whole or not at all; numbers with six digits."""
    write_text(path, frame.to_csv(index=False, float_format="%.6g"), "--out")


def write_provenance(
    out: Path,
    study: str,
    scale: str,
    settings: Mapping[str, object],
    command: str = "",
    earlier: Iterable[Mapping[str, object]] = (),
) -> None:
    """Write ``provenance.json``: versions, commit, kind of machine, settings and the command.

    Args:
        out: The study's folder.
        study, scale, settings: What was asked for.
        command: How; default: this process's.
        earlier: The provenance of rows that other versions, commits or machines have computed.
    """
    record: dict[str, object] = {
        "study": study,
        "scale": scale,
        "settings": dict(settings),
        "command": command or shlex.join(["crossfade", *sys.argv[1:]]),
        **provenance(),
        "machine": f"{os.cpu_count()}-core {_processor()}",
        "earlier": list(earlier),
    }
    (out / "provenance.json").write_text(json.dumps(record, indent=1, default=str) + "\n")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
