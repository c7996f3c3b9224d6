"""From a long frame of results to a block × method matrix, refusing whatever would make a test lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd

from crossfade.errors import UserError


def listed(items: Iterable[object], limit: int = 8) -> str:
    """``a, b, c and 4 more``: enough names to act on, never a screenful."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def known(name: str, choices: Sequence[str], what: str) -> str:
    """Return ``name`` if it is one of ``choices``; else raise with the nearest one."""
    if name in choices:
        return name
    near = get_close_matches(name, choices, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"{what} {name!r} not found among {listed(choices, 20)}{hint}")


def tidy(frame: pd.DataFrame, *, block: str, method: str, score: str, repeat: str | None = None) -> pd.DataFrame:
    """Scores as repeats × methods: index (block, repeat), a column a method, NaN where a cell is missing.

    Blocks, repeats and methods keep the order in which they first appear. Without ``repeat`` every block has one row.

    Raises:
        UserError: a column is missing or used twice, a label is missing, a score is not a finite number, or two rows
            have the same block, method and repeat.
    """
    keys = [block, method] if repeat is None else [block, method, repeat]
    columns = [str(column) for column in frame.columns]
    for name in [*keys, score]:
        known(name, columns, "column")
    if len({*keys, score}) < len(keys) + 1:
        raise UserError(f"block, method, repeat and score must be different columns, got {listed([*keys, score])}")
    if frame.empty:
        raise UserError("the results have no rows; at least two methods on one block are needed")
    for name in keys:
        if frame[name].isna().any():
            raise UserError(f"column {name!r} has {int(frame[name].isna().sum())} empty cells; every row needs a label")
    labels = frame[keys].astype({block: str, method: str})
    _check_unique(labels, repeat)
    long = labels.assign(**{score: _finite(frame[score], labels)})
    if repeat is None:
        repeat = "repeat" if "repeat" not in (block, method, score) else "_repeat"
        long[repeat] = 0
    wide = long.set_index([block, repeat, method])[score].unstack(method)
    rows = pd.MultiIndex.from_frame(long[[block, repeat]].drop_duplicates())
    return wide.reindex(index=rows, columns=pd.unique(long[method]))


def score_matrix(
    frame: pd.DataFrame,
    *,
    block: str = "dataset",
    method: str = "method",
    score: str = "accuracy",
    repeat: str | None = None,
) -> pd.DataFrame:
    """The complete block × method matrix that every rank test needs.

    Repeats are averaged inside their block before anything is ranked: a repeat is not a block (Demšar 2006, §3.2), and
    counting it as one would make every p-value too small.

    Args:
        frame: a row a result.
        block: column of the blocks, that is the data sets.
        method: column of the methods.
        score: column of the scores; any scale.
        repeat: column of the repeats (seeds, splits); ``None`` says there is one result a cell.

    Returns:
        Frame of float64, index blocks, columns methods, both in order of first appearance.

    Raises:
        UserError: see `tidy`; also a hole in the matrix (all are listed), or fewer than two blocks or two methods.

    Example:
        >>> import pandas as pd
        >>> cells = {"dataset": list("aabb"), "method": ["ce", "el"] * 2, "accuracy": [0.9, 0.8, 0.7, 0.6]}
        >>> frame = pd.DataFrame(cells)
        >>> score_matrix(frame).loc["b", "el"].item()
        0.6
    """
    wide = tidy(frame, block=block, method=method, score=score, repeat=repeat)
    require_complete(wide)
    matrix = wide.groupby(level=0, sort=False).mean()
    check_matrix(matrix)
    return matrix


def check_matrix(matrix: pd.DataFrame) -> None:
    """Raise `UserError` unless ``matrix`` is a complete, finite table of two or more blocks and two or more methods."""
    values = matrix.to_numpy(dtype=np.float64)
    if matrix.shape[1] < 2:
        raise UserError(f"only one method, {listed(matrix.columns)}: a comparison needs two or more")
    if matrix.shape[0] < 2:
        raise UserError(
            f"only one block, {listed(matrix.index)}: rank tests need two or more; "
            "repeats on a single data set are compared by compare_methods (crossfade compare)"
        )
    if not np.isfinite(values).all():
        where = [f"({matrix.index[i]}, {matrix.columns[j]})" for i, j in np.argwhere(~np.isfinite(values))]
        raise UserError(f"the matrix needs a finite score in every cell; missing or not finite: {listed(where)}")
    for labels, what in ((matrix.index, "block"), (matrix.columns, "method")):
        if labels.has_duplicates:
            raise UserError(f"{what} labels must be unique; repeated: {listed(labels[labels.duplicated()])}")


def by_dataset(wide: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The repeats × methods part of every block of a `tidy` frame."""
    return {str(block): part.droplevel(0) for block, part in wide.groupby(level=0, sort=False)}


def holes(wide: pd.DataFrame) -> list[str]:
    """The missing cells of a `tidy` frame, ``(block, method)`` when every repeat of the cell is missing."""
    found: list[str] = []
    for block, part in wide.isna().groupby(level=0, sort=False):
        for name in part.columns[part.any()]:
            gone = part.index[part[name]]
            if len(gone) == len(part):
                found.append(f"({block}, {name})")
            else:
                found += [f"({block}, {name}, repeat {index[-1]})" for index in gone]
    return found


def require_complete(wide: pd.DataFrame) -> None:
    """Raise `UserError` that lists the holes of a `tidy` frame."""
    missing = holes(wide)
    if missing:
        raise UserError(
            f"{len(missing)} results are missing: {listed(missing)}; finish the run, or leave out these blocks, "
            "methods or repeats (dropping them silently would change the answer)"
        )


def _check_unique(labels: pd.DataFrame, repeat: str | None) -> None:
    twice = labels.duplicated()
    if twice.any():
        cells = [f"({', '.join(str(value) for value in row)})" for row in labels[twice].drop_duplicates().to_numpy()]
        hint = (
            "if these are repeats, name their column (repeat=, --repeat)" if repeat is None else "keep one row for each"
        )
        raise UserError(f"{len(cells)} cells have more than one score: {listed(cells)}; {hint}")


def _finite(column: pd.Series[float], labels: pd.DataFrame) -> pd.Series[float]:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers.to_numpy())
    if bad.any():
        first = [
            f"{value!r} at ({', '.join(str(label) for label in row)})"
            for value, row in zip(column[bad].tolist(), labels[bad].to_numpy(), strict=True)
        ]
        raise UserError(f"column {column.name!r} must hold finite numbers; got {listed(first)}")
    return numbers
