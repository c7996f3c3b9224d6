"""What every family shows to the runner: an executor, which takes batches of trials and yields their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar

from crossfade.errors import UserError
from crossfade.lab.store import Outcome
from crossfade.lab.trial import Trial

_T = TypeVar("_T")
Batch: TypeAlias = tuple[Trial, ...]
Tick: TypeAlias = Callable[[float], None]


class Executor(Protocol):
    """Where batches are computed: here or on a cluster. Results may come in any order, trial by trial.

    ``tick`` may be told how much of ``cost`` is done in trials that haven't come yet.
    """

    def __call__(self, batches: Sequence[Batch], tick: Tick) -> Iterator[tuple[Trial, Outcome]]: ...


def cost(trial: Trial) -> float:
    """Return the multiply-adds that a trial takes, roughly: for progress and the size of batches, never for results."""
    return trial.recipe.cost(trial.task.shape)


def error_line(error: BaseException) -> str:
    """Return an error as the store keeps it: one line."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": "))[:500]


def train_in_parts(
    trials: Sequence[Trial], train: Callable[[Sequence[int]], Sequence[_T]], places: Sequence[int] | None = None
) -> list[_T | Outcome]:
    """Train all trials together; where that raises in parts, so that nothing is lost with one loss that raises.

    The parts are halves where a device's memory was full; otherwise the trials of each loss of a user's by themselves,
    and then one by one. A trial that can't be trained alone either has failed.

    Args:
        trials: Of one recipe.
        train: Returns what became of the trials at these places.
        places: Of the trials that are wanted; default: all.

    Returns:
        What ``train`` returned for each trial, or the outcome of one that has failed.
    """
    places = range(len(trials)) if places is None else places
    try:
        return list(train(places))
    except Exception as error:
        from crossfade.lab.train.graphs import empty_memory, out_of_memory

        failed, full = error_line(error), out_of_memory(error)
    if full:  # only now has the exception let go of the networks
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
        losses.setdefault(id(trials[at].method.g), []).append(at)
    return list(losses.values()) if len(losses) > 1 else [[at] for at in places]
