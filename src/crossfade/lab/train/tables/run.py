"""Trials on tables, trained by ``train_stack`` in batches of several methods, learning rates, repeats and data sets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from crossfade.errors import UserError
from crossfade.lab.checks import expect
from crossfade.lab.data.split import Split
from crossfade.lab.hardware import Hardware, processors
from crossfade.lab.scores import TALLY, calibrated_scores, majority_score, pack_hits
from crossfade.lab.store import Outcome
from crossfade.lab.train.executor import Batch, Executor, Tick, by_fraction, error_line, train_in_parts
from crossfade.lab.train.outcome import History, outcome, probability_scores
from crossfade.lab.train.tables.plain import network
from crossfade.lab.train.tables.recipe import Member, Recipe
from crossfade.lab.train.tables.stack import train_stack
from crossfade.lab.trial import Trial, seed


def executor(hardware: Hardware) -> Executor:
    """Return an executor that shares the work of each batch among the hardware's threads."""
    threads = hardware.threads or processors()

    def execute(batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]:
        for batch in batches:
            outcomes = compute(batch, threads=threads, on_progress=by_fraction(tick, batch))
            yield from zip(batch, outcomes, strict=True)

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
    tried: list[dict[float, History]] = [{} for _ in ready]
    wanted = [(at, rate) for at in range(len(ready)) for rate in recipe.learning_rates]
    started = time.perf_counter()
    while wanted:
        members = [Member(ready[at][1], ready[at][0].method, rate, seed(ready[at][0], "train")) for at, rate in wanted]
        histories = train_stack(members, recipe, threads=threads, on_progress=on_progress)
        for (at, rate), history in zip(wanted, histories, strict=True):
            tried[at][rate] = history
        wanted = [(at, rate) for at, known in enumerate(tried) for rate in _further_rates(known, recipe)]
    seconds = (time.perf_counter() - started) / len(ready)
    return [_outcome(*each, known, seconds) for each, known in zip(ready, tried, strict=True)]


def tied(tried: Mapping[float, History], recipe: Recipe) -> list[tuple[float, int]]:
    """Return the (rate, epoch) at the best validation score; none if all diverge.

    The first one is the first of the best rates, at the epoch that ``Recipe.tie`` chooses. By ``select="last"`` all are
    last epochs, of trainings that came there.
    """
    ends, score = recipe.select == "last", f"val_{recipe.metric}"
    usable = {rate: h for rate, h in tried.items() if h.chosen >= 0 and (h.finite or not ends)}
    best = max((h.curves[score][h.chosen] for h in usable.values()), default=None)
    found = [
        (rate, epoch)
        for rate, h in usable.items()
        for epoch in map(int, [h.chosen] if ends else np.flatnonzero(np.isfinite(h.curves["val_nll"])))
        if h.curves[score][epoch] == best
    ]
    return sorted(found, key=lambda pair: pair != (found[0][0], usable[found[0][0]].chosen))


def _edges(tried: Mapping[float, History], recipe: Recipe) -> set[float]:
    """Return the best rates if they all lie at an edge of three or more, the lowest if all diverge, else none."""
    best = {rate for rate, _ in tied(tried, recipe)} or {min(tried)}
    return best if best <= {min(tried), max(tried)} and len(tried) > 2 else set()


def _further_rates(tried: Mapping[float, History], recipe: Recipe) -> list[float]:
    """Return the rates of ``wider_rates`` that come next to the edges at which all the best rates lie."""
    edges, low, high = _edges(tried, recipe), min(tried), max(tried)
    above = [rate for rate in recipe.wider_rates if rate > high and high in edges]
    below = [rate for rate in recipe.wider_rates if rate < low and low in edges]
    return [*sorted(above)[:1], *sorted(below)[-1:]]


def _outcome(trial: Trial, split: Split, tried: Mapping[float, History], seconds: float) -> Outcome:
    """Return the test scores at the learning rate and epoch that the validation part chooses."""
    recipe = expect("recipe", trial.recipe, Recipe)
    pairs = tied(tried, recipe)
    if not pairs:
        rates = ", ".join(f"{rate:g}" for rate in tried)
        when = "" if recipe.select == "last" else "in the first epoch "
        return Outcome(error=f"weights diverge {when}at every learning rate ({rates}); try smaller ones")
    rate, epoch = pairs[0]
    best = tried[rate]
    assert best.probabilities is not None  # every engine for tables keeps them
    scores = probability_scores(best.probabilities, split.y_test, float(best.curves["test_nll"][epoch]))
    about: dict[str, object] = {
        "n_train": len(split.y_train),
        "n_val": len(split.y_val),
        "n_test": len(split.y_test),
        "classes": split.classes,
        "seconds": round(seconds, 4),
        "engine": best.engine,
    }
    with torch.no_grad():  # in float64 the digits that are kept don't depend on the number of threads
        net = network({name: np.asarray(weight) for name, weight in best.weights.items()}).double()
        outputs = [(net(torch.from_numpy(x).double()), torch.from_numpy(y)) for x, y in split.parts[1:]]
        val, test = ((trial.method.class_scores(z), y) for z, y in outputs)
    scores |= calibrated_scores(val, test)
    if recipe.tallied:
        expected = recipe.tie == "expected"
        found = _tallied_scores(tried, pairs if expected else pairs[:1])
        scores |= {f"{name}_kept": scores[name] for name in ("nll", "ece", "brier")}  # what the temperature changes
        scores = scores | found if expected else found | scores  # the same numbers of one network but for roundings
        about["majority"] = majority_score(split.y_train, split.y_test, recipe.metric)
        about |= {"lowest_rate": min(tried), "highest_rate": max(tried), "tied": len(pairs)}
        about["at_edge"] = rate in _edges(tried, recipe)
    if split.test_rows is not None and recipe.metric == "accuracy":
        right = best.probabilities.argmax(axis=1) == split.y_test
        about["hits"] = pack_hits(sum(len(y) for _, y in split.parts), split.test_rows, right)
    curves = {
        name: curve
        for name, curve in best.curves.items()
        if not name.endswith(TALLY) or name.endswith(f"_{recipe.metric}")
    }
    exact = ("accuracy", "balanced", "f1", "val_accuracy", "test_accuracy")
    return outcome(replace(best, scores=scores, curves=curves), rate, about, exact=exact)


def _tallied_scores(tried: Mapping[float, History], pairs: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Return the means of the test scores over these rates and epochs, and the median NLL, which has no bound."""
    names = ("accuracy", "nll", "ece", "brier", "balanced", "f1")
    found = {name: [tried[rate].curves[f"test_{name}"][epoch] for rate, epoch in pairs] for name in names}
    return {name: float(np.median(values) if name == "nll" else np.mean(values)) for name, values in found.items()}
