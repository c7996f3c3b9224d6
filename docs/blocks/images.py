"""The tables of docs/results/images.md, from results/images/, and a command that fills results/images/ from a store.

python docs/blocks/images.py STORE NAME [HARDWARE]    adds a store's results to results/images/NAME.{csv,json}
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
from parts import joined, parts_of

from crossfade.lab import frames
from crossfade.lab.methods import method
from crossfade.lab.paper.image_studies import IMAGE_STUDIES
from crossfade.lab.store import Store

FOLDER = Path(__file__).parents[2] / "results" / "images"
# Printed by He et al. 2016a (table 6) and Xie et al. 2017 (table 7)
PUBLISHED = {
    "resnet20": ("ResNet20", "0.27 M"), "resnet32": ("ResNet32", "0.46 M"), "resnet44": ("ResNet44", "0.66 M"),
    "resnet110": ("ResNet110", "1.7 M"), "resnext29_8x64d": ("ResNeXt29 8x64d", "34.4 M"),
}  # fmt: skip


def collect(store: Path, name: str, hardware: str) -> None:
    """Add a store's trials to the files of this name; a trial that is there is replaced."""
    with Store(store, mode="read") as opened:
        run, rows = opened.runs()[0], list(opened.rows())
        new = {"": frames.results(opened), "-curves": frames.curves(opened)}
    for suffix, frame in new.items():
        path, same = FOLDER / f"{name}{suffix}.csv", ["dataset", "method", "repeat"] + ["epoch"] * (suffix != "")
        known = [pd.read_csv(path)] if path.exists() else []
        merged = pd.concat([*known, frame]).drop_duplicates(same, keep="last").dropna(axis=1, how="all")
        merged.sort_values("repeat", kind="stable").to_csv(path, index=False)
    about = FOLDER / f"{name}.json"
    before = json.loads(about.read_text()) if about.exists() else {"runs": [], "datasets": []}
    meta = {key: value for key, value in run.request["meta"].items() if key not in ("versions", "device", "commit")}
    command = re.sub(r"(--(data-dir|store|report)) \S+", "", meta.pop("command"))  # paths of one machine
    command = " ".join(command.split())
    runs = [*before["runs"], *({"command": command, "hardware": hardware, **part} for part in parts_of(rows))]
    meta["datasets"] = joined(before["datasets"], meta["datasets"])
    whole = pd.read_csv(FOLDER / f"{name}.csv")
    methods = [method(found) for found in dict.fromkeys(whole["method"])]
    meta["methods"] = [{"name": one.name, "title": one.title, "note": one.note} for one in methods]
    meta |= {"repeats": int(whole["repeat"].max()) + 1, "runs": runs}
    about.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")


def study(name: str) -> str:
    """Return the text on what was run, and its tables."""
    about = json.loads((FOLDER / f"{name}.json").read_text())
    results = pd.read_csv(FOLDER / f"{name}.csv")
    commands = dict.fromkeys(one["command"] for one in about["runs"])
    places: Counter[str] = Counter()
    for one in about["runs"]:
        places[f"at commit {one['commit']} ({one['hardware']}, {one['time'][:10]})"] += one["trials"]
    made = [f"{trials} {place}" for place, trials in places.items()]
    said = ", then ".join(f"`{one}`" for one in commands)
    head = (
        f"{said}: {len(results)} runs, {results['seconds'].median():.0f} seconds each (median). {'; '.join(made)}. "
        f"Everything else: `results/images/{name}.json`, and the CSV files beside it."
    )
    return head + "\n\n" + IMAGE_STUDIES[str(results["study"].iloc[0])].page(results, about["scale"]).strip()


def stopped() -> str:
    """Return the last test accuracies of an earlier run of the same command that was cut off, beside this run's."""
    curves = [pd.read_csv(FOLDER / name) for name in ("stopped/table1-h200.csv", "table1-paper-resnet20-curves.csv")]
    last = curves[0]["epoch"].max()
    first, second = (one[one["epoch"] == last].set_index("method")["test_accuracy"] * 100 for one in curves)
    lines = [f"| method | cut off at epoch {last} | this run, epoch {last} |", "|---|--:|--:|"]
    lines += [f"| {name} | {first[name]:.2f} | {second[name]:.2f} |" for name in first.index]
    return "\n".join(lines)


def parameters() -> str:
    from crossfade.lab.nets import build

    lines = ["| network | ours | published |", "|---|--:|--:|"]
    for name, (title, printed) in PUBLISHED.items():
        count = sum(weights.numel() for weights in build(name, 10).parameters())
        lines.append(f"| {title} | {count:,} | {printed} |")
    return "\n".join(lines)


def pages() -> dict[str, dict[str, str]]:
    """Return for each page its blocks, by the names of their marks."""
    found = {f"results/images/{path.stem}": study(path.stem) for path in sorted(FOLDER.glob("*.json"))}
    others = {"results/images/stopped": stopped(), "crossfade.lab.nets": parameters()}
    return {"docs/results/images.md": {**found, **others}}


if __name__ == "__main__":
    collect(Path(sys.argv[1]), sys.argv[2], " ".join(sys.argv[3:]) or "CPU, 1 thread, torch.compile")
