"""Trials of deep networks, in turn or side by side; after an interruption each goes on from its last epoch."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossfade.errors import UserError
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, cost, error_line
from crossfade.lab.train.hardware import Hardware, process_rank
from crossfade.lab.train.outcome import short
from crossfade.lab.trial import Trial, seed

if TYPE_CHECKING:
    from crossfade.lab.data.images import ImageSplit
    from crossfade.lab.train.deep.lightning import DeepHistory
    from crossfade.lab.train.deep.recipe import ImageRecipe

__all__ = ["escapes", "executor"]

_AT_ONCE = 8  # networks side by side: more don't train faster on an H200
_NEAR = 0.2  # p_y that parts the wrong predictions in "A Motivating Example"


def executor(hardware: Hardware, work: Path, keep: Path | None = None) -> Executor:
    """Return an executor that trains deep networks: each with Lightning, one after the other.

    On one GPU, networks that ``deep_graphs`` serves are trained side by side.

    Args:
        hardware: Where.
        work: A folder for checkpoints, one folder a trial, removed when it is done. Logs stay, in ``logs/KEY``.
        keep: A folder for weights: ``KEY.safetensors`` of the last epoch, ``KEY.best.safetensors`` of the chosen one
            where it is another.
    """

    def execute(batches: Sequence[Batch], tick: Callable[[float], None]) -> Iterator[tuple[Trial, Outcome]]:
        trials = [trial for batch in batches for trial in batch]
        for _, group in groupby(trials, key=lambda trial: (id(trial.task), trial.recipe)):
            alike = tuple(group)
            served = [trial for trial in alike if _served(trial, hardware, work)]
            done: set[str] = set()
            for trial, outcome in _side_by_side(served, hardware, work, keep, tick):
                done.add(trial.key)
                yield trial, outcome
            rest = [trial for trial in alike if trial.key not in done]
            for _, repeat in groupby(rest, key=lambda trial: trial.repeat):
                yield from _in_turn(tuple(repeat), hardware, work, keep, tick)

    return execute


def _in_turn(
    together: Sequence[Trial], hardware: Hardware, work: Path, keep: Path | None, tick: Callable[[float], None]
) -> Iterator[tuple[Trial, Outcome]]:
    """Trials of one recipe and one repeat of a task."""
    from crossfade.lab.train.deep.fork import Forks

    split = cast("ImageSplit", together[0].task.split(together[0].repeat))  # one at a time in memory
    forks = Forks(work, together, hardware)
    for trial in together:
        tick(0.0)
        saved, own = forks.begin(trial), partial(_part, tick, cost(trial))
        outcome = _compute(trial, split, hardware, work, keep, own, forks.callbacks(trial))
        if saved and outcome.result is not None:
            outcome = Outcome({**outcome.result, "shared_epochs": saved}, outcome.curves)
        gc.collect()  # a trainer and its network hold each other: a large one must not wait for its turn
        yield trial, outcome
    forks.finish()


def _served(trial: Trial, hardware: Hardware, work: Path) -> bool:
    """Whether it can be trained side by side with others, and hasn't begun in another way."""
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.data.texts import TextTask
    from crossfade.lab.train.deep.side_by_side import serves

    here = isinstance(trial.task, ImageTask | TextTask) and not (work / trial.key / "last.ckpt").exists()
    return here and serves(hardware, cast("ImageRecipe", trial.recipe), trial.method)


