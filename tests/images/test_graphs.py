"""Networks trained side by side against the same ones trained alone; on a GPU, where there is one, in graphs."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab.data.images import ImageTask
from crossfade.lab.train.deep import member as deep_member
from crossfade.lab.train.deep import side_by_side as deep_graphs
from crossfade.lab.train.deep.augment import Augment
from crossfade.lab.train.deep.lightning import train
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.run import executor
from crossfade.lab.train.deep.side_by_side import Job, seconds_an_epoch, serves, train_side_by_side
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial
from tests.examples import examples
from tests.images.image_cases import method

CPU = Hardware(accelerator="cpu")
NAMES = ("ce", "f0", "f0-late", "gradual", "focal", "ce-volume-own")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def recipe(recipe) -> ImageRecipe:
    return replace(recipe, dropout=0.0, granularity="step")


def jobs(split, names=NAMES, folder=None, seed=3) -> list[Job]:
    return [Job(split, method(name), seed, None if folder is None else folder / name) for name in names]


def together(jobs, recipe, device="cpu", **options):
    return train_side_by_side(jobs, recipe, hardware=CPU, device=device, **options)


def close(one, other, atol=1e-6) -> None:
    assert [row["epoch"] for row in one.rows] == [row["epoch"] for row in other.rows]
    for name, value in other.module.state_dict().items():
        torch.testing.assert_close(one.module.state_dict()[name].cpu(), value.cpu(), atol=atol, rtol=1e-4)
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("select", ["last", "validation"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equal_to_one_by_one(task: ImageTask, recipe, device, select, dropout):
    if dropout and device == "cuda":
        pytest.skip("another generator than the CPU's")
    recipe = replace(recipe, select=select, dropout=dropout)
    split = replace(task, select=select).split(0)
    for job, history in zip(jobs(split), together(jobs(split), recipe, device), strict=True):
        alone = train(split, job.method, recipe, seed=job.seed, hardware=CPU)
        close(history, alone, atol=1e-6 if device == "cpu" else 1e-4)
        assert history.chosen == alone.chosen
        assert (history.best is None) == (alone.best is None)


def test_preparing_a_capture_leaves_no_trace(task, recipe, monkeypatch, replayed):
    """What only compiles and loads isn't a step: weights, momentum, statistics and dropout's draws are as before."""
    recipe = replace(recipe, dropout=0.3)
    expected = together(jobs(task.split(0)), recipe)
    monkeypatch.setattr(deep_member, "Graphs", replayed)
    for one, other in zip(together(jobs(task.split(0)), recipe), expected, strict=True):
        close(one, other, atol=0.0)
        assert one.rows == other.rows


@pytest.mark.parametrize("device", DEVICES)
def test_an_epoch_is_timed_without_a_trace(task: ImageTask, recipe, device, tmp_path):
    split, before = task.split(0), torch.get_rng_state()
    assert seconds_an_epoch(jobs(split, folder=tmp_path), recipe, hardware=CPU, device=device) > 0
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), before)


@examples(8)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.sets(st.integers(0, 2), min_size=1), st.booleans())
def test_a_network_depends_on_no_other(names, seeds, by_step):
    from crossfade.lab.data.images import ImageSet
    from tests.images.image_cases import noise

    split = ImageTask(ImageSet("toy", tuple("abcd"), noise(61), noise(20, seed=1))).split(0)
    recipe = ImageRecipe(
        net="tiny", epochs=3, batch_size=20, milestones=(1.5,), learning_rate=0.05, augment=Augment(crop=1),
        granularity="step" if by_step else "epoch",
    )  # fmt: skip
    wanted = [job for seed in sorted(seeds) for job in jobs(split, sorted(names), seed=seed)]
    for job, history in zip(wanted, together(wanted, recipe), strict=True):
        (alone,) = together([job], recipe)
        assert history.rows == alone.rows
        assert all(
            torch.equal(a, b)
            for a, b in zip(history.module.state_dict().values(), alone.module.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize("device", DEVICES)
def test_stopped_and_resumed_is_undisturbed(task, recipe, tmp_path, device):
    split = task.split(0)
    undisturbed = together(jobs(split), recipe, device)
    together(jobs(split, folder=tmp_path), recipe, device, max_epochs=1)
    together(jobs(split, NAMES[:3], tmp_path), recipe, device, max_epochs=2)  # some are further than others
    for one, other in zip(together(jobs(split, folder=tmp_path), recipe, device), undisturbed, strict=True):
        close(one, other, atol=0.0 if device == "cpu" else 1e-4)


KILLED = """
    import os, pathlib, signal, sys
    from tests.images.image_cases import method, noise, tiny
    from crossfade.lab.data.images import ImageSet, ImageTask
    from crossfade.lab.nets import SMALL_NETS
    from crossfade.lab.train.deep import side_by_side as deep_graphs
    from crossfade.lab.train.deep import member as deep_member
    from crossfade.lab.train.deep.augment import Augment
    from crossfade.lab.train.deep.recipe import ImageRecipe
    from crossfade.lab.train.hardware import Hardware
    deep_graphs._SAVE_SECONDS = 0.0
    SMALL_NETS["tiny"] = tiny(norm=True)
    split = ImageTask(ImageSet("toy", tuple("abcd"), noise(203), noise(50, seed=1))).split(0)
    recipe = ImageRecipe(net="tiny", epochs=6, batch_size=20, milestones=(3,), learning_rate=0.05, augment=Augment(1))
    jobs = [
        deep_graphs.Job(split, method(name), 3, pathlib.Path(sys.argv[1], name)) for name in ("ce", "f0", "f0-late")
    ]
    stop = float(sys.argv[2])
    told = lambda part: os.kill(os.getpid(), signal.SIGKILL) if part >= stop else None
    found = deep_graphs.train_side_by_side(jobs, recipe, hardware=Hardware("cpu"), device="cpu", on_progress=told)
    print([history.rows for history in found])
