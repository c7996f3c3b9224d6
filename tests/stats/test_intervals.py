import numpy as np
import pytest
from scipy import stats as scipy_stats

from crossfade.errors import UserError
from crossfade.stats import bootstrap_interval, corrected_resampled_t, detectable_difference, mean_interval, paired_t

D = [0.02, 0.01, 0.03, 0.00, 0.02, 0.04, 0.01, 0.03, 0.02, 0.02]


def test_student_is_scipys():
    theirs = scipy_stats.ttest_1samp(D, 0)
    ours = paired_t(D, confidence=0.9)
    low, high = theirs.confidence_interval(0.9)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low, high))
    assert (ours.p, ours.df) == pytest.approx((theirs.pvalue, 9))


def test_nadeau_and_bengio_by_hand():
    # mean 0.02; s² = Σ(d - 0.02)²/9 = (0+1+1+4+0+4+1+1+0+0)e-4/9 = 12e-4/9; variance of the mean s²(1/10 + 25/75)
    ours = corrected_resampled_t(D, n_train=75, n_test=25)
    variance = (12e-4 / 9) * (1 / 10 + 1 / 3)
    assert ours.standard_error == pytest.approx(np.sqrt(variance))
    assert ours.standard_error == pytest.approx(0.0076012, abs=1e-7)
    half = 2.2621572 * np.sqrt(variance)  # the tabled t for 9 degrees of freedom
    assert (ours.interval.low, ours.interval.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-7)
    assert ours.p == pytest.approx(2 * scipy_stats.t.sf(0.02 / np.sqrt(variance), 9))
    assert ours.interval.kind == "corrected resampled t"


def test_the_correction_vanishes_with_the_test_set_and_does_not_shrink_with_repeats():
    assert corrected_resampled_t(D, 1e12, 1).standard_error == pytest.approx(paired_t(D).standard_error)
    many = corrected_resampled_t(D * 1000, 75, 25)
    assert many.standard_error > np.std(D) * np.sqrt(1 / 3)


@pytest.mark.parametrize("test", [paired_t, lambda d: corrected_resampled_t(d, 80, 20)])
def test_nothing_to_judge_by(test):
    assert test([0.01]).interval is None
    assert test([0.01]).p is None
    same = test([0.1 + 0.2 - 0.3 + 0.01, 0.01, 0.01])  # equal but for rounding
    assert (same.interval, same.p, same.standard_error) == (None, None, None)
    zero = test([0.0, 0.0, 0.0])
    assert (zero.interval.low, zero.interval.high, zero.p) == (0, 0, 1)
    assert test([0.0]).interval is None


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_bootstrap_is_scipys_on_sorted_differences(method):
    rng = np.random.default_rng(5)
    d = rng.normal(0.01, 0.02, 30)
    theirs = scipy_stats.bootstrap(
        (np.sort(d),), np.mean, confidence_level=0.9, method=method, rng=np.random.default_rng(7), n_resamples=9999
    ).confidence_interval
    ours = bootstrap_interval(d, confidence=0.9, method=method, seed=7)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours == bootstrap_interval(d[::-1], confidence=0.9, method=method, seed=7)


def test_bootstrap_of_equal_differences_is_a_point():
    assert bootstrap_interval([0.25] * 5).low == bootstrap_interval([0.25] * 5).high == 0.25


def test_the_symmetric_bootstrap_t_by_its_definition():
    d = np.random.default_rng(5).exponential(0.02, 30)
    rng = np.random.default_rng(8)  # other resamples than ours
    sizes = []
    for _ in range(9999):
        drawn = rng.choice(d, len(d))
        sizes.append(abs(drawn.mean() - d.mean()) / (drawn.std(ddof=1) / np.sqrt(len(d))))
    half = np.quantile(sizes, 0.9) * d.std(ddof=1) / np.sqrt(len(d))
    ours = bootstrap_interval(d, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((d.mean() - half, d.mean() + half), rel=0.03)
    assert ours == bootstrap_interval(d[::-1], confidence=0.9)


def test_over_few_blocks_the_interval_is_students():
    rng = np.random.default_rng(6)
    a, b = rng.random(30), rng.random(30)
    assert mean_interval(a[:9], b[:9]) == paired_t(a[:9] - b[:9]).interval
    assert mean_interval(a, b) == bootstrap_interval(a - b)


def test_where_the_bootstrap_has_no_end_the_interval_is_students():
    d = np.array([0.1] + [0.0] * 19)  # a third of all resamples hold zeros alone
    assert bootstrap_interval(d).high == np.inf
    assert mean_interval(d, np.zeros(20)) == paired_t(d).interval


def test_the_interval_over_blocks_covers_where_bca_does_not():
    rng = np.random.default_rng(9)
    samples = rng.standard_t(3, (300, 20))
    held = {
        method: np.mean([span.low <= 0 <= span.high for span in made])
        for method in ("t", "BCa")
        if (made := [bootstrap_interval(d, method=method, resamples=399) for d in samples])
    }
    assert held["t"] >= 0.94
    assert held["BCa"] < 0.92


@pytest.mark.parametrize("df", [1, 4, 9, 60])
def test_a_detectable_difference_is_detected_in_four_runs_of_five(df):
    error = 0.013
    effect = detectable_difference(error, df)
    rng = np.random.default_rng(df)
    runs = 40_000
    means = effect + error * rng.standard_normal(runs)
    errors = error * np.sqrt(rng.chisquare(df, runs) / df)
    found = np.abs(means / errors) > scipy_stats.t.isf(0.025, df)
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_at_the_levels_of_many_comparisons():
    sizes = [detectable_difference(1.0, 1, alpha=0.05 / m) for m in (1, 5, 50, 600)]
    assert sizes == sorted(sizes)
    assert np.isfinite(sizes).all()


def test_what_is_refused():
    for call in (
        lambda: paired_t([]),
        lambda: paired_t([np.nan]),
        lambda: paired_t([1.0, 2.0], confidence=95),
        lambda: corrected_resampled_t(D, 0, 10),
        lambda: corrected_resampled_t(D, 10, -1),
        lambda: bootstrap_interval([1.0]),
        lambda: bootstrap_interval([1.0, np.inf]),
        lambda: detectable_difference(1.0, 0),
        lambda: detectable_difference(1.0, 5, power=0.01),
    ):
        with pytest.raises(UserError):
            call()
