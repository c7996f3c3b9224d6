"""Stores with many trials: what is read of them for a page and for an export, and how much of it at once."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from crossfade.lab import frames
from crossfade.lab.comparison import plan
from crossfade.lab.data.table import from_arrays
from crossfade.lab.result import ComparisonResult
from crossfade.lab.settings import Settings
from crossfade.lab.store import Outcome, Run, Store
from crossfade.report import mean_curves

EPOCHS = 12
NAMES = ("ce", "f0", "gradual", "el", "focal")


def filled(path, repeats, *, failing=()):
    """Write made-up results of five methods on two tables; the trials in these places fail."""
    draw = np.random.default_rng(0)
    tables = [from_arrays(draw.normal(size=(30, 2)), np.arange(30) % 2, name=name) for name in ("=one", "two")]
    planned = plan(tables, Settings.of({"methods": NAMES, "repeats": repeats}), "crossfade compare")
    with Store(path) as store:
        store.save(planned.run)
        for at, trial in enumerate(planned.trials):
            if at in failing:
                store.put(trial, Outcome(error="it broke"), {})
                continue
            accuracy = draw.random((2, EPOCHS)).round(3).tolist()
            nll = [None if value > 0.9 else value for value in draw.random(EPOCHS)]
            curves = {"val_accuracy": accuracy[0], "test_accuracy": accuracy[1], "test_nll": nll}
            result = {"accuracy": accuracy[1][-1], "nll": 0.5, "ece": 0.1, "n_train": 18, "n_test": 6, "epoch": EPOCHS}
            store.put(trial, Outcome(result, curves), {})
    return planned


def test_a_page_of_many_trials_takes_little_memory_and_few_rows_at_once(tmp_path):
    small, planned = filled(tmp_path / "small.db", 2), filled(tmp_path / "s.db", 500)
    with Store(tmp_path / "small.db", "read") as store:  # imports what is needed, before memory is counted
        ComparisonResult.load(store, small.run, curves=False)
    with Store(tmp_path / "s.db", "read") as store:
        asked = []
        store._db.set_trace_callback(asked.append)
        tracemalloc.start()
        answer = ComparisonResult.load(store, planned.run, curves=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(answer.results) == 5000
    assert answer.curves.empty
    assert peak < 15e6  # 4e6; 53e6 with all curves
    whole = [statement for statement in asked if statement.startswith("SELECT") and "curves" not in statement]
    parts = [statement for statement in asked if ", curves, " in statement]
    assert whole
    assert parts
    assert all(statement.count("'") // 2 <= 520 for statement in parts)  # keys, and a few words
    assert "<svg" in answer.report(tmp_path / "page.html").read_text()


def test_the_means_of_a_page_are_those_of_the_repeats_that_count(tmp_path):
    planned = filled(tmp_path / "s.db", 3, failing={7})  # the second repeat on the first table counts for nobody
    with Store(tmp_path / "s.db", "read") as store:
        answer, curves = ComparisonResult.load(store, planned.run), frames.curves(store)
    counted = curves[(curves["dataset"] != "=one") | (curves["repeat"] != 1)]
    means = counted.groupby(["dataset", "method", "epoch"], sort=False)
    expected = means[["val_accuracy", "test_accuracy"]].mean().join(means["test_nll"].median())
    found = answer.mean_curves.set_index(["dataset", "method", "epoch"])
    pd.testing.assert_frame_equal(found.sort_index(), expected[found.columns].sort_index())
    pd.testing.assert_frame_equal(mean_curves(counted), expected.reset_index())
    assert len(answer.curves) == 29 * EPOCHS


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_exported_curves_are_the_stored_ones(tmp_path, call, kind):
    filled(tmp_path / "s.db", 120, failing={3})
    out = tmp_path / f"curves.{kind}"
    code, said, _ = call("export", out, "--overwrite", "--store", tmp_path / "s.db", "--curves")
    assert (code, said) == (0, f"{out}: 14\u202f388 rows (1 failed trial without)\n")
    with Store(tmp_path / "s.db", "read") as store:
        stored = frames.curves(store).assign(request=store.runs()[0].id)
    separator = "\t" if kind == "tsv" else ","
    if kind == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(out), stored)
    else:
        assert out.read_text() == stored.to_csv(index=False, sep=separator)


def test_series_of_words_and_of_different_names_share_a_file(tmp_path, call):
    planned = filled(tmp_path / "s.db", 2)
    with Store(tmp_path / "s.db") as store:
        first, second = planned.trials[:2]
        store.put(first, Outcome({"accuracy": 0.5}, {"test_accuracy": [0.5], "table": ["rates"]}), {})
        store.put(second, Outcome({"accuracy": 0.5}, {"test_accuracy": [1, 0.25], "table": [None, None]}), {})
        store.save(Run("compare", {"meta": {}, "settings": {}}, (first.key, second.key)))
    for name in ("all.csv", "all.parquet"):
        assert call("export", tmp_path / name, "--store", tmp_path / "s.db", "--curves")[0] == 0
    read = pd.read_csv(tmp_path / "all.csv"), pd.read_parquet(tmp_path / "all.parquet")
    for frame in read:
        own = frame[(frame["dataset"] == "=one") & (frame["repeat"] == 0) & (frame["method"].isin(["ce", "f0"]))]
        assert own["table"].dropna().tolist() == ["rates"]
        assert own["test_accuracy"].tolist() == [0.5, 1.0, 0.25]


def test_cells_that_a_spreadsheet_would_run_are_text_when_asked(tmp_path, call):
    filled(tmp_path / "s.db", 2)
    for more in ([], ["--curves"]):
        plain, safe = tmp_path / "plain.csv", tmp_path / "safe.csv"
        assert call("export", plain, "--overwrite", "--store", tmp_path / "s.db", *more)[0] == 0
        assert call("export", safe, "--overwrite", "--store", tmp_path / "s.db", "--safe-csv", *more)[0] == 0
        expected = plain.read_text().replace("=one", "'=one")
        assert safe.read_text() == expected != plain.read_text()
    code, _, err = call("export", tmp_path / "a.parquet", "--store", tmp_path / "s.db", "--safe-csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "--safe-csv" in err
