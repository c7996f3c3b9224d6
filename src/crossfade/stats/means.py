"""Tests, intervals and practical equivalence of a mean difference: over data sets, over repeats, over rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats, paired_differences, settle
from crossfade.stats.shape import check_fraction

# From this many data sets on, bootstrap-t is at most a quarter wider than Student's t and covers as often or more.
BOOTSTRAP_FROM = 10
# What is left of the fits' variance however many there are, since all learn from the same rows. benchmarks/verdict.py
# measures it between -0.1 and 0.24, by sample size and kind of difference.
SHARED_TRAINING = 0.1
OUT_OF_FOLD = "out-of-fold t"  # the kind of an interval
_SAMPLES, _SEED = 20_000, 0
_PRIOR = 0.5  # weight of the prior's one observation, a difference of zero; that of a data set is 1


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
    non-zero difference every time. All differences zero: standard error 0, p = 1, interval [0, 0]. ``floor`` is the
    part of the squared standard error that more repeats wouldn't make smaller.
    """

    mean: float
    standard_error: float | None
    df: float
    p: float | None
    interval: Interval | None
    floor: float = 0.0


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


def out_of_fold_t(
    differences: npt.ArrayLike, hits: npt.ArrayLike, control_hits: npt.ArrayLike, *, confidence: float = 0.95
) -> MeanTest:
    """Test the mean difference over repeats that test different rows of *one* data set, by what happened to each row.

    Two things could have come out differently: which rows the data set holds, and what each fit made of its training
    rows, initial weights and batches. With R repeats (fits) on N rows, d_ri in {-1, 0, 1} the difference of a row's
    hits in a repeat that tests it, d_i its mean over these repeats and w_i the row's weight in the mean over repeats
    (1/N where all are tested equally often), the variance of the mean is taken as::

        rows: S^2 sum_i w_i^2              S^2 = (sum_i (d_i - d)^2 + 2) / (N + 1): two more rows, one won and one lost
        fits: T^2 (1/R + 0.1)              T^2 = max(0, variance of the R differences - mean_r var_i(d_ri) / n_r)

    with Satterthwaite's degrees of freedom for the sum. The two added rows (Bonett and Price 2012) allow for rows of a
    kind that no row here is of; 0.1, see ``SHARED_TRAINING``, for the training rows that repeats share. Where all
    repeats test the same rows, these explain of T^2 only what repeats differ by within a row, var_r(d_ri) in place of
    var_i(d_ri).

    Args:
        differences: (R,): score of the method - score of the control in each repeat.
        hits, control_hits: (R, N): 1 for a row that is classified rightly, 0 for another, -1 where it isn't tested.
        confidence: such as 0.95.

    Raises:
        UserError: differences or shapes that don't fit, rows of the two that differ, a confidence outside (0, 1).
    """
    check_fraction("confidence", confidence)
    values, own, other = _checked(differences), np.asarray(hits), np.asarray(control_hits)
    tested = own >= 0
    if own.ndim != 2 or own.shape != other.shape or len(own) != len(values) or (tested != (other >= 0)).any():
        raise UserError(f"hits must be (repeats, rows) of the same rows for both, got {own.shape} and {other.shape}")
    if min(tested.sum(1)) < 2:
        raise UserError("hits must hold at least two tested rows in each repeat")
    repeats, mean = len(values), float(values.mean())
    if repeats == 1:
        return MeanTest(mean, None, 0, None, None)
    d, sizes, times = np.where(tested, own.astype(np.float64) - other, 0.0), tested.sum(1), tested.sum(0)
    weights = (tested / sizes[:, None]).mean(0)[times > 0]
    d, tested, times = d[:, times > 0], tested[:, times > 0], times[times > 0]
    by_row, n = d.sum(0) / times, len(times)
    spread = float((((by_row - by_row.mean()) ** 2).sum() + 2) / (n + 1))
    rows = spread * float((weights**2).sum())
    # What a row's repeats differ by among themselves would average out over more of them.
    again = float((times - 1).sum())
    noise = float((d**2).sum() - (d.sum(0) ** 2 / times).sum()) / again if again else 0.0
    squares = (d**2).sum(1) - d.sum(1) ** 2 / sizes  # about each repeat's own mean
    same = bool(tested.all())
    explained = noise / n if same else float((squares / (sizes - 1) / sizes).mean())
    fit = max(0.0, float(values.var(ddof=1)) - explained)
    fits = fit * (1 / repeats + SHARED_TRAINING)
    lasting = max(0.0, 1 - noise * float((1 / times).mean()) / spread)
    df = (rows + fits) ** 2 / (rows**2 / (n - 1) + fits**2 / (repeats - 1))
    # More repeats test the other rows, too, unless the rows are fixed.
    floor = lasting * spread / (n if same else own.shape[1]) + SHARED_TRAINING * fit
    return _t(mean, float(np.sqrt(rows + fits)), df, confidence, OUT_OF_FOLD, floor)


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


