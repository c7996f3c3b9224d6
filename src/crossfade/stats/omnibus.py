"""Tests among all methods at once: Friedman's, the post-hoc tests over all pairs, and what they don't tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from crossfade.errors import UserError
from crossfade.stats.ranking import Floats, rank_matrix
from crossfade.stats.shape import check_fraction
from crossfade.stats.words import listed

Adjust = Literal["holm", "fdr_bh", "none"]


@dataclass(frozen=True)
class Friedman:
    """Friedman's test in both forms; ``f`` is infinite, with p = 0, when all blocks agree on one order."""

    blocks: int
    methods: int
    chi2: float
    chi2_p: float
    f: float
    f_p: float


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
        adjust: ``"fdr_bh"`` (Benjamini and Hochberg, as the paper), ``"holm"`` or ``"none"``.

    Returns:
        Symmetric frame of p-values, methods × methods, ones on the diagonal.

    Raises:
        UserError: a hole in the matrix, fewer than two blocks or methods, or an unknown ``adjust``.
    """
    ranks = rank_matrix(matrix).to_numpy()
    if (ranks == ranks[0]).all():
        sums = ranks[0]
        p = (sums[:, None] == sums[None, :]).astype(np.float64)
    else:
        from scikit_posthocs import posthoc_conover_friedman

        p = posthoc_conover_friedman(ranks).to_numpy(dtype=np.float64, copy=True)
    upper = np.triu_indices(len(p), 1)
    p[upper] = adjust_p(p[upper], adjust)
    p.T[upper] = p[upper]
    return pd.DataFrame(p, index=matrix.columns, columns=matrix.columns)


def nemenyi(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return Nemenyi's p-values for all pairs (``scikit_posthocs.posthoc_nemenyi_friedman``), methods × methods.

    They already allow for the number of pairs. p < α is the same as a difference of mean ranks above
    `critical_difference`.

    Raises:
        UserError: a hole in the matrix, or fewer than two blocks or two methods.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman

    p = posthoc_nemenyi_friedman(rank_matrix(matrix).to_numpy()).to_numpy(dtype=np.float64)
    return pd.DataFrame(p, index=matrix.columns, columns=matrix.columns)


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
    if test == "nemenyi":
        q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    else:
        q = stats.norm.isf(alpha / (2 * (methods - 1)))
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def adjust_p(p: npt.ArrayLike, method: Adjust) -> Floats:
    """Adjust p-values for their number, in the order given.

    ``"holm"`` (step-down Bonferroni) bounds the chance of any false finding, ``"fdr_bh"`` (Benjamini and Hochberg,
    ``scipy.stats.false_discovery_control``) the share of false findings.

    Raises:
        UserError: an unknown method.
    """
    values = np.asarray(p, dtype=np.float64)
    if method not in ("holm", "fdr_bh", "none"):
        raise UserError(f"adjust must be 'holm', 'fdr_bh' or 'none', got {method!r}")
    if method == "none" or values.size == 0:
        return values
    if method == "fdr_bh":
        return np.asarray(stats.false_discovery_control(values), dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def contiguous_groups(
    mean_ranks: Mapping[str, float] | pd.Series[float], p_values: pd.DataFrame, *, alpha: float = 0.05
) -> list[list[str]]:
    """Return the longest runs of methods, neighbours in mean rank, in which no pair differs at level ``alpha``.

    These are the bars of a critical-difference diagram. A run holds every method between its ends, so that no bar
    covers two methods that differ. With tests whose p-values do not fall as ranks part (Wilcoxon on each pair), two
    methods that don't differ can be in no common run; `sign_plot` shows all pairs.

    Args:
        mean_ranks: mean rank by method.
        p_values: methods × methods, such as from `conover`; p ≤ ``alpha`` is a difference.
        alpha: the level.

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
