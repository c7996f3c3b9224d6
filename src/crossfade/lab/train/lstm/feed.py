"""Texts of a stack of networks on the device, an epoch's batches laid ready in memory that stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossfade.lab.train.lstm.types import TokenPart

__all__ = ["Feed", "Texts"]

_BUCKET = 16  # texts are filled up to a multiple of this length: a step of another length is another graph
Order = tuple[NDArray[np.int32], NDArray[np.int64]]


class Texts(NamedTuple):
    """A step's batches: (sources, rows, length) tokens and (sources, rows) of everything else."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    real: Tensor  # False for a row that fills up a smaller batch


class Feed:
    """One part (training, say) of several sources, each with an order of its own.

    Args:
        parts: One a source; sources may share the object.
        rows: Of a batch at most.
        device: Where.
    """

    def __init__(self, parts: Sequence[TokenPart], rows: int, device: torch.device) -> None:
        self.parts, self.rows, self.device = parts, rows, device
        different = list({id(part): part for part in parts}.values())
        self.which = torch.tensor([[different.index(part)] for part in parts], device=device)
        most = max(len(part) for part in different)
        longest = max(int(part.lengths.max(initial=1)) for part in different)
        shape = (len(different), most, -(-longest // _BUCKET) * _BUCKET)
        # What fills a text up changes nothing. All words in turn: gradients that are added to one word wait in line.
        tokens = np.broadcast_to(np.arange(shape[2]), shape).copy()
        lengths, labels = np.ones(shape[:2], dtype=np.int64), np.zeros(shape[:2], dtype=np.int64)
        for part, *mine in zip(different, tokens, lengths, labels, strict=True):
            for array, values in zip(mine[1:], (part.lengths, part.labels), strict=True):
                array[: len(part)] = values
            mine[0] %= part.tokens.max(initial=0) + 1
            mine[0][: len(part)][np.arange(shape[2]) < part.lengths[:, None]] = part.tokens
        self.texts = [torch.from_numpy(array).to(device) for array in (tokens, lengths, labels)]
        self.rows_of: NDArray[np.int64] = np.zeros((0, 0, 0), dtype=np.int64)
        self.order: Tensor | None = None

    def lay(self, orders: Sequence[Order]) -> list[int]:
        """Lay batches ready, from ``epoch_batches`` or ``scoring_batches``, each source's. Always as many.

        Returns:
            The length of every step's texts, filled up.
        """
        steps = max(len(starts) - 1 for _, starts in orders)
        rows = np.full((steps, len(orders), self.rows), -1, dtype=np.int64)
        longest = np.ones(steps, dtype=np.int64)
        for at, (part, (order, starts)) in enumerate(zip(self.parts, orders, strict=True)):
            sizes = np.diff(starts)
            rows[: len(sizes), at][np.arange(self.rows) < sizes[:, None]] = order
            longest[: len(sizes)] = np.maximum(longest[: len(sizes)], part.lengths[order[starts[:-1]]])
        self.rows_of = rows
        if self.order is None:
            self.order = torch.empty(rows.shape, dtype=torch.int64, device=self.device)
        self.order.copy_(torch.from_numpy(rows))
        return [int(length) for length in -(-longest // _BUCKET) * _BUCKET]

    def batch(self, step: Tensor, length: int) -> Texts:
        """The batches of a step, whose number (1,) is on the device."""
        assert self.order is not None
        order = self.order.index_select(0, step)[0]
        tokens, lengths, labels = (values[self.which, order.clamp(min=0)] for values in self.texts)
        real = order >= 0
        return Texts(tokens[..., :length], torch.where(real, lengths, 1), labels, real)

    def own(self, values: NDArray[np.float32], source: int) -> NDArray[np.float32]:
        """Of values (steps, rows, ...) those of a source's examples, in its part's order."""
        order = self.rows_of[:, source]
        out = np.empty((len(self.parts[source]), *values.shape[2:]), dtype=values.dtype)
        out[order[order >= 0]] = values[order >= 0]
        return out
