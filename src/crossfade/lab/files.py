"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from crossfade.errors import UserError


def write_text(path: Path, text: str, what: str) -> Path:
    """Write a text file as :func:`write_bytes` does, and return its path."""
    return write_bytes(path, text.encode(), what)


def write_bytes(path: Path, content: bytes, what: str) -> Path:
    """Write a file so that it is there completely or not at all, and return its path.

    Raises:
        UserError: the folder isn't there or can't be written to; the message begins with ``what``.
    """
    part = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            part = Path(file.name)
            file.write(content)
        os.umask(mask := os.umask(0))
        part.chmod(0o666 & ~mask)  # temporary files are for their owner alone
        part.replace(path)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise UserError(f"{what} {path}: can't be written ({error.strerror or error})") from None
    return path
