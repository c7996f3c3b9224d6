"""Scores of predicted probabilities, each a mean over the test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def expected_calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = 15) -> float:
    r"""Return the expected calibration error of the predicted class: \sum_b (n_b / N) |accuracy_b - confidence_b|.

    Rows of ``probabilities`` (N, C) fall into intervals (k/bins, (k+1)/bins] of equal width by the probability of their
    predicted class (Guo et al. 2017), as in torchmetrics' ``CalibrationError(norm="l1")``.

    >>> expected_calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    0.3
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    r"""Return Brier's original score \frac1N \sum_n \sum_c (p_{nc} - [y_n = c])^2, in [0, 2] for any number of classes.

    scikit-learn's ``brier_score_loss(..., scale_by_half=False)`` knows more than two classes from 1.7 on only.

    >>> brier_score(np.array([[0.5, 0.5]]), np.array([1]))
    0.5
    """
    p = probabilities.astype(np.float64)
    truth = p[np.arange(len(labels)), labels]
    return float(((p**2).sum(axis=1) - 2 * truth + 1).mean())
