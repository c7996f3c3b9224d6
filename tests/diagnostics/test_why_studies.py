"""The studies at their smallest scale, on scikit-learn's data: what they write, and that they resume."""

import csv
import json
import subprocess
import sys
import time

import pytest
import torch
from crossfade.lab.paper.escape_figures import predicted_rise
from crossfade.lab.paper.why_tables import Table
from crossfade.lab.paper.why_training import epochs_of, tabular

from crossfade.diagnostics import Recording
from crossfade.errors import UserError
from crossfade.lab.methods import Method
from crossfade.lab.paper import dynamics, escape, escape_simulation, figure1, taylor
from crossfade.schedules import cross_entropy, gradual


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_figure1_has_the_paper_s_peaks_and_a_user_s_own_loss(tmp_path):
    own = Method("root", "sqrt(ce)", torch.sqrt)
    figure1.run(tmp_path, scale="smoke", losses=(own,))
    peaks = {row["unit"]: row for row in rows_of(tmp_path / "peaks.csv")}
    assert [float(peaks[f"paper-{f}"]["peak_p"]) for f in ("0", "0.2", "0.4", "0.5")] == [0.0, 0.2, 0.4, 0.5]
    assert [float(peaks[f"unit-{f}"]["peak_height"]) for f in ("0", "0.2", "0.5")] == [1.0, 0.64, 0.25]
    assert "root" in peaks
    curve = [row for row in rows_of(tmp_path / "curves.csv") if row["unit"] == "ce"]
    assert [float(row["gradient"]) for row in curve] == pytest.approx([1 - float(row["p"]) for row in curve])
    assert {"figure1.svg", "losses.svg", "provenance.json"} <= {path.name for path in tmp_path.iterdir()}


def test_taylor_tables(tmp_path):
    taylor.run(tmp_path, scale="smoke")
    assert [row["holds"][0] for row in rows_of(tmp_path / "claims.csv")] == list("FTFFTTTT")
    intervals = {row["interval"]: row for row in rows_of(tmp_path / "intervals.csv")}
    assert float(intervals["uncertain"]["lagrange_bound"]) == 4.5  # an upper bound, at p = 1/4
    assert (tmp_path / "taylor.svg").read_text().startswith("<?xml")