"""


def test_killed_and_run_again(tmp_path, request):
    def run(folder, stop):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / folder), str(stop)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=request.config.rootpath)

    undisturbed = run("quiet", 2.0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for stop in (0.3, 0.6):
        assert run("killed", stop).returncode == -signal.SIGKILL
    (tmp_path / "killed" / "ce" / "beside.part").write_bytes(b"half a checkpoint")
    again = run("killed", 2.0)
    assert again.returncode == 0, again.stderr
    assert again.stdout == undisturbed.stdout


def test_one_that_diverges_stops_alone(task, recipe):
    def explode(ce):
        return ce * float("inf")

    split = task.split(0)
    bad = replace(method("ce"), name="explode", g=explode)
    broken, fine = together([Job(split, bad, 3), Job(split, method("ce"), 3)], recipe)
    assert (broken.finite, broken.rows) == (False, [])
    close(fine, train(split, method("ce"), recipe, seed=3, hardware=CPU))


def test_watched(task, recipe):
    seen, expected = [], []
    split = task.split(0)

    def note(into):
        return lambda epoch, part, index, logits, labels: into.append((epoch, part, index.clone(), logits.clone()))

    together([Job(split, method("gradual"), 3, observe=note(seen))], recipe)
    train(split, method("gradual"), recipe, seed=3, hardware=CPU, observe=note(expected))
    assert len(seen) == len(expected) == recipe.epochs
    for one, other in zip(seen, expected, strict=True):
        assert one[:2] == other[:2]
        assert torch.equal(one[2], other[2])
        torch.testing.assert_close(one[3], other[3], atol=1e-5, rtol=1e-4)


def test_what_is_served(recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    auto = Hardware()
    assert serves(auto, recipe, method("ce"))
    assert not serves(CPU, recipe, method("ce"))
    assert not serves(replace(auto, devices=2), recipe, method("ce"))
    assert not serves(replace(auto, logger="csv"), recipe, method("ce"))
    assert serves(auto, replace(recipe, dropout=0.1), method("ce"))
    assert not serves(auto, replace(recipe, precision="16-mixed"), method("ce"))
    assert not serves(auto, recipe, method("cot"))


@pytest.mark.parametrize("room", [8, 3, 0])
def test_the_runner_takes_as_many_as_fit(task, recipe, tmp_path, monkeypatch, room):
    """The store's rows are those of one by one, whatever the memory holds and in however many calls."""
    calls = []

    def on_cpu(jobs, recipe, **options):
        if len(jobs) > room:
            raise torch.cuda.OutOfMemoryError("full")
        calls.append(len(jobs))
        return train_side_by_side(jobs, recipe, device="cpu", **options)

    trials = tuple(Trial("study", task, method(n), recipe, k) for k in (0, 1) for n in ("ce", "f0", "cot"))
    expected = {trial.key: outcome for trial, outcome in executor(CPU, tmp_path / "alone")([trials], lambda part: None)}
    monkeypatch.setattr(deep_graphs, "serves", lambda hardware, recipe, method: method.name != "cot")
    monkeypatch.setattr(deep_graphs, "train_side_by_side", on_cpu)
    found = {trial.key: outcome for trial, outcome in executor(CPU, tmp_path / "work")([trials], lambda part: None)}
    assert calls == {8: [4], 3: [2, 2], 0: []}[room]
    assert found.keys() == expected.keys()
    for key, outcome in found.items():
        for name in ("accuracy", "nll", "epoch", "n_train"):
            assert outcome.result[name] == pytest.approx(expected[key].result[name], rel=1e-4)
    assert not list((tmp_path / "work").iterdir())
