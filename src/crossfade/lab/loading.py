"""The data of a comparison, as a user names them: files, a folder, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from crossfade.errors import UserError
from crossfade.lab.checks import check_count
from crossfade.lab.data.columns import Rare
from crossfade.lab.data.reading import TABLES, read_frame
from crossfade.lab.data.table import BUILTIN, Table, from_file, load_builtin
from crossfade.lab.data.texts import TextSet, load_texts
from crossfade.lab.settings import Data, Kind, Settings, given, option
from crossfade.lab.trial import Json
from crossfade.stats.words import listed

Loaded: TypeAlias = Sequence[Table] | Sequence[TextSet] | Path


def kind_of(files: Sequence[Path], settings: Settings) -> Kind:
    """Return what the data are: a folder is one of images, and with a column of texts a table is one of texts.

    Raises:
        UserError: a folder that holds tables and no folders of classes.
    """
    for folder in (file for file in files if file.is_dir()):
        inside = sorted(folder.iterdir())
        tables = [str(file) for file in inside if file.suffix.lower() in TABLES]
        if tables and not any(file.is_dir() for file in inside):
            raise UserError(f"{folder}: a folder, expected tables; name those in it: {listed(tables, 3)}")
        return Kind.IMAGES
    return Kind.TEXTS if settings.texts.text else Kind.TABLE


def load(files: Sequence[Path], columns: Data, settings: Settings) -> Loaded:
    """Read tables or texts; ``comparison.plan`` reads a folder of images, and no file means four real data sets."""
    kind, rare, target = kind_of(files, settings), rare_of(columns), columns.target
    if not files:
        for name in given(columns) | given(settings.texts):
            raise UserError(f"{option(name)} needs a FILE: crossfade compare FILE --target COLUMN")
        return [load_builtin(name) for name in BUILTIN]
    if len(files) > 1 and (kind is Kind.IMAGES or columns.test is not None):
        alone = "--test FILE" if columns.test else "a folder of images"
        raise UserError(f"{', '.join(map(str, files))}: several tables go together, but {alone} needs one data set")
    for file in files:
        if file.name.encode(errors="replace").decode() != file.name:  # no store and no page could hold it
            raise UserError(f"{file}: its name isn't UTF-8; rename it")
    if kind is Kind.IMAGES:
        return files[0]
    if target is None:
        known = ", ".join(map(str, read_frame(files[0]).frame.columns[:12]))
        raise UserError(f"{files[0]}: which column is the class? Add --target COLUMN (columns: {known})")
    names, categorical = _names(files), columns.categorical or ()
    if kind is Kind.TABLE:
        chosen: Json = {"categorical": categorical, "drop": columns.drop or (), "rare": rare}
        chosen |= {"group": columns.group, "time": columns.time}
        read = [from_file(file, target, test=columns.test, **chosen) for file in files]
        return [replace(table, name=name) for table, name in zip(read, names, strict=True)]
    text: list[str] = []
    for name in settings.texts.text or ():
        whole = "," not in name or name in read_frame(files[0]).frame.columns  # one column's name may hold a comma
        text += [name] if whole else [part.strip() for part in name.split(",") if part.strip()]
    declared = target in categorical
    sets = [load_texts(file, text, target, test=columns.test, numbers_are_names=declared, rare=rare) for file in files]
    return [replace(one, name=name) for one, name in zip(sets, names, strict=True)]


def rare_of(columns: Data) -> Rare | None:
    """Return what the options say of rare classes."""
    said = {name: getattr(columns, name) for name in ("merge_rare", "drop_rare") if getattr(columns, name) is not None}
    if len(said) > 1:
        raise UserError("--merge-rare and --drop-rare: rare classes are merged or left out; name one")
    for name, least in said.items():
        check_count(option(name), least, 2)
        return Rare(least, name == "merge_rare")
    return None


def _names(files: Sequence[Path]) -> list[str]:
    """Return what tables call the files: their names, with folders where these are the same."""
    short = [file.name.split(".")[0] or file.name for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]
