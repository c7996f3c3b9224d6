import os
import random
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss

import crossfade
from crossfade.errors import UserError
from crossfade.lab import frames
from crossfade.lab import run as lab_run
from crossfade.lab.data.table import TableTask, load_builtin
from crossfade.lab.hardware import Hardware, process_rank
from crossfade.lab.methods import Method, method
from crossfade.lab.provenance import describe_run, versions
from crossfade.lab.result import ComparisonResult
from crossfade.lab.run import _log, duration, pack, run, run_request
from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.store import Run, Store
from crossfade.lab.train import Member, Recipe, train_stack
from crossfade.lab.train.tables.run import compute, executor, tied
from crossfade.lab.trial import Shape, Trial, seed
from tests.examples import examples

RECIPE = Recipe(epochs=3, learning_rates=(0.01, 0.001))
NAMES = ("ce", "gradual", "el")


@pytest.fixture(scope="module")
def tasks():
    return [TableTask(load_builtin(name)) for name in ("iris", "wine")]


@pytest.fixture(scope="module")
def trials(tasks):
    return [Trial("t", task, method(name), RECIPE, repeat) for task in tasks for repeat in range(2) for name in NAMES]


@pytest.fixture(scope="module")
def undisturbed(trials):
    return numbers(trials)


def numbers(trials, execute=None, store=":memory:"):
    """Everything that may not change: all columns but the time it took."""
    with Store(store) as opened:
        summary = run(trials, opened, execute=execute)
        assert summary.failed == 0
        results = frames.results(opened).drop(columns=["seconds", "engine"]).set_index("key").sort_index()
        curves = frames.curves(opened)
    return results, curves.sort_values(["dataset", "method", "repeat", "epoch"], ignore_index=True)


def same(left, right):
    assert left[0].equals(right[0])
    assert left[1].equals(right[1])


def test_a_result_does_not_depend_on_which_other_methods_ran(trials, undisturbed):
    for name in NAMES:
        alone = numbers([trial for trial in trials if trial.method.name == name])
        assert alone[0].equals(undisturbed[0].loc[alone[0].index])


def test_results_do_not_depend_on_workers_batches_or_order(trials, undisturbed):
    same(numbers(trials, executor(Hardware(threads=1))), undisturbed)
    same(numbers(trials, executor(Hardware(threads=3))), undisturbed)
    shuffled = list(trials)
    random.Random(0).shuffle(shuffled)
    same(numbers(shuffled), undisturbed)

    def one_by_one(batches, tick):
        for batch in batches:
            for trial in batch:
                yield trial, compute([trial])[0]

    same(numbers(trials, one_by_one), undisturbed)


