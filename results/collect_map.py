"""Command that collects a store of `crossfade run map` in results/map/results.parquet and provenance.json.

    python results/collect_map.py map.db

It writes one row for each finished trial of the store's last complete map beside those collected before, which it
replaces where they are the same, and how many failed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from crossfade.lab import frames
from crossfade.lab.paper.map_page import COLUMNS, collect
from crossfade.lab.store import Run, Store

OUT = Path(__file__).parent / "map"
KEY = [*COLUMNS, "dataset", "method", "repeat"]
LONG = ("command", "methods", "datasets", "notes", "place", "recipe")  # fields of a run's description that are left out


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with Store(sys.argv[1], "read") as store:
        by_command: dict[str, list[Run]] = {}
        for run in store.runs():
            by_command.setdefault(run.request["meta"]["command"], []).append(run)
        known = set(store.statuses([key for runs in by_command.values() for run in runs for key in run.keys]))
        maps = [(command, runs) for command, runs in by_command.items() if all(known.issuperset(r.keys) for r in runs)]
        if not maps:
            sys.exit(f"{sys.argv[1]} has no complete map")
        command, runs = maps[0]  # the newest comes first
        table = collect(store, runs)
        keys = [key for run in runs for key in run.keys]
        failed = [": ".join(map(str, failure)) for failure in frames.failures(store, keys)]
    meta = runs[0].request["meta"]
    about = {name: value for name, value in meta.items() if name not in LONG}
    about |= {"command": re.sub(r"--(data-dir|store|report) \S+ ?", "", command), "trials": len(keys), "failed": failed}
    about["recipe"] = {run.request["meta"]["place"]["net"]: run.request["meta"]["recipe"] for run in runs}
    small = {"repeat": "int16", "nll": "float32", "n_train": "int32"}
    path, described = OUT / "results.parquet", OUT / "provenance.json"
    table = pd.concat([table.astype(small), pd.read_parquet(path)]).drop_duplicates(KEY).sort_values(KEY)
    table.to_parquet(path, index=False, compression="zstd")
    parts = [about, *(one for one in json.loads(described.read_text()) if one["command"] != about["command"])]
    described.write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n")
    print(f"{OUT}: {len(table)} rows, {len(failed)} trials failed")


if __name__ == "__main__":
    main()
