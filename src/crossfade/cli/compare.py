"""``crossfade compare``: from a table, texts or a folder of images to a table, a verdict and a page."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from crossfade.cli.options import JsonPath, Machine, Names, Numbers, Overwrite, Quiet
from crossfade.errors import UserError
from crossfade.lab import settings as groups
from crossfade.lab.settings import Images, Settings, Texts, check_kind, given

if TYPE_CHECKING:
    from crossfade.lab.result import ComparisonResult


@dataclass(frozen=True)
class Data(groups.Data):
    """The columns of a table; several names may be separated by commas."""

    categorical: Names = None
    drop: Names = None


@dataclass(frozen=True)
class Training(groups.Training):
    """The training of the networks; several names or numbers may be separated by commas."""

    methods: Names = None
    learning_rates: Numbers = None


@dataclass(frozen=True)
class Output:
    """The files that are written, and what becomes of failed trials.

    Attributes:
        store: Keeps every result; a run that was stopped goes on from it.
        report: The page to write.
        json: Write the same numbers for scripts; - is standard output.
        keep_weights: Images: a folder for each trial's weights as safetensors.
        retry_failed: Run failed trials again.
        verbose: Say all: each method, each data set, what the intervals cover, and what the methods are.
    """

    store: Path = Path("crossfade.db")
    report: Path = Path("report.html")
    json: JsonPath = None
    keep_weights: Path | None = None
    retry_failed: bool = False
    overwrite: Overwrite = False
    verbose: bool = False
    quiet: Quiet = False


_NAMES = ("Data", "Texts", "Images", "Training", "Machine", "Output")
_OPTIONS_OF = {name: Parameter("*", group=Group(name, sort_key=place)) for place, name in enumerate(_NAMES)}


def compare(
    *files: Path,
    data: Annotated[Data, _OPTIONS_OF["Data"]] = Data(),
    texts: Annotated[Texts, _OPTIONS_OF["Texts"]] = Texts(),  # noqa: B008
    images: Annotated[Images, _OPTIONS_OF["Images"]] = Images(),  # noqa: B008
    training: Annotated[Training, _OPTIONS_OF["Training"]] = Training(),
    config: Annotated[Path | None, Parameter(group=_OPTIONS_OF["Training"].group)] = None,
    machine: Annotated[Machine, _OPTIONS_OF["Machine"]] = Machine(),  # noqa: B008
    output: Annotated[Output, _OPTIONS_OF["Output"]] = Output(),
) -> int:
    """Train a network under different losses, on your data, and compare.

    A FILE is a table, with --text a table with a column of texts, or a folder with
    a folder of images for each class (or with train, val and test folders of such
    folders). Several tables are several data sets, compared together; without a
    FILE these are iris, wine, breast cancer and digits. Each repeat has another
    split, where no part is fixed. Every method gets the same split, initial
    weights and order, and its own epoch (on tables its own learning rate, too),
    chosen on validation examples. After an interruption the same command goes on
    where it stopped. Lists are separated by commas.

    Args:
        files: CSV, TSV, JSON lines (also packed), Parquet, Feather or Excel, one row an example, - for standard input;
            or a folder of class folders with PNG, JPEG, BMP, GIF, PPM, TIFF or WebP files.
        config: A TOML file with settings of texts, images and training, but no loss or schedule; the command line wins.
    """
    from crossfade.lab.comparison import execute, plan
    from crossfade.lab.files import check_folder, check_outputs
    from crossfade.lab.hardware import process_rank
    from crossfade.lab.loading import kind_of, load
    from crossfade.lab.run import resumable, run_request
    from crossfade.lab.store import Store

    settings = Settings(training, texts, images)
    if config is not None:
        written = Settings.read(config).given()
        for name in ("loss", "schedule"):
            if name in written and getattr(training, name) is None:
                raise UserError(
                    f"--config {config}: {name} is code that would be run; use --{name} on the command line"
                )
        settings = Settings.of(written | settings.given())
    names = [*given(data), *settings.given(), *given(machine), *given(output)]
    check_kind(kind_of(files, settings), ", ".join(map(str, files)), names)
    hardware, weights, retry = machine.hardware(), output.keep_weights, output.retry_failed
    own = (*(settings.training.loss or ()), *(settings.training.schedule or ()))
    check_outputs(
        [("--report", output.report), ("--json", output.json)],
        [*files, data.test, config, *(Path(one.rpartition(":")[0]) for one in own)],
        store=output.store,
        overwrite=output.overwrite,
    )
    check_folder(output.keep_weights, "--keep-weights")
    planned = plan(load(files, data, settings), settings, ["crossfade", *sys.argv[1:]], hardware=hardware)
    if process_rank() > 0:  # of several processes the first alone writes and speaks
        run_request([], planned.trials, output.store, hardware, keep_weights=weights, retry_failed=retry)
        return 0
    with Store(output.store) as store, resumable(planned.trials, store, output.store):
        if not output.quiet:
            told = [planned.heading, *(f"note: {note}" for note in planned.notes)]
            print("\n".join(told), file=sys.stderr, flush=True)
        how = {"progress": not output.quiet, "retry_failed": retry, "curves": False}
        answer = execute(planned, store, hardware, keep_weights=weights, **how)
    return _tell(answer, output)


def _tell(answer: ComparisonResult, output: Output) -> int:
    """Print and write the answer; return the exit status."""
    from crossfade.lab.files import write_json
    from crossfade.lab.frames import failure_lines

    for line in failure_lines(answer.failures):
        print(f"crossfade: failed: {line}", file=sys.stderr)
    if answer.failures:
        print("crossfade: failed trials are kept as failed; --retry-failed runs them again", file=sys.stderr)
        if not answer.comparable:
            print("crossfade: too little is left to compare", file=sys.stderr)
            return 1
    page = answer.report(output.report)
    if output.json is not None:
        write_json(output.json, answer.to_dict())
    if str(output.json) != "-":
        print(_laid_out("\n\n".join([repr(answer), *([answer.details] if output.verbose else [])])))
    if not output.quiet:
        print(f"Page: {page}   Results: {output.store}", file=sys.stderr)
    return 1 if answer.failures else 0


def _laid_out(text: str) -> str:
    """Return the text with a bold first line, and sentences cut at words, on a terminal; as it is in a file or pipe."""
    if not sys.stdout.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    lines = [textwrap.fill(line, columns) if ". " in f"{line} " else line for line in text.split("\n")]
    return "\n".join([f"\033[1m{lines[0]}\033[0m", *lines[1:]])
