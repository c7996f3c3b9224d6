"""Writer of the API reference's pages: the public names of each package, in the groups of the files they are in.

A package's ``__init__.pyi`` says which names are public and where they are; a module without one has those it defines.
A new name is in the reference by itself.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

# Each page: a package, with the modules of it that are imported by name.
PAGES: dict[str, tuple[str, ...]] = {
    "crossfade": ("crossfade.errors",),
    "crossfade.objectives": (),
    "crossfade.migrate": (),
    "crossfade.testing": (),
    "crossfade.integrations": (
        "crossfade.integrations.lightning",
        "crossfade.integrations.transformers",
        "crossfade.integrations.trl",
        "crossfade.integrations.skorch",
        "crossfade.integrations.sklearn",
        "crossfade.integrations.distributed",
    ),
    "crossfade.diagnostics": ("crossfade.diagnostics.lightning", "crossfade.diagnostics.huggingface"),
    "crossfade.lab": ("crossfade.lab.settings",),
    "crossfade.stats": (),
    "crossfade.report": (),
}
# What only the lab itself uses.
INTERNAL = {f"crossfade.lab.settings.{name}" for name in ("Kind", "given", "check_kind", "option")}


def public_names(package: str) -> dict[str, list[str]]:
    """Return for each module of a package the public names in it, as users import them."""
    stub = Path(str(importlib.import_module(package).__file__)).with_suffix(".pyi")
    found: dict[str, list[str]] = {}
    if stub.exists():
        for module, names in _imports(stub.read_text()):
            found.setdefault(f"{package}.{module}", []).extend(f"{package}.{name}" for name in names)
        for module, names in found.items():  # what a module hands on, but not its package
            known = {name.rpartition(".")[2] for name in names}
            source = inspect.getsource(importlib.import_module(module))
            names += [
                f"{module}.{name}" for _, handed_on in _imports(source) for name in handed_on if name not in known
            ]
    alone = PAGES[package] if stub.exists() else (package, *PAGES[package])
    return found | {module: names for module in alone if (names := _defined(module))}


def _imports(source: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each module that is imported from, with the names that are exported again (``import name as name``)."""
    for line in ast.parse(source).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            yield line.module, [one.name for one in line.names if one.asname == one.name]


def _defined(module: str) -> list[str]:
    """Return what a module defines under a public name, in the order of the file."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    names = dict.fromkeys(one.name for one in body if isinstance(one, ast.ClassDef | ast.FunctionDef))
    return [own for name in names if not name.startswith("_") and (own := f"{module}.{name}") not in INTERNAL]


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def page(package: str) -> str:
    """Return a package's page."""
    about = inspect.cleandoc(importlib.import_module(package).__doc__ or "")
    lines = [*_title(package, "="), f".. py:module:: {package}", "", about, ""]
    for module, names in public_names(package).items():
        if module != package:
            first, _, rest = inspect.cleandoc(importlib.import_module(module).__doc__ or module).partition("\n\n")
            lines += _title(re.sub(r":\w+:`(.*?)`", r"\1", " ".join(first.split())).rstrip("."), "-")
            if module.rpartition(".")[0] == package:  # others are described on their package's page
                lines += [f".. py:module:: {module}", ""]
            lines += [rest, ""]
        lines += [".. py:currentmodule:: None", ""]  # names are written in full
        lines += [".. autosummary::", "   :toctree: names", "   :nosignatures:", ""]
        lines += [f"   ~{name}" for name in names]
        lines.append("")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write the pages into a folder, each only if it has changed, so that nothing is built again without a reason."""
    folder.mkdir(exist_ok=True)
    index = [
        *_title("API reference", "="),
        ".. toctree::",
        "   :maxdepth: 2",
        "",
        *(f"   {name}" for name in PAGES),
        "",
    ]
    for name, text in {"index": "\n".join(index), **{package: page(package) for package in PAGES}}.items():
        file = folder / f"{name}.rst"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
