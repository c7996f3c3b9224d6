"""Trials on tables, trained by ``train_stack`` in batches of several methods, learning rates, repeats and data sets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from crossfade.errors import UserError
from crossfade.lab.checks import expect
from crossfade.lab.data.split import Split
from crossfade.lab.hardware import Hardware, processors
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, Tick, error_line, train_in_parts
from crossfade.lab.train.outcome import History, outcome, probability_scores
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.stack import select, train_stack
from crossfade.lab.trial import Trial, seed


def executor(hardware: Hardware) -> Executor:
    """Return an executor that shares the work of each batch among the hardware's threads."""
    threads = hardware.threads or processors()

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        for batch in batches:
            whole = sum(trial.cost for trial in batch)

            def report(fraction: float, whole: float = whole) -> None:
                tick(fraction * whole)

            yield from zip(batch, compute(batch, threads=threads, on_progress=report), strict=True)

    return execute


def compute(batch: Sequence[Trial], *, threads: int | None = None, on_progress: Tick | None = None) -> list[Outcome]:
    """Return the outcomes of trials with one recipe, in their order.

    A trial that fails doesn't take others with it. It fails if its data can't be used (a column that overflows), if a
    user's own loss raises an exception, or if its weights diverge in the first epoch at every learning rate; where they
    diverge later, the best epoch before counts.
    """
    splits: dict[tuple[int, int], Split | Outcome] = {}
    for trial in batch:
        at = (id(trial.task), trial.repeat)
        if at not in splits:
            try:
                splits[at] = expect("split", trial.task.split(trial.repeat), Split)
            except (UserError, MemoryError) as error:
                splits[at] = Outcome(error=error_line(error))
    found = [splits[id(trial.task), trial.repeat] for trial in batch]
    ready = [(trial, split) for trial, split in zip(batch, found, strict=True) if isinstance(split, Split)]

    def train(places: Sequence[int]) -> list[Outcome]:
        return _train([ready[at] for at in places], threads, on_progress)

    computed = iter(train_in_parts([trial for trial, _ in ready], train) if ready else [])
    return [next(computed) if isinstance(split, Split) else split for split in found]


def _train(ready: Sequence[tuple[Trial, Split]], threads: int | None, on_progress: Tick | None) -> list[Outcome]:
    recipe = expect("recipe", ready[0][0].recipe, Recipe)
    members = [
        Member(split, trial.method, rate, seed(trial, "train"))
        for trial, split in ready
        for rate in recipe.learning_rates
    ]
    started = time.perf_counter()
    histories = train_stack(members, recipe, threads=threads, on_progress=on_progress)
    seconds = (time.perf_counter() - started) / len(ready)
    rates = len(recipe.learning_rates)
    return [
        _outcome(split, recipe, histories[rates * at : rates * (at + 1)], seconds)
        for at, (_, split) in enumerate(ready)
    ]


def _outcome(split: Split, recipe: Recipe, histories: Sequence[History], seconds: float) -> Outcome:
    """Return the test scores at the learning rate and epoch that the validation part chooses."""
    usable = [place for place, history in enumerate(histories) if history.chosen >= 0]
    if not usable:
        rates = ", ".join(f"{rate:g}" for rate in recipe.learning_rates)
        return Outcome(error=f"weights diverge in the first epoch at every learning rate ({rates}); try smaller ones")
    index, epoch = select([histories[place] for place in usable])
    best = histories[usable[index]]
    assert best.probabilities is not None  # every engine for tables keeps them
    scores = probability_scores(best.probabilities, split.y_test, float(best.curves["test_nll"][epoch]))
    about = {
        "n_train": len(split.y_train),
        "n_val": len(split.y_val),
        "n_test": len(split.y_test),
        "classes": split.classes,
        "seconds": round(seconds, 4),
        "engine": best.engine,
    }
    rate, exact = recipe.learning_rates[usable[index]], ("val_accuracy", "test_accuracy")
    return outcome(replace(best, scores=scores), rate, about, exact=exact)
