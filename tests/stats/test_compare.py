import json
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.stats import (
    compare_datasets,
    compare_methods,
    compare_repeats,
    corrected_resampled_t,
    detectable_difference,
    friedman,
    paired_t,
    verdict,
    wilcoxon,
)


def one(differences, **kwargs):
    """A comparison whose paired differences, in hits of 100 test rows, are given."""
    control = np.full(len(differences), 0.5)
    options = {"dataset": "toy", "method": "el", "control": "ce", "n_train": 300, "n_test": 100} | kwargs
    return compare_repeats(control + np.array(differences) / 100, control, **options)


def test_numbers_on_one_data_set(runs):
    frame = runs({"el": -4})
    found = compare_methods(frame)
    wide = frame.pivot(index="repeat", columns="method", values="accuracy")
    row = next(row for row in found.rows if row.method == "el")
    expected = corrected_resampled_t(wide["el"] - wide["ce"], 106, 36)
    assert row.accuracy == pytest.approx(wide["el"].mean())
    assert row.delta == pytest.approx(expected.mean)
    assert (row.interval.low, row.interval.high) == pytest.approx((expected.interval.low, expected.interval.high))
    assert row.p == pytest.approx(expected.p)
    assert row.p_adjusted == pytest.approx(3 * expected.p)  # the smallest of three
    assert (row.counts.wins, row.counts.losses) == ((wide["el"] > wide["ce"]).sum(), (wide["el"] < wide["ce"]).sum())
    ranks = wide.rank(axis=1, ascending=False).mean()
    assert {r.method: r.mean_rank for r in found.rows} == pytest.approx(ranks.to_dict())
    assert found.overall == found.rows
    assert found.across == ()
    assert found.friedman is None
    control = found.rows[0]
    assert (control.method, control.delta, control.interval, control.counts) == ("ce", None, None, None)


def test_numbers_over_data_sets(runs):
    frame = runs({"el": -3}, sets=[f"d{i}" for i in range(9)], repeats=3)
    found = compare_methods(frame)
    means = frame.groupby(["dataset", "method"], sort=False)["accuracy"].mean().unstack()[list(found.methods)]
    for row in found.overall:
        assert row.dataset is None
        assert row.accuracy == pytest.approx(means[row.method].mean())
        if row.method != "ce":
            assert row.p == pytest.approx(wilcoxon(means[row.method], means["ce"])[1])
            expected = paired_t(means[row.method] - means["ce"]).interval
            assert (row.interval.low, row.interval.high) == pytest.approx((expected.low, expected.high))
    assert found.friedman == friedman(means)
    assert len(found.rows) == 36
    judged = sum(c.p is not None for c in found.paired)
    assert judged > 20
    assert all(c.comparisons == judged for c in found.paired)  # all that is judged within data sets
    assert all(c.comparisons == 3 for c in found.across)
    assert next(c for c in found.across if c.method == "el").outcome == "worse"


def test_from_ten_data_sets_on_the_interval_is_a_bootstrap(runs):
    found = compare_methods(runs(sets=[f"d{i}" for i in range(10)], repeats=1))
    assert {row.interval.kind for row in found.overall if row.interval} == {"symmetric bootstrap-t"}


def test_the_verdict_of_the_design():
    said = verdict(one([3, -2, 1, 0, 1, 2, -1, 0, 1, -1])).text
    assert said.startswith("On toy, el changes accuracy by +0.4 points against ce (95 % ")
    assert said.endswith("no reliable difference at 10 repeats.")  # what more repeats would find is said once, for all


def test_verdicts_of_reliable_differences():
    gain, loss = one([4, 5, 6, 5, 4, 5]), one([-4, -5, -6, -5, -4, -5])
    assert gain.outcome == "better"
    assert "raises accuracy by 4.8 points" in verdict(gain).text
    assert "a reliable gain at 6 repeats" in verdict(gain).text
    assert loss.outcome == "worse"
    assert "lowers accuracy by 4.8 points against ce (95 % −" in verdict(loss).text


def test_fixed_test_rows_cover_training_randomness_only():
    d = [1, 2, 1, 1, 2, 1]
    fixed, fresh = one(d, fixed_test=True), one(d)
    assert fixed.interval == paired_t(np.array(d) / 100).interval or fixed.interval.low == pytest.approx(
        paired_t(np.array(d) / 100).interval.low
    )
    assert fixed.interval.high - fixed.interval.low < fresh.interval.high - fresh.interval.low
    said = verdict(fixed).text
    assert "training randomness only" in said
    assert "on these 100 test rows; other rows were not tried" in said
    assert "training randomness" not in verdict(fresh).text


