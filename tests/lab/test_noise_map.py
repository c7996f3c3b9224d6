"""`crossfade run map`, on real sets in the published layout, and its analysis on results whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from crossfade.cli import main
from crossfade.lab import frames
from crossfade.lab.data.uci import UCI_NAMES
from crossfade.lab.paper.map_page import COLUMNS, METHODS, averages, coarse, figure, judges, places, tables, words
from crossfade.lab.paper.noise_map import STUDY
from crossfade.lab.paper.study import Request, plan
from crossfade.lab.store import Store
from tests.lab.uci_copy import write_uci

PLACES = [("uci121", "mlp", 1.0, share, "symmetric", False) for share in (0.0, 0.4)]
PLAN = Path(__file__).parents[2] / "results" / "map" / "plan.txt"


@pytest.fixture
def results():
    """Two places: without wrong labels nothing differs reliably, with them gce gains two points."""
    rng, rows = np.random.default_rng(0), []
    for place in PLACES:
        for name in UCI_NAMES[:40]:
            level = rng.uniform(0.5, 0.9)
            for method in METHODS:
                gain = 0.02 if method == "gce" and place[3] else 0.0
                for repeat in (0, 1):
                    score = level + gain + rng.normal(0, 0.01)
                    rows.append((*place, name, method, repeat, score))
    return pd.DataFrame(rows, columns=[*COLUMNS, "dataset", "method", "repeat", "accuracy"])


def test_sets_were_divided_before_anything_was_run():
    text = PLAN.read_text()
    for which, title in ((False, "Sets that choose: "), (True, "Sets that judge: ")):
        (line,) = [line for line in text.splitlines() if title in line]
        assert line.split(title)[1].rstrip(".").split(", ") == [name for name in UCI_NAMES if judges(name) == which]


def test_a_method_is_chosen_on_one_half_and_judged_on_the_other(results):
    clean, noisy = places(results)
    assert noisy.first.method == noisy.second.method == "gce"
    assert (noisy.first.sure, noisy.second.sure, clean.second.sure) == (True, True, False)
    own = results[results["noise"] == 0.4].groupby(["dataset", "method"])["accuracy"].mean().unstack() * 100
    judged = own[[judges(name) for name in own.index]]
    assert list(noisy.judged.index) == list(judged.index)
    gaps = judged["gce"] - judged["ce"]
    assert noisy.first.test.mean == pytest.approx(gaps.mean())
    low, high = scipy_stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), scipy_stats.sem(gaps))
    assert (noisy.first.test.interval.low, noisy.first.test.interval.high) == pytest.approx((low, high))
    one = [scipy_stats.wilcoxon(p.judged[p.first.method] - p.judged["ce"]).pvalue for p in (clean, noisy)]
    assert [clean.first.p, noisy.first.p] == pytest.approx(scipy_stats.false_discovery_control(one))
    # What the judging sets prefer doesn't count: gce is chosen by the others.
    turned = results.copy()
    turned.loc[turned["dataset"].map(judges) & (turned["method"] == "gce"), "accuracy"] = 0
    assert places(turned)[1].first.method == "gce"
    assert not places(turned)[1].first.sure


def test_a_set_with_a_hole_is_left_out_of_its_place(results):
    name = next(name for name in UCI_NAMES if judges(name))
    hole = (results["dataset"] == name) & (results["noise"] == 0.4) & (results["method"] == "tgce")
    for missing in (hole & (results["repeat"] == 1), hole):
        clean, noisy = places(results[~missing])
        assert (clean.left_out, noisy.left_out) == (0, 1)
        assert name not in noisy.scores.index
        assert f"| {len(noisy.judged)} (−1) |" in tables([clean, noisy])


@pytest.mark.parametrize("names", [METHODS, ("ce", "ce-cosine", "gce")])
def test_words_tables_and_figure(results, names):
    found = places(results[results["method"].isin(names)])
    said = words(found)
    assert "**One hidden layer, 40 % wrong labels.** The chosen method is reliably better than CE in 1 of 1" in said
    assert "(gce 1)" in said
    assert tables(found).count("\n| ") == 1 + len(found)
    own = found[1].judged
    gain = (own["gce"] - own["ce"]).mean()
    assert "| One hidden layer | 40 % | 1 | " in averages(found)
    assert f"**+{gain:.2f} ± " in averages(found)
    (axes,) = figure(found).axes
    assert len(axes.texts) == len(found) * (len(names) - 1)
    assert len(axes.patches) == len(found)


def test_single_data_sets_are_compared_over_seeds():
    rows = [
        ("reviews", "arch3", 1.0, 0.2, "symmetric", False, method, repeat, accuracy)
        for method, scores in {"ce": (0.5, 0.6), "gce": (0.53, 0.65)}.items()
        for repeat, accuracy in enumerate(scores)
    ]
    (table,) = coarse(pd.DataFrame(rows, columns=[*COLUMNS, "method", "repeat", "accuracy"]))
    assert "| 20 % symmetric | 2 | 55.0 | +4.00 ± 12.71 |" in table  # t(0.975, 1) = 12.706, standard error 1


def test_the_command_runs_goes_on_and_writes_its_page(tmp_path, capsys):
    data, store, page = write_uci(tmp_path / "data", 60), tmp_path / "map.db", tmp_path / "map.md"
    command = ["run", "map", "--data-dir", str(data), "--store", str(store), "--report", str(page), "-q"]
    command += ["--epochs", "2", "--nets", "linear", "--sizes", "1", "--methods", "gce,gce-rising", "--repeats", "1"]
    for noise in ("0", "0,0.2"):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--noise", noise])
        assert ended.value.code == 0
    text = page.read_text()
    assert "3 data sets, 1 seed; 0 trials failed" in text
    with Store(store, "read") as opened:
        found = frames.results(opened)
        assert len(found) == 3 * 3 * (1 + 4)
        places_of = {json.dumps(run.request["meta"]["place"], sort_keys=True) for run in opened.runs()}
    assert len(places_of) == 5
    with pytest.raises(SystemExit):
        main(["report", str(store), "--report", str(tmp_path / "again.md"), "-q"])
    assert "3 data sets" in (tmp_path / "again.md").read_text()
    capsys.readouterr()


def test_cells_of_the_whole_map(tmp_path):
    data = write_uci(tmp_path, 60)
    planned = plan(STUDY, Request(data), "crossfade run map")
    assert len(planned.runs) == 2 * 3 * (1 + 3 * 2 * 2)
    assert len(planned.trials) == len(planned.runs) * 3 * len(METHODS) * 2
    assert len({trial.key for trial in planned.trials}) == len(planned.trials)
    small = plan(replace(STUDY, max_rows=59, noise=(0.4,)), Request(data), "", to_run=False)
    assert not small.trials
