"""The kinds of columns in a table (numbers, dates, categories, unused), and the classes in the label column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from crossfade.errors import UserError
from crossfade.lab.data.reading import MISSING, MISSING_LABEL, Rows
from crossfade.stats.words import count, listed

Kind = Literal["number", "date", "category", "unused"]

# One-hot columns a categorical column may grow into; rarer categories share the last one.
MAX_CATEGORIES = 30
# From this share of numbers (or dates) on, the column's other cells are taken for errors.
_MEANT = 0.95
_LARGEST = 1e150  # its square is a float64, also summed over all rows
_FEW = 200  # different cells on which formats of dates are tried before all cells are read
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%d %b %Y", "%b %d, %Y")
_TIMES = ("%H:%M", "%H:%M:%S")
_DATE_FORMATS = ("ISO8601", *_DAYS, *(f"{day} {time}" for day in _DAYS for time in _TIMES), *_TIMES)
# Formats of numbers such as $1,234.50 and 1.234,50 EUR, without the signs of money and percent.
_WRITTEN = {
    "point": re.compile(r"[-+]?([1-9]\d{0,2}(,\d{3})+|\d+)?(\.\d+)?"),
    "comma": re.compile(r"[-+]?([1-9]\d{0,2}(\.\d{3})+|\d+)?(,\d+)?"),
}
_SIGNS = re.compile(r"^(?:[$€£¥]|EUR|USD|GBP)\s*|\s*(?:[$€£¥%]|EUR|USD|GBP)$|(?<=\d)[\s'](?=\d{3})")
_ROW_NUMBER = re.compile(r"(?i:(^|[_ ])(id|idx|index|key|no|nr|row|number|uuid|unnamed: 0)$)|[a-z](ID|Id)$|^column 1$")
# Labels with more different numbers than this may be a quantity, unless each one occurs _OFTEN times on average.
_MANY, _OFTEN = 20, 50


@dataclass(frozen=True)
class Column:
    """The way in which a column becomes inputs: decided on the training rows and applied to all rows."""

    name: str
    kind: Kind
    spelling: str | None = None
    note: str | None = None


def infer(values: pd.Series, name: str, where: str, categorical: bool = False) -> Column:
    """Return the kind of a column, judged by its cells unless the user has declared it ``categorical``.

    Raises:
        UserError: infinite numbers, or a column of numbers (dates) in which a few cells are something else.
    """
    if categorical or isinstance(values.dtype, pd.CategoricalDtype):
        return _category(texts(values), name, wanted=True)
    if types.is_numeric_dtype(values.dtype):
        return _number(_numbers(values, name, where), name)
    dated = types.is_datetime64_any_dtype(values.dtype) or types.is_timedelta64_dtype(values.dtype)
    if dated and values.notna().any():
        return Column(name, "date", note=f"column {name!r} holds dates or times: used as a number of days")
    return _from_text(texts(values), name, where)


def convert(values: pd.Series, column: Column, where: str) -> pd.Series:
    """Return cells as float64 (numbers; dates in days since 1970) or text (categories), with NaN where missing.

    Raises:
        UserError: a cell that doesn't fit the column's kind.
    """
    if column.kind == "category":
        return texts(values)
    if column.kind == "number":
        return pd.Series(_numbers(values, column.name, where, column.spelling), index=values.index)
    if types.is_timedelta64_dtype(values.dtype):
        return pd.Series(values.dt.total_seconds() / 86400)
    cells = values if types.is_datetime64_any_dtype(values.dtype) else texts(values)
    dates = _dates(cells, column.spelling or "ISO8601")
    _refuse_others(cells, dates.isna().to_numpy(), column.name, where, "dates")
    known = dates.to_numpy(dtype="datetime64[us]")  # nanoseconds end in 1677 and 2262
    return pd.Series(np.where(np.isnat(known), np.nan, known.astype(np.int64) / 86400e6), index=values.index)


def texts(values: pd.Series, missing: Collection[str] = MISSING) -> pd.Series:
    """Return cells as text without surrounding spaces or a whole float's ``.0``; words for "missing" become NaN."""
    spell = "{:.15g}".format if types.is_float_dtype(values.dtype) else str
    text = values.map(spell, na_action="ignore").astype("object").str.strip()
    return text.mask(text.isna() | text.isin(list(missing)), np.nan)


