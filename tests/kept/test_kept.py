"""Stores and outputs that an older crossfade wrote: the same commands find them complete and say the same."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.kept.cases import CASES, HERE, INPUTS, SINCE, elsewhere, machine

STORES = [name for name in CASES if (HERE / name / "store.db").exists()]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The order in which torch sums must not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the inputs are elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(INPUTS))  # the loss of a user's own
    return tmp_path


def copied(case: str) -> list[Any]:
    """Copy a kept store into the current folder, where it may be opened, and return its trials."""
    shutil.copyfile(HERE / case / "store.db", "store.db")
    return rows(Path("store.db"))


def rows(store: Path) -> list[Any]:
    """Return every trial as it lies in the store, to the byte."""
    database = sqlite3.connect(store)
    try:
        return database.execute("SELECT * FROM trials ORDER BY key").fetchall()
    finally:
        database.close()


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what may differ: command, versions, machine, commit, and where the data lies."""
    answer.pop("generator", None)  # what tells a file of ours
    if "meta" in answer:  # an answer to `crossfade stats` has none
        for name in ("command", "versions", "device", "commit"):
            del answer["meta"][name]
        answer["meta"]["recipe"].pop("model", None)
        for one in answer["meta"]["datasets"]:
            one["source"] = Path(one["source"]).name
    return answer


def known(older: Any, answer: Any) -> Any:
    """Return an answer without the entries that an older one doesn't have."""
    if isinstance(older, dict) and isinstance(answer, dict):
        return {name: known(older[name], value) for name, value in answer.items() if name in older}
    if isinstance(older, list) and isinstance(answer, list) and len(older) == len(answer):
        return [known(*pair) for pair in zip(older, answer, strict=True)]
    return answer


def without_request(table: str) -> str:
    """Return an exported table without its last column, which older exports don't have."""
    return re.sub(r",(request|[0-9a-f]{12})$", "", table, flags=re.M)


def words(text: str) -> list[list[str]]:
    """What stands in each line, without the spaces and rules between."""
    return [line.split() for line in text.replace("─", "").splitlines() if line.strip("─ ")]


@pytest.mark.parametrize("case", CASES)
def test_the_same_command_finds_the_store_complete_and_says_the_same(case: str, call: Callable, place: Path) -> None:
    kept = HERE / case
    before = copied(case) if case in STORES else []
    status, out, err = call(*elsewhere([*CASES[case], *SINCE.get(case, [])]))
    assert status == 0, err
    assert words(out) == words((kept / "stdout.txt").read_text())
    if case in STORES:
        assert rows(place / "store.db") == before
    if CASES[case][0] == "run":
        assert re.search(rf"^0 (trials computed|runs) in .* {len(before)} known before", err, re.M)
    if (kept / "answer.json").exists():
        answer, older = (told(json.loads((folder / "answer.json").read_text())) for folder in (place, kept))
        assert known(older, answer) == older
    if "--report" in CASES[case]:
        page = Path(CASES[case][CASES[case].index("--report") + 1]).read_text()
        assert "<svg" in page if "<html" in page else page.startswith("### ")


@pytest.mark.parametrize("case", STORES)
def test_exports_status_and_report_of_a_store(case: str, call: Callable, place: Path) -> None:
    kept, before = HERE / case, copied(case)
    for name, more in (("results.csv", []), ("curves.csv", ["--curves"])):
        status, _, err = call("export", name, "--store", "store.db", *more)
        assert status == 0, err
        assert without_request(Path(name).read_text()) == (kept / name).read_text()
    status, out, err = call("status", "store.db")
    assert status == 0, err
    done = [line for line in out.splitlines() if re.match(r"[0-9a-f]{12}  ", line)]
    counts = [re.search(r"  (\d+) of (\d+) done$", line) for line in done]
    assert all(found and found[1] == found[2] for found in counts), out
    assert sum(int(found[1]) for found in counts if found) == len(before)
    assert ["crossfade", *CASES[case]] == out.splitlines()[1].split()
    status, _, err = call("report", "store.db", "--report", "again.html")
    assert status == 0, err
    assert "<svg" in Path("again.html").read_text()


@pytest.mark.parametrize("case", ["table", "table4", "lstm", "bert", "motivating"])
def test_computed_again_the_numbers_are_the_same(case: str, call: Callable, place: Path) -> None:
    now, then = machine(), json.loads((HERE / "written.json").read_text())["machine"]
    if case in ("bert", "motivating") and now != then:
        pytest.skip(f"trained by torch, whose sums differ between machines: {now}, and {then} wrote what is kept")
    exact = {"check_exact": True} if now["vectors"] == then["vectors"] else {"rtol": 1e-6, "atol": 1e-6}
    if case == "lstm":  # trained then by a compiled kernel that is gone, whose sums had another order
        exact = {"rtol": 1e-4, "atol": 1e-5}
    status, _, err = call(*elsewhere([*CASES[case], *SINCE.get(case, [])]))
    assert status == 0, err
    for name, more in (("results.csv", []), ("curves.csv", ["--curves"])):
        call("export", name, "--store", "store.db", *more)
        new, old = (
            pd.read_csv(folder / name, float_precision="round_trip").drop(
                columns=["seconds", "request", *(["engine"] if case == "lstm" else [])], errors="ignore"
            )
            for folder in (place, HERE / case)
        )
        pd.testing.assert_frame_equal(new[old.columns], old, **exact)


def test_the_key_of_a_loss_from_a_file_holds_the_files_place(call: Callable, place: Path) -> None:
    Path("mine.py").write_text((INPUTS / "kept_loss.py").read_text())
    command = ["compare", INPUTS / "plants.csv", "--target", "kind", "--methods", "ce", "--loss", "mine.py:squared"]
    status, _, err = call(
        *command, "--repeats", "2", "--epochs", "1", "--learning-rates", "0.05", "--store", "store.db"
    )
    assert status == 0, err
    database = sqlite3.connect("store.db")
    methods = [json.loads(row[0])["method"] for row in database.execute("SELECT content FROM trials")]
    database.close()
    functions = {method["g"]["function"] for method in methods if method["name"] == "squared"}
    assert functions == {"crossfade_loss_" + re.sub(r"\W", "_", str((place / "mine.py").resolve())) + ".squared"}
