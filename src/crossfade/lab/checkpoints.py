"""Checkpoints: files of ``torch.save``, archives whose checksums tell whether every byte is there."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossfade.lab.files import write_bytes
from crossfade.lab.hardware import process_rank

_log = logging.getLogger(__name__)


def work_folder(store: Path) -> Path:
    """Return the folder beside a store for what interrupted trials resume from, each one's in a folder of its key."""
    return store.with_name(store.name + ".work")


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the checkpoint of the trial that the folder is named after, in the place of the last one.

    Raises:
        UserError: it can't be written; the last one is still there.
    """
    import torch

    content = io.BytesIO()
    torch.save({**checkpoint, "trial": path.parent.name}, content)
    write_bytes(path, content.getbuffer(), "checkpoint", folder=True)


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint, which may hold plain data and tensors alone.

    Raises:
        ValueError: a damaged file, or a checkpoint of another trial.
    """
    import torch

    if (why := damage(path)) is not None:
        raise ValueError(why)
    found = dict(torch.load(path, map_location=map_location, weights_only=True))
    if found.get("trial", path.parent.name) != path.parent.name:  # older ones don't say it
        raise ValueError("it belongs to another trial")
    return found


def resume(path: Path, check: Callable[[dict[str, Any]], None], map_location: Any = "cpu") -> dict[str, Any] | None:
    """Return a checkpoint to resume from, None if there is none. One that can't be used is put aside, with a warning.

    Args:
        check: Raises an exception if the checkpoint isn't one of this training.
    """
    if not path.exists():
        return None
    try:
        found = load(path, map_location)
        check(found)
    except Exception as error:  # whatever unpickling makes of a foreign file
        reason, aside = (str(error).strip().splitlines() or [type(error).__name__])[0], path.with_suffix(".unusable")
        if process_rank() == 0:
            path.replace(aside)
            _log.warning("%s can't be used (%s): kept as %s, and the trial starts again", path, reason, aside.name)
        return None
    return found


def damage(path: Path) -> str | None:
    """Return what is wrong with the bytes of a checkpoint, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except Exception as error:  # whatever unpacking makes of a changed byte
        return "empty" if path.exists() and not path.stat().st_size else str(error)
    return torn and f"{torn} is damaged"
