"""Results and training curves of a store as data frames: what statistics, reports and exports read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from crossfade.lab.scores import unpack_hits

if TYPE_CHECKING:
    from crossfade.lab.store import Store

_RESULTS = (
    *("study", "dataset", "method", "repeat", "accuracy", "nll", "ece", "brier", "learning_rate", "epoch"),
    *("n_train", "n_val", "n_test", "fixed_test", "classes", "seconds", "net", "engine", "key"),
)
_CURVES = (
    *("dataset", "method", "repeat", "epoch"),
    *("val_accuracy", "test_accuracy", "val_nll", "test_nll", "train_loss", "net"),
)


def results(
    store: Store, keys: Collection[str] | None = None, requests: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row for each finished trial; accuracy and the like are fractions, epochs are counted from 1.

    ``requests`` fills a last column, by the trials' keys. ``hits``, where trials have it, is an array: 1 for a
    row that was classified rightly, 0 wrongly, -1 not tested.
    """
    rows = [
        {
            "study": row.study,
            "dataset": row.task,
            "method": row.method,
            "repeat": row.repeat,
            **row.outcome.result,
            "fixed_test": bool(row.content["task"].get("fixed_test", False)),
            "net": row.content["recipe"].get("net"),
            "key": row.key,
        }
        for row in store.rows(keys)
        if row.outcome.result is not None
    ]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=[*dict.fromkeys((*_RESULTS, *frame.columns))])
    if "hits" in frame:
        frame["hits"] = frame["hits"].map(unpack_hits, na_action="ignore")
    if requests is not None:
        frame["request"] = frame["key"].map(requests)
    scores = ["accuracy", "nll", "ece", "brier", "learning_rate", "seconds"]
    return frame.astype(dict.fromkeys(scores, "float64"))  # a missing NLL is NaN, not an object


def curves(
    store: Store, keys: Collection[str] | None = None, requests: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return one row for each finished trial and epoch, at the selected learning rate; ``requests`` as above."""
    parts = [
        pd.DataFrame(
            {
                "dataset": row.task,
                "method": row.method,
                "repeat": row.repeat,
                "epoch": range(1, len(next(iter(row.outcome.curves.values()))) + 1),
                **row.outcome.curves,
                "net": row.content["recipe"].get("net"),
                **({} if requests is None else {"request": requests.get(row.key)}),
            }
        )
        for row in store.rows(keys, curves=True)
        if row.outcome.curves
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_CURVES))
    numbers = [name for name in _CURVES if name in frame and name.endswith(("accuracy", "nll", "loss"))]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def failures(store: Store, keys: Collection[str] | None = None) -> list[tuple[str, str, int, str]]:
    """Return data set, method, repeat and error of every failed trial."""
    lost = ((row, row.outcome.error) for row in store.rows(keys))
    return [(row.task, row.method, row.repeat, error) for row, error in lost if error is not None]


def failure_lines(failed: Sequence[tuple[str, str, int, str]]) -> list[str]:
    """Return one line for each different error: where it came first, and how often it came."""
    by_error: dict[str, list[str]] = {}
    for task, method, repeat, error in failed:
        by_error.setdefault(error, []).append(f"{task}, {method}, repeat {repeat}")
    return [
        f"{first} and {len(more)} more: {error}" if more else f"{first}: {error}"
        for error, (first, *more) in by_error.items()
    ]
