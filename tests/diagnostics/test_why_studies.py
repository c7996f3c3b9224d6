"""The why-studies at their smallest scale, on scikit-learn's data: what they write, and how they go on after a stop."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from joblib.externals.loky.backend import context as loky_context

from crossfade.diagnostics import Recording
from crossfade.errors import UserError
from crossfade.lab.data import image_sets
from crossfade.lab.data.images import ImageSet, Part
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import Method, method
from crossfade.lab.paper import processes
from crossfade.lab.paper.processes import process_executor, report
from crossfade.lab.paper.why import dynamics, escape, figure1, study, taylor
from crossfade.lab.paper.why.escape import predicted_rise
from crossfade.lab.paper.why.measure import along_rows, sharpness_rows, slice_rows
from crossfade.lab.paper.why.simulation import pair_rows
from crossfade.lab.paper.why.watched import arrays_of, table_task, train_observed
from crossfade.lab.store import Outcome, Store
from crossfade.lab.train import Recipe
from crossfade.lab.trial import Trial

ALONE = Hardware(threads=1)
SMALL = Recipe(width=8, epochs=4, batch_size=16, learning_rates=(0.1,))


def run(name, folder, *, scale="smoke", methods=("ce", "el"), only=(), out=None):
    """Run a study with one worker, its store and its files in ``folder``; return how many trials failed."""
    planned = dynamics.plan(None, scale, methods, only) if name == "dynamics" else escape.plan(None, scale, only)
    return study.run_study(name, planned, scale, store=folder / "store.db", out=out or folder, hardware=ALONE)


def patch_study(monkeypatch, name, **functions):
    for attribute, function in functions.items():
        monkeypatch.setattr(study.STUDIES[name], attribute, function)


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


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """`run dynamics` with two methods, and its store."""
    folder = tmp_path_factory.mktemp("dynamics")
    assert run("dynamics", folder, out=folder / "out") == 0
    return folder


def test_dynamics_tables_agree_with_the_results_and_a_second_run_changes_nothing(followed, monkeypatch):
    out = followed / "out"
    table = rows_of(out / "transitions.csv")
    assert len(table) == 2 * 2 * 3
    ends = ["to wrong and hopeless", "to wrong and near", "to right"]
    with Store(followed / "store.db", "read") as store:
        results = {row.method: row.outcome.result for row in store.rows()}
    for name in ("ce", "el"):
        own = [row for row in table if row["method"] == name and row["part"] == "test"]
        assert sum(int(row[end]) for row in own for end in ends) == results[name]["n_test"]
        right = round(results[name]["accuracy"] * results[name]["n_test"])
        assert sum(int(row["to right"]) for row in own) == right
    mass = rows_of(out / "mass.csv")
    assert all(sum(float(row[f"bin{k}"]) for k in range(10)) == pytest.approx(1, abs=1e-3) for row in mass)
    assert {"transitions.svg", "mass.svg", "calibration.svg"} <= {path.name for path in out.iterdir()}
    before = (out / "transitions.csv").read_bytes()
    patch_study(
        monkeypatch,
        "dynamics",
        compute=lambda trial, folder: pytest.fail("a known trial was trained again"),
        figures=lambda tables: {},  # drawing takes longer than everything else
    )
    run("dynamics", followed, out=out)
    assert (out / "transitions.csv").read_bytes() == before
    assert "machine" in json.loads((out / "provenance.json").read_text())
    assert not (followed / "store.db.work").exists()


def test_what_is_recorded_is_what_the_network_says(tmp_path):
    """The recordings of a trial against the logits of the network that trained it."""
    trial = Trial("dynamics", table_task("iris", None), method("ce"), SMALL, 0)
    outcome = dynamics.compute(trial, tmp_path / trial.key)
    history = train_observed(trial, SMALL, tmp_path / "again")
    recording = Recording(tmp_path / trial.key / "test")
    right = [int(recording.correct(epoch).sum()) for epoch in range(4)]
    assert right == [round(value * recording.examples) for value in history.curves["test_accuracy"]]
    assert outcome.result["accuracy"] == pytest.approx(history.curves["test_accuracy"][-1])
    assert Recording(tmp_path / trial.key / "train").complete() == [0, 1, 2, 3]


def test_methods_share_weights_and_batches(tmp_path):
    seen = {}
    for name in ("ce", "gradual"):
        weights, rows = [], []
        trial = Trial("dynamics", table_task("wine", None), method(name), SMALL, 1)

        def look(done, net, weights=weights):
            if done == 0:
                weights.extend(p.detach().clone() for p in net.parameters())

        def observe(epoch, part, index, logits, labels, rows=rows):
            if part == "train" and epoch == 0:
                rows.append(index.tolist())

        train_observed(trial, SMALL, tmp_path, observe=observe, look=look)
        seen[name] = (weights, rows)
    assert all(torch.equal(a, b) for a, b in zip(seen["ce"][0], seen["gradual"][0], strict=True))
    assert seen["ce"][1] == seen["gradual"][1]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """`run escape`, and its store."""
    out = tmp_path_factory.mktemp("escape")
    assert run("escape", out) == 0
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
    with Store(measured / "store.db", "read") as store:
        minima = study.tables_of(store, store.runs()[0])["minima"]
    predicted = predicted_rise(minima, 1)
    spread_ = minima["rise1_se"] + predicted.abs() * 0.7  # 4 probes: a rough Tr(H Sigma)
    assert ((minima["rise1"] - predicted).abs() < 5 * spread_).all()


def test_a_store_serves_status_report_and_export(measured, call, tmp_path):
    store = measured / "store.db"
    status, out, _ = call("status", store)
    assert (status, "9 of 9 done" in out) == (0, True)
    assert call("report", store, "--report", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().count("<svg") >= 5
    assert call("export", tmp_path / "rows.csv", "--store", store, "--curves")[0] == 0
    tables = {row["table"] for row in rows_of(tmp_path / "rows.csv")}
    assert tables == {"along", "minima", "sharpness", "simulation", "slices"}


def test_an_escape_training_goes_on_with_the_moments_that_were_measured(tmp_path, monkeypatch):
    """A trial that stops between two moments measures the first one only once."""
    task, recipe = table_task("wine", None), escape.Along(SMALL, (0, 2, 4), 2, 50)
    trial = Trial("escape", task, method("ce"), recipe, 0)
    whole = escape.compute(trial, tmp_path / "whole")
    measured, rows = [], escape.along_rows

    def stop(*arguments):
        if len(measured) == 1:
            measured.append("stopped")
            raise RuntimeError("stopped")
        measured.append("measured")
        return rows(*arguments)

    monkeypatch.setattr(escape, "along_rows", stop)
    with pytest.raises(RuntimeError):
        escape.compute(trial, tmp_path / "folder")
    assert escape.compute(trial, tmp_path / "folder") == whole
    assert measured == ["measured", "stopped", "measured", "measured"]


def test_moments_and_falls_stay_at_their_fraction_of_a_shorter_training_on_images(monkeypatch, tmp_path):
    part = Part(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))
    monkeypatch.setattr(image_sets, "load_images", lambda *_: ImageSet("CIFAR-100", tuple("abcd"), part, part))
    for epochs, moments, scale in (
        (None, (0, 10, 30, 60, 90), "paper"),
        (9, (0, 1, 3, 6, 9), "own"),
        (2, (0, 1, 2), "own"),
    ):
        for trial in escape.plan(tmp_path, "paper", ["cifar100"], epochs, "bf16-mixed"):
            training = trial.recipe.training
            assert (trial.recipe.moments, training.scale) == (moments, scale)
            assert (training.epochs, training.precision) == (moments[-1], "bf16-mixed")
    (trial, *_) = dynamics.plan(tmp_path, "paper", ["ce"], ["cifar100"], 30)
    assert (trial.recipe.epochs, trial.recipe.milestones, trial.recipe.precision) == (30, (10, 20), "32-true")


def test_the_options_of_images_are_refused_without_images(call, tmp_path):
    for options in (["--epochs", "3"], ["--precision", "bf16-mixed", "--data-dir", tmp_path, "--sets", "wine"]):
        status, _, err = call("run", "escape", *options, "--out", tmp_path / "out")
        assert status == 2
        assert err.startswith("crossfade: --epochs and --precision are for CIFAR-100")


@pytest.mark.parametrize("name", ["dynamics", "escape"])
def test_a_training_that_diverges_says_so(name, tmp_path):
    wild = replace(SMALL, learning_rates=(1e30,), momentum=0.0)
    recipe = escape.Along(wild, (0, 4), 2, 50) if name == "escape" else wild
    trial = Trial(name, table_task("iris", None), method("ce"), recipe, 0)
    ((_, outcome),) = process_executor(study.STUDIES[name].compute, ALONE, tmp_path)([[trial]], print)
    assert outcome.error == "the weights diverge at learning rate 1e+30"


def test_several_workers_give_the_same_numbers_and_a_failure_stays_alone(fork_server, monkeypatch, tmp_path):
    monkeypatch.setattr(loky_context, "_DEFAULT_START_METHOD", fork_server.get_start_method())
    trials = [Trial("dynamics", table_task("iris", None), method(name), SMALL, 0) for name in ("ce", "el")]
    alone = {
        trial.key: outcome
        for trial, outcome in process_executor(dynamics.compute, ALONE, tmp_path / "1")([trials], print)
    }
    together = {
        trial.key: outcome
        for trial, outcome in process_executor(dynamics.compute, Hardware(threads=2), tmp_path / "2")([trials], print)
    }
    assert alone == together
    assert all(outcome.status == "done" for outcome in alone.values())

    def fails(trial, folder):
        if trial.method.name == "ce":
            raise ValueError("no")
        return Outcome({})

    found = {
        trial.method.name: outcome.error for trial, outcome in process_executor(fails, ALONE, tmp_path)([trials], print)
    }
    assert found == {"ce": "ValueError: no", "el": None}


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_done_of_unfinished_trials_is_told(threads, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_POLL", 0.01)
    trials = [Trial("dynamics", table_task("iris", None), method(name), SMALL, 0) for name in ("ce", "el")]
    half, told = 0.5 * trials[0].cost, tmp_path / "told"

    def compute(trial, folder):
        report(folder, 0.5)
        while not told.exists():
            time.sleep(0.01)
        return Outcome({})

    def tick(cost):
        if cost >= half:
            told.touch()

    found = process_executor(compute, Hardware(threads=threads), tmp_path)([trials], tick)
    assert {trial.method.name: outcome.error for trial, outcome in found} == {"ce": None, "el": None}
    assert not list(tmp_path.glob("*/progress"))


def test_pair_rows_are_consistent():
    rows = list(pair_rows())
    assert all(row["gain"] == pytest.approx(row["derived_bound"], rel=1e-9, abs=1e-12) for row in rows)
    at_half = {row["mixture"]: row["gain"] > row["printed_bound"] for row in rows if row["p"] == 0.5}
    assert at_half == {"f0": True, "f0.1": True, "f0.2": False, "f0.3": False, "f0.4": False}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_measurements_of_a_network_on_a_gpu_are_those_on_the_cpu():
    trial = Trial("escape", table_task("iris", None), method("ce"), SMALL, 0)
    torch.manual_seed(0)
    net, found = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)), {}
    for device in ("cpu", "cuda"):
        where = (net.to(device), arrays_of(trial), 64)
        found[device] = [*along_rows(*where, 4, 0), *sharpness_rows(*where), *slice_rows(*where, points=3)]
    for here, there in zip(found["cpu"], found["cuda"], strict=True):
        assert there == {key: pytest.approx(value, rel=1e-3, abs=1e-4) for key, value in here.items()}


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="scale must be"):
        run("escape", tmp_path, scale="huge")
    for name in study.STUDIES:
        with pytest.raises(
            UserError, match=rf"^--sets: 'nothing' isn't in {name} at scale smoke without --data-dir \("
        ):
            run(name, tmp_path, only=("wine", "nothing"))
    with pytest.raises(UserError, match="--data-dir"):
        table_task("yeast", None)
    with pytest.raises(UserError, match="UCI"):
        table_task("yeast", tmp_path)
    fade = Method("mine", "mine", g_of=lambda q: lambda ce: q * ce, names=("q",))
    with pytest.raises(UserError, match=r"--loss mine: expected a function g\(ce\)"):
        figure1.run(tmp_path / "new", "smoke", losses=[fade])
    assert not (tmp_path / "new").exists()


ORPHAN = """
import os, sys, time
from crossfade.lab.paper.processes import _follow_parent
if os.fork():
    sys.stdin.readline()
    os._exit(0)
_follow_parent()
print(os.getpid(), flush=True)
while True:
    time.sleep(1)
"""


def test_a_worker_ends_when_the_process_that_started_it_is_gone_and_leaves_signals_to_it():
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(worker, number)
    parent.stdin.write("end\n")
    parent.stdin.flush()
    parent.wait()
    assert parent.stdout.read() == ""  # ends with the last process that has it open: the worker
