"""Methods that begin alike share their first epochs: the numbers must be those of training each from the start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab.methods import Method
from crossfade.lab.train.deep.network import job_starts
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.run import executor
from crossfade.lab.trial import Trial
from crossfade.schedules import switch
from tests.examples import examples
from tests.images.deep_cases import CPU
from tests.images.image_cases import method

NAMES = ("ce", "f0", "f0-late", "gradual", "cot", "focal")


def shared_epochs(first, second, recipe):
    return job_starts([first, second], [0, 0], recipe)[1].epoch


def outcomes(trials, work):
    done = dict(executor(CPU, work)([trials], lambda part: None))
    results = {trial.method.name: (outcome.result, outcome.curves) for trial, outcome in done.items()}
    numbers = {
        name: ({key: value for key, value in result.items() if key not in ("seconds", "shared_epochs")}, curves)
        for name, (result, curves) in results.items()
    }
    return numbers, {name: result.get("shared_epochs", 0) for name, (result, _) in results.items()}


def test_shared_and_alone_give_the_same_numbers(task, recipe, tmp_path):
    recipe = replace(recipe, granularity="step")
    trials = [Trial("study", task, method(name), recipe, 0) for name in NAMES]
    together, shared = outcomes(tuple(trials), tmp_path / "together")
    alone = {}
    for trial in trials:
        numbers, none = outcomes((trial,), tmp_path / "alone")
        assert not any(none.values())
        alone |= numbers
    assert together == alone
    assert shared == {"ce": 0, "f0": 0, "f0-late": 2, "gradual": 0, "cot": 0, "focal": 0}
    assert not list((tmp_path / "together").iterdir())


@pytest.mark.parametrize(
    ("first", "second", "epochs", "granularity", "watch", "expected"),
    [
        ("f0", "f0-late", 240, "epoch", 0, 228),
        ("f0", "f0-late", 6, "step", 0, 5),
        ("f0", "f0-late", 6, "epoch", 0, 5),  # the same throughout; the last epoch is each one's own
        ("f0-late", "gradual", 240, "epoch", 0, 40),
        ("f0", "f0-late", 90, "epoch", 70, 69),
        ("f0", "f0-late", 1, "step", 0, 0),
        ("ce", "f0", 240, "epoch", 0, 0),
        ("ce", "cot", 240, "epoch", 0, 0),
        ("ce", "ce-rate-matched", 240, "epoch", 0, 0),
        ("ce", "focal", 240, "epoch", 0, 0),
    ],
)
def test_as_many_epochs_as_the_schedules_agree_on(first, second, epochs, granularity, watch, expected):
    recipe = ImageRecipe(epochs=epochs, milestones=(), granularity=granularity, watch=watch)
    assert shared_epochs(method(first), method(second), recipe) == expected


@examples(25)
@given(percent=st.integers(1, 99), epochs=st.integers(1, 8))
def test_no_step_of_a_shared_epoch_differs(percent, epochs):
    recipe = ImageRecipe(epochs=epochs, milestones=(), granularity="step")
    late = Method("late", "late", schedule=switch(0.0, 0.5, at=percent / 100))
    assert shared_epochs(method("f0"), late, recipe) == min(epochs - 1, percent * epochs // 100)
