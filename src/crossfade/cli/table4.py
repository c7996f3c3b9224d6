"""``crossfade run table4``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.paper.table4 import Plan
    from crossfade.lab.run import Summary
    from crossfade.lab.store import Store

__all__ = ["table4", "write_page"]


def table4(
    *,
    data_dir: Path | None = None,
    methods: list[str] | None = None,
    loss: list[str] | None = None,
    net: list[str] | None = None,
    seeds: int = 2,
    splits: int = 1,
    sets: list[str] | None = None,
    momentum: float = 0.9,
    scale: Literal["smoke", "short", "paper"] = "paper",
    store: Path = Path("table4.db"),
    report: Path = Path("table4.html"),
    workers: int | None = None,
    ray: str | None = None,
    retry_failed: bool = False,
) -> int:
    """Table 4 and Figure 3: losses on the 121 UCI sets, ours beside the paper's.

    After an interruption the same command goes on where it stopped. Lists are
    separated by commas.

    Args:
        data_dir: Where the data is; `crossfade data uci --download` gets it. [default: the user's cache folder]
        methods: Losses to compare. [default: ce,f0,f0-late,gradual,el,focal]
        loss: Your own loss g(ce) beside them, as module:function or file.py:function.
        net: linear, mlp or both.
        seeds: Repeats with their own initial weights and batches.
        splits: How many of the four published splits.
        sets: Only these data sets.
        momentum: Of SGD. The paper doesn't say which; 0 is the other reading.
        scale: smoke and short are shortened, and labelled so.
        store: Keeps every result.
        report: The page to write.
        workers: Threads. [default: all cores]
        ray: Run on the Ray cluster at this address instead; auto is the one of this machine.
        retry_failed: Run failed trials again.
    """
    from crossfade.cli.compare import check_output, check_workers
    from crossfade.lab.data.catalogue import default_data_dir
    from crossfade.lab.paper.table4 import NETS, Request, plan
    from crossfade.lab.store import Store

    check_workers(workers)
    check_output(report, "--report")
    request = Request(
        data_dir or default_data_dir(), tuple(_methods(methods, loss)), tuple(_split(net) or NETS), seeds, splits,
        tuple(_split(sets)), momentum, scale,
    )  # fmt: skip
    planned = plan(request, ["crossfade", *sys.argv[1:]])
    print("\n".join(planned.lines()), file=sys.stderr)
    with Store(store) as opened:
        try:
            summary = _run(planned, opened, workers, ray, retry_failed)
        except KeyboardInterrupt:
            known = len(opened.statuses([trial.key for trial in planned.trials]))
            print(
                f"\ncrossfade: stopped; {known} of {len(planned.trials)} trials are in {store}. Run the same command "
                "again to go on.",
                file=sys.stderr,
            )
            return 130
        if summary.failed:
            _tell_failures(opened, planned, store)
        if summary.failed < len(planned.trials):
            print(write_page(opened, planned.runs.values(), report))
    print(
        f"{summary.done} trials computed in {summary.seconds:.0f} s, {summary.known} known before"
        + (f", {summary.failed} failed" if summary.failed else ""),
        file=sys.stderr,
    )
    page = f"Page: {report}   " if summary.failed < len(planned.trials) else ""
    print(f"{page}Results: {store}", file=sys.stderr)
    return 1 if summary.failed else 0


def _run(planned: Plan, store: Store, workers: int | None, ray: str | None, retry_failed: bool) -> Summary:
    from crossfade.lab.run import run_request
    from crossfade.lab.train.hardware import Hardware

    return run_request(
        planned.runs.values(),
        planned.trials,
        store,
        Hardware(threads=workers),
        ray=ray,
        retry_failed=retry_failed,
        label="Table 4",
    )


def _tell_failures(store: Store, planned: Plan, path: Path) -> None:
    from crossfade.lab import frames

    failed = frames.failures(store, [trial.key for trial in planned.trials])
    for task, method, repeat, error in failed[:5]:
        print(f"crossfade: failed: {task}, {method}, repeat {repeat}: {error}", file=sys.stderr)
    if len(failed) > 5:
        print(f"crossfade: and {len(failed) - 5} more; see `crossfade status {path}`", file=sys.stderr)


def write_page(store: Store, runs: object, report: Path) -> str:
    """Write the page of these runs, from the store alone, and return its tables as text."""
    from collections.abc import Iterable
    from typing import cast

    from crossfade.lab import frames
    from crossfade.lab.files import write_text
    from crossfade.lab.paper.table4_page import net_table, page, text
    from crossfade.lab.store import Run
    from crossfade.report import render_page

    chosen = list(cast("Iterable[Run]", runs))
    tables, meta = [], dict(chosen[0].request["meta"])
    for run in chosen:
        results = frames.results(store, run.keys)
        lost = sorted({f"{name} ({run.request['meta']['net']})" for name, *_ in frames.failures(store, run.keys)})
        # A data set with a failed trial is named and left out whole: a table with a hole compares unequal things.
        meta["missing"] = [*meta["missing"], *lost]
        failed = {name.rpartition(" (")[0] for name in lost}
        tables.append(net_table(results[~results["dataset"].isin(failed)], run.request["meta"]["net"]))
    write_text(report, render_page(page(tables, meta)), "--report")
    return text(tables, meta)


def _methods(methods: list[str] | None, loss: list[str] | None) -> list[Method]:
    from crossfade.lab.methods import DEFAULT_METHODS, method
    from crossfade.lab.own_loss import load_loss

    return [method(name) for name in _split(methods) or DEFAULT_METHODS] + [load_loss(spec) for spec in loss or []]


def _split(items: list[str] | None) -> list[str]:
    return [part.strip() for item in items or [] for part in item.split(",") if part.strip()]
