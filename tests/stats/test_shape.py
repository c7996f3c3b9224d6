import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.stats import rank_matrix, score_matrix, summarize, summarize_repeats


@pytest.fixture
def long():
    return pd.DataFrame(
        [
            (name, method, repeat, 0.5 + 0.1 * i + 0.01 * j + 0.001 * repeat)
            for i, name in enumerate(["b", "a", "c"])
            for j, method in enumerate(["ce", "el"])
            for repeat in (3, 4)
        ],
        columns=["dataset", "method", "repeat", "accuracy"],
    )


def test_repeats_are_averaged_inside_their_block(long):
    matrix = score_matrix(long, repeat="repeat")
    assert list(matrix.index) == ["b", "a", "c"]
    assert list(matrix.columns) == ["ce", "el"]
    assert matrix.loc["a", "el"] == pytest.approx(0.6 + 0.01 + 0.0035)


def test_names_of_columns_are_free_and_labels_need_not_be_text(long):
    renamed = long.rename(columns={"dataset": "task", "method": "loss", "accuracy": "f1", "repeat": "seed"})
    renamed["task"] = renamed["task"].map({"b": 1, "a": 2, "c": 3})
    matrix = score_matrix(renamed, block="task", method="loss", score="f1", repeat="seed")
    assert list(matrix.index) == ["1", "2", "3"]


def test_a_column_called_repeat_may_be_the_block(long):
    assert score_matrix(long[long.dataset == "a"], block="repeat").shape == (2, 2)


def refused(frame, *words, **kwargs):
    with pytest.raises(UserError) as caught:
        score_matrix(frame, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_holes_are_listed(long):
    refused(long.drop(index=[0, 1]), "1 result missing", "(b, ce)", repeat="repeat")
    refused(long.drop(index=[0, 6]), "2 results", "(b, ce, repeat 3)", "(a, el, repeat 3)", repeat="repeat")


def test_many_holes_are_counted():
    cells = [("d0", "b", 0.5), *((f"d{i}", "a", 0.5) for i in range(1, 40))]
    refused(pd.DataFrame(cells, columns=["dataset", "method", "accuracy"]), "40 results", "and 32 more")


def test_duplicates_are_named(long):
    message = refused(long, "6 cells", "(b, ce)")
    assert "--repeat" in message
    refused(pd.concat([long, long.iloc[:1]]), "(b, ce, 3)", repeat="repeat")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_named(long, value):
    long.loc[5, "accuracy"] = value
    refused(long, repr(float(value)), "(a, ce, 4)", repeat="repeat")


def test_dates_are_no_scores(long):
    refused(long.assign(accuracy=pd.Timestamp("2026-01-01")), "finite numbers; got Timestamp", repeat="repeat")


def test_text_among_the_scores_is_named(long):
    refused(long.astype({"accuracy": object}).assign(accuracy=["98%", *long["accuracy"][1:]]), "98%", repeat="repeat")


def test_other_requests_that_make_no_sense(long):
    refused(long, "did you mean 'accuracy'?", score="acuracy", repeat="repeat")
    refused(long.iloc[:0], "no rows", repeat="repeat")
    refused(long[long.method == "ce"], "only one method, ce", repeat="repeat")
    refused(long[long.dataset == "a"], "only one block, a", "compare_methods", repeat="repeat")
    refused(long, "different columns", block="method", repeat="repeat")
    refused(long.join(long[["accuracy"]], rsuffix="2").set_axis([*long, "accuracy"], axis=1), "each once in the table")
    refused(long.assign(method=[None, *long["method"][1:]]), "1 empty cell;", repeat="repeat")


def test_a_matrix_with_a_hole_or_a_twin_is_refused():
    with pytest.raises(UserError, match=r"\(1, el\)"):
        rank_matrix(pd.DataFrame({"ce": [1.0, 2.0], "el": [1.0, np.nan]}))
    with pytest.raises(UserError, match="unique"):
        rank_matrix(pd.DataFrame([[1.0, 2.0], [1.0, 2.0]], columns=["ce", "ce"]))


def test_wins_count_ties_for_every_best_method_and_ranks_are_shared():
    matrix = pd.DataFrame({"ce": [0.9, 0.8, 0.5], "f0": [0.9, 0.7, 0.5], "el": [0.1, 0.8, 0.5]})
    rows = summarize(matrix, "ce")
    assert [row.wins for row in rows] == [3, 2, 2]
    assert [row.mean_rank for row in rows] == pytest.approx([5 / 3, 6.5 / 3, 6.5 / 3])
    assert [row.mean_delta for row in rows] == pytest.approx([0, -0.1 / 3, -0.8 / 3])
    assert [row.wins for row in summarize(matrix, lower_is_better=True)] == [1, 2, 2]
    assert summarize(matrix)[0].mean_delta is None
    with pytest.raises(UserError, match="did you mean 'ce'"):
        summarize(matrix, "cee")


def test_means_that_differ_by_rounding_are_ties():
    # the same accuracies in another order: 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point
    scores = np.array([0.1, 0.2, 0.3])
    frame = pd.DataFrame(
        [(d, m, r, v) for d in "ab" for m, s in (("ce", scores), ("el", scores[::-1])) for r, v in enumerate(s)],
        columns=["dataset", "method", "repeat", "accuracy"],
    )
    matrix = score_matrix(frame, repeat="repeat")
    assert (matrix["ce"] != matrix["el"]).all()
    assert (rank_matrix(matrix) == 1.5).all(axis=None)
    assert [row.wins for row in summarize(matrix)] == [2, 2]


def test_the_paper_averages_summaries_of_seeds(long):
    frame = pd.DataFrame(
        {
            "dataset": list("aabb") * 2,
            "method": ["ce", "el"] * 4,
            "repeat": [0] * 4 + [1] * 4,
            "accuracy": [0.9, 0.8, 0.6, 0.6, 0.7, 0.8, 0.6, 0.5],
        }
    )
    ce, el = summarize_repeats(frame, "ce")
    # seed 0: ce wins a, both win b; seed 1: el wins a, ce wins b
    assert (ce.wins, el.wins) == (1.5, 1.0)
    assert (ce.mean_rank, el.mean_rank) == pytest.approx(((1.25 + 1.5) / 2, (1.75 + 1.5) / 2))
    assert el.mean_delta == pytest.approx(((-0.1 + 0) / 2 + (0.1 - 0.1) / 2) / 2)
    with pytest.raises(UserError, match=r"\(b, every method, repeat 1\)"):
        summarize_repeats(frame.drop(index=[6, 7]))
