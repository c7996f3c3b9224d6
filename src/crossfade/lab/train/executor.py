"""The executor, by which every family trains batches of trials and yields their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from crossfade.errors import UserError
from crossfade.lab.hardware import Hardware
from crossfade.lab.store import Outcome
from crossfade.lab.trial import Trial

_T = TypeVar("_T")
Batch: TypeAlias = tuple[Trial, ...]
Tick: TypeAlias = Callable[[float], None]

# Multiply-adds of one call: a few seconds on two cores. That is what a kill can cost, and how long Ctrl-C may wait.
BATCH = 2e10


class Executor(Protocol):
    """A function that trains batches, here or on a cluster, and yields results trial by trial in any order.

    It may call ``tick`` with the part of ``cost`` that is done in trials without a result yet.
    """

    def __call__(self, batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]: ...


# It returns what trains a family of networks: on this hardware, with a folder for checkpoints and, if they are to be
# kept, one for weights.
Family: TypeAlias = Callable[[Hardware, Path, Path | None], Executor]


def by_fraction(tick: Tick, trials: Sequence[Trial]) -> Tick:
    """Return a function that takes the fraction of these trials that is done, and tells ``tick`` its cost."""
    whole = sum(trial.cost for trial in trials)
    return lambda fraction: tick(fraction * whole)


def error_line(error: BaseException) -> str:
    """Return an error as the one line that the store keeps."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": "))[:500]


def train_in_parts(
    trials: Sequence[Trial], train: Callable[[Sequence[int]], Sequence[_T]], places: Sequence[int] | None = None
) -> list[_T | Outcome]:
    """Train all trials together or, if that raises, in parts, so that one failing loss doesn't affect other trials.

    If a device's memory was full, the parts are halves; otherwise the trials of each user-defined loss, and in the end
    single trials. One that fails alone gets an outcome with the error. ``train`` returns the results of the trials with
    the given indices, ``places`` are those to train (default: all).
    """
    places = range(len(trials)) if places is None else places
    try:
        return list(train(places))
    except Exception as error:
        from crossfade.kernels.graphs import empty_memory, out_of_memory

        failed, full = error_line(error), out_of_memory(error)
    if full:  # only now, as the exception has held references to the networks
        empty_memory()
    if len(places) == 1:
        return [Outcome(error=failed)]
    results: dict[int, _T | Outcome] = {}
    for part in _parts(trials, places, full):
        results.update(zip(part, train_in_parts(trials, train, part), strict=True))
    return [results[at] for at in places]


def _parts(trials: Sequence[Trial], places: Sequence[int], full: bool) -> list[Sequence[int]]:
    if full:
        return [places[: len(places) // 2], places[len(places) // 2 :]]
    losses: dict[int, list[int]] = {}
    for at in places:
        losses.setdefault(id(trials[at].method.own), []).append(at)
    return list(losses.values()) if len(losses) > 1 else [[at] for at in places]
