"""Checkpoints that are torn, empty, foreign or can't be written, and recordings that don't go with them."""

from __future__ import annotations

import errno
import logging
import os
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossfade.errors import UserError
from crossfade.lab import checkpoints
from crossfade.lab.run import run_request
from crossfade.lab.store import Run, Store
from crossfade.lab.train.deep.lightning import CHECKPOINT
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.run import executor
from crossfade.lab.train.deep.side_by_side import CHECKPOINT as BESIDE
from crossfade.lab.train.deep.side_by_side import train_side_by_side
from crossfade.lab.trial import Trial
from tests.images.deep_cases import CPU, rows, train
from tests.images.image_cases import method


@pytest.fixture
def begun(task, recipe, tmp_path):
    """A trial's folder with the checkpoint of its first epoch, and the undisturbed training."""
    whole = train(task.split(0), method("f0"), recipe, seed=3)
    folder = tmp_path / "trial"
    train(task.split(0), method("f0"), recipe, seed=3, folder=folder, max_epochs=1)
    return folder, whole


def torn(content):
    return content[: len(content) // 2]


def flipped(content):
    place = content.index(b"data/0") + 500
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage", [torn, flipped, lambda _: b"", lambda _: b"notes", lambda content: content + b"x" * 99_999]
)
def test_a_damaged_checkpoint_is_put_aside_and_the_trial_starts_again(begun, task, recipe, damage, caplog):
    folder, whole = begun
    path = folder / CHECKPOINT
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "crossfade"):
        history = train(task.split(0), method("f0"), recipe, seed=3, folder=folder)
    assert rows(history) == rows(whole)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("crossfade")]
    assert line.startswith(f"{path} can't be used (")
    assert "\n" not in line
    assert (folder / "last.unusable").read_bytes() == damaged
    assert checkpoints.damage(path) is None


def test_a_changed_method_of_compression_is_a_damage(tmp_path):
    path = tmp_path / "trial" / CHECKPOINT
    checkpoints.save({"weights": torch.arange(3.0)}, path)
    content = bytearray(path.read_bytes())
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        for at in (at for at in range(len(content)) if content[at : at + 4] == header):
            content[at + place] = 8  # not stored as it is, but deflated
    path.write_bytes(content)
    assert checkpoints.damage(path)


class Foreign:
    """An object that torch.load doesn't make without being told to."""


def other(task, recipe, folder, **changes):
    """The checkpoint of another training."""
    name = changes.pop("name", "f0")
    train(task.split(0), method(name), replace(recipe, **changes), seed=3, folder=folder, max_epochs=1)
    return folder / CHECKPOINT


@pytest.mark.parametrize("kind", ["dict", "pickle", "model", "method", "net", "tensor"])
def test_a_foreign_checkpoint_is_put_aside(begun, task, recipe, kind, tmp_path, caplog):
    folder, whole = begun
    path, there = folder / CHECKPOINT, tmp_path / "other" / "trial"
    if kind in ("method", "net"):
        there = there if kind == "net" else there.with_name("another")
        changes = {"net": "tiny_plain"} if kind == "net" else {"name": "gradual"}
        path.write_bytes(other(task, recipe, there, **changes).read_bytes())
    else:
        things = {"dict": {"a": 1}, "pickle": Foreign(), "model": torch.nn.Linear(2, 2), "tensor": torch.ones(3)}
        torch.save(things[kind], path)
    with caplog.at_level(logging.WARNING, "crossfade"):
        history = train(task.split(0), method("f0"), recipe, seed=3, folder=folder)
    assert rows(history) == rows(whole)
    assert len([record for record in caplog.records if record.name.startswith("crossfade")]) == 1


def test_a_checkpoint_of_an_older_version_that_does_not_say_whose_it_is_is_used(begun, task, recipe, caplog):
    folder, whole = begun
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    del state["trial"]
    torch.save(state, folder / CHECKPOINT)
    epochs = []
    history = train(
        task.split(0), method("f0"), recipe, seed=3, folder=folder, observe=lambda epoch, *_: epochs.append(epoch)
    )
    assert rows(history) == rows(whole)
    assert min(epochs) == 1
    assert not caplog.records


