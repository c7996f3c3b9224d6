"""Time and peak memory of the commands that read a store, on one with 100,000 trials that nobody trained.

    python benchmarks/large_store.py [--trials 100000] [--sets 100] [--store FILE] [--output DIR]

The trials are those of ``compare`` with ten methods on so many small random tables, each with made-up scores and 50
epochs of curves; a store that is there already is used as it is. Every command runs in a process of its own: its wall
and processor time from start to end, and the most memory it held.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS_COMPARED, EPOCHS = 10, 50
COMMANDS = {
    "status": ("status", "{store}"),
    "report": ("report", "{store}", "--report", "{folder}/report.html"),
    "export": ("export", "{folder}/results.csv", "--store", "{store}"),
    "export, Parquet": ("export", "{folder}/results.parquet", "--store", "{store}"),
    "export --curves": ("export", "{folder}/curves.csv", "--store", "{store}", "--curves"),
    "export --curves, Parquet": ("export", "{folder}/curves.parquet", "--store", "{store}", "--curves"),
}


def make(path: Path, trials: int, sets: int) -> None:
    import numpy as np

    from crossfade.lab.comparison import plan
    from crossfade.lab.data.table import from_arrays
    from crossfade.lab.methods import METHODS
    from crossfade.lab.provenance import provenance
    from crossfade.lab.settings import Settings
    from crossfade.lab.store import Outcome, Store

    draw = np.random.default_rng(0)
    tables = [
        from_arrays(draw.normal(size=(60, 3)).round(3), np.arange(60) % 3, name=f"set-{number:03}")
        for number in range(sets)
    ]
    names = tuple(method.name for method in METHODS[:METHODS_COMPARED])
    repeats = max(1, trials // (sets * len(names)))
    planned = plan(tables, Settings.of({"methods": names, "repeats": repeats}), "crossfade compare")
    origin, progress = provenance(), 1 - np.exp(-np.arange(EPOCHS) / 10)
    with Store(path) as store:
        store.save(planned.run)
        for trial in planned.trials:
            reached = draw.normal(0.8, 0.03)
            rising = np.round(reached * progress + draw.normal(0, 0.01, EPOCHS), 4).clip(0, 1).tolist()
            falling = [float(f"{value:.7g}") for value in 1 - 0.8 * progress + draw.normal(0, 0.02, EPOCHS)]
            curves = dict.fromkeys(("val_accuracy", "test_accuracy"), rising)
            curves |= dict.fromkeys(("val_nll", "test_nll", "train_loss"), falling)
            result = {"accuracy": rising[-1], "nll": falling[-1], "ece": 0.05, "brier": 0.2, "learning_rate": 0.01}
            result |= {"epoch": EPOCHS, "n_train": 36, "n_val": 12, "n_test": 12, "classes": 3, "seconds": 0.1}
            store.put(trial, Outcome({**result, "engine": "kernel"}, curves), origin)


def measured(*arguments: str) -> tuple[float, float, float]:
    """Return the seconds that a command takes, those of the processor, and the most megabytes it holds."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "crossfade", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"crossfade {' '.join(arguments)} failed")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or Path(folder) / "large.db"
        if not store.exists():
            # In another process, as is all that is imported for it: a command's peak counts what its parent held.
            making = multiprocessing.get_context("spawn").Process(target=make, args=(store, given.trials, given.sets))
            making.start()
            making.join()
        rows = []
        for name in given.only:
            wall, processor, megabytes = measured(*(word.format(store=store, folder=folder) for word in COMMANDS[name]))
            rows.append((given.sets, name, f"{wall:.1f}", f"{processor:.1f}", f"{megabytes:.0f}"))
            print(*rows[-1], sep="  ", flush=True)
        size = store.stat().st_size / 2**20
        print(f"the store has {size:.0f} MB")
    if given.output:
        import saved

        about = {"trials": given.trials, "store_megabytes": round(size)}
        saved.save(
            given.output, {"large_store": ("sets,command,seconds,processor_seconds,peak_megabytes", rows)}, **about
        )


if __name__ == "__main__":
    main()
