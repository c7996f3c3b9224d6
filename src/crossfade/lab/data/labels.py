"""The label column: from cells to class numbers, and why some columns can't be one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.data.columns import texts
from crossfade.lab.data.reading import MISSING_LABEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

# More different numbers than this and the column may be a quantity.
_MANY = 20
_ROWS = 50  # unless each of them is there this often


@dataclass(frozen=True, eq=False)
class Labels:
    """Class numbers of rows: ``codes`` (-1 where the label is missing) count in ``classes``, which are sorted."""

    codes: NDArray[np.int64]
    classes: tuple[str, ...]
    numeric: bool
    notes: tuple[str, ...] = ()


def read_labels(values: pd.Series, where: str, least: int, numbers_are_names: bool = False) -> Labels:
    """Encode a label column; numbers are sorted as numbers, everything else as text.

    Args:
        values: The cells.
        where: Its name in messages, such as ``"data.csv: target 'species'"``.
        least: Rows a class needs so that every part of a split can get one.
        numbers_are_names: The user says that many different numbers are classes nevertheless.

    Raises:
        UserError: no labels, one class, a class with too few rows, or a quantity instead of classes.
    """
    text = texts(values, MISSING_LABEL)
    known = text.dropna()
    if known.empty:
        raise UserError(f"{where}: every cell is empty; a class for each row is needed")
    numbers = pd.to_numeric(known, errors="coerce")
    numeric = bool(numbers.notna().all())
    if numeric and np.isinf(numbers).any():
        raise UserError(f"{where}: has infinite values; correct them or leave them empty")
    names, counts = np.unique(numbers if numeric else known.astype(str), return_counts=True)
    if numeric and not numbers_are_names:
        _refuse_quantity(names, counts, where, least)
    classes = tuple(f"{name:.15g}" if numeric else str(name) for name in names)
    _refuse_small(classes, counts, where, least)
    missing = len(text) - len(known)
    notes = [f"{missing} rows without a label are left out"] if missing else []
    folded = [name.casefold() for name in classes]
    if len(set(folded)) < len(folded):
        twins = next(name for name in classes if folded.count(name.casefold()) > 1)
        notes.append(f"some classes differ in upper and lower case only ({twins!r}): kept apart")
    return Labels(_encode(values, classes, numeric), classes, numeric, tuple(notes))


def encode_test(values: pd.Series, known: Labels, where: str) -> NDArray[np.int64]:
    """Return the class numbers of test rows, by the classes of the training data; -1 where the cell is empty.

    Raises:
        UserError: a label that the training data doesn't have.
    """
    codes = _encode(values, known.classes, known.numeric)
    strange = np.flatnonzero(codes == -2)
    if len(strange):
        row = values.index[strange[0]]
        raise UserError(
            f"{where}: label {str(values[row]).strip()!r} (row {row + 1}) doesn't occur in the training data; remove "
            "these rows or add such rows to the training data"
        )
    return codes


def _encode(values: pd.Series, classes: tuple[str, ...], numeric: bool) -> NDArray[np.int64]:
    """Return the class numbers of cells, -1 where the cell is empty and -2 where it is none of ``classes``."""
    text = texts(values, MISSING_LABEL)
    if numeric:
        numbers = pd.to_numeric(text, errors="coerce")
        text = text.where(numbers.isna(), numbers.map(lambda value: f"{value:.15g}", na_action="ignore"))
    place = {name: code for code, name in enumerate(classes)}
    codes = text.map(lambda cell: place.get(cell, -2), na_action="ignore")
    return codes.fillna(-1).to_numpy(dtype=np.int64)


def _refuse_quantity(names: NDArray[np.float64], counts: NDArray[np.int64], where: str, least: int) -> None:
    fractions = bool((names != np.floor(names)).any())
    if len(names) > _MANY and (fractions or counts.min() < least or counts.mean() < _ROWS):
        raise UserError(
            f"{where}: {len(names)} different numbers from {names[0]:.6g} to {names[-1]:.6g} look like a quantity, not "
            "classes: choose a column of classes, cut this one into ranges, or say that they are names: --categorical"
        )


def _refuse_small(classes: tuple[str, ...], counts: NDArray[np.int64], where: str, least: int) -> None:
    if len(classes) == 1:
        raise UserError(f"{where}: every row has class {classes[0]!r}; at least two classes are needed")
    small = np.flatnonzero(counts < least)
    if len(small):
        first = small[0]
        others = f" ({len(small)} classes are that small)" if len(small) > 1 else ""
        rows = "1 row" if counts[first] == 1 else f"{counts[first]} rows"
        raise UserError(
            f"{where}: class {classes[first]!r} has {rows}, the split needs at least {least}{others}; "
            "add rows, or merge or remove the class"
        )
