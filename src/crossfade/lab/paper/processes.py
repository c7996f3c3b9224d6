"""An executor that computes trials in processes, each on one core."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config

from crossfade.errors import UserError
from crossfade.lab.hardware import Hardware, processors
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, Tick, error_line
from crossfade.lab.trial import Trial

_PROGRESS = "progress"  # a file in a trial's folder
_POLL = 2.0  # seconds between looks at it


def process_executor(
    compute: Callable[[Trial, Path], Outcome], hardware: Hardware, work: Path, keep: Path | None = None
) -> Executor:
    """Return an executor that computes trial by trial, each on one core, in as many processes as there are threads.

    Args:
        compute: Trains and measures one trial, given a folder of its own for resuming it.
        hardware: With one thread, trials are computed in this process.
        work: The parent of these folders.
    """
    workers = hardware.threads or processors()

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        trials = [trial for batch in batches for trial in batch]
        alone = workers == 1 or len(trials) == 1
        setting = {"backend": "sequential"} if alone else {"backend": "loky", "initializer": _follow_parent}
        left = set(range(len(trials)))

        def unfinished() -> float:
            return sum(trials[at].cost * _reported(work / trials[at].key) for at in tuple(left))

        with parallel_config(**setting, n_jobs=workers), _repeated(lambda: tick(unfinished())):
            calls = (delayed(_compute_one)(compute, work / trial.key, trial, at) for at, trial in enumerate(trials))
            results = Parallel(return_as="generator_unordered")(calls)
            try:
                for at, outcome in results:
                    left.remove(at)
                    yield trials[at], outcome
                    shutil.rmtree(work / trials[at].key, ignore_errors=True)  # now that it is stored
                    tick(unfinished())
            except BrokenProcessPool:
                advice = "perhaps for want of memory; run the same command again to go on, with fewer --workers"
                raise UserError(f"a worker process was killed, {advice}") from None
            finally:
                with warnings.catch_warnings(action="ignore"):  # that there is more to do, where this was stopped
                    results.close()

    return execute


def report(folder: Path, fraction: float) -> None:
    """Tell how much of the trial with this folder is done, as often as somebody looks, from whatever process."""
    file = folder / _PROGRESS
    with suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime < _POLL:
            return
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(str(fraction))


def _reported(folder: Path) -> float:
    try:
        return float((folder / _PROGRESS).read_text())
    except (OSError, ValueError):  # nothing yet, or not yet whole
        return 0.0


@contextmanager
def _repeated(function: Callable[[], None]) -> Iterator[None]:
    """Call a function every few seconds, from a thread, until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(_POLL):
            function()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow_parent() -> None:
    """Leave signals to the process that started this worker, and end when that ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name, signal.SIGINT), signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _compute_one(compute: Callable[[Trial, Path], Outcome], folder: Path, trial: Trial, at: int) -> tuple[int, Outcome]:
    """Return the trial's index and its outcome: an error is the trial's, unless the machine is to blame."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so that results don't depend on the number of workers
    try:
        return at, compute(trial, folder)
    except Exception as error:
        if isinstance(error.__cause__ or error, OSError):  # a full disk, say: not the trial's fault
            raise
        return at, Outcome(error=error_line(error))
    finally:
        torch.set_num_threads(before)
