"""`compare_methods`: from a frame of results to the table, the evidence and the verdicts of a comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.evidence import (
    AcrossComparison,
    PairedComparison,
    compare_datasets,
    compare_repeats,
    judged_together,
)
from crossfade.stats.intervals import Interval
from crossfade.stats.omnibus import Friedman, check_fraction, friedman
from crossfade.stats.plain import plain
from crossfade.stats.remarks import notes, remarks
from crossfade.stats.runs import Sizes, complete_runs, run_sizes
from crossfade.stats.shape import by_dataset, known, listed, tidy
from crossfade.stats.table import Row, table_rows
from crossfade.stats.wording import Verdict, dataset_line, verdict


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that `compare_methods` found.

    Attributes:
        rows: a line a data set and method.
        overall: a line a method over all data sets; with a single data set, the same lines as ``rows``.
        paired: the evidence behind each line of ``rows`` but the control's.
        across: the evidence over data sets; empty with a single one.
        friedman: Friedman's test over data sets; ``None`` with a single one.
        verdicts: over all data sets first (if several), then data set by data set.
        lines: what to print: the verdicts, one line a method; with several data sets a line each of them follows.
        notes: what the intervals and p-values cover.
        warnings: reasons for care: tiny test sets, worse calibration, results left out.
        matrix: mean accuracy, data sets × methods.
    """

    control: str
    confidence: float
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    overall: tuple[Row, ...]
    paired: tuple[PairedComparison, ...]
    across: tuple[AcrossComparison, ...]
    friedman: Friedman | None
    verdicts: tuple[Verdict, ...]
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    matrix: pd.DataFrame

    def differences(self, dataset: str | None = None) -> pd.DataFrame:
        """Paired differences to the control, a column a method: a row a repeat of ``dataset``.

        ``None`` gives a row a data set, or the repeats of the only one.
        """
        if dataset is None and not self.across:
            dataset = self.datasets[0]
        if dataset is None:
            others = [name for name in self.methods if name != self.control]
            return self.matrix[others].sub(self.matrix[self.control], axis=0)
        known(dataset, self.datasets, "data set")
        return pd.DataFrame({c.method: c.differences for c in self.paired if c.dataset == dataset})

    def intervals(self, dataset: str | None = None) -> dict[str, Interval | None]:
        """The intervals that belong to `differences`, by method."""
        if dataset is None and self.across:
            return {c.method: c.interval for c in self.across}
        return {c.method: c.interval for c in self.paired if dataset in (None, c.dataset)}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dictionaries, strings and numbers, ready for strict JSON: NaN and infinity become ``None``."""
        data = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "matrix"}
        return {name: plain(value) for name, value in data.items()}


def compare_methods(
    results: pd.DataFrame,
    control: str = "ce",
    confidence: float = 0.95,
    *,
    fixed_test: bool | Collection[str] | None = None,
    missing: Literal["error", "drop"] = "error",
    titles: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare every method with ``control``, on each data set over its repeats and over all data sets.

    Args:
        results: a row a run, with the columns dataset, method, repeat, accuracy (a fraction), n_train, n_test, and, if
            there, nll, ece and brier. The same ``repeat`` of two methods must share split and seeds: they are pairs.
        control: the method that the others are compared with.
        confidence: of the intervals; a difference is called reliable at the level 1 − confidence.
        fixed_test: which data sets test every repeat on the same rows: all, none, or the names. ``None`` reads the
            column ``fixed_test`` of ``results``, or takes none where there is no such column.
        missing: ``"error"`` refuses incomplete results and lists the holes. ``"drop"`` leaves out every repeat that
            some method lacks, for all methods, and says so in ``warnings``.
        titles: names of methods to print in the verdicts.

    Returns:
        The `Comparison`. On one data set the interval is that of Nadeau and Bengio (2003) where the repeats draw new
        test rows, and Student's where the test rows are fixed. Verdicts are adjusted for their number by Holm's method:
        all methods on all data sets together, and the methods over data sets.

    Raises:
        UserError: a missing column, hole, duplicate or impossible value; fewer than two methods; no such control.
    """
    check_fraction("confidence", confidence)
    wide = tidy(results, block="dataset", method="method", score="accuracy", repeat="repeat")
    methods = tuple(str(name) for name in wide.columns)
    if len(methods) < 2:
        raise UserError(f"only one method, {listed(methods)}: a comparison needs two or more")
    known(control, methods, "control")
    wide, dropped = complete_runs(wide, missing)
    if not ((wide >= 0) & (wide <= 1)).all(axis=None):
        raise UserError("accuracy must be a fraction between 0 and 1; divide percentages by 100")
    datasets = tuple(by_dataset(wide))
    matrix = wide.groupby(level=0, sort=False).mean()
    paired = judged_together(_within(wide, run_sizes(results, fixed_test), control, confidence))
    across = judged_together(_over(matrix, control, confidence)) if len(datasets) > 1 else ()
    rows, overall = table_rows(results, wide, paired, across)
    verdicts = (*(verdict(c, titles) for c in across), *(verdict(c, titles) for c in paired))
    lines = [v.text for v in verdicts[: len(methods) - 1]]
    if across:
        lines += [dataset_line([c for c in paired if c.dataset == dataset], titles) for dataset in datasets]
    return Comparison(
        control=control,
        confidence=confidence,
        datasets=datasets,
        methods=methods,
        rows=rows,
        overall=overall,
        paired=paired,
        across=across,
        friedman=friedman(matrix) if across else None,
        verdicts=verdicts,
        lines=tuple(lines),
        notes=notes(paired, across),
        warnings=(*dropped, *remarks(paired, {row.method: row.ece for row in overall}, control)),
        matrix=matrix,
    )


def _within(wide: pd.DataFrame, sizes: Mapping[str, Sizes], control: str, confidence: float) -> list[PairedComparison]:
    return [
        compare_repeats(
            part[name].to_numpy(),
            part[control].to_numpy(),
            dataset=dataset,
            method=name,
            control=control,
            n_train=sizes[dataset].n_train,
            n_test=sizes[dataset].n_test,
            fixed_test=sizes[dataset].fixed_test,
            confidence=confidence,
        )
        for dataset, part in by_dataset(wide).items()
        for name in map(str, wide.columns)
        if name != control
    ]


def _over(matrix: pd.DataFrame, control: str, confidence: float) -> list[AcrossComparison]:
    base = matrix[control].to_numpy()
    return [
        compare_datasets(matrix[name].to_numpy(), base, method=name, control=control, confidence=confidence)
        for name in map(str, matrix.columns)
        if name != control
    ]