def test_every_changed_byte_of_a_checkpoint_is_found_or_harmless(begun):
    folder, _ = begun
    content, draw = (folder / CHECKPOINT).read_bytes(), random.Random(0)
    expected = torch.load(folder / CHECKPOINT, weights_only=True)["state_dict"]
    found = 0
    for _ in range(300):
        place = draw.randrange(len(content))
        (folder / CHECKPOINT).write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            state = checkpoints.load(folder / CHECKPOINT)["state_dict"]
        except Exception:
            found += 1
        else:  # between the members
            assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert found > 200


def test_beside_checkpoints_too(task, recipe, tmp_path, caplog):
    job = Job(task.split(0), method("f0"), 3, tmp_path / "trial")
    options = {"recipe": recipe, "hardware": CPU, "device": "cpu"}
    whole = train_side_by_side([replace(job, folder=None)], **options)
    train_side_by_side([job], **options, max_epochs=1)
    path = job.folder / BESIDE
    path.write_bytes(torn(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "crossfade"):
        (history,) = train_side_by_side([job], **options)
    assert rows(history) == rows(whole[0])
    assert "beside.ckpt can't be used" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EXDEV])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(begun, task, recipe, monkeypatch, number, call):
    """The store is on a full, broken or other disk: one line, and the run goes on from the last whole checkpoint."""
    folder, whole = begun
    before = (folder / CHECKPOINT).read_bytes()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(UserError, match=r"checkpoint .*last\.ckpt: can't be written") as error:
            train(task.split(0), method("f0"), recipe, seed=3, folder=folder)
    assert os.strerror(number) in str(error.value)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT]
    assert rows(train(task.split(0), method("f0"), recipe, seed=3, folder=folder)) == rows(whole)


def test_nothing_of_a_checkpoint_passes_through_the_temporary_folder(begun, task, recipe, monkeypatch, tmp_path):
    folder, whole = begun
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert rows(train(task.split(0), method("f0"), recipe, seed=3, folder=folder)) == rows(whole)


def stored(trials, path):
    run = Run("study", {}, tuple(trial.key for trial in trials))
    summary = run_request([run], trials, path, CPU, progress=False)
    with Store(path, "read") as store:
        rows = {row.method: row.outcome for row in store.rows(curves=True)}
    return summary, {name: ({**one.result, "seconds": 0}, one.curves) for name, one in rows.items()}


class Killed(BaseException):
    """Ends a run as a signal does, between two statements."""


@pytest.mark.parametrize("loss", ["recording", "part", "torn", "nothing"])
def test_watched_images_go_with_the_checkpoint_or_are_watched_again(task, recipe, tmp_path, monkeypatch, loss, caplog):
    recipe = replace(recipe, epochs=4, watch=2)
    trials = [Trial("study", task, method(name), recipe, 0) for name in ("f0", "f0-late")]
    _, expected = stored(trials, tmp_path / "whole.db")
    with monkeypatch.context() as patched:
        save = checkpoints.save

        def killed(checkpoint, path):
            save(checkpoint, path)
            if checkpoint["epoch"] == 2 and path.parent.name == trials[0].key:
                raise Killed

        patched.setattr(checkpoints, "save", killed)
        with pytest.raises(Killed):
            dict(executor(CPU, tmp_path / "s.db.work")([tuple(trials)], print))
    folder = tmp_path / "s.db.work" / trials[0].key / "p"
    planes = folder / "probabilities.npy"
    if loss == "recording":
        planes.unlink()
        (folder / "recording.json").unlink()
    elif loss == "part":  # values of the watched epoch that weren't written
        np.load(planes, mmap_mode="r+")[1, :, 10:20] = np.nan
    elif loss == "torn":
        planes.write_bytes(planes.read_bytes()[:200])
    summary, found = stored(trials, tmp_path / "s.db")
    assert summary.done == 2
    assert found == expected
    assert ("can't be used" in caplog.text) == (loss != "nothing")
    assert not (tmp_path / "s.db.work").exists()


def test_folders_of_known_trials_go(task, recipe, tmp_path):
    trials = [Trial("study", task, method(name), recipe, 0) for name in ("f0", "f0-late")]
    stored(trials, tmp_path / "s.db")
    stray = tmp_path / "s.db.work" / trials[1].key
    checkpoints.save({}, stray / CHECKPOINT)
    (tmp_path / "s.db.work" / "logs").mkdir()
    stored(trials, tmp_path / "s.db")
    assert [path.name for path in (tmp_path / "s.db.work").iterdir()] == ["logs"]
