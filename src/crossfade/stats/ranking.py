"""Ranks of methods, the three summaries of the paper's Table 4, and performance profiles (Dolan and Moré 2002)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from crossfade.errors import UserError
from crossfade.stats.shape import check_matrix, holes, known, tidy
from crossfade.stats.words import listed

Floats: TypeAlias = npt.NDArray[np.float64]
RankTies: TypeAlias = Literal["average", "min"]


@dataclass(frozen=True)
class MethodSummary:
    """A row of Table 4. ``wins`` is whole for one matrix and may be fractional when seeds are averaged."""

    method: str
    mean_score: float
    wins: float
    mean_delta: float | None
    mean_rank: float


@dataclass(frozen=True)
class WinTieLoss:
    """The numbers of blocks on which a method beats, equals and falls behind the control."""

    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, eq=False)
class Profile:
    """A performance profile; ``ratios`` (blocks × methods) says how many times worse than the best: from 1 to ∞."""

    ratios: pd.DataFrame

    def share(self, factor: float) -> pd.Series[float]:
        """Return ρ(τ), the share of blocks on which each method is within ``factor`` τ ≥ 1 of the best."""
        return (self.ratios <= factor).mean()


def settle(values: npt.ArrayLike, scale: npt.ArrayLike | None = None) -> Floats:
    """Give the numbers of a row that differ only by rounding errors one value, the smallest of them.

    Two methods with the same hits over the same repeats differ in the last bits of their means, because floating-point
    sums depend on order. Without this, such ties would be ranked, and counted as wins, by rounding errors. Neighbours
    closer than 1e-12 of the row's largest magnitude (or of their own ``scale``, one a number) are joined; rounding to a
    grid would not do, for two such neighbours can lie on both sides of a rounding boundary.
    """
    numbers = np.asarray(values, dtype=np.float64)
    order = np.argsort(numbers, axis=-1, kind="stable")
    rising = np.take_along_axis(numbers, order, axis=-1)
    size = np.max(np.abs(numbers), axis=-1, keepdims=True)
    if scale is not None:
        sizes = np.take_along_axis(np.asarray(scale, dtype=np.float64), order, axis=-1)
        size = np.maximum(sizes[..., 1:], sizes[..., :-1])
    first = np.ones(rising.shape, dtype=bool)
    first[..., 1:] = np.diff(rising, axis=-1) > 1e-12 * size
    settled = np.empty_like(numbers)
    np.put_along_axis(settled, order, np.maximum.accumulate(np.where(first, rising, -np.inf), axis=-1), axis=-1)
    return settled


def rank_matrix(matrix: pd.DataFrame, *, lower_is_better: bool = False, ties: RankTies = "average") -> pd.DataFrame:
    """Rank the methods inside every block: 1 is best, ties share the average (or the ``"min"``) of their ranks.

    Raises:
        UserError: the matrix has a hole, or fewer than two blocks or methods.
    """
    check_matrix(matrix)
    ranks = rank_scores(matrix.to_numpy(dtype=np.float64), lower_is_better=lower_is_better, ties=ties)
    return pd.DataFrame(ranks, index=matrix.index, columns=matrix.columns)


def rank_scores(scores: Floats, *, lower_is_better: bool = False, ties: RankTies = "average") -> Floats:
    """Rank as `rank_matrix` does, in an array of one row or more that is not checked."""
    settled = settle(scores)
    return np.asarray(rankdata(settled if lower_is_better else -settled, method=ties, axis=-1), dtype=np.float64)


def win_tie_loss(scores: npt.ArrayLike, control: npt.ArrayLike, *, lower_is_better: bool = False) -> WinTieLoss:
    """Count the pairs in which ``scores`` is better than, equal to and worse than ``control``."""
    signs = np.sign(paired_differences(scores, control)) * (-1 if lower_is_better else 1)
    return WinTieLoss(int((signs > 0).sum()), int((signs == 0).sum()), int((signs < 0).sum()))


def paired_differences(scores: npt.ArrayLike, control: npt.ArrayLike) -> Floats:
    """Return ``scores − control``; sizes that differ from each other or from zero by rounding alone become equal."""
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise UserError(f"scores and control must be paired, one number a pair; got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("scores and control must be finite numbers; got NaN or infinity")
    difference, scale = a - b, np.maximum(np.abs(a), np.abs(b))
    size = np.where(np.abs(difference) > 1e-12 * scale, np.abs(difference), 0.0)
    return np.copysign(settle(size, scale), difference)


def summarize(
    matrix: pd.DataFrame, control: str | None = None, *, lower_is_better: bool = False, ties: RankTies = "average"
) -> tuple[MethodSummary, ...]:
    """Return the three summaries of Table 4, a row a method.

    * wins: blocks on which the method "outperformed or matched all other methods". A tie for the best counts for every
      method in it, so the wins do not sum to the number of blocks.
    * mean delta: mean over blocks of score − score of ``control``; ``None`` without a control.
    * mean rank: mean over blocks of the rank (`rank_matrix`), lower is better. The paper's own means add up to less
      than the average ranks of six methods do (15.8 and 16.6, not 21): it counts ties as ``ties="min"``.

    Raises:
        UserError: the matrix has a hole, fewer than two blocks or methods, or no method ``control``.

    Example:
        >>> import pandas as pd
        >>> [row.wins for row in summarize(pd.DataFrame({"ce": [0.9, 0.8], "el": [0.9, 0.7]}), "ce")]
        [2.0, 1.0]
    """
    ranks = rank_matrix(matrix, lower_is_better=lower_is_better, ties=ties)
    best = ranks.min(axis=1)
    base = None if control is None else matrix[known(control, list(matrix.columns), "control")].to_numpy()
    return tuple(
        MethodSummary(
            method=str(name),
            mean_score=float(matrix[name].mean()),
            wins=float((ranks[name] == best).sum()),
            mean_delta=None if base is None else float(paired_differences(matrix[name].to_numpy(), base).mean()),
            mean_rank=float(ranks[name].mean()),
        )
        for name in matrix.columns
    )


def summarize_repeats(
    frame: pd.DataFrame,
    control: str | None = None,
    *,
    block: str = "dataset",
    method: str = "method",
    score: str = "accuracy",
    repeat: str = "repeat",
    lower_is_better: bool = False,
    ties: RankTies = "average",
) -> tuple[MethodSummary, ...]:
    """Summarize every seed by itself and average the summaries, as the paper averages its two seeds in Table 4.

    This differs from summarizing the averaged scores: averaging first breaks ties, so it gives fewer wins.

    Raises:
        UserError: a seed lacks a cell; all are listed.
    """
    wide = tidy(frame, block=block, method=method, score=score, repeat=repeat)
    tables = {seed: part.droplevel(1) for seed, part in wide.groupby(level=1, sort=False)}
    gone = holes(wide)
    for seed, table in tables.items():
        blocks = pd.unique(wide.index.get_level_values(0))
        gone += [f"({name}, every method, repeat {seed})" for name in blocks if name not in table.index]
    if gone:
        raise UserError(f"every repeat must cover every block and method; missing: {listed(gone)}")
    rows = [summarize(table, control, lower_is_better=lower_is_better, ties=ties) for table in tables.values()]
    averaged = ["mean_score", "wins", "mean_rank", *([] if control is None else ["mean_delta"])]
    return tuple(
        replace(same[0], **{name: fmean(getattr(row, name) for row in same) for name in averaged})
        for same in zip(*rows, strict=True)
    )


def performance_profile(matrix: pd.DataFrame, *, lower_is_better: bool = False) -> Profile:
    """Return the ratios of a performance profile: best / score, or score / best where lower is better.

    Accuracies (the paper's Figure 2) ask for best / score: a ratio of at most τ says the score is "as high as the best
    method times a threshold" 1/τ. Where the best is zero the quotient is undefined; here a method that reaches it has
    ratio 1 and any other ∞. Ratios of errors weigh easy blocks heavily (error 0.01 against 0.02 counts as much as 0.2
    against 0.4), while those of accuracies hardly tell methods apart: say which of the two you draw.

    Raises:
        UserError: a negative score, a hole in the matrix, or fewer than two blocks or methods.

    Example:
        >>> import pandas as pd
        >>> errors = pd.DataFrame({"ce": [0.0, 0.2], "el": [0.1, 0.1]})
        >>> performance_profile(errors, lower_is_better=True).ratios.to_numpy().tolist()
        [[1.0, inf], [2.0, 1.0]]
    """
    check_matrix(matrix)
    scores = settle(matrix.to_numpy(dtype=np.float64))
    if (scores < 0).any():
        where = listed(str(matrix.index[i]) for i in np.unique(np.argwhere(scores < 0)[:, 0]))
        raise UserError(f"a performance profile needs scores of zero or more; negative scores in {where}")
    best = scores.min(axis=1, keepdims=True) if lower_is_better else scores.max(axis=1, keepdims=True)
    above, below = (scores, best) if lower_is_better else (best, scores)
    with np.errstate(over="ignore"):
        ratios = np.divide(above, below, out=np.full(scores.shape, np.inf), where=below > 0)
    ratios[scores == best] = 1.0
    return Profile(pd.DataFrame(ratios, index=matrix.index, columns=matrix.columns))
