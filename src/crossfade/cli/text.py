"""``crossfade compare FILE --text COLUMN``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.cli.images import _first, _hardware, _words
from crossfade.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crossfade.lab.paper.text_study import TextPlan

__all__ = ["compare_texts"]


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
