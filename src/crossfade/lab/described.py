"""The description of a run that its page shows: data, recipe, losses, versions and machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossfade.lab.provenance import provenance

if TYPE_CHECKING:
    from crossfade.lab.methods import Method
    from crossfade.lab.trial import Trial

SCHEDULE_GRID = 240  # every phase of the paper's recipes starts at a multiple of 1/240


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
    """Return the report's ``meta`` as plain data.

    Args:
        title: The page's heading.
        trials: All of the run.
        command: What the user called, as a line or as its words.
        seed: The user's seed.
        notes: Remarks on the data, a line each.
        device: What stands before the machine's name; "" for nothing.
        more: Further entries.
    """
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


def describe_method(one: Method) -> dict[str, object]:
    """Return one entry of the report's ``methods``; a schedule is drawn at ``SCHEDULE_GRID`` + 1 points."""
    if one.g is None:
        grid = [step / SCHEDULE_GRID for step in range(SCHEDULE_GRID + 1)]
        drawn = [[progress, *map(float, one.schedule(progress))] for progress in grid]
        return {"name": one.name, "title": one.title, "schedule": drawn, "g": "", "note": one.note}
    formula = one.note or f"{getattr(one.g, '__module__', '')}:{getattr(one.g, '__qualname__', one.name)}"
    return {"name": one.name, "title": one.title, "schedule": None, "g": formula, "note": one.note}
