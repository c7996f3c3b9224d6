"""`comparison_page`: the numbers are the numbers, nothing is dropped in silence, and the file keeps its promises."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from crossfade.errors import UserError
from crossfade.report import comparison_page, render_comparison
from crossfade.stats import compare_methods
from tests.report.report_cases import make
from tests.report.report_fresh import Fresh
from tests.report.report_markup import Page

MEGABYTE = 1_000_000


def rows(html: str, caption: str) -> dict[str, list[str]]:
    """Cells of each row of the table whose caption begins so, by the row's heading."""
    body = next(part for part in html.split("<caption><span>")[1:] if part.startswith(caption)).split("</table>")[0]
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", body.split("<tbody>")[1], re.DOTALL):
        cells = [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        found[cells[0]] = cells[1:]
    return found


def section(html: str, title: str) -> str:
    """Words below a heading, or in the fold of that name."""
    after = re.split(rf">{title}</(?:h2|summary)>", html)[1]
    part = re.split("</section>|</details>", after)[0]
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


@pytest.mark.parametrize(("datasets", "methods", "repeats"), [(1, 2, 1), (1, 6, 10), (2, 3, 2), (4, 6, 5), (5, 13, 3)])
def test_pages_of_every_shape_are_valid(datasets: int, methods: int, repeats: int) -> None:
    html = comparison_page(*make(datasets, methods, repeats, epochs=12))
    page = Page(html)
    assert page.problems == []
    assert len(html.encode()) < MEGABYTE
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).lower().replace("finance", "")


def test_the_largest_page_stays_under_a_megabyte() -> None:
    html = comparison_page(*make(20, 12, 10, epochs=50))
    assert Page(html).problems == []
    assert len(html.encode()) < MEGABYTE
    assert html.count("<details") >= 20


def test_many_epochs_are_drawn_coarser_instead_of_a_larger_page() -> None:
    html = comparison_page(*make(20, 6, 1, epochs=300))
    assert len(html.encode()) < MEGABYTE
    assert Page(html).problems == []


def test_very_many_data_sets_get_tables_alone_and_the_page_says_so() -> None:
    html = comparison_page(*make(73, 5, 1, epochs=2))
    assert len(html.encode()) < MEGABYTE
    assert Page(html).problems == []
    assert "365 pairs of data set and method are too many to draw one by one" in html
    assert len(rows(html, "Test accuracy by data set")) == 73
    assert len(rows(html, "Results on data72")) == 5


def test_the_tables_show_the_means_that_pandas_computes() -> None:
    results, curves, meta = make(3, 4, 5, epochs=6)
    html = comparison_page(results, curves, meta)
    cells = results.groupby(["dataset", "method"])["accuracy"].mean().unstack()
    for dataset, shown in rows(html, "Test accuracy by data set").items():
        assert [float(cell.rstrip("*")) for cell in shown] == [
            pytest.approx(100 * cells.loc[dataset, name], abs=0.00501) for name in ("ce", "f0", "f0-late", "gradual")
        ]
        assert [cell.endswith("*") for cell in shown] == [
            value == pytest.approx(cells.loc[dataset].max())
            for value in cells.loc[dataset, ["ce", "f0", "f0-late", "gradual"]]
        ]
    overall = rows(html, "Results, mean over 3")
    for name in ("ce", "gradual"):
        own = results[results["method"] == name].groupby("dataset")[["accuracy", "nll", "ece"]].mean().mean()
        base = results[results["method"] == "ce"].groupby("dataset")[["accuracy", "nll", "ece"]].mean().mean()
        assert float(overall[name][2]) == pytest.approx(100 * own["accuracy"], abs=0.00501)
        assert float(overall[name][-2]) == pytest.approx(own["nll"], abs=0.000501)
        assert float(overall[name][-1]) == pytest.approx(100 * own["ece"], abs=0.00501)
        if name != "ce":
            shown = float(overall[name][0].split()[0].replace("−", "-"))
            assert shown == pytest.approx(100 * (own["accuracy"] - base["accuracy"]), abs=0.00501)


def test_wins_ties_and_losses_against_the_control() -> None:
    results, curves, meta = make(1, ["ce", "el"], 4, epochs=3)
    results["accuracy"] = [0.5, 0.6, 0.5, 0.6, 0.5, 0.5, 0.5, 0.4]  # repeat by repeat: ce, el
    html = comparison_page(results, curves, meta)
    el = rows(html, "Results on data0")["el"]
    assert el[0].startswith("+2.50")
    assert el[3] == "2 / 1 / 1"


