"""The layout of a network's weights in memory, and the three loops over them.

A batch is computed in blocks of eight rows (a shorter block is filled up with rows of weight zero).
A layer's weights lie in *panels*: one side of the matrix runs along the places of a vector ("lanes", filled up with
zeros to a multiple of eight), the loops walk along the other side one unit at a time. There are three of them:

====================  ====================================  =================================================
``expand``            lanes += walked side * weights        first hidden layer, forward; other layers, backward
``contract``          walked side += lanes * weights        other layers, forward
``descend``           weights -= walked side * lanes        SGD with momentum; the gradient is never written down
====================  ====================================  =================================================

The first hidden layer has its outputs in the lanes and needs no backward pass; every other layer has its inputs there.
So the walked side is always stored as [unit, row of the block], and the side in the lanes as [row of the block, unit].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfade.lab.train.outcome import Floats
from crossfade.lab.train.tables.simd import (
    ROWS,
    WIDE,
    Address,
    Block,
    Vec,
    add_products,
    add_scaled,
    combine,
    fma,
    jit,
    load8,
    load16,
    load_rows8,
    load_rows16,
    row_totals,
    rows,
    splat8,
    splat16,
    store,
    store_rows,
    transpose,
    where_positive,
)

_LINE = 16  # floats in a cache line
_PAGE = 1024  # floats in 4096 bytes
_f = np.float32


class Layer(NamedTuple):
    """A row of the table of layers: the panels' sides, and where weights and biases begin."""

    lanes: int
    walk: int
    weights: int
    bias: int


class Sgd(NamedTuple):
    """Learning rate, momentum and weight decay of a step."""

    rate: np.float32
    momentum: np.float32
    decay: np.float32


# --- the places of weights -----------------------------------------------------------------------------------------


def aligned(count: int) -> Floats:
    """Return zeros that begin at a cache line."""
    memory = np.zeros(count + _LINE, dtype=np.float32)
    start = -memory.ctypes.data // 4 % _LINE
    return memory[start : start + count]


