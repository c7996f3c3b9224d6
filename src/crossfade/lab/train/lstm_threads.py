"""Run the LSTM kernel over members on several threads, with progress and interruption."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.layout import aligned
from crossfade.lab.train.lstm_layout import CLASSES, LstmLayout, lstm_layout
from crossfade.lab.train.lstm_loop import compiled
from crossfade.lab.train.lstm_setup import (
    cost,
    empty_curves,
    epoch_batches,
    history,
    initial_state,
    mixture,
    scoring_batches,
)
from crossfade.lab.train.lstm_types import LstmHistory, LstmMember, LstmRecipe, TokenPart, TokenSplit

_POLL = 0.2  # seconds between looks at the progress, and until Ctrl-C is noticed
_log = logging.getLogger(__name__)
_Arguments = tuple[Any, ...]


def train_kernel(
    members: Sequence[LstmMember],
    addresses: Sequence[int],
    recipe: LstmRecipe,
    threads: int,
    on_progress: Callable[[float], None],
) -> list[LstmHistory]:
    """Train all members, one network a thread. ``addresses`` are those of compiled losses, 0 for the mixture."""
    costs = np.array([cost(member.split, recipe) for member in members])
    queue = sorted(range(len(members)), key=lambda i: (-costs[i], id(members[i].split), members[i].seed, i))
    preparation, progress = _Preparation(recipe), np.zeros((len(members), 1), dtype=np.int64)
    out: dict[int, LstmHistory] = {}
    running: dict[Future[LstmHistory], int] = {}
    train = compiled()
    with ThreadPoolExecutor(threads, thread_name_prefix="crossfade") as pool:
        try:
            while queue or running:
                while queue and len(running) < threads:
                    i = queue.pop(0)
                    arguments = preparation.arguments(members[i], addresses[i], progress[i])
                    if not out and not running:
                        _compile(train, arguments)
                    running[pool.submit(_run, train, arguments)] = i
                finished, _ = wait(running, _POLL, FIRST_COMPLETED)
                for future in finished:
                    i = running.pop(future)
                    out[i] = future.result()
                    progress[i] = recipe.epochs
                on_progress(min(float(progress[:, 0] @ costs) / (recipe.epochs * float(costs.sum())), 1.0))
        except BaseException:
            preparation.stop[0] = 1
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [out[i] for i in range(len(members))]


class _Preparation:
    """The kernel's arguments; what members share is made once. Used from one thread."""

    def __init__(self, recipe: LstmRecipe) -> None:
        self.recipe = recipe
        self.stop = np.zeros(1, dtype=np.uint8)
        self.data = lru_cache(2)(self._data)
        self.batches = lru_cache(2)(self._batches)

    def _data(self, split: TokenSplit) -> tuple[Any, ...]:
        parts = (split.train, split.val, split.test)
        return tuple((*_arrays(part), *scoring_batches(part.lengths, self.recipe.batch_size)) for part in parts)

    def _batches(self, split: TokenSplit, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        size, lengths = self.recipe.batch_size, split.train.lengths
        each = [epoch_batches(seed, epoch, lengths, size) for epoch in range(self.recipe.epochs)]
        orders, starts = np.stack([order for order, _ in each]), np.stack([start for _, start in each])
        return orders, starts, starts.shape[1] - 1

    def arguments(self, member: LstmMember, address: int, progress: NDArray[np.int64]) -> _Arguments:
        """Everything for one call, and before it the layout to read the result with."""
        recipe, split = self.recipe, member.split
        longest = max(int(part.lengths.max(initial=1)) for part in (split.train, split.val, split.test))
        plan = lstm_layout(recipe, split.vocabulary, split.classes, longest)
        p, e = plan.pack(initial_state(member.seed, split.vocabulary, split.classes, recipe))
        size = split.classes
        return (
            plan,
            self.data(split),
            self.batches(split, member.seed),
            ((plan.table, plan.layers), _beside(p, 4), _beside(e, 3)),
            (mixture(member.method.schedule, recipe, len(split.train)), address),
            (float(recipe.learning_rate), float(recipe.clip), recipe.select == "last"),
            _space(plan, longest),
            (
                empty_curves(recipe.epochs),
                np.zeros(len(split.test) * size, dtype=np.float32),
                np.zeros(max(len(split.val), len(split.test)) * size, dtype=np.float32),
            ),
            (progress, self.stop),
        )


def _arrays(part: TokenPart) -> tuple[Any, ...]:
    return part.tokens, part.offsets, part.labels


def _beside(first: Any, more: int) -> tuple[Any, ...]:
    """The array and ``more`` of its size with zeros, none of them a multiple of 4096 bytes from its neighbours.

    Where the addresses of arrays that are walked together share their lower 12 bits, the processor takes a read of one
    for a read of what was just written to the other, and waits.
    """
    step = -(-len(first) // 1024) * 1024 + 1024 + 128
    memory = aligned(step * (more + 1))
    arrays = tuple(memory[n * step :][: len(first)] for n in range(more + 1))
    arrays[0][:] = first
    return arrays


def _space(plan: LstmLayout, longest: int) -> tuple[Any, ...]:
    """The workspace and the tables of ``lstm_kernel``'s ``where``."""
    return (
        aligned(plan.room),
        np.full(plan.vocabulary, -1, dtype=np.int32),
        np.zeros(plan.unique, dtype=np.int32),
        np.zeros(max(plan.tokens, plan.unique), dtype=np.int32),
        np.zeros(longest, dtype=np.int64),
        np.zeros(longest, dtype=np.int64),
    )


def _compile(train: Any, arguments: _Arguments) -> None:
    try:
        train.compile(tuple(numba.typeof(argument) for argument in arguments[1:]))
    except OSError as error:  # it is compiled by now; what failed is keeping it for the next time
        _log.warning("the compiled kernel could not be kept on disk: %s", error)


def _run(train: Callable[..., int], arguments: _Arguments) -> LstmHistory:
    plan, *rest = arguments
    chosen = train(*rest)
    (_layout, dense, vectors), (curves, shown, _now) = rest[2], rest[6]
    probabilities = shown.reshape(-1, int(plan.table[CLASSES]))
    return history(curves, chosen, probabilities, plan.unpack(dense[4], vectors[3]), "stacked")