def test_one_repeat_has_no_interval(runs):
    found = compare_methods(runs({"el": -4}, repeats=1))
    assert all(row.interval is None and row.p is None for row in found.rows)
    assert {v.outcome for v in found.verdicts} == {"one repeat"}
    assert all("one repeat carries no interval" in line for line in found.lines)
    assert not any("reliable" in line for line in found.lines)


def test_identical_and_constant_differences():
    assert "identical accuracy in all 5 repeats" in verdict(one([0] * 5)).text
    constant = one([1] * 5)
    assert constant.outcome == "no spread"
    assert (constant.p, constant.interval, constant.p_adjusted) == (None, None, None)
    assert "the same +1.00 points in all 5 repeats" in verdict(constant).text


def test_multiplicity_is_said(runs):
    # a method whose interval by itself excludes zero, among nineteen others
    rng = np.random.default_rng(1)
    rows = []
    for repeat in range(10):
        for j in range(21):
            name = "ce" if j == 0 else f"m{j}"
            moved = 0 if j == 0 else ((2, 1, 3, 2, 0, 2, 1, 3, 2, 1)[repeat] if j == 1 else rng.integers(-2, 3))
            rows.append(
                {"dataset": "toy", "method": name, "repeat": repeat, "accuracy": 0.5 + moved / 100,
                 "n_train": 900, "n_test": 100}
            )  # fmt: skip
    found = compare_methods(pd.DataFrame(rows))
    lucky = next(c for c in found.paired if c.method == "m1")
    assert lucky.p < 0.05 < lucky.p_adjusted
    assert lucky.interval.excludes_zero()
    said = next(v for v in found.verdicts if v.method == "m1")
    assert said.outcome == "no reliable difference"
    assert "not after allowing for the number of comparisons" in said.text
    alone = compare_methods(pd.DataFrame(rows).query("method in ['ce', 'm1']"))
    assert alone.verdicts[0].outcome == "better"
    assert alone.paired[0].detectable < lucky.detectable


def test_four_data_sets_show_little(runs):
    found = compare_methods(runs({"el": -10}, sets=("iris", "wine", "cancer", "digits")))
    el = next(v for v in found.verdicts if v.method == "el" and v.dataset is None)
    assert el.outcome == "too few data sets"
    assert "4 data sets are too few" in el.text
    assert "cannot give p below 0.125" in el.text
    assert len(found.lines) == 3 + 4
    assert "reliable: el −" in found.lines[3]


@pytest.mark.parametrize(
    ("change", "options", "said", "next_"),
    [
        ({}, {}, "None of the 3 other losses differs reliably from ce in accuracy.", "20 repeats would find a"),
        ({}, {"repeats": 1}, "One repeat carries no interval, so nothing follows: f0, gradual, el.", "10 repeats"),
        ({"el": -30}, {}, "Reliably lower accuracy than ce: el. No reliable difference from ce in accuracy: f0, grad",
         "20 repeats would find a difference of "),
        ({"f0": 4, "gradual": 6, "el": -30}, {},
         "Reliably higher accuracy than ce: f0, gradual. Reliably lower accuracy than ce: el.", "gradual may replace"),
        ({"f0": -20, "gradual": -30, "el": -30}, {}, "Reliably lower accuracy than ce: f0, gradual, el.", "Stay with"),
        ({}, {"sets": ("a", "b")}, "2 data sets are too few to conclude anything beyond them. On no data set by itself",
         "At least 7 data sets are needed for a conclusion beyond them. 20 repeats would find a difference of "),
        ({"el": -30}, {"sets": [f"d{i}" for i in range(9)]}, "Reliably lower accuracy than ce: el. No reliable",
         "18 data sets would find a mean difference of "),
    ],
)  # fmt: skip
def test_headline_and_what_to_do_next(runs, change, options, said, next_):
    found = compare_methods(runs(change, **options))
    assert found.headline.startswith(said)
    assert found.advice.startswith(next_)
    plain = found.to_dict()
    assert (plain["headline"], plain["advice"]) == (found.headline, found.advice)


