"""Scores of predicted probabilities, each a mean over the test rows."""

from __future__ import annotations

import base64
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


BINS = 15  # of confidence, for the calibration error
TALLY = ("balanced", "f1", "ece", "brier")
CALIBRATED = ("nll_calibrated", "ece_calibrated", "brier_calibrated")  # the test scores after the temperature


def expected_calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    r"""Return the expected calibration error of the predicted class: \sum_b (n_b / N) |accuracy_b - confidence_b|.

    Rows of ``probabilities`` (N, C) fall into 15 intervals (k/15, (k+1)/15] of equal width by the probability of their
    predicted class (Guo et al. 2017), as in torchmetrics' ``CalibrationError(norm="l1")``.

    >>> expected_calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    0.3
    """
    from crossfade.diagnostics.dynamics import confidence_error

    confidence, correct = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    return confidence_error(confidence, correct, BINS)


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    r"""Return Brier's original score \frac1N \sum_n \sum_c (p_{nc} - [y_n = c])^2, in [0, 2] for any number of classes.

    scikit-learn's ``brier_score_loss(..., scale_by_half=False)`` knows more than two classes from 1.7 on only.

    >>> brier_score(np.array([[0.5, 0.5]]), np.array([1]))
    0.5
    """
    p = probabilities.astype(np.float64)
    truth = p[np.arange(len(labels)), labels]
    return float(((p**2).sum(axis=1) - 2 * truth + 1).mean())


def f1_and_mcc(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Return f1 (of class 1 if there are two, else the mean over classes) and mcc (Matthews' correlation)."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    average = "binary" if classes == 2 else "macro"
    f1 = f1_score(labels, predicted, average=average, zero_division=0.0)
    return {"f1": float(f1), "mcc": float(matthews_corrcoef(labels, predicted))}


def calibrated_scores(val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Return the temperature of the validation part and the test scores after it, given each part's logits and labels.

    They are ``temperature``, ``temperature_bounded`` (1 if it is) and those of ``CALIBRATED``; none if a part is empty
    or its logits aren't finite.
    """
    from crossfade.calibration import fit_temperature
    from crossfade.diagnostics import calibration

    if any(not len(labels) or not logits.isfinite().all() for logits, labels in (val, test)):
        return {}
    found = fit_temperature(*val)
    _, *scores = calibration(test[0].double() / found.value, test[1])
    return {
        "temperature": found.value,
        "temperature_bounded": float(found.bounded),
        **dict(zip(CALIBRATED, scores, strict=True)),
    }


def tally(p: NDArray[np.float32], y: NDArray[np.floating | np.integer], scores: NDArray[np.float64]) -> None:
    r"""Write four scores of probabilities (rows, classes) to ``scores``: balanced accuracy, macro-F1, ECE, Brier score.

    As in scikit-learn balanced accuracy is the mean recall of the classes that occur in ``y``, and macro-F1 the mean of
    2 hits / (rows + predictions) over the classes that occur in ``y`` or are predicted. Both are rounded to 12 digits,
    so that equal scores compare equal. All are NaN without rows. Written in loops, as it is also compiled by numba.
    """
    rows, classes = p.shape
    own, said, hits = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    gaps, brier = np.zeros(BINS), 0.0
    for n in range(rows):
        label, best, squares = int(y[n]), 0, 0.0
        for c in range(classes):
            squares += float(p[n, c]) * float(p[n, c])
            if p[n, c] > p[n, best]:
                best = c
        own[label] += 1.0
        said[best] += 1.0
        hits[best] += best == label
        confidence = float(p[n, best])
        gaps[min(max(int(np.ceil(confidence * BINS)) - 1, 0), BINS - 1)] += (best == label) - confidence
        brier += squares - 2.0 * float(p[n, label]) + 1.0
    recall, f1, occurring, either = 0.0, 0.0, 0, 0
    for c in range(classes):
        if own[c] > 0.0:
            recall += hits[c] / own[c]
            occurring += 1
        if own[c] + said[c] > 0.0:
            f1 += 2.0 * hits[c] / (own[c] + said[c])
            either += 1
    if rows == 0:
        scores[:] = np.nan
        return
    scores[0], scores[1] = np.round(recall / occurring * 1e12) / 1e12, np.round(f1 / either * 1e12) / 1e12
    scores[2], scores[3] = np.abs(gaps).sum() / rows, brier / rows


def tallied(*parts: tuple[NDArray[np.float32], NDArray[np.int64]]) -> list[float]:
    """Return the scores of `tally`, one part's probabilities and labels after the other's, by compiled code."""
    out = np.empty((len(parts), len(TALLY)))
    for (p, y), row in zip(parts, out, strict=True):
        _compiled_tally()(p, y, row)
    return [float(score) for score in out.flat]


@cache
def _compiled_tally() -> Any:
    import numba

    return numba.njit(tally)


def majority_score(y_train: NDArray[np.int64], y_test: NDArray[np.int64], metric: str) -> float:
    """Return the accuracy, or a score of `tally`, of an answer that is always the most frequent training class."""
    most = np.bincount(y_train).argmax()
    guess = np.zeros((len(y_test), max(y_train.max(), y_test.max()) + 1), np.float32)
    guess[:, most] = 1.0
    return float((y_test == most).mean()) if metric == "accuracy" else tallied((guess, y_test))[TALLY.index(metric)]


def pack_hits(rows: int, tested: NDArray[np.int64 | np.bool_], right: NDArray[np.bool_]) -> str:
    """Return what happened to each row (1 right, 0 wrong, -1 not tested) as text: about a character for five rows.

    Args:
        rows: Their number.
        tested: Which of them are tested, by their places or as one bool a row.
        right: Which of the tested ones are classified rightly.
    """
    hits = np.full(rows, -1, np.int8)
    hits[tested] = right
    return base64.b64encode(zlib.compress(hits.tobytes(), 9)).decode()


def unpack_hits(text: str) -> NDArray[np.int8]:
    """Return what `pack_hits` packed."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int8)
