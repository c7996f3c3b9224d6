"""Tests of methods on the same blocks: among all at once, over all pairs, of two, and of each against a control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats, WinTieLoss, paired_differences, rank_matrix, win_tie_loss
from crossfade.stats.shape import check_choice, check_fraction, known
from crossfade.stats.words import listed

Adjust = Literal["holm", "fdr_bh", "none"]
Ties = Literal["split", "drop"]


@dataclass(frozen=True)
class Friedman:
    """Friedman's test in both forms; ``f`` is infinite, with p = 0, when all blocks agree on one order."""

    blocks: int
    methods: int
    chi2: float
    chi2_p: float
    f: float
    f_p: float


@dataclass(frozen=True)
class ControlTest:
    """A method against the control; ``statistic`` is z for ranks, the smaller rank sum T for Wilcoxon."""

    method: str
    mean_delta: float
    counts: WinTieLoss
    statistic: float
    p: float
    p_adjusted: float


def friedman(matrix: pd.DataFrame, *, correct_ties: bool = True) -> Friedman:
    """Test with Friedman's ranks whether the methods of a complete block × method matrix differ at all.

    With ranks r_ij, rank sums R_j, N blocks and k methods, F being the form of Iman and Davenport (1980)::

        chi2 = (k - 1) Σ_j (R_j - N(k+1)/2)² / Σ_ij (r_ij - (k+1)/2)²      k - 1 degrees of freedom
        F    = (N - 1) chi2 / (N(k - 1) - chi2)                            k - 1 and (k - 1)(N - 1)

    Demšar (2006, §3.2.2) prefers F, since chi2 is too conservative. It equals ``scipy.stats.friedmanchisquare``, which
    refuses two methods and gives NaN where every score is tied. Defined here: everything tied, p = 1; all blocks agree,
    F = ∞ and p = 0 (the limit: an exact p-value would be (k!)^(1-N)).

    Args:
        matrix: scores, a row a block, a column a method. Whether lower or higher is better makes no difference.
        correct_ties: use the variance of the ranks as they are. ``False`` uses that of untied ranks, N k(k+1)(k-1)/12,
            as Demšar's worked example does.

    Raises:
        UserError: a hole in the matrix, or fewer than two blocks or two methods.

    Example:
        >>> import pandas as pd
        >>> agree = pd.DataFrame({"a": [1.0, 5.0, 3.0], "b": [2.0, 6.0, 4.0], "c": [3.0, 7.0, 5.0]})
        >>> friedman(agree).chi2, friedman(agree).f_p
        (6.0, 0.0)
    """
    ranks = rank_matrix(matrix).to_numpy()
    n, k = ranks.shape
    if (ranks == ranks[0, 0]).all():
        return Friedman(n, k, 0.0, 1.0, 0.0, 1.0)
    centred = ranks - (k + 1) / 2
    spread = (centred**2).sum() if correct_ties else n * k * (k * k - 1) / 12
    chi2 = float((k - 1) * (centred.sum(axis=0) ** 2).sum() / spread)
    room = n * (k - 1) - chi2
    f = (n - 1) * chi2 / room if room > 1e-9 * n * k else float("inf")
    return Friedman(n, k, chi2, float(stats.chi2.sf(chi2, k - 1)), f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))))


def conover(matrix: pd.DataFrame, *, adjust: Adjust = "fdr_bh") -> pd.DataFrame:
    """Return Conover's post-hoc p-values for all pairs, adjusted for their number, as in the paper's Figure 3.

    The numbers are those of ``scikit_posthocs.posthoc_conover_friedman``. Where all blocks agree on one order its
    variance is zero and it divides by it; here such a pair has p = 0 (the limit) if the ranks differ and p = 1 if the
    two are tied throughout. Everything tied: p = 1.

    Args:
        matrix: scores, a row a block, a column a method.
        adjust: the method of `adjust_p`; the paper's is ``"fdr_bh"``.

    Returns:
        Symmetric frame of p-values, methods × methods, ones on the diagonal.

    Raises:
        UserError: a hole in the matrix, fewer than two blocks or methods, or an unknown ``adjust``.
    """
    ranks = rank_matrix(matrix).to_numpy()
    if (ranks == ranks[0]).all():
        p = np.equal.outer(ranks[0], ranks[0]).astype(np.float64)
    else:
        from scikit_posthocs import posthoc_conover_friedman

        p = posthoc_conover_friedman(ranks).to_numpy(dtype=np.float64, copy=True)
    upper = np.triu_indices(len(p), 1)
    p[upper] = adjust_p(p[upper], adjust)
    p.T[upper] = p[upper]
    return pd.DataFrame(p, matrix.columns, matrix.columns)


