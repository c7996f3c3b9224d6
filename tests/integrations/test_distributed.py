"""Two gloo processes with unequal numbers of targets, some with none, against one process with everything."""

import os
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from accelerate import Accelerator

from crossfade import CrossfadeLoss, constant, linear
from crossfade.integrations.distributed import global_count, global_mean
from tests.integrations.fades import own_fade
from tests.integrations.test_hf_trainer import causal_lm, parameters, rows, train

CLASSES = 5
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0])


def network():
    torch.manual_seed(0)
    return nn.Linear(6, CLASSES)


def data(rank):
    """Return the micro-batches of a process: 1 to 8 valid targets, some with none at all."""
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.randn(4, 8, 6, generator=generator)
    target = torch.randint(CLASSES, (4, 8), generator=generator)
    for step, valid in enumerate([[8, 1], [3, 0], [0, 5], [0, 0]]):
        target[step, valid[rank] :] = -100
    return inputs, target


def gradient(module):
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def one_process(step, criterion):
    """Take the same step as one batch on one process."""
    inputs, target = (torch.cat([data(rank)[part][step] for rank in (0, 1)]) for part in (0, 1))
    model = network()
    loss = criterion(model(inputs), target)
    loss.backward()
    return loss, gradient(model)


def plain_ddp(rank):
    errors = {}
    for name, criterion in {
        "mean": CrossfadeLoss(constant(0.25)),
        "class weights": CrossfadeLoss(constant(0.25), weight=WEIGHT),
        "own": own_fade(constant(0.25), weight=WEIGHT),
    }.items():
        inputs, target = data(rank)
        for step in range(4):
            model = DistributedDataParallel(network())
            loss = global_mean(criterion, model(inputs[step]), target[step])
            loss.backward()
            value = loss.detach().clone()
            dist.all_reduce(value)
            expected_value, expected = one_process(step, criterion)
            if step == 3:  # no target anywhere: the mean over nothing is NaN on one process, and here 0
                expected_value, expected = torch.zeros(()), torch.zeros_like(expected)
            errors[f"{name} {step}"] = max(
                (gradient(model) - expected).abs().max().item(), (value / 2 - expected_value).abs().item()
            )
    return errors


def accelerate(rank):
    """Accumulate gradients over all four micro-batches, then take the same step in one batch."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    criterion = CrossfadeLoss(constant(0.25))
    model = accelerator.prepare(network())
    inputs, target = data(rank)
    count = global_count(criterion, *target)
    for step in range(4):
        with accelerator.accumulate(model):
            loss = global_mean(criterion, model(inputs[step]), target[step], count=count)
            accelerator.backward(loss * accelerator.gradient_accumulation_steps)
    everything = [torch.cat([part[i].flatten(0, 1) for part in (data(0), data(1))]) for i in (0, 1)]
    whole = network()
    criterion(whole(everything[0]), everything[1]).backward()
    hits = (model(inputs.flatten(0, 1)).argmax(1) == target.flatten())[target.flatten() != -100].sum()
    gathered = accelerator.gather(hits.reshape(1)).sum()
    expected = (whole(everything[0]).argmax(1) == everything[1])[everything[1] != -100].sum()
    return {
        "gradient": (gradient(model) - gradient(whole)).abs().max().item(),
        "gathered": (gathered - expected).item(),
    }


def hugging_face(rank):
    """Train with the Trainer on these processes, accumulating 16 rows for each step."""
    data = [*rows(16), *({"input_ids": row["input_ids"], "labels": torch.full((6,), -100)} for row in rows(16))]
    data = data[::2] + data[1::2]  # whole micro-batches have no target
    with tempfile.TemporaryDirectory() as folder:
        trainer, seen = train(
            causal_lm(), data, folder, per_device_train_batch_size=4, gradient_accumulation_steps=16 // (4 * world()),
            num_train_epochs=2, train_sampling_strategy="sequential", dataloader_drop_last=True,
        )  # fmt: skip
    return {"parameters": parameters(trainer).tolist(), "seen": seen}


def world():
    return int(os.environ.get("WORLD_SIZE", "1"))


def measure():
    """Return this process's differences to one process, and the Trainer's parameters."""
    rank = dist.get_rank()
    return {"plain": plain_ddp(rank), "accelerate": accelerate(rank), "trainer": hugging_face(rank)}


@pytest.fixture(scope="module")
def results(processes):
    return processes(2, measure)


def test_ddp_gradients_are_those_of_the_mean_over_all_targets(results):
    """Steps with 8 and 1 targets, 3 and 0, 0 and 5, and none at all; with class weights, and with another loss."""
    assert len(results["plain"]) == 12
    assert max(results["plain"].values()) < 1e-6


def test_accelerate_accumulates_to_the_mean_over_all_targets(results):
    assert results["accelerate"]["gradient"] < 1e-6
    assert results["accelerate"]["gathered"] == 0


def test_trainer_on_two_processes_is_the_trainer_on_one(results, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = hugging_face(0)
    assert alone["seen"] == results["trainer"]["seen"] == [linear()(step / 4) for step in range(4)]
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_class_probabilities_in_half_precision_are_counted_exactly(dtype):
    for count in (257, 70_000):
        assert global_count(CrossfadeLoss(), torch.full((count, 2), 0.5, dtype=dtype)) == count


def test_criteria_without_a_global_mean_are_refused():
    logits, target = torch.randn(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="z_loss counts all targets alike"):
        global_mean(CrossfadeLoss(weight=torch.tensor([1.0, 2.0]), z_loss=0.1), logits, target)
    with pytest.raises(TypeError, match=r"criterion must be a crossfade\.CrossfadeLoss, got CrossEntropyLoss"):
        global_mean(torch.nn.CrossEntropyLoss(), logits, target)


def test_no_target_at_all_is_zero_with_a_connected_graph():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = global_mean(CrossfadeLoss(), logits, torch.full((4,), -100))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("soft", [False, True])
def test_a_shift_counts_the_targets_that_are_left(soft):
    logits, target = torch.randn(2, 6, CLASSES), torch.randint(CLASSES, (2, 6))
    target[0, 3] = -100
    criterion = CrossfadeLoss(shift=2, z_loss=0.1)
    target = torch.rand(2, 6, CLASSES) if soft else target
    assert global_count(criterion, target) == (8 if soft else 7)
    torch.testing.assert_close(global_mean(criterion, logits, target), criterion(logits, target))