def test_a_result_is_what_the_engine_says_at_the_selected_learning_rate_and_epoch(trials, undisturbed):
    trial = trials[1]
    split = trial.task.split(trial.repeat)
    histories = train_stack([Member(split, trial.method, rate, seed(trial, "train")) for rate in (0.01, 0.001)], RECIPE)
    best = max(range(2), key=lambda k: (histories[k].curves["val_accuracy"].max(), -k))
    epoch = int(histories[best].curves["val_accuracy"].argmax())
    rates = (0.01, 0.001)
    assert tied(dict(zip(rates, histories, strict=True)), RECIPE)[0] == (rates[best], epoch)
    row = undisturbed[0].loc[trial.key]
    probabilities = histories[best].probabilities
    assert row["learning_rate"] == rates[best]
    assert row["epoch"] == epoch + 1
    assert row["accuracy"] == np.mean(probabilities.argmax(1) == split.y_test)
    picked = probabilities[np.arange(len(split.y_test)), split.y_test].astype(np.float64)
    assert row["nll"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert row["brier"] == pytest.approx(brier_score_loss(split.y_test, probabilities, scale_by_half=False), rel=1e-5)
    curve = undisturbed[1].query("dataset == 'iris' and method == 'gradual' and repeat == 0")
    assert list(curve["epoch"]) == [1, 2, 3]
    np.testing.assert_allclose(curve["test_nll"], histories[best].curves["test_nll"], rtol=1e-6)


def test_the_temperature_is_that_of_the_kept_weights(trials, undisturbed):
    """The network by hand in float64, and SciPy's search for the temperature."""
    best = {}
    for trial in (trials[0], trials[1]):
        split, row = trial.task.split(trial.repeat), undisturbed[0].loc[trial.key]
        (history,) = train_stack([Member(split, trial.method, row["learning_rate"], seed(trial, "train"))], RECIPE)
        *hidden, weight, bias = (array.astype(np.float64) for array in history.weights.values())

        def logits(x, hidden=hidden, weight=weight, bias=bias):
            values = x.astype(np.float64)
            for w, b in zip(hidden[::2], hidden[1::2], strict=True):
                values = np.maximum(values @ w.T + b, 0)
            return values @ weight.T + bias

        def nll(z, y, temperature):
            return -log_softmax(z / temperature, axis=1)[np.arange(len(y)), y].mean()

        val, test = logits(split.x_val), logits(split.x_test)
        found = minimize_scalar(lambda t, val=val, y=split.y_val: nll(val, y, t), bounds=(0.01, 20), method="bounded")
        assert row["temperature_bounded"] == 0
        assert row["temperature"] == pytest.approx(found.x, rel=1e-3)
        assert row["nll_calibrated"] == pytest.approx(nll(test, split.y_test, row["temperature"]), rel=1e-5)
        p = softmax(test / row["temperature"], axis=1)
        assert row["brier_calibrated"] == pytest.approx(
            brier_score_loss(split.y_test, p, scale_by_half=False), rel=1e-5
        )
        bins = np.ceil(p.max(1) * 15)
        gaps = [(p.max(1) - (p.argmax(1) == split.y_test))[bins == k].sum() for k in range(16)]
        assert row["ece_calibrated"] == pytest.approx(np.abs(gaps).sum() / len(p), rel=1e-5)
        best[trial.method.name] = row["temperature"]
    assert len(set(best.values())) == 2
    assert not any(name.endswith("_kept") for name in undisturbed[0])  # the stored scores are this network's


def test_where_results_are_means_the_kept_networks_own_scores_stand_beside_them(trials):
    trial = replace(trials[0], recipe=replace(RECIPE, tie="expected"))
    found = compute([trial])[0].result
    split = trial.task.split(trial.repeat)
    (history,) = train_stack([Member(split, trial.method, found["learning_rate"], seed(trial, "train"))], trial.recipe)
    assert found["nll_kept"] == pytest.approx(history.curves["test_nll"][history.chosen], rel=1e-6)
    assert found["ece_kept"] == pytest.approx(expected_calibration_error(history.probabilities, split.y_test), rel=1e-6)
    assert found["temperature"] > 0


def test_only_what_is_missing_is_run(trials, tmp_path):
    seen = []

    def counting(batches, tick):
        for batch in batches:
            seen.extend(trial.key for trial in batch)
            yield from zip(batch, compute(batch), strict=True)

    with Store(tmp_path / "s.db") as store:
        run(trials[:5], store, execute=counting)
        first = len(seen)
        summary = run([*trials, *trials], store, execute=counting)
    assert first == 5
    assert sorted(seen) == sorted(trial.key for trial in trials)
    assert (summary.done, summary.failed, summary.known) == (len(trials) - 5, 0, 5)


def test_a_loss_that_raises_fails_alone_and_is_retried_on_request(trials, undisturbed):
    broken = True

    def shaky(ce):
        if broken:
            raise RuntimeError("no such\nfunction")
        return ce

    own = [replace(trial, method=Method("shaky", "shaky", g=shaky)) for trial in trials[::3]]
    with Store(":memory:") as store:
        summary = run([*trials, *own], store)
        assert (summary.done, summary.failed) == (len(trials), len(own))
        kept = frames.results(store, [trial.key for trial in trials]).set_index("key")
        assert kept["accuracy"].to_dict() == undisturbed[0]["accuracy"].to_dict()
        failures = frames.failures(store)
        assert {name for _, name, _, _ in failures} == {"shaky"}
        assert all("RuntimeError: no such function" in error for *_, error in failures)
        assert run([*trials, *own], store).failed == len(own)  # known as failed: not run again
        keys = [trial.key for trial in own]
        broken = False
        assert run(own, store, retry_failed=True).failed == 0
        assert set(store.statuses(keys).values()) == {"done"}


def test_divergence_is_a_failed_trial_not_an_exception(tasks):
    wild = Recipe(epochs=2, learning_rates=(1e30,))
    mixed = Recipe(epochs=2, learning_rates=(1e30, 0.01))
    with Store(":memory:") as store:
        assert run([Trial("t", tasks[1], method("ce"), wild, 0)], store).failed == 1
        assert "diverge" in frames.failures(store)[0][3]
        assert run([Trial("t", tasks[1], method("ce"), mixed, 0)], store).done == 1
        assert frames.results(store)["learning_rate"].tolist() == [0.01]


def test_data_that_cannot_be_used_fails_alone(tasks, trials):
    class Broken(TableTask):
        def split(self, repeat):
            raise UserError("a column overflows")

    broken = Broken(replace(load_builtin("iris"), name="broken"))
    with Store(":memory:") as store:
        summary = run([trials[0], Trial("t", broken, method("ce"), RECIPE, 0)], store)
        assert (summary.done, summary.failed) == (1, 1)
        assert frames.failures(store) == [("broken", "ce", 0, "a column overflows")]


def test_a_request_that_is_stopped_says_how_to_go_on(trials, tmp_path, monkeypatch):
    asked = Run("t", {}, tuple(trial.key for trial in trials[:3]))
    assert run_request([asked], trials[:2], tmp_path / "s.db", progress=False).done == 2

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("crossfade.lab.run.run", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"stopped; 2 of 3 trials are in .*s\.db\. Run the same command again"):
        run_request([asked], trials[:3], tmp_path / "s.db", progress=False)
    with Store(tmp_path / "s.db", mode="read") as store:
        assert store.runs() == [asked]


def test_the_version_is_that_of_the_code_that_runs(monkeypatch):
    monkeypatch.setattr(crossfade, "__version__", "9.9")
    assert versions()["crossfade"] == "9.9"


def test_a_rank_that_is_empty_is_none(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    assert process_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert process_rank() == 3


def test_the_time_left_is_that_of_the_work_done_now_and_not_of_what_a_checkpoint_held(monkeypatch, capsys):
    moments = iter([0.0, 100.0, 200.0, 300.0, 400.0])
    monkeypatch.setattr("crossfade.lab.run.time", SimpleNamespace(monotonic=lambda: next(moments)))
    update = _log("Training")
    for fraction in (0.0, 0.5, 0.51, 0.6):
        update(fraction, 0, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [f"Training: {percent} % · 0 trials" for percent in (0, 50, 51)]
    assert lines[3:] == ["Training: 60 % · 0 trials · about 13 minutes left"]  # 200 s for 0.1, and 0.4 to go


def test_progress_only_grows_and_ends_at_one(trials):
    seen = []
    with Store(":memory:") as store:
        run(trials, store, on_progress=lambda fraction, done, failed: seen.append((fraction, done)))
    assert all(a[0] <= b[0] + 1e-9 and a[1] <= b[1] for a, b in pairwise(seen))
    assert seen[-1] == (pytest.approx(1.0), len(trials))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 seconds"), (1.2, "1 second"), (119.0, "119 seconds"), (7_200.0, "2 hours")]
)
def test_a_time_is_said_in_words(seconds, words):
    assert duration(seconds) == words


@given(st.floats(1, 1e12), st.integers(1, 4))
@examples(30)
def test_batches_hold_every_trial_once_and_keep_methods_together(budget, repeats):
    tasks = [_Sized("a", 10), _Sized("b", 10_000)]
    recipes = (Recipe(), Recipe(net="linear"))
    trials = [
        Trial("t", task, method(name), recipe, repeat)
        for recipe in recipes
        for task in tasks
        for repeat in range(repeats)
        for name in NAMES
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lab_run, "BATCH", budget)
        batches = pack(trials)
    assert [trial for batch in batches for trial in batch] == trials
    for batch in batches:
        assert len({trial.recipe for trial in batch}) == 1
        groups = {(id(trial.task), trial.repeat) for trial in batch}
        assert len(batch) == len(NAMES) * len(groups)
        assert len(groups) == 1 or sum(trial.cost for trial in batch) <= budget


class _Sized:
    def __init__(self, name, rows):
        self.name, self.content, self.shape = name, {}, Shape(rows, 5, 3)


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 2**32 - 1))
@examples(50)
def test_scores_against_other_implementations(rows, classes, state):
    draw = np.random.default_rng(state)
    probabilities = draw.dirichlet(np.full(classes, 0.3), rows).astype(np.float32)
    labels = draw.integers(0, classes, rows)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].astype(np.float64).mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-9)
    onehot = np.eye(classes)[labels]
    assert brier_score(probabilities, labels) == pytest.approx(((probabilities - onehot) ** 2).sum(1).mean(), abs=1e-6)


