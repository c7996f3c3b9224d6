"""What merged stores keep of their parts: versions, machine, model and data of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from crossfade.lab.data.table import TableTask, load_builtin
from crossfade.lab.methods import method
from crossfade.lab.provenance import describe_run
from crossfade.lab.store import Outcome, Run, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Trial

BLOCKS = Path(__file__).parents[2] / "docs" / "blocks"


def stored(path: Path, name: str, machine: str) -> Path:
    """Write a store of one data set's trials, computed on a machine with its own torch."""
    task = TableTask(load_builtin(name))
    trials = [Trial("table3", task, method(one), Recipe(epochs=1), 0) for one in ("ce", "f0")]
    meta = describe_run("t", trials, f"crossfade run table3 --store {path}")
    with Store(path) as store:
        store.save(Run("table3", {"meta": meta}, tuple(trial.key for trial in trials)))
        for trial in trials:
            origin = {"commit": machine, "machine": machine, "versions": {"torch": machine}, "time": "2026-11-30T00"}
            store.put(trial, Outcome({"accuracy": 0.5, "seconds": 1.0}, {"test_accuracy": [0.5]}), origin)
    return path


@pytest.mark.parametrize("kind", ["text_studies", "images"])
def test_each_part_keeps_what_it_was_computed_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.syspath_prepend(str(BLOCKS))
    monkeypatch.delitem(sys.modules, kind, raising=False)
    blocks = __import__(kind)
    monkeypatch.setattr(blocks, "FOLDER", tmp_path)
    stores = [stored(tmp_path / f"{name}.db", name, machine) for name, machine in (("iris", "one"), ("wine", "two"))]
    if kind == "text_studies":
        blocks.collect(stores, "merged", "some machines")
    else:
        for store in stores:
            blocks.collect(store, "merged", "some machines")
    about = json.loads((tmp_path / "merged.json").read_text())
    assert [(part["machine"], part["versions"]["torch"], part["data"]) for part in about["runs"]] == [
        ("one", "one", ["iris"]),
        ("two", "two", ["wine"]),
    ]
    assert [(one["name"], bool(one["sha256"])) for one in about["datasets"]] == [("iris", True), ("wine", True)]
    assert not {"versions", "commit", "device"} & set(about)
    assert len(pd.read_csv(tmp_path / "merged.csv")) == 4
