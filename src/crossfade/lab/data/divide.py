"""Division of a part in two, stratified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["held_out"]


def held_out(labels: NDArray[np.int64], classes: int, share: float, state: int) -> NDArray[np.int64]:
    """Places, in order, of the examples that are set aside: this share of each class, at least one and never all.

    >>> held_out(np.array([0, 0, 1, 1]), 2, 0.5, 0).shape
    (2,)
    """
    rng = np.random.default_rng(state)
    held: list[NDArray[np.int64]] = []
    for number in range(classes):
        own = rng.permutation(np.flatnonzero(labels == number))
        held.append(own[: min(max(1, round(share * len(own))), len(own) - 1)])
    return np.sort(np.concatenate(held))
