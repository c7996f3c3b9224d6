"""The history of one training, its chosen epoch, and the outcome for the store: the same for all families."""

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
Tie: TypeAlias = Literal["first", "last", "loss", "expected"]


@dataclass(frozen=True, eq=False)
class History:
    """The history of one network's training.

    Attributes:
        curves: By name, one value for each scored epoch: ``epoch`` (from 1), ``train_loss`` (the mean of the method's
            own loss over the epoch) and, for ``val`` and ``test``, ``_accuracy``, ``_nll`` (the mean CE in nats) and
            further scores. The values are NaN once weights or loss aren't finite.
        chosen: The index in the curves at which the test scores are the result; -1 if no epoch was finite.
        scores: The test scores at this index except the accuracy, such as nll, ece and brier.
        weights: The network's ``state_dict()`` after the chosen epoch.
        last: The state after the last epoch, if it is kept.
        probabilities: (test examples, classes) after the chosen epoch, if they are kept.
        right: Which test examples are classified rightly after the chosen epoch, if that is kept instead.
        finite: Whether weights and loss stayed finite to the end.
        engine: What trained the network, where a family has several engines.
        device: Where a deep network was trained.
        seconds: The duration, where a training is timed by itself.
        shared: The number of its first epochs that were trained for another method, and taken over.
    """

    curves: Mapping[str, Curve]
    chosen: int
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Floats | Tensor] = field(default_factory=dict)
    last: Mapping[str, Tensor] | None = None
    probabilities: Floats | None = None
    right: NDArray[np.bool_] | None = None
    finite: bool = True
    engine: str = ""
    device: str = ""
    seconds: float = 0.0
    shared: int = 0


def chosen_epoch(accuracy: Curve, nll: Curve | None = None, tie: Tie = "first") -> int:
    """Return the index of the best validation accuracy, -1 if none is finite.

    Args:
        accuracy: The accuracy on the validation part after each epoch, or the number of correct examples.
        nll: The mean cross entropy there, needed for the tie ``"loss"``.
        tie: Of equally good epochs the ``"first"``, the ``"last"``, or that of the lowest ``"loss"`` is chosen.
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
    """Return the outcome for the store: the test scores of the chosen epoch, and the curves.

    Args:
        about: Further facts: numbers of examples and classes, seconds, engine or device, ...
        exact: The scores and curves to keep with all digits; the others get the seven digits of float32.
        epochs: Keep the epochs' numbers as a curve, too, for recipes that don't score every epoch.
    """
    at = history.chosen
    result: dict[str, object] = {"accuracy": float(history.curves["test_accuracy"][at])}
    result |= {name: value if name in exact else short(value) for name, value in history.scores.items()}
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
    """Return the value with the seven digits of float32, or None if it isn't finite, as JSON has no such numbers."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
