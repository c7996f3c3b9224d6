"""Files that are written completely or not at all, and never over something that isn't ours."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from crossfade.errors import UserError

# The end of our Markdown and SVG files, where HTML has a meta element and JSON a key.
SIGNATURE = "<!-- generator: crossfade -->\n"
_MARKS = (b'name="generator" content="crossfade', b'"generator": "crossfade', SIGNATURE.encode())
# The header of an exported table: CSV has no place for a mark.
_EXPORTED = re.compile(rb"(study[,\t])?dataset[,\t]method[,\t]repeat[,\t][^\n]*[,\t]request\r?\n")
_LOOK = 4096  # bytes at both ends of a file


def check_outputs(
    outputs: Sequence[tuple[str, Path | None]],
    inputs: Iterable[Path | None] = (),
    *,
    store: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Refuse, before anything is trained, outputs that can't be written or would replace a user's own file.

    Args:
        outputs: The options and the files that they name; None is no file.
        inputs: The files and folders that are read.
        store: The file of results; it may be new, and checks itself that it is one of ours.
        overwrite: Replace files that this program didn't write; never an input, the store or another output.

    Raises:
        UserError: the first such output.
    """
    taken = [("an input", path) for path in inputs if path is not None]
    for option, path in [("--store", store), *outputs]:
        if path is None or (option, str(path)) == ("--json", "-"):
            continue
        if str(path) in ("-", "/dev/stdin") or str(path).startswith("--"):
            raise UserError(f"{option}: expected a file, got {str(path)!r}")
        if path.is_dir():
            raise UserError(f"{option} {path}: a folder, expected a file")
        regular = path.is_file() or not path.exists()  # a pipe or a device has nothing to lose
        for what, other in taken:
            if regular and _same(path, other):
                raise UserError(f"{option} {path}: is {what} as well; name another file")
        if path is not store and path.exists() and not is_ours(path):
            if not overwrite:
                raise UserError(
                    f"{option} {path}: is there, and not written by crossfade; name another file, or add --overwrite"
                )
            if any(other.is_dir() and path.resolve().is_relative_to(other.resolve()) for _, other in taken):
                raise UserError(f"{option} {path}: lies in a folder of inputs; name another file")
        taken.append((f"what {option} names", path))
        if path is not store:
            _try_writing(path, option)


def check_folder(path: Path | None, option: str, *, mark: str = "", overwrite: bool = False) -> None:
    """Refuse, before anything is trained, a folder of outputs that is a file or can't be made or written to.

    Where a file, ``mark``, tells folders of ours, one that holds tables or figures without it is refused as well.
    """
    if path is None:
        return
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{option} {path}: {'' if there == path else f'{there} is '}a file, expected a folder")
    _try_folder(there, f"{option} {path}")
    if mark and not overwrite and path.is_dir() and not (path / mark).is_file():
        strange = [file.name for file in path.iterdir() if file.suffix in (".csv", ".svg")]
        if strange:
            raise UserError(
                f"{option} {path}: {strange[0]} in it isn't crossfade's; name another folder, or add --overwrite"
            )


def write_text(path: Path, text: str, what: str) -> Path:
    """Write a text file as :func:`write_bytes` does, and return its path."""
    return write_bytes(path, text.encode(), what)


def write_bytes(path: Path, content: bytes | memoryview, what: str, *, folder: bool = False) -> Path:
    """Write a file as :func:`replacing` does, and return its path; make its ``folder`` if told to."""
    with replacing(path, what, folder=folder) as file:
        file.write(content)
    return path


@contextmanager
def replacing(path: Path, what: str, *, folder: bool = False) -> Iterator[IO[bytes]]:
    """Yield a file to write to that becomes ``path`` at the end: that is there completely or not at all.

    A link is followed, and a pipe or a device is written to.

    Raises:
        UserError: the folder isn't there or can't be written to; the message begins with ``what``.
    """
    part = None
    try:
        if folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            part = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())  # a file that has its name must have its bytes, too, also where the power fails
        os.umask(mask := os.umask(0))
        part.chmod(0o666 & ~mask)  # temporary files are for their owner alone
        part.replace(target)
    except OSError as error:
        raise UserError(f"{what} {path}: can't be written ({error.strerror or error})") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write plain data as a JSON file that is known as ours; ``-`` is standard output."""
    text = json.dumps({"generator": "crossfade", **content}, indent=1, allow_nan=False) + "\n"
    if str(path) == "-":
        print(text, end="")
    else:
        write_text(path, text, "--json")


def is_ours(path: Path) -> bool:
    """Return whether this program wrote a file. An empty file, a pipe or a device holds nothing that could be lost."""
    if not path.is_file() or not path.stat().st_size:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_LOOK)
            file.seek(max(0, path.stat().st_size - _LOOK))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"PAR1"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            head = ",".join(pq.read_schema(path).names).encode() + b"\n"
        except (pa.ArrowException, OSError):
            return False
    return any(mark in head or mark in tail for mark in _MARKS) or _EXPORTED.match(head) is not None


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file, also by links; they need not be there."""
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except OSError:
        return False


def _try_writing(path: Path, option: str) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{option} {path}: is write-protected; name another file")
    if path.exists() and not path.is_file():
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} isn't there; make it first")
    _try_folder(folder, f"{option} {path}")


def _try_folder(folder: Path, what: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{what}: can't be written ({error.strerror or error})") from None
