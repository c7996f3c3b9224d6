"""Files of a benchmark's results: tables as CSV, and where they come from, for the docs."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from crossfade.lab.provenance import provenance, versions

Table = tuple[str, Sequence[Sequence[object]]]
_ONLY_HERE = ("triton", "liger-kernel")


def save(folder: Path, tables: Mapping[str, Table], **about: object) -> None:
    """Write each table (its columns, separated by commas, and rows) to NAME.csv, and provenance.json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (head, rows) in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows([head.split(","), *rows])
    # Folders of this machine say nothing to a reader.
    words = [re.sub(r"^.*/(?=[^/]+$)|^/.*$", "", word) if word.startswith("/") else word for word in sys.argv]
    found = {"command": shlex.join(["python", *words]), "capability": capability(), **about, **provenance()}
    found["versions"] |= versions(_ONLY_HERE)
    (folder / "provenance.json").write_text(json.dumps(found, indent=1) + "\n")


def capability(device: str = "cpu") -> str:
    """Return the name of the processor or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return f"{model.group(1) if model else 'CPU'}, {torch.backends.cpu.get_cpu_capability()}"