def detectable_difference(standard_error: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
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
def _noncentrality(df: float, alpha: float, power: float) -> float:
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
    deviation = float(np.std(values, ddof=1))
    return _t(mean, float(deviation * np.sqrt(1 / n + extra)), n - 1, confidence, kind, deviation**2 * extra)


def _t(mean: float, error: float, df: float, confidence: float, kind: str, floor: float) -> MeanTest:
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return MeanTest(mean, error, df, p, Interval(mean - half, mean + half, confidence, kind), floor)


def _checked(differences: npt.ArrayLike) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise UserError("differences must be one or more finite numbers, one a pair")
    return settle(values)


@dataclass(frozen=True)
class Equivalence:
    """Probabilities that the true difference is below -region, within the region, and above it; they add up to 1."""

    region: float
    worse: float
    equivalent: float
    better: float


def equivalence_of_mean(mean: float, standard_error: float, df: float, region: float) -> Equivalence:
    """Return the Bayesian counterpart of a t-test with a region of practical equivalence (Corani and Benavoli 2015).

    With a flat prior the true mean difference is Student's t with ``df`` degrees of freedom about ``mean``, scaled by
    ``standard_error``. With the corrected variance of Nadeau and Bengio this is the correlated Bayesian t-test; the
    variance of any other interval serves as well.

    Raises:
        UserError: a region that isn't a positive number, or a standard error below zero.
    """
    _check_region(region)
    if standard_error < 0:
        raise UserError(f"standard_error must not be negative, got {standard_error}")
    if standard_error == 0:
        worse, better = float(mean < -region), float(mean > region)
    else:
        worse = float(stats.t.cdf((-region - mean) / standard_error, df))
        better = float(stats.t.sf((region - mean) / standard_error, df))
    return Equivalence(region, worse, max(0.0, 1.0 - worse - better), better)


def equivalence_over_datasets(differences: npt.ArrayLike, region: float) -> Equivalence:
    r"""Return the Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2014).

    The distribution of differences is a Dirichlet process: data set i has the weight w_i, the prior's observation, 0,
    the weight w_0, and w ~ Dirichlet(1/2, 1, ..., 1). For one w the three regions hold::

        above: sum_ij w_i w_j [d_i + d_j > 2 region]     below: sum_ij w_i w_j [d_i + d_j < -2 region]     within: the rest

    The result is how often each of them is the largest among 20,000 draws with a fixed seed (equals share a draw).

    Raises:
        UserError: no difference, one that is not finite, or a region that isn't a positive number.
    """  # noqa: E501
    _check_region(region)
    # Sorted: the answer doesn't depend on the order of the data sets.
    d = np.concatenate([[0.0], np.sort(_checked(differences))])
    sums = d[:, None] + d
    weights = np.random.default_rng(_SEED).dirichlet([_PRIOR, *np.ones(len(d) - 1)], _SAMPLES)
    below, above = (((weights @ pairs) * weights).sum(1) for pairs in (sums < -2 * region, sums > 2 * region))
    shares = np.stack([below, 1.0 - below - above, above])
    largest = shares >= shares.max(0) - 1e-12
    worse, equivalent, better = (largest / largest.sum(0)).mean(1).tolist()
    return Equivalence(region, worse, equivalent, better)


def _check_region(region: float) -> None:
    if not 0 < region < float("inf"):
        raise UserError(f"the region of practical equivalence must be a number above 0, got {region}")
