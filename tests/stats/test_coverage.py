"""Do the intervals cover what they claim to? Measured on a problem whose truth is known."""

import numpy as np
import pytest

from crossfade.stats import corrected_resampled_t, paired_t

DATASETS, REPEATS, ROWS, TEST, FEATURES = 150, 30, 120, 30, 5
SHIFT = np.array([0.9, 0.4, 0.0, 0.0, 0.0])
MIX = np.eye(FEATURES) + 0.5 * np.tri(FEATURES, k=-1)


def draw(rng, size):
    y = rng.integers(0, 2, size)
    return (rng.standard_normal((*size, FEATURES)) + y[..., None] * SHIFT) @ MIX, y


def difference(x, y, x_test, y_test):
    """Accuracy of linear discriminant analysis − accuracy of the nearest centroid; leading axes are a batch."""
    one = y[..., None].astype(float)
    means = [(x * w).sum(-2) / w.sum(-2) for w in (1 - one, one)]
    centred = x - np.where(one > 0, means[1][..., None, :], means[0][..., None, :])
    gap = means[1] - means[0]
    discriminant = np.linalg.solve(np.swapaxes(centred, -1, -2) @ centred, gap[..., None])[..., 0]
    middle = (means[0] + means[1]) / 2

    def accuracy(direction):
        score = ((x_test - middle[..., None, :]) * direction[..., None, :]).sum(-1)
        return ((score > 0) == y_test).mean(-1)

    return accuracy(discriminant) - accuracy(gap)


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(1)
    x, y = draw(rng, (5_000, ROWS - TEST))
    x_test, y_test = draw(rng, (5_000, 60))
    return difference(x, y, x_test, y_test).mean()


@pytest.fixture(scope="module")
def resampled():
    rng = np.random.default_rng(2)
    x, y = draw(rng, (DATASETS, ROWS))
    order = np.argsort(rng.random((DATASETS, REPEATS, ROWS)), axis=-1)
    x, y = x[np.arange(DATASETS)[:, None, None], order], y[np.arange(DATASETS)[:, None, None], order]
    return difference(x[..., TEST:, :], y[..., TEST:], x[..., :TEST, :], y[..., :TEST])


def coverage(tests, truth):
    return np.mean([test.interval.low <= truth <= test.interval.high for test in tests if test.interval])


def test_resampled_repeats_need_the_correction(truth, resampled):
    plain = coverage([paired_t(row) for row in resampled], truth)
    corrected = coverage([corrected_resampled_t(row, ROWS - TEST, TEST) for row in resampled], truth)
    assert plain < 0.75  # an interval that is called 95 %
    assert corrected > 0.94


def test_student_is_right_where_repeats_are_independent(truth):
    rng = np.random.default_rng(3)
    x, y = draw(rng, (DATASETS, REPEATS, ROWS))
    fresh = difference(x[..., TEST:, :], y[..., TEST:], x[..., :TEST, :], y[..., :TEST])
    assert 0.92 < coverage([paired_t(row) for row in fresh], truth) < 0.98
