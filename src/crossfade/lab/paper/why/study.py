"""The studies of dynamics and escape: their trials in a store, and tables, figures and pages from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from crossfade.errors import UserError
from crossfade.lab import frames
from crossfade.lab.files import write_text
from crossfade.lab.hardware import Hardware
from crossfade.lab.paper.processes import process_executor
from crossfade.lab.paper.study import DEFINED
from crossfade.lab.paper.why import dynamics, escape
from crossfade.lab.paper.why.files import command_line, write_study
from crossfade.lab.paper.why.watched import stored_tables
from crossfade.lab.provenance import describe_run
from crossfade.lab.run import run_request
from crossfade.lab.store import Outcome, Run, Store
from crossfade.lab.trial import Trial
from crossfade.stats.words import count


class Study(Protocol):
    """A module that defines a why-study with trials in a store."""

    def compute(self, trial: Trial, folder: Path) -> Outcome:
        """Train and measure one trial, given a folder for resuming it."""

    def tables(self, found: Mapping[str, pd.DataFrame], scale: str) -> dict[str, pd.DataFrame]:
        """Return the study's tables by name, given the stored tables and the scale."""

    def figures(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
        """Return the figures by name, drawn from these tables."""


STUDIES: dict[str, Study] = {dynamics.STUDY: dynamics, escape.STUDY: escape}


def run_study(
    name: str,
    trials: Sequence[Trial],
    scale: str,
    *,
    store: Path,
    out: Path,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    retry_failed: bool = False,
    progress: bool = True,
) -> int:
    """Compute the trials that aren't in the store, and write tables, figures and provenance to the folder ``out``.

    Args:
        name: One of `STUDIES`.
        trials, scale: The study's plan, and the scale that it was made for.
        store: The file that keeps every result.
        hardware: A Ray cluster, or the number of trials at the same time (``threads``), each on one core.

    Returns:
        How many trials failed.

    Raises:
        UserError: a folder or store that can't be written to.
    """
    out.mkdir(parents=True, exist_ok=True)  # the store may lie in it
    study = STUDIES[name]
    meta = describe_run(DEFINED[name]["title"], trials, command_line(), scale=scale)
    request = Run(name, {"meta": meta, "settings": {"scale": scale}}, tuple(trial.key for trial in trials))
    with Store(store) as opened:
        summary = run_request(
            [request],
            trials,
            opened,
            hardware,
            family=partial(process_executor, study.compute),
            retry_failed=retry_failed,
            progress=progress,
            label=name.capitalize(),
        )
        _write_files(opened, request, out)
    return summary.failed


def tables_of(store: Store, request: Run) -> dict[str, pd.DataFrame]:
    """Return a study's tables from the trials that have been run."""
    return STUDIES[request.study].tables(stored_tables(store, request), request.request["settings"]["scale"])


def _write_files(store: Store, request: Run, out: Path) -> None:
    meta, tables = request.request["meta"], tables_of(store, request)
    figures = STUDIES[request.study].figures(tables) if tables else {}
    origins = [dict(row.provenance or {}) for row in store.rows(request.keys)]
    distinct = {(one.get("commit"), one.get("machine")): one for one in origins}
    settings = {"data sets": _names(meta["datasets"]), "methods": _names(meta["methods"])}
    write_study(
        out, request.study, meta["scale"], tables, figures, settings, command=meta["command"], earlier=distinct.values()
    )


def _names(entries: Sequence[Mapping[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def write_page(store: Store, runs: Sequence[Run], report: Path) -> str:
    """Write a page with the figures of the latest of these runs, and return a summary line.

    Raises:
        UserError: no trial has been run yet, or the page can't be written.
    """
    from crossfade.report import Code, Facts, Figure, Items, Page, Panel, Section, render_page
    from crossfade.stats.drawing import to_svg

    request = runs[0]
    meta, tables, captions = request.request["meta"], tables_of(store, request), DEFINED[request.study]["captions"]
    if not tables:
        raise UserError(f"{request.study}: no trial has been run yet")
    drawn = [
        Figure((Panel(Markup(to_svg(figure, prefix=f"{name}-")), name=captions[name]),), captions[name])
        for name, figure in STUDIES[request.study].figures(tables).items()
    ]
    missing = [
        f"{task} · {name} · seed {seed}: {error}" for task, name, seed, error in frames.failures(store, request.keys)
    ]
    pending = len(request.keys) - len(store.statuses(request.keys))
    missing += [f"{count(pending, 'trial')} not run yet"] if pending else []
    facts = [("Scale", meta["scale"]), ("Device", meta["device"]), ("Commit", meta["commit"] or "installed package")]
    sections = [
        Section("figures", "Figures", tuple(drawn)),
        Section("run", "What was run", (Facts((*facts, *meta["versions"].items())), Code(meta["command"], "Command"))),
    ]
    if missing:
        sections.append(Section("not-run", "What was not run", (Items(tuple(missing)),)))
    sets = ", ".join(_names(meta["datasets"]))
    page = Page(title=meta["title"], lead=f"Measured on {sets}.", verdict=(), sections=tuple(sections))
    write_text(report, render_page(page), "--report")
    return f"{meta['title']}: {len(tables)} tables of {sets}"
