"""The interval that takes what happened to each row: its formula, what it is made of, and whether it covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from crossfade.errors import UserError
from crossfade.stats import compare_methods, compare_repeats, corrected_resampled_t, out_of_fold_t, paired_t
from tests.examples import examples


def folds(rng, rows, rounds=2, number=5):
    """Whether each repeat tests each row: folds of a cross-validation, again and again."""
    return np.concatenate(
        [np.eye(number, dtype=bool)[:, rng.permutation(np.arange(rows) % number)] for _ in range(rounds)]
    )


def hits(rng, chance, tested):
    """Draw hits with these chances, (repeats, rows) or (rows,); -1 where a row isn't tested."""
    return np.where(tested, rng.random(tested.shape) < chance, -1).astype(np.int8)


def accuracy(found):
    return np.array([row[row >= 0].mean() for row in found])


def tried(own, other, **options):
    return out_of_fold_t(accuracy(own) - accuracy(other), own, other, **options)


def test_one_round_of_folds_by_hand():
    # Two folds of four rows: differences (1, 0, 0, 0) and (0, 1, -1, 1) of the hits.
    own = np.array([[1, 1, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, 0, 1, 0, 1]], dtype=np.int8)
    other = np.array([[0, 1, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, 0, 0, 1, 0]], dtype=np.int8)
    found = tried(own, other)
    assert found.mean == 0.25
    rows = (4 - 8 * 0.25**2 + 2) / 9 / 8  # (sum of squares about the mean + 2) / (N + 1), over N
    within = (0.25 + 11 / 12) / 2 / 4  # variances 3/4/3 and (3 - 1/4)/3, their mean over the rows of a fold
    assert within > 0  # and the folds' means are equal: nothing is left for the fits
    assert found.standard_error == pytest.approx(np.sqrt(rows))
    assert found.df == pytest.approx(7)
    half = 2.3646243 * np.sqrt(rows)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-7)
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(0.25 / np.sqrt(rows), 7))
    assert found.floor == pytest.approx(rows)  # each row was tested once: nothing says what more repeats would do


def test_more_repeats_test_the_rows_that_none_has_tested_yet():
    own = np.array([[1, 1, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, 0, 1, 0, 1]], dtype=np.int8)
    other = np.array([[0, 1, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, 0, 0, 1, 0]], dtype=np.int8)
    whole = tried(own, other)
    left = np.full((2, 8), -1, np.int8)  # as many rows that other repeats would test
    half = tried(np.hstack([own, left]), np.hstack([other, left]))
    assert half.standard_error == whole.standard_error
    assert half.floor == pytest.approx(whole.floor / 2)


def test_fits_that_differ_count_as_fits():
    rng = np.random.default_rng(0)
    tested = folds(rng, 5000, rounds=4)
    level = np.tile([0.1, -0.1], 10)[:, None]  # of each fit, all of its rows alike
    own, other = hits(rng, 0.5 + level, tested), hits(rng, 0.5, tested)
    found = tried(own, other)
    fit = 20 / 19 * 0.01
    assert found.standard_error**2 == pytest.approx(fit * (1 / 20 + 0.1), rel=0.15)
    assert found.df == pytest.approx(19, rel=0.2)


def test_rows_that_differ_stay_however_often_they_are_tested():
    rng = np.random.default_rng(1)
    rows = rng.choice([0.0, 1.0], 400)  # where the method is always right, and the control by chance
    sizes = []
    for rounds in (2, 8):
        tested = folds(rng, 400, rounds)
        found = tried(hits(rng, rows, tested), hits(rng, 0.5, tested))
        sizes.append(found)
    few, many = sizes
    assert many.standard_error**2 > 0.8 * few.floor
    predicted = few.floor + (few.standard_error**2 - few.floor) * 10 / 40
    assert many.standard_error**2 == pytest.approx(predicted, rel=0.2)


def test_it_covers_and_finds_more_than_the_corrected_t():
    rng = np.random.default_rng(2)
    held, found, before = [], [], []
    for _ in range(400):
        tested = folds(rng, 200)
        ease = rng.uniform(0.2, 0.6, 200)
        gain = rng.choice([-0.1, 0.3], 200)  # of each row; 0.1 in the population that they are drawn from
        fit = rng.normal(0, 0.02, (10, 1))
        own, other = hits(rng, ease + gain + fit, tested), hits(rng, ease, tested)
        span = tried(own, other).interval
        held.append(span.low <= 0.1 <= span.high)
        found.append(span.excludes_zero())
        before.append(corrected_resampled_t(accuracy(own) - accuracy(other), 120, 40).interval.excludes_zero())
    assert np.mean(held) > 0.93
    assert np.mean(found) > np.mean(before) + 0.1


def test_fixed_rows_by_hand():
    # Two repeats on the same four rows: differences (1, 0, 0, 1) and (1, 0, -1, 1) of the hits.
    own = np.array([[1, 1, 0, 1], [1, 1, 0, 1]], dtype=np.int8)
    other = np.array([[0, 1, 0, 0], [0, 1, 1, 0]], dtype=np.int8)
    found = tried(own, other)
    rows = ((0.625**2 + 0.375**2 + 0.875**2 + 0.625**2) + 2) / 5 / 4  # of the rows' means 1, 0, -1/2, 1 about 3/8
    noise = 0.5 / 4  # the third row's repeats about their mean, over four rows with a degree of freedom each
    fit = 0.25**2 / 2 - noise / 4  # the repeats' means are 1/2 and 1/4
    assert found.standard_error**2 == pytest.approx(rows + fit * (1 / 2 + 0.1))
    assert found.floor == pytest.approx(rows - noise / 2 / 4 + 0.1 * fit)


