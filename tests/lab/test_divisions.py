"""Rows that stay together, rows in the order of time, columns that equal the target, test rows seen before."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab import compare
from crossfade.lab.data.table import TableTask, from_arrays, from_file
from tests.examples import examples

QUICK = {"repeats": 2, "epochs": 2, "learning_rates": (0.01,), "methods": ["el"]}


def people(rows=120, groups=24, seed=0):
    """Rows of several people each, with a serial number as their only input."""
    draw = np.random.default_rng(seed)
    who = draw.integers(0, groups, rows)
    return pd.DataFrame({"row": np.arange(rows) * 1.5, "who": who, "day": draw.permutation(rows)}), draw.integers(
        0, 3, rows
    )


def parts_of(task, repeat):
    return [np.round(features["row"].to_numpy() / 1.5).astype(int) for features, _ in task._parts(repeat)]


@examples(25)
@given(st.integers(6, 40), st.integers(0, 99))
def test_a_group_is_never_in_two_parts(groups, seed):
    frame, y = people(groups=groups, seed=seed)
    task = TableTask(from_arrays(frame, y, group="who"))
    drawn = []
    for repeat in range(4):
        parts = parts_of(task, repeat)
        assert sorted(np.concatenate(parts)) == list(range(len(frame)))
        owners = [set(frame["who"].iloc[rows]) for rows in parts]
        assert all(owners)
        assert sum(map(len, owners)) == len(set.union(*owners))
        drawn.append(frozenset(owners[2]))
        split = task.split(repeat)
        assert split.features == 2  # who they are is no input
    assert len(set(drawn)) > 1
    assert [sorted(rows) for rows in parts_of(TableTask(from_arrays(frame, y, group="who")), 1)] == [
        sorted(rows) for rows in parts_of(task, 1)
    ]


def test_groups_by_name_by_value_and_from_a_file_are_the_same(tmp_path):
    frame, y = people()
    frame.assign(kind=y).to_csv(tmp_path / "people.csv", index=False)
    by_name = compare(frame, y, group="who", **QUICK)
    by_value = compare(frame.drop(columns="who"), y, group=frame["who"], **QUICK)
    by_path = compare(tmp_path / "people.csv", "kind", group="who", **QUICK)
    for other in (by_value, by_path):
        assert other.results["accuracy"].tolist() == by_name.results["accuracy"].tolist()
    assert not by_name.results["fixed_test"].any()
    assert any("24 groups" in note for note in by_name.meta["notes"])
    plain = compare(frame.drop(columns="who"), y, **QUICK)
    assert not set(plain.results["key"]) & set(by_value.results["key"])


def test_time_tests_on_the_last_rows_and_every_repeat_on_the_same():
    frame, y = people()
    for days in (frame["day"], pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["day"], "D")):
        task = TableTask(from_arrays(frame.assign(day=days), y, time="day"))
        train, val, test = (frame["day"].iloc[rows].to_numpy() for rows in parts_of(task, 0))
        assert train.max() < val.min() <= val.max() < test.min()
        assert (len(val), len(test)) == (24, 24)
        assert [rows.tolist() for rows in parts_of(task, 0)] == [rows.tolist() for rows in parts_of(task, 3)]
        assert task.content["fixed_test"]
    tied = TableTask(from_arrays(frame.assign(day=frame["day"] // 10), y, time="day"))
    train, val, test = (set(frame["day"].iloc[rows] // 10) for rows in parts_of(tied, 0))
    assert max(train) < min(val) <= max(val) < min(test)
    answer = compare(frame, y, time="day", **QUICK)
    assert answer.results["fixed_test"].all()
    assert any("divided by column 'day'" in note for note in answer.meta["notes"])


def test_groups_may_be_numbers_and_words():
    frame, y = people()
    mixed = frame["who"].astype(object).where(frame["who"] % 2 == 0, "p" + frame["who"].astype(str))
    tables = [from_arrays(frame.assign(who=who), y, group="who") for who in (mixed, frame["who"])]
    assert len(set(zip(tables[0].groups, tables[1].groups, strict=True))) == 24


@pytest.mark.parametrize("test_size", [0.2, 0.4, 0.45])
def test_times_and_groups_that_leave_nothing_to_train_on_are_one_line(test_size):
    y = np.arange(100) % 2
    last, first = np.r_[0, 1, np.full(98, 2)], np.r_[np.zeros(98), 1, 2]
    for table in (
        from_arrays(np.arange(100.0)[:, None], y, time=last),
        from_arrays(np.arange(100.0)[:, None], y, time=first),
        from_arrays(np.arange(100.0)[:, None], y, group=np.arange(100) // 2 % (3 if test_size == 0.4 else 5)),
    ):
        if table.groups is not None and test_size == 0.2:
            assert all(map(len, TableTask(table, test_size)._rows(0)))
            continue
        with pytest.raises(UserError, match="no row to train on in repeat 0; lower --test-size"):
            TableTask(table, test_size)


def test_times_within_a_second_are_in_order():
    frame, y = people()
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["day"], "ms")
    train, val, test = (
        frame["day"].iloc[rows] for rows in parts_of(TableTask(from_arrays(frame.assign(day=times), y, time="day")), 0)
    )
    assert train.max() < val.min() <= val.max() < test.min()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"group": "whom"}, "--group 'whom' is no column (did you mean 'who'?)"),
        ({"time": "who", "group": "who"}, "leave out the other"),
        ({"group": "gone"}, "--group 'gone': 7 rows have none"),
        ({"group": "twins"}, "2 different values, and 3 are needed"),
        ({"time": "word"}, "must hold different numbers, dates or times"),
        ({"time": np.zeros(120)}, "must hold different numbers"),
        ({"group": [1, 2]}, "one value for each of 120 rows"),
        ({"time": "late"}, "has no row to train on"),
    ],
)
def test_divisions_that_cannot_be_made(options, says):
    frame, y = people()
    frame["gone"] = frame["who"].where(frame.index >= 7)
    frame["twins"], frame["word"] = frame["who"] % 2, np.where(y == 1, "a", "b")
    frame["late"] = y * 1000.0 + frame["day"] / 1000  # the last class comes last
    with pytest.raises(UserError) as error:
        compare(frame, y, **options, **QUICK)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_column_that_equals_the_target_is_pointed_out():
    frame, y = people()
    names = np.array(["x", "y", "z"])[y]
    leaks = frame.assign(
        same=names, code=(y * 7 + 3) % 11, finer=y * 2 + frame["day"] % 2, missing=np.where(y == 2, np.nan, y)
    )
    notes = from_arrays(leaks, names).notes
    said = [note for note in notes if "equals the target" in note]
    assert [note.split("'")[1] for note in said] == ["same", "code", "missing"]
    assert not [note for note in from_arrays(frame, names).notes if "equals" in note]


def test_test_rows_that_are_training_rows_are_counted(tmp_path):
    frame, y = people()
    frame["word"] = np.where(frame["day"] % 3, "often", None)
    whole = frame.assign(kind=y)
    whole[:90].to_csv(tmp_path / "train.csv", index=False)
    whole[80:].to_csv(tmp_path / "test.csv", index=False)
    notes = from_file(tmp_path / "train.csv", "kind", test=tmp_path / "test.csv").notes
    assert "10 of 40 test rows are training rows, too: scores there are too good" in notes
    whole[90:].to_csv(tmp_path / "test.csv", index=False)
    assert not [
        note
        for note in from_file(tmp_path / "train.csv", "kind", test=tmp_path / "test.csv").notes
        if "rows are" in note
    ]
    notes = from_file(tmp_path / "train.csv", "kind", test=tmp_path / "test.csv", group="who").notes
    assert [note for note in notes if "groups of the test rows are in the training rows, too" in note]


def test_from_the_command_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame, y = people()
    frame.assign(kind=np.where(y == 0, "rare", "usual"), leak=np.where(y == 0, 5, 6)).to_csv("people.csv", index=False)
    quick = ["--target", "kind", "--methods", "ce,gradual", "--repeats", "3", "--epochs", "3", "--json", "out.json"]
    status, out, err = call("compare", "people.csv", *quick, "--group", "who", "--metric", "f1", "--select", "last")
    assert status == 0, err
    assert "note: people.csv: column 'leak' equals the target" in err
    assert "Macro-F1 %" in out
    assert "(majority class)" in out
    answer = json.loads((tmp_path / "out.json").read_text())
    assert answer["comparison"]["metric"] == "macro-F1"
    assert {row["epoch"] for row in answer["results"]} == {3}
    row = answer["comparison"]["rows"][1]
    assert row["score"] == row["f1"]
    assert answer["settings"]["metric"] == "f1"
    status, out, err = call(
        "compare", "people.csv", *quick, "--time", "day", "--drop", "leak", "--lr-schedule", "cosine"
    )
    assert status == 0, err
    assert all(row["fixed_test"] for row in json.loads((tmp_path / "out.json").read_text())["results"])
    assert "Balanced %" in out
    status, _, err = call("compare", "people.csv", *quick, "--time", "day", "--group", "who")
    assert (status, err.count("\n")) == (2, 1)
