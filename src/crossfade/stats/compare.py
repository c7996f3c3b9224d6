"""The comparison of several losses with a control: its table, its evidence and its verdicts, from a frame of runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.calibration import MEASURES, calibration_notes, middle
from crossfade.stats.evidence import (
    AcrossComparison,
    PairedComparison,
    compare_datasets,
    compare_repeats,
    judged_together,
)
from crossfade.stats.findings import findings, same_networks
from crossfade.stats.means import Equivalence, Interval
from crossfade.stats.ranking import WinTieLoss, rank_scores
from crossfade.stats.shape import check_choice, check_fraction, complete_runs, known, run_hits, run_sizes, tidy
from crossfade.stats.significance import Friedman, friedman
from crossfade.stats.verdicts import Verdict, advice, cautions, dataset_line, headline, notes, rows_line, verdict
from crossfade.stats.words import Plain, listed, plain

METRICS = {"accuracy": "accuracy", "balanced": "balanced accuracy", "f1": "macro-F1"}  # columns, and their names
_SCORES = (*METRICS, *MEASURES, "temperature", *(f"{name}_calibrated" for name in MEASURES))


@dataclass(frozen=True)
class Row:
    """A line of the table. Scores are fractions; ``dataset`` is ``None`` in the rows over all data sets.

    ``score`` is what is judged, by default the accuracy; other scores are ``None`` where they aren't known. ``delta``,
    ``interval``, ``p``, ``p_adjusted``, ``equivalence`` and ``counts`` compare with the control and are ``None`` for
    itself. ``counts`` are over repeats within a data set and over data sets overall, and so is ``mean_rank`` (1 is
    best). ``best`` counts the repeats, overall the data sets, on which no method is better: Table 4's wins.
    ``temperature`` is the median, ``nll_calibrated`` and the like are the scores after it.
    """

    dataset: str | None
    method: str
    repeats: int
    score: float
    delta: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    equivalence: Equivalence | None
    counts: WinTieLoss | None
    best: int
    mean_rank: float
    accuracy: float | None
    balanced: float | None
    f1: float | None
    nll: float | None
    ece: float | None
    brier: float | None
    temperature: float | None
    nll_calibrated: float | None
    ece_calibrated: float | None
    brier_calibrated: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that `compare_methods` found: what the terminal, the JSON and the page all show.

    Attributes:
        rows: a line a data set and method.
        overall: a line a method over all data sets; with a single data set, the same lines as ``rows``.
        paired: the evidence behind each line of ``rows`` but the control's.
        across: the evidence over data sets; empty with a single one.
        friedman: Friedman's test over data sets; ``None`` with a single one.
        verdicts: over all data sets first (if several), then data set by data set.
        dataset_lines: with several data sets, a sentence on each of them.
        findings: sentences on how the run went that decide what its differences mean.
        notes: what the intervals and p-values cover.
        left_out: what was left out because results are missing; empty where nothing was.
        cautions: other reasons for care: tiny test sets, worse calibration.
        accuracy: the judged scores that count, index (data set, repeat), a column a method.
        matrix: mean score, data sets × methods.
        metric: the judged column: accuracy, or another score.
        majority: by data set the score of always answering the most frequent class, where it is known.
        size_control: the method with the gradient's size of others, for which there are no headlines.
        equivalent: the size up to which differences don't matter, where it was given.
        same: methods that are the same network as another in every repeat, with that one's name.
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
    dataset_lines: Mapping[str, str]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: str
    cautions: tuple[str, ...]
    accuracy: pd.DataFrame
    matrix: pd.DataFrame
    metric: str
    majority: Mapping[str, float]
    size_control: str | None
    equivalent: float | None
    same: Mapping[str, str]

    @property
    def overall_verdicts(self) -> tuple[Verdict, ...]:
        """One verdict a method: over all data sets, or on the only one."""
        return self.verdicts[: len(self.methods) - 1]

    @property
    def headlines(self) -> tuple[Verdict, ...]:
        """Those of `overall_verdicts` that are findings: not the size control's, and one network's but once."""
        said = (self.size_control, *self.same)
        return tuple(verdict for verdict in self.overall_verdicts if verdict.method not in said)

    @property
    def headline(self) -> str:
        """What was found about all methods, in one to three sentences."""
        return headline(self)

    @property
    def advice(self) -> str:
        """What to do next."""
        return advice(self)

    @property
    def lines(self) -> tuple[str, ...]:
        """All there is to say in sentences: `headlines`, a line on each of several data sets, and `findings`."""
        return (*(verdict.text for verdict in self.headlines), *self.dataset_lines.values(), *self.findings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All reasons for care."""
        return (self.left_out, *self.cautions) if self.left_out else self.cautions

    def counted(self, results: pd.DataFrame) -> pd.DataFrame:
        """Return those rows of the results, a row a run, that these numbers were made of."""
        named = results.astype({"dataset": str, "method": str})
        pairs = pd.MultiIndex.from_frame(named[["dataset", "repeat"]])
        return results[pairs.isin(self.accuracy.index) & named["method"].isin(self.methods)]

    def differences(self, dataset: str | None = None) -> pd.DataFrame:
        """Return paired differences to the control, a column a method and a row a repeat of ``dataset``.

        ``None`` gives a row a data set, or the repeats of the only one.
        """
        if dataset is None and self.across:
            return self.matrix.drop(columns=self.control).sub(self.matrix[self.control], axis=0)
        name = self.datasets[0] if dataset is None else known(dataset, self.datasets, "data set")
        return pd.DataFrame({c.method: c.differences for c in self.paired if c.dataset == name})

    def intervals(self, dataset: str | None = None) -> dict[str, Interval | None]:
        """Return the intervals that belong to `differences`, by method."""
        if dataset is None and self.across:
            return {c.method: c.interval for c in self.across}
        return {c.method: c.interval for c in self.paired if dataset in (None, c.dataset)}

    def to_dict(self) -> dict[str, Plain]:
        """Return plain lists, dictionaries, strings and numbers for strict JSON; NaN and infinity become ``None``."""
        hidden = ("dataset_lines", "left_out", "cautions", "accuracy", "matrix")
        stored = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in hidden}
        stored |= {name: getattr(self, name) for name in ("headline", "advice", "lines", "warnings")}
        return {name: plain(value) for name, value in stored.items()}


