"""How long image networks will take on this device: some steps of each are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import cross_entropy

from crossfade.lab.data.images import ImageTask
from crossfade.lab.nets import build
from crossfade.lab.train.deep.side_by_side import Job, seconds_an_epoch, serves

if TYPE_CHECKING:
    from crossfade.lab.train.deep.recipe import ImageRecipe
    from crossfade.lab.train.hardware import Hardware
    from crossfade.lab.trial import Trial

__all__ = ["estimate"]

_BESIDE = 4  # networks timed side by side: enough to see what that gains


def estimate(trials: Sequence[Trial], hardware: Hardware) -> float:
    """Seconds that the trials take, each from its start and uncompiled; in graphs where they will be."""
    gpu = hardware.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    place, seconds = torch.device("cuda" if gpu else "cpu"), 0.0
    for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
        alike = tuple(group)
        recipe, (rows, inputs, classes) = cast("ImageRecipe", alike[0].recipe), alike[0].task.shape
        side = recipe.size or round((inputs / 3) ** 0.5)
        step, forward = _time(build(recipe.net, classes).to(place), side, classes, place)
        served = [
            trial for trial in alike if isinstance(trial.task, ImageTask) and serves(hardware, recipe, trial.method)
        ]
        in_graphs = _epoch_in_graphs(served, recipe, hardware)
        for trial in alike:
            passes = 2 if trial.method.name == "cot" else 1
            epoch = rows * step * passes / (hardware.devices * hardware.nodes)
            if in_graphs and trial in served:
                epoch = in_graphs
            tested = trial.task.describe()["n_test"] * sum(map(recipe.scored, range(recipe.epochs)))
            seconds += recipe.epochs * epoch + tested * forward / (hardware.devices * hardware.nodes)
    return seconds


def _epoch_in_graphs(trials: Sequence[Trial], recipe: ImageRecipe, hardware: Hardware) -> float | None:
    """Seconds an epoch of one network of several side by side; None where they aren't trained so."""
    if not trials:
        return None
    split: Any = trials[0].task.split(0)
    try:
        return seconds_an_epoch([Job(split, trial.method, 0) for trial in trials[:_BESIDE]], recipe, hardware=hardware)
    except RuntimeError:  # no memory for so many, or a loss that waits for the host: the run itself finds another way
        return None


def _time(net: Any, side: int, classes: int, place: torch.device) -> tuple[float, float]:
    """Seconds an image: of a training step, of a forward pass."""
    count = 128 if place.type == "cuda" else 16 if side < 100 else 4
    images, labels = torch.randn(count, 3, side, side, device=place), torch.randint(classes, (count,), device=place)

    def step() -> None:
        torch.autograd.backward(cross_entropy(net(images), labels))

    def forward() -> None:
        with torch.no_grad():
            net(images)

    def seconds(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    best = [min(seconds(work) for _ in range(4)) for work in (step, forward)]
    return best[0], best[1]
