"""The checks that a frame of runs must pass before methods are compared on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.shape import holes, known, listed, require_complete


@dataclass(frozen=True)
class Sizes:
    """Rows of a data set's repeats (means over them), and whether every repeat is tested on the same rows."""

    n_train: float
    n_test: float
    fixed_test: bool


def complete_runs(wide: pd.DataFrame, missing: str) -> tuple[pd.DataFrame, list[str]]:
    """The repeats that every method has, and a line on what was left out (only with ``missing="drop"``).

    Raises:
        UserError: something is missing and ``missing="error"``, or nothing is left.
    """
    if missing not in ("error", "drop"):
        raise UserError(f"missing must be 'error' or 'drop', got {missing!r}")
    if missing == "error":
        require_complete(wide)
    gone = holes(wide)
    if not gone:
        return wide, []
    kept = wide.dropna()
    if kept.empty:
        raise UserError(f"no repeat has a result for every method; missing: {listed(gone)}")
    left = set(kept.index.get_level_values(0))
    lost = [str(name) for name in pd.unique(wide.index.get_level_values(0)) if name not in left]
    text = f"{len(gone)} results are missing ({listed(gone)}): {len(wide) - len(kept)} of {len(wide)} repeats left out"
    return kept, [f"{text}, and with them all of {listed(lost)}." if lost else f"{text}."]


def run_sizes(results: pd.DataFrame, fixed_test: bool | Collection[str] | None) -> dict[str, Sizes]:
    """`Sizes` of every data set.

    Raises:
        UserError: row counts are missing or not positive; ``fixed_test`` names no data set, holds something else than
            true and false, or varies within a data set.
    """
    columns = [str(name) for name in results.columns]
    for column in ("n_train", "n_test"):
        known(column, columns, "column")
        if not (pd.to_numeric(results[column], errors="coerce") > 0).all():
            raise UserError(f"column {column!r} must hold positive row counts in every row")
    names = results["dataset"].astype(str).to_numpy()
    marks = _fixed(results, names, fixed_test)
    sizes: dict[str, Sizes] = {}
    for name in pd.unique(pd.Series(names)):
        here = names == name
        if len(set(marks[here])) > 1:
            raise UserError(f"column 'fixed_test' must be the same in all rows of a data set; it varies for {name}")
        n_train, n_test = (float(pd.to_numeric(results.loc[here, column]).mean()) for column in ("n_train", "n_test"))
        sizes[str(name)] = Sizes(n_train, n_test, bool(marks[here][0]))
    return sizes


def _fixed(
    results: pd.DataFrame, names: npt.NDArray[np.object_], fixed_test: bool | Collection[str] | None
) -> npt.NDArray[np.bool_]:
    if isinstance(fixed_test, bool):
        return np.full(len(names), fixed_test)
    if fixed_test is not None:
        for name in fixed_test:
            known(name, list(dict.fromkeys(names)), "data set in fixed_test")
        return np.isin(names, list(fixed_test))
    if "fixed_test" not in results.columns:
        return np.zeros(len(names), dtype=bool)
    if not results["fixed_test"].isin([True, False]).all():
        raise UserError("column 'fixed_test' must hold true or false in every row")
    return results["fixed_test"].to_numpy(dtype=bool)
