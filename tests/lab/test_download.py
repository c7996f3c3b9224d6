"""Downloads from a real HTTP server on this machine: resumed, verified, refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from crossfade.errors import UserError
from crossfade.lab.data import fetch
from crossfade.lab.data.fetch import check, get
from crossfade.lab.data.sources import CATALOGUE, DataSet, download, unpack
from crossfade.lab.data.texts import GLUE, GlueTask, TextPart, load_glue
from tests.lab.uci_copy import write_uci

CONTENT = bytes(range(256)) * 40_000


class _Handler(BaseHTTPRequestHandler):
    asked: list[str | None] = []  # noqa: RUF012
    ranges = True
    cut = 0
    length = "Content-Length"

    def do_GET(self) -> None:
        if self.path != "/file":
            self.send_error(404)
            return
        self.asked.append(self.headers.get("Range"))
        start = 0
        if self.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = CONTENT[start:]
        if self.length:
            self.send_header(self.length, str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut] if self.cut else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Handler]]]:
    handler = type("Handler", (_Handler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", handler
        running.shutdown()


def test_fetches_verifies_and_leaves_a_finished_file_alone(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    url, handler = server
    target, sum_ = tmp_path / "new" / "file.bin", "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        download(f"{url}/file", target, checksum=sum_, on_progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert handler.asked == [None]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not list(target.parent.glob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_was_broken_off(server: tuple[str, type[_Handler]], tmp_path: Path, ranges: bool) -> None:
    url, handler = server
    handler.ranges, handler.cut = ranges, 3_000_000
    with pytest.raises(UserError, match="run it again to go on"):
        download(f"{url}/file", tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert (tmp_path / "f.part").stat().st_size == 3_000_000
    handler.cut = 0
    assert download(f"{url}/file", tmp_path / "f").read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=3000000-"]


def test_goes_on_where_a_server_tells_no_length(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    url, handler = server
    handler.length = ""
    (tmp_path / "f.part").write_bytes(CONTENT[:3_000_000])
    assert download(f"{url}/file", tmp_path / "f").read_bytes() == CONTENT


def test_a_chunk_that_breaks_off_is_one_line(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    url, handler = server
    handler.length = "Transfer-Encoding"
    handler.send_header = lambda self, name, _: BaseHTTPRequestHandler.send_header(self, name, "chunked")
    with pytest.raises(UserError, match="can't be downloaded"):
        download(f"{url}/file", tmp_path / "f")


def test_a_complete_part_needs_no_byte_more(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert download(f"{server[0]}/file", tmp_path / "f").read_bytes() == CONTENT


def test_a_wrong_checksum_is_removed(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected 0000"):
        download(f"{server[0]}/file", tmp_path / "f", checksum="md5:0000")
    assert not list(tmp_path.iterdir())


def test_refusals_are_one_line(server: tuple[str, type[_Handler]], tmp_path: Path) -> None:
    for url in (f"{server[0]}/nothing", "http://127.0.0.1:9/file"):
        with pytest.raises(UserError, match="can't be downloaded") as refusal:
            download(url, tmp_path / "f")
        assert "\n" not in str(refusal.value)


def _zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return path


def _tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            file.addfile(member, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("make", [_zip, _tar])
def test_unpacks_whole_or_not_at_all(make: object, tmp_path: Path) -> None:
    archive = make(tmp_path / "a.bin", ["d/one.txt", "two.txt"])  # type: ignore[operator]
    assert sorted(p.name for p in unpack(archive, tmp_path / "out").rglob("*.txt")) == ["one.txt", "two.txt"]
    for name in ("../escaped.txt", "/tmp/escaped.txt", "d/../../escaped.txt"):
        bad = make(tmp_path / "bad.bin", ["good.txt", name])  # type: ignore[operator]
        if make is _tar and name.startswith("/"):
            continue  # tarfile's data filter makes it relative: it lands inside
        with pytest.raises(UserError, match="outside the folder"):
            unpack(bad, tmp_path / "never")
        assert not (tmp_path / "never").exists()
    assert not list(tmp_path.rglob("escaped.txt"))
    with zipfile.ZipFile(tmp_path / "dots.zip", "w") as file:
        file.writestr("./", "")
        file.writestr("./a.txt", "a")
    assert (unpack(tmp_path / "dots.zip", tmp_path / "dots") / "a.txt").read_text() == "a"
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(UserError, match="not a readable archive"):
        unpack(damaged, tmp_path / "never")
    assert not (tmp_path / "never.unpacking").exists()


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path: Path) -> None:
    zipped, packed = (make(tmp_path / "a.bin", ["one.txt"]).read_bytes() for make in (_zip, _tar))
    # A member's only byte; the checksum and the length at the end of gzip's stream.
    for content, places in ((zipped, [zipped.index(b"one.txtx") + 7]), (packed, [-8, -1])):
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 4
            (tmp_path / "bad.bin").write_bytes(damaged)
            with pytest.raises(UserError, match="not a readable archive") as refusal:
                unpack(tmp_path / "bad.bin", tmp_path / "never")
            assert "\n" not in str(refusal.value)
            assert not (tmp_path / "never").exists()


def _archive(folder: Path, cut: int | None = None) -> Path:
    """Return a zip of three UCI sets in a folder of their own, or its beginning alone."""
    path = folder / "data_py.zip"
    sets = folder / "sets" / "uci121"
    if not sets.exists():
        write_uci(folder / "sets")
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(sets.rglob("*.dat")):
            file.write(one, Path("data", one.relative_to(sets)))
    path.write_bytes(path.read_bytes()[:cut])
    return path


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DataSet]:
    def offer(url: str, **fields: str) -> DataSet:
        entry = replace(CATALOGUE["uci"], url=url, **fields)
        monkeypatch.setitem(CATALOGUE, "uci", entry)
        return entry

    return offer


def test_the_command_fetches_unpacks_and_checks(call: Callable, offered: Callable, tmp_path: Path) -> None:
    archive, home = _archive(tmp_path), tmp_path / "home"
    offered(archive.as_uri())
    status, out, err = call("data", "uci", "--download", "--data-dir", home)
    assert (status, "here: 3 of 121 sets" in out) == (1, True), err  # not the published files: smaller copies
    assert "checked: 0 sets as measured" in out
    assert "different: breast-cancer-wisc-diag, iris, wine" in out
    archive.unlink()
    assert call("data", "uci", "--download", "--data-dir", home)[1] == out  # what is there isn't fetched again


def test_half_an_archive_is_removed_and_fetched_again(call: Callable, offered: Callable, tmp_path: Path) -> None:
    home = tmp_path / "home"
    offered(_archive(tmp_path, cut=2000).as_uri())
    status, _, err = call("data", "uci", "--download", "--data-dir", home)
    assert (status, "not a readable archive" in err, err.count("\n")) == (2, True, 2), err  # the other line is progress
    assert not list(home.iterdir())
    offered(_archive(tmp_path).as_uri())
    assert "here: 3 of 121 sets" in call("data", "uci", "--download", "--data-dir", home)[1]


def test_a_broken_download_of_a_file_goes_on(call: Callable, offered: Callable, tmp_path: Path) -> None:
    archive, home = _archive(tmp_path), tmp_path / "home"
    home.mkdir()
    (home / "data_py.zip.part").write_bytes(archive.read_bytes()[:1000])
    entry = offered(archive.as_uri(), checksum="sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest())
    get(entry, home)
    assert (home / "data_py.zip").read_bytes() == archive.read_bytes()
    with pytest.raises(UserError, match="expected 0000"):
        get(replace(entry, checksum="md5:0000"), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_an_archives_own_folder_takes_its_place_also_after_an_interruption(offered: Callable, tmp_path: Path) -> None:
    entry = offered(_archive(tmp_path).as_uri(), folder="data")
    homes = tmp_path / "whole", tmp_path / "stopped"
    unpack(tmp_path / "data_py.zip", homes[1] / "data.outer")
    for home in homes:
        get(entry, home)
        assert entry.here(home) == "3 of 121 sets"
        assert sorted(path.name for path in home.iterdir()) == ["data", "data_py.zip"]
        assert (home / "data" / "iris").is_dir()


def test_a_folder_without_the_data_is_left_alone(call: Callable, offered: Callable, tmp_path: Path) -> None:
    entry, home = offered(_archive(tmp_path).as_uri()), tmp_path / "home"
    place = home / entry.folder
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    status, _, err = call("data", "uci", "--download", "--data-dir", home)
    assert (status, "move it away" in err, err.count("\n")) == (2, True, 1), err
    assert [path.name for path in home.rglob("*")] == [place.name, "notes.txt"]
    (place / "notes.txt").unlink()
    assert "here: 3 of 121 sets" in call("data", "uci", "--download", "--data-dir", home)[1]


def test_what_is_fetched_by_hand(call: Callable, tmp_path: Path) -> None:
    for name, where in (("reviews", "reviews/"), ("imagenet", "imagenet/train/WNID/")):
        status, out, err = call("data", name, "--download", "--data-dir", tmp_path)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert where in err
        assert str(tmp_path) in err


def test_the_data_folder_of_the_environment(call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_DATA", str(tmp_path / "named"))
    assert f"data folder: {tmp_path / 'named'}" in call("data")[1]
    assert str(tmp_path / "named") in call("run", "table4", "--plan")[2]
    status, _, err = call("run", "dynamics", "--sets", "yeast", "--store", tmp_path / "s.db", "--out", tmp_path / "o")
    assert (status, str(tmp_path / "named") in err) == (2, True)


@pytest.mark.parametrize("study", ["table1", "table2", "table3", "table4", "table5", "figure2", "normmatched"])
def test_the_plan_is_shown_where_data_is_missing(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str
) -> None:
    monkeypatch.setattr("crossfade.lab.data.sources._answers", lambda *_: False)
    status, _, err = call("run", study, "--plan", "--data-dir", tmp_path, "--scale", "short")
    assert status == 0, err
    assert err.startswith(f"{study} · ")
    assert "its data isn't here" in err
    assert "not here: " in err
    assert not list(tmp_path.iterdir())
    status, _, err = call("run", study, "--data-dir", tmp_path, "--store", tmp_path / "s.db")
    assert (status, err.count("\n")) == (2, 1)


def test_glue_comes_from_the_hub_as_the_files_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tuple(replace(task, rows=3) for task in GLUE)
    monkeypatch.setattr(fetch, "GLUE", tasks)
    asked = []

    def hub(task: GlueTask, folder: Path) -> tuple[TextPart, TextPart]:
        asked.append(task.name)
        if len(asked) == 4:
            raise UserError("no connection")
        columns = [[f'{name} "{k}"\tand so on' for k in range(3)] for name in task.columns]
        labels = np.arange(3) % len(task.classes)
        return TextPart.of(columns, labels), TextPart.of(columns, labels)

    monkeypatch.setattr(fetch, "from_hub", hub)
    with pytest.raises(UserError, match="no connection"):
        get(CATALOGUE["glue"], tmp_path)
    get(CATALOGUE["glue"], tmp_path)
    assert asked == [task.name for task in (*GLUE[:4], *GLUE[3:])]  # goes on with the one that failed
    assert check(CATALOGUE["glue"], tmp_path) == (True, "8 of 8 tasks in full")
    for task in GLUE:
        data = load_glue(task, tmp_path)
        assert data.train.columns == [tuple(f'{name} "{k}" and so on' for k in range(3)) for name in task.columns]
        assert list(data.test.labels) == [k % len(task.classes) for k in range(3)]


def test_a_set_spelt_with_underscores_is_compared_as_well(tmp_path: Path) -> None:
    sets, name = write_uci(tmp_path) / "uci121", "oocytes_merluccius_states_2f"
    (sets / "iris").rename(sets / name)
    (sets / name / "iris_py.dat").rename(sets / name / f"{name}_py.dat")
    same, told = check(CATALOGUE["uci"], tmp_path)
    assert not same
    assert "oocytes-merluccius-states-2f" in told.partition("different: ")[2]
