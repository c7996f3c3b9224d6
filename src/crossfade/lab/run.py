"""Run the trials of a request that the store doesn't know yet.

Trials with one recipe are trained together: all methods, learning rates and several repeats (and data sets) in one
call of the stacked engine. What a trial's numbers are never depends on which others were in the call, so a run that
was killed, split over workers or extended by a method gives the same numbers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from crossfade.errors import UserError
from crossfade.lab.provenance import provenance
from crossfade.lab.scores import brier_score, expected_calibration_error
from crossfade.lab.store import Outcome, Store
from crossfade.lab.trial import Trial, seed

if TYPE_CHECKING:
    from crossfade.lab.train import History, Recipe, Split

__all__ = ["Batch", "Executor", "Summary", "compute", "cost", "line", "local", "pack", "run", "short"]

Batch = tuple[Trial, ...]
Tick = Callable[[float], None]

# Multiply-adds of one call: a few seconds on two cores. That is what a kill can cost, and how long Ctrl-C may wait.
_BUDGET = 2e10


class Executor(Protocol):
    """Where batches are computed: here (`local`) or on a cluster. Results may come in any order, trial by trial.

    ``tick`` may be told how much of ``cost`` is done in trials that haven't come yet.
    """

    def __call__(self, batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]: ...


@dataclass(frozen=True)
class Summary:
    """What became of the trials: computed now, failed (now or before), known from before, and the time it took."""

    done: int
    failed: int
    known: int
    seconds: float


def run(
    trials: Iterable[Trial],
    store: Store,
    *,
    execute: Executor | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[float, int, int], None] | None = None,
) -> Summary:
    """Compute what is missing, and write each result to the store as soon as it is there.

    Args:
        trials: The request, in the order in which results are wanted.
        store: An open store.
        execute: Where to compute; default ``local()``.
        retry_failed: Run trials again that are stored as failed.
        on_progress: Told (fraction of the missing work, trials done, trials failed) every now and then.

    Raises:
        UserError: the store can't be written.
    """
    started = time.monotonic()
    wanted = {trial.key: trial for trial in trials}
    stored = store.statuses(wanted)
    known = {key for key, status in stored.items() if status == "done" or not retry_failed}
    missing = [trial for key, trial in wanted.items() if key not in known]
    total = sum(map(cost, missing)) or 1.0
    spent, reached, done, failed = 0.0, 0.0, 0, 0

    def tick(unfinished: float) -> None:
        nonlocal reached
        reached = max(reached, min(1.0, (spent + unfinished) / total))
        if on_progress is not None:
            on_progress(reached, done, failed)

    origin = provenance() if missing else {}
    for trial, outcome in (execute or local())(pack(missing), tick):
        store.put(trial, outcome, origin)
        spent += cost(trial)
        done += outcome.status == "done"
        failed += outcome.status == "failed"
        tick(0.0)
    failed += sum(stored[key] == "failed" for key in known)
    return Summary(done, failed, len(known), time.monotonic() - started)


def cost(trial: Trial) -> float:
    """Multiply-adds that a trial takes, roughly: for progress and for the size of batches, never for results."""
    return trial.recipe.cost(trial.task.shape)


def pack(trials: Iterable[Trial], budget: float | None = None) -> list[Batch]:
    """Batches for one call each: one recipe, every method of a repeat of a task together, several of these if small."""
    batches: list[list[Trial]] = []
    room = 0.0
    for _, group in groupby(trials, key=lambda trial: (trial.recipe, id(trial.task), trial.repeat)):
        together = list(group)
        needed = sum(map(cost, together))
        if not batches or needed > room or batches[-1][0].recipe != together[0].recipe:
            batches.append([])
            room = _BUDGET if budget is None else budget
        batches[-1] += together
        room -= needed
    return [tuple(batch) for batch in batches]


def local(workers: int | None = None, engine: str = "auto", device: str = "cpu") -> Executor:
    """Compute in this process; ``workers`` threads share the work of each call (default: all cores it may use)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = workers or allowed

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        for batch in batches:
            whole = sum(map(cost, batch))
            options = {"engine": engine, "device": device, "threads": threads}
            outcomes = compute(batch, on_progress=lambda fraction, whole=whole: tick(fraction * whole), **options)
            yield from zip(batch, outcomes, strict=True)

    return execute