def compare_methods(
    results: pd.DataFrame,
    control: str = "ce",
    confidence: float = 0.95,
    *,
    fixed_test: bool | Collection[str] | None = None,
    missing: Literal["error", "drop"] = "error",
    metric: Literal["accuracy", "balanced", "f1"] = "accuracy",
    size_control: str | None = None,
    equivalent: float | None = None,
    moves: Mapping[str, int] | None = None,
) -> Comparison:
    """Compare every method with ``control``, on each data set over its repeats and over all data sets.

    Args:
        results: a row a run, with the columns dataset, method, repeat, accuracy (a fraction), n_train, n_test, and, if
            there, nll, ece and brier, and temperature with nll_calibrated and the like, which they are after it. The
            same ``repeat`` of two methods must share split and seeds: they are pairs.
            ``hits``, if there, is what happened to each row of the data set: an array, 1 right, 0 wrong, -1 not tested.
        control: the method that the others are compared with.
        confidence: of the intervals; a difference is called reliable at the level 1 − confidence.
        fixed_test: which data sets test every repeat on the same rows: all, none, or the names. ``None`` reads the
            column ``fixed_test`` of ``results``, or takes none where there is no such column.
        missing: ``"error"`` refuses incomplete results and lists the holes. ``"drop"`` leaves out every repeat that
            some method lacks, for all methods, and says so in ``warnings``.
        metric: the column with what is judged: accuracy, or a fraction like it.
        size_control: a method that has the gradient's size of others, but not their shape: a gain that it shares is
            called one of step size.
        equivalent: differences up to this size don't matter: the probability that a true one is within joins each
            verdict, and a difference that isn't reliable is called practically equivalent where that is probable.
        moves: the epoch after which a method's schedule first moves.

    Returns:
        The `Comparison`. On one data set the interval is that of `out_of_fold_t` where every repeat has hits, else that
        of Nadeau and Bengio (2003), or Student's where the test rows are fixed. Verdicts are adjusted for their number
        by Holm's method: all methods on all data sets together, and the methods over data sets.

    Raises:
        UserError: a missing column, hole, duplicate or impossible value; fewer than two methods; no such control.
    """
    check_fraction("confidence", confidence)
    check_choice("metric", metric, *METRICS)
    wide = tidy(results, block="dataset", method="method", score=metric, repeat="repeat")
    methods = tuple(str(name) for name in wide.columns)
    if len(methods) < 2:
        raise UserError(f"only one method, {listed(methods)}: a comparison needs two or more")
    known(control, methods, "control")
    wide, left_out = complete_runs(wide, missing)
    scores = wide.to_numpy()
    cells = ((*wide.index[i], methods[j], scores[i, j]) for i, j in np.argwhere((scores < 0) | (scores > 1)))
    outside = [f"{value:g} at ({dataset}, {method}, repeat {repeat})" for dataset, repeat, method, value in cells]
    if outside:
        raise UserError(
            f"{metric} must be a fraction between 0 and 1, got {listed(outside, 1)}; divide percentages by 100"
        )
    results = results.astype({"dataset": str, "method": str})
    counted = results[pd.MultiIndex.from_frame(results[["dataset", "repeat"]]).isin(wide.index)]
    parts = {str(name): part.droplevel(0) for name, part in wide.groupby(level=0, sort=False)}
    matrix = wide.groupby(level=0, sort=False).mean()
    others = [name for name in methods if name != control]
    sizes, hits = run_sizes(results, fixed_test), run_hits(results, wide) if metric == "accuracy" else {}
    within = partial(compare_repeats, control=control, confidence=confidence)
    over = partial(compare_datasets, control=control, confidence=confidence)
    paired = judged_together(
        [
            within(
                part[name],
                part[control],
                dataset=dataset,
                method=name,
                hits=hits.get((dataset, name)),
                control_hits=hits.get((dataset, control)),
                **sizes[dataset]._asdict(),
            )
            for dataset, part in parts.items()
            for name in others
        ]
    )
    across = judged_together([over(matrix[name], matrix[control], method=name) for name in others if len(parts) > 1])
    if equivalent is not None:
        paired = tuple(c.with_region(equivalent) for c in paired)
        across = tuple(c.with_region(equivalent) for c in across)
    said = partial(verdict, metric=METRICS[metric])
    by_set = {name: [c for c in paired if c.dataset == name] for name in parts}
    extras = _extras(counted)
    size_control = size_control if size_control in others and len(others) > 1 else None
    guess = counted.groupby("dataset", sort=False)["majority"].mean().dropna() if "majority" in counted else pd.Series()
    rows = [row for name, part in parts.items() for row in _rows(name, part, len(part), by_set[name], extras)]
    overall = list(_rows(None, matrix, min(map(len, parts.values())), across, extras)) if across else rows
    return Comparison(
        control=control,
        confidence=confidence,
        datasets=tuple(parts),
        methods=methods,
        rows=tuple(rows),
        overall=tuple(overall),
        paired=paired,
        across=across,
        friedman=friedman(matrix) if across else None,
        verdicts=(*map(said, across), *map(said, paired)),
        dataset_lines={name: dataset_line(by_set[name]) for name in parts} if across else {},
        findings=(
            *findings(counted, paired, across, metric=metric, size_control=size_control, hits=hits, moves=moves or {}),
            *rows_line(paired),
        ),
        notes=(*notes(paired, across), *calibration_notes(counted)),
        left_out=left_out,
        cautions=tuple(cautions(paired, overall, control)),
        accuracy=wide,
        matrix=matrix,
        metric=METRICS[metric],
        majority={str(name): float(share) for name, share in guess.items()},
        size_control=size_control,
        equivalent=equivalent,
        same={name: first for name, first in same_networks(counted).items() if first != control},
    )


