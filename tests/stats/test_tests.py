"""Friedman, Conover, Nemenyi, Wilcoxon and sign test: the libraries' numbers, and the cases they leave undefined."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats as scipy_stats

from crossfade.errors import UserError
from crossfade.stats import (
    WinTieLoss,
    adjust_p,
    compare_with_control,
    conover,
    critical_difference,
    friedman,
    nemenyi,
    sign_test,
    wilcoxon,
    win_tie_loss,
)


def table(values):
    return pd.DataFrame(np.asarray(values, dtype=float), columns=[f"m{j}" for j in range(len(values[0]))])


@pytest.fixture(params=range(5))
def scores(request):
    rng = np.random.default_rng(request.param)
    n, k = int(rng.integers(5, 60)), int(rng.integers(3, 9))
    # coarse values make ties, as hits on small test sets do
    return table(np.round(rng.normal(0.02 * np.arange(k), 0.1, (n, k)), 2 if request.param % 2 else 6))


def test_friedman_is_scipys(scores):
    ours, theirs = friedman(scores), scipy_stats.friedmanchisquare(*scores.to_numpy().T)
    assert ours.chi2 == pytest.approx(theirs.statistic, rel=1e-10)
    assert ours.chi2_p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_conover_and_nemenyi_are_those_of_scikit_posthocs(scores):
    for adjust in ("fdr_bh", "holm"):
        theirs = scikit_posthocs.posthoc_conover_friedman(scores, p_adjust=adjust)
        np.testing.assert_allclose(conover(scores, adjust=adjust), theirs, rtol=1e-9, atol=1e-300)
    theirs = scikit_posthocs.posthoc_nemenyi_friedman(scores)
    np.testing.assert_allclose(nemenyi(scores), theirs, rtol=1e-9)


def test_nemenyi_agrees_with_its_critical_difference(scores):
    ranks = scores.rank(axis=1, ascending=False).mean().to_numpy()
    apart = np.abs(ranks[:, None] - ranks[None, :]) > critical_difference(scores.shape[1], len(scores))
    np.testing.assert_array_equal(apart, (nemenyi(scores) < 0.05).to_numpy())


def test_two_methods_are_allowed():
    matrix = table([[1, 2], [1, 2], [1, 2], [2, 1], [1, 1]])
    # Friedman with two methods is the sign test's normal form: (wins - losses)² / (wins + losses)
    assert friedman(matrix).chi2 == pytest.approx((3 - 1) ** 2 / 4)
    assert conover(matrix).loc["m0", "m1"] == pytest.approx(
        scikit_posthocs.posthoc_conover_friedman(matrix.to_numpy()).to_numpy()[0, 1]
    )


def test_all_blocks_agree():
    agree = table([[1, 2, 3], [5, 6, 7], [2, 4, 9], [0, 1, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = friedman(agree)
        p = conover(agree).to_numpy()
    assert result.chi2 == pytest.approx(8)
    assert result.f == np.inf
    assert result.f_p == 0
    assert (p[~np.eye(3, dtype=bool)] == 0).all()
    assert (np.diag(p) == 1).all()


def test_all_blocks_agree_and_two_methods_are_twins():
    p = conover(table([[1, 2, 2], [5, 6, 6], [2, 4, 4]]))
    with pytest.warns(RuntimeWarning):
        theirs = scikit_posthocs.posthoc_conover_friedman(np.array([[1, 2, 2], [5, 6, 6], [2, 4, 4.0]]))
    assert np.isnan(theirs.iloc[1, 2])
    assert p.loc["m1", "m2"] == 1
    assert p.loc["m0", "m1"] == p.loc["m0", "m2"] == 0
    assert friedman(table([[1, 2, 2], [5, 6, 6], [2, 4, 4]])).f == np.inf


def test_everything_tied():
    tied = table([[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = friedman(tied)
        assert (result.chi2, result.chi2_p, result.f, result.f_p) == (0, 1, 0, 1)
        assert (conover(tied) == 1).all(axis=None)
        assert (nemenyi(tied) == 1).all(axis=None)
        assert wilcoxon([1, 2, 3], [1, 2, 3])[1] == 1
        assert wilcoxon(np.ones(30), np.ones(30), ties="drop")[1] == 1
        assert sign_test([1, 2], [1, 2]) == 1
        assert all(row.p_adjusted == 1 for row in compare_with_control(tied, "m0"))


def test_wilcoxon_is_scipys():
    rng = np.random.default_rng(0)
    for n in (6, 12, 40, 200):
        a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
        for ties, zero in (("split", "zsplit"), ("drop", "wilcox")):
            assert wilcoxon(a, b, ties=ties)[1] == pytest.approx(scipy_stats.wilcoxon(a - b, zero_method=zero).pvalue)


@pytest.mark.parametrize("n", range(1, 11))
def test_wilcoxon_with_ties_and_zeros_is_scipys(n):
    rng = np.random.default_rng(n)
    d = rng.integers(-3, 4, n).astype(float)
    d[0] = 2
    for ties, zero in (("split", "zsplit"), ("drop", "wilcox")):
        theirs = scipy_stats.wilcoxon(d, zero_method=zero)
        assert wilcoxon(d, np.zeros(n), ties=ties) == pytest.approx((theirs.statistic, theirs.pvalue))


@pytest.mark.parametrize("kept", [4, 9, 20, 40])
def test_wilcoxon_is_exact_on_the_pairs_that_are_left(kept):
    rng = np.random.default_rng(kept)
    d = np.zeros(kept + 15)
    d[:kept] = rng.normal(0.4, 1, kept)
    exact = scipy_stats.wilcoxon(d[:kept], method="exact")
    assert wilcoxon(d, np.zeros_like(d), ties="drop") == pytest.approx((exact.statistic, exact.pvalue), rel=1e-12)


def test_wilcoxon_is_exact_with_ties_where_scipy_approximates():
    d = np.random.default_rng(3).integers(-3, 6, 22).astype(float)
    left = d[d != 0]
    ranks, signs = scipy_stats.rankdata(np.abs(left)), np.random.default_rng(4).choice([-1, 1], (200_000, len(left)))
    sums = np.abs(signs @ ranks)
    found = wilcoxon(d, np.zeros_like(d), ties="drop")[1]
    assert found == pytest.approx((sums >= abs(np.sign(left) @ ranks)).mean(), abs=0.004)


def test_a_tie_hidden_by_rounding_is_a_tie_for_wilcoxon():
    a, b = np.array([0.1 + 0.2, 0.9, 0.8, 0.7]), np.array([0.3, 0.8, 0.7, 0.6])
    assert a[0] != b[0]
    assert wilcoxon(a, b)[1] == scipy_stats.wilcoxon([0, 1, 1, 1], zero_method="zsplit").pvalue


def test_sign_test_counts():
    assert sign_test([1] * 8 + [0], [0] * 8 + [1]) == pytest.approx(scipy_stats.binomtest(8, 9).pvalue)
    tied = ([1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0])
    assert sign_test(*tied) == pytest.approx(scipy_stats.binomtest(5, 6).pvalue)
    assert sign_test(*tied, ties="drop") == pytest.approx(2 * 0.5**4)


def test_control_rows_are_the_pairs(demsar):
    for row in compare_with_control(demsar, "C4.5", adjust="fdr_bh"):
        assert row.p == wilcoxon(demsar[row.method], demsar["C4.5"])[1]
        assert row.mean_delta == pytest.approx((demsar[row.method] - demsar["C4.5"]).mean())
    errors = compare_with_control(1 - demsar, "C4.5", lower_is_better=True)
    scores = compare_with_control(demsar, "C4.5")
    assert [row.counts for row in errors] == [row.counts for row in scores]


def test_what_is_refused():
    matrix = table([[1, 2], [2, 1]])
    for call in (
        lambda: conover(matrix, adjust="bonferoni"),
        lambda: compare_with_control(matrix, "m9"),
        lambda: compare_with_control(matrix, "m0", test="t"),
        lambda: wilcoxon([1, 2], [1, 2], ties="x"),
        lambda: sign_test([1, 2], [1, 2, 3]),
        lambda: wilcoxon([], []),
        lambda: wilcoxon([np.nan], [1]),
        lambda: critical_difference(1, 5),
        lambda: critical_difference(3, 5, alpha=1.5),
        lambda: critical_difference(3, 5, test="Nemenyi"),
        lambda: adjust_p([0.1, np.nan], "holm"),
        lambda: adjust_p([0.1, 2.0], "fdr_bh"),
        lambda: friedman(matrix.iloc[:1]),
        lambda: adjust_p([0.1], "sidak"),
    ):
        with pytest.raises(UserError):
            call()


def test_errors_of_very_different_sizes_are_not_called_ties():
    mine = [5.2e9, 0.025, 0.30, 0.4, 1.2, 0.031]  # mean squared errors of prices and of rates
    other = [5.0e9, 0.020, 0.295, 0.397, 1.197, 0.029]
    assert win_tie_loss(mine, other) == WinTieLoss(6, 0, 0)
    assert wilcoxon(mine, other)[1] == pytest.approx(scipy_stats.wilcoxon(mine, other).pvalue)
    rounded = [5.2e9 * (1 + 2e-16), 0.1 + 0.2, 1.0]  # beside them rounding errors still are
    assert win_tie_loss(rounded, [5.2e9, 0.3, 0.9]) == WinTieLoss(1, 2, 0)
