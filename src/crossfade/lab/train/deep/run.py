"""Trials of deep networks, in turn or side by side; after an interruption each goes on from its last epoch."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import lightning.pytorch as pl
import torch.distributed

from crossfade.errors import UserError
from crossfade.lab.data.image_stream import StreamSplit
from crossfade.lab.data.images import ImageSplit, ImageTask
from crossfade.lab.data.texts import TextSplit, TextTask
from crossfade.lab.methods import Start
from crossfade.lab.provenance import provenance
from crossfade.lab.store import Outcome
from crossfade.lab.train.checks import expect
from crossfade.lab.train.deep import side_by_side
from crossfade.lab.train.deep.batches import DeepSplit
from crossfade.lab.train.deep.lightning import train
from crossfade.lab.train.deep.network import Job, job_starts
from crossfade.lab.train.deep.recipe import DeepRecipe, ImageRecipe
from crossfade.lab.train.deep.watch import Watcher, escapes
from crossfade.lab.train.deep.weights import save_model
from crossfade.lab.train.executor import Batch, Executor, Tick, cost, error_line, train_in_parts
from crossfade.lab.train.graphs import empty_memory
from crossfade.lab.train.hardware import Hardware, process_rank
from crossfade.lab.train.outcome import History, outcome
from crossfade.lab.trial import Trial, seed

_AT_ONCE = 8  # networks side by side: more don't train faster on an H200


def executor(hardware: Hardware, work: Path, keep: Path | None = None) -> Executor:
    """Return an executor that trains deep networks: each with Lightning, one after the other.

    On one GPU, networks that ``side_by_side`` serves are trained at the same time.

    Args:
        hardware: Where.
        work: A folder for checkpoints, one folder a trial, removed when it is done. Logs stay, in ``logs/KEY``.
        keep: A folder for weights: ``KEY.safetensors`` of the last epoch, ``KEY.best.safetensors`` of the chosen one
            where the validation part chooses it.
    """

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        runner = _Runner(hardware, work, keep, tick)
        trials = [trial for batch in batches for trial in batch]
        gc.freeze()  # what is there already isn't looked through after every trial
        try:
            for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
                yield from runner.train_alike(tuple(group))
        finally:
            gc.unfreeze()

    return execute


class _Runner:
    def __init__(self, hardware: Hardware, work: Path, keep: Path | None, tick: Tick) -> None:
        self.hardware, self.work, self.keep, self.tick = hardware, work, keep, tick

    def train_alike(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Train trials of one recipe and one task."""
        served = {trial.key for trial in trials if self.serves(trial)}
        yield from self.side_by_side([trial for trial in trials if trial.key in served])
        rest = [trial for trial in trials if trial.key not in served]
        for _, repeat in groupby(rest, key=lambda trial: trial.repeat):
            yield from self.in_turn(tuple(repeat))

    def serves(self, trial: Trial) -> bool:
        """Return whether it can be trained side by side with others, and hasn't begun in another way."""
        here = isinstance(trial.task, ImageTask | TextTask) and not (self.work / trial.key / "last.ckpt").exists()
        return here and side_by_side.serves(self.hardware, _recipe(trial), trial.method)

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
            empty_memory()  # networks and their graphs hold each other, and the next ones need the memory
            yield from zip(now, results, strict=True)

    def _together(self, trials: Sequence[Trial], jobs: Sequence[Job], places: Sequence[int]) -> list[History]:
        mine, recipe = [jobs[at] for at in places], _recipe(trials[0])
        report = partial(self._report, sum(cost(trials[at]) for at in places))
        try:
            return side_by_side.train_side_by_side(mine, recipe, hardware=self.hardware, on_progress=report)
        except (RuntimeError, ValueError):
            if len(mine) > 1:
                raise
        # A loss that waits for the host, say, or no memory for a graph: Lightning names the cause, or works.
        empty_memory()
        return [train(mine[0], recipe, hardware=self.hardware, on_progress=report)]

    def in_turn(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Train trials of one recipe and one repeat of a task.

        Those that begin alike are trained once as far as they do: the second goes on from the first's checkpoint. A
        resumed training is the undisturbed one, so the numbers are those of training each from the start.
        """
        split = _split(trials[0], trials[0].repeat)  # one at a time in memory
        alone = self.hardware.devices * self.hardware.nodes == int(os.environ.get("WORLD_SIZE", "1")) == 1
        methods = [trial.method for trial in trials] if alone else []
        places = job_starts(methods, [0] * len(methods), _recipe(trials[0])) or [Start()] * len(trials)
        for at, (trial, start) in enumerate(zip(trials, places, strict=True)):
            self.tick(0.0)
            saved = 0 if start.source is None else self._take_over(trials[start.source], start.epoch, trial)
            wanted = {place.epoch for place in places if place.source == at}
            keep = [_Keep(self._checkpoint(trial), wanted)] if wanted else []
            result = self._train(trial, self._job(trial, split), keep)
            if saved and result.result is not None:
                result = Outcome({**result.result, "shared_epochs": saved}, result.curves)
            gc.collect()  # a trainer and its network hold each other: a large one must not wait for its turn
            yield trial, result
        for trial in trials:
            for fork in self.work.glob(f"{trial.key}.*.fork"):
                fork.unlink()

    def _train(self, trial: Trial, job: Job, callbacks: Sequence[pl.Callback]) -> Outcome:
        report = partial(self._report, cost(trial))
        try:
            history = train(job, _recipe(trial), hardware=self.hardware, callbacks=callbacks, on_progress=report)
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            return Outcome(error=error_line(error))
        return self._finished(trial, job, history)

    def _job(self, trial: Trial, split: DeepSplit) -> Job:
        folder, recipe = self.work / trial.key, _recipe(trial)
        watcher = Watcher(folder / "p", len(split.test), recipe) if recipe.watch else None
        return Job(split, trial.method, seed(trial, "train"), folder, watcher)

    def _report(self, whole: float, part: float) -> None:
        self.tick(part * whole)

    def _finished(self, trial: Trial, job: Job, history: History) -> Outcome:
        """Return the outcome, keep weights and log, and remove the trial's folder."""
        recipe, folder = _recipe(trial), self.work / trial.key
        if not history.finite or history.chosen < 0:
            return Outcome(error=f"the weights diverge at learning rate {recipe.learning_rate:g}; try a smaller one")
        result = _outcome(job.split, recipe, history)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # what another process has recorded must be there, and may be removed after it
        if process_rank() > 0:
            return result
        if recipe.watch:
            result = Outcome({**(result.result or {}), **escapes(folder / "p", recipe)}, result.curves)
        if self.keep is not None:
            _keep_weights(self.keep, trial, job.split, history, result)
        if (folder / "log").is_dir():
            shutil.copytree(folder / "log", self.work / "logs" / trial.key, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _checkpoint(self, trial: Trial) -> Path:
        return self.work / trial.key / "last.ckpt"

    def _take_over(self, source: Trial, epoch: int, trial: Trial) -> int:
        """Lay another trial's checkpoint where this one looks for its own, and return how many epochs that saves."""
        fork, own = _fork(self._checkpoint(source), epoch), self._checkpoint(trial)
        if own.exists() or not fork.exists():
            return 0
        own.parent.mkdir(parents=True, exist_ok=True)
        _copy(fork, own)
        return epoch


class _Keep(pl.Callback):  # type: ignore[misc]
    """Keeps the checkpoints that other trials start from, after these epochs."""

    def __init__(self, last: Path, epochs: set[int]) -> None:
        self.last, self.epochs = last, epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The checkpoint of the epoch before was written when that epoch ended.
        fork = _fork(self.last, trainer.current_epoch)
        if trainer.current_epoch in self.epochs and not fork.exists() and self.last.exists():
            _copy(self.last, fork)


def _fork(last: Path, epoch: int) -> Path:
    """Return where a trial's checkpoint after this epoch is kept for others: beside its folder, which is removed."""
    return last.parent.with_name(f"{last.parent.name}.{epoch}.fork")


def _copy(source: Path, target: Path) -> None:
    part = target.with_suffix(".part")
    shutil.copyfile(source, part)
    part.replace(target)


def _split(trial: Trial, repeat: int) -> DeepSplit:
    split = trial.task.split(repeat)
    if not isinstance(split, ImageSplit | StreamSplit | TextSplit):
        raise TypeError(f"split: expected images or texts, got a {type(split).__name__}")
    return split


def _recipe(trial: Trial) -> DeepRecipe:
    return expect("recipe", trial.recipe, DeepRecipe)


def _outcome(split: DeepSplit, recipe: DeepRecipe, history: History) -> Outcome:
    about = {
        "n_train": len(split.train),
        "n_val": 0 if split.validation is None else len(split.validation),
        "n_test": len(split.test),
        "classes": split.classes,
        "seconds": round(history.seconds, 2),
        # The best test epoch is what many tables print; it is chosen with the test labels, and never our result.
        "best_test_accuracy": float(history.curves["test_accuracy"].max()),
        "scale": recipe.scale,
        "device": history.device,
    }
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
    save_model(folder / f"{trial.key}.safetensors", history.last, {**about, "epoch": recipe.epochs})
    if history.weights is not history.last:
        epoch = int(history.curves["epoch"][history.chosen])
        save_model(folder / f"{trial.key}.best.safetensors", history.weights, {**about, "epoch": epoch})
