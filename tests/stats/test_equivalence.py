"""Practical equivalence: the Bayesian t-test and signed-rank test against formulas, loops and Wilcoxon's test."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from crossfade.errors import UserError
from crossfade.stats import (
    compare_methods,
    corrected_resampled_t,
    equivalence_of_mean,
    equivalence_over_datasets,
)
from tests.examples import examples


def density(x, df):
    """Student's density, from its formula."""
    constant = math.gamma((df + 1) / 2) / math.gamma(df / 2) / math.sqrt(df * math.pi)
    return constant * (1 + x * x / df) ** (-(df + 1) / 2)


def test_the_correlated_t_test_is_the_integral_of_its_posterior():
    # ten folds, rho = 1/10: the scale of Corani and Benavoli is sd sqrt(1/n + rho / (1 - rho))
    d = np.array([0.01, -0.02, 0.0, 0.015, 0.02, -0.005, 0.01, 0.0, 0.03, -0.01])
    scale = d.std(ddof=1) * math.sqrt(1 / 10 + 0.1 / 0.9)
    test = corrected_resampled_t(d, n_train=90, n_test=10)
    assert test.standard_error == pytest.approx(scale)
    found = equivalence_of_mean(test.mean, test.standard_error, test.df, 0.01)
    ends = [(bound - d.mean()) / scale for bound in (-0.01, 0.01)]
    inside = integrate.quad(density, *ends, args=(9,))[0]
    below = integrate.quad(density, -np.inf, ends[0], args=(9,))[0]
    assert found.equivalent == pytest.approx(inside, abs=1e-8)
    assert found.worse == pytest.approx(below, abs=1e-8)
    assert found.worse + found.equivalent + found.better == pytest.approx(1)


def test_the_signed_rank_test_counts_sums_of_pairs_one_by_one():
    d, region = np.array([0.004, -0.02, 0.013, 0.006, 0.03]), 0.01
    z, rng, counts = [0.0, *d], np.random.default_rng(5), np.zeros(3)
    for _ in range(2000):
        w, shares = rng.dirichlet([0.5, 1, 1, 1, 1, 1]), [0.0, 0.0, 0.0]
        for i in range(6):
            for j in range(6):
                mean = (z[i] + z[j]) / 2
                shares[0 if mean < -region else 2 if mean > region else 1] += w[i] * w[j]
        counts[int(np.argmax(shares))] += 1
    found = equivalence_over_datasets(d, region)
    assert [found.worse, found.equivalent, found.better] == pytest.approx(counts / 2000, abs=0.04)


def test_without_a_region_the_signed_rank_test_says_what_wilcoxons_does():
    """Benavoli et al. (2014): for small regions the posterior probability is near 1 - one-sided p."""
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.002, 0.004):
        d = rng.normal(shift, 0.01, 60)
        p = stats.wilcoxon(d, alternative="greater").pvalue
        assert equivalence_over_datasets(d, 1e-9).better == pytest.approx(1 - p, abs=0.05)


def test_the_answer_is_repeatable_and_knows_no_order():
    d = np.random.default_rng(0).normal(0, 0.01, 20)
    assert equivalence_over_datasets(d, 0.005) == equivalence_over_datasets(d[::-1], 0.005)


@examples(40)
@given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=30), st.floats(1e-3, 0.1))
def test_probabilities_add_up_and_mirror(values, region):
    found, mirrored = (equivalence_over_datasets(sign * np.array(values), region) for sign in (1, -1))
    assert found.worse + found.equivalent + found.better == pytest.approx(1)
    assert (mirrored.worse, mirrored.better) == pytest.approx((found.better, found.worse), abs=0.03)
    if max(map(abs, values)) <= region:
        assert found.equivalent == 1


@pytest.mark.parametrize("region", [0.0, -0.1, math.nan, math.inf])
def test_a_region_must_be_a_positive_number(region, runs):
    for call in (
        lambda: equivalence_of_mean(0.0, 0.1, 5, region),
        lambda: equivalence_over_datasets([0.1, 0.2], region),
        lambda: compare_methods(runs(), equivalent=region),
    ):
        with pytest.raises(UserError, match="above 0"):
            call()


def near(seed, shift=0.0, rows=5000):
    rng = np.random.default_rng(seed)
    base = rng.normal(0.8, 0.02, 10)
    scores = {"ce": base, "f0": base + rng.normal(0, 0.0005, 10), "el": base + shift + rng.normal(0, 0.0005, 10)}
    sizes = {"n_train": 4 * rows, "n_test": rows}
    return [
        {"dataset": f"d{seed}", "method": name, "repeat": repeat, "accuracy": value, **sizes}
        for name, values in scores.items()
        for repeat, value in enumerate(values)
    ]


def test_what_is_within_the_region_is_called_practically_equivalent():
    frame = pd.DataFrame(near(0, shift=0.003))
    plain, asked = compare_methods(frame), compare_methods(frame, equivalent=0.005)
    assert plain.verdicts[0].outcome == "no reliable difference"
    assert plain.paired[0].equivalence is None
    assert asked.verdicts[0].outcome == "practically equivalent"
    assert asked.headline.endswith("Practically equivalent to ce, within 0.5 points: f0.")
    assert "within 0.5 points with probability 1.00" in asked.verdicts[0].text
    assert asked.verdicts[1].outcome == "better"  # reliable, and yet too small to matter
    assert "a reliable gain" in asked.verdicts[1].text
    assert "within 0.5 points with probability 1.00" in asked.verdicts[1].text
    assert compare_methods(frame, equivalent=0.0001).verdicts[0].outcome == "no reliable difference"
    c = asked.paired[0]
    assert c.equivalence == equivalence_of_mean(c.mean, c.standard_error, c.df, 0.005)  # the interval's variance
    assert asked.rows[1].equivalence == c.equivalence
    assert asked.to_dict()["paired"][0]["equivalence"]["equivalent"] == c.equivalence.equivalent
    assert any("Corani and Benavoli 2015" in note for note in asked.notes)


def test_over_data_sets_it_is_the_signed_rank_test():
    found = compare_methods(pd.DataFrame([row for seed in range(12) for row in near(seed)]), equivalent=0.005)
    c = found.across[0]
    assert c.equivalence == equivalence_over_datasets(c.differences, 0.005)
    assert c.outcome == "practically equivalent"
    assert ": practically equivalent (signed-rank Holm p = " in found.overall_verdicts[0].text
    assert found.headline.startswith("Practically equivalent to ce, within 0.5 points: f0, el.")
    assert found.headline.endswith("Data set by data set: 24 practical equivalences in 24 comparisons.")
    assert found.advice == "Stay with ce: nothing here is better."


def test_a_region_is_told_with_all_its_digits():
    found = compare_methods(pd.DataFrame([row for seed in range(12) for row in near(seed)]), equivalent=0.0025)
    for text in (found.headline, found.verdicts[0].text, *(note for note in found.notes if "Benavoli" in note)):
        assert "ithin 0.25 points" in text
