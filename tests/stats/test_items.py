"""Models on the same items: McNemar's exact test against statsmodels and by hand, and `crossfade stats --items`."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference

from crossfade.cli.stats import stats
from crossfade.errors import UserError
from crossfade.stats import compare_items, compare_methods, mcnemar
from tests.examples import examples


@examples(60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemars_exact_test_is_that_of_statsmodels(pairs):
    own, other = np.array(pairs).T
    table = [[(own & other).sum(), (own & ~other).sum()], [(~own & other).sum(), (~own & ~other).sum()]]
    found = mcnemar(own, other)
    assert (found.wins, found.losses) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(min(1.0, reference(np.array(table), exact=True).pvalue))


def test_several_repeats_of_the_same_rows_and_rows_that_no_repeat_tests():
    own, other = [[1, 1, 0, -1], [1, 0, 0, -1], [0, 1, 1, -1]], [[0, 1, 1, -1], [0, 1, 1, -1], [0, 1, 1, -1]]
    found = mcnemar(own, other)
    assert (found.wins, found.losses) == (1, 2)  # 2 of 3 against 0; 2 against 3; 1 against 3; not tested
    for wrong in ([[1, 1]], [[1, 1, 1, 1]] * 3):
        with pytest.raises(UserError, match="same rows"):
            mcnemar(wrong, other)
    for value in (math.nan, 2, 0.5):
        with pytest.raises(UserError, match=f"1 .right., 0 .wrong. or below 0 .not tested., got {value:g}"):
            mcnemar([1, value], [1, 0])


def answers(models, seed=0, items=200):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [{"question": f"q{i}", "model": m, "right": int(rng.random() < p)} for i in range(items) for m, p in models]
    )


def test_models_are_compared_on_their_items():
    frame = answers([("old", 0.6), ("new", 0.75)])
    wide = frame.pivot(index="question", columns="model", values="right")
    (test,) = compare_items(frame, item="question", method="model", score="right")
    assert (test.method, test.control, test.items) == ("new", "old", 200)
    assert test.delta == pytest.approx((wide["new"] - wide["old"]).mean())
    assert test.rows == mcnemar(wide["new"], wide["old"])
    won, lost, n = test.rows.wins + 1, test.rows.losses + 1, 202
    error = np.sqrt(((won + lost) / n - ((won - lost) / n) ** 2) / n)
    bounds = (won - lost) / n - 1.959964 * error, (won - lost) / n + 1.959964 * error
    assert (test.interval.low, test.interval.high) == pytest.approx(bounds)
    words = frame.sample(frac=1, random_state=1).assign(right=lambda f: f["right"].map({1: "Right", 0: "wrong"}))
    (again,) = compare_items(words, item="question", method="model", score="right", control="old")
    assert again == test


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(index=3), {}, "1 item without an answer of some model: q1"),
        (lambda f: pd.concat([f, f.iloc[:1]]), {}, "more than one answer"),
        (lambda f: f.assign(question=np.arange(len(f)) // 3 + 1), {}, "item 1 has more than one answer"),
        (lambda f: f.assign(question=f.question.where(f.index > 0)), {}, "column 'question' has 1 empty cell;"),
        (lambda f: f.assign(model=f.model.where(f.index > 0)), {}, "column 'model' has 1 empty cell;"),
        (lambda f: f, {"method": "right"}, "different columns"),
        (lambda f: f.assign(right=0.5), {}, "right or wrong"),
        (lambda f: f.assign(right="maybe"), {}, "got 'maybe'"),
        (lambda f: f[f.model == "a"], {}, "expected two"),
        (lambda f: pd.concat([f, f[f.model == "a"].assign(model="c")]), {}, "or a --control, got a, b, c"),
        (lambda f: f, {"control": "z"}, "control 'z' not found"),
        (lambda f: f, {"item": "row"}, "column 'row' not found"),
    ],
)
def test_answers_that_cannot_be_compared_are_one_line(change, options, message):
    frame = change(answers([("a", 0.5), ("b", 0.6)], items=5))
    with pytest.raises(UserError) as caught:
        compare_items(frame, **{"item": "question", "method": "model", "score": "right"} | options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_compares_items(tmp_path, capsys):
    frame, path = answers([("old", 0.6), ("new", 0.75), ("other", 0.6)]), tmp_path / "answers.csv"
    frame.to_csv(path, index=False)
    columns = {"items": "question", "method": "model", "score": "right"}
    assert stats(path, **columns, control="old", json=tmp_path / "numbers.json") == 0
    said = capsys.readouterr().out
    tests = compare_items(frame, item="question", method="model", score="right", control="old")
    assert "200 items; items won from and lost to old" in said
    line = next(line for line in said.splitlines() if line.startswith("new ")).split()
    assert line[-4:-2] == [str(tests[0].rows.wins), str(tests[0].rows.losses)]
    numbers = json.loads((tmp_path / "numbers.json").read_text())["items"]
    assert [one["p_adjusted"] for one in numbers] == pytest.approx([test.p_adjusted for test in tests])
    with pytest.raises(UserError, match="--items goes with"):
        stats(path, **columns, repeat="seed")


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_comparison_on_fixed_test_rows_says_what_the_rows_say(repeats):
    rng, rows = np.random.default_rng(3), []
    for repeat in range(repeats):
        for method, p in (("ce", 0.6), ("f0", 0.9), ("el", 0.61)):
            hits = np.concatenate([np.full(20, -1), rng.random(100) < p]).astype(np.int8)
            row = {"dataset": "d", "method": method, "repeat": repeat, "n_train": 20, "n_test": 100}
            rows.append(row | {"accuracy": hits[20:].mean(), "hits": hits})
    frame = pd.DataFrame(rows)
    found = compare_methods(frame, fixed_test=True)
    stacked = {name: np.stack(part["hits"].tolist()) for name, part in frame.groupby("method")}
    assert found.paired[0].by_row == mcnemar(stacked["f0"], stacked["ce"])
    said = next(line for line in found.findings if "McNemar" in line)
    assert f"f0 {found.paired[0].by_row.wins} to {found.paired[0].by_row.losses} (p < 0.001)" in said
    assert found.to_dict()["paired"][0]["by_row"]["wins"] == found.paired[0].by_row.wins
    assert all(c.by_row is None for c in compare_methods(frame).paired)


@pytest.mark.parametrize(
    ("won", "headline", "advice"),
    [
        (2, "No reliable difference from ce in accuracy: f0.", "More repeats would change little"),
        (30, "Reliably higher accuracy than ce: f0.", "f0 may replace ce"),
    ],
)
def test_a_gain_on_a_few_fixed_test_rows_is_not_reliable(won, headline, advice):
    ce = np.repeat([1, 0], 50).astype(np.int8)
    f0 = np.where(np.arange(100) < 50 + won, 1, 0).astype(np.int8)
    rows = [
        {"dataset": "d", "method": name, "repeat": repeat, "n_train": 200, "n_test": 100, "hits": hits}
        | {"accuracy": hits.mean() - 1e-4 * repeat * (name == "ce")}  # a mean over tied epochs
        for repeat in range(3)
        for name, hits in (("ce", ce), ("f0", f0))
    ]
    found = compare_methods(pd.DataFrame(rows), fixed_test=True)
    assert found.headline == headline
    assert found.advice.startswith(advice)
    without = compare_methods(pd.DataFrame(rows).drop(columns="hits"), fixed_test=True)
    assert without.headline == "Reliably higher accuracy than ce on these 100 test rows: f0."
    assert without.advice == "Try f0 on other test rows: the interval covers training randomness only."


def test_more_test_rows_do_not_make_training_less_random(runs):
    frame = runs(sets=("a", "b"))
    assert "with twice the rows" in compare_methods(frame).dataset_lines["a"]
    assert "rows" not in compare_methods(frame, fixed_test=True).dataset_lines["a"].split("found in")[1]
