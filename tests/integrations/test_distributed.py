"""Two gloo processes with unequal numbers of targets, some with none, against one process with everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from crossfade import CrossfadeLoss, linear
from crossfade.integrations.distributed import global_count, global_mean

ROOT = Path(__file__).parents[2]
WORKER = "tests.integrations.ddp_worker"


@pytest.fixture(scope="module")
def results():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", WORKER]
    # A process that waits for another's collective waits for ever: the time limit is the test for hangs.
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, run.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def test_ddp_gradients_are_those_of_the_mean_over_all_targets(results):
    """Steps with 8 and 1 targets, 3 and 0, 0 and 5, and none at all; without and with class weights."""
    assert len(results["plain"]) == 8
    assert max(results["plain"].values()) < 1e-6


def test_accelerate_accumulates_to_the_mean_over_all_targets(results):
    assert results["accelerate"]["gradient"] < 1e-6
    assert results["accelerate"]["gathered"] == 0


def test_trainer_on_two_processes_is_the_trainer_on_one(results, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    from tests.integrations import ddp_worker

    alone = ddp_worker.hugging_face(0)
    schedule = [list(linear()(step / 4)) for step in range(4)]
    assert [list(weights) for weights in alone["seen"]] == results["trainer"]["seen"] == schedule
    torch.testing.assert_close(
        torch.tensor(results["trainer"]["parameters"]), torch.tensor(alone["parameters"]), rtol=0, atol=1e-6
    )


def test_without_processes_it_is_the_mean():
    logits, target = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, -100, 1, 0])
    weight = torch.tensor([1.0, 3.0, 0.5])
    for criterion in (CrossfadeLoss(), CrossfadeLoss(weight=weight, label_smoothing=0.1)):
        torch.testing.assert_close(global_mean(criterion, logits, target), criterion(logits, target))
    soft = torch.softmax(torch.randn(6, 3), 1)
    torch.testing.assert_close(global_mean(CrossfadeLoss(), logits, soft), CrossfadeLoss()(logits, soft))
    assert global_count(CrossfadeLoss(), soft, target) == 11
    assert global_count(CrossfadeLoss(), torch.softmax(torch.randn(2, 3, 4, 5), 1)) == 40
    with pytest.raises(ValueError, match="targets must hold at least one tensor"):
        global_count(CrossfadeLoss())


def test_no_target_at_all_is_zero_with_a_connected_graph():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = global_mean(CrossfadeLoss(), logits, torch.full((4,), -100))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