@dataclass(frozen=True, eq=False)
class Layout:
    """The place of each weight of a network in memory.

    Attributes:
        sizes: Units of each layer, inputs first.
        layers: One row, a ``Layer``, for each of them.
        places: The place of each of torch's parameters, in their order.
        size: Floats in all.
        widest: A multiple of eight that no layer has more units than.
    """

    sizes: tuple[int, ...]
    layers: NDArray[np.int64]
    places: NDArray[np.int64]
    size: int
    widest: int

    def pack(self, weights: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Return the weights in the kernel's order, and a velocity of zeros."""
        # Two arrays that are walked together must not share their addresses' lower 12 bits: the processor would take
        # a read of one for a read of what was just written to the other, and wait.
        start = -(-self.size // _PAGE) * _PAGE + _PAGE // 2
        memory = aligned(start + self.size)
        p, v = memory[: self.size], memory[start : start + self.size]
        p[self.places] = np.concatenate([array.ravel() for array in weights])
        return p, v

    def unpack(self, p: Floats) -> list[Floats]:
        """Return weight and bias of each layer, in torch's shapes."""
        flat, out, at = p[self.places], [], 0
        for fan_in, fan_out in pairwise(self.sizes):
            end = at + fan_in * fan_out
            out += [flat[at:end].reshape(fan_out, fan_in), flat[end : end + fan_out]]
            at = end + fan_out
        return out


@lru_cache(maxsize=64)
def layout(sizes: tuple[int, ...]) -> Layout:
    """Return the layout of a network with these layers."""
    layers, places, at = [], [], 0
    for n, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        is_first_hidden, is_output = n == 0 < len(sizes) - 2, n == len(sizes) - 2
        lanes, walk = (fan_out, fan_in) if is_first_hidden else (fan_in, fan_out)
        padded_lanes = lanes + -lanes % 8
        # a hidden layer's outputs are transposed eight at a time
        padded_walk = walk if is_first_hidden or is_output else walk + -walk % 8
        lane, step = np.arange(lanes)[:, None], np.arange(walk)[None, :]
        panel = lane // 16 * 16 if WIDE == 16 else lane // 8 * 8
        width = np.minimum(padded_lanes - panel, 16) if WIDE == 16 else 8
        within = at + panel * padded_walk + step * width + lane - panel
        places.append((within if is_first_hidden else within.T).ravel())
        bias = at + padded_lanes * padded_walk
        bias += -bias % _LINE
        layers.append(Layer(padded_lanes, padded_walk, at, bias))
        places.append(bias + np.arange(fan_out))
        at = bias + fan_out + -fan_out % _LINE
    widest = max(max(layer.lanes, layer.walk) for layer in layers)
    table = np.array(layers, dtype=np.int64)
    return Layout(tuple(sizes), table, np.concatenate(places), at, widest + -widest % 8)


# --- loops over one panel, compiled for eight and for sixteen lanes ------------------------------------------------


def _panel_loops(width: int) -> tuple[Callable[..., None], ...]:
    load, splat, load_rows = (load8, splat8, load_rows8) if width == 8 else (load16, splat16, load_rows16)

    @jit
    def expand(p: Address, layer: Layer, m: int, walked: Address, start: Vec) -> Block:
        out, at = rows(start), layer.weights + m * layer.walk
        for k in range(layer.walk):
            out = add_scaled(out, walked, ROWS * k, load(p, at + width * k))
        return out

    @jit
    def first_hidden(p: Address, layer: Layer, m: int, walked: Address, h: Address) -> None:
        values = expand(p, layer, m, walked, load(p, layer.bias + m))
        store_rows(h, m, layer.lanes, where_positive(values, values))

    @jit
    def back(p: Address, layer: Layer, m: int, walked: Address, h: Address, dh: Address) -> None:
        values = expand(p, layer, m, walked, splat(_f(0.0)))
        store_rows(dh, m, layer.lanes, where_positive(values, load_rows(h, m, layer.lanes)))

    @jit
    def descend(p: Address, layer: Layer, m: int, v: Address, walked: Address, inputs: Address, sgd: Sgd) -> None:
        step, momentum, decay = splat(-sgd.rate), splat(sgd.momentum), splat(sgd.decay)
        values, at = load_rows(inputs, m, layer.lanes), layer.weights + m * layer.walk
        for k in range(layer.walk):
            i = at + width * k
            gradient, weight = combine(values, walked, ROWS * k), load(p, i)
            if sgd.decay != 0.0:
                gradient = fma(decay, weight, gradient)
            velocity = fma(momentum, load(v, i), gradient)
            store(v, i, velocity)
            store(p, i, fma(step, velocity, weight))

    return first_hidden, back, descend


# --- loops over a layer --------------------------------------------------------------------------------------------


def _over_panels(narrow: Callable[..., None], wide: Callable[..., None]) -> Callable[..., None]:
    @jit
    def loop(p: Address, layer: Layer, *arguments: Any) -> None:
        m = 0
        while m < layer.lanes:
            if layer.lanes - m >= 16 and WIDE == 16:
                wide(p, layer, m, *arguments)
                m += 16
            else:
                narrow(p, layer, m, *arguments)
                m += 8

    return loop


# ``first_hidden(p, layer, walked, h)`` computes h [row, lane] = ReLU(bias + walked [unit, row] * weights);
# ``back(p, layer, walked, h, dh)`` dh [row, lane], the gradient of this layer's inputs h before their ReLU; and
# ``descend(p, layer, v, walked, inputs, sgd)`` takes a step of SGD, whose gradient is walked times inputs [row, lane].
first_hidden, back, descend = map(_over_panels, _panel_loops(8), _panel_loops(16))


@jit
def contract(p: Address, layer: Layer, values: Address, z: Address) -> None:
    """Compute z [unit, row] = bias + values [row, lane] * weights."""
    lanes, walk, at = layer.lanes, layer.walk, layer.weights
    for k in range(walk):
        sums, m = rows(splat8(_f(0.0))), 0
        while m < lanes:
            panel = at + m * walk
            if lanes - m >= 16 and WIDE == 16:
                sums = add_products(sums, values, m, lanes, load8(p, panel + 16 * k))
                sums = add_products(sums, values, m + 8, lanes, load8(p, panel + 16 * k + 8))
                m += 16
            else:
                sums = add_products(sums, values, m, lanes, load8(p, panel + 8 * k))
                m += 8
        store(z, ROWS * k, row_totals(sums) + splat8(p[layer.bias + k]))


@jit
def to_rows(units: int, source: Address, out: Address, lanes: int) -> None:
    """Transpose [unit, row of the block] to [row, unit]."""
    for k in range(0, units, 8):
        store_rows(out, k, lanes, transpose(load_rows8(source, ROWS * k, ROWS)))


@jit
def to_units(units: int, source: Address, out: Address) -> None:
    """Transpose [row of the block, unit] to [unit, row]."""
    for k in range(0, units, 8):
        store_rows(out, ROWS * k, ROWS, transpose(load_rows8(source, k, units)))
