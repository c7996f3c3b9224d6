import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import UserError
from crossfade.lab.store import Outcome, Run, Store
from tests.examples import examples

finite = st.floats(allow_nan=False, allow_infinity=False)
outcomes = st.builds(
    Outcome,
    result=st.dictionaries(st.text(), finite | st.integers(-(2**60), 2**60) | st.none(), max_size=5),
    curves=st.dictionaries(st.text(min_size=1), st.lists(finite, max_size=5), max_size=3),
) | st.builds(Outcome, error=st.text(min_size=1))


@dataclass(frozen=True)
class FakeTrial:
    key: str
    study: str = "compare"
    repeat: int = 0
    task: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(name="iris"))
    method: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(name="ce"))

    @property
    def content(self):
        return {"key": self.key, "task": {"name": "iris"}, "recipe": {"net": "mlp"}}


DONE = Outcome({"accuracy": 0.5}, {"val_nll": [1.0]})


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@examples(40)
@given(st.dictionaries(st.text(min_size=1), outcomes, max_size=6))
def test_what_goes_in_comes_out(written):
    with Store(":memory:") as store:
        for number, (key, outcome) in enumerate(written.items()):
            store.put(FakeTrial(key, repeat=number), outcome, {"versions": {"crossfade": "0"}})
        assert store.statuses(written) == {key: outcome.status for key, outcome in written.items()}
        rows = {row.key: row for row in store.rows(curves=True)}
    assert {key: row.outcome for key, row in rows.items()} == written
    assert all(row.content == FakeTrial(key).content for key, row in rows.items())


def test_a_trial_is_replaced_not_doubled(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.put(FakeTrial("k"), Outcome(error="diverged"), {})
        store.put(FakeTrial("k"), DONE, {})
    with Store(tmp_path / "s.db", "read") as store:
        assert [row.outcome.status for row in store.rows()] == ["done"]


def test_rows_come_in_the_order_of_the_keys_and_without_strangers(tmp_path):
    with Store(tmp_path / "s.db") as store:
        for key in "abcd":
            store.put(FakeTrial(key), DONE, {})
        assert [row.key for row in store.rows(["d", "unknown", "b"])] == ["d", "b"]
        assert store.statuses(["d", "unknown"]) == {"d": "done"}


def _make_store(path):
    Store(path).close()


def test_a_reader_never_sees_an_unfinished_store(tmp_path):
    for number in range(20):
        path = tmp_path / f"{number}.db"
        writer = multiprocessing.get_context("fork").Process(target=_make_store, args=(path,))
        writer.start()
        while not path.exists():
            assert writer.is_alive() or path.exists()
        Store(path, mode="read").close()
        writer.join()


def test_runs_are_kept_once_and_the_latest_comes_first(tmp_path):
    first, second = Run("compare", {"n": 1}, ("a", "b")), Run("compare", {"n": 2}, ("c",))
    with Store(tmp_path / "s.db") as store:
        for run in (first, second, first):
            store.save(run)
            time.sleep(0.01)
        assert store.runs() == [first, second]
        assert first.id != second.id


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.put(FakeTrial("a"), DONE, {})
        with pytest.raises(UserError, match="another run is writing") as error:
            Store(path)
        one_line(error)
        script = "import sys; from crossfade.lab.store import Store; Store(sys.argv[1])"
        other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
        assert "another run is writing" in other.stderr
        with Store(path, "read") as reader:
            assert len(list(reader.rows())) == 1
    with Store(path) as store:
        assert len(list(store.rows())) == 1
    assert os.listdir(tmp_path) == ["s.db"]  # no lock, no side files left behind


def test_foreign_files_are_refused_and_left_as_they_are(tmp_path):
    text, table, folder = tmp_path / "text.db", tmp_path / "table.db", tmp_path / "folder"
    text.write_text("a,b\n1,2\n")
    with sqlite3.connect(table) as db:
        db.execute("CREATE TABLE notes (line TEXT)")
    db.close()
    folder.mkdir()
    for path, word in ((text, "not a crossfade store"), (table, "not one of crossfade's"), (folder, "a folder")):
        before = path.read_bytes() if path.is_file() else None
        for mode in ("write", "read"):
            with pytest.raises(UserError, match=word) as error:
                Store(path, mode)
            one_line(error)
        assert (path.read_bytes() if path.is_file() else None) == before
    assert sorted(os.listdir(tmp_path)) == ["folder", "table.db", "text.db"]


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Store(tmp_path / "s.db", "read")
    with pytest.raises(UserError, match="isn't there"):
        Store(tmp_path / "nowhere" / "s.db")
    assert not os.listdir(tmp_path)


def test_a_store_of_a_later_version_is_named_as_such(tmp_path):
    Store(tmp_path / "s.db").close()
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UserError, match="layout 99"):
        Store(tmp_path / "s.db")


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "s.db").touch()
    with Store(tmp_path / "s.db") as store:
        assert not list(store.rows())


