"""The lines of a comparison's table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crossfade.stats.evidence import AcrossComparison, PairedComparison
from crossfade.stats.intervals import Interval
from crossfade.stats.ranking import WinTieLoss, rank_scores
from crossfade.stats.shape import by_dataset

EXTRA_SCORES = ("nll", "ece", "brier")
Extras = dict[tuple[str | None, str], dict[str, float | None]]


@dataclass(frozen=True)
class Row:
    """A line of the table. Accuracies are fractions; ``dataset`` is ``None`` in the rows over all data sets.

    ``delta``, ``interval``, ``p``, ``p_adjusted`` and ``counts`` compare with the control and are ``None`` for itself.
    ``counts`` are over repeats within a data set and over data sets overall, and so is ``mean_rank`` (1 is best).
    ``best`` counts the repeats, overall the data sets, on which no method is better: Table 4's wins.
    """

    dataset: str | None
    method: str
    repeats: int
    accuracy: float
    delta: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    counts: WinTieLoss | None
    best: int
    mean_rank: float
    nll: float | None
    ece: float | None
    brier: float | None


def table_rows(
    results: pd.DataFrame, wide: pd.DataFrame, paired: Sequence[PairedComparison], across: Sequence[AcrossComparison]
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The lines of every data set, and those over all of them (with a single data set: the same).

    Args:
        results: the frame of runs, for the scores beside accuracy.
        wide: accuracies that count, index (data set, repeat), a column a method.
        paired: the evidence on each data set.
        across: the evidence over data sets; empty with a single one.
    """
    extras = _extras(results, wide)
    parts = by_dataset(wide)
    rows: list[Row] = []
    for dataset, part in parts.items():
        evidence = {c.method: c for c in paired if c.dataset == dataset}
        rows += _rows(dataset, part, len(part), evidence, extras)
    if not across:
        return tuple(rows), tuple(rows)
    means = wide.groupby(level=0, sort=False).mean()
    repeats = min(len(part) for part in parts.values())
    return tuple(rows), tuple(_rows(None, means, repeats, {c.method: c for c in across}, extras))


def _rows(
    dataset: str | None,
    scores: pd.DataFrame,
    repeats: int,
    evidence: Mapping[str, PairedComparison | AcrossComparison],
    extras: Extras,
) -> Iterator[Row]:
    values = scores.to_numpy(dtype=np.float64)
    ranks = rank_scores(values)
    first = ranks.min(axis=1)
    for j, method in enumerate(map(str, scores.columns)):
        found = evidence.get(method)
        extra = extras.get((dataset, method), {})
        yield Row(
            dataset=dataset,
            method=method,
            repeats=repeats,
            accuracy=float(values[:, j].mean()),
            delta=None if found is None else found.mean,
            interval=None if found is None else found.interval,
            p=None if found is None else found.p,
            p_adjusted=None if found is None else found.p_adjusted,
            counts=None if found is None else found.counts,
            best=int((ranks[:, j] == first).sum()),
            mean_rank=float(ranks[:, j].mean()),
            nll=extra.get("nll"),
            ece=extra.get("ece"),
            brier=extra.get("brier"),
        )


def _extras(results: pd.DataFrame, wide: pd.DataFrame) -> Extras:
    """Means of the other scores over the repeats that count; over data sets, the mean of the data sets' means."""
    there = [name for name in EXTRA_SCORES if name in results.columns]
    if not there:
        return {}
    scores = results[there].apply(pd.to_numeric, errors="coerce")
    scores["dataset"], scores["method"] = results["dataset"].astype(str), results["method"].astype(str)
    scores["repeat"] = results["repeat"]
    counted = pd.MultiIndex.from_frame(scores[["dataset", "repeat"]]).isin(wide.index)
    # A NaN among the repeats makes the mean NaN: a mean over the others would flatter the method.
    means = scores[counted].groupby(["dataset", "method"], sort=False)[there].agg(lambda part: part.mean(skipna=False))
    table: Extras = {}
    for dataset, method in means.index:
        table[str(dataset), str(method)] = _numbers(means.loc[(dataset, method)])
    for method in wide.columns:
        table[None, str(method)] = _numbers(means.xs(method, level=1).mean(skipna=False))
    return table


def _numbers(row: pd.Series[float]) -> dict[str, float | None]:
    return {str(name): None if math.isnan(value) else float(value) for name, value in row.items()}
