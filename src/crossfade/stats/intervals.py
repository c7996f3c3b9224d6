"""Intervals for a mean difference (Student's, corrected resampled, bootstrap), and what a run could have detected."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats, settle
from crossfade.stats.shape import check_fraction


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
        n_train: training rows of a repeat.
        n_test: test rows of a repeat.
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
    method: Literal["BCa", "percentile"] = "BCa",
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Return a paired bootstrap interval for the mean difference over blocks (``scipy.stats.bootstrap``).

    Blocks are drawn with replacement, each with both of its scores, so the pairing is kept. The differences are sorted
    first: the answer doesn't depend on the order of the rows. Below some 20 blocks it is too narrow; use `paired_t`.

    Raises:
        UserError: fewer than two differences, one that is not finite, or a confidence outside (0, 1).
    """
    check_fraction("confidence", confidence)
    values = np.sort(_checked(differences))
    if len(values) < 2:
        raise UserError("a bootstrap over blocks needs at least two differences, got one")
    kind = f"{method} bootstrap"
    if values[0] == values[-1]:
        return Interval(float(values[0]), float(values[0]), confidence, kind)
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        method=method,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // len(values)),
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high), confidence, kind)


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

    def shortfall(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, df, noncentrality)) - power

    with warnings.catch_warnings():
        # SciPy's series reports slow convergence far in the tail, with a value good to more digits than are shown.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(optimize.brentq(shortfall, 0.0, 10 * critical + 10))


def _mean_test(differences: npt.ArrayLike, extra: float, confidence: float, kind: str) -> MeanTest:
    check_fraction("confidence", confidence)
    values = _checked(differences)
    n, mean = len(values), float(np.mean(values))
    if not values.any():
        zero = Interval(0.0, 0.0, confidence, kind) if n > 1 else None
        return MeanTest(0.0, 0.0 if zero else None, n - 1, 1.0 if zero else None, zero)
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
