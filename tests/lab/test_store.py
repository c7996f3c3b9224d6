import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
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


def test_runs_are_kept_once_and_the_latest_comes_first_whatever_the_clock_says(tmp_path, monkeypatch):
    first, second = Run("compare", {"n": 1}, ("a", "b")), Run("compare", {"n": 2}, ("c",))
    clock = iter((3.0, 1.0, 2.0, 0.0))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with Store(tmp_path / "s.db") as store:
        for run in (first, second, first):
            store.save(run)
        assert store.runs() == [first, second]
        store.save(second)
        assert store.runs() == [second, first]
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


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_one_writer_by_whatever_name(tmp_path, link, folder):
    path, other = tmp_path / "s.db", tmp_path / folder / "t.db"
    other.parent.mkdir(exist_ok=True)
    Store(path).close()
    getattr(other, link)(path)
    for first, second in ((path, other), (other, path)):
        with Store(first) as store:
            with pytest.raises(UserError, match="another run is writing"):
                Store(second)
            store.put(FakeTrial(str(first)), DONE, {})
        with Store(second, "read") as store:
            assert store.statuses([str(first)])
    dangling = tmp_path / "later.db"
    dangling.symlink_to(tmp_path / "made.db")
    Store(dangling).close()
    assert dangling.is_symlink()
    assert (tmp_path / "made.db").exists()


WRITER = """
import os, sys
from crossfade.lab.store import Outcome, Store
from tests.lab.test_store import FakeTrial
store = Store(sys.argv[1])
for number in range(48):
    store.put(FakeTrial(str(number)), Outcome({"n": number}), {})
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


def _killed_writer(path, request):
    command = [sys.executable, "-c", WRITER, str(path)]
    subprocess.run(command, cwd=request.config.rootpath, stdout=subprocess.DEVNULL, check=False)
    assert any(log.stat().st_size for log in path.parent.glob("*-wal"))


def test_what_a_killed_writer_left_is_found_by_another_name(tmp_path, request):
    path, other = tmp_path / "s.db", tmp_path / "a.db"
    Store(path).close()
    other.hardlink_to(path)
    _killed_writer(path, request)
    for mode in ("read", "write", "read"):
        with Store(other, mode) as store:
            assert len(list(store.rows())) == 48
    with Store(path) as store:
        assert len(list(store.rows())) == 48


def test_many_that_make_one_store_at_once_get_one_writer(tmp_path):
    def write(path, number, start, answers):
        start.wait()
        try:
            with Store(path) as store:
                store.put(FakeTrial(str(number)), DONE, {})
                answers.put(number)
        except UserError:
            answers.put(None)

    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        start, answers = context.Event(), context.SimpleQueue()
        path = tmp_path / f"{attempt}.db"
        writers = [context.Process(target=write, args=(path, number, start, answers)) for number in range(4)]
        for writer in writers:
            writer.start()
        start.set()
        for writer in writers:
            writer.join()
        stored = sorted(str(number) for number in (answers.get() for _ in writers) if number is not None)
        with Store(path, "read") as store:
            assert sorted(row.key for row in store.rows()) == stored
        assert stored
    assert sorted(os.listdir(tmp_path)) == [f"{attempt}.db" for attempt in range(5)]


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


def test_a_refused_file_is_closed(tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "table.db") as db:
        db.execute("CREATE TABLE notes (line TEXT)")
    db.close()
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **options: opened.append(connect(*given, **options)) or opened[-1]
    )
    for mode in ("write", "read"):
        with pytest.raises(UserError):
            Store(tmp_path / "table.db", mode)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened.pop().execute("SELECT 1")


def test_a_device_is_refused_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for mode in ("write", "read"):
        with pytest.raises(UserError, match="a pipe or a device, expected a file"):
            Store(tmp_path / "pipe", mode)
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


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


def _as_nobody(function, *arguments):
    """Call a function in a process for which file modes hold, and return its answer."""

    def call(answers):
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            answers.put(function(*arguments))
        except BaseException as error:
            answers.put(f"{type(error).__name__}: {error}")

    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=call, args=(answers,))
    process.start()
    process.join()
    return answers.get()


def _count(path):
    with Store(path, "read") as store:
        return len(list(store.rows()))


@pytest.mark.skipif(os.name == "nt", reason="needs file modes")
def test_in_a_read_only_folder_the_log_of_a_killed_writer_is_read(request):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _killed_writer(folder / "s.db", request)
        Path(folder / "s.db-shm").unlink()  # as on a medium that was copied, or mounted elsewhere
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        try:
            assert _as_nobody(_count, folder / "s.db") == 48
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        finally:
            folder.chmod(0o755)


def _change(path, statement, *values):
    database = sqlite3.connect(path)
    with database:
        database.execute(statement, values)
    database.close()


@pytest.mark.parametrize(
    "value", ["garbage", '{"meta": ', "[]", "5", "null", '{"n": 2}', '{"checksum": 3}', b"\xff\xfe"]
)
@pytest.mark.parametrize("column", ["request", "keys"])
def test_a_damaged_request_is_one_line(tmp_path, call, value, column):
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.save(Run("compare", {"settings": {}, "meta": {}}, ("a", "b")))
    _change(path, f"UPDATE runs SET {column} = CAST(? AS TEXT)", value)
    unsigned = value == '{"n": 2}' and column == "request"  # as an older crossfade wrote it: shown, but not a page
    for command in ([] if unsigned else [["status", path]]) + [["report", path, "--output", tmp_path / "page.html"]]:
        status, out, err = call(*command)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "damaged" in err


def _verified(path):
    with Store(path, "read") as store:
        return store.verify()


@pytest.mark.parametrize(
    "column", ["study", "task", "repeat", "status", "content", "result", "curves", "provenance", "finished"]
)
def test_verify_finds_every_changed_row(tmp_path, call, column):
    path = tmp_path / "s.db"
    _filled(path, rows=5)
    assert _verified(path) == (5, 0)
    values = {"repeat": 7, "status": "failed", "finished": 1.5, "provenance": '{"commit":"x"}'}
    value = values.get(column, '{"x":1.25}')
    if column == "provenance":  # its checksum stays: the JSON before it is another one
        value = sqlite3.connect(path).execute("SELECT provenance FROM trials").fetchone()[0].replace("{", '{"a":1,')
    _change(path, f"UPDATE trials SET {column} = ? WHERE key = '0003'", value)
    with pytest.raises(UserError, match=r"1 of 5 trials are damaged \(") as error:
        _verified(path)
    one_line(error)
    status, _, err = call("status", path, "--verify")
    assert (status, err.count("\n")) == (2, 1)


def test_rows_of_an_older_crossfade_have_no_checksum_and_are_counted(call):
    kept = Path(__file__).parents[1] / "kept" / "table" / "store.db"
    whole, older = _verified(kept)
    assert whole == older > 0
    status, out, _ = call("status", kept, "--verify")
    assert status == 0
    assert f"verified: {whole} trials, {whole} of an older crossfade without checksums" in out
