"""What a run's own results say about how to read them: each finding by hand-made results, and its absence."""

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.stats import compare_methods


def runs(scores, dataset="a", **columns):
    """Results with these accuracies, (repeats,) by method; a column is a value, or values by method."""
    rows = []
    for method, values in scores.items():
        for repeat, value in enumerate(np.asarray(values, float)):
            row = {"dataset": dataset, "method": method, "repeat": repeat, "accuracy": value, "classes": 4}
            row |= {"n_train": 300, "n_test": 100, "nll": 1 - value, "ece": 0.1, "brier": 0.1}
            for name, given in columns.items():
                row[name] = given[method] if isinstance(given, dict) else given
            rows.append(row)
    return pd.DataFrame(rows)


def around(mean, spread=0.002, repeats=10, seed=0):
    return mean + spread * np.random.default_rng(seed).standard_normal(repeats)


def found(frame, **options):
    return "\n".join(compare_methods(frame, **options).findings)


def test_a_gain_that_the_size_control_shares_is_one_of_step_size():
    scores = {"ce": around(0.80), "gradual": around(0.84, seed=1), "ce-matched": around(0.838, 0.004, seed=2)}
    comparison = compare_methods(runs(scores), size_control="ce-matched")
    assert "Gains of step size" in comparison.findings[0]
    assert "a, gradual +4." in comparison.findings[0]
    assert "of which +3." in comparison.findings[0]
    assert [verdict.method for verdict in comparison.headlines] == ["gradual"]
    assert [verdict.method for verdict in comparison.overall_verdicts] == ["gradual", "ce-matched"]
    assert "step size" not in found(runs(scores))
    smaller = scores | {"ce-matched": around(0.81, seed=2)}
    assert "step size" not in found(runs(smaller), size_control="ce-matched")
    ahead = scores | {"ce-matched": around(0.825, seed=2)}  # more than half of it, but the rest is reliable
    assert "step size" not in found(runs(ahead), size_control="ce-matched")
    alone = compare_methods(runs({name: scores[name] for name in ("ce", "ce-matched")}), size_control="ce-matched")
    assert [verdict.method for verdict in alone.headlines] == ["ce-matched"]  # it is what was asked for


def test_over_data_sets_too():
    parts = [
        runs({"ce": [0.5], "f0": [0.6 + k / 500], "ce-matched": [0.6 + k / 500 + (-1) ** k / 100]}, dataset=f"set {k}")
        for k in range(12)
    ]
    said = found(pd.concat(parts), size_control="ce-matched")
    assert "Gains of step size" in said
    assert "points: " not in said
    assert "f0 +11" in said


def test_the_same_network_under_several_names_is_said_once():
    same = around(0.9)
    scores = {"ce": around(0.8), "f0": same, "f0-late": same, "gradual": np.append(same[:7], same[7:] + 0.01)}
    frame = runs(scores, epoch=3, learning_rate=0.01)
    comparison = compare_methods(frame)
    (said,) = [line for line in comparison.findings if line.startswith("One network")]
    assert "a: f0 = f0-late = gradual (7 of 10 repeats, epoch 3)" in said
    moves = {"gradual": 8, "f0-late": 47}
    assert "(7 of 10 repeats, epoch 3, the first schedule moves after 8)" in found(frame, moves=moves)
    assert "(7 of 10 repeats, epoch 3)" in found(frame, moves={"gradual": 2})  # it moved before: that says nothing
    assert comparison.same == {"f0-late": "f0"}
    assert [verdict.method for verdict in comparison.headlines] == ["f0", "gradual"]
    assert "f0-late" not in "".join(verdict.text for verdict in comparison.headlines)
    assert "One network" not in found(
        runs(scores, epoch={**dict.fromkeys(scores, 3), "f0-late": 4, "gradual": 5}, learning_rate=0.01)
    )
    assert "One network" not in found(runs(scores))  # nothing is known of epochs


def test_a_method_that_is_the_control_keeps_its_verdict():
    comparison = compare_methods(runs({"ce": around(0.8), "twin": around(0.8)}, epoch=3, learning_rate=0.01))
    assert [verdict.outcome for verdict in comparison.headlines] == ["identical"]


def test_nothing_learned():
    scores = {"ce": around(0.604), "f0": around(0.9), "el": around(0.251, seed=3)}
    said = found(runs(scores, majority=0.6))
    assert "Nothing was learned: a: ce at the majority class (60.0 %), a: el at chance (25.0 %)." in said
    balanced = runs({"ce": around(0.254), "f0": around(0.9)}, majority=0.253)
    assert "a: ce at chance (25.0 %)." in found(balanced)
    assert compare_methods(runs(scores, majority=0.6)).majority == {"a": pytest.approx(0.6)}
    assert "Nothing" not in found(runs({"ce": around(0.8), "f0": around(0.9)}, majority=0.6))
    assert "Nothing" not in found(runs(scores))
    unsure = {"ce": around(0.9, repeats=3), "el": [0.33, 0.8, 0.9]}  # far above a guess, if by a wide interval
    assert "Nothing" not in found(runs(unsure, majority=0.25))


def test_rates_at_the_edge_of_the_grid():
    scores = {"ce": around(0.8), "f0": around(0.9)}
    grid = {"learning_rate": 0.01, "lowest_rate": 0.001, "highest_rate": {"ce": 0.1, "f0": 1.0}, "epoch": 3}
    said = found(runs(scores, at_edge={"ce": False, "f0": True}, **grid))
    assert "widened to 0.001 … 1 where the best lay on its edge: in 10 of 20 trials" in said
    assert "still lies at the grid's edge" in said
    assert "a: f0 (100%)" in said
    said = found(runs(scores, at_edge=False, **{**grid, "highest_rate": 0.1}))
    assert said == ""


def test_another_metric_is_judged_and_named():
    frame = runs({"ce": around(0.9), "f0": around(0.9, seed=1)}).assign(f1=np.r_[around(0.5), around(0.6, seed=1)])
    comparison = compare_methods(frame, metric="f1")
    assert comparison.metric == "macro-F1"
    assert comparison.rows[1].delta == pytest.approx(0.1, abs=0.005)
    assert comparison.rows[1].score == pytest.approx(comparison.rows[1].f1)
    assert comparison.rows[1].accuracy == pytest.approx(0.9, abs=0.005)
    assert "raises macro-F1 by" in comparison.verdicts[0].text


def test_a_mean_nll_of_a_few_networks_is_said():
    frame = runs({"ce": around(0.9), "f0": around(0.9, seed=1)})
    assert "NLL" not in found(frame)
    frame.loc[(frame["method"] == "f0") & (frame["repeat"] == 3), "nll"] = 192_078.0
    said = found(frame)
    assert "make the mean NLL what it is: f0 (median 0.0" in said
    assert "ce (" not in said


def test_a_finding_needs_all_of_its_columns():
    frame = runs({"ce": around(0.5), "f0": around(0.9)})
    assert found(frame.drop(columns="classes").assign(majority=0.6)) == ""
    assert found(frame.assign(at_edge=True)) == ""


def test_a_metric_that_is_not_judged_is_refused():
    with pytest.raises(UserError, match="metric must be 'accuracy' or 'balanced' or 'f1', got 'nll'"):
        compare_methods(runs({"ce": around(0.5), "f0": around(0.9)}), metric="nll")
