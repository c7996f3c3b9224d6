"""A plain loop and Accelerate's: killed, resumed from the step in the checkpoint, and the same to the last bit."""

from functools import partial

import pytest
import torch
from torch import nn

from crossfade import CrossfadeLoss, Fade, cross_entropy, gradual, linear, ramp, staircase
from crossfade.objectives import power

STEPS = 12


def data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(STEPS, 8, 4, generator=generator)
    return inputs, torch.randint(3, (STEPS, 8), generator=generator)


def make():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def plain(criterion, model, optimizer, first, last):
    for step in range(first, last):
        inputs, target = (part[step] for part in data())
        loss = criterion.at(step / STEPS)(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    "criterion",
    [
        *(partial(CrossfadeLoss, schedule) for schedule in (linear(), gradual(), staircase([0.0, 0.5]))),
        partial(Fade, power, q=ramp(0.0, 0.7)),
    ],
)
def test_a_plain_loop_resumes_to_the_last_bit(tmp_path, criterion):
    whole, optimizer = make()
    plain(criterion(), whole, optimizer, 0, STEPS)

    model, optimizer = make()
    plain(criterion(), model, optimizer, 0, 7)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}, tmp_path / "last.pt")

    model, optimizer = make()
    state = torch.load(tmp_path / "last.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    plain(criterion(), model, optimizer, state["step"], STEPS)
    assert torch.equal(model.weight, whole.weight)


def test_a_cross_entropy_checkpoint_loads_strictly():
    class Module(nn.Module):
        def __init__(self, criterion):
            super().__init__()
            self.network, self.criterion = nn.Linear(4, 3), criterion

    before = Module(nn.CrossEntropyLoss(weight=torch.ones(3))).state_dict()
    Module(CrossfadeLoss(weight=torch.zeros(3))).load_state_dict(before, strict=True)


def accelerated(folder, first, last, schedule=linear()):  # noqa: B008
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(*make())
    criterion = CrossfadeLoss(schedule)
    if first:
        accelerator.load_state(folder)
    for step in range(first, last):
        inputs, target = (part[step] for part in data())
        with accelerator.accumulate(model):
            loss = criterion.at(step / STEPS)(model(inputs), target)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    if last < STEPS:
        accelerator.save_state(folder)
    return accelerator.unwrap_model(model)


def test_accelerate_resumes_to_the_last_bit(tmp_path):
    whole = accelerated(tmp_path, 0, STEPS)
    accelerated(tmp_path / "half", 0, 6)
    resumed = accelerated(tmp_path / "half", 6, STEPS)
    assert torch.equal(resumed.weight, whole.weight)
    assert not torch.equal(whole.weight, accelerated(tmp_path, 0, STEPS, cross_entropy()).weight)
