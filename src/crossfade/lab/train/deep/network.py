"""The network of a training: building it, and the steps that all loops share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.diagnostics.recorder import Observer
from crossfade.lab.checks import expect
from crossfade.lab.methods import Method, ScaledRate, Start, starts
from crossfade.lab.nets import build
from crossfade.lab.nets.pretrained import load_classifier
from crossfade.lab.train.deep.feeds import Batch, DeepSplit, Inputs, epoch_seed
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe, TextRecipe
from crossfade.lab.train.deep.record import Outputs

_GRID = 5040  # points in an epoch at which two schedules that change at each step are compared


@dataclass(frozen=True, eq=False)
class Job:
    """One network to train.

    Args:
        split: The data of its repeat; all jobs of a repeat share the object.
        method: The method to train with.
        seed: The seed of initial weights, order, augmentation and dropout: the same for every method of a repeat.
        folder: For the checkpoint, from which training resumes, and the log; None to write nothing.
        observe: Called with (epoch, part, index, logits, labels) of every batch of ``"val"`` and ``"test"`` that is
            scored and, by Lightning's loop, of every training batch (part ``"train"``).
        missing: Returns how much of what was observed in so many epochs is missing: no training resumes without it.
    """

    split: DeepSplit
    method: Method
    seed: int
    folder: Path | None = None
    observe: Observer | None = None
    missing: Callable[[int], int] = lambda epochs: 0

    def check(self, net: nn.Module, weights: Mapping[str, Tensor], epochs: int) -> None:
        """Raise ValueError if a checkpoint with these weights, after so many epochs, isn't one of this training."""
        own, found = ({name: value.shape for name, value in one.items()} for one in (net.state_dict(), weights))
        if own != found:
            raise ValueError("its network is another one")
        if missing := self.missing(epochs):
            raise ValueError(f"{missing} values that were recorded until then are missing")


class _StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride, which autocast leaves in float32 on a CPU.

    Its backward pass in bfloat16 takes eight times as long there, or more: ShuffleNetV2's steps take twice as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_cpu:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def build_network(job: Job, recipe: DeepRecipe, *, channels_last: bool) -> nn.Module:
    """Return the network with the initial weights of the job's seed; the global random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(epoch_seed(job.seed, 0, "weights"))
        if isinstance(recipe, TextRecipe):
            return load_classifier(recipe.model, job.split.classes)
        recipe = expect("recipe", recipe, ImageRecipe)
        net = build(recipe.net, job.split.classes, pretrained=recipe.pretrained, dropout=recipe.dropout)
    for module in net.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and max(module.stride) > 1:
            module.__class__ = _StridedDepthwise
    return net.to(memory_format=torch.channels_last) if channels_last else net


def make_optimizer(net: nn.Module, recipe: DeepRecipe, rate: Tensor | None = None) -> torch.optim.Optimizer:
    """Return SGD for images and AdamW for texts; steps as CUDA graphs read the rate from a tensor."""
    first = recipe.learning_rate if rate is None else rate
    on_gpu = rate is not None and rate.is_cuda
    decay = recipe.weight_decay
    if isinstance(recipe, ImageRecipe):
        return torch.optim.SGD(net.parameters(), first, recipe.momentum, weight_decay=decay, fused=on_gpu or None)
    # Under mixed precision Lightning refuses to clip the gradients of a fused optimizer.
    fused = on_gpu if rate is not None else recipe.precision == "32-true" or None
    return torch.optim.AdamW(net.parameters(), first, weight_decay=decay, fused=fused, capturable=on_gpu)


def outputs_of(net: nn.Module, inputs: Inputs) -> Tensor:
    """Return the outputs of the last layer for images or tokens."""
    return net(inputs) if isinstance(inputs, Tensor) else net(**inputs).logits  # type: ignore[no-any-return]


@torch.no_grad()
def scored(job: Job, net: nn.Module, epoch: int, part: str, batches: Iterable[Batch]) -> Outputs:
    """Return the outputs for a part after an epoch, in its order, and show its batches to the job's observer."""
    found = []
    net.eval()
    for inputs, labels, index, _ in batches:
        logits = job.method.class_scores(outputs_of(net, inputs).float())
        found.append((logits, labels, index))
        if job.observe is not None:
            job.observe(epoch, part, index, logits, labels)
    net.train()
    if torch.distributed.is_available() and torch.distributed.is_initialized():  # each process has its examples
        every: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, [[value.cpu() for value in batch] for batch in found])
        found = list(chain.from_iterable(every))
    logits, labels, index = map(torch.cat, zip(*found, strict=True))
    order = index.argsort().to(logits.device)
    return Outputs(logits[order], labels[order])


def step_settings(method: Method, recipe: DeepRecipe, epoch: int, within: float) -> tuple[float, ...]:
    """Return the schedule's values and the learning rate of a step that begins at this fraction of an epoch."""
    progress = (epoch + within if recipe.granularity == "step" else epoch) / recipe.epochs
    rate = recipe.rate(epoch + within)
    rate = rate * method.factor(progress) if isinstance(method, ScaledRate) else rate
    return *method.schedule(progress), rate


def job_starts(
    methods: Sequence[Method], groups: Sequence[Hashable], recipe: DeepRecipe, begun: Sequence[int] = ()
) -> list[Start]:
    """Return where each of several trainings begins, given the arguments of ``methods.starts``.

    The watched epoch, or without one the last epoch, is always trained separately.
    """
    moves = [1 if recipe.granularity == "epoch" else _GRID] * len(methods)
    most = min(recipe.epochs, recipe.watch or recipe.epochs) - 1
    return starts(methods, groups, recipe.epochs, moves, most=most, begun=begun)
