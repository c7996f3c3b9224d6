"""Lightning's loggers by name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from crossfade.errors import UserError

__all__ = ["make_logger"]

_SHORT = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger"}


def make_logger(name: str, folder: Path | None) -> Any:
    """A logger for one training.

    Args:
        name: ``"csv"``, ``"tensorboard"``, another class of ``lightning.pytorch.loggers`` (``"MLFlowLogger"``), one of
            your own as ``"module:Class"``, or ``""`` for none. It is given those of ``save_dir``, ``name`` and
            ``run_name`` that it takes; the rest is configured in its own way, by environment variables for example.
        folder: Of the training, named after its trial; a logger of files writes to ``log`` in it.

    Returns:
        The logger; False for none, as Lightning wants it.

    Raises:
        UserError: no such logger, no folder, or one that can't be made.
    """
    if not name:
        return False
    if folder is None:
        raise UserError("logger: needs a folder to write to")
    kind = _class(name)
    if name in _SHORT:
        return kind(str(folder), name="log", version="")
    given = {"save_dir": str(folder / "log"), "name": folder.name, "run_name": folder.name}
    taken = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in given.items() if key in taken})
    except Exception as error:
        raise UserError(f"logger {name}: {str(error).strip() or type(error).__name__}") from error


def _class(name: str) -> Any:
    place, _, short = name.rpartition(":")
    if place and os.getcwd() not in sys.path:  # a module beside the command
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(place or "lightning.pytorch.loggers")
    except ImportError as error:
        raise UserError(f"logger {name}: {error}") from None
    kind = getattr(module, _SHORT.get(name, short), None)
    if not inspect.isclass(kind):
        raise UserError(
            f"logger must be {', '.join(_SHORT)}, a class of lightning.pytorch.loggers or module:Class, got {name!r}"
        )
    return kind
