"""One tiny network, trained from its first step to its last epoch inside the processor's cache.

A batch goes through in blocks of eight rows (a shorter block is filled up with rows that weigh nothing). A layer's
weights lie in *panels*: one side of the matrix runs along the vector's places ("lanes", filled up with zeros to a
multiple of eight), the other is walked one at a time. Three loops over a panel are then all there is:

====================  ====================================  =================================================
``expand``            lanes += walked side * weights        first hidden layer, forward; other layers, backward
``contract``          walked side += lanes * weights        other layers, forward
``descend``           weights -= walked side * lanes        SGD with momentum; the gradient is never written down
====================  ====================================  =================================================

The first hidden layer has its outputs in the lanes and needs no backward pass; every other layer has its inputs there.
So what is walked is always stored [unit, row of the block] and what fills lanes [row of the block, unit].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.lab.train.tables.rows import (
    add_products,
    add_scaled,
    combine,
    load_rows8,
    load_rows16,
    row_totals,
    rows,
    store_rows,
    transpose,
    where_positive,
)
from crossfade.lab.train.tables.simd import ROWS, WIDE, fma, jit, load8, load16, splat8, splat16, store

LANES, WALK, WEIGHTS, BIAS, COLUMNS = 0, 1, 2, 3, 4  # a row of the table ``layers``, one a layer
_f = np.float32


def _panel_loops(width: int) -> tuple[Any, Any]:
    load, splat = (load8, splat8) if width == 8 else (load16, splat16)

    @jit
    def expand(p: Any, at: int, walk: int, walked: Any, start: Any) -> Any:
        out = rows(start)
        for k in range(walk):
            out = add_scaled(out, walked, ROWS * k, load(p, at + width * k))
        return out

    @jit
    def descend(p: Any, v: Any, at: int, walk: int, walked: Any, values: Any, rate: Any, mu: Any, wd: Any) -> None:
        step, momentum, decay = splat(-rate), splat(mu), splat(wd)
        for k in range(walk):
            i = at + width * k
            gradient, weight = combine(values, walked, ROWS * k), load(p, i)
            if wd != 0.0:
                gradient = fma(decay, weight, gradient)
            velocity = fma(momentum, load(v, i), gradient)
            store(v, i, velocity)
            store(p, i, fma(step, velocity, weight))

    return expand, descend


_expand8, _descend8 = _panel_loops(8)
_expand16, _descend16 = _panel_loops(16)


@jit
def descend(
    p: Any, v: Any, at: int, lanes: int, walk: int, walked: Any, values: Any, rate: Any, mu: Any, wd: Any
) -> None:
    """One step of SGD: the gradient is walked [unit, row] times values [row, lane]."""
    m = 0
    while m < lanes:
        if lanes - m >= 16 and WIDE == 16:
            _descend16(p, v, at + m * walk, walk, walked, load_rows16(values, m, lanes), rate, mu, wd)
            m += 16
        else:
            _descend8(p, v, at + m * walk, walk, walked, load_rows8(values, m, lanes), rate, mu, wd)
            m += 8


@jit
def first_hidden(p: Any, at: int, bias: int, lanes: int, walk: int, walked: Any, h: Any) -> None:
    """h [row, lane] = ReLU(bias + walked [unit, row] * weights)."""
    m = 0
    while m < lanes:
        if lanes - m >= 16 and WIDE == 16:
            wide = _expand16(p, at + m * walk, walk, walked, load16(p, bias + m))
            store_rows(h, m, lanes, where_positive(wide, wide))
            m += 16
        else:
            narrow = _expand8(p, at + m * walk, walk, walked, load8(p, bias + m))
            store_rows(h, m, lanes, where_positive(narrow, narrow))
            m += 8


@jit
def back(p: Any, at: int, lanes: int, walk: int, walked: Any, h: Any, dh: Any) -> None:
    """dh [row, lane]: the gradient of the hidden units h that are this layer's input, before their ReLU."""
    m = 0
    while m < lanes:
        if lanes - m >= 16 and WIDE == 16:
            wide = _expand16(p, at + m * walk, walk, walked, splat16(_f(0.0)))
            store_rows(dh, m, lanes, where_positive(wide, load_rows16(h, m, lanes)))
            m += 16
        else:
            narrow = _expand8(p, at + m * walk, walk, walked, splat8(_f(0.0)))
            store_rows(dh, m, lanes, where_positive(narrow, load_rows8(h, m, lanes)))
            m += 8


@jit
def contract(p: Any, at: int, bias: int, lanes: int, walk: int, values: Any, z: Any) -> None:
    """z [unit, row] = bias + values [row, lane] * weights."""
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
        store(z, ROWS * k, row_totals(sums) + splat8(p[bias + k]))


@jit
def to_rows(units: int, source: Any, out: Any, lanes: int) -> None:
    """From [unit, row of the block] to [row, unit]."""
    for k in range(0, units, 8):
        store_rows(out, k, lanes, transpose(load_rows8(source, ROWS * k, ROWS)))


@jit
def to_units(units: int, source: Any, out: Any) -> None:
    """From [row of the block, unit] to [unit, row]."""
    for k in range(0, units, 8):
        store_rows(out, ROWS * k, ROWS, transpose(load_rows8(source, k, units)))
