"""Trials of deep networks, trained one after the other or side by side, and an estimate of the time they take.

An interrupted trial resumes from its last checkpoint.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy

from crossfade.diagnostics.recorder import Watcher
from crossfade.errors import UserError
from crossfade.kernels.graphs import empty_memory
from crossfade.lab import checkpoints
from crossfade.lab.checks import check_choice, expect
from crossfade.lab.data.images import ImageSplit, StreamSplit, StreamTask
from crossfade.lab.data.texts import TextSplit
from crossfade.lab.hardware import Hardware, process_rank
from crossfade.lab.methods import Start, TwoPass
from crossfade.lab.nets import build, save_model
from crossfade.lab.provenance import provenance
from crossfade.lab.scores import pack_hits
from crossfade.lab.store import Outcome
from crossfade.lab.train.deep import side_by_side
from crossfade.lab.train.deep.feeds import DeepSplit
from crossfade.lab.train.deep.lightning import CHECKPOINT, train
from crossfade.lab.train.deep.network import Job, job_starts
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe
from crossfade.lab.train.deep.record import escapes
from crossfade.lab.train.executor import Batch, Executor, Tick, by_fraction, error_line, train_in_parts
from crossfade.lab.train.outcome import History, outcome
from crossfade.lab.trial import Trial, seed

_AT_ONCE = 8  # networks side by side; with more an H200 isn't faster
_TIMED = 4  # networks that are timed side by side for an estimate


def executor(hardware: Hardware, work: Path, keep: Path | None = None) -> Executor:
    """Return an executor that trains deep networks, one after the other with Lightning or, on one GPU, side by side.

    Args:
        work: A folder for checkpoints. Each trial's own folder in it is removed at the end; logs stay in ``logs/KEY``.
        keep: A folder for weights: ``KEY.safetensors`` of the last epoch and, if the validation part chooses the epoch,
            ``KEY.best.safetensors`` of the chosen one.

    Raises:
        UserError: an accelerator that Lightning doesn't know.
    """
    known = ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators()))
    check_choice("--accelerator", hardware.accelerator, known)

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        runner = _Runner(hardware, work, keep, tick)
        trials = [trial for batch in batches for trial in batch]
        gc.freeze()  # collections after each trial needn't look at the objects that exist already
        try:
            for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
                for trial, result in runner.train_alike(tuple(group)):
                    yield trial, result
                    if process_rank() == 0:  # which has stored it, and no longer reads what all have recorded there
                        shutil.rmtree(work / trial.key, ignore_errors=True)
        finally:
            gc.unfreeze()

    return execute


class _Runner:
    def __init__(self, hardware: Hardware, work: Path, keep: Path | None, tick: Tick) -> None:
        self.hardware, self.work, self.keep, self.tick = hardware, work, keep, tick

    def train_alike(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Train trials of one recipe and one task."""
        # Trials with a checkpoint of Lightning's resume from it.
        served = {t.key for t in trials if _served(t, self.hardware) and not self._checkpoint(t).exists()}
        yield from self.side_by_side([trial for trial in trials if trial.key in served])
        rest = [trial for trial in trials if trial.key not in served]
        for _, repeat in groupby(rest, key=lambda trial: trial.repeat):
            yield from self.in_turn(tuple(repeat))

    def side_by_side(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Train trials of one recipe, several at once."""
        for first in range(0, len(trials), _AT_ONCE):
            now = trials[first : first + _AT_ONCE]
            splits = {repeat: _split(now[0], repeat) for repeat in {trial.repeat for trial in now}}
            jobs = [self._job(trial, splits[trial.repeat]) for trial in now]
            found = train_in_parts(now, partial(self._together, now, jobs))
            results = [
                each if isinstance(each, Outcome) else self._finished(trial, job, each)
                for trial, job, each in zip(now, jobs, found, strict=True)
            ]
            del found, jobs
            empty_memory()  # frees the reference cycles of networks and graphs for the next ones
            yield from zip(now, results, strict=True)

    def _together(self, trials: Sequence[Trial], jobs: Sequence[Job], places: Sequence[int]) -> list[History]:
        mine, recipe = [jobs[at] for at in places], _recipe(trials[0])
        report = by_fraction(self.tick, [trials[at] for at in places])
        try:
            return side_by_side.train_side_by_side(mine, recipe, hardware=self.hardware, on_progress=report)
        except (RuntimeError, ValueError):
            if len(mine) > 1:
                raise
        # Perhaps a loss that waits for the host, or too little memory for a graph: Lightning works, or names the cause.
        empty_memory()
        return [train(mine[0], recipe, hardware=self.hardware, on_progress=report)]

    def in_turn(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Train trials of one recipe and one repeat of a task.

        Epochs that several trials have in common are trained once: the second trial continues from a checkpoint of the
        first one. The numbers are the same as if each was trained from the start.
        """
        split = _split(trials[0], trials[0].repeat)  # one at a time in memory
        places = [Start()] * len(trials)
        if side_by_side.one_process(self.hardware):
            places = job_starts([trial.method for trial in trials], [0] * len(trials), _recipe(trials[0]))
        for at, trial in enumerate(trials):
            self.tick(0.0)
            own, pairs = self._checkpoint(trial), zip(trials, places, strict=True)
            forks = {self._checkpoint(other): place.epoch for other, place in pairs if place.source == at}
            result = self._train(trial, self._job(trial, split), [_Fork(own, forks)])
            gc.collect()  # a trainer and its network form a reference cycle, and may be large
            yield trial, result

    def _train(self, trial: Trial, job: Job, callbacks: Sequence[pl.Callback]) -> Outcome:
        report = by_fraction(self.tick, [trial])
        try:
            history = train(job, _recipe(trial), hardware=self.hardware, callbacks=callbacks, on_progress=report)
        except UserError:
            raise
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise UserError(f"--accelerator {self.hardware.accelerator}, --devices: {error}") from None
        except (RuntimeError, ValueError) as error:
            return Outcome(error=error_line(error))
        return self._finished(trial, job, history)

    def _job(self, trial: Trial, split: DeepSplit) -> Job:
        folder, recipe = self.work / trial.key, _recipe(trial)
        job = Job(split, trial.method, seed(trial, "train"), folder)
        if not recipe.watch:
            return job
        watched = (recipe.watch - 1, recipe.epochs - 1)
        watcher = Watcher({"test": (folder / "p", len(split.test))}, recipe.epochs, watched)
        return replace(job, observe=watcher, missing=watcher.missing)

    def _checkpoint(self, trial: Trial) -> Path:
        return self.work / trial.key / CHECKPOINT

    def _finished(self, trial: Trial, job: Job, history: History) -> Outcome:
        """Return the outcome, and keep weights and log."""
        recipe, folder = _recipe(trial), self.work / trial.key
        if not history.finite or history.chosen < 0:
            return Outcome(error=f"the weights diverge at learning rate {recipe.learning_rate:g}; try a smaller one")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # all processes have finished recording before the folder is read and removed
        if process_rank() > 0:
            return _outcome(job.split, recipe, history, {})
        if missing := job.missing(recipe.epochs):
            return Outcome(error=f"p_y of {missing} watched images wasn't recorded; run it again")
        more = escapes(folder / "p", recipe) if recipe.watch else {}
        if history.shared:
            more["shared_epochs"] = history.shared
        result = _outcome(job.split, recipe, history, more)
        if self.keep is not None:
            _keep_weights(self.keep, trial, job.split, history, result)
        if (folder / "log").is_dir():
            shutil.copytree(folder / "log", self.work / "logs" / trial.key, dirs_exist_ok=True)
        return result


class _Fork(pl.Callback):  # type: ignore[misc]
    """A callback that copies a training's checkpoint after some epochs to the trials that continue from there."""

    def __init__(self, own: Path, forks: Mapping[Path, int]) -> None:
        self.own, self.forks = own, forks

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The checkpoint of the epoch before was written when that epoch ended.
        for fork, epoch in self.forks.items():
            if epoch == trainer.current_epoch and not fork.exists() and self.own.exists():
                state = checkpoints.load(self.own)
                state["crossfade"]["shared"] = epoch
                checkpoints.save(state, fork)


def _split(trial: Trial, repeat: int) -> DeepSplit:
    split = trial.task.split(repeat)
    if not isinstance(split, ImageSplit | StreamSplit | TextSplit):
        raise TypeError(f"split: expected images or texts, got a {type(split).__name__}")
    return split


def _served(trial: Trial, hardware: Hardware) -> bool:
    return not isinstance(trial.task, StreamTask) and side_by_side.serves(hardware, _recipe(trial), trial.method)


def _recipe(trial: Trial) -> DeepRecipe:
    return expect("recipe", trial.recipe, DeepRecipe)


def _outcome(split: DeepSplit, recipe: DeepRecipe, history: History, more: Mapping[str, int]) -> Outcome:
    about: dict[str, object] = {
        "n_train": len(split.train),
        "n_val": 0 if split.validation is None else len(split.validation),
        "n_test": len(split.test),
        "classes": split.classes,
        "seconds": round(history.seconds, 2),
        # Many tables print the best test epoch. It is chosen by the test labels, so it is never the result here.
        "best_test_accuracy": float(history.curves["test_accuracy"].max()),
        "scale": recipe.scale,
        "device": history.device,
        **more,
    }
    if split.tested is not None and history.right is not None:
        about["hits"] = pack_hits(len(split.tested), split.tested, history.right)
    return outcome(history, recipe.learning_rate, about, epochs=True)


def _keep_weights(folder: Path, trial: Trial, split: DeepSplit, history: History, result: Outcome) -> None:
    recipe = expect("recipe", trial.recipe, ImageRecipe)
    assert not isinstance(split, TextSplit)
    about = {
        "net": recipe.net,
        "classes": split.classes,
        "dropout": recipe.dropout,
        "mean": split.mean.tolist(),
        "std": split.std.tolist(),
        "trial": trial.content,
        "key": trial.key,
        "seed": seed(trial, "train"),
        "result": dict(result.result or {}),
        **provenance(),
    }
    assert history.last is not None
    end, chosen = {"epoch": recipe.epochs}, {"temperature": history.scores.get("temperature")}
    whole = history.weights is history.last  # then they are the chosen weights
    save_model(folder / f"{trial.key}.safetensors", history.last, {**about, **end, **(chosen if whole else {})})
    if not whole:
        chosen["epoch"] = int(history.curves["epoch"][history.chosen])
        save_model(folder / f"{trial.key}.best.safetensors", history.weights, {**about, **chosen})


def estimate(trials: Sequence[Trial], hardware: Hardware) -> float:
    """Return an estimate of the seconds that trials on images take without compilation, by timing some steps."""
    device = torch.device("cuda" if side_by_side.uses_cuda(hardware) else "cpu")
    devices, seconds = hardware.devices * hardware.nodes, 0.0
    for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
        alike = tuple(group)
        task, recipe = alike[0].task, expect("recipe", alike[0].recipe, ImageRecipe)
        rows, inputs, classes = task.shape
        side = recipe.size or round((inputs / 3) ** 0.5)
        step, forward = _seconds_an_image(build(recipe.net, classes).to(device), side, classes, device)
        served, in_graphs = [trial for trial in alike if _served(trial, hardware)], 0.0
        if served:
            split = _split(served[0], 0)
            jobs = [Job(split, trial.method, 0) for trial in served[:_TIMED]]
            with suppress(RuntimeError):  # too little memory, or a loss that waits for the host
                in_graphs = side_by_side.seconds_an_epoch(jobs, recipe, hardware=hardware)
        tested = task.describe()["n_test"] * sum(map(recipe.scored, range(recipe.epochs)))
        for trial in alike:
            passes = 2 if isinstance(trial.method, TwoPass) else 1
            epoch = in_graphs if in_graphs and trial in served else rows * step * passes / devices
            seconds += recipe.epochs * epoch + tested * forward / devices
    return seconds


def _seconds_an_image(net: nn.Module, side: int, classes: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of a training step and of a forward pass per image."""
    count = 128 if device.type == "cuda" else 16 if side < 100 else 4
    images, labels = torch.randn(count, 3, side, side, device=device), torch.randint(classes, (count,), device=device)

    def seconds(training: bool) -> float:
        started = time.perf_counter()
        with torch.set_grad_enabled(training):
            logits = net(images)
        if training:
            torch.autograd.backward(cross_entropy(logits, labels))
        side_by_side.wait(device)
        return (time.perf_counter() - started) / count

    step, forward = (min(seconds(training) for _ in range(4)) for training in (True, False))
    return step, forward
