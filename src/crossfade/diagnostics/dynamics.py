"""Training dynamics computed from a recording: transitions, forgetting, gradient mass and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossfade._tensors import check_range
from crossfade.diagnostics.curves import gradient_curve
from crossfade.diagnostics.recorder import Recording

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: The groups of the motivating example: wrong with p_y below a threshold, wrong with p_y above it, right.
GROUPS = ("wrong and hopeless", "wrong and near", "right")


class Transitions(NamedTuple):
    """A table: counts[i, j] examples are in group i at the first epoch and in group j at the last; see ``GROUPS``."""

    counts: IntArray
    threshold: float

    @property
    def became_right(self) -> FloatArray:
        """For each group at the first epoch, the share that is right at the last (NaN for an empty group)."""
        totals = self.counts.sum(1)
        share: FloatArray = np.divide(self.counts[:, 2], totals, out=np.full(3, np.nan), where=totals > 0)
        return share


def transitions(recording: Recording, first: int, last: int, threshold: float = 0.2) -> Transitions:
    """Return the motivating example's table: from each group at epoch ``first`` to each group at epoch ``last``.

    The paper (ResNet32, CIFAR-100's test images, epochs 70 and 90): right -> right 95.58 %, wrong and near -> right
    38.46 %, wrong and hopeless -> right 3.35 %. Examples not seen in both epochs are left out.

    Raises:
        ValueError: no example was seen in both epochs, or the threshold isn't in (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be a probability in (0, 1), got {threshold!r}")
    both = recording.seen(first) & recording.seen(last)
    if not both.any():
        raise ValueError(f"no example was recorded in both epoch {first} and epoch {last}")
    # Whether an example is wrong and hopeless (0), wrong and near (1) or right (2).
    before, after = (np.where(recording.correct(e), 2, recording.p(e) >= threshold)[both] for e in (first, last))
    return Transitions(np.bincount(before * 3 + after, minlength=9).reshape(3, 3), threshold)


def histograms(recording: Recording, bins: int = 20) -> IntArray:
    """Return (epochs, bins) counts of examples by p_y, in even bins over [0, 1]."""
    edges = np.linspace(0, 1, bins + 1)
    return np.stack([np.histogram(recording.p(e)[recording.seen(e)], edges)[0] for e in range(recording.epochs)])


class Forgetting(NamedTuple):
    """Forgetting of each example (N,), as Toneva et al. 2019 count it.

    Attributes:
        events: how often it went from right to wrong.
        first_learned: the epoch in which it was first right; -1 if it never was.
        last: whether it was right when it was last seen.
    """

    events: IntArray
    first_learned: IntArray
    last: npt.NDArray[np.bool_]


def forgetting(recording: Recording) -> Forgetting:
    """Count forgetting over the recorded epochs. An epoch in which an example wasn't seen is skipped for it."""
    events = np.zeros(recording.examples, np.int64)
    first = np.full(recording.examples, -1, np.int64)
    state = np.zeros(recording.examples, bool)
    for epoch in range(recording.epochs):
        seen, right = recording.seen(epoch), recording.correct(epoch)
        events += state & seen & ~right
        first[(first < 0) & right] = epoch
        state = np.where(seen, right, state)
    return Forgetting(events, first, state)


def gradient_mass(recording: Recording, g: Callable[[Tensor], Tensor], epoch: int, bins: int = 10) -> FloatArray:
    """Return the share of ``sum_i |dL_i/dq_y|`` that each of the even bins of p_y holds, for the loss g(ce).

    Shares add up to 1. The loss needn't be that of the training: CE's share can be computed where EL trained.

    Raises:
        ValueError: nothing was recorded in this epoch.
    """
    seen = recording.seen(epoch)
    if not seen.any():
        raise ValueError(f"nothing was recorded in epoch {epoch}")
    p = recording.p(epoch)[seen].astype(np.float64)
    gradient = gradient_curve(g, torch.from_numpy(p)).numpy()
    mass, _ = np.histogram(p, np.linspace(0, 1, bins + 1), weights=gradient)
    total = mass.sum()
    return np.asarray(mass / total if total > 0 else mass)


class Calibration(NamedTuple):
    """Scores of a classifier: accuracy in [0, 1], nll in nats, ece in [0, 1], brier in [0, 2]."""

    accuracy: float
    nll: float
    ece: float
    brier: float


def confidence_error(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int) -> float:
    """Return the ECE of predictions (N,), see :func:`calibration`; NaN if a confidence is."""
    if np.isnan(confidence).any():
        return float("nan")
    # Bins (a, b], as in Guo et al. 2017.
    bin_index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(bin_index, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def calibration(logits: Tensor, target: Tensor, bins: int = 15) -> Calibration:
    """Return accuracy, NLL, ECE and Brier score of logits (N, C) against class indices (N,).

    ECE = sum over confidence bins of (share of examples) ``|accuracy - mean confidence|``, even bins (Guo et al. 2017).
    Brier = mean over examples of sum_j (p_j - onehot_j)^2.

    Raises:
        ValueError: shapes that don't fit, no example, or a target that isn't a class, such as an ignored one.

    >>> calibration(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])).brier
    0.5
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or not len(target):
        raise ValueError(f"expected logits (N, C) and target (N,), got {tuple(logits.shape)} and {tuple(target.shape)}")
    check_range("target", target, logits.shape[1], ValueError)
    if logits.device.type == "mps":  # it has no float64
        logits, target = logits.cpu(), target.cpu()
    logits = logits.detach().double()
    ce = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    p = logits.softmax(1)
    confidence, predicted = p.max(1)
    right = (predicted == target).cpu().numpy()
    brier = 1 - 2 * (-ce).exp() + (p * p).sum(1)
    return Calibration(
        float(right.mean()),
        float(ce.mean()),
        confidence_error(confidence.cpu().numpy(), right, bins),
        float(brier.mean()),
    )


def calibration_history(recording: Recording, bins: int = 15, epochs: Sequence[int] | None = None) -> list[Calibration]:
    """Return the scores of each epoch from its recording (float16: three digits); NaN where nothing was seen."""
    history = []
    for epoch in range(recording.epochs) if epochs is None else epochs:
        seen = recording.seen(epoch)
        if not seen.any():
            history.append(Calibration(*[float("nan")] * 4))
            continue
        right = recording.correct(epoch)[seen]
        confidence = recording.confidence(epoch)[seen].astype(np.float64)
        nll = float(recording.ce(epoch)[seen].mean(dtype=np.float64))
        brier = float(recording.brier(epoch)[seen].mean(dtype=np.float64))
        history.append(Calibration(float(right.mean()), nll, confidence_error(confidence, right, bins), brier))
    return history