def _filled(path, rows=60):
    with Store(path) as store:
        for number in range(rows):
            store.put(FakeTrial(f"{number:04}"), Outcome({"x": 1.0}, {"c": [random.random()] * 200}), {})


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_file_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "s.db"
    _filled(path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[4096 : len(content) // 2] = random.Random(0).randbytes(len(content) // 2 - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged") as error:
        Store(path)
    one_line(error)
    with pytest.raises(UserError, match="damaged"), Store(path, "read") as store:
        list(store.rows(curves=True))


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path):
    path = tmp_path / "s.db"
    _filled(path)
    with Store(path) as store:
        store._db.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size: not one page more
        large = Outcome({"x": 1.0}, {"c": [0.5] * 100_000})
        with pytest.raises(UserError, match="disk is full") as error:
            store.put(FakeTrial("large"), large, {})
        one_line(error)
        before = store.statuses([f"{number:04}" for number in range(60)])
    assert len(before) == 60
    with Store(path) as store:
        store.put(FakeTrial("later"), DONE, {})


def test_a_reader_cannot_write(tmp_path):
    _filled(tmp_path / "s.db", rows=1)
    with Store(tmp_path / "s.db", "read") as store, pytest.raises(UserError, match="can't be written"):
        store.put(FakeTrial("x"), DONE, {})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may make files")
def test_a_folder_that_cannot_be_written_to():
    with pytest.raises(UserError) as error:
        Store("/proc/crossfade.db")
    one_line(error)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_can_be_read_in_a_read_only_folder(tmp_path):
    path = tmp_path / "s.db"
    _filled(path, rows=3)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with Store(path, "read") as store:
            assert len(list(store.rows())) == 3
        with pytest.raises(UserError):
            Store(path)
    finally:
        tmp_path.chmod(0o755)


def test_a_writer_killed_at_any_moment_leaves_whole_rows(tmp_path, request):
    path = tmp_path / "s.db"
    script = (
        "import sys\n"
        "from crossfade.lab.store import Store, Outcome\n"
        "from tests.lab.test_store import FakeTrial\n"
        "with Store(sys.argv[1]) as store:\n"
        "    start = len(list(store.rows()))\n"
        "    print('ready', flush=True)\n"
        "    for n in range(start, 10**6):\n"
        "        store.put(FakeTrial(f'{n:07}'), Outcome({'n': n}, {'c': [n] * 500}), {})\n"
    )
    draw, seen = random.Random(1), 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], cwd=request.config.rootpath, stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.005, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with Store(path) as store:
            rows = list(store.rows(curves=True))
        assert [row.outcome.result["n"] for row in rows] == list(range(len(rows)))
        assert all(row.outcome.curves["c"] == [row.outcome.result["n"]] * 500 for row in rows)
        assert len(rows) >= seen
        seen = len(rows)
    assert seen > 0
