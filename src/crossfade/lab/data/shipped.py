"""Text that is on every machine where crossfade is installed: nothing is downloaded."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path


def reference() -> list[str]:
    """Return the sections of Python's language reference, as ``help()`` shows them."""
    from pydoc_data.topics import topics

    return [text.strip() for _, text in sorted(topics.items())]


def torch_docs() -> list[str]:
    """Return the docstrings of torch's public functions, which begin with "name(arguments) -> Tensor"."""
    import torch

    found: dict[str, str] = {}
    for owner in (torch, torch.Tensor, torch.nn.functional, torch.linalg, torch.special, torch.fft, torch.nn):
        for name in sorted(vars(owner)):
            text = None if name.startswith("_") else getattr(owner, name).__doc__
            if isinstance(text, str) and len(text) > 100:
                found.setdefault(inspect.cleandoc(text), name)
    return list(found)


def headers() -> list[str]:
    """Return torch's C++ headers, ATen's and c10's, without the generated ones."""
    import torch

    root, texts = Path(torch.__file__).parent / "include", []
    for path in sorted(path for folder in ("ATen", "c10") for path in (root / folder).rglob("*.h")):
        if "/ops/" not in path.as_posix():
            with suppress(UnicodeDecodeError):
                texts.append(path.read_text(encoding="utf-8"))
    return texts