def _from_text(text: pd.Series, name: str, where: str) -> Column:
    known = text.dropna()
    if known.empty:
        return _unused(name, "is empty")
    if known.str.match(r"(\[.*\]|\{.*\}|\(.*,.*\))$").all():  # [10-20) and (0, 1] are ranges
        return _unused(name, "holds lists or records, not single values")
    share = float(pd.to_numeric(known, errors="coerce").notna().mean())
    if share < 1:
        for spelling in _WRITTEN:
            read = _written(known, spelling)
            if read.notna().all():
                note = f"column {name!r} is read as numbers: {_shown(known.iloc[0])} is {read.iloc[0]:.15g}"
                return replace(_number(_numbers(text, name, where, spelling), name), spelling=spelling, note=note)
    if share >= _MEANT:
        return _number(_numbers(text, name, where), name)
    few = known.drop_duplicates().head(_FEW)
    likely = [form for form in _DATE_FORMATS if _dates(few, form).isna().mean() <= 1 - _MEANT]
    failures = {form: _dates(known, form).isna() for form in likely}
    best = min(likely, key=lambda form: failures[form].sum(), default=None)
    if best is None or failures[best].mean() > 1 - _MEANT:
        return _category(text, name, wanted=False)
    _refuse_others(known, failures[best].to_numpy(), name, where, "dates")
    shown = "dates" if best == "ISO8601" else f"dates ({best})"
    return Column(name, "date", best, f"column {name!r} holds {shown}: used as a number of days")


def _unused(name: str, why: str) -> Column:
    return Column(name, "unused", note=f"column {name!r} {why}: left out")


def _number(numbers: NDArray[np.float64], name: str) -> Column:
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return _unused(name, "is empty")
    if (known == known[0]).all() and len(known) == len(numbers):
        return _unused(name, "has the same value in every row")
    whole = len(known) == len(numbers) >= 20 and bool((known == np.floor(known)).all())
    numbered = whole and len(set(known)) == len(known) and (_ROW_NUMBER.search(name) or (np.diff(known) == 1).all())
    note = f"column {name!r} looks like an identifier of the row; if it is, use --drop {name!r}" if numbered else None
    return Column(name, "number", note=note)


