"""Downloads from a real HTTP server on this machine: resumed, verified, refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crossfade.errors import UserError
from crossfade.lab.data.sources import download, unpack

CONTENT = bytes(range(256)) * 40_000


class _Handler(BaseHTTPRequestHandler):
    asked: list[str | None] = []  # noqa: RUF012
    ranges = True
    cut = 0

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
        self.send_header("Content-Length", str(len(body)))
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
