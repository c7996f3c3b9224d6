"""Every study, struck by a signal at every point, and run again, ends with the numbers of an undisturbed run.

A few strikes are tried each time; ``pytest -m kill tests/kill`` tries all of them.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pandas as pd
import pytest

from crossfade.cli import STUDIES
from crossfade.lab import frames
from crossfade.lab.store import Store
from tests.kill.cases import CASES, command

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
# What is tried each time: each point once, each signal, tables and deep networks.
ALWAYS = {("table", "commit", "SIGKILL"), ("table", "row", "SIGTERM"), ("images", "checkpoint", "SIGKILL"),
          ("images", "page", "SIGINT"), ("images", "checkpoint", "SIGHUP")}  # fmt: skip
MATRIX = [
    pytest.param(case, point, strike, marks=[] if (case, point, strike) in ALWAYS else pytest.mark.kill)
    for case, (_, points) in CASES.items()
    for point in points
    for strike in SIGNALS
]


def numbers(folder: Path) -> list[object]:
    """Return all that a command has found, but for the time that it took."""
    found: list[object] = []
    if (folder / "store.db").exists():
        with Store(folder / "store.db", "read") as store:
            assert store.verify()[1] == 0
            results = frames.results(store).drop(columns="seconds", errors="ignore")
            found += [results.to_csv(), frames.curves(store).to_csv(), frames.failures(store)]
    found += [pd.read_csv(table).to_csv() for table in sorted(folder.glob("*.csv"))]
    return found


def files(folder: Path) -> set[str]:
    """Return the names of what lies in a folder, but for temporary files that a killed process couldn't remove."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def known(folder: Path) -> int:
    if not (folder / "store.db").exists():
        return 0
    with Store(folder / "store.db", "read") as store:
        return len(list(store.rows()))


def check_stopped(status: int, strike: str, folder: Path) -> None:
    number = signal.Signals[strike]
    err = (folder / "err").read_text()
    assert "Traceback" not in err
    if strike == "SIGKILL":
        assert status == -number
        return
    assert status == 128 + number, err
    # joblib's own tracker may say something after it
    last = [line for line in err.splitlines() if line.startswith("crossfade: ")][-1]
    stored = re.fullmatch(r"crossfade: stopped; (\d+) of \d+ trials are in store\.db\. Run .* again to go on\.", last)
    assert stored or last == "crossfade: stopped", err
    if stored:
        assert int(stored[1]) == known(folder)
    assert not [path for path in folder.rglob(".*") if path.suffix != ".npy"]


def test_no_study_is_missing():
    assert {words[1] for words, _ in CASES.values() if words[0] == "run"} == set(STUDIES)


@pytest.mark.parametrize(("case", "point", "strike"), MATRIX)
def test_killed_and_run_again(case, point, strike, place, start, inputs, undisturbed):
    whole = undisturbed(case)
    words = command(case, inputs)
    number = 2 if point in ("row", "commit", "checkpoint") else 1  # the second row is lost, the first one is kept
    check_stopped(start(words, place, point=point, strike=strike, number=number), strike, place)
    if point in ("row", "commit"):
        assert known(place) == 1
    if point == "page":
        assert not files(place) & {"page.md", "page.html", "transitions.csv"}
    assert start(words, place) == 0, (place / "err").read_text()
    assert numbers(place) == numbers(whole)
    assert files(place) == files(whole)
    assert "can't be used" not in (place / "err").read_text()
