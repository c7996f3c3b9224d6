"""What a column holds: numbers, dates, categories, or nothing that a network can use."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.data.reading import MISSING

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["number", "date", "category", "unused"]

# One-hot columns a categorical column may grow into; rarer categories share the last one.
MAX_CATEGORIES = 30
# From this share on, a column is meant to be numbers (dates) and the rest of its cells are surprises.
_MEANT = 0.95
_FEW = 200  # different cells that decide which spellings of a date are worth a look at all cells
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%d %b %Y", "%b %d, %Y")
_TIMES = ("%H:%M", "%H:%M:%S")
_DATE_FORMATS = ("ISO8601", *_DAYS, *(f"{day} {time}" for day in _DAYS for time in _TIMES), *_TIMES)
# $1,234.50 and 1.234,50 EUR are numbers too. Signs of money and percent are cut off before these are tried.
_WRITTEN = {
    "point": re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?"),
    "comma": re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d+)?(,\d+)?"),
}
_SIGNS = re.compile(r"^(?:[$€£¥]|EUR|USD|GBP)\s*|\s*(?:[$€£¥%]|EUR|USD|GBP)$|(?<=\d)[\s'](?=\d{3})")
_ROW_NUMBER = re.compile(r"(?i:(^|[_ ])(id|idx|index|key|no|nr|row|number|uuid|unnamed: 0)$)|[a-z](ID|Id)$|^column 1$")


@dataclass(frozen=True)
class Column:
    """How one column becomes inputs; decided on the training file and applied to every other."""

    name: str
    kind: Kind
    spelling: str | None = None
    note: str | None = None


def infer(values: pd.Series, name: str, where: str, categorical: bool = False) -> Column:
    """Decide what a column holds.

    Args:
        values: The column's cells.
        name: Its name, for messages.
        where: The file's or argument's name, for messages.
        categorical: The user says these are categories.

    Raises:
        UserError: infinite numbers, or a column of numbers (dates) in which a few cells are something else.
    """
    if values.isna().all():
        return Column(name, "unused", note=f"column {name!r} is empty: left out")
    if categorical or isinstance(values.dtype, pd.CategoricalDtype):
        return _category(texts(values), name, wanted=True)
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_numeric_dtype(values.dtype):
        return _number(_numbers(values, name, where), name)
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        return Column(name, "date", note=f"column {name!r} holds dates or times: used as a number of days")
    return _from_text(texts(values), name, where)


def convert(values: pd.Series, column: Column, where: str) -> pd.Series:
    """Return cells as float64 (numbers; dates in days since 1970) or text (categories), with NaN where missing.

    Raises:
        UserError: a cell that doesn't fit what the column holds.
    """
    if column.kind == "category":
        return texts(values)
    if column.kind == "number":
        return pd.Series(_numbers(values, column.name, where, column.spelling), index=values.index)
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        return pd.Series(values.dt.total_seconds() / 86400)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        dates = values
    else:
        text = texts(values)
        dates = _dates(text, column.spelling or "ISO8601")
        _no_surprise(text, dates.isna().to_numpy(), column.name, where, "dates")
    naive = dates.dt.tz_convert(None) if getattr(dates.dtype, "tz", None) is not None else dates
    seconds = naive.to_numpy(dtype="datetime64[s]")  # nanoseconds end in 1677 and 2262
    return pd.Series(np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64) / 86400), index=values.index)


def texts(values: pd.Series, missing: Collection[str] = MISSING) -> pd.Series:
    """Return cells as text, without spaces around it and a whole float's ``.0``; words for "missing" become NaN."""
    if pd.api.types.is_float_dtype(values.dtype):
        text = values.map(lambda value: f"{value:.15g}", na_action="ignore")
    else:
        text = values.map(str, na_action="ignore")
    text = text.astype("object").str.strip()
    return text.mask(text.isna() | text.isin(list(missing)), np.nan)


def _from_text(text: pd.Series, name: str, where: str) -> Column:
    known = text.dropna()
    if known.empty:
        return Column(name, "unused", note=f"column {name!r} is empty: left out")
    if known.str.match(r"[\[{(].*[\]})]$").all():
        return Column(name, "unused", note=f"column {name!r} holds lists or records, not single values: left out")
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
    for date_format in _DATE_FORMATS:
        if _dates(few, date_format).isna().mean() > 1 - _MEANT:
            continue
        failed = _dates(known, date_format).isna()
        if not failed.any():
            shown = "dates" if date_format == "ISO8601" else f"dates ({date_format})"
            return Column(name, "date", date_format, f"column {name!r} holds {shown}: used as a number of days")
        if failed.mean() <= 1 - _MEANT:
            _no_surprise(known, failed.to_numpy(), name, where, "dates")
    return _category(text, name, wanted=False)


