"""Tiles of accumulators for the LSTM kernel's products, and its sigmoid and tanh.

A tile is three rows of one to four vectors of ``WIDE`` float32, eight or with AVX-512 sixteen. Twelve accumulators hide
the latency of a fused multiply-add, and with three scalars and a weight beside them they fill the sixteen registers of
AVX2. A place's sum is the same for either width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.extending import register_model

from crossfade.lab.train.tables.simd import (
    WIDE,
    call,
    first,
    fma,
    greater,
    jit,
    load8,
    load16,
    load_at,
    nothing,
    operation,
    splat8,
    splat16,
    splat_of,
    vector,
)

HEIGHT = 3  # rows of a tile
load_wide, splat_wide = (load16, splat16) if WIDE == 16 else (load8, splat8)
_f = np.float32


class Tile(types.Type):
    """Three rows of ``width`` vectors."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"tile{HEIGHT}x{width}_f32x{WIDE}")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Tile) -> None:
        super().__init__(manager, kind, ir.ArrayType(vector(WIDE), HEIGHT * kind.width))


def _place(builder: Any, address: Any, index: Any, step: Any, count: int) -> Any:
    return builder.gep(address, [builder.add(index, builder.mul(step, ir.Constant(index.type, count)))])


def _load(builder: Any, address: Any, index: Any, step: Any, count: int) -> Any:
    return load_at(builder, _place(builder, address, index, step, count), WIDE)


def _pack(builder: Any, vectors: list[Any]) -> Any:
    tile = ir.Constant(ir.ArrayType(vector(WIDE), len(vectors)), ir.Undefined)
    for n, value in enumerate(vectors):
        tile = builder.insert_value(tile, value, n)
    return tile


def _unpack(builder: Any, tile: Any) -> list[Any]:
    return [builder.extract_value(tile, n) for n in range(tile.type.count)]


def _width(tile: Any) -> int:
    return int(tile.type.count) // HEIGHT


def tile_of(width: int) -> Any:
    """``spread(address, index, apart)``: the vectors address[index + c * apart : ... + WIDE] in each of the rows."""

    @operation(lambda address, index, apart: Tile(width))
    def spread(builder: Any, address: Any, index: Any, apart: Any) -> Any:
        return _pack(builder, [_load(builder, address, index, apart, c) for c in range(width)] * HEIGHT)

    return spread


def tile_loader(width: int) -> Any:
    """``load(address, a, b, c, apart)``: the three rows begin at a, b and c, their vectors are ``apart``."""

    @operation(lambda address, a, b, c, apart: Tile(width))
    def load(builder: Any, address: Any, a: Any, b: Any, c: Any, apart: Any) -> Any:
        return _pack(builder, [_load(builder, address, row, apart, n) for row in (a, b, c) for n in range(width)])

    return load


@operation(nothing)
def store_tile(builder: Any, address: Any, index: Any, stride: Any, apart: Any, tile: Any) -> None:
    """Row r's vector c to address[index + r * stride + c * apart : ... + WIDE]."""
    width = _width(tile)
    for r in range(HEIGHT):
        row = builder.add(index, builder.mul(stride, ir.Constant(index.type, r)))
        for c in range(width):
            target = builder.bitcast(_place(builder, address, row, apart, c), vector(WIDE).as_pointer())
            builder.store(builder.extract_value(tile, r * width + c), target).align = 4


@operation(first)
def grow(builder: Any, tile: Any, scalars: Any, index: Any, stride: Any, weights: Any, at: Any, apart: Any) -> Any:
    """tile[r][c] + scalars[index + r * stride] * weights[at + c * apart : ... + WIDE]"""
    width = _width(tile)
    scales = [splat_of(builder, builder.load(_place(builder, scalars, index, stride, r)), WIDE) for r in range(HEIGHT)]
    out = _unpack(builder, tile)
    for c in range(width):  # one weight at a time: beside twelve sums and three scalars there is one register left
        value = _load(builder, weights, at, apart, c)
        for r in range(HEIGHT):
            out[r * width + c] = call(builder, "fma", scales[r], value, out[r * width + c])
    return _pack(builder, out)


@operation(first)
def square_root(builder: Any, value: Any) -> Any:
    """The square root of each place."""
    return call(builder, "sqrt", value)


@jit
def tanh(x: Any) -> Any:
    """tanh(x) within 5e-7 of its value (Eigen's rational approximation); NaN stays NaN."""
    top, low = splat_wide(_f(7.90531110763549805)), splat_wide(_f(-7.90531110763549805))
    x = greater(x, top, top, x)
    x = greater(low, x, low, x)
    z = x * x
    p = fma(z, splat_wide(_f(-2.76076847742355e-16)), splat_wide(_f(2.00018790482477e-13)))
    p = fma(p, z, splat_wide(_f(-8.60467152213735e-11)))
    p = fma(p, z, splat_wide(_f(5.12229709037114e-08)))
    p = fma(p, z, splat_wide(_f(1.48572235717979e-05)))
    p = fma(p, z, splat_wide(_f(6.37261928875436e-04)))
    p = fma(p, z, splat_wide(_f(4.89352455891786e-03)))
    q = fma(z, splat_wide(_f(1.19825839466702e-06)), splat_wide(_f(1.18534705686654e-04)))
    q = fma(q, z, splat_wide(_f(2.26843463243900e-03)))
    q = fma(q, z, splat_wide(_f(4.89352518554385e-03)))
    return x * p / q


@jit
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) within 2e-7, as (1 + tanh(x / 2)) / 2."""
    half = splat_wide(_f(0.5))
    return fma(half, tanh(half * x), half)
