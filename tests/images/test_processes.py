"""Two processes with gloo equal one at the same global batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossfade.lab import frames
from crossfade.lab.store import Store
from tests.images.ddp_worker_images import work

ROOT = Path(__file__).parents[2]
WORKER = "tests.images.ddp_worker_images"


def results(folder: Path):
    with Store(folder / "s.db", mode="read") as store:
        return frames.results(store).set_index("method"), frames.curves(store).set_index(["method", "epoch"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(folder: Path, rank: int, port: int) -> subprocess.Popen[str]:
    told = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in told.items()}}
    command = [sys.executable, "-m", WORKER, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    work(one, devices=1)
    started = [_start(two, rank, port) for port in [_free_port()] for rank in range(2)]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    (alone, alone_curves), (shared, shared_curves) = results(one), results(two)
    for name in ("gradual", "cot"):
        key = alone.loc[name, "key"]
        assert shared.loc[name, "key"] == key
        expected, got = (load_file(folder / "weights" / f"{key}.safetensors") for folder in (one, two))
        assert expected.keys() == got.keys()
        for part in expected:
            torch.testing.assert_close(got[part], expected[part], atol=2e-6, rtol=1e-4)
        assert shared.loc[name, "accuracy"] == pytest.approx(alone.loc[name, "accuracy"], abs=1.01 / 51)
        assert shared.loc[name, "nll"] == pytest.approx(alone.loc[name, "nll"], abs=1e-4)
        groups = [f"watch_{group}" for group in ("right", "near", "far")]
        assert sum(shared.loc[name, groups]) == sum(alone.loc[name, groups]) == 51
    assert shared_curves["train_loss"].tolist() == pytest.approx(alone_curves["train_loss"].tolist(), abs=1e-4)
