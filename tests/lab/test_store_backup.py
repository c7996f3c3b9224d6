"""Copies of a store: what `crossfade export --backup` writes, and the file alone."""

import os
from pathlib import Path

import pytest

from crossfade.lab.store import Run, Store
from tests.lab.test_store import DONE, FakeTrial


def test_a_backup_while_a_run_writes_is_whole(tmp_path, call):
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    with Store(path) as store:
        store.save(Run("compare", {"meta": {}}, ("a",)))
        for key in "abc":
            store.put(FakeTrial(key), DONE, {})
        assert Path(f"{path}-wal").stat().st_size  # the file alone is not all of it
        status, out, err = call("export", "--backup", copy, "--store", path)
        assert (status, out) == (0, f"{copy}: 3 trials\n"), err
        store.put(FakeTrial("d"), DONE, {})
    with Store(copy, "read") as copied, Store(path, "read") as store:
        assert [row.key for row in copied.rows()] == ["a", "b", "c"]
        assert copied.runs() == store.runs()
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "s.db"]
    with Store(copy) as copied:  # and can be gone on with
        copied.put(FakeTrial("e"), DONE, {})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backup", "s.db"], "is there already"),
        (["--backup", "nowhere/copy.db"], "isn't there"),
        (["--backup", "copy.db", "--curves"], "leave out"),
        (["table.csv", "--backup", "copy.db"], "leave out"),
        ([], "OUTPUT"),
    ],
)
def test_backups_that_are_refused(tmp_path, call, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    Store("s.db").close()
    status, _, err = call("export", *arguments, "--store", "s.db")
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
    assert os.listdir() == ["s.db"]


def test_a_backup_leaves_a_file_of_a_similar_name_alone(tmp_path, call):
    Store(tmp_path / "s.db").close()
    (tmp_path / "copy.db.part").write_text("mine")
    status, _, err = call("export", "--backup", tmp_path / "copy.db", "--store", tmp_path / "s.db")
    assert status == 0, err
    assert (tmp_path / "copy.db.part").read_text() == "mine"


def test_a_copy_of_the_file_alone_is_a_store(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.put(FakeTrial("a"), DONE, {})
        (tmp_path / "copy.db").write_bytes((tmp_path / "s.db").read_bytes())
    with Store(tmp_path / "copy.db", "read") as store:
        assert not list(store.rows())