def test_a_clear_gain_is_called_reliable_and_noise_is_not() -> None:
    results, curves, meta = make(1, ["ce", "el", "f0"], 10, epochs=3)
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.01, 10)
    results["n_train"], results["n_test"] = 4000, 1000
    results.loc[results["method"] == "ce", "accuracy"] = base
    results.loc[results["method"] == "el", "accuracy"] = base + 0.05 + rng.normal(0, 0.002, 10)
    results.loc[results["method"] == "f0", "accuracy"] = base + rng.normal(0, 0.01, 10)
    html = comparison_page(results, curves, meta)
    verdict = section(html, "Verdict")
    assert "Reliably higher accuracy than ce: el." in verdict
    assert "No reliable difference from ce in accuracy: f0." in verdict
    assert re.search(r'<td class="left good">reliable gain', html)
    assert rows(html, "Results on data0")["f0"][1].startswith("no reliable difference")


def test_one_repeat_concludes_nothing() -> None:
    html = comparison_page(*make(1, 2, 1, epochs=3))
    assert "One repeat carries no interval, so nothing follows" in section(html, "Verdict")
    assert "no interval" in rows(html, "Results on data0")["f0"][0]


def test_the_order_of_rows_and_the_hash_seed_change_nothing(fresh: Fresh) -> None:
    results, curves, meta = make(3, 4, 3, epochs=8)
    plain = comparison_page(results, curves, meta)
    shuffled = results.sample(frac=1, random_state=1), curves.sample(frac=1, random_state=2)
    assert comparison_page(*shuffled, meta) == plain
    assert fresh.page == plain


def test_an_analysis_made_before_gives_the_same_page() -> None:
    results, curves, meta = make(2, 3, 3, epochs=4)
    results = results.drop(index=4)
    comparison = compare_methods(results, missing="drop")
    assert comparison.left_out
    assert render_comparison(comparison, results, curves, meta) == comparison_page(results, curves, meta)


def test_inputs_are_left_as_they_were() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    before = results.copy(), curves.copy(), repr(meta)
    comparison_page(results, curves, meta)
    pd.testing.assert_frame_equal(results, before[0])
    pd.testing.assert_frame_equal(curves, before[1])
    assert repr(meta) == before[2]


HOSTILE = "<script>alert(\"x\")</script> & 'quoted' 数据 " + "long " * 40


def test_hostile_names_are_text_everywhere() -> None:
    results, curves, meta = make([HOSTILE, "b<!--"], ["ce", "</svg><img src=x onerror=y>"], 2, epochs=3)
    meta |= {"title": HOSTILE, "command": HOSTILE, "device": HOSTILE, "commit": HOSTILE, "missing": [HOSTILE]}
    meta["recipe"][HOSTILE] = HOSTILE
    meta["versions"][HOSTILE] = HOSTILE
    meta["datasets"][0] |= {"source": HOSTILE, "sha256": HOSTILE}
    meta["methods"][1] |= {"g": HOSTILE, "note": HOSTILE, "schedule": None}
    page = Page(comparison_page(results, curves, meta))
    assert page.problems == []
    assert not page.all("img")
    assert page.texts["h1"] == [HOSTILE]
    assert any(HOSTILE.strip() in text for text in page.texts["summary"])


def test_missing_results_leave_their_pair_out_and_are_named() -> None:
    results, curves, meta = make(2, 3, 3, epochs=4)
    results.loc[(results.dataset == "data0") & (results.method == "f0") & (results.repeat == 1), "accuracy"] = np.nan
    gone = (results.dataset == "data1") & (results.method == "ce") & (results.repeat == 2)
    results, curves = results[~gone], curves
    html = comparison_page(results, curves, meta)
    said = section(html, "What was not run")
    assert "data0 · f0 · repeat 1: the accuracy is not a finite number" in said
    assert "data1 · ce · repeat 2: no result" in said
    for pair in ("data0 · repeat 1", "data1 · repeat 2"):
        assert f"{pair}: left out for every method" in said
    assert "Not everything ran" in section(html, "Verdict")
    kept = results[(results.dataset == "data0") & (results.repeat != 1)]
    expected = 100 * kept[kept.method == "ce"].accuracy.mean()
    assert float(rows(html, "Test accuracy by data set")["data0"][0].rstrip("*")) == pytest.approx(
        expected, abs=0.00501
    )
    assert "Nothing is missing" not in html


