"""Disks that are full, broken or torn: one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3

import pytest

from crossfade.lab.store import Outcome, Store
from tests.kill import child
from tests.kill.cases import CASES, command
from tests.kill.test_kill import files, numbers
from tests.lab.test_store import FakeTrial

WRITTEN = [
    pytest.param(case, point, error, marks=[] if (case, point) == ("images", "checkpoint") else pytest.mark.kill)
    for case, (_, points) in CASES.items()
    for point in points
    if point in child.FILES
    for error in ("ENOSPC", "EIO")
]


@pytest.mark.parametrize(("case", "point", "error"), WRITTEN)
def test_a_file_that_cannot_be_written_is_one_line(case, point, error, tmp_path, start, inputs, undisturbed):
    whole, words = undisturbed(case), command(case, inputs)
    assert start(words, tmp_path, point=point, strike=error) == 2
    err = (tmp_path / "err").read_text()
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("crossfade: ")
    assert {"ENOSPC": "No space left on device", "EIO": "Input/output error"}[error] in last
    assert not list(tmp_path.rglob(".*"))
    assert start(words, tmp_path) == 0, (tmp_path / "err").read_text()
    assert numbers(tmp_path) == numbers(whole)
    assert files(tmp_path) == files(whole)


def write(path, size: int) -> None:
    """Store trials until the system kills the process, as it writes beyond so many bytes of a file."""
    child.limit(size)
    with Store(path) as store:
        start = len(list(store.rows()))
        for number in range(start, start + 40):
            store.put(FakeTrial(f"{number:04}"), Outcome({"n": number}, {"c": [number] * 300}), {})


def test_a_store_torn_at_any_byte_keeps_whole_trials(tmp_path):
    """The log and the file itself are cut at many places: in a page's header, in the middle, at a commit's mark."""
    context, died, most = multiprocessing.get_context("fork"), 0, 0
    path = tmp_path / "s.db"
    for size in range(9_000, 190_000, 9_283):
        writer = context.Process(target=write, args=(path, size))
        writer.start()
        writer.join()
        assert writer.exitcode in (0, -signal.SIGXFSZ)
        died += writer.exitcode != 0
        if not path.exists():
            continue
        with Store(path) as store:
            rows = list(store.rows(curves=True))
            assert store.verify() == (len(rows), 0)
        assert [row.outcome.result["n"] for row in rows] == list(range(len(rows)))
        assert all(row.outcome.curves["c"] == [row.outcome.result["n"]] * 300 for row in rows)
        assert len(rows) >= most
        most = len(rows)
    assert died > 10
    assert most > 20


def test_a_disk_that_ends_in_the_middle_of_a_run_is_one_line(tmp_path, start, inputs):
    """Here the system refuses to write on, as a full disk or a quota does; what is stored stays."""
    context = multiprocessing.get_context("fork")

    def full(answers):
        import resource

        from crossfade.errors import UserError

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            write_all(tmp_path / "s.db")
        except UserError as error:
            answers.put(str(error))

    def write_all(path):
        with Store(path) as store:
            for number in range(1000):
                store.put(FakeTrial(f"{number:04}"), Outcome({"n": number}, {"c": [number] * 300}), {})

    answers = context.SimpleQueue()
    process = context.Process(target=full, args=(answers,))
    process.start()
    process.join()
    line = answers.get()
    assert "the disk" in line
    assert "\n" not in line
    with Store(tmp_path / "s.db") as store:
        rows = [row.outcome.result["n"] for row in store.rows()]
        assert rows == list(range(len(rows)))
        assert rows
        store.put(FakeTrial("later"), Outcome({"n": -1}), {})


def test_a_log_that_is_cut_or_changed_anywhere_never_makes_wrong_rows(tmp_path):
    path, context = tmp_path / "s.db", multiprocessing.get_context("fork")

    def stop():
        store = Store(path)
        for number in range(12):
            store.put(FakeTrial(f"{number:04}"), Outcome({"n": number}, {"c": [number] * 300}), {})
        os._exit(0)

    writer = context.Process(target=stop)
    writer.start()
    writer.join()
    main, log = path.read_bytes(), (tmp_path / "s.db-wal").read_bytes()
    for cut in range(0, len(log), 3_777):
        for changed in (log[:cut], log[:cut] + bytes([log[cut] ^ 1]) + log[cut + 1 :]):
            folder = tmp_path / str(cut) / str(len(changed))
            folder.mkdir(parents=True)
            (folder / "s.db").write_bytes(main)
            (folder / "s.db-wal").write_bytes(changed)
            with Store(folder / "s.db") as store:
                rows = [row.outcome.result["n"] for row in store.rows(curves=True)]
                assert store.verify() == (len(rows), 0)
            assert rows == list(range(len(rows)))


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_exports_and_backups(tmp_path, start, undisturbed, error):
    store = undisturbed("images") / "store.db"
    assert start(["export", "table.csv", "--store", str(store)], tmp_path, point="table", strike=error) == 2
    assert files(tmp_path) == {"out", "err"}
    assert start(["export", "--backup", "copy.db", "--store", str(store)], tmp_path) == 0
    with sqlite3.connect(tmp_path / "copy.db") as database:
        assert database.execute("SELECT count(*) FROM trials").fetchone()[0]