def compute(batch: Sequence[Trial], **options: Any) -> list[Outcome]:
    """Outcomes of trials with one recipe, in their order: what a worker does.

    A trial fails alone: with its data (a column that overflows), with its own loss (an exception in a user's g), or
    because its weights diverge in the first epoch at every
    learning rate (one that diverges later keeps its best epoch before).

    Args:
        batch: Trials of one recipe.
        options: For ``crossfade.lab.train.train_stack``.
    """
    splits: dict[tuple[int, int], Split | Outcome] = {}
    for trial in batch:
        at = (id(trial.task), trial.repeat)
        if at not in splits:
            try:
                splits[at] = trial.task.split(trial.repeat)
            except (UserError, MemoryError) as error:
                splits[at] = Outcome(error=line(error))
    found = [splits[id(trial.task), trial.repeat] for trial in batch]
    ready = [(trial, split) for trial, split in zip(batch, found, strict=True) if not isinstance(split, Outcome)]
    computed = iter(_train(ready, options))
    return [split if isinstance(split, Outcome) else next(computed) for split in found]


def _train(ready: Sequence[tuple[Trial, Split]], options: dict[str, Any]) -> list[Outcome]:
    """Train all; if that raises, one method after the other, so that the others aren't lost with it."""
    from crossfade.lab.train import Member, train_stack

    if not ready:
        return []
    recipe = ready[0][0].recipe
    members = [
        Member(split, trial.method, rate, seed(trial, "train"))
        for trial, split in ready
        for rate in recipe.learning_rates
    ]
    started = time.perf_counter()
    try:
        histories = train_stack(members, recipe, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        methods = list(dict.fromkeys(trial.method.name for trial, _ in ready))
        if len(methods) == 1:
            return [Outcome(error=line(error))] * len(ready)
        parts = {name: [pair for pair in ready if pair[0].method.name == name] for name in methods}
        alone = {name: iter(_train(part, options)) for name, part in parts.items()}
        return [next(alone[trial.method.name]) for trial, _ in ready]
    seconds = (time.perf_counter() - started) / len(ready)
    rates = len(recipe.learning_rates)
    return [
        _outcome(split, recipe, histories[rates * at : rates * (at + 1)], seconds)
        for at, (_, split) in enumerate(ready)
    ]


def _outcome(split: Split, recipe: Recipe, histories: Sequence[History], seconds: float) -> Outcome:
    """Choose learning rate and epoch on the validation part, and score the test part there."""
    from crossfade.lab.train import select

    usable = [place for place, history in enumerate(histories) if history.best_epoch >= 0]
    if not usable:
        rates = ", ".join(f"{rate:g}" for rate in recipe.learning_rates)
        return Outcome(error=f"weights diverge in the first epoch at every learning rate ({rates}); try smaller ones")
    chosen, epoch = select([histories[place] for place in usable])
    best = histories[usable[chosen]]
    n_val, n_test = len(split.y_val), len(split.y_test)
    result = {
        "accuracy": int(best.test_correct[epoch]) / n_test,
        "nll": short(best.test_nll[epoch]),
        "ece": short(expected_calibration_error(best.test_probabilities, split.y_test)),
        "brier": short(brier_score(best.test_probabilities, split.y_test)),
        "learning_rate": recipe.learning_rates[usable[chosen]],
        "epoch": int(epoch) + 1,
        "n_train": len(split.y_train),
        "n_val": n_val,
        "n_test": n_test,
        "classes": split.classes,
        "seconds": round(seconds, 4),
        "engine": best.engine,
    }
    curves: dict[str, Any] = {
        "val_accuracy": [int(count) / n_val for count in best.val_correct],
        "test_accuracy": [int(count) / n_test for count in best.test_correct],
        "val_nll": [short(value) for value in best.val_nll],
        "test_nll": [short(value) for value in best.test_nll],
        "train_loss": [short(value) for value in best.train_loss],
    }
    return Outcome(result, curves)


def short(value: float) -> float | None:
    """Seven digits: what float32 holds, at half the space. None for what JSON can't say."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def line(error: BaseException) -> str:
    """An error as the store keeps it."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": "))[:500]
