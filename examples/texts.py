"""Real text that is on every machine where crossfade is installed: nothing is downloaded.

* :func:`reference`: the Python language reference, as ``help()`` shows it
* :func:`torch_docs`: the documentation of torch's functions
* :func:`headers`: torch's C++ headers
"""

import contextlib
import pydoc
import re
from pathlib import Path

import torch


def reference() -> list[str]:
    """Return the sections of the language reference."""
    from pydoc_data.topics import topics

    return [text.strip() for _, text in sorted(topics.items())]


def torch_docs() -> list[str]:
    """Return the docstrings of torch's public functions, which begin with "name(arguments) -> Tensor"."""
    found = {}
    for owner in (torch, torch.Tensor, torch.nn.functional, torch.linalg, torch.special, torch.fft, torch.nn):
        for name in sorted(vars(owner)):
            text = None if name.startswith("_") else getattr(owner, name).__doc__
            if isinstance(text, str) and len(text) > 100:
                found.setdefault(pydoc.inspect.cleandoc(text), name)
    return list(found)


def headers() -> list[str]:
    """Return the C++ headers of ATen and c10, without the generated ones."""
    root = Path(torch.__file__).parent / "include"
    files = sorted(path for folder in ("ATen", "c10") for path in (root / folder).rglob("*.h"))
    texts = []
    for path in files:
        if "/ops/" in path.as_posix():
            continue
        with contextlib.suppress(UnicodeDecodeError), open(path, encoding="utf-8") as file:
            texts.append(file.read())
    return texts


def questions() -> list[dict[str, str]]:
    """Return pairs of a function's signature and the first sentence of its description."""
    pairs = []
    for text in torch_docs():
        match = re.match(r"^(\w+\(.*?\)(?: -> [\w, ()]+)?)\n\s*\n(.+?\.)(?:\s|$)", text, re.DOTALL)
        if match and len(match[1]) < 100 and len(match[2]) < 200:
            pairs.append({"prompt": match[1] + "\n", "completion": " ".join(match[2].split())})
    return pairs
