"""Networks trained side by side against the same ones trained alone; on a GPU, where there is one, in graphs."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab.data.images import ImageSet, ImageSplit, ImageTask
from crossfade.lab.hardware import Hardware
from crossfade.lab.train.deep import side_by_side as deep_graphs
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.train.deep.run import executor
from crossfade.lab.train.deep.side_by_side import seconds_an_epoch, serves, train_side_by_side
from crossfade.lab.train.outcome import History
from crossfade.lab.trial import Trial
from tests.examples import examples
from tests.images.deep_cases import CPU, DEVICES, rows, train
from tests.images.image_cases import method, noise

NAMES = ("ce", "f0", "f0-late", "gradual", "focal", "gce-rising", "ce-rate-matched", "mpce", "mmc")


@pytest.fixture
def recipe(recipe) -> ImageRecipe:
    return replace(recipe, dropout=0.0, granularity="step")


def jobs(split, names=NAMES, folder=None, seed=3) -> list[Job]:
    return [Job(split, method(name), seed, None if folder is None else folder / name) for name in names]


def together(jobs, recipe, device="cpu", **options):
    return train_side_by_side(jobs, recipe, hardware=CPU, device=device, **options)


def close(one, other, atol=1e-6) -> None:
    assert [row["epoch"] for row in rows(one)] == [row["epoch"] for row in rows(other)]
    for name, value in other.last.items():
        torch.testing.assert_close(one.last[name].cpu(), value.cpu(), atol=atol, rtol=1e-4)
    for mine, theirs in zip(rows(one), rows(other), strict=True):
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
        alone = train(split, job.method, recipe, seed=job.seed)
        close(history, alone, atol=1e-6 if device == "cpu" else 1e-4)
        assert history.chosen == alone.chosen
        assert (history.weights is history.last) == (alone.weights is alone.last)
        assert ("temperature" in history.scores) == (select == "validation")
        assert history.scores == pytest.approx(alone.scores, rel=1e-3, abs=1e-4)


def test_preparing_a_capture_leaves_no_trace(task, recipe, monkeypatch, replayed):
    """What only compiles and loads isn't a step: weights, momentum, statistics and dropout's draws are as before."""
    recipe = replace(recipe, dropout=0.3)
    expected = together(jobs(task.split(0)), recipe)
    monkeypatch.setattr(deep_graphs, "Graphs", replayed)
    for one, other in zip(together(jobs(task.split(0)), recipe), expected, strict=True):
        close(one, other, atol=0.0)
        assert rows(one) == rows(other)


@pytest.mark.parametrize("device", DEVICES)
def test_an_epoch_is_timed_without_a_trace(task: ImageTask, recipe, device, tmp_path):
    split, before = task.split(0), torch.get_rng_state()
    assert seconds_an_epoch(jobs(split, folder=tmp_path), recipe, hardware=CPU, device=device) > 0
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), before)


@functools.cache
def noisy() -> tuple[ImageSplit, dict[str, ImageRecipe]]:
    split = ImageTask(ImageSet("toy", tuple("abcd"), noise(61), noise(20, seed=1))).split(0)
    recipe = ImageRecipe(net="tiny", epochs=3, batch_size=20, milestones=(1.5,), learning_rate=0.05, augment=Augment(1))
    return split, {moves: replace(recipe, granularity=moves) for moves in ("step", "epoch")}


@functools.cache
def alone(name: str, seed: int, moves: str) -> History:
    split, recipes = noisy()
    return together(jobs(split, [name], seed=seed), recipes[moves])[0]


@examples(8)
@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.sets(st.integers(0, 2), min_size=1),
    st.sampled_from(["step", "epoch"]),
)
def test_a_network_depends_on_no_other(names, seeds, moves):
    split, recipes = noisy()
    wanted = [job for seed in sorted(seeds) for job in jobs(split, sorted(names), seed=seed)]
    for job, history in zip(wanted, together(wanted, recipes[moves]), strict=True):
        other = alone(job.method.name, job.seed, moves)
        assert rows(history) == rows(other)
        assert all(torch.equal(a, b) for a, b in zip(history.last.values(), other.last.values(), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_stopped_and_resumed_is_undisturbed(task, recipe, tmp_path, device):
    split = task.split(0)
    undisturbed = together(jobs(split), recipe, device)
    together(jobs(split, folder=tmp_path), recipe, device, max_epochs=1)
    together(jobs(split, NAMES[:3], tmp_path), recipe, device, max_epochs=2)  # some are further than others
    for one, other in zip(together(jobs(split, folder=tmp_path), recipe, device), undisturbed, strict=True):
        close(one, other, atol=0.0 if device == "cpu" else 1e-4)


def killed_after(part, jobs, recipe):
    """Train in a process of its own that kills itself when this part is done."""

    def told(done):
        if done >= part:
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(
        target=together, args=(jobs, recipe), kwargs={"on_progress": told}
    )
    process.start()
    process.join()
    return process.exitcode


def test_killed_and_run_again(task, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(deep_graphs, "_SAVE_SECONDS", 0.0)
    recipe, names = replace(recipe, epochs=6, milestones=(3,)), ("ce", "f0", "f0-late")
    wanted = jobs(task.split(0), names, tmp_path / "killed")
    for part in (0.3, 0.6):
        assert killed_after(part, wanted, recipe) == -signal.SIGKILL
    (tmp_path / "killed" / "ce" / "beside.part").write_bytes(b"half a checkpoint")
    again = together(wanted, recipe)
    undisturbed = together(jobs(task.split(0), names, tmp_path / "quiet"), recipe)
    assert [rows(history) for history in again] == [rows(history) for history in undisturbed]


def test_one_that_diverges_stops_alone(task, recipe):
    def explode(ce):
        return ce * float("inf")

    split = task.split(0)
    bad = replace(method("ce"), name="explode", g=explode)
    broken, fine = together([Job(split, bad, 3), Job(split, method("ce"), 3)], recipe)
    assert (broken.finite, rows(broken)) == (False, [])
    close(fine, train(split, method("ce"), recipe, seed=3))


def test_watched(task, recipe):
    seen, expected = [], []
    split = task.split(0)

    def note(into):
        return lambda epoch, part, index, logits, labels: into.append((epoch, part, index.clone(), logits.clone()))

    together([Job(split, method("gradual"), 3, observe=note(seen))], recipe)
    train(split, method("gradual"), recipe, seed=3, observe=note(expected))
    expected = [call for call in expected if call[1] != "train"]
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


def test_the_runner_takes_as_many_as_fit(task, recipe, tmp_path, monkeypatch):
    """The store's rows are those of one by one, whatever the memory holds and in however many calls."""
    trials = tuple(Trial("study", task, method(n), recipe, k) for k in (0, 1) for n in ("ce", "f0", "cot"))

    def outcomes(folder):
        return {trial.key: outcome for trial, outcome in executor(CPU, tmp_path / folder)([trials], lambda part: None)}

    def on_cpu(jobs, recipe, **options):
        if len(jobs) > room:
            raise torch.cuda.OutOfMemoryError("full")
        calls.append(len(jobs))
        return train_side_by_side(jobs, recipe, device="cpu", **options)

    expected = outcomes("alone")
    monkeypatch.setattr(deep_graphs, "serves", lambda hardware, recipe, method: method.name != "cot")
    monkeypatch.setattr(deep_graphs, "train_side_by_side", on_cpu)
    for size, parts in ((8, [4]), (3, [2, 2]), (0, [])):
        room, calls = size, []
        found = outcomes("work")
        assert calls == parts
        assert found.keys() == expected.keys()
        for key, outcome in found.items():
            for name in ("accuracy", "nll", "epoch", "n_train"):
                assert outcome.result[name] == pytest.approx(expected[key].result[name], rel=1e-4)
        assert not list((tmp_path / "work").iterdir())
