"""How long image networks will take on this device: some steps of each are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from crossfade.lab.data.images import ImageSplit, ImageTask
from crossfade.lab.methods import TwoPass
from crossfade.lab.nets import build
from crossfade.lab.train.deep.network import Job
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.side_by_side import seconds_an_epoch, serves

if TYPE_CHECKING:
    from torch import nn

    from crossfade.lab.train.hardware import Hardware
    from crossfade.lab.trial import Trial

_SIDE_BY_SIDE = 4  # networks that are timed side by side: enough to see what that gains


def estimate(trials: Sequence[Trial], hardware: Hardware) -> float:
    """Return the seconds that trials on images take, each from its start, uncompiled; in graphs where they will be."""
    gpu = hardware.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device, devices, seconds = torch.device("cuda" if gpu else "cpu"), hardware.devices * hardware.nodes, 0.0
    for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
        alike = tuple(group)
        task, recipe = alike[0].task, alike[0].recipe
        if not isinstance(recipe, ImageRecipe):
            raise TypeError(f"trials must be of image networks, got a {type(recipe).__name__}")
        rows, inputs, classes = task.shape
        side = recipe.size or round((inputs / 3) ** 0.5)
        step, forward = _seconds_an_image(build(recipe.net, classes).to(device), side, classes, device)
        served = [one for one in alike if isinstance(task, ImageTask) and serves(hardware, recipe, one.method)]
        in_graphs = _epoch_in_graphs(served, recipe, hardware)
        tested = task.describe()["n_test"] * sum(map(recipe.scored, range(recipe.epochs)))
        for trial in alike:
            passes = 2 if isinstance(trial.method, TwoPass) else 1
            epoch = rows * step * passes / devices
            if in_graphs and trial in served:
                epoch = in_graphs
            seconds += recipe.epochs * epoch + tested * forward / devices
    return seconds


def _epoch_in_graphs(trials: Sequence[Trial], recipe: ImageRecipe, hardware: Hardware) -> float | None:
    """Return the seconds of an epoch of one network of several side by side; None where they aren't trained so."""
    split = trials[0].task.split(0) if trials else None
    if not isinstance(split, ImageSplit):
        return None
    jobs = [Job(split, trial.method, 0) for trial in trials[:_SIDE_BY_SIDE]]
    try:
        return seconds_an_epoch(jobs, recipe, hardware=hardware)
    except RuntimeError:  # no memory for so many, or a loss that waits for the host: the run itself finds another way
        return None


def _seconds_an_image(net: nn.Module, side: int, classes: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds that a training step and a forward pass take, for each image."""
    count = 128 if device.type == "cuda" else 16 if side < 100 else 4
    images, labels = torch.randn(count, 3, side, side, device=device), torch.randint(classes, (count,), device=device)

    def step() -> None:
        torch.autograd.backward(cross_entropy(net(images), labels))

    def forward() -> None:
        with torch.no_grad():
            net(images)

    def seconds(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    best = [min(seconds(work) for _ in range(4)) for work in (step, forward)]
    return best[0], best[1]
