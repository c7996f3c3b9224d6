"""Comparisons of models that answered the same items, each rightly or wrongly: McNemar's exact test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.means import Interval
from crossfade.stats.shape import check_fraction, check_labels, known
from crossfade.stats.significance import adjust_p
from crossfade.stats.words import count, listed

_WORDS = {"right": 1, "true": 1, "yes": 1, "correct": 1, "wrong": 0, "false": 0, "no": 0, "incorrect": 0}


@dataclass(frozen=True)
class RowTest:
    """The numbers of rows on which a method is right more often, and less often, than the control; McNemar's p."""

    wins: int
    losses: int
    p: float


@dataclass(frozen=True)
class ItemTest:
    """A model against the control on the same items; scores and their difference are shares of right answers."""

    method: str
    control: str
    items: int
    score: float
    control_score: float
    delta: float
    interval: Interval
    rows: RowTest
    p_adjusted: float


def mcnemar(hits: npt.ArrayLike, control_hits: npt.ArrayLike) -> RowTest:
    """Test by the rows on which two classifiers differ, exactly: are they won and lost with equal chances?

    This is McNemar's test with the binomial distribution. Rows that both have right, or wrong, say nothing. Where
    several repeats test the same rows, a row is won by the method that is right in more of them.

    Args:
        hits, control_hits: (rows,) or (repeats, rows): 1 or true for right, 0 or false for wrong, below 0 not tested.

    Raises:
        UserError: another value, shapes that differ, or rows that one tested and the other did not.

    Example:
        >>> mcnemar([1, 1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 1])
        RowTest(wins=4, losses=1, p=0.375)
    """
    own, other = np.atleast_2d(np.asarray(hits, np.float64)), np.atleast_2d(np.asarray(control_hits, np.float64))
    for one in (own, other):
        if (odd := one[~((one < 0) | (one == 0) | (one == 1))]).size:
            raise UserError(f"hits must be 1 (right), 0 (wrong) or below 0 (not tested), got {odd[0]:g}")
    if own.shape != other.shape or own.ndim != 2 or ((own < 0) != (other < 0)).any():
        raise UserError(f"hits must be of the same rows for both, got {own.shape} and {other.shape}")
    difference = np.where(own < 0, 0, own - other).sum(0)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return RowTest(wins, losses, p)


def compare_items(
    frame: pd.DataFrame, *, item: str, method: str, score: str, control: str | None = None, confidence: float = 0.95
) -> tuple[ItemTest, ...]:
    """Compare models by what each made of every item.

    Args:
        frame: a row an item and model.
        item, method, score: columns of the items, the models, and of right or wrong: 1/0, true/false, right/wrong.
        control: the model that the others are compared with; the first one where there are two.
        confidence: of the intervals, which are Bonett and Price's (2012): Wald's after one more item won and one lost.

    Returns:
        A test for each model but the control; p-values also adjusted by Holm's method.

    Raises:
        UserError: a missing column or label, an item without an answer of every model or with two, another value than
            right or wrong, fewer than two models, or more without a control.
    """
    check_fraction("confidence", confidence)
    check_labels(frame, (item, method), score)
    answers = frame.assign(**{score: [_right(value, score) for value in frame[score]]}).astype({method: str})
    if (twice := answers.duplicated([item, method])).any():
        raise UserError(f"item {answers.loc[twice, item].iloc[0]} has more than one answer of the same {method}")
    wide = answers.pivot(index=item, columns=method, values=score)[pd.unique(answers[method])]
    if lost := wide.index[wide.isna().any(axis=1)].tolist():
        raise UserError(f"{count(len(lost), 'item')} without an answer of some {method}: {listed(lost)}")
    names = list(wide.columns)
    if len(names) < 2 or (len(names) > 2 and control is None):
        raise UserError(f"{method}: expected two, or a --control, got {listed(names)}")
    base = known(names[0] if control is None else control, names, "control")
    hits = dict(zip(names, wide.to_numpy(np.int64).T, strict=True))
    tests = {name: mcnemar(own, hits[base]) for name, own in hits.items() if name != base}
    adjusted = adjust_p([test.p for test in tests.values()], "holm").tolist()
    n, share = len(wide), {name: float(own.mean()) for name, own in hits.items()}
    spans = [_interval(test, n, confidence) for test in tests.values()]
    return tuple(
        ItemTest(name, base, n, share[name], share[base], share[name] - share[base], span, test, p)
        for (name, test), span, p in zip(tests.items(), spans, adjusted, strict=True)
    )


def _right(value: object, column: str) -> int:
    word = str(value).strip().lower()
    try:
        number = float(_WORDS.get(word, word))
    except ValueError:
        number = np.nan
    if number not in (0.0, 1.0):
        raise UserError(f"column {column!r} must say right or wrong (1 or 0, true or false), got {value!r}")
    return int(number)


def _interval(test: RowTest, items: int, confidence: float) -> Interval:
    n, won, lost = items + 2, test.wins + 1, test.losses + 1
    middle = (won - lost) / n
    half = float(stats.norm.ppf((1 + confidence) / 2)) * (((won + lost) / n - middle**2) / n) ** 0.5
    return Interval(max(-1.0, middle - half), min(1.0, middle + half), confidence, "Bonett-Price")