def test_the_difference_that_more_repeats_would_find_is_the_largest_of_all_undecided(runs):
    found = compare_methods(runs())
    sizes = [f"{100 * size(c.detectable_with(20) for c in found.paired):.1f}" for size in (min, max)]
    assert f"20 repeats would find a difference of {' to '.join(dict.fromkeys(sizes))} points" in found.advice


def test_more_data_sets_find_smaller_differences(runs):
    found = compare_methods(runs(sets=[f"d{i}" for i in range(9)])).across[0]
    error = np.std(found.differences, ddof=1) / 18**0.5
    assert found.detectable_with(18) == pytest.approx(detectable_difference(error, 17, alpha=0.05 / 3))
    for size in (1, 0):
        with pytest.raises(UserError, match=f"datasets must be at least 2, got {size}"):
            found.detectable_with(size)
        with pytest.raises(UserError, match=f"repeats must be at least 2, got {size}"):
            one([1, 2, 4]).detectable_with(size)


def test_a_line_on_a_data_set_tells_what_each_method_could_have_shown(runs):
    frame = runs(sets=("a", "b"), methods=("ce", "f0", "el"))
    rng = np.random.default_rng(1)
    frame["accuracy"] = 0.8 + rng.normal(0, 1, len(frame)) * frame["method"].map({"ce": 0.0, "f0": 0.01, "el": 0.04})
    found = compare_methods(frame)
    small, large = (f"{100 * c.detectable:.1f}" for c in found.paired[:2])
    assert float(large) > float(small)
    assert (
        f"any method; a true difference of {small} to {large} points would have been found in 4 runs"
        in found.dataset_lines["a"]
    )


def test_the_kinds_of_all_intervals_are_named(runs):
    frame = runs(sets=[f"d{i}" for i in range(12)], methods=("ce", "f0", "el"))
    frame.loc[frame["method"] == "el", "accuracy"] = frame.loc[frame["method"] == "ce", "accuracy"].to_numpy()
    frame.loc[(frame["method"] == "el") & (frame["dataset"] == "d0"), "accuracy"] = 0.5  # one difference, eleven ties
    said = next(note for note in compare_methods(frame).notes if note.startswith("Over data sets"))
    assert said.startswith("Over data sets: symmetric bootstrap-t or Student t interval for the mean of 12")


def test_one_data_set_is_too_few_in_the_singular():
    said = verdict(compare_datasets([0.9], [0.8], method="el", control="ce")).text
    assert said.startswith("Over 1 data set, el changes")
    assert "1 win, 0 ties, 0 losses: one data set is too few to conclude anything beyond it" in said


def test_a_mean_moved_by_one_disaster_is_called_mixed():
    accuracy = {"ce": [0.8] * 24, "el": [0.81] * 23 + [0.1]}
    rows = [
        {"dataset": f"d{i}", "method": m, "repeat": r, "accuracy": v, "n_train": 75, "n_test": 25}
        for m, values in accuracy.items()
        for i, v in enumerate(values)
        for r in range(2)
    ]
    said = compare_methods(pd.DataFrame(rows)).verdicts[0]
    assert said.outcome == "mixed"
    assert "better more often than worse" in said.text


def test_which_data_sets_have_fixed_test_rows(runs):
    frame = runs(sets=("a", "b"))
    by_name = compare_methods(frame, fixed_test=["b"])
    assert [c.fixed_test for c in by_name.paired] == [False] * 3 + [True] * 3
    by_column = compare_methods(frame.assign(fixed_test=frame.dataset == "b"))
    assert by_column.paired == by_name.paired
    assert all(c.fixed_test for c in compare_methods(frame, fixed_test=True).paired)
    assert any("Student t over repeats" in note for note in by_name.notes)
    assert any("Nadeau and Bengio" in note for note in by_name.notes)
    with pytest.raises(UserError, match="varies for a"):
        compare_methods(frame.assign(fixed_test=frame.index == 0))
    with pytest.raises(UserError, match="true or false"):
        compare_methods(frame.assign(fixed_test="False"))
    with pytest.raises(UserError, match="'c' not found"):
        compare_methods(frame, fixed_test=["c"])


