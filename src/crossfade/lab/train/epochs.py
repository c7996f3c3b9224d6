"""Batches of examples of similar length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WINDOW = 50  # batches among which examples are sorted by length


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
