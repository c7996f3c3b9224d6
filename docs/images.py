"""Blocks of docs/results/images.md, from results/images/; and the files there, from a store.

python docs/images.py STORE NAME [HARDWARE]    adds a store's results to results/images/NAME.{csv,json}
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from crossfade.lab import frames
from crossfade.lab.paper.image_run import image_study
from crossfade.lab.paper.image_tables import markdown
from crossfade.lab.store import Store
from crossfade.lab.train.deep_methods import deep_method

FOLDER = Path(__file__).parent.parent / "results" / "images"
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
    runs = json.loads(about.read_text())["runs"] if about.exists() else []
    made = Counter((row.provenance["commit"], json.dumps(row.provenance["versions"])) for row in rows)
    for (commit, versions), number in made.items():
        time = max(row.provenance["time"] for row in rows if row.provenance["commit"] == commit)
        runs.append(
            {"trials": number, "commit": commit, "time": time, "hardware": hardware, "versions": json.loads(versions)}
        )
    meta = {key: value for key, value in run.request["meta"].items() if key not in ("versions", "device", "commit")}
    whole = pd.read_csv(FOLDER / f"{name}.csv")
    methods = [deep_method(method) for method in dict.fromkeys(whole["method"])]
    meta["methods"] = [{"name": one.name, "title": one.title, "note": one.note} for one in methods]
    meta["command"] = re.sub(r"--data-dir \S+", "--data-dir DIR", meta["command"])  # a machine's own business
    meta |= {"repeats": int(whole["repeat"].max()) + 1, "runs": runs}
    about.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")


def study(name: str) -> str:
    """What was run, and its tables."""
    about = json.loads((FOLDER / f"{name}.json").read_text())
    results = pd.read_csv(FOLDER / f"{name}.csv")
    made = [
        f"{one['trials']} at commit {one['commit']} ({one['hardware']}, {one['time'][:10]})" for one in about["runs"]
    ]
    head = (
        f"`{about['command']}`: {len(results)} runs, {results['seconds'].median():.0f} seconds each (median). "
        f"{'; '.join(made)}. Everything else: `results/images/{name}.json`, and the CSV files beside it."
    )
    return head + "\n\n" + markdown(image_study(str(results["study"].iloc[0])), results, about["scale"]).strip()


def stopped() -> str:
    """The GPU run that wasn't finished: accuracy along the way."""
    about = json.loads((FOLDER / "table1-h200-stopped.json").read_text())
    rows = pd.read_csv(FOLDER / "table1-h200-stopped.csv")
    last = int(rows["epoch"].max())
    epochs = [40, 80, 120, 121, 160, 161, 200, last]
    head = (
        f"`{about['command']}`, stopped {about['stopped']} (commit {about['commit']}, {about['time'][:10]}; "
        f"{about['hardware']}, torch {about['versions']['torch']}). Every epoch: "
        "`results/images/table1-h200-stopped.csv`."
    )
    paper = {cell.recipe.net: cell.paper for cell in image_study("table1").cells if cell.data == "cifar100"}["resnet20"]
    lines = [
        f"| method | {' | '.join(f'epoch {one}' for one in epochs)} | the paper's last |",
        f"|---|{'--:|' * (len(epochs) + 1)}",
    ]
    for method, own in rows.groupby("method"):
        by_epoch = own.set_index("epoch")["test_accuracy"] * 100
        cells = [f"{by_epoch[one]:.2f}" for one in epochs]
        lines.append(f"| {method} | {' | '.join(cells)} | {paper[str(method)][0]:.2f} |")
    return "\n".join([head, "", *lines])


def parameters() -> str:
    from crossfade.lab.nets import build, parameters

    lines = ["| network | ours | published |", "|---|--:|--:|"]
    lines += [f"| {title} | {parameters(build(n, 10)):,} | {printed} |" for n, (title, printed) in PUBLISHED.items()]
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """By the name of their mark."""
    paths = sorted([*FOLDER.glob("*-short*.json"), *FOLDER.glob("*-own*.json")])
    found = {f"results/images/{path.stem}": study(path.stem) for path in paths}
    return {**found, "results/images/table1-h200-stopped": stopped(), "crossfade.lab.nets": parameters()}


if __name__ == "__main__":
    collect(Path(sys.argv[1]), sys.argv[2], " ".join(sys.argv[3:]) or "CPU, 1 thread, torch.compile")