def test_small_test_sets_and_worse_calibration_are_warned_of(runs):
    frame = runs(n_test=20)
    frame.loc[frame.method == "f0", "ece"] = 0.09
    warnings = compare_methods(frame).warnings
    assert warnings == (
        "Some differences are smaller than one test row, which is worth 5.00 points on wine.",
        "Calibration error is at least a point above the 5.0 points of ce: f0 9.0 (means, not tested).",
    )
    assert not any("calibration" in line for line in compare_methods(runs()).warnings)
    assert not any("one test row" in line for line in compare_methods(runs({"el": -9, "f0": 9, "gradual": 9})).warnings)


def test_missing_results(runs):
    frame = runs(sets=("a", "b"), repeats=3)
    hole = frame.drop(index=frame.index[frame.eval("dataset == 'a' and method == 'el' and repeat == 1")])
    with pytest.raises(UserError, match=r"\(a, el, repeat 1\)"):
        compare_methods(hole)
    found = compare_methods(hole, missing="drop")
    assert "(a, el, repeat 1)" in found.warnings[0]
    assert {(row.dataset, row.repeats) for row in found.rows} == {("a", 2), ("b", 3)}
    assert found.paired == compare_methods(frame.query("not (dataset == 'a' and repeat == 1)")).paired
    lost = compare_methods(frame.query("not (dataset == 'a' and method == 'el')"), missing="drop")
    assert lost.datasets == ("b",)
    assert "all of a" in lost.warnings[0]
    with pytest.raises(UserError, match="no repeat has a result"):
        compare_methods(frame.query("method != 'el' or repeat == 9").assign(repeat=lambda f: f.index), missing="drop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="n_train"), "'n_train' not found"),
        (lambda f: f.assign(n_test=0), "positive row counts"),
        (lambda f: f.assign(accuracy=100 * f.accuracy), "fraction between 0 and 1"),
        (lambda f: f[f.method == "ce"], "only one method"),
        (lambda f: f[f.method != "ce"], "control 'ce' not found"),
        (lambda f: pd.concat([f, f]), "more than one score"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(accuracy=np.nan), "finite"),
    ],
)
def test_bad_results_are_one_line(runs, change, message):
    with pytest.raises(UserError) as caught:
        compare_methods(change(runs()))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_scores_are_means_and_nothing_hides_a_hole(runs):
    frame = runs(sets=("a", "b"))
    frame["nll"] = np.arange(len(frame), dtype=float)
    frame.loc[frame.index[frame.eval("dataset == 'b' and method == 'el'")][0], "ece"] = np.nan
    found = compare_methods(frame)
    by_set = frame.groupby(["dataset", "method"])["nll"].mean()
    for row in found.rows:
        assert row.nll == pytest.approx(by_set[row.dataset, row.method])
        assert row.brier is None
        assert (row.ece is None) == (row.dataset == "b" and row.method == "el")
    assert {row.method: row.ece is None for row in found.overall}["el"]
    assert found.overall[0].nll == pytest.approx(by_set[:, "ce"].mean())


def test_everything_is_strict_json_and_frozen(runs):
    frame = runs({"el": -4}, sets=("a", "b"))
    frame.loc[0, "nll"] = np.inf
    found = compare_methods(frame)
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["verdicts"][0]["text"] == found.verdicts[0].text
    assert back["paired"][0]["differences"] == list(found.paired[0].differences)
    assert back["paired"][0]["outcome"] == found.paired[0].outcome
    assert back["rows"][0]["nll"] is None
    with pytest.raises(FrozenInstanceError):
        found.rows[0].accuracy = 1.0


def test_differences_and_intervals_for_the_figure(runs):
    many, single = compare_methods(runs(sets=("a", "b"))), compare_methods(runs())
    assert many.differences().shape == (2, 3)
    assert many.differences("b").shape == (10, 3)
    assert many.intervals("b")["el"] == next(r.interval for r in many.rows if (r.dataset, r.method) == ("b", "el"))
    assert single.differences().shape == (10, 3)
    assert single.intervals()["el"] == single.rows[-1].interval
    assert many.differences()["el"].mean() == pytest.approx(many.overall[-1].delta)


def test_no_negative_zero_and_no_p_of_zero_is_ever_said(runs):
    found = compare_methods(runs({"el": -30}, sets=[f"d{i}" for i in range(25)], repeats=4))
    for text in [*found.lines, *(v.text for v in found.verdicts)]:
        assert "−0.0 " not in text
        assert "p = 0.000" not in text