def test_a_method_and_a_data_set_without_results_are_named_and_the_rest_is_compared() -> None:
    results, curves, meta = make(3, 3, 2, epochs=4)
    results = results[(results.method != "f0") & (results.dataset != "data2")]
    html = comparison_page(results, curves, meta)
    said = section(html, "What was not run")
    assert "f0: no result at all; the method is left out of every table" in said
    assert "data2: no result at all" in said
    assert set(rows(html, "Results, mean over 2")) == {"ce", "f0-late"}
    assert rows(html, "Data")["data2"][-2] == "0"


def test_what_the_run_reports_as_missing_is_said_once() -> None:
    results, curves, meta = make(1, 3, 3, epochs=4)
    meta["missing"] = ["data0 · f0 · repeat 1: the weights diverge"]
    results = results[~((results.method == "f0") & (results.repeat == 1))]
    said = section(comparison_page(results, curves, meta), "What was not run")
    assert said.count("data0 · f0 · repeat 1") == 1
    assert "the weights diverge" in said


def test_fewer_repeats_than_planned_are_said() -> None:
    results, curves, meta = make(1, 2, 3, epochs=4)
    said = section(comparison_page(results, curves, meta | {"repeats": 10}), "What was not run")
    assert "data0: results of 3 of 10 repeats" in said


def test_the_judged_score_is_named() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    comparison = compare_methods(results.assign(f1=results["accuracy"] / 2), metric="f1")
    html = render_comparison(comparison, results, curves, meta)
    best = max(row.score for row in comparison.rows if row.dataset == "data0")
    assert f"{100 * best:.2f}*" in rows(html, "Test macro-F1 by data set")["data0"]
    assert "had the best validation macro-F1;" in html


def test_data_sets_may_be_numbers_and_repeats_names() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    numbered = results.assign(
        dataset=results["dataset"].str[-1].astype(int), repeat="s" + results["repeat"].astype(str)
    )
    comparison = compare_methods(numbered)
    assert len(comparison.counted(numbered)) == len(results)
    html = render_comparison(comparison, numbered, curves.iloc[:0], meta | {"datasets": ()})
    assert set(rows(html, "Test accuracy by data set")) == {"0", "1"}


def test_two_data_sets_that_agree_are_no_proof() -> None:
    results, curves, meta = make(2, 3, 1, epochs=4)
    results["accuracy"] = [0.5, 0.6, 0.7] * 2
    said = section(comparison_page(results, curves, meta), "The verdict in full, and how to read it")
    assert "rank alike over 2 data sets: they agree on one order, chi² = 4.00, p = 0.135." in said


def test_a_hash_that_is_not_known_is_not_shown() -> None:
    results, curves, meta = make(2, 3, 1, epochs=4)
    html = comparison_page(results, curves, meta | {"datasets": [{"name": "data0"}, {"name": "data1"}]})
    assert "None" not in html


def test_a_complete_run_says_so() -> None:
    html = comparison_page(*make(2, 3, 2, epochs=4))
    assert "all 12 trials finished" in section(html, "What was run, and how to run it again")
    assert "Not everything ran" not in html


def test_missing_calibration_is_shown_as_missing() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    results.loc[results["method"] == "f0", "nll"] = np.nan
    html = comparison_page(results.drop(columns="ece"), curves, meta)
    assert rows(html, "Results, mean over 2")["f0"][-2:] == ["—", "—"]


def test_learning_rates_are_counted() -> None:
    results, curves, meta = make(1, ["ce", "el"], 5, epochs=4)
    results["learning_rate"] = [0.01, 0.01] * 4 + [0.001, 0.01]
    results["epoch"] = [1, 2, 1, 2, 1, 2, 1, 2, 4, 2]
    html = comparison_page(results, curves, meta)
    found = rows(html, "Learning rates chosen")
    assert found["ce"][:3] == ["4", "0", "1"]
    assert found["el"] == ["5", "0", "0", "2 2 to 2"]


def test_curves_are_optional_and_may_diverge() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    html = comparison_page(results, curves.iloc[:0], meta)
    assert "Training curves" not in html
    assert Page(html).problems == []
    curves.loc[curves["method"] == "f0", ["test_nll", "val_nll"]] = np.nan
    curves.loc[curves["method"] == "f0-late", "test_nll"] = [10.0**k for k in range(16)]
    html = comparison_page(results, curves, meta)
    assert "Test NLL (nats), log scale" in html
    assert Page(html).problems == []


