"""Which results form complete pairs, and what is missing. Nothing is dropped without a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.report.words import count

__all__ = ["KEYS", "METRICS", "cell_name", "complete_pairs", "ordered"]

METRICS = ("accuracy", "nll", "ece")
KEYS = ["dataset", "method", "repeat"]


def cell_name(row: pd.Series[Any]) -> str:
    """How a trial is called in sentences."""
    return f"{row['dataset']} · {row['method']} · repeat {row['repeat']}"


def ordered(frame: pd.DataFrame, tasks: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Rows by data set, method, repeat and epoch, the first two in the order given."""
    places = [frame["dataset"].map({name: k for k, name in enumerate(tasks)}), frame["method"].map(list(names).index)]
    keys = pd.DataFrame({"task": places[0], "method": places[1], "repeat": frame["repeat"]})
    keys = keys.assign(epoch=frame["epoch"]) if "epoch" in frame else keys
    return frame.loc[keys.sort_values(list(keys.columns), kind="stable").index]


def complete_pairs(
    results: pd.DataFrame, names: Sequence[str], meta: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out methods without any result, then repeats that lack a method, and say so.

    Args:
        results: a row a trial.
        names: of the methods that were asked for.
        meta: of the page; ``missing`` is not said twice.

    Returns:
        The complete results, and a sentence for everything that is missing or left out.

    Raises:
        UserError: no repeat is complete.
    """
    usable = results[np.isfinite(results["accuracy"])]
    bad = results[~np.isfinite(results["accuracy"])]
    gaps = [f"{cell_name(row)}: the accuracy is not a finite number" for _, row in bad.iterrows()]
    empty = [name for name in names if name not in set(usable["method"])]
    gaps += [f"{name}: no result at all; the method is left out of every table" for name in empty]
    kept = [name for name in names if name not in empty]
    wanted = pd.MultiIndex.from_frame(results[["dataset", "repeat"]].drop_duplicates())
    wide = usable.pivot(index=["dataset", "repeat"], columns="method", values="accuracy").reindex(
        index=wanted, columns=kept
    )
    holes = wide.isna()
    known = set(bad[KEYS].itertuples(index=False, name=None))
    said = [str(item) for item in meta.get("missing", ())]
    for (dataset, repeat), row in holes[holes.any(axis=1)].iterrows():
        lost = [name for name in kept if row[name] and (dataset, name, repeat) not in known]
        cells = [f"{dataset} · {name} · repeat {repeat}:" for name in lost]
        gaps += [f"{cell} no result" for cell in cells if not any(item.startswith(cell) for item in said)]
        gaps.append(f"{dataset} · repeat {repeat}: left out for every method, because a pair needs all {len(kept)}")
    complete = wide.index[~holes.any(axis=1)]
    gone = [name for name in wanted.unique(level=0) if name not in set(complete.get_level_values(0))]
    gaps += [f"{name}: no repeat is complete; the data set is left out" for name in gone]
    expected = [str(entry["name"]) for entry in meta.get("datasets", ())]
    done = results.groupby("dataset", sort=False)["repeat"].nunique()
    gaps += [f"{name}: no result at all" for name in expected if name not in done]
    planned = int(meta.get("repeats") or 0)
    gaps += [f"{name}: {number} of {planned} repeats have results" for name, number in done.items() if number < planned]
    if len(complete) == 0:
        raise UserError(f"results: no repeat has a result of all {count(len(kept), 'method')}; nothing can be compared")
    inside = pd.MultiIndex.from_frame(usable[["dataset", "repeat"]]).isin(complete)
    return usable[inside & usable["method"].isin(kept)], gaps
