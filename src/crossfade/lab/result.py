"""The answer to a comparison: its numbers, its table, its verdict, its page. Read from a store, nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from crossfade.errors import UserError
from crossfade.lab import frames

if TYPE_CHECKING:
    from crossfade.lab.store import Run, Store
    from crossfade.stats import Comparison

__all__ = ["ComparisonResult", "write_bytes", "write_text"]


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult:
    """What was found.

    Attributes:
        results: One row a trial: data set, method, repeat, accuracy, NLL, ECE, Brier, learning rate, epoch, ...
        curves: One row a trial and epoch.
        meta: Data, recipe, versions, methods: what a report says about the run.
        failures: (data set, method, repeat, error) of trials that failed.
        pending: Number of trials that have not been run.
    """

    results: pd.DataFrame
    curves: pd.DataFrame
    meta: Mapping[str, Any]
    failures: tuple[tuple[str, str, int, str], ...] = ()
    pending: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, store: Store, run: Run) -> Self:
        """The answer as far as the store knows it."""
        results, failed = frames.results(store, run.keys), tuple(frames.failures(store, run.keys))
        pending = len(run.keys) - len(results) - len(failed)
        missing = [f"{task} · {method} · repeat {repeat}: {error}" for task, method, repeat, error in failed]
        missing += [f"{pending} trials have not been run yet"] if pending else []
        meta = {**run.request["meta"], "missing": missing}
        return cls(results, frames.curves(store, run.keys), meta, failed, pending, run.request["settings"])

    @cached_property
    def comparison(self) -> Comparison:
        """Everything the statistics say (``crossfade.stats.compare_methods``).

        Raises:
            UserError: too few results for a comparison.
        """
        from crossfade.stats import compare_methods

        control = str(self.meta["control"])
        there = list(dict.fromkeys(self.results["method"]))
        if control not in there or len(there) < 2:
            raise UserError(f"no comparison: results of {' and '.join(there) or 'no method'} alone; {self._why()}")
        titles = {entry["name"]: entry["title"] for entry in self.meta["methods"]}
        return compare_methods(self.results, control=control, missing="drop", titles=titles)

    @property
    def comparable(self) -> bool:
        """Whether there are results enough for a table and a verdict."""
        try:
            return bool(self.comparison)
        except UserError:
            return False

    @property
    def verdict(self) -> str:
        """What can be said about each method, a sentence a line, and what to be careful about."""
        lost = [
            f"{name} has no result: {self._why(name)}."
            for name in (str(entry["name"]) for entry in self.meta["methods"])
            if name not in set(self.results["method"])
        ]
        return "\n".join([*self.comparison.lines, *lost, *(f"Mind: {line}" for line in self.comparison.warnings)])

    @property
    def table(self) -> pd.DataFrame:
        """A row a method, over all data sets; accuracies and their differences are fractions."""
        rows = [
            {
                "method": row.method, "accuracy": row.accuracy, "delta": row.delta,
                "low": row.interval.low if row.interval else None, "high": row.interval.high if row.interval else None,
                "wins": row.counts.wins if row.counts else None, "ties": row.counts.ties if row.counts else None,
                "losses": row.counts.losses if row.counts else None, "mean_rank": row.mean_rank,
                "nll": row.nll, "ece": row.ece,
            }
            for row in self.comparison.overall
        ]  # fmt: skip
        return pd.DataFrame(rows).set_index("method").astype("float64")

    def display(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of ``table`` for people: titles, percent, points."""
        titles = {entry["name"]: entry["title"] for entry in self.meta["methods"]}
        headings = ["Method", "Accuracy %", "Δ vs CE", "95 % interval", "W/T/L", "Mean rank", "NLL", "ECE %"]
        cells = []
        for row in self.comparison.overall:
            span = f"{_points(row.interval.low)} to {_points(row.interval.high)}" if row.interval else ""
            counts = f"{row.counts.wins}/{row.counts.ties}/{row.counts.losses}" if row.counts else ""
            cells.append(
                [
                    titles.get(row.method, row.method), f"{100 * row.accuracy:.2f}",
                    "" if row.delta is None else _points(row.delta), span, counts, f"{row.mean_rank:.2f}",
                    "" if row.nll is None else f"{row.nll:.3f}", "" if row.ece is None else f"{100 * row.ece:.1f}",
                ]
            )  # fmt: skip
        return headings, cells

    def report(self, path: str | Path) -> Path:
        """Write the page: one HTML file, complete in itself. Returns its path.

        Raises:
            UserError: too few results, or a folder that can't be written to.
        """
        from crossfade.report import comparison_page

        return write_text(Path(path), comparison_page(self.results, self.curves, dict(self.meta)), "report")

    def to_dict(self) -> dict[str, Any]:
        """The same numbers for scripts, as plain data."""
        rows = self.results.drop(columns=["key"]).astype("object")
        return {
            "meta": dict(self.meta),
            "settings": dict(self.settings),
            "comparison": self.comparison.to_dict(),
            "verdict": self.verdict.splitlines(),
            "results": rows.where(rows.notna(), None).to_dict("records"),
            "failures": [
                dict(zip(("dataset", "method", "repeat", "error"), failure, strict=True)) for failure in self.failures
            ],
            "pending": self.pending,
        }

    def __repr__(self) -> str:
        try:
            headings, cells = self.display()
        except UserError as error:
            return f"ComparisonResult({len(self.results)} results; {error})"
        widths = [max(len(line[place]) for line in [headings, *cells]) for place in range(len(headings))]
        lines = [
            "  ".join(text.ljust(width) if not place else text.rjust(width) for place, (text, width) in enumerate(row))
            for row in ([*zip(line, widths, strict=True)] for line in [headings, *cells])
        ]
        return "\n".join([*lines, "", self.verdict])

    def _repr_html_(self) -> str:
        from html import escape

        headings, cells = self.display()
        table = pd.DataFrame(cells, columns=headings).to_html(index=False, escape=True, border=0)
        return table + "".join(f"<p>{escape(line)}</p>" for line in self.verdict.splitlines())

    def _why(self, method: str | None = None) -> str:
        errors = [error for _, name, _, error in self.failures if method in (None, name)]
        if errors:
            return f"{len(errors)} trials failed, the first with: {errors[0]}"
        return f"{self.pending} trials have not been run yet"


def write_text(path: Path, text: str, what: str) -> Path:
    """``write_bytes`` for text."""
    return write_bytes(path, text.encode(), what)


def write_bytes(path: Path, content: bytes, what: str) -> Path:
    """Write a file so that it is there completely or not at all.

    Raises:
        UserError: the folder isn't there or can't be written to.
    """
    part = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            part = Path(file.name)
            file.write(content)
        part.chmod(0o666 & ~_umask())  # temporary files are for their owner alone
        part.replace(path)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise UserError(f"{what} {path}: can't be written ({error.strerror or error})") from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _points(fraction: float) -> str:
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")
