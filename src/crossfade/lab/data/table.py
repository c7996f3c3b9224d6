"""A table ready to be split: features with known kinds, class numbers, and what was decided on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.lab.data.columns import Column, check_names, convert, infer
from crossfade.lab.data.labels import Labels, encode_test, read_labels
from crossfade.lab.data.reading import read_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUILTIN = ("iris", "wine", "breast_cancer", "digits")  # real sets that ship with scikit-learn


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to learn from, and ``test`` rows where the user fixed them.

    Attributes:
        features: float64 columns (numbers, dates) and text columns (categories), NaN where missing.
        labels: Class number of each row.
        columns: What each feature column holds.
        test: Features and class numbers of the fixed test rows, or None.
        notes: Decisions the user should know, one line each.
        sha256: Of the file's bytes, or of the converted values where there is no file.
    """

    name: str
    source: str
    features: pd.DataFrame
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    test: tuple[pd.DataFrame, NDArray[np.int64]] | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""


def from_file(
    path: Path,
    target: str,
    *,
    test: Path | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Table:
    """Read a table and, if given, its fixed test rows.

    Raises:
        UserError: whatever can't be used, as one line.
    """
    raw = read_frame(path, target)
    frames = [_parts(raw.frame, target, str(path))]
    notes = [*raw.notes]
    if test is not None:
        other = read_frame(test, target)
        frames.append(_parts(other.frame, target, str(test)))
        notes += [f"{test.name}: {note}" for note in other.notes]
    return from_frame(
        *frames[0],
        name=path.name.split(".")[0] or path.name,
        source=path.name,
        where=str(path),
        where_labels=f"{path}: target {target!r}",
        target=target,
        test=frames[1] if test is not None else None,
        test_where=str(test),
        categorical=categorical,
        drop=drop,
        notes=notes,
        sha256=_file_digest(path),
    )


def from_arrays(
    X: Any,
    y: Any,
    *,
    name: str = "data",
    test: tuple[Any, Any] | None = None,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Table:
    """Return the table of NumPy arrays or pandas objects, by the same rules as a file's."""
    features, labels = as_frame(X, "X"), as_labels(y, "y", _rows(X))
    held = None
    if test is not None:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise UserError(f"test: expected a pair (X_test, y_test), got {type(test).__name__}")
        held = as_frame(test[0], "X_test"), as_labels(test[1], "y_test", _rows(test[0]))
    return from_frame(
        features,
        labels,
        name=name,
        source="Python",
        where="X",
        where_labels="y",
        target="y",
        test=held,
        test_where="X_test",
        categorical=categorical,
        drop=drop,
    )


def load_builtin(name: str) -> Table:
    """Return one of ``BUILTIN``; raises KeyError for another name."""
    from sklearn import datasets

    if name not in BUILTIN:
        raise KeyError(name)
    bunch, source = getattr(datasets, f"load_{name}")(as_frame=True), f"scikit-learn load_{name}"
    table = from_frame(
        bunch.data, bunch.target, name=name, source=source, where=name, where_labels=f"{name}: target", target="target"
    )
    return replace(table, notes=())  # three pixels of the digits are always off: known, and nothing to act on


def from_frame(
    frame: pd.DataFrame,
    labels: pd.Series,
    *,
    name: str,
    source: str,
    where: str,
    where_labels: str,
    target: str,
    test: tuple[pd.DataFrame, pd.Series] | None = None,
    test_where: str = "",
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    notes: Sequence[str] = (),
    sha256: str = "",
) -> Table:
    """Infer each column's kind from the training rows, convert the cells and encode the labels.

    Args:
        frame, labels: The rows to learn from.
        name, source: As in ``Table``.
        where, where_labels, test_where: What messages call the rows, their labels and the test rows.
        target: The name of the labels; ``categorical`` may hold it, too, and then numbers are names of classes.
        test: The test rows, where they are fixed.
        categorical, drop: Names of columns.
        notes, sha256: As in ``Table``, so far as they are known.
    """
    categories = [column for column in categorical if column != target]
    check_names(categories, list(frame.columns), "--categorical", where)
    check_names(drop, list(frame.columns), "--drop", where)
    known = read_labels(labels, where_labels, 3 if test is None else 2, target in categorical)
    keep = known.codes >= 0
    frame = frame.drop(columns=list(drop)).loc[keep]
    columns = [infer(frame[column], column, where, column in categories) for column in frame.columns]
    used = tuple(column for column in columns if column.kind != "unused")
    said = [*notes, *known.notes, *(column.note for column in columns if column.note)]
    if not used:
        raise UserError(f"{where}: no column is left to learn from ({'; '.join(said) or 'only the target'})")
    features = _converted(frame, used, where)
    codes = known.codes[keep]
    held = None if test is None else _test_part(*test, used, known, test_where, said)
    twice = int(features.assign(label=codes).duplicated().sum())
    if twice > len(features) // 100:
        said.append(
            f"{twice} of {len(features)} rows repeat an earlier row: copies may fall into training and test parts"
        )
    table = Table(name, source, features, codes, known.classes, used, held, tuple(said))
    return replace(table, sha256=sha256 or content_digest(table))


def content_digest(table: Table) -> str:
    """Return the SHA-256 of the values that training will see, the same for a CSV, a Parquet file and a data frame."""
    hashed = hashlib.sha256(repr((table.classes, [(c.name, c.kind) for c in table.columns])).encode())
    for features, codes in [(table.features, table.labels), *([table.test] if table.test else [])]:
        hashed.update(codes.tobytes())
        for column in table.columns:
            cells = features[column.name]
            if column.kind == "category":
                hashed.update("\x1f".join(cells.fillna("\x00")).encode())
            else:
                hashed.update(np.where(np.isnan(values := cells.to_numpy()), np.nan, values + 0.0).tobytes())
    return hashed.hexdigest()


def _converted(frame: pd.DataFrame, used: Sequence[Column], where: str) -> pd.DataFrame:
    columns = {column.name: convert(frame[column.name], column, where) for column in used}
    return pd.DataFrame(columns).reset_index(drop=True)


def _test_part(
    frame: pd.DataFrame, labels: pd.Series, used: Sequence[Column], known: Labels, where: str, notes: list[str]
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    absent = [column.name for column in used if column.name not in frame.columns]
    if absent:
        raise UserError(f"{where}: no column {absent[0]!r}, which the training data has ({len(absent)} missing)")
    codes = encode_test(labels, known, where)
    keep = codes >= 0
    if not keep.any():
        raise UserError(f"{where}: no row has a label; the test rows need theirs to be scored")
    if not keep.all():
        notes.append(f"{where}: {int((~keep).sum())} rows without a label are left out")
    return _converted(frame.loc[keep], used, where), codes[keep]


def _parts(frame: pd.DataFrame, target: str, where: str) -> tuple[pd.DataFrame, pd.Series]:
    check_names([target], list(frame.columns), "--target", where)
    return frame.drop(columns=target), frame[target]


def as_frame(X: Any, name: str) -> pd.DataFrame:
    """Return an array or a data frame as a data frame whose columns have different names.

    Raises:
        UserError: no table, sparse, or empty.
    """
    if hasattr(X, "tocsr"):
        raise UserError(f"{name}: sparse matrices aren't read; pass {name}.toarray()")
    if isinstance(X, pd.DataFrame):
        names = [" ".join(map(str, column)) if isinstance(column, tuple) else str(column) for column in X.columns]
        twice = next((label for label in names if names.count(label) > 1), None)
        if twice is not None:
            raise UserError(f"{name}: two columns are called {twice!r}; rename one")
        frame = X.set_axis(names, axis=1)
    else:
        values = np.asarray(X)
        if values.ndim != 2:
            raise UserError(f"{name}: expected a table (rows, features), got shape {values.shape}")
        frame = pd.DataFrame(values, columns=[f"x{place}" for place in range(values.shape[1])])
    if not frame.shape[0] or not frame.shape[1]:
        raise UserError(f"{name}: expected at least one row and one feature, got shape {frame.shape}")
    return frame.reset_index(drop=True)


def as_labels(y: Any, name: str, rows: int) -> pd.Series:
    """Return labels, one for each of so many rows.

    Raises:
        UserError: another shape.
    """
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if not isinstance(y, pd.Series):
        values = np.asarray(y)
        if values.ndim != 1:
            raise UserError(f"{name}: expected one class a row, shape ({rows},), got shape {values.shape}")
        y = pd.Series(values)
    if len(y) != rows:
        raise UserError(f"{name}: has {len(y)} labels for {rows} rows; they must be as many")
    return pd.Series(y.reset_index(drop=True))


def _rows(X: Any) -> int:
    return int(np.shape(X)[0]) if np.ndim(X) else 0


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
