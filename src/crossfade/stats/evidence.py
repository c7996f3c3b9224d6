"""The evidence on a method against the control: intervals and tests for a mean difference, and what they conclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.items import RowTest, mcnemar
from crossfade.stats.means import (
    OUT_OF_FOLD,
    Equivalence,
    Interval,
    corrected_resampled_t,
    detectable_difference,
    equivalence_of_mean,
    equivalence_over_datasets,
    mean_interval,
    out_of_fold_t,
    paired_t,
)
from crossfade.stats.ranking import WinTieLoss, paired_differences, win_tie_loss
from crossfade.stats.significance import adjust_p, sign_test, wilcoxon

Outcome = Literal[
    "better",
    "worse",
    "no reliable difference",
    "practically equivalent",
    "identical",
    "one repeat",
    "no spread",
    "too few data sets",
    "mixed",
]


@dataclass(frozen=True)
class PairedComparison:
    """A method against the control on one data set; differences of accuracies are fractions, not percent.

    ``interval`` and ``p`` belong to this comparison alone, ``p_adjusted`` is Holm's over all ``comparisons`` that are
    judged together. ``None``: one repeat, or no spread among the repeats. ``df`` and ``floor``: see ``MeanTest``.
    ``equivalence``: where a region of practical equivalence was asked for. ``by_row``: on fixed test rows, where it is
    known what happened to each.
    """

    dataset: str
    method: str
    control: str
    differences: tuple[float, ...]
    mean: float
    standard_error: float | None
    df: float = field(repr=False)
    floor: float = field(repr=False)
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    comparisons: int
    counts: WinTieLoss
    n_train: float
    n_test: float
    fixed_test: bool
    confidence: float
    equivalence: Equivalence | None = None
    by_row: RowTest | None = None

    @property
    def repeats(self) -> int:
        """Number of paired repeats."""
        return len(self.differences)

    @property
    def by_rows(self) -> bool:
        """Whether the interval allows for other test rows by what happened to each of these."""
        return self.interval is not None and self.interval.kind == OUT_OF_FOLD

    @property
    def training_only(self) -> bool:
        """Whether the interval covers the randomness of training alone, on exactly these test rows."""
        return self.fixed_test and not self.by_rows

    @property
    def detectable(self) -> float | None:
        """The true difference that such a run finds with probability 0.8 at the level of Holm's first step."""
        return self.detectable_with(self.repeats)

    def detectable_with(self, repeats: int) -> float | None:
        """Return the true difference that another number of repeats would find, given the spread of these."""
        if not self.standard_error:
            return None
        if repeats < 2:
            raise UserError(f"repeats must be at least 2, got {repeats}")
        variance = self.floor + (self.standard_error**2 - self.floor) * self.repeats / repeats
        alpha = (1 - self.confidence) / self.comparisons
        return detectable_difference(float(np.sqrt(variance)), self.df + repeats - self.repeats, alpha=alpha)

    @property
    def outcome(self) -> Outcome:
        """What may be concluded from the adjusted p-value, or why nothing may."""
        if self.repeats == 1:
            return "one repeat"
        if not any(self.differences):
            return "identical"
        if self.p_adjusted is None:
            return "no spread"
        if self.p_adjusted > 1 - self.confidence:
            return _undecided(self.equivalence, self.confidence)
        return "better" if self.mean > 0 else "worse"

    def with_region(self, region: float) -> PairedComparison:
        """Return the same with the probabilities of differences below, within and above a region."""
        if self.standard_error is None:
            return self
        return replace(self, equivalence=equivalence_of_mean(self.mean, self.standard_error, self.df, region))


