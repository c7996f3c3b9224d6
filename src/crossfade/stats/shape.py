"""Checked scores: from a frame with a row a result to matrices that a test can be trusted with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.words import count, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

Hits: TypeAlias = "Mapping[tuple[str, str], NDArray[np.int8]]"


class Sizes(NamedTuple):
    """Rows of a data set's repeats (means over them), and whether every repeat is tested on the same rows."""

    n_train: float
    n_test: float
    fixed_test: bool


def check_fraction(name: str, value: float) -> None:
    """Raise a `UserError` unless ``value`` lies between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise UserError(f"{name} must lie between 0 and 1, got {value}")


def check_choice(name: str, value: str, *choices: str) -> None:
    """Raise a `UserError` unless ``value`` is one of a few ``choices``."""
    if value not in choices:
        raise UserError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def known(name: str, choices: Sequence[str], what: str) -> str:
    """Return ``name`` if it is one of ``choices``, or raise a `UserError` that names the nearest one."""
    if name in choices:
        return name
    near = get_close_matches(name, choices, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"{what} {name!r} not found among {listed(choices, 20)}{hint}")


def check_labels(frame: pd.DataFrame, labels: Sequence[str], score: str) -> None:
    """Raise a `UserError` unless ``frame`` has the columns, each of them once, and a label in every row."""
    names, columns = [*labels, score], [str(column) for column in frame.columns]
    for name in names:
        known(name, columns, "column")
    found = [name for name in columns if name in names]
    if len(found) != len(names):
        raise UserError(
            f"labels and score must be different columns, each once in the table; asked for {listed(names)}, found "
            f"{listed(found)}"
        )
    for name in labels:
        if empty := int(frame[name].isna().sum()):
            raise UserError(f"column {name!r} has {count(empty, 'empty cell')}; every row needs a label")


def tidy(frame: pd.DataFrame, *, block: str, method: str, score: str, repeat: str | None = None) -> pd.DataFrame:
    """Arrange scores as repeats × methods: index (block, repeat), a column a method, NaN where a cell is missing.

    Blocks, repeats and methods keep the order in which they first appear. Without ``repeat`` every block has one row.

    Raises:
        UserError: a column is missing or used twice, a label is missing, a score is not a finite number, or two rows
            have the same block, method and repeat.
    """
    keys = [block, method] if repeat is None else [block, method, repeat]
    check_labels(frame, keys, score)
    if frame.empty:
        raise UserError("the results have no rows; at least two methods on one block are needed")
    labels = frame[keys].astype({block: str, method: str})
    twice = labels[labels.duplicated()].drop_duplicates()
    if len(twice):
        hint = "keep one row for each" if repeat else "if these are repeats, name their column (repeat=, --repeat)"
        cells = listed(map(_cell, twice.to_numpy()))
        raise UserError(f"{count(len(twice), 'cell')} with more than one score: {cells}; {hint}")
    # As objects: a column of dates would be counted in nanoseconds.
    scores = pd.to_numeric(frame[score].astype(object), errors="coerce").astype(np.float64)
    bad = ~np.isfinite(scores)
    if bad.any():
        pairs = zip(frame.loc[bad, score].tolist(), labels[bad].to_numpy(), strict=True)
        found = listed(f"{value!r} at {_cell(row)}" for value, row in pairs)
        raise UserError(f"column {score!r} must hold finite numbers; got {found}")
    long = labels.assign(**{score: scores})
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
    """Return the complete block × method matrix that every rank test needs.

    Repeats are averaged inside their block before anything is ranked: a repeat is not a block (Demšar 2006, §3.2), and
    counting it as one would make every p-value too small.

    Args:
        frame: a row a result.
        block, method, score: columns of the blocks (data sets), of the methods and of the scores (any scale).
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
    wide, _ = complete_runs(tidy(frame, block=block, method=method, score=score, repeat=repeat), "error")
    matrix = wide.groupby(level=0, sort=False).mean()
    check_matrix(matrix)
    return matrix


