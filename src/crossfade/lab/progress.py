"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[float, int, int], None]

_LOG_SECONDS = 15.0


@contextmanager
def shown(label: str, enabled: bool = True) -> Iterator[OnProgress | None]:
    """Yield a function to call with (fraction done, trials done, trials failed); draws on standard error."""
    if not enabled:
        yield None
    elif sys.stderr.isatty():
        with _bar(label) as update:
            yield update
    else:
        yield _log(label)


@contextmanager
def _bar(label: str) -> Iterator[OnProgress]:
    from rich import progress as bar
    from rich.console import Console

    columns = (
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.TaskProgressColumn(),
        bar.TextColumn("{task.fields[trials]}"),
        bar.TimeElapsedColumn(),
        bar.TimeRemainingColumn(),
    )
    with bar.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=1.0, trials="")

        def update(fraction: float, done: int, failed: int) -> None:
            progress.update(task, completed=fraction, trials=_trials(done, failed))

        yield update


def _log(label: str) -> OnProgress:
    started = last = time.monotonic()

    def update(fraction: float, done: int, failed: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_SECONDS and fraction > 0:
            last = now
            left = (now - started) * (1 - fraction) / fraction
            # at the start most of the time went into reading data and compiling
            rest = f" · about {_span(left)} left" if fraction >= 0.02 else ""
            print(f"{label}: {100 * fraction:.0f} % · {_trials(done, failed)}{rest}", file=sys.stderr, flush=True)

    return update


def _trials(done: int, failed: int) -> str:
    return f"{done} trials" + (f", {failed} failed" if failed else "")


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
