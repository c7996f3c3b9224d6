"""``crossfade status``, ``report`` and ``export``: what needs a store and no training."""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from crossfade.cli.options import JsonPath, Overwrite, Quiet
from crossfade.errors import UserError
from crossfade.stats.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.lab.store import Run

_STORE = Path("crossfade.db")

# Functions (store, runs of one command, path) that write a page of their own, by the study's name up to a hyphen.
PAGES = {
    "table4": "crossfade.lab.paper.table4_page:write_page",
    "map": "crossfade.lab.paper.map_page:write_page",
    "dynamics": "crossfade.lab.paper.why.study:write_page",
    "escape": "crossfade.lab.paper.why.study:write_page",
}


def status(store: Path = _STORE, *, verify: bool = False, quiet: Quiet = False) -> int:
    """Show every request that a store has seen: what is done, what failed, what is missing.

    Args:
        store: The file that `crossfade compare` or `crossfade run` keeps its results in.
        verify: Read every row and every checkpoint, too, and compare them with their checksums.
    """
    from crossfade.lab import frames
    from crossfade.lab.checkpoints import damage, work_folder
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
            if not quiet:
                print(f"    {run.request.get('meta', {}).get('command', '')}")
            for line in frames.failure_lines(frames.failures(opened, run.keys)):
                print(f"    failed: {line}")
        if verify:
            whole, older = opened.verify()
            checkpoints = list(work_folder(store).glob("*/*.ckpt"))
            if torn := [f"{path} ({why})" for path in checkpoints if (why := damage(path))]:
                raise UserError(f"{torn[0]}: {len(torn)} of {len(checkpoints)} checkpoints are damaged; run again")
            unsigned = f", {older} of an older crossfade without checksums" if older else ""
            print(f"verified: {whole} trials{unsigned}, {len(checkpoints)} checkpoints; nothing is damaged")
    return 0


def report(
    store: Path = _STORE,
    *,
    report: Annotated[Path, Parameter(alias="--output")] = Path("report.html"),
    json: JsonPath = None,
    run: str | None = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> int:
    """Write the page of a request from what the store holds; nothing is trained.

    Args:
        store: The file with the results.
        report: The page to write.
        json: Write the same numbers for scripts, where the request is a comparison; - is standard output.
        run: Which request, as `crossfade status` names it. [default: the latest]
    """
    from crossfade.lab.files import check_outputs, write_json
    from crossfade.lab.result import ComparisonResult
    from crossfade.lab.store import Store

    check_outputs([("--report", report), ("--json", json)], [store], overwrite=overwrite)
    with Store(store, "read") as opened:
        runs = opened.runs()
        chosen = _choose(runs, run, store)
        study = chosen.study.partition("-")[0]
        if study in PAGES:
            command = chosen.request["meta"]["command"]
            together = [one for one in runs if one.request["meta"].get("command") == command]
            if json is not None:
                raise UserError(f"--json: is for comparisons, and {chosen.id} is {study}; use crossfade export")
            told = resolve_name(PAGES[study])(opened, together[::-1], report)
            if not quiet:
                print(told)
            return 0
        answer = ComparisonResult.load(opened, chosen, curves=False)
    page = answer.report(report)
    if json is not None:
        write_json(json, answer.to_dict())
    if not quiet:
        if answer.pending:
            print(f"note: {answer.pending} of {count(len(chosen.keys), 'trial')} not run yet", file=sys.stderr)
        print(f"Page: {page}", file=sys.stderr if str(json) == "-" else sys.stdout)
    return 0


def export(
    output: Path | None = None,
    /,
    *,
    store: Path = _STORE,
    run: str | None = None,
    curves: bool = False,
    backup: Path | None = None,
    safe_csv: bool = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> int:
    """Write results as a table: one row a trial, or with --curves one row a trial and epoch.

    The last column names the requests that a row belongs to, as `crossfade status` does.

    Args:
        output: The file to write: .csv, .tsv or .parquet.
        store: The file with the results.
        run: Only one request, as `crossfade status` names it. [default: everything in the store]
        curves: Training curves instead of results.
        backup: Copy the whole store to this new file, also while a run is writing to it.
        safe_csv: Write an apostrophe before words that a spreadsheet would run as formulas, such as =x, +x, -x and @x.
    """
    from crossfade.lab import frames
    from crossfade.lab.files import check_outputs, replacing
    from crossfade.lab.store import Store

    if backup is not None:
        if output is not None or run is not None or curves:
            raise UserError("--backup copies the whole store; leave out the table, --run and --curves")
        if backup.exists():
            raise UserError(f"--backup {backup}: is there already; choose a new name")
        check_outputs([("--backup", backup)], [store])
        with Store(store, "read") as opened:
            opened.backup(backup)
        with Store(backup, "read") as copy:
            whole, _ = copy.verify()
        if not quiet:
            print(f"{backup}: {count(whole, 'trial')}")
        return 0
    if output is None:
        raise UserError("OUTPUT needs a value: see crossfade export --help")
    kinds = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}
    kind = kinds.get(output.suffix.lower(), "")
    if not kind:
        raise UserError(f"{output}: the name decides the format; use .csv, .tsv or .parquet")
    if safe_csv and kind == "parquet":
        raise UserError(f"--safe-csv: {output} is no CSV file; leave the option out, or use .csv or .tsv")
    check_outputs([("export", output)], [store], overwrite=overwrite)
    with Store(store, "read") as opened, replacing(output, "export") as file:
        runs = opened.runs()
        keys, ids = None if run is None else _choose(runs, run, store).keys, defaultdict[str, list[str]](list)
        for request in reversed(runs):
            for key in request.keys:
                ids[key].append(request.id)
        requests = {key: " ".join(named) for key, named in ids.items()}
        write = frames.write_curves if curves else frames.write_results
        rows = write(opened, keys, requests, file, kind, safe_csv)
        lost = len(frames.failures(opened, keys))
    if not quiet:
        print(f"{output}: {count(rows, 'row')}" + (f" ({count(lost, 'failed trial')} without)" if lost else ""))
    return 0


def _choose(runs: Sequence[Run], wanted: str | None, store: Path) -> Run:
    if not runs:
        raise UserError(f"store {store}: holds no request yet")
    found = [run for run in runs if run.id.startswith(wanted)] if wanted is not None else runs[:1]
    if len(found) != 1:
        raise UserError(f"--run {wanted}: matches {len(found)} of {', '.join(run.id for run in runs)}")
    if not {"meta", "settings"} <= found[0].request.keys():
        raise UserError(f"store {store}: request {found[0].id} is damaged; restore a backup, or run its command again")
    return found[0]
