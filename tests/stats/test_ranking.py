"""Ranks where methods tie."""

from __future__ import annotations

import pandas as pd

from crossfade.stats import rank_matrix, summarize


def test_ranks_of_ties_as_table_4_counts_them() -> None:
    matrix = pd.DataFrame({"a": [0.9, 0.8, 0.7], "b": [0.9, 0.7, 0.7], "c": [0.5, 0.8, 0.6]})
    assert rank_matrix(matrix, ties="min").to_numpy().tolist() == [[1, 1, 3], [1, 3, 1], [1, 1, 3]]
    assert rank_matrix(matrix).to_numpy().tolist() == [[1.5, 1.5, 3], [1.5, 3, 1.5], [1.5, 1.5, 3]]
    assert [row.mean_rank for row in summarize(matrix, "a", ties="min")] == [1.0, 5 / 3, 7 / 3]