def test_on_fixed_rows_it_covers_what_other_rows_would_say_and_students_does_not():
    rng = np.random.default_rng(11)
    held, student = [], []
    for _ in range(400):
        ease, gain = rng.uniform(0.2, 0.6, 150), rng.choice([-0.2, 0.4], 150)  # 0.1 in their population
        fit = rng.normal(0, 0.02, (6, 1))
        tested = np.ones((6, 150), bool)
        own, other = hits(rng, ease + gain + fit, tested), hits(rng, ease, tested)
        span, alone = tried(own, other).interval, paired_t(accuracy(own) - accuracy(other)).interval
        held.append(span.low <= 0.1 <= span.high)
        student.append(alone.low <= 0.1 <= alone.high)
    assert 0.93 < np.mean(held) < 0.99
    assert np.mean(student) < 0.9


@examples(40)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(10, 40), st.booleans())
def test_order_and_names_change_nothing_but_the_sign(seed, repeats, rows, random):
    rng = np.random.default_rng(seed)
    tested = rng.random((repeats, rows)) < 0.3 if random else folds(rng, rows, 3)[:repeats]
    tested[:, :2] = True
    own, other = hits(rng, 0.8, tested), hits(rng, 0.6, tested)
    found, swapped = tried(own, other), tried(other, own)
    assert (swapped.mean, swapped.standard_error) == pytest.approx((-found.mean, found.standard_error))
    again, among = rng.permutation(len(own)), rng.permutation(rows)
    moved = tried(own[again][:, among], other[again][:, among])
    assert (moved.mean, moved.standard_error, moved.df) == pytest.approx((found.mean, found.standard_error, found.df))
    assert 0 <= found.floor <= found.standard_error**2 * (1 + 1e-12)
    assert min(len(own), tested.any(0).sum()) - 1 - 1e-9 <= found.df
    assert tried(own, other, confidence=0.8).interval.high <= found.interval.high


def test_rows_that_nobody_tested_count_for_nothing():
    rng = np.random.default_rng(4)
    tested = folds(rng, 50)
    own, other = hits(rng, 0.8, tested), hits(rng, 0.6, tested)
    unseen = np.full((10, 30), -1, np.int8)
    assert tried(np.hstack([own, unseen]), np.hstack([other, unseen])) == tried(own, other)


def test_no_row_that_differs_is_no_proof_of_equality():
    same = hits(np.random.default_rng(5), 0.8, folds(np.random.default_rng(6), 100))
    found = tried(same, same)
    assert (found.mean, found.p) == (0, 1)
    assert 0.02 < found.interval.high < 0.04  # 1.98 sqrt(2 / 101 / 100): up to 3 rows in 100 could still differ


def test_what_more_repeats_would_find_is_said_and_true():
    rng = np.random.default_rng(7)
    tested = folds(rng, 300, 4)
    own, other = hits(rng, 0.72, tested), hits(rng, 0.7, tested)

    def compared(repeats):
        part = slice(0, repeats)
        return compare_repeats(
            accuracy(own[part]), accuracy(other[part]), hits=own[part], control_hits=other[part],
            dataset="toy", method="el", control="ce", n_train=180, n_test=60,
        )  # fmt: skip

    ten, twenty = compared(10), compared(20)
    assert ten.detectable == pytest.approx(ten.detectable_with(10))
    assert ten.detectable_with(20) < ten.detectable
    assert ten.detectable_with(20) == pytest.approx(twenty.detectable, rel=0.2)


def test_fixed_rows_with_hits_are_judged_by_them(runs):
    frame = runs(repeats=4, n_test=50)
    rng = np.random.default_rng(9)
    frame["hits"] = [np.append(np.full(10, -1, np.int8), hits(rng, 0.8, np.ones(50, bool))) for _ in range(len(frame))]
    frame["accuracy"] = accuracy(frame["hits"])
    found = compare_methods(frame, fixed_test=True)
    assert {c.interval.kind for c in found.paired} == {"out-of-fold t"}
    assert any("They cover other test rows like these" in line for line in found.notes)
    assert not any("training randomness only" in line for line in (*found.notes, found.verdicts[0].text))
    without = compare_methods(frame.drop(columns="hits"), fixed_test=True)
    assert "training randomness only" in without.verdicts[0].text


def test_a_frame_with_hits_is_judged_by_them(runs):
    frame = runs(repeats=10, n_test=40)
    without = compare_methods(frame)
    rng = np.random.default_rng(8)
    tested = folds(rng, 200)
    frame["hits"] = [hits(rng, 0.8, tested[repeat]) for repeat in frame["repeat"]]
    frame["accuracy"] = accuracy(frame["hits"])
    found = compare_methods(frame)
    assert {c.interval.kind for c in found.paired} == {"out-of-fold t"}
    assert any("a variance for rows and one for fits" in line for line in found.notes)
    assert {c.interval.kind for c in without.paired} == {"corrected resampled t"}
    some = frame.assign(hits=[None if row.repeat == 3 else row.hits for row in frame.itertuples()])
    assert {c.interval.kind for c in compare_methods(some).paired} == {"corrected resampled t"}


def test_what_is_refused():
    own = np.ones((2, 4), np.int8)
    for differences, first, second in (
        ([0.0, 0.0], own, own[:, :3]),
        ([0.0], own, own),
        ([0.0, 0.0], own, np.where([[True], [False]], own, -1)),
        ([0.0, 0.0], np.where([0, 1, 1, 1], -1, own), np.where([0, 1, 1, 1], -1, own)),
    ):
        with pytest.raises(UserError, match="hits must"):
            out_of_fold_t(differences, first, second)
    assert out_of_fold_t([0.1], own[:1], own[:1]).interval is None
