"""What must hold for every table of scores."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crossfade.stats import (
    adjust_p,
    bootstrap_interval,
    compare_datasets,
    conover,
    contiguous_groups,
    corrected_resampled_t,
    friedman,
    paired_t,
    performance_profile,
    rank_matrix,
    score_matrix,
    sign_test,
    summarize,
    wilcoxon,
)
from tests.examples import examples

# Hits out of 64 test rows: exact in binary, with the many ties that accuracies have.
HITS = st.integers(0, 64).map(lambda hits: hits / 64)


@st.composite
def matrices(draw, least=2):
    n, k = draw(st.integers(2, 12)), draw(st.integers(least, 6))
    values = draw(arrays(np.float64, (n, k), elements=HITS))
    return pd.DataFrame(values, index=[f"d{i}" for i in range(n)], columns=[f"m{j}" for j in range(k)])


PAIRS = st.integers(2, 30).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=HITS)] * 2))
SHUFFLE = st.randoms(use_true_random=False)


@examples(20)
@given(matrices(), SHUFFLE)
def test_the_order_of_rows_makes_no_difference(matrix, random):
    long = matrix.reset_index(names="dataset").melt("dataset", var_name="method", value_name="accuracy")
    order = list(range(len(long)))
    random.shuffle(order)
    shuffled = score_matrix(long.iloc[order])
    assert friedman(shuffled).chi2 == pytest.approx(friedman(matrix).chi2, abs=1e-9)
    p = conover(shuffled).loc[matrix.columns, matrix.columns]
    np.testing.assert_allclose(p, conover(matrix), atol=1e-9)
    rows = {row.method: row for row in summarize(shuffled, "m0")}
    for row in summarize(matrix, "m0"):
        assert rows[row.method].wins == row.wins
        assert rows[row.method].mean_rank == pytest.approx(row.mean_rank)
        assert rows[row.method].mean_delta == pytest.approx(row.mean_delta, abs=1e-12)


@examples(20)
@given(matrices(), st.lists(st.integers(-8, 8), min_size=12, max_size=12), st.sampled_from([0.5, 1.0, 4.0]))
def test_a_constant_and_a_unit_a_block_make_no_difference_to_ranks(matrix, constants, unit):
    moved = matrix.mul(unit).add(np.array(constants[: len(matrix)], dtype=float), axis=0)
    pd.testing.assert_frame_equal(rank_matrix(moved), rank_matrix(matrix))
    assert friedman(moved) == friedman(matrix)
    np.testing.assert_array_equal(conover(moved), conover(matrix))


@examples(20)
@given(matrices())
def test_renaming_and_turning_round_make_no_difference(matrix):
    renamed = matrix.rename(columns={name: f"x{9 - j}" for j, name in enumerate(matrix.columns)})
    np.testing.assert_array_equal(conover(renamed), conover(matrix))
    best, worst = rank_matrix(matrix), rank_matrix(-matrix, lower_is_better=True)
    pd.testing.assert_frame_equal(best, worst)
    assert (best.sum(axis=1) == matrix.shape[1] * (matrix.shape[1] + 1) / 2).all()
    assert friedman(1 - matrix).chi2 == pytest.approx(friedman(matrix).chi2, abs=1e-9)


@examples(30)
@given(matrices())
def test_p_values_are_probabilities_whatever_the_ties(matrix):
    result = friedman(matrix)
    assert 0 <= result.chi2_p <= 1
    assert 0 <= result.f_p <= 1
    p = conover(matrix).to_numpy()
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_array_equal(p, p.T)


@examples(20)
@given(matrices(least=3))
def test_conover_p_falls_as_mean_ranks_part(matrix):
    ranks = rank_matrix(matrix).mean().to_numpy()
    upper = np.triu_indices(len(ranks), 1)
    gaps = np.abs(ranks[:, None] - ranks[None, :])[upper]
    p = conover(matrix).to_numpy()[upper]
    order = np.argsort(gaps, kind="stable")
    assert (np.diff(p[order]) <= 1e-9).all()


@examples(20)
@given(matrices())
def test_groups_are_contiguous_maximal_and_complete(matrix):
    ranks, p = rank_matrix(matrix).mean(), conover(matrix)
    groups = contiguous_groups(ranks, p)
    order = list(ranks.sort_values(kind="stable").index)
    places = [[order.index(name) for name in group] for group in groups]
    for place, group in zip(places, groups, strict=True):
        assert place == list(range(place[0], place[-1] + 1))
        assert all(p.loc[a, b] > 0.05 for a in group for b in group)
    assert not any(set(a) < set(b) for a in places for b in places)
    # Conover's p falls with the gap, so that here every pair that is not told apart shares a bar
    together = {(a, b) for group in groups for a in group for b in group if a != b}
    assert together == {(a, b) for a in order for b in order if a != b and p.loc[a, b] > 0.05}


@examples(20)
@given(PAIRS, SHUFFLE)
def test_paired_tests_are_symmetric_and_know_no_order(pair, random):
    a, b = pair
    order = list(range(len(a)))
    random.shuffle(order)
    for test in (lambda x, y: wilcoxon(x, y)[1], sign_test):
        p = test(a, b)
        assert 0 <= p <= 1
        assert test(b, a) == pytest.approx(p)
        assert test(a[order], b[order]) == pytest.approx(p)
    ours, theirs = compare_datasets(a, b, method="a", control="b"), compare_datasets(b, a, method="b", control="a")
    assert ours.mean == -theirs.mean
    assert {ours.outcome, theirs.outcome} in (
        {"better", "worse"}, *({same} for same in ("identical", "no reliable difference", "too few data sets", "mixed"))
    )  # fmt: skip


@examples(20)
@given(arrays(np.float64, st.integers(2, 40), elements=st.integers(-64, 64).map(lambda hits: hits / 64)))
def test_intervals_hold_the_mean_and_grow_with_confidence(d):
    slack = 1e-12
    for make in (paired_t, lambda x, confidence: corrected_resampled_t(x, 80, 20, confidence=confidence)):
        narrow, wide = make(d, confidence=0.8).interval, make(d, confidence=0.99).interval
        if narrow is None:
            assert np.ptp(d) == 0
            continue
        assert wide.low - slack <= narrow.low <= d.mean() + slack
        assert d.mean() - slack <= narrow.high <= wide.high + slack
        assert (make(d, confidence=0.9).p < 0.1) == make(d, confidence=0.9).interval.excludes_zero() or not d.any()
    span = bootstrap_interval(d, method="percentile", resamples=499)
    assert d.min() - slack <= span.low <= span.high <= d.max() + slack


@examples(30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), SHUFFLE)
def test_adjusted_p_values(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    for method in ("holm", "fdr_bh"):
        adjusted = adjust_p(p, method)
        assert (adjusted >= np.array(p) - 1e-15).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
        np.testing.assert_allclose(adjust_p(np.array(p)[order], method), adjusted[order])
    assert (adjust_p(p, "holm") >= adjust_p(p, "fdr_bh") - 1e-15).all()


@examples(20)
@given(matrices(), st.booleans())
def test_profiles_rise_to_at_most_one_and_start_at_the_wins(matrix, lower):
    profile = performance_profile(matrix, lower_is_better=lower)
    assert (profile.ratios >= 1).all(axis=None)
    assert (profile.ratios.min(axis=1) == 1).all()
    wins = {row.method: row.wins for row in summarize(matrix, lower_is_better=lower)}
    at_one = profile.share(1.0)
    assert {name: at_one[name] * len(matrix) for name in matrix} == pytest.approx(wins)
    shares = np.array([profile.share(factor) for factor in (1.0, 1.1, 2.0, 10.0, np.inf)])
    assert (np.diff(shares, axis=0) >= 0).all()
    assert (shares[-1] == 1).all()


@examples(30)
@given(matrices())
def test_a_better_method_gets_a_better_rank_and_a_smaller_p(matrix):
    assume((matrix["m0"] < 1).all())
    better = matrix.assign(m0=matrix["m0"] + 2.0)
    assert (rank_matrix(better)["m0"] == 1).all()
    assert wilcoxon(better["m0"], better["m1"])[1] <= wilcoxon(matrix["m0"], matrix["m1"])[1] + 1e-9
