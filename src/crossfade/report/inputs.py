"""What a comparison's page shows beside the analysis: methods described, the rows that count, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.stats import Comparison, Row
from crossfade.stats.shape import known

_KEYS = ["dataset", "method", "repeat"]
_AS_TEXT = {"dataset": str, "method": str}
_POINT = ["dataset", "method", "epoch"]
CURVES = (  # columns, headings, factors, and whether the axis may be logarithmic
    ("val_accuracy", "Validation accuracy (%)", 100.0, False),
    ("test_accuracy", "Test accuracy (%)", 100.0, False),
    ("test_nll", "Test NLL (nats)", 1.0, True),
)
_HUES, _DASHES = 6, ("", " dash", " dotted")


@dataclass(frozen=True)
class MethodInfo:
    """A method as the page shows it; ``schedule`` holds (progress, alpha, beta), or None for a loss g(ce)."""

    name: str
    style: str
    schedule: tuple[tuple[float, float, float], ...] | None
    formula: str
    note: str


@dataclass(frozen=True, eq=False)
class Inputs:
    """An analysed comparison with what belongs on its page.

    ``results`` and ``curves`` (means, may be empty) are those of the repeats that count, ``methods`` begins with the
    control, and ``gaps`` says in words which trials have no result and what was left out because of them.
    """

    comparison: Comparison
    results: pd.DataFrame
    curves: pd.DataFrame
    methods: tuple[MethodInfo, ...]
    datasets: tuple[str, ...]
    gaps: tuple[str, ...]
    meta: Mapping[str, Any]

    @property
    def control(self) -> MethodInfo:
        """The method that the others are compared with."""
        return self.methods[0]

    @property
    def only_dataset(self) -> str | None:
        """The data set of a comparison on a single one."""
        return self.datasets[0] if len(self.datasets) == 1 else None

    def rows(self, dataset: str | None = None) -> list[tuple[MethodInfo, Row]]:
        """Return the methods with their line of the table: on one data set, or (``None``) over all of them."""
        lines = self.comparison.overall if dataset is None else self.comparison.rows
        found = {row.method: row for row in lines if dataset in (None, row.dataset)}
        return [(method, found[method.name]) for method in self.methods]

    @cached_property
    def repeats(self) -> dict[str, int]:
        """Number of repeats that count, by data set."""
        return {str(row.dataset): row.repeats for row in self.comparison.rows}


def checked_results(results: pd.DataFrame, meta: Mapping[str, Any]) -> pd.DataFrame:
    """Return the results with names as text and scores as numbers, in an order that doesn't depend on that of the rows.

    The values are checked where they are analysed.
    """
    for column in (*_KEYS, "accuracy"):
        known(column, list(map(str, results.columns)), "column")
    results = results.reset_index(drop=True).astype(_AS_TEXT)
    results["accuracy"] = pd.to_numeric(results["accuracy"], errors="coerce").astype(float)
    twice = results[results.duplicated(_KEYS)]
    if len(twice):
        raise UserError(f"results: {_cell_name(twice.iloc[0])} occurs more than once; expected one row a trial")
    return _ordered(results, _dataset_order(results, meta), [m.name for m in describe_methods(results, meta)])


def describe_methods(results: pd.DataFrame, meta: Mapping[str, Any]) -> list[MethodInfo]:
    """Describe the methods that were asked for or have results, the control first."""
    given = {str(entry["name"]): entry for entry in meta.get("methods", ())}
    names = list(dict.fromkeys([str(meta.get("control", "ce")), *given, *map(str, pd.unique(results["method"]))]))
    infos = []
    for k, name in enumerate(names):
        entry = given.get(name, {})
        hue, dash = (k - 1) % _HUES + 1, _DASHES[(k - 1) // _HUES % len(_DASHES)]
        steps = None if entry.get("g") else entry.get("schedule")  # alpha and beta, no parameter of another loss
        infos.append(
            MethodInfo(
                name=name,
                style="s0" if k == 0 else f"s{hue}{dash}",
                schedule=None if steps is None else tuple((float(t), float(a), float(b)) for t, a, b in steps),
                formula=str(entry.get("g") or ""),
                note=". ".join(str(one) for one in map(entry.get, ("title", "note")) if one and one != entry.get("g")),
            )
        )
    return infos


def read_inputs(comparison: Comparison, results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> Inputs:
    """Gather what the page of ``comparison`` shows, with a sentence for everything that is missing or was left out."""
    described = describe_methods(results, meta)
    methods = tuple(method for method in described if method.name in comparison.methods)
    datasets = tuple(name for name in _dataset_order(results, meta) if name in comparison.datasets)
    counted = comparison.counted(results)
    if curves.empty or any(c not in curves for c in _POINT):
        curves = curves.iloc[:0]
    else:
        curves = curves.astype(_AS_TEXT)
        if "repeat" in curves:
            inside = pd.MultiIndex.from_frame(curves[_KEYS]).isin(pd.MultiIndex.from_frame(counted[_KEYS]))
            names = [method.name for method in methods]
            curves = mean_curves(_ordered(curves[inside].reset_index(drop=True), datasets, names))
    gaps = tuple(_gaps(comparison, results, [method.name for method in described], meta))
    return Inputs(comparison, counted, curves, methods, datasets, gaps, meta)


def mean_curves(curves: pd.DataFrame, by: Sequence[str] = _POINT) -> pd.DataFrame:
    """Return a row a data set, method and epoch: mean accuracies over the repeats, and the median of the test NLL."""
    points, names = curves.groupby(list(by), sort=False), [name for name, *_ in CURVES if name in curves]
    means = [points[name].median() if name == "test_nll" else points[name].mean() for name in names]
    return pd.concat(means, axis=1).reset_index()


def _gaps(
    comparison: Comparison, results: pd.DataFrame, names: Sequence[str], meta: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a sentence for each thing that is missing, but for the trials that ``meta`` already names as missing."""
    for _, row in results[~np.isfinite(results["accuracy"])].iterrows():
        yield f"{_cell_name(row)}: the accuracy is not a finite number"
    for name in names:
        if name not in comparison.methods:
            yield f"{name}: no result at all; the method is left out of every table"
    kept = [name for name in names if name in comparison.methods]
    there = set(results[_KEYS].itertuples(index=False, name=None))
    said = tuple(str(item) for item in meta.get("missing", ()))
    for dataset, repeat in results[["dataset", "repeat"]].drop_duplicates().itertuples(index=False, name=None):
        if (dataset, repeat) in comparison.accuracy.index:
            continue
        for cell in (f"{dataset} · {name} · repeat {repeat}:" for name in kept if (dataset, name, repeat) not in there):
            if not any(item.startswith(cell) for item in said):
                yield f"{cell} no result"
        yield f"{dataset} · repeat {repeat}: left out for every method, because a pair needs all {len(kept)}"
    done = results.groupby("dataset", sort=False)["repeat"].nunique()
    for dataset in done.index:
        if dataset not in comparison.datasets:
            yield f"{dataset}: no repeat is complete; the data set is left out"
    for entry in meta.get("datasets", ()):
        if str(entry["name"]) not in done:
            yield f"{entry['name']}: no result at all"
    planned = int(meta.get("repeats") or 0)
    for dataset, number in done.items():
        if number < planned:
            yield f"{dataset}: results of {number} of {planned} repeats"


def _cell_name(row: pd.Series[Any]) -> str:
    return f"{row['dataset']} · {row['method']} · repeat {row['repeat']}"


def _dataset_order(results: pd.DataFrame, meta: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*(str(entry["name"]) for entry in meta.get("datasets", ())), *results["dataset"]]))


def _ordered(frame: pd.DataFrame, datasets: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    """Sort rows by data set, method, repeat and epoch, so that sums, and with them the page, are always the same."""
    names = {"dataset": pd.Index(datasets), "method": pd.Index(methods)}
    order = [column for column in (*_KEYS, "epoch") if column in frame]
    return frame.sort_values(order, key=lambda c: names[c.name].get_indexer(pd.Index(c)) if c.name in names else c)
