"""Tests of two methods on the same blocks (signed rank, sign), and of every method against one control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.omnibus import Adjust, adjust_p
from crossfade.stats.ranking import Floats, WinTieLoss, paired_differences, rank_matrix, win_tie_loss
from crossfade.stats.shape import known

Ties = Literal["split", "drop"]


@dataclass(frozen=True)
class ControlTest:
    """A method against the control; ``statistic`` is z for ranks, the smaller rank sum T for Wilcoxon."""

    method: str
    mean_delta: float
    counts: WinTieLoss
    statistic: float
    p: float
    p_adjusted: float


def wilcoxon(scores: npt.ArrayLike, control: npt.ArrayLike, *, ties: Ties = "split") -> tuple[float, float]:
    """Return T and the two-sided p-value of Wilcoxon's signed-rank test on paired scores (``scipy.stats.wilcoxon``).

    Exact up to 50 pairs without, up to 13 with ties; a normal approximation beyond.

    ``ties="split"`` shares the ranks of equal pairs between both sides (Demšar 2006, §3.1.3), so equal pairs count
    against a difference; ``"drop"`` leaves them out, as SciPy's default does. Every pair equal: T as it is, p = 1.

    Raises:
        UserError: unpaired, empty or non-finite scores, or an unknown ``ties``.
    """
    differences = paired_differences(scores, control)
    zero_method = {"split": "zsplit", "drop": "wilcox"}.get(ties)
    if zero_method is None:
        raise UserError(f"ties must be 'split' or 'drop', got {ties!r}")
    if not differences.any():
        n = len(differences)
        return (n * (n + 1) / 4 if ties == "split" else 0.0), 1.0
    sizes = np.abs(differences)
    if len(sizes) <= 13 and len(np.unique(sizes[sizes > 0])) < len(sizes):
        return _all_signs(differences[differences != 0] if ties == "drop" else differences)
    result = stats.wilcoxon(differences, zero_method=zero_method)
    return float(result.statistic), float(result.pvalue)


def _all_signs(differences: Floats) -> tuple[float, float]:
    """Test exactly where sizes are tied or zero: take the rank sum under each of the 2^n ways to set the signs.

    SciPy does the same for up to 13 pairs, one pattern at a time, which takes seconds for the same p-value.
    """
    ranks = stats.rankdata(np.abs(differences))
    split = ranks[differences == 0].sum() / 2
    ranks = np.where(differences == 0, 0.0, ranks)
    patterns = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1
    # Ranks are multiples of one half: these sums are exact, and equal ones compare equal.
    sums = patterns @ ranks
    plus = float(ranks[differences > 0].sum())
    minus = float(ranks[differences < 0].sum())
    p = 2 * min((sums <= plus).mean(), (sums >= plus).mean())
    return min(plus, minus) + float(split), min(1.0, float(p))


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
    if ties not in ("split", "drop"):
        raise UserError(f"ties must be 'split' or 'drop', got {ties!r}")
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
    if test not in ("ranks", "wilcoxon"):
        raise UserError(f"test must be 'ranks' or 'wilcoxon', got {test!r}")
    ranks = rank_matrix(matrix, lower_is_better=lower_is_better)
    base = matrix[known(control, list(matrix.columns), "control")].to_numpy()
    others = [name for name in matrix.columns if name != control]
    n, k = matrix.shape
    z = (ranks[others].mean() - ranks[control].mean()).to_numpy() / np.sqrt(k * (k + 1) / (6 * n))
    signed = [wilcoxon(matrix[name].to_numpy(), base) for name in others]
    statistics = z if test == "ranks" else np.array([t for t, _ in signed])
    p = 2 * stats.norm.sf(np.abs(z)) if test == "ranks" else np.array([value for _, value in signed])
    return tuple(
        ControlTest(
            method=str(name),
            mean_delta=float(paired_differences(matrix[name].to_numpy(), base).mean()),
            counts=win_tie_loss(matrix[name].to_numpy(), base, lower_is_better=lower_is_better),
            statistic=float(statistics[j]),
            p=float(p[j]),
            p_adjusted=float(adjusted),
        )
        for j, (name, adjusted) in enumerate(zip(others, adjust_p(p, adjust), strict=True))
    )
