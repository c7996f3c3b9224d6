"""Networks of one recipe trained side by side on a GPU, the whole training step of each one CUDA graph.

Small networks leave a GPU waiting for the host: a step is hundreds of kernels of microseconds. A graph launches them
all at once, and the graphs of several networks (methods x seeds) run at the same time, each on a stream of its own.
Everything that changes from step to step lies on the device before an epoch begins: the augmented images (or tokens) in
their order, made once for all methods of a repeat, the loss's weights and the learning rate of every step. So the host
only launches.

Weights, order, augmentation and dropout are those of :func:`crossfade.lab.train.deep.lightning.train`, the reference
beside this path; on the CPU the same steps run without graphs, for tests.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from crossfade.lab.methods import Method, TwoPass
from crossfade.lab.train.deep.fork import shared_epochs
from crossfade.lab.train.deep.lightning import DeepHistory
from crossfade.lab.train.deep.member import Feed, Job, Member
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.deep.text_recipe import TextRecipe
from crossfade.lab.train.hardware import Hardware

__all__ = ["Job", "seconds_an_epoch", "serves", "train_side_by_side"]

_SAVE_SECONDS = 10.0  # between checkpoints at least
_SAVE_SHARE = 0.05  # of the time at most
_TIMED_STEPS = 30


def serves(hardware: Hardware, recipe: ImageRecipe | TextRecipe, method: Method) -> bool:
    """Whether this path trains such networks.

    On one CUDA device, a step in one piece without a loss scaler, no logger; a transformer that isn't to be compiled.
    """
    wanted = hardware.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    alone = hardware.devices * hardware.nodes == int(os.environ.get("WORLD_SIZE", "1")) == 1 and not hardware.logger
    whole = recipe.accumulate == 1 and recipe.precision != "16-mixed" and not isinstance(method, TwoPass)
    return wanted and alone and whole and (isinstance(recipe, ImageRecipe) or not hardware.compile)


def train_side_by_side(
    jobs: Sequence[Job],
    recipe: ImageRecipe | TextRecipe,
    *,
    hardware: Hardware,
    device: Any = "cuda",
    on_progress: Callable[[float], None] | None = None,
    max_epochs: int | None = None,
) -> list[DeepHistory]:
    """Train networks of one recipe, all at once.

    Args:
        jobs: For which :func:`serves` holds. A method that begins as an earlier one of the same split and seed does is
            trained from where they part.
        recipe: The protocol.
        hardware: ``channels_last`` and ``compile`` are looked at.
        device: Where.
        on_progress: Told the fraction done after every epoch.
        max_epochs: Stop after so many, as a kill would.

    Returns:
        A history each, in the jobs' order; ``seconds`` is the time of the call shared out by the epochs trained.
    """
    started = time.perf_counter()
    place = torch.device(device)
    make_feed, make_member = recipe.side_by_side()
    feeds: dict[tuple[int, int], Feed] = {}
    for job in jobs:
        if (at := (id(job.split), job.seed)) not in feeds:
            feeds[at] = make_feed(job.split, recipe, hardware, job.seed, place)
    seen: dict[object, Counter[object]] = defaultdict(Counter)  # steps of one loss are alike
    members = [
        make_member(job, feeds[id(job.split), job.seed], recipe, hardware, seen[id(job.method.g)]) for job in jobs
    ]  # fmt: skip
    _join(members, recipe)
    saved, pause = time.monotonic(), _SAVE_SECONDS
    last = min(recipe.epochs, max_epochs or recipe.epochs)
    for epoch in range(min(member.epoch for member in members), last):
        active = [member for member in members if member.ready(epoch)]
        _epoch(active, epoch)
        if epoch + 1 < recipe.epochs and (time.monotonic() - saved > pause or epoch + 1 == last):
            started_saving = time.monotonic()
            for member in active:
                member.save()
            saved = time.monotonic()
            pause = max(_SAVE_SECONDS, (saved - started_saving) / _SAVE_SHARE)
        if on_progress is not None:
            on_progress((epoch + 1) / recipe.epochs)
    seconds = (time.perf_counter() - started) / max(1, sum(member.trained for member in members))
    return [member.history(seconds * member.trained) for member in members]


def seconds_an_epoch(jobs: Sequence[Job], recipe: ImageRecipe, *, hardware: Hardware, device: Any = "cuda") -> float:
    """Seconds that an epoch of one of these networks takes beside the others: some steps are timed, uncompiled.

    Args:
        jobs: Of one split and seed.
        recipe, hardware, device: As for :func:`train_side_by_side`.
    """
    place, plain = torch.device(device), replace(hardware, compile=False)
    make_feed, make_member = recipe.side_by_side()
    feed = make_feed(jobs[0].split, recipe, plain, jobs[0].seed, place)
    feed.begin(0)
    members = [make_member(replace(job, folder=None, observe=None), feed, recipe, plain) for job in jobs]
    kinds = feed.kinds[:_TIMED_STEPS]
    seconds = 0.0
    for _ in range(2):  # the first time warms up
        for member in members:
            member.begin(0)
        _wait(place)
        started = time.perf_counter()
        for kind in kinds:
            for member in members:
                member.step(kind)
        _wait(place)
        seconds = time.perf_counter() - started
    return seconds * len(feed.kinds) / (len(kinds) * len(members))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _join(members: Sequence[Member], recipe: ImageRecipe | TextRecipe) -> None:
    """Who starts from whom, and when."""
    for at, member in enumerate(members):
        for other in members[:at]:
            epochs = shared_epochs(other.job.method, member.job.method, recipe)
            if other.feed is member.feed and epochs > member.epoch and epochs >= other.epoch:
                member.source, member.epoch = other, epochs


def _epoch(active: Sequence[Member], epoch: int) -> None:
    feeds = {id(member.feed): member.feed for member in active}.values()
    for feed in feeds:
        feed.begin(epoch)
    for member in active:
        member.begin(epoch)
    for step in range(max((len(feed.kinds) for feed in feeds), default=0)):
        for member in active:
            if step < len(member.feed.kinds):
                member.step(member.feed.kinds[step])
    for member in active:
        member.end(epoch)
