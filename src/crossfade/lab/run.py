"""The one driver of all training: it runs the trials of a request that the store doesn't know, and shows progress.

Trials with one recipe are trained together where their family can. What a trial's numbers are never depends on which
others were in the call, so a run that was killed, split over workers or extended by a method gives the same numbers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from crossfade.lab.checkpoints import work_folder
from crossfade.lab.hardware import Hardware, process_rank
from crossfade.lab.provenance import provenance
from crossfade.lab.store import Run, Store
from crossfade.lab.train.executor import BATCH, Batch, Executor, Family
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.tables.recipe import Recipe
from crossfade.lab.train.tables.run import executor as tables_executor
from crossfade.lab.trial import Trial
from crossfade.stats.words import count

_LOG_SECONDS = 15.0

OnProgress: TypeAlias = Callable[[float, int, int], None]


@dataclass(frozen=True)
class Summary:
    """What became of the trials: computed now, failed (now or before), known from before, and the time it took."""

    done: int
    failed: int
    known: int
    seconds: float


def run_request(
    runs: Iterable[Run],
    trials: Sequence[Trial],
    store: Store | str | Path,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
    *,
    family: Family | None = None,
    keep_weights: Path | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    label: str = "Training",
) -> Summary:
    """Save a request and train what the store doesn't know yet. A run that was stopped goes on where it was.

    Args:
        runs: What to save of the request.
        trials: All with recipes of one family: tables, LSTMs, or deep networks.
        store: A file, or an open store. Of several processes (DDP, torchrun) only the first writes it. Checkpoints of
            deep networks lie in a folder beside it until they aren't needed.
        family: Returns what computes these trials, if that isn't the training of their recipe.
        keep_weights: A folder for deep networks' weights as safetensors.
        progress: Show it on standard error, as one of ``label``.
    """
    first = process_rank() == 0  # any other trains what the first process trains, and leaves the writing to it
    path = Path(store.path if isinstance(store, Store) else store)
    if not first:
        trials = unknown(trials, path, retry_failed)
    with (
        _work_folder(path, first) as work,
        nullcontext(store) if isinstance(store, Store) else Store(path if first else ":memory:") as opened,
        resumable(trials, opened, path),
        _shown(label) if progress and first else nullcontext() as on_progress,
    ):
        recipe = trials[0].recipe if trials else Recipe()
        family = family or partial(_by_recipe, recipe)
        if isinstance(recipe, Recipe):  # a GPU isn't used, and so not asked for
            hardware = replace(hardware, accelerator="cpu")
        if hardware.ray is None:
            execute = family(hardware, work, keep_weights)
        else:
            from crossfade.lab.ray import on_ray

            execute = on_ray(hardware, family, work, keep_weights)
        for one in runs:
            opened.save(one)
        kept = work if first else None
        return run(trials, opened, kept, execute=execute, retry_failed=retry_failed, on_progress=on_progress)


@contextmanager
def resumable(trials: Sequence[Trial], store: Store, path: Path) -> Iterator[None]:
    """Where Ctrl-C stops what is inside, say how many of the trials are in the open store, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        known = len(store.statuses([trial.key for trial in trials]))
        raise KeyboardInterrupt(
            f"stopped; {known} of {len(trials)} trials are in {path}. Run the same command again to go on."
        ) from None


def unknown(trials: Sequence[Trial], path: Path, retry_failed: bool = False) -> list[Trial]:
    """Return the trials that the store at ``path`` has no result of; ``retry_failed`` counts failed ones too."""
    if not path.exists():
        return list(trials)
    with Store(path, mode="read") as store:
        statuses = store.statuses([trial.key for trial in trials])
    return [t for t in trials if t.key not in statuses or (retry_failed and statuses[t.key] == "failed")]