def test_a_heading_names_the_scale_that_is_drawn() -> None:
    results, curves, meta = make(1, 2, 2, epochs=50)
    curves.loc[curves["epoch"] <= 2, "test_nll"] = 500.0  # in the beginning, which the axis leaves out
    assert "log scale" not in comparison_page(results, curves, meta)


def test_the_methods_formulas_and_schedules_are_told() -> None:
    html = comparison_page(*make(1, 6, 2, epochs=4))
    losses = rows(html, "The losses that were compared")
    assert "(α, β) = (1, 0) throughout" in losses["ce"][0]
    assert "from 95 % of the training on (α, β) = (0, 1)" in losses["f0-late"][0]
    assert "6 phases, from (α, β) = (1, 1) to (α, β) = (0, 1)" in losses["gradual"][0]
    assert "times α + β p" in html


def test_provenance_is_complete() -> None:
    results, curves, meta = make(2, 3, 2, epochs=4)
    html = comparison_page(results, curves, meta | {"notes": ["3 rows without a label were left out"]})
    run = section(html, "What was run, and how to run it again")
    for words in (
        "scikit-learn load_iris",
        "2.14.1",
        "0123abc",
        "cpu",
        "0.01, 0.005, 0.001",
        "as many as inputs",
        "3 rows without a label",
    ):
        assert words in run
    assert all(f"{entry['sha256']}  {entry['name']}" in html for entry in meta["datasets"])
    assert rows(html, "Data")["data0"][1:5] == ["200", "4", "3", "120 / 40 / 40"]
    assert meta["command"] in run


def test_nothing_but_results_is_needed() -> None:
    results, curves, _ = make(2, 3, 2, epochs=4)
    html = comparison_page(
        results[["dataset", "method", "repeat", "accuracy", "n_train", "n_test"]], curves.iloc[:0], {}
    )
    assert Page(html).problems == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.drop(columns="accuracy"), r"column 'accuracy' not found"),
        (lambda r: r.assign(accuracy=95.0), r"fraction between 0 and 1, got 95 at \(data0, ce, repeat 0\)"),
        (lambda r: r.assign(accuracy=-0.1), r"fraction between 0 and 1, got -0.1 at"),
        (lambda r: pd.concat([r, r.iloc[:1]]), r"data0 · ce · repeat 0 occurs more than once"),
        (lambda r: r[r["method"] != "ce"], r"control 'ce' not found among f0, f0-late"),
        (lambda r: r[r["method"] == "ce"], r"only one method"),
        (lambda r: r.assign(accuracy=np.nan), r"the results have no rows"),
        (lambda r: r[(r["method"] == "ce") == (r["repeat"] == 0)], r"nothing can be compared"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    results, curves, meta = make(1, 3, 2, epochs=4)
    with pytest.raises(UserError, match=message) as raised:
        comparison_page(change(results), curves, meta)
    assert "\n" not in str(raised.value)


def test_the_page_is_a_verdict_a_figure_and_a_table_and_the_rest_is_folded() -> None:
    for datasets in (1, 12):
        html = comparison_page(*make(datasets, 14, 3, epochs=4))
        shown = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
        assert (shown.count('<svg class="chart"'), shown.count("<table")) == (1, 1)
        assert "<details open" not in html
        head = re.findall(r'<th scope="col"[^>]*>([^<]*)', shown)
        assert head[:3] == ["Method", "Δ accuracy", "Reading"]
        assert html.count("<details>") >= datasets
        comparison = compare_methods(make(datasets, 14, 3, epochs=4)[0])
        assert section(html, "Verdict").startswith(comparison.headline)
        assert f"Next: {comparison.advice}" in section(html, "Verdict")


def test_calibration_is_one_folded_table() -> None:
    results, curves, meta = make(2, 3, 4, epochs=12)
    after = {"temperature": 1.25, "nll_calibrated": 0.5, "ece_calibrated": 0.0123, "brier_calibrated": 0.25}
    caption = "Calibration, before and after one temperature"
    new = rows(comparison_page(results.assign(**after), curves, meta), caption)
    assert list(new) == ["ce", "f0", "f0-late"]
    assert new["f0"][0] == "1.25"
    assert new["f0"][2::2] == ["0.500", "1.23", "0.250"]
    html = comparison_page(results, curves, meta)
    assert rows(html, caption)["f0"][::2] == ["—"] * 4  # a store from before
    assert "One temperature a network" not in html
