"""Trials on Ray whose workers die: without a cluster, and on a real one."""

from __future__ import annotations

import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from crossfade.errors import UserError
from crossfade.lab import ray as lab_ray
from crossfade.lab.data.table import TableTask, load_builtin
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import Method, method
from crossfade.lab.run import run_request
from crossfade.lab.store import Outcome, Run, Store
from crossfade.lab.train import Recipe
from crossfade.lab.train.tables.run import executor
from crossfade.lab.trial import Trial

ray = pytest.importorskip("ray")

TASK = TableTask(load_builtin("iris"))
NAMES = ("ce", "gradual", "el")
TRIALS = [Trial("t", TASK, method(name), Recipe(epochs=2, learning_rates=(0.01,)), 0) for name in NAMES]


class _Ref(tuple):
    """What Ray returns for a task: it has a hash."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Cluster:
    """Ray with one worker in this process; ``dies`` returns the error of a batch, given its names and the try."""

    exceptions = ray.exceptions

    def __init__(self, dies):
        self.dies, self.calls = dies, []

    def remote(self, **options):
        assert options["max_retries"] == 0  # Ray itself would retry for ever
        return lambda work: SimpleNamespace(remote=lambda trials, keys: _Ref((work, trials, keys)))

    def wait(self, waiting, num_returns):
        return waiting[:1], waiting[1:]

    def put(self, trials):
        return trials

    def get(self, ready):
        work, trials, keys = ready
        names = tuple(trial.method.name for trial in trials if trial.key in keys)
        self.calls.append(names)
        error = self.dies(names, sum(names == call for call in self.calls))
        if error is not None:
            raise error
        return work(trials, keys)

    def shutdown(self):
        self.calls.append("shutdown")


def distributed(monkeypatch, dies, batches):
    cluster = Cluster(dies)
    monkeypatch.setattr(lab_ray, "_connect", lambda ray, hardware: 0.0)
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.setattr(lab_ray, "_ship_functions", lambda ray, batches: None)

    def execute(batches, tick):
        for batch in batches:
            yield from ((trial, Outcome({"name": trial.method.name})) for trial in batch)

    distribute = lab_ray.on_ray(Hardware(ray="x"), lambda hardware, work, keep: execute, Path("work"))
    found = {trial.method.name: outcome for trial, outcome in distribute(batches, print)}
    assert cluster.calls.pop() == "shutdown"
    return found, cluster.calls


@pytest.mark.parametrize("error", [ray.exceptions.WorkerCrashedError(), ray.exceptions.OutOfMemoryError("no memory")])
def test_what_kills_its_worker_fails_alone_after_three_tries(monkeypatch, caplog, error):
    with caplog.at_level(logging.WARNING):
        found, calls = distributed(monkeypatch, lambda names, _: error if "gradual" in names else None, [tuple(TRIALS)])
    assert {name: outcome.status for name, outcome in found.items()} == {
        "ce": "done",
        "gradual": "failed",
        "el": "done",
    }
    assert found["gradual"].error.startswith("its worker died in 3 tries: ")
    assert type(error).__name__ in found["gradual"].error
    assert sum("gradual" in names for names in calls) == 3
    assert all(sum(name in names for names in calls) == 2 for name in ("ce", "el"))
    told = [record.getMessage() for record in caplog.records]
    assert "iris, gradual, repeat 0: its worker died, try 2 of 3" in told[-1]


def test_a_node_that_dies_once_costs_a_try(monkeypatch):
    def dies(names, number):
        return ray.exceptions.NodeDiedError("gone") if number == 1 else None

    found, _ = distributed(monkeypatch, dies, [(trial,) for trial in TRIALS])
    assert all(outcome.status == "done" for outcome in found.values())


def test_what_the_task_raises_is_raised_here(monkeypatch):
    cause = UserError("no such column")
    error = ray.exceptions.RayTaskError("work", "Traceback ...", cause).as_instanceof_cause()
    with pytest.raises(UserError, match=r"^no such column$"):
        distributed(monkeypatch, lambda names, _: error, [tuple(TRIALS)])


def test_trials_that_take_long_are_tasks_of_their_own_the_longest_first():
    long = [Trial("t", TASK, method("ce"), Recipe(epochs=epochs), 0) for epochs in (100_000, 300_000, 200_000)]
    tasks = lab_ray._tasks([tuple(TRIALS), tuple(long)])
    assert [[trial.recipe.epochs for trial in batch] for batch in tasks] == [[300_000], [200_000], [100_000], [2, 2, 2]]


@pytest.mark.parametrize(
    "options", [{"gpus": 0.5}, {"ray": "x", "gpus": 2}, {"ray": "x", "gpus": -1}, {"ray": "x", "devices": 2}]
)
def test_what_a_cluster_cannot_give(options):
    with pytest.raises(UserError, match=r"^--(gpus|ray): "):
        Hardware(**options)


@pytest.mark.parametrize(
    ("accelerator", "asked", "found"), [("auto", None, 1), ("gpu", None, 1), ("cpu", None, 0), ("auto", 0.25, 0.25)]
)
def test_a_trial_asks_for_what_a_node_has(accelerator, asked, found):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 4.0}}]
    said = []
    ray = SimpleNamespace(init=lambda **_: None, nodes=lambda: nodes, shutdown=lambda: said.append("shutdown"))
    hardware = Hardware(accelerator, ray="local", gpus=asked)
    assert lab_ray._connect(ray, hardware) == found
    nodes.pop(0)
    if accelerator == "auto" and asked is None:
        assert lab_ray._connect(ray, hardware) == 0
    elif found:
        with pytest.raises(UserError, match=f"a core and {found:g} GPUs, and no node has them"):
            lab_ray._connect(ray, hardware)
        assert said == ["shutdown"]


def test_a_cluster_answers_a_thread_too(request):
    # There signals can't be set, and neither does Ray set one.
    request.addfinalizer(partial(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: None)))
    ray = SimpleNamespace(init=lambda **_: None, nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lab_ray._connect, ray, Hardware(ray="local")).result() == 0


@pytest.mark.slow
def test_a_loss_that_kills_its_worker_on_a_real_cluster(tmp_path):
    before = signal.signal(signal.SIGTERM, handler := lambda number, frame: None)
    pid = os.getpid()

    def kills(ce):
        import os

        if os.getpid() != pid:
            os._exit(1)
        return ce

    trials = [*TRIALS, Trial("t", TASK, Method("kills", "kills", g=kills), TRIALS[0].recipe, 0)]
    run = Run("t", {}, tuple(trial.key for trial in trials))
    try:
        summary = run_request([run], trials, tmp_path / "s.db", Hardware(ray="local"), progress=False)
        assert signal.getsignal(signal.SIGTERM) is handler  # Ray has one of its own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (summary.done, summary.failed) == (3, 1)
    with Store(tmp_path / "s.db", "read") as store:
        rows = {row.method: row.outcome for row in store.rows()}
    assert "its worker died in 3 tries: WorkerCrashedError" in rows["kills"].error
    here = {trial.method.name: outcome for trial, outcome in executor(Hardware(threads=1))([tuple(TRIALS)], print)}
    for name in NAMES:
        assert rows[name].result["accuracy"] == here[name].result["accuracy"]
