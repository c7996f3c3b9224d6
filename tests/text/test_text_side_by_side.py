"""Transformers fine-tuned side by side against the same ones alone; on a GPU, where there is one, in graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crossfade.lab.data.texts import TextTask
from crossfade.lab.hardware import Hardware
from crossfade.lab.methods import method
from crossfade.lab.train.deep import side_by_side as deep_graphs
from crossfade.lab.train.deep.feeds import Place, TextFeed
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import TextRecipe
from crossfade.lab.train.deep.run import executor
from crossfade.lab.train.deep.side_by_side import serves, train_side_by_side
from crossfade.lab.trial import Trial
from tests.images.deep_cases import CPU, DEVICES, rows, train, without_dropout

NAMES = ("ce", "f0", "f0-late", "gradual", "focal")


@pytest.fixture(scope="module")
def task(few):
    return TextTask(few, "last")


@pytest.fixture(scope="module")
def recipe(bert):
    return TextRecipe(bert, epochs=3, batch_size=20, learning_rate=1e-3, max_length=40, clip=0.5)


@pytest.fixture(scope="module", params=DEVICES)
def undisturbed(request, task, recipe):
    """A device, and what the networks of all methods become there."""
    return request.param, together(jobs(task.split(0)), recipe, request.param)


def jobs(split, names=NAMES, folder=None, seed=3):
    return [Job(split, method(name), seed, None if folder is None else folder / name) for name in names]


def together(jobs, recipe, device="cpu", **options):
    return train_side_by_side(jobs, recipe, hardware=CPU, device=device, **options)


def close(one, other, atol=1e-5):
    for name, value in other.last.items():
        torch.testing.assert_close(one.last[name].cpu(), value.cpu(), atol=atol, rtol=1e-4)
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_to_one_by_one(task, recipe, tmp_path, device):
    """Texts of every length, the last batch of an epoch smaller.

    They are filled up to other lengths here, and so the masks that dropout draws would be others.
    """
    recipe, split = replace(recipe, model=without_dropout(recipe.model, tmp_path / "model")), task.split(0)
    for job, history in zip(jobs(split), together(jobs(split), recipe, device), strict=True):
        alone = train(split, job.method, recipe, seed=job.seed)
        close(history, alone, 1e-5 if device == "cpu" else 1e-3)


def test_dropout_is_lightnings(task, recipe):
    """Where all texts have one length, so do the masks: the same draws, each network's as if it were alone."""
    recipe, split = replace(recipe, max_length=6), task.split(0)
    long = [at for at, text in enumerate(split.train.texts) if len(text.split()) > 6]
    train_part = replace(
        split.train, texts=tuple(split.train.texts[at] for at in long), labels=np.asarray(split.train.labels)[long]
    )
    split, before = replace(split, train=train_part), torch.get_rng_state()
    histories = together(jobs(split, NAMES[:2]), recipe)
    assert torch.equal(torch.get_rng_state(), before)
    for job, history in zip(jobs(split, NAMES[:2]), histories, strict=True):
        close(history, train(split, job.method, recipe, seed=job.seed))


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_depends_on_no_other(task, recipe, device):
    """Dropout included; and what is drawn changes with the step, also where a graph draws it."""
    wanted = [job for repeat in (0, 1) for job in jobs(task.split(repeat), ("ce", "gradual"), seed=repeat)]
    for job, history in zip(wanted, together(wanted, recipe, device), strict=True):
        (alone,) = together([job], recipe, device)
        close(history, alone, 0.0 if device == "cpu" else 1e-3)


def test_preparing_a_capture_leaves_no_trace(task, recipe, undisturbed, monkeypatch, replayed):
    device, expected = undisturbed
    if device != "cpu":
        pytest.skip("it captures anyway")
    monkeypatch.setattr(deep_graphs, "Graphs", replayed)
    for one, other in zip(together(jobs(task.split(0)), recipe), expected, strict=True):
        close(one, other, 0.0)
        assert rows(one) == rows(other)


