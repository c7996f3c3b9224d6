"""Performance profiles (Dolan and Moré 2002): how often is a method within a factor of the best?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crossfade.errors import UserError
from crossfade.stats.ranking import settle
from crossfade.stats.shape import check_matrix, listed


@dataclass(frozen=True, eq=False)
class Profile:
    """``ratios``, blocks × methods, is how many times worse than the block's best a method is: 1 is best, up to ∞."""

    ratios: pd.DataFrame

    def share(self, factor: float) -> pd.Series[float]:
        """ρ(τ): the share of blocks on which each method is within ``factor`` τ ≥ 1 of the best."""
        return (self.ratios <= factor).mean()


def performance_profile(matrix: pd.DataFrame, *, lower_is_better: bool = False) -> Profile:
    """The ratios of a performance profile: best / score, or score / best where lower is better.

    Accuracies (the paper's Figure 2) ask for best / score: a ratio of at most τ says the score is "as high as the best
    method times a threshold" 1/τ. Where the best is zero the quotient is undefined; here a method that reaches it has
    ratio 1 and any other ∞. Ratios of errors weigh easy blocks heavily (error 0.01 against 0.02 counts as much as 0.2
    against 0.4), those of accuracies hardly tell methods apart: say which one is drawn.

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
