"""``crossfade compare``: from a file to a table, a verdict and a page."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.comparison import Plan
    from crossfade.lab.data.table import Table
    from crossfade.lab.result import ComparisonResult

__all__ = ["check_output", "check_workers", "compare"]

_MARK = 'name="generator" content="crossfade'


def compare(
    file: Path | None = None,
    /,
    *,
    target: str | None = None,
    test: Path | None = None,
    categorical: list[str] | None = None,
    drop: list[str] | None = None,
    methods: list[str] | None = None,
    loss: list[str] | None = None,
    repeats: int | None = None,
    seed: int | None = None,
    test_size: float | None = None,
    net: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rates: list[str] | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    granularity: str | None = None,
    tie: str | None = None,
    config: Path | None = None,
    store: Path = Path("crossfade.db"),
    report: Path = Path("report.html"),
    json: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    workers: int | None = None,
    retry_failed: bool = False,
) -> int:
    """Train one small network under different losses, on your data, and compare.

    Each repeat splits the rows anew. Every method gets the same split, initial
    weights and batches, and its own learning rate and epoch, chosen on
    validation rows. Without FILE: iris, wine, breast cancer and digits.
    After an interruption the same command goes on where it stopped.
    Lists are separated by commas.

    Texts and images have options of their own: `crossfade compare --text --help`,
    and `crossfade compare FOLDER --help` with a folder of class folders.

    Args:
        file: A table: CSV, TSV (also packed) or Parquet, one row an example.
        target: The column with the class.
        test: Another table with rows to test on; otherwise every repeat draws its own test rows.
        categorical: Columns whose numbers are names of categories.
        drop: Columns to leave out.
        methods: Losses to compare, see `crossfade list`, or "all". [default: ce,f0,f0-late,gradual,el,focal]
        loss: Your own loss g(ce), as module:function or file.py:function.
        repeats: Splits of the data, with their own initial weights. [default: 10]
        seed: Another number gives other splits, weights and batches. [default: 0]
        test_size: Share of the rows to test on; as many are for validation. [default: 0.2]
        net: mlp (ReLU) or linear. [default: mlp]
        width: Units in a hidden layer. [default: as many as inputs]
        depth: Hidden layers. [default: 1]
        epochs: Passes over the training rows. [default: 50]
        batch_size: Rows in a step. [default: 8]
        learning_rates: Tried for each method; the best on validation rows counts. [default: 0.01,0.005,0.001]
        momentum: Of SGD. [default: 0.9]
        weight_decay: Of SGD. [default: 0]
        granularity: A schedule moves at every epoch or at every step. [default: epoch]
        tie: Which epoch among equal validation accuracies: first, last, or lowest loss. [default: first]
        config: A TOML file with any of these settings, from --methods to --tie; the command line wins.
        store: Keeps every result; a run that was stopped goes on from it.
        report: The page to write.
        json: Write the same numbers for scripts; - is standard output.
        workers: Threads. [default: all cores]
        retry_failed: Run failed trials again.
    """
    from crossfade.lab.comparison import plan
    from crossfade.lab.config import read_toml, resolve

    said: dict[str, Any] = {
        "methods": _split(methods), "loss": loss, "repeats": repeats, "seed": seed, "test_size": test_size, "net": net,
        "width": width, "depth": depth, "epochs": epochs, "batch_size": batch_size,
        "learning_rates": _numbers(learning_rates), "momentum": momentum, "weight_decay": weight_decay,
        "granularity": granularity, "tie": tie,
    }  # fmt: skip
    settings = resolve(read_toml(config) if config else {}, said)
    check_workers(workers)
    for path, what in ((report, "--report"), (json, "--json")):
        check_output(path, what)
    tables = _tables(file, target, test, _split(categorical) or [], _split(drop) or [])
    planned = plan(tables, settings, ["crossfade", *sys.argv[1:]])
    answer = _run(planned, store, workers, retry_failed)
    return _tell(answer, store, report, json)


def _run(planned: Plan, path: Path, workers: int | None, retry_failed: bool) -> ComparisonResult:
    from crossfade.lab.comparison import execute
    from crossfade.lab.store import Store

    with Store(path) as store:
        try:
            _announce(planned)
            return execute(planned, store, workers=workers, progress=True, retry_failed=retry_failed)
        except KeyboardInterrupt:
            known = len(store.statuses(planned.run.keys))
            print(
                f"\ncrossfade: stopped; {known} of {len(planned.trials)} trials are in {path}. Run the same command "
                "again to go on.",
                file=sys.stderr,
            )
            raise SystemExit(130) from None


def _tables(
    file: Path | None, target: str | None, test: Path | None, categorical: list[str], drop: list[str]
) -> list[Table]:
    from crossfade.lab.data.builtin import BUILTIN, load_builtin
    from crossfade.lab.data.reading import read_frame
    from crossfade.lab.data.table import from_file

    if file is None:
        given = {"--target": target, "--test": test, "--categorical": categorical, "--drop": drop}
        for option, value in given.items():
            if value:
                raise UserError(f"{option} needs a FILE: crossfade compare FILE --target COLUMN")
        return [load_builtin(name) for name in BUILTIN]
    if target is None:
        columns = ", ".join(map(str, read_frame(file).frame.columns[:12]))
        raise UserError(f"{file}: which column is the class? Add --target COLUMN (columns: {columns})")
    return [from_file(file, target, test=test, categorical=categorical, drop=drop)]


def _announce(planned: Plan) -> None:
    first = planned.trials[0]
    tasks = list(dict.fromkeys(trial.task.name for trial in planned.trials))
    methods = list(dict.fromkeys(trial.method.name for trial in planned.trials))
    repeats = len(planned.trials) // len(tasks) // len(methods)
    recipe = first.recipe
    rates = ", ".join(f"{rate:g}" for rate in recipe.learning_rates)
    print(
        f"{', '.join(tasks)} · {', '.join(methods)} · {repeats} repeats · {recipe.net}, {recipe.epochs} epochs, batch "
        f"{recipe.batch_size}, learning rate from {rates}",
        file=sys.stderr,
    )
    for note in planned.notes:
        print(f"note: {note}", file=sys.stderr)


def _tell(answer: ComparisonResult, store: Path, report: Path, json: Path | None) -> int:
    from json import dumps

    from crossfade.lab.files import write_text
    from crossfade.lab.frames import failure_lines

    for line in failure_lines(answer.failures):
        print(f"crossfade: failed: {line}", file=sys.stderr)
    if answer.failures:
        print("crossfade: failed trials are kept as failed; --retry-failed runs them again", file=sys.stderr)
    if answer.failures and not answer.comparable:
        print("crossfade: too little is left to compare", file=sys.stderr)
        return 1
    quiet = str(json) == "-"
    page = answer.report(report)
    text = "" if json is None else dumps(answer.to_dict(), indent=1, allow_nan=False) + "\n"
    if json is not None and not quiet:
        write_text(json, text, "--json")
    print(text if quiet else f"\n{_wrapped(repr(answer))}\n", end="" if quiet else "\n")
    print(f"Page: {page}   Results: {store}", file=sys.stderr)
    return 1 if answer.failures else 0


def _wrapped(text: str) -> str:
    """Sentences cut at words on a terminal; whole lines in a file or pipe."""
    if not sys.stdout.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return "\n".join(textwrap.fill(line, columns) if ". " in f"{line} " else line for line in text.split("\n"))


def check_workers(workers: int | None) -> None:
    """Raises UserError for fewer threads than one."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers: expected a whole number of at least 1, got {workers}")


def check_output(path: Path | None, option: str) -> None:
    """Refuse before an hour of training what would fail after it."""
    import os

    if path is None or str(path) == "-":
        return
    if str(path).startswith("--"):
        raise UserError(f"{option}: expected a file, got {str(path)!r}")
    if path.is_dir():
        raise UserError(f"{option} {path}: a folder, expected a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} isn't there; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: the folder {path.parent} can't be written to")
    if path.suffix == ".html" and path.exists():
        with path.open("rb") as file:
            if _MARK.encode() not in file.read(4096):
                raise UserError(f"{option} {path}: exists and is no page of crossfade's; choose another name")


def _split(items: list[str] | None) -> list[str] | None:
    """``a,b`` and ``--option a --option b`` are the same."""
    return None if items is None else [part.strip() for item in items for part in item.split(",") if part.strip()]


def _numbers(items: list[str] | None) -> list[float] | None:
    try:
        return None if items is None else [float(item) for item in _split(items) or []]
    except ValueError:
        given = ",".join(items or [])
        raise UserError(f"--learning-rates: expected numbers separated by commas, got {given!r}") from None
