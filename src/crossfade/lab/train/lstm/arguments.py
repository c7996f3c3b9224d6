"""What a call of the LSTM kernel is given."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.lstm.layout import MASK, LstmLayout, lstm_layout
from crossfade.lab.train.lstm.setup import empty_curves, epoch_batches, initial_state, scoring_batches
from crossfade.lab.train.lstm.types import LstmMember, LstmRecipe, TokenPart, TokenSplit
from crossfade.lab.train.outcome import Floats
from crossfade.lab.train.tables.panels import aligned
from crossfade.lab.train.tables.simd import WIDE

__all__ = ["Arguments", "Preparation", "kept"]

Arguments = tuple[Any, ...]


class Preparation:
    """The kernel's arguments; what members share is made once. Used from one thread."""

    def __init__(self, recipe: LstmRecipe) -> None:
        self.recipe = recipe
        self.stop = np.zeros(1, dtype=np.uint8)
        self.data = lru_cache(2)(self._data)
        self.batches = lru_cache(16)(self._batches)

    def _data(self, split: TokenSplit) -> tuple[Any, ...]:
        parts = (split.train, split.val, split.test)
        return tuple((*_arrays(part), *scoring_batches(part.lengths, self.recipe.batch_size)) for part in parts)

    def _batches(self, split: TokenSplit, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        size, lengths = self.recipe.batch_size, split.train.lengths
        each = [epoch_batches(seed, epoch, lengths, size) for epoch in range(self.recipe.epochs)]
        orders, starts = np.stack([order for order, _ in each]), np.stack([start for _, start in each])
        return orders, starts, starts.shape[1] - 1

    def arguments(self, member: LstmMember, mixture: Floats, address: int, progress: NDArray[np.int64]) -> Arguments:
        """Everything for one call but for its epochs, and before it the layout to read the result with."""
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
            (mixture, address),
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
    room, mask = aligned(plan.room), int(plan.table[MASK])
    room[mask : mask + plan.recipe.hidden % WIDE] = 1.0  # the cells of the last, partial vector
    return (
        room,
        np.full(plan.vocabulary, -1, dtype=np.int32),
        np.zeros(plan.unique, dtype=np.int32),
        np.zeros(max(plan.tokens, plan.unique), dtype=np.int32),
        np.zeros(longest, dtype=np.int64),
        np.zeros(longest, dtype=np.int64),
    )


def kept(arguments: Arguments) -> tuple[NDArray[Any], ...]:
    """Of a call's arguments what the next epoch depends on and what has been found: weights, Adam's sums, curves."""
    (_layout, dense, vectors), (curves, shown, _now) = arguments[3], arguments[7]
    return (*dense[:3], dense[4], *vectors, curves, shown)
