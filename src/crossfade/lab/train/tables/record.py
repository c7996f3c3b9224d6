"""From an engine's measurements to a ``History``; which epoch is best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfade.lab.train.tables.types import Curve, Floats, History

TRAIN_LOSS, VAL_CORRECT, VAL_NLL, TEST_CORRECT, TEST_NLL = range(5)  # columns of ``curves``, one row an epoch
TIES = ("first", "last", "loss")


def empty_curves(epochs: int) -> Curve:
    """Curves of a network that has diverged before its first epoch was over."""
    curves = np.full((epochs, 5), np.nan)
    curves[:, [VAL_CORRECT, TEST_CORRECT]] = 0.0
    return curves


def best_epoch(curves: Curve, tie: str) -> int:
    """The epoch with the most validation rows right; see ``Recipe.tie`` for which of several."""
    right = curves[:, VAL_CORRECT]
    tied = np.flatnonzero(right == right.max())
    if tie == "loss":
        return int(tied[curves[tied, VAL_NLL].argmin()])
    return int(tied[-1 if tie == "last" else 0])


def history(
    curves: Curve, chosen: int, probabilities: Floats, weights: Sequence[Floats], engine: str, note: str = ""
) -> History:
    """``chosen`` -1 says that there was no finite epoch: then there are no weights or probabilities either."""
    if chosen < 0:
        probabilities = np.full_like(probabilities, np.nan)
        weights = [np.full_like(weight, np.nan) for weight in weights]
    return History(
        train_loss=curves[:, TRAIN_LOSS].copy(),
        val_correct=curves[:, VAL_CORRECT].astype(np.int64),
        val_nll=curves[:, VAL_NLL].copy(),
        test_correct=curves[:, TEST_CORRECT].astype(np.int64),
        test_nll=curves[:, TEST_NLL].copy(),
        best_epoch=chosen,
        test_probabilities=probabilities,
        weights=list(weights),
        finite=bool(np.isfinite(curves[-1, VAL_NLL])),
        engine=engine,
        note=note,
    )
