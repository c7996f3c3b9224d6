"""The history of one training, the epoch that counts, and the outcome that a store keeps: the same for all families."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.store import Outcome

if TYPE_CHECKING:
    from torch import Tensor

Curve: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float32]
Tie: TypeAlias = Literal["first", "last", "loss"]


@dataclass(frozen=True, eq=False)
class History:
    """One network's training.

    Attributes:
        curves: By name, one value for each epoch that was scored, measured after it: ``epoch`` (from 1),
            ``train_loss`` (the mean of the method's own loss over the epoch) and, for ``val`` and ``test``,
            ``_accuracy``, ``_nll`` (the mean CE in nats) and whatever else was scored. NaN from the epoch on in which
            weights or loss stopped being finite.
        chosen: Place in the curves whose test scores are the result; -1 if no epoch was finite.
        scores: Test scores at that place beside the accuracy, such as nll, ece and brier.
        weights: The network's state after the chosen epoch, by the names of its plain form's ``state_dict()``.
        last: State after the last epoch, where it is kept.
        probabilities: (test examples, classes) after the chosen epoch, where they are kept.
        finite: Whether weights and loss stayed finite to the end.
        engine: What trained it.
        device: Where it was trained.
        seconds: How long it took, where one training is timed by itself.
        note: Why another engine than the one to be expected trained it.
    """

    curves: Mapping[str, Curve]
    chosen: int
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Floats | Tensor] = field(default_factory=dict)
    last: Mapping[str, Tensor] | None = None
    probabilities: Floats | None = None
    finite: bool = True
    engine: str = ""
    device: str = "cpu"
    seconds: float = 0.0
    note: str = ""


def chosen_epoch(accuracy: Curve, nll: Curve | None = None, tie: Tie = "first") -> int:
    """Return the place of the best validation accuracy, -1 where none is finite.

    Args:
        accuracy: On the validation part, one value an epoch; counts do as well.
        nll: Its mean cross entropy, needed for the tie ``"loss"``.
        tie: Which of several equal ones counts: the ``"first"``, the ``"last"``, or the one with the lowest ``"loss"``
            (then the first).
    """
    if not np.isfinite(accuracy).any():
        return -1
    tied = np.flatnonzero(accuracy == np.nanmax(accuracy))
    if tie == "loss" and nll is not None:
        return int(tied[np.asarray(nll)[tied].argmin()])
    return int(tied[-1 if tie == "last" else 0])


def probability_scores(probabilities: Floats, labels: NDArray[np.int64], nll: float) -> dict[str, float]:
    """Return nll, ece and brier of predicted probabilities (examples, classes)."""
    return {
        "nll": nll,
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }


def outcome(
    history: History,
    learning_rate: float,
    about: Mapping[str, object],
    *,
    exact: Collection[str] = (),
    epochs: bool = False,
) -> Outcome:
    """Return what the store keeps of a training: the test scores of the chosen epoch, and the curves.

    Args:
        history: With a chosen epoch.
        learning_rate: The one that it was trained with.
        about: What stands beside the scores: numbers of examples and classes, seconds, engine or device, ...
        exact: Curves that are kept with all their digits; the others with the seven that float32 holds.
        epochs: Keep the epochs' numbers as a curve, too: for recipes that needn't score every epoch.
    """
    at = history.chosen
    result: dict[str, object] = {"accuracy": float(history.curves["test_accuracy"][at])}
    result |= {name: short(value) for name, value in history.scores.items()}
    result |= {"learning_rate": learning_rate, "epoch": int(history.curves["epoch"][at]), **about}
    curves: dict[str, list[float | None]] = {
        name: [float(value) if name in exact else short(float(value)) for value in values]
        for name, values in history.curves.items()
        if name != "epoch"
    }
    if epochs:
        curves["epoch"] = [int(epoch) for epoch in history.curves["epoch"]]
    return Outcome(result, curves)


def short(value: float) -> float | None:
    """Return seven digits, which is what float32 holds, at half the space; None for what JSON can't say."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
