"""What the studies of why it works share: result tables that resume, provenance, and calm figures."""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "Progress", "Row", "Scale", "Table", "check_scale", "figure", "save", "write_provenance"]

Row: TypeAlias = Mapping[str, Any]
Scale: TypeAlias = Literal["smoke", "short", "paper"]
Progress: TypeAlias = Callable[[float, str], None]

#: One colour a loss, the same in every figure (Okabe and Ito's, which colour-blind readers can tell apart).
COLOURS = {
    "ce": "#555555", "f0": "#0072B2", "f0.1": "#56B4E9", "f0.2": "#009E73", "f0.25": "#009E73", "f0.3": "#E69F00",
    "f0.4": "#D55E00", "el": "#CC79A7", "gradual": "#E69F00", "gradual-unit": "#009E73",
    "f0-late": "#56B4E9",
}  # fmt: skip


def check_scale(scale: str) -> None:
    """Refuse an unknown scale."""
    from crossfade.errors import UserError

    if scale not in ("smoke", "short", "paper"):
        raise UserError(f"scale must be smoke, short or paper, got {scale!r}")


class Table:
    """A CSV file that grows by units of work. A unit is there whole or not at all, so a killed study goes on with it.

    Every row carries its unit's name; the name holds all that decides the numbers (scale, data set, method, seed).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))
        self._units = {row["unit"] for row in self.rows}

    def __contains__(self, unit: str) -> bool:
        return unit in self._units

    def add(self, unit: str, rows: Iterable[Row]) -> None:
        """Write a unit's rows."""
        self.rows += [{"unit": unit, **{key: _text(value) for key, value in row.items()}} for row in rows]
        self._units.add(unit)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(draft, self.path)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_provenance(out: Path, study: str, scale: str, settings: Mapping[str, Any], command: Sequence[str]) -> None:
    """``provenance.json``: versions, commit, kind of machine, settings and the command.

    A study that went on in the same folder keeps what was said of its earlier commands, under ``earlier``: its rows
    are of all of them.
    """
    from crossfade.lab.provenance import provenance

    found: dict[str, Any] = provenance()
    found["machine"] = f"{os.cpu_count()}-core {_processor()}"
    record = {"study": study, "scale": scale, "settings": dict(settings), "command": shlex.join(command), **found}
    if study in ("dynamics", "escape"):  # these resume
        record["earlier"] = _earlier(out / "provenance.json", record)
    (out / "provenance.json").write_text(json.dumps(record, indent=1, default=str) + "\n")


def _earlier(path: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What ``path`` says of other commands, commits or machines, latest first."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    told = [before, *before.pop("earlier", [])]
    kept = ("scale", "settings", "command", "commit", "machine", "time")
    same = ("scale", "command", "commit", "machine")
    return [{key: one[key] for key in kept} for one in told if any(one[key] != record[key] for key in same)]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def figure(columns: int = 1, rows: int = 1, width: float = 7.2, height: float = 2.8, **options: Any) -> Any:
    """A figure and its axes in the studies' style."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", **options)
    for axis in fig.axes:
        _calm(axis)
    return fig, axes


def _calm(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, lw=0.5)


def save(fig: Figure, path: Path) -> None:
    """As SVG whose bytes depend on nothing but the drawing."""
    import matplotlib
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"svg.hashsalt": "crossfade", "svg.fonttype": "none"}):
        fig.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(fig)
