"""Data sets fetched from where their owners offer them, and compared with what is known of them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from crossfade.errors import UserError
from crossfade.lab.data.sources import DamagedError, DataSet, download, find_reviews, unpack
from crossfade.lab.data.texts import GLUE, GlueTask, TextPart, from_hub, load_glue
from crossfade.lab.data.uci import UCI_DIGESTS, plain_name, uci_tasks
from crossfade.lab.files import write_text

_IMAGES = ("cifar100", "cifar10", "cinic10", "tinyimagenet")


def get(entry: DataSet, data_dir: Path, on_progress: Callable[[int, int], None] = lambda *_: None) -> None:
    """Fetch a data set into the data folder. What is there is left alone, and a broken download goes on.

    Raises:
        UserError: one that has to be fetched by hand, no connection, or a file that isn't the owner's.
    """
    if entry.name == "glue":
        for task in GLUE:
            if not _glue_files(task, data_dir)[1].is_file():
                _get_glue(task, data_dir)
        return
    if entry.here(data_dir):
        return
    if entry.url is None:
        raise UserError(f"{entry.name} can't be downloaded by a program: {entry.how} (the data folder is {data_dir})")
    target, archive = data_dir / entry.folder, data_dir / entry.url.rpartition("/")[2]
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: is there, but not with the data; move it away and run it again")
    download(entry.url, archive, checksum=entry.checksum, on_progress=on_progress)
    outer = target.with_name(target.name + ".outer")
    try:
        unpack(archive, outer)
    except DamagedError:
        archive.unlink()
        raise
    inner = outer / entry.folder  # the archive may bring its own folder of the same name
    (inner if inner.is_dir() else outer).replace(target)
    shutil.rmtree(outer, ignore_errors=True)


def check(entry: DataSet, data_dir: Path) -> tuple[bool, str]:
    """Return whether the copy in the data folder holds what it should, and what was compared.

    Owners' checksums are of archives. Where there is none, the contents are compared with checksums of the copies that
    the stored results were computed from, or examples are counted.

    Raises:
        UserError: a damaged or incomplete copy.
    """
    if entry.name == "uci":
        tasks, missing = uci_tasks(data_dir)
        names = {plain_name(task.name): task.content["data"] for task in tasks}
        digests = {plain_name(name): digest for name, digest in UCI_DIGESTS.items()}
        other = [name for name, found in names.items() if digests[name] not in ("", found)]
        gone = f"; not here: {', '.join(missing)}" if missing else ""
        return not other, f"{len(tasks) - len(other)} sets as measured{gone}" + _differing(other)
    if entry.name == "reviews":
        path = find_reviews(data_dir)
        same = path is not None and hashlib.sha256(path.read_bytes()).hexdigest() == entry.content
        return same, "the file as measured" if same else "another file than the one that was measured"
    if entry.name == "glue":
        counts = {
            task: len(load_glue(task, data_dir).train) for task in GLUE if _glue_files(task, data_dir)[1].is_file()
        }
        parts = [f"{task.name} ({rows:,} of {task.rows:,} rows)" for task, rows in counts.items() if rows != task.rows]
        return not parts, f"{len(counts) - len(parts)} of {len(GLUE)} tasks in full" + _differing(parts)
    if entry.name in _IMAGES and find_spec("PIL"):
        from crossfade.lab.data.image_sets import load_images

        data = load_images(entry.name, data_dir)
        return True, f"{len(data.train):,} training and {len(data.test or ()):,} test images, as published"
    return True, ""


def _differing(names: list[str]) -> str:
    return f"; different: {', '.join(names)}" if names else ""


def _glue_files(task: GlueTask, data_dir: Path) -> tuple[Path, Path]:
    """Return the files of a task as GLUE names them, the one that is written last at the end."""
    folder = data_dir / "glue" / task.name
    return folder / ("dev_matched.tsv" if task.name == "MNLI" else "dev.tsv"), folder / "train.tsv"


def _get_glue(task: GlueTask, data_dir: Path) -> None:
    """Write a task of the hub in the layout of GLUE's files."""
    dev, train = _glue_files(task, data_dir)
    parts = from_hub(task, train.parent)
    if len(parts[0]) != task.rows:
        raise UserError(f"GLUE {task.name}: the hub gave {len(parts[0]):,} training rows, expected {task.rows:,}")
    train.parent.mkdir(parents=True, exist_ok=True)
    for path, part in ((dev, parts[1]), (train, parts[0])):
        write_text(path, _table(task, part), "glue")


def _table(task: GlueTask, part: TextPart) -> str:
    names = task.header or (*task.columns, task.label)
    values = dict(zip(task.columns, part.columns, strict=True)) | {task.label: [task.classes[k] for k in part.labels]}
    cells = [values.get(name, [""] * len(part)) for name in names]
    rows = ("\t".join(re.sub(r"[\t\r\n]+", " ", cell) for cell in row) for row in zip(*cells, strict=True))
    return "\n".join([*([] if task.header else ["\t".join(names)]), *rows, ""])
