"""Command that collects stores of `crossfade run table4` in results/table4/results.parquet and provenance.json.

    python results/collect_table4.py table4.db table4-plain-sgd.db

It writes one row for each trial, beside what was collected before; a row that is there already is replaced. Runs with
other learning rates than the paper's go to results/table4_wide.
``accuracy_last`` and ``accuracy_loss`` come from the other rules for equal validation accuracies.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import pandas as pd

from crossfade.lab import frames
from crossfade.lab.store import Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import digest

OUT = Path(__file__).parent / "table4"
KEY = ["dataset", "method", "repeat", "net"]
LONG = ("sets", "command", "methods", "datasets", "notes")  # fields of a run's description that are left out


def with_tie(results: pd.DataFrame, curves: pd.DataFrame, tie: str) -> pd.DataFrame:
    """Return the results that another rule for equal validation accuracies would have given, from the stored curves.

    The learning rate doesn't change with it: the best validation accuracy of each rate is the same under every rule.
    """
    best = curves.groupby(KEY)["val_accuracy"].transform("max")
    equal = curves[curves["val_accuracy"] == best]
    order = {"first": ["epoch"], "last": ["epoch"], "loss": ["val_nll", "epoch"]}[tie]
    chosen = equal.sort_values(order, ascending=tie != "last").drop_duplicates(KEY)
    picked = chosen[[*KEY, "epoch", "test_accuracy", "test_nll"]].rename(
        columns={"test_accuracy": "accuracy", "test_nll": "nll"}
    )
    return results.drop(columns=["epoch", "accuracy", "nll"]).merge(picked, on=KEY, validate="one_to_one")


def rows(path: str) -> tuple[pd.DataFrame, list[dict[str, object]]]:
    with Store(path, "read") as store:
        parts, runs = [], []
        for run in store.runs():
            meta = run.request["meta"]
            found, curves = frames.results(store, run.keys), frames.curves(store, run.keys)
            failed = frames.failures(store, run.keys)
            if len(found) + len(failed) < len(run.keys):
                print(f"{path}: {run.study} with {meta['seeds']} seeds isn't complete, left out")
                continue
            command = re.sub(r"--(data-dir|store|report) \S+ ?", "", meta["command"])  # paths on that machine
            kept = {name: meta[name] for name in meta if name not in LONG}
            kept["data"] = digest([one["sha256"] for one in meta["datasets"]])
            kept |= {"failed": frames.failure_lines(failed)} if failed else {}
            runs.append({"study": run.study, "command": command, **kept})
            for tie in ("last", "loss"):
                other = with_tie(found, curves, tie)[[*KEY, "accuracy"]]
                found = found.merge(
                    other.rename(columns={"accuracy": f"accuracy_{tie}"}), on=KEY, validate="one_to_one"
                )
            parts.append(found.assign(momentum=meta["momentum"], scale=meta["scale"]))
    return pd.concat(parts), runs


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    parts, runs = zip(*(rows(path) for path in sys.argv[1:]), strict=True)
    table = pd.concat(parts)
    rates = {tuple(run["recipe"]["learning_rates"]) for several in runs for run in several}
    if len(rates) > 1:
        sys.exit(f"stores of several grids of learning rates, collect them one by one: {rates}")
    out = OUT if rates == {Recipe().learning_rates} else OUT.with_name("table4_wide")
    table["split"], table["seed"] = table["repeat"] % 4, table["repeat"] // 4
    columns = ["net", "momentum", "dataset", "method", "seed", "split", "accuracy", "accuracy_last", "accuracy_loss"]
    columns += ["nll", "ece", "learning_rate", "epoch", "n_train", "n_val", "n_test", "classes", "scale"]
    before, runs_before = out / "results.parquet", out / "provenance.json"
    if before.exists():
        table = pd.concat([table[columns], pd.read_parquet(before)])
        runs = (*runs, [one for one in json.loads(runs_before.read_text()) if one not in itertools.chain(*runs)])
    table = table[columns].drop_duplicates(columns[:6]).sort_values(columns[:6]).reset_index(drop=True)
    small = {"nll": "float32", "ece": "float32", "seed": "int16", "split": "int8", "epoch": "int16"}
    out.mkdir(exist_ok=True)
    table.astype(small).to_parquet(before, index=False, compression="zstd")
    written = json.dumps([*itertools.chain(*runs)], indent=1, ensure_ascii=False)
    runs_before.write_text(written + "\n")
    print(f"{out}: {len(table)} rows")


if __name__ == "__main__":
    main()
