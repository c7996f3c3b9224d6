"""What a comparison page is made of, checked once: complete pairs, and a list of all that is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.report.words import count

__all__ = ["Inputs", "MethodInfo", "read_inputs"]

_METRICS = ("accuracy", "nll", "ece")
_KEYS = ["dataset", "method", "repeat"]
_HUES, _DASHES = 6, ("", " dash", " dotted")


@dataclass(frozen=True)
class MethodInfo:
    """A method as the page shows it; ``schedule`` holds (progress, alpha, beta), or None for a loss g(ce)."""

    name: str
    title: str
    style: str
    schedule: tuple[tuple[float, float, float], ...] | None
    formula: str
    note: str


@dataclass(frozen=True, eq=False)
class Inputs:
    """Results in which every repeat of every data set has a result of every method.

    Attributes:
        results: the paired results.
        curves: training curves of the same repeats; may be empty.
        methods: those with results, the control first.
        datasets: names in order.
        gaps: trials without a result, and what was left out because of them, in words.
    """

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

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Means over the repeats: a row for each (dataset, method)."""
        columns = [c for c in (*_METRICS, "epoch") if c in self.results]
        return self.results.groupby(["dataset", "method"], sort=False)[columns].mean()

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the data sets of the means over the repeats: a row for each method. NaN where one is missing."""
        return self.cells.groupby(level="method", sort=False).mean(skipna=False)

    def mean(self, method: MethodInfo, metric: str, *, change: bool = False) -> float:
        """Mean of a method over the data sets, with ``change`` less that of the control. NaN where one is missing."""
        own = float(self.means[metric][method.name])
        return own - float(self.means[metric][self.control.name]) if change else own

    @cached_property
    def repeats(self) -> pd.Series[int]:
        """Repeats used in each data set."""
        return self.results.groupby("dataset", sort=False)["repeat"].nunique()

    def differences(self, metric: str) -> pd.DataFrame:
        """``metric`` less that of the control: a row for each (dataset, repeat), a column for each method."""
        wide = self.results.pivot(index=["dataset", "repeat"], columns="method", values=metric)
        names = [method.name for method in self.methods]
        return wide[names].sub(wide[self.control.name], axis=0)


def read_inputs(results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> Inputs:
    """Check the frames and keep complete pairs. What is left out is named in ``gaps``.

    Raises:
        UserError: a column is missing, an accuracy is not a fraction, a result occurs twice, or no pair is complete.
    """
    lacking = [c for c in (*_KEYS, *_METRICS) if c not in results]
    if lacking:
        raise UserError(
            f"results: missing column {', '.join(lacking)}; expected one row a trial with {_KEYS + list(_METRICS)}"
        )
    results = results.assign(
        dataset=results["dataset"].astype(str),
        method=results["method"].astype(str),
        **{m: pd.to_numeric(results[m], errors="coerce").astype(float) for m in _METRICS},
    )
    twice = results[results.duplicated(_KEYS)]
    if len(twice):
        raise UserError(f"results: {_cell(twice.iloc[0])} occurs more than once; expected one row a trial")
    wrong = results[(results["accuracy"] < 0) | (np.isfinite(results["accuracy"]) & (results["accuracy"] > 1))]
    if len(wrong):
        raise UserError(
            "results: accuracy must be a fraction in [0, 1], "
            f"got {wrong['accuracy'].iloc[0]:g} at {_cell(wrong.iloc[0])}"
        )
    control = str(meta.get("control", "ce"))
    described = _described(results, meta, control)
    paired, gaps = _paired(results, described, meta)
    if control not in set(paired["method"]):
        raise UserError(f"results: no result of the control {control!r}, which the other methods are compared with")
    present = set(paired["method"])
    methods = tuple(method for method in described if method.name in present)
    return Inputs(paired, _matching(curves, paired), methods, tuple(pd.unique(paired["dataset"])), tuple(gaps), meta)


def _cell(row: pd.Series[Any]) -> str:
    return f"{row['dataset']} · {row['method']} · repeat {row['repeat']}"


def _described(results: pd.DataFrame, meta: Mapping[str, Any], control: str) -> list[MethodInfo]:
    given = {str(entry["name"]): entry for entry in meta.get("methods", ())}
    names = list(dict.fromkeys([control, *given, *pd.unique(results["method"])]))
    infos = []
    for k, name in enumerate(names):
        entry = given.get(name, {})
        hue, dash = (k - 1) % _HUES + 1, _DASHES[(k - 1) // _HUES % len(_DASHES)]
        steps = entry.get("schedule")
        infos.append(
            MethodInfo(
                name=name,
                title=str(entry.get("title") or name),
                style="s0" if k == 0 else f"s{hue}{dash}",
                schedule=None if steps is None else tuple((float(t), float(a), float(b)) for t, a, b in steps),
                formula=str(entry.get("g") or ""),
                note=str(entry.get("note") or ""),
            )
        )
    titles = [info.title for info in infos]
    # Two methods with one title could not be told apart in a table.
    return [replace(i, title=f"{i.title} ({i.name})") if titles.count(i.title) > 1 else i for i in infos]


def _paired(
    results: pd.DataFrame, described: Sequence[MethodInfo], meta: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    """Drop methods without any result, then repeats that lack a method; say so."""
    usable = results[np.isfinite(results["accuracy"])]
    bad = results[~np.isfinite(results["accuracy"])]
    gaps = [f"{_cell(row)}: the accuracy is not a finite number" for _, row in bad.iterrows()]
    names = [method.name for method in described]
    empty = [name for name in names if name not in set(usable["method"])]
    gaps += [f"{name}: no result at all; the method is left out of every table" for name in empty]
    kept = [name for name in names if name not in empty]
    wanted = pd.MultiIndex.from_frame(results[["dataset", "repeat"]].drop_duplicates())
    wide = usable.pivot(index=["dataset", "repeat"], columns="method", values="accuracy").reindex(
        index=wanted, columns=kept
    )
    holes = wide.isna()
    known = set(bad[_KEYS].itertuples(index=False, name=None))
    for (dataset, repeat), row in holes[holes.any(axis=1)].iterrows():
        lost = [name for name in kept if row[name]]
        gaps += [
            f"{dataset} · {name} · repeat {repeat}: no result" for name in lost if (dataset, name, repeat) not in known
        ]
        gaps.append(f"{dataset} · repeat {repeat}: left out for every method, because a pair needs all {len(kept)}")
    complete = wide.index[~holes.any(axis=1)]
    gone = [name for name in wanted.unique(level=0) if name not in set(complete.get_level_values(0))]
    gaps += [f"{name}: no repeat is complete; the data set is left out" for name in gone]
    expected = [str(entry["name"]) for entry in meta.get("datasets", ())]
    done = results.groupby("dataset", sort=False)["repeat"].nunique()
    gaps += [f"{name}: no result at all" for name in expected if name not in done]
    planned = int(meta.get("repeats", 0))
    gaps += [f"{name}: {number} of {planned} repeats have results" for name, number in done.items() if number < planned]
    if len(complete) == 0:
        raise UserError(f"results: no repeat has a result of all {count(len(kept), 'method')}; nothing can be compared")
    inside = pd.MultiIndex.from_frame(usable[["dataset", "repeat"]]).isin(complete)
    return usable[inside & usable["method"].isin(kept)], gaps


def _matching(curves: pd.DataFrame, paired: pd.DataFrame) -> pd.DataFrame:
    if curves.empty or any(c not in curves for c in (*_KEYS, "epoch")):
        return curves.iloc[:0]
    curves = curves.assign(dataset=curves["dataset"].astype(str), method=curves["method"].astype(str))
    index = pd.MultiIndex.from_frame(paired[_KEYS])
    return curves[pd.MultiIndex.from_frame(curves[_KEYS]).isin(index)]
