"""Rows and their labels read from CSV, Parquet or Python objects, with errors of one line."""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import io
import lzma
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from crossfade.errors import UserError

# Words for missing values: pandas' own list and the question mark of the UCI archive.
MISSING = ("", "?", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "NONE", "none")
# In the label column "None" is more often a class than a missing value.
MISSING_LABEL = tuple(text for text in MISSING if text.lower() != "none")

_PACKED = {".gz": gzip, ".bz2": bz2, ".xz": lzma}
_FOREIGN = (".xls", ".xlsx", ".ods", ".json", ".jsonl", ".arff", ".sav", ".dta", ".sas7bdat", ".feather", ".npz")
_SAMPLE = 1 << 16


class RawFrame(NamedTuple):
    """A file as read: a ``frame`` with typed columns, and ``notes`` on decisions while reading."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def read_frame(path: Path, target: str | None = None) -> RawFrame:
    """Read CSV, TSV (also ``;`` and ``|``; packed with gzip, bzip2, xz or zip) or Parquet.

    The cells of the label column, ``target``, aren't turned into numbers and may say ``None``.

    Raises:
        UserError: a missing, unreadable or empty file, no table, no rows, or columns with the same name.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file{_nearby(path)}")
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected a table (CSV, TSV or Parquet)")
    suffix = path.suffix.lower()
    if suffix in _FOREIGN:
        raise UserError(f"{path}: {suffix} files aren't read; save the table as CSV or Parquet")
    try:
        raw = _read_parquet(path) if suffix in {".parquet", ".pq"} else _read_text(path, target)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
    if not len(raw.frame):
        raise UserError(f"{path}: a header but no rows")
    return raw


def _read_parquet(path: Path) -> RawFrame:
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None
    names = [str(name).strip() for name in frame.columns]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UserError(f"{path}: {len(duplicates)} column names occur twice (first: {duplicates[0]!r}); rename them")
    return RawFrame(frame.set_axis(names, axis=1).reset_index(drop=True), ())


def _read_text(path: Path, target: str | None) -> RawFrame:
    text, notes = _decode(path, _unpack(path))
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    try:
        separator = _separator(text[:_SAMPLE], path)
        names, header, more = _names(text, separator, target, path)
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=header,
                names=names,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                low_memory=False,
                na_values={name: MISSING_LABEL if name == target else MISSING for name in names},
                dtype={target: str} if target in names else None,
            )
    except pd.errors.ParserWarning:  # pandas would drop the cells
        raise UserError(
            f"{path}: rows have more cells than the header has names ({len(names)}); name every column, or remove a "
            "separator at the end of the lines"
        ) from None
    except (pd.errors.ParserError, ValueError) as error:
        reason = _first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path}: not a table ({reason})") from None
    return RawFrame(frame, (*notes, *more))


def _unpack(path: Path) -> bytes:
    suffix = path.suffix.lower()
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
                if len(inside) != 1:
                    raise UserError(f"{path}: {len(inside)} files inside, expected one; unpack it and name the table")
                return archive.read(inside[0])
        if suffix in _PACKED:
            with _PACKED[suffix].open(path) as file:
                return bytes(file.read())
        return path.read_bytes()
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path}: damaged {suffix} file ({_first_line(error)})") from None


def _decode(path: Path, content: bytes) -> tuple[str, list[str]]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), []
    if b"\x00" in content[:_SAMPLE]:
        raise UserError(f"{path}: not a text file; expected CSV, TSV or Parquet (named .parquet)")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        return content.decode("cp1252", errors="replace"), [f"not UTF-8 (byte {error.start}); read as Windows-1252"]


def _separator(sample: str, path: Path) -> str:
    lines = [line for line in sample.splitlines() if line.strip()][:20]
    if path.name.lower().removesuffix(path.suffix if path.suffix.lower() in _PACKED else "").endswith((".tsv", ".tab")):
        return "\t"
    counts = {mark: [len(next(csv.reader([line], delimiter=mark))) for line in lines] for mark in ",;\t|"}
    # The mark that splits most lines into as many cells as the header; if several do, the one with most cells.
    return max(counts, key=lambda mark: (counts[mark][0] > 1, counts[mark].count(counts[mark][0]), counts[mark][0]))


