"""The catalogue of data sets (``sources.toml``): where each comes from, whether it is here, and how to get it."""

from __future__ import annotations

import gzip
import hashlib
import logging
import lzma
import os
import shutil
import tarfile
import tomllib
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Literal

from crossfade.errors import UserError

_CHUNK = 1 << 20
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError)
_DOWNLOAD_SECONDS = 60.0
_HUB_SECONDS = 5.0


class DamagedError(UserError):
    """An error for an archive that can't be read."""


@dataclass(frozen=True)
class DataSet:
    """A data set of the catalogue.

    Attributes:
        name: Its name on the command line.
        url: The archive's address; None if its owner requires registration.
        checksum: The archive's checksum, if its owner publishes one.
        content: The SHA-256 of the file itself, measured.
        folder: Where the archive is unpacked.
    """

    name: str
    title: str
    used_by: str
    how: str
    url: str | None = None
    checksum: str | None = None
    content: str = ""
    folder: str = ""

    def place(self, data_dir: Path) -> Path | None:
        """Return the file ``NAME.npz`` or the folder of the unpacked archive in ``data_dir``; None if neither is."""
        names = (f"{self.name}.npz", self.folder, self.name, self.folder.upper())
        return next((data_dir / name for name in names if (data_dir / name).exists()), None)

    def here(self, data_dir: Path) -> str | None:
        """Return what there is of it in ``data_dir``, None for nothing."""
        found = _FIND.get(self.name, self.place)(data_dir)
        return str(found.relative_to(data_dir)) if isinstance(found, Path) else found


def default_data_dir() -> Path:
    """Return ``$CROSSFADE_DATA``, or ``crossfade/data`` in the user's cache folder.

    Raises:
        UserError: neither is known, as for a user of a container who has no home.
    """
    if named := os.environ.get("CROSSFADE_DATA"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "crossfade" / "data"
    except RuntimeError:
        raise UserError("there is no home folder for data; use --data-dir, or set CROSSFADE_DATA") from None


def find_imagenet(data_dir: Path) -> Path | None:
    """Return the folder in ``data_dir``, or itself, that holds ImageNet's train and val; None if there is none."""
    for place in (data_dir / "imagenet", data_dir / "ILSVRC2012", data_dir):
        if (place / "train").is_dir() and (place / "val").is_dir() and not (place / "val_annotations.txt").exists():
            return place
    return None


def find_reviews(data_dir: Path) -> Path | None:
    """Return the CSV in ``data_dir`` or its folder ``reviews``."""
    return next((path for place in ("reviews", ".") for path in sorted((data_dir / place).glob("*Reviews*.csv"))), None)


def _find_uci(data_dir: Path) -> str | None:
    from crossfade.lab.data.uci import uci_tasks

    try:
        tasks, missing = uci_tasks(data_dir)
    except UserError:
        return None
    return f"{len(tasks)} of 121 sets" + (f", without {', '.join(missing)}" if len(missing) < 10 and missing else "")


def _find_glue(data_dir: Path) -> str | None:
    return ", ".join(path.parent.name for path in sorted((data_dir / "glue").glob("*/train.tsv"))) or None


# What there is of a data set that isn't simply found under its own name.
_FIND: dict[str, Callable[[Path], str | Path | None]] = {
    "sklearn": lambda _: "ships with scikit-learn",
    "uci": _find_uci,
    "imagenet": find_imagenet,
    "reviews": find_reviews,
    "glue": _find_glue,
}
_KNOWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
CATALOGUE = {name: DataSet(name, **about) for name, about in _KNOWN.items()}


def download(
    url: str, target: Path, *, checksum: str | None = None, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Path:
    """Download ``url`` to ``target``, continuing an interrupted download; nothing is done for a complete target.

    Args:
        checksum: ``"md5:HEX"`` or ``"sha256:HEX"``. Without one only the length is checked.
        on_progress: Called regularly with (bytes so far, bytes in all or 0).

    Raises:
        UserError: no connection, a refused request, a wrong length or checksum. Unless the checksum is wrong, the bytes
            so far stay in ``target.part`` for the next call.
    """
    part = target.with_name(target.name + ".part")
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(url, part, on_progress)
            part.replace(target)
        if checksum is not None:
            kind, _, expected = checksum.partition(":")
            with target.open("rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
            if found != expected:
                target.unlink()
                raise UserError(f"{target.name}: {kind} is {found}, expected {expected}; removed, run it again")
    except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: can't be downloaded ({reason}); run it again to go on, or put the file at {target}"
        ) from None
    return target


def _fetch(url: str, part: Path, on_progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_DOWNLOAD_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is complete already
            return
        raise
    with response:
        if have and response.status != 206:  # the server starts from the beginning
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0  # 0 where the server doesn't tell it
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                on_progress(have, total)
    if total and have != total:
        raise UserError(f"{url}: the connection ended after {have} of {total} bytes; run it again to go on")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a zip or tar archive into the new folder ``target``, which appears only once it is complete.

    Raises:
        DamagedError: it can't be read.
        UserError: a member that would land outside the folder.
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
                while file.fileobj and file.fileobj.read(_CHUNK):  # the checksum stands at the very end
                    pass
        partial.replace(target)
    except tarfile.FilterError as error:
        raise UserError(f"{archive.name}: refused, a member would land outside the folder ({error})") from None
    except _DAMAGED as error:
        raise DamagedError(f"{archive.name}: not a readable archive ({error}); get it again") from None
    except OSError as error:
        raise UserError(f"{archive.name}: can't be unpacked into {target.parent} ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unzip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            # zipfile would silently put such a member elsewhere.
            if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
                raise UserError(f"{archive.name}: refused, member {name!r} would land outside the folder")
        file.extractall(target)


@contextmanager
def hub(kind: Literal["model", "dataset"], name: str) -> Iterator[None]:
    """Silence the Hugging Face hub's library, and use its cache alone if the hub doesn't answer."""
    import huggingface_hub.constants as constants

    log = logging.getLogger("huggingface_hub")
    level, offline = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not _answers(kind, name)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        log.setLevel(level)


@lru_cache
def _answers(kind: Literal["model", "dataset"], name: str) -> bool:
    """Ask the hub once, without the retries of its library."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_HUB_SECONDS)
    except Exception as error:  # a proxy, a name that isn't found, offline mode, a time-out
        return isinstance(error, HfHubHTTPError)  # an answer, such as that there is no such model
    return True
