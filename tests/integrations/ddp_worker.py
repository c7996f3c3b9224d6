"""One process of two, started by test_distributed.py under torchrun: prints what it measured as one line of JSON."""

import json
import os
import tempfile

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from crossfade import CrossfadeLoss, constant
from crossfade.integrations.distributed import global_count, global_mean

CLASSES = 5
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0])


def network():
    torch.manual_seed(0)
    return nn.Linear(6, CLASSES)


def data(rank):
    """Micro-batches of a process: 1 to 8 valid targets, some with none at all."""
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.randn(4, 8, 6, generator=generator)
    target = torch.randint(CLASSES, (4, 8), generator=generator)
    for step, valid in enumerate([[8, 1], [3, 0], [0, 5], [0, 0]]):
        target[step, valid[rank] :] = -100
    return inputs, target


def gradient(module):
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def one_process(step, criterion):
    """The same step as one batch on one process."""
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
    """Gradient accumulation over all four micro-batches, then the same in one batch."""
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
    """The Trainer on two processes x 2 accumulated batches; test_distributed.py compares with one process."""
    import transformers

    from tests.integrations.test_hf_trainer import causal_lm, parameters, rows, train

    transformers.logging.set_verbosity_error()
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


if __name__ == "__main__":
    rank = int(os.environ.get("RANK", "0"))
    results = {}
    if world() > 1:
        dist.init_process_group("gloo")
        results = {"plain": plain_ddp(rank), "accelerate": accelerate(rank)}
    results["trainer"] = hugging_face(rank)
    if rank == 0:
        print("RESULT " + json.dumps(results), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()
