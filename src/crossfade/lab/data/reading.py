"""Rows and their labels read from tables in files or from Python objects, with errors of one line."""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import io
import json
import lzma
import re
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Literal, NamedTuple, TextIO, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from crossfade.errors import UserError

# Words for missing values: pandas' own list and the question mark of the UCI archive.
MISSING = ("", "?", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "NONE", "none")
# In the label column "None" is more often a class than a missing value.
MISSING_LABEL = tuple(text for text in MISSING if text.lower() != "none")

STDIN = Path("/dev/stdin")  # what the command line makes of -, on every system
FORMATS = "CSV, TSV, JSON lines, Parquet, Feather or a spreadsheet"

_PACKED = {".gz": gzip, ".bz2": bz2, ".xz": lzma}
_ARROW = {".parquet": "Parquet", ".pq": "Parquet", ".feather": "Feather", ".arrow": "Feather"}
_SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_JSON = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", *_JSON, *_ARROW, *_SHEETS)
_FOREIGN = (".arff", ".sav", ".dta", ".sas7bdat", ".rds", ".npz", ".npy", ".pkl", ".h5")
_KINDS = (*_ARROW, *_SHEETS, *_PACKED, ".zip")  # told by the name; else, as in a stream, by the first bytes
_SIGNS = {
    b"PAR1": ".parquet",
    b"ARROW1": ".feather",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"\x1f\x8b": ".gz",
    b"BZh91AY": ".bz2",
    b"\xfd7zXZ": ".xz",
    b"PK\x03\x04": ".zip",
}
_SAMPLE = 1 << 16


_Stream: TypeAlias = io.BufferedReader | io.BytesIO