def _names(text: str, separator: str, target: str | None, path: Path) -> tuple[list[str], int | None, list[str]]:
    """Return the columns' names, the header's line (None: there is no header) and notes."""
    first = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True))
    cells = [" ".join(cell.split()) for cell in first]
    if len(cells) == 1:
        raise UserError(f"{path}: only one column ({cells[0][:40]!r}); cells are separated by , ; | or tab")
    # 5.1 must be data, but 2019 may be a column's name.
    if target not in cells and any(re.fullmatch(r"[-+]?\d*[.,]\d+([eE][-+]?\d+)?", cell) for cell in cells):
        count = len(cells)
        return [str(number) for number in range(1, count + 1)], None, [f"no header: columns are called 1 to {count}"]
    notes, names = [], []
    seen: Counter[str] = Counter()
    for place, cell in enumerate(cells, start=1):
        name = cell or f"column {place}"
        seen[name] += 1
        if seen[name] > 1:
            if name == target:
                raise UserError(f"{path}: --target {name!r} is the name of two columns; rename one")
            notes.append(f"column name {name!r} occurs again: called {name}.{seen[name]}")
            name = f"{name}.{seen[name]}"
        names.append(name)
    return names, 0, notes


def _nearby(path: Path) -> str:
    try:
        there = [other.name for other in path.parent.iterdir()]
    except OSError:
        return f" (nor a folder {path.parent})"
    near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.6)
    return f" (did you mean {path.with_name(near[0])}?)" if near else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as they were read, and the label of each.

    Attributes:
        frame: All columns but the labels.
        labels: A cell for each row.
        where, where_labels: Names of the rows and the labels for messages.
        notes: Decisions while reading.
    """

    frame: pd.DataFrame
    labels: pd.Series
    where: str
    where_labels: str
    notes: tuple[str, ...] = ()


def rows_of_files(path: Path, target: str, test: Path | None) -> list[Rows]:
    """Return the rows of a table and, if there is one, of its test table; ``target`` names the column of labels.

    Raises:
        UserError: as ``read_frame``, or no such column.
    """
    tables = []
    for place in (path,) if test is None else (path, test):
        raw, where = read_frame(place, target), str(place)
        check_names([target], raw.frame.columns, "--target", where)
        frame, labels = raw.frame.drop(columns=target), raw.frame[target]
        tables.append(Rows(frame, labels, where, f"{where}: target {target!r}", raw.notes))
    return tables


def rows_of_arrays(X: object, y: object, test: tuple[object, object] | None) -> list[Rows]:
    """Return the rows of NumPy arrays or pandas objects and, if there is a pair of them, of the test rows.

    Raises:
        UserError: no table, sparse, empty, two columns of one name, or labels of another shape.
    """
    if test is not None and (not isinstance(test, tuple | list) or len(test) != 2):
        raise UserError(f"test: expected a pair (X_test, y_test), got {type(test).__name__}")
    tables = []
    for where, where_labels, pair in (("X", "y", (X, y)), ("X_test", "y_test", test)):
        if pair is not None:
            frame = _as_frame(pair[0], where)
            tables.append(Rows(frame, _as_labels(pair[1], where_labels, len(frame)), where, where_labels))
    return tables


def check_names(wanted: Collection[str], columns: Collection[str], option: str, where: str) -> None:
    """Raise a UserError that names the nearest column for the first of ``wanted`` that isn't among ``columns``."""
    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.6)
            listed = ", ".join(list(columns)[:12]) + (", ..." if len(columns) > 12 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"columns: {listed}"
            raise UserError(f"{where}: {option} {name!r} is no column ({hint})")


def _as_frame(X: object, name: str) -> pd.DataFrame:
    """Return an array or a data frame as a data frame whose columns have different names."""
    if hasattr(X, "tocsr"):
        raise UserError(f"{name}: sparse matrices aren't read; pass {name}.toarray()")
    if isinstance(X, pd.DataFrame):
        names = [" ".join(map(str, column)) if isinstance(column, tuple) else str(column) for column in X.columns]
        duplicate = next((label for label in names if names.count(label) > 1), None)
        if duplicate is not None:
            raise UserError(f"{name}: two columns are called {duplicate!r}; rename one")
        frame = X.set_axis(names, axis=1)
    else:
        values = np.asarray(X)
        if values.ndim != 2:
            raise UserError(f"{name}: expected a table (rows, features), got shape {values.shape}")
        frame = pd.DataFrame(values, columns=[f"x{place}" for place in range(values.shape[1])])
    if frame.empty:
        raise UserError(f"{name}: expected at least one row and one feature, got shape {frame.shape}")
    return frame.reset_index(drop=True)


def _as_labels(y: object, name: str, rows: int) -> pd.Series:
    """Return labels, one for each of so many rows."""
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if not isinstance(y, pd.Series):
        values = np.asarray(y)
        if values.ndim != 1:
            raise UserError(f"{name}: expected one class a row, shape ({rows},), got shape {values.shape}")
        y = pd.Series(values)
    if len(y) != rows:
        raise UserError(f"{name}: has {len(y)} labels for {rows} rows; they must be as many")
    return y.reset_index(drop=True)
