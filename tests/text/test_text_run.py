"""LSTM trials through the runner's executor: their tokens, and what becomes of a stack that can't be trained."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossfade.lab.data.texts import TextTask, load_texts
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import Method, method
from crossfade.lab.train.lstm import run as lstm_run
from crossfade.lab.train.lstm.recipe import LstmRecipe
from crossfade.lab.train.lstm.run import executor
from crossfade.lab.train.lstm.tokens import tokenize
from crossfade.lab.trial import Trial

RECIPE = LstmRecipe(4, 5, epochs=1)
BAD = Method("bad", "bad", lambda ce: ce * 2.0)


@pytest.fixture
def task(table):
    return TextTask(load_texts(table, ["sentence"], "about"), test_size=0.2)


def trials(task, names=("ce", "gradual"), repeats=(0, 1), recipe=RECIPE):
    chosen = [BAD if name == "bad" else method(name) for name in names]
    return tuple(Trial("study", task, one, recipe, at) for at in repeats for one in chosen)


@pytest.fixture
def called(monkeypatch):
    """What the engine is asked for: members and options of every call. ``called.fails`` decides what raises."""

    class Called(list):
        fails = staticmethod(lambda members, options: None)

    calls, train = Called(), lstm_run.train

    def fake(members, recipe, *, on_progress, **options):
        calls.append((list(members), options))
        error = calls.fails(members, options)
        if error is not None:
            held = np.zeros(10)  # what the failed stack had
            calls.held = weakref.ref(held)
            raise error
        return train(members, recipe, threads=1)

    monkeypatch.setattr(lstm_run, "train", fake)
    monkeypatch.setattr(lstm_run, "check_device", lambda device: device != "cpu")
    return calls


def run(batches, device="cpu"):
    found = dict(executor(Hardware(device, threads=1))(batches, lambda part: None))
    return {(trial.method.name, trial.repeat): outcome for trial, outcome in found.items()}


def equal(one, other):
    for name in ("train", "val", "test"):
        for array in ("tokens", "offsets", "labels"):
            np.testing.assert_array_equal(getattr(getattr(one, name), array), getattr(getattr(other, name), array))
    assert one.vocabulary == other.vocabulary


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_trial_gets_its_own_tokens(task, table, called, device):
    """Of its repeat, length and vocabulary, whatever came before; made once where they are the same."""
    again = TextTask(task.data, test_size=0.2, label="another architecture")
    recipes = [RECIPE, replace(RECIPE, hidden=6), replace(RECIPE, max_length=3), replace(RECIPE, min_count=1)]
    batches = [trials(one, recipe=recipe) for one in (task, again) for recipe in recipes]
    run(batches, device=device)
    members = [member for some, _ in called for member in some]
    assert len(members) == 32
    wanted = [trial for batch in batches for trial in batch]
    for trial, member in zip(wanted, members, strict=True):
        equal(member.split, tokenize(trial.task.split(trial.repeat), trial.recipe))
    assert members[0].split is members[1].split
    assert members[0].split is members[4].split  # another number of cells
    assert members[0].split is not members[2].split


def test_a_full_memory_takes_halves(task, called):
    """Each half after the exception has let go of what the failed stack had."""

    def fails(members, options):
        if len(called) > 1:
            gc.collect()
            assert called.held() is None
        return torch.cuda.OutOfMemoryError("full") if len(members) > 2 else None

    called.fails = fails
    found = run([trials(task, repeats=(0, 1, 2))], device="cuda")
    assert [len(members) for members, _ in called] == [6, 3, 1, 2, 3, 1, 2]
    assert all(outcome.result is not None for outcome in found.values())


@pytest.mark.parametrize("works", [True, False])
def test_a_loss_that_no_graph_holds_goes_to_the_plain_loop_alone(task, called, works):
    """The others keep their stack, and every outcome is its own trial's."""

    def fails(members, options):
        bad = any(member.method is BAD for member in members)
        return RuntimeError("can't capture") if bad and not (works and options.get("engine") == "plain") else None

    called.fails = fails
    expected = run([trials(task, ("ce", "bad", "gradual"))])
    called.clear()
    found = run([trials(task, ("ce", "bad", "gradual"))], device="cuda")
    assert [(len(members), options.get("engine", "auto")) for members, options in called] == [
        (6, "auto"), (4, "auto"), (2, "auto"), (1, "auto"), (1, "plain"), (1, "auto"), (1, "plain"),
    ]  # fmt: skip
    for (name, repeat), outcome in found.items():
        if name != "bad":
            assert outcome.result["accuracy"] == expected[name, repeat].result["accuracy"]
        elif works:
            assert outcome.result is not None
        else:
            assert "can't capture" in outcome.error


def test_on_the_cpu_one_that_raises_fails_alone(task, called):
    called.fails = lambda members, options: (
        ValueError("no") if any(member.method is BAD for member in members) else None
    )  # fmt: skip
    found = run([trials(task, ("ce", "bad"), repeats=(0,))])
    assert [len(members) for members, _ in called] == [2, 1, 1]
    assert found["ce", 0].result is not None
    assert "no" in found["bad", 0].error