@dataclass(frozen=True)
class AcrossComparison:
    """A method against the control over data sets, one mean difference (a fraction) a data set.

    ``p`` is Wilcoxon's signed-rank test, ``p_adjusted`` Holm's over the methods, ``sign_p`` the sign test;
    ``smallest_p`` is the least p that the signed-rank test can give over so many data sets, 2^(1-N).
    """

    method: str
    control: str
    differences: tuple[float, ...]
    mean: float
    interval: Interval | None
    p: float
    p_adjusted: float
    comparisons: int
    sign_p: float
    smallest_p: float
    counts: WinTieLoss
    confidence: float
    equivalence: Equivalence | None = None

    @property
    def datasets(self) -> int:
        """Number of data sets."""
        return len(self.differences)

    def detectable_with(self, datasets: int) -> float | None:
        """Return the true mean difference that a t-test over so many data sets finds with probability 0.8."""
        if self.datasets < 2 or not any(self.differences):
            return None
        if datasets < 2:
            raise UserError(f"datasets must be at least 2, got {datasets}")
        error = float(np.std(self.differences, ddof=1)) / datasets**0.5
        return detectable_difference(error, datasets - 1, alpha=(1 - self.confidence) / self.comparisons)

    @property
    def outcome(self) -> Outcome:
        """What may be concluded from the adjusted p-value and the interval together, or why nothing may."""
        alpha = 1 - self.confidence
        if not any(self.differences):
            return "identical"
        if self.smallest_p * self.comparisons > alpha:
            return "too few data sets"
        if self.p_adjusted > alpha:
            return _undecided(self.equivalence, self.confidence)
        if self.interval is None or not self.interval.excludes_zero() or (self.mean > 0) != self.usually_better:
            return "mixed"
        return "better" if self.mean > 0 else "worse"

    def with_region(self, region: float) -> AcrossComparison:
        """Return the same with the probabilities of differences below, within and above a region."""
        return replace(self, equivalence=equivalence_over_datasets(self.differences, region))

    @property
    def usually_better(self) -> bool:
        """Whether the signed ranks point towards the method; they can point the other way than the mean."""
        d = np.array(self.differences)
        return bool((np.sign(d) * stats.rankdata(np.abs(d))).sum() > 0)


def _undecided(equivalence: Equivalence | None, confidence: float) -> Outcome:
    probable = equivalence is not None and equivalence.equivalent >= confidence
    return "practically equivalent" if probable else "no reliable difference"


def compare_repeats(
    scores: npt.ArrayLike,
    control_scores: npt.ArrayLike,
    *,
    dataset: str,
    method: str,
    control: str,
    n_train: float,
    n_test: float,
    fixed_test: bool = False,
    hits: npt.ArrayLike | None = None,
    control_hits: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> PairedComparison:
    """Compare two methods over paired repeats of one data set; not yet adjusted for other comparisons.

    Args:
        scores: accuracy of the method, a repeat each.
        control_scores: accuracy of the control in the same repeats.
        dataset, method, control: their names.
        n_train, n_test: training and test rows of a repeat.
        fixed_test: every repeat is tested on the same rows. Without hits the interval is then Student's and covers the
            randomness of training alone; otherwise it is that of `corrected_resampled_t`.
        hits, control_hits: what happened to each row, read where both are given; then the interval is that of
            `out_of_fold_t`, which allows for other test rows, and on fixed test rows `mcnemar` judges by these alone.
        confidence: of the interval; 1 − confidence is the level of the verdict.

    Raises:
        UserError: unpaired, empty or non-finite scores, or row counts that are not positive.
    """
    d = paired_differences(scores, control_scores)
    rows = None if hits is None or control_hits is None else (hits, control_hits)
    if rows:
        result = out_of_fold_t(d, *rows, confidence=confidence)
    elif fixed_test:
        result = paired_t(d, confidence=confidence)
    else:
        result = corrected_resampled_t(d, n_train, n_test, confidence=confidence)
    return PairedComparison(
        dataset=dataset,
        method=method,
        control=control,
        differences=tuple(d.tolist()),
        **vars(result),
        p_adjusted=result.p,
        comparisons=1,
        counts=win_tie_loss(scores, control_scores),
        n_train=n_train,
        n_test=n_test,
        fixed_test=fixed_test,
        confidence=confidence,
        by_row=mcnemar(*rows) if rows and fixed_test else None,
    )


def compare_datasets(
    scores: npt.ArrayLike, control_scores: npt.ArrayLike, *, method: str, control: str, confidence: float = 0.95
) -> AcrossComparison:
    """Compare two methods over data sets, given the mean accuracy on each; not yet adjusted for other comparisons.

    The interval for the mean difference is that of `mean_interval`.

    Raises:
        UserError: unpaired, empty or non-finite scores.
    """
    d = paired_differences(scores, control_scores)
    p = wilcoxon(scores, control_scores)[1]
    return AcrossComparison(
        method=method,
        control=control,
        differences=tuple(d.tolist()),
        mean=float(d.mean()),
        interval=mean_interval(scores, control_scores, confidence),
        p=p,
        p_adjusted=p,
        comparisons=1,
        sign_p=sign_test(scores, control_scores),
        smallest_p=min(1.0, 2.0 ** (1 - len(d))),
        counts=win_tie_loss(scores, control_scores),
        confidence=confidence,
    )


Evidence = TypeVar("Evidence", PairedComparison, AcrossComparison)


def judged_together(comparisons: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Adjust the p-values of verdicts that are read together, by Holm's method."""
    family = [c.p for c in comparisons if c.p is not None]
    adjusted = iter(adjust_p(family, "holm").tolist())
    sized = [replace(c, comparisons=max(1, len(family))) for c in comparisons]
    return tuple(c if c.p is None else replace(c, p_adjusted=next(adjusted)) for c in sized)
