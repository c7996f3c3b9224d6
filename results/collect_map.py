"""Command that collects a store of `crossfade run map` in results/map/results.parquet and provenance.json.

    python results/collect_map.py map.db

It writes one row for each finished trial of the store's last complete map, and how many failed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from crossfade.lab import frames
from crossfade.lab.paper.map_page import collect
from crossfade.lab.store import Store

OUT = Path(__file__).parent / "map"
LONG = ("command", "methods", "datasets", "notes", "place", "recipe")  # fields of a run's description that are left out


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with Store(sys.argv[1], "read") as store:
        by_command: dict[str, list[object]] = {}
        for run in store.runs():
            if set(run.keys) <= set(store.statuses(run.keys)):
                by_command.setdefault(run.request["meta"]["command"], []).append(run)
        command, runs = max(by_command.items(), key=lambda pair: sum(len(run.keys) for run in pair[1]))
        table = collect(store, runs)
        keys = [key for run in runs for key in run.keys]
        failed = [": ".join(map(str, failure)) for failure in frames.failures(store, keys)]
    meta = runs[0].request["meta"]
    about = {name: value for name, value in meta.items() if name not in LONG}
    about |= {"command": re.sub(r"--(data-dir|store|report) \S+ ?", "", command), "trials": len(keys), "failed": failed}
    about["recipe"] = {run.request["meta"]["recipe"]["net"]: run.request["meta"]["recipe"] for run in runs}
    small = {"repeat": "int16", "nll": "float32", "n_train": "int32"}
    OUT.mkdir(exist_ok=True)
    table.astype(small).to_parquet(OUT / "results.parquet", index=False, compression="zstd")
    (OUT / "provenance.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    print(f"{OUT}: {len(table)} rows, {len(failed)} trials failed")


if __name__ == "__main__":
    main()