def _category(text: pd.Series, name: str, wanted: bool) -> Column:
    known = text.dropna()
    distinct = known.nunique()
    if not distinct:
        return _unused(name, "is empty")
    if distinct == 1 and len(known) == len(text):
        return _unused(name, "has the same value in every row")
    if not wanted and distinct > max(MAX_CATEGORIES, len(known) // 2):
        counts = f"{distinct} different texts in {count(len(known), 'row')}, such as {_shown(known.iloc[0])}"
        return _unused(name, f"is free text or an identifier ({counts})")
    note = None
    if distinct > MAX_CATEGORIES:
        note = f"column {name!r} has {distinct} categories: the {MAX_CATEGORIES - 1} most frequent are kept apart"
    return Column(name, "category", note=note)


def _written(text: pd.Series, spelling: str) -> pd.Series:
    """Return cells in a human format as numbers, NaN where a cell isn't one."""
    thousands, point = (",", ".") if spelling == "point" else (".", ",")

    def read(cell: str) -> float:
        bare = _SIGNS.sub("", cell)
        if not _WRITTEN[spelling].fullmatch(bare) or not any(map(str.isdigit, bare)):
            return np.nan
        return float(bare.replace(thousands, "").replace(point, "."))

    return text.map({cell: read(cell) for cell in text.dropna().unique()}).astype("float64")


def _numbers(values: pd.Series, name: str, where: str, spelling: str | None = None) -> NDArray[np.float64]:
    if types.is_complex_dtype(values.dtype):
        raise UserError(f"{where}: column {name!r} holds complex numbers; split them into two columns")
    if not types.is_numeric_dtype(values.dtype):
        values = values.convert_dtypes()  # yes, no and missing are numbers where the training rows miss none
    if types.is_numeric_dtype(values.dtype):
        numbers = np.asarray(values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    else:
        text = texts(values)
        read = pd.to_numeric(text, errors="coerce")
        if spelling and not read.isna().equals(text.isna()):
            read = _written(text, spelling)
        numbers = np.asarray(read, dtype=np.float64)
        _refuse_others(text, np.isnan(numbers), name, where, "numbers")
    large = np.abs(numbers) > _LARGEST
    if large.any():
        raise UserError(
            f"{where}: column {name!r} has {count(int(large.sum()), 'infinite or huge number')} (first: "
            f"{numbers[large][0]:g} in row {int(values.index[large][0]) + 1}); correct or empty it, or --drop {name!r}"
        )
    return numbers


def _refuse_others(text: pd.Series, failed: NDArray[np.bool_], name: str, where: str, expected: str) -> None:
    wrong = text[failed & text.notna()]
    if len(wrong):
        raise UserError(
            f"{where}: column {name!r} holds {expected}, but {count(len(wrong), 'cell')} can't be read as such "
            f"(first: {_shown(wrong.iloc[0])} in row {int(wrong.index[0]) + 1}); correct or empty it, or use "
            f"--categorical {name!r}"
        )


def _dates(cells: pd.Series, date_format: str) -> pd.Series:
    return pd.to_datetime(cells, errors="coerce", format=date_format, utc=True).dt.tz_convert(None)


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


class Rare(NamedTuple):
    """What becomes of classes with fewer rows than ``least``: they are merged into one, or left out."""

    least: int
    merge: bool


def without_rare(tables: list[Rows], rare: Rare | None) -> list[Rows]:
    """Return the tables without the classes that are rare in the first one, which is to learn from.

    Raises:
        UserError: every class is rare.
    """
    if rare is None:
        return tables
    labels = [texts(rows.labels, MISSING_LABEL) for rows in tables]
    if pd.to_numeric(labels[0], errors="coerce").notna().equals(labels[0].notna()):
        labels = [_as_one(text) for text in labels]
    counts = labels[0].value_counts()
    few = sorted(counts.index[counts < rare.least])
    if not few:
        return tables
    where, option = tables[0].where_labels, "--merge-rare" if rare.merge else "--drop-rare"
    if len(few) == len(counts):
        raise UserError(f"{where}: every class has fewer than {rare.least} rows; lower {option}")
    merged = "other" if "other" not in counts else "(other)"
    fate = f"merged into {merged!r}" if rare.merge else "left out"
    note = f"{count(len(few), 'class')} with fewer than {rare.least} rows {fate}: {listed(few)}"
    left = []
    for rows, text in zip(tables, labels, strict=True):
        hit = text.isin(few)
        if rare.merge:
            changed = replace(rows, labels=text.mask(hit, merged))
        else:
            changed = replace(rows, frame=rows.frame[~hit], labels=rows.labels[~hit])
        left.append(changed)
    return [replace(left[0], notes=(*left[0].notes, note)), *left[1:]]


def labelled(
    tables: Sequence[Rows], numbers_are_names: bool
) -> tuple[tuple[str, ...], list[tuple[pd.DataFrame, NDArray[np.int64]]], list[str]]:
    """Return the classes, the rows that have a label with their class numbers, (rows,), and notes.

    Args:
        tables: The rows to learn from, whose classes count, and, if they are fixed, the test rows.
        numbers_are_names: Whether the user has declared that numbers in the label column are names of classes.

    Returns:
        The names of the classes in the order of their numbers: numbers sorted as numbers, everything else as text; the
        rows, as ``tables`` has them; and decisions while reading.

    Raises:
        UserError: no labels, one class, a class with too few rows for a split, or a quantity instead of classes; test
            rows without a label, or with one that the others don't have.
    """
    learn, *tests = tables
    notes = [*learn.notes, *(f"{Path(test.where).name}: {note}" for test in tests for note in test.notes)]
    text = texts(learn.labels, MISSING_LABEL)
    known = text.dropna()
    if known.empty:
        raise UserError(f"{learn.where_labels}: every cell is empty; a class for each row is needed")
    numbers = pd.to_numeric(known, errors="coerce")
    numeric = bool(numbers.notna().all())
    if numeric and np.isinf(numbers).any():
        raise UserError(f"{learn.where_labels}: has infinite values; correct them or leave them empty")
    rows_of = Counter(_as_one(known) if numeric else known)
    classes = tuple(sorted(rows_of, key=lambda name: (float(name), name)) if numeric else sorted(rows_of))
    counts = np.array([rows_of[name] for name in classes])
    least = 2 if tests else 3  # rows of a class, one for each part that is drawn
    if numeric and not numbers_are_names:
        _refuse_quantity(np.array(classes, dtype=np.float64), counts, learn.where_labels, least)
    _refuse_small(classes, counts, learn.where_labels, least)
    if missing := len(text) - len(known):
        notes.append(f"{count(missing, 'row')} without a label left out")
    folded = Counter(name.casefold() for name in classes)
    similar = [name for name in classes if folded[name.casefold()] > 1]
    if similar:
        notes.append(f"some classes differ in upper and lower case only ({similar[0]!r}): kept apart")
    codes = [_numbered(rows, classes, numeric) for rows in tables]
    for test, own in zip(tests, codes[1:], strict=True):
        if (own < 0).all():
            raise UserError(f"{test.where}: no row has a label; the test rows need theirs to be scored")
        if (own < 0).any():
            notes.append(f"{test.where}: {count(int((own < 0).sum()), 'row')} without a label left out")
    parts = [(rows.frame[own >= 0], own[own >= 0]) for rows, own in zip(tables, codes, strict=True)]
    return classes, parts, notes


def _as_one(text: pd.Series) -> pd.Series:
    """Return labels with one spelling for equal numbers, 1 and 1.0; numbers of 16 and more digits stay as they are."""
    numbers = pd.to_numeric(text, errors="coerce")
    long = numbers.isna() | (numbers.abs() >= 1e15)
    return text.where(long, (numbers + 0.0).map("{:.15g}".format, na_action="ignore"))


def _numbered(rows: Rows, classes: Sequence[str], numeric: bool) -> NDArray[np.int64]:
    """Return the class numbers of rows, -1 where the label is missing."""
    text = texts(rows.labels, MISSING_LABEL)
    text = _as_one(text) if numeric else text
    codes = text.map({name: code for code, name in enumerate(classes)})
    unknown = np.flatnonzero(text.notna() & codes.isna())
    if len(unknown):
        row = rows.labels.index[unknown[0]]
        raise UserError(
            f"{rows.where}: label {str(rows.labels[row]).strip()!r} (row {row + 1}) doesn't occur in the training "
            "data; remove these rows or add such rows to the training data"
        )
    return np.asarray(codes.fillna(-1), dtype=np.int64)


def _refuse_quantity(names: NDArray[np.float64], counts: NDArray[np.int64], where: str, least: int) -> None:
    fractions = bool((names != np.floor(names)).any())
    if len(names) > _MANY and (fractions or counts.min() < least or counts.mean() < _OFTEN):
        raise UserError(
            f"{where}: {len(names)} different numbers from {names[0]:.6g} to {names[-1]:.6g} look like a quantity, not "
            "classes: choose a column of classes, cut this one into ranges, or say that they are names: --categorical"
        )


def _refuse_small(classes: Sequence[str], counts: NDArray[np.int64], where: str, least: int) -> None:
    if len(classes) == 1:
        raise UserError(f"{where}: every row has class {classes[0]!r}; at least two classes are needed")
    small = np.flatnonzero(counts < least)
    if len(small):
        others = f" ({len(small)} classes are that small)" if len(small) > 1 else ""
        raise UserError(
            f"{where}: class {classes[small[0]]!r} has {count(counts[small[0]], 'row')}, the split needs at least "
            f"{least}{others}; add rows, or --merge-rare {least} or --drop-rare {least}"
        )
