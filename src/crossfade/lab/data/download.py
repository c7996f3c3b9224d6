"""Downloads that go on where they were interrupted, and archives that are unpacked as a whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from crossfade.errors import UserError

_CHUNK = 1 << 20
_TIMEOUT = 60.0


def download(
    url: str, target: Path, *, checksum: str | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Fetch ``url`` into ``target``; a complete target is left alone.

    Args:
        checksum: ``"md5:HEX"`` or ``"sha256:HEX"``. Without one only the length is checked.
        on_progress: Told (bytes so far, bytes in all or 0) every now and then.

    Raises:
        UserError: no connection, a refused request, a wrong length or checksum. What came is kept as ``target.part``
            and continued next time, unless its checksum was wrong.
    """
    if target.exists():
        _verify(target, checksum)
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, on_progress or (lambda done, total: None))
        _verify(part, checksum)
        part.replace(target)
    except OSError as error:  # urllib's errors are OSErrors too
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: can't be downloaded ({reason}); run it again to go on, or put the file at {target}"
        ) from None
    return target


def _fetch(url: str, part: Path, on_progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond what is here
            return
        raise
    with response:
        if have and response.status != 206:  # the server starts from the beginning
            have = 0
        total = have + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                on_progress(have, total)
    if total and have != total:
        raise UserError(f"{url}: the connection ended after {have} of {total} bytes; run it again to go on")


def _verify(path: Path, checksum: str | None) -> None:
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        path.unlink()
        raise UserError(f"{path.name}: {kind} is {found}, expected {expected}; removed, run it again")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a zip or tar archive into the new folder ``target``: all of it or, when broken off, nothing.

    Raises:
        UserError: a damaged archive, or a member that would land outside the folder.
    """
    if target.exists():
        return target
    partial = target.with_name(target.name + ".unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, partial)
        else:
            with tarfile.open(archive) as file:
                file.extractall(partial, filter="data")
        partial.replace(target)
    except tarfile.FilterError as error:
        raise UserError(f"{archive.name}: refused, a member would land outside the folder ({error})") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive.name}: not a readable archive ({error}); delete it and download it again") from None
    except OSError as error:
        raise UserError(f"{archive.name}: can't be unpacked into {target.parent} ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unzip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            # zipfile would quietly put such a member elsewhere; an archive that has one isn't what it should be.
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise UserError(f"{archive.name}: refused, member {name!r} would land outside the folder")
        file.extractall(target)
