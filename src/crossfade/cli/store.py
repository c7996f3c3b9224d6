"""``crossfade status``, ``report`` and ``export``: what needs a store and no training."""

from __future__ import annotations

import io
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.lab.store import Run

_STORE = Path("crossfade.db")

# Functions (store, runs of one command, path) that write a page of their own, by the study's name up to a hyphen.
PAGES = {
    "table4": "crossfade.lab.paper.table4_page:write_page",
    "dynamics": "crossfade.lab.paper.why.study:write_page",
    "escape": "crossfade.lab.paper.why.study:write_page",
}


def status(store: Path = _STORE, /) -> int:
    """Show every request that a store has seen: what is done, what failed, what is missing.

    Args:
        store: The file that `crossfade compare` or `crossfade run` keeps its results in.
    """
    from crossfade.lab import frames
    from crossfade.lab.store import Store

    with Store(store, "read") as opened:
        runs = opened.runs()
        if not runs:
            print(f"{store}: no requests yet")
        for run in runs:
            known = opened.statuses(run.keys)
            lost = sum(value == "failed" for value in known.values())
            started = datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M")
            print(
                f"{run.id}  {run.study}  {started}  {len(known) - lost} of {len(run.keys)} done"
                + (f", {lost} failed" if lost else "")
                + (f", {len(run.keys) - len(known)} missing" if len(known) < len(run.keys) else "")
            )
            print(f"    {run.request.get('meta', {}).get('command', '')}")
            for line in frames.failure_lines(frames.failures(opened, run.keys)):
                print(f"    failed: {line}")
    return 0


def report(store: Path = _STORE, /, *, output: Path = Path("report.html"), run: str | None = None) -> int:
    """Write the page of a request from what the store holds; nothing is trained.

    Args:
        store: The file with the results.
        output: The page to write.
        run: Which request, as `crossfade status` names it. [default: the latest]
    """
    from crossfade.cli.options import check_output
    from crossfade.lab.result import ComparisonResult
    from crossfade.lab.store import Store

    check_output(output, "--output")
    with Store(store, "read") as opened:
        runs = opened.runs()
        chosen = _choose(runs, run, store)
        study = chosen.study.partition("-")[0]
        if study in PAGES:
            home, _, function = PAGES[study].partition(":")
            command = chosen.request["meta"]["command"]
            together = [one for one in runs if one.request["meta"].get("command") == command]
            print(getattr(import_module(home), function)(opened, together[::-1], output))
            return 0
        answer = ComparisonResult.load(opened, chosen)
    if answer.pending:
        print(f"note: {answer.pending} of {len(chosen.keys)} trials have not been run yet", file=sys.stderr)
    print(f"Page: {answer.report(output)}")
    return 0


def export(output: Path, /, *, store: Path = _STORE, run: str | None = None, curves: bool = False) -> int:
    """Write results as a table: one row a trial, or with --curves one row a trial and epoch.

    Args:
        output: The file to write: .csv, .tsv or .parquet.
        store: The file with the results.
        run: Only one request, as `crossfade status` names it. [default: everything in the store]
        curves: Training curves instead of results.
    """
    from crossfade.cli.options import check_output
    from crossfade.lab import frames
    from crossfade.lab.files import write_bytes
    from crossfade.lab.store import Store

    suffix = output.suffix.lower()
    if suffix not in {".csv", ".tsv", ".parquet", ".pq"}:
        raise UserError(f"{output}: the name decides the format; use .csv, .tsv or .parquet")
    check_output(output, "export")
    with Store(store, "read") as opened:
        keys = None if run is None else _choose(opened.runs(), run, store).keys
        frame = frames.curves(opened, keys) if curves else frames.results(opened, keys)
        lost = len(frames.failures(opened, keys))
    content = io.BytesIO()
    if suffix in {".parquet", ".pq"}:
        frame.to_parquet(content, index=False)
    else:
        frame.to_csv(content, index=False, sep="\t" if suffix == ".tsv" else ",")
    write_bytes(output, content.getvalue(), "export")
    print(f"{output}: {len(frame)} rows" + (f" ({lost} failed trials have none)" if lost else ""))
    return 0


def _choose(runs: Sequence[Run], wanted: str | None, store: Path) -> Run:
    if not runs:
        raise UserError(f"store {store}: holds no request yet")
    if wanted is None:
        return runs[0]
    found = [run for run in runs if run.id.startswith(wanted)]
    if len(found) != 1:
        raise UserError(f"--run {wanted}: matches {len(found)} of {', '.join(run.id for run in runs)}")
    return found[0]
