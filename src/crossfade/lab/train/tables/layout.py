"""Where the kernel keeps a network's weights: see ``panels``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.tables.panels import BIAS, LANES, WALK, WEIGHTS
from crossfade.lab.train.tables.simd import WIDE
from crossfade.lab.train.tables.types import Floats

_LINE = 16  # floats in a cache line
_PAGE = 1024  # floats in 4096 bytes


def aligned(count: int) -> Floats:
    """Zeros that begin with a cache line."""
    memory = np.zeros(count + _LINE, dtype=np.float32)
    start = -memory.ctypes.data // 4 % _LINE
    return memory[start : start + count]


@dataclass(frozen=True, eq=False)
class Layout:
    """``layers``: one row a layer for the kernel. ``places``: where each of torch's parameters lies, of ``size``."""

    sizes: tuple[int, ...]
    layers: NDArray[np.int64]
    places: NDArray[np.int64]
    size: int

    def pack(self, weights: Sequence[Floats]) -> tuple[Floats, Floats]:
        """The weights in the kernel's order, and a velocity of zeros."""
        # Two arrays that are walked together must not share their addresses' lower 12 bits: the processor would take
        # a read of one for a read of what was just written to the other, and wait.
        start = -(-self.size // _PAGE) * _PAGE + _PAGE // 2
        memory = aligned(start + self.size)
        p, v = memory[: self.size], memory[start : start + self.size]
        p[self.places] = np.concatenate([array.ravel() for array in weights])
        return p, v

    def unpack(self, p: Floats) -> list[Floats]:
        """Weight and bias of each layer, in torch's shapes."""
        flat, out, at = p[self.places], [], 0
        for fan_in, fan_out in pairwise(self.sizes):
            for shape in ((fan_out, fan_in), (fan_out,)):
                count = int(np.prod(shape))
                out.append(flat[at : at + count].reshape(shape))
                at += count
        return out


@lru_cache(maxsize=64)
def layout(sizes: tuple[int, ...]) -> Layout:
    """The layout of a network with these layers."""
    layers = np.zeros((len(sizes) - 1, 4), dtype=np.int64)
    places, at = [], 0
    for n, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        first_hidden, output = n == 0 < len(sizes) - 2, n == len(sizes) - 2
        lanes, walk = (fan_out, fan_in) if first_hidden else (fan_in, fan_out)
        padded_lanes = lanes + -lanes % 8
        # a hidden layer's outputs are turned eight at a time
        padded_walk = walk if first_hidden or output else walk + -walk % 8
        lane, step = np.arange(lanes)[:, None], np.arange(walk)[None, :]
        panel = lane // 16 * 16 if WIDE == 16 else lane // 8 * 8
        width = np.minimum(padded_lanes - panel, 16) if WIDE == 16 else 8
        within = at + panel * padded_walk + step * width + lane - panel
        places.append((within if first_hidden else within.T).ravel())
        layers[n, [LANES, WALK, WEIGHTS]] = padded_lanes, padded_walk, at
        at += padded_lanes * padded_walk
        at += -at % _LINE
        layers[n, BIAS] = at
        places.append(at + np.arange(fan_out))
        at += fan_out + -fan_out % _LINE
    return Layout(tuple(sizes), layers, np.concatenate(places), at)
