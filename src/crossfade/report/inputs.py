"""What a comparison page is made of, checked once: complete pairs, and a list of all that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.report.pairing import KEYS, METRICS, cell_name, complete_pairs, ordered

__all__ = ["Inputs", "MethodInfo", "read_inputs"]

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
        columns = [c for c in (*METRICS, "epoch") if c in self.results]
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
        wide = pd.DataFrame(self._wide[metric], columns=[method.name for method in self.methods])
        return wide.sub(wide[self.control.name], axis=0)

    @cached_property
    def _wide(self) -> pd.DataFrame:
        return pd.DataFrame(self.results.pivot(index=["dataset", "repeat"], columns="method", values=list(METRICS)))


def read_inputs(results: pd.DataFrame, curves: pd.DataFrame, meta: Mapping[str, Any]) -> Inputs:
    """Check the frames and keep complete pairs. What is left out is named in ``gaps``.

    Raises:
        UserError: a column is missing, an accuracy is not a fraction, a result occurs twice, or no pair is complete.
    """
    lacking = [c for c in (*KEYS, "accuracy") if c not in results]
    if lacking:
        expected = ", ".join([*KEYS, "accuracy"])
        raise UserError(f"results: missing column {', '.join(lacking)}; expected one row a trial with {expected}")
    results = results.reset_index(drop=True)
    numbers = {m: pd.to_numeric(results[m], errors="coerce").astype(float) if m in results else np.nan for m in METRICS}
    results = results.assign(dataset=results["dataset"].astype(str), method=results["method"].astype(str), **numbers)
    twice = results[results.duplicated(KEYS)]
    if len(twice):
        raise UserError(f"results: {cell_name(twice.iloc[0])} occurs more than once; expected one row a trial")
    wrong = results[(results["accuracy"] < 0) | (np.isfinite(results["accuracy"]) & (results["accuracy"] > 1))]
    if len(wrong):
        raise UserError(
            "results: accuracy must be a fraction in [0, 1], "
            f"got {wrong['accuracy'].iloc[0]:g} at {cell_name(wrong.iloc[0])}"
        )
    control = str(meta.get("control", "ce"))
    described = _described(results, meta, control)
    tasks = dict.fromkeys([*(str(entry["name"]) for entry in meta.get("datasets", ())), *pd.unique(results["dataset"])])
    # In one order whatever that of the rows is: sums, and with them the page, don't depend on it.
    results = ordered(results, list(tasks), [method.name for method in described])
    paired, gaps = complete_pairs(results, [method.name for method in described], meta)
    if control not in set(paired["method"]):
        raise UserError(f"results: no result of the control {control!r}, which the other methods are compared with")
    present = set(paired["method"])
    methods = tuple(method for method in described if method.name in present)
    return Inputs(paired, _matching(curves, paired), methods, tuple(pd.unique(paired["dataset"])), tuple(gaps), meta)


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


def _matching(curves: pd.DataFrame, paired: pd.DataFrame) -> pd.DataFrame:
    if curves.empty or any(c not in curves for c in (*KEYS, "epoch")):
        return curves.iloc[:0]
    curves = curves.assign(dataset=curves["dataset"].astype(str), method=curves["method"].astype(str))
    index = pd.MultiIndex.from_frame(paired[KEYS])
    kept = curves[pd.MultiIndex.from_frame(curves[KEYS]).isin(index)].reset_index(drop=True)
    return ordered(kept, list(pd.unique(paired["dataset"])), list(pd.unique(paired["method"])))