@pytest.mark.parametrize("device", DEVICES)
def test_draws_are_new_in_every_replay(device):
    from crossfade.kernels.graphs import Graphs

    place = torch.device(device)
    one, other = Graphs(place, list), Graphs(place, list)
    drawn = {name: torch.zeros(64, device=place) for name in ("one", "other")}

    def draw(name):
        drawn[name].copy_(torch.nn.functional.dropout(torch.ones(64, device=place)))

    def sequence(seed, disturbed):
        one.seed(seed)
        other.seed(seed + 1)
        found = []
        for _ in range(6):
            one.run("draw", lambda: draw("one"))
            if disturbed:
                other.run("draw", lambda: draw("other"))
            if place.type == "cuda":
                torch.cuda.synchronize()
            found.append(tuple(drawn["one"].tolist()))
        return found

    first = sequence(1, False)
    assert len(set(first)) == 6
    assert sequence(1, True) == first
    assert not set(sequence(2, True)) & set(first)


def test_stopped_and_resumed_is_undisturbed(task, recipe, undisturbed, tmp_path):
    split, (device, expected) = task.split(0), undisturbed
    together(jobs(split, folder=tmp_path), recipe, device, max_epochs=1)
    together(jobs(split, NAMES[:3], tmp_path), recipe, device, max_epochs=2)  # some are further than others
    for one, other in zip(together(jobs(split, folder=tmp_path), recipe, device), expected, strict=True):
        close(one, other, 0.0 if device == "cpu" else 1e-3)


def test_lengths_are_filled_up(task, recipe):
    """To a multiple of 32 and no further than the recipe's, and every text comes once."""
    feed = TextFeed(task.split(0).train, recipe, 3, Place(torch.device("cpu")))
    feed.begin(1)
    assert {length for _, length in feed.kinds} <= {32, 40}
    first, seen = torch.zeros(1, dtype=torch.int64), []
    for kind in feed.kinds:
        inputs, labels = feed.batch(first, kind)
        assert inputs["input_ids"].shape == kind
        rows = feed.order[int(first) : int(first) + kind[0]].tolist()
        assert inputs["attention_mask"].sum(1).tolist() == feed.lengths[rows].tolist()
        assert labels.tolist() == [int(task.split(0).train.labels[row]) for row in rows]
        seen += rows
        first += kind[0]
    assert sorted(seen) == list(range(len(feed.lengths)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_the_tokenizers(few, recipe, monkeypatch, side):
    from crossfade.lab.nets import pretrained

    tokenizer, split = pretrained.load_tokenizer(recipe.model), TextTask(few, "last").split(0)
    tokenizer.padding_side = side
    monkeypatch.setattr(pretrained, "load_tokenizer", lambda model: tokenizer)
    feed = TextFeed(split.train, recipe, 3, Place(torch.device("cpu")))
    tokens = tokenizer(list(split.train.texts), truncation=True, max_length=recipe.max_length)
    padded = tokenizer.pad(dict(tokens), padding="max_length", max_length=40, return_tensors="pt")
    for name, values in padded.items():
        assert torch.equal(feed.inputs[name], values), name
    feed.begin(0)
    at = next(at for at, (_, length) in enumerate(feed.kinds) if length == 32)
    first = sum(count for count, _ in feed.kinds[:at])
    inputs, _ = feed.batch(torch.tensor([first]), feed.kinds[at])
    rows = feed.order[first : first + feed.kinds[at][0]].tolist()
    assert inputs["attention_mask"].sum(1).tolist() == feed.lengths[rows].tolist()


def test_what_is_served(recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert serves(Hardware(), recipe, method("ce"))
    assert not serves(Hardware(compile=True), recipe, method("ce"))
    assert not serves(Hardware(), replace(recipe, accumulate=2), method("ce"))
    assert not serves(Hardware(), replace(recipe, precision="16-mixed"), method("ce"))
    assert not serves(Hardware(), recipe, method("cot"))


def test_the_runner_trains_them_side_by_side(task, recipe, tmp_path, monkeypatch):
    calls = []

    def on_cpu(jobs, recipe, **options):
        calls.append(len(jobs))
        return train_side_by_side(jobs, recipe, device="cpu", **options)

    monkeypatch.setattr(deep_graphs, "serves", lambda hardware, recipe, method: True)
    monkeypatch.setattr(deep_graphs, "train_side_by_side", on_cpu)
    trials = tuple(Trial("study", task, method(n), replace(recipe, epochs=1), k) for k in (0, 1) for n in NAMES)
    found = {trial.key: outcome for trial, outcome in executor(CPU, tmp_path / "work")([trials], lambda part: None)}
    assert calls == [8, 2]
    assert len(found) == 10
    assert all(outcome.result["device"] == "cpu" for outcome in found.values())
