"""The evidence on a method against the control: intervals and tests for a mean difference, and what they conclude."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats, WinTieLoss, paired_differences, settle, win_tie_loss
from crossfade.stats.shape import check_fraction
from crossfade.stats.significance import adjust_p, sign_test, wilcoxon

# From this many data sets on, bootstrap-t is at most a quarter wider than Student's t and covers as often or more.
BOOTSTRAP_FROM = 10

Outcome = Literal[
    "better", "worse", "no reliable difference", "identical", "one repeat", "no spread", "too few data sets", "mixed"
]


@dataclass(frozen=True)
class Interval:
    """A confidence interval for a mean difference; ``kind`` names the method that made it."""

    low: float
    high: float
    confidence: float
    kind: str

    def excludes_zero(self) -> bool:
        """Say whether both bounds lie on the same side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class MeanTest:
    """The mean of paired differences with its standard error, t-test and interval.

    ``interval`` and ``p`` are ``None`` where the data hold no spread to judge by: a single difference, or the same
    non-zero difference every time. All differences zero: standard error 0, p = 1, interval [0, 0].
    """

    mean: float
    standard_error: float | None
    df: int
    p: float | None
    interval: Interval | None


@dataclass(frozen=True)
class PairedComparison:
    """A method against the control on one data set; differences of accuracies are fractions, not percent.

    ``interval`` and ``p`` belong to this comparison alone, ``p_adjusted`` is Holm's over all ``comparisons`` that are
    judged together. ``None``: one repeat, or no spread among the repeats.
    """

    dataset: str
    method: str
    control: str
    differences: tuple[float, ...]
    mean: float
    standard_error: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    comparisons: int
    counts: WinTieLoss
    n_train: float
    n_test: float
    fixed_test: bool
    confidence: float

    @property
    def repeats(self) -> int:
        """Number of paired repeats."""
        return len(self.differences)

    @property
    def detectable(self) -> float | None:
        """The true difference that such a run finds with probability 0.8 at the level of Holm's first step."""
        alpha, error = (1 - self.confidence) / self.comparisons, self.standard_error
        return detectable_difference(error, self.repeats - 1, alpha=alpha) if error else None

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
            return "no reliable difference"
        return "better" if self.mean > 0 else "worse"


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

    @property
    def datasets(self) -> int:
        """Number of data sets."""
        return len(self.differences)

    @property
    def outcome(self) -> Outcome:
        """What may be concluded from the adjusted p-value and the interval together, or why nothing may."""
        alpha = 1 - self.confidence
        if not any(self.differences):
            return "identical"
        if self.smallest_p * self.comparisons > alpha:
            return "too few data sets"
        if self.p_adjusted > alpha:
            return "no reliable difference"
        if self.interval is None or not self.interval.excludes_zero() or (self.mean > 0) != self.usually_better:
            return "mixed"
        return "better" if self.mean > 0 else "worse"

    @property
    def usually_better(self) -> bool:
        """Whether the signed ranks point towards the method; they can point the other way than the mean."""
        d = np.array(self.differences)
        return bool((np.sign(d) * stats.rankdata(np.abs(d))).sum() > 0)


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
    confidence: float = 0.95,
) -> PairedComparison:
    """Compare two methods over paired repeats of one data set; not yet adjusted for other comparisons.

    Args:
        scores: accuracy of the method, a repeat each.
        control_scores: accuracy of the control in the same repeats.
        dataset, method, control: their names.
        n_train, n_test: training and test rows of a repeat.
        fixed_test: every repeat is tested on the same rows. Then the interval is Student's and covers the randomness
            of training alone; otherwise it is that of `corrected_resampled_t`.
        confidence: of the interval; 1 − confidence is the level of the verdict.

    Raises:
        UserError: unpaired, empty or non-finite scores, or row counts that are not positive.
    """
    d = paired_differences(scores, control_scores)
    if fixed_test:
        result = paired_t(d, confidence=confidence)
    else:
        result = corrected_resampled_t(d, n_train, n_test, confidence=confidence)
    return PairedComparison(
        dataset=dataset,
        method=method,
        control=control,
        differences=tuple(d.tolist()),
        mean=result.mean,
        standard_error=result.standard_error,
        interval=result.interval,
        p=result.p,
        p_adjusted=result.p,
        comparisons=1,
        counts=win_tie_loss(scores, control_scores),
        n_train=n_train,
        n_test=n_test,
        fixed_test=fixed_test,
        confidence=confidence,
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


def mean_interval(scores: npt.ArrayLike, control_scores: npt.ArrayLike, confidence: float = 0.95) -> Interval | None:
    """Return an interval for the mean difference over blocks.

    It is Student's below 10 blocks and the symmetric bootstrap-t of `bootstrap_interval` from there on, unless so many
    differences are equal that it has no end. ``None`` where Student's has no spread to go by: one block, or the same
    non-zero difference on all.

    Raises:
        UserError: unpaired, empty or non-finite scores.
    """
    d = paired_differences(scores, control_scores)
    if len(d) >= BOOTSTRAP_FROM:
        found = bootstrap_interval(d, confidence=confidence)
        if np.isfinite(found.low):
            return found
    return paired_t(d, confidence=confidence).interval


Evidence = TypeVar("Evidence", PairedComparison, AcrossComparison)


def judged_together(comparisons: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Adjust the p-values of verdicts that are read together, by Holm's method."""
    family = [c.p for c in comparisons if c.p is not None]
    adjusted = iter(adjust_p(family, "holm").tolist())
    sized = [replace(c, comparisons=max(1, len(family))) for c in comparisons]
    return tuple(c if c.p is None else replace(c, p_adjusted=next(adjusted)) for c in sized)


def paired_t(differences: npt.ArrayLike, *, confidence: float = 0.95) -> MeanTest:
    """Test the mean of independent differences with Student's t; its interval is d̄ ± t(1-α/2, R-1) · s / √R.

    Raises:
        UserError: no difference, one that is not finite, or a confidence outside (0, 1).
    """
    return _mean_test(differences, 0.0, confidence, "Student t")


def corrected_resampled_t(
    differences: npt.ArrayLike, n_train: float, n_test: float, *, confidence: float = 0.95
) -> MeanTest:
    """Test the mean difference over repeated random splits of *one* data set (Nadeau and Bengio 2003).

    The repeats share rows, so their differences are correlated and Student's s²/R is far too small. With R repeats the
    variance of the mean is taken as::

        s² · (1/R + n_test / n_train)          R - 1 degrees of freedom

    The second term doesn't shrink with R: more repeats can't replace more data. ``n_train`` counts the rows the weights
    were fitted on; leaving validation rows out of it makes the interval a little wider.

    Args:
        differences: one a repeat, score of the method − score of the control.
        n_train, n_test: training and test rows of a repeat.
        confidence: such as 0.95.

    Raises:
        UserError: no difference, one that is not finite, a row count that is not positive, a confidence outside (0, 1).

    Example:
        >>> result = corrected_resampled_t([0.01, 0.02, 0.03], n_train=80, n_test=20)
        >>> round(result.standard_error, 6)                       # 0.01 * sqrt(1/3 + 1/4)
        0.007638
    """
    if not (n_train > 0 and n_test > 0):
        raise UserError(f"n_train and n_test must be positive, got {n_train} and {n_test}")
    return _mean_test(differences, n_test / n_train, confidence, "corrected resampled t")


def bootstrap_interval(
    differences: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    method: Literal["t", "BCa", "percentile"] = "t",
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return a paired bootstrap interval for the mean difference over blocks (``scipy.stats.bootstrap``).

    Blocks are drawn with replacement, each with both of its scores, so the pairing is kept. The differences are sorted
    first: the answer doesn't depend on the order of the rows. ``"t"`` is the symmetric bootstrap-t (Hall 1988)::

        d̄ ± q · s / √N        q: the quantile of |d̄* - d̄| √N / s* at ``confidence``, over the resamples

    It follows skewness and heavy tails, which the others don't: below some 100 blocks they are too narrow. Where many
    differences are equal, so are all that are drawn in many resamples; then s* is 0, and the interval may have no end.

    Raises:
        UserError: fewer than two differences, one that is not finite, or a confidence outside (0, 1).
    """
    check_fraction("confidence", confidence)
    values = np.sort(_checked(differences))
    if len(values) < 2:
        raise UserError("a bootstrap over blocks needs at least two differences, got one")
    kind = "symmetric bootstrap-t" if method == "t" else f"{method} bootstrap"
    if values[0] == values[-1]:
        return Interval(float(values[0]), float(values[0]), confidence, kind)
    mean = float(values.mean())

    def size(sample: Floats, axis: int = -1) -> Floats:
        """Return |t| of each sample about the mean of all differences."""
        off = np.abs(sample.mean(axis) - mean)
        return np.where(off == 0, 0.0, off / sample.std(axis, ddof=1))

    with np.errstate(divide="ignore", invalid="ignore"):  # no spread in a resample: a size without end
        found = stats.bootstrap(
            (values,),
            size if method == "t" else np.mean,
            confidence_level=confidence,
            method="percentile" if method == "t" else method,
            n_resamples=resamples,
            batch=max(1, 4_000_000 // len(values)),
            rng=np.random.default_rng(seed),
        )
    low, high = found.confidence_interval
    if method == "t":
        half = np.quantile(found.bootstrap_distribution, confidence, method="higher") * values.std(ddof=1)
        low, high = mean - half, mean + half
    return Interval(float(low), float(high), confidence, kind)


def detectable_difference(standard_error: float, df: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true mean difference that a two-sided t-test at ``alpha`` finds with probability ``power``.

    Solves P(T' > t(1-α/2, df)) = power for the non-centrality of T' and multiplies it by the standard error. The spread
    is the observed one, so this is a guide to what the run could have shown, not a property of the methods.

    Raises:
        UserError: not 0 < ``alpha`` < ``power`` < 1, df < 1, or a negative standard error.
    """
    if not 0 < alpha < power < 1:
        raise UserError(f"needed: 0 < alpha < power < 1, got alpha {alpha} and power {power}")
    if df < 1 or standard_error < 0:
        raise UserError(f"df must be at least 1 and the standard error not negative, got {df} and {standard_error}")
    return standard_error * _noncentrality(df, alpha, power)


@lru_cache(maxsize=1024)
def _noncentrality(df: int, alpha: float, power: float) -> float:
    critical = float(stats.t.isf(alpha / 2, df))
    with warnings.catch_warnings():
        # SciPy's series reports slow convergence far in the tail, with a value good to more digits than are shown.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - power, 0.0, 10 * critical + 10))


def _mean_test(differences: npt.ArrayLike, extra: float, confidence: float, kind: str) -> MeanTest:
    check_fraction("confidence", confidence)
    values = _checked(differences)
    n, mean = len(values), float(np.mean(values))
    if n > 1 and not values.any():
        return MeanTest(0.0, 0.0, n - 1, 1.0, Interval(0.0, 0.0, confidence, kind))
    if n == 1 or np.ptp(values) == 0:
        return MeanTest(mean, None, n - 1, None, None)
    error = float(np.std(values, ddof=1) * np.sqrt(1 / n + extra))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return MeanTest(mean, error, n - 1, p, Interval(mean - half, mean + half, confidence, kind))


def _checked(differences: npt.ArrayLike) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise UserError("differences must be one or more finite numbers, one a pair")
    return settle(values)
