"""The weights of CE and EL at each step of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train.outcome import Floats
    from crossfade.schedules import Schedule


def mixture_table(schedule: Schedule, epochs: int, steps: int = 1) -> Floats:
    """Return (epochs, steps, 2): alpha and beta; ``steps`` says how often they move in an epoch.

    Raises:
        UserError: the schedule gives something else than two finite numbers.
    """
    total = epochs * steps
    table = np.array([tuple(schedule(step / total)) for step in range(total)], dtype=np.float32)
    if table.shape != (total, 2) or not np.isfinite(table).all():
        raise UserError("a method's schedule must give two finite numbers, alpha and beta, at each progress in [0, 1)")
    return table.reshape(epochs, steps, 2)