def test_calibration_error_against_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.classification")
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(4), 500).astype(np.float32)
    labels = draw.integers(0, 4, 500)
    metric = metrics.MulticlassCalibrationError(4, n_bins=15, norm="l1")
    expected = metric(torch.from_numpy(probabilities), torch.from_numpy(labels)).item()
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_the_number_of_workers_is_that_of_the_cores_one_may_use(tasks, monkeypatch):
    asked = []

    def fake(members, recipe, **options):
        asked.append(options["threads"])
        return train_stack(members, recipe)

    monkeypatch.setattr("crossfade.lab.train.tables.run.train_stack", fake)
    trial = Trial("t", tasks[0], method("ce"), RECIPE, 0)
    with Store(":memory:") as store:
        run([trial], store)
    with Store(":memory:") as store:
        run([trial], store, execute=executor(Hardware(threads=3)))
    assert asked == [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), 3]


def test_results_of_several_machines_name_each_of_them(trials, tmp_path):
    meta = describe_run("t", trials, "crossfade compare")
    asked = Run("compare", {"meta": meta, "settings": {}}, tuple(trial.key for trial in trials))
    with Store(tmp_path / "s.db") as store:
        for at, trial in enumerate(trials):
            machine = {"machine": f"m{at % 2}", "versions": {"torch": "2.11"}, "commit": None if at % 2 else "abc"}
            store.put(trial, compute([trial])[0], machine)
        half = len(trials) // 2
        assert frames.origins(store) == [
            f"{half} trials on m0, torch 2.11, commit abc",
            f"{half} trials on m1, torch 2.11",
        ]
        assert frames.origins(store, [trial.key for trial in trials[::2]]) == []
        assert ComparisonResult.load(store, asked).meta["notes"] == frames.origins(store)
