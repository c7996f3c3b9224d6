"""The steps of an epoch: the weights of CE and EL at each step, and batches of examples of similar length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import UserError

if TYPE_CHECKING:
    from crossfade.lab.train.outcome import Floats
    from crossfade.schedules import Schedule

_WINDOW = 50  # batches among which examples are sorted by length


def mixture_table(schedule: Schedule, epochs: int, steps: int = 1) -> Floats:
    """Return (epochs, steps, 2): alpha and beta, which change ``steps`` times in an epoch.

    Raises:
        UserError: a schedule that doesn't return two finite numbers.
    """
    total = epochs * steps
    table = np.array([tuple(schedule(step / total)) for step in range(total)], dtype=np.float32)
    if table.shape != (total, 2) or not np.isfinite(table).all():
        raise UserError("a method's schedule must give two finite numbers, alpha and beta, at each progress in [0, 1)")
    return table.reshape(epochs, steps, 2)


def epoch_batches(seed: int, epoch: int, lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return the batches of an epoch as indices of examples, the longest of a batch first.

    The examples are shuffled, sorted by length within windows of 50 batches and cut into batches, which are shuffled
    again. So a batch needs little padding, and still combines other examples in each epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), _WINDOW * batch_size):
        window = order[start : start + _WINDOW * batch_size]
        batches += _cut(window[np.argsort(-lengths[window], kind="stable")], batch_size)
    return [batches[at] for at in generator.permutation(len(batches))]


def scoring_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return the batches for scoring a part: all examples sorted by length, the longest first."""
    return _cut(np.argsort(-lengths, kind="stable"), batch_size)


def _cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
