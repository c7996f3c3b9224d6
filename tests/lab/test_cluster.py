"""Every kind of study on a Ray cluster of three nodes: the keys and numbers of a run on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.kept.cases import CASES, INPUTS, elsewhere

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow

# Its first training on a node writes down what Ray gave to the task, and kills node and worker in the second epoch.
KILLS = """
import os, signal
import ray
calls = 0
def kills(ce):
    global calls
    if os.getpid() == {driver}:
        return ce
    calls += 1
    if calls > 12 and not os.path.exists({mark!r}):
        with open({mark!r}, "w") as file:
            file.write(str(ray.get_runtime_context().get_assigned_resources()))
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)
    return ce
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A cluster of three nodes, of which two compute."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            started.add_node(num_cpus=1, num_gpus=1)
        yield started
    finally:
        started.shutdown()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, the loss of a user's own, and one thread, as each task has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(INPUTS))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


def trained(call: Callable, command: list[str], folder: str, *more: str) -> dict[str, pd.DataFrame]:
    """Run a command in a folder of its own; return the exported results and curves."""
    Path(folder).mkdir(exist_ok=True)
    os.chdir(folder)
    status, _, err = call(*elsewhere([*command, *more]))
    assert status == 0, err
    frames = {}
    for name, option in (("results.csv", []), ("curves.csv", ["--curves"])):
        call("export", name, "--store", "store.db", *option)
        found = pd.read_csv(name).drop(columns=["seconds", "request", "engine"], errors="ignore")
        frames[name] = found
    os.chdir("..")
    return frames


def alike(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    for name in one:
        pd.testing.assert_frame_equal(one[name], two[name], check_exact=True)


def test_studies_have_the_same_keys_and_numbers(call: Callable, nodes: Cluster) -> None:
    why = ["run", "dynamics", "--scale", "smoke", "--methods", "ce,el", "--store", "store.db", "--out", "out"]
    commands = {"images": CASES["motivating"], "texts": CASES["figure2"], "why": why}
    for name, command in commands.items():
        here = trained(call, command, f"{name}-here")
        there = trained(call, command, f"{name}-there", "--ray", nodes.address)
        alike(here, there)


def test_a_node_that_is_killed_in_the_middle_loses_nothing(call: Callable, nodes: Cluster, place: Path) -> None:
    mark = place / "mark"
    Path("own.py").write_text(KILLS.format(driver=os.getpid(), mark=str(mark)))
    command = ["compare", "shapes", "--methods", "ce,f0-late", "--loss", str(place / "own.py:kills"), "--repeats", "1"]
    command += ["--epochs", "4", "--batch-size", "4", "--accelerator", "cpu"]
    command += ["--store", "store.db", "--keep-weights", "weights"]
    here = trained(call, command, "here")
    there = trained(call, command, "there", "--ray", nodes.address, "--gpus", "0.5")
    assert "'GPU': 0.5" in mark.read_text()
    alike(here, there)
    weights = [sorted(path.name for path in Path(folder, "weights").iterdir()) for folder in ("here", "there")]
    assert weights[0] == weights[1] != []
    assert not Path("there/store.db.work").exists()