def run(
    trials: Iterable[Trial],
    store: Store,
    work: Path | None = None,
    *,
    execute: Executor | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Compute what is missing, in the order of the trials, and store each result as soon as it is there.

    ``execute`` computes, by default tables in this process; ``on_progress`` is told the fraction of the missing work,
    the trials done and the trials failed every now and then. What ``work`` holds of stored trials is removed.
    """
    started = time.monotonic()
    wanted = {trial.key: trial for trial in trials}
    stored = store.statuses(wanted)
    known = {key for key, status in stored.items() if status == "done" or not retry_failed}
    missing = [trial for key, trial in wanted.items() if key not in known]
    total = sum(trial.cost for trial in missing) or 1.0
    spent, reached, done, failed = 0.0, 0.0, 0, 0

    def tick(unfinished: float) -> None:
        nonlocal reached
        reached = max(reached, min(1.0, (spent + unfinished) / total))
        if on_progress is not None:
            on_progress(reached, done, failed)

    for folder in work.iterdir() if work is not None and work.is_dir() else ():
        if folder.name in known:
            shutil.rmtree(folder, ignore_errors=True)
    origin = provenance() if missing else {}
    for trial, outcome in (execute or tables_executor(Hardware()))(pack(missing), tick):
        store.put(trial, outcome, outcome.origin or origin)
        spent += trial.cost
        done += outcome.status == "done"
        failed += outcome.status == "failed"
        tick(0.0)
    failed += sum(stored[key] == "failed" for key in known)
    return Summary(done, failed, len(known), time.monotonic() - started)


def pack(trials: Iterable[Trial]) -> list[Batch]:
    """Return batches for one call each: of one recipe, the methods of a task's repeat together.

    A batch holds several repeats or tasks if they cost no more than ``BATCH`` together.
    """
    batches: list[list[Trial]] = []
    room = 0.0
    for _, group in groupby(trials, key=lambda trial: (trial.recipe, id(trial.task), trial.repeat)):
        together = list(group)
        needed = sum(trial.cost for trial in together)
        if not batches or needed > room or batches[-1][0].recipe != together[0].recipe:
            batches.append([])
            room = BATCH
        batches[-1] += together
        room -= needed
    return [tuple(batch) for batch in batches]


def _by_recipe(recipe: object, hardware: Hardware, work: Path, keep_weights: Path | None) -> Executor:
    """Return what trains the networks of such a recipe."""
    if isinstance(recipe, Recipe):
        return tables_executor(hardware)
    if isinstance(recipe, LstmRecipe):
        from crossfade.lab.train.lstm.run import executor as lstm_executor

        return lstm_executor(hardware)
    from crossfade.lab.train.deep.run import executor as deep_executor

    return deep_executor(hardware, work, keep_weights)


@contextmanager
def _work_folder(store: Path, first: bool) -> Iterator[Path]:
    """Yield a folder for checkpoints, which need not exist: beside the store, and removed if it is empty at the end."""
    if str(store) == ":memory:":
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    work = work_folder(store)
    yield work
    if first and work.is_dir() and not any(work.iterdir()):
        work.rmdir()


@contextmanager
def _shown(label: str) -> Iterator[OnProgress]:
    """Yield what shows the progress on standard error: a bar on a terminal, a line now and then in a log."""
    if not sys.stderr.isatty():
        yield _log(label)
        return
    from rich import progress as bar
    from rich.console import Console

    columns = (*bar.Progress.get_default_columns(), bar.TextColumn("{task.fields[trials]}"), bar.TimeElapsedColumn())
    with bar.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=1.0, trials="")
        yield lambda fraction, done, failed: progress.update(task, completed=fraction, trials=_trials(done, failed))


def _log(label: str) -> OnProgress:
    last = time.monotonic()
    first: tuple[float, float] | None = None  # the first report's time and fraction: a checkpoint may hold much of it

    def update(fraction: float, done: int, failed: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if fraction > 0:
            first = first or (now, fraction)
        if now - last >= _LOG_SECONDS:
            last, (began, known) = now, first or (now, fraction)
            new = fraction - known
            rest = f" · about {duration((now - began) * (1 - fraction) / new)} left" if new >= 0.02 else ""
            print(f"{label}: {100 * fraction:.0f} % · {_trials(done, failed)}{rest}", file=sys.stderr, flush=True)

    return update


def _trials(done: int, failed: int) -> str:
    return count(done, "trial") + (f", {failed} failed" if failed else "")


def duration(seconds: float) -> str:
    """Return a time in words."""
    units = (("day", 86_400), ("hour", 3_600), ("minute", 60))
    unit, size = next((one for one in units if seconds >= 2 * one[1]), ("second", 1))
    return count(round(seconds / size), unit)
