"""Two processes with gloo equal one at the same global batch."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossfade.lab import frames
from crossfade.lab.data.images import ImageSet, ImageTask
from crossfade.lab.hardware import Hardware
from crossfade.lab.run import run_request
from crossfade.lab.store import Run, Store
from crossfade.lab.train.deep.recipe import Augment, ImageRecipe
from crossfade.lab.trial import Trial
from tests.images.image_cases import method, noise


def work(folder: Path, devices: int) -> None:
    data = ImageSet("toy", tuple("abcd"), noise(203), noise(51, seed=1))
    recipe = ImageRecipe(
        net="tiny_plain", epochs=2, batch_size=20, milestones=(1,), learning_rate=0.05,
        augment=Augment(crop=1, rotation=5, erasing=0.5), watch=1,
    )  # fmt: skip
    trials = [
        Trial("ddp", ImageTask(data, select="validation"), method(name), recipe, 0) for name in ("gradual", "cot")
    ]
    run = Run("ddp", {}, tuple(trial.key for trial in trials))
    hardware = Hardware(accelerator="cpu", devices=devices)
    run_request([run], trials, folder / "s.db", hardware, keep_weights=folder / "weights", progress=False)


def results(folder: Path):
    with Store(folder / "s.db", mode="read") as store:
        return frames.results(store).set_index("method"), frames.curves(store).set_index(["method", "epoch"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _work_as(rank: int, folder: Path, port: int) -> None:
    """As torchrun starts a process."""
    told = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()}
    work(folder, devices=2)


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    work(one, devices=1)
    port, context = _free_port(), multiprocessing.get_context("fork")
    started = [context.Process(target=_work_as, args=(rank, two, port)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        assert process.exitcode == 0
    (alone, alone_curves), (shared, shared_curves) = results(one), results(two)
    for name in ("gradual", "cot"):
        key = alone.loc[name, "key"]
        assert shared.loc[name, "key"] == key
        expected, got = (load_file(folder / "weights" / f"{key}.safetensors") for folder in (one, two))
        assert expected.keys() == got.keys()
        for part in expected:
            torch.testing.assert_close(got[part], expected[part], atol=2e-6, rtol=1e-4)
        assert shared.loc[name, "accuracy"] == pytest.approx(alone.loc[name, "accuracy"], abs=1.01 / 51)
        for score in ("temperature", "nll_calibrated"):  # of the validation part of both processes
            assert shared.loc[name, score] == pytest.approx(alone.loc[name, score], rel=1e-3)
        assert shared.loc[name, "nll"] == pytest.approx(alone.loc[name, "nll"], abs=1e-4)
        groups = [f"watch_{group}" for group in ("right", "near", "far")]
        assert sum(shared.loc[name, groups]) == sum(alone.loc[name, groups]) == 51
    assert shared_curves["train_loss"].tolist() == pytest.approx(alone_curves["train_loss"].tolist(), abs=1e-4)