def _rows(
    dataset: str | None,
    scores: pd.DataFrame,
    repeats: int,
    comparisons: Collection[PairedComparison | AcrossComparison],
    extras: Mapping[tuple[str | None, str], Mapping[str, float]],
) -> Iterator[Row]:
    """Yield the lines of one data set, or (``None``) those over all of them; ``scores`` are the accuracies there."""
    evidence = {c.method: c for c in comparisons}
    values = scores.to_numpy(dtype=np.float64)
    ranks = rank_scores(values)
    first = ranks.min(axis=1)
    for j, method in enumerate(map(str, scores.columns)):
        found = evidence.get(method)
        yield Row(
            dataset=dataset,
            method=method,
            repeats=repeats,
            score=float(values[:, j].mean()),
            delta=found.mean if found else None,
            interval=found.interval if found else None,
            p=found.p if found else None,
            p_adjusted=found.p_adjusted if found else None,
            equivalence=found.equivalence if found else None,
            counts=found.counts if found else None,
            best=int((ranks[:, j] == first).sum()),
            mean_rank=float(ranks[:, j].mean()),
            **{name: None if math.isnan(value) else value for name, value in extras[dataset, method].items()},
        )


def _extras(counted: pd.DataFrame) -> dict[tuple[str | None, str], dict[str, float]]:
    """Average the other scores over the repeats that count, and these means (``None``) over the data sets."""
    scores = counted.reindex(columns=list(_SCORES)).apply(pd.to_numeric, errors="coerce")
    # A NaN among the repeats makes the mean NaN: a mean over the others would flatter the method.
    means = scores.groupby([counted["dataset"], counted["method"]], sort=False).agg(middle, ("temperature",))
    over_all = means.groupby(level=1, sort=False).agg(middle, ("temperature",))
    return {**means.T.to_dict(), **{(None, method): row for method, row in over_all.T.to_dict().items()}}