def nemenyi(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return Nemenyi's p-values for all pairs (``scikit_posthocs.posthoc_nemenyi_friedman``), methods × methods.

    They already allow for the number of pairs. p < α means a difference of mean ranks above `critical_difference`.

    Raises:
        UserError: a hole in the matrix, or fewer than two blocks or two methods.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman

    p = posthoc_nemenyi_friedman(rank_matrix(matrix).to_numpy())
    return pd.DataFrame(p.to_numpy(dtype=np.float64), matrix.columns, matrix.columns)


def critical_difference(
    methods: int, blocks: int, *, alpha: float = 0.05, test: Literal["nemenyi", "bonferroni-dunn"] = "nemenyi"
) -> float:
    """Return the difference of mean ranks above which two methods differ at level ``alpha``.

    CD = q_α sqrt(k(k+1) / 6N) for k methods on N blocks. q_α is the studentized range over √2 (``"nemenyi"``, all
    pairs), or the normal quantile at α / (2(k-1)) (``"bonferroni-dunn"``, every method against one control). Demšar
    (2006), §3.2.2 with Table 5.

    Raises:
        UserError: fewer than two methods, fewer than one block, or ``alpha`` outside (0, 1).

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    if methods < 2 or blocks < 1:
        raise UserError(f"a critical difference needs at least 2 methods and 1 block, got {methods} and {blocks}")
    check_fraction("alpha", alpha)
    check_choice("test", test, "nemenyi", "bonferroni-dunn")
    if test == "nemenyi":
        q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    else:
        q = stats.norm.isf(alpha / (2 * (methods - 1)))
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def contiguous_groups(
    mean_ranks: Mapping[str, float] | pd.Series[float], p_values: pd.DataFrame, *, alpha: float = 0.05
) -> list[list[str]]:
    """Return the longest runs of methods, neighbours in mean rank, in which no pair differs at level ``alpha``.

    These are the bars of a critical-difference diagram. A run holds every method between its ends, so that no bar
    covers two methods that differ. With tests whose p-values do not fall as ranks part (Wilcoxon on each pair), two
    methods that don't differ can be in no common run; `sign_plot` shows all pairs.

    Args:
        mean_ranks: mean rank by method.
        p_values: methods × methods, such as from `conover`.
        alpha: the level; p ≤ ``alpha`` is a difference.

    Returns:
        Runs of two or more methods, best first.

    Raises:
        UserError: ``p_values`` lacks a method.
    """
    ranks = pd.Series(mean_ranks, dtype=float).sort_values(kind="stable")
    lacking = [name for name in ranks.index if name not in p_values.index or name not in p_values.columns]
    if lacking:
        raise UserError(f"p_values must have a row and a column for every method; lacking: {listed(lacking)}")
    apart = (p_values.loc[ranks.index, ranks.index] <= alpha).to_numpy()
    groups: list[list[str]] = []
    reached = 0
    for start in range(len(ranks)):
        end = start + 1
        while end < len(ranks) and not apart[start:end, end].any():
            end += 1
        if end - start > 1 and end > reached:
            groups.append([str(name) for name in ranks.index[start:end]])
            reached = end
    return groups


def wilcoxon(scores: npt.ArrayLike, control: npt.ArrayLike, *, ties: Ties = "split") -> tuple[float, float]:
    """Return T and the two-sided p-value of Wilcoxon's signed-rank test on paired scores (``scipy.stats.wilcoxon``).

    ``ties="split"`` shares the ranks of equal pairs between both sides (Demšar 2006, §3.1.3), so equal pairs count
    against a difference; exact up to 50 pairs without, up to 13 with ties, a normal approximation beyond. ``"drop"``
    leaves equal pairs out, as SciPy's default does; exact up to 50 pairs that are left. Every pair equal: T as it is,
    p = 1.

    Raises:
        UserError: unpaired, empty or non-finite scores, or an unknown ``ties``.
    """
    differences = paired_differences(scores, control)
    check_choice("ties", ties, "split", "drop")
    if ties == "drop":
        differences = differences[differences != 0]
    n, sizes = len(differences), np.abs(differences)
    if not sizes.any():
        return n * (n + 1) / 4, 1.0
    if n <= (13 if ties == "split" else 50) and len(np.unique(sizes[sizes > 0])) < n:
        return _all_signs(differences)
    statistic, p = stats.wilcoxon(differences, zero_method="zsplit")
    return float(statistic), float(p)


def _all_signs(differences: Floats) -> tuple[float, float]:
    """Test exactly where sizes are tied or zero, by the rank sum's distribution over all ways to set the signs.

    SciPy does the same for up to 13 pairs, one pattern at a time, which takes seconds for the same p-value.
    """
    ranks, signs = stats.rankdata(np.abs(differences)), np.sign(differences)
    twice = (2 * ranks).astype(np.int64)  # ranks are multiples of one half
    chances = np.ones(1)
    for rank in twice[signs != 0]:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    plus, minus = twice[signs > 0].sum(), twice[signs < 0].sum()
    p = 2 * min(chances[: plus + 1].sum(), chances[plus:].sum())
    return float(min(plus, minus) / 2 + ranks[signs == 0].sum() / 2), min(1.0, float(p))


def sign_test(scores: npt.ArrayLike, control: npt.ArrayLike, *, ties: Ties = "split") -> float:
    """Return the two-sided p-value of the sign test, the binomial chance of so uneven a count of wins and losses.

    ``ties="split"`` gives half of the ties to each side and ignores an odd one (Demšar 2006, §3.1.4); ``"drop"``
    leaves ties out. Every pair equal: p = 1.

    Raises:
        UserError: unpaired, empty or non-finite scores, or an unknown ``ties``.

    Example:
        >>> sign_test([2, 3, 4, 5, 6], [1, 2, 3, 4, 5])
        0.0625
    """
    check_choice("ties", ties, "split", "drop")
    counts = win_tie_loss(scores, control)
    half = counts.ties // 2 if ties == "split" else 0
    wins, losses = counts.wins + half, counts.losses + half
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def compare_with_control(
    matrix: pd.DataFrame,
    control: str,
    *,
    test: Literal["ranks", "wilcoxon"] = "wilcoxon",
    adjust: Adjust = "holm",
    lower_is_better: bool = False,
) -> tuple[ControlTest, ...]:
    """Test every other method against ``control``, with p-values adjusted for the number of methods.

    Args:
        matrix: scores, a row a block, a column a method.
        control: a column of ``matrix``.
        test: ``"wilcoxon"`` compares each pair by itself. ``"ranks"`` is Demšar's z = (R_i - R_c) / sqrt(k(k+1)/6N) on
            Friedman's mean ranks (the p-values of ``scikit_posthocs.posthoc_demsar``); its answer for one method
            depends on which others are in the table (Benavoli, Corani and Mangili 2016).
        adjust: ``"holm"``, ``"fdr_bh"`` or ``"none"``.
        lower_is_better: the scores are errors; matters for the counts and the sign of z alone.

    Returns:
        One row a method, in the order of the columns. z < 0 says that the method ranks better than the control.

    Raises:
        UserError: a hole in the matrix, fewer than two blocks or methods, no such control, unknown ``test``/``adjust``.
    """
    check_choice("test", test, "ranks", "wilcoxon")
    ranks = rank_matrix(matrix, lower_is_better=lower_is_better)
    base = matrix[known(control, list(matrix.columns), "control")].to_numpy()
    others = {name: matrix[name].to_numpy() for name in matrix.columns if name != control}
    if test == "wilcoxon":
        found = [wilcoxon(scores, base) for scores in others.values()]
    else:
        n, k = matrix.shape
        z = (ranks[list(others)].mean() - ranks[control].mean()) / np.sqrt(k * (k + 1) / (6 * n))
        found = list(zip(z.tolist(), (2 * stats.norm.sf(z.abs())).tolist(), strict=True))
    adjusted = adjust_p([p for _, p in found], adjust).tolist()
    return tuple(
        ControlTest(
            method=str(name),
            mean_delta=float(paired_differences(scores, base).mean()),
            counts=win_tie_loss(scores, base, lower_is_better=lower_is_better),
            statistic=statistic,
            p=p,
            p_adjusted=p_adjusted,
        )
        for (name, scores), (statistic, p), p_adjusted in zip(others.items(), found, adjusted, strict=True)
    )


def adjust_p(p: npt.ArrayLike, method: Adjust) -> Floats:
    """Adjust p-values for their number, in the order given.

    ``"holm"`` (step-down Bonferroni) bounds the chance of any false finding, ``"fdr_bh"`` (Benjamini and Hochberg,
    ``scipy.stats.false_discovery_control``) the share of false findings.

    Raises:
        UserError: an unknown method, or a p-value that is missing or outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    check_choice("adjust", method, "holm", "fdr_bh", "none")
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(f"p-values must lie between 0 and 1, got {listed(values)}")
    if method == "none" or values.size == 0:
        return values
    if method == "fdr_bh":
        return np.asarray(stats.false_discovery_control(values), dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(stepped, 1.0)[np.argsort(order)]