class RawFrame(NamedTuple):
    """A file as read: a ``frame`` with typed columns, and ``notes`` on decisions while reading."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def read_frame(path: Path, target: str | None = None, words: Collection[str] = ()) -> RawFrame:
    """Read CSV, TSV (also ``;`` and ``|``), JSON lines (packed with gzip, bzip2, xz or zip), Parquet, Feather or Excel.

    The cells of the label column, ``target``, aren't turned into numbers and may say ``None``. The columns ``words`` of
    a CSV file stay text, too.

    Raises:
        UserError: a missing, unreadable or empty file, no table, no rows, or columns with the same name.
    """
    if path != STDIN and not path.exists():
        raise UserError(f"{path}: no such file{_nearby(path)}")
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected a table ({FORMATS})")
    suffix = path.suffix.lower()
    if suffix in _FOREIGN:
        raise UserError(f"{path}: {suffix} files aren't read; save the table as CSV or Parquet")
    try:
        with opened(path) as file:
            head = file.read(_SAMPLE)
            file.seek(0)
            kind = suffix if suffix in _KINDS else next((_SIGNS[sign] for sign in _SIGNS if head.startswith(sign)), "")
            if kind in _ARROW:
                raw = _read_arrow(path, file, _ARROW[kind])
            elif kind in _SHEETS or (kind == ".zip" and b"[Content_Types].xml" in head):
                raw = _read_sheet(path, file)
            else:
                raw = _read_text(path, file.read(), kind, target, words)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
    if not len(raw.frame):
        raise UserError(f"{path}: a header but no rows")
    return raw


def opened(path: Path) -> _Stream:
    """Open a file, or standard input or a pipe, whose bytes are kept: they come only once."""
    if path == STDIN:
        return io.BytesIO(_drained(path, sys.stdin))
    return path.open("rb") if path.is_file() else io.BytesIO(_drained(path))


@lru_cache
def _drained(path: Path, stream: TextIO | None = None) -> bytes:
    return path.read_bytes() if stream is None else stream.buffer.read()


def _read_arrow(path: Path, file: _Stream, kind: str) -> RawFrame:
    import pyarrow as pa

    try:
        frame = pd.read_parquet(file) if kind == "Parquet" else pd.read_feather(file)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable {kind} file ({_first_line(error)})") from None
    return _named(path, frame)


def _read_sheet(path: Path, file: _Stream) -> RawFrame:
    """Read the first sheet of a workbook; rows and columns without a cell are left out."""
    try:
        engine: Literal["calamine"] | None = "calamine" if find_spec("python_calamine") else None
        with pd.ExcelFile(file, engine=engine) as book:
            first, *others = map(str, book.sheet_names)
            frame = book.parse(first, keep_default_na=False, na_values=[""])
    except ImportError:
        raise UserError(
            f"{path}: a spreadsheet needs one more package: pip install 'crossfade[excel]'; or save it as CSV"
        ) from None
    except Exception as error:  # the reader's own errors have no common class
        raise UserError(f"{path}: not a readable spreadsheet ({_first_line(error)})") from None
    frame = frame.dropna(how="all")
    frame = frame.loc[:, [frame[name].notna().any() or not str(name).startswith("Unnamed: ") for name in frame]]
    notes = [f"sheet {first!r} is read, not {', '.join(map(repr, others))}"] if others else []
    return _named(path, frame, notes)


def _read_json(path: Path, text: str, notes: Sequence[str]) -> RawFrame:
    """Read a record a line, or one list of records."""
    many = text.lstrip().startswith("[")
    parts = [(1, text)] if many else [(at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    records = []
    for at, part in parts:
        try:
            records.append(json.loads(part))
            if "\\ud" in part or "\\uD" in part:  # half a surrogate pair can be spelled, and not be written
                json.dumps(records[-1], ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            line, problem = at + getattr(error, "lineno", 1) - 1, getattr(error, "msg", error)
            raise UserError(f"{path}: line {line}: not JSON ({problem}); expected a record {{...}} a line") from None
    records = records[0] if many else records
    if not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: expected records {{...}}, one in each line or all in one list")
    return _named(path, pd.DataFrame(records), notes)


def _named(path: Path, frame: pd.DataFrame, notes: Sequence[str] = ()) -> RawFrame:
    """Return a frame whose columns have names, and different ones."""
    names = [str(name).strip() for name in frame.columns]
    duplicates = sorted(name for name, times in Counter(names).items() if times > 1)
    if duplicates:
        raise UserError(f"{path}: two columns are called {duplicates[0]!r}; rename one")
    return RawFrame(frame.set_axis(names, axis=1).reset_index(drop=True), tuple(notes))


def _read_text(path: Path, content: bytes, packed: str, target: str | None, words: Collection[str]) -> RawFrame:
    text, notes = _decode(path, _unpack(path, content, packed))
    text = re.sub(r"\A\s*\n", "", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    suffix = Path(path.stem if packed == path.suffix.lower() else path.name).suffix.lower()
    if suffix in _JSON or (not suffix and re.match(r"\s*(\[\s*)?\{", text)):
        return _read_json(path, text, notes)
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
                dtype={name: str for name in names if name == target or name in words},
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


def _unpack(path: Path, content: bytes, packed: str) -> bytes:
    try:
        if packed != ".zip":
            return _PACKED[packed].decompress(content) if packed in _PACKED else content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            if len(inside) == 1:
                return archive.read(inside[0])
    except RuntimeError as error:  # a password, or a compression that Python doesn't know
        raise UserError(f"{path}: can't be unpacked ({_first_line(error)}); unpack it and name the table") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, lzma.LZMAError) as error:
        raise UserError(f"{path}: damaged {packed} file ({_first_line(error)})") from None
    raise UserError(f"{path}: {len(inside)} files inside, expected one; unpack it and name the table")


def _decode(path: Path, content: bytes) -> tuple[str, list[str]]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), []
    if b"\x00" in content[:_SAMPLE]:
        raise UserError(f"{path}: not a text file; expected {FORMATS}")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        return content.decode("cp1252", errors="replace"), [f"not UTF-8 (byte {error.start}); read as Windows-1252"]


def _separator(sample: str, path: Path) -> str:
    if path.name.lower().removesuffix(path.suffix if path.suffix.lower() in _PACKED else "").endswith((".tsv", ".tab")):
        return "\t"
    readers = {mark: csv.reader(io.StringIO(sample), delimiter=mark) for mark in ",;\t|"}
    counts = {mark: [len(row) for row in islice(rows, 20) if row] for mark, rows in readers.items()}
    # The mark that splits most rows into as many cells as the header; if several do, the one with most cells.
    return max(counts, key=lambda mark: (counts[mark][0] > 1, counts[mark].count(counts[mark][0]), counts[mark][0]))


def _names(text: str, separator: str, target: str | None, path: Path) -> tuple[list[str], int | None, list[str]]:
    """Return the columns' names, the header's line (None: there is no header) and notes."""
    first = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True))
    cells = [" ".join(cell.split()) for cell in first]
    if len(cells) == 1:
        raise UserError(f"{path}: only one column ({cells[0][:40]!r}); cells are separated by , ; | or tab")
    # 5.1 must be data, but 2019 may be a column's name.
    if target not in cells and any(re.fullmatch(r"[-+]?\d*[.,]\d+([eE][-+]?\d+)?", cell) for cell in cells):
        numbers = [str(number) for number in range(1, len(cells) + 1)]
        return numbers, None, [f"no header: columns are called 1 to {len(cells)}"]
    notes: list[str] = []
    names: dict[str, None] = {}
    for place, cell in enumerate(cells, start=1):
        name = cell or f"column {place}"
        if name in names:
            if name == target:
                raise UserError(f"{path}: --target {name!r} is the name of two columns; rename one")
            again = (f"{name}.{number}" for number in count(2))
            new = next(new for new in again if new not in names and new not in cells)
            notes.append(f"column name {name!r} occurs again: called {new}")
            name = new
        names[name] = None
    return list(names), 0, notes


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
    tables: list[Rows] = []
    words: set[str] = set()  # columns of words, which test rows have as well, whatever stands there
    for place in (path,) if test is None else (path, test):
        raw, where = read_frame(place, target, words), str(place)
        check_names([target], raw.frame.columns, "--target", where)
        frame, labels = raw.frame.drop(columns=target), raw.frame[target]
        words = {str(name) for name in frame if infer_dtype(frame[name], skipna=True) == "string"}
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
    widths = [rows.frame.shape[1] for rows in tables]
    if test is not None and not isinstance(test[0], pd.DataFrame) and widths[0] != widths[1]:
        raise UserError(f"X_test: has {widths[1]} columns, and X has {widths[0]}; they must be the same")
    return tables


def check_names(wanted: Collection[str], columns: Collection[str], option: str, where: str) -> None:
    """Raise a UserError that names the nearest column for the first of ``wanted`` that isn't among ``columns``."""
    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(str(name), list(columns), n=1, cutoff=0.6)
            listed = ", ".join(list(columns)[:12]) + (", ..." if len(columns) > 12 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"columns: {listed}"
            raise UserError(f"{where}: {option} {name!r} is no column ({hint})")


def _as_frame(X: object, name: str) -> pd.DataFrame:
    """Return an array or a data frame as a data frame whose columns have different names."""
    if hasattr(X, "tocsr"):
        raise UserError(f"{name}: sparse matrices aren't read; pass {name}.toarray()")
    if isinstance(X, pd.DataFrame):
        names = [" ".join(map(str, column)) if isinstance(column, tuple) else str(column) for column in X.columns]
        if len(set(names)) < len(names):
            raise UserError(f"{name}: two columns are called {Counter(names).most_common(1)[0][0]!r}; rename one")
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
