"""Dynamics and escape as runs: trials into a store, then tables, figures and a page from what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from crossfade.errors import UserError
from crossfade.lab import frames
from crossfade.lab.described import describe_run
from crossfade.lab.files import write_text
from crossfade.lab.paper.why import dynamics, escape, escape_figures
from crossfade.lab.paper.why.files import check_scale, output_folder, write_provenance, write_table
from crossfade.lab.paper.why.simulation import pair_rows
from crossfade.lab.paper.why.watched import seen, spread
from crossfade.lab.run import run_request
from crossfade.lab.store import Run, Store
from crossfade.lab.train.hardware import processors
from crossfade.lab.trial import Trial

__all__ = ["run_dynamics", "run_escape", "write_page"]

_TITLES = {
    dynamics.STUDY: "Training dynamics: who moves from wrong to right",
    escape.STUDY: "Escaping efficiency, eq. (15) to (18)",
}
_CAPTIONS = {
    "transitions": "Test examples that are wrong and near after 70/90 of the training: the share that is right at the "
    "end.",
    "mass": "Share of the gradient over p of the training examples, under four losses.",
    "calibration": "Test scores over the epochs.",
    "along": "Tr(HΣ) of each mixture over CE's at the same weights.",
    "pair": "The pair of examples in closed form: the gain, the printed and the derived bound.",
    "simulation": "Walkers that left the sharp minimum.",
    "slices": "Loss slices around the solutions.",
    "rise": "The measured rise of the loss against its prediction.",
}


def run_dynamics(
    data_dir: Path | None,
    methods: Sequence[str],
    only: Sequence[str],
    scale: str,
    command: Sequence[str],
    *,
    store: Path,
    out: Path,
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Follow p of every example through training, and write tables, figures and provenance into ``out``.

    Returns:
        How many trials failed.

    Raises:
        UserError: unknown scale, method or data set, or data that isn't there.
    """
    check_scale(scale)
    trials = dynamics.plan(dynamics.cells(data_dir, scale, only), methods or dynamics.METHODS)
    return _run(dynamics.STUDY, trials, scale, command, store, output_folder(out), workers, retry_failed)


def run_escape(
    data_dir: Path | None,
    only: Sequence[str],
    scale: str,
    command: Sequence[str],
    *,
    store: Path,
    out: Path,
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Measure escaping efficiency, and write tables, figures and provenance into ``out``: see `run_dynamics`."""
    check_scale(scale)
    trials = escape.plan(data_dir, scale, only)
    return _run(escape.STUDY, trials, scale, command, store, output_folder(out), workers, retry_failed)


def _run(
    study: str,
    trials: Sequence[Trial],
    scale: str,
    command: Sequence[str],
    store_path: Path,
    out: Path,
    workers: int | None,
    retry_failed: bool,
) -> int:
    if not trials:
        raise UserError(f"--sets: no such data set in {study} at scale {scale}")
    meta = describe_run(_TITLES[study], trials, command, scale=scale)
    request = Run(study, {"meta": meta, "settings": {"scale": scale}}, tuple(trial.key for trial in trials))
    compute = dynamics.compute if study == dynamics.STUDY else escape.compute
    summary = run_request(
        [request],
        trials,
        store_path,
        execute=lambda work: spread(compute, work, workers or processors()),
        retry_failed=retry_failed,
        label=study.capitalize(),
    )
    with Store(store_path, "read") as opened:
        write_files(opened, request, out)
    return summary.failed


def tables_of(store: Store, request: Run) -> dict[str, pd.DataFrame]:
    """Return a study's tables as far as its trials have been run."""
    scale = request.request["settings"]["scale"]
    if request.study == dynamics.STUDY:
        return {
            name: _with_unit(table, scale, ["dataset", "method", "seed"])
            for name, table in seen(store, request).items()
        }
    found = seen(store, request, "trained_with")
    units = {"along": ["dataset", "trained_with", "seed", "epoch"], "minima": ["dataset", "network"]}
    if "minima" in found:
        found["minima"] = found["minima"].drop(columns=["trained_with", "seed"])
    if "simulation" in found:
        names = {"dataset": "well", "trained_with": "mixture"}
        found["simulation"] = found["simulation"].rename(columns=names).drop(columns="seed")
        units["simulation"] = ["well", "mixture"]
        found["pair"] = pd.DataFrame(list(pair_rows()))
        units["pair"] = []
    same = ["dataset", "trained_with", "seed"]
    return {name: _with_unit(table, scale, units.get(name, same)) for name, table in found.items()}


def _with_unit(table: pd.DataFrame, scale: str, columns: Sequence[str]) -> pd.DataFrame:
    """Put a first column that names the trial, or the moment of one, that a row belongs to."""
    unit = pd.Series(scale, index=table.index)
    for name in columns:
        unit = unit + "/" + table[name].astype("str")
    return pd.concat([unit.rename("unit"), table], axis=1)


def figures_of(study: str, tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """Return a study's figures by name."""
    return dynamics.figures(tables) if study == dynamics.STUDY else escape_figures.figures(tables)


def write_files(store: Store, request: Run, out: Path) -> None:
    """Write every table as CSV, every figure as SVG, and ``provenance.json``."""
    from crossfade.stats.drawing import save_svg

    tables = tables_of(store, request)
    for name, table in tables.items():
        write_table(table, out / f"{name}.csv")
    for name, figure in figures_of(request.study, tables).items() if tables else ():
        save_svg(figure, out / f"{name}.svg", outlines=False)
    origins = [dict(row.provenance or {}) for row in store.rows(request.keys)]
    distinct = {(one.get("commit"), one.get("machine")): one for one in origins}
    meta = request.request["meta"]
    settings = {"data sets": [entry["name"] for entry in meta["datasets"]], "methods": _names(meta["methods"])}
    write_provenance(out, request.study, meta["scale"], settings, meta["command"], distinct.values())


def _names(entries: Sequence[Mapping[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def write_page(store: Store, runs: Sequence[Run], report: Path) -> str:
    """Write a page with the figures of the latest of these runs, and return a line that says what it shows."""
    from crossfade.report import Code, Facts, Figure, Items, Page, Panel, Section, render_page
    from crossfade.stats.drawing import to_svg

    request = runs[0]
    meta, tables = request.request["meta"], tables_of(store, request)
    if not tables:
        raise UserError(f"{request.study}: no trial has been run yet")
    drawn = [
        Figure((Panel(Markup(to_svg(figure, prefix=f"{name}-")), name=_CAPTIONS[name]),), _CAPTIONS[name])
        for name, figure in figures_of(request.study, tables).items()
    ]
    missing = [
        f"{task} · {name} · seed {seed}: {error}" for task, name, seed, error in frames.failures(store, request.keys)
    ]
    pending = len(request.keys) - len(store.statuses(request.keys))
    missing += [f"{pending} trials have not been run yet"] if pending else []
    facts = [("Scale", meta["scale"]), ("Device", meta["device"]), ("Commit", meta["commit"] or "installed package")]
    how = (Facts((*facts, *meta["versions"].items())), Code(meta["command"], "Command"))
    sets = ", ".join(_names(meta["datasets"]))
    page = Page(
        title=meta["title"],
        lead=f"Measured on {sets}.",
        verdict=(),
        sections=(
            Section("figures", "Figures", tuple(drawn)),
            Section("run", "What was run", how),
            *([Section("not-run", "What was not run", (Items(tuple(missing)),))] if missing else []),
        ),
    )
    write_text(report, render_page(page), "--output")
    return f"{meta['title']}: {len(tables)} tables of {sets}"