def test_dynamics_tables_agree_with_the_recordings_and_a_second_run_changes_nothing(tmp_path, monkeypatch):
    dynamics.run(tmp_path, scale="smoke", methods=("ce", "el"))
    table = rows_of(tmp_path / "transitions.csv")
    assert len(table) == 2 * 2 * 3
    ends = ["to wrong and hopeless", "to wrong and near", "to right"]
    for method in ("ce", "el"):
        recording = Recording(tmp_path / "recordings" / "smoke" / "wine" / method / "0" / "test")
        own = [row for row in table if row["method"] == method and row["part"] == "test"]
        assert sum(int(row[end]) for row in own for end in ends) == recording.examples
        assert sum(int(row["to right"]) for row in own) == recording.correct(recording.epochs - 1).sum()
    mass = rows_of(tmp_path / "mass.csv")
    assert all(sum(float(row[f"bin{k}"]) for k in range(10)) == pytest.approx(1, abs=1e-3) for row in mass)
    before = (tmp_path / "transitions.csv").read_bytes()
    assert {"transitions.svg", "mass.svg", "calibration.svg"} <= {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(dynamics, "draw", lambda out: None)  # it takes longer than everything else
    dynamics.run(tmp_path, scale="smoke", methods=("ce", "el"))
    assert (tmp_path / "transitions.csv").read_bytes() == before
    assert "machine" in json.loads((tmp_path / "provenance.json").read_text())


def test_a_training_run_stopped_between_epochs_goes_on_bit_for_bit(tmp_path):
    problem = tabular("iris", None)
    options = {"epochs": 4, "learning_rate": 0.1, "batch_size": 16, "seed": 1, "momentum": 0.9}
    *_, (_, whole) = epochs_of(problem, gradual(), **options)
    steps = epochs_of(problem, gradual(), **options, state=tmp_path / "state.pt")
    for epoch, _ in steps:
        if epoch == 2:
            break
    *_, (last, resumed) = epochs_of(problem, gradual(), **options, state=tmp_path / "state.pt")
    assert last == 4
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_methods_share_weights_and_batches():
    problem = tabular("wine", None)
    options = {"epochs": 1, "learning_rate": 0.1, "batch_size": 16, "seed": 3}
    seen = {}
    for name, schedule in {"ce": cross_entropy(), "gradual": gradual()}.items():
        rows = []
        run = epochs_of(problem, schedule, **options, on_batch=lambda e, r, q, y, rows=rows: rows.append(r.tolist()))
        first = next(run)[1]
        seen[name] = ([p.detach().clone() for p in first.parameters()], rows)
        list(run)
    assert all(torch.equal(a, b) for a, b in zip(seen["ce"][0], seen["gradual"][0], strict=True))
    assert seen["ce"][1] == seen["gradual"][1]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("escape")
    escape.run(out, scale="smoke")
    return out


def test_escape_writes_all_tables_and_figures(measured):
    names = {path.name for path in measured.iterdir()}
    assert {f"{name}.csv" for name in ("along", "minima", "pair", "simulation", "sharpness", "slices")} <= names
    assert {f"{name}.svg" for name in ("along", "pair", "simulation", "slices", "rise")} <= names


def test_escape_rows_say_what_the_definitions_say(measured):
    along = rows_of(measured / "along.csv")
    assert {row["mixture"] for row in along} >= {"ce", "f0", "f0.4", "f0.4-unit", "el"}
    for unit in {row["unit"] for row in along}:
        own = {row["mixture"]: row for row in along if row["unit"] == unit}
        product = {name: float(row["tr_h_sigma"]) for name, row in own.items()}
        assert float(own["f0"]["gain"]) == pytest.approx(product["f0"] - product["ce"], rel=1e-3, abs=1e-5)
        assert product["f0.4"] == pytest.approx(5**3 * product["f0.4-unit"], rel=1e-4)  # (1, 5) is 5 times (0.2, 1)
        assert float(own["ce"]["matched_ratio"]) == pytest.approx(1)
        margin = float(own["f0"]["gain"]) - float(own["f0"]["printed_bound"])
        assert float(own["f0"]["printed_margin"]) == pytest.approx(margin, rel=1e-3, abs=1e-5)


def test_the_first_sgd_step_from_a_minimum_rises_as_predicted(measured):
    for row in rows_of(measured / "minima.csv"):
        spread = float(row["rise1_se"]) + abs(predicted_rise(row, 1)) * 0.7  # 4 probes: a rough Tr(H Sigma)
        assert abs(float(row["rise1"]) - predicted_rise(row, 1)) < 5 * spread


def test_killed_and_run_again_the_tables_are_those_of_an_undisturbed_run(measured, tmp_path):
    """kill -9 whenever a table has grown; the rows of wine alone are those of all sets."""
    command = [sys.executable, "-m", "crossfade.cli", "run", "escape", "--scale", "smoke", "--sets", "wine"]
    tables, kills = ("along", "minima", "sharpness", "slices"), 0

    def sizes():
        return [path.stat().st_size for path in tmp_path.glob("*.csv")]

    while kills < 3:
        before = sizes()
        process = subprocess.Popen([*command, "--out", str(tmp_path)], stderr=subprocess.DEVNULL)
        while sizes() == before and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it was over before it could be killed so often"
        process.kill()
        process.wait()
        kills += 1
    subprocess.run([*command, "--out", str(tmp_path)], check=True, capture_output=True, timeout=300)
    for name in tables:
        mine = rows_of(tmp_path / f"{name}.csv")
        units = {row["unit"] for row in mine}
        assert mine == [row for row in rows_of(measured / f"{name}.csv") if row["unit"] in units]
        assert all("wine" in unit for unit in units)


def test_an_interrupted_study_goes_on(measured, monkeypatch):
    (measured / "minima.csv").unlink()
    monkeypatch.setattr(escape.escape_figures, "draw", lambda out: None)
    kept = {path.name: path.read_bytes() for path in measured.glob("*.csv")}

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(escape, "minimum_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            escape.run(measured, scale="smoke")
    escape.run(measured, scale="smoke")
    assert len(rows_of(measured / "minima.csv")) == 12
    assert all((measured / name).read_bytes() == content for name, content in kept.items())


def test_pair_rows_are_consistent():
    rows = list(escape_simulation.pair_rows())
    assert all(row["gain"] == pytest.approx(row["derived_bound"], rel=1e-9, abs=1e-12) for row in rows)
    at_half = {row["mixture"]: row["gain"] > row["printed_bound"] for row in rows if row["p"] == 0.5}
    assert at_half == {"f0": True, "f0.1": True, "f0.2": False, "f0.3": False, "f0.4": False}


def test_a_table_is_whole_after_every_unit(tmp_path):
    table = Table(tmp_path / "t.csv")
    table.add("a", [{"x": 1.0}])
    table.add("b", [{"x": 2.0, "y": "later column"}])
    again = Table(tmp_path / "t.csv")
    assert "a" in again
    assert "c" not in again
    assert [row["x"] for row in again.rows] == ["1", "2"]
    assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="scale must be"):
        escape.run(tmp_path, scale="huge")
    with pytest.raises(UserError, match="--data-dir"):
        tabular("yeast", None)
    with pytest.raises(UserError, match="UCI"):
        tabular("yeast", tmp_path)
