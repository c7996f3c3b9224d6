"""What a run's page says about it: what was run, with which losses, and where."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossfade.lab.provenance import provenance

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.trial import Trial

__all__ = ["SCHEDULE_GRID", "describe_method", "describe_run"]

SCHEDULE_GRID = 240  # every phase of the paper's recipes starts at a multiple of 1/240


def describe_run(
    title: str,
    trials: Sequence[Trial],
    command: str | Sequence[str],
    *,
    seed: int = 0,
    notes: Sequence[str] = (),
    device: str = "",
    **more: Any,
) -> dict[str, Any]:
    """The report's ``meta``, as plain data; ``device`` is put before the machine, ``more`` is added to it."""
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
        "methods": [describe_method(one) for one in methods.values()],
        "control": "ce",
        "seed": seed,
        "repeats": max(trial.repeat for trial in trials) + 1,
        "notes": list(notes),
        **more,
    }


def describe_method(one: Method) -> dict[str, Any]:
    """One entry of the report's ``methods``."""
    if one.g is None:
        grid = [step / SCHEDULE_GRID for step in range(SCHEDULE_GRID + 1)]
        drawn = [[progress, *map(float, one.schedule(progress))] for progress in grid]
        return {"name": one.name, "title": one.title, "schedule": drawn, "g": "", "note": one.note}
    formula = one.note or f"{getattr(one.g, '__module__', '')}:{getattr(one.g, '__qualname__', one.name)}"
    return {"name": one.name, "title": one.title, "schedule": None, "g": formula, "note": one.note}
