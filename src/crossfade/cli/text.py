"""``crossfade run table3 | figure2``, and ``crossfade compare FILE --text COLUMN``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossfade.cli.images import _first, _hardware, _words
from crossfade.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from crossfade.lab.paper.text_study import TextPlan
    from crossfade.lab.train.hardware import Hardware

__all__ = ["compare_texts", "figure2", "table3"]


def compare_texts(
    file: Path,
    /,
    *,
    text: list[str],
    target: str | None = None,
    test: Path | None = None,
    categorical: list[str] | None = None,
    methods: list[str] | None = None,
    loss: list[str] | None = None,
    net: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    repeats: int | None = None,
    seed: int | None = None,
    test_size: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    max_length: int | None = None,
    accumulate: int | None = None,
    precision: str | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    workers: int | None = None,
    store: Path = Path("crossfade.db"),
    report: Path = Path("report.html"),
    json: Path | None = None,
    retry_failed: bool = False,
) -> int:
    """Train a network under different losses, on your own texts, and compare.

    FILE is a table with a column of texts and a column of classes. Each repeat
    splits the rows anew. Every method gets the same split, initial weights and
    order, and its own epoch, chosen on validation texts. After an interruption
    the same command goes on where it stopped. Lists are separated by commas.

    Args:
        file: CSV, TSV (also packed) or Parquet, one row an example.
        text: The column with the text; two columns for pairs of texts (with bert).
        target: The column with the class.
        test: Another table with rows to test on; otherwise every repeat draws its own.
        categorical: The target's name, if its many different numbers are classes.
        methods: Losses to compare, see `crossfade list`. [default: ce,f0,f0-late,gradual]
        loss: Your own loss g(ce), as module:function or file.py:function.
        net: lstm, or bert:NAME with a model of the Hugging Face hub or a folder. [default: lstm]
        width: Cells of an LSTM, and numbers in a word's vector. [default: 50]
        depth: Layers of an LSTM. [default: 1]
        repeats: Splits of the data, with their own initial weights. [default: 5]
        seed: Another number gives other splits, weights and batches. [default: 0]
        test_size: Share of the rows to test on; as many are for validation. [default: 0.2]
        epochs: Passes over the training texts. [default: 10; with bert 3]
        batch_size: Texts in a step. [default: 64; with bert 32; fewer for few texts]
        learning_rate: Of Adam; of AdamW with bert, falling to zero. [default: 0.001; with bert 0.00002]
        max_length: Words (with bert tokens) that are kept of a text. [default: 128]
        accumulate: With bert: a step's batch comes in so many parts. [default: 1]
        precision: With bert: 32-true, 16-mixed or bf16-mixed. [default: 32-true]
        accelerator: auto, cpu, gpu, ...
        devices: With bert: more than one is DDP.
        nodes: With bert: machines; start the same command on each with torchrun.
        workers: Threads for LSTMs. [default: all cores]
        store: Keeps every result.
        report: The page to write.
        json: Write the same numbers for scripts; - is standard output.
        retry_failed: Run failed trials again.
    """
    from crossfade.cli.compare import _tell, check_output, check_workers
    from crossfade.lab.data.reading import read_frame
    from crossfade.lab.data.texts import load_texts
    from crossfade.lab.text_compare import TextSettings, execute_texts, plan_texts

    columns = [name for one in text for name in _names(one, file)]
    if target is None:
        known = ", ".join(map(str, read_frame(file).frame.columns[:12]))
        raise UserError(f"{file}: which column is the class? Add --target COLUMN (columns: {known})")
    said = {
        "methods": tuple(_words(methods)) or None, "loss": tuple(loss or ()), "net": net, "width": width,
        "depth": depth, "repeats": repeats, "seed": seed, "test_size": test_size, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length, "accumulate": accumulate,
        "precision": precision,
    }  # fmt: skip
    given: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    settings = TextSettings(**given)
    check_workers(workers)
    for path, what in ((report, "--report"), (json, "--json")):
        check_output(path, what)
    hardware = _hardware(accelerator, devices, nodes, False, 4, "")
    data = load_texts(file, columns, target, test=test, numbers_are_names=target in _words(categorical))
    planned = plan_texts(data, settings, ["crossfade", *sys.argv[1:]])
    if _first() and str(json) != "-":
        print("\n".join(planned.lines()), file=sys.stderr, flush=True)
    answer = _stoppable(
        lambda: execute_texts(planned, store, hardware, workers=workers, progress=True, retry_failed=retry_failed),
        planned, store,
    )  # fmt: skip
    return _tell(answer, store, report, json) if _first() else 0


def table3(
    *,
    data_dir: Path | None = None,
    scale: Literal["smoke", "short", "paper"] = "paper",
    nets: list[str] | None = None,
    methods: list[str] | None = None,
    repeats: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    accelerator: str = "auto",
    store: Path = Path("table3.db"),
    report: Path = Path("table3.md"),
    workers: int | None = None,
    plan: bool = False,
    retry_failed: bool = False,
) -> int:
    """Table 3: the rating of clothing reviews, five LSTMs, ours beside the paper's.

    After an interruption the same command goes on where it stopped. Lists are
    separated by commas.

    Args:
        data_dir: Where the data is; `crossfade data reviews` says how to get it. [default: the user's cache folder]
        scale: smoke and short are shortened, and labelled so.
        nets: Only these of arch1 to arch5.
        methods: Losses to compare with CE. [default: ce,f0,f0-late,gradual]
        repeats: Seeds. [default: the paper's eight]
        epochs: Not printed in the paper. [default: 10]
        learning_rate: Of Adam, not printed either. [default: 0.001]
        batch_size: Nor this. [default: 64]
        max_length: Words that are kept of a review. [default: 128]
        accelerator: auto, cpu or gpu.
        store: Keeps every result.
        report: The page to write, Markdown.
        workers: Threads. [default: all cores]
        plan: Print the plan and stop.
        retry_failed: Run failed trials again.
    """
    from crossfade.cli.compare import check_workers
    from crossfade.lab.data.catalogue import default_data_dir
    from crossfade.lab.paper.table3 import plan_table3
    from crossfade.lab.paper.text_tables import table3_markdown

    check_workers(workers)
    planned = plan_table3(
        data_dir or default_data_dir(), ["crossfade", *sys.argv[1:]], scale=scale, architectures=_words(nets),
        methods=_words(methods), repeats=repeats, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size,
        max_length=max_length,
    )  # fmt: skip
    hardware = _hardware(accelerator, 1, 1, False, 4, "")
    return _study(planned, store, report, hardware, plan, retry_failed, table3_markdown, workers)


def figure2(
    *,
    data_dir: Path | None = None,
    model: str = "bert-base-uncased",
    scale: Literal["smoke", "short", "paper"] = "paper",
    tasks: list[str] | None = None,
    methods: list[str] | None = None,
    repeats: int | None = None,
    epochs: int | None = None,
    limit: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true",
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    compile: bool = False,
    logger: str = "",
    store: Path = Path("figure2.db"),
    report: Path = Path("figure2.md"),
    plan: bool = False,
    retry_failed: bool = False,
) -> int:
    """Figure 2: BERT fine-tuned on GLUE, and the profile of the methods.

    Data comes from DATA_DIR/glue/TASK/{train,dev}.tsv, or from the hub. After an
    interruption the same command goes on from the last epoch. Lists are
    separated by commas.

    Args:
        data_dir: Where the data is. [default: the user's cache folder]
        model: A name on the Hugging Face hub, or a folder.
        scale: smoke and short are shortened, and labelled so.
        tasks: Only these of CoLA, SST-2, MRPC, QQP, MNLI, QNLI, RTE, WNLI.
        methods: Losses to compare with CE. [default: ce,f0,f0-late,gradual]
        repeats: Seeds. [default: the paper's four]
        epochs: Passes over the training examples. [default: the paper's six]
        limit: Learn from so many examples of each task at most.
        learning_rate: [default: the paper's 2e-5]
        batch_size: Examples in a step. [default: 32]
        accumulate: A step's batch comes in so many parts.
        precision: 32-true, or mixed: 16-mixed, bf16-mixed.
        accelerator: auto, cpu, gpu, ...
        devices: How many of them on each machine; more than one is DDP.
        nodes: Machines; start the same command on each with torchrun.
        compile: Compile the networks first.
        logger: tensorboard or csv, into STORE.work/logs, another of Lightning's (MLFlowLogger), or module:Class.
        store: Keeps every result.
        report: The page to write, Markdown; the profile is drawn beside it.
        plan: Print the plan and stop.
        retry_failed: Run failed trials again.
    """
    from crossfade.lab.data.catalogue import default_data_dir
    from crossfade.lab.paper.figure2 import plan_figure2
    from crossfade.lab.paper.text_tables import figure2_markdown

    planned = plan_figure2(
        data_dir or default_data_dir(), ["crossfade", *sys.argv[1:]], model=model, scale=scale, tasks=_words(tasks),
        methods=_words(methods), repeats=repeats, epochs=epochs, limit=limit, learning_rate=learning_rate,
        batch_size=batch_size, accumulate=accumulate, precision=precision,
    )  # fmt: skip
    hardware = _hardware(accelerator, devices, nodes, compile, 4, logger)
    return _study(planned, store, report, hardware, plan, retry_failed, figure2_markdown)


def _study(
    planned: TextPlan,
    store: Path,
    report: Path,
    hardware: Hardware,
    plan: bool,
    retry_failed: bool,
    table: Callable[[pd.DataFrame], str],
    workers: int | None = None,
) -> int:
    from crossfade.cli.compare import check_output
    from crossfade.lab.run import run_request

    check_output(report, "--report")
    if _first():
        print("\n".join(planned.lines()), file=sys.stderr, flush=True)
    if plan:
        return 0
    summary = _stoppable(
        lambda: run_request(
            [planned.run], planned.trials, store, replace(hardware, threads=workers), retry_failed=retry_failed,
            label=planned.run.study,
        ),
        planned, store,
    )  # fmt: skip
    if _first():
        print(_write(planned, store, report, table))
        print(
            f"{summary.done} runs in {summary.seconds:.0f} s, {summary.known} known before, {summary.failed} failed\n"
            f"Page: {report}   Results: {store}",
            file=sys.stderr,
        )
    return 1 if summary.failed else 0


def _write(planned: TextPlan, store: Path, report: Path, table: Callable[[pd.DataFrame], str]) -> str:
    from crossfade.lab import frames
    from crossfade.lab.files import write_text
    from crossfade.lab.paper.text_tables import profile_figure
    from crossfade.lab.store import Store
    from crossfade.stats import to_svg

    with Store(store, mode="read") as opened:
        results = frames.results(opened, planned.run.keys)
    if results.empty:
        return "no results: every run failed"
    shortened = f"\nScale **{planned.scale}**, not the paper's protocol.\n" * (planned.scale != "paper")
    choices = "\n".join(f"- {line}" for line in (*planned.choices, *planned.notes, *planned.missing))
    page = f"### {planned.title}\n{shortened}\nPercent.\n\n{table(results)}\n\n{choices}\n"
    figure = profile_figure(results, planned.title) if planned.run.study == "figure2" else None
    if figure is not None:
        drawn = report.with_suffix(".svg")
        write_text(drawn, to_svg(figure), "--report")
        page += f"\n![performance profile]({drawn.name})\n"
    write_text(report, page, "--report")
    return page


def _stoppable(work: Callable[[], Any], planned: TextPlan, store: Path) -> Any:
    """Ctrl-C says how to go on."""
    from crossfade.lab.store import Store

    try:
        return work()
    except KeyboardInterrupt:
        known = 0
        if store.exists():
            with Store(store, mode="read") as opened:
                known = len(opened.statuses(planned.run.keys))
        print(
            f"\ncrossfade: stopped; {known} of {len(planned.trials)} runs are in {store}. Run the same command again "
            "to go on.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


def _names(text: str, file: Path) -> list[str]:
    """One column's name may hold a comma: it is taken as it is where the file has such a column."""
    from crossfade.lab.data.reading import read_frame

    return [text] if "," not in text or text in read_frame(file).frame.columns else _words([text])
