"""The result of a comparison: its numbers, table, verdict and page, read from a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from math import ceil
from pathlib import Path
from typing import Literal, Self

import pandas as pd

from crossfade.errors import UserError
from crossfade.lab import frames
from crossfade.lab.files import write_text
from crossfade.lab.methods import MATCHED
from crossfade.lab.scores import CALIBRATED
from crossfade.lab.store import Run, Store
from crossfade.lab.trial import Json
from crossfade.report import render_comparison
from crossfade.stats import Comparison, compare_methods
from crossfade.stats.calibration import HEADINGS, calibration_cells
from crossfade.stats.compare import METRICS
from crossfade.stats.words import count, decimal, percent, points, points_range, text_table

_SHORT = {"accuracy": "Accuracy", "balanced": "Balanced", "f1": "Macro-F1"}


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult:
    """The result of a comparison, complete or as far as it has run.

    Attributes:
        results: One row a trial: data set, method, repeat, accuracy, NLL, ECE, Brier, learning rate, epoch, ...
        curves: One row a trial and epoch, if they were asked for.
        mean_curves: What the page draws: one row a data set, method and epoch, over the repeats that count.
        meta: Data, recipe, versions, methods: what a report says about the run.
        failures: (data set, method, repeat, error) of trials that failed.
        pending: Number of trials that have not been run.
        settings: The settings of the request, as they were resolved.
    """

    results: pd.DataFrame
    curves: pd.DataFrame
    meta: Json
    failures: tuple[tuple[str, str, int, str], ...] = ()
    pending: int = 0
    settings: Json = field(default_factory=dict)
    mean_curves: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def load(cls, store: Store, run: Run, *, curves: bool = True) -> Self:
        """Read the result as far as the store knows it; ``curves`` are a hundred times as large as the rest."""
        results, failed = frames.results(store, run.keys), tuple(frames.failures(store, run.keys))
        pending = len(run.keys) - len(results) - len(failed)
        missing = [f"{task} · {method} · repeat {repeat}: {error}" for task, method, repeat, error in failed]
        missing += [f"{count(pending, 'trial')} not run yet"] if pending else []
        asked = run.request["meta"]
        meta = {**asked, "missing": missing, "notes": [*asked.get("notes", []), *frames.origins(store, run.keys)]}
        read = frames.curves(store, run.keys if curves else ())
        answer = cls(results, read, meta, failed, pending, run.request["settings"])
        if answer.comparable:
            object.__setattr__(answer, "mean_curves", frames.mean_curves(store, answer.comparison.counted(results)))
        return answer

    @cached_property
    def comparison(self) -> Comparison:
        """Everything the statistics say; UserError where there are too few results to compare."""
        control = str(self.meta["control"])
        there = list(dict.fromkeys(self.results["method"]))
        if control not in there or len(there) < 2:
            raise UserError(f"no comparison: results of {' and '.join(there) or 'no method'} alone; {self._why()}")
        results = self.results
        if "majority" not in results:
            shares = {entry["name"]: entry.get("majority") for entry in self.meta["datasets"]}
            results = results.assign(majority=results["dataset"].map(shares).astype(float))
        fixed = [entry["name"] for entry in self.meta["datasets"] if entry.get("fixed_test")]
        return compare_methods(
            results.assign(fixed_test=results["fixed_test"] | results["dataset"].isin(fixed)),
            control=control,
            missing="drop",
            metric=self._metric,
            size_control=MATCHED,
            equivalent=self._region,
            moves=self._moves,
        )

    @property
    def comparable(self) -> bool:
        """Whether there are enough results for a table and a verdict."""
        try:
            return bool(self.comparison)
        except UserError:
            return False

    @property
    def verdict(self) -> str:
        """What was found, what decides how to read it, and what to do next: a sentence a line for each kind."""
        found, there = self.comparison, set(self.results["method"])
        lost = [name for name in map(str, self._methods) if name not in there]
        said = [f"No result of {', '.join(lost)}: {self._why(lost)}."] if lost else []
        return "\n".join([found.headline, *said, *found.findings, *found.warnings, f"Next: {found.advice}"])

    @property
    def details(self) -> str:
        """What the verdict sums up: a line for each method and data set, what intervals cover, and the methods."""
        found = self.comparison
        known = [f"{name}: {one['title']}. {one['note']}".rstrip(" .") for name, one in self._methods.items()]
        sentences = [*(one.text for one in found.headlines), *found.dataset_lines.values(), *found.notes]
        if self.results.get("temperature", pd.Series(dtype=float)).notna().any():
            cells = [[name, *row] for name, row in calibration_cells(found.counted(self.results)).items()]
            sentences += text_table(["Method", *HEADINGS], cells).splitlines()
        return "\n".join([*sentences, "", *known])

    @property
    def table(self) -> pd.DataFrame:
        """A row a method, over all data sets; accuracies and their differences are fractions."""
        scores = ["nll", "ece", "balanced", "f1", "brier", "temperature", *CALIBRATED]
        names = ["accuracy", "delta", "low", "high", "wins", "ties", "losses", "mean_rank", *scores]
        names += ["equivalent"] if self._region else []
        rows = {}
        for row in self.comparison.overall:
            span = (row.interval.low, row.interval.high) if row.interval else (None, None)
            counts = (row.counts.wins, row.counts.ties, row.counts.losses) if row.counts else (None, None, None)
            further = [getattr(row, name) for name in scores]
            further += [row.equivalence and row.equivalence.equivalent] if self._region else []
            rows[row.method] = [row.accuracy, row.delta, *span, *counts, row.mean_rank, *further]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=names)
        return frame.rename_axis("method").astype("float64")

    def display(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells of ``table`` for people, and the majority class's share."""
        beside = [name for name in METRICS if name != self._metric] if self._unbalanced else []
        scores = [f"{_SHORT[name]} %" for name in (self._metric, *beside)]
        within = [f"Within {self.settings['equivalent']:g}, %"] if self._region else []
        differences = [f"Δ vs {self.comparison.control}", "95 % interval", *within]
        headings = ["Method", *scores, *differences, "W/T/L", "Mean rank", "NLL", "ECE %"]
        cells = [
            [
                row.method,
                percent(row.score),
                *(percent(getattr(row, name)) for name in beside),
                "" if row.delta is None else points(row.delta),
                points_range(row.interval.low, row.interval.high) if row.interval else "",
                *([percent(row.equivalence.equivalent, 0) if row.equivalence else ""] if within else []),
                f"{row.counts.wins}/{row.counts.ties}/{row.counts.losses}" if row.counts else "",
                decimal(row.mean_rank, 2),
                "" if row.nll is None else decimal(row.nll),
                "" if row.ece is None else percent(row.ece, 1),
            ]
            for row in self.comparison.overall
        ]
        guesses = self.comparison.majority.values()
        if guesses:
            share = percent(sum(guesses) / len(guesses))
            cells.append(["(majority class)", share, *[""] * (len(headings) - 2)])
        return headings, cells

    def report(self, path: str | Path) -> Path:
        """Write the page, one self-contained HTML file, and return its path."""
        judged = self.results.assign(accuracy=self.results[self._metric])
        page = render_comparison(self.comparison, judged, self.mean_curves, self.meta)
        return write_text(Path(path), page, "report")

    def to_dict(self) -> Json:
        """Return the same numbers for scripts, as plain data."""
        rows = self.results.drop(columns=["key", "hits"], errors="ignore").astype("object")
        failed = ("dataset", "method", "repeat", "error")
        return {
            "meta": dict(self.meta),
            "settings": dict(self.settings),
            "comparison": self.comparison.to_dict(),
            "headline": self.comparison.headline,
            "verdict": self.verdict.splitlines(),
            "results": rows.where(rows.notna(), None).to_dict("records"),
            "failures": [dict(zip(failed, one, strict=True)) for one in self.failures],
            "pending": self.pending,
        }

    def __repr__(self) -> str:
        try:
            headings, cells = self.display()
        except UserError as error:
            return f"ComparisonResult({len(self.results)} results; {error})"
        headline, _, rest = self.verdict.partition("\n")
        return f"{headline}\n\n{text_table(headings, cells)}\n\n{rest}"

    def _repr_html_(self) -> str:
        if not self.comparable:
            return f"<p>{escape(repr(self))}</p>"
        headings, cells = self.display()
        headline, *rest = map(escape, self.verdict.splitlines())
        table = pd.DataFrame(cells, columns=headings).to_html(index=False, escape=True, border=0)
        return f"<p><strong>{headline}</strong></p>{table}" + "".join(f"<p>{line}</p>" for line in rest)

    @property
    def _region(self) -> float | None:
        """The size up to which differences don't matter, as a fraction."""
        given = self.settings.get("equivalent")
        return None if given is None else float(given) / 100

    @property
    def _metric(self) -> Literal["accuracy", "balanced", "f1"]:
        metric: Literal["accuracy", "balanced", "f1"] = self.meta["recipe"].get("metric", "accuracy")
        return metric

    @property
    def _moves(self) -> dict[str, int]:
        """The epoch after which the schedule of each method that has a moving one first moves."""
        epochs, found = self.meta["recipe"]["epochs"], dict[str, int]()
        for entry in self.meta["methods"]:
            (_, *first), *steps = entry["schedule"] or [(0.0,)]
            moved = next((progress for progress, *weights in steps if weights != first), None)
            if moved is not None:
                whole = self.meta["recipe"].get("granularity") == "epoch"  # it moves between epochs only
                after = ceil(epochs * moved - 1e-9) if whole else int(epochs * moved)
                if after < epochs:
                    found[str(entry["name"])] = after
        return found

    @property
    def _unbalanced(self) -> bool:
        """Whether scores that count classes alike belong beside accuracy: a class is a third larger than its share."""
        if "balanced" not in self.results:
            return False
        return self._metric != "accuracy" or bool((self.results["majority"] * self.results["classes"] > 4 / 3).any())

    @property
    def _methods(self) -> dict[str, Json]:
        return {str(entry["name"]): entry for entry in self.meta["methods"]}

    def _why(self, methods: Sequence[str] | None = None) -> str:
        errors = [error for _, name, _, error in self.failures if methods is None or name in methods]
        if errors:
            return f"{count(len(errors), 'trial')} failed, the first with: {errors[0]}"
        return f"{count(self.pending, 'trial')} not run yet"