def check_matrix(matrix: pd.DataFrame) -> None:
    """Raise a `UserError` unless ``matrix`` has a finite score in every cell, and two blocks and methods or more."""
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


def holes(wide: pd.DataFrame) -> list[str]:
    """List the missing cells of a `tidy` frame, as ``(block, method)`` where every repeat of the cell is missing."""
    found: list[str] = []
    for block, part in wide.isna().groupby(level=0, sort=False):
        for name in part.columns[part.any()]:
            gone = part.index[part[name]]
            if len(gone) == len(part):
                found.append(f"({block}, {name})")
            else:
                found += [f"({block}, {name}, repeat {index[-1]})" for index in gone]
    return found


def complete_runs(wide: pd.DataFrame, missing: str) -> tuple[pd.DataFrame, str]:
    """Return the repeats that every method has, and a sentence on what was left out (empty where nothing was).

    Raises:
        UserError: ``missing`` is ``"error"`` and there are holes, all of which are listed; or no repeat is complete.
    """
    check_choice("missing", missing, "error", "drop")
    gone = holes(wide)
    if not gone:
        return wide, ""
    if missing == "error":
        raise UserError(
            f"{count(len(gone), 'result')} missing: {listed(gone)}; finish the run, or leave out these blocks, "
            "methods or repeats (dropping them silently would change the answer)"
        )
    kept = wide.dropna()
    if kept.empty:
        raise UserError(f"no repeat has a result for every method, so nothing can be compared; missing: {listed(gone)}")
    lost = wide.index.unique(0).difference(kept.index.unique(0), sort=False)
    cut = f"{len(wide) - len(kept)} of {len(wide)} repeats left out"
    text = f"{count(len(gone), 'result')} missing: {listed(gone)}; {cut}"
    return kept, f"{text}, and with them all of {listed(lost)}." if len(lost) else f"{text}."


def run_sizes(results: pd.DataFrame, fixed_test: bool | Collection[str] | None) -> dict[str, Sizes]:
    """Return the `Sizes` of every data set; see `compare_methods` for ``fixed_test``."""
    for column in ("n_train", "n_test"):
        known(column, list(map(str, results.columns)), "column")
        if not (pd.to_numeric(results[column], errors="coerce") > 0).all():
            raise UserError(f"column {column!r} must hold positive row counts in every row")
    names = results["dataset"]
    marks: object = fixed_test
    if fixed_test is None:
        marks = results.get("fixed_test", False)
    elif not isinstance(fixed_test, bool):
        for name in fixed_test:
            known(name, list(pd.unique(names)), "data set in fixed_test")
        marks = names.isin(list(fixed_test))
    rows = results[["n_train", "n_test"]].apply(pd.to_numeric).assign(fixed_test=marks)
    if not rows["fixed_test"].isin([True, False]).all():
        raise UserError("column 'fixed_test' must hold true or false in every row")
    sizes = {}
    for name, part in rows.groupby(names, sort=False):
        if part["fixed_test"].nunique() > 1:
            raise UserError(f"column 'fixed_test' must be the same in all rows of a data set; it varies for {name}")
        n_train, n_test = (float(part[column].mean()) for column in ("n_train", "n_test"))
        sizes[str(name)] = Sizes(n_train, n_test, bool(part["fixed_test"].iloc[0]))
    return sizes


def run_hits(results: pd.DataFrame, wide: pd.DataFrame) -> Hits:
    """Return (repeats, rows) by data set and method, of the repeats in ``wide``, where each of them has its hits."""
    if "hits" not in results:
        return {}
    found = results.set_index(["dataset", "method", "repeat"])["hits"].to_dict()
    stacked = {}
    for dataset, part in wide.groupby(level=0, sort=False):
        for method in map(str, wide.columns):
            rows = [found[dataset, method, repeat] for repeat in part.index.get_level_values(1)]
            if all(isinstance(one, np.ndarray) for one in rows) and len({len(one) for one in rows}) == 1:
                stacked[str(dataset), method] = np.stack(rows)
    return stacked


def _cell(row: Iterable[object]) -> str:
    return f"({', '.join(map(str, row))})"