def _side_by_side(
    trials: Sequence[Trial], hardware: Hardware, work: Path, keep: Path | None, tick: Callable[[float], None]
) -> Iterator[tuple[Trial, Outcome]]:
    """Trials of one recipe, as many at once as there is memory for; those that don't come are for ``_in_turn``."""
    import torch

    from crossfade.lab.train.deep.side_by_side import Job, train_side_by_side
    from crossfade.lab.train.graphs import out_of_memory

    left, at_once = list(trials), _AT_ONCE
    while left and at_once:
        now = left[:at_once]
        recipe: Any = now[0].recipe
        splits: dict[int, Any] = {repeat: now[0].task.split(repeat) for repeat in {trial.repeat for trial in now}}
        watchers = [_recorder(recipe, work / trial.key, len(splits[trial.repeat].test)) for trial in now]
        jobs = [
            Job(splits[trial.repeat], trial.method, seed(trial, "train"), work / trial.key, watcher)
            for trial, watcher in zip(now, watchers, strict=True)
        ]
        try:
            histories = train_side_by_side(
                jobs, recipe, hardware=hardware, on_progress=partial(_part, tick, sum(map(cost, now)))
            )
        except (RuntimeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            if not out_of_memory(error):
                return  # a loss that waits for the host, say: the usual way names the cause, or works
            histories = None
        if histories is None:  # only now has the exception let go of the networks
            at_once //= 2
            gc.collect()
            torch.cuda.empty_cache()
            continue
        left = left[at_once:]
        outcomes = [
            _finished(trial, splits[trial.repeat], history, watcher, work, keep)
            for trial, history, watcher in zip(now, histories, watchers, strict=True)
        ]
        del histories, jobs  # the next ones need the memory
        yield from zip(now, outcomes, strict=True)


def _part(tick: Callable[[float], None], whole: float, part: float) -> None:
    tick(part * whole)


def _compute(
    trial: Trial,
    split: ImageSplit,
    hardware: Hardware,
    work: Path,
    keep: Path | None,
    tick: Callable[[float], None],
    callbacks: Sequence[Any] = (),
) -> Outcome:
    from crossfade.lab.train.deep.lightning import train

    recipe, folder = cast("ImageRecipe", trial.recipe), work / trial.key
    recorder = _recorder(recipe, folder, len(split.test))
    try:
        history = train(
            split, trial.method, recipe, seed=seed(trial, "train"), hardware=hardware, folder=folder, on_progress=tick,
            observe=recorder, callbacks=callbacks,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        return Outcome(error=error_line(error))
    return _finished(trial, split, history, recorder, work, keep)


def _finished(
    trial: Trial, split: ImageSplit, history: DeepHistory, recorder: _Watcher | None, work: Path, keep: Path | None
) -> Outcome:
    recipe, folder = cast("ImageRecipe", trial.recipe), work / trial.key
    if not history.finite or history.chosen < 0:
        return Outcome(error=f"the weights diverge at learning rate {recipe.learning_rate:g}; try a smaller one")
    outcome = _outcome(split, recipe, history)
    _meet()  # what another process has recorded must be there, and may be removed after it
    if process_rank() > 0:
        return outcome
    if recorder is not None:
        outcome = Outcome({**(outcome.result or {}), **escapes(folder / "p", recipe)}, outcome.curves)
    if keep is not None:
        _keep(trial, split, history, outcome, keep)
    if (folder / "log").is_dir():
        shutil.copytree(folder / "log", work / "logs" / trial.key, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _meet() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


class _Watcher:
    """Records p_y of the test images after the epochs that are scored."""

    def __init__(self, folder: Path, examples: int, recipe: ImageRecipe) -> None:
        from crossfade.diagnostics import ProbabilityRecorder

        self.recorder = ProbabilityRecorder(folder, examples, recipe.epochs)
        self.epochs = (recipe.watch - 1, recipe.epochs - 1)

    def __call__(self, epoch: int, part: str, index: Any, logits: Any, labels: Any) -> None:
        if part == "test" and epoch in self.epochs:
            self.recorder.record(epoch, index, logits, labels)
            self.recorder.flush()  # a checkpoint may follow, and the watched epoch isn't seen again


def _recorder(recipe: ImageRecipe, folder: Path, examples: int) -> _Watcher | None:
    return _Watcher(folder / "p", examples, recipe) if recipe.watch else None


def escapes(folder: Path, recipe: ImageRecipe) -> dict[str, int]:
    """ "A Motivating Example": how many test images of each group at epoch ``watch`` are right at the end.

    The groups are: right, wrong with p_y > 0.2, wrong with p_y < 0.2.
    """
    from crossfade.diagnostics import Recording

    recording = Recording(folder)
    then, now = recipe.watch - 1, recipe.epochs - 1
    right, p, end = recording.correct(then), recording.p(then), recording.correct(now)
    groups = {"right": right, "near": ~right & (p >= _NEAR), "far": ~right & (p < _NEAR)}
    counts = {f"watch_{name}": int(group.sum()) for name, group in groups.items()}
    return counts | {f"end_{name}": int((group & end).sum()) for name, group in groups.items()}


def _outcome(split: ImageSplit, recipe: ImageRecipe, history: DeepHistory) -> Outcome:
    row = history.rows[history.chosen]
    result = {
        "accuracy": row["test_accuracy"],
        **{name: short(row[f"test_{name}"]) for name in ("nll", "ece", "brier", "f1", "mcc") if f"test_{name}" in row},
        "learning_rate": recipe.learning_rate,
        "epoch": int(row["epoch"]),
        "n_train": len(split.train),
        "n_val": 0 if split.validation is None else len(split.validation),
        "n_test": len(split.test),
        "classes": split.classes,
        "seconds": round(history.seconds, 2),
        # The best test epoch is what many tables print; it is chosen with the test labels, and never our result.
        "best_test_accuracy": max(each["test_accuracy"] for each in history.rows),
        "scale": recipe.scale,
        "device": history.device,
    }
    names = [name for name in history.rows[0] if name.startswith(("val_", "test_"))] + ["train_loss"]
    curves: dict[str, list[Any]] = {"epoch": [int(each["epoch"]) for each in history.rows]}
    curves |= {name: [short(each[name]) for each in history.rows] for name in names}
    return Outcome(result, curves)


def _keep(trial: Trial, split: ImageSplit, history: DeepHistory, outcome: Outcome, folder: Path) -> None:
    from crossfade.lab.provenance import provenance
    from crossfade.lab.train.deep.weights import save_model

    recipe = cast("ImageRecipe", trial.recipe)
    about: Mapping[str, Any] = {
        "net": recipe.net, "classes": split.classes, "dropout": recipe.dropout, "mean": split.mean.tolist(),
        "std": split.std.tolist(), "trial": trial.content, "key": trial.key, "seed": seed(trial, "train"),
        "result": dict(outcome.result or {}), **provenance(),
    }  # fmt: skip
    save_model(folder / f"{trial.key}.safetensors", history.module.state_dict(), {**about, "epoch": recipe.epochs})
    if history.best is not None:
        epoch = int(history.rows[history.chosen]["epoch"])
        save_model(folder / f"{trial.key}.best.safetensors", history.best, {**about, "epoch": epoch})
