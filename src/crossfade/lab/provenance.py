"""The provenance of numbers, and the description of a run that its page shows."""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import crossfade
from crossfade.lab.methods import Method, shared_epochs
from crossfade.lab.trial import Json, Recipe, Task, Trial
from crossfade.stats.words import count

SCHEDULE_GRID = 240  # every phase of the paper's recipes starts at a multiple of 1/240
_PACKAGES = (
    *("torch", "torchvision", "lightning", "transformers", "tokenizers", "pillow"),
    *("numpy", "scipy", "pandas", "scikit-learn", "numba"),
)


def provenance() -> Json:
    """Return what is written beside every trial."""
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python, crossfade and, where they are installed, the packages that numbers depend on."""
    # Not by the metadata, which an editable installation keeps when its source goes on to another version.
    found = {"python": platform.python_version(), "crossfade": crossfade.__version__}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@cache
def commit() -> str | None:
    """Return the commit of crossfade's own source tree, with ``+`` if it was changed since; None if it is installed."""
    folder = Path(crossfade.__file__).parent

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)

    try:
        if git("ls-files", "--error-unmatch", "__init__.py").returncode:
            return None
        head, changed = git("rev-parse", "--short=12", "HEAD"), git("diff", "--quiet", "HEAD", "--", ".")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if head.returncode else head.stdout.strip() + ("+" if changed.returncode else "")


def describe_run(
    title: str,
    trials: Sequence[Trial],
    command: str | Sequence[str],
    *,
    seed: int = 0,
    notes: Sequence[str] = (),
    device: str = "",
    **more: object,
) -> dict[str, object]:
    """Return the report's ``meta`` of a run as plain data, with ``device`` before the machine and ``more`` entries."""
    origin = provenance()
    tasks = {trial.task.name: trial.task for trial in trials}
    methods = {trial.method.name: trial.method for trial in trials}
    return {
        "title": title,
        "command": command if isinstance(command, str) else shlex.join(command),
        "recipe": trials[0].recipe.to_dict(),
        "versions": origin["versions"],
        "device": f"{device} ({origin['machine']})" if device else origin["machine"],
        "commit": origin["commit"],
        "datasets": [task.describe() for task in tasks.values()],
        "methods": [_described(one) for one in methods.values()],
        "control": "ce",
        "seed": seed,
        "repeats": max(trial.repeat for trial in trials) + 1,
        "notes": list(notes),
        **more,
    }


def sizes_of(task: Task, examples: str = "examples") -> str:
    """Return the sizes of a task's parts, in words."""
    about = task.describe()
    parts = [f"{about[name]:,}" for name in ("n_train", "n_val", "n_test") if about[name]]
    return f"{' + '.join(parts)} {examples} of {about['classes']} classes"


def _described(one: Method) -> dict[str, object]:
    """Return one entry of the report's ``methods``."""
    own, drawn, formula = one.own, None, ""
    if own is None or one.g_of is not None:
        grid = [step / SCHEDULE_GRID for step in range(SCHEDULE_GRID + 1)]
        drawn = [[progress, *map(float, one.schedule(progress))] for progress in grid]
    if own is not None:
        formula = one.note or f"{getattr(own, '__module__', '')}:{getattr(own, '__qualname__', one.name)}"
    return {"name": one.name, "title": one.title, "schedule": drawn, "g": formula, "note": one.note}


def same_schedules(methods: Sequence[Method], recipe: Recipe) -> list[str]:
    """Return a note on each method that few epochs make the same as another: it would look like a tie."""
    steps = 1 if recipe.granularity == "epoch" else math.ceil(SCHEDULE_GRID / recipe.epochs)
    advice = "; use more epochs or --granularity step" if recipe.granularity == "epoch" else ""
    epochs, notes = recipe.epochs, []
    for at, one in enumerate(methods):
        same = [two.name for two in methods[:at] if shared_epochs(two, one, epochs, steps) == epochs]
        if same:
            notes.append(f"{one.name} is the same as {same[0]} at {count(epochs, 'epoch')}{advice}")
    return notes