def _number(numbers: NDArray[np.float64], name: str) -> Column:
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return Column(name, "unused", note=f"column {name!r} is empty: left out")
    if (known == known[0]).all() and len(known) == len(numbers):
        return Column(name, "unused", note=f"column {name!r} has the same value in every row: left out")
    whole = len(known) == len(numbers) >= 20 and bool((known == np.floor(known)).all())
    if whole and len(np.unique(known)) == len(known) and (_ROW_NUMBER.search(name) or (np.diff(known) == 1).all()):
        return Column(
            name, "number", note=f"column {name!r} looks like an identifier of the row; if it is, use --drop {name!r}"
        )
    return Column(name, "number")


def _category(text: pd.Series, name: str, wanted: bool) -> Column:
    known = text.dropna()
    different = known.nunique()
    if different == 1 and len(known) == len(text):
        return Column(name, "unused", note=f"column {name!r} has the same value in every row: left out")
    if not wanted and different > max(MAX_CATEGORIES, len(known) // 2):
        return Column(
            name,
            "unused",
            note=f"column {name!r} is free text or an identifier ({different} different texts in {len(known)} rows, "
            f"such as {_shown(known.iloc[0])}): left out",
        )
    note = None
    if different > MAX_CATEGORIES:
        note = f"column {name!r} has {different} categories: the {MAX_CATEGORIES - 1} most frequent are kept apart"
    return Column(name, "category", note=note)


def _written(text: pd.Series, spelling: str) -> pd.Series:
    """Return numbers as people write them, NaN where a cell is none."""
    thousands, point = (",", ".") if spelling == "point" else (".", ",")

    def read(cell: str) -> float:
        bare = _SIGNS.sub("", cell)
        if not _WRITTEN[spelling].fullmatch(bare) or not any(map(str.isdigit, bare)):
            return np.nan
        return float(bare.replace(thousands, "").replace(point, "."))

    return text.map({cell: read(cell) for cell in text.dropna().unique()}).astype("float64")


def _numbers(values: pd.Series, name: str, where: str, spelling: str | None = None) -> NDArray[np.float64]:
    if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        if pd.api.types.is_complex_dtype(values.dtype):
            raise UserError(f"{where}: column {name!r} holds complex numbers; split them into two columns")
        numbers = np.asarray(values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    else:
        text = texts(values)
        read = pd.to_numeric(text, errors="coerce") if spelling is None else _written(text, spelling)
        numbers = np.asarray(read, dtype=np.float64)
        _no_surprise(text, np.isnan(numbers), name, where, "numbers")
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise UserError(
            f"{where}: column {name!r} has {_count(len(infinite), 'infinite value')} (first in row {infinite[0] + 1}); "
            "correct it, or leave it empty for missing"
        )
    return numbers


def _no_surprise(text: pd.Series, failed: NDArray[np.bool_], name: str, where: str, expected: str) -> None:
    wrong = np.flatnonzero(failed & text.notna().to_numpy())
    if len(wrong):
        row = text.index[wrong[0]]
        raise UserError(
            f"{where}: column {name!r} holds {expected}, but {_count(len(wrong), 'cell')} can't be read as such "
            f"(first: {_shown(text.iloc[wrong[0]])} in row {int(row) + 1}); correct or empty it, or use "
            f"--categorical {name!r}"
        )


def _dates(text: pd.Series, date_format: str) -> pd.Series:
    dates = pd.to_datetime(text, errors="coerce", format=date_format, utc=True)
    return dates.dt.tz_convert(None)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def check_names(wanted: Collection[str], columns: Collection[str], option: str, where: str) -> None:
    """Raise a UserError that names the nearest column for the first of ``wanted`` that isn't among ``columns``."""
    import difflib

    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.6)
            listed = ", ".join(list(columns)[:12]) + (", ..." if len(columns) > 12 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"columns: {listed}"
            raise UserError(f"{where}: {option} {name!r} is no column ({hint})")
